// Half types on a device take back the promotion to f32.
#include <quern/kernels/matmul/matmul.hpp>
#include <quern/kernels/softmax/softmax.hpp>
#include <quern/passes/narrow-inl.hpp>

#include "support/pass_test.hpp"

using namespace quern;

namespace {

class Product final : public Kernel {
public:
    const char* name() const noexcept override { return "matmul.fake"; }
    void run(const Call&) const override {}
};
std::string refuse(const matmul::Problem& p, const Target&) {
    return p.dtype == DType::f16 && p.k % 8 == 0 && p.n % 8 == 0 ? "" : "not this";
}
std::unique_ptr<Kernel> make(const matmul::Problem&, const Target&) { return std::make_unique<Product>(); }
const Entry<matmul::Problem> entry{"matmul.fake", refuse, make};
const RankedEntry ranked[] = {{&entry, 1}};
class Rows final : public Kernel {
public:
    const char* name() const noexcept override { return "softmax.fake"; }
    void run(const Call&) const override {}
};
std::string refuse_rows(const softmax::Problem& p, const Target&) { return p.log && p.dtype != DType::f32 ? "not this" : ""; }
std::unique_ptr<Kernel> make_rows(const softmax::Problem&, const Target&) { return std::make_unique<Rows>(); }
const Entry<softmax::Problem> rows{"softmax.fake", refuse_rows, make_rows};
const RankedEntry ranked_rows[] = {{&rows, 1}};

struct Built : quern_test::DeviceGraph {
    Built() {
        backend.lists[static_cast<int>(Family::matmul)] = ranked;
        backend.lists[static_cast<int>(Family::softmax)] = ranked_rows;
    }
    ValueId weights(float step, std::int64_t n) {
        Tensor t(DType::f32, {8, n});
        for (std::int64_t i = 0; i < t.count(); ++i) t.data<float>()[static_cast<std::size_t>(i)] = step * static_cast<float>(i % 16);
        return g.add_constant("w", t);
    }
    /// As promotion leaves a node whose result was of half type.
    ValueId meant(const char* op, const char* name, std::vector<ValueId> in) {
        ValueId v = node(op, name, std::move(in));
        g.producer(v)->attrs.set(passes_detail::narrow_type, static_cast<std::int64_t>(DType::f16));
        return v;
    }
    bool run() { return DeviceGraph::run(passes_detail::narrow); }
};

TEST(Narrow, ProductOfHalvesBetweenCasts) {
    Built b;
    ValueId x = b.input("x", DType::f16, {Dim(3), Dim(8)});
    ValueId y = b.node("MatMul", "wide", {b.node("Cast", "xw", {x}, DType::f32), b.weights(0.25f, 16)});
    b.g.outputs = {b.node("Cast", "y", {y}, DType::f16)};
    b.g.output_names = {"y"};
    ASSERT_TRUE(b.run());
    EXPECT_EQ(b.count("Cast"), 0);
    const Node* p = b.g.producer(b.g.outputs[0]);
    ASSERT_TRUE(p);
    EXPECT_STREQ(p->op->name, "MatMul");
    EXPECT_EQ(b.g.values[b.g.outputs[0]].name, "y");
    EXPECT_EQ(b.g.fact(b.g.outputs[0]).dtype, DType::f16);
    const Tensor w = b.g.fact(p->in[1]).value;
    ASSERT_EQ(w.dtype(), DType::f16);
    EXPECT_EQ(to_float(w.data<Half>()[5]), 1.25f);
}
TEST(Narrow, WideUsersGetACast) {
    Built b;
    ValueId x = b.input("x", DType::f16, {Dim(3), Dim(8)});
    ValueId y = b.node("MatMul", "wide", {b.node("Cast", "xw", {x}, DType::f32), b.weights(1, 16)});
    b.g.outputs = {b.node("Cast", "y", {y}, DType::f16), b.node("Softmax", "s", {y})};
    b.g.output_names = {"y", "s"};
    ASSERT_TRUE(b.run());
    EXPECT_EQ(b.count("Cast"), 1);
    EXPECT_EQ(b.g.fact(b.g.outputs[0]).dtype, DType::f16);
    EXPECT_EQ(b.g.fact(b.g.outputs[1]).dtype, DType::f32);
    EXPECT_TRUE(passes_detail::is_op(b.g.producer(b.g.producer(b.g.outputs[1])->in[0]), "Cast"));
}
// Rows -> product -> rows, wide in between: all are narrow again, and nothing is cast.
TEST(Narrow, WhatTheModelComputesInHalvesIsWholeChains) {
    Built b;
    ValueId x = b.input("x", DType::f16, {Dim(3), Dim(8)});
    ValueId a = b.meant("Softmax", "a", {b.node("Cast", "xw", {x}, DType::f32)});
    ValueId p = b.meant("MatMul", "p", {a, b.weights(0.25f, 16)});
    b.g.outputs = {b.node("Cast", "y", {b.meant("Softmax", "s", {p})}, DType::f16)};
    b.g.output_names = {"y"};
    ASSERT_TRUE(b.run());
    EXPECT_EQ(b.count("Cast"), 0);
    for (auto& n : b.g.nodes) {
        if (n.op) {
            EXPECT_EQ(b.g.fact(n.out[0]).dtype, DType::f16) << n.op->name;
        }
    }
    EXPECT_EQ(b.g.values[b.g.outputs[0]].name, "y");
}
// A product fetches a wide operand that was narrow in the model by a cast, which its other readers share; a node that only moves rows does not.
TEST(Narrow, ProductsFetchTheirOperands) {
    Built b;
    ValueId x = b.input("x", DType::f16, {Dim(3), Dim(8)});
    ValueId a = b.meant("LogSoftmax", "a", {b.node("Cast", "xw", {x}, DType::f32)});  // has no narrow kernel
    ValueId p = b.meant("MatMul", "p", {a, b.weights(0.25f, 16)}), q = b.meant("MatMul", "q", {a, b.weights(0.5f, 8)});
    ValueId s = b.meant("Softmax", "s", {a});
    b.g.outputs = {b.node("Cast", "y", {p}, DType::f16), b.node("Cast", "z", {q}, DType::f16), s};
    b.g.output_names = {"y", "z", "s"};
    ASSERT_TRUE(b.run());
    EXPECT_EQ(b.count("Cast"), 2);  // of x and of a
    EXPECT_EQ(b.g.fact(b.g.outputs[0]).dtype, DType::f16);
    EXPECT_EQ(b.g.producer(b.g.outputs[0])->in[0], b.g.producer(b.g.outputs[1])->in[0]);
    EXPECT_EQ(b.g.fact(b.g.outputs[2]).dtype, DType::f32);
}
// Rows that the model computes in f32 between casts of its own stay so.
TEST(Narrow, WhatTheModelComputesWideStaysWide) {
    Built b;
    ValueId x = b.input("x", DType::f16, {Dim(3), Dim(8)});
    b.g.outputs = {b.node("Cast", "y", {b.node("Softmax", "s", {b.node("Cast", "xw", {x}, DType::f32)})}, DType::f16)};
    b.g.output_names = {"y"};
    EXPECT_FALSE(b.run());
    EXPECT_EQ(b.count("Cast"), 2);
}
TEST(Narrow, WhatMustStay) {
    for (int kind = 0; kind < 4; ++kind) {
        SCOPED_TRACE(kind);
        Built b;
        ValueId x = b.input("x", DType::f16, {Dim(3), Dim(8)});
        ValueId xw = b.node("Cast", "xw", {x}, DType::f32);
        // Weights that f16 does not hold; sizes that the kernel refuses; a node of the host; no halves at all.
        ValueId w = b.weights(kind == 0 ? 0.1f : 1, kind == 1 ? 12 : 16);
        if (kind == 3) xw = b.input("f", DType::f32, {Dim(3), Dim(8)});
        ValueId y = b.node("MatMul", "wide", {xw, w});
        if (kind == 2) b.g.producer(y)->device = Device::cpu;
        b.g.outputs = {b.node("Cast", "y", {y}, DType::f16)};
        b.g.output_names = {"y"};
        EXPECT_FALSE(b.run());
        EXPECT_EQ(b.g.fact(b.g.producer(b.g.outputs[0])->in[0]).dtype, DType::f32);
    }
}

}  // namespace
