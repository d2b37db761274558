// Operators that only the fusion and layout passes make (domain "quern").
#pragma once
#include "conv.hpp"
#include "fused.hpp"
#include "matmul.hpp"

QUERN_BEGIN
namespace ops_fused {

template <class P>
void set_post(P& p, const LowerCtx& ctx) {
    Activation a = activation(ctx.attrs);
    p.post = a.post;
    p.post_alpha = a.alpha;
    p.post_beta = a.beta;
    p.has_residual = ctx.has(3);
}

/// FusedConv(X, W, B?, residual?; Conv's attributes, layout "nchw" or "nhwc", activation): X, residual and Y in the layout.
inline bool channels_last(const Attrs& a) { return a.s("layout", "nchw") == "nhwc"; }
inline void infer_conv(InferCtx& ctx) {
    activation(ctx.attrs);
    if (!channels_last(ctx.attrs) || !ctx.ranked(0)) return ops_conv::infer(ctx);
    ctx.need_rank(0, 3);
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
}
inline Lowered lower_conv(const LowerCtx& ctx) {
    conv::Problem p = ops_conv::problem(ctx);
    set_post(p, ctx);
    if (channels_last(ctx.attrs)) p.layout = conv::Layout::nhwc;
    return select(Family::conv, p, ctx.target);
}

/// FusedMatMul(A, B, bias?, residual?; transA, transB, alpha, activation): MatMul with what follows it.
inline void infer_matmul(InferCtx& ctx) {
    activation(ctx.attrs);
    DType t = ctx.in(0).dtype;
    ctx.need_same_type(0, 1);
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, t);
    std::vector<Dim> a = ctx.in(0).dims, b = ctx.in(1).dims;
    if (a.size() > 1 && ctx.attrs.i("transA", 0)) std::swap(a[a.size() - 1], a[a.size() - 2]);
    if (b.size() > 1 && ctx.attrs.i("transB", 0)) std::swap(b[b.size() - 1], b[b.size() - 2]);
    ctx.set(0, t, ops_matmul::product(ctx, std::move(a), std::move(b)));
}
inline Lowered lower_matmul(const LowerCtx& ctx) {
    matmul::Problem p = ops_matmul::gemm_problem(ctx);
    set_post(p, ctx);
    return ops_matmul::choose(ctx, p);
}

}  // namespace ops_fused

QUERN_INLINE const OpDef& op_quern_FusedConv() {
    static constexpr OpDef def{.domain = "quern", .name = "FusedConv", .min_in = 2, .max_in = 4, .newest = 1, .infer = ops_fused::infer_conv,
                               .lower = ops_fused::lower_conv, .lower_device = ops_fused::lower_conv, .compute = Compute::f32};
    return def;
}
QUERN_INLINE const OpDef& op_quern_FusedMatMul() {
    static constexpr OpDef def{.domain = "quern", .name = "FusedMatMul", .min_in = 2, .max_in = 4, .newest = 1, .infer = ops_fused::infer_matmul,
                               .lower = ops_fused::lower_matmul, .lower_device = ops_fused::lower_matmul, .compute = Compute::f32};
    return def;
}

QUERN_END
