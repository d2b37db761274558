// Reductions of f32 on CUDA.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace reduce {

enum class CudaOp : std::uint8_t { sum, mean, max, min, prod, l1, l2, log_sum, log_sum_exp, sum_square };

/// y [outer, inner] = x [outer, n, inner] reduced over n; fewer than 2^31 elements. n = 0 gives what reduce.hpp says.
/// NaN stays. Sums are taken in a fixed order: tolerance against double 2e-6 relative to the sum of magnitudes.
/// Enqueues one kernel (none for no outputs); cudaErrorInvalidValue for sizes beyond the limits.
cudaError_t cuda_reduce(CudaOp, const float* x, float* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
                        cudaStream_t);
/// y [outer, inner] = index of the largest (`max`) or smallest of x [outer, n, inner] over n, the first or `last` of
/// equal ones; n >= 1. NaN is never chosen unless it is first.
cudaError_t cuda_arg(const float* x, std::int64_t* y, std::int64_t outer, std::int64_t n, std::int64_t inner, bool max,
                     bool last, cudaStream_t);

}  // namespace reduce
QUERN_END
