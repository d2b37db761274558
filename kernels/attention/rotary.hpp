// Rotary position embedding.
#pragma once
#include <algorithm>

#include <quern/kernels/kernel.hpp>

QUERN_BEGIN
namespace attention {

struct RotaryProblem {
    std::int64_t heads = 0;    ///< of X of rank 3
    std::int64_t rotated = 0;  ///< values of a head that turn; 0: all
    bool interleaved = false;
};

/// The first 2 * half of d values turn, those of a pair being neighbours or `half` apart; y may be x.
inline void turn(const float* x, const float* cosine, const float* sine, std::int64_t half, std::int64_t d, bool interleaved, float* y) {
    const std::int64_t step = interleaved ? 2 : 1, second = interleaved ? 1 : half;
    for (std::int64_t j = 0; j < half; ++j) {
        float a = x[j * step], b = x[j * step + second];
        y[j * step] = cosine[j] * a - sine[j] * b;
        y[j * step + second] = sine[j] * a + cosine[j] * b;
    }
    if (y != x) std::copy(x + 2 * half, x + d, y + 2 * half);
}

/// https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html. in[0] = X [B, H, S, D] or [B, S, H * D], in[1], in[2] = cosines and
/// sines [positions, R / 2] with in[3] = position ids [B, S] (i64), or [B, S, R / 2] without; out[0] as X. The first R = `rotated` (0: D)
/// values of a head turn, pairs being neighbours if `interleaved`, else halves. Position ids outside the table raise
/// shape_mismatch. f32; may be in place.
class RotaryKernel final : public Kernel {
public:
    explicit RotaryKernel(const RotaryProblem& p) : p_(p) { inplace = 1; }
    const char* name() const noexcept override { return "attention.rotary"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &table = c.in[1];
        bool four = x.rank == 4;
        std::int64_t b = x.dims[0], s = x.dim(four ? 2 : 1), h = four ? x.dims[1] : p_.heads, d = four ? x.dims[3] : x.dims[2] / p_.heads;
        std::int64_t r = p_.rotated ? p_.rotated : d, half = r / 2;
        const std::int64_t* ids = c.in.size() > 3 && c.in[3].present() ? c.in[3].in<std::int64_t>() : nullptr;
        if (ids)
            for (std::int64_t i = 0; i < b * s; ++i)
                if (ids[i] < 0 || ids[i] >= table.dims[0])
                    raise(ErrorCode::shape_mismatch, "position_ids holds " + std::to_string(ids[i]) + "; accepted are 0 to " + std::to_string(table.dims[0] - 1));
        c.workers.ranges(b * s * h, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, d)), [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t i = from; i < to; ++i) {  // heads in the order of memory
                std::int64_t row = four ? i / (h * s) * s + i % s : i / h, at = (ids ? ids[row] : row) * half;
                turn(x.in<float>() + i * d, c.in[1].in<float>() + at, c.in[2].in<float>() + at, half, d, p_.interleaved, c.out[0].out<float>() + i * d);
            }
        });
    }

private:
    RotaryProblem p_;
};

}  // namespace attention
QUERN_END
