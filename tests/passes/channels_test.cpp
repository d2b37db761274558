// Channel shuffles that vanish: weights take another order instead.
#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

/// ShuffleNet's parts over x [N, 16, 10, 9].
struct Shuffled {
    ModelBuilder b;
    int made = 0;
    bool split;

    explicit Shuffled(bool with_split) : split(with_split) {
        b.input("x", DType::f32, {"N", "16", "10", "9"}).constant("zero", ints({1}, {0})).constant("end", ints({1}, {INT64_MAX})).constant("one", ints({1}, {1}));
    }
    std::string fresh() { return "v" + std::to_string(made++); }
    std::string conv(const std::string& in, std::int64_t from, std::int64_t to, std::int64_t k, std::int64_t stride = 1, std::int64_t group = 1, bool relu = true) {
        std::string w = fresh(), bias = fresh(), y = fresh(), z = fresh();
        b.constant(w, ramp({to, from / group, k, k}, 0.5f / static_cast<float>(from / group * k * k), -3.f / static_cast<float>(from / group * k * k))).constant(bias, ramp({to}, 0.03f, -0.2f));
        b.node("Conv", {in, w, bias}, {y}, {attribute_ints("strides", {stride, stride}), attribute_ints("pads", {k / 2, k / 2, k / 2, k / 2}), attribute_i("group", group)});
        if (relu) b.node("Relu", {y}, {z});
        return relu ? z : y;
    }
    std::string branch(const std::string& in, std::int64_t c, std::int64_t to, std::int64_t stride = 1) {
        auto d = conv(conv(in, c, c, 1), c, c, 3, stride, c, false);
        return conv(d, c, to, 1);
    }
    std::pair<std::string, std::string> halves(const std::string& in, std::int64_t c) {
        std::string p = fresh(), q = fresh(), size = fresh(), at = fresh();
        if (split) b.constant(size, ints({2}, {c / 2, c / 2})).node("Split", {in, size}, {p, q}, {attribute_i("axis", 1)});
        else b.constant(at, ints({1}, {c / 2})).node("Slice", {in, "zero", at, "one"}, {p}).node("Slice", {in, at, "end", "one"}, {q});
        return {p, q};
    }
    std::string shuffle(const std::string& in, std::int64_t c, std::int64_t groups, std::int64_t h, std::int64_t w) {
        std::string s = fresh(), t = fresh(), u = fresh(), to = fresh(), back = fresh();
        b.constant(to, ints({5}, {-1, groups, c / groups, h, w})).constant(back, ints({4}, {-1, c, h, w}));
        b.node("Reshape", {in, to}, {s}).node("Transpose", {s}, {t}, {attribute_ints("perm", {0, 2, 1, 3, 4})}).node("Reshape", {t, back}, {u});
        return u;
    }
    std::string join(const std::string& p, const std::string& q) {
        std::string k = fresh();
        b.node("Concat", {p, q}, {k}, {attribute_i("axis", 1)});
        return k;
    }
};
std::vector<quern::NamedTensor> image(std::int64_t n, std::int64_t h, std::int64_t w) { return {{"x", ramp({n, 16, h, w}, 0.05f, -0.5f)}}; }
std::string plan_of(ModelBuilder& b) { return b.model().compile({.threads = 1}).describe(); }
/// Units over c channels of pictures of 10 x 9; ends in a unit with stride 2 or in a product of pixels.
Shuffled units(bool split, int n, std::int64_t c, bool stage) {
    Shuffled s(split);
    auto x = s.conv("x", 16, c, 3);
    x = s.shuffle(s.join(s.branch(x, c, c / 2), s.conv(x, c, c / 2, 1)), c, 2, 10, 9);
    for (int i = 0; i < n; ++i) {
        auto [p, q] = s.halves(x, c);
        x = s.shuffle(s.join(p, s.branch(q, c / 2, c / 2)), c, 2, 10, 9);
    }
    if (stage) x = s.shuffle(s.join(s.conv(s.conv(x, c, c, 3, 2, c, false), c, c, 1), s.branch(x, c, c, 2)), 2 * c, 2, 5, 5);
    s.b.node("Identity", {s.conv(x, stage ? 2 * c : c, 24, 1)}, {"y"}).output("y");
    return s;
}

TEST(Channels, ShufflesVanish) {
    for (bool split : {false, true})
        for (bool stage : {false, true})
            for (std::int64_t c : {32, 30, 116})
                for (int n : {0, 1, 3, 5}) {
                    SCOPED_TRACE(std::to_string(c) + " channels, " + std::to_string(n) + " units" + (split ? ", split" : "") + (stage ? ", two stages" : ""));
                    auto s = units(split, n, c, stage);
                    same_answer(s.b, image(2, 10, 9));
                    if (quern::best_isa() == quern::Isa::baseline) continue;
                    auto plan = plan_of(s.b);
                    EXPECT_EQ(count(plan, "Reshape '"), 0) << plan;
                    EXPECT_EQ(count(plan, "by transpose"), 2) << plan;  // the picture and the answer
                    EXPECT_EQ(count(plan, "by slice") + count(plan, "by split"), 0) << plan;
                    EXPECT_LE(count(plan, "by concat"), stage ? 1 + (n > 0) : 1) << plan;  // a product of pixels, and a depthwise convolution, want their channels in one place
                }
}
TEST(Channels, EveryThreadAndInstructionSet) {
    auto s = units(true, 3, 30, true);
    auto want = s.b.run(image(1, 10, 9), {.threads = 1, .optimize = false});
    for (quern::Isa isa : {quern::Isa::baseline, quern::Isa::avx2, quern::Isa::avx512}) {
        if (isa > quern::best_isa()) continue;
        auto one = s.b.run(image(1, 10, 9), {.threads = 1, .isa = isa});
        expect_near(one[0], want[0], 1e-5, 1e-5);
        for (int threads : {2, 3}) EXPECT_EQ(0, std::memcmp(s.b.run(image(1, 10, 9), {.threads = threads, .isa = isa})[0].raw(), one[0].raw(), one[0].bytes()));
    }
}
TEST(Channels, AnEngineFileHasTheNewOrder) {
    auto s = units(false, 2, 32, true);
    auto want = s.b.run(image(1, 10, 9));
    const std::string path = ::testing::TempDir() + "channels.engine";
    s.b.model().compile({.threads = 1}).save(path);
    auto got = quern::Engine::load(path, {.threads = 1}).run(image(1, 10, 9));
    EXPECT_EQ(0, std::memcmp(got[0].second.raw(), want[0].raw(), want[0].bytes()));
    std::remove(path.c_str());
}
TEST(Channels, WhereOrderMattersItStays) {
    for (int kind = 0; kind < 8; ++kind) {
        SCOPED_TRACE(kind);
        Shuffled s(false);
        const std::int64_t c = 32;
        auto x = s.conv("x", 16, c, 3);
        auto left = s.conv(x, c, c / 2, 1), right = s.branch(x, c, c / 2), u = s.shuffle(s.join(left, right), c, 2, 10, 9), y = s.conv(u, c, 24, 1);
        if (kind == 0) s.b.output(u);                                                                        // an output
        if (kind == 1) s.b.node("Softmax", {u}, {"z"}, {attribute_i("axis", 1)}).output("z");                // an operator that knows channels by their place
        if (kind == 2) s.b.node("Identity", {s.conv(u, c, c, 3, 1, 2)}, {"z"}).output("z");                  // groups
        if (kind == 3) s.b.node("Add", {s.conv(u, c, c, 1, 1, 1, false), u}, {"z"}).output("z");             // a residual
        if (kind == 4) s.b.output(left);                                                                     // what is shuffled is an output
        if (kind == 5) s.b.node("Add", {s.conv(left, c / 2, c / 2, 1, 1, 1, false), left}, {"z"}).output("z");  // what is shuffled is added
        if (kind == 6) s.b.node("Softmax", {s.halves(u, c).first}, {"z"}, {attribute_i("axis", 1)}).output("z");  // a part of it
        if (kind == 7) s.b.node("GlobalAveragePool", {u}, {"g"}).node("Sigmoid", {"g"}, {"h"}).node("Mul", {u, "h"}, {"m"}).node("Identity", {s.conv("m", c, 8, 1)}, {"z"}).output("z");  // a gate
        s.b.output(y);
        same_answer(s.b, image(2, 10, 9));
        if (quern::best_isa() == quern::Isa::baseline) continue;
        auto plan = plan_of(s.b);
        // Where only a source must keep its order, the reader takes the halves as they lie.
        EXPECT_EQ(count(plan, "Reshape '"), kind == 4 || kind == 5 ? 0 : 2) << plan;
    }
}
TEST(Channels, TooManyPartsStayShuffled) {
    Shuffled s(false);  // 48 values, of each of which a reader wants every second channel
    std::vector<std::string> all;
    auto x = s.conv("x", 16, 8, 3);
    for (int i = 0; i < 48; ++i) all.push_back(s.conv(x, 8, 2, 1, 1, 1, i % 2 == 0));
    std::string k = s.fresh();
    s.b.node("Concat", all, {k}, {attribute_i("axis", 1)});
    auto [p, q] = s.halves(s.shuffle(k, 96, 2, 10, 9), 96);
    s.b.node("Identity", {s.conv(p, 48, 8, 1)}, {"y"}).node("Identity", {s.conv(q, 48, 8, 3)}, {"z"}).output("y").output("z");
    same_answer(s.b, image(1, 10, 9));
    if (quern::best_isa() != quern::Isa::baseline) EXPECT_EQ(count(plan_of(s.b), "Reshape '"), 2);
}

}  // namespace
