// Scatter, ScatterElements, ScatterND, TensorScatter: https://onnx.ai/onnx/operators/onnx__ScatterElements.html and theirs.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/gather/problem.hpp>
#include <quern/kernels/scatter/scatter.hpp>

QUERN_BEGIN
namespace ops_scatter {

inline movement::Reduction reduction_of(const Attrs& a) {
    std::string r = a.s("reduction", "none");
    if (r == "none") return movement::Reduction::none;
    if (r == "add") return movement::Reduction::add;
    if (r == "mul") return movement::Reduction::mul;
    if (r == "max") return movement::Reduction::max;
    if (r == "min") return movement::Reduction::min;
    raise(ErrorCode::invalid_model, "reduction '" + r + "'; accepted: none, add, mul, max, min");
}
inline void check_reduction(const InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    if (reduction_of(ctx.attrs) != movement::Reduction::none && (t == DType::string || dtype_bits(t) < 8 || t == DType::c64 || t == DType::c128))
        ctx.unsupported(std::string("a reduction of type ") + dtype_name(t));
}
QUERN_INLINE void import_scatter(ImportCtx& ctx) { ctx.finish("ScatterElements", ctx.in, ctx.attrs); }
QUERN_INLINE void import_cache(ImportCtx& ctx) { ops_util::import_through_bytes(ctx, "TensorScatter"); }
QUERN_INLINE void infer_elements(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    check_reduction(ctx);
    ctx.need_type(1, {DType::i64, DType::i32});
    ctx.need_same_type(2, 0);
    ctx.need_rank(0, 1);
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    ctx.axis(ctx.attrs.i("axis", 0), x.rank());
    ctx.need_rank(1, x.rank(), x.rank());
    ctx.need_rank(2, x.rank(), x.rank());
    ctx.set(0, x.dtype, x.dims);
}
QUERN_INLINE void infer_nd(InferCtx& ctx) {
    const Fact &x = ctx.in(0), &i = ctx.in(1);
    check_reduction(ctx);
    ctx.need_type(1, {DType::i64});
    ctx.need_same_type(2, 0);
    ctx.need_rank(0, 1);
    ctx.need_rank(1, 1);
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    if (i.ranked && i.dims.back().is_const()) {
        std::int64_t t = i.dims.back().value();
        if (t < 1 || t > x.rank()) ctx.fail("index tuples of length " + std::to_string(t) + "; accepted: 1 to " + std::to_string(x.rank()));
        ctx.need_rank(2, i.rank() - 1 + x.rank() - static_cast<int>(t), i.rank() - 1 + x.rank() - static_cast<int>(t));
    }
    ctx.set(0, x.dtype, x.dims);
}
inline bool circular(const Attrs& a) {
    std::string m = a.s("mode", "linear");
    if (m != "linear" && m != "circular") raise(ErrorCode::invalid_model, "mode '" + m + "'; accepted: linear, circular");
    return m == "circular";
}
QUERN_INLINE void infer_cache(InferCtx& ctx) {
    const Fact &x = ctx.in(0), &u = ctx.in(1);
    ctx.need_same_type(1, 0);
    if (ctx.has(2)) ctx.need_type(2, {DType::i64});
    circular(ctx.attrs);
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    int axis = ctx.axis(ctx.attrs.i("axis", -2), x.rank());
    if (axis == 0) raise(ErrorCode::invalid_model, "axis 0 is the batch; another is needed");
    ctx.need_rank(1, x.rank(), x.rank());
    if (u.ranked)
        for (int k = 0; k < x.rank(); ++k) {
            if (k != axis) ops_util::same_dim(ctx, x.dims[k], u.dims[k], "cache and update");
            else if (compare(u.dims[k], x.dims[k]) == 1) ctx.fail("an update of " + u.dims[k].to_string() + " entries for a cache of " + x.dims[k].to_string());
        }
    ctx.set(0, x.dtype, x.dims);
}
QUERN_INLINE Lowered lower_elements(const LowerCtx& ctx) {
    movement::check_rank(ctx.in(0).rank());
    return ops_util::kernel<movement::ScatterElements>(movement::norm_axis(ctx.attrs.i("axis", 0), ctx.in(0).rank()), reduction_of(ctx.attrs));
}
QUERN_INLINE Lowered lower_nd(const LowerCtx& ctx) {
    movement::check_rank(ctx.in(0).rank());
    if (ctx.target.device != Device::cpu) {
        if (reduction_of(ctx.attrs) != movement::Reduction::none) raise(ErrorCode::unsupported, "a reduction; none is accepted on the device");
        return select(Family::gather, gather::Problem{gather::Problem::Kind::scatter_tuples, ctx.in(0).dtype, ctx.in(1).dtype, 0, ctx.in(0).rank()}, ctx.target);
    }
    return ops_util::kernel<movement::ScatterND>(reduction_of(ctx.attrs));
}
QUERN_INLINE Lowered lower_cache(const LowerCtx& ctx) {
    return ops_util::kernel<movement::TensorScatter>(movement::norm_axis(ctx.attrs.i("axis", -2), ctx.in(0).rank()), circular(ctx.attrs));
}

}  // namespace ops_scatter

QUERN_INLINE const OpDef& op_Scatter() {
    static constexpr OpDef def{.name = "Scatter", .min_in = 3, .max_in = 3, .newest = 11, .import = ops_scatter::import_scatter, .infer = ops_scatter::infer_elements, .lower = ops_scatter::lower_elements};
    return def;
}
QUERN_INLINE const OpDef& op_ScatterElements() {
    static constexpr OpDef def{.name = "ScatterElements", .min_in = 3, .max_in = 3, .newest = 18, .infer = ops_scatter::infer_elements, .lower = ops_scatter::lower_elements};
    return def;
}
QUERN_INLINE const OpDef& op_ScatterND() {
    static constexpr OpDef def{.name = "ScatterND", .min_in = 3, .max_in = 3, .newest = 18, .infer = ops_scatter::infer_nd, .lower = ops_scatter::lower_nd, .lower_device = ops_scatter::lower_nd};
    return def;
}
QUERN_INLINE const OpDef& op_TensorScatter() {
    static constexpr OpDef def{.name = "TensorScatter", .min_in = 2, .max_in = 3, .newest = 24, .import = ops_scatter::import_cache, .infer = ops_scatter::infer_cache, .lower = ops_scatter::lower_cache};
    return def;
}
QUERN_END
