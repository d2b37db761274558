// Depthwise convolutions in channels last take the pointwise convolutions before and after them, and the means of what they make;
// pointwise ones the gates of what they read.
#pragma once
#include "../ops/chain.hpp"
#include "../ops/planar.hpp"
#include "fuse-inl.hpp"
#include "trial.hpp"

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
/// By value: the last node in order that reads it; -1 for none.
inline std::vector<NodeId> last_readers(const Graph& g) {
    std::vector<NodeId> reader(g.values.size(), -1);
    for (NodeId id : g.order())
        for (ValueId v : g.nodes[static_cast<std::size_t>(id)].in)
            if (v != no_value) reader[static_cast<std::size_t>(v)] = id;
    return reader;
}
inline bool chain(Graph& g, const PassContext& ctx) {
    bool changed = false;
    if (ctx.target.device != Device::cpu) return false;
    std::vector<int> uses = g.use_counts();
    const std::vector<NodeId> reader = last_readers(g);
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
        const TrialTarget asked(ctx.target);
        const LowerCtx lower{trial, trial.attrs, facts_of(g, in), {}, asked.target};
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

/// Y * gate [N, 1, 1, C], which a pointwise convolution alone reads: it multiplies.
inline bool take_gate(Graph& g, NodeId id, const std::vector<int>& uses, const std::vector<NodeId>& reader, const PassContext& ctx) {
    const Node mul = g.nodes[id];
    if (!is_op(&mul, "Mul") || uses[static_cast<std::size_t>(mul.out[0])] != 1 || reader[static_cast<std::size_t>(mul.out[0])] < 0) return false;
    Node& last = g.nodes[static_cast<std::size_t>(reader[static_cast<std::size_t>(mul.out[0])])];
    if (!is_pointwise(g, &last) || last.in[0] != mul.out[0] || input_of(last, 4) != no_value) return false;
    for (std::size_t side = 0; side < 2; ++side) {
        const Fact &x = g.fact(mul.in[side]), &gate = g.fact(mul.in[1 - side]);
        if (!x.ranked || !gate.ranked || x.rank() != 4 || gate.rank() != 4 || gate.dtype != DType::f32 || !(x.dims == g.fact(mul.out[0]).dims)) continue;
        if (!gate.dims[1].is(1) || !gate.dims[2].is(1) || !(gate.dims[0] == x.dims[0]) || !(gate.dims[3] == x.dims[3])) continue;
        std::vector<ValueId> in = last.in;
        in.resize(5, no_value);
        in[0] = mul.in[side];
        in[4] = mul.in[1 - side];
        const TrialTarget asked(ctx.target);
        const LowerCtx lower{last, last.attrs, facts_of(g, in), {}, asked.target};
        if (best_rank(Family::conv, ops_fused::conv_problem(lower), ctx.target) == std::numeric_limits<int>::max()) continue;
        last.in = std::move(in);
        g.remove_node(id);
        return true;
    }
    return false;
}
/// The means over the planes of a depthwise convolution, which it sums while it makes them.
inline bool take_means(Graph& g, NodeId id, const PassContext& ctx) {
    const Node mean = g.nodes[id];
    if (!is_op(&mean, "ReduceMean") || mean.attrs.i("keepdims", 1) == 0) return false;
    auto axes = constant_ints(g, mean, 1);
    if (!axes || g.fact(mean.in[0]).rank() != 4 || axes->size() != 2) return false;
    for (std::int64_t& a : *axes) a = a < 0 ? a + 4 : a;
    if (std::min((*axes)[0], (*axes)[1]) != 1 || std::max((*axes)[0], (*axes)[1]) != 2) return false;
    const Node* made = g.producer(mean.in[0]);
    Node trial;
    if (is_op(made, "FusedDepthwise", "quern") && made->out.size() == 1) trial.in = made->in, trial.attrs = made->attrs;
    else if (is_depthwise(g, made)) {
        trial.in = {made->in[0], no_value, no_value, made->in[1], input_of(*made, 2)};
        trial.attrs = made->attrs;
        trial.attrs.erase("layout");
        trial.attrs.erase("group");
    } else return false;
    trial.op = &op_named("quern::FusedDepthwise");
    const TrialTarget asked(ctx.target);
    const LowerCtx lower{trial, trial.attrs, facts_of(g, trial.in), {&g.fact(mean.in[0]), &g.fact(mean.out[0])}, asked.target};
    if (!conv::refuse_chain(ops_chain::problem(lower), ctx.target).empty()) return false;
    std::string name = made->name, origin = made->origin;
    std::vector<ValueId> out{mean.in[0], mean.out[0]};
    g.remove_node(id);
    g.remove_node(static_cast<NodeId>(made - g.nodes.data()));
    NodeId now = g.add_node(*trial.op, name, std::move(trial.in), std::move(out), std::move(trial.attrs));
    g.nodes[now].origin = origin;
    infer_node(g, now);
    return true;
}
/// MaxPool over the first convolution, which alone it reads: rows are pooled while they are in the cache.
inline bool take_pool(Graph& g, NodeId id, const std::vector<int>& uses) {
    const Node pool = g.nodes[id];
    if (!is_op(&pool, "MaxPool", "quern") || pool.out.size() != 1) return false;
    Node* conv = g.producer(pool.in[0]);
    if (!is_op(conv, "PlanarConv", "quern") || uses[static_cast<std::size_t>(pool.in[0])] != 1 || input_of(*conv, 3) != no_value || conv->attrs.has("pool_kernel_shape")) return false;
    Attrs attrs = conv->attrs;
    for (const char* name : ops_planar::pool_attributes)
        if (const Attr* v = pool.attrs.find(name)) attrs.set(std::string("pool_") + name, *v);
    auto window = ops_planar::pool_window(attrs);
    if (!window || !conv::refuse_pool(*window).empty()) return false;
    conv->attrs = std::move(attrs);
    g.remove_node(id);
    NodeId cid = static_cast<NodeId>(conv - g.nodes.data());
    g.values[static_cast<std::size_t>(conv->out[0])].producer = -1;
    conv->out = pool.out;
    g.values[static_cast<std::size_t>(conv->out[0])].producer = cid;
    return true;
}
/// What passes over whole planes becomes part of the convolutions around it: the means and scales of squeeze and excitation, the first pool.
inline bool gates(Graph& g, const PassContext& ctx) {
    if (ctx.target.device != Device::cpu) return false;
    std::vector<int> uses = g.use_counts();
    const std::vector<NodeId> reader = last_readers(g);
    bool changed = false;
    for (NodeId id : g.order())
        if (g.nodes[id].op && (take_gate(g, id, uses, reader, ctx) || take_means(g, id, ctx) || take_pool(g, id, uses))) changed = true;
    return changed;
}

}  // namespace passes_detail
QUERN_END
