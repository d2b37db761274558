// Conv: https://onnx.ai/onnx/operators/onnx__Conv.html
#pragma once
#include "window.hpp"

QUERN_BEGIN
namespace ops_conv {

inline void infer(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16});
    ctx.need_same_type(0, 1);
    if (ctx.has(2)) ctx.need_same_type(0, 2);
    std::int64_t group = ctx.attrs.i("group", 1);
    if (group < 1) raise(ErrorCode::invalid_model, "group is " + std::to_string(group) + "; it must be at least 1");
    if (!ctx.ranked(0) || !ctx.ranked(1)) {
        ctx.set_unranked(0, t);
        return;
    }
    ctx.need_rank(0, 3);
    ctx.need_rank(1, ctx.in(0).rank(), ctx.in(0).rank());
    const std::vector<Dim>&x = ctx.in(0).dims, &w = ctx.in(1).dims;
    conv::Window win = ops_window::of_weights(ctx.attrs, ctx.in(1));
    ops_window::same(ctx, x[1], w[1] * Dim(group), "channels of the input and of the weights (times group)");
    if (w[0].is_const() && w[0].value() % group != 0)
        ctx.fail("the weights have " + w[0].to_string() + " output channels, which group = " + std::to_string(group) + " must divide");
    if (ctx.has(2) && ctx.ranked(2)) {
        ctx.need_rank(2, 1, 1);
        ops_window::same(ctx, ctx.in(2).dims[0], w[0], "length of the bias and output channels");
    }
    std::vector<Dim> y{x[0], w[0]};
    for (int d = 0; d < win.spatial(); ++d) y.push_back(ops_window::outputs(win, d, x[d + 2], false));
    ctx.set(0, t, std::move(y));
}

/// The family's problem from attributes and weights; shared with FusedConv.
inline conv::Problem problem(const LowerCtx& ctx) {
    conv::Problem p;
    p.dtype = ctx.in(0).dtype;
    p.window = ops_window::of_weights(ctx.attrs, ctx.in(1));
    p.group = ctx.attrs.i("group", 1);
    const Dim &c = ctx.in(1).dims[1], &m = ctx.in(1).dims[0];
    if (c.is_const()) p.channels = c.value() * p.group;
    if (m.is_const()) p.out_channels = m.value();
    const auto& x = ctx.in(0).dims;
    if (const std::size_t behind = ctx.attrs.s("layout", "nchw") == "nhwc" ? 2 : 1; x.size() > behind && x[x.size() - behind].is_const()) p.width = x[x.size() - behind].value();
    p.has_bias = ctx.has(2);
    p.w = ctx.raw_constant(1);
    return p;
}
inline Lowered lower(const LowerCtx& ctx) { return select(Family::conv, problem(ctx), ctx.target); }

}  // namespace ops_conv

QUERN_END
