// What surrounds convolutions: constants folded into their weights, zeros into their padding; activations written out by
// exporters recognized.
#pragma once
#include <cmath>

#include "fuse-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// The content of a one-element f32 constant; NaN where `v` is none.
inline float scalar_of(const Graph& g, ValueId v) {
    if (v == no_value) return NAN;
    const Tensor& t = g.fact(v).value;
    return t.defined() && t.dtype() == DType::f32 && t.count() == 1 ? t.data<float>()[0] : NAN;
}
/// An f32 constant that broadcasts over all of `y` [N, C, d...] but its channels, as C values; empty otherwise.
inline std::vector<float> channel_constant(const Graph& g, ValueId v, const Fact& y, std::int64_t channels) {
    const Fact& f = g.fact(v);
    if (!f.is_const() || f.dtype != DType::f32 || f.rank() > y.rank()) return {};
    const Tensor value = f.value.aligned();
    auto data = value.data<float>();
    if (data.size() == 1) return std::vector<float>(static_cast<std::size_t>(channels), data[0]);
    if (static_cast<std::int64_t>(data.size()) != channels || f.rank() < y.rank() - 1) return {};
    if (!f.dims[static_cast<std::size_t>(f.rank() - y.rank() + 1)].is(channels)) return {};
    return {data.begin(), data.end()};
}
/// Convolution with constant weights, then * or / or + or - a constant for each channel: into weights and bias.
inline bool fold_channel_constant(Graph& g, const PassContext& ctx, NodeId id, const std::vector<int>& uses) {
    const Node& n = g.nodes[id];
    bool mul = is_op(&n, "Mul"), div = is_op(&n, "Div"), add = is_op(&n, "Add"), sub = is_op(&n, "Sub");
    if (!mul && !div && !add && !sub) return false;
    int side = mul || add ? (g.fact(n.in[0]).is_const() ? 1 : 0) : 0;
    Node* conv = g.producer(n.in[static_cast<std::size_t>(side)]);
    if (!is_op(conv, "Conv") || uses[conv->out[0]] != 1) return false;
    const Fact &w = g.fact(conv->in[1]), &y = g.fact(conv->out[0]);
    bool has_bias = conv->in.size() > 2 && conv->in[2] != no_value;
    if (!w.is_const() || w.dtype != DType::f32 || !y.ranked || w.dims.empty() || (has_bias && !g.fact(conv->in[2]).is_const())) return false;
    std::int64_t m = w.dims[0].value(), k = m ? w.value.count() / m : 0;
    std::vector<float> c = channel_constant(g, n.in[static_cast<std::size_t>(1 - side)], y, m);
    if (c.empty()) return false;
    Tensor bias(DType::f32, {m});
    auto b = bias.data<float>();
    if (has_bias) std::memcpy(b.data(), g.fact(conv->in[2]).value.raw(), bias.bytes());
    if (mul || div) {
        Tensor scaled = editable(w.value);
        auto s = scaled.data<float>();
        for (std::int64_t i = 0; i < m; ++i) {
            b[i] = mul ? b[i] * c[i] : b[i] / c[i];
            for (std::int64_t j = 0; j < k; ++j) s[i * k + j] = mul ? s[i * k + j] * c[i] : s[i * k + j] / c[i];
        }
        ctx.done_with(w.value);
        conv->in[1] = g.add_constant(g.fresh_name(g.values[conv->in[1]].name), std::move(scaled));
    } else {
        for (std::int64_t i = 0; i < m; ++i) b[i] = add ? b[i] + c[i] : b[i] - c[i];
    }
    if (has_bias || add || sub) {
        conv->in.resize(3, no_value);
        conv->in[2] = g.add_constant(g.fresh_name(g.values[conv->out[0]].name + "_bias"), std::move(bias));
    }
    ValueId out = g.nodes[id].out[0];
    NodeId cid = static_cast<NodeId>(conv - g.nodes.data());
    g.values[conv->out[0]].producer = -1;
    g.remove_node(id);
    g.values[out].producer = cid;
    g.nodes[cid].out = {out};
    return true;
}
/// Pad with zeros around the spatial dimensions, then a convolution: its own padding.
inline bool fold_pad(Graph& g, NodeId id) {
    Node& conv = g.nodes[id];
    const Node* pad = is_op(&conv, "Conv") ? g.producer(conv.in[0]) : nullptr;
    if (!is_op(pad, "Pad") || pad->attrs.s("mode", "constant") != "constant" || (pad->in.size() > 3 && pad->in[3] != no_value)) return false;
    if (pad->in.size() > 2 && pad->in[2] != no_value && scalar_of(g, pad->in[2]) != 0) return false;
    std::string mode = conv.attrs.s("auto_pad", "NOTSET");
    if (mode != "NOTSET" && !mode.empty() && mode != "VALID") return false;
    const Fact &x = g.fact(pad->in[0]), &p = g.fact(pad->in[1]);
    if (!x.ranked || !p.is_const() || p.value.dtype() != DType::i64 || p.value.count() != 2 * x.rank()) return false;
    auto more = p.value.data<std::int64_t>();
    std::size_t rank = static_cast<std::size_t>(x.rank()), n = rank - 2;
    for (std::size_t d = 0; d < 2 * rank; ++d)
        if (d % rank < 2 ? more[d] != 0 : more[d] < 0 || more[d] > 1 << 20) return false;
    std::vector<std::int64_t> pads = conv.attrs.ints("pads");
    if (pads.empty() || mode == "VALID") pads.assign(2 * n, 0);
    if (pads.size() != 2 * n) return false;
    for (std::size_t d = 0; d < 2 * n; ++d) {
        pads[d] += more[d < n ? d + 2 : rank + d - n + 2];
        if (pads[d] > 1 << 30) return false;
    }
    conv.attrs.set("pads", pads);
    conv.attrs.set("auto_pad", std::string("NOTSET"));
    conv.in[0] = pad->in[0];
    return true;
}
/// Resize to at least as many pixels, by constant scales of the spatial axes.
inline bool enlarges(const Graph& g, const Node* n) {
    if (!is_op(n, "Resize") || n->in.size() < 3 || n->in[2] == no_value || n->attrs.has("axes") || n->attrs.s("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize") return false;
    const Fact &x = g.fact(n->in[0]), &scales = g.fact(n->in[2]);
    if (!x.ranked || x.rank() < 3 || !scales.is_const() || scales.value.count() != x.rank()) return false;
    const Tensor value = scales.value.aligned();
    auto f = value.data<float>();
    return f[0] == 1 && f[1] == 1 && std::all_of(f.begin() + 2, f.end(), [](float v) { return v >= 1; });
}
/// A pointwise convolution of an enlarged picture is the enlarged picture of the convolution: a Resize gives sums whose weights add up to 1.
/// So it has the fewer pixels. Left alone where what follows would have become part of the convolution.
inline bool enlarge_later(Graph& g, NodeId id, const std::vector<int>& uses) {
    const Node& conv = g.nodes[id];
    if (!is_op(&conv, "Conv") || g.values[conv.in[0]].producer < 0 || uses[conv.in[0]] != 1 || !enlarges(g, g.producer(conv.in[0]))) return false;
    const Fact& w = g.fact(conv.in[1]);
    auto all = [&](const char* name, std::int64_t x) {
        const auto v = conv.attrs.ints(name);
        return std::all_of(v.begin(), v.end(), [&](std::int64_t i) { return i == x; });
    };
    if (!w.is_const() || w.dtype != DType::f32 || conv.attrs.i("group", 1) != 1 || !all("strides", 1) || !all("pads", 0)) return false;
    for (std::size_t d = 2; d < w.dims.size(); ++d)
        if (!w.dims[d].is(1)) return false;
    if (w.dims[0].value() > w.dims[1].value()) return false;  // the Resize would have more to do
    const ValueId y = conv.out[0];
    for (const Node& n : g.nodes)
        if (n.op && std::find(n.in.begin(), n.in.end(), y) != n.in.end() && !is_op(&n, "Concat") && !is_op(&n, "Conv") && !is_op(&n, "Resize")) return false;
    const NodeId resize = g.values[conv.in[0]].producer;
    const ValueId small = g.add_value(g.fresh_name(g.values[y].name), Fact());
    g.values[conv.in[0]].producer = -1;
    g.nodes[id].in[0] = g.nodes[resize].in[0];
    g.nodes[id].out = {small};
    g.values[small].producer = id;
    g.nodes[resize].in[0] = small;
    g.nodes[resize].out = {y};
    g.values[y].producer = resize;
    infer_node(g, id);
    infer_node(g, resize);
    return true;
}
inline bool close_to(float a, double b) { return std::abs(static_cast<double>(a) - b) <= 1e-6 * std::abs(b); }
/// x + 3, x being what is returned; no_value where `v` is something else.
inline ValueId plus_three(const Graph& g, ValueId v) {
    const Node* n = g.producer(v);
    for (std::size_t side = 0; is_op(n, "Add") && side < 2; ++side)
        if (scalar_of(g, n->in[side]) == 3) return n->in[1 - side];
    return no_value;
}
/// Clip(x + 3, 0, 6): gives x.
inline ValueId relu6_of_plus_three(const Graph& g, ValueId v) {
    const Node* n = g.producer(v);
    if (!is_op(n, "Clip") || n->in.size() < 3 || scalar_of(g, n->in[1]) != 0 || scalar_of(g, n->in[2]) != 6) return no_value;
    return plus_three(g, n->in[0]);
}
/// `v` / 6 or `v` * (1/6): gives v.
inline ValueId sixth_of(const Graph& g, const Node& n) {
    if (is_op(&n, "Div") && scalar_of(g, n.in[1]) == 6) return n.in[0];
    for (std::size_t side = 0; is_op(&n, "Mul") && side < 2; ++side)
        if (close_to(scalar_of(g, n.in[side]), 1.0 / 6)) return n.in[1 - side];
    return no_value;
}
/// Puts op(x) in the place of node `id`.
inline bool become(Graph& g, NodeId id, const char* op, ValueId x, Attrs a = {}) {
    if (g.fact(x).dtype != DType::f32 || !g.fact(x).ranked || !g.fact(g.nodes[id].out[0]).ranked || !(g.fact(x).dims == g.fact(g.nodes[id].out[0]).dims)) return false;
    Node& n = g.nodes[id];
    n.op = &op_named(op);
    n.in = {x};
    n.attrs = std::move(a);
    return true;
}
inline Attrs hard_sigmoid_sixth() {
    Attrs a;
    a.set("alpha", 1.f / 6);
    a.set("beta", 0.5f);
    return a;
}
/// HardSigmoid and HardSwish from Clip(x + 3, 0, 6) / 6, x * HardSigmoid(x), x * Clip(x + 3, 0, 6) / 6.
inline bool spell_activation(Graph& g, NodeId id) {
    const Node& n = g.nodes[id];
    if (!is_op(&n, "Mul") && !is_op(&n, "Div")) return false;
    if (ValueId v = sixth_of(g, n); v != no_value) {
        if (ValueId x = relu6_of_plus_three(g, v); x != no_value) return become(g, id, "HardSigmoid", x, hard_sigmoid_sixth());
        const Node* p = g.producer(v);
        for (std::size_t side = 0; is_op(p, "Mul") && side < 2; ++side)
            if (p->in[side] != no_value && relu6_of_plus_three(g, p->in[1 - side]) == p->in[side]) return become(g, id, "HardSwish", p->in[side]);
    }
    for (std::size_t side = 0; is_op(&n, "Mul") && side < 2; ++side) {
        const Node* p = g.producer(n.in[1 - side]);
        if (!p || p->in.empty() || p->in[0] != n.in[side]) continue;
        if (is_op(p, "HardSigmoid") && close_to(p->attrs.f("alpha", 0.2f), 1.0 / 6) && p->attrs.f("beta", 0.5f) == 0.5f) return become(g, id, "HardSwish", n.in[side]);
    }
    return false;
}

/// Rewrites around convolutions that leave them convolutions.
inline bool convolutions(Graph& g, const PassContext& ctx) {
    bool changed = false;
    for (NodeId id : g.order()) {
        if (!g.nodes[id].op) continue;
        if (spell_activation(g, id) || fold_pad(g, id)) {
            changed = true;
            infer_node(g, id);
        }
    }
    std::vector<int> uses = g.use_counts();
    for (NodeId id : g.order()) {
        if (!g.nodes[id].op || !enlarge_later(g, id, uses)) continue;
        uses = g.use_counts();
        changed = true;
    }
    for (NodeId id : g.order()) {
        if (!g.nodes[id].op || !fold_channel_constant(g, ctx, id, uses)) continue;
        uses.resize(g.values.size(), 1);
        changed = true;
    }
    return changed;
}

}  // namespace passes_detail
QUERN_END
