// The first convolution of an image: from nchw, as pictures come, to nhwc, as the other kernels want it.
#pragma once
#include <algorithm>

#include <quern/kernels/conv/geometry.hpp>
#include <quern/kernels/packs.hpp>
#include <quern/kernels/vec/images.hpp>

QUERN_BEGIN
namespace conv {

/// As conv::Problem in nhwc, but X is [N, C, H, W]. Views: in[0] = X, in[1] = W [M, C, kh, kw] (constant), in[2] = bias or absent,
/// in[3] = residual of Y's shape and layout or absent; out[0] = Y [N, Ho, Wo, M]. f32, 2 spatial dimensions, one group.
/// Tolerance as conv::Problem.
class PlanarKernel final : public Kernel {
public:
    PlanarKernel(const Problem& p, const Target& target) : p_(p), t_(vec::table(target.isa)), images_(vec::image_table(target.isa)) {
        unread = 1u << 1;
        strided_out = !p_.has_residual;
        m_ = p_.w.shape()[0];
        std::int64_t k = p_.w.count() / m_;
        packed_ = packed_weights(target, std::string("conv.planar ") + t_.name, {p_.w}, t_.packed_floats(m_, k) * sizeof(float), [&](std::byte* to) {
            t_.pack_b_f32(m_, k, static_cast<const float*>(p_.w.raw()), k, true, 1.f, reinterpret_cast<float*>(to));
        });
        p_.w = Tensor();
    }
    const char* name() const noexcept override { return "conv.planar"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto q = std::make_shared<Plan>();
        vec::ConvShape& s = q->s;
        for (int d = 0; d < 3; ++d) s.in[d] = s.out[d] = s.kernel[d] = s.stride[d] = s.dilation[d] = 1, s.pad[d] = 0;
        for (int d = 0; d < 2; ++d) {
            s.in[d + 1] = in[0].dims[d + 2], s.out[d + 1] = out[0].dims[d + 1];
            s.kernel[d + 1] = p_.window.kernel[d], s.stride[d + 1] = p_.window.strides[d], s.dilation[d + 1] = p_.window.dilations[d];
            s.pad[d + 1] = p_.window.pad_begin(d, s.in[d + 1]);
        }
        s.channels = s.in_channels = in[0].dims[1];
        s.out_channels = out[0].row();
        std::int64_t row = std::max<std::int64_t>(1, s.out[2] * m_ * s.channels * s.taps());
        q->rows = std::clamp<std::int64_t>((1 << 20) / row, 1, std::max<std::int64_t>(1, s.out[1]));
        q->tiles = (s.out[1] + q->rows - 1) / q->rows;
        q->work = (images_.planar_work_floats(s) * sizeof(float) + 63) / 64 * 64;
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
            std::int64_t image = t / q.tiles, r0 = t % q.tiles * q.rows, at = image * s.pixels_out() * s.out_channels;
            vec::Epilogue e = base;
            if (p_.has_residual) e.residual = call.in[3].in<float>() + at;
            images_.conv_planar_f32(s, x + image * s.channels * s.pixels_in(), static_cast<const float*>(packed_.raw()), r0, std::min(s.out[1], r0 + q.rows), m_, y + at, e,
                                    reinterpret_cast<float*>(call.scratch + static_cast<std::size_t>(worker) * q.work));
        });
    }

private:
    struct Plan {
        vec::ConvShape s;
        std::int64_t rows, tiles;  ///< output rows of a tile
        std::size_t work;
    };
    Problem p_;
    const vec::Table& t_;
    const vec::ImageTable& images_;
    std::int64_t m_;
    Tensor packed_;
};

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

}  // namespace conv
QUERN_END
