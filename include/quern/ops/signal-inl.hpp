// DFT, STFT, HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix: https://onnx.ai/onnx/operators/onnx__DFT.html and theirs.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/signal/signal.hpp>

QUERN_BEGIN
namespace ops_signal {

inline void need_real(const InferCtx& ctx, int i) { ctx.need_type(i, {DType::f32, DType::f64, DType::f16, DType::bf16}); }
/// The one number of an integer input; nothing where it is not known.
inline std::optional<Dim> one(const InferCtx& ctx, int i) {
    ctx.need_type(i, {DType::i64, DType::i32});
    ctx.need_rank(i, 0, 1);
    if (std::int64_t n = ops_util::length_of(ctx, i); n >= 0 && n != 1) ctx.fail("input " + std::to_string(i) + " must be one number");
    auto v = ctx.ints(i);
    if (!v) return std::nullopt;
    if (v->size() != 1) ctx.fail("input " + std::to_string(i) + " must be one number");
    return (*v)[0];
}
inline Dim at_least(const InferCtx& ctx, const Dim& d, std::int64_t least, const char* what) {
    if (d.is_const() && (d.value() < least || d.value() > (std::int64_t{1} << 40))) ctx.fail(std::string(what) + " is " + d.to_string() + "; accepted: " + std::to_string(least) + " to 2^40");
    return d;
}

/// The numbers that make an element: the last dimension.
inline void need_parts(const InferCtx& ctx, const Dim& parts) {
    if (parts.is_const() && !parts.is(1) && !parts.is(2)) ctx.fail("the last dimension is " + parts.to_string() + "; accepted: 1 (real), 2 (complex)");
}

QUERN_INLINE void import_dft(ImportCtx& ctx) {
    if (ctx.opset >= 20) return;
    std::int64_t axis = ctx.attrs.i("axis", 1);
    ctx.attrs.erase("axis");
    ctx.in.resize(2, no_value);
    ctx.in.push_back(ctx.constant(Tensor::from(std::span<const std::int64_t>(&axis, 1), {})));
}
QUERN_INLINE void infer_dft(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    need_real(ctx, 0);
    ctx.need_rank(0, 2);
    bool inverse = ctx.attrs.i("inverse", 0) != 0, onesided = ctx.attrs.i("onesided", 0) != 0;
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    need_parts(ctx, x.dims.back());
    std::optional<Dim> axis = ctx.has(2) ? one(ctx, 2) : std::optional<Dim>(-2);
    if (!axis || !axis->is_const()) {  // the kernel reads it; only the sizes matter here
        bool same = !ctx.has(1) && !onesided;
        std::vector<Dim> out = same ? x.dims : ops_util::fresh_dims(ctx, x.rank(), "dft");
        out.back() = onesided && inverse ? 1 : 2;
        return ctx.set(0, x.dtype, std::move(out));
    }
    int a = ctx.axis(axis->value(), x.rank());
    if (a == x.rank() - 1) raise(ErrorCode::invalid_model, "axis " + axis->to_string() + " holds the real and imaginary parts; another is needed");
    std::optional<Dim> n = ctx.has(1) ? one(ctx, 1) : std::optional<Dim>(inverse && onesided ? Dim(2) * (x.dims[a] - Dim(1)) : x.dims[a]);
    std::vector<Dim> out = x.dims;
    if (n && ctx.has(1)) at_least(ctx, *n, 1, "dft_length");
    if (n && n->is_const() && n->value() < 0) ctx.fail("a one-sided spectrum of " + x.dims[a].to_string() + " values; accepted: 1 and more");
    if (!n) out[a] = ctx.fresh("dft");
    else out[a] = onesided && !inverse ? floor_div(*n, 2) + Dim(1) : *n;
    out.back() = onesided && inverse ? 1 : 2;
    ctx.set(0, x.dtype, std::move(out));
}
QUERN_INLINE Lowered lower_dft(const LowerCtx& ctx) {
    std::int64_t axis = -2;
    const auto given = ctx.has(2) ? detail::small_ints(ctx.constant(2)) : std::nullopt;
    const bool known = !ctx.has(2) || (given && given->size() == 1);
    if (given && known) axis = (*given)[0];
    int rank = ctx.in(0).rank();
    return ops_util::kernel<signal::Dft>(!known ? -1 : static_cast<int>(axis < 0 ? axis + rank : axis), ctx.attrs.i("inverse", 0) != 0, ctx.attrs.i("onesided", 0) != 0);
}

/// The signal is [batch, length, 1 or 2]; [batch, length] is real, as ONNX Runtime has it and exported preprocessing relies on.
QUERN_INLINE void infer_stft(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    need_real(ctx, 0);
    ctx.need_rank(0, 2, 3);
    if (x.ranked && x.rank() == 3) need_parts(ctx, x.dims[2]);
    bool onesided = ctx.attrs.i("onesided", 1) != 0;
    auto step = one(ctx, 1);
    std::optional<Dim> length;
    if (ctx.has(2)) {
        ctx.need_same_type(2, 0);
        ctx.need_rank(2, 1, 1);
        if (ctx.ranked(2)) length = ctx.in(2).dims[0];
    }
    if (ctx.has(3)) {
        auto given = one(ctx, 3);
        if (given && length) ops_util::same_dim(ctx, *given, *length, "window and frame_length");
        if (given) length = given;
    } else if (!ctx.has(2) && x.ranked) length = x.dims[1];
    if (length) at_least(ctx, *length, 1, "frame_length");
    Dim frames, bins = length ? (onesided ? floor_div(*length, 2) + Dim(1) : *length) : ctx.fresh("stft");
    if (step && step->is_const()) at_least(ctx, *step, 1, "frame_step");
    if (length && step && x.ranked) {
        if (compare(*length, x.dims[1]) == 1) ctx.fail("frames of " + length->to_string() + " samples of a signal of " + x.dims[1].to_string());
        frames = floor_div(x.dims[1] - *length, *step) + Dim(1);
    } else frames = ctx.fresh("stft");
    ctx.set(0, x.dtype, {x.ranked ? x.dims[0] : ctx.fresh("stft"), frames, bins, Dim(2)});
}
QUERN_INLINE Lowered lower_stft(const LowerCtx&) { return ops_util::kernel<signal::Stft>(); }

inline DType type_of(const Attrs& a) {
    std::int64_t t = a.i("output_datatype", 1);
    auto d = static_cast<DType>(t);
    bool good = t > 0 && t < dtype_count && dtype_bits(d) >= 8 && d != DType::boolean && d != DType::c64 && d != DType::c128 && !(is_float(d) && dtype_bits(d) == 8);
    if (!good) raise(ErrorCode::invalid_model, "output_datatype " + std::to_string(t) + " is no numeric type of at least 8 bits");
    return d;
}
QUERN_INLINE void infer_window(InferCtx& ctx) {
    auto n = one(ctx, 0);
    ctx.set(0, type_of(ctx.attrs), {n ? at_least(ctx, *n, 0, "size") : ctx.fresh("window")});
}
inline Lowered window(const LowerCtx& ctx, double a0, double a1, double a2) {
    return ops_util::kernel<signal::Window>(a0, a1, a2, ctx.attrs.i("periodic", 1) != 0);
}
QUERN_INLINE Lowered lower_hann(const LowerCtx& ctx) { return window(ctx, 0.5, 0.5, 0); }
QUERN_INLINE Lowered lower_hamming(const LowerCtx& ctx) { return window(ctx, 25.0 / 46, 21.0 / 46, 0); }
QUERN_INLINE Lowered lower_blackman(const LowerCtx& ctx) { return window(ctx, 0.42, 0.5, 0.08); }

QUERN_INLINE void infer_mel(InferCtx& ctx) {
    auto bins = one(ctx, 0), length = one(ctx, 1);
    one(ctx, 2);
    for (int i = 3; i < 5; ++i) need_real(ctx, i);
    ctx.set(0, type_of(ctx.attrs), {length ? floor_div(at_least(ctx, *length, 0, "dft_length"), 2) + Dim(1) : ctx.fresh("mel"), bins ? at_least(ctx, *bins, 0, "num_mel_bins") : ctx.fresh("mel")});
}
QUERN_INLINE Lowered lower_mel(const LowerCtx&) { return ops_util::kernel<signal::MelWeights>(); }

}  // namespace ops_signal

QUERN_INLINE const OpDef& op_DFT() {
    static constexpr OpDef def{.name = "DFT", .min_in = 1, .max_in = 3, .newest = 20, .import = ops_signal::import_dft, .infer = ops_signal::infer_dft, .lower = ops_signal::lower_dft, .compute = Compute::real, .promote_in = 1};
    return def;
}
QUERN_INLINE const OpDef& op_STFT() {
    static constexpr OpDef def{.name = "STFT", .min_in = 2, .max_in = 4, .newest = 17, .infer = ops_signal::infer_stft, .lower = ops_signal::lower_stft, .compute = Compute::real, .promote_in = 5};
    return def;
}
QUERN_INLINE const OpDef& op_HannWindow() {
    static constexpr OpDef def{.name = "HannWindow", .min_in = 1, .max_in = 1, .newest = 17, .infer = ops_signal::infer_window, .lower = ops_signal::lower_hann};
    return def;
}
QUERN_INLINE const OpDef& op_HammingWindow() {
    static constexpr OpDef def{.name = "HammingWindow", .min_in = 1, .max_in = 1, .newest = 17, .infer = ops_signal::infer_window, .lower = ops_signal::lower_hamming};
    return def;
}
QUERN_INLINE const OpDef& op_BlackmanWindow() {
    static constexpr OpDef def{.name = "BlackmanWindow", .min_in = 1, .max_in = 1, .newest = 17, .infer = ops_signal::infer_window, .lower = ops_signal::lower_blackman};
    return def;
}
QUERN_INLINE const OpDef& op_MelWeightMatrix() {
    static constexpr OpDef def{.name = "MelWeightMatrix", .min_in = 5, .max_in = 5, .newest = 17, .infer = ops_signal::infer_mel, .lower = ops_signal::lower_mel};
    return def;
}
QUERN_END
