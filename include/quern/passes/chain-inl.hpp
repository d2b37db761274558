// Depthwise convolutions in channels last take the pointwise convolutions before and after them.
#pragma once
#include "../ops/chain.hpp"
#include "fuse-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// A convolution in channels last with constant weights [M, C, kh, kw].
inline bool is_last_conv(const Graph& g, const Node* n) {
    return is_op(n, "FusedConv", "quern") && n->attrs.s("layout", "nchw") == "nhwc" && g.fact(n->in[0]).rank() == 4 && g.fact(n->in[1]).is_const();
}
inline bool is_pointwise(const Graph& g, const Node* n) {
    if (!is_last_conv(g, n) || n->attrs.i("group", 1) != 1) return false;
    conv::Window w = ops_window::of_weights(n->attrs, g.fact(n->in[1]));
    auto all = [](const std::vector<std::int64_t>& v, std::int64_t x) { return std::all_of(v.begin(), v.end(), [&](auto i) { return i == x; }); };
    return all(w.kernel, 1) && all(w.strides, 1) && all(w.pads, 0);
}
inline bool is_depthwise(const Graph& g, const Node* n) {
    if (!is_last_conv(g, n) || (n->in.size() > 3 && n->in[3] != no_value)) return false;
    const Shape s = g.fact(n->in[1]).value.shape();
    if (s[1] != 1 || s[0] != n->attrs.i("group", 1) || s[0] == 1) return false;
    conv::Window w = ops_window::of_weights(n->attrs, g.fact(n->in[1]));
    for (std::int64_t v : w.pads)
        if (v > 64) return false;  // rows are kept with their padding
    for (int d = 0; d < 2; ++d)
        if (w.kernel[static_cast<std::size_t>(d)] * w.dilations[static_cast<std::size_t>(d)] > 64) return false;
    return true;
}
inline ValueId input_of(const Node& n, std::size_t i) { return i < n.in.size() ? n.in[i] : no_value; }
inline void move_activation(const Attrs& from, Attrs& to, const std::string& prefix) {
    for (const char* name : {"activation", "activation_params"})
        if (const Attr* a = from.find(name)) to.set(prefix + name, *a);
}
inline bool chain(Graph& g, const PassContext& ctx) {
    bool changed = false;
    if (ctx.target.device != Device::cpu) return false;
    std::vector<int> uses = g.use_counts();
    std::vector<NodeId> reader(g.values.size(), -1);
    for (NodeId id : g.order())
        for (ValueId v : g.nodes[id].in)
            if (v != no_value) reader[static_cast<std::size_t>(v)] = id;
    for (NodeId id : g.order()) {
        const Node* middle = &g.nodes[id];
        if (!middle->op || !is_depthwise(g, middle)) continue;
        const Node* first = g.producer(middle->in[0]);
        if (!is_pointwise(g, first) || uses[middle->in[0]] != 1 || input_of(*first, 3) != no_value) first = nullptr;
        const Node* last = uses[middle->out[0]] == 1 && reader[middle->out[0]] >= 0 ? &g.nodes[reader[middle->out[0]]] : nullptr;
        if (!is_pointwise(g, last) || last->in[0] != middle->out[0]) last = nullptr;
        if (!first && !last) continue;
        Attrs attrs = middle->attrs;
        attrs.erase("layout");
        attrs.erase("group");
        if (first) move_activation(first->attrs, attrs, "expand_");
        if (last) move_activation(last->attrs, attrs, "project_");
        std::vector<ValueId> in{first ? first->in[0] : middle->in[0], first ? first->in[1] : no_value, first ? input_of(*first, 2) : no_value, middle->in[1], input_of(*middle, 2)};
        if (last) in.insert(in.end(), {last->in[1], input_of(*last, 2), input_of(*last, 3)});
        Node trial;
        trial.op = &op_named("quern::FusedDepthwise");
        trial.attrs = attrs;
        LowerCtx lower{trial, trial.attrs, {}, {}, ctx.target};
        for (ValueId v : in) lower.inputs.push_back(v == no_value ? nullptr : &g.fact(v));
        if (!conv::refuse_chain(ops_chain::problem(lower), ctx.target).empty()) continue;
        const Node* end = last ? last : middle;
        ValueId out = end->out[0];
        std::string name = middle->name, origin = middle->origin;
        for (const Node* n : {first, middle, last}) {
            if (!n) continue;
            g.values[n->out[0]].producer = -1;
            g.remove_node(static_cast<NodeId>(n - g.nodes.data()));
        }
        NodeId made = g.add_node(*trial.op, name, std::move(in), {out}, std::move(attrs));
        g.nodes[made].origin = origin;
        infer_node(g, made);
        changed = true;
    }
    return changed;
}

}  // namespace passes_detail
QUERN_END
