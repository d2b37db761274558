// Batch normalization with known statistics in channels last: the concatenation before it and the function after it in one pass.
#pragma once
#include <algorithm>

#include <quern/kernels/kernel.hpp>
#include <quern/kernels/vec/images.hpp>

QUERN_BEGIN
namespace norm {

/// in[0] = scale [C], in[1] = shift [C], in[2...] = X [rows..., C_i], the C_i adding up to C; out[0] = Y [rows..., C] =
/// post(concat(X) * scale + shift); f32. Tolerance: 1 ULP of the product and the sum, and that of the function.
class AffineKernel final : public Kernel {
public:
    AffineKernel(vec::Post post, float alpha, float beta, Isa isa) : images_(vec::image_table(isa)) {
        e_.post = post, e_.alpha = alpha, e_.beta = beta;
        strided_in = ~3u;
    }
    const char* name() const noexcept override { return "norm.affine"; }
    void run(const Call& call) const override {
        const View& y = call.out[0];
        if (y.count() == 0) return;
        const std::int64_t c = y.dim(-1), rows = y.count() / c;
        const float *scale = call.in[0].in<float>(), *shift = call.in[1].in<float>();
        call.workers.ranges(rows, std::max<std::int64_t>(1, (16 << 10) / c), [&](std::int64_t from, std::int64_t to) {
            std::int64_t at = 0;
            for (std::size_t i = 2; i < call.in.size(); ++i) {
                const std::int64_t n = call.in[i].dim(-1), row = call.in[i].row();
                images_.scale_shift_f32(to - from, n, call.in[i].in<float>() + from * row, row, scale + at, shift + at, y.out<float>() + from * c + at, c, e_);
                at += n;
            }
        });
    }

private:
    const vec::ImageTable& images_;
    vec::Epilogue e_;
};

}  // namespace norm
QUERN_END
