// A thread an output: taps and weights of each axis from its coordinate.
#include <quern/kernels/cuda/simt.hpp>
#include <quern/kernels/resize/cuda.hpp>

QUERN_BEGIN
namespace resize::cuda {

constexpr int kThreads = 256, kTaps = 4;

struct Arguments : CudaResize {
    unsigned count;
    simt::Divisor by_inner, by_out[max_resized];
    double length[max_resized];  // of the output, a fraction where scales are given
};

__device__ __forceinline__ double coordinate(const Arguments& a, int k, double x) {
    const double n = static_cast<double>(a.in[k]), wide = static_cast<double>(a.out[k]), length = a.length[k],
                 scale = a.scale[k];
    switch (a.coord) {
        case CudaCoord::half_pixel_symmetric: return n / 2 * (1 - wide / length) + (x + 0.5) / scale - 0.5;
        case CudaCoord::pytorch_half_pixel: return length == 1 ? -0.5 : (x + 0.5) / scale - 0.5;
        case CudaCoord::align_corners: return length == 1 ? 0 : x * (n - 1) / (length - 1);
        case CudaCoord::asymmetric: return x / scale;
        case CudaCoord::tf_half_pixel_for_nn: return (x + 0.5) / scale;
        default: return (x + 0.5) / scale - 0.5;
    }
}
__device__ __forceinline__ double cubic(double x, double a) {
    x = fabs(x);
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    return 0;
}
// Taps of one axis; returns their number.
__device__ __forceinline__ int taps(const Arguments& a, int k, unsigned o, int (&index)[kTaps],
                                    float (&weight)[kTaps]) {
    const double x = coordinate(a, k, static_cast<double>(o));
    const int last = static_cast<int>(a.in[k]) - 1;
    if (a.mode == CudaMode::nearest) {
        double i;
        switch (a.nearest) {
            case CudaNearest::round_prefer_floor: i = ceil(x - 0.5); break;
            case CudaNearest::round_prefer_ceil: i = floor(x + 0.5); break;
            case CudaNearest::floor: i = floor(x); break;
            case CudaNearest::ceil: i = ceil(x); break;
            default: i = a.scale[k] < 1 ? ceil(x) : floor(x);
        }
        const int at = static_cast<int>(i);
        index[0] = at < 0 ? 0 : at > last ? last : at;
        weight[0] = 1;
        return 1;
    }
    const int n = a.mode == CudaMode::linear ? 2 : 4, first = static_cast<int>(floor(x)) - n / 2 + 1;
    double w[kTaps], sum = 0;
#pragma unroll
    for (int t = 0; t < kTaps; ++t) {
        if (t >= n) break;
        const int at = first + t;
        const double d = static_cast<double>(at) - x;
        w[t] = a.mode == CudaMode::linear ? fmax(0.0, 1 - fabs(d)) : cubic(d, a.cubic_a);
        if (a.exclude_outside && (at < 0 || at > last)) w[t] = 0;
        index[t] = at < 0 ? 0 : at > last ? last : at;
        sum += w[t];
    }
#pragma unroll
    for (int t = 0; t < kTaps; ++t)
        if (t < n) weight[t] = static_cast<float>(a.exclude_outside && sum != 0 ? w[t] / sum : w[t]);
    return n;
}

__global__ void __launch_bounds__(kThreads) resize(const Arguments a) {
    const unsigned at = blockIdx.x * kThreads + threadIdx.x;
    if (at >= a.count) return;
    unsigned i = at, q = a.by_inner.divide(i);
    const unsigned column = i - q * a.by_inner.divisor;
    i = q;
    int index[max_resized][kTaps], n[max_resized] = {1, 1, 1};
    float weight[max_resized][kTaps];
    // The axes take the last places; before them stand axes of one element.
#pragma unroll
    for (int d = max_resized - 1; d >= 0; --d) {
        const int k = d - (max_resized - a.axes);
        index[d][0] = 0, weight[d][0] = 1;
        if (k < 0) continue;
        q = a.by_out[k].divide(i);
        n[d] = taps(a, k, i - q * a.by_out[k].divisor, index[d], weight[d]);
        i = q;
    }
    std::int64_t size[max_resized];
#pragma unroll
    for (int d = 0; d < max_resized; ++d) {
        const int k = d - (max_resized - a.axes);
        size[d] = k < 0 ? 1 : a.in[k];
    }
    const float* x = a.x + i * size[0] * size[1] * size[2] * a.inner + column;
    float v = 0;
#pragma unroll
    for (int p = 0; p < kTaps; ++p) {
        if (p >= n[0]) break;
#pragma unroll
        for (int r = 0; r < kTaps; ++r) {
            if (r >= n[1]) break;
#pragma unroll
            for (int s = 0; s < kTaps; ++s) {
                if (s >= n[2]) break;
                const std::int64_t from = ((index[0][p] * size[1] + index[1][r]) * size[2] + index[2][s]) * a.inner;
                v += weight[0][p] * weight[1][r] * weight[2][s] * x[from];
            }
        }
    }
    a.y[at] = v;
}

}  // namespace resize::cuda

namespace resize {

cudaError_t cuda_resize(const CudaResize& r, cudaStream_t stream) {
    constexpr std::int64_t most = 0x7fffffff;
    if (r.axes < 0 || r.axes > max_resized || r.outer < 0 || r.inner < 0) return cudaErrorInvalidValue;
    cuda::Arguments a{};
    static_cast<CudaResize&>(a) = r;
    const auto times = [](std::int64_t& n, std::int64_t by) {
        if (by < 0 || (by > 0 && n > most / by)) return false;
        n *= by;
        return true;
    };
    std::int64_t inputs = r.inner, outputs = r.inner;
    if (!times(inputs, r.outer) || !times(outputs, r.outer)) return cudaErrorInvalidValue;
    for (int k = 0; k < r.axes; ++k)
        if (!times(inputs, r.in[k]) || !times(outputs, r.out[k])) return cudaErrorInvalidValue;
    if (outputs == 0) return cudaSuccess;
    if (inputs == 0) return cudaErrorInvalidValue;
    for (int k = 0; k < r.axes; ++k) {
        a.by_out[k] = simt::Divisor(r.out[k]);
        const double wide = static_cast<double>(r.out[k]), length = r.scale[k] * static_cast<double>(r.in[k]);
        const double gap = length > wide ? length - wide : wide - length;
        a.length[k] = gap < 1e-9 * wide ? wide : length;
    }
    a.by_inner = simt::Divisor(r.inner);
    a.count = static_cast<unsigned>(outputs);
    const dim3 grid(static_cast<unsigned>((outputs + cuda::kThreads - 1) / cuda::kThreads));
    return simt::launch(cuda::resize, grid, dim3(cuda::kThreads), 0, stream, a);
}

}  // namespace resize
QUERN_END
