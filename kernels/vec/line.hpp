// Convolutions along a line whose rows are channels: no operand is gathered, each tap reads its channel moved along.
#pragma once
#include <quern/kernels/vec/conv.hpp>
#include <quern/kernels/vec/images.hpp>

QUERN_VEC_BEGIN

/// Vectors of columns beside R rows of sums: enough sums to hide an fma's latency, as many as the registers hold.
template <int R> constexpr int line_vectors = rows_max<float> >= 12 ? (R <= 3 ? 8 : R <= 6 ? 4 : R <= 9 ? 3 : 2) : (R == 1 ? 8 : R <= 3 ? 4 : R == 4 ? 3 : 2);

/// What ends a sum in registers: clip(x, low, high) of x, or slope * x where it is negative, with bias and residual added. Null pointers: absent.
struct LineEnd {
    const float* bias;      ///< of each row
    const float* residual;  ///< as y
    float slope, low, high;
};
/// R rows of V vectors of columns from column j. `a`: the block's weights [channels, taps, R]. `cols` are stored.
template <int R, int V>
QUERN_VEC_FN void line_micro(const LineTile& s, const float* a, i64 j, i64 cols, float* y, i64 ldy, const LineEnd& end) {
    F acc[R][V];
    QUERN_UNROLL
    for (int r = 0; r < R; ++r) {
        F first = splat(end.bias ? end.bias[r] : 0.f);
        QUERN_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = first;
    }
    const i64 *at = s.at, taps = s.taps;
    for (i64 c = 0; c < s.channels; ++c) {
        const float* x = s.x + c * s.ldx + j;
        for (i64 t = 0; t < taps; ++t, a += R) {
            const float* from = x + at[t];
            F b[V];
            if constexpr (R > 1) {
                QUERN_UNROLL
                for (int v = 0; v < V; ++v) b[v] = load(from + v * W);
            }
            QUERN_UNROLL
            for (int r = 0; r < R; ++r) {
                F w = splat(a[r]);
                QUERN_UNROLL
                for (int v = 0; v < V; ++v) acc[r][v] = fma(w, R > 1 ? b[v] : load(from + v * W), acc[r][v]);
            }
        }
    }
    const F lo = splat(end.low), hi = splat(end.high), slope = splat(end.slope);
    const float* residual = end.residual ? end.residual + j : nullptr;  // read here: y may be anywhere
    QUERN_UNROLL
    for (int v = 0; v < V; ++v) {
        const i64 n = lesser(W, cols - v * W);
        if (n <= 0) break;
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) {
            F out = acc[r][v];
            if (residual) out += n == W ? load(residual + r * ldy + v * W) : load_n(residual + r * ldy + v * W, n);
            out = clip(select(out < 0.f, out * slope, out), lo, hi);
            if (n == W) store(y + r * ldy + v * W, out);
            else store_n(y + r * ldy + v * W, out, n);
        }
    }
}
template <int R>
QUERN_VEC_FN void line_block(const LineTile& s, const float* a, float* y, i64 ldy, const LineEnd& end) {
    constexpr int V = line_vectors<R>, few = V >= 8 ? 2 : 1;
    for (i64 j = 0; j < s.columns;) {
        const i64 left = s.columns - j, n = left > few * W ? lesser(left, V * W) : left;
        if (left > few * W) line_micro<R, V>(s, a, j, n, y + j, ldy, end);
        else line_micro<R, few>(s, a, j, n, y + j, ldy, end);
        j += n;
    }
}
using LineBlock = void (*)(const LineTile&, const float*, float*, i64, const LineEnd&);
template <int R = rows_max<float>> QUERN_VEC_INL LineBlock line_for(i64 rows) {
    if constexpr (R == 1) return &line_block<1>;
    else return rows == R ? &line_block<R> : line_for<R - 1>(rows);
}
QUERN_VEC_FN void line_f32(const LineTile& s, const float* packed, i64 m, i64 b0, i64 b1, float* y, i64 ldy, const Epilogue& e) {
    const i64 nb = blocks_of(m, rows_max<float>), k = s.channels * s.taps;
    const bool inside = e.post == Post::none || e.post == Post::relu || e.post == Post::clip || e.post == Post::leaky_relu;
    const float inf = __builtin_inff();
    LineEnd end{nullptr, nullptr, inside && e.post == Post::leaky_relu ? e.alpha : 1.f, inside && e.post == Post::relu ? 0.f : -inf, inf};
    if (inside && e.post == Post::clip) end.low = e.alpha, end.high = e.beta;
    for (i64 b = b0; b < b1; ++b) {
        const i64 m0 = piece(m, nb, b), r = piece(m, nb, b + 1) - m0;
        float* to = y + m0 * ldy;
        Epilogue rest = shifted(e, m0, 0, ldy);
        end.bias = rest.bias_col;
        end.residual = inside ? rest.residual : nullptr;
        line_for(r)(s, packed + m0 * k, to, ldy, end);
        if (inside) continue;
        rest.bias_col = nullptr;
        finish(to, ldy, r, s.columns, rest);
    }
}

/// a0 b0 a1 b1 ... of the first (second) halves of a and b.
template <bool second, int... I> QUERN_VEC_INL F zipped(F a, F b, Places<I...>) {
    constexpr int from = second ? W / 2 : 0;
    return __builtin_shufflevector(a, b, (I % 2 * W + I / 2 + from)...);
}
/// The rows r[0, S) of W columns become S vectors of W / S columns each. Halves are zipped with halves, so that each step doubles what belongs together.
template <int S> QUERN_VEC_INL void zip(F (&r)[S]) {
    if constexpr (S > 1) {
        F low[S / 2], high[S / 2];
        QUERN_UNROLL
        for (int i = 0; i < S / 2; ++i) {
            low[i] = zipped<false>(r[i], r[i + S / 2], all_places<float>{});
            high[i] = zipped<true>(r[i], r[i + S / 2], all_places<float>{});
        }
        zip<S / 2>(low);
        zip<S / 2>(high);
        QUERN_UNROLL
        for (int i = 0; i < S / 2; ++i) r[i] = low[i], r[i + S / 2] = high[i];
    }
}
template <int S> QUERN_VEC_FN void interleave(const float* z, i64 ldz, i64 n, float bias, float* y) {
    const F b = splat(bias);
    i64 i = 0;
    for (; i + W <= n; i += W, y += S * W) {
        F r[S];
        QUERN_UNROLL
        for (int k = 0; k < S; ++k) r[k] = load(z + k * ldz + i) + b;
        zip<S>(r);
        QUERN_UNROLL
        for (int k = 0; k < S; ++k) store(y + k * W, r[k]);
    }
    for (; i < n; ++i)
        for (int k = 0; k < S; ++k) *y++ = z[k * ldz + i] + bias;
}
QUERN_VEC_FN void interleave_f32(i64 s, const float* z, i64 ldz, i64 n, float bias, float* y) {
    if (s == 2) interleave<2>(z, ldz, n, bias, y);
    else if (s == 4) interleave<4>(z, ldz, n, bias, y);
    else if (s == 8) interleave<8>(z, ldz, n, bias, y);
    else interleave<16>(z, ldz, n, bias, y);
}

QUERN_VEC_END
