// Rows of depthwise convolutions, pools, and scaling by channel.
#pragma once
#include <quern/kernels/vec/conv.hpp>
#include <quern/kernels/vec/images.hpp>

QUERN_VEC_BEGIN

/// What ends an output of a depthwise convolution.
struct DepthwiseEnd {
    const float* bias;  ///< or null
    F lo, hi;
    bool swish;  ///< hard_swish instead of the bounds
    __attribute__((always_inline)) inline F operator()(F x) const { return swish ? hard_swish(x) : clip(x, lo, hi); }
};
/// Output rows that are made together: what they have in common is read once. Few registers hold one row only.
constexpr int paired_rows = QUERN_VEC_BYTES == 64 ? 2 : 1;

/// U neighbouring output rows of P neighbouring outputs of one vector of channels: each input pixel is loaded once for all the outputs that it
/// takes part in. rows[i] + at is the first pixel, of which [from, to) exist. n_rows: of the kernel, K where U > 1; Part: only `part` channels are there.
template <int K, int S, int P, int U, bool Part>
QUERN_VEC_INL void depthwise_vector(const float* const* rows, i64 n_rows, i64 at, i64 px, i64 from, i64 to, const float* w, i64 ldw, const float* bias,
                                    const DepthwiseEnd& end, float* y, i64 py, i64 y_row, i64 part) {
    auto get = [&](const float* p) QUERN_VEC_INLINED { return Part ? load_n(p, part) : load(p); };
    F acc[U][P];
    F first = bias ? get(bias) : F{};
    QUERN_UNROLL
    for (int u = 0; u < U; ++u) {
        QUERN_UNROLL
        for (int o = 0; o < P; ++o) acc[u][o] = first;
    }
    auto row = [&](const float* x, const F (&k)[U][K], int u0, int u1) QUERN_VEC_INLINED {
        QUERN_UNROLL
        for (int q = 0; q < (P - 1) * S + K; ++q) {
            if (q < from || q >= to) continue;
            F v = get(x + q * px);
            QUERN_UNROLL
            for (int u = u0; u < u1; ++u) {
                QUERN_UNROLL
                for (int j = 0; j < K; ++j)
                    if ((q - j) % S == 0 && q >= j && (q - j) / S < P) acc[u][(q - j) / S] = fma(k[u][j], v, acc[u][(q - j) / S]);
            }
        }
    };
    F k[U][K];
    if constexpr (U == 1) {
        for (i64 i = 0; i < n_rows; ++i) {
            QUERN_UNROLL
            for (int j = 0; j < K; ++j) k[0][j] = get(w + (i * K + j) * ldw);
            row(rows[i] + at, k, 0, 1);
        }
    } else {
        static_assert(U == 2);
        QUERN_UNROLL
        for (int i = 0; i < S + K; ++i) {  // row i of the input is row i of the first output's kernel, i - S of the second one's
            QUERN_UNROLL
            for (int j = 0; j < K; ++j) {
                if (i < K) k[0][j] = get(w + (i * K + j) * ldw);
                if (i >= S) k[1][j] = get(w + ((i - S) * K + j) * ldw);
            }
            row(rows[i] + at, k, i < K ? 0 : 1, i >= S ? 2 : 1);
        }
    }
    const DepthwiseEnd f = end;  // what is referred to would be read again after each store
    QUERN_UNROLL
    for (int u = 0; u < U; ++u) {
        QUERN_UNROLL
        for (int o = 0; o < P; ++o) {
            F v = f(acc[u][o]);
            if (Part) store_n(y + u * y_row + o * py, v, part);
            else store(y + u * y_row + o * py, v);
        }
    }
}
template <int K, int S, int P, int U>
QUERN_VEC_FN void depthwise_outputs(const ConvShape& s, const float* const* rows, i64 at, i64 from, i64 to, const float* w, i64 ldw, const DepthwiseEnd& end, float* y, i64 y_row) {
    i64 c = 0;
    for (; c + W <= s.channels; c += W)
        depthwise_vector<K, S, P, U, false>(rows, s.kernel[1], at + c, s.in_channels, from, to, w + c, ldw, end.bias ? end.bias + c : nullptr, end, y + c, s.out_channels, y_row, W);
    if (c < s.channels)
        depthwise_vector<K, S, P, U, true>(rows, s.kernel[1], at + c, s.in_channels, from, to, w + c, ldw, end.bias ? end.bias + c : nullptr, end, y + c, s.out_channels, y_row, s.channels - c);
}
using DepthwiseOutputs = void (*)(const ConvShape&, const float* const*, i64, i64, i64, const float*, i64, const DepthwiseEnd&, float*, i64);
constexpr int most_outputs = 7, least_paired = 4;
template <int K, int S, int U, int P = most_outputs>
QUERN_VEC_INL DepthwiseOutputs depthwise_for(i64 outputs) {
    if constexpr (P == (U > 1 ? least_paired : 1)) return &depthwise_outputs<K, S, P, U>;
    else return outputs == P ? &depthwise_outputs<K, S, P, U> : depthwise_for<K, S, U, P - 1>(outputs);
}
/// U rows of outputs.
template <int K, int S, int U>
QUERN_VEC_FN void depthwise_rows(const ConvShape& s, const float* const* rows, const float* w, i64 ldw, const DepthwiseEnd& end, float* y, i64 y_row) {
    i64 n = s.out[2], blocks = blocks_of(n, most_outputs);
    for (i64 b = 0; b < blocks; ++b) {
        i64 o = piece(n, blocks, b), m = piece(n, blocks, b + 1) - o, x = o * S - s.pad[2];
        depthwise_for<K, S, U>(m)(s, rows, x * s.in_channels, larger(0, -x), lesser((m - 1) * S + K, s.in[2] - x), w, ldw, end, y + o * s.out_channels, y_row);
    }
}
/// C vectors of channels of one output, kernel columns [j0, j1); Part: only `part` channels are there.
template <int C, bool Part>
QUERN_VEC_INL void depthwise_pixel(const float* const* rows, i64 n_rows, i64 at, i64 px, const float* w, i64 w_row, i64 ldw, i64 j0, i64 j1, const float* bias,
                                   const DepthwiseEnd& end, float* y, i64 part) {
    auto get = [&](const float* p) QUERN_VEC_INLINED { return Part ? load_n(p, part) : load(p); };
    F acc[C];
    QUERN_UNROLL
    for (int v = 0; v < C; ++v) acc[v] = bias ? get(bias + v * W) : F{};
    for (i64 i = 0; i < n_rows; ++i) {
        const float *x = rows[i] + at, *k = w + i * w_row;
        for (i64 j = j0; j < j1; ++j)
            QUERN_UNROLL
            for (int v = 0; v < C; ++v) acc[v] = fma(get(k + j * ldw + v * W), get(x + j * px + v * W), acc[v]);
    }
    QUERN_UNROLL
    for (int v = 0; v < C; ++v) {
        F r = end(acc[v]);
        if (Part) store_n(y + v * W, r, part);
        else store(y + v * W, r);
    }
}
/// A row of outputs of any kernel width, stride and dilation.
QUERN_VEC_FN void depthwise_any(const ConvShape& s, const float* const* rows, const float* w, i64 ldw, const DepthwiseEnd& end, float* y) {
    const i64 channels = s.channels, n_rows = s.kernel[1], w_row = s.kernel[2] * ldw, px = s.dilation[2] * s.in_channels;
    const float* bias = end.bias;
    for (i64 o = 0; o < s.out[2]; ++o) {
        i64 w0 = o * s.stride[2] - s.pad[2], d = s.dilation[2], j0 = w0 < 0 ? lesser(s.kernel[2], (-w0 + d - 1) / d) : 0, j1 = j0;
        while (j1 < s.kernel[2] && w0 + j1 * d < s.in[2]) ++j1;
        const i64 at = w0 * s.in_channels;
        float* to = y + o * s.out_channels;
        i64 c = 0;
        for (; c + 4 * W <= channels; c += 4 * W) depthwise_pixel<4, false>(rows, n_rows, at + c, px, w + c, w_row, ldw, j0, j1, bias ? bias + c : nullptr, end, to + c, W);
        for (; c + W <= channels; c += W) depthwise_pixel<1, false>(rows, n_rows, at + c, px, w + c, w_row, ldw, j0, j1, bias ? bias + c : nullptr, end, to + c, W);
        if (c < channels) depthwise_pixel<1, true>(rows, n_rows, at + c, px, w + c, w_row, ldw, j0, j1, bias ? bias + c : nullptr, end, to + c, channels - c);
    }
}
QUERN_VEC_FN void depthwise_rows_f32(const ConvShape& s, i64 n, const float* const* rows, const float* w, i64 ldw, float* y, i64 y_row, const Epilogue& e) {
    float inf = __builtin_inff();
    bool bounded = e.post == Post::none || e.post == Post::relu || e.post == Post::clip;
    bool fused = !e.residual && e.scale == 1.f && (bounded || e.post == Post::hard_swish);
    DepthwiseEnd end{fused ? e.bias_row : nullptr, splat(!fused || e.post == Post::none ? -inf : e.post == Post::relu ? 0.f : e.alpha),
                     splat(fused && e.post == Post::clip ? e.beta : inf), fused && e.post == Post::hard_swish};
    i64 k = s.dilation[2] == 1 ? s.kernel[2] : 0, stride = s.stride[2];
    auto make = [&]<int K, int S>() QUERN_VEC_INLINED {
        constexpr int U = paired_rows;
        i64 r = 0;
        if (U > 1 && s.kernel[1] == K && s.stride[1] == S && s.dilation[1] == 1 && s.out[2] >= least_paired)
            for (; r + U <= n; r += U) depthwise_rows<K, S, U>(s, rows + r * S, w, ldw, end, y + r * y_row, y_row);
        for (; r < n; ++r) depthwise_rows<K, S, 1>(s, rows + r * s.stride[1], w, ldw, end, y + r * y_row, y_row);
    };
    if (k == 3 && stride == 1) make.template operator()<3, 1>();
    else if (k == 3 && stride == 2) make.template operator()<3, 2>();
    else if (k == 5 && stride == 1) make.template operator()<5, 1>();
    else if (k == 5 && stride == 2) make.template operator()<5, 2>();
    else if (k == 7 && stride == 1) make.template operator()<7, 1>();
    else
        for (i64 r = 0; r < n; ++r) depthwise_any(s, rows + r * s.stride[1], w, ldw, end, y + r * y_row);
    if (fused) return;
    Epilogue part = e;
    for (i64 r = 0; r < n; ++r) {
        if (e.residual) part.residual = e.residual + r * y_row;
        finish(y + r * y_row, s.out_channels, s.out[2], s.channels, part);
    }
}

template <bool Max>
QUERN_VEC_FN void pool_pixel(i64 taps, const float* const* x, i64 n, F divisor, float* y) {
    auto join = [](F a, F b) QUERN_VEC_INLINED { return Max ? max_nan(b, a) : a + b; };  // what is read is looked at for NaN, not what waits
    auto end = [&](F a) QUERN_VEC_INLINED { return Max ? a : a / divisor; };
    i64 c = 0;
    auto some = [&]<int V>() QUERN_VEC_INLINED {
        for (; c + V * W <= n; c += V * W) {
            F s[V];
            QUERN_UNROLL
            for (int v = 0; v < V; ++v) s[v] = load(x[0] + c + v * W);
            for (i64 t = 1; t < taps; ++t)
                QUERN_UNROLL
                for (int v = 0; v < V; ++v) s[v] = join(s[v], load(x[t] + c + v * W));
            QUERN_UNROLL
            for (int v = 0; v < V; ++v) store(y + c + v * W, end(s[v]));
        }
    };
    some.template operator()<4>();
    some.template operator()<1>();
    if (c == n) return;
    F a = load_n(x[0] + c, n - c);
    for (i64 t = 1; t < taps; ++t) a = join(a, load_n(x[t] + c, n - c));
    store_n(y + c, end(a), n - c);
}
QUERN_VEC_FN void pool_pixel_f32(bool max, i64 taps, const float* const* x, i64 n, float divisor, float* y) {
    if (max) pool_pixel<true>(taps, x, n, splat(divisor), y);
    else pool_pixel<false>(taps, x, n, splat(divisor), y);
}
QUERN_VEC_FN void fetch_to_write_f32(const float* y, i64 n) {
    for (i64 i = 0; i < n; i += 16) fetch_for_write(y + i);
}
template <class G>
QUERN_VEC_FN void scale_shift_with(i64 rows, i64 n, const float* x, i64 ldx, const float* scale, const float* shift, float* y, i64 ldy, G f) {
    for (i64 r = 0; r < rows; ++r, x += ldx, y += ldy) {
        i64 j = 0;
        for (; j + W <= n; j += W) store(y + j, f(fma(load(x + j), load(scale + j), load(shift + j))));
        if (j < n) store_n(y + j, f(fma(load_n(x + j, n - j), load_n(scale + j, n - j), load_n(shift + j, n - j))), n - j);
    }
}
QUERN_VEC_FN void scale_shift_f32(i64 rows, i64 n, const float* x, i64 ldx, const float* scale, const float* shift, float* y, i64 ldy, const Epilogue& e) {
    with_post(e, [&](auto f) { scale_shift_with(rows, n, x, ldx, scale, shift, y, ldy, f); });
}
QUERN_VEC_FN void sum_rows_f32(i64 rows, i64 n, const float* x, i64 ldx, float* y) {
    constexpr int C = 4;
    i64 j = 0;
    for (; j + C * W <= n; j += C * W) {
        F s[C] = {};
        for (i64 r = 0; r < rows; ++r)
            QUERN_UNROLL
            for (int v = 0; v < C; ++v) s[v] += load(x + r * ldx + j + v * W);
        for (int v = 0; v < C; ++v) store(y + j + v * W, s[v]);
    }
    for (; j < n; j += W) {
        i64 part = lesser(W, n - j);
        F s{};
        for (i64 r = 0; r < rows; ++r) s += load_n(x + r * ldx + j, part);
        store_n(y + j, s, part);
    }
}
/// micro() in place, each row of packed B times its value of `gate`; V vectors of columns, the last one perhaps not full.
template <int R, int V>
QUERN_VEC_FN void micro_gated(const float* a, i64 as, const float* b, const float* gate, float* c, i64 ldc, i64 cols, i64 k, bool acc, const char* pf, i64 pfs,
                              const End* end) {
    i64 last = cols - (V - 1) * W;
    auto get = [&](const float* p, int v) QUERN_VEC_INLINED { return v + 1 < V || last == W ? load(p + v * W) : load_n(p + v * W, last); };
    F s[R][V];
    QUERN_UNROLL
    for (int r = 0; r < R; ++r)
        QUERN_UNROLL
        for (int v = 0; v < V; ++v) s[r][v] = acc ? get(c + r * ldc, v) : F{};
    constexpr int P = (R + 2) / 3;
    const float* at[P];
    QUERN_UNROLL
    for (int p = 0; p < P; ++p) at[p] = a + 3 * p * as;
    for (i64 i = 0; i < k; ++i, b += panel<float>, pf += pfs) {
        __builtin_prefetch(pf, 0, 2);
        __builtin_prefetch(b + 512, 0, 3);
        __builtin_prefetch(b + 512 + W, 0, 3);
        F w[V], g = splat(gate[i]);
        QUERN_UNROLL
        for (int v = 0; v < V; ++v) w[v] = load(b + v * W) * g;
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) {
            F x = splat(at[r / 3][r % 3 * as]);
            QUERN_UNROLL
            for (int v = 0; v < V; ++v) s[r][v] = fma(x, w[v], s[r][v]);
        }
        QUERN_UNROLL
        for (int p = 0; p < P; ++p) {
            ++at[p];
            QUERN_VEC_OPAQUE(at[p]);
        }
    }
    part_end<R, V>(s, c, ldc, last, end);
}
using MicroGated = void (*)(const float*, i64, const float*, const float*, float*, i64, i64, i64, bool, const char*, i64, const End*);
template <int V, int R = rows_max<float>>
QUERN_VEC_INL MicroGated gated_for(i64 rows) {
    if constexpr (R == 1) return &micro_gated<1, V>;
    else return rows == R ? &micro_gated<R, V> : gated_for<V, R - 1>(rows);
}
QUERN_VEC_FN void gemm_gated_f32(i64 m, i64 n, i64 k, const float* a, i64 lda, const float* gate, const float* packed, float* c, i64 ldc, const Epilogue& e, void* work) {
    constexpr int N = panel<float>;
    if (m <= 0 || n <= 0) return;
    End end{};
    const bool in_registers = fits_end(&e, end);
    auto* tile = static_cast<float*>(work);
    i64 R = MatrixRows<float>{a, lda, false}.most_rows(), nm = blocks_of(m, block_rows<float>), nk = larger(1, blocks_of(k, long_k)), np = blocks_of(n, N);
    for (i64 im = 0; im < nm; ++im) {
        i64 m0 = piece(m, nm, im), mc = piece(m, nm, im + 1) - m0, nr = blocks_of(mc, R);
        for (i64 ik = 0; ik < nk; ++ik) {
            i64 k0 = piece(k, nk, ik), kc = piece(k, nk, ik + 1) - k0, step = (N * 4 + nr - 1) / nr;
            for (i64 p = 0; p < np; ++p) {
                const float* b = packed + p * N * k + k0 * N;
                const char* next = reinterpret_cast<const char*>(b + rows_to_next(p, np, ik, nk, k, kc) * N);
                i64 cols = lesser(N, n - p * N);
                bool whole = ik + 1 == nk, by_tile = nk == 1 && !in_registers && !is_plain(e);
                for (i64 ir = 0; ir < nr; ++ir, next += step * kc) {
                    i64 r0 = piece(mc, nr, ir), r = piece(mc, nr, ir + 1) - r0, row = m0 + r0;
                    float* ct = c + row * ldc + p * N;
                    if (in_registers) place_end(end, e, row * ldc, p * N);
                    if (kc >= fetched_k && ik == 0) fetch_tile<true>(ct, ldc, r, cols);
                    if (kc >= fetched_k && whole && e.residual) fetch_tile<false>(e.residual + row * ldc + p * N, ldc, r, cols);
                    (cols > W ? gated_for<2>(r) : gated_for<1>(r))(a + row * lda + k0, lda, b, gate + k0, by_tile ? tile + r0 * N : ct, by_tile ? N : ldc, cols, kc, ik > 0, next, step,
                                                                   whole && in_registers ? &end : nullptr);
                    if (whole && !in_registers && !by_tile) finish(ct, ldc, r, cols, shifted(e, row, p * N, ldc));
                }
                if (by_tile) finish(tile, N, c + m0 * ldc + p * N, ldc, mc, cols, shifted(e, m0, p * N, ldc));
            }
        }
    }
}
/// Copies blocks of an A whose columns lie in several places.
struct PartRows {
    const Columns* parts;
    __attribute__((always_inline)) inline void operator()(i64 m0, i64 mc, i64 k0, i64 kc, float* dst, i64 stride) const {
        i64 at = 0;
        for (const Columns* p = parts; at < k0 + kc; at += p++->columns) {
            i64 from = larger(at, k0), n = lesser(at + p->columns, k0 + kc) - from;
            if (n <= 0) continue;
            const float* s = p->a + m0 * p->lda + (from - at);
            float* d = dst + (from - k0);
            for (i64 r = 0; r < mc; ++r, s += p->lda, d += stride) {
                i64 j = 0;
                for (; j + W <= n; j += W) store(d + j, load(s + j));
                if (j < n) store_n(d + j, load_n(s + j, n - j), n - j);
            }
        }
    }
};
QUERN_VEC_FN void gemm_parts_f32(i64 m, i64 n, i64 k, const Columns* parts, const float* packed, float* c, i64 ldc, const Epilogue& e, void* work) {
    product<float>(m, n, k, PartRows{parts}, [&](i64 p, i64 k0, i64, i64*) { return packed + p * panel<float> * k + k0 * panel<float>; }, c, ldc, &e, static_cast<float*>(work));
}

QUERN_VEC_END
