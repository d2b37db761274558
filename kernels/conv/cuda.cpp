// Convolutions as kernels of the plan.
#include <cstring>
#include <string>

#include <quern/kernels/conv/cuda.hpp>
#include <quern/kernels/conv/geometry.hpp>
#include <quern/kernels/conv_transpose/cuda.hpp>
#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/packs.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace conv {

/// Constant weights in the order of cuda_conv_row(); none where they are taken as they are.
static Tensor packed_taps(const Problem& p, const Target& t) {
    if (!p.w.defined() || p.w.shape()[0] == 0) return {};
    const std::int64_t m = p.w.shape()[0], channels = p.w.shape()[1], taps = channels ? p.w.shape().count() / (m * channels) : 0;
    const std::int64_t row = cuda_conv_row(p.dtype, channels, taps);
    const bool depthwise = channels == 1 && p.group > 1;
    if (depthwise || row == 0 || taps == 0 || (taps == 1 && row == channels)) return {};
    const std::size_t bytes = static_cast<std::size_t>(m * taps * row) * dtype_bits(p.dtype) / 8;
    return packed_weights(t, "conv.cuda.taps", {p.w}, bytes, [&](std::byte* to) {
        const Tensor w = p.w.aligned();
        std::memset(to, 0, bytes);
        dispatch_size(p.dtype, [&]<class U>(TypeTag<U>) {
            if constexpr (std::is_trivially_copyable_v<U>) {
                const U* from = static_cast<const U*>(w.raw());
                for (std::int64_t r = 0; r < m; ++r)
                    for (std::int64_t c = 0; c < channels; ++c)
                        for (std::int64_t q = 0; q < taps; ++q) reinterpret_cast<U*>(to)[(r * taps + q) * row + c] = *from++;
            }
        });
    });
}

class CudaKernel final : public Kernel {
public:
    CudaKernel(const Problem& p, const Target& t) : p_(p), precision_(t.tf32 ? matmul::Precision::tf32 : matmul::Precision::split) {
        packed_[0] = packed_taps(p, t);
        if (packed_[0].defined()) unread = 2;
        p_.w = Tensor();  // stays where the plan has it
        if (p.has_residual) inplace = 8;
    }
    const char* name() const noexcept override { return "conv.cuda"; }
    std::span<const Tensor> device_weights() const noexcept override { return std::span(packed_, packed_[0].defined() ? 1 : 0); }
    Booking book(std::span<const View> in, std::span<const View> out, int) const override {
        Booking b;
        b.scratch = cuda_conv_scratch(resolved(in, out[0]));
        return b;
    }
    void run(const Call& c) const override {
        CudaConv f = resolved(c.in, c.out[0]);
        f.x = c.in[0].data;
        f.w = c.in[1].data;
        if (!c.weights.empty()) f.packed = c.weights[0].data;
        if (c.in.size() > 2 && c.in[2].present()) f.bias = c.in[2].data;
        if (p_.has_residual) f.residual = c.in[3].data;
        f.y = c.out[0].data;
        cuda::check(cuda_conv(f, c.scratch, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    CudaConv resolved(std::span<const View> in, const View& y) const {
        const Geometry g = conv::resolve(p_, in, y);
        CudaConv f;
        f.shape = g.s;
        f.images = g.images;
        f.precision = precision_;
        f.group = g.group;
        f.type = p_.dtype;
        if (packed_[0].defined()) f.packed = packed_[0].raw();  // for the sizes; run() gives its place on the device
        f.post = p_.post, f.post_alpha = p_.post_alpha, f.post_beta = p_.post_beta;
        return f;
    }
    Problem p_;
    Tensor packed_[1];
    matmul::Precision precision_;
};

class CudaTransposedKernel final : public Kernel {
public:
    explicit CudaTransposedKernel(const Problem& p) : window_(p.window), group_(p.group) {}
    const char* name() const noexcept override { return "conv_transpose.cuda"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &w = c.in[1], &y = c.out[0];
        conv_transpose::CudaConvTranspose a;
        a.images = x.dims[0], a.group = group_, a.channels = x.dims[1] / group_, a.m = w.dims[1];
        const int n = window_.spatial();
        for (int d = 0; d < 3; ++d) {
            const int from = d - (3 - n);
            const bool there = from >= 0;
            a.in[d] = there ? x.dims[2 + from] : 1, a.out[d] = there ? y.dims[2 + from] : 1;
            a.kernel[d] = there ? window_.kernel[from] : 1, a.stride[d] = there ? window_.strides[from] : 1;
            a.dilation[d] = there ? window_.dilations[from] : 1, a.pad[d] = there ? window_.pads[from] : 0;
        }
        a.x = x.in<float>(), a.w = w.in<float>(), a.y = y.out<float>();
        if (c.in.size() > 2 && c.in[2].present()) a.bias = c.in[2].in<float>();
        cuda::check(conv_transpose::cuda_conv_transpose(a, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    Window window_;
    std::int64_t group_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (is_half(p.dtype)) {
        if (p.transposed) return std::string("type ") + dtype_name(p.dtype) + " transposed; float is accepted";
    } else if (p.dtype != DType::f32) {
        return std::string("type ") + dtype_name(p.dtype) + "; float, float16 and bfloat16 are accepted";
    }
    if (p.layout != Layout::nchw) return "channels last; channels first is accepted";
    if (p.window.spatial() > 3) return std::to_string(p.window.spatial()) + " spatial dimensions; up to 3 are accepted";
    if (p.group > 65535) return "more than 65535 groups";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target& t) {
    if (p.transposed) return std::make_unique<CudaTransposedKernel>(p);
    return std::make_unique<CudaKernel>(p, t);
}

extern const Entry<Problem> conv_cuda;
const Entry<Problem> conv_cuda{"conv.cuda", refuse_cuda, make_cuda};

}  // namespace conv
QUERN_END
