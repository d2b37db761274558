// The protobuf wire format (https://protobuf.dev/programming-guides/encoding/): a reader that checks
// every bound, and a writer.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../error.hpp"

QUERN_BEGIN
namespace onnx {

static_assert(std::endian::native == std::endian::little, "protobuf's and ONNX's numbers are read in place");

enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, group = 3, end_group = 4, fixed32 = 5 };

/// Where in the message tree a reader is; lives on the stack of the functions that descend.
struct Scope {
    const Scope* up = nullptr;
    const char* name = "";
    std::int64_t index = -1;  ///< in a repeated field; -1: none

    std::string path() const {
        std::string s = up ? up->path() : std::string();
        if (!*name) return s;
        if (!s.empty()) s += '.';
        s += name;
        if (index >= 0) s += '[' + std::to_string(index) + ']';
        return s;
    }
};

/// What all readers of one file share.
struct WireContext {
    const char* origin = nullptr;  ///< byte 0, for offsets in messages
    std::size_t memory_left = 0;   ///< for decoded structs
    int depth_left = 64;
};

/// Reads the fields of one message: while (r.next()) switch (r.field()) ...
/// Every field must be consumed by one of the value functions or skip(). Views point into the bytes.
class Reader {
public:
    Reader(std::string_view bytes, WireContext& context, const Scope& scope) noexcept
        : context_(context), scope_(scope), p_(bytes.data()), end_(bytes.data() + bytes.size()) {}

    /// Moves to the next field; false at the end.
    bool next() {
        if (p_ == end_) return false;
        start_ = p_;
        std::uint64_t tag = raw_varint("a field's tag");
        if (tag > 0xffffffffu || tag < 8) fail("field number " + std::to_string(tag >> 3) + " is not possible");
        field_ = static_cast<std::uint32_t>(tag >> 3);
        auto w = tag & 7;
        if (w == 3 || w == 4) fail("groups (wire type " + std::to_string(w) + ") do not occur in ONNX");
        if (w > 5) fail("wire type " + std::to_string(w) + " does not exist");
        wire_ = static_cast<Wire>(w);
        return true;
    }
    std::uint32_t field() const noexcept { return field_; }
    Wire wire() const noexcept { return wire_; }
    /// The bytes of the current field, its tag included, once it is consumed.
    std::string_view consumed() const noexcept { return {start_, static_cast<std::size_t>(p_ - start_)}; }
    const Scope& scope() const noexcept { return scope_; }
    WireContext& context() const noexcept { return context_; }

    std::uint64_t varint() {
        expect(Wire::varint);
        return raw_varint("a number");
    }
    std::int64_t i64() { return static_cast<std::int64_t>(varint()); }
    /// Negative int32 are sent as ten bytes; the upper half is dropped as protobuf does.
    std::int32_t i32() { return static_cast<std::int32_t>(varint()); }
    float f32() {
        expect(Wire::fixed32);
        return fixed<float>();
    }
    double f64() {
        expect(Wire::fixed64);
        return fixed<double>();
    }
    std::string_view bytes() {
        expect(Wire::bytes);
        return raw_bytes();
    }
    void skip() {
        switch (wire_) {
            case Wire::varint: raw_varint("a number"); break;
            case Wire::fixed64: fixed<std::uint64_t>(); break;
            case Wire::fixed32: fixed<std::uint32_t>(); break;
            default: raw_bytes(); break;
        }
    }
    /// A repeated number, packed or not: calls each(value).
    template <class F>
    void varints(F&& each) {
        if (wire_ != Wire::bytes) return each(varint());
        std::string_view b = raw_bytes();
        Reader sub(b, context_, scope_);
        while (sub.p_ != sub.end_) each(sub.raw_varint("a number"));
    }
    template <class T, class F>  // T: float, double
    void fixeds(F&& each) {
        constexpr Wire w = sizeof(T) == 4 ? Wire::fixed32 : Wire::fixed64;
        if (wire_ != Wire::bytes) {
            expect(w);
            return each(fixed<T>());
        }
        std::string_view b = raw_bytes();
        if (b.size() % sizeof(T))
            fail(std::to_string(b.size()) + " bytes of packed " + std::to_string(sizeof(T)) + "-byte numbers");
        Reader sub(b, context_, scope_);
        while (sub.p_ != sub.end_) each(sub.template fixed<T>());
    }
    void append(std::vector<std::int64_t>& to) {
        if (wire_ == Wire::bytes) to.reserve(to.size() + charge(packed_varints() * sizeof(std::int64_t)) / sizeof(std::int64_t));
        else charge(sizeof(std::int64_t));
        varints([&](std::uint64_t v) { to.push_back(static_cast<std::int64_t>(v)); });
    }
    void append(std::vector<float>& to) {
        fixeds<float>([&](float v) { to.push_back(v); });
    }
    /// A new element of a repeated message or string, its memory accounted for.
    template <class T>
    T& grow(std::vector<T>& v) {
        charge(sizeof(T));
        return v.emplace_back();
    }
    std::size_t charge(std::size_t n) {
        if (n > context_.memory_left)
            raise(ErrorCode::out_of_memory, place() + "reading this model takes more memory than its size justifies, or than the limit allows");
        context_.memory_left -= n;
        return n;
    }
    [[noreturn]] void fail(const std::string& what) const { raise(ErrorCode::invalid_model, place() + what); }
    /// "graph.node[3] at byte 120: "
    std::string place() const {
        std::string s = scope_.path();
        if (start_) s += (s.empty() ? "" : ", ") + ("field " + std::to_string(field_));
        return s + " at byte " + std::to_string(p_ - context_.origin) + ": ";
    }

private:
    void expect(Wire w) const {
        if (wire_ != w)
            fail("wire type " + std::to_string(static_cast<int>(wire_)) + " where " +
                 std::to_string(static_cast<int>(w)) + " is expected");
    }
    std::size_t left() const noexcept { return static_cast<std::size_t>(end_ - p_); }
    std::uint64_t raw_varint(const char* what) {
        std::uint64_t v = 0;
        for (int shift = 0;; shift += 7) {
            if (p_ == end_) fail(std::string("the message ends inside ") + what);
            auto b = static_cast<unsigned char>(*p_++);
            if (shift == 63 && b > 1) fail(std::string(what) + " has more than 64 bits");
            v |= static_cast<std::uint64_t>(b & 0x7f) << shift;
            if (b < 0x80) return v;
        }
    }
    template <class T>
    T fixed() {
        if (left() < sizeof(T))
            fail("the message ends inside a number: " + std::to_string(left()) + " of " + std::to_string(sizeof(T)) + " bytes");
        T v;
        std::memcpy(&v, p_, sizeof(T));
        p_ += sizeof(T);
        return v;
    }
    std::string_view raw_bytes() {
        std::uint64_t n = raw_varint("a length");
        if (n > left())
            fail("a length of " + std::to_string(n) + " bytes where " + std::to_string(left()) + " are left");
        std::string_view b(p_, static_cast<std::size_t>(n));
        p_ += n;
        return b;
    }
    std::size_t packed_varints() const {
        Reader peek(*this);
        std::size_t n = 0;
        for (char c : peek.raw_bytes()) n += static_cast<unsigned char>(c) < 0x80;
        return n;
    }

    WireContext& context_;
    const Scope& scope_;
    const char* p_;
    const char* end_;
    const char* start_ = nullptr;
    std::uint32_t field_ = 0;
    Wire wire_ = Wire::varint;
};

/// Bytes that a varint takes.
constexpr std::size_t varint_size(std::uint64_t v) noexcept {
    std::size_t n = 1;
    while (v >= 0x80) v >>= 7, ++n;
    return n;
}

/// Appends fields to a growing string. Nested messages: begin(), the fields, end(), or nest(); lengths are
/// put in when they are known, in the shortest form.
class Writer {
public:
    void varint(std::uint32_t field, std::uint64_t v) {
        tag(field, Wire::varint);
        raw_varint(v);
    }
    void i64(std::uint32_t field, std::int64_t v) { varint(field, static_cast<std::uint64_t>(v)); }
    void f32(std::uint32_t field, float v) {
        tag(field, Wire::fixed32);
        raw(&v, sizeof v);
    }
    void bytes(std::uint32_t field, std::string_view b) {
        tag(field, Wire::bytes);
        raw_varint(b.size());
        out_.append(b);
    }
    /// Left out where empty: protobuf's default.
    void text(std::uint32_t field, std::string_view b) {
        if (!b.empty()) bytes(field, b);
    }
    /// Unpacked unless `packed`: ONNX declares dims and attribute lists unpacked, typed data packed.
    void i64s(std::uint32_t field, std::span<const std::int64_t> v, bool packed = false) {
        if (!packed) {
            for (auto x : v) i64(field, x);
            return;
        }
        std::size_t n = 0;
        for (auto x : v) n += varint_size(static_cast<std::uint64_t>(x));
        if (!n) return;
        tag(field, Wire::bytes);
        raw_varint(n);
        for (auto x : v) raw_varint(static_cast<std::uint64_t>(x));
    }
    void f32s(std::uint32_t field, std::span<const float> v) {
        for (float x : v) f32(field, x);
    }
    void begin(std::uint32_t field) {
        tag(field, Wire::bytes);
        open_.push_back(out_.size());
    }
    void end() {
        if (open_.empty()) raise(ErrorCode::internal, "onnx::Writer::end without begin");
        std::size_t at = open_.back(), n = out_.size() - at;
        open_.pop_back();
        char len[10];
        std::size_t k = 0;
        for (std::uint64_t v = n;; v >>= 7) {
            len[k++] = static_cast<char>((v & 0x7f) | (v >= 0x80 ? 0x80 : 0));
            if (v < 0x80) break;
        }
        out_.insert(at, len, k);
    }
    /// A nested message: its fields are what `fill` writes.
    template <class F>
    void nest(std::uint32_t field, F&& fill) {
        begin(field);
        fill();
        end();
    }

    /// Whole fields, as they are.
    void append(std::string_view fields) { out_.append(fields); }

    std::size_t size() const noexcept { return out_.size(); }
    const std::string& str() const noexcept { return out_; }
    std::string take() noexcept { return std::move(out_); }

private:
    void tag(std::uint32_t field, Wire w) { raw_varint(std::uint64_t{field} << 3 | static_cast<unsigned>(w)); }
    void raw_varint(std::uint64_t v) {
        for (; v >= 0x80; v >>= 7) out_ += static_cast<char>(v | 0x80);
        out_ += static_cast<char>(v);
    }
    void raw(const void* p, std::size_t n) { out_.append(static_cast<const char*>(p), n); }

    std::string out_;
    std::vector<std::size_t> open_;
};

}  // namespace onnx
QUERN_END
