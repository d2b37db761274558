// Conversions of the narrow floating-point types, in software.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "../dtype.hpp"

QUERN_BEGIN

/// IEEE binary16 -> float, exact.
inline float to_float(Half h) noexcept {
    std::uint32_t s = (h.bits & 0x8000u) << 16, e = (h.bits >> 10) & 31u, m = h.bits & 1023u;
    if (e == 0) {
        float f = static_cast<float>(m) * 0x1p-24f;
        return s ? -f : f;
    }
    if (e == 31) return std::bit_cast<float>(s | 0x7f800000u | (m << 13));
    return std::bit_cast<float>(s | ((e + 112u) << 23) | (m << 13));
}
/// float -> IEEE binary16, round to nearest even; overflow to infinity.
inline Half to_half(float f) noexcept {
    std::uint32_t u = std::bit_cast<std::uint32_t>(f), s = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return {static_cast<std::uint16_t>(s | 0x7e00u)};
    if (a >= 0x477ff000u) return {static_cast<std::uint16_t>(s | 0x7c00u)};
    if (a < 0x38800000u) {  // subnormal: adding 0.5 aligns the mantissa, the FPU rounds
        float r = std::bit_cast<float>(a) + 0.5f;
        return {static_cast<std::uint16_t>(s | (std::bit_cast<std::uint32_t>(r) - 0x3f000000u))};
    }
    a += 0xfffu + ((a >> 13) & 1u);
    return {static_cast<std::uint16_t>(s | ((a - 0x38000000u) >> 13))};
}
inline float to_float(BFloat16 b) noexcept { return std::bit_cast<float>(static_cast<std::uint32_t>(b.bits) << 16); }
/// float -> bfloat16, round to nearest even.
inline BFloat16 to_bfloat16(float f) noexcept {
    std::uint32_t u = std::bit_cast<std::uint32_t>(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

QUERN_END
