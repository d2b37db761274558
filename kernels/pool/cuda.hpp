// Pooling of f32 on CUDA.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace pool {

/// Windows over up to three spatial dimensions (right-aligned, 1 where there are fewer): y [images, channels, out...]
/// from x [images, channels, in...], or both with the channels last. Max: -inf for a window without elements; average:
/// over the elements, `count_padding`: and the padding (`pad` before, `pad_end` after), 0 for none. Fewer than 2^31
/// elements.
struct CudaWindows {
    std::int64_t images = 0, channels = 0;
    std::int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
    bool max = true, count_padding = false, channels_last = false;
    const float* x = nullptr;
    float* y = nullptr;
};
/// Enqueues one kernel (none for no outputs). cudaErrorInvalidValue for sizes beyond the limits.
cudaError_t cuda_pool(const CudaWindows&, cudaStream_t);

}  // namespace pool
QUERN_END
