#pragma once
#include "fold-inl.hpp"
#include "fuse-inl.hpp"
#include "layout-inl.hpp"
#include "promote-inl.hpp"

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

QUERN_INLINE void promote_types(Graph& g, const PassContext& ctx) {
    if (passes_detail::promote(g, ctx)) infer_graph(g);
}

QUERN_INLINE std::span<const Pass> passes() noexcept {
    static constexpr Pass list[] = {
        {"fold", passes_detail::fold_constants, true},
        {"inline_if", passes_detail::inline_if, true},
        {"simplify", passes_detail::simplify, true},
        {"fold_again", passes_detail::fold_constants, true},
        {"inline_if_again", passes_detail::inline_if, true},
        {"cse", passes_detail::common_subexpressions, true},
        {"promote", passes_detail::promote, false},
        {"fold_promoted", passes_detail::fold_constants, false},
        {"fuse", passes_detail::fuse, false},
        {"layout", passes_detail::layout, false},
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
        if (!ctx.options.optimize && p.portable && std::string_view(p.name) != "fold") continue;
        if (!ctx.options.optimize && (std::string_view(p.name) == "fuse" || std::string_view(p.name) == "layout")) continue;
        with_place([&] { return std::string("pass '") + p.name + "'"; }, [&] {
            bool changed = p.run(g, ctx);
            if (changed) {
                remove_dead(g);
                infer_graph(g);
            }
#ifndef NDEBUG
            g.verify();
#endif
            if (ctx.options.log) ctx.options.log(LogLevel::debug, std::string("pass ") + p.name + (changed ? ": changed" : ": nothing to do"));
        });
        if (stop_after == p.name) return;
    }
}

QUERN_END
