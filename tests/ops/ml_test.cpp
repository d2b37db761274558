// ai.onnx.ml against references written here in double, by walking the attributes as the specification reads.
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include <quern/base/mapped_file.hpp>
#include <quern/value.hpp>

#include "../support/op_test.hpp"

namespace {
using namespace quern_test;
using quern::Shape;
using Attribute = quern::onnx::Attribute;

constexpr const char* ml = "ai.onnx.ml";
constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

/// Attributes own nothing: what they refer to lives here until the test ends.
struct Keeper {
    std::deque<std::string> text;
    std::deque<Tensor> tensors;
    std::deque<quern::onnx::TensorProto> protos;
    Attribute ints(std::string_view name, std::vector<std::int64_t> v) { Attribute a; a.name = name, a.type = 7, a.ints.assign(v.begin(), v.end()); return a; }
    Attribute floats(std::string_view name, std::vector<float> v) { Attribute a; a.name = name, a.type = 6, a.floats = std::move(v); return a; }
    Attribute strings(std::string_view name, std::vector<std::string> v) {
        Attribute a;
        a.name = name, a.type = 8;
        for (auto& s : v) a.strings.push_back(text.emplace_back(s));
        return a;
    }
    Attribute i(std::string_view name, std::int64_t v) { Attribute a; a.name = name, a.type = 2, a.i = v; return a; }
    Attribute f(std::string_view name, float v) { Attribute a; a.name = name, a.type = 1, a.f = v; return a; }
    Attribute s(std::string_view name, std::string v) { Attribute a; a.name = name, a.type = 3, a.s = text.emplace_back(std::move(v)); return a; }
    Attribute t(std::string_view name, Tensor v) {
        Attribute a;
        a.name = name, a.type = 4;
        a.t = std::make_shared<quern::onnx::TensorProto>(quern::onnx::to_proto(tensors.emplace_back(std::move(v)), name));
        return a;
    }
};
std::vector<Tensor> run(const std::string& op, std::vector<Tensor> in, std::vector<Attribute> attrs, int outputs = 1, std::int64_t opset = 3, int threads = 1) {
    ModelBuilder b(20);
    b.domain(ml, opset);
    std::vector<std::string> names, outs;
    std::vector<quern::NamedTensor> feeds;
    for (std::size_t i = 0; i < in.size(); ++i) {
        names.push_back("in" + std::to_string(i));
        std::vector<std::string> dims;
        for (std::size_t d = 0; d < in[i].shape().rank(); ++d) dims.push_back("d" + std::to_string(i) + "_" + std::to_string(d));
        b.input(names[i], in[i].dtype(), dims);
        feeds.emplace_back(names[i], in[i]);
    }
    for (int o = 0; o < outputs; ++o) outs.push_back("out" + std::to_string(o));
    b.node(op, names, outs, std::move(attrs), ml);
    for (auto& o : outs) b.output(o);
    return b.run(feeds, {.threads = threads});
}
quern::ErrorCode code_of(const std::string& op, std::vector<Tensor> in, std::vector<Attribute> attrs, int outputs = 1, std::int64_t opset = 3) {
    try {
        run(op, std::move(in), std::move(attrs), outputs, opset);
    } catch (const quern::Error& e) {
        EXPECT_NE(std::string(e.what()).find(op), std::string::npos) << e.what();
        return e.code();
    }
    ADD_FAILURE() << "no error";
    return quern::ErrorCode::internal;
}
Tensor words(Shape s, std::vector<std::string> v) { return Tensor::from_strings(v, std::move(s)); }

/// A random ensemble as the attributes of revisions 1 and 3, and its plain meaning.
struct Ensemble {
    std::vector<std::int64_t> tree, node, feature, yes, no, missing, leaf_tree, leaf_node, leaf_id;
    std::vector<float> value, weight;
    std::vector<std::string> mode;
    std::map<std::pair<std::int64_t, std::int64_t>, std::size_t> at;
    std::map<std::pair<std::int64_t, std::int64_t>, std::vector<std::pair<std::int64_t, float>>> leaves;
    int trees = 0;

    std::int64_t grow(std::mt19937& r, int depth, int features, int targets, const std::vector<std::string>& modes, std::int64_t& next, bool dense) {
        const std::int64_t id = next++;
        const std::size_t k = tree.size();
        tree.push_back(trees), node.push_back(id), feature.push_back(0), yes.push_back(0), no.push_back(0), missing.push_back(0), value.push_back(0), mode.push_back("LEAF");
        at[{trees, id}] = k;
        if (depth == 0 || r() % 5 == 0) {
            for (int t = 0; t < targets; ++t) {
                if (!dense && t != static_cast<int>(r() % static_cast<unsigned>(targets)) && t) continue;
                const float w = static_cast<float>(static_cast<int>(r() % 2001) - 1000) / 500;
                leaf_tree.push_back(trees), leaf_node.push_back(id), leaf_id.push_back(t), weight.push_back(w);
                leaves[{trees, id}].push_back({t, w});
            }
            return id;
        }
        feature[k] = static_cast<std::int64_t>(r() % static_cast<unsigned>(features));
        value[k] = static_cast<float>(static_cast<int>(r() % 9) - 4) / 2;  // few values, so that equality happens
        missing[k] = r() % 2;
        mode[k] = modes[r() % modes.size()];
        const std::int64_t a = grow(r, depth - 1, features, targets, modes, next, dense), b = grow(r, depth - 1, features, targets, modes, next, dense);
        yes[k] = a, no[k] = b;
        return id;
    }
    Ensemble(unsigned seed, int n_trees, int depth, int features, int targets, const std::vector<std::string>& modes, bool dense = true) {
        std::mt19937 r(seed);
        for (; trees < n_trees; ++trees) {
            std::int64_t next = 0;
            grow(r, depth, features, targets, modes, next, dense);
        }
    }
    static bool holds(const std::string& m, double x, double v) {
        if (m == "BRANCH_LEQ") return x <= v;
        if (m == "BRANCH_LT") return x < v;
        if (m == "BRANCH_GTE") return x >= v;
        if (m == "BRANCH_GT") return x > v;
        if (m == "BRANCH_EQ") return x == v;
        return x != v;
    }
    const std::vector<std::pair<std::int64_t, float>>& leaf(std::int64_t t, const double* x) {
        std::int64_t id = 0;
        for (;;) {
            const std::size_t k = at[{t, id}];
            if (mode[k] == "LEAF") return leaves[{t, id}];
            const double v = x[feature[k]];
            id = holds(mode[k], v, static_cast<double>(value[k])) || (v != v && missing[k]) ? yes[k] : no[k];
        }
    }
    std::vector<Attribute> attributes(Keeper& k, const std::string& stem) const {
        return {k.ints("nodes_treeids", tree), k.ints("nodes_nodeids", node), k.ints("nodes_featureids", feature), k.ints("nodes_truenodeids", yes),
                k.ints("nodes_falsenodeids", no), k.ints("nodes_missing_value_tracks_true", missing), k.floats("nodes_values", value), k.strings("nodes_modes", mode),
                k.ints(stem + "_treeids", leaf_tree), k.ints(stem + "_nodeids", leaf_node), k.ints(stem + "_ids", leaf_id), k.floats(stem + "_weights", weight)};
    }
};
/// Names of attributes must outlive them too.
std::vector<Attribute> target_attributes(Keeper& k, const Ensemble& e) {
    auto a = e.attributes(k, "target");
    const char* names[] = {"target_treeids", "target_nodeids", "target_ids", "target_weights"};
    for (int i = 0; i < 4; ++i) a[8 + static_cast<std::size_t>(i)].name = names[i];
    return a;
}
std::vector<Attribute> class_attributes(Keeper& k, const Ensemble& e) {
    auto a = e.attributes(k, "class");
    const char* names[] = {"class_treeids", "class_nodeids", "class_ids", "class_weights"};
    for (int i = 0; i < 4; ++i) a[8 + static_cast<std::size_t>(i)].name = names[i];
    return a;
}
std::vector<float> inputs(unsigned seed, std::int64_t n, bool with_nan) {
    std::mt19937 r(seed);
    std::vector<float> v;
    for (std::int64_t i = 0; i < n; ++i) v.push_back(with_nan && r() % 7 == 0 ? nan : r() % 31 == 0 ? (r() % 2 ? inf : -inf) : static_cast<float>(static_cast<int>(r() % 17) - 8) / 4);
    return v;
}

const std::vector<std::string> orders{"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"};
const std::vector<std::string> all_modes{"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"};

/// Sums over every combination of: node modes (small and wide nodes), rows (trees side by side, rows side by side, several blocks), NaN, type.
TEST(Trees, RegressorSumsAgreeWithPlainWalk) {
    for (auto& modes : {std::vector<std::string>{"BRANCH_LEQ"}, orders, all_modes})
        for (int targets : {1, 3})
            for (std::int64_t rows : {1, 5, 8, 70, 150})
                for (bool with_nan : {false, true})
                    for (bool doubles : {false, true}) {
                        Keeper k;
                        Ensemble e(static_cast<unsigned>(rows) + 7, 21, 6, 9, targets, modes, targets == 1);
                        auto attrs = target_attributes(k, e);
                        attrs.push_back(k.i("n_targets", targets));
                        std::vector<float> base(static_cast<std::size_t>(targets), 0.5f);
                        attrs.push_back(k.floats("base_values", base));
                        auto x = inputs(static_cast<unsigned>(rows), rows * 9, with_nan);
                        std::vector<double> xd(x.begin(), x.end());
                        std::vector<float> want;
                        for (std::int64_t r = 0; r < rows; ++r) {
                            std::vector<double> sum(static_cast<std::size_t>(targets), 0.5);
                            for (int t = 0; t < e.trees; ++t)
                                for (auto& [id, w] : e.leaf(t, xd.data() + r * 9)) sum[static_cast<std::size_t>(id)] += static_cast<double>(w);
                            for (double s : sum) want.push_back(static_cast<float>(s));
                        }
                        auto got = run("TreeEnsembleRegressor", {doubles ? t<double>({rows, 9}, xd) : floats({rows, 9}, x)}, attrs);
                        expect_near(got[0], floats({rows, targets}, want), 1e-6, 1e-6);
                    }
}

TEST(Trees, Aggregates) {
    for (std::string how : {"AVERAGE", "MIN", "MAX"}) {
        Keeper k;
        Ensemble e(3, 11, 4, 4, 2, orders, false);
        auto attrs = target_attributes(k, e);
        attrs.push_back(k.i("n_targets", 2));
        attrs.push_back(k.s("aggregate_function", how));
        auto x = inputs(4, 40 * 4, true);
        std::vector<double> xd(x.begin(), x.end());
        std::vector<float> want;
        for (int r = 0; r < 40; ++r) {
            double v[2] = {0, 0};
            bool seen[2] = {false, false};
            for (int t = 0; t < e.trees; ++t)
                for (auto& [id, w] : e.leaf(t, xd.data() + r * 4)) {
                    const double d = static_cast<double>(w);
                    if (how == "AVERAGE") v[id] += d;
                    else if (!seen[id]) v[id] = d;
                    else v[id] = how == "MIN" ? std::min(v[id], d) : std::max(v[id], d);
                    seen[id] = true;
                }
            for (double d : v) want.push_back(static_cast<float>(how == "AVERAGE" ? d / e.trees : d));
        }
        expect_near(run("TreeEnsembleRegressor", {floats({40, 4}, x)}, attrs)[0], floats({40, 2}, want), 1e-6, 1e-6);
    }
}

/// Tiles over trees exist for few rows and much work only: the same bits with any number of threads.
TEST(Trees, SameBitsWithAnyNumberOfThreads) {
    Keeper k;
    Ensemble e(5, 900, 8, 20, 3, orders);
    auto attrs = target_attributes(k, e);
    attrs.push_back(k.i("n_targets", 3));
    for (std::int64_t rows : {1, 3, 100}) {
        auto x = inputs(6, rows * 20, false);
        auto one = run("TreeEnsembleRegressor", {floats({rows, 20}, x)}, attrs, 1, 3, 1)[0];
        auto four = run("TreeEnsembleRegressor", {floats({rows, 20}, x)}, attrs, 1, 3, 4)[0];
        EXPECT_EQ(0, std::memcmp(one.raw(), four.raw(), one.bytes()));
        std::vector<double> xd(x.begin(), x.end()), sum(3);
        for (int t = 0; t < e.trees; ++t)
            for (auto& [id, w] : e.leaf(t, xd.data())) sum[static_cast<std::size_t>(id)] += static_cast<double>(w);
        for (int c = 0; c < 3; ++c) EXPECT_NEAR(one.data<float>()[c], sum[static_cast<std::size_t>(c)], 1e-4);
    }
}

TEST(Trees, ClassifierLabelsAndScores) {
    Keeper k;
    Ensemble e(8, 15, 5, 6, 3, orders);
    auto attrs = class_attributes(k, e);
    attrs.push_back(k.strings("classlabels_strings", {"red", "green", "blue"}));
    attrs.push_back(k.s("post_transform", "SOFTMAX"));
    auto x = inputs(9, 30 * 6, false);
    std::vector<double> xd(x.begin(), x.end());
    auto got = run("TreeEnsembleClassifier", {floats({30, 6}, x)}, attrs, 2);
    const char* names[] = {"red", "green", "blue"};
    for (int r = 0; r < 30; ++r) {
        double s[3] = {0, 0, 0};
        for (int t = 0; t < e.trees; ++t)
            for (auto& [id, w] : e.leaf(t, xd.data() + r * 6)) s[id] += static_cast<double>(w);
        int best = static_cast<int>(std::max_element(s, s + 3) - s);
        EXPECT_EQ(got[0].strings()[static_cast<std::size_t>(r)], names[best]);
        double sum = 0;
        for (double v : s) sum += std::exp(v - s[best]);
        for (int c = 0; c < 3; ++c) EXPECT_NEAR(got[1].data<float>()[static_cast<std::size_t>(r * 3 + c)], std::exp(s[c] - s[best]) / sum, 1e-6);
    }
}

/// One score for two classes: a probability where all weights are positive, else a margin.
TEST(Trees, BinaryClassifier) {
    Keeper k;
    auto stump = [&](float low, float high, std::int64_t id) {
        return std::vector<Attribute>{k.ints("nodes_treeids", {0, 0, 0}), k.ints("nodes_nodeids", {0, 1, 2}), k.ints("nodes_featureids", {0, 0, 0}),
                                      k.ints("nodes_truenodeids", {1, 0, 0}), k.ints("nodes_falsenodeids", {2, 0, 0}), k.floats("nodes_values", {0.5f, 0, 0}),
                                      k.strings("nodes_modes", {"BRANCH_LEQ", "LEAF", "LEAF"}), k.ints("class_treeids", {0, 0}), k.ints("class_nodeids", {1, 2}),
                                      k.ints("class_ids", {id, id}), k.floats("class_weights", {low, high}), k.ints("classlabels_int64s", {7, 9})};
    };
    Tensor x = floats({2, 1}, {0, 1});
    for (std::int64_t id : {0, 1}) {
        auto p = run("TreeEnsembleClassifier", {x}, stump(0.25f, 0.75f, id), 2);
        expect_near(p[0], ints({2}, {7, 9}));
        expect_near(p[1], floats({2, 2}, {0.75f, 0.25f, 0.25f, 0.75f}));
        auto m = run("TreeEnsembleClassifier", {x}, stump(-2, 1, id), 2);
        expect_near(m[0], ints({2}, {7, 9}));
        expect_near(m[1], floats({2, 2}, {2, -2, -1, 1}));
        auto attrs = stump(-2, 1, id);
        attrs.push_back(k.s("post_transform", "LOGISTIC"));
        auto l = run("TreeEnsembleClassifier", {x}, attrs, 2);
        const float a = static_cast<float>(1 / (1 + std::exp(2.0))), b = static_cast<float>(1 / (1 + std::exp(-1.0)));
        expect_near(l[1], floats({2, 2}, {1 - a, a, 1 - b, b}));
    }
    auto integers = run("TreeEnsembleClassifier", {ints({2, 1}, {0, 1})}, stump(0.25f, 0.75f, 0), 2);
    expect_near(integers[0], ints({2}, {7, 9}));
    auto vector = run("TreeEnsembleClassifier", {floats({1}, {1})}, stump(0.25f, 0.75f, 0), 2);  // one row
    expect_near(vector[0], ints({1}, {9}));
    EXPECT_EQ(run("TreeEnsembleClassifier", {Tensor(DType::f32, {0, 1})}, stump(0.25f, 0.75f, 0), 2)[1].shape(), (Shape{0, 2}));
}

/// x == 1 or x == 3 or x == 4, as LightGBM's converter writes a set of categories: nodes share the branch that is taken.
TEST(Trees, ChainsOfEqualityShareABranch) {
    Keeper k;
    std::vector<Attribute> a{k.ints("nodes_treeids", {0, 0, 0, 0, 0, 0, 0}), k.ints("nodes_nodeids", {0, 1, 2, 3, 4, 5, 6}), k.ints("nodes_featureids", {0, 1, 0, 0, 0, 0, 0}),
                             k.ints("nodes_truenodeids", {1, 4, 1, 1, 0, 0, 0}), k.ints("nodes_falsenodeids", {2, 5, 3, 6, 0, 0, 0}), k.floats("nodes_values", {1, 0, 3, 4, 0, 0, 0}),
                             k.strings("nodes_modes", {"BRANCH_EQ", "BRANCH_LEQ", "BRANCH_EQ", "BRANCH_EQ", "LEAF", "LEAF", "LEAF"}),
                             k.ints("target_treeids", {0, 0, 0}), k.ints("target_nodeids", {4, 5, 6}), k.ints("target_ids", {0, 0, 0}), k.floats("target_weights", {10, 20, 30})};
    auto got = run("TreeEnsembleRegressor", {floats({6, 2}, {1, 0, 3, 1, 4, 0, 2, 0, 5, 0, nan, 0})}, a);
    expect_near(got[0], floats({6, 1}, {10, 20, 10, 30, 30, 30}));
}

TEST(Trees, HostileEnsemblesAreRefused) {
    Keeper k;
    Tensor x = floats({1, 2}, {0, 0});
    auto make = [&](std::vector<std::int64_t> yes, std::vector<std::int64_t> no, std::vector<std::int64_t> feature, std::vector<std::string> modes, std::int64_t leaf, std::int64_t target) {
        std::vector<std::int64_t> tree(modes.size(), 0), node(modes.size());
        for (std::size_t i = 0; i < node.size(); ++i) node[i] = static_cast<std::int64_t>(i);
        return std::vector<Attribute>{k.ints("nodes_treeids", tree), k.ints("nodes_nodeids", node), k.ints("nodes_featureids", feature), k.ints("nodes_truenodeids", yes),
                                      k.ints("nodes_falsenodeids", no), k.floats("nodes_values", std::vector<float>(modes.size(), 0)), k.strings("nodes_modes", modes),
                                      k.ints("target_treeids", {0}), k.ints("target_nodeids", {leaf}), k.ints("target_ids", {target}), k.floats("target_weights", {1})};
    };
    const std::vector<std::string> branch_leaves{"BRANCH_LEQ", "LEAF", "LEAF"};
    const auto bad = quern::ErrorCode::invalid_model;
    run("TreeEnsembleRegressor", {x}, make({1, 0, 0}, {2, 0, 0}, {0, 0, 0}, branch_leaves, 1, 0));  // this one is well
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make({9, 0, 0}, {2, 0, 0}, {0, 0, 0}, branch_leaves, 1, 0)));     // no such node
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make({1, 0, 0}, {2, 0, 0}, {-1, 0, 0}, branch_leaves, 1, 0)));    // no such feature
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make({1, 0, 0}, {2, 0, 0}, {INT64_MAX, 0, 0}, branch_leaves, 1, 0)));
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make({1, 0, 0}, {2, 0, 0}, {0, 0, 0}, branch_leaves, 1, 5)));     // no such target
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make({1, 0, 0}, {2, 0, 0}, {0, 0, 0}, branch_leaves, 7, 0)));     // weight of no node
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make({1, 0, 0}, {2, 0, 0}, {0, 0, 0}, {"BRANCH_LEQ", "LEAF", "LEAVES"}, 1, 0)));
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make({0, 0}, {1, 0}, {0, 0}, {"BRANCH_LEQ", "LEAF"}, 1, 0)));          // its own child: no root
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make({1, 2, 1, 0}, {3, 3, 3, 0}, {0, 0, 0, 0}, {"BRANCH_LEQ", "BRANCH_LEQ", "BRANCH_LEQ", "LEAF"}, 3, 0)));  // 1 -> 2 -> 1
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make({3, 3, 3, 0}, {1, 2, 1, 0}, {0, 0, 0, 0}, {"BRANCH_EQ", "BRANCH_EQ", "BRANCH_EQ", "LEAF"}, 3, 0)));
    auto wide = make({1, 0, 0}, {2, 0, 0}, {1000, 0, 0}, branch_leaves, 1, 0);  // more features than the input has
    EXPECT_EQ(quern::ErrorCode::shape_mismatch, code_of("TreeEnsembleRegressor", {x}, wide));
    // 30 levels that all lead to the same two nodes below: 2^30 nodes if it were unrolled
    std::vector<std::int64_t> yes, no;
    std::vector<std::string> modes;
    for (int i = 0; i < 30; ++i) yes.push_back(i + 1), no.push_back(i + 1), modes.push_back("BRANCH_LEQ");
    yes.push_back(0), no.push_back(0), modes.push_back("LEAF");
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, make(yes, no, std::vector<std::int64_t>(31, 0), modes, 30, 0)));
    auto many = make({1, 0, 0}, {2, 0, 0}, {0, 0, 0}, branch_leaves, 1, 0);
    many.push_back(k.i("n_targets", INT64_MAX));
    EXPECT_EQ(bad, code_of("TreeEnsembleRegressor", {x}, many));
    many.back() = k.i("n_targets", 1 << 28);
    ModelBuilder b(20);
    b.domain(ml, 3).input("x", DType::f32, {"N", "2"}).node("TreeEnsembleRegressor", {"x"}, {"y"}, many, ml).output("y");
    try {
        b.run({{"x", x}}, {.threads = 1, .memory_limit = 1 << 20});
        ADD_FAILURE();
    } catch (const quern::Error& e) {
        EXPECT_EQ(e.code(), quern::ErrorCode::out_of_memory);
    }
}

/// Revision 5: leaves apart, sets of members, all three types.
TEST(Trees, NewestRevision) {
    Keeper k;
    // feature 0 in {1, 4}: 5 + feature 1 <= 2 ? 10 : 20; a second tree of one leaf.
    auto attrs = [&](auto real) {
        using T = decltype(real);
        auto tensor = [&](std::vector<float> v) {
            std::vector<T> w(v.begin(), v.end());
            return t<T>({static_cast<std::int64_t>(w.size())}, w);
        };
        return std::vector<Attribute>{k.i("n_targets", 2), k.ints("nodes_featureids", {0, 1, 0}), k.t("nodes_modes", t<std::uint8_t>({3}, {6, 0, 0})), k.t("nodes_splits", tensor({0, 2, 0})),
                                      k.ints("nodes_truenodeids", {0, 1, 3}), k.ints("nodes_falsenodeids", {1, 2, 3}), k.ints("nodes_trueleafs", {1, 1, 1}), k.ints("nodes_falseleafs", {0, 1, 1}),
                                      k.ints("leaf_targetids", {0, 0, 0, 1}), k.t("leaf_weights", tensor({5, 10, 20, -1})), k.ints("tree_roots", {0, 2}), k.t("membership_values", tensor({4, 1, nan}))};
    };
    std::vector<float> x{1, 9, 4, 0, 2, 1, 2, 3, nan, 2}, want{5, -1, 5, -1, 10, -1, 20, -1, 10, -1};
    expect_near(run("TreeEnsemble", {floats({5, 2}, x)}, attrs(0.0f), 1, 5)[0], floats({5, 2}, want));
    std::vector<double> xd(x.begin(), x.end()), wd(want.begin(), want.end());
    expect_near(run("TreeEnsemble", {t<double>({5, 2}, xd)}, attrs(0.0), 1, 5)[0], t<double>({5, 2}, wd));
}

/// Doubles between two floats: the comparison is made in the input's type.
TEST(Trees, ThresholdsInDouble) {
    Keeper k;
    const double limit = 1 + 1e-12;
    std::vector<Attribute> a{k.ints("nodes_treeids", {0, 0, 0}), k.ints("nodes_nodeids", {0, 1, 2}), k.ints("nodes_featureids", {0, 0, 0}), k.ints("nodes_truenodeids", {1, 0, 0}),
                             k.ints("nodes_falsenodeids", {2, 0, 0}), k.t("nodes_values_as_tensor", t<double>({3}, {limit, 0, 0})), k.strings("nodes_modes", {"BRANCH_LT", "LEAF", "LEAF"}),
                             k.ints("target_treeids", {0, 0}), k.ints("target_nodeids", {1, 2}), k.ints("target_ids", {0, 0}), k.t("target_weights_as_tensor", t<double>({2}, {1, 2}))};
    expect_near(run("TreeEnsembleRegressor", {t<double>({3, 1}, {1, limit, 1 + 2e-12})}, a)[0], floats({3, 1}, {1, 2, 2}));
    expect_near(run("TreeEnsembleRegressor", {floats({2, 1}, {1, std::nextafter(1.0f, 2.0f)})}, a)[0], floats({2, 1}, {1, 2}));
}

TEST(Ml, LinearClassifierAndRegressor) {
    Keeper k;
    std::mt19937 r(1);
    std::vector<float> w, b, x;
    for (int i = 0; i < 3 * 37; ++i) w.push_back(static_cast<float>(static_cast<int>(r() % 200) - 100) / 50);
    for (int i = 0; i < 3; ++i) b.push_back(static_cast<float>(i));
    for (int i = 0; i < 70 * 37; ++i) x.push_back(static_cast<float>(static_cast<int>(r() % 200) - 100) / 100);
    std::vector<float> want;
    std::vector<std::int64_t> label;
    for (int row = 0; row < 70; ++row) {
        double s[3];
        for (int c = 0; c < 3; ++c) {
            s[c] = static_cast<double>(b[static_cast<std::size_t>(c)]);
            for (int i = 0; i < 37; ++i) s[c] += static_cast<double>(w[static_cast<std::size_t>(c * 37 + i)]) * static_cast<double>(x[static_cast<std::size_t>(row * 37 + i)]);
            want.push_back(static_cast<float>(s[c]));
        }
        label.push_back(10 * (std::max_element(s, s + 3) - s));
    }
    auto got = run("LinearClassifier", {floats({70, 37}, x)}, {k.floats("coefficients", w), k.floats("intercepts", b), k.ints("classlabels_ints", {0, 10, 20})}, 2, 1);
    expect_near(got[1], floats({70, 3}, want), 1e-5, 1e-5);
    expect_near(got[0], ints({70}, label));
    expect_near(run("LinearRegressor", {floats({70, 37}, x)}, {k.floats("coefficients", w), k.floats("intercepts", b), k.i("targets", 3)}, 1, 1)[0], floats({70, 3}, want), 1e-5, 1e-5);
    auto binary = run("LinearClassifier", {floats({2, 1}, {3, -3})}, {k.floats("coefficients", {1}), k.floats("intercepts", {0}), k.ints("classlabels_ints", {4, 5}), k.s("post_transform", "LOGISTIC")}, 2, 1);
    expect_near(binary[0], ints({2}, {5, 4}));
    const float p = static_cast<float>(1 / (1 + std::exp(-3.0)));
    expect_near(binary[1], floats({2, 2}, {1 - p, p, p, 1 - p}));
    EXPECT_EQ(quern::ErrorCode::shape_mismatch, code_of("LinearRegressor", {floats({1, 3}, {1, 2, 3})}, {k.floats("coefficients", {1, 2})}, 1, 1));
    EXPECT_EQ(quern::ErrorCode::invalid_model, code_of("LinearRegressor", {floats({1, 3}, {1, 2, 3})}, {k.floats("coefficients", {1, 2, 3}), k.i("targets", 2)}, 1, 1));
}

TEST(Ml, SupportVectors) {
    Keeper k;
    std::vector<float> v{0, 0, 1, 0, 0, 2, 1, 1}, c{0.5f, -1, 2, 0.25f}, x{0.5f, 0.5f, -1, 2};
    for (std::string kind : {"LINEAR", "POLY", "RBF", "SIGMOID"}) {
        std::vector<float> want;
        for (int r = 0; r < 2; ++r) {
            double y = 0.125;
            for (int s = 0; s < 4; ++s) {
                double dot = 0, square = 0;
                for (int i = 0; i < 2; ++i) {
                    double a = static_cast<double>(x[static_cast<std::size_t>(2 * r + i)]), b = static_cast<double>(v[static_cast<std::size_t>(2 * s + i)]);
                    dot += a * b, square += (a - b) * (a - b);
                }
                const double kernel = kind == "LINEAR" ? dot : kind == "POLY" ? std::pow(0.5 * dot + 1, 3) : kind == "RBF" ? std::exp(-0.5 * square) : std::tanh(0.5 * dot + 1);
                y += static_cast<double>(c[static_cast<std::size_t>(s)]) * kernel;
            }
            want.push_back(static_cast<float>(y));
        }
        std::vector<Attribute> a{k.floats("support_vectors", v), k.floats("coefficients", c), k.floats("rho", {0.125f}), k.i("n_supports", 4), k.s("kernel_type", kind), k.floats("kernel_params", {0.5f, 1, 3})};
        expect_near(run("SVMRegressor", {floats({2, 2}, x)}, a, 1, 1)[0], floats({2, 1}, want), 1e-5, 1e-5);
    }
    std::vector<Attribute> svc{k.floats("support_vectors", v), k.floats("coefficients", c), k.floats("rho", {0.125f}), k.ints("vectors_per_class", {2, 2}), k.ints("classlabels_ints", {3, 4})};
    // k . c = (0.5*0 - 1*0.5 + 2*1 + 0.25*1) + 0.125 > 0: the first class
    auto got = run("SVMClassifier", {floats({1, 2}, {0.5f, 0.5f})}, svc, 2, 1);
    expect_near(got[0], ints({1}, {3}));
    expect_near(got[1], floats({1, 2}, {-1.875f, 1.875f}));
    svc[2] = k.floats("rho", {});
    EXPECT_EQ(quern::ErrorCode::invalid_model, code_of("SVMClassifier", {floats({1, 2}, {1, 1})}, svc, 2, 1));
    svc[3] = k.ints("vectors_per_class", {INT64_MAX, 2});
    EXPECT_EQ(quern::ErrorCode::invalid_model, code_of("SVMClassifier", {floats({1, 2}, {1, 1})}, svc, 2, 1));
}

TEST(Ml, LabelsAndCategories) {
    Keeper k;
    auto first = run("LabelEncoder", {words({3}, {"b", "x", "a"})}, {k.strings("classes_strings", {"a", "b"}), k.i("default_int64", 9)}, 1, 1);
    expect_near(first[0], ints({3}, {1, 9, 0}));
    auto back = run("LabelEncoder", {ints({3}, {1, 5, 0})}, {k.strings("classes_strings", {"a", "b"}), k.s("default_string", "?")}, 1, 1);
    EXPECT_EQ(back[0].strings()[0], "b");
    EXPECT_EQ(back[0].strings()[1], "?");
    auto reals = run("LabelEncoder", {floats({2, 3}, {1.5f, nan, -0.0f, 7, 0, 1.5f})}, {k.floats("keys_floats", {1.5f, nan, 0}), k.ints("values_int64s", {1, 2, 3})}, 1, 2);
    expect_near(reals[0], ints({2, 3}, {1, 2, 3, -1, 3, 1}));
    auto tensors = run("LabelEncoder", {t<std::int16_t>({2}, {4, 5})}, {k.t("keys_tensor", t<std::int16_t>({1}, {5})), k.t("values_tensor", t<double>({1}, {0.5})), k.t("default_tensor", t<double>({1}, {-2.5}))}, 1, 4);
    expect_near(tensors[0], t<double>({2}, {-2.5, 0.5}));
    auto mapper = run("CategoryMapper", {words({2}, {"cat", "cow"})}, {k.strings("cats_strings", {"cat", "dog"}), k.ints("cats_int64s", {30, 40})}, 1, 1);
    expect_near(mapper[0], ints({2}, {30, -1}));
    auto hot = run("OneHotEncoder", {floats({1, 3}, {2, 2.5f, 1})}, {k.ints("cats_int64s", {1, 2})}, 1, 1);
    expect_near(hot[0], floats({1, 3, 2}, {0, 1, 0, 0, 1, 0}));
    EXPECT_EQ(quern::ErrorCode::invalid_argument, code_of("OneHotEncoder", {words({1}, {"z"})}, {k.strings("cats_strings", {"a"}), k.i("zeros", 0)}, 1, 1));
    EXPECT_EQ(quern::ErrorCode::invalid_model, code_of("LabelEncoder", {ints({1}, {1})}, {k.ints("keys_int64s", {1, 2}), k.ints("values_int64s", {1})}, 1, 2));
}

TEST(Ml, Features) {
    Keeper k;
    expect_near(run("Scaler", {ints({2, 2}, {1, 2, 3, 4})}, {k.floats("offset", {1, 2}), k.floats("scale", {0.5f})}, 1, 1)[0], floats({2, 2}, {0, 0, 1, 1}));
    const double big = 1e9 + 0.25;  // a float would lose the quarter before it is subtracted
    expect_near(run("Scaler", {t<double>({1, 1}, {big})}, {k.floats("offset", {1e9f}), k.floats("scale", {4})}, 1, 1)[0], floats({1, 1}, {1}));
    expect_near(run("Normalizer", {floats({3, 2}, {3, -4, 0, 0, 1, 0})}, {k.s("norm", "L2")}, 1, 1)[0], floats({3, 2}, {0.6f, -0.8f, 0, 0, 1, 0}));
    expect_near(run("Normalizer", {floats({1, 2}, {3, -4})}, {k.s("norm", "L1")}, 1, 1)[0], floats({1, 2}, {3 / 7.0f, -4 / 7.0f}));
    expect_near(run("Binarizer", {ints({4}, {-1, 0, 1, 2})}, {k.f("threshold", 0.5f)}, 1, 1)[0], ints({4}, {0, 0, 1, 1}));
    for (float beyond : {nan, 1e30f}) expect_near(run("Binarizer", {ints({3}, {INT64_MIN, 0, INT64_MAX})}, {k.f("threshold", beyond)}, 1, 1)[0], ints({3}, {0, 0, 0}));  // NaN found by fuzzing
    expect_near(run("Binarizer", {ints({2}, {INT64_MIN, 0})}, {k.f("threshold", -1e30f)}, 1, 1)[0], ints({2}, {0, 1}));
    expect_near(run("Binarizer", {floats({3}, {0.5f, nan, 0.75f})}, {k.f("threshold", 0.5f)}, 1, 1)[0], floats({3}, {0, 0, 1}));
    expect_near(run("Imputer", {floats({2, 2}, {nan, 1, 2, nan})}, {k.floats("imputed_value_floats", {7, 8}), k.f("replaced_value_float", nan)}, 1, 1)[0], floats({2, 2}, {7, 1, 2, 8}));
    expect_near(run("Imputer", {ints({1, 3}, {5, 1, 5})}, {k.ints("imputed_value_int64s", {0}), k.i("replaced_value_int64", 5)}, 1, 1)[0], ints({1, 3}, {0, 1, 0}));
    auto rows = run("ArrayFeatureExtractor", {words({3}, {"a", "b", "c"}), ints({1, 2}, {2, 0})}, {}, 1, 1)[0];
    EXPECT_EQ(rows.shape(), (Shape{1, 2}));
    EXPECT_EQ(rows.strings()[0], "c");
    expect_near(run("FeatureVectorizer", {floats({2, 1}, {1, 2}), ints({2, 2}, {3, 4, 5, 6})}, {k.ints("inputdimensions", {1, 2})}, 1, 1)[0], floats({2, 3}, {1, 3, 4, 2, 5, 6}));
}

/// An input that is a map.
void map_input(ModelBuilder& b, std::string_view name, DType key, DType value) {
    quern::onnx::ValueInfo v;
    v.name = name;
    v.type.kind = quern::onnx::TypeProto::map;
    v.type.key_type = static_cast<std::int32_t>(key);
    v.type.elem = std::make_shared<quern::onnx::TypeProto>();
    v.type.elem->kind = quern::onnx::TypeProto::tensor;
    v.type.elem->elem_type = static_cast<std::int32_t>(value);
    b.proto().graph.input.push_back(v);
}
quern::Value map(Tensor keys, Tensor values) { return quern::Value::map(std::make_shared<const Tensor>(std::move(keys)), std::move(values)); }

TEST(Ml, ZipMapGivesASequenceOfMaps) {
    Keeper k;
    ModelBuilder b(20);
    b.domain(ml, 1).input("x", DType::f32, {"N", "C"}).node("ZipMap", {"x"}, {"y"}, {k.strings("classlabels_strings", {"no", "yes"})}, ml).output("y");
    auto engine = b.model().compile({.threads = 1});
    for (std::int64_t rows : {2, 0, 1}) {
        std::vector<float> x;
        for (std::int64_t i = 0; i < 2 * rows; ++i) x.push_back(static_cast<float>(i));
        auto out = engine.run_values({{"x", quern::Value(floats({rows, 2}, x))}});
        ASSERT_EQ(out[0].second.size(), static_cast<std::size_t>(rows));
        for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
            const quern::Value& m = out[0].second[r];
            EXPECT_EQ(m.keys().strings()[1], "yes");
            expect_near(m.values(), floats({2}, {x[2 * r], x[2 * r + 1]}));
        }
    }
    EXPECT_THROW(engine.run_values({{"x", quern::Value(floats({1, 3}, {1, 2, 3}))}}), quern::Error);
}
TEST(Ml, MapsBecomeVectors) {
    Keeper k;
    ModelBuilder d(20);
    map_input(d, "m", DType::string, DType::f64);
    d.domain(ml, 1).node("DictVectorizer", {"m"}, {"y"}, {k.strings("string_vocabulary", {"a", "b", "c"})}, ml).output("y");
    auto dict = d.model().compile({.threads = 1}).run_values({{"m", map(words({3}, {"c", "z", "a"}), t<double>({3}, {3, 9, 1}))}});
    expect_near(dict[0].second.tensor(), t<double>({1, 3}, {1, 0, 3}));
    auto cast = [&](std::string form, std::string to, quern::Value m, DType value) {
        ModelBuilder c(20);
        map_input(c, "m", DType::i64, value);
        c.domain(ml, 1).node("CastMap", {"m"}, {"y"}, {k.s("map_form", form), k.s("cast_to", to), k.i("max_map", 4)}, ml).output("y");
        return c.model().compile({.threads = 1}).run_values({{"m", m}})[0].second.tensor();
    };
    auto m = map(ints({2}, {3, 1}), floats({2}, {0.5f, 2}));
    expect_near(cast("DENSE", "TO_FLOAT", m, DType::f32), floats({1, 2}, {2, 0.5f}));
    expect_near(cast("SPARSE", "TO_FLOAT", m, DType::f32), floats({1, 4}, {0, 2, 0, 0.5f}));
    auto text = map(ints({2}, {0, 1}), words({2}, {"12", "7"}));
    expect_near(cast("DENSE", "TO_INT64", text, DType::string), ints({1, 2}, {12, 7}));
    EXPECT_EQ(cast("DENSE", "TO_STRING", m, DType::f32).strings()[0], "2");
    EXPECT_THROW(cast("SPARSE", "TO_FLOAT", map(ints({1}, {9}), floats({1}, {1})), DType::f32), quern::Error);
    EXPECT_THROW(cast("DENSE", "TO_INT64", map(ints({1}, {0}), words({1}, {"x"})), DType::string), quern::Error);
}
/// A graph with newer forms of older operators is written with the opset that has them.
TEST(Ml, SavedModelsNameTheRevision) {
    Keeper k;
    ModelBuilder b(20);
    b.domain(ml, 1).input("x", DType::string, {"N"}).node("LabelEncoder", {"x"}, {"y"}, {k.strings("classes_strings", {"a", "b"})}, ml).output("y");
    const std::string path = std::string(QUERN_BINARY_DIR) + "/saved_label_encoder.onnx";
    ASSERT_TRUE(b.model().save(path).ok());
    auto again = quern::Model::load(path).compile({.threads = 1}).run({{"x", words({2}, {"b", "q"})}});
    expect_near(again[0].second, ints({2}, {1, -1}));
    quern::MappedFile file(path);
    for (auto& o : quern::onnx::parse_model(file.bytes()).opset_import)
        if (o.domain == ml) {
            EXPECT_EQ(o.version, 4);
        }
}
}  // namespace
