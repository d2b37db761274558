// LSTM, GRU and RNN as a kernel of the plan.
#include <string>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/rnn/cuda.hpp>
#include <quern/kernels/rnn/rnn.hpp>

QUERN_BEGIN
namespace rnn {

class CudaKernel final : public Kernel {
public:
    explicit CudaKernel(const Problem& p) : p_(p) { p_.w = p_.r = Tensor(); }
    const char* name() const noexcept override { return "rnn.cuda"; }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        Booking b;
        b.scratch = cuda_rnn_scratch(sizes(in));
        return b;
    }
    void run(const Call& c) const override {
        CudaRnn l = sizes(c.in);
        const auto in = [&](std::size_t i) { return i < c.in.size() && c.in[i].present() ? c.in[i].in<float>() : nullptr; };
        const auto out = [&](std::size_t o) { return o < c.out.size() && c.out[o].present() ? c.out[o].out<float>() : nullptr; };
        l.x = in(0), l.w = in(1), l.r = in(2), l.b = in(3), l.h0 = in(5), l.c0 = in(6);
        l.y = out(0), l.y_h = out(1), l.y_c = out(2);
        if (l.seq == 0 && l.batch * l.hidden > 0) raise(ErrorCode::unsupported, "a sequence of no steps on the device");
        cuda::check(cuda_rnn(l, c.scratch, static_cast<cudaStream_t>(c.stream)), name());
    }

private:
    CudaRnn sizes(std::span<const View> in) const {
        CudaRnn l;
        l.cell = p_.cell == Cell::lstm ? CudaCell::lstm : p_.cell == Cell::rnn ? CudaCell::rnn : p_.linear_before_reset ? CudaCell::gru_linear : CudaCell::gru;
        l.seq = in[0].dims[0], l.batch = in[0].dims[1], l.in = in[0].dims[2];
        l.hidden = p_.hidden, l.directions = p_.directions, l.reverse = p_.reverse;
        return l;
    }
    Problem p_;
};

static std::string refuse_cuda(const Problem& p, const Target&) {
    if (p.dtype != DType::f32) return std::string("type ") + dtype_name(p.dtype) + "; float is accepted";
    if (p.batch_first) return "the batch first";
    if (p.input_forget || p.clip != 0) return "clipping or coupled gates";
    const std::size_t each = p.cell == Cell::lstm ? 3 : p.cell == Cell::gru ? 2 : 1;
    for (std::size_t i = 0; i < p.activations.size(); ++i)
        if (p.activations[i].kind != (i % each == 0 && each > 1 ? Activation::sigmoid : Activation::tanh)) return "other activations than the default ones";
    return {};
}
static std::unique_ptr<Kernel> make_cuda(const Problem& p, const Target&) { return std::make_unique<CudaKernel>(p); }

extern const Entry<Problem> rnn_cuda;
const Entry<Problem> rnn_cuda{"rnn.cuda", refuse_cuda, make_cuda};

}  // namespace rnn
QUERN_END
