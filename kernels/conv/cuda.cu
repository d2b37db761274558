// Convolutions of f32 as products whose right side is gathered from the image while it is fetched (C = W x patches, a
// column for each output pixel of the batch), and depthwise ones directly.
#include <quern/kernels/conv/cuda_plan.hpp>
#include <quern/kernels/cuda/tensor_tile.hpp>

QUERN_BEGIN
namespace conv::cuda {

using matmul::Precision;
using quern::cuda::CopiedSide;
using quern::cuda::MatrixSide;
using quern::cuda::TensorShape;
using quern::cuda::TileShape;

using Conv = BasicConv<float>;

/// The rows and V neighbouring columns of patches that a thread brings: `each` rows, `rows` apart, S::BK in a step.
template <class S, int V>
struct Part {
    static constexpr int per = S::BN / V, rows = S::threads / per, each = S::BK / rows;
    static_assert(S::threads % per == 0 && S::BK % rows == 0);
    __device__ __forceinline__ static int column() { return threadIdx.x % per * V; }
    __device__ __forceinline__ static int row(int j) { return threadIdx.x / per + j * rows; }
};
/// Where the elements of row(j) of this step come from; null: zeros. advance() goes to the next step.
template <class S, Order O, int V>
struct Source;
template <class S>
struct Source<S, Order::onnx, 1> {
    using P = Part<S, 1>;
    const Conv& c;
    const Window window;
    const float* image;
    int k, k_end;
    bool inside;
    __device__ __forceinline__ Source(const Conv& conv, const float* x, int origin, int k_begin, int end)
        : c(conv), window(conv, origin + P::column() < conv.n ? origin + P::column() : 0),
          image(x + window.image * conv.x_image), k(k_begin), k_end(end), inside(origin + P::column() < conv.n) {}
    __device__ __forceinline__ const float* any() const { return image; }
    __device__ __forceinline__ const float* operator()(int j) const {
        const int at = k + P::row(j);
        if (!inside || at >= k_end) return nullptr;
        const unsigned channel = c.taps.divide(at);
        const int p = place(c, window.start, Tap(c, at - channel * c.taps.divisor));
        return p < 0 ? nullptr : image + channel * c.x_plane + p;
    }
    __device__ __forceinline__ void advance() { k += S::BK; }
};
template <class S>
struct Source<S, Order::taps, 1> {
    using P = Part<S, 1>;
    const Conv& c;
    const Window window;
    const float *image, *at;
    const std::int64_t plane;
    int tap, channel;
    bool inside, valid;
    __device__ __forceinline__ Source(const Conv& conv, const float* x, int origin, int k_begin, int)
        : c(conv), window(conv, origin + P::column() < conv.n ? origin + P::column() : 0),
          image(x + window.image * conv.x_image), plane(conv.x_plane), inside(origin + P::column() < conv.n) {
        tap = static_cast<int>(c.packed.divide(k_begin));
        channel = k_begin - tap * c.row + P::row(0);
        locate();
    }
    __device__ __forceinline__ void locate() {
        const int p = place(c, window.start, Tap(c, tap));
        valid = inside && p >= 0;
        at = image + channel * plane + (valid ? p : 0);
    }
    __device__ __forceinline__ const float* any() const { return image; }
    __device__ __forceinline__ const float* operator()(int j) const {
        return valid && channel + j * P::rows < c.channels ? at + j * P::rows * plane : nullptr;
    }
    __device__ __forceinline__ void advance() {
        channel += S::BK;
        at += S::BK * plane;
        if (channel >= c.row) {  // for all threads at once: row is a multiple of BK
            channel -= c.row;
            ++tap;
            locate();
        }
    }
};
template <class S, int V>
struct Source<S, Order::pointwise, V> {
    using P = Part<S, V>;
    const float *image, *at;
    const std::int64_t plane;
    int k, k_end;
    __device__ __forceinline__ Source(const Conv& c, const float* x, int origin, int k_begin, int end)
        : plane(c.x_plane), k(k_begin + P::row(0)), k_end(end) {
        unsigned n = origin + P::column();
        if (n >= static_cast<unsigned>(c.n)) n = 0, k_end = 0;
        const unsigned i = c.pixels.split(n);
        image = x + i * c.x_image;
        at = image + k * plane + n;
    }
    __device__ __forceinline__ const float* any() const { return image; }
    __device__ __forceinline__ const float* operator()(int j) const {
        return k + j * P::rows < k_end ? at + j * P::rows * plane : nullptr;
    }
    __device__ __forceinline__ void advance() {
        k += S::BK;
        at += S::BK * plane;
    }
};
// Patches [k][pixel]: through registers, or copied.
template <class S, Order O, int V>
struct PatchSide {
    using P = Part<S, V>;
    static constexpr int BX = S::BN;
    static constexpr bool Along = false;
    Source<S, O, V> source;
    float v[P::each][V];

    __device__ __forceinline__ PatchSide(const Conv& c, const float* x, int origin, int k_begin, int end)
        : source(c, x, origin, k_begin, end) {}
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int j = 0; j < P::each; ++j) {
            if (const float* from = source(j)) {
                simt::load_pack(from, v[j]);
            } else {
#pragma unroll
                for (int i = 0; i < V; ++i) v[j][i] = 0;
            }
        }
        source.advance();
    }
    __device__ __forceinline__ void put(float* s) const {
#pragma unroll
        for (int j = 0; j < P::each; ++j) simt::store_pack(s + P::row(j) * (S::BN + S::pad) + P::column(), v[j]);
    }
};
template <class S, Order O, int V>
struct CopiedPatches {
    using P = Part<S, V>;
    static constexpr int BX = S::BN;
    static constexpr bool Along = false;
    Source<S, O, V> source;

    __device__ __forceinline__ CopiedPatches(const Conv& c, const float* x, int origin, int k_begin, int end)
        : source(c, x, origin, k_begin, end) {}
    __device__ __forceinline__ void copy(float* s) {
#pragma unroll
        for (int j = 0; j < P::each; ++j) {
            const float* from = source(j);
            simt::cp_async<4 * V>(s + P::row(j) * (S::BN + 8) + P::column(), from ? from : source.any(),
                                  from != nullptr);
        }
        source.advance();
    }
};

template <class S, Order O, int W, int V>
__global__ void __launch_bounds__(S::threads, 2) conv_tiles(const Conv c) {
    const int group = blockIdx.z / c.splits, split = blockIdx.z - group * c.splits;
    const int n0 = blockIdx.x * S::BN, m0 = blockIdx.y * S::BM;
    const int k0 = split * c.k_split, k1 = k0 + c.k_split < c.k ? k0 + c.k_split : c.k;
    MatrixSide<S, S::BM, true, W> a(c.w + std::int64_t(group) * c.m * c.k, c.k, m0, c.m, k0, k1);
    PatchSide<S, O, V> b(c, c.x + group * c.channels * c.x_plane, n0, k0, k1);
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
template <Order O>
__device__ __forceinline__ float exact(const Conv& c, const float* w, const float* x, int row, int column, int k0,
                                       int k1) {
    const Window window(c, column);
    const float* image = x + window.image * c.x_image;
    float s = 0;
#pragma unroll 1
    for (int k = k0; k < k1; ++k) {
        unsigned channel, tap;
        if constexpr (O == Order::taps) {
            tap = c.packed.divide(k), channel = k - tap * c.row;
            if (channel >= static_cast<unsigned>(c.channels)) continue;
        } else {
            channel = c.taps.divide(k), tap = k - channel * c.taps.divisor;
        }
        const int p = place(c, window.start, Tap(c, tap));
        if (p >= 0) s += w[std::int64_t(row) * c.k + k] * image[channel * c.x_plane + p];
    }
    return s;
}
template <class S, Order O, int W, int V>
__global__ void __launch_bounds__(S::threads) conv_tensor_tiles(const Conv c) {
    const int group = blockIdx.z / c.splits, split = blockIdx.z - group * c.splits;
    const int n0 = blockIdx.x * S::BN, m0 = blockIdx.y * S::BM;
    const int k0 = split * c.k_split, k1 = k0 + c.k_split < c.k ? k0 + c.k_split : c.k;
    const float* weights = c.w + std::int64_t(group) * c.m * c.k;
    const float* x = c.x + group * c.channels * c.x_plane;
    CopiedSide<S, S::BM, true, W> a(weights, c.k, m0, c.m, k0, k1);
    CopiedPatches<S, O, V> b(c, x, n0, k0, k1);
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
                    if (v[0] != v[0]) v[0] = exact<O>(c, weights, x, row, column, k0, k1);
                    if (two && v[1] != v[1]) v[1] = exact<O>(c, weights, x, row, column + 1, k0, k1);
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

// One input channel for each output channel, square kernels of K in two dimensions, not dilated: a thread computes four
// neighbours in a row, so that each value is read once a row of the kernel and not once a tap.
template <int K, int Stride>
__global__ void __launch_bounds__(128) depthwise_rows(const Conv c, simt::Divisor channels, simt::Divisor rows,
                                                      simt::Divisor fours, unsigned count, int per_group) {
    constexpr int N = 4, columns = (N - 1) * Stride + K;
    unsigned four = blockIdx.x * 128 + threadIdx.x;
    if (four >= count) return;
    unsigned h = fours.split(four);
    const unsigned plane = rows.split(h);
    unsigned channel = plane;
    const unsigned image = channels.split(channel);
    const float* x = c.x + image * c.x_image + channel / per_group * c.x_plane;
    const float* w = c.w + channel * (K * K);
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
            v[q] = static_cast<unsigned>(z) < static_cast<unsigned>(c.in[2]) ? x[y * c.in[2] + z] : 0.0f;
        }
#pragma unroll
        for (int q = 0; q < K; ++q) {
            const float f = w[r * K + q];
#pragma unroll
            for (int j = 0; j < N; ++j) s[j] += f * v[j * Stride + q];
        }
    }
    const int width = static_cast<int>(c.out_w.divisor), column = static_cast<int>(four) * N;
    const std::int64_t at = plane * c.y_plane + static_cast<int>(h) * width + column;
    if (c.vector && width % N == 0) {
#pragma unroll
        for (int j = 0; j < N; ++j) s[j] = c.finish.value(s[j], static_cast<int>(channel), at + j);
        simt::store_pack(c.finish.y + at, s);
    } else {
#pragma unroll
        for (int j = 0; j < N; ++j)
            if (column + j < width) c.finish.y[at + j] = c.finish.value(s[j], static_cast<int>(channel), at + j);
    }
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

Plan plan(const CudaConv& c) {
    Plan p{};
    const vec::ConvShape& s = c.shape;
    const bool half = c.type != DType::f32;
    p.m = s.out_channels / c.group;
    p.n = c.images * s.pixels_out();
    p.splits = 1;
    p.k = p.k_split = s.channels * s.taps();
    if (s.channels == 1 && c.group > 1) {
        p.kind = Plan::depthwise;
        return p;
    }
    // Rows of pixels that are copied by 8 bytes at least need no copy with channels last.
    const bool direct = pointwise(s) && (!half || s.pixels_in() % 4 == 0);
    p.row = direct && !half ? 0 : cuda_conv_row(c.type, s.channels, s.taps());
    p.order = direct ? Order::pointwise : p.row ? Order::taps : Order::onnx;
    if (p.row) p.k = s.taps() * p.row;
    const std::int64_t large = up(p.m, 128) * up(p.n, 128) * c.group;
    std::int64_t tiles;
    if (p.m > 64 && large >= 80) {
        p.kind = Plan::tiles128;
        tiles = large;
    } else if (p.m > 32 && up(p.m, 64) * up(p.n, 128) * c.group >= 80) {
        p.kind = Plan::tiles64x128;
        tiles = up(p.m, 64) * up(p.n, 128) * c.group;
    } else if (p.m > 32 || half) {
        p.kind = Plan::tiles64;
        tiles = up(p.m, 64) * up(p.n, 64) * c.group;
    } else {
        p.kind = Plan::tiles32;
        tiles = up(p.n, 128) * c.group;
    }
    p.splits = quern::cuda::split_count(tiles, p.k, 128, p.kind == Plan::tiles128 ? 160 : 320);
    p.k_split = up(up(p.k, p.splits), 32) * 32;
    if (p.k > 0) p.splits = static_cast<int>(up(p.k, p.k_split));
    const std::size_t each = half ? 2 : 4;
    if (p.splits > 1) p.partial = room(p.splits * c.group * p.m * p.n, sizeof(float));
    if (p.row && !c.packed && (s.taps() > 1 || p.row != s.channels)) p.weights = room(s.out_channels * p.k, each);
    if (half && !direct) p.image = room(c.images * s.pixels_in() * p.row, each);
    return p;
}

template <class F, class T, int Parts, Order O, int W, int V>
cudaError_t launch_shape(const Conv& c, cudaStream_t stream) {
    const dim3 grid(static_cast<unsigned>(up(c.n, F::BN)), static_cast<unsigned>(up(c.m, F::BM)),
                    static_cast<unsigned>(c.group * c.splits));
    if constexpr (Parts == 0) {
        return simt::launch(conv_tiles<F, O, W, V>, grid, dim3(F::threads), 0, stream, c);
    } else {
        static_assert(F::BM == T::BM && F::BN == T::BN);
        constexpr std::size_t bytes =
            quern::cuda::tensor_tile_bytes<T, CopiedSide<T, T::BM, true, 1>, CopiedPatches<T, O, V>>();
        return simt::launch(conv_tensor_tiles<T, O, W, V>, grid, dim3(T::threads), bytes, stream, c);
    }
}
template <int Parts, Order O, int W, int V>
cudaError_t launch_kind(const Conv& c, Plan::Kind kind, cudaStream_t stream) {
    constexpr int P = Parts ? Parts : 1;
    switch (kind) {
        case Plan::tiles128:
            return launch_shape<TileShape<128, 128, 8, 8, 8>, TensorShape<128, 128, 64, 32, P>, Parts, O, W, V>(c,
                                                                                                               stream);
        case Plan::tiles64x128:
            return launch_shape<TileShape<64, 128, 16, 4, 8>, TensorShape<64, 128, 32, 32, P>, Parts, O, W, V>(c,
                                                                                                              stream);
        case Plan::tiles64:
            return launch_shape<TileShape<64, 64, 16, 4, 4>, TensorShape<64, 64, 32, 32, P>, Parts, O, W, V>(c, stream);
        default:
            return launch_shape<TileShape<32, 128, 16, 4, 4>, TensorShape<32, 128, 32, 32, P>, Parts, O, W, V>(c,
                                                                                                              stream);
    }
}
template <Order O, int W, int V>
cudaError_t launch_precision(const Conv& c, Plan::Kind kind, Precision precision, cudaStream_t stream) {
    if (precision == Precision::tf32) return launch_kind<1, O, W, V>(c, kind, stream);
    // Where each element's place is computed for itself, tensor cores wait.
    if constexpr (O != Order::onnx)
        if (precision == Precision::split && c.n >= 4096 && c.k >= 64)
            return launch_kind<3, O, W, V>(c, kind, stream);
    return launch_kind<0, O, W, V>(c, kind, stream);
}
inline cudaError_t run_tiles(const CudaConv& f, const Plan& p, void* scratch, cudaStream_t stream) {
    Conv c = arguments<float>(f, p, scratch);
    cudaError_t e = take_weights(c, f, p, static_cast<char*>(scratch) + p.partial, stream);
    if (e != cudaSuccess) return e;
    if (p.order == Order::onnx) {
        e = launch_precision<Order::onnx, 1, 1>(c, p.kind, f.precision, stream);
    } else if (p.order == Order::taps) {
        e = launch_precision<Order::taps, 4, 1>(c, p.kind, f.precision, stream);
    } else {
        const bool weights = c.k % 4 == 0 && reinterpret_cast<std::uintptr_t>(c.w) % 16 == 0;
        const bool pixels = c.x_plane % 4 == 0 && reinterpret_cast<std::uintptr_t>(c.x) % 16 == 0;
        if (weights && pixels) e = launch_precision<Order::pointwise, 4, 4>(c, p.kind, f.precision, stream);
        else if (weights) e = launch_precision<Order::pointwise, 4, 1>(c, p.kind, f.precision, stream);
        else e = launch_precision<Order::pointwise, 1, 1>(c, p.kind, f.precision, stream);
    }
    return e == cudaSuccess ? finish_parts(c, stream) : e;
}
template <int Stride>
auto* rows_kernel(std::int64_t size) {
    return size == 3 ? depthwise_rows<3, Stride> : size == 5 ? depthwise_rows<5, Stride> : depthwise_rows<7, Stride>;
}
inline cudaError_t run_depthwise(const CudaConv& f, const Plan& p, cudaStream_t stream) {
    const vec::ConvShape& s = f.shape;
    const Conv c = arguments<float>(f, p, nullptr);
    const simt::Divisor channels(s.out_channels);
    const int per_group = static_cast<int>(p.m);
    const std::int64_t planes = f.images * s.out_channels, size = s.kernel[2], stride = s.stride[2];
    const bool flat = s.in[0] == 1 && s.kernel[0] == 1 && s.pad[0] == 0 && s.kernel[1] == size;
    if (flat && (size == 3 || size == 5 || size == 7) && s.dilation[1] == 1 && s.dilation[2] == 1 &&
        s.stride[1] == stride && (stride == 1 || stride == 2)) {
        const std::int64_t fours = up(s.out[2], 4), count = planes * s.out[1] * fours;
        return simt::launch(stride == 1 ? rows_kernel<1>(size) : rows_kernel<2>(size),
                            dim3(static_cast<unsigned>(up(count, 128))), dim3(128), 0, stream, c, channels,
                            simt::Divisor(s.out[1]), simt::Divisor(fours), static_cast<unsigned>(count), per_group);
    }
    const std::int64_t outputs = planes * s.pixels_out();
    auto* kernel = flat && size == 3 ? depthwise<3> : flat && size == 5 ? depthwise<5> : depthwise<0>;
    return simt::launch(kernel, dim3(static_cast<unsigned>(up(outputs, 256))), dim3(256), 0, stream, c, channels,
                        static_cast<unsigned>(outputs), per_group);
}

}  // namespace conv::cuda

namespace conv {

std::int64_t cuda_conv_row(DType type, std::int64_t channels, std::int64_t taps) noexcept {
    if (type != DType::f32) return cuda::up(channels, 8) * 8;
    const std::int64_t row = cuda::up(channels, 16) * 16;
    if (taps == 1) return row == channels ? row : 0;
    return 4 * row <= 5 * channels ? row : 0;  // a fifth at most is for nothing
}
std::size_t cuda_conv_scratch(const CudaConv& c) noexcept {
    const cuda::Plan p = cuda::plan(c);
    return p.partial + p.weights + p.image;
}

cudaError_t cuda_conv(const CudaConv& f, void* scratch, cudaStream_t stream) {
    const vec::ConvShape& s = f.shape;
    if (f.group < 1 || f.group > 65535 || f.images < 0 || s.out_channels < 0 || s.channels < 0)
        return cudaErrorInvalidValue;
    const std::int64_t outputs = f.images * s.out_channels * s.pixels_out();
    const std::int64_t inputs = f.images * s.in_channels * s.pixels_in();
    if (outputs == 0) return cudaSuccess;
    const std::int64_t row = cuda_conv_row(f.type, s.channels, s.taps());
    if (outputs > cuda::kMost || inputs > cuda::kMost || f.images * s.pixels_in() * row > cuda::kMost ||
        s.out_channels * (row > s.channels ? row : s.channels) * s.taps() > cuda::kMost)
        return cudaErrorInvalidValue;
    for (int d = 0; d < 3; ++d)
        for (std::int64_t v :
             {s.in[d], s.stride[d], s.dilation[d], s.pad[d], s.kernel[d] * s.dilation[d], s.out[d] * s.stride[d]})
            if (v < 0 || v > (1 << 29)) return cudaErrorInvalidValue;
    const cuda::Plan p = cuda::plan(f);
    const bool half = f.type != DType::f32;
    if (half && f.group != 1) return cudaErrorInvalidValue;
    if (p.kind == cuda::Plan::depthwise) return cuda::run_depthwise(f, p, stream);
    if (f.group * p.splits > 65535 || cuda::up(p.m, 32) > 65535) return cudaErrorInvalidValue;
    return half ? cuda::run_half(f, p, scratch, stream) : cuda::run_tiles(f, p, scratch, stream);
}

}  // namespace conv
QUERN_END
