// Placement and execution on a device (support/fake_device.hpp).
#include "support/fake_device.hpp"

namespace {
using namespace fake_device;

/// x [N, 128] -> Softmax -> Sin (only on the CPU) -> Softmax.
ModelBuilder there_and_back() {
    ModelBuilder b;
    b.input("x", DType::f32, {"512", "128"}).node("Softmax", {"x"}, {"a"}).node("Sin", {"a"}, {"b"}).node("Softmax", {"b"}, {"y"}).output("y");
    return b;
}
TEST(Placement, CopiesStandWhereMemoryChanges) {
    auto b = there_and_back();
    auto engine = b.model().compile(on_fake());
    std::string plan = engine.describe();
    EXPECT_EQ(count(plan, "by softmax.fake on the device"), 2) << plan;
    EXPECT_EQ(count(plan, "CopyToDevice"), 2) << plan;
    EXPECT_EQ(count(plan, "CopyToHost"), 2) << plan;
    EXPECT_NE(plan.find("not on the device: the family has no kernel for this device"), std::string::npos) << plan;
    Tensor x = noise({512, 128});
    expect_near(engine.run({{"x", x}})[0].second, b.run({{"x", x}}, on_cpu())[0]);
}
TEST(Placement, AValueIsCopiedOnceForAllThatReadIt) {
    ModelBuilder b;
    b.input("x", DType::f32, {"512", "128"}).node("Softmax", {"x"}, {"a"}).node("Sin", {"a"}, {"s"}).node("Cos", {"a"}, {"c"}).node("Add", {"s", "c"}, {"y"}).output("y").output("a");
    auto engine = b.model().compile(on_fake());
    EXPECT_EQ(count(engine.describe(), "CopyToHost"), 1) << engine.describe();
    Tensor x = noise({512, 128});
    auto got = engine.run({{"x", x}});
    auto want = b.run({{"x", x}}, on_cpu());
    for (int o = 0; o < 2; ++o) expect_near(got[static_cast<std::size_t>(o)].second, want[static_cast<std::size_t>(o)]);
}
TEST(Placement, SmallWorkBetweenHostNodesStaysThere) {
    ModelBuilder b;
    b.input("x", DType::f32, {"4", "8"}).node("Sin", {"x"}, {"a"}).node("Softmax", {"a"}, {"b"}).node("Cos", {"b"}, {"y"}).output("y");
    std::string plan = b.model().compile(on_fake()).describe();
    EXPECT_EQ(count(plan, "on the device ->"), 0) << plan;
    EXPECT_NE(plan.find("too little work"), std::string::npos) << plan;
}
TEST(Placement, SizesFromDataAndShapeArithmeticStayOnTheHost) {
    ModelBuilder b;
    b.input("x", DType::f32, {"512", "128"}).constant("to", ints({2}, {-1, 128})).node("NonZero", {"x"}, {"i"}).node("Cast", {"i"}, {"f"}, {onnx::attribute_i("to", 1)});
    b.node("Softmax", {"f"}, {"y"}).output("y").node("Shape", {"x"}, {"s"}).node("Reshape", {"x", "s"}, {"z"}).node("Softmax", {"z"}, {"w"}).output("w");
    auto engine = b.model().compile(on_fake());
    std::string plan = engine.describe();
    EXPECT_EQ(count(plan, "by softmax.fake on the device"), 1) << plan;
    Tensor x = noise({512, 128});
    auto got = engine.run({{"x", x}});
    auto want = b.run({{"x", x}}, on_cpu());
    for (std::size_t o = 0; o < 2; ++o) expect_near(got[o].second, want[o]);
}
TEST(Placement, KnownIntegersReadOnTheDeviceKeepTheirContentForInference) {
    // Softmax's size comes from content that a device node reads: with the copy in between it is still known.
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "128"}).constant("to", ints({1}, {-1})).node("Softmax", {"x"}, {"a"});
    b.node("Shape", {"a"}, {"s"}).node("Gather", {"s", "zero"}, {"n"}).constant("zero", ints({}, {0})).constant("axes", ints({1}, {0}));
    b.node("Unsqueeze", {"n", "axes"}, {"u"}).node("Concat", {"u", "to"}, {"shape"}, {onnx::attribute_i("axis", 0)}).node("Reshape", {"a", "shape"}, {"r"}).node("Softmax", {"r"}, {"y"}).output("y");
    auto o = on_fake();
    auto engine = b.model().compile(o);
    std::string plan = engine.describe();
    EXPECT_EQ(count(plan, "by softmax.fake on the device"), 2) << plan;
    EXPECT_EQ(count(plan, "CopyToHost"), 1) << plan;
    Tensor x = noise({300, 128});
    expect_near(engine.run({{"x", x}})[0].second, b.run({{"x", x}}, on_cpu())[0]);
}
TEST(Placement, ConstantsFoldOnTheHost) {
    // No stream exists while folding, and constants are in host memory.
    ModelBuilder b;
    b.input("x", DType::f32, {"512", "128"}).constant("c", noise({1, 128})).node("Softmax", {"c"}, {"s"}).node("Mul", {"x", "s"}, {"y"}).output("y");
    auto engine = b.model().compile(on_fake());
    EXPECT_EQ(count(engine.describe(), "Softmax"), 0) << engine.describe();
    Tensor x = noise({512, 128});
    expect_near(engine.run({{"x", x}})[0].second, b.run({{"x", x}}, on_cpu())[0]);
}
TEST(Placement, StrictDeviceNamesTheNodeAndTheReason) {
    auto b = there_and_back();
    auto o = on_fake();
    o.strict_device = true;
    std::string e = error_of([&] { b.model().compile(o); });
    EXPECT_NE(e.find("Sin1"), std::string::npos) << e;
    EXPECT_NE(e.find("no kernel for this device"), std::string::npos) << e;
    EXPECT_EQ(error_of([&] { chain("N").model().compile(o); }), "no error");
}
TEST(Placement, WeightsArePackedOnce) {
    auto b = chain("N");
    counts.packed = 0;
    Engine engine = b.model().compile(on_fake());
    EXPECT_EQ(counts.packed, 1);  // what placement asks kernels for needs no weights
}
TEST(Placement, UnknownDevicesAreRefused) {
    auto b = chain("N");
    auto o = on_fake();
    o.device = "fake:1";
    EXPECT_NE(error_of([&] { b.model().compile(o); }).find("is not there"), std::string::npos);
    o.device = "fake:x";
    EXPECT_NE(error_of([&] { b.model().compile(o); }).find("accepted"), std::string::npos);
    o.device = "npu";
    EXPECT_NE(error_of([&] { b.model().compile(o); }).find("accepted: cpu, fake"), std::string::npos);
}
TEST(Placement, BranchesOfIfUseTheDeviceToo) {
    ModelBuilder inner;
    inner.node("Softmax", {"x"}, {"t"}).output("t");
    ModelBuilder other;
    other.node("Sin", {"x"}, {"e"}).output("e");
    ModelBuilder b;
    b.input("c", DType::boolean, {}).input("x", DType::f32, {"512", "128"});
    b.node("If", {"c"}, {"y"}, {onnx::attribute_g("then_branch", inner.proto().graph), onnx::attribute_g("else_branch", other.proto().graph)}).output("y");
    auto engine = b.model().compile(on_fake());
    Tensor x = noise({512, 128}), yes(DType::boolean, Shape{});
    static_cast<std::uint8_t*>(yes.raw())[0] = 1;
    const int before = counts.to_device;
    expect_near(engine.run({{"c", yes}, {"x", x}})[0].second, b.run({{"c", yes}, {"x", x}}, on_cpu())[0]);
    EXPECT_GT(counts.to_device, before);
}

TEST(DeviceRun, ReplaysGiveTheAnswerOfEachInputAndShape) {
    auto b = chain("N");
    auto engine = b.model().compile(on_fake());
    EXPECT_EQ(count(engine.describe(), "on the device ->"), 4) << engine.describe();
    Session s(engine);
    counts.captured = counts.replayed = 0;
    for (int run = 0; run < 9; ++run) {
        const std::int64_t rows = run < 5 ? 7 : 3 + 20 * (run % 2);
        Tensor x = noise({rows, 16}, run);
        s.bind("x", x);
        s.run();
        expect_near(s.output("y"), b.run({{"x", x}}, on_cpu())[0]);
    }
    EXPECT_GE(counts.captured, 1);
    EXPECT_GE(counts.replayed, 4);
}
TEST(DeviceRun, GraphsCanBeLeftOut) {
    auto b = chain("N");
    auto o = on_fake();
    o.device_graphs = false;
    auto engine = b.model().compile(o);
    Session s(engine);
    counts.captured = 0;
    Tensor x = noise({5, 16});
    s.bind("x", x);
    for (int i = 0; i < 4; ++i) s.run();
    EXPECT_EQ(counts.captured, 0);
    expect_near(s.output("y"), b.run({{"x", x}}, on_cpu())[0]);
}
TEST(DeviceRun, MemoryThatCopiesReadLateIsNotWrittenEarly) {
    // Inputs and host values are page-locked: a copy to the device reads them when the stream comes to it.
    ModelBuilder b;
    b.input("x", DType::f32, {"512", "128"}).constant("c", ints({}, {1}));
    std::string v = "x";
    for (int i = 0; i < 4; ++i) {
        std::string n = std::to_string(i);
        b.node("CumSum", {v, "c"}, {"h" + n}).node("Softmax", {"h" + n}, {"d" + n});
        v = "d" + n;
    }
    b.output(v);
    auto engine = b.model().compile(on_fake());
    Session s(engine);
    for (int run = 0; run < 4; ++run) {
        Tensor x = noise({512, 128}, run);
        std::memcpy(s.input("x", {512, 128}).raw(), x.raw(), x.bytes());
        s.run();
        expect_near(s.output(v), b.run({{"x", x}}, on_cpu())[0]);
    }
}
TEST(DeviceRun, AfterMemoryThatCouldNotBeHadOtherShapesRunAsBefore) {
    auto b = chain("N");
    Session s(b.model().compile(on_fake()));
    for (std::int64_t rows : {7, 9, 5000, 7, 9, 5000, 9}) {
        Tensor x = noise({rows, 16}, static_cast<int>(rows));
        s.bind("x", x);
        counts.no_memory_from = rows == 5000 ? 100000 : SIZE_MAX;
        const std::string e = error_of([&] { s.run(); });
        counts.no_memory_from = SIZE_MAX;
        if (rows == 5000) EXPECT_NE(e.find("on purpose"), std::string::npos) << e;
        else expect_near(s.output("y"), b.run({{"x", x}}, on_cpu())[0]);
    }
}
TEST(DeviceRun, StreamsThatAreRecordedOrCannotBe) {
    auto b = chain("N");
    auto o = on_fake();
    o.device_io = true;
    auto engine = b.model().compile(o);
    Tensor x = noise({5, 16});
    const Tensor want = b.run({{"x", x}}, on_cpu())[0];
    FakeStream mine;
    {
        Session s(engine);
        s.stream(&mine);
        s.bind("x", Tensor::borrow_device(Device::cuda, DType::f32, {5, 16}, x.raw()));
        mine.no_graphs = true;
        const int before = counts.captured;
        for (int run = 0; run < 3; ++run) s.run();
        EXPECT_EQ(counts.captured, before);
        mine.run_to(mine.pushed);
        mine.no_graphs = false;
        mine.capturing = true;  // by the application
        s.run();
        mine.capturing = false;
        EXPECT_EQ(counts.captured, before);
        EXPECT_TRUE(mine.work.empty());
        std::memset(const_cast<void*>(s.output("y").raw()), 0, want.bytes());
        for (int replay = 0; replay < 2; ++replay)
            for (auto& w : mine.captured) w();
        expect_near(Tensor::borrow(DType::f32, {5, 8}, s.output("y").raw()), want);
    }
}
TEST(DeviceRun, ProfiledRunsThatFailGiveTheirMarksBack) {
    const int events = counts.events;
    auto b = chain("N");
    Session s(b.model().compile(on_fake()));
    s.profile(true);
    s.bind("x", noise({6, 16}));
    counts.fail_next_kernel = true;
    EXPECT_NE(error_of([&] { s.run(); }).find("on purpose"), std::string::npos);
    EXPECT_EQ(counts.events, events);
    s.run();
    EXPECT_EQ(counts.events, events);
}
TEST(DeviceRun, AnotherStreamWaitsForTheRunBefore) {
    auto b = chain("N");
    auto o = on_fake();
    o.device_io = true;
    auto engine = b.model().compile(o);
    Tensor x = noise({5, 16}), other = noise({5, 16}, 2), kept(DType::f32, {5, 8});
    FakeStream first, second;
    {
        Session s(engine);
        s.stream(&first);
        s.bind("x", Tensor::borrow_device(Device::cuda, DType::f32, {5, 16}, x.raw()));
        s.run();
        first.push([&, y = s.output("y").raw()] { std::memcpy(kept.raw(), y, kept.bytes()); });
        s.stream(&second);
        s.bind("x", Tensor::borrow_device(Device::cuda, DType::f32, {5, 16}, other.raw()));
        s.run();
        second.run_to(second.pushed);
        expect_near(Tensor::borrow(DType::f32, {5, 8}, s.output("y").raw()), b.run({{"x", other}}, on_cpu())[0]);
        expect_near(kept, b.run({{"x", x}}, on_cpu())[0]);
        s.run();
        s.stream(&first);  // the session ends while its last run is under way elsewhere
    }
    EXPECT_TRUE(second.work.empty());
}
TEST(DeviceRun, DeviceMemoryInAndOutIsNeitherCopiedNorWaitedFor) {
    auto b = chain("N");
    auto o = on_fake();
    o.device_io = true;
    auto engine = b.model().compile(o);
    EXPECT_EQ(count(engine.describe(), "Copy"), 0) << engine.describe();
    Session s(engine);
    FakeStream mine;
    s.stream(&mine);
    Tensor x = noise({5, 16});
    EXPECT_NE(error_of([&] { s.bind("x", x); }).find("must be in device memory"), std::string::npos);
    s.bind("x", Tensor::borrow_device(Device::cuda, DType::f32, {5, 16}, x.raw()));  // the fake device reads host memory
    s.run();
    const int waited = counts.synchronized, copied = counts.to_device + counts.to_host;
    s.run();
    s.run();
    EXPECT_EQ(counts.synchronized, waited);
    EXPECT_EQ(counts.to_device + counts.to_host, copied);
    const Tensor& y = s.output("y");
    EXPECT_EQ(y.device(), Device::cuda);
    EXPECT_NE(error_of([&] { (void)y.data<float>(); }).find("device memory"), std::string::npos);
    mine.run_to(mine.pushed);
    expect_near(Tensor::borrow(DType::f32, y.shape(), y.raw()), b.run({{"x", x}}, on_cpu())[0]);
    s.stream(nullptr);
    EXPECT_NE(error_of([&] { b.model().compile(on_fake()).run({{"x", Tensor::borrow_device(Device::cuda, DType::f32, {5, 16}, x.raw())}}); }).find("must be in host memory"), std::string::npos);
}
TEST(DeviceRun, EnginesOfAModelShareConstantsAndTheDevice) {
    auto b = chain("N");
    counts.opened = counts.to_device = 0;
    {
        Model model = b.model();
        Engine one = model.compile(on_fake());
        const int uploads = counts.to_device;
        EXPECT_EQ(uploads, 2);  // w as it is, v packed
        Engine same = model.compile(on_fake());
        EXPECT_EQ(counts.to_device, uploads);  // one plan
        auto other = on_fake();
        other.winograd = false;
        Engine two = model.compile(other);
        EXPECT_EQ(counts.opened, 1);
        EXPECT_EQ(counts.to_device, uploads);  // packed weights are shared, too
        Tensor x = noise({3, 16});
        expect_near(two.run({{"x", x}})[0].second, one.run({{"x", x}})[0].second, 0, 0);
    }
    EXPECT_EQ(counts.held, 0u);
    EXPECT_EQ(counts.streams, 0);
}
TEST(DeviceRun, MemoryLimitCoversTheDevice) {
    auto b = there_and_back();
    auto o = on_fake();
    o.memory_limit = 400 << 10;  // the host's value alone takes 256 KB, the device's as much
    auto engine = b.model().compile(o);
    EXPECT_NE(error_of([&] { engine.run({{"x", noise({512, 128})}}); }).find("memory_limit"), std::string::npos);
}
TEST(DeviceRun, AFailureNamesTheNodeAndTheNextRunIsRight) {
    auto b = chain("N");
    auto engine = b.model().compile(on_fake());
    Tensor x = noise({6, 16});
    for (int failing : {0, 1}) {  // run one by one; while recording
        Session s(engine);
        s.bind("x", x);
        for (int run = 0; run < 4; ++run) {
            counts.fail_next_kernel = run == failing;
            std::string e = error_of([&] { s.run(); });
            counts.fail_next_kernel = false;
            if (run == failing) EXPECT_NE(e.find("(Softmax, opset 20)"), std::string::npos) << e;
            else expect_near(s.output("y"), b.run({{"x", x}}, on_cpu())[0]);
        }
    }
}
TEST(DeviceRun, ProfilesNameDeviceKernelsAndCopies) {
    auto b = chain("N");
    auto engine = b.model().compile(on_fake());
    Session s(engine);
    s.profile(true);
    Tensor x = noise({6, 16});
    s.bind("x", x);
    s.run();
    std::string table = s.profile_table();
    EXPECT_EQ(s.times().size(), 5u) << table;
    EXPECT_NE(table.find("matmul.fake"), std::string::npos) << table;
    expect_near(s.output("y"), b.run({{"x", x}}, on_cpu())[0]);
}
TEST(DeviceRun, TapsOfDeviceValuesAreReadable) {
    auto b = chain("N");
    auto o = on_fake();
    o.taps = {"a"};
    auto engine = b.model().compile(o);
    Session s(engine);
    Tensor x = noise({6, 16});
    s.bind("x", x);
    s.run();
    auto c = on_cpu();
    c.taps = {"a"};
    auto plain = b.model().compile(c);
    Session t(plain);
    t.bind("x", x);
    t.run();
    expect_near(s.tap("a"), t.tap("a"));
}
TEST(DeviceRun, TrimGivesThePoolBackAndTheSessionRunsOn) {
    auto b = chain("N");
    Session s(b.model().compile(on_fake()));
    for (std::int64_t rows : {300, 5}) {
        s.bind("x", noise({rows, 16}));
        s.run();
    }
    const int trims = counts.trims;
    s.trim();
    EXPECT_EQ(counts.trims, trims + 1);
    for (std::int64_t rows : {5, 300, 7}) {
        Tensor x = noise({rows, 16}, 2);
        s.bind("x", x);
        s.run();
        expect_near(s.output("y"), b.run({{"x", x}}, on_cpu())[0]);
    }
}
}  // namespace
