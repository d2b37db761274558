// Element-wise nodes of a device become programs. An interpreter of programs in double says whether they still compute the same.
#include <cmath>
#include <map>

#include <quern/passes/program-inl.hpp>

#include "support/pass_test.hpp"

using namespace quern;

namespace {

class Nothing final : public Kernel {
public:
    const char* name() const noexcept override { return "elementwise.fake"; }
    void run(const Call&) const override {}
};
std::string refuse(const ew::Problem& p, const Target&) { return p.rank > ew::max_program_rank ? "rank" : ""; }
std::unique_ptr<Kernel> make(const ew::Problem&, const Target&) { return std::make_unique<Nothing>(); }
const Entry<ew::Problem> entry{"elementwise.fake", refuse, make};
const RankedEntry ranked[] = {{&entry, 1}};

double unary(const ew::Step& s, double x) {
    switch (static_cast<ew::UnaryOp>(s.function)) {
        case ew::UnaryOp::neg: return -x;
        case ew::UnaryOp::abs: return std::fabs(x);
        case ew::UnaryOp::relu: return std::max(x, 0.0);
        case ew::UnaryOp::exp: return std::exp(x);
        case ew::UnaryOp::sigmoid: return 1 / (1 + std::exp(-x));
        case ew::UnaryOp::tanh: return std::tanh(x);
        case ew::UnaryOp::sqrt: return std::sqrt(x);
        case ew::UnaryOp::logical_not: return x == 0;
        default: ADD_FAILURE() << "function " << int(s.function); return NAN;
    }
}
double binary(int f, double a, double b) {
    switch (static_cast<ew::BinaryOp>(f)) {
        case ew::BinaryOp::add: return a + b;
        case ew::BinaryOp::sub: return a - b;
        case ew::BinaryOp::mul: return a * b;
        case ew::BinaryOp::div: return a / b;
        case ew::BinaryOp::max: return std::max(a, b);
        case ew::BinaryOp::min: return std::min(a, b);
        case ew::BinaryOp::less: return a < b;
        case ew::BinaryOp::greater: return a > b;
        default: ADD_FAILURE() << "function " << f; return NAN;
    }
}

struct Built : quern_test::DeviceGraph {
    std::map<ValueId, double> given;

    Built() { backend.lists[static_cast<int>(Family::elementwise)] = ranked; }
    ValueId input(const char* name, std::vector<Dim> dims, DType t = DType::f32, double value = 0.75) {
        const ValueId v = DeviceGraph::input(name, t, std::move(dims));
        given[v] = value;
        return v;
    }
    ValueId number(float x) { return g.add_constant(g.fresh_name("c"), Tensor::from(std::span<const float>(&x, 1), Shape{})); }
    ValueId node(const char* op, std::vector<ValueId> in, DType to = DType::undefined) { return DeviceGraph::node(op, g.fresh_name(op), std::move(in), to); }
    bool run(std::vector<ValueId> outputs) {
        g.outputs = std::move(outputs);
        for (std::size_t i = 0; i < g.outputs.size(); ++i) g.output_names.push_back("y" + std::to_string(i));
        return DeviceGraph::run(passes_detail::programs);
    }
    const Node& only() const {
        EXPECT_EQ(count("Program"), 1);
        for (auto& n : g.nodes)
            if (n.op) return n;
        return g.nodes[0];
    }
    /// What the graph, all of whose nodes are programs, gives where every element of an input is `given`.
    double value(ValueId v) const {
        if (auto it = given.find(v); it != given.end()) return it->second;
        if (g.fact(v).is_const()) return static_cast<double>(g.fact(v).value.aligned().data<float>()[0]);
        const Node* n = g.producer(v);
        const ew::Program p = ops_program::program(n->attrs, static_cast<int>(n->in.size()));
        double a = NAN, temps[ew::max_program_temps] = {NAN, NAN, NAN, NAN};
        for (int i = 0; i < p.steps; ++i) {
            const ew::Step& s = p.step[i];
            const auto read = [&](std::uint8_t o) {
                if (o == ew::constant_operand) return s.whole ? static_cast<double>(s.constant) : static_cast<double>(s.alpha);
                return o >= ew::first_temp ? temps[o - ew::first_temp] : value(n->in[o]);
            };
            switch (s.code) {
                case ew::Code::load: a = read(s.operand); break;
                case ew::Code::keep: temps[s.operand - ew::first_temp] = a; break;
                case ew::Code::unary: a = unary(s, a); break;
                case ew::Code::binary: a = binary(s.function, a, read(s.operand)); break;
                case ew::Code::reversed: a = binary(s.function, read(s.operand), a); break;
                case ew::Code::select: a = a != 0 ? read(s.operand) : read(s.other); break;
                case ew::Code::to_whole: a = std::trunc(a); break;
                case ew::Code::to_real: break;
            }
        }
        return a;
    }
};

TEST(Programs, ChainsOfAnyLengthWithinTheLimits) {
    Built b;
    ValueId x = b.input("x", {Dim(2), Dim(8)});
    ValueId v = x;
    double want = 0.75;
    for (int i = 0; i < 30; ++i) {
        v = b.node("Mul", {b.number(1.5f), v});  // the constant on the left, as a load
        v = b.node("Tanh", {v});
        want = std::tanh(1.5 * want);
    }
    ASSERT_TRUE(b.run({v}));
    EXPECT_EQ(b.count("Mul") + b.count("Tanh"), 0);
    EXPECT_EQ(b.count("Program"), 3);  // 60 steps and a load each
    EXPECT_NEAR(b.value(b.g.outputs[0]), want, 1e-12);
}
TEST(Programs, SubtractionAndDivisionKeepTheirSides) {
    for (int side = 0; side < 4; ++side) {
        SCOPED_TRACE(side);
        Built b;
        ValueId x = b.input("x", {Dim::symbol("N"), Dim(8)}), y = b.input("y", {Dim(8)}, DType::f32, 0.3);
        ValueId e = b.node("Exp", {x});
        const char* op = side / 2 ? "Div" : "Sub";
        ValueId z = side % 2 ? b.node(op, {y, e}) : b.node(op, {e, y});
        ASSERT_TRUE(b.run({z}));
        const double l = side % 2 ? 0.3 : std::exp(0.75), r = side % 2 ? std::exp(0.75) : 0.3;
        EXPECT_NEAR(b.value(z), side / 2 ? l / r : l - r, 1e-12);
        EXPECT_EQ(b.only().in.size(), 2u);
        EXPECT_EQ(ops_program::program(b.only().attrs, 2).temps, 0);
        EXPECT_EQ(b.g.fact(z).rank(), 2);
    }
}
// x * sigmoid(x) - relu(x * sigmoid(x)): one value read by two nodes that meet again.
TEST(Programs, WhatIsReadTwiceIsKept) {
    Built b;
    ValueId x = b.input("x", {Dim(4), Dim(8)});
    ValueId m = b.node("Mul", {x, b.node("Sigmoid", {x})});
    ValueId y = b.node("Sub", {b.node("Neg", {m}), b.node("Relu", {m})});
    ASSERT_TRUE(b.run({y}));
    EXPECT_EQ(b.only().in, std::vector<ValueId>{x});
    const double want = 0.75 / (1 + std::exp(-0.75));
    EXPECT_NEAR(b.value(y), -want - want, 1e-12);
    Built squared;
    ValueId s = squared.input("x", {Dim(4)});
    ValueId e = squared.node("Exp", {s});
    ASSERT_TRUE(squared.run({squared.node("Mul", {e, e})}));
    EXPECT_NEAR(squared.value(squared.g.outputs[0]), std::exp(1.5), 1e-12);
    EXPECT_EQ(squared.only().in.size(), 1u);
}
TEST(Programs, ChoiceAndTypes) {
    Built b;
    ValueId x = b.input("x", {Dim(4), Dim(8)}), y = b.input("y", {Dim(4), Dim(8)}, DType::f16, -0.5);
    ValueId wide = b.node("Cast", {y}, DType::f32);
    ValueId c = b.node("Not", {b.node("Less", {x, wide})});
    ValueId z = b.node("Cast", {b.node("Where", {c, b.node("Exp", {wide}), x})}, DType::bf16);
    ASSERT_TRUE(b.run({z}));
    EXPECT_NEAR(b.value(z), std::exp(-0.5), 1e-12);
    EXPECT_EQ(b.g.fact(z).dtype, DType::bf16);
    EXPECT_EQ(b.only().in.size(), 2u);
}
TEST(Programs, IntegersOf64BitsFollow) {
    Built b;
    ValueId x = b.input("x", {Dim(4), Dim(8)}, DType::f32, 3.7);
    ValueId i = b.node("Cast", {x}, DType::i64);
    ValueId y = b.node("Cast", {b.node("Add", {i, i})}, DType::f32);
    ASSERT_TRUE(b.run({b.node("Exp", {y})}));
    EXPECT_NEAR(b.value(b.g.outputs[0]), std::exp(6.0), 1e-9);
    b.only();
}
TEST(Programs, WhatMustStay) {
    for (int kind = 0; kind < 7; ++kind) {
        SCOPED_TRACE(kind);
        Built b;
        ValueId x = b.input("x", {Dim(4), Dim(8)});
        ValueId e = b.node("Exp", {x}), z = no_value;
        std::vector<ValueId> outputs;
        if (kind == 0) outputs = {b.node("Neg", {e}), e};                                                 // an output itself
        if (kind == 1) outputs = {b.node("Neg", {e}), b.node("Softmax", {e})};                            // read by another node
        if (kind == 2) outputs = {b.node("Add", {b.input("w", {Dim(3), Dim(4), Dim(8)}), e})};           // would be computed three times
        if (kind == 3) outputs = {b.node("Cast", {b.node("Cast", {x}, DType::i32)}, DType::f32)};         // wraps
        if (kind == 4) outputs = {b.node("Cast", {b.node("Cast", {x}, DType::boolean)}, DType::f32)};     // becomes 0 or 1
        if (kind == 5) z = b.node("Neg", {e}), b.g.producer(e)->device = Device::cpu, outputs = {z};      // on the host
        if (kind == 6) {                                                                                   // a constant that gives the result its rank
            const float one[] = {1};
            outputs = {b.node("Neg", {b.node("Mul", {x, b.g.add_constant("k", Tensor::from(std::span<const float>(one), Shape{1, 1, 1}))})})};
        }
        EXPECT_FALSE(b.run(outputs));
        EXPECT_EQ(b.count("Program"), 0);
    }
}
TEST(Programs, HostileAttributesAreRefused) {
    const auto program = [](std::vector<std::int64_t> steps, int inputs = 1) {
        Attrs a;
        a.set("params", std::vector<float>(steps.size() / 2));
        a.set("steps", std::move(steps));
        return guarded([&] { return ops_program::program(a, inputs); });
    };
    EXPECT_TRUE(program({0, 0, 0, 0, 0, 0}));
    EXPECT_FALSE(program({}));
    EXPECT_FALSE(program({0, 0, 0, 0, 0}));
    EXPECT_FALSE(program({0, 0, 0, 0, 0, 0}, 9));
    EXPECT_FALSE(program({8, 0, 0, 0, 0, 0}));                                       // no code
    EXPECT_FALSE(program({0, 0, 1, 0, 0, 0}));                                       // no such input
    EXPECT_FALSE(program({1, 0, 12, 0, 0, 0}));                                      // no such temporary
    EXPECT_FALSE(program({0, 0, -1, 0, 0, 0}));
    EXPECT_FALSE(program({2, 200, 0, 0, 0, 0}));                                     // no function
    EXPECT_FALSE(program({2, static_cast<std::int64_t>(ew::UnaryOp::exp), 0, 0, 1, 0}));  // none of integers
    EXPECT_FALSE(program({3, static_cast<std::int64_t>(ew::BinaryOp::shift_left), 0, 0, 1, 0}));
    EXPECT_FALSE(program({5, 0, 0, 255, 0, 0}));                                     // a constant to choose
    EXPECT_FALSE(program({0, 0, 0, 0, 2, 0}));
    EXPECT_FALSE(program(std::vector<std::int64_t>(6 * 25, 0)));
}

}  // namespace
