// The first convolution of an image: from nchw, as pictures come, to nhwc, as the other kernels want it.
#pragma once
#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include <quern/kernels/conv/geometry.hpp>
#include <quern/kernels/vec/images.hpp>
#include <quern/kernels/weights.hpp>

QUERN_BEGIN
namespace conv {

/// As conv::Problem in nhwc, but X is [N, C, H, W]. Views: in[0] = X, in[1] = W [M, C, kh, kw] (constant), in[2] = bias or absent,
/// in[3] = residual of Y's shape and layout or absent; out[0] = Y [N, Ho, Wo, M], or with `pool` the largest values of its windows over that
/// (MaxPool without dilation; no residual then). f32, 2 spatial dimensions, one group. Tolerance as conv::Problem.
/// With `pixels` X is [N, H, W, C], too: a row of pixels is the row of one plane that is C times as wide, and so are a row of the kernel, its stride
/// and its padding; the kernel's rows are dense then.
class PlanarKernel final : public Kernel {
public:
    static constexpr std::int64_t most_taps = 64;  ///< pixels of a pool's window
    PlanarKernel(const Problem& p, const Target& target, std::optional<Window> pool = {}, bool pixels = false)
        : p_(p), pool_(std::move(pool)), pixels_(pixels), t_(vec::table(target.isa)), images_(vec::image_table(target.isa)) {
        unread = 1u << 1;
        strided_out = !p_.has_residual;
        p_.w = aligned_weights(target, p_.w);
        m_ = p_.w.shape()[0];
        std::int64_t k = p_.w.count() / m_;
        packed_ = packed_weights(target, std::string(pixels_ ? "conv.planar nhwc " : "conv.planar ") + t_.name, {p_.w}, t_.packed_floats(m_, k) * sizeof(float), [&](std::byte* to) {
            const auto* w = static_cast<const float*>(p_.w.raw());
            std::vector<float> last;
            if (pixels_) {
                const std::int64_t c = p_.w.shape()[1], taps = k / c;
                for (std::int64_t m = 0; m < m_; ++m)
                    for (std::int64_t i = 0; i < k; ++i) last.push_back(w[m * k + i % c * taps + i / c]);
                w = last.data();
            }
            t_.pack_b_f32(m_, k, w, k, true, 1.f, reinterpret_cast<float*>(to));
        });
        p_.w = Tensor();
    }
    const char* name() const noexcept override { return pool_ ? "conv.planar pooled" : pixels_ ? "conv.planar nhwc" : "conv.planar"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto q = std::make_shared<Plan>();
        vec::ConvShape& s = q->s;
        for (int d = 0; d < 3; ++d) s.in[d] = s.out[d] = s.kernel[d] = s.stride[d] = s.dilation[d] = 1, s.pad[d] = 0;
        for (int d = 0; d < 2; ++d) {
            s.in[d + 1] = in[0].dims[d + (pixels_ ? 1 : 2)];
            s.kernel[d + 1] = p_.window.kernel[d], s.stride[d + 1] = p_.window.strides[d], s.dilation[d + 1] = p_.window.dilations[d];
            s.pad[d + 1] = p_.window.pad_begin(d, s.in[d + 1]);
            s.out[d + 1] = pool_ ? outputs(d, s.in[d + 1]) : out[0].dims[d + 1];
        }
        const std::int64_t channels = in[0].dims[pixels_ ? 3 : 1];
        s.channels = s.in_channels = pixels_ ? 1 : channels;
        if (pixels_) s.in[2] *= channels, s.kernel[2] *= channels, s.stride[2] *= channels, s.pad[2] *= channels;
        s.out_channels = pool_ ? m_ : out[0].row();
        std::int64_t row = std::max<std::int64_t>(1, s.out[2] * m_ * s.channels * s.taps());
        q->rows = std::clamp<std::int64_t>((1 << 20) / row, 1, std::max<std::int64_t>(1, s.out[1]));
        if (pool_) q->rows = most_pooled;  // rows where tiles meet are computed twice
        const std::int64_t all = pool_ ? out[0].dims[1] : s.out[1];
        q->tiles = (all + q->rows - 1) / q->rows;
        q->all = all;
        if (pool_ && q->tiles > 1 && q->tiles < 16) q->tiles += q->tiles % 2;  // two workers have as much to do
        q->held = pool_ ? (static_cast<std::size_t>(pool_->kernel[0] * s.out[2] * m_) * sizeof(float) + 63) / 64 * 64 : 0;
        q->work = q->held + (images_.planar_work_floats(s) * sizeof(float) + 63) / 64 * 64;
        Booking b;
        b.scratch = q->work * static_cast<std::size_t>(workers);
        b.state = std::move(q);
        return b;
    }
    void run(const Call& call) const override {
        const Plan& q = *static_cast<const Plan*>(call.state);
        const vec::ConvShape& s = q.s;
        if (call.out[0].count() == 0) return;
        const auto* x = call.in[0].in<float>();
        auto* y = call.out[0].out<float>();
        vec::Epilogue base;
        base.post = p_.post, base.alpha = p_.post_alpha, base.beta = p_.post_beta;
        if (p_.has_bias && call.in.size() > 2 && call.in[2].present()) base.bias_row = call.in[2].in<float>();
        call.workers.for_each(call.in[0].dims[0] * q.tiles, [&](std::int64_t t, int worker) {
            if (pool_) return pooled(call, q, base, t / q.tiles, t % q.tiles, worker);
            std::int64_t image = t / q.tiles, r0 = t % q.tiles * q.rows, at = image * s.pixels_out() * s.out_channels;
            vec::Epilogue e = base;
            if (p_.has_residual) e.residual = call.in[3].in<float>() + at;
            images_.conv_planar_f32(s, x + image * s.channels * s.pixels_in(), static_cast<const float*>(packed_.raw()), r0, std::min(s.out[1], r0 + q.rows), m_, y + at, e,
                                    reinterpret_cast<float*>(call.scratch + static_cast<std::size_t>(worker) * q.work));
        });
    }

private:
    static constexpr std::int64_t most_pooled = 10, ahead = 8;  ///< rows; pixels
    struct Plan {
        vec::ConvShape s;
        std::int64_t rows, tiles, all;  ///< output rows of a tile; tiles of an image; output rows of it
        std::size_t held, work;    ///< bytes; held: of the rows that a window spans
    };
    /// Rows or columns of the convolution.
    std::int64_t outputs(int d, std::int64_t size) const {
        const Window& w = p_.window;
        std::int64_t reach = (w.kernel[d] - 1) * w.dilations[d] + 1, pads = w.auto_pad == AutoPad::notset ? w.pads[d] + w.pads[d + 2] : 0;
        if (w.auto_pad == AutoPad::same_upper || w.auto_pad == AutoPad::same_lower) return (size + w.strides[d] - 1) / w.strides[d];
        return size + pads < reach ? 0 : (size + pads - reach) / w.strides[d] + 1;
    }
    /// Pooled rows of tile t, all of an image cut evenly: the rows of the convolution under a window are kept, row h at h modulo the window's height.
    void pooled(const Call& call, const Plan& q, const vec::Epilogue& e, std::int64_t image, std::int64_t t, int worker) const {
        const vec::ConvShape& s = q.s;
        const View& out = call.out[0];
        const std::int64_t high = pool_->kernel[0], wide = pool_->kernel[1], row = s.out[2] * m_, above = pool_->pad_begin(0, s.out[1]), left = pool_->pad_begin(1, s.out[2]);
        auto* held = reinterpret_cast<float*>(call.scratch + static_cast<std::size_t>(worker) * q.work);
        auto* work = reinterpret_cast<float*>(call.scratch + static_cast<std::size_t>(worker) * q.work + q.held);
        const float* x = call.in[0].in<float>() + image * s.channels * s.pixels_in();
        std::int64_t next = 0;
        for (std::int64_t r = q.all * t / q.tiles; r < q.all * (t + 1) / q.tiles; ++r) {
            float* y = out.out<float>() + (image * out.dims[1] + r) * out.dims[2] * out.row();
            for (std::int64_t o = 0; o < std::min(ahead, out.dims[2]); ++o) images_.fetch_to_write_f32(y + o * out.row(), m_);
            const std::int64_t h0 = std::clamp<std::int64_t>(r * pool_->strides[0] - above, 0, s.out[1]), h1 = std::clamp<std::int64_t>(r * pool_->strides[0] - above + high, h0, s.out[1]);
            for (std::int64_t h = next = std::max(next, h0); h < h1; next = ++h) {
                vec::ConvShape one = s;
                one.pad[1] -= h * s.stride[1];
                images_.conv_planar_f32(one, x, static_cast<const float*>(packed_.raw()), 0, 1, m_, held + h % high * row, e, work);
            }
            for (std::int64_t o = 0; o < out.dims[2]; ++o, y += out.row()) {
                if (o + ahead < out.dims[2]) images_.fetch_to_write_f32(y + ahead * out.row(), m_);
                const std::int64_t w0 = std::clamp<std::int64_t>(o * pool_->strides[1] - left, 0, s.out[2]), w1 = std::clamp<std::int64_t>(o * pool_->strides[1] - left + wide, w0, s.out[2]);
                const float* taps[most_taps];
                std::int64_t n = 0;
                for (std::int64_t h = h0; h < h1; ++h)
                    for (std::int64_t w = w0; w < w1; ++w) taps[n++] = held + h % high * row + w * m_;
                if (n) images_.pool_pixel_f32(true, n, taps, m_, 1, y);
                else std::fill_n(y, m_, -std::numeric_limits<float>::infinity());
            }
        }
    }
    Problem p_;
    std::optional<Window> pool_;
    bool pixels_;
    const vec::Table& t_;
    const vec::ImageTable& images_;
    std::int64_t m_;
    Tensor packed_;
};

/// Empty where PlanarKernel takes these windows after the convolution.
inline std::string refuse_pool(const Window& w) {
    if (w.spatial() != 2) return std::to_string(w.spatial()) + " spatial dimensions; 2 are accepted";
    if (w.dilations[0] != 1 || w.dilations[1] != 1) return "dilation";
    if (w.kernel[0] > PlanarKernel::most_taps || w.kernel[1] > PlanarKernel::most_taps / w.kernel[0]) return "a window of more than " + std::to_string(PlanarKernel::most_taps) + " pixels";
    if (w.strides[0] < w.kernel[0] - 1) return "windows that share more than a row: each is computed again where tiles meet";
    return {};
}
/// Empty where PlanarKernel takes the problem.
inline std::string refuse_planar(const Problem& p, const Target& t) {
    if (p.dtype != DType::f32 || p.window.spatial() != 2 || p.group != 1) return "float, 2 spatial dimensions and one group are accepted";
    if (!p.w.defined() || p.w.count() == 0) return "weights are not constant";
    if (p.w.shape()[1] > 4 || p.w.count() / p.w.shape()[0] > vec::planar_taps) return "too many weights for each output: the image in nhwc is faster";
    if (std::int64_t s = p.window.strides[1]; s != 1 && s != 2 && s != 4) return "a stride of " + std::to_string(s) + "; 1, 2 and 4 are accepted";
    for (std::int64_t v : p.window.pads)
        if (v > 64) return "padding of " + std::to_string(v) + "; up to 64 is accepted";
    if (vec::table(t.isa).isa == Isa::baseline) return "instruction set baseline: no faster";
    return {};
}
/// The same for an image in nhwc.
inline std::string refuse_planar_nhwc(const Problem& p, const Target& t) {
    if (p.layout != Layout::nhwc) return "layout nchw; nhwc is accepted";
    if (p.has_gate) return "a gate";
    if (std::string why = refuse_planar(p, t); !why.empty()) return why;
    if (std::int64_t c = p.w.shape()[1]; c != 1 && c != 3) return std::to_string(c) + " channels; 1 and 3 are accepted";
    if (p.window.strides[1] > 2) return "a stride of " + std::to_string(p.window.strides[1]) + "; 1 and 2 are accepted";
    if (p.window.dilations[1] != 1) return "dilation";
    if (pointwise(p.window)) return "a product of pixels; conv.core reads them in place";
    return {};
}
inline std::unique_ptr<Kernel> make_planar_nhwc(const Problem& p, const Target& t) { return std::make_unique<PlanarKernel>(p, t, std::nullopt, true); }
inline constexpr Entry<Problem> conv_planar_nhwc{"conv.planar nhwc", refuse_planar_nhwc, make_planar_nhwc};

}  // namespace conv
QUERN_END
