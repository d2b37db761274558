// Products and what moves around them: leading dimensions that an exporter flattened come back, and transposes that keep the
// rows whole move to the side of a product where other movements are, for one of these to take them up.
#pragma once
#include "fold-inl.hpp"
#include "fuse-inl.hpp"
#include "match-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// Rows of A times a constant matrix, and at most a bias that is a row.
inline bool is_row_product(const Graph& g, const Node& n) {
    bool gemm = is_op(&n, "Gemm");
    if (!gemm && !is_op(&n, "MatMul") && !is_op(&n, "FusedMatMul", "quern")) return false;
    if (n.attrs.i("transA", 0) || n.in.size() < 2 || n.in[0] == no_value || n.out.size() != 1) return false;
    const Fact &a = g.fact(n.in[0]), &b = g.fact(n.in[1]), &y = g.fact(n.out[0]);
    if (!a.ranked || a.rank() < 2 || !y.ranked || y.rank() != a.rank() || b.rank() != 2 || !b.is_const() || a.dtype != DType::f32) return false;
    if (n.in.size() > 3 && n.in[3] != no_value) return false;
    if (n.in.size() < 3 || n.in[2] == no_value) return true;
    const Fact& bias = g.fact(n.in[2]);
    if (!bias.ranked || bias.rank() > y.rank()) return false;
    for (int i = 0; i + 1 < bias.rank(); ++i)
        if (!bias.dims[static_cast<std::size_t>(i)].is(1)) return false;
    return true;
}
inline bool is_movement(const Node* n) {
    for (const char* op : {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split", "Gather", "Slice"})
        if (is_op(n, op)) return true;
    return is_op(n, "FusedAttention", "quern");
}
/// The permutation, when it keeps the last dimension.
inline std::vector<std::int64_t> row_perm(const Node& n) {
    std::vector<std::int64_t> perm = n.attrs.ints("perm");
    if (perm.empty() || perm.back() != static_cast<std::int64_t>(perm.size()) - 1) perm.clear();
    return perm;
}

/// MatMul(x, Transpose(constant)), which folding left: the product reads the constant turned.
inline bool turn_weights(Graph& g) {
    bool changed = false;
    const std::vector<char> right = right_sides(g);
    for (Node& n : g.nodes) {
        if (!is_op(&n, "MatMul")) continue;
        const Node* t = g.producer(n.in[1]);
        if (!t || !t->op || !is_turned_weight(g, *t, right)) continue;
        n.op = &op_named("quern::FusedMatMul");
        n.in[1] = t->in[0];
        n.attrs.set("transB", std::int64_t{1});
        changed = true;
    }
    return changed;
}
/// Reshape([L..., K] to [M, K]) -> product -> Reshape([M, N] to [L..., N]) becomes the product over [L..., K].
inline bool unflatten(Matcher& m, NodeId id) {
    Graph& g = m.g;
    const Node& n = g.nodes[id];
    if (!is_row_product(g, n) || g.fact(n.in[0]).rank() != 2) return false;
    NodeId r = m.sole_reader(n.out[0]);
    if (r < 0 || !is_op(&g.nodes[r], "Reshape") || g.nodes[r].in[0] != n.out[0]) return false;
    ValueId y = g.nodes[r].out[0], a = n.in[0];
    const Fact& out = g.fact(y);
    if (!out.ranked || out.rank() < 3 || !(out.dims.back() == g.fact(n.out[0]).dims.back())) return false;
    std::vector<Dim> want(out.dims.begin(), out.dims.end() - 1);
    want.push_back(g.fact(a).dims.back());
    const Node* before = m.made_by(a, "Reshape");
    ValueId x = before && g.fact(before->in[0]).ranked && g.fact(before->in[0]).dims == want ? before->in[0] : no_value;
    if (x == no_value) {
        std::vector<std::int64_t> shape;
        int open = 0;
        for (const Dim& d : want) {
            if (d.is_const() && d.value() < 1) return false;
            open += !d.is_const();
            shape.push_back(d.is_const() ? d.value() : -1);
        }
        bool square = g.fact(a).dims.back() == out.dims.back();  // the same shape before and after
        if (open > 1 && !square) return false;
        ValueId s = open > 1 ? g.nodes[r].in[1] : add_ints(g, g.values[a].name, shape);
        x = g.add_value(g.fresh_name(g.values[a].name), Fact::of(DType::f32, want));
        Attrs attrs;
        attrs.set("allowzero", open > 1 ? g.nodes[r].attrs.i("allowzero", 0) : std::int64_t{0});
        g.add_node(op_named("Reshape"), g.fresh_name(g.nodes[id].name), {a, s}, {x}, std::move(attrs));
    }
    const Node& product = g.nodes[id];  // nodes may have moved
    Attrs attrs;
    for (const char* name : {"transB", narrow_type})
        if (product.attrs.has(name)) attrs.set(name, product.attrs.i(name, 0));
    if (product.attrs.has("alpha")) attrs.set("alpha", product.attrs.f("alpha", 1));
    std::vector<ValueId> in = product.in;
    in[0] = x;
    m.replace(y, "quern::FusedMatMul", std::move(in), std::move(attrs));
    return true;
}
/// Puts Transpose(perm) of `from` before `to`, which no node makes yet.
inline void add_transpose(Graph& g, ValueId from, ValueId to, const std::vector<std::int64_t>& perm) {
    Attrs attrs;
    attrs.set("perm", perm);
    g.add_node(op_named("Transpose"), g.fresh_name(g.values[to].name), {from}, {to}, std::move(attrs));
}
/// product(Transpose(x)) -> movements: the transpose goes after the product.
inline bool sink_transpose(Matcher& m, NodeId id) {
    Graph& g = m.g;
    const Node& n = g.nodes[id];
    if (!is_row_product(g, n)) return false;
    const Node* t = m.made_by(n.in[0], "Transpose");
    if (!t) return false;
    std::vector<std::int64_t> perm = row_perm(*t);
    if (perm.empty() || is_movement(g.producer(t->in[0]))) return false;
    for (NodeId r : m.readers(n.in[0]))
        if (!g.nodes[r].op || !is_row_product(g, g.nodes[r])) return false;
    if (m.readers(n.out[0]).empty()) return false;
    for (NodeId r : m.readers(n.out[0]))
        if (!is_movement(&g.nodes[r])) return false;
    ValueId x = t->in[0], y = n.out[0];
    Fact f = g.fact(y);
    f.value = Tensor();
    for (std::size_t i = 0; i < perm.size(); ++i) f.dims[static_cast<std::size_t>(perm[i])] = g.fact(y).dims[i];
    ValueId z = g.add_value(g.fresh_name(g.values[y].name), std::move(f));
    g.nodes[id].in[0] = x;
    g.nodes[id].out[0] = z;
    g.values[z].producer = id;
    g.values[y].producer = -1;
    add_transpose(g, z, y, perm);
    return true;
}
/// movement -> product -> Transpose: the transpose goes before the product.
inline bool hoist_transpose(Matcher& m, NodeId id) {
    Graph& g = m.g;
    const Node& n = g.nodes[id];
    if (!is_row_product(g, n) || !is_movement(g.producer(n.in[0])) || m.sole_reader(n.in[0]) != id) return false;
    NodeId r = m.sole_reader(n.out[0]);
    if (r < 0 || !is_op(&g.nodes[r], "Transpose")) return false;
    std::vector<std::int64_t> perm = row_perm(g.nodes[r]);
    if (perm.empty()) return false;
    ValueId a = n.in[0], y = g.nodes[r].out[0];
    Fact f = g.fact(a);
    f.value = Tensor();
    for (std::size_t i = 0; i < perm.size(); ++i) f.dims[i] = g.fact(a).dims[static_cast<std::size_t>(perm[i])];
    ValueId z = g.add_value(g.fresh_name(g.values[a].name), std::move(f));
    g.remove_node(r);
    g.values[g.nodes[id].out[0]].producer = -1;
    g.nodes[id].in[0] = z;
    g.nodes[id].out[0] = y;
    g.values[y].producer = id;
    add_transpose(g, a, z, perm);
    return true;
}
/// An addition to rows times constant weights.
inline bool has_constant_weights(const Graph& g, const Node& add) {
    if (!is_op(&add, "Add")) return false;
    for (ValueId v : add.in)
        if (const Node* n = g.producer(v); n && n->op && is_row_product(g, *n)) return true;
    return false;
}
inline bool products(Graph& g, const PassContext&) {
    bool changed = turn_weights(g);
    std::vector<int> uses = g.use_counts();
    for (NodeId id : g.order())
        if (g.nodes[id].op && has_constant_weights(g, g.nodes[id]) && fuse_bias(g, id, uses)) changed = true, uses.resize(g.values.size(), 1);
    for (auto rule : {&unflatten, &sink_transpose, &hoist_transpose}) {
        Matcher m(g);
        for (NodeId id : g.order())
            if (g.nodes[id].op && rule(m, id)) changed = true;
        if (changed) remove_dead(g);
    }
    return changed;
}

}  // namespace passes_detail
QUERN_END
