// The table of one instruction set: loops over contiguous memory, made of the functions of lanes.hpp.
#pragma once
#include <quern/kernels/vec/attention.hpp>
#include <quern/kernels/vec/conv.hpp>
#include <quern/kernels/vec/depthwise.hpp>
#include <quern/kernels/vec/gemm.hpp>
#include <quern/kernels/vec/images.hpp>
#include <quern/kernels/vec/lanes.hpp>
#include <quern/kernels/vec/line.hpp>
#include <quern/kernels/vec/planar.hpp>
#include <quern/kernels/vec/reduce_loops.hpp>
#include <quern/kernels/vec/winograd.hpp>

QUERN_VEC_BEGIN

template <Unary U, class V> QUERN_VEC_INL V apply(V x) {
    if constexpr (U == Unary::exp) return exp(x);
    else if constexpr (U == Unary::log) return log(x);
    else if constexpr (U == Unary::tanh) return tanh(x);
    else if constexpr (U == Unary::sigmoid) return sigmoid(x);
    else if constexpr (U == Unary::erf) return erf(x);
    else if constexpr (U == Unary::gelu) return gelu(x);
    else if constexpr (U == Unary::gelu_tanh) return gelu_tanh(x);
    else if constexpr (U == Unary::silu) return silu(x);
    else if constexpr (U == Unary::sqrt) return sqrt(x);
    else if constexpr (U == Unary::rsqrt) return 1.f / sqrt(x);
    else if constexpr (U == Unary::reciprocal) return 1.f / x;
    else if constexpr (U == Unary::sin) return sin_cos(x, false);
    else if constexpr (U == Unary::cos) return sin_cos(x, true);
    else if constexpr (U == Unary::abs) return abs(x);
    else if constexpr (U == Unary::neg) return -x;
    else if constexpr (U == Unary::relu) return relu(x);
    else if constexpr (U == Unary::hard_swish) return hard_swish(x);
    else if constexpr (U == Unary::floor) return floor(x);
    else if constexpr (U == Unary::ceil) return ceil(x);
    else if constexpr (U == Unary::square) return x * x;
    else if constexpr (U == Unary::softplus) return softplus(x);
    else return mish(x);
}
/// Long chains of instructions, whose functions take a Pack.
template <Unary U>
constexpr bool in_lockstep = U == Unary::exp || U == Unary::tanh || U == Unary::sigmoid || U == Unary::erf || U == Unary::gelu || U == Unary::gelu_tanh || U == Unary::silu;
template <Binary B> QUERN_VEC_INL F apply(F x, F y) {
    if constexpr (B == Binary::add) return x + y;
    else if constexpr (B == Binary::sub) return x - y;
    else if constexpr (B == Binary::mul) return x * y;
    else if constexpr (B == Binary::div) return x / y;
    else if constexpr (B == Binary::max) return max_nan(x, y);
    else return min_nan(x, y);
}
template <Unary U> QUERN_VEC_FN void unary(const float* x, float* y, i64 n) {
    i64 i = 0;
    if constexpr (in_lockstep<U>)
        for (; i + 4 * W <= n; i += 4 * W) store_pack(y + i, apply<U>(load_pack<4>(x + i)));
    for (; i + W <= n; i += W) store(y + i, apply<U>(load(x + i)));
    if (i < n) store_n(y + i, apply<U>(load_n(x + i, n - i)), n - i);
}
template <Binary B> QUERN_VEC_FN void binary(const float* x, const float* y, float* z, i64 n) {
    i64 i = 0;
    for (; i + W <= n; i += W) store(z + i, apply<B>(load(x + i), load(y + i)));
    if (i < n) store_n(z + i, apply<B>(load_n(x + i, n - i), load_n(y + i, n - i)), n - i);
}
template <Binary B> QUERN_VEC_FN void binary_scalar(const float* x, float y, float* z, i64 n) {
    F v = splat(y);
    i64 i = 0;
    for (; i + W <= n; i += W) store(z + i, apply<B>(load(x + i), v));
    if (i < n) store_n(z + i, apply<B>(load_n(x + i, n - i), v), n - i);
}
/// Long rows are reduced in blocks, and blocks by halves: the error grows with the logarithm.
template <Reduce R> QUERN_VEC_FN float reduce(const float* x, i64 n) {
    constexpr i64 block = 4096;
    if (n <= block) return reduce_block<R, float>(x, n);
    i64 half = (n / 2 + block - 1) / block * block;
    return step<joined<R>, float>(reduce<R>(x, half), reduce<R>(x + half, n - half));
}
template <Reduce R> QUERN_VEC_FN void accumulate(const float* x, float* acc, i64 n) {
    i64 i = 0;
    for (; i + W <= n; i += W) store(acc + i, step<R, float>(load(acc + i), load(x + i)));
    if (i < n) store_n(acc + i, step<R, float>(load_n(acc + i, n - i), load_n(x + i, n - i)), n - i);
}
QUERN_VEC_FN float dot_f32(const float* x, const float* y, i64 n) {
    F a{}, b{}, c{}, d{};
    i64 i = 0;
    for (; i + 4 * W <= n; i += 4 * W) {
        a = fma(load(x + i), load(y + i), a);
        b = fma(load(x + i + W), load(y + i + W), b);
        c = fma(load(x + i + 2 * W), load(y + i + 2 * W), c);
        d = fma(load(x + i + 3 * W), load(y + i + 3 * W), d);
    }
    for (; i + W <= n; i += W) a = fma(load(x + i), load(y + i), a);
    if (i < n) b = fma(load_n(x + i, n - i), load_n(y + i, n - i), b);
    return sum_lanes((a + b) + (c + d));
}

QUERN_VEC_FN void affine_f32(const float* x, float scale, float shift, float* y, i64 n) {
    F s = splat(scale), t = splat(shift);
    i64 i = 0;
    for (; i + W <= n; i += W) store(y + i, fma(load(x + i), s, t));
    if (i < n) store_n(y + i, fma(load_n(x + i, n - i), s, t), n - i);
}
QUERN_VEC_FN void softmax_f32(const float* x, float* y, i64 n, bool log_form) {
    if (n <= 0) return;
    F top = splat(reduce<Reduce::max>(x, n));
    if (!log_form) {
        F s0{}, s1{};
        i64 i = 0;
        for (; i + 2 * W <= n; i += 2 * W) {
            F a = exp_below(load(x + i) - top), b = exp_below(load(x + i + W) - top);
            store(y + i, a);
            store(y + i + W, b);
            s0 += a;
            s1 += b;
        }
        for (; i < n; i += W) {
            i64 part = lesser(W, n - i);
            if (part == W) {
                F a = exp_below(load(x + i) - top);
                store(y + i, a);
                s0 += a;
            } else {
                store_n(y + i, exp_below(load_n(x + i, part) - top), part);
                s1 += load_n(y + i, part);
            }
        }
        return binary_scalar<Binary::mul>(y, 1.f / sum_lanes(s0 + s1), y, n);
    }
    F s{};
    i64 i = 0;
    for (; i + W <= n; i += W) s += exp_below(load(x + i) - top);
    float t[W] = {}, sum = sum_lanes(s);
    if (i < n) {
        store_n(t, exp(load_n(x + i, n - i) - top), n - i);
        for (i64 j = 0; j < n - i; ++j) sum += t[j];
    }
    F shift = log(splat(sum));
    i = 0;
    for (; i + W <= n; i += W) store(y + i, (load(x + i) - top) - shift);
    if (i < n) store_n(y + i, (load_n(x + i, n - i) - top) - shift, n - i);
}
QUERN_VEC_FN float centered_square(const float* x, float mean, i64 n) {
    F m = splat(mean), a{}, b{};
    i64 i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        F u = load(x + i) - m, v = load(x + i + W) - m;
        a = fma(u, u, a);
        b = fma(v, v, b);
    }
    float rest = 0;
    for (; i < n; ++i) rest += (x[i] - mean) * (x[i] - mean);
    return sum_lanes(a + b) + rest;
}
QUERN_VEC_FN void norm_f32(const float* x, const float* scale, const float* bias, float* y, i64 n, float eps, bool rms,
                           float* mean_out, float* inv_std_out) {
    if (n <= 0) return;
    float mean = rms ? 0.f : reduce<Reduce::sum>(x, n) / static_cast<float>(n);
    float square = rms ? reduce<Reduce::sum_square>(x, n) : centered_square(x, mean, n);
    float inv = 1.f / ::sqrtf(square / static_cast<float>(n) + eps);
    if (mean_out) *mean_out = mean;
    if (inv_std_out) *inv_std_out = inv;
    F m = splat(mean), k = splat(inv);
    for (i64 i = 0; i < n; i += W) {
        i64 part = lesser(W, n - i);
        bool whole = part == W;
        F v = ((whole ? load(x + i) : load_n(x + i, part)) - m) * k;
        F s = !scale ? splat(1.f) : whole ? load(scale + i) : load_n(scale + i, part);
        F b = !bias ? F{} : whole ? load(bias + i) : load_n(bias + i, part);
        v = fma(v, s, b);
        if (whole) store(y + i, v);
        else store_n(y + i, v, part);
    }
}
QUERN_VEC_FN void finish_f32(float* c, i64 n, const Epilogue& e) { finish(c, n, 1, n, e); }

template <class Q> QUERN_VEC_FN void quantize_to(const float* x, float scale, std::int32_t zero, Q* y, i64 n) {
    constexpr std::int32_t lo = Q(-1) < Q(0) ? -128 : 0, hi = lo + 255;
    F s = splat(scale), big = splat(65536.f);
    for (i64 i = 0; i < n; i += W) {
        i64 part = lesser(W, n - i);
        F v = (part == W ? load(x + i) : load_n(x + i, part)) / s;
        I q = to_int(round_small(max2(min2(v, big), -big))) + zero;  // NaN becomes the largest
        q = q < lo ? I{} + lo : q;
        q = q > hi ? I{} + hi : q;
        for (i64 j = 0; j < part; ++j) y[i + j] = static_cast<Q>(q[j]);
    }
}
QUERN_VEC_FN void quantize_8(const float* x, float scale, std::int32_t zero, bool is_unsigned, void* y, i64 n) {
    if (is_unsigned) quantize_to(x, scale, zero, static_cast<std::uint8_t*>(y), n);
    else quantize_to(x, scale, zero, static_cast<std::int8_t*>(y), n);
}
template <class Q> QUERN_VEC_FN void dequantize_from(const Q* x, float scale, std::int32_t zero, float* y, i64 n) {
    for (i64 i = 0; i < n; ++i) y[i] = static_cast<float>(static_cast<std::int32_t>(x[i]) - zero) * scale;
}
QUERN_VEC_FN void dequantize_8(const void* x, float scale, std::int32_t zero, bool is_unsigned, float* y, i64 n) {
    if (is_unsigned) dequantize_from(static_cast<const std::uint8_t*>(x), scale, zero, y, n);
    else dequantize_from(static_cast<const std::int8_t*>(x), scale, zero, y, n);
}
constexpr ImageTable make_image_table() {
    return ImageTable{.depthwise_rows_f32 = depthwise_rows_f32, .reads_taps = reads_taps, .conv_planar_f32 = conv_planar_f32, .planar_work_floats = planar_work_floats, .line_f32 = line_f32,
                      .interleave_f32 = interleave_f32, .pool_pixel_f32 = pool_pixel_f32, .fetch_to_write_f32 = fetch_to_write_f32, .scale_shift_f32 = scale_shift_f32,
                      .sum_rows_f32 = sum_rows_f32, .gemm_gated_f32 = gemm_gated_f32, .gemm_parts_f32 = gemm_parts_f32};
}
/// The table; `isa` is what the unit stands for, which may be less than what it was compiled for.
constexpr Table make_table(Isa isa, const char* name) {
    return Table{
        .isa = isa,
        .name = name,
        .gemm_f32 = gemm_f32,
        .gemm_f64 = gemm_f64,
        .gemm_work_bytes = gemm_work_bytes,
        .panel = vec::QUERN_VEC_NS::panel<float>,
        .packed_floats = packed_floats,
        .pack_b_f32 = pack_b_f32,
        .gemm_packed_f32 = gemm_packed_f32,
        .dot_f32 = dot_f32,
        .attention_f32 = attention_f32,
        .attention_work_bytes = attention_work_bytes,
        .attention_queries = query_panels * tile_queries,
        .conv_nhwc_f32 = conv_nhwc_f32,
        .row_block = rows_max<float>,
        .packed_rows_floats = packed_rows_floats,
        .pack_rows_f32 = pack_rows_f32,
        .conv_nchw_f32 = conv_nchw_f32,
        .winograd_input_f32 = winograd_input_f32,
        .winograd_output_f32 = winograd_output_f32,
        .winograd_weights_f32 = winograd_weights_f32,
        .winograd_tile_floats = winograd_tile_floats,
        .winograd_work_floats = winograd_work_floats,
        .depthwise_nhwc_f32 = depthwise_nhwc_f32,
        .unary_f32 = {unary<Unary::exp>, unary<Unary::log>, unary<Unary::tanh>, unary<Unary::sigmoid>, unary<Unary::erf>,
                      unary<Unary::gelu>, unary<Unary::gelu_tanh>, unary<Unary::silu>, unary<Unary::sqrt>, unary<Unary::rsqrt>,
                      unary<Unary::reciprocal>, unary<Unary::sin>, unary<Unary::cos>, unary<Unary::abs>, unary<Unary::neg>,
                      unary<Unary::relu>, unary<Unary::hard_swish>, unary<Unary::floor>, unary<Unary::ceil>,
                      unary<Unary::square>, unary<Unary::softplus>, unary<Unary::mish>},
        .binary_f32 = {binary<Binary::add>, binary<Binary::sub>, binary<Binary::mul>, binary<Binary::div>, binary<Binary::max>,
                       binary<Binary::min>},
        .binary_scalar_f32 = {binary_scalar<Binary::add>, binary_scalar<Binary::sub>, binary_scalar<Binary::mul>,
                              binary_scalar<Binary::div>, binary_scalar<Binary::max>, binary_scalar<Binary::min>},
        .reduce_f32 = {reduce<Reduce::sum>, reduce<Reduce::max>, reduce<Reduce::min>, reduce<Reduce::prod>,
                       reduce<Reduce::sum_abs>, reduce<Reduce::sum_square>},
        .accumulate_f32 = {accumulate<Reduce::sum>, accumulate<Reduce::max>, accumulate<Reduce::min>, accumulate<Reduce::prod>,
                           accumulate<Reduce::sum_abs>, accumulate<Reduce::sum_square>},
        .softmax_f32 = softmax_f32,
        .norm_f32 = norm_f32,
        .affine_f32 = affine_f32,
        .finish_f32 = finish_f32,
        .depthwise_f32 = depthwise_f32,
        .quantize_8 = quantize_8,
        .dequantize_8 = dequantize_8,
    };
}

QUERN_VEC_END
