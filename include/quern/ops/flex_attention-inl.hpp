// FlexAttention of ai.onnx.preview: attention whose scores and probabilities pass through subgraphs, which are made part of the graph.
#pragma once
#include <algorithm>
#include <cmath>

#include "op.hpp"

QUERN_BEGIN
namespace ops_flex_attention {

inline std::int64_t known(ImportCtx& ctx, std::size_t input, int dim) {
    const Fact& f = ctx.fact(input);
    if (!f.ranked || f.rank() != 4) ctx.fail(ErrorCode::shape_mismatch, "input " + std::to_string(input) + " is " + f.to_string() + "; rank 4 is accepted");
    if (!f.dims[static_cast<std::size_t>(dim)].is_const()) ctx.unsupported("dimension " + std::to_string(dim) + " of input " + std::to_string(input) + " is not known when loading");
    return f.dims[static_cast<std::size_t>(dim)].value();
}
inline ValueId cast(ImportCtx& ctx, ValueId v, DType to) {
    if (ctx.graph.fact(v).dtype == to) return v;
    Attrs a;
    a.set("to", static_cast<std::int64_t>(to));
    return ctx.add("Cast", {v}, std::move(a))[0];
}
/// The nodes of `sub` on x; its captured values are `captured`.
inline ValueId apply(ImportCtx& ctx, const Graph& sub, ValueId x, const std::vector<ValueId>& captured) {
    if (sub.inputs.size() != 1 + captured.size() || sub.outputs.size() != 1) ctx.invalid("a modifier subgraph must have one input and one output");
    std::vector<ValueId> map(sub.values.size(), no_value);
    map[static_cast<std::size_t>(sub.inputs[0])] = x;
    for (std::size_t i = 0; i < captured.size(); ++i) map[static_cast<std::size_t>(sub.inputs[i + 1])] = captured[i];
    auto here = [&](ValueId v) {
        if (v == no_value) return no_value;
        ValueId& m = map[static_cast<std::size_t>(v)];
        if (m == no_value && sub.fact(v).is_const()) m = ctx.constant(sub.fact(v).value);
        return m;
    };
    for (NodeId id : sub.order()) {
        const Node& n = sub.nodes[static_cast<std::size_t>(id)];
        std::vector<ValueId> in;
        for (ValueId v : n.in) in.push_back(here(v));
        std::vector<ValueId> out = ctx.add(*n.op->domain ? std::string(n.op->domain) + "::" + n.op->name : n.op->name, std::move(in), n.attrs, static_cast<int>(n.out.size()));
        for (std::size_t o = 0; o < out.size(); ++o)
            if (n.out[o] != no_value) map[static_cast<std::size_t>(n.out[o])] = out[o];
    }
    return here(sub.outputs[0]);
}
inline void import(ImportCtx& ctx) {
    if (!ctx.has(0) || !ctx.has(1) || !ctx.has(2)) ctx.invalid("Q, K and V are needed");
    auto score_mod = ctx.attrs.graph("score_mod"), prob_mod = ctx.attrs.graph("prob_mod");
    DType t = ctx.fact(0).dtype;
    if (!is_float(t)) ctx.invalid(std::string("Q is ") + dtype_name(t) + "; floating-point types are accepted");
    std::int64_t size = known(ctx, 0, 3);
    float scale = ctx.attrs.f("scale", 1.f / std::sqrt(static_cast<float>(std::max<std::int64_t>(1, size))));
    if (!score_mod && !prob_mod) {
        Attrs a;
        a.set("scale", scale);
        return ctx.finish("Attention", {ctx.in[0], ctx.in[1], ctx.in[2]}, std::move(a));
    }
    auto type = static_cast<DType>(ctx.attrs.i("softmax_precision", static_cast<std::int64_t>(t == DType::f64 ? DType::f64 : DType::f32)));
    if (type != DType::f32 && type != DType::f64 && type != DType::f16 && type != DType::bf16)
        ctx.invalid("softmax_precision is " + std::to_string(static_cast<int>(type)) + "; accepted are 1, 10, 11 and 16");
    std::int64_t hq = known(ctx, 0, 1), hk = known(ctx, 1, 1);
    if (hk < 1 || hq % hk != 0) ctx.fail(ErrorCode::shape_mismatch, std::to_string(hq) + " heads of Q are not a multiple of " + std::to_string(hk) + " heads of K");
    // Query heads that share a key head become rows of one product.
    auto heads = [&](ValueId v, std::int64_t h) { return hq == hk ? v : ctx.add("Reshape", {v, ctx.constant_ints({0, h, -1, 0})})[0]; };
    Tensor factor(DType::f32, Shape{});
    factor.data<float>()[0] = scale;
    ValueId q = ctx.add("Mul", {cast(ctx, ctx.in[0], type), cast(ctx, ctx.constant(factor), type)})[0];
    Attrs perm;
    perm.set("perm", std::vector<std::int64_t>{0, 1, 3, 2});
    ValueId k = ctx.add("Transpose", {cast(ctx, ctx.in[1], type)}, std::move(perm))[0];
    ValueId x = heads(ctx.add("MatMul", {heads(q, hk), k})[0], hq);
    std::vector<ValueId> captured(ctx.in.begin() + 3, ctx.in.end());  // the same for both subgraphs
    if (score_mod) x = apply(ctx, *score_mod, x, captured);
    Attrs last;
    last.set("axis", std::int64_t{-1});
    x = ctx.add("Softmax", {x}, std::move(last))[0];
    if (prob_mod) x = apply(ctx, *prob_mod, x, captured);
    ValueId y = heads(ctx.add("MatMul", {heads(x, hk), cast(ctx, ctx.in[2], type)})[0], hq);
    Attrs back;
    back.set("to", static_cast<std::int64_t>(t));
    ctx.finish("Cast", {y}, std::move(back));
}

}  // namespace ops_flex_attention

QUERN_INLINE const OpDef& op_ai_onnx_preview_FlexAttention() {
    static constexpr OpDef def{.domain = "ai.onnx.preview", .name = "FlexAttention", .min_in = 3, .newest = 1, .import = ops_flex_attention::import};
    return def;
}

QUERN_END
