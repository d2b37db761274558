// LayerNormalization and RMSNormalization: https://onnx.ai/onnx/operators/onnx__LayerNormalization.html
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
inline void infer(InferCtx& c) {
    using namespace ops_elementwise;
    need(c, 0, Types::real);
    const DType t = c.in(0).dtype, side = stash(c.attrs);
    for (int i = 1; i < c.n_in(); ++i)
        if (c.has(i)) need(c, i, Types::real);
    const bool rms = std::string_view(c.node.op->name) == "RMSNormalization";
    if (!rms) c.need_same_type(0, 1);
    else if ((t == DType::f64) != (c.in(1).dtype == DType::f64)) c.unsupported("double with another type; accepted: both double, or neither");
    if (c.has(2)) c.need_same_type(1, 2);
    like(c, rms ? c.in(1).dtype : t);
    if (!c.ranked(0)) {
        c.set_unranked(1, side);
        c.set_unranked(2, side);
        return;
    }
    c.need_rank(0, 1);
    std::vector<Dim> d = c.in(0).dims;
    const int axis = c.axis(c.attrs.i("axis", -1), static_cast<int>(d.size()));
    for (int i = 1; i < c.n_in() && i < 3; ++i) {
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
template <bool rms>
Lowered lower(const LowerCtx& c) {
    const std::int64_t axis = c.attrs.i("axis", -1);
    if (c.target.device != Device::cpu) {
        norm::Problem p;
        p.dtype = c.in(0).dtype;
        p.rms = rms;
        p.axis = static_cast<int>(axis < 0 ? axis + c.in(0).rank() : axis);
        p.eps = c.attrs.f("epsilon", 1e-5f);
        for (int i = 1; i < c.n_in(); ++i) {
            if (!c.has(i)) continue;
            const auto &d = c.in(0).dims, &v = c.in(i).dims;
            p.row_parameters = p.row_parameters && c.in(i).dtype == p.dtype && static_cast<int>(v.size()) == c.in(0).rank() - p.axis;
            for (std::size_t k = 0; p.row_parameters && k < v.size(); ++k) p.row_parameters = v[k] == d[static_cast<std::size_t>(p.axis) + k];
        }
        for (std::size_t o = 1; o < c.outputs.size(); ++o) p.statistics_f32 = p.statistics_f32 && (!c.outputs[o] || c.outputs[o]->dtype == DType::f32);
        return select(Family::norm, p, c.target);
    }
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
QUERN_END
