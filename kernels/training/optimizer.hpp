// One step of an optimizer: Adagrad, Adam, Momentum.
#pragma once
#include <cmath>
#include <cstdint>

#include "../kernel.hpp"
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace training {

/// Attributes of https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Adam.html and its neighbours.
struct Rule {
    enum class Kind : std::uint8_t { adagrad, adam, momentum } kind = Kind::adagrad;
    double norm = 0, norm_post = 0;  ///< weight of the L2 term before and after the step
    double epsilon = 0, decay = 0;   ///< adagrad: decay of the rate
    double alpha = 0, beta = 0;
    bool nesterov = false;
    int states() const noexcept { return kind == Kind::adam ? 2 : 1; }  ///< tensors kept for each parameter
};

/// Inputs: rate R, count T, then n parameters X, n gradients G and n of each state; outputs: n new X, n of each new state. Arithmetic is made in
/// double, element by element; the tensors are f32 or f64.
class Step final : public Kernel {
public:
    explicit Step(Rule r) : rule_(r) {}
    const char* name() const noexcept override { return "optimizer.portable"; }
    void run(const Call& call) const override {
        const std::size_t n = (call.in.size() - 2) / static_cast<std::size_t>(2 + rule_.states());
        if (call.in[0].count() != 1 || call.in[1].count() != 1) raise(ErrorCode::shape_mismatch, "the rate or the count of an optimizer is no single number");
        double rate = dispatch_real(call.in[0].dtype, [&](auto tag) { return static_cast<double>(*call.in[0].in<typename decltype(tag)::type>()); });
        const auto count = static_cast<double>(*call.in[1].in<std::int64_t>());
        double keep = rule_.beta;
        if (rule_.kind == Rule::Kind::adagrad) rate /= 1 + count * rule_.decay;
        if (rule_.kind == Rule::Kind::adam && count > 0) rate *= std::sqrt(1 - std::pow(rule_.beta, count)) / (1 - std::pow(rule_.alpha, count));
        if (rule_.kind == Rule::Kind::momentum && !(count > 0)) keep = 1;
        for (std::size_t i = 0; i < n; ++i)
            dispatch_real(call.in[2 + i].dtype, [&](auto tag) { step<typename decltype(tag)::type>(call, i, n, rate, keep); });
    }

private:
    template <class T>
    void step(const Call& call, std::size_t i, std::size_t n, double rate, double keep) const {
        const View none{};
        auto in = [&](std::size_t k) { return call.in[2 + k * n + i].template in<T>(); };
        auto out = [&](std::size_t k) { return k * n + i < call.out.size() ? call.out[k * n + i].template out<T>() : none.out<T>(); };
        const bool adam = rule_.kind == Rule::Kind::adam;
        const T *x = in(0), *g = in(1), *s0 = in(2), *s1 = adam ? in(3) : nullptr;
        T *y = out(0), *t0 = out(1), *t1 = adam ? out(2) : nullptr;
        auto put = [](T* to, std::int64_t at, double v) {
            if (to) to[at] = static_cast<T>(v);
        };
        call.workers.ranges(call.in[2 + i].count(), 4096, [&](std::int64_t b, std::int64_t e) {
            for (; b < e; ++b) {
                const auto xv = static_cast<double>(x[b]), gv = rule_.norm * xv + static_cast<double>(g[b]);
                if (rule_.kind == Rule::Kind::adagrad) {
                    const double h = static_cast<double>(s0[b]) + gv * gv;
                    put(t0, b, h);
                    put(y, b, xv - rate * gv / (std::sqrt(h) + rule_.epsilon));
                } else if (adam) {
                    const double v = rule_.alpha * static_cast<double>(s0[b]) + (1 - rule_.alpha) * gv, h = rule_.beta * static_cast<double>(s1[b]) + (1 - rule_.beta) * gv * gv;
                    put(t0, b, v);
                    put(t1, b, h);
                    put(y, b, (1 - rule_.norm_post) * (xv - rate * v / (std::sqrt(h) + rule_.epsilon)));
                } else {
                    const double v = rule_.alpha * static_cast<double>(s0[b]) + keep * gv;
                    put(t0, b, v);
                    put(y, b, xv - rate * (rule_.nesterov ? gv + rule_.alpha * v : v));
                }
            }
        });
    }
    Rule rule_;
};

}  // namespace training
QUERN_END
