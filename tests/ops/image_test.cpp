// ImageDecoder: whole files against the pixels of libjpeg-turbo and Pillow (by checksum), formats made by hand, damaged bytes.
#include <random>

#include "../support/op_test.hpp"

namespace {
using namespace quern_test;
using quern::Shape;

struct File {
    const char* hex;
    std::uint64_t rgb, grey;  ///< FNV-1a of the pixels, made with Pillow 12 (libjpeg-turbo)
};
const File files[] = {
    {  // baseline
        "ffd8ffe000104a46494600010100000100010000ffdb0043000d090a0b0a080d0b0a0b0e0e0d0f13201513121213271c1e17202e2931302e292d2c333a4a3e333646372c2d405741464c4e"
        "525352323e5a615a50604a51524fffdb0043010e0e0e131113261515264f352d354f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f"
        "4f4f4f4f4f4f4f4fffc00011080013001503012200021101031101ffc400190001010003010000000000000000000000000603040507ffc4001f1000020202010500000000000000000000"
        "000102040311210612223151ffc40017010003010000000000000000000000000002050604ffc4001e11000201050003000000000000000000000001030204051131122132ffdd00040001"
        "ffda000c03010002110311003f00afb89c71b6c95bf9e3dcd6ccf73a8a3971b4898bd79ca4dec1b0c7cf348a5b85ad075dddc4322f05e8ffd0e7cf34760e0caf73ec15eab8d2e8d56626d7"
        "0fffd19b727f4d5b4fc402babf935d5c3fffd2f3e93e4003e611ffd9",
        3459626218362347337u, 12314259404875733760u},
    {  // progressive
        "ffd8ffe000104a46494600010100000100010000ffdb0043000d090a0b0a080d0b0a0b0e0e0d0f13201513121213271c1e17202e2931302e292d2c333a4a3e333646372c2d405741464c4e"
        "525352323e5a615a50604a51524fffdb0043010e0e0e131113261515264f352d354f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f"
        "4f4f4f4f4f4f4f4fffc20011080013001503012100021101031101ffc40017000003010000000000000000000000000000040502ffc4001701010101010000000000000000000000000403"
        "0502ffda000c030100021003100000015113d706cc2a2017e8406f46ef4922f8ff00ffc4001c1000010403010000000000000000000000000102031210112131ffda000801010001050272"
        "8bd2a3e2e574b61fe498ffc4001c1100020202030000000000000000000000000102120304132233ffda0008010301013f01c4b8a2d32a6c46fd917179b19fffc4001c1100010305000000"
        "000000000000000000000102130304101121ffda0008010201013f01b7e38910651d112898ffc40014100100000000000000000000000000000030ffda0008010100063f021fffc4001810"
        "000301010000000000000000000000000001113110ffda0008010100013f214c1e8b1a19a796d8f4ffda000c0301000200030000001022836fffc4001a1100020203000000000000000000"
        "00000000011011314171ffda0008010301013f106ed436b38c28a0647fffc4001811000301010000000000000000000000000001111021ffda0008010201013f10483148ab05ee7fffc400"
        "191001010101010100000000000000000000010011211031ffda0008010100013f10dd85c2dfb9017d91d6c399035cf61fffd9",
        2171944255429745431u, 9941099625890131782u},
    {  // png
        "89504e470d0a1a0a0000000d494844520000000b0000000c08020000003bcbd0c9000001504944415478da05c1c16ed3401000d099d9d95daf1dc7b42850a482104248f4008823ff2f2e48"
        "1ce0827228129410b57249dc24f6ee7a67780f17575f0d89b5ea6aa8437e6af6ef0ed79ffa6f1ffead2fa7db564e1c040c284bb1224e27d691cc047e96468bc522c4abac869460a63cba79"
        "08a6b77e07e7636935178ac2fc76b488223615bc57fed3b84de86e71799fea78b20062f8e3811420b969d4edc83f68f1b37934e09b39bed0c3d26421be3ac602e394f7036cf67e9dcbba69"
        "6778d54eefbb87551881b82a37054e9837256d246e53eabd3a706771d141b73460790b5f14a2405fca2f8a833fa2ddb5727711b72f0b3c2653f1b5f94c509826a77d48d11f6bd3aff4e679"
        "5cbecec3137435ffa6ef8c100c749aecac616c69772e7f2fa4b9d4d333f40d0f78671104300069f1940d4d951cdb3274e2cea05a704200841954b4800a0ae26c345b495e620554fd079218"
        "bd708b81162e0000000049454e44ae426082",
        5291167109416869663u, 3858994432422854340u},
};
std::vector<std::uint8_t> bytes_of(const char* hex) {
    std::vector<std::uint8_t> b;
    for (; *hex; hex += 2) b.push_back(static_cast<std::uint8_t>(std::stoi(std::string(hex, 2), nullptr, 16)));
    return b;
}
std::uint64_t fnv(const Tensor& t) {
    std::uint64_t h = 14695981039346656037u;
    for (std::uint8_t v : t.data<std::uint8_t>()) h = (h ^ v) * 1099511628211u;
    return h;
}
Tensor decode(const std::vector<std::uint8_t>& b, const std::string& format = "RGB") {
    return run_op("ImageDecoder", {t<std::uint8_t>({static_cast<std::int64_t>(b.size())}, b)}, {quern::onnx::attribute_s("pixel_format", format)}, 20)[0];
}
void big(std::vector<std::uint8_t>& b, std::uint32_t v) {
    for (int s = 24; s >= 0; s -= 8) b.push_back(static_cast<std::uint8_t>(v >> s));
}
/// A PNG of stored (not compressed) rows.
std::vector<std::uint8_t> png(std::uint32_t w, std::uint32_t h, int depth, int color, bool interlaced, const std::vector<std::uint8_t>& rows, const std::vector<std::uint8_t>& palette = {}) {
    std::vector<std::uint8_t> b{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    auto chunk = [&](const char* name, const std::vector<std::uint8_t>& data) {
        big(b, static_cast<std::uint32_t>(data.size()));
        b.insert(b.end(), name, name + 4);
        b.insert(b.end(), data.begin(), data.end());
        big(b, 0);  // checksums are not looked at
    };
    std::vector<std::uint8_t> head;
    big(head, w), big(head, h);
    for (int v : {depth, color, 0, 0, interlaced ? 1 : 0}) head.push_back(static_cast<std::uint8_t>(v));
    chunk("IHDR", head);
    if (!palette.empty()) chunk("PLTE", palette);
    const auto n = static_cast<std::uint16_t>(rows.size());
    std::vector<std::uint8_t> z{0x78, 1, 1, static_cast<std::uint8_t>(n), static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(~n), static_cast<std::uint8_t>(~n >> 8)};
    z.insert(z.end(), rows.begin(), rows.end());
    chunk("IDAT", z);
    chunk("IEND", {});
    return b;
}

TEST(ImageDecoder, SamePixelsAsLibjpegAndPillow) {
    for (auto& f : files) {
        EXPECT_EQ(fnv(decode(bytes_of(f.hex))), f.rgb);
        EXPECT_EQ(fnv(decode(bytes_of(f.hex), "Grayscale")), f.grey);
    }
    Tensor rgb = decode(bytes_of(files[0].hex)), bgr = decode(bytes_of(files[0].hex), "BGR");
    EXPECT_EQ(rgb.shape(), (Shape{19, 21, 3}));
    for (std::size_t i = 0; i < 19 * 21 * 3; ++i) ASSERT_EQ(rgb.data<std::uint8_t>()[i], bgr.data<std::uint8_t>()[i - i % 3 + 2 - i % 3]);
}
TEST(ImageDecoder, PngKinds) {
    using V = std::vector<std::uint8_t>;
    // 3 x 2 grey, 16 bits: the upper byte counts
    auto deep = decode(png(3, 2, 16, 0, false, V{0, 10, 99, 20, 99, 30, 99, 0, 40, 99, 50, 99, 60, 99}), "Grayscale");
    expect_near(deep, t<std::uint8_t>({2, 3, 1}, {10, 20, 30, 40, 50, 60}));
    // 3 x 1 with a palette of 2 bits; the third index is outside
    auto palette = decode(png(3, 1, 2, 3, false, V{0, 0b00010000}, V{1, 2, 3, 4, 5, 6}));
    expect_near(palette, t<std::uint8_t>({1, 3, 3}, {1, 2, 3, 4, 5, 6, 1, 2, 3}));
    EXPECT_THROW(decode(png(3, 1, 2, 3, false, V{0, 0b00011100}, V{1, 2, 3, 4, 5, 6})), quern::Error);
    // 3 x 3 grey, interlaced: passes 1 (0,0), 4 (2,0), 5 (0,2 2,2), 6 (1,0 1,2), 7 (row 1)
    auto woven = decode(png(3, 3, 8, 0, true, V{0, 1, 0, 3, 0, 7, 9, 0, 2, 0, 8, 0, 4, 5, 6}), "Grayscale");
    expect_near(woven, t<std::uint8_t>({3, 3, 1}, {1, 2, 3, 4, 5, 6, 7, 8, 9}));
    // filters: none, sub, up, average, Paeth
    auto filtered = decode(png(2, 5, 8, 0, false, V{0, 10, 20, 1, 5, 5, 2, 1, 1, 3, 10, 10, 4, 1, 1}), "Grayscale");
    expect_near(filtered, t<std::uint8_t>({5, 2, 1}, {10, 20, 5, 10, 6, 11, 13, 22, 14, 23}));
}
TEST(ImageDecoder, SimpleFormats) {
    auto text = [](const std::string& s) { return std::vector<std::uint8_t>(s.begin(), s.end()); };
    expect_near(decode(text("P2 # grey\n2 2\n10\n0 5 10 1"), "Grayscale"), t<std::uint8_t>({2, 2, 1}, {0, 128, 255, 26}));
    expect_near(decode(text("P3 1 1 255 1 2 3")), t<std::uint8_t>({1, 1, 3}, {1, 2, 3}));
    expect_near(decode(text("P1 3 1 010"), "Grayscale"), t<std::uint8_t>({1, 3, 1}, {255, 0, 255}));
    expect_near(decode(text("P5 2 1 255\nAB"), "Grayscale"), t<std::uint8_t>({1, 2, 1}, {65, 66}));
    std::vector<std::uint8_t> bmp{'B', 'M', 0, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 24, 0};
    bmp.resize(54);
    for (int v : {1, 2, 3, 0, 4, 5, 6, 0}) bmp.push_back(static_cast<std::uint8_t>(v));  // blue, green, red; the last row first
    expect_near(decode(bmp), t<std::uint8_t>({2, 1, 3}, {6, 5, 4, 3, 2, 1}));
}
TEST(ImageDecoder, WhatIsNoImage) {
    EXPECT_EQ(decode({}).shape(), (Shape{0, 0, 3}));
    EXPECT_EQ(decode({1, 2, 3, 4}, "Grayscale").shape(), (Shape{0, 0, 1}));
    std::vector<std::uint8_t> huge{'P', '6', ' ', '9', '9', '9', '9', '9', '9', ' ', '9', '9', '9', '9', '9', '9', ' ', '9', ' '};
    EXPECT_EQ(decode(huge).shape(), (Shape{0, 0, 3}));  // claims more than its bytes can hold
    std::vector<std::uint8_t> webp{'R', 'I', 'F', 'F', 0, 0, 0, 0, 'W', 'E', 'B', 'P'};
    try {
        decode(webp);
        ADD_FAILURE();
    } catch (const quern::Error& e) {
        EXPECT_EQ(e.code(), quern::ErrorCode::unsupported);
        EXPECT_NE(std::string(e.what()).find("WebP"), std::string::npos);
    }
}
TEST(ImageDecoder, DamagedBytesEndInAnAnswerOrAnError) {
    std::mt19937 r(1);
    for (auto& f : files)
        for (int i = 0; i < 300; ++i) {
            auto b = bytes_of(f.hex);
            for (unsigned k = r() % 8 + 1; k--;) b[r() % b.size()] = static_cast<std::uint8_t>(r());
            if (r() % 3 == 0) b.resize(r() % b.size());
            try {
                decode(b);
            } catch (const quern::Error&) {
            }
        }
}
}  // namespace
