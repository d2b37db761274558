// Convolutions by cuDNN, where it is there: bias, residual and ReLU in its graph, other activations behind it. What its engines do not
// take under our rules, and what is too small for them, our own kernel computes.
#include <algorithm>
#include <optional>
#include <string>

#include <quern/kernels/conv/cuda.hpp>
#include <quern/kernels/conv/geometry.hpp>
#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/cuda/cudnn_graph.hpp>
#include <quern/kernels/elementwise/cuda.hpp>

QUERN_BEGIN
namespace conv {

extern const Entry<Problem> conv_cuda, conv_cudnn;

#if defined(QUERN_HAVE_CUDNN_HEADER)
/// Multiply-adds below which f32 without TF32 stays with our own kernel: measured on an H200, ours is the faster one at 0.12e9 and the
/// slower one at 3.7e9 (bench/results).
constexpr double kFewProducts = 1e9;

/// What a shape runs as: a plan, then a program over what it gave; or our own kernel.
struct DnnState {
    std::optional<cuda::DnnPlan> plan;
    ew::Program finish;      ///< on y, residual and bias, in place; no steps: nothing is left to do
    bool bias = false, residual = false;  ///< what `finish` adds
    std::int64_t dims[3] = {};            ///< of y for `finish`, innermost first: pixels, channels, images
    Booking own;
};

/// Adds what the plan left out and applies the activation; the bits of functions are those of the element-wise family.
inline ew::Program finishing(const Problem& p, bool residual, bool bias, bool activation) {
    ew::Program f;
    if (!residual && !bias && (!activation || p.post == vec::Post::none)) return f;
    std::uint8_t operand = 0;
    f.add({.code = ew::Code::load, .operand = operand++});
    for (bool there : {residual, bias})
        if (there) f.add({.code = ew::Code::binary, .function = static_cast<std::uint8_t>(ew::BinaryOp::add), .operand = operand++});
    f.inputs = operand;
    if (!activation) return f;
    auto unary = [&](ew::UnaryOp u, float alpha = 0, float beta = 0) { f.add({.code = ew::Code::unary, .function = static_cast<std::uint8_t>(u), .alpha = alpha, .beta = beta}); };
    auto bound = [&](ew::BinaryOp o, float limit) { f.add({.code = ew::Code::binary, .function = static_cast<std::uint8_t>(o), .operand = ew::constant_operand, .alpha = limit}); };
    switch (p.post) {
        case vec::Post::none: break;
        case vec::Post::relu: unary(ew::UnaryOp::relu); break;
        case vec::Post::clip: bound(ew::BinaryOp::max, p.post_alpha), bound(ew::BinaryOp::min, p.post_beta); break;
        case vec::Post::leaky_relu: unary(ew::UnaryOp::leaky_relu, p.post_alpha); break;
        case vec::Post::gelu: unary(ew::UnaryOp::gelu); break;
        case vec::Post::gelu_tanh: unary(ew::UnaryOp::gelu_tanh); break;
        case vec::Post::silu: unary(ew::UnaryOp::swish, p.post_alpha == 0 ? 1.0f : p.post_alpha); break;
        case vec::Post::sigmoid: unary(ew::UnaryOp::sigmoid); break;
        case vec::Post::tanh: unary(ew::UnaryOp::tanh); break;
        case vec::Post::hard_swish: unary(ew::UnaryOp::hard_swish); break;
        case vec::Post::hard_sigmoid: unary(ew::UnaryOp::hard_sigmoid, p.post_alpha, p.post_beta); break;
    }
    return f;
}

class DnnKernel final : public Kernel {
public:
    DnnKernel(const Problem& p, const Target& t) : p_(p), tf32_(t.tf32), winograd_(t.winograd), log_(t.log), own_(conv_cuda.make(p, t)) {
        p_.w = Tensor();
    }
    const char* name() const noexcept override { return "conv.cudnn"; }
    std::span<const Tensor> device_weights() const noexcept override { return own_->device_weights(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto s = std::make_shared<DnnState>();
        Booking b;
        const Geometry g = conv::resolve(p_, in, out[0]);
        const bool bias = in.size() > 2 && in[2].present();
        if (worth(g)) find(g, bias, *s);
        s->own = own_->book(in, out, workers);
        b.scratch = s->own.scratch;
        if (s->plan) b.scratch = std::max(b.scratch, static_cast<std::size_t>(s->plan->workspace));
        b.state = std::move(s);
        return b;
    }
    void run(const Call& c) const override {
        // The state belongs to this session's shape, which one thread runs at a time.
        auto& s = *const_cast<DnnState*>(static_cast<const DnnState*>(c.state));
        if (s.plan && aligned(c)) {
            std::string why = run_plan(c, s);
            if (why.empty()) return;
            if (log_) log_(LogLevel::warning, "conv.cudnn: " + why + "; conv.cuda computes this shape");
            s.plan.reset();
        }
        Call own = c;
        own.state = s.own.state.get();
        own_->run(own);
    }

private:
    static constexpr std::uintptr_t kAlignment = 16;
    static bool aligned(const Call& c) {
        auto bits = reinterpret_cast<std::uintptr_t>(c.out[0].data);
        for (const View& v : c.in) bits |= v.present() ? reinterpret_cast<std::uintptr_t>(v.data) : 0;
        return bits % kAlignment == 0;
    }
    /// Why the plan could not be run; empty: it was enqueued.
    std::string run_plan(const Call& c, const DnnState& s) const {
        const auto stream = static_cast<cudaStream_t>(c.stream);
        const void* bias = c.in.size() > 2 && c.in[2].present() ? c.in[2].data : nullptr;
        const void* residual = p_.has_residual ? c.in[3].data : nullptr;
        std::int64_t uids[5] = {cuda::DnnPlan::x, cuda::DnnPlan::w, cuda::DnnPlan::y};
        void* data[5] = {const_cast<void*>(c.in[0].data), const_cast<void*>(c.in[1].data), c.out[0].data};
        std::size_t n = 3;
        if (bias && !s.bias) uids[n] = cuda::DnnPlan::bias, data[n++] = const_cast<void*>(bias);
        if (residual && !s.residual) uids[n] = cuda::DnnPlan::residual, data[n++] = const_cast<void*>(residual);
        const cuda::Cudnn& dnn = cuda::cudnn();
        {
            cuda::Cudnn::Handle& h = dnn.handle();
            std::lock_guard<std::mutex> l(h.lock);
            if (dnn.SetStream(h.handle, stream) != CUDNN_STATUS_SUCCESS) return "cudnnSetStream failed: " + dnn.last_error();
            if (std::string why = cuda::execute(dnn, h.handle, *s.plan, std::span(uids, n), std::span<void* const>(data, n), c.scratch); !why.empty()) return why;
        }
        if (!s.finish.steps) return {};
        ew::ProgramOperand operands[3];
        operands[0] = {c.out[0].data, p_.dtype, {1, s.dims[0], s.dims[0] * s.dims[1]}};
        int k = 1;
        if (s.residual) operands[k++] = {residual, p_.dtype, {1, s.dims[0], s.dims[0] * s.dims[1]}};
        if (s.bias) operands[k++] = {bias, p_.dtype, {0, 1, 0}};
        cuda::check(ew::cuda_run_program(s.finish, operands, c.out[0].data, p_.dtype, 3, s.dims, stream), name());
        return {};
    }
    bool worth(const Geometry& g) const {
        const double products = static_cast<double>(g.images) * static_cast<double>(g.s.out_channels) * static_cast<double>(g.s.pixels_out()) * static_cast<double>(g.k());
        if (products == 0) return false;
        if (p_.dtype != DType::f32 || tf32_) return true;
        return products >= kFewProducts && !(g.s.channels == 1 && g.group > 1);
    }
    cuda::DnnConv described(const Geometry& g) const {
        cuda::DnnConv c;
        c.type = p_.dtype == DType::f16 ? CUDNN_DATA_HALF : p_.dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
        c.x = {g.images, g.s.in_channels}, c.w = {g.s.out_channels, g.s.channels}, c.y = {g.images, g.s.out_channels};
        for (int d = p_.window.spatial() == 3 ? 0 : 1; d < 3; ++d) {
            c.x.push_back(g.s.in[d]), c.w.push_back(g.s.kernel[d]), c.y.push_back(g.s.out[d]);
            c.before.push_back(g.s.pad[d]), c.stride.push_back(g.s.stride[d]), c.dilation.push_back(g.s.dilation[d]);
            c.after.push_back(std::max<std::int64_t>(0, (g.s.out[d] - 1) * g.s.stride[d] + (g.s.kernel[d] - 1) * g.s.dilation[d] + 1 - g.s.in[d] - g.s.pad[d]));
        }
        return c;
    }
    /// With all that follows in the graph, then without: that is one more pass over the result.
    void find(const Geometry& g, bool bias, DnnState& s) const {
        const cuda::Cudnn& dnn = cuda::cudnn();
        const cuda::DnnRules rules{tf32_, winograd_ && p_.dtype == DType::f32};
        cuda::DnnConv c = described(g);
        const bool relu = p_.post == vec::Post::relu, more = bias || p_.has_residual || relu;
        std::string why;
        cuda::Cudnn::Handle& h = dnn.handle();
        std::lock_guard<std::mutex> l(h.lock);
        cudnnHandle_t handle = h.handle;
        if (!handle) {
            if (log_) log_(LogLevel::warning, "conv.cudnn: cudnnCreate failed: " + dnn.last_error() + "; conv.cuda computes this shape");
            return;
        }
        if (more) {
            c.bias = bias, c.residual = p_.has_residual, c.relu = relu;
            s.plan = cuda::plan_convolution(dnn, handle, nullptr, c, rules, why);
            if (s.plan) s.finish = finishing(p_, false, false, !relu);
        }
        if (!s.plan) {
            c.bias = c.residual = c.relu = false;
            s.plan = cuda::plan_convolution(dnn, handle, nullptr, c, rules, why);
            s.bias = bias, s.residual = p_.has_residual;
            s.finish = finishing(p_, s.residual, bias, true);
        }
        s.dims[0] = g.s.pixels_out(), s.dims[1] = g.s.out_channels, s.dims[2] = g.images;
    }
    Problem p_;
    bool tf32_, winograd_;
    LogCallback log_;
    std::unique_ptr<Kernel> own_;
};

static std::string refuse_dnn(const Problem& p, const Target& t) {
    if (!cuda::cudnn().refusal.empty()) return cuda::cudnn().refusal;
    if (p.transposed) return "transposed convolutions";
    return conv_cuda.refuse(p, t);
}
static std::unique_ptr<Kernel> make_dnn(const Problem& p, const Target& t) { return std::make_unique<DnnKernel>(p, t); }
#else
static std::string refuse_dnn(const Problem&, const Target&) { return "built without the headers of cuDNN 9"; }
static std::unique_ptr<Kernel> make_dnn(const Problem&, const Target&) { return nullptr; }
#endif

const Entry<Problem> conv_cudnn{"conv.cudnn", refuse_dnn, make_dnn};

}  // namespace conv
QUERN_END
