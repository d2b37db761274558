// What the products of every storage type share: arguments of their kernels, where results go, how a product is cut.
#pragma once
#include <quern/base/ceil_div.hpp>
#include <quern/kernels/cuda/half.hpp>
#include <quern/kernels/cuda/post.hpp>
#include <quern/kernels/cuda/tile.hpp>
#include <quern/kernels/cuda/tile_store.hpp>
#include <quern/kernels/matmul/cuda.hpp>

QUERN_BEGIN
namespace matmul::cuda {

constexpr std::int64_t kMost = 0x7fffffff;
constexpr int kFewRows = 8;

template <class T>
struct Finish {
    T* c;
    const T *bias, *residual;
    std::int64_t ldc, bias_row, bias_col;
    float alpha, post_alpha, post_beta;
    vec::Post post;
    __device__ __forceinline__ float value(float sum, std::int64_t offset, int i, int j) const {
        float v = alpha * sum;
        if (bias) v += quern::cuda::to_float(bias[i * bias_row + j * bias_col]);
        if (residual) v += quern::cuda::to_float(residual[offset + i * ldc + j]);
        return quern::cuda::post(post, v, post_alpha, post_beta);
    }
};
template <class T>
struct BasicGemm {
    const T *a, *b;
    float* partial;  // [split][batch][m][n], or null
    int m, n, k, splits, k_split;
    unsigned depth;  // batches * splits
    std::int64_t lda, ldb, batches;
    int batch_rank;
    simt::Divisor batch[max_gemm_batch];  // dimension 0 is the innermost
    std::int64_t stride_a[max_gemm_batch], stride_b[max_gemm_batch], stride_c[max_gemm_batch];
    Finish<T> finish;

    __device__ __forceinline__ void offsets(unsigned i, std::int64_t& a, std::int64_t& b, std::int64_t& c) const {
        a = b = c = 0;
        for (int d = 0; d < batch_rank; ++d) {
            const unsigned q = batch[d].divide(i), r = i - q * batch[d].divisor;
            a += r * stride_a[d];
            b += r * stride_b[d];
            c += r * stride_c[d];
            i = q;
        }
    }
};

template <class T>
__global__ void __launch_bounds__(256) add_parts(const BasicGemm<T> g) {
    const std::int64_t each = std::int64_t(g.m) * g.n, all = each * g.batches;
    const std::int64_t at = std::int64_t(blockIdx.x) * 256 + threadIdx.x;
    if (at >= all) return;
    float s = 0;
    for (int p = 0; p < g.splits; ++p) s += g.partial[p * all + at];
    const std::int64_t batch = at / each, rest = at - batch * each;
    const int i = static_cast<int>(rest / g.n), j = static_cast<int>(rest % g.n);
    std::int64_t oa, ob, oc;
    g.offsets(static_cast<unsigned>(batch), oa, ob, oc);
    g.finish.c[oc + i * g.finish.ldc + j] = quern::cuda::from_float<T>(g.finish.value(s, oc, i, j));
}

/// Finishes and stores the tile from (m0, n0) on. mend(row, column) stands for a sum that is NaN; null: NaN stays.
template <class S, class T, class Mend>
__device__ __forceinline__ void store_tile(const BasicGemm<T>& g, unsigned batch, unsigned split, std::int64_t oc, int m0, int n0, const float (&acc)[S::MT][S::NT][4],
                                           Mend mend) {
    const int column = n0 + quern::cuda::column_of_four<S>(), left = g.n - column;
    float* partial = g.partial ? g.partial + (std::int64_t(split) * g.batches + batch) * g.m * g.n : nullptr;
    quern::cuda::each_four<S>(acc, [&](int of_tile, float(&v)[4]) {
        const int row = m0 + of_tile;
        if (row >= g.m || left <= 0) return;
        if constexpr (!std::is_same_v<Mend, std::nullptr_t>) {
#pragma unroll
            for (int w = 0; w < 4; ++w)
                if (v[w] != v[w] && w < left) v[w] = mend(row, column + w);
        }
        if (partial) {
            quern::cuda::store_four(partial + std::int64_t(row) * g.n + column, v, left);
            return;
        }
        T t[4];
#pragma unroll
        for (int w = 0; w < 4; ++w)
            if (w < left) t[w] = quern::cuda::from_float<T>(g.finish.value(v[w], oc, row, column + w));
        quern::cuda::store_four(g.finish.c + oc + row * g.finish.ldc + column, t, left);
    });
}

struct Plan {
    enum Kind { large, medium, low, few, few_transposed } kind;  ///< half types: 128 x 128, 64 x 64; f32: 128 x 64, 64 x 64, 32 x 128
    int splits;
    std::int64_t k_split;
};
inline std::int64_t batches(const CudaGemm& g) {
    std::int64_t n = 1;
    for (int d = 0; d < g.batch_rank; ++d) n *= g.batch[d];
    return n;
}
/// What is cut how depends on the sizes only, as sums do: for the 132 processors of an H100, where two large tiles or three medium ones share
/// one and a round of large tiles takes 2.04 times (f32: 1.04 times) as long as a round of medium ones (measured at 4096 x 4096 x 4096).
inline Plan plan(const CudaGemm& g) {
    constexpr std::int64_t processors = 132;
    Plan p{};
    const std::int64_t b = batches(g);
    const bool half = g.type != DType::f32;
    if (g.m <= kFewRows && !g.trans_a && g.trans_b) return {Plan::few_transposed, 1, g.k};
    if (g.m <= kFewRows && !g.trans_a) {
        p.kind = Plan::few;
        p.splits = quern::cuda::split_count(b * ceil_div(g.n, half ? 256 : 128), g.k, 64, 8 * processors);
    } else if (g.m > 32 || half) {
        const std::int64_t large = b * ceil_div(g.m, 128) * ceil_div(g.n, half ? 128 : 64), medium = b * ceil_div(g.m, 64) * ceil_div(g.n, 64);
        p.kind = ceil_div(large, 2 * processors) * (half ? 204 : 104) < ceil_div(medium, 3 * processors) * 100 ? Plan::large : Plan::medium;
        // Half types, 96 medium tiles on an H100: k 768 takes 9.7 us whole and 10.9 in two parts, k 3072 18.6 and in four 15.9. Products that
        // leave half of the processors idle are cut shorter.
        const bool idle = half && 2 * medium <= processors;
        p.splits = p.kind == Plan::large ? 1 : quern::cuda::split_count(medium, g.k, idle ? 192 : half ? 512 : 128, idle ? 200 : 400);
    } else {
        p.kind = Plan::low;
        p.splits = quern::cuda::split_count(b * ceil_div(g.n, 128), g.k, 128, 320);
    }
    p.k_split = ceil_div(ceil_div(g.k, p.splits), 64) * 64;
    if (g.k > 0) p.splits = static_cast<int>(ceil_div(g.k, p.k_split));
    return p;
}

template <class T>
unsigned depth(const BasicGemm<T>& g) {
    return g.depth < 65535 ? g.depth : 65535;
}
template <class T>
BasicGemm<T> arguments(const CudaGemm& c, const Plan& p, float* scratch) {
    BasicGemm<T> g{};
    g.a = static_cast<const T*>(c.a), g.b = static_cast<const T*>(c.b);
    g.m = static_cast<int>(c.m), g.n = static_cast<int>(c.n), g.k = static_cast<int>(c.k);
    g.splits = p.splits, g.k_split = static_cast<int>(p.k_split);
    g.partial = p.splits > 1 ? scratch : nullptr;
    g.lda = c.lda, g.ldb = c.ldb, g.batches = batches(c);
    g.depth = static_cast<unsigned>(g.batches * g.splits);
    g.batch_rank = c.batch_rank;
    for (int d = 0; d < c.batch_rank; ++d) {
        const int from = c.batch_rank - 1 - d;
        g.batch[d] = simt::Divisor(c.batch[from]);
        g.stride_a[d] = c.stride_a[from], g.stride_b[d] = c.stride_b[from], g.stride_c[d] = c.stride_c[from];
    }
    g.finish = {static_cast<T*>(c.c),
                static_cast<const T*>(c.bias),
                static_cast<const T*>(c.residual),
                c.ldc,
                c.bias_row,
                c.bias_col,
                c.alpha,
                c.post_alpha,
                c.post_beta,
                c.post};
    return g;
}
/// Products of f16 and bf16 (cuda_half.cu).
cudaError_t run_half(const CudaGemm&, const Plan&, float* scratch, cudaStream_t);

}  // namespace matmul::cuda
QUERN_END
