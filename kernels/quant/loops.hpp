// The inner loops of 8-bit kernels, once per instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

#include <quern/dtype.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace quant {

/// Rows of the left operand: `taps` pieces of 4 * `quads` bytes each, piece t of row r at p[t * ld + r]. Bytes are unsigned; `flip` takes the
/// high bit the other way first, so that signed ones become so.
struct Rows {
    const std::uint8_t* const* p;
    std::int64_t ld, count, taps, quads;
    bool flip;
};
/// What becomes of the sums of column j of row r: s = sum + add[j] - b_zero[j] * row_sums[r]; then i32: s; f32: s * scale[j] + bias[j];
/// u8 and i8: clamp(round_half_even(s * scale[j]) + zero, low, high), NaN counting as low. add, scale, b_zero and bias may be read up to the next
/// multiple of Loops::panel. Rows of `out` are `ld` elements apart.
struct Finish {
    DType type;
    const std::int32_t* add;
    const std::int32_t *b_zero, *row_sums;  ///< both or neither
    const float *scale, *bias;              ///< bias may be null
    std::int32_t zero, low, high;
    void* out;
    std::int64_t ld;
};
/// y = clamp(round_half_even(ka * a + kb * b + k0) + zero), or ka * (a - za) * (b - zb) in place of the sum.
struct Pairwise {
    float ka, kb, k0, za, zb;
    std::int32_t zero;
    bool product, is_unsigned;
};

/// A matrix [n, k] of 2, 4 or 8 unsigned bits in `blocks` blocks of `block` = 4 * 8 / bits * i values along k, w = (q - zero) * scale. In panels of
/// Loops::lanes rows n: data [panels, blocks, block * bits / 32, lanes, 4 bytes], byte j of a lane holding values 4 * s + j of the next 32 / bits at
/// bits [s * bits, (s + 1) * bits); scales and zeros [panels, blocks, lanes].
struct Blocked {
    const std::uint8_t* data;
    const float* scale;
    const std::uint8_t* zero;
    const float* zero_f32;  ///< in place of zero where not null
    std::int64_t blocks, block;
    int bits;
};
/// The other operand of a blocked product: rows of blocks * block values. Floats with the sums of each block [rows, blocks]; or signed bytes, the
/// scale of each block, and scale times sum.
struct BlockedRows {
    const float* values;
    const std::int8_t* bytes;  ///< in place of values where not null
    const float *scales, *sums;
    std::int64_t count;
};

struct Loops {
    const char* name;
    /// Columns of one packed panel and of one vector. The right operand [taps, 4 * quads] x n, signed, is packed in panels of `panel`
    /// columns (the last one only as many vectors wide as it needs), in each [taps, quads], in each [columns, 4].
    std::int64_t panel, lanes;
    /// Columns [0, n) of the product, `packed` and the arrays of `finish` beginning at the first of them.
    void (*product)(const Rows&, const std::int8_t* packed, std::int64_t n, const Finish&);
    /// Sums of the bytes of each row.
    void (*row_sums)(const Rows&, std::int32_t* sums);
    /// One output channel for each input channel: row r of the output, [channels], from the taps at rows.p; `weights` are pairs of 16 bits of
    /// neighbouring taps, [(taps + 1) / 2, channels]. `is_signed`: the bytes are, and are not flipped.
    void (*depthwise)(const Rows&, std::int64_t channels, const std::int32_t* weights, bool is_signed, const Finish&);
    void (*pairwise)(const Pairwise&, const void* a, std::int64_t a_step, const void* b, std::int64_t b_step, void* y, std::int64_t n);
    /// y[r, j] = bias[j] + row r times row j of w, for panels [from, to): columns [from * lanes, min(n, to * lanes)) of y [rows, n].
    void (*blocked)(const Blocked&, const BlockedRows&, std::int64_t from, std::int64_t to, const float* bias, float* y, std::int64_t n);
    /// Panel p as floats: b[k * ldb + lane] for all k of all blocks.
    void (*expand)(const Blocked&, std::int64_t p, float* b, std::int64_t ldb);
    /// Between binary16 (bits) and f32, to nearest even.
    void (*widen_half)(const std::uint16_t* x, float* y, std::int64_t n);
    void (*narrow_half)(const float* x, std::uint16_t* y, std::int64_t n);
    /// Smallest and largest of n > 0 floats; NaN is passed over where another number is there.
    void (*range)(const float* x, std::int64_t n, float* low, float* high);
};

/// The best loops that are built in, the machine has, and `cap` allows.
QUERN_API const Loops& loops(Isa cap) noexcept;

}  // namespace quant
QUERN_END
