// 8-bit products, convolutions and pairs against sums in 64 bits, at every instruction set.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include <quern/base/cpu_info.hpp>
#include <quern/kernels/quant/conv_8.hpp>
#include <quern/kernels/quant/elementwise_8.hpp>
#include <quern/kernels/quant/matmul_8.hpp>

#include "support/kernel_harness.hpp"

using namespace quern;
using namespace quern::quant;

namespace {

constexpr Isa isas[] = {Isa::baseline, Isa::avx2, Isa::avx512};

std::vector<std::uint8_t> bytes(std::size_t n, std::mt19937& g) {
    std::vector<std::uint8_t> v(n);
    for (auto& x : v) x = static_cast<std::uint8_t>(g());
    return v;
}
std::int64_t value(std::uint8_t b, bool is_unsigned) { return is_unsigned ? std::int64_t{b} : std::int64_t{static_cast<std::int8_t>(b)}; }

TEST(QuantLoops, ProductsAreExact) {
    std::mt19937 g(7);
    for (Isa isa : isas) {
        const Loops& l = loops(isa);
        for (auto [m, n, taps, quads] : {std::array<std::int64_t, 4>{1, 1, 1, 1}, {13, 130, 1, 9}, {7, 16, 9, 2}, {6, 64, 2, 8}, {5, 33, 3, 1}, {4, 96, 1, 0}}) {
            std::int64_t k = taps * quads * 4;
            auto a = bytes(static_cast<std::size_t>(m * k), g), b = bytes(static_cast<std::size_t>(n * k), g);
            std::vector<std::int8_t> packed(static_cast<std::size_t>(packed_size(l, n, k)) + 1, 99);
            std::vector<std::int32_t> sums(static_cast<std::size_t>(padded(n, l.panel))), add(sums.size()), zeros(sums.size()), row_sums(static_cast<std::size_t>(m));
            Columns columns{b.data(), false, n, k, k, std::max<std::int64_t>(1, k), 0, 1};
            pack_panels(l, columns, 0, panels_of(l, n), packed.data(), sums.data());
            EXPECT_EQ(packed.back(), 99);
            std::vector<const std::uint8_t*> rows;
            for (std::int64_t t = 0; t < taps; ++t)
                for (std::int64_t r = 0; r < m; ++r) rows.push_back(a.data() + r * k + t * quads * 4);
            for (bool flip : {false, true}) {
                for (std::size_t i = 0; i < add.size(); ++i) add[i] = static_cast<std::int32_t>(i) - 5, zeros[i] = static_cast<std::int32_t>(i % 7) - 3;
                Rows left{rows.data(), m, m, taps, quads, flip};
                l.row_sums(left, row_sums.data());
                std::vector<std::int32_t> y(static_cast<std::size_t>(m * n) + 1, 77);
                Finish f{DType::i32, add.data(), zeros.data(), row_sums.data(), nullptr, nullptr, 0, 0, 0, y.data(), n};
                l.product(left, packed.data(), n, f);
                for (std::int64_t r = 0; r < m; ++r)
                    for (std::int64_t j = 0; j < n; ++j) {
                        std::int64_t want = add[j];
                        for (std::int64_t i = 0; i < k; ++i)
                            want += (value(a[r * k + i], !flip) + (flip ? 128 : 0)) * (value(b[j * k + i], false) - zeros[j]);
                        ASSERT_EQ(y[r * n + j], want) << l.name << " " << m << "x" << n << "x" << k << " at " << r << ", " << j;
                    }
                EXPECT_EQ(y[m * n], 77);
            }
        }
    }
}
TEST(QuantLoops, ExtremesDoNotSaturate) {
    // 255 * -128 four times is beyond 16 bits, where pairs of products would saturate.
    for (Isa isa : isas) {
        const Loops& l = loops(isa);
        std::vector<std::uint8_t> a(64, 255), b(64, 0x80);
        std::vector<std::int8_t> packed(static_cast<std::size_t>(packed_size(l, 1, 64)));
        std::vector<std::int32_t> sums(static_cast<std::size_t>(l.panel)), add(sums.size(), 0);
        pack_panels(l, {b.data(), false, 1, 64, 64, 64, 0, 1}, 0, 1, packed.data(), sums.data());
        const std::uint8_t* p = a.data();
        std::int32_t y = 0;
        Finish f{DType::i32, add.data(), nullptr, nullptr, nullptr, nullptr, 0, 0, 0, &y, 1};
        l.product({&p, 1, 1, 1, 16, false}, packed.data(), 1, f);
        EXPECT_EQ(y, 64 * 255 * -128) << l.name;
        EXPECT_EQ(sums[0], 64 * -128);
    }
}
TEST(QuantLoops, ResultsRoundHalfToEvenAndStayInBounds) {
    std::vector<std::int32_t> inputs = {0, 1, 3, 5, -1, -3, 1000000, -1000000, 2, 20, 21};
    for (Isa isa : isas) {
        const Loops& l = loops(isa);
        std::int64_t n = static_cast<std::int64_t>(inputs.size());
        std::vector<std::int32_t> add(static_cast<std::size_t>(padded(n, l.panel)), 0);
        std::copy(inputs.begin(), inputs.end(), add.begin());
        std::vector<float> scale(add.size(), 0.5f);
        scale[8] = NAN;
        std::vector<std::int8_t> none(64);
        const std::uint8_t* p = reinterpret_cast<const std::uint8_t*>(none.data());
        std::vector<std::uint8_t> y(static_cast<std::size_t>(n) + 1, 7);
        Finish f{DType::u8, add.data(), nullptr, nullptr, scale.data(), nullptr, 10, 3, 19, y.data(), n};
        l.product({&p, 1, 1, 1, 0, false}, none.data(), n, f);
        const std::uint8_t want[] = {10, 10, 12, 12, 10, 8, 19, 3, 3, 19, 19, 7};
        for (std::int64_t i = 0; i <= n; ++i) EXPECT_EQ(y[i], want[i]) << l.name << " " << i;
    }
}
TEST(QuantLoops, DepthwiseIsExact) {
    std::mt19937 g(9);
    for (Isa isa : isas) {
        const Loops& l = loops(isa);
        for (std::int64_t channels : {1, 8, 16, 37, 64})
            for (std::int64_t taps : {1, 2, 9, 25})
                for (bool is_signed : {false, true}) {
                    auto x = bytes(static_cast<std::size_t>(2 * taps * channels), g);
                    std::vector<std::int32_t> pairs(static_cast<std::size_t>((taps + 1) / 2 * channels)), w(static_cast<std::size_t>(taps * channels)), add(static_cast<std::size_t>(padded(channels, l.panel)), 3);
                    for (std::int64_t t = 0; t < taps; ++t)
                        for (std::int64_t c = 0; c < channels; ++c) {
                            std::int32_t v = w[t * channels + c] = static_cast<std::int32_t>(g() % 511) - 255;
                            pairs[t / 2 * channels + c] |= static_cast<std::int32_t>(static_cast<std::uint32_t>(static_cast<std::uint16_t>(v)) << (16 * (t % 2)));
                        }
                    std::vector<const std::uint8_t*> rows;
                    for (std::int64_t t = 0; t < taps; ++t)
                        for (int r = 0; r < 2; ++r) rows.push_back(x.data() + (r * taps + t) * channels);
                    std::vector<std::int32_t> y(static_cast<std::size_t>(2 * channels));
                    Finish f{DType::i32, add.data(), nullptr, nullptr, nullptr, nullptr, 0, 0, 0, y.data(), channels};
                    l.depthwise({rows.data(), 2, 2, taps, 0, false}, channels, pairs.data(), is_signed, f);
                    for (int r = 0; r < 2; ++r)
                        for (std::int64_t c = 0; c < channels; ++c) {
                            std::int64_t want = 3;
                            for (std::int64_t t = 0; t < taps; ++t) want += w[t * channels + c] * value(rows[t * 2 + r][c], !is_signed);
                            ASSERT_EQ(y[r * channels + c], want) << l.name << " " << channels << " channels, " << taps << " taps";
                        }
                }
    }
}
TEST(QuantLoops, PairsAndRanges) {
    std::mt19937 g(11);
    for (Isa isa : isas) {
        const Loops& l = loops(isa);
        auto a = bytes(77, g), b = bytes(77, g);
        for (bool is_unsigned : {true, false})
            for (bool product : {false, true})
                for (int steps : {3, 1, 2, 0}) {
                    std::int64_t sa = steps & 1, sb = steps >> 1;
                    Pairwise k{product ? 0.003f : 0.7f, 0.4f, -3.25f, 12, -7, 5, product, is_unsigned};
                    std::vector<std::uint8_t> y(78, 1);
                    l.pairwise(k, a.data(), sa, b.data(), sb, y.data(), 77);
                    EXPECT_EQ(y[77], 1);
                    for (int i = 0; i < 77; ++i) {
                        double u = double(value(a[i * sa], is_unsigned)), v = double(value(b[i * sb], is_unsigned));
                        double x = product ? (u - 12) * (v + 7) * 0.003f : u * 0.7f + v * 0.4f - 3.25;
                        double want = std::clamp(x + 5, is_unsigned ? 0.0 : -128.0, is_unsigned ? 255.0 : 127.0);
                        ASSERT_LE(std::abs(double(value(y[i], is_unsigned)) - want), 0.5001) << l.name;
                    }
                }
        std::vector<float> x(45);
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 37 % 45)) - 20;
        x[3] = x[40] = NAN;
        for (std::size_t n : {std::size_t{1}, std::size_t{5}, std::size_t{45}}) {
            float low, high, least = INFINITY, most = -INFINITY;
            l.range(x.data(), static_cast<std::int64_t>(n), &low, &high);
            for (std::size_t i = 0; i < n; ++i) least = std::fmin(least, x[i]), most = std::fmax(most, x[i]);
            EXPECT_EQ(low, least);
            EXPECT_EQ(high, most);
        }
    }
}
TEST(QuantLoops, HalvesAreConvertedExactly) {
    std::vector<std::uint16_t> all(65536 + 5), back(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
    std::vector<float> wide(all.size());
    for (Isa isa : isas) {
        const Loops& l = loops(isa);
        l.widen_half(all.data(), wide.data(), static_cast<std::int64_t>(all.size()));
        for (std::size_t i = 0; i < all.size(); ++i) {
            float want = to_float(Half{all[i]});
            if (want != want) { ASSERT_NE(wide[i], wide[i]) << l.name << " " << i; continue; }
            ASSERT_EQ(std::bit_cast<std::uint32_t>(wide[i]), std::bit_cast<std::uint32_t>(want)) << l.name << " " << i;
        }
        l.narrow_half(wide.data(), back.data(), static_cast<std::int64_t>(all.size()));
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (wide[i] != wide[i]) { ASSERT_NE(to_float(Half{back[i]}), to_float(Half{back[i]})) << l.name << " " << i; continue; }
            ASSERT_EQ(back[i], all[i]) << l.name;
        }
        // Around every tie, overflow and the smallest values.
        std::vector<float> near;
        for (std::uint32_t h = 0; h < 0x7c00; h += 3) {
            float a = to_float(Half{static_cast<std::uint16_t>(h)}), b = h + 1 < 0x7c00 ? to_float(Half{static_cast<std::uint16_t>(h + 1)}) : 65536.f, mid = a + (b - a) / 2;
            for (float v : {mid, std::nextafter(mid, 0.f), std::nextafter(mid, 1e9f), -mid}) near.push_back(v);
        }
        for (float v : {65519.f, 65520.f, 1e30f, 1e-30f, -0.f, 0.f, INFINITY, -INFINITY}) near.push_back(v);
        back.assign(near.size(), 0);
        l.narrow_half(near.data(), back.data(), static_cast<std::int64_t>(near.size()));
        for (std::size_t i = 0; i < near.size(); ++i) ASSERT_EQ(back[i], to_half(near[i]).bits) << l.name << " " << near[i];
    }
}
TEST(QuantLoops, TheCapIsRespected) {
    EXPECT_EQ(std::string(loops(Isa::baseline).name), "baseline");
    EXPECT_EQ(std::string(loops(Isa::avx2).name).find("avx512"), std::string::npos);
    if (machine_vnni(Isa::avx512)) { EXPECT_EQ(std::string(loops(Isa::avx512).name), "avx512_vnni"); }
}

}  // namespace
