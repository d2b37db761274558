// Rotary position embedding as exporters spell it out, and its place before what moves heads apart.
#pragma once
#include <cstring>
#include <map>
#include <utility>

#include "match-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// x * cosine + turned(x) * sine, x [N, H, S, R] or [N, S, H, R], becomes ONNX's RotaryEmbedding. turned(x) is (-x2, x1), where x1 and x2 are the halves
/// of the last axis, or (interleaved) the two values of each pair; cosines and sines [N, 1, S, R] or [N, S, 1, R] are the same for both values that turn
/// together, and perhaps (N is 1 there) for all batches. RotaryEmbedding of the first values of heads with the others put behind them is one of whole heads.
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
                pairs_ = false;
                ValueId x = turned_half(turned->in[factor], inside);
                if (x == no_value) x = turned_pairs(turned->in[factor], inside);
                const ValueId sine = turned->in[1 - factor];
                if (x == no_value || (straight->in[0] != x && straight->in[1] != x)) continue;
                const ValueId cosine = straight->in[straight->in[0] == x ? 1 : 0];
                if (!(g_.fact(y).dims == g_.fact(x).dims) || !swallowed(inside, id)) return false;
                return turn(y, x, cosine, sine);
            }
        }
        return false;
    }
    /// `id` puts the rest of heads behind what turned of them.
    bool match_rest(NodeId id) {
        const Node c = g_.nodes[id];
        if (!is_op(&c, "Concat") || c.in.size() != 2 || !four(c.out[0]) || m_.sole_reader(c.in[0]) < 0) return false;
        if (const std::int64_t axis = c.attrs.i("axis", 0); axis != 3 && axis != -1) return false;
        const Node *back = m_.made_by(c.in[0], "Reshape"), *rotary = m_.made_by(back ? back->in[0] : c.in[0], "RotaryEmbedding");
        if (!rotary || (back && m_.sole_reader(back->in[0]) < 0)) return false;
        const Node* flat = back ? m_.made_by(rotary->in[0], "Reshape") : nullptr;
        if (back && (!flat || !four(flat->in[0]) || !(g_.fact(flat->in[0]).dims == g_.fact(c.in[0]).dims) || g_.fact(flat->out[0]).rank() != 3)) return false;
        const ValueId first = back ? flat->in[0] : rotary->in[0];
        const Dim& size = g_.fact(first).dims.back();
        if (!size.is_const()) return false;
        const std::int64_t r = size.value();
        if (const std::int64_t given = rotary->attrs.i("rotary_embedding_dim", 0); given && given != r) return false;
        const ValueId x = part_of(first, 0);
        if (x == no_value || part_of(c.in[1], r) != x || !(g_.fact(x).dims == g_.fact(c.out[0]).dims)) return false;
        std::vector<ValueId> operands = rotary->in;
        Attrs a = rotary->attrs;
        a.set("rotary_embedding_dim", r);
        emit(c.out[0], x, std::move(operands), std::move(a), back != nullptr, rotary->name, rotary->origin);
        return true;
    }

private:
    bool four(ValueId v) const { return g_.fact(v).ranked && g_.fact(v).rank() == 4; }
    bool swallowed(const std::vector<NodeId>& inside, NodeId root) const {
        for (NodeId i : inside)
            for (ValueId v : g_.nodes[i].out)
                if (i != root && v != no_value && !m_.swallowed(v, inside)) return false;
        return true;
    }
    ValueId add(std::string_view op, std::vector<ValueId> in, Attrs a, ValueId like) {
        const NodeId n = g_.values[static_cast<std::size_t>(like)].producer;
        return add_inferred(g_, op_named(op), std::move(in), std::move(a), g_.values[static_cast<std::size_t>(like)].name, n < 0 ? std::string(op) : g_.nodes[n].name, n < 0 ? std::string() : g_.nodes[n].origin);
    }
    /// y becomes the rotation of x; `rows`: [N, S, H, D], which the operator takes as [N, S, H * D].
    void emit(ValueId y, ValueId x, std::vector<ValueId> operands, Attrs a, bool rows, std::string name, std::string origin) {
        operands[0] = x;
        if (!rows) {
            m_.replace(y, "RotaryEmbedding", std::move(operands), std::move(a));
            return;
        }
        const std::int64_t heads = g_.fact(x).dims[2].value(), size = g_.fact(x).dims[3].value();
        a.set("num_heads", heads);
        const Node* split = m_.made_by(x, "Reshape");
        const Fact* before = split ? &g_.fact(split->in[0]) : nullptr;
        const bool joined = before && before->ranked && before->rank() == 3 && before->dims[0] == g_.fact(x).dims[0] && before->dims[1] == g_.fact(x).dims[1];
        operands[0] = joined ? split->in[0] : add("Reshape", {x, add_ints(g_, "joined_heads", {0, 0, heads * size})}, {}, x);
        const ValueId turned = add_inferred(g_, op_named("RotaryEmbedding"), std::move(operands), std::move(a), g_.values[static_cast<std::size_t>(y)].name, std::move(name), std::move(origin));
        m_.replace(y, "Reshape", {turned, add_ints(g_, "heads", {0, 0, heads, size})}, {});
    }
    bool turn(ValueId y, ValueId x, ValueId cosine, ValueId sine) {
        const std::vector<Dim> dims = g_.fact(x).dims;
        for (bool rows : {false, true}) {
            if (!four(cosine) || !four(sine) || (rows && !dims[2].is_const())) return false;
            const Dim batch = g_.fact(cosine).dims[0], length = dims[rows ? 1 : 2];
            const std::vector<Dim> want = rows ? std::vector<Dim>{batch, length, Dim(1), dims[3]} : std::vector<Dim>{batch, Dim(1), length, dims[3]};
            if (!(batch == dims[0] || batch.is(1)) || !(g_.fact(cosine).dims == want) || !(g_.fact(sine).dims == want)) continue;
            ValueId c = table(cosine, batch, length), s = c == no_value ? no_value : table(sine, batch, length);
            if (s == no_value) return false;
            c = for_each_batch(c, x), s = for_each_batch(s, x);
            Attrs a;
            if (pairs_) a.set("interleaved", std::int64_t{1});
            const Node& old = *g_.producer(y);
            emit(y, x, {x, c, s}, std::move(a), rows, old.name, old.origin);
            return true;
        }
        return false;
    }
    /// x, of whose last axis v holds the values from `start` on.
    ValueId part_of(ValueId v, std::int64_t start) const {
        const Node* n = g_.producer(v);
        std::size_t axis;
        std::int64_t at;
        if (!n || !n->op || (!is_op(n, "Split") && !is_op(n, "Slice")) || !four(v) || !four(n->in[0])) return no_value;
        return contiguous_part(g_, *n, v, axis, at) && axis == 3 && at == start ? n->in[0] : no_value;
    }
    /// x, of whose halves v is concat(-second, first); no_value where it is something else.
    ValueId turned_half(ValueId v, std::vector<NodeId>& inside) const {
        const Node* c = m_.made_by(v, "Concat");
        if (!c || c->in.size() != 2 || !four(v) || !g_.fact(v).dims[3].is_const() || g_.fact(v).dims[3].value() % 2) return no_value;
        const std::int64_t axis = c->attrs.i("axis", 0), half = g_.fact(v).dims[3].value() / 2;
        const Node* minus = m_.made_by(c->in[0], "Neg");
        if ((axis != 3 && axis != -1) || !minus) return no_value;
        const ValueId x = part_of(c->in[1], 0);
        if (x == no_value || part_of(minus->in[0], half) != x || !g_.fact(c->in[1]).dims[3].is(half) || !g_.fact(x).dims[3].is(2 * half)) return no_value;
        for (const Node* n : {c, minus}) inside.push_back(m_.id_of(*n));  // halves may be read elsewhere, too
        return x;
    }
    /// x, of whose pairs (first, second) v holds (-second, first).
    ValueId turned_pairs(ValueId v, std::vector<NodeId>& inside) {
        const Node* flat = m_.made_by(v, "Reshape");
        const Node* c = flat ? m_.made_by(flat->in[0], "Concat") : nullptr;
        if (!c || c->in.size() != 2 || !four(v) || g_.fact(flat->in[0]).rank() != 5 || !g_.fact(v).dims[3].is_const() || g_.fact(v).dims[3].value() % 2) return no_value;
        if (const std::int64_t axis = c->attrs.i("axis", 0); axis != 4 && axis != -1) return no_value;
        const Node *first = m_.made_by(c->in[0], "Unsqueeze"), *second = m_.made_by(c->in[1], "Unsqueeze");
        const Node* minus = first ? m_.made_by(first->in[0], "Neg") : nullptr;
        if (!minus || !second || !at_end(*first) || !at_end(*second)) return no_value;
        const ValueId x = of_pairs(second->in[0], 0);
        if (x == no_value || of_pairs(minus->in[0], 1) != x || !(g_.fact(x).dims == g_.fact(v).dims)) return no_value;
        for (const Node* n : {flat, c, first, second, minus}) inside.push_back(m_.id_of(*n));
        pairs_ = true;
        return x;
    }
    /// Whether Unsqueeze or Squeeze concerns the last of 5 axes.
    bool at_end(const Node& n) const {
        auto axes = constant_ints(g_, n, 1);
        return axes && axes->size() == 1 && ((*axes)[0] == -1 || (*axes)[0] == 4);
    }
    /// x [., ., ., R], of whose pairs v has number `which`: every other value, or a column of x as [., ., ., R / 2, 2].
    ValueId of_pairs(ValueId v, std::int64_t which) const {
        const Node* n = g_.producer(v);
        if (!n || !n->op || !four(v)) return no_value;
        if (is_op(n, "Slice")) {
            auto starts = constant_ints(g_, *n, 1), axes = constant_ints(g_, *n, 3), steps = constant_ints(g_, *n, 4);
            if (!starts || !axes || !steps || starts->size() != 1 || axes->size() != 1 || steps->size() != 1 || !four(n->in[0])) return no_value;
            const Dim &whole = g_.fact(n->in[0]).dims[3], &part = g_.fact(v).dims[3];
            const bool last = (*axes)[0] == 3 || (*axes)[0] == -1;
            return last && (*starts)[0] == which && (*steps)[0] == 2 && whole.is_const() && part.is(whole.value() / 2) ? n->in[0] : no_value;
        }
        ValueId paired = no_value;
        if (is_op(n, "Gather")) {
            auto index = constant_ints(g_, *n, 1);
            const std::int64_t axis = n->attrs.i("axis", 0);
            if (index && g_.fact(n->in[1]).rank() == 0 && ((*index)[0] == which || (*index)[0] == which - 2) && (axis == 4 || axis == -1)) paired = n->in[0];
        } else if (is_op(n, "Squeeze") && at_end(*n)) {
            const Node* cut = g_.producer(n->in[0]);
            std::size_t axis;
            std::int64_t at;
            if (cut && is_cut(g_, m_.id_of(*cut)) && g_.fact(cut->in[0]).ranked && g_.fact(cut->in[0]).rank() == 5 && g_.fact(n->in[0]).ranked && contiguous_part(g_, *cut, n->in[0], axis, at) && axis == 4 && at == which)
                paired = cut->in[0];
        }
        const Node* split = paired == no_value ? nullptr : m_.made_by(paired, "Reshape");
        if (!split || !g_.fact(paired).ranked || g_.fact(paired).rank() != 5 || !g_.fact(paired).dims[4].is(2) || !four(split->in[0])) return no_value;
        const std::vector<Dim>&x = g_.fact(split->in[0]).dims, &p = g_.fact(paired).dims;
        return std::equal(x.begin(), x.begin() + 3, p.begin()) ? split->in[0] : no_value;
    }
    /// Half of v's columns, which are the same twice, as [N, S, R / 2].
    ValueId table(ValueId v, const Dim& batch, const Dim& length) {
        const Dim r = g_.fact(v).dims[3];
        ValueId from = without_ones(v, {batch, length, r}, false);
        ValueId h = half_of(from == no_value ? v : from, 0);
        return h == no_value ? no_value : without_ones(h, {batch, length, Dim(r.value() / 2)}, true);
    }
    /// The table [1, S, R / 2] or [N, S, R / 2] for each of x's N batches.
    ValueId for_each_batch(ValueId v, ValueId x) {
        const Dim batch = g_.fact(x).dims[0];
        if (g_.fact(v).dims[0] == batch) return v;
        for (const auto& [of, all] : repeated_)
            if (of == v && g_.fact(all).dims[0] == batch) return all;
        Attrs first, axis;
        first.set("start", std::int64_t{0}), first.set("end", std::int64_t{1}), axis.set("axis", std::int64_t{0});
        const ValueId n = add("Shape", {x}, std::move(first), v), shape = add("Concat", {n, add_ints(g_, "as_it_is", {1, 1})}, std::move(axis), v);
        repeated_.emplace_back(v, add("Expand", {v, shape}, {}, v));
        return repeated_.back().second;
    }
    /// v without its dimensions of size 1, as it was before they were put there, or (`anew`) as a new node makes it.
    ValueId without_ones(ValueId v, const std::vector<Dim>& dims, bool anew) {
        for (ValueId x = v;;) {
            if (g_.fact(x).ranked && g_.fact(x).dims == dims) return x;
            const Node* n = g_.producer(x);
            if (!n || !n->op || (!is_op(n, "Unsqueeze") && !is_op(n, "Squeeze"))) break;
            x = n->in[0];
        }
        if (!anew) return no_value;
        const std::int64_t first = dims[0].is_const() ? dims[0].value() : 0, last = dims[2].value();
        if (!dims[0].is_const() && !(g_.fact(v).dims[0] == dims[0])) return no_value;
        return add("Reshape", {v, add_ints(g_, "table", {first, -1, last})}, {}, v);
    }
    /// Half of the last axis of v, whose values are the same twice: one after the other where pairs turn, else in both halves.
    ValueId half_of(ValueId v, int depth) {
        if (auto at = halves_.find({v, pairs_}); at != halves_.end()) return at->second;
        const Fact& f = g_.fact(v);
        if (depth > 8 || !f.ranked || f.rank() < 1 || !f.dims.back().is_const() || f.dims.back().value() % 2) return no_value;
        ValueId made = f.is_const() ? half_of_constant(v) : pairs_ ? written_twice(v) : no_value;
        const Node* n = g_.producer(v);
        if (made == no_value && n && n->op && !*n->op->domain) {
            if (is_op(n, "Concat")) {
                const std::int64_t axis = n->attrs.i("axis", 0);
                if (!pairs_ && n->in.size() == 2 && n->in[0] == n->in[1] && (axis == -1 || axis == f.rank() - 1)) made = n->in[0];
            } else if (const ValueId inner = same_columns(*n, v); inner != no_value) {
                const NodeId old = m_.id_of(*n);
                const ValueId half = half_of(inner, depth + 1);
                if (half == no_value) return no_value;
                std::vector<ValueId> in = g_.nodes[old].in;
                std::replace(in.begin(), in.end(), inner, half);
                made = add_inferred(g_, *g_.nodes[old].op, std::move(in), g_.nodes[old].attrs, g_.values[v].name, g_.nodes[old].name, g_.nodes[old].origin);
            }
        }
        if (made != no_value) halves_.emplace(std::pair{v, pairs_}, made);
        return made;
    }
    /// The operand of a node, each of whose columns depends on the operand's column alone, and in the same way.
    ValueId same_columns(const Node& n, ValueId v) const {
        ValueId inner;
        double factor;
        if (m_.scaled(v, inner, factor)) return g_.fact(inner).dims == g_.fact(v).dims ? inner : no_value;
        if (is_op(&n, "Cos") || is_op(&n, "Sin") || is_op(&n, "Cast")) return n.in[0];
        const Fact &from = g_.fact(n.in[0]), &to = g_.fact(v);
        if (!from.ranked || from.rank() < 2 || !(from.dims.back() == to.dims.back())) return no_value;
        if (is_op(&n, "Gather")) return n.attrs.i("axis", 0) == 0 ? n.in[0] : no_value;
        if (is_op(&n, "GatherND")) {  // each index names a row
            const Fact& index = g_.fact(n.in[1]);
            return n.attrs.i("batch_dims", 0) == 0 && index.ranked && index.rank() > 0 && index.dims.back().is(from.rank() - 1) ? n.in[0] : no_value;
        }
        if (is_op(&n, "Slice")) {
            auto axes = constant_ints(g_, n, 3), steps = constant_ints(g_, n, 4);
            return axes && std::none_of(axes->begin(), axes->end(), [&](std::int64_t a) { return a == -1 || a == from.rank() - 1; }) ? n.in[0] : no_value;
        }
        return no_value;
    }
    /// Where each value is written twice, x [..., R / 2, 1] to [..., R / 2, 2] to [..., R]: x without its last axis.
    ValueId written_twice(ValueId v) {
        const Node* flat = m_.made_by(v, "Reshape");
        const Node* twice = flat ? g_.producer(flat->in[0]) : nullptr;
        if (!twice || !twice->op || (!is_op(twice, "Tile") && !is_op(twice, "Expand"))) return no_value;
        const Fact &x = g_.fact(twice->in[0]), &e = g_.fact(flat->in[0]), &y = g_.fact(v);
        const std::size_t lead = y.dims.size() - 1;
        if (!x.ranked || !e.ranked || x.dims.size() != lead + 2 || e.dims.size() != lead + 2 || !x.dims.back().is(1) || !e.dims.back().is(2)) return no_value;
        if (!std::equal(x.dims.begin(), x.dims.end() - 1, e.dims.begin()) || !std::equal(y.dims.begin(), y.dims.end() - 1, e.dims.begin())) return no_value;
        const Node* more = m_.made_by(twice->in[0], "Unsqueeze");
        if (more && g_.fact(more->in[0]).ranked && g_.fact(more->in[0]).dims == std::vector<Dim>(x.dims.begin(), x.dims.end() - 1)) return more->in[0];
        return add("Squeeze", {twice->in[0], add_ints(g_, "last", {-1})}, {}, twice->in[0]);
    }
    ValueId half_of_constant(ValueId v) {
        const Tensor t = g_.fact(v).value;
        const std::int64_t r = t.shape()[t.shape().rank() - 1], rows = r ? t.count() / r : 0;
        const std::size_t e = static_cast<std::size_t>(dtype_bits(t.dtype())) / 8;
        if (t.dtype() == DType::string || dtype_bits(t.dtype()) < 8 || rows < 1) return no_value;
        std::vector<std::int64_t> dims(t.shape().begin(), t.shape().end());
        dims.back() = r / 2;
        Tensor half(t.dtype(), Shape(std::span<const std::int64_t>(dims)));
        const auto* from = static_cast<const std::byte*>(t.raw());
        auto* to = static_cast<std::byte*>(half.raw());
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < r / 2; ++j, to += e) {
                const std::byte *a = from + static_cast<std::size_t>(i * r + (pairs_ ? 2 * j : j)) * e, *b = a + static_cast<std::size_t>(pairs_ ? 1 : r / 2) * e;
                if (std::memcmp(a, b, e) != 0) return no_value;
                std::memcpy(to, a, e);
            }
        return g_.add_constant(g_.fresh_name(g_.values[static_cast<std::size_t>(v)].name), std::move(half));
    }
    Matcher& m_;
    Graph& g_;
    bool pairs_ = false;  // of the rotation that is looked at
    std::map<std::pair<ValueId, bool>, ValueId> halves_;
    std::vector<std::pair<ValueId, ValueId>> repeated_;  // tables for one batch, and for all
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
    for (auto rule : {&RotaryMatcher::match, &RotaryMatcher::match_rest}) {
        bool found = false;
        {
            Matcher m(g);
            RotaryMatcher r(m);
            for (NodeId id : g.order())
                if (g.nodes[id].op && (r.*rule)(id)) found = true;
        }
        if (!found) continue;
        remove_dead(g);
        infer_graph(g);
        changed = true;
    }
    Matcher m(g);
    for (NodeId id : g.order())
        if (g.nodes[id].op && rotary_before_heads(m, id)) moved = true;
    return changed || moved;
}

}  // namespace passes_detail
QUERN_END
