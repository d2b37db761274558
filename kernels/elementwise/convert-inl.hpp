// Bodies of convert.hpp; part of the unit of the Cast operator.
#pragma once
#include <algorithm>
#include <cstring>
#include <type_traits>

#include <quern/kernels/elementwise/convert.hpp>
#include <quern/kernels/quant/loops.hpp>
#include <quern/tensor/half.hpp>

QUERN_BEGIN
namespace ew {

/// Bytes of n elements, n a multiple of 8 or the rest of a tensor.
constexpr std::int64_t bytes_of(DType t, std::int64_t n) noexcept { return (n * dtype_bits(t) + 7) / 8; }
inline const std::byte* at(const void* p, DType t, std::int64_t i) noexcept {
    return static_cast<const std::byte*>(p) + i * dtype_bits(t) / 8;
}
inline std::byte* at(void* p, DType t, std::int64_t i) noexcept { return static_cast<std::byte*>(p) + i * dtype_bits(t) / 8; }

/// Integers keep their low bits; floats give the nearest value; NaN gives 0.
template <class To, class From>
inline To number_cast(From v) noexcept {
    if constexpr (std::is_same_v<To, bool>) {
        return v != From(0);
    } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
        using Mid = std::conditional_t<(sizeof(To) < 4 || std::is_same_v<To, std::int32_t>), std::int32_t, std::int64_t>;
        if constexpr (std::is_same_v<To, std::uint64_t>)
            if (v >= static_cast<From>(0x1p63)) return v >= static_cast<From>(0x1p64) ? ~std::uint64_t{0} : static_cast<std::uint64_t>(v);
        constexpr From lo = static_cast<From>(std::numeric_limits<Mid>::min());
        if (!(v >= lo)) return v != v ? To(0) : static_cast<To>(std::numeric_limits<Mid>::min());
        if (v >= -lo) return static_cast<To>(std::numeric_limits<Mid>::max());
        return static_cast<To>(static_cast<Mid>(v));
    } else {
        return static_cast<To>(v);
    }
}
template <class S, class W>
void load_loop(const void* src, W* out, std::int64_t n) noexcept {
    auto* p = static_cast<const S*>(src);
    for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<W>(p[i]);
}
/// Conversions have the same bits at every instruction set (but for which NaN), so they take the machine's best whatever the cap.
inline void load_half(const void* src, float* out, std::int64_t n) noexcept { quant::loops(Isa::avx512).widen_half(static_cast<const std::uint16_t*>(src), out, n); }
inline void store_half(const float* p, void* dst, std::int64_t n) noexcept { quant::loops(Isa::avx512).narrow_half(p, static_cast<std::uint16_t*>(dst), n); }
inline void load_brain(const void* src, float* out, std::int64_t n) noexcept {
    auto* p = static_cast<const BFloat16*>(src);
    for (std::int64_t i = 0; i < n; ++i) out[i] = to_float(p[i]);
}
/// Packed elements stand in groups of whole bytes: so many of them in so many bytes.
template <int bits> struct Group {
    static constexpr int bytes = bits == 6 ? 3 : 1, elements = 8 * bytes / bits;
    static constexpr unsigned mask = (1u << bits) - 1;
};
/// f(bits of an element); whole groups first.
template <int bits, class F, class W>
void load_bits(const void* src, W* out, std::int64_t n, F f) noexcept {
    using G = Group<bits>;
    auto* p = static_cast<const std::uint8_t*>(src);
    auto group = [&](std::int64_t count) {
        unsigned v = 0;
        for (std::int64_t b = 0; b * 8 < count * bits; ++b) v |= static_cast<unsigned>(*p++) << (8 * b);
        for (std::int64_t j = 0; j < count; ++j) *out++ = f((v >> (bits * j)) & G::mask);
    };
    std::int64_t i = 0;
    for (; i + G::elements <= n; i += G::elements) group(G::elements);
    if (i < n) group(n - i);
}
template <class M>
void load_mini(const void* src, float* out, std::int64_t n) noexcept {
    auto* p = static_cast<const std::uint8_t*>(src);
    for (std::int64_t i = 0; i < n; ++i) out[i] = M::to_float(p[i]);
}

/// Elements of any number type as wide_of(t).
inline void load_wide(DType t, const void* src, void* out, std::int64_t n) {
    auto* f = static_cast<float*>(out);
    auto* w = static_cast<std::int32_t*>(out);
    switch (t) {
        case DType::f32: case DType::f64: case DType::i32: case DType::i64: case DType::u64:
            std::memcpy(out, src, static_cast<std::size_t>(bytes_of(t, n)));
            return;
        case DType::f16: return load_half(src, f, n);
        case DType::bf16: return load_brain(src, f, n);
        case DType::f8e4m3fn: return load_mini<E4M3FN>(src, f, n);
        case DType::f8e4m3fnuz: return load_mini<E4M3FNUZ>(src, f, n);
        case DType::f8e5m2: return load_mini<E5M2>(src, f, n);
        case DType::f8e5m2fnuz: return load_mini<E5M2FNUZ>(src, f, n);
        case DType::f8e8m0:
            for (std::int64_t i = 0; i < n; ++i) f[i] = e8m0_to_float(static_cast<const std::uint8_t*>(src)[i]);
            return;
        case DType::f6e2m3: return load_bits<6>(src, f, n, [](unsigned v) { return E2M3::to_float(v); });
        case DType::f6e3m2: return load_bits<6>(src, f, n, [](unsigned v) { return E3M2::to_float(v); });
        case DType::f4e2m1: return load_bits<4>(src, f, n, [](unsigned v) { return E2M1::to_float(v); });
        case DType::u4: return load_bits<4>(src, w, n, [](unsigned v) { return static_cast<std::int32_t>(v); });
        case DType::i4: return load_bits<4>(src, w, n, [](unsigned v) { return static_cast<std::int32_t>(v ^ 8u) - 8; });
        case DType::u2: return load_bits<2>(src, w, n, [](unsigned v) { return static_cast<std::int32_t>(v); });
        case DType::i2: return load_bits<2>(src, w, n, [](unsigned v) { return static_cast<std::int32_t>(v ^ 2u) - 2; });
        case DType::i8: return load_loop<std::int8_t>(src, w, n);
        case DType::u8: return load_loop<std::uint8_t>(src, w, n);
        case DType::i16: return load_loop<std::int16_t>(src, w, n);
        case DType::u16: return load_loop<std::uint16_t>(src, w, n);
        case DType::boolean:
            for (std::int64_t i = 0; i < n; ++i) w[i] = static_cast<const std::uint8_t*>(src)[i] != 0;
            return;
        case DType::u32: return load_loop<std::uint32_t>(src, static_cast<std::int64_t*>(out), n);
        default: raise(ErrorCode::internal, std::string("conversion from type ") + dtype_name(t));
    }
}

template <class D, class W>
void store_loop(const W* p, void* dst, std::int64_t n) noexcept {
    auto* q = static_cast<D*>(dst);
    for (std::int64_t i = 0; i < n; ++i) q[i] = number_cast<D>(p[i]);
}
template <int bits, class W, class F>
void store_bits(const W* p, void* dst, std::int64_t n, F f) noexcept {
    using G = Group<bits>;
    auto* q = static_cast<std::uint8_t*>(dst);
    for (std::int64_t i = 0; i < n; i += G::elements) {
        const std::int64_t count = std::min<std::int64_t>(G::elements, n - i);
        unsigned v = 0;
        for (std::int64_t j = 0; j < count; ++j) v |= (f(p[i + j]) & G::mask) << (bits * j);
        for (std::int64_t b = 0; b * 8 < count * bits; ++b) *q++ = static_cast<std::uint8_t>(v >> (8 * b));
    }
}
template <class W, class F>
void store_bytes(const W* p, void* dst, std::int64_t n, F f) noexcept {
    auto* q = static_cast<std::uint8_t*>(dst);
    for (std::int64_t i = 0; i < n; ++i) q[i] = f(static_cast<float>(p[i]));
}
template <class W>
void store_wide(const W* p, DType d, void* dst, std::int64_t n, Rounding r) {
    switch (d) {
        case DType::f32: return store_loop<float>(p, dst, n);
        case DType::f64: return store_loop<double>(p, dst, n);
        case DType::i8: case DType::u8: return store_loop<std::uint8_t>(p, dst, n);
        case DType::i16: case DType::u16: return store_loop<std::uint16_t>(p, dst, n);
        case DType::i32: return store_loop<std::int32_t>(p, dst, n);
        case DType::u32: return store_loop<std::uint32_t>(p, dst, n);
        case DType::i64: return store_loop<std::int64_t>(p, dst, n);
        case DType::u64: return store_loop<std::uint64_t>(p, dst, n);
        case DType::boolean: return store_loop<bool>(p, dst, n);
        case DType::f16:
            if constexpr (std::is_same_v<W, float>) return store_half(p, dst, n);
            for (std::int64_t i = 0; i < n; ++i) static_cast<Half*>(dst)[i] = to_half(static_cast<float>(p[i]));
            return;
        case DType::bf16:
            for (std::int64_t i = 0; i < n; ++i) static_cast<BFloat16*>(dst)[i] = to_bfloat16(static_cast<float>(p[i]));
            return;
        case DType::f8e4m3fn: return store_bytes(p, dst, n, [=](float f) { return E4M3FN::from_float(f, r.saturate); });
        case DType::f8e4m3fnuz: return store_bytes(p, dst, n, [=](float f) { return E4M3FNUZ::from_float(f, r.saturate); });
        case DType::f8e5m2: return store_bytes(p, dst, n, [=](float f) { return E5M2::from_float(f, r.saturate); });
        case DType::f8e5m2fnuz: return store_bytes(p, dst, n, [=](float f) { return E5M2FNUZ::from_float(f, r.saturate); });
        case DType::f8e8m0: return store_bytes(p, dst, n, [=](float f) { return e8m0_from_float(f, r); });
        case DType::f6e2m3: return store_bits<6>(p, dst, n, [](W v) { return static_cast<unsigned>(E2M3::from_float(static_cast<float>(v), true)); });
        case DType::f6e3m2: return store_bits<6>(p, dst, n, [](W v) { return static_cast<unsigned>(E3M2::from_float(static_cast<float>(v), true)); });
        case DType::f4e2m1: return store_bits<4>(p, dst, n, [](W v) { return static_cast<unsigned>(E2M1::from_float(static_cast<float>(v), true)); });
        case DType::u4: case DType::i4:
            return store_bits<4>(p, dst, n, [](W v) { return static_cast<unsigned>(number_cast<std::int32_t>(v)); });
        case DType::u2: case DType::i2:
            return store_bits<2>(p, dst, n, [](W v) { return static_cast<unsigned>(number_cast<std::int32_t>(v)); });
        default: raise(ErrorCode::internal, std::string("conversion to type ") + dtype_name(d));
    }
}
inline void store_any(DType w, const void* p, DType d, void* dst, std::int64_t n, Rounding r) {
    switch (w) {
        case DType::f32: return store_wide(static_cast<const float*>(p), d, dst, n, r);
        case DType::f64: return store_wide(static_cast<const double*>(p), d, dst, n, r);
        case DType::i32: return store_wide(static_cast<const std::int32_t*>(p), d, dst, n, r);
        case DType::i64: return store_wide(static_cast<const std::int64_t*>(p), d, dst, n, r);
        default: return store_wide(static_cast<const std::uint64_t*>(p), d, dst, n, r);
    }
}

QUERN_INLINE void convert(DType s, const void* src, std::int64_t soff, DType d, void* dst, std::int64_t doff, std::int64_t n,
                          Rounding r) {
    if (n <= 0) return;
    const std::byte* p = at(src, s, soff);
    std::byte* q = at(dst, d, doff);
    const DType w = wide_of(s);
    if (s == d) std::memcpy(q, p, static_cast<std::size_t>(bytes_of(s, n)));
    else if (s == w) store_any(w, p, d, q, n, r);
    else if (d == w) load_wide(s, p, q, n);
    else {
        alignas(64) std::byte wide[block * 8];
        for (std::int64_t i = 0; i < n; i += block) {
            std::int64_t m = std::min(block, n - i);
            load_wide(s, at(p, s, i), wide, m);
            store_any(w, wide, d, at(q, d, i), m, r);
        }
    }
}

/// One operand of a broken-up walk: pieces of its elements, contiguous and of type `c`.
struct Piece {
    const void* p;
    std::int64_t step;
};
template <std::size_t size>
void splat_of(std::byte* p, std::int64_t n) {
    std::byte v[size];
    std::memcpy(v, p, size);
    for (std::int64_t i = 1; i < n; ++i) std::memcpy(p + static_cast<std::size_t>(i) * size, v, size);
}
inline void splat(std::byte* p, std::size_t size, std::int64_t n) {
    if (size == 8) splat_of<8>(p, n);
    else if (size == 4) splat_of<4>(p, n);
    else if (size == 2) splat_of<2>(p, n);
    else splat_of<1>(p, n);
}
template <int K>
Piece fetch(const Broadcast<K>& b, int k, const View& v, DType c, std::int64_t from, std::int64_t n, std::byte* buffer) {
    if (b.scalar(k)) {
        if (v.dtype == c) return {v.data, 0};
        convert(v.dtype, v.data, 0, c, buffer, 0, 1);
        return {buffer, 0};
    }
    if (b.dense(k)) {
        if (v.dtype == c) return {at(static_cast<const void*>(v.data), c, from), 1};
        convert(v.dtype, v.data, from, c, buffer, 0, n);
        return {buffer, 1};
    }
    const std::int64_t inner = b.inner(), step = b.step(k);
    const std::size_t size = static_cast<std::size_t>(dtype_bits(c)) / 8;
    std::int64_t skip = from % inner, done = 0;
    b.each_row(from / inner, (from + n + inner - 1) / inner, [&](const std::int64_t* o, std::int64_t) {
        std::int64_t m = std::min(inner - skip, n - done);
        std::byte* to = buffer + static_cast<std::size_t>(done) * size;
        convert(v.dtype, v.data, o[k] + skip * step, c, to, 0, step ? m : 1);
        if (!step) splat(to, size, m);
        done += m;
        skip = 0;
    });
    return {buffer, 1};
}

QUERN_INLINE void run_binary(const View& a, DType ca, const View& b, DType cb, const View& z, DType co, BinaryLoop loop,
                             const void* context, std::int64_t grain, Workers& workers) {
    const View* in[2] = {&a, &b};
    const Broadcast<2> walk = make_broadcast<2>(z, in);
    const bool same = a.dtype == ca && b.dtype == cb && z.dtype == co, whole_bytes = dtype_bits(a.dtype) >= 8 && dtype_bits(b.dtype) >= 8 && dtype_bits(z.dtype) >= 8;
    if ((same || whole_bytes) && (walk.rows() == 1 || walk.inner() >= 32)) {
        for_rows(walk, grain, workers, [&](const std::int64_t* o, std::int64_t to, std::int64_t n) {
            if (same)
                return loop(context, at(static_cast<const void*>(a.data), ca, o[0]), walk.step(0), at(static_cast<const void*>(b.data), cb, o[1]),
                            walk.step(1), at(z.data, co, to), n);
            alignas(64) std::byte ab[block * 8], bb[block * 8], zb[block * 8];
            auto piece = [](const View& v, DType c, std::int64_t at_element, std::int64_t step, std::int64_t i, std::int64_t m, std::byte* buffer) {
                if (v.dtype == c) return at(static_cast<const void*>(v.data), c, at_element + i * step);
                if (step || i == 0) convert(v.dtype, v.data, at_element + i * step, c, buffer, 0, step ? m : 1);
                return static_cast<const std::byte*>(buffer);
            };
            for (std::int64_t i = 0; i < n; i += block) {
                const std::int64_t m = std::min(block, n - i);
                const std::byte *x = piece(a, ca, o[0], walk.step(0), i, m, ab), *y = piece(b, cb, o[1], walk.step(1), i, m, bb);
                loop(context, x, walk.step(0), y, walk.step(1), z.dtype == co ? at(z.data, co, to + i) : zb, m);
                if (z.dtype != co) convert(co, zb, 0, z.dtype, z.data, to + i, m);
            }
        });
        return;
    }
    workers.ranges(walk.count, grain, [&](std::int64_t begin, std::int64_t end) {
        alignas(64) std::byte ab[block * 8], bb[block * 8], zb[block * 8];
        for (std::int64_t i = begin; i < end; i += block) {
            std::int64_t n = std::min(block, end - i);
            Piece x = fetch(walk, 0, a, ca, i, n, ab), y = fetch(walk, 1, b, cb, i, n, bb);
            void* to = z.dtype == co ? at(z.data, co, i) : zb;
            loop(context, x.p, x.step, y.p, y.step, to, n);
            if (z.dtype != co) convert(co, zb, 0, z.dtype, z.data, i, n);
        }
    });
}

QUERN_INLINE void run_unary(const View& x, DType cx, const View& y, DType cy, UnaryLoop loop, const void* context,
                            std::int64_t grain, Workers& workers) {
    const bool same = x.dtype == cx && y.dtype == cy;
    workers.ranges(y.count(), grain, [&](std::int64_t begin, std::int64_t end) {
        if (same) return loop(context, at(static_cast<const void*>(x.data), cx, begin), at(y.data, cy, begin), end - begin);
        alignas(64) std::byte xb[block * 8], yb[block * 8];
        for (std::int64_t i = begin; i < end; i += block) {
            std::int64_t n = std::min(block, end - i);
            const void* p = xb;
            if (x.dtype == cx) p = at(static_cast<const void*>(x.data), cx, i);
            else convert(x.dtype, x.data, i, cx, xb, 0, n);
            void* q = y.dtype == cy ? at(y.data, cy, i) : yb;
            loop(context, p, q, n);
            if (y.dtype != cy) convert(cy, yb, 0, y.dtype, y.data, i, n);
        }
    });
}

}  // namespace ew
QUERN_END
