// Bodies of unary.hpp; part of the unit of the mathematical operators.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include <quern/base/saturate.hpp>
#include <quern/kernels/elementwise/unary.hpp>

QUERN_BEGIN
namespace ew {
namespace fn {

template <class T>
constexpr T wrap_neg(T x) noexcept {
    using U = std::make_unsigned_t<T>;
    return static_cast<T>(U{0} - static_cast<U>(x));
}
struct Abs {
    template <class T> static T f(T x, const UnaryParams&) noexcept {
        if constexpr (std::is_floating_point_v<T>) return std::fabs(x);
        else return x < T(0) ? wrap_neg(x) : x;
    }
};
struct Neg {
    template <class T> static T f(T x, const UnaryParams&) noexcept {
        if constexpr (std::is_floating_point_v<T>) return -x;
        else return wrap_neg(x);
    }
};
struct Sign {
    template <class T> static T f(T x, const UnaryParams&) noexcept {
        if (x != x) return x;
        return static_cast<T>(static_cast<int>(x > T(0)) - static_cast<int>(x < T(0)));
    }
};
struct Relu {
    template <class T> static T f(T x, const UnaryParams&) noexcept { return x < T(0) ? T(0) : x; }
};
struct BitNot {
    template <class T> static T f(T x, const UnaryParams&) noexcept { return static_cast<T>(~x); }
};
struct Not {
    template <class T> static bool f(T x, const UnaryParams&) noexcept { return x == T(0); }
};
struct IsNan {
    template <class T> static bool f(T x, const UnaryParams&) noexcept { return x != x; }
};
struct IsInf {
    template <class T> static bool f(T x, const UnaryParams& p) noexcept {
        constexpr T inf = std::numeric_limits<T>::infinity();
        return (p.alpha != 0 && x == inf) || (p.beta != 0 && x == -inf);
    }
};
#define QUERN_EW_STD(Name, expression)                                        \
    struct Name {                                                             \
        template <class T> static T f(T x, const UnaryParams& p) noexcept {   \
            (void)p;                                                          \
            return static_cast<T>(expression);                                \
        }                                                                     \
    };
QUERN_EW_STD(Acos, std::acos(x))
QUERN_EW_STD(Acosh, std::acosh(x))
QUERN_EW_STD(Asin, std::asin(x))
QUERN_EW_STD(Asinh, std::asinh(x))
QUERN_EW_STD(Atan, std::atan(x))
QUERN_EW_STD(Atanh, std::atanh(x))
QUERN_EW_STD(Ceil, std::ceil(x))
QUERN_EW_STD(Cos, std::cos(x))
QUERN_EW_STD(Cosh, std::cosh(x))
QUERN_EW_STD(Erf, std::erf(x))
QUERN_EW_STD(Exp, std::exp(x))
QUERN_EW_STD(Floor, std::floor(x))
QUERN_EW_STD(Log, std::log(x))
QUERN_EW_STD(Reciprocal, T(1) / x)
QUERN_EW_STD(Round, round_even(x))
QUERN_EW_STD(Sin, std::sin(x))
QUERN_EW_STD(Sinh, std::sinh(x))
QUERN_EW_STD(Sqrt, std::sqrt(x))
QUERN_EW_STD(Tan, std::tan(x))
QUERN_EW_STD(Tanh, std::tanh(x))
QUERN_EW_STD(Softsign, x / (T(1) + std::fabs(x)))
QUERN_EW_STD(LeakyRelu, x < T(0) ? static_cast<T>(p.alpha) * x : x)
QUERN_EW_STD(Elu, x < T(0) ? static_cast<T>(p.alpha) * std::expm1(x) : x)
QUERN_EW_STD(Selu, static_cast<T>(p.gamma) * (x <= T(0) ? static_cast<T>(p.alpha) * std::expm1(x) : x))
QUERN_EW_STD(Celu, x < T(0) ? static_cast<T>(p.alpha) * std::expm1(x / static_cast<T>(p.alpha)) : x)
QUERN_EW_STD(ThresholdedRelu, x > static_cast<T>(p.alpha) ? x : T(0))
QUERN_EW_STD(HardSigmoid, std::max(T(0), std::min(T(1), static_cast<T>(p.alpha) * x + static_cast<T>(p.beta))))
QUERN_EW_STD(HardSwish, x * std::max(T(0), std::min(T(1), x / T(6) + T(0.5))))
QUERN_EW_STD(Softplus, std::max(x, T(0)) + std::log1p(std::exp(-std::fabs(x))))
QUERN_EW_STD(Gelu, T(0.5) * x * (T(1) + std::erf(x * T(0.70710678118654752440))))
QUERN_EW_STD(GeluTanh, T(0.5) * x * (T(1) + std::tanh(T(0.79788456080286535588) * (x + T(0.044715) * x * x * x))))
#undef QUERN_EW_STD
/// Integers are compared and moved as the real numbers they are, then truncated.
struct Shrink {
    template <class T> static T f(T x, const UnaryParams& p) noexcept {
        using R = std::conditional_t<std::is_floating_point_v<T>, T, double>;
        const R v = static_cast<R>(x), lambda = static_cast<R>(p.alpha), bias = static_cast<R>(p.beta);
        return saturated<T>(v < -lambda ? v + bias : v > lambda ? v - bias : R(0));
    }
};
struct Sigmoid {
    template <class T> static T f(T x, const UnaryParams&) noexcept {
        T e = std::exp(-std::fabs(x));
        return x < T(0) ? e / (T(1) + e) : T(1) / (T(1) + e);
    }
};
struct Swish {
    template <class T> static T f(T x, const UnaryParams& p) noexcept { return x * Sigmoid::f(static_cast<T>(p.alpha) * x, p); }
};
struct Mish {
    template <class T> static T f(T x, const UnaryParams& p) noexcept { return x * std::tanh(Softplus::f(x, p)); }
};

template <class Op, class T>
void loop(const void* context, const void* x, void* y, std::int64_t n) {
    const UnaryParams p = static_cast<const UnaryContext*>(context)->p;
    using R = decltype(Op::f(T{}, p));
    auto* in = static_cast<const T*>(x);
    auto* out = static_cast<R*>(y);
    QUERN_EW_IVDEP
    for (std::int64_t i = 0; i < n; ++i) out[i] = Op::f(in[i], p);
}
template <vec::Unary f>
void table_loop(const void* context, const void* x, void* y, std::int64_t n) {
    static_cast<const UnaryContext*>(context)->table->unary_f32[static_cast<int>(f)](static_cast<const float*>(x),
                                                                                    static_cast<float*>(y), n);
}
template <vec::Function f>
void function_loop(const void* context, const void* x, void* y, std::int64_t n) {
    auto& c = *static_cast<const UnaryContext*>(context);
    c.functions->unary_f32[static_cast<int>(f)](static_cast<const float*>(x), static_cast<float*>(y), n, {c.p.alpha, c.p.beta, c.p.gamma});
}
template <vec::Post post>
void finish_loop(const void* context, const void* x, void* y, std::int64_t n) {
    auto& c = *static_cast<const UnaryContext*>(context);
    vec::Epilogue e;
    e.post = post;
    e.alpha = c.p.alpha;
    e.beta = c.p.beta;
    auto* in = static_cast<const float*>(x);
    auto* out = static_cast<float*>(y);
    for (std::int64_t i = 0; i < n; i += 4096) {
        std::int64_t m = std::min<std::int64_t>(4096, n - i);
        if (in != out) std::memcpy(out + i, in + i, static_cast<std::size_t>(m) * sizeof(float));
        c.table->finish_f32(out + i, m, e);
    }
}
template <class Op>
UnaryLoop real(DType c) noexcept {
    return c == DType::f32 ? loop<Op, float> : c == DType::f64 ? loop<Op, double> : nullptr;
}
/// f32 by the table, f64 by the standard library.
template <class Op, vec::Unary f>
UnaryLoop table(DType c) noexcept {
    return c == DType::f32 ? table_loop<f> : c == DType::f64 ? loop<Op, double> : nullptr;
}
template <class Op, vec::Function f>
UnaryLoop function(DType c) noexcept {
    return c == DType::f32 ? function_loop<f> : c == DType::f64 ? loop<Op, double> : nullptr;
}
template <class Op>
UnaryLoop integral(DType c) noexcept {
    switch (c) {
        case DType::i32: return loop<Op, std::int32_t>;
        case DType::i64: return loop<Op, std::int64_t>;
        case DType::u64: return loop<Op, std::uint64_t>;
        default: return nullptr;
    }
}
template <class Op>
UnaryLoop any(DType c) noexcept {
    UnaryLoop l = real<Op>(c);
    return l ? l : integral<Op>(c);
}

}  // namespace fn

QUERN_INLINE UnaryLoop unary_loop(UnaryOp op, DType c, const UnaryContext& k) noexcept {
    using U = vec::Unary;
    using namespace fn;
    const bool f32 = c == DType::f32;
    switch (op) {
        case UnaryOp::abs: return f32 ? table_loop<U::abs> : any<Abs>(c);
        case UnaryOp::neg: return f32 ? table_loop<U::neg> : any<Neg>(c);
        case UnaryOp::relu: return f32 ? table_loop<U::relu> : any<Relu>(c);
        case UnaryOp::sign: return f32 ? function_loop<vec::Function::sign> : any<Sign>(c);
        case UnaryOp::bit_not: return integral<BitNot>(c);
        case UnaryOp::logical_not: return any<Not>(c);
        case UnaryOp::is_nan: return real<IsNan>(c);
        case UnaryOp::is_inf: return real<IsInf>(c);
        case UnaryOp::acos: return function<Acos, vec::Function::acos>(c);
        case UnaryOp::acosh: return function<Acosh, vec::Function::acosh>(c);
        case UnaryOp::asin: return function<Asin, vec::Function::asin>(c);
        case UnaryOp::asinh: return function<Asinh, vec::Function::asinh>(c);
        case UnaryOp::atan: return function<Atan, vec::Function::atan>(c);
        case UnaryOp::atanh: return function<Atanh, vec::Function::atanh>(c);
        case UnaryOp::ceil: return table<Ceil, U::ceil>(c);
        case UnaryOp::floor: return table<Floor, U::floor>(c);
        case UnaryOp::round: return function<Round, vec::Function::round>(c);
        case UnaryOp::cos: return table<Cos, U::cos>(c);
        case UnaryOp::sin: return table<Sin, U::sin>(c);
        case UnaryOp::tan: return function<Tan, vec::Function::tan>(c);
        case UnaryOp::cosh: return function<Cosh, vec::Function::cosh>(c);
        case UnaryOp::sinh: return function<Sinh, vec::Function::sinh>(c);
        case UnaryOp::tanh: return table<Tanh, U::tanh>(c);
        case UnaryOp::erf: return table<Erf, U::erf>(c);
        case UnaryOp::exp: return table<Exp, U::exp>(c);
        case UnaryOp::log: return table<Log, U::log>(c);
        case UnaryOp::sqrt: return table<Sqrt, U::sqrt>(c);
        case UnaryOp::reciprocal: return table<Reciprocal, U::reciprocal>(c);
        case UnaryOp::sigmoid: return table<Sigmoid, U::sigmoid>(c);
        case UnaryOp::hard_swish: return table<HardSwish, U::hard_swish>(c);
        case UnaryOp::softplus: return table<Softplus, U::softplus>(c);
        case UnaryOp::mish: return table<Mish, U::mish>(c);
        case UnaryOp::gelu: return table<Gelu, U::gelu>(c);
        case UnaryOp::gelu_tanh: return table<GeluTanh, U::gelu_tanh>(c);
        case UnaryOp::swish: return f32 && k.p.alpha == 1.0f ? table_loop<U::silu> : f32 && k.p.alpha > 0 ? function_loop<vec::Function::swish> : real<Swish>(c);
        case UnaryOp::leaky_relu: return f32 ? finish_loop<vec::Post::leaky_relu> : real<LeakyRelu>(c);
        case UnaryOp::hard_sigmoid: return f32 ? finish_loop<vec::Post::hard_sigmoid> : real<HardSigmoid>(c);
        case UnaryOp::elu: return function<Elu, vec::Function::elu>(c);
        case UnaryOp::selu: return function<Selu, vec::Function::selu>(c);
        case UnaryOp::celu: return f32 && k.p.alpha > 0 ? function_loop<vec::Function::celu> : real<Celu>(c);
        case UnaryOp::thresholded_relu: return function<ThresholdedRelu, vec::Function::thresholded_relu>(c);
        case UnaryOp::softsign: return function<Softsign, vec::Function::softsign>(c);
        case UnaryOp::shrink: return f32 ? function_loop<vec::Function::shrink> : any<Shrink>(c);
        case UnaryOp::count: break;
    }
    return nullptr;
}

namespace clip {
/// Bounds in the wide type of the tensor; `table` serves f32.
struct Bounds {
    const vec::Table* table;
    bool has_low = false, has_high = false;
    alignas(8) std::byte low[8], high[8];
};
template <class T>
void loop(const void* context, const void* x, void* y, std::int64_t n) {
    auto& b = *static_cast<const Bounds*>(context);
    T low = std::numeric_limits<T>::lowest(), high = std::numeric_limits<T>::max();
    if constexpr (std::is_floating_point_v<T>) {
        low = -std::numeric_limits<T>::infinity();
        high = std::numeric_limits<T>::infinity();
    }
    if (b.has_low) std::memcpy(&low, b.low, sizeof(T));
    if (b.has_high) std::memcpy(&high, b.high, sizeof(T));
    auto* in = static_cast<const T*>(x);
    auto* out = static_cast<T*>(y);
    for (std::int64_t i = 0; i < n; ++i) {
        T v = in[i] < low ? low : in[i];
        out[i] = v > high ? high : v;
    }
}
inline void loop_f32(const void* context, const void* x, void* y, std::int64_t n) {
    auto& b = *static_cast<const Bounds*>(context);
    float low = 0, high = 0;
    std::memcpy(&low, b.low, 4);
    std::memcpy(&high, b.high, 4);
    auto* in = static_cast<const float*>(x);
    auto* out = static_cast<float*>(y);
    for (std::int64_t i = 0; i < n; i += 4096) {
        std::int64_t m = std::min<std::int64_t>(4096, n - i);
        const float* p = in + i;
        if (b.has_low) {
            b.table->binary_scalar_f32[static_cast<int>(vec::Binary::max)](p, low, out + i, m);
            p = out + i;
        }
        if (b.has_high) b.table->binary_scalar_f32[static_cast<int>(vec::Binary::min)](p, high, out + i, m);
        else if (p != out + i) std::memcpy(out + i, p, static_cast<std::size_t>(m) * sizeof(float));
    }
}
inline bool read(const Call& c, std::size_t i, DType wide, std::byte* to) {
    if (c.in.size() <= i || !c.in[i].present()) return false;
    if (c.in[i].count() != 1)
        raise(ErrorCode::shape_mismatch, "Clip's bounds must be scalars, found " + std::to_string(c.in[i].count()) + " elements");
    convert(c.in[i].dtype, c.in[i].data, 0, wide, to, 0, 1);
    return true;
}
}  // namespace clip

QUERN_INLINE void ClipKernel::run(const Call& c) const {
    const DType wide = wide_of(type_);
    clip::Bounds b;
    b.table = table_;
    std::memset(b.low, 0, 8);
    std::memset(b.high, 0, 8);
    b.has_low = clip::read(c, 1, wide, b.low);
    b.has_high = clip::read(c, 2, wide, b.high);
    UnaryLoop loop = wide == DType::f32   ? clip::loop_f32
                     : wide == DType::f64 ? clip::loop<double>
                     : wide == DType::i32 ? clip::loop<std::int32_t>
                     : wide == DType::i64 ? clip::loop<std::int64_t>
                                          : clip::loop<std::uint64_t>;
    run_unary(c.in[0], wide, c.out[0], wide, loop, &b, cheap_grain, c.workers);
}

}  // namespace ew
QUERN_END
