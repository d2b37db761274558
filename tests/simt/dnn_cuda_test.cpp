// Convolutions by cuDNN and products by cuBLASLt in engines: by their twins on the emulated device (QUERN_DNN_TWIN is their folder), by the
// real libraries on a GPU.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstring>
#include <string>

#include <quern/kernels/cuda/libraries.hpp>
#include <quern/tensor/half.hpp>

#if defined(QUERN_CUDNN_LIBRARY)
#include "cudnn_offline.hpp"
#endif
#include "dnn_twin.hpp"
#include "support/op_test.hpp"

namespace {
using namespace quern;
using namespace quern_test;

#if defined(QUERN_DNN_TWIN)
const std::string folder = QUERN_DNN_TWIN;
#else
const std::string folder;
#endif

Tensor noise(Shape shape, int seed = 1) {
    Tensor t(DType::f32, std::move(shape));
    std::uint32_t x = static_cast<std::uint32_t>(seed) * 2654435761u + 1;
    for (float& v : t.data<float>()) x = x * 1664525u + 1013904223u, v = static_cast<float>(x >> 8) / 8388608.f - 1.f;
    return t;
}
Tensor converted(const Tensor& from, DType t) {
    if (t == DType::f32) return from;
    Tensor to(t, from.shape());
    for (std::int64_t i = 0; i < from.count(); ++i) {
        if (t == DType::f16) to.data<Half>()[i] = to_half(from.data<float>()[i]);
        else to.data<BFloat16>()[i] = to_bfloat16(from.data<float>()[i]);
    }
    return to;
}
Tensor widened(const Tensor& from) {
    if (from.dtype() == DType::f32) return from;
    Tensor to(DType::f32, from.shape());
    for (std::int64_t i = 0; i < from.count(); ++i) to.data<float>()[i] = from.dtype() == DType::f16 ? to_float(from.data<Half>()[i]) : to_float(from.data<BFloat16>()[i]);
    return to;
}

template <class Control>
class ByLibrary : public ::testing::Test {
protected:
    ByLibrary(const char* library, const char* panel, const char* kernel) : kernel_(std::string("by ") + kernel) {
        const std::string path = folder.empty() ? library : folder + "/" + library;
        library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library_ && !folder.empty()) control_ = reinterpret_cast<Control* (*)()>(dlsym(library_, panel))();
    }
    void SetUp() override {
        int n = 0;
        if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) GTEST_SKIP() << "no CUDA device";
        ASSERT_TRUE(library_ || folder.empty()) << dlerror();
        if (!library_) GTEST_SKIP() << "no such library";
        if (control_) *control_ = {};
    }
    void TearDown() override {
        if (library_) dlclose(library_);
    }
    Options options() {
        Options o;
        o.threads = 1;
        o.device = "cuda";
        o.strict_device = true;
        o.library_dirs = {folder};
        o.log = [this](LogLevel l, std::string_view line) {
            if (l == LogLevel::warning) warnings_.emplace_back(line);
        };
        return o;
    }
    /// Runs on the device three times (the later ones as recorded) and compares with the CPU.
    void expect_cpu(ModelBuilder& b, const Options& o, std::vector<std::pair<std::string, Tensor>> in, double relative, double absolute) {
        Engine engine = b.model().compile(o);
        ASSERT_NE(engine.describe().find(kernel_), std::string::npos) << engine.describe();
        Options cpu;
        cpu.threads = 1;
        Session want(b.model().compile(cpu)), got(engine);
        for (auto& [name, t] : in) want.bind(name, t), got.bind(name, t);
        want.run();
        for (int run = 0; run < 3; ++run) {
            got.run();
            expect_near(widened(got.output("y")), widened(want.output("y")), relative, absolute);
        }
    }
    Control* control_ = nullptr;
    std::vector<std::string> warnings_;

private:
    std::string kernel_;
    void* library_ = nullptr;
};

class Dnn : public ByLibrary<twin::Control> {
protected:
    Dnn() : ByLibrary("libcudnn.so.9", "quern_twin_control", "conv.cudnn") {}
    void TearDown() override {
        if (control_) { EXPECT_EQ(control_->descriptors, 0) << "descriptors were not given back"; }
        ByLibrary::TearDown();
    }
};

std::vector<onnx::Attribute> window(std::int64_t pad, std::int64_t stride, std::int64_t group = 1) {
    return {onnx::attribute_ints("pads", {pad, pad, pad, pad}), onnx::attribute_ints("strides", {stride, stride}), onnx::attribute_i("group", group)};
}

TEST_F(Dnn, BiasResidualAndReluAreInTheGraph) {
    ModelBuilder b;
    b.input("x", DType::f32, {"2", "6", "9", "7"}).input("r", DType::f32, {"2", "8", "5", "4"}).constant("w", noise({8, 6, 3, 3}, 2)).constant("c", noise({8}, 3));
    b.node("Conv", {"x", "w", "c"}, {"z"}, window(1, 2)).node("Add", {"z", "r"}, {"s"}).node("Relu", {"s"}, {"y"}).output("y");
    auto o = options();
    o.tf32 = true;  // small ones are worth it then
    expect_cpu(b, o, {{"x", noise({2, 6, 9, 7})}, {"r", noise({2, 8, 5, 4}, 4)}}, 2e-2, 2e-2);
    if (control_) {
        EXPECT_EQ(control_->executed, twin::tensor_cores);
        EXPECT_GT(control_->fused, 0);
    }
}
TEST_F(Dnn, OtherActivationsFollowIt) {
    for (const char* f : {"Sigmoid", "HardSwish", "Tanh", "LeakyRelu"}) {
        ModelBuilder b;
        b.input("x", DType::f32, {"N", "4", "6", "6"}).constant("w", noise({6, 4, 3, 3}, 2)).constant("c", noise({6}, 3));
        b.node("Conv", {"x", "w", "c"}, {"z"}, window(1, 1)).node(f, {"z"}, {"y"}).output("y");
        auto o = options();
        o.tf32 = true;
        expect_cpu(b, o, {{"x", noise({3, 4, 6, 6})}}, 2e-2, 2e-2);
    }
    if (control_) { EXPECT_GT(control_->fused, 0); }
}
TEST_F(Dnn, WhatItsGraphRefusesIsDoneBehindThePlainConvolution) {
    if (!control_) GTEST_SKIP() << "the twin can be told to refuse";
    control_->refuse = twin::Refuse::fused;
    ModelBuilder b;
    b.input("x", DType::f32, {"2", "6", "9", "7"}).input("r", DType::f32, {"2", "8", "9", "7"}).constant("w", noise({8, 3, 3, 3}, 2)).constant("c", noise({8}, 3));
    b.node("Conv", {"x", "w", "c"}, {"z"}, window(1, 1, 2)).node("Add", {"z", "r"}, {"s"}).node("Relu", {"s"}, {"y"}).output("y");
    auto o = options();
    o.tf32 = true;
    expect_cpu(b, o, {{"x", noise({2, 6, 9, 7})}, {"r", noise({2, 8, 9, 7}, 4)}}, 1e-4, 1e-5);
    EXPECT_GT(control_->runs, 0);
    EXPECT_EQ(control_->fused, 0);
}
TEST_F(Dnn, WithoutAnyPlanOurOwnKernelRuns) {
    if (!control_) GTEST_SKIP() << "the twin can be told to refuse";
    control_->refuse = twin::Refuse::everything;
    for (DType t : {DType::f32, DType::f16, DType::bf16})
        for (std::int64_t group : {1, 2, 6}) {
            SCOPED_TRACE(testing::Message() << dtype_name(t) << " in " << group << " groups");
            ModelBuilder b;
            b.input("x", t, {"2", "6", "9", "7"}).constant("w", converted(noise({12, 6 / group, 3, 3}, 2), t)).constant("c", converted(noise({12}, 3), t));
            b.node("Conv", {"x", "w", "c"}, {"z"}, window(1, 1, group)).node("Relu", {"z"}, {"y"}).output("y");
            auto o = options();
            o.tf32 = t == DType::f32;
            expect_cpu(b, o, {{"x", converted(noise({2, 6, 9, 7}), t)}}, 2e-2, 2e-2);
            EXPECT_EQ(b.model().compile(o).describe().find("Cast"), std::string::npos) << b.model().compile(o).describe();
        }
    EXPECT_EQ(control_->runs, 0);
}
TEST_F(Dnn, HalfTypesStayNarrow) {
    for (DType t : {DType::f16, DType::bf16}) {
        ModelBuilder b;
        b.input("x", t, {"N", "8", "9", "7"}).constant("w", converted(noise({8, 8, 3, 3}, 2), t)).constant("c", converted(noise({8}, 3), t));
        b.node("Conv", {"x", "w", "c"}, {"z"}, window(1, 1)).node("Relu", {"z"}, {"y"}).output("y");
        expect_cpu(b, options(), {{"x", converted(noise({2, 8, 9, 7}), t)}}, 2e-2, 2e-2);
        EXPECT_EQ(b.model().compile(options()).describe().find("Cast"), std::string::npos) << b.model().compile(options()).describe();
        if (control_) { EXPECT_EQ(control_->executed, twin::tensor_cores); }
    }
}
TEST_F(Dnn, LargeOnesOfF32GoThereWithoutTf32AndSmallOnesDoNot) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "64", "40", "40"}).constant("w", noise({64, 64, 3, 3}, 2)).constant("c", noise({64}, 3));
    b.node("Conv", {"x", "w", "c"}, {"z"}, window(1, 1)).node("Relu", {"z"}, {"y"}).output("y");
    expect_cpu(b, options(), {{"x", noise({18, 64, 40, 40})}}, 1e-4, 1e-3);
    if (control_) { EXPECT_EQ(control_->executed, twin::winograd); }
    if (!control_) return;
    auto o = options();
    o.winograd = false;
    Session s(b.model().compile(o));
    s.bind("x", noise({18, 64, 40, 40}));
    s.run();
    EXPECT_EQ(control_->executed, twin::plain);
    control_->runs = 0;
    s.bind("x", noise({1, 64, 40, 40}));
    s.run();
    EXPECT_EQ(control_->runs, 0);
}
TEST_F(Dnn, APlanThatDoesNotRunIsAWarningAndOurOwnKernel) {
    if (!control_) GTEST_SKIP() << "the twin can be told to refuse";
    for (DType t : {DType::f32, DType::f16})
        for (std::int64_t group : {1, 2, 6}) {
            if (t == DType::f32 && group == 6) continue;  // ours from the start
            SCOPED_TRACE(testing::Message() << dtype_name(t) << " in " << group << " groups");
            *control_ = {};
            control_->refuse = twin::Refuse::running;
            warnings_.clear();
            ModelBuilder b;
            b.input("x", t, {"N", "6", "9", "7"}).constant("w", converted(noise({12, 6 / group, 3, 3}, 2), t)).constant("c", converted(noise({12}, 3), t));
            b.node("Conv", {"x", "w", "c"}, {"z"}, window(1, 1, group)).node("Relu", {"z"}, {"y"}).output("y");
            auto o = options();
            o.tf32 = t == DType::f32;
            expect_cpu(b, o, {{"x", converted(noise({2, 6, 9, 7}), t)}}, 2e-2, 2e-2);
            EXPECT_EQ(control_->runs, 1) << "refused once, then left alone";
            ASSERT_EQ(warnings_.size(), 1u);
            EXPECT_NE(warnings_[0].find("conv.cudnn: running a plan failed"), std::string::npos) << warnings_[0];
            EXPECT_NE(warnings_[0].find("told to refuse"), std::string::npos) << warnings_[0];
        }
}

class Lt : public ByLibrary<twin::LtControl> {
protected:
    Lt() : ByLibrary(("libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR)).c_str(), "quern_lt_twin_control", "matmul.cublaslt") {}
    void TearDown() override {
        if (control_) { EXPECT_EQ(control_->objects, 0) << "descriptors were not given back"; }
        ByLibrary::TearDown();
    }
    /// y = relu?(x w + bias? + residual?) with m rows.
    void expect_product(std::int64_t m, DType t, bool bias, bool residual, bool relu) {
        SCOPED_TRACE(testing::Message() << m << " rows " << dtype_name(t) << (bias ? " bias" : "") << (residual ? " residual" : "") << (relu ? " relu" : ""));
        ModelBuilder b;
        b.input("x", t, {"N", "24"}).constant("w", converted(noise({24, 40}, 2), t)).node("MatMul", {"x", "w"}, {"p"});
        std::string last = "p";
        if (bias) b.constant("c", converted(noise({40}, 3), t)).node("Add", {last, "c"}, {"b"}), last = "b";
        if (residual) b.input("r", t, {"N", "40"}).node("Add", {last, "r"}, {"s"}), last = "s";
        if (relu) b.node("Relu", {last}, {"t"}), last = "t";
        b.node("Identity", {last}, {"y"}).output("y");
        std::vector<std::pair<std::string, Tensor>> in{{"x", converted(noise({m, 24}), t)}};
        if (residual) in.emplace_back("r", converted(noise({m, 40}, 4), t));
        const double close = t == DType::f32 ? 1e-5 : 2e-2;
        expect_cpu(b, options(), in, close, close);
    }
};
TEST_F(Lt, BiasResidualAndReluAreInItsEpilogue) {
    for (std::int64_t m : {1, 2, 33})
        for (DType t : {DType::f32, DType::f16, DType::bf16})
            for (int what = 0; what < 8; ++what) expect_product(m, t, what & 1, what & 2, what & 4);
    EXPECT_TRUE(warnings_.empty()) << warnings_[0];
    if (control_) {
        EXPECT_EQ(control_->refused, 0);
        EXPECT_GT(control_->runs, 0);
        EXPECT_FALSE(control_->address) << "an algorithm is chosen before there is an address";
    }
}
TEST_F(Lt, WhatItHasNoAlgorithmForOurOwnKernelComputes) {
    if (!control_) GTEST_SKIP() << "the twin can be told to refuse";
    control_->refuse = twin::Refuse::everything;
    expect_product(5, DType::f32, true, false, true);
    EXPECT_EQ(control_->runs, 0);
    EXPECT_TRUE(warnings_.empty());
}
TEST_F(Lt, ACallThatIsRefusedIsAWarningAndOurOwnKernel) {
    if (!control_) GTEST_SKIP() << "the twin can be told to refuse";
    control_->refuse = twin::Refuse::running;
    expect_product(5, DType::f32, true, true, true);
    EXPECT_EQ(control_->refused, 1) << "refused once, then left alone";
    ASSERT_EQ(warnings_.size(), 1u);
    EXPECT_EQ(warnings_[0], "matmul.cublaslt: cublasLtMatmul failed (status 7); matmul.cuda computes 5 x 24 x 40");
}

TEST(DnnLibrary, WhatIsNotThereOrDoesNotFitIsAReason) {
#if defined(QUERN_HAVE_CUDNN_HEADER)
    EXPECT_EQ(cuda::load_cudnn("/nowhere/libcudnn.so.9").refusal, "not found: /nowhere/libcudnn.so.9");
    EXPECT_EQ(cuda::load_cudnn("libm.so.6").refusal, "'libm.so.6' has no cudnnGetVersion");
#endif
}
#if defined(QUERN_CUDNN_LIBRARY)
// The real library plans without a device: its graphs, notes and heuristics are as kernels/cuda/cudnn_graph.hpp takes them.
TEST(DnnLibrary, PlansOfTheRealOneWithoutADevice) {
    const cuda::Cudnn dnn = cuda::load_cudnn(QUERN_CUDNN_LIBRARY);
    ASSERT_EQ(dnn.refusal, "");
    const cuda::DnnDescriptor device = device_properties(dnn, QUERN_DEVICE_PROPERTIES);
    ASSERT_TRUE(device.good()) << device.why;
    for (auto type : {CUDNN_DATA_FLOAT, CUDNN_DATA_HALF, CUDNN_DATA_BFLOAT16})
        for (bool last : {false, true})
            for (bool fused : {false, true}) {
                cuda::DnnConv c;
                c.type = type, c.last = last, c.bias = c.residual = c.relu = fused;
                c.x = {32, 128, 28, 28}, c.w = {128, 128, 3, 3}, c.y = {32, 128, 28, 28};
                c.before = c.after = c.stride = c.dilation = {1, 1};
                std::string why;
                EXPECT_TRUE(cuda::plan_convolution(dnn, nullptr, &device, c, {}, why)) << type << last << fused << ": " << why;
                c.y[2] = 27;
                EXPECT_FALSE(cuda::plan_convolution(dnn, nullptr, &device, c, {}, why));
                EXPECT_NE(why, "");
            }
}
#endif
}  // namespace
