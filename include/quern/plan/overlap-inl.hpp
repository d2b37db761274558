// Host and device at the same time: the order of steps, what the host waits for, which copies overtake.
#pragma once
#include <algorithm>
#include <set>
#include <tuple>
#include <vector>

#include "plan.hpp"

QUERN_BEGIN
namespace plan_detail {

/// With a device: what only has to be enqueued comes before what the host computes or waits for, so that both work at the same time.
/// First copies to the device that can be made, then device steps that the host waits for, other device steps, steps of the host; of
/// these first what reads nothing from the device, then what reads what was copied first. Otherwise the order stays, and large inputs are
/// copied where they are read: caches, say, would all be in memory all the while.
struct Enqueuer {
    const Plan& p;
    const std::vector<char>& needed;         // by node
    const std::vector<PlanStep>& lowered;    // by node
    const std::vector<char>& from_inputs;    // slots of the dim program that the inputs decide
    enum Turn { at_once, feeds_host, enqueued, on_host };
    struct Job {
        int place = 0, missing = 0;
        bool feeds = false;
        std::vector<NodeId> next;
    };
    std::vector<Job> jobs = std::vector<Job>(p.graph.nodes.size());
    std::vector<int> copied = std::vector<int>(p.values.size(), -1);  // by value: place of the copy to the host that it comes from
    std::set<std::tuple<int, int, int, NodeId>> ready = {};

    static constexpr double large = 1 << 20;  // bytes of an input that is not copied before it is read

    bool from_data(const std::vector<ValueId>& values) const {
        for (ValueId v : values) {
            if (v == no_value) continue;
            if (!p.values[v].ranked) return true;
            for (int s : p.values[v].dims)
                if (!from_inputs[s]) return true;
        }
        return false;
    }
    bool is_view(NodeId id) const { return lowered[id].view_of >= 0 && !lowered[id].late; }
    bool on_device(NodeId id) const { return lowered[id].device != Device::cpu || lowered[id].transfer == Transfer::to_host; }
    bool large_input(ValueId v) const {
        for (NodeId from = p.graph.values[v].producer; from >= 0; from = p.graph.values[v].producer) {
            if (!needed[from] || !is_view(from)) return false;
            v = p.graph.nodes[from].in[static_cast<std::size_t>(lowered[from].view_of)];
        }
        double bytes = dtype_bits(p.values[v].dtype) / 8.0;
        for (const Dim& d : p.graph.fact(v).dims) bytes *= d.is_const() ? static_cast<double>(d.value()) : 256;
        return bytes > large;
    }
    void depend(const std::vector<NodeId>& order) {
        auto after = [&](NodeId first, NodeId then) { jobs[first].next.push_back(then), ++jobs[then].missing; };
        NodeId last_late = -1;
        for (std::size_t i = 0; i < order.size(); ++i) {
            const NodeId id = order[i];
            const Node& n = p.graph.nodes[id];
            jobs[id].place = static_cast<int>(i);
            for (ValueId v : n.in)
                if (NodeId from = v == no_value ? -1 : p.graph.values[v].producer; from >= 0 && needed[from]) after(from, id);
            // Sizes are bound in the order of the steps that tell them.
            if (last_late >= 0 && (lowered[id].late || from_data(n.in) || from_data(n.out))) after(last_late, id);
            if (lowered[id].late) last_late = id;
        }
        for (auto it = order.rbegin(); it != order.rend(); ++it)
            for (NodeId n : jobs[*it].next) jobs[*it].feeds = jobs[*it].feeds || !on_device(n) || jobs[n].feeds;
    }
    void add(NodeId id) {
        const PlanStep& s = lowered[id];
        int turn = on_host, waits = -1;
        for (std::size_t i = 0; i < s.in.size(); ++i)
            if (s.in[i] >= 0 && (s.device == Device::cpu || (s.kernel && i < 32 && s.kernel->host_in >> i & 1u))) waits = std::max(waits, copied[s.in[i]]);
        const bool copy = s.transfer == Transfer::to_device;
        if ((copy && !large_input(s.in[0])) || is_view(id)) turn = at_once;
        else if (copy || s.transfer == Transfer::to_host || (s.device != Device::cpu && waits < 0)) turn = jobs[id].feeds ? feeds_host : enqueued;
        ready.emplace(turn, turn == on_host ? waits : 0, jobs[id].place, id);
    }
    /// The needed ones of `before`.
    std::vector<NodeId> run(const std::vector<NodeId>& before) {
        std::vector<NodeId> order, early;
        for (NodeId id : before)
            if (needed[id]) order.push_back(id);
        depend(order);
        for (NodeId id : order)
            if (!jobs[id].missing) add(id);
        while (!ready.empty()) {
            const NodeId id = std::get<3>(*ready.begin());
            ready.erase(ready.begin());
            const PlanStep& s = lowered[id];
            for (int v : s.out)
                if (v >= 0) copied[v] = s.transfer == Transfer::to_host ? static_cast<int>(early.size()) : is_view(id) ? copied[s.in[s.view_of]] : -1;
            early.push_back(id);
            for (NodeId n : jobs[id].next)
                if (!--jobs[n].missing) add(n);
        }
        return early;
    }
};

/// With a device: what each step of the host waits for, and which copies to the device overtake what was enqueued before them.
inline void find_waits(Plan& p) {
    int waited = -1, worked = -1, begin = 0;  // the last copy that the host waited for, the last work of the device, the segment
    std::size_t segment = 0;
    for (int s = 0; s < static_cast<int>(p.steps.size()); ++s) {
        PlanStep& st = p.steps[s];
        if (segment < p.segments.size() && p.segments[segment] == s) begin = s, ++segment;
        const bool host = st.device == Device::cpu && st.transfer == Transfer::none;
        st.on_host = host && (st.kernel || st.late);
        for (std::size_t i = 0; i < st.in.size(); ++i) {
            const bool read = host ? st.on_host : st.transfer == Transfer::to_device || (st.kernel && i < 32 && st.kernel->host_in >> i & 1u);
            if (st.in[i] < 0 || !read) continue;
            const PlanValue& root = p.values[p.values[st.in[i]].root];
            if (root.home != PlanValue::Home::arena) continue;
            if (st.transfer == Transfer::none) st.on_host = true;
            if (root.made >= 0 && p.steps[root.made].transfer == Transfer::to_host) st.on_host = true, st.reads_copy = std::max(st.reads_copy, root.made);
        }
        waited = std::max(waited, st.reads_copy);
        if (st.transfer == Transfer::to_device && worked > waited && p.values[p.values[st.in[0]].root].home != PlanValue::Home::input) st.beside = std::max(begin, waited + 1);
        if (st.device != Device::cpu && (st.kernel || st.transfer == Transfer::on_device)) worked = s;
    }
    bool later = false;
    for (auto it = p.steps.rbegin(); it != p.steps.rend(); ++it) {
        it->marked = later && (it->transfer == Transfer::to_device || it->transfer == Transfer::to_host);
        later = later || it->on_host;
    }
}

}  // namespace plan_detail
QUERN_END
