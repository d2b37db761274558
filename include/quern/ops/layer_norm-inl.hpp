// LayerNormalization and RMSNormalization: https://onnx.ai/onnx/operators/onnx__LayerNormalization.html
// quern::SkipNormalization is either, of a sum that it makes: what the pass of skips makes for a device.
#pragma once
#include <quern/kernels/norm/layer.hpp>
#include <quern/kernels/norm/problem.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_layer_norm {

inline DType stash(const Attrs& a) {
    const std::int64_t t = a.i("stash_type", 1);
    if (t != 1 && t != 10 && t != 11 && t != 16)
        raise(ErrorCode::invalid_model, "stash_type is " + std::to_string(t) + "; accepted: 1 (float), 10 (float16), 11 (double), 16 (bfloat16)");
    return static_cast<DType>(t);
}
/// The parameters are the inputs from `scale` on.
inline void infer_rows(InferCtx& c, int scale, bool rms) {
    using namespace ops_elementwise;
    need(c, 0, Types::real);
    const DType t = c.in(0).dtype, side = stash(c.attrs);
    for (int i = 1; i < c.n_in(); ++i)
        if (c.has(i)) need(c, i, Types::real);
    if (!rms) c.need_same_type(0, scale);
    else if ((t == DType::f64) != (c.in(scale).dtype == DType::f64)) c.unsupported("double with another type; accepted: both double, or neither");
    if (c.has(scale + 1)) c.need_same_type(scale, scale + 1);
    like(c, rms ? c.in(scale).dtype : t);
    if (!c.ranked(0)) {
        c.set_unranked(1, side);
        c.set_unranked(2, side);
        return;
    }
    c.need_rank(0, 1);
    std::vector<Dim> d = c.in(0).dims;
    const int axis = c.axis(c.attrs.i("axis", -1), static_cast<int>(d.size()));
    for (int i = scale; i < c.n_in() && i < scale + 2; ++i) {
        if (!c.has(i) || !c.ranked(i)) continue;
        const auto& p = c.in(i).dims;
        bool fits = p.size() <= d.size();
        for (std::size_t k = 0; fits && k < p.size(); ++k) {
            const Dim& x = d[d.size() - p.size() + k];
            fits = !(p[k].is_const() && x.is_const() && !p[k].is(1) && p[k].value() != x.value());
        }
        if (!fits) c.fail("input " + std::to_string(i) + " is " + c.in(i).to_string() + "; accepted: what broadcasts to " + c.in(0).to_string());
    }
    for (std::size_t i = static_cast<std::size_t>(axis); i < d.size(); ++i) d[i] = Dim(1);
    c.set(1, side, d);
    c.set(2, side, std::move(d));
}
inline void infer(InferCtx& c) { infer_rows(c, 1, std::string_view(c.node.op->name) == "RMSNormalization"); }
inline void infer_skip(InferCtx& c) {
    infer_rows(c, 2, c.attrs.i("rms", 0) != 0);
    c.need_same_type(0, 1);
    if (!c.ranked(0) || !c.ranked(1)) return c.set_unranked(3, c.in(0).dtype);
    const auto &x = c.in(0).dims, &skip = c.in(1).dims;
    bool fits = x.size() == skip.size();
    for (std::size_t k = 0; fits && k < x.size(); ++k) fits = !(x[k].is_const() && skip[k].is_const() && x[k].value() != skip[k].value());
    if (!fits) c.fail("input 1 is " + c.in(1).to_string() + "; accepted: the shape of input 0, " + c.in(0).to_string());
    c.set(3, c.in(0).dtype, x);
}
/// What a device is asked for; the parameters are the inputs from `scale` on.
inline norm::Problem problem(const LowerCtx& c, int scale, bool rms) {
    const std::int64_t axis = c.attrs.i("axis", -1);
    norm::Problem p;
    p.dtype = c.in(0).dtype;
    p.rms = rms;
    p.skip = scale == 2;
    p.axis = static_cast<int>(axis < 0 ? axis + c.in(0).rank() : axis);
    p.eps = c.attrs.f("epsilon", 1e-5f);
    for (int i = scale; i < c.n_in(); ++i) {
        if (!c.has(i)) continue;
        const auto &d = c.in(0).dims, &v = c.in(i).dims;
        p.row_parameters = p.row_parameters && c.in(i).dtype == p.dtype && static_cast<int>(v.size()) == c.in(0).rank() - p.axis;
        for (std::size_t k = 0; p.row_parameters && k < v.size(); ++k) p.row_parameters = v[k] == d[static_cast<std::size_t>(p.axis) + k];
    }
    for (std::size_t o = 1; o < c.outputs.size() && o < 3; ++o) p.statistics_f32 = p.statistics_f32 && (!c.outputs[o] || c.outputs[o]->dtype == DType::f32);
    return p;
}
inline Lowered lower_skip(const LowerCtx& c) { return select(Family::norm, problem(c, 2, c.attrs.i("rms", 0) != 0), c.target); }
template <bool rms>
Lowered lower(const LowerCtx& c) {
    const std::int64_t axis = c.attrs.i("axis", -1);
    if (c.target.device != Device::cpu) return select(Family::norm, problem(c, 1, rms), c.target);
    return Lowered(std::make_unique<norm::LayerKernel>(c.in(0).dtype, static_cast<int>(axis < 0 ? axis + c.in(0).rank() : axis),
                                                       c.attrs.f("epsilon", 1e-5f), rms, c.target.isa));
}

}  // namespace ops_layer_norm

QUERN_INLINE const OpDef& op_LayerNormalization() {
    static constexpr OpDef def{.name = "LayerNormalization", .min_in = 2, .max_in = 3, .max_out = 3, .newest = 17,
                               .infer = ops_layer_norm::infer, .lower = ops_layer_norm::lower<false>, .lower_device = ops_layer_norm::lower<false>, .compute = Compute::real, .promote_out = 1, .narrow = Narrow::halves};
    return def;
}
QUERN_INLINE const OpDef& op_RMSNormalization() {
    static constexpr OpDef def{.name = "RMSNormalization", .min_in = 2, .max_in = 2, .max_out = 1, .newest = 23,
                               .infer = ops_layer_norm::infer, .lower = ops_layer_norm::lower<true>, .lower_device = ops_layer_norm::lower<true>, .compute = Compute::real, .narrow = Narrow::halves};
    return def;
}
/// X, skip, scale, optional bias -> Y, optional mean, optional 1 / deviation, optional X + skip; attributes of LayerNormalization, and rms.
QUERN_INLINE const OpDef& op_quern_SkipNormalization() {
    static constexpr OpDef def{.domain = "quern", .name = "SkipNormalization", .min_in = 3, .max_in = 4, .max_out = 4, .newest = 1, .infer = ops_layer_norm::infer_skip, .lower_device = ops_layer_norm::lower_skip};
    return def;
}
QUERN_END
