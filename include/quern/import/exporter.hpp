// Graph to ONNX: any stage can be saved and opened elsewhere.
#pragma once
#include <memory>
#include <string>

#include "../graph/graph.hpp"
#include "../onnx/proto.hpp"

QUERN_BEGIN

/// Writes the graph as an ONNX model in the newest opset that quern's operators are normalized to. Values
/// captured by subgraphs become outer-scope names again. Fused operators are of domain com.microsoft where
/// ONNX Runtime has them. Raises io.
QUERN_API void write_onnx(const Graph& g, const std::string& path);
/// The same as bytes.
QUERN_API std::string serialize_onnx(const Graph& g);

/// The graph as messages that view it and must not outlive it.
class QUERN_API ExportedModel {
public:
    explicit ExportedModel(const Graph& g);
    onnx::ModelProto& proto() noexcept { return proto_; }

private:
    std::shared_ptr<void> text_;
    onnx::ModelProto proto_;
};

/// The ai.onnx opset whose forms the graph's nodes have.
inline constexpr std::int64_t graph_opset = 23;

QUERN_END
