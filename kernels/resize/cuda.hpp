// Resizing of f32 on CUDA.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace resize {

inline constexpr int max_resized = 3;

enum class CudaMode : std::uint8_t { nearest, linear, cubic };
enum class CudaCoord : std::uint8_t {
    half_pixel,
    half_pixel_symmetric,
    pytorch_half_pixel,
    align_corners,
    asymmetric,
    tf_half_pixel_for_nn
};
enum class CudaNearest : std::uint8_t { round_prefer_floor, round_prefer_ceil, floor, ceil, simple };

/// y [outer, out..., inner] from x [outer, in..., inner] over `axes` axes (outermost first), by the rules of resize.hpp
/// without antialiasing. Coordinates are computed in double. Fewer than 2^31 elements.
struct CudaResize {
    CudaMode mode = CudaMode::nearest;
    CudaCoord coord = CudaCoord::half_pixel;
    CudaNearest nearest = CudaNearest::round_prefer_floor;
    double cubic_a = -0.75;
    bool exclude_outside = false;
    int axes = 0;
    std::int64_t outer = 1, inner = 1, in[max_resized] = {}, out[max_resized] = {};
    double scale[max_resized] = {};
    const float* x = nullptr;
    float* y = nullptr;
};
/// Enqueues one kernel (none for no outputs). cudaErrorInvalidValue for sizes beyond the limits.
cudaError_t cuda_resize(const CudaResize&, cudaStream_t);

}  // namespace resize
QUERN_END
