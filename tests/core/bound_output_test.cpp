// Outputs in the caller's memory: when the last step writes there itself, when it must not, and that the bits are the same.
#include <cmath>
#include <cstring>
#include <functional>

#include "../support/op_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

Tensor wave(quern::Shape shape, float step = 0.7f) {
    Tensor x(DType::f32, shape);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = std::sin(step * float(i) + 0.1f * float(i % 5));
    return x;
}
bool same_bits(const Tensor& a, const Tensor& b) { return a.dtype() == b.dtype() && a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0; }

/// `n` floats between others that nobody may write.
struct Fenced {
    std::vector<float> all;
    std::size_t n;
    explicit Fenced(std::int64_t count) : all(static_cast<std::size_t>(count) + 64, 77), n(static_cast<std::size_t>(count)) {}
    Tensor tensor(quern::Shape shape) { return Tensor::borrow(std::span<float>(all).subspan(32, n), std::move(shape)); }
    bool intact() const {
        for (std::size_t i = 0; i < 32; ++i)
            if (all[i] != 77 || all[n + 32 + i] != 77) return false;
        return true;
    }
    bool untouched() const { return std::all_of(all.begin(), all.end(), [](float f) { return f == 77; }); }
};

/// y = x + 1 by an operator of the application, which tells where its output was.
struct Watched {
    const void* wrote = nullptr;
    std::string bytes;
    quern::Model model(ModelBuilder& b) {
        auto op = std::make_shared<quern::CustomOp>();
        op->domain = "test.domain", op->name = "Watch";
        op->infer = [](quern::CustomInfer& n) { n.set(0, DType::f32, n.dims(0)); };
        op->run = [this](const quern::CustomRun& n) {
            auto x = n.input<float>(0);
            auto y = n.output<float>(0);
            wrote = y.data();
            for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] + 1;
        };
        bytes = b.bytes();
        quern::CustomOps l;
        l.push_back(op);
        return quern::Model::from_bytes(std::as_bytes(std::span<const char>(bytes)), {}, l);
    }
};
/// z = Reshape(Watch(Relu(x))).
ModelBuilder watched() {
    ModelBuilder b;
    b.domain("test.domain", 1).input("x", DType::f32, {"N", "4"}).constant("flat", ints({1}, {-1}));
    b.node("Relu", {"x"}, {"h"}).node("Watch", {"h"}, {"y"}, {}, "test.domain").node("Reshape", {"y", "flat"}, {"z"}).output("z");
    return b;
}

TEST(BoundOutput, TheLastStepWritesThere) {
    Watched w;
    auto b = watched();
    quern::Session s(w.model(b).compile({.threads = 1}));
    Fenced first(12), second(12);
    s.bind("x", wave({3, 4}));
    s.run();
    const Tensor want = s.output("z").clone();
    for (int turn = 0; turn < 4; ++turn) {  // other memory in each run
        Fenced& f = turn % 2 ? second : first;
        std::fill_n(f.all.begin() + 32, 12, 77.f);
        s.bind_output("z", f.tensor({12}));
        s.run();
        EXPECT_EQ(w.wrote, f.all.data() + 32);
        EXPECT_TRUE(same_bits(s.output("z"), want));
        EXPECT_EQ(s.output("z").raw(), w.wrote);
        EXPECT_TRUE(f.intact());
    }
    for (int again = 0; again < 2; ++again) {  // and the same
        s.run();
        EXPECT_EQ(w.wrote, second.all.data() + 32);
    }
    s.bind_output("z", Tensor());
    EXPECT_TRUE(same_bits(s.output("z"), want));
    std::fill(second.all.begin(), second.all.end(), 77.f);
    s.run();
    EXPECT_TRUE(second.untouched());
    EXPECT_TRUE(same_bits(s.output("z"), want));
}
TEST(BoundOutput, TensorsThatOwnTheirMemoryLiveAsLongAsTheOutput) {
    auto b = watched();
    Watched w;
    quern::Session s(w.model(b).compile({.threads = 1}));
    s.bind("x", wave({3, 4}));
    s.run();
    const Tensor want = s.output("z").clone();
    s.bind_output("z", Tensor(DType::f32, {12}));
    s.run();
    s.bind_output("z", Tensor());
    EXPECT_TRUE(same_bits(s.output("z"), want));  // sanitizers see memory that went
}
TEST(BoundOutput, WhereItMustNotTheOutputIsCopied) {
    auto b = watched();
    Watched w;
    quern::Session s(w.model(b).compile({.threads = 1}));
    const Tensor x = wave({3, 4});
    s.bind("x", x);
    s.run();
    const Tensor want = s.output("z").clone();
    // Not aligned to its elements.
    std::vector<std::byte> raw(49 + 64);
    const std::size_t odd = reinterpret_cast<std::uintptr_t>(raw.data()) % 4 == 0 ? 1 : 0;
    s.bind_output("z", Tensor::borrow(DType::f32, {12}, raw.data() + odd));
    s.run();
    EXPECT_EQ(std::memcmp(raw.data() + odd, want.raw(), 48), 0);
    EXPECT_FALSE(w.wrote >= raw.data() && w.wrote < raw.data() + raw.size());
    // The memory of the input, or some of it.
    for (int shift : {0, 3, 11, 12}) {
        std::vector<float> m(24);
        std::copy(x.data<float>().begin(), x.data<float>().end(), m.begin());
        s.bind("x", Tensor::borrow(std::span<float>(m).first(12), {3, 4}));
        s.bind_output("z", Tensor::borrow(std::span<float>(m).subspan(static_cast<std::size_t>(shift), 12), {12}));
        s.run();
        EXPECT_EQ(std::memcmp(m.data() + shift, want.raw(), 48), 0) << shift;
        EXPECT_EQ(w.wrote == m.data() + shift, shift == 12) << shift;  // beside it is apart
    }
    // An input that moves onto the output afterwards.
    Fenced f(12);
    s.bind("x", x);
    s.bind_output("z", f.tensor({12}));
    s.run();
    EXPECT_EQ(w.wrote, f.all.data() + 32);
    std::copy(x.data<float>().begin(), x.data<float>().end(), f.all.begin() + 32);
    s.bind("x", f.tensor({3, 4}));
    s.run();
    EXPECT_NE(w.wrote, f.all.data() + 32);
    EXPECT_EQ(std::memcmp(f.all.data() + 32, want.raw(), 48), 0);
    EXPECT_TRUE(f.intact());
}
TEST(BoundOutput, TheSessionsOwnMemoryIsNoTarget) {
    ModelBuilder b;
    b.domain("test.domain", 1).input("x", DType::f32, {"N", "4"}).node("Exp", {"x"}, {"e"}).node("Watch", {"e"}, {"y"}, {}, "test.domain").node("Sin", {"e"}, {"z"}).output("y").output("z");
    Watched w;
    quern::Session s(w.model(b).compile({.threads = 1}));
    s.bind("x", wave({3, 4}));
    s.run();
    const Tensor y = s.output("y").clone(), view = s.output("z");
    s.bind_output("y", view);  // where z is
    s.run();
    EXPECT_NE(w.wrote, view.raw());
    EXPECT_TRUE(same_bits(s.output("y"), y));
}
TEST(BoundOutput, OutputsThatOverlap) {
    ModelBuilder b;
    b.domain("test.domain", 1).input("x", DType::f32, {"N"}).node("Watch", {"x"}, {"y"}, {}, "test.domain").node("Neg", {"x"}, {"z"}).output("y").output("z");
    Watched w;
    quern::Session s(w.model(b).compile({.threads = 1}));
    std::vector<float> m(8);
    s.bind("x", floats({4}, {1, 2, 3, 4}));
    s.bind_output("y", Tensor::borrow(std::span<float>(m).first(4), {4}));
    s.bind_output("z", Tensor::borrow(std::span<float>(m).subspan(2, 4), {4}));  // the later output stays
    s.run();
    EXPECT_NE(w.wrote, m.data());
    EXPECT_EQ(m, (std::vector<float>{2, 3, -1, -2, -3, -4, 0, 0}));
    s.bind_output("z", Tensor::borrow(std::span<float>(m).subspan(4, 4), {4}));
    s.run();
    EXPECT_EQ(w.wrote, m.data());
    EXPECT_EQ(m, (std::vector<float>{2, 3, 4, 5, -1, -2, -3, -4}));
}
TEST(BoundOutput, AnotherShapeLeavesTheMemoryAlone) {
    auto b = watched();
    Watched w;
    quern::Session s(w.model(b).compile({.threads = 1}));
    Fenced f(12);
    s.bind("x", wave({3, 4}));
    s.bind_output("z", f.tensor({12}));
    s.run();
    std::fill(f.all.begin(), f.all.end(), 77.f);
    auto refused = [&] {
        auto r = s.try_run();
        EXPECT_FALSE(r.ok());
        if (!r.ok()) { EXPECT_EQ(r.error().code(), quern::ErrorCode::shape_mismatch) << r.error().what(); }
    };
    s.bind("x", wave({4, 4}));  // more than fits
    refused();
    EXPECT_TRUE(f.untouched());
    s.bind("x", wave({3, 4}));
    s.bind_output("z", Tensor::borrow(std::span<float>(f.all).subspan(32, 8), {8}));  // the same place, but less room
    refused();
    EXPECT_TRUE(f.untouched());
    s.bind_output("z", Tensor::borrow(std::span<float>(f.all).subspan(32, 12), {3, 4}));
    refused();
    EXPECT_TRUE(f.untouched());
    s.bind_output("z", f.tensor({12}));
    s.run();
    EXPECT_EQ(w.wrote, f.all.data() + 32);
    s.bind("x", wave({1, 4}));  // shapes come and go
    s.bind_output("z", Tensor::borrow(std::span<float>(f.all).subspan(32, 4), {4}));
    s.run();
    EXPECT_EQ(w.wrote, f.all.data() + 32);
    EXPECT_TRUE(f.intact());
}

/// Every output in the caller's memory gives the bits that it has without.
void same_either_way(ModelBuilder& b, const std::vector<quern::NamedTensor>& in) {
    for (int threads : {1, 3}) {
        auto engine = b.model().compile({.threads = threads});
        quern::Session plain(engine), bound(engine);
        for (auto& [name, t] : in) plain.bind(name, t), bound.bind(name, t);
        plain.run();
        std::vector<Fenced> fences;
        fences.reserve(engine.outputs().size());
        for (auto& o : engine.outputs()) {
            const Tensor& want = plain.output(o.name);
            if (want.dtype() != DType::f32) { bound.bind_output(o.name, Tensor(want.dtype(), want.shape())); continue; }
            fences.emplace_back(want.count());
            bound.bind_output(o.name, fences.back().tensor(want.shape()));
        }
        for (int turn = 0; turn < 3; ++turn) {
            bound.run();
            for (auto& o : engine.outputs()) EXPECT_TRUE(same_bits(bound.output(o.name), plain.output(o.name))) << o.name << " run " << turn;
            for (Fenced& f : fences) EXPECT_TRUE(f.intact());
        }
    }
}
TEST(BoundOutput, WhateverMakesIt) {
    {
        ModelBuilder b;  // a product, an output in the middle that others read, columns of a concatenation, one value twice
        b.input("x", DType::f32, {"N", "19"}).constant("w", wave({19, 33})).constant("v", wave({33, 7}, 0.3f));
        b.node("MatMul", {"x", "w"}, {"h"}).node("Relu", {"h"}, {"r"}).node("MatMul", {"r", "v"}, {"o"}).node("Softmax", {"o"}, {"p"}).node("Concat", {"p", "o", "r"}, {"c"}, {attribute_i("axis", 1)});
        b.node("Identity", {"p"}, {"p2"}).output("r").output("p").output("c").output("p2");
        same_either_way(b, {{"x", wave({5, 19}, 1.1f)}});
    }
    {
        ModelBuilder b;  // convolutions whose layout differs from the output's
        b.input("x", DType::f32, {"N", "3", "18", "18"}).constant("w", wave({16, 3, 3, 3})).constant("d", wave({16, 1, 3, 3}, 0.2f)).constant("u", wave({20, 16, 1, 1}, 0.9f));
        b.node("Conv", {"x", "w"}, {"c"}, {attribute_ints("pads", {1, 1, 1, 1})}).node("Relu", {"c"}, {"r"}).node("Conv", {"r", "d"}, {"e"}, {attribute_i("group", 16)}).node("Conv", {"e", "u"}, {"y"});
        b.node("GlobalAveragePool", {"y"}, {"g"}).node("Flatten", {"g"}, {"z"}).output("y").output("z");
        same_either_way(b, {{"x", wave({2, 3, 18, 18})}});
    }
    {
        ModelBuilder b;  // sizes that depend on data, an input and a constant as outputs, nothing at all, other types
        b.input("x", DType::f32, {"N"}).constant("k", floats({3}, {1, 2, 3})).constant("big", floats({}, {100})).node("NonZero", {"x"}, {"n"}).node("Transpose", {"n"}, {"nt"}).node("Cast", {"nt"}, {"f"}, {attribute_i("to", 1)}).node("Sqrt", {"f"}, {"q"});
        b.node("Identity", {"x"}, {"same"}).node("Identity", {"k"}, {"constant"}).node("Greater", {"x", "big"}, {"none"}).node("NonZero", {"none"}, {"empty"}).output("q").output("n").output("same").output("constant").output("none").output("empty");
        same_either_way(b, {{"x", floats({5}, {1, 0, 2, 0, 3})}});
    }
    {
        ModelBuilder b;  // a kernel that works in place
        b.input("x", DType::f32, {"N", "6"}).input("i", DType::i64, {"2", "1"}).input("u", DType::f32, {"2", "6"}).node("Exp", {"x"}, {"e"}).node("ScatterND", {"e", "i", "u"}, {"y"}).output("y");
        same_either_way(b, {{"x", wave({4, 6})}, {"i", ints({2, 1}, {3, 1})}, {"u", wave({2, 6}, 0.1f)}});
    }
}

}  // namespace
