// What an embedder may get wrong or stretch: odd tensors, overlapping memory, lifetimes, names that are no text.
#include <cmath>
#include <thread>

#include <quern/graph/dump.hpp>

#include "../support/bytes_test.hpp"
#include "../support/op_test.hpp"

using namespace quern;
using namespace quern_test;

namespace {

/// y = relu(x * 0.5 ones), [N, 4].
ModelBuilder halves() {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "4"}).constant("w", floats({4, 4}, std::vector<float>(16, .5f)));
    b.node("MatMul", {"x", "w"}, {"h"}).node("Relu", {"h"}, {"y"}).output("y");
    return b;
}
std::string refused(const Result<void>& r) {
    EXPECT_FALSE(r.ok());
    if (r.ok()) return {};
    EXPECT_EQ(r.error().code(), ErrorCode::invalid_argument) << r.error().what();
    return r.error().message();
}

TEST(Misuse, TensorsWithoutMemoryOrWithNegativeDimensions) {
    auto b = halves();
    Session s(b.model().compile({.threads = 1}));
    EXPECT_NE(refused(s.try_bind("x", Tensor::borrow(DType::f32, {2, 4}, nullptr))).find("without memory"), std::string::npos);
    float f[8] = {};
    EXPECT_NE(refused(s.try_bind("x", Tensor::borrow(DType::f32, {-1, 4}, f))).find("[-1, 4]"), std::string::npos);
    EXPECT_NE(refused(s.try_bind_output("y", Tensor::borrow(DType::f32, {2, 4}, nullptr))).find("without memory"), std::string::npos);
    EXPECT_TRUE(s.try_bind("x", Tensor::borrow(DType::f32, {0, 4}, nullptr)).ok());
    s.run();
    EXPECT_EQ(s.output("y").shape(), (Shape{0, 4}));
    s.bind("x", Tensor());  // nothing bound
    EXPECT_NE(refused(s.try_run()).find("'x' was not given"), std::string::npos);
}
TEST(Misuse, InputsAndOutputsInTheSameMemory) {
    auto b = halves();
    Session s(b.model().compile({.threads = 1}));
    Tensor x = floats({2, 4}, {1, 1, 1, 1, 2, 2, 2, 2});
    s.bind("x", x);
    s.bind_output("y", x);
    for (float want : {4.f, 8.f, 16.f}) {
        s.run();
        EXPECT_EQ(x.data<float>()[4], want);
    }
    // An output that is a view of an input, bound to memory that overlaps it.
    ModelBuilder id;
    id.input("x", DType::f32, {"N"}).node("Identity", {"x"}, {"y"}).output("y");
    Session t(id.model().compile({.threads = 1}));
    for (int shift : {0, 1, 3}) {
        std::vector<float> m(1003);
        for (std::size_t i = 0; i < m.size(); ++i) m[i] = static_cast<float>(i);
        t.bind("x", Tensor::borrow(std::span<float>(m).first(1000), {1000}));
        t.bind_output("y", Tensor::borrow(std::span<float>(m).subspan(static_cast<std::size_t>(shift), 1000), {1000}));
        t.run();
        for (std::size_t i = 0; i < 1000; ++i) ASSERT_EQ(m[i + static_cast<std::size_t>(shift)], static_cast<float>(i)) << shift;
    }
}
TEST(Misuse, ASessionOutlivesItsEngineAndModel) {
    auto b = halves();
    auto session = std::make_unique<Session>([&] {
        Model m = b.model();
        return Session(m.compile({.threads = 2}));
    }());
    Session moved = std::move(*session);
    session.reset();
    for (float& v : moved.input("x", {3, 4}).data<float>()) v = 1;
    moved.run();
    EXPECT_EQ(moved.output("y").data<float>()[11], 2.f);
    Tensor kept = moved.output("y").clone();
    for (float& v : moved.input("x", {3, 4}).data<float>()) v = 2;
    moved.run();
    EXPECT_EQ(kept.data<float>()[11], 2.f);
}
TEST(Misuse, DeadlinesThatNoClockHolds) {
    auto b = halves();
    for (double none : {0.0, 1e10, 1e300, double(INFINITY)}) EXPECT_TRUE(b.model().compile({.threads = 1, .deadline = none}).try_run({{"x", floats({1, 4}, {1, 1, 1, 1})}}).ok()) << none;
    for (double bad : {-1.0, double(NAN), -double(INFINITY)}) {
        auto r = b.model().try_compile({.threads = 1, .deadline = bad});
        ASSERT_FALSE(r.ok()) << bad;
        EXPECT_EQ(r.error().code(), ErrorCode::invalid_argument);
    }
}
TEST(Misuse, NamesThatAreNoText) {
    const std::string odd = "x\n\t\"\\\xff\xc3\xa9\x01";
    ModelBuilder b;
    b.input(odd, DType::f32, {"N", "a\nb"}).node("Relu", {odd}, {"y\r\n"}).output("y\r\n");
    Model m = b.model();
    const std::string json = m.dump("import", "json");
    for (char c : json) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
    EXPECT_EQ(json.find('\xff'), std::string::npos);
    EXPECT_NE(json.find("x\\u000a\\u0009\\\"\\\\\\ufffd\xc3\xa9\\u0001"), std::string::npos) << json;
    Session s(m.compile({.threads = 1}));
    auto r = s.try_run();
    ASSERT_FALSE(r.ok());
    EXPECT_NE(std::string(r.error().what()).find("'x\\n\\t\"\\\xff\xc3\xa9\\x01' was not given"), std::string::npos) << r.error().what();
    for (float& v : s.input(odd, {1, 2}).data<float>()) v = -1;
    s.run();
    EXPECT_EQ(s.output("y\r\n").data<float>()[1], 0.f);
}
TEST(Misuse, JsonHoldsOnlyUtf8) {
    for (const char* fine : {"\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
        EXPECT_EQ(json_string(fine), std::string("\"") + fine + "\"");
    for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3", "\xe2\x82", "\xf0\x9f\x98"})
        EXPECT_EQ(json_string(bad).find_first_not_of("\"\\ufd"), std::string::npos) << json_string(bad);
    EXPECT_EQ(json_string("a\xc3z"), "\"a\\ufffdz\"");
}

}  // namespace
