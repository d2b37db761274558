// One node on constant inputs, outside of any plan: for constant folding.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "op.hpp"

QUERN_BEGIN

/// Computes a pure node whose present inputs are all constant, on the calling thread. Empty when the node cannot be
/// folded: control flow, impure, types that its kernel does not compute in, no kernel, or outputs of
/// more than `limit` bytes. `tiles`, where given: how many tiles of work may be done, diminished by those that were; raises unsupported for
/// more, for no deadline holds while a model is compiled.
QUERN_API std::vector<Tensor> evaluate(const Graph& g, const Node& n, const Target& target, std::size_t limit, std::int64_t* tiles = nullptr);

/// Does `t` at a promoted position of `op` need a cast, and to what? The type itself where not.
QUERN_API DType compute_type(const OpDef& op, DType t) noexcept;

namespace detail {
/// Whether input or output i of the operator must be cast when it has type t.
bool needs_promotion(const OpDef& op, std::size_t i, DType t, bool input);
/// Whether the node's kernels on the CPU read and write the type of its first input themselves (OpDef::narrow).
bool takes_narrow(const Graph& g, const Node& n);
View view_of(const Tensor& t);
/// Whether kernels may multiply these sizes in any order, by the bytes of an element and by those of another tensor: zeros beside large ones do not
/// help. Up to 64 dimensions.
bool is_addressable(std::span<const std::int64_t> dims) noexcept;

/// Whether none of a kernel's outputs has elements: then there is nothing to run, though its rows of no element may be many.
bool is_empty(std::span<const View> out) noexcept;

/// Strings up to this long have no memory of their own.
inline constexpr std::size_t short_text = 15;
/// Bytes of the strings' own memory.
std::size_t text_bytes(std::span<const std::string> s) noexcept;
/// Bytes that one string of a kernel's output may have: the longest of each input joined. 0 where all are short.
std::size_t longest_text(std::span<const View> in) noexcept;
}  // namespace detail

QUERN_END
