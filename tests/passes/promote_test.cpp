// Half types: what computes in f32 stays in f32 until something needs the half.
#include <quern/tensor/half.hpp>
#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_ints;

namespace {

Tensor halves(const Tensor& x) {
    Tensor h(DType::f16, x.shape());
    for (std::int64_t i = 0; i < x.count(); ++i) h.data<quern::Half>()[i] = quern::to_half(x.data<float>()[i]);
    return h;
}
void near_halves(ModelBuilder& b, const std::vector<quern::NamedTensor>& in) {
    auto plain = b.run(in, {.optimize = false}), full = b.run(in);
    ASSERT_EQ(plain.size(), full.size());
    for (std::size_t o = 0; o < plain.size(); ++o) {
        ASSERT_EQ(full[o].dtype(), plain[o].dtype());
        for (std::int64_t i = 0; i < plain[o].count(); ++i)
            ASSERT_NEAR(quern::to_float(full[o].data<quern::Half>()[i]), quern::to_float(plain[o].data<quern::Half>()[i]), 1e-2) << i;
    }
}
TEST(Promote, BetweenProductsNothingIsRounded) {
    ModelBuilder b;
    b.input("x", DType::f16, {"N", "6", "8"}).constant("w", halves(ramp({8, 8}, 0.02f, -0.2f))).constant("bias", halves(ramp({8}))).constant("v", halves(ramp({6, 8}, 0.02f, -0.2f)));
    b.node("MatMul", {"x", "w"}, {"m"}).node("Add", {"bias", "m"}, {"a"}).node("Gelu", {"a"}, {"g"}).node("Transpose", {"g"}, {"t"}, {attribute_ints("perm", {0, 2, 1})});
    b.node("MatMul", {"t", "v"}, {"y"}).output("y");
    auto text = after(b, "fold_promoted");
    EXPECT_EQ(count(text, "= Cast("), 2) << text;  // the input's and the output's
    near_halves(b, {{"x", halves(ramp({2, 6, 8}))}});
}
TEST(Promote, AShownHalfIsStillMade) {
    ModelBuilder b;
    b.input("x", DType::f16, {"N", "8"}).constant("w", halves(ramp({8, 8}, 0.02f, -0.2f)));
    b.node("MatMul", {"x", "w"}, {"m"}).node("Relu", {"m"}, {"r"}).node("MatMul", {"r", "w"}, {"y"}).output("y").output("r");
    near_halves(b, {{"x", halves(ramp({3, 8}))}});
}
TEST(Promote, AloneTheyComputeInHalves) {
    ModelBuilder b;
    b.input("x", DType::f16, {"N"}).input("z", DType::f16, {"N"}).node("Add", {"x", "z"}, {"s"}).node("Relu", {"s"}, {"y"}).output("y");
    EXPECT_EQ(count(after(b, "fold_promoted"), "= Cast("), 0);
    near_halves(b, {{"x", halves(ramp({40}))}, {"z", halves(ramp({40}, 0.3f))}});
}
/// Normalizations convert rows themselves, unless what they read is at hand in f32.
TEST(Promote, NormalizationsTakeHalves) {
    ModelBuilder b;
    b.input("x", DType::f16, {"N", "8"}).constant("s", halves(ramp({8}))).node("LayerNormalization", {"x", "s"}, {"n"}).node("Softmax", {"n"}, {"y"}).output("y");
    EXPECT_EQ(count(after(b, "fold_promoted"), "= Cast("), 0);
    near_halves(b, {{"x", halves(ramp({5, 8}))}});
    ModelBuilder wide;
    wide.input("x", DType::f16, {"N", "8"}).constant("w", halves(ramp({8, 8}, 0.02f, -0.2f))).constant("s", halves(ramp({8})));
    wide.node("MatMul", {"x", "w"}, {"m"}).node("LayerNormalization", {"m", "s"}, {"n"}).node("Softmax", {"n"}, {"p"}).node("MatMul", {"p", "w"}, {"y"}).output("y");
    EXPECT_EQ(count(after(wide, "fold_promoted"), "= Cast("), 2);  // the input's and the output's
    near_halves(wide, {{"x", halves(ramp({5, 8}))}});
}
TEST(Promote, LargeWeightsAreWidenedOnce) {
    ModelBuilder b;
    b.input("x", DType::f16, {"N", "1024"}).constant("w", halves(ramp({1024, 1024}, 0.001f, -0.01f))).node("MatMul", {"x", "w"}, {"y"}).output("y");
    EXPECT_EQ(count(after(b, "fold_promoted"), "= Cast("), 2);
}

}  // namespace
