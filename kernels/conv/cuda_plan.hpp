// What the convolutions of every storage type share: arguments of their kernels, where results go, how one is cut.
#pragma once
#include <quern/base/ceil_div.hpp>
#include <quern/kernels/conv/cuda.hpp>
#include <quern/kernels/cuda/half.hpp>
#include <quern/kernels/cuda/post.hpp>
#include <quern/kernels/cuda/tile.hpp>
#include <quern/kernels/cuda/tile_store.hpp>

QUERN_BEGIN
namespace conv::cuda {

constexpr std::int64_t kMost = 0x7fffffff;

template <class T>
struct Finish {
    const T *bias, *residual;
    T* y;
    float alpha, beta;
    vec::Post post;
    __device__ __forceinline__ float value(float sum, int channel, std::int64_t at) const {
        if (bias) sum += quern::cuda::to_float(bias[channel]);
        if (residual) sum += quern::cuda::to_float(residual[at]);
        return quern::cuda::post(post, sum, alpha, beta);
    }
};
/// A product C[m][n] = W[m][k] patches[k][n] for each group: output channels by output pixels of all images.
template <class T>
struct BasicConv {
    const T *x, *w;
    float* partial;  // [split][group][m][n], or null
    int m, n, k;     // of one group; k: elements of a row of w
    int splits, k_split, group;
    int channels, row;  // of one group; row: of one tap in packed weights
    bool vector;        // f32: four columns of y are in one image, on a boundary of 16 bytes of it; half types: eight of x
    int in[3], stride[3], dilation[3], pad[3];
    simt::Divisor pixels, out_hw, out_w;      // of a column
    simt::Divisor taps, kernel_hw, kernel_w;  // of a row of patches in ONNX's order
    simt::Divisor packed;                     // ... in that of packed weights
    std::int64_t x_image, y_image;            // elements of one image
    std::int64_t x_plane, y_plane;            // of one channel
    Finish<T> finish;
};

/// Where the window of a column begins.
struct Window {
    unsigned image;
    int start[3];
    template <class C>
    __device__ __forceinline__ Window(const C& c, unsigned column) {
        image = c.pixels.split(column);
        const unsigned d = c.out_hw.split(column), h = c.out_w.split(column);
        start[0] = static_cast<int>(d) * c.stride[0] - c.pad[0];
        start[1] = static_cast<int>(h) * c.stride[1] - c.pad[1];
        start[2] = static_cast<int>(column) * c.stride[2] - c.pad[2];
    }
};
/// How far a tap is from there.
struct Tap {
    int step[3];
    template <class C>
    __device__ __forceinline__ Tap(const C& c, unsigned tap) {
        const unsigned d = c.kernel_hw.split(tap), h = c.kernel_w.split(tap);
        step[0] = static_cast<int>(d) * c.dilation[0];
        step[1] = static_cast<int>(h) * c.dilation[1];
        step[2] = static_cast<int>(tap) * c.dilation[2];
    }
};
/// Place of the pixel in its image's plane; negative: in the padding.
template <class C>
__device__ __forceinline__ int place(const C& c, const int (&start)[3], const Tap& t) {
    const int d = start[0] + t.step[0], h = start[1] + t.step[1], v = start[2] + t.step[2];
    const bool inside = static_cast<unsigned>(d) < static_cast<unsigned>(c.in[0]) &&
                        static_cast<unsigned>(h) < static_cast<unsigned>(c.in[1]) &&
                        static_cast<unsigned>(v) < static_cast<unsigned>(c.in[2]);
    return inside ? (d * c.in[1] + h) * c.in[2] + v : -1;
}

/// Finishes and stores the tile from (m0, n0) on. mend(row, column) stands for a sum that is NaN; null: NaN stays.
template <class S, class T, class Mend>
__device__ __forceinline__ void store_tile(const BasicConv<T>& c, int group, int split, int m0, int n0,
                                           const float (&acc)[S::MT][S::NT][4], Mend mend) {
    const int column = n0 + quern::cuda::column_of_four<S>(), left = c.n - column;
    unsigned pixel = left > 0 ? column : 0;
    const unsigned image = c.pixels.split(pixel);
    const std::int64_t base = image * c.y_image + pixel;
    const bool together = c.y_plane % 4 == 0;  // four are in one image
    quern::cuda::each_four<S>(acc, [&](int of_tile, float(&v)[4]) {
        const int row = m0 + of_tile;
        if (row >= c.m || left <= 0) return;
        if constexpr (!std::is_same_v<Mend, std::nullptr_t>) {
#pragma unroll
            for (int w = 0; w < 4; ++w)
                if (v[w] != v[w] && w < left) v[w] = mend(row, column + w);
        }
        if (c.partial) {
            float* to = c.partial + ((std::int64_t(split) * c.group + group) * c.m + row) * c.n + column;
            quern::cuda::store_four(to, v, left);
            return;
        }
        const int channel = group * c.m + row;
        const std::int64_t at = base + channel * c.y_plane;
        if (together) {
            T t[4];
#pragma unroll
            for (int w = 0; w < 4; ++w) t[w] = quern::cuda::from_float<T>(c.finish.value(v[w], channel, at + w));
            quern::cuda::store_four(c.finish.y + at, t, 4);
            return;
        }
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            if (w >= left) break;
            const unsigned i = c.pixels.divide(column + w);
            const std::int64_t to = i * c.y_image + channel * c.y_plane + (column + w - i * c.pixels.divisor);
            c.finish.y[to] = quern::cuda::from_float<T>(c.finish.value(v[w], channel, to));
        }
    });
}

template <class T>
__global__ void __launch_bounds__(256) add_parts(const BasicConv<T> c) {
    const std::int64_t all = std::int64_t(c.group) * c.m * c.n;
    const std::int64_t i = std::int64_t(blockIdx.x) * 256 + threadIdx.x;
    if (i >= all) return;
    float s = 0;
    for (int p = 0; p < c.splits; ++p) s += c.partial[p * all + i];
    const int channel = static_cast<int>(i / c.n);
    const unsigned n = static_cast<unsigned>(i - std::int64_t(channel) * c.n), image = c.pixels.divide(n);
    const std::int64_t at = image * c.y_image + channel * c.y_plane + (n - image * c.pixels.divisor);
    c.finish.y[at] = quern::cuda::from_float<T>(c.finish.value(s, channel, at));
}
// w [rows][channels][taps] to [rows][taps][row].
template <class T>
__global__ void __launch_bounds__(256)
    pack_taps(const T* w, T* packed, unsigned count, simt::Divisor row, simt::Divisor taps, int channels) {
    unsigned i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    T* to = packed + i;
    const unsigned m = row.divide(i), channel = i - m * row.divisor, r = taps.divide(m), tap = m - r * taps.divisor;
    *to = channel < static_cast<unsigned>(channels) ? w[(std::int64_t(r) * channels + channel) * taps.divisor + tap]
                                                    : quern::cuda::from_float<T>(0.0f);
}

/// How the windows of pixels are read.
enum class Order : std::uint8_t {
    onnx,       // channel by channel, each with its taps: any size
    taps,       // tap by tap: all of a step is one tap
    pointwise,  // one tap, stride 1, no padding
};
struct Plan {
    enum Kind { tiles128x64, tiles64x128, tiles64, tiles32, depthwise } kind;
    Order order;
    int parts;  // f32: products of TF32 a product is made of, 0: f32 units
    int splits;
    std::int64_t m, n, k, k_split;
    std::int64_t row;                   // of packed weights, 0: ONNX's order
    std::size_t partial, weights, image;  // bytes of scratch: partial sums, packed weights, x with channels last
};
inline std::size_t room(std::int64_t elements, std::size_t each) {
    return (static_cast<std::size_t>(elements) * each + 255) / 256 * 256;
}
inline bool pointwise(const vec::ConvShape& s) {
    bool p = s.taps() == 1;
    for (int d = 0; d < 3; ++d) p = p && s.stride[d] == 1 && s.pad[d] == 0 && s.in[d] == s.out[d];
    return p;
}
Plan plan(const CudaConv&);

template <class T>
BasicConv<T> arguments(const CudaConv& f, const Plan& p, void* scratch) {
    const vec::ConvShape& s = f.shape;
    BasicConv<T> c{};
    c.x = static_cast<const T*>(f.x), c.w = static_cast<const T*>(f.w);
    c.partial = p.splits > 1 ? static_cast<float*>(scratch) : nullptr;
    c.m = static_cast<int>(p.m), c.n = static_cast<int>(p.n), c.k = static_cast<int>(p.k);
    c.splits = p.splits, c.k_split = static_cast<int>(p.k_split), c.group = static_cast<int>(f.group);
    c.channels = static_cast<int>(s.channels), c.row = static_cast<int>(p.row);
    for (int d = 0; d < 3; ++d) {
        c.in[d] = static_cast<int>(s.in[d]), c.stride[d] = static_cast<int>(s.stride[d]);
        c.dilation[d] = static_cast<int>(s.dilation[d]), c.pad[d] = static_cast<int>(s.pad[d]);
    }
    c.pixels = simt::Divisor(s.pixels_out());
    c.out_hw = simt::Divisor(s.out[1] * s.out[2]);
    c.out_w = simt::Divisor(s.out[2]);
    c.taps = simt::Divisor(s.taps());
    c.kernel_hw = simt::Divisor(s.kernel[1] * s.kernel[2]);
    c.kernel_w = simt::Divisor(s.kernel[2]);
    c.packed = simt::Divisor(p.row ? p.row : 1);
    c.x_plane = s.pixels_in(), c.y_plane = s.pixels_out();
    c.x_image = s.in_channels * c.x_plane, c.y_image = s.out_channels * c.y_plane;
    c.vector = c.y_plane % 4 == 0 && reinterpret_cast<std::uintptr_t>(f.y) % (4 * sizeof(T)) == 0;
    c.finish = {static_cast<const T*>(f.bias), static_cast<const T*>(f.residual),
                static_cast<T*>(f.y),          f.post_alpha,
                f.post_beta,                   f.post};
    return c;
}
/// Gives c its weights, packed where the plan wants them so, in `to` if they are not yet.
template <class T>
cudaError_t take_weights(BasicConv<T>& c, const CudaConv& f, const Plan& p, void* to, cudaStream_t stream) {
    if (!p.row) return cudaSuccess;
    c.w = static_cast<const T*>(f.packed);
    if (c.w) return cudaSuccess;
    if (!p.weights) {
        c.w = static_cast<const T*>(f.w);
        return cudaSuccess;
    }
    c.w = static_cast<const T*>(to);
    const std::int64_t count = f.shape.out_channels * p.k;
    return simt::launch(pack_taps<T>, dim3(static_cast<unsigned>(ceil_div(count, 256))), dim3(256), 0, stream,
                        static_cast<const T*>(f.w), static_cast<T*>(to), static_cast<unsigned>(count),
                        simt::Divisor(p.row), simt::Divisor(f.shape.taps()), static_cast<int>(f.shape.channels));
}
template <class T>
cudaError_t finish_parts(const BasicConv<T>& c, cudaStream_t stream) {
    if (!c.partial) return cudaSuccess;
    const std::int64_t all = std::int64_t(c.group) * c.m * c.n;
    return simt::launch(add_parts<T>, dim3(static_cast<unsigned>(ceil_div(all, 256))), dim3(256), 0, stream, c);
}
/// Convolutions of f16 and bf16 (cuda_half.cu).
cudaError_t run_half(const CudaConv&, const Plan&, void* scratch, cudaStream_t);

}  // namespace conv::cuda
QUERN_END
