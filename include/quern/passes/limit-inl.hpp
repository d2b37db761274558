// Selections of which only the first rows are read select no more.
#pragma once
#include <algorithm>

#include "match-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// The number of rows that a Slice leaves of the first axis from its beginning on; nothing where it does something else.
inline std::optional<std::int64_t> first_rows(const Graph& g, const Node& n) {
    if (!is_op(&n, "Slice")) return {};
    auto is = [&](std::size_t i, std::int64_t otherwise) -> std::optional<std::int64_t> {
        if (i >= n.in.size() || n.in[i] == no_value) return otherwise;
        auto v = constant_ints(g, n, i);
        return v && v->size() == 1 ? std::optional((*v)[0]) : std::nullopt;
    };
    auto start = is(1, -1), end = is(2, -1), axis = is(3, 0), step = is(4, 1);
    if (start != 0 || !end || *end < 0 || axis != 0 || step != 1) return {};
    return end;
}
/// Whether row i of the node's output is made of row i of its first input alone.
inline bool keeps_rows(const Graph& g, const Node& n) {
    if (is_op(&n, "Identity") || is_op(&n, "Cast")) return true;
    const Fact& x = g.fact(n.in[0]);
    auto inner = [&](std::int64_t axis, std::int64_t rank) { return axis > 0 || (axis < 0 && axis + rank > 0); };
    if (is_op(&n, "Gather")) return x.ranked && inner(n.attrs.i("axis", 0), x.rank());
    if (!is_op(&n, "Squeeze") && !is_op(&n, "Unsqueeze")) return false;
    auto axes = constant_ints(g, n, 1);
    if (!axes || axes->empty() || !x.ranked) return false;
    const std::int64_t rank = x.rank() + (is_op(&n, "Unsqueeze") ? static_cast<std::int64_t>(axes->size()) : 0);
    return std::all_of(axes->begin(), axes->end(), [&](std::int64_t a) { return inner(a, rank); });
}
/// v, which is read once, needs to have its first `most` rows only. Whether what makes it has less to do now.
inline bool limit_rows(Graph& g, ValueId v, std::int64_t most) {
    const std::vector<int> uses = g.use_counts();
    for (;;) {
        const NodeId id = v == no_value ? -1 : g.values[v].producer;
        if (id < 0 || uses[v] != 1 || g.nodes[id].in.empty()) return false;
        Node& n = g.nodes[id];
        if (keeps_rows(g, n)) {
            v = n.in[0];
        } else if (is_op(&n, "If")) {
            const auto o = static_cast<std::size_t>(std::find(n.out.begin(), n.out.end(), v) - n.out.begin());
            bool changed = false;
            for (const char* name : {"then_branch", "else_branch"}) {
                auto given = n.attrs.graph(name);
                if (!given || o >= given->outputs.size()) continue;
                auto branch = std::make_shared<Graph>(*given);
                if (!limit_rows(*branch, branch->outputs[o], most)) continue;
                n.attrs.set(name, std::shared_ptr<const Graph>(std::move(branch)));
                changed = true;
            }
            return changed;
        } else if (is_op(&n, "NonMaxSuppression") && n.in.size() > 2 && n.in[2] != no_value) {
            // With one class of one image the rows are one list, best first.
            const Fact &boxes = g.fact(n.in[0]), &scores = g.fact(n.in[1]);
            auto given = constant_ints(g, n, 2);
            if (!boxes.ranked || !scores.ranked || boxes.rank() != 3 || scores.rank() != 3 || !boxes.dims[0].is(1) || !scores.dims[0].is(1) || !scores.dims[1].is(1)) return false;
            if (!given || given->size() != 1 || (*given)[0] <= most) return false;
            Tensor t(DType::i64, g.fact(n.in[2]).value.shape());
            t.data<std::int64_t>()[0] = most;
            const ValueId c = g.add_constant(g.fresh_name(n.name), std::move(t));
            g.nodes[id].in[2] = c;
            return true;
        } else {
            return false;
        }
    }
}
/// Detectors keep the best hundred of what suppression leaves, behind an If for images without any box.
inline bool limit_selections(Graph& g, const PassContext&) {
    bool changed = false;
    for (NodeId id : g.order())
        if (auto most = first_rows(g, g.nodes[id])) changed = limit_rows(g, g.nodes[id].in[0], *most) || changed;
    return changed;
}

}  // namespace passes_detail
QUERN_END
