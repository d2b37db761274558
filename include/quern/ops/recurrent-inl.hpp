// LinearAttention, CausalConvWithState, SwiGLU: https://onnx.ai/onnx/operators/onnx__LinearAttention.html
#pragma once
#include <quern/kernels/attention/recurrent.hpp>

#include "window.hpp"

QUERN_BEGIN
namespace ops_recurrent {

inline constexpr auto floats = {DType::f32, DType::f16, DType::bf16};

using ops_window::expect;
inline Dim per_head(const InferCtx& ctx, const Dim& hidden, std::int64_t heads, const char* what) {
    if (hidden.is_const() && hidden.value() % heads != 0)
        ctx.fail(std::string(what) + " has " + hidden.to_string() + " values, which its " + std::to_string(heads) + " heads must divide");
    return floor_div(hidden, Dim(heads));
}

inline void infer_linear(InferCtx& ctx) {
    ctx.need_type(0, floats);
    for (int i : {1, 2, 4, 5})
        if (i < 3 || ctx.has(i)) ctx.need_same_type(0, i);
    DType t = ctx.in(0).dtype, s = ctx.has(3) ? ctx.in(3).dtype : t;
    if (ctx.has(3)) ctx.need_type(3, floats);
    std::int64_t hq = ctx.attrs.i("q_num_heads", 0), hk = ctx.attrs.i("kv_num_heads", 0);
    if (hq < 1 || hk < 1 || hq % hk != 0)
        raise(ErrorCode::invalid_model, "q_num_heads is " + std::to_string(hq) + " and kv_num_heads " + std::to_string(hk) + "; the first must be a positive multiple of the second");
    std::string rule = ctx.attrs.s("update_rule", "gated_delta");
    if (rule != "linear" && rule != "gated" && rule != "delta" && rule != "gated_delta")
        raise(ErrorCode::invalid_model, "update_rule is '" + rule + "'; accepted are linear, gated, delta, gated_delta");
    bool gated = rule == "gated" || rule == "gated_delta", delta = rule == "delta" || rule == "gated_delta";
    if (gated != ctx.has(4)) ctx.fail("update_rule '" + rule + (gated ? "' needs the input decay" : "' has no input decay"));
    if (delta != ctx.has(5)) ctx.fail("update_rule '" + rule + (delta ? "' needs the input beta" : "' has no input beta"));
    if (!ctx.ranked(0) || !ctx.ranked(1) || !ctx.ranked(2)) {
        ctx.set_unranked(0, t);
        ctx.set_unranked(1, s);
        return;
    }
    for (int i : {0, 1, 2}) ctx.need_rank(i, 3, 3);
    const std::vector<Dim>& q = ctx.in(0).dims;
    Dim dk = per_head(ctx, q[2], hq, "query"), dv = per_head(ctx, ctx.in(2).dims[2], hk, "value");
    expect(ctx, 1, {q[0], q[1], Dim(hk) * dk}, "dimensions of key");
    expect(ctx, 2, {q[0], q[1], Dim(hk) * dv}, "dimensions of value");
    expect(ctx, 3, {q[0], Dim(hk), dk, dv}, "dimensions of past_state");
    for (int i : {4, 5}) {
        if (!ctx.has(i) || !ctx.ranked(i)) continue;
        Dim last = ctx.in(i).dims.empty() ? Dim(0) : ctx.in(i).dims.back();
        if (!last.is(hk)) expect(ctx, i, {q[0], q[1], i == 4 ? Dim(hk) * dk : Dim(1)}, i == 4 ? "dimensions of decay" : "dimensions of beta");
        else expect(ctx, i, {q[0], q[1], last}, i == 4 ? "dimensions of decay" : "dimensions of beta");
    }
    ctx.set(0, t, {q[0], q[1], Dim(hq) * dv});
    ctx.set(1, s, {q[0], Dim(hk), dk, dv});
}
inline Lowered lower_linear(const LowerCtx& ctx) {
    return Lowered(std::make_unique<attention::LinearKernel>(ctx.attrs.i("q_num_heads", 1), ctx.attrs.i("kv_num_heads", 1), ctx.attrs.f("scale", 0), vec::table(ctx.target.isa)));
}

inline void infer_causal(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, floats);
    for (int i = 1; i < ctx.n_in(); ++i)
        if (ctx.has(i)) ctx.need_same_type(0, i);
    std::string f = ctx.attrs.s("activation", "none");
    if (f != "none" && f != "silu" && f != "swish") raise(ErrorCode::invalid_model, "activation is '" + f + "'; accepted are none, silu, swish");
    if (!ctx.ranked(0) || !ctx.ranked(1)) {
        ctx.set_unranked(0, t);
        ctx.set_unranked(1, t);
        return;
    }
    ctx.need_rank(0, 3, 3);
    ctx.need_rank(1, 3, 3);
    const std::vector<Dim>& x = ctx.in(0).dims;
    Dim k = ctx.in(1).dims[2];
    if (compare(k, Dim(1)) == -1) ctx.fail("the kernel has no elements; at least one is needed");
    expect(ctx, 1, {x[1], Dim(1), k}, "dimensions of weight");
    expect(ctx, 2, {x[1]}, "dimensions of bias");
    expect(ctx, 3, {x[0], x[1], k - Dim(1)}, "dimensions of past_state");
    ctx.set(0, t, x);
    ctx.set(1, t, {x[0], x[1], k - Dim(1)});
}
inline Lowered lower_causal(const LowerCtx& ctx) {
    return Lowered(std::make_unique<attention::CausalConvKernel>(ctx.attrs.s("activation", "none") != "none", vec::table(ctx.target.isa)));
}

inline void infer_swiglu(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16});
    ctx.need_same_type(0, 1);
    if (!ctx.ranked(0)) return ctx.set_unranked(0, t);
    expect(ctx, 1, ctx.in(0).dims, "dimensions of A and B");
    ctx.set(0, t, ctx.in(0).dims);
}
inline Lowered lower_swiglu(const LowerCtx& ctx) {
    return Lowered(std::make_unique<attention::SwigluKernel>(ctx.in(0).dtype, ctx.attrs.f("alpha", 1), vec::table(ctx.target.isa)));
}

}  // namespace ops_recurrent

QUERN_INLINE const OpDef& op_LinearAttention() {
    static constexpr OpDef def{.name = "LinearAttention", .min_in = 3, .max_in = 6, .max_out = 2, .newest = 27, .infer = ops_recurrent::infer_linear,
                               .lower = ops_recurrent::lower_linear, .compute = Compute::f32};
    return def;
}
QUERN_INLINE const OpDef& op_CausalConvWithState() {
    static constexpr OpDef def{.name = "CausalConvWithState", .min_in = 2, .max_in = 4, .max_out = 2, .newest = 27, .infer = ops_recurrent::infer_causal,
                               .lower = ops_recurrent::lower_causal, .compute = Compute::f32};
    return def;
}
QUERN_INLINE const OpDef& op_SwiGLU() {
    static constexpr OpDef def{.name = "SwiGLU", .min_in = 2, .max_in = 2, .newest = 28, .infer = ops_recurrent::infer_swiglu,
                               .lower = ops_recurrent::lower_swiglu, .compute = Compute::real};
    return def;
}

QUERN_END
