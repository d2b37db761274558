// Host and device at the same time: what is under way while the host computes, on the twin of the runtime, which can tell; and that
// each wait for an event is needed.
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstring>
#include <thread>

#include <quern/cuda.hpp>

#include "runtime.hpp"
#include "support/op_test.hpp"

namespace {
using namespace quern;
using namespace quern_test;

Tensor noise(Shape shape, int seed = 1) {
    Tensor t(DType::f32, std::move(shape));
    std::uint32_t x = static_cast<std::uint32_t>(seed) * 2654435761u + 1;
    for (float& v : t.data<float>()) x = x * 1664525u + 1013904223u, v = static_cast<float>(x >> 8) / 8388608.f - 1.f;
    return t;
}
/// How much work of the device was under way when the host's operator began and when it ended, in the order of its runs.
struct Watched {
    std::vector<std::size_t> begun, ended;
};
/// y = log(x), on the host; tells `w` what is under way meanwhile.
CustomOps watching(Watched& w) {
    CustomOp op;
    op.domain = "test";
    op.name = "Watch";
    op.infer = [](CustomInfer& c) { c.set(0, c.type(0), c.dims(0)); };
    op.run = [&w](const CustomRun& c) {
        w.begun.push_back(simt::pending());
        const auto x = c.input<float>(0);
        auto y = c.output<float>(0);
        for (std::size_t i = 0; i < x.size(); ++i) y[i] = std::log(x[i]);
        w.ended.push_back(simt::pending());
    };
    return {std::make_shared<const CustomOp>(std::move(op))};
}
/// What the device makes of x goes to the host and back, and on the device: y depends on both ways, z on the device alone.
struct BothWays {
    Watched watched;
    std::string bytes;
    Model model;
    explicit BothWays(bool again = false) : model(make(again)) {}
    Model make(bool again) {
        ModelBuilder b;
        b.domain("test", 1);
        b.input("x", DType::f32, {"N", "128"}).constant("v", noise({128, 128}, 4)).constant("w", noise({128, 128}, 3));
        b.node("Softmax", {"x"}, {"a"}).node("Watch", {"a"}, {"s"}, {}, "test").node("Softmax", {"s"}, {"t"});
        b.node("MatMul", {"a", "v"}, {"m"}).node("Softmax", {"m"}, {"z"}).output("z");
        if (again) b.node("Watch", {"t"}, {"u"}, {}, "test").node("Watch", {"z"}, {"r"}, {}, "test").node("Softmax", {"u"}, {"k"}).node("Softmax", {"r"}, {"l"}).node("MatMul", {"k", "w"}, {"p"}).node("Add", {"p", "l"}, {"y"});
        else b.node("MatMul", {"t", "w"}, {"y"});
        b.output("y");
        bytes = b.bytes();
        return Model::from_bytes(std::as_bytes(std::span<const char>(bytes)), {}, watching(watched));
    }
    std::vector<NamedTensor> on_cpu(const Tensor& x) const {
        Options o;
        o.threads = 1;
        return model.compile(o).run({{"x", x}});
    }
};
Options on_cuda() {
    Options o;
    o.threads = 1;
    o.device = "cuda";
    return o;
}
bool same(const Tensor& got, const Tensor& want) {
    const auto g = got.data<float>(), w = want.data<float>();
    for (std::size_t i = 0; i < w.size(); ++i)
        if (!(std::abs(g[i] - w[i]) <= 2e-6f + 2e-5f * std::abs(w[i]))) return false;
    return g.size() == w.size();
}
struct Forgetting {
    explicit Forgetting(bool& what) : what_(what) { what_ = true; }
    ~Forgetting() { what_ = false; }
    bool& what_;
};
/// Whether one of so many runs in new sessions, each another order of the streams' work, gives another answer.
bool goes_wrong(const BothWays& b, const Engine& engine, const Tensor& x, int runs) {
    const auto want = b.on_cpu(x);
    for (int run = 0; run < runs; ++run) {
        Session s(engine);
        s.bind("x", x);
        s.run();
        if (!same(s.output("z"), want[0].second) || !same(s.output("y"), want[1].second)) return true;
    }
    return false;
}

TEST(CudaOverlap, TheDeviceWorksWhileTheHostComputes) {
    BothWays b;
    Engine engine = b.model.compile(on_cuda());
    Session s(engine);
    for (int run = 0; run < 6; ++run) {
        Tensor x = noise({run < 4 ? 40 : 24, 128}, run);
        const auto want = b.on_cpu(x);
        b.watched = {};
        s.bind("x", x);
        s.run();
        ASSERT_EQ(b.watched.begun.size(), 1u);
        EXPECT_GE(b.watched.ended[0], 1u) << "nothing was enqueued before the host's node had ended: " << engine.describe();
        EXPECT_TRUE(same(s.output("z"), want[0].second)) << run;
        EXPECT_TRUE(same(s.output("y"), want[1].second)) << run;
    }
}
TEST(CudaOverlap, EveryWaitIsNeeded) {
    for (bool again : {false, true}) {
        BothWays b(again);
        Engine engine = b.model.compile(on_cuda());
        Tensor x = noise({24, 128});
        EXPECT_FALSE(goes_wrong(b, engine, x, 10));
        {
            Forgetting f(simt::config.forget_host_waits);
            EXPECT_TRUE(goes_wrong(b, engine, x, 300)) << engine.describe();
        }
        {
            Forgetting f(simt::config.forget_stream_waits);
            EXPECT_TRUE(goes_wrong(b, engine, x, 300)) << engine.describe();
        }
        EXPECT_FALSE(goes_wrong(b, engine, x, 10));
    }
}
TEST(CudaOverlap, TheBitsAreThoseOfRunsOneByOne) {
    BothWays b(true);
    auto o = on_cuda();
    Engine recorded = b.model.compile(o);
    o.device_graphs = false;
    Engine plain = b.model.compile(o);
    Session r(recorded), p(plain);
    p.profile(true);  // waits after each step
    for (int run = 0; run < 5; ++run) {
        Tensor x = noise({32, 128}, run);
        for (Session* s : {&r, &p}) s->bind("x", x), s->run();
        for (const char* n : {"y", "z"}) ASSERT_EQ(0, std::memcmp(r.output(n).raw(), p.output(n).raw(), r.output(n).bytes())) << run << n;
    }
}
TEST(CudaOverlap, SessionsBesideEachOther) {
    BothWays b(true);
    Engine engine = b.model.compile(on_cuda());
    std::vector<Tensor> x;
    std::vector<std::vector<NamedTensor>> want;
    for (int t = 0; t < 3; ++t) {
        x.push_back(noise({16 + 8 * t, 128}, t));
        want.push_back(b.on_cpu(x.back()));
    }
    b.watched.begun.reserve(1000), b.watched.ended.reserve(1000);
    std::vector<std::thread> threads;
    std::atomic<int> bad{0};
    for (std::size_t t = 0; t < 3; ++t)
        threads.emplace_back([&, t] {
            Session s(engine);
            for (int run = 0; run < 4; ++run) {
                s.bind("x", x[t]);
                s.run();
                bad += !same(s.output("z"), want[t][0].second) || !same(s.output("y"), want[t][1].second);
            }
        });
    for (auto& t : threads) t.join();
    EXPECT_EQ(bad, 0);
}
/// Device tensors in and out: the second run begins while the first one's last kernels are under way.
TEST(CudaOverlap, RunsFollowEachOtherOnTheCallersStream) {
    BothWays b(true);
    auto o = on_cuda();
    o.device_io = true;
    Engine engine = b.model.compile(o);
    cudaStream_t stream = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    constexpr std::int64_t rows = 16;
    constexpr std::size_t n = rows * 128 * sizeof(float);
    void *in[4] = {}, *out[4] = {};
    {
        Session s(engine);
        s.stream(stream);
        std::vector<Tensor> x;
        for (int run = 0; run < 4; ++run) {
            ASSERT_EQ(cudaMalloc(&in[run], n), cudaSuccess);
            ASSERT_EQ(cudaMalloc(&out[run], n), cudaSuccess);
            x.push_back(noise({rows, 128}, run));
            ASSERT_EQ(cudaMemcpyAsync(in[run], x.back().raw(), n, cudaMemcpyHostToDevice, stream), cudaSuccess);
            s.bind("x", cuda::borrow(DType::f32, {rows, 128}, in[run]));
            s.bind_output("y", cuda::borrow(DType::f32, {rows, 128}, out[run]));
            s.run();
            EXPECT_GT(simt::pending(), 0u);
        }
        for (std::size_t run = 0; run < 4; ++run) {
            Tensor got(DType::f32, {rows, 128});
            ASSERT_EQ(cudaMemcpyAsync(got.raw(), out[run], n, cudaMemcpyDeviceToHost, stream), cudaSuccess);
            ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
            EXPECT_TRUE(same(got, b.on_cpu(x[run])[1].second)) << run;
        }
    }
    EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    for (int run = 0; run < 4; ++run) cudaFree(in[run]), cudaFree(out[run]);
}
TEST(CudaOverlap, ARunThatIsCancelledOnTheHostLeavesTheSessionUsable) {
    Session* running = nullptr;
    CustomOp op;
    op.domain = "test";
    op.name = "Watch";
    int fail = 0;
    op.infer = [](CustomInfer& c) { c.set(0, c.type(0), c.dims(0)); };
    op.run = [&](const CustomRun& c) {
        if (fail == 1) running->cancel();
        if (fail == 2) throw std::runtime_error("on purpose");
        const auto x = c.input<float>(0);
        std::copy(x.begin(), x.end(), c.output<float>(0).begin());
    };
    const CustomOps ops{std::make_shared<const CustomOp>(std::move(op))};
    ModelBuilder b;
    b.domain("test", 1);
    b.input("x", DType::f32, {"N", "128"}).constant("v", noise({128, 128}, 4));
    b.node("Softmax", {"x"}, {"a"}).node("Watch", {"a"}, {"s"}, {}, "test").node("MatMul", {"s", "v"}, {"y"}).output("y").node("MatMul", {"a", "v"}, {"m"}).node("Softmax", {"m"}, {"z"}).output("z");
    const std::string bytes = b.bytes();
    Model model = Model::from_bytes(std::as_bytes(std::span<const char>(bytes)), {}, ops);
    Session s(model.compile(on_cuda()));
    running = &s;
    Options cpu;
    cpu.threads = 1;
    for (int run = 0; run < 9; ++run) {
        Tensor x = noise({20 + run % 2, 128}, run);
        s.bind("x", x);
        fail = run % 3;
        const auto r = s.try_run();
        EXPECT_EQ(r.ok(), fail == 0) << run;
        EXPECT_EQ(simt::pending(), 0u) << "work that reads the caller's memory was left under way";
        if (fail) {
            EXPECT_EQ(r.error().code() == ErrorCode::cancelled, fail == 1);
            EXPECT_NE(std::string(r.error().what()).find(fail == 1 ? "cancelled" : "Watch"), std::string::npos) << r.error().what();
            continue;
        }
        const auto want = model.compile(cpu).run({{"x", x}});
        EXPECT_TRUE(same(s.output("y"), want[0].second));
        EXPECT_TRUE(same(s.output("z"), want[1].second));
    }
}
}  // namespace
