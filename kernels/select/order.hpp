// Values of 32 bits as numbers whose order is that of the values: sorted and selected without a comparison of floats.
#pragma once
#include <bit>
#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace selection {

/// Ascending; -0 and 0 are one number, every NaN is the largest.
inline std::uint32_t rank_of(float x) {
    if (x != x) return ~0u;
    const auto bits = std::bit_cast<std::uint32_t>(x + 0.f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
inline std::uint32_t rank_of(std::int32_t x) { return static_cast<std::uint32_t>(x) ^ 0x80000000u; }
/// A rank with the position where it was found: no two are equal, and equal values stay in order.
inline std::uint64_t ranked(std::uint32_t rank, std::int64_t position) { return std::uint64_t{rank} << 32 | static_cast<std::uint32_t>(position); }
inline std::int64_t position_of(std::uint64_t ranked) { return static_cast<std::int64_t>(ranked & 0xffffffffu); }
constexpr std::int64_t most_ranked = std::int64_t{1} << 32;  ///< positions

}  // namespace selection
QUERN_END
