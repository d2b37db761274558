// A thread an output; neighbours share their windows through the cache.
#include <quern/kernels/cuda/simt.hpp>
#include <quern/kernels/pool/cuda.hpp>

QUERN_BEGIN
namespace pool::cuda {

constexpr int kThreads = 256;

struct Windows {
    const float* x;
    float* y;
    unsigned count;
    int in[3], kernel[3], stride[3], dilation[3], pad[3], end[3];  // end: size with the padding after
    simt::Divisor out[3], channels;
    int step[3];  // elements between neighbours of a dimension
    int image, channel;  // elements between images, between channels
    bool max, count_padding, channels_last;
};

__global__ void __launch_bounds__(kThreads, 6) windows(const Windows a) {
    const unsigned at = blockIdx.x * kThreads + threadIdx.x;
    if (at >= a.count) return;
    unsigned i = at, channel = 0, o[3], q;
    if (a.channels_last) {
        q = a.channels.divide(i);
        channel = i - q * a.channels.divisor;
        i = q;
    }
    for (int d = 2; d >= 0; --d) {
        q = a.out[d].divide(i);
        o[d] = i - q * a.out[d].divisor;
        i = q;
    }
    if (!a.channels_last) {
        q = a.channels.divide(i);
        channel = i - q * a.channels.divisor;
        i = q;
    }
    const int from = static_cast<int>(i) * a.image + static_cast<int>(channel) * a.channel;  // inputs are below 2^31
    int first[3], counted = 1;
#pragma unroll
    for (int d = 0; d < 3; ++d) {
        first[d] = static_cast<int>(o[d]) * a.stride[d] - a.pad[d];
        const int taps = (a.end[d] - first[d] + a.dilation[d] - 1) / a.dilation[d];
        counted *= taps < a.kernel[d] ? taps : a.kernel[d];
    }
    float v = a.max ? -INFINITY : 0.0f;
    int inside = 0;
    for (int p = 0; p < a.kernel[0]; ++p) {
        const int z = first[0] + p * a.dilation[0];
        if (static_cast<unsigned>(z) >= static_cast<unsigned>(a.in[0])) continue;
        for (int r = 0; r < a.kernel[1]; ++r) {
            const int h = first[1] + r * a.dilation[1];
            if (static_cast<unsigned>(h) >= static_cast<unsigned>(a.in[1])) continue;
            for (int s = 0; s < a.kernel[2]; ++s) {
                const int w = first[2] + s * a.dilation[2];
                if (static_cast<unsigned>(w) >= static_cast<unsigned>(a.in[2])) continue;
                const float e = a.x[from + z * a.step[0] + h * a.step[1] + w * a.step[2]];
                if (!a.max) v += e;
                else if (e > v) v = e;
                ++inside;
            }
        }
    }
    if (!a.max) {
        const int n = a.count_padding ? counted : inside;
        v = n > 0 ? v / static_cast<float>(n) : 0.0f;
    }
    a.y[at] = v;
}

}  // namespace pool::cuda

namespace pool {

cudaError_t cuda_pool(const CudaWindows& w, cudaStream_t stream) {
    constexpr std::int64_t most = 0x7fffffff;
    cuda::Windows a{};
    std::int64_t inputs = w.images * w.channels, outputs = inputs;
    if (w.images < 0 || w.channels < 0) return cudaErrorInvalidValue;
    for (int d = 0; d < 3; ++d) {
        for (std::int64_t v :
             {w.in[d], w.out[d], w.pad[d], w.pad_end[d], w.kernel[d] * w.dilation[d], w.out[d] * w.stride[d]})
            if (v < 0 || v > (1 << 29)) return cudaErrorInvalidValue;
        if (w.stride[d] < 1 || w.dilation[d] < 1 || (w.in[d] > 0 && inputs > most / w.in[d]) ||
            (w.out[d] > 0 && outputs > most / w.out[d]))
            return cudaErrorInvalidValue;
        inputs *= w.in[d];
        outputs *= w.out[d];
        a.in[d] = static_cast<int>(w.in[d]);
        a.kernel[d] = static_cast<int>(w.kernel[d]);
        a.stride[d] = static_cast<int>(w.stride[d]);
        a.dilation[d] = static_cast<int>(w.dilation[d]);
        a.pad[d] = static_cast<int>(w.pad[d]);
        a.end[d] = static_cast<int>(w.in[d] + w.pad_end[d]);
    }
    if (outputs == 0) return cudaSuccess;
    for (int d = 0; d < 3; ++d) a.out[d] = simt::Divisor(w.out[d]);
    a.channels = simt::Divisor(w.channels);
    const std::int64_t unit = w.channels_last ? w.channels : 1, plane = w.in[0] * w.in[1] * w.in[2];
    a.step[2] = static_cast<int>(unit);
    a.step[1] = static_cast<int>(unit * w.in[2]);
    a.step[0] = static_cast<int>(unit * w.in[2] * w.in[1]);
    a.channel = static_cast<int>(w.channels_last ? 1 : plane);
    a.image = static_cast<int>(w.channels * plane);
    a.count = static_cast<unsigned>(outputs);
    a.max = w.max, a.count_padding = w.count_padding, a.channels_last = w.channels_last;
    a.x = w.x, a.y = w.y;
    const dim3 grid(static_cast<unsigned>((outputs + cuda::kThreads - 1) / cuda::kThreads));
    return simt::launch(cuda::windows, grid, dim3(cuda::kThreads), 0, stream, a);
}

}  // namespace pool
QUERN_END
