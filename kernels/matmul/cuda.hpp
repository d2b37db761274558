// Products of f32 matrices on CUDA.
#pragma once
#include <driver_types.h>

#include <cstddef>
#include <cstdint>

#include <quern/dtype.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace matmul {

inline constexpr int max_gemm_batch = 4;
/// How f32 is multiplied: by f32 units, by tensor cores as three products of TF32 (about as exact), by tensor cores
/// rounded to TF32 (10 bits; infinite operands may give NaN).
enum class Precision : std::uint8_t { f32, split, tf32 };

/// C = post(alpha A B + bias + residual) for each batch, f32, f16 or bf16 (summed in f32; these take multiples of 8 as
/// k, n, leading dimensions and strides, 16-byte aligned, and no trans_a). A is [m, k] with leading dimension lda ([k,
/// m] where trans_a), B [k, n] ([n, k] where trans_b), C and residual [m, n] with ldc, bias(i, j) = bias[i * bias_row +
/// j * bias_col], the same for all batches but for bias_batch. Strides in elements, batch dims outermost first; a
/// stride of A or B may be 0. m, n, k < 2^31. residual may be C itself. Sums run in a fixed order that depends on the
/// sizes only. Tolerance against double: 1e-6 * sqrt(k) relative to the sum of |a||b|, tf32: 1e-3; f16, bf16: that of
/// f32 before the result is rounded.
struct CudaGemm {
    std::int64_t m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldc = 0;
    bool trans_a = false, trans_b = false;
    int batch_rank = 0;
    std::int64_t batch[max_gemm_batch] = {}, stride_a[max_gemm_batch] = {}, stride_b[max_gemm_batch] = {},
                 stride_c[max_gemm_batch] = {};
    DType type = DType::f32;  ///< of all five
    const void *a = nullptr, *b = nullptr, *bias = nullptr, *residual = nullptr;
    void* c = nullptr;
    float alpha = 1;
    std::int64_t bias_row = 0, bias_col = 0;
    vec::Post post = vec::Post::none;
    float post_alpha = 0, post_beta = 0;
    Precision precision = Precision::split;  ///< few rows are multiplied in f32 whatever it says
};
/// Bytes of device memory that cuda_gemm() needs beside its operands; depends on the sizes only.
std::size_t cuda_gemm_scratch(const CudaGemm&) noexcept;
/// Enqueues one or two kernels (none for an empty C; k = 0 gives post(bias + residual)). cudaErrorInvalidValue for
/// sizes beyond the limits.
cudaError_t cuda_gemm(const CudaGemm&, void* scratch, cudaStream_t);

}  // namespace matmul
QUERN_END
