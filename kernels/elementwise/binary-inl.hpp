// Bodies of binary.hpp; part of the unit of the arithmetic operators.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include <quern/kernels/elementwise/binary.hpp>

QUERN_BEGIN
namespace ew {
namespace fn2 {

template <class T, bool integer = std::is_integral_v<T>>
struct Wrap { using type = std::make_unsigned_t<T>; };
template <class T>
struct Wrap<T, false> { using type = T; };
template <class T> using wrap = typename Wrap<T>::type;

struct Add { template <class T> static T f(T a, T b, int) noexcept { return static_cast<T>(wrap<T>(a) + wrap<T>(b)); } };
struct Sub { template <class T> static T f(T a, T b, int) noexcept { return static_cast<T>(wrap<T>(a) - wrap<T>(b)); } };
/// Two of 16 bits would be multiplied as int, which their product may leave.
struct Mul {
    template <class T> static T f(T a, T b, int) noexcept {
        using W = std::conditional_t<std::is_integral_v<T> && sizeof(T) < 4, unsigned, wrap<T>>;
        return static_cast<T>(static_cast<W>(a) * static_cast<W>(b));
    }
};
struct Div {
    template <class T> static T f(T a, T b, int) noexcept {
        if constexpr (std::is_floating_point_v<T>) return a / b;
        else {
            if (b == T(0)) return T(0);
            if constexpr (std::is_signed_v<T>)
                if (b == T(-1)) return static_cast<T>(wrap<T>(0) - wrap<T>(a));
            return static_cast<T>(a / b);
        }
    }
};
/// NaN where either is NaN, as NumPy's maximum.
struct Max { template <class T> static T f(T a, T b, int) noexcept { return a > b || a != a ? a : b; } };
struct Min { template <class T> static T f(T a, T b, int) noexcept { return a < b || a != a ? a : b; } };
struct Fmod {
    template <class T> static T f(T a, T b, int) noexcept {
        if constexpr (std::is_floating_point_v<T>) return std::fmod(a, b);
        else {
            if (b == T(0)) return T(0);
            if constexpr (std::is_signed_v<T>)
                if (b == T(-1)) return T(0);
            return static_cast<T>(a % b);
        }
    }
};
struct Mod {
    template <class T> static T f(T a, T b, int bits) noexcept {
        T r = Fmod::f(a, b, bits);
        if constexpr (std::is_floating_point_v<T>) {
            if (r == T(0)) return std::copysign(T(0), b);
            return (r < T(0)) != (b < T(0)) ? r + b : r;
        } else if constexpr (std::is_signed_v<T>) {
            return r != T(0) && (r < T(0)) != (b < T(0)) ? static_cast<T>(r + b) : r;
        } else {
            return r;
        }
    }
};
struct Pow {
    template <class T> static T f(T a, T b, int) noexcept {
        if constexpr (std::is_floating_point_v<T>) return std::pow(a, b);
        else {
            if constexpr (std::is_signed_v<T>)
                if (b < T(0)) return a == T(1) ? T(1) : a == T(-1) ? (b & 1 ? T(-1) : T(1)) : T(0);
            wrap<T> r = 1, x = static_cast<wrap<T>>(a);
            for (auto e = static_cast<wrap<T>>(b); e; e >>= 1, x *= x)
                if (e & 1) r *= x;
            return static_cast<T>(r);
        }
    }
};
struct PRelu {
    template <class T> static T f(T a, T b, int) noexcept {
        const T product = static_cast<T>(wrap<T>(a) * wrap<T>(b));
        return a < T(0) ? product : a;
    }
};
struct And { template <class T> static bool f(T a, T b, int) noexcept { return (a != T(0)) & (b != T(0)); } };
struct Or { template <class T> static bool f(T a, T b, int) noexcept { return (a != T(0)) | (b != T(0)); } };
struct Xor { template <class T> static bool f(T a, T b, int) noexcept { return (a != T(0)) ^ (b != T(0)); } };
struct Equal { template <class T> static bool f(T a, T b, int) noexcept { return a == b; } };
struct Greater { template <class T> static bool f(T a, T b, int) noexcept { return a > b; } };
struct Less { template <class T> static bool f(T a, T b, int) noexcept { return a < b; } };
struct GreaterEqual { template <class T> static bool f(T a, T b, int) noexcept { return a >= b; } };
struct LessEqual { template <class T> static bool f(T a, T b, int) noexcept { return a <= b; } };
struct BitAnd { template <class T> static T f(T a, T b, int) noexcept { return a & b; } };
struct BitOr { template <class T> static T f(T a, T b, int) noexcept { return a | b; } };
struct BitXor { template <class T> static T f(T a, T b, int) noexcept { return a ^ b; } };
/// Counts outside [0, bits) shift everything out.
struct ShiftLeft {
    template <class T> static T f(T a, T b, int bits) noexcept {
        return b < T(0) || b >= static_cast<T>(bits) ? T(0) : static_cast<T>(wrap<T>(a) << b);
    }
};
struct ShiftRight {
    template <class T> static T f(T a, T b, int bits) noexcept {
        if (b < T(0) || b >= static_cast<T>(bits)) return a < T(0) ? static_cast<T>(-1) : T(0);
        return static_cast<T>(a >> b);
    }
};

template <class Op, class T>
void loop(const void* context, const void* pa, std::int64_t sa, const void* pb, std::int64_t sb, void* pz, std::int64_t n) {
    const int bits = static_cast<const BinaryContext*>(context)->bits;
    using R = decltype(Op::f(T{}, T{}, bits));
    auto *a = static_cast<const T*>(pa), *b = static_cast<const T*>(pb);
    auto* z = static_cast<R*>(pz);
    if (sa && sb) {
        QUERN_EW_IVDEP
        for (std::int64_t i = 0; i < n; ++i) z[i] = Op::f(a[i], b[i], bits);
    } else if (sa) {
        const T y = n > 0 ? *b : T{};
        QUERN_EW_IVDEP
        for (std::int64_t i = 0; i < n; ++i) z[i] = Op::f(a[i], y, bits);
    } else {
        const T x = n > 0 ? *a : T{};
        for (std::int64_t i = 0; i < n; ++i) z[i] = Op::f(x, b[sb ? i : 0], bits);
    }
}
/// x^y with the usual constant exponents made cheap.
template <class T>
void pow_loop(const void* context, const void* pa, std::int64_t sa, const void* pb, std::int64_t sb, void* pz, std::int64_t n) {
    if constexpr (std::is_floating_point_v<T>) {
        if (sa && !sb && n > 0) {
            auto* a = static_cast<const T*>(pa);
            auto* z = static_cast<T*>(pz);
            const T y = *static_cast<const T*>(pb);
            if (y == T(2)) {
                for (std::int64_t i = 0; i < n; ++i) z[i] = a[i] * a[i];
                return;
            }
            if (y == T(3)) {
                for (std::int64_t i = 0; i < n; ++i) z[i] = a[i] * a[i] * a[i];
                return;
            }
            if (y == T(0.5)) {  // sqrt, but +0 for -0 and infinity for -infinity
                constexpr T inf = std::numeric_limits<T>::infinity();
                if constexpr (std::is_same_v<T, float>) {
                    auto& k = *static_cast<const BinaryContext*>(context);
                    alignas(64) float x[block];
                    for (std::int64_t i = 0; i < n; i += block) {
                        const std::int64_t m = std::min(block, n - i);
                        for (std::int64_t j = 0; j < m; ++j) x[j] = a[i + j] + 0.f;
                        k.table->unary_f32[static_cast<int>(vec::Unary::sqrt)](x, z + i, m);
                        if (k.functions->find_f32(x, m, -inf, false) < 0) continue;
                        for (std::int64_t j = 0; j < m; ++j)
                            if (x[j] == -inf) z[i + j] = inf;
                    }
                    return;
                }
                for (std::int64_t i = 0; i < n; ++i) z[i] = a[i] == -inf ? inf : std::sqrt(a[i] + T(0));
                return;
            }
        }
    }
    if constexpr (std::is_same_v<T, float>)
        static_cast<const BinaryContext*>(context)->functions->pow_f32(static_cast<const float*>(pa), sa, static_cast<const float*>(pb), sb, static_cast<float*>(pz), n);
    else loop<Pow, T>(context, pa, sa, pb, sb, pz, n);
}
inline void prelu_loop(const void* context, const void* pa, std::int64_t sa, const void* pb, std::int64_t sb, void* pz, std::int64_t n) {
    if (!sa) return loop<PRelu, float>(context, pa, sa, pb, sb, pz, n);
    static_cast<const BinaryContext*>(context)->functions->prelu_f32(static_cast<const float*>(pa), static_cast<const float*>(pb), sb, static_cast<float*>(pz), n);
}
template <vec::Binary f>
void table_loop(const void* context, const void* pa, std::int64_t sa, const void* pb, std::int64_t sb, void* pz, std::int64_t n) {
    const vec::Table& t = *static_cast<const BinaryContext*>(context)->table;
    auto *a = static_cast<const float*>(pa), *b = static_cast<const float*>(pb);
    auto* z = static_cast<float*>(pz);
    constexpr bool commutes = f != vec::Binary::sub && f != vec::Binary::div;
    if (n <= 0) return;
    if (sa && sb) t.binary_f32[static_cast<int>(f)](a, b, z, n);
    else if (sa) t.binary_scalar_f32[static_cast<int>(f)](a, *b, z, n);
    else if (sb && commutes) t.binary_scalar_f32[static_cast<int>(f)](b, *a, z, n);
    else if constexpr (f == vec::Binary::sub) loop<Sub, float>(context, pa, sa, pb, sb, pz, n);
    else if constexpr (f == vec::Binary::div) loop<Div, float>(context, pa, sa, pb, sb, pz, n);
    else {
        float y = 0;
        t.binary_scalar_f32[static_cast<int>(f)](a, *b, &y, 1);
        for (std::int64_t i = 0; i < n; ++i) z[i] = y;
    }
}
template <class Op>
BinaryLoop integral(DType c) noexcept {
    switch (c) {
        case DType::i32: return loop<Op, std::int32_t>;
        case DType::i64: return loop<Op, std::int64_t>;
        case DType::u64: return loop<Op, std::uint64_t>;
        default: return nullptr;
    }
}
template <class Op>
BinaryLoop any(DType c) noexcept {
    if (c == DType::f32) return loop<Op, float>;
    if (c == DType::f64) return loop<Op, double>;
    return integral<Op>(c);
}
template <class Op, vec::Binary f>
BinaryLoop table(DType c) noexcept {
    return c == DType::f32 ? table_loop<f> : any<Op>(c);
}
inline BinaryLoop pow(DType c) noexcept {
    switch (c) {
        case DType::f32: return pow_loop<float>;
        case DType::f64: return pow_loop<double>;
        case DType::i32: return pow_loop<std::int32_t>;
        case DType::i64: return pow_loop<std::int64_t>;
        default: return pow_loop<std::uint64_t>;
    }
}

/// Signed and unsigned bytes or halves; what is the same for both has one loop.
template <class Op>
BinaryLoop by_sign(DType t) noexcept {
    switch (t) {
        case DType::u8: return loop<Op, std::uint8_t>;
        case DType::i8: return loop<Op, std::int8_t>;
        case DType::u16: return loop<Op, std::uint16_t>;
        case DType::i16: return loop<Op, std::int16_t>;
        default: return nullptr;
    }
}
template <class Op>
BinaryLoop by_size(DType t) noexcept {
    if (!is_integer(t)) return nullptr;
    return dtype_bits(t) == 8 ? loop<Op, std::uint8_t> : dtype_bits(t) == 16 ? loop<Op, std::uint16_t> : nullptr;
}

}  // namespace fn2

QUERN_INLINE BinaryLoop narrow_loop(BinaryOp op, DType t) noexcept {
    using namespace fn2;
    const bool boolean = t == DType::boolean;
    switch (op) {
        case BinaryOp::add: return by_size<Add>(t);
        case BinaryOp::sub: return by_size<Sub>(t);
        case BinaryOp::mul: return by_size<Mul>(t);
        case BinaryOp::max: return by_sign<Max>(t);
        case BinaryOp::min: return by_sign<Min>(t);
        case BinaryOp::equal: return by_size<Equal>(t);
        case BinaryOp::greater: return by_sign<Greater>(t);
        case BinaryOp::less: return by_sign<Less>(t);
        case BinaryOp::greater_equal: return by_sign<GreaterEqual>(t);
        case BinaryOp::less_equal: return by_sign<LessEqual>(t);
        case BinaryOp::bit_and: return by_size<BitAnd>(t);
        case BinaryOp::bit_or: return by_size<BitOr>(t);
        case BinaryOp::bit_xor: return by_size<BitXor>(t);
        default: break;
    }
    if (!boolean) return nullptr;
    switch (op) {  // bool is 0 or 1 here, as convert() gives it; another byte counts as true
        case BinaryOp::logical_and: return loop<And, std::uint8_t>;
        case BinaryOp::logical_or: return loop<Or, std::uint8_t>;
        case BinaryOp::logical_xor: return loop<Xor, std::uint8_t>;
        default: return nullptr;
    }
}

QUERN_INLINE BinaryLoop binary_loop(BinaryOp op, DType c) noexcept {
    using B = vec::Binary;
    using namespace fn2;
    switch (op) {
        case BinaryOp::add: return table<Add, B::add>(c);
        case BinaryOp::sub: return table<Sub, B::sub>(c);
        case BinaryOp::mul: return table<Mul, B::mul>(c);
        case BinaryOp::div: return table<Div, B::div>(c);
        case BinaryOp::max: return table<Max, B::max>(c);
        case BinaryOp::min: return table<Min, B::min>(c);
        case BinaryOp::pow: return fn2::pow(c);
        case BinaryOp::mod: return any<Mod>(c);
        case BinaryOp::fmod: return any<Fmod>(c);
        case BinaryOp::prelu: return c == DType::f32 ? prelu_loop : any<PRelu>(c);
        case BinaryOp::logical_and: return integral<And>(c);
        case BinaryOp::logical_or: return integral<Or>(c);
        case BinaryOp::logical_xor: return integral<Xor>(c);
        case BinaryOp::equal: return any<Equal>(c);
        case BinaryOp::greater: return any<Greater>(c);
        case BinaryOp::less: return any<Less>(c);
        case BinaryOp::greater_equal: return any<GreaterEqual>(c);
        case BinaryOp::less_equal: return any<LessEqual>(c);
        case BinaryOp::shift_left: return integral<ShiftLeft>(c);
        case BinaryOp::shift_right: return integral<ShiftRight>(c);
        case BinaryOp::bit_and: return integral<BitAnd>(c);
        case BinaryOp::bit_or: return integral<BitOr>(c);
        case BinaryOp::bit_xor: return integral<BitXor>(c);
        case BinaryOp::count: break;
    }
    return nullptr;
}

}  // namespace ew
QUERN_END
