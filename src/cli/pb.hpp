// TensorProto, SequenceProto, OptionalProto and MapProto files, through quern's own reader and writer.
#pragma once
#include <quern/onnx/proto.hpp>
#include <quern/quern.hpp>

#include <string>

namespace cli::pb {

/// Raises invalid_model, naming the file.
inline quern::Value parse(const std::string& bytes, const std::string& path, quern::Kind kind) {
    try {
        return quern::onnx::parse_value(std::as_bytes(std::span(bytes)), kind);
    } catch (quern::Error& e) {
        quern::raise(std::move(e.at("in '" + path + "'")));
    }
}
inline std::string serialize(const std::string& name, const quern::Value& v, quern::Kind kind) {
    return quern::onnx::serialize_value(v, kind, name);
}
}  // namespace cli::pb
