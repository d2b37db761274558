// Convolutions of f16 and bf16 by tensor cores. Patches come by 16-byte copies, eight channels of a pixel each, from a
// copy of the image with channels last, or, of one tap, as rows of pixels from the image itself; results are written
// channels first.
#include <quern/kernels/conv/cuda_depthwise.hpp>
#include <quern/kernels/cuda/half_tile.hpp>

QUERN_BEGIN
namespace conv::cuda {

using quern::cuda::HalfShape;
using quern::cuda::HalfSide;

/// How the threads of a block share `Rows` rows of `Width` elements in shared memory: `each` chunks of eight a thread, `rows` rows
/// apart.
template <class S, int Rows, int Width>
struct Chunks {
    static constexpr int per = Width / 8, rows = S::threads / per, each = Rows / rows;
    static_assert(S::threads % per == 0 && Rows % rows == 0 && rows % 8 == 0);
    __device__ __forceinline__ static int column() { return threadIdx.x % per * 8; }
    __device__ __forceinline__ static int row(int j) { return threadIdx.x / per + j * rows; }
    __device__ __forceinline__ static int place(int j) {
        return quern::cuda::place<Width>(threadIdx.x / per, threadIdx.x % per) + j * rows * Width;
    }
};

/// [pixel][k] from the image with channels last, [images][groups][pixels][row].
template <class T, class S>
struct WindowSide {
    using C = Chunks<S, S::BN, S::BK>;
    static constexpr bool Along = true;
    const BasicConv<T>& c;
    int tap, channel;
    int origin[C::each], at[C::each];  // pixels before the image; elements before the tap's pixel, -1: in the padding
    int start[C::each][3];
    __device__ __forceinline__ WindowSide(const BasicConv<T>& conv, int group, int n0, int k0) : c(conv) {
        tap = static_cast<int>(c.packed.divide(k0 + C::column()));
        channel = k0 + C::column() - tap * c.row;
#pragma unroll
        for (int j = 0; j < C::each; ++j) {
            const int n = n0 + C::row(j);
            const Window w(c, n < c.n ? n : 0);
            origin[j] = n < c.n ? static_cast<int>((w.image * c.group + group) * c.x_plane) : -1;
#pragma unroll
            for (int d = 0; d < 3; ++d) start[j][d] = w.start[d];
        }
        locate();
    }
    __device__ __forceinline__ void locate() {
        const Tap t(c, tap);
#pragma unroll
        for (int j = 0; j < C::each; ++j) {
            const int p = conv::cuda::place(c, start[j], t);
            at[j] = origin[j] < 0 || p < 0 ? -1 : (origin[j] + p) * c.row;
        }
    }
    __device__ __forceinline__ void copy(T* to, int left) {
#pragma unroll
        for (int j = 0; j < C::each; ++j) {
            const bool valid = at[j] >= 0 && C::column() < left;
            simt::cp_async<16>(to + C::place(j), c.x + (valid ? at[j] + channel : 0), valid);
        }
        channel += S::BK;
        if (channel < c.row || left <= S::BK) return;
        for (; channel >= c.row; channel -= c.row) ++tap;
        locate();
    }
};
/// [k][pixel] from the image itself, whose planes are multiples of four.
template <class T, class S>
struct PixelSide {
    using C = Chunks<S, S::BK, S::BN>;
    static constexpr bool Along = false;
    const T* at[2];  // of columns 0 and 4 of the chunk
    std::int64_t plane;
    int channels;  // that are left from row(0) on
    bool wide, inside[2];
    __device__ __forceinline__ PixelSide(const BasicConv<T>& c, int group, int n0, int k0)
        : plane(c.x_plane), channels(c.channels - k0 - C::row(0)), wide(c.vector) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            unsigned n = n0 + C::column() + 4 * i;
            inside[i] = n < static_cast<unsigned>(c.n);
            if (!inside[i]) n = 0;
            const unsigned image = c.pixels.split(n);
            at[i] = c.x + image * c.x_image + n + (group * c.channels + k0 + C::row(0)) * plane;
        }
    }
    __device__ __forceinline__ void copy(T* to, int left) {
#pragma unroll
        for (int j = 0; j < C::each; ++j) {
            T* s = to + C::place(j);
            const bool there = j * C::rows < channels && C::row(j) < left;
            const std::int64_t step = j * C::rows * plane;
            if (wide) {
                simt::cp_async<16>(s, at[0] + step, there && inside[0]);
            } else {
                simt::cp_async<8>(s, at[0] + step, there && inside[0]);
                simt::cp_async<8>(s + 4, at[1] + step, there && inside[1]);
            }
        }
        at[0] += S::BK * plane;
        at[1] += S::BK * plane;
        channels -= S::BK;
    }
};

template <class T, class S, template <class, class> class Side>
__global__ void __launch_bounds__(S::threads, S::blocks) half_tiles(const BasicConv<T> c) {
    using B = Side<T, S>;
    const int group = blockIdx.z / c.splits, split = blockIdx.z - group * c.splits;
    const int n0 = blockIdx.x * S::BN, m0 = blockIdx.y * S::BM;
    const int k0 = split * c.k_split, k1 = k0 + c.k_split < c.k ? k0 + c.k_split : c.k;
    HalfSide<T, S::threads, S::BM, S::BK, true> a(c.w + (std::int64_t(group) * c.m + m0) * c.k + k0, c.k, c.m - m0);
    B b(c, group, n0, k0);
    float acc[S::MT][S::NT][4] = {};
    quern::cuda::multiply_half_tile<T, S, B::Along>(a, b, k1 - k0, acc);
    store_tile<S>(c, group, split, m0, n0, acc, nullptr);
}

constexpr int kTurnPitch = 66;
// x [images][channels][pixels] to [images][pixels][row], zeros behind the channels. 64 pixels of 64 channels a block; V
// neighbours are read at once.
template <class T, int V>
__global__ void __launch_bounds__(256)
    channels_last(const T* x, T* y, int channels, int row, int pixels, unsigned images) {
    constexpr int pitch = kTurnPitch;
    T* tile = simt::dynamic_smem<T>();
    const int p0 = blockIdx.x * 64, c0 = blockIdx.y * 64;
    for (unsigned image = blockIdx.z; image < images; image += gridDim.z) {
        const T* from = x + std::int64_t(image) * channels * pixels;
        __syncthreads();  // the image before has been written
#pragma unroll
        for (int i = threadIdx.x; i < 64 * 64 / V; i += 256) {
            const int channel = i / (64 / V), p = i % (64 / V) * V;
            T v[V];
#pragma unroll
            for (int e = 0; e < V; ++e) v[e] = quern::cuda::from_float<T>(0.0f);
            if (c0 + channel < channels && p0 + p < pixels)
                simt::load_pack(from + std::int64_t(c0 + channel) * pixels + p0 + p, v);
#pragma unroll
            for (int e = 0; e < V; ++e) tile[(p + e) * pitch + channel] = v[e];
        }
        __syncthreads();
        T* to = y + std::int64_t(image) * pixels * row;
#pragma unroll
        for (int i = threadIdx.x; i < 64 * 8; i += 256) {
            const int p = i / 8, channel = i % 8 * 8;
            if (p0 + p >= pixels || c0 + channel >= row) continue;
            T v[8];
#pragma unroll
            for (int e = 0; e < 8; e += 2) {
                T two[2];
                simt::load_pack(tile + p * pitch + channel + e, two);
                v[e] = two[0], v[e + 1] = two[1];
            }
            simt::store_pack(to + std::int64_t(p0 + p) * row + c0 + channel, v);
        }
    }
}
template <class T>
cudaError_t put_channels_last(const CudaConv& f, const Plan& p, T* to, cudaStream_t stream) {
    const auto* x = static_cast<const T*>(f.x);
    const std::int64_t pixels = f.shape.pixels_in(), images = f.images * f.group;  // a group of channels is an image
    const bool four = pixels % 4 == 0 && reinterpret_cast<std::uintptr_t>(x) % (4 * sizeof(T)) == 0;
    const dim3 grid(static_cast<unsigned>(ceil_div(pixels, 64)), static_cast<unsigned>(ceil_div(p.row, 64)),
                    static_cast<unsigned>(images < 65535 ? images : 65535));
    if (grid.x == 0 || grid.y == 0) return cudaSuccess;
    if (grid.y > 65535) return cudaErrorInvalidValue;
    return simt::launch(four ? channels_last<T, 4> : channels_last<T, 1>, grid, dim3(256),
                        64 * kTurnPitch * sizeof(T), stream, x, to,
                        static_cast<int>(f.shape.channels), static_cast<int>(p.row), static_cast<int>(pixels),
                        static_cast<unsigned>(images));
}

template <class T, class S>
cudaError_t launch_shape(const BasicConv<T>& c, Order order, cudaStream_t stream) {
    static_assert(S::bytes >= quern::cuda::each_four_bytes<S>());
    const dim3 grid(static_cast<unsigned>(ceil_div(c.n, S::BN)), static_cast<unsigned>(ceil_div(c.m, S::BM)),
                    static_cast<unsigned>(c.group * c.splits));
    return simt::launch(order == Order::pointwise ? half_tiles<T, S, PixelSide> : half_tiles<T, S, WindowSide>, grid,
                        dim3(S::threads), S::bytes, stream, c);
}
template <class T>
cudaError_t run_type(const CudaConv& f, const Plan& p, void* scratch, cudaStream_t stream) {
    if (p.kind == Plan::depthwise) return run_depthwise<T>(f, p, stream);
    BasicConv<T> c = arguments<T>(f, p, scratch);
    char* to = static_cast<char*>(scratch) + p.partial;
    cudaError_t e = take_weights(c, f, p, to, stream);
    if (e != cudaSuccess) return e;
    const auto at = [](const void* q) { return reinterpret_cast<std::uintptr_t>(q); };
    if (p.order == Order::taps) {
        c.x = reinterpret_cast<T*>(to + p.weights);
        e = put_channels_last<T>(f, p, reinterpret_cast<T*>(to + p.weights), stream);
        if (e != cudaSuccess) return e;
    } else if (at(c.x) % 8) {
        return cudaErrorInvalidValue;
    } else {
        c.vector = c.x_plane % 8 == 0 && at(c.x) % 16 == 0;
    }
    if (at(c.w) % 16) return cudaErrorInvalidValue;
    e = p.kind == Plan::tiles64x128 ? launch_shape<T, HalfShape<64, 128, 64, 32, 32, 3, 2>>(c, p.order, stream)
                                    : launch_shape<T, HalfShape<64, 64, 64, 32, 32, 3, 3>>(c, p.order, stream);
    return e == cudaSuccess ? finish_parts(c, stream) : e;
}
cudaError_t run_half(const CudaConv& f, const Plan& p, void* scratch, cudaStream_t stream) {
    if (f.type == DType::f16) return run_type<__half>(f, p, scratch, stream);
    if (f.type == DType::bf16) return run_type<__nv_bfloat16>(f, p, scratch, stream);
    return cudaErrorInvalidValue;
}

}  // namespace conv::cuda
QUERN_END
