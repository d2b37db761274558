// Constant folding, shape-arithmetic folding, simplification rules, common subexpressions, If with a known condition.
#pragma once
#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "../base/guard.hpp"
#include "../ops/evaluate.hpp"
#include "pass.hpp"

QUERN_BEGIN
namespace passes_detail {

/// A tensor of integers of any type from known content; undefined where the type is not an integer or bool.
inline Tensor ints_tensor(DType t, const Shape& shape, const std::vector<std::int64_t>& v) {
    if (t != DType::i64 && t != DType::i32 && t != DType::boolean) return {};
    Tensor r(t, shape);
    for (std::size_t i = 0; i < v.size(); ++i) {
        if (t == DType::i64) r.data<std::int64_t>()[i] = v[i];
        else if (t == DType::i32) r.data<std::int32_t>()[i] = static_cast<std::int32_t>(v[i]);
        else r.data<bool>()[i] = v[i] != 0;
    }
    return r;
}

/// By value: whether somebody reads it, and everybody as the right side of MatMul with a left side that is not constant.
inline std::vector<char> right_sides(const Graph& g) {
    enum : char { unread, only, otherwise };
    std::vector<char> read(g.values.size(), unread);
    for (const Node& n : g.nodes) {
        if (!n.op) continue;
        const bool product = std::string_view(n.op->name) == "MatMul" && !*n.op->domain && n.in.size() == 2 && n.in[0] != n.in[1] && g.fact(n.in[0]).ranked && g.fact(n.in[0]).rank() > 1 && !g.fact(n.in[0]).is_const();
        for (std::size_t i = 0; i < n.in.size(); ++i)
            if (n.in[i] != no_value && read[n.in[i]] != otherwise) read[n.in[i]] = product && i == 1 ? only : otherwise;
    }
    for (ValueId v : g.outputs) read[v] = otherwise;
    for (char& r : read) r = r == only;
    return read;
}
/// Transpose of a large constant matrix that only products read, as their right side (`right` of its output): they will read the constant itself, turned
/// (the pass `products`), so that no copy of it is made.
inline bool is_turned_weight(const Graph& g, const Node& n, const std::vector<char>& right) {
    constexpr std::size_t large = std::size_t{64} << 10;
    if (std::string_view(n.op->name) != "Transpose" || *n.op->domain || n.in[0] == no_value || n.out[0] == no_value || !right[n.out[0]]) return false;
    const Fact& w = g.fact(n.in[0]);
    if (!w.is_const() || w.rank() != 2 || w.dtype != DType::f32 || w.value.bytes() < large) return false;
    const std::vector<std::int64_t> perm = n.attrs.ints("perm");
    return perm.empty() || perm == std::vector<std::int64_t>{1, 0};
}

/// Values whose content is known become constants: nodes on constants are computed, integer contents
/// that came out without symbols are written down.
inline bool fold_constants(Graph& g, const PassContext& ctx) {
    bool changed = false;
    std::vector<char> right(g.values.size());
    if (ctx.options.optimize && ctx.options.stop_after.empty()) right = right_sides(g);  // `products` will run
    std::size_t left_for_all = std::size_t{256} << 20;  // bytes that all nodes together make: hostile graphs read one constant often
    for (auto& v : g.values)
        if (const Tensor& t = v.fact.value; t.defined() && t.bytes() < SIZE_MAX / 64 - left_for_all) left_for_all += 32 * t.bytes();
    // Some passes over all constants that the model has, and a tenth of a second besides.
    std::int64_t tiles_left = 1 << 12;
    for (const GraphValue& v : g.values) tiles_left += static_cast<std::int64_t>(v.fact.value.bytes() / 1024);
    for (NodeId id : g.order()) {
        if (changed) infer_node(g, id);  // constants made just before may tell it more: one pass folds whole chains
        const Node& n = g.nodes[id];
        std::vector<Tensor> results(n.out.size());
        bool all_const = true;
        std::size_t in_bytes = 0;
        for (std::size_t i = 0; i < n.in.size() && all_const; ++i) {
            const ValueId v = n.in[i];
            if (v == no_value) continue;
            all_const = g.fact(v).is_const();
            // What is read twice would double with each node of a chain.
            if (std::find(n.in.begin(), n.in.begin() + static_cast<std::ptrdiff_t>(i), v) == n.in.begin() + static_cast<std::ptrdiff_t>(i)) in_bytes += g.fact(v).value.bytes();
        }
        if (all_const && is_turned_weight(g, n, right)) continue;
        if (all_const && n.op->pure && !n.op->control) {
            // Never grows the model by more than 1 MiB per node: a hostile shape stays a node. Weights are widened once.
            std::string_view widens = n.op->name;
            std::size_t most = (widens == "Cast" ? 4 : widens == "DequantizeLinear" ? 8 : 1) * in_bytes + (1u << 20);
            most = std::min(most, std::max<std::size_t>(left_for_all, 4096));
            auto r = guarded([&] { return evaluate(g, n, ctx.target, most, &tiles_left); });
            if (r && !(*r).empty()) {
                results = std::move(*r);
                for (const Tensor& t : results) left_for_all -= std::min(left_for_all, t.bytes());
                for (ValueId v : n.in)
                    if (v != no_value) ctx.done_with(g.fact(v).value);
            }
        } else if (n.out.size() == 1 && n.out[0] != no_value) {
            const Fact& f = g.fact(n.out[0]);
            if (f.symbolic && f.concrete()) {
                std::vector<std::int64_t> v;
                for (auto& d : *f.symbolic)
                    if (d.is_const()) v.push_back(d.value());
                if (v.size() == f.symbolic->size() && static_cast<std::int64_t>(v.size()) == f.shape().count()) results[0] = ints_tensor(f.dtype, f.shape(), v);
            }
        }
        std::vector<ValueId> outs = n.out;
        for (std::size_t o = 0; o < outs.size(); ++o) {
            if (outs[o] == no_value || o >= results.size() || !results[o].defined()) continue;
            g.values[outs[o]].fact = Fact::constant(results[o]);  // the value keeps its id and name
            g.values[outs[o]].producer = -1;
            for (auto& v : g.nodes[id].out)
                if (v == outs[o]) v = no_value;
            changed = true;
        }
        auto& left = g.nodes[id].out;
        if (std::all_of(left.begin(), left.end(), [](ValueId v) { return v == no_value; })) g.nodes[id] = Node{};
    }
    return changed;
}

/// The simplification rules of the operators, to a fixed point.
inline bool simplify(Graph& g, const PassContext&) {
    bool changed = false;
    for (int round = 0; round < 8; ++round) {
        bool again = false;
        std::vector<int> uses = g.use_counts();
        for (NodeId id : g.order()) {
            if (!g.nodes[id].op || !g.nodes[id].op->simplify) continue;
            PatchCtx p(g, id, uses);
            with_place([&] { return place_of(g.nodes[id]); }, [&] { g.nodes[id].op->simplify(p); });
            if (!p.changed) continue;
            again = true;
            uses = g.use_counts();
        }
        if (!again) break;
        remove_dead(g);
        infer_graph(g);
        changed = true;
    }
    return changed;
}

inline std::string key_of(const Graph& g, const Node& n) {
    std::string k = std::string(n.op->domain) + "::" + n.op->name + "(";
    for (ValueId v : n.in) k += std::to_string(v) + ",";
    k += ")" + std::to_string(n.out.size());
    auto raw = [&](const void* p, std::size_t b) { k.append(static_cast<const char*>(p), b); };
    // Lengths are part of the key: no text can imitate another attribute.
    auto text = [&](const std::string& s) { k += std::to_string(s.size()) + ":" + s; };
    for (auto& [name, a] : n.attrs.all()) {
        k += ";" + name + "=" + std::to_string(a.index()) + ":";
        if (auto* i = std::get_if<std::int64_t>(&a)) raw(i, 8);
        else if (auto* f = std::get_if<float>(&a)) raw(f, 4);
        else if (auto* s = std::get_if<std::string>(&a)) text(*s);
        else if (auto* is = std::get_if<std::vector<std::int64_t>>(&a)) k += std::to_string(is->size()) + ":", raw(is->data(), is->size() * 8);
        else if (auto* fs = std::get_if<std::vector<float>>(&a)) k += std::to_string(fs->size()) + ":", raw(fs->data(), fs->size() * 4);
        else if (auto* ss = std::get_if<std::vector<std::string>>(&a)) for (auto& s : *ss) text(s);
        else return {};  // tensors and graphs are not compared
    }
    (void)g;
    return k;
}
/// Equal pure nodes become one; equal small constants first, so that more nodes are equal.
inline bool common_subexpressions(Graph& g, const PassContext&) {
    bool changed = false;
    std::unordered_map<std::string, ValueId> constants;
    std::vector<int> uses = g.use_counts();
    std::vector<ValueId> same(g.values.size());
    for (ValueId v = 0; v < static_cast<ValueId>(g.values.size()); ++v) {
        same[v] = v;
        const Tensor& t = g.fact(v).value;
        if (!uses[v] || !t.defined() || t.dtype() == DType::string || t.bytes() > 1024) continue;
        std::string k = std::string(dtype_name(t.dtype())) + t.shape().to_string() + ":" + std::string(static_cast<const char*>(t.raw()), t.bytes());
        same[v] = constants.emplace(std::move(k), v).first->second;
    }
    for (auto& n : g.nodes)
        for (auto& v : n.in)
            if (v != no_value) v = same[v];
    std::unordered_map<std::string, NodeId> seen;
    std::unordered_map<ValueId, ValueId> moved;
    std::unordered_set<ValueId> outputs(g.outputs.begin(), g.outputs.end());
    for (NodeId id : g.order()) {
        Node& n = g.nodes[id];
        for (auto& v : n.in)
            if (auto it = moved.find(v); it != moved.end()) v = it->second;
        if (!n.op->pure || n.op->control) continue;
        bool is_output = false;
        for (ValueId v : n.out) is_output = is_output || outputs.count(v);
        if (is_output) continue;
        std::string k = key_of(g, n);
        if (k.empty()) continue;
        auto [it, fresh] = seen.emplace(std::move(k), id);
        if (fresh) continue;
        const Node& first = g.nodes[it->second];
        bool fits = true;
        for (std::size_t o = 0; o < n.out.size(); ++o) fits = fits && (n.out[o] == no_value || first.out[o] != no_value);
        if (!fits) continue;
        for (std::size_t o = 0; o < n.out.size(); ++o)
            if (n.out[o] != no_value) moved[n.out[o]] = first.out[o];
        changed = true;
    }
    return changed;
}

/// Copies `sub` into `g` in place of node `id`; sub's inputs are the values `bound`. Returns sub's outputs in g.
inline std::vector<ValueId> inline_graph(Graph& g, NodeId id, const Graph& sub, const std::vector<ValueId>& bound) {
    std::unordered_set<std::string> names;
    for (auto& v : g.values) names.insert(v.name);
    std::vector<ValueId> map(sub.values.size(), no_value);
    for (std::size_t i = 0; i < sub.inputs.size() && i < bound.size(); ++i) map[sub.inputs[i]] = bound[i];
    std::string origin = place_of(g.nodes[id]);
    auto mapped = [&](ValueId v) {
        if (v == no_value) return v;
        if (map[v] == no_value) {
            const GraphValue& from = sub.values[v];
            std::string name = names.insert(from.name).second ? from.name : g.fresh_name(from.name);
            map[v] = g.add_value(name, from.fact);
            g.values[map[v]].producer = -1;
        }
        return map[v];
    };
    for (NodeId s : sub.order()) {
        Node n = sub.nodes[s];
        std::vector<ValueId> in, out;
        for (ValueId v : n.in) in.push_back(mapped(v));
        for (ValueId v : n.out) out.push_back(mapped(v));
        NodeId made = g.add_node(*n.op, n.name, std::move(in), std::move(out), std::move(n.attrs));
        g.nodes[made].origin = n.origin;
        infer_node(g, made);
    }
    std::vector<ValueId> outs;
    for (ValueId v : sub.outputs) outs.push_back(mapped(v));
    return outs;
}
/// If with a constant condition becomes the branch that is taken.
inline bool inline_if(Graph& g, const PassContext&) {
    bool changed = false;
    for (bool again = true; again;) {
        again = false;
        for (NodeId id : g.order()) {
            const Node& n = g.nodes[id];
            if (!n.op->control || std::string_view(n.op->name) != "If") continue;
            auto cond = detail::small_ints(g.fact(n.in[0]).value);
            if (!cond || cond->size() != 1) continue;
            auto sub = n.attrs.graph((*cond)[0] ? "then_branch" : "else_branch");
            std::vector<ValueId> bound(n.in.begin() + 1, n.in.end()), outs = n.out;
            auto inner = inline_graph(g, id, *sub, bound);
            for (std::size_t o = 0; o < outs.size(); ++o)
                if (outs[o] != no_value) g.replace_uses(outs[o], inner[o]);
            g.remove_node(id);
            again = changed = true;
        }
    }
    return changed;
}

}  // namespace passes_detail
QUERN_END
