// ConvTranspose, and its form in channels last that the layout pass makes.
#pragma once
#include "conv_transpose.hpp"

QUERN_BEGIN

QUERN_INLINE const OpDef& op_ConvTranspose() {
    static constexpr OpDef def{.name = "ConvTranspose", .min_in = 2, .max_in = 3, .newest = 22, .infer = ops_conv_transpose::infer,
                               .lower = ops_conv_transpose::lower, .lower_device = ops_conv_transpose::lower, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_quern_ConvTranspose() {
    static constexpr OpDef def{.domain = "quern", .name = "ConvTranspose", .min_in = 2, .max_in = 3, .newest = 1, .infer = ops_conv_transpose::infer_last,
                               .lower = ops_conv_transpose::lower_last, .compute = Compute::f32};
    return def;
}

QUERN_END
