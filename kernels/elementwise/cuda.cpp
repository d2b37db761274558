// Element-wise programs as kernels of the plan.
#include <string>
#include <utility>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/elementwise/cuda.hpp>
#include <quern/kernels/kernel.hpp>

QUERN_BEGIN
namespace ew {

class CudaProgramKernel final : public Kernel {
public:
    explicit CudaProgramKernel(const Problem& p) : p_(p) {
        unread = p.unread;
        // An element is read before it is written, by the same thread.
        for (std::size_t k = 0; k < p.inputs.size(); ++k)
            if (dtype_bits(p.types[k]) == dtype_bits(p.out)) inplace |= 1u << p.inputs[k];
    }
    const char* name() const noexcept override { return "elementwise.cuda"; }
    void run(const Call& c) const override {
        const View& y = c.out[0];
        ProgramOperand in[max_program_inputs];
        std::int64_t dims[max_program_rank];
        for (int d = 0; d < y.rank; ++d) dims[d] = y.dims[y.rank - 1 - d];
        for (std::size_t k = 0; k < p_.inputs.size(); ++k) {
            const View& x = c.in[p_.inputs[k]];
            in[k].data = x.data;
            in[k].type = x.dtype;
            std::int64_t stride = 1;
            const int shift = p_.shift.empty() ? 0 : p_.shift[k];
            for (int d = shift; d < x.rank + shift; ++d) {
                const std::int64_t n = x.dims[x.rank - 1 - (d - shift)];
                if (d >= y.rank || (n != 1 && n != dims[d]))
                    raise(ErrorCode::shape_mismatch, "dimension " + std::to_string(n) + " cannot be broadcast to the output's");
                if (n != 1) in[k].strides[d] = stride;
                stride *= n;
            }
        }
        cuda::check(cuda_run_program(p_.program, in, y.data, y.dtype, y.rank, dims, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    Problem p_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.rank > max_program_rank) return "rank " + std::to_string(p.rank) + "; up to " + std::to_string(max_program_rank) + " is accepted";
    for (DType t : p.types)
        if (!storable(t)) return std::string("type ") + dtype_name(t);
    if (!storable(p.out)) return std::string("type ") + dtype_name(p.out);
    for (int i = 0; i < p.program.steps; ++i) {
        const Step& s = p.program.step[i];
        if (s.code == Code::unary && !has_unary(static_cast<UnaryOp>(s.function), s.whole)) return "a function that the device lacks for this type";
        if ((s.code == Code::binary || s.code == Code::reversed) && !has_binary(static_cast<BinaryOp>(s.function), s.whole))
            return "a function that the device lacks for this type";
        if (s.whole && s.code != Code::load && s.code != Code::keep && s.code != Code::select && (p.out == DType::u64 || (!p.types.empty() && p.types[0] == DType::u64)))
            return "arithmetic on uint64";
    }
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaProgramKernel>(p); }

extern const Entry<Problem> elementwise_cuda;
const Entry<Problem> elementwise_cuda{"elementwise.cuda", refuse_cuda, make_cuda};

}  // namespace ew
QUERN_END
