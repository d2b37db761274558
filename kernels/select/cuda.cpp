// TopK as a kernel of the plan.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/select/cuda.hpp>
#include <quern/kernels/select/problem.hpp>

QUERN_BEGIN
namespace selection {

class CudaTopKKernel final : public Kernel {
public:
    explicit CudaTopKKernel(const Problem& p) : p_(p) { unread = 2; }
    const char* name() const noexcept override { return "top_k.cuda"; }
    void run(const Call& c) const override {
        const View& x = c.in[0];
        CudaTopK a;
        a.x = x.data, a.whole = p_.dtype == DType::i32;
        if (c.out[0].present()) a.values = c.out[0].data;
        if (c.out.size() > 1 && c.out[1].present()) a.positions = c.out[1].out<std::int64_t>();
        a.outer = x.count(0, p_.axis), a.n = x.dims[p_.axis], a.inner = x.count(p_.axis + 1, x.rank);
        a.k = p_.k, a.largest = p_.largest;
        if (a.k > a.n) raise(ErrorCode::shape_mismatch, "k is " + std::to_string(a.k) + "; accepted: 0 to " + std::to_string(a.n));
        cuda::check(cuda_top_k(a, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    Problem p_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype != DType::f32 && p.dtype != DType::i32) return std::string("type ") + dtype_name(p.dtype) + "; float and int32 are accepted";
    if (p.k < 0) return "k is not known when planning";
    if (p.k > max_cuda_k) return "k is " + std::to_string(p.k) + "; up to " + std::to_string(max_cuda_k) + " is accepted";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaTopKKernel>(p); }

extern const Entry<Problem> top_k_cuda;
const Entry<Problem> top_k_cuda{"top_k.cuda", refuse_cuda, make_cuda};

}  // namespace selection
QUERN_END
