// MatMul: https://onnx.ai/onnx/operators/onnx__MatMul.html
// Gemm: https://onnx.ai/onnx/operators/onnx__Gemm.html
#pragma once
#include "matmul.hpp"

QUERN_BEGIN

QUERN_INLINE const OpDef& op_MatMul() {
    static constexpr OpDef def{.name = "MatMul", .min_in = 2, .max_in = 2, .newest = 13, .infer = ops_matmul::infer_matmul,
                               .lower = ops_matmul::lower_matmul, .lower_device = ops_matmul::lower_matmul, .compute = Compute::arith};
    return def;
}
QUERN_INLINE const OpDef& op_Gemm() {
    static constexpr OpDef def{.name = "Gemm", .min_in = 2, .max_in = 3, .newest = 13, .import = ops_matmul::import_gemm,
                               .infer = ops_matmul::infer_gemm, .lower = ops_matmul::lower_gemm, .lower_device = ops_matmul::lower_gemm, .compute = Compute::arith};
    return def;
}

QUERN_END
