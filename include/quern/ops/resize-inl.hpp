// Resize and Upsample: https://onnx.ai/onnx/operators/onnx__Resize.html, onnx__Upsample.html.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/resize/problem.hpp>

QUERN_BEGIN
namespace ops_resize {

template <class E, std::size_t N> E choice(const std::string& v, const char* what, const std::pair<const char*, E> (&table)[N]) {
    std::string names;
    for (auto& [name, e] : table) {
        if (v == name) return e;
        names += (names.empty() ? "" : ", ") + std::string(name);
    }
    raise(ErrorCode::invalid_model, std::string(what) + " '" + v + "'; accepted: " + names);
}
inline resize::Spec spec_of(const Attrs& a, int rank) {
    using namespace resize;
    static constexpr std::pair<const char*, Mode> modes[] = {{"nearest", Mode::nearest}, {"linear", Mode::linear}, {"cubic", Mode::cubic}};
    static constexpr std::pair<const char*, Coord> coords[] = {
        {"half_pixel", Coord::half_pixel}, {"half_pixel_symmetric", Coord::half_pixel_symmetric}, {"pytorch_half_pixel", Coord::pytorch_half_pixel},
        {"align_corners", Coord::align_corners}, {"asymmetric", Coord::asymmetric}, {"tf_crop_and_resize", Coord::tf_crop_and_resize},
        {"tf_half_pixel_for_nn", Coord::tf_half_pixel_for_nn}};
    static constexpr std::pair<const char*, Nearest> nearests[] = {
        {"round_prefer_floor", Nearest::round_prefer_floor}, {"round_prefer_ceil", Nearest::round_prefer_ceil}, {"floor", Nearest::floor},
        {"ceil", Nearest::ceil}, {"simple", Nearest::simple}};
    static constexpr std::pair<const char*, Aspect> aspects[] = {{"stretch", Aspect::stretch}, {"not_larger", Aspect::not_larger}, {"not_smaller", Aspect::not_smaller}};
    Spec s;
    s.mode = choice(a.s("mode", "nearest"), "mode", modes);
    s.coord = choice(a.s("coordinate_transformation_mode", "half_pixel"), "coordinate_transformation_mode", coords);
    s.nearest = choice(a.s("nearest_mode", "round_prefer_floor"), "nearest_mode", nearests);
    s.aspect = choice(a.s("keep_aspect_ratio_policy", "stretch"), "keep_aspect_ratio_policy", aspects);
    s.cubic_a = static_cast<double>(a.f("cubic_coeff_a", -0.75f));
    s.exclude_outside = a.i("exclude_outside", 0) != 0;
    s.antialias = a.i("antialias", 0) != 0;
    s.extrapolation = static_cast<double>(a.f("extrapolation_value", 0));
    if (a.has("axes")) {
        for (std::int64_t v : a.ints("axes")) {
            int k = movement::norm_axis(v, rank);
            for (int o : s.axes)
                if (o == k) raise(ErrorCode::invalid_model, "axis " + std::to_string(v) + " is given twice");
            s.axes.push_back(k);
        }
    } else for (int i = 0; i < rank; ++i) s.axes.push_back(i);
    return s;
}
/// Input i is there and not the empty tensor that older exporters write for "absent".
template <class C> bool given(const C& ctx, int i) {
    return ctx.has(i) && !(ctx.in(i).ranked && ctx.in(i).rank() == 1 && ctx.in(i).dims[0].is(0));
}
QUERN_INLINE void import_resize(ImportCtx& ctx) {
    if (ctx.opset >= 11) return;
    if (!ctx.has(1)) ctx.invalid("the input 'scales' is missing");
    ctx.attrs.set("coordinate_transformation_mode", std::string("asymmetric"));
    ctx.attrs.set("nearest_mode", std::string("simple"));
    if (ctx.attrs.s("mode", "nearest") == "bilinear") ctx.attrs.set("mode", std::string("linear"));
    ctx.in = {ctx.in[0], no_value, ctx.in[1]};
}
QUERN_INLINE void import_upsample(ImportCtx& ctx) {
    std::vector<float> scales;
    if (ctx.opset < 7) {
        scales = {1, 1, ctx.attrs.f("height_scale", 1), ctx.attrs.f("width_scale", 1)};
        ctx.attrs.erase("height_scale");
        ctx.attrs.erase("width_scale");
    } else if (ctx.opset < 9) {
        scales = ctx.attrs.floats("scales");
        ctx.attrs.erase("scales");
    }
    if (ctx.opset < 9) ctx.in = {ctx.in[0], ctx.constant(Tensor::from(std::span<const float>(scales), {static_cast<std::int64_t>(scales.size())}))};
    ctx.opset = 10;
    import_resize(ctx);
    ctx.finish("Resize", ctx.in, ctx.attrs);
}
/// d * f rounded down where f is a fraction with a small power of two below it; nothing otherwise.
inline std::optional<Dim> scaled(const Dim& d, float f) {
    if (f == 1) return d;
    if (!(f > 0) || f > 0x1p20f) return std::nullopt;
    for (int bits = 0; bits <= 10; ++bits) {
        double v = std::ldexp(static_cast<double>(f), bits);
        if (v == std::floor(v)) return floor_div(d * Dim(static_cast<std::int64_t>(v)), std::int64_t{1} << bits);
    }
    return std::nullopt;
}
inline void check(const InferCtx& ctx, const resize::Spec& s) {
    DType t = ctx.in(0).dtype;
    if (s.mode != resize::Mode::nearest && !(is_float(t) ? t == DType::f32 || t == DType::f64 || t == DType::f16 || t == DType::bf16 : is_integer(t) && dtype_bits(t) >= 8))
        ctx.unsupported(std::string("interpolation of type ") + dtype_name(t));
    if (s.mode == resize::Mode::nearest && s.antialias) raise(ErrorCode::invalid_model, "antialias with mode 'nearest'; accepted with linear and cubic");
    if (given(ctx, 2) == given(ctx, 3)) raise(ErrorCode::invalid_model, "exactly one of scales and sizes must be given");
    if (given(ctx, 2)) ctx.need_type(2, {DType::f32});
    if (given(ctx, 3)) ctx.need_type(3, {DType::i64});
    if (s.coord == resize::Coord::tf_crop_and_resize && !given(ctx, 1)) raise(ErrorCode::invalid_model, "tf_crop_and_resize needs the input roi");
    for (int i = 2; i < 4; ++i)
        if (given(ctx, i)) {
            std::int64_t n = ops_util::length_of(ctx, i);
            if (n >= 0 && n != static_cast<std::int64_t>(s.axes.size())) ctx.fail(std::to_string(n) + (i == 2 ? " scales; accepted: " : " sizes; accepted: ") + std::to_string(s.axes.size()) + ", one for each axis");
        }
}
QUERN_INLINE void infer(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    movement::check_rank(x.rank());
    auto s = spec_of(ctx.attrs, x.rank());
    check(ctx, s);
    std::vector<Dim> out = x.dims;
    if (given(ctx, 3)) {
        auto sizes = ctx.ints(3);
        auto numbers = ctx.const_ints(3);
        if (numbers && x.concrete()) {
            std::int64_t o[movement::max_rank];
            double scale[movement::max_rank];
            resize::resolve(s, x.shape(), nullptr, numbers->data(), o, scale);
            for (int a : s.axes) out[a] = o[a];
        } else for (std::size_t k = 0; k < s.axes.size(); ++k) {
            bool plain = sizes && s.aspect == resize::Aspect::stretch;
            if (plain && (*sizes)[k].is_const() && (*sizes)[k].value() < 0) ctx.fail("a size of " + (*sizes)[k].to_string() + "; 0 or more is accepted");
            out[s.axes[k]] = plain ? (*sizes)[k] : ctx.fresh("resize");
        }
    } else {
        const Tensor& v = ctx.in(2).value;
        for (std::size_t k = 0; k < s.axes.size(); ++k) {
            Dim& d = out[s.axes[k]];
            if (!v.defined()) {
                d = ctx.concrete ? Dim(0) : ctx.fresh("resize");
                continue;
            }
            float f = v.data<float>()[k];
            if (!(f > 0)) ctx.fail("a scale of " + std::to_string(f) + "; more than 0 is accepted");
            if (d.is_const()) {
                double n = std::floor(static_cast<double>(f) * static_cast<double>(d.value()));
                if (!(n < 0x1p48)) raise(ErrorCode::out_of_memory, "a dimension scaled beyond 2^48");
                d = static_cast<std::int64_t>(n);
            } else {
                auto e = scaled(d, f);
                d = e ? *e : ctx.fresh("resize");
            }
        }
    }
    ctx.set(0, x.dtype, std::move(out));
}
QUERN_INLINE Lowered lower(const LowerCtx& ctx) {
    auto s = spec_of(ctx.attrs, ctx.in(0).rank());
    bool sizes = given(ctx, 3), ready = true;
    std::vector<float> scales;
    std::vector<double> roi;
    if (sizes) ready = s.aspect == resize::Aspect::stretch;
    else if (Tensor t = ctx.constant(2); t.defined()) scales.assign(t.data<float>().begin(), t.data<float>().end());
    else ready = false;
    if (s.coord == resize::Coord::tf_crop_and_resize) {
        Tensor t = ctx.constant(1);
        if (t.defined() && t.count() == static_cast<std::int64_t>(2 * s.axes.size()))
            for (std::int64_t k = 0; k < t.count(); ++k) roi.push_back(ops_util::value_at(t, k));
        else ready = false;
    }
    if (ctx.target.device != Device::cpu) {
        resize::Problem p{std::move(s), ctx.in(0).dtype, ctx.in(0).rank(), std::move(scales), ready};
        return select(Family::resize, p, ctx.target);
    }
    bool measured = !sizes && scales.empty();
    return ops_util::kernel<resize::Resize>(std::move(s), ctx.in(0).rank(), std::move(scales), std::move(roi), ready, measured);
}

}  // namespace ops_resize

QUERN_INLINE const OpDef& op_Resize() {
    static constexpr OpDef def{.name = "Resize", .min_in = 1, .max_in = 4, .newest = 19, .import = ops_resize::import_resize, .infer = ops_resize::infer, .lower = ops_resize::lower, .lower_device = ops_resize::lower};
    return def;
}
QUERN_INLINE const OpDef& op_Upsample() {
    static constexpr OpDef def{.name = "Upsample", .min_in = 1, .max_in = 4, .newest = 10, .import = ops_resize::import_upsample, .infer = ops_resize::infer, .lower = ops_resize::lower, .lower_device = ops_resize::lower};
    return def;
}
QUERN_END
