// Engines on the CUDA backend through the real device layer: on the emulator's runtime twin here, on a GPU where there is one.
#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <thread>

#include <quern/cuda.hpp>
#include <quern/tensor/half.hpp>

#include "support/op_test.hpp"

namespace {
using namespace quern;
using namespace quern_test;

/// Skips where no device is (the program that nvcc made, on a machine without one).
class CudaEngine : public ::testing::Test {
protected:
    void SetUp() override {
        int n = 0;
        if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) GTEST_SKIP() << "no CUDA device";
    }
};

Tensor noise(Shape shape, int seed = 1) {
    Tensor t(DType::f32, std::move(shape));
    std::uint32_t x = static_cast<std::uint32_t>(seed) * 2654435761u + 1;
    for (float& v : t.data<float>()) x = x * 1664525u + 1013904223u, v = static_cast<float>(x >> 8) / 8388608.f - 1.f;
    return t;
}
/// A residual block of products, activations and normalization over [N, 32]: several kernels, constants, several shapes.
ModelBuilder block() {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "32"}).constant("w", noise({32, 48}, 2)).constant("v", noise({48, 32}, 3)).constant("c", noise({48}, 4));
    b.constant("g", noise({32}, 5)).constant("h", noise({32}, 6));
    b.node("MatMul", {"x", "w"}, {"a"}).node("Add", {"a", "c"}, {"b"}).node("Sigmoid", {"b"}, {"s"}).node("Mul", {"b", "s"}, {"m"});
    b.node("MatMul", {"m", "v"}, {"p"}).node("Add", {"p", "x"}, {"r"}).node("LayerNormalization", {"r", "g", "h"}, {"n"}, {onnx::attribute_i("axis", -1)});
    b.node("Softmax", {"n"}, {"y"}).output("y");
    return b;
}
Options cpu() {
    Options o;
    o.threads = 1;
    return o;
}
Options cuda_strict() {
    Options o;
    o.threads = 1;
    o.device = "cuda";
    o.strict_device = true;
    return o;
}
/// f32 products on the device may be sums in another order.
void expect_same(const Tensor& got, const Tensor& want) { expect_near(got, want, 2e-5, 2e-6); }

class DeviceMemory {
public:
    explicit DeviceMemory(std::size_t n) : size_(n) {
        EXPECT_EQ(cudaMalloc(&p_, n), cudaSuccess);
        EXPECT_EQ(cudaMemset(p_, 0xFF, n), cudaSuccess);
    }
    DeviceMemory(const DeviceMemory&) = delete;
    ~DeviceMemory() { cudaFree(p_); }
    void upload(const Tensor& t, cudaStream_t s) { ASSERT_EQ(cudaMemcpyAsync(p_, t.raw(), t.bytes(), cudaMemcpyHostToDevice, s), cudaSuccess); }
    void* get() const { return p_; }

private:
    void* p_ = nullptr;
    std::size_t size_;
};

TEST_F(CudaEngine, AllNodesAreThereAndAgreeForManyShapesAndRuns) {
    auto b = block();
    Engine engine = b.model().compile(cuda_strict());
    Session s(engine);
    for (int run = 0; run < 12; ++run) {
        Tensor x = noise({run < 6 ? 7 : run % 3 + 1, 32}, run);
        s.bind("x", x);
        s.run();
        expect_same(s.output("y"), b.run({{"x", x}}, cpu())[0]);
    }
}
TEST_F(CudaEngine, RecordedRunsAreTheBitsOfRunsOneByOne) {
    auto b = block();
    auto o = cuda_strict();
    Engine recorded = b.model().compile(o);
    o.device_graphs = false;
    Engine plain = b.model().compile(o);
    Session r(recorded), p(plain);
    for (int run = 0; run < 5; ++run) {
        Tensor x = noise({9, 32}, run);
        r.bind("x", x);
        p.bind("x", x);
        r.run();
        p.run();
        ASSERT_EQ(0, std::memcmp(r.output("y").raw(), p.output("y").raw(), r.output("y").bytes())) << run;
    }
}
class CallersStream {
public:
    CallersStream() { EXPECT_EQ(cudaStreamCreateWithFlags(&s_, cudaStreamNonBlocking), cudaSuccess); }
    CallersStream(const CallersStream&) = delete;
    CallersStream& operator=(const CallersStream&) = delete;
    ~CallersStream() { EXPECT_EQ(cudaStreamDestroy(s_), cudaSuccess); }
    operator cudaStream_t() const { return s_; }

private:
    cudaStream_t s_ = nullptr;
};
/// A session that takes and gives device memory on a stream of the caller's.
struct OnCallersStream {
    CallersStream stream;  // outlives the session
    ModelBuilder b = block();
    Engine engine;
    Session s;
    Tensor x = noise({5, 32});
    DeviceMemory in;

    explicit OnCallersStream(quern::Options o) : engine(b.model().compile((o.device_io = true, o))), s(engine), in(x.bytes()) { s.stream(stream); }
    void upload(int run) {
        x = noise({5, 32}, run);
        in.upload(x, stream);
    }
    void bind() { s.bind("x", cuda::borrow(DType::f32, {5, 32}, in.get())); }
    void expect_answer() {
        const Tensor& y = s.output("y");
        ASSERT_EQ(y.device(), Device::cuda);
        Tensor got(DType::f32, y.shape());
        ASSERT_EQ(cudaMemcpyAsync(got.raw(), y.raw(), got.bytes(), cudaMemcpyDeviceToHost, stream), cudaSuccess);
        ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
        expect_same(got, b.run({{"x", x}}, cpu())[0]);
    }
};
TEST_F(CudaEngine, DeviceTensorsOnTheCallersStream) {
    OnCallersStream f(cuda_strict());
    for (int run = 0; run < 4; ++run) {
        f.upload(run);
        f.bind();
        f.s.run();
        ASSERT_NO_FATAL_FAILURE(f.expect_answer());
    }
}
TEST_F(CudaEngine, TheApplicationRecordsARunIntoItsOwnGraph) {
    OnCallersStream f(cuda_strict());
    f.upload(0);
    f.bind();
    for (int run = 0; run < 3; ++run) f.s.run();  // the session's own graph is there, too
    ASSERT_EQ(cudaStreamSynchronize(f.stream), cudaSuccess);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(f.stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    f.s.run();
    ASSERT_EQ(cudaStreamEndCapture(f.stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    for (int run = 0; run < 3; ++run) {
        f.upload(run + 7);
        ASSERT_EQ(cudaGraphLaunch(exec, f.stream), cudaSuccess);
        ASSERT_NO_FATAL_FAILURE(f.expect_answer());
    }
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}
TEST_F(CudaEngine, SessionsRunAtTheSameTime) {
    auto b = block();
    Engine engine = b.model().compile(cuda_strict());
    std::vector<Tensor> x, want;
    for (int t = 0; t < 4; ++t) {
        x.push_back(noise({6 + t, 32}, t));
        want.push_back(b.run({{"x", x.back()}}, cpu())[0]);
    }
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            Session s(engine);
            for (int run = 0; run < 8; ++run) {
                s.bind("x", x[static_cast<std::size_t>(t)]);
                s.run();
                expect_same(s.output("y"), want[static_cast<std::size_t>(t)]);
            }
        });
    for (auto& t : threads) t.join();
}
TEST_F(CudaEngine, HostNodesInBetweenReadAndWriteTheRightValues) {
    // CumSum has no kernel on the device: there and back between two device groups, sizes large enough to pay.
    ModelBuilder b;
    b.input("x", DType::f32, {"512", "128"}).constant("axis", ints({}, {1})).node("Softmax", {"x"}, {"a"}).node("CumSum", {"a", "axis"}, {"c"}).node("Softmax", {"c"}, {"y"}).output("y");
    Options o = cpu();
    o.device = "cuda";
    Engine engine = b.model().compile(o);
    EXPECT_NE(engine.describe().find("CopyToHost"), std::string::npos) << engine.describe();
    Session s(engine);
    for (int run = 0; run < 4; ++run) {
        Tensor x = noise({512, 128}, run);
        s.bind("x", x);
        s.run();
        expect_same(s.output("y"), b.run({{"x", x}}, cpu())[0]);
    }
}
TEST_F(CudaEngine, ADeviceStepWaitsForWhatItReadsOnTheHost) {
    // The value that pads is made on the device and read on the host when the step is enqueued.
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "40"}).constant("pads", ints({4}, {0, 1, 0, 2})).constant("axes", ints({2}, {0, 1}));
    b.node("ReduceMax", {"x", "axes"}, {"m"}, {onnx::attribute_i("keepdims", 0)}).node("Pad", {"x", "pads", "m"}, {"y"}).output("y");
    Engine engine = b.model().compile(cuda_strict());
    EXPECT_NE(engine.describe().find("CopyToHost"), std::string::npos) << engine.describe();
    Session s(engine);
    for (int run = 0; run < 4; ++run) {
        Tensor x = noise({5, 40}, run);
        s.bind("x", x);
        s.run();
        expect_same(s.output("y"), b.run({{"x", x}}, cpu())[0]);
    }
}
TEST_F(CudaEngine, RecurrentCellsOfEachKindAreThere) {
    for (bool linear : {false, true})
        for (const char* cell : {"GRU", "RNN", "LSTM"}) {
            const std::int64_t gates = *cell == 'G' ? 3 : *cell == 'L' ? 4 : 1;
            if (linear && *cell != 'G') continue;
            ModelBuilder b;
            b.input("x", DType::f32, {"S", "B", "5"}).constant("w", noise({2, gates * 6, 5}, 2)).constant("r", noise({2, gates * 6, 6}, 3)).constant("c", noise({2, 2 * gates * 6}, 4));
            std::vector<onnx::Attribute> attributes{onnx::attribute_i("hidden_size", 6), onnx::attribute_s("direction", "bidirectional")};
            if (linear) attributes.push_back(onnx::attribute_i("linear_before_reset", 1));
            b.node(cell, {"x", "w", "r", "c"}, {"y"}, attributes).output("y");
            Engine engine = b.model().compile(cuda_strict());
            Session s(engine);
            for (std::int64_t steps : {4, 1, 7}) {
                Tensor x = noise({steps, 3, 5}, static_cast<int>(steps));
                s.bind("x", x);
                s.run();
                expect_same(s.output("y"), b.run({{"x", x}}, cpu())[0]);
            }
        }
}
TEST_F(CudaEngine, TopKIsThereWhereKIsKnown) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "300"}).constant("k", ints({1}, {7})).node("TopK", {"x", "k"}, {"v", "i"}).output("v").output("i");
    Engine engine = b.model().compile(cuda_strict());
    Session s(engine);
    for (std::int64_t rows : {3, 1}) {
        Tensor x = noise({rows, 300}, static_cast<int>(rows));
        s.bind("x", x);
        s.run();
        auto want = b.run({{"x", x}}, cpu());
        expect_near(s.output("v"), want[0], 0, 0);
        expect_near(s.output("i"), want[1], 0, 0);
    }
    ModelBuilder large;
    large.input("x", DType::f32, {"N", "3000"}).constant("k", ints({1}, {2000})).node("TopK", {"x", "k"}, {"v", "i"}).output("v");
    auto refused = large.model().try_compile(cuda_strict());
    ASSERT_FALSE(refused.ok());
    EXPECT_NE(std::string(refused.error().what()).find("up to 1024 is accepted"), std::string::npos) << refused.error().what();
}
/// How many steps of the engine's description run the kernel.
int steps_of(const Engine& e, const std::string& kernel) {
    int n = 0;
    const std::string text = e.describe();
    for (std::size_t at = text.find(kernel); at != std::string::npos; at = text.find(kernel, at + 1)) ++n;
    return n;
}
// A gate, a choice and a polynomial over three operands of which two are broadcast: one kernel.
TEST_F(CudaEngine, ElementwiseNodesAreOneProgram) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "6", "8"}).input("row", DType::f32, {"8"}).constant("half", floats({}, {0.5f})).constant("column", noise({6, 1}, 3));
    b.node("Exp", {"x"}, {"e"}).node("Sub", {"row", "e"}, {"d"}).node("Sigmoid", {"d"}, {"s"}).node("Mul", {"d", "s"}, {"g"}).node("Add", {"g", "column"}, {"a"});
    b.node("Less", {"a", "half"}, {"l"}).node("Neg", {"a"}, {"n"}).node("Where", {"l", "n", "d"}, {"w"}).node("Mul", {"half", "w"}, {"y"}).output("y");
    Engine engine = b.model().compile(cuda_strict());
    EXPECT_EQ(steps_of(engine, "elementwise.cuda"), 1) << engine.describe();
    Session s(engine);
    for (std::int64_t n : {3, 1, 5}) {
        Tensor x = noise({n, 6, 8}, static_cast<int>(n)), row = noise({8}, 9);
        s.bind("x", x);
        s.bind("row", row);
        s.run();
        expect_same(s.output("y"), b.run({{"x", x}, {"row", row}}, cpu())[0]);
    }
}
TEST_F(CudaEngine, RotaryEmbeddingIsThere) {
    for (bool inside : {false, true}) {
        ModelBuilder b(23);
        b.input("x", DType::f32, inside ? std::vector<std::string>{"B", "S", "24"} : std::vector<std::string>{"B", "3", "S", "8"}).input("p", DType::i64, {"B", "S"});
        b.constant("c", noise({50, 4}, 2)).constant("s", noise({50, 4}, 3)).node("RotaryEmbedding", {"x", "c", "s", "p"}, {"y"}, {onnx::attribute_i("num_heads", 3)}).output("y");
        Engine engine = b.model().compile(cuda_strict());
        Tensor x = noise(inside ? Shape{2, 5, 24} : Shape{2, 3, 5, 8}), p(DType::i64, {2, 5});
        for (int i = 0; i < 10; ++i) p.data<std::int64_t>()[static_cast<std::size_t>(i)] = (i * 17) % 50;
        Session s(engine);
        s.bind("x", x);
        s.bind("p", p);
        s.run();
        expect_same(s.output("y"), b.run({{"x", x}, {"p", p}}, cpu())[0]);
    }
}
/// One layer of a decoder: q, k, v [N, S, 16] as 2 heads of 8 values, of which the first 4 turn; old keys and values to all of them.
ModelBuilder decoder(bool dense_values) {
    ModelBuilder b(23);
    for (const char* x : {"q", "k"}) b.input(x, DType::f32, {"N", "S", "16"});
    b.input("v", DType::f32, dense_values ? std::vector<std::string>{"N", "2", "S", "8"} : std::vector<std::string>{"N", "S", "16"});
    for (const char* x : {"pk", "pv"}) b.input(x, DType::f32, {"N", "2", "P", "8"});
    b.input("c", DType::f32, {"N", "S", "2"}).input("s", DType::f32, {"N", "S", "2"});
    b.constant("split", ints({4}, {0, 0, 2, 8})).constant("join", ints({3}, {0, 0, 16})).constant("factor", floats({}, {0.35f}));
    for (std::string x : {"q", "k", "v"})
        if (x != "v" || !dense_values) b.node("Reshape", {x, "split"}, {x + "4"}).node("Transpose", {x + "4"}, {x + "h"}, {onnx::attribute_ints("perm", {0, 2, 1, 3})});
    for (std::string x : {"q", "k"}) b.node("RotaryEmbedding", {x + "h", "c", "s"}, {x + "r"}, {onnx::attribute_i("rotary_embedding_dim", 4)});
    b.node("Concat", {"pk", "kr"}, {"K"}, {onnx::attribute_i("axis", 2)}).node("Concat", {"pv", dense_values ? "v" : "vh"}, {"V"}, {onnx::attribute_i("axis", 2)});
    b.node("Transpose", {"K"}, {"kt"}, {onnx::attribute_ints("perm", {0, 1, 3, 2})}).node("MatMul", {"qr", "kt"}, {"w"}).node("Mul", {"w", "factor"}, {"m"}).node("Softmax", {"m"}, {"p"}, {onnx::attribute_i("axis", -1)});
    b.node("MatMul", {"p", "V"}, {"o"}).node("Transpose", {"o"}, {"ot"}, {onnx::attribute_ints("perm", {0, 2, 1, 3})}).node("Reshape", {"ot", "join"}, {"y"});
    return std::move(b.output("y").output("K").output("V"));
}
Tensor from_device(const Tensor& t) {
    EXPECT_EQ(t.device(), Device::cuda);
    Tensor host(DType::f32, t.shape());
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(host.raw(), t.raw(), host.bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    return host;
}
TEST_F(CudaEngine, CachesGrowInTheDevicesMemory) {
    for (bool dense : {false, true})
        for (std::int64_t n : {1, 2}) {
            auto b = decoder(dense);
            auto o = cuda_strict();
            o.device_io = true;
            Engine engine = b.model().compile(o), reference = b.model().compile(cpu());
            EXPECT_NE(engine.describe().find("attention.append.cuda"), std::string::npos) << engine.describe();
            Session grown(engine), copied(engine), plain(reference);
            constexpr std::int64_t room = 12;
            const std::size_t whole = static_cast<std::size_t>(n * 2 * room * 8) * sizeof(float);
            DeviceMemory k(whole), v(whole);
            const Shape shape{n, 2, room, 8};
            grown.bind_cache("pk", "K", cuda::borrow(DType::f32, shape, k.get()));
            grown.bind_cache("pv", "V", cuda::borrow(DType::f32, shape, v.get()));
            Tensor pk(DType::f32, {n, 2, 0, 8}), pv = pk.clone();
            std::int64_t length = 0;
            for (int turn = 0; turn < 6; ++turn) {
                const std::int64_t more = turn == 0 ? 5 : turn == 3 ? 2 : 1;
                const DeviceMemory old_k(std::max<std::size_t>(4, pk.bytes())), old_v(std::max<std::size_t>(4, pv.bytes()));
                std::vector<NamedTensor> in;
                for (const char* x : {"q", "k"}) in.emplace_back(x, noise({n, more, 16}, turn * 5 + *x));
                in.emplace_back("v", noise(dense ? Shape{n, 2, more, 8} : Shape{n, more, 16}, turn));
                in.emplace_back("c", noise({n, more, 2}, turn + 50)), in.emplace_back("s", noise({n, more, 2}, turn + 70));
                std::vector<std::unique_ptr<DeviceMemory>> held;
                for (auto& [name, t] : in) {
                    held.push_back(std::make_unique<DeviceMemory>(t.bytes()));
                    ASSERT_EQ(cudaMemcpy(held.back()->get(), t.raw(), t.bytes(), cudaMemcpyHostToDevice), cudaSuccess);
                    for (Session* s : {&grown, &copied}) s->bind(name, cuda::borrow(DType::f32, t.shape(), held.back()->get()));
                    plain.bind(name, t);
                }
                ASSERT_EQ(cudaMemcpy(old_k.get(), pk.raw(), pk.bytes(), cudaMemcpyHostToDevice), cudaSuccess);
                ASSERT_EQ(cudaMemcpy(old_v.get(), pv.raw(), pv.bytes(), cudaMemcpyHostToDevice), cudaSuccess);
                copied.bind("pk", cuda::borrow(DType::f32, pk.shape(), old_k.get())), copied.bind("pv", cuda::borrow(DType::f32, pv.shape(), old_v.get()));
                plain.bind("pk", pk), plain.bind("pv", pv);
                plain.run(), copied.run(), grown.run();
                length += more;
                const Tensor y = from_device(grown.output("y"));
                expect_same(y, plain.output("y"));
                expect_near(from_device(copied.output("y")), y, 0, 0);
                EXPECT_EQ(grown.output("K").raw(), k.get());
                EXPECT_EQ(grown.output("K").shape(), shape);
                pk = from_device(copied.output("K")), pv = from_device(copied.output("V"));
                ASSERT_EQ(pk.shape(), (Shape{n, 2, length, 8}));
                expect_same(pk, plain.output("K"));
                for (const auto& [memory, rows] : {std::pair(grown.output("K"), pk), std::pair(grown.output("V"), pv)}) {
                    const Tensor all = from_device(memory);
                    for (std::int64_t head = 0; head < n * 2; ++head) {
                        const float* at = all.data<float>().data() + head * room * 8;
                        EXPECT_EQ(0, std::memcmp(at, rows.data<float>().data() + head * length * 8, static_cast<std::size_t>(length * 8) * sizeof(float)));
                        for (std::int64_t i = length * 8; i < room * 8; ++i) {
                            std::uint32_t bits;
                            std::memcpy(&bits, at + i, 4);
                            ASSERT_EQ(bits, 0xFFFFFFFFu);
                        }
                    }
                }
            }
            EXPECT_EQ(length, 11);
            const Tensor last = from_device(grown.output("y"));
            grown.bind_cache("pk", "K", cuda::borrow(DType::f32, shape, k.get()), length - 1), grown.bind_cache("pv", "V", cuda::borrow(DType::f32, shape, v.get()), length - 1);
            std::vector<std::unique_ptr<DeviceMemory>> held;  // the last position once more
            for (const char* x : {"q", "k"}) {
                const Tensor t = noise({n, 1, 16}, 5 * 5 + *x);
                held.push_back(std::make_unique<DeviceMemory>(t.bytes()));
                ASSERT_EQ(cudaMemcpy(held.back()->get(), t.raw(), t.bytes(), cudaMemcpyHostToDevice), cudaSuccess);
                grown.bind(x, cuda::borrow(DType::f32, t.shape(), held.back()->get()));
            }
            const std::pair<const char*, Tensor> rest[] = {{"v", noise(dense ? Shape{n, 2, 1, 8} : Shape{n, 1, 16}, 5)}, {"c", noise({n, 1, 2}, 55)}, {"s", noise({n, 1, 2}, 75)}};
            for (auto& [name, t] : rest) {
                held.push_back(std::make_unique<DeviceMemory>(t.bytes()));
                ASSERT_EQ(cudaMemcpy(held.back()->get(), t.raw(), t.bytes(), cudaMemcpyHostToDevice), cudaSuccess);
                grown.bind(name, cuda::borrow(DType::f32, t.shape(), held.back()->get()));
            }
            grown.run();
            expect_near(from_device(grown.output("y")), last, 0, 0);
            grown.run();  // the twelfth position
            auto full = grown.try_run();
            ASSERT_FALSE(full.ok());
            EXPECT_NE(std::string(full.error().what()).find("room for 12 positions would get 13"), std::string::npos) << full.error().what();
        }
}
TEST_F(CudaEngine, CachesInOtherMemoryAreRefused) {
    auto b = decoder(false);
    auto o = cuda_strict();
    const Tensor host(DType::f32, {1, 2, 4, 8});
    Session crossing(b.model().compile(o));
    auto r = crossing.try_bind_cache("pk", "K", host);
    ASSERT_FALSE(r.ok());
    EXPECT_NE(r.error().message().find("with Options::device_io"), std::string::npos) << r.error().what();
    o.device_io = true;
    Session there(b.model().compile(o));
    r = there.try_bind_cache("pk", "K", host);
    ASSERT_FALSE(r.ok());
    EXPECT_NE(r.error().message().find("accepted: the device's"), std::string::npos) << r.error().what();
    Session here(b.model().compile(cpu()));
    DeviceMemory k(host.bytes());
    r = here.try_bind_cache("pk", "K", cuda::borrow(DType::f32, host.shape(), k.get()));
    ASSERT_FALSE(r.ok());
    EXPECT_NE(r.error().message().find("accepted: the host's"), std::string::npos) << r.error().what();
}
/// v rounded to t.
Tensor as(const Tensor& v, DType t) {
    Tensor r(t, v.shape());
    for (std::size_t i = 0; i < v.data<float>().size(); ++i) {
        if (t == DType::f16) r.data<Half>()[i] = to_half(v.data<float>()[i]);
        else r.data<BFloat16>()[i] = to_bfloat16(v.data<float>()[i]);
    }
    return r;
}
Tensor wide(const Tensor& v) {
    Tensor r(DType::f32, v.shape());
    for (std::size_t i = 0; i < r.data<float>().size(); ++i) r.data<float>()[i] = v.dtype() == DType::f16 ? to_float(v.data<Half>()[i]) : to_float(v.data<BFloat16>()[i]);
    return r;
}
// A transformer's block in a half type: nothing computes in f32 between kernels, and no cast is left but those of programs.
TEST_F(CudaEngine, HalfTypesStayNarrow) {
    for (DType t : {DType::f16, DType::bf16}) {
        ModelBuilder b;
        const auto c = [&](const char* name, Shape s, int seed) { b.constant(name, as(noise(std::move(s), seed), t)); };
        b.input("x", t, {"2", "S", "32"});
        c("g", {32}, 1), c("h", {32}, 2), c("wq", {32, 32}, 3), c("wk", {32, 32}, 4), c("wv", {32, 32}, 5), c("wo", {32, 32}, 6), c("w1", {32, 64}, 7), c("b1", {64}, 8), c("w2", {64, 32}, 9);
        b.constant("heads", ints({4}, {0, 0, 4, 8})).constant("joined", ints({3}, {0, 0, 32}));
        b.constant("eighth", as(floats({}, {0.25f}), t));
        b.node("LayerNormalization", {"x", "g", "h"}, {"n"}, {onnx::attribute_i("axis", -1)});
        for (const char* p : {"q", "k", "v"}) {
            const std::string s = p;
            b.node("MatMul", {"n", "w" + s}, {s + "m"}).node("Reshape", {s + "m", "heads"}, {s + "r"});
            b.node("Transpose", {s + "r"}, {s + "t"}, {onnx::attribute_ints("perm", s == "k" ? std::vector<std::int64_t>{0, 2, 3, 1} : std::vector<std::int64_t>{0, 2, 1, 3})});
        }
        b.node("MatMul", {"qt", "kt"}, {"sc"}).node("Mul", {"sc", "eighth"}, {"sm"}).node("Softmax", {"sm"}, {"pr"}).node("MatMul", {"pr", "vt"}, {"o"});
        b.node("Transpose", {"o"}, {"ot"}, {onnx::attribute_ints("perm", {0, 2, 1, 3})}).node("Reshape", {"ot", "joined"}, {"oj"}).node("MatMul", {"oj", "wo"}, {"ow"});
        b.node("Add", {"x", "ow"}, {"r"}).node("LayerNormalization", {"r", "g", "h"}, {"n2"}, {onnx::attribute_i("axis", -1)});
        b.node("MatMul", {"n2", "w1"}, {"m1"}).node("Add", {"m1", "b1"}, {"a1"}).node("Relu", {"a1"}, {"u"}).node("MatMul", {"u", "w2"}, {"m2"}).node("Add", {"r", "m2"}, {"y"}).output("y");
        Engine engine = b.model().compile(cuda_strict());
        const std::string text = engine.describe();
        EXPECT_EQ(text.find("Cast"), std::string::npos) << text;
        EXPECT_EQ(steps_of(engine, "attention.cuda"), 1) << text;
        EXPECT_EQ(steps_of(engine, "elementwise.cuda"), 0) << text;
        Session s(engine);
        for (std::int64_t n : {12, 3}) {
            Tensor x = as(noise({2, n, 32}, static_cast<int>(n)), t);
            s.bind("x", x);
            s.run();
            const double tolerance = t == DType::f16 ? 2e-2 : 1.6e-1;  // some ten roundings on the way, of values up to 8
            expect_near(wide(s.output("y")), wide(b.run({{"x", x}}, cpu())[0]), tolerance, tolerance);
        }
    }
}
// A sum that no product makes, and a normalization of its rows: one kernel, which also stores the sum where somebody else reads it.
TEST_F(CudaEngine, SumsAreMadeByTheNormalizationBehindThem) {
    for (DType t : {DType::f32, DType::f16})
        for (bool rms : {false, true})
            for (bool read_again : {false, true})
                for (std::int64_t n : {32, 1200}) {
                    SCOPED_TRACE(::testing::Message() << dtype_name(t) << (rms ? " rms" : "") << (read_again ? " sum read" : "") << n);
                    const auto value = [&](Shape s, int seed) {
                        Tensor v = noise(std::move(s), seed);
                        return t == DType::f32 ? v : as(v, t);
                    };
                    const std::string width = std::to_string(n);
                    ModelBuilder b(23);
                    b.input("x", t, {"N", "3", width}).input("z", t, {"N", "3", width}).constant("g", value({n}, 2)).constant("h", value({n}, 3));
                    b.node("Softmax", {"x"}, {"a"}).node("Add", {"a", "z"}, {"s"});
                    if (rms) b.node("RMSNormalization", {"s", "g"}, {"l"});
                    else b.node("LayerNormalization", {"s", "g", "h"}, {"l"});
                    b.node("Softmax", {"l"}, {"y"}).output("y");
                    if (read_again) b.node("Softmax", {"s"}, {"w"}).output("w");
                    Engine engine = b.model().compile(cuda_strict());
                    EXPECT_EQ(steps_of(engine, "norm_skip.cuda"), 1) << engine.describe();
                    EXPECT_EQ(steps_of(engine, "elementwise.cuda"), 0) << engine.describe();
                    Session s(engine);
                    for (std::int64_t rows : {4, 1}) {
                        const std::vector<NamedTensor> in{{"x", value({rows, 3, n}, 5)}, {"z", value({rows, 3, n}, 6)}};
                        for (const auto& [name, v] : in) s.bind(name, v);
                        s.run();
                        const auto want = b.run(in, cpu());
                        for (std::size_t o = 0; o < want.size(); ++o) {
                            const Tensor got = s.output(o ? "w" : "y");
                            if (t == DType::f32) expect_same(got, want[o]);
                            else expect_near(wide(got), wide(want[o]), 4e-3, 1e-3);
                        }
                    }
                }
}
TEST_F(CudaEngine, OtherSumsStayWhereTheyAre) {
    const auto steps = [](ModelBuilder& b, const std::vector<NamedTensor>& in) {
        Engine engine = b.model().compile(cuda_strict());
        auto got = engine.run(in);
        auto want = b.run(in, cpu());
        for (std::size_t o = 0; o < want.size(); ++o) expect_same(got[o].second, want[o]);
        return steps_of(engine, "norm_skip.cuda");
    };
    const Tensor x = noise({4, 3, 32}, 1), z = noise({3, 32}, 2), full = noise({4, 3, 32}, 3), row = noise({32}, 4);
    {
        ModelBuilder b;  // broadcast
        b.input("x", DType::f32, {"N", "3", "32"}).input("z", DType::f32, {"3", "32"}).constant("g", row);
        b.node("Add", {"x", "z"}, {"s"}).node("LayerNormalization", {"s", "g"}, {"y"}).output("y");
        EXPECT_EQ(steps(b, {{"x", x}, {"z", z}}), 0);
    }
    {
        ModelBuilder b;  // a product adds it
        b.input("x", DType::f32, {"N", "3", "32"}).input("z", DType::f32, {"N", "3", "32"}).constant("g", row).constant("w", noise({32, 32}, 5));
        b.node("MatMul", {"x", "w"}, {"p"}).node("Add", {"p", "z"}, {"s"}).node("LayerNormalization", {"s", "g"}, {"y"}).output("y");
        EXPECT_EQ(steps(b, {{"x", x}, {"z", full}}), 0);
    }
    {
        ModelBuilder b;  // part of a program
        b.input("x", DType::f32, {"N", "3", "32"}).input("z", DType::f32, {"N", "3", "32"}).constant("g", row);
        b.node("Exp", {"x"}, {"e"}).node("Add", {"e", "z"}, {"s"}).node("LayerNormalization", {"s", "g"}, {"y"}).output("y");
        EXPECT_EQ(steps(b, {{"x", x}, {"z", full}}), 0);
    }
    {
        ModelBuilder b;  // parameters that follow from the sum
        b.input("x", DType::f32, {"N", "3", "32"}).input("z", DType::f32, {"N", "3", "32"}).constant("axes", ints({2}, {0, 1}));
        b.node("Add", {"x", "z"}, {"s"}).node("ReduceMax", {"s", "axes"}, {"g"}, {onnx::attribute_i("keepdims", 0)}).node("LayerNormalization", {"s", "g"}, {"y"}).output("y");
        EXPECT_EQ(steps(b, {{"x", x}, {"z", full}}), 0);
    }
    {
        ModelBuilder b;  // the same value twice, two normalizations of one sum, which is an output too
        b.input("x", DType::f32, {"N", "3", "32"}).constant("g", row).constant("h", noise({32}, 7));
        b.node("Softmax", {"x"}, {"a"}).node("Add", {"a", "a"}, {"s"}).node("LayerNormalization", {"s", "g"}, {"y"}).node("LayerNormalization", {"s", "h"}, {"w"}).output("y").output("w").output("s");
        EXPECT_EQ(steps(b, {{"x", x}}), 1);
    }
}
TEST_F(CudaEngine, SkipLayerNormalizationIsOneKernel) {
    for (const char* op : {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}) {
        ModelBuilder b;
        b.domain("com.microsoft", 1);
        b.input("x", DType::f32, {"B", "S", "32"}).input("z", DType::f32, {"B", "S", "32"}).constant("g", noise({32}, 2));
        b.node(op, {"x", "z", "g"}, {"y", "", "", "s"}, {}, "com.microsoft").output("y").output("s");
        Engine engine = b.model().compile(cuda_strict());
        EXPECT_EQ(steps_of(engine, "norm_skip.cuda"), 1) << engine.describe();
        EXPECT_EQ(steps_of(engine, "elementwise.cuda"), 0) << engine.describe();
        const std::vector<NamedTensor> in{{"x", noise({2, 5, 32}, 5)}, {"z", noise({2, 5, 32}, 6)}};
        auto got = engine.run(in);
        auto want = b.run(in, cpu());
        for (std::size_t o = 0; o < 2; ++o) expect_same(got[o].second, want[o]);
    }
}
// Weights that are packed when the kernel is made, at each run (an input), or taken as they are; f32 and half types without a cast.
TEST_F(CudaEngine, ConvolutionsOfEachTypeAndOrderOfWeights) {
    for (DType t : {DType::f32, DType::f16, DType::bf16})
        for (bool constant : {true, false}) {
            const auto value = [&](Shape s, int seed) {
                Tensor v = noise(std::move(s), seed);
                return t == DType::f32 ? v : as(v, t);
            };
            const auto pads = [](std::int64_t p) { return std::vector{onnx::attribute_ints("pads", {p, p, p, p})}; };
            ModelBuilder b;
            b.input("x", t, {"N", "16", "8", "6"}).constant("c", value({16}, 3)).constant("u", value({24, 16, 1, 1}, 4));
            if (constant) b.constant("w", value({16, 16, 3, 3}, 2));
            else b.input("w", t, {"16", "16", "3", "3"});
            b.node("Conv", {"x", "w", "c"}, {"z"}, pads(1)).node("Add", {"z", "x"}, {"s"}).node("Relu", {"s"}, {"a"}).node("Conv", {"a", "u"}, {"y"}, pads(0)).output("y");
            Engine engine = b.model().compile(cuda_strict());
            EXPECT_EQ(engine.describe().find("Cast"), std::string::npos) << engine.describe();
            EXPECT_EQ(steps_of(engine, "conv.cuda"), 2) << engine.describe();
            Session s(engine);
            for (std::int64_t n : {2, 1}) {
                std::vector<NamedTensor> in{{"x", value({n, 16, 8, 6}, static_cast<int>(n))}};
                if (!constant) in.push_back({"w", value({16, 16, 3, 3}, 2)});
                for (const auto& [name, v] : in) s.bind(name, v);
                s.run();
                const Tensor got = s.output("y"), want = b.run(in, cpu())[0];
                const double tolerance = t == DType::f32 ? 2e-5 : t == DType::f16 ? 2e-2 : 1.6e-1;
                expect_near(t == DType::f32 ? got : wide(got), t == DType::f32 ? want : wide(want), tolerance, tolerance);
            }
        }
}
TEST_F(CudaEngine, TheCallersDeviceChoiceStays) {
    int before = -1, after = -2;
    ASSERT_EQ(cudaGetDevice(&before), cudaSuccess);
    auto b = block();
    b.run({{"x", noise({3, 32})}}, cuda_strict());
    ASSERT_EQ(cudaGetDevice(&after), cudaSuccess);
    EXPECT_EQ(before, after);
}
TEST_F(CudaEngine, MissingDevicesAreNamed) {
    auto b = block();
    auto o = cuda_strict();
    o.device = "cuda:99";
    auto r = b.model().try_compile(o);
    ASSERT_FALSE(r.ok());
    EXPECT_NE(std::string(r.error().what()).find("'cuda:99' is not there"), std::string::npos) << r.error().what();
}
}  // namespace
