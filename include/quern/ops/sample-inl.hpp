// GridSample, AffineGrid, RoiAlign, Col2Im, MaxUnpool, Det: https://onnx.ai/onnx/operators/onnx__GridSample.html and theirs.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/sample/crop.hpp>
#include <quern/kernels/sample/sample.hpp>

QUERN_BEGIN
namespace ops_sample {

inline void need_real(const InferCtx& ctx, int i) { ctx.need_type(i, {DType::f32, DType::f64, DType::f16, DType::bf16}); }

QUERN_INLINE void import_grid(ImportCtx& ctx) {
    std::string m = ctx.attrs.s("mode", "linear");
    if (m == "bilinear") ctx.attrs.set("mode", std::string("linear"));
    if (m == "bicubic") ctx.attrs.set("mode", std::string("cubic"));
}
inline sample::Interpolation interpolation(const Attrs& a) {
    std::string m = a.s("mode", "linear");
    if (m == "linear") return sample::Interpolation::linear;
    if (m == "nearest") return sample::Interpolation::nearest;
    if (m == "cubic") return sample::Interpolation::cubic;
    raise(ErrorCode::invalid_model, "mode '" + m + "'; accepted: linear, nearest, cubic");
}
inline sample::Padding padding(const Attrs& a) {
    std::string m = a.s("padding_mode", "zeros");
    if (m == "zeros") return sample::Padding::zeros;
    if (m == "border") return sample::Padding::border;
    if (m == "reflection") return sample::Padding::reflection;
    raise(ErrorCode::invalid_model, "padding_mode '" + m + "'; accepted: zeros, border, reflection");
}
QUERN_INLINE void infer_grid(InferCtx& ctx) {
    const Fact &x = ctx.in(0), &g = ctx.in(1);
    need_real(ctx, 0);
    need_real(ctx, 1);
    interpolation(ctx.attrs);
    padding(ctx.attrs);
    ctx.need_rank(0, 3, 6);
    if (!x.ranked || !g.ranked) return ctx.set_unranked(0, x.dtype);
    ctx.need_rank(1, x.rank(), x.rank());
    if (g.dims.back().is_const() && !g.dims.back().is(x.rank() - 2)) ctx.fail("the grid's last dimension is " + g.dims.back().to_string() + "; accepted: " + std::to_string(x.rank() - 2));
    std::vector<Dim> out = {ops_util::same_dim(ctx, x.dims[0], g.dims[0], "batches"), x.dims[1]};
    out.insert(out.end(), g.dims.begin() + 1, g.dims.end() - 1);
    ctx.set(0, x.dtype, std::move(out));
}
QUERN_INLINE Lowered lower_grid(const LowerCtx& ctx) {
    return ops_util::kernel<sample::GridSample>(interpolation(ctx.attrs), padding(ctx.attrs), ctx.attrs.i("align_corners", 0) != 0);
}

QUERN_INLINE void infer_affine(InferCtx& ctx) {
    const Fact& t = ctx.in(0);
    need_real(ctx, 0);
    ctx.need_type(1, {DType::i64});
    ctx.need_rank(0, 3, 3);
    ctx.need_rank(1, 1, 1);
    std::int64_t n = ops_util::length_of(ctx, 1);
    auto size = ctx.ints(1);
    if (n >= 0 && n != 4 && n != 5) ctx.fail(std::to_string(n) + " sizes; accepted: 4 (N, C, H, W) or 5 (N, C, D, H, W)");
    if (n < 0) return ctx.set_unranked(0, t.dtype);
    std::vector<Dim> out;
    if (size) {
        out = *size;
        out.erase(out.begin() + 1);
        for (auto& d : out)
            if (d.is_const() && d.value() < 0) ctx.fail("a size of " + d.to_string() + "; 0 or more is accepted");
    } else out = ops_util::fresh_dims(ctx, n - 1, "grid");
    if (t.ranked) {
        out[0] = ops_util::same_dim(ctx, out[0], t.dims[0], "batches");
        ops_util::same_dim(ctx, t.dims[1], Dim(n - 2), "theta");
        ops_util::same_dim(ctx, t.dims[2], Dim(n - 1), "theta");
    }
    out.push_back(Dim(n - 2));
    ctx.set(0, t.dtype, std::move(out));
}
QUERN_INLINE Lowered lower_affine(const LowerCtx& ctx) { return ops_util::kernel<sample::AffineGrid>(ctx.attrs.i("align_corners", 0) != 0); }

QUERN_INLINE void import_roi(ImportCtx& ctx) {
    if (ctx.opset < 16) ctx.attrs.set("coordinate_transformation_mode", std::string("output_half_pixel"));
}
inline bool half_pixel(const Attrs& a) {
    std::string m = a.s("coordinate_transformation_mode", "half_pixel");
    if (m != "half_pixel" && m != "output_half_pixel") raise(ErrorCode::invalid_model, "coordinate_transformation_mode '" + m + "'; accepted: half_pixel, output_half_pixel");
    return m == "half_pixel";
}
inline bool average(const Attrs& a) {
    std::string m = a.s("mode", "avg");
    if (m != "avg" && m != "max") raise(ErrorCode::invalid_model, "mode '" + m + "'; accepted: avg, max");
    return m == "avg";
}
QUERN_INLINE void infer_roi(InferCtx& ctx) {
    const Fact &x = ctx.in(0), &r = ctx.in(1), &b = ctx.in(2);
    need_real(ctx, 0);
    ctx.need_same_type(1, 0);
    ctx.need_type(2, {DType::i64, DType::i32});
    ctx.need_rank(0, 4, 4);
    ctx.need_rank(1, 2, 2);
    ctx.need_rank(2, 1, 1);
    half_pixel(ctx.attrs);
    average(ctx.attrs);
    std::int64_t h = ctx.attrs.i("output_height", 1), w = ctx.attrs.i("output_width", 1);
    if (h < 1 || w < 1) raise(ErrorCode::invalid_model, "an output of " + std::to_string(h) + " x " + std::to_string(w) + "; 1 or more is accepted");
    if (r.ranked) ops_util::same_dim(ctx, r.dims[1], 4, "a region");
    Dim n = r.ranked && b.ranked ? ops_util::same_dim(ctx, r.dims[0], b.dims[0], "regions") : r.ranked ? r.dims[0] : ctx.fresh("rois");
    ctx.set(0, x.dtype, {n, x.ranked ? x.dims[1] : ctx.fresh("channels"), Dim(h), Dim(w)});
}
QUERN_INLINE Lowered lower_roi(const LowerCtx& ctx) {
    return ops_util::kernel<sample::RoiAlign>(average(ctx.attrs), half_pixel(ctx.attrs), ctx.attrs.i("sampling_ratio", 0), static_cast<double>(ctx.attrs.f("spatial_scale", 1)));
}

/// An attribute with `n` values from `least` up, or all `otherwise`.
inline std::vector<std::int64_t> list(const Attrs& a, const char* name, std::size_t n, std::int64_t otherwise, std::int64_t least) {
    auto v = a.ints(name);
    if (v.empty()) v.assign(n, otherwise);
    bool good = v.size() == n;
    for (auto k : v) good = good && k >= least && k <= INT32_MAX;
    if (!good) raise(ErrorCode::invalid_model, std::string(name) + " must be " + std::to_string(n) + " numbers, each at least " + std::to_string(least));
    return v;
}
QUERN_INLINE void infer_col2im(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(1, {DType::i64});
    ctx.need_type(2, {DType::i64});
    ctx.need_rank(0, 3, 3);
    auto image = ctx.ints(1), block = ctx.ints(2);
    std::int64_t r = ops_util::length_of(ctx, 1), rb = ops_util::length_of(ctx, 2);
    if (r >= 0 && rb >= 0 && r != rb) ctx.fail("image_shape and block_shape must have the same length, not " + std::to_string(r) + " and " + std::to_string(rb));
    if (r < 0) return ctx.set_unranked(0, x.dtype);
    if (r > 62) ctx.unsupported("an image of " + std::to_string(r) + " dimensions; up to 62 are accepted");
    list(ctx.attrs, "strides", static_cast<std::size_t>(r), 1, 1);
    list(ctx.attrs, "dilations", static_cast<std::size_t>(r), 1, 1);
    list(ctx.attrs, "pads", static_cast<std::size_t>(2 * r), 0, 0);
    if (image)
        for (auto& d : *image)
            if (d.is_const() && d.value() < 0) ctx.fail("an image size of " + d.to_string() + "; 0 or more is accepted");
    std::vector<Dim> out = {x.ranked ? x.dims[0] : ctx.fresh("batch"), Dim(0)};
    Dim taps = block ? ops_util::product(*block) : Dim(0);
    if (block && taps.is_const() && taps.value() < 1) ctx.fail("block_shape must be 1 or more everywhere");
    out[1] = block && x.ranked ? floor_div(x.dims[1], taps) : ctx.fresh("channels");
    for (std::int64_t k = 0; k < r; ++k) out.push_back(image ? (*image)[static_cast<std::size_t>(k)] : ctx.fresh("image"));
    ctx.set(0, x.dtype, std::move(out));
}
QUERN_INLINE Lowered lower_col2im(const LowerCtx& ctx) {
    return ops_util::kernel<sample::Col2Im>(ctx.attrs.ints("strides"), ctx.attrs.ints("pads"), ctx.attrs.ints("dilations"));  // the rank may be known only when it runs
}

QUERN_INLINE void infer_unpool(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(1, {DType::i64});
    ctx.need_rank(0, 3);
    auto kernel = ctx.attrs.ints("kernel_shape");
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    auto r = static_cast<std::size_t>(x.rank() - 2);
    if (kernel.size() != r) raise(ErrorCode::invalid_model, "kernel_shape has " + std::to_string(kernel.size()) + " sizes; accepted: " + std::to_string(r));
    kernel = list(ctx.attrs, "kernel_shape", r, 1, 1);
    auto strides = list(ctx.attrs, "strides", r, 1, 1), pads = list(ctx.attrs, "pads", 2 * r, 0, 0);
    std::vector<Dim> out(x.dims.begin(), x.dims.begin() + 2);
    if (ctx.has(2)) {
        ctx.need_type(2, {DType::i64});
        if (auto s = ctx.ints(2)) {
            if (s->size() != r + 2) ctx.fail("output_shape has " + std::to_string(s->size()) + " sizes; accepted: " + std::to_string(r + 2));
            for (auto& d : *s)
                if (d.is_const() && d.value() < 0) ctx.fail("an output size of " + d.to_string() + "; 0 or more is accepted");
            out = *s;
        } else out = ops_util::fresh_dims(ctx, x.rank(), "unpool");
    } else for (std::size_t k = 0; k < r; ++k) out.push_back((x.dims[k + 2] - Dim(1)) * Dim(strides[k]) + Dim(kernel[k] - pads[k] - pads[r + k]));
    for (auto& d : out)
        if (d.is_const() && d.value() < 0) ctx.fail("an output size of " + d.to_string());
    ctx.set(0, x.dtype, std::move(out));
}
QUERN_INLINE Lowered lower_unpool(const LowerCtx& ctx) {
    auto r = static_cast<std::size_t>(ctx.in(0).rank() - 2);
    return ops_util::kernel<sample::MaxUnpool>(list(ctx.attrs, "kernel_shape", r, 1, 1), list(ctx.attrs, "strides", r, 1, 1), list(ctx.attrs, "pads", 2 * r, 0, 0));
}

QUERN_INLINE void infer_det(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    need_real(ctx, 0);
    ctx.need_rank(0, 2);
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    ops_util::same_dim(ctx, x.dims[x.dims.size() - 1], x.dims[x.dims.size() - 2], "square matrices");
    ctx.set(0, x.dtype, {x.dims.begin(), x.dims.end() - 2});
}
QUERN_INLINE Lowered lower_det(const LowerCtx&) { return ops_util::kernel<sample::Det>(); }

QUERN_INLINE void infer_crop(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32});
    ctx.need_type(1, {DType::f32});
    ctx.need_type(2, {DType::i32});
    ctx.need_type(3, {DType::i32});
    const std::string mode = ctx.attrs.s("mode", "bilinear");
    if (mode != "bilinear" && mode != "nearest") raise(ErrorCode::invalid_model, "mode '" + mode + "'; accepted: bilinear, nearest");
    ctx.need_rank(0, 4, 4);
    ctx.need_rank(1, 2, 2);
    ctx.need_rank(2, 1, 1);
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, DType::f32);
    ops_util::same_dim(ctx, ctx.in(1).dims[1], Dim(4), "the numbers of a roi and 4");
    const auto size = ctx.const_ints(3);
    if (size && (size->size() != 2 || (*size)[0] < 1 || (*size)[1] < 1)) ctx.fail("the crop size must be two numbers, 1 and more");
    auto side = [&](std::size_t k, const char* name) { return size ? Dim((*size)[k]) : ctx.concrete ? Dim(0) : ctx.fresh(name); };
    ctx.set(0, DType::f32, {ctx.in(1).dims[0], ctx.in(0).dims[1], side(0, "crop_height"), side(1, "crop_width")});
}
QUERN_INLINE Lowered lower_crop(const LowerCtx& ctx) {
    return ops_util::kernel<sample::CropAndResize>(ctx.attrs.s("mode", "bilinear") == "nearest", ctx.attrs.f("extrapolation_value", 0));
}

}  // namespace ops_sample

QUERN_INLINE const OpDef& op_GridSample() {
    static constexpr OpDef def{.name = "GridSample", .min_in = 2, .max_in = 2, .newest = 22, .import = ops_sample::import_grid, .infer = ops_sample::infer_grid, .lower = ops_sample::lower_grid, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_AffineGrid() {
    static constexpr OpDef def{.name = "AffineGrid", .min_in = 2, .max_in = 2, .newest = 20, .infer = ops_sample::infer_affine, .lower = ops_sample::lower_affine, .compute = Compute::real, .promote_in = 1};
    return def;
}
QUERN_INLINE const OpDef& op_RoiAlign() {
    static constexpr OpDef def{.name = "RoiAlign", .min_in = 3, .max_in = 3, .newest = 22, .import = ops_sample::import_roi, .infer = ops_sample::infer_roi, .lower = ops_sample::lower_roi, .compute = Compute::real, .promote_in = 3};
    return def;
}
QUERN_INLINE const OpDef& op_Col2Im() {
    static constexpr OpDef def{.name = "Col2Im", .min_in = 3, .max_in = 3, .newest = 18, .infer = ops_sample::infer_col2im, .lower = ops_sample::lower_col2im, .compute = Compute::arith, .promote_in = 1};
    return def;
}
QUERN_INLINE const OpDef& op_MaxUnpool() {
    static constexpr OpDef def{.name = "MaxUnpool", .min_in = 2, .max_in = 3, .newest = 22, .infer = ops_sample::infer_unpool, .lower = ops_sample::lower_unpool};
    return def;
}
QUERN_INLINE const OpDef& op_Det() {
    static constexpr OpDef def{.name = "Det", .min_in = 1, .max_in = 1, .newest = 22, .infer = ops_sample::infer_det, .lower = ops_sample::lower_det, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_CropAndResize() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "CropAndResize", .min_in = 4, .max_in = 4, .newest = 1, .infer = ops_sample::infer_crop, .lower = ops_sample::lower_crop};
    return def;
}
QUERN_END
