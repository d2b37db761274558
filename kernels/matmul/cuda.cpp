// Products as kernels of the plan.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/matmul/cuda.hpp>
#include <quern/kernels/matmul/cuda_geometry.hpp>

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
        CudaGemm g = cuda_geometry(p_, in);
        g.precision = precision_;
        return g;
    }
    Problem p_;
    Precision precision_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.factors.defined()) return "factors of the columns";
    if (is_half(p.dtype)) {
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
