// Every kernel of kernels/conv/kernels.inc against the oracle, in both layouts.
#include <quern/kernels/conv/reference.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using namespace quern_test;

struct Case {
    Dims x;  ///< [N, C, d...]
    std::int64_t m;
    Dims kernel;
    Dims strides = {}, pads = {}, dilations = {};  ///< empty: 1, 0, 1
    std::int64_t group = 1;
    bool bias = true, residual = false;
    vec::Post post = vec::Post::none;
    DType dtype = DType::f32;
    conv::AutoPad auto_pad = conv::AutoPad::notset;
    bool gate = false;
};
/// Moves the channel dimension of a [N, C, d...] list to the end.
std::vector<double> to_nhwc(const std::vector<double>& v, const Dims& d) {
    std::vector<double> r(v.size());
    std::int64_t plane = 1;
    for (std::size_t i = 2; i < d.size(); ++i) plane *= d[i];
    for (std::int64_t n = 0; n < d[0]; ++n)
        for (std::int64_t c = 0; c < d[1]; ++c)
            for (std::int64_t p = 0; p < plane; ++p) r[(n * plane + p) * d[1] + c] = v[(n * d[1] + c) * plane + p];
    return r;
}
Dims nhwc_dims(const Dims& d) {
    Dims r{d[0]};
    r.insert(r.end(), d.begin() + 2, d.end());
    r.push_back(d[1]);
    return r;
}
void check(const Case& c, std::mt19937& rng) {
    conv::Problem p;
    std::size_t n = c.kernel.size();
    p.dtype = c.dtype;
    p.window.kernel = c.kernel;
    p.window.strides = c.strides.empty() ? Dims(n, 1) : c.strides;
    p.window.pads = c.pads.empty() ? Dims(2 * n, 0) : c.pads;
    p.window.dilations = c.dilations.empty() ? Dims(n, 1) : c.dilations;
    p.window.auto_pad = c.auto_pad;
    p.group = c.group;
    p.channels = c.x[1];
    p.out_channels = c.m;
    p.has_bias = c.bias;
    p.has_residual = c.residual;
    p.post = c.post;
    p.post_alpha = -0.4f;
    p.post_beta = 0.6f;
    Dims out, y{c.x[0], c.m}, w{c.m, c.x[1] / c.group};
    for (std::size_t d = 0; d < n; ++d) {
        std::int64_t reach = (p.window.kernel[d] - 1) * p.window.dilations[d] + 1, s = p.window.strides[d], in = c.x[2 + d];
        std::int64_t o = (in + p.window.pads[d] + p.window.pads[n + d] - reach) / s + 1;
        if (c.auto_pad == conv::AutoPad::valid) o = (in - reach) / s + 1;
        else if (c.auto_pad != conv::AutoPad::notset) o = (in + s - 1) / s;
        out.push_back(o);
        y.push_back(o);
        w.push_back(c.kernel[d]);
    }
    auto vx = random_values(rng, count_of(c.x)), vw = random_values(rng, count_of(w));
    auto vb = c.bias ? random_values(rng, c.m) : std::vector<double>{};
    auto vr = c.residual ? random_values(rng, count_of(y)) : std::vector<double>{};
    p.has_gate = c.gate;
    auto vg = c.gate ? random_values(rng, c.x[0] * c.x[1]) : std::vector<double>{}, scaled = vx;
    for (std::size_t i = 0; c.gate && i < scaled.size(); ++i) scaled[i] *= vg[i / static_cast<std::size_t>(count_of(c.x) / (c.x[0] * c.x[1]))];
    auto want = conv::reference(p, c.x, scaled, c.m, vw, vb, vr, out);
    Dims one(c.x.size(), 1);
    one.front() = c.x[0], one.back() = c.x[1];
    Guarded gate(c.dtype, one, vg.empty() ? std::vector<double>(static_cast<std::size_t>(count_of(one))) : vg);
    int gated = 0;
    Guarded weights(c.dtype, w, vw), bias(c.dtype, {c.m}, vb.empty() ? std::vector<double>(static_cast<std::size_t>(c.m)) : vb);
    for (conv::Layout layout : {conv::Layout::nchw, conv::Layout::nhwc}) {
        bool last = layout == conv::Layout::nhwc;
        p.layout = layout;
        Guarded x(c.dtype, last ? nhwc_dims(c.x) : c.x, last ? to_nhwc(vx, c.x) : vx);
        Guarded result(c.dtype, last ? nhwc_dims(y) : y);
        Guarded residual(c.dtype, last ? nhwc_dims(y) : y, vr.empty() ? vr : last ? to_nhwc(vr, y) : vr);
        auto expect = last ? to_nhwc(want.y, y) : want.y, tolerance = last ? to_nhwc(want.tolerance, y) : want.tolerance;
        std::vector<View> in{x.view(), weights.view(), c.bias ? bias.view() : View{}};
        if (c.residual || c.gate) in.push_back(c.residual ? residual.view() : View{});
        if (c.gate) in.push_back(gate.view());
        for (bool constant : {false, true}) {
            p.w = constant ? weights.tensor() : Tensor();
            for_each_kernel<conv::Problem>(Family::conv, linked_backends(), [&](const Entry<conv::Problem>& entry, const Target& target) {
                if (!entry.refuse(p, target).empty()) return;
                auto kernel = entry.make(p, target);
                gated += c.gate;
                auto views = in;
                if (constant) views[1].data = nullptr;
                run_kernel(*kernel, views, result);
                for (std::size_t i = 0; i < expect.size(); ++i)
                    ASSERT_NEAR(result.get(i), expect[i], tolerance[i]) << "element " << i << (last ? " nhwc" : " nchw") << (constant ? " constant W" : "");
            });
        }
    }
    EXPECT_EQ(c.gate, gated > 0);
}
const Case cases[] = {
    {{1, 3, 11, 13}, 8, {3, 3}, {}, {1, 1, 1, 1}},
    {{2, 16, 9, 9}, 40, {1, 1}},
    {{1, 16, 9, 9}, 24, {1, 1}, {2, 2}},
    {{1, 5, 12, 10}, 7, {3, 2}, {2, 1}, {0, 1, 1, 0}},
    {{1, 4, 15, 15}, 6, {3, 3}, {}, {2, 2, 2, 2}, {2, 2}},
    {{1, 3, 20, 21}, 16, {7, 7}, {2, 2}, {3, 3, 3, 3}},
    {{1, 8, 9, 9}, 12, {3, 3}, {}, {1, 1, 1, 1}, {}, 4},
    {{2, 6, 10, 11}, 6, {3, 3}, {}, {1, 1, 1, 1}, {}, 6},
    {{1, 37, 17, 17}, 37, {3, 3}, {2, 2}, {1, 1, 1, 1}, {}, 37},
    {{1, 20, 12, 40}, 20, {5, 5}, {}, {2, 2, 2, 2}, {}, 20},
    {{1, 6, 30, 30}, 12, {3, 3}, {}, {1, 1, 1, 1}, {}, 6},
    {{1, 4, 9, 9}, 4, {3, 3}, {}, {4, 4, 4, 4}, {3, 3}, 4},
    {{2, 5, 17}, 9, {3}, {2}, {1, 1}},
    {{1, 4, 30}, 4, {5}, {}, {2, 2}, {}, 4},
    {{1, 3, 5, 6, 7}, 10, {3, 2, 3}, {1, 2, 1}, {1, 0, 1, 1, 1, 1}},
    {{1, 4, 5, 6, 7}, 4, {3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}, 4},
    {{1, 130, 6, 6}, 33, {3, 3}, {}, {1, 1, 1, 1}},
    // Winograd's tiles by blocks with one worker, by panels with two, both shared with three; more images than workers; two blocks
    {{1, 16, 14, 14}, 128, {3, 3}, {}, {1, 1, 1, 1}, {}, 1, true, true, vec::Post::relu},
    {{5, 16, 11, 14}, 64, {3, 3}, {}, {1, 1, 1, 1}},
    {{1, 32, 26, 28}, 32, {3, 3}, {}, {1, 1, 1, 1}},
    // along a line: one channel and a long kernel, causal, dilated, strided, more taps than inputs, grouped, by rows of a picture
    {{1, 1, 1000}, 1, {301}, {}, {300, 0}},
    {{2, 2, 333}, 6, {65}, {}, {64, 0}, {}, 2},
    {{1, 8, 517}, 20, {3}, {}, {32, 0}, {16}, 1, true, true, vec::Post::leaky_relu},
    {{1, 3, 640}, 5, {16}, {5}, {8, 8}, {}, 1, true, false, vec::Post::relu},
    {{1, 4, 211}, 7, {4}, {6}, {3, 1}, {4}, 1, false, true, vec::Post::clip},
    {{3, 2, 5}, 9, {9}, {}, {8, 8}},
    {{1, 12, 300}, 12, {15}, {}, {7, 7}, {}, 12, true, false, vec::Post::hard_swish},
    {{1, 128, 40}, 128, {1}},
    {{1, 64, 1024}, 48, {3}, {}, {2, 2}, {2}},
    {{2, 1, 3, 400}, 2, {1, 33}, {}, {0, 16, 0, 16}},
    {{1, 2, 30}, 3, {1}, {3}},
    {{1, 2, 7}, 2, {3}, {}, {0, 9}, {4}, 1, true, false, vec::Post::none, DType::f32, conv::AutoPad::same_upper},
    {{1, 1, 1, 1}, 1, {1, 1}},
    {{0, 3, 5, 5}, 4, {3, 3}},
    {{1, 0, 5, 5}, 4, {3, 3}},
    {{1, 3, 2, 2}, 4, {3, 3}, {}, {3, 3, 3, 3}},
    {{1, 2, 40, 45}, 70, {3, 3}, {}, {1, 1, 1, 1}},
    {{1, 64, 14, 14}, 64, {3, 3}, {}, {1, 1, 1, 1}},
    {{1, 128, 7, 7}, 160, {1, 1}},
    {{1, 32, 28, 28}, 32, {3, 3}, {2, 2}, {1, 1, 1, 1}},
    {{1, 20, 20, 20}, 20, {12, 12}, {}, {3, 3, 3, 3}, {}, 20},
    {{1, 5, 2, 300}, 5, {1, 150}, {}, {0, 20, 0, 20}, {}, 5},
    {{1, 17, 6, 50}, 17, {3, 3}, {1, 3}, {0, 0, 0, 0}, {}, 17},
    {{2, 48, 13, 10}, 64, {3, 3}, {}, {1, 1, 1, 1}},
    {{1, 32, 43, 50}, 32, {3, 3}, {}, {0, 2, 1, 0}},
    {{1, 512, 4, 5}, 512, {3, 3}, {}, {1, 1, 1, 1}},
};
TEST(Conv, Shapes) {
    std::mt19937 rng(seed());
    int i = 0;
    for (Case c : cases) {
        SCOPED_TRACE("case " + std::to_string(i++));
        check(c, rng);
        c.bias = false;
        c.residual = true;
        c.post = vec::Post::relu;
        check(c, rng);
        c.dtype = DType::f64;
        c.post = vec::Post::none;
        if (i < 15) check(c, rng);
    }
}
/// Rows of channels long enough to be read tap by tap where they lie: sums in one and in several pieces, ends in registers and not, columns that
/// do not fill a panel, groups, taps far outside of the image, depth, rows that all lie in one set of the cache.
TEST(Conv, TapsInPlace) {
    std::mt19937 rng(seed());
    const Case in_place[] = {
        {{1, 40, 13, 11}, 72, {3, 3}, {2, 2}, {1, 1, 1, 1}},
        {{2, 33, 9, 30}, 32, {2, 3}, {1, 2}, {0, 2, 1, 1}, {1, 2}},
        {{1, 192, 10, 10}, 64, {3, 3}, {2, 2}, {1, 1, 1, 1}},
        {{1, 64, 15, 15}, 128, {1, 1}, {2, 2}},
        {{1, 512, 9, 7}, 40, {1, 1}, {2, 2}},
        {{1, 96, 12, 12}, 66, {3, 3}, {2, 2}, {1, 1, 1, 1}, {}, 2},
        {{1, 32, 3, 2}, 64, {3, 3}, {3, 3}, {5, 7, 6, 4}},
        {{1, 36, 4, 5, 6}, 64, {2, 3, 2}, {1, 2, 1}, {1, 1, 0, 0, 1, 1}},
        {{1, 1600, 5, 5}, 33, {2, 2}, {2, 2}},
        {{1, 48, 40}, 64, {7}, {3}, {3, 3}},
    };
    int i = 0;
    for (Case c : in_place)
        for (vec::Post post : {vec::Post::none, vec::Post::relu, vec::Post::silu}) {
            SCOPED_TRACE("case " + std::to_string(i++ / 3));
            c.post = post;
            for (bool residual : {false, true}) {
                c.bias = residual || post == vec::Post::silu;
                c.residual = residual;
                check(c, rng);
            }
        }
}
/// Tiles of pixels and columns, and the pieces that K is cut into, change no bit.
TEST(Conv, TapsInPlaceAnyTile) {
    std::mt19937 rng(seed());
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (isa > best_isa()) continue;
        const vec::Table& t = vec::table(isa);
        vec::ConvShape s{{1, 17, 15}, {1, 9, 8}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, 192, 192, 70};
        const std::int64_t k = s.channels * 9, n = 70, pixels = s.pixels_out();
        auto floats = [&](std::int64_t count) {
            std::vector<float> v;
            for (double d : random_values(rng, count)) v.push_back(static_cast<float>(d));
            return v;
        };
        auto x = floats(s.pixels_in() * s.channels), w = floats(n * k), bias = floats(n), residual = floats(pixels * n);
        std::vector<float> packed(t.packed_floats(n, k)), work(t.gemm_work_bytes(0, 0, 0) / 4 + 16);
        t.pack_b_f32(n, k, w.data(), k, true, 1.f, packed.data());
        auto run = [&](std::int64_t tile_p, std::int64_t tile_n) {
            std::vector<float> y(static_cast<std::size_t>(pixels * n));
            for (std::int64_t p = 0; p < pixels; p += tile_p)
                for (std::int64_t c = 0; c < n; c += tile_n) {
                    vec::Epilogue e;
                    e.bias_row = bias.data() + c, e.residual = residual.data() + p * n + c, e.post = vec::Post::relu;
                    t.conv_nhwc_f32(s, x.data(), packed.data() + c * k, p, std::min(pixels, p + tile_p), std::min(n - c, tile_n), y.data() + p * n + c, n, e, work.data());
                }
            return y;
        };
        auto want = run(pixels, n / t.panel * t.panel);
        for (auto [tile_p, panels] : {std::pair{1, 1}, std::pair{5, 2}, std::pair{14, 3}, std::pair{31, 1}}) EXPECT_EQ(run(tile_p, panels * t.panel), want) << t.name << " " << tile_p;
    }
}
TEST(Conv, Gates) {
    std::mt19937 rng(seed());
    for (auto [images, channels, side, m] : {std::tuple{2, 40, 9, 24}, std::tuple{1, 1030, 7, 33}, std::tuple{1, 1024, 5, 40}, std::tuple{3, 7, 13, 130}, std::tuple{1, 1, 1, 2}, std::tuple{0, 8, 4, 8}, std::tuple{1, 16, 0, 8}}) {
        Case c{{images, channels, side, side}, m, {1, 1}};
        c.gate = true;
        check(c, rng);
        c.bias = false, c.residual = true, c.post = vec::Post::relu;
        check(c, rng);
    }
    conv::Problem p;  // what no kernel multiplies with a gate
    p.has_gate = true;
    for (auto [layout, m, side] : {std::tuple{conv::Layout::nchw, 64, 1}, std::tuple{conv::Layout::nhwc, 64, 3}, std::tuple{conv::Layout::nhwc, 1, 1}}) {
        p.w = Tensor(DType::f32, {m, m, side, side});
        p.window.kernel = {side, side}, p.window.strides = p.window.dilations = {1, 1}, p.window.pads = Dims(4, side / 2);
        p.layout = layout;
        for_each_kernel<conv::Problem>(Family::conv, linked_backends(), [&](const Entry<conv::Problem>& entry, const Target& target) { EXPECT_FALSE(entry.refuse(p, target).empty()); });
    }
}
TEST(Conv, AutoPad) {
    std::mt19937 rng(seed());
    for (auto pad : {conv::AutoPad::same_upper, conv::AutoPad::same_lower, conv::AutoPad::valid}) {
        Case c{{1, 3, 11, 14}, 5, {3, 4}, {2, 3}};
        c.auto_pad = pad;
        check(c, rng);
    }
}
TEST(Conv, EveryPost) {
    std::mt19937 rng(seed());
    for (int i = 0; i <= static_cast<int>(vec::Post::hard_sigmoid); ++i)
        for (std::int64_t group : {1, 9}) {
            SCOPED_TRACE(i);
            Case c{{1, 9, 8, 9}, 9, {3, 3}, {}, {1, 1, 1, 1}};
            c.group = group;
            c.residual = true;
            c.post = static_cast<vec::Post>(i);
            check(c, rng);
        }
}
TEST(Conv, RandomShapes) {
    unsigned s = seed();
    std::printf("seed %u (QUERN_TEST_SEED)\n", s);
    std::mt19937 rng(s);
    auto pick = [&](int low, int top) { return low + static_cast<std::int64_t>(rng() % static_cast<unsigned>(top - low + 1)); };
    for (int i = 0; i < 25; ++i) {
        Case c;
        std::int64_t group = rng() % 3 == 0 ? pick(2, 5) : 1;
        c.x = {pick(1, 2), group * pick(1, 12), pick(5, 20), pick(5, 40)};
        c.m = group * pick(1, 40);
        if (rng() % 4 == 0) c.group = c.m = c.x[1];
        else c.group = group;
        c.kernel = {pick(1, 4), pick(1, 4)};
        c.strides = {pick(1, 3), pick(1, 3)};
        c.pads = {pick(0, 2), pick(0, 2), pick(0, 2), pick(0, 2)};
        c.dilations = {rng() % 4 ? 1 : 1, rng() % 4 ? 1 : 2};
        c.residual = rng() % 3 == 0;
        if (rng() % 2) c.post = vec::Post::clip;
        if ((c.kernel[1] - 1) * c.dilations[1] + 1 > c.x[3]) continue;
        SCOPED_TRACE("random case " + std::to_string(i));
        check(c, rng);
    }
}
}  // namespace
