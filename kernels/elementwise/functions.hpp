// The names of the element-wise functions.
#pragma once
#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace ew {

enum class UnaryOp : std::uint8_t {
    abs, acos, acosh, asin, asinh, atan, atanh, ceil, cos, cosh, erf, exp, floor, is_inf, is_nan, log, neg, logical_not,
    reciprocal, round, sign, sin, sinh, sqrt, tan, tanh, sigmoid, relu, leaky_relu, elu, selu, celu, thresholded_relu,
    hard_sigmoid, hard_swish, softplus, softsign, mish, gelu, gelu_tanh, swish, shrink, bit_not, count
};
/// Parameters as the ONNX operator names them; gamma: Selu; beta: HardSigmoid, Shrink's bias. is_inf: alpha and
/// beta are 1 where positive and negative infinities count.
struct UnaryParams {
    float alpha = 0, beta = 0, gamma = 0;
};
enum class BinaryOp : std::uint8_t {
    add, sub, mul, div, max, min, pow, mod, fmod, prelu, logical_and, logical_or, logical_xor, equal, greater, less,
    greater_equal, less_equal, shift_left, shift_right, bit_and, bit_or, bit_xor, count
};
constexpr bool gives_bool(BinaryOp op) noexcept { return op >= BinaryOp::logical_and && op <= BinaryOp::less_equal; }

}  // namespace ew
QUERN_END
