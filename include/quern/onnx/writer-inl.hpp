#pragma once
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "../base/atomic_file.hpp"
#include "writer.hpp"

QUERN_BEGIN
namespace onnx {

namespace emit {

QUERN_INLINE void entry(Writer& w, std::uint32_t field, std::string_view key, std::string_view value) {
    w.nest(field, [&] {
        w.bytes(1, key);
        w.bytes(2, value);
    });
}
QUERN_INLINE void opset(Writer& w, std::uint32_t field, const OpsetId& o) {
    w.nest(field, [&] {
        w.bytes(1, o.domain);
        w.i64(2, o.version);
    });
}
QUERN_INLINE void names(Writer& w, std::uint32_t field, const std::vector<std::string_view>& v) {
    for (auto s : v) w.bytes(field, s);
}
QUERN_INLINE void tensor_fields(Writer& w, const TensorProto& t, ExternalSink* sink) {
    w.i64s(1, t.dims);
    w.varint(2, static_cast<std::uint64_t>(std::int64_t{t.data_type}));
    for (auto run : t.typed) w.append(run);
    names(w, 6, t.string_data);
    w.text(8, t.name);
    bool moved = sink && t.has_raw && t.data_location == 0 && sink->wants(t.raw_data.size());
    if (t.has_raw && !moved) w.bytes(9, t.raw_data);
    for (auto& e : t.external_data) entry(w, 13, e.key, e.value);
    if (moved) {
        auto p = sink->put(t.raw_data);
        entry(w, 13, "location", sink->location());
        entry(w, 13, "offset", std::to_string(p.offset));
        entry(w, 13, "length", std::to_string(p.length));
    }
    if (moved || t.data_location) w.varint(14, static_cast<std::uint64_t>(moved ? 1 : std::int64_t{t.data_location}));
}
QUERN_INLINE void sparse(Writer& w, std::uint32_t field, const SparseTensor& s, ExternalSink* sink) {
    w.nest(field, [&] {
        write_tensor(w, 1, s.values, sink);
        write_tensor(w, 2, s.indices, sink);
        w.i64s(3, s.dims);
    });
}
QUERN_INLINE void type_fields(Writer& w, const TypeProto& t);
QUERN_INLINE void tensor_type(Writer& w, const TypeProto& t) {
    w.varint(1, static_cast<std::uint64_t>(std::int64_t{t.elem_type}));
    if (!t.has_shape) return;
    w.nest(2, [&] {
        for (auto& d : t.shape)
            w.nest(1, [&] {
                if (d.has_value) w.i64(1, d.value);
                else w.text(2, d.param);
            });
    });
}
QUERN_INLINE void type_fields(Writer& w, const TypeProto& t) {
    auto elem = [&](std::uint32_t field) {
        if (t.elem) w.nest(field, [&] { type_fields(w, *t.elem); });
    };
    switch (t.kind) {
        case TypeProto::tensor: w.nest(1, [&] { tensor_type(w, t); }); break;
        case TypeProto::sparse: w.nest(8, [&] { tensor_type(w, t); }); break;
        case TypeProto::sequence: w.nest(4, [&] { elem(1); }); break;
        case TypeProto::optional: w.nest(9, [&] { elem(1); }); break;
        case TypeProto::map:
            w.nest(5, [&] {
                w.varint(1, static_cast<std::uint64_t>(std::int64_t{t.key_type}));
                elem(2);
            });
            break;
        case TypeProto::opaque: w.nest(7, [] {}); break;
        case TypeProto::none: break;
    }
}
QUERN_INLINE void attribute_value(Writer& w, const Attribute& a, ExternalSink* sink) {
    switch (static_cast<AttrType>(a.type)) {
        case AttrType::f: w.f32(2, a.f); break;
        case AttrType::i: w.i64(3, a.i); break;
        case AttrType::s: w.bytes(4, a.s); break;
        case AttrType::t: if (a.t) write_tensor(w, 5, *a.t, sink); break;
        case AttrType::g: if (a.g) write_graph(w, 6, *a.g, sink); break;
        case AttrType::floats: w.f32s(7, a.floats); break;
        case AttrType::ints: w.i64s(8, a.ints); break;
        case AttrType::strings: names(w, 9, a.strings); break;
        case AttrType::tensors: for (auto& t : a.tensors) write_tensor(w, 10, t, sink); break;
        case AttrType::graphs: for (auto& g : a.graphs) write_graph(w, 11, g, sink); break;
        case AttrType::tp: if (a.tp) write_type(w, 14, *a.tp); break;
        case AttrType::type_protos: for (auto& t : a.type_protos) write_type(w, 15, t); break;
        case AttrType::sparse: if (a.sparse) sparse(w, 22, *a.sparse, sink); break;
        default: break;
    }
}

/// Bytes of raw data, in attributes and subgraphs too.
QUERN_INLINE std::uint64_t raw_bytes(const GraphProto& g) {
    std::uint64_t n = 0;
    for (auto& t : g.initializer) n += t.raw_data.size();
    for (auto& s : g.sparse_initializer) n += s.values.raw_data.size() + s.indices.raw_data.size();
    for (auto& node : g.node)
        for (auto& a : node.attribute) {
            if (a.t) n += a.t->raw_data.size();
            if (a.g) n += raw_bytes(*a.g);
            for (auto& t : a.tensors) n += t.raw_data.size();
            for (auto& s : a.graphs) n += raw_bytes(s);
        }
    return n;
}

}  // namespace emit

struct ExternalSink::File {
    AtomicFile file;
};
QUERN_INLINE ExternalSink::ExternalSink(std::string path, std::size_t threshold)
    : path_(std::move(path)), threshold_(threshold), file_(new File{AtomicFile(path_)}) {
    location_ = std::filesystem::path(path_).filename().string();
}
QUERN_INLINE ExternalSink::~ExternalSink() = default;
QUERN_INLINE ExternalSink::Place ExternalSink::put(std::string_view bytes) {
    static constexpr std::array<char, 4096> zeros{};
    std::uint64_t align = bytes.size() >= 4096 ? 4096 : 64;
    auto pad = static_cast<std::size_t>((align - size_ % align) % align);
    file_->file.write({zeros.data(), pad});
    file_->file.write(bytes);
    Place p{size_ + pad, bytes.size()};
    size_ = p.offset + p.length;
    return p;
}
QUERN_INLINE void ExternalSink::commit() { file_->file.commit(); }

QUERN_INLINE TensorProto to_proto(const Tensor& t, std::string_view name) {
    TensorProto p;
    p.dims.assign(t.shape().begin(), t.shape().end());
    p.data_type = static_cast<std::int32_t>(t.dtype());
    p.name = name;
    if (t.dtype() == DType::string) {
        for (auto& s : t.strings()) p.string_data.push_back(s);
        return p;
    }
    p.has_raw = true;
    p.raw_data = {static_cast<const char*>(t.raw()), t.bytes()};
    return p;
}
QUERN_INLINE void write_tensor(Writer& w, std::uint32_t field, const TensorProto& t, ExternalSink* sink) {
    w.nest(field, [&] { emit::tensor_fields(w, t, sink); });
}
QUERN_INLINE void write_type(Writer& w, std::uint32_t field, const TypeProto& t) {
    w.nest(field, [&] { emit::type_fields(w, t); });
}
QUERN_INLINE void write_value_info(Writer& w, std::uint32_t field, const ValueInfo& v) {
    w.nest(field, [&] {
        w.bytes(1, v.name);
        if (v.type.kind != TypeProto::none) write_type(w, 2, v.type);
    });
}
QUERN_INLINE void write_attribute(Writer& w, std::uint32_t field, const Attribute& a, ExternalSink* sink) {
    w.nest(field, [&] {
        w.bytes(1, a.name);
        if (a.ref_attr_name.empty()) emit::attribute_value(w, a, sink);
        else w.bytes(21, a.ref_attr_name);
        w.varint(20, static_cast<std::uint64_t>(std::int64_t{a.type}));
    });
}
QUERN_INLINE void write_node(Writer& w, std::uint32_t field, const NodeProto& n, ExternalSink* sink) {
    w.nest(field, [&] {
        emit::names(w, 1, n.input);
        emit::names(w, 2, n.output);
        w.text(3, n.name);
        w.bytes(4, n.op_type);
        for (auto& a : n.attribute) write_attribute(w, 5, a, sink);
        w.text(6, n.doc_string);
        w.text(7, n.domain);
        w.text(8, n.overload);
    });
}
QUERN_INLINE void write_graph(Writer& w, std::uint32_t field, const GraphProto& g, ExternalSink* sink) {
    w.nest(field, [&] {
        for (auto& n : g.node) write_node(w, 1, n, sink);
        w.bytes(2, g.name);
        for (auto& t : g.initializer) write_tensor(w, 5, t, sink);
        for (auto& v : g.input) write_value_info(w, 11, v);
        for (auto& v : g.output) write_value_info(w, 12, v);
        for (auto& v : g.value_info) write_value_info(w, 13, v);
        for (auto& s : g.sparse_initializer) emit::sparse(w, 15, s, sink);
    });
}
QUERN_INLINE void write_function(Writer& w, std::uint32_t field, const FunctionProto& f, ExternalSink* sink) {
    w.nest(field, [&] {
        w.bytes(1, f.name);
        emit::names(w, 4, f.input);
        emit::names(w, 5, f.output);
        emit::names(w, 6, f.attribute);
        for (auto& n : f.node) write_node(w, 7, n, sink);
        for (auto& o : f.opset_import) emit::opset(w, 9, o);
        w.bytes(10, f.domain);
        for (auto& a : f.attribute_proto) write_attribute(w, 11, a, sink);
        for (auto& v : f.value_info) write_value_info(w, 12, v);
        w.text(13, f.overload);
    });
}
QUERN_INLINE std::string serialize(const ModelProto& m, ExternalSink* sink) {
    Writer w;
    w.i64(1, m.ir_version);
    w.text(2, m.producer_name);
    w.text(3, m.producer_version);
    w.text(4, m.domain);
    if (m.has_graph) write_graph(w, 7, m.graph, sink);
    for (auto& o : m.opset_import) emit::opset(w, 8, o);
    for (auto& e : m.metadata) emit::entry(w, 14, e.key, e.value);
    for (auto& f : m.functions) write_function(w, 25, f, sink);
    return w.take();
}

QUERN_INLINE void write_model(const std::string& path, const ModelProto& m, std::uint64_t max_inline) {
    std::unique_ptr<ExternalSink> sink;
    if (emit::raw_bytes(m.graph) > max_inline) sink = std::make_unique<ExternalSink>(path + ".data");
    AtomicFile file(path);
    file.write(serialize(m, sink.get()));
    if (sink) sink->commit();
    file.commit();
}

QUERN_INLINE std::string serialize_tensor(const Tensor& t, std::string_view name) {
    Writer w;
    emit::tensor_fields(w, to_proto(t, name), nullptr);
    return w.take();
}
namespace emit {
QUERN_INLINE void value_fields(Writer& w, const Value& v, Kind kind, std::string_view name) {
    w.text(1, name);
    if (kind == Kind::optional) {
        if (!v.has_value()) return w.varint(2, 0);
        const bool tensor = v.kind() == Kind::tensor, list = v.kind() == Kind::sequence;
        w.varint(2, tensor ? 1 : list ? 3 : 4);
        if (tensor) write_tensor(w, 3, to_proto(v.tensor(), {}));
        else w.nest(list ? 5 : 6, [&] { value_fields(w, v, v.kind(), {}); });
    } else if (kind == Kind::sequence) {
        Kind of = v.size() ? v[0].kind() : Kind::tensor;
        w.varint(2, of == Kind::tensor ? 1 : of == Kind::sequence ? 3 : of == Kind::map ? 4 : 5);
        for (auto& i : v.items()) {
            if (of == Kind::tensor) write_tensor(w, 3, to_proto(i.tensor(), {}));
            else w.nest(of == Kind::sequence ? 5 : of == Kind::map ? 6 : 7, [&] { value_fields(w, i, of, {}); });
        }
    } else {
        const Tensor &keys = v.keys(), &values = v.values();
        const bool text = keys.dtype() == DType::string;
        w.varint(2, static_cast<std::uint64_t>(keys.dtype()));
        if (keys.dtype() == DType::i64) w.i64s(3, {keys.data<std::int64_t>().begin(), keys.data<std::int64_t>().end()});
        else if (!text) raise(ErrorCode::unsupported, std::string("maps with keys of type ") + dtype_name(keys.dtype()) + " in files; accepted: int64, string");
        for (std::size_t i = 0; text && i < v.size(); ++i) w.bytes(4, keys.strings()[i]);
        w.nest(5, [&] {
            w.varint(2, 1);
            const std::size_t size = v.size() ? values.bytes() / v.size() : 0;
            for (std::size_t i = 0; i < v.size(); ++i)
                write_tensor(w, 3, to_proto(Tensor::borrow(values.dtype(), {}, static_cast<const std::byte*>(values.raw()) + i * size), {}));
        });
    }
}
}  // namespace emit
QUERN_INLINE std::string serialize_value(const Value& v, Kind kind, std::string_view name) {
    if (kind == Kind::tensor) return serialize_tensor(v.tensor(), name);
    Writer w;
    emit::value_fields(w, v, kind, name);
    return w.take();
}

}  // namespace onnx
QUERN_END
