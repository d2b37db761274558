// The C interface, from C++ (tests/consumer builds a program with the C compiler).
#include <quern/quern.h>

#include <cmath>

#include "../support/op_test.hpp"

namespace {
using namespace quern_test;

struct Handles {
    quern_model* model = nullptr;
    quern_engine* engine = nullptr;
    quern_session* session = nullptr;
    quern_error* error = nullptr;
    ~Handles() {
        quern_model_free(model);
        quern_engine_free(engine);
        quern_session_free(session);
        quern_error_free(error);
    }
    quern_status open(const std::string& bytes, const quern_load_options* load = nullptr) {
        if (quern_status s = quern_model_from_bytes(bytes.data(), bytes.size(), load, &model, &error)) return s;
        if (quern_status s = quern_model_compile(model, nullptr, &engine, &error)) return s;
        return quern_session_create(engine, &session, &error);
    }
    std::string message() const { return quern_error_message(error); }
};
quern_tensor view(quern_dtype t, const std::vector<std::int64_t>& dims, const void* data) {
    return {t, static_cast<int32_t>(dims.size()), dims.data(), const_cast<void*>(data)};
}

TEST(CApi, StringsInAndOut) {
    ModelBuilder b;
    b.input("x", DType::string, {"N"}).input("y", DType::string, {"1"}).node("StringConcat", {"x", "y"}, {"z"}).output("z");
    const std::string bytes = b.bytes();
    Handles h;
    ASSERT_EQ(QUERN_OK, h.open(bytes)) << h.message();
    const char *x[] = {"ham", "spam", ""}, *y[] = {"!"};
    std::vector<std::int64_t> three{3}, one{1};
    quern_tensor tx = view(QUERN_STRING, three, x), ty = view(QUERN_STRING, one, y), z;
    ASSERT_EQ(QUERN_OK, quern_session_bind(h.session, "x", &tx, &h.error)) << h.message();
    ASSERT_EQ(QUERN_OK, quern_session_bind(h.session, "y", &ty, &h.error));
    for (int i = 0; i < 2; ++i) {
        ASSERT_EQ(QUERN_OK, quern_session_run(h.session, &h.error)) << h.message();
        ASSERT_EQ(QUERN_OK, quern_session_output(h.session, "z", &z, &h.error));
        ASSERT_EQ(z.dtype, QUERN_STRING);
        EXPECT_STREQ(static_cast<const char* const*>(z.data)[1], "spam!");
    }
}
TEST(CApi, OutputsGoWhereTheCallerWants) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N"}).node("Neg", {"x"}, {"y"}).output("y");
    const std::string bytes = b.bytes();
    Handles h;
    ASSERT_EQ(QUERN_OK, h.open(bytes));
    float x[] = {1, -2}, y[2] = {};
    std::vector<std::int64_t> two{2};
    quern_tensor tx = view(QUERN_FLOAT, two, x), ty = view(QUERN_FLOAT, two, y);
    ASSERT_EQ(QUERN_OK, quern_session_bind(h.session, "x", &tx, nullptr));
    ASSERT_EQ(QUERN_OK, quern_session_bind_output(h.session, "y", &ty, nullptr));
    ASSERT_EQ(QUERN_OK, quern_session_run(h.session, nullptr));
    EXPECT_EQ(y[0], -1);
    EXPECT_EQ(y[1], 2);
}
TEST(CApi, CachesGrowInTheCallersMemory) {
    ModelBuilder b;  // one head of 2 values: attention over all keys so far, which are the values, too
    b.input("x", DType::f32, {"1", "S", "2"}).input("old", DType::f32, {"1", "1", "P", "2"}).constant("head", ints({4}, {0, 0, 1, 2}));
    b.node("Reshape", {"x", "head"}, {"x4"}).node("Transpose", {"x4"}, {"h"}, {quern::onnx::attribute_ints("perm", {0, 2, 1, 3})});
    b.node("Concat", {"old", "h"}, {"all"}, {quern::onnx::attribute_i("axis", 2)}).node("Transpose", {"all"}, {"t"}, {quern::onnx::attribute_ints("perm", {0, 1, 3, 2})});
    b.node("MatMul", {"h", "t"}, {"s"}).node("Softmax", {"s"}, {"p"}, {quern::onnx::attribute_i("axis", -1)}).node("MatMul", {"p", "all"}, {"y"}).output("y").output("all");
    const std::string bytes = b.bytes();
    Handles h;
    ASSERT_EQ(QUERN_OK, h.open(bytes)) << h.message();
    float memory[6] = {9, 9, 9, 9, 9, 9};
    std::vector<std::int64_t> room{1, 1, 3, 2}, flat{6}, more{1, 1, 2};
    const quern_tensor cache = view(QUERN_FLOAT, room, memory), none = view(QUERN_FLOAT, flat, memory);
    auto refused = [&](const char* in, const char* out, const quern_tensor* t, std::int64_t length, quern_status status, const char* text) {
        EXPECT_EQ(status, quern_session_bind_cache(h.session, in, out, t, length, &h.error));
        EXPECT_NE(h.message().find(text), std::string::npos) << h.message();
        quern_error_free(h.error);
        h.error = nullptr;
    };
    refused("old", "y", &cache, 0, QUERN_UNSUPPORTED, "accepted: 'old' with 'all'");
    refused("older", "all", &cache, 0, QUERN_INVALID_ARGUMENT, "no input 'older'");
    refused("old", "all", &none, 0, QUERN_INVALID_ARGUMENT, "[B, H, C, D]");
    refused("old", "all", &cache, 4, QUERN_INVALID_ARGUMENT, "accepted: 0 to 3");
    refused("old", "all", nullptr, 0, QUERN_INVALID_ARGUMENT, "memory is null");
    refused(nullptr, "all", &cache, 0, QUERN_INVALID_ARGUMENT, "input is null");
    EXPECT_EQ(QUERN_INVALID_ARGUMENT, quern_session_bind_cache(nullptr, "old", "all", &cache, 0, nullptr));
    ASSERT_EQ(QUERN_OK, quern_session_bind_cache(h.session, "old", "all", &cache, 0, &h.error)) << h.message();
    for (int turn = 0; turn < 3; ++turn) {
        const float x[2] = {static_cast<float>(turn), 1};
        const quern_tensor tx = view(QUERN_FLOAT, more, x);
        ASSERT_EQ(QUERN_OK, quern_session_bind(h.session, "x", &tx, &h.error)) << h.message();
        ASSERT_EQ(QUERN_OK, quern_session_run(h.session, &h.error)) << h.message();
        double top = 0, sum = 0;
        for (int i = 0; i <= turn; ++i) top += std::exp(turn * i - turn * turn) * i, sum += std::exp(turn * i - turn * turn);
        quern_tensor y, all;
        ASSERT_EQ(QUERN_OK, quern_session_output(h.session, "y", &y, &h.error));
        EXPECT_NEAR(static_cast<const float*>(y.data)[0], top / sum, 1e-5);
        EXPECT_NEAR(static_cast<const float*>(y.data)[1], 1, 1e-6);
        ASSERT_EQ(QUERN_OK, quern_session_output(h.session, "all", &all, &h.error));
        EXPECT_EQ(all.data, memory);
        for (int i = 0; i < 3; ++i) EXPECT_EQ(memory[2 * i], i <= turn ? float(i) : 9);
    }
    EXPECT_EQ(QUERN_SHAPE_MISMATCH, quern_session_run(h.session, &h.error));
    EXPECT_NE(h.message().find("room for 3 positions would get 4"), std::string::npos) << h.message();
}
/// FunctionProto: Twice of domain d, w = v + v.
constexpr char twice[] = "\x0a\x05" "Twice" "\x22\x01" "v" "\x2a\x01" "w" "\x3a\x0e" "\x0a\x01" "v" "\x0a\x01" "v" "\x12\x01" "w" "\x22\x03" "Add" "\x4a\x02\x10\x14" "\x52\x01" "d";
TEST(CApi, FunctionBodiesOfOperators) {
    ModelBuilder b;
    b.domain("d", 3).input("x", DType::f32, {"N"}).node("Twice", {"x"}, {"y"}, {}, "d").output("y");
    const std::string bytes = b.bytes();
    quern_load_options load{};
    load.size = sizeof load;
    quern_function f{twice, sizeof twice - 1, 3};
    load.functions = &f;
    load.function_count = 1;
    Handles h, none, newer, null;
    ASSERT_EQ(QUERN_OK, h.open(bytes, &load)) << h.message();
    const float x[2] = {1, -3};
    auto tx = view(QUERN_FLOAT, std::vector<std::int64_t>{2}, x);
    std::vector<std::int64_t> dims{2};
    tx.dims = dims.data();
    ASSERT_EQ(QUERN_OK, quern_session_bind(h.session, "x", &tx, nullptr));
    ASSERT_EQ(QUERN_OK, quern_session_run(h.session, nullptr));
    quern_tensor y;
    ASSERT_EQ(QUERN_OK, quern_session_output(h.session, "y", &y, nullptr));
    EXPECT_EQ(static_cast<const float*>(y.data)[1], -6);
    EXPECT_EQ(QUERN_UNSUPPORTED, none.open(bytes));
    f.since = 4;
    EXPECT_EQ(QUERN_UNSUPPORTED, newer.open(bytes, &load));
    EXPECT_NE(newer.message().find("since opset 4"), std::string::npos) << newer.message();
    f.bytes = nullptr;
    EXPECT_EQ(QUERN_INVALID_ARGUMENT, null.open(bytes, &load));
}
TEST(CApi, NonsenseIsAnError) {
    Handles h;
    EXPECT_EQ(QUERN_INVALID_ARGUMENT, quern_model_load(nullptr, nullptr, &h.model, nullptr));
    EXPECT_EQ(QUERN_INVALID_MODEL, quern_model_from_bytes("abc", 3, nullptr, &h.model, &h.error));
    EXPECT_EQ(quern_error_status(h.error), QUERN_INVALID_MODEL);
    EXPECT_EQ(QUERN_INVALID_ARGUMENT, quern_session_create(nullptr, &h.session, nullptr));
    EXPECT_EQ(QUERN_INVALID_ARGUMENT, quern_session_run(nullptr, nullptr));
    ModelBuilder b;
    b.input("x", DType::f32, {"N"}).node("Neg", {"x"}, {"y"}).output("y");
    const std::string bytes = b.bytes();
    quern_options unsized{};
    quern_engine* e = nullptr;
    quern_error_free(h.error);
    h.error = nullptr;
    ASSERT_EQ(QUERN_OK, h.open(bytes)) << h.message();
    EXPECT_EQ(QUERN_INVALID_ARGUMENT, quern_model_compile(h.model, &unsized, &e, nullptr));
    EXPECT_EQ(e, nullptr);
    quern_options small{};
    small.size = offsetof(quern_options, memory_limit);  // an older caller's struct
    EXPECT_EQ(QUERN_OK, quern_model_compile(h.model, &small, &e, nullptr));
    quern_engine_free(e);
    float x[2] = {};
    std::vector<std::int64_t> negative{-2}, huge{INT64_MAX, INT64_MAX};
    for (auto t : {view(QUERN_FLOAT, negative, x), view(QUERN_FLOAT, huge, x), view(static_cast<quern_dtype>(77), {}, x), view(QUERN_FLOAT, {}, nullptr), view(QUERN_DOUBLE, {}, x)})
        EXPECT_EQ(QUERN_INVALID_ARGUMENT, quern_session_bind(h.session, "x", &t, nullptr));
    EXPECT_STREQ(quern_status_name(QUERN_OK), "ok");
    EXPECT_STREQ(quern_status_name(static_cast<quern_status>(99)), "unknown");
    EXPECT_STREQ(quern_error_message(nullptr), "");
}

// The elements above the attribute "least": their number is known from the data.
quern_status infer_above(void*, quern_infer* node) {
    quern_tensor x;
    if (!quern_infer_input(node, 0, &x)) return quern_infer_fail(node, QUERN_INVALID_MODEL, "no input");
    if (x.dtype != QUERN_FLOAT) return quern_infer_fail(node, QUERN_UNSUPPORTED, "only float");
    const std::int64_t open = QUERN_DIM_UNKNOWN;
    quern_infer_output(node, 0, QUERN_FLOAT, 1, &open);
    return QUERN_OK;
}
quern_status above(const quern_call* call, float* to, std::int64_t* n) {
    quern_tensor x;
    if (!quern_call_input(call, 0, &x)) return quern_call_fail(call, QUERN_INVALID_MODEL, "no input");
    const float least = quern_call_attribute_float(call, "least", 0);
    *n = 0;
    for (std::int64_t i = 0; i < x.dims[0]; ++i) {
        const float v = static_cast<const float*>(x.data)[i];
        if (v != v) return quern_call_fail(call, QUERN_CANCELLED, "not a number");
        if (v > least) {
            if (to) to[*n] = v;
            ++*n;
        }
    }
    return QUERN_OK;
}
quern_status size_above(void*, quern_call* call) {
    std::int64_t n = 0;
    quern_status s = above(call, nullptr, &n);
    if (!s) quern_call_set_size(call, 0, 0, n);
    return s;
}
quern_status run_above(void*, const quern_call* call) {
    quern_tensor y;
    std::int64_t n = 0;
    if (!quern_call_output(call, 0, &y)) return quern_call_fail(call, QUERN_INVALID_MODEL, "no output");
    return above(call, static_cast<float*>(y.data), &n);
}
TEST(CApi, CustomOperatorWithSizesFromData) {
    quern_custom_op op{};
    op.size = sizeof op;
    op.domain = "c.test", op.name = "Above";
    op.min_inputs = op.max_inputs = op.min_outputs = op.max_outputs = 1;
    op.infer = infer_above, op.run = run_above, op.sizes = size_above;
    const quern_custom_op* ops[] = {&op};
    quern_load_options load{};
    load.size = sizeof load, load.custom_ops = ops, load.custom_op_count = 1;
    ModelBuilder b;
    b.domain("c.test", 1).input("x", DType::f32, {"N"}).node("Above", {"x"}, {"p"}, {quern::onnx::attribute_f("least", 1)}, "c.test").node("Neg", {"p"}, {"y"}).output("y");
    const std::string bytes = b.bytes();
    Handles h;
    ASSERT_EQ(QUERN_OK, h.open(bytes, &load)) << h.message();
    float x[] = {0, 5, 1, 2};
    std::vector<std::int64_t> four{4};
    quern_tensor tx = view(QUERN_FLOAT, four, x), y;
    ASSERT_EQ(QUERN_OK, quern_session_bind(h.session, "x", &tx, nullptr));
    ASSERT_EQ(QUERN_OK, quern_session_run(h.session, &h.error)) << h.message();
    ASSERT_EQ(QUERN_OK, quern_session_output(h.session, "y", &y, nullptr));
    ASSERT_EQ(y.dims[0], 2);
    EXPECT_EQ(static_cast<float*>(y.data)[0], -5);
    x[3] = NAN;
    EXPECT_EQ(QUERN_CANCELLED, quern_session_run(h.session, &h.error));
    EXPECT_NE(h.message().find("not a number"), std::string::npos);
    EXPECT_NE(h.message().find("node 'Above0' (c.test::Above"), std::string::npos) << h.message();
    op.run = nullptr;
    quern_model* none = nullptr;
    EXPECT_EQ(QUERN_INVALID_ARGUMENT, quern_model_from_bytes(bytes.data(), bytes.size(), &load, &none, nullptr));
    EXPECT_EQ(none, nullptr);
}
}  // namespace
