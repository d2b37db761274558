// Transposed convolutions as convolutions of remainders against their definition in double, for each instruction set; which convolutions conv.line takes
// (its answers are compared in conv_test.cpp).
#include <quern/kernels/conv_transpose/phases.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using namespace quern_test;

struct Case {
    std::int64_t images, channels;
    Dims in;
    std::int64_t m;
    Dims kernel, strides, pads = {}, output_padding = {};
    std::int64_t group = 1;  ///< channels and m: of all groups
    bool bias = true;
};
void check(const Case& c, std::mt19937& rng) {
    const std::size_t n = c.in.size();
    const std::int64_t cg = c.channels / c.group, mg = c.m / c.group;
    conv_transpose::Problem p;
    p.window.kernel = c.kernel, p.window.strides = c.strides, p.window.pads = c.pads.empty() ? Dims(2 * n, 0) : c.pads, p.window.dilations = Dims(n, 1);
    p.output_padding = c.output_padding.empty() ? Dims(n, 0) : c.output_padding, p.group = c.group, p.has_bias = c.bias;
    Dims dx{c.images, c.channels}, dw{c.channels, mg}, dy{c.images, c.m};
    for (std::size_t d = 0; d < n; ++d) {
        dx.push_back(c.in[d]), dw.push_back(c.kernel[d]);
        dy.push_back((c.in[d] - 1) * c.strides[d] + c.kernel[d] + p.output_padding[d] - p.window.pads[d] - p.window.pads[n + d]);
        ASSERT_GT(dy.back(), 0);
    }
    // In two dimensions, of which the first is 1 where there is one.
    auto at2 = [&](const Dims& v, std::size_t d, std::int64_t otherwise) { return d + n < 2 ? otherwise : v[d + n - 2]; };
    const std::int64_t ih = at2(c.in, 0, 1), iw = at2(c.in, 1, 1), kh = at2(c.kernel, 0, 1), kw = at2(c.kernel, 1, 1), sh = at2(c.strides, 0, 1), sw = at2(c.strides, 1, 1);
    const std::int64_t oh = n == 2 ? dy[2] : 1, ow = dy.back(), ph = at2(p.window.pads, 0, 0), pw = n == 2 ? p.window.pads[1] : p.window.pads[0];
    auto x = random_values(rng, count_of(dx)), w = random_values(rng, count_of(dw)), b = random_values(rng, c.m);
    std::vector<double> want(static_cast<std::size_t>(count_of(dy))), mass(want.size());
    for (std::int64_t plane = 0; plane < c.images * c.m; ++plane) {
        const std::int64_t m = plane % c.m;
        double *y = want.data() + plane * oh * ow, *s = mass.data() + plane * oh * ow;
        if (c.bias) std::fill_n(y, oh * ow, b[static_cast<std::size_t>(m)]);
        for (std::int64_t k = 0; k < cg; ++k)
            for (std::int64_t i = 0; i < ih * iw; ++i)
                for (std::int64_t t = 0; t < kh * kw; ++t) {
                    const std::int64_t r = i / iw * sh + t / kw - ph, o = i % iw * sw + t % kw - pw, channel = m / mg * cg + k;
                    if (r < 0 || r >= oh || o < 0 || o >= ow) continue;
                    const double v = x[static_cast<std::size_t>((plane / c.m * c.channels + channel) * ih * iw + i)] * w[static_cast<std::size_t>((channel * mg + m % mg) * kh * kw + t)];
                    y[r * ow + o] += v, s[r * ow + o] += std::abs(v);
                }
    }
    Guarded gx(DType::f32, dx, x), gw(DType::f32, dw, w), gb(DType::f32, {c.m}, b), y(DType::f32, dy);
    const double terms = std::sqrt(static_cast<double>(cg * kh * kw + 1));
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (isa > best_isa()) continue;
        SCOPED_TRACE(isa_name(isa));
        ASSERT_TRUE(conv_transpose::takes_phases(p, gw.tensor(), Dims(n, -1)));
        conv_transpose::Phases kernel(p, gw.tensor(), Target{isa, {}, nullptr});
        std::vector<View> in{gx.view(), gw.view(), c.bias ? gb.view() : View{}};
        in[1].data = nullptr;
        run_kernel(kernel, in, y);
        for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(y.get(i), want[i], 2e-6 * (terms * mass[i] + 1)) << "element " << i;
    }
}
TEST(ConvTransposePhases, MatchTheDefinition) {
    std::mt19937 rng(seed());
    const Case cases[] = {
        {1, 16, {50}, 8, {16}, {8}, {4, 4}},
        {2, 3, {17}, 5, {4}, {2}, {1, 1}},
        {1, 1, {1}, 1, {1}, {1}},
        {1, 2, {40}, 3, {7}, {3}, {2, 0}, {1}},
        {1, 4, {9}, 4, {3}, {5}},                   // a stride beyond the kernel: outputs of the bias alone
        {1, 6, {33}, 4, {10}, {4}, {9, 9}, {3}, 2}, // padding of more than a stride
        {1, 8, {20}, 8, {8}, {4}, {2, 2}, {}, 8, false},
        {1, 65, {30}, 1, {64}, {16}},
        {1, 12, {700}, 24, {5}, {1}, {2, 2}},
        {1, 128, {3}, 160, {4}, {2}, {1, 1}},       // row blocks are shared out
        {1, 5, {7, 9}, 3, {4, 4}, {2, 2}, {1, 1, 1, 1}},
        {2, 8, {6, 5}, 4, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, 2},
        {1, 2, {1, 40}, 3, {2, 3}, {1, 2}, {0, 1, 1, 1}},
        {1, 3, {20, 70}, 6, {3, 5}, {3, 4}, {2, 0, 0, 3}},
        {1, 32, {33, 31}, 20, {2, 2}, {2, 2}},      // several tiles of rows
        {1, 4, {4, 4}, 5, {5, 1}, {1, 1}, {2, 0, 2, 0}},
        {1, 1, {3, 2}, 1, {1, 9}, {2, 8}, {0, 4, 0, 4}},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(std::to_string(&c - cases));
        check(c, rng);
    }
}
TEST(ConvTransposePhases, RefuseWhatTheyCannotDo) {
    conv_transpose::Problem p;
    p.window.kernel = {3}, p.window.strides = {1}, p.window.pads = {0, 0}, p.window.dilations = {1}, p.output_padding = {0};
    const Tensor w(DType::f32, {2, 2, 3});
    EXPECT_TRUE(conv_transpose::takes_phases(p, w, {-1}));
    EXPECT_TRUE(conv_transpose::takes_phases(p, w, {8}));
    EXPECT_FALSE(conv_transpose::takes_phases(p, w, {1}));
    EXPECT_FALSE(conv_transpose::takes_phases(p, Tensor(), {-1}));
    conv_transpose::Problem flat = p;
    flat.window.kernel = {4, 4}, flat.window.strides = {2, 2}, flat.window.pads = {0, 0, 0, 0}, flat.window.dilations = {1, 1}, flat.output_padding = {0, 0};
    EXPECT_TRUE(conv_transpose::takes_phases(flat, Tensor(DType::f32, {256, 2, 4, 4}), {64, 64}));
    EXPECT_FALSE(conv_transpose::takes_phases(flat, Tensor(DType::f32, {256, 2, 4, 4}), {16, 16}));
    EXPECT_TRUE(conv_transpose::takes_phases(flat, Tensor(DType::f32, {32, 2, 4, 4}), {16, 16}));
    p.window.dilations = {2};
    EXPECT_FALSE(conv_transpose::takes_phases(p, w, {-1}));
    p.window.dilations = {1}, p.window.strides = {7};
    EXPECT_FALSE(conv_transpose::takes_phases(p, w, {-1}));
}

TEST(ConvLine, RefusesWhatOthersDoBetter) {
    conv::Problem p;
    p.window.kernel = {3}, p.window.strides = {1}, p.window.pads = {1, 1}, p.window.dilations = {1};
    p.w = Tensor(DType::f32, {8, 8, 3});
    const Target target{best_isa(), {}, nullptr};
    EXPECT_EQ(conv::refuse_line(p, target), "");
    auto refused = [&](auto change) {
        conv::Problem q = p;
        change(q);
        return !conv::refuse_line(q, target).empty();
    };
    EXPECT_TRUE(refused([](auto& q) { q.layout = conv::Layout::nhwc; }));
    EXPECT_TRUE(refused([](auto& q) { q.dtype = DType::f64; }));
    EXPECT_TRUE(refused([](auto& q) { q.w = Tensor(); }));
    EXPECT_TRUE(refused([](auto& q) { q.w = Tensor(DType::f32, {384, 80, 3}); }));
    EXPECT_TRUE(refused([](auto& q) { q.window.dilations = {std::int64_t{1} << 60}; }));
    EXPECT_TRUE(refused([](auto& q) { q.window.pads = {std::int64_t{1} << 40, 0}; }));
    auto picture = [&](Dims kernel) {
        return refused([&](auto& q) {
            q.w = Tensor(DType::f32, {1, 1, kernel[0], kernel[1]});
            q.window.kernel = kernel, q.window.strides = {1, 1}, q.window.pads = {0, 0, 0, 0}, q.window.dilations = {1, 1};
        });
    };
    EXPECT_FALSE(picture({1, 33}));
    EXPECT_TRUE(picture({3, 3}));
    EXPECT_TRUE(picture({1, 1}));
}
}  // namespace
