// DepthToSpace, SpaceToDepth, CenterCropPad: https://onnx.ai/onnx/operators/onnx__DepthToSpace.html and theirs.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/transpose/transpose.hpp>

QUERN_BEGIN
namespace ops_rearrange {

inline bool crd(const Attrs& a) {
    std::string m = a.s("mode", "DCR");
    if (m != "DCR" && m != "CRD") raise(ErrorCode::invalid_model, "mode '" + m + "'; accepted: DCR, CRD");
    return m == "CRD";
}
inline std::int64_t block_of(const Attrs& a) {
    std::int64_t b = a.i("blocksize", 0);
    if (b < 1 || b > 1 << 20) raise(ErrorCode::invalid_model, "blocksize " + std::to_string(b) + "; 1 or more is accepted");
    return b;
}
inline Dim divided(const InferCtx& ctx, const Dim& d, std::int64_t b) {
    if (d.is_const() && d.value() % b) ctx.fail("dimension " + d.to_string() + " is not a multiple of " + std::to_string(b));
    return floor_div(d, b);
}
QUERN_INLINE void infer_to_space(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    const Dim b = block_of(ctx.attrs);
    crd(ctx.attrs);
    ctx.need_rank(0, 4, 4);
    if (!x.ranked) return ctx.set(0, x.dtype, ops_util::fresh_dims(ctx, 4, "space"));
    ctx.set(0, x.dtype, {x.dims[0], divided(ctx, x.dims[1], b.value() * b.value()), x.dims[2] * b, x.dims[3] * b});
}
QUERN_INLINE void infer_to_depth(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    const Dim b = block_of(ctx.attrs);
    crd(ctx.attrs);
    ctx.need_rank(0, 4, 4);
    if (!x.ranked) return ctx.set(0, x.dtype, ops_util::fresh_dims(ctx, 4, "depth"));
    ctx.set(0, x.dtype, {x.dims[0], x.dims[1] * b * b, divided(ctx, x.dims[2], b.value()), divided(ctx, x.dims[3], b.value())});
}
QUERN_INLINE Lowered lower_block(const LowerCtx& ctx, bool to_space) {
    if (ctx.target.device == Device::cpu) return ops_util::kernel<movement::BlockShuffle>(block_of(ctx.attrs), crd(ctx.attrs), to_space);
    movement::Problem p = ops_util::movement_problem(ctx, movement::Problem::Kind::shuffle);
    p.block = block_of(ctx.attrs);
    p.crd = crd(ctx.attrs);
    p.to_space = to_space;
    return select(Family::transpose, p, ctx.target);
}
QUERN_INLINE Lowered lower_to_space(const LowerCtx& ctx) { return lower_block(ctx, true); }
QUERN_INLINE Lowered lower_to_depth(const LowerCtx& ctx) { return lower_block(ctx, false); }

QUERN_INLINE void infer_center(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(1, {DType::i64, DType::i32});
    ctx.need_rank(1, 1, 1);
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    movement::check_rank(x.rank());
    std::vector<int> axes;
    if (ctx.attrs.has("axes")) axes = ops_util::axes_of(ctx, ctx.attrs.ints("axes"), x.rank());
    else for (int i = 0; i < x.rank(); ++i) axes.push_back(i);
    auto shape = ctx.ints(1);
    std::int64_t n = shape ? static_cast<std::int64_t>(shape->size()) : ops_util::length_of(ctx, 1);
    if (n >= 0 && n != static_cast<std::int64_t>(axes.size())) ctx.fail(std::to_string(n) + " sizes for " + std::to_string(axes.size()) + " axes");
    std::vector<Dim> out = x.dims;
    for (std::size_t k = 0; k < axes.size(); ++k) {
        Dim d = shape ? (*shape)[k] : ctx.fresh("center");
        if (d.is_const() && d.value() < 0) ctx.fail("a size of " + d.to_string() + "; 0 or more is accepted");
        out[axes[k]] = d;
    }
    ctx.set(0, x.dtype, std::move(out));
}
QUERN_INLINE Lowered lower_center(const LowerCtx&) { return ops_util::kernel<movement::CenterCropPad>(); }

}  // namespace ops_rearrange

QUERN_INLINE const OpDef& op_DepthToSpace() {
    static constexpr OpDef def{.name = "DepthToSpace", .min_in = 1, .max_in = 1, .newest = 28, .infer = ops_rearrange::infer_to_space, .lower = ops_rearrange::lower_to_space, .lower_device = ops_rearrange::lower_to_space};
    return def;
}
QUERN_INLINE const OpDef& op_SpaceToDepth() {
    static constexpr OpDef def{.name = "SpaceToDepth", .min_in = 1, .max_in = 1, .newest = 28, .infer = ops_rearrange::infer_to_depth, .lower = ops_rearrange::lower_to_depth, .lower_device = ops_rearrange::lower_to_depth};
    return def;
}
QUERN_INLINE const OpDef& op_CenterCropPad() {
    static constexpr OpDef def{.name = "CenterCropPad", .min_in = 2, .max_in = 2, .newest = 18, .infer = ops_rearrange::infer_center, .lower = ops_rearrange::lower_center};
    return def;
}
QUERN_END
