// ConvTranspose: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html
#pragma once
#include <quern/kernels/conv_transpose/blocks.hpp>
#include <quern/kernels/conv_transpose/phases.hpp>
#include <quern/kernels/conv_transpose/conv_transpose.hpp>

#include "window.hpp"

QUERN_BEGIN
namespace ops_conv_transpose {

inline conv_transpose::Problem problem_of(const Attrs& a, const Fact& w) {
    conv_transpose::Problem p;
    p.window = ops_window::of_weights(a, w);
    p.group = a.i("group", 1);
    if (p.group < 1) raise(ErrorCode::invalid_model, "group is " + std::to_string(p.group) + "; it must be at least 1");
    std::size_t n = p.window.kernel.size();
    ops_window::check_ints(a, "output_padding", p.output_padding, n, 0, 0);
    bool same = p.window.auto_pad == conv::AutoPad::same_upper || p.window.auto_pad == conv::AutoPad::same_lower;
    p.split_padding = same || a.has("output_shape");
    return p;
}

inline void infer(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16});
    ctx.need_same_type(0, 1);
    if (ctx.has(2)) ctx.need_same_type(0, 2);
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, t);
    ctx.need_rank(0, 3);
    ctx.need_rank(1, ctx.in(0).rank(), ctx.in(0).rank());
    const std::vector<Dim>&x = ctx.in(0).dims, &w = ctx.in(1).dims;
    conv_transpose::Problem p = problem_of(ctx.attrs, ctx.in(1));
    const conv::Window& win = p.window;
    ops_window::same(ctx, x[1], w[0], "channels of the input and of the weights");
    if (w[0].is_const() && w[0].value() % p.group != 0)
        ctx.fail("the input has " + w[0].to_string() + " channels, which group = " + std::to_string(p.group) + " must divide");
    std::vector<Dim> y{x[0], w[1] * Dim(p.group)};
    if (ctx.has(2) && ctx.ranked(2)) {
        ctx.need_rank(2, 1, 1);
        ops_window::same(ctx, ctx.in(2).dims[0], y[1], "length of the bias and output channels");
    }
    std::size_t n = win.kernel.size();
    std::vector<std::int64_t> shape = ctx.attrs.ints("output_shape");
    if (shape.size() == n + 2) shape.erase(shape.begin(), shape.begin() + 2);
    if (!shape.empty() && shape.size() != n) raise(ErrorCode::invalid_model, "output_shape has " + std::to_string(shape.size()) + " numbers; " + std::to_string(n) + " are needed");
    for (std::size_t d = 0; d < n; ++d) {
        Dim whole = (x[d + 2] - Dim(1)) * Dim(win.strides[d]) + Dim(p.output_padding[d] + (win.kernel[d] - 1) * win.dilations[d] + 1);
        if (!shape.empty()) {
            if (shape[d] < 0) raise(ErrorCode::invalid_model, "output_shape holds " + std::to_string(shape[d]) + "; sizes of at least 0 are accepted");
            y.push_back(Dim(shape[d]));
        } else if (p.split_padding) y.push_back(x[d + 2] * Dim(win.strides[d]));
        else y.push_back(whole - Dim(win.pads[d] + win.pads[d + n]));
        if (y.back().is_const() && y.back().value() < 0) ctx.fail("the padding is larger than the output, which would have a dimension of " + y.back().to_string());
    }
    ctx.set(0, t, std::move(y));
}

/// Kernel = stride, nothing padded: each pixel gives a block of its own. What quern::ConvTranspose (channels last) accepts.
inline bool blocks(const Attrs& a, const Fact& w) {
    if (!w.is_const() || w.rank() != 4 || w.value.count() == 0 || a.has("output_shape")) return false;
    conv_transpose::Problem p = problem_of(a, w);
    auto all = [](const std::vector<std::int64_t>& v, std::int64_t x) { return std::all_of(v.begin(), v.end(), [&](auto i) { return i == x; }); };
    return p.group == 1 && p.window.auto_pad == conv::AutoPad::notset && p.window.kernel == p.window.strides && all(p.window.dilations, 1) &&
           all(p.window.pads, 0) && all(p.output_padding, 0);
}
/// X and Y in channels last.
inline void infer_last(InferCtx& ctx) {
    if (!ctx.ranked(0)) return infer(ctx);
    ctx.need_rank(0, 4, 4);
    const Fact* given = ctx.inputs[0];
    const auto& d = given->dims;
    Fact x = Fact::of(given->dtype, {d[0], d[3], d[1], d[2]});
    ctx.inputs[0] = &x;
    infer(ctx);
    ctx.inputs[0] = given;
    auto& y = ctx.outputs[0].dims;
    if (y.size() == 4) y = {y[0], y[2], y[3], y[1]};
}
inline Lowered lower_last(const LowerCtx& ctx) {
    if (!blocks(ctx.attrs, ctx.in(1))) raise(ErrorCode::unsupported, "a transposed convolution in channels last whose blocks overlap or whose weights are not constant");
    conv_transpose::Problem p = problem_of(ctx.attrs, ctx.in(1));
    p.has_bias = ctx.has(2);
    return Lowered(std::make_unique<conv_transpose::Blocks>(p, ctx.constant(1), ctx.target));
}
inline Lowered lower(const LowerCtx& ctx) {
    conv_transpose::Problem p = problem_of(ctx.attrs, ctx.in(1));
    p.dtype = ctx.in(0).dtype;
    p.has_bias = ctx.has(2);
    if (ctx.target.device != Device::cpu) {
        if (p.split_padding || p.window.auto_pad != conv::AutoPad::notset) raise(ErrorCode::unsupported, "padding that follows from the output's shape");
        conv::Problem d;
        d.dtype = p.dtype;
        d.window = p.window;
        d.group = p.group;
        d.has_bias = p.has_bias;
        d.transposed = true;
        return select(Family::conv, d, ctx.target);
    }
    std::vector<std::int64_t> in;
    for (std::size_t d = 2; d < ctx.in(0).dims.size(); ++d) in.push_back(ctx.in(0).dims[d].is_const() ? ctx.in(0).dims[d].value() : -1);
    if (const Tensor w = ctx.constant(1); conv_transpose::takes_phases(p, w, in)) return Lowered(std::make_unique<conv_transpose::Phases>(p, w, ctx.target));
    return Lowered(std::make_unique<conv_transpose::GemmScatter>(p, vec::table(ctx.target.isa)));
}

}  // namespace ops_conv_transpose

QUERN_END
