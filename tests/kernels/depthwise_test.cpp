// Rows of depthwise convolutions: against double, and the same bits however many go together.
#include <cmath>
#include <cstring>
#include <random>

#include <quern/kernels/vec/images.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using namespace quern_test;

struct Rows {
    std::int64_t kh, kw, stride, pad, in, channels, px, n;  ///< in: pixels of a row; px: floats from pixel to pixel; n: output rows
};
std::string text(const Rows& c, Isa isa, vec::Post post) {
    return std::string(isa_name(isa)) + " post " + std::to_string(static_cast<int>(post)) + " " + std::to_string(c.kh) + "x" + std::to_string(c.kw) + " stride " + std::to_string(c.stride) + " pad " +
           std::to_string(c.pad) + " of " + std::to_string(c.in) + " pixels, " + std::to_string(c.channels) + " channels, " + std::to_string(c.n) + " rows";
}
void check(const Rows& c, vec::Post post, bool bias, bool residual, std::mt19937& rng) {
    const std::int64_t out = (c.in + 2 * c.pad - c.kw) / c.stride + 1, rows = (c.n - 1) * c.stride + c.kh, y_row = out * c.px + 3;
    if (c.in + 2 * c.pad < c.kw) return;
    std::uniform_real_distribution<float> d(-1, 1);
    auto values = [&](std::int64_t n) {
        std::vector<float> v(static_cast<std::size_t>(n));
        for (float& x : v) x = d(rng);
        return v;
    };
    const std::vector<float> x = values(rows * c.in * c.px), w = values(c.kh * c.kw * c.channels), b = values(c.channels), add = values(c.n * y_row);
    std::vector<const float*> at;
    for (std::int64_t i = 0; i < rows; ++i) at.push_back(x.data() + i * c.in * c.px);
    vec::ConvShape s{};
    for (int i = 0; i < 3; ++i) s.in[i] = s.out[i] = s.kernel[i] = s.stride[i] = s.dilation[i] = 1;
    s.in[1] = rows, s.in[2] = c.in, s.out[1] = c.n, s.out[2] = out, s.kernel[1] = c.kh, s.kernel[2] = c.kw, s.stride[1] = s.stride[2] = c.stride, s.pad[2] = c.pad;
    s.channels = c.channels, s.in_channels = s.out_channels = c.px;
    vec::Epilogue e;
    e.post = post, e.alpha = -0.4f, e.beta = 0.6f;
    if (bias) e.bias_row = b.data();
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (isa > best_isa()) continue;
        SCOPED_TRACE(text(c, isa, post));
        const vec::ImageTable& t = vec::image_table(isa);
        std::vector<float> y(static_cast<std::size_t>(c.n * y_row), -7.f), one(y);
        if (residual) e.residual = add.data();
        t.depthwise_rows_f32(s, c.n, at.data(), w.data(), c.channels, y.data(), y_row, e);
        for (std::int64_t r = 0; r < c.n; ++r) {
            if (residual) e.residual = add.data() + r * y_row;
            t.depthwise_rows_f32(s, 1, at.data() + r * c.stride, w.data(), c.channels, one.data() + r * y_row, y_row, e);
        }
        ASSERT_EQ(std::memcmp(y.data(), one.data(), y.size() * sizeof(float)), 0) << "rows together and one by one differ";
        for (std::int64_t r = 0; r < c.n; ++r)
            for (std::int64_t o = 0; o < out; ++o)
                for (std::int64_t k = 0; k < c.px; ++k) {
                    const std::size_t i = static_cast<std::size_t>(r * y_row + o * c.px + k);
                    if (k >= c.channels) {
                        ASSERT_EQ(y[i], -7.f) << "written beyond the channels";
                        continue;
                    }
                    double v = bias ? b[static_cast<std::size_t>(k)] : 0;
                    for (std::int64_t h = 0; h < c.kh; ++h)
                        for (std::int64_t q = 0; q < c.kw; ++q)
                            if (std::int64_t p = o * c.stride - c.pad + q; p >= 0 && p < c.in)
                                v += static_cast<double>(at[static_cast<std::size_t>(r * c.stride + h)][p * c.px + k]) * w[static_cast<std::size_t>((h * c.kw + q) * c.channels + k)];
                    if (residual) v += add[i];
                    if (post == vec::Post::relu) v = std::max(v, 0.0);
                    if (post == vec::Post::clip) v = std::min(std::max(v, -0.4f + 0.0), 0.6f + 0.0);
                    if (post == vec::Post::hard_swish) v *= std::min(std::max(v / 6 + 0.5, 0.0), 1.0);
                    ASSERT_NEAR(y[i], v, 2e-6 * static_cast<double>(c.kh * c.kw)) << "row " << r << " pixel " << o << " channel " << k;
                }
    }
}
TEST(DepthwiseRows, FollowDoubleAndKeepTheirBits) {
    std::mt19937 rng(seed());
    const std::int64_t kinds[][3] = {{3, 3, 1}, {3, 3, 2}, {5, 5, 1}, {5, 5, 2}, {7, 7, 1}, {7, 7, 2}, {1, 3, 1}, {4, 5, 2}, {2, 2, 1}, {6, 1, 1}};
    for (auto [kh, kw, stride] : kinds)
        for (std::int64_t in : {1, 3, 6, 7, 10, 14, 23}) {
            const std::int64_t channels = 1 + static_cast<std::int64_t>(rng() % 70), n = 1 + static_cast<std::int64_t>(rng() % 5), pad = static_cast<std::int64_t>(rng() % static_cast<unsigned>(kw + 1));
            const vec::Post posts[] = {vec::Post::none, vec::Post::relu, vec::Post::clip, vec::Post::hard_swish};
            check({kh, kw, stride, pad, in, channels, channels + static_cast<std::int64_t>(rng() % 3), n}, posts[rng() % 4], rng() % 2, rng() % 4 == 0, rng);
            check({kh, kw, stride, kw / 2, in, 32, 32, 4}, vec::Post::relu, true, false, rng);
        }
}
}  // namespace
