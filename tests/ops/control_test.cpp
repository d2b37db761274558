// Loop, Scan, sequences and optionals where ONNX's own cases do not look.
#include <chrono>

#include "support/op_test.hpp"

using namespace quern_test;
using quern::Kind;
using quern::NamedValue;
using quern::Value;
using quern::onnx::attribute_g;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

Tensor flag(bool v) {
    Tensor t(DType::boolean, {});
    t.data<bool>()[0] = v;
    return t;
}
Tensor count(std::int64_t n) { return ints({}, {n}); }
quern::onnx::Attribute body(ModelBuilder& b) { return attribute_g("body", b.proto().graph); }
/// The inputs that every body of Loop has.
ModelBuilder& counted(ModelBuilder& b) { return b.input("i", DType::i64, {}).input("go", DType::boolean, {}); }

std::vector<Value> run_values(ModelBuilder& b, const std::vector<NamedValue>& in, quern::Options o = {}) {
    o.threads = 1;
    std::vector<Value> r;
    for (auto& [name, v] : b.model().compile(o).run_values(in)) r.push_back(v);
    return r;
}
template <class F>
std::string error_of(F&& f, quern::ErrorCode code) {
    try {
        f();
    } catch (const quern::Error& e) {
        EXPECT_EQ(int(e.code()), int(code)) << e.what();
        return e.what();
    }
    ADD_FAILURE() << "no error";
    return "";
}

quern::onnx::ValueInfo optional_port(const char* name, bool of_sequence) {
    quern::onnx::ValueInfo v;
    v.name = name;
    auto tensor = std::make_shared<quern::onnx::TypeProto>();
    tensor->kind = quern::onnx::TypeProto::tensor;
    tensor->elem_type = 1;
    v.type.kind = quern::onnx::TypeProto::optional;
    v.type.elem = tensor;
    if (of_sequence) {
        v.type.elem = std::make_shared<quern::onnx::TypeProto>();
        v.type.elem->kind = quern::onnx::TypeProto::sequence;
        v.type.elem->elem = tensor;
    }
    return v;
}
/// y = x + x + ... (n times), and every partial sum times its number.
struct Sums {
    ModelBuilder inner, b;
    explicit Sums(bool with_count = true, bool with_condition = true) {
        counted(inner).input("acc", DType::f32, {"K"});
        inner.node("Add", {"acc", "x"}, {"next"}).node("Cast", {"i"}, {"f"}, {attribute_i("to", 1)}).node("Mul", {"next", "f"}, {"part"});
        inner.node("Identity", {"go"}, {"on"}).output("on").output("next").output("part");
        b.input("n", DType::i64, {}).input("c", DType::boolean, {}).input("x", DType::f32, {"N"}).input("first", DType::f32, {"N"});
        b.node("Loop", {with_count ? "n" : "", with_condition ? "c" : "", "first"}, {"y", "parts"}, {body(inner)}).output("y").output("parts");
    }
};

TEST(Loop, CarriesAndStacks) {
    Sums s;
    auto engine = s.b.model().compile({.threads = 1});
    auto x = floats({2}, {1, -2}), first = floats({2}, {10, 20});
    for (std::int64_t n : {3, 0, 1, 7, 3, -4}) {
        auto out = engine.run({{"n", count(n)}, {"c", flag(true)}, {"x", x}, {"first", first}});
        const float m = float(std::max<std::int64_t>(n, 0));
        expect_near(out[0].second, floats({2}, {10 + m, 20 - 2 * m}));
        ASSERT_EQ(out[1].second.shape(), (quern::Shape{std::int64_t(m), 2})) << n;
        for (int k = 0; k < int(m); ++k) EXPECT_EQ(out[1].second.data<float>()[2 * k + 1], float(k) * (20 - 2 * float(k + 1)));
        out = engine.run({{"n", count(n)}, {"c", flag(false)}, {"x", x}, {"first", first}});
        expect_near(out[0].second, first);
        EXPECT_EQ(out[1].second.shape(), (quern::Shape{0, 2}));
    }
}
TEST(Loop, CountAndConditionMayBeAbsent) {
    Sums without_condition(true, false);
    expect_near(without_condition.b.run({{"n", count(2)}, {"c", flag(false)}, {"x", floats({1}, {1})}, {"first", floats({1}, {0})}})[0], floats({1}, {2}));
    // Doubles until the sum exceeds the limit, which the body takes from outside.
    ModelBuilder inner, b;
    counted(inner).input("v", DType::f32, {});
    inner.node("Add", {"v", "v"}, {"w"}).node("Less", {"w", "limit"}, {"on"}).output("on").output("w").output("v");
    b.input("limit", DType::f32, {}).input("v0", DType::f32, {}).node("Loop", {"", "", "v0"}, {"last", "all"}, {body(inner)}).output("last").output("all");
    auto out = b.run({{"limit", floats({}, {100})}, {"v0", floats({}, {3})}});
    expect_near(out[0], floats({}, {192}));
    expect_near(out[1], floats({6}, {3, 6, 12, 24, 48, 96}));
    // Neither count nor condition is named at all, and the body captures everything that it needs.
    ModelBuilder bare, c;
    counted(bare).node("Less", {"i", "most"}, {"on"}).output("on").output("i");
    c.input("most", DType::i64, {}).node("Loop", {}, {"ticks"}, {body(bare)}).output("ticks");
    expect_near(c.run({{"most", count(3)}})[0], ints({4}, {0, 1, 2, 3}));
    c.proto().opset_import[0].version = 9;
    expect_near(c.run({{"most", count(1)}})[0], ints({2}, {0, 1}));
}
TEST(Loop, ShapesAndRanksMayChange) {
    ModelBuilder inner, b;
    counted(inner).input("list", DType::i64, {}).input("deep", DType::f32, {});  // declared wrong, as some exporters do
    inner.node("Unsqueeze", {"i", "zero"}, {"one"}).node("Concat", {"list", "one"}, {"longer"}, {attribute_i("axis", 0)});
    inner.node("Unsqueeze", {"deep", "zero"}, {"deeper"}).node("Identity", {"go"}, {"on"}).output("on").output("longer").output("deeper");
    b.input("n", DType::i64, {}).input("list0", DType::i64, {"L"}).input("x", DType::f32, {"2"}).constant("zero", ints({1}, {0}));
    b.node("Loop", {"n", "", "list0", "x"}, {"list", "deep"}, {body(inner)}).node("ReduceSum", {"list"}, {"sum"}, {attribute_i("keepdims", 0)}).node("Abs", {"deep"}, {"abs"});
    b.output("list").output("sum").output("abs");
    auto engine = b.model().compile({.threads = 1});
    for (std::int64_t n : {4, 0, 20, 4}) {
        auto out = engine.run({{"n", count(n)}, {"list0", ints({2}, {7, 8})}, {"x", floats({2}, {-1, 2})}});
        ASSERT_EQ(out[0].second.shape(), (quern::Shape{2 + n}));
        for (std::int64_t i = 0; i < n; ++i) EXPECT_EQ(out[0].second.data<std::int64_t>()[std::size_t(2 + i)], i);
        EXPECT_EQ(out[1].second.data<std::int64_t>()[0], 15 + n * (n - 1) / 2);
        ASSERT_EQ(out[2].second.shape().rank(), std::size_t(n + 1));
        EXPECT_EQ(out[2].second.data<float>()[0], 1.f);
    }
}
TEST(Loop, NestsAndCapturesFromBothLevels) {
    // y[a][b] = base + a * b for a < n, b < m
    ModelBuilder inner, outer, b;
    inner.input("j", DType::i64, {}).input("jgo", DType::boolean, {});
    inner.node("Mul", {"i", "j"}, {"ij"}).node("Add", {"ij", "base"}, {"v"}).node("Identity", {"jgo"}, {"on"}).output("on").output("v");
    counted(outer).input("last", DType::i64, {"M"}).node("Loop", {"m", ""}, {"row"}, {body(inner)}).node("Identity", {"go"}, {"on"});
    outer.output("on").output("row").output("row");
    b.input("n", DType::i64, {}).input("m", DType::i64, {}).input("base", DType::i64, {}).input("none", DType::i64, {"K"});
    b.node("Loop", {"n", "", "none"}, {"last", "y"}, {body(outer)}).output("y").output("last");
    auto engine = b.model().compile({.threads = 1});
    for (auto [n, m] : {std::pair<std::int64_t, std::int64_t>{3, 4}, {5, 1}, {3, 4}}) {
        auto out = engine.run({{"n", count(n)}, {"m", count(m)}, {"base", count(100)}, {"none", ints({0}, {})}});
        ASSERT_EQ(out[0].second.shape(), (quern::Shape{n, m}));
        for (std::int64_t p = 0; p < n * m; ++p) EXPECT_EQ(out[0].second.data<std::int64_t>()[std::size_t(p)], 100 + (p / m) * (p % m));
        EXPECT_EQ(out[1].second.shape(), (quern::Shape{m}));
    }
}
TEST(Loop, SizesThatDoNotChangeAreKnownOutside) {
    Sums s;
    std::string text = s.b.model().dump("import");
    EXPECT_NE(text.find("y: float[N]"), std::string::npos) << text;
    ModelBuilder inner, b;
    counted(inner).input("v", DType::f32, {}).node("Neg", {"v"}, {"w"}).node("Identity", {"go"}, {"on"}).output("on").output("w").output("w");
    b.input("x", DType::f32, {"3", "N"}).constant("n", count(5)).constant("c", flag(true)).node("Loop", {"n", "c", "x"}, {"y", "ys"}, {body(inner)}).output("y").output("ys");
    text = b.model().dump("import");
    EXPECT_NE(text.find("y: float[3, N], ys: float[5, 3, N]"), std::string::npos) << text;
}
TEST(Loop, StringsAndConstantsAreCarried) {
    ModelBuilder inner, b;
    counted(inner).input("s", DType::string, {"1"}).node("StringConcat", {"s", "tail"}, {"t"}).node("Identity", {"go"}, {"on"}).output("on").output("t").output("s");
    b.input("n", DType::i64, {}).constant("s0", Tensor::from_strings(std::vector<std::string>{"a"}, {1})).constant("tail", Tensor::from_strings(std::vector<std::string>{"b"}, {1}));
    b.node("Loop", {"n", "", "s0"}, {"last", "all"}, {body(inner)}).output("last").output("all");
    auto out = b.run({{"n", count(3)}});
    EXPECT_EQ(out[0].strings()[0], "abbb");
    ASSERT_EQ(out[1].shape(), (quern::Shape{3, 1}));
    EXPECT_EQ(out[1].strings()[2], "abb");
}
TEST(Loop, HostileBodiesAreErrors) {
    auto with = [](auto&& make, std::vector<std::string> in, std::vector<std::string> out) {
        ModelBuilder inner, b;
        make(inner);
        b.input("n", DType::i64, {}).input("x", DType::f32, {"N"}).node("Loop", std::move(in), std::move(out), {body(inner)}).output("y");
        return b.model();
    };
    using B = ModelBuilder;
    // Another type comes back.
    error_of([&] { with([](B& i) { counted(i).input("v", DType::f32, {}).node("Shape", {"v"}, {"w"}).node("Identity", {"go"}, {"on"}).output("on").output("w"); }, {"n", "", "x"}, {"y"}); }, quern::ErrorCode::invalid_model);
    // Fewer inputs and fewer outputs than carried values; no outputs at all.
    error_of([&] { with([](B& i) { counted(i).node("Identity", {"go"}, {"on"}).output("on").output("x"); }, {"n", "", "x"}, {"y"}); }, quern::ErrorCode::invalid_model);
    error_of([&] { with([](B& i) { counted(i).input("v", DType::f32, {}).node("Identity", {"go"}, {"on"}).output("on"); }, {"n", "", "x"}, {"y"}); }, quern::ErrorCode::invalid_model);
    error_of([&] { with([](B& i) { counted(i).node("Identity", {"go"}, {"on"}); }, {"n", ""}, {"y"}); }, quern::ErrorCode::invalid_model);
    // A condition that is no bool; more outputs than the body gives.
    error_of([&] { with([](B& i) { counted(i).output("i").output("x"); }, {"n", ""}, {"y"}); }, quern::ErrorCode::invalid_model);
    error_of([&] { with([](B& i) { counted(i).output("go"); }, {"n", ""}, {"y"}); }, quern::ErrorCode::invalid_model);
}
TEST(Loop, EndlessLoopsAreBoundByTimeAndMemory) {
    ModelBuilder inner, b;
    counted(inner).node("Identity", {"go"}, {"on"}).output("on").output("x");
    b.input("x", DType::f32, {"N"}).constant("n", count(INT64_MAX)).node("Loop", {"n", ""}, {"y"}, {body(inner)}).output("y");
    auto limited = b.model().compile({.threads = 1, .memory_limit = 1 << 20});
    auto r = limited.try_run({{"x", Tensor(DType::f32, {1000})}});
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code(), quern::ErrorCode::out_of_memory) << r.error().what();
    auto timed = b.model().compile({.threads = 1, .deadline = 0.05});
    auto start = std::chrono::steady_clock::now();
    r = timed.try_run({{"x", Tensor(DType::f32, {0})}});
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code(), quern::ErrorCode::deadline_exceeded) << r.error().what();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}
TEST(Loop, SlicesOfDifferentShapesAreAnError) {
    ModelBuilder inner, b;
    counted(inner).node("Range", {"zero", "i", "one"}, {"r"}).node("Identity", {"go"}, {"on"}).output("on").output("r");
    b.input("n", DType::i64, {}).constant("zero", count(0)).constant("one", count(1)).node("Loop", {"n", ""}, {"y"}, {body(inner)}).output("y");
    auto engine = b.model().compile({.threads = 1});
    EXPECT_EQ(engine.run({{"n", count(1)}})[0].second.shape(), (quern::Shape{1, 0}));
    auto r = engine.try_run({{"n", count(3)}});
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code(), quern::ErrorCode::shape_mismatch);
    EXPECT_EQ(engine.run({{"n", count(1)}})[0].second.shape(), (quern::Shape{1, 0}));
}
TEST(Loop, ProfilesCountTheBodyOnce) {
    Sums s;
    auto engine = s.b.model().compile({.threads = 1});
    EXPECT_NE(engine.describe().find("  subgraph test\n"), std::string::npos) << engine.describe();
    quern::Session session(engine);
    auto n = count(20), c = flag(true), x = floats({1}, {1});
    session.bind("n", n);
    session.bind("c", c);
    session.bind("x", x);
    session.bind("first", x);
    session.profile(true);
    session.run();
    double inner = 0, outer = 0, all = 0;
    int muls = 0;
    for (auto& t : session.times()) {
        (t.op == "Loop" ? outer : inner) += t.micros;
        all += t.micros - t.inner_us;
        muls += t.op == "Mul";
    }
    EXPECT_EQ(muls, 20);
    EXPECT_LE(inner, outer);
    EXPECT_NEAR(all, outer, 1e-6 * outer);
    EXPECT_NE(session.profile_table().find("(20 runs)"), std::string::npos) << session.profile_table();
}
TEST(Loop, SavedModelsKeepTheirBodies) {
    Sums s;
    auto m = s.b.model();
    std::vector<quern::NamedTensor> in{{"n", count(4)}, {"c", flag(true)}, {"x", floats({2}, {1, 2})}, {"first", floats({2}, {0, 0})}};
    auto want = m.compile({.threads = 1}).run(in);
    for (std::string stage : {"import", "final"}) {
        std::string path = std::string(QUERN_BINARY_DIR) + "/saved_loop_" + stage + ".onnx";
        ASSERT_TRUE(m.save(path, stage));
        auto again = quern::Model::load(path).compile({.threads = 1}).run(in);
        for (std::size_t o = 0; o < want.size(); ++o) expect_near(again[o].second, want[o].second, 0, 0);
    }
}

/// Running sums of "x" along `axis`, backward where asked, and the last one.
struct Running {
    ModelBuilder inner, b;
    explicit Running(std::vector<quern::onnx::Attribute> attrs, std::int64_t opset = 20, bool lens = false, std::vector<std::string> dims = {"A", "B"}) : inner(opset), b(opset) {
        inner.input("s", DType::f32, {"K"}).input("v", DType::f32, {"K"}).node("Add", {"s", "v"}, {"t"}).node("Identity", {"t"}, {"u"}).output("t").output("u");
        attrs.push_back(body(inner));
        attrs.push_back(attribute_i("num_scan_inputs", 1));
        std::vector<std::string> in{"s0", "x"};
        if (opset < 9) in.insert(in.begin(), lens ? "lens" : "");
        if (lens) b.input("lens", DType::i64, {"B"});
        if (opset < 9) b.input("s0", DType::f32, {"B", "K"}).input("x", DType::f32, {"B", "T", "K"});
        else b.input("s0", DType::f32, {"K"}).input("x", DType::f32, dims);
        b.node("Scan", in, {"last", "sums"}, attrs).output("last").output("sums");
    }
};
TEST(Scan, AlongAnyAxisInBothDirections) {
    auto x = floats({2, 3}, {1, 2, 3, 4, 5, 6});
    auto out = Running({}).b.run({{"s0", floats({3}, {0, 0, 10})}, {"x", x}});
    expect_near(out[0], floats({3}, {5, 7, 19}));
    expect_near(out[1], floats({2, 3}, {1, 2, 13, 5, 7, 19}));
    out = Running({attribute_ints("scan_input_axes", {1}), attribute_ints("scan_output_axes", {-1})}).b.run({{"s0", floats({2}, {0, 0})}, {"x", x}});
    expect_near(out[0], floats({2}, {6, 15}));
    expect_near(out[1], floats({2, 3}, {1, 3, 6, 4, 9, 15}));
    out = Running({attribute_ints("scan_input_directions", {1})}).b.run({{"s0", floats({3}, {0, 0, 0})}, {"x", x}});
    expect_near(out[1], floats({2, 3}, {4, 5, 6, 5, 7, 9}));
    out = Running({attribute_ints("scan_output_directions", {1})}).b.run({{"s0", floats({3}, {0, 0, 0})}, {"x", x}});
    expect_near(out[1], floats({2, 3}, {5, 7, 9, 1, 2, 3}));
    out = Running({}, 20, false, {"A", "K"}).b.run({{"s0", floats({3}, {1, 2, 3})}, {"x", Tensor(DType::f32, {0, 3})}});
    expect_near(out[0], floats({3}, {1, 2, 3}));
    EXPECT_EQ(out[1].shape(), (quern::Shape{0, 3}));
}
TEST(Scan, BatchesOfOpset8) {
    auto x = floats({2, 3, 1}, {1, 2, 3, 4, 5, 6});
    auto out = Running({}, 8).b.run({{"s0", floats({2, 1}, {0, 100})}, {"x", x}});
    expect_near(out[0], floats({2, 1}, {6, 115}));
    expect_near(out[1], floats({2, 3, 1}, {1, 3, 6, 104, 109, 115}));
    out = Running({}, 8, true).b.run({{"lens", ints({2}, {3, 1})}, {"s0", floats({2, 1}, {0, 100})}, {"x", x}});
    expect_near(out[0], floats({2, 1}, {6, 104}));
    expect_near(out[1], floats({2, 3, 1}, {1, 3, 6, 104, 0, 0}));
}
TEST(Scan, WrongAttributesAreErrors) {
    for (auto& a : {attribute_ints("scan_input_axes", {2}), attribute_ints("scan_input_axes", {0, 0}), attribute_ints("scan_output_axes", {-4}), attribute_i("num_scan_inputs", 3), attribute_i("num_scan_inputs", -1)}) {
        ModelBuilder inner, b;
        inner.input("s", DType::f32, {"K"}).input("v", DType::f32, {"K"}).node("Add", {"s", "v"}, {"t"}).output("t").output("v");
        b.input("s0", DType::f32, {"K"}).input("x", DType::f32, {"A", "B"});
        std::vector<quern::onnx::Attribute> attrs{body(inner), a};
        if (a.name != "num_scan_inputs") attrs.push_back(attribute_i("num_scan_inputs", 1));
        b.node("Scan", {"s0", "x"}, {"l", "y"}, attrs).output("y");
        error_of([&] { b.model(); }, quern::ErrorCode::invalid_model);
    }
}

TEST(Sequence, PositionsAndValueSemantics) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N"}).input("y", DType::f32, {"M"}).input("p", DType::i64, {});
    b.node("SequenceConstruct", {"x", "y"}, {"two"}).node("SequenceInsert", {"two", "x", "p"}, {"three"}).node("SequenceErase", {"three", "p"}, {"less"});
    b.node("SequenceLength", {"three"}, {"n"}).node("SequenceAt", {"three", "p"}, {"at"});
    b.output("two").output("three").output("less").output("n").output("at");
    auto x = floats({1}, {1}), y = floats({2}, {2, 3});
    for (std::int64_t p : {0, 1, -1, -2}) {
        auto out = run_values(b, {{"x", x}, {"y", y}, {"p", count(p)}});
        ASSERT_EQ(out[0].size(), 2u) << p;
        ASSERT_EQ(out[1].size(), 3u) << p;
        EXPECT_EQ(out[2].size(), 2u) << p;
        EXPECT_EQ(out[3].tensor().data<std::int64_t>()[0], 3) << p;
        expect_near(out[1][std::size_t(p < 0 ? p + 2 : p)].tensor(), x);
        expect_near(out[0][1].tensor(), y);
        expect_near(out[4].tensor(), out[1][std::size_t(p < 0 ? p + 3 : p)].tensor());
    }
    for (std::int64_t p : {3, -3}) error_of([&] { run_values(b, {{"x", x}, {"y", y}, {"p", count(p)}}); }, quern::ErrorCode::invalid_argument);
}
TEST(Sequence, GrowsInALoopAndJoins) {
    ModelBuilder inner, b;
    counted(inner);
    quern::onnx::ValueInfo v;
    v.name = "list";
    v.type.kind = quern::onnx::TypeProto::sequence;
    v.type.elem = std::make_shared<quern::onnx::TypeProto>();
    v.type.elem->kind = quern::onnx::TypeProto::tensor;
    v.type.elem->elem_type = 1;
    inner.proto().graph.input.push_back(v);
    inner.node("Cast", {"i"}, {"f"}, {attribute_i("to", 1)}).node("Mul", {"x", "f"}, {"xf"}).node("SequenceInsert", {"list", "xf"}, {"more"}).node("Identity", {"go"}, {"on"}).output("on").output("more");
    b.input("n", DType::i64, {}).input("x", DType::f32, {"2"}).node("SequenceEmpty", {}, {"empty"}).node("Loop", {"n", "", "empty"}, {"list"}, {body(inner)});
    b.node("ConcatFromSequence", {"list"}, {"flat"}, {attribute_i("axis", 0)}).node("ConcatFromSequence", {"list"}, {"stack"}, {attribute_i("axis", -1), attribute_i("new_axis", 1)});
    b.output("list").output("flat").output("stack");
    auto engine = b.model().compile({.threads = 1});
    quern::Session s(engine);
    Value kept;
    for (std::int64_t n : {3, 5, 3}) {
        Tensor trips = count(n), x = floats({2}, {1, 10});
        s.bind("n", trips);
        s.bind("x", x);
        s.run();
        ASSERT_EQ(s.output_value("list").size(), std::size_t(n));
        expect_near(s.output_value("list")[2].tensor(), floats({2}, {2, 20}));
        ASSERT_EQ(s.output("flat").shape(), (quern::Shape{2 * n}));
        ASSERT_EQ(s.output("stack").shape(), (quern::Shape{2, n}));
        EXPECT_EQ(s.output("stack").data<float>()[std::size_t(n + 2)], 20.f);
        if (n == 5) kept = s.output_value("list");
    }
    ASSERT_EQ(kept.size(), 5u);  // a copy of the caller's outlives the runs
    expect_near(kept[4].tensor(), floats({2}, {4, 40}));
    EXPECT_THROW(s.output("list"), quern::Error);
    EXPECT_THROW(s.bind_output("list", Tensor(DType::f32, {2})), quern::Error);
    EXPECT_FALSE(engine.try_run({{"n", count(1)}, {"x", floats({2}, {1, 1})}}));
    error_of([&] { run_values(b, {{"n", count(0)}, {"x", floats({2}, {1, 10})}}); }, quern::ErrorCode::invalid_argument);
    auto limited = b.model().compile({.threads = 1, .memory_limit = 1 << 20});
    auto r = limited.try_run_values({{"n", count(INT64_MAX)}, {"x", floats({2}, {1, 10})}});
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code(), quern::ErrorCode::out_of_memory);
}
TEST(Sequence, SplitsAlongAnAxis) {
    auto x = floats({2, 3}, {1, 2, 3, 4, 5, 6});
    auto split = [&](std::vector<std::string> in, std::vector<quern::onnx::Attribute> a, Tensor sizes = Tensor()) {
        ModelBuilder b;
        b.input("x", DType::f32, {"A", "B"});
        if (sizes.defined()) b.constant("s", sizes);
        b.node("SplitToSequence", in, {"y"}, a).output("y");
        return run_values(b, {{"x", x}})[0];
    };
    Value v = split({"x"}, {attribute_i("axis", 1), attribute_i("keepdims", 0)});
    ASSERT_EQ(v.size(), 3u);
    expect_near(v[2].tensor(), floats({2}, {3, 6}));
    v = split({"x", "s"}, {attribute_i("axis", -1)}, count(2));
    ASSERT_EQ(v.size(), 2u);
    expect_near(v[0].tensor(), floats({2, 2}, {1, 2, 4, 5}));
    expect_near(v[1].tensor(), floats({2, 1}, {3, 6}));
    v = split({"x", "s"}, {attribute_i("axis", 1), attribute_i("keepdims", 0)}, ints({3}, {0, 1, 2}));
    ASSERT_EQ(v.size(), 3u);
    EXPECT_EQ(v[0].tensor().shape(), (quern::Shape{2, 0}));
    expect_near(v[2].tensor(), floats({2, 2}, {2, 3, 5, 6}));
    for (auto s : {ints({2}, {1, 1}), ints({2}, {-1, 4}), ints({2}, {INT64_MAX, INT64_MAX}), count(0), count(-2)})
        error_of([&] { split({"x", "s"}, {attribute_i("axis", 1)}, s); }, quern::ErrorCode::invalid_argument);
}
TEST(Sequence, MapsABodyOverItsElements) {
    ModelBuilder inner, b;
    inner.input("e", DType::f32, {"K"}).input("t", DType::f32, {}).node("Mul", {"e", "t"}, {"m"}).node("Add", {"m", "outer"}, {"r"}).node("Shape", {"e"}, {"sh"}).output("r").output("sh");
    b.input("x", DType::f32, {"N"}).input("y", DType::f32, {"M"}).input("t", DType::f32, {}).input("outer", DType::f32, {});
    b.node("SequenceConstruct", {"x", "y", "x"}, {"list"}).node("SequenceMap", {"list", "t"}, {"r", "sh"}, {body(inner)}).output("r").output("sh");
    auto out = run_values(b, {{"x", floats({1}, {1})}, {"y", floats({2}, {2, 3})}, {"t", floats({}, {10})}, {"outer", floats({}, {0.5f})}});
    ASSERT_EQ(out[0].size(), 3u);
    expect_near(out[0][1].tensor(), floats({2}, {20.5f, 30.5f}));
    expect_near(out[0][2].tensor(), floats({1}, {10.5f}));
    expect_near(out[1][1].tensor(), ints({1}, {2}));
}
TEST(Sequence, SavedModelsKeepKindsAndTypes) {
    ModelBuilder b;
    b.proto().graph.input.push_back(optional_port("o", true));
    b.input("x", DType::f32, {"N"}).node("OptionalHasElement", {"o"}, {"has"}).node("SequenceConstruct", {"x"}, {"s"}).node("SequenceInsert", {"s", "x"}, {"t"});
    auto type = quern::onnx::make_attribute("type", quern::onnx::AttrType::tp);
    type.tp = std::make_shared<quern::onnx::TypeProto>(*b.proto().graph.input[0].type.elem);
    b.node("Optional", {}, {"none"}, {type}).output("has").output("t").output("none");
    auto m = b.model();
    EXPECT_EQ(m.inputs()[0].kind, Kind::optional);
    EXPECT_EQ(m.inputs()[0].elem->kind, Kind::sequence);
    EXPECT_EQ(m.outputs()[1].kind, Kind::sequence);
    EXPECT_EQ(m.outputs()[1].elem->dtype, DType::f32);
    std::string path = std::string(QUERN_BINARY_DIR) + "/saved_kinds.onnx";
    for (std::string stage : {"import", "final"}) {
        ASSERT_TRUE(m.save(path, stage));
        auto out = quern::Model::load(path).compile({.threads = 1}).run_values({{"x", floats({1}, {4})}, {"o", Value::sequence()}});
        EXPECT_TRUE(out[0].second.tensor().data<bool>()[0]);
        EXPECT_EQ(out[1].second.size(), 2u);
        EXPECT_FALSE(out[2].second.has_value());
    }
    // An engine file tells the kinds too.
    path = std::string(QUERN_BINARY_DIR) + "/saved_kinds.engine";
    m.compile({.threads = 1}).save(path);
    auto engine = quern::Engine::load(path, {.threads = 1});
    EXPECT_EQ(engine.inputs()[0].kind, Kind::optional);
    EXPECT_EQ(engine.outputs()[1].kind, Kind::sequence);
    auto out = engine.run_values({{"x", floats({1}, {4})}});
    EXPECT_FALSE(out[0].second.tensor().data<bool>()[0]);
    EXPECT_EQ(out[1].second.size(), 2u);
}
TEST(Loop, EngineFilesKeepTheirBodies) {
    Sums s;
    auto engine = s.b.model().compile({.threads = 1});
    std::string path = std::string(QUERN_BINARY_DIR) + "/saved_loop.engine";
    engine.save(path);
    auto again = quern::Engine::load(path, {.threads = 1});
    for (std::int64_t n : {4, 0}) {
        std::vector<quern::NamedTensor> in{{"n", count(n)}, {"c", flag(true)}, {"x", floats({2}, {1, 2})}, {"first", floats({2}, {0, 3})}};
        auto want = engine.run(in), got = again.run(in);
        for (std::size_t o = 0; o < want.size(); ++o) expect_near(got[o].second, want[o].second, 0, 0);
    }
}
TEST(Sequence, TensorsWhereSequencesBelongAndBack) {
    auto model = [](const char* op, const char* in) {
        ModelBuilder b;
        b.input("x", DType::f32, {"N"}).node("SequenceConstruct", {"x"}, {"s"}).node(op, {in}, {"y"}).output("y");
        b.model();
    };
    EXPECT_NE(error_of([&] { model("SequenceLength", "x"); }, quern::ErrorCode::invalid_model).find("accepted: a sequence"), std::string::npos);
    EXPECT_NE(error_of([&] { model("Relu", "s"); }, quern::ErrorCode::invalid_model).find("accepted: a tensor"), std::string::npos);
}

TEST(Optional, ThroughIfAndBack) {
    ModelBuilder then_part, else_part, b;
    then_part.node("OptionalGetElement", {"o"}, {"t"}).output("t");
    else_part.output("x");
    b.proto().graph.input.push_back(optional_port("o", false));
    b.input("x", DType::f32, {"N"}).node("OptionalHasElement", {"o"}, {"has"});
    b.node("If", {"has"}, {"y"}, {attribute_g("then_branch", then_part.proto().graph), attribute_g("else_branch", else_part.proto().graph)});
    b.node("Neg", {"y"}, {"z"}).node("Identity", {"o"}, {"same"}).output("has").output("z").output("same");
    auto x = floats({1}, {5});
    auto out = run_values(b, {{"x", x}});  // the optional is left out
    EXPECT_FALSE(out[0].tensor().data<bool>()[0]);
    expect_near(out[1].tensor(), floats({1}, {-5}));
    EXPECT_FALSE(out[2].has_value());
    out = run_values(b, {{"x", x}, {"o", floats({2}, {1, 2})}});
    EXPECT_TRUE(out[0].tensor().data<bool>()[0]);
    expect_near(out[1].tensor(), floats({2}, {-1, -2}));
    expect_near(out[2].tensor(), floats({2}, {1, 2}));
    error_of([&] { run_values(b, {{"x", x}, {"o", ints({1}, {1})}}); }, quern::ErrorCode::invalid_argument);
    error_of([&] { run_values(b, {{"x", x}, {"o", Value::sequence()}}); }, quern::ErrorCode::invalid_argument);
}
TEST(Optional, OfSequences) {
    ModelBuilder b;
    b.proto().graph.input.push_back(optional_port("o", true));
    b.node("OptionalGetElement", {"o"}, {"s"}).node("SequenceLength", {"s"}, {"n"}).output("n").output("s");
    auto out = run_values(b, {{"o", Value::sequence({floats({1}, {1}), floats({2}, {1, 2})})}});
    EXPECT_EQ(out[0].tensor().data<std::int64_t>()[0], 2);
    EXPECT_EQ(out[1].size(), 2u);
    EXPECT_NE(error_of([&] { run_values(b, {}); }, quern::ErrorCode::invalid_argument).find("has no value"), std::string::npos);
}
TEST(Value, CopiesAreIndependent) {
    Value a = Value::sequence({floats({1}, {1})}), b = a;
    b.push_back(floats({1}, {2}));
    EXPECT_EQ(a.size(), 1u);
    EXPECT_EQ(b.size(), 2u);
    EXPECT_EQ(a[0].tensor().raw(), b[0].tensor().raw());  // lists are copied, tensors are not
    b.erase(0);
    EXPECT_EQ(a.size(), 1u);
    EXPECT_LT(a.bytes(), Value::sequence({floats({100}, std::vector<float>(100))}).bytes());
    EXPECT_THROW(b.erase(1), quern::Error);
    EXPECT_THROW(b.insert(2, Value()), quern::Error);
    EXPECT_THROW(b[1], quern::Error);
    EXPECT_THROW(b.tensor(), quern::Error);
    EXPECT_THROW(Value(floats({1}, {1})).items(), quern::Error);
    EXPECT_THROW(Value::map(std::make_shared<const Tensor>(ints({2}, {1, 2})), floats({1}, {1})), quern::Error);
    EXPECT_THROW(Value::map(std::make_shared<const Tensor>(floats({1}, {1})), floats({1}, {1})), quern::Error);
}

}  // namespace
