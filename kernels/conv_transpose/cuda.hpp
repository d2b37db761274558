// Transposed convolutions of f32 on CUDA, channels first.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace conv_transpose {

/// y [images, group * m, out...] from x [images, group * channels, in...] and w [group * channels, m, kernel...] over
/// three spatial dimensions (1 where there are fewer): input i meets output i * stride - pad + k * dilation at tap k.
/// bias [group * m] or null. Fewer than 2^31 elements in each. Tolerance as in conv.hpp.
struct CudaConvTranspose {
    std::int64_t images = 0, group = 1, channels = 0, m = 0;  ///< channels and m: of one group
    std::int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
    const float *x = nullptr, *w = nullptr, *bias = nullptr;
    float* y = nullptr;
};
/// Enqueues one kernel (none for no outputs). cudaErrorInvalidValue for sizes beyond the limits.
cudaError_t cuda_conv_transpose(const CudaConvTranspose&, cudaStream_t);

}  // namespace conv_transpose
QUERN_END
