// Reshape, Squeeze, Unsqueeze, Flatten: other shapes of the same elements
// (https://onnx.ai/onnx/operators/onnx__Reshape.html and the operators' own pages).
#pragma once
#include <algorithm>

#include "shape_util.hpp"

QUERN_BEGIN
namespace ops_reshape {

QUERN_INLINE void import_reshape(ImportCtx& ctx) {
    if (ctx.opset >= 5) return;
    ctx.attrs.erase("consumed_inputs");
    if (!ctx.attrs.has("shape")) ctx.invalid("the attribute 'shape' is missing");
    ctx.attr_to_input_ints("shape", 1);
}
/// Removes factors that both lists have.
inline void cancel(std::vector<Dim>& a, std::vector<Dim>& b) {
    for (std::size_t i = 0; i < b.size();) {
        auto it = std::find_if(a.begin(), a.end(), [&](const Dim& d) { return d == b[i]; });
        if (it == a.end()) { ++i; continue; }
        a.erase(it);
        b.erase(b.begin() + static_cast<std::ptrdiff_t>(i));
    }
}
inline std::vector<Dim> target_dims(const InferCtx& ctx, const std::vector<Dim>& in, std::vector<Dim> out, bool allowzero) {
    auto text = [](const std::vector<Dim>& v) {
        std::string s = "[";
        for (auto& d : v) s += (s.size() > 1 ? ", " : "") + d.to_string();
        return s + "]";
    };
    const std::string asked = text(out);
    int open = -1;
    std::vector<Dim> rest;
    for (std::size_t k = 0; k < out.size(); ++k) {
        if (out[k].is(-1)) {
            if (open >= 0) ctx.fail("the shape " + asked + " has more than one -1");
            open = static_cast<int>(k);
            continue;
        }
        if (out[k].is(0) && !allowzero) {
            if (k >= in.size()) ctx.fail("the shape " + asked + " copies dimension " + std::to_string(k) + " of " + text(in));
            out[k] = in[k];
        } else if (out[k].is_const() && out[k].value() < 0) {
            ctx.fail("the shape " + asked + " has a negative size other than -1");
        }
        rest.push_back(out[k]);
    }
    std::vector<Dim> from = in;
    cancel(from, rest);
    Dim p = ops_util::product(from), q = ops_util::product(rest);
    bool numbers = p.is_const() && q.is_const();
    if (open < 0) {
        if (numbers && !(p == q)) ctx.fail("the shape " + asked + " does not hold as many elements as " + text(in));
        return out;
    }
    if (q.is(0)) {
        if (!p.is(0)) ctx.fail("the shape " + asked + " leaves the -1 open for " + text(in));
        out[static_cast<std::size_t>(open)] = 0;
        return out;
    }
    if (numbers && p.value() % q.value()) ctx.fail("the shape " + asked + " does not divide " + text(in));
    out[static_cast<std::size_t>(open)] = floor_div(p, q);
    return out;
}
QUERN_INLINE void infer_reshape(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(1, {DType::i64});
    ctx.need_rank(1, 1, 1);
    bool allowzero = ctx.attrs.i("allowzero", 0) != 0;
    if (auto c = ctx.ints(1)) {
        if (ctx.ranked(0)) ctx.set(0, t, target_dims(ctx, ctx.in(0).dims, *c, allowzero));
        else {
            for (auto& d : *c)
                if (d.is(-1) || (d.is(0) && !allowzero)) d = ctx.fresh("reshape");
            ctx.set(0, t, *c);
        }
        ops_util::keep_content(ctx);
        return;
    }
    std::int64_t n = ops_util::length_of(ctx, 1);
    if (n < 0) return ctx.set_unranked(0, t);
    ctx.set(0, t, ops_util::fresh_dims(ctx, n, "reshape"));
}
/// PyTorch writes F.pad's amounts as Reshape(Transpose(Reshape(v, [-1, 2])[::-1]), [-1]): the same as gathering
/// from v, whose content can be followed in symbols.
inline bool pad_amounts(PatchCtx& ctx) {
    auto is = [&](ValueId v, std::initializer_list<std::int64_t> want) {
        const Tensor& t = ctx.graph.fact(v).value;
        if (!t.defined() || t.dtype() != DType::i64 || t.count() != static_cast<std::int64_t>(want.size())) return false;
        return std::equal(want.begin(), want.end(), t.data<std::int64_t>().begin());
    };
    const Node* t = ctx.producer(0, "Transpose");
    if (!t || !is(ctx.node().in[1], {-1})) return false;
    const Node* s = ctx.graph.producer(t->in[0]);
    if (!s || !s->op || std::string_view(s->op->name) != "Slice" || s->in.size() != 5 || s->in[3] == no_value || s->in[4] == no_value) return false;
    const Tensor& end = ctx.graph.fact(s->in[2]).value;
    if (!is(s->in[1], {-1}) || !is(s->in[3], {0}) || !is(s->in[4], {-1}) || !end.defined() || end.dtype() != DType::i64 || end.count() != 1) return false;
    const Node* r = ctx.graph.producer(s->in[0]);
    if (!r || !r->op || std::string_view(r->op->name) != "Reshape" || !is(r->in[1], {-1, 2})) return false;
    const Fact& v = ctx.graph.fact(r->in[0]);
    if (!v.ranked || v.rank() != 1 || !v.dims[0].is_const()) return false;
    const std::int64_t n = v.dims[0].value() / 2;
    if (n < 1 || n > 32 || end.data<std::int64_t>()[0] >= -n) return false;
    auto perm = t->attrs.ints("perm");
    if (!perm.empty() && perm != std::vector<std::int64_t>{1, 0}) return false;
    Tensor index(DType::i64, {2 * n});
    for (std::int64_t k = 0; k < 2 * n; ++k) index.data<std::int64_t>()[static_cast<std::size_t>(k)] = 2 * (n - 1 - k % n) + k / n;
    const ValueId from = r->in[0];
    Attrs attrs;
    attrs.set("axis", std::int64_t{0});
    ValueId c = ctx.constant("pad_order", std::move(index));
    ctx.replace(0, ctx.add("Gather", std::string(ctx.node().name), {from, c}, std::move(attrs))[0]);
    return true;
}
QUERN_INLINE void simplify_reshape(PatchCtx& ctx) {
    if (pad_amounts(ctx)) return;
    const Fact &x = ctx.in(0), &y = ctx.graph.fact(ctx.node().out[0]);
    if (x.ranked && y.ranked && ops_util::equal_dims(x.dims, y.dims)) return ctx.replace(0, ctx.node().in[0]);
    const Fact& s = ctx.in(1);
    const Node* p = ctx.producer(0, "Reshape");
    if (!p) p = ctx.producer(0, "Flatten");
    if (!p || !s.is_const() || s.value.dtype() != DType::i64) return;
    for (std::int64_t v : s.value.data<std::int64_t>())
        if (v == 0) return;  // would copy another dim
    ctx.replace(0, ctx.add("Reshape", ctx.node().name, {p->in[0], ctx.node().in[1]}, ctx.node().attrs)[0]);
}

QUERN_INLINE void import_axes(ImportCtx& ctx) {
    if (ctx.opset < 13) ctx.attr_to_input_ints("axes", 1);
}
QUERN_INLINE void infer_squeeze(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    std::vector<Dim> out;
    if (!ctx.has(1)) {
        for (auto& d : x.dims) {
            if (!d.is_const()) return ctx.set_unranked(0, x.dtype);  // whether it is 1 decides the rank
            if (!d.is(1)) out.push_back(d);
        }
        if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    } else if (auto axes = ctx.const_ints(1); axes && x.ranked) {
        auto drop = ops_util::axes_of(ctx, *axes, x.rank());
        for (int i = 0; i < x.rank(); ++i) {
            if (std::find(drop.begin(), drop.end(), i) == drop.end()) { out.push_back(x.dims[i]); continue; }
            if (x.dims[i].is_const() && !x.dims[i].is(1)) ctx.fail("axis " + std::to_string(i) + " of size " + x.dims[i].to_string() + " cannot be squeezed; 1 is needed");
        }
    } else {
        std::int64_t n = ops_util::length_of(ctx, 1);
        if (n < 0 || !x.ranked) return ctx.set_unranked(0, x.dtype);
        if (n > x.rank()) ctx.fail("more axes than dimensions");
        out = ops_util::fresh_dims(ctx, x.rank() - n, "squeeze");
    }
    ctx.set(0, x.dtype, std::move(out));
    ops_util::keep_content(ctx);
}
QUERN_INLINE void infer_unsqueeze(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(1, {DType::i64});
    auto axes = ctx.const_ints(1);
    std::int64_t n = axes ? static_cast<std::int64_t>(axes->size()) : ops_util::length_of(ctx, 1);
    if (!x.ranked || n < 0) return ctx.set_unranked(0, x.dtype);
    if (!axes) return ctx.set(0, x.dtype, ops_util::fresh_dims(ctx, x.rank() + n, "unsqueeze"));
    int rank = x.rank() + static_cast<int>(n);
    auto add = ops_util::axes_of(ctx, *axes, rank);
    std::vector<Dim> out;
    auto next = x.dims.begin();
    for (int i = 0; i < rank; ++i) out.push_back(std::find(add.begin(), add.end(), i) != add.end() ? Dim(1) : *next++);
    ctx.set(0, x.dtype, std::move(out));
    ops_util::keep_content(ctx);
}
QUERN_INLINE void infer_flatten(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    std::int64_t axis = ctx.attrs.i("axis", 1);
    if (!x.ranked) return ctx.set(0, x.dtype, {ctx.fresh("flatten"), ctx.fresh("flatten")});
    if (axis < -x.rank() || axis > x.rank())
        raise(ErrorCode::invalid_model, "axis " + std::to_string(axis) + " is outside [-" + std::to_string(x.rank()) + ", " + std::to_string(x.rank()) + "]");
    auto a = static_cast<std::size_t>(axis < 0 ? axis + x.rank() : axis);
    ctx.set(0, x.dtype, {ops_util::product(x.dims, 0, a), ops_util::product(x.dims, a)});
}
QUERN_INLINE void simplify_same(PatchCtx& ctx) {
    const Fact &x = ctx.in(0), &y = ctx.graph.fact(ctx.node().out[0]);
    if (x.ranked && y.ranked && ops_util::equal_dims(x.dims, y.dims)) ctx.replace(0, ctx.node().in[0]);
}
QUERN_INLINE Lowered lower_view(const LowerCtx&) { return Lowered::view(0); }

}  // namespace ops_reshape

QUERN_INLINE const OpDef& op_Reshape() {
    static constexpr OpDef def{.name = "Reshape", .min_in = 2, .max_in = 2, .newest = 25, .import = ops_reshape::import_reshape, .infer = ops_reshape::infer_reshape,
                               .simplify = ops_reshape::simplify_reshape, .lower = ops_reshape::lower_view, .lower_device = ops_reshape::lower_view};
    return def;
}
QUERN_INLINE const OpDef& op_Squeeze() {
    static constexpr OpDef def{.name = "Squeeze", .min_in = 1, .max_in = 2, .newest = 25, .import = ops_reshape::import_axes, .infer = ops_reshape::infer_squeeze,
                               .simplify = ops_reshape::simplify_same, .lower = ops_reshape::lower_view, .lower_device = ops_reshape::lower_view};
    return def;
}
QUERN_INLINE const OpDef& op_Unsqueeze() {
    static constexpr OpDef def{.name = "Unsqueeze", .min_in = 2, .max_in = 2, .newest = 25, .import = ops_reshape::import_axes, .infer = ops_reshape::infer_unsqueeze,
                               .simplify = ops_reshape::simplify_same, .lower = ops_reshape::lower_view, .lower_device = ops_reshape::lower_view};
    return def;
}
QUERN_INLINE const OpDef& op_Flatten() {
    static constexpr OpDef def{.name = "Flatten", .min_in = 1, .max_in = 1, .newest = 25, .infer = ops_reshape::infer_flatten,
                               .simplify = ops_reshape::simplify_same, .lower = ops_reshape::lower_view, .lower_device = ops_reshape::lower_view};
    return def;
}
QUERN_END
