// Placement and execution on a device, with a device made of host memory: its streams do nothing before somebody waits, its memory
// is full of NaN, and it has kernels for two operators.
#include <cmath>
#include <deque>
#include <functional>
#include <map>

#include <quern/kernels/device.hpp>
#include <quern/kernels/matmul/matmul.hpp>
#include <quern/kernels/packs.hpp>
#include <quern/kernels/softmax/softmax.hpp>

#include "support/op_test.hpp"

QUERN_BEGIN
std::span<const Backend* const> linked_backends() noexcept;
QUERN_END

namespace {
using namespace quern;
using namespace quern_test;

using Work = std::vector<std::function<void()>>;
/// Does nothing before somebody waits, and then no more than that needs.
struct FakeStream {
    std::deque<std::function<void()>> work;
    Work captured;
    bool capturing = false, no_graphs = false;
    std::size_t pushed = 0, done = 0;
    void push(std::function<void()> f);
    void run_to(std::size_t n) {
        while (done < n) {
            auto f = std::move(work.front());
            work.pop_front();
            ++done;
            f();
        }
    }
};
struct FakeEvent {
    FakeStream* stream = nullptr;
    std::size_t at = 0;
    void run() const {
        if (stream) stream->run_to(at);
    }
};
struct Counts {
    int packed = 0, opened = 0, to_device = 0, to_host = 0, synchronized = 0, captured = 0, replayed = 0, streams = 0, trims = 0, events = 0;
    int waits = 0, follows = 0;
    std::size_t held = 0;
    std::size_t left = 0;  ///< the most work that was left on a stream when the host went on after a wait
    bool fail_next_kernel = false;
    int forget_wait = -1;              ///< planted faults: the host's wait that does nothing, counted from now,
    bool forget_stream_waits = false;  ///< all waits of streams
    std::size_t no_memory_from = SIZE_MAX;
    bool no_pinned = false;
    std::uint32_t eager = 0;  ///< not 0: streams work now and then though nobody waits, at random from this seed
    std::function<void()> at_kernel;
};
Counts counts;
void FakeStream::push(std::function<void()> f) {
    if (capturing) return captured.push_back(std::move(f));
    work.push_back(std::move(f));
    ++pushed;
    if (!counts.eager) return;
    counts.eager = counts.eager * 1664525u + 1013904223u;
    if (counts.eager >> 30 == 0) run_to(done + 1 + (counts.eager >> 8) % work.size());
}

class FakeDevice final : public DeviceApi {
public:
    FakeDevice() { ++counts.opened; }
    ~FakeDevice() override { EXPECT_TRUE(sizes_.empty()) << "device memory was not given back"; }
    const std::string& description() const noexcept override { return text_; }
    int ordinal() const noexcept override { return 0; }
    int sm() const noexcept override { return 80; }
    void* allocate(std::size_t n) override {
        if (n >= counts.no_memory_from) raise(ErrorCode::out_of_memory, "no device memory, on purpose");
        void* p = ::operator new(n, std::align_val_t(256));
        std::memset(p, 0xFF, n);
        sizes_.emplace(p, n);
        counts.held += n;
        return p;
    }
    void release(void* p) noexcept override {
        std::size_t n = sizes_.at(p);
        std::memset(p, 0xFF, n);
        counts.held -= n;
        sizes_.erase(p);
        ::operator delete(p, std::align_val_t(256));
    }
    void trim() noexcept override { ++counts.trims; }
    void* allocate_pinned(std::size_t n) override {
        if (counts.no_pinned) raise(ErrorCode::out_of_memory, "no page-locked memory, on purpose");
        auto* p = static_cast<char*>(::operator new(n, std::align_val_t(64)));
        pinned_[p] = n;
        return p;
    }
    void release_pinned(void* p) noexcept override {
        pinned_.erase(static_cast<char*>(p));
        ::operator delete(p, std::align_val_t(64));
    }
    void* make_stream() override { return ++counts.streams, new FakeStream; }
    void destroy_stream(void* s) noexcept override { counts.streams -= s != nullptr, delete static_cast<FakeStream*>(s); }
    void to_device(void* to, const void* from, std::size_t n, void* s) override {
        ++counts.to_device;
        if (auto it = pinned_.upper_bound(const_cast<char*>(static_cast<const char*>(from))); it != pinned_.begin() && static_cast<const char*>(from) < std::prev(it)->first + std::prev(it)->second)
            return late_.push_back({static_cast<const char*>(from), n}), enqueue(s, [=, this] { std::memcpy(to, from, n), forget(from, n); });  // read when the copy comes to it
        std::vector<char> staged(static_cast<const char*>(from), static_cast<const char*>(from) + n);
        enqueue(s, [=, staged = std::move(staged)] { std::memcpy(to, staged.data(), n); });
    }
    void to_host(void* to, const void* from, std::size_t n, void* s) override {
        ++counts.to_host;
        auto* t = static_cast<const char*>(to);
        if (std::none_of(late_.begin(), late_.end(), [&](auto& l) { return l.first < t + n && t < l.first + l.second; })) std::memset(to, 0xFF, n);
        enqueue(s, [=] { std::memcpy(to, from, n); });
    }
    void copy(void* to, const void* from, std::size_t n, void* s) override {
        enqueue(s, [=] { std::memcpy(to, from, n); });
    }
    void synchronize(void* s) override {
        ++counts.synchronized;
        if (s) static_cast<FakeStream*>(s)->run_to(static_cast<FakeStream*>(s)->pushed);
    }
    void* make_event() override { return ++counts.events, new FakeEvent; }
    void destroy_event(void* e) noexcept override { --counts.events, delete static_cast<FakeEvent*>(e); }
    void record(void* e, void* s) override { *static_cast<FakeEvent*>(e) = {static_cast<FakeStream*>(s), static_cast<FakeStream*>(s)->pushed}; }
    void wait(void* event) override {
        ++counts.waits;
        const FakeEvent e = *static_cast<FakeEvent*>(event);
        if (counts.forget_wait >= 0 && counts.forget_wait-- == 0) return;
        e.run();
        if (e.stream) counts.left = std::max(counts.left, e.stream->work.size());
    }
    void follow(void* s, void* event) override {
        ++counts.follows;
        if (!counts.forget_stream_waits) enqueue(s, [e = *static_cast<FakeEvent*>(event)] { e.run(); });
    }
    void* mark(void* s) override {
        void* e = make_event();
        return record(e, s), e;
    }
    double between(void* first, void* second) override {
        static_cast<FakeEvent*>(second)->run();
        return destroy_event(first), destroy_event(second), 1;
    }
    bool begin_capture(void* s) override {
        auto* f = static_cast<FakeStream*>(s);
        return !f->no_graphs && (f->capturing = true);
    }
    bool capturing(void* s) override { return static_cast<FakeStream*>(s)->capturing; }
    std::shared_ptr<const void> end_capture(void* s) override {
        ++counts.captured;
        auto* f = static_cast<FakeStream*>(s);
        f->capturing = false;
        return std::make_shared<Work>(std::move(f->captured));
    }
    void replay(const void* graph, void* s) override {
        ++counts.replayed;
        for (auto& w : *static_cast<const Work*>(graph)) static_cast<FakeStream*>(s)->push(w);
    }
    int enter() override { return 0; }
    void leave(int) noexcept override {}

private:
    static void enqueue(void* s, std::function<void()> f) {
        if (s) static_cast<FakeStream*>(s)->push(std::move(f));
        else f();
    }
    void forget(const void* from, std::size_t n) {
        auto it = std::find(late_.begin(), late_.end(), std::make_pair(static_cast<const char*>(from), n));
        if (it != late_.end()) late_.erase(it);
    }
    std::string text_ = "fake";
    std::map<void*, std::size_t> sizes_;
    std::map<char*, std::size_t> pinned_;
    std::vector<std::pair<const char*, std::size_t>> late_;  // what copies under way still read
};

class FakeSoftmax final : public Kernel {
public:
    FakeSoftmax() { inplace = 1; }
    const char* name() const noexcept override { return "softmax.fake"; }
    void run(const Call& c) const override {
        if (counts.at_kernel) counts.at_kernel();
        if (std::exchange(counts.fail_next_kernel, false)) raise(ErrorCode::device, "softmax.fake: failed on purpose");
        const std::int64_t cols = c.in[0].dim(-1), rows = cols ? c.in[0].count() / cols : 0;
        const float* x = c.in[0].in<float>();
        float* y = c.out[0].out<float>();
        static_cast<FakeStream*>(c.stream)->push([=] {
            for (std::int64_t r = 0; r < rows; ++r) {
                float m = -INFINITY, s = 0;
                for (std::int64_t i = 0; i < cols; ++i) m = std::max(m, x[r * cols + i]);
                for (std::int64_t i = 0; i < cols; ++i) s += std::exp(x[r * cols + i] - m);
                for (std::int64_t i = 0; i < cols; ++i) y[r * cols + i] = std::exp(x[r * cols + i] - m) / s;
            }
        });
    }
};
/// Packs B transposed; the constant itself is never read. Or reads it, when `plain`.
class FakeProduct final : public Kernel {
public:
    FakeProduct(const matmul::Problem& p, const Target& target) : n_(p.n), k_(p.k), packed_(p.trans_b) {
        if (!packed_) return;
        weights_.push_back(packed_weights(target, "matmul.fake", {p.b}, static_cast<std::size_t>(k_ * n_) * sizeof(float), [&](std::byte* to) {
            ++counts.packed;
            for (std::int64_t i = 0; i < n_; ++i)
                for (std::int64_t j = 0; j < k_; ++j) reinterpret_cast<float*>(to)[j * n_ + i] = static_cast<const float*>(p.b.raw())[i * k_ + j];
        }));
        unread = 2;
    }
    const char* name() const noexcept override { return "matmul.fake"; }
    std::span<const Tensor> device_weights() const noexcept override { return weights_; }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        Booking b;
        b.scratch = static_cast<std::size_t>(in[0].count()) * sizeof(float);
        return b;
    }
    void run(const Call& c) const override {
        const float *a = c.in[0].in<float>(), *b = packed_ ? static_cast<const float*>(c.weights[0].data) : c.in[1].in<float>();
        float *y = c.out[0].out<float>(), *scratch = reinterpret_cast<float*>(c.scratch);
        const std::int64_t m = c.in[0].dim(0), n = n_, k = k_;
        static_cast<FakeStream*>(c.stream)->push([=] {
            std::copy_n(a, m * k, scratch);
            for (std::int64_t i = 0; i < m; ++i)
                for (std::int64_t j = 0; j < n; ++j) {
                    float s = 0;
                    for (std::int64_t l = 0; l < k; ++l) s += scratch[i * k + l] * b[l * n + j];
                    y[i * n + j] = s;
                }
        });
    }

private:
    std::int64_t n_, k_;
    bool packed_;
    std::vector<Tensor> weights_;
};

std::string refuse_softmax(const softmax::Problem& p, const Target&) { return p.axis == p.rank - 1 && !p.log && p.dtype == DType::f32 ? "" : "only the last axis"; }
std::unique_ptr<Kernel> make_softmax(const softmax::Problem&, const Target&) { return std::make_unique<FakeSoftmax>(); }
std::string refuse_product(const matmul::Problem& p, const Target&) {
    return p.dtype == DType::f32 && p.rank_a == 2 && p.rank_b == 2 && p.b.defined() && !p.trans_a && !p.has_bias && !p.has_residual && p.post == vec::Post::none ? "" : "only plain products";
}
std::unique_ptr<Kernel> make_product(const matmul::Problem& p, const Target& t) { return std::make_unique<FakeProduct>(p, t); }
constexpr Entry<softmax::Problem> softmax_fake{"softmax.fake", refuse_softmax, make_softmax};
constexpr Entry<matmul::Problem> matmul_fake{"matmul.fake", refuse_product, make_product};
const RankedEntry softmax_lines[] = {{&softmax_fake, 1}}, matmul_lines[] = {{&matmul_fake, 1}};
std::shared_ptr<DeviceApi> open_fake(int ordinal, const Options&) {
    if (ordinal) raise(ErrorCode::unsupported, "device 'fake:" + std::to_string(ordinal) + "' is not there: 1 found");
    return std::make_shared<FakeDevice>();
}
const Backend& fake() {
    static const Backend b = [] {
        Backend b{"fake", {}, Device::cuda, open_fake};
        b.lists[static_cast<int>(Family::softmax)] = softmax_lines;
        b.lists[static_cast<int>(Family::matmul)] = matmul_lines;
        return b;
    }();
    return b;
}
Options on_fake() {
    Options o;
    o.device = "fake";
    o.threads = 1;
    for (const Backend* b : linked_backends())
        if (b->device == Device::cpu) o.backends.push_back(b);
    o.backends.push_back(&fake());
    return o;
}
Options on_cpu() {
    Options o;
    o.threads = 1;
    return o;
}

Tensor noise(Shape shape, int seed = 1) {
    Tensor t(DType::f32, std::move(shape));
    std::uint32_t x = static_cast<std::uint32_t>(seed) * 2654435761u;
    for (float& v : t.data<float>()) x = x * 1664525u + 1013904223u, v = static_cast<float>(x >> 8) / 8388608.f - 1.f;
    return t;
}
int count(const std::string& text, const std::string& what) {
    int n = 0;
    for (std::size_t p = 0; (p = text.find(what, p)) != std::string::npos; p += what.size()) ++n;
    return n;
}
std::string error_of(const std::function<void()>& f) {
    try { f(); } catch (const Error& e) { return e.what(); }
    return "no error";
}
/// x [N, 128] -> Softmax -> Sin (only on the CPU) -> Softmax.
ModelBuilder there_and_back() {
    ModelBuilder b;
    b.input("x", DType::f32, {"512", "128"}).node("Softmax", {"x"}, {"a"}).node("Sin", {"a"}, {"b"}).node("Softmax", {"b"}, {"y"}).output("y");
    return b;
}
/// Two products, the second by a transposed constant, and a softmax: all on the device.
ModelBuilder chain(const std::string& rows) {
    ModelBuilder b;
    b.input("x", DType::f32, {rows, "16"}).constant("w", noise({16, 24}, 3)).constant("v", noise({8, 24}, 4));
    b.node("MatMul", {"x", "w"}, {"a"}).node("Gemm", {"a", "v"}, {"b"}, {onnx::attribute_i("transB", 1)}).node("Softmax", {"b"}, {"y"}).output("y");
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
TEST(DeviceRun, TheHostWaitsForACopyAndNotForWhatWasEnqueuedBehindIt) {
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
TEST(DeviceRun, EachWaitIsNeeded) {
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
TEST(DeviceRun, MemoryOfTheHostIsWrittenAgainOnlyWhenItsCopyIsDone) {
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
TEST(DeviceRun, LargeInputsAreNotInDeviceMemoryAllAtOnce) {
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
        if (rows > 1) EXPECT_LT(counts.held - before, static_cast<std::size_t>(3 * rows * 1024 * 4));
        auto want = b.run(in, on_cpu());
        for (std::size_t o = 0; o < 4; ++o) expect_near(s.output("y" + std::to_string(o)), want[o], 2e-5, 2e-5);
    }
}
TEST(DeviceRun, WithoutHostNodesThereAreNoEvents) {
    const int events = counts.events;
    auto b = chain("N");
    Session s(b.model().compile(on_fake()));
    s.bind("x", noise({7, 16}));
    s.run();
    EXPECT_EQ(counts.events, events);
    EXPECT_EQ(counts.streams, 1);
}
TEST(DeviceRun, FailuresAndCancellationBetweenHostNodesLeaveNothingBehind) {
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
TEST(DeviceRun, WithoutPageLockedMemoryItRunsAllTheSame) {
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
TEST(DeviceRun, RandomGraphsGiveTheAnswersOfTheCpu) {
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
