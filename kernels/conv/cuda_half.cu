// Convolutions of f16 and bf16 by tensor cores. Patches come by 16-byte copies, eight channels of a pixel each, from a
// copy of the image with channels last, or, of one tap, as rows of pixels from the image itself; results are written
// channels first.
#include <quern/kernels/conv/cuda_plan.hpp>

QUERN_BEGIN
namespace conv::cuda {

/// WM x WN: what a warp computes in pieces of 16 x 8. Rows in shared memory are 8 elements longer than their content,
/// so that the eight rows of a fragment are in 32 banks.
template <int BM_, int BN_, int WM_, int WN_, int Stages>
struct HalfShape {
    static constexpr int BM = BM_, BN = BN_, BK = 32, WM = WM_, WN = WN_, stages = Stages;
    static constexpr int warps_n = BN / WN, threads = 32 * (BM / WM) * warps_n, MT = WM / 16, NT = WN / 8;
    static constexpr int row = BK + 8, size_a = BM * row;
    static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && WN % 16 == 0);
    __device__ __forceinline__ static int warp_row() { return threadIdx.x / 32 / warps_n * WM; }
    __device__ __forceinline__ static int warp_column() { return threadIdx.x / 32 % warps_n * WN; }
};
/// How the threads of a block share `Rows` rows of `Width` elements: `each` chunks of eight a thread, `rows` rows apart.
template <class S, int Rows, int Width>
struct Chunks {
    static constexpr int per = Width / 8, rows = S::threads / per, each = Rows / rows;
    static_assert(S::threads % per == 0 && Rows % rows == 0);
    __device__ __forceinline__ static int column() { return threadIdx.x % per * 8; }
    __device__ __forceinline__ static int row(int j) { return threadIdx.x / per + j * rows; }
};

template <class T, class S>
struct WeightSide {
    using C = Chunks<S, S::BM, S::BK>;
    const T* at;
    std::int64_t step;
    int rows, k, k_end;
    __device__ __forceinline__ WeightSide(const BasicConv<T>& c, int m0, int k0, int k1)
        : step(std::int64_t(C::rows) * c.k), rows(c.m - m0 - C::row(0)), k(k0 + C::column()), k_end(k1) {
        at = c.w + std::int64_t(m0 + C::row(0)) * c.k + k;
    }
    __device__ __forceinline__ void copy(T* to) {
#pragma unroll
        for (int j = 0; j < C::each; ++j)
            simt::cp_async<16>(to + C::row(j) * S::row + C::column(), at + j * step, j * C::rows < rows && k < k_end);
        at += S::BK;
        k += S::BK;
    }
};
/// [pixel][k] from the image with channels last.
template <class T, class S>
struct WindowSide {
    using C = Chunks<S, S::BN, S::BK>;
    static constexpr bool Along = true;
    static constexpr int row = S::row, size = S::BN * row;
    const BasicConv<T>& c;
    int tap, channel, k, k_end;
    int origin[C::each], at[C::each];  // pixels before the image; elements before the tap's pixel, -1: in the padding
    int start[C::each][3];
    __device__ __forceinline__ WindowSide(const BasicConv<T>& conv, int n0, int k0, int k1)
        : c(conv), k(k0 + C::column()), k_end(k1) {
        tap = static_cast<int>(c.packed.divide(k));
        channel = k - tap * c.row;
#pragma unroll
        for (int j = 0; j < C::each; ++j) {
            const int n = n0 + C::row(j);
            const Window w(c, n < c.n ? n : 0);
            origin[j] = n < c.n ? static_cast<int>(w.image * c.x_plane) : -1;
#pragma unroll
            for (int d = 0; d < 3; ++d) start[j][d] = w.start[d];
        }
        locate();
    }
    __device__ __forceinline__ void locate() {
        const Tap t(c, tap);
#pragma unroll
        for (int j = 0; j < C::each; ++j) {
            const int p = place(c, start[j], t);
            at[j] = origin[j] < 0 || p < 0 ? -1 : (origin[j] + p) * c.row;
        }
    }
    __device__ __forceinline__ void copy(T* to) {
#pragma unroll
        for (int j = 0; j < C::each; ++j) {
            const bool valid = at[j] >= 0 && k < k_end;
            simt::cp_async<16>(to + C::row(j) * row + C::column(), c.x + (valid ? at[j] + channel : 0), valid);
        }
        k += S::BK;
        channel += S::BK;
        if (channel < c.row || k >= k_end) return;
        for (; channel >= c.row; channel -= c.row) ++tap;
        locate();
    }
};
/// [k][pixel] from the image itself, whose planes are multiples of four.
template <class T, class S>
struct PixelSide {
    using C = Chunks<S, S::BK, S::BN>;
    static constexpr bool Along = false;
    static constexpr int row = S::BN + 8, size = S::BK * row;
    const T* at[2];  // of columns 0 and 4 of the chunk
    std::int64_t plane;
    int k, k_end;
    bool wide, inside[2];
    __device__ __forceinline__ PixelSide(const BasicConv<T>& c, int n0, int k0, int k1)
        : plane(c.x_plane), k(k0 + C::row(0)), k_end(k1 < c.channels ? k1 : c.channels), wide(c.vector) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            unsigned n = n0 + C::column() + 4 * i;
            inside[i] = n < static_cast<unsigned>(c.n);
            if (!inside[i]) n = 0;
            const unsigned image = c.pixels.split(n);
            at[i] = c.x + image * c.x_image + n + k * plane;
        }
    }
    __device__ __forceinline__ void copy(T* to) {
#pragma unroll
        for (int j = 0; j < C::each; ++j) {
            T* s = to + C::row(j) * row + C::column();
            const bool there = k + j * C::rows < k_end;
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
        k += S::BK;
    }
};

template <class T, class S, class B>
__device__ __forceinline__ void multiply_piece(const T* pa, const T* pb, float (&acc)[S::MT][S::NT][4]) {
    const int lane = threadIdx.x % 32, wm = S::warp_row(), wn = S::warp_column();
#pragma unroll
    for (int k = 0; k < S::BK; k += 16) {
        unsigned fa[S::MT][4];
#pragma unroll
        for (int i = 0; i < S::MT; ++i)
            simt::ldmatrix_x4<false>(fa[i], pa + (wm + i * 16 + lane % 16) * S::row + k + lane / 16 * 8);
#pragma unroll
        for (int j = 0; j < S::NT; j += 2) {
            unsigned fb[4];
            if constexpr (B::Along)
                simt::ldmatrix_x4<false>(fb, pb + (wn + j * 8 + lane % 16) * B::row + k + lane / 16 * 8);
            else simt::ldmatrix_x4<true>(fb, pb + (k + lane % 16) * B::row + wn + j * 8 + lane / 16 * 8);
            // Along: (first 8 columns, second 8) of the first half of k, then of the second.
            constexpr int second = B::Along ? 2 : 1;
#pragma unroll
            for (int i = 0; i < S::MT; ++i) {
                simt::mma_m16n8k16<T>(acc[i][j], fa[i], fb[0], fb[second]);
                simt::mma_m16n8k16<T>(acc[i][j + 1], fa[i], fb[3 - second], fb[3]);
            }
        }
    }
}
template <class T, class S>
__device__ __forceinline__ void write_tile(const BasicConv<T>& c, int m0, int n0, unsigned split,
                                           const float (&acc)[S::MT][S::NT][4]) {
    const int lane = threadIdx.x % 32;
    // Two neighbours are in one image, on a boundary of two of it, where planes are even.
    const bool pairs =
        c.partial ? c.n % 2 == 0
                  : c.y_plane % 2 == 0 && reinterpret_cast<std::uintptr_t>(c.finish.y) % (2 * sizeof(T)) == 0;
#pragma unroll
    for (int j = 0; j < S::NT; ++j) {
        const int column = n0 + S::warp_column() + j * 8 + lane % 4 * 2;
        if (column >= c.n) continue;
        const bool two = column + 1 < c.n;
        const unsigned image = c.pixels.divide(column), next = c.pixels.divide(column + 1);
        const std::int64_t here = image * c.y_image + (column - image * c.pixels.divisor);
        const std::int64_t there = next * c.y_image + (column + 1 - next * c.pixels.divisor);
#pragma unroll
        for (int i = 0; i < S::MT; ++i)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int channel = m0 + S::warp_row() + i * 16 + lane / 4 + 8 * h;
                if (channel >= c.m) continue;
                const float v[2] = {acc[i][j][2 * h], acc[i][j][2 * h + 1]};
                if (c.partial) {
                    float* to = c.partial + (std::int64_t(split) * c.m + channel) * c.n + column;
                    if (two && pairs) {
                        simt::store_pack(to, v);
                    } else {
                        to[0] = v[0];
                        if (two) to[1] = v[1];
                    }
                    continue;
                }
                const std::int64_t first = here + channel * c.y_plane, second = there + channel * c.y_plane;
                T t[2];
                t[0] = t[1] = quern::cuda::from_float<T>(c.finish.value(v[0], channel, first));
                if (two) t[1] = quern::cuda::from_float<T>(c.finish.value(v[1], channel, second));
                if (two && pairs) {
                    simt::store_pack(c.finish.y + first, t);
                } else {
                    c.finish.y[first] = t[0];
                    if (two) c.finish.y[second] = t[1];
                }
            }
    }
}
template <class T, class S, template <class, class> class Side>
__global__ void __launch_bounds__(S::threads, 2) half_tiles(const BasicConv<T> c) {
    using B = Side<T, S>;
    T* sa = simt::dynamic_smem<T>();
    T* sb = sa + S::stages * S::size_a;
    const unsigned split = blockIdx.z;
    const int n0 = blockIdx.x * S::BN, m0 = blockIdx.y * S::BM;
    const int k0 = split * c.k_split, k1 = k0 + c.k_split < c.k ? k0 + c.k_split : c.k;
    WeightSide<T, S> a(c, m0, k0, k1);
    B b(c, n0, k0, k1);
    const int steps = (k1 - k0 + S::BK - 1) / S::BK;
    float acc[S::MT][S::NT][4] = {};
#pragma unroll
    for (int s = 0; s < S::stages - 1; ++s) {
        if (s < steps) {
            a.copy(sa + s * S::size_a);
            b.copy(sb + s * B::size);
        }
        simt::cp_async_commit();
    }
    for (int s = 0; s < steps; ++s) {
        simt::cp_async_wait<S::stages - 2>();
        __syncthreads();  // piece s is there for all, and all have read what the next copy replaces
        if (const int next = s + S::stages - 1; next < steps) {
            a.copy(sa + next % S::stages * S::size_a);
            b.copy(sb + next % S::stages * B::size);
        }
        simt::cp_async_commit();
        multiply_piece<T, S, B>(sa + s % S::stages * S::size_a, sb + s % S::stages * B::size, acc);
    }
    simt::cp_async_wait<0>();
    write_tile<T, S>(c, m0, n0, split, acc);
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
    const std::int64_t pixels = f.shape.pixels_in();
    const bool four = pixels % 4 == 0 && reinterpret_cast<std::uintptr_t>(x) % (4 * sizeof(T)) == 0;
    const dim3 grid(static_cast<unsigned>(up(pixels, 64)), static_cast<unsigned>(up(p.row, 64)),
                    static_cast<unsigned>(f.images < 65535 ? f.images : 65535));
    if (grid.x == 0 || grid.y == 0) return cudaSuccess;
    if (grid.y > 65535) return cudaErrorInvalidValue;
    return simt::launch(four ? channels_last<T, 4> : channels_last<T, 1>, grid, dim3(256),
                        64 * kTurnPitch * sizeof(T), stream, x, to,
                        static_cast<int>(f.shape.channels), static_cast<int>(p.row), static_cast<int>(pixels),
                        static_cast<unsigned>(f.images));
}

template <class T, class S>
cudaError_t launch_shape(const BasicConv<T>& c, Order order, cudaStream_t stream) {
    const dim3 grid(static_cast<unsigned>(up(c.n, S::BN)), static_cast<unsigned>(up(c.m, S::BM)),
                    static_cast<unsigned>(c.splits));
    const auto bytes = [](int b) { return sizeof(T) * S::stages * static_cast<std::size_t>(S::size_a + b); };
    if (order == Order::pointwise)
        return simt::launch(half_tiles<T, S, PixelSide>, grid, dim3(S::threads), bytes(PixelSide<T, S>::size), stream,
                            c);
    return simt::launch(half_tiles<T, S, WindowSide>, grid, dim3(S::threads), bytes(WindowSide<T, S>::size), stream, c);
}
template <class T>
cudaError_t run_type(const CudaConv& f, const Plan& p, void* scratch, cudaStream_t stream) {
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
    switch (p.kind) {
        case Plan::tiles128: e = launch_shape<T, HalfShape<128, 128, 64, 32, 4>>(c, p.order, stream); break;
        case Plan::tiles64x128: e = launch_shape<T, HalfShape<64, 128, 32, 32, 4>>(c, p.order, stream); break;
        default: e = launch_shape<T, HalfShape<64, 64, 32, 32, 4>>(c, p.order, stream); break;
    }
    return e == cudaSuccess ? finish_parts(c, stream) : e;
}
cudaError_t run_half(const CudaConv& f, const Plan& p, void* scratch, cudaStream_t stream) {
    if (f.type == DType::f16) return run_type<__half>(f, p, scratch, stream);
    if (f.type == DType::bf16) return run_type<__nv_bfloat16>(f, p, scratch, stream);
    return cudaErrorInvalidValue;
}

}  // namespace conv::cuda
QUERN_END
