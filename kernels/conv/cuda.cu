// Convolutions as products whose right side is gathered from the image while it is fetched (C = W x patches, a column
// for each output pixel of the batch), and depthwise ones directly.
#include <quern/kernels/conv/cuda.hpp>
#include <quern/kernels/cuda/post.hpp>
#include <quern/kernels/cuda/tensor_tile.hpp>
#include <quern/kernels/cuda/tile.hpp>

QUERN_BEGIN
namespace conv::cuda {

using matmul::Precision;
using quern::cuda::CopiedSide;
using quern::cuda::MatrixSide;
using quern::cuda::TensorShape;
using quern::cuda::TileShape;
constexpr std::int64_t kMost = 0x7fffffff;

struct Finish {
    const float *bias, *residual;
    float* y;
    float alpha, beta;
    vec::Post post;
    __device__ __forceinline__ float value(float sum, int channel, std::int64_t at) const {
        if (bias) sum += bias[channel];
        if (residual) sum += residual[at];
        return quern::cuda::post(post, sum, alpha, beta);
    }
};
struct Conv {
    const float *x, *w;
    float* partial;  // [split][group][m][n], or null
    int m, n, k;     // of one group: output channels, output pixels of all images, channels * taps
    int splits, k_split, group;
    bool vector;  // four neighbouring columns are in one image, on a 16-byte boundary of it
    int in[3], out[3], stride[3], dilation[3], pad[3];
    simt::Divisor pixels, out_hw, out_w;      // of a column
    simt::Divisor taps, kernel_hw, kernel_w;  // of a row of patches
    std::int64_t x_image, y_image;            // elements of one image
    std::int64_t x_plane, y_plane;            // of one channel
    Finish finish;
};

// Where patches of one output pixel lie in the image. Pointwise: kernel and stride 1 without padding.
template <bool Pointwise>
struct Pixel {
    const Conv& c;
    const float* image;
    int start[3];
    bool inside;

    __device__ __forceinline__ Pixel(const Conv& conv, const float* x, unsigned n) : c(conv) {
        inside = n < static_cast<unsigned>(c.n);
        if (!inside) n = 0;
        const unsigned i = c.pixels.divide(n);
        unsigned p = n - i * c.pixels.divisor;
        image = x + i * c.x_image;
        if constexpr (Pointwise) {
            image += p;
        } else {
            const unsigned d = c.out_hw.divide(p);
            p -= d * c.out_hw.divisor;
            const unsigned h = c.out_w.divide(p), w = p - h * c.out_w.divisor;
            start[0] = static_cast<int>(d) * c.stride[0] - c.pad[0];
            start[1] = static_cast<int>(h) * c.stride[1] - c.pad[1];
            start[2] = static_cast<int>(w) * c.stride[2] - c.pad[2];
        }
    }
    /// The place of element k (channel, tap) of the patch; null in the padding.
    __device__ __forceinline__ const float* at(int k) const {
        if constexpr (Pointwise) {
            return image + k * c.x_plane;
        } else {
            const unsigned channel = c.taps.divide(k);
            unsigned tap = k - channel * c.taps.divisor;
            int d = start[0];
            if (c.in[0] > 1 || c.pad[0] > 0) {
                const unsigned q = c.kernel_hw.divide(tap);
                tap -= q * c.kernel_hw.divisor;
                d += static_cast<int>(q) * c.dilation[0];
            }
            const unsigned r = c.kernel_w.divide(tap), s = tap - r * c.kernel_w.divisor;
            const int h = start[1] + static_cast<int>(r) * c.dilation[1];
            const int w = start[2] + static_cast<int>(s) * c.dilation[2];
            if (static_cast<unsigned>(d) >= static_cast<unsigned>(c.in[0]) ||
                static_cast<unsigned>(h) >= static_cast<unsigned>(c.in[1]) ||
                static_cast<unsigned>(w) >= static_cast<unsigned>(c.in[2]))
                return nullptr;
            return image + channel * c.x_plane + (d * c.in[1] + h) * c.in[2] + w;
        }
    }
};
// Patches [k][pixel]: through registers, or copied.
template <class S, bool Pointwise>
struct PatchSide {
    static constexpr int rows = S::threads / S::BN, each = S::BK / rows;
    static_assert(S::threads % S::BN == 0 && S::BK % rows == 0);
    static constexpr int BX = S::BN;
    static constexpr bool Along = false;
    Pixel<Pointwise> pixel;
    int k, k_end;
    float v[each];

    __device__ __forceinline__ PatchSide(const Conv& c, const float* x, int origin, int k_begin, int end)
        : pixel(c, x, origin + threadIdx.x % S::BN), k(k_begin + threadIdx.x / S::BN), k_end(end) {}
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int j = 0; j < each; ++j) {
            const float* from = pixel.inside && k < k_end ? pixel.at(k) : nullptr;
            v[j] = from ? *from : 0.0f;
            k += rows;
        }
    }
    __device__ __forceinline__ void put(float* s) const {
#pragma unroll
        for (int j = 0; j < each; ++j)
            s[(threadIdx.x / S::BN + j * rows) * (S::BN + S::pad) + threadIdx.x % S::BN] = v[j];
    }
};
template <class S, bool Pointwise>
struct CopiedPatches {
    static constexpr int rows = S::threads / S::BN, each = S::BK / rows;
    static_assert(S::threads % S::BN == 0 && S::BK % rows == 0);
    static constexpr int BX = S::BN;
    static constexpr bool Along = false;
    Pixel<Pointwise> pixel;
    int k, k_end;

    __device__ __forceinline__ CopiedPatches(const Conv& c, const float* x, int origin, int k_begin, int end)
        : pixel(c, x, origin + threadIdx.x % S::BN), k(k_begin + threadIdx.x / S::BN), k_end(end) {}
    __device__ __forceinline__ void copy(float* s) {
#pragma unroll
        for (int j = 0; j < each; ++j) {
            const float* from = pixel.inside && k < k_end ? pixel.at(k) : nullptr;
            simt::cp_async<4>(s + (threadIdx.x / S::BN + j * rows) * (S::BN + 8) + threadIdx.x % S::BN,
                              from ? from : pixel.image, from != nullptr);
            k += rows;
        }
    }
};

template <class S, bool Pointwise, int W>
__global__ void __launch_bounds__(S::threads, 2) conv_tiles(const Conv c) {
    const int group = blockIdx.z / c.splits, split = blockIdx.z - group * c.splits;
    const int n0 = blockIdx.x * S::BN, m0 = blockIdx.y * S::BM;
    const int k0 = split * c.k_split, k1 = k0 + c.k_split < c.k ? k0 + c.k_split : c.k;
    const int channels = c.k / static_cast<int>(c.taps.divisor);
    MatrixSide<S, S::BM, true, W> a(c.w + std::int64_t(group) * c.m * c.k, c.k, m0, c.m, k0, k1);
    PatchSide<S, Pointwise> b(c, c.x + group * channels * c.x_plane, n0, k0, k1);
    float acc[S::TM][S::TN] = {};
    quern::cuda::multiply_tile<S>(a, b, (k1 - k0 + S::BK - 1) / S::BK, acc);
#pragma unroll
    for (int j = 0; j < S::TN; j += 4) {
        const int column = n0 + S::column(j / 4);
        if (column >= c.n) continue;
        const unsigned image = c.pixels.divide(column), pixel = column - image * c.pixels.divisor;
#pragma unroll
        for (int i = 0; i < S::TM; ++i) {
            const int row = m0 + S::row(i);
            if (row >= c.m) continue;
            const int channel = group * c.m + row;
            float v[4];
            if (c.partial) {
                float* to = c.partial + ((std::int64_t(split) * c.group + group) * c.m + row) * c.n + column;
#pragma unroll
                for (int e = 0; e < 4; ++e) v[e] = acc[i][j + e];
                if (c.vector) {
                    simt::store_pack(to, v);
                } else {
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        if (column + e < c.n) to[e] = v[e];
                }
                continue;
            }
            const std::int64_t at = image * c.y_image + channel * c.y_plane + pixel;
            if (c.vector) {
#pragma unroll
                for (int e = 0; e < 4; ++e) v[e] = c.finish.value(acc[i][j + e], channel, at + e);
                simt::store_pack(c.finish.y + at, v);
            } else {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const unsigned n = column + e;
                    if (n >= static_cast<unsigned>(c.n)) break;
                    const unsigned q = c.pixels.divide(n);
                    const std::int64_t to = q * c.y_image + channel * c.y_plane + (n - q * c.pixels.divisor);
                    c.finish.y[to] = c.finish.value(acc[i][j + e], channel, to);
                }
            }
        }
    }
}

// One element in f32: the parts of an infinity have none for a product, the sum of parts is NaN then.
template <bool Pointwise>
__device__ __forceinline__ float exact(const Conv& c, const float* w, const float* x, int row, int column, int k0,
                                       int k1) {
    const Pixel<Pointwise> pixel(c, x, column);
    float s = 0;
#pragma unroll 1
    for (int k = k0; k < k1; ++k)
        if (const float* from = pixel.at(k)) s += w[std::int64_t(row) * c.k + k] * *from;
    return s;
}
template <class S, bool Pointwise, int W>
__global__ void __launch_bounds__(S::threads) conv_tensor_tiles(const Conv c) {
    const int group = blockIdx.z / c.splits, split = blockIdx.z - group * c.splits;
    const int n0 = blockIdx.x * S::BN, m0 = blockIdx.y * S::BM;
    const int k0 = split * c.k_split, k1 = k0 + c.k_split < c.k ? k0 + c.k_split : c.k;
    const int channels = c.k / static_cast<int>(c.taps.divisor);
    const float* weights = c.w + std::int64_t(group) * c.m * c.k;
    const float* x = c.x + group * channels * c.x_plane;
    CopiedSide<S, S::BM, true, W> a(weights, c.k, m0, c.m, k0, k1);
    CopiedPatches<S, Pointwise> b(c, x, n0, k0, k1);
    float acc[S::MT][S::NT][4] = {};
    quern::cuda::multiply_tensor_tile<S>(a, b, (k1 - k0 + S::BK - 1) / S::BK, acc);
    // Two neighbours are in one image, on an 8-byte boundary of it, where planes are even.
    const bool pairs =
        c.partial ? c.n % 2 == 0 : c.y_plane % 2 == 0 && reinterpret_cast<std::uintptr_t>(c.finish.y) % 8 == 0;
#pragma unroll
    for (int j = 0; j < S::NT; ++j) {
        const int column = n0 + S::column(j);
        if (column >= c.n) continue;
        const bool two = column + 1 < c.n;
        const unsigned image = c.pixels.divide(column), next = c.pixels.divide(column + 1);
        const std::int64_t here = image * c.y_image + (column - image * c.pixels.divisor);
        const std::int64_t there = next * c.y_image + (column + 1 - next * c.pixels.divisor);
#pragma unroll
        for (int i = 0; i < S::MT; ++i)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int row = m0 + S::row(i) + 8 * h;
                if (row >= c.m) continue;
                float v[2] = {acc[i][j][2 * h], acc[i][j][2 * h + 1]};
                if constexpr (S::Parts == 3) {
                    if (v[0] != v[0]) v[0] = exact<Pointwise>(c, weights, x, row, column, k0, k1);
                    if (two && v[1] != v[1]) v[1] = exact<Pointwise>(c, weights, x, row, column + 1, k0, k1);
                }
                const int channel = group * c.m + row;
                float* to[2];
                if (c.partial) {
                    to[0] = c.partial + ((std::int64_t(split) * c.group + group) * c.m + row) * c.n + column;
                    to[1] = to[0] + 1;
                } else {
                    const std::int64_t first = here + channel * c.y_plane, second = there + channel * c.y_plane;
                    v[0] = c.finish.value(v[0], channel, first);
                    if (two) v[1] = c.finish.value(v[1], channel, second);
                    to[0] = c.finish.y + first;
                    to[1] = c.finish.y + second;
                }
                if (two && pairs) {
                    simt::store_pack(to[0], v);
                } else {
                    *to[0] = v[0];
                    if (two) *to[1] = v[1];
                }
            }
    }
}

__global__ void __launch_bounds__(256) add_parts(const Conv c) {
    const std::int64_t all = std::int64_t(c.group) * c.m * c.n;
    const std::int64_t i = std::int64_t(blockIdx.x) * 256 + threadIdx.x;
    if (i >= all) return;
    float s = 0;
    for (int p = 0; p < c.splits; ++p) s += c.partial[p * all + i];
    const int channel = static_cast<int>(i / c.n);
    const unsigned n = static_cast<unsigned>(i - std::int64_t(channel) * c.n), image = c.pixels.divide(n);
    const std::int64_t at = image * c.y_image + channel * c.y_plane + (n - image * c.pixels.divisor);
    c.finish.y[at] = c.finish.value(s, channel, at);
}

// One input channel for each output channel; a thread a pixel. K: size of a square kernel of two dimensions, 0: any.
template <int K>
__global__ void __launch_bounds__(256) depthwise(const Conv c, simt::Divisor channels, unsigned count, int per_group) {
    const unsigned i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    const unsigned plane = c.pixels.divide(i), image = channels.divide(plane);
    unsigned p = i - plane * c.pixels.divisor;
    const int channel = static_cast<int>(plane - image * channels.divisor);
    const float* x = c.x + image * c.x_image + channel / per_group * c.x_plane;
    const float* w = c.w + channel * c.k;
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
                if (static_cast<unsigned>(z) < static_cast<unsigned>(c.in[2])) s += w[r * K + q] * x[y * c.in[2] + z];
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
                s += w[tap] * x[(v * c.in[1] + y) * c.in[2] + z];
        }
    }
    c.finish.y[i] = c.finish.value(s, channel, i);
}

struct Plan {
    enum Kind { tiles128, tiles64, tiles64x128, tiles32, depthwise } kind;
    int splits;
    std::int64_t m, n, k, k_split;
};
inline std::int64_t up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline Plan plan(const CudaConv& c) {
    Plan p{};
    const vec::ConvShape& s = c.shape;
    p.m = s.out_channels / c.group;
    p.n = c.images * s.pixels_out();
    p.k = s.channels * s.taps();
    p.splits = 1;
    p.k_split = p.k;
    p.kind = Plan::depthwise;
    if (s.channels == 1 && c.group > 1) return p;
    const std::int64_t large = up(p.m, 128) * up(p.n, 128) * c.group;
    std::int64_t tiles;
    if (p.m > 64 && large >= 80) {
        p.kind = Plan::tiles128;
        tiles = large;
    } else if (p.m > 32 && up(p.m, 64) * up(p.n, 128) * c.group >= 80) {
        p.kind = Plan::tiles64x128;
        tiles = up(p.m, 64) * up(p.n, 128) * c.group;
    } else if (p.m > 32) {
        p.kind = Plan::tiles64;
        tiles = up(p.m, 64) * up(p.n, 64) * c.group;
    } else {
        p.kind = Plan::tiles32;
        tiles = up(p.n, 128) * c.group;
    }
    p.splits = quern::cuda::split_count(tiles, p.k, 128, p.kind == Plan::tiles128 ? 160 : 320);
    p.k_split = up(up(p.k, p.splits), 16) * 16;
    if (p.k > 0) p.splits = static_cast<int>(up(p.k, p.k_split));
    return p;
}

template <class F, class T, int Parts, bool Pointwise>
cudaError_t launch_shape(const Conv& c, cudaStream_t stream) {
    const bool vector = c.k % 4 == 0 && reinterpret_cast<std::uintptr_t>(c.w) % 16 == 0;
    const dim3 grid(static_cast<unsigned>(up(c.n, F::BN)), static_cast<unsigned>(up(c.m, F::BM)),
                    static_cast<unsigned>(c.group * c.splits));
    if constexpr (Parts == 0) {
        return simt::launch(vector ? conv_tiles<F, Pointwise, 4> : conv_tiles<F, Pointwise, 1>, grid, dim3(F::threads),
                            0, stream, c);
    } else {
        static_assert(F::BM == T::BM && F::BN == T::BN);
        constexpr std::size_t bytes =
            quern::cuda::tensor_tile_bytes<T, CopiedSide<T, T::BM, true, 1>, CopiedPatches<T, Pointwise>>();
        return simt::launch(vector ? conv_tensor_tiles<T, Pointwise, 4> : conv_tensor_tiles<T, Pointwise, 1>, grid,
                            dim3(T::threads), bytes, stream, c);
    }
}
template <int Parts, bool Pointwise>
cudaError_t launch(const Conv& c, Plan::Kind kind, cudaStream_t stream) {
    constexpr int P = Parts ? Parts : 1;
    switch (kind) {
        case Plan::tiles128:
            return launch_shape<TileShape<128, 128, 8, 8, 8>, TensorShape<128, 128, 64, 32, P>, Parts, Pointwise>(
                c, stream);
        case Plan::tiles64x128:
            return launch_shape<TileShape<64, 128, 16, 4, 8>, TensorShape<64, 128, 32, 32, P>, Parts, Pointwise>(
                c, stream);
        case Plan::tiles64:
            return launch_shape<TileShape<64, 64, 16, 4, 4>, TensorShape<64, 64, 32, 32, P>, Parts, Pointwise>(c,
                                                                                                               stream);
        default:
            return launch_shape<TileShape<32, 128, 16, 4, 4>, TensorShape<32, 128, 32, 32, P>, Parts, Pointwise>(
                c, stream);
    }
}
template <bool Pointwise>
cudaError_t launch(const Conv& c, Plan::Kind kind, Precision precision, cudaStream_t stream) {
    if (precision == Precision::tf32) return launch<1, Pointwise>(c, kind, stream);
    // Gathered patches leave tensor cores waiting; three products pay where rows of the image are copied.
    if constexpr (Pointwise)
        if (precision == Precision::split && c.n >= 4096 && c.k >= 64) return launch<3, true>(c, kind, stream);
    return launch<0, Pointwise>(c, kind, stream);
}
inline Conv arguments(const CudaConv& f, const Plan& p, void* scratch) {
    const vec::ConvShape& s = f.shape;
    Conv c{};
    c.x = f.x, c.w = f.w;
    c.partial = p.splits > 1 ? static_cast<float*>(scratch) : nullptr;
    c.m = static_cast<int>(p.m), c.n = static_cast<int>(p.n), c.k = static_cast<int>(p.k);
    c.splits = p.splits, c.k_split = static_cast<int>(p.k_split), c.group = static_cast<int>(f.group);
    for (int d = 0; d < 3; ++d) {
        c.in[d] = static_cast<int>(s.in[d]), c.out[d] = static_cast<int>(s.out[d]);
        c.stride[d] = static_cast<int>(s.stride[d]), c.dilation[d] = static_cast<int>(s.dilation[d]);
        c.pad[d] = static_cast<int>(s.pad[d]);
    }
    c.pixels = simt::Divisor(s.pixels_out());
    c.out_hw = simt::Divisor(s.out[1] * s.out[2]);
    c.out_w = simt::Divisor(s.out[2]);
    c.taps = simt::Divisor(s.taps());
    c.kernel_hw = simt::Divisor(s.kernel[1] * s.kernel[2]);
    c.kernel_w = simt::Divisor(s.kernel[2]);
    c.x_plane = s.pixels_in(), c.y_plane = s.pixels_out();
    c.x_image = s.in_channels * c.x_plane, c.y_image = s.out_channels * c.y_plane;
    c.vector = c.y_plane % 4 == 0 && reinterpret_cast<std::uintptr_t>(f.y) % 16 == 0;
    c.finish = {f.bias, f.residual, f.y, f.post_alpha, f.post_beta, f.post};
    return c;
}

}  // namespace conv::cuda

namespace conv {

std::size_t cuda_conv_scratch(const CudaConv& c) noexcept {
    const cuda::Plan p = cuda::plan(c);
    return p.splits > 1 ? static_cast<std::size_t>(p.splits * c.group * p.m * p.n) * sizeof(float) : 0;
}

cudaError_t cuda_conv(const CudaConv& f, void* scratch, cudaStream_t stream) {
    const vec::ConvShape& s = f.shape;
    if (f.group < 1 || f.group > 65535 || f.images < 0 || s.out_channels < 0 || s.channels < 0)
        return cudaErrorInvalidValue;
    const std::int64_t outputs = f.images * s.out_channels * s.pixels_out();
    const std::int64_t inputs = f.images * s.in_channels * s.pixels_in();
    if (outputs == 0) return cudaSuccess;
    if (outputs > cuda::kMost || inputs > cuda::kMost || s.out_channels * s.channels * s.taps() > cuda::kMost)
        return cudaErrorInvalidValue;
    for (int d = 0; d < 3; ++d)
        for (std::int64_t v :
             {s.in[d], s.stride[d], s.dilation[d], s.pad[d], s.kernel[d] * s.dilation[d], s.out[d] * s.stride[d]})
            if (v < 0 || v > (1 << 29)) return cudaErrorInvalidValue;
    const cuda::Plan p = cuda::plan(f);
    const cuda::Conv c = cuda::arguments(f, p, scratch);
    if (p.kind == cuda::Plan::depthwise) {
        const dim3 grid(static_cast<unsigned>(cuda::up(outputs, 256)));
        const bool flat = s.in[0] == 1 && s.kernel[0] == 1 && s.pad[0] == 0 && s.kernel[1] == s.kernel[2];
        auto* kernel = flat && s.kernel[2] == 3   ? cuda::depthwise<3>
                       : flat && s.kernel[2] == 5 ? cuda::depthwise<5>
                                                  : cuda::depthwise<0>;
        return simt::launch(kernel, grid, dim3(256), 0, stream, c, simt::Divisor(s.out_channels),
                            static_cast<unsigned>(outputs), static_cast<int>(p.m));
    }
    if (static_cast<std::int64_t>(c.group) * c.splits > 65535 || cuda::up(c.m, 32) > 65535)
        return cudaErrorInvalidValue;
    bool pointwise = s.taps() == 1;
    for (int d = 0; d < 3; ++d) pointwise = pointwise && s.stride[d] == 1 && s.pad[d] == 0 && s.in[d] == s.out[d];
    const cudaError_t e = pointwise ? cuda::launch<true>(c, p.kind, f.precision, stream)
                                    : cuda::launch<false>(c, p.kind, f.precision, stream);
    if (e != cudaSuccess || !c.partial) return e;
    const std::int64_t all = std::int64_t(c.group) * c.m * c.n;
    return simt::launch(cuda::add_parts, dim3(static_cast<unsigned>(cuda::up(all, 256))), dim3(256), 0, stream, c);
}

}  // namespace conv
QUERN_END
