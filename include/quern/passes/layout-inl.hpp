// Channels last where the convolutions that the target has want it; transposes meet and vanish in between.
#pragma once
#include <algorithm>

#include "../ops/conv.hpp"
#include "../ops/evaluate.hpp"
#include "pass.hpp"

QUERN_BEGIN
namespace passes_detail {

using Perm = std::vector<std::int64_t>;
inline Perm to_last(int rank) {  // nchw -> nhwc
    Perm p{0};
    for (int d = 2; d < rank; ++d) p.push_back(d);
    p.push_back(1);
    return p;
}
inline Perm to_first(int rank) {  // nhwc -> nchw
    Perm p{0, rank - 1};
    for (int d = 1; d < rank - 1; ++d) p.push_back(d);
    return p;
}

struct Layout {
    Graph& g;
    const PassContext& ctx;

    ValueId node(const OpDef& op, std::vector<ValueId> in, Attrs a, const std::string& origin, std::string stem) {  // stem may be a name in g.values, which grows
        ValueId out = g.add_value(g.fresh_name(stem), Fact());
        NodeId id = g.add_node(op, g.fresh_name(stem), std::move(in), {out}, std::move(a));
        g.nodes[id].origin = origin;
        infer_node(g, id);
        return out;
    }
    ValueId transpose(ValueId v, Perm perm, const std::string& origin) {
        if (const Node* p = g.producer(v); p && is_op(p, "Transpose")) {  // two that undo each other
            auto first = p->attrs.ints("perm");
            bool undone = first.size() == perm.size();
            for (std::size_t i = 0; undone && i < perm.size(); ++i) undone = first[static_cast<std::size_t>(perm[i])] == static_cast<std::int64_t>(i);
            if (undone) return p->in[0];
        }
        Attrs a;
        a.set("perm", std::move(perm));
        return node(op_named("Transpose"), {v}, std::move(a), origin, g.values[v].name);
    }
    bool prefers_last(const Node& n) {
        const Fact &x = g.fact(n.in[0]), &w = g.fact(n.in[1]);
        if (x.dtype != DType::f32 || !x.ranked || x.rank() < 3 || !w.is_const() || n.attrs.s("layout", "nchw") != "nchw") return false;
        LowerCtx lower{n, n.attrs, {}, {}, ctx.target};
        for (ValueId v : n.in) lower.inputs.push_back(v == no_value ? nullptr : &g.fact(v));
        conv::Problem p = ops_conv::problem(lower);
        p.has_residual = n.in.size() > 3 && n.in[3] != no_value;
        p.post = n.attrs.has("activation") ? vec::Post::relu : vec::Post::none;
        int first = best_rank(Family::conv, p, ctx.target);
        p.layout = conv::Layout::nhwc;
        return best_rank(Family::conv, p, ctx.target) < first;
    }
    void convolution(NodeId id) {
        int rank = g.fact(g.nodes[id].in[0]).rank();
        std::string origin = g.nodes[id].origin;
        ValueId x = transpose(g.nodes[id].in[0], to_last(rank), origin);
        std::vector<ValueId> in = g.nodes[id].in;
        in[0] = x;
        if (in.size() > 3 && in[3] != no_value) in[3] = transpose(in[3], to_last(rank), origin);
        ValueId out = g.nodes[id].out[0];
        Attrs a = g.nodes[id].attrs;
        a.set("layout", std::string("nhwc"));
        std::string name = g.nodes[id].name;
        ValueId y = node(op_named("quern::FusedConv"), in, std::move(a), origin, name);
        g.nodes[g.values[y].producer].name = name;
        ValueId back = transpose(y, to_first(rank), origin);
        g.replace_uses(out, back);
        rename(out, back);
        g.remove_node(id);
    }
    /// `now` takes the ONNX name of `old`, which nobody uses any more.
    void rename(ValueId old, ValueId now) { std::swap(g.values[old].name, g.values[now].name); }

    /// The value behind a transpose to channels first, or no_value.
    ValueId behind(ValueId v, int rank) const {
        const Node* p = v == no_value ? nullptr : g.producer(v);
        return p && is_op(p, "Transpose") && p->attrs.ints("perm") == to_first(rank) ? p->in[0] : no_value;
    }
    /// A constant operand of an element-wise node as it must be for channels last; no_value if it cannot.
    ValueId constant_last(ValueId v, int rank) {
        const Fact& f = g.fact(v);
        if (!f.is_const() || f.rank() > rank) return no_value;
        if (f.value.count() == 1) return f.rank() == 0 ? v : g.add_constant(g.fresh_name(g.values[v].name), f.value.reshaped({}));
        std::vector<std::int64_t> dims(static_cast<std::size_t>(rank - f.rank()), 1);
        for (auto& d : f.dims) dims.push_back(d.value());
        for (int d = 0; d < rank; ++d)
            if (d != 1 && dims[static_cast<std::size_t>(d)] != 1) return no_value;
        return g.add_constant(g.fresh_name(g.values[v].name), f.value.reshaped({dims[1]}));
    }
    /// Moves the transposes above node `id` below it. True when done.
    bool sink(NodeId id) {
        const Node& n = g.nodes[id];
        if (n.out.size() != 1 || n.out[0] == no_value || *n.op->domain || n.in.empty()) return false;
        const Fact& y = g.fact(n.out[0]);
        if (!y.ranked || y.rank() < 3) return false;
        int rank = y.rank();
        std::string_view op = n.op->name;
        std::vector<ValueId> in = n.in;
        Attrs attrs = n.attrs;
        static constexpr std::string_view unary[] = {"Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Clip", "LeakyRelu", "Tanh", "Exp", "Sqrt", "Abs", "Neg", "Elu", "Erf", "Gelu", "Swish", "Cast", "Identity", "Softplus", "Mish"};
        static constexpr std::string_view elementwise[] = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"};
        if (std::find(std::begin(unary), std::end(unary), op) != std::end(unary)) {
            in[0] = behind(in[0], rank);
            if (in[0] == no_value) return false;
        } else if (std::find(std::begin(elementwise), std::end(elementwise), op) != std::end(elementwise)) {
            bool any = false;
            for (ValueId& v : in) {
                if (g.fact(v).is_const()) continue;
                if (!g.fact(v).ranked || g.fact(v).rank() != rank) return false;
                v = behind(v, rank);
                if (v == no_value) return false;
                any = true;
            }
            if (!any) return false;
            for (ValueId& v : in) {
                if (g.fact(v).is_const()) v = constant_last(v, rank);
                if (v == no_value) return false;
            }
        } else if (op == "Concat") {
            std::int64_t axis = attrs.i("axis", 0);
            if (axis < 0) axis += rank;
            for (ValueId& v : in) {
                v = behind(v, rank);
                if (v == no_value) return false;
            }
            attrs.set("axis", axis == 0 ? std::int64_t{0} : axis == 1 ? std::int64_t{rank - 1} : axis - 1);
        } else if (op == "GlobalAveragePool") {
            in[0] = behind(in[0], rank);
            if (in[0] == no_value) return false;
            std::vector<std::int64_t> axes;
            for (int d = 1; d < rank - 1; ++d) axes.push_back(d);
            auto n_axes = static_cast<std::int64_t>(axes.size());
            in.push_back(g.add_constant(g.fresh_name("axes"), Tensor::from(std::span<const std::int64_t>(axes), {n_axes})));
            attrs.set("keepdims", std::int64_t{1});
            op = "ReduceMean";
        } else if (op == "MaxPool" || op == "AveragePool") {
            in[0] = behind(in[0], rank);
            if (in[0] == no_value) return false;
            op = op == "MaxPool" ? "quern::MaxPool" : "quern::AveragePool";
        } else {
            return false;
        }
        std::string origin = n.origin, name = n.name;
        ValueId out = n.out[0];
        ValueId moved = node(op_named(op), std::move(in), std::move(attrs), origin, name);
        g.nodes[g.values[moved].producer].name = name;
        ValueId back = transpose(moved, to_first(rank), origin);
        g.replace_uses(out, back);
        rename(out, back);
        g.remove_node(id);
        return true;
    }
    /// Transpose to channels last of a value that is there in channels last.
    bool cancel(NodeId id) {
        const Node& n = g.nodes[id];
        if (!is_op(&n, "Transpose")) return false;
        auto perm = n.attrs.ints("perm");
        int rank = static_cast<int>(perm.size());
        if (rank < 3 || perm != to_last(rank)) return false;
        ValueId v = behind(n.in[0], rank);
        if (v == no_value) return false;
        g.replace_uses(n.out[0], v);
        g.remove_node(id);
        return true;
    }
};

inline bool layout(Graph& g, const PassContext& ctx) {
    Layout l{g, ctx};
    std::vector<NodeId> chosen;
    for (NodeId id : g.order())
        if ((is_op(&g.nodes[id], "Conv") || is_op(&g.nodes[id], "FusedConv", "quern")) && l.prefers_last(g.nodes[id])) chosen.push_back(id);
    for (NodeId id : chosen) l.convolution(id);
    if (chosen.empty()) return false;
    for (bool again = true; again;) {
        again = false;
        for (NodeId id : g.order())
            if (g.nodes[id].op && (l.cancel(id) || l.sink(id))) again = true;
    }
    return true;
}

}  // namespace passes_detail
QUERN_END
