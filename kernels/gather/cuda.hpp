// Gathering and scattering by index on CUDA. An index counts from the end where it is negative; one that is outside
// of its dimension even then reads as zeros and writes nothing (an error cannot be raised from the device).
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace movement {

inline constexpr int max_gather_rank = 8;

/// Elements of `size` bytes (1, 2, 4, 8), indices of `index_size` (4 or 8), both fewer than 2^31. Each enqueues one
/// kernel, or none for nothing to do; cudaErrorInvalidValue for sizes beyond the limits.
/// data [outer, n, inner], indices [k] -> y [outer, k, inner].
cudaError_t cuda_gather(const void* data, const void* indices, void* y, std::int64_t outer, std::int64_t n,
                        std::int64_t k, std::int64_t inner, int size, int index_size, cudaStream_t);
/// y[i0..ir] = data[i0..indices[i0..ir]..ir] along `axis`; dims of y and the indices are at most data's.
cudaError_t cuda_gather_elements(const void* data, const void* indices, void* y, int rank, int axis,
                                 const std::int64_t* data_dims, const std::int64_t* y_dims, int size, int index_size,
                                 cudaStream_t);
/// `tuples` index tuples (int64) of `width` for each of `batches`: dims are those of data after the batch dims that
/// they speak of, `inner` elements follow. gather: y [batches, tuples, inner] = data; else data = y, where no
/// two tuples of a batch name the same place (if they do, either wins).
cudaError_t cuda_index_nd(bool gather, void* data, const std::int64_t* indices, void* y, std::int64_t batches,
                          std::int64_t tuples, int width, const std::int64_t* dims, std::int64_t inner, int size,
                          cudaStream_t);

}  // namespace movement
QUERN_END
