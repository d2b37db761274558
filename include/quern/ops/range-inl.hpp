// Range, ConstantOfShape, EyeLike: https://onnx.ai/onnx/operators/onnx__Range.html and theirs.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/generate/generate.hpp>

QUERN_BEGIN
namespace ops_range {

/// The length in numbers where the three inputs are constants.
inline std::optional<std::int64_t> constant_length(const InferCtx& ctx) {
    for (int i = 0; i < 3; ++i)
        if (!ctx.in(i).value.defined() || ctx.in(i).value.count() != 1) return std::nullopt;
    double v[3];
    for (int i = 0; i < 3; ++i) v[i] = ops_util::value_at(ctx.in(i).value, 0);
    return generate::range_length(v[0], v[1], v[2]);
}
QUERN_INLINE void infer_range(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f64, DType::i16, DType::i32, DType::i64, DType::f16, DType::bf16});
    ctx.need_same_type(1, 0);
    ctx.need_same_type(2, 0);
    for (int i = 0; i < 3; ++i)
        if (ctx.ranked(i))
            for (auto& d : ctx.in(i).dims)
                if (d.is_const() && !d.is(1)) ctx.fail("start, limit and delta must be scalars");
    auto start = ctx.ints(0), limit = ctx.ints(1), delta = ctx.ints(2);
    if (start && limit && delta && !start->empty() && !limit->empty() && !delta->empty() && (*delta)[0].is_const()) {
        const Dim &s = (*start)[0], &l = (*limit)[0];
        std::int64_t d = (*delta)[0].value();
        if (d == 0) ctx.fail("a delta of 0; any other is accepted");
        Dim n;
        if (s.is_const() && l.is_const()) n = generate::range_length(s.value(), l.value(), d);
        else {
            Dim span = d > 0 ? l - s : s - l;
            n = max(Dim(0), d == 1 || d == -1 ? span : ceil_div(span, d > 0 ? Dim(d) : Dim(0) - Dim(d)));
        }
        ctx.set(0, t, {n});
        if (!n.is_const() || n.value() > static_cast<std::int64_t>(ops_util::content_limit)) return;
        std::vector<Dim> content;
        for (std::int64_t i = 0; i < n.value(); ++i) content.push_back(s + Dim(i) * (*delta)[0]);
        return ops_util::give_content(ctx, 0, std::move(content));
    }
    if (auto n = constant_length(ctx)) return ctx.set(0, t, {Dim(*n)});
    ctx.set(0, t, {ctx.concrete ? Dim(0) : ctx.fresh("range")});
}
QUERN_INLINE Lowered lower_range(const LowerCtx&) { return ops_util::kernel<generate::Range>(); }

QUERN_INLINE void infer_fill(InferCtx& ctx) {
    Tensor value = ctx.attrs.tensor("value");
    if (value.defined() && value.count() != 1) raise(ErrorCode::invalid_model, "value has " + std::to_string(value.count()) + " elements; 1 is needed");
    DType t = value.defined() ? value.dtype() : DType::f32;
    ctx.need_type(0, {DType::i64});
    ctx.need_rank(0, 0, 1);
    auto shape = ctx.ints(0);
    if (!shape) {
        std::int64_t n = ops_util::length_of(ctx, 0);
        return n < 0 ? ctx.set_unranked(0, t) : ctx.set(0, t, ops_util::fresh_dims(ctx, n, "shape"));
    }
    for (auto& d : *shape)
        if (d.is_const() && d.value() < 0) ctx.fail("a size of " + d.to_string() + "; 0 or more is accepted");
    ctx.set(0, t, *shape);
    if (!ops_util::content_type(t) || dtype_bits(t) < 8 || shape->size() > 1) return;
    const Dim n = shape->empty() ? Dim(1) : (*shape)[0];
    if (!n.is_const() || n.value() > static_cast<std::int64_t>(ops_util::content_limit)) return;
    Dim v = saturated<std::int64_t>(ops_util::value_at(value, 0));
    if (t == DType::i64) v = value.data<std::int64_t>()[0];
    if (t == DType::u64) return;
    ops_util::give_content(ctx, 0, std::vector<Dim>(static_cast<std::size_t>(n.value()), v));
}
QUERN_INLINE Lowered lower_fill(const LowerCtx& ctx) {
    if (ctx.target.device == Device::cpu) return ops_util::kernel<generate::Fill>(ctx.attrs.tensor("value"));
    movement::Problem p = ops_util::movement_problem(ctx, movement::Problem::Kind::fill);
    p.value = ctx.attrs.tensor("value").defined() ? ctx.attrs.tensor("value").aligned() : Tensor();
    return select(Family::transpose, p, ctx.target);
}

inline DType eye_type(const Attrs& a, DType input) {
    std::int64_t t = a.i("dtype", static_cast<std::int64_t>(input));
    if (t <= 0 || t >= dtype_count) raise(ErrorCode::invalid_model, "dtype " + std::to_string(t) + " is no element type");
    return static_cast<DType>(t);
}
QUERN_INLINE void infer_eye(InferCtx& ctx) {
    ctx.need_rank(0, 2, 2);
    DType t = eye_type(ctx.attrs, ctx.in(0).dtype);
    if (!ctx.ranked(0)) return ctx.set(0, t, {ctx.fresh("eye"), ctx.fresh("eye")});
    ctx.set(0, t, ctx.in(0).dims);
}
QUERN_INLINE Lowered lower_eye(const LowerCtx& ctx) {
    return ops_util::kernel<generate::Eye>(ops_util::scalar(ctx.out(0).dtype, 1), ctx.attrs.i("k", 0));
}

/// A value under 8 bits is expanded in whole bytes.
inline void import_fill(ImportCtx& ctx) {
    const Tensor v = ctx.attrs.tensor("value");
    const DType wide = v.defined() ? ops_util::whole_bytes(v.dtype()) : DType::undefined;
    if (wide == DType::undefined || v.count() != 1) return;
    Attrs to, back;
    to.set("to", static_cast<std::int64_t>(wide));
    back.set("to", static_cast<std::int64_t>(v.dtype()));
    ValueId x = ctx.add("Cast", {ctx.constant(v.reshaped({}))}, std::move(to))[0];
    ctx.finish("Cast", {ctx.add("Expand", {x, ctx.in[0]})[0]}, std::move(back));
}

}  // namespace ops_range

QUERN_INLINE const OpDef& op_Range() {
    static constexpr OpDef def{.name = "Range", .min_in = 3, .max_in = 3, .newest = 27, .infer = ops_range::infer_range, .lower = ops_range::lower_range, .compute = Compute::arith};
    return def;
}
QUERN_INLINE const OpDef& op_ConstantOfShape() {
    static constexpr OpDef def{.name = "ConstantOfShape", .min_in = 1, .max_in = 1, .newest = 25, .import = ops_range::import_fill, .infer = ops_range::infer_fill, .lower = ops_range::lower_fill, .lower_device = ops_range::lower_fill};
    return def;
}
QUERN_INLINE const OpDef& op_EyeLike() {
    static constexpr OpDef def{.name = "EyeLike", .min_in = 1, .max_in = 1, .newest = 22, .infer = ops_range::infer_eye, .lower = ops_range::lower_eye};
    return def;
}
QUERN_END
