// Normalizations as kernels of the plan.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/norm/cuda.hpp>
#include <quern/kernels/norm/problem.hpp>

QUERN_BEGIN
namespace norm {

class CudaKernel final : public Kernel {
public:
    explicit CudaKernel(const Problem& p) : p_(p) { inplace = p.skip ? 3 : 1; }
    const char* name() const noexcept override { return p_.grouped ? "norm_group.cuda" : p_.skip ? "norm_skip.cuda" : "norm_layer.cuda"; }
    void run(const Call& c) const override {
        const View& x = c.in[0];
        const auto given = [&](std::size_t i) { return c.in.size() > i && c.in[i].present(); };
        const auto wanted = [&](std::size_t o) { return c.out.size() > o && c.out[o].present() ? c.out[o].out<float>() : nullptr; };
        const std::size_t first = p_.skip ? 2 : 1;  // of the parameters
        CudaRows a;
        a.type = p_.dtype;
        if (p_.grouped) {
            const std::int64_t channels = x.rank > 1 ? x.dims[1] : 1, inner = x.rank > 2 ? x.count(2, x.rank) : 1;
            a.groups = p_.groups ? p_.groups : channels;
            if (x.count() == 0) return;
            if (channels % a.groups)
                raise(ErrorCode::shape_mismatch, std::to_string(channels) + " channels do not divide into " + std::to_string(a.groups) + " groups");
            const std::int64_t each = channels / a.groups;
            a.rows = x.dims[0] * a.groups;
            a.n = each * inner;
            a.per_group = p_.by_group ? 1 : each;
            a.inner = p_.by_group ? a.n : inner;
            for (std::size_t i = 1; i < 3; ++i)
                if (given(i) && c.in[i].count() != (p_.by_group ? a.groups : channels)) raise(ErrorCode::shape_mismatch, "a parameter has not one element for each channel");
        } else {
            a.rows = x.count(0, p_.axis);
            a.n = x.count(p_.axis, x.rank);
            for (std::size_t i = first; i < first + 2; ++i)
                if (given(i) && c.in[i].count() != a.n) raise(ErrorCode::shape_mismatch, "a parameter is not one row");
        }
        a.x = x.data;
        if (p_.skip) {
            if (c.in[1].count() != x.count()) raise(ErrorCode::shape_mismatch, "what is added has " + std::to_string(c.in[1].count()) + " elements; accepted: " + std::to_string(x.count()));
            a.add = c.in[1].data;
            a.sum = c.out.size() > 3 && c.out[3].present() ? c.out[3].data : nullptr;
        }
        a.scale = given(first) ? c.in[first].data : nullptr;
        a.bias = given(first + 1) ? c.in[first + 1].data : nullptr;
        a.y = c.out[0].data;
        a.mean = wanted(1);
        a.inverse = wanted(2);
        a.eps = p_.eps;
        a.rms = p_.rms;
        cuda::check(cuda_normalize_rows(a, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    Problem p_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype != DType::f32 && !is_half(p.dtype))
        return std::string("type ") + dtype_name(p.dtype) + "; float, float16 and bfloat16 are accepted";
    if (!p.row_parameters) return "scale or bias that is not one row";
    if (!p.statistics_f32) return "statistics of another type than float";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaKernel>(p); }

extern const Entry<Problem> norm_cuda;
const Entry<Problem> norm_cuda{"norm.cuda", refuse_cuda, make_cuda};

}  // namespace norm
QUERN_END
