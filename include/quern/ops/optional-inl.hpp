// Optionals: https://onnx.ai/onnx/operators/onnx__Optional.html and its neighbours.
#pragma once
#include <quern/kernels/sequence/sequence.hpp>

#include "control.hpp"

QUERN_BEGIN
namespace ops_optional {

inline void infer_optional(InferCtx& c) {
    if (c.has(0)) {
        if (c.in(0).kind == Kind::optional) raise(ErrorCode::invalid_model, "an optional of an optional; accepted: of a tensor or a sequence");
        c.outputs[0] = Fact::optional_of(c.in(0));
        return;
    }
    auto type = c.attrs.type("type");
    if (!type) raise(ErrorCode::invalid_model, "Optional needs an input or the attribute type");
    c.outputs[0] = Fact::optional_of(*type);
}
inline const Fact& need_optional(const InferCtx& c) {
    if (c.in(0).kind != Kind::optional || !c.in(0).elem) raise(ErrorCode::invalid_model, "input 0 is " + c.in(0).to_string() + "; accepted: an optional");
    return *c.in(0).elem;
}
/// What is no optional has its element.
inline void import_has(ImportCtx& c) {
    const bool there = c.has(0);
    if (there && c.fact(0).kind == Kind::optional) return;
    Tensor t(DType::boolean, {});
    t.data<bool>()[0] = there;
    c.alias(0, c.constant(std::move(t)));
}
inline void infer_has(InferCtx& c) {
    need_optional(c);
    c.set(0, DType::boolean, {});
}
inline void import_get(ImportCtx& c) {
    if (c.has(0) && c.fact(0).kind != Kind::optional) c.alias(0, c.in[0]);
}
inline void infer_get(InferCtx& c) { ops_control::set_element(c, need_optional(c)); }
inline Lowered lower_get(const LowerCtx& c) {
    if (c.out(0).kind == Kind::tensor) return Lowered(std::make_unique<seq::GetTensor>());
    return Lowered(std::make_unique<seq::GetValue>());
}

}  // namespace ops_optional

QUERN_INLINE const OpDef& op_Optional() {
    static constexpr OpDef def{.name = "Optional", .max_in = 1, .newest = 28, .infer = ops_optional::infer_optional, .lower = ops_control::lower<seq::Wrap>, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_OptionalHasElement() {
    static constexpr OpDef def{.name = "OptionalHasElement", .max_in = 1, .newest = 28, .import = ops_optional::import_has, .infer = ops_optional::infer_has, .lower = ops_control::lower<seq::HasElement>, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_OptionalGetElement() {
    static constexpr OpDef def{.name = "OptionalGetElement", .min_in = 1, .max_in = 1, .newest = 28, .import = ops_optional::import_get, .infer = ops_optional::infer_get, .lower = ops_optional::lower_get, .boxed = true};
    return def;
}

QUERN_END
