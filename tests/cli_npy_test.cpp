// .npy files: what is written is read again, and hostile headers are refused before memory is taken.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "src/cli/elements.hpp"

using namespace quern;

namespace {
struct TempFile {
    std::string path = (std::filesystem::temp_directory_path() / ("quern_npy_" + std::to_string(::getpid()) + ".npy")).string();
    ~TempFile() { std::filesystem::remove(path); }
};
Tensor round_trip(const Tensor& t) {
    TempFile f;
    cli::write_npy(f.path, t);
    EXPECT_EQ(std::filesystem::file_size(f.path) % (t.dtype() == DType::string ? 4 : 1), 0u);
    return cli::read_npy(f.path);
}
/// What reading a file of version 1 with this header and `data` bytes says.
std::string refusal(const std::string& header, std::size_t data, const std::string& start = std::string("\x93NUMPY\x01\0", 8)) {
    TempFile f;
    std::ofstream o(f.path, std::ios::binary);
    o << start << char(header.size() & 255) << char(header.size() >> 8) << header << std::string(data, '\1');
    o.close();
    try {
        cli::read_npy(f.path);
    } catch (const Error& e) {
        return e.what();
    }
    return "";
}
std::string header(const std::string& descr, const std::string& shape, const std::string& order = "False") {
    return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}
}  // namespace

TEST(Npy, RoundTripOfEveryNativeType) {
    for (DType t : {DType::f32, DType::f64, DType::f16, DType::i8, DType::i16, DType::i32, DType::i64, DType::u8, DType::u16,
                    DType::u32, DType::u64, DType::boolean, DType::c64, DType::c128}) {
        for (const Shape& shape : {Shape{}, Shape{0}, Shape{3}, Shape{2, 0, 4}, Shape{2, 3, 4}}) {
            Tensor a(t, shape);
            for (std::size_t i = 0; i < a.bytes(); ++i) static_cast<unsigned char*>(a.raw())[i] = t == DType::boolean ? i & 1 : i * 7;
            Tensor b = round_trip(a);
            EXPECT_EQ(b.dtype(), t);
            EXPECT_EQ(b.shape(), shape);
            EXPECT_EQ(std::memcmp(a.raw(), b.raw(), a.bytes()), 0) << dtype_name(t) << shape.to_string();
        }
    }
}
TEST(Npy, Strings) {
    std::vector<std::string> s{"", "hello", "h\u00e9", "\u65e5\u672c\U0001F600"};
    Tensor t = round_trip(Tensor::from_strings(s, {2, 2}));
    EXPECT_EQ(std::vector<std::string>(t.strings().begin(), t.strings().end()), s);
}
TEST(Npy, PackedTypesAreUnpacked) {
    Tensor bytes = Tensor::from<std::int8_t>(std::vector<std::int8_t>{-8, 7, -1}, {3});
    Tensor packed = cli::pack(DType::i4, bytes);
    Tensor back = round_trip(packed);
    EXPECT_EQ(back.dtype(), DType::i8);
    EXPECT_EQ(std::memcmp(back.raw(), bytes.raw(), 3), 0);
    for (DType six : {DType::f6e2m3, DType::f6e3m2}) {
        Tensor codes = Tensor::from<std::uint8_t>(std::vector<std::uint8_t>{0x3f, 0x01, 0x20, 0x15, 0x2a, 0, 0x3e}, {7});
        EXPECT_EQ(std::memcmp(round_trip(cli::pack(six, codes)).raw(), codes.raw(), 7), 0);
    }
}
TEST(Npy, RefusesWithAReason) {
    EXPECT_NE(refusal("", 0, "no numpy").find("not an .npy file"), std::string::npos);
    EXPECT_NE(refusal(header("<f4", "(2, 3)", "True"), 24).find("Fortran order"), std::string::npos);
    EXPECT_NE(refusal(header(">f4", "(2,)"), 8).find("big-endian"), std::string::npos);
    EXPECT_NE(refusal(header("|O", "(2,)"), 8).find("object arrays"), std::string::npos);
    EXPECT_NE(refusal(header("<f4", "(2,"), 8).find("tuple of numbers"), std::string::npos);
    EXPECT_NE(refusal(header("<M8", "(2,)"), 16).find("no ONNX counterpart"), std::string::npos);
    EXPECT_NE(refusal(header("<f4", "(3,)"), 8).find("holds only 8 bytes"), std::string::npos);
    EXPECT_NE(refusal(header("<f4", "(999999999999, 999999999999)"), 8).find("holds only"), std::string::npos);
    EXPECT_NE(refusal(header("<U99999999", "(9,)"), 8), "");
    EXPECT_NE(refusal("{'shape': (2,)}", 8).find("'descr'"), std::string::npos);
    EXPECT_EQ(refusal(header("<f4", "(2,)", "True"), 8), "");  // one dimension: both orders are the same
}
TEST(Elements, SmallFloats) {
    auto value = [](DType t, int code) {
        Tensor x(t, {1});
        std::memcpy(x.raw(), &code, x.bytes());
        return cli::element(x, 0);
    };
    EXPECT_EQ(value(DType::f16, 0x3C00), 1.0);
    EXPECT_EQ(value(DType::f16, 0x0001), std::ldexp(1.0, -24));
    EXPECT_EQ(value(DType::f16, 0xFC00), -INFINITY);
    EXPECT_EQ(value(DType::bf16, 0xC040), -3.0);
    EXPECT_EQ(value(DType::f8e4m3fn, 0x7E), 448.0);
    EXPECT_TRUE(std::isnan(value(DType::f8e4m3fn, 0x7F)));
    EXPECT_EQ(value(DType::f8e4m3fnuz, 0x7F), 240.0);
    EXPECT_TRUE(std::isnan(value(DType::f8e4m3fnuz, 0x80)));
    EXPECT_EQ(value(DType::f8e5m2, 0x7B), 57344.0);
    EXPECT_EQ(value(DType::f8e5m2, 0x7C), INFINITY);
    EXPECT_EQ(value(DType::f8e5m2fnuz, 0x7F), 57344.0);
    EXPECT_EQ(value(DType::f8e8m0, 127), 1.0);
    EXPECT_EQ(value(DType::f4e2m1, 7), 6.0);
    EXPECT_EQ(value(DType::f4e2m1, 9), -0.5);
    EXPECT_EQ(value(DType::f6e2m3, 0x1f), 7.5);
    EXPECT_EQ(value(DType::f6e2m3, 0x21), -0.125);
    EXPECT_EQ(value(DType::f6e3m2, 0x1f), 28.0);
    EXPECT_EQ(value(DType::f6e3m2, 0x01), 0.0625);
}
TEST(Elements, Difference) {
    auto f = [](std::vector<float> v) { return Tensor::from<float>(v, {std::int64_t(v.size())}); };
    cli::Tolerance tol{1e-3, 1e-7};
    EXPECT_EQ(cli::difference(f({1, NAN, INFINITY}), f({1.0005f, NAN, INFINITY}), tol), "");
    EXPECT_NE(cli::difference(f({1, 2}), f({1, 2.1f}), tol), "");
    EXPECT_NE(cli::difference(f({INFINITY}), f({-INFINITY}), tol), "");
    EXPECT_NE(cli::difference(f({1}), f({NAN}), tol), "");
    EXPECT_NE(cli::difference(f({1}), f({1, 1}), tol), "");
    std::vector<std::int64_t> big{(std::int64_t(1) << 60) + 1}, other{std::int64_t(1) << 60};
    EXPECT_NE(cli::difference(Tensor::from<std::int64_t>(big, {1}), Tensor::from<std::int64_t>(other, {1}), {1, 1}), "");
}
