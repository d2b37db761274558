// The floating-point types of 8 bits and fewer, in software.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <quern/version.hpp>

QUERN_BEGIN
namespace ew {

/// How a conversion to a narrow float treats what does not fit
/// (https://onnx.ai/onnx/operators/onnx__Cast.html).
enum class ScaleRound : std::uint8_t { up, down, nearest };  ///< for float8e8m0
struct Rounding {
    bool saturate = true;
    ScaleRound mode = ScaleRound::up;
};

/// Which codes of a narrow float are no finite numbers.
enum class Codes : std::uint8_t {
    ieee,    ///< the highest exponent holds infinity and NaN
    fn,      ///< only the all-ones code is NaN
    fnuz,    ///< no infinity, no negative zero, whose code is NaN
    finite,  ///< none: overflow always gives the largest number, NaN gives -0, as ONNX's reference does
};
/// E exponent bits, M mantissa bits, exponent bias B.
template <int E, int M, int B, Codes codes>
struct Mini {
    static constexpr int bits = 1 + E + M;
    static constexpr bool ieee = codes == Codes::ieee, fnuz = codes == Codes::fnuz, finite = codes == Codes::finite;
    static constexpr std::uint32_t sign = 1u << (E + M), mask = sign - 1;
    static constexpr std::uint32_t inf = ((1u << E) - 1) << M;
    static constexpr std::uint32_t largest = ieee ? inf - 1 : fnuz || finite ? mask : mask - 1;
    static constexpr std::uint32_t nan = fnuz || finite ? sign : mask;

    static float to_float(std::uint32_t v) noexcept {
        if (fnuz && v == sign) return std::numeric_limits<float>::quiet_NaN();
        std::uint32_t a = v & mask, e = a >> M, m = a & ((1u << M) - 1);
        float s = v & sign ? -1.0f : 1.0f;
        if (ieee && a >= inf) return a == inf ? s * std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
        if (codes == Codes::fn && a == mask) return std::numeric_limits<float>::quiet_NaN();
        if (e == 0) return s * std::ldexp(static_cast<float>(m), 1 - B - M);
        return s * std::ldexp(static_cast<float>(m | (1u << M)), static_cast<int>(e) - B - M);
    }
    /// Round to nearest even.
    static std::uint8_t from_float(float f, bool saturate) noexcept {
        std::uint32_t u = std::bit_cast<std::uint32_t>(f), s = (u >> 31) << (E + M), a = u & 0x7fffffffu;
        if (a > 0x7f800000u) return static_cast<std::uint8_t>(fnuz || finite ? nan : s | mask);
        std::uint32_t r = a == 0x7f800000u ? largest + 1 : round(std::bit_cast<float>(a));
        if (r > largest) r = saturate || finite ? largest : fnuz ? nan : ieee ? inf : mask;
        else if (fnuz && r == 0) return 0;
        if (fnuz && r == nan) return static_cast<std::uint8_t>(nan);
        return static_cast<std::uint8_t>(s | r);
    }

private:
    /// The code of a finite |f|, which may come out above `largest`.
    static std::uint32_t round(float f) noexcept {
        if (f >= std::ldexp(1.0f, (1 << E) - B + 1)) return largest + 1;
        std::uint32_t a = std::bit_cast<std::uint32_t>(f);
        int e = static_cast<int>(a >> 23) - 127;
        if (e < 1 - B) return static_cast<std::uint32_t>(std::nearbyint(std::ldexp(f, B - 1 + M)));  // subnormal
        a += (1u << (22 - M)) - 1 + ((a >> (23 - M)) & 1u);
        return (a >> (23 - M)) - (static_cast<std::uint32_t>(127 - B) << M);
    }
};
using E4M3FN = Mini<4, 3, 7, Codes::fn>;
using E4M3FNUZ = Mini<4, 3, 8, Codes::fnuz>;
using E5M2 = Mini<5, 2, 15, Codes::ieee>;
using E5M2FNUZ = Mini<5, 2, 16, Codes::fnuz>;
using E3M2 = Mini<3, 2, 3, Codes::finite>;  ///< up to 28
using E2M3 = Mini<2, 3, 1, Codes::finite>;  ///< up to 7.5
using E2M1 = Mini<2, 1, 1, Codes::finite>;  ///< 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives

/// float8e8m0: 2^(v - 127), 255 is NaN.
inline float e8m0_to_float(std::uint32_t v) noexcept {
    if (v == 255) return std::numeric_limits<float>::quiet_NaN();
    return std::ldexp(1.0f, static_cast<int>(v) - 127);
}
inline std::uint8_t e8m0_from_float(float f, Rounding r) noexcept {
    std::uint32_t a = std::bit_cast<std::uint32_t>(f) & 0x7fffffffu;
    if (a > 0x7f800000u) return 255;
    if (a == 0x7f800000u) return r.saturate ? 254 : 255;
    if (a == 0) return r.saturate ? 0 : 255;
    int e = 0;
    float m = std::frexp(std::bit_cast<float>(a), &e);  // a = m * 2^e, m in [0.5, 1)
    int v = e - 1 + 127;
    bool up = r.mode == ScaleRound::up ? m > 0.5f : r.mode == ScaleRound::nearest ? m >= 0.75f : false;
    v += up ? 1 : 0;
    if (v < 0) return r.saturate ? 0 : 255;
    if (v > 254) return r.saturate ? 254 : 255;
    return static_cast<std::uint8_t>(v);
}

}  // namespace ew
QUERN_END
