// Products of f16 and bf16: tiles of 128 x 128 and 64 x 64 by tensor cores, and few-row products that read B once.
#include <quern/kernels/cuda/half_tile.hpp>
#include <quern/kernels/matmul/cuda_plan.hpp>

QUERN_BEGIN
namespace matmul::cuda {

using quern::cuda::HalfShape;
using quern::cuda::HalfSide;

/// Tile number `t` of rows x columns: eight rows of tiles are walked together, so that blocks that run at a time share what they read.
__device__ __forceinline__ void tile_place(unsigned t, unsigned rows, unsigned columns, unsigned& row, unsigned& column) {
    constexpr unsigned together = 8;
    const unsigned group = t / (together * columns), rest = t - group * together * columns, first = group * together;
    const unsigned n = rows - first < together ? rows - first : together;
    column = rest / n;
    row = first + rest - column * n;
}
template <class T, class S, bool TransB>
__device__ __forceinline__ void half_tile(const BasicGemm<T>& g, unsigned batch, unsigned split) {
    std::int64_t oa, ob, oc;
    g.offsets(batch, oa, ob, oc);
    unsigned tm, tn;
    tile_place(blockIdx.x, (g.m + S::BM - 1) / S::BM, (g.n + S::BN - 1) / S::BN, tm, tn);
    const int m0 = tm * S::BM, n0 = tn * S::BN;
    const int k0 = split * g.k_split, k1 = k0 + g.k_split < g.k ? k0 + g.k_split : g.k;
    float acc[S::MT][S::NT][4] = {};
    HalfSide<T, S::threads, S::BM, S::BK, true> a(g.a + oa + m0 * g.lda + k0, g.lda, g.m - m0);
    HalfSide<T, S::threads, TransB ? S::BN : S::BK, TransB ? S::BK : S::BN, TransB> b(g.b + ob + (TransB ? n0 * g.ldb + k0 : k0 * g.ldb + n0), g.ldb, g.n - n0);
    quern::cuda::multiply_half_tile<T, S, TransB>(a, b, k1 - k0, acc);
    store_tile<S>(g, batch, split, oc, m0, n0, acc, nullptr);
}
template <class T, class S, bool TransB>
__global__ void __launch_bounds__(S::threads, S::blocks) half_tiles(const BasicGemm<T> g) {
    for (unsigned z = blockIdx.z; z < g.depth; z += gridDim.z) half_tile<T, S, TransB>(g, z / g.splits, z % g.splits);
}
template <class T, class S>
cudaError_t launch_half(const BasicGemm<T>& g, bool trans_b, cudaStream_t stream) {
    static_assert(S::bytes >= quern::cuda::each_four_bytes<S>());
    const std::int64_t tiles = ceil_div(g.m, S::BM) * ceil_div(g.n, S::BN);
    if (tiles > kMost) return cudaErrorInvalidValue;
    const dim3 grid(static_cast<unsigned>(tiles), 1, depth(g));
    return simt::launch(trans_b ? half_tiles<T, S, true> : half_tiles<T, S, false>, grid, dim3(S::threads), S::bytes, stream, g);
}

/// In four stages, or in three where only then two blocks fit a processor (sm_86, sm_89, sm_120: 100 KiB). The bits are the same.
template <class T, int Tile, int BK, int W, int Blocks>
cudaError_t launch_staged(const BasicGemm<T>& g, bool trans_b, cudaStream_t stream) {
    using Four = HalfShape<Tile, Tile, BK, W, W, 4, Blocks>;
    if (quern::cuda::shared_of_processor() >= 2 * (Four::bytes + quern::cuda::shared_of_block)) return launch_half<T, Four>(g, trans_b, stream);
    return launch_half<T, HalfShape<Tile, Tile, BK, W, W, 3, Blocks>>(g, trans_b, stream);
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
__global__ void __launch_bounds__(256, 6) half_rows_transposed(const BasicGemm<T> g) {
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

template <class T>
cudaError_t run_type(const CudaGemm& c, const Plan& p, float* scratch, cudaStream_t stream) {
    const BasicGemm<T> g = arguments<T>(c, p, scratch);
    cudaError_t e;
    if (p.kind == Plan::few_transposed) {
        const dim3 grid(static_cast<unsigned>(ceil_div(c.n, 8)), 1, depth(g));
        e = simt::launch(c.m == 1 ? half_rows_transposed<T, 1> : half_rows_transposed<T, kFewRows>, grid, dim3(256), 0,
                         stream, g);
    } else if (p.kind == Plan::few) {
        const dim3 grid(static_cast<unsigned>(ceil_div(c.n, 256)), 1, depth(g));
        e = simt::launch(c.m == 1 ? half_rows<T, 1> : half_rows<T, kFewRows>, grid, dim3(256), 0, stream, g);
    } else if (p.kind == Plan::large) {
        e = launch_staged<T, 128, 32, 64, 2>(g, c.trans_b, stream);
    } else {
        e = launch_staged<T, 64, 64, 32, 3>(g, c.trans_b, stream);
    }
    if (e != cudaSuccess || !g.partial) return e;
    return simt::launch(add_parts<T>, dim3(static_cast<unsigned>(ceil_div(g.batches * c.m * c.n, 256))), dim3(256), 0, stream,
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
