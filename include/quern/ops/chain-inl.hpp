#pragma once
#include "chain.hpp"

QUERN_BEGIN

QUERN_INLINE const OpDef& op_quern_FusedDepthwise() {
    static constexpr OpDef def{.domain = "quern", .name = "FusedDepthwise", .min_in = 1, .max_in = conv::ChainProblem::first_part + conv::ChainProblem::most_parts - 1, .max_out = 2, .newest = 1, .infer = ops_chain::infer,
                               .lower = ops_chain::lower, .compute = Compute::f32};
    return def;
}

QUERN_END
