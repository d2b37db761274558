// Convolutions as products whose operand is gathered block by block, and depthwise convolutions.
#pragma once
#include <quern/kernels/vec/gemm.hpp>

QUERN_VEC_BEGIN

QUERN_VEC_INL void copy(float* d, const float* s, i64 n) {
    for (; n >= W; n -= W, d += W, s += W) store(d, load(s));
    if (n > 0) store_n(d, load_n(s, n), n);
}
QUERN_VEC_INL void zero(float* d, i64 n) {
    for (; n >= W; n -= W, d += W) store(d, F{});
    if (n > 0) store_n(d, F{}, n);
}
/// The part [from, to) of a piece of `size` floats, of which [lo, hi) are at src + lo.. and the others are zero.
QUERN_VEC_INL void copy_part(float* dst, const float* src, i64 from, i64 to, i64 lo, i64 hi) {
    i64 a = larger(from, lo), b = lesser(to, hi);
    if (a >= b) return zero(dst, to - from);
    if (a > from) zero(dst, a - from);
    copy(dst + (a - from), src + a, b - a);
    if (b < to) zero(dst + (b - from), to - b);
}

/// Rows of the im2col matrix of an nhwc image: row = output pixel, column = (tap, channel).
struct PixelRows {
    const ConvShape& s;
    const float* x;
    i64 p0;
    __attribute__((always_inline)) inline void operator()(i64 m0, i64 mc, i64 k0, i64 kc, float* dst, i64 stride) const {
        // where the taps of a kernel row are neighbours in memory, the row is one piece
        bool merged = s.channels == s.in_channels && s.dilation[2] == 1;
        i64 piece_taps = merged ? s.kernel[2] : 1, size = piece_taps * s.channels, per_row = merged ? 1 : s.kernel[2];
        i64 p = p0 + m0;
        i64 ow = p % s.out[2], oh = p / s.out[2] % s.out[1], od = p / (s.out[2] * s.out[1]);
        for (i64 r = 0; r < mc; ++r, dst += stride) {
            i64 d0 = od * s.stride[0] - s.pad[0], h0 = oh * s.stride[1] - s.pad[1], w0 = ow * s.stride[2] - s.pad[2];
            i64 first = k0 / size, at = k0 - first * size, left = kc;
            i64 tw = first % per_row, th = first / per_row % s.kernel[1], td = first / (per_row * s.kernel[1]);
            float* o = dst;
            while (left > 0) {
                i64 to = lesser(size, at + left);
                i64 d = d0 + td * s.dilation[0], h = h0 + th * s.dilation[1], w = w0 + tw * s.dilation[2];
                if (d < 0 || d >= s.in[0] || h < 0 || h >= s.in[1]) zero(o, to - at);
                else {
                    i64 lo = w < 0 ? lesser(-w, piece_taps) : 0, hi = larger(lesser(s.in[2] - w, piece_taps), lo);
                    copy_part(o, x + ((d * s.in[1] + h) * s.in[2] + w) * s.in_channels, at, to, lo * s.channels, hi * s.channels);
                }
                o += to - at;
                left -= to - at;
                at = 0;
                if (++tw == per_row) {
                    tw = 0;
                    if (++th == s.kernel[1]) th = 0, ++td;
                }
            }
            if (++ow == s.out[2]) {
                ow = 0;
                if (++oh == s.out[1]) oh = 0, ++od;
            }
        }
    }
};
QUERN_VEC_INL bool pointwise(const ConvShape& s) {
    for (int d = 0; d < 3; ++d)
        if (s.kernel[d] != 1 || s.stride[d] != 1 || s.pad[d] != 0 || s.in[d] != s.out[d]) return false;
    return true;
}
QUERN_VEC_FN void conv_nhwc_f32(const ConvShape& s, const float* x, const float* packed, i64 p0, i64 p1, i64 n, float* y, i64 ldy,
                                const Epilogue& e, void* work) {
    constexpr int N = panel<float>;
    i64 k = s.taps() * s.channels;
    if (pointwise(s)) return gemm_packed_f32(p1 - p0, n, k, x + p0 * s.in_channels, s.in_channels, false, packed, y, ldy, e, work);
    auto columns = [&](i64 p, i64 k0, i64, i64*) { return packed + p * N * k + k0 * N; };
    product<float>(p1 - p0, n, k, PixelRows{s, x, p0}, columns, y, ldy, &e, static_cast<float*>(work));
}

QUERN_VEC_FN std::size_t packed_rows_floats(i64 m, i64 k) { return static_cast<std::size_t>(m * k) + 64; }
QUERN_VEC_FN void pack_rows_f32(i64 m, i64 k, const float* a, i64 lda, float* packed) {
    i64 nb = blocks_of(m, rows_max<float>);
    for (i64 b = 0; b < nb; ++b) {
        i64 m0 = piece(m, nb, b), r = piece(m, nb, b + 1) - m0;
        for (i64 i = 0; i < k; ++i)
            for (i64 j = 0; j < r; ++j) *packed++ = a[(m0 + j) * lda + i];
    }
    for (int i = 0; i < 64; ++i) *packed++ = 0;
}
/// Output pixels of one panel that lie in one output row.
struct PixelRun {
    i64 at, n, d0, h0, w0;  ///< place in the panel, pixels, input position of tap 0
};
/// Rows [k0, k0 + kc) of the im2col matrix of an nchw image for a panel of output pixels: row = (channel, tap).
QUERN_VEC_FN void pixel_panel(const ConvShape& s, const float* x, const PixelRun* runs, int n_runs, i64 cols, i64 k0, i64 kc, float* dst) {
    constexpr int N = panel<float>;
    i64 taps = s.taps(), plane = s.pixels_in(), sw = s.stride[2];
    i64 c = k0 / taps, t = k0 % taps;
    for (i64 i = 0; i < kc; ++i, dst += N) {
        i64 tw = t % s.kernel[2] * s.dilation[2], th = t / s.kernel[2] % s.kernel[1] * s.dilation[1];
        i64 td = t / (s.kernel[2] * s.kernel[1]) * s.dilation[0];
        for (int q = 0; q < n_runs; ++q) {
            const PixelRun& run = runs[q];
            i64 d = run.d0 + td, h = run.h0 + th, w = run.w0 + tw;
            float* o = dst + run.at;
            if (d < 0 || d >= s.in[0] || h < 0 || h >= s.in[1]) {
                for (i64 j = 0; j < run.n; ++j) o[j] = 0;
                continue;
            }
            const float* row = x + c * plane + (d * s.in[1] + h) * s.in[2];
            if (sw == 1) {
                copy_part(o, row + w, 0, run.n, lesser(run.n, larger(0, -w)), larger(0, s.in[2] - w));
            } else {
                for (i64 j = 0; j < run.n; ++j, w += sw) o[j] = w >= 0 && w < s.in[2] ? row[w] : 0.f;
            }
        }
        for (i64 j = cols; j < N; ++j) dst[j] = 0;
        if (++t == taps) t = 0, ++c;
    }
}
QUERN_VEC_FN void conv_nchw_f32(const ConvShape& s, const float* x, const float* packed, i64 m, i64 b0, i64 b1, i64 p0, i64 p1, float* y,
                                const Epilogue& e, void* work) {
    constexpr int N = panel<float>, R = rows_max<float>;
    float* tile = static_cast<float*>(work);
    float* gathered = tile + N * R;
    i64 k = s.taps() * s.channels, nb = blocks_of(m, R), nk = blocks_of(k, long_k), plane = s.pixels_out();
    bool in_place = pointwise(s);  // the panel is a part of the image
    for (i64 q0 = p0; q0 < p1; q0 += N) {
        i64 cols = lesser(N, p1 - q0);
        PixelRun runs[N];
        int n_runs = 0;
        for (i64 j = 0; j < cols; ++n_runs) {
            i64 p = q0 + j, ow = p % s.out[2], oh = p / s.out[2] % s.out[1], od = p / (s.out[2] * s.out[1]);
            i64 n = lesser(cols - j, s.out[2] - ow);
            runs[n_runs] = {j, n, od * s.stride[0] - s.pad[0], oh * s.stride[1] - s.pad[1], ow * s.stride[2] - s.pad[2]};
            j += n;
        }
        for (i64 ik = 0; ik < nk; ++ik) {
            i64 k0 = piece(k, nk, ik), kc = piece(k, nk, ik + 1) - k0, bs = N;
            const float* b = gathered;
            if (in_place && cols == N) b = x + k0 * plane + q0, bs = plane;
            else pixel_panel(s, x, runs, n_runs, cols, k0, kc, gathered);
            for (i64 ib = b0; ib < b1; ++ib) {
                i64 m0 = piece(m, nb, ib), r = piece(m, nb, ib + 1) - m0;
                const float* a = packed + m0 * k + k0 * r;
                float* c = y + m0 * plane + q0;
                put<float>(micro_for<float, 0>(r), a, r, b, bs, c, plane, r, cols, kc, ik > 0,
                           reinterpret_cast<const char*>(packed + (m0 + r) * k + k0 * r), r * 4, tile);
                if (ik + 1 == nk) finish_if_f32(c, plane, r, cols, &e, m0, q0);
            }
        }
    }
    if (k == 0) {
        i64 m0 = piece(m, nb, b0), m1 = piece(m, nb, b1);
        for (i64 i = m0; i < m1; ++i) zero(y + i * plane + p0, p1 - p0);
        finish_if_f32(y + m0 * plane + p0, plane, m1 - m0, p1 - p0, &e, m0, p0);
    }
}

/// First and one past the last output position whose tap at `offset` reads inside [0, size).
QUERN_VEC_INL void valid_range(i64 offset, i64 size, i64 stride, i64 out, i64* lo, i64* hi) {
    i64 l = offset < 0 ? (-offset + stride - 1) / stride : 0;
    i64 h = offset >= size ? 0 : (size - 1 - offset) / stride + 1;
    *hi = lesser(h, out);
    *lo = lesser(l, *hi > 0 ? *hi : 0);
    if (*hi < *lo) *hi = *lo;
}
QUERN_VEC_FN void depthwise_f32(const float* x, i64 h, i64 w, const float* k, i64 kh, i64 kw, i64 sh, i64 sw, i64 dh, i64 dw, i64 pt,
                                i64 pl, float* y, i64 oh, i64 ow) {
    i64 in_lo, in_hi;  // outputs whose kernel row lies inside
    valid_range(-pl, w, sw, ow, &in_lo, &in_hi);
    i64 lo2, hi2;
    valid_range((kw - 1) * dw - pl, w, sw, ow, &lo2, &hi2);
    in_hi = lesser(in_hi, hi2);
    in_lo = larger(in_lo, lo2);
    if (in_hi < in_lo) in_hi = in_lo;
    for (i64 r = 0; r < oh; ++r) {
        i64 h0 = r * sh - pt;
        float* o = y + r * ow;
        auto edge = [&](i64 from, i64 to) {
            for (i64 c = from; c < to; ++c) {
                float acc = o[c];
                for (i64 i = 0; i < kh; ++i) {
                    i64 a = h0 + i * dh;
                    if (a < 0 || a >= h) continue;
                    for (i64 j = 0; j < kw; ++j) {
                        i64 b = c * sw - pl + j * dw;
                        if (b >= 0 && b < w) acc = fma1(k[i * kw + j], x[a * w + b], acc);
                    }
                }
                o[c] = acc;
            }
        };
        edge(0, in_lo);
        i64 c = in_lo;
        for (; sw == 1 && c + W <= in_hi; c += W) {
            F acc = load(o + c);
            for (i64 i = 0; i < kh; ++i) {
                i64 a = h0 + i * dh;
                if (a < 0 || a >= h) continue;
                const float* s = x + a * w + c - pl;
                for (i64 j = 0; j < kw; ++j) acc = fma(splat(k[i * kw + j]), load(s + j * dw), acc);
            }
            store(o + c, acc);
        }
        for (; sw != 1 && c + W <= in_hi; c += W) {
            F acc = load(o + c);
            for (i64 i = 0; i < kh; ++i) {
                i64 a = h0 + i * dh;
                if (a < 0 || a >= h) continue;
                const float* s = x + a * w + c * sw - pl;
                for (i64 j = 0; j < kw; ++j) {
                    F v;
                    for (int l = 0; l < W; ++l) v[l] = s[j * dw + l * sw];
                    acc = fma(splat(k[i * kw + j]), v, acc);
                }
            }
            store(o + c, acc);
        }
        edge(c, ow);
    }
}

/// The taps of one output pixel that lie inside: where they read, relative to the image, and their weights.
struct Taps {
    static constexpr int most = 128;
    i64 x[most], w[most];
    int n = 0;
};
/// Kernel columns [j0, j1) of every kernel row inside; resumes at tap row `from` when the list is full.
QUERN_VEC_FN i64 list_taps(const ConvShape& s, i64 d0, i64 h0, i64 w0, i64 j0, i64 j1, i64 from, Taps& list) {
    list.n = 0;
    i64 rows = s.kernel[0] * s.kernel[1], r = from;
    for (; r < rows && list.n + (j1 - j0) <= Taps::most; ++r) {
        i64 d = d0 + r / s.kernel[1] * s.dilation[0], h = h0 + r % s.kernel[1] * s.dilation[1];
        if (d < 0 || d >= s.in[0] || h < 0 || h >= s.in[1]) continue;
        for (i64 j = j0; j < j1; ++j) {
            list.x[list.n] = ((d * s.in[1] + h) * s.in[2] + w0 + j * s.dilation[2]) * s.in_channels;
            list.w[list.n++] = (r * s.kernel[2] + j) * s.channels;
        }
    }
    return r;
}
/// What is known of a depthwise product's end without a second pass: bias before, bounds after.
struct DepthwiseEnds {
    const float* bias;  ///< may be null
    float lo, hi;
    bool more;  ///< y holds a first part of the sum
};
/// P neighbouring output pixels, `px` floats of input apart, over the taps of the list; C vectors of channels.
template <int P, int C>
QUERN_VEC_INL void depthwise_block(const ConvShape& s, const float* x, const float* w, const Taps& list, i64 px, const DepthwiseEnds& e,
                                   float* y, i64 c) {
    F acc[P][C];
    QUERN_UNROLL
    for (int q = 0; q < P; ++q)
        QUERN_UNROLL
        for (int v = 0; v < C; ++v) acc[q][v] = e.more ? load(y + q * s.out_channels + c + v * W) : e.bias ? load(e.bias + c + v * W) : F{};
    for (int t = 0; t < list.n; ++t) {
        const float* src = x + list.x[t] + c;
        QUERN_UNROLL
        for (int v = 0; v < C; ++v) {
            F k = load(w + list.w[t] + c + v * W);
            QUERN_UNROLL
            for (int q = 0; q < P; ++q) acc[q][v] = fma(k, load(src + q * px + v * W), acc[q][v]);
        }
    }
    F lo = splat(e.lo), hi = splat(e.hi);
    QUERN_UNROLL
    for (int q = 0; q < P; ++q)
        QUERN_UNROLL
        for (int v = 0; v < C; ++v) store(y + q * s.out_channels + c + v * W, clip(acc[q][v], lo, hi));
}
template <int P>
QUERN_VEC_FN void depthwise_pixels(const ConvShape& s, const float* x, const float* w, const Taps& list, i64 px, const DepthwiseEnds& e,
                                   float* y) {
    constexpr int C = P == 1 ? 4 : 1;
    i64 c = 0;
    for (; c + C * W <= s.channels; c += C * W) depthwise_block<P, C>(s, x, w, list, px, e, y, c);
    for (; c + W <= s.channels; c += W) depthwise_block<P, 1>(s, x, w, list, px, e, y, c);
    if (c == s.channels) return;
    i64 part = s.channels - c;
    for (int q = 0; q < P; ++q) {
        F acc = e.more ? load_n(y + q * s.out_channels + c, part) : e.bias ? load_n(e.bias + c, part) : F{};
        for (int t = 0; t < list.n; ++t) acc = fma(load_n(w + list.w[t] + c, part), load_n(x + list.x[t] + c + q * px, part), acc);
        store_n(y + q * s.out_channels + c, clip(acc, splat(e.lo), splat(e.hi)), part);
    }
}
QUERN_VEC_FN void depthwise_nhwc_f32(const ConvShape& s, const float* x, const float* w, i64 r0, i64 r1, float* y, const Epilogue& e) {
    constexpr int P = QUERN_VEC_BYTES == 64 ? 7 : 4;
    i64 reach = (s.kernel[2] - 1) * s.dilation[2], rows = s.kernel[0] * s.kernel[1], px = s.in_channels * s.stride[2];
    bool fused = !e.residual && e.scale == 1.f && (e.post == Post::none || e.post == Post::relu || e.post == Post::clip);
    float inf = __builtin_inff();
    DepthwiseEnds first{e.bias_row, -inf, inf, false};
    if (fused && e.post == Post::relu) first.lo = 0;
    if (fused && e.post == Post::clip) first.lo = e.alpha, first.hi = e.beta;
    bool whole = s.taps() <= Taps::most;  // else the sum is made in parts, with its end after the last
    if (!whole || !fused) first = {nullptr, -inf, inf, false};
    for (i64 r = r0; r < r1; ++r) {
        i64 d0 = r / s.out[1] * s.stride[0] - s.pad[0], h0 = r % s.out[1] * s.stride[1] - s.pad[1], listed = -1;
        Taps inside;
        for (i64 o = 0; o < s.out[2];) {
            i64 w0 = o * s.stride[2] - s.pad[2], p = r * s.out[2] + o, done = 1, j0 = 0, j1 = s.kernel[2];
            float* dst = y + p * s.out_channels;
            if (whole && w0 >= 0 && w0 + reach < s.in[2]) {  // all of these read the same taps, moved along
                if (listed < 0) list_taps(s, d0, h0, w0, 0, j1, 0, inside), listed = o;
                const float* from = x + (o - listed) * px;
                if (o + P <= s.out[2] && w0 + (P - 1) * s.stride[2] + reach < s.in[2]) depthwise_pixels<P>(s, from, w, inside, px, first, dst), done = P;
                else depthwise_pixels<1>(s, from, w, inside, px, first, dst);
            } else {
                j0 = w0 < 0 ? lesser(s.kernel[2], (-w0 + s.dilation[2] - 1) / s.dilation[2]) : 0;
                for (j1 = j0; j1 < s.kernel[2] && w0 + j1 * s.dilation[2] < s.in[2];) ++j1;
                DepthwiseEnds part = first;
                for (i64 a = j0, once = 1; a < j1 || once; a += Taps::most, once = 0)
                    for (i64 b = lesser(j1, a + Taps::most), row = 0; row < rows; part.more = true) {
                        Taps list;
                        row = list_taps(s, d0, h0, w0, a, b, row, list);
                        depthwise_pixels<1>(s, x, w, list, px, part, dst);
                    }
            }
            if (!whole || !fused) {
                Epilogue at = e;
                if (at.residual) at.residual += p * s.out_channels;
                finish(dst, s.out_channels, done, s.channels, at);
            }
            o += done;
        }
    }
}

QUERN_VEC_END
