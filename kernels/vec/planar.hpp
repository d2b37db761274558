// Convolutions of images of few channels from nchw to nhwc: the first layer. The operand is read where it lies.
#pragma once
#include <quern/kernels/vec/conv.hpp>

QUERN_VEC_BEGIN

/// Y[R, V vectors] of R neighbouring pixels, S input pixels apart: weight i of all reads taps[i] + at.
template <int R, int V, int S>
QUERN_VEC_FN void planar_micro(const float* const* taps, i64 k, i64 at, const float* b, float* y, i64 ldy, i64 cols, const End* end) {
    F s[R][V];
    QUERN_UNROLL
    for (int r = 0; r < R; ++r)
        QUERN_UNROLL
        for (int v = 0; v < V; ++v) s[r][v] = F{};
    for (i64 i = 0; i < k; ++i, b += panel<float>) {
        const float* a = taps[i] + at;
        F w[V];
        QUERN_UNROLL
        for (int v = 0; v < V; ++v) w[v] = load(b + v * W);
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) {
            F x = splat(a[r * S]);
            QUERN_UNROLL
            for (int v = 0; v < V; ++v) s[r][v] = fma(x, w[v], s[r][v]);
        }
    }
    i64 last = cols - (V - 1) * W;  // of the last vector
    F lo = splat(end ? end->lo : -__builtin_inff()), hi = splat(end ? end->hi : __builtin_inff());
    QUERN_UNROLL
    for (int v = 0; v < V; ++v) {
        i64 n = v + 1 < V ? W : last;
        F bias = !end || !end->bias ? F{} : n == W ? load(end->bias + v * W) : load_n(end->bias + v * W, n);
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) {
            F out = clip(s[r][v] + bias, lo, hi);
            if (n == W) store(y + r * ldy + v * W, out);
            else store_n(y + r * ldy + v * W, out, n);
        }
    }
}
using PlanarMicro = void (*)(const float* const*, i64, i64, const float*, float*, i64, i64, const End*);
template <int V, int S, int R = rows_max<float>>
QUERN_VEC_INL PlanarMicro planar_for(i64 rows) {
    if constexpr (R == 1) return &planar_micro<1, V, S>;
    else return rows == R ? &planar_micro<R, V, S> : planar_for<V, S, R - 1>(rows);
}
/// Floats of one input row with its padding.
QUERN_VEC_INL i64 planar_row(const ConvShape& s) { return (s.out[2] - 1) * s.stride[2] + (s.kernel[2] - 1) * s.dilation[2] + 1; }
QUERN_VEC_FN std::size_t planar_work_floats(const ConvShape& s) {
    return static_cast<std::size_t>(s.channels * s.kernel[1] * ((planar_row(s) + 15) / 16 * 16) + 64);
}
template <int S>
QUERN_VEC_FN void planar_rows(const ConvShape& s, const float* x, const float* packed, i64 r0, i64 r1, i64 n, float* y, const Epilogue& e, float* work) {
    constexpr int N = panel<float>, R = rows_max<float>;
    i64 need = planar_row(s), stride = (need + 15) / 16 * 16, k = s.channels * s.taps(), blocks = blocks_of(s.out[2], R), plane = s.pixels_in();
    const float* taps[planar_taps];
    for (i64 c = 0, t = 0; c < s.channels; ++c)
        for (i64 i = 0; i < s.kernel[1]; ++i)
            for (i64 j = 0; j < s.kernel[2]; ++j) taps[t++] = work + (c * s.kernel[1] + i) * stride + j * s.dilation[2];
    End end{};
    bool in_registers = !e.residual && fits_end(&e, end);
    for (i64 r = r0; r < r1; ++r) {
        for (i64 c = 0; c < s.channels; ++c)
            for (i64 i = 0; i < s.kernel[1]; ++i) {
                i64 h = r * s.stride[1] - s.pad[1] + i * s.dilation[1];
                float* to = work + (c * s.kernel[1] + i) * stride;
                if (h < 0 || h >= s.in[1]) zero(to, need);
                else copy_part(to, x + c * plane + h * s.in[2] - s.pad[2], 0, need, lesser(need, s.pad[2]), larger(0, s.in[2] + s.pad[2]));
            }
        // A panel and the rows stay in the first cache; all panels would not.
        for (i64 p = 0; p * N < n; ++p) {
            i64 cols = lesser(N, n - p * N);
            if (in_registers) place_end(end, e, 0, p * N);
            for (i64 b = 0; b < blocks; ++b) {
                i64 o = piece(s.out[2], blocks, b), m = piece(s.out[2], blocks, b + 1) - o, at = (r * s.out[2] + o) * s.out_channels + p * N;
                fetch_tile<true>(y + at, s.out_channels, m, cols);
                auto fn = cols > W ? planar_for<2, S>(m) : planar_for<1, S>(m);
                fn(taps, k, o * S, packed + p * N * k, y + at, s.out_channels, cols, in_registers ? &end : nullptr);
                if (!in_registers) finish(y + at, s.out_channels, m, cols, shifted(e, r * s.out[2] + o, p * N, s.out_channels));
            }
        }
    }
}
QUERN_VEC_FN void conv_planar_f32(const ConvShape& s, const float* x, const float* packed, i64 r0, i64 r1, i64 n, float* y, const Epilogue& e, float* work) {
    auto* rows = &planar_rows<4>;
    if (s.stride[2] == 1) rows = &planar_rows<1>;
    else if (s.stride[2] == 2) rows = &planar_rows<2>;
    else if (s.stride[2] == 3) rows = &planar_rows<3>;
    else if (s.stride[2] == 6) rows = &planar_rows<6>;
    rows(s, x, packed, r0, r1, n, y, e, work);
}

QUERN_VEC_END
