// DeformConv: https://onnx.ai/onnx/operators/onnx__DeformConv.html
#pragma once
#include <quern/kernels/deform/deform.hpp>

#include "window.hpp"

QUERN_BEGIN
namespace ops_deform {

inline void infer(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16});
    for (int i = 1; i < ctx.n_in(); ++i)
        if (ctx.has(i)) ctx.need_same_type(0, i);
    std::int64_t group = ctx.attrs.i("group", 1), offsets = ctx.attrs.i("offset_group", 1);
    if (group < 1 || offsets < 1) raise(ErrorCode::invalid_model, "group and offset_group must be at least 1");
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, t);
    ctx.need_rank(0, 3, 6);
    int rank = ctx.in(0).rank();
    ctx.need_rank(1, rank, rank);
    const std::vector<Dim>&x = ctx.in(0).dims, &w = ctx.in(1).dims;
    conv::Window win = ops_window::of_weights(ctx.attrs, ctx.in(1));
    ops_window::same(ctx, x[1], w[1] * Dim(group), "channels of the input and of the weights (times group)");
    if (w[0].is_const() && w[0].value() % group != 0) ctx.fail("group = " + std::to_string(group) + " does not divide " + w[0].to_string() + " output channels");
    if (!x[1].is_const()) ctx.unsupported("the number of channels is not known when loading");
    if (x[1].value() < 1 || x[1].value() % offsets != 0) ctx.fail("offset_group = " + std::to_string(offsets) + " does not divide " + x[1].to_string() + " channels");
    std::vector<Dim> y{x[0], w[0]};
    Dim taps = 1;
    for (int d = 0; d < win.spatial(); ++d) {
        y.push_back(ops_window::outputs(win, d, x[d + 2], false));
        taps *= Dim(win.kernel[d]);
    }
    for (int i : {2, 4}) {
        if (!ctx.has(i) || !ctx.ranked(i)) continue;
        ctx.need_rank(i, rank, rank);
        std::vector<Dim> want = y;
        want[1] = Dim(offsets) * taps * Dim(i == 2 ? win.spatial() : 1);
        for (int d = 0; d < rank; ++d) ops_window::same(ctx, ctx.in(i).dims[d], want[d], i == 2 ? "dimensions of offset" : "dimensions of mask");
    }
    if (ctx.has(3) && ctx.ranked(3)) {
        ctx.need_rank(3, 1, 1);
        ops_window::same(ctx, ctx.in(3).dims[0], w[0], "length of the bias and output channels");
    }
    ctx.set(0, t, std::move(y));
}
inline Lowered lower(const LowerCtx& ctx) {
    deform::Problem p;
    p.dtype = ctx.in(0).dtype;
    p.window = ops_window::of_weights(ctx.attrs, ctx.in(1));
    p.group = ctx.attrs.i("group", 1);
    p.offset_group = ctx.attrs.i("offset_group", 1);
    return Lowered(std::make_unique<deform::SampledKernel>(p, vec::table(ctx.target.isa)));
}

}  // namespace ops_deform

QUERN_INLINE const OpDef& op_DeformConv() {
    static constexpr OpDef def{.name = "DeformConv", .min_in = 3, .max_in = 5, .newest = 22, .infer = ops_deform::infer,
                               .lower = ops_deform::lower, .compute = Compute::real};
    return def;
}

QUERN_END
