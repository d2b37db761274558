// Loops: what does not change is captured, what nobody reads is not made.
#pragma once
#include "../ops/op.hpp"
#include "pass.hpp"

QUERN_BEGIN
namespace passes_detail {

/// Where the values that come back stand: `first` among the inputs of node and body, `lead` among the body's outputs.
struct Carried {
    std::size_t first = 0, lead = 0, count = 0;
};
inline Carried carried_of(const Node& n, const Graph& body) {
    if (std::string_view(n.op->name) == "Loop") return {2, 1, body.formals - 2};
    if (std::string_view(n.op->name) == "Scan") return {0, 0, body.formals - static_cast<std::size_t>(n.attrs.i("num_scan_inputs", 0))};
    return {};
}
template <class T>
void erase_at(std::vector<T>& v, std::size_t i) {
    if (i < v.size()) v.erase(v.begin() + static_cast<std::ptrdiff_t>(i));
}

/// A value that the body hands back as it came is a captured one: known in the body if it is constant, and copied never.
inline bool capture_invariants(Graph& g, NodeId id, Graph& body) {
    const Carried c = carried_of(g.nodes[id], body);
    bool changed = false;
    for (std::size_t k = c.count; k-- > 0;) {
        ValueId back = body.outputs[c.lead + k], inner = body.inputs[c.first + k];
        for (const Node* p = body.producer(back); p && std::string_view(p->op->name) == "Identity" && !*p->op->domain; p = body.producer(back)) back = p->in[0];
        if (back != inner) continue;
        auto &in = g.nodes[id].in, &out = g.nodes[id].out;
        const ValueId outer = in[c.first + k], result = k < out.size() ? out[k] : no_value;
        erase_at(body.inputs, c.first + k);
        body.inputs.push_back(inner);
        --body.formals;
        erase_at(body.outputs, c.lead + k);
        erase_at(body.output_names, c.lead + k);
        erase_at(in, c.first + k);
        in.push_back(outer);
        erase_at(out, k);
        if (result != no_value) {
            g.values[result].producer = -1;
            g.replace_uses(result, outer);
        }
        changed = true;
    }
    return changed;
}

/// Outputs of a control node that nobody reads and that the subgraph does not need again.
inline bool drop_outputs(Graph& g, NodeId id, std::vector<std::shared_ptr<Graph>>& subs, const std::vector<int>& uses) {
    Node& n = g.nodes[id];
    const Carried c = carried_of(n, *subs[0]);
    bool changed = false;
    auto reverse = n.attrs.ints("scan_output_directions");
    for (auto& s : subs)
        for (std::size_t o = s->outputs.size(); o-- > n.out.size() + c.lead;) {
            if (o < c.lead + c.count) break;
            erase_at(s->outputs, o), erase_at(s->output_names, o), erase_at(reverse, o - c.lead - c.count);
            changed = true;
        }
    for (std::size_t k = n.out.size(); k-- > c.count;) {
        if (n.out[k] != no_value && uses[n.out[k]]) continue;
        if (n.out.size() == 1) break;
        if (n.out[k] != no_value) g.values[n.out[k]].producer = -1;
        erase_at(n.out, k);
        for (auto& s : subs) erase_at(s->outputs, c.lead + k), erase_at(s->output_names, c.lead + k);
        erase_at(reverse, k - c.count);
        changed = true;
    }
    if (changed && n.attrs.has("scan_output_directions")) n.attrs.set("scan_output_directions", reverse);
    return changed;
}

inline bool trim_control(Graph& g, const PassContext&) {
    bool changed = false;
    for (NodeId id : g.order()) {
        if (!g.nodes[id].op->control) continue;
        std::vector<std::shared_ptr<Graph>> subs;
        std::vector<std::string> names;
        for (auto& [name, a] : g.nodes[id].attrs.all())
            if (auto* s = std::get_if<std::shared_ptr<const Graph>>(&a)) names.push_back(name), subs.push_back(std::make_shared<Graph>(**s));
        if (subs.empty()) continue;
        bool here = capture_invariants(g, id, *subs[0]);
        here = drop_outputs(g, id, subs, g.use_counts()) || here;
        if (!here) continue;
        for (std::size_t s = 0; s < subs.size(); ++s) g.nodes[id].attrs.set(names[s], std::shared_ptr<const Graph>(subs[s]));
        changed = true;
    }
    return changed;
}

}  // namespace passes_detail
QUERN_END
