// Conversion between element types, and the loops that walk tensors in a wide type.
#pragma once
#include <bit>
#include <limits>
#include <type_traits>

#include <quern/kernels/elementwise/broadcast.hpp>
#include <quern/kernels/elementwise/minifloat.hpp>

/// Before a loop whose output is one of its inputs or apart from all of them: no dependence between iterations.
#if defined(__GNUC__) && !defined(__clang__)
#define QUERN_EW_IVDEP _Pragma("GCC ivdep")
#else
#define QUERN_EW_IVDEP
#endif

QUERN_BEGIN
namespace ew {

/// The type that arithmetic on `t` is done in: f32 for floats up to 32 bits, f64; i32 for bool and
/// integers under 32 bits, i64 for u32, else `t` itself. Every value of `t` is exact in it.
constexpr DType wide_of(DType t) noexcept {
    if (t == DType::f64) return t;
    if (is_float(t)) return DType::f32;
    if (t == DType::i64 || t == DType::u32) return DType::i64;
    if (t == DType::u64) return t;
    return DType::i32;
}
/// The nearest integer, ties to even, as a float; keeps the sign of zero. Selects by masks, so that loops become vectors.
template <class T>
inline T round_even(T x) noexcept {
    using I = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    constexpr T large = sizeof(T) == 4 ? T(0x1p23) : T(0x1p52);
    constexpr I all = std::numeric_limits<I>::max();
    const I bits = std::bit_cast<I>(x), magnitude = bits & all;
    const I r = std::bit_cast<I>((std::bit_cast<T>(magnitude) + large) - large);
    const I keep = -static_cast<I>(magnitude >= std::bit_cast<I>(large));
    return std::bit_cast<T>(((r ^ ((r ^ magnitude) & keep)) & all) | (bits & ~all));
}
/// Numbers of every width, bool included; not string, complex or undefined.
constexpr bool is_number(DType t) noexcept { return is_float(t) || is_integer(t) || t == DType::boolean; }

/// dst[doff + i] = src[soff + i] as type d, for i in [0, n), as ONNX's Cast defines it; out-of-range
/// floats give the nearest integer of 32 or 64 bits, whose low bits are kept for narrower ones; NaN gives 0.
/// s and d are numbers. With packed types the offsets are multiples of 8.
void convert(DType s, const void* src, std::int64_t soff, DType d, void* dst, std::int64_t doff, std::int64_t n,
             Rounding = {});

inline constexpr std::int64_t block = 512;         ///< elements of one piece of a conversion
inline constexpr std::int64_t cheap_grain = 32768; ///< elements of a tile: memory-bound loops
inline constexpr std::int64_t costly_grain = 4096; ///< tiles of loops that call functions

/// z[i] = f(a[i * sa], b[i * sb]); sa and sb are 0 or 1. z may be a or b.
using BinaryLoop = void (*)(const void* context, const void* a, std::int64_t sa, const void* b, std::int64_t sb, void* z,
                            std::int64_t n);
/// y[i] = f(x[i]); y may be x.
using UnaryLoop = void (*)(const void* context, const void* x, void* y, std::int64_t n);

/// Runs `loop` over broadcast a and b. It sees elements of types `ca`, `cb` and gives `co`; where those are not
/// the tensors' types, pieces are converted.
void run_binary(const View& a, DType ca, const View& b, DType cb, const View& z, DType co, BinaryLoop loop,
                const void* context, std::int64_t grain, Workers& workers);
void run_unary(const View& x, DType cx, const View& y, DType cy, UnaryLoop loop, const void* context,
               std::int64_t grain, Workers& workers);

}  // namespace ew
QUERN_END
#if defined(QUERN_HEADER_ONLY)
#include <quern/kernels/elementwise/convert-inl.hpp>
#endif
