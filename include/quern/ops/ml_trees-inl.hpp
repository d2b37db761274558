// TreeEnsemble, TreeEnsembleClassifier, TreeEnsembleRegressor: https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html and theirs.
#pragma once
#include <algorithm>

#include "ml_common.hpp"
#include <quern/kernels/ml/trees.hpp>

QUERN_BEGIN
namespace ops_ml_trees {
using namespace ops_ml;
using Ints = std::vector<std::int64_t>;

inline void need_length(std::string_view name, std::size_t have, std::size_t want) {
    if (have != want)
        raise(ErrorCode::invalid_model, "attribute '" + std::string(name) + "' has " + std::to_string(have) + " elements; accepted: " + std::to_string(want));
}

/// Nodes by (tree, node) of the attributes that revisions 1 and 3 have, with the lists of `leaf` ("class" or "target").
struct Nodes {
    struct Key { std::int64_t tree, node; std::size_t at; };
    std::vector<Key> keys;  // sorted
    std::size_t find(std::int64_t tree, std::int64_t node) const {
        auto it = std::lower_bound(keys.begin(), keys.end(), 0, [&](const Key& k, int) { return k.tree != tree ? k.tree < tree : k.node < node; });
        if (it == keys.end() || it->tree != tree || it->node != node)
            raise(ErrorCode::invalid_model, "tree " + std::to_string(tree) + " has no node " + std::to_string(node));
        return it->at;
    }
};
inline trees::Mode mode_of(const std::string& s, bool& leaf) {
    constexpr const char* names[] = {"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"};
    leaf = s == "LEAF";
    if (leaf) return trees::Mode::leq;
    for (int i = 0; i < 6; ++i)
        if (s == names[i]) return static_cast<trees::Mode>(i);
    raise(ErrorCode::invalid_model, "nodes_modes holds '" + s + "'; accepted: BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, BRANCH_NEQ, LEAF");
}
inline trees::Source read_keyed(const Attrs& a, const std::string& leaf, std::int64_t targets) {
    const Ints no_ints;
    const std::vector<std::string> no_words;
    auto& tree = list<std::int64_t>(a, "nodes_treeids", no_ints);
    auto& node = list<std::int64_t>(a, "nodes_nodeids", no_ints);
    auto& feature = list<std::int64_t>(a, "nodes_featureids", no_ints);
    auto& yes = list<std::int64_t>(a, "nodes_truenodeids", no_ints);
    auto& no = list<std::int64_t>(a, "nodes_falsenodeids", no_ints);
    auto& missing = list<std::int64_t>(a, "nodes_missing_value_tracks_true", no_ints);
    auto& modes = list<std::string>(a, "nodes_modes", no_words);
    const std::vector<double> values = doubles(a, "nodes_values");
    const std::size_t n = tree.size();
    need_length("nodes_nodeids", node.size(), n);
    need_length("nodes_featureids", feature.size(), n);
    need_length("nodes_truenodeids", yes.size(), n);
    need_length("nodes_falsenodeids", no.size(), n);
    need_length("nodes_modes", modes.size(), n);
    need_length("nodes_values", values.size(), n);
    if (!missing.empty()) need_length("nodes_missing_value_tracks_true", missing.size(), n);

    Nodes nodes;
    nodes.keys.reserve(n);
    for (std::size_t i = 0; i < n; ++i) nodes.keys.push_back({tree[i], node[i], i});
    std::sort(nodes.keys.begin(), nodes.keys.end(), [](auto& x, auto& y) { return x.tree != y.tree ? x.tree < y.tree : x.node < y.node; });
    for (std::size_t i = 1; i < n; ++i)
        if (nodes.keys[i].tree == nodes.keys[i - 1].tree && nodes.keys[i].node == nodes.keys[i - 1].node)
            raise(ErrorCode::invalid_model, "tree " + std::to_string(nodes.keys[i].tree) + " has two nodes " + std::to_string(nodes.keys[i].node));

    trees::Source s;
    s.targets = targets;
    std::vector<char> is_leaf(n), has_parent(n);
    Ints number(n);  // among leaves, or among splits
    std::int64_t leaves = 0, splits = 0;
    for (std::size_t i = 0; i < n; ++i) {
        bool l;
        mode_of(modes[i], l);
        is_leaf[i] = l;
        number[i] = l ? leaves++ : splits++;
    }
    for (std::size_t i = 0; i < n; ++i) {
        if (is_leaf[i]) continue;
        trees::Split b;
        bool l;
        b.mode = mode_of(modes[i], l);
        b.feature = feature[i];
        b.value = values[i];
        b.missing_yes = !missing.empty() && missing[i] != 0;
        const std::size_t y = nodes.find(tree[i], yes[i]), x = nodes.find(tree[i], no[i]);
        b.yes = number[y], b.yes_leaf = is_leaf[y] != 0;
        b.no = number[x], b.no_leaf = is_leaf[x] != 0;
        has_parent[y] = has_parent[x] = 1;
        s.splits.push_back(b);
    }
    for (std::size_t i = 0; i < n;) {
        std::size_t roots = 0;
        const std::int64_t id = nodes.keys[i].tree;
        for (; i < n && nodes.keys[i].tree == id; ++i) {
            const std::size_t k = nodes.keys[i].at;
            if (has_parent[k]) continue;
            ++roots;
            s.roots.push_back({number[k], is_leaf[k] != 0});
        }
        if (roots != 1) raise(ErrorCode::invalid_model, "tree " + std::to_string(id) + " has " + std::to_string(roots) + " nodes that no other leads to; accepted: 1, its root");
    }

    auto& weight_tree = list<std::int64_t>(a, leaf + "_treeids", no_ints);
    auto& weight_node = list<std::int64_t>(a, leaf + "_nodeids", no_ints);
    auto& weight_id = list<std::int64_t>(a, leaf + "_ids", no_ints);
    const std::vector<double> weights = doubles(a, leaf + "_weights");
    need_length(leaf + "_nodeids", weight_node.size(), weight_tree.size());
    need_length(leaf + "_ids", weight_id.size(), weight_tree.size());
    need_length(leaf + "_weights", weights.size(), weight_tree.size());
    std::vector<std::size_t> at(weights.size());
    s.leaf_begin.assign(static_cast<std::size_t>(leaves) + 1, 0);
    constexpr std::size_t nowhere = SIZE_MAX;  // weights of branches mean nothing
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const std::size_t k = nodes.find(weight_tree[i], weight_node[i]);
        at[i] = is_leaf[k] ? static_cast<std::size_t>(number[k]) : nowhere;
        if (at[i] != nowhere) ++s.leaf_begin[at[i] + 1];
    }
    for (std::size_t i = 1; i < s.leaf_begin.size(); ++i) s.leaf_begin[i] += s.leaf_begin[i - 1];
    s.weights.resize(s.leaf_begin.back());
    std::vector<std::size_t> next(s.leaf_begin.begin(), s.leaf_begin.end() - 1);
    for (std::size_t i = 0; i < weights.size(); ++i)
        if (at[i] != nowhere) s.weights[next[at[i]]++] = {weight_id[i], weights[i]};
    return s;
}

inline std::int64_t targets_of(const Attrs& a) {
    const std::int64_t n = a.i("n_targets", 1);
    if (n < 1 || n > (1 << 28)) raise(ErrorCode::invalid_model, "n_targets is " + std::to_string(n) + "; accepted: 1 to 2^28");
    return n;
}
inline trees::Source read_indexed(const Attrs& a) {
    const Ints none;
    auto& feature = list<std::int64_t>(a, "nodes_featureids", none);
    auto& yes = list<std::int64_t>(a, "nodes_truenodeids", none);
    auto& no = list<std::int64_t>(a, "nodes_falsenodeids", none);
    auto& yes_leaf = list<std::int64_t>(a, "nodes_trueleafs", none);
    auto& no_leaf = list<std::int64_t>(a, "nodes_falseleafs", none);
    auto& missing = list<std::int64_t>(a, "nodes_missing_value_tracks_true", none);
    auto& targets = list<std::int64_t>(a, "leaf_targetids", none);
    for (auto* name : {"nodes_modes", "nodes_splits", "leaf_weights"})
        if (!a.tensor(name).defined()) raise(ErrorCode::invalid_model, std::string("the attribute '") + name + "' is missing");
    const Tensor modes = a.tensor("nodes_modes");
    if (modes.dtype() != DType::u8) raise(ErrorCode::invalid_model, std::string("nodes_modes is a tensor of ") + dtype_name(modes.dtype()) + "; accepted: uint8");
    const std::vector<double> values = doubles(a.tensor("nodes_splits"), "nodes_splits"), weights = doubles(a.tensor("leaf_weights"), "leaf_weights");
    std::vector<double> members;
    if (Tensor t = a.tensor("membership_values"); t.defined()) members = doubles(t, "membership_values");
    const std::size_t n = feature.size();
    need_length("nodes_truenodeids", yes.size(), n);
    need_length("nodes_falsenodeids", no.size(), n);
    need_length("nodes_trueleafs", yes_leaf.size(), n);
    need_length("nodes_falseleafs", no_leaf.size(), n);
    need_length("nodes_modes", static_cast<std::size_t>(modes.count()), n);
    need_length("nodes_splits", values.size(), n);
    need_length("leaf_weights", weights.size(), targets.size());
    if (!missing.empty()) need_length("nodes_missing_value_tracks_true", missing.size(), n);

    trees::Source s;
    s.targets = targets_of(a);
    const std::int64_t aggregate = a.i("aggregate_function", 1);
    if (aggregate < 0 || aggregate > 3) raise(ErrorCode::invalid_model, "aggregate_function is " + std::to_string(aggregate) + "; accepted: 0 to 3");
    s.aggregate = static_cast<trees::Aggregate>(aggregate);
    auto member = members.begin();
    for (std::size_t i = 0; i < n; ++i) {
        const unsigned mode = modes.data<std::uint8_t>()[i];
        if (mode > 6) raise(ErrorCode::invalid_model, "nodes_modes holds " + std::to_string(mode) + "; accepted: 0 to 6");
        trees::Split b{feature[i], values[i], static_cast<trees::Mode>(mode), !missing.empty() && missing[i] != 0, yes_leaf[i] != 0, no_leaf[i] != 0, yes[i], no[i]};
        if (b.mode == trees::Mode::member) {  // its members come next, up to a NaN
            b.members = static_cast<int>(s.sets.size());
            auto end = std::find_if(member, members.end(), [](double v) { return v != v; });
            if (end == members.end()) raise(ErrorCode::invalid_model, "membership_values has fewer sets (each ended by NaN) than nodes_modes has BRANCH_MEMBER");
            s.sets.emplace_back(member, end);
            std::sort(s.sets.back().begin(), s.sets.back().end());
            member = end + 1;
        }
        s.splits.push_back(b);
    }
    for (std::size_t i = 0; i < targets.size(); ++i) {
        s.leaf_begin.push_back(i);
        s.weights.push_back({targets[i], weights[i]});
    }
    s.leaf_begin.push_back(targets.size());
    for (std::int64_t r : list<std::int64_t>(a, "tree_roots", none)) {
        if (r < 0 || r >= static_cast<std::int64_t>(n)) raise(ErrorCode::invalid_model, "tree_roots holds " + std::to_string(r) + "; accepted: 0 to " + std::to_string(static_cast<std::int64_t>(n) - 1));
        const trees::Split& b = s.splits[static_cast<std::size_t>(r)];
        if (b.yes_leaf && b.no_leaf && b.yes == b.no) s.roots.push_back({b.yes, true});  // how a tree of one leaf is written
        else s.roots.push_back({r, false});
    }
    return s;
}

inline std::int64_t most_feature(const Attrs& a) {
    const Ints none;
    std::int64_t most = -1;
    for (std::int64_t f : list<std::int64_t>(a, "nodes_featureids", none)) most = std::max(most, f);
    return most;
}
inline void import_trees(ImportCtx& ctx) {
    cast_to_float(ctx, DType::f64);
    for (const char* unused : {"nodes_hitrates", "nodes_hitrates_as_tensor"}) ctx.attrs.erase(unused);
}

inline ml::Labels class_labels(const Attrs& a) { return labels_of(a, "classlabels_int64s", "classlabels_strings"); }
QUERN_INLINE void infer_classifier(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32, DType::f64});
    ml::Labels l = class_labels(ctx.attrs);
    if (l.count() == 0) raise(ErrorCode::invalid_model, "neither classlabels_int64s nor classlabels_strings is set");
    post_of(ctx.attrs);
    set_classes(ctx, l.text(), l.count());
}
QUERN_INLINE Lowered lower_classifier(const LowerCtx& ctx) {
    const Attrs& a = ctx.attrs;
    trees::Finish f;
    f.classifies = true;
    f.labels = class_labels(a);
    f.post = post_of(a);
    f.base = doubles(a, "base_values");
    const std::int64_t classes = f.labels.count();
    f.columns = classes;
    if (!f.base.empty() && f.base.size() != 1 && static_cast<std::int64_t>(f.base.size()) != classes) need_length("base_values", f.base.size(), static_cast<std::size_t>(classes));
    trees::Source s = read_keyed(a, "class", classes);
    f.scored.assign(static_cast<std::size_t>(classes), 0);
    std::size_t named = 0;
    f.positive = true;
    for (auto& w : s.weights) {
        if (w.target >= 0 && w.target < classes) named += !f.scored[static_cast<std::size_t>(w.target)], f.scored[static_cast<std::size_t>(w.target)] = 1;
        f.positive = f.positive && w.value >= 0;
    }
    f.binary = classes == 2 && named <= 1;
    if (f.binary) {  // whichever class the weights name, the score speaks of the second
        s.targets = 1;
        for (auto& w : s.weights)
            if (w.target == 1) w.target = 0;
    }
    if (f.base.size() > 1) f.scored.clear();
    return trees::make(s, std::move(f), ctx.in(0).dtype);
}

QUERN_INLINE void infer_regressor(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32, DType::f64});
    post_of(ctx.attrs);
    set_scores(ctx, DType::f32, targets_of(ctx.attrs));
}
QUERN_INLINE Lowered lower_regressor(const LowerCtx& ctx) {
    const Attrs& a = ctx.attrs;
    trees::Source s = read_keyed(a, "target", targets_of(a));
    std::string aggregate = a.s("aggregate_function", "SUM");
    constexpr const char* names[] = {"AVERAGE", "SUM", "MIN", "MAX"};
    auto it = std::find(std::begin(names), std::end(names), aggregate);
    if (it == std::end(names)) raise(ErrorCode::invalid_model, "aggregate_function '" + aggregate + "'; accepted: AVERAGE, SUM, MIN, MAX");
    s.aggregate = static_cast<trees::Aggregate>(it - std::begin(names));
    trees::Finish f;
    f.post = post_of(a);
    f.base = doubles(a, "base_values");
    f.columns = s.targets;
    if (!f.base.empty() && f.base.size() != 1) need_length("base_values", f.base.size(), static_cast<std::size_t>(s.targets));
    return trees::make(s, std::move(f), ctx.in(0).dtype);
}

QUERN_INLINE void infer_ensemble(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16});
    const std::int64_t post = ctx.attrs.i("post_transform", 0);
    if (post < 0 || post > 4) raise(ErrorCode::invalid_model, "post_transform is " + std::to_string(post) + "; accepted: 0 to 4");
    need_features(ctx, std::min(most_feature(ctx.attrs), INT64_MAX - 1) + 1, false);
    set_scores(ctx, ctx.in(0).dtype, targets_of(ctx.attrs));
}
QUERN_INLINE Lowered lower_ensemble(const LowerCtx& ctx) {
    trees::Source s = read_indexed(ctx.attrs);
    trees::Finish f;
    f.post = static_cast<ml::Post>(ctx.attrs.i("post_transform", 0));
    f.columns = s.targets;
    return trees::make(s, std::move(f), ctx.in(0).dtype);
}

}  // namespace ops_ml_trees

QUERN_INLINE const OpDef& op_ai_onnx_ml_TreeEnsembleClassifier() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "TreeEnsembleClassifier", .min_in = 1, .max_in = 1, .max_out = 2, .newest = 3,
                               .import = ops_ml_trees::import_trees, .infer = ops_ml_trees::infer_classifier, .lower = ops_ml_trees::lower_classifier};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_TreeEnsembleRegressor() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "TreeEnsembleRegressor", .min_in = 1, .max_in = 1, .newest = 3,
                               .import = ops_ml_trees::import_trees, .infer = ops_ml_trees::infer_regressor, .lower = ops_ml_trees::lower_regressor};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_TreeEnsemble() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "TreeEnsemble", .min_in = 1, .max_in = 1, .newest = 5, .infer = ops_ml_trees::infer_ensemble,
                               .lower = ops_ml_trees::lower_ensemble, .compute = Compute::real};
    return def;
}
QUERN_END
