// Convolutions of f32 on CUDA, channels first.
#pragma once
#include <driver_types.h>

#include <cstddef>
#include <cstdint>

#include <quern/kernels/matmul/cuda.hpp>

QUERN_BEGIN
namespace conv {

/// y = post(conv(x, w) + bias + residual): x [images, in_channels, d...], w [out_channels, channels, k...] as in ONNX,
/// bias [out_channels] or null, residual and y [images, out_channels, o...] (residual may be y, or null). `shape` as
/// kernels/conv/geometry.hpp resolves it (up to three spatial dimensions, right-aligned). Each tensor has fewer than
/// 2^31 elements. Sums run in a fixed order that depends on the sizes only. Tolerance as in conv.hpp, tf32: 1e-3.
struct CudaConv {
    vec::ConvShape shape{};
    std::int64_t images = 0, group = 1;
    const float *x = nullptr, *w = nullptr, *bias = nullptr, *residual = nullptr;
    float* y = nullptr;
    vec::Post post = vec::Post::none;
    float post_alpha = 0, post_beta = 0;
    /// split: where it pays (kernels of 1 with many pixels), else f32; depthwise ones are computed in f32 whatever it
    /// says.
    matmul::Precision precision = matmul::Precision::split;
};
/// Bytes of device memory that cuda_conv() needs; depends on the sizes only.
std::size_t cuda_conv_scratch(const CudaConv&) noexcept;
/// Enqueues one or two kernels. cudaErrorInvalidValue for sizes beyond the limits.
cudaError_t cuda_conv(const CudaConv&, void* scratch, cudaStream_t);

}  // namespace conv
QUERN_END
