// Row softmax on CUDA as a kernel of the family.
#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/softmax/cuda.hpp>
#include <quern/kernels/softmax/softmax.hpp>

QUERN_BEGIN
namespace softmax {

class CudaKernel final : public Kernel {
public:
    explicit CudaKernel(const Problem& p) : type_(p.dtype), axis_(p.axis), log_(p.log) { inplace = 1; }
    const char* name() const noexcept override { return "softmax.cuda"; }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        const std::int64_t cols = x.rank ? x.dim(axis_) : 1;
        quern::cuda::check(cuda_rows(type_, x.data, call.out[0].data, cols ? x.count() / cols : 0, cols, log_, static_cast<cudaStream_t>(call.stream)), name());
    }

private:
    DType type_;
    int axis_;
    bool log_;
};

inline std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype != DType::f32 && p.dtype != DType::f16 && p.dtype != DType::bf16)
        return std::string("type ") + dtype_name(p.dtype) + "; accepted: float, float16 and bfloat16";
    if (p.rank && p.axis != p.rank - 1) return "axis " + std::to_string(p.axis) + " is not the last";
    return "";
}
inline std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaKernel>(p); }

extern const Entry<Problem> softmax_cuda;
const Entry<Problem> softmax_cuda{"softmax.cuda", refuse_cuda, make_cuda};

}  // namespace softmax
QUERN_END
