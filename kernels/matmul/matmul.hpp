// Matrix products: the contract of the family.
#pragma once
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor.hpp>

QUERN_BEGIN
namespace matmul {

/// Y = post(alpha * A x (B * factors) + bias + residual), numpy's matmul with broadcast batch dimensions
/// (https://onnx.ai/onnx/operators/onnx__MatMul.html). Views: in[0] = A [..., M, K] ([..., K, M] if trans_a),
/// in[1] = B [..., K, N] ([..., N, K] if trans_b), in[2] = bias (absent, or of any shape that broadcasts
/// to Y's last two dimensions; already multiplied by Gemm's beta), in[3] = residual (absent, or Y's shape). A
/// of rank 1 is one row, B of rank 1 one column; those dimensions are missing in Y. out[0] = Y. All row-major,
/// type `dtype` (f32 or f64; f64 ignores `post`, which is none there). K = 0 gives zeros.
/// Tolerance against double, f32: 1e-6 * sqrt(K) relative to the sum of |a||b|.
struct Problem {
    DType dtype = DType::f32;
    int rank_a = 2, rank_b = 2;
    bool trans_a = false, trans_b = false;
    float alpha = 1;
    bool has_bias = false, has_residual = false;
    vec::Post post = vec::Post::none;
    float post_alpha = 0, post_beta = 0;
    /// The weights, when B is constant: packed once when the kernel is made, never read from in[1] again. Their bytes may lie unaligned.
    Tensor b;
    /// Undefined, or [N] that multiply the columns of a constant matrix B (of its rows, if trans_b) when it is packed; f32.
    Tensor factors;
    /// N and K if known when planning (a constant or static B), else -1.
    std::int64_t n = -1, k = -1;
};

}  // namespace matmul
QUERN_END
