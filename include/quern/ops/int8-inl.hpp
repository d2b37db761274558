// MatMulInteger, QLinearMatMul, ConvInteger, QLinearConv: https://onnx.ai/onnx/operators/onnx__QLinearConv.html
#pragma once
#include <quern/kernels/quant/conv_8.hpp>
#include <quern/kernels/quant/matmul_8.hpp>

#include "matmul.hpp"

QUERN_BEGIN
namespace ops_int8 {

inline void need_scale(const InferCtx& ctx, int i) { ctx.need_type(i, {DType::f32, DType::f16, DType::bf16}); }
inline void need_8(const InferCtx& ctx, int i) {
    DType t = ctx.in(i).dtype;
    if (t == DType::f8e4m3fn || t == DType::f8e4m3fnuz || t == DType::f8e5m2 || t == DType::f8e5m2fnuz)
        ctx.unsupported("input " + std::to_string(i) + " is " + dtype_name(t) + "; uint8 and int8 are supported");
    ctx.need_type(i, {DType::u8, DType::i8});
}

using ops_matmul::product;
inline void infer_matmul_integer(InferCtx& ctx) {
    need_8(ctx, 0);
    need_8(ctx, 1);
    if (ctx.has(2)) ctx.need_same_type(2, 0);
    if (ctx.has(3)) ctx.need_same_type(3, 1);
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, DType::i32);
    ctx.set(0, DType::i32, product(ctx, ctx.in(0).dims, ctx.in(1).dims));
}
inline Lowered lower_matmul_integer(const LowerCtx& ctx) {
    quant::ProductProblem p;
    if (ctx.has(2)) p.a_zero = 2;
    if (ctx.has(3)) p.b_zero = 3;
    p.b_value = ctx.constant(1);
    return Lowered(std::make_unique<quant::ProductKernel>(p, ctx.target));
}
inline void infer_qlinear_matmul(InferCtx& ctx) {
    need_8(ctx, 0);
    need_8(ctx, 3);
    need_8(ctx, 7);
    ctx.need_same_type(2, 0);
    ctx.need_same_type(5, 3);
    for (int i : {1, 4, 6}) need_scale(ctx, i);
    if (!ctx.ranked(0) || !ctx.ranked(3)) return ctx.set_unranked(0, ctx.in(7).dtype);
    ctx.set(0, ctx.in(7).dtype, product(ctx, ctx.in(0).dims, ctx.in(3).dims));
}
inline Lowered lower_qlinear_matmul(const LowerCtx& ctx) {
    quant::ProductProblem p;
    p.a_scale = 1, p.a_zero = 2, p.b = 3, p.b_scale = 4, p.b_zero = 5, p.y_scale = 6, p.y_zero = 7;
    p.out = ctx.out(0).dtype;
    p.b_value = ctx.constant(3);
    return Lowered(std::make_unique<quant::ProductKernel>(p, ctx.target));
}

/// X at 0, W at `w`, the bias at `bias`.
inline void infer_conv(InferCtx& ctx, int w, int bias, DType out) {
    need_8(ctx, 0);
    need_8(ctx, w);
    std::int64_t group = ctx.attrs.i("group", 1);
    if (group < 1) raise(ErrorCode::invalid_model, "group is " + std::to_string(group) + "; it must be at least 1");
    if (!ctx.ranked(0) || !ctx.ranked(w)) return ctx.set_unranked(0, out);
    ctx.need_rank(0, 3);
    ctx.need_rank(w, ctx.in(0).rank(), ctx.in(0).rank());
    const std::vector<Dim>&x = ctx.in(0).dims, &k = ctx.in(w).dims;
    conv::Window win = ops_window::of_weights(ctx.attrs, ctx.in(w));
    ops_window::same(ctx, x[1], k[1] * Dim(group), "channels of the input and of the weights (times group)");
    if (k[0].is_const() && k[0].value() % group != 0)
        ctx.fail("the weights have " + k[0].to_string() + " output channels, which group = " + std::to_string(group) + " must divide");
    if (ctx.has(bias) && ctx.ranked(bias)) {
        ctx.need_type(bias, {DType::i32});
        ctx.need_rank(bias, 1, 1);
        ops_window::same(ctx, ctx.in(bias).dims[0], k[0], "length of the bias and output channels");
    }
    std::vector<Dim> y{x[0], k[0]};
    for (int d = 0; d < win.spatial(); ++d) y.push_back(ops_window::outputs(win, d, x[d + 2], false));
    ctx.set(0, out, std::move(y));
}
inline void infer_conv_integer(InferCtx& ctx) {
    if (ctx.has(2)) ctx.need_same_type(2, 0);
    if (ctx.has(3)) ctx.need_same_type(3, 1);
    infer_conv(ctx, 1, 4, DType::i32);
}
inline void infer_qlinear_conv(InferCtx& ctx) {
    need_8(ctx, 7);
    ctx.need_same_type(2, 0);
    ctx.need_same_type(5, 3);
    for (int i : {1, 4, 6}) need_scale(ctx, i);
    infer_conv(ctx, 3, 8, ctx.in(7).dtype);
}
inline Lowered lower_conv_integer(const LowerCtx& ctx) {
    quant::ConvProblem p;
    p.window = ops_window::of_weights(ctx.attrs, ctx.in(1));
    p.group = ctx.attrs.i("group", 1);
    if (ctx.has(2)) p.x_zero = 2;
    if (ctx.has(3)) p.w_zero = 3;
    p.w_value = ctx.constant(1);
    p.w_zero_value = ctx.constant(3);
    return Lowered(std::make_unique<quant::ConvKernel>(p, ctx.target));
}
inline Lowered lower_qlinear_conv(const LowerCtx& ctx) {
    quant::ConvProblem p;
    p.window = ops_window::of_weights(ctx.attrs, ctx.in(3));
    p.group = ctx.attrs.i("group", 1);
    p.x_scale = 1, p.x_zero = 2, p.w = 3, p.w_scale = 4, p.w_zero = 5, p.y_scale = 6, p.y_zero = 7;
    if (ctx.has(8)) p.bias = 8;
    p.out = ctx.out(0).dtype;
    p.w_value = ctx.constant(3);
    p.w_zero_value = ctx.constant(5);
    if (ctx.attrs.s("layout", "nchw") == "nhwc") p.layout = conv::Layout::nhwc;
    p.low = saturated<std::int32_t>(ctx.attrs.i("low", -128));
    p.high = saturated<std::int32_t>(ctx.attrs.i("high", 255));
    return Lowered(std::make_unique<quant::ConvKernel>(p, ctx.target));
}

/// quern::QLinearConv: QLinearConv with layout "nchw" or "nhwc" of X and Y, and bounds low and high of the quantized results.
inline void infer_layout_conv(InferCtx& ctx) {
    const std::int64_t low = ctx.attrs.i("low", -128), high = ctx.attrs.i("high", 255);
    const bool whole = ctx.in(7).dtype == DType::u8;
    if (std::max<std::int64_t>(low, whole ? 0 : -128) > std::min<std::int64_t>(high, whole ? 255 : 127))
        raise(ErrorCode::invalid_model, "bounds " + std::to_string(low) + " and " + std::to_string(high) + ", between which lies no " + dtype_name(ctx.in(7).dtype));
    if (ctx.attrs.s("layout", "nchw") != "nhwc" || !ctx.ranked(0)) return infer_qlinear_conv(ctx);
    ctx.need_rank(0, 3);
    const Fact* given = ctx.inputs[0];  // QLinearConv's inference on the nchw order, then back
    Fact x = *given;
    x.value = Tensor();
    x.dims.insert(x.dims.begin() + 1, x.dims.back());
    x.dims.pop_back();
    ctx.inputs[0] = &x;
    infer_qlinear_conv(ctx);
    ctx.inputs[0] = given;
    auto& y = ctx.outputs[0].dims;
    if (y.size() < 3) return;
    y.push_back(y[1]);
    y.erase(y.begin() + 1);
}

}  // namespace ops_int8

QUERN_INLINE const OpDef& op_MatMulInteger() {
    static constexpr OpDef def{.name = "MatMulInteger", .min_in = 2, .max_in = 4, .newest = 10, .infer = ops_int8::infer_matmul_integer,
                               .lower = ops_int8::lower_matmul_integer};
    return def;
}
QUERN_INLINE const OpDef& op_QLinearMatMul() {
    static constexpr OpDef def{.name = "QLinearMatMul", .min_in = 8, .max_in = 8, .newest = 21, .infer = ops_int8::infer_qlinear_matmul,
                               .lower = ops_int8::lower_qlinear_matmul};
    return def;
}
QUERN_INLINE const OpDef& op_ConvInteger() {
    static constexpr OpDef def{.name = "ConvInteger", .min_in = 2, .max_in = 4, .newest = 10, .infer = ops_int8::infer_conv_integer,
                               .lower = ops_int8::lower_conv_integer};
    return def;
}
QUERN_INLINE const OpDef& op_QLinearConv() {
    static constexpr OpDef def{.name = "QLinearConv", .min_in = 8, .max_in = 9, .newest = 10, .infer = ops_int8::infer_qlinear_conv,
                               .lower = ops_int8::lower_qlinear_conv};
    return def;
}
QUERN_INLINE const OpDef& op_quern_QLinearConv() {
    static constexpr OpDef def{.domain = "quern", .name = "QLinearConv", .min_in = 8, .max_in = 9, .newest = 1, .infer = ops_int8::infer_layout_conv,
                               .lower = ops_int8::lower_qlinear_conv};
    return def;
}

QUERN_END
