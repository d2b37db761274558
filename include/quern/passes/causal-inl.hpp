// Masks that let a query see the keys up to its own: found by what they are made of, for any length, or by their values.
#pragma once
#include <map>

#include "match-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// Looks at masks [..., S, T] of attention. "The keys up to its own" means that query i sees keys [0, T - S + i].
class CausalMasks {
public:
    explicit CausalMasks(Graph& graph) : g(graph) {}

    struct Mask {
        bool causal = false;
        float closed = 0;          ///< what is added to the scores of later keys
        ValueId rest = no_value;   ///< what else is added
        bool once = false;         ///< rest holds 0 and `closed`; a key that both close has `closed` added once
    };
    /// What `mask`, added to scores, is. Makes the node of `rest` where it must.
    Mask split(ValueId mask) {
        auto at = known_.find(mask);
        return at != known_.end() ? at->second : known_.emplace(mask, look(mask, 0)).first->second;
    }

private:
    /// From here on no score makes a difference, so that sums of such numbers do not either.
    static constexpr float never = -1e30f;
    bool square(ValueId v) const { return g.fact(v).ranked && g.fact(v).rank() >= 2; }
    /// Whether node n only adds or repeats leading dimensions of its input.
    bool leads(const Node& n) const {
        if (!is_op(&n, "Unsqueeze") && !is_op(&n, "Expand") && !is_op(&n, "Identity") && !is_op(&n, "Reshape")) return false;
        if (!square(n.in[0]) || !square(n.out[0])) return false;
        const std::vector<Dim>&x = g.fact(n.in[0]).dims, &y = g.fact(n.out[0]).dims;
        if (!std::equal(x.end() - 2, x.end(), y.end() - 2)) return false;
        if (is_op(&n, "Expand") || is_op(&n, "Identity")) return true;
        auto ones = [](const std::vector<Dim>& d) { return std::all_of(d.begin(), d.end() - 2, [](const Dim& i) { return i.is(1); }); };
        return ones(x) && ones(y);
    }
    std::optional<float> scalar(ValueId v) const {
        if (v == no_value || !g.fact(v).is_const() || g.fact(v).dtype != DType::f32 || g.fact(v).value.count() != 1) return {};
        return g.fact(v).value.aligned().data<float>()[0];
    }
    Mask look(ValueId v, int depth) {
        const Node* n = g.producer(v);
        if (depth > 8 || !square(v) || g.fact(v).dtype != DType::f32) return {};
        if (g.fact(v).is_const()) return by_value(v);
        if (!n || !n->op) return {};
        if (leads(*n)) return look(n->in[0], depth + 1);
        const Dim offset = offset_of(v);
        if (is_op(n, "Where")) {
            auto open = scalar(n->in[1]), closed = scalar(n->in[2]);
            if (!open || *open != 0 || !closed || !(*closed < 0)) return {};
            std::vector<ValueId> rest;
            bool causal = false;
            and_of(n->in[0], offset, causal, rest, 0);
            if (!causal || (!rest.empty() && !(*closed <= never))) return {};
            Mask m{true, *closed, no_value, !rest.empty()};
            if (!rest.empty()) m.rest = where(rest, n->in[1], n->in[2], v);
            return m;
        }
        if (is_op(n, "Trilu")) {  // above the diagonal of what is filled with one value
            auto fill = filled(n->in[0]);
            auto k = diagonal(*n);
            if (!fill || !k || n->attrs.i("upper", 1) == 0 || !(Dim(*k - 1) == offset)) return {};
            return {true, *fill, no_value, false};
        }
        return {};
    }
    /// T - S.
    Dim offset_of(ValueId v) const {
        const std::vector<Dim>& d = g.fact(v).dims;
        return d[d.size() - 1] - d[d.size() - 2];
    }
    static std::optional<std::int64_t> first_of(std::optional<std::vector<std::int64_t>> v) { return v && v->size() == 1 ? std::optional((*v)[0]) : std::nullopt; }
    std::optional<std::int64_t> diagonal(const Node& trilu) const {
        if (trilu.in.size() < 2 || trilu.in[1] == no_value) return 0;
        return first_of(constant_ints(g, trilu, 1));
    }
    /// The f32 that all elements of v are, unless NaN.
    std::optional<float> filled(ValueId v) const {
        const Node* n = g.producer(v);
        if (g.fact(v).is_const()) {
            if (g.fact(v).dtype != DType::f32 || g.fact(v).value.count() == 0) return {};
            const Tensor t = g.fact(v).value.aligned();
            auto x = t.data<float>();
            return std::all_of(x.begin(), x.end(), [&](float f) { return f == x[0]; }) ? std::optional(x[0]) : std::nullopt;
        }
        if (is_op(n, "Expand")) return scalar(n->in[0]);
        if (!is_op(n, "ConstantOfShape")) return {};
        const Tensor t = n->attrs.tensor("value");
        if (!t.defined()) return 0.f;
        return t.dtype() == DType::f32 && t.count() == 1 ? std::optional(t.aligned().data<float>()[0]) : std::nullopt;
    }
    /// Whether all elements of v are true, or one.
    bool ones(ValueId v) const {
        const Node* n = g.producer(v);
        if (is_op(n, "Cast") && !g.fact(v).is_const()) return ones(n->in[0]);
        if (g.fact(v).is_const()) {
            const Tensor t = g.fact(v).value;
            if (t.dtype() != DType::boolean || t.count() == 0) return filled(v) == 1.f;
            const auto* x = static_cast<const std::uint8_t*>(t.raw());
            return std::all_of(x, x + t.count(), [](std::uint8_t b) { return b != 0; });
        }
        if (is_op(n, "Expand")) return ones(n->in[0]);
        const Tensor t = is_op(n, "ConstantOfShape") ? n->attrs.tensor("value") : Tensor();
        if (!t.defined() || t.count() != 1) return false;
        if (t.dtype() == DType::f32) return t.aligned().data<float>()[0] == 1.f;
        return t.dtype() == DType::boolean && *static_cast<const std::uint8_t*>(t.raw()) != 0;
    }
    /// The terms of the truth value v, but for those that are always true, and the causal ones.
    void and_of(ValueId v, const Dim& offset, bool& causal, std::vector<ValueId>& rest, int depth) {
        const Node* n = g.producer(v);
        if (g.fact(v).is_const() && ones(v)) return;
        if (n && depth < 16 && is_op(n, "And")) {
            for (ValueId i : n->in) and_of(i, offset, causal, rest, depth + 1);
        } else if (n && depth < 16 && leads(*n) && is_causal(n->in[0], offset, depth + 1)) {
            causal = true;
        } else if (is_causal(v, offset, depth + 1)) {
            causal = true;
        } else if (std::find(rest.begin(), rest.end(), v) == rest.end()) {
            rest.push_back(v);
        }
    }
    /// Whether v [..., S, T] is true exactly for keys up to T - S + i.
    bool is_causal(ValueId v, const Dim& offset, int depth) const {
        const Node* n = g.producer(v);
        if (!n || !n->op || depth > 16 || !square(v)) return false;
        if (leads(*n)) return is_causal(n->in[0], offset, depth + 1);
        if (is_op(n, "Cast") && square(n->in[0])) return is_causal(n->in[0], offset, depth + 1);
        if (is_op(n, "Trilu")) {
            auto k = diagonal(*n);
            return k && n->attrs.i("upper", 1) == 0 && ones(n->in[0]) && Dim(*k) == offset && offset_of(v) == offset;
        }
        if (is_op(n, "Not")) {
            const Node* upper = g.producer(n->in[0]);
            while (is_op(upper, "Cast")) upper = g.producer(upper->in[0]);
            auto k = is_op(upper, "Trilu") ? diagonal(*upper) : std::nullopt;
            return k && upper->attrs.i("upper", 1) != 0 && ones(upper->in[0]) && Dim(*k - 1) == offset && offset_of(v) == offset;
        }
        const bool less = is_op(n, "Less") || is_op(n, "LessOrEqual"), greater = is_op(n, "Greater") || is_op(n, "GreaterOrEqual");
        if (!less && !greater) return false;
        Dim key, query;
        if (!counts(n->in[less ? 0 : 1], 0, key, 0) || !counts(n->in[less ? 1 : 0], 1, query, 0)) return false;
        if (is_op(n, "Less") || is_op(n, "Greater")) query = query - Dim(1);
        return query - key == offset && offset_of(v) == offset;
    }
    /// Whether the integers v are start + their index along the axis that is `from_end` from the last one, and the same along all others.
    bool counts(ValueId v, std::size_t from_end, Dim& start, int depth) const {
        const Node* n = v == no_value ? nullptr : g.producer(v);
        const Fact& f = g.fact(v);
        if (!n || !n->op || depth > 16 || !f.ranked || f.dims.size() <= from_end || (f.dtype != DType::i64 && f.dtype != DType::i32)) return false;
        if (is_op(n, "Range")) {
            auto step = first_of(constant_ints(g, *n, 2));
            return from_end == 0 && step && *step == 1 && one_symbol(n->in[0], start);
        }
        if (is_op(n, "Cast") || is_op(n, "Identity")) return counts(n->in[0], from_end, start, depth + 1);
        if (is_op(n, "Add")) {
            for (int side = 0; side < 2; ++side)
                if (Dim more, there; one_symbol(n->in[side], more) && counts(n->in[1 - side], from_end, there, depth + 1)) return start = there + more, true;
            return false;
        }
        if (!is_op(n, "Unsqueeze") && !is_op(n, "Reshape") && !is_op(n, "Squeeze")) return false;
        const Fact& x = g.fact(n->in[0]);
        if (!x.ranked) return false;
        auto along = [](const std::vector<Dim>& d) {  // the axis from the end that alone is not 1; -1 for none
            int found = -1;
            for (std::size_t i = 0; i < d.size(); ++i) {
                if (d[i].is(1)) continue;
                if (found >= 0) return -1;
                found = static_cast<int>(d.size() - 1 - i);
            }
            return found;
        };
        const int from = along(x.dims), to = along(f.dims);
        return from >= 0 && to == static_cast<int>(from_end) && counts(n->in[0], static_cast<std::size_t>(from), start, depth + 1);
    }
    /// The content of an integer of which there is one.
    bool one_symbol(ValueId v, Dim& to) const {
        if (v == no_value) return false;
        if (auto i = first_of(constant_ints(g, v))) return to = Dim(*i), true;
        const Fact& f = g.fact(v);
        if (!f.symbolic || f.symbolic->size() != 1) return false;
        return to = (*f.symbolic)[0], true;
    }
    Mask by_value(ValueId v) const {
        const Tensor held = g.fact(v).value.aligned();
        const Shape s = held.shape();
        const std::int64_t rows = s[s.rank() - 2], keys = s[s.rank() - 1], all = held.count();
        if (rows < 2 || keys < 2 || all == 0) return {};
        auto x = held.data<float>();
        const float closed = x[static_cast<std::size_t>(keys - 1)];
        if (keys - rows < 0 || !(closed < 0)) return {};
        for (std::int64_t i = 0; i < all; ++i)
            if (x[static_cast<std::size_t>(i)] != (i % keys > keys - rows + i / keys % rows ? closed : 0.f)) return {};
        return {true, closed, no_value, false};
    }
    ValueId where(const std::vector<ValueId>& terms, ValueId open, ValueId closed, ValueId mask) {
        const std::string name = g.values[mask].name, origin = g.producer(mask)->origin;
        ValueId all = terms[0];
        for (std::size_t i = 1; i < terms.size(); ++i) all = add_inferred(g, op_named("And"), {all, terms[i]}, {}, name, name, origin);
        return add_inferred(g, op_named("Where"), {all, open, closed}, {}, name, name, origin);
    }

    Graph& g;
    std::map<ValueId, Mask> known_;
};

}  // namespace passes_detail
QUERN_END
