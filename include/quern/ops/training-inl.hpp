// ai.onnx.preview.training: Adagrad, Adam, Momentum (https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Adam.html and theirs).
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/training/optimizer.hpp>

QUERN_BEGIN
namespace ops_training {

inline constexpr const char* domain = "ai.onnx.preview.training";

inline training::Rule rule_of(const Node& n) {
    const Attrs& a = n.attrs;
    const std::string_view name = n.op->name;
    auto f = [&](const char* key, float otherwise) { return static_cast<double>(a.f(key, otherwise)); };
    training::Rule r;
    r.norm = f("norm_coefficient", 0);
    if (name == "Adagrad") {
        r.decay = f("decay_factor", 0);
        r.epsilon = f("epsilon", 1e-6f);
    } else if (name == "Adam") {
        r.kind = training::Rule::Kind::adam;
        r.alpha = f("alpha", 0.9f);
        r.beta = f("beta", 0.999f);
        r.epsilon = f("epsilon", 1e-6f);
        r.norm_post = f("norm_coefficient_post", 0);
    } else {
        r.kind = training::Rule::Kind::momentum;
        for (const char* needed : {"alpha", "beta", "norm_coefficient", "mode"})
            if (!a.has(needed)) raise(ErrorCode::invalid_model, std::string("the attribute '") + needed + "' is missing");
        r.alpha = f("alpha", 0);
        r.beta = f("beta", 0);
        const std::string mode = a.s("mode", "");
        if (mode != "standard" && mode != "nesterov") raise(ErrorCode::invalid_model, "mode '" + mode + "'; accepted: standard, nesterov");
        r.nesterov = mode == "nesterov";
    }
    return r;
}
QUERN_INLINE void infer(InferCtx& ctx) {
    const training::Rule r = rule_of(ctx.node);
    const int groups = 2 + r.states(), n = (ctx.n_in() - 2) / groups;
    if (n < 1 || (ctx.n_in() - 2) % groups)
        raise(ErrorCode::invalid_model, std::to_string(ctx.n_in()) + " inputs; accepted: 2 and " + std::to_string(groups) + " for each parameter");
    if (ctx.n_out() > n * (groups - 1)) raise(ErrorCode::invalid_model, std::to_string(ctx.n_out()) + " outputs; accepted: " + std::to_string(n * (groups - 1)));
    ctx.need_type(0, {DType::f32, DType::f64});
    ctx.need_type(1, {DType::i64});
    for (int scalar : {0, 1})
        if (ctx.ranked(scalar) && !ops_util::product(ctx.in(scalar).dims).is(1) && ops_util::product(ctx.in(scalar).dims).is_const())
            ctx.fail("input " + std::to_string(scalar) + " is " + ctx.in(scalar).to_string() + "; accepted: one number");
    for (int i = 0; i < n; ++i) {
        const Fact& x = ctx.in(2 + i);
        ctx.need_type(2 + i, {DType::f32, DType::f64});
        std::vector<Dim> dims = x.dims;
        bool ranked = x.ranked;
        for (int g = 1; g < groups; ++g) {
            const int k = 2 + g * n + i;
            ctx.need_same_type(2 + i, k);
            if (!ranked || !ctx.ranked(k)) { ranked = false; continue; }
            if (ctx.in(k).rank() != x.rank()) ctx.fail("inputs " + std::to_string(2 + i) + " and " + std::to_string(k) + " must have the same shape");
            for (std::size_t d = 0; d < dims.size(); ++d) dims[d] = ops_util::same_dim(ctx, dims[d], ctx.in(k).dims[d], "a parameter and its gradient or state");
        }
        for (int g = 0; g + 1 < groups; ++g)
            if (ranked) ctx.set(g * n + i, x.dtype, dims);
            else ctx.set_unranked(g * n + i, x.dtype);
    }
}
QUERN_INLINE Lowered lower(const LowerCtx& ctx) { return ops_util::kernel<training::Step>(rule_of(ctx.node)); }

}  // namespace ops_training

QUERN_INLINE const OpDef& op_ai_onnx_preview_training_Adagrad() {
    static constexpr OpDef def{.domain = ops_training::domain, .name = "Adagrad", .min_in = 5, .max_out = 1 << 20, .newest = 1, .infer = ops_training::infer, .lower = ops_training::lower};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_preview_training_Adam() {
    static constexpr OpDef def{.domain = ops_training::domain, .name = "Adam", .min_in = 6, .max_out = 1 << 20, .newest = 1, .infer = ops_training::infer, .lower = ops_training::lower};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_preview_training_Momentum() {
    static constexpr OpDef def{.domain = ops_training::domain, .name = "Momentum", .min_in = 5, .max_out = 1 << 20, .newest = 1, .infer = ops_training::infer, .lower = ops_training::lower};
    return def;
}
QUERN_END
