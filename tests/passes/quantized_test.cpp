// What the pass "quantized" makes of DequantizeLinear, operator, QuantizeLinear: within a step of the operators as they stand.
#include <cmath>
#include <random>

#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

template <class T>
Tensor bytes(quern::Shape shape, unsigned seed) {
    std::mt19937 g(seed);
    Tensor r(quern::dtype_of<T>, shape);
    for (T& x : r.data<T>()) x = static_cast<T>(g());
    return r;
}
Tensor number(float v) { return floats({}, {v}); }
template <class T> Tensor zero(int v) { return t<T>({}, {static_cast<T>(v)}); }

/// Input "q" of u8 under (0.02, 128), result scale "ys" with zero point "yz".
ModelBuilder start(std::vector<std::string> dims, int y_zero = 120, float y_scale = 0.25f) {
    ModelBuilder b;
    b.input("q", DType::u8, std::move(dims)).constant("xs", number(0.02f)).constant("xz", zero<std::uint8_t>(128));
    b.constant("ys", number(y_scale)).constant("yz", zero<std::uint8_t>(y_zero));
    b.node("DequantizeLinear", {"q", "xs", "xz"}, {"x"});
    return b;
}
ModelBuilder& finish(ModelBuilder& b, const std::string& v) { return b.node("QuantizeLinear", {v, "ys", "yz"}, {"y"}).output("y"); }
/// After the pass there are `n` of `op` and `left` DequantizeLinear; quantized answers differ by at most `steps`.
void expect_fused(ModelBuilder& b, const char* op, int n, int left, const Tensor& q, int steps = 1) {
    std::string text = b.model().dump("quantized", "text", {.accelerated = false});
    EXPECT_EQ(count(text, std::string(op) + "("), n) << text;
    EXPECT_EQ(count(text, "DequantizeLinear("), left) << text;
    auto plain = b.run({{"q", q}}, {.optimize = false}), full = b.run({{"q", q}});
    ASSERT_EQ(plain.size(), full.size());
    ASSERT_EQ(plain[0].shape(), full[0].shape());
    ASSERT_EQ(plain[0].dtype(), full[0].dtype());
    if (plain[0].dtype() == DType::f32) return expect_near(full[0], plain[0], 1e-4, 1e-4);
    int most = 0, apart = 0;
    for (std::int64_t i = 0; i < full[0].count(); ++i) {
        int d = std::abs(int(plain[0].data<std::uint8_t>()[i]) - int(full[0].data<std::uint8_t>()[i]));
        most = std::max(most, d), apart += d != 0;
    }
    EXPECT_LE(most, steps);
    EXPECT_LE(apart, full[0].count() / 10 + 1);
}
ModelBuilder with_conv(const char* axis_of_scale, int y_zero, bool bias, std::int64_t group = 1) {
    auto b = start({"N", "6", "9", "9"}, y_zero);
    b.constant("w", bytes<std::int8_t>({12, 6 / group, 3, 3}, 5)).constant("wz", axis_of_scale ? Tensor(DType::i8, {12}) : zero<std::int8_t>(0));
    Tensor s(DType::f32, axis_of_scale ? quern::Shape{12} : quern::Shape{});
    for (auto& v : s.data<float>()) v = 0.003f + 0.0003f * float(&v - s.data<float>().data());
    b.constant("ws", s);
    b.node("DequantizeLinear", {"w", "ws", "wz"}, {"wf"}, {attribute_i("axis", 0)});
    std::vector<std::string> in{"x", "wf"};
    if (bias) b.constant("b", floats({12}, std::vector<float>(12, 0.7f))), in.push_back("b");
    b.node("Conv", in, {"c"}, {attribute_ints("pads", {1, 1, 1, 1}), attribute_i("group", group)});
    return b;
}

TEST(Quantized, ConvolutionsOfEachKind) {
    for (bool each : {false, true})
        for (std::int64_t group : {1, 2, 6}) {
            SCOPED_TRACE(group);
            auto b = with_conv(each ? "0" : nullptr, 120, each, group);
            finish(b, "c");
            expect_fused(b, "QLinearConv", 1, 0, bytes<std::uint8_t>({2, 6, 9, 9}, 3));
        }
}
TEST(Quantized, ActivationsBecomeBounds) {
    for (int kind = 0; kind < 4; ++kind) {
        SCOPED_TRACE(kind);
        auto b = with_conv("0", kind == 0 ? 0 : 120, true);
        if (kind < 2) b.node("Relu", {"c"}, {"r"});
        else b.constant("lo", number(kind == 2 ? 0.f : -1.5f)).constant("hi", number(6.f)).node("Clip", {"c", "lo", "hi"}, {kind == 2 ? "r" : "m"});
        if (kind == 3) b.node("Relu", {"m"}, {"r"});
        finish(b, "r");
        // Above a zero point that is the least byte Relu says nothing.
        expect_fused(b, kind == 0 ? " QLinearConv" : "quern::QLinearConv", 1, 0, bytes<std::uint8_t>({1, 6, 9, 9}, 3));
    }
}
TEST(Quantized, BiasOfIntegers) {
    auto b = start({"1", "2", "4", "4"});
    b.constant("w", bytes<std::int8_t>({3, 2, 1, 1}, 5)).constant("ws", number(0.01f)).constant("b", t<std::int32_t>({3}, {700, -3000, 12000})).constant("bs", number(0.0002f));
    b.node("DequantizeLinear", {"w", "ws"}, {"wf"}).node("DequantizeLinear", {"b", "bs"}, {"bf"}).node("Conv", {"x", "wf", "bf"}, {"c"});
    finish(b, "c");
    expect_fused(b, "QLinearConv", 1, 0, bytes<std::uint8_t>({1, 2, 4, 4}, 3));
}
TEST(Quantized, ProductsAndSums) {
    {
        auto b = start({"M", "20"});
        b.constant("w", bytes<std::int8_t>({7, 20}, 5)).constant("ws", floats({7}, {1e-3f, 2e-3f, 3e-3f, 4e-3f, 5e-3f, 6e-3f, 7e-3f})).constant("b", floats({7}, {1, 2, 3, 4, 5, 6, 7}));
        b.node("DequantizeLinear", {"w", "ws"}, {"wf"}, {attribute_i("axis", 0)}).node("Gemm", {"x", "wf", "b"}, {"c"}, {attribute_i("transB", 1)});
        finish(b, "c");
        expect_fused(b, "com.microsoft::QGemm", 1, 0, bytes<std::uint8_t>({5, 20}, 3));
    }
    for (bool turned : {false, true}) {
        auto b = start({"2", "M", "20"});
        b.constant("w", bytes<std::uint8_t>(turned ? quern::Shape{7, 20} : quern::Shape{20, 7}, 5)).constant("ws", number(0.004f)).constant("wz", zero<std::uint8_t>(131));
        b.node("DequantizeLinear", {"w", "ws", "wz"}, {"wf"});
        if (turned) b.node("Transpose", {"wf"}, {"wt"}, {attribute_ints("perm", {1, 0})});
        b.node("MatMul", {"x", turned ? "wt" : "wf"}, {"c"});
        finish(b, "c");
        expect_fused(b, "QLinearMatMul", 1, 0, bytes<std::uint8_t>({2, 3, 20}, 3));
    }
    for (const char* op : {"Add", "Mul"}) {
        auto b = start({"1", "3", "8"}, 100, 0.03f);
        b.constant("k", bytes<std::uint8_t>({3, 1}, 9)).node("DequantizeLinear", {"k", "ys", "yz"}, {"kf"}).node(op, {"x", "kf"}, {"c"});
        finish(b, "c");
        expect_fused(b, op[0] == 'A' ? "com.microsoft::QLinearAdd" : "com.microsoft::QLinearMul", 1, 0, bytes<std::uint8_t>({1, 3, 8}, 3));
    }
}
TEST(Quantized, OneOperandBecomesATable) {
    auto b = start({"N", "50"}, 30, 0.02f);
    b.node("HardSwish", {"x"}, {"h"}).node("LeakyRelu", {"h"}, {"l"}, {attribute_f("alpha", 0.3f)});
    finish(b, "l");
    expect_fused(b, "quern::Lookup8", 1, 0, bytes<std::uint8_t>({9, 50}, 3), 0);
    auto same = start({"N", "50"}, 128, 0.02f);  // what is quantized as it was is gone
    finish(same, "x");
    expect_fused(same, "quern::Lookup8", 0, 0, bytes<std::uint8_t>({2, 50}, 3), 0);
}
TEST(Quantized, MovementIsOfBytes) {
    auto b = start({"1", "3", "8", "8"}, 128, 0.02f);
    b.node("MaxPool", {"x"}, {"p"}, {attribute_ints("kernel_shape", {2, 2}), attribute_ints("strides", {2, 2})});
    finish(b, "p");
    expect_fused(b, "MaxPool", 1, 0, bytes<std::uint8_t>({1, 3, 8, 8}, 3), 0);
    auto other = start({"1", "3", "8", "8"}, 100, 0.02f);  // bytes change: by a table first
    other.node("Transpose", {"x"}, {"p"}, {attribute_ints("perm", {0, 2, 3, 1})});
    finish(other, "p");
    expect_fused(other, "quern::Lookup8", 1, 0, bytes<std::uint8_t>({1, 3, 8, 8}, 3), 0);
}
TEST(Quantized, WhatOthersSeeStays) {
    auto b = with_conv("0", 120, false);
    finish(b, "c").output("c");  // the result in floats is wanted too
    expect_fused(b, "QLinearConv", 0, 2, bytes<std::uint8_t>({1, 6, 9, 9}, 3));
    auto free = start({"1", "4"});
    free.input("s", DType::f32, {});
    free.node("Neg", {"x"}, {"n"}).node("QuantizeLinear", {"n", "s", "yz"}, {"y"}).output("y");
    EXPECT_EQ(count(free.model().dump("quantized", "text", {}), "Lookup8("), 0);
}
TEST(Quantized, ChannelsLastFromEndToEnd) {
    auto b = with_conv("0", 128, true);
    b.node("QuantizeLinear", {"c", "xs", "xz"}, {"q1"}).node("DequantizeLinear", {"q1", "xs", "xz"}, {"x1"});
    b.constant("v", bytes<std::int8_t>({12, 12, 1, 1}, 6)).node("DequantizeLinear", {"v", "ws", "wz"}, {"vf"}, {attribute_i("axis", 0)});
    b.node("Conv", {"x1", "vf"}, {"d"}).node("QuantizeLinear", {"d", "xs", "xz"}, {"q2"}).node("DequantizeLinear", {"q2", "xs", "xz"}, {"x2"});
    b.node("Add", {"x1", "x2"}, {"s"}).node("QuantizeLinear", {"s", "ys", "yz"}, {"q3"}).node("DequantizeLinear", {"q3", "ys", "yz"}, {"x3"});
    b.node("GlobalAveragePool", {"x3"}, {"g"});
    finish(b, "g");
    std::string text = b.model().dump("final", "text", {});
    EXPECT_EQ(count(text, "Transpose("), 2) << text;  // of the input and the output
    expect_fused(b, "com.microsoft::QLinearGlobalAveragePool", 1, 0, bytes<std::uint8_t>({2, 6, 9, 9}, 3), 2);
}
TEST(Quantized, DynamicProductsTakeTheirScales) {
    ModelBuilder b;
    b.input("x", DType::f32, {"B", "S", "24"}).constant("w", bytes<std::int8_t>({24, 10}, 5)).constant("ws", number(0.01f)).constant("wz", zero<std::int8_t>(0)).constant("b", floats({10}, std::vector<float>(10, 0.5f)));
    b.node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"}).node("MatMulInteger", {"q", "w", "z", "wz"}, {"i"}).node("Cast", {"i"}, {"f"}, {attribute_i("to", 1)});
    b.node("Mul", {"s", "ws"}, {"k"}).node("Mul", {"f", "k"}, {"m"}).node("Add", {"b", "m"}, {"y"}).output("y");
    std::string text = b.model().dump("quantized", "text", {});
    EXPECT_EQ(count(text, "com.microsoft::MatMulIntegerToFloat("), 1) << text;
    EXPECT_EQ(count(text, "Add("), 0) << text;
    Tensor x(DType::f32, {2, 3, 24});
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = std::sin(float(i));
    expect_near(b.run({{"x", x}})[0], b.run({{"x", x}}, {.optimize = false})[0], 1e-5, 1e-5);
}

}  // namespace
