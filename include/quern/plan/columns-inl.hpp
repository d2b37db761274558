// Values that live in the memory of others: parts of a whole, columns of what is joined, caches that grow.
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "../passes/match-inl.hpp"
#include "plan.hpp"

QUERN_BEGIN
namespace plan_detail {

/// By value: whether somebody wants its rows to lie one after the other.
inline std::vector<char> dense_values(const Plan& p) {
    std::vector<char> dense(p.values.size(), 0);
    for (int v : p.outputs) dense[static_cast<std::size_t>(v)] = 1;
    for (const PlanValue& x : p.values) {
        if (x.home == PlanValue::Home::view) dense[static_cast<std::size_t>(x.index)] = 1;
        if (x.home == PlanValue::Home::columns && !x.pitch) dense[static_cast<std::size_t>(x.root)] = 1;
    }
    for (const PlanStep& s : p.steps)
        for (std::size_t i = 0; i < s.in.size(); ++i)
            if (s.in[i] >= 0 && !s.placed && (!s.kernel || !(s.kernel->joins || (i < 32 && s.kernel->strided_in >> i & 1u)))) dense[static_cast<std::size_t>(s.in[i])] = 1;
    return dense;
}

/// Steps from the one that makes a part to the one that joins it, from a whole to the last reader of its parts.
inline constexpr int near = 12;
inline std::ptrdiff_t segment(const Plan& p, int step) { return std::upper_bound(p.segments.begin(), p.segments.end(), step) - p.segments.begin(); }

/// What a step cuts out of the last dimension is read where it is, where all readers take rows that lie apart; what it cuts out of the first dimension that is
/// not 1 is in one piece for any reader. Parts read long after are left out: the whole would be in memory all the while.
inline void cut_columns(Plan& p) {
    const std::vector<char> dense = dense_values(p);
    std::vector<char> shown(p.values.size(), 0);  // where its own memory is looked for
    for (int v : p.outputs) shown[static_cast<std::size_t>(v)] = 1;
    for (const PlanValue& x : p.values)
        if (x.home == PlanValue::Home::view) shown[static_cast<std::size_t>(x.index)] = 1;
    /// Elements from one place along the axis to the next where the whole has one piece of each part; else 0.
    auto piece = [&](const std::vector<Dim>& d, std::size_t axis) {
        std::int64_t n = 1;
        for (std::size_t i = 0; i < d.size(); ++i)
            if (i < axis ? !d[i].is(1) : i > axis && (!d[i].is_const() || __builtin_mul_overflow(n, d[i].value(), &n))) return std::int64_t{0};
        return n;
    };
    std::vector<int> last(p.values.size(), -1), work{0};  // the last step that reads a value; kernels before each step
    for (const PlanStep& s : p.steps) {
        for (int v : s.in)
            if (v >= 0) last[static_cast<std::size_t>(v)] = static_cast<int>(&s - p.steps.data());
        work.push_back(work.back() + (s.kernel && !passes_detail::is_cut(p.graph, s.node)));
    }
    for (PlanStep& s : p.steps) {
        if (!s.kernel || !passes_detail::is_cut(p.graph, s.node) || s.late || s.device != Device::cpu || s.in[0] < 0) continue;
        const PlanValue& whole = p.values[static_cast<std::size_t>(s.in[0])];
        const int made = whole.made;
        if (whole.home != PlanValue::Home::arena || whole.device != Device::cpu || dtype_bits(whole.dtype) % 8 != 0 || whole.dtype == DType::string) continue;
        struct Part {
            int value;
            std::int64_t first, pitch;
        };
        std::vector<Part> parts;
        for (int v : s.out) {
            if (v < 0) continue;
            const Fact& f = p.graph.values[static_cast<std::size_t>(v)].fact;
            std::size_t axis = 0;
            std::int64_t first = 0, pitch = 0;
            if (p.values[static_cast<std::size_t>(v)].home != PlanValue::Home::arena || !f.ranked || !passes_detail::contiguous_part(p.graph, p.graph.nodes[s.node], v, axis, first)) break;
            if (const std::int64_t step = shown[static_cast<std::size_t>(v)] ? 0 : piece(f.dims, axis); step > 0) {
                if (__builtin_mul_overflow(first, step, &first)) break;
            } else {
                if (dense[static_cast<std::size_t>(v)] || axis + 1 != f.dims.size()) break;
                pitch = p.graph.values[static_cast<std::size_t>(s.in[0])].fact.dims.back().value();
            }
            const int end = std::max(last[static_cast<std::size_t>(v)], made);
            if (work[static_cast<std::size_t>(end)] - work[static_cast<std::size_t>(made)] > near || segment(p, end) != segment(p, made)) break;
            parts.push_back({v, first, pitch});
        }
        if (parts.empty() || parts.size() != static_cast<std::size_t>(std::count_if(s.out.begin(), s.out.end(), [](int v) { return v >= 0; }))) continue;
        for (const Part& part : parts) {
            PlanValue& x = p.values[static_cast<std::size_t>(part.value)];
            x.home = PlanValue::Home::columns;
            x.index = x.root = s.in[0];
            x.first = part.first;
            x.pitch = part.pitch;
        }
        s.kernel = nullptr;
        s.placed = true;
    }
}

/// What a step joins is written into its output by those that make it, where they and all readers take rows that lie apart. Parts made
/// long before are left out: the whole would be in memory all the while.
inline void join_columns(Plan& p) {
    const std::vector<char> dense = dense_values(p);
    for (int c = static_cast<int>(p.steps.size()) - 1; c >= 0; --c) {
        PlanStep& s = p.steps[static_cast<std::size_t>(c)];
        if (!s.kernel || !s.kernel->joins || s.late || s.device != Device::cpu || s.out[0] < 0) continue;
        std::vector<std::int64_t> widths;
        std::int64_t total = 0;
        for (int v : s.in) {
            if (v < 0) break;
            const Fact& f = p.graph.values[static_cast<std::size_t>(v)].fact;
            if (!f.ranked || f.dims.empty() || !f.dims.back().is_const()) break;
            widths.push_back(f.dims.back().value());
            total += widths.back();
        }
        const PlanValue whole = p.values[static_cast<std::size_t>(s.out[0])];
        const bool inner = whole.home == PlanValue::Home::columns;
        if (widths.size() != s.in.size() || (!inner && whole.home != PlanValue::Home::arena) || dtype_bits(whole.dtype) % 8 != 0 || whole.dtype == DType::string) continue;
        std::int64_t first = whole.first;
        std::size_t placed = 0;
        for (std::size_t i = 0; i < s.in.size(); first += widths[i++]) {
            PlanValue& x = p.values[static_cast<std::size_t>(s.in[i])];
            if (x.home != PlanValue::Home::arena || dense[static_cast<std::size_t>(s.in[i])] || x.device != Device::cpu || c - x.made > near || segment(p, x.made) != segment(p, c)) continue;
            const PlanStep& maker = p.steps[static_cast<std::size_t>(x.made)];
            if (!maker.kernel || !maker.kernel->strided_out || maker.out[0] != s.in[i]) continue;
            x.home = PlanValue::Home::columns;
            x.index = s.out[0];
            x.root = whole.root;
            x.first = first;
            x.pitch = inner ? whole.pitch : total;
            for (PlanValue& part : p.values)
                if (part.home == PlanValue::Home::columns && part.root == s.in[i]) part.root = whole.root, part.first += first, part.pitch = x.pitch;
            PlanValue& root = p.values[static_cast<std::size_t>(x.root)];
            root.made = std::min(root.made, x.made);
            ++placed;
        }
        if (placed < s.in.size()) continue;
        s.kernel = nullptr;
        s.placed = true;
    }
}

/// What grows in the memory of an input, where the application gives it room: Plan::caches.
inline void find_caches(Plan& p) {
    std::vector<char> elsewhere(p.values.size(), 0);  // read by what wants no room, or more than once as what grows
    std::vector<int> shown(p.values.size(), 0);
    for (int v : p.outputs) ++shown[static_cast<std::size_t>(v)];
    for (std::size_t v = 0; v < p.values.size(); ++v)
        if (const int root = p.values[v].root; root != static_cast<int>(v) && root >= 0) elsewhere[static_cast<std::size_t>(root)] = 1;
    for (const PlanStep& s : p.steps)
        for (std::size_t i = 0; i < s.in.size(); ++i) {
            if (s.in[i] < 0) continue;
            char& e = elsewhere[static_cast<std::size_t>(s.in[i])];
            if (s.kernel && s.kernel->grows && i == 0 && !s.late) e = static_cast<char>(e | (e ? 1 : 2));
            else if (!s.kernel || !(i < 32 && s.kernel->roomy_in >> i & 1u)) e = 1;
        }
    for (const PlanStep& s : p.steps) {
        if (!s.kernel || !s.kernel->grows || s.late || s.in[0] < 0 || s.out[0] < 0) continue;
        const PlanValue &from = p.values[static_cast<std::size_t>(s.in[0])], &to = p.values[static_cast<std::size_t>(s.out[0])];
        if (from.device != s.device || to.device != s.device) continue;
        if (from.home != PlanValue::Home::input || to.home != PlanValue::Home::arena || elsewhere[static_cast<std::size_t>(s.in[0])] != 2 || elsewhere[static_cast<std::size_t>(s.out[0])]) continue;
        if (shown[static_cast<std::size_t>(s.in[0])] || shown[static_cast<std::size_t>(s.out[0])] != 1) continue;
        const auto o = std::find(p.outputs.begin(), p.outputs.end(), s.out[0]) - p.outputs.begin();
        p.caches.push_back({from.index, static_cast<int>(o)});
    }
}

}  // namespace plan_detail
QUERN_END
