// Rotary position embedding as exporters spell it out, and its place before what moves heads apart.
#pragma once
#include <map>

#include "match-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// x * cosine + concat(-x2, x1) * sine, where x1 and x2 are the halves of the last axis of x [N, H, S, D] and cosines and sines [N, 1, S, D] are
/// the same in both halves, becomes ONNX's RotaryEmbedding.
class RotaryMatcher {
public:
    explicit RotaryMatcher(Matcher& m) : m_(m), g_(m.g) {}

    bool match(NodeId id) {
        if (!is_op(&g_.nodes[id], "Add") || g_.nodes[id].in.size() != 2) return false;
        const ValueId y = g_.nodes[id].out[0];
        const DType t = g_.fact(y).dtype;
        if (t != DType::f32 && !is_half(t)) return false;
        for (int side = 0; side < 2; ++side) {
            const Node *straight = m_.made_by(g_.nodes[id].in[side], "Mul"), *turned = m_.made_by(g_.nodes[id].in[1 - side], "Mul");
            if (!straight || !turned) return false;
            for (int factor = 0; factor < 2; ++factor) {
                std::vector<NodeId> inside{id, m_.id_of(*straight), m_.id_of(*turned)};
                const ValueId x = turned_half(turned->in[factor], inside), sine = turned->in[1 - factor];
                if (x == no_value || (straight->in[0] != x && straight->in[1] != x)) continue;
                const ValueId cosine = straight->in[straight->in[0] == x ? 1 : 0];
                if (!(g_.fact(y).dims == g_.fact(x).dims) || !swallowed(inside, id)) return false;
                const ValueId c = table(cosine, g_.fact(x).dims), s = c == no_value ? no_value : table(sine, g_.fact(x).dims);
                if (s == no_value) return false;
                m_.replace(y, "RotaryEmbedding", {x, c, s}, {});
                return true;
            }
        }
        return false;
    }

private:
    bool swallowed(const std::vector<NodeId>& inside, NodeId root) const {
        for (NodeId i : inside)
            for (ValueId v : g_.nodes[i].out)
                if (i != root && v != no_value && !m_.swallowed(v, inside)) return false;
        return true;
    }
    /// x, of whose halves v is concat(-second, first); no_value where it is something else.
    ValueId turned_half(ValueId v, std::vector<NodeId>& inside) const {
        const Node* c = m_.made_by(v, "Concat");
        const Fact& f = g_.fact(v);
        if (!c || c->in.size() != 2 || !f.ranked || f.rank() != 4 || !f.dims[3].is_const() || f.dims[3].value() % 2) return no_value;
        const std::int64_t axis = c->attrs.i("axis", 0), half = f.dims[3].value() / 2;
        const Node* minus = m_.made_by(c->in[0], "Neg");
        if ((axis != 3 && axis != -1) || !minus) return no_value;
        const Node *first = g_.producer(c->in[1]), *second = g_.producer(minus->in[0]);
        if (!first || !second || !is_half_at(*first, c->in[1], 0, half) || !is_half_at(*second, minus->in[0], half, half)) return no_value;
        if (first->in[0] != second->in[0]) return no_value;
        for (const Node* n : {c, minus}) inside.push_back(m_.id_of(*n));  // halves may be read elsewhere, too
        return first->in[0];
    }
    bool is_half_at(const Node& n, ValueId v, std::int64_t start, std::int64_t size) const {
        std::size_t axis;
        std::int64_t at;
        return n.op && (is_op(&n, "Split") || is_op(&n, "Slice")) && g_.fact(n.in[0]).ranked && g_.fact(n.in[0]).rank() == 4 && contiguous_part(g_, n, v, axis, at) && axis == 3 && at == start &&
               g_.fact(v).dims[3].is(size) && g_.fact(n.in[0]).dims[3].is(2 * size);
    }
    /// The first half of v's rows, as [N, S, D / 2].
    ValueId table(ValueId v, const std::vector<Dim>& x) {
        const Node* n = m_.made_by(v, "Unsqueeze");
        auto axes = n ? constant_ints(g_, *n, 1) : std::nullopt;
        if (!axes || axes->size() != 1 || ((*axes)[0] != 1 && (*axes)[0] != -3)) return no_value;
        const Fact& f = g_.fact(n->in[0]);
        if (!f.ranked || f.rank() != 3 || !(f.dims[0] == x[0]) || !(f.dims[1] == x[2]) || !(f.dims[2] == x[3])) return no_value;
        return first_half(n->in[0], 0);
    }
    ValueId first_half(ValueId v, int depth) {
        if (auto at = halves_.find(v); at != halves_.end()) return at->second;
        const Node* n = g_.producer(v);
        if (!n || !n->op || *n->op->domain || depth > 6) return no_value;
        ValueId made = no_value, inner;
        double factor;
        const bool scaled = m_.scaled(v, inner, factor);
        if (is_op(n, "Concat")) {
            const std::int64_t axis = n->attrs.i("axis", 0);
            if (n->in.size() == 2 && n->in[0] == n->in[1] && (axis == 2 || axis == -1)) made = n->in[0];
        } else if (scaled || is_op(n, "Cos") || is_op(n, "Sin")) {
            if (!scaled) inner = n->in[0];
            if (!(g_.fact(inner).dims == g_.fact(v).dims)) return no_value;
            const NodeId old = m_.id_of(*n);
            const ValueId half = first_half(inner, depth + 1);
            if (half == no_value) return no_value;
            std::vector<ValueId> in = g_.nodes[old].in;
            std::replace(in.begin(), in.end(), inner, half);
            made = add_inferred(g_, *g_.nodes[old].op, std::move(in), g_.nodes[old].attrs, g_.values[v].name, g_.nodes[old].name, g_.nodes[old].origin);
        }
        if (made != no_value) halves_.emplace(v, made);
        return made;
    }
    Matcher& m_;
    Graph& g_;
    std::map<ValueId, ValueId> halves_;
};

/// Heads turn alike where they lie in a row: so the rotation goes before Reshape and Transpose, which attention takes in.
inline bool rotary_before_heads(Matcher& m, NodeId id) {
    Graph& g = m.g;
    if (!is_op(&g.nodes[id], "RotaryEmbedding")) return false;
    const std::vector<ValueId> in = g.nodes[id].in;
    const Node* moved = m.made_by(in[0], "Transpose");
    const Node* split = moved ? m.made_by(moved->in[0], "Reshape") : nullptr;
    if (!split || moved->attrs.ints("perm") != std::vector<std::int64_t>{0, 2, 1, 3} || m.sole_reader(in[0]) < 0 || m.sole_reader(split->out[0]) < 0) return false;
    const ValueId x = split->in[0], y = g.nodes[id].out[0];
    const Fact row = g.fact(x), heads = g.fact(split->out[0]);
    if (!row.ranked || row.rank() != 3 || heads.rank() != 4 || !heads.dims[2].is_const() || !(row.dims[0] == heads.dims[0]) || !(row.dims[1] == heads.dims[1])) return false;
    const Node shape = *split, transpose = *moved;
    Attrs attrs = g.nodes[id].attrs;
    attrs.set("num_heads", heads.dims[2].value());
    auto add = [&](const Node& like, std::vector<ValueId> operands, Attrs a) {
        return add_inferred(g, *like.op, std::move(operands), std::move(a), g.values[like.out[0]].name, like.name, like.origin);
    };
    std::vector<ValueId> operands = in, again = shape.in;
    operands[0] = x;
    const Node rotary = g.nodes[id];
    again[0] = add(rotary, std::move(operands), std::move(attrs));
    m.replace(y, "Transpose", {add(shape, std::move(again), shape.attrs)}, transpose.attrs);
    return true;
}

inline bool rotary(Graph& g) {
    bool changed = false, moved = false;
    {
        Matcher m(g);
        RotaryMatcher r(m);
        for (NodeId id : g.order())
            if (g.nodes[id].op && r.match(id)) changed = true;
    }
    if (changed) {
        remove_dead(g);
        infer_graph(g);
    }
    Matcher m(g);
    for (NodeId id : g.order())
        if (g.nodes[id].op && rotary_before_heads(m, id)) moved = true;
    return changed || moved;
}

}  // namespace passes_detail
QUERN_END
