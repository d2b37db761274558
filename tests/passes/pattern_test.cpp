// Which spellings of GELU, SiLU and normalization become one operator, which must not, and that answers stay.
#include <cmath>

#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;

namespace {

Tensor wave(quern::Shape shape, float scale = 1) {
    Tensor x(DType::f32, shape);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = scale * std::sin(0.7f * float(i) + 0.1f * float(i % 5));
    return x;
}
Tensor number(float v) { return floats({}, {v}); }

/// The graph after the pass holds `n` nodes of `op`, and the answer is that of the graph as it was.
void expect_pattern(ModelBuilder& b, const char* op, int n, const std::vector<quern::NamedTensor>& in) {
    std::string text = after(b, "patterns");
    EXPECT_EQ(count(text, std::string("= ") + op + "("), n) << text;
    auto plain = b.run(in, {.optimize = false}), full = b.run(in);
    ASSERT_EQ(plain.size(), full.size());
    for (std::size_t o = 0; o < plain.size(); ++o) expect_near(full[o], plain[o], 1e-5, 1e-6);
}
const std::vector<quern::NamedTensor> input = {{"x", wave({2, 3, 8}, 3)}};

ModelBuilder start() {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "S", "8"}).constant("root2", number(1.41421354f)).constant("half", number(0.5f)).constant("one", number(1)).constant("two", number(2));
    b.constant("root_half", number(0.707106769f)).constant("eps", number(1e-5f)).constant("last", ints({1}, {-1})).constant("minus_half", number(-0.5f));
    b.constant("w", wave({8})).constant("b", wave({8}, 0.5f));
    return b;
}

TEST(PatternGelu, ErfInEachOrderOfItsFactors) {
    for (int order = 0; order < 4; ++order) {
        SCOPED_TRACE(order);
        auto b = start();
        if (order % 2) b.node("Mul", {"root_half", "x"}, {"u"});
        else b.node("Div", {"x", "root2"}, {"u"});
        b.node("Erf", {"u"}, {"e"}).node("Add", {"one", "e"}, {"a"});
        if (order == 0) b.node("Mul", {"x", "a"}, {"m"}).node("Mul", {"m", "half"}, {"y"});
        if (order == 1) b.node("Mul", {"x", "half"}, {"h"}).node("Mul", {"h", "a"}, {"y"});
        if (order == 2) b.node("Mul", {"a", "half"}, {"h"}).node("Mul", {"x", "h"}, {"y"});
        if (order == 3) b.node("Mul", {"a", "x"}, {"m"}).node("Div", {"m", "two"}, {"y"});
        b.output("y");
        expect_pattern(b, "Gelu", 1, input);
    }
}
TEST(PatternGelu, TanhAsPowersAndAsProducts) {
    for (int form = 0; form < 2; ++form) {
        SCOPED_TRACE(form);
        auto b = start();
        b.constant("c", number(0.044715f)).constant("k", number(0.797884583f)).constant("three", number(3));
        if (form == 0) {
            b.node("Pow", {"x", "three"}, {"x3"}).node("Mul", {"x3", "c"}, {"q"}).node("Add", {"x", "q"}, {"s"}).node("Mul", {"s", "k"}, {"u"});
        } else {  // x * k * (1 + c * x * x)
            b.node("Mul", {"x", "k"}, {"xk"}).node("Mul", {"x", "c"}, {"xc"}).node("Mul", {"xc", "x"}, {"q"}).node("Add", {"q", "one"}, {"s"});
            b.node("Mul", {"xk", "s"}, {"u"});
        }
        b.node("Tanh", {"u"}, {"t"}).node("Add", {"t", "one"}, {"a"}).node("Mul", {"x", "half"}, {"h"}).node("Mul", {"h", "a"}, {"y"}).output("y");
        expect_pattern(b, "Gelu", 1, input);
    }
}
TEST(PatternGelu, OtherConstantsAndOtherReadersStay) {
    auto wrong = start();
    wrong.node("Mul", {"x", "half"}, {"u"}).node("Erf", {"u"}, {"e"}).node("Add", {"e", "one"}, {"a"}).node("Mul", {"x", "a"}, {"m"}).node("Mul", {"m", "half"}, {"y"}).output("y");
    expect_pattern(wrong, "Gelu", 0, input);
    auto factor = start();
    factor.node("Div", {"x", "root2"}, {"u"}).node("Erf", {"u"}, {"e"}).node("Add", {"e", "one"}, {"a"}).node("Mul", {"x", "a"}, {"m"}).node("Mul", {"m", "two"}, {"y"}).output("y");
    expect_pattern(factor, "Gelu", 0, input);
    auto shown = start();
    shown.node("Div", {"x", "root2"}, {"u"}).node("Erf", {"u"}, {"e"}).node("Add", {"e", "one"}, {"a"}).node("Mul", {"x", "a"}, {"m"}).node("Mul", {"m", "half"}, {"y"});
    shown.output("y").output("a");
    expect_pattern(shown, "Gelu", 0, input);
    auto square = start();  // x * x * (1 + erf(x / sqrt 2))
    square.node("Div", {"x", "root2"}, {"u"}).node("Erf", {"u"}, {"e"}).node("Add", {"e", "one"}, {"a"}).node("Mul", {"x", "a"}, {"m"}).node("Mul", {"m", "x"}, {"y"}).output("y");
    expect_pattern(square, "Gelu", 0, input);
}
TEST(PatternSwish, WithAndWithoutAFactor) {
    auto plain = start();
    plain.node("Sigmoid", {"x"}, {"s"}).node("Mul", {"s", "x"}, {"y"}).output("y");
    expect_pattern(plain, "Swish", 1, input);
    auto quick = start();
    quick.constant("k", number(1.702f)).node("Mul", {"x", "k"}, {"u"}).node("Sigmoid", {"u"}, {"s"}).node("Mul", {"x", "s"}, {"y"}).output("y");
    expect_pattern(quick, "Swish", 1, input);
    auto gate = start();  // another tensor is gated
    gate.node("Neg", {"x"}, {"n"}).node("Sigmoid", {"n"}, {"s"}).node("Mul", {"x", "s"}, {"y"}).output("y");
    expect_pattern(gate, "Swish", 0, input);
}
TEST(PatternSwish, AProductTakesItWithItsFactor) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "16"}).constant("w", wave({16, 24}, 0.3f)).constant("k", number(1.702f));
    b.node("MatMul", {"x", "w"}, {"m"}).node("Mul", {"m", "k"}, {"u"}).node("Sigmoid", {"u"}, {"s"}).node("Mul", {"m", "s"}, {"y"}).output("y");
    std::vector<quern::NamedTensor> in = {{"x", wave({5, 16})}};
    std::string text = after(b, "final");
    EXPECT_EQ(count(text, "quern::FusedMatMul(") + count(text, "Swish("), 1) << text;
    auto plain = b.run(in, {.optimize = false});
    for (bool accelerated : {false, true}) expect_near(b.run(in, {.accelerated = accelerated})[0], plain[0], 1e-5, 1e-6);
}

enum class Root { div, reciprocal, over_one, power };
ModelBuilder norm(bool rms, Root root, bool square_by_mul, bool scale, bool bias) {
    auto b = start();
    std::string d = "x";
    if (!rms) {
        b.node("ReduceMean", {"x", "last"}, {"mean"}).node("Sub", {"x", "mean"}, {"d"});
        d = "d";
    }
    if (square_by_mul) b.node("Mul", {d, d}, {"sq"});
    else b.node("Pow", {d, "two"}, {"sq"});
    b.node("ReduceMean", {"sq", "last"}, {"var"}).node("Add", {"var", "eps"}, {"ve"});
    if (root == Root::power) b.node("Pow", {"ve", "minus_half"}, {"r"});
    else b.node("Sqrt", {"ve"}, {"sd"});
    if (root == Root::reciprocal) b.node("Reciprocal", {"sd"}, {"r"});
    if (root == Root::over_one) b.node("Div", {"one", "sd"}, {"r"});
    if (root == Root::div) b.node("Div", {d, "sd"}, {"n"});
    else b.node("Mul", {"r", d}, {"n"});
    std::string y = "n";
    if (scale) b.node("Mul", {"w", y}, {"s"}), y = "s";
    if (bias) b.node("Add", {y, "b"}, {"t"}), y = "t";
    return std::move(b.output(y));
}
TEST(PatternNorm, EachSpelling) {
    for (bool rms : {false, true})
        for (Root root : {Root::div, Root::reciprocal, Root::over_one, Root::power})
            for (int parameters = 0; parameters < 3; ++parameters) {
                SCOPED_TRACE(testing::Message() << "rms " << rms << " root " << int(root) << " parameters " << parameters);
                auto b = norm(rms, root, parameters == 1, parameters > 0, parameters > 1);
                expect_pattern(b, rms ? "RMSNormalization" : "LayerNormalization", 1, input);
            }
}
TEST(PatternNorm, WhatOnlyLooksLikeItStays) {
    auto shown = norm(false, Root::div, false, true, true);
    shown.output("var");
    expect_pattern(shown, "LayerNormalization", 0, input);
    auto cube = start();
    cube.constant("three", number(3)).node("Pow", {"x", "three"}, {"sq"}).node("ReduceMean", {"sq", "last"}, {"var"}).node("Add", {"var", "two"}, {"ve"});
    cube.node("Sqrt", {"ve"}, {"sd"}).node("Div", {"x", "sd"}, {"y"}).output("y");
    expect_pattern(cube, "RMSNormalization", 0, input);
    auto axis = start();  // over the middle axis
    axis.constant("middle", ints({1}, {1})).node("Mul", {"x", "x"}, {"sq"}).node("ReduceMean", {"sq", "middle"}, {"var"}).node("Add", {"var", "eps"}, {"ve"});
    axis.node("Sqrt", {"ve"}, {"sd"}).node("Div", {"x", "sd"}, {"y"}).output("y");
    expect_pattern(axis, "RMSNormalization", 0, input);
    auto other = start();  // the mean of another tensor
    other.node("Abs", {"x"}, {"z"}).node("ReduceMean", {"z", "last"}, {"mean"}).node("Sub", {"x", "mean"}, {"d"}).node("Mul", {"d", "d"}, {"sq"});
    other.node("ReduceMean", {"sq", "last"}, {"var"}).node("Add", {"var", "eps"}, {"ve"}).node("Sqrt", {"ve"}, {"sd"}).node("Div", {"d", "sd"}, {"y"}).output("y");
    expect_pattern(other, "LayerNormalization", 0, input);
}
TEST(PatternNorm, AParameterThatIsNoRowStaysAProduct) {
    auto b = start();
    b.constant("column", wave({3, 1})).node("Mul", {"x", "x"}, {"sq"}).node("ReduceMean", {"sq", "last"}, {"var"}).node("Add", {"var", "eps"}, {"ve"});
    b.node("Sqrt", {"ve"}, {"sd"}).node("Div", {"x", "sd"}, {"n"}).node("Mul", {"n", "column"}, {"y"}).output("y");
    expect_pattern(b, "RMSNormalization", 1, input);
}

}  // namespace
