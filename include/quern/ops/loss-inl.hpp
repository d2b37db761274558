// NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss: https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html
#pragma once
#include <quern/kernels/reduce/loss.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_loss {

inline reduce::LossReduction reduction(const Attrs& a) {
    const std::string r = a.s("reduction", "mean");
    if (r == "none") return reduce::LossReduction::none;
    if (r == "sum") return reduce::LossReduction::sum;
    if (r != "mean") raise(ErrorCode::invalid_model, "reduction is '" + r + "'; accepted: none, sum, mean");
    return reduce::LossReduction::mean;
}
inline void infer(InferCtx& c) {
    using namespace ops_elementwise;
    need(c, 0, Types::real);
    c.need_type(1, {DType::i32, DType::i64});
    if (c.has(2)) c.need_same_type(0, 2);
    const bool scalar = reduction(c.attrs) != reduce::LossReduction::none;
    c.need_rank(0, 2);
    if (c.ranked(0) && c.ranked(1)) {
        c.need_rank(1, c.in(0).rank() - 1, c.in(0).rank() - 1);
        std::vector<Dim> d = c.in(0).dims;
        d.erase(d.begin() + 1);
        for (std::size_t i = 0; i < d.size(); ++i) {
            const Dim& t = c.in(1).dims[i];
            if (t.is_const() && d[i].is_const() && t.value() != d[i].value())
                c.fail("the targets are " + c.in(1).to_string() + " for scores " + c.in(0).to_string());
        }
        return c.set(0, c.in(0).dtype, scalar ? std::vector<Dim>() : d);
    }
    if (scalar) c.set(0, c.in(0).dtype, {});
    else if (c.ranked(1)) c.set(0, c.in(0).dtype, c.in(1).dims);
    else c.set_unranked(0, c.in(0).dtype);
}
inline Lowered lower(const LowerCtx& c) {
    std::optional<std::int64_t> ignore;
    if (c.attrs.has("ignore_index")) ignore = c.attrs.i("ignore_index", 0);
    return Lowered(std::make_unique<reduce::LossKernel>(reduction(c.attrs), ignore));
}
/// The loss of LogSoftmax over the classes.
inline void import_softmax(ImportCtx& c) {
    if (!c.has(0) || !c.has(1)) c.invalid("scores and labels are needed");
    Attrs axis;
    axis.set("axis", std::int64_t{1});
    std::vector<ValueId> in = c.in;
    in[0] = c.add("LogSoftmax", {c.in[0]}, std::move(axis))[0];
    c.alias(0, c.add("NegativeLogLikelihoodLoss", in, c.attrs)[0]);
    if (c.n_out > 1) c.alias(1, in[0]);
}

}  // namespace ops_loss

QUERN_INLINE const OpDef& op_NegativeLogLikelihoodLoss() {
    static constexpr OpDef def{.name = "NegativeLogLikelihoodLoss", .min_in = 2, .max_in = 3, .newest = 22, .infer = ops_loss::infer,
                               .lower = ops_loss::lower, .compute = Compute::real, .promote_in = 5};
    return def;
}
QUERN_INLINE const OpDef& op_SoftmaxCrossEntropyLoss() {
    static constexpr OpDef def{.name = "SoftmaxCrossEntropyLoss", .min_in = 2, .max_in = 3, .max_out = 2, .newest = 13,
                               .import = ops_loss::import_softmax};
    return def;
}
QUERN_END
