// ImageDecoder: bytes of an image file -> pixels.
#pragma once
#include "image.hpp"
#include "jpeg.hpp"
#include "png.hpp"

QUERN_BEGIN
namespace image {

/// What the bytes say they are. Raises unsupported for a format that is known and has no decoder here.
inline Header read_header(Bytes b) {
    auto starts = [&](std::string_view s, std::size_t at = 0) { return b.size() >= at + s.size() && std::memcmp(b.data() + at, s.data(), s.size()) == 0; };
    Header h;
    if (starts("BM")) {
        if (Bmp m; read_bmp(b, m)) h = {Format::bmp, m.width, m.height};
    } else if (starts("\x89PNG\r\n\x1a\n")) {
        if (Png m; read_png(b, m)) h = {Format::png, m.width, m.height};
    } else if (starts("\xff\xd8\xff")) {
        if (!Jpeg(b).header(h.width, h.height)) return {};
        h.format = Format::jpeg;
    } else if (b.size() > 2 && b[0] == 'P' && b[1] >= '1' && b[1] <= '6') {
        if (Pnm m; read_pnm(b, m)) h = {Format::pnm, m.width, m.height};
    } else {
        const char* known = starts("RIFF") && starts("WEBP", 8) ? "WebP" : starts(std::string_view("II*\0", 4)) || starts(std::string_view("MM\0*", 4)) ? "TIFF"
                            : starts(std::string_view("\0\0\0\x0cjP  ", 8)) || starts("\xff\x4f\xff\x51") ? "JPEG 2000" : nullptr;
        if (known) raise(ErrorCode::unsupported, std::string("the image is ") + known + "; accepted: BMP, JPEG (baseline and progressive), PNG, PBM, PGM, PPM");
    }
    return h;
}
inline bool decode(Bytes b, Format f, Pixels& p) {
    switch (f) {
        case Format::bmp: return decode_bmp(b, p);
        case Format::png: return decode_png(b, p);
        case Format::jpeg: return Jpeg(b).decode(p);
        case Format::pnm: return decode_pnm(b, p);
        default: return false;
    }
}

enum class Layout : std::uint8_t { rgb, bgr, grey };
/// x[N] bytes -> [height, width, 3 or 1]. No image: [0, 0, channels]. An image whose header is right and whose data are not: invalid_argument
/// (but JPEG data may end too soon: the rest is grey).
class Decoder final : public Kernel {
public:
    explicit Decoder(Layout l) : layout_(l) {}
    const char* name() const noexcept override { return "image_decoder.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        const Header h = read_header(bytes(call));
        dims[0] = {h.height, h.width, layout_ == Layout::grey ? 1 : 3};
        return true;
    }
    void run(const Call& call) const override {
        const View& y = call.out[0];
        if (y.count() == 0) return;
        Pixels p;
        const Bytes b = bytes(call);
        if (!decode(b, read_header(b).format, p) || p.height != y.dims[0] || p.width != y.dims[1])
            raise(ErrorCode::invalid_argument, "the image of " + std::to_string(b.size()) + " bytes is damaged");
        auto* d = y.out<std::uint8_t>();
        const std::uint8_t* s = p.rgb.data();
        for (std::int64_t i = 0, n = p.width * p.height; i < n; ++i, s += 3) {
            if (layout_ == Layout::grey) *d++ = static_cast<std::uint8_t>((s[0] * 19595u + s[1] * 38470u + s[2] * 7471u + 32768u) >> 16);  // BT.601, as Pillow rounds
            else if (layout_ == Layout::rgb) *d++ = s[0], *d++ = s[1], *d++ = s[2];
            else *d++ = s[2], *d++ = s[1], *d++ = s[0];
        }
    }

private:
    static Bytes bytes(const Call& call) { return {call.in[0].in<std::uint8_t>(), static_cast<std::size_t>(call.in[0].count())}; }
    Layout layout_;
};

}  // namespace image
QUERN_END
