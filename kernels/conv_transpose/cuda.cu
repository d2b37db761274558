// A thread an output pixel of four channels: it gathers the inputs that reach it, so that nothing is added by two
// threads.
#include <quern/kernels/conv_transpose/cuda.hpp>
#include <quern/kernels/cuda/simt.hpp>

QUERN_BEGIN
namespace conv_transpose::cuda {

constexpr int kThreads = 128, kChannels = 4;
constexpr std::int64_t kMost = 0x7fffffff;

struct Arguments {
    const float *x, *w, *bias;
    float* y;
    unsigned count;  // pixels of all images and blocks of channels
    int group, channels, m, taps, blocks;
    int in[3], kernel[3], dilation[3], pad[3];
    simt::Divisor stride[3], pixels, out_hw, out_w, blocks_all;
    std::int64_t x_plane, y_plane;
};

// The input position that reaches output `o` by tap k; negative: none.
__device__ __forceinline__ int source(const Arguments& a, int d, int o, int k) {
    const int t = o + a.pad[d] - k * a.dilation[d];
    if (t < 0) return -1;
    const int i = static_cast<int>(a.stride[d].divide(static_cast<unsigned>(t)));
    return i * static_cast<int>(a.stride[d].divisor) == t && i < a.in[d] ? i : -1;
}

__global__ void __launch_bounds__(kThreads) gather_taps(const Arguments a) {
    const unsigned at = blockIdx.x * kThreads + threadIdx.x;
    if (at >= a.count) return;
    const unsigned plane = a.pixels.divide(at), image = a.blocks_all.divide(plane);
    unsigned p = at - plane * a.pixels.divisor;
    const int block = static_cast<int>(plane - image * a.blocks_all.divisor);
    const int group = block / a.blocks, m0 = (block - group * a.blocks) * kChannels;
    const unsigned d = a.out_hw.divide(p), rest = p - d * a.out_hw.divisor, h = a.out_w.divide(rest);
    const int o[3] = {static_cast<int>(d), static_cast<int>(h), static_cast<int>(rest - h * a.out_w.divisor)};
    const float* x = a.x + (std::int64_t(image) * a.group + group) * a.channels * a.x_plane;
    const float* w = a.w + (std::int64_t(group) * a.channels * a.m + m0) * a.taps;
    const int n = a.m - m0 < kChannels ? a.m - m0 : kChannels;
    float acc[kChannels] = {};
    int tap = 0;
    for (int i = 0; i < a.kernel[0]; ++i) {
        const int z = source(a, 0, o[0], i);
        for (int j = 0; j < a.kernel[1]; ++j) {
            const int r = source(a, 1, o[1], j);
            for (int k = 0; k < a.kernel[2]; ++k, ++tap) {
                const int s = source(a, 2, o[2], k);
                if (z < 0 || r < 0 || s < 0) continue;
                const float* from = x + (z * a.in[1] + r) * a.in[2] + s;
                const float* by = w + tap;
#pragma unroll 4
                for (int c = 0; c < a.channels; ++c) {
                    const float v = from[c * a.x_plane];
#pragma unroll
                    for (int e = 0; e < kChannels; ++e)
                        if (e < n) acc[e] += v * by[(std::int64_t(c) * a.m + e) * a.taps];
                }
            }
        }
    }
    const std::int64_t channel = std::int64_t(group) * a.m + m0;
    float* y = a.y + (std::int64_t(image) * a.group * a.m + channel) * a.y_plane + p;
#pragma unroll
    for (int e = 0; e < kChannels; ++e)
        if (e < n) y[e * a.y_plane] = acc[e] + (a.bias ? a.bias[channel + e] : 0.0f);
}

}  // namespace conv_transpose::cuda

namespace conv_transpose {

cudaError_t cuda_conv_transpose(const CudaConvTranspose& c, cudaStream_t stream) {
    if (c.images < 0 || c.group < 1 || c.channels < 0 || c.m < 0 || c.images > cuda::kMost || c.group > cuda::kMost ||
        c.channels > cuda::kMost || c.m > cuda::kMost)
        return cudaErrorInvalidValue;
    cuda::Arguments a{};
    std::int64_t in = 1, out = 1, taps = 1;
    for (int d = 0; d < 3; ++d) {
        for (std::int64_t v : {c.in[d], c.out[d], c.kernel[d] * c.dilation[d], c.in[d] * c.stride[d]})
            if (v < 0 || v > (1 << 28)) return cudaErrorInvalidValue;
        if (c.stride[d] < 1 || c.dilation[d] < 1 || c.pad[d] < -(1 << 28) || c.pad[d] > (1 << 28))
            return cudaErrorInvalidValue;
        in *= c.in[d], out *= c.out[d], taps *= c.kernel[d];
        if (in > cuda::kMost || out > cuda::kMost || taps > cuda::kMost) return cudaErrorInvalidValue;
        a.in[d] = static_cast<int>(c.in[d]), a.kernel[d] = static_cast<int>(c.kernel[d]);
        a.dilation[d] = static_cast<int>(c.dilation[d]), a.pad[d] = static_cast<int>(c.pad[d]);
        a.stride[d] = simt::Divisor(c.stride[d]);
    }
    const auto fits = [](std::initializer_list<std::int64_t> factors) {
        std::int64_t n = 1;
        for (std::int64_t f : factors) {
            if (f > 0 && n > cuda::kMost / f) return false;
            n *= f;
        }
        return true;
    };
    if (!fits({c.images, c.group, c.channels, in}) || !fits({c.images, c.group, c.m, out}) ||
        !fits({c.group, c.channels, c.m, taps}))
        return cudaErrorInvalidValue;
    if (c.images * c.m * out == 0) return cudaSuccess;
    a.x = c.x, a.w = c.w, a.bias = c.bias, a.y = c.y;
    a.group = static_cast<int>(c.group), a.channels = static_cast<int>(c.channels), a.m = static_cast<int>(c.m);
    a.taps = static_cast<int>(taps);
    a.blocks = static_cast<int>((c.m + cuda::kChannels - 1) / cuda::kChannels);
    a.blocks_all = simt::Divisor(c.group * a.blocks);
    a.pixels = simt::Divisor(out), a.out_hw = simt::Divisor(c.out[1] * c.out[2]), a.out_w = simt::Divisor(c.out[2]);
    a.x_plane = in, a.y_plane = out;
    a.count = static_cast<unsigned>(c.images * c.group * a.blocks * out);
    return simt::launch(cuda::gather_taps, dim3((a.count + cuda::kThreads - 1) / cuda::kThreads), dim3(cuda::kThreads),
                        0, stream, a);
}

}  // namespace conv_transpose
QUERN_END
