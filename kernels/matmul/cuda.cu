// f32 products: tiles of 128 x 64 down to 32 x 128 by tensor cores (TF32, once or in three parts) or f32 units, the
// sum over k split where tiles are few, and few-row products that read B once at the speed of memory.
#include <quern/kernels/cuda/post.hpp>
#include <quern/kernels/cuda/tensor_tile.hpp>
#include <quern/kernels/cuda/tile.hpp>
#include <quern/kernels/matmul/cuda_plan.hpp>

QUERN_BEGIN
namespace matmul::cuda {

using quern::cuda::CopiedSide;
using quern::cuda::MatrixSide;
using quern::cuda::TensorShape;
using quern::cuda::TileShape;

using Gemm = BasicGemm<float>;

template <class S, bool TransA, bool TransB, int WA, int WB>
__device__ __forceinline__ void gemm_tile(const Gemm& g, unsigned batch, unsigned split) {
    std::int64_t oa, ob, oc;
    g.offsets(batch, oa, ob, oc);
    const int m0 = blockIdx.y * S::BM, n0 = blockIdx.x * S::BN;
    const int k0 = split * g.k_split, k1 = k0 + g.k_split < g.k ? k0 + g.k_split : g.k;
    MatrixSide<S, S::BM, !TransA, WA> a(g.a + oa, g.lda, m0, g.m, k0, k1);
    MatrixSide<S, S::BN, TransB, WB> b(g.b + ob, g.ldb, n0, g.n, k0, k1);
    float acc[S::TM][S::TN] = {};
    quern::cuda::multiply_tile<S>(a, b, (k1 - k0 + S::BK - 1) / S::BK, acc);
    float* c = g.partial ? g.partial + (std::int64_t(split) * g.batches + batch) * g.m * g.n : g.finish.c + oc;
    const std::int64_t ldc = g.partial ? g.n : g.finish.ldc;
#pragma unroll
    for (int i = 0; i < S::TM; ++i) {
        const int row = m0 + S::row(i);
        if (row >= g.m) continue;
#pragma unroll
        for (int j = 0; j < S::TN; j += 4) {
            const int column = n0 + S::column(j / 4);
            float v[4];
#pragma unroll
            for (int w = 0; w < 4; ++w)
                v[w] =
                    g.partial || column + w >= g.n ? acc[i][j + w] : g.finish.value(acc[i][j + w], oc, row, column + w);
            float* to = c + row * ldc + column;
            if (column + 4 <= g.n && ldc % 4 == 0 && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
                simt::store_pack(to, v);
            } else {
#pragma unroll
                for (int w = 0; w < 4; ++w)
                    if (column + w < g.n) to[w] = v[w];
            }
        }
    }
}

template <class S, bool TransA, bool TransB, int WA, int WB>
__global__ void __launch_bounds__(S::threads, 2) gemm_tiles(const Gemm g) {
    for (unsigned z = blockIdx.z; z < g.depth; z += gridDim.z)
        gemm_tile<S, TransA, TransB, WA, WB>(g, z / g.splits, z % g.splits);
}

// One element in f32: the parts of an infinity have none for a product, the sum of parts is NaN then.
template <bool TransA, bool TransB>
__device__ __forceinline__ float exact(const Gemm& g, const float* a, const float* b, int row, int column, int k0,
                                       int k1) {
    float s = 0;
#pragma unroll 1
    for (int k = k0; k < k1; ++k)
        s += a[TransA ? k * g.lda + row : row * g.lda + k] * b[TransB ? column * g.ldb + k : k * g.ldb + column];
    return s;
}

// The same by tensor cores.
template <class S, bool TransA, bool TransB, int W>
__device__ __forceinline__ void tensor_tile(const Gemm& g, unsigned batch, unsigned split) {
    std::int64_t oa, ob, oc;
    g.offsets(batch, oa, ob, oc);
    const int m0 = blockIdx.y * S::BM, n0 = blockIdx.x * S::BN;
    const int k0 = split * g.k_split, k1 = k0 + g.k_split < g.k ? k0 + g.k_split : g.k;
    CopiedSide<S, S::BM, !TransA, W> a(g.a + oa, g.lda, m0, g.m, k0, k1);
    CopiedSide<S, S::BN, TransB, W> b(g.b + ob, g.ldb, n0, g.n, k0, k1);
    float acc[S::MT][S::NT][4] = {};
    quern::cuda::multiply_tensor_tile<S>(a, b, (k1 - k0 + S::BK - 1) / S::BK, acc);
    if constexpr (S::Parts == 3)
        store_tile<S>(g, batch, split, oc, m0, n0, acc, [&](int row, int column) { return exact<TransA, TransB>(g, g.a + oa, g.b + ob, row, column, k0, k1); });
    else store_tile<S>(g, batch, split, oc, m0, n0, acc, nullptr);
}
template <class S, bool TransA, bool TransB, int W>
__global__ void __launch_bounds__(S::threads, S::blocks) tensor_tiles(const Gemm g) {
    for (unsigned z = blockIdx.z; z < g.depth; z += gridDim.z)
        tensor_tile<S, TransA, TransB, W>(g, z / g.splits, z % g.splits);
}

// Up to Rows rows of A: 8 warps take every eighth k of their part, 128 columns a block.
template <int Rows, bool Vector>
__device__ __forceinline__ void few_rows_part(const Gemm& g, unsigned batch, unsigned split) {
    __shared__ float part[8][Rows][129];
    std::int64_t oa, ob, oc;
    g.offsets(batch, oa, ob, oc);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int n0 = blockIdx.x * 128, column = n0 + lane * 4;
    const int k0 = split * g.k_split, k1 = k0 + g.k_split < g.k ? k0 + g.k_split : g.k;
    const float *a = g.a + oa, *b = g.b + ob;
    float acc[Rows][4] = {};
#pragma unroll 8
    for (int k = k0 + warp; k < k1; k += 8) {
        float v[4];
        const float* row = b + k * g.ldb + column;
        if (Vector && column < g.n) {
            simt::load_pack(row, v);
        } else {
#pragma unroll
            for (int w = 0; w < 4; ++w) v[w] = column + w < g.n ? row[w] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < Rows; ++i) {
            const float x = i < g.m ? a[i * g.lda + k] : 0.0f;
#pragma unroll
            for (int w = 0; w < 4; ++w) acc[i][w] += x * v[w];
        }
    }
#pragma unroll
    for (int i = 0; i < Rows; ++i)
#pragma unroll
        for (int w = 0; w < 4; ++w) part[warp][i][lane * 4 + w] = acc[i][w];
    __syncthreads();
    for (int i = threadIdx.x; i < Rows * 128; i += 256) {
        const int row = i / 128, at = i % 128;
        if (row >= g.m || n0 + at >= g.n) continue;
        float s = 0;
#pragma unroll
        for (int w = 0; w < 8; ++w) s += part[w][row][at];
        if (g.partial) g.partial[((std::int64_t(split) * g.batches + batch) * g.m + row) * g.n + n0 + at] = s;
        else g.finish.c[oc + row * g.finish.ldc + n0 + at] = g.finish.value(s, oc, row, n0 + at);
    }
}

template <int Rows, bool Vector>
__global__ void __launch_bounds__(256) few_rows(const Gemm g) {
    for (unsigned z = blockIdx.z; z < g.depth; z += gridDim.z) {
        few_rows_part<Rows, Vector>(g, z / g.splits, z % g.splits);
        __syncthreads();
    }
}

// Up to Rows rows of A, B transposed: a warp a column.
template <int Rows, bool Vector>
__global__ void __launch_bounds__(256, simt::by_arch(6, 5)) few_rows_transposed(const Gemm g) {
    const int lane = threadIdx.x % 32, column = blockIdx.x * 8 + threadIdx.x / 32;
    if (column >= g.n) return;
    for (unsigned batch = blockIdx.z; batch < g.depth; batch += gridDim.z) {
        std::int64_t oa, ob, oc;
        g.offsets(batch, oa, ob, oc);
        const float *a = g.a + oa, *b = g.b + ob + column * g.ldb;
        float acc[Rows] = {};
        constexpr int W = Vector ? 4 : 1;
        for (int k = lane * W; k < g.k; k += 32 * W) {
            float v[W];
            simt::load_pack(b + k, v);
#pragma unroll
            for (int i = 0; i < Rows; ++i) {
                if (i >= g.m) break;
                float x[W];
                simt::load_pack(a + i * g.lda + k, x);
#pragma unroll
                for (int w = 0; w < W; ++w) acc[i] += x[w] * v[w];
            }
        }
#pragma unroll
        for (int i = 0; i < Rows; ++i) {
            if (i >= g.m) break;
            const float s = simt::warp_reduce(acc[i], [](float x, float y) { return x + y; });
            if (lane == 0) g.finish.c[oc + i * g.finish.ldc + column] = g.finish.value(s, oc, i, column);
        }
    }
}

// All that a 16-byte load of a side may begin with is a multiple of four floats.
inline bool wide(const CudaGemm& c, const void* p, std::int64_t ld, std::int64_t contiguous,
                 const std::int64_t* strides) {
    bool v = reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && ld % 4 == 0 && contiguous % 4 == 0;
    for (int d = 0; d < c.batch_rank; ++d) v = v && strides[d] % 4 == 0;
    return v;
}
template <class S>
dim3 tile_grid(const Gemm& g) {
    return dim3(static_cast<unsigned>(ceil_div(g.n, S::BN)), static_cast<unsigned>(ceil_div(g.m, S::BM)), depth(g));
}
template <class S, bool TransA, bool TransB>
cudaError_t launch_tiles(const Gemm& g, bool vector, cudaStream_t stream) {
    return simt::launch(vector ? gemm_tiles<S, TransA, TransB, 4, 4> : gemm_tiles<S, TransA, TransB, 1, 1>,
                        tile_grid<S>(g), dim3(S::threads), 0, stream, g);
}
template <class S, bool TransA, bool TransB>
cudaError_t launch_tensor(const Gemm& g, bool vector, cudaStream_t stream) {
    constexpr std::size_t bytes =
        quern::cuda::tensor_tile_bytes<S, CopiedSide<S, S::BM, !TransA, 1>, CopiedSide<S, S::BN, TransB, 1>>();
    static_assert(bytes >= quern::cuda::each_four_bytes<S>());
    return simt::launch(vector ? tensor_tiles<S, TransA, TransB, 4> : tensor_tiles<S, TransA, TransB, 1>,
                        tile_grid<S>(g), dim3(S::threads), bytes, stream, g);
}
template <class F, class T, int Parts>
cudaError_t launch_shape(const Gemm& g, const CudaGemm& c, cudaStream_t stream) {
    const bool v = wide(c, c.a, c.lda, c.trans_a ? c.m : c.k, c.stride_a) &&
                   wide(c, c.b, c.ldb, c.trans_b ? c.k : c.n, c.stride_b);
    if constexpr (Parts == 0) {
        if (c.trans_a)
            return c.trans_b ? launch_tiles<F, true, true>(g, v, stream) : launch_tiles<F, true, false>(g, v, stream);
        return c.trans_b ? launch_tiles<F, false, true>(g, v, stream) : launch_tiles<F, false, false>(g, v, stream);
    } else {
        if (c.trans_a)
            return c.trans_b ? launch_tensor<T, true, true>(g, v, stream) : launch_tensor<T, true, false>(g, v, stream);
        return c.trans_b ? launch_tensor<T, false, true>(g, v, stream) : launch_tensor<T, false, false>(g, v, stream);
    }
}
template <int Parts>
cudaError_t launch_kind(const Gemm& g, const CudaGemm& c, Plan::Kind kind, cudaStream_t stream) {
    constexpr int P = Parts ? Parts : 1;
    switch (kind) {
        case Plan::large:
            return launch_shape<TileShape<128, 128, 8, 8, 8>, TensorShape<128, 64, 64, 32, P, 3, 2>, Parts>(g, c, stream);
        case Plan::medium:
            return launch_shape<TileShape<64, 64, 16, 4, 4>, TensorShape<64, 64, 32, 32, P, 4, 3>, Parts>(g, c, stream);
        default:
            return launch_shape<TileShape<32, 128, 16, 4, 4>, TensorShape<32, 128, 32, 32, P>, Parts>(g, c, stream);
    }
}

template <int Rows>
cudaError_t launch_few(const Gemm& g, const CudaGemm& c, bool transposed, cudaStream_t stream) {
    bool v = reinterpret_cast<std::uintptr_t>(c.b) % 16 == 0 && c.ldb % 4 == 0;
    for (int d = 0; d < c.batch_rank; ++d) v = v && c.stride_b[d] % 4 == 0;
    const dim3 block(256);
    if (transposed) {
        v = v && c.k % 4 == 0 && c.lda % 4 == 0 && reinterpret_cast<std::uintptr_t>(c.a) % 16 == 0;
        for (int d = 0; d < c.batch_rank; ++d) v = v && c.stride_a[d] % 4 == 0;
        const dim3 grid(static_cast<unsigned>(ceil_div(c.n, 8)), 1, depth(g));
        return simt::launch(v ? few_rows_transposed<Rows, true> : few_rows_transposed<Rows, false>, grid, block, 0,
                            stream, g);
    }
    v = v && c.n % 4 == 0;
    const dim3 grid(static_cast<unsigned>(ceil_div(c.n, 128)), 1, depth(g));
    return simt::launch(v ? few_rows<Rows, true> : few_rows<Rows, false>, grid, block, 0, stream, g);
}

inline cudaError_t run(const CudaGemm& c, const Plan& p, float* scratch, cudaStream_t stream) {
    const Gemm g = arguments<float>(c, p, scratch);
    cudaError_t e = cudaSuccess;
    if (p.kind == Plan::few || p.kind == Plan::few_transposed) {
        const bool transposed = p.kind == Plan::few_transposed;
        e = c.m == 1 ? launch_few<1>(g, c, transposed, stream) : launch_few<kFewRows>(g, c, transposed, stream);
    } else if (c.precision == Precision::f32) {
        e = launch_kind<0>(g, c, p.kind, stream);
    } else if (c.precision == Precision::split) {
        e = launch_kind<3>(g, c, p.kind, stream);
    } else {
        e = launch_kind<1>(g, c, p.kind, stream);
    }
    if (e != cudaSuccess || !g.partial) return e;
    return simt::launch(add_parts<float>, dim3(static_cast<unsigned>(ceil_div(g.batches * c.m * c.n, 256))), dim3(256), 0,
                        stream, g);
}

}  // namespace matmul::cuda

namespace matmul {

std::size_t cuda_gemm_scratch(const CudaGemm& c) noexcept {
    const cuda::Plan p = cuda::plan(c);
    if (p.splits <= 1) return 0;
    return static_cast<std::size_t>(p.splits * cuda::batches(c) * c.m * c.n) * sizeof(float);
}

cudaError_t cuda_gemm(const CudaGemm& c, void* scratch, cudaStream_t stream) {
    const auto ok = [](std::int64_t v) { return v >= 0 && v <= cuda::kMost; };
    if (!ok(c.m) || !ok(c.n) || !ok(c.k) || c.batch_rank < 0 || c.batch_rank > max_gemm_batch || c.m > 65535 * 32LL)
        return cudaErrorInvalidValue;
    const std::int64_t n = cuda::batches(c);
    if (n == 0 || c.m == 0 || c.n == 0) return cudaSuccess;
    const cuda::Plan p = cuda::plan(c);
    if (n * p.splits > cuda::kMost || n * c.m > cuda::kMost) return cudaErrorInvalidValue;
    if (c.type != DType::f32) return cuda::run_half(c, p, static_cast<float*>(scratch), stream);
    return cuda::run(c, p, static_cast<float*>(scratch), stream);
}

}  // namespace matmul
QUERN_END
