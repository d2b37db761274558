// Constant (https://onnx.ai/onnx/operators/onnx__Constant.html).
#pragma once
#include "shape_util.hpp"

QUERN_BEGIN
namespace ops_constant {

template <class T> Tensor list(const std::vector<T>& v) {
    return Tensor::from(std::span<const T>(v), {static_cast<std::int64_t>(v.size())});
}
template <class T> Tensor scalar_of(T v) { return Tensor::from(std::span<const T>(&v, 1), {}); }
inline Tensor of(const Attrs& a) {
    if (a.has("value")) return a.tensor("value");
    if (a.has("sparse_value")) return a.tensor("sparse_value");
    if (a.has("value_int")) return scalar_of(a.i("value_int", 0));
    if (a.has("value_float")) return scalar_of(a.f("value_float", 0));
    if (a.has("value_ints")) return list(a.ints("value_ints"));
    if (a.has("value_floats")) return list(a.floats("value_floats"));
    if (a.has("value_string")) {
        std::string s = a.s("value_string", "");
        return Tensor::from_strings(std::span<const std::string>(&s, 1), {});
    }
    if (a.has("value_strings")) {
        auto v = a.strings("value_strings");
        return Tensor::from_strings(v, {static_cast<std::int64_t>(v.size())});
    }
    raise(ErrorCode::invalid_model, "no value; one of value, sparse_value, value_int(s), value_float(s), value_string(s) is needed");
}
QUERN_INLINE void import(ImportCtx& ctx) { ctx.alias(0, ctx.constant(of(ctx.attrs))); }
QUERN_INLINE void infer(InferCtx& ctx) {
    Tensor t = of(ctx.attrs);
    ctx.out(0) = Fact::constant(t);
}

}  // namespace ops_constant

QUERN_INLINE const OpDef& op_Constant() {
    static constexpr OpDef def{.name = "Constant", .min_in = 0, .max_in = 0, .newest = 25, .import = ops_constant::import, .infer = ops_constant::infer};
    return def;
}
QUERN_END
