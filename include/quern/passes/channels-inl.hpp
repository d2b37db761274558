// Channel shuffles in channels last vanish: whoever reads shuffled channels takes them in another order, with its weights, out of the
// values that they come from; whoever makes these puts beside each other what is read together.
#pragma once
#include <algorithm>
#include <map>
#include <tuple>

#include "chain-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

class Channels {
public:
    Channels(Graph& graph, const PassContext& context) : g(graph), ctx(context), moves_(graph.nodes.size(), 0), content_(graph.values.size()), mixed_(graph.values.size(), 0) {}
    bool run() {
        order_ = g.order();
        find_shuffles();
        if (shuffles_.empty()) return false;
        find_contents();
        find_reads();
        while (!settle()) {}
        if (std::none_of(reads_.begin(), reads_.end(), [&](const Read& r) { return r.free && mixed_[at(r.value)]; })) return false;
        for (auto& [source, order] : orders_) reorder_output(source, order);
        rewrite_reads();
        return true;
    }

private:
    struct Channel {
        ValueId source;
        std::int32_t index;
    };
    using Order = std::vector<std::int64_t>;           // by new place: the old one
    struct Part { ValueId source; std::int64_t first, count; auto operator<=>(const Part&) const = default; };
    struct Read {
        NodeId node;        ///< -1: an output of the graph
        std::size_t input;
        ValueId value;
        bool free;          ///< its channels may come in any order
        std::vector<Part> parts = {};  ///< what it reads instead, and in which order
        Order order = {};
    };
    static constexpr std::int64_t most_channels = 1 << 14;
    static std::size_t at(std::int32_t i) { return static_cast<std::size_t>(i); }
    /// Of a picture in f32; 0 for other values.
    std::int64_t width(ValueId v) const {
        const Fact* f = v == no_value ? nullptr : &g.fact(v);
        if (!f || f->dtype != DType::f32 || !f->ranked || f->rank() != 4 || !f->dims[3].is_const() || f->is_const()) return 0;
        return f->dims[3].value() <= most_channels ? f->dims[3].value() : 0;
    }
    std::vector<Channel> content(ValueId v) const {
        if (!content_[at(v)].empty()) return content_[at(v)];
        std::vector<Channel> own;
        for (std::int64_t c = 0; c < width(v); ++c) own.push_back({v, static_cast<std::int32_t>(c)});
        return own;
    }

    /// Reshape to [..., groups, each], transpose of the two, reshape back.
    void find_shuffles() {
        const std::vector<int> uses = g.use_counts();
        for (NodeId id : order_) {
            const Node *last = &g.nodes[at(id)], *mid = is_op(last, "Reshape") ? g.producer(last->in[0]) : nullptr;
            const Node* first = is_op(mid, "Transpose") && mid->attrs.ints("perm") == std::vector<std::int64_t>{0, 1, 2, 4, 3} ? g.producer(mid->in[0]) : nullptr;
            if (!is_op(first, "Reshape") || !width(first->in[0]) || uses[at(first->out[0])] != 1 || uses[at(mid->out[0])] != 1) continue;
            const Fact &x = g.fact(first->in[0]), &split = g.fact(mid->in[0]), &y = g.fact(last->out[0]);
            if (!y.ranked || !split.ranked || !(x.dims == y.dims) || !split.dims[3].is_const() || !split.dims[4].is_const()) continue;
            if (!std::equal(x.dims.begin(), x.dims.begin() + 3, split.dims.begin()) || !(split.dims[3] * split.dims[4] == x.dims[3])) continue;
            shuffles_[id] = {first->in[0], split.dims[3].value()};
            moves_[at(id)] = moves_[at(g.values[at(first->out[0])].producer)] = moves_[at(g.values[at(mid->out[0])].producer)] = 1;
        }
    }
    /// Where the channels come from that nodes only move.
    void find_contents() {
        for (NodeId id : order_) {
            const Node& n = g.nodes[at(id)];
            if (auto s = shuffles_.find(id); s != shuffles_.end()) {
                const auto x = content(s->second.first);
                const std::int64_t groups = s->second.second, each = static_cast<std::int64_t>(x.size()) / groups;
                auto& y = content_[at(n.out[0])];
                for (std::int64_t c = 0; c < each * groups; ++c) y.push_back(x[at(static_cast<std::int32_t>(c % groups * each + c / groups))]);
                mixed_[at(n.out[0])] = 1;
            } else if (is_op(&n, "Concat")) {
                const std::int64_t axis = n.attrs.i("axis", 1);
                if (!width(n.out[0]) || (axis != 3 && axis != -1) || std::any_of(n.in.begin(), n.in.end(), [&](ValueId v) { return !width(v); })) continue;
                auto& y = content_[at(n.out[0])];
                for (ValueId v : n.in) {
                    const auto x = content(v);
                    y.insert(y.end(), x.begin(), x.end());
                    mixed_[at(n.out[0])] |= mixed_[at(v)];
                }
                moves_[at(id)] = 1;
            } else if (is_op(&n, "Slice") || is_op(&n, "Split")) {
                std::vector<std::int64_t> firsts;
                for (ValueId v : n.out) {
                    std::size_t axis = 0;
                    std::int64_t first = 0;
                    if (!width(n.in[0]) || !width(v) || !contiguous_part(g, n, v, axis, first) || axis != 3) break;
                    firsts.push_back(first);
                }
                if (firsts.size() != n.out.size()) continue;
                const auto x = content(n.in[0]);
                for (std::size_t o = 0; o < firsts.size(); ++o) {
                    content_[at(n.out[o])].assign(x.begin() + firsts[o], x.begin() + firsts[o] + width(n.out[o]));
                    mixed_[at(n.out[o])] = mixed_[at(n.in[0])];
                }
                moves_[at(id)] = 1;
            }
        }
    }
    void find_reads() {
        for (NodeId id : order_) {
            const Node& n = g.nodes[at(id)];
            if (moves_[at(id)]) continue;
            for (std::size_t i = 0; i < n.in.size(); ++i)
                if (width(n.in[i])) reads_.push_back({id, i, n.in[i], i == 0 && takes_any_order(n)});
        }
        for (ValueId v : g.outputs)
            if (width(v)) reads_.push_back({-1, 0, v, false});
    }
    bool constant(const Node& n, std::size_t i, bool needed) const {
        const ValueId v = input_of(n, i);
        return v == no_value ? !needed : g.fact(v).is_const() && g.fact(v).dtype == DType::f32;
    }
    static bool has(const Node& n, std::size_t i) { return input_of(n, i) != no_value; }
    /// Whether weights give the channels of input 0 their meaning.
    bool takes_any_order(const Node& n) const {
        if (is_last_conv(g, &n)) return n.attrs.i("group", 1) == 1 && !has(n, 4);
        if (!is_op(&n, "FusedDepthwise", "quern") || n.in.size() > conv::ChainProblem::first_part) return false;
        if (has(n, 1)) return constant(n, 1, true);
        return has(n, 5) && constant(n, 3, true) && constant(n, 4, false) && constant(n, 5, true);
    }
    /// Whether weights decide in which order the channels of output 0 come.
    bool gives_any_order(ValueId v) const {
        const Node* n = g.producer(v);
        if (!n || n->out[0] != v || n->out.size() > 1) return false;
        if (is_last_conv(g, n)) return n->attrs.i("group", 1) == 1 && !has(*n, 3) && constant(*n, 2, false);
        if (!is_op(n, "FusedDepthwise", "quern") || has(*n, 7)) return false;
        if (has(*n, 5)) return constant(*n, 5, true) && constant(*n, 6, false);
        return has(*n, 1) && constant(*n, 1, true) && constant(*n, 2, false) && constant(*n, 3, true) && constant(*n, 4, false);
    }

    /// One round of deciding who reads what, on the assumption that the reads marked free are. False where one of them had to be given up.
    bool settle() {
        // What is made as it is for others anyway is read as it is.
        std::vector<char> made(g.values.size(), 0);
        for (const Read& r : reads_)
            if (!r.free) made[at(r.value)] = 1;
        for (auto id = order_.rbegin(); id != order_.rend(); ++id) {
            const Node& n = g.nodes[at(*id)];
            if (moves_[at(*id)] && std::any_of(n.out.begin(), n.out.end(), [&](ValueId v) { return made[at(v)]; }))
                for (ValueId v : n.in)
                    if (v != no_value) made[at(v)] = 1;
        }
        bool settled = true;
        for (Read& r : reads_)
            if (r.free && mixed_[at(r.value)] && made[at(r.value)]) r.free = settled = false;
        if (!settled) return false;
        // By source and channel: who reads it.
        std::map<ValueId, std::vector<std::vector<std::size_t>>> readers;
        std::map<ValueId, bool> fixed;
        for (std::size_t i = 0; i < reads_.size(); ++i)
            if (mixed_[at(reads_[i].value)] && reads_[i].free)
                for (const Channel& c : content(reads_[i].value)) readers[c.source];
        for (auto& [source, channels] : readers) {
            channels.resize(static_cast<std::size_t>(width(source)));
            fixed[source] = !gives_any_order(source);
        }
        for (std::size_t i = 0; i < reads_.size(); ++i)
            for (const Channel& c : content(reads_[i].value))
                if (auto s = readers.find(c.source); s != readers.end()) {
                    if (!reads_[i].free) fixed[c.source] = true;
                    auto& who = s->second[at(c.index)];
                    if (who.empty() || who.back() != i) who.push_back(i);
                }
        orders_.clear();
        for (auto& [source, channels] : readers) {
            if (fixed[source]) continue;
            Order order(channels.size());
            for (std::size_t c = 0; c < order.size(); ++c) order[c] = static_cast<std::int64_t>(c);
            std::stable_sort(order.begin(), order.end(), [&, &who = channels](std::int64_t a, std::int64_t b) { return who[static_cast<std::size_t>(a)] < who[static_cast<std::size_t>(b)]; });
            if (!std::is_sorted(order.begin(), order.end())) orders_[source] = std::move(order);
        }
        for (Read& r : reads_)
            if (r.free && !arrange(r)) r.free = settled = false;
        return settled;
    }
    /// What `r` reads instead; false where that is too many parts.
    bool arrange(Read& r) const {
        r.parts.clear();
        r.order.clear();
        const auto all = content(r.value);
        if (!mixed_[at(r.value)] && std::none_of(all.begin(), all.end(), [&](const Channel& c) { return orders_.count(c.source) != 0; })) return true;  // as it was
        std::map<ValueId, Order> place;  // by old place: the new one
        for (const Channel& c : all) {
            auto o = orders_.find(c.source);
            if (o == orders_.end() || place.count(c.source)) continue;
            Order& p = place[c.source];
            p.resize(o->second.size());
            for (std::size_t i = 0; i < p.size(); ++i) p[static_cast<std::size_t>(o->second[i])] = static_cast<std::int64_t>(i);
        }
        std::vector<std::tuple<ValueId, std::int64_t, std::int64_t>> sorted;  // source, place in it, place in r.value
        for (std::size_t i = 0; i < all.size(); ++i) {
            auto p = place.find(all[i].source);
            sorted.emplace_back(all[i].source, p == place.end() ? all[i].index : p->second[at(all[i].index)], static_cast<std::int64_t>(i));
        }
        std::sort(sorted.begin(), sorted.end());
        for (auto& [source, where, was] : sorted) {
            if (r.parts.empty() || r.parts.back().source != source || r.parts.back().first + r.parts.back().count != where) r.parts.push_back({source, where, 0});
            ++r.parts.back().count;
            r.order.push_back(was);
        }
        return r.parts.size() <= conv::ChainProblem::most_parts;
    }

    /// Input i of the node is a constant of which dimension d comes in another order.
    void reorder(NodeId id, std::size_t i, std::size_t d, const Order& order) {
        if (!has(g.nodes[at(id)], i)) return;
        const ValueId v = g.nodes[at(id)].in[i];
        const Tensor given = g.fact(v).value;
        Tensor to = room_like(given, 16 << 10);  // all of a model's weights may be copied here, and are packed one by one
        const Shape s = given.shape();
        std::int64_t outer = 1, inner = 1;
        for (std::size_t k = 0; k < static_cast<std::size_t>(s.rank()); ++k) (k < d ? outer : inner) *= k == d ? 1 : s[static_cast<int>(k)];
        const auto* x = static_cast<const std::byte*>(given.raw());  // need not be aligned
        auto* y = static_cast<std::byte*>(to.raw());
        const std::size_t each = static_cast<std::size_t>(inner) * sizeof(float);
        for (std::int64_t o = 0; o < outer; ++o, x += order.size() * each)
            for (std::int64_t c : order) {
                if (inner == 1) std::memcpy(y, x + static_cast<std::size_t>(c) * sizeof(float), sizeof(float));
                else std::memcpy(y, x + static_cast<std::size_t>(c) * each, each);
                y += each;
            }
        if (std::find(ours_.begin(), ours_.end(), v) != ours_.end()) {
            g.fact(v).value = std::move(to);
            return;
        }
        ctx.done_with(given);
        ours_.push_back(g.add_constant(g.fresh_name(g.values[at(v)].name), std::move(to)));
        g.nodes[at(id)].in[i] = ours_.back();
    }
    void reorder_output(ValueId source, const Order& order) {
        const NodeId id = g.values[at(source)].producer;
        const bool chain = is_op(&g.nodes[at(id)], "FusedDepthwise", "quern"), projects = chain && has(g.nodes[at(id)], 5);
        if (!chain) reorder(id, 1, 0, order), reorder(id, 2, 0, order);
        for (std::size_t i : {std::size_t{5}, std::size_t{6}})
            if (projects) reorder(id, i, 0, order);
        for (std::size_t i : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{4}})
            if (chain && !projects) reorder(id, i, 0, order);
    }
    void reorder_input(NodeId id, const Order& order) {
        const Node& n = g.nodes[at(id)];
        if (is_last_conv(g, &n) || has(n, 1)) return reorder(id, 1, 1, order);
        reorder(id, 3, 0, order), reorder(id, 4, 0, order), reorder(id, 5, 1, order);
    }

    bool takes_parts(const Node& n) const { return is_op(&n, "FusedDepthwise", "quern") && has(n, 1); }
    ValueId number(std::int64_t i) { return add_ints(g, "channels", {i}); }
    ValueId part(const Part& p) {
        if (p.first == 0 && p.count == width(p.source)) return p.source;
        auto& v = cuts_.try_emplace(p, no_value).first->second;
        if (v == no_value) v = add_inferred(g, op_named("Slice"), {p.source, number(p.first), number(p.first + p.count), number(3)}, {}, g.values[at(p.source)].name, g.values[at(p.source)].name, "");
        return v;
    }
    void rewrite_reads() {
        std::map<std::vector<Part>, ValueId> joined;  // what somebody wants as one value
        for (const Read& r : reads_)
            if (r.free && r.parts.size() > 1 && !takes_parts(g.nodes[at(r.node)])) joined[r.parts] = no_value;
        for (const Read& r : reads_) {
            if (!r.free || r.parts.empty()) continue;
            reorder_input(r.node, r.order);
            std::vector<ValueId> in;
            for (const Part& p : r.parts) in.push_back(part(p));
            if (auto j = joined.find(r.parts); j != joined.end()) {
                if (j->second == no_value) {
                    Attrs a;
                    a.set("axis", std::int64_t{3});
                    j->second = add_inferred(g, op_named("Concat"), std::move(in), std::move(a), g.values[at(r.value)].name, g.values[at(r.value)].name, "");
                }
                in = {j->second};
            }
            Node& n = g.nodes[at(r.node)];
            n.in[0] = in[0];
            if (in.size() == 1) continue;
            n.in.resize(conv::ChainProblem::first_part, no_value);
            n.in.insert(n.in.end(), in.begin() + 1, in.end());
        }
    }

    Graph& g;
    const PassContext& ctx;
    std::vector<NodeId> order_;
    std::vector<char> moves_;                          // by node: it only moves channels
    std::map<NodeId, std::pair<ValueId, std::int64_t>> shuffles_;  // by the last node: what is shuffled, and the number of groups
    std::vector<std::vector<Channel>> content_;        // by value: of what nodes move; else empty
    std::vector<char> mixed_;                          // by value: a shuffle lies between it and where its channels come from
    std::vector<Read> reads_;
    std::map<ValueId, Order> orders_;                  // of the sources whose channels change places
    std::map<Part, ValueId> cuts_;
    std::vector<ValueId> ours_;                        // constants that this pass made, each read by one node
};
inline bool channels(Graph& g, const PassContext& ctx) { return ctx.target.device == Device::cpu && Channels(g, ctx).run(); }

}  // namespace passes_detail
QUERN_END
