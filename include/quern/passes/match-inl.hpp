// What pattern passes read graphs with: who reads a value, constants, polynomials, values that a pattern may swallow.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>

#include <quern/tensor/half.hpp>

#include "pass.hpp"

QUERN_BEGIN
namespace passes_detail {

/// The attribute that promotion leaves on nodes for a device: the half type that their results had.
inline constexpr const char* narrow_type = "narrow_type";

inline bool is_op(const Node* n, std::string_view name, std::string_view domain = "") { return n && n->op && name == n->op->name && domain == n->op->domain; }

/// v, or input i of the node, as numbers, if it is a short constant.
inline std::optional<std::vector<std::int64_t>> constant_ints(const Graph& g, ValueId v) {
    if (v == no_value || !g.fact(v).is_const()) return {};
    return detail::small_ints(g.fact(v).value);
}
inline std::optional<std::vector<std::int64_t>> constant_ints(const Graph& g, const Node& n, std::size_t i) { return constant_ints(g, i < n.in.size() ? n.in[i] : no_value); }
/// Adds a constant of these numbers.
inline ValueId add_ints(Graph& g, std::string_view stem, const std::vector<std::int64_t>& v) {
    return g.add_constant(g.fresh_name(stem), Tensor::from(std::span<const std::int64_t>(v), {static_cast<std::int64_t>(v.size())}));
}
/// Adds a node of one output, a new value; names and origin are by value, for what they are copied from may move.
inline ValueId add_inferred(Graph& g, const OpDef& op, std::vector<ValueId> in, Attrs a, std::string value, std::string node, std::string origin, Device device = Device::cpu) {
    const ValueId out = g.add_value(g.fresh_name(value), Fact());
    const NodeId id = g.add_node(op, g.fresh_name(node), std::move(in), {out}, std::move(a));
    g.nodes[id].origin = std::move(origin);
    g.nodes[id].device = device;
    infer_node(g, id);
    return out;
}
/// The one axis along which output v of a Split or Slice with step 1 is a piece of the input, and where it begins.
inline bool contiguous_part(const Graph& g, const Node& n, ValueId v, std::size_t& axis, std::int64_t& start) {
    const std::vector<Dim>&in = g.fact(n.in[0]).dims, &out = g.fact(v).dims;
    int found = -1;
    for (std::size_t i = 0; i < in.size(); ++i) {
        if (in[i] == out[i]) continue;
        if (found >= 0 || !in[i].is_const() || !out[i].is_const()) return false;
        found = static_cast<int>(i);
    }
    if (found < 0) return false;
    axis = static_cast<std::size_t>(found);
    if (is_op(&n, "Split")) {
        start = 0;
        for (ValueId o : n.out) {
            if (o == v) return true;
            if (o == no_value || !g.fact(o).ranked || !g.fact(o).dims[axis].is_const()) return false;
            start += g.fact(o).dims[axis].value();
        }
        return false;
    }
    auto starts = constant_ints(g, n, 1), axes = constant_ints(g, n, 3), steps = constant_ints(g, n, 4);
    if (!starts || (n.in.size() > 4 && n.in[4] != no_value && !steps)) return false;
    if (steps && std::any_of(steps->begin(), steps->end(), [](std::int64_t s) { return s != 1; })) return false;
    for (std::size_t i = 0; i < starts->size(); ++i) {
        std::int64_t a = axes && i < axes->size() ? (*axes)[i] : static_cast<std::int64_t>(i);
        if (a < 0) a += static_cast<std::int64_t>(in.size());
        if (a != found) continue;
        start = (*starts)[i];
        if (start < 0) start += in[axis].value();
        return start >= 0 && start + out[axis].value() <= in[axis].value();
    }
    return false;
}

/// Whether the node cuts parts out of its input; -1 is no node.
inline bool is_cut(const Graph& g, NodeId id) {
    const Node* n = id < 0 ? nullptr : &g.nodes[static_cast<std::size_t>(id)];
    return is_op(n, "Slice") || is_op(n, "Split");
}

/// A view of the graph for one round of rewriting. What follows from sizes is never computed and does not count as a reader.
/// Readers are those at the beginning of the round: replacing a pattern's
/// root leaves them right for all values that the pattern did not swallow.
class Matcher {
public:
    explicit Matcher(Graph& graph) : g(graph), readers_(graph.values.size()), shown_(graph.values.size(), 0) {
        for (NodeId id = 0; id < static_cast<NodeId>(g.nodes.size()); ++id) {
            if (!g.nodes[id].op || only_sizes(g.nodes[id])) continue;
            for (ValueId v : g.nodes[id].in)
                if (v != no_value) readers_[static_cast<std::size_t>(v)].push_back(id);
        }
        for (ValueId v : g.outputs) shown_[static_cast<std::size_t>(v)] = 1;
    }
    Graph& g;

    /// The producer of v when it is this operator; else null.
    const Node* made_by(ValueId v, std::string_view op, std::string_view domain = "") const {
        const Node* n = v == no_value ? nullptr : g.producer(v);
        return is_op(n, op, domain) ? n : nullptr;
    }
    NodeId id_of(const Node& n) const { return static_cast<NodeId>(&n - g.nodes.data()); }
    /// The node that alone reads v, once; -1 where there are others or v is an output of the graph.
    NodeId sole_reader(ValueId v) const {
        std::size_t i = static_cast<std::size_t>(v);
        return i < readers_.size() && readers_[i].size() == 1 && !shown_[i] ? readers_[i][0] : -1;
    }
    /// The nodes that read v, a node that does so twice twice.
    std::span<const NodeId> readers(ValueId v) const {
        if (static_cast<std::size_t>(v) >= readers_.size()) return {};
        return readers_[static_cast<std::size_t>(v)];
    }
    /// Whether all readers of v are among `inside` and no output of the graph shows it.
    bool swallowed(ValueId v, const std::vector<NodeId>& inside) const {
        std::size_t i = static_cast<std::size_t>(v);
        if (i >= readers_.size() || shown_[i]) return false;
        for (NodeId r : readers_[i])
            if (std::find(inside.begin(), inside.end(), r) == inside.end()) return false;
        return true;
    }
    /// The number that v holds, if it is a constant of one real element.
    std::optional<double> scalar(ValueId v) const {
        if (v == no_value) return {};
        if (!g.fact(v).is_const() || g.fact(v).value.count() != 1) return {};
        const Tensor t = g.fact(v).value.aligned();
        switch (t.dtype()) {
            case DType::f32: return static_cast<double>(t.data<float>()[0]);
            case DType::f64: return t.data<double>()[0];
            case DType::f16: return static_cast<double>(to_float(t.data<Half>()[0]));
            case DType::bf16: return static_cast<double>(to_float(t.data<BFloat16>()[0]));
            default: return {};
        }
    }
    /// Whether v is a constant near x: within the rounding of f32, or of the half type that it has.
    bool is_near(ValueId v, double x) const {
        auto s = scalar(v);
        return s && near(*s, x, g.fact(v).dtype);
    }
    static bool near(double a, double b, DType t) {
        double tolerance = t == DType::f16 ? 2e-3 : t == DType::bf16 ? 2e-2 : 1e-6;
        return std::fabs(a - b) <= tolerance * std::fabs(b);
    }
    /// For a node of two operands, one of them a constant scalar: the other operand.
    bool scalar_side(const Node& n, ValueId& other, double& factor) const {
        if (n.in.size() != 2) return false;
        for (int side = 0; side < 2; ++side)
            if (auto s = scalar(n.in[side]); s && rank_at_most(n.in[side], n.in[1 - side])) return other = n.in[1 - side], factor = *s, true;
        return false;
    }
    /// v = factor * x, by Mul or Div with a constant scalar.
    bool scaled(ValueId v, ValueId& x, double& factor) const {
        if (const Node* n = made_by(v, "Mul")) return scalar_side(*n, x, factor);
        const Node* n = made_by(v, "Div");
        if (!n) return false;
        auto s = scalar(n->in[1]);
        if (!s || *s == 0 || !rank_at_most(n->in[1], n->in[0])) return false;
        return x = n->in[0], factor = 1 / *s, true;
    }

    static constexpr int degree = 4;
    using Polynomial = std::array<double, degree + 1>;
    /// v as a polynomial of x, through Add, Sub, Mul, Div by constants, Pow and Neg; nothing where it is none.
    std::optional<Polynomial> polynomial(ValueId v, ValueId x, int depth = 8) const {
        if (v == x) return Polynomial{0, 1};
        if (auto s = scalar(v)) return Polynomial{*s};
        const Node* n = v == no_value || depth == 0 ? nullptr : g.producer(v);
        if (!n || !n->op || *n->op->domain || n->in.empty() || n->in.size() > 2) return {};
        std::string_view op = n->op->name;
        auto a = polynomial(n->in[0], x, depth - 1);
        if (!a) return {};
        if (op == "Neg") return times(*a, {-1});
        if (n->in.size() != 2) return {};
        if (op == "Pow") {
            auto e = scalar_or_int(n->in[1]);
            if (!e || *e != std::floor(*e) || *e < 1 || *e > degree) return {};
            std::optional<Polynomial> p = a;
            for (int i = 1; i < static_cast<int>(*e) && p; ++i) p = times(*p, *a);
            return p;
        }
        auto b = polynomial(n->in[1], x, depth - 1);
        if (!b) return {};
        if (op == "Mul") return times(*a, *b);
        if (op == "Add" || op == "Sub") {
            for (int i = 0; i <= degree; ++i) (*a)[i] += op == "Add" ? (*b)[i] : -(*b)[i];
            return a;
        }
        bool constant = op == "Div" && (*b)[0] != 0;
        for (int i = 1; i <= degree; ++i) constant = constant && (*b)[i] == 0;
        if (!constant) return {};
        return times(*a, {1 / (*b)[0]});
    }
    /// What v may be a polynomial of: v itself and the values behind it that are no constants.
    std::vector<ValueId> behind(ValueId v, int depth = 6) const {
        std::vector<ValueId> found{v};
        for (std::size_t from = 0, level = 0; level < static_cast<std::size_t>(depth) && from < found.size() && found.size() < 16; ++level) {
            std::size_t to = found.size();
            for (; from < to; ++from) {
                const Node* n = g.producer(found[from]);
                if (!n || !n->op || *n->op->domain) continue;
                std::string_view op = n->op->name;
                if (op != "Add" && op != "Sub" && op != "Mul" && op != "Div" && op != "Pow" && op != "Neg") continue;
                for (ValueId i : n->in)
                    if (!scalar(i) && std::find(found.begin(), found.end(), i) == found.end()) found.push_back(i);
            }
        }
        return found;
    }
    /// Puts a new node in the place of the one that makes v; what only that one needed is dead from here on.
    NodeId replace(ValueId v, std::string_view op, std::vector<ValueId> in, Attrs attrs) {
        NodeId old = g.values[v].producer;
        std::string name = g.nodes[old].name, origin = g.nodes[old].origin;
        g.remove_node(old);
        NodeId id = g.add_node(op_named(op), std::move(name), std::move(in), {v}, std::move(attrs));
        g.nodes[id].origin = std::move(origin);
        return id;
    }

private:
    bool only_sizes(const Node& n) const {
        for (ValueId v : n.out)
            if (v != no_value && !g.fact(v).symbolic) return false;
        return !n.op->control;
    }
    /// An operand that does not raise the rank of the other.
    bool rank_at_most(ValueId small, ValueId large) const { return g.fact(small).rank() == 0 || (g.fact(large).ranked && g.fact(small).rank() <= g.fact(large).rank()); }
    std::optional<double> scalar_or_int(ValueId v) const {
        if (auto s = scalar(v)) return s;
        if (v == no_value || !g.fact(v).value.defined()) return {};
        auto i = detail::small_ints(g.fact(v).value);
        if (!i || i->size() != 1) return {};
        return static_cast<double>((*i)[0]);
    }
    static std::optional<Polynomial> times(const Polynomial& a, const Polynomial& b) {
        Polynomial r{};
        for (int i = 0; i <= degree; ++i)
            for (int j = 0; j <= degree; ++j) {
                if (a[i] == 0 || b[j] == 0) continue;
                if (i + j > degree) return {};
                r[i + j] += a[i] * b[j];
            }
        return r;
    }
    std::vector<std::vector<NodeId>> readers_;
    std::vector<char> shown_;
};

}  // namespace passes_detail
QUERN_END
