// Comparisons, logic and bits of two tensors, each on its page at https://onnx.ai/onnx/operators/
#pragma once
#include <quern/kernels/elementwise/binary.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_logic {
using namespace ops_elementwise;
using ew::BinaryOp;
using Content = std::optional<Dim>;

template <BinaryOp op>
Lowered lower(const LowerCtx& c) {
    if (c.target.device != Device::cpu) return ops_elementwise::lower_binary(c, op);
    return Lowered(std::make_unique<ew::BinaryKernel>(op, c.in(0).dtype, c.in(1).dtype, c.out(0).dtype, c.target.isa));
}
inline Content truth(bool known, bool v) {
    if (!known) return std::nullopt;
    return Dim(v ? 1 : 0);
}
/// Decided where compare() decides for all values of the symbols.
template <BinaryOp op>
void infer_compare(InferCtx& c) {
    if (op != BinaryOp::equal) need(c, 0, Types::arith);
    else if (c.in(0).dtype != DType::string) need(c, 0, Types::number);
    c.need_same_type(0, 1);
    infer_broadcast(c, 2, DType::boolean);
    binary_content(c, 0, 1, [](const Dim& a, const Dim& b) -> Content {
        const int r = compare(a, b);
        if (op == BinaryOp::equal) return truth(r != 2, r == 0);
        if (op == BinaryOp::greater) return truth(r != 2 || (b - a).nonnegative(), r == 1);
        if (op == BinaryOp::less) return truth(r != 2 || (a - b).nonnegative(), r == -1);
        if (op == BinaryOp::greater_equal) return truth(r != 2 || (a - b).nonnegative(), r != -1);
        return truth(r != 2 || (b - a).nonnegative(), r != 1);
    });
}
template <BinaryOp op>
void infer_logical(InferCtx& c) {
    need(c, 0, Types::boolean);
    need(c, 1, Types::boolean);
    infer_broadcast(c, 2, DType::boolean);
    binary_content(c, 0, 1, [](const Dim& a, const Dim& b) -> Content {
        if (op == BinaryOp::logical_and && (a.is(0) || b.is(0))) return Dim(0);
        if (op == BinaryOp::logical_or && (a.is(1) || b.is(1))) return Dim(1);
        if (!a.is_const() || !b.is_const()) return std::nullopt;
        const bool x = a.value() != 0, y = b.value() != 0;
        return Dim((op == BinaryOp::logical_and ? x && y : op == BinaryOp::logical_or ? x || y : x != y) ? 1 : 0);
    });
}
inline void infer_bits(InferCtx& c) {
    need(c, 0, Types::integer);
    c.need_same_type(0, 1);
    infer_broadcast(c, 2, c.in(0).dtype);
}
inline void infer_shift(InferCtx& c) {
    infer_bits(c);
    const std::string d = c.attrs.s("direction", "");
    if (d != "LEFT" && d != "RIGHT") raise(ErrorCode::invalid_model, "direction is '" + d + "'; accepted: LEFT, RIGHT");
}
inline Lowered lower_shift(const LowerCtx& c) {
    return c.attrs.s("direction", "") == "LEFT" ? lower<BinaryOp::shift_left>(c) : lower<BinaryOp::shift_right>(c);
}
inline Lowered lower_equal(const LowerCtx& c) {
    if (c.in(0).dtype == DType::string && c.target.device == Device::cpu) return Lowered(std::make_unique<ew::EqualStringsKernel>());
    return lower<BinaryOp::equal>(c);
}

}  // namespace ops_logic

#define QUERN_LOGIC(Name, opset, infer_function, lower_function)                                                    \
    QUERN_INLINE const OpDef& op_##Name() {                                                                         \
        static constexpr OpDef def{.name = #Name, .min_in = 2, .max_in = 2, .newest = opset,                        \
                                   .import = ops_logic::import_axis, .infer = ops_logic::infer_function,            \
                                   .lower = ops_logic::lower_function, .lower_device = ops_logic::lower_function};   \
        return def;                                                                                                 \
    }
QUERN_LOGIC(Equal, 19, infer_compare<ew::BinaryOp::equal>, lower_equal)
QUERN_LOGIC(Greater, 13, infer_compare<ew::BinaryOp::greater>, lower<ew::BinaryOp::greater>)
QUERN_LOGIC(Less, 13, infer_compare<ew::BinaryOp::less>, lower<ew::BinaryOp::less>)
QUERN_LOGIC(GreaterOrEqual, 16, infer_compare<ew::BinaryOp::greater_equal>, lower<ew::BinaryOp::greater_equal>)
QUERN_LOGIC(LessOrEqual, 16, infer_compare<ew::BinaryOp::less_equal>, lower<ew::BinaryOp::less_equal>)
QUERN_LOGIC(And, 7, infer_logical<ew::BinaryOp::logical_and>, lower<ew::BinaryOp::logical_and>)
QUERN_LOGIC(Or, 7, infer_logical<ew::BinaryOp::logical_or>, lower<ew::BinaryOp::logical_or>)
QUERN_LOGIC(Xor, 7, infer_logical<ew::BinaryOp::logical_xor>, lower<ew::BinaryOp::logical_xor>)
QUERN_LOGIC(BitShift, 28, infer_shift, lower_shift)
QUERN_LOGIC(BitwiseAnd, 18, infer_bits, lower<ew::BinaryOp::bit_and>)
QUERN_LOGIC(BitwiseOr, 18, infer_bits, lower<ew::BinaryOp::bit_or>)
QUERN_LOGIC(BitwiseXor, 18, infer_bits, lower<ew::BinaryOp::bit_xor>)
#undef QUERN_LOGIC
QUERN_END
