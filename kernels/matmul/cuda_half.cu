// Products of f16 and bf16: tiles of 128 x 128 and 64 x 64 by tensor cores from three stages of shared memory, and
// few-row products that read B once.
#include <quern/kernels/matmul/cuda_plan.hpp>

QUERN_BEGIN
namespace matmul::cuda {

/// WM x WN: what a warp computes in pieces of 16 x 8.
template <int BM_, int BN_, int WM_, int WN_>
struct HalfShape {
    static constexpr int BM = BM_, BN = BN_, BK = 32, WM = WM_, WN = WN_, stages = 3;
    static constexpr int warps_n = BN / WN, threads = 32 * (BM / WM) * warps_n, MT = WM / 16, NT = WN / 8;
    static constexpr int row_a = BK + 8;  // elements; 8 rows of a fragment are in 32 banks
    static constexpr int size_a = BM * row_a;
    template <bool TransB>
    struct B {
        static constexpr int row = TransB ? BK + 8 : BN + 8, size = TransB ? BN * row : BK * row;
    };
    template <bool TransB>
    static constexpr std::size_t bytes = 2 * stages*(size_a + B<TransB>::size);
};

// Rows [0, rows) of `width` elements, 16 bytes at a time; what is beyond `count` rows or `end` columns is zero.
template <class T, int Threads, int Rows, int Width, int Pitch>
__device__ __forceinline__ void stage(T* to, const T* from, std::int64_t ld, int count, int end) {
#pragma unroll
    for (int i = threadIdx.x; i < Rows * (Width / 8); i += Threads) {
        const int r = i / (Width / 8), c = i % (Width / 8) * 8;
        simt::cp_async<16>(to + r * Pitch + c, from + r * ld + c, r < count && c < end);
    }
}

template <class T, class S, bool TransB>
__device__ __forceinline__ void half_tile(const BasicGemm<T>& g, unsigned batch, unsigned split) {
    using SB = typename S::template B<TransB>;
    T* sa = simt::dynamic_smem<T>();
    T* sb = sa + S::stages * S::size_a;
    std::int64_t oa, ob, oc;
    g.offsets(batch, oa, ob, oc);
    const int m0 = blockIdx.y * S::BM, n0 = blockIdx.x * S::BN;
    const int k0 = split * g.k_split, k1 = k0 + g.k_split < g.k ? k0 + g.k_split : g.k;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wm = warp / S::warps_n * S::WM, wn = warp % S::warps_n * S::WN;
    const T* a = g.a + oa + m0 * g.lda;
    const T* b = g.b + ob + (TransB ? n0 * g.ldb : n0);
    const auto copy = [&](int s, int k) {
        stage<T, S::threads, S::BM, S::BK, S::row_a>(sa + s * S::size_a, a + k, g.lda, g.m - m0, k1 - k);
        if constexpr (TransB)
            stage<T, S::threads, S::BN, S::BK, SB::row>(sb + s * SB::size, b + k, g.ldb, g.n - n0, k1 - k);
        else stage<T, S::threads, S::BK, S::BN, SB::row>(sb + s * SB::size, b + k * g.ldb, g.ldb, k1 - k, g.n - n0);
    };
    const int steps = (k1 - k0 + S::BK - 1) / S::BK;
    float acc[S::MT][S::NT][4] = {};
    __syncthreads();  // a tile before has been read
#pragma unroll
    for (int s = 0; s < S::stages - 1; ++s) {
        if (s < steps) copy(s, k0 + s * S::BK);
        simt::cp_async_commit();
    }
    for (int s = 0; s < steps; ++s) {
        simt::cp_async_wait<S::stages - 2>();
        __syncthreads();  // piece s is there for all, and all have read what the next copy replaces
        if (const int next = s + S::stages - 1; next < steps) copy(next % S::stages, k0 + next * S::BK);
        simt::cp_async_commit();
        const T* pa = sa + s % S::stages * S::size_a;
        const T* pb = sb + s % S::stages * SB::size;
#pragma unroll
        for (int k = 0; k < S::BK; k += 16) {
            unsigned fa[S::MT][4];
#pragma unroll
            for (int i = 0; i < S::MT; ++i)
                simt::ldmatrix_x4<false>(fa[i], pa + (wm + i * 16 + lane % 16) * S::row_a + k + lane / 16 * 8);
#pragma unroll
            for (int j = 0; j < S::NT; j += 2) {
                unsigned fb[4];
                if constexpr (TransB)
                    simt::ldmatrix_x4<false>(fb, pb + (wn + j * 8 + lane % 16) * SB::row + k + lane / 16 * 8);
                else simt::ldmatrix_x4<true>(fb, pb + (k + lane % 16) * SB::row + wn + j * 8 + lane / 16 * 8);
                // Transposed rows come as (first 8 columns, second 8) of the first half of k, then of the second.
                const int second = TransB ? 2 : 1;
#pragma unroll
                for (int i = 0; i < S::MT; ++i) {
                    simt::mma_m16n8k16<T>(acc[i][j], fa[i], fb[0], fb[second]);
                    simt::mma_m16n8k16<T>(acc[i][j + 1], fa[i], fb[3 - second], fb[3]);
                }
            }
        }
    }
    simt::cp_async_wait<0>();
#pragma unroll
    for (int i = 0; i < S::MT; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = m0 + wm + i * 16 + lane / 4 + 8 * h;
            if (row >= g.m) continue;
#pragma unroll
            for (int j = 0; j < S::NT; ++j) {
                const int column = n0 + wn + j * 8 + lane % 4 * 2;  // n is even: both or none
                if (column >= g.n) continue;
                const float v[2] = {acc[i][j][2 * h], acc[i][j][2 * h + 1]};
                if (g.partial) {
                    simt::store_pack(g.partial + ((std::int64_t(split) * g.batches + batch) * g.m + row) * g.n + column,
                                     v);
                } else {
                    const T t[2] = {quern::cuda::from_float<T>(g.finish.value(v[0], oc, row, column)),
                                    quern::cuda::from_float<T>(g.finish.value(v[1], oc, row, column + 1))};
                    simt::store_pack(g.finish.c + oc + row * g.finish.ldc + column, t);
                }
            }
        }
}
template <class T, class S, bool TransB>
__global__ void __launch_bounds__(S::threads) half_tiles(const BasicGemm<T> g) {
    for (unsigned z = blockIdx.z; z < g.depth; z += gridDim.z) half_tile<T, S, TransB>(g, z / g.splits, z % g.splits);
}

// 8 warps take every eighth k of their part, 256 columns a block.
template <class T, int Rows>
__global__ void __launch_bounds__(256) half_rows(const BasicGemm<T> g) {
    __shared__ float part[8][256];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int n0 = blockIdx.x * 256, column = n0 + lane * 8;
    for (unsigned z = blockIdx.z; z < g.depth; z += gridDim.z) {
        const unsigned batch = z / g.splits, split = z - batch * g.splits;
        std::int64_t oa, ob, oc;
        g.offsets(batch, oa, ob, oc);
        const int k0 = split * g.k_split, k1 = k0 + g.k_split < g.k ? k0 + g.k_split : g.k;
        float acc[Rows][8] = {};
        if (column < g.n)
#pragma unroll 4
            for (int k = k0 + warp; k < k1; k += 8) {
                T v[8];
                simt::load_pack(g.b + ob + k * g.ldb + column, v);
#pragma unroll
                for (int i = 0; i < Rows; ++i) {
                    const float x = i < g.m ? quern::cuda::to_float(g.a[oa + i * g.lda + k]) : 0.0f;
#pragma unroll
                    for (int w = 0; w < 8; ++w) acc[i][w] += x * quern::cuda::to_float(v[w]);
                }
            }
#pragma unroll
        for (int i = 0; i < Rows; ++i) {
            if (i >= g.m) break;
            __syncthreads();  // the row before has been read
#pragma unroll
            for (int w = 0; w < 8; ++w) part[warp][lane * 8 + w] = acc[i][w];
            __syncthreads();
            const int at = n0 + threadIdx.x;
            if (at >= g.n) continue;
            float s = 0;
#pragma unroll
            for (int w = 0; w < 8; ++w) s += part[w][threadIdx.x];
            if (g.partial) g.partial[((std::int64_t(split) * g.batches + batch) * g.m + i) * g.n + at] = s;
            else g.finish.c[oc + i * g.finish.ldc + at] = quern::cuda::from_float<T>(g.finish.value(s, oc, i, at));
        }
    }
}
// B transposed: a warp a column.
template <class T, int Rows>
__global__ void __launch_bounds__(256) half_rows_transposed(const BasicGemm<T> g) {
    const int lane = threadIdx.x % 32, column = blockIdx.x * 8 + threadIdx.x / 32;
    if (column >= g.n) return;
    for (unsigned batch = blockIdx.z; batch < g.depth; batch += gridDim.z) {
        std::int64_t oa, ob, oc;
        g.offsets(batch, oa, ob, oc);
        float acc[Rows] = {};
        for (int k = lane * 8; k < g.k; k += 256) {
            T v[8];
            simt::load_pack(g.b + ob + column * g.ldb + k, v);
#pragma unroll
            for (int i = 0; i < Rows; ++i) {
                if (i >= g.m) break;
                T x[8];
                simt::load_pack(g.a + oa + i * g.lda + k, x);
#pragma unroll
                for (int w = 0; w < 8; ++w) acc[i] += quern::cuda::to_float(x[w]) * quern::cuda::to_float(v[w]);
            }
        }
#pragma unroll
        for (int i = 0; i < Rows; ++i) {
            if (i >= g.m) break;
            const float s = simt::warp_reduce(acc[i], [](float x, float y) { return x + y; });
            if (lane == 0)
                g.finish.c[oc + i * g.finish.ldc + column] =
                    quern::cuda::from_float<T>(g.finish.value(s, oc, i, column));
        }
    }
}

template <class T, class S>
cudaError_t launch_half(const BasicGemm<T>& g, bool trans_b, cudaStream_t stream) {
    const dim3 grid(static_cast<unsigned>(up(g.n, S::BN)), static_cast<unsigned>(up(g.m, S::BM)), depth(g));
    return trans_b ? simt::launch(half_tiles<T, S, true>, grid, dim3(S::threads), S::template bytes<true>, stream, g)
                   : simt::launch(half_tiles<T, S, false>, grid, dim3(S::threads), S::template bytes<false>, stream, g);
}
template <class T>
cudaError_t run_type(const CudaGemm& c, const Plan& p, float* scratch, cudaStream_t stream) {
    const BasicGemm<T> g = arguments<T>(c, p, scratch);
    cudaError_t e;
    if (p.kind == Plan::few_transposed) {
        const dim3 grid(static_cast<unsigned>(up(c.n, 8)), 1, depth(g));
        e = simt::launch(c.m == 1 ? half_rows_transposed<T, 1> : half_rows_transposed<T, kFewRows>, grid, dim3(256), 0,
                         stream, g);
    } else if (p.kind == Plan::few) {
        const dim3 grid(static_cast<unsigned>(up(c.n, 256)), 1, depth(g));
        e = simt::launch(c.m == 1 ? half_rows<T, 1> : half_rows<T, kFewRows>, grid, dim3(256), 0, stream, g);
    } else if (p.kind == Plan::tiles128) {
        e = launch_half<T, HalfShape<128, 128, 64, 32>>(g, c.trans_b, stream);
    } else {
        e = launch_half<T, HalfShape<64, 64, 32, 32>>(g, c.trans_b, stream);
    }
    if (e != cudaSuccess || !g.partial) return e;
    return simt::launch(add_parts<T>, dim3(static_cast<unsigned>(up(g.batches * c.m * c.n, 256))), dim3(256), 0, stream,
                        g);
}

cudaError_t run_half(const CudaGemm& c, const Plan& p, float* scratch, cudaStream_t stream) {
    bool fits = !c.trans_a && c.k % 8 == 0 && c.n % 8 == 0 && c.lda % 8 == 0 && c.ldb % 8 == 0 && c.ldc % 2 == 0;
    fits = fits && reinterpret_cast<std::uintptr_t>(c.a) % 16 == 0 && reinterpret_cast<std::uintptr_t>(c.b) % 16 == 0 &&
           reinterpret_cast<std::uintptr_t>(c.c) % 4 == 0;
    for (int d = 0; d < c.batch_rank; ++d)
        fits = fits && c.stride_a[d] % 8 == 0 && c.stride_b[d] % 8 == 0 && c.stride_c[d] % 2 == 0;
    if (!fits) return cudaErrorInvalidValue;
    if (c.type == DType::f16) return run_type<__half>(c, p, scratch, stream);
    if (c.type == DType::bf16) return run_type<__nv_bfloat16>(c, p, scratch, stream);
    return cudaErrorInvalidValue;
}

}  // namespace matmul::cuda
QUERN_END
