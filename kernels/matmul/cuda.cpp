// Products as kernels of the plan.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/matmul/cuda.hpp>
#include <quern/kernels/matmul/geometry.hpp>

QUERN_BEGIN
namespace matmul {

class CudaKernel final : public Kernel {
public:
    CudaKernel(const Problem& p, bool tf32) : p_(p), precision_(tf32 ? Precision::tf32 : Precision::split) {
        p_.b = Tensor();  // stays where the plan has it
        if (p.has_residual) inplace = 8;
    }
    const char* name() const noexcept override { return "matmul.cuda"; }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        Booking b;
        b.scratch = cuda_gemm_scratch(resolved(in));
        return b;
    }
    void run(const Call& c) const override {
        CudaGemm g = resolved(c.in);
        g.a = c.in[0].data;
        g.b = c.in[1].data;
        if (c.in.size() > 2 && c.in[2].present()) g.bias = c.in[2].data;
        if (p_.has_residual) g.residual = c.in[3].data;
        g.c = c.out[0].data;
        cuda::check(cuda_gemm(g, c.scratch, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    CudaGemm resolved(std::span<const View> in) const {
        CudaGemm g;
        const Geometry z = [&] {
            const View two[3] = {last_two(in[0]), last_two(in[1]), in.size() > 2 ? in[2] : View{}};
            return matmul::resolve(p_, two, false);
        }();
        g.m = z.m, g.n = z.n, g.k = z.k, g.lda = z.lda, g.ldb = z.ldb, g.ldc = z.n;
        g.trans_a = z.ta, g.trans_b = z.tb;
        g.type = p_.dtype;
        g.alpha = p_.alpha;
        g.precision = precision_;
        g.post = p_.post, g.post_alpha = p_.post_alpha, g.post_beta = p_.post_beta;
        switch (z.bias) {
            case Bias::row: g.bias_col = 1; break;
            case Bias::column: g.bias_row = 1; break;
            case Bias::full: g.bias_row = z.n, g.bias_col = 1; break;
            default: break;
        }
        batches(in, z, g);
        return g;
    }
    static View last_two(const View& v) {
        View r = v;
        if (v.rank > 2) r.dims = v.dims + v.rank - 2, r.rank = 2;
        return r;
    }
    /// Batch dims, those that are walked alike as one; many batches of A over one B are rows of A.
    void batches(std::span<const View> in, const Geometry& z, CudaGemm& g) const {
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
    Problem p_;
    Precision precision_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype == DType::f16 || p.dtype == DType::bf16) {
        if (p.trans_a || p.rank_a < 2 || p.rank_b < 2) return "A transposed, or vectors, of half types";
        if (p.n <= 0 || p.k <= 0 || p.n % 8 || p.k % 8) return "half types with other sizes than known multiples of 8";
    } else if (p.dtype != DType::f32) {
        return std::string("type ") + dtype_name(p.dtype) + "; float, float16 and bfloat16 are accepted";
    }
    if (std::max(p.rank_a, p.rank_b) > 2 + max_gemm_batch) return "rank " + std::to_string(std::max(p.rank_a, p.rank_b)) + "; up to 6 is accepted";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target& t) { return std::make_unique<CudaKernel>(p, t.tf32); }

extern const Entry<Problem> matmul_cuda;
const Entry<Problem> matmul_cuda{"matmul.cuda", refuse_cuda, make_cuda};

}  // namespace matmul
QUERN_END
