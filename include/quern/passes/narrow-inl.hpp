// What the model computes in f16 and bf16, on a device: the promotion to f32, which the host's kernels need, is taken back where the
// device's kernels take these types themselves (and compute in f32 inside).
#pragma once
#include <optional>

#include "../base/guard.hpp"
#include "../ops/evaluate.hpp"
#include "../tensor/half.hpp"
#include "match-inl.hpp"
#include "promote-inl.hpp"
#include "trial.hpp"

QUERN_BEGIN
namespace passes_detail {

struct Narrowing {
    Graph& g;
    const PassContext& ctx;

    /// The half type that a value was widened from, on the device.
    std::optional<DType> widened_from(ValueId v) const {
        const Node* p = v == no_value ? nullptr : g.producer(v);
        if (!p || !is_op(p, "Cast") || p->device == Device::cpu || g.fact(v).dtype != DType::f32) return std::nullopt;
        const DType t = g.fact(p->in[0]).dtype;
        return is_half(t) ? std::optional(t) : std::nullopt;
    }
    /// The half type that the model gives a wide value of the device.
    std::optional<DType> meant_as(ValueId v) const {
        if (auto t = widened_from(v)) return t;
        const Node* p = v == no_value ? nullptr : g.producer(v);
        if (!p || p->device == Device::cpu || g.fact(v).dtype != DType::f32) return std::nullopt;
        const auto t = static_cast<DType>(p->attrs.i(narrow_type, 0));
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
    ValueId cast(ValueId v, DType t, const Node& like) {
        return cast_to(g, v, t, like.origin, like.device);
    }
    /// What narrowing an input would take.
    struct Input {
        enum How { as_it_is, source, constant, cast } how = as_it_is;
        Fact fact;
    };
    bool node(NodeId id);
    ValueId cast_once(ValueId v, DType t, const Node& like);
    bool meant_narrow(const Node& n) const;
    std::optional<DType> type_for(const Node& n) const;
    bool inputs(const Node& n, DType t, std::vector<Input>& how) const;
    std::vector<std::size_t> outputs(const Node& n, DType t, const std::vector<Input>& how) const;
    void give_narrow(NodeId id, std::size_t o, DType t);
};

/// Worth a cast of operands that are only there as f32.
inline bool is_product(const Node& n) {
    for (const char* name : {"MatMul", "Gemm", "Conv", "Attention"})
        if (is_op(&n, name)) return true;
    for (const char* name : {"FusedMatMul", "FusedConv", "FusedAttention"})
        if (is_op(&n, name, "quern")) return true;
    return false;
}
/// Whether the model computes the node in a half type: promotion says so, or it was made of nodes that are gone.
inline bool Narrowing::meant_narrow(const Node& n) const { return n.attrs.has(narrow_type) || is_op(&n, "FusedAttention", "quern"); }
/// The type in which the node is to compute, if it is to be narrowed: products wherever their operands are narrow, others where the model
/// has it so and an operand is at hand.
inline std::optional<DType> Narrowing::type_for(const Node& n) const {
    const bool product = is_product(n), meant = meant_narrow(n);
    if (!product && !meant) return std::nullopt;
    std::optional<DType> t;
    if (n.attrs.has(narrow_type)) t = static_cast<DType>(n.attrs.i(narrow_type, 0));
    bool at_hand = product && t;
    for (ValueId v : n.in) {
        const auto w = product && meant ? meant_as(v) : widened_from(v);
        if (!w) continue;
        if (t && *t != *w) return std::nullopt;
        t = w;
        at_hand = true;
    }
    return at_hand ? t : std::nullopt;
}
inline bool Narrowing::inputs(const Node& n, DType t, std::vector<Input>& how) const {
    how.resize(n.in.size());
    for (std::size_t i = 0; i < n.in.size(); ++i) {
        const ValueId v = n.in[i];
        if (v == no_value) continue;
        how[i].fact = g.fact(v);
        if (g.fact(v).dtype != DType::f32 || (i < 32 && !(n.op->promote_in >> i & 1u))) continue;
        if (widened_from(v)) {
            how[i] = {Input::source, g.fact(g.producer(v)->in[0])};
        } else if (g.fact(v).is_const()) {
            Tensor c = exact(g.fact(v).value, t);
            if (c.defined()) how[i] = {Input::constant, Fact::constant(std::move(c))};
        } else if (meant_narrow(n) && meant_as(v) == t) {
            how[i] = {Input::cast, Fact::of(t, g.fact(v).dims)};
        }
        const bool mask = i >= 3 && is_op(&n, "FusedAttention", "quern");  // of any type
        if (how[i].how == Input::as_it_is && !mask) return false;
    }
    return true;
}
/// The outputs that become narrow; none: the device's kernels do not take the node so.
inline std::vector<std::size_t> Narrowing::outputs(const Node& n, DType t, const std::vector<Input>& how) const {
    std::vector<std::size_t> narrow;
    InferCtx infer(n);
    const TrialTarget trial(ctx.target);
    LowerCtx lower{n, n.attrs, {}, {}, trial.target};
    for (std::size_t i = 0; i < n.in.size(); ++i) infer.inputs.push_back(n.in[i] == no_value ? nullptr : &how[i].fact);
    lower.inputs = infer.inputs;
    infer.outputs.resize(n.out.size());
    std::int64_t counter = 0;
    infer.fresh_counter = &counter;
    const auto fits = guarded([&] {
        n.op->infer(infer);
        for (std::size_t o = 0; o < n.out.size(); ++o) lower.outputs.push_back(n.out[o] == no_value ? nullptr : &infer.outputs[o]);
        return n.op->lower_device(lower);
    });
    if (!fits || counter) return {};
    for (std::size_t o = 0; o < n.out.size(); ++o) {
        if (n.out[o] == no_value || infer.outputs[o].dtype == g.fact(n.out[o]).dtype) continue;
        if (infer.outputs[o].dtype != t) return {};
        narrow.push_back(o);
    }
    return narrow;
}
/// Output o is of type t now; who wants it wide gets it cast.
inline void Narrowing::give_narrow(NodeId id, std::size_t o, DType t) {
    const ValueId out = g.nodes[id].out[o];
    const ValueId narrow = g.add_value(g.fresh_name(g.values[out].name), Fact());
    g.values[narrow].producer = id;
    g.values[narrow].fact = g.fact(out);
    g.values[narrow].fact.dtype = t;
    g.nodes[id].out[o] = narrow;
    g.values[out].producer = -1;
    std::vector<NodeId> casts;
    for (NodeId u = 0; u < static_cast<NodeId>(g.nodes.size()); ++u)
        if (g.nodes[u].op && is_op(&g.nodes[u], "Cast") && g.nodes[u].in[0] == out && g.fact(g.nodes[u].out[0]).dtype == t && g.nodes[u].device != Device::cpu) casts.push_back(u);
    for (NodeId u : casts) {
        const ValueId old = g.nodes[u].out[0];
        g.replace_uses(old, narrow);
        std::swap(g.values[old].name, g.values[narrow].name);
        g.remove_node(u);
    }
    if (g.use_counts()[out] > 0) {
        const ValueId wide = cast(narrow, DType::f32, g.nodes[id]);
        g.replace_uses(out, wide);
        std::swap(g.values[out].name, g.values[wide].name);
    }
}
inline ValueId Narrowing::cast_once(ValueId v, DType t, const Node& like) {
    for (const Node& n : g.nodes)
        if (n.op && is_op(&n, "Cast") && n.in[0] == v && n.device != Device::cpu && g.fact(n.out[0]).dtype == t) return n.out[0];
    return cast(v, t, like);
}
inline bool Narrowing::node(NodeId id) {
    const Node n = g.nodes[id];
    if (!n.op || n.device == Device::cpu || !n.op->lower_device || is_op(&n, "Cast") || n.op->control) return false;
    const auto t = type_for(n);
    std::vector<Input> how;
    if (!t || !inputs(n, *t, how)) return false;
    const std::vector<std::size_t> narrow = outputs(n, *t, how);
    if (narrow.empty()) return false;
    for (std::size_t i = 0; i < n.in.size(); ++i) {
        const ValueId v = n.in[i];
        ValueId now = v;
        if (how[i].how == Input::source) now = g.producer(v)->in[0];
        if (how[i].how == Input::constant) now = g.add_constant(g.fresh_name(g.values[v].name), how[i].fact.value);
        if (how[i].how == Input::cast) now = cast_once(v, *t, n);
        g.nodes[id].in[i] = now;
    }
    for (std::size_t o : narrow) give_narrow(id, o, *t);
    infer_node(g, id);
    return true;
}

inline bool narrow(Graph& g, const PassContext& ctx) {
    if (ctx.target.device == Device::cpu) return false;
    Narrowing n{g, ctx};
    bool changed = false;
    for (NodeId id : g.order()) changed = n.node(id) || changed;
    return changed;
}

}  // namespace passes_detail
QUERN_END
