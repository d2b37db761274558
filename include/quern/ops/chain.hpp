// quern::FusedDepthwise, which the chain pass makes: a depthwise convolution with the pointwise ones before and after it.
#pragma once
#include <quern/kernels/conv/chain.hpp>

#include "fused.hpp"
#include "window.hpp"

QUERN_BEGIN
namespace ops_chain {

/// FusedDepthwise(X, expand W?, expand B?, W, B?, project W?, project B?, residual?; Conv's attributes of the depthwise convolution,
/// activation, expand_activation, project_activation and their params): Y, means?; the contract of conv::ChainProblem.
inline conv::ChainProblem problem(const LowerCtx& ctx) {
    conv::ChainProblem p;
    auto stage = [&](int input, const char* prefix) {
        conv::ChainProblem::Stage s;
        s.w = ctx.constant(input);
        s.has_bias = ctx.has(input + 1);
        ops_fused::Activation a = ops_fused::activation(ctx.attrs, prefix);
        s.post = a.post, s.alpha = a.alpha, s.beta = a.beta;
        return s;
    };
    p.expand = stage(1, "expand_");
    p.depthwise = stage(3, "");
    p.project = stage(5, "project_");
    p.window = ops_window::of_weights(ctx.attrs, ctx.in(3));
    p.has_residual = ctx.has(7);
    p.pooled = ctx.outputs.size() > 1 && ctx.outputs[1];
    return p;
}
inline void infer(InferCtx& ctx) {
    for (const char* prefix : {"", "expand_", "project_"}) ops_fused::activation(ctx.attrs, prefix);
    ctx.need_type(0, {DType::f32});
    if (!ctx.ranked(0)) {
        ctx.set_unranked(1, DType::f32);
        return ctx.set_unranked(0, DType::f32);
    }
    ctx.need_rank(0, 4, 4);
    ctx.need_rank(3, 4, 4);
    conv::Window w = ops_window::of_weights(ctx.attrs, ctx.in(3));
    const auto& x = ctx.in(0).dims;
    Dim channels = ctx.in(3).dims[0];
    if (ctx.has(1)) ops_window::same(ctx, x[3], ctx.in(1).dims[1], "channels of the input and of the first weights");
    ops_window::same(ctx, ctx.has(1) ? ctx.in(1).dims[0] : x[3], channels, "channels of the depthwise convolution");
    if (ctx.has(5)) ops_window::same(ctx, ctx.in(5).dims[1], channels, "channels of the last weights");
    ctx.set(1, DType::f32, {x[0], 1, 1, channels});
    ctx.set(0, DType::f32, {x[0], ops_window::outputs(w, 0, x[1], false), ops_window::outputs(w, 1, x[2], false), ctx.has(5) ? ctx.in(5).dims[0] : channels});
}
inline Lowered lower(const LowerCtx& ctx) {
    conv::ChainProblem p = problem(ctx);
    if (std::string why = conv::refuse_chain(p, ctx.target); !why.empty()) raise(ErrorCode::unsupported, why);
    return Lowered(std::make_unique<conv::ChainKernel>(p, ctx.target));
}

}  // namespace ops_chain
QUERN_END
