#pragma once
#include <algorithm>

#include "../base/guard.hpp"
#include "op.hpp"

QUERN_BEGIN

#define QUERN_OP(file, function) const OpDef& op_##function();
#include "ops.inc"
#undef QUERN_OP

QUERN_INLINE const char* op_name(const OpDef& op) noexcept { return op.name; }
QUERN_INLINE const char* op_domain(const OpDef& op) noexcept { return op.domain; }

namespace detail {
/// Functions rather than objects: nothing is constructed before main, nothing destroyed after it.
using OpFunction = const OpDef& (*)();
inline constexpr OpFunction op_functions[] = {
#define QUERN_OP(file, function) &op_##function,
#include "ops.inc"
#undef QUERN_OP
};
inline constexpr std::size_t op_total = sizeof(op_functions) / sizeof(op_functions[0]);
struct OpTable {
    const OpDef* listed[op_total];
    const OpDef* sorted[op_total];
};
inline int op_order(const OpDef* a, std::string_view domain, std::string_view name) {
    int c = std::string_view(a->name).compare(name);
    return c ? c : std::string_view(a->domain).compare(domain);
}
QUERN_INLINE const OpTable& op_table() noexcept {
    static const OpTable table = [] {
        OpTable t;
        for (std::size_t i = 0; i < op_total; ++i) t.listed[i] = t.sorted[i] = &op_functions[i]();
        std::sort(t.sorted, t.sorted + op_total, [](auto* a, auto* b) { return op_order(a, b->domain, b->name) < 0; });
        return t;
    }();
    return table;
}
}  // namespace detail

QUERN_INLINE std::span<const OpDef* const> all_ops() noexcept { return {detail::op_table().listed, detail::op_total}; }
QUERN_INLINE const OpDef* find_op(std::string_view domain, std::string_view name) noexcept {
    if (domain == "ai.onnx") domain = "";
    auto& t = detail::op_table();
    auto* end = t.sorted + detail::op_total;
    auto* it = std::lower_bound(t.sorted, end, 0, [&](const OpDef* a, int) { return detail::op_order(a, domain, name) < 0; });
    return it != end && detail::op_order(*it, domain, name) == 0 ? *it : nullptr;
}
QUERN_INLINE const OpDef& op_named(std::string_view name) {
    auto colon = name.find("::");
    const OpDef* d = colon == std::string_view::npos ? find_op("", name) : find_op(name.substr(0, colon), name.substr(colon + 2));
    if (!d) raise(ErrorCode::unsupported, "operator " + std::string(name) + " is not in this build");
    return *d;
}

QUERN_INLINE ValueId ImportCtx::constant_ints(const std::vector<std::int64_t>& v) {
    return constant(Tensor::from(std::span<const std::int64_t>(v), {static_cast<std::int64_t>(v.size())}));
}
QUERN_INLINE void ImportCtx::attr_to_input_ints(std::string_view name, std::size_t position) {
    if (!attrs.has(name)) return;
    auto v = attrs.ints(name);
    attrs.erase(name);
    while (in.size() <= position) in.push_back(no_value);
    in[position] = constant_ints(v);
}

QUERN_INLINE const Fact& InferCtx::in(int i) const {
    if (!has(i)) raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is missing");
    return *inputs[i];
}
namespace detail {
/// The content of a short integer or bool tensor as numbers; nothing for other types, ranks and sizes.
QUERN_INLINE std::optional<std::vector<std::int64_t>> small_ints(const Tensor& t) {
    if (!t.defined() || t.shape().rank() > 1 || t.count() > 1024) return std::nullopt;
    std::vector<std::int64_t> r(static_cast<std::size_t>(t.count()));
    for (std::size_t k = 0; k < r.size(); ++k) switch (t.dtype()) {
            case DType::i64: r[k] = t.data<std::int64_t>()[k]; break;
            case DType::i32: r[k] = t.data<std::int32_t>()[k]; break;
            case DType::boolean: r[k] = static_cast<const std::uint8_t*>(t.raw())[k] != 0; break;
            case DType::u8: r[k] = t.data<std::uint8_t>()[k]; break;
            case DType::i8: r[k] = t.data<std::int8_t>()[k]; break;
            case DType::i16: r[k] = t.data<std::int16_t>()[k]; break;
            case DType::u16: r[k] = t.data<std::uint16_t>()[k]; break;
            case DType::u32: r[k] = t.data<std::uint32_t>()[k]; break;
            default: return std::nullopt;
        }
    return r;
}
}  // namespace detail
QUERN_INLINE std::optional<std::vector<std::int64_t>> InferCtx::const_ints(int i) const {
    if (!has(i)) return std::nullopt;
    if (inputs[i]->value.defined()) return detail::small_ints(inputs[i]->value);
    if (!inputs[i]->symbolic) return std::nullopt;
    std::vector<std::int64_t> r;
    for (auto& d : *inputs[i]->symbolic) {
        if (!d.is_const()) return std::nullopt;
        r.push_back(d.value());
    }
    return r;
}
QUERN_INLINE std::optional<std::vector<Dim>> InferCtx::ints(int i) const {
    if (!has(i)) return std::nullopt;
    if (inputs[i]->symbolic) return inputs[i]->symbolic;
    auto c = const_ints(i);
    if (!c) return std::nullopt;
    return std::vector<Dim>(c->begin(), c->end());
}
QUERN_INLINE Dim InferCtx::fresh(const char* stem) {
    if (concrete || !fresh_counter) raise(ErrorCode::unsupported, std::string("an output size of ") + node.op->name + " does not follow from its inputs; sizes, axes and counts are read from lists of up to 1024 integers");
    return Dim::symbol(std::string(stem) + "#" + std::to_string((*fresh_counter)++));
}
QUERN_INLINE int InferCtx::axis(std::int64_t a, int rank) const {
    if (a < -rank || a >= rank)
        raise(ErrorCode::invalid_model, "axis " + std::to_string(a) + " is outside [" + std::to_string(-rank) + ", " + std::to_string(rank - 1) + "] for rank " + std::to_string(rank));
    return static_cast<int>(a < 0 ? a + rank : a);
}
QUERN_INLINE void InferCtx::need_type(int i, std::initializer_list<DType> accepted) const {
    std::string names;
    for (DType t : accepted) {
        if (in(i).dtype == t && in(i).kind == Kind::tensor) return;
        names += (names.empty() ? "" : ", ") + std::string(dtype_name(t));
    }
    raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is " + (in(i).kind == Kind::tensor ? dtype_name(in(i).dtype) : in(i).to_string()) + "; accepted: " + names);
}
QUERN_INLINE void InferCtx::need_same_type(int i, int j) const {
    if (in(i).dtype != in(j).dtype)
        raise(ErrorCode::invalid_model, "inputs " + std::to_string(i) + " and " + std::to_string(j) + " must have the same type, not " +
                                            dtype_name(in(i).dtype) + " and " + dtype_name(in(j).dtype));
}
QUERN_INLINE void InferCtx::need_rank(int i, int lo, int hi) const {
    if (!in(i).ranked || (in(i).rank() >= lo && in(i).rank() <= hi)) return;
    raise(ErrorCode::shape_mismatch, "input " + std::to_string(i) + " has rank " + std::to_string(in(i).rank()) + "; accepted: " +
                                         (lo == hi ? std::to_string(lo) : std::to_string(lo) + " to " + std::to_string(hi)));
}
QUERN_INLINE std::vector<Dim> broadcast(const std::vector<Dim>& a, const std::vector<Dim>& b) {
    std::size_t n = std::max(a.size(), b.size());
    std::vector<Dim> out(n);
    for (std::size_t i = 0; i < n; ++i) {
        std::size_t ia = i + a.size(), ib = i + b.size();
        out[i] = ia < n ? b[ib - n] : ib < n ? a[ia - n] : broadcast(a[ia - n], b[ib - n]);
    }
    return out;
}

QUERN_INLINE const Node* PatchCtx::producer(int i, std::string_view op) const {
    if (!has(i)) return nullptr;
    const Node* p = graph.producer(node().in[i]);
    return p && p->op && op == p->op->name && !*p->op->domain ? p : nullptr;
}
QUERN_INLINE const Node* PatchCtx::sole_producer(int i, std::string_view op) const {
    const Node* p = producer(i, op);
    auto v = p ? node().in[i] : 0;
    return p && v < static_cast<ValueId>(uses.size()) && uses[v] == 1 ? p : nullptr;
}
QUERN_INLINE ValueId PatchCtx::constant(std::string_view stem, Tensor t) { return graph.add_constant(graph.fresh_name(stem), std::move(t)); }
QUERN_INLINE std::vector<ValueId> PatchCtx::add(std::string_view op, std::string_view name, std::vector<ValueId> in, Attrs attrs, int n_out) {
    const std::string stem(name);  // it may be a name in graph.values, which grows
    std::vector<ValueId> out;
    for (int o = 0; o < n_out; ++o) out.push_back(graph.add_value(graph.fresh_name(stem), Fact()));
    std::string origin = node().origin;
    NodeId id = graph.add_node(op_named(op), graph.fresh_name(stem), std::move(in), out, std::move(attrs));
    graph.nodes[id].origin = origin;
    infer_node(graph, id);
    return out;
}
QUERN_INLINE void PatchCtx::replace(int o, ValueId v) {
    ValueId from = node().out[o];
    const Fact &a = graph.fact(from), &b = graph.fact(v);
    if (a.dtype != b.dtype || a.kind != b.kind || (a.ranked && b.ranked && a.rank() != b.rank()))
        raise(ErrorCode::internal, "a patch at " + place_of(node()) + " replaces " + a.to_string() + " by " + b.to_string());
    graph.replace_uses(from, v);
    changed = true;
}

QUERN_INLINE std::vector<const Fact*> facts_of(const Graph& g, const std::vector<ValueId>& ports) {
    std::vector<const Fact*> facts;
    for (ValueId v : ports) facts.push_back(v == no_value ? nullptr : &g.fact(v));
    return facts;
}
QUERN_INLINE void infer_node(Graph& g, NodeId id) {
    with_place([&] { return place_of(g.nodes[id]); }, [&] {
        Node& n = g.nodes[id];
        if (static_cast<int>(n.in.size()) < n.op->min_in || static_cast<int>(n.in.size()) > n.op->max_in)
            raise(ErrorCode::invalid_model, std::to_string(n.in.size()) + " inputs; accepted: " + std::to_string(n.op->min_in) + " to " + std::to_string(n.op->max_in));
        if (static_cast<int>(n.out.size()) < n.op->min_out || (static_cast<int>(n.out.size()) > n.op->max_out && n.op->max_out > 0))
            raise(ErrorCode::invalid_model, std::to_string(n.out.size()) + " outputs; accepted: " + std::to_string(n.op->min_out) + " to " + std::to_string(n.op->max_out));
        InferCtx ctx(n);
        std::int64_t counter = static_cast<std::int64_t>(id) << 32;  // fresh symbols keep their names when inferred again, and are no other node's
        ctx.fresh_counter = &counter;
        ctx.inputs = facts_of(g, n.in);
        for (int i = 0; i < n.op->min_in; ++i)
            if (!ctx.has(i)) raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is missing");
        for (std::size_t i = 0; i < ctx.inputs.size() && !n.op->boxed && !n.op->control; ++i)
            if (ctx.inputs[i] && ctx.inputs[i]->kind != Kind::tensor)
                raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is a " + ctx.inputs[i]->to_string() + "; accepted: a tensor");
        ctx.outputs.resize(n.out.size());
        n.op->infer(ctx);
        for (std::size_t o = 0; o < n.out.size(); ++o)
            if (n.out[o] != no_value) g.values[n.out[o]].fact = std::move(ctx.outputs[o]);
    });
}
QUERN_INLINE void infer_graph(Graph& g) {
    for (NodeId n : g.order()) infer_node(g, n);
}

QUERN_END
