// Reductions as kernels of the plan.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/reduce/cuda.hpp>
#include <quern/kernels/reduce/problem.hpp>
#include <quern/kernels/transpose/cuda.hpp>

QUERN_BEGIN
namespace reduce {

using Kind = Problem::Kind;

class CudaKernel final : public Kernel {
public:
    explicit CudaKernel(const Problem& p) : p_(p) { unread = host_in = 2; }
    const char* name() const noexcept override { return "reduce.cuda"; }
    void run(const Call& c) const override {
        const View& x = c.in[0];
        const auto stream = static_cast<cudaStream_t>(c.stream);
        if (p_.axes.empty()) {
            movement::CopyRegion all;
            all.axis(x.count(), 1, 1);
            return cuda::check(movement::cuda_copy(all, 4, x.data, c.out[0].data, stream), name());
        }
        const int first = p_.axes.front(), after = p_.axes.back() + 1;
        const std::int64_t outer = x.count(0, first), n = x.count(first, after), inner = x.count(after, x.rank);
        if (p_.kind >= Kind::arg_max) {
            if (n < 1) raise(ErrorCode::shape_mismatch, "the index of the largest of no elements");
            return cuda::check(cuda_arg(x.in<float>(), c.out[0].out<std::int64_t>(), outer, n, inner, p_.kind == Kind::arg_max, p_.last, stream), name());
        }
        cuda::check(cuda_reduce(static_cast<CudaOp>(p_.kind), x.in<float>(), c.out[0].out<float>(), outer, n, inner, stream), name());
    }

private:
    Problem p_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype != DType::f32) return std::string("type ") + dtype_name(p.dtype) + "; float is accepted";
    if (!p.axes_known) return "axes that are not known when planning";
    for (std::size_t i = 1; i < p.axes.size(); ++i)
        if (p.axes[i] != p.axes[i - 1] + 1) return "axes apart from each other; neighbouring ones are accepted";
    if (p.axes.empty() && p.kind != Kind::sum && p.kind != Kind::mean && p.kind != Kind::max && p.kind != Kind::min && p.kind != Kind::prod)
        return "no axes";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaKernel>(p); }

extern const Entry<Problem> reduce_cuda;
const Entry<Problem> reduce_cuda{"reduce.cuda", refuse_cuda, make_cuda};

}  // namespace reduce
QUERN_END
