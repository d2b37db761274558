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
/// The bytes of a function y = op(x) with an attribute "by" (default 2): x * by.
std::string times(std::string_view domain, std::string_view name, std::int64_t factor_in_body = 0) {
    quern::onnx::FunctionProto f;
    f.domain = domain, f.name = name;
    f.input = {"v"}, f.output = {"w"};
    f.attribute_proto = {attribute_f("by", 2)};
    f.opset_import.push_back({"", 20});
    quern::onnx::NodeProto n;
    n.op_type = "Constant", n.output = {"c"};
    auto a = attribute_f("value_float", float(factor_in_body));
    if (!factor_in_body) a.ref_attr_name = "by";
    n.attribute = {a};
    f.node.push_back(n);
    n = {};
    n.op_type = "Mul", n.input = {"v", "c"}, n.output = {"w"};
    f.node.push_back(n);
    quern::onnx::Writer w;
    write_function(w, 1, f);
    const std::string message = w.take();  // the field's tag and length before it
    std::size_t at = 1;
    while (message[at++] & 0x80) {}
    return message.substr(at);
}
quern::Result<quern::Model> load_with(const std::string& bytes, std::vector<quern::FunctionBody> functions) {
    quern::LoadOptions o;
    o.functions = std::move(functions);
    return quern::Model::try_from_bytes(std::as_bytes(std::span<const char>(bytes)), o);
}
TEST(Import, OperatorsRunThroughBodiesThatTheCallerGives) {
    ModelBuilder b(28);
    b.domain("new.domain", 3).input("x", DType::f32, {"N"});
    b.node("Times", {"x"}, {"y"}, {}, "new.domain").node("Times", {"y"}, {"z"}, {attribute_f("by", 5)}, "new.domain").node("SomeDay", {"z"}, {"u"}, {}, "ai.onnx").output("u");
    const std::string bytes = b.bytes();
    auto model = load_with(bytes, {{times("new.domain", "Times")}, {times("", "SomeDay", 3)}});
    ASSERT_TRUE(model) << model.error().what();
    expect_near(model->compile({.threads = 1}).run({{"x", floats({2}, {1, -2})}})[0].second, floats({2}, {30, -60}));
    auto none = load_with(bytes, {{times("new.domain", "Times")}});
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code(), quern::ErrorCode::unsupported);
    EXPECT_NE(std::string(none.error().what()).find("SomeDay is not implemented; accepted: a custom operator or a function body"), std::string::npos) << none.error().what();
}
TEST(Import, BodiesCountFromTheirOpsetOn) {
    auto run = [](std::int64_t opset, std::vector<quern::FunctionBody> functions) {
        ModelBuilder b(opset);
        b.input("x", DType::f32, {"N"}).node("Neg", {"x"}, {"y"}).output("y");
        const std::string bytes = b.bytes();
        return load_with(bytes, std::move(functions)).value().compile({.threads = 1}).run({{"x", floats({1}, {1})}})[0].second.data<float>()[0];
    };
    const quern::FunctionBody early{times("", "Neg", 7), 13}, later{times("", "Neg", 8), 99}, latest{times("", "Neg", 9), 101};
    EXPECT_EQ(run(100, {early}), -1);  // quern's own is of 13
    EXPECT_EQ(run(20, {early, later}), -1);
    EXPECT_EQ(run(100, {early, later, latest}), 8);
    EXPECT_EQ(run(101, {early, later, latest}), 9);
    ModelBuilder b(20);
    b.domain("new.domain", 3).input("x", DType::f32, {"N"}).node("Times", {"x"}, {"y"}, {}, "new.domain").output("y");
    const std::string bytes = b.bytes();
    auto too_new = load_with(bytes, {{times("new.domain", "Times"), 4}});
    ASSERT_FALSE(too_new);
    EXPECT_NE(std::string(too_new.error().what()).find("since opset 4 of its domain; the model imports opset 3"), std::string::npos) << too_new.error().what();
    EXPECT_TRUE(load_with(bytes, {{times("new.domain", "Times"), 3}}));
}
TEST(Import, BodiesAreChecked) {
    ModelBuilder b(20);
    b.domain("new.domain", 1).input("x", DType::f32, {"N"}).node("Times", {"x", "x"}, {"y"}, {}, "new.domain").output("y");
    const std::string bytes = b.bytes();
    auto says = [&](std::vector<quern::FunctionBody> f, quern::ErrorCode code, const char* what) {
        auto r = load_with(bytes, std::move(f));
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code(), code);
        EXPECT_NE(std::string(r.error().what()).find(what), std::string::npos) << r.error().what();
    };
    says({{""}}, quern::ErrorCode::invalid_argument, "function 0 of LoadOptions::functions");
    says({{times("d", "F")}, {times("d", "F")}}, quern::ErrorCode::invalid_argument, "given twice");
    says({{"\xff\xff"}}, quern::ErrorCode::invalid_model, "function 0 of LoadOptions::functions");
    says({{times("new.domain", "Times")}}, quern::ErrorCode::invalid_model, "2 inputs and 1 outputs; its function accepts up to 1 and 1");
    // A body that stands for itself ends somewhere.
    quern::onnx::FunctionProto f;
    f.domain = "new.domain", f.name = "Times", f.input = {"a", "b"}, f.output = {"w"};
    f.opset_import.push_back({"new.domain", 1});
    quern::onnx::NodeProto n;
    n.op_type = "Times", n.domain = "new.domain", n.input = {"a", "b"}, n.output = {"w"};
    f.node.push_back(n);
    quern::onnx::Writer w;
    write_function(w, 1, f);
    says({{w.take().substr(2)}}, quern::ErrorCode::invalid_model, "64 deep");
}
TEST(Import, AnOpsetOfTheFutureIsAWarning) {
    auto warnings = [](std::int64_t opset) {
        ModelBuilder b(opset);
        b.input("x", DType::f32, {"N"}).node("Neg", {"x"}, {"y"}).output("y");
        const std::string bytes = b.bytes();
        std::string said;
        quern::LoadOptions o;
        o.log = [&](quern::LogLevel, std::string_view line) { said += line; };
        (void)quern::Model::from_bytes(std::as_bytes(std::span<const char>(bytes)), o);
        return said;
    };
    EXPECT_EQ(warnings(28), "");
    EXPECT_NE(warnings(2000).find("opset 2000"), std::string::npos);
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

// Nobody could give a value for it (found by fuzzing).
TEST(Import, AMapInputWithKeysOfNoTypeIsAProblem) {
    auto problems = quern::check(QUERN_SOURCE_DIR "/tests/fuzz/corpus/found_map_key.onnx").value();
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_NE(problems[0].reason.find("input 'm' is a map with keys of type undefined"), std::string::npos) << problems[0].reason;
}
// What only such an input reaches is left out of the graph: without a problem the outputs had no producer (found by fuzzing).
TEST(Import, AnOptionalInputWithoutElementTypeIsAProblem) {
    auto problems = quern::check(QUERN_SOURCE_DIR "/tests/fuzz/corpus/optional_of_no_type.onnx").value();
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_NE(problems[0].reason.find("input 'o' has no element type"), std::string::npos) << problems[0].reason;
}
