// ONNX messages as plain structs; text and bytes are views into the file's bytes.
// Source of field numbers and meanings: onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), IR 14.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../tensor.hpp"
#include "../value.hpp"

QUERN_BEGIN
namespace onnx {

struct External;
struct GraphProto;

/// StringStringEntryProto.
struct Entry {
    std::string_view key, value;
};

/// Typed data (float_data, int32_data, ...) is not decoded when parsed: decode_tensor() does it.
struct TensorProto {
    std::vector<std::int64_t> dims;
    std::int32_t data_type = 0;  ///< as in the file: may be no DType
    std::int32_t data_location = 0;  ///< 1: external
    std::string_view name;
    std::string_view raw_data;
    bool has_raw = false;
    std::vector<std::string_view> string_data;
    std::vector<Entry> external_data;
    /// Runs of whole fields (tags included) with numbers 4, 5, 7, 10, 11, in the file's order.
    std::vector<std::string_view> typed;
    std::string_view bytes;  ///< the whole message (the last one, where parts were merged)
};

struct Dimension {
    std::int64_t value = -1;
    bool has_value = false;
    std::string_view param;
};

struct TypeProto {
    enum Kind { none, tensor, sequence, map, optional, sparse, opaque } kind = none;
    std::int32_t elem_type = 0;
    std::int32_t key_type = 0;  ///< map
    bool has_shape = false;     ///< tensor, sparse: false where the rank is not declared
    std::vector<Dimension> shape;
    std::shared_ptr<TypeProto> elem;  ///< sequence, optional, map (its value type); may be null
};

struct ValueInfo {
    std::string_view name;
    TypeProto type;
};

struct SparseTensor {
    TensorProto values, indices;
    std::vector<std::int64_t> dims;
};

/// AttributeProto.AttributeType.
enum class AttrType : int {
    undefined = 0, f = 1, i = 2, s = 3, t = 4, g = 5, floats = 6, ints = 7, strings = 8, tensors = 9,
    graphs = 10, sparse = 11, sparses = 12, tp = 13, type_protos = 14,
};

struct Attribute {
    std::string_view name, ref_attr_name;
    /// As AttrType, by number. Files of IR version 1 leave it out: then it follows from the fields present.
    /// 0 where nothing is present, as in a reference to a function's attribute.
    int type = 0;
    float f = 0;
    std::int64_t i = 0;
    std::string_view s;
    std::shared_ptr<TensorProto> t;
    std::shared_ptr<GraphProto> g;
    std::shared_ptr<SparseTensor> sparse;
    std::shared_ptr<TypeProto> tp;
    std::vector<float> floats;
    std::vector<std::int64_t> ints;
    std::vector<std::string_view> strings;
    std::vector<TensorProto> tensors;
    std::vector<GraphProto> graphs;
    std::vector<TypeProto> type_protos;
};

struct NodeProto {
    std::string_view name, op_type, domain, overload, doc_string;
    std::vector<std::string_view> input, output;
    std::vector<Attribute> attribute;
};

struct GraphProto {
    std::string_view name;
    std::vector<NodeProto> node;
    std::vector<TensorProto> initializer;
    std::vector<SparseTensor> sparse_initializer;
    std::vector<ValueInfo> input, output, value_info;
};

struct OpsetId {
    std::string_view domain;
    std::int64_t version = 1;
};

struct FunctionProto {
    std::string_view name, domain, overload;
    std::vector<std::string_view> input, output, attribute;
    std::vector<Attribute> attribute_proto;
    std::vector<NodeProto> node;
    std::vector<OpsetId> opset_import;
    std::vector<ValueInfo> value_info;
};

struct ModelProto {
    std::int64_t ir_version = 0;
    std::string_view producer_name, producer_version, domain;
    std::vector<OpsetId> opset_import;
    GraphProto graph;
    bool has_graph = false;
    std::vector<FunctionProto> functions;
    std::vector<Entry> metadata;
};

/// Bounds on what parsing may take beyond the bytes themselves.
struct ParseLimits {
    int depth = 64;                ///< graphs in attributes, types in types
    std::size_t memory = 0;        ///< bytes of the structs above; 0: 64 for each byte of the file, and 1 MiB
};

/// Reads a serialized ModelProto. Nothing in it is copied: `bytes` must outlive the result. Unknown fields
/// are skipped, and a message that occurs twice is merged, as protobuf does.
/// Raises invalid_model with the byte offset and the field ("graph.node[3].attribute[0]"), out_of_memory.
QUERN_API ModelProto parse_model(std::span<const std::byte> bytes, const ParseLimits& limits = {});

/// Reads a serialized FunctionProto, in the same way.
QUERN_API FunctionProto parse_function(std::span<const std::byte> bytes, const ParseLimits& limits = {});

/// The tensor's elements. A view of raw_data or of the mapped external data, keeping `owner` (null: the
/// caller's bytes, which must outlive it) or the mapping alive, where these are aligned to the element
/// or take 64 KiB and more (Tensor::aligned() copies those when they must be read); otherwise a copy. Typed data is decoded. Booleans are 0 or 1 afterwards.
/// Raises invalid_model with name, dims, bytes found and expected; unsupported for types quern has not;
/// io for external data that is not there. `external` may be null: external data is then refused.
QUERN_API Tensor decode_tensor(const TensorProto& t, External* external, std::shared_ptr<const void> owner);

/// The same tensor, dense. Refuses with out_of_memory what would take more than `max_bytes`, since a few
/// bytes of a file can declare any size.
QUERN_API Tensor decode_sparse(const SparseTensor& t, External* external, std::shared_ptr<const void> owner,
                               std::size_t max_bytes = std::size_t{1} << 30);

/// "'weight' float[3, 4]", for messages.
QUERN_API std::string describe(const TensorProto& t);

/// Stored values (.pb files: TensorProto, SequenceProto, OptionalProto or MapProto, as `kind` says). The results own
/// their memory. Raise as parse_model and decode_tensor.
QUERN_API Tensor parse_tensor(std::span<const std::byte> bytes);
QUERN_API Value parse_value(std::span<const std::byte> bytes, Kind kind);

QUERN_API std::string serialize_tensor(const Tensor& t, std::string_view name);
/// As the message of `kind`: an optional may hold a tensor or a sequence.
QUERN_API std::string serialize_value(const Value& v, Kind kind, std::string_view name);

}  // namespace onnx
QUERN_END
