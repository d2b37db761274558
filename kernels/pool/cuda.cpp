// Pooling windows as kernels of the plan.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/pool/cuda.hpp>
#include <quern/kernels/pool/pool.hpp>

QUERN_BEGIN
namespace pool {

class CudaKernel final : public Kernel {
public:
    explicit CudaKernel(const Problem& p) : p_(p) {}
    const char* name() const noexcept override { return "pool.cuda"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        const conv::Window& w = p_.window;
        CudaWindows a;
        a.channels_last = p_.layout == conv::Layout::nhwc;
        a.images = x.dims[0];
        a.channels = x.dim(a.channels_last ? -1 : 1);
        const int first = a.channels_last ? 1 : 2, n = w.spatial();
        for (int d = 0; d < 3; ++d) {
            const int from = d - (3 - n);
            if (from < 0) {
                a.in[d] = a.out[d] = a.kernel[d] = a.stride[d] = a.dilation[d] = 1;
                a.pad[d] = a.pad_end[d] = 0;
                continue;
            }
            a.in[d] = x.dims[first + from], a.out[d] = y.dims[first + from];
            a.kernel[d] = w.kernel[from], a.stride[d] = w.strides[from], a.dilation[d] = w.dilations[from];
            a.pad[d] = w.pad_begin(from, a.in[d]);
            a.pad_end[d] = 0;
            if (w.auto_pad == conv::AutoPad::notset) a.pad_end[d] = w.pads[from + n];
            else if (w.auto_pad != conv::AutoPad::valid)
                a.pad_end[d] = std::max<std::int64_t>(0, (a.out[d] - 1) * a.stride[d] + (a.kernel[d] - 1) * a.dilation[d] + 1 - a.in[d] - a.pad[d]);
        }
        a.max = p_.op == Op::max;
        a.count_padding = p_.count_padding;
        a.x = x.in<float>();
        a.y = y.out<float>();
        cuda::check(cuda_pool(a, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    Problem p_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype != DType::f32) return std::string("type ") + dtype_name(p.dtype) + "; float is accepted";
    if (p.op == Op::lp) return "the p-norm; maximum and average are accepted";
    if (p.indices) return "the indices of the maximum";
    if (p.window.spatial() > 3) return std::to_string(p.window.spatial()) + " spatial dimensions; up to 3 are accepted";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaKernel>(p); }

extern const Entry<Problem> pool_cuda;
const Entry<Problem> pool_cuda{"pool.cuda", refuse_cuda, make_cuda};

}  // namespace pool
QUERN_END
