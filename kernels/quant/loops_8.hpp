// Bodies of quant::Loops: sums of four products of bytes at a time.
#pragma once
#include <quern/kernels/quant/loops.hpp>
#include <quern/kernels/vec/lanes.hpp>

QUERN_VEC_BEGIN

typedef std::int32_t I32u __attribute__((vector_size(QUERN_VEC_BYTES), aligned(4), may_alias));
typedef std::int16_t I16 __attribute__((vector_size(QUERN_VEC_BYTES)));
typedef std::uint16_t U16 __attribute__((vector_size(QUERN_VEC_BYTES)));
typedef std::uint8_t B8 __attribute__((vector_size(QUERN_VEC_BYTES / 4)));
typedef std::uint8_t B8u __attribute__((vector_size(QUERN_VEC_BYTES / 4), aligned(1), may_alias));
typedef std::int8_t S8 __attribute__((vector_size(QUERN_VEC_BYTES / 4)));

/// Sums of 32 bits wrap.
QUERN_VEC_INL I wrapping_sum(I a, I b) { return (I)((U32)a + (U32)b); }
QUERN_VEC_INL I splat_int(std::int32_t x) {
#if QUERN_VEC_BYTES == 64
    return (I)_mm512_set1_epi32(x);
#elif QUERN_VEC_BYTES == 32
    return (I)_mm256_set1_epi32(x);
#else
    return I{x, x, x, x};
#endif
}
QUERN_VEC_INL I load_int(const std::int32_t* p) { return *reinterpret_cast<const I32u*>(p); }
/// W bytes as integers, and the low bytes of W integers of [-128, 255]: compilers make single bytes of conversions.
template <bool is_signed>
QUERN_VEC_INL I widened_8(const std::uint8_t* p) {
#if QUERN_VEC_BYTES == 64
    __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return is_signed ? (I)_mm512_maskz_cvtepi8_epi32(0xffff, b) : (I)_mm512_maskz_cvtepu8_epi32(0xffff, b);
#elif QUERN_VEC_BYTES == 32
    __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return is_signed ? (I)_mm256_cvtepi8_epi32(b) : (I)_mm256_cvtepu8_epi32(b);
#elif defined(__SSE2__)
    std::int32_t four;
    memcpy(&four, p, 4);
    __m128i b = _mm_cvtsi32_si128(four), zero = _mm_setzero_si128();
    if (is_signed) return (I)_mm_srai_epi32(_mm_unpacklo_epi16(zero, _mm_unpacklo_epi8(zero, b)), 24);
    return (I)_mm_unpacklo_epi16(_mm_unpacklo_epi8(b, zero), zero);
#else
    B8 b = *reinterpret_cast<const B8u*>(p);
    if constexpr (is_signed) return __builtin_convertvector((S8)b, I);
    else return __builtin_convertvector(b, I);
#endif
}
QUERN_VEC_INL void store_bytes(std::uint8_t* p, I v) {
#if QUERN_VEC_BYTES == 64
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v));
#elif QUERN_VEC_BYTES == 32
    __m256i low = _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi32(0x0c080400));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
#elif defined(__SSE2__)
    __m128i halves = _mm_packs_epi32(_mm_and_si128((__m128i)v, _mm_set1_epi32(255)), _mm_setzero_si128());
    std::int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(halves, halves));
    memcpy(p, &four, 4);
#else
    *reinterpret_cast<B8u*>(p) = __builtin_convertvector(v, B8);
#endif
}
/// To the nearest integer, ties to even, for |x| < 2^22.
QUERN_VEC_INL I nearest_8(F x) {
#if QUERN_VEC_BYTES == 64
    return (I)_mm512_maskz_cvtps_epi32(0xffff, (__m512)x);
#elif QUERN_VEC_BYTES == 32
    return (I)_mm256_cvtps_epi32((__m256)x);
#elif defined(__SSE2__)
    return (I)_mm_cvtps_epi32((__m128)x);
#else
    return to_int(round_small(x));
#endif
}
/// In each lane the sum of two products of signed halves.
QUERN_VEC_INL I pair_products(I a, I b) {
#if QUERN_VEC_BYTES == 64
    return (I)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif QUERN_VEC_BYTES == 32
    return (I)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (I)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    return ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}
/// Operands of quad_products: bytes as they are where the machine adds four products at once; elsewhere even and odd bytes as
/// halves, so that nothing saturates.
#if defined(__AVX512VNNI__) && QUERN_VEC_BYTES == 64
struct Quads { I v; };
QUERN_VEC_INL Quads left_quads(I v) { return {v}; }
QUERN_VEC_INL Quads right_quads(I v) { return {v}; }
QUERN_VEC_INL I quad_products(I acc, Quads a, Quads b) { return (I)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)a.v, (__m512i)b.v); }
constexpr int rows_8 = 6, vectors_8 = 4;
#elif defined(__AVXVNNI__) && QUERN_VEC_BYTES == 32
struct Quads { I v; };
QUERN_VEC_INL Quads left_quads(I v) { return {v}; }
QUERN_VEC_INL Quads right_quads(I v) { return {v}; }
QUERN_VEC_INL I quad_products(I acc, Quads a, Quads b) { return (I)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)a.v, (__m256i)b.v); }
constexpr int rows_8 = 6, vectors_8 = 2;
#else
struct Quads { I even, odd; };
QUERN_VEC_INL Quads left_quads(I v) { return {v & 0x00ff00ff, (I)((U16)v >> 8)}; }
QUERN_VEC_INL Quads right_quads(I v) { return {(I)((I16)((U16)v << 8) >> 8), (I)((I16)v >> 8)}; }
QUERN_VEC_INL I quad_products(I acc, Quads a, Quads b) { return wrapping_sum(acc, wrapping_sum(pair_products(a.even, b.even), pair_products(a.odd, b.odd))); }
constexpr int rows_8 = QUERN_VEC_BYTES == 64 ? 6 : 4, vectors_8 = QUERN_VEC_BYTES == 64 ? 3 : 2;
#endif
constexpr i64 panel_8 = vectors_8 * W;

/// Vector v of columns [j, j + W) of row r becomes values.
QUERN_VEC_INL void finish_8(I s, const quant::Finish& f, i64 r, i64 j, i64 n) {
    s = wrapping_sum(s, load_int(f.add + j));
    if (f.b_zero) s = (I)((U32)s - (U32)load_int(f.b_zero + j) * static_cast<std::uint32_t>(f.row_sums[r]));
    i64 at = r * f.ld + j, left = lesser(n - j, W);
    if (f.type == DType::i32) {
        std::int32_t* to = static_cast<std::int32_t*>(f.out) + at;
        if (left == W) *reinterpret_cast<I32u*>(to) = s;
        else for (i64 i = 0; i < left; ++i) to[i] = s[i];
        return;
    }
    F x = to_real(s) * load(f.scale + j);
    if (f.type == DType::f32) {
        if (f.bias) x += load(f.bias + j);
        float* to = static_cast<float*>(f.out) + at;
        if (left == W) store(to, x);
        else store_n(to, x, left);
        return;
    }
    x = min2(max2(x, splat(static_cast<float>(f.low - f.zero))), splat(static_cast<float>(f.high - f.zero)));
    I q = nearest_8(x) + f.zero;
    std::uint8_t* to = static_cast<std::uint8_t*>(f.out) + at;
    if (left == W) return store_bytes(to, q);
    alignas(64) std::uint8_t bytes[W];
    store_bytes(bytes, q);
    for (i64 i = 0; i < left; ++i) to[i] = bytes[i];
}
/// R rows from row r and V vectors of columns from column j.
template <int R, int V, bool flip>
QUERN_VEC_FN void block_8(const quant::Rows& a, i64 r, const std::int8_t* b, i64 j, i64 n, const quant::Finish& f) {
    I acc[R][V] = {};
    for (i64 t = 0; t < a.taps; ++t) {
        const std::uint8_t* p[R];
        QUERN_UNROLL
        for (int i = 0; i < R; ++i) p[i] = a.p[t * a.ld + r + i];
        for (i64 q = 0; q < a.quads; ++q, b += V * QUERN_VEC_BYTES) {
            Quads w[V];
            QUERN_UNROLL
            for (int v = 0; v < V; ++v) w[v] = right_quads(load_int(reinterpret_cast<const std::int32_t*>(b + v * QUERN_VEC_BYTES)));
            QUERN_UNROLL
            for (int i = 0; i < R; ++i) {
                std::int32_t bytes;
                memcpy(&bytes, p[i] + 4 * q, 4);
                I x = splat_int(bytes);
                if constexpr (flip) x ^= splat_int(static_cast<std::int32_t>(0x80808080u));
                Quads u = left_quads(x);
                QUERN_UNROLL
                for (int v = 0; v < V; ++v) acc[i][v] = quad_products(acc[i][v], u, w[v]);
            }
        }
    }
    QUERN_UNROLL
    for (int i = 0; i < R; ++i)
        QUERN_UNROLL
        for (int v = 0; v < V; ++v)
            if (j + v * W < n) finish_8(acc[i][v], f, r + i, j + v * W, n);
}
template <int R, int V>
QUERN_VEC_FN void rows_of_8(const quant::Rows& a, i64 r, const std::int8_t* b, i64 j, i64 n, const quant::Finish& f) {
    for (; r + R <= a.count; r += R) {
        if (a.flip) block_8<R, V, true>(a, r, b, j, n, f);
        else block_8<R, V, false>(a, r, b, j, n, f);
    }
    if constexpr (R > 1) rows_of_8<(R > 4 ? 4 : R / 2), V>(a, r, b, j, n, f);
}
QUERN_VEC_FN void product_8(const quant::Rows& a, const std::int8_t* packed, i64 n, const quant::Finish& f) {
    i64 k = a.taps * a.quads * 4;
    for (i64 j = 0; j < n; j += panel_8, packed += panel_8 * k) {
        i64 v = (lesser(n - j, panel_8) + W - 1) / W;
        if (v == vectors_8) rows_of_8<rows_8, vectors_8>(a, 0, packed, j, n, f);
        else if (v == 1) rows_of_8<rows_8, 1>(a, 0, packed, j, n, f);
        else if constexpr (vectors_8 > 2) {
            if (v == 2) rows_of_8<rows_8, 2>(a, 0, packed, j, n, f);
            else if constexpr (vectors_8 > 3) rows_of_8<rows_8, 3>(a, 0, packed, j, n, f);
        }
    }
}
QUERN_VEC_FN void row_sums_8(const quant::Rows& a, std::int32_t* sums) {
    I mask = splat_int(a.flip ? static_cast<std::int32_t>(0x80808080u) : 0), ones = splat_int(0x01010101);
    Quads one = right_quads(ones);
    for (i64 r = 0; r < a.count; ++r) {
        I acc{};
        std::uint32_t rest = 0;
        for (i64 t = 0; t < a.taps; ++t) {
            const std::uint8_t* p = a.p[t * a.ld + r];
            i64 i = 0, bytes = 4 * a.quads;
            for (; i + QUERN_VEC_BYTES <= bytes; i += QUERN_VEC_BYTES)
                acc = quad_products(acc, left_quads(load_int(reinterpret_cast<const std::int32_t*>(p + i)) ^ mask), one);
            for (; i < bytes; ++i) rest += p[i] ^ (a.flip ? 0x80u : 0u);
        }
        for (int l = 0; l < W; ++l) rest += static_cast<std::uint32_t>(acc[l]);
        sums[r] = static_cast<std::int32_t>(rest);
    }
}

/// P rows from r over channels [c, c + W).
template <bool is_signed, int P>
QUERN_VEC_INL void depthwise_rows(const quant::Rows& a, i64 r, i64 c, i64 channels, const std::int32_t* w, const quant::Finish& f) {
    I acc[P] = {};
    const std::uint8_t* const* p = a.p + r;
    i64 t = 0;
    for (; t + 2 <= a.taps; t += 2, w += channels, p += 2 * a.ld) {
        I k = load_int(w);
        QUERN_UNROLL
        for (int i = 0; i < P; ++i) {
            I first = widened_8<is_signed>(p[i] + c), second = widened_8<is_signed>(p[a.ld + i] + c) << 16;
            acc[i] = wrapping_sum(acc[i], pair_products(is_signed ? (first & 0xffff) | second : first | second, k));
        }
    }
    if (t < a.taps) {
        I k = load_int(w) & 0xffff;
        QUERN_UNROLL
        for (int i = 0; i < P; ++i) acc[i] = wrapping_sum(acc[i], pair_products(widened_8<is_signed>(p[i] + c), k));
    }
    QUERN_UNROLL
    for (int i = 0; i < P; ++i) finish_8(acc[i], f, r + i, c, channels);
}
template <bool is_signed>
QUERN_VEC_FN void depthwise_of_8(const quant::Rows& a, i64 channels, const std::int32_t* weights, const quant::Finish& f) {
    i64 whole = channels / W * W;
    for (i64 r = 0; r < a.count;) {
        bool four = r + 4 <= a.count;
        for (i64 c = 0; c < whole; c += W) {
            if (four) depthwise_rows<is_signed, 4>(a, r, c, channels, weights + c, f);
            else depthwise_rows<is_signed, 1>(a, r, c, channels, weights + c, f);
        }
        i64 rows = four ? 4 : 1;
        for (; whole < channels && rows; --rows, ++r) {
            const std::uint8_t* const* p = a.p + r;
            alignas(64) std::uint32_t sums[W] = {};
            for (i64 t = 0; t < a.taps; ++t)
                for (i64 i = whole; i < channels; ++i) {
                    std::uint8_t byte = p[t * a.ld][i];
                    std::int32_t pair = weights[t / 2 * channels + i], w = t & 1 ? pair >> 16 : static_cast<std::int16_t>(pair);
                    sums[i - whole] += static_cast<std::uint32_t>(w * (is_signed ? std::int32_t{static_cast<std::int8_t>(byte)} : std::int32_t{byte}));
                }
            finish_8(*reinterpret_cast<const I32u*>(sums), f, r, whole, channels);
        }
        r += rows;
    }
}
QUERN_VEC_FN void depthwise_8(const quant::Rows& a, i64 channels, const std::int32_t* weights, bool is_signed, const quant::Finish& f) {
    if (is_signed) depthwise_of_8<true>(a, channels, weights, f);
    else depthwise_of_8<false>(a, channels, weights, f);
}

template <bool is_unsigned, bool product>
QUERN_VEC_FN void pairwise_of_8(const quant::Pairwise& k, const std::uint8_t* a, i64 a_step, const std::uint8_t* b, i64 b_step, std::uint8_t* y, i64 n) {
    float least = is_unsigned ? 0.f : -128.f, most = is_unsigned ? 255.f : 127.f;
    F lo = splat(least - static_cast<float>(k.zero)), hi = splat(most - static_cast<float>(k.zero)), ka = splat(k.ka), kb = splat(k.kb), k0 = splat(k.k0), za = splat(k.za), zb = splat(k.zb);
    alignas(64) std::uint8_t first[W], second[W], result[W];
    for (i64 i = 0; i < n; i += W) {
        i64 left = lesser(n - i, W);
        const std::uint8_t *pa = a + i * a_step, *pb = b + i * b_step;
        if (left < W || !a_step) {
            for (i64 l = 0; l < left; ++l) first[l] = pa[l * a_step];
            for (i64 l = left; l < W; ++l) first[l] = 0;
            pa = first;
        }
        if (left < W || !b_step) {
            for (i64 l = 0; l < left; ++l) second[l] = pb[l * b_step];
            for (i64 l = left; l < W; ++l) second[l] = 0;
            pb = second;
        }
        F u = to_real(widened_8<!is_unsigned>(pa)), v = to_real(widened_8<!is_unsigned>(pb)), x;
        if constexpr (product) x = (u - za) * (v - zb) * ka;
        else x = fma(u, ka, fma(v, kb, k0));
        x = min2(max2(x, lo), hi);
        I q = nearest_8(x) + k.zero;
        store_bytes(left == W ? y + i : result, q);
        for (i64 l = 0; left < W && l < left; ++l) y[i + l] = result[l];
    }
}
QUERN_VEC_FN void pairwise_8(const quant::Pairwise& k, const void* a, i64 a_step, const void* b, i64 b_step, void* y, i64 n) {
    auto *pa = static_cast<const std::uint8_t*>(a), *pb = static_cast<const std::uint8_t*>(b);
    auto* py = static_cast<std::uint8_t*>(y);
    if (k.is_unsigned && k.product) pairwise_of_8<true, true>(k, pa, a_step, pb, b_step, py, n);
    else if (k.is_unsigned) pairwise_of_8<true, false>(k, pa, a_step, pb, b_step, py, n);
    else if (k.product) pairwise_of_8<false, true>(k, pa, a_step, pb, b_step, py, n);
    else pairwise_of_8<false, false>(k, pa, a_step, pb, b_step, py, n);
}
QUERN_VEC_FN void range_f32(const float* x, i64 n, float* low, float* high) {
    F l0 = splat(__builtin_inff()), h0 = -l0, l1 = l0, h1 = h0;
    i64 i = 0;
    // The accumulator stands second: it wins where the other is NaN.
    for (; i + 2 * W <= n; i += 2 * W) {
        F a = load(x + i), b = load(x + i + W);
        l0 = min2(a, l0), h0 = max2(a, h0), l1 = min2(b, l1), h1 = max2(b, h1);
    }
    l0 = min2(l1, l0), h0 = max2(h1, h0);
    float l = __builtin_inff(), h = -l;
    for (int k = 0; k < W; ++k) l = l0[k] < l ? l0[k] : l, h = h0[k] > h ? h0[k] : h;
    for (; i < n; ++i) l = x[i] < l ? x[i] : l, h = x[i] > h ? x[i] : h;
    *low = l;
    *high = h;
}

/// Zero points of one block of a panel.
QUERN_VEC_INL F zeros_of(const quant::Blocked& w, i64 at) {
    return w.zero_f32 ? load(w.zero_f32 + at) : to_real(widened_8<false>(w.zero + at));
}
template <int bits>
QUERN_VEC_INL I fields(I v, int s) {
    if constexpr (bits == 8) return v;
    else return (I)((U32)v >> (s * bits)) & splat_int((1 << bits) - 1) * 0x01010101;
}
/// R rows of signed bytes.
template <int bits, int R>
QUERN_VEC_FN void blocked_bytes(const quant::Blocked& w, const quant::BlockedRows& a, i64 r, i64 p, F (&sum)[R]) {
    constexpr int each = 8 / bits;
    i64 vectors = w.block * bits / 32, k = w.blocks * w.block;
    const std::uint8_t* data = w.data + p * w.blocks * vectors * QUERN_VEC_BYTES;
    for (i64 b = 0; b < w.blocks; ++b) {
        I acc[R] = {};
        const std::int8_t* x = a.bytes + r * k + b * w.block;
        for (i64 v = 0; v < vectors; ++v, data += QUERN_VEC_BYTES, x += 4 * each) {
            I packed = load_int(reinterpret_cast<const std::int32_t*>(data));
            QUERN_UNROLL
            for (int s = 0; s < each; ++s) {
                Quads q = left_quads(fields<bits>(packed, s));
                QUERN_UNROLL
                for (int i = 0; i < R; ++i) {
                    std::int32_t four;
                    memcpy(&four, x + i * k + 4 * s, 4);
                    acc[i] = quad_products(acc[i], q, right_quads(splat_int(four)));
                }
            }
        }
        F scale = load(w.scale + (p * w.blocks + b) * W), zero = zeros_of(w, (p * w.blocks + b) * W);
        QUERN_UNROLL
        for (int i = 0; i < R; ++i)
            sum[i] = fma(scale, fma(to_real(acc[i]), splat(a.scales[(r + i) * w.blocks + b]), -(zero * splat(a.sums[(r + i) * w.blocks + b]))), sum[i]);
    }
}
/// R rows of floats.
template <int bits, int R>
QUERN_VEC_FN void blocked_floats(const quant::Blocked& w, const quant::BlockedRows& a, i64 r, i64 p, F (&sum)[R]) {
    constexpr int each = 8 / bits;
    i64 vectors = w.block * bits / 32, k = w.blocks * w.block;
    const std::uint8_t* data = w.data + p * w.blocks * vectors * QUERN_VEC_BYTES;
    for (i64 b = 0; b < w.blocks; ++b) {
        F acc[R][4] = {};  // a chain for each byte of a lane
        const float* x = a.values + r * k + b * w.block;
        for (i64 v = 0; v < vectors; ++v, data += QUERN_VEC_BYTES, x += 4 * each) {
            I packed = load_int(reinterpret_cast<const std::int32_t*>(data));
            QUERN_UNROLL
            for (int s = 0; s < each; ++s)
                QUERN_UNROLL
                for (int j = 0; j < 4; ++j) {
                    F q = to_real((I)((U32)packed >> (8 * j + s * bits)) & splat_int((1 << bits) - 1));
                    QUERN_UNROLL
                    for (int i = 0; i < R; ++i) acc[i][j] = fma(q, splat(x[i * k + 4 * s + j]), acc[i][j]);
                }
        }
        F scale = load(w.scale + (p * w.blocks + b) * W), zero = zeros_of(w, (p * w.blocks + b) * W);
        QUERN_UNROLL
        for (int i = 0; i < R; ++i)
            sum[i] = fma(scale, (acc[i][0] + acc[i][1]) + (acc[i][2] + acc[i][3]) - zero * splat(a.sums[(r + i) * w.blocks + b]), sum[i]);
    }
}
template <int bits, int R>
QUERN_VEC_FN void blocked_rows(const quant::Blocked& w, const quant::BlockedRows& a, i64 r, i64 p, const float* bias, float* y, i64 n) {
    for (; r + R <= a.count; r += R) {
        F sum[R];
        QUERN_UNROLL
        for (int i = 0; i < R; ++i) sum[i] = bias ? load(bias + p * W) : F{};
        if (a.bytes) blocked_bytes<bits, R>(w, a, r, p, sum);
        else blocked_floats<bits, R>(w, a, r, p, sum);
        i64 left = lesser(n - p * W, W);
        for (int i = 0; i < R; ++i) {
            if (left == W) store(y + (r + i) * n + p * W, sum[i]);
            else store_n(y + (r + i) * n + p * W, sum[i], left);
        }
    }
    if constexpr (R > 1) blocked_rows<bits, R / 2>(w, a, r, p, bias, y, n);
}
QUERN_VEC_FN void blocked_product(const quant::Blocked& w, const quant::BlockedRows& a, i64 from, i64 to, const float* bias, float* y, i64 n) {
    for (i64 p = from; p < to; ++p) {
        if (w.bits == 4) blocked_rows<4, 4>(w, a, 0, p, bias, y, n);
        else if (w.bits == 2) blocked_rows<2, 4>(w, a, 0, p, bias, y, n);
        else blocked_rows<8, 4>(w, a, 0, p, bias, y, n);
    }
}
QUERN_VEC_FN void expand_blocked(const quant::Blocked& w, i64 p, float* b, i64 ldb) {
    int each = 8 / w.bits;
    i64 vectors = w.block * w.bits / 32;
    const std::uint8_t* data = w.data + p * w.blocks * vectors * QUERN_VEC_BYTES;
    for (i64 i = 0; i < w.blocks; ++i) {
        F scale = load(w.scale + (p * w.blocks + i) * W), zero = zeros_of(w, (p * w.blocks + i) * W);
        for (i64 v = 0; v < vectors; ++v, data += QUERN_VEC_BYTES) {
            I packed = load_int(reinterpret_cast<const std::int32_t*>(data));
            for (int s = 0; s < each; ++s)
                for (int j = 0; j < 4; ++j, b += ldb)
                    store(b, (to_real((I)((U32)packed >> (8 * j + s * w.bits)) & splat_int((1 << w.bits) - 1)) - zero) * scale);
        }
    }
}

/// The same for one element where vectors of them have no instruction.
QUERN_VEC_INL float widened_half(std::uint16_t h) {
    std::uint32_t bits = (h & 0x7fffu) << 13, special = 0;
    float f;
    memcpy(&f, &bits, 4);
    f *= 0x1p112f;  // the exponent moves by multiplication
    if (f >= 65536.f) special = 0x7f800000u;
    memcpy(&bits, &f, 4);
    bits |= special | (h & 0x8000u) << 16;
    memcpy(&f, &bits, 4);
    return f;
}
QUERN_VEC_INL std::uint16_t narrowed_half(float x) {
    std::uint32_t u;
    memcpy(&u, &x, 4);
    std::uint32_t a = u & 0x7fffffffu;
    float magnitude = x < 0 ? -x : x, shifted = magnitude + 0.5f;
    std::uint32_t normal = (a + 0xfff + ((a >> 13) & 1) - 0x38000000) >> 13, small;
    memcpy(&small, &shifted, 4);
    small -= 0x3f000000;
    std::uint32_t r = a > 0x7f800000 ? 0x7e00 : a >= 0x477ff000 ? 0x7c00 : a < 0x38800000 ? small : normal;
    return static_cast<std::uint16_t>(r | (u >> 16 & 0x8000u));
}
QUERN_VEC_FN void widen_half(const std::uint16_t* x, float* y, i64 n) {
    i64 i = 0;
#if QUERN_VEC_BYTES == 64
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(y + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i))));
#elif QUERN_VEC_BYTES == 32 && defined(__F16C__)
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
#endif
    for (; i < n; ++i) y[i] = widened_half(x[i]);
}
QUERN_VEC_FN void narrow_half(const float* x, std::uint16_t* y, i64 n) {
    i64 i = 0;
#if QUERN_VEC_BYTES == 64
    for (; i + 16 <= n; i += 16) _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif QUERN_VEC_BYTES == 32 && defined(__F16C__)
    for (; i + 8 <= n; i += 8) _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; ++i) y[i] = narrowed_half(x[i]);
}

constexpr quant::Loops make_loops(const char* name) {
    return {name, panel_8, W, product_8, row_sums_8, depthwise_8, pairwise_8, blocked_product, expand_blocked, widen_half, narrow_half, range_f32};
}

QUERN_VEC_END
