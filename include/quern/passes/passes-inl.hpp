#pragma once
#include "../ops/control.hpp"
#include "attention-inl.hpp"
#include "chain-inl.hpp"
#include "channels-inl.hpp"
#include "control-inl.hpp"
#include "conv-inl.hpp"
#include "fold-inl.hpp"
#include "fuse-inl.hpp"
#include "layout-inl.hpp"
#include "limit-inl.hpp"
#include "pattern-inl.hpp"
#include "product-inl.hpp"
#include "narrow-inl.hpp"
#include "place-inl.hpp"
#include "program-inl.hpp"
#include "promote-inl.hpp"
#include "quantized-inl.hpp"
#include "skip-inl.hpp"

QUERN_BEGIN

QUERN_INLINE bool remove_dead(Graph& g) {
    std::vector<char> needed(g.nodes.size(), 0);
    std::vector<ValueId> stack(g.outputs.begin(), g.outputs.end());
    while (!stack.empty()) {
        ValueId v = stack.back();
        stack.pop_back();
        NodeId p = v == no_value ? -1 : g.values[v].producer;
        if (p < 0 || needed[p]) continue;
        needed[p] = 1;
        stack.insert(stack.end(), g.nodes[p].in.begin(), g.nodes[p].in.end());
    }
    bool changed = false;
    for (NodeId n = 0; n < static_cast<NodeId>(g.nodes.size()); ++n)
        if (g.nodes[n].op && !needed[n]) {
            g.remove_node(n);
            changed = true;
        }
    return changed;
}

namespace passes_detail {
/// Constants that nobody uses any more hold no memory.
inline void drop_constants(Graph& g) {
    std::vector<int> uses = g.use_counts();
    for (std::size_t v = 0; v < g.values.size(); ++v)
        if (!uses[v]) g.values[v].fact.value = Tensor();
}
/// Tells the subgraph what is known of its inputs now, until what it gives back agrees with what it gets.
inline void bind_subgraph(const Graph& g, const Node& n, Graph& sub) {
    const std::size_t captured = sub.inputs.size() - sub.formals, own = n.in.size() - captured;
    for (std::size_t i = 0; i < captured; ++i) {
        ValueId outer = n.in[own + i], inner = sub.inputs[sub.formals + i];
        if (outer == no_value) continue;
        sub.fact(inner) = ops_control::inner_fact(g.fact(outer));
        if (!g.fact(outer).is_const()) continue;
        // The input stays (its position counts); its uses read the constant.
        ValueId c = sub.add_constant(sub.fresh_name(sub.values[inner].name), g.fact(outer).value);
        sub.replace_uses(inner, c);
    }
    FormalsCtx formals{n.attrs};
    std::vector<Fact> said;
    for (std::size_t i = 0; i < sub.formals; ++i) said.push_back(sub.fact(sub.inputs[i]));
    for (auto& f : said) formals.said.push_back(&f);
    for (std::size_t i = 0; i < own; ++i) formals.inputs.push_back(n.in[i] == no_value ? nullptr : &g.fact(n.in[i]));
    if (n.op->formals) n.op->formals(formals);
    for (int round = 0;; ++round) {
        if (round == 8) formals.facts = said;  // a size that changes each time: what was found when importing holds
        for (std::size_t i = 0; i < formals.facts.size(); ++i) sub.fact(sub.inputs[i]) = formals.facts[i];
        infer_graph(sub);
        if (round == 8 || !ops_control::widen_formals(formals, sub)) return;
    }
}
/// The subgraphs of control nodes go through the same passes, after what they capture is known best.
inline void subgraphs(Graph& g, const PassContext& ctx, std::string_view stop_after) {
    Options inner = ctx.options;
    inner.device_io = false;  // what a subgraph takes and gives is on the host
    const PassContext inner_ctx{inner, ctx.target, ctx.consumed};
    for (NodeId id : g.order()) {
        if (!g.nodes[id].op->control) continue;
        Attrs attrs = g.nodes[id].attrs;
        for (auto& [name, a] : g.nodes[id].attrs.all()) {
            auto* given = std::get_if<std::shared_ptr<const Graph>>(&a);
            if (!given) continue;
            auto sub = std::make_shared<Graph>(**given);
            bind_subgraph(g, g.nodes[id], *sub);
            run_passes(*sub, inner_ctx, stop_after);
            attrs.set(name, std::shared_ptr<const Graph>(std::move(sub)));
        }
        g.nodes[id].attrs = std::move(attrs);
        infer_node(g, id);
    }
}
}  // namespace passes_detail

QUERN_INLINE void promote_types(Graph& g, const PassContext& ctx) {
    if (passes_detail::promote(g, ctx)) infer_graph(g);
    passes_detail::subgraphs(g, ctx, "promote");
}

QUERN_INLINE std::span<const Pass> passes() noexcept {
    static constexpr Pass list[] = {
        {"quantized", passes_detail::quantized, false, false},
        {"fold", passes_detail::fold_constants, true, true},
        {"inline_if", passes_detail::inline_if, true, false},
        {"limit", passes_detail::limit_selections, true, false},
        {"simplify", passes_detail::simplify, true, false},
        {"control", passes_detail::trim_control, true, false},
        {"fold_again", passes_detail::fold_constants, true, false},
        {"inline_if_again", passes_detail::inline_if, true, false},
        {"cse", passes_detail::common_subexpressions, true, false},
        {"patterns", passes_detail::patterns, true, false},
        {"promote", passes_detail::promote, false, true},
        {"fold_promoted", passes_detail::fold_constants, false, true},
        {"convolutions", passes_detail::convolutions, false, false},
        {"products", passes_detail::products, false, false},
        {"attention", passes_detail::attention_blocks, false, false},
        {"fuse", passes_detail::fuse, false, false},
        {"layout", passes_detail::layout, false, false},
        {"fuse_laid_out", passes_detail::fuse, false, false},
        {"chain", passes_detail::chain, false, false},
        {"gates", passes_detail::gates, false, false},
        {"channels", passes_detail::channels, false, false},
        {"place", passes_detail::place, false, true},
        {"narrow", passes_detail::narrow, false, false},
        {"programs", passes_detail::programs, false, false},
        {"skips", passes_detail::skip_norms, false, false},
    };
    return list;
}

QUERN_INLINE void run_passes(Graph& g, const PassContext& ctx, std::string_view stop_after) {
    bool known = stop_after.empty() || stop_after == "import" || stop_after == "final";
    for (auto& p : passes()) known = known || stop_after == p.name;
    if (!known) {
        std::string names = "import";
        for (auto& p : passes()) names += std::string(", ") + p.name;
        raise(ErrorCode::invalid_argument, "no stage is named '" + std::string(stop_after) + "'; accepted: " + names + ", final");
    }
    remove_dead(g);
    if (stop_after == "import") return;
    for (auto& p : passes()) {
        if (!ctx.options.optimize && !p.required) continue;
        with_place([&] { return std::string("pass '") + p.name + "'"; }, [&] {
            bool changed = p.run(g, ctx);
            if (changed) {
                remove_dead(g);
                passes_detail::drop_constants(g);
                infer_graph(g);
            }
#ifndef NDEBUG
            g.verify();
#endif
            if (ctx.options.log) ctx.options.log(LogLevel::debug, std::string("pass ") + p.name + (changed ? ": changed" : ": nothing to do"));
        });
        if (stop_after == p.name) break;
    }
    passes_detail::subgraphs(g, ctx, stop_after);
}

QUERN_END
