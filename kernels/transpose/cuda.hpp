// Copies between strided regions on CUDA: what transposition, slicing, expansion, tiling, concatenation, splitting and
// padding are made of.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace movement {

inline constexpr int max_copy_rank = 8;

/// Dims (outermost first) with the distance in elements between neighbours in the source (s, 0: repeated, negative:
/// backwards) and in the target (t).
struct CopyRegion {
    int rank = 0;
    std::int64_t d[max_copy_rank], s[max_copy_rank], t[max_copy_rank];
    /// False where there is no room; neighbouring axes that are walked alike in both become one.
    bool axis(std::int64_t dim, std::int64_t source, std::int64_t target);
};
/// Copies elements of `size` bytes (1, 2, 4 or 8), fewer than 2^31 of them; source and target do not overlap.
/// Where both sides are contiguous 16 bytes are moved at a time, where they are contiguous along different axes tiles
/// go through shared memory. Enqueues one kernel (none for no elements). Returns cudaErrorInvalidValue for sizes
/// outside of these limits, else the launch's error.
cudaError_t cuda_copy(const CopyRegion&, int size, const void* from, void* to, cudaStream_t);

enum class CudaPad : std::uint8_t { constant, reflect, edge, wrap };
/// y[i] = x[i - before], where that is outside of x: the value (null: zeros; one element, device memory) or what the
/// mode says, as in pad.hpp. Sizes: in elements, outermost first; dense. Limits and errors as cuda_copy().
cudaError_t cuda_pad(CudaPad, int rank, const std::int64_t* x_dims, const std::int64_t* y_dims,
                     const std::int64_t* before, int size, const void* x, const void* value, void* y, cudaStream_t);
/// `count` elements of `size` bytes, each a copy of `value` (host memory).
cudaError_t cuda_fill(const void* value, int size, std::int64_t count, void* y, cudaStream_t);

}  // namespace movement
QUERN_END
