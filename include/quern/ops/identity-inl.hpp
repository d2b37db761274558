// Identity and Dropout: https://onnx.ai/onnx/operators/onnx__Dropout.html
#pragma once
#include <quern/kernels/elementwise/random.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_identity {

inline void infer_identity(InferCtx& c) {
    if (c.n_out() < 1) return;
    c.out(0) = c.in(0);
    c.out(0).value = Tensor();
    if (auto content = c.ints(0); content && content->size() <= 64 && ops_elementwise::follows(c.in(0).dtype)) c.set_symbolic(0, *content);
}
inline void simplify_identity(PatchCtx& p) { p.replace(0, p.node().in[0]); }
inline Lowered lower_identity(const LowerCtx&) { return Lowered::view(0); }

inline bool truth(const Tensor& t) { return t.dtype() == DType::boolean && t.count() == 1 && *static_cast<const std::uint8_t*>(t.raw()) != 0; }
inline bool zero(const Tensor& t) {
    if (!ew::is_number(t.dtype()) || t.count() != 1) return false;
    double v = 1;
    ew::convert(t.dtype(), t.raw(), 0, DType::f64, &v, 0, 1);
    return v == 0;
}
/// Ratios and modes as attributes do not matter at inference; the mask had the data's type before opset 10.
inline void import_dropout(ImportCtx& c) {
    for (const char* name : {"consumed_inputs", "is_test", "ratio"}) c.attrs.erase(name);
    if (c.opset < 10 && c.n_out > 1 && c.has(0)) c.attrs.set("mask_dtype", static_cast<std::int64_t>(c.fact(0).dtype));
}
inline bool inference(bool has_mode, const Fact* mode, const Fact* ratio) {
    return !has_mode || (mode->is_const() && !truth(mode->value)) || (ratio && ratio->is_const() && zero(ratio->value));
}
inline void infer_dropout(InferCtx& c) {
    const DType t = c.in(0).dtype;
    if (!is_float(t) || dtype_bits(t) != 8 || t == DType::f8e8m0) ops_elementwise::need(c, 0, ops_elementwise::Types::real);
    const std::int64_t m = c.attrs.i("mask_dtype", static_cast<std::int64_t>(DType::boolean));
    const DType mask = m < 1 || m >= dtype_count ? DType::undefined : static_cast<DType>(m);
    if (!ew::is_number(mask)) raise(ErrorCode::invalid_model, "mask_dtype is " + std::to_string(m) + "; accepted: numbers and bool");
    if (c.has(1) && !is_float(c.in(1).dtype)) raise(ErrorCode::invalid_model, std::string("the ratio is ") + dtype_name(c.in(1).dtype) + "; accepted: floating-point types");
    if (c.has(2)) c.need_type(2, {DType::boolean});
    ops_elementwise::like(c, c.in(0).dtype);
    if (c.ranked(0)) c.set(1, mask, c.in(0).dims);
    else c.set_unranked(1, mask);
}
inline void simplify_dropout(PatchCtx& p) {
    const Node& n = p.node();
    const bool mask = n.out.size() > 1 && n.out[1] != no_value && p.uses[n.out[1]] > 0;
    if (mask || n.out.empty() || n.out[0] == no_value) return;
    if (inference(p.has(2), p.has(2) ? &p.in(2) : nullptr, p.has(1) ? &p.in(1) : nullptr)) p.replace(0, n.in[0]);
}
inline Lowered lower_dropout(const LowerCtx& c) {
    if (c.outputs.size() < 2 && inference(c.has(2), c.has(2) ? &c.in(2) : nullptr, c.has(1) ? &c.in(1) : nullptr)) return Lowered::view(0);
    std::optional<std::uint32_t> seed;
    if (c.attrs.has("seed")) seed = static_cast<std::uint32_t>(c.attrs.i("seed", 0));
    return Lowered(std::make_unique<ew::DropoutKernel>(seed));
}

}  // namespace ops_identity

QUERN_INLINE const OpDef& op_Identity() {
    static constexpr OpDef def{.name = "Identity", .min_in = 1, .max_in = 1, .newest = 25, .infer = ops_identity::infer_identity,
                               .simplify = ops_identity::simplify_identity, .lower = ops_identity::lower_identity, .lower_device = ops_identity::lower_identity, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_Dropout() {
    static constexpr OpDef def{.name = "Dropout", .min_in = 1, .max_in = 3, .max_out = 2, .newest = 22,
                               .import = ops_identity::import_dropout, .infer = ops_identity::infer_dropout,
                               .simplify = ops_identity::simplify_dropout, .lower = ops_identity::lower_dropout, .pure = false};
    return def;
}
QUERN_END
