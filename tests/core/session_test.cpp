// The runtime through its public face, on models of a few nodes.
#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "support/op_test.hpp"

using namespace quern_test;

// Every allocation of the process is counted, so that a run can be shown to make none.
static std::atomic<long> allocations{0};
static void* counted(std::size_t n, std::size_t a) {
    ++allocations;
    void* p = a > alignof(std::max_align_t) ? std::aligned_alloc(a, (n + a - 1) / a * a) : std::malloc(n ? n : 1);
    return p;
}
void* operator new(std::size_t n) { if (void* p = counted(n, 0)) return p; throw std::bad_alloc(); }
void* operator new[](std::size_t n) { if (void* p = counted(n, 0)) return p; throw std::bad_alloc(); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return counted(n, 0); }
void* operator new(std::size_t n, std::align_val_t a) { if (void* p = counted(n, std::size_t(a))) return p; throw std::bad_alloc(); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return counted(n, std::size_t(a)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

/// y = relu(x * w + b), shape [N, 3] x [3, 4].
ModelBuilder dense() {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "3"});
    b.constant("w", floats({3, 4}, {1, 0, 0, -1, 0, 1, 0, -1, 0, 0, 1, -1})).constant("b", floats({4}, {0, 0, 0, 1}));
    b.node("MatMul", {"x", "w"}, {"xw"}).node("Add", {"xw", "b"}, {"s"}).node("Relu", {"s"}, {"y"}).output("y");
    return b;
}
/// The answer of dense() for one row.
std::vector<float> dense_row(float a, float b, float c) {
    auto relu = [](float v) { return v > 0 ? v : 0; };
    return {relu(a), relu(b), relu(c), relu(1 - a - b - c)};
}

TEST(Session, RunsAndKeepsAnswersOfEachShapeRight) {
    auto b = dense();
    auto engine = b.model().compile({.threads = 1});
    quern::Session s(engine);
    for (int n : {1, 5, 2, 5, 1}) {
        auto& x = s.input("x", {n, 3});
        for (std::size_t i = 0; i < x.data<float>().size(); ++i) x.data<float>()[i] = float(i) - 2;
        s.run();
        ASSERT_EQ(s.output("y").shape(), (quern::Shape{n, 4}));
        for (int r = 0; r < n; ++r)
            for (int c = 0; c < 4; ++c) ASSERT_EQ(s.output("y").data<float>()[r * 4 + c], dense_row(r * 3 - 2.f, r * 3 - 1.f, r * 3.f)[c]);
    }
}
TEST(Session, ARunOfASeenShapeAllocatesNothing) {
    auto b = dense();
    for (int threads : {1, 2}) {
        auto engine = b.model().compile({.threads = threads});
        quern::Session s(engine);
        for (int n : {700, 300}) {
            s.input("x", {n, 3});
            s.run();
            s.run();
        }
        for (int n : {700, 300}) {
            Tensor x(DType::f32, {n, 3});
            s.bind("x", x);
            long before = allocations;
            s.run();
            EXPECT_EQ(allocations - before, 0) << "threads " << threads << ", n " << n;
        }
    }
}
TEST(Session, OutputsInTheCallersMemoryCostNoAllocation) {
    auto b = dense();
    quern::Session s(b.model().compile({.threads = 1}));
    const Tensor x[2] = {floats({1, 3}, {1, 2, 3}), floats({1, 3}, {3, 2, 1})}, y[2] = {Tensor(DType::f32, {1, 4}), Tensor(DType::f32, {1, 4})};
    for (int turn = 0; turn < 6; ++turn) {
        long before = allocations;
        s.bind("x", x[turn % 2]);
        s.bind_output("y", y[turn / 2 % 2]);
        s.run();
        if (turn > 3) { EXPECT_EQ(allocations - before, 0); }
        EXPECT_EQ(s.output("y").raw(), y[turn / 2 % 2].raw());
    }
}
TEST(Session, ALoopOfSeenSizesAllocatesNothing) {
    // One carried value keeps its shape, the other one grows; every sum is stacked.
    ModelBuilder inner, b;
    inner.input("i", DType::i64, {}).input("go", DType::boolean, {}).input("acc", DType::f32, {"K"}).input("list", DType::f32, {"L"});
    inner.node("Add", {"acc", "x"}, {"next"}).node("Concat", {"list", "next"}, {"longer"}, {quern::onnx::attribute_i("axis", 0)}).node("Identity", {"go"}, {"on"});
    inner.output("on").output("next").output("longer").output("next");
    b.input("n", DType::i64, {}).input("x", DType::f32, {"N"}).node("Loop", {"n", "", "x", "x"}, {"last", "list", "all"}, {quern::onnx::attribute_g("body", inner.proto().graph)});
    b.output("last").output("list").output("all");
    auto engine = b.model().compile({.threads = 1});
    quern::Session s(engine);
    auto x = floats({3}, {1, 2, 3});
    s.bind("x", x);
    for (int round = 0; round < 3; ++round)
        for (std::int64_t n : {12, 5}) {
            auto trips = ints({}, {n});
            s.bind("n", trips);
            long before = allocations;
            s.run();
            if (round > 0) {
                EXPECT_EQ(allocations - before, 0) << n;
            }
            EXPECT_EQ(s.output("list").data<float>()[std::size_t(3 * n + 1)], 2.f * float(n + 1));
            ASSERT_EQ(s.output("all").shape(), (quern::Shape{n, 3}));
        }
}
TEST(Session, OneEngineSharedByThreadsGivesEachItsOwnAnswer) {
    auto b = dense();
    auto engine = b.model().compile({.threads = 2});
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 50; ++i) {
                float v = float(t * 100 + i);
                auto y = engine.run({{"x", floats({1, 3}, {v, -v, 1})}});
                auto want = dense_row(v, -v, 1);
                for (int c = 0; c < 4; ++c) wrong += y[0].second.data<float>()[c] != want[c];
            }
        });
    for (auto& t : threads) t.join();
    EXPECT_EQ(wrong, 0);
}
TEST(Session, TheCallersExecutorRunsTheTiles) {
    struct Inline final : quern::Executor {
        std::atomic<int> calls{0};
        int width() const noexcept override { return 2; }
        void run(std::int64_t n, Tile tile, void* context) override {
            ++calls;
            std::thread other([&] { for (std::int64_t i = 0; i < n; i += 2) tile(context, i, 1); });
            for (std::int64_t i = 1; i < n; i += 2) tile(context, i, 0);
            other.join();
        }
    };
    ModelBuilder b;
    b.input("x", DType::f32, {"N"}).node("Exp", {"x"}, {"y"}).output("y");
    auto ex = std::make_shared<Inline>();
    auto engine = b.model().compile({.executor = ex});
    auto y = engine.run({{"x", Tensor(DType::f32, {1 << 20})}});
    EXPECT_GT(ex->calls, 0);
    for (float v : y[0].second.data<float>()) ASSERT_EQ(v, 1.f);
}
TEST(Session, ErrorsNameTheInputAndWhatIsAccepted) {
    auto b = dense();
    auto engine = b.model().compile({.threads = 1});
    quern::Session s(engine);
    auto text = [](auto&& f) { try { f(); } catch (const quern::Error& e) { return std::string(e.what()); } return std::string("no error"); };
    EXPECT_NE(text([&] { s.bind("z", Tensor()); }).find("no input 'z'; accepted: 'x'"), std::string::npos);
    EXPECT_NE(text([&] { s.run(); }).find("input 'x' was not given"), std::string::npos);
    EXPECT_NE(text([&] { s.bind("x", ints({1, 3}, {1, 2, 3})); }).find("is float; the tensor given is int64"), std::string::npos);
    EXPECT_NE(text([&] { s.bind("x", floats({2, 2}, {1, 2, 3, 4})); }).find("has shape [N, 3]; the tensor given has [2, 2]"), std::string::npos);
    EXPECT_NE(text([&] { s.output("y"); }).find("after a run()"), std::string::npos);
    EXPECT_NE(text([&] { b.model().compile({.device = "npu"}); }).find("'npu' is not in this build"), std::string::npos);
    EXPECT_NE(text([&] { b.model().compile({.stop_after = "nothing"}); }).find("accepted: import"), std::string::npos);
}
TEST(Session, TapsGiveInnerValuesByTheirOnnxName) {
    auto b = dense();
    auto engine = b.model().compile({.threads = 1, .taps = {"xw"}});
    quern::Session s(engine);
    s.bind("x", floats({1, 3}, {1, 2, -3}));
    s.run();
    expect_near(s.tap("xw"), floats({1, 4}, {1, 2, -3, 0}));
    EXPECT_THROW(s.tap("s"), quern::Error);
    EXPECT_THROW(b.model().compile({.taps = {"unknown"}}), quern::Error);
}
TEST(Session, OutputsGoIntoTheCallersTensor) {
    auto b = dense();
    auto engine = b.model().compile({.threads = 1});
    quern::Session s(engine);
    Tensor y(DType::f32, {1, 4});
    s.bind("x", floats({1, 3}, {1, 2, 3}));
    s.bind_output("y", y);
    s.run();
    EXPECT_EQ(y.data<float>()[2], 3.f);
    s.bind("x", Tensor(DType::f32, {2, 3}));
    EXPECT_THROW(s.run(), quern::Error);
}
TEST(Session, MemoryLimitAndDeadlineAreErrors) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N"}).node("Exp", {"x"}, {"e"}).node("Sin", {"e"}, {"y"}).node("Cos", {"y"}, {"z"}).output("z").output("e");
    auto small = b.model().compile({.threads = 1, .memory_limit = 1 << 16});
    auto r = small.try_run({{"x", Tensor(DType::f32, {1 << 20})}});
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code(), quern::ErrorCode::out_of_memory);
    EXPECT_TRUE(small.try_run({{"x", Tensor(DType::f32, {100})}}));
    auto slow = b.model().compile({.threads = 1, .deadline = 1e-9});
    auto d = slow.try_run({{"x", Tensor(DType::f32, {100})}});
    ASSERT_FALSE(d);
    EXPECT_EQ(d.error().code(), quern::ErrorCode::deadline_exceeded);
}
TEST(Session, ProfileNamesNodesAndKernels) {
    auto b = dense();
    auto engine = b.model().compile({.threads = 1});
    quern::Session s(engine);
    s.profile(true);
    s.bind("x", floats({1, 3}, {1, 2, 3}));
    s.run();
    ASSERT_FALSE(s.times().empty());
    EXPECT_NE(s.profile_table().find("by operator and kernel"), std::string::npos);
    EXPECT_EQ(s.profile_trace().rfind("{\"traceEvents\":[{", 0), 0u);
}
TEST(Session, DataDependentSizesResolveInSegments) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N"});
    b.node("NonZero", {"x"}, {"nz"}).node("Shape", {"nz"}, {"shape"}).node("Cast", {"nz"}, {"f"}, {quern::onnx::attribute_i("to", 1)});
    b.node("Add", {"f", "f"}, {"two"}).output("two").output("shape");
    auto engine = b.model().compile({.threads = 1});
    quern::Session s(engine);
    for (int k : {3, 0, 4, 3}) {
        Tensor x(DType::f32, {5});
        for (int i = 0; i < k; ++i) x.data<float>()[4 - i] = 1;
        s.bind("x", x);
        s.run();
        ASSERT_EQ(s.output("two").shape(), (quern::Shape{1, k}));
        EXPECT_EQ(s.output("shape").data<std::int64_t>()[1], k);
        for (int i = 0; i < k; ++i) EXPECT_EQ(s.output("two").data<float>()[i], 2.f * (5 - k + i));
    }
}
TEST(Session, ReshapeByAComputedShapeIsResolvedAtRunTime) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "M"}).input("shape", DType::i64, {"K"});
    b.node("Reshape", {"x", "shape"}, {"r"}).node("Relu", {"r"}, {"y"}).output("y");
    auto engine = b.model().compile({.threads = 1});
    auto x = floats({2, 3}, {1, -2, 3, -4, 5, -6});
    EXPECT_EQ(engine.run({{"x", x}, {"shape", ints({1}, {-1})}})[0].second.shape(), (quern::Shape{6}));
    EXPECT_EQ(engine.run({{"x", x}, {"shape", ints({3}, {3, 1, 2})}})[0].second.shape(), (quern::Shape{3, 1, 2}));
    EXPECT_FALSE(engine.try_run({{"x", x}, {"shape", ints({1}, {5})}}));
}
TEST(Session, IfRunsTheBranchThatIsTaken) {
    ModelBuilder then_part, else_part, b;
    then_part.node("Relu", {"x"}, {"t"}).output("t");
    else_part.node("Neg", {"x"}, {"e0"}).node("Concat", {"e0", "x"}, {"e"}, {quern::onnx::attribute_i("axis", 0)}).output("e");
    b.input("c", DType::boolean, {}).input("x", DType::f32, {"N"});
    b.node("If", {"c"}, {"y"}, {quern::onnx::attribute_g("then_branch", then_part.proto().graph), quern::onnx::attribute_g("else_branch", else_part.proto().graph)});
    b.node("Abs", {"y"}, {"z"}).output("z").output("y");
    auto engine = b.model().compile({.threads = 1});
    Tensor yes(DType::boolean, {}), no(DType::boolean, {});
    yes.data<bool>()[0] = true;
    auto x = floats({2}, {-1, 2});
    for (int round = 0; round < 3; ++round) {
        expect_near(engine.run({{"c", yes}, {"x", x}})[1].second, floats({2}, {0, 2}));
        expect_near(engine.run({{"c", no}, {"x", x}})[0].second, floats({4}, {1, 2, 1, 2}));
    }
}
TEST(Session, AnOutputMayBeAnInputOrAConstant) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N"}).constant("c", floats({2}, {7, 8})).node("Identity", {"x"}, {"y"}).output("y").output("c").output("x");
    auto out = b.run({{"x", floats({1}, {3})}});
    expect_near(out[0], floats({1}, {3}));
    expect_near(out[1], floats({2}, {7, 8}));
    expect_near(out[2], floats({1}, {3}));
}
TEST(Session, AnySavedStageGivesTheSameAnswer) {
    auto b = dense();
    auto m = b.model();
    auto x = floats({2, 3}, {1, 2, 3, -1, -2, -3});
    auto want = m.compile({.threads = 1}).run({{"x", x}})[0].second;
    for (std::string stage : {"import", "cse", "final"}) {
        std::string path = std::string(QUERN_BINARY_DIR) + "/saved_" + stage + ".onnx";
        ASSERT_TRUE(m.save(path, stage));
        auto again = quern::Model::load(path).compile({.threads = 1}).run({{"x", x}});
        EXPECT_EQ(again[0].first, "y");
        expect_near(again[0].second, want, 0, 0);
    }
}
TEST(Session, HalfPrecisionModelsComputeWideAndAnswerNarrow) {
    ModelBuilder b;
    b.input("x", DType::f16, {"N"}).node("Exp", {"x"}, {"e"}).node("Sqrt", {"e"}, {"y"}).output("y");
    Tensor x(DType::f16, {2});
    static_cast<std::uint16_t*>(x.raw())[1] = 0x3c00;  // 1.0
    auto y = b.run({{"x", x}})[0];
    ASSERT_EQ(y.dtype(), DType::f16);
    EXPECT_EQ(static_cast<std::uint16_t*>(y.raw())[0], 0x3c00);
    EXPECT_EQ(static_cast<std::uint16_t*>(y.raw())[1], 0x3e98);  // sqrt(e) = 1.6487
}

}  // namespace
