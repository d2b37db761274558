// Selection on CUDA.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace selection {

inline constexpr std::int64_t max_cuda_k = 1024;

/// The k largest (or smallest) of x [outer, n, inner] over n, in order, and their positions: values [outer, k, inner] of
/// x's type and positions (i64); either may be null. Equal ones (zeros of both signs too): the smaller position first;
/// NaN counts as the largest value.
struct CudaTopK {
    const void* x = nullptr;  ///< f32, or i32 where `whole`
    bool whole = false;
    void* values = nullptr;
    std::int64_t* positions = nullptr;
    std::int64_t outer = 0, n = 0, inner = 1, k = 0;
    bool largest = true;
};
/// Enqueues one kernel (none for no results). cudaErrorInvalidValue for k above max_cuda_k or n, and for 2^31 elements
/// and more.
cudaError_t cuda_top_k(const CudaTopK&, cudaStream_t);

}  // namespace selection
QUERN_END
