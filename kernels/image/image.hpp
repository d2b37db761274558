// Encoded images: what every decoder gives, and the simple formats (BMP, PBM, PGM, PPM).
//
// Bytes are hostile: a decoder reads none beyond them, and takes memory for no more pixels than so many bytes can hold.
#pragma once
#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "../kernel.hpp"

QUERN_BEGIN
namespace image {

using Bytes = std::span<const std::uint8_t>;
enum class Format : std::uint8_t { none, bmp, jpeg, png, pnm };
/// Size as the header tells it; width 0: the header is no header, or claims more than the bytes can hold.
struct Header {
    Format format = Format::none;
    std::int64_t width = 0, height = 0;
};
/// Rows of red, green and blue, 8 bits each; empty where decoding failed.
struct Pixels {
    std::int64_t width = 0, height = 0;
    std::vector<std::uint8_t> rgb;
    bool start(std::int64_t w, std::int64_t h) {
        width = w, height = h;
        rgb.assign(static_cast<std::size_t>(w * h * 3), 0);
        return true;
    }
    std::uint8_t* at(std::int64_t x, std::int64_t y) { return rgb.data() + (y * width + x) * 3; }
};

/// Numbers from bytes; beyond the end they are 0 and `good` is lost.
class Reader {
public:
    explicit Reader(Bytes b, std::size_t at = 0) : b_(b), at_(at) {}
    bool good = true;
    std::size_t at() const noexcept { return at_; }
    std::size_t left() const noexcept { return at_ < b_.size() ? b_.size() - at_ : 0; }
    std::uint32_t u8() {
        if (at_ >= b_.size()) { good = false; return 0; }
        return b_[at_++];
    }
    std::uint32_t be16() { std::uint32_t h = u8(); return h << 8 | u8(); }
    std::uint32_t be32() { std::uint32_t h = be16(); return h << 16 | be16(); }
    std::uint32_t le16() { std::uint32_t l = u8(); return l | u8() << 8; }
    std::uint32_t le32() { std::uint32_t l = le16(); return l | le16() << 16; }
    Bytes take(std::size_t n) {
        if (n > left()) { good = false; n = left(); }
        Bytes r = b_.subspan(at_, n);
        at_ += n;
        return r;
    }

private:
    Bytes b_;
    std::size_t at_;
};

/// Pixels that `bytes` may hold where the format packs at most `each` of them into one byte.
inline bool plausible(std::int64_t w, std::int64_t h, std::size_t bytes, std::int64_t each) {
    return w > 0 && h > 0 && w <= 1 << 20 && h <= 1 << 20 && w * h <= (static_cast<std::int64_t>(bytes) + 64) * each;
}

// ---- BMP: 1, 4, 8, 24 and 32 bits, not compressed ----
struct Bmp {
    std::int64_t width = 0, height = 0;
    bool top_down = false;
    std::uint32_t bits = 0, pixels_at = 0, palette_at = 0, colors = 0, compression = 0;
};
inline bool read_bmp(Bytes b, Bmp& m) {
    Reader r(b, 10);
    m.pixels_at = r.le32();
    const std::uint32_t header = r.le32();
    if (!r.good || header < 40) return false;
    m.width = static_cast<std::int32_t>(r.le32());
    m.height = static_cast<std::int32_t>(r.le32());
    m.top_down = m.height < 0;
    m.height = m.top_down ? -m.height : m.height;
    r.le16();
    m.bits = r.le16();
    m.compression = r.le32();
    r.take(12);
    m.colors = r.le32();
    m.palette_at = 14 + header;
    const bool known = m.bits == 1 || m.bits == 4 || m.bits == 8 || m.bits == 24 || m.bits == 32;
    if (!r.good || !known || (m.compression != 0 && !(m.compression == 3 && m.bits == 32)) || !plausible(m.width, m.height, b.size(), 8)) return false;
    const std::int64_t row = (m.width * m.bits + 31) / 32 * 4;
    return m.pixels_at <= b.size() && row * m.height <= static_cast<std::int64_t>(b.size() - m.pixels_at);
}
inline bool decode_bmp(Bytes b, Pixels& p) {
    Bmp m;
    if (!read_bmp(b, m)) return false;
    p.start(m.width, m.height);
    const std::int64_t row = (m.width * m.bits + 31) / 32 * 4;
    for (std::int64_t y = 0; y < m.height; ++y) {
        const std::uint8_t* s = b.data() + m.pixels_at + row * (m.top_down ? y : m.height - 1 - y);
        for (std::int64_t x = 0; x < m.width; ++x) {
            std::uint8_t* d = p.at(x, y);
            if (m.bits >= 24) {
                const std::uint8_t* c = s + x * (m.bits / 8);
                d[0] = c[2], d[1] = c[1], d[2] = c[0];
                continue;
            }
            const std::uint32_t per = 8 / m.bits, shift = (per - 1 - static_cast<std::uint32_t>(x) % per) * m.bits, index = s[x / per] >> shift & ((1u << m.bits) - 1);
            const std::size_t at = m.palette_at + index * std::size_t{4};
            if ((m.colors && index >= m.colors) || at + 3 > b.size()) continue;
            d[0] = b[at + 2], d[1] = b[at + 1], d[2] = b[at];
        }
    }
    return true;
}

// ---- PBM, PGM, PPM: P1 to P6 ----
struct Pnm { std::int64_t width = 0, height = 0, most = 1; std::uint32_t kind = 0; std::size_t data_at = 0; };
inline bool pnm_number(Reader& r, Bytes b, std::int64_t& v) {
    std::uint32_t c = r.u8();
    while (r.good && (std::isspace(static_cast<int>(c)) || c == '#')) {
        if (c == '#')
            while (r.good && c != '\n') c = r.u8();
        c = r.u8();
    }
    if (!r.good || c < '0' || c > '9') return false;
    for (v = 0; c >= '0' && c <= '9'; c = r.u8()) {
        v = v * 10 + (c - '0');
        if (v > 1 << 24) return false;
        if (r.at() >= b.size()) return true;
    }
    return true;
}
inline bool read_pnm(Bytes b, Pnm& m) {
    Reader r(b, 1);
    m.kind = r.u8() - '0';
    if (m.kind < 1 || m.kind > 6 || !pnm_number(r, b, m.width) || !pnm_number(r, b, m.height)) return false;
    if (m.kind % 3 != 1 && !pnm_number(r, b, m.most)) return false;
    m.data_at = r.at();
    if (m.most < 1 || m.most > 65535 || !plausible(m.width, m.height, b.size(), 8)) return false;
    const std::int64_t samples = m.width * m.height * (m.kind % 3 == 0 ? 3 : 1), wide = m.most > 255 ? 2 : 1;
    const std::int64_t need = m.kind == 4 ? (m.width + 7) / 8 * m.height : m.kind > 4 ? samples * wide : samples;
    return need <= static_cast<std::int64_t>(b.size() - m.data_at);
}
inline bool decode_pnm(Bytes b, Pixels& p) {
    Pnm m;
    if (!read_pnm(b, m)) return false;
    p.start(m.width, m.height);
    Reader r(b, m.data_at);
    const int channels = m.kind % 3 == 0 ? 3 : 1;
    for (std::int64_t y = 0; y < m.height; ++y) {
        std::uint32_t byte = 0;
        for (std::int64_t x = 0; x < m.width; ++x)
            for (int c = 0; c < channels; ++c) {
                std::int64_t v = 0;
                if (m.kind == 4) {
                    if (x % 8 == 0) byte = r.u8();
                    v = byte >> (7 - x % 8) & 1;
                } else if (m.kind == 1) {  // digits need no space between them
                    std::uint32_t d = r.u8();
                    while (r.good && d != '0' && d != '1') d = r.u8();
                    v = d == '1';
                } else if (m.kind < 4) {
                    if (!pnm_number(r, b, v)) return false;
                } else {
                    v = m.most > 255 ? r.be16() : r.u8();
                }
                if (m.kind % 3 == 1) v = 1 - v;  // 1 is black
                const auto s = static_cast<std::uint8_t>((std::min(v, m.most) * 255 + m.most / 2) / m.most);
                std::uint8_t* d = p.at(x, y);
                if (channels == 1) d[0] = d[1] = d[2] = s;
                else d[c] = s;
            }
    }
    return r.good;
}

}  // namespace image
QUERN_END
