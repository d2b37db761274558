// A sum that a normalization of rows follows on a device is made by the normalization: it is not stored first, or stored on the way.
#pragma once
#include "match-inl.hpp"
#include "pass.hpp"
#include "trial.hpp"

QUERN_BEGIN
namespace passes_detail {

/// x + skip of equal shapes, with LayerNormalization or RMSNormalization behind it -> quern::SkipNormalization. A product that adds `skip` as
/// its residual moves as much in that form (or less, where somebody else reads the sum), and a sum that is part of a program as well: both
/// are no Add any more when this pass comes.
inline bool skip_norm(Graph& g, const PassContext& ctx, NodeId id, const std::vector<int>& uses) {
    const Node norm = g.nodes[id];
    const bool rms = is_op(&norm, "RMSNormalization");
    if (norm.device == Device::cpu || (!rms && !is_op(&norm, "LayerNormalization"))) return false;
    const ValueId sum = norm.in[0];
    const NodeId from = g.values[sum].producer;
    if (from < 0 || !is_op(&g.nodes[from], "Add") || g.nodes[from].device != norm.device) return false;
    for (ValueId v : g.nodes[from].in)
        if (!g.fact(v).ranked || !(g.fact(v).dims == g.fact(sum).dims) || g.fact(v).dtype != g.fact(sum).dtype) return false;
    for (std::size_t i = 1; i < norm.in.size(); ++i)
        if (norm.in[i] != no_value && g.values[norm.in[i]].producer >= 0) return false;  // it could depend on the sum
    std::vector<ValueId> in = g.nodes[from].in, out = norm.out;
    in.insert(in.end(), norm.in.begin() + 1, norm.in.end());
    if (uses[sum] > 1) {
        out.resize(3, no_value);
        out.push_back(sum);
    }
    Attrs attrs = norm.attrs;
    if (rms) attrs.set("rms", std::int64_t{1});
    const OpDef& op = op_named("quern::SkipNormalization");
    const TrialTarget trial(ctx.target);
    const Node wanted{.op = &op, .name = norm.name, .attrs = attrs, .in = in, .out = out};
    const LowerCtx lower{wanted, wanted.attrs, facts_of(g, in), facts_of(g, out), trial.target};
    if (!guarded([&] { return op.lower_device(lower); })) return false;
    g.remove_node(from);
    g.remove_node(id);
    const NodeId made = g.add_node(op, norm.name, std::move(in), std::move(out), std::move(attrs));
    g.nodes[made].origin = norm.origin;
    g.nodes[made].device = norm.device;
    return true;
}
inline bool skip_norms(Graph& g, const PassContext& ctx) {
    if (ctx.target.device == Device::cpu) return false;
    bool changed = false;
    const std::vector<int> uses = g.use_counts();
    for (NodeId id : g.order())
        if (g.nodes[id].op) changed = skip_norm(g, ctx, id, uses) || changed;
    return changed;
}

}  // namespace passes_detail
QUERN_END
