// Convolutions of f32, f16 and bf16 on CUDA, channels first.
#pragma once
#include <driver_types.h>

#include <cstddef>
#include <cstdint>

#include <quern/dtype.hpp>
#include <quern/kernels/matmul/cuda.hpp>

QUERN_BEGIN
namespace conv {

/// y = post(conv(x, w) + bias + residual): x [images, in_channels, d...], w [out_channels, channels, k...] as in ONNX,
/// bias [out_channels] or null, residual and y [images, out_channels, o...] (residual may be y, or null). `shape` as
/// kernels/conv/geometry.hpp resolves it (up to three spatial dimensions, right-aligned). Each tensor has fewer than
/// 2^31 elements. f16 and bf16 are summed in f32. Sums run in a fixed order that depends on the sizes only.
/// Tolerance as in conv.hpp, tf32: 1e-3; f16, bf16: that of f32 before the result is rounded.
struct CudaConv {
    vec::ConvShape shape{};
    std::int64_t images = 0, group = 1;
    DType type = DType::f32;  ///< of all tensors
    const void *x = nullptr, *w = nullptr, *bias = nullptr, *residual = nullptr;
    void* y = nullptr;
    /// w as [out_channels][taps][cuda_conv_row()], zeros behind the channels; null: packed on the device at each run
    /// where that order is wanted.
    const void* packed = nullptr;
    vec::Post post = vec::Post::none;
    float post_alpha = 0, post_beta = 0;
    /// split: where it pays, else f32; depthwise convolutions and those of few channels are computed in f32 whatever it says.
    matmul::Precision precision = matmul::Precision::split;
    bool split_small = false;    ///< split also where f32 units are faster
    int tile_m = 0, tile_n = 0;  ///< the tile of a block, where there is one of this size; 0: chosen by the sizes
};
/// Channels of one tap in packed weights, or 0: they are taken in ONNX's order.
std::int64_t cuda_conv_row(DType, std::int64_t channels, std::int64_t taps) noexcept;
/// Bytes of device memory that cuda_conv() needs; looks at no pointer but whether `packed` is null.
std::size_t cuda_conv_scratch(const CudaConv&) noexcept;
/// Enqueues up to four kernels. cudaErrorInvalidValue for sizes beyond the limits.
cudaError_t cuda_conv(const CudaConv&, void* scratch, cudaStream_t);

}  // namespace conv
QUERN_END
