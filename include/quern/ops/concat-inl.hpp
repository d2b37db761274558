// Concat and Split: https://onnx.ai/onnx/operators/onnx__Concat.html, onnx__Split.html.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/concat/concat.hpp>

QUERN_BEGIN
namespace ops_concat {

QUERN_INLINE void import_concat(ImportCtx& ctx) {
    if (ctx.opset < 4 && !ctx.attrs.has("axis")) ctx.attrs.set("axis", std::int64_t{1});
    if (!ctx.attrs.has("axis")) ctx.invalid("the attribute 'axis' is missing");
}
QUERN_INLINE void infer_concat(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    const Fact* shape = nullptr;
    bool all_ranked = true;
    for (int i = 0; i < ctx.n_in(); ++i) {
        if (!ctx.has(i)) ctx.fail("input " + std::to_string(i) + " is missing");
        ctx.need_same_type(i, 0);
        if (!ctx.ranked(i)) all_ranked = false;
        else if (!shape) shape = &ctx.in(i);
    }
    if (!shape) return ctx.set_unranked(0, t);
    int rank = shape->rank(), axis = ctx.axis(ctx.attrs.i("axis", 1), rank);
    std::vector<Dim> out = shape->dims, lengths;
    std::vector<Dim> content;
    bool known = rank == 1;
    for (int i = 0; i < ctx.n_in(); ++i) {
        if (!ctx.ranked(i)) continue;
        const auto& d = ctx.in(i).dims;
        if (ctx.in(i).rank() != rank) ctx.fail("inputs of ranks " + std::to_string(rank) + " and " + std::to_string(ctx.in(i).rank()) + "; they must be equal");
        lengths.push_back(d[axis]);
        for (int k = 0; k < rank; ++k)
            if (k != axis) out[k] = ops_util::same_dim(ctx, out[k], d[k], "concatenation");
        if (known) {
            auto c = ctx.ints(i);
            if (c && content.size() + c->size() <= ops_util::content_limit) content.insert(content.end(), c->begin(), c->end());
            else known = false;
        }
    }
    // In pairs: adding many sizes one by one would copy an ever longer sum.
    for (; lengths.size() > 1; lengths.resize((lengths.size() + 1) / 2))
        for (std::size_t i = 0; i < lengths.size(); i += 2) lengths[i / 2] = i + 1 < lengths.size() ? lengths[i] + lengths[i + 1] : lengths[i];
    out[axis] = lengths[0];
    if (!all_ranked) {
        out[axis] = ctx.fresh("concat");
        known = false;
    }
    ctx.set(0, t, std::move(out));
    if (known) ops_util::give_content(ctx, 0, std::move(content));
}
QUERN_INLINE void simplify_concat(PatchCtx& ctx) {
    if (ctx.node().in.size() == 1) return ctx.replace(0, ctx.node().in[0]);
    std::vector<ValueId> kept;  // parts of length 0 add nothing
    for (std::size_t i = 0; i < ctx.node().in.size(); ++i) {
        const Fact& f = ctx.in(static_cast<int>(i));
        if (!f.ranked) return;
        std::int64_t a = ctx.node().attrs.i("axis", 1);
        a = a < 0 ? a + f.rank() : a;
        if (a < 0 || a >= f.rank() || !f.dims[static_cast<std::size_t>(a)].is(0)) kept.push_back(ctx.node().in[i]);
    }
    if (kept.empty() || kept.size() == ctx.node().in.size()) return;
    ctx.replace(0, ctx.add("Concat", ctx.node().name, std::move(kept), ctx.node().attrs)[0]);
}
QUERN_INLINE Lowered lower_concat(const LowerCtx& ctx) {
    int rank = ctx.out(0).rank();
    movement::check_rank(rank);
    if (ctx.n_in() == 1) return Lowered::view(0);
    if (ctx.target.device != Device::cpu) {
        movement::Problem p = ops_util::movement_problem(ctx, movement::Problem::Kind::concat);
        p.axis = movement::norm_axis(ctx.attrs.i("axis", 1), rank);
        return select(Family::transpose, p, ctx.target);
    }
    return ops_util::kernel<movement::Concat>(movement::norm_axis(ctx.attrs.i("axis", 1), rank), rank);
}

QUERN_INLINE void import_split(ImportCtx& ctx) {
    if (ctx.opset < 13 && ctx.attrs.has("split")) ctx.attr_to_input_ints("split", 1);
    if (ctx.opset < 18 && !ctx.has(1)) ctx.attrs.set("num_outputs", std::int64_t{ctx.n_out});
}
QUERN_INLINE void infer_split(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    const int n = ctx.n_out();
    if (!x.ranked) {
        for (int o = 0; o < n; ++o) ctx.set_unranked(o, x.dtype);
        return;
    }
    const int axis = ctx.axis(ctx.attrs.i("axis", 0), x.rank());
    const Dim d = x.dims[axis];
    std::vector<Dim> sizes;
    if (ctx.has(1)) {
        ctx.need_type(1, {DType::i64, DType::i32});
        if (auto c = ctx.ints(1)) {
            if (static_cast<int>(c->size()) != n) ctx.fail(std::to_string(c->size()) + " sizes for " + std::to_string(n) + " outputs");
            sizes = *c;
            Dim sum = 0;
            for (auto& s : sizes) {
                if (s.is_const() && s.value() < 0) ctx.fail("a part of size " + s.to_string());
                sum += s;
            }
            if (sum.is_const() && d.is_const() && !(sum == d)) ctx.fail("the parts are " + sum.to_string() + " long together, the axis " + d.to_string());
        } else {
            std::int64_t len = ops_util::length_of(ctx, 1);
            if (len >= 0 && len != n) ctx.fail(std::to_string(len) + " sizes for " + std::to_string(n) + " outputs");
            sizes = ops_util::fresh_dims(ctx, n, "split");
        }
    } else {
        std::int64_t parts = ctx.attrs.i("num_outputs", n);
        if (parts != n) raise(ErrorCode::invalid_model, "num_outputs is " + std::to_string(parts) + ", the node has " + std::to_string(n));
        Dim chunk = ceil_div(d, parts);
        bool even = floor_div(d, parts) == chunk;
        for (int o = 0; o < n; ++o) sizes.push_back(even ? chunk : max(Dim(0), min(chunk, d - chunk * Dim(o))));
    }
    auto content = x.rank() == 1 ? ctx.ints(0) : std::nullopt;
    std::size_t at = 0;
    for (int o = 0; o < n; ++o) {
        std::vector<Dim> dims = x.dims;
        dims[axis] = sizes[o];
        ctx.set(o, x.dtype, std::move(dims));
        if (!content || !sizes[o].is_const() || at + static_cast<std::size_t>(sizes[o].value()) > content->size()) { content.reset(); continue; }
        std::size_t to = at + static_cast<std::size_t>(sizes[o].value());
        ops_util::give_content(ctx, o, {content->begin() + static_cast<std::ptrdiff_t>(at), content->begin() + static_cast<std::ptrdiff_t>(to)});
        at = to;
    }
}
QUERN_INLINE void simplify_split(PatchCtx& ctx) {
    const Fact& x = ctx.in(0);
    if (ctx.node().out.size() != 1 || ctx.node().out[0] == no_value || !x.ranked) return;
    const Fact& y = ctx.graph.fact(ctx.node().out[0]);
    if (y.ranked && ops_util::equal_dims(x.dims, y.dims)) ctx.replace(0, ctx.node().in[0]);
}
QUERN_INLINE Lowered lower_split(const LowerCtx& ctx) {
    movement::check_rank(ctx.in(0).rank());
    if (ctx.target.device != Device::cpu) {
        movement::Problem p = ops_util::movement_problem(ctx, movement::Problem::Kind::split);
        p.axis = movement::norm_axis(ctx.attrs.i("axis", 0), ctx.in(0).rank());
        for (const Fact* f : ctx.outputs) p.all_outputs = p.all_outputs && f;
        return select(Family::transpose, p, ctx.target);
    }
    return ops_util::kernel<movement::Split>(movement::norm_axis(ctx.attrs.i("axis", 0), ctx.in(0).rank()));
}

}  // namespace ops_concat

QUERN_INLINE const OpDef& op_Concat() {
    static constexpr OpDef def{.name = "Concat", .min_in = 1, .newest = 13, .import = ops_concat::import_concat, .infer = ops_concat::infer_concat,
                               .simplify = ops_concat::simplify_concat, .lower = ops_concat::lower_concat, .lower_device = ops_concat::lower_concat};
    return def;
}
QUERN_INLINE const OpDef& op_Split() {
    static constexpr OpDef def{.name = "Split", .min_in = 1, .max_in = 2, .max_out = 1 << 20, .newest = 18, .import = ops_concat::import_split, .infer = ops_concat::infer_split,
                               .simplify = ops_concat::simplify_split, .lower = ops_concat::lower_split, .lower_device = ops_concat::lower_split};
    return def;
}
QUERN_END
