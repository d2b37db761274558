// Convolutions along one dimension in nchw: audio, and signals of few channels.
#pragma once
#include <algorithm>
#include <cstring>

#include <quern/base/ceil_div.hpp>
#include <quern/kernels/conv/geometry.hpp>
#include <quern/kernels/vec/images.hpp>
#include <quern/kernels/weights.hpp>

QUERN_BEGIN
namespace conv {

/// Inputs that a tile of line_f32 reads: in place where they lie inside of their rows, else copied, with zeros for padding and one piece for each
/// remainder of a position by the stride, so that columns are neighbours.
struct LineWindow {
    std::int64_t width = 0, stride = 1, dilation = 1, taps = 1, channels = 1;
    std::int64_t phase = 0, ld = 0;      ///< floats of a piece and of a channel of the copy
    std::vector<std::int64_t> at, in_place;  ///< LineTile::at for the copy, and for the row itself
    std::vector<std::int64_t> pieces;    ///< remainders that taps read

    /// For tiles of at most `columns`.
    void plan(std::int64_t columns) {
        const std::int64_t reach = (taps - 1) * dilation;
        phase = columns + reach / stride + 1 + vec::line_slack;
        phase = (phase + 15) / 16 * 16;
        ld = phase * stride;
        if (ld % 1024 == 0) ld += 16;  // channels would meet in the same lines of the cache
        std::vector<char> used(static_cast<std::size_t>(stride), 0);
        for (std::int64_t t = 0; t < taps; ++t) {
            const std::int64_t i = t * dilation;
            used[static_cast<std::size_t>(i % stride)] = 1;
            at.push_back(i % stride * phase + i / stride);
            if (stride == 1) in_place.push_back(i);
        }
        for (std::int64_t p = 0; p < stride; ++p)
            if (used[static_cast<std::size_t>(p)]) pieces.push_back(p);
    }
    std::size_t floats() const { return static_cast<std::size_t>(channels * ld); }
    /// The tile whose column 0 begins at position `begin` of rows x, ldx apart.
    vec::LineTile tile(const float* x, std::int64_t ldx, std::int64_t begin, std::int64_t columns, float* copy) const {
        const std::int64_t reach = (taps - 1) * dilation;
        const bool inside = stride == 1 && begin >= 0 && begin + reach + columns + vec::line_slack <= width;
        if (inside && (channels <= 8 || ldx % 1024 != 0)) return {x + begin, ldx, channels, taps, in_place.data(), columns};
        const std::int64_t n = columns + reach / stride + 1;
        for (std::int64_t c = 0; c < channels; ++c)
            for (std::int64_t p : pieces) fill(x + c * ldx, begin + p, n, copy + c * ld + p * phase);
        return {copy, ld, channels, taps, at.data(), columns};
    }

    /// The inputs from, from + stride, ...: n of them, zeros where there are none.
    void fill(const float* x, std::int64_t from, std::int64_t n, float* to) const {
        const std::int64_t lo = from < 0 ? std::min(n, ceil_div(-from, stride)) : 0, hi = from >= width ? lo : std::clamp(ceil_div(width - from, stride), lo, n);
        std::fill_n(to, lo, 0.f);
        if (const std::int64_t count = hi - lo; count > 0) {
            x += from + lo * stride;
            if (stride == 1) std::memcpy(to + lo, x, static_cast<std::size_t>(count) * sizeof(float));
            else if (stride == 2) every<2>(x, count, to + lo);
            else if (stride == 4) every<4>(x, count, to + lo);
            else
                for (std::int64_t i = 0; i < count; ++i) to[lo + i] = x[i * stride];
        }
        std::fill_n(to + hi, n - hi, 0.f);
    }

private:
    /// A constant stride is shuffles of whole vectors.
    template <int S> static void every(const float* x, std::int64_t n, float* to) {
        for (std::int64_t i = 0; i < n; ++i) to[i] = x[i * S];
    }
};

/// How the columns, groups and row blocks of lines are cut into tiles.
struct LineCut {
    std::int64_t columns = 1, tiles = 1;         ///< of a line
    std::int64_t groups = 1, group_tiles = 1;    ///< groups of a tile
    std::int64_t blocks = 1, block_tiles = 1;    ///< row blocks of a tile
    std::int64_t all(std::int64_t lines) const { return lines * tiles * group_tiles * block_tiles; }
};
/// m rows of channels * taps multiply-adds a column in row blocks of `row_block`, `reach` inputs beyond a tile's columns in each channel.
inline LineCut cut_line(std::int64_t lines, std::int64_t group, std::int64_t out, std::int64_t m, std::int64_t taps, std::int64_t channels, std::int64_t reach, std::int64_t row_block) {
    constexpr std::int64_t target = 512 << 10, worth = 160 << 10, floats = 96 << 10;
    LineCut c;
    const std::int64_t row_blocks = ceil_div(m, row_block), rows = ceil_div(m, row_blocks), step = rows <= 3 ? 128 : rows <= 6 ? 64 : rows <= 9 ? 48 : 32;
    const std::int64_t weights = m * channels * taps, each = std::max<std::int64_t>(1, weights * out);
    auto stepped = [&](std::int64_t n) { return ceil_div(n, step) * step; };
    c.groups = std::clamp<std::int64_t>(target / each, 1, group);
    c.group_tiles = ceil_div(group, c.groups);
    const std::int64_t outer = lines * c.group_tiles;
    std::int64_t pieces = std::max<std::int64_t>(1, (each + target / 2) / target);
    if (outer == 1 && pieces % 2 != 0 && pieces < 8 && each * c.groups > worth) ++pieces;
    c.columns = std::max(stepped(ceil_div(out, pieces)), stepped(std::min<std::int64_t>(weights >> 10, 256)));  // many weights are worth a long tile
    c.columns = std::min(c.columns, std::max(step, (floats / channels - reach) / step * step));
    c.tiles = ceil_div(out, c.columns);
    c.columns = stepped(ceil_div(out, c.tiles));
    c.tiles = ceil_div(out, c.columns);
    c.blocks = row_blocks;
    // Each tile of row blocks copies the inputs again.
    if (const std::int64_t n = outer * c.tiles, wanted = std::min<std::int64_t>(8, each / target); n < wanted || (n == 1 && each > worth)) {
        c.block_tiles = std::min({row_blocks, ceil_div(std::max<std::int64_t>(2, wanted), n), std::max<std::int64_t>(2, m * taps / 256)});
        c.blocks = ceil_div(row_blocks, c.block_tiles);
        c.block_tiles = ceil_div(row_blocks, c.blocks);
    }
    return c;
}

class LineKernel final : public Kernel {
public:
    LineKernel(const Problem& p, const Target& target) : p_(p), t_(vec::table(target.isa)), images_(vec::image_table(target.isa)) {
        unread = 1u << 1;
        p_.w = aligned_weights(target, p_.w);
        m_ = p_.w.shape()[0] / p_.group, c_ = p_.w.shape()[1], taps_ = p_.w.count() / (p_.w.shape()[0] * c_);
        each_ = (t_.packed_rows_floats(m_, c_ * taps_) + 15) / 16 * 16;
        const std::size_t group = static_cast<std::size_t>(p_.group);
        packed_ = packed_weights(target, std::string("conv.line ") + t_.name + " " + std::to_string(p_.group), {p_.w}, group * each_ * sizeof(float), [&](std::byte* to) {
            std::memset(to, 0, group * each_ * sizeof(float));
            const auto* w = static_cast<const float*>(p_.w.raw());
            for (std::size_t g = 0; g < group; ++g)
                t_.pack_rows_f32(m_, c_ * taps_, w + static_cast<std::int64_t>(g) * m_ * c_ * taps_, c_ * taps_, reinterpret_cast<float*>(to) + g * each_);
        });
        p_.w = Tensor();
    }
    const char* name() const noexcept override { return "conv.line"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto q = std::make_shared<Plan>();
        const View &x = in[0], &y = out[0];
        const std::size_t last = static_cast<std::size_t>(p_.window.spatial()) - 1;
        q->images = x.dim(0), q->rows = last ? x.dim(2) : 1, q->out = y.dim(-1);
        LineWindow& w = q->window;
        w.width = x.dim(-1), w.stride = p_.window.strides[last], w.dilation = p_.window.dilations[last], w.taps = taps_, w.channels = c_;
        q->pad = p_.window.pad_begin(static_cast<int>(last), w.width);
        Booking b;
        if (y.count() > 0) {
            q->cut = cut_line(q->images * q->rows, p_.group, q->out, m_, taps_, c_, (taps_ - 1) * w.dilation / w.stride, t_.row_block);
            w.plan(std::min(q->out, q->cut.columns));
            q->work = (w.floats() * sizeof(float) + 63) / 64 * 64;
        }
        b.scratch = q->work * static_cast<std::size_t>(workers);
        b.state = std::move(q);
        return b;
    }
    void run(const Call& call) const override {
        const Plan& q = *static_cast<const Plan*>(call.state);
        const LineCut& cut = q.cut;
        if (call.out[0].count() == 0) return;
        const std::int64_t blocks = ceil_div(m_, t_.row_block), ldx = q.rows * q.window.width, ldy = q.rows * q.out;
        const auto* x = call.in[0].in<float>();
        auto* y = call.out[0].out<float>();
        vec::Epilogue base;
        base.post = p_.post, base.alpha = p_.post_alpha, base.beta = p_.post_beta;
        if (p_.has_bias && call.in.size() > 2 && call.in[2].present()) base.bias_col = call.in[2].in<float>();
        if (p_.has_residual && call.in.size() > 3) base.residual = call.in[3].in<float>();
        call.workers.for_each(cut.all(q.images * q.rows), [&](std::int64_t i, int worker) {
            auto* copy = reinterpret_cast<float*>(call.scratch + static_cast<std::size_t>(worker) * q.work);
            const std::int64_t b0 = i % cut.block_tiles * cut.blocks, o0 = i / cut.block_tiles % cut.tiles * cut.columns, line = i / (cut.block_tiles * cut.tiles) / cut.group_tiles;
            const std::int64_t g0 = i / (cut.block_tiles * cut.tiles) % cut.group_tiles * cut.groups, g1 = std::min(p_.group, g0 + cut.groups);
            const std::int64_t image = line / q.rows, row = line % q.rows;
            for (std::int64_t g = g0; g < g1; ++g) {
                const float* from = x + ((image * p_.group + g) * c_ * q.rows + row) * q.window.width;
                const std::int64_t to = ((image * p_.group + g) * m_ * q.rows + row) * q.out + o0;
                vec::Epilogue e = base;
                if (e.bias_col) e.bias_col += g * m_;
                if (e.residual) e.residual += to;
                const vec::LineTile tile = q.window.tile(from, ldx, o0 * q.window.stride - q.pad, std::min(cut.columns, q.out - o0), copy);
                images_.line_f32(tile, static_cast<const float*>(packed_.raw()) + static_cast<std::size_t>(g) * each_, m_, b0, std::min(blocks, b0 + cut.blocks), y + to, ldy, e);
            }
        });
    }

private:
    struct Plan {
        std::int64_t images = 0, rows = 1, out = 0, pad = 0;  ///< rows: lines of a channel
        LineWindow window;
        LineCut cut;
        std::size_t work = 0;
    };
    Problem p_;
    const vec::Table& t_;
    const vec::ImageTable& images_;
    std::int64_t m_, c_, taps_;
    std::size_t each_;
    Tensor packed_;
};

/// Empty where the window goes along one dimension only and reaches no further than a tile's copy may.
inline std::string refuse_line_window(const Window& w, std::int64_t channels) {
    const std::size_t n = w.kernel.size(), last = n - 1;
    if (n == 2 && (w.kernel[0] != 1 || w.kernel[1] == 1 || w.strides[0] != 1 || w.pads[0] != 0 || w.pads[2] != 0)) return "a window of two dimensions or of one pixel";
    if (n < 1 || n > 2) return std::to_string(n) + " spatial dimensions; 1 and 2 are accepted";
    constexpr std::int64_t reach = 1 << 17, most = 1 << 20;
    if (w.strides[last] > 64) return "a stride of " + std::to_string(w.strides[last]) + "; up to 64 is accepted";
    if (w.pads[last] > most || w.pads[n + last] > most) return "padding of more than " + std::to_string(most);
    if (w.kernel[last] > reach || w.dilations[last] > reach || (w.kernel[last] - 1) * w.dilations[last] > reach || (w.kernel[last] - 1) * w.dilations[last] * channels > most)
        return "a window that reaches too far";
    return {};
}
inline std::string refuse_line(const Problem& p, const Target&) {
    if (p.dtype != DType::f32) return std::string("type ") + dtype_name(p.dtype) + "; float is accepted";
    if (p.layout != Layout::nchw) return "layout nhwc; nchw is accepted";
    if (p.has_gate || p.transposed) return p.has_gate ? "a gate" : "transposed";
    if (!p.w.defined() || p.w.count() == 0) return "weights are not constant";
    const std::int64_t channels = p.w.shape()[1], outputs = p.w.shape()[0] / std::max<std::int64_t>(1, p.group);
    const std::int64_t most = p.window.spatial() == 1 ? 128 : 4;
    if (channels > most || outputs > most) return std::to_string(channels) + " to " + std::to_string(outputs) + " channels a group; up to " + std::to_string(most) + " are accepted";
    if (std::string why = refuse_line_window(p.window, channels); !why.empty()) return why;
    if (p.width >= 0 && p.width / p.window.strides.back() <= 128 && channels >= 32 && outputs >= 32)
        return std::to_string(p.width) + " columns of many channels: rows of channels are fuller vectors";
    return {};
}
inline std::unique_ptr<Kernel> make_line(const Problem& p, const Target& t) { return std::make_unique<LineKernel>(p, t); }
inline constexpr Entry<Problem> conv_line{"conv.line", refuse_line, make_line};

}  // namespace conv
QUERN_END
