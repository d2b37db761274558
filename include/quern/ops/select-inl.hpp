// Selection by content: NonZero, Compress, Unique, TopK, OneHot, Trilu, ReverseSequence, NonMaxSuppression
// (https://onnx.ai/onnx/operators/onnx__TopK.html and the operators' own pages).
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/select/problem.hpp>
#include <quern/kernels/select/select.hpp>
#include <quern/kernels/select/suppress.hpp>

QUERN_BEGIN
namespace ops_select {

/// A size that the kernel measures when it runs.
inline Dim counted(InferCtx& ctx, const char* stem) { return ctx.concrete ? Dim(0) : ctx.fresh(stem); }
inline void need_values(const InferCtx& ctx, int i) {
    DType t = ctx.in(i).dtype;
    if (dtype_bits(t) < 8 && t != DType::string) ctx.unsupported(std::string("type ") + dtype_name(t));
    if (t == DType::c64 || t == DType::c128 || (is_float(t) && dtype_bits(t) == 8)) ctx.unsupported(std::string("type ") + dtype_name(t));
}

QUERN_INLINE void infer_non_zero(InferCtx& ctx) {
    need_values(ctx, 0);
    ctx.set(0, DType::i64, {ctx.ranked(0) ? Dim(ctx.in(0).rank()) : counted(ctx, "rank"), counted(ctx, "nonzero")});
}
QUERN_INLINE Lowered lower_non_zero(const LowerCtx&) { return ops_util::kernel<selection::NonZero>(); }

QUERN_INLINE void infer_compress(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(1, {DType::boolean});
    ctx.need_rank(1, 1, 1);
    if (!ctx.attrs.has("axis")) return ctx.set(0, x.dtype, {counted(ctx, "compress")});
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    std::vector<Dim> out = x.dims;
    out[ctx.axis(ctx.attrs.i("axis", 0), x.rank())] = counted(ctx, "compress");
    ctx.set(0, x.dtype, std::move(out));
}
QUERN_INLINE Lowered lower_compress(const LowerCtx& ctx) {
    return ops_util::kernel<selection::Compress>(ctx.attrs.has("axis") ? movement::norm_axis(ctx.attrs.i("axis", 0), ctx.in(0).rank()) : -1);
}

QUERN_INLINE void infer_unique(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    need_values(ctx, 0);
    Dim n = counted(ctx, "unique");
    ctx.set(1, DType::i64, {n});
    ctx.set(3, DType::i64, {n});
    if (!ctx.attrs.has("axis")) {
        ctx.set(0, x.dtype, {n});
        ctx.set(2, DType::i64, {x.ranked ? ops_util::product(x.dims) : counted(ctx, "unique")});
        return;
    }
    if (!x.ranked) {
        ctx.set_unranked(0, x.dtype);
        return ctx.set(2, DType::i64, {counted(ctx, "unique")});
    }
    int axis = ctx.axis(ctx.attrs.i("axis", 0), x.rank());
    std::vector<Dim> out = x.dims;
    ctx.set(2, DType::i64, {out[axis]});
    out[axis] = n;
    ctx.set(0, x.dtype, std::move(out));
}
QUERN_INLINE Lowered lower_unique(const LowerCtx& ctx) {
    return ops_util::kernel<selection::Unique>(ctx.attrs.has("axis") ? movement::norm_axis(ctx.attrs.i("axis", 0), ctx.in(0).rank()) : -1, ctx.attrs.i("sorted", 1) != 0);
}

QUERN_INLINE void import_top_k(ImportCtx& ctx) {
    if (ctx.opset >= 10) return;
    if (!ctx.attrs.has("k")) ctx.invalid("the attribute 'k' is missing");
    std::int64_t k = ctx.attrs.i("k", 0);
    ctx.attrs.erase("k");
    ctx.in = {ctx.in[0], ctx.constant_ints({k})};
}
QUERN_INLINE void infer_top_k(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(1, {DType::i64});
    ctx.need_rank(0, 1);
    ctx.need_rank(1, 0, 1);
    if (x.dtype == DType::string || x.dtype == DType::boolean || dtype_bits(x.dtype) < 8) ctx.unsupported(std::string("type ") + dtype_name(x.dtype));
    if (!x.ranked) {
        ctx.set_unranked(0, x.dtype);
        return ctx.set_unranked(1, DType::i64);
    }
    int axis = ctx.axis(ctx.attrs.i("axis", -1), x.rank());
    auto k = ctx.ints(1);
    if (k && k->size() != 1) ctx.fail("k must be one number");
    std::vector<Dim> out = x.dims;
    Dim n = k ? (*k)[0] : ctx.fresh("topk");
    if (n.is_const() && n.value() < 0) ctx.fail("k is " + n.to_string() + "; 0 or more is accepted");
    if (compare(n, out[axis]) == 1) ctx.fail("k is " + n.to_string() + "; the axis has " + out[axis].to_string() + " elements");
    out[axis] = n;
    ctx.set(0, x.dtype, out);
    ctx.set(1, DType::i64, std::move(out));
}
QUERN_INLINE Lowered lower_top_k(const LowerCtx& ctx) {
    if (ctx.target.device != Device::cpu) {
        const Tensor k = ctx.constant(1);
        return select(Family::select, selection::Problem{ctx.in(0).dtype, movement::norm_axis(ctx.attrs.i("axis", -1), ctx.in(0).rank()), ctx.attrs.i("largest", 1) != 0,
                                                         k.defined() && k.count() == 1 ? k.aligned().data<std::int64_t>()[0] : -1}, ctx.target);
    }
    return ops_util::kernel<selection::TopK>(movement::norm_axis(ctx.attrs.i("axis", -1), ctx.in(0).rank()), ctx.attrs.i("largest", 1) != 0, ctx.attrs.i("sorted", 1) != 0);
}

/// Indices of 16-bit floats are read as f32.
QUERN_INLINE void import_one_hot(ImportCtx& ctx) {
    if (!ctx.has(0) || (ctx.fact(0).dtype != DType::f16 && ctx.fact(0).dtype != DType::bf16)) return;
    Attrs to;
    to.set("to", static_cast<std::int64_t>(DType::f32));
    ctx.in[0] = ctx.add("Cast", {ctx.in[0]}, std::move(to))[0];
}
QUERN_INLINE void infer_one_hot(InferCtx& ctx) {
    const Fact &i = ctx.in(0), &v = ctx.in(2);
    if (!is_integer(i.dtype) && i.dtype != DType::f32 && i.dtype != DType::f64) ctx.unsupported(std::string("indices of type ") + dtype_name(i.dtype));
    if (DType d = ctx.in(1).dtype; dtype_bits(d) < 8 || d == DType::boolean || d == DType::c64 || d == DType::c128)
        ctx.unsupported(std::string("depth of type ") + dtype_name(d));
    std::int64_t n = ops_util::length_of(ctx, 2);
    if (n >= 0 && n != 2) ctx.fail("values must be [off, on], not " + std::to_string(n) + " elements");
    if (!i.ranked) return ctx.set_unranked(0, v.dtype);
    std::vector<Dim> out = i.dims;
    int axis = ctx.axis(ctx.attrs.i("axis", -1), i.rank() + 1);
    Dim depth;
    auto d = ctx.ints(1);
    if (d && d->size() == 1) depth = (*d)[0];
    else if (const Tensor& t = ctx.in(1).value; t.defined() && t.count() == 1) {
        double f = ops_util::value_at(t, 0);
        if (!(f >= 0 && f < 0x1p48)) ctx.fail("a depth of " + std::to_string(f) + "; 0 or more is accepted");
        depth = static_cast<std::int64_t>(f);
    } else depth = counted(ctx, "depth");
    if (depth.is_const() && depth.value() < 0) ctx.fail("a depth of " + depth.to_string() + "; 0 or more is accepted");
    out.insert(out.begin() + axis, depth);
    ctx.set(0, v.dtype, std::move(out));
}
QUERN_INLINE Lowered lower_one_hot(const LowerCtx& ctx) {
    bool measured = !is_integer(ctx.in(1).dtype) && !ctx.constant(1).defined();
    return ops_util::kernel<selection::OneHot>(movement::norm_axis(ctx.attrs.i("axis", -1), ctx.out(0).rank()), measured);
}

QUERN_INLINE void infer_trilu(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_rank(0, 2);
    if (ctx.has(1)) ctx.need_type(1, {DType::i64});
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    ctx.set(0, x.dtype, x.dims);
}
QUERN_INLINE Lowered lower_trilu(const LowerCtx& ctx) { return ops_util::kernel<selection::Trilu>(ctx.attrs.i("upper", 1) != 0); }

inline void sequence_axes(const Attrs& a, std::int64_t& batch, std::int64_t& time) {
    batch = a.i("batch_axis", 1);
    time = a.i("time_axis", 0);
    if (!((batch == 0 && time == 1) || (batch == 1 && time == 0))) raise(ErrorCode::invalid_model, "batch_axis and time_axis must be 0 and 1 in either order");
}
QUERN_INLINE void infer_reverse(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    std::int64_t batch, time;
    sequence_axes(ctx.attrs, batch, time);
    ctx.need_rank(0, 2);
    ctx.need_type(1, {DType::i64});
    ctx.need_rank(1, 1, 1);
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    if (ctx.ranked(1)) ops_util::same_dim(ctx, x.dims[static_cast<std::size_t>(batch)], ctx.in(1).dims[0], "batch and lengths");
    ctx.set(0, x.dtype, x.dims);
}
QUERN_INLINE Lowered lower_reverse(const LowerCtx& ctx) {
    std::int64_t batch, time;
    sequence_axes(ctx.attrs, batch, time);
    return ops_util::kernel<selection::ReverseSequence>(static_cast<int>(batch), static_cast<int>(time));
}

QUERN_INLINE void infer_nms(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32});
    ctx.need_type(1, {DType::f32});
    ctx.need_rank(0, 3, 3);
    ctx.need_rank(1, 3, 3);
    if (ctx.has(2)) ctx.need_type(2, {DType::i64});
    for (int i = 3; i < 5; ++i)
        if (ctx.has(i)) ctx.need_type(i, {DType::f32});
    std::int64_t c = ctx.attrs.i("center_point_box", 0);
    if (c != 0 && c != 1) raise(ErrorCode::invalid_model, "center_point_box " + std::to_string(c) + "; accepted: 0, 1");
    if (ctx.ranked(0) && ctx.ranked(1)) {
        const auto &b = ctx.in(0).dims, &s = ctx.in(1).dims;
        ops_util::same_dim(ctx, b[0], s[0], "batches");
        ops_util::same_dim(ctx, b[1], s[2], "boxes");
        ops_util::same_dim(ctx, b[2], 4, "a box");
    }
    ctx.set(0, DType::i64, {counted(ctx, "selected"), Dim(3)});
}
QUERN_INLINE Lowered lower_nms(const LowerCtx& ctx) { return ops_util::kernel<selection::NonMaxSuppression>(ctx.attrs.i("center_point_box", 0) != 0); }

}  // namespace ops_select

QUERN_INLINE const OpDef& op_NonZero() {
    static constexpr OpDef def{.name = "NonZero", .min_in = 1, .max_in = 1, .newest = 13, .infer = ops_select::infer_non_zero, .lower = ops_select::lower_non_zero};
    return def;
}
QUERN_INLINE const OpDef& op_Compress() {
    static constexpr OpDef def{.name = "Compress", .min_in = 2, .max_in = 2, .newest = 28, .infer = ops_select::infer_compress, .lower = ops_select::lower_compress};
    return def;
}
QUERN_INLINE const OpDef& op_Unique() {
    static constexpr OpDef def{.name = "Unique", .min_in = 1, .max_in = 1, .max_out = 4, .newest = 28, .infer = ops_select::infer_unique, .lower = ops_select::lower_unique};
    return def;
}
QUERN_INLINE const OpDef& op_TopK() {
    static constexpr OpDef def{.name = "TopK", .min_in = 2, .max_in = 2, .max_out = 2, .newest = 24, .import = ops_select::import_top_k, .infer = ops_select::infer_top_k,
                               .lower = ops_select::lower_top_k, .lower_device = ops_select::lower_top_k, .compute = Compute::arith, .promote_in = 1, .promote_out = 1};
    return def;
}
QUERN_INLINE const OpDef& op_OneHot() {
    static constexpr OpDef def{.name = "OneHot", .min_in = 3, .max_in = 3, .newest = 28, .import = ops_select::import_one_hot, .infer = ops_select::infer_one_hot, .lower = ops_select::lower_one_hot};
    return def;
}
QUERN_INLINE const OpDef& op_Trilu() {
    static constexpr OpDef def{.name = "Trilu", .min_in = 1, .max_in = 2, .newest = 14, .infer = ops_select::infer_trilu, .lower = ops_select::lower_trilu};
    return def;
}
QUERN_INLINE const OpDef& op_ReverseSequence() {
    static constexpr OpDef def{.name = "ReverseSequence", .min_in = 2, .max_in = 2, .newest = 28, .infer = ops_select::infer_reverse, .lower = ops_select::lower_reverse};
    return def;
}
QUERN_INLINE const OpDef& op_NonMaxSuppression() {
    static constexpr OpDef def{.name = "NonMaxSuppression", .min_in = 2, .max_in = 5, .newest = 11, .infer = ops_select::infer_nms, .lower = ops_select::lower_nms};
    return def;
}
QUERN_END
