// The ordered list of rewrites between import and plan.
#pragma once
#include <functional>
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
    /// Told of constants that were computed on and will hardly be read again, where they are a mapped file's: see Packs::consumed.
    std::function<void(const void*, std::size_t)> consumed = {};

    void done_with(const Tensor& t) const {
        if (consumed && t.defined() && t.dtype() != DType::string) consumed(t.raw(), t.bytes());
    }
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
