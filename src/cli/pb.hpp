// TensorProto files, through quern's own reader and writer.
#pragma once
#include <quern/onnx/proto.hpp>
#include <quern/quern.hpp>

#include <string>

namespace cli::pb {

/// Raises invalid_model, naming the file.
inline quern::Tensor parse(const std::string& bytes, const std::string& path) {
    try {
        return quern::onnx::parse_tensor(std::as_bytes(std::span(bytes)));
    } catch (quern::Error& e) {
        quern::raise(std::move(e.at("in '" + path + "'")));
    }
}
inline std::string serialize(const std::string& name, const quern::Tensor& t) {
    return quern::onnx::serialize_tensor(t, name);
}
}  // namespace cli::pb
