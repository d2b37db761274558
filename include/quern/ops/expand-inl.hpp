// Expand and Tile: https://onnx.ai/onnx/operators/onnx__Expand.html, onnx__Tile.html.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/transpose/transpose.hpp>

QUERN_BEGIN
namespace ops_expand {

/// Content of a repeated rank-1 tensor of known length.
inline void repeat_content(InferCtx& ctx) {
    auto c = ctx.ints(0);
    const auto& d = ctx.out(0).dims;
    if (!c || c->empty() || d.size() > 1 || (d.size() == 1 && (!d[0].is_const() || d[0].value() > static_cast<std::int64_t>(ops_util::content_limit)))) return;
    std::size_t n = d.empty() ? 1 : static_cast<std::size_t>(d[0].value());
    std::vector<Dim> out;
    for (std::size_t k = 0; k < n; ++k) out.push_back((*c)[k % c->size()]);
    ops_util::give_content(ctx, 0, std::move(out));
}
QUERN_INLINE void infer_expand(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(1, {DType::i64});
    ctx.need_rank(1, 1, 1);
    auto target = ctx.ints(1);
    if (target)
        for (auto& d : *target)
            if (d.is_const() && d.value() < 0) ctx.fail("a target size of " + d.to_string() + "; 0 or more is accepted");
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    if (target) {
        ctx.set(0, x.dtype, broadcast(x.dims, *target));
        return repeat_content(ctx);
    }
    std::int64_t n = ops_util::length_of(ctx, 1);
    if (n < 0) return ctx.set_unranked(0, x.dtype);
    ctx.set(0, x.dtype, ops_util::fresh_dims(ctx, std::max<std::int64_t>(n, x.rank()), "expand"));
}
QUERN_INLINE void import_tile(ImportCtx& ctx) {
    if (ctx.opset >= 6) return;
    if (!ctx.has(1) || !ctx.has(2) || !ctx.fact(0).ranked) ctx.unsupported("Tile of opset 1 needs tiles, axis and an input of known rank");
    const Tensor &n = ctx.fact(1).value, &a = ctx.fact(2).value;
    if (!n.defined() || !a.defined() || n.count() != 1 || a.count() != 1) ctx.unsupported("Tile of opset 1 with tiles or axis that are not constants");
    std::vector<std::int64_t> repeats(static_cast<std::size_t>(ctx.fact(0).rank()), 1);
    auto rank = static_cast<std::int64_t>(repeats.size());
    double axis = ops_util::value_at(a, 0), count = ops_util::value_at(n, 0);
    if (!(axis >= -static_cast<double>(rank) && axis < static_cast<double>(rank)) || !(count >= 0 && count < 0x1p62)) ctx.invalid("tiles or axis out of range");
    auto k = static_cast<std::int64_t>(axis);
    repeats[static_cast<std::size_t>(k < 0 ? k + rank : k)] = static_cast<std::int64_t>(count);
    ctx.in = {ctx.in[0], ctx.constant_ints(repeats)};
}
QUERN_INLINE void infer_tile(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(1, {DType::i64});
    ctx.need_rank(1, 1, 1);
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    std::int64_t n = ops_util::length_of(ctx, 1);
    if (n >= 0 && n != x.rank()) ctx.fail(std::to_string(n) + " repeats for a tensor of rank " + std::to_string(x.rank()));
    auto repeats = ctx.ints(1);
    if (repeats && repeats->size() != x.dims.size()) ctx.fail(std::to_string(repeats->size()) + " repeats for a tensor of rank " + std::to_string(x.rank()));
    std::vector<Dim> out;
    for (int i = 0; i < x.rank(); ++i) {
        if (!repeats) {
            out.push_back(ctx.fresh("tile"));
            continue;
        }
        const Dim& r = (*repeats)[static_cast<std::size_t>(i)];
        if (r.is_const() && r.value() < 0) ctx.fail("a repeat of " + r.to_string() + "; 0 or more is accepted");
        out.push_back(x.dims[i] * r);
    }
    ctx.set(0, x.dtype, std::move(out));
    repeat_content(ctx);
}
QUERN_INLINE void simplify_same(PatchCtx& ctx) {
    const Fact &x = ctx.in(0), &y = ctx.graph.fact(ctx.node().out[0]);
    if (x.ranked && y.ranked && ops_util::equal_dims(x.dims, y.dims)) ctx.replace(0, ctx.node().in[0]);
}
QUERN_INLINE Lowered lower_expand(const LowerCtx& ctx) {
    movement::check_rank(ctx.out(0).rank());
    if (ctx.target.device != Device::cpu) return select(Family::transpose, ops_util::movement_problem(ctx, movement::Problem::Kind::expand), ctx.target);
    return ops_util::kernel<movement::Expand>();
}
QUERN_INLINE Lowered lower_tile(const LowerCtx& ctx) {
    movement::check_rank(2 * ctx.out(0).rank());
    if (ctx.target.device != Device::cpu) return select(Family::transpose, ops_util::movement_problem(ctx, movement::Problem::Kind::tile), ctx.target);
    return ops_util::kernel<movement::Tile>();
}

}  // namespace ops_expand

QUERN_INLINE const OpDef& op_Expand() {
    static constexpr OpDef def{.name = "Expand", .min_in = 2, .max_in = 2, .newest = 13, .infer = ops_expand::infer_expand, .simplify = ops_expand::simplify_same, .lower = ops_expand::lower_expand, .lower_device = ops_expand::lower_expand};
    return def;
}
QUERN_INLINE const OpDef& op_Tile() {
    static constexpr OpDef def{.name = "Tile", .min_in = 2, .max_in = 3, .newest = 13, .import = ops_expand::import_tile, .infer = ops_expand::infer_tile,
                               .simplify = ops_expand::simplify_same, .lower = ops_expand::lower_tile, .lower_device = ops_expand::lower_tile};
    return def;
}
QUERN_END
