// Depthwise convolutions of every storage type: computed in f32 from what is read, once a row of the kernel.
#pragma once
#include <quern/kernels/conv/cuda_plan.hpp>

QUERN_BEGIN
namespace conv::cuda {

// One input channel for each output channel, square kernels of K in two dimensions, not dilated: a thread computes four
// neighbours in a row, so that each value is read once a row of the kernel and not once a tap.
template <class T, int K, int Stride>
__global__ void __launch_bounds__(128, simt::by_arch(0, K == 7 ? 10 : 0)) depthwise_rows(const BasicConv<T> c, simt::Divisor channels, simt::Divisor rows,
                                                      simt::Divisor fours, unsigned count, int per_group) {
    constexpr int N = 4, columns = (N - 1) * Stride + K;
    unsigned four = blockIdx.x * 128 + threadIdx.x;
    if (four >= count) return;
    unsigned h = fours.split(four);
    const unsigned plane = rows.split(h);
    unsigned channel = plane;
    const unsigned image = channels.split(channel);
    const T* x = c.x + image * c.x_image + channel / per_group * c.x_plane;
    const T* w = c.w + channel * (K * K);
    const int y0 = static_cast<int>(h) * Stride - c.pad[1], z0 = static_cast<int>(four) * N * Stride - c.pad[2];
    float s[N] = {};
#pragma unroll
    for (int r = 0; r < K; ++r) {
        const int y = y0 + r;
        if (static_cast<unsigned>(y) >= static_cast<unsigned>(c.in[1])) continue;
        float v[columns];
#pragma unroll
        for (int q = 0; q < columns; ++q) {
            const int z = z0 + q;
            v[q] = static_cast<unsigned>(z) < static_cast<unsigned>(c.in[2]) ? quern::cuda::to_float(x[y * c.in[2] + z]) : 0.0f;
        }
#pragma unroll
        for (int q = 0; q < K; ++q) {
            const float f = quern::cuda::to_float(w[r * K + q]);
#pragma unroll
            for (int j = 0; j < N; ++j) s[j] += f * v[j * Stride + q];
        }
    }
    const int width = static_cast<int>(c.out_w.divisor), column = static_cast<int>(four) * N;
    const std::int64_t at = plane * c.y_plane + static_cast<int>(h) * width + column;
    if (c.vector && width % N == 0) {
        T t[N];
#pragma unroll
        for (int j = 0; j < N; ++j) t[j] = quern::cuda::from_float<T>(c.finish.value(s[j], static_cast<int>(channel), at + j));
        simt::store_pack(c.finish.y + at, t);
    } else {
#pragma unroll
        for (int j = 0; j < N; ++j)
            if (column + j < width) c.finish.y[at + j] = quern::cuda::from_float<T>(c.finish.value(s[j], static_cast<int>(channel), at + j));
    }
}
// One input channel for each output channel; a thread a pixel. K: size of a square kernel of two dimensions, 0: any.
template <class T, int K>
__global__ void __launch_bounds__(256) depthwise(const BasicConv<T> c, simt::Divisor channels, unsigned count, int per_group) {
    const unsigned i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    const unsigned plane = c.pixels.divide(i), image = channels.divide(plane);
    unsigned p = i - plane * c.pixels.divisor;
    const int channel = static_cast<int>(plane - image * channels.divisor);
    const T* x = c.x + image * c.x_image + channel / per_group * c.x_plane;
    const T* w = c.w + channel * c.k;
    const unsigned d = c.out_hw.divide(p);
    p -= d * c.out_hw.divisor;
    const unsigned h = c.out_w.divide(p);
    const int h0 = static_cast<int>(h) * c.stride[1] - c.pad[1];
    const int w0 = static_cast<int>(p - h * c.out_w.divisor) * c.stride[2] - c.pad[2];
    float s = 0;
    if constexpr (K > 0) {
#pragma unroll
        for (int r = 0; r < K; ++r) {
            const int y = h0 + r * c.dilation[1];
            if (static_cast<unsigned>(y) >= static_cast<unsigned>(c.in[1])) continue;
#pragma unroll
            for (int q = 0; q < K; ++q) {
                const int z = w0 + q * c.dilation[2];
                if (static_cast<unsigned>(z) < static_cast<unsigned>(c.in[2])) s += quern::cuda::to_float(w[r * K + q]) * quern::cuda::to_float(x[y * c.in[2] + z]);
            }
        }
    } else {
        const int d0 = static_cast<int>(d) * c.stride[0] - c.pad[0];
        for (int tap = 0; tap < c.k; ++tap) {
            unsigned t = tap;
            const unsigned e = c.kernel_hw.divide(t);
            t -= e * c.kernel_hw.divisor;
            const unsigned r = c.kernel_w.divide(t), q = t - r * c.kernel_w.divisor;
            const int v = d0 + static_cast<int>(e) * c.dilation[0], y = h0 + static_cast<int>(r) * c.dilation[1];
            const int z = w0 + static_cast<int>(q) * c.dilation[2];
            if (static_cast<unsigned>(v) < static_cast<unsigned>(c.in[0]) &&
                static_cast<unsigned>(y) < static_cast<unsigned>(c.in[1]) &&
                static_cast<unsigned>(z) < static_cast<unsigned>(c.in[2]))
                s += quern::cuda::to_float(w[tap]) * quern::cuda::to_float(x[(v * c.in[1] + y) * c.in[2] + z]);
        }
    }
    c.finish.y[i] = quern::cuda::from_float<T>(c.finish.value(s, channel, i));
}

template <class T, int Stride>
auto* rows_kernel(std::int64_t size) {
    return size == 3 ? depthwise_rows<T, 3, Stride> : size == 5 ? depthwise_rows<T, 5, Stride> : depthwise_rows<T, 7, Stride>;
}
template <class T>
cudaError_t run_depthwise(const CudaConv& f, const Plan& p, cudaStream_t stream) {
    const vec::ConvShape& s = f.shape;
    const BasicConv<T> c = arguments<T>(f, p, nullptr);
    const simt::Divisor channels(s.out_channels);
    const int per_group = static_cast<int>(p.m);
    const std::int64_t planes = f.images * s.out_channels, size = s.kernel[2], stride = s.stride[2];
    const bool flat = s.in[0] == 1 && s.kernel[0] == 1 && s.pad[0] == 0 && s.kernel[1] == size;
    if (flat && (size == 3 || size == 5 || size == 7) && s.dilation[1] == 1 && s.dilation[2] == 1 &&
        s.stride[1] == stride && (stride == 1 || stride == 2)) {
        const std::int64_t fours = ceil_div(s.out[2], 4), count = planes * s.out[1] * fours;
        return simt::launch(stride == 1 ? rows_kernel<T, 1>(size) : rows_kernel<T, 2>(size),
                            dim3(static_cast<unsigned>(ceil_div(count, 128))), dim3(128), 0, stream, c, channels,
                            simt::Divisor(s.out[1]), simt::Divisor(fours), static_cast<unsigned>(count), per_group);
    }
    const std::int64_t outputs = planes * s.pixels_out();
    auto* kernel = flat && size == 3 ? depthwise<T, 3> : flat && size == 5 ? depthwise<T, 5> : depthwise<T, 0>;
    return simt::launch(kernel, dim3(static_cast<unsigned>(ceil_div(outputs, 256))), dim3(256), 0, stream, c, channels,
                        static_cast<unsigned>(outputs), per_group);
}

}  // namespace conv::cuda
QUERN_END
