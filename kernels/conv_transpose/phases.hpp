// Transposed convolutions along one dimension: outputs that are equal modulo the stride are an ordinary convolution of X.
#pragma once
#include <quern/kernels/conv/line.hpp>
#include <quern/kernels/conv_transpose/conv_transpose.hpp>

QUERN_BEGIN
namespace conv_transpose {

/// Problem of one spatial dimension with constant weights. Output o with o + pad = q * s + r is the sum over c and u of X[c, q - u] * W[c, m, r + u * s]:
/// rows (m, r) of line_f32 over columns q, spread over Y afterwards.
class Phases final : public Kernel {
public:
    Phases(const Problem& p, const Tensor& w, const Target& target) : p_(p), t_(vec::table(target.isa)), images_(vec::image_table(target.isa)) {
        unread = 1u << 1;
        stride_ = p.window.strides[0];
        c_ = w.shape()[0] / p.group, m_ = w.shape()[1];
        const std::int64_t kernel = w.shape()[2];
        taps_ = ceil_div(kernel, stride_);
        rows_ = m_ * stride_;
        each_ = (t_.packed_rows_floats(rows_, c_ * taps_) + 15) / 16 * 16;
        const std::size_t group = static_cast<std::size_t>(p.group);
        packed_ = packed_weights(target, std::string("conv_transpose.phases ") + t_.name + " " + std::to_string(p.group) + " " + std::to_string(stride_), {w}, group * each_ * sizeof(float), [&](std::byte* to) {
            std::memset(to, 0, group * each_ * sizeof(float));
            std::vector<float> a(static_cast<std::size_t>(rows_ * c_ * taps_));
            for (std::int64_t g = 0; g < p_.group; ++g) {
                const float* from = static_cast<const float*>(w.raw()) + g * c_ * m_ * kernel;
                float* at = a.data();
                for (std::int64_t row = 0; row < rows_; ++row)
                    for (std::int64_t c = 0; c < c_; ++c)
                        for (std::int64_t t = 0; t < taps_; ++t) {
                            const std::int64_t k = row % stride_ + (taps_ - 1 - t) * stride_;
                            *at++ = k < kernel ? from[(c * m_ + row / stride_) * kernel + k] : 0.f;
                        }
                t_.pack_rows_f32(rows_, c_ * taps_, a.data(), c_ * taps_, reinterpret_cast<float*>(to) + static_cast<std::size_t>(g) * each_);
            }
        });
    }
    const char* name() const noexcept override { return "conv_transpose.phases"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto q = std::make_shared<Plan>();
        const View &x = in[0], &y = out[0];
        q->images = x.dims[0], q->out = y.dims[2];
        q->window.width = x.dims[2], q->window.taps = taps_, q->window.channels = c_;
        Booking b;
        if (y.count() > 0) {
            q->pad = begin_padding(p_, 0, x.dims[2], q->out);
            q->first = q->pad / stride_;
            q->columns = (q->out - 1 + q->pad) / stride_ - q->first + 1;
            q->cut = conv::cut_line(q->images, p_.group, q->columns, rows_, c_ * taps_, c_, taps_ + vec::line_slack, t_.row_block);
            const std::int64_t most = std::min(q->columns, q->cut.columns);
            q->window.plan(most);
            q->ld = (most + 15) / 16 * 16;
            q->copy = (q->window.floats() * sizeof(float) + 63) / 64 * 64;
            q->work = q->copy + static_cast<std::size_t>(q->ld * t_.row_block) * sizeof(float);
        }
        b.scratch = q->work * static_cast<std::size_t>(workers);
        b.state = std::move(q);
        return b;
    }
    void run(const Call& call) const override {
        const Plan& q = *static_cast<const Plan*>(call.state);
        const conv::LineCut& cut = q.cut;
        if (call.out[0].count() == 0) return;
        const std::int64_t blocks = ceil_div(rows_, t_.row_block);
        const auto* x = call.in[0].in<float>();
        auto* y = call.out[0].out<float>();
        const float* bias = p_.has_bias && call.in.size() > 2 && call.in[2].present() ? call.in[2].in<float>() : nullptr;
        call.workers.for_each(cut.all(q.images), [&](std::int64_t i, int worker) {
            std::byte* mine = call.scratch + static_cast<std::size_t>(worker) * q.work;
            auto* z = reinterpret_cast<float*>(mine + q.copy);
            const std::int64_t b0 = i % cut.block_tiles * cut.blocks, q0 = i / cut.block_tiles % cut.tiles * cut.columns, rest = i / (cut.block_tiles * cut.tiles);
            const std::int64_t image = rest / cut.group_tiles, g0 = rest % cut.group_tiles * cut.groups, n = std::min(cut.columns, q.columns - q0);
            for (std::int64_t g = g0; g < std::min(p_.group, g0 + cut.groups); ++g) {
                const vec::LineTile tile = q.window.tile(x + (image * p_.group + g) * c_ * q.window.width, q.window.width, q.first + q0 - (taps_ - 1), n, reinterpret_cast<float*>(mine));
                const float* w = static_cast<const float*>(packed_.raw()) + static_cast<std::size_t>(g) * each_;
                for (std::int64_t b = b0; b < std::min(blocks, b0 + cut.blocks); ++b) {
                    const std::int64_t r0 = rows_ / blocks * b + std::min(b, rows_ % blocks), r1 = rows_ / blocks * (b + 1) + std::min(b + 1, rows_ % blocks);
                    images_.line_f32(tile, w + r0 * c_ * taps_, r1 - r0, 0, 1, z, q.ld, {});
                    for (std::int64_t r = r0; r < r1; ++r) {
                        const std::int64_t channel = g * m_ + r / stride_;
                        spread(z + (r - r0) * q.ld, n, (q.first + q0) * stride_ + r % stride_ - q.pad, q.out, bias ? bias[channel] : 0.f, y + (image * p_.group * m_ + channel) * q.out);
                    }
                }
            }
        });
    }

private:
    struct Plan {
        std::int64_t images = 0, out = 0, pad = 0, first = 0, columns = 0, ld = 0;  ///< first: the least q
        conv::LineWindow window;
        conv::LineCut cut;
        std::size_t copy = 0, work = 0;
    };
    /// y[at + i * stride] = z[i] + bias where that is inside of y.
    void spread(const float* z, std::int64_t n, std::int64_t at, std::int64_t out, float bias, float* y) const {
        const std::int64_t lo = at < 0 ? std::min(n, ceil_div(-at, stride_)) : 0, hi = at >= out ? lo : std::clamp(ceil_div(out - at, stride_), lo, n);
        if (hi <= lo) return;
        y += at + lo * stride_, z += lo;
        if (stride_ == 2)
            for (std::int64_t i = 0; i < hi - lo; ++i) y[2 * i] = z[i] + bias;
        else
            for (std::int64_t i = 0; i < hi - lo; ++i) y[i * stride_] = z[i] + bias;
    }
    Problem p_;
    const vec::Table& t_;
    const vec::ImageTable& images_;
    std::int64_t stride_, c_, m_, taps_, rows_;
    std::size_t each_;
    Tensor packed_;
};
/// Whether Phases takes it: a stride beyond twice the kernel would be mostly zeros.
inline bool takes_phases(const Problem& p, const Tensor& w) {
    if (p.dtype != DType::f32 || p.window.spatial() != 1 || !w.defined() || w.count() == 0) return false;
    const std::int64_t kernel = p.window.kernel[0], stride = p.window.strides[0], channels = w.shape()[0] / p.group;
    if (p.window.dilations[0] != 1 || stride > 4096 || kernel > 1 << 17 || stride > 2 * kernel || p.window.pads[0] > 1 << 20) return false;
    return ceil_div(kernel, stride) * channels <= 1 << 20;
}

}  // namespace conv_transpose
QUERN_END
