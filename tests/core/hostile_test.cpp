// What a few bytes of a model or an engine file may not make the library do: overflow, grow without bound, run what is not its own.
#include <cmath>
#include <cstdio>
#include <deque>
#include <fstream>
#include <iterator>
#include <limits>

#include <quern/base/mapped_file.hpp>
#include <quern/graph/dim.hpp>
#include <quern/onnx/proto.hpp>
#include <quern/onnx/wire.hpp>
#include <quern/session/engine_file.hpp>

#include "../support/op_test.hpp"

using namespace quern;
using namespace quern_test;

namespace {

constexpr std::int64_t lowest = std::numeric_limits<std::int64_t>::min(), highest = std::numeric_limits<std::int64_t>::max(), large = std::int64_t{1} << 40;

template <class F>
ErrorCode code_of(F&& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.code();
    }
    ADD_FAILURE() << "nothing was raised";
    return ErrorCode::internal;
}
/// As many as `names`, of outputs that Identity makes of `x`.
onnx::GraphProto branch(std::string_view name, std::vector<std::string_view> names) {
    onnx::GraphProto g;
    g.name = name;
    for (auto n : names) {
        onnx::NodeProto id;
        id.op_type = "Identity";
        id.input = {"x"};
        id.output = {n};
        g.node.push_back(id);
        g.output.push_back(onnx::tensor_info(n, DType::f32, {}, false));
    }
    return g;
}

onnx::NodeProto node(std::string_view op, std::vector<std::string_view> in, std::vector<std::string_view> out) {
    onnx::NodeProto n;
    n.op_type = op, n.input = std::move(in), n.output = std::move(out);
    return n;
}
onnx::ValueInfo untyped(std::string_view name) {
    onnx::ValueInfo v;
    v.name = name;
    return v;
}

}  // namespace

TEST(HostileDims, TheLowestNumberHasNoNegative) {
    Dim n = Dim::symbol("N"), most = n * lowest;
    EXPECT_THROW(floor_div(lowest, -1), Error);
    EXPECT_THROW(ceil_div(lowest, -1), Error);
    EXPECT_THROW(trunc_div(lowest, -1), Error);
    EXPECT_THROW(floor_div(most, -1), Error);
    EXPECT_EQ(floor_mod(lowest, -1), Dim(0));
    EXPECT_EQ(floor_mod(lowest, highest), Dim(highest - 1));
    EXPECT_EQ(ceil_div(lowest, 2), Dim(lowest / 2));
    EXPECT_EQ(floor_div(highest, -1), Dim(-highest));

    DimProgram p;
    const Dim d = Dim::symbol("D"), m = Dim::symbol("M");
    const int div = p.add(floor_div(d, m)), mod = p.add(floor_mod(d, m));
    std::vector<std::int64_t> v(static_cast<std::size_t>(p.size()), DimProgram::unknown);
    v[static_cast<std::size_t>(p.symbol_slot("D"))] = lowest + 1;
    v[static_cast<std::size_t>(p.symbol_slot("M"))] = highest;
    p.evaluate(v.data(), 0, p.size());
    EXPECT_EQ(v[static_cast<std::size_t>(div)], -1);
    EXPECT_EQ(v[static_cast<std::size_t>(mod)], 0);
}
TEST(HostileDims, FormulasThatDoubleAreRefused) {
    auto chain = [](auto&& next) {
        Dim d = Dim::symbol("N");
        for (int i = 0; i < 60; ++i) d = next(d);
    };
    EXPECT_EQ(code_of([&] { chain([](const Dim& d) { return d * d; }); }), ErrorCode::unsupported);
    EXPECT_EQ(code_of([&] { chain([](const Dim& d) { return floor_div(d, d + 1); }); }), ErrorCode::unsupported);
    EXPECT_EQ(code_of([] {
                  Dim d = Dim::symbol("N");
                  for (int i = 0; i < 100000; ++i) d = floor_div(d + 1, 2);
              }),
              ErrorCode::unsupported);
    EXPECT_EQ(code_of([] { Dim::symbol(std::string(70000, 'n')); }), ErrorCode::unsupported);
}
TEST(HostileDims, SizesBesideAZeroAreMultipliedNowhere) {
    for (const auto& dims : std::vector<std::vector<std::int64_t>>{{large, large, 0}, {0, large, large}, {large, 0, large}}) {
        ModelBuilder b;
        b.input("s", DType::i64, {"3"}).node("ConstantOfShape", {"s"}, {"c"}).node("Neg", {"c"}, {"y"}).output("y");
        EXPECT_EQ(code_of([&] { b.run({{"s", ints({3}, dims)}}); }), ErrorCode::out_of_memory);
    }
    ModelBuilder fixed;
    fixed.constant("s", ints({3}, {0, large, large})).node("ConstantOfShape", {"s"}, {"c"}).node("Neg", {"c"}, {"y"}).output("y");
    EXPECT_EQ(code_of([&] { fixed.run({}); }), ErrorCode::out_of_memory);
    ModelBuilder deep;
    deep.unranked_input("x", DType::f32).node("Neg", {"x"}, {"y"}).output("y");
    EXPECT_EQ(code_of([&] { deep.run({{"x", Tensor(DType::f32, Shape(std::span<const std::int64_t>(std::vector<std::int64_t>(65, 1))))}}); }), ErrorCode::out_of_memory);
    ModelBuilder unranked;
    unranked.unranked_input("x", DType::f32).node("Neg", {"x"}, {"y"}).output("y");
    EXPECT_EQ(code_of([&] { unranked.run({{"x", Tensor(DType::f32, {0, large, large})}}); }), ErrorCode::out_of_memory);
}

TEST(HostileGraphs, AnIfRunsItsBranchesAlone) {
    ModelBuilder b;
    b.input("c", DType::boolean, {}).input("x", DType::f32, {"2"});
    b.node("If", {"c"}, {"y"}, {onnx::attribute_g("then_branch", branch("t", {"a"})), onnx::attribute_g("else_branch", branch("e", {"b"})), onnx::attribute_g("a_branch", branch("none", {}))});
    b.output("y");
    EXPECT_EQ(code_of([&] { b.model(); }), ErrorCode::invalid_model);
    ModelBuilder plain;
    plain.input("x", DType::f32, {"2"}).node("Neg", {"x"}, {"y"}, {onnx::attribute_g("body", branch("b", {"a"}))}).output("y");
    EXPECT_EQ(code_of([&] { plain.model(); }), ErrorCode::invalid_model);
}
TEST(HostileGraphs, FunctionsDoNotMultiplyOutputs) {
    std::deque<std::string> text;
    auto keep = [&](std::string s) { return std::string_view(text.emplace_back(std::move(s))); };
    auto call = [&](std::string_view op, std::string_view out) {
        onnx::NodeProto n;
        n.op_type = op, n.domain = "f";
        n.input = {"x"};
        n.output = {out};
        return n;
    };
    onnx::FunctionProto leaf, middle, top;
    for (auto [f, name] : {std::pair(&leaf, "Leaf"), std::pair(&middle, "Middle"), std::pair(&top, "Top")}) {
        f->name = name, f->domain = "f";
        f->input = {"x"};
        f->output = {"y0"};
        f->opset_import = {{"", 20}, {"f", 1}};
    }
    onnx::NodeProto split;
    split.op_type = "Split";
    split.input = {"x"};
    for (int i = 0; i < 800; ++i) split.output.push_back(keep("y" + std::to_string(i)));
    split.attribute = {onnx::attribute_i("num_outputs", 800)};
    leaf.node = {split};
    for (int i = 0; i < 200; ++i) middle.node.push_back(call("Leaf", keep("y" + std::to_string(i)))), top.node.push_back(call("Middle", keep("y" + std::to_string(i))));
    ModelBuilder b;
    b.domain("f", 1).input("x", DType::f32, {"800"});
    b.node("Top", {"x"}, {"y"}, {}, "f").output("y");
    b.proto().functions = {leaf, middle, top};
    EXPECT_EQ(code_of([&] { b.model(); }), ErrorCode::invalid_model);
}
TEST(HostileGraphs, SparseTensorsKeepToTheLimit) {
    ModelBuilder b;
    const std::int64_t at[] = {5};
    const float value[] = {1};
    onnx::SparseTensor s;
    s.dims = {std::int64_t{1} << 24};
    s.values.name = "w";
    s.values.dims = s.indices.dims = {1};
    s.values.data_type = 1, s.indices.data_type = 7;
    s.values.raw_data = {reinterpret_cast<const char*>(value), sizeof value}, s.indices.raw_data = {reinterpret_cast<const char*>(at), sizeof at};
    s.values.has_raw = s.indices.has_raw = true;
    b.proto().graph.sparse_initializer.push_back(s);
    b.node("Neg", {"w"}, {"y"}).output("y");
    const std::string bytes = b.bytes();
    LoadOptions limited;
    limited.memory_limit = 1 << 20;
    EXPECT_EQ(code_of([&] { Model::from_bytes(std::as_bytes(std::span(bytes)), limited); }), ErrorCode::out_of_memory);
    EXPECT_TRUE(Model::try_from_bytes(std::as_bytes(std::span(bytes))).ok());
}
TEST(HostileGraphs, FoldingDoesNotDouble) {
    ModelBuilder b;
    b.constant("v0", Tensor(DType::f32, {1 << 18}));
    for (int i = 0; i < 30; ++i) b.node("Concat", {"v" + std::to_string(i), "v" + std::to_string(i)}, {"v" + std::to_string(i + 1)}, {onnx::attribute_i("axis", 0)});
    b.output("v30");
    EXPECT_NE(b.model().dump("fold").find("Concat("), std::string::npos);  // 2^50 bytes otherwise
}
TEST(HostileGraphs, ANormThatIsSpelledOutNeedsNoRowOfItsSize) {
    ModelBuilder b(17);
    b.input("x", DType::f32, {"1", std::to_string(large)}).constant("eps", floats({}, {1e-5f}));
    b.node("ReduceMean", {"x"}, {"m"}, {onnx::attribute_ints("axes", {-1})}).node("Sub", {"x", "m"}, {"d"}).node("Mul", {"d", "d"}, {"s"});
    b.node("ReduceMean", {"s"}, {"v"}, {onnx::attribute_ints("axes", {-1})}).node("Add", {"v", "eps"}, {"e"}).node("Sqrt", {"e"}, {"r"}).node("Div", {"d", "r"}, {"y"}).output("y");
    EXPECT_TRUE(b.model().try_compile({.threads = 1}).ok());
}

TEST(HostileRuns, TensorsThatMeetOptionalsAreBoxed) {
    // A state that begins as a tensor and comes back as an optional.
    onnx::GraphProto body;
    body.name = "body";
    body.input = {onnx::tensor_info("i", DType::i64, {}), onnx::tensor_info("c", DType::boolean, {}), untyped("v")};
    body.node = {node("Identity", {"c"}, {"go"}), node("Optional", {"k"}, {"o"})};
    for (auto name : {"go", "o"}) body.output.push_back(untyped(name));
    const Tensor x = floats({2}, {1, 2}), k = floats({2}, {3, 4});
    for (std::int64_t trips : {0, 1, 3}) {
        ModelBuilder b;
        b.input("m", DType::i64, {}).input("x", DType::f32, {"2"}).input("k", DType::f32, {"2"});
        b.node("Loop", {"m", "", "x"}, {"last"}, {onnx::attribute_g("body", body)});
        b.node("OptionalGetElement", {"last"}, {"y"}).output("y");
        EXPECT_EQ(b.run({{"m", ints({}, {trips})}, {"x", x}, {"k", k}})[0].data<float>()[1], trips ? 4 : 2);
    }
    // A sequence where an optional of one was planned is the same Value.
    body.node = {node("Identity", {"c"}, {"go"}), node("SequenceConstruct", {"k"}, {"s"}), node("Optional", {"s"}, {"o"})};
    for (std::int64_t trips : {0, 1, 2}) {
        ModelBuilder b;
        b.input("m", DType::i64, {}).input("x", DType::f32, {"2"}).input("k", DType::f32, {"2"}).constant("zero", ints({}, {0}));
        b.node("SequenceConstruct", {"x"}, {"first"}).node("Loop", {"m", "", "first"}, {"last"}, {onnx::attribute_g("body", body)});
        b.node("OptionalGetElement", {"last"}, {"got"}).node("SequenceAt", {"got", "zero"}, {"y"}).output("y");
        EXPECT_EQ(b.run({{"m", ints({}, {trips})}, {"x", x}, {"k", k}})[0].data<float>()[1], trips ? 4 : 2);
    }
    onnx::GraphProto yes, no;
    yes.name = "yes", no.name = "no";
    yes.node = {node("Optional", {"x"}, {"a"})}, no.node = {node("Identity", {"x"}, {"b"})};
    yes.output = {untyped("a")}, no.output = {untyped("b")};
    for (bool c : {true, false}) {
        ModelBuilder b;
        b.input("c", DType::boolean, {}).input("x", DType::f32, {"2"});
        b.node("If", {"c"}, {"o"}, {onnx::attribute_g("then_branch", yes), onnx::attribute_g("else_branch", no)}).node("OptionalGetElement", {"o"}, {"y"}).output("y");
        Tensor cond(DType::boolean, Shape{});
        cond.data<bool>()[0] = c;
        EXPECT_EQ(b.run({{"c", cond}, {"x", x}})[0].data<float>()[1], 2);
    }
}
TEST(HostileRuns, SizesThatFitOnlyWhereTheyAreTriedAreLookedAt) {
    // A view of N + N / 2000000 elements: as many as there are for all sizes that a plan could try.
    ModelBuilder b;
    b.input("x", DType::u8, {"N"}).constant("large", ints({1}, {2000000}));
    b.node("Shape", {"x"}, {"s"}).node("Div", {"s", "large"}, {"q"}).node("Add", {"s", "q"}, {"n"}).node("Reshape", {"x", "n"}, {"r"}).node("Neg", {"r"}, {"y"}).output("y");
    b.proto().graph.input[0].type.elem_type = static_cast<std::int32_t>(DType::i8);
    Engine e = b.model().compile({.threads = 1});
    EXPECT_EQ(e.run({{"x", Tensor(DType::i8, {7})}})[0].second.count(), 7);
    EXPECT_EQ(code_of([&] { e.run({{"x", Tensor(DType::i8, {2000001})}}); }), ErrorCode::shape_mismatch);
}
TEST(HostileRuns, ProductsOf16BitsWrap) {
    const std::vector<std::uint16_t> v(40, 65535);
    const Tensor x = t<std::uint16_t>({40}, v);
    EXPECT_EQ(run_op("Mul", {x, x})[0].data<std::uint16_t>()[39], 1);
}
TEST(HostileRuns, BitsThatAreNoBoolAreTrue) {
    const Tensor y = run_op("BitCast", {t<std::uint8_t>({3}, {0, 1, 255})}, {onnx::attribute_i("to", 9)}, 26)[0];
    const auto* bytes = static_cast<const std::uint8_t*>(y.raw());
    EXPECT_EQ(bytes[0], 0);
    EXPECT_EQ(bytes[1], 1);
    EXPECT_EQ(bytes[2], 1);
}
TEST(HostileRuns, NothingIsPackedForMatricesOfNoElement) {
    // What is held for each batch, group or column would be tens of gigabytes.
    constexpr std::int64_t many = std::int64_t{1} << 28;
    ModelBuilder product;
    product.input("a", DType::f32, {"32768", "1", "0", "4"}).input("b", DType::f32, {"1", "32768", "4", "1"}).node("MatMul", {"a", "b"}, {"y"}).output("y");
    EXPECT_EQ(product.run({{"a", Tensor(DType::f32, {32768, 1, 0, 4})}, {"b", Tensor(DType::f32, {1, 32768, 4, 1})}})[0].shape(), Shape({32768, 32768, 0, 1}));
    for (DType t : {DType::f32, DType::u8}) {
        ModelBuilder conv;
        conv.input("x", t, {"0", "0", "1", "1"}).constant("w", Tensor(t, {many, 0, 1, 1}));
        conv.node(t == DType::f32 ? "Conv" : "ConvInteger", {"x", "w"}, {"y"}, {onnx::attribute_i("group", many)}).output("y");
        EXPECT_EQ(conv.run({{"x", Tensor(t, {0, 0, 1, 1})}})[0].shape(), Shape({0, many, 1, 1}));
    }
    ModelBuilder bytes;
    bytes.input("a", DType::u8, {"0", "0"}).constant("b", Tensor(DType::u8, {many, 0, 1})).node("MatMulInteger", {"a", "b"}, {"y"}).output("y");
    EXPECT_EQ(bytes.run({{"a", Tensor(DType::u8, {0, 0})}})[0].shape(), Shape({many, 0, 1}));
}
TEST(HostileRuns, SumsOf8BitProductsWrap) {
    constexpr std::int64_t k = 70000;
    const Tensor a = t<std::uint8_t>({1, k}, std::vector<std::uint8_t>(k, 255)), b = t<std::int8_t>({k, 1}, std::vector<std::int8_t>(k, 127));
    EXPECT_EQ(run_op("MatMulInteger", {a, b})[0].data<std::int32_t>()[0], static_cast<std::int32_t>(static_cast<std::uint32_t>(k * 255 * 127)));
}
TEST(HostileRuns, StringsCountAgainstTheLimit) {
    Options o;
    o.memory_limit = 8 << 20;
    const std::string long_word(1000, 'w');
    const Tensor word = Tensor::from_strings(std::span(&long_word, 1), {1});
    ModelBuilder wide;
    wide.input("x", DType::string, {"1"}).input("n", DType::i64, {"1"}).node("Expand", {"x", "n"}, {"y"}).output("y");
    EXPECT_EQ(code_of([&] { wide.run({{"x", word}, {"n", ints({1}, {100000})}}, o); }), ErrorCode::out_of_memory);
    EXPECT_EQ(wide.run({{"x", word}, {"n", ints({1}, {1000})}}, o)[0].strings()[999], long_word);
    ModelBuilder doubling;
    doubling.input("v0", DType::string, {"1"});
    for (int i = 0; i < 40; ++i) doubling.node("StringConcat", {"v" + std::to_string(i), "v" + std::to_string(i)}, {"v" + std::to_string(i + 1)});
    doubling.output("v40");
    EXPECT_EQ(code_of([&] { doubling.run({{"v0", word}}, o); }), ErrorCode::out_of_memory);
    // Many values of short strings: their handles count together.
    ModelBuilder many;
    many.input("x", DType::string, {"1"}).input("n", DType::i64, {"1"});
    for (int i = 0; i < 8; ++i) many.node("Expand", {"x", "n"}, {"y" + std::to_string(i)}).output("y" + std::to_string(i));
    const std::string short_word = "w";
    EXPECT_EQ(code_of([&] { many.run({{"x", Tensor::from_strings(std::span(&short_word, 1), {1})}, {"n", ints({1}, {100000})}}, o); }), ErrorCode::out_of_memory);
}
TEST(HostileRuns, AStepEndsAtTheDeadline) {
    Options o;
    o.deadline = 0.001;
    o.accelerated = false;  // a library's kernel is one tile
    ModelBuilder b;
    b.input("a", DType::f32, {"N", "M"}).input("b", DType::f32, {"M", "K"}).node("MatMul", {"a", "b"}, {"y"}).output("y");
    const Tensor x(DType::f32, {2048, 2048});
    EXPECT_EQ(code_of([&] { b.run({{"a", x}, {"b", x}}, o); }), ErrorCode::deadline_exceeded);
}
TEST(HostileRuns, ALocalNormOfManyChannelsIsCut) {
    // Channels times the size of the window is what a tile is cut by.
    constexpr std::int64_t channels = 6000, size = 4001;
    std::vector<float> v(channels);
    for (std::int64_t i = 0; i < channels; ++i) v[static_cast<std::size_t>(i)] = static_cast<float>(i % 13) - 6;
    const Tensor y = run_op("LRN", {t<float>({1, channels, 1}, v)}, {onnx::attribute_i("size", size), onnx::attribute_f("alpha", 2)})[0];
    for (std::int64_t k = 0; k < channels; ++k) {
        double sum = 0;
        for (std::int64_t j = std::max<std::int64_t>(0, k - size / 2); j <= std::min(channels - 1, k + size / 2); ++j) sum += v[static_cast<std::size_t>(j)] * v[static_cast<std::size_t>(j)];
        ASSERT_NEAR(y.data<float>()[static_cast<std::size_t>(k)], v[static_cast<std::size_t>(k)] / std::pow(1 + 2. / size * sum, 0.75), 1e-5) << k;
    }
}
TEST(HostileRuns, ASequenceHasAMillionParts) {
    ModelBuilder b;
    b.input("x", DType::u8, {"N"}).node("SplitToSequence", {"x"}, {"s"}).node("SequenceLength", {"s"}, {"y"}).output("y");
    EXPECT_EQ(code_of([&] { b.run({{"x", Tensor(DType::u8, {(1 << 20) + 1})}}); }), ErrorCode::out_of_memory);
    EXPECT_EQ(b.run({{"x", Tensor(DType::u8, {1000})}})[0].data<std::int64_t>()[0], 1000);
}

TEST(HostileValues, AMapOfPackedNumbersIsRefused) {
    onnx::Writer w;
    w.varint(2, 7);
    for (int i = 0; i < 300; ++i) w.varint(3, static_cast<std::uint64_t>(i));
    w.nest(5, [&] {
        for (int i = 0; i < 300; ++i)
            w.nest(3, [&] {
                w.varint(2, static_cast<std::uint64_t>(DType::i4));
                w.bytes(9, std::string_view("\1", 1));
            });
    });
    const std::string bytes = w.take();
    EXPECT_EQ(code_of([&] { onnx::parse_value(std::as_bytes(std::span(bytes)), Kind::map); }), ErrorCode::unsupported);
}
TEST(HostileEngines, ContentThatIsAbsentBeginsWhereItsZerosDo) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "200"}).constant("w", Tensor(DType::f32, {200, 300})).constant("v", Tensor(DType::f32, {300, 70}));
    b.node("MatMul", {"x", "w"}, {"a"}).node("Relu", {"a"}, {"r"}).node("MatMul", {"r", "v"}, {"y"}).output("y");
    const std::string path = testing::TempDir() + "quern_hostile_" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".engine";
    Options o;
    o.threads = 1;
    o.accelerated = false;
    b.model().compile(o).save(path);
    std::ifstream in(path, std::ios::binary);
    const std::string whole{std::istreambuf_iterator<char>(in), {}};
    auto load = [&](const std::string& bytes) {
        std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
        return engine_of_file(std::make_shared<const MappedFile>(path), {.threads = 1}, {}, false);
    };
    load(whole);
    const std::string entry("offset\x12\x01" "0", 9);
    int found = 0;
    for (std::size_t at = whole.find("absent"); at != std::string::npos; at = whole.find("absent", at + 1), ++found) {
        std::string bytes = whole;
        const std::size_t offset = bytes.find(entry, at);
        ASSERT_NE(offset, std::string::npos);
        bytes[offset + 8] = '1';  // the smaller one has room for it
        EXPECT_EQ(code_of([&] { load(bytes); }), ErrorCode::invalid_model);
    }
    EXPECT_EQ(found, 2);
    std::remove(path.c_str());
}
TEST(HostileEngines, TypesThatNoKernelComputesInAreRefused) {
    ModelBuilder b;
    b.input("x", DType::i32, {"N"}).constant("k", ints({1}, {1})).node("TopK", {"x", "k"}, {"y", "i"}).output("y");
    const std::string path = testing::TempDir() + "quern_hostile_types.engine";
    b.model().compile({.threads = 1}).save(path);
    std::ifstream in(path, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), {}};
    auto load = [&] {
        std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
        return engine_of_file(std::make_shared<const MappedFile>(path), {.threads = 1}, {}, false);
    };
    EXPECT_EQ(load().run({{"x", t<std::int32_t>({3}, {1, 7, 2})}})[0].second.data<std::int32_t>()[0], 7);
    int found = 0;
    for (std::size_t at = bytes.find("\x08\x06\x12"); at != std::string::npos; at = bytes.find("\x08\x06\x12"), ++found) bytes[at + 1] = '\x02';  // uint8
    EXPECT_GT(found, 0);
    EXPECT_EQ(code_of(load), ErrorCode::invalid_model);
    std::remove(path.c_str());
}
TEST(HostileEngines, BytesThatAPassPoolsInChannelsLastLoad) {
    ModelBuilder b;
    b.input("x", DType::u8, {"1", "4", "8", "8"}).constant("s", t<float>({}, {0.1f})).constant("z", t<std::uint8_t>({}, {3}));
    b.constant("v", t<std::uint8_t>({8, 4, 3, 3}, std::vector<std::uint8_t>(288, 7))).constant("w", t<std::uint8_t>({8, 8, 3, 3}, std::vector<std::uint8_t>(576, 4)));
    const auto pads = onnx::attribute_ints("pads", {1, 1, 1, 1}), two = onnx::attribute_ints("strides", {2, 2}), kernel = onnx::attribute_ints("kernel_shape", {2, 2});
    b.node("QLinearConv", {"x", "s", "z", "v", "s", "z", "s", "z"}, {"a"}, {pads}).node("MaxPool", {"a"}, {"m"}, {kernel, two});
    b.node("QLinearConv", {"m", "s", "z", "w", "s", "z", "s", "z"}, {"y"}, {pads}).output("y");
    const std::string path = testing::TempDir() + "quern_hostile_pool.engine";
    Engine made = b.model().compile({.threads = 1});
    made.save(path);
    std::vector<std::uint8_t> v(256);
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<std::uint8_t>(i % 7);
    const Tensor x = t<std::uint8_t>({1, 4, 8, 8}, v), want = made.run({{"x", x}})[0].second, got = Engine::load(path, {.threads = 1}).run({{"x", x}})[0].second;
    EXPECT_TRUE(std::equal(want.data<std::uint8_t>().begin(), want.data<std::uint8_t>().end(), got.data<std::uint8_t>().begin(), got.data<std::uint8_t>().end()));
    std::remove(path.c_str());
}
