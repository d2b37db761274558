// Session::cancel from another thread, and what threads may not change: the bits of the answer.
#include <atomic>
#include <chrono>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <thread>

#include <quern/base/thread_pool.hpp>

#include "../support/op_test.hpp"
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

using namespace quern;
using namespace quern_test;

namespace {

/// `n` products of `side` x `side` with a Tanh between them.
ModelBuilder chain(int n, int side = 64) {
    ModelBuilder b;
    b.input("x", DType::f32, {std::to_string(side), std::to_string(side)});
    std::vector<float> w(static_cast<std::size_t>(side * side));
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) / 400.f;
    b.constant("w", floats({side, side}, w));
    std::string last = "x";
    for (int i = 0; i < n; ++i) {
        std::string m = "m" + std::to_string(i), t = "t" + std::to_string(i);
        b.node("MatMul", {last, "w"}, {m}).node("Tanh", {m}, {t});
        last = t;
    }
    b.output(last);
    return b;
}
Tensor image(int side = 64) {
    Tensor x(DType::f32, {side, side});
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = static_cast<float>(i % 17) / 17.f;
    return x;
}

TEST(Cancel, BeforeARun) {
    for (int threads : {1, 3}) {
        Session s(chain(3).model().compile({.threads = threads}));
        s.bind("x", image());
        s.cancel();
        auto r = s.try_run();
        ASSERT_FALSE(r.ok());
        EXPECT_EQ(r.error().code(), ErrorCode::cancelled);
        EXPECT_TRUE(s.try_run().ok());  // only one run is cancelled
    }
}

TEST(Cancel, InTheMiddleOfARun) {
    struct Cancels final : Executor {
        Session* session = nullptr;
        int calls = 0;
        int width() const noexcept override { return 2; }
        void run(std::int64_t n, Tile tile, void* context) override {
            if (session && ++calls == 2) std::thread([&] { session->cancel(); }).join();
            for (std::int64_t i = 0; i < n; ++i) tile(context, i, 0);
        }
    };
    auto executor = std::make_shared<Cancels>();
    Session s(chain(8, 320).model().compile({.executor = executor}));
    s.bind("x", image(320));
    s.run();
    const Tensor want = s.output("t7").clone();
    executor->session = &s;
    auto r = s.try_run();
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().code(), ErrorCode::cancelled);
    EXPECT_LT(executor->calls, 8);
    executor->session = nullptr;
    s.run();
    EXPECT_EQ(0, std::memcmp(want.raw(), s.output("t7").raw(), want.bytes()));
}

/// Whether a run is caught is up to the machine.
TEST(Cancel, DuringRuns) {
    Engine engine = chain(100).model().compile({.threads = 3});
    Session s(engine);
    s.bind("x", image());
    s.run();
    Tensor want = s.output("t99").clone();
    int cancelled = 0;
    for (int i = 0; i < 200 && cancelled < 5; ++i) {
        std::atomic<bool> begun{false};
        std::thread other([&] {
            while (!begun) {}
            s.cancel();
        });
        begun = true;
        auto r = s.try_run();
        other.join();
        if (!r) {
            EXPECT_EQ(r.error().code(), ErrorCode::cancelled);
            ++cancelled;
        } else {
            (void)s.try_run();  // takes the cancellation that came too late
        }
        ASSERT_TRUE(s.try_run().ok() || s.try_run().ok());
        Tensor y = s.output("t99");
        ASSERT_EQ(0, std::memcmp(want.raw(), y.raw(), want.bytes()));
    }
}

TEST(Threads, SameBitsForAnyNumber) {
    ModelBuilder b;
    b.input("x", DType::f32, {"1", "32", "40", "40"});
    auto weights = [](Shape shape, int step) {
        Tensor t(DType::f32, std::move(shape));
        for (std::int64_t i = 0; i < t.count(); ++i) t.data<float>()[i] = static_cast<float>(i * step % 103 - 51) / 500.f;
        return t;
    };
    b.constant("a", weights({64, 32, 3, 3}, 31)).constant("d", weights({64, 1, 3, 3}, 7)).constant("p", weights({96, 64, 1, 1}, 13)).constant("m", weights({1600, 50}, 11));
    b.constant("shape", ints({2}, {96, 1600}));
    b.node("Conv", {"x", "a"}, {"c1"}, {quern::onnx::attribute_ints("pads", {1, 1, 1, 1})}).node("Relu", {"c1"}, {"r1"});
    b.node("Conv", {"r1", "d"}, {"c2"}, {quern::onnx::attribute_i("group", 64), quern::onnx::attribute_ints("pads", {1, 1, 1, 1})}).node("Conv", {"c2", "p"}, {"c3"});
    b.node("GlobalAveragePool", {"c3"}, {"g"}).node("Add", {"c3", "g"}, {"s"}).node("Reshape", {"s", "shape"}, {"f"});
    b.node("MatMul", {"f", "m"}, {"y1"}).node("Softmax", {"y1"}, {"y2"}).node("ReduceSum", {"y2"}, {"total"}).output("y2").output("total");
    Tensor x = weights({1, 32, 40, 40}, 17);
    std::vector<Tensor> first;
    for (int threads : {1, 2, 3, 16}) {
        auto y = b.run({{"x", x}}, {.threads = threads});
        if (first.empty()) first = y;
        for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(0, std::memcmp(first[i].raw(), y[i].raw(), y[i].bytes())) << threads << " threads, output " << i;
    }
}

/// Runs tiles in order on the calling thread, with what a test says of its width and of workers.
struct OddExecutor final : Executor {
    std::vector<int> widths{1};
    mutable std::size_t asked = 0;
    int worker = 0;
    bool fails = false;
    int width() const noexcept override { return widths[std::min(asked++, widths.size() - 1)]; }
    void run(std::int64_t n, Tile tile, void* context) override {
        if (fails) throw std::runtime_error("no threads today");
        for (std::int64_t i = 0; i < n; ++i) tile(context, i, worker);
    }
};
TEST(Threads, AnExecutorWithoutWidthOrOfChangingWidthIsHarmless) {
    ModelBuilder b;  // its products book scratch for each worker
    Tensor x(DType::f32, {700, 300}), w(DType::f32, {300, 500});
    for (Tensor* t : {&x, &w})
        for (std::int64_t i = 0; i < t->count(); ++i) t->data<float>()[static_cast<std::size_t>(i)] = static_cast<float>(i % 13) - 6;
    b.input("x", DType::f32, {"M", "300"}).input("w", DType::f32, {"300", "N"}).node("MatMul", {"x", "w"}, {"p"}).node("Softmax", {"p"}, {"y"}).output("y");
    Model model = b.model();
    auto want = model.compile({.threads = 1}).run({{"x", x}, {"w", w}});
    for (std::vector<int> widths : {std::vector<int>{0}, {-3}, {1, 64}, {64, 1}, {2, 3, 4, 5, 6, 7, 8}, {INT32_MAX}}) {
        auto executor = std::make_shared<OddExecutor>();
        executor->widths = widths;
        auto got = model.compile({.executor = executor}).run({{"x", x}, {"w", w}});
        EXPECT_EQ(0, std::memcmp(got[0].second.raw(), want[0].second.raw(), want[0].second.bytes()));
    }
}
TEST(Threads, WhatAnExecutorDoesWrongIsAnErrorOfTheCaller) {
    auto executor = std::make_shared<OddExecutor>();
    executor->widths = {2};
    ModelBuilder b;
    b.input("x", DType::f32, {"N"}).node("Exp", {"x"}, {"y"}).output("y");
    Session s(b.model().compile({.executor = executor}));
    s.input("x", {1 << 20});  // many tiles
    for (int worker : {-1, 2, 1000}) {
        executor->worker = worker;
        auto r = s.try_run();
        ASSERT_FALSE(r.ok());
        EXPECT_EQ(r.error().code(), ErrorCode::invalid_argument);
        EXPECT_NE(r.error().message().find("worker " + std::to_string(worker)), std::string::npos) << r.error().what();
    }
    executor->fails = true;
    auto r = s.try_run();
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().code(), ErrorCode::invalid_argument);
    EXPECT_NE(r.error().message().find("no threads today"), std::string::npos) << r.error().what();
    executor->fails = false;
    executor->worker = 1;
    EXPECT_TRUE(s.try_run().ok());
}

#if defined(__unix__)
TEST(Threads, TakeNoTimeOnceARunIsOver) {
    Engine engine = chain(20).model().compile({.threads = 3});
    Session s(engine);
    s.bind("x", image());
    for (int i = 0; i < 20; ++i) s.run();
    auto processor_seconds = [] {
        timespec t{};
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
    };
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const double before = processor_seconds();
    std::this_thread::sleep_for(std::chrono::seconds(1));
    EXPECT_LT(processor_seconds() - before, 0.005);
}
#endif

/// One run of `n` tiles; f(i, worker).
template <class F>
void short_run(ThreadPool& pool, std::int64_t n, F f) {
    const ThreadPool::Mark m = pool.begin_run();
    pool.run(n, [](void* c, std::int64_t i, int w) { (*static_cast<F*>(c))(i, w); }, &f);
    pool.end_run(m);
}
/// A pool whose usual run is short: the fastest of some, for a machine may be busy.
void make_short(ThreadPool& pool) {
    for (int i = 0; i < 50; ++i) short_run(pool, 8, [](std::int64_t, int) {});
}
TEST(ThreadPool, TakesWorkersOffBesideANeighbourAndAsksThemAgain) {
    ThreadPool pool(4);
    pool.crowded();
    EXPECT_EQ(pool.active(), 4);  // nothing is known of the length of runs
    make_short(pool);
    for (int left : {3, 2, 1, 1}) {
        while (pool.active() > left) pool.crowded();
        pool.crowded();
        for (int i = 0; i < 200; ++i) {
            std::vector<std::atomic<int>> done(37);
            pool.run(37, [](void* c, std::int64_t k, int w) { (*static_cast<std::vector<std::atomic<int>>*>(c))[static_cast<std::size_t>(k)] += w >= 0 && w < 4 ? 1 : 100; }, &done);
            for (auto& d : done) ASSERT_EQ(d.load(), 1);
        }
    }
    EXPECT_EQ(pool.active(), 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(600));  // longer than any rest
    for (int more : {2, 3, 4, 4}) {
        short_run(pool, 37, [](std::int64_t, int) {});
        EXPECT_GE(pool.active(), std::min(more, 2));  // a busy machine may take one off again
    }
    while (pool.active() > 1) pool.crowded();
}  // ends with all of its workers resting
TEST(ThreadPool, KeepsItsWorkersInLongRuns) {
    ThreadPool pool(2);
    for (int i = 0; i < 3; ++i) short_run(pool, 2, [](std::int64_t, int) { std::this_thread::sleep_for(std::chrono::milliseconds(9)); });
    pool.crowded();
    EXPECT_EQ(pool.active(), 2);
}
/// Whether the runs after a pause in which no worker came in time were the caller's alone, and the ones after those not. A busy machine may
/// stop the caller anywhere, and a run of the caller that takes longer than the missed one asks workers again: then false.
bool callers_alone_after_a_miss() {
    ThreadPool pool(2);
    RunWorkers workers(&pool, nullptr);
    auto begun = [&] {  // with the worker asleep, which takes it 50 us
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        return pool.begin_run();
    };
    auto alone = [](const ThreadPool::Mark& m) { return m.alone_until > m.start; };
    for (int attempt = 0;; ++attempt) {
        if (attempt == 100) return false;
        make_short(pool);
        const ThreadPool::Mark m = begun();
        const bool early = alone(m);
        pool.run(2, [](void*, std::int64_t, int) {}, nullptr);  // over before anybody wakes, nearly always
        pool.end_run(m);
        if (early) return false;
        const ThreadPool::Mark next = begun();
        pool.end_run(next);
        if (alone(next)) break;
    }
    bool only = true;
    for (int i = 1; i < 4; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        RunWorkers::Busy busy(workers);
        std::atomic<int> others{0};
        workers.for_each(3, [&](std::int64_t, int w) { others += w != 0; });
        only &= others == 0;
    }
    const ThreadPool::Mark again = begun();
    pool.end_run(again);
    const ThreadPool::Mark next = pool.begin_run();  // back to back they are asked at once
    pool.end_run(next);
    return only && !alone(again) && !alone(next);
}
TEST(ThreadPool, AfterAPauseRunsAreTheCallersWhereWorkersCameTooLate) {
    bool seen = false;
    for (int i = 0; i < 50 && !seen; ++i) seen = callers_alone_after_a_miss();
    EXPECT_TRUE(seen);
}
#if defined(__linux__)
/// Where runs come after pauses workers do not wait for the next one; where one run follows the other they do, for 50 us.
TEST(ThreadPool, DoesNotWaitForTheNextRunWhereRunsComeAfterPauses) {
    auto microseconds = [](clockid_t clock) {
        timespec t{};
        clock_gettime(clock, &t);
        return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
    };
    ThreadPool pool(2);
    // The worker's usual processor time after its last tile of `runs` runs, each such series after a pause; 0: it took part in none.
    auto after = [&](int runs) {
        std::vector<double> used;
        for (int i = 0; i < 28; ++i) {
            std::atomic<double> end{0};
            std::atomic<clockid_t> clock{};
            for (int k = 0; k < runs; ++k)
                short_run(pool, 2, [&](std::int64_t, int worker) {
                    const double until = microseconds(CLOCK_MONOTONIC) + 200;
                    while (microseconds(CLOCK_MONOTONIC) < until) {}
                    clockid_t mine{};
                    if (worker == 0 || pthread_getcpuclockid(pthread_self(), &mine) != 0) return;
                    clock = mine, end = microseconds(mine);
                });
            std::this_thread::sleep_for(std::chrono::milliseconds(4));
            if (i >= 3 && end > 0) used.push_back(microseconds(clock) - end);
        }
        std::sort(used.begin(), used.end());
        return used.empty() ? 0. : used[used.size() / 2];
    };
    double apart = 0, together = 0;
    for (int attempt = 0; attempt < 3; ++attempt) {  // a busy machine may keep the worker from taking part, or from its processor while it waits
        together = after(3), apart = after(1);
        if (apart > 0 && together > apart + 25) break;
    }
    if (apart == 0 || together == 0) GTEST_SKIP() << "neighbours keep both processors busy";
    EXPECT_GT(together, apart + 25);
}
/// A worker that sleeps within a tile is as good as one whose processor a neighbour has; one that computes is not.
TEST(ThreadPool, SeesWhoLostItsProcessorWithinATile) {
    auto milliseconds = [](clockid_t clock) {
        timespec t{};
        clock_gettime(clock, &t);
        return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
    };
    for (bool sleeps : {true, false}) {
        bool seen = false;
        int fair = 0;
        for (int attempt = 0; attempt < 100 && !seen; ++attempt) {
            ThreadPool pool(2);
            make_short(pool);
            if (pool.active() != 2) continue;  // a neighbour was there
            cpu_set_t before{}, after{};
            sched_getaffinity(0, sizeof before, &before);
            std::atomic<int> by{-1};
            double alone = 0, own = 0;
            int times = 0;
            auto tile = [&](std::int64_t, int worker) {
                if (worker == 0) {
                    const double until = milliseconds(CLOCK_MONOTONIC) + 1;  // so that the other takes a tile, too
                    while (milliseconds(CLOCK_MONOTONIC) < until) {}
                    return;
                }
                by = worker, ++times;
                sched_getaffinity(0, sizeof after, &after);
                const double wall = milliseconds(CLOCK_MONOTONIC), mine = milliseconds(CLOCK_THREAD_CPUTIME_ID);
                if (sleeps) std::this_thread::sleep_for(std::chrono::milliseconds(8));
                else while (milliseconds(CLOCK_MONOTONIC) < wall + 8) {}
                alone += milliseconds(CLOCK_MONOTONIC) - wall, own += milliseconds(CLOCK_THREAD_CPUTIME_ID) - mine;
            };
            const double start = milliseconds(CLOCK_MONOTONIC);
            for (int i = 0; i < 2; ++i) short_run(pool, 2, tile);
            if (milliseconds(CLOCK_MONOTONIC) - start > 18) continue;  // a neighbour stopped one of them
            if (times != 2 || by != 1 || (!sleeps && own < 0.97 * alone)) continue;  // it came too late, or has lost its processor indeed
            ++fair;
            // It was moved meanwhile and may run where it might.
            seen = CPU_EQUAL(&before, &after) && pool.active() == (sleeps ? 1 : 2);
        }
        if (fair == 0) GTEST_SKIP() << "neighbours keep both processors busy";
        EXPECT_TRUE(seen);
    }
}
#endif

TEST(Threads, QuotasOfControlGroups) {
    namespace fs = std::filesystem;
    fs::path root = fs::path(testing::TempDir()) / "quern_cgroup";
    fs::remove_all(root);
    auto file = [&](const char* path, const char* text) {
        fs::create_directories((root / path).parent_path());
        std::ofstream(root / path) << text;
    };
    auto quota = [&](const char* membership) { return cgroup_quota(membership, root.string()); };
    EXPECT_EQ(quota("0::/a/b\n"), 0);
    file("a/cpu.max", "300000 100000\n");  // a group around ours
    file("a/b/cpu.max", "max 100000\n");
    EXPECT_EQ(quota("0::/a/b\n"), 3);
    file("a/b/cpu.max", "150000 100000\n");
    EXPECT_EQ(quota("0::/a/b\n"), 1.5);
    EXPECT_EQ(quota("0::/elsewhere\n"), 0);
    file("cpu.max", "50000 100000\n");  // our group seen as the root
    EXPECT_EQ(quota("0::/elsewhere\n"), 0.5);
    EXPECT_EQ(quota("0::/\n"), 0.5);
    fs::remove(root / "cpu.max");
    file("cpu,cpuacct/job/cpu.cfs_quota_us", "200000\n");
    file("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(quota("5:memory:/job\n4:cpu,cpuacct:/job/step\n0::/none\n"), 2);
    file("cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    EXPECT_EQ(quota("4:cpu,cpuacct:/job\n"), 0);
    for (const char* odd : {"", ":", "::", "0::", "4:cpu", "4:cpu:../../etc\n", "4:cpuset:/job\n", "0::/\n\n\n"}) EXPECT_EQ(quota(odd), 0) << odd;
    EXPECT_GE(usable_cpus(), 1);
    fs::remove_all(root);
}

}  // namespace
