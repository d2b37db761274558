// Slice (https://onnx.ai/onnx/operators/onnx__Slice.html).
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/transpose/slice.hpp>

QUERN_BEGIN
namespace ops_slice {

QUERN_INLINE void import(ImportCtx& ctx) {
    if (ctx.opset >= 10) return;
    if (!ctx.attrs.has("starts") || !ctx.attrs.has("ends")) ctx.invalid("the attributes 'starts' and 'ends' are needed");
    ctx.attr_to_input_ints("starts", 1);
    ctx.attr_to_input_ints("ends", 2);
    ctx.attr_to_input_ints("axes", 3);
}
inline bool beyond(const Dim& e) { return e.is_const() && (e.value() >= INT64_MAX / 2 || e.value() == INT32_MAX); }
inline bool below(const Dim& e) { return e.is_const() && (e.value() <= INT64_MIN / 2 || e.value() == INT32_MIN || e.value() == -INT32_MAX); }

/// A bound made non-negative for a positive step: itself, or counted from the end. Nothing where
/// its sign is not known.
inline std::optional<Dim> from_front(const Dim& d, const Dim& v) {
    if (below(v)) return Dim(0);
    if (v.nonnegative()) return v;
    if (compare(v, 0) == -1) return max(Dim(0), d + v);
    return std::nullopt;
}
/// The length of a slice, where it can be told.
inline std::optional<Dim> length(const Dim& d, const Dim& start, const Dim& end, std::int64_t step) {
    if (d.is_const() && start.is_const() && end.is_const())
        return Dim(movement::slice_range(d.value(), start.value(), end.value(), step).length);
    if (step < 0) {
        bool from_last = start.is(-1) || beyond(start) || start == d - 1 || start == d;
        if (from_last && below(end)) return step == INT64_MIN ? min(d, 1) : ceil_div(d, -step);
        return std::nullopt;
    }
    auto s = from_front(d, start);
    if (!s) return std::nullopt;
    Dim n;
    bool to_end = beyond(end) || end == d;
    if (to_end && start.is_const() && start.value() < 0) n = below(start) ? d : min(d, Dim(0) - start);
    else if (to_end) n = max(Dim(0), d - *s);
    else {
        auto e = from_front(d, end);
        if (!e) return std::nullopt;
        if (!(compare(end, 0) == -1)) e = min(*e, d);
        n = max(Dim(0), *e - *s);
    }
    return step == 1 ? n : ceil_div(n, step);
}
inline void slice_content(InferCtx& ctx, const std::vector<Dim>& c, const Dim& start, const Dim& end, std::int64_t step) {
    if (!start.is_const() || !end.is_const()) return;
    auto r = movement::slice_range(static_cast<std::int64_t>(c.size()), start.value(), end.value(), step);
    std::vector<Dim> out;
    for (std::int64_t k = 0; k < r.length; ++k) out.push_back(c[static_cast<std::size_t>(r.start + k * step)]);
    ops_util::give_content(ctx, 0, std::move(out));
}
QUERN_INLINE void infer(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    for (int i = 1; i < ctx.n_in(); ++i)
        if (ctx.has(i)) {
            ctx.need_type(i, {DType::i64, DType::i32});
            ctx.need_rank(i, 1, 1);
        }
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    const int rank = x.rank();
    auto starts = ctx.ints(1), ends = ctx.ints(2);
    auto axes = ctx.has(3) ? ctx.const_ints(3) : std::nullopt;
    auto steps = ctx.has(4) ? ctx.const_ints(4) : std::nullopt;
    std::int64_t n = -1;
    for (int i = 1; i < ctx.n_in() && i < 5; ++i) {
        if (!ctx.has(i)) continue;
        std::int64_t k = ops_util::length_of(ctx, i);
        if (k >= 0 && n >= 0 && k != n) ctx.fail("starts, ends, axes and steps must have the same length, not " + std::to_string(n) + " and " + std::to_string(k));
        if (k >= 0) n = k;
    }
    std::vector<Dim> out = x.dims;
    if (n < 0 || (ctx.has(3) && !axes)) return ctx.set(0, x.dtype, ops_util::fresh_dims(ctx, rank, "slice"));
    if (n > rank) ctx.fail("bounds for " + std::to_string(n) + " axes of a tensor of rank " + std::to_string(rank));
    std::vector<int> at;
    for (int k = 0; k < n; ++k) at.push_back(axes ? ctx.axis((*axes)[k], rank) : k);
    for (int k = 0; k < n; ++k) {
        std::optional<Dim> len;
        if (steps && (*steps)[k] == 0) raise(ErrorCode::invalid_model, "a step of 0; any other is accepted");
        if (starts && ends && (steps || !ctx.has(4))) len = length(x.dims[at[k]], (*starts)[k], (*ends)[k], steps ? (*steps)[k] : 1);
        out[at[k]] = len ? *len : ctx.fresh("slice");
    }
    ctx.set(0, x.dtype, std::move(out));
    if (rank == 1 && n == 1 && starts && ends && (steps || !ctx.has(4)))
        if (auto c = ctx.ints(0)) slice_content(ctx, *c, (*starts)[0], (*ends)[0], steps ? (*steps)[0] : 1);
    if (n == 0) ops_util::keep_content(ctx);
}
QUERN_INLINE void simplify(PatchCtx& ctx) {
    const Fact &x = ctx.in(0), &y = ctx.graph.fact(ctx.node().out[0]);
    if (!x.ranked || !y.ranked || !ops_util::equal_dims(x.dims, y.dims)) return;
    if (ctx.has(4)) {
        const Tensor& s = ctx.in(4).value;
        if (!s.defined() || (s.dtype() != DType::i64 && s.dtype() != DType::i32)) return;
        for (std::int64_t k = 0; k < s.count(); ++k)
            if (ops_util::value_at(s, k) < 0) return;
    }
    ctx.replace(0, ctx.node().in[0]);
}
QUERN_INLINE Lowered lower(const LowerCtx& ctx) {
    movement::check_rank(ctx.in(0).rank());
    if (ctx.target.device != Device::cpu) return select(Family::transpose, ops_util::movement_problem(ctx, movement::Problem::Kind::slice), ctx.target);
    return ops_util::kernel<movement::Slice>();
}

}  // namespace ops_slice

QUERN_INLINE const OpDef& op_Slice() {
    static constexpr OpDef def{.name = "Slice", .min_in = 3, .max_in = 5, .newest = 13, .import = ops_slice::import, .infer = ops_slice::infer,
                               .simplify = ops_slice::simplify, .lower = ops_slice::lower, .lower_device = ops_slice::lower};
    return def;
}
QUERN_END
