// Types that kernels do not compute in are cast around the nodes that need it.
#pragma once
#include <unordered_map>

#include "../ops/evaluate.hpp"
#include "match-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

inline ValueId cast_to(Graph& g, ValueId v, DType t, const std::string& origin, Device device = Device::cpu) {
    Attrs a;
    a.set("to", static_cast<std::int64_t>(t));
    return add_inferred(g, op_named("Cast"), {v}, std::move(a), g.values[v].name, "Cast", origin, device);
}

/// Operators whose float inputs and outputs are of one type, which may be a wider one. They compute in halves by themselves; between
/// operators that compute wide they stay wide, too: nothing is rounded and cast in between.
inline bool may_widen(const OpDef& op) {
    if (op.narrow == Narrow::halves) return true;
    for (const char* name : {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand", "Concat", "Split", "Slice", "Gather", "Where",
                             "Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Erf", "Tanh", "Sigmoid", "Relu", "Gelu",
                             "Swish", "HardSwish", "Clip", "Max", "Min"})
        if (!*op.domain && std::string_view(name) == op.name) return true;
    return false;
}

/// Whether `v` is made from `from`, as by a cast.
inline bool made_from(const Graph& g, ValueId v, ValueId from) {
    const Node* p = g.producer(v);
    return p && !p->in.empty() && p->in[0] == from;
}

/// f16, bf16 and float8 compute in f32; narrow integers and bool in i32; u32 and u64 in i64 (rule 14). A
/// value that was cast down only to be cast up again by the next node stays wide in between.
inline bool promote(Graph& g, const PassContext& ctx) {
    bool changed = false;
    std::unordered_map<ValueId, ValueId> wide_copy;  // of a narrow value
    for (NodeId id : g.order()) {
        const OpDef& op = *g.nodes[id].op;
        bool follow = false;  // an input is at hand in f32, from before it was rounded
        if (ctx.options.optimize && may_widen(op))
            for (ValueId v : g.nodes[id].in) {
                auto it = v == no_value || !is_half(g.fact(v).dtype) ? wide_copy.end() : wide_copy.find(v);
                follow = follow || (it != wide_copy.end() && made_from(g, v, it->second));
            }
        if ((op.compute == Compute::any || (ctx.target.device == Device::cpu && detail::takes_narrow(g, g.nodes[id]))) && !follow) continue;
        std::string origin = g.nodes[id].origin;
        bool touched = false;
        for (std::size_t i = 0; i < g.nodes[id].in.size(); ++i) {
            ValueId v = g.nodes[id].in[i];
            bool half = follow && v != no_value && is_half(g.fact(v).dtype);
            if (v == no_value || (!half && !detail::needs_promotion(op, i, g.fact(v).dtype, true))) continue;
            DType t = half ? DType::f32 : compute_type(op, g.fact(v).dtype);
            auto it = wide_copy.find(v);
            // Integers are cast again: only the cast makes them wrap.
            bool keep = it != wide_copy.end() && g.fact(it->second).dtype == t && (is_float(t) || made_from(g, it->second, v));
            ValueId wide = keep ? it->second : cast_to(g, v, t, origin);
            wide_copy[v] = wide;
            g.nodes[id].in[i] = wide;
            touched = true;
        }
        struct Back { ValueId narrow, wide; DType type; };
        std::vector<Back> back;
        for (std::size_t o = 0; o < g.nodes[id].out.size(); ++o) {
            ValueId v = g.nodes[id].out[o];
            if (v == no_value || (!(follow && is_half(g.fact(v).dtype)) && !detail::needs_promotion(op, o, g.fact(v).dtype, false))) continue;
            // The node makes a new, wide value; the old one becomes its cast.
            ValueId wide = g.add_value(g.fresh_name(g.values[v].name), Fact());
            g.values[wide].producer = id;
            g.nodes[id].out[o] = wide;
            back.push_back({v, wide, g.fact(v).dtype});
            touched = true;
        }
        if (!touched) continue;
        changed = true;
        infer_node(g, id);
        if (ctx.target.device != Device::cpu && !back.empty() && is_half(back[0].type)) g.nodes[id].attrs.set(narrow_type, static_cast<std::int64_t>(back[0].type));
        for (auto& b : back) {
            Attrs a;
            a.set("to", static_cast<std::int64_t>(b.type));
            NodeId c = g.add_node(op_named("Cast"), g.fresh_name("Cast"), {b.wide}, {b.narrow}, std::move(a));
            g.nodes[c].origin = origin;
            infer_node(g, c);
            wide_copy[b.narrow] = b.wide;
        }
    }
    return changed;
}

}  // namespace passes_detail
QUERN_END
