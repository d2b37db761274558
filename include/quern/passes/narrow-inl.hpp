// Products and convolutions of f16 and bf16 on a device: the promotion to f32, which the host's kernels need, is taken back where the device
// multiplies these types itself (and sums in f32).
#pragma once
#include <optional>

#include "../base/guard.hpp"
#include "../ops/evaluate.hpp"
#include "../tensor/half.hpp"
#include "match-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

struct Narrowing {
    Graph& g;
    const PassContext& ctx;

    static bool is_half(DType t) { return t == DType::f16 || t == DType::bf16; }
    /// The half type that a value was widened from, on the device.
    std::optional<DType> widened_from(ValueId v) const {
        const Node* p = v == no_value ? nullptr : g.producer(v);
        if (!p || !is_op(p, "Cast") || p->device == Device::cpu || g.fact(v).dtype != DType::f32) return std::nullopt;
        const DType t = g.fact(p->in[0]).dtype;
        return is_half(t) ? std::optional(t) : std::nullopt;
    }
    /// The constant in type t if that loses nothing.
    static Tensor exact(const Tensor& from, DType t) {
        if (!from.defined() || from.dtype() != DType::f32) return {};
        const Tensor x = from.aligned();
        Tensor y = Tensor::uninitialized(t, x.shape());
        const auto v = x.data<float>();
        for (std::size_t i = 0; i < v.size(); ++i) {
            float back;
            if (t == DType::f16) back = to_float(y.data<Half>()[i] = to_half(v[i]));
            else back = to_float(y.data<BFloat16>()[i] = to_bfloat16(v[i]));
            if (!(back == v[i])) return {};
        }
        return y;
    }
    bool accepts(NodeId id, const std::vector<ValueId>& in, DType t) const {
        const Node& n = g.nodes[id];
        Target target = ctx.target;
        target.refusals = nullptr;
        LowerCtx lower{n, n.attrs, {}, {}, target};
        for (ValueId v : in) lower.inputs.push_back(v == no_value ? nullptr : &g.fact(v));
        Fact out = g.fact(n.out[0]);
        out.dtype = t;
        lower.outputs = {&out};
        return static_cast<bool>(guarded([&] { return n.op->lower_device(lower); }));
    }
    ValueId cast(ValueId v, DType t, const Node& like) {
        const std::string origin = like.origin, stem = g.values[v].name;
        const Device device = like.device;
        ValueId out = g.add_value(g.fresh_name(stem), Fact());
        Attrs a;
        a.set("to", static_cast<std::int64_t>(t));
        NodeId id = g.add_node(op_named("Cast"), g.fresh_name("Cast"), {v}, {out}, std::move(a));
        g.nodes[id].origin = origin;
        g.nodes[id].device = device;
        infer_node(g, id);
        return out;
    }
    bool node(NodeId id) {
        const Node& n = g.nodes[id];
        if (!n.op || n.device == Device::cpu || n.out.size() != 1) return false;
        if (!is_op(&n, "MatMul") && !is_op(&n, "Gemm") && !is_op(&n, "FusedMatMul", "quern") && !is_op(&n, "Conv") && !is_op(&n, "FusedConv", "quern")) return false;
        std::optional<DType> t;
        for (ValueId v : n.in)
            if (auto w = widened_from(v)) {
                if (t && *t != *w) return false;
                t = w;
            }
        if (!t) return false;
        std::vector<ValueId> in = n.in;
        std::vector<std::pair<std::size_t, Tensor>> constants;
        for (std::size_t i = 0; i < in.size(); ++i) {
            if (in[i] == no_value) continue;
            if (widened_from(in[i])) {
                in[i] = g.producer(in[i])->in[0];
                continue;
            }
            Tensor c = exact(g.fact(in[i]).value, *t);
            if (!c.defined()) return false;
            constants.emplace_back(i, std::move(c));
        }
        for (auto& [i, c] : constants) in[i] = g.add_constant(g.fresh_name(g.values[in[i]].name), c);
        if (!accepts(id, in, *t)) return false;
        // The node gives the narrow type; who wants it wide gets it cast.
        const ValueId out = n.out[0];
        g.nodes[id].in = in;
        ValueId narrow = g.add_value(g.fresh_name(g.values[out].name), Fact());
        g.values[narrow].producer = id;
        g.nodes[id].out[0] = narrow;
        infer_node(g, id);
        std::vector<NodeId> casts;
        for (NodeId u = 0; u < static_cast<NodeId>(g.nodes.size()); ++u)
            if (g.nodes[u].op && is_op(&g.nodes[u], "Cast") && g.nodes[u].in[0] == out && g.fact(g.nodes[u].out[0]).dtype == *t && g.nodes[u].device != Device::cpu)
                casts.push_back(u);
        for (NodeId u : casts) {
            const ValueId old = g.nodes[u].out[0];
            g.replace_uses(old, narrow);
            std::swap(g.values[old].name, g.values[narrow].name);
            g.remove_node(u);
        }
        if (g.use_counts()[out] > 0) {
            g.values[out].producer = -1;
            const ValueId wide = cast(narrow, DType::f32, g.nodes[id]);
            g.replace_uses(out, wide);
            std::swap(g.values[out].name, g.values[wide].name);
        }
        return true;
    }
};

inline bool narrow(Graph& g, const PassContext& ctx) {
    if (ctx.target.device == Device::cpu) return false;
    Narrowing n{g, ctx};
    bool changed = false;
    for (NodeId id : g.order()) changed = n.node(id) || changed;
    return changed;
}

}  // namespace passes_detail
QUERN_END
