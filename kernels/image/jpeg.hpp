// JPEG (ITU-T T.81): baseline and progressive, 8 bits, grey or three colours. Inverse DCT, interpolation of the chroma and conversion of colours are
// libjpeg's integer ones ("islow", "fancy upsampling"), so that pixels come out the same as from it.
#pragma once
#include "image.hpp"

QUERN_BEGIN
namespace image {

class Jpeg {
public:
    explicit Jpeg(Bytes b) : r_(b), size_(b.size()) {}
    /// Up to the frame's header.
    bool header(std::int64_t& w, std::int64_t& h) {
        if (!segments(true)) return false;
        w = width_, h = height_;
        return true;
    }
    /// Data that end too soon leave the rest grey, as other decoders do.
    bool decode(Pixels& p) {
        if (!segments(false) || !scanned_) return false;
        for (auto& c : components_) inverse(c);
        p.start(width_, height_);
        colors(p);
        return true;
    }

private:
    struct Table {  // lookup of Huffman codes by length
        std::array<std::int32_t, 18> most{};   // largest code of each length, aligned to 16 bits; -1 never
        std::array<std::int32_t, 17> offset{};
        std::array<std::uint8_t, 256> value{};
        bool set = false;
    };
    struct Component {
        std::uint32_t id = 0, h = 1, v = 1, quant = 0, dc = 0, ac = 0;
        std::int64_t across = 0, down = 0;  ///< blocks that the image needs
        std::int64_t stride = 0, rows = 0;  ///< blocks that whole units of the scan need
        std::int64_t width = 0, height = 0; ///< samples
        int last = 0;
        std::vector<std::int16_t> coefficients;
        std::vector<std::uint8_t> samples;  ///< stride * 8 wide
        std::int16_t* block(std::int64_t x, std::int64_t y) { return coefficients.data() + (y * stride + x) * 64; }
    };
    static constexpr std::uint8_t zigzag[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                                35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

    bool segments(bool header_only) {
        if (r_.be16() != 0xffd8) return false;
        for (;;) {
            std::uint32_t m = r_.u8();
            while (r_.good && m != 0xff) m = r_.u8();
            while (r_.good && m == 0xff) m = r_.u8();
            if (!r_.good || m == 0xd9) return !components_.empty() && !header_only;
            if (m == 0 || m == 1 || (m >= 0xd0 && m <= 0xd8)) continue;
            const std::uint32_t n = r_.be16();
            if (n < 2) return false;
            Bytes data = r_.take(n - 2);
            if (!r_.good) return !components_.empty() && !header_only;
            Reader s(data);
            if (m == 0xdb && !quantization(s)) return false;
            if (m == 0xc4 && !huffman(s)) return false;
            if (m == 0xdd) restart_ = s.be16();
            if (m == 0xee && data.size() >= 12 && std::memcmp(data.data(), "Adobe", 5) == 0) adobe_ = data[11];
            if (m >= 0xc0 && m <= 0xcf && m != 0xc4 && m != 0xc8 && m != 0xcc) {
                if (m > 0xc2 || !frame(s)) return false;  // lossless, hierarchical and arithmetic ones
                progressive_ = m == 0xc2;
                if (header_only) return true;
                if (!memory()) return false;
            }
            if (m == 0xda && (header_only || !scan(s))) return false;
        }
    }
    bool quantization(Reader& s) {
        while (s.left()) {
            const std::uint32_t t = s.u8();
            if ((t & 15) > 3 || t >> 4 > 1) return false;
            for (int i = 0; i < 64; ++i) quant_[t & 15][zigzag[i]] = static_cast<std::uint16_t>(t >> 4 ? s.be16() : s.u8());
        }
        return s.good;
    }
    bool huffman(Reader& s) {
        while (s.left()) {
            const std::uint32_t t = s.u8();
            if ((t & 15) > 3 || t >> 4 > 1) return false;
            Table& h = tables_[t >> 4][t & 15];
            std::array<std::uint32_t, 17> count{};
            std::uint32_t total = 0;
            for (std::size_t l = 1; l <= 16; ++l) total += count[l] = s.u8();
            if (total > 256) return false;
            for (std::uint32_t i = 0; i < total; ++i) h.value[i] = static_cast<std::uint8_t>(s.u8());
            std::int32_t code = 0, index = 0;
            for (std::size_t l = 1; l <= 16; ++l) {
                h.offset[l] = index - code;
                index += static_cast<std::int32_t>(count[l]);
                code += static_cast<std::int32_t>(count[l]);
                if (code > 1 << l) return false;
                h.most[l] = count[l] ? code - 1 : -1;
                code <<= 1;
            }
            h.set = true;
        }
        return s.good;
    }
    bool frame(Reader& s) {
        if (!components_.empty() || s.u8() != 8) return false;
        height_ = s.be16();
        width_ = s.be16();
        const std::uint32_t n = s.u8();
        if ((n != 1 && n != 3) || !plausible(width_, height_, size_, 1024)) return false;
        components_.resize(n);
        for (auto& c : components_) {
            c.id = s.u8();
            const std::uint32_t hv = s.u8();
            c.h = hv >> 4, c.v = hv & 15, c.quant = s.u8();
            if (c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 || c.quant > 3) return false;
            h_ = std::max(h_, c.h), v_ = std::max(v_, c.v);
        }
        units_x_ = (width_ + 8 * h_ - 1) / (8 * h_), units_y_ = (height_ + 8 * v_ - 1) / (8 * v_);
        for (auto& c : components_) {
            if (h_ % c.h || v_ % c.v) return false;
            c.width = (width_ * c.h + h_ - 1) / h_, c.height = (height_ * c.v + v_ - 1) / v_;
            c.across = (c.width + 7) / 8, c.down = (c.height + 7) / 8;
            c.stride = units_x_ * c.h, c.rows = units_y_ * c.v;
        }
        return s.good;
    }
    bool memory() {
        for (auto& c : components_) c.coefficients.assign(static_cast<std::size_t>(c.stride * c.rows * 64), 0);
        return true;
    }

    // ---- bits of a scan ----
    int bit() {
        if (!have_) {
            std::uint32_t b = ended_ ? 0 : r_.u8();
            if (b == 0xff && !ended_) {
                Reader ahead = r_;
                const std::uint32_t next = ahead.u8();
                if (next == 0) r_ = ahead;
                else ended_ = true, b = 0;  // a marker: zeros from here on
            }
            if (!r_.good) ended_ = true, b = 0;
            hold_ = b, have_ = 8;
        }
        return static_cast<int>(hold_ >> --have_ & 1u);
    }
    int bits(int n) {
        int v = 0;
        while (n--) v = v << 1 | bit();
        return v;
    }
    /// A signed number of n bits.
    int extended(int n) {
        if (!n) return 0;
        const int v = bits(n);
        return v < 1 << (n - 1) ? v - (1 << n) + 1 : v;
    }
    int symbol(const Table& h) {
        std::int32_t code = 0;
        for (std::size_t l = 1; l <= 16; ++l) {
            code = code << 1 | bit();
            if (code <= h.most[l]) return h.value[static_cast<std::size_t>((code + h.offset[l]) & 255)];
        }
        return 0;
    }
    struct Scan { int first, last, high, low; };
    bool scan(Reader& s) {
        const std::uint32_t n = s.u8();
        if (components_.empty() || n < 1 || n > components_.size()) return false;
        std::vector<Component*> parts;
        for (std::uint32_t i = 0; i < n; ++i) {
            const std::uint32_t id = s.u8(), t = s.u8();
            auto c = std::find_if(components_.begin(), components_.end(), [&](auto& x) { return x.id == id; });
            if (c == components_.end() || (t >> 4) > 3 || (t & 15) > 3) return false;
            c->dc = t >> 4, c->ac = t & 15;
            parts.push_back(&*c);
        }
        Scan q{static_cast<int>(s.u8()), static_cast<int>(s.u8()), 0, 0};
        const std::uint32_t approximation = s.u8();
        q.high = static_cast<int>(approximation >> 4), q.low = static_cast<int>(approximation & 15);
        if (!progressive_) q = {0, 63, 0, 0};
        if (!s.good || q.first > q.last || q.last > 63 || q.low > 13 || (progressive_ && q.first == 0 && q.last != 0) || (q.first > 0 && n > 1)) return false;
        for (auto* c : parts)
            if ((q.first == 0 && q.high == 0 && !tables_[0][c->dc].set) || (q.last > 0 && !tables_[1][c->ac].set)) return false;
        have_ = 0, ended_ = false, run_ = 0;
        for (auto* c : parts) c->last = 0;
        scanned_ = true;
        const bool alone = n == 1;
        const std::int64_t w = alone ? parts[0]->across : units_x_, h = alone ? parts[0]->down : units_y_;
        std::int64_t left = restart_ ? restart_ : -1;
        for (std::int64_t u = 0; u < w * h && !(ended_ && !restart_); ++u) {
            if (left == 0) {
                if (!next_interval()) return true;
                for (auto* c : parts) c->last = 0;
                left = restart_;
            }
            --left;
            // Intervals whose data are not there: many scans of few bytes each must not take their time for every block.
            if (ended_ && ++idle_ > 16 * units_x_ * units_y_ + 65536) return true;
            const std::int64_t x = u % w, y = u / w;
            if (alone) {
                block(*parts[0], parts[0]->block(x, y), q);
                continue;
            }
            for (auto* c : parts)
                for (std::int64_t j = 0; j < c->v; ++j)
                    for (std::int64_t i = 0; i < c->h; ++i) block(*c, c->block(x * c->h + i, y * c->v + j), q);
        }
        return true;
    }
    /// To after the next restart marker; false where another marker or the end comes first.
    bool next_interval() {
        have_ = 0, ended_ = false, run_ = 0;
        for (;;) {
            Reader before = r_;
            if (r_.u8() != 0xff) {
                if (!r_.good) return false;
                continue;
            }
            const std::uint32_t m = r_.u8();
            if (m >= 0xd0 && m <= 0xd7) return true;
            if (m == 0xff) r_ = before, r_.u8();
            else if (m != 0) { r_ = before; return false; }
            if (!r_.good) return false;
        }
    }
    void block(Component& c, std::int16_t* b, const Scan& q) {
        int k = q.first;
        if (k == 0) {
            if (q.high) {
                if (bit()) b[0] = static_cast<std::int16_t>(b[0] | 1 << q.low);
            } else {
                c.last = static_cast<std::int16_t>(c.last + extended(symbol(tables_[0][c.dc]) & 15));  // 12 bits in what is no nonsense
                b[0] = static_cast<std::int16_t>(c.last * (1 << q.low));
            }
            k = 1;
        }
        if (q.last == 0) return;
        if (q.high) return refine(b, k, q, tables_[1][c.ac]);
        if (run_) { --run_; return; }
        while (k <= q.last) {
            const int s = symbol(tables_[1][c.ac]), zeros = s >> 4, n = s & 15;
            if (n == 0) {
                if (zeros == 15) { k += 16; continue; }
                if (progressive_) run_ = (1 << zeros) - 1 + (zeros ? bits(zeros) : 0);
                return;
            }
            k += zeros;
            if (k > 63) return;
            b[zigzag[k++]] = static_cast<std::int16_t>(extended(n) * (1 << q.low));
        }
    }
    /// One more bit of coefficients that are not 0, and new ones of one bit.
    void refine(std::int16_t* b, int k, const Scan& q, const Table& h) {
        const int one = 1 << q.low;
        auto correct = [&](std::int16_t& v) {
            if (bit() && !(v & one)) v = static_cast<std::int16_t>(v >= 0 ? v + one : v - one);
        };
        if (!run_)
            while (k <= q.last) {
                const int s = symbol(h);
                int zeros = s >> 4, fresh = 0;
                if (s & 15) {
                    fresh = bit() ? one : -one;
                } else if (zeros < 15) {
                    run_ = (1 << zeros) + (zeros ? bits(zeros) : 0);
                    break;
                }
                for (; k <= q.last; ++k) {
                    std::int16_t& v = b[zigzag[k]];
                    if (v) correct(v);
                    else if (zeros-- == 0) {
                        v = static_cast<std::int16_t>(fresh);
                        ++k;
                        break;
                    }
                }
                if (ended_) return;
            }
        if (run_) {
            for (; k <= q.last; ++k)
                if (std::int16_t& v = b[zigzag[k]]; v) correct(v);
            --run_;
        }
    }

    // ---- samples ----
    static std::uint8_t clamp(std::int64_t v) { return static_cast<std::uint8_t>(std::clamp<std::int64_t>(v, 0, 255)); }
    /// Loeffler, Ligtenberg and Moschytz' DCT with 11 multiplications (ICASSP 1989) on 8 values `step` apart, constants of 13 bits.
    static void dct(std::int64_t* v, int step, int shift) {
        auto at = [&](int i) -> std::int64_t& { return v[i * step]; };
        std::int64_t z1 = (at(2) + at(6)) * 4433, even2 = z1 - at(6) * 15137, even3 = z1 + at(2) * 6270;
        const std::int64_t even0 = (at(0) + at(4)) * 8192, even1 = (at(0) - at(4)) * 8192;
        const std::int64_t e[4] = {even0 + even3, even1 + even2, even1 - even2, even0 - even3};
        std::int64_t a = at(7), b = at(5), c = at(3), d = at(1);
        const std::int64_t z5 = (a + c + b + d) * 9633;
        z1 = (a + d) * -7373;
        const std::int64_t z2 = (b + c) * -20995, z3 = (a + c) * -16069 + z5, z4 = (b + d) * -3196 + z5;
        a = a * 2446 + z1 + z3, b = b * 16819 + z2 + z4, c = c * 25172 + z2 + z3, d = d * 12299 + z1 + z4;
        const std::int64_t o[4] = {d, c, b, a}, half = std::int64_t{1} << (shift - 1);
        for (int i = 0; i < 4; ++i) {
            at(i) = (e[i] + o[i] + half) >> shift;
            at(7 - i) = (e[i] - o[i] + half) >> shift;
        }
    }
    void inverse(Component& c) {
        c.samples.assign(static_cast<std::size_t>(c.stride * 8 * c.rows * 8), 128);
        const std::uint16_t* quant = quant_[c.quant].data();
        for (std::int64_t y = 0; y < c.rows; ++y)
            for (std::int64_t x = 0; x < c.stride; ++x) {
                const std::int16_t* b = c.block(x, y);
                std::int64_t v[64];
                for (int i = 0; i < 64; ++i) v[i] = std::int64_t{b[i]} * quant[i];
                for (int i = 0; i < 8; ++i) dct(v + i, 8, 11);
                for (int i = 0; i < 8; ++i) dct(v + 8 * i, 1, 18);
                for (int j = 0; j < 8; ++j)
                    for (int i = 0; i < 8; ++i) c.samples[static_cast<std::size_t>((y * 8 + j) * c.stride * 8 + x * 8 + i)] = clamp(v[8 * j + i] + 128);
            }
        c.coefficients.clear();
        c.coefficients.shrink_to_fit();
    }
    const std::uint8_t* row(const Component& c, std::int64_t y) const { return c.samples.data() + std::clamp<std::int64_t>(y, 0, c.height - 1) * c.stride * 8; }
    /// Row y of the image from component c, interpolated linearly where it has half the samples.
    void expand(const Component& c, std::int64_t y, std::vector<std::uint8_t>& out, std::vector<int>& sums) const {
        const std::int64_t fx = h_ / c.h, fy = v_ / c.v, n = c.width;
        const bool smooth_x = fx == 2 && n > 2, smooth_y = fy == 2 && (fx == 1 || smooth_x) && fx <= 2;
        const std::uint8_t* near = row(c, y / fy);
        if (!smooth_x && !smooth_y) {
            for (std::int64_t x = 0; x < width_; ++x) out[static_cast<std::size_t>(x)] = near[x / fx];
            return;
        }
        const std::uint8_t* far = row(c, y / fy + (y % 2 ? 1 : -1));
        if (!smooth_x) {
            for (std::int64_t x = 0; x < width_; ++x) out[static_cast<std::size_t>(x)] = static_cast<std::uint8_t>((near[x] * 3 + far[x] + (y % 2 ? 2 : 1)) >> 2);
            return;
        }
        sums.resize(static_cast<std::size_t>(n));
        for (std::int64_t x = 0; x < n; ++x) sums[static_cast<std::size_t>(x)] = smooth_y ? near[x] * 3 + far[x] : near[x];
        // Weights 3 to 1 of the neighbours; the first and the last value stand alone. Halves are rounded up and down in turn.
        const int whole = smooth_y ? 4 : 1, shift = smooth_y ? 4 : 2, left = smooth_y ? 8 : 1, right = smooth_y ? 7 : 2;
        for (std::int64_t x = 0; x < width_; ++x) {
            const std::int64_t i = x / 2, j = i + (x % 2 ? 1 : -1);
            const int v = sums[static_cast<std::size_t>(i)];
            int sample;
            if (j < 0 || j >= n) sample = smooth_y ? (v * whole + (x % 2 ? 7 : 8)) >> 4 : v;
            else sample = (v * 3 + sums[static_cast<std::size_t>(j)] + (x % 2 ? right : left)) >> shift;
            out[static_cast<std::size_t>(x)] = static_cast<std::uint8_t>(sample);
        }
    }
    void colors(Pixels& p) const {
        const bool rgb = components_.size() == 3 && (adobe_ == 0 || (adobe_ < 0 && components_[0].id == 'R' && components_[1].id == 'G' && components_[2].id == 'B'));
        std::vector<std::vector<std::uint8_t>> rows(components_.size(), std::vector<std::uint8_t>(static_cast<std::size_t>(width_)));
        std::vector<int> sums;
        for (std::int64_t y = 0; y < height_; ++y) {
            for (std::size_t c = 0; c < components_.size(); ++c) expand(components_[c], y, rows[c], sums);
            for (std::int64_t x = 0; x < width_; ++x) {
                std::uint8_t* d = p.at(x, y);
                const auto i = static_cast<std::size_t>(x);
                const std::int64_t l = rows[0][i];
                if (components_.size() == 1) {
                    d[0] = d[1] = d[2] = rows[0][i];
                } else if (rgb) {
                    for (std::size_t c = 0; c < 3; ++c) d[c] = rows[c][i];
                } else {  // ITU-R BT.601, 16 bits after the point
                    const std::int64_t cb = rows[1][i] - 128, cr = rows[2][i] - 128;
                    d[0] = clamp(l + ((91881 * cr + 32768) >> 16));
                    d[1] = clamp(l + ((-22554 * cb - 46802 * cr + 32768) >> 16));
                    d[2] = clamp(l + ((116130 * cb + 32768) >> 16));
                }
            }
        }
    }

    Reader r_;
    std::size_t size_;
    std::int64_t width_ = 0, height_ = 0, units_x_ = 0, units_y_ = 0, restart_ = 0, idle_ = 0;
    std::uint32_t h_ = 1, v_ = 1;
    bool progressive_ = false, scanned_ = false;
    int adobe_ = -1;
    std::vector<Component> components_;
    std::array<std::array<std::uint16_t, 64>, 4> quant_{};
    Table tables_[2][4];
    std::uint32_t hold_ = 0;
    int have_ = 0, run_ = 0;
    bool ended_ = false;
};

}  // namespace image
QUERN_END
