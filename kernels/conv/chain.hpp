// Pointwise convolution, depthwise convolution, pointwise convolution (an inverted residual) as one step: what lies between them
// stays in the cache of the core that made it.
#pragma once
#include <algorithm>
#include <cstring>

#include <quern/base/ceil_div.hpp>
#include <quern/kernels/conv/geometry.hpp>
#include <quern/kernels/packs.hpp>
#include <quern/kernels/vec/images.hpp>

QUERN_BEGIN
namespace conv {

/// Y = project(depthwise(expand(X))), nhwc, two spatial dimensions, f32, constant weights in ONNX's order; expand and project may be absent,
/// both where `pooled`.
/// Views: in[0] = X [N, H, W, C]; in[1], in[2] = expand's weights [D, C, 1, 1] and bias; in[3], in[4] = depthwise weights [D, 1, kh, kw] and
/// bias; in[5], in[6] = project's weights [M, D, 1, 1] and bias; in[7] = residual as Y, added before the last function. Weights and
/// biases may be absent. With an expand stage in[8...], up to most_parts - 1, are more channels of X: X is in[0] and these beside each other. out[0] = Y [N, Ho, Wo, M], M = D without project; `pooled` (without project): out[1] = its means [N, 1, 1, D].
/// Tolerance: that of each convolution after the other.
struct ChainProblem {
    struct Stage {
        Tensor w;  ///< undefined: the stage is absent
        bool has_bias = false;
        vec::Post post = vec::Post::none;
        float alpha = 0, beta = 0;
    };
    Stage expand, depthwise, project;
    Window window;  ///< of the depthwise convolution
    bool has_residual = false, pooled = false;
    static constexpr std::size_t first_part = 8, most_parts = 24;
};

class ChainKernel final : public Kernel {
public:
    ChainKernel(const ChainProblem& p, const Target& target) : p_(p), t_(vec::table(target.isa)), images_(vec::image_table(target.isa)) {
        d_ = p_.depthwise.w.shape()[0];
        taps_ = p_.window.kernel[0] * p_.window.kernel[1];
        auto pointwise = [&](ChainProblem::Stage& s, std::size_t input) {
            Tensor packed;
            if (s.w.defined()) {
                std::int64_t n = s.w.shape()[0], k = s.w.shape()[1];
                packed = packed_weights(target, std::string("conv.chain ") + t_.name, {s.w}, t_.packed_floats(n, k) * sizeof(float), [&](std::byte* to) {
                    t_.pack_b_f32(n, k, static_cast<const float*>(s.w.raw()), k, true, 1.f, reinterpret_cast<float*>(to));
                });
                unread |= 1u << input;
            }
            return packed;
        };
        expand_ = pointwise(p_.expand, 1);
        project_ = pointwise(p_.project, 5);
        m_ = p_.project.w.defined() ? p_.project.w.shape()[0] : d_;
        depthwise_ = packed_weights(target, "conv.chain depthwise", {p_.depthwise.w}, static_cast<std::size_t>(taps_ * d_) * sizeof(float), [&](std::byte* bytes) {
            const auto* w = static_cast<const float*>(p_.depthwise.w.raw());
            auto* to = reinterpret_cast<float*>(bytes);
            for (std::int64_t c = 0; c < d_; ++c)
                for (std::int64_t i = 0; i < taps_; ++i) to[i * d_ + c] = w[c * taps_ + i];
        });
        unread |= 1u << 3;
        strided_in = 1u | ~0u << ChainProblem::first_part;
        strided_out = !p_.has_residual;
        p_.expand.w = p_.depthwise.w = p_.project.w = Tensor();
    }
    const char* name() const noexcept override { return "conv.chain"; }
    std::size_t packed_bytes() const noexcept override { return expand_.bytes() + project_.bytes() + depthwise_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        std::int64_t channels = in[0].dims[3];
        for (const View& part : parts(in)) channels += part.dims[3];
        auto q = std::make_shared<Plan>(make_plan(in[0], channels, out[0], workers));
        Booking b;
        b.scratch = q->zeros + q->middle + q->sums + static_cast<std::size_t>(workers) * (q->rows + q->band + q->work);
        b.state = std::move(q);
        return b;
    }
    void run(const Call& call) const override {
        const Plan& q = *static_cast<const Plan*>(call.state);
        if (call.out[0].count() == 0 && !p_.pooled) return;
        std::memset(call.scratch, 0, q.zeros);
        if (q.apart) {
            run_tiles(call, q, 0);
            if (p_.pooled) run_means(call, q);
            return;
        }
        for (std::int64_t image = 0; image < q.images; ++image) {
            run_tiles(call, q, image);
            if (project_.defined()) run_project(call, q, image);
        }
    }

private:
    /// Two ways: `whole` tiles are bands of output rows with all channels and do all three stages; else tiles are groups of
    /// channels of one image and its bands, and the projection follows when all are done (`middle` holds what it reads). Each element is
    /// the same sum in both, so that the way may follow from the number of workers.
    struct Plan {
        vec::ConvShape s;  ///< of the depthwise convolution
        std::int64_t images, c, h, w, top;  ///< top: padding above
        std::int64_t x_row, y_row;          ///< floats from pixel to pixel of X and Y
        std::int64_t held, step;            ///< input rows in the buffer; output rows at a time
        std::int64_t bands, groups, each;   ///< each: channels of a group
        std::int64_t tiles_p, tile_p, tiles_n, tile_n;  ///< of the projection
        std::int64_t made;  ///< floats from pixel to pixel of what the projection reads: cores share no line of it
        bool by_panel;      ///< pixels are the inner loop of the projection's tiles
        bool whole, apart;  ///< apart: no image waits for another, for none shares `middle`
        std::size_t zeros, middle, sums, rows, band, work;  ///< bytes; sums: of each output row, whose order no cut changes
    };
    static constexpr std::int64_t most_rows = 64;  ///< of the kernel: refuse_chain
    /// Of X behind in[0].
    static std::span<const View> parts(std::span<const View> in) { return in.size() > ChainProblem::first_part ? in.subspan(ChainProblem::first_part) : std::span<const View>{}; }
    static std::size_t bytes(std::int64_t floats) { return static_cast<std::size_t>((floats + 15) / 16 * 16) * sizeof(float); }

    Plan make_plan(const View& x, std::int64_t channels, const View& y, std::int64_t workers) const {
        Plan q{};
        const Window& win = p_.window;
        q.images = x.dims[0], q.h = x.dims[1], q.w = x.dims[2], q.c = channels;
        q.x_row = x.row(), q.y_row = y.row();
        vec::ConvShape& s = q.s;
        for (int d = 0; d < 3; ++d) s.in[d] = s.out[d] = s.kernel[d] = s.stride[d] = s.dilation[d] = 1, s.pad[d] = 0;
        for (int d = 0; d < 2; ++d) {
            s.out[d + 1] = y.dims[d + 1], s.in[d + 1] = x.dims[d + 1];
            s.kernel[d + 1] = win.kernel[d], s.stride[d + 1] = win.strides[d], s.dilation[d + 1] = win.dilations[d];
            s.pad[d + 1] = win.pad_begin(d, x.dims[d + 1]);
        }
        std::int64_t ho = s.out[1], wo = s.out[2], reach = (s.kernel[1] - 1) * s.dilation[1] + 1;
        q.top = s.pad[1];
        // Bands keep everything in one core, but compute rows at their edges twice; groups of channels meet again at the projection.
        bool expands = expand_.defined();
        std::int64_t least = expands ? std::max<std::int64_t>(1, 7 * (s.kernel[1] - 1) * s.dilation[1] / (2 * s.stride[1])) : 2;
        std::int64_t wanted = ceil_div(workers, std::max<std::int64_t>(1, q.images));
        q.bands = ho >= 4 * wanted * least ? 2 * wanted : ho >= wanted * least ? wanted : 1;
        q.whole = project_.defined() && q.bands >= wanted;
        q.apart = q.whole || !project_.defined();
        std::int64_t work = q.h * q.w * q.c * d_ * (expands ? 1 : 0) + ho * wo * taps_ * d_ * 2;
        q.groups = q.bands >= wanted ? 1 : std::clamp<std::int64_t>(work / q.bands >> 20, 1, ceil_div(d_, t_.panel));
        const std::int64_t panels = ceil_div(d_, t_.panel), usual = ceil_div(panels, q.groups);
        auto most = [&](std::int64_t e) { return ceil_div(ceil_div(panels, e), workers) * e; };  // panels of the worker that has most
        std::int64_t each = usual;
        for (std::int64_t e = usual > 1 ? usual - 1 : 1; q.groups > 1 && e <= usual + 1; ++e)
            if (100 * most(e) <= 94 * most(each)) each = e;
        q.each = each * t_.panel;
        q.groups = ceil_div(d_, q.each);
        std::int64_t row = q.w * std::min(q.each, d_);
        q.step = std::clamp<std::int64_t>((96 << 10) / std::max<std::int64_t>(1, row * s.stride[1]), 1, std::max<std::int64_t>(1, ceil_div(ho, q.bands)));
        q.held = std::min(q.h, (q.step - 1) * s.stride[1] + reach);
        q.zeros = bytes(expands ? row : q.w * q.x_row);
        q.made = project_.defined() ? ceil_div(d_, 16) * 16 : q.y_row;
        q.middle = !q.whole && project_.defined() ? bytes(ho * wo * q.made) : 0;
        q.sums = p_.pooled ? bytes(q.images * ho * d_) : 0;
        q.rows = expands ? bytes(q.held * row) : 0;  // else rows are read where they are
        q.band = q.whole ? bytes(q.step * wo * q.made) : 0;
        q.work = (t_.gemm_work_bytes(q.w * q.held, d_, std::max(q.c, d_)) + 63) / 64 * 64;
        std::int64_t pixels = std::max<std::int64_t>(1, ho * wo);
        q.tiles_p = ceil_div(pixels, pixels <= 168 ? pixels : 112);
        q.tile_p = ceil_div(pixels, q.tiles_p);
        q.tile_n = ceil_div(std::max<std::int64_t>(1, (5 << 18) / std::max<std::int64_t>(1, q.tile_p * d_)), t_.panel) * t_.panel;
        q.tiles_n = ceil_div(m_, q.tile_n);
        q.by_panel = even_tiles(pixels, q.tiles_n, static_cast<double>(pixels) * static_cast<double>(d_ * m_), q.tiles_p, q.tile_p);
        return q;
    }
    static std::byte* workspace(const Call& call, const Plan& q, int worker) {
        return call.scratch + q.zeros + q.middle + q.sums + static_cast<std::size_t>(worker) * (q.rows + q.band + q.work);
    }
    static float* sums(const Call& call, const Plan& q) { return reinterpret_cast<float*>(call.scratch + q.zeros + q.middle); }
    void run_means(const Call& call, const Plan& q) const {
        const std::int64_t ho = q.s.out[1];
        const float part = 1.f / static_cast<float>(ho * q.s.out[2]);
        for (std::int64_t i = 0; i < q.images; ++i) {
            float* y = call.out[1].out<float>() + i * d_;
            images_.sum_rows_f32(ho, d_, sums(call, q) + i * ho * d_, d_, y);
            t_.affine_f32(y, part, 0, y, d_);
        }
    }
    vec::Epilogue end(const ChainProblem::Stage& s, const Call& call, std::size_t bias, std::int64_t channel) const {
        vec::Epilogue e;
        e.post = s.post, e.alpha = s.alpha, e.beta = s.beta;
        if (s.has_bias && call.in.size() > bias && call.in[bias].present()) e.bias_row = call.in[bias].in<float>() + channel;
        return e;
    }
    void run_tiles(const Call& call, const Plan& q, std::int64_t image) const {
        call.workers.for_each((q.apart ? q.images : 1) * q.bands * q.groups, [&](std::int64_t t, int worker) {
            std::int64_t group = t % q.groups, band = t / q.groups % q.bands, i = q.apart ? t / (q.groups * q.bands) : image;
            std::int64_t ho = q.s.out[1];
            tile(call, q, i, ho * band / q.bands, ho * (band + 1) / q.bands, group * q.each, std::min(d_, (group + 1) * q.each), worker);
        });
    }
    /// Output rows [o0, o1) of channels [c0, c1).
    void tile(const Call& call, const Plan& q, std::int64_t image, std::int64_t o0, std::int64_t o1, std::int64_t c0, std::int64_t c1, int worker) const {
        std::byte* mine = workspace(call, q, worker);
        auto* held = reinterpret_cast<float*>(mine);
        auto* band = reinterpret_cast<float*>(mine + q.rows);
        void* work = mine + q.rows + q.band;
        std::int64_t n = c1 - c0, row = q.w * n, wo = q.s.out[2];
        vec::ConvShape s = q.s;
        const bool expands = expand_.defined();
        const float* x = call.in[0].in<float>() + image * q.h * q.w * q.x_row + c0;
        s.channels = n;
        s.in_channels = expands ? n : q.x_row;
        s.out_channels = q.made;
        vec::Epilogue middle = end(p_.depthwise, call, 4, c0);
        float* made = q.whole ? band : q.middle ? reinterpret_cast<float*>(call.scratch + q.zeros) : call.out[0].out<float>() + image * s.out[1] * wo * q.y_row;
        std::int64_t first = 0, next = 0;  // input rows [first, next) are held
        for (std::int64_t o = o0; o < o1; o += q.step) {
            std::int64_t to = std::min(o1, o + q.step);
            if (expands) {
                std::int64_t from = std::clamp<std::int64_t>(o * s.stride[1] - q.top, 0, q.h);
                std::int64_t last = std::clamp<std::int64_t>((to - 1) * s.stride[1] - q.top + (s.kernel[1] - 1) * s.dilation[1] + 1, from, q.h);
                if (from < next) std::memmove(held, held + (from - first) * row, static_cast<std::size_t>((next - from) * row) * sizeof(float));
                else next = from;
                first = from;
                if (next < last) input_rows(call, q, image, next, last, c0, n, held + (next - first) * row, work);
                next = std::max(next, last);
            }
            const std::int64_t pair = s.dilation[1] == 1 && s.stride[1] <= s.kernel[1] ? 2 : 1;
            for (std::int64_t r = o, n_rows = 0; r < to; r += n_rows) {
                n_rows = std::min(pair, to - r);
                const float* rows[2 * most_rows];
                for (std::int64_t i = 0; i < (n_rows - 1) * s.stride[1] + s.kernel[1]; ++i) {
                    std::int64_t h = r * s.stride[1] - q.top + i * s.dilation[1];
                    rows[i] = h < 0 || h >= q.h ? reinterpret_cast<const float*>(call.scratch) : expands ? held + (h - first) * row : x + h * q.w * q.x_row;
                }
                float* y = made + (q.whole ? r - o : r) * wo * q.made + c0;
                images_.depthwise_rows_f32(s, n_rows, rows, static_cast<const float*>(depthwise_.raw()) + c0, d_, y, wo * q.made, middle);
                for (std::int64_t i = 0; p_.pooled && i < n_rows; ++i) images_.sum_rows_f32(wo, n, y + i * wo * q.made, q.made, sums(call, q) + (image * s.out[1] + r + i) * d_ + c0);
            }
            if (q.whole) {
                std::int64_t at = (image * s.out[1] + o) * wo;
                project(call, q, band, (to - o) * wo, 0, m_, at, work);
            }
        }
    }
    /// Input rows [h0, h1) of the depthwise convolution: expanded.
    void input_rows(const Call& call, const Plan& q, std::int64_t image, std::int64_t h0, std::int64_t h1, std::int64_t c0, std::int64_t n, float* to, void* work) const {
        const std::int64_t at = (image * q.h + h0) * q.w;
        const float* x = call.in[0].in<float>() + at * q.x_row;
        if (auto more = parts(call.in); !more.empty()) {
            vec::Columns all[ChainProblem::most_parts]{{x, q.x_row, call.in[0].dims[3]}};
            for (std::size_t i = 0; i < more.size(); ++i) all[i + 1] = {more[i].in<float>() + at * more[i].row(), more[i].row(), more[i].dims[3]};
            images_.gemm_parts_f32((h1 - h0) * q.w, n, q.c, all, static_cast<const float*>(expand_.raw()) + c0 * q.c, to, n, end(p_.expand, call, 2, c0), work);
            return;
        }
        t_.gemm_packed_f32((h1 - h0) * q.w, n, q.c, x, q.x_row, false, static_cast<const float*>(expand_.raw()) + c0 * q.c, to, n, end(p_.expand, call, 2, c0), work);
    }
    /// Output pixels from `at` on, channels [n0, n0 + n).
    void project(const Call& call, const Plan& q, const float* from, std::int64_t pixels, std::int64_t n0, std::int64_t n, std::int64_t at, void* work) const {
        vec::Epilogue e = end(p_.project, call, 6, n0);
        if (p_.has_residual) e.residual = call.in[7].in<float>() + at * m_ + n0;
        t_.gemm_packed_f32(pixels, n, d_, from, q.made, false, static_cast<const float*>(project_.raw()) + n0 * d_, call.out[0].out<float>() + at * q.y_row + n0, q.y_row, e, work);
    }
    void run_project(const Call& call, const Plan& q, std::int64_t image) const {
        std::int64_t pixels = q.s.out[1] * q.s.out[2];
        const auto* from = reinterpret_cast<const float*>(call.scratch + q.zeros);
        call.workers.for_each(q.tiles_p * q.tiles_n, [&](std::int64_t t, int worker) {
            std::int64_t p0 = (q.by_panel ? t % q.tiles_p : t / q.tiles_n) * q.tile_p, n0 = (q.by_panel ? t / q.tiles_p : t % q.tiles_n) * q.tile_n;
            std::byte* mine = workspace(call, q, worker);
            project(call, q, from + p0 * q.made, std::min(q.tile_p, pixels - p0), n0, std::min(q.tile_n, m_ - n0), image * pixels + p0, mine + q.rows + q.band);
        });
    }

    ChainProblem p_;
    const vec::Table& t_;
    const vec::ImageTable& images_;
    std::int64_t d_, m_, taps_;
    Tensor expand_, depthwise_, project_;
};

/// Empty where ChainKernel takes the problem.
inline std::string refuse_chain(const ChainProblem& p, const Target& t) {
    if (p.window.spatial() != 2) return std::to_string(p.window.spatial()) + " spatial dimensions; 2 are accepted";
    if (p.window.kernel[0] > 64) return "a kernel of " + std::to_string(p.window.kernel[0]) + " rows; up to 64 are accepted";
    if (!p.depthwise.w.defined()) return "weights are not constant";
    if (!p.expand.w.defined() && !p.project.w.defined() && !p.pooled) return "a depthwise convolution alone";
    if (p.pooled && p.project.w.defined()) return "means of what is projected";
    if (vec::table(t.isa).isa == Isa::baseline) return "instruction set baseline: the convolutions one by one are as fast";
    return {};
}

}  // namespace conv
QUERN_END
