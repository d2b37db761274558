// Transposed convolutions in nchw: outputs that are equal modulo the strides are an ordinary convolution of X.
#pragma once
#include <quern/kernels/conv/line.hpp>
#include <quern/kernels/conv_transpose/conv_transpose.hpp>

QUERN_BEGIN
namespace conv_transpose {

/// Problem of one or two spatial dimensions with constant weights. Output o with o + pad = q * s + r is the sum over c and u of X[c, q - u] * W[c, m, r + u * s]
/// (in each dimension): rows (m, r) of line_f32 over columns q, spread over Y afterwards. Rows of X lie behind each other with zeros between them, so that
/// columns of several rows are one line.
class Phases final : public Kernel {
public:
    Phases(const Problem& p, const Tensor& w, const Target& target) : p_(p), t_(vec::table(target.isa)), images_(vec::image_table(target.isa)) {
        unread = 1u << 1;
        const std::size_t n = p.window.kernel.size();
        for (std::size_t d = 0; d < n; ++d) kernel_[2 - n + d] = w.shape()[2 + d], stride_[2 - n + d] = p.window.strides[d];
        for (int d = 0; d < 2; ++d) taps_[d] = ceil_div(kernel_[d], stride_[d]);
        c_ = w.shape()[0] / p.group, m_ = w.shape()[1];
        k_ = c_ * taps_[0] * taps_[1];
        rows_ = m_ * stride_[0] * stride_[1];
        zips_ = stride_[1] == 2 || stride_[1] == 4 || stride_[1] == 8 || stride_[1] == 16;
        unit_ = !zips_ ? t_.row_block : stride_[1] <= t_.row_block ? t_.row_block / stride_[1] * stride_[1] : stride_[1];
        each_ = static_cast<std::int64_t>((t_.packed_rows_floats(rows_, k_) + 15) / 16 * 16);
        std::string layout = std::string("conv_transpose.phases ") + t_.name + " " + std::to_string(p.group) + " " + std::to_string(stride_[0]) + "x" + std::to_string(stride_[1]);
        packed_ = packed_weights(target, layout, {w}, static_cast<std::size_t>(p.group * each_) * sizeof(float), [&](std::byte* to) { pack(static_cast<const float*>(w.raw()), reinterpret_cast<float*>(to)); });
    }
    const char* name() const noexcept override { return "conv_transpose.phases"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto q = std::make_shared<Plan>();
        const View &x = in[0], &y = out[0];
        const int n = p_.window.spatial();
        q->images = x.dims[0];
        Booking b;
        if (y.count() > 0) {
            for (int d = 0; d < n; ++d) {
                const int at = 2 - n + d;
                q->in[at] = x.dims[2 + d], q->out[at] = y.dims[2 + d];
                q->pad[at] = begin_padding(p_, d, x.dims[2 + d], y.dims[2 + d]);
                q->first[at] = q->pad[at] / stride_[at];
                q->columns[at] = (q->out[at] - 1 + q->pad[at]) / stride_[at] - q->first[at] + 1;
            }
            cut(*q);
            b.scratch = (q->copy + q->made) * static_cast<std::size_t>(workers);
        }
        b.state = std::move(q);
        return b;
    }
    void run(const Call& call) const override {
        if (call.out[0].count() == 0) return;
        const Plan& q = *static_cast<const Plan*>(call.state);
        call.workers.for_each(q.cut.all(q.images), [&](std::int64_t i, int worker) {
            std::byte* mine = call.scratch + static_cast<std::size_t>(worker) * (q.copy + q.made);
            const std::int64_t b0 = i % q.cut.block_tiles * q.cut.blocks, t = i / q.cut.block_tiles % q.cut.tiles, rest = i / (q.cut.block_tiles * q.cut.tiles);
            const std::int64_t image = rest / q.cut.group_tiles, g0 = rest % q.cut.group_tiles * q.cut.groups;
            for (std::int64_t g = g0; g < std::min(p_.group, g0 + q.cut.groups); ++g) tile(call, q, image, g, t, b0, reinterpret_cast<float*>(mine), reinterpret_cast<float*>(mine + q.copy));
        });
    }

private:
    struct Plan {
        std::int64_t images = 0, in[2] = {1, 1}, out[2] = {1, 1}, pad[2] = {}, first[2] = {}, columns[2] = {1, 1};  ///< rows, columns; first: the least q; columns: their number
        std::int64_t lines = 1, width = 1;  ///< of a tile
        std::int64_t row = 1, ld = 1, made_row = 1;  ///< floats of a row of the copy, of a channel of it, of a row of what line_f32 makes
        std::vector<std::int64_t> at;
        conv::LineCut cut;  ///< tiles: pieces of the rows, or of the one row
        std::size_t copy = 0, made = 0;  ///< bytes
    };
    void pack(const float* w, float* to) const {
        std::fill_n(to, p_.group * each_, 0.f);
        std::vector<float> a(static_cast<std::size_t>(rows_ * k_));
        const std::int64_t plane = kernel_[0] * kernel_[1];
        for (std::int64_t g = 0; g < p_.group; ++g) {
            float* next = a.data();
            for (std::int64_t row = 0; row < rows_; ++row) {
                const std::int64_t m = row / (stride_[0] * stride_[1]), r0 = row / stride_[1] % stride_[0], r1 = row % stride_[1];
                for (std::int64_t c = 0; c < c_; ++c)
                    for (std::int64_t t = 0; t < taps_[0] * taps_[1]; ++t) {  // the last tap reads X at q
                        const std::int64_t i = r0 + (taps_[0] - 1 - t / taps_[1]) * stride_[0], j = r1 + (taps_[1] - 1 - t % taps_[1]) * stride_[1];
                        *next++ = i < kernel_[0] && j < kernel_[1] ? w[((g * c_ + c) * m_ + m) * plane + i * kernel_[1] + j] : 0.f;
                    }
            }
            for (std::int64_t r = 0; r < rows_; r += unit_)  // what is written behind a block is the next one's, or the room that each_ has
                t_.pack_rows_f32(std::min(unit_, rows_ - r), k_, a.data() + r * k_, k_, to + g * each_ + r * k_);
        }
    }
    void cut(Plan& q) const {
        const std::int64_t whole = q.columns[1] + taps_[1] - 1, above = taps_[0] - 1;
        q.cut = conv::cut_line(q.images, p_.group, q.columns[0] == 1 ? q.columns[1] : q.columns[0] * whole, rows_, taps_[0] * taps_[1], c_, above * whole + taps_[1], unit_);
        if (q.columns[0] == 1) {
            q.width = std::min(q.columns[1], q.cut.columns);
        } else {
            q.width = q.columns[1];
            q.cut.tiles = std::min(q.columns[0], ceil_div(q.columns[0], std::max<std::int64_t>(1, q.cut.columns / whole)));
            q.lines = ceil_div(q.columns[0], q.cut.tiles);
            q.cut.tiles = ceil_div(q.columns[0], q.lines);
        }
        q.row = q.width + taps_[1] - 1;
        q.ld = ((q.lines + above) * q.row + vec::line_slack + 15) / 16 * 16;
        if (q.ld % 1024 == 0) q.ld += 16;  // channels would meet in the same lines of the cache
        q.made_row = ((q.lines - 1) * q.row + q.width + 15) / 16 * 16;
        q.copy = (static_cast<std::size_t>(c_ * q.ld) * sizeof(float) + 63) / 64 * 64;
        q.made = (static_cast<std::size_t>(unit_ * q.made_row) * sizeof(float) + 63) / 64 * 64;
        for (std::int64_t i = 0; i < taps_[0]; ++i)
            for (std::int64_t j = 0; j < taps_[1]; ++j) q.at.push_back(i * q.row + j);
    }
    /// Tile t of the rows (or of the columns of the one row), row blocks [b0, b0 + cut.blocks).
    void tile(const Call& call, const Plan& q, std::int64_t image, std::int64_t g, std::int64_t t, std::int64_t b0, float* copy, float* z) const {
        const bool one = q.columns[0] == 1;
        const std::int64_t l0 = one ? 0 : t * q.lines, lines = std::min(q.lines, q.columns[0] - l0), w0 = one ? t * q.width : 0, width = std::min(q.width, q.columns[1] - w0);
        const std::int64_t plane = q.in[0] * q.in[1];
        const float* x = call.in[0].in<float>() + (image * p_.group + g) * c_ * plane;
        conv::LineWindow window;
        window.width = q.in[1];
        for (std::int64_t c = 0; c < c_; ++c)
            for (std::int64_t l = 0; l < lines + taps_[0] - 1; ++l) {
                const std::int64_t h = q.first[0] + l0 - (taps_[0] - 1) + l;
                float* to = copy + c * q.ld + l * q.row;
                if (h < 0 || h >= q.in[0]) std::fill_n(to, q.row, 0.f);
                else window.fill(x + c * plane + h * q.in[1], q.first[1] + w0 - (taps_[1] - 1), q.row, to);
            }
        const vec::LineTile line{copy, q.ld, c_, taps_[0] * taps_[1], q.at.data(), (lines - 1) * q.row + width};
        const float* packed = static_cast<const float*>(packed_.raw()) + g * each_;
        const float* bias = p_.has_bias && call.in.size() > 2 && call.in[2].present() ? call.in[2].in<float>() + g * m_ : nullptr;
        float* y = call.out[0].out<float>() + (image * p_.group + g) * m_ * q.out[0] * q.out[1];
        const std::int64_t group = zips_ ? stride_[1] : 1, at = (q.first[1] + w0) * stride_[1] - q.pad[1];
        for (std::int64_t b = b0; b < std::min(ceil_div(rows_, unit_), b0 + q.cut.blocks); ++b) {
            const std::int64_t r0 = b * unit_, r1 = std::min(rows_, r0 + unit_);
            images_.line_f32(line, packed + r0 * k_, r1 - r0, 0, ceil_div(r1 - r0, t_.row_block), z, q.made_row, {});
            for (std::int64_t r = r0; r < r1; r += group) {
                const std::int64_t m = r / (stride_[0] * stride_[1]), remainder = r / stride_[1] % stride_[0];
                const float value = bias ? bias[m] : 0.f;
                for (std::int64_t l = 0; l < lines; ++l) {
                    const std::int64_t o = (q.first[0] + l0 + l) * stride_[0] + remainder - q.pad[0];
                    if (o < 0 || o >= q.out[0]) continue;
                    const float* from = z + (r - r0) * q.made_row + l * q.row;
                    float* to = y + (m * q.out[0] + o) * q.out[1];
                    if (zips_) zip(from, q.made_row, width, at, q.out[1], value, to);
                    else spread(from, width, at + r % stride_[1], q.out[1], value, to);
                }
            }
        }
    }
    /// y[at + i * stride] = z[i] + bias where that is inside of y.
    void spread(const float* z, std::int64_t n, std::int64_t at, std::int64_t out, float bias, float* y) const {
        const std::int64_t s = stride_[1], lo = at < 0 ? std::min(n, ceil_div(-at, s)) : 0, hi = at >= out ? lo : std::clamp(ceil_div(out - at, s), lo, n);
        if (hi <= lo) return;
        y += at + lo * s, z += lo;
        if (s == 1)
            for (std::int64_t i = 0; i < hi - lo; ++i) y[i] = z[i] + bias;
        else
            for (std::int64_t i = 0; i < hi - lo; ++i) y[i * s] = z[i] + bias;
    }
    /// The same of all remainders r, z + r * ld each: y[at + i * stride + r].
    void zip(const float* z, std::int64_t ld, std::int64_t n, std::int64_t at, std::int64_t out, float bias, float* y) const {
        const std::int64_t s = stride_[1], lo = at < 0 ? std::min(n, ceil_div(-at, s)) : 0, hi = at + s > out ? lo : std::clamp((out - at) / s, lo, n);
        if (hi > lo) images_.interleave_f32(s, z + lo, ld, hi - lo, bias, y + at + lo * s);
        for (std::int64_t r = 0; r < s; ++r) {
            spread(z + r * ld, lo, at + r, out, bias, y);
            spread(z + r * ld + hi, n - hi, at + hi * s + r, out, bias, y);
        }
    }
    Problem p_;
    const vec::Table& t_;
    const vec::ImageTable& images_;
    std::int64_t kernel_[2] = {1, 1}, stride_[2] = {1, 1}, taps_[2] = {1, 1};  ///< taps: of one remainder
    std::int64_t c_, m_, k_, rows_, unit_, each_;  ///< unit: rows of a block; each: floats of a group's weights
    bool zips_;  ///< all remainders of a row's columns are in one block
    Tensor packed_;
};
/// Whether Phases takes it; `in`: spatial dims of X, -1 where they are not known. Left out is what would be mostly zeros: strides beyond twice the kernel,
/// and few pixels that each are in many places of the kernel; small planes of many channels are better scattered after a product, which has no columns between rows.
inline bool takes_phases(const Problem& p, const Tensor& w, const std::vector<std::int64_t>& in) {
    const std::size_t n = p.window.kernel.size();
    if (p.dtype != DType::f32 || n < 1 || n > 2 || in.size() != n || !w.defined() || w.count() == 0) return false;
    std::int64_t taps = 1;
    double columns = 1, pixels = 1;
    for (std::size_t d = 0; d < n; ++d) {
        const std::int64_t kernel = p.window.kernel[d], stride = p.window.strides[d];
        if (p.window.dilations[d] != 1 || stride > 4096 || kernel > 1 << 17 || stride > 2 * kernel || p.window.pads[d] > 1 << 20) return false;
        const std::int64_t each = ceil_div(kernel, stride);
        taps *= each;
        if (in[d] >= 0) columns *= static_cast<double>(in[d] + each - 1), pixels *= static_cast<double>(in[d]);
    }
    if (n == 2 && w.shape()[0] / p.group >= 128 && columns > 1.1 * pixels) return false;
    return columns <= 2.5 * pixels && taps * (w.shape()[0] / p.group) <= 1 << 20;
}

}  // namespace conv_transpose
QUERN_END
