// Resize, transforms, expressions and strings where ONNX's own cases do not look.
#include <cmath>

#include <quern/kernels/signal/fft.hpp>
#include <quern/kernels/text/regex.hpp>

#include "support/bytes_test.hpp"
#include "support/op_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;
using quern::onnx::attribute_s;

namespace {

Tensor wave(quern::Shape s) {
    Tensor x(DType::f32, s);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[static_cast<std::size_t>(i)] = float((i * 37) % 29) - 11;
    return x;
}
/// Bilinear resizing, pixel by pixel.
Tensor bilinear(const Tensor& x, std::int64_t oh, std::int64_t ow) {
    const auto &s = x.shape();
    Tensor y(DType::f32, {s[0], s[1], oh, ow});
    for (std::int64_t p = 0; p < s[0] * s[1]; ++p)
        for (std::int64_t i = 0; i < oh; ++i)
            for (std::int64_t j = 0; j < ow; ++j) {
                auto source = [](std::int64_t o, std::int64_t n, std::int64_t m) { return std::min(std::max((double(o) + 0.5) * double(n) / double(m) - 0.5, 0.0), double(n - 1)); };
                double v = source(i, s[2], oh), u = source(j, s[3], ow);
                std::int64_t a = std::int64_t(v), b = std::min(a + 1, s[2] - 1), c = std::int64_t(u), d = std::min(c + 1, s[3] - 1);
                auto at = [&](std::int64_t r, std::int64_t q) { return double(x.data<float>()[static_cast<std::size_t>((p * s[2] + r) * s[3] + q)]); };
                double fv = v - double(a), fu = u - double(c);
                y.data<float>()[static_cast<std::size_t>((p * oh + i) * ow + j)] =
                    float((1 - fv) * ((1 - fu) * at(a, c) + fu * at(a, d)) + fv * ((1 - fu) * at(b, c) + fu * at(b, d)));
            }
    return y;
}
TEST(Resize, BilinearBySizesAndByScalesKnownOnlyWhenRun) {
    Tensor x = wave({2, 3, 9, 13}), none;
    for (auto [h, w] : {std::pair<std::int64_t, std::int64_t>{18, 26}, {5, 40}, {9, 13}, {1, 1}, {9, 7}}) {
        Tensor sizes = ints({4}, {2, 3, h, w});
        expect_near(run_op("Resize", {x, none, none, sizes}, {attribute_s("mode", "linear")}, 19)[0], bilinear(x, h, w), 1e-5, 1e-5);
        expect_near(run_op("Resize", {x, none, none, sizes}, {attribute_s("mode", "linear")}, 19, 1, {3})[0], bilinear(x, h, w), 1e-5, 1e-5);
    }
    for (bool fixed : {true, false})
        expect_near(run_op("Resize", {x, none, floats({4}, {1, 1, 2, 3})}, {attribute_s("mode", "linear")}, 19, 1, fixed ? std::vector<int>{2} : std::vector<int>{})[0],
                    bilinear(x, 18, 39), 1e-5, 1e-5);
}
TEST(Resize, ChannelsLastHasTheBitsOfChannelsFirst) {
    Tensor none;
    for (auto [c, h, w] : {std::array<std::int64_t, 3>{8, 18, 26}, {19, 5, 40}, {16, 9, 7}, {3, 18, 26}, {8, 9, 20}}) {  // 3 channels, and one axis that stays, go by passes
        Tensor x = wave({2, c, 9, 13}), last(DType::f32, {2, 9, 13, c});
        auto turn = [c = c](const Tensor& first, Tensor& t) {
            const std::int64_t plane = first.shape()[2] * first.shape()[3];
            for (std::int64_t n = 0; n < 2; ++n)
                for (std::int64_t k = 0; k < c; ++k)
                    for (std::int64_t p = 0; p < plane; ++p) t.data<float>()[static_cast<std::size_t>((n * plane + p) * c + k)] = first.data<float>()[static_cast<std::size_t>((n * c + k) * plane + p)];
        };
        turn(x, last);
        for (const char* coordinates : {"half_pixel", "align_corners", "tf_crop_and_resize"}) {
            Tensor roi = std::string_view(coordinates) == "tf_crop_and_resize" ? floats({4}, {0.1f, -0.2f, 1.3f, 0.8f}) : none;
            auto by = [&](const Tensor& v, std::vector<std::int64_t> axes, std::vector<int> fixed) {
                return run_op("Resize", {v, roi, none, ints({2}, {h, w})}, {attribute_s("mode", "linear"), attribute_ints("axes", axes), attribute_s("coordinate_transformation_mode", coordinates)}, 19, 1, fixed)[0];
            };
            Tensor want(DType::f32, {2, h, w, c});
            turn(by(x, {2, 3}, {3}), want);
            for (auto fixed : {std::vector<int>{3}, std::vector<int>{}}) {
                Tensor got = by(last, {1, 2}, fixed);
                ASSERT_EQ(got.shape(), want.shape());
                SCOPED_TRACE(testing::Message() << c << " " << h << " " << w << " " << coordinates);
#if defined(__aarch64__)  // compilers join multiplications and additions there, in these loops differently
                expect_near(got, want, 1e-5, 1e-6);
#else
                EXPECT_EQ(std::memcmp(got.raw(), want.raw(), want.bytes()), 0);
#endif
            }
        }
    }
}
TEST(Resize, ChannelsLastAndNarrowTypes) {
    Tensor x = t<std::uint8_t>({1, 2, 2, 2}, {0, 255, 10, 245, 100, 155, 110, 145}), none;
    auto y = run_op("Resize", {x, none, none, ints({2}, {2, 4})}, {attribute_s("mode", "linear"), attribute_ints("axes", {1, 2}), attribute_s("coordinate_transformation_mode", "align_corners")}, 19)[0];
    std::vector<std::uint8_t> want = {0, 255, 3, 252, 7, 248, 10, 245, 100, 155, 103, 152, 107, 148, 110, 145};
    ASSERT_EQ(y.shape(), (quern::Shape{1, 2, 4, 2}));
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(y.data<std::uint8_t>()[i], want[i], 1) << i;
}
TEST(Resize, SymbolsFollowScales) {
    ModelBuilder b(13);
    b.input("x", DType::f32, {"N", "3", "H", "W"}).constant("s", floats({4}, {1, 1, 2, 0.5f})).node("Resize", {"x", "", "s"}, {"y"}).output("y");
    EXPECT_NE(b.model().dump("import").find("y: float[N, 3, 2*H, floordiv(W,2)]"), std::string::npos) << b.model().dump("import");
    auto y = b.run({{"x", wave({1, 3, 2, 5})}});
    EXPECT_EQ(y[0].shape(), (quern::Shape{1, 3, 4, 2}));
}
TEST(Resize, SizesThatNoMemoryHoldsAreErrorsBeforeTablesAreMade) {
    auto refused = [](Tensor x, Tensor sizes, const char* mode, std::vector<int> fixed) {
        return error_of([&] { run_op("Resize", {x, {}, {}, sizes}, {attribute_s("mode", mode)}, 19, 1, fixed, {.memory_limit = std::size_t{256} << 20}); }, quern::ErrorCode::out_of_memory);
    };
    for (const char* mode : {"nearest", "linear", "cubic"})
        for (std::int64_t size : {std::int64_t{67835469387268097}, INT64_MAX, std::int64_t{1} << 40}) {
            refused(wave({1, 4, 3, 3}), ints({4}, {size, 4, 2, 5}), mode, {3});
            refused(wave({1, 4, 3, 3}), ints({4}, {size, 4, 2, 5}), mode, {});
        }
    // The output alone would fit, its tables would not.
    EXPECT_NE(refused(Tensor(DType::u8, {1}), ints({1}, {std::int64_t{1} << 27}), "cubic", {3}).find("2^25"), std::string::npos);
}
TEST(Resize, OldOperatorsAndRefusals) {
    Tensor x = floats({1, 1, 1, 2}, {1, 2}), none;
    expect_near(run_op("Upsample", {x, floats({4}, {1, 1, 2, 2})}, {}, 9)[0], floats({1, 1, 2, 4}, {1, 1, 2, 2, 1, 1, 2, 2}));
    expect_near(run_op("Resize", {x, floats({4}, {1, 1, 1, 2})}, {attribute_s("mode", "linear")}, 10)[0], floats({1, 1, 1, 4}, {1, 1.5f, 2, 2}));
    EXPECT_THROW(run_op("Resize", {x, none, floats({4}, {1, 1, -1, 2})}, {}, 19), quern::Error);
    EXPECT_THROW(run_op("Resize", {x, none, floats({4}, {1, 1, std::nanf(""), 2})}, {}, 19), quern::Error);
    EXPECT_THROW(run_op("Resize", {x, none, floats({4}, {1, 1, 1e30f, 2})}, {}, 19), quern::Error);
    EXPECT_THROW(run_op("Resize", {x, none, none, ints({4}, {1, 1, -1, 2})}, {}, 19), quern::Error);
    EXPECT_THROW(run_op("Resize", {x, none, floats({3}, {1, 1, 2})}, {}, 19), quern::Error);
    EXPECT_THROW(run_op("Resize", {x}, {}, 19), quern::Error);
}
TEST(GridSample, FarAndUndefinedPlacesAreHarmless) {
    const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
    Tensor x = wave({1, 1, 3, 3}), grid = floats({1, 1, 4, 2}, {inf, 0, nan, nan, 1e30f, -1e30f, -inf, inf});
    for (std::string padding : {"zeros", "border", "reflection"})
        for (std::string mode : {"linear", "nearest", "cubic"}) {
            auto y = run_op("GridSample", {x, grid}, {attribute_s("mode", mode), attribute_s("padding_mode", padding)}, 20)[0];
            EXPECT_EQ(y.count(), 4);
            if (padding == "zeros") expect_near(y, floats({1, 1, 1, 4}, {0, 0, 0, 0}));
        }
}
TEST(Dft, EveryLengthAgainstTheDefinition) {
    std::vector<std::int64_t> lengths{400, 480, 512, 1001, 1155, 1009};
    for (std::int64_t n = 1; n <= 64; ++n) lengths.push_back(n);
    for (std::int64_t n : lengths)
        for (bool inverse : {false, true}) {
            std::vector<quern::signal::Complex> x(static_cast<std::size_t>(n)), want(x.size());
            for (std::int64_t k = 0; k < n; ++k) x[static_cast<std::size_t>(k)] = {double(k * 17 % 11) - 4, double(k * 5 % 7)};
            for (std::int64_t k = 0; k < n; ++k)
                for (std::int64_t i = 0; i < n; ++i) want[static_cast<std::size_t>(k)] += x[static_cast<std::size_t>(i)] * std::polar(1.0, (inverse ? 2 : -2) * M_PI * double(i * k % n) / double(n));
            quern::signal::Fft fft(n, inverse);
            std::vector<quern::signal::Complex> work(fft.work());
            fft.run(x.data(), work.data());
            for (std::size_t k = 0; k < x.size(); ++k) EXPECT_LT(std::abs(x[k] - want[k]), 1e-10) << n;
        }
}
TEST(Dft, RealRowsOfEveryLengthAgainstTheDefinition) {
    std::vector<std::int64_t> lengths{400, 512, 1001, 1018};
    for (std::int64_t n = 1; n <= 64; ++n) lengths.push_back(n);
    for (std::int64_t n : lengths) {
        quern::signal::RealFft fft(n);
        std::vector<quern::signal::Complex> row(fft.row()), work(fft.work());
        for (std::int64_t k = 0; k < n; ++k) fft.put(row.data(), k, double(k * 17 % 11) - 4);
        fft.run(row.data(), work.data());
        for (std::int64_t k = 0; k <= n / 2; ++k) {
            quern::signal::Complex want;
            for (std::int64_t i = 0; i < n; ++i) want += (double(i * 17 % 11) - 4) * std::polar(1.0, -2 * M_PI * double(i * k % n) / double(n));
            EXPECT_LT(std::abs(row[static_cast<std::size_t>(k)] - want), 1e-10) << n << " bin " << k;
        }
    }
}
TEST(Stft, SignalsWithoutALastDimensionAreReal) {
    Tensor two = wave({2, 40}), three = wave({2, 40, 1}), step = ints({}, {5}), window = floats({16}, std::vector<float>(16, 0.5f));
    Tensor want = run_op("STFT", {three, step, window}, {}, 17)[0];
    EXPECT_EQ(want.shape(), (quern::Shape{2, 5, 9, 2}));
    Tensor got = run_op("STFT", {two, step, window}, {}, 17)[0];
    ASSERT_EQ(got.shape(), want.shape());
    EXPECT_EQ(std::memcmp(got.raw(), want.raw(), want.bytes()), 0);
    for (std::int64_t n : {16, 15}) {  // all bins: those of the signal as a complex one
        Tensor w = floats({n}, std::vector<float>(static_cast<std::size_t>(n), 0.5f)), complex(DType::f32, {2, 40, 2});
        for (std::size_t i = 0; i < 80; ++i) complex.data<float>()[2 * i] = two.data<float>()[i], complex.data<float>()[2 * i + 1] = 0;
        Tensor all = run_op("STFT", {two, step, w}, {attribute_i("onesided", 0)}, 17)[0];
        EXPECT_EQ(all.shape(), (quern::Shape{2, (40 - n) / 5 + 1, n, 2}));
        expect_near(all, run_op("STFT", {complex, step, w}, {attribute_i("onesided", 0)}, 17)[0], 1e-5, 1e-6);
    }
    EXPECT_THROW(run_op("STFT", {wave({40}), step, window}, {}, 17), quern::Error);
    EXPECT_THROW(run_op("STFT", {wave({2, 40, 3}), step, window}, {}, 17), quern::Error);
}
TEST(Regex, FullMatchesInLinearTime) {
    using quern::text::Regex;
    struct Case { const char* pattern; const char* text; bool match; };
    for (auto& c : std::initializer_list<Case>{
             {"", "", true}, {"a|b*", "bbb", true}, {"a|b*", "ab", false}, {"(ab)+c?", "ababc", true}, {"a{2,3}", "aaaa", false}, {"a{2,}", "aaaa", true},
             {"[^a-c]+", "xyz", true}, {"[^a-c]+", "xbz", false}, {"\\d+\\.\\d*", "12.", true}, {"(?i)Hello", "hELLO", true}, {"(?i:a)b", "AB", false},
             {"www.[\\w.-]+\\.\\bcom\\b", "www.google.com", true}, {"^a$", "a", true}, {"a.c", "a\nc", false}, {"(?s)a.c", "a\nc", true}, {"\\x41\\x{e9}", "A\xc3\xa9", true},
             {".", "\xe2\x82\xac", true}, {"[[:alpha:]_]+", "ab_", true}, {"\\Qa.b\\E+", "a.b", true}, {"[a\\]-]+", "a]-", true}, {"(?P<x>a)|(b)", "b", true}, {"x*", "y", false},
             {"a{,2}", "a{,2}", true}, {"(|a)+b", "aab", true}, {"\\S+@\\S+", "me@here", true}})
        EXPECT_EQ(Regex(c.pattern).matches(c.text), c.match) << c.pattern << " on " << c.text;
    EXPECT_TRUE(Regex("(a*)*(a*)*b").matches(std::string(20000, 'a') + "b"));
    for (const char* bad : {"(", ")", "[a", "*", "a**", "a{3,2}", "\\", "(?=a)", "[z-a]", "(?<>a)", "a{1001}", "((((){1000}){1000}){1000})", "\\p"})
        EXPECT_THROW(Regex{bad}, quern::Error) << bad;
    EXPECT_THROW(Regex(std::string(100000, '(')), quern::Error);
}
/// The match that begins first, the longest of these, against a search of every begin and end.
TEST(Regex, FindsTheFirstAndLongestMatch) {
    using quern::text::Regex;
    std::uint32_t seed = 1;
    auto random = [&](std::uint32_t n) { return seed = seed * 1664525u + 1013904223u, (seed >> 8) % n; };
    std::size_t matches = 0;
    for (const char* pattern : {"a|ab", "a*", "(ab|c)+", "b+a?", "[^a]", "c.a", "(a|b)*c", "ba*|a", "\xc3\xa9+", "x"}) {
        const Regex regex(pattern);
        for (int round = 0; round < 60; ++round) {
            std::string text;
            for (std::uint32_t k = random(12); k > 0; --k) text += std::array<const char*, 4>{"a", "b", "c", "\xc3\xa9"}[random(4)];
            std::vector<std::size_t> at{0};
            while (at.back() < text.size()) {
                std::size_t next = at.back();
                quern::text::next_code_point(text, next);
                at.push_back(next);
            }
            const std::size_t from = at[random(static_cast<std::uint32_t>(at.size()))];
            bool want = false, got;
            std::size_t wb = 0, we = 0, b = 0, e = 0;
            for (std::size_t i : at)
                for (std::size_t j : at)
                    if (i >= from && j >= i && (!want || i == wb) && regex.matches(std::string_view(text).substr(i, j - i))) want = true, wb = i, we = j;
            got = regex.find(text, from, b, e);
            ASSERT_EQ(got, want) << pattern << " in " << text << " from " << from;
            if (!want) continue;
            ++matches;
            ASSERT_EQ(std::pair(b, e), std::pair(wb, we)) << pattern << " in " << text << " from " << from;
        }
    }
    EXPECT_GT(matches, 100u);
    std::size_t b = 0, e = 0;
    EXPECT_FALSE(Regex("^a").find("ba", 1, b, e));
    EXPECT_TRUE(Regex("(?m)^a").find("b\na", 1, b, e));
    EXPECT_FALSE(Regex("\\ba").find("ba", 1, b, e));
    EXPECT_TRUE(Regex("a$").find("aba", 0, b, e));
    EXPECT_EQ(b, 2u);
    EXPECT_FALSE(Regex("(a*)*b").find(std::string(20000, 'a'), 0, b, e));  // in linear time
    // Matches that each look as far as the end are given up, as are states by the hundred thousand.
    const std::string text(20000, 'a');
    const Regex far("a|a.*z");
    std::size_t left = Regex::budget(text);
    EXPECT_THROW(for (std::size_t i = 0; far.find(text, i, b, e, left); i = e) {}, quern::Error);
    EXPECT_THROW(Regex("((a?){300}){300}").matches(text), quern::Error);
}
std::vector<quern::onnx::Attribute> cut(std::string_view token, std::vector<std::string_view> separators, std::int64_t mark, std::int64_t least) {
    std::vector<quern::onnx::Attribute> a{attribute_s("pad_value", "#"), attribute_i("mark", mark), attribute_i("mincharnum", least)};
    if (!token.empty()) a.push_back(attribute_s("tokenexp", token));
    if (!separators.empty()) a.push_back(quern::onnx::attribute_strings("separators", separators));
    return a;
}
/// Answers of ONNX Runtime 1.32.
TEST(Tokenizer, AsOnnxRuntime) {
    struct Case {
        std::vector<std::string> in;
        std::string_view token;
        std::vector<std::string_view> separators;
        std::int64_t mark, least;
        std::vector<std::string> want;
    };
    for (auto& c : std::vector<Case>{
             {{"the cat sat", "", "a"}, "[a-z]+", {}, 0, 1, {"the", "cat", "sat", "#", "#", "#", "a", "#", "#"}},
             {{"the cat sat", "", "a"}, "[a-z]+", {}, 1, 1, {"\x02", "the", "cat", "sat", "\x03", "\x02", "\x03", "#", "#", "#", "\x02", "a", "\x03", "#", "#"}},
             {{"the cat sat", "", "a"}, "[a-z]+", {}, 0, 2, {"the", "cat", "sat", "#", "#", "#", "#", "#", "#"}},
             {{"", "!"}, "[a-z]+", {}, 0, 1, {}},
             {{"", ""}, "[a-z]+", {}, 1, 1, {}},
             {{"a\xc3\xa9" "b\nc", "x"}, ".", {}, 0, 1, {"a", "\xc3\xa9", "b", "\n", "c", "x", "#", "#", "#", "#"}},
             {{"a\xc3\xa9" "b\nc", "x"}, "", {""}, 1, 1, {"\x02", "a", "\xc3\xa9", "b", "\n", "c", "\x03", "\x02", "x", "\x03", "#", "#", "#", "#"}},
             {{"a b,,c", "x;y"}, "", {",", " "}, 0, 1, {"a", "b", "c", "x;y", "#", "#"}},
             {{"a b,,c", "x;y"}, "", {"[, ]+"}, 0, 1, {"a", "b", "c", "x;y", "#", "#"}},
             {{"abab", "b"}, "a|ab", {}, 0, 1, {"ab", "ab", "#", "#"}},
             {{"abc"}, "x*", {}, 0, 1, {}},
             {{"abc"}, "", {"x*"}, 0, 1, {}},
             {{"ab"}, "a", {"b"}, 0, 1, {"a"}},
             {{"^ab\nab"}, "^a", {}, 0, 1, {}},
             {{"aa bb"}, "\\bb", {}, 0, 1, {"b"}},
             {{"ab1 c"}, "\\w\\w+", {}, 0, 1, {"ab1"}},
             {{"a,b c", "d"}, "", {",", " "}, 0, 2, {}}}) {
        const auto rows = static_cast<std::int64_t>(c.in.size());
        for (bool matrix : {false, true}) {
            auto y = run_op("Tokenizer", {Tensor::from_strings(c.in, matrix ? quern::Shape{1, rows} : quern::Shape{rows})}, cut(c.token, c.separators, c.mark, c.least), 20, 1, {}, {}, "com.microsoft")[0];
            const std::int64_t most = static_cast<std::int64_t>(c.want.size()) / rows;
            EXPECT_EQ(y.shape(), matrix ? (quern::Shape{1, rows, most}) : (quern::Shape{rows, most})) << c.token;
            EXPECT_EQ(std::vector<std::string>(y.strings().begin(), y.strings().end()), c.want) << c.token;
        }
    }
    auto refused = [](std::string_view token, std::vector<std::string_view> separators, std::int64_t least) {
        EXPECT_THROW(run_op("Tokenizer", {Tensor::from_strings(std::vector<std::string>{"a"}, {1})}, cut(token, std::move(separators), 0, least), 20, 1, {}, {}, "com.microsoft"), quern::Error);
    };
    refused("a", {}, 0);
    refused("", {}, 1);
    refused("", {""}, 2);
    refused("(", {}, 1);
    EXPECT_EQ(run_op("Tokenizer", {Tensor::from_strings(std::vector<std::string>{}, {2, 0})}, cut("a", {}, 1, 1), 20, 1, {}, {}, "com.microsoft")[0].shape(), (quern::Shape{2, 0, 0}));
}
/// Answers of ONNX Runtime 1.32.
TEST(MurmurHash, AsOnnxRuntime) {
    auto hash = [](const Tensor& x, std::vector<quern::onnx::Attribute> a) { return run_op("MurmurHash3", {x}, std::move(a), 20, 1, {}, {}, "com.microsoft")[0]; };
    auto is = [](const Tensor& y, std::vector<std::uint32_t> want) {
        ASSERT_EQ(static_cast<std::size_t>(y.count()), want.size());
        EXPECT_EQ(0, std::memcmp(y.raw(), want.data(), y.bytes()));
    };
    const Tensor words = Tensor::from_strings(std::vector<std::string>{"foo", "", "quern", "a", "h\xc3\xa9llo w\xc3\xb6rld"}, {5});
    const Tensor plain = hash(words, {attribute_i("positive", 0)});
    EXPECT_EQ(plain.dtype(), DType::i32);
    expect_near(plain, t<std::int32_t>({5}, {-156908512, 0, -2011352240, 1009084850, -1745358220}));
    EXPECT_EQ(hash(words, {}).dtype(), DType::u32);
    is(hash(words, {attribute_i("seed", 42)}), {2972666014u, 142593372u, 2578400775u, 3001393763u, 857211688u});
    is(hash(t<std::int32_t>({3}, {3, -1, 0}), {}), {847579505u, 1982413648u, 593689054u});
    is(hash(ints({3}, {3, -1, 0}), {}), {2738575283u, 1651860712u, 1669671676u});
    is(hash(floats({3}, {3, -1, 0}), {}), {6814352u, 1363603589u, 593689054u});
    is(hash(t<double>({3}, {3, -1, 0}), {}), {3554953595u, 3800686449u, 1669671676u});
}
TEST(Strings, SplittingKeepsItsCounts) {
    std::vector<std::string> in = {"a,b,,c", "", ","};
    auto y = run_op("StringSplit", {Tensor::from_strings(in, {3})}, {attribute_s("delimiter", ",")}, 20, 2);
    ASSERT_EQ(y[0].shape(), (quern::Shape{3, 4}));
    expect_near(y[1], ints({3}, {4, 1, 2}));
    EXPECT_EQ(y[0].strings()[3], "c");
    in = {"  x  y ", "\t", "one two three"};
    y = run_op("StringSplit", {Tensor::from_strings(in, {3})}, {attribute_i("maxsplit", 1)}, 20, 2);
    expect_near(y[1], ints({3}, {2, 0, 2}));
    EXPECT_EQ(y[0].strings()[5], "two three");
}

}  // namespace
