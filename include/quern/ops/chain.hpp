// quern::FusedDepthwise, which the chain pass makes: a depthwise convolution with the pointwise ones before and after it.
#pragma once
#include <quern/kernels/conv/chain.hpp>

#include "fused.hpp"
#include "window.hpp"

QUERN_BEGIN
namespace ops_chain {

/// FusedDepthwise(X, expand W?, expand B?, W, B?, project W?, project B?, residual?, more of X...; Conv's attributes of the depthwise
/// convolution, activation, expand_activation, project_activation and their params): Y, means?; the contract of conv::ChainProblem.
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
    if ((ctx.has(1) && !p.expand.w.defined()) || (ctx.has(5) && !p.project.w.defined())) raise(ErrorCode::unsupported, "weights of pointwise convolutions are not constant");
    p.window = ops_window::of_weights(ctx.attrs, ctx.in(3));
    p.has_residual = ctx.has(7);
    p.pooled = ctx.outputs.size() > 1 && ctx.outputs[1];
    return p;
}
inline void infer(InferCtx& ctx) {
    for (const char* prefix : {"", "expand_", "project_"}) ops_fused::activation(ctx.attrs, prefix);
    for (int i = 0; i < ctx.n_in(); ++i)
        if (ctx.has(i)) ctx.need_type(i, {DType::f32});
    if (!ctx.ranked(0)) {
        ctx.set_unranked(1, DType::f32);
        return ctx.set_unranked(0, DType::f32);
    }
    ctx.need_rank(0, 4, 4);
    for (int i : {1, 3, 5})
        if (ctx.has(i) && !ctx.ranked(i)) ctx.unsupported("weights whose shape is not known");
    ctx.need_rank(3, 4, 4);
    conv::Window w = ops_window::of_weights(ctx.attrs, ctx.in(3));
    const auto& x = ctx.in(0).dims;
    Dim channels = ctx.in(3).dims[0], read = x[3];
    for (int i = static_cast<int>(conv::ChainProblem::first_part); i < ctx.n_in(); ++i) {
        if (!ctx.has(1)) ctx.unsupported("X in parts without a first convolution");
        if (!ctx.has(i) || !ctx.ranked(i)) ctx.unsupported("a part of X that is absent or whose shape is not known");
        ctx.need_rank(i, 4, 4);
        ops_window::expect(ctx, i, {x[0], x[1], x[2], ctx.in(i).dims[3]}, "the parts of X");
        read += ctx.in(i).dims[3];
    }
    ops_window::expect(ctx, 1, {channels, read, 1, 1}, "dimensions of the first weights");
    ops_window::expect(ctx, 2, {channels}, "length of the first bias");
    if (!ctx.has(1)) ops_window::same(ctx, x[3], channels, "channels of the depthwise convolution");
    ops_window::same(ctx, ctx.in(3).dims[1], 1, "channels of each depthwise filter");
    ops_window::expect(ctx, 4, {channels}, "length of the depthwise bias");
    if (ctx.has(5)) ctx.need_rank(5, 4, 4);
    const Dim last = ctx.has(5) ? ctx.in(5).dims[0] : channels;
    ops_window::expect(ctx, 5, {last, channels, 1, 1}, "dimensions of the last weights");
    ops_window::expect(ctx, 6, {last}, "length of the last bias");
    std::vector<Dim> y{x[0], ops_window::outputs(w, 0, x[1], false), ops_window::outputs(w, 1, x[2], false), last};
    ops_window::expect(ctx, 7, y, "the residual and the result");
    ctx.set(1, DType::f32, {x[0], 1, 1, channels});
    ctx.set(0, DType::f32, std::move(y));
}
inline Lowered lower(const LowerCtx& ctx) {
    conv::ChainProblem p = problem(ctx);
    if (std::string why = conv::refuse_chain(p, ctx.target); !why.empty()) raise(ErrorCode::unsupported, why);
    return Lowered(std::make_unique<conv::ChainKernel>(p, ctx.target));
}

}  // namespace ops_chain
QUERN_END
