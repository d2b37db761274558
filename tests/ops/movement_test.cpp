// Shapes in symbols, movement of data, scattering and selection where ONNX's own cases do not look.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "support/op_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;
using quern::onnx::attribute_s;

namespace {

Tensor counting(quern::Shape s) {
    Tensor x(DType::f32, s);
    std::iota(x.data<float>().begin(), x.data<float>().end(), 0.0f);
    return x;
}
/// How the import writes the fact of value `name`: "float[N, 3]".
std::string fact_of(ModelBuilder& b, const std::string& name) {
    std::string text = b.model().dump("import");
    auto at = text.find("  " + name + ": ");
    if (at == std::string::npos) return text;
    at += name.size() + 4;
    return text.substr(at, text.find(" = ", at) - at);
}

TEST(Reshape, TargetsInSymbols) {
    ModelBuilder b;  // [N, S, 768] -> [N, S, 12, -1] -> [0, 0, -1], as exporters write attention heads
    b.input("x", DType::f32, {"N", "S", "768"}).constant("i0", ints({}, {0})).constant("i1", ints({}, {1})).constant("a", ints({1}, {0}));
    b.constant("heads", ints({1}, {12})).constant("open", ints({1}, {-1})).constant("back", ints({3}, {0, 0, -1})).constant("rows", ints({2}, {-1, 768}));
    b.node("Shape", {"x"}, {"s"}).node("Gather", {"s", "i0"}, {"n"}).node("Gather", {"s", "i1"}, {"l"});
    b.node("Unsqueeze", {"n", "a"}, {"n1"}).node("Unsqueeze", {"l", "a"}, {"l1"});
    b.node("Concat", {"n1", "l1", "heads", "open"}, {"t"}, {attribute_i("axis", 0)});
    b.node("Reshape", {"x", "t"}, {"y"}).node("Reshape", {"y", "back"}, {"z"}).node("Reshape", {"z", "rows"}, {"w"});
    b.node("Slice", {"x", "heads", "i9", "a"}, {"c"}).constant("i9", ints({1}, {INT64_MAX}));
    b.output("w").output("c");
    EXPECT_EQ(fact_of(b, "y"), "float[N, S, 12, 64]");
    EXPECT_EQ(fact_of(b, "z"), "float[N, S, 768]");
    EXPECT_EQ(fact_of(b, "w"), "float[N*S, 768]");
    EXPECT_EQ(fact_of(b, "c"), "float[max(0,-12+N), S, 768]");
}
TEST(Reshape, KeepsWhatARangeCounts) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "S"}).constant("z", ints({}, {0})).constant("o", ints({}, {1}));
    b.node("Shape", {"x"}, {"s"}).node("Gather", {"s", "o"}, {"l"}).node("Range", {"z", "l", "o"}, {"r"}).node("ConstantOfShape", {"s"}, {"f"});
    b.node("Expand", {"r", "s"}, {"e"}).output("e").output("f");
    EXPECT_EQ(fact_of(b, "r"), "int64[S]");
    EXPECT_EQ(fact_of(b, "e"), "int64[N, S]");
    auto y = b.run({{"x", counting({2, 3})}});
    expect_near(y[0], ints({2, 3}, {0, 1, 2, 0, 1, 2}));
}
TEST(Reshape, RefusesWhatDoesNotFit) {
    Tensor x = counting({2, 3});
    for (std::vector<std::int64_t> t : {std::vector<std::int64_t>{4, -1}, {-1, -1}, {2, 2}, {-2, 3}, {2, 3, 0}, {INT64_MAX, INT64_MAX}})
        for (bool fixed : {true, false})
            EXPECT_THROW(run_op("Reshape", {x, ints({static_cast<std::int64_t>(t.size())}, t)}, {}, 20, 1, fixed ? std::vector<int>{1} : std::vector<int>{}), quern::Error);
}
TEST(OneHot, ItsDepthIsOneNumber) {
    const Tensor values = floats({2}, {0, 1});
    EXPECT_EQ(run_op("OneHot", {ints({2}, {1, 0}), floats({1}, {3}), values})[0].shape()[1], 3);
    EXPECT_THROW(run_op("OneHot", {ints({2}, {1, 0}), floats({0}, {}), values}), quern::Error);  // found by fuzzing
    ModelBuilder b;
    b.input("i", DType::i64, {"2"}).input("depth", DType::f32, {"D"}).constant("values", values).node("OneHot", {"i", "depth", "values"}, {"y"}).output("y");
    EXPECT_THROW(b.run({{"i", ints({2}, {1, 0})}, {"depth", floats({0}, {})}}), quern::Error);
}
TEST(Transpose, EveryOrderOfFourAxes) {
    const std::int64_t d[4] = {3, 40, 2, 37};
    Tensor x = counting({d[0], d[1], d[2], d[3]});
    std::vector<std::int64_t> p = {0, 1, 2, 3};
    do {
        Tensor y = run_op("Transpose", {x}, {attribute_ints("perm", p)})[0];
        std::int64_t sx[4] = {d[1] * d[2] * d[3], d[2] * d[3], d[3], 1}, k = 0;
        bool same = true;
        for (std::int64_t a = 0; a < d[p[0]]; ++a)
            for (std::int64_t b = 0; b < d[p[1]]; ++b)
                for (std::int64_t c = 0; c < d[p[2]]; ++c)
                    for (std::int64_t e = 0; e < d[p[3]]; ++e)
                        same = same && y.data<float>()[static_cast<std::size_t>(k++)] == float(a * sx[p[0]] + b * sx[p[1]] + c * sx[p[2]] + e * sx[p[3]]);
        EXPECT_TRUE(same) << p[0] << p[1] << p[2] << p[3];
    } while (std::next_permutation(p.begin(), p.end()));
}
/// Every start, end and step of an axis of 4, as NumPy slices; the bounds known beforehand or only when run.
TEST(Slice, EveryBound) {
    Tensor x = counting({4});
    ModelBuilder b;
    b.input("x", DType::f32, {"N"}).input("s", DType::i64, {"1"}).input("e", DType::i64, {"1"}).input("a", DType::i64, {"1"}).input("p", DType::i64, {"1"});
    b.node("Slice", {"x", "s", "e", "a", "p"}, {"y"}).output("y");
    auto engine = b.model().compile({.threads = 1});
    const std::int64_t far = INT64_MAX;
    for (std::int64_t step : {-far, std::int64_t{-3}, std::int64_t{-1}, std::int64_t{1}, std::int64_t{2}, far})
        for (std::int64_t s : {INT64_MIN, std::int64_t{-6}, std::int64_t{-4}, std::int64_t{-1}, std::int64_t{0}, std::int64_t{2}, std::int64_t{4}, far})
            for (std::int64_t e : {INT64_MIN, std::int64_t{-6}, std::int64_t{-2}, std::int64_t{0}, std::int64_t{3}, std::int64_t{5}, far}) {
                std::vector<float> want;
                auto clamp = [&](std::int64_t v) { return v < -4 ? -1 : v < 0 ? v + 4 : std::min<std::int64_t>(v, 4); };
                std::int64_t from = clamp(s), to = clamp(e);
                if (step > 0) from = std::max<std::int64_t>(from, 0), to = std::max<std::int64_t>(to, 0);
                else from = std::min<std::int64_t>(from, 3), to = std::min<std::int64_t>(to, 3);
                for (__int128 i = from; step > 0 ? i < to : i > to; i += step)
                    if (i >= 0 && i < 4) want.push_back(float(i));
                auto y = engine.run({{"x", x}, {"s", ints({1}, {s})}, {"e", ints({1}, {e})}, {"a", ints({1}, {-1})}, {"p", ints({1}, {step})}})[0].second;
                expect_near(y, floats({static_cast<std::int64_t>(want.size())}, want));
            }
}
TEST(Slice, OldAttributesAndRefusals) {
    expect_near(run_op("Slice", {counting({2, 3})}, {attribute_ints("starts", {1}), attribute_ints("ends", {INT64_MAX}), attribute_ints("axes", {1})}, 9)[0], floats({2, 2}, {1, 2, 4, 5}));
    EXPECT_THROW(run_op("Slice", {counting({4}), ints({1}, {0}), ints({1}, {2}), ints({1}, {0}), ints({1}, {0})}), quern::Error);
    EXPECT_THROW(run_op("Slice", {counting({4}), ints({1}, {0}), ints({1}, {2}), ints({1}, {3})}), quern::Error);
    EXPECT_THROW(run_op("Slice", {counting({4}), ints({2}, {0, 0}), ints({2}, {2, 2})}), quern::Error);
}
TEST(Pad, EveryModeAgainstIndices) {
    const std::int64_t n = 4;
    for (std::int64_t before : {-2, 0, 3, 9})
        for (std::int64_t after : {-1, 0, 2, 11})
            for (std::string mode : {"constant", "edge", "reflect", "wrap"}) {
                std::vector<float> want;
                for (int row = 0; row < 2; ++row)
                    for (std::int64_t o = 0; o < n + before + after; ++o) {
                        std::int64_t i = o - before, m = ((i % 6) + 6) % 6;
                        if (mode == "edge") i = std::clamp<std::int64_t>(i, 0, n - 1);
                        if (mode == "wrap") i = ((i % n) + n) % n;
                        if (mode == "reflect") i = m < n ? m : 6 - m;
                        want.push_back(i < 0 || i >= n ? 7.0f : float(row * n + i));
                    }
                auto y = run_op("Pad", {counting({2, n}), ints({2}, {before, after}), floats({}, {7}), ints({1}, {-1})}, {attribute_s("mode", mode)}, 19);
                expect_near(y[0], floats({2, n + before + after}, want));
            }
    EXPECT_THROW(run_op("Pad", {counting({2, 2}), ints({4}, {0, -3, 0, 0})}), quern::Error);
    EXPECT_THROW(run_op("Pad", {counting({2, 2}), ints({3}, {0, 0, 0})}), quern::Error);
    EXPECT_THROW(run_op("Pad", {counting({2, 2}), ints({4}, {INT64_MAX, 0, INT64_MAX, 0})}), quern::Error);
}
TEST(Concat, ManyPartsAndEmptyOnes) {
    auto y = run_op("Concat", {counting({2, 1, 3}), Tensor(DType::f32, {2, 0, 3}), counting({2, 2, 3})}, {attribute_i("axis", -2)});
    expect_near(y[0], floats({2, 3, 3}, {0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
    EXPECT_THROW(run_op("Concat", {counting({2, 3}), counting({3, 3})}, {attribute_i("axis", 1)}), quern::Error);
}
TEST(Split, UnevenPartsOfASymbol) {
    ModelBuilder b(18);
    b.input("x", DType::f32, {"N"}).node("Split", {"x"}, {"a", "b", "c"}, {attribute_i("num_outputs", 3), attribute_i("axis", 0)}).output("a").output("b").output("c");
    for (std::int64_t n : {0, 1, 4, 6, 7}) {
        auto y = b.run({{"x", counting({n})}});
        std::int64_t chunk = (n + 2) / 3, at = 0;
        for (auto& t : y) {
            std::int64_t want = std::max<std::int64_t>(0, std::min(chunk, n - at));
            ASSERT_EQ(t.count(), want) << n;
            for (std::int64_t i = 0; i < want; ++i) EXPECT_EQ(t.data<float>()[static_cast<std::size_t>(i)], float(at + i));
            at += want;
        }
    }
}
TEST(Split, PartsThatNobodyNames) {
    for (bool sizes : {false, true})
        for (std::size_t named = 0; named < 3; ++named) {
            std::vector<std::string> outs(3);
            outs[named] = "y";
            ModelBuilder b(18);
            b.input("x", DType::f32, {"6"});
            if (sizes) b.constant("sizes", ints({3}, {2, 2, 2})).node("Split", {"x", "sizes"}, outs);
            else b.node("Split", {"x"}, outs, {attribute_i("num_outputs", 3)});
            const float first = 2.f * static_cast<float>(named);
            expect_near(b.output("y").run({{"x", counting({6})}})[0], floats({2}, {first, first + 1}));
        }
}
/// Indices outside are errors, never reads or writes outside, in every operator that takes them from data.
TEST(Index, HostileOnesAreErrors) {
    Tensor x = counting({3, 4});
    for (std::int64_t bad : {std::int64_t{3}, std::int64_t{-4}, INT64_MAX, INT64_MIN}) {
        Tensor one = ints({1}, {bad}), grid = ints({1, 1}, {bad}), u = floats({1, 1}, {5});
        EXPECT_THROW(run_op("Gather", {x, one}), quern::Error);
        EXPECT_THROW(run_op("GatherElements", {x, grid}), quern::Error);
        EXPECT_THROW(run_op("GatherND", {x, grid}), quern::Error);
        EXPECT_THROW(run_op("ScatterElements", {x, grid, u}), quern::Error);
        EXPECT_THROW(run_op("ScatterND", {x, grid, counting({1, 4})}), quern::Error);
    }
    EXPECT_THROW(run_op("TopK", {x, ints({1}, {5})}, {}, 20, 2), quern::Error);
    EXPECT_THROW(run_op("TopK", {x, ints({1}, {-1})}, {}, 20, 2), quern::Error);
    EXPECT_THROW(run_op("ReverseSequence", {x, ints({4}, {1, 2, 3, 4})}), quern::Error);
    EXPECT_THROW(run_op("Range", {ints({}, {0}), ints({}, {5}), ints({}, {0})}), quern::Error);
    EXPECT_THROW(run_op("Range", {ints({}, {INT64_MIN}), ints({}, {INT64_MAX}), ints({}, {1})}), quern::Error);
    EXPECT_THROW(run_op("Tile", {x, ints({2}, {1, -1})}), quern::Error);
    EXPECT_THROW(run_op("Expand", {x, ints({2}, {3, 5})}), quern::Error);
    EXPECT_THROW(run_op("ConstantOfShape", {ints({2}, {3, -1})}), quern::Error);
    EXPECT_THROW(run_op("ConstantOfShape", {ints({2}, {std::int64_t{1} << 40, std::int64_t{1} << 40})}), quern::Error);
}
TEST(Scatter, RepeatedIndicesAreTakenInOrder) {
    Tensor x = floats({3}, {10, 20, 30}), i = ints({4}, {0, 2, 0, -1}), u = floats({4}, {1, 2, 3, 4});
    expect_near(run_op("ScatterElements", {x, i, u})[0], floats({3}, {3, 20, 4}));
    expect_near(run_op("ScatterElements", {x, i, u}, {attribute_s("reduction", "add")}, 18)[0], floats({3}, {14, 20, 36}));
    expect_near(run_op("ScatterElements", {x, i, u}, {attribute_s("reduction", "min")}, 18)[0], floats({3}, {1, 20, 2}));
    expect_near(run_op("ScatterND", {x, ints({2, 1}, {1, 1}), floats({2}, {2, 3})}, {attribute_s("reduction", "mul")}, 18)[0], floats({3}, {10, 120, 30}));
}
TEST(Select, SizesThatOnlyDataDecides) {
    ModelBuilder b;  // x[x != 0] squared, with nothing known beforehand
    b.input("x", DType::f32, {"N"}).constant("a", ints({1}, {0}));
    b.node("NonZero", {"x"}, {"i"}).node("Squeeze", {"i", "a"}, {"j"}).node("Gather", {"x", "j"}, {"v"}).node("Mul", {"v", "v"}, {"y"}).output("y");
    auto engine = b.model().compile({.threads = 1});
    expect_near(engine.run({{"x", floats({4}, {0, 2, 0, 3})}})[0].second, floats({2}, {4, 9}));
    expect_near(engine.run({{"x", floats({3}, {0, 0, 0})}})[0].second, floats({0}, {}));
    expect_near(engine.run({{"x", floats({4}, {1, 2, -1, 3})}})[0].second, floats({4}, {1, 4, 1, 9}));
    expect_near(engine.run({{"x", Tensor(DType::f32, {0})}})[0].second, floats({0}, {}));
}
TEST(Select, TopKIsTheBeginningOfAStableSort) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    const std::vector<float> some = {0.f, -0.f, 1, -1, 2.5f, nan, -nan, inf, -inf, 1e-40f, -1e-40f, 3};
    for (bool integers : {false, true})
        for (std::int64_t largest : {0, 1})
            for (std::int64_t sorted : {0, 1})
                for (std::int64_t n : {1, 7, 300, 512, 5000}) {
                    Tensor x(integers ? DType::i32 : DType::f32, {n, 2});
                    auto value = [&](std::int64_t i, std::int64_t c) { return some[static_cast<std::size_t>((i * 31 + c * 7 + i * i) % 12)]; };
                    auto whole = [&](std::int64_t i, std::int64_t c) { return static_cast<std::int32_t>((i * 2654435761u + static_cast<unsigned>(c)) >> 3) * (i % 3 ? 1 : -1) % 97; };
                    for (std::int64_t i = 0; i < 2 * n; ++i)
                        if (integers) x.data<std::int32_t>()[i] = whole(i / 2, i % 2);
                        else x.data<float>()[i] = value(i / 2, i % 2);
                    for (std::int64_t k : {std::int64_t{1}, n / 10, n / 4, n / 2, n}) {
                        auto y = run_op("TopK", {x, ints({1}, {k})}, {attribute_i("axis", 0), attribute_i("largest", largest), attribute_i("sorted", sorted)}, 20, 2);
                        for (std::int64_t c = 0; c < 2; ++c) {
                            std::vector<std::int64_t> at(static_cast<std::size_t>(n));
                            std::iota(at.begin(), at.end(), 0);
                            std::stable_sort(at.begin(), at.end(), [&](std::int64_t a, std::int64_t b) {
                                if (integers) return largest ? whole(a, c) > whole(b, c) : whole(a, c) < whole(b, c);
                                float u = value(a, c), v = value(b, c);
                                if (u != u || v != v) return largest ? u != u && v == v : u == u && v != v;
                                return largest ? u > v : u < v;
                            });
                            at.resize(static_cast<std::size_t>(k));
                            if (!sorted) std::sort(at.begin(), at.end());
                            for (std::int64_t j = 0; j < k; ++j) ASSERT_EQ(y[1].data<std::int64_t>()[static_cast<std::size_t>(2 * j + c)], at[static_cast<std::size_t>(j)]) << n << " " << k << " " << j;
                        }
                    }
                }
}
TEST(Select, FewOfALongRowAreFoundInAnyOrder) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    constexpr std::int64_t n = 5003;
    for (int order : {0, 1, 2, 3, 4})  // mixed, rising, falling, few values, all alike
        for (std::int64_t largest : {0, 1})
            for (std::int64_t k : {1, 10, 64}) {
                std::mt19937 g(static_cast<unsigned>(order));
                std::normal_distribution<float> d;
                std::vector<float> v(n);
                for (float& x : v) x = d(g);
                if (order == 1 || order == 2) std::sort(v.begin(), v.end());
                if (order == 2) std::reverse(v.begin(), v.end());
                if (order == 3) for (float& x : v) x = std::floor(x * 3);
                if (order == 4) v.assign(n, 1.f);
                if (order < 3) v[7] = nan, v[4001] = nan, v[4100] = -inf, v[4300] = inf, v[n - 1] = 1e9f;
                std::vector<std::int64_t> at(n);
                std::iota(at.begin(), at.end(), 0);
                std::stable_sort(at.begin(), at.end(), [&](std::int64_t a, std::int64_t b) {
                    float u = v[static_cast<std::size_t>(a)], w = v[static_cast<std::size_t>(b)];
                    if (u != u || w != w) return largest ? u != u && w == w : u == u && w != w;
                    return largest ? u > w : u < w;
                });
                auto y = run_op("TopK", {floats({n}, v), ints({1}, {k})}, {attribute_i("largest", largest)}, 20, 2);
                for (std::int64_t j = 0; j < k; ++j) ASSERT_EQ(y[1].data<std::int64_t>()[static_cast<std::size_t>(j)], at[static_cast<std::size_t>(j)]) << order << " " << largest << " " << k << " " << j;
            }
}
TEST(Gather, RowsByOneIndexEach) {
    for (std::int64_t batch : {0, 1})
        for (std::int64_t inner : {1, 3, 4}) {
            const std::int64_t b = 2, n = 5, k = 7;
            std::vector<std::int64_t> ix, dims = batch ? std::vector<std::int64_t>{b, n, inner} : std::vector<std::int64_t>{n, inner};
            for (std::int64_t i = 0; i < (batch ? b : 1) * k; ++i) ix.push_back(i * 3 % (2 * n) - n);  // negative ones count from the end
            Tensor x = counting(quern::Shape(std::span<const std::int64_t>(dims)));
            auto y = run_op("GatherND", {x, batch ? ints({b, k, 1}, ix) : ints({k, 1}, ix)}, {attribute_i("batch_dims", batch)});
            for (std::size_t i = 0; i < ix.size(); ++i)
                for (std::int64_t j = 0; j < inner; ++j) {
                    const std::int64_t row = static_cast<std::int64_t>(i) / k * n + (ix[i] + n) % n;
                    ASSERT_EQ(y[0].data<float>()[static_cast<std::size_t>(static_cast<std::int64_t>(i) * inner + j)], static_cast<float>(row * inner + j)) << batch << inner;
                }
            ix[0] = n;
            EXPECT_THROW(run_op("GatherND", {x, batch ? ints({b, k, 1}, ix) : ints({k, 1}, ix)}, {attribute_i("batch_dims", batch)}), quern::Error);
        }
}
TEST(Select, NonZeroOfSeveralDimensions) {
    for (std::vector<std::int64_t> dims : {std::vector<std::int64_t>{17}, {3, 5}, {2, 1, 9}, {3, 4, 1}, {2, 3, 2, 5}}) {
        std::int64_t n = 1;
        for (std::int64_t d : dims) n *= d;
        Tensor x(DType::f32, quern::Shape(std::span<const std::int64_t>(dims)));
        std::vector<std::vector<std::int64_t>> expected;
        for (std::int64_t i = 0; i < n; ++i) {
            x.data<float>()[i] = i * 7 % 5 < 2 ? 0.f : 1.f;
            if (x.data<float>()[i] == 0) continue;
            std::vector<std::int64_t> at(dims.size());
            std::int64_t rest = i;
            for (std::size_t a = dims.size(); a-- > 0;) at[a] = rest % dims[a], rest /= dims[a];
            expected.push_back(at);
        }
        auto y = run_op("NonZero", {x});
        ASSERT_EQ(y[0].count(), static_cast<std::int64_t>(expected.size() * dims.size()));
        for (std::size_t k = 0; k < expected.size(); ++k)
            for (std::size_t a = 0; a < dims.size(); ++a) EXPECT_EQ(y[0].data<std::int64_t>()[a * expected.size() + k], expected[k][a]);
    }
}
TEST(Select, TopKOrdersTiesAndNaN) {
    const float nan = std::nanf("");
    auto y = run_op("TopK", {floats({6}, {1, 3, nan, 3, -1, 3}), ints({1}, {4})}, {}, 20, 2);
    expect_near(y[0], floats({4}, {nan, 3, 3, 3}));
    expect_near(y[1], ints({4}, {2, 1, 3, 5}));
    y = run_op("TopK", {floats({2, 3}, {1, 2, 3, 6, 5, 4}), ints({1}, {1})}, {attribute_i("axis", 0), attribute_i("largest", 0)}, 20, 2);
    expect_near(y[0], floats({1, 3}, {1, 2, 3}));
    y = run_op("TopK", {counting({3}), ints({1}, {0})}, {}, 20, 2);
    EXPECT_EQ(y[0].count(), 0);
}
TEST(Select, NothingIsSelectedFromNothing) {
    auto y = run_op("NonMaxSuppression", {Tensor(DType::f32, {1, 0, 4}), Tensor(DType::f32, {1, 2, 0}), ints({1}, {3})});
    EXPECT_EQ(y[0].shape(), (quern::Shape{0, 3}));
    y = run_op("Unique", {Tensor(DType::f32, {0})}, {}, 20, 4);
    for (auto& t : y) EXPECT_EQ(t.count(), 0);
}
TEST(Strings, MoveAsAnyOtherType) {
    std::vector<std::string> words = {"a long enough string to leave the handle", "b", "", "d", "e", "f"};
    Tensor x = Tensor::from_strings(words, {2, 3});
    auto y = run_op("Transpose", {x})[0];
    EXPECT_EQ(y.strings()[0], words[0]);
    EXPECT_EQ(y.strings()[1], "d");
    y = run_op("Gather", {x, ints({2}, {2, 0})}, {attribute_i("axis", 1)})[0];
    EXPECT_EQ(y.strings()[1], words[0]);
    y = run_op("Concat", {x, x}, {attribute_i("axis", 0)})[0];
    EXPECT_EQ(y.strings()[6], words[0]);
    y = run_op("Expand", {x, ints({3}, {2, 2, 3})})[0];
    EXPECT_EQ(y.strings()[6], words[0]);
}

TEST(Transpose, BlocksOfEveryElementSizeAndTheirEdges) {
    for (DType t : {DType::u8, DType::u16, DType::f32, DType::f64, DType::c128})
        for (auto [rows, cols] : {std::array<std::int64_t, 2>{64, 64}, {33, 70}, {7, 130}, {128, 5}, {16, 17}}) {
            Tensor x(t, {2, rows, cols});
            auto* p = static_cast<std::uint8_t*>(x.raw());
            for (std::size_t i = 0; i < x.bytes(); ++i) p[i] = static_cast<std::uint8_t>(i * 7 + i / 251);
            Tensor y = run_op("Transpose", {x}, {quern::onnx::attribute_ints("perm", {0, 2, 1})})[0];
            const std::size_t size = static_cast<std::size_t>(quern::dtype_bits(t) / 8);
            auto* q = static_cast<const std::uint8_t*>(y.raw());
            for (std::int64_t n = 0; n < 2; ++n)
                for (std::int64_t i = 0; i < rows; ++i)
                    for (std::int64_t j = 0; j < cols; ++j)
                        ASSERT_EQ(0, std::memcmp(q + static_cast<std::size_t>((n * cols + j) * rows + i) * size, p + static_cast<std::size_t>((n * rows + i) * cols + j) * size, size));
        }
}
TEST(Movement, ShortRowsInTilesThatBeginAnywhere) {
    // Rows of 2 and 3 elements, more than one tile of them.
    for (std::int64_t b : {2, 3}) {
        Tensor x(DType::i32, {1, 4 * b * b, 40, 61});
        for (std::int64_t i = 0; i < x.count(); ++i) x.data<std::int32_t>()[i] = static_cast<std::int32_t>(i);
        Tensor y = run_op("DepthToSpace", {x}, {quern::onnx::attribute_i("blocksize", b)})[0];
        for (std::int64_t c = 0; c < 4; ++c)
            for (std::int64_t h = 0; h < 40 * b; ++h)
                for (std::int64_t w = 0; w < 61 * b; ++w)
                    ASSERT_EQ(y.data<std::int32_t>()[(c * 40 * b + h) * 61 * b + w], (((h % b * b + w % b) * 4 + c) * 40 + h / b) * 61 + w / b);
    }
    Tensor x(DType::u8, {30000, 3});
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 5);
    Tensor y = run_op("Pad", {x, ints({4}, {0, 1, 0, 0})}, {}, 20, 1, {1})[0];
    for (std::int64_t i = 0; i < 30000; ++i)
        for (std::int64_t j = 0; j < 4; ++j) ASSERT_EQ(y.data<std::uint8_t>()[i * 4 + j], j ? x.data<std::uint8_t>()[i * 3 + j - 1] : 0);
}
TEST(ArgMax, ColumnsTakeTheFirstOrLastAndNaN) {
    const float nan = std::nanf("");
    Tensor x = floats({4, 3}, {1, nan, 5, 3, 2, 5, 3, nan, 2, 0, 9, 5});
    auto arg = [&](const char* op, bool last) { return run_op(op, {x}, {quern::onnx::attribute_i("axis", 0), quern::onnx::attribute_i("keepdims", 0), quern::onnx::attribute_i("select_last_index", last)})[0]; };
    expect_near(arg("ArgMax", false), ints({3}, {1, 0, 0}));
    expect_near(arg("ArgMax", true), ints({3}, {2, 0, 3}));
    expect_near(arg("ArgMin", false), ints({3}, {3, 0, 2}));
    expect_near(arg("ArgMin", true), ints({3}, {3, 0, 2}));
    Tensor wide(DType::i64, {3, 700});
    for (std::int64_t i = 0; i < wide.count(); ++i) wide.data<std::int64_t>()[i] = (i * 7919) % 1009;
    auto got = run_op("ArgMax", {wide}, {quern::onnx::attribute_i("axis", 0), quern::onnx::attribute_i("keepdims", 0)})[0];
    for (std::int64_t j = 0; j < 700; ++j) {
        std::int64_t best = 0;
        for (std::int64_t i = 1; i < 3; ++i)
            if (wide.data<std::int64_t>()[i * 700 + j] > wide.data<std::int64_t>()[best * 700 + j]) best = i;
        ASSERT_EQ(got.data<std::int64_t>()[j], best);
    }
}

TEST(Movement, ElementsUnderEightBits) {
    struct Kind { DType t; float lo, hi; };
    for (Kind k : {Kind{DType::i4, -8, 7}, {DType::u4, 0, 15}, {DType::i2, -2, 1}, {DType::u2, 0, 3}, {DType::f4e2m1, -6, 6}, {DType::f6e2m3, -7, 7}, {DType::f6e3m2, -7, 7}}) {
        SCOPED_TRACE(quern::dtype_name(k.t));
        Tensor x(DType::f32, {3, 5});
        const float fours[] = {-6, -4, -3, -2, -1.5f, -1, -0.5f, 0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
        for (int i = 0; i < 15; ++i) x.data<float>()[i] = k.t == DType::f4e2m1 ? fours[i * 4 % 15] : k.lo + float(i * 7 % int(k.hi - k.lo + 1));
        auto start = [&] {
            ModelBuilder b(25);
            b.input("x", DType::f32, {"3", "5"}).node("Cast", {"x"}, {"q"}, {attribute_i("to", int(k.t))});
            return b;
        };
        auto end = [&](ModelBuilder& b) { return b.node("Cast", {"r"}, {"y"}, {attribute_i("to", 1)}).output("y").run({{"x", x}})[0]; };
        auto b = start();
        Tensor y = end(b.node("Transpose", {"q"}, {"r"}, {attribute_ints("perm", {1, 0})}));
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 5; ++j) EXPECT_EQ(y.data<float>()[j * 3 + i], x.data<float>()[i * 5 + j]);
        b = start();
        y = end(b.constant("pads", ints({4}, {1, 0, 0, 2})).node("Pad", {"q", "pads"}, {"r"}));
        ASSERT_EQ(y.shape(), quern::Shape({4, 7}));
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 7; ++j) EXPECT_EQ(y.data<float>()[i * 7 + j], i > 0 && j < 5 ? x.data<float>()[(i - 1) * 5 + j] : 0.f);
        b = start();
        y = end(b.constant("s", ints({2}, {5, 3})).node("Reshape", {"q", "s"}, {"r"}));
        for (int i = 0; i < 15; ++i) EXPECT_EQ(y.data<float>()[i], x.data<float>()[i]);
        Tensor one(k.t, {1});
        static_cast<std::uint8_t*>(one.raw())[0] = 1;  // 1, or the smallest number of a float
        b = start();
        b.node("Shape", {"q"}, {"d"}).node("ConstantOfShape", {"d"}, {"r"}, {quern::onnx::attribute_t("value", one)});
        y = end(b);
        ASSERT_EQ(y.shape(), quern::Shape({3, 5}));
        for (float v : y.data<float>()) EXPECT_EQ(v, k.t == DType::f4e2m1 ? 0.5f : k.t == DType::f6e2m3 ? 0.125f : k.t == DType::f6e3m2 ? 0.0625f : 1.f);
    }
}

}  // namespace
