// Copies between strided regions of any rank: what transposition, slicing, expansion, tiling, concatenation
// and splitting are made of.
#pragma once
#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include <quern/kernels/kernel.hpp>
#include <quern/tensor/dispatch.hpp>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

QUERN_BEGIN
namespace movement {

inline constexpr int max_rank = 64;
/// Elements that one tile moves, about; tiles do not depend on the number of threads.
inline constexpr std::int64_t tile_elements = 32768;

/// A few integers without allocation.
struct Ints {
    std::int64_t v[max_rank] = {};
    int n = 0;
    std::int64_t operator[](int i) const { return v[i]; }
};
/// The content of an int32 or int64 tensor of at most 64 elements; empty where absent.
inline Ints read_ints(const View& v, const char* what) {
    Ints r;
    if (!v.present()) return r;
    std::int64_t n = v.count();
    if (n > max_rank) raise(ErrorCode::shape_mismatch, std::string(what) + " has " + std::to_string(n) + " elements; at most 64 are accepted");
    r.n = static_cast<int>(n);
    dispatch_index(v.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        for (int i = 0; i < r.n; ++i) r.v[i] = v.in<T>()[i];
    });
    return r;
}
inline int norm_axis(std::int64_t a, int rank) {
    if (a < -rank || a >= rank)
        raise(ErrorCode::shape_mismatch, "axis " + std::to_string(a) + " is outside [" + std::to_string(-rank) + ", " + std::to_string(rank - 1) + "]");
    return static_cast<int>(a < 0 ? a + rank : a);
}

/// memcpy, without a call for the few bytes that rows often have.
inline void move_bytes(void* to, const void* from, std::size_t n) {
    auto* d = static_cast<std::byte*>(to);
    auto* s = static_cast<const std::byte*>(from);
    if (n > 256 || n < 8) {
        if (n == 4) std::memcpy(d, s, 4);
        else std::memcpy(d, s, n);
        return;
    }
    if (n < 16) {  // both ends
        std::uint64_t a, b;
        std::memcpy(&a, s, 8);
        std::memcpy(&b, s + n - 8, 8);
        std::memcpy(d, &a, 8);
        std::memcpy(d + n - 8, &b, 8);
        return;
    }
    for (std::size_t i = 0; i + 16 < n; i += 16) {
        std::byte t[16];
        std::memcpy(t, s + i, 16);
        std::memcpy(d + i, t, 16);
    }
    std::byte t[16];
    std::memcpy(t, s + n - 16, 16);
    std::memcpy(d + n - 16, t, 16);
}
template <class T> inline void copy_run(T* d, const T* s, std::int64_t n) {
    if constexpr (std::is_trivially_copyable_v<T>) {
        if (n == 1) *d = *s;
        else move_bytes(d, s, static_cast<std::size_t>(n) * sizeof(T));
    } else {
        std::copy(s, s + n, d);
    }
}
/// The rows of a tensor one after the other: an index for each of the axes that count them.
struct Counter {
    int rank;
    const std::int64_t* dims;
    std::int64_t at[max_rank];
    Counter(int r, const std::int64_t* d, std::int64_t row) : rank(r), dims(d) {
        for (int i = rank - 1; i >= 0; --i) {
            at[i] = row % d[i];
            row /= d[i];
        }
    }
    void next() {
        for (int i = rank - 1; i >= 0; --i) {
            if (++at[i] < dims[i]) return;
            at[i] = 0;
        }
    }
};

/// The row of the source that a counter's row comes from, where each axis has places of its own: source(axis, i), or -1 for none. The outer axes are looked
/// up only when they move.
template <class S>
class SourceRow {
public:
    /// `last`: axes that count rows; dims: of the source.
    SourceRow(int last, const std::int64_t* dims, const S& source) : inner_(last - 1), dims_(dims), source_(source) {}
    std::int64_t operator()(const Counter& row) {
        if (inner_ < 0) return 0;
        if (fresh_ || row.at[inner_] == 0) {
            outer_ = 0;
            std::int64_t stride = dims_[inner_];
            for (int i = inner_ - 1; i >= 0; --i) {
                const std::int64_t p = source_(i, row.at[i]);
                if (p < 0) {
                    outer_ = -1;
                    break;
                }
                outer_ += p * stride;
                stride *= dims_[i];
            }
            fresh_ = false;
        }
        const std::int64_t p = outer_ < 0 ? -1 : source_(inner_, row.at[inner_]);
        return p < 0 ? -1 : outer_ + p;
    }

private:
    int inner_;
    const std::int64_t* dims_;
    const S& source_;
    std::int64_t outer_ = 0;
    bool fresh_ = true;
};

/// Dims with the distance in elements between neighbours in the source (s) and in the target (t).
struct Region {
    int rank = 0;
    std::int64_t d[max_rank], s[max_rank], t[max_rank];
    void axis(std::int64_t dim, std::int64_t source, std::int64_t target) {
        if (rank && d[rank - 1] != 1 && dim != 1 && s[rank - 1] == source * dim && t[rank - 1] == target * dim) {
            d[rank - 1] *= dim;
            s[rank - 1] = source;
            t[rank - 1] = target;
            return;
        }
        if (rank && d[rank - 1] == 1) --rank;  // a dim of 1 never matters
        else if (rank && dim == 1) return;
        d[rank] = dim;
        s[rank] = source;
        t[rank] = target;
        ++rank;
    }
    std::int64_t count() const {
        std::int64_t n = 1;
        for (int i = 0; i < rank; ++i) n *= d[i];
        return n;
    }
};

/// Lanes of 16 bytes: vectors on every machine that compilers make vectors for.
template <class T> struct Sixteen {
    static constexpr int lanes = 16 / static_cast<int>(sizeof(T));
    typedef std::conditional_t<sizeof(T) == 1, std::uint8_t, std::conditional_t<sizeof(T) == 2, std::uint16_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>> Lane;
    typedef Lane V __attribute__((vector_size(16)));
};
template <class T> inline constexpr bool has_lanes = std::is_trivially_copyable_v<T> && sizeof(T) <= 8;
/// a0 b0 a1 b1 ... of the lower (upper) halves.
template <int lanes, bool upper, class V> inline V interleaved(V a, V b) {
    if constexpr (lanes == 2) return __builtin_shufflevector(a, b, upper, 2 + upper);
    else if constexpr (lanes == 4) return upper ? __builtin_shufflevector(a, b, 2, 6, 3, 7) : __builtin_shufflevector(a, b, 0, 4, 1, 5);
    else if constexpr (lanes == 8)
        return upper ? __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15) : __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    else
        return upper ? __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
                     : __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
/// Every second lane of a and b one after the other; and a backwards.
template <int lanes, class V> inline V every_second(V a, V b) {
    if constexpr (lanes == 2) return __builtin_shufflevector(a, b, 0, 2);
    else if constexpr (lanes == 4) return __builtin_shufflevector(a, b, 0, 2, 4, 6);
    else if constexpr (lanes == 8) return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
    else {
#if defined(__SSE2__)
        const __m128i low = _mm_set1_epi16(255);
        return (V)_mm_packus_epi16(_mm_and_si128((__m128i)a, low), _mm_and_si128((__m128i)b, low));
#else
        return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#endif
    }
}
template <int lanes, class V> inline V reversed(V a) {
    if constexpr (lanes == 2) return __builtin_shufflevector(a, a, 1, 0);
    else if constexpr (lanes == 4) return __builtin_shufflevector(a, a, 3, 2, 1, 0);
    else {
#if defined(__SSE2__)
        __m128i v = (__m128i)a;
        if constexpr (lanes == 16) v = _mm_or_si128(_mm_slli_epi16(v, 8), _mm_srli_epi16(v, 8));
        v = _mm_shufflehi_epi16(_mm_shufflelo_epi16(v, 0x1b), 0x1b);
        return (V)_mm_shuffle_epi32(v, 0x4e);
#else
        if constexpr (lanes == 8) return __builtin_shufflevector(a, a, 7, 6, 5, 4, 3, 2, 1, 0);
        else return __builtin_shufflevector(a, a, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#endif
    }
}
/// d[2 * i] = a[i], d[2 * i + 1] = b[i].
template <class T> void zip(T* d, const T* a, const T* b, std::int64_t n) {
    std::int64_t i = 0;
    if constexpr (has_lanes<T>) {
        constexpr int lanes = Sixteen<T>::lanes;
        for (; i + lanes <= n; i += lanes) {
            typename Sixteen<T>::V x, y;
            std::memcpy(&x, a + i, 16);
            std::memcpy(&y, b + i, 16);
            const auto low = interleaved<lanes, false>(x, y), high = interleaved<lanes, true>(x, y);
            std::memcpy(d + 2 * i, &low, 16);
            std::memcpy(d + 2 * i + lanes, &high, 16);
        }
    }
    for (; i < n; ++i) d[2 * i] = a[i], d[2 * i + 1] = b[i];
}
/// d[i] = s[i * step].
template <class T> void copy_strided(T* d, const T* s, std::int64_t step, std::int64_t n) {
    if (step == 1) return copy_run(d, s, n);
    if (step == 0) return void(std::fill(d, d + n, *s));
    std::int64_t i = 0;
    if constexpr (has_lanes<T>) {
        constexpr int lanes = Sixteen<T>::lanes;
        using V = typename Sixteen<T>::V;
        V x, y;
        if (step == 2)
            for (; i + lanes < n; i += lanes) {  // the element after the last one is not read
                std::memcpy(&x, s + 2 * i, 16);
                std::memcpy(&y, s + 2 * i + lanes, 16);
                x = every_second<lanes>(x, y);
                std::memcpy(d + i, &x, 16);
            }
        if (step == -1)
            for (; i + lanes <= n; i += lanes) {
                std::memcpy(&x, s - i - lanes + 1, 16);
                x = reversed<lanes>(x);
                std::memcpy(d + i, &x, 16);
            }
    }
    for (; i + 4 <= n; i += 4) {
        const T a = s[i * step], b = s[(i + 1) * step], c = s[(i + 2) * step], e = s[(i + 3) * step];
        d[i] = a, d[i + 1] = b, d[i + 2] = c, d[i + 3] = e;
    }
    for (; i < n; ++i) d[i] = s[i * step];
}

/// m rows of n < 16 elements.
template <class T> void copy_rows(const T* s, std::int64_t s_row, std::int64_t si, T* d, std::int64_t d_row, std::int64_t ti, std::int64_t m, std::int64_t n) {
    if (n == 2) {  // blocks of 2 are what shuffles are made of
        for (std::int64_t k = 0; k < m; ++k) {
            d[k * d_row] = s[k * s_row];
            d[k * d_row + ti] = s[k * s_row + si];
        }
        return;
    }
    for (std::int64_t k = 0; k < m; ++k)
        for (std::int64_t i = 0; i < n; ++i) d[k * d_row + i * ti] = s[k * s_row + i * si];
}
/// To the next row: all axes but the last as an odometer.
template <class T> void advance(const Region& r, int last, std::int64_t* at, const T*& src, T*& dst) {
    for (int i = last - 1; i >= 0; --i) {
        src += r.s[i];
        dst += r.t[i];
        if (++at[i] < r.d[i]) break;
        src -= r.s[i] * r.d[i];
        dst -= r.t[i] * r.d[i];
        at[i] = 0;
    }
}
/// Elements [b, e) of the region in row-major order of its dims.
template <class T> void copy_range(const Region& r, const T* src, T* dst, std::int64_t b, std::int64_t e) {
    const int last = r.rank - 1;
    const std::int64_t inner = r.d[last], si = r.s[last], ti = r.t[last];
    std::int64_t at[max_rank], row = b / inner, col = b % inner;
    for (int i = last - 1; i >= 0; --i) {
        at[i] = row % r.d[i];
        row /= r.d[i];
        src += at[i] * r.s[i];
        dst += at[i] * r.t[i];
    }
    constexpr bool plain = std::is_trivially_copyable_v<T>;
    const bool runs = plain && si == 1 && ti == 1 && inner * static_cast<std::int64_t>(sizeof(T)) >= 8;
    while (b < e) {
        if (last > 0 && (inner < 16 || runs) && col == 0) {  // short rows: the rest of an axis of them at once
            const int up = last - 1;
            const std::int64_t m = std::min(r.d[up] - at[up], (e - b) / inner);
            if (m > 1) {
                if (runs)
                    for (std::int64_t k = 0; k < m; ++k) {
                        __builtin_prefetch(src + std::min(k + 8, r.d[up] - 1 - at[up]) * r.s[up]);
                        copy_run(dst + k * r.t[up], src + k * r.s[up], inner);
                    }
                else copy_rows(src, r.s[up], si, dst, r.t[up], ti, m, inner);
                b += m * inner;
                if (b >= e) return;
                src += (m - 1) * r.s[up];
                dst += (m - 1) * r.t[up];
                at[up] += m - 1;
                advance(r, last, at, src, dst);
                continue;
            }
        }
        std::int64_t n = std::min(inner - col, e - b);
        const T* s = src + col * si;
        T* d = dst + col * ti;
        if (ti == 1) copy_strided(d, s, si, n);
        else for (std::int64_t k = 0; k < n; ++k) d[k * ti] = s[k * si];
        b += n;
        col = 0;
        advance(r, last, at, src, dst);
    }
}

/// One block of a transposition: reads columns, writes rows. As many rows as lanes interleaved log2(lanes) times are its transpose.
template <class T> void transpose_block(const T* s, std::int64_t ss, T* d, std::int64_t ts, std::int64_t rows, std::int64_t cols) {
    if constexpr (has_lanes<T>) {
        constexpr int n = Sixteen<T>::lanes;
        using V = typename Sixteen<T>::V;
        if (rows == n && cols == n) {
            V a[n], b[n];
            for (int i = 0; i < n; ++i) std::memcpy(&a[i], s + i * ss, 16);
            for (int stage = n; stage > 1; stage /= 2) {
                for (int i = 0; i < n / 2; ++i) {
                    b[2 * i] = interleaved<n, false>(a[i], a[i + n / 2]);
                    b[2 * i + 1] = interleaved<n, true>(a[i], a[i + n / 2]);
                }
                for (int i = 0; i < n; ++i) a[i] = b[i];
            }
            for (int i = 0; i < n; ++i) std::memcpy(d + i * ts, &a[i], 16);
            return;
        }
    }
    for (std::int64_t j = 0; j < rows; ++j)
        for (std::int64_t i = 0; i < cols; ++i) d[j * ts + i] = s[i * ss + j];
}

/// rows x cols elements, rows contiguous in the source, columns in the target.
template <class T> void transpose_tile(const T* s, std::int64_t ss, T* d, std::int64_t ts, std::int64_t rows, std::int64_t cols) {
    constexpr std::int64_t step = has_lanes<T> ? 16 / static_cast<std::int64_t>(sizeof(T)) : 8;
    for (std::int64_t y = 0; y < rows; y += step)
        for (std::int64_t x = 0; x < cols; x += step)
            transpose_block(s + x * ss + y, ss, d + y * ts + x, ts, std::min(step, rows - y), std::min(step, cols - x));
}
/// Targets of this many bytes are written past the caches: they would only push out what is needed next.
inline constexpr std::int64_t stream_bytes = std::int64_t{24} << 20;
/// One line of 64 bytes from an aligned buffer; `stream`: past the caches, d aligned to it.
inline void put_line(void* d, const void* line, bool stream) {
#if defined(__SSE2__)
    if (stream) {
        for (int i = 0; i < 4; ++i) _mm_stream_si128(static_cast<__m128i*>(d) + i, static_cast<const __m128i*>(line)[i]);
        return;
    }
#endif
    (void)stream;
    std::memcpy(d, line, 64);
}
/// After the last put_line of a tile: other threads see the lines.
inline void end_stream() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}
/// A transposition of much memory: tiles of whole cache lines on both sides, through a buffer, 8 x 8 tiles at a time; the lines of a tile some
/// steps ahead (also beyond this region, towards higher rows) are asked for early, for no prefetcher sees them coming.
template <class T> void transpose_lines(const T* s, std::int64_t ss, T* d, std::int64_t ts, std::int64_t rows, std::int64_t cols, bool stream) {
    constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(T)), ahead = static_cast<std::int64_t>(sizeof(T));
    const std::int64_t ni = cols / line, nj = rows / line;
    alignas(64) T buffer[line * line];
    for (std::int64_t t = 0; t < ni * nj; ++t) {
        const std::int64_t next = t + ahead, beyond = next < ni * nj ? 0 : ni * nj;
        const T* p = s + (next - beyond) / nj * line * ss + (next - beyond) % nj * line + (beyond ? nj * line : 0);
        for (std::int64_t k = 0; k < line; ++k) __builtin_prefetch(p + k * ss, 0, 2);
        const std::int64_t i = t / nj * line, j = t % nj * line;
        transpose_tile(s + i * ss + j, ss, buffer, line, line, line);
        for (std::int64_t k = 0; k < line; ++k) put_line(d + (j + k) * ts + i, buffer + k * line, stream);
    }
    if (stream) end_stream();
    const std::int64_t rest = rows % line, more = cols % line;
    if (rest) transpose_tile(s + rows - rest, ss, d + (rows - rest) * ts, ts, rest, cols);
    if (more) transpose_tile(s + (cols - more) * ss, ss, d + cols - more, ts, rows - rest, more);
}
/// The region whose last axis is contiguous in the target and whose axis `j` is contiguous in the source.
template <class T> void copy_transposed(Region r, int j, const T* src, T* dst, Workers& workers) {
    const int last = r.rank - 1;
    for (int i = j; i + 1 < last; ++i) {
        std::swap(r.d[i], r.d[i + 1]);
        std::swap(r.s[i], r.s[i + 1]);
        std::swap(r.t[i], r.t[i + 1]);
    }
    j = last - 1;
    const std::int64_t rows = r.d[j], cols = r.d[last], ss = r.s[last], ts = r.t[j];
    const std::int64_t bytes = r.count() * static_cast<std::int64_t>(sizeof(T));
    const bool zipped = cols == 2 && ts == 2, unzipped = rows <= 4 && ss == rows && rows * static_cast<std::int64_t>(sizeof(T)) != 16;
    const bool lines = has_lanes<T> && bytes >= (2 << 20) && rows * static_cast<std::int64_t>(sizeof(T)) >= 64 && cols * static_cast<std::int64_t>(sizeof(T)) >= 64;
    bool aligned = reinterpret_cast<std::uintptr_t>(dst) % 64 == 0;
    for (int i = 0; i < last; ++i) aligned = aligned && r.t[i] * static_cast<std::int64_t>(sizeof(T)) % 64 == 0;
    const bool stream = lines && aligned && bytes >= stream_bytes;
    const std::int64_t block = lines ? 512 / static_cast<std::int64_t>(sizeof(T)) : sizeof(T) <= 2 ? 64 : 32;
    const std::int64_t tall = zipped ? std::min<std::int64_t>(rows, 4096) : block, wide = unzipped ? std::min<std::int64_t>(cols, 4096) : block;
    const std::int64_t bj = (rows + tall - 1) / tall, bi = (cols + wide - 1) / wide;
    std::int64_t outer = 1;
    for (int i = 0; i < j; ++i) outer *= r.d[i];
    if (j == 1 && rows * cols <= 64)  // many small ones
        return workers.ranges(outer, tile_elements / (rows * cols), [&](std::int64_t b, std::int64_t e) {
            for (const T* s = src + b * r.s[0]; b < e; ++b, s += r.s[0]) {
                T* d = dst + b * r.t[0];
                for (std::int64_t y = 0; y < rows; ++y)
                    for (std::int64_t x = 0; x < cols; ++x) d[y * ts + x] = s[x * ss + y];
            }
        });
    workers.ranges(outer * bj * bi, std::max<std::int64_t>(1, tile_elements / (std::min(rows, tall) * std::min(cols, wide))), [&](std::int64_t b, std::int64_t e) {
        for (; b < e; ++b) {
            std::int64_t j0 = (b % bj) * tall, i0 = b / bj % bi * wide, o = b / bi / bj;
            const T* s = src + i0 * ss + j0;
            T* d = dst + j0 * ts + i0;
            for (int i = j - 1; i >= 0; --i) {
                s += o % r.d[i] * r.s[i];
                d += o % r.d[i] * r.t[i];
                o /= r.d[i];
            }
            const std::int64_t nj = std::min(tall, rows - j0), ni = std::min(wide, cols - i0);
            if (zipped) zip(d, s, s + ss, nj);
            else if (unzipped) for (std::int64_t y = 0; y < nj; ++y) copy_strided(d + y * ts, s + y, ss, ni);
            else if constexpr (has_lanes<T>) {
                if (lines) transpose_lines(s, ss, d, ts, nj, ni, stream);
                else transpose_tile(s, ss, d, ts, nj, ni);
            } else transpose_tile(s, ss, d, ts, nj, ni);
        }
    });
}

/// Copies the region; the target must not overlap the source.
template <class T> void copy(const Region& r, const T* src, T* dst, Workers& workers) {
    const std::int64_t n = r.count();
    if (n <= 0) return;
    if (r.rank == 0) {
        *dst = *src;
        return;
    }
    const int last = r.rank - 1;
    if (r.t[last] == 1 && r.s[last] != 1 && r.s[last] != 0 && r.d[last] > 1)
        for (int j = 0; j < last; ++j)
            if (r.s[j] == 1 && r.d[j] >= 2 && r.d[last] >= 2) return copy_transposed(r, j, src, dst, workers);
    workers.ranges(n, tile_elements, [&](std::int64_t b, std::int64_t e) { copy_range(r, src, dst, b, e); });
}
/// The same for any type that dispatch_size handles.
inline void copy(DType t, const Region& r, const void* src, std::int64_t src_offset, void* dst, std::int64_t dst_offset, Workers& workers) {
    if (r.count() <= 0) return;
    dispatch_size(t, [&](auto tag) {
        using T = typename decltype(tag)::type;
        copy(r, static_cast<const T*>(src) + src_offset, static_cast<T*>(dst) + dst_offset, workers);
    });
}
/// Row-major strides of a shape.
inline void strides(std::span<const std::int64_t> dims, std::int64_t* out) {
    std::int64_t n = 1;
    for (int i = static_cast<int>(dims.size()) - 1; i >= 0; --i) {
        out[i] = n;
        n *= dims[i];
    }
}
/// All of a dense tensor to another place of the same number of elements.
inline void copy_flat(DType t, const void* src, std::int64_t src_offset, void* dst, std::int64_t dst_offset, std::int64_t n, Workers& workers) {
    Region r;
    r.axis(n, 1, 1);
    copy(t, r, src, src_offset, dst, dst_offset, workers);
}
inline void check_rank(int rank) {
    if (rank > max_rank) raise(ErrorCode::unsupported, "rank " + std::to_string(rank) + "; at most 64 is accepted");
}

}  // namespace movement
QUERN_END
