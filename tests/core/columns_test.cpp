// Concatenations of channels that nobody makes: producers write into the columns of the whole.
#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

using Feeds = std::vector<quern::NamedTensor>;
const auto same_pad = [] { return attribute_ints("pads", {1, 1, 1, 1}); };

/// The bits of `outputs` are those of the same model with `dense` kept readable, hence apart; for every instruction set and 1 to 3 threads.
/// Returns the plan at the best instruction set.
std::string same_bits(ModelBuilder& b, const Feeds& feeds, const std::vector<std::string>& dense, std::size_t outputs = 1) {
    std::string plan;
    for (quern::Isa isa : {quern::Isa::avx2, quern::Isa::avx512}) {
        if (isa > quern::best_isa()) continue;
        quern::Options apart{.threads = 1, .isa = isa, .taps = dense};
        auto engine = b.model().compile(apart);
        EXPECT_EQ(count(engine.describe(), "by placement"), 0) << engine.describe();
        auto want = engine.run(feeds);
        for (int threads : {1, 2, 3}) {
            auto e = b.model().compile({.threads = threads, .isa = isa});
            plan = e.describe();
            for (int again = 0; again < 2; ++again) {
                auto got = e.run(feeds);
                for (std::size_t o = 0; o < outputs; ++o) {
                    EXPECT_EQ(got[o].second.shape(), want[o].second.shape());
                    EXPECT_EQ(0, std::memcmp(got[o].second.raw(), want[o].second.raw(), want[o].second.bytes())) << plan;
                }
            }
        }
    }
    return plan;
}
/// x [N, 32, H, W] -> a of 16, b of 32 channels by Winograd's method, c of 32 pooled, d of 16 with another function
ModelBuilder parts() {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "32", "H", "W"}).constant("w0", ramp({32, 32, 1, 1}, 0.02f, -0.2f)).node("Conv", {"x", "w0"}, {"x0"});
    b.constant("wa", ramp({16, 32, 1, 1}, 0.02f, -0.2f)).constant("wb", ramp({32, 32, 3, 3}, 0.01f, -0.2f)).constant("wd", ramp({16, 32, 1, 1}, 0.01f, -0.3f)).constant("bias", ramp({16}));
    b.node("Conv", {"x0", "wa", "bias"}, {"a0"}).node("Relu", {"a0"}, {"a"});
    b.node("Conv", {"x0", "wb"}, {"b"}, {same_pad()});
    b.node("MaxPool", {"x0"}, {"c"}, {attribute_ints("kernel_shape", {3, 3}), same_pad()});
    b.node("Conv", {"x0", "wd"}, {"d0"}).node("Sigmoid", {"d0"}, {"d"});
    b.constant("wy", ramp({8, 96, 1, 1}, 0.01f, -0.3f));
    return b;
}
Feeds picture(std::int64_t n = 2, std::int64_t h = 9, std::int64_t w = 11) { return {{"x", ramp({n, 32, h, w}, 0.05f, -1.f)}}; }
auto channels() { return attribute_i("axis", 1); }

TEST(Columns, PartsAreWrittenIntoTheWhole) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    auto b = parts();
    b.node("Concat", {"a", "b", "c", "d"}, {"k"}, {channels()}).node("Conv", {"k", "wy"}, {"y"}).output("y");
    for (auto [n, h, w] : {std::tuple{2, 9, 11}, std::tuple{1, 1, 1}, std::tuple{3, 17, 5}, std::tuple{0, 4, 4}}) {
        auto plan = same_bits(b, picture(n, h, w), {"a", "b", "c", "d"});
        EXPECT_EQ(count(plan, "by placement"), 1) << plan;
        EXPECT_EQ(count(plan, "by concat"), 0) << plan;
    }
}
TEST(Columns, AWholeMayBePartOfALargerOne) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    auto b = parts();
    b.constant("wf", ramp({32, 48, 3, 3}, 0.01f, -0.2f)).constant("wg", ramp({8, 80, 1, 1}, 0.01f, -0.3f));
    b.node("Concat", {"a", "b"}, {"k"}, {channels()}).node("Conv", {"k", "wf"}, {"f"}, {same_pad()});
    b.node("Concat", {"k", "f"}, {"l"}, {channels()}).node("Conv", {"l", "wg"}, {"y"}).output("y");
    auto plan = same_bits(b, picture(), {"a", "b", "f", "k"});
    EXPECT_EQ(count(plan, "by placement"), 2) << plan;
    EXPECT_EQ(count(plan, "by concat"), 0) << plan;
}
TEST(Columns, WhatCannotBePlacedIsCopied) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    for (int kind = 0; kind < 4; ++kind) {
        SCOPED_TRACE(kind);
        auto b = parts();
        std::vector<std::string> in{"a", "b", "c", "d"};
        std::size_t outputs = 1;
        if (kind == 1) in = {"a", "b", "b", "d"};                                    // one part at two places
        if (kind == 2) b.node("ReduceSum", {"b"}, {"z"}), outputs = 2;               // read by what wants it dense
        if (kind == 3) b.node("Tanh", {"x0"}, {"t"}), in[1] = "t";                   // made by what writes it dense
        b.node("Concat", in, {"k"}, {channels()}).node("Conv", {"k", "wy"}, {"y"}).output("y");
        if (kind == 0) b.output("b"), outputs = 2;                                   // an output
        if (kind == 2) b.output("z");
        auto plan = same_bits(b, picture(), {"a", "b", "c", "d"}, outputs);
        EXPECT_EQ(count(plan, "by concat"), 1) << plan;
        EXPECT_EQ(count(plan, "by placement"), 0) << plan;
    }
}
TEST(Columns, OtherAxesAreNotChannels) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    auto b = parts();
    b.node("Concat", {"b", "c"}, {"k"}, {attribute_i("axis", 2)}).constant("wz", ramp({8, 32, 1, 1}, 0.01f, -0.3f)).node("Conv", {"k", "wz"}, {"y"}).output("y");
    auto plan = same_bits(b, picture(), {"b", "c"});
    EXPECT_EQ(count(plan, "by concat"), 1) << plan;
}
/// x [N, 32, H, W] -> k of 48 channels, of which p and q are the first 16 and the others.
ModelBuilder cut(bool split) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "32", "H", "W"}).constant("w0", ramp({48, 32, 1, 1}, 0.02f, -0.2f)).node("Conv", {"x", "w0"}, {"k"});
    b.constant("wp", ramp({32, 16, 3, 3}, 0.01f, -0.2f)).constant("wq", ramp({8, 32, 1, 1}, 0.01f, -0.2f));
    b.constant("sizes", ints({2}, {16, 32})).constant("zero", ints({1}, {0})).constant("at", ints({1}, {16})).constant("end", ints({1}, {INT64_MAX})).constant("one", ints({1}, {1}));
    if (split) return std::move(b.node("Split", {"k", "sizes"}, {"p", "q"}, {channels()}));
    return std::move(b.node("Slice", {"k", "zero", "at", "one"}, {"p"}).node("Slice", {"k", "at", "end", "one"}, {"q"}));
}
TEST(Columns, PartsOfChannelsAreReadWhereTheyAre) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    for (bool split : {false, true}) {
        SCOPED_TRACE(split);
        auto b = cut(split);
        b.node("Conv", {"p", "wp"}, {"y"}, {same_pad()}).node("Conv", {"q", "wq"}, {"z"}).output("y").output("z");
        for (auto [n, h, w] : {std::tuple{2, 9, 11}, std::tuple{1, 1, 1}, std::tuple{0, 4, 4}}) {
            auto plan = same_bits(b, picture(n, h, w), {"p", "q"}, 2);
            EXPECT_EQ(count(plan, "by placement"), split ? 1 : 2) << plan;
            EXPECT_EQ(count(plan, "by s"), 0) << plan;  // slice, split
        }
    }
}
TEST(Columns, PartsOfWhatIsPlaced) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    auto b = cut(false);
    b.node("Conv", {"q", "wq"}, {"y"}).output("y");
    b.node("Conv", {"p", "wp"}, {"f"}, {same_pad()}).node("Concat", {"f", "k"}, {"l"}, {channels()}).constant("wl", ramp({8, 80, 1, 1}, 0.01f, -0.2f)).node("Conv", {"l", "wl"}, {"z"}).output("z");
    auto plan = same_bits(b, picture(), {"p", "q", "f", "k"}, 2);
    EXPECT_EQ(count(plan, "by placement"), 3) << plan;
    EXPECT_EQ(count(plan, "by slice"), 0) << plan;
    EXPECT_EQ(count(plan, "by concat"), 0) << plan;
}
TEST(Columns, PartsThatAreCopied) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    for (int kind = 0; kind < 5; ++kind) {
        SCOPED_TRACE(kind);
        auto b = cut(kind == 3);
        std::size_t outputs = 2;
        if (kind == 0) b.output("p"), outputs = 3;                                   // an output
        if (kind == 1) b.node("ReduceSum", {"p"}, {"s"}).output("s"), outputs = 3;   // read by what wants it dense
        if (kind == 2) b.constant("two", ints({1}, {2})).node("Slice", {"k", "one", "end", "one", "two"}, {"e"}).constant("we", ramp({8, 24, 1, 1})).node("Conv", {"e", "we"}, {"g"}).output("g"), outputs = 3;
        if (kind == 3) b.node("Flatten", {"p"}, {"s"}).output("s"), outputs = 3;     // read as another shape
        std::string from = "p";
        if (kind == 4)                                                               // read long after
            for (int i = 0; i < 14; ++i) b.node("Conv", {from == "p" ? "x" : from, from == "p" ? "w0" : "wc"}, {"c" + std::to_string(i)}), from = "c" + std::to_string(i);
        if (kind == 4) b.constant("wc", ramp({48, 48, 1, 1}, 0.01f, -0.1f)).node("MaxPool", {"p"}, {"m"}, {attribute_ints("kernel_shape", {3, 3}), same_pad()}).output(from).output("m"), outputs = 4;
        b.node("Conv", {"p", "wp"}, {"y"}, {same_pad()}).node("Conv", {"q", "wq"}, {"z"}).output("y").output("z");
        auto plan = same_bits(b, picture(), {"p", "q"}, outputs);
        EXPECT_EQ(count(plan, "by slice") + count(plan, "by split"), kind == 4 ? 2 : 1) << plan;
    }
}
TEST(Columns, ChainsPicturesAndNormalizations) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    ModelBuilder b;  // a picture; an inverted residual reads and writes columns; a normalization reads them
    b.input("x", DType::f32, {"N", "3", "H", "W"}).constant("w", ramp({16, 3, 3, 3})).constant("v", ramp({32, 3, 3, 3}, 0.02f, -0.3f));
    b.node("Conv", {"x", "w"}, {"p"}, {same_pad()}).node("Conv", {"x", "v"}, {"q"}, {same_pad()});
    b.constant("we", ramp({64, 16, 1, 1}, 0.02f, -0.2f)).constant("wd", ramp({64, 1, 3, 3})).constant("wp", ramp({16, 64, 1, 1}, 0.02f, -0.2f));
    b.node("Conv", {"p", "we"}, {"e"}).node("Relu", {"e"}, {"er"}).node("Conv", {"er", "wd"}, {"d"}, {same_pad(), attribute_i("group", 64)}).node("Conv", {"d", "wp"}, {"r"});
    for (const char* s : {"s", "o", "m", "u"}) b.constant(s, ramp({16}, 0.05f, 0.5f));
    b.node("BatchNormalization", {"r", "s", "o", "m", "u"}, {"n"}).node("Relu", {"r"}, {"rr"}).constant("wr", ramp({8, 16, 1, 1}, 0.02f, -0.2f)).node("Conv", {"rr", "wr"}, {"z"});
    b.node("Concat", {"q", "p", "r"}, {"k"}, {channels()}).constant("wy", ramp({8, 64, 1, 1}, 0.01f, -0.3f)).node("Conv", {"k", "wy"}, {"y"}).output("y").output("n");
    for (auto [n, h, w] : {std::tuple{2, 9, 12}, std::tuple{1, 30, 30}}) {
        auto plan = same_bits(b, {{"x", ramp({n, 3, h, w}, 0.05f, -1.f)}}, {"p", "q", "r"}, 2);
        EXPECT_EQ(count(plan, "by placement"), 1) << plan;
        EXPECT_EQ(count(plan, "by concat"), 0) << plan;
    }
}
TEST(Columns, WhatMakesPicturesLarger) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    struct Case {
        const char* mode;
        std::vector<float> scales;
    };
    const std::vector<Case> cases{{"linear", {1, 1, 2, 2}}, {"nearest", {1, 1, 2, 2}}, {"nearest", {1, 1, 3, 1}}, {"nearest", {1, 1, 1, 1}}, {"linear", {1, 1, 1, 1.5f}}, {"cubic", {1, 1, 2, 3}}};
    for (auto& [mode, scales] : cases) {
        SCOPED_TRACE(std::string(mode) + " " + std::to_string(scales[2]) + " " + std::to_string(scales[3]));
        const auto kh = static_cast<std::int64_t>(scales[2]), kw = static_cast<std::int64_t>(scales[3]);
        auto b = parts();
        b.constant("s", Tensor::from(std::span<const float>(scales), {4}));
        b.node("Resize", {"a", "", "s"}, {"l"}, {quern::onnx::attribute_s("mode", mode)});
        b.node("Resize", {"b", "", "s"}, {"m"}, {quern::onnx::attribute_s("mode", "nearest")});
        std::vector<std::string> in{"l", "m"}, dense{"l", "m"};
        if (static_cast<float>(kw) == scales[3]) {
            b.constant("wt", ramp({32, 64, kh, kw}, 0.01f, -0.3f)).constant("bt", ramp({64}, 0.1f, -2.f));
            b.node("ConvTranspose", {"c", "wt", "bt"}, {"t"}, {attribute_ints("strides", {kh, kw})});
            in.push_back("t"), dense.push_back("t");
        }
        b.constant("wl", ramp({8, in.size() == 3 ? 112 : 48, 1, 1}, 0.01f, -0.3f));
        b.node("Concat", in, {"k"}, {channels()}).node("Conv", {"k", "wl"}, {"y"}).output("y");
        for (auto [n, h, w] : {std::tuple{2, 9, 11}, std::tuple{1, 1, 2}}) {
            auto plan = same_bits(b, picture(n, h, w), dense);
            EXPECT_EQ(count(plan, "by placement"), 1) << plan;
            EXPECT_EQ(count(plan, "by concat"), 0) << plan;
        }
    }
}

/// x [N, 8, 40] -> r, split in two along the channels -> a, b
ModelBuilder halves(const std::string& batch, bool split = true) {
    ModelBuilder b;
    b.input("x", DType::f32, {batch, "8", "40"}).node("Exp", {"x"}, {"r"}).constant("zero", ints({1}, {0})).constant("at", ints({1}, {3})).constant("end", ints({1}, {8})).constant("axis", ints({1}, {1}));
    if (split) return std::move(b.constant("sizes", ints({2}, {3, 5})).node("Split", {"r", "sizes"}, {"a", "b"}, {channels()}));
    return std::move(b.node("Slice", {"r", "zero", "at", "axis"}, {"a"}).node("Slice", {"r", "at", "end", "axis"}, {"b"}));
}
TEST(Columns, PiecesOfOneImageStayWhereTheyAre) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    for (bool split : {false, true})
        for (const char* batch : {"1", "2", "N"}) {
            auto b = halves(batch, split);
            b.node("Sin", {"a"}, {"p"}).node("Softmax", {"b"}, {"q"}).node("Concat", {"q", "p"}, {"y"}, {channels()}).output("y");
            const std::int64_t n = *batch == '2' ? 2 : 1;
            auto plan = same_bits(b, {{"x", ramp({n, 8, 40}, 0.01f, -1.f)}}, {"a", "b"});
            EXPECT_EQ(count(plan, "by placement"), *batch != '1' ? 0 : split ? 1 : 2) << plan;
        }
}
TEST(Columns, PiecesOfPiecesAndWhatElseReadsTheWhole) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    auto b = halves("1");
    b.constant("more", ints({2}, {2, 3})).node("Split", {"b", "more"}, {"c", "d"}, {channels()});
    b.node("Add", {"c", "c"}, {"p"}).node("Neg", {"d"}, {"q"}).node("Sqrt", {"a"}, {"s"}).node("Concat", {"p", "q", "s", "r"}, {"y"}, {channels()}).output("y");
    same_bits(b, {{"x", ramp({1, 8, 40}, 0.01f, -1.f)}}, {"a", "b", "c", "d", "r"});
}
TEST(Columns, PiecesThatAreShownOrReshapedLieApart) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    for (bool shown : {false, true}) {
        auto b = halves("1");
        if (shown) b.output("a");
        else b.constant("flat", ints({1}, {-1})).node("Reshape", {"a", "flat"}, {"v"}).node("Sin", {"v"}, {"w"}).output("w");
        b.node("Sin", {"b"}, {"y"}).output("y");
        auto plan = same_bits(b, {{"x", ramp({1, 8, 40}, 0.01f, -1.f)}}, {"a", "b"}, 2);
        EXPECT_EQ(count(plan, "by placement"), 0) << plan;
    }
}

}  // namespace
