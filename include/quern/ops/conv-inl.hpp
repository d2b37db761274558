// Conv: https://onnx.ai/onnx/operators/onnx__Conv.html
#pragma once
#include "conv.hpp"

QUERN_BEGIN

QUERN_INLINE const OpDef& op_Conv() {
    static constexpr OpDef def{.name = "Conv", .min_in = 2, .max_in = 3, .newest = 22, .infer = ops_conv::infer,
                               .lower = ops_conv::lower, .lower_device = ops_conv::lower, .compute = Compute::real};
    return def;
}

QUERN_END
