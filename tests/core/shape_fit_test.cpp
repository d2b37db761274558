// Shapes that symbols leave open must be verified when they are known.
#include <gtest/gtest.h>

#include "support/op_test.hpp"

using namespace quern;
using namespace quern_test;

namespace {

ErrorCode run(ModelBuilder& b, const std::vector<NamedTensor>& in) {
    std::string bytes = b.bytes();
    auto model = Model::try_from_bytes({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
    if (!model) return ADD_FAILURE() << model.error().what(), model.error().code();
    for (bool optimize : {true, false}) {
        auto engine = model->try_compile({.threads = 1, .optimize = optimize});
        if (!engine) return ADD_FAILURE() << engine.error().what(), engine.error().code();
        auto out = engine->try_run(in);
        if (!out) return out.error().code();
    }
    return ErrorCode::cancelled;  // it ran
}
NamedTensor zeros(const char* name, Shape s) { return {name, Tensor(DType::f32, std::move(s))}; }

TEST(ShapeFit, InnerDimensionsOfMatMul) {
    ModelBuilder b;
    b.input("a", DType::f32, {"M", "K"}).input("b", DType::f32, {"L", "N"}).node("MatMul", {"a", "b"}, {"y"}).output("y");
    EXPECT_EQ(run(b, {zeros("a", {2, 3}), zeros("b", {3, 4})}), ErrorCode::cancelled);
    EXPECT_EQ(run(b, {zeros("a", {2, 3}), zeros("b", {2, 4})}), ErrorCode::shape_mismatch);
    EXPECT_EQ(run(b, {zeros("a", {200, 300}), zeros("b", {1, 400})}), ErrorCode::shape_mismatch);
}
TEST(ShapeFit, OtherDimensionsOfConcat) {
    ModelBuilder b;
    b.input("a", DType::f32, {"M", "K"}).input("b", DType::f32, {"L", "N"}).node("Concat", {"a", "b"}, {"y"}, {onnx::attribute_i("axis", 0)}).output("y");
    EXPECT_EQ(run(b, {zeros("a", {2, 3}), zeros("b", {5, 3})}), ErrorCode::cancelled);
    EXPECT_EQ(run(b, {zeros("a", {2, 3}), zeros("b", {5, 4})}), ErrorCode::shape_mismatch);
}
TEST(ShapeFit, ElementsOfReshape) {
    ModelBuilder b;
    b.input("a", DType::f32, {"M", "K"}).input("b", DType::f32, {"L", "N"}).node("Shape", {"b"}, {"s"}).node("Reshape", {"a", "s"}, {"r"});
    b.node("Add", {"r", "r"}, {"y"}).output("y");
    EXPECT_EQ(run(b, {zeros("a", {2, 6}), zeros("b", {3, 4})}), ErrorCode::cancelled);
    EXPECT_EQ(run(b, {zeros("a", {2, 6}), zeros("b", {300, 400})}), ErrorCode::shape_mismatch);
}
TEST(ShapeFit, Broadcast) {
    ModelBuilder b;
    b.input("a", DType::f32, {"M", "K"}).input("b", DType::f32, {"N"}).node("Add", {"a", "b"}, {"y"}).output("y");
    EXPECT_EQ(run(b, {zeros("a", {2, 3}), zeros("b", {1})}), ErrorCode::cancelled);
    EXPECT_EQ(run(b, {zeros("a", {2, 3}), zeros("b", {2})}), ErrorCode::shape_mismatch);
}

}  // namespace
