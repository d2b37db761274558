// ChainKernel (pointwise, depthwise, pointwise) against its three convolutions in double.
#include <deque>

#include <quern/kernels/conv/chain.hpp>
#include <quern/kernels/conv/reference.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using namespace quern_test;

struct Case {
    std::int64_t images, h, w, c, d, m;  ///< c: channels of X (0: no expansion), m: of Y (0: no projection)
    std::int64_t kh, kw, stride = 1, pad = 1, dilation = 1;
    vec::Post post = vec::Post::relu;
    bool bias = true, residual = false, pooled = false;
    std::vector<std::int64_t> parts = {};  ///< channels of X lie so: widths of the parts; in memory the last comes first
};
/// As run_kernel, for Y and its means.
void run_pooled(const conv::ChainKernel& kernel, const std::vector<View>& in, Guarded& y, Guarded& means) {
    std::vector<View> out{y.view(), means.view()};
    std::vector<std::byte> first;
    for (int width = 1; width <= 5; ++width) {
        Booking booking = kernel.book(in, out, width);
        std::vector<std::byte> memory(booking.scratch + 64 + 256, std::byte{0xFF});
        std::size_t at = 64 - reinterpret_cast<std::size_t>(memory.data()) % 64;
        ThreadedWorkers workers(width);
        y.poison(), means.poison();
        kernel.run(Call{in, out, memory.data() + at, booking.state.get(), workers});
        ASSERT_TRUE(y.intact() && means.intact());
        for (std::size_t i = at + booking.scratch; i < memory.size(); ++i) ASSERT_EQ(memory[i], std::byte{0xFF}) << "scratch overrun";
        auto bits = y.bytes(), more = means.bytes();
        bits.insert(bits.end(), more.begin(), more.end());
        if (width == 1) first = bits;
        else ASSERT_TRUE(first == bits) << width << " workers give other bits than one";
    }
}
/// [N, C, H, W] to [N, H, W, C].
std::vector<double> last(const std::vector<double>& v, std::int64_t n, std::int64_t c, std::int64_t plane) {
    std::vector<double> r(v.size());
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t k = 0; k < c; ++k)
            for (std::int64_t p = 0; p < plane; ++p) r[static_cast<std::size_t>((i * plane + p) * c + k)] = v[static_cast<std::size_t>((i * c + k) * plane + p)];
    return r;
}
void check(const Case& c, std::mt19937& rng) {
    std::int64_t channels = c.c ? c.c : c.d, m = c.m ? c.m : c.d;
    std::int64_t ho = (c.h + 2 * c.pad - (c.kh - 1) * c.dilation - 1) / c.stride + 1, wo = (c.w + 2 * c.pad - (c.kw - 1) * c.dilation - 1) / c.stride + 1;
    auto x = random_values(rng, c.images * channels * c.h * c.w), residual = c.residual ? random_values(rng, c.images * m * ho * wo) : std::vector<double>{};
    conv::ChainProblem p;
    p.window.kernel = {c.kh, c.kw}, p.window.strides = {c.stride, c.stride}, p.window.pads = Dims(4, c.pad), p.window.dilations = {c.dilation, c.dilation};
    p.has_residual = c.residual;
    p.pooled = c.pooled;
    std::vector<double> y = x;
    Dims shape{c.images, channels, c.h, c.w};
    std::deque<Guarded> keep;  // views stay valid
    std::vector<View> in(8);
    double mass = 1;
    auto stage = [&](conv::ChainProblem::Stage& s, std::int64_t outputs, std::int64_t group, const conv::Window& window, Dims out, std::size_t input, bool end) {
        Dims w{outputs, shape[1] / group, window.kernel[0], window.kernel[1]};
        double scale = 1 / std::sqrt(static_cast<double>(w[1] * w[2] * w[3]));
        auto vw = random_values(rng, count_of(w), -scale, scale), vb = c.bias ? random_values(rng, outputs) : std::vector<double>{};
        conv::Problem q;
        q.window = window, q.group = group, q.post = s.post = c.post, q.post_alpha = s.alpha = -0.4f, q.post_beta = s.beta = 1.2f;
        auto r = conv::reference(q, shape, y, outputs, vw, vb, end ? residual : std::vector<double>{}, out);
        s.has_bias = c.bias;
        s.w = keep.emplace_back(DType::f32, w, vw).tensor();
        in[input] = keep.back().view(), in[input].data = nullptr;
        if (c.bias) in[input + 1] = keep.emplace_back(DType::f32, Dims{outputs}, vb).view();
        y = r.y;
        shape = {c.images, outputs, out[0], out[1]};
        for (double t : r.y) mass = std::max(mass, std::abs(t));
    };
    conv::Window one;
    one.kernel = one.strides = one.dilations = {1, 1}, one.pads = Dims(4, 0);
    if (c.c) stage(p.expand, c.d, 1, one, {c.h, c.w}, 1, false);
    stage(p.depthwise, c.d, c.d, p.window, {ho, wo}, 3, false);
    if (c.m) stage(p.project, c.m, 1, one, {ho, wo}, 5, true);
    Guarded gx(DType::f32, {c.images, c.h, c.w, channels}, last(x, c.images, channels, c.h * c.w)), result(DType::f32, {c.images, ho, wo, m});
    in[0] = gx.view();
    std::deque<Dims> part_dims;
    for (std::int64_t n : c.parts) part_dims.push_back({c.images, c.h, c.w, n});
    if (!c.parts.empty()) {
        std::vector<double> apart(x.size());
        const auto all = last(x, c.images, channels, c.h * c.w);
        std::int64_t from = 0, to = channels;
        for (std::size_t i = 0; i < c.parts.size(); ++i) {
            to -= c.parts[i];
            for (std::int64_t p = 0; p < c.images * c.h * c.w; ++p) std::copy_n(all.begin() + p * channels + from, c.parts[i], apart.begin() + p * channels + to);
            from += c.parts[i];
        }
        for (std::size_t i = 0; i < apart.size(); ++i) gx.set(i, apart[i]);
        to = channels;
        for (std::size_t i = 0; i < c.parts.size(); ++i) {
            to -= c.parts[i];
            View v = gx.view();
            v.dims = part_dims[i].data(), v.data = v.out<float>() + to, v.pitch = channels;
            if (i == 0) in[0] = v;
            else in.push_back(v);
        }
    }
    if (c.residual) in[7] = keep.emplace_back(DType::f32, Dims{c.images, ho, wo, m}, last(residual, c.images, m, ho * wo)).view();
    auto expect = last(y, c.images, m, ho * wo);
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (isa > best_isa()) continue;
        SCOPED_TRACE(isa_name(isa));
        conv::ChainKernel kernel(p, Target{isa, {}, nullptr});
        if (c.pooled) {
            Guarded means(DType::f32, {c.images, 1, 1, m});
            run_pooled(kernel, in, result, means);
            for (std::int64_t i = 0; i < c.images * m; ++i) {
                double sum = 0;
                for (std::int64_t k = 0; k < ho * wo; ++k) sum += expect[static_cast<std::size_t>((i / m * ho * wo + k) * m + i % m)];
                ASSERT_NEAR(means.get(static_cast<std::size_t>(i)), sum / static_cast<double>(ho * wo), 1e-5 * mass) << "mean " << i;
            }
        } else run_kernel(kernel, in, result);
        for (std::size_t i = 0; i < expect.size(); ++i) ASSERT_NEAR(result.get(i), expect[i], 1e-5 * mass) << "element " << i;
    }
}
TEST(Chain, Shapes) {
    std::mt19937 rng(seed());
    const Case cases[] = {
        {1, 14, 14, 24, 96, 40, 3, 3},
        {1, 9, 11, 16, 37, 24, 3, 3, 2},
        {2, 9, 10, 5, 70, 12, 5, 5, 1, 2},
        {1, 12, 13, 8, 33, 0, 5, 5, 2, 2},                 // expand and depthwise
        {1, 10, 9, 0, 40, 19, 3, 3},                       // depthwise and project
        {1, 10, 9, 0, 40, 64, 3, 3, 2, 0},
        {1, 65, 66, 8, 96, 16, 3, 3, 2},                   // by bands
        {1, 70, 64, 8, 64, 24, 3, 3},
        {1, 66, 66, 8, 80, 16, 5, 5, 1, 2},
        {1, 80, 80, 0, 64, 16, 3, 3},
        {1, 70, 70, 16, 64, 0, 3, 3, 2},
        {3, 7, 7, 20, 130, 40, 3, 3},
        {3, 9, 8, 12, 70, 0, 3, 3},                        // images without a projection
        {1, 9, 12, 4, 20, 8, 3, 3, 1, 2, 2},               // dilation
        {1, 9, 12, 4, 20, 8, 4, 2, 3, 1},
        {1, 3, 2, 4, 33, 8, 5, 5, 1, 4},                   // rows of padding only
        {1, 1, 1, 4, 33, 8, 3, 3},
        {0, 5, 5, 4, 33, 8, 3, 3},
        {1, 20, 23, 12, 72, 24, 7, 7, 1, 3},
    };
    int i = 0;
    for (Case c : cases) {
        SCOPED_TRACE("case " + std::to_string(i++));
        check(c, rng);
        c.bias = false;
        c.residual = c.m != 0;
        c.post = vec::Post::none;
        check(c, rng);
    }
}
TEST(Chain, ChannelsInParts) {
    std::mt19937 rng(seed());
    const Case cases[] = {{1, 14, 14, 24, 96, 40, 3, 3}, {2, 9, 11, 58, 37, 24, 3, 3, 2}, {1, 70, 64, 33, 64, 24, 3, 3}, {1, 12, 13, 33, 33, 0, 5, 5, 2, 2}, {1, 7, 7, 300, 70, 20, 3, 3}, {0, 5, 5, 33, 8, 8, 3, 3}};
    for (Case c : cases) {
        std::vector<std::vector<std::int64_t>> ways{{c.c}, {c.c - 1, 1}, {1, 2, c.c - 3}, {c.c - 20, 17, 3}};
        std::vector<std::int64_t> many(conv::ChainProblem::most_parts, 1);
        many.back() = c.c - static_cast<std::int64_t>(many.size()) + 1;
        ways.push_back(many);
        for (auto& w : ways) {
            if (*std::min_element(w.begin(), w.end()) < 1) continue;
            c.parts = w;
            SCOPED_TRACE(::testing::PrintToString(w) + " of " + std::to_string(c.c));
            check(c, rng);
        }
    }
}
TEST(Chain, Means) {
    std::mt19937 rng(seed());
    const Case cases[] = {{1, 14, 14, 24, 96, 0, 3, 3}, {2, 70, 64, 8, 40, 0, 5, 5, 2, 2}, {1, 112, 90, 0, 32, 0, 3, 3}, {3, 7, 7, 20, 130, 0, 5, 5, 1, 2}, {1, 1, 1, 0, 5, 0, 3, 3}, {2, 9, 30, 0, 70, 0, 3, 3, 2}, {0, 5, 5, 4, 33, 0, 3, 3}};
    for (Case c : cases) {
        c.pooled = true;
        for (vec::Post post : {vec::Post::relu, vec::Post::silu}) {
            c.post = post;
            check(c, rng);
        }
    }
}
TEST(Chain, EveryPost) {
    std::mt19937 rng(seed());
    for (int i = 0; i <= static_cast<int>(vec::Post::hard_sigmoid); ++i) {
        SCOPED_TRACE(i);
        check({1, 9, 10, 8, 40, 24, 3, 3, 1, 1, 1, static_cast<vec::Post>(i), true, true}, rng);
    }
}
TEST(Chain, RandomShapes) {
    std::mt19937 rng(seed());
    auto pick = [&](int low, int top) { return low + static_cast<std::int64_t>(rng() % static_cast<unsigned>(top - low + 1)); };
    for (int i = 0; i < 12; ++i) {
        SCOPED_TRACE("random case " + std::to_string(i));
        Case c{pick(1, 2), pick(6, 40), pick(6, 40), rng() % 4 ? pick(1, 20) : 0, pick(2, 150), pick(1, 40), pick(1, 6), pick(1, 6), pick(1, 3), pick(0, 3)};
        c.residual = rng() % 2;
        check(c, rng);
    }
}
}  // namespace
