// The right operand of 8-bit products, packed for quant::Loops.
#pragma once
#include <algorithm>
#include <cstring>

#include <quern/kernels/quant/common.hpp>
#include <quern/kernels/quant/loops.hpp>
#include <quern/tensor.hpp>

QUERN_BEGIN
namespace quant {

/// n columns of `depth` bytes: byte k of column j at data[j * column + k / inner * outer + k % inner * step].
struct Columns {
    const std::uint8_t* data;
    bool is_unsigned;
    std::int64_t n, depth, column, inner, outer, step;
};
inline std::int64_t padded(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }
inline std::int64_t panels_of(const Loops& l, std::int64_t n) { return (n + l.panel - 1) / l.panel; }
/// Where panel p begins and how many columns it is wide.
inline std::int64_t panel_at(const Loops& l, std::int64_t p, std::int64_t depth) { return p * l.panel * padded(depth, 4); }
inline std::int64_t panel_width(const Loops& l, std::int64_t p, std::int64_t n) { return padded(std::min(l.panel, n - p * l.panel), l.lanes); }
inline std::int64_t packed_size(const Loops& l, std::int64_t n, std::int64_t depth) { return padded(n, l.lanes) * padded(depth, 4); }

/// v in 32 bits that wrap.
inline std::int32_t wrapped(std::int64_t v) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(static_cast<std::uint64_t>(v))); }
/// Panels [from, to): unsigned bytes less 128, columns and bytes that are missing 0. Adds up the bytes of each column in sums.
inline void pack_panels(const Loops& l, const Columns& c, std::int64_t from, std::int64_t to, std::int8_t* packed, std::int32_t* sums) {
    std::uint8_t flip = c.is_unsigned ? 0x80 : 0;
    for (std::int64_t p = from; p < to; ++p) {
        std::int64_t width = panel_width(l, p, c.n), real = std::min(width, c.n - p * l.panel);
        std::int8_t* at = packed + panel_at(l, p, c.depth);
        std::int32_t* sum = sums + p * l.panel;
        std::fill_n(sum, real, 0);
        for (std::int64_t k = 0; k < c.depth; k += 4, at += width * 4) {
            if (k + 4 > c.depth || real < width) std::memset(at, 0, static_cast<std::size_t>(width) * 4);
            for (std::int64_t i = 0; i < std::min<std::int64_t>(4, c.depth - k); ++i) {
                const std::uint8_t* src = c.data + p * l.panel * c.column + (k + i) / c.inner * c.outer + (k + i) % c.inner * c.step;
                for (std::int64_t j = 0; j < real; ++j) {
                    auto b = static_cast<std::int8_t>(src[j * c.column] ^ flip);
                    at[j * 4 + i] = b;
                    sum[j] = wrapped(std::int64_t{sum[j]} + b);
                }
            }
        }
    }
}
inline void limits(DType t, std::int32_t& low, std::int32_t& high) {
    low = t == DType::i8 ? -128 : 0;
    high = t == DType::i8 ? 127 : 255;
}
inline View view_of(const Tensor& t) { return View{t.dtype(), static_cast<std::int32_t>(t.shape().rank()), t.shape().data(), const_cast<void*>(t.raw())}; }

}  // namespace quant
QUERN_END
