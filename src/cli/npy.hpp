// NumPy's .npy files to tensors and back (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
// Versions 1 to 3, little endian, C order. Types that NumPy lacks are written as the unsigned integers of
// their bits (bfloat16: uint16; float8: uint8), packed ones one element a byte, sign extended.
#pragma once
#include <quern/quern.hpp>

#include <bit>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace cli {
using quern::DType;
using quern::ErrorCode;
using quern::raise;
using quern::Shape;
using quern::Tensor;
using quern::Value;
static_assert(std::endian::native == std::endian::little, "npy.hpp reads and writes little endian only");

struct FileCloser {
    void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

inline File open_file(const std::string& path, const char* mode) {
    File f(std::fopen(path.c_str(), mode));
    if (!f) raise(ErrorCode::io, std::string("cannot ") + (*mode == 'r' ? "read '" : "write '") + path + "'");
    return f;
}
inline void write_bytes(std::FILE* f, const void* p, std::size_t n, const std::string& path) {
    if (n && std::fwrite(p, 1, n, f) != n) raise(ErrorCode::io, "cannot write '" + path + "': is the disk full?");
}
inline std::string read_file(const std::string& path) {
    File f = open_file(path, "rb");
    std::string bytes;
    char buffer[65536];
    for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, f.get())) > 0;) bytes.append(buffer, n);
    if (std::ferror(f.get())) raise(ErrorCode::io, "cannot read '" + path + "'");
    return bytes;
}

/// NumPy's name of a type without a counterpart of the same meaning is that of its bits.
inline std::string npy_descr(DType t) {
    switch (t) {
        case DType::f32: return "<f4";
        case DType::f64: return "<f8";
        case DType::f16: return "<f2";
        case DType::i64: return "<i8";
        case DType::i32: return "<i4";
        case DType::i16: return "<i2";
        case DType::u64: return "<u8";
        case DType::u32: return "<u4";
        case DType::u16: case DType::bf16: return "<u2";
        case DType::i8: case DType::i4: case DType::i2: return "|i1";
        case DType::boolean: return "|b1";
        case DType::c64: return "<c8";
        case DType::c128: return "<c16";
        default: return "|u1";
    }
}
/// True where npy_descr() stands for the bits and not for the values.
inline bool npy_raw(DType t) {
    return t == DType::bf16 || t == DType::f8e4m3fn || t == DType::f8e4m3fnuz || t == DType::f8e5m2 ||
           t == DType::f8e5m2fnuz || t == DType::f8e8m0 || t == DType::f4e2m1 || t == DType::f6e2m3 || t == DType::f6e3m2;
}

/// Element `i` of a packed type (under 8 bits), sign extended where the type is signed.
inline int packed_at(const Tensor& t, std::int64_t i) {
    int bits = quern::dtype_bits(t.dtype()), mask = (1 << bits) - 1, shift = static_cast<int>(i * bits % 8);
    auto p = static_cast<const std::uint8_t*>(t.raw()) + i * bits / 8;
    int v = ((*p | (shift + bits > 8 ? p[1] << 8 : 0)) >> shift) & mask;
    bool is_signed = t.dtype() == DType::i4 || t.dtype() == DType::i2;
    return is_signed && v >> (bits - 1) ? v - mask - 1 : v;
}
/// One byte an element to a packed type.
inline Tensor pack(DType t, const Tensor& bytes) {
    Tensor out(t, bytes.shape());
    int bits = quern::dtype_bits(t), mask = (1 << bits) - 1;
    auto from = static_cast<const std::uint8_t*>(bytes.raw());
    for (std::int64_t i = 0; i < bytes.count(); ++i) {
        int shift = static_cast<int>(i * bits % 8), v = (from[i] & mask) << shift;
        auto to = static_cast<std::uint8_t*>(out.raw()) + i * bits / 8;
        *to = static_cast<std::uint8_t>(*to | v);
        if (v > 255) to[1] = static_cast<std::uint8_t>(v >> 8);
    }
    return out;
}

namespace npy {
[[noreturn]] inline void bad(const std::string& path, const std::string& why) {
    raise(ErrorCode::invalid_argument, "'" + path + "': " + why);
}
inline void skip_space(std::string_view h, std::size_t& p) {
    while (p < h.size() && (h[p] == ' ' || h[p] == '\n')) ++p;
}
/// The text of the header's value after 'key':
inline std::string_view value_of(std::string_view header, std::string_view key, const std::string& path) {
    std::string quoted = "'" + std::string(key) + "':";
    std::size_t p = header.find(quoted);
    if (p == std::string_view::npos) bad(path, "the header has no " + quoted + " (is it an .npy file?)");
    p += quoted.size();
    skip_space(header, p);
    return header.substr(p);
}
inline Shape parse_shape(std::string_view v, const std::string& path) {
    Shape shape;
    std::size_t p = 1;
    if (v.empty() || v[0] != '(') bad(path, "the header's shape is not a tuple");
    for (;;) {
        skip_space(v, p);
        if (p < v.size() && v[p] == ')') return shape;
        std::int64_t d = 0;
        std::size_t digits = 0;
        for (; p < v.size() && v[p] >= '0' && v[p] <= '9' && digits < 18; ++p, ++digits) d = d * 10 + (v[p] - '0');
        if (!digits || shape.rank() >= 64) bad(path, "the header's shape is not a tuple of numbers");
        shape.push_back(d);
        skip_space(v, p);
        if (p < v.size() && v[p] == ',') ++p;
        else if (p >= v.size() || v[p] != ')') bad(path, "the header's shape does not end");
    }
}
struct Type {
    DType dtype = DType::undefined;
    std::int64_t width = 0;  ///< bytes of one element in the file
    char kind = 0;           ///< U and S are strings
};
inline Type parse_type(std::string_view v, const std::string& path) {
    if (v.empty() || v[0] != '\'') bad(path, "structured arrays are not accepted; give a plain dtype");
    std::string d(v.substr(1, v.find('\'', 1) == std::string_view::npos ? 0 : v.find('\'', 1) - 1));
    if (d.size() < 2) bad(path, "the header's descr is not a dtype");
    if (d == "|O" || d[1] == 'O') bad(path, "object arrays (pickles) are not accepted; save strings with dtype 'U'");
    if (d[0] == '>') bad(path, "big-endian data ('" + d + "') is not accepted; use a.astype(a.dtype.newbyteorder('<'))");
    std::int64_t width = 0;
    for (std::size_t i = 2; i < d.size(); ++i) {
        if (d[i] < '0' || d[i] > '9' || width > (1 << 24)) bad(path, "dtype '" + d + "' is not known");
        width = width * 10 + (d[i] - '0');
    }
    if (d[1] == 'U') return {DType::string, width * 4, 'U'};
    if (d[1] == 'S') return {DType::string, width, 'S'};
    for (DType t : {DType::f32, DType::f64, DType::f16, DType::i64, DType::i32, DType::i16, DType::i8, DType::u64,
                    DType::u32, DType::u16, DType::u8, DType::boolean, DType::c64, DType::c128})
        if (std::string_view(npy_descr(t)).substr(1) == std::string_view(d).substr(1)) return {t, width, d[1]};
    bad(path, "dtype '" + d + "' has no ONNX counterpart");
}
inline void append_utf8(std::string& s, std::uint32_t c) {
    auto put = [&](std::uint32_t b) { s += static_cast<char>(static_cast<unsigned char>(b)); };
    if (c < 0x80) put(c);
    else if (c < 0x800) put(0xC0 | c >> 6), put(0x80 | (c & 63));
    else if (c < 0x10000) put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
    else put(0xF0 | (c >> 18 & 7)), put(0x80 | (c >> 12 & 63)), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
}
/// Code points of UTF-8 text; a byte that is not UTF-8 becomes U+FFFD.
inline std::vector<std::uint32_t> utf32(std::string_view s) {
    std::vector<std::uint32_t> out;
    for (std::size_t i = 0; i < s.size();) {
        auto b = static_cast<unsigned char>(s[i]);
        std::size_t n = b < 0x80 ? 1 : b >> 5 == 6 ? 2 : b >> 4 == 14 ? 3 : b >> 3 == 30 ? 4 : 0;
        std::uint32_t c = n == 1 ? b : n == 2 ? b & 31u : n == 3 ? b & 15u : b & 7u;
        bool good = n > 0 && i + n <= s.size();
        for (std::size_t k = 1; good && k < n; ++k) {
            auto f = static_cast<unsigned char>(s[i + k]);
            good = f >> 6 == 2;
            c = c << 6 | (f & 63u);
        }
        out.push_back(good ? c : 0xFFFD);
        i += good ? n : 1;
    }
    return out;
}
inline void read_strings(Tensor& t, const Type& type, std::FILE* f, const std::string& path) {
    std::string cell(static_cast<std::size_t>(type.width), '\0');
    for (std::string& s : t.strings()) {
        if (type.width && std::fread(cell.data(), 1, cell.size(), f) != cell.size()) bad(path, "the file ends early");
        if (type.kind == 'S') {
            s = cell.substr(0, cell.find_last_not_of('\0') + 1);
            continue;
        }
        for (std::size_t i = 0; i + 4 <= cell.size(); i += 4) {
            std::uint32_t c;
            std::memcpy(&c, cell.data() + i, 4);
            if (c) append_utf8(s, c);
        }
    }
}
}  // namespace npy

/// Reads an .npy file. Raises io, or invalid_argument with what would be accepted. Memory is taken only
/// after the header was checked against the length of the file.
inline Tensor read_npy(const std::string& path) {
    File f = open_file(path, "rb");
    std::error_code ec;
    auto length = static_cast<std::int64_t>(std::filesystem::file_size(path, ec));
    if (ec) raise(ErrorCode::io, "cannot read '" + path + "'");
    unsigned char start[12] = {};
    if (std::fread(start, 1, 10, f.get()) != 10 || std::memcmp(start, "\x93NUMPY", 6) != 0)
        npy::bad(path, "not an .npy file (it does not begin with \\x93NUMPY)");
    if (start[6] < 1 || start[6] > 3) npy::bad(path, ".npy version " + std::to_string(start[6]) + "; 1 to 3 are accepted");
    std::int64_t size = start[8] | start[9] << 8, begin = 10;
    if (start[6] > 1) {
        if (std::fread(start + 10, 1, 2, f.get()) != 2) npy::bad(path, "the file ends early");
        size |= static_cast<std::int64_t>(start[10]) << 16 | static_cast<std::int64_t>(start[11]) << 24;
        begin = 12;
    }
    if (begin + size > length || size > 1 << 20) npy::bad(path, "the header is longer than the file or 1 MiB");
    std::string header(static_cast<std::size_t>(size), '\0');
    if (std::fread(header.data(), 1, header.size(), f.get()) != header.size()) npy::bad(path, "the file ends early");

    npy::Type type = npy::parse_type(npy::value_of(header, "descr", path), path);
    Shape shape = npy::parse_shape(npy::value_of(header, "shape", path), path);
    if (npy::value_of(header, "fortran_order", path).substr(0, 4) == "True" && shape.rank() > 1)
        npy::bad(path, "Fortran order is not accepted; save np.ascontiguousarray(a)");
    std::int64_t count = shape.count(), left = length - begin - size;
    if (type.width ? count > left / type.width : count > left + 1)
        npy::bad(path, "the header promises " + shape.to_string() + ", the file holds only " + std::to_string(left) + " bytes of data");
    Tensor t(type.dtype, shape);
    if (type.dtype == DType::string) npy::read_strings(t, type, f.get(), path);
    else if (std::fread(t.raw(), 1, t.bytes(), f.get()) != t.bytes()) npy::bad(path, "the file ends early");
    return t;
}

/// Writes an .npy file that numpy.load() reads.
inline void write_npy(const std::string& path, const Tensor& t) {
    std::string descr = npy_descr(t.dtype());
    std::vector<std::vector<std::uint32_t>> text;
    std::size_t widest = 1;
    if (t.dtype() == DType::string) {
        for (const std::string& s : t.strings()) {
            text.push_back(npy::utf32(s));
            widest = std::max(widest, text.back().size());
        }
        descr = "<U" + std::to_string(widest);
    }
    std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (";
    for (std::int64_t d : t.shape()) header += std::to_string(d) + ", ";
    header += "), }";
    header.append(63 - (10 + header.size()) % 64, ' ');
    header += '\n';
    File f = open_file(path, "wb");
    bool v2 = header.size() > 65535 - 64;
    if (v2) header.insert(header.size() - 1, 62, ' ');
    std::string start("\x93NUMPY", 6);
    start += static_cast<char>(v2 ? 2 : 1);
    start += '\0';
    for (int i = 0; i < (v2 ? 4 : 2); ++i) start += static_cast<char>(header.size() >> 8 * i & 255);
    write_bytes(f.get(), start.data(), start.size(), path);
    write_bytes(f.get(), header.data(), header.size(), path);
    if (t.dtype() == DType::string) {
        for (auto& s : text) {
            s.resize(widest);
            write_bytes(f.get(), s.data(), s.size() * 4, path);
        }
    } else if (int bits = quern::dtype_bits(t.dtype()); bits < 8) {
        std::string bytes;
        for (std::int64_t i = 0; i < t.count(); ++i) bytes += static_cast<char>(packed_at(t, i));
        write_bytes(f.get(), bytes.data(), bytes.size(), path);
    } else {
        write_bytes(f.get(), t.raw(), t.bytes(), path);
    }
    std::FILE* raw = f.release();
    if (std::fclose(raw) != 0) raise(ErrorCode::io, "cannot write '" + path + "': is the disk full?");
}
}  // namespace cli
