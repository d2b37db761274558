// Vectors of the instruction set that this unit is compiled for, and functions on them.
// Everything lives in a namespace named after the instruction set: units compiled with other flags share
// no inline function. Nothing of std:: is called here for the same reason.
#pragma once
#include <math.h>
#include <string.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include <quern/kernels/vec/vec.hpp>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__FMA__)
#if defined(__AVX512VNNI__)
#define QUERN_VEC_NS isa_avx512vnni
#else
#define QUERN_VEC_NS isa_avx512
#endif
#define QUERN_VEC_BYTES 64
#elif defined(__AVX2__) && defined(__FMA__)
#if defined(__AVXVNNI__)
#define QUERN_VEC_NS isa_avx2vnni
#else
#define QUERN_VEC_NS isa_avx2
#endif
#define QUERN_VEC_BYTES 32
#else
#define QUERN_VEC_NS isa_baseline
#define QUERN_VEC_BYTES 16
#endif
#if defined(QUERN_HEADER_ONLY)
#define QUERN_VEC_FN inline
#define QUERN_VEC_INL inline __attribute__((always_inline))
#else
#define QUERN_VEC_FN [[maybe_unused]] static
#define QUERN_VEC_INL [[maybe_unused]] static inline __attribute__((always_inline))
#endif
/// What is rarely run and used in many places.
#define QUERN_VEC_COLD QUERN_VEC_FN __attribute__((noinline))
/// For lambdas: a call would pass vectors through memory.
#define QUERN_VEC_INLINED __attribute__((always_inline))
#if defined(__clang__)
#define QUERN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QUERN_UNROLL _Pragma("GCC unroll 64")
#endif
/// Every file of vector code lies between these: the namespace of its instruction set. Vectors are passed between inlined functions only.
#if defined(__GNUC__) && !defined(__clang__)
#define QUERN_VEC_PRAGMAS \
    _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wpsabi\"") _Pragma("GCC diagnostic ignored \"-Wignored-attributes\"")
#define QUERN_VEC_PRAGMAS_END _Pragma("GCC diagnostic pop")
#else
#define QUERN_VEC_PRAGMAS
#define QUERN_VEC_PRAGMAS_END
#endif
#define QUERN_VEC_BEGIN QUERN_VEC_PRAGMAS QUERN_BEGIN namespace vec { namespace QUERN_VEC_NS {
#define QUERN_VEC_END }} QUERN_END QUERN_VEC_PRAGMAS_END

QUERN_VEC_BEGIN

using i64 = std::int64_t;
constexpr int W = QUERN_VEC_BYTES / 4;  ///< floats in a vector

/// The vector of T, its length, and unaligned memory access.
template <class T> struct Lanes {
    typedef T V __attribute__((vector_size(QUERN_VEC_BYTES)));
    typedef T U __attribute__((vector_size(QUERN_VEC_BYTES), aligned(sizeof(T)), may_alias));
};
template <class T> using Vec = typename Lanes<T>::V;
template <class T> constexpr int lanes = QUERN_VEC_BYTES / static_cast<int>(sizeof(T));
/// Places of lanes, for shuffles.
template <int... i> using Places = std::integer_sequence<int, i...>;
template <class T> using all_places = std::make_integer_sequence<int, lanes<T>>;
using F = Vec<float>;
using D = Vec<double>;
using I = Vec<std::int32_t>;
using L = Vec<std::int64_t>;
using U32 = Vec<std::uint32_t>;  ///< for what wraps
/// Vectors of reals, and the whole numbers of as many bits: comparisons give those.
template <class V> struct Bits;
template <> struct Bits<F> {
    using Whole = I;
    static constexpr std::int32_t magnitude = 0x7fffffff;
};
template <> struct Bits<D> {
    using Whole = L;
    static constexpr std::int64_t magnitude = 0x7fffffffffffffff;
};
template <class V> using Whole = typename Bits<V>::Whole;
constexpr int WD = lanes<double>;
typedef float Fh __attribute__((vector_size(QUERN_VEC_BYTES / 2)));
typedef float Fhu __attribute__((vector_size(QUERN_VEC_BYTES / 2), aligned(4), may_alias));
QUERN_VEC_INL D widened(const float* p) { return __builtin_convertvector((Fh)*reinterpret_cast<const Fhu*>(p), D); }
QUERN_VEC_INL void store_narrow(float* p, D v) { *reinterpret_cast<Fhu*>(p) = __builtin_convertvector(v, Fh); }

template <class T> QUERN_VEC_INL typename Lanes<T>::V load(const T* p) { return *reinterpret_cast<const typename Lanes<T>::U*>(p); }
template <class T> QUERN_VEC_INL void store(T* p, typename Lanes<T>::V v) { *reinterpret_cast<typename Lanes<T>::U*>(p) = v; }
/// x in every lane; not `F{} + x`, which is an addition (and turns -0 into 0).
QUERN_VEC_INL F splat(float x) {
#if QUERN_VEC_BYTES == 64
    return (F)_mm512_set1_ps(x);
#elif QUERN_VEC_BYTES == 32
    return (F)_mm256_set1_ps(x);
#else
    return F{x, x, x, x};
#endif
}
QUERN_VEC_INL D splat(double x) {
#if QUERN_VEC_BYTES == 64
    return (D)_mm512_set1_pd(x);
#elif QUERN_VEC_BYTES == 32
    return (D)_mm256_set1_pd(x);
#else
    return D{x, x};
#endif
}
QUERN_VEC_INL I as_int(F x) { return (I)x; }
QUERN_VEC_INL F as_float(I x) { return (F)x; }
QUERN_VEC_INL I to_int(F x) { return __builtin_convertvector(x, I); }  ///< toward zero
QUERN_VEC_INL F to_real(I x) { return __builtin_convertvector(x, F); }
QUERN_VEC_INL i64 lesser(i64 a, i64 b) { return a < b ? a : b; }
QUERN_VEC_INL i64 larger(i64 a, i64 b) { return a > b ? a : b; }

/// The first n < W floats; the others are zero.
QUERN_VEC_INL F load_n(const float* p, i64 n) {
#if QUERN_VEC_BYTES == 64
    return (F)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
#else
    float t[W] = {};
    for (i64 i = 0; i < n; ++i) t[i] = p[i];
    return load(t);
#endif
}
QUERN_VEC_INL void store_n(float* p, F v, i64 n) {
#if QUERN_VEC_BYTES == 64
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), (__m512)v);
#else
    float t[W];
    store(t, v);
    for (i64 i = 0; i < n; ++i) p[i] = t[i];
#endif
}

QUERN_VEC_INL F fma(F a, F b, F c) {
#if QUERN_VEC_BYTES == 64
    return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif QUERN_VEC_BYTES == 32
    return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}
QUERN_VEC_INL D fma(D a, D b, D c) {
#if QUERN_VEC_BYTES == 64
    return (D)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif QUERN_VEC_BYTES == 32
    return (D)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return a * b + c;
#endif
}
QUERN_VEC_INL float fma1(float a, float b, float c) {
#if QUERN_VEC_BYTES > 16
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}
/// The larger; `b` where either is NaN.
QUERN_VEC_INL F max2(F a, F b) {
#if QUERN_VEC_BYTES == 64
    return (F)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#elif QUERN_VEC_BYTES == 32
    return (F)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (F)_mm_max_ps((__m128)a, (__m128)b);
#else
    return a > b ? a : b;
#endif
}
/// The smaller; `b` where either is NaN.
QUERN_VEC_INL F min2(F a, F b) {
#if QUERN_VEC_BYTES == 64
    return (F)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
#elif QUERN_VEC_BYTES == 32
    return (F)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (F)_mm_min_ps((__m128)a, (__m128)b);
#else
    return a < b ? a : b;
#endif
}
QUERN_VEC_INL F sqrt(F a) {
#if QUERN_VEC_BYTES == 64
    return (F)_mm512_maskz_sqrt_ps(0xffff, (__m512)a);
#elif QUERN_VEC_BYTES == 32
    return (F)_mm256_sqrt_ps((__m256)a);
#elif defined(__SSE2__)
    return (F)_mm_sqrt_ps((__m128)a);
#else
    for (int i = 0; i < W; ++i) a[i] = ::sqrtf(a[i]);
    return a;
#endif
}
QUERN_VEC_INL D sqrt(D a) {
#if QUERN_VEC_BYTES == 64
    return (D)_mm512_maskz_sqrt_pd(0xff, (__m512d)a);
#elif QUERN_VEC_BYTES == 32
    return (D)_mm256_sqrt_pd((__m256d)a);
#elif defined(__SSE2__)
    return (D)_mm_sqrt_pd((__m128d)a);
#else
    for (int i = 0; i < lanes<double>; ++i) a[i] = ::sqrt(a[i]);
    return a;
#endif
}
template <class V> QUERN_VEC_INL V select(Whole<V> m, V a, V b) { return m ? a : b; }
/// NaN where either is NaN.
QUERN_VEC_INL F max_nan(F a, F b) {
#if QUERN_VEC_BYTES == 64
    return (F)_mm512_mask_max_ps((__m512)a, _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_ORD_Q), (__m512)a, (__m512)b);
#else
    return select(a != a, a, max2(a, b));
#endif
}
QUERN_VEC_INL F min_nan(F a, F b) { return select(a != a, a, min2(a, b)); }
template <class V, class B = Whole<V>> QUERN_VEC_INL V abs(V x) { return (V)((B)x & Bits<V>::magnitude); }
template <class V, class B = Whole<V>> QUERN_VEC_INL V with_sign(V magnitude, V sign) {
    return (V)(((B)magnitude & Bits<V>::magnitude) | ((B)sign & ~Bits<V>::magnitude));
}
/// To the nearest integer, ties to even, for |x| < 2^22.
template <class V> QUERN_VEC_INL V round_small(const V& x) { return (x + 12582912.f) - 12582912.f; }
/// Whether a comparison held in any lane.
template <class M> QUERN_VEC_INL bool any(M m) {
#if QUERN_VEC_BYTES == 64
    if constexpr (sizeof(m[0]) == 1) return _mm512_movepi8_mask((__m512i)m) != 0;
    else return _mm512_movepi32_mask((__m512i)m) != 0;
#elif QUERN_VEC_BYTES == 32
    return _mm256_movemask_epi8((__m256i)m) != 0;
#elif defined(__SSE2__)
    return _mm_movemask_epi8((__m128i)m) != 0;
#else
    L l = (L)m;
    return (l[0] | l[1]) != 0;
#endif
}
/// Lane i takes lane i + H, a power of 2 below W; lanes without one take any.
template <int H> QUERN_VEC_INL F lanes_down(F v) {
#if QUERN_VEC_BYTES == 64
    __m512 x = (__m512)v;
    if constexpr (H >= 4) return (F)_mm512_maskz_shuffle_f32x4(0xffff, x, x, H == 8 ? 0x4e : 0xb1);
    else return (F)_mm512_maskz_permute_ps(0xffff, x, H == 2 ? 0x4e : 0xb1);
#elif QUERN_VEC_BYTES == 32
    __m256 x = (__m256)v;
    if constexpr (H == 4) return (F)_mm256_permute2f128_ps(x, x, 1);
    else return (F)_mm256_permute_ps(x, H == 2 ? 0x4e : 0xb1);
#elif defined(__SSE2__)
    return (F)_mm_shuffle_ps((__m128)v, (__m128)v, H == 2 ? 0x4e : 0xb1);
#else
    F r = v;
    for (int i = 0; i + H < W; ++i) r[i] = v[i + H];
    return r;
#endif
}
/// All lanes as one, halves joined with halves: an order that depends on the vector length only.
template <int H = W / 2, class J> QUERN_VEC_INL float join_lanes(F v, J&& join) {
    v = join(v, lanes_down<H>(v));
    if constexpr (H > 1) return join_lanes<H / 2>(v, join);
    else return v[0];
}
QUERN_VEC_INL float sum_lanes(F v) {
    return join_lanes(v, [](F a, F b) QUERN_VEC_INLINED { return a + b; });
}

/// 2^n * x for whole n in [-300, 300], right for subnormal results and overflow.
QUERN_VEC_INL F scale2(F x, F n) {
#if QUERN_VEC_BYTES == 64
    return (F)_mm512_maskz_scalef_ps(0xffff, (__m512)x, (__m512)n);
#else
    I i = to_int(n), h = i >> 1, l = i - h;
    return x * as_float((h + 127) << 23) * as_float((l + 127) << 23);
#endif
}
/// Rows become columns.
QUERN_VEC_INL void transpose(F (&r)[W]) {
#if QUERN_VEC_BYTES == 64
    __m512 t[16], u[16];
    QUERN_UNROLL
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_maskz_unpacklo_ps(0xffff, (__m512)r[2 * i], (__m512)r[2 * i + 1]);
        t[2 * i + 1] = _mm512_maskz_unpackhi_ps(0xffff, (__m512)r[2 * i], (__m512)r[2 * i + 1]);
    }
    QUERN_UNROLL
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 2; ++j) {  // u[4 * i + c]: in each 128 bits l, column 4 * l + c of rows 4 * i to 4 * i + 3
            u[4 * i + 2 * j] = (__m512)_mm512_maskz_unpacklo_pd(0xff, (__m512d)t[4 * i + j], (__m512d)t[4 * i + 2 + j]);
            u[4 * i + 2 * j + 1] = (__m512)_mm512_maskz_unpackhi_pd(0xff, (__m512d)t[4 * i + j], (__m512d)t[4 * i + 2 + j]);
        }
    QUERN_UNROLL
    for (int j = 0; j < 4; ++j) {
        __m512 a = _mm512_maskz_shuffle_f32x4(0xffff, u[j], u[4 + j], 0x88), b = _mm512_maskz_shuffle_f32x4(0xffff, u[8 + j], u[12 + j], 0x88);
        __m512 c = _mm512_maskz_shuffle_f32x4(0xffff, u[j], u[4 + j], 0xdd), d = _mm512_maskz_shuffle_f32x4(0xffff, u[8 + j], u[12 + j], 0xdd);
        r[j] = (F)_mm512_maskz_shuffle_f32x4(0xffff, a, b, 0x88);
        r[4 + j] = (F)_mm512_maskz_shuffle_f32x4(0xffff, c, d, 0x88);
        r[8 + j] = (F)_mm512_maskz_shuffle_f32x4(0xffff, a, b, 0xdd);
        r[12 + j] = (F)_mm512_maskz_shuffle_f32x4(0xffff, c, d, 0xdd);
    }
#elif QUERN_VEC_BYTES == 32
    __m256 t[8], u[8];
    QUERN_UNROLL
    for (int i = 0; i < 4; ++i) {
        t[2 * i] = _mm256_unpacklo_ps((__m256)r[2 * i], (__m256)r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps((__m256)r[2 * i], (__m256)r[2 * i + 1]);
    }
    QUERN_UNROLL
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
            u[4 * i + 2 * j] = (__m256)_mm256_unpacklo_pd((__m256d)t[4 * i + j], (__m256d)t[4 * i + 2 + j]);
            u[4 * i + 2 * j + 1] = (__m256)_mm256_unpackhi_pd((__m256d)t[4 * i + j], (__m256d)t[4 * i + 2 + j]);
        }
    QUERN_UNROLL
    for (int j = 0; j < 4; ++j) {
        r[j] = (F)_mm256_permute2f128_ps(u[j], u[4 + j], 0x20);
        r[4 + j] = (F)_mm256_permute2f128_ps(u[j], u[4 + j], 0x31);
    }
#elif defined(__SSE2__)
    __m128 a = _mm_unpacklo_ps((__m128)r[0], (__m128)r[1]), b = _mm_unpackhi_ps((__m128)r[0], (__m128)r[1]);
    __m128 c = _mm_unpacklo_ps((__m128)r[2], (__m128)r[3]), d = _mm_unpackhi_ps((__m128)r[2], (__m128)r[3]);
    r[0] = (F)_mm_movelh_ps(a, c);
    r[1] = (F)_mm_movehl_ps(c, a);
    r[2] = (F)_mm_movelh_ps(b, d);
    r[3] = (F)_mm_movehl_ps(d, b);
#else
    float t[W * W];
    for (int i = 0; i < W; ++i) store(t + i * W, r[i]);
    for (int i = 0; i < W; ++i)
        for (int j = 0; j < W; ++j) r[i][j] = t[j * W + i];
#endif
}
/// N vectors in lockstep. A function of one vector is a chain of dependent instructions that keeps the processor waiting; functions that
/// take `V` (F or a Pack) go through N chains at a time. What stands beside a Pack may be a vector or a float for all of its lanes.
template <int N> struct Pack {
    F v[N];
};
template <int N> struct PackMask {
    I v[N];
};
template <class T> constexpr int packed = 0;
template <int N> constexpr int packed<Pack<N>> = N;
template <class A, class B> constexpr int packed_of = packed<A> > packed<B> ? packed<A> : packed<B>;
QUERN_VEC_INL F lane(F x, int) { return x; }
QUERN_VEC_INL F lane(float x, int) { return splat(x); }
template <int N> QUERN_VEC_INL F lane(const Pack<N>& x, int i) { return x.v[i]; }
#define QUERN_VEC_PACKED(op)                                \
    Pack<N> r;                                              \
    QUERN_UNROLL                                            \
    for (int i = 0; i < N; ++i) r.v[i] = op;                \
    return r
#define QUERN_VEC_PACK_OPERATOR(op)                                                  \
    template <class A, class B, int N = packed_of<A, B>> requires(N > 0)             \
    QUERN_VEC_INL Pack<N> operator op(const A& a, const B& b) { QUERN_VEC_PACKED(lane(a, i) op lane(b, i)); }
QUERN_VEC_PACK_OPERATOR(+)
QUERN_VEC_PACK_OPERATOR(-)
QUERN_VEC_PACK_OPERATOR(*)
QUERN_VEC_PACK_OPERATOR(/)
#undef QUERN_VEC_PACK_OPERATOR
template <int N> QUERN_VEC_INL Pack<N> operator-(const Pack<N>& a) { QUERN_VEC_PACKED(-a.v[i]); }
#define QUERN_VEC_PACK_COMPARE(op)                                  \
    template <int N> QUERN_VEC_INL PackMask<N> operator op(const Pack<N>& a, float b) { \
        PackMask<N> r;                                              \
        QUERN_UNROLL                                                \
        for (int i = 0; i < N; ++i) r.v[i] = a.v[i] op splat(b);    \
        return r;                                                   \
    }
QUERN_VEC_PACK_COMPARE(<)
QUERN_VEC_PACK_COMPARE(==)
#undef QUERN_VEC_PACK_COMPARE
QUERN_VEC_INL I is_nan(F x) { return x != x; }
template <int N> QUERN_VEC_INL PackMask<N> is_nan(const Pack<N>& a) {
    PackMask<N> r;
    QUERN_UNROLL
    for (int i = 0; i < N; ++i) r.v[i] = is_nan(a.v[i]);
    return r;
}
template <int N, class A, class B> QUERN_VEC_INL Pack<N> select(const PackMask<N>& m, const A& a, const B& b) { QUERN_VEC_PACKED(select(m.v[i], lane(a, i), lane(b, i))); }
template <class A, class B, class C, int N = packed_of<A, B> | packed<C>> requires(N > 0)
QUERN_VEC_INL Pack<N> fma(const A& a, const B& b, const C& c) { QUERN_VEC_PACKED(fma(lane(a, i), lane(b, i), lane(c, i))); }
#define QUERN_VEC_PACK_2(f)                                              \
    template <class A, class B, int N = packed_of<A, B>> requires(N > 0) \
    QUERN_VEC_INL Pack<N> f(const A& a, const B& b) { QUERN_VEC_PACKED(f(lane(a, i), lane(b, i))); }
QUERN_VEC_PACK_2(max2)
QUERN_VEC_PACK_2(min2)
QUERN_VEC_PACK_2(scale2)
QUERN_VEC_PACK_2(with_sign)
#undef QUERN_VEC_PACK_2
template <int N> QUERN_VEC_INL Pack<N> abs(const Pack<N>& a) { QUERN_VEC_PACKED(abs(a.v[i])); }
template <int N> QUERN_VEC_INL Pack<N> load_pack(const float* p) { QUERN_VEC_PACKED(load(p + i * W)); }
template <int N> QUERN_VEC_INL void store_pack(float* p, const Pack<N>& a) {
    QUERN_UNROLL
    for (int i = 0; i < N; ++i) store(p + i * W, a.v[i]);
}

/// e^x for x in [-104, 89].
template <class V> QUERN_VEC_INL V exp_inside(const V& x) {
    V n = round_small<V>(x * 1.44269504f);
    V r = fma(n, splat(-0.693359375f), x);
    r = fma(n, splat(2.12194440e-4f), r);
    V p = fma(splat(0.00139421371f), r, splat(0.0083637693f));
    p = fma(p, r, splat(0.0416663637f));
    p = fma(p, r, splat(0.166665734f));
    p = fma(p, r, splat(0.500000003f));
    p = fma(p, r * r, r) + 1.f;
    return scale2(p, n);
}
/// e^x, at most 1.5 ULP.
template <class V> QUERN_VEC_INL V exp(const V& x) { return exp_inside<V>(min2(splat(89.f), max2(splat(-104.f), x))); }
/// The same for x <= 0.
template <class V> QUERN_VEC_INL V exp_below(const V& x) { return exp_inside<V>(max2(splat(-104.f), x)); }
#if QUERN_VEC_BYTES == 64
/// x - floor x, in [0, 1]; 0 for infinities.
QUERN_VEC_INL F above_floor(F x) { return (F)_mm512_maskz_reduce_ps(0xffff, (__m512)x, 0x09); }
template <int N> QUERN_VEC_INL Pack<N> above_floor(const Pack<N>& x) { QUERN_VEC_PACKED(above_floor(x.v[i])); }
#endif
/// 2^x for x <= 0, at most 2 ULP.
template <class V> QUERN_VEC_INL V exp2_below(const V& any) {
#if QUERN_VEC_BYTES == 64
    V r = above_floor(any);
    V p = fma(splat(0.00186714453f), r, splat(0.0090169997f));
    p = fma(p, r, splat(0.0557999350f));
    p = fma(p, r, splat(0.240164444f));
    p = fma(p, r, splat(0.693151312f));
    p = fma(p, r, splat(1.f));
    return scale2(p, any);  // by its floor
#else
    V x = max2(splat(-150.f), any), n = round_small<V>(x), r = x - n;
    V p = fma(splat(0.00132647273f), r, splat(0.00967151299f));
    p = fma(p, r, splat(0.0555073358f));
    p = fma(p, r, splat(0.240222424f));
    p = fma(p, r, splat(0.693147004f));
    p = fma(p, r, splat(1.f));
    return scale2(p, n);
#endif
}
/// ln x, at most 2 ULP; -inf at 0, NaN below.
QUERN_VEC_INL F log(F x) {
    I tiny = x < 1.17549435e-38f;
    F y = select(tiny, x * 33554432.f, x);
    I b = (I)((U32)y - 0x3f3504f3);  // y = 2^e * m with m in [sqrt(1/2), sqrt(2)); negative ones wrap
    I e = (b >> 23) + (tiny & -25);
    F r = as_float((b & 0x007fffff) + 0x3f3504f3) - 1.f;
    F p = splat(0.0733026737f);
    p = fma(p, r, splat(-0.116593134f));
    p = fma(p, r, splat(0.116351294f));
    p = fma(p, r, splat(-0.12396799f));
    p = fma(p, r, splat(0.142511239f));
    p = fma(p, r, splat(-0.166691467f));
    p = fma(p, r, splat(0.200006888f));
    p = fma(p, r, splat(-0.249999812f));
    p = fma(p, r, splat(0.333333313f));
    F z = r * r, n = to_real(e);
    F t = fma(p * r, z, n * -2.12194440e-4f);
    t = fma(z, splat(-0.5f), t);
    F res = fma(n, splat(0.693359375f), r + t);
    F zero{}, inf = splat(__builtin_inff()), nan = splat(__builtin_nanf(""));
    res = select(x == zero, -inf, res);
    res = select(x == inf, inf, res);
    return select(x < zero, nan, select(x != x, x, res));
}
/// 1 / x for x from 1 to 2^126, at most 1 ULP; NaN for NaN.
QUERN_VEC_INL F reciprocal(F x) {
#if QUERN_VEC_BYTES == 64
    F r = (F)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
    return fma(r, fma(-x, r, splat(1.f)), r);
#else
    return 1.f / x;
#endif
}
template <int N> QUERN_VEC_INL Pack<N> reciprocal(const Pack<N>& x) { QUERN_VEC_PACKED(reciprocal(x.v[i])); }
/// tanh x, at most 3.5 ULP: E / (E + 2) with E = e^2a - 1 = 2^n (e^r - 1) + (2^n - 1), exact in its small part.
template <class V> QUERN_VEC_INL V tanh(const V& x) {
    V a = min2(splat(9.5f), abs(x));
    V n = round_small<V>(a * 2.88539008f);
    V r = fma(n, splat(-0.693359375f), a + a);
    r = fma(n, splat(2.12194440e-4f), r);
    V p = fma(splat(0.00139421371f), r, splat(0.0083637693f));
    p = fma(p, r, splat(0.0416663637f));
    p = fma(p, r, splat(0.166665734f));
    p = fma(p, r, splat(0.500000003f));
    p = fma(p, r * r, r);
    V s = scale2(V(n * 0.f + 1.f), n), e = fma(p, s, s - 1.f);
    return with_sign(V(e * reciprocal(V(e + 2.f))), x);
}
template <class V> QUERN_VEC_INL V sigmoid(const V& x) {
    V e = exp_below<V>(-abs(x)), r = reciprocal(1.f + e);
    return select(x < 0.f, e * r, r);
}
/// erfc a for a >= 0.9: t * exp(-a^2 + P(t)), t = 1 / (1 + a / 2); the relative error of P is 7e-9.
template <class V> QUERN_VEC_INL V erfc_large(const V& a) {
    V t = reciprocal(fma(a, splat(0.5f), splat(1.f)));
    V p = fma(splat(-0.227695303f), t, splat(0.606651522f));
    p = fma(p, t, splat(-0.403457613f));
    p = fma(p, t, splat(-0.0969292248f));
    p = fma(p, t, splat(-0.0609192447f));
    p = fma(p, t, splat(0.0690242359f));
    p = fma(p, t, splat(0.37812299f));
    p = fma(p, t, splat(0.999672208f));
    p = fma(p, t, splat(-1.26549848f));
    return t * exp<V>(fma(-a, a, p));
}
/// erf x for |x| <= 0.95: x * P(x^2), relative error of P 6e-10.
template <class V> QUERN_VEC_INL V erf_small(const V& x) {
    V z = x * x;
    V p = fma(splat(8.21541489e-05f), z, splat(-0.000810596274f));
    p = fma(p, z, splat(0.00519779693f));
    p = fma(p, z, splat(-0.0268581042f));
    p = fma(p, z, splat(0.112836725f));
    p = fma(p, z, splat(-0.376126323f));
    p = fma(p, z, splat(1.12837917f));
    return p * x;
}
/// erf x, at most 2 ULP.
template <class V> QUERN_VEC_INL V erf(const V& x) {
    V a = abs(x);
    V large = with_sign(1.f - erfc_large<V>(min2(splat(10.f), a)), x);
    return select(is_nan(x), x, select(a < 0.9f, erf_small(x), large));
}
/// x * (1 + erf(x / sqrt 2)) / 2 without cancellation: relative error 1e-6 for x > -1, growing to 1e-5 at -9. With
/// a = |x| / sqrt 2, erfc a = t * 2^(-a^2 log2(e) + P(t)), t = 1 / (1 + a / 2); ln 2 * P is within 3e-7 for all a in [0, 9.5].
template <class V> QUERN_VEC_INL V gelu(const V& x) {
    V b = min2(splat(14.4f), abs(x) * 0.849321800288f);  // a * sqrt(log2 e)
    V t = reciprocal(fma(b, splat(0.416277305574f), splat(1.f)));
    V t2 = t * t, t4 = t2 * t2;
    V p0 = fma(splat(1.4320271f), t, splat(-1.82525396f)), p2 = fma(splat(-0.353561789f), t, splat(0.637317896f));
    V p4 = fma(splat(-2.60485339f), t, splat(1.25685966f)), p6 = fma(splat(-0.8110317f), t, splat(2.15341282f));
    V p = fma(fma(fma(splat(0.115083069f), t2, p6), t2, p4), t4, fma(p2, t2, p0));
    V c = t * exp2_below<V>(fma(-b, b, p));
    V finite = max2(splat(-3.4e38f), x);  // -inf gives 0
    return 0.5f * finite * select(x < 0.f, c, 2.f - c);
}
template <class V> QUERN_VEC_INL V gelu_tanh(const V& x) {
    V u = x * fma(x * x, splat(0.0713548162726f), splat(1.59576912161f));
    return select(x == -__builtin_inff(), F{}, x * sigmoid(u));
}
/// x * sigmoid(slope * x), slope > 0; 0 where slope * x < -87, which is off by less than 2e-36 / slope.
template <class V> QUERN_VEC_INL V swish(const V& x, F slope) {
    V u = slope * x;
    return select(u < -87.f, F{}, x * reciprocal(V(1.f + exp_inside<V>(max2(splat(-104.f), V(-u))))));
}
template <class V> QUERN_VEC_INL V silu(const V& x) { return swish(x, splat(1.f)); }
/// ln(1 + e^x).
QUERN_VEC_INL F softplus(F x) {
    F e = exp_below<F>(-abs(x)), s = e * reciprocal(e + 2.f), z = s * s;  // ln(1 + e) = 2 artanh(s) = s * P(z), relative error of P 4e-9
    F p = fma(splat(0.28174657f), z, splat(0.279614188f));
    p = fma(p, z, splat(0.400248537f));
    p = fma(p, z, splat(0.66666316f));
    p = fma(p, z, splat(2.f));
    return select(x != x, x, fma(p, s, max2(x, F{})));
}
/// x * tanh(softplus(x)) = x * q / (q + 2) with q = e^2x + 2 e^x.
QUERN_VEC_INL F mish(F x) {
    F e = exp(min2(splat(20.f), x)), q = e * (e + 2.f);
    F inf = splat(__builtin_inff());
    return select(x > 20.f, x, select(x == -inf, F{}, x * (q / (q + 2.f))));
}
template <class V> QUERN_VEC_INL V relu(const V& x) { return max2(F{}, x); }
template <class V> QUERN_VEC_INL V clip(const V& x, F lo, F hi) { return min2(hi, max2(lo, x)); }
template <class V> QUERN_VEC_INL V hard_swish(const V& x) { return x * clip<V>(fma(x, splat(0.166666667f), splat(0.5f)), F{}, splat(1.f)); }
QUERN_VEC_INL F floor(F x) {
    F t = to_real(to_int(x)), r = t - select(t > x, splat(1.f), F{});
    return select(abs(x) < 8388608.f, with_sign(r, x), x);
}
QUERN_VEC_INL F ceil(F x) { return -floor(-x); }
/// Ties to even; also for large values.
QUERN_VEC_INL F round_even(F x) {
    F r = abs(x);
    r = (r + 8388608.f) - 8388608.f;
    return select(abs(x) < 8388608.f, with_sign(r, x), x);
}
/// sin (cosine = false) or cos, 2 ULP of 1 for |x| <= 8192; larger arguments go through the C library.
QUERN_VEC_INL F sin_cos(F x, bool cosine) {
    F a = abs(x);
    if (__builtin_expect(any(~(a <= 8192.f)), 0)) {
        float t[W];
        store(t, x);
        for (int i = 0; i < W; ++i) t[i] = static_cast<float>(cosine ? ::cos(static_cast<double>(t[i])) : ::sin(static_cast<double>(t[i])));
        return load(t);
    }
    F n = round_small(x * 0.636619772f);
    F r = fma(n, splat(-1.5703125f), x);
    r = fma(n, splat(-4.83751296997e-4f), r);
    r = fma(n, splat(-7.54953362048e-8f), r);
    r = fma(n, splat(-2.56334406825e-12f), r);
    I q = to_int(n) + (cosine ? 1 : 0);
    F z = r * r;
    F s = splat(-0.00019582978f);
    s = fma(s, z, splat(0.0083327255f));
    s = fma(s, z, splat(-0.166666645f));
    s = fma(s * z, r, r);
    F c = splat(2.45429982e-05f);
    c = fma(c, z, splat(-0.00138882801f));
    c = fma(c, z, splat(0.0416666645f));
    c = fma(c * z, z, fma(z, splat(-0.5f), splat(1.f)));
    I odd = (q & 1) != 0;
    F v = select(odd, c, s);
    return as_float(as_int(v) ^ ((q & 2) << 30));
}
#undef QUERN_VEC_PACKED

QUERN_VEC_END
