// The vector tables of every instruction set against double, at values, edges and cuts.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <quern/kernels/vec/reference.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using vec::Unary;

std::vector<const vec::Table*> tables() {
    std::vector<const vec::Table*> all;
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
        if (isa <= best_isa()) all.push_back(&vec::table(isa));
    return all;
}
struct Range {
    Unary f;
    double lo, hi, relative, absolute;
};
const Range ranges[] = {
    {Unary::exp, -87, 88.5, 1.5e-7, 0},          {Unary::exp, -110, -87, 0, 1e-44},
    {Unary::log, 1e-40, 1e-30, 1.5e-7, 0},       {Unary::log, 1e-3, 100, 2.4e-7, 1e-9},
    {Unary::tanh, -12, 12, 3e-7, 0},             {Unary::sigmoid, -80, 80, 3e-7, 0},
    {Unary::erf, -6, 6, 2.5e-7, 0},              {Unary::gelu, -4, 8, 3e-6, 0},
    {Unary::gelu, -12, -4, 3e-5, 0},             {Unary::gelu_tanh, -4, 6, 3e-6, 0},
    {Unary::silu, -60, 60, 4e-7, 0},             {Unary::sqrt, 0, 1e6, 1e-7, 0},
    {Unary::rsqrt, 1e-6, 1e6, 2e-7, 0},          {Unary::reciprocal, 1e-6, 1e6, 1e-7, 0},
    {Unary::sin, -8000, 8000, 0, 1.5e-7},        {Unary::cos, -8000, 8000, 0, 1.5e-7},
    {Unary::sin, -1e9, 1e9, 0, 1.5e-7},          {Unary::abs, -9, 9, 0, 0},
    {Unary::neg, -9, 9, 0, 0},                   {Unary::relu, -9, 9, 0, 0},
    {Unary::hard_swish, -2.5, 9, 1e-6, 1e-7},    {Unary::floor, -1e7, 1e7, 0, 0},
    {Unary::ceil, -99, 99, 0, 0},                {Unary::square, -9, 9, 1e-7, 0},
    {Unary::softplus, -60, 60, 3e-7, 0},         {Unary::mish, -30, 30, 4e-7, 0},
};

TEST(VecUnary, FollowsDouble) {
    std::mt19937 rng(quern_test::seed());
    for (const vec::Table* t : tables())
        for (const Range& r : ranges) {
            SCOPED_TRACE(std::string(t->name) + " function " + std::to_string(static_cast<int>(r.f)));
            std::uniform_real_distribution<double> d(r.lo, r.hi);
            std::vector<float> x(4099), y(x.size());
            for (float& v : x) v = static_cast<float>(d(rng));
            t->unary_f32[static_cast<int>(r.f)](x.data(), y.data(), static_cast<std::int64_t>(x.size()));
            for (std::size_t i = 0; i < x.size(); ++i) {
                double e = vec::reference::unary(r.f, static_cast<double>(x[i]));
                ASSERT_NEAR(y[i], e, r.relative * std::abs(e) + r.absolute) << "at " << x[i];
            }
        }
}
TEST(VecUnary, SpecialValues) {
    float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN(), big = 3e38f;
    for (const vec::Table* t : tables()) {
        auto f = [&](Unary u, float x) {
            float y;
            t->unary_f32[static_cast<int>(u)](&x, &y, 1);
            return y;
        };
        for (int u = 0; u < static_cast<int>(Unary::count); ++u) EXPECT_TRUE(std::isnan(f(static_cast<Unary>(u), nan))) << u;
        EXPECT_EQ(f(Unary::exp, inf), inf);
        EXPECT_EQ(f(Unary::exp, big), inf);
        EXPECT_EQ(f(Unary::exp, -inf), 0);
        EXPECT_EQ(f(Unary::log, 0), -inf);
        EXPECT_EQ(f(Unary::log, inf), inf);
        EXPECT_TRUE(std::isnan(f(Unary::log, -1)));
        for (Unary u : {Unary::tanh, Unary::erf}) {
            EXPECT_EQ(f(u, inf), 1);
            EXPECT_EQ(f(u, -inf), -1);
            EXPECT_EQ(f(u, -big), -1);
        }
        EXPECT_EQ(f(Unary::sigmoid, inf), 1);
        EXPECT_EQ(f(Unary::sigmoid, -inf), 0);
        for (Unary u : {Unary::gelu, Unary::gelu_tanh, Unary::silu, Unary::softplus, Unary::mish, Unary::relu}) {
            EXPECT_EQ(f(u, inf), inf) << static_cast<int>(u);
            EXPECT_EQ(f(u, -inf), 0) << static_cast<int>(u);
        }
        EXPECT_TRUE(std::isnan(f(Unary::sin, inf)));
        EXPECT_EQ(f(Unary::floor, big), big);
        EXPECT_EQ(f(Unary::floor, -0.5f), -1);
        EXPECT_TRUE(std::signbit(f(Unary::ceil, -0.5f)));
    }
}
TEST(VecUnary, TheSameBitsHoweverCut) {
    std::mt19937 rng(quern_test::seed());
    std::uniform_real_distribution<float> d(0.01f, 5.f);
    std::vector<float> x(150), whole(150), cut(150);
    for (float& v : x) v = d(rng);
    for (const vec::Table* t : tables())
        for (int u = 0; u < static_cast<int>(Unary::count); ++u) {
            t->unary_f32[u](x.data(), whole.data(), 150);
            for (int i = 0; i < 150; i += 7) t->unary_f32[u](x.data() + i, cut.data() + i, std::min(7, 150 - i));
            EXPECT_EQ(whole, cut) << t->name << " " << u;
        }
}
TEST(VecBinary, FollowsTheOperators) {
    std::mt19937 rng(quern_test::seed());
    std::uniform_real_distribution<float> d(-3, 3);
    float nan = std::numeric_limits<float>::quiet_NaN();
    for (const vec::Table* t : tables())
        for (std::int64_t n : {0, 1, 5, 16, 33, 100}) {
            std::vector<float> x(n + 1), y(n + 1), z(n + 1, 7.f);
            for (float& v : x) v = d(rng);
            for (float& v : y) v = d(rng);
            if (n > 2) x[1] = nan, y[2] = nan;
            auto want = [](int op, float a, float b) {
                switch (op) {
                    case 0: return a + b;
                    case 1: return a - b;
                    case 2: return a * b;
                    case 3: return a / b;
                    case 4: return std::isnan(a) || a > b ? a : b;
                    default: return std::isnan(a) || a < b ? a : b;
                }
            };
            for (int op = 0; op < 6; ++op)
                for (bool scalar : {false, true}) {
                    if (scalar) t->binary_scalar_f32[op](x.data(), y[0], z.data(), n);
                    else t->binary_f32[op](x.data(), y.data(), z.data(), n);
                    for (std::int64_t i = 0; i < n; ++i) {
                        float w = want(op, x[i], scalar ? y[0] : y[i]);
                        if (std::isnan(w)) { EXPECT_TRUE(std::isnan(z[i])); }
                        else EXPECT_EQ(z[i], w) << t->name << " op " << op;
                    }
                    EXPECT_EQ(z[n], 7.f);
                }
        }
}
TEST(VecReduce, FollowsDouble) {
    std::mt19937 rng(quern_test::seed());
    std::uniform_real_distribution<float> d(-1.2f, 1.2f);
    for (const vec::Table* t : tables())
        for (std::int64_t n : {0, 1, 3, 16, 31, 64, 1000, 4097, 100003}) {
            std::vector<float> x(static_cast<std::size_t>(n));
            for (float& v : x) v = d(rng);
            double sum = 0, abs = 0, square = 0, prod = 1, top = -INFINITY, low = INFINITY;
            for (float f : x) {
                double v = static_cast<double>(f);
                sum += v, abs += std::abs(v), square += v * v, prod *= v, top = std::max(top, v), low = std::min(low, v);
            }
            auto r = [&](vec::Reduce op) { return static_cast<double>(t->reduce_f32[static_cast<int>(op)](x.data(), n)); };
            EXPECT_NEAR(r(vec::Reduce::sum), sum, 1e-6 * abs);
            EXPECT_NEAR(r(vec::Reduce::sum_abs), abs, 1e-6 * abs);
            EXPECT_NEAR(r(vec::Reduce::sum_square), square, 1e-6 * square);
            EXPECT_EQ(r(vec::Reduce::max), top);
            EXPECT_EQ(r(vec::Reduce::min), low);
            if (n <= 64) { EXPECT_NEAR(r(vec::Reduce::prod), prod, 1e-5 * std::abs(prod)); }
            if (n > 2) {
                x[n / 2] = NAN;
                EXPECT_TRUE(std::isnan(r(vec::Reduce::max)));
                EXPECT_TRUE(std::isnan(r(vec::Reduce::min)));
            }
        }
}
TEST(VecNorm, FollowsDouble) {
    std::mt19937 rng(quern_test::seed());
    std::uniform_real_distribution<float> d(2, 5);
    for (const vec::Table* t : tables())
        for (std::int64_t n : {1, 7, 16, 45, 768})
            for (bool rms : {false, true}) {
                std::vector<float> x(n), s(n), b(n), y(n + 1, 9.f);
                for (auto* v : {&x, &s, &b})
                    for (float& f : *v) f = d(rng);
                float mean_out, inv_out;
                t->norm_f32(x.data(), s.data(), b.data(), y.data(), n, 1e-5f, rms, &mean_out, &inv_out);
                double mean = 0, var = 0;
                for (float f : x) mean += static_cast<double>(f) / static_cast<double>(n);
                if (rms) mean = 0;
                for (float f : x) var += (static_cast<double>(f) - mean) * (static_cast<double>(f) - mean) / static_cast<double>(n);
                double inv = 1 / std::sqrt(var + 1e-5);
                for (std::int64_t i = 0; i < n; ++i)
                    EXPECT_NEAR(y[i], (static_cast<double>(x[i]) - mean) * inv * static_cast<double>(s[i]) + static_cast<double>(b[i]), n == 1 ? 2e-2 : 2e-4);
                EXPECT_NEAR(mean_out, mean, 1e-5);
                EXPECT_EQ(y[n], 9.f);
            }
}
TEST(VecQuantize, RoundsHalfToEvenAndSaturates) {
    for (const vec::Table* t : tables()) {
        std::vector<float> x{0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 1e30f, -1e30f, 300, -300, 127.4f, INFINITY, -INFINITY, 3, 4, 5, 6, 7, 8, 9};
        std::vector<std::uint8_t> u(x.size());
        std::vector<std::int8_t> s(x.size());
        std::vector<float> back(x.size());
        t->quantize_8(x.data(), 1.f, 10, true, u.data(), static_cast<std::int64_t>(x.size()));
        t->quantize_8(x.data(), 1.f, 0, false, s.data(), static_cast<std::int64_t>(x.size()));
        for (std::size_t i = 0; i < x.size(); ++i) {
            double r = std::nearbyint(std::clamp(static_cast<double>(x[i]), -1e6, 1e6));
            EXPECT_EQ(u[i], std::clamp(r + 10, 0.0, 255.0)) << x[i];
            EXPECT_EQ(s[i], std::clamp(r, -128.0, 127.0)) << x[i];
        }
        t->dequantize_8(s.data(), 0.5f, 3, false, back.data(), static_cast<std::int64_t>(x.size()));
        for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(back[i], static_cast<float>(s[i] - 3) * 0.5f);
    }
}
TEST(VecTable, CapIsRespected) {
    EXPECT_EQ(vec::table(Isa::baseline).isa, Isa::baseline);
    EXPECT_LE(vec::table(Isa::avx2).isa, Isa::avx2);
    EXPECT_EQ(vec::table(Isa::avx512).isa, best_isa());
}
}  // namespace
