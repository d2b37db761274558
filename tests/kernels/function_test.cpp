// The function tables of every instruction set against double, over all of the floats.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <quern/kernels/vec/functions.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using vec::Function;
constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();

std::vector<const vec::FunctionTable*> function_tables() {
    std::vector<const vec::FunctionTable*> all;
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
        if (isa <= best_isa()) all.push_back(&vec::function_table(isa));
    return all;
}
/// How many units in the last place y is from e; 0 where both are the same special value.
double distance(float y, double e) {
    const auto f = static_cast<float>(e);
    if (std::isnan(e)) return std::isnan(y) ? 0 : 1e9;
    if (std::isinf(f)) return y == f ? 0 : std::abs(y) == std::numeric_limits<float>::max() && std::signbit(y) == std::signbit(f) ? 0.6 : 1e9;
    if (!std::isfinite(y)) return 1e9;
    int exponent = 0;
    std::frexp(f, &exponent);
    return std::abs(static_cast<double>(y) - e) / std::ldexp(1.0, std::max(exponent - 24, -149));
}
double reference(Function f, double x, const vec::Parameters& p) {
    const double a = static_cast<double>(p.alpha), b = static_cast<double>(p.beta), c = static_cast<double>(p.gamma);
    switch (f) {
        case Function::acos: return std::acos(x);
        case Function::acosh: return std::acosh(x);
        case Function::asin: return std::asin(x);
        case Function::asinh: return std::asinh(x);
        case Function::atan: return std::atan(x);
        case Function::atanh: return std::atanh(x);
        case Function::tan: return std::tan(x);
        case Function::sinh: return std::sinh(x);
        case Function::cosh: return std::cosh(x);
        case Function::round: return std::nearbyint(x);
        case Function::sign: return std::isnan(x) ? x : static_cast<double>(x > 0) - static_cast<double>(x < 0);
        case Function::softsign: return x / (1 + std::abs(x));
        case Function::elu: return x < 0 ? a * std::expm1(x) : x;
        case Function::selu: return c * (x <= 0 ? a * std::expm1(x) : x);
        case Function::celu: return x < 0 ? a * std::expm1(x / a) : x;
        case Function::thresholded_relu: return x > a ? x : 0;
        case Function::shrink: return x < -a ? x + b : x > a ? x - b : 0;
        case Function::swish: return x / (1 + std::exp(-a * x));
        case Function::count: break;
    }
    return 0;
}
TEST(Functions, AllOfTheFloats) {
    std::vector<float> x, y;
    for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 30011) {
        const auto b = static_cast<std::uint32_t>(bits);
        float v = 0;
        std::memcpy(&v, &b, 4);
        x.push_back(v);
    }
    for (float v : {0.0f, -0.0f, 1.0f, -1.0f, 0.5f, -0.5f, 2.0f, inf, -inf, nan, 1.0000001f, 0.99999994f, 89.0f, -89.0f, 100000.0f, 1e38f}) x.push_back(v);
    for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<float>(i) / 997.0f);  // where the functions live
    y.resize(x.size());
    for (const vec::FunctionTable* t : function_tables())
        for (int f = 0; f < static_cast<int>(Function::count); ++f) {
            const auto id = static_cast<Function>(f);
            const vec::Parameters p = id == Function::shrink ? vec::Parameters{0.75f, 0.25f, 0} : vec::Parameters{1.5f, 0, 1.25f};
            const double most = id <= Function::cosh ? 0.51 : id >= Function::elu && id <= Function::celu ? 3 : id == Function::swish ? 4 : id == Function::softsign ? 1.51 : 0.5;
            t->unary_f32[f](x.data(), y.data(), static_cast<std::int64_t>(x.size()), p);
            for (std::size_t i = 0; i < x.size(); ++i) {
                if (id == Function::swish && !(std::abs(x[i]) < 57)) continue;  // its limits are below
                const double e = reference(id, static_cast<double>(x[i]), p);
                ASSERT_LE(distance(y[i], e), most + (id == Function::swish ? 1.5 * std::abs(static_cast<double>(x[i])) : 0)) << "function " << f << " at " << x[i] << ": " << y[i] << ", not " << e;
            }
        }
}
TEST(Functions, EdgesAndPlaces) {
    const float zero[3] = {0.0f, -0.0f, -inf};
    for (const vec::FunctionTable* t : function_tables()) {
        auto f = [&](Function id, float v) {
            float y = 0;
            t->unary_f32[static_cast<int>(id)](&v, &y, 1, {1, 0, 1});
            return y;
        };
        for (Function id : {Function::asin, Function::asinh, Function::atan, Function::atanh, Function::tan, Function::sinh, Function::round}) {
            EXPECT_EQ(f(id, zero[0]), 0);
            EXPECT_TRUE(std::signbit(f(id, zero[1]))) << static_cast<int>(id);
        }
        EXPECT_EQ(f(Function::swish, -inf), 0);
        EXPECT_EQ(f(Function::swish, inf), inf);
        EXPECT_TRUE(std::isnan(f(Function::swish, nan)));
        // every length and place, nothing written behind
        for (std::int64_t n = 0; n < 40; ++n) {
            std::vector<float> x(41, 0.25f), y(41, 7);
            t->unary_f32[static_cast<int>(Function::atan)](x.data(), y.data(), n, {});
            for (std::int64_t i = 0; i < 41; ++i) ASSERT_EQ(y[static_cast<std::size_t>(i)], i < n ? std::atan(0.25f) : 7);
        }
        for (std::int64_t n : {1, 5, 16, 63, 64, 65, 200})
            for (std::int64_t a : {std::int64_t{0}, n / 3, n - 1})
                for (float v : {3.0f, nan}) {
                    std::vector<float> x(static_cast<std::size_t>(n), 1.0f);
                    EXPECT_EQ(t->find_f32(x.data(), n, v, false), -1);
                    x[static_cast<std::size_t>(a)] = v;
                    x[static_cast<std::size_t>(n - 1)] = v;
                    EXPECT_EQ(t->find_f32(x.data(), n, v, false), a);
                    EXPECT_EQ(t->find_f32(x.data(), n, v, true), n - 1);
                }
    }
}
TEST(Functions, PowerFollowsC) {
    std::vector<float> x, y;
    const float special[] = {0.0f, -0.0f, 1, -1, 2, -2, 3, -3, 0.5f, -0.5f, 1.0000001f, 0.99999994f, 1e-40f, -1e-40f, 1e38f, -1e38f, 16777217.0f, 16777215.0f, -16777215.0f, 3e10f, inf, -inf, nan};
    for (float a : special)
        for (float b : special) x.push_back(a), y.push_back(b);
    std::uint32_t state = 12345;
    auto next = [&] {
        state = state * 1664525u + 1013904223u;
        return static_cast<float>(state >> 8) / 16777216.0f;
    };
    for (int i = 0; i < 200000; ++i) {
        x.push_back(std::exp((next() - 0.5f) * 40));
        y.push_back((next() - 0.5f) * (i % 2 ? 8.0f : 100.0f));
        if (i % 5 == 0) x.back() = -x.back(), y.back() = std::round(y.back());
    }
    std::vector<float> z(x.size());
    for (const vec::FunctionTable* t : function_tables()) {
        t->pow_f32(x.data(), 1, y.data(), 1, z.data(), static_cast<std::int64_t>(x.size()));
        for (std::size_t i = 0; i < x.size(); ++i)
            ASSERT_LE(distance(z[i], std::pow(static_cast<double>(x[i]), static_cast<double>(y[i]))), 0.51 + (std::isfinite(x[i]) && std::isfinite(y[i]) ? 0 : 1)) << x[i] << '^' << y[i] << ": " << z[i];
        for (std::int64_t n : {1, 7, 16, 33}) {
            float b = 1.7f, out[34] = {};
            t->pow_f32(x.data() + 600, 1, &b, 0, out, n);
            for (std::int64_t i = 0; i < n; ++i) ASSERT_LE(distance(out[i], std::pow(static_cast<double>(x[static_cast<std::size_t>(600 + i)]), static_cast<double>(b))), 0.51);
            t->pow_f32(&b, 0, y.data() + 600, 1, out, n);
            for (std::int64_t i = 0; i < n; ++i) ASSERT_LE(distance(out[i], std::pow(static_cast<double>(b), static_cast<double>(y[static_cast<std::size_t>(600 + i)]))), 0.51);
            ASSERT_EQ(out[33], 0);
        }
    }
}
}  // namespace
