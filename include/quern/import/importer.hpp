// ONNX to graph: every operator's import and infer, subgraphs closed over, functions inlined.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "../graph/graph.hpp"
#include "../model.hpp"
#include "../onnx/proto.hpp"
#include "../onnx/external.hpp"
#include "../ops/custom.hpp"

QUERN_BEGIN

struct Imported {
    Graph graph;
    std::vector<PortInfo> inputs, outputs;
    std::vector<Problem> problems;      ///< everything that was found wrong; empty: the graph is whole
    std::vector<std::string> warnings;  ///< wrong declared shapes and the like
};
/// A function that the caller gave as an operator's meaning (LoadOptions::functions); the views are into its bytes.
struct GivenFunction {
    onnx::FunctionProto body;
    std::int64_t since = 0;
};
/// Parses them. Raises invalid_argument for bytes that are no function with a name, and for two of the same operator and `since`.
QUERN_API std::vector<GivenFunction> parse_functions(const std::vector<FunctionBody>& given);

/// Builds the graph. Never raises for a single node: problems are collected, with node, operator, opset and types.
/// Raises invalid_model when the model as a whole is broken (no graph, an output that nothing makes).
/// `owner` keeps the bytes of weights alive; `custom`, operators of the application (null: none), must outlive the graph, and so must the
/// bytes of `functions`. What a few bytes of the file may become (sparse tensors) takes `memory_limit` at most (0: 1 GiB).
QUERN_API Imported import_model(const onnx::ModelProto& model, onnx::External* external, std::shared_ptr<const void> owner,
                                const CustomTable* custom = nullptr, std::span<const GivenFunction> functions = {}, std::size_t memory_limit = 0);

QUERN_END
