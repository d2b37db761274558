// Operators of the application.
#include <stdexcept>

#include "../support/op_test.hpp"

namespace {
using namespace quern_test;
using quern::CustomInfer;
using quern::CustomOp;
using quern::CustomRun;
using quern::Dim;
using quern::ErrorCode;
using quern::Shape;

/// y = x * attribute "by" + state's shift, [..., n] -> the same shape.
CustomOp scale() {
    CustomOp op;
    op.domain = "test.domain", op.name = "Scale";
    op.infer = [](CustomInfer& n) {
        if (n.type(0) != DType::f32) n.unsupported("only float");
        if (n.ranked(0)) n.set(0, DType::f32, n.dims(0));
        else n.set_unranked(0, DType::f32);
    };
    op.prepare = [](const quern::CustomNode& n) { return std::make_shared<const float>(n.f("shift", 0)); };
    op.run = [](const CustomRun& n) {
        auto x = n.input<float>(0);
        auto y = n.output<float>(0);
        const float by = n.attributes().f("by", 2), shift = n.state<float>();
        n.for_each(static_cast<std::int64_t>(x.size()), [&](std::int64_t i) { y[static_cast<std::size_t>(i)] = x[static_cast<std::size_t>(i)] * by + shift; });
    };
    return op;
}
/// The elements above 0: how many is known from the data only.
CustomOp positives() {
    CustomOp op;
    op.domain = "test.domain", op.name = "Positives";
    op.infer = [](CustomInfer& n) { n.set(0, DType::f32, {n.unknown()}); };
    op.sizes = [](const CustomRun& n, std::span<std::vector<std::int64_t>> dims) {
        auto x = n.input<float>(0);
        dims[0] = {std::count_if(x.begin(), x.end(), [](float v) { return v > 0; })};
    };
    op.run = [](const CustomRun& n) {
        auto x = n.input<float>(0);
        std::copy_if(x.begin(), x.end(), n.output<float>(0).begin(), [](float v) { return v > 0; });
    };
    return op;
}
quern::CustomOps with(std::vector<CustomOp> ops) {
    quern::CustomOps l;
    for (auto& op : ops) l.push_back(std::make_shared<const CustomOp>(std::move(op)));
    return l;
}
quern::Model load(const ModelBuilder& b, std::string& bytes, const quern::CustomOps& l) {
    bytes = b.bytes();
    return quern::Model::from_bytes(std::as_bytes(std::span<const char>(bytes)), {}, l);
}
template <class F>
quern::Error error_of(F&& f) {
    try {
        f();
    } catch (const quern::Error& e) {
        return e;
    }
    ADD_FAILURE() << "no error";
    return quern::Error(ErrorCode::internal, "none");
}
ModelBuilder scale_model(std::vector<std::string> dims = {"N", "3"}) {
    ModelBuilder b;
    b.domain("test.domain", 1).input("x", DType::f32, dims);
    b.node("Scale", {"x"}, {"s"}, {quern::onnx::attribute_f("by", 3), quern::onnx::attribute_f("shift", 1)}, "test.domain");
    b.node("Add", {"s", "x"}, {"y"}).output("y");
    return b;
}

TEST(CustomOps, RunsAmongOthersWithSymbolicShapes) {
    auto b = scale_model();
    std::string bytes;
    auto model = load(b, bytes, with({scale()}));
    EXPECT_EQ(model.outputs()[0].dims[0].symbol, "N");  // infer() passes the symbol through
    auto engine = model.compile({.threads = 2});
    EXPECT_EQ(engine.describe().find("segment"), std::string::npos) << engine.describe();
    for (std::int64_t n : {1, 4, 0}) {
        std::vector<float> x(static_cast<std::size_t>(n * 3), 2), want(x.size(), 2 * 3 + 1 + 2);
        expect_near(engine.run({{"x", floats({n, 3}, x)}})[0].second, floats({n, 3}, want));
    }
}
/// The operators live as long as the model and the engine, whatever becomes of the options.
TEST(CustomOps, LiveAsLongAsTheEngine) {
    std::string bytes;
    auto engine = [&] {
        auto b = scale_model();
        auto l = with({scale()});
        return load(b, bytes, l).compile({.threads = 1});
    }();
    expect_near(engine.run({{"x", floats({1, 3}, {0, 1, 2})}})[0].second, floats({1, 3}, {1, 5, 9}));
}
TEST(CustomOps, SizesFromData) {
    ModelBuilder b;
    b.domain("test.domain", 1).input("x", DType::f32, {"N"});
    b.node("Positives", {"x"}, {"p"}, {}, "test.domain").node("Relu", {"p"}, {"y"}).output("y");
    std::string bytes;
    auto engine = load(b, bytes, with({positives()})).compile({.threads = 1});
    expect_near(engine.run({{"x", floats({4}, {1, -1, 2, 3})}})[0].second, floats({3}, {1, 2, 3}));
    expect_near(engine.run({{"x", floats({4}, {-1, -1, 2, -3})}})[0].second, floats({1}, {2}));
    EXPECT_EQ(engine.run({{"x", floats({2}, {-1, -1})}})[0].second.shape(), (Shape{0}));
    CustomOp wrong = positives();
    wrong.sizes = [](const CustomRun&, std::span<std::vector<std::int64_t>> dims) { dims[0] = {-5}; };
    auto bad = load(b, bytes, with({wrong})).compile({.threads = 1});
    EXPECT_EQ(error_of([&] { bad.run({{"x", floats({1}, {1})}}); }).code(), ErrorCode::invalid_argument);
    wrong.sizes = nullptr;
    auto open = load(b, bytes, with({wrong})).compile({.threads = 1});
    EXPECT_EQ(error_of([&] { open.run({{"x", floats({1}, {1})}}); }).code(), ErrorCode::invalid_argument);
}
/// Sizes that infer() gives only once it is asked with numbers.
TEST(CustomOps, SizesLeftOpenUntilTheRun) {
    CustomOp op = scale();
    op.infer = [](CustomInfer& n) {
        const Dim& d = n.dims(0)[0];
        n.set(0, DType::f32, {d.is_const() ? Dim(d.value() / 2) : n.unknown()});
    };
    op.run = [](const CustomRun& n) { std::copy_n(n.input<float>(0).begin(), n.output<float>(0).size(), n.output<float>(0).begin()); };
    ModelBuilder b;
    b.domain("test.domain", 1).input("x", DType::f32, {"N"}).node("Scale", {"x"}, {"y"}, {}, "test.domain").output("y");
    std::string bytes;
    auto engine = load(b, bytes, with({op})).compile({.threads = 1});
    expect_near(engine.run({{"x", floats({5}, {1, 2, 3, 4, 5})}})[0].second, floats({2}, {1, 2}));
    expect_near(engine.run({{"x", floats({2}, {1, 2})}})[0].second, floats({1}, {1}));
}
TEST(CustomOps, ErrorsNameTheNode) {
    auto b = scale_model();
    std::string bytes;
    auto unknown = error_of([&] { load(b, bytes, {}); });
    EXPECT_EQ(unknown.code(), ErrorCode::unsupported);
    auto says = [&](const quern::Error& e, const char* what) {
        EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
        EXPECT_NE(std::string(e.what()).find("node 'Scale0' (test.domain::Scale"), std::string::npos) << e.what();
    };
    CustomOp op = scale();
    op.run = [](const CustomRun&) { throw std::runtime_error("no more paper"); };
    auto engine = load(b, bytes, with({op})).compile({.threads = 1});
    auto thrown = error_of([&] { engine.run({{"x", floats({1, 3}, {0, 0, 0})}}); });
    says(thrown, "no more paper");
    EXPECT_EQ(thrown.code(), ErrorCode::invalid_argument);
    op.run = [](const CustomRun& n) { n.input<double>(0); };
    says(error_of([&] { load(b, bytes, with({op})).compile({.threads = 1}).run({{"x", floats({1, 3}, {0, 0, 0})}}); }), "input 0 is float, not double");
    op.run = [](const CustomRun& n) { n.for_each(10, [](std::int64_t i) { if (i == 7) quern::raise(ErrorCode::cancelled, "seven"); }); };
    auto cancelled = error_of([&] { load(b, bytes, with({op})).compile({.threads = 2}).run({{"x", floats({1, 3}, {0, 0, 0})}}); });
    says(cancelled, "seven");
    EXPECT_EQ(cancelled.code(), ErrorCode::cancelled);
    op = scale();
    op.infer = [](CustomInfer& n) { n.fail("five legs"); };
    says(error_of([&] { load(b, bytes, with({op})); }), "five legs");
    op.infer = [](CustomInfer&) {};
    says(error_of([&] { load(b, bytes, with({op})); }), "sets no type for output 0");
    op = scale();
    op.prepare = [](const quern::CustomNode& n) -> std::shared_ptr<const void> { n.unsupported("no table"); };
    says(error_of([&] { load(b, bytes, with({op})).compile({.threads = 1}); }), "no table");
}
TEST(CustomOps, RegistrationIsChecked) {
    auto b = scale_model();
    std::string bytes;
    EXPECT_EQ(error_of([&] { load(b, bytes, with({scale(), scale()})); }).code(), ErrorCode::invalid_argument);
    CustomOp relu = scale();
    relu.domain = "ai.onnx", relu.name = "Relu";
    EXPECT_EQ(error_of([&] { load(b, bytes, with({relu})); }).code(), ErrorCode::invalid_argument);
    CustomOp empty;
    empty.name = "Empty";
    EXPECT_EQ(error_of([&] { load(b, bytes, with({empty})); }).code(), ErrorCode::invalid_argument);
    relu.replaces_builtin = true;
    ModelBuilder r;
    r.input("x", DType::f32, {"2"}).node("Relu", {"x"}, {"y"}).output("y");
    auto engine = load(r, bytes, with({relu})).compile({.threads = 1});
    expect_near(engine.run({{"x", floats({2}, {-1, 4})}})[0].second, floats({2}, {-2, 8}));  // not the builtin
}
/// A pure operator on constants is computed when compiling; one that is not pure runs each time.
TEST(CustomOps, PureOnesFold) {
    for (bool pure : {true, false}) {
        int runs = 0;
        CustomOp op = scale();
        op.pure = pure;
        op.run = [&runs, run = op.run](const CustomRun& n) { ++runs, run(n); };
        ModelBuilder b;
        b.domain("test.domain", 1).constant("c", floats({2}, {1, 2})).input("x", DType::f32, {"2"});
        b.node("Scale", {"c"}, {"s"}, {}, "test.domain").node("Add", {"s", "x"}, {"y"}).output("y");
        std::string bytes;
        auto engine = load(b, bytes, with({op})).compile({.threads = 1});
        for (int i = 0; i < 3; ++i) expect_near(engine.run({{"x", floats({2}, {0, 0})}})[0].second, floats({2}, {2, 4}));
        EXPECT_EQ(runs, pure ? 1 : 3);
    }
}
/// The file names the operators that the graph still has; they are given again, others do not matter.
TEST(CustomOps, EngineFilesAskForThemAgain) {
    CustomOp relu = scale();
    relu.domain = "", relu.name = "Relu", relu.replaces_builtin = true;
    relu.run = [](const CustomRun& n) { std::copy_n(n.input<float>(0).begin(), n.output<float>(0).size(), n.output<float>(0).begin()); };
    auto b = scale_model();
    b.node("Relu", {"y"}, {"r"}).output("r");
    std::string bytes;
    const std::string path = testing::TempDir() + "quern_custom.engine";
    load(b, bytes, with({scale(), relu})).compile({.threads = 1}).save(path);
    auto engine = quern::Engine::load(path, {.threads = 1}, with({positives(), relu, scale()}));
    auto got = engine.run({{"x", floats({1, 3}, {0, 1, -2})}});
    expect_near(got[0].second, floats({1, 3}, {1, 5, -7}));
    expect_near(got[1].second, floats({1, 3}, {1, 5, -7}));  // not ONNX's Relu
    for (auto& [given, missing] : std::vector<std::pair<quern::CustomOps, std::string>>{{{}, "test.domain::Scale"}, {with({scale()}), "::Relu"}, {with({positives(), relu}), "test.domain::Scale"}}) {
        auto r = quern::Engine::try_load(path, {.threads = 1}, given);
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code(), ErrorCode::unsupported);
        EXPECT_NE(std::string(r.error().what()).find("custom operator '" + missing + "'"), std::string::npos) << r.error().what();
    }
    std::remove(path.c_str());
    // Operators that the graph does not need are not asked for, nor do they take the place of quern's own.
    ModelBuilder plain;
    plain.input("x", DType::f32, {"2"}).node("Relu", {"x"}, {"y"}).output("y");
    load(plain, bytes, with({scale()})).compile({.threads = 1}).save(path);
    expect_near(quern::Engine::load(path, {.threads = 1}, with({relu})).run({{"x", floats({2}, {-1, 1})}})[0].second, floats({2}, {0, 1}));
    std::remove(path.c_str());
}
TEST(CustomOps, ScratchStringsAndAbsentPorts) {
    CustomOp op;
    op.domain = "test.domain", op.name = "Join";
    op.min_inputs = 1, op.max_inputs = 3, op.max_outputs = 2;
    op.infer = [](CustomInfer& n) {
        EXPECT_FALSE(n.has_input(1));
        n.set(0, DType::string, {1});
        n.set(1, DType::i64, {});
    };
    op.scratch = [](const CustomRun& n) { return static_cast<std::size_t>(n.shape(0)[0]) * 8; };
    op.run = [](const CustomRun& n) {
        EXPECT_FALSE(n.has_output(1));
        EXPECT_TRUE(n.has_input(2));
        auto* lengths = reinterpret_cast<std::int64_t*>(n.scratch());
        std::string all;
        for (auto& s : n.input<std::string>(0)) *lengths++ = static_cast<std::int64_t>(s.size()), all += s + n.input<std::string>(2)[0];
        n.output<std::string>(0)[0] = all;
    };
    ModelBuilder b;
    b.domain("test.domain", 1).input("x", DType::string, {"N"}).input("z", DType::string, {"1"});
    b.node("Join", {"x", "", "z"}, {"y"}, {}, "test.domain").output("y");
    std::string bytes;
    auto engine = load(b, bytes, with({op})).compile({.threads = 1});
    auto got = engine.run({{"x", Tensor::from_strings(std::vector<std::string>{"a", "b"}, {2})}, {"z", Tensor::from_strings(std::vector<std::string>{"-"}, {1})}});
    EXPECT_EQ(got[0].second.strings()[0], "a-b-");
}
}  // namespace
