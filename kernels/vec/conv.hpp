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
/// C[R, panel] (+)= A x B where row r of A is, tap by tap, `channels` floats at rows[tap * R + r]; b, pf and `end` as for micro().
template <int R>
QUERN_VEC_FN void micro_taps(const float* const* rows, i64 taps, i64 channels, const float* b, float* c, i64 ldc, bool acc, const char* pf, i64 pfs, const End* end) {
    constexpr int N = panel<float>;
    F s[R][2];
    begin_sums<float>(s, c, ldc, acc);
    const bool ahead = end && end->next;
    const i64 some = lesser(channels, larger(16, taps * channels / R));
    i64 row = 0;
    for (; taps > 0; --taps, rows += R) {
        const float* at[R];
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) at[r] = rows[r];
        for (i64 i = 0; i < channels;) {
            if (ahead && row < R) fetch_row(end, row++ * ldc);
            for (const i64 to = lesser(channels, i + some); i < to; ++i) {
                F b0 = load(b), b1 = load(b + W);
                __builtin_prefetch(pf, 0, 2);
                pf += pfs;
                __builtin_prefetch(b + 512, 0, 3);
                __builtin_prefetch(b + 512 + W, 0, 3);
                b += N;
                QUERN_UNROLL
                for (int r = 0; r < R; ++r) {
                    F x = splat(at[r][i]);
                    s[r][0] = fma(x, b0, s[r][0]);
                    s[r][1] = fma(x, b1, s[r][1]);
                }
            }
        }
    }
    if (end) return micro_end<R>(s, c, ldc, *end);
    store_sums<float>(s, c, ldc);
}
using MicroTaps = void (*)(const float* const*, i64, i64, const float*, float*, i64, bool, const char*, i64, const End*);
template <int R = rows_max<float>>
QUERN_VEC_INL MicroTaps taps_for(i64 rows) {
    if constexpr (R == 1) return &micro_taps<1>;
    else return rows == R ? &micro_taps<R> : taps_for<R - 1>(rows);
}
/// Where `pixels` output pixels from p0 read each tap; `zeros` outside of the image.
QUERN_VEC_FN void list_rows(const ConvShape& s, const float* x, const float* zeros, i64 p0, i64 pixels, const float** rows) {
    i64 ow = p0 % s.out[2], oh = p0 / s.out[2] % s.out[1], od = p0 / (s.out[2] * s.out[1]);
    for (i64 r = 0; r < pixels; ++r) {
        i64 at = r;
        for (i64 i = 0; i < s.kernel[0]; ++i)
            for (i64 j = 0; j < s.kernel[1]; ++j) {
                i64 d = od * s.stride[0] - s.pad[0] + i * s.dilation[0], h = oh * s.stride[1] - s.pad[1] + j * s.dilation[1];
                bool inside = d >= 0 && d < s.in[0] && h >= 0 && h < s.in[1];
                for (i64 l = 0; l < s.kernel[2]; ++l, at += pixels) {
                    i64 w = ow * s.stride[2] - s.pad[2] + l * s.dilation[2];
                    rows[at] = inside && w >= 0 && w < s.in[2] ? x + ((d * s.in[1] + h) * s.in[2] + w) * s.in_channels : zeros;
                }
            }
        if (++ow < s.out[2]) continue;
        ow = 0;
        if (++oh == s.out[1]) oh = 0, ++od;
    }
}
constexpr i64 most_channels = 16384, most_taps = 128;  ///< of convolutions whose pointers and zeros fit into the work of a product
static_assert(block_rows<float> * (panel<float> + 2 * most_taps) + most_channels <= static_cast<i64>(product_work<float> / sizeof(float)) || QUERN_VEC_BYTES < 64);
/// Whether rows of channels are read where they lie, tap by tap: not so short ones.
QUERN_VEC_FN bool reads_taps(const ConvShape& s) { return QUERN_VEC_BYTES == 64 && s.channels >= 32 && s.channels <= most_channels && s.taps() <= most_taps && !pointwise(s); }
constexpr i64 taps_k = 1536;  ///< of a piece of a panel, about
QUERN_VEC_FN void conv_taps(const ConvShape& s, const float* x, const float* packed, i64 p0, i64 p1, i64 n, float* y, i64 ldy, const Epilogue& e, float* work) {
    constexpr int N = panel<float>;
    float *tile = work, *zeros = tile + N * block_rows<float>;
    auto* rows = reinterpret_cast<const float**>(zeros + (s.channels + 15) / 16 * 16);
    zero(zeros, s.channels);
    End end{};
    const bool in_registers = fits_end(&e, end);
    const i64 taps = s.taps(), k = taps * s.channels, nm = blocks_of(p1 - p0, block_rows<float>), nk = blocks_of(taps, larger(1, taps_k / s.channels)), np = blocks_of(n, N);
    // See MatrixRows::most_rows; with more taps the weights that fewer rows share would take longer.
    const i64 R = taps == 1 && s.stride[2] * s.in_channels * 4 % 4096 == 0 ? paged_rows<float> : rows_max<float>;
    for (i64 im = 0; im < nm; ++im) {
        const i64 m0 = piece(p1 - p0, nm, im), mc = piece(p1 - p0, nm, im + 1) - m0, nr = blocks_of(mc, R);
        for (i64 ir = 0; ir < nr; ++ir) {
            i64 r0 = piece(mc, nr, ir);
            list_rows(s, x, zeros, p0 + m0 + r0, piece(mc, nr, ir + 1) - r0, rows + r0 * taps);
        }
        for (i64 ik = 0; ik < nk; ++ik) {
            const i64 t0 = piece(taps, nk, ik), tc = piece(taps, nk, ik + 1) - t0, kc = tc * s.channels;
            for (i64 p = 0; p < np; ++p) {
                const float* b = packed + p * N * k + t0 * s.channels * N;
                const i64 cols = lesser(N, n - p * N), step = (N * 4 + nr - 1) / nr;
                const bool last = ik + 1 == nk, whole = cols == N, direct = whole && (nk > 1 || in_registers || is_plain(e));
                const char* next = reinterpret_cast<const char*>(b + rows_to_next(p, np, ik, nk, k, kc) * N);
                for (i64 ir = 0; ir < nr; ++ir, next += step * kc) {
                    const i64 r0 = piece(mc, nr, ir), r = piece(mc, nr, ir + 1) - r0, at = (m0 + r0) * ldy + p * N;
                    const bool along = ir + 1 < nr, across = (p + 1) * N + N <= n;
                    const End* ends = nullptr;
                    if (ik == 0 && end.next != y + at) fetch_tile<true>(y + at, ldy, r, cols);
                    if (last && e.residual && end.next != y + at) fetch_tile<false>(e.residual + at, ldy, r, cols);
                    end.next = nullptr;
                    if (last && direct && in_registers) {
                        place_end(end, e, (m0 + r0) * ldy, p * N);
                        if (along || across) place_next(end, e, y, (m0 + (along ? piece(mc, nr, ir + 1) : 0)) * ldy + (along ? p : p + 1) * N);
                        ends = &end;
                    }
                    if (!direct) {  // one sum over all of K
                        if (ik > 0) continue;
                        taps_for(r)(rows + r0 * taps, taps, s.channels, b, tile, N, false, next, step, nullptr);
                        finish(tile, N, y + at, ldy, r, cols, shifted(e, m0 + r0, p * N, ldy));
                        continue;
                    }
                    taps_for(r)(rows + r0 * taps + t0 * r, tc, s.channels, b, y + at, ldy, ik > 0, next, step, ends);
                    if (last && !ends && !is_plain(e)) finish(y + at, ldy, r, cols, shifted(e, m0 + r0, p * N, ldy));
                }
            }
        }
    }
}
QUERN_VEC_FN void conv_nhwc_f32(const ConvShape& s, const float* x, const float* packed, i64 p0, i64 p1, i64 n, float* y, i64 ldy,
                                const Epilogue& e, void* work) {
    constexpr int N = panel<float>;
    i64 k = s.taps() * s.channels;
    if (pointwise(s)) return gemm_packed_f32(p1 - p0, n, k, x + p0 * s.in_channels, s.in_channels, false, packed, y, ldy, e, work);
    if constexpr (QUERN_VEC_BYTES == 64) {
        if (reads_taps(s)) return conv_taps(s, x, packed, p0, p1, n, y, ldy, e, static_cast<float*>(work));
    }
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
