// PNG (ISO/IEC 15948) and the deflate streams in it (RFC 1951). Checksums are not looked at; alpha is dropped.
#pragma once
#include "image.hpp"

QUERN_BEGIN
namespace image {

class Inflate {
public:
    /// Exactly `size` bytes from a zlib stream; false where it gives fewer.
    static bool run(Bytes in, std::size_t size, std::vector<std::uint8_t>& out) {
        Inflate z(in);
        out.clear();
        out.reserve(size);
        return in.size() >= 2 && (in[0] & 15) == 8 && !(in[1] & 32) && z.blocks(out, size) && out.size() == size;
    }

private:
    static constexpr int longest = 15;
    struct Code {  // canonical: counts of each length, symbols in order
        std::array<std::uint16_t, longest + 1> count{};
        std::array<std::uint16_t, 288> symbol{};
        bool set(const std::uint8_t* lengths, int n) {
            count.fill(0);
            for (int i = 0; i < n; ++i) ++count[lengths[i]];
            count[0] = 0;
            int left = 1;
            std::array<std::uint16_t, longest + 2> at{};
            for (std::size_t l = 1; l <= longest; ++l) {
                left = 2 * left - count[l];
                if (left < 0) return false;  // more codes than there is room for
                at[l + 1] = static_cast<std::uint16_t>(at[l] + count[l]);
            }
            for (int i = 0; i < n; ++i)
                if (lengths[i]) symbol[at[lengths[i]]++] = static_cast<std::uint16_t>(i);
            return true;
        }
    };
    explicit Inflate(Bytes in) : in_(in) {}
    int bit() {
        if (!have_) {
            if (at_ >= in_.size()) { bad_ = true; return 0; }
            hold_ = in_[at_++];
            have_ = 8;
        }
        const int b = hold_ & 1;
        hold_ >>= 1;
        --have_;
        return b;
    }
    int bits(int n) {
        int v = 0;
        for (int i = 0; i < n; ++i) v |= bit() << i;
        return v;
    }
    int decode(const Code& c) {
        int code = 0, first = 0, index = 0;
        for (std::size_t l = 1; l <= longest; ++l) {
            code |= bit();
            const int n = c.count[l];
            if (code - n < first) return c.symbol[static_cast<std::size_t>(index + code - first)];
            index += n;
            first = (first + n) << 1;
            code <<= 1;
        }
        bad_ = true;
        return 0;
    }
    bool blocks(std::vector<std::uint8_t>& out, std::size_t most) {
        at_ = 2;
        for (bool last = false; !last && !bad_ && out.size() < most;) {
            last = bit();
            const int kind = bits(2);
            if (kind == 0) {
                have_ = 0;
                if (at_ + 4 > in_.size()) return false;
                std::size_t n = static_cast<std::size_t>(in_[at_] | in_[at_ + 1] << 8);
                at_ += 4;
                if (n > in_.size() - at_) return false;
                n = std::min(n, most - out.size());
                out.insert(out.end(), in_.begin() + static_cast<std::ptrdiff_t>(at_), in_.begin() + static_cast<std::ptrdiff_t>(at_ + n));
                at_ += n;
            } else if (kind == 3 || !(kind == 1 ? fixed() : dynamic()) || !symbols(out, most)) {
                return false;
            }
        }
        return !bad_;
    }
    bool fixed() {
        std::uint8_t l[288];
        for (int i = 0; i < 288; ++i) l[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
        std::uint8_t d[30];
        std::fill_n(d, 30, std::uint8_t{5});
        return literals_.set(l, 288) && distances_.set(d, 30);
    }
    bool dynamic() {
        const int n = bits(5) + 257, m = bits(5) + 1, k = bits(4) + 4;
        if (n > 286 || m > 30) return false;
        static constexpr std::uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
        std::uint8_t l[320] = {};
        for (int i = 0; i < k; ++i) l[order[i]] = static_cast<std::uint8_t>(bits(3));
        Code lengths;
        if (!lengths.set(l, 19)) return false;
        std::fill_n(l, 320, std::uint8_t{0});
        for (int i = 0; i < n + m;) {
            const int s = decode(lengths);
            if (bad_) return false;
            if (s < 16) { l[i++] = static_cast<std::uint8_t>(s); continue; }
            if (s == 16 && i == 0) return false;
            const std::uint8_t v = s == 16 ? l[i - 1] : std::uint8_t{0};
            int times = s == 16 ? 3 + bits(2) : s == 17 ? 3 + bits(3) : 11 + bits(7);
            if (i + times > n + m) return false;
            while (times--) l[i++] = v;
        }
        return literals_.set(l, n) && distances_.set(l + n, m);
    }
    bool symbols(std::vector<std::uint8_t>& out, std::size_t most) {
        static constexpr std::uint16_t base[29] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
        static constexpr std::uint8_t extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
        while (!bad_ && out.size() < most) {
            int s = decode(literals_);
            if (bad_) return false;
            if (s < 256) { out.push_back(static_cast<std::uint8_t>(s)); continue; }
            if (s == 256) return true;
            s -= 257;
            if (s >= 29) return false;
            std::size_t n = static_cast<std::size_t>(base[s] + bits(extra[s]));
            const int d = decode(distances_);
            if (bad_ || d >= 30) return false;
            const int more = d < 4 ? 0 : d / 2 - 1;
            const std::size_t back = d < 4 ? static_cast<std::size_t>(d) + 1 : static_cast<std::size_t>(((2 + (d & 1)) << more) + 1 + bits(more));
            if (back > out.size()) return false;
            for (n = std::min(n, most - out.size()); n; --n) out.push_back(out[out.size() - back]);
        }
        return !bad_;
    }
    Bytes in_;
    std::size_t at_ = 0;
    int hold_ = 0, have_ = 0;
    bool bad_ = false;
    Code literals_, distances_;
};

struct Png {
    std::int64_t width = 0, height = 0;
    std::uint32_t depth = 0, color = 0, interlaced = 0;
    std::int64_t channels() const { return color == 2 ? 3 : color == 4 ? 2 : color == 6 ? 4 : 1; }
    std::size_t row_bytes(std::int64_t w) const { return static_cast<std::size_t>((w * channels() * depth + 7) / 8); }
};
inline bool read_png(Bytes b, Png& m) {
    Reader r(b, 8);
    if (r.be32() != 13 || r.be32() != 0x49484452) return false;
    m.width = r.be32();
    m.height = r.be32();
    m.depth = r.u8();
    m.color = r.u8();
    const std::uint32_t method = r.u8() | r.u8();
    m.interlaced = r.u8();
    const bool depth = m.depth == 8 || (m.depth == 16 && m.color != 3) || ((m.depth == 1 || m.depth == 2 || m.depth == 4) && (m.color == 0 || m.color == 3));
    const bool color = m.color == 0 || m.color == 2 || m.color == 3 || m.color == 4 || m.color == 6;
    return r.good && depth && color && method == 0 && m.interlaced <= 1 && plausible(m.width, m.height, b.size(), 1032 * 8);  // deflate's best, one bit a pixel
}
/// Takes the filters off `rows` rows of `n` bytes that each begin with their filter's number; `bpp` bytes a pixel.
inline bool unfilter(std::uint8_t* p, std::int64_t rows, std::size_t n, std::size_t bpp) {
    const std::uint8_t* up = nullptr;
    for (std::int64_t y = 0; y < rows; ++y, up = p + 1, p += n + 1) {
        std::uint8_t* d = p + 1;
        if (*p > 4) return false;
        for (std::size_t i = 0; i < n; ++i) {
            const int a = i >= bpp ? d[i - bpp] : 0, b = up ? up[i] : 0, c = up && i >= bpp ? up[i - bpp] : 0;
            int add = 0;
            if (*p == 1) add = a;
            else if (*p == 2) add = b;
            else if (*p == 3) add = (a + b) / 2;
            else if (*p == 4) {
                const int pa = std::abs(b - c), pb = std::abs(a - c), pc = std::abs(a + b - 2 * c);
                add = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
            }
            d[i] = static_cast<std::uint8_t>(d[i] + add);
        }
    }
    return true;
}
inline bool decode_png(Bytes b, Pixels& p) {
    Png m;
    if (!read_png(b, m)) return false;
    std::vector<std::uint8_t> packed, raw;
    Bytes palette;
    for (Reader r(b, 8); r.good && r.left() >= 12;) {
        const std::uint32_t n = r.be32(), kind = r.be32();
        Bytes data = r.take(n);
        r.be32();
        if (kind == 0x504c5445) palette = data;
        if (kind == 0x49444154) packed.insert(packed.end(), data.begin(), data.end());
        if (kind == 0x49454e44) break;
    }
    struct Pass { std::int64_t x, y, dx, dy; };
    constexpr Pass whole[] = {{0, 0, 1, 1}}, adam7[] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    std::span<const Pass> passes = whole;
    if (m.interlaced) passes = adam7;
    auto columns = [&](const Pass& q) { return (m.width - q.x + q.dx - 1) / q.dx; };
    auto lines = [&](const Pass& q) { return (m.height - q.y + q.dy - 1) / q.dy; };
    std::size_t total = 0;
    for (auto& q : passes)
        if (columns(q) > 0 && lines(q) > 0) total += (m.row_bytes(columns(q)) + 1) * static_cast<std::size_t>(lines(q));
    if (total > (packed.size() + 64) * 1040 || !Inflate::run(packed, total, raw)) return false;
    p.start(m.width, m.height);
    std::uint8_t* at = raw.data();
    const std::size_t bpp = std::max<std::size_t>(1, static_cast<std::size_t>(m.channels()) * m.depth / 8);
    for (auto& q : passes) {
        if (columns(q) <= 0 || lines(q) <= 0) continue;
        const std::size_t n = m.row_bytes(columns(q));
        if (!unfilter(at, lines(q), n, bpp)) return false;
        for (std::int64_t y = 0; y < lines(q); ++y, at += n + 1)
            for (std::int64_t x = 0; x < columns(q); ++x) {
                std::uint8_t* d = p.at(q.x + x * q.dx, q.y + y * q.dy);
                auto sample = [&](std::int64_t k) -> std::uint32_t {
                    const std::int64_t bit = k * m.depth;
                    if (m.depth >= 8) return at[1 + bit / 8];  // of 16 bits the upper 8
                    return at[1 + bit / 8] >> (8 - m.depth - bit % 8) & ((1u << m.depth) - 1);
                };
                if (m.color == 3) {
                    const std::size_t i = sample(x) * std::size_t{3};
                    if (i + 3 > palette.size()) return false;
                    std::copy_n(palette.data() + i, 3, d);
                } else if (m.color & 2) {
                    for (int c = 0; c < 3; ++c) d[c] = static_cast<std::uint8_t>(sample(x * m.channels() + c));
                } else {
                    const std::uint32_t v = sample(x * m.channels());
                    d[0] = d[1] = d[2] = static_cast<std::uint8_t>(m.depth < 8 ? v * (255 / ((1u << m.depth) - 1)) : v);
                }
            }
    }
    return true;
}

}  // namespace image
QUERN_END
