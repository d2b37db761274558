#pragma once
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "graph.hpp"

QUERN_BEGIN

QUERN_INLINE Fact Fact::constant(Tensor t) {
    Fact f;
    f.dtype = t.dtype();
    f.ranked = true;
    for (std::int64_t d : t.shape()) f.dims.emplace_back(d);
    f.value = std::move(t);
    return f;
}
namespace detail {
inline Fact boxed(Kind kind, Fact elem) {
    Fact f;
    f.kind = kind;
    f.dtype = elem.dtype;
    elem.value = Tensor();
    elem.symbolic.reset();
    for (auto& d : elem.dims)
        if (!d.is_const()) d = Dim::symbol("?");
    f.elem = std::make_shared<const Fact>(std::move(elem));
    return f;
}
}  // namespace detail
QUERN_INLINE Fact Fact::sequence_of(Fact elem) { return detail::boxed(Kind::sequence, std::move(elem)); }
QUERN_INLINE Fact Fact::optional_of(Fact elem) { return detail::boxed(Kind::optional, std::move(elem)); }
QUERN_INLINE Fact Fact::map_of(DType key, Fact elem) {
    Fact f = detail::boxed(Kind::map, std::move(elem));
    f.key = key;
    return f;
}
QUERN_INLINE bool Fact::concrete() const noexcept {
    if (!ranked) return false;
    for (auto& d : dims)
        if (!d.is_const()) return false;
    return true;
}
QUERN_INLINE Shape Fact::shape() const {
    Shape s;
    for (auto& d : dims) s.push_back(d.value());
    return s;
}
QUERN_INLINE std::string Fact::to_string() const {
    if (kind != Kind::tensor) {
        std::string of = elem ? elem->to_string() : dtype_name(dtype);
        if (kind == Kind::map) return std::string("map of ") + dtype_name(key) + " to " + of;
        return (kind == Kind::sequence ? "sequence of " : "optional ") + of;
    }
    std::string s = dtype_name(dtype);
    if (!ranked) return s + "[...]";
    s += "[";
    for (std::size_t i = 0; i < dims.size(); ++i) s += (i ? ", " : "") + dims[i].to_string();
    return s + "]";
}

QUERN_INLINE const Attr* Attrs::find(std::string_view name) const noexcept {
    for (auto& [n, a] : v_)
        if (n == name) return &a;
    return nullptr;
}
QUERN_INLINE void Attrs::set(std::string name, Attr value) {
    auto it = std::lower_bound(v_.begin(), v_.end(), name, [](auto& e, const std::string& n) { return e.first < n; });
    if (it != v_.end() && it->first == name) it->second = std::move(value);
    else v_.emplace(it, std::move(name), std::move(value));
}
QUERN_INLINE void Attrs::erase(std::string_view name) {
    std::erase_if(v_, [&](auto& e) { return e.first == name; });
}
namespace detail {
template <class T>
T attr_as(const Attrs& a, std::string_view name, T otherwise, const char* what) {
    const Attr* p = a.find(name);
    if (!p) return otherwise;
    if (auto* v = std::get_if<T>(p)) return *v;
    // An empty list has no type of its own in the file.
    if constexpr (std::is_same_v<T, std::vector<float>>)
        if (auto* v = std::get_if<std::vector<std::int64_t>>(p); v && v->empty()) return {};
    raise(ErrorCode::invalid_model, "attribute '" + std::string(name) + "' must be " + what);
}
}  // namespace detail
QUERN_INLINE std::int64_t Attrs::i(std::string_view n, std::int64_t o) const { return detail::attr_as<std::int64_t>(*this, n, o, "an integer"); }
QUERN_INLINE float Attrs::f(std::string_view n, float o) const { return detail::attr_as<float>(*this, n, o, "a float"); }
QUERN_INLINE std::string Attrs::s(std::string_view n, std::string o) const { return detail::attr_as<std::string>(*this, n, std::move(o), "a string"); }
QUERN_INLINE std::vector<std::int64_t> Attrs::ints(std::string_view n, std::vector<std::int64_t> o) const { return detail::attr_as(*this, n, std::move(o), "a list of integers"); }
QUERN_INLINE std::vector<float> Attrs::floats(std::string_view n, std::vector<float> o) const { return detail::attr_as(*this, n, std::move(o), "a list of floats"); }
QUERN_INLINE std::vector<std::string> Attrs::strings(std::string_view n, std::vector<std::string> o) const { return detail::attr_as(*this, n, std::move(o), "a list of strings"); }
QUERN_INLINE Tensor Attrs::tensor(std::string_view n) const { return detail::attr_as(*this, n, Tensor(), "a tensor"); }
QUERN_INLINE std::shared_ptr<const Graph> Attrs::graph(std::string_view n) const { return detail::attr_as(*this, n, std::shared_ptr<const Graph>(), "a graph"); }
QUERN_INLINE std::shared_ptr<const Fact> Attrs::type(std::string_view n) const { return detail::attr_as(*this, n, std::shared_ptr<const Fact>(), "a type"); }

QUERN_INLINE std::string place_of(const Node& n) {
    return "node '" + n.name + "' (" + (n.origin.empty() ? std::string(n.op ? op_name(*n.op) : "?") : n.origin) + ")";
}

namespace detail {
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool moves_always = true;
#elif defined(__has_feature)
inline constexpr bool moves_always = __has_feature(address_sanitizer);
#else
inline constexpr bool moves_always = false;
#endif
/// Under AddressSanitizer every addition moves the list, so that a reference which was kept across one is found each time; of long lists, which
/// would take hours, some additions do.
template <class T>
void move_to_new_memory(std::vector<T>& list) {
    if constexpr (moves_always) {
        if (list.size() > 4096 && list.size() % 1024 != 0) return;
        std::vector<T> there;
        there.reserve(list.size() + 1);
        for (T& x : list) there.push_back(std::move(x));
        list.swap(there);
    }
}
}  // namespace detail

QUERN_INLINE ValueId Graph::add_value(std::string n, Fact f) {
    detail::move_to_new_memory(values);
    values.push_back(GraphValue{std::move(n), std::move(f), -1});
    return static_cast<ValueId>(values.size()) - 1;
}
QUERN_INLINE ValueId Graph::add_constant(std::string n, Tensor t) { return add_value(std::move(n), Fact::constant(std::move(t))); }
QUERN_INLINE NodeId Graph::add_node(const OpDef& op, std::string n, std::vector<ValueId> in, std::vector<ValueId> out, Attrs attrs) {
    auto id = static_cast<NodeId>(nodes.size());
    for (ValueId v : out)
        if (v != no_value) values[v].producer = id;
    detail::move_to_new_memory(nodes);
    nodes.push_back(Node{&op, std::move(n), {}, std::move(attrs), std::move(in), std::move(out)});
    return id;
}
QUERN_INLINE void Graph::remove_node(NodeId n) {
    for (ValueId v : nodes[n].out)
        if (v != no_value && values[v].producer == n) values[v].producer = -1;
    nodes[n] = Node{};
}
QUERN_INLINE void Graph::replace_uses(ValueId from, ValueId to) {
    for (auto& n : nodes)
        for (auto& v : n.in)
            if (v == from) v = to;
    for (auto& v : outputs)
        if (v == from) v = to;
}
QUERN_INLINE std::string Graph::fresh_name(std::string_view stem) const {
    return std::string(stem) + "~" + std::to_string(next_name_++);
}
QUERN_INLINE std::vector<int> Graph::use_counts() const {
    std::vector<int> c(values.size(), 0);
    for (auto& n : nodes)
        for (ValueId v : n.in)
            if (v != no_value) ++c[v];
    for (ValueId v : outputs) ++c[v];
    return c;
}
QUERN_INLINE std::vector<NodeId> Graph::order() const {
    // Depth first from each node in turn: the order of the ids wherever that is valid.
    const auto n = static_cast<NodeId>(nodes.size());
    std::vector<NodeId> order;
    std::vector<char> state(n, 0);  // 0 new, 1 on the stack, 2 done
    std::vector<std::pair<NodeId, std::size_t>> stack;
    order.reserve(n);
    for (NodeId s = 0; s < n; ++s) {
        if (!nodes[s].op || state[s]) continue;
        stack.emplace_back(s, 0);
        state[s] = 1;
        while (!stack.empty()) {
            auto& [id, next] = stack.back();
            if (next == nodes[id].in.size()) {
                state[id] = 2;
                order.push_back(id);
                stack.pop_back();
                continue;
            }
            ValueId v = nodes[id].in[next++];
            if (v == no_value) continue;
            NodeId p = values[v].producer;
            if (p < 0 || state[p] == 2) continue;
            if (state[p] == 1) raise(ErrorCode::invalid_model, "the graph has a cycle through " + place_of(nodes[p]));
            state[p] = 1;
            stack.emplace_back(p, 0);
        }
    }
    return order;
}
QUERN_INLINE void Graph::verify() const {
    auto bad = [&](const std::string& why) { raise(ErrorCode::internal, "graph '" + name + "' is inconsistent: " + why); };
    auto nv = static_cast<ValueId>(values.size());
    std::vector<NodeId> made(values.size(), -1);
    for (NodeId i = 0; i < static_cast<NodeId>(nodes.size()); ++i) {
        const Node& n = nodes[i];
        if (!n.op) continue;
        for (ValueId v : n.in) {
            if (v == no_value) continue;
            if (v < 0 || v >= nv) bad(place_of(n) + " reads a value that does not exist");
            if (values[v].producer >= 0 && !nodes[values[v].producer].op) bad(place_of(n) + " reads '" + values[v].name + "' of a removed node");
        }
        for (ValueId v : n.out) {
            if (v == no_value) continue;
            if (v < 0 || v >= nv) bad(place_of(n) + " writes a value that does not exist");
            if (made[v] >= 0) bad("'" + values[v].name + "' is made twice");
            if (values[v].producer != i) bad("'" + values[v].name + "' does not know its producer " + place_of(n));
            made[v] = i;
        }
    }
    std::unordered_set<ValueId> ins(inputs.begin(), inputs.end());
    std::vector<int> uses = use_counts();
    for (ValueId v = 0; v < nv; ++v)
        if (uses[v] && made[v] < 0 && !values[v].fact.is_const() && !ins.count(v))
            bad("'" + values[v].name + "' is used but nothing makes it");
    for (ValueId v : outputs)
        if (v < 0 || v >= nv) bad("an output does not exist");
    order();
}

QUERN_END
