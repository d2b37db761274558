// What the layout pass makes at the edges of channels last: quern::PlanarConv and quern::FusedBatchNormalization.
#pragma once
#include <quern/kernels/conv/planar.hpp>
#include <quern/kernels/norm/affine.hpp>

#include "conv.hpp"
#include "fused.hpp"

QUERN_BEGIN
namespace ops_planar {

/// PlanarConv(X [N, C, H, W], W, B?, residual?; Conv's attributes, activation, and MaxPool's named pool_...): Y and residual [N, Ho, Wo, M].
inline constexpr const char* pool_attributes[] = {"kernel_shape", "strides", "pads", "dilations", "auto_pad", "ceil_mode"};
inline std::optional<conv::Window> pool_window(const Attrs& a) {
    if (!a.has("pool_kernel_shape")) return std::nullopt;
    Attrs plain;
    for (const char* name : pool_attributes)
        if (const Attr* v = a.find(std::string("pool_") + name)) plain.set(name, *v);
    std::vector<std::int64_t> kernel = plain.ints("kernel_shape");
    if (kernel.size() != 2) raise(ErrorCode::invalid_model, "pool_kernel_shape has " + std::to_string(kernel.size()) + " numbers; 2 are needed");
    return ops_window::of_kernel(plain, std::move(kernel));
}
inline conv::Problem problem(const LowerCtx& ctx) {
    conv::Problem p = ops_conv::problem(ctx);
    ops_fused::Activation a = ops_fused::activation(ctx.attrs);
    p.post = a.post, p.post_alpha = a.alpha, p.post_beta = a.beta;
    p.has_residual = ctx.has(3);
    return p;
}
inline void infer_conv(InferCtx& ctx) {
    ops_fused::activation(ctx.attrs);
    if (ctx.has(3)) ctx.need_same_type(3, 0);
    ops_conv::infer(ctx);
    auto& y = ctx.outputs[0].dims;
    if (y.size() != 4) return;
    y = {y[0], y[2], y[3], y[1]};
    ops_window::expect(ctx, 3, y, "the residual and the result");
    if (auto pool = pool_window(ctx.attrs))
        for (int d = 0; d < 2; ++d) y[static_cast<std::size_t>(d + 1)] = ops_window::outputs(*pool, d, y[static_cast<std::size_t>(d + 1)], ctx.attrs.i("pool_ceil_mode", 0) != 0);
}
inline Lowered lower_conv(const LowerCtx& ctx) {
    conv::Problem p = problem(ctx);
    if (std::string why = conv::refuse_planar(p, ctx.target); !why.empty()) raise(ErrorCode::unsupported, why);
    auto pool = pool_window(ctx.attrs);
    std::string why = pool ? p.has_residual ? "a residual before a pool" : conv::refuse_pool(*pool) : "";
    if (!why.empty()) raise(ErrorCode::unsupported, why);
    return Lowered(std::make_unique<conv::PlanarKernel>(p, ctx.target, std::move(pool)));
}

/// FusedBatchNormalization(scale [C], shift [C], X...; activation): the contract of norm::AffineKernel.
inline void infer_affine(InferCtx& ctx) {
    ops_fused::activation(ctx.attrs);
    ctx.need_type(0, {DType::f32});
    Dim channels = 0;
    for (int i = 1; i < ctx.n_in(); ++i) {
        ctx.need_same_type(i, 0);
        if (!ctx.ranked(i)) return ctx.set_unranked(0, DType::f32);
        ctx.need_rank(i, 1);
        if (i < 2) continue;
        const auto &d = ctx.in(i).dims, &first = ctx.in(2).dims;
        if (d.size() != first.size()) ctx.fail("inputs of ranks " + std::to_string(first.size()) + " and " + std::to_string(d.size()) + "; they must be equal");
        for (std::size_t k = 0; k + 1 < d.size(); ++k) ops_window::same(ctx, first[k], d[k], "a dimension that is no channel");
        channels += d.back();
    }
    if (!ctx.ranked(0)) return ctx.set_unranked(0, DType::f32);
    for (int i = 0; i < 2; ++i) ops_window::same(ctx, ctx.in(i).dims.back(), channels, "length of scale and shift, and channels");
    std::vector<Dim> y = ctx.in(2).dims;
    y.back() = channels;
    ctx.set(0, DType::f32, std::move(y));
}
inline Lowered lower_affine(const LowerCtx& ctx) {
    ops_fused::Activation a = ops_fused::activation(ctx.attrs);
    return Lowered(std::make_unique<norm::AffineKernel>(a.post, a.alpha, a.beta, ctx.target.isa));
}

}  // namespace ops_planar
QUERN_END
