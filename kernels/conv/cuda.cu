// Convolutions of f32 as products whose right side is gathered from the image while it is fetched (C = W x patches, a
// column for each output pixel of the batch); how convolutions of all types are cut.
#include <quern/kernels/conv/cuda_depthwise.hpp>
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
/// How many blocks of tensor tiles share a processor.
template <class S>
constexpr int tensor_blocks = S::threads == 128 && S::WM == 32 ? 3 : 2;
template <class S, Order O, int W, int V>
__global__ void __launch_bounds__(S::threads, tensor_blocks<S>) conv_tensor_tiles(const Conv c) {
    const int group = blockIdx.z / c.splits, split = blockIdx.z - group * c.splits;
    const int n0 = blockIdx.x * S::BN, m0 = blockIdx.y * S::BM;
    const int k0 = split * c.k_split, k1 = k0 + c.k_split < c.k ? k0 + c.k_split : c.k;
    const float* weights = c.w + std::int64_t(group) * c.m * c.k;
    const float* x = c.x + group * c.channels * c.x_plane;
    CopiedSide<S, S::BM, true, W> a(weights, c.k, m0, c.m, k0, k1);
    CopiedPatches<S, O, V> b(c, x, n0, k0, k1);
    float acc[S::MT][S::NT][4] = {};
    quern::cuda::multiply_tensor_tile<S>(a, b, (k1 - k0 + S::BK - 1) / S::BK, acc);
    if constexpr (S::Parts == 3) {
        store_tile<S>(c, group, split, m0, n0, acc,
                      [&](int row, int column) { return exact<O>(c, weights, x, row, column, k0, k1); });
    } else {
        store_tile<S>(c, group, split, m0, n0, acc, nullptr);
    }
}

// Tiles and splits: the fastest of those that an H100 ran for the layers of resnet50 at 1, 8 and 32 images
// (bench/results). Two or three blocks share a processor; a tile of 128 x 128, which one has to itself, never won in f32.
inline std::int64_t tiles_of(const Plan& p, std::int64_t group, Plan::Kind k) {
    const std::int64_t m = k == Plan::tiles128x64 ? 128 : k == Plan::tiles32 ? 32 : 64;
    const std::int64_t n = k == Plan::tiles128x64 || k == Plan::tiles64 ? 64 : 128;
    return ceil_div(p.m, m) * ceil_div(p.n, n) * group;
}
inline Plan::Kind choose_half(const Plan& p, std::int64_t group) {
    return tiles_of(p, group, Plan::tiles64x128) >= 390 ? Plan::tiles64x128 : Plan::tiles64;
}
inline Plan::Kind choose_f32(const Plan& p, std::int64_t group) {
    if (p.m <= 32) return Plan::tiles32;
    if (p.parts == 3 && p.m > 64 && tiles_of(p, group, Plan::tiles128x64) >= 256) return Plan::tiles128x64;
    return tiles_of(p, group, Plan::tiles64x128) >= 200 ? Plan::tiles64x128 : Plan::tiles64;
}
inline int choose_parts(const Plan& p, const CudaConv& c) {
    // Where each element's place is computed for itself, or weights come one by one, tensor cores wait.
    if (p.order == Order::onnx || p.k % 4) return 0;
    if (c.precision != Precision::split) return c.precision == Precision::tf32 ? 1 : 0;
    const double products = static_cast<double>(p.m * c.group) * static_cast<double>(p.n) * static_cast<double>(p.k);
    return c.split_small || (p.k >= 256 && products >= 4e8) ? 3 : 0;
}
inline Plan::Kind asked_for(const CudaConv& c, Plan::Kind chosen) {
    if (c.tile_m == 128 && c.type == DType::f32) return Plan::tiles128x64;
    if (c.tile_m == 64) return c.tile_n == 64 ? Plan::tiles64 : Plan::tiles64x128;
    return c.tile_m == 32 && c.type == DType::f32 ? Plan::tiles32 : chosen;
}
// Parts of a sum. A second kernel that adds them costs some 2 us: half types, which are through with a short sum before, do without.
inline int choose_splits(const Plan& p, std::int64_t tiles, bool half) {
    if (half && p.k < 768) return 1;
    const int parts = half ? quern::cuda::split_count(tiles, p.k, 160, 190) : quern::cuda::split_count(tiles, p.k, 64, 400);
    return parts < 16 ? parts : 16;
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
    p.parts = half ? 1 : choose_parts(p, c);
    p.kind = asked_for(c, half ? choose_half(p, c.group) : choose_f32(p, c.group));
    p.splits = choose_splits(p, tiles_of(p, c.group, p.kind), half);
    p.k_split = ceil_div(ceil_div(p.k, p.splits), 32) * 32;
    if (p.k > 0) p.splits = static_cast<int>(ceil_div(p.k, p.k_split));
    const std::size_t each = half ? 2 : 4;
    if (p.splits > 1) p.partial = room(p.splits * c.group * p.m * p.n, sizeof(float));
    if (p.row && !c.packed && (s.taps() > 1 || p.row != s.channels)) p.weights = room(s.out_channels * p.k, each);
    if (half && !direct) p.image = room(c.images * c.group * s.pixels_in() * p.row, each);
    return p;
}

template <class S>
dim3 tile_grid(const Conv& c) {
    return dim3(static_cast<unsigned>(ceil_div(c.n, S::BN)), static_cast<unsigned>(ceil_div(c.m, S::BM)),
                static_cast<unsigned>(c.group * c.splits));
}
template <class S, Order O, int W, int V>
cudaError_t launch_units(const Conv& c, cudaStream_t stream) {
    return simt::launch(conv_tiles<S, O, W, V>, tile_grid<S>(c), dim3(S::threads), 0, stream, c);
}
template <class S, Order O, int W, int V>
cudaError_t launch_tensor(const Conv& c, cudaStream_t stream) {
    constexpr std::size_t bytes =
        quern::cuda::tensor_tile_bytes<S, CopiedSide<S, S::BM, true, W>, CopiedPatches<S, O, V>>();
    static_assert(bytes >= quern::cuda::each_four_bytes<S>());
    return simt::launch(conv_tensor_tiles<S, O, W, V>, tile_grid<S>(c), dim3(S::threads), bytes, stream, c);
}
template <Order O, int W, int V>
cudaError_t launch_units_kind(const Conv& c, Plan::Kind kind, cudaStream_t stream) {
    switch (kind) {
        case Plan::tiles64: return launch_units<TileShape<64, 64, 16, 4, 4>, O, W, V>(c, stream);
        case Plan::tiles32: return launch_units<TileShape<32, 128, 16, 4, 4>, O, W, V>(c, stream);
        default: return launch_units<TileShape<64, 128, 16, 4, 8>, O, W, V>(c, stream);
    }
}
template <int Parts, Order O, int W, int V>
cudaError_t launch_tensor_kind(const Conv& c, Plan::Kind kind, cudaStream_t stream) {
    switch (kind) {
        case Plan::tiles64: return launch_tensor<TensorShape<64, 64, 32, 32, Parts>, O, W, V>(c, stream);
        case Plan::tiles32: return launch_tensor<TensorShape<32, 128, 32, 32, Parts>, O, W, V>(c, stream);
        case Plan::tiles128x64:
            if constexpr (Parts == 3) return launch_tensor<TensorShape<128, 64, 64, 32, Parts>, O, W, V>(c, stream);
            [[fallthrough]];
        default: return launch_tensor<TensorShape<64, 128, 32, 32, Parts>, O, W, V>(c, stream);
    }
}
template <Order O, int W, int V>
cudaError_t launch_parts(const Conv& c, const Plan& p, cudaStream_t stream) {
    if constexpr (O != Order::onnx && W == 4) {
        if (p.parts == 3) return launch_tensor_kind<3, O, W, V>(c, p.kind, stream);
        if (p.parts == 1) return launch_tensor_kind<1, O, W, V>(c, p.kind, stream);
    }
    return launch_units_kind<O, W, V>(c, p.kind, stream);
}
inline cudaError_t run_tiles(const CudaConv& f, const Plan& p, void* scratch, cudaStream_t stream) {
    Conv c = arguments<float>(f, p, scratch);
    cudaError_t e = take_weights(c, f, p, static_cast<char*>(scratch) + p.partial, stream);
    if (e != cudaSuccess) return e;
    const bool weights = c.k % 4 == 0 && reinterpret_cast<std::uintptr_t>(c.w) % 16 == 0;
    const bool pixels = c.x_plane % 4 == 0 && reinterpret_cast<std::uintptr_t>(c.x) % 16 == 0;
    if (p.order == Order::onnx) e = launch_parts<Order::onnx, 1, 1>(c, p, stream);
    else if (p.order == Order::taps && weights) e = launch_parts<Order::taps, 4, 1>(c, p, stream);
    else if (p.order == Order::taps) e = launch_parts<Order::taps, 1, 1>(c, p, stream);
    else if (weights && pixels) e = launch_parts<Order::pointwise, 4, 4>(c, p, stream);
    else if (weights) e = launch_parts<Order::pointwise, 4, 1>(c, p, stream);
    else e = launch_parts<Order::pointwise, 1, 1>(c, p, stream);
    return e == cudaSuccess ? finish_parts(c, stream) : e;
}
}  // namespace conv::cuda

namespace conv {

std::int64_t cuda_conv_row(DType type, std::int64_t channels, std::int64_t taps) noexcept {
    if (type != DType::f32) return ceil_div(channels, 8) * 8;
    const std::int64_t row = ceil_div(channels, 16) * 16;
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
    const bool half = f.type != DType::f32;
    if (outputs > cuda::kMost || inputs > cuda::kMost || f.images * (half ? f.group : 1) * s.pixels_in() * row > cuda::kMost ||
        s.out_channels * (row > s.channels ? row : s.channels) * s.taps() > cuda::kMost)
        return cudaErrorInvalidValue;
    for (int d = 0; d < 3; ++d)
        for (std::int64_t v :
             {s.in[d], s.stride[d], s.dilation[d], s.pad[d], s.kernel[d] * s.dilation[d], s.out[d] * s.stride[d]})
            if (v < 0 || v > (1 << 29)) return cudaErrorInvalidValue;
    const cuda::Plan p = cuda::plan(f);
    if (p.kind == cuda::Plan::depthwise && !half) return cuda::run_depthwise<float>(f, p, stream);
    if (f.group * p.splits > 65535 || ceil_div(p.m, 32) > 65535) return cudaErrorInvalidValue;
    return half ? cuda::run_half(f, p, scratch, stream) : cuda::run_tiles(f, p, scratch, stream);
}

}  // namespace conv
QUERN_END
