// Shapes of a product as CUDA's kernels take them.
#pragma once
#include <algorithm>
#include <span>

#include <quern/kernels/matmul/cuda.hpp>
#include <quern/kernels/matmul/geometry.hpp>

QUERN_BEGIN
namespace matmul {

inline View last_two(const View& v) {
    View r = v;
    if (v.rank > 2) r.dims = v.dims + v.rank - 2, r.rank = 2;
    return r;
}
/// Batch dims, those that are walked alike as one; many batches of A over one B are rows of A.
inline void gemm_batches(std::span<const View> in, const Geometry& z, CudaGemm& g) {
    const int ba = std::max(in[0].rank - 2, 0), bb = std::max(in[1].rank - 2, 0), n = std::max(ba, bb);
    std::int64_t dims[max_gemm_batch + 1] = {}, sa[max_gemm_batch + 1] = {}, sb[max_gemm_batch + 1] = {};  // innermost first
    std::int64_t run_a = z.m * z.k, run_b = z.k * z.n;
    int rank = 0;
    for (int i = n - 1; i >= 0; --i) {
        const std::int64_t da = i < n - ba ? 1 : in[0].dims[i - (n - ba)], db = i < n - bb ? 1 : in[1].dims[i - (n - bb)];
        const std::int64_t d = da == 1 ? db : da, step_a = da == 1 ? 0 : run_a, step_b = db == 1 ? 0 : run_b;
        run_a *= da;
        run_b *= db;
        if (d == 1) continue;
        if (rank && step_a == sa[rank - 1] * dims[rank - 1] && step_b == sb[rank - 1] * dims[rank - 1]) {
            dims[rank - 1] *= d;
            continue;
        }
        if (rank == max_gemm_batch) raise(ErrorCode::unsupported, "more than 4 batch dimensions that cannot be merged");
        dims[rank] = d, sa[rank] = step_a, sb[rank++] = step_b;
    }
    if (rank == 1 && sb[0] == 0 && !g.trans_a && g.bias_row == 0) {
        g.m *= dims[0];
        return;
    }
    g.batch_rank = rank;
    std::int64_t run_c = z.m * z.n;
    for (int i = 0; i < rank; ++i) {
        const int to = rank - 1 - i;
        g.batch[to] = dims[i], g.stride_a[to] = sa[i], g.stride_b[to] = sb[i], g.stride_c[to] = run_c;
        run_c *= dims[i];
    }
}

/// The product that `p` asks for with these shapes; pointers and precision are left open.
inline CudaGemm cuda_geometry(const Problem& p, std::span<const View> in) {
    CudaGemm g;
    const Geometry z = [&] {
        const View two[3] = {last_two(in[0]), last_two(in[1]), in.size() > 2 ? in[2] : View{}};
        return matmul::resolve(p, two, false);
    }();
    g.m = z.m, g.n = z.n, g.k = z.k, g.lda = z.lda, g.ldb = z.ldb, g.ldc = z.n;
    g.trans_a = z.ta, g.trans_b = z.tb;
    g.type = p.dtype;
    g.alpha = p.alpha;
    g.post = p.post, g.post_alpha = p.post_alpha, g.post_beta = p.post_beta;
    switch (z.bias) {
        case Bias::row: g.bias_col = 1; break;
        case Bias::column: g.bias_row = 1; break;
        case Bias::full: g.bias_row = z.n, g.bias_col = 1; break;
        default: break;
    }
    gemm_batches(in, z, g);
    return g;
}

}  // namespace matmul
QUERN_END
