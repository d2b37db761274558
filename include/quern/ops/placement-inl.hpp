// What the placement pass puts between memories. The plan makes transfers of them; they have no kernel.
#pragma once
#include "op.hpp"

QUERN_BEGIN
namespace ops_placement {

/// Output = input, elsewhere.
inline void infer(InferCtx& c) {
    if (c.in(0).ranked) c.set(0, c.in(0).dtype, c.in(0).dims);
    else c.set_unranked(0, c.in(0).dtype);
    if (auto content = c.ints(0); content && c.in(0).ranked) c.set_symbolic(0, *content);
}

}  // namespace ops_placement

QUERN_INLINE const OpDef& op_quern_CopyToDevice() {
    static constexpr OpDef def{.domain = "quern", .name = "CopyToDevice", .min_in = 1, .max_in = 1, .newest = 1, .infer = ops_placement::infer};
    return def;
}
QUERN_INLINE const OpDef& op_quern_CopyToHost() {
    static constexpr OpDef def{.domain = "quern", .name = "CopyToHost", .min_in = 1, .max_in = 1, .newest = 1, .infer = ops_placement::infer};
    return def;
}
QUERN_END
