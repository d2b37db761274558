// Copies between strided regions of any rank: what transposition, slicing, expansion, tiling, concatenation
// and splitting are made of.
#pragma once
#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include <quern/kernels/kernel.hpp>
#include <quern/tensor/dispatch.hpp>

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

template <class T> inline void copy_run(T* d, const T* s, std::int64_t n) {
    if constexpr (std::is_trivially_copyable_v<T>) {
        if (n == 1) *d = *s;
        else std::memcpy(d, s, static_cast<std::size_t>(n) * sizeof(T));
    } else {
        std::copy(s, s + n, d);
    }
}

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
    while (b < e) {
        if (last > 0 && inner < 16 && col == 0) {  // short rows: the rest of an axis of them at once
            const int up = last - 1;
            const std::int64_t m = std::min(r.d[up] - at[up], (e - b) / inner);
            if (m > 1) {
                copy_rows(src, r.s[up], si, dst, r.t[up], ti, m, inner);
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
        if (si == 1 && ti == 1) copy_run(d, s, n);
        else if (si == 0 && ti == 1) std::fill(d, d + n, *s);
        else for (std::int64_t k = 0; k < n; ++k) d[k * ti] = s[k * si];
        b += n;
        col = 0;
        advance(r, last, at, src, dst);
    }
}

/// Lanes of 16 bytes: vectors on every machine that compilers make vectors for.
template <class T> struct Sixteen {
    static constexpr int lanes = 16 / static_cast<int>(sizeof(T));
    typedef std::conditional_t<sizeof(T) == 1, std::uint8_t, std::conditional_t<sizeof(T) == 2, std::uint16_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>> Lane;
    typedef Lane V __attribute__((vector_size(16)));
};
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
/// One block of a transposition: reads columns, writes rows. As many rows as lanes interleaved log2(lanes) times are its transpose.
template <class T> void transpose_block(const T* s, std::int64_t ss, T* d, std::int64_t ts, std::int64_t rows, std::int64_t cols) {
    if constexpr (std::is_trivially_copyable_v<T> && sizeof(T) <= 8) {
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

/// The region whose last axis is contiguous in the target and whose axis `j` is contiguous in the source.
template <class T> void copy_transposed(Region r, int j, const T* src, T* dst, Workers& workers) {
    constexpr std::int64_t block = sizeof(T) <= 2 ? 64 : 32, step = sizeof(T) <= 8 ? 16 / static_cast<std::int64_t>(sizeof(T)) : 8;
    const int last = r.rank - 1;
    for (int i = j; i + 1 < last; ++i) {
        std::swap(r.d[i], r.d[i + 1]);
        std::swap(r.s[i], r.s[i + 1]);
        std::swap(r.t[i], r.t[i + 1]);
    }
    j = last - 1;
    const std::int64_t rows = r.d[j], cols = r.d[last], ss = r.s[last], ts = r.t[j];
    const std::int64_t bj = (rows + block - 1) / block, bi = (cols + block - 1) / block;
    std::int64_t outer = 1;
    for (int i = 0; i < j; ++i) outer *= r.d[i];
    workers.ranges(outer * bj * bi, std::max<std::int64_t>(1, tile_elements / (block * block)), [&](std::int64_t b, std::int64_t e) {
        for (; b < e; ++b) {
            std::int64_t i0 = (b % bi) * block, j0 = b / bi % bj * block, o = b / bi / bj;
            const T* s = src + i0 * ss + j0;
            T* d = dst + j0 * ts + i0;
            for (int i = j - 1; i >= 0; --i) {
                s += o % r.d[i] * r.s[i];
                d += o % r.d[i] * r.t[i];
                o /= r.d[i];
            }
            std::int64_t nj = std::min(block, rows - j0), ni = std::min(block, cols - i0);
            if (cols == 2 && ts == 2) {  // two rows like a zip
                for (std::int64_t y = 0; y < nj; ++y) d[2 * y] = s[y], d[2 * y + 1] = s[ss + y];
                continue;
            }
            for (std::int64_t y = 0; y < nj; y += step)
                for (std::int64_t x = 0; x < ni; x += step)
                    transpose_block(s + x * ss + y, ss, d + y * ts + x, ts, std::min(step, nj - y), std::min(step, ni - x));
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
            if (r.s[j] == 1 && r.d[j] >= 4 && r.d[last] >= 2) return copy_transposed(r, j, src, dst, workers);
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
