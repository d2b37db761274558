#pragma once
#include "planar.hpp"

QUERN_BEGIN

QUERN_INLINE const OpDef& op_quern_PlanarConv() {
    static constexpr OpDef def{.domain = "quern", .name = "PlanarConv", .min_in = 2, .max_in = 4, .newest = 1, .infer = ops_planar::infer_conv,
                               .lower = ops_planar::lower_conv, .compute = Compute::f32};
    return def;
}
QUERN_INLINE const OpDef& op_quern_FusedBatchNormalization() {
    static constexpr OpDef def{.domain = "quern", .name = "FusedBatchNormalization", .min_in = 3, .newest = 1, .infer = ops_planar::infer_affine,
                               .lower = ops_planar::lower_affine, .compute = Compute::f32};
    return def;
}

QUERN_END
