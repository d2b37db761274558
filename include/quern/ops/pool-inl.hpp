// MaxPool, AveragePool, LpPool and the global pools: https://onnx.ai/onnx/operators/onnx__MaxPool.html
#pragma once
#include <quern/kernels/pool/pool.hpp>
#include <quern/kernels/reduce/problem.hpp>
#include <quern/kernels/pool/roi.hpp>

#include "window.hpp"

QUERN_BEGIN
namespace ops_pool {

inline conv::Window window_of(const Attrs& a) {
    std::vector<std::int64_t> kernel = a.ints("kernel_shape");
    if (kernel.empty()) raise(ErrorCode::invalid_model, "kernel_shape is missing; one number for each spatial dimension is needed");
    if (kernel.size() > 8) raise(ErrorCode::unsupported, std::to_string(kernel.size()) + " spatial dimensions; up to 8 are supported");
    return ops_window::of_kernel(a, std::move(kernel));
}
/// `p` was a float in opset 1.
inline float norm_of(const Attrs& a) {
    const Attr* p = a.find("p");
    float v = !p ? 2 : std::holds_alternative<float>(*p) ? a.f("p", 2) : static_cast<float>(a.i("p", 2));
    if (!(v > 0)) raise(ErrorCode::invalid_model, "p is " + std::to_string(v) + "; it must be positive");
    return v;
}

/// The layout pass turns the pools into those of domain "quern": X [N, d..., C].
inline bool channels_last(const Node& n) { return *n.op->domain != 0; }

inline void infer(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    bool max = ctx.n_out() > 1 || std::string_view(ctx.node.op->name) == "MaxPool";
    if (max) ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i8, DType::u8, DType::i32, DType::i64});
    else ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16});
    conv::Window w = window_of(ctx.attrs);
    norm_of(ctx.attrs);
    if (!ctx.ranked(0)) {
        ctx.set_unranked(0, t);
        ctx.set_unranked(1, DType::i64);
        return;
    }
    ctx.need_rank(0, w.spatial() + 2, w.spatial() + 2);
    std::vector<Dim> y = ctx.in(0).dims;
    int first = channels_last(ctx.node) ? 1 : 2;
    bool ceil_mode = ctx.attrs.i("ceil_mode", 0) != 0;
    for (int d = 0; d < w.spatial(); ++d) y[d + first] = ops_window::outputs(w, d, y[d + first], ceil_mode);
    ctx.set(0, t, y);
    ctx.set(1, DType::i64, std::move(y));
}
inline Lowered make(const LowerCtx& ctx, pool::Op op) {
    pool::Problem p;
    p.dtype = ctx.in(0).dtype;
    if (channels_last(ctx.node)) p.layout = conv::Layout::nhwc;
    p.window = window_of(ctx.attrs);
    p.op = op;
    p.count_padding = ctx.attrs.i("count_include_pad", 0) != 0;
    p.indices = ctx.outputs.size() > 1 && ctx.outputs[1];
    p.column_major = ctx.attrs.i("storage_order", 0) != 0;
    p.p = norm_of(ctx.attrs);
    if (ctx.target.device != Device::cpu) return select(Family::pool, p, ctx.target);
    return Lowered(std::make_unique<pool::WindowKernel>(p, vec::table(ctx.target.isa)));
}
inline Lowered lower_max(const LowerCtx& ctx) { return make(ctx, pool::Op::max); }
inline Lowered lower_average(const LowerCtx& ctx) { return make(ctx, pool::Op::average); }
inline Lowered lower_lp(const LowerCtx& ctx) { return make(ctx, pool::Op::lp); }

inline void infer_global(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16});
    norm_of(ctx.attrs);
    if (!ctx.ranked(0)) return ctx.set_unranked(0, t);
    ctx.need_rank(0, 2);
    std::vector<Dim> y = ctx.in(0).dims;
    for (std::size_t d = 2; d < y.size(); ++d) y[d] = Dim(1);
    ctx.set(0, t, std::move(y));
}
inline Lowered make_global(const LowerCtx& ctx, pool::Op op) {
    if (ctx.target.device != Device::cpu) {
        reduce::Problem p;
        if (op == pool::Op::lp && norm_of(ctx.attrs) != 2) raise(ErrorCode::unsupported, "a p-norm other than 2 on the device");
        p.kind = op == pool::Op::max ? reduce::Problem::Kind::max : op == pool::Op::average ? reduce::Problem::Kind::mean : reduce::Problem::Kind::l2;
        p.dtype = ctx.in(0).dtype;
        p.rank = ctx.in(0).rank();
        for (int i = 2; i < p.rank; ++i) p.axes.push_back(i);
        return select(Family::reduce, p, ctx.target);
    }
    return Lowered(std::make_unique<pool::GlobalKernel>(ctx.in(0).dtype, op, norm_of(ctx.attrs), vec::table(ctx.target.isa)));
}
inline Lowered lower_global_max(const LowerCtx& ctx) { return make_global(ctx, pool::Op::max); }
inline Lowered lower_global_average(const LowerCtx& ctx) { return make_global(ctx, pool::Op::average); }
inline Lowered lower_global_lp(const LowerCtx& ctx) { return make_global(ctx, pool::Op::lp); }

inline void infer_roi(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16});
    ctx.need_same_type(0, 1);
    std::vector<std::int64_t> size = ctx.attrs.ints("pooled_shape");
    if (size.size() != 2 || size[0] < 1 || size[1] < 1) raise(ErrorCode::invalid_model, "pooled_shape must be two positive numbers");
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, t);
    ctx.need_rank(0, 4, 4);
    ctx.need_rank(1, 2, 2);
    ops_window::same(ctx, ctx.in(1).dims[1], Dim(5), "the columns of rois");
    ctx.set(0, t, {ctx.in(1).dims[0], ctx.in(0).dims[1], Dim(size[0]), Dim(size[1])});
}
inline Lowered lower_roi(const LowerCtx& ctx) {
    return Lowered(std::make_unique<pool::RoiMaxKernel>(ctx.in(0).dtype, ctx.attrs.f("spatial_scale", 1)));
}

}  // namespace ops_pool

QUERN_INLINE const OpDef& op_MaxPool() {
    static constexpr OpDef def{.name = "MaxPool", .min_in = 1, .max_in = 1, .max_out = 2, .newest = 22, .infer = ops_pool::infer,
                               .lower = ops_pool::lower_max, .lower_device = ops_pool::lower_max, .compute = Compute::arith, .promote_out = 1, .narrow = Narrow::bytes};
    return def;
}
QUERN_INLINE const OpDef& op_AveragePool() {
    static constexpr OpDef def{.name = "AveragePool", .min_in = 1, .max_in = 1, .newest = 22, .infer = ops_pool::infer,
                               .lower = ops_pool::lower_average, .lower_device = ops_pool::lower_average, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_quern_MaxPool() {
    static constexpr OpDef def{.domain = "quern", .name = "MaxPool", .min_in = 1, .max_in = 1, .newest = 1, .infer = ops_pool::infer,
                               .lower = ops_pool::lower_max, .lower_device = ops_pool::lower_max, .compute = Compute::arith, .narrow = Narrow::bytes};
    return def;
}
QUERN_INLINE const OpDef& op_quern_AveragePool() {
    static constexpr OpDef def{.domain = "quern", .name = "AveragePool", .min_in = 1, .max_in = 1, .newest = 1, .infer = ops_pool::infer,
                               .lower = ops_pool::lower_average, .lower_device = ops_pool::lower_average, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_LpPool() {
    static constexpr OpDef def{.name = "LpPool", .min_in = 1, .max_in = 1, .newest = 22, .infer = ops_pool::infer,
                               .lower = ops_pool::lower_lp, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_MaxRoiPool() {
    static constexpr OpDef def{.name = "MaxRoiPool", .min_in = 2, .max_in = 2, .newest = 22, .infer = ops_pool::infer_roi,
                               .lower = ops_pool::lower_roi, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_GlobalMaxPool() {
    static constexpr OpDef def{.name = "GlobalMaxPool", .min_in = 1, .max_in = 1, .newest = 22, .infer = ops_pool::infer_global,
                               .lower = ops_pool::lower_global_max, .lower_device = ops_pool::lower_global_max, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_GlobalAveragePool() {
    static constexpr OpDef def{.name = "GlobalAveragePool", .min_in = 1, .max_in = 1, .newest = 22, .infer = ops_pool::infer_global,
                               .lower = ops_pool::lower_global_average, .lower_device = ops_pool::lower_global_average, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_GlobalLpPool() {
    static constexpr OpDef def{.name = "GlobalLpPool", .min_in = 1, .max_in = 1, .newest = 22, .infer = ops_pool::infer_global,
                               .lower = ops_pool::lower_global_lp, .lower_device = ops_pool::lower_global_lp, .compute = Compute::real};
    return def;
}

QUERN_END
