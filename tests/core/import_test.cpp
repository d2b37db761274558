// Import: names, scopes, functions, problems.
#include "support/op_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;

namespace {

TEST(Import, EveryProblemIsListedAtOnceWithItsPlace) {
    ModelBuilder b(17);
    b.input("x", DType::f32, {"N"}).node("NoSuchOperator", {"x"}, {"a"}).node("Relu", {"a"}, {"r"}).node("Exp", {"missing"}, {"m"});
    b.node("Concat", {"x", "x"}, {"k"}, {attribute_i("axis", 5)}).node("Special", {"x"}, {"z"}, {}, "com.example").output("r").output("m").output("k").output("z");
    std::string bytes = b.bytes();
    auto problems = quern::check(std::as_bytes(std::span<const char>(bytes)));
    ASSERT_TRUE(problems) << problems.error().what();
    ASSERT_EQ((*problems).size(), 4u);
    EXPECT_EQ((*problems)[0].op, "NoSuchOperator");
    EXPECT_EQ((*problems)[0].opset, 17);
    EXPECT_EQ((*problems)[0].dtype, "float");
    EXPECT_EQ((*problems)[0].code, quern::ErrorCode::unsupported);
    EXPECT_NE((*problems)[1].reason.find("'missing'"), std::string::npos);
    EXPECT_NE((*problems)[2].reason.find("axis 5"), std::string::npos) << (*problems)[2].reason;
    EXPECT_EQ((*problems)[3].domain, "com.example");
    auto r = quern::Model::try_from_bytes(std::as_bytes(std::span<const char>(bytes)));
    ASSERT_FALSE(r);
    EXPECT_NE(std::string(r.error().what()).find("3 more problems"), std::string::npos) << r.error().what();
    EXPECT_NE(std::string(r.error().what()).find("opset 17"), std::string::npos) << r.error().what();
}
TEST(Import, LocalFunctionsAreInlinedWithTheirAttributes) {
    ModelBuilder b;
    b.domain("local", 1).input("x", DType::f32, {"N"});
    quern::onnx::FunctionProto f;
    f.name = "Leak";
    f.domain = "local";
    f.input = {"v"};
    f.output = {"w"};
    f.attribute = {"slope"};
    f.opset_import.push_back({"", 20});
    quern::onnx::NodeProto n;
    n.op_type = "LeakyRelu";
    n.input = {"v"};
    n.output = {"h"};
    auto a = attribute_f("alpha", 0);
    a.ref_attr_name = "slope";
    n.attribute = {a};
    f.node.push_back(n);
    n = {};
    n.op_type = "Neg";
    n.input = {"h"};
    n.output = {"w"};
    f.node.push_back(n);
    b.proto().functions.push_back(f);
    b.node("Leak", {"x"}, {"y"}, {attribute_f("slope", 0.5f)}, "local").node("Leak", {"y"}, {"z"}, {attribute_f("slope", 0.25f)}, "local").output("y").output("z");
    auto out = b.run({{"x", floats({2}, {-2, 4})}});
    expect_near(out[0], floats({2}, {1, -4}));
    expect_near(out[1], floats({2}, {-1, 1}));
}
TEST(Import, FunctionsThatCallThemselvesAreRefused) {
    ModelBuilder b;
    b.domain("local", 1).input("x", DType::f32, {"N"});
    quern::onnx::FunctionProto f;
    f.name = "F";
    f.domain = "local";
    f.input = {"v"};
    f.output = {"w"};
    quern::onnx::NodeProto n;
    n.op_type = "F";
    n.domain = "local";
    n.input = {"v"};
    n.output = {"w"};
    f.node.push_back(n);
    b.proto().functions.push_back(f);
    b.node("F", {"x"}, {"y"}, {}, "local").output("y");
    EXPECT_THROW(b.model(), quern::Error);
}
TEST(Import, NodesOutOfOrderAreSortedAndCyclesAreErrors) {
    ModelBuilder b, c;
    b.input("x", DType::f32, {"N"}).node("Neg", {"h"}, {"y"}).node("Exp", {"x"}, {"h"}).output("y");
    expect_near(b.run({{"x", floats({1}, {0})}})[0], floats({1}, {-1}));
    c.input("x", DType::f32, {"N"}).node("Add", {"x", "b"}, {"a"}).node("Neg", {"a"}, {"b"}).output("b");
    try {
        c.model();
        FAIL();
    } catch (const quern::Error& e) {
        EXPECT_NE(std::string(e.what()).find("cycle"), std::string::npos) << e.what();
    }
}
TEST(Import, AWrongDeclaredOutputIsAWarning) {
    ModelBuilder b;
    std::vector<std::string> warnings;
    b.input("x", DType::f32, {"2", "3"}).node("Relu", {"x"}, {"y"});
    quern::onnx::Dimension d;
    d.has_value = true;
    d.value = 7;
    b.proto().graph.output.push_back(quern::onnx::tensor_info("y", DType::f32, {d, d}));
    std::string bytes = b.bytes();
    quern::LoadOptions o;
    o.log = [&](quern::LogLevel, std::string_view s) { warnings.emplace_back(s); };
    auto m = quern::Model::from_bytes(std::as_bytes(std::span<const char>(bytes)), o);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_NE(warnings[0].find("is declared float[7, 7] but inferred float[2, 3]"), std::string::npos) << warnings[0];
    EXPECT_EQ(m.compile({.threads = 1}).run({{"x", Tensor(DType::f32, {2, 3})}})[0].second.shape(), (quern::Shape{2, 3}));
}
TEST(Import, PortsTellDeclaredDimensions) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "3"}).node("Relu", {"x"}, {"y"}).output("y");
    auto m = b.model();
    ASSERT_EQ(m.inputs().size(), 1u);
    EXPECT_EQ(m.inputs()[0].dims[0].symbol, "N");
    EXPECT_EQ(m.inputs()[0].dims[1].value, 3);
    EXPECT_EQ(m.outputs()[0].dims[0].symbol, "N");
}

TEST(Import, SparseTensorsAndEveryFormOfConstant) {
    Tensor values = floats({2}, {5, -7}), at = ints({2}, {1, 5}), rows = ints({2, 2}, {0, 1, 1, 2});
    quern::onnx::SparseTensor flat, by_axis;
    flat.values = quern::onnx::to_proto(values, "sp");
    flat.indices = quern::onnx::to_proto(at, "");
    flat.dims = {2, 3};
    by_axis.values = quern::onnx::to_proto(values, "");
    by_axis.indices = quern::onnx::to_proto(rows, "");
    by_axis.dims = {2, 3};
    auto sparse = quern::onnx::make_attribute("sparse_value", quern::onnx::AttrType::sparse);
    sparse.sparse = std::make_shared<quern::onnx::SparseTensor>(by_axis);
    ModelBuilder b;
    b.proto().graph.sparse_initializer.push_back(flat);
    b.input("x", DType::f32, {"2", "3"}).node("Constant", {}, {"c"}, {sparse}).node("Add", {"x", "sp"}, {"y"}).node("Add", {"y", "c"}, {"z"});
    b.node("Constant", {}, {"s"}, {quern::onnx::attribute_s("value_string", "one")}).node("Constant", {}, {"l"}, {quern::onnx::attribute_strings("value_strings", {"a", "b"})});
    b.node("Constant", {}, {"f"}, {quern::onnx::attribute_floats("value_floats", {1, 2})}).node("Constant", {}, {"i"}, {quern::onnx::attribute_i("value_int", 3)});
    b.output("z").output("s").output("l").output("f").output("i");
    auto out = b.run({{"x", floats({2, 3}, {1, 1, 1, 1, 1, 1})}});
    expect_near(out[0], floats({2, 3}, {1, 11, 1, 1, 1, -13}));
    EXPECT_EQ(out[1].shape().rank(), 0u);
    EXPECT_EQ(out[1].strings()[0], "one");
    EXPECT_EQ(out[2].strings()[1], "b");
    expect_near(out[3], floats({2}, {1, 2}));
    expect_near(out[4], ints({}, {3}));
    b.proto().graph.sparse_initializer[0].dims = {std::int64_t{1} << 40, std::int64_t{1} << 10};  // a few bytes that declare a petabyte
    EXPECT_THROW(b.model(), quern::Error);
}
TEST(Import, SubgraphsThatAnOperatorMakesPartOfTheGraphHaveDeclaredInputs) {
    ModelBuilder mod, with, without;
    mod.input("s", DType::f32, {"B", "H", "L", "S"}).node("Add", {"s", "s"}, {"t"}).output("t");
    auto x = floats({1, 1, 2, 2}, {1, 2, -3, 0.5f});
    for (auto* b : {&with, &without}) {
        b->domain("ai.onnx.preview", 1).input("q", DType::f32, {"1", "1", "2", "2"});
        std::vector<quern::onnx::Attribute> attrs{quern::onnx::attribute_f("scale", b == &with ? 0.5f : 1.f)};
        if (b == &with) attrs.push_back(quern::onnx::attribute_g("score_mod", mod.proto().graph));
        b->node("FlexAttention", {"q", "q", "q"}, {"y"}, attrs, "ai.onnx.preview").output("y");
    }
    expect_near(with.run({{"q", x}})[0], without.run({{"q", x}})[0]);
}
}  // namespace

// What only such an input reaches is left out of the graph: without a problem the outputs had no producer (found by fuzzing).
TEST(Import, AnOptionalInputWithoutElementTypeIsAProblem) {
    auto problems = quern::check(QUERN_SOURCE_DIR "/tests/fuzz/corpus/optional_of_no_type.onnx").value();
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_NE(problems[0].reason.find("input 'o' has no element type"), std::string::npos) << problems[0].reason;
}
