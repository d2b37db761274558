// ONNX files from the same structs that reading gives.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proto.hpp"
#include "wire.hpp"

QUERN_BEGIN
namespace onnx {

/// Weights that do not go into the model file: one file beside it, tensors one after the other, each at a
/// multiple of 4096 bytes (so that it can be mapped and used in place) or of 64 if smaller than a page.
/// Written under a temporary name; commit() gives it its own, and what is not committed is removed.
class QUERN_API ExternalSink {
public:
    /// Data goes to `path`; models name it by its last part. Tensors below `threshold` bytes stay inside.
    explicit ExternalSink(std::string path, std::size_t threshold = 1024);
    ~ExternalSink();
    ExternalSink(const ExternalSink&) = delete;
    ExternalSink& operator=(const ExternalSink&) = delete;

    struct Place {
        std::uint64_t offset, length;
    };
    bool wants(std::size_t bytes) const noexcept { return bytes >= threshold_; }
    /// Raises io.
    Place put(std::string_view bytes);
    void commit();
    const std::string& location() const noexcept { return location_; }

private:
    struct File;
    std::string path_, location_;
    std::size_t threshold_;
    std::uint64_t size_ = 0;
    std::unique_ptr<File> file_;
};

/// A view of `t` as a message: `t` and `name` must outlive it.
QUERN_API TensorProto to_proto(const Tensor& t, std::string_view name);

/// Appends messages as field `field`; TensorProtos with raw_data that `sink` wants go there.
QUERN_API void write_tensor(Writer& w, std::uint32_t field, const TensorProto& t, ExternalSink* sink = nullptr);
QUERN_API void write_type(Writer& w, std::uint32_t field, const TypeProto& t);
QUERN_API void write_value_info(Writer& w, std::uint32_t field, const ValueInfo& v);
QUERN_API void write_attribute(Writer& w, std::uint32_t field, const Attribute& a, ExternalSink* sink = nullptr);
QUERN_API void write_node(Writer& w, std::uint32_t field, const NodeProto& n, ExternalSink* sink = nullptr);
QUERN_API void write_graph(Writer& w, std::uint32_t field, const GraphProto& g, ExternalSink* sink = nullptr);
QUERN_API void write_function(Writer& w, std::uint32_t field, const FunctionProto& f, ExternalSink* sink = nullptr);
QUERN_API std::string serialize(const ModelProto& m, ExternalSink* sink = nullptr);

/// Writes the model to `path`. Where its tensors exceed `max_inline` bytes (protobuf's own limit is 2 GiB)
/// they go to `path` + ".data". Files appear whole, by rename: a model that is mapped may be replaced.
/// Raises io.
QUERN_API void write_model(const std::string& path, const ModelProto& m, std::uint64_t max_inline = 2000000000);

/// Attributes by value; the views must outlive the result.
inline Attribute make_attribute(std::string_view name, AttrType type) {
    Attribute a;
    a.name = name;
    a.type = static_cast<int>(type);
    return a;
}
inline Attribute attribute_i(std::string_view name, std::int64_t v) {
    Attribute a = make_attribute(name, AttrType::i);
    a.i = v;
    return a;
}
inline Attribute attribute_f(std::string_view name, float v) {
    Attribute a = make_attribute(name, AttrType::f);
    a.f = v;
    return a;
}
inline Attribute attribute_s(std::string_view name, std::string_view v) {
    Attribute a = make_attribute(name, AttrType::s);
    a.s = v;
    return a;
}
inline Attribute attribute_ints(std::string_view name, std::vector<std::int64_t> v) {
    Attribute a = make_attribute(name, AttrType::ints);
    a.ints = std::move(v);
    return a;
}
inline Attribute attribute_floats(std::string_view name, std::vector<float> v) {
    Attribute a = make_attribute(name, AttrType::floats);
    a.floats = std::move(v);
    return a;
}
inline Attribute attribute_strings(std::string_view name, std::vector<std::string_view> v) {
    Attribute a = make_attribute(name, AttrType::strings);
    a.strings = std::move(v);
    return a;
}
inline Attribute attribute_t(std::string_view name, const Tensor& v) {
    Attribute a = make_attribute(name, AttrType::t);
    a.t = std::make_shared<TensorProto>(to_proto(v, {}));
    return a;
}
inline Attribute attribute_g(std::string_view name, GraphProto v) {
    Attribute a = make_attribute(name, AttrType::g);
    a.g = std::make_shared<GraphProto>(std::move(v));
    return a;
}
/// A tensor value with its dims; `name` and the params must outlive the result.
inline ValueInfo tensor_info(std::string_view name, DType type, std::vector<Dimension> dims, bool ranked = true) {
    ValueInfo v;
    v.name = name;
    v.type.kind = TypeProto::tensor;
    v.type.elem_type = static_cast<std::int32_t>(type);
    v.type.has_shape = ranked;
    v.type.shape = std::move(dims);
    return v;
}

}  // namespace onnx
QUERN_END
