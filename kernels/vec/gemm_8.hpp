// Products of 8-bit values: pairs of 16 bits, multiplied and added to sums of 32.
#pragma once
#include <quern/kernels/vec/lanes.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif
QUERN_BEGIN
namespace vec {
namespace QUERN_VEC_NS {

typedef std::uint16_t Hu __attribute__((vector_size(QUERN_VEC_BYTES / 2), aligned(2), may_alias));
typedef std::uint16_t H8 __attribute__((vector_size(QUERN_VEC_BYTES / 2)));
typedef std::int32_t I32u __attribute__((vector_size(QUERN_VEC_BYTES), aligned(4), may_alias));

/// In each lane: acc + a.low * b.low + a.high * b.high, of signed halves. Exact for |a| <= 255 and any b of 16 bits.
QUERN_VEC_INL I add_pair_products(I acc, I a, I b) {
#if QUERN_VEC_BYTES == 64
    return acc + (I)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif QUERN_VEC_BYTES == 32
    return acc + (I)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return acc + (I)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

constexpr i64 depth_8 = 256;                          ///< k of one packed block
constexpr i64 rows_8 = 32;                            ///< m of one packed block
constexpr int micro_8 = QUERN_VEC_BYTES == 64 ? 8 : 4;  ///< rows in registers
constexpr i64 cols_8 = 2 * W;

/// Rows [0, 2 * pairs) x cols of B as pairs: dst [pairs][cols_8]; what is missing is 0.
QUERN_VEC_FN void pack_pairs(i64 kc, i64 cols, const std::int16_t* b, i64 ldb, std::int32_t* dst) {
    alignas(64) std::int16_t edge[2][cols_8];
    for (i64 i = 0; i < kc; i += 2, dst += cols_8) {
        const std::int16_t *r0 = b + i * ldb, *r1 = r0 + ldb;
        if (cols < cols_8 || i + 1 == kc) {
            for (i64 j = 0; j < cols_8; ++j) {
                edge[0][j] = j < cols ? r0[j] : std::int16_t{0};
                edge[1][j] = j < cols && i + 1 < kc ? r1[j] : std::int16_t{0};
            }
            r0 = edge[0], r1 = edge[1];
        }
        for (int h = 0; h < 2; ++h) {
            I low = __builtin_convertvector((H8)*reinterpret_cast<const Hu*>(r0 + h * W), I);
            I high = __builtin_convertvector((H8)*reinterpret_cast<const Hu*>(r1 + h * W), I);
            *reinterpret_cast<I32u*>(dst + h * W) = low | (high << 16);
        }
    }
}
/// One row of A without its zero point, as pairs.
template <class A>
QUERN_VEC_FN void pack_row(i64 kc, const A* a, std::int32_t zero, std::int16_t* dst) {
    for (i64 i = 0; i < kc; ++i) dst[i] = static_cast<std::int16_t>(static_cast<std::int32_t>(a[i]) - zero);
    if (kc & 1) dst[kc] = 0;
}
/// c [R, cols] (+)= packed A [R][depth_8] x packed B.
template <int R>
QUERN_VEC_FN void micro_pairs(i64 pairs, const std::int16_t* a, const std::int32_t* b, std::int32_t* c, i64 ldc, i64 cols, bool add) {
    I s[R][2] = {};
    for (i64 i = 0; i < pairs; ++i, b += cols_8) {
        I b0 = *reinterpret_cast<const I32u*>(b), b1 = *reinterpret_cast<const I32u*>(b + W);
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) {
            std::int32_t pair;
            memcpy(&pair, a + r * depth_8 + 2 * i, 4);
            I v = I{} + pair;
            s[r][0] = add_pair_products(s[r][0], v, b0);
            s[r][1] = add_pair_products(s[r][1], v, b1);
        }
    }
    if (cols == cols_8) {
        QUERN_UNROLL
        for (int r = 0; r < R; ++r)
            for (int h = 0; h < 2; ++h) {
                I32u* to = reinterpret_cast<I32u*>(c + r * ldc + h * W);
                *to = add ? *to + s[r][h] : s[r][h];
            }
        return;
    }
    alignas(64) std::int32_t edge[cols_8];
    for (int r = 0; r < R; ++r) {
        memcpy(edge, s[r], sizeof edge);
        for (i64 j = 0; j < cols; ++j) c[r * ldc + j] = add ? c[r * ldc + j] + edge[j] : edge[j];
    }
}
template <int R>
QUERN_VEC_INL void micro_rows(i64 rows, i64 pairs, const std::int16_t* a, const std::int32_t* b, std::int32_t* c, i64 ldc, i64 cols, bool add) {
    i64 r = 0;
    for (; r + R <= rows; r += R) micro_pairs<R>(pairs, a + r * depth_8, b, c + r * ldc, ldc, cols, add);
    if constexpr (R > 1) micro_rows<R / 2>(rows - r, pairs, a + r * depth_8, b, c + r * ldc, ldc, cols, add);
}
template <class A>
QUERN_VEC_FN void gemm_8_of(i64 m, i64 n, i64 k, const A* a, std::int32_t a_zero, i64 lda, const std::int16_t* b, i64 ldb,
                            std::int32_t* c, i64 ldc) {
    alignas(64) std::int16_t rows[rows_8 * depth_8];
    alignas(64) std::int32_t panel[depth_8 / 2 * cols_8];
    if (k <= 0)
        for (i64 r = 0; r < m; ++r) memset(c + r * ldc, 0, static_cast<std::size_t>(n) * 4);
    for (i64 k0 = 0; k0 < k; k0 += depth_8) {
        i64 kc = k - k0 < depth_8 ? k - k0 : depth_8;
        for (i64 m0 = 0; m0 < m; m0 += rows_8) {
            i64 mc = m - m0 < rows_8 ? m - m0 : rows_8;
            for (i64 r = 0; r < mc; ++r) pack_row(kc, a + (m0 + r) * lda + k0, a_zero, rows + r * depth_8);
            for (i64 j = 0; j < n; j += cols_8) {
                i64 cols = n - j < cols_8 ? n - j : cols_8;
                pack_pairs(kc, cols, b + k0 * ldb + j, ldb, panel);
                micro_rows<micro_8>(mc, (kc + 1) / 2, rows, panel, c + m0 * ldc + j, ldc, cols, k0 > 0);
            }
        }
    }
}
QUERN_VEC_FN void gemm_8(i64 m, i64 n, i64 k, const void* a, bool a_unsigned, std::int32_t a_zero, i64 lda, const std::int16_t* b, i64 ldb,
                         std::int32_t* c, i64 ldc) {
    if (a_unsigned) gemm_8_of(m, n, k, static_cast<const std::uint8_t*>(a), a_zero, lda, b, ldb, c, ldc);
    else gemm_8_of(m, n, k, static_cast<const std::int8_t*>(a), a_zero, lda, b, ldb, c, ldc);
}

}  // namespace QUERN_VEC_NS
}  // namespace vec
QUERN_END
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
