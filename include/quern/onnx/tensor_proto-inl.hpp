#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include "external.hpp"
#include "proto-inl.hpp"
#include "proto.hpp"
#include "wire.hpp"

QUERN_BEGIN
namespace onnx {

namespace tensors {

/// `name` for messages: a hostile file may hold any length and any bytes.
QUERN_INLINE std::string printable(std::string_view name) {
    std::string s;
    for (char c : name.substr(0, 100)) s += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
    return name.size() > 100 ? s + "..." : s;
}
QUERN_INLINE std::string dims_text(std::span<const std::int64_t> d) {
    std::string s = "[";
    for (std::size_t i = 0; i < d.size() && i < 16; ++i) s += (i ? ", " : "") + std::to_string(d[i]);
    return s + (d.size() > 16 ? ", ...]" : "]");
}
[[noreturn]] QUERN_INLINE void fail(const TensorProto& t, const std::string& what) {
    raise(ErrorCode::invalid_model, "tensor " + describe(t) + ": " + what);
}

QUERN_INLINE DType dtype_of(const TensorProto& t) {
    if (t.data_type > 0 && t.data_type < dtype_count) return static_cast<DType>(t.data_type);
    fail(t, "data_type " + std::to_string(t.data_type) + " does not exist; 1 to " + std::to_string(dtype_count - 1) + " do");
}

/// The number of elements. Refuses negative dims and sizes whose bits do not fit into 63 bits, zeros left
/// aside: strides are products of the others.
QUERN_INLINE std::int64_t count_of(const TensorProto& t, std::span<const std::int64_t> dims, DType type) {
    std::uint64_t room = static_cast<std::uint64_t>(INT64_MAX) / (type == DType::string ? 256 : std::max(dtype_bits(type), 8));
    bool empty = false;
    std::uint64_t n = 1;
    for (std::int64_t d : dims) {
        if (d < 0) fail(t, "dimension " + std::to_string(d) + " is negative");
        if (d == 0) {
            empty = true;
            continue;
        }
        if (static_cast<std::uint64_t>(d) > room / n) fail(t, "its dims " + dims_text(dims) + " overflow");
        n *= static_cast<std::uint64_t>(d);
    }
    return empty ? 0 : static_cast<std::int64_t>(n);
}

QUERN_INLINE std::size_t alignment(DType t) noexcept {
    return static_cast<std::size_t>(std::clamp(dtype_bits(t) / 8, 1, 8));
}
QUERN_INLINE bool any_above_one(std::string_view b) noexcept {
    unsigned char m = 0;
    for (char c : b) m |= static_cast<unsigned char>(c);
    return m > 1;
}

/// Memory as Tensor's own, without its zeros: weights can be large.
QUERN_INLINE std::shared_ptr<unsigned char> uninitialized(std::size_t bytes) {
    constexpr std::align_val_t align{64};
    void* p = ::operator new((bytes + 63) / 64 * 64, align, std::nothrow);
    if (!p) raise(ErrorCode::out_of_memory, "no memory for a tensor of " + std::to_string(bytes) + " bytes");
    return {static_cast<unsigned char*>(p), [](unsigned char* q) { ::operator delete(q, align); }};
}

inline constexpr std::size_t large_weight = 65536;

/// Elements in ONNX's raw form, which is also quern's: in place where possible.
QUERN_INLINE Tensor from_raw(const TensorProto& t, DType type, Shape shape, std::string_view raw,
                             std::shared_ptr<const void> owner, const char* source) {
    std::size_t want = storage_bytes(type, shape.count());
    if (raw.size() != want)
        fail(t, std::string(source) + " has " + std::to_string(raw.size()) + " bytes, its dims need " + std::to_string(want));
    if (want == 0) return Tensor(type, std::move(shape));
    bool messy = type == DType::boolean && any_above_one(raw);
    // Large weights stay where they are even when unaligned: whoever packs them copies them once.
    if (!messy && (raw.size() >= large_weight || reinterpret_cast<std::uintptr_t>(raw.data()) % alignment(type) == 0))
        return Tensor::share(type, std::move(shape), raw.data(), std::move(owner));
    auto copy = uninitialized(want);
    std::memcpy(copy.get(), raw.data(), want);
    if (messy)
        for (std::size_t i = 0; i < want; ++i) copy.get()[i] = copy.get()[i] != 0;
    const void* p = copy.get();
    return Tensor::share(type, std::move(shape), p, std::move(copy));
}

/// The field of TensorProto that holds `type` and its numbers per tensor.
struct Typed {
    std::uint32_t field;
    const char* name;
    std::size_t numbers;
};
QUERN_INLINE Typed typed_of(DType type, std::int64_t count) noexcept {
    auto n = static_cast<std::size_t>(count);
    switch (type) {
        case DType::f32: return {4, "float_data", n};
        case DType::c64: return {4, "float_data", n * 2};
        case DType::i64: return {7, "int64_data", n};
        case DType::f64: return {10, "double_data", n};
        case DType::c128: return {10, "double_data", n * 2};
        case DType::u32: case DType::u64: return {11, "uint64_data", n};
        // One number for each element of 6 bits and more; smaller ones stand in bytes.
        default: return {5, "int32_data", dtype_bits(type) < 6 ? storage_bytes(type, count) : n};
    }
}

/// Calls f(reader) at each field `number` of the typed data; f consumes it.
template <class F>
void typed_fields(const TensorProto& t, std::uint32_t number, F&& f) {
    Scope scope;
    for (std::string_view run : t.typed) {
        WireContext context{run.data(), 0, 1};
        Reader r(run, context, scope);
        while (r.next()) r.field() == number ? f(r) : r.skip();
    }
}
/// The payload, if all of field `number` is one packed list; counts its numbers either way.
template <class T>
std::string_view one_packed(const TensorProto& t, std::uint32_t number, std::size_t& numbers) {
    std::string_view payload;
    std::size_t fields = 0;
    typed_fields(t, number, [&](Reader& r) {
        ++fields;
        payload = r.wire() == Wire::bytes ? r.bytes() : std::string_view();
        if (payload.data()) numbers += payload.size() / sizeof(T);
        else r.template fixeds<T>([&](T) { ++numbers; });
    });
    return fields == 1 ? payload : std::string_view();
}

template <class T>
Tensor from_fixed(const TensorProto& t, DType type, Shape shape, const Typed& f, std::shared_ptr<const void> owner) {
    std::size_t found = 0;
    std::string_view payload = one_packed<T>(t, f.field, found);
    if (found != f.numbers)
        fail(t, std::string(f.name) + " has " + std::to_string(found) + " numbers, its dims need " + std::to_string(f.numbers));
    if (payload.data()) return from_raw(t, type, std::move(shape), payload, std::move(owner), f.name);
    Tensor out(type, std::move(shape));
    auto* to = static_cast<unsigned char*>(out.raw());
    typed_fields(t, f.field, [&](Reader& r) {
        r.template fixeds<T>([&](T v) {
            std::memcpy(to, &v, sizeof v);
            to += sizeof v;
        });
    });
    return out;
}

/// Puts one number of int32_data, int64_data or uint64_data; false where it is out of range. Signed and
/// unsigned readings of the same bits are both taken, as exporters write both.
QUERN_INLINE bool put_integer(DType type, std::uint64_t v, unsigned char* to) noexcept {
    auto s = static_cast<std::int64_t>(v);
    switch (type) {
        case DType::i64: case DType::u64: std::memcpy(to, &v, 8); return true;
        case DType::u32: case DType::i32: {
            auto x = static_cast<std::uint32_t>(v);
            std::memcpy(to, &x, 4);
            return s >= INT32_MIN && s <= std::int64_t{UINT32_MAX};
        }
        case DType::boolean: *to = v != 0; return true;
        case DType::i16: case DType::u16: case DType::f16: case DType::bf16: {
            auto x = static_cast<std::uint16_t>(v);
            std::memcpy(to, &x, 2);
            return s >= INT16_MIN && s <= UINT16_MAX;
        }
        default:
            *to = static_cast<unsigned char>(v);
            return s >= INT8_MIN && s <= UINT8_MAX;
    }
}
QUERN_INLINE Tensor from_varints(const TensorProto& t, DType type, Shape shape, const Typed& f) {
    std::size_t found = 0;
    typed_fields(t, f.field, [&](Reader& r) { r.varints([&](std::uint64_t) { ++found; }); });
    if (found != f.numbers)
        fail(t, std::string(f.name) + " has " + std::to_string(found) + " numbers, its dims need " + std::to_string(f.numbers));
    Tensor out(type, std::move(shape));
    auto* to = static_cast<unsigned char*>(out.raw());
    auto step = static_cast<std::size_t>(std::max(dtype_bits(type), 8) / 8);
    const bool six = dtype_bits(type) == 6;
    std::size_t bit = 0;
    typed_fields(t, f.field, [&](Reader& r) {
        r.varints([&](std::uint64_t v) {
            if (six ? v > 63 : !put_integer(type, v, to))
                fail(t, std::string(f.name) + " holds " + std::to_string(static_cast<std::int64_t>(v)) + ", which its type has not");
            if (!six) return void(to += step);
            const auto shifted = static_cast<unsigned>(v << bit % 8);
            to[bit / 8] = static_cast<unsigned char>(to[bit / 8] | shifted);
            if (shifted > 255) to[bit / 8 + 1] = static_cast<unsigned char>(shifted >> 8);
            bit += 6;
        });
    });
    return out;
}

QUERN_INLINE Tensor from_strings(const TensorProto& t, Shape shape, std::int64_t count) {
    if (t.has_raw && !t.raw_data.empty()) fail(t, "strings cannot be in raw_data; string_data holds them");
    if (t.string_data.size() != static_cast<std::uint64_t>(count))
        fail(t, "string_data has " + std::to_string(t.string_data.size()) + " strings, its dims need " + std::to_string(count));
    Tensor out(DType::string, std::move(shape));
    auto to = out.strings();
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = std::string(t.string_data[i]);
    return out;
}

/// Owns its elements, whatever it was decoded from.
QUERN_INLINE Tensor owned(const TensorProto& t) {
    Tensor x = decode_tensor(t, nullptr, nullptr);
    return x.dtype() == DType::string ? x : x.clone();
}

}  // namespace tensors

QUERN_INLINE std::string describe(const TensorProto& t) {
    std::string type = t.data_type > 0 && t.data_type < dtype_count ? dtype_name(static_cast<DType>(t.data_type)) : "undefined";
    return (t.name.empty() ? "without a name, " : "'" + tensors::printable(t.name) + "' ") + type + tensors::dims_text(t.dims);
}

QUERN_INLINE Tensor decode_tensor(const TensorProto& t, External* external, std::shared_ptr<const void> owner) {
    DType type = tensors::dtype_of(t);
    std::int64_t count = tensors::count_of(t, t.dims, type);
    Shape shape{std::span<const std::int64_t>(t.dims)};
    if (t.data_location == 1) {
        if (type == DType::string) tensors::fail(t, "strings cannot be external data");
        if (!external) tensors::fail(t, "its data is in another file, and none can be opened from here");
        External::Bytes b = external->read(t);
        return tensors::from_raw(t, type, std::move(shape), b.bytes, std::move(b.owner), "its external data");
    }
    if (t.data_location != 0) tensors::fail(t, "data_location " + std::to_string(t.data_location) + " does not exist");
    if (type == DType::string) return tensors::from_strings(t, std::move(shape), count);
    if (t.has_raw && (t.typed.empty() || !t.raw_data.empty()))
        return tensors::from_raw(t, type, std::move(shape), t.raw_data, std::move(owner), "raw_data");
    auto f = tensors::typed_of(type, count);
    if (f.field == 4) return tensors::from_fixed<float>(t, type, std::move(shape), f, std::move(owner));
    if (f.field == 10) return tensors::from_fixed<double>(t, type, std::move(shape), f, std::move(owner));
    return tensors::from_varints(t, type, std::move(shape), f);
}

namespace tensors {

/// The element that the k-th row of indices ([nnz] flat, [nnz, rank] by axis) names.
QUERN_INLINE std::int64_t sparse_at(const SparseTensor& s, std::span<const std::int64_t> idx, bool flat, std::size_t k,
                                    std::int64_t count) {
    std::size_t rank = flat ? 1 : s.dims.size();
    std::int64_t at = 0;
    for (std::size_t a = 0; a < rank; ++a) {
        std::int64_t i = idx[k * rank + a], d = flat ? count : s.dims[a];
        if (i < 0 || i >= d)
            fail(s.values, "sparse index " + std::to_string(i) + " is outside of 0 to " + std::to_string(d) + " (exclusive)");
        at = at * d + i;
    }
    return at;
}

}  // namespace tensors

QUERN_INLINE Tensor decode_sparse(const SparseTensor& s, External* external, std::shared_ptr<const void> owner, std::size_t max_bytes) {
    Tensor values = decode_tensor(s.values, external, owner).aligned(), indices = decode_tensor(s.indices, external, owner).aligned();
    std::int64_t count = tensors::count_of(s.values, s.dims, values.dtype());
    auto nnz = static_cast<std::size_t>(values.count());
    auto& is = indices.shape();
    bool flat = is.rank() == 1 && is[0] == values.count();
    bool by_axis = is.rank() == 2 && is[0] == values.count() && is[1] == static_cast<std::int64_t>(s.dims.size());
    if (values.shape().rank() != 1 || indices.dtype() != DType::i64 || (!flat && !by_axis))
        tensors::fail(s.values, "sparse values must be [n] with int64 indices [n] or [n, " + std::to_string(s.dims.size()) +
                                    "], found " + values.shape().to_string() + " and " + dtype_name(indices.dtype()) + is.to_string());
    if (values.dtype() != DType::string && dtype_bits(values.dtype()) < 8)
        raise(ErrorCode::unsupported, "sparse tensor of packed type " + std::string(dtype_name(values.dtype())));
    if (storage_bytes(values.dtype(), count) > max_bytes)
        raise(ErrorCode::out_of_memory, "sparse tensor " + describe(s.values) + " has dims " + tensors::dims_text(s.dims) +
                                            ", more than " + std::to_string(max_bytes) + " bytes when dense");
    Tensor out(values.dtype(), Shape(std::span<const std::int64_t>(s.dims)));
    auto idx = std::as_const(indices).data<std::int64_t>();
    bool text = values.dtype() == DType::string;
    auto size = static_cast<std::size_t>(dtype_bits(values.dtype()) / 8);
    for (std::size_t k = 0; k < nnz; ++k) {
        auto at = static_cast<std::size_t>(tensors::sparse_at(s, idx, flat, k, count));
        if (text) out.strings()[at] = std::as_const(values).strings()[k];
        else std::memcpy(static_cast<char*>(out.raw()) + at * size, static_cast<const char*>(std::as_const(values).raw()) + k * size, size);
    }
    return out;
}

namespace tensors {

/// Runs each(reader) over the fields of a whole file.
template <class F>
void whole(std::span<const std::byte> bytes, const char* name, F&& each) {
    WireContext c = parse::context(bytes.size(), bytes.data(), {});
    Scope scope{nullptr, name, -1};
    Reader r({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, c, scope);
    while (r.next()) each(r);
}
/// The elements of a SequenceProto; fields 3, 5, 6, 7 are those of a list of one kind each.
QUERN_INLINE void element(Reader& r, std::vector<Value>& out);
QUERN_INLINE Value sequence_message(Reader& r, const char* name, std::int64_t index) {
    parse::Level level(r);
    std::vector<Value> list;
    parse::message(r, name, index, [&](Reader& f) { element(f, list); });
    return Value::sequence(std::move(list));
}
QUERN_INLINE Tensor tensor_message(Reader& r, const char* name, std::int64_t index) {
    TensorProto t;
    parse::tensor_message(r, name, index, t);
    return owned(t);
}

/// A MapProto; its values are tensors of one element and one type.
struct MapFields {
    std::vector<std::int64_t> integers;
    std::vector<std::string> strings;
    std::vector<Value> values;
    std::int32_t key_type = 0;
    void field(Reader& r) {
        switch (r.field()) {
            case 2: key_type = r.i32(); break;
            case 3: r.append(integers); break;
            case 4: r.grow(strings) = std::string(r.bytes()); break;
            case 5: {
                Value v = sequence_message(r, "values", -1);
                values.assign(v.items().begin(), v.items().end());
                break;
            }
            default: r.skip();
        }
    }
    Value value() const {
        const bool text = key_type == static_cast<std::int32_t>(DType::string);
        const std::size_t n = text ? strings.size() : integers.size();
        if (n != values.size()) raise(ErrorCode::invalid_model, "a map has " + std::to_string(n) + " keys and " + std::to_string(values.size()) + " values");
        Shape shape{static_cast<std::int64_t>(n)};
        Tensor keys = text ? Tensor::from_strings(strings, shape) : Tensor::from(std::span<const std::int64_t>(integers), shape);
        Tensor all(n ? values[0].tensor().dtype() : DType::f32, shape);
        for (std::size_t i = 0; i < n; ++i) {
            const Tensor& t = values[i].tensor();
            if (t.count() != 1 || t.dtype() != all.dtype()) raise(ErrorCode::unsupported, "a map to something else than scalars of one type");
            if (t.dtype() != DType::string && dtype_bits(t.dtype()) < 8) raise(ErrorCode::unsupported, std::string("a map to ") + dtype_name(t.dtype()) + "; accepted: types of whole bytes");
            if (t.dtype() == DType::string) all.strings()[i] = t.strings()[0];
            else std::memcpy(static_cast<std::byte*>(all.raw()) + i * t.bytes(), t.raw(), t.bytes());
        }
        return Value::map(std::make_shared<const Tensor>(std::move(keys)), std::move(all));
    }
};
QUERN_INLINE Value map_message(Reader& r, const char* name, std::int64_t index) {
    parse::Level level(r);
    MapFields m;
    parse::message(r, name, index, [&](Reader& f) { m.field(f); });
    return m.value();
}
QUERN_INLINE void optional_field(Reader& r, Value& out) {
    switch (r.field()) {
        case 3: out = tensor_message(r, "tensor_value", -1); break;
        case 5: out = sequence_message(r, "sequence_value", -1); break;
        case 6: out = map_message(r, "map_value", -1); break;
        case 4: case 7: raise(ErrorCode::unsupported, r.place() + "an optional of something else than a tensor, a sequence or a map");
        default: r.skip();
    }
}
QUERN_INLINE void element(Reader& r, std::vector<Value>& out) {
    auto at = static_cast<std::int64_t>(out.size());
    switch (r.field()) {
        case 3: r.grow(out) = tensor_message(r, "tensor_values", at); break;
        case 5: r.grow(out) = sequence_message(r, "sequence_values", at); break;
        case 6: r.grow(out) = map_message(r, "map_values", at); break;
        case 7: {
            parse::Level level(r);
            Value v;
            parse::message(r, "optional_values", at, [&](Reader& f) { optional_field(f, v); });
            r.grow(out) = std::move(v);
            break;
        }
        case 4: raise(ErrorCode::unsupported, r.place() + "a sequence of sparse tensors");
        default: r.skip();
    }
}

}  // namespace tensors

QUERN_INLINE Tensor parse_tensor(std::span<const std::byte> bytes) {
    TensorProto t;
    tensors::whole(bytes, "tensor", [&](Reader& r) { parse::tensor(r, t); });
    return tensors::owned(t);
}
QUERN_INLINE Value parse_value(std::span<const std::byte> bytes, Kind kind) {
    if (kind == Kind::tensor) return parse_tensor(bytes);
    if (kind == Kind::sequence) {
        std::vector<Value> list;
        tensors::whole(bytes, "sequence", [&](Reader& r) { tensors::element(r, list); });
        return Value::sequence(std::move(list));
    }
    if (kind == Kind::map) {
        tensors::MapFields m;
        tensors::whole(bytes, "map", [&](Reader& r) { m.field(r); });
        return m.value();
    }
    Value v;
    tensors::whole(bytes, "optional", [&](Reader& r) { tensors::optional_field(r, v); });
    return v;
}

}  // namespace onnx
QUERN_END
