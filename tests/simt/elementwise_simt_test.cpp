// kernels/elementwise/cuda.cu against double references.
#include <algorithm>

#include <quern/kernels/elementwise/cuda.hpp>

#include "device_test.hpp"

namespace {

using namespace device_test;
using namespace quern;
using ew::BinaryOp;
using ew::Code;
using ew::Program;
using ew::ProgramOperand;
using ew::Step;
using ew::UnaryOp;

Step load(int k) { return {.code = Code::load, .operand = static_cast<std::uint8_t>(k)}; }
Step keep(int k) { return {.code = Code::keep, .operand = static_cast<std::uint8_t>(ew::first_temp + k)}; }
Step unary(UnaryOp f, float alpha = 0, float beta = 0, float gamma = 0) {
    return {
        .code = Code::unary, .function = static_cast<std::uint8_t>(f), .alpha = alpha, .beta = beta, .gamma = gamma};
}
Step binary(BinaryOp f, int k) {
    return {.code = Code::binary, .function = static_cast<std::uint8_t>(f), .operand = static_cast<std::uint8_t>(k)};
}
Step constant(BinaryOp f, float v) {
    return {
        .code = Code::binary, .function = static_cast<std::uint8_t>(f), .operand = ew::constant_operand, .alpha = v};
}
Program program(std::initializer_list<Step> steps, int inputs, int temps = 0, bool whole = false) {
    Program p;
    for (Step s : steps) {
        s.whole = whole;
        p.add(s);
    }
    p.inputs = inputs;
    p.temps = temps;
    return p;
}
ProgramOperand operand(const void* p, DType t, std::vector<std::int64_t> strides) {
    ProgramOperand o{.data = p, .type = t};
    std::copy(strides.begin(), strides.end(), o.strides);
    return o;
}

class Elementwise : public DeviceTest {};

TEST_F(Elementwise, EveryRealFunctionOfOneTensor) {
    struct Case {
        UnaryOp op;
        std::function<double(double)> f;
        float alpha = 0, beta = 0, gamma = 0;
    };
    const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
    const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
    const std::vector<Case> cases = {
        {UnaryOp::abs, [](double x) { return std::fabs(x); }},
        {UnaryOp::acos, [](double x) { return std::acos(x); }},
        {UnaryOp::acosh, [](double x) { return std::acosh(x); }},
        {UnaryOp::asin, [](double x) { return std::asin(x); }},
        {UnaryOp::asinh, [](double x) { return std::asinh(x); }},
        {UnaryOp::atan, [](double x) { return std::atan(x); }},
        {UnaryOp::atanh, [](double x) { return std::atanh(x); }},
        {UnaryOp::ceil, [](double x) { return std::ceil(x); }},
        {UnaryOp::cos, [](double x) { return std::cos(x); }},
        {UnaryOp::cosh, [](double x) { return std::cosh(x); }},
        {UnaryOp::erf, [](double x) { return std::erf(x); }},
        {UnaryOp::exp, [](double x) { return std::exp(x); }},
        {UnaryOp::floor, [](double x) { return std::floor(x); }},
        {UnaryOp::log, [](double x) { return std::log(x); }},
        {UnaryOp::neg, [](double x) { return -x; }},
        {UnaryOp::reciprocal, [](double x) { return 1 / x; }},
        {UnaryOp::round, [](double x) { return std::nearbyint(x); }},
        {UnaryOp::sign, [](double x) { return (x > 0) - (x < 0); }},
        {UnaryOp::sin, [](double x) { return std::sin(x); }},
        {UnaryOp::sinh, [](double x) { return std::sinh(x); }},
        {UnaryOp::sqrt, [](double x) { return std::sqrt(x); }},
        {UnaryOp::tan, [](double x) { return std::tan(x); }},
        {UnaryOp::tanh, [](double x) { return std::tanh(x); }},
        {UnaryOp::sigmoid, sigmoid},
        {UnaryOp::relu, [](double x) { return x < 0 ? 0 : x; }},
        {UnaryOp::leaky_relu, [](double x) { return x < 0 ? 0.125 * x : x; }, 0.125f},
        {UnaryOp::elu, [](double x) { return x < 0 ? 0.5 * std::expm1(x) : x; }, 0.5f},
        {UnaryOp::selu, [](double x) { return 1.25 * (x <= 0 ? 1.5 * std::expm1(x) : x); }, 1.5f, 0, 1.25f},
        {UnaryOp::celu, [](double x) { return x < 0 ? 2 * std::expm1(x / 2) : x; }, 2},
        {UnaryOp::thresholded_relu, [](double x) { return x > 0.5 ? x : 0; }, 0.5f},
        {UnaryOp::hard_sigmoid, [](double x) { return std::clamp(0.25 * x + 0.5, 0.0, 1.0); }, 0.25f, 0.5f},
        {UnaryOp::hard_swish, [](double x) { return x * std::clamp(x / 6 + 0.5, 0.0, 1.0); }},
        {UnaryOp::softplus, softplus},
        {UnaryOp::softsign, [](double x) { return x / (1 + std::fabs(x)); }},
        {UnaryOp::mish, [=](double x) { return x * std::tanh(softplus(x)); }},
        {UnaryOp::gelu, [](double x) { return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5))); }},
        {UnaryOp::gelu_tanh,
         [](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }},
        {UnaryOp::swish, [=](double x) { return x * sigmoid(1.5 * x); }, 1.5f},
        {UnaryOp::shrink, [](double x) { return x < -0.5  ? x + 0.25
                                                : x > 0.5 ? x - 0.25
                                                          : 0; }, 0.5f, 0.25f},
        {UnaryOp::is_nan, [](double x) { return std::isnan(x); }},
        {UnaryOp::is_inf, [](double x) { return std::isinf(x) && x > 0; }, 1, 0},
        {UnaryOp::logical_not, [](double x) { return x == 0; }},
    };
    auto x = random_values(45, 2);
    x.insert(x.end(), {0.f, -0.f, 0.5f, 1.5f, -2.5f, 1e-20f, 20.f, -20.f, INFINITY, -INFINITY, NAN});
    const auto in = on_device(x);
    const auto n = static_cast<std::int64_t>(x.size());
    for (const Case& c : cases) {
        ASSERT_TRUE(ew::has_unary(c.op, false));
        SCOPED_TRACE(testing::Message() << "function " << static_cast<int>(c.op));
        std::vector<double> want;
        for (float v : x) want.push_back(c.f(static_cast<double>(v)));
        // The formulas of these give NaN at an infinity, and differ there.
        const bool wild = c.op == UnaryOp::mish || c.op == UnaryOp::swish || c.op == UnaryOp::gelu ||
                          c.op == UnaryOp::gelu_tanh || c.op == UnaryOp::softsign || c.op == UnaryOp::hard_swish ||
                          c.op == UnaryOp::sign || c.op == UnaryOp::hard_sigmoid;
        const auto p = program({load(0), unary(c.op, c.alpha, c.beta, c.gamma)}, 1);
        use_seed(1);
        run_each<float>(
            x.size(),
            [&](float* y) {
                const auto o = operand(in.data(), DType::f32, {1});
                return ew::cuda_run_program(p, &o, y, DType::f32, 1, &n, nullptr);
            },
            [&](std::vector<float> got) {
                if (wild) {
                    got.resize(got.size() - 3);
                    want.resize(got.size());
                }
                expect_close(got, want, 6e-7);
            });
    }
}

TEST_F(Elementwise, EveryFunctionOfTwoTensors) {
    struct Case {
        BinaryOp op;
        std::function<double(double, double)> f;
        std::function<std::int64_t(std::int64_t, std::int64_t)> whole;
    };
    using L = std::int64_t;
    const std::vector<Case> cases = {
        {BinaryOp::add, [](double a, double b) { return a + b; }, [](L a, L b) { return a + b; }},
        {BinaryOp::sub, [](double a, double b) { return a - b; }, [](L a, L b) { return a - b; }},
        {BinaryOp::mul, [](double a, double b) { return a * b; }, [](L a, L b) { return a * b; }},
        {BinaryOp::div, [](double a, double b) { return a / b; }, [](L a, L b) { return b ? a / b : 0; }},
        {BinaryOp::max, [](double a, double b) { return std::max(a, b); }, [](L a, L b) { return std::max(a, b); }},
        {BinaryOp::min, [](double a, double b) { return std::min(a, b); }, [](L a, L b) { return std::min(a, b); }},
        {BinaryOp::pow, [](double a, double b) { return std::pow(a, b); }, nullptr},
        {BinaryOp::fmod, [](double a, double b) { return std::fmod(a, b); }, [](L a, L b) { return b ? a % b : 0; }},
        {BinaryOp::mod,
         [](double a, double b) {
             const double r = std::fmod(a, b);
             return r != 0 && (r < 0) != (b < 0) ? r + b : r;
         },
         [](L a, L b) { return b ? ((a % b) + b) % b : 0; }},
        {BinaryOp::prelu, [](double a, double b) { return a < 0 ? a * b : a; },
         [](L a, L b) { return a < 0 ? a * b : a; }},
        {BinaryOp::logical_and, [](double a, double b) { return a && b; }, [](L a, L b) -> L { return a && b; }},
        {BinaryOp::logical_or, [](double a, double b) { return a || b; }, [](L a, L b) -> L { return a || b; }},
        {BinaryOp::logical_xor, [](double a, double b) { return !a != !b; }, [](L a, L b) -> L { return !a != !b; }},
        {BinaryOp::equal, [](double a, double b) { return a == b; }, [](L a, L b) -> L { return a == b; }},
        {BinaryOp::greater, [](double a, double b) { return a > b; }, [](L a, L b) -> L { return a > b; }},
        {BinaryOp::less, [](double a, double b) { return a < b; }, [](L a, L b) -> L { return a < b; }},
        {BinaryOp::greater_equal, [](double a, double b) { return a >= b; }, [](L a, L b) -> L { return a >= b; }},
        {BinaryOp::less_equal, [](double a, double b) { return a <= b; }, [](L a, L b) -> L { return a <= b; }},
        {BinaryOp::bit_and, nullptr, [](L a, L b) { return a & b; }},
        {BinaryOp::bit_or, nullptr, [](L a, L b) { return a | b; }},
        {BinaryOp::bit_xor, nullptr, [](L a, L b) { return a ^ b; }},
    };
    const std::vector<float> a = {1.5f, -2.f, 0.f, 3.f, -7.25f, 7.25f, 0.5f, 2.f},
                             b = {2.f, -2.f, 3.f, 3.f, 2.f, -2.f, 0.25f, -1.f};
    const std::vector<L> wa = {7, -7, 7, -7, 0, L(1) << 40, -1, 12}, wb = {3, 3, -3, -3, 5, 1 << 20, 0, 10};
    const auto da = on_device(a), db = on_device(b);
    const auto dwa = on_device(wa), dwb = on_device(wb);
    const std::int64_t n = 8;
    for (const Case& c : cases) {
        SCOPED_TRACE(testing::Message() << "function " << static_cast<int>(c.op));
        ASSERT_EQ(ew::has_binary(c.op, false), c.f != nullptr);
        ASSERT_EQ(ew::has_binary(c.op, true), c.whole != nullptr);
        if (c.f)
            for (int reversed = 0; reversed < 2; ++reversed) {
                auto p = program({load(reversed), binary(c.op, 1 - reversed)}, 2);
                if (reversed) p.step[1].code = Code::reversed;
                std::vector<double> want;
                for (int i = 0; i < 8; ++i) want.push_back(c.f(static_cast<double>(a[i]), static_cast<double>(b[i])));
                run_each<float>(
                    8,
                    [&](float* y) {
                        const ProgramOperand o[] = {operand(da.data(), DType::f32, {1}),
                                                    operand(db.data(), DType::f32, {1})};
                        return ew::cuda_run_program(p, o, y, DType::f32, 1, &n, nullptr);
                    },
                    [&](const std::vector<float>& got) { expect_close(got, want, 4e-7); });
            }
        if (!c.whole) continue;
        const auto p = program({load(0), binary(c.op, 1)}, 2, 0, true);
        std::vector<L> want;
        for (int i = 0; i < 8; ++i) want.push_back(c.whole(wa[i], wb[i]));
        run_each<L>(
            8,
            [&](L* y) {
                const ProgramOperand o[] = {operand(dwa.data(), DType::i64, {1}), operand(dwb.data(), DType::i64, {1})};
                return ew::cuda_run_program(p, o, y, DType::i64, 1, &n, nullptr);
            },
            [&](const std::vector<L>& got) { EXPECT_EQ(got, want); });
    }
}

// ((x * scale[c] + shift[c]) clamped to [0, 6]) * gate, with shapes [2, c, w]: broadcasting along channels and a
// scalar.
TEST_F(Elementwise, ChainWithBroadcastingAndTemporaries) {
    for (std::int64_t w : {1, 7, 8, 64, 129}) {
        const std::int64_t c = 5;
        SCOPED_TRACE(w);
        const auto x = random_values(static_cast<std::size_t>(2 * c * w), 4), scale = random_values(5),
                   shift = random_values(5, 1, 2), gate = random_values(1);
        const auto dx = on_device(x), ds = on_device(scale), dh = on_device(shift), dg = on_device(gate);
        const auto p = program({load(0), keep(0), binary(BinaryOp::mul, 1), binary(BinaryOp::add, 2),
                                constant(BinaryOp::max, 0), constant(BinaryOp::min, 6), binary(BinaryOp::mul, 3),
                                keep(1), load(ew::first_temp), binary(BinaryOp::sub, ew::first_temp + 1)},
                               4, 2);
        std::vector<double> want;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const std::size_t k = i / static_cast<std::size_t>(w) % 5;
            const double v = x[i];
            want.push_back(v - std::clamp(v * scale[k] + shift[k], 0.0, 6.0) * gate[0]);
        }
        const std::int64_t dims[] = {w, c, 2};
        run_each<float>(
            x.size(),
            [&](float* y) {
                const ProgramOperand o[] = {
                    operand(dx.data(), DType::f32, {1, w, w * c}), operand(ds.data(), DType::f32, {0, 1, 0}),
                    operand(dh.data(), DType::f32, {0, 1, 0}), operand(dg.data(), DType::f32, {0, 0, 0})};
                return ew::cuda_run_program(p, o, y, DType::f32, 3, dims, nullptr);
            },
            [&](const std::vector<float>& got) { expect_close(got, want, 1e-6); });
    }
}

TEST_F(Elementwise, SelectByABool) {
    for (std::int64_t n : {3, 64, 1030}) {
        std::vector<std::uint8_t> k;
        for (int i = 0; i < n; ++i) k.push_back(i % 3 == 0 ? 2 : 0);  // any byte but 0 is true
        const auto x = random_values(static_cast<std::size_t>(n));
        const auto dk = on_device(k);
        const auto dx = on_device(x);
        Program p =
            program({load(0), {.code = Code::select, .operand = 1, .other = ew::constant_operand, .alpha = -9}}, 2);
        std::vector<double> want;
        for (std::size_t i = 0; i < x.size(); ++i) want.push_back(k[i] ? x[i] : -9);
        run_each<float>(
            x.size(),
            [&](float* y) {
                const ProgramOperand o[] = {operand(dk.data(), DType::boolean, {1}),
                                            operand(dx.data(), DType::f32, {1})};
                return ew::cuda_run_program(p, o, y, DType::f32, 1, &n, nullptr);
            },
            [&](const std::vector<float>& got) { expect_close(got, want, 0); });
    }
}

TEST_F(Elementwise, CastsSaturateAndWrapAsTheCpuDoes) {
    const std::vector<float> x = {1.9f, -1.9f, 300.f, -300.f, 3e9f, -3e9f, 1e20f, NAN, INFINITY, -INFINITY, 0.f, 127.f};
    const auto dx = on_device(x);
    const std::int64_t n = 12;
    Program p;
    p.inputs = 1;
    p.add(load(0));
    p.add({.code = Code::to_whole, .whole = true, .alpha = 1});
    const std::vector<std::int64_t> want64 = {1,         -1, 300,       -300,      3000000000, -3000000000,
                                              INT64_MAX, 0,  INT64_MAX, INT64_MIN, 0,          127};
    const auto o = operand(dx.data(), DType::f32, {1});
    run_each<std::int64_t>(
        12, [&](std::int64_t* y) { return ew::cuda_run_program(p, &o, y, DType::i64, 1, &n, nullptr); },
        [&](const std::vector<std::int64_t>& got) { EXPECT_EQ(got, want64); });
    p.step[1].alpha = 0;
    const std::vector<std::int8_t> want8 = {1, -1, 44, -44, -1, 0, -1, 0, -1, 0, 0, 127};
    run_each<std::int8_t>(
        12, [&](std::int8_t* y) { return ew::cuda_run_program(p, &o, y, DType::i8, 1, &n, nullptr); },
        [&](const std::vector<std::int8_t>& got) { EXPECT_EQ(got, want8); });
    // To half and back through the integer 12.
    const std::vector<std::uint16_t> half = {0x4a00};
    const auto dh = on_device(half);
    Program q = program({load(0), constant(BinaryOp::mul, 2)}, 1);
    const std::int64_t one = 1;
    for (DType t : {DType::f16, DType::bf16}) {
        const auto h = operand(dh.data(), DType::f16, {0});
        run_each<std::uint16_t>(
            1, [&](std::uint16_t* y) { return ew::cuda_run_program(q, &h, y, t, 1, &one, nullptr); },
            [&](const std::vector<std::uint16_t>& got) { EXPECT_EQ(got[0], t == DType::f16 ? 0x4e00 : 0x41c0); });
    }
}

TEST_F(Elementwise, InPlaceAndRefusals) {
    const auto x = random_values(500);
    const auto p = program({load(0), unary(UnaryOp::exp)}, 1);
    std::int64_t n = 500;
    for (int seed = 0; seed < kSeeds; ++seed) {
        use_seed(seed);
        const auto dx = on_device(x);
        const auto o = operand(dx.data(), DType::f32, {1});
        ASSERT_EQ(ew::cuda_run_program(p, &o, dx.data(), DType::f32, 1, &n, nullptr), cudaSuccess);
        std::vector<double> want;
        for (float v : x) want.push_back(std::exp(static_cast<double>(v)));
        expect_close(dx.download(), want, 4e-7);
    }
    const auto o = operand(nullptr, DType::f64, {1});
    EXPECT_EQ(ew::cuda_run_program(p, &o, nullptr, DType::f32, 1, &n, nullptr), cudaErrorInvalidValue);
    n = 0;
    const auto e = operand(nullptr, DType::f32, {1});
    EXPECT_EQ(ew::cuda_run_program(p, &e, nullptr, DType::f32, 1, &n, nullptr), cudaSuccess);
    n = std::int64_t(1) << 31;
    EXPECT_EQ(ew::cuda_run_program(p, &e, nullptr, DType::f32, 1, &n, nullptr), cudaErrorInvalidValue);
}

}  // namespace
