// Operators that exporters spell out: GELU, SiLU, layer and root-mean-square normalization (rotary embedding: rotary-inl.hpp). Each becomes the one ONNX
// operator that means the same, wherever nobody reads what lies between.
#pragma once
#include <algorithm>

#include "match-inl.hpp"
#include "rotary-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// From s = f(u) on, where y = 0.5 * x * (1 + s) is meant, in any order of the factors: the value y, or no_value.
inline ValueId gelu_root(const Matcher& m, ValueId s, ValueId x, DType t) {
    auto next = [&](ValueId v) -> const Node* {
        NodeId r = m.sole_reader(v);
        return r < 0 ? nullptr : &m.g.nodes[r];
    };
    const Node* n = next(s);
    ValueId other;
    double c, factor = 1;
    if (!is_op(n, "Add") || !m.scalar_side(*n, other, c) || other != s || c != 1) return no_value;
    ValueId v = n->out[0];
    bool met = false;  // x is among the factors
    for (int i = 0; i < 3 && !(met && Matcher::near(factor, 0.5, t)); ++i) {
        n = next(v);
        if (!is_op(n, "Mul") && !is_op(n, "Div")) return no_value;
        ValueId inner;
        if (m.scaled(n->out[0], inner, c) && inner == v) {
            factor *= c;
        } else {
            if (!is_op(n, "Mul") || met) return no_value;
            other = n->in[n->in[0] == v ? 1 : 0];
            if (other == v) return no_value;
            if (other != x) {
                NodeId half = m.g.values[other].producer;
                if (!m.scaled(other, inner, c) || inner != x || half < 0 || m.sole_reader(other) < 0) return no_value;
                factor *= c;
            }
            met = true;
        }
        v = n->out[0];
    }
    return met && Matcher::near(factor, 0.5, t) ? v : no_value;
}
/// 0.5 * x * (1 + erf(x / sqrt 2)) and 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).
inline bool match_gelu(Matcher& m, NodeId id) {
    const Node& n = m.g.nodes[id];
    bool by_erf = is_op(&n, "Erf"), by_tanh = is_op(&n, "Tanh");
    if (!by_erf && !by_tanh) return false;
    const double k = std::sqrt(2 / 3.14159265358979323846), want[] = {0, by_erf ? std::sqrt(0.5) : k, 0, by_erf ? 0 : 0.044715 * k, 0};
    DType t = m.g.fact(n.out[0]).dtype;
    for (ValueId x : m.behind(n.in[0])) {
        auto p = m.polynomial(n.in[0], x);
        if (!p) continue;
        bool same = true;
        for (int i = 0; i <= Matcher::degree; ++i) same = same && (want[i] == 0 ? (*p)[i] == 0 : std::fabs((*p)[i] - want[i]) <= (t == DType::f16 ? 3e-3 : t == DType::bf16 ? 3e-2 : 3e-6) * want[i]);
        if (!same) continue;
        ValueId y = gelu_root(m, n.out[0], x, t);
        if (y == no_value || !(m.g.fact(y).dims == m.g.fact(x).dims)) return false;
        Attrs a;
        if (by_tanh) a.set("approximate", std::string("tanh"));
        m.replace(y, "Gelu", {x}, std::move(a));
        return true;
    }
    return false;
}
/// x * sigmoid(a * x).
inline bool match_swish(Matcher& m, NodeId id) {
    const Node& n = m.g.nodes[id];
    if (!is_op(&n, "Sigmoid")) return false;
    NodeId r = m.sole_reader(n.out[0]);
    if (r < 0 || !is_op(&m.g.nodes[r], "Mul")) return false;
    const Node& mul = m.g.nodes[r];
    ValueId x = mul.in[mul.in[0] == n.out[0] ? 1 : 0], inner = n.in[0];
    double a = 1;
    if (x != n.in[0] && (!m.scaled(n.in[0], inner, a) || inner != x || !(a > 0))) return false;
    if (!(m.g.fact(mul.out[0]).dims == m.g.fact(x).dims)) return false;
    Attrs attrs;
    attrs.set("alpha", static_cast<float>(a));
    m.replace(mul.out[0], "Swish", {x}, std::move(attrs));
    return true;
}

/// v = sqrt(a).
inline ValueId root_of(const Matcher& m, ValueId v, std::vector<NodeId>& inside) {
    const Node* n = m.made_by(v, "Sqrt");
    if (!n) {
        n = m.made_by(v, "Pow");
        if (!n || !m.is_near(n->in[1], 0.5)) return no_value;
    }
    inside.push_back(m.id_of(*n));
    return n->in[0];
}
/// y = d / sqrt(a), in the spellings d / sqrt(a), d * (1 / sqrt(a)), d * reciprocal(sqrt(a)), d * a^-0.5.
inline bool over_root(const Matcher& m, const Node& n, ValueId& d, ValueId& a, std::vector<NodeId>& inside) {
    if (is_op(&n, "Div")) {
        d = n.in[0];
        a = root_of(m, n.in[1], inside);
        return a != no_value;
    }
    if (!is_op(&n, "Mul")) return false;
    for (int side = 0; side < 2; ++side) {
        d = n.in[1 - side];
        const Node* r = m.made_by(n.in[side], "Reciprocal");
        ValueId root = r ? r->in[0] : no_value;
        if (!r && (r = m.made_by(n.in[side], "Div"))) {
            if (!m.is_near(r->in[0], 1)) continue;
            root = r->in[1];
        }
        if (!r && (r = m.made_by(n.in[side], "Pow"))) {
            if (!m.is_near(r->in[1], -0.5)) continue;
            inside.push_back(m.id_of(*r));
            a = r->in[0];
            return true;
        }
        if (!r) continue;
        inside.push_back(m.id_of(*r));
        a = root_of(m, root, inside);
        if (a != no_value) return true;
    }
    return false;
}
/// v = mean of x over its last dimensions, which are kept as ones: the first of them, or -1.
inline int mean_of(const Matcher& m, ValueId v, ValueId& x, std::vector<NodeId>& inside) {
    const Node* n = m.made_by(v, "ReduceMean");
    if (!n || !n->attrs.i("keepdims", 1) || n->in.size() < 2 || n->in[1] == no_value || !m.g.fact(n->in[0]).ranked) return -1;
    const Tensor& t = m.g.fact(n->in[1]).value;
    auto axes = t.defined() ? detail::small_ints(t) : std::nullopt;
    int rank = m.g.fact(n->in[0]).rank();
    if (!axes || axes->empty()) return -1;
    for (auto& i : *axes) i += i < 0 ? rank : 0;
    std::sort(axes->begin(), axes->end());
    for (std::size_t i = 0; i < axes->size(); ++i)
        if ((*axes)[i] != rank - static_cast<std::int64_t>(axes->size() - i)) return -1;
    x = n->in[0];
    inside.push_back(m.id_of(*n));
    return static_cast<int>((*axes)[0]);
}
/// A parameter of the normalized dimensions: constant, and no wider than they are.
inline bool is_parameter(const Graph& g, ValueId v, const Fact& x, int axis) {
    const Fact& p = g.fact(v);
    if (!p.is_const() || p.dtype != x.dtype || p.rank() > x.rank() - axis) return false;
    for (int i = 0; i < p.rank(); ++i)
        if (!(p.dims[static_cast<std::size_t>(i)] == x.dims[static_cast<std::size_t>(x.rank() - p.rank() + i)])) return false;
    return p.rank() == x.rank() - axis;
}
/// The next node when it alone reads v, is `op`, and its other operand is a parameter.
inline const Node* with_parameter(const Matcher& m, ValueId v, const char* op, const Fact& x, int axis, ValueId& parameter) {
    NodeId r = m.sole_reader(v);
    if (r < 0 || !is_op(&m.g.nodes[r], op)) return nullptr;
    const Node& n = m.g.nodes[r];
    parameter = n.in[n.in[0] == v ? 1 : 0];
    return parameter != v && is_parameter(m.g, parameter, x, axis) ? &n : nullptr;
}
/// (x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias, and x / sqrt(mean(x^2) + eps) * scale.
inline bool match_norm(Matcher& m, NodeId id) {
    Graph& g = m.g;
    std::vector<NodeId> inside;
    ValueId d, a, squares, inner = no_value, x = no_value;
    if (!g.nodes[id].op || g.nodes[id].in.size() != 2 || !over_root(m, g.nodes[id], d, a, inside)) return false;
    const Node* plus = m.made_by(a, "Add");
    double eps;
    if (!plus || !m.scalar_side(*plus, squares, eps) || !(eps > 0)) return false;
    inside.push_back(m.id_of(*plus));
    int axis = mean_of(m, squares, inner, inside);
    const Node* square = inner == no_value ? nullptr : g.producer(inner);
    auto p = square ? m.polynomial(inner, d, 1) : std::nullopt;
    if (axis < 0 || !p || (*p)[2] != 1 || (*p)[0] != 0 || (*p)[1] != 0) return false;
    inside.push_back(m.id_of(*square));
    const Node* minus = m.made_by(d, "Sub");
    std::vector<NodeId> centre = inside;
    bool rms = !minus || mean_of(m, minus->in[1], x, centre) != axis || x != minus->in[0];
    if (rms) x = d;
    else inside = std::move(centre), inside.push_back(m.id_of(*minus));
    const Fact& fx = g.fact(x);
    if (!fx.ranked || (fx.dtype != DType::f32 && fx.dtype != DType::f64)) return false;
    inside.push_back(id);
    for (NodeId n : inside)
        if (n != id && !m.swallowed(g.nodes[n].out[0], inside)) return false;
    ValueId y = g.nodes[id].out[0], scale = no_value, bias = no_value;
    if (const Node* n = with_parameter(m, y, "Mul", fx, axis, scale)) {
        y = n->out[0];
        if (const Node* b = rms ? nullptr : with_parameter(m, y, "Add", fx, axis, bias)) y = b->out[0];
        else bias = no_value;
    } else {
        std::vector<std::int64_t> dims;
        for (int i = axis; i < fx.rank(); ++i) {
            if (!fx.dims[static_cast<std::size_t>(i)].is_const()) return false;
            dims.push_back(fx.dims[static_cast<std::size_t>(i)].value());
        }
        const Shape row{std::span<const std::int64_t>(dims)};
        if (storage_bytes(fx.dtype, row.count()) > (1u << 20)) return false;
        Tensor one(fx.dtype, row);
        if (fx.dtype == DType::f32) std::fill_n(static_cast<float*>(one.raw()), one.count(), 1.f);
        else std::fill_n(static_cast<double*>(one.raw()), one.count(), 1.0);
        scale = g.add_constant(g.fresh_name(g.values[y].name), std::move(one));
    }
    Attrs attrs;
    attrs.set("axis", static_cast<std::int64_t>(axis - g.fact(x).rank()));
    attrs.set("epsilon", static_cast<float>(eps));
    std::vector<ValueId> in{x, scale};
    if (bias != no_value) in.push_back(bias);
    m.replace(y, rms ? "RMSNormalization" : "LayerNormalization", std::move(in), std::move(attrs));
    return true;
}

inline bool patterns(Graph& g, const PassContext&) {
    Matcher m(g);
    bool changed = false;
    for (NodeId id : g.order())
        if (g.nodes[id].op && (match_gelu(m, id) || match_swish(m, id) || match_norm(m, id))) changed = true;
    return rotary(g) || changed;
}

}  // namespace passes_detail
QUERN_END
