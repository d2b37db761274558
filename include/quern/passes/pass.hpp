// The ordered list of rewrites between import and plan.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "../graph/graph.hpp"
#include "../ops/op.hpp"
#include "../options.hpp"

QUERN_BEGIN

struct PassContext {
    const Options& options;
    const Target& target;
};
/// A rewriting of the whole graph. Returns whether anything changed. After each pass facts are inferred again,
/// dead nodes removed and (in debug builds and under Options::log) the graph verified.
struct Pass {
    const char* name;
    bool (*run)(Graph&, const PassContext&);
    bool portable;  ///< the result is still pure ONNX and right on every machine
    bool required;  ///< runs also without optimization
};
QUERN_API std::span<const Pass> passes() noexcept;

/// Runs the passes in order up to and with `stop_after` (empty: all; "import": none). Raises
/// invalid_argument for a name that is no pass.
QUERN_API void run_passes(Graph& g, const PassContext& ctx, std::string_view stop_after);

/// The pass that kernels rely on, for graphs whose passes were stopped before it.
QUERN_API void promote_types(Graph& g, const PassContext& ctx);

/// Removes nodes whose outputs nobody needs. Returns whether any was.
QUERN_API bool remove_dead(Graph& g);

QUERN_END
