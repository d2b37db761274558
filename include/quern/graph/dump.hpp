// Text, JSON and DOT of a graph.
#pragma once
#include <string>
#include <string_view>

#include "graph.hpp"

QUERN_BEGIN

/// "text" (one line per node with facts), "json" (one object: inputs, outputs, nodes, values) or "dot"
/// (Graphviz). Raises invalid_argument for another format.
QUERN_API std::string dump_graph(const Graph& g, std::string_view format);
/// `s` as a JSON string with its quotes.
QUERN_API std::string json_string(std::string_view s);

QUERN_END
