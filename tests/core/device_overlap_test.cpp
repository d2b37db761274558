// Host and device at the same time: what waits for what (support/fake_device.hpp).
#include "support/fake_device.hpp"

namespace {
using namespace fake_device;

/// What the device makes of x goes to the host and back, and on the device: y depends on both ways, z on the device alone.
ModelBuilder both_ways() {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "128"}).constant("w", noise({128, 128}, 3)).constant("v", noise({128, 128}, 4));
    b.node("Softmax", {"x"}, {"a"}).node("Log", {"a"}, {"s"}).node("Softmax", {"s"}, {"t"}).node("MatMul", {"t", "w"}, {"y"}).output("y");
    b.node("MatMul", {"a", "v"}, {"m"}).node("Softmax", {"m"}, {"z"}).output("z");
    return b;
}
void expect_as_on_cpu(Session& s, ModelBuilder& b, const Tensor& x, std::initializer_list<const char*> names) {
    auto want = b.run({{"x", x}}, on_cpu());
    std::size_t o = 0;
    for (const char* n : names) expect_near(s.output(n), want[o++]);
}
TEST(DeviceOverlap, TheHostWaitsForACopyAndNotForWhatWasEnqueuedBehindIt) {
    auto b = both_ways();
    auto engine = b.model().compile(on_fake());
    const std::string plan = engine.describe();
    EXPECT_LT(plan.find("'MatMul4'"), plan.find("Log '")) << plan;  // the other way is enqueued first
    Session s(engine);
    for (std::int64_t rows : {300, 300, 300, 80, 400, 300}) {
        Tensor x = noise({rows, 128}, static_cast<int>(rows));
        s.bind("x", x);
        const Counts before = counts;
        counts.left = 0;
        s.run();
        EXPECT_EQ(counts.waits, before.waits + 1);      // for the copy that Log reads
        EXPECT_EQ(counts.follows, before.follows + 1);  // the way back overtakes the other way's kernels
        EXPECT_GE(counts.left, 1u) << "no work was under way while the host computed";
        expect_as_on_cpu(s, b, x, {"y", "z"});
    }
}
TEST(DeviceOverlap, EachWaitIsNeeded) {
    auto b = both_ways();
    auto engine = b.model().compile(on_fake());
    Tensor x = noise({300, 128});
    const Tensor want = b.run({{"x", x}}, on_cpu())[0];
    auto first_difference = [&] {
        Session s(engine);
        s.bind("x", x);
        s.run();
        const std::span<const float> got = s.output("y").data<float>(), w = want.data<float>();
        for (std::size_t i = 0; i < w.size(); ++i)
            if (!(std::abs(got[i] - w[i]) < 1e-4f)) return static_cast<int>(i);
        return -1;
    };
    EXPECT_EQ(first_difference(), -1);
    counts.forget_wait = 0;
    EXPECT_GE(first_difference(), 0) << "of the host";
    EXPECT_EQ(std::exchange(counts.forget_wait, -1), -1);
    counts.forget_stream_waits = true;
    EXPECT_GE(first_difference(), 0) << "of the stream";
    counts.forget_stream_waits = false;
    EXPECT_EQ(first_difference(), -1);
}
TEST(DeviceOverlap, MemoryOfTheHostIsWrittenAgainOnlyWhenItsCopyIsDone) {
    // What Cos makes dies with its copy to the device, and what Sin makes takes its place; Atan writes over x.
    ModelBuilder b;
    b.input("x", DType::f32, {"512", "128"}).node("Cos", {"x"}, {"c"}).node("Softmax", {"c"}, {"y"}).output("y").node("Sin", {"x"}, {"s"}).node("Softmax", {"s"}, {"z"}).output("z");
    b.node("Atan", {"x"}, {"t"}).node("Softmax", {"t"}, {"u"}).output("u");
    auto o = on_fake();
    o.device_io = true;
    auto engine = b.model().compile(o);
    for (int forgotten : {-1, 0, 1}) {
        Session s(engine);
        FakeStream mine;
        s.stream(&mine);
        Tensor x = noise({512, 128});
        const auto want = b.run({{"x", x}}, on_cpu());
        s.bind("x", Tensor::borrow_device(Device::cuda, DType::f32, {512, 128}, x.raw()));
        for (int run = 0; run < (forgotten < 0 ? 3 : 1); ++run) {
            const int before = counts.waits;
            counts.forget_wait = forgotten;
            s.run();
            EXPECT_EQ(std::exchange(counts.forget_wait, -1), -1);
            EXPECT_EQ(counts.waits, before + 2) << engine.describe();  // for x; until Cos' result is copied
            mine.run_to(mine.pushed);
            const auto y = static_cast<const float*>(s.output("y").raw()), w = static_cast<const float*>(want[0].raw());
            EXPECT_EQ(std::abs(y[0] - w[0]) < 1e-6f, forgotten < 0) << forgotten;
        }
    }
}
TEST(DeviceOverlap, LargeInputsAreNotInDeviceMemoryAllAtOnce) {
    for (std::int64_t rows : {1, 1024}) {
        ModelBuilder b;
        b.constant("w", noise({1024, 16}));
        std::vector<NamedTensor> in;
        for (std::string i : {"0", "1", "2", "3"}) {
            b.input("x" + i, DType::f32, {std::to_string(rows), "1024"}).node("MatMul", {"x" + i, "w"}, {"y" + i}).output("y" + i);
            in.emplace_back("x" + i, noise({rows, 1024}, static_cast<int>(in.size())));
        }
        auto engine = b.model().compile(on_fake());
        const std::string plan = engine.describe();
        EXPECT_EQ(plan.find("beside"), std::string::npos) << plan;
        EXPECT_EQ(plan.rfind("CopyToDevice") < plan.find("MatMul"), rows == 1) << plan;  // small ones come first: one recording for the rest
        const std::size_t before = counts.held;
        Session s(engine);
        for (auto& [name, x] : in) s.bind(name, x);
        s.run();
        // Of each product the scratch, too.
        if (rows > 1) {
            EXPECT_LT(counts.held - before, static_cast<std::size_t>(3 * rows * 1024 * 4));
        }
        auto want = b.run(in, on_cpu());
        for (std::size_t o = 0; o < 4; ++o) expect_near(s.output("y" + std::to_string(o)), want[o], 2e-5, 2e-5);
    }
}
TEST(DeviceOverlap, WithoutHostNodesThereAreNoEvents) {
    const int events = counts.events;
    auto b = chain("N");
    Session s(b.model().compile(on_fake()));
    s.bind("x", noise({7, 16}));
    s.run();
    EXPECT_EQ(counts.events, events);
    EXPECT_EQ(counts.streams, 1);
}
TEST(DeviceOverlap, FailuresAndCancellationBetweenHostNodesLeaveNothingBehind) {
    const Counts before = counts;
    {
        auto b = both_ways();
        auto engine = b.model().compile(on_fake());
        Session s(engine);
        for (int run = 0; run < 12; ++run) {
            Tensor x = noise({200 + 40 * (run % 2), 128}, run);
            s.bind("x", x);
            int kernel = 0;
            bool hit = false;  // not where they are replayed
            counts.at_kernel = [&] {
                const bool now = kernel++ == run / 2 % 3;
                hit = hit || now;
                if (now && run % 4 == 1) s.cancel();
                if (now && run % 4 == 2) counts.fail_next_kernel = true;
            };
            const std::string e = error_of([&] { s.run(); });
            counts.at_kernel = nullptr;
            counts.fail_next_kernel = false;
            if (run % 4 == 2 && hit) EXPECT_NE(e.find("failed on purpose"), std::string::npos) << e;
            else if (run % 4 == 1 && e != "no error") EXPECT_NE(e.find("cancelled"), std::string::npos) << e;
            else expect_as_on_cpu(s, b, x, {"y", "z"});
        }
    }
    EXPECT_EQ(counts.events, before.events);
    EXPECT_EQ(counts.streams, before.streams);
    EXPECT_EQ(counts.held, before.held);
}
TEST(DeviceOverlap, WithoutPageLockedMemoryItRunsAllTheSame) {
    auto b = both_ways();
    Session s(b.model().compile(on_fake()));
    counts.no_pinned = true;
    for (std::int64_t rows : {40, 300, 40}) {
        Tensor x = noise({rows, 128}, static_cast<int>(rows));
        std::memcpy(s.input("x", {rows, 128}).raw(), x.raw(), x.bytes());
        s.run();
        expect_as_on_cpu(s, b, x, {"y", "z"});
        counts.no_pinned = rows == 300;
    }
    counts.no_pinned = false;
}
/// Nodes of both memories over values of one shape, in random order, many of them read several times or not at all.
ModelBuilder random_graph(std::uint32_t seed) {
    std::uint32_t state = seed * 2654435761u + 1;
    auto draw = [&](std::uint32_t n) {
        state = state * 1664525u + 1013904223u;
        return (state >> 8) % n;
    };
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "128"}).input("z", DType::f32, {"N", "128"}).constant("w", noise({128, 128}, 3));
    std::vector<std::string> values{"x", "z"};
    const int nodes = 6 + static_cast<int>(draw(14));
    for (int i = 0; i < nodes; ++i) {
        // Mostly what was made last, so that memory dies and is used again.
        auto pick = [&] { return values[draw(3) ? values.size() - 1 - draw(static_cast<std::uint32_t>(std::min<std::size_t>(3, values.size()))) : draw(static_cast<std::uint32_t>(values.size()))]; };
        const std::string v = "v" + std::to_string(i);
        static constexpr const char* host[] = {"Sin", "Cos", "Atan", "Tanh", "Abs"};
        switch (draw(5)) {
            case 0: b.node("Softmax", {pick()}, {v}); break;
            case 1: b.node("MatMul", {pick(), "w"}, {v}).node("Softmax", {v}, {v + "s"}); break;
            case 2: b.node("Add", {pick(), pick()}, {v}).node("Atan", {v}, {v + "a"}); break;
            default: b.node(host[draw(5)], {pick()}, {v});
        }
        values.push_back(b.proto().graph.node.back().output[0] == std::string_view(v) ? v : std::string(b.proto().graph.node.back().output[0]));
    }
    b.output(values.back());
    for (std::size_t k = 2; k + 1 < values.size(); ++k)
        if (draw(4) == 0) b.output(values[k]);
    return b;
}
TEST(DeviceOverlap, RandomGraphsGiveTheAnswersOfTheCpu) {
    int waits = 0, follows = 0;
    for (std::uint32_t seed = 1; seed <= 60; ++seed) {
        SCOPED_TRACE(seed);
        auto b = random_graph(seed);
        auto cpu_engine = b.model().compile(on_cpu());
        std::vector<std::string> names;
        for (auto& o : cpu_engine.outputs()) names.push_back(o.name);
        Tensor in[2][2];
        std::vector<NamedTensor> want[2];
        for (int k = 0; k < 2; ++k) {
            for (int i = 0; i < 2; ++i) in[k][i] = noise({k ? 24 : 40, 128}, static_cast<int>(seed) * 4 + 2 * k + i);
            want[k] = cpu_engine.run({{"x", in[k][0]}, {"z", in[k][1]}});
        }
        auto agrees = [&](const Session& s, int k) {
            for (std::size_t o = 0; o < names.size(); ++o) {
                const Tensor& y = s.output(names[o]);
                expect_near(Tensor::borrow(DType::f32, y.shape(), y.raw()), want[k][o].second, 1e-5, 1e-5);
            }
            return !::testing::Test::HasFailure();
        };
        const Counts before = counts;
        for (bool device_io : {false, true}) {
            auto o = on_fake();
            o.device_io = device_io;
            auto engine = b.model().compile(o);
            FakeStream mine;
            {
                Session s(engine);
                if (device_io) s.stream(&mine);
                for (int run = 0; run < 8; ++run) {
                    counts.eager = run % 4 == 3 ? 0 : seed * 8 + static_cast<std::uint32_t>(run);
                    const int k = run / 2 % 2;
                    for (int i = 0; i < 2; ++i) s.bind(i ? "z" : "x", device_io ? Tensor::borrow_device(Device::cuda, DType::f32, in[k][i].shape(), in[k][i].raw()) : in[k][i]);
                    s.run();
                    if (device_io && run % 3 != 0) continue;  // the next run follows at once
                    mine.run_to(mine.pushed);
                    if (!agrees(s, k)) break;
                }
                counts.eager = 0;
            }
            ASSERT_FALSE(HasFailure()) << (device_io ? "device_io\n" : "") << engine.describe();
        }
        waits += counts.waits - before.waits, follows += counts.follows - before.follows;
    }
    EXPECT_GT(waits, 100);
    EXPECT_GT(follows, 50);
}
}  // namespace
