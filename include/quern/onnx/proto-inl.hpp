#pragma once
#include <utility>

#include "proto.hpp"
#include "wire.hpp"

QUERN_BEGIN
namespace onnx {

/// One function a message: each reads the fields it knows and skips the rest. A message that occurs again
/// is read into the same struct, which is protobuf's merging.
namespace parse {

/// Counts one level of recursion for its lifetime.
class Level {
public:
    explicit Level(Reader& r) : context_(r.context()) {
        if (context_.depth_left <= 0) r.fail("graphs or types are nested too deeply");
        --context_.depth_left;
    }
    ~Level() { ++context_.depth_left; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

private:
    WireContext& context_;
};

/// Reads the current field of `r` as a message: each(sub) once for each of its fields.
template <class F>
void message(Reader& r, const char* name, std::int64_t index, F&& each) {
    Scope scope{&r.scope(), name, index};
    Reader sub(r.bytes(), r.context(), scope);
    while (sub.next()) each(sub);
}
template <class T>
std::int64_t last(const std::vector<T>& v) noexcept { return static_cast<std::int64_t>(v.size()) - 1; }
template <class T>
T& made(Reader& r, std::shared_ptr<T>& p) {
    if (!p) {
        r.charge(sizeof(T));
        p = std::make_shared<T>();
    }
    return *p;
}

QUERN_INLINE void entry(Reader& r, Entry& e) {
    switch (r.field()) {
        case 1: e.key = r.bytes(); break;
        case 2: e.value = r.bytes(); break;
        default: r.skip();
    }
}
QUERN_INLINE void entries(Reader& r, const char* name, std::vector<Entry>& v) {
    Entry& e = r.grow(v);
    message(r, name, last(v), [&](Reader& f) { entry(f, e); });
}
QUERN_INLINE void opset(Reader& r, OpsetId& o) {
    switch (r.field()) {
        case 1: o.domain = r.bytes(); break;
        case 2: o.version = r.i64(); break;
        default: r.skip();
    }
}

/// Checks the wire format of typed data without keeping it.
QUERN_INLINE void typed_field(Reader& r, TensorProto& t) {
    switch (r.field()) {
        case 4: r.fixeds<float>([](float) {}); break;
        case 10: r.fixeds<double>([](double) {}); break;
        default: r.varints([](std::uint64_t) {});
    }
    std::string_view f = r.consumed();
    if (!t.typed.empty() && t.typed.back().data() + t.typed.back().size() == f.data())
        t.typed.back() = {t.typed.back().data(), t.typed.back().size() + f.size()};
    else
        r.grow(t.typed) = f;
}
QUERN_INLINE void tensor(Reader& r, TensorProto& t) {
    switch (r.field()) {
        case 1: r.append(t.dims); break;
        case 2: t.data_type = r.i32(); break;
        case 4: case 5: case 7: case 10: case 11: typed_field(r, t); break;
        case 6: r.grow(t.string_data) = r.bytes(); break;
        case 8: t.name = r.bytes(); break;
        case 9:
            t.raw_data = r.bytes();
            t.has_raw = true;
            break;
        case 13: entries(r, "external_data", t.external_data); break;
        case 14: t.data_location = r.i32(); break;
        default: r.skip();
    }
}
QUERN_INLINE void tensor_message(Reader& r, const char* name, std::int64_t index, TensorProto& t) {
    Scope scope{&r.scope(), name, index};
    t.bytes = r.bytes();
    Reader sub(t.bytes, r.context(), scope);
    while (sub.next()) tensor(sub, t);
}
QUERN_INLINE void sparse(Reader& r, SparseTensor& s) {
    switch (r.field()) {
        case 1: tensor_message(r, "values", -1, s.values); break;
        case 2: tensor_message(r, "indices", -1, s.indices); break;
        case 3: r.append(s.dims); break;
        default: r.skip();
    }
}

QUERN_INLINE void dimension(Reader& r, Dimension& d) {
    switch (r.field()) {
        case 1: d = {r.i64(), true, {}}; break;
        case 2: d = {-1, false, r.bytes()}; break;
        default: r.skip();
    }
}
QUERN_INLINE void shape(Reader& r, TypeProto& t) {
    t.has_shape = true;
    message(r, "shape", -1, [&](Reader& f) {
        if (f.field() != 1) return f.skip();
        Dimension& d = f.grow(t.shape);
        message(f, "dim", last(t.shape), [&](Reader& g) { dimension(g, d); });
    });
}
QUERN_INLINE void type(Reader& r, TypeProto& t);
QUERN_INLINE void type_message(Reader& r, const char* name, std::int64_t index, TypeProto& t) {
    Level level(r);
    message(r, name, index, [&](Reader& f) { type(f, t); });
}
QUERN_INLINE void type_kind(Reader& r, TypeProto& t, TypeProto::Kind kind, const char* name) {
    if (t.kind != kind) t = TypeProto{};
    t.kind = kind;
    message(r, name, -1, [&](Reader& f) {
        bool tensors = kind == TypeProto::tensor || kind == TypeProto::sparse;
        if (kind == TypeProto::opaque) return f.skip();
        if (tensors && f.field() == 1) t.elem_type = f.i32();
        else if (tensors && f.field() == 2) shape(f, t);
        else if (kind == TypeProto::map && f.field() == 1) t.key_type = f.i32();
        else if (!tensors && f.field() == (kind == TypeProto::map ? 2u : 1u)) type_message(f, "elem", -1, made(f, t.elem));
        else f.skip();
    });
}
QUERN_INLINE void type(Reader& r, TypeProto& t) {
    switch (r.field()) {
        case 1: type_kind(r, t, TypeProto::tensor, "tensor_type"); break;
        case 4: type_kind(r, t, TypeProto::sequence, "sequence_type"); break;
        case 5: type_kind(r, t, TypeProto::map, "map_type"); break;
        case 7: type_kind(r, t, TypeProto::opaque, "opaque_type"); break;
        case 8: type_kind(r, t, TypeProto::sparse, "sparse_tensor_type"); break;
        case 9: type_kind(r, t, TypeProto::optional, "optional_type"); break;
        default: r.skip();
    }
}
QUERN_INLINE void value_info(Reader& r, const char* name, std::vector<ValueInfo>& v) {
    ValueInfo& i = r.grow(v);
    message(r, name, last(v), [&](Reader& f) {
        switch (f.field()) {
            case 1: i.name = f.bytes(); break;
            case 2: type_message(f, "type", -1, i.type); break;
            default: f.skip();
        }
    });
}

QUERN_INLINE void graph_message(Reader& r, const char* name, std::int64_t index, GraphProto& g);

QUERN_INLINE void attribute_field(Reader& r, Attribute& a) {
    switch (r.field()) {
        case 1: a.name = r.bytes(); break;
        case 2: a.f = r.f32(); break;
        case 3: a.i = r.i64(); break;
        case 4: a.s = r.bytes(); break;
        case 5: tensor_message(r, "t", -1, made(r, a.t)); break;
        case 6: graph_message(r, "g", -1, made(r, a.g)); break;
        case 7: r.append(a.floats); break;
        case 8: r.append(a.ints); break;
        case 9: r.grow(a.strings) = r.bytes(); break;
        case 10: {
            TensorProto& t = r.grow(a.tensors);
            tensor_message(r, "tensors", last(a.tensors), t);
            break;
        }
        case 11: {
            GraphProto& g = r.grow(a.graphs);
            graph_message(r, "graphs", last(a.graphs), g);
            break;
        }
        case 14: type_message(r, "tp", -1, made(r, a.tp)); break;
        case 15: {
            TypeProto& t = r.grow(a.type_protos);
            type_message(r, "type_protos", last(a.type_protos), t);
            break;
        }
        case 20: a.type = r.i32(); break;
        case 21: a.ref_attr_name = r.bytes(); break;
        case 22: {
            SparseTensor& s = made(r, a.sparse);
            message(r, "sparse_tensor", -1, [&](Reader& f) { sparse(f, s); });
            break;
        }
        default: r.skip();
    }
}
/// The type that the fields seen (bit n: field n) imply, by ascending field number.
QUERN_INLINE int attribute_type(std::uint32_t seen) noexcept {
    constexpr struct { int field; AttrType type; } order[] = {
        {2, AttrType::f}, {3, AttrType::i}, {4, AttrType::s}, {5, AttrType::t}, {6, AttrType::g},
        {7, AttrType::floats}, {8, AttrType::ints}, {9, AttrType::strings}, {10, AttrType::tensors},
        {11, AttrType::graphs}, {14, AttrType::tp}, {15, AttrType::type_protos}, {22, AttrType::sparse},
        {23, AttrType::sparses}};
    for (auto& o : order)
        if (seen >> o.field & 1) return static_cast<int>(o.type);
    return 0;
}
/// A message-valued attribute must have its message, so that whoever reads it need not ask.
QUERN_INLINE void attribute_complete(Reader& r, const Attribute& a) {
    if (!a.ref_attr_name.empty()) return;
    auto t = static_cast<AttrType>(a.type);
    const char* missing = t == AttrType::t && !a.t         ? "t"
                          : t == AttrType::g && !a.g       ? "g"
                          : t == AttrType::tp && !a.tp     ? "tp"
                          : t == AttrType::sparse && !a.sparse ? "sparse_tensor"
                                                           : nullptr;
    if (missing)
        r.fail("attribute '" + std::string(a.name) + "' has type " + std::to_string(a.type) + " and no field " + missing);
}
QUERN_INLINE void attribute(Reader& r, const char* name, std::vector<Attribute>& v) {
    Attribute& a = r.grow(v);
    std::uint32_t seen = 0;
    message(r, name, last(v), [&](Reader& f) {
        if (f.field() < 32) seen |= 1u << f.field();
        attribute_field(f, a);
    });
    if (a.type == 0 && a.ref_attr_name.empty()) a.type = attribute_type(seen);
    attribute_complete(r, a);
}

QUERN_INLINE void node(Reader& r, const char* name, std::vector<NodeProto>& v) {
    NodeProto& n = r.grow(v);
    message(r, name, last(v), [&](Reader& f) {
        switch (f.field()) {
            case 1: f.grow(n.input) = f.bytes(); break;
            case 2: f.grow(n.output) = f.bytes(); break;
            case 3: n.name = f.bytes(); break;
            case 4: n.op_type = f.bytes(); break;
            case 5: attribute(f, "attribute", n.attribute); break;
            case 6: n.doc_string = f.bytes(); break;
            case 7: n.domain = f.bytes(); break;
            case 8: n.overload = f.bytes(); break;
            default: f.skip();
        }
    });
}
QUERN_INLINE void graph_field(Reader& r, GraphProto& g) {
    switch (r.field()) {
        case 1: node(r, "node", g.node); break;
        case 2: g.name = r.bytes(); break;
        case 5: {
            TensorProto& t = r.grow(g.initializer);
            tensor_message(r, "initializer", last(g.initializer), t);
            break;
        }
        case 11: value_info(r, "input", g.input); break;
        case 12: value_info(r, "output", g.output); break;
        case 13: value_info(r, "value_info", g.value_info); break;
        case 15: {
            SparseTensor& s = r.grow(g.sparse_initializer);
            message(r, "sparse_initializer", last(g.sparse_initializer), [&](Reader& f) { sparse(f, s); });
            break;
        }
        default: r.skip();
    }
}
QUERN_INLINE void graph_message(Reader& r, const char* name, std::int64_t index, GraphProto& g) {
    Level level(r);
    message(r, name, index, [&](Reader& f) { graph_field(f, g); });
}
QUERN_INLINE void function(Reader& r, FunctionProto& f) {
    switch (r.field()) {
        case 1: f.name = r.bytes(); break;
        case 4: r.grow(f.input) = r.bytes(); break;
        case 5: r.grow(f.output) = r.bytes(); break;
        case 6: r.grow(f.attribute) = r.bytes(); break;
        case 7: node(r, "node", f.node); break;
        case 9: {
            OpsetId& o = r.grow(f.opset_import);
            message(r, "opset_import", last(f.opset_import), [&](Reader& s) { opset(s, o); });
            break;
        }
        case 10: f.domain = r.bytes(); break;
        case 11: attribute(r, "attribute_proto", f.attribute_proto); break;
        case 12: value_info(r, "value_info", f.value_info); break;
        case 13: f.overload = r.bytes(); break;
        default: r.skip();
    }
}
QUERN_INLINE void model_field(Reader& r, ModelProto& m) {
    switch (r.field()) {
        case 1: m.ir_version = r.i64(); break;
        case 2: m.producer_name = r.bytes(); break;
        case 3: m.producer_version = r.bytes(); break;
        case 4: m.domain = r.bytes(); break;
        case 7:
            m.has_graph = true;
            graph_message(r, "graph", -1, m.graph);
            break;
        case 8: {
            OpsetId& o = r.grow(m.opset_import);
            message(r, "opset_import", last(m.opset_import), [&](Reader& s) { opset(s, o); });
            break;
        }
        case 14: entries(r, "metadata_props", m.metadata); break;
        case 25: {
            FunctionProto& f = r.grow(m.functions);
            message(r, "functions", last(m.functions), [&](Reader& s) { function(s, f); });
            break;
        }
        default: r.skip();
    }
}

QUERN_INLINE WireContext context(std::size_t bytes, const void* origin, const ParseLimits& limits) noexcept {
    WireContext c;
    c.origin = static_cast<const char*>(origin);
    c.memory_left = limits.memory ? limits.memory : bytes > (std::size_t{1} << 50) ? bytes : bytes * 64 + (1u << 20);
    c.depth_left = limits.depth;
    return c;
}

}  // namespace parse

QUERN_INLINE ModelProto parse_model(std::span<const std::byte> bytes, const ParseLimits& limits) {
    ModelProto m;
    WireContext c = parse::context(bytes.size(), bytes.data(), limits);
    Scope root;
    Reader r({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, c, root);
    while (r.next()) parse::model_field(r, m);
    return m;
}
QUERN_INLINE FunctionProto parse_function(std::span<const std::byte> bytes, const ParseLimits& limits) {
    FunctionProto f;
    WireContext c = parse::context(bytes.size(), bytes.data(), limits);
    Scope root;
    Reader r({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, c, root);
    while (r.next()) parse::function(r, f);
    return f;
}

}  // namespace onnx
QUERN_END
