// What each pass must rewrite and what it must not; every rewritten model still gives the answer of the plain one.
#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_g;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

ModelBuilder conv(std::int64_t group = 1) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "4", "H", "W"}).constant("w", ramp({8, 4 / group, 3, 3})).constant("bias", ramp({8}, 0.2f));
    b.node("Conv", {"x", "w", "bias"}, {"c"}, {attribute_ints("pads", {1, 1, 1, 1}), attribute_i("group", group)});
    return b;
}
const std::vector<quern::NamedTensor> image = {{"x", ramp({2, 4, 6, 5})}};

TEST(Fold, NodesOnConstantsAreComputed) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "2"}).constant("a", floats({2}, {1, 2})).constant("c", floats({2}, {3, 4}));
    b.node("Add", {"a", "c"}, {"s"}).node("Mul", {"x", "s"}, {"y"}).output("y");
    EXPECT_EQ(count(after(b, "fold"), "= Add("), 0);
    same_answer(b, {{"x", floats({1, 2}, {1, 1})}});
}
TEST(Fold, AHostileShapeIsNotExpanded) {
    ModelBuilder b;
    b.constant("n", ints({2}, {1 << 20, 1 << 20})).node("ConstantOfShape", {"n"}, {"y"}).output("y");
    EXPECT_EQ(count(after(b, "final"), "ConstantOfShape("), 1);
}
TEST(Fold, ShapeArithmeticDisappears) {
    ModelBuilder b;  // the way exporters write x.view(N, S, 2, 3).transpose(1, 2)
    b.input("x", DType::f32, {"N", "S", "6"}).constant("zero", ints({}, {0})).constant("one", ints({}, {1})).constant("axes", ints({1}, {0}));
    b.constant("two", ints({1}, {2})).constant("minus", ints({1}, {-1}));
    b.node("Shape", {"x"}, {"s"}).node("Gather", {"s", "zero"}, {"n"}, {attribute_i("axis", 0)}).node("Gather", {"s", "one"}, {"l"}, {attribute_i("axis", 0)});
    b.node("Unsqueeze", {"n", "axes"}, {"n1"}).node("Unsqueeze", {"l", "axes"}, {"l1"});
    b.node("Concat", {"n1", "l1", "two", "minus"}, {"shape"}, {attribute_i("axis", 0)}).node("Reshape", {"x", "shape"}, {"r"});
    b.node("Transpose", {"r"}, {"y"}, {attribute_ints("perm", {0, 2, 1, 3})}).output("y");
    auto m = b.model();
    EXPECT_NE(m.dump("final").find("float[N, 2, S, 3]"), std::string::npos) << m.dump("final");
    auto engine = m.compile({.threads = 1});
    EXPECT_EQ(count(engine.describe(), "\n"), 2) << engine.describe();  // a view and a transpose
    same_answer(b, {{"x", ramp({2, 5, 6})}});
}
TEST(InlineIf, AKnownConditionLeavesOnlyTheBranchTaken) {
    ModelBuilder yes, no, b;
    yes.node("Relu", {"x"}, {"t"}).output("t");
    no.node("Neg", {"x"}, {"e"}).output("e");
    Tensor c(DType::boolean, {});
    b.input("x", DType::f32, {"N"}).constant("c", c);
    b.node("If", {"c"}, {"y"}, {attribute_g("then_branch", yes.proto().graph), attribute_g("else_branch", no.proto().graph)}).output("y");
    auto text = after(b, "final");
    EXPECT_EQ(count(text, "If("), 0) << text;
    EXPECT_EQ(count(text, "Neg("), 1) << text;
    expect_near(b.run({{"x", floats({2}, {1, -2})}})[0], floats({2}, {-1, 2}));
}
TEST(Cse, EqualNodesBecomeOneAndDifferentOnesStay) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N"}).node("Exp", {"x"}, {"a"}).node("Exp", {"x"}, {"b"}).node("LeakyRelu", {"x"}, {"c"}, {attribute_f("alpha", 0.1f)});
    b.node("LeakyRelu", {"x"}, {"d"}, {attribute_f("alpha", 0.2f)}).node("Sum", {"a", "b", "c", "d"}, {"y"}).output("y");
    auto text = after(b, "cse");
    EXPECT_EQ(count(text, "= Exp("), 1) << text;
    EXPECT_EQ(count(text, "= LeakyRelu("), 2) << text;
    same_answer(b, {{"x", floats({3}, {-1, 0, 2})}});
}
TEST(Fuse, ConvolutionTakesNormalizationResidualAndActivation) {
    auto b = conv();
    b.constant("s", ramp({8}, 0.05f, 0.5f)).constant("o", ramp({8})).constant("m", ramp({8})).constant("v", ramp({8}, 0.05f, 0.5f));
    b.constant("w2", ramp({8, 8, 1, 1}));
    b.node("BatchNormalization", {"c", "s", "o", "m", "v"}, {"n"}).node("Relu", {"n"}, {"r"});
    b.node("Conv", {"r", "w2"}, {"c2"}).node("Add", {"c2", "r"}, {"a"}).node("Relu", {"a"}, {"y"}).output("y");
    auto text = after(b, "fuse");
    EXPECT_EQ(count(text, "quern::FusedConv("), 2) << text;
    EXPECT_EQ(count(text, "BatchNormalization(") + count(text, "= Add(") + count(text, "= Relu("), 0) << text;
    same_answer(b, image, 1e-4);
}
TEST(Fuse, AValueThatOthersReadStays) {
    auto b = conv();
    b.node("Relu", {"c"}, {"y"}).output("y").output("c");
    auto text = after(b, "fuse");
    EXPECT_EQ(count(text, "= Relu("), 1) << text;
    same_answer(b, image);
}
TEST(Fuse, AResidualOfAnotherShapeStaysAnAddition) {
    auto b = conv();
    b.input("r", DType::f32, {"N", "8", "1", "1"}).node("Add", {"c", "r"}, {"y"}).output("y");
    EXPECT_EQ(count(after(b, "fuse"), "= Add("), 1);
    same_answer(b, {{"x", ramp({2, 4, 6, 5})}, {"r", ramp({2, 8, 1, 1})}});
}
TEST(Fuse, ATappedValueIsNotFusedAway) {
    auto b = conv();
    b.node("Relu", {"c"}, {"y"}).output("y");
    auto engine = b.model().compile({.threads = 1, .taps = {"c"}});
    quern::Session s(engine);
    s.bind("x", image[0].second);
    s.run();
    float least = 0;
    for (float v : s.tap("c").data<float>()) least = std::min(least, v);
    EXPECT_LT(least, 0);
}
TEST(Fuse, MatmulTakesBiasResidualAndActivation) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "S", "6"}).constant("w", ramp({6, 6})).constant("b", ramp({6}));
    b.node("MatMul", {"x", "w"}, {"m"}).node("Add", {"b", "m"}, {"h"}).node("Gelu", {"h"}, {"g"});
    b.node("MatMul", {"g", "w"}, {"m2"}).node("Add", {"m2", "b"}, {"h2"}).node("Add", {"x", "h2"}, {"y"}).output("y");
    auto text = after(b, "fuse");
    EXPECT_EQ(count(text, "quern::FusedMatMul("), 2) << text;
    EXPECT_EQ(count(text, "= Add(") + count(text, "= Gelu("), 0) << text;
    same_answer(b, {{"x", ramp({2, 3, 6})}}, 1e-4);
}
TEST(Fuse, ABiasOfAllRowsIsNotARow) {
    ModelBuilder b;
    b.input("x", DType::f32, {"3", "6"}).constant("w", ramp({6, 2})).constant("b", ramp({3, 1}));
    b.node("MatMul", {"x", "w"}, {"m"}).node("Add", {"m", "b"}, {"y"}).output("y");
    EXPECT_EQ(count(after(b, "fuse"), "= Add("), 1);
    same_answer(b, {{"x", ramp({3, 6})}});
}
TEST(Layout, TransposesMeetBetweenConvolutionsAndVanish) {
    auto b = conv();
    b.constant("w2", ramp({8, 8, 3, 3})).constant("w3", ramp({4, 16, 1, 1})).node("Sigmoid", {"c"}, {"s"}).node("Mul", {"c", "s"}, {"m"});
    b.node("Conv", {"m", "w2"}, {"c2"}, {attribute_ints("pads", {1, 1, 1, 1})}).node("Concat", {"c2", "m"}, {"k"}, {attribute_i("axis", 1)});
    b.node("Conv", {"k", "w3"}, {"c3"}).node("GlobalAveragePool", {"c3"}, {"y"}).output("y");
    auto text = b.model().dump("final");
    if (count(text, "layout=\"nhwc\"")) {
        EXPECT_EQ(count(text, "= Transpose("), quern::best_isa() == quern::Isa::baseline ? 2 : 1) << text;  // the picture is read as it is, but for the baseline
    }
    same_answer(b, image, 1e-4);
}
TEST(Promote, NarrowIntegersWrapAround) {
    ModelBuilder b;
    b.input("x", DType::u8, {"N"}).node("Add", {"x", "x"}, {"a"}).node("Add", {"a", "x"}, {"y"}).output("y");
    auto y = b.run({{"x", t<std::uint8_t>({3}, {1, 100, 200})}})[0];
    expect_near(y, t<std::uint8_t>({3}, {3, 44, 88}));
}
TEST(Passes, EveryStageVerifiesAndMayBeDumped) {
    auto b = conv();
    b.node("Relu", {"c"}, {"y"}).output("y");
    auto m = b.model();
    for (const char* stage : {"import", "fold", "simplify", "cse", "promote", "fuse", "final"})
        for (const char* format : {"text", "json", "dot"}) EXPECT_FALSE(m.dump(stage, format).empty());
    EXPECT_THROW(m.dump("nonsense"), quern::Error);
    EXPECT_THROW(m.dump("import", "nonsense"), quern::Error);
}

}  // namespace
