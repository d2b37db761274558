// Loops after the passes: what is captured, what is dropped, and that the answer stays.
#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_g;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

/// acc = acc * w + x; w goes round unchanged, two of the stacks are not read.
struct Weighted {
    ModelBuilder inner, b;
    explicit Weighted(bool changes = false) {
        inner.input("i", DType::i64, {}).input("go", DType::boolean, {}).input("acc", DType::f32, {"K", "K"}).input("w", DType::f32, {"K", "K"});
        inner.node("MatMul", {"acc", "w"}, {"m"}).node("Add", {"m", "x"}, {"next"}).node("Identity", {"w"}, {"w1"}).node(changes ? "Abs" : "Identity", {"w1"}, {"w2"});
        inner.node("Identity", {"go"}, {"on"}).node("Sin", {"m"}, {"unread"}).node("Cos", {"m"}, {"read"});
        inner.output("on").output("next").output("w2").output("unread").output("read").output("unread");
        b.input("n", DType::i64, {}).input("x", DType::f32, {"3", "3"}).constant("w0", ramp({3, 3}));
        b.node("Loop", {"n", "", "x", "w0"}, {"y", "wn", "s0", "s1", "s2"}, {attribute_g("body", inner.proto().graph)}).output("y").output("wn").output("s1");
    }
};
TEST(TrimControl, WhatGoesRoundUnchangedIsCaptured) {
    Weighted w;
    std::string before = after(w.b, "simplify"), text = after(w.b, "control");
    EXPECT_EQ(count(before, "Sin("), 1);
    EXPECT_EQ(count(text, "Sin("), 0) << text;  // nobody reads it
    EXPECT_EQ(count(text, "Cos("), 1);
    EXPECT_EQ(count(text, "w=float[3, 3]"), 0) << text;
    for (std::int64_t n : {0, 1, 5}) same_answer(w.b, {{"n", ints({}, {n})}, {"x", ramp({3, 3}, 0.05f)}});
    auto out = w.b.run({{"n", ints({}, {0})}, {"x", ramp({3, 3})}});
    expect_near(out[1], ramp({3, 3}));
    // As a constant it is packed for the product of the body.
    EXPECT_EQ(w.b.model().compile({.threads = 1}).packings(), 1u);
}
TEST(TrimControl, WhatChangesStays) {
    Weighted w(true);
    for (std::int64_t n : {0, 1, 4}) same_answer(w.b, {{"n", ints({}, {n})}, {"x", ramp({3, 3}, 0.05f)}});
    EXPECT_EQ(w.b.model().compile({.threads = 1}).packings(), 0u);
}
TEST(TrimControl, ValuesThatChangePlacesStay) {
    ModelBuilder inner, b;
    inner.input("i", DType::i64, {}).input("go", DType::boolean, {}).input("p", DType::f32, {"K"}).input("q", DType::f32, {"K"});
    inner.node("Identity", {"go"}, {"on"}).output("on").output("q").output("p");
    b.input("n", DType::i64, {}).input("x", DType::f32, {"K"}).input("y", DType::f32, {"K"}).node("Loop", {"n", "", "x", "y"}, {"a", "b"}, {attribute_g("body", inner.proto().graph)}).output("a").output("b");
    auto out = b.run({{"n", ints({}, {3})}, {"x", floats({1}, {1})}, {"y", floats({1}, {2})}});
    expect_near(out[0], floats({1}, {2}));
    expect_near(out[1], floats({1}, {1}));
}
TEST(TrimControl, ScansKeepTheDirectionsOfWhatIsLeft) {
    ModelBuilder inner, b;
    inner.input("s", DType::f32, {}).input("k", DType::f32, {}).input("v", DType::f32, {});
    inner.node("Add", {"s", "v"}, {"t"}).node("Mul", {"v", "k"}, {"u"}).node("Identity", {"k"}, {"k2"}).output("t").output("k2").output("u").output("t").output("u");
    b.input("s0", DType::f32, {}).input("k", DType::f32, {}).input("x", DType::f32, {"T"});
    b.node("Scan", {"s0", "k", "x"}, {"last", "kn", "a", "b", "c"}, {attribute_g("body", inner.proto().graph), attribute_i("num_scan_inputs", 1), attribute_ints("scan_output_directions", {0, 1, 1})});
    b.output("b").output("c").output("kn");
    std::vector<quern::NamedTensor> in{{"s0", floats({}, {0})}, {"k", floats({}, {10})}, {"x", floats({3}, {1, 2, 3})}};
    auto out = b.run(in);
    expect_near(out[0], floats({3}, {6, 3, 1}));
    expect_near(out[1], floats({3}, {30, 20, 10}));
    same_answer(b, in);
}
TEST(TrimControl, BranchesOfIfDropWhatIsNotRead) {
    ModelBuilder yes, no, b;
    yes.node("Sin", {"x"}, {"a"}).node("Relu", {"x"}, {"c"}).output("a").output("c");
    no.node("Cos", {"x"}, {"a"}).node("Neg", {"x"}, {"c"}).output("a").output("c");
    b.input("q", DType::boolean, {}).input("x", DType::f32, {"N"}).node("If", {"q"}, {"a", "c"}, {attribute_g("then_branch", yes.proto().graph), attribute_g("else_branch", no.proto().graph)}).output("c");
    std::string text = after(b, "control");
    EXPECT_EQ(count(text, "Sin(") + count(text, "Cos("), 0) << text;
    Tensor q(DType::boolean, {});
    same_answer(b, {{"q", q}, {"x", floats({2}, {-1, 2})}});
}
TEST(TrimControl, LoopsThatOnlyHandOnVanish) {
    ModelBuilder inner, b;
    inner.input("i", DType::i64, {}).input("go", DType::boolean, {}).input("v", DType::f32, {"K"}).node("Identity", {"go"}, {"on"}).output("on").output("v");
    b.input("n", DType::i64, {}).input("x", DType::f32, {"N"}).node("Loop", {"n", "", "x"}, {"y"}, {attribute_g("body", inner.proto().graph)}).node("Relu", {"y"}, {"z"}).output("z");
    EXPECT_EQ(count(after(b, "control"), "Loop("), 0);
    expect_near(b.run({{"n", ints({}, {9})}, {"x", floats({2}, {-1, 2})}})[0], floats({2}, {0, 2}));
}

}  // namespace
