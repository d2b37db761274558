// Attributes, shapes and constants that no exporter writes: an error value each, in no time, whatever the sanitizers look at.
#include <chrono>
#include <cmath>

#include "support/op_test.hpp"

using namespace quern_test;
using quern::ErrorCode;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;
using quern::onnx::attribute_s;

namespace {

const char* const microsoft = "com.microsoft";
constexpr std::int64_t most = INT64_MAX, least = INT64_MIN;

/// The error of loading the model and compiling it.
quern::Error refused(const ModelBuilder& b) {
    const std::string bytes = b.bytes();
    auto model = quern::Model::try_from_bytes(std::as_bytes(std::span<const char>(bytes)));
    if (!model) return model.error();
    auto engine = model->try_compile({.threads = 1});
    return engine ? quern::Error(ErrorCode::internal, "accepted") : engine.error();
}
struct Input {
    DType type;
    std::vector<std::string> dims;
};
/// One operator over graph inputs of these types.
ModelBuilder one(const std::string& op, const std::vector<Input>& in, std::vector<quern::onnx::Attribute> attrs = {}, const std::string& domain = "", std::int64_t opset = 24) {
    ModelBuilder b(opset);
    if (!domain.empty()) b.domain(domain, 1);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < in.size(); ++i) {
        names.push_back(in[i].type == DType::undefined ? "" : "in" + std::to_string(i));
        if (!names.back().empty()) b.input(names.back(), in[i].type, in[i].dims);
    }
    b.node(op, names, {"y"}, std::move(attrs), domain).output("y");
    return b;
}
void expect_refused(const ModelBuilder& b, ErrorCode code, const std::string& says) {
    const quern::Error e = refused(b);
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
}
void expect_refused_run(ModelBuilder& b, const std::vector<quern::NamedTensor>& in, ErrorCode code, const std::string& says) {
    const auto start = std::chrono::steady_clock::now();
    auto r = b.model().compile({.threads = 1}).try_run(in);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5)) << says;
    ASSERT_FALSE(r) << says;
    EXPECT_EQ(r.error().code(), code) << r.error().what();
    EXPECT_NE(std::string(r.error().what()).find(says), std::string::npos) << r.error().what();
}
const Input f(std::vector<std::string> dims) { return {DType::f32, std::move(dims)}; }
const Input i64(std::vector<std::string> dims) { return {DType::i64, std::move(dims)}; }
const std::string wide = std::to_string(most);

TEST(Hostile, ContributedOperatorsOverRanksThatTheyDoNotKnow) {
    expect_refused(one("Attention", {f({"2", "2"}), f({"2", "6"}), f({"6"})}, {attribute_i("num_heads", 1)}, microsoft), ErrorCode::invalid_model, "rank 3");
    // The mask's type is told after nodes were added.
    expect_refused(one("Attention", {f({"1", "2", "6"}), f({"6", "6"}), f({"6"}), {DType::i32, {"5"}}}, {attribute_i("num_heads", 1)}, microsoft), ErrorCode::unsupported, "int32[5]");
    expect_refused(one("MultiHeadAttention", {f({}), f({"1", "2", "2"}), f({"1", "2", "2"}), {}, {DType::i32, {"1"}}}, {attribute_i("num_heads", 1)}, microsoft), ErrorCode::invalid_model, "rank 1");
    expect_refused(one("RotaryEmbedding", {f({}), i64({"1", "1"}), f({"4", "2"}), f({"4", "2"})}, {}, microsoft), ErrorCode::invalid_model, "rank 3 to 4");
    expect_refused(one("RotaryEmbedding", {f({"1", "2", "3", "4"}), f({}), f({}), i64({"1", "3"})}), ErrorCode::shape_mismatch, "rank 0");
}
TEST(Hostile, ContributedOperatorsOverNumbersWhoseSumsOverflow) {
    const std::vector<Input> packed{f({"1", "2", "6"}), f({"6", "6"}), f({"6"})};
    expect_refused(one("Attention", packed, {attribute_i("num_heads", 1), attribute_ints("qkv_hidden_sizes", {most, most, 8})}, microsoft), ErrorCode::invalid_model, "does not divide");
    const Input none{DType::undefined, {}}, kv = f({"1", "2", "0", "4"});
    expect_refused(one("GroupQueryAttention", {f({"1", "2", "24"}), none, none, kv, kv, {DType::i32, {"1"}}, {DType::i32, {}}}, {attribute_i("num_heads", most - 1), attribute_i("kv_num_heads", most)}, microsoft),
                   ErrorCode::invalid_model, "num_heads");
    expect_refused(one("RotaryEmbedding", {f({"1", "2", "4"}), i64({"1", "2"}), f({"4", wide}), f({"4", wide})}, {}, microsoft), ErrorCode::unsupported, "up to 2^48");
    expect_refused(one("MultiHeadAttention", {f({"1", "2", wide}), f({"1", "2", wide}), f({"1", "2", "2"}), f({"6"})}, {attribute_i("num_heads", 1)}, microsoft), ErrorCode::unsupported, "up to 2^48");
    const std::vector<quern::onnx::Attribute> sizes{attribute_i("N", INT32_MAX), attribute_i("K", INT32_MAX), attribute_i("bits", 8), attribute_i("block_size", 1 << 20)};
    expect_refused(one("MatMulNBits", {f({"1", "4"}), {DType::u8, {"4"}}, f({"4"})}, sizes, microsoft), ErrorCode::shape_mismatch, "has not the");
    expect_refused(one("Crop", {f({"1", "1", "4", "4"})}, {attribute_ints("border", {most, most, 0, 0}), attribute_ints("scale", {2, 2})}, "", 1), ErrorCode::invalid_model, "border or scale");
    expect_refused(one("DeformConv", {f({"1", "1", "1", "1"}), f({"1", "1", "2147483647", "2147483647"}), f({"1", "2", "1", "1"})}, {attribute_ints("pads", {1 << 30, 1 << 30, 1 << 30, 1 << 30})}), ErrorCode::shape_mismatch, "offset");
    expect_refused(one("DeformConv", {f({"1", "1", "1", "1", "1"}), f({"1", "1", "2147483647", "2147483647", "2147483647"}), f({"1", "3", "1", "1", "1"})},
                       {attribute_ints("pads", {1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30})}), ErrorCode::invalid_model, "overflows");
}
TEST(Hostile, ListsLongerThanAnythingReads) {
    expect_refused(one("Unsqueeze", {f({"2"}), i64({wide})}), ErrorCode::unsupported, "a list of");
    expect_refused(one("Col2Im", {f({"1", "4", "4"}), i64({"1099511627776"}), i64({"1099511627776"})}), ErrorCode::unsupported, "a list of");
    expect_refused(one("Col2Im", {f({"1", "4", "4"}), i64({"1000"}), i64({"1000"})}), ErrorCode::unsupported, "up to 62");
}
TEST(Hostile, ImagesWhoseRankIsKnownLate) {
    ModelBuilder b(22);
    b.input("x", DType::f32, {"1", "4", "1"}).input("image", DType::i64, {"R"}).input("block", DType::i64, {"R"}).node("Col2Im", {"x", "image", "block"}, {"y"}).output("y");
    auto y = b.run({{"x", floats({1, 4, 1}, {1, 2, 3, 4})}, {"image", ints({2}, {2, 2})}, {"block", ints({2}, {2, 2})}})[0];
    expect_near(y, floats({1, 1, 2, 2}, {1, 2, 3, 4}), 0, 0);
    ModelBuilder wrong(22);
    wrong.input("x", DType::f32, {"1", "4", "1"}).input("image", DType::i64, {"R"}).input("block", DType::i64, {"R"}).node("Col2Im", {"x", "image", "block"}, {"y"}, {attribute_ints("strides", {1, 1, 1})}).output("y");
    expect_refused_run(wrong, {{"x", Tensor(DType::f32, {1, 4, 1})}, {"image", ints({2}, {2, 2})}, {"block", ints({2}, {2, 2})}}, ErrorCode::invalid_model, "strides");
}
TEST(Hostile, ConstantsOfNoOrManyElementsAsOneNumber) {
    ModelBuilder b(20);
    b.input("x", DType::f32, {"2", "4", "1"}).constant("axis", Tensor(DType::i64, {0, 1})).node("DFT", {"x", "", "axis"}, {"y"}).output("y");
    expect_refused(b, ErrorCode::shape_mismatch, "rank 2");
    ModelBuilder far(20);
    far.input("x", DType::f32, {"2", "4", "1"}).constant("axis", t<std::int64_t>({1, 1}, {std::int64_t{1} << 40})).node("DFT", {"x", "", "axis"}, {"y"}).output("y");
    expect_refused(far, ErrorCode::shape_mismatch, "rank 2");
    ModelBuilder many(20);
    many.input("x", DType::f32, {"2", "4", "1"}).constant("axis", Tensor(DType::i64, {2000})).node("DFT", {"x", "", "axis"}, {"y"}).output("y");
    expect_refused(many, ErrorCode::shape_mismatch, "one number");
    ModelBuilder trilu(20);
    trilu.input("x", DType::f32, {"2", "2"}).input("k", DType::i64, {"K"}).node("Trilu", {"x", "k"}, {"y"}).output("y");
    expect_refused_run(trilu, {{"x", Tensor(DType::f32, {2, 2})}, {"k", Tensor(DType::i64, {0})}}, ErrorCode::shape_mismatch, "0 elements");
}
TEST(Hostile, AttributesOfNoType) {
    for (std::int64_t type : {std::int64_t{0}, std::int64_t{200}, std::int64_t{8}, least}) {
        ModelBuilder b(9);
        b.input("x", DType::f32, {"2"}).node("Dropout", {"x"}, {"y", "m"}, {attribute_i("mask_dtype", type)}).output("y").output("m");
        if (type == 0 || type == 8) b.proto().opset_import[0].version = 13;
        else b.proto().opset_import[0].version = 12;
        expect_refused(b, ErrorCode::invalid_model, "mask_dtype");
    }
    expect_refused(one("Dropout", {f({"2"}), {DType::string, {}}}), ErrorCode::invalid_model, "ratio is string");
    expect_refused(one("Dropout", {f({"2"}), f({}), f({})}), ErrorCode::invalid_model, "accepted: bool");
    ModelBuilder b(20);
    b.domain(microsoft, 1).input("x", DType::f32, {"1", "16"}).constant("b", Tensor(DType::u8, {8})).constant("absmax", Tensor(DType::string, {1}));
    b.node("MatMulBnb4", {"x", "b", "absmax"}, {"y"}, {attribute_i("K", 16), attribute_i("N", 1), attribute_i("block_size", 16)}, microsoft).output("y");
    expect_refused(b, ErrorCode::invalid_model, "absmax is string");
}
TEST(Hostile, WindowsThatAreMostlyPadding) {
    // Two outputs over one pixel, 2^31 - 1 positions each; the mean counts the padding, whose 2^93 places fit into no integer.
    const std::int64_t k = INT32_MAX, s = 1 << 30;
    for (const char* op : {"MaxPool", "AveragePool", "LpPool"}) {
        ModelBuilder b(22);
        b.input("x", DType::f32, {"1", "1", "1", "1", "2"});
        b.node(op, {"x"}, {"y"}, {attribute_ints("kernel_shape", {k, k, k}), attribute_ints("pads", {k - 1, k - 1, k - 1, k - 1, k - 1, k - 1}), attribute_ints("strides", {s, s, s}), attribute_i("count_include_pad", 1)});
        b.output("y");
        const auto start = std::chrono::steady_clock::now();
        auto y = b.run({{"x", floats({1, 1, 1, 1, 2}, {3, 4})}})[0];
        EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5)) << op;
        ASSERT_EQ(y.count(), 8) << op;
        const float one = op[0] == 'A' ? 0 : 3, both = op[0] == 'M' ? 4 : op[0] == 'L' ? 5 : 0;  // what the windows of the last dimension touch
        EXPECT_NEAR(y.data<float>()[0], one, 1e-6) << op;
        EXPECT_NEAR(y.data<float>()[1], both, 1e-6) << op;
    }
    // Every position of a long window is an output's: as short windows give it.
    Tensor x = floats({1, 1, 7}, {1, -2, 3, -4, 5, -6, 7});
    for (std::int64_t d : {1, 2, 3}) {
        auto y = run_op("MaxPool", {x}, {attribute_ints("kernel_shape", {100}), attribute_ints("pads", {99 * d, 99 * d}), attribute_ints("dilations", {d}), attribute_ints("strides", {2})}, 22)[0];
        auto mean = run_op("AveragePool", {x}, {attribute_ints("kernel_shape", {100}), attribute_ints("pads", {99 * d, 99 * d}), attribute_ints("dilations", {d}), attribute_ints("strides", {2}), attribute_i("count_include_pad", 1)}, 22)[0];
        for (std::int64_t o = 0; o < y.count(); ++o) {
            float want = -INFINITY, sum = 0;
            for (std::int64_t i = 0; i < 100; ++i)
                if (std::int64_t at = o * 2 - 99 * d + i * d; at >= 0 && at < 7) want = std::max(want, x.data<float>()[static_cast<std::size_t>(at)]), sum += x.data<float>()[static_cast<std::size_t>(at)];
            EXPECT_EQ(y.data<float>()[static_cast<std::size_t>(o)], want) << d << " " << o;
            EXPECT_NEAR(mean.data<float>()[static_cast<std::size_t>(o)], sum / 100, 1e-6) << d << " " << o;
        }
    }
}
TEST(Hostile, SamplesThatTheImageDoesNotHave) {
    ModelBuilder b(22);
    b.input("x", DType::f32, {"1", "64", "1", "1"}).input("r", DType::f32, {"1", "4"}).input("i", DType::i64, {"1"});
    b.node("RoiAlign", {"x", "r", "i"}, {"y"}, {attribute_i("sampling_ratio", 2048), attribute_i("output_height", 8), attribute_i("output_width", 8)}).output("y");
    expect_refused_run(b, {{"x", Tensor(DType::f32, {1, 64, 1, 1})}, {"r", Tensor(DType::f32, {1, 4})}, {"i", Tensor(DType::i64, {1})}}, ErrorCode::shape_mismatch, "samples");
    ModelBuilder none(22);
    none.input("x", DType::f32, {"1", "1", "H", "W"}).input("r", DType::f32, {"1", "4"}).input("i", DType::i64, {"1"}).node("RoiAlign", {"x", "r", "i"}, {"y"}).output("y");
    expect_refused_run(none, {{"x", Tensor(DType::f32, {1, 1, 4, 0})}, {"r", Tensor(DType::f32, {1, 4})}, {"i", Tensor(DType::i64, {1})}}, ErrorCode::shape_mismatch, "an empty image");
    ModelBuilder unpool(22);
    unpool.input("x", DType::f32, {"1", "1", "2", "2", "2", "2"}).input("i", DType::i64, {"1", "1", "2", "2", "2", "2"}).constant("s", ints({6}, {1, 1, 2, 2, 2, 2}));
    unpool.node("MaxUnpool", {"x", "i", "s"}, {"y"}, {attribute_ints("kernel_shape", {2, 2, 2, 2}), attribute_ints("strides", {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX})}).output("y");
    expect_refused_run(unpool, {{"x", Tensor(DType::f32, {1, 1, 2, 2, 2, 2})}, {"i", Tensor(DType::i64, {1, 1, 2, 2, 2, 2})}}, ErrorCode::shape_mismatch, "cannot be counted");
}
TEST(Hostile, ManySlicesOfNothing) {
    const Tensor empty(DType::f32, {1 << 29, 0});
    ModelBuilder unique(20);
    unique.input("x", DType::f32, {"N", "M"}).node("Unique", {"x"}, {"y"}, {attribute_i("axis", 0)}).output("y");
    expect_refused_run(unique, {{"x", empty}}, ErrorCode::out_of_memory, "slices of no elements");
    ModelBuilder nms(20);
    nms.input("b", DType::f32, {"B", "N", "4"}).input("s", DType::f32, {"B", "C", "N"}).node("NonMaxSuppression", {"b", "s"}, {"y"}).output("y");
    auto y = nms.run({{"b", Tensor(DType::f32, {1 << 24, 0, 4})}, {"s", Tensor(DType::f32, {1 << 24, 64, 0})}})[0];
    EXPECT_EQ(y.shape(), (quern::Shape{0, 3}));
    auto det = run_op("Det", {Tensor(DType::f32, {0, 1 << 14, 1 << 14})}, {}, 22)[0];
    EXPECT_EQ(det.shape(), quern::Shape{0});
    auto pooled = run_op("MaxPool", {Tensor(DType::f32, {1, 1, 0, 4})}, {attribute_ints("kernel_shape", {2, 2}), attribute_ints("pads", {1, 0, 1, 0})}, 22)[0];
    ASSERT_EQ(pooled.shape(), (quern::Shape{1, 1, 1, 3}));
    EXPECT_EQ(pooled.data<float>()[2], -INFINITY);
}
TEST(Hostile, OneSidedSpectraOfNothing) {
    ModelBuilder b(20);
    b.constant("s", ints({3}, {0, 4, 2})).node("ConstantOfShape", {"s"}, {"x"}).constant("axis", t<std::int64_t>({}, {0})).node("DFT", {"x", "", "axis"}, {"y"}, {attribute_i("inverse", 1), attribute_i("onesided", 1)}).output("y");
    expect_refused(b, ErrorCode::shape_mismatch, "one-sided");
}
TEST(Hostile, TheDeadlineEndsAStepBetweenItsTiles) {
    ModelBuilder b(20);
    b.input("n", DType::i64, {}).node("HannWindow", {"n"}, {"y"}).output("y");  // seconds of cosines in one step
    auto engine = b.model().compile({.threads = 1, .deadline = 0.02});
    const auto start = std::chrono::steady_clock::now();
    auto r = engine.try_run({{"n", t<std::int64_t>({}, {100'000'000})}});
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code(), ErrorCode::deadline_exceeded) << r.error().what();
    EXPECT_TRUE(engine.try_run({{"n", t<std::int64_t>({}, {1000})}}));
}
TEST(Hostile, OperatorsThatOnlyPassesMakeCheckWhatTheyAreGiven) {
    const char* const own = "quern";
    const Input picture = f({"1", "3", "8", "8"}), weights = f({"4", "3", "1", "1"}), none{DType::undefined, {}};
    expect_refused(one("FusedConv", {picture, weights, none, f({"1", "4", "8", "7"})}, {}, own), ErrorCode::shape_mismatch, "the residual");
    expect_refused(one("FusedConv", {f({"1", "8", "8", "3"}), weights, none, f({"1", "4", "8", "8"})}, {attribute_s("layout", "nhwc")}, own), ErrorCode::shape_mismatch, "the residual");
    expect_refused(one("FusedConv", {picture, weights, none, none, f({"1", "3", "1", "1"})}, {}, own), ErrorCode::invalid_model, "gate");
    expect_refused(one("PlanarConv", {picture, weights, none, f({"1", "4", "8", "8"})}, {}, own), ErrorCode::shape_mismatch, "the residual");
    expect_refused(one("FusedMatMul", {f({"4", "8"}), f({"8", "6"}), f({"5"})}, {}, own), ErrorCode::shape_mismatch, "the bias");
    expect_refused(one("FusedMatMul", {f({"4", "8"}), f({"8", "6"}), none, f({"4", "5"})}, {}, own), ErrorCode::shape_mismatch, "the residual");
    expect_refused(one("FusedMatMul", {f({"4", "8"}), f({"8", "6"}), none, none, f({"6"})}, {}, own), ErrorCode::invalid_model, "not constant");
    for (quern::Shape shape : {quern::Shape{5}, quern::Shape{6, 1}, quern::Shape{}}) {
        ModelBuilder scaled(24);
        scaled.domain(own, 1).input("x", DType::f32, {"4", "8"}).constant("w", Tensor(DType::f32, {8, 6})).constant("f", Tensor(DType::f32, shape));
        scaled.node("FusedMatMul", {"x", "w", "", "", "f"}, {"y"}, {}, own).output("y");
        expect_refused(scaled, ErrorCode::shape_mismatch, shape.rank() == 1 ? "the factors" : "rank");
    }
    expect_refused(one("Lookup8", {{DType::u8, {"4"}}, {DType::u8, {"16"}}}, {}, own), ErrorCode::shape_mismatch, "length of the table");
    ModelBuilder empty(24);
    empty.domain(own, 1).input("x", DType::f32, {"1", "8", "8", "3"}).constant("w", Tensor(DType::f32, {3, 0, 3, 3})).node("FusedDepthwise", {"x", "", "", "w"}, {"y"}, {}, own).output("y");
    expect_refused(empty, ErrorCode::shape_mismatch, "each depthwise filter");
    expect_refused(one("FusedDepthwise", {f({"1", "8", "8", "3"}), none, none, f({"3", "1", "3", "3"}), none, f({"2", "3"})}, {}, own), ErrorCode::shape_mismatch, "rank 2");
    expect_refused(one("ConvTranspose", {f({"1", "8", "8", "3"}), f({"3", "2", "2", "2"})}, {}, own), ErrorCode::unsupported, "blocks overlap");
    for (const char* copy : {"CopyToDevice", "CopyToHost"}) expect_refused(one(copy, {f({"4"})}, {}, own), ErrorCode::unsupported, "compiled for the CPU");
    const std::vector<Input> qkv{f({"2", "4"}), f({"2", "4"}), f({"2", "4"})};
    const std::vector<std::int64_t> rows{0, 8, -1, 0, 1, 10, -1, 0}, keys{0, 9, -1, 0, 1, 10, -1, 0};
    auto attention = [&](std::vector<std::int64_t> q, std::vector<std::int64_t> k, std::int64_t rank) {
        ModelBuilder b = one("FusedAttention", qkv, {attribute_ints("q", q), attribute_ints("k", k), attribute_ints("v", keys), attribute_ints("y", rows), attribute_i("rank", rank)}, own);
        return b;
    };
    ModelBuilder good = attention(rows, keys, 2);
    EXPECT_EQ(good.run({{"in0", Tensor(DType::f32, {2, 4})}, {"in1", Tensor(DType::f32, {2, 4})}, {"in2", Tensor(DType::f32, {2, 4})}})[0].shape(), (quern::Shape{2, 4}));
    expect_refused(attention(rows, keys, most), ErrorCode::invalid_model, "rank is");
    expect_refused(attention({most, 8, -1, 0, 1, 10, -1, 0}, keys, 2), ErrorCode::invalid_model, "a factor of dimension");
    expect_refused(attention({0, 8, most, 0, 0, 0, 4, 0, 1, 10, -1, 0}, keys, 2), ErrorCode::invalid_model, "a factor of dimension");
    // Of K and masks only the dims at run time tell: a dimension that is not there, an index beyond its factor, rows that are not contiguous.
    for (const std::vector<std::int64_t>& k : {std::vector<std::int64_t>{0, 9, -1, 0, 7, 10, -1, 0}, {0, -1, 2, 2, 0, 9, -1, 0, 1, 10, -1, 0}, {0, 10, -1, 0, 1, 9, -1, 0}}) {
        ModelBuilder b = attention(rows, k, 2);
        auto r = b.model().compile({.threads = 1}).try_run({{"in0", Tensor(DType::f32, {2, 4})}, {"in1", Tensor(DType::f32, {2, 4})}, {"in2", Tensor(DType::f32, {2, 4})}});
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code(), ErrorCode::shape_mismatch) << r.error().what();
    }
    expect_refused(one("QLinearConv", {{DType::u8, {"1", "3", "8", "8"}}, f({}), {DType::u8, {}}, {DType::u8, {"4", "3", "1", "1"}}, f({}), {DType::u8, {}}, f({}), {DType::u8, {}}},
                       {attribute_i("low", 5), attribute_i("high", 4)}, own), ErrorCode::invalid_model, "bounds 5 and 4");
}
TEST(Hostile, FoldingDoesNotDoTheWorkOfHours) {
    auto quick = [](ModelBuilder& b) {
        const auto start = std::chrono::steady_clock::now();
        const std::string bytes = b.bytes();
        auto model = quern::Model::try_from_bytes(std::as_bytes(std::span<const char>(bytes)));
        ASSERT_TRUE(model) << model.error().what();
        auto engine = model->try_compile({.threads = 1});
        EXPECT_TRUE(engine) << engine.error().what();
        EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
    };
    ModelBuilder conv(20);  // 10^12 products over zeros that a few bytes make
    const Tensor zero(DType::u8, {1});
    conv.constant("s", ints({4}, {1, 1, 1024, 1024}));
    conv.node("ConstantOfShape", {"s"}, {"x"}, {quern::onnx::attribute_t("value", zero)}).node("ConvInteger", {"x", "x"}, {"y"}, {attribute_ints("pads", {320, 320, 320, 320})}).output("y");
    quick(conv);
    ModelBuilder products(20);
    products.constant("s", ints({2}, {512, 512})).node("ConstantOfShape", {"s"}, {"m0"});
    for (int k = 0; k < 400; ++k) products.node("MatMul", {"m" + std::to_string(k), k % 2 ? "m0" : "m" + std::to_string(k)}, {"m" + std::to_string(k + 1)});
    products.output("m400");
    quick(products);
    ModelBuilder sum(20);  // a result of one element, and 2^32 between
    sum.constant("s", ints({2}, {256, 256})).node("ConstantOfShape", {"s"}, {"m"}).node("Einsum", {"m", "m", "m", "m"}, {"y"}, {attribute_s("equation", "ab,cd,ac,bd->")}).output("y");
    quick(sum);
    // What models fold is folded still.
    ModelBuilder good(20);
    good.constant("w", floats({2, 2}, {1, 2, 3, 4})).node("MatMul", {"w", "w"}, {"p"}).input("x", DType::f32, {"2", "2"}).node("Add", {"x", "p"}, {"y"}).output("y");
    EXPECT_EQ(good.model().dump("final").find("MatMul"), std::string::npos);
}
TEST(Hostile, ManyBoxesWithoutArea) {
    const std::int64_t n = 200'000;
    ModelBuilder b(20);
    b.input("b", DType::f32, {"1", "N", "4"}).input("s", DType::f32, {"1", "1", "N"}).constant("most", t<std::int64_t>({}, {n})).node("NonMaxSuppression", {"b", "s", "most"}, {"y"}).output("y");
    const auto start = std::chrono::steady_clock::now();
    auto y = b.run({{"b", Tensor(DType::f32, {1, n, 4})}, {"s", Tensor(DType::f32, {1, 1, n})}})[0];
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
    EXPECT_EQ(y.shape(), (quern::Shape{n, 3}));
}
TEST(Hostile, RowsAndWindowsOfNoElements) {
    const auto start = std::chrono::steady_clock::now();
    const Tensor rows(DType::f32, {1 << 29, 0});
    for (const char* op : {"LpNormalization", "Softmax", "Relu"}) EXPECT_EQ(run_op(op, {rows}, {}, 22)[0].shape(), rows.shape()) << op;
    EXPECT_EQ(run_op("LayerNormalization", {rows, Tensor(DType::f32, {0})}, {}, 22)[0].shape(), rows.shape());
    EXPECT_EQ(run_op("ReduceSum", {rows, ints({1}, {0})}, {attribute_i("keepdims", 0)}, 22)[0].shape(), quern::Shape{0});
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
    for (const char* op : {"Conv", "ConvTranspose", "ConvInteger"}) {
        const bool whole = op[4] == 'I', turned = op[4] == 'T';
        const Tensor zero(whole ? DType::u8 : DType::f32, {1});
        ModelBuilder b(20);
        b.constant("xs", ints({3}, {1, 0, 5})).constant("ws", turned ? ints({3}, {0, 1, 1 << 29}) : ints({3}, {1, 0, 1 << 29}));
        for (const char* v : {"x", "w"}) b.node("ConstantOfShape", {std::string(v) + "s"}, {v}, {quern::onnx::attribute_t("value", zero)});
        b.node(op, {"x", "w"}, {"y"}, {attribute_ints("pads", turned ? std::vector<std::int64_t>{1 << 28, 1 << 28} : std::vector<std::int64_t>{1 << 29, 1 << 29}), attribute_ints("strides", {turned ? 1 : 1 << 20})}).output("y");
        expect_refused(b, ErrorCode::unsupported, "have no elements");
    }
}
TEST(Hostile, FirstOutputsThatNobodyWants) {
    const Tensor x = floats({1, 2, 2, 4}, {1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -4, 9, 0, 9, 0}), k = floats({2, 1, 2}, {1, 2, 3, 4}), w = floats({4}, {1, 2, 3, 4}), three = floats({1, 2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
    struct Case {
        const char* op;
        std::vector<Tensor> in;
        int outputs;
        std::vector<quern::onnx::Attribute> attrs;
    };
    const std::vector<Case> cases{
        {"MaxPool", {x}, 2, {attribute_ints("kernel_shape", {2, 2})}},
        {"LayerNormalization", {x, w}, 3, {}},
        {"BatchNormalization", {x, floats({2}, {1, 2}), floats({2}, {1, 2}), floats({2}, {1, 2}), floats({2}, {1, 2})}, 3, {attribute_i("training_mode", 1)}},
        {"Attention", {x, x, x}, 4, {}},
        {"TopK", {x, ints({1}, {2})}, 2, {}},
        {"Unique", {x}, 4, {}},
        {"DynamicQuantizeLinear", {x}, 3, {}},
        {"CausalConvWithState", {three, k}, 2, {}},
        {"LinearAttention", {three, three, three}, 2, {attribute_i("q_num_heads", 1), attribute_i("kv_num_heads", 1), attribute_s("update_rule", "linear")}},
    };
    for (auto& c : cases) {
        const auto all = run_op(c.op, c.in, c.attrs, 27, c.outputs);
        for (int left_out = 0; left_out < c.outputs; ++left_out) {
            ModelBuilder b(27);
            std::vector<std::string> names, outs;
            std::vector<quern::NamedTensor> feeds;
            for (std::size_t i = 0; i < c.in.size(); ++i) {
                names.push_back("in" + std::to_string(i));
                std::vector<std::string> dims;
                for (std::int64_t d : c.in[i].shape()) dims.push_back(std::to_string(d));
                b.input(names.back(), c.in[i].dtype(), dims);
                feeds.emplace_back(names.back(), c.in[i]);
            }
            for (int o = 0; o < c.outputs; ++o) outs.push_back(o == left_out ? "" : "out" + std::to_string(o));
            b.node(c.op, names, outs, c.attrs);
            for (auto& o : outs)
                if (!o.empty()) b.output(o);
            const auto some = b.run(feeds);
            for (std::size_t o = 0, at = 0; o < all.size(); ++o)
                if (static_cast<int>(o) != left_out) expect_near(some[at++], all[o], 0, 0);
        }
    }
}
TEST(Hostile, SkipsOverLongRows) {
    ModelBuilder b(20);
    b.input("x", DType::i64, {"N"});
    b.node("TfIdfVectorizer", {"x"}, {"y"}, {attribute_s("mode", "TF"), attribute_i("min_gram_length", 1), attribute_i("max_gram_length", 2), attribute_i("max_skip_count", INT32_MAX),
                                             attribute_ints("ngram_counts", {0, 1}), attribute_ints("ngram_indexes", {0, 1}), attribute_ints("pool_int64s", {0, 0, 0})});
    b.output("y");
    expect_refused_run(b, {{"x", Tensor(DType::i64, {1 << 20})}}, ErrorCode::shape_mismatch, "skips");
}

}  // namespace
