// Transpose (https://onnx.ai/onnx/operators/onnx__Transpose.html).
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/transpose/transpose.hpp>

QUERN_BEGIN
namespace ops_transpose {

inline std::vector<int> perm_of(const Attrs& attrs, int rank) {
    auto p = attrs.ints("perm");
    std::vector<int> r(static_cast<std::size_t>(rank));
    if (!attrs.has("perm")) {
        for (int i = 0; i < rank; ++i) r[i] = rank - 1 - i;
        return r;
    }
    std::vector<bool> seen(static_cast<std::size_t>(rank));
    bool good = static_cast<int>(p.size()) == rank;
    for (std::size_t i = 0; good && i < p.size(); ++i) {
        std::int64_t a = p[i] < 0 ? p[i] + rank : p[i];
        good = a >= 0 && a < rank && !seen[static_cast<std::size_t>(a)];
        if (good) seen[static_cast<std::size_t>(a)] = true, r[i] = static_cast<int>(a);
    }
    if (!good) raise(ErrorCode::invalid_model, "perm must name each of the " + std::to_string(rank) + " axes once");
    return r;
}
QUERN_INLINE void infer(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    std::vector<Dim> out;
    for (int a : perm_of(ctx.attrs, x.rank())) out.push_back(x.dims[a]);
    ctx.set(0, x.dtype, std::move(out));
    ops_util::keep_content(ctx);
}
QUERN_INLINE void simplify(PatchCtx& ctx) {
    if (!ctx.in(0).ranked) return;
    int rank = ctx.in(0).rank();
    auto perm = perm_of(ctx.node().attrs, rank);
    auto identity = [](const std::vector<int>& p) {
        for (std::size_t i = 0; i < p.size(); ++i)
            if (p[i] != static_cast<int>(i)) return false;
        return true;
    };
    if (identity(perm)) return ctx.replace(0, ctx.node().in[0]);
    const Node* p = ctx.producer(0, "Transpose");
    if (!p) return;
    auto first = perm_of(p->attrs, rank);
    std::vector<std::int64_t> both;
    for (int a : perm) both.push_back(first[a]);
    Attrs attrs;
    attrs.set("perm", both);
    if (identity({both.begin(), both.end()})) return ctx.replace(0, p->in[0]);
    ctx.replace(0, ctx.add("Transpose", ctx.node().name, {p->in[0]}, std::move(attrs))[0]);
}
QUERN_INLINE Lowered lower(const LowerCtx& ctx) {
    auto perm = perm_of(ctx.attrs, ctx.in(0).rank());
    movement::check_rank(ctx.in(0).rank());
    int last = -1;  // axes of size 1 may go anywhere: nothing moves then
    bool moves = false;
    for (int a : perm) {
        if (ctx.in(0).dims[a].is(1)) continue;
        if (a < last) moves = true;
        last = a;
    }
    if (!moves) return Lowered::view(0);
    if (ctx.target.device != Device::cpu) {
        movement::Problem p = ops_util::movement_problem(ctx, movement::Problem::Kind::transpose);
        p.perm = std::move(perm);
        return select(Family::transpose, p, ctx.target);
    }
    return ops_util::kernel<movement::Transpose>(std::move(perm));
}

inline void import(ImportCtx& ctx) { ops_util::import_through_bytes(ctx, "Transpose"); }

}  // namespace ops_transpose

QUERN_INLINE const OpDef& op_Transpose() {
    static constexpr OpDef def{.name = "Transpose", .min_in = 1, .max_in = 1, .newest = 25, .import = ops_transpose::import, .infer = ops_transpose::infer, .simplify = ops_transpose::simplify, .lower = ops_transpose::lower, .lower_device = ops_transpose::lower};
    return def;
}
QUERN_END
