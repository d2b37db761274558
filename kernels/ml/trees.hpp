// Ensembles of decision trees.
//
// A tree is an array of nodes, breadth first, both children of a node side by side: one step is
// i = child(i) + (x > limit), without a branch. A leaf is its own child, so that several rows (or, for few rows, several trees) walk
// side by side until none of them moves: their loads overlap where one walk would wait for each.
#pragma once
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "scores.hpp"

QUERN_BEGIN
namespace trees {

/// The numbers are those of TreeEnsemble-5.
enum class Mode : std::uint8_t { leq, lt, gte, gt, eq, neq, member };
enum class Aggregate : std::uint8_t { average, sum, min, max };

/// A branch as the attributes give it. `yes` and `no` number splits, or leaves where the flag is set.
struct Split {
    std::int64_t feature = 0;
    double value = 0;
    Mode mode = Mode::leq;
    bool missing_yes = false;  ///< NaN takes `yes`
    bool yes_leaf = false, no_leaf = false;
    std::int64_t yes = 0, no = 0;
    int members = -1;  ///< member: the set's number
};
struct Weight { std::int64_t target; double value; };
struct Root { std::int64_t at; bool leaf; };
/// An ensemble before it is laid out. Indices may be anything: lay_out() checks them.
struct Source {
    std::vector<Split> splits;
    std::vector<std::vector<double>> sets;       ///< sorted
    std::vector<std::size_t> leaf_begin;         ///< leaf i has weights [leaf_begin[i], leaf_begin[i + 1])
    std::vector<Weight> weights;
    std::vector<Root> roots;
    std::int64_t targets = 1;
    Aggregate aggregate = Aggregate::sum;
};

/// 8 bytes: f32, orders only (x > limit goes right), up to 4,096 features and 2^19 nodes a tree.
struct Small {
    using Real = float;
    std::uint32_t limit;  ///< bits of a float; in a leaf a NaN that carries the leaf's number, so that no x is above it
    std::uint32_t link;   ///< child << 13 | NaN goes right << 12 | feature
    static constexpr std::uint32_t most_features = 1u << 12, most_nodes = 1u << 19, most_leaves = 1u << 22;
    std::uint32_t leaf() const noexcept { return limit & (most_leaves - 1); }
    template <bool Missing> std::uint32_t next(const float* x, const std::vector<std::vector<float>>&) const noexcept {
        const float v = x[link & (most_features - 1)];
        std::uint32_t right = v > std::bit_cast<float>(limit);
        if constexpr (Missing) right |= static_cast<std::uint32_t>(v != v) & (link >> 12 & 1u);
        return (link >> 13) + right;
    }
};
/// Every mode and size. Bit (x >= limit) + 2 (x <= limit) of `yes` says whether x takes the first child.
template <class T>
struct Wide {
    using Real = T;
    T limit;               ///< leaf: the bits are its number; member: the number of the set
    std::uint32_t feature : 27, yes : 4, member : 1;
    std::uint32_t child;
    static constexpr std::uint32_t most_features = 1u << 27, most_nodes = 0xffffffffu, most_leaves = 0xffffffffu;
    std::uint32_t leaf() const noexcept {
        std::uint32_t n;
        std::memcpy(&n, &limit, sizeof n);
        return n;
    }
    template <bool Missing> std::uint32_t next(const T* x, const std::vector<std::vector<T>>& sets) const noexcept {
        const T v = x[feature];
        unsigned order = static_cast<unsigned>(v >= limit) | static_cast<unsigned>(v <= limit) << 1;
        if (member) {
            auto& s = sets[static_cast<std::size_t>(limit)];
            order = v != v ? 0 : std::binary_search(s.begin(), s.end(), v) ? 3 : 1;
        }
        return child + (~(static_cast<unsigned>(yes) >> order) & 1u);
    }
};

/// An ensemble laid out for walking.
template <class Node>
struct Forest {
    using T = typename Node::Real;
    struct Entry { std::uint32_t target; T value; };
    struct Tree { std::size_t nodes, leaves; };  ///< where its nodes and leaves begin
    std::vector<Node> nodes;
    std::vector<Tree> trees;
    std::vector<std::uint32_t> leaf_begin;  ///< empty: leaf i has exactly entry i
    std::vector<Entry> entries;
    std::vector<std::vector<T>> sets;
    std::int64_t features = 0, targets = 1;  ///< features that are read: more than the highest number
    double steps = 0;                        ///< of a walk through all trees, on average over leaves
    Aggregate aggregate = Aggregate::sum;

    std::span<const Entry> leaf(std::size_t i) const noexcept {
        if (leaf_begin.empty()) return {entries.data() + i, 1};
        return {entries.data() + leaf_begin[i], leaf_begin[i + 1] - leaf_begin[i]};
    }
    std::size_t bytes() const noexcept {
        return nodes.size() * sizeof(Node) + trees.size() * sizeof(Tree) + leaf_begin.size() * 4 + entries.size() * sizeof(Entry);
    }
};

/// x <= value (or x < value) as x <= limit, for every x of type T that is a number. False where no limit does it.
template <class T>
bool as_limit(double value, bool strict, T& limit) {
    if (value != value) return false;
    limit = static_cast<T>(value);
    if (strict ? static_cast<double>(limit) >= value : static_cast<double>(limit) > value) {
        if (limit == -std::numeric_limits<T>::infinity()) return false;
        limit = std::nextafter(limit, -std::numeric_limits<T>::infinity());
    }
    return true;
}

inline Small make_node(const Split& s, const Small*) {
    const bool strict = s.mode == Mode::lt || s.mode == Mode::gte;
    float limit = 0;
    as_limit(s.value, strict, limit);
    const bool yes_right = s.mode == Mode::gt || s.mode == Mode::gte, nan_right = s.missing_yes == yes_right;
    return {std::bit_cast<std::uint32_t>(limit), static_cast<std::uint32_t>(s.feature) | static_cast<std::uint32_t>(nan_right) << 12};
}
/// Whether `no` is the first child.
inline bool swapped(const Split& s, const Small*) { return s.mode == Mode::gt || s.mode == Mode::gte; }
inline void set_child(Small& n, std::uint32_t c) { n.link |= c << 13; }
inline Small make_leaf(std::uint32_t number, const Small*) { return {0x7fc00000u | number, 0}; }
inline bool fits(const Split& s, const Small*) {
    float limit;
    return s.mode <= Mode::gt && as_limit(s.value, s.mode == Mode::lt || s.mode == Mode::gte, limit);
}

template <class T> Wide<T> make_node(const Split& s, const Wide<T>*) {
    constexpr unsigned none = 1, greater = 2, less = 4, equal = 8;  // bit `order` of next()
    unsigned yes = s.missing_yes ? none : 0;
    T limit = 0;
    const bool below = s.mode == Mode::leq || s.mode == Mode::lt, above = s.mode == Mode::gte || s.mode == Mode::gt;
    if (s.mode == Mode::member) {
        limit = static_cast<T>(s.members);
        yes |= equal;
    } else if (s.mode == Mode::neq || s.mode == Mode::eq) {
        limit = static_cast<T>(s.value);
        const bool exact = static_cast<double>(limit) == s.value;  // no x is equal to what T cannot hold
        if (!exact) limit = 0;
        if (s.mode == Mode::eq) yes |= exact ? equal : 0;
        else yes |= none | less | greater | (exact ? 0 : equal);
    } else if (as_limit(s.value, s.mode == Mode::lt || s.mode == Mode::gte, limit)) {
        yes |= below ? less | equal : greater;
    } else if (s.value == s.value && above) {
        yes |= less | greater | equal;  // x >= -infinity
    }
    Wide<T> n{};
    n.limit = limit;
    n.feature = static_cast<std::uint32_t>(s.feature) & (Wide<T>::most_features - 1);
    n.yes = yes;
    n.member = s.mode == Mode::member;
    return n;
}
template <class T> bool swapped(const Split&, const Wide<T>*) { return false; }
template <class T> void set_child(Wide<T>& n, std::uint32_t c) { n.child = c; }
template <class T> Wide<T> make_leaf(std::uint32_t number, const Wide<T>*) {
    Wide<T> n{};
    n.yes = 15;
    std::memcpy(&n.limit, &number, sizeof number);
    return n;
}
template <class T> bool fits(const Split&, const Wide<T>*) { return true; }

/// Lays an ensemble out for nodes of a kind; nothing where it does not fit that kind. Branches that nodes share (LightGBM's categories: x == a or
/// x == b or ... as a chain of nodes) become sets where they are such chains, and copies otherwise: 8 times the nodes at most, which
/// bounds cycles too. Raises invalid_model beyond that and for indices outside. Takes memory in proportion to `s`.
template <class Node>
class Layout {
public:
    Layout(const Source& s, Forest<Node>& f) : s_(s), f_(f), budget_(8 * (s.splits.size() + s.roots.size()) + 1024) {}
    bool run() {
        f_ = Forest<Node>{};
        f_.targets = s_.targets;
        f_.aggregate = s_.aggregate;
        for (auto& set : s_.sets) add_set(set);
        for (const Root& root : s_.roots)
            if (!tree(root)) return false;
        f_.features = std::max<std::int64_t>(f_.features, 1);  // a leaf looks at feature 0
        if (!one_each_) {
            if (f_.entries.size() >= 0xffffffffu) raise(ErrorCode::unsupported, "trees with more than 2^32 weights");
            f_.leaf_begin.assign(begin_.begin(), begin_.end());
            f_.leaf_begin.push_back(static_cast<std::uint32_t>(f_.entries.size()));
        }
        f_.nodes.shrink_to_fit();
        f_.entries.shrink_to_fit();
        return f_.sets.size() < (1u << 24);  // their numbers are kept as floats
    }

private:
    using T = typename Node::Real;
    static constexpr const Node* kind = nullptr;
    struct Item { std::int64_t at; bool leaf; std::uint32_t depth; };

    const Split& split(std::int64_t i) const {
        check("node", i, static_cast<std::int64_t>(s_.splits.size()));
        return s_.splits[static_cast<std::size_t>(i)];
    }
    static void check(const char* what, std::int64_t i, std::int64_t n) {
        if (i < 0 || i >= n) raise(ErrorCode::invalid_model, std::string("a tree refers to ") + what + " " + std::to_string(i) + "; there are " + std::to_string(n));
    }
    void spend() {
        if (budget_-- == 0) raise(ErrorCode::invalid_model, "the trees have a cycle, or share branches more than 8 times over");
    }
    int add_set(const std::vector<double>& set) {
        std::vector<T> v;
        for (double x : set)
            if (static_cast<double>(static_cast<T>(x)) == x) v.push_back(static_cast<T>(x));  // no x is equal to what T cannot hold
        std::sort(v.begin(), v.end());
        f_.sets.push_back(std::move(v));
        return static_cast<int>(f_.sets.size()) - 1;
    }
    /// The split that a chain x == a, else x == b, ... with one common branch amounts to.
    Split merged(const Split& first) {
        Split m = first;
        std::vector<double> set{first.value};
        while (m.mode == Mode::eq && !m.no_leaf) {
            const Split& next = split(m.no);
            if (next.mode != Mode::eq || next.feature != m.feature || next.yes != m.yes || next.yes_leaf != m.yes_leaf || next.missing_yes != m.missing_yes) break;
            spend();
            set.push_back(next.value);
            m.no = next.no, m.no_leaf = next.no_leaf;
        }
        if (set.size() > 1) m.mode = Mode::member, m.members = add_set(set);
        return m;
    }
    bool leaf(std::int64_t i, std::uint32_t own) {
        check("leaf", i, static_cast<std::int64_t>(s_.leaf_begin.size()) - 1);
        const auto number = static_cast<std::uint32_t>(begin_.size() - f_.trees.back().leaves);
        if (number >= Node::most_leaves) return false;
        Node node = make_leaf(number, kind);
        set_child(node, own);
        f_.nodes.push_back(node);
        begin_.push_back(f_.entries.size());
        const std::size_t from = s_.leaf_begin[static_cast<std::size_t>(i)], to = s_.leaf_begin[static_cast<std::size_t>(i) + 1];
        for (std::size_t e = from; e < to; ++e) {
            const Weight& w = s_.weights[e];
            if (w.target < 0 || w.target >= s_.targets)
                raise(ErrorCode::invalid_model, "a leaf has target or class " + std::to_string(w.target) + "; accepted: 0 to " + std::to_string(s_.targets - 1));
            spend_weight();
            const bool adds_nothing = w.value == 0 && (s_.aggregate == Aggregate::sum || s_.aggregate == Aggregate::average);
            if (adds_nothing && to - from > 1) continue;
            f_.entries.push_back({static_cast<std::uint32_t>(w.target), static_cast<T>(w.value)});
        }
        one_each_ = one_each_ && f_.entries.size() == begin_.back() + 1;
        return true;
    }
    void spend_weight() {
        if (++weights_ > 8 * s_.weights.size() + 1024) raise(ErrorCode::invalid_model, "the trees share leaves more than 8 times over");
    }
    bool tree(const Root& root) {
        order_.assign(1, {root.at, root.leaf, 0});
        f_.trees.push_back({f_.nodes.size(), begin_.size()});
        double depths = 0;
        for (std::size_t k = 0; k < order_.size(); ++k) {
            const Item it = order_[k];
            if (it.leaf) {
                if (!leaf(it.at, static_cast<std::uint32_t>(k))) return false;
                depths += it.depth;
                continue;
            }
            spend();
            const Split s = merged(split(it.at));
            if (s.feature < 0 || s.feature >= static_cast<std::int64_t>(Wide<float>::most_features))
                raise(ErrorCode::invalid_model, "a tree reads feature " + std::to_string(s.feature) + "; accepted: 0 to " + std::to_string(Wide<float>::most_features - 1));
            if (s.feature >= static_cast<std::int64_t>(Node::most_features) || order_.size() + 2 >= Node::most_nodes || !fits(s, kind)) return false;
            Node node = make_node(s, kind);
            set_child(node, static_cast<std::uint32_t>(order_.size()));
            f_.nodes.push_back(node);
            f_.features = std::max(f_.features, s.feature + 1);
            const Item yes{s.yes, s.yes_leaf, it.depth + 1}, no{s.no, s.no_leaf, it.depth + 1};
            order_.push_back(swapped(s, kind) ? no : yes);
            order_.push_back(swapped(s, kind) ? yes : no);
        }
        f_.steps += 1 + depths / static_cast<double>(std::max<std::size_t>(begin_.size() - f_.trees.back().leaves, 1));
        return true;
    }
    const Source& s_;
    Forest<Node>& f_;
    std::size_t budget_, weights_ = 0;
    std::vector<Item> order_;
    std::vector<std::size_t> begin_;  // of each leaf's entries
    bool one_each_ = true;
};
template <class Node> bool lay_out(const Source& s, Forest<Node>& f) { return Layout<Node>(s, f).run(); }

/// What becomes of a row's sums.
struct Finish {
    ml::Post post = ml::Post::none;
    std::vector<double> base;
    bool classifies = false;
    ml::Labels labels;
    bool binary = false;    ///< two classes, one score
    bool positive = false;  ///< no weight is negative: the score is a probability
    std::vector<char> scored;  ///< classes that some leaf names; empty: all
    std::int64_t columns = 1;  ///< of the scores

    /// `v[targets]`, aggregated, becomes row `r` of the outputs. Has room for two more.
    void row(double* v, std::int64_t targets, const View& label, const View& scores, std::int64_t r) const {
        if (!classifies) {
            add_base(v, targets);
            ml::transform(post, v, targets);
            return ml::write_scores(scores, r * columns, v, targets);
        }
        if (binary) return binary_row(v, label, scores, r);
        add_base(v, targets);
        if (targets == 1) {
            labels.write(label, r, v[0] > 0);
        } else {
            std::int64_t best = -1;
            for (std::int64_t c = 0; c < targets; ++c)
                if ((scored.empty() || scored[static_cast<std::size_t>(c)]) && (best < 0 || v[c] > v[best])) best = c;
            labels.write(label, r, std::max<std::int64_t>(best, 0));
        }
        ml::transform(post, v, targets);
        ml::write_scores(scores, r * columns, v, columns);
    }

private:
    void add_base(double* v, std::int64_t targets) const {
        if (static_cast<std::int64_t>(base.size()) == targets)
            for (std::int64_t c = 0; c < targets; ++c) v[c] += base[static_cast<std::size_t>(c)];
        else if (base.size() == 1) v[0] += base[0];
    }
    /// One score for two classes: above 1/2, or above 0 where weights are of both signs, it is the second.
    void binary_row(double* v, const View& label, const View& scores, std::int64_t r) const {
        double s = v[0];
        if (!base.empty()) s += base.back();
        labels.write(label, r, s > (positive ? 0.5 : 0.0));
        double two[2] = {positive ? 1 - s : -s, s};
        if (post == ml::Post::logistic && !positive) ml::transform(post, two, 2);
        if (post == ml::Post::probit) two[0] = ml::probit(1 - s), two[1] = ml::probit(s);
        ml::write_scores(scores, r * columns, two, columns);
    }
};

/// X [rows, features] (or one row) -> scores [rows, columns] as the last output, and before it the labels [rows] where it classifies.
/// Sums are made in double, in the order of the trees: tiles are ranges of rows and of trees that follow from their numbers alone.
template <class Node>
class Walk final : public Kernel {
public:
    using T = typename Node::Real;
    Walk(Forest<Node> f, Finish finish) : f_(std::move(f)), finish_(std::move(finish)) {}
    const char* name() const noexcept override { return sizeof(Node) == 8 ? "trees.portable" : "trees_wide.portable"; }
    std::size_t packed_bytes() const noexcept override { return f_.bytes(); }

    Booking book(std::span<const View> in, std::span<const View>, int workers) const override {
        const Split split = split_of(in[0]);
        const std::int64_t sums = split.groups > 1 ? split.groups * rows_of(in[0]) : workers * split.block;
        std::int64_t bytes;
        if (__builtin_mul_overflow(sums, stride() * 8, &bytes)) raise(ErrorCode::out_of_memory, "the sums of the trees do not fit into memory");
        return {static_cast<std::size_t>(bytes), nullptr};
    }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        const View label = finish_.classifies ? call.out[0] : View{}, scores = !finish_.classifies ? call.out[0] : call.out.size() > 1 ? call.out[1] : View{};
        const std::int64_t width = x.dim(-1), rows = rows_of(x);
        if (width < f_.features)
            raise(ErrorCode::shape_mismatch, "the trees read " + std::to_string(f_.features) + " features; the input has " + std::to_string(width));
        const Split split = split_of(x);
        const std::int64_t blocks = (rows + split.block - 1) / split.block, trees = static_cast<std::int64_t>(f_.trees.size());
        auto* sums = reinterpret_cast<double*>(call.scratch);
        auto finish = [&](double* v, std::int64_t r) {
            if (f_.aggregate == Aggregate::average)
                for (std::int64_t c = 0; c < f_.targets; ++c) v[c] /= static_cast<double>(std::max<std::int64_t>(trees, 1));
            if (f_.aggregate >= Aggregate::min)
                for (std::int64_t c = 0; c < f_.targets; ++c) v[c] = v[c] != v[c] ? 0 : v[c];
            finish_.row(v, f_.targets, label, scores, r);
        };
        call.workers.for_each(blocks * split.groups, [&](std::int64_t tile, int worker) {
            const std::int64_t group = tile % split.groups, begin = tile / split.groups * split.block, n = std::min(split.block, rows - begin);
            double* s = sums + (split.groups > 1 ? group * rows + begin : worker * split.block) * stride();
            const double empty = f_.aggregate >= Aggregate::min ? std::numeric_limits<double>::quiet_NaN() : 0;
            std::fill(s, s + n * stride(), empty);
            walk(x.in<T>() + begin * width, n, width, group * trees / split.groups, (group + 1) * trees / split.groups, s);
            for (std::int64_t r = 0; split.groups == 1 && r < n; ++r) finish(s + r * stride(), begin + r);
        });
        if (split.groups == 1) return;
        call.workers.ranges(rows, 64, [&](std::int64_t r, std::int64_t end) {
            for (; r < end; ++r) {
                double* v = sums + r * stride();
                for (std::int64_t g = 1; g < split.groups; ++g) {
                    const double* w = sums + (g * rows + r) * stride();
                    for (std::int64_t c = 0; c < f_.targets; ++c) v[c] = merged(v[c], w[c]);
                }
                finish(v, r);
            }
        });
    }

private:
    static constexpr int side = 8;  ///< walks side by side
    struct Split { std::int64_t block, groups; };
    static std::int64_t rows_of(const View& x) { return x.rank < 2 ? 1 : x.dims[0]; }
    std::int64_t stride() const noexcept { return f_.targets + 2; }
    Split split_of(const View& x) const {
        if (f_.trees.empty()) return {side, 1};
        // A tree is read once for each block: the larger the trees, the more rows.
        const auto tree = static_cast<std::int64_t>(f_.bytes() / f_.trees.size()), row = std::max<std::int64_t>(1, x.dim(-1)) * static_cast<std::int64_t>(sizeof(T));
        const std::int64_t fit = std::min(2 * std::max<std::int64_t>(tree, 16384) / row, 32768 / stride());
        const std::int64_t rows = rows_of(x), block = std::clamp<std::int64_t>(fit / side * side, side, 256), blocks = (rows + block - 1) / block;
        if (blocks == 0 || blocks >= 16) return {block, 1};
        const double tiles = static_cast<double>(rows) * f_.steps / 4096;  // some 10 us each
        return {block, std::clamp<std::int64_t>(static_cast<std::int64_t>(std::min(tiles, 64.0)) / blocks, 1, static_cast<std::int64_t>(f_.trees.size()))};
    }
    double merged(double a, double b) const noexcept {
        switch (f_.aggregate) {
            case Aggregate::min: return a <= b || b != b ? a : b;
            case Aggregate::max: return a >= b || b != b ? a : b;
            default: return a + b;
        }
    }
    void add(double* s, std::size_t leaf) const noexcept {
        auto entries = f_.leaf(leaf);
        if (f_.aggregate <= Aggregate::sum)
            for (auto& e : entries) s[e.target] += static_cast<double>(e.value);
        else
            for (auto& e : entries) s[e.target] = merged(s[e.target], static_cast<double>(e.value));
    }
    static bool any_missing(const T* x, std::int64_t n) {
        bool any = false;
        for (std::int64_t i = 0; i < n; ++i) any |= x[i] != x[i];
        return any;
    }
    void walk(const T* x, std::int64_t rows, std::int64_t width, std::int64_t from, std::int64_t to, double* s) const {
        if (any_missing(x, rows * width)) walk_as<true>(x, rows, width, from, to, s);
        else walk_as<false>(x, rows, width, from, to, s);
    }
    template <bool Missing>
    void walk_as(const T* x, std::int64_t rows, std::int64_t width, std::int64_t from, std::int64_t to, double* s) const {
        std::uint32_t at[side];
        if (rows < side) {
            for (std::int64_t r = 0; r < rows; ++r)
                for (std::int64_t t = from; t < to; t += side) {
                    const Node* tree[side];
                    for (int k = 0; k < side; ++k) tree[k] = f_.nodes.data() + f_.trees[static_cast<std::size_t>(std::min(t + k, to - 1))].nodes;
                    const T* row = x + r * width;
                    descend(at, [&](int k, std::uint32_t i) { return tree[k][i].template next<Missing>(row, f_.sets); });
                    for (int k = 0; k < side && t + k < to; ++k)
                        add(s + r * stride(), f_.trees[static_cast<std::size_t>(t + k)].leaves + tree[k][at[k]].leaf());
                }
            return;
        }
        for (std::int64_t t = from; t < to; ++t) {
            const auto& tree = f_.trees[static_cast<std::size_t>(t)];
            const Node* nodes = f_.nodes.data() + tree.nodes;
            for (std::int64_t r = 0; r < rows; r += side) {
                const T* row[side];
                for (int k = 0; k < side; ++k) row[k] = x + std::min(r + k, rows - 1) * width;
                descend(at, [&](int k, std::uint32_t i) { return nodes[i].template next<Missing>(row[k], f_.sets); });
                for (int k = 0; k < side && r + k < rows; ++k) add(s + (r + k) * stride(), tree.leaves + nodes[at[k]].leaf());
            }
        }
    }
    template <class Next>
    static void descend(std::uint32_t (&at)[side], Next&& next) {
        std::uint32_t i[side] = {}, moved;
        do {
            moved = 0;
            for (int k = 0; k < side; ++k) {
                const std::uint32_t to = next(k, i[k]);
                moved |= to ^ i[k];
                i[k] = to;
            }
        } while (moved);
        for (int k = 0; k < side; ++k) at[k] = i[k];
    }
    Forest<Node> f_;
    Finish finish_;
};

/// The kernel for an ensemble whose input is f32 or f64.
inline std::unique_ptr<Kernel> make(const Source& s, Finish finish, DType input) {
    auto with = [&](auto&& forest) -> std::unique_ptr<Kernel> {
        using Node = typename std::decay_t<decltype(forest.nodes)>::value_type;
        if (!lay_out(s, forest)) return nullptr;
        return std::make_unique<Walk<Node>>(std::move(forest), std::move(finish));
    };
    std::unique_ptr<Kernel> k = input == DType::f64 ? with(Forest<Wide<double>>{}) : with(Forest<Small>{});
    if (!k && input != DType::f64) k = with(Forest<Wide<float>>{});
    if (!k) raise(ErrorCode::unsupported, "trees with more than 2^24 sets of members or 2^32 nodes a tree");
    return k;
}

}  // namespace trees
QUERN_END
