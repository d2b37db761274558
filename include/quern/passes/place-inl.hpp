// Which nodes run on the device, and the copies that follow from it. A node goes there when its operator has a kernel that accepts
// it and all sizes are known before data is; views follow what they look at; shape arithmetic stays on the host.
#pragma once
#include <algorithm>
#include <map>

#include "../base/guard.hpp"
#include "match-inl.hpp"
#include "pass.hpp"
#include "trial.hpp"

QUERN_BEGIN
namespace passes_detail {

struct Placement {
    Graph& g;
    const PassContext& ctx;
    std::vector<NodeId> order = {};
    std::vector<char> late = {};      // by node: data decides sizes of its outputs
    std::vector<char> by_data = {};   // by node: the outputs' sizes depend on sizes that data decided
    std::vector<char> sized = {};     // by value: its sizes are known before it is made
    std::vector<char> known_content = {};  // by value: a constant, or integers that follow from the inputs' shapes
    std::vector<int> view_of = {};    // by node on the device; -1: a kernel
    std::vector<std::uint32_t> host_in = {};
    std::vector<char> moved = {};     // by value: in device memory

    void sizes();
    bool never_run(NodeId id) const;
    std::string refusal(NodeId id);
    bool small_integers(const Node& n) const;
    void choose();
    void send_back();
    void connect();
    void complain() const;
    std::string need_host(const Node& n) const { return n.placement.empty() ? "" : place_of(n) + ": " + n.placement; }
    bool on_device(NodeId id) const { return g.nodes[id].device != Device::cpu; }
};

/// As the planner finds them: from the symbols of the inputs, then from what each node with data-dependent sizes gives.
inline void Placement::sizes() {
    DimProgram program;
    std::vector<std::vector<int>> slots(g.values.size());
    std::vector<std::vector<int>> content(g.values.size());
    for (std::size_t v = 0; v < g.values.size(); ++v) {
        const Fact& f = g.values[v].fact;
        for (auto& d : f.dims) slots[v].push_back(program.add(d));
        if (f.symbolic && f.ranked && f.rank() <= 1 && (f.dtype == DType::i64 || f.dtype == DType::i32 || f.dtype == DType::boolean))
            for (auto& d : *f.symbolic) content[v].push_back(program.add(d));
        known_content.push_back(f.is_const());
    }
    std::vector<char> known(static_cast<std::size_t>(program.size()), 0);
    sized.assign(g.values.size(), 1);
    for (ValueId v : g.inputs) {
        sized[v] = g.fact(v).ranked;
        for (int s : slots[v])
            if (program.is_symbol(s)) known[s] = 1;
    }
    program.mark_known(known);
    for (std::size_t v = 0; v < g.values.size(); ++v)
        if (!content[v].empty()) known_content[v] = std::all_of(content[v].begin(), content[v].end(), [&](int s) { return known[s]; });
    const std::vector<char> from_inputs = known;
    late.assign(g.nodes.size(), 0);
    by_data.assign(g.nodes.size(), 0);
    for (NodeId id : order) {
        bool learned = false;
        late[id] = g.nodes[id].op->control;
        for (ValueId v : g.nodes[id].out) {
            if (v == no_value) continue;
            sized[v] = g.fact(v).ranked;
            for (int s : slots[v]) {
                by_data[id] = by_data[id] || !from_inputs[s];
                if (known[s]) continue;
                late[id] = 1;
                if (program.is_symbol(s)) known[s] = 1, learned = true;
                else sized[v] = 0;
            }
            late[id] = late[id] || !sized[v];
        }
        if (learned) program.mark_known(known);
    }
}

/// The planner writes the outputs itself.
inline bool Placement::never_run(NodeId id) const {
    const Node& n = g.nodes[id];
    return !n.out.empty() && !n.op->control && std::all_of(n.out.begin(), n.out.end(), [&](ValueId v) { return v == no_value || known_content[v]; });
}

/// Up to 64 integers made of what the host has: not worth a copy, and mostly wanted on the host as sizes.
inline bool Placement::small_integers(const Node& n) const {
    for (ValueId v : n.in)
        if (v != no_value && moved[v]) return false;
    for (ValueId v : n.out) {
        if (v == no_value) continue;
        const Fact& f = g.fact(v);
        if (!f.ranked || f.rank() > 1 || !(is_integer(f.dtype) || f.dtype == DType::boolean)) return false;
        if (f.rank() == 1 && (!f.dims[0].is_const() || f.dims[0].value() > 64)) return false;
    }
    return true;
}

/// Empty: the device takes the node. Leaves view_of and host_in.
inline std::string Placement::refusal(NodeId id) {
    const Node& n = g.nodes[id];
    if (n.op->control) return "control flow runs on the host";
    if (never_run(id)) return "shape arithmetic stays on the host";
    if (!n.op->lower_device) return "the operator has no kernel for this device";
    if (late[id]) return "sizes of its outputs come from data";
    for (auto* list : {&n.in, &n.out})
        for (ValueId v : *list) {
            if (v == no_value) continue;
            const Fact& f = g.fact(v);
            if (f.kind != Kind::tensor || f.dtype == DType::string || dtype_bits(f.dtype) < 8) return "type " + f.to_string() + " stays on the host";
            if (!sized[v]) return "sizes of '" + g.values[v].name + "' come from data";
        }
    if (small_integers(n)) return "a few integers stay on the host";
    const TrialTarget trial(ctx.target);
    const LowerCtx lower{n, n.attrs, facts_of(g, n.in), facts_of(g, n.out), trial.target};
    auto made = guarded([&] { return n.op->lower_device(lower); });
    if (!made) return made.error().code() == ErrorCode::unsupported ? made.error().message() : made.error().what();
    view_of[id] = made->view_of;
    host_in[id] = made->kernel ? made->kernel->host_in : 0;
    if (made->view_of >= 0 && !moved[n.in[static_cast<std::size_t>(made->view_of)]]) return "a view of a value on the host";
    return "";
}

inline void Placement::choose() {
    moved.assign(g.values.size(), 0);
    view_of.assign(g.nodes.size(), -1);
    host_in.assign(g.nodes.size(), 0);
    if (ctx.options.device_io)
        for (ValueId v : g.inputs) moved[v] = g.fact(v).kind == Kind::tensor;
    for (NodeId id : order) {
        Node& n = g.nodes[id];
        n.placement = refusal(id);
        if (!n.placement.empty()) continue;
        n.device = ctx.target.device;
        for (ValueId v : n.out)
            if (v != no_value) moved[v] = 1;
    }
}

/// A group of device nodes between host nodes pays for its copies only if it computes: products, or many elements. What works on
/// sizes that data decided (the boxes that were found) is a group of its own.
inline void Placement::send_back() {
    std::vector<NodeId> group(g.nodes.size(), -1);
    auto root = [&](NodeId n) {
        while (group[n] != n) n = group[n] = group[group[n]];
        return n;
    };
    for (NodeId id : order)
        if (on_device(id)) group[id] = id;
    std::map<NodeId, bool> beside_host, worth;
    for (NodeId id : order)
        if (on_device(id))
            for (ValueId v : g.nodes[id].in)
                if (NodeId p = v == no_value ? -1 : g.values[v].producer; p >= 0 && on_device(p) && by_data[p] == by_data[id]) group[root(id)] = root(p);
    for (NodeId id : order) {
        const Node& n = g.nodes[id];
        for (std::size_t i = 0; i < n.in.size(); ++i) {
            ValueId v = n.in[i];
            NodeId p = v == no_value ? -1 : g.values[v].producer;
            if (p < 0) continue;
            if (on_device(id) && !on_device(p) && !known_content[v]) beside_host[root(id)] = true;
            if (!on_device(id) && on_device(p)) beside_host[root(p)] = true;
        }
        if (!on_device(id) || view_of[id] >= 0) continue;
        static constexpr std::string_view heavy[] = {"Conv", "FusedConv", "MatMul", "Gemm", "FusedMatMul", "Attention", "LSTM", "GRU", "RNN", "ConvTranspose"};
        bool much = std::find(std::begin(heavy), std::end(heavy), n.op->name) != std::end(heavy);
        for (ValueId v : n.out)
            if (v != no_value) {
                std::int64_t count = 1;
                for (auto& d : g.fact(v).dims) count *= d.is_const() ? d.value() : 256;
                much = much || count >= (1 << 15);
            }
        if (much) worth[root(id)] = true;
    }
    for (NodeId id : order)
        if (on_device(id) && beside_host[root(id)] && !worth[root(id)]) {
            g.nodes[id].device = Device::cpu;
            g.nodes[id].placement = "too little work between nodes on the host to pay for copies";
            for (ValueId v : g.nodes[id].out)
                if (v != no_value) moved[v] = 0;
        }
}

/// One copy for each value and direction.
inline void Placement::connect() {
    std::vector<ValueId> twin(g.values.size(), no_value);
    auto elsewhere = [&](ValueId v) {
        if (twin[v] != no_value) return twin[v];
        const bool to_host = moved[v];
        const std::string name = g.values[v].name;
        return twin[v] = add_inferred(g, op_named(to_host ? "quern::CopyToHost" : "quern::CopyToDevice"), {v}, {}, name, name, {}, to_host ? Device::cpu : ctx.target.device);
    };
    for (NodeId id : order) {
        if (never_run(id)) continue;
        for (std::size_t i = 0; i < g.nodes[id].in.size(); ++i) {
            ValueId v = g.nodes[id].in[i];
            if (v == no_value || (g.fact(v).is_const() && !moved[v])) continue;
            bool wanted = on_device(id);
            if (wanted && view_of[id] >= 0 && view_of[id] != static_cast<int>(i)) continue;
            if (wanted && i < 32 && (host_in[id] >> i & 1u)) wanted = false;
            if (wanted != bool(moved[v])) {
                ValueId w = elsewhere(v);
                g.nodes[id].in[i] = w;
            }
        }
    }
    for (ValueId& v : g.outputs)
        if (bool(moved[v]) != ctx.options.device_io) v = elsewhere(v);
}

/// Options::strict_device.
inline void Placement::complain() const {
    std::string text;
    int n = 0;
    for (NodeId id : order) {
        const std::string& why = g.nodes[id].placement;
        if (why.empty() || why == "shape arithmetic stays on the host" || why == "a few integers stay on the host" || why == "a view of a value on the host") continue;
        if (++n <= 8) text += (text.empty() ? "" : "; ") + need_host(g.nodes[id]);
    }
    if (n) raise(ErrorCode::unsupported, "strict_device, and " + std::to_string(n) + " node" + (n > 1 ? "s" : "") + " would run on the CPU: " + text);
}

inline bool place(Graph& g, const PassContext& ctx) {
    if (ctx.target.device == Device::cpu) return false;
    Placement p{g, ctx};
    p.order = g.order();
    p.sizes();
    p.choose();
    if (ctx.options.strict_device) p.complain();
    else p.send_back();
    p.connect();
    if (ctx.options.log) {
        for (NodeId id : p.order)
            if (!g.nodes[id].placement.empty()) ctx.options.log(LogLevel::debug, "on the host: " + place_of(g.nodes[id]) + ": " + g.nodes[id].placement);
    }
    return true;
}

}  // namespace passes_detail
QUERN_END
