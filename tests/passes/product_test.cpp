// Products: flattened rows come back, transposes change sides, factors move into weights.
#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

const std::vector<quern::NamedTensor> rows = {{"x", ramp({2, 3, 8})}};
ModelBuilder start() {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "S", "8"}).constant("w", ramp({8, 12}, 0.02f)).constant("wt", ramp({12, 8}, 0.02f)).constant("b", ramp({12}));
    b.constant("flat", ints({2}, {-1, 8})).constant("unsized", ints({3}, {0, -1, 12})).constant("c", ramp({12}, 0.2f)).constant("half", floats({}, {0.5f}));
    return b;
}
/// The shape [N, S, 12] as exporters compute it.
void unflat(ModelBuilder& b, const std::string& from) {
    b.constant("two", ints({1}, {2})).constant("zero", ints({1}, {0})).constant("twelve", ints({1}, {12}));
    b.node("Shape", {"x"}, {"s"}).node("Slice", {"s", "zero", "two"}, {"s2"}).node("Concat", {"s2", "twelve"}, {"s3"}, {attribute_i("axis", 0)});
    b.node("Reshape", {from, "s3"}, {"y3"});
}
TEST(Products, FlattenedRowsComeBack) {
    for (bool transposed : {false, true}) {
        auto b = start();
        b.node("Reshape", {"x", "flat"}, {"f"}).node("Gemm", {"f", transposed ? "wt" : "w", "b"}, {"g"}, {attribute_i("transB", transposed), attribute_f("alpha", 1.5f)});
        unflat(b, "g");
        b.node("Relu", {"y3"}, {"y"}).output("y");
        auto text = after(b, "fuse");
        EXPECT_EQ(count(text, "quern::FusedMatMul("), 1) << text;
        EXPECT_EQ(count(text, "= Reshape(") + count(text, "= Relu("), 0) << text;
        same_answer(b, rows);
    }
}
TEST(Products, RowsThatOthersReadFlatStayFlat) {
    auto b = start();
    b.node("Reshape", {"x", "flat"}, {"f"}).node("Gemm", {"f", "w", "b"}, {"g"});
    unflat(b, "g");
    b.output("g").output("y3");
    EXPECT_EQ(count(after(b, "products"), "quern::FusedMatMul("), 0);
    same_answer(b, rows);
}
TEST(Products, ATransposeGoesToTheMovementsBehind) {
    auto b = start();
    b.constant("heads", ints({4}, {0, 0, 3, 4})).node("Relu", {"x"}, {"r"}).node("Transpose", {"r"}, {"t"}, {attribute_ints("perm", {1, 0, 2})}).node("MatMul", {"t", "w"}, {"m"});
    b.node("Reshape", {"m", "heads"}, {"h"}).node("Transpose", {"h"}, {"y"}, {attribute_ints("perm", {1, 2, 0, 3})}).output("y");
    auto text = after(b, "products");
    EXPECT_LT(text.find("= MatMul("), text.find("= Transpose(")) << text;
    same_answer(b, rows);
}
TEST(Products, ATransposeGoesToTheMovementsBefore) {
    auto b = start();
    b.constant("join", ints({3}, {0, 0, 8})).constant("apart", ints({4}, {0, 0, 2, 4})).node("Reshape", {"x", "apart"}, {"a"});
    b.node("Transpose", {"a"}, {"t"}, {attribute_ints("perm", {1, 0, 2, 3})}).node("Reshape", {"t", "join"}, {"r"}).node("MatMul", {"r", "w"}, {"m"});
    b.node("Transpose", {"m"}, {"u"}, {attribute_ints("perm", {1, 0, 2})}).node("Relu", {"u"}, {"y"}).output("y");
    auto text = after(b, "fuse");
    EXPECT_EQ(count(text, "= Relu("), 0) << text;  // nothing stands between the product and its activation
    same_answer(b, rows);
}
TEST(Products, ATransposeOfRowsStays) {
    auto b = start();
    b.constant("w3", ramp({3, 12}, 0.02f)).node("Relu", {"x"}, {"r"}).node("Transpose", {"r"}, {"t"}, {attribute_ints("perm", {0, 2, 1})}).node("MatMul", {"t", "w3"}, {"m"});
    b.node("Transpose", {"m"}, {"y"}, {attribute_ints("perm", {0, 2, 1})}).output("y");
    auto text = after(b, "products");
    EXPECT_EQ(count(text, "= Transpose("), 2) << text;
    EXPECT_GT(text.find("= MatMul("), text.find("= Transpose(")) << text;
    same_answer(b, rows);
}
/// A table that one node gathers rows of and others multiply with, turned: language models tie their first and last layer so.
ModelBuilder tied(const std::string& reader) {
    ModelBuilder b;
    b.input("ids", DType::i64, {"N", "S"}).constant("table", ramp({300, 64}, 0.001f)).constant("b", ramp({300}, 0.01f));
    b.node("Gather", {"table", "ids"}, {"x"}).node("Transpose", {"table"}, {"t"}, {attribute_ints("perm", {1, 0})}).node("MatMul", {"x", "t"}, {"m"});
    b.node("Add", {"m", "b"}, {"y"}).output("y");
    if (!reader.empty()) b.node(reader, {"t"}, {"other"}).output("other");
    return b;
}
TEST(Products, ATurnedConstantIsReadWhereItIs) {
    const std::vector<quern::NamedTensor> ids = {{"ids", ints({1, 3}, {7, 299, 0})}};
    auto alone = tied("");
    auto text = after(alone, "products");
    EXPECT_EQ(count(text, "= Transpose("), 0) << text;
    EXPECT_EQ(count(text, "quern::FusedMatMul(x, table=float[300, 64]"), 1) << text;
    EXPECT_EQ(count(text, "transB=1"), 1) << text;
    same_answer(alone, ids);
    for (const char* reader : {"Relu", "Identity"}) {  // somebody needs it in the other order: it is made once
        auto b = tied(reader);
        text = after(b, "products");
        EXPECT_EQ(count(text, "= Transpose(") + count(text, "transB=1"), 0) << text;
        same_answer(b, ids);
    }
    // Both sides constant: the product is one.
    ModelBuilder b;
    b.input("x", DType::f32, {"8", "300"}).constant("l", ramp({8, 64}, 0.01f)).constant("table", ramp({300, 64}, 0.001f));
    b.node("Transpose", {"table"}, {"t"}).node("MatMul", {"l", "t"}, {"m"}).node("Add", {"x", "m"}, {"y"}).output("y");
    text = after(b, "products");
    EXPECT_EQ(count(text, "Transpose(") + count(text, "MatMul("), 0) << text;
    // Without optimization nothing would take the transpose up.
    quern::Options o;
    o.optimize = false;
    EXPECT_EQ(alone.model().compile(o).describe().find("Transpose"), std::string::npos);
}
TEST(FuseScale, AConstantRowOrNumberMovesIntoTheWeights) {
    for (const char* factor : {"c", "half"})
        for (bool transposed : {false, true})
            for (bool bias : {false, true}) {
                ModelBuilder b;
                b.input("x", DType::f32, {"N", "8"}).input("r", DType::f32, {"N", "12"}).constant("w", transposed ? ramp({12, 8}, 0.02f) : ramp({8, 12}, 0.02f)).constant("b", ramp({12}));
                b.constant("c", ramp({12}, 0.2f)).constant("half", floats({}, {0.5f}));
                b.node("Gemm", bias ? std::vector<std::string>{"x", "w", "b"} : std::vector<std::string>{"x", "w"}, {"g"}, {attribute_i("transB", transposed)});
                b.node("Mul", {factor, "g"}, {"m"}).node("Add", {"m", "r"}, {"y"}).output("y");
                auto text = after(b, "fuse");
                EXPECT_EQ(count(text, "= Mul(") + count(text, "= Add("), 0) << text;
                same_answer(b, {{"x", ramp({5, 8})}, {"r", ramp({5, 12}, 0.3f)}});
            }
}
TEST(FuseScale, WeightsAreMultipliedWhenTheyArePacked) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "64"}).constant("w", ramp({64, 200}, 0.02f)).constant("v", ramp({64, 1}, 0.02f)).constant("c", ramp({200}, 0.2f)).constant("d", ramp({1, 200}, 0.1f));
    b.node("MatMul", {"x", "w"}, {"m"}).node("Mul", {"m", "c"}, {"s"}).node("Mul", {"s", "d"}, {"y"}).output("y");
    b.node("MatMul", {"x", "v"}, {"q"}).node("Mul", {"q", "c1"}, {"z"}).constant("c1", floats({1}, {3})).output("z");
    const std::vector<quern::NamedTensor> in = {{"x", ramp({5, 64})}};
    const auto text = after(b, "fuse");
    EXPECT_EQ(count(text, "= Mul("), 0) << text;
    same_answer(b, in, 1e-4);
    quern::Options o;
    o.threads = 1;
    quern::Model m = b.model();
    quern::Engine engine = m.compile(o), again = m.compile(o);
    EXPECT_EQ(again.packed_bytes(), engine.packed_bytes());
    const auto y = engine.run(in);
    const std::string path = testing::TempDir() + "quern_factors.engine";
    engine.save(path);
    const auto z = quern::Engine::load(path, o).run(in);
    ASSERT_EQ(y.size(), z.size());
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(0, std::memcmp(y[i].second.raw(), z[i].second.raw(), y[i].second.bytes()));
    std::remove(path.c_str());
}
TEST(FuseScale, AColumnOrAnInputStaysAProduct) {
    ModelBuilder b;
    b.input("x", DType::f32, {"5", "8"}).input("k", DType::f32, {"12"}).constant("w", ramp({8, 12}, 0.02f)).constant("column", ramp({5, 1}));
    b.node("MatMul", {"x", "w"}, {"g"}).node("Mul", {"g", "column"}, {"m"}).node("MatMul", {"x", "w"}, {"h"}).node("Mul", {"h", "k"}, {"n"}).node("Add", {"m", "n"}, {"y"}).output("y");
    EXPECT_EQ(count(after(b, "fuse"), "= Mul("), 2);
    same_answer(b, {{"x", ramp({5, 8})}, {"k", ramp({12})}});
}

}  // namespace
