// Softmax over one axis: the contract of the family.
#pragma once
#include <quern/kernels/kernel.hpp>

QUERN_BEGIN
namespace softmax {

/// y = exp(x - max) / sum(exp(x - max)) over `axis`, or its logarithm
/// (https://onnx.ai/onnx/operators/onnx__Softmax.html). in[0] = X, out[0] = Y of the same shape; may be in place.
/// Halves are computed in f32. Domain: all finite values and -inf (a row of only -inf gives NaN, as the formula says). Tolerance, f32: 4e-7
/// absolute for softmax; 2e-6 * (1 + |y|) for the logarithm.
struct Problem {
    DType dtype = DType::f32;  ///< f32, f64, f16 or bf16
    int rank = 2;
    int axis = 1;  ///< non-negative
    bool log = false;
};

}  // namespace softmax
QUERN_END
