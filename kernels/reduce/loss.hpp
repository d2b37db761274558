// Negative log likelihood.
#pragma once
#include <algorithm>
#include <optional>

#include <quern/kernels/elementwise/convert.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace reduce {

enum class LossReduction : std::uint8_t { none, sum, mean };

/// in: log probabilities [N, C, D...] (f32 or f64), classes [N, D...] (int32 or int64), optional weights [C]; out: the loss
/// of each, their sum, or their weighted mean: https://onnx.ai/onnx/operators/onnx__NegativeLogLikelihoodLoss.html.
/// Raises invalid_argument for a class outside [0, C) that is not `ignore`.
class LossKernel final : public Kernel {
public:
    LossKernel(LossReduction r, std::optional<std::int64_t> ignore) : reduction_(r), ignore_(ignore) {}
    const char* name() const noexcept override { return "reduce.loss"; }
    void run(const Call& c) const override {
        dispatch_real(c.in[0].dtype, [&](auto tag) { go<typename decltype(tag)::type>(c); });
    }

private:
    template <class T>
    void go(const Call& c) const {
        const View &x = c.in[0], &target = c.in[1];
        const View* w = c.in.size() > 2 && c.in[2].present() ? &c.in[2] : nullptr;
        const std::int64_t batch = x.dims[0], classes = x.dims[1], inner = x.count(2, x.rank);
        if (target.count() != batch * inner)
            raise(ErrorCode::shape_mismatch, "the targets have " + std::to_string(target.count()) + " elements; accepted: " + std::to_string(batch * inner));
        if (w && (w->dtype != x.dtype || w->count() != classes))
            raise(ErrorCode::shape_mismatch, "the weights have " + std::to_string(w->count()) + " elements; accepted: " + std::to_string(classes));
        double total = 0, weights = 0;
        for (std::int64_t n = 0; n < batch; ++n)
            for (std::int64_t i = 0; i < inner; ++i) {
                std::int64_t k = 0;
                ew::convert(target.dtype, target.in<std::byte>() + (n * inner + i) * dtype_bits(target.dtype) / 8, 0, DType::i64, &k, 0, 1);
                double weight = 0, loss = 0;
                if (!ignore_ || k != *ignore_) {
                    if (k < 0 || k >= classes)
                        raise(ErrorCode::invalid_argument, "class " + std::to_string(k) + " is outside [0, " + std::to_string(classes) + ")");
                    weight = w ? static_cast<double>(w->in<T>()[k]) : 1;
                    loss = -weight * static_cast<double>(x.in<T>()[(n * classes + k) * inner + i]);
                }
                if (reduction_ == LossReduction::none) c.out[0].out<T>()[n * inner + i] = static_cast<T>(loss);
                total += loss;
                weights += weight;
            }
        if (reduction_ == LossReduction::sum) *c.out[0].out<T>() = static_cast<T>(total);
        if (reduction_ == LossReduction::mean) *c.out[0].out<T>() = static_cast<T>(total / weights);
    }
    LossReduction reduction_;
    std::optional<std::int64_t> ignore_;
};

}  // namespace reduce
QUERN_END
