// Operators that only the fusion and layout passes make (domain "quern").
#pragma once
#include "conv.hpp"
#include "fused.hpp"
#include "matmul.hpp"

QUERN_BEGIN
namespace ops_fused {

/// FusedConv(X, W, B?, residual?, gate?; Conv's attributes, layout "nchw" or "nhwc", activation): X, residual and Y in the layout;
/// gate [N, 1..., C], which X is multiplied with: nhwc, pointwise.
inline void infer_conv(InferCtx& ctx) {
    activation(ctx.attrs);
    for (int i : {3, 4})
        if (ctx.has(i)) ctx.need_same_type(i, 0);
    if (ctx.has(4) && !channels_last(ctx.attrs)) raise(ErrorCode::invalid_model, "a gate for an input in channels first; accepted: layout nhwc");
    if (!channels_last(ctx.attrs) || !ctx.ranked(0)) {
        ops_conv::infer(ctx);
        if (ctx.outputs[0].ranked) ops_window::expect(ctx, 3, ctx.outputs[0].dims, "the residual and the result");
        return;
    }
    ctx.need_rank(0, 3);
    if (ctx.has(4) && ctx.ranked(4)) {
        const auto &x = ctx.in(0).dims, &gate = ctx.in(4).dims;
        ctx.need_rank(4, ctx.in(0).rank(), ctx.in(0).rank());
        for (std::size_t d = 0; d < x.size(); ++d) ops_window::same(ctx, gate[d], d == 0 || d + 1 == x.size() ? x[d] : Dim(1), "the gate, one for each image and channel");
    }
    const Fact* given = ctx.inputs[0];  // Conv's inference on the nchw order, then back
    Fact x = *given;
    x.value = Tensor();
    x.dims.insert(x.dims.begin() + 1, x.dims.back());
    x.dims.pop_back();
    ctx.inputs[0] = &x;
    ops_conv::infer(ctx);
    ctx.inputs[0] = given;
    auto& y = ctx.outputs[0].dims;
    if (y.size() < 3) return;
    y.push_back(y[1]);
    y.erase(y.begin() + 1);
    ops_window::expect(ctx, 3, y, "the residual and the result");
}
inline Lowered lower_conv(const LowerCtx& ctx) { return select(Family::conv, conv_problem(ctx), ctx.target); }

/// FusedMatMul(A, B, bias?, residual?, factors?; transA, transB, alpha, activation): MatMul with what follows it. factors [N], f32, multiply B's
/// columns (those of B as it is multiplied); they and B, a matrix, are constant then.
inline void infer_matmul(InferCtx& ctx) {
    activation(ctx.attrs);
    DType t = ctx.in(0).dtype;
    ctx.need_same_type(0, 1);
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, t);
    std::vector<Dim> a = ctx.in(0).dims, b = ctx.in(1).dims;
    if (a.size() > 1 && ctx.attrs.i("transA", 0)) std::swap(a[a.size() - 1], a[a.size() - 2]);
    if (b.size() > 1 && ctx.attrs.i("transB", 0)) std::swap(b[b.size() - 1], b[b.size() - 2]);
    for (int i : {2, 3})
        if (ctx.has(i)) ctx.need_same_type(i, 0);
    if (ctx.has(2) && ctx.ranked(2)) {  // the bias broadcasts to the last two dimensions
        const std::vector<Dim>& c = ctx.in(2).dims;
        const Dim last[2] = {b.size() < 2 ? Dim(1) : b.back(), a.size() < 2 ? Dim(1) : a[a.size() - 2]};
        for (std::size_t i = 0; i < c.size(); ++i)
            if (const Dim& d = c[c.size() - 1 - i]; !d.is(1)) ops_window::same(ctx, d, i < 2 ? last[i] : Dim(1), "the bias, which must broadcast to the product");
    }
    if (ctx.has(4)) {
        ctx.need_type(0, {DType::f32});
        ctx.need_same_type(4, 0);
        ctx.need_rank(1, 2, 2);
        ctx.need_rank(4, 1, 1);
        if (ctx.ranked(4)) ops_window::same(ctx, ctx.in(4).dims[0], b[1], "the factors, one for each column");
    }
    std::vector<Dim> y = ops_matmul::product(ctx, std::move(a), std::move(b));
    ops_window::expect(ctx, 3, y, "the residual and the result");
    ctx.set(0, t, std::move(y));
}
inline Lowered lower_matmul(const LowerCtx& ctx) {
    matmul::Problem p = ops_matmul::gemm_problem(ctx);
    set_post(p, ctx);
    if (ctx.has(4)) {
        p.factors = ctx.raw_constant(4);
        if (!p.factors.defined()) raise(ErrorCode::invalid_model, "factors that are not constant; accepted: a constant");
    }
    return ops_matmul::choose(ctx, p);
}

}  // namespace ops_fused

QUERN_INLINE const OpDef& op_quern_FusedConv() {
    static constexpr OpDef def{.domain = "quern", .name = "FusedConv", .min_in = 2, .max_in = 5, .newest = 1, .infer = ops_fused::infer_conv,
                               .lower = ops_fused::lower_conv, .lower_device = ops_fused::lower_conv, .compute = Compute::f32};
    return def;
}
QUERN_INLINE const OpDef& op_quern_FusedMatMul() {
    static constexpr OpDef def{.domain = "quern", .name = "FusedMatMul", .min_in = 2, .max_in = 5, .newest = 1, .infer = ops_fused::infer_matmul,
                               .lower = ops_fused::lower_matmul, .lower_device = ops_fused::lower_matmul, .compute = Compute::f32};
    return def;
}

QUERN_END
