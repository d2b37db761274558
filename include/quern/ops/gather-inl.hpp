// Gather, GatherElements, GatherND: https://onnx.ai/onnx/operators/onnx__Gather.html and theirs.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/gather/gather.hpp>
#include <quern/kernels/gather/problem.hpp>

QUERN_BEGIN
namespace ops_gather {

inline void gather_content(InferCtx& ctx) {
    if (ctx.in(0).rank() != 1 || ctx.in(1).rank() > 1) return;
    auto data = ctx.ints(0);
    auto index = ctx.const_ints(1);
    if (!data || !index || data->empty()) return;
    std::vector<Dim> out;
    auto n = static_cast<std::int64_t>(data->size());
    for (std::int64_t i : *index) {
        if (i < -n || i >= n) ctx.fail("index " + std::to_string(i) + " is outside [" + std::to_string(-n) + ", " + std::to_string(n - 1) + "]");
        out.push_back((*data)[static_cast<std::size_t>(i < 0 ? i + n : i)]);
    }
    ops_util::give_content(ctx, 0, std::move(out));
}
QUERN_INLINE void infer_gather(InferCtx& ctx) {
    const Fact &x = ctx.in(0), &i = ctx.in(1);
    ctx.need_type(1, {DType::i64, DType::i32});
    ctx.need_rank(0, 1);
    if (!x.ranked || !i.ranked) return ctx.set_unranked(0, x.dtype);
    int axis = ctx.axis(ctx.attrs.i("axis", 0), x.rank());
    std::vector<Dim> out(x.dims.begin(), x.dims.begin() + axis);
    out.insert(out.end(), i.dims.begin(), i.dims.end());
    out.insert(out.end(), x.dims.begin() + axis + 1, x.dims.end());
    ctx.set(0, x.dtype, std::move(out));
    gather_content(ctx);
}
QUERN_INLINE void infer_elements(InferCtx& ctx) {
    const Fact &x = ctx.in(0), &i = ctx.in(1);
    ctx.need_type(1, {DType::i64, DType::i32});
    ctx.need_rank(0, 1);
    if (x.ranked) {
        ctx.axis(ctx.attrs.i("axis", 0), x.rank());
        ctx.need_rank(1, x.rank(), x.rank());
    }
    if (!i.ranked) return ctx.set_unranked(0, x.dtype);
    ctx.set(0, x.dtype, i.dims);
}
QUERN_INLINE void infer_nd(InferCtx& ctx) {
    const Fact &x = ctx.in(0), &i = ctx.in(1);
    ctx.need_type(1, {DType::i64});
    ctx.need_rank(0, 1);
    ctx.need_rank(1, 1);
    std::int64_t b = ctx.attrs.i("batch_dims", 0);
    if (!x.ranked || !i.ranked || !i.dims.back().is_const()) return ctx.set_unranked(0, x.dtype);
    std::int64_t t = i.dims.back().value();
    if (b < 0 || b >= std::min(x.rank(), i.rank())) raise(ErrorCode::invalid_model, "batch_dims " + std::to_string(b) + " does not fit the ranks of data and indices");
    if (t < 1 || t > x.rank() - b) ctx.fail("index tuples of length " + std::to_string(t) + "; accepted: 1 to " + std::to_string(x.rank() - b));
    std::vector<Dim> out;
    for (int k = 0; k < b; ++k) out.push_back(ops_util::same_dim(ctx, x.dims[k], i.dims[k], "batch dimensions"));
    out.insert(out.end(), i.dims.begin() + b, i.dims.end() - 1);
    out.insert(out.end(), x.dims.begin() + b + t, x.dims.end());
    ctx.set(0, x.dtype, std::move(out));
}
inline Lowered device(const LowerCtx& ctx, gather::Problem::Kind kind, int axis) {
    return select(Family::gather, gather::Problem{kind, ctx.in(0).dtype, ctx.in(1).dtype, axis, ctx.in(0).rank()}, ctx.target);
}
QUERN_INLINE Lowered lower_gather(const LowerCtx& ctx) {
    movement::check_rank(ctx.out(0).rank());
    if (ctx.target.device != Device::cpu) return device(ctx, gather::Problem::Kind::rows, movement::norm_axis(ctx.attrs.i("axis", 0), ctx.in(0).rank()));
    return ops_util::kernel<movement::Gather>(movement::norm_axis(ctx.attrs.i("axis", 0), ctx.in(0).rank()));
}
QUERN_INLINE Lowered lower_elements(const LowerCtx& ctx) {
    movement::check_rank(ctx.in(0).rank());
    if (ctx.target.device != Device::cpu) return device(ctx, gather::Problem::Kind::elements, movement::norm_axis(ctx.attrs.i("axis", 0), ctx.in(0).rank()));
    return ops_util::kernel<movement::GatherElements>(movement::norm_axis(ctx.attrs.i("axis", 0), ctx.in(0).rank()));
}
QUERN_INLINE Lowered lower_nd(const LowerCtx& ctx) {
    movement::check_rank(std::max(ctx.in(0).rank(), ctx.in(1).rank()));
    if (ctx.target.device != Device::cpu) return device(ctx, gather::Problem::Kind::tuples, static_cast<int>(ctx.attrs.i("batch_dims", 0)));
    return ops_util::kernel<movement::GatherND>(static_cast<int>(ctx.attrs.i("batch_dims", 0)));
}

}  // namespace ops_gather

QUERN_INLINE const OpDef& op_Gather() {
    static constexpr OpDef def{.name = "Gather", .min_in = 2, .max_in = 2, .newest = 13, .infer = ops_gather::infer_gather, .lower = ops_gather::lower_gather, .lower_device = ops_gather::lower_gather};
    return def;
}
QUERN_INLINE const OpDef& op_GatherElements() {
    static constexpr OpDef def{.name = "GatherElements", .min_in = 2, .max_in = 2, .newest = 13, .infer = ops_gather::infer_elements, .lower = ops_gather::lower_elements, .lower_device = ops_gather::lower_elements};
    return def;
}
QUERN_INLINE const OpDef& op_GatherND() {
    static constexpr OpDef def{.name = "GatherND", .min_in = 2, .max_in = 2, .newest = 13, .infer = ops_gather::infer_nd, .lower = ops_gather::lower_nd, .lower_device = ops_gather::lower_nd};
    return def;
}
QUERN_END
