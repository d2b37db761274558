// Sliding windows of convolutions and pools: attributes to conv::Window, output sizes from symbolic ones.
#pragma once
#include <quern/kernels/conv/conv.hpp>

#include "op.hpp"

QUERN_BEGIN
namespace ops_window {

inline constexpr std::int64_t largest = std::int64_t{1} << 31;

inline void check_ints(const Attrs& a, const char* name, std::vector<std::int64_t>& v, std::size_t n, std::int64_t least,
                       std::int64_t otherwise) {
    v = a.ints(name);
    if (v.empty()) v.assign(n, otherwise);
    if (v.size() != n)
        raise(ErrorCode::invalid_model, std::string("attribute ") + name + " has " + std::to_string(v.size()) +
                                            " numbers; " + std::to_string(n) + " are needed");
    for (std::int64_t x : v)
        if (x < least || x > largest)
            raise(ErrorCode::invalid_model, std::string("attribute ") + name + " holds " + std::to_string(x) +
                                                "; accepted are " + std::to_string(least) + " to 2^31");
}

/// The window of a node whose kernel has `kernel` sizes: strides, dilations, pads and auto_pad, checked.
inline conv::Window of_kernel(const Attrs& a, std::vector<std::int64_t> kernel) {
    conv::Window w;
    w.kernel = std::move(kernel);
    std::size_t n = w.kernel.size();
    for (std::int64_t k : w.kernel)
        if (k < 1 || k > largest)
            raise(ErrorCode::invalid_model, "window size " + std::to_string(k) + "; accepted are 1 to 2^31");
    check_ints(a, "strides", w.strides, n, 1, 1);
    check_ints(a, "dilations", w.dilations, n, 1, 1);
    std::string mode = a.s("auto_pad", "NOTSET");
    if (mode == "NOTSET" || mode.empty()) w.auto_pad = conv::AutoPad::notset;
    else if (mode == "SAME_UPPER") w.auto_pad = conv::AutoPad::same_upper;
    else if (mode == "SAME_LOWER") w.auto_pad = conv::AutoPad::same_lower;
    else if (mode == "VALID") w.auto_pad = conv::AutoPad::valid;
    else raise(ErrorCode::invalid_model, "auto_pad is '" + mode + "'; accepted are NOTSET, SAME_UPPER, SAME_LOWER, VALID");
    if (w.auto_pad == conv::AutoPad::notset) check_ints(a, "pads", w.pads, 2 * n, 0, 0);
    else w.pads.assign(2 * n, 0);
    return w;
}

/// The window of a convolution with weights [M, C/group, k...]: kernel_shape where given must agree with them.
inline conv::Window of_weights(const Attrs& a, const Fact& w) {
    std::vector<std::int64_t> kernel = a.ints("kernel_shape");
    if (!w.ranked) raise(ErrorCode::unsupported, "the weights' shape is not known; it must be known when loading");
    std::size_t n = w.dims.size() - 2;
    if (kernel.empty()) {
        for (std::size_t d = 0; d < n; ++d) {
            if (!w.dims[d + 2].is_const())
                raise(ErrorCode::unsupported, "the size of the kernel is not known (weights " + w.to_string() +
                                                  "); kernel_shape or constant spatial dimensions are needed");
            kernel.push_back(w.dims[d + 2].value());
        }
    } else if (kernel.size() != n) {
        raise(ErrorCode::invalid_model, "kernel_shape has " + std::to_string(kernel.size()) + " numbers, but the weights " +
                                            w.to_string() + " have " + std::to_string(n) + " spatial dimensions");
    } else {
        for (std::size_t d = 0; d < n; ++d) {
            int c = compare(w.dims[d + 2], Dim(kernel[d]));
            if (c == 1 || c == -1)
                raise(ErrorCode::invalid_model, "kernel_shape says " + std::to_string(kernel[d]) + " where the weights are " +
                                                    w.to_string());
        }
    }
    if (w.concrete() && w.shape().count() == 0) {  // no bytes speak for such a window
        Dim taps = 1;
        for (std::int64_t k : kernel) taps *= Dim(k);
        if (taps.value() > 1 << 20) raise(ErrorCode::unsupported, "a window of " + taps.to_string() + " positions whose weights " + w.to_string() + " have no elements");
    }
    return of_kernel(a, std::move(kernel));
}

/// Number of windows along dimension d for an input of size `in`. With `ceil_mode` the last window may end beyond
/// the padding, but not begin in the padding at the end.
inline Dim outputs(const conv::Window& w, int d, const Dim& in, bool ceil_mode) {
    std::int64_t s = w.strides[d], reach = (w.kernel[d] - 1) * w.dilations[d] + 1;
    if (w.auto_pad == conv::AutoPad::same_upper || w.auto_pad == conv::AutoPad::same_lower) return ceil_div(in, Dim(s));
    std::int64_t begin = w.pads[d], end = w.pads[d + w.spatial()];
    Dim room = in + Dim(begin + end - reach);
    Dim n = ceil_mode ? min(ceil_div(room, Dim(s)), floor_div(in + Dim(begin - 1), Dim(s))) + Dim(1)
                      : floor_div(room, Dim(s)) + Dim(1);
    if (n.is_const() && n.value() < 0)
        raise(ErrorCode::shape_mismatch, "a window that reaches over " + std::to_string(reach) + " elements does not fit a dimension of " +
                                             in.to_string() + " with padding " + std::to_string(begin) + " and " + std::to_string(end));
    return n;
}

/// Raises when both are known to differ.
inline void same(const InferCtx& ctx, const Dim& a, const Dim& b, const char* what) {
    int c = compare(a, b);
    if (c == 1 || c == -1) ctx.fail(std::string(what) + ": found " + a.to_string() + " and " + b.to_string() + ", which must be equal");
}

/// Input i, where it is there and ranked, has these dims as far as they are known.
inline void expect(const InferCtx& ctx, int i, const std::vector<Dim>& want, const char* what) {
    if (!ctx.has(i) || !ctx.ranked(i)) return;
    ctx.need_rank(i, static_cast<int>(want.size()), static_cast<int>(want.size()));
    for (std::size_t d = 0; d < want.size(); ++d) same(ctx, ctx.in(i).dims[d], want[d], what);
}

}  // namespace ops_window
QUERN_END
