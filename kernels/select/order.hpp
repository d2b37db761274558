// Values of 32 bits as numbers whose order is that of the values: sorted and selected without a comparison of floats.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

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

/// Sorts by rank; equal ranks stay in the order in which they are. `free` has room for as many.
inline void sort_by_rank(std::uint64_t* r, std::int64_t n, std::uint64_t* free) {
    constexpr int digits = 4, values = 256;
    std::uint32_t begin[digits][values] = {};
    auto digit = [](std::uint64_t x, int d) { return static_cast<std::size_t>(x >> (32 + 8 * d) & (values - 1)); };
    for (std::int64_t i = 0; i < n; ++i)
        for (int d = 0; d < digits; ++d) ++begin[d][digit(r[i], d)];
    std::uint64_t *from = r, *to = free;
    for (int d = 0; d < digits; ++d) {
        if (begin[d][digit(r[0], d)] == n) continue;  // all alike
        std::uint32_t at = 0;
        for (std::uint32_t& b : begin[d]) at += std::exchange(b, at);
        for (std::int64_t i = 0; i < n; ++i) to[begin[d][digit(from[i], d)]++] = from[i];
        std::swap(from, to);
    }
    if (from != r) std::copy(from, from + n, r);
}
/// The first k of x[0, n) to `r`, sorted, as `of(x[i], i)` orders them: numbers no two of which are equal. `may` tells of a value whether it can stand before
/// another one's. Most values are looked at once, 64 at a time. False, and r is anything, where so many are in the order of their worth that this is slower.
template <class T, class Of, class May>
bool few_first(const T* x, std::int64_t n, std::int64_t k, std::uint64_t* r, Of&& of, May&& may) {
    constexpr std::int64_t block = 64;
    for (std::int64_t i = 0; i < k; ++i) r[i] = of(x[i], i);
    std::make_heap(r, r + k);
    T last = x[position_of(r[0])];
    std::int64_t taken = 0;
    for (std::int64_t i = k; i < n; i += block) {
        const std::int64_t end = std::min(n, i + block);
        unsigned any = 0;
        for (std::int64_t j = i; j < end; ++j) any |= static_cast<unsigned>(may(x[j], last));
        if (!any) continue;
        for (std::int64_t j = i; j < end; ++j) {
            const std::uint64_t v = of(x[j], j);
            if (v >= r[0]) continue;
            std::pop_heap(r, r + k);
            r[k - 1] = v;
            std::push_heap(r, r + k);
            last = x[position_of(r[0])];
            ++taken;
        }
        if (taken > 8 * k + n / 64) return false;
    }
    std::sort(r, r + k);
    return true;
}
/// The k least of n numbers, which stand in the order of their positions, to the front; sorted if asked for. What is behind them is anything.
inline void least_first(std::uint64_t* r, std::int64_t n, std::int64_t k, bool sorted) {
    constexpr std::int64_t sample = 64;
    // A few of them tell a bound that some more than k keep to: most are looked at twice, and no more.
    if (n >= 8 * sample && k <= n / 4) {
        std::uint64_t s[sample];
        for (std::int64_t i = 0; i < sample; ++i) s[i] = r[n / sample * i];
        std::sort(s, s + sample);
        const std::uint64_t bound = s[std::min(sample - 1, sample * k / n * 5 / 4 + 4)];
        std::int64_t count = 0, m = 0;
        for (std::int64_t i = 0; i < n; ++i) count += r[i] <= bound;
        if (count >= k && count <= n / 2) {
            for (std::int64_t i = 0; i < n && m < count; ++i) {
                const std::uint64_t x = r[i];
                r[m] = x;
                m += x <= bound;
            }
            return sort_by_rank(r, count, r + count);
        }
    }
    if (k < n) std::nth_element(r, r + k, r + n);
    if (sorted) std::sort(r, r + k);
}

}  // namespace selection
QUERN_END
