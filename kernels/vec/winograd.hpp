// Winograd's minimal filtering for 3 x 3 kernels (Lavin and Gray, https://arxiv.org/abs/1509.09308), F(2x2) and F(4x4):
// tiles of the input and the kernels are transformed, multiplied as (T + 2)^2 small matrix products, and transformed
// back. F(4x4) takes a quarter of the multiplications and is about 5 times less exact than the direct sum.
#pragma once
#include <quern/kernels/vec/conv.hpp>

QUERN_VEC_BEGIN

/// One dimension of the transforms, for interpolation points 0, 1, -1, infinity (T = 2) and 2, -2 (T = 4).
template <int T> struct Wino;
template <> struct Wino<2> {
    static __attribute__((always_inline)) inline void in(const F* d, F* t) {
        t[0] = d[0] - d[2];
        t[1] = d[1] + d[2];
        t[2] = d[2] - d[1];
        t[3] = d[1] - d[3];
    }
    static __attribute__((always_inline)) inline void out(const F* m, F* y) {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] - m[3];
    }
    static __attribute__((always_inline)) inline void kernel(const D* g, D* u) {
        D half = splat(0.5);
        u[0] = g[0];
        u[1] = (g[0] + g[1] + g[2]) * half;
        u[2] = (g[0] - g[1] + g[2]) * half;
        u[3] = g[2];
    }
};
template <> struct Wino<4> {
    static __attribute__((always_inline)) inline void in(const F* d, F* t) {
        F c4 = splat(4.f), c5 = splat(5.f), c2 = splat(2.f);
        F a = fma(-c4, d[2], d[4]), b = fma(-c4, d[1], d[3]), c = d[4] - d[2], e = d[3] - d[1];
        t[0] = fma(c4, d[0], fma(-c5, d[2], d[4]));
        t[1] = a + b;
        t[2] = a - b;
        t[3] = fma(c2, e, c);
        t[4] = fma(-c2, e, c);
        t[5] = fma(c4, d[1], fma(-c5, d[3], d[5]));
    }
    static __attribute__((always_inline)) inline void out(const F* m, F* y) {
        F c2 = splat(2.f), c4 = splat(4.f), c8 = splat(8.f);
        F s1 = m[1] + m[2], s2 = m[3] + m[4], d1 = m[1] - m[2], d2 = m[3] - m[4];
        y[0] = m[0] + s1 + s2;
        y[1] = fma(c2, d2, d1);
        y[2] = fma(c4, s2, s1);
        y[3] = fma(c8, d2, d1) + m[5];
    }
    static __attribute__((always_inline)) inline void kernel(const D* g, D* u) {
        D quarter = splat(0.25), sixth = splat(1.0 / 6), part = splat(1.0 / 24), twelfth = splat(1.0 / 12);
        D even = g[0] + g[2], a = g[0] * part + g[2] * sixth, b = g[1] * twelfth;
        u[0] = g[0] * quarter;
        u[1] = -(even + g[1]) * sixth;
        u[2] = -(even - g[1]) * sixth;
        u[3] = a + b;
        u[4] = a - b;
        u[5] = g[2];
    }
};
/// Rows of transformed tiles are padded, and the planes of transform points offset: powers of two would fall
/// into the same lines of the cache.
QUERN_VEC_INL i64 wino_row(i64 channels) { return channels + 16; }
QUERN_VEC_INL i64 wino_plane(i64 tiles, i64 channels) { return tiles * wino_row(channels) + 16; }
QUERN_VEC_FN std::size_t winograd_tile_floats(int t, i64 tiles, i64 channels) {
    return static_cast<std::size_t>((t + 2) * (t + 2) * wino_plane(tiles, channels));
}
QUERN_VEC_INL i64 wino_sums(i64 tiles) { return tiles * panel<float> + 16; }
QUERN_VEC_FN std::size_t winograd_work_floats(int t, i64 tiles) { return static_cast<std::size_t>((t + 2) * (t + 2) * wino_sums(tiles)); }

/// Weights [out, in, 3, 3] to [panel][point][in][panel columns].
template <int T> QUERN_VEC_FN void wino_weights(const ConvShape& s, const float* w, float* u) {
    constexpr int A = T + 2, N = panel<float>, L = lanes<double>;
    for (i64 p = 0; p * N < s.out_channels; ++p)
        for (i64 c = 0; c < s.channels; ++c)
            for (int k = 0; k < N; k += L) {  // output channels beside each other
                double g[9 * L];
                for (int l = 0; l < L; ++l)
                    for (int j = 0; j < 9; ++j) g[j * L + l] = static_cast<double>(w[((p * N + k + l) * s.channels + c) * 9 + j]);
                D half[A * 3];
                QUERN_UNROLL
                for (int j = 0; j < 3; ++j) {
                    D column[3] = {load(g + j * L), load(g + (3 + j) * L), load(g + (6 + j) * L)}, r[A];
                    Wino<T>::kernel(column, r);
                    QUERN_UNROLL
                    for (int i = 0; i < A; ++i) half[i * 3 + j] = r[i];
                }
                QUERN_UNROLL
                for (int i = 0; i < A; ++i) {
                    D r[A];
                    Wino<T>::kernel(half + i * 3, r);
                    for (int j = 0; j < A; ++j) {
                        float* to = u + ((p * A * A + i * A + j) * s.channels + c) * N + k;
                        for (int l = 0; l < L; ++l) to[l] = static_cast<float>(r[j][l]);
                    }
                }
            }
}
template <int T>
QUERN_VEC_FN void wino_input(const ConvShape& s, const float* x, i64 t0, i64 t1, i64 at, i64 tiles, float* v, const float* zeros) {
    constexpr int A = T + 2;
    i64 across = blocks_of(s.out[2], T), row = wino_row(s.channels), plane = wino_plane(tiles, s.channels), px = s.in_channels;
    for (i64 t = t0; t < t1; ++t, ++at) {
        i64 y0 = t / across * T - s.pad[1], x0 = t % across * T - s.pad[2];
        const float* from[A * A];
        for (int i = 0; i < A; ++i)
            for (int j = 0; j < A; ++j) {
                i64 h = y0 + i, w = x0 + j;
                from[i * A + j] = h >= 0 && h < s.in[1] && w >= 0 && w < s.in[2] ? x + (h * s.in[2] + w) * px : zeros;
            }
        for (int i = 0; i < A; ++i) {  // columns that the next tiles will want
            i64 h = y0 + i, w = x0 + A + T;
            if (h < 0 || h >= s.in[1]) continue;
            for (i64 q = w * px, end = lesser(w + T, s.in[2]) * px; q < end; q += 16) __builtin_prefetch(x + h * s.in[2] * px + q, 0, 3);
        }
        float* o = v + at * row;
        for (i64 c = 0; c < s.channels; c += W) {
            F tmp[A * A];
            QUERN_UNROLL
            for (int j = 0; j < A; ++j) {
                F d[A], r[A];
                QUERN_UNROLL
                for (int i = 0; i < A; ++i) d[i] = load(from[i * A + j] + c);
                Wino<T>::in(d, r);
                QUERN_UNROLL
                for (int i = 0; i < A; ++i) tmp[i * A + j] = r[i];
            }
            QUERN_UNROLL
            for (int i = 0; i < A; ++i) {
                F r[A];
                Wino<T>::in(tmp + i * A, r);
                QUERN_UNROLL
                for (int j = 0; j < A; ++j) store(o + (i * A + j) * plane + c, r[j]);
            }
        }
    }
}
/// Sums of one panel, back to pixels: y = f(out + bias [+ residual]) at the tiles' places.
template <int T>
QUERN_VEC_INL void wino_back(const ConvShape& s, const float* sums, i64 stride, i64 t0, i64 count, float* y, const DepthwiseEnds& e, const float* residual) {
    constexpr int A = T + 2, N = panel<float>;
    i64 across = blocks_of(s.out[2], T);
    const bool large = s.pixels_out() * s.out_channels > 1 << 20;  // floats: more than the second cache
    F lo = splat(e.lo), hi = splat(e.hi);
    for (i64 t = 0; t < count; ++t) {
        i64 oy = (t0 + t) / across * T, ox = (t0 + t) % across * T;
        if (large && ox + T < s.out[2])  // the next tile
            for (i64 i = oy; i < lesser(oy + T, s.out[1]); ++i) {
                i64 at = (i * s.out[2] + ox + T) * s.out_channels, n = lesser(T, s.out[2] - ox - T);
                fetch_tile<true>(y + at, s.out_channels, n, N);
                if (residual) fetch_tile<false>(residual + at, s.out_channels, n, N);
            }
        for (int c = 0; c < N; c += W) {
            F tmp[T * A], bias = e.bias ? load(e.bias + c) : F{};
            QUERN_UNROLL
            for (int j = 0; j < A; ++j) {
                F d[A], r[T];
                QUERN_UNROLL
                for (int i = 0; i < A; ++i) d[i] = load(sums + (i * A + j) * stride + t * N + c);
                Wino<T>::out(d, r);
                QUERN_UNROLL
                for (int i = 0; i < T; ++i) tmp[i * A + j] = r[i];
            }
            for (int i = 0; i < T && oy + i < s.out[1]; ++i) {
                F r[T];
                Wino<T>::out(tmp + i * A, r);
                i64 at = ((oy + i) * s.out[2] + ox) * s.out_channels + c;
                QUERN_UNROLL
                for (int j = 0; j < T; ++j, at += s.out_channels) {
                    if (ox + j >= s.out[2]) break;
                    F v = r[j] + bias;
                    if (residual) v += load(residual + at);
                    store(y + at, clip(v, lo, hi));
                }
            }
        }
    }
}
template <int T>
QUERN_VEC_FN void wino_output(const ConvShape& s, const float* v, const float* u, i64 t0, i64 at, i64 count, i64 tiles, i64 p0, i64 p1, float* y,
                              const Epilogue& e, float* work) {
    constexpr int Q = (T + 2) * (T + 2), N = panel<float>, R = rows_max<float>;
    i64 row = wino_row(s.channels), plane = wino_plane(tiles, s.channels), stride = wino_sums(count), nr = blocks_of(count, R);
    i64 step = (N * 4 + nr - 1) / nr;
    const bool shared = (p1 - p0) * N < s.out_channels;
    float inf = __builtin_inff();
    DepthwiseEnds ends{nullptr, -inf, inf, false};
    bool fused = e.post == Post::none || e.post == Post::relu || e.post == Post::clip;
    if (e.post == Post::relu) ends.lo = 0;
    if (e.post == Post::clip) ends.lo = e.alpha, ends.hi = e.beta;
    for (i64 p = p0; p < p1; ++p) {
        for (int q = 0; q < Q; ++q) {
            const float* b = u + (p * Q + q) * s.channels * N;
            const char* next = reinterpret_cast<const char*>(b + s.channels * N);
            for (i64 ir = 0; ir < nr; ++ir) {
                i64 r0 = piece(count, nr, ir), r = piece(count, nr, ir + 1) - r0;
                // Where panels are shared out, half of these lines were written by other cores, in rows too short to be fetched ahead.
                for (i64 i = r0; shared && q + 1 < Q && i < r0 + r; ++i)
                    for (i64 c = 0; c < s.channels; c += 16) __builtin_prefetch(v + (q + 1) * plane + (at + i) * row + c, 0, 2);
                micro_for<float, in_place>(r)(v + q * plane + (at + r0) * row, row, b, N, work + q * stride + r0 * N, N, s.channels, false, next, step, nullptr);
                next += step * s.channels;
            }
        }
        if (fused) ends.bias = e.bias_row ? e.bias_row + p * N : nullptr;
        wino_back<T>(s, work, stride, t0, count, y + p * N, ends, fused && e.residual ? e.residual + p * N : nullptr);
        if (fused) continue;
        i64 across = blocks_of(s.out[2], T);
        for (i64 t = t0; t < t0 + count; ++t)
            for (i64 oy = t / across * T; oy < lesser(t / across * T + T, s.out[1]); ++oy) {
                i64 ox = t % across * T, first = (oy * s.out[2] + ox) * s.out_channels + p * N;
                Epilogue f = e;
                if (f.bias_row) f.bias_row += p * N;
                if (f.residual) f.residual += first;
                finish(y + first, s.out_channels, lesser(T, s.out[2] - ox), N, f);
            }
    }
}
QUERN_VEC_FN void winograd_input_f32(const ConvShape& s, int t, const float* x, i64 t0, i64 t1, i64 at, i64 tiles, float* v, const float* zeros) {
    if (t == 4) wino_input<4>(s, x, t0, t1, at, tiles, v, zeros);
    else wino_input<2>(s, x, t0, t1, at, tiles, v, zeros);
}
QUERN_VEC_FN void winograd_output_f32(const ConvShape& s, int t, const float* v, const float* u, i64 t0, i64 at, i64 count, i64 tiles, i64 p0, i64 p1,
                                      float* y, const Epilogue& e, float* work) {
    if (t == 4) wino_output<4>(s, v, u, t0, at, count, tiles, p0, p1, y, e, work);
    else wino_output<2>(s, v, u, t0, at, count, tiles, p0, p1, y, e, work);
}
QUERN_VEC_FN void winograd_weights_f32(const ConvShape& s, int t, const float* w, float* u) {
    if (t == 4) wino_weights<4>(s, w, u);
    else wino_weights<2>(s, w, u);
}

QUERN_VEC_END
