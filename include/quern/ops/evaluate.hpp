// One node on constant inputs, outside of any plan: for constant folding.
#pragma once
#include <vector>

#include "op.hpp"

QUERN_BEGIN

/// Computes a pure node whose present inputs are all constant, on the calling thread. Empty when the node cannot be
/// folded: control flow, impure, types that its kernel does not compute in, no kernel, or outputs of
/// more than `limit` bytes.
QUERN_API std::vector<Tensor> evaluate(const Graph& g, const Node& n, const Target& target, std::size_t limit);

/// Does `t` at a promoted position of `op` need a cast, and to what? The type itself where not.
QUERN_API DType compute_type(const OpDef& op, DType t) noexcept;

namespace detail {
/// Whether input or output i of the operator must be cast when it has type t.
bool needs_promotion(const OpDef& op, std::size_t i, DType t, bool input);
View view_of(const Tensor& t);
}  // namespace detail

QUERN_END
