// Mathematical functions of one tensor, each on its page at https://onnx.ai/onnx/operators/
#pragma once
#include <quern/kernels/elementwise/unary-inl.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_math {
using namespace ops_elementwise;

template <ew::UnaryOp op>
Lowered lower(const LowerCtx& c) {
    ew::UnaryParams p;
    if (op == ew::UnaryOp::is_inf) {
        p.alpha = c.attrs.i("detect_positive", 1) ? 1 : 0;
        p.beta = c.attrs.i("detect_negative", 1) ? 1 : 0;
    }
    if (c.target.device != Device::cpu) return ops_elementwise::lower_unary(c, op, p);
    return Lowered(std::make_unique<ew::UnaryKernel>(op, c.in(0).dtype, c.out(0).dtype, p, c.target.isa));
}
inline void infer_neg(InferCtx& c) {
    infer_same<Types::arith>(c);
    unary_content(c, [](const Dim& d) -> std::optional<Dim> { return Dim(0) - d; });
}
inline void infer_abs(InferCtx& c) {
    infer_same<Types::arith>(c);
    unary_content(c, [](const Dim& d) -> std::optional<Dim> {
        if (d.nonnegative()) return d;
        if (compare(d, Dim(0)) < 0) return Dim(0) - d;
        return std::nullopt;
    });
}
inline void infer_not(InferCtx& c) {
    infer_same<Types::boolean>(c);
    unary_content(c, [](const Dim& d) -> std::optional<Dim> {
        if (!d.is_const()) return std::nullopt;
        return Dim(d.is(0) ? 1 : 0);
    });
}
inline void infer_float_test(InferCtx& c) {
    if (!is_float(c.in(0).dtype)) need(c, 0, Types::real);
    like(c, DType::boolean);
}

}  // namespace ops_math

#define QUERN_MATH(Name, opset, function, op_id)                                                                              \
    QUERN_INLINE const OpDef& op_##Name() {                                                                                   \
        static constexpr OpDef def{.name = #Name, .min_in = 1, .max_in = 1, .newest = opset, .import = ops_math::drop_consumed, \
                                   .infer = function, .lower = ops_math::lower<ew::UnaryOp::op_id>,                              \
                                   .lower_device = ops_math::lower<ew::UnaryOp::op_id>};                      \
        return def;                                                                                                           \
    }
#define QUERN_MATH_REAL(Name, opset, op_id) QUERN_MATH(Name, opset, ops_math::infer_same<ops_math::Types::real>, op_id)
QUERN_MATH(Abs, 13, ops_math::infer_abs, abs)
QUERN_MATH(Neg, 13, ops_math::infer_neg, neg)
QUERN_MATH(Sign, 13, ops_math::infer_same<ops_math::Types::arith>, sign)
QUERN_MATH(Not, 1, ops_math::infer_not, logical_not)
QUERN_MATH(BitwiseNot, 18, ops_math::infer_same<ops_math::Types::integer>, bit_not)
QUERN_MATH(IsNaN, 20, ops_math::infer_float_test, is_nan)
QUERN_MATH(IsInf, 20, ops_math::infer_float_test, is_inf)
QUERN_MATH_REAL(Acos, 22, acos)
QUERN_MATH_REAL(Acosh, 22, acosh)
QUERN_MATH_REAL(Asin, 22, asin)
QUERN_MATH_REAL(Asinh, 22, asinh)
QUERN_MATH_REAL(Atan, 22, atan)
QUERN_MATH_REAL(Atanh, 22, atanh)
QUERN_MATH_REAL(Ceil, 13, ceil)
QUERN_MATH_REAL(Cos, 22, cos)
QUERN_MATH_REAL(Cosh, 22, cosh)
QUERN_MATH_REAL(Erf, 13, erf)
QUERN_MATH_REAL(Exp, 13, exp)
QUERN_MATH_REAL(Floor, 13, floor)
QUERN_MATH_REAL(Log, 13, log)
QUERN_MATH_REAL(Reciprocal, 13, reciprocal)
QUERN_MATH_REAL(Round, 22, round)
QUERN_MATH_REAL(Sin, 22, sin)
QUERN_MATH_REAL(Sinh, 22, sinh)
QUERN_MATH_REAL(Sqrt, 13, sqrt)
QUERN_MATH_REAL(Tan, 22, tan)
QUERN_MATH_REAL(Tanh, 13, tanh)
#undef QUERN_MATH_REAL
#undef QUERN_MATH
QUERN_END
