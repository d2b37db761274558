// Arithmetic of two and more tensors, each on its page at https://onnx.ai/onnx/operators/
#pragma once
#include <quern/kernels/elementwise/binary-inl.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_arithmetic {
using namespace ops_elementwise;
using ew::BinaryOp;
using Content = std::optional<Dim>;

template <BinaryOp op>
Lowered lower(const LowerCtx& c) {
    if (c.target.device != Device::cpu) return ops_elementwise::lower_binary(c, op);
    return Lowered(std::make_unique<ew::BinaryKernel>(op, c.in(0).dtype, c.in(1).dtype, c.out(0).dtype, c.target.isa));
}
inline void infer_arith(InferCtx& c) {
    need(c, 0, Types::arith);
    c.need_same_type(0, 1);
    infer_broadcast(c, 2, c.in(0).dtype);
}
inline void infer_add(InferCtx& c) {
    infer_arith(c);
    binary_content(c, 0, 1, [](const Dim& a, const Dim& b) -> Content { return a + b; });
}
inline void infer_sub(InferCtx& c) {
    infer_arith(c);
    binary_content(c, 0, 1, [](const Dim& a, const Dim& b) -> Content { return a - b; });
}
inline void infer_mul(InferCtx& c) {
    infer_arith(c);
    binary_content(c, 0, 1, [](const Dim& a, const Dim& b) -> Content { return a * b; });
}
inline void infer_div(InferCtx& c) {
    infer_arith(c);
    binary_content(c, 0, 1, [](const Dim& a, const Dim& b) -> Content {
        if (b.is_const() && b.value() < 0 && b.value() > INT64_MIN) return Dim(0) - trunc_div(a, Dim(-b.value()));
        if (!b.positive()) return std::nullopt;
        return trunc_div(a, b);
    });
}
inline void infer_mod(InferCtx& c) {
    infer_arith(c);
    const bool fmod = c.attrs.i("fmod", 0) != 0;
    binary_content(c, 0, 1, [&](const Dim& a, const Dim& b) -> Content {
        if (!b.positive() || (fmod && !a.nonnegative())) return std::nullopt;
        return floor_mod(a, b);
    });
}
inline void infer_max(InferCtx& c) {
    infer_arith(c);
    binary_content(c, 0, 1, [](const Dim& a, const Dim& b) -> Content { return max(a, b); });
}
inline void infer_min(InferCtx& c) {
    infer_arith(c);
    binary_content(c, 0, 1, [](const Dim& a, const Dim& b) -> Content { return min(a, b); });
}
inline void infer_pow(InferCtx& c) {
    need(c, 0, Types::arith);
    need(c, 1, Types::arith);
    infer_broadcast(c, 2, c.in(0).dtype);
}
inline Lowered lower_mod(const LowerCtx& c) {
    return c.attrs.i("fmod", 0) ? lower<BinaryOp::fmod>(c) : lower<BinaryOp::mod>(c);
}

/// Variadic operators become chains of two inputs.
template <class Last>
void chain(ImportCtx& c, std::string_view op, Last&& last) {
    drop_consumed(c);
    for (std::size_t i = 0; i < c.in.size(); ++i)
        if (!c.has(i)) c.invalid("input " + std::to_string(i) + " is missing");
    ValueId v = c.in[0];
    for (std::size_t i = 1; i + 1 < c.in.size(); ++i) v = c.add(op, {v, c.in[i]})[0];
    last(v);
}
inline void import_chain(ImportCtx& c, const char* op) {
    if (c.in.empty()) c.invalid("no input; accepted: one or more");
    if (c.in.size() == 1) return c.alias(0, c.in[0]);
    chain(c, op, [&](ValueId v) { c.finish(op, {v, c.in.back()}); });
}
inline void import_max(ImportCtx& c) { import_chain(c, "Max"); }
inline void import_min(ImportCtx& c) { import_chain(c, "Min"); }
inline void import_sum(ImportCtx& c) { import_chain(c, "Add"); }
inline void import_mean(ImportCtx& c) {
    if (c.in.empty()) c.invalid("no input; accepted: one or more");
    if (c.in.size() == 1) return c.alias(0, c.in[0]);
    chain(c, "Add", [&](ValueId v) {
        ValueId sum = c.add("Add", {v, c.in.back()})[0];
        const double n = static_cast<double>(c.in.size());
        Attrs to;
        to.set("to", static_cast<std::int64_t>(c.fact(0).dtype));
        ValueId count = c.add("Cast", {c.constant(Tensor::from(std::span<const double>(&n, 1), Shape{}))}, std::move(to))[0];
        c.finish("Div", {sum, count});
    });
}

}  // namespace ops_arithmetic

#define QUERN_ARITHMETIC(Name, opset, import_function, infer_function, lower_function)                                  \
    QUERN_INLINE const OpDef& op_##Name() {                                                                             \
        static constexpr OpDef def{.name = #Name, .min_in = 2, .max_in = 2, .newest = opset,                            \
                                   .import = ops_arithmetic::import_function, .infer = ops_arithmetic::infer_function,  \
                                   .lower = ops_arithmetic::lower_function, .lower_device = ops_arithmetic::lower_function}; \
        return def;                                                                                                     \
    }
QUERN_ARITHMETIC(Add, 14, import_axis, infer_add, lower<ew::BinaryOp::add>)
QUERN_ARITHMETIC(Sub, 14, import_axis, infer_sub, lower<ew::BinaryOp::sub>)
QUERN_ARITHMETIC(Mul, 14, import_axis, infer_mul, lower<ew::BinaryOp::mul>)
QUERN_ARITHMETIC(Div, 14, import_axis, infer_div, lower<ew::BinaryOp::div>)
QUERN_ARITHMETIC(Pow, 15, import_axis, infer_pow, lower<ew::BinaryOp::pow>)
QUERN_ARITHMETIC(Mod, 28, drop_consumed, infer_mod, lower_mod)
QUERN_ARITHMETIC(Max, 13, import_max, infer_max, lower<ew::BinaryOp::max>)
QUERN_ARITHMETIC(Min, 13, import_min, infer_min, lower<ew::BinaryOp::min>)
#undef QUERN_ARITHMETIC
QUERN_INLINE const OpDef& op_Sum() {
    static constexpr OpDef def{.name = "Sum", .min_in = 1, .newest = 13, .import = ops_arithmetic::import_sum};
    return def;
}
QUERN_INLINE const OpDef& op_Mean() {
    static constexpr OpDef def{.name = "Mean", .min_in = 1, .newest = 13, .import = ops_arithmetic::import_mean};
    return def;
}
QUERN_END
