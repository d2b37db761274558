// The kernels at the edges of channels last against double: the first convolution, batch normalization with its concatenation.
#include <deque>

#include <quern/kernels/conv/planar.hpp>
#include <quern/kernels/conv/reference.hpp>
#include <quern/kernels/norm/affine.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using namespace quern_test;

template <class F> void each_isa(F&& f) {
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (isa > best_isa()) continue;
        SCOPED_TRACE(isa_name(isa));
        f(isa);
    }
}
std::vector<double> last(const std::vector<double>& v, std::int64_t n, std::int64_t c, std::int64_t plane) {
    std::vector<double> r(v.size());
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t k = 0; k < c; ++k)
            for (std::int64_t p = 0; p < plane; ++p) r[static_cast<std::size_t>((i * plane + p) * c + k)] = v[static_cast<std::size_t>((i * c + k) * plane + p)];
    return r;
}
struct Case {
    std::int64_t n, c, h, w, m, kh, kw, stride, pad;
    std::int64_t dilation = 1;
};
/// Returns for how many instruction sets the image was read in nhwc, too.
int check(const Case& c, vec::Post post, bool bias, bool residual, std::mt19937& rng) {
    int pixels = 0;
    conv::Problem p;
    p.layout = conv::Layout::nhwc;
    p.window.kernel = {c.kh, c.kw}, p.window.strides = {c.stride, c.stride}, p.window.pads = {c.pad, c.pad, c.pad + 1, c.pad}, p.window.dilations = {c.dilation, c.dilation};
    p.has_bias = bias, p.has_residual = residual, p.post = post, p.post_alpha = -0.4f, p.post_beta = 0.6f;
    std::int64_t ho = (c.h + 2 * c.pad + 1 - (c.kh - 1) * c.dilation - 1) / c.stride + 1, wo = (c.w + 2 * c.pad - (c.kw - 1) * c.dilation - 1) / c.stride + 1;
    Dims dw{c.m, c.c, c.kh, c.kw}, dx{c.n, c.c, c.h, c.w}, dy{c.n, ho, wo, c.m};
    auto x = random_values(rng, count_of(dx)), w = random_values(rng, count_of(dw)), b = bias ? random_values(rng, c.m) : std::vector<double>{};
    auto r = residual ? random_values(rng, count_of(dy)) : std::vector<double>{};
    auto want = conv::reference(p, dx, x, c.m, w, b, r, {ho, wo});
    Guarded gx(DType::f32, dx, x), gw(DType::f32, dw, w), gb(DType::f32, {c.m}, b), gr(DType::f32, dy, last(r, residual ? c.n : 0, c.m, ho * wo)), y(DType::f32, dy);
    p.w = gw.tensor();
    auto expect = last(want.y, c.n, c.m, ho * wo), tolerance = last(want.tolerance, c.n, c.m, ho * wo);
    each_isa([&](Isa isa) {
        conv::PlanarKernel kernel(p, Target{isa, {}, nullptr});
        std::vector<View> in{gx.view(), gw.view(), bias ? gb.view() : View{}, residual ? gr.view() : View{}};
        in[1].data = nullptr;
        run_kernel(kernel, in, y);
        for (std::size_t i = 0; i < expect.size(); ++i) ASSERT_NEAR(y.get(i), expect[i], tolerance[i]) << "element " << i;
        if (!conv::refuse_planar_nhwc(p, Target{isa, {}, nullptr}).empty()) return;
        ++pixels;
        Guarded gl(DType::f32, {c.n, c.h, c.w, c.c}, last(x, c.n, c.c, c.h * c.w));
        in[0] = gl.view();
        run_kernel(conv::PlanarKernel(p, Target{isa, {}, nullptr}, std::nullopt, true), in, y);
        for (std::size_t i = 0; i < expect.size(); ++i) ASSERT_NEAR(y.get(i), expect[i], tolerance[i]) << "element " << i << " from nhwc";
    });
    return pixels;
}
TEST(Planar, Shapes) {
    std::mt19937 rng(seed());
    const Case cases[] = {{1, 3, 32, 31, 32, 3, 3, 2, 1}, {2, 3, 21, 40, 64, 7, 7, 2, 3}, {1, 1, 9, 9, 5, 3, 3, 1, 1}, {1, 3, 20, 36, 96, 4, 4, 4, 0}, {1, 4, 7, 50, 17, 5, 2, 1, 4},
                          {1, 2, 8, 8, 33, 3, 3, 1, 2, 2}, {0, 3, 8, 8, 16, 3, 3, 2, 1}, {1, 3, 2, 1, 16, 3, 3, 2, 2}, {1, 3, 1, 1, 100, 1, 1, 1, 0}, {1, 3, 16, 224, 16, 3, 3, 2, 0}};
    int i = 0, pixels = 0;
    for (const Case& c : cases) {
        SCOPED_TRACE("case " + std::to_string(i++));
        pixels += check(c, vec::Post::relu, true, false, rng);
        check(c, vec::Post::none, false, false, rng);
        check(c, vec::Post::clip, true, true, rng);
    }
    if (best_isa() == Isa::avx512) {
        EXPECT_EQ(pixels, 2 * 7);
    }
}
TEST(Planar, Pooled) {
    std::mt19937 rng(seed());
    struct Pooled { Case c; std::int64_t kh, kw, sh, sw, begin, end; };
    const Pooled cases[] = {{{1, 3, 45, 37, 40, 3, 3, 2, 0}, 3, 3, 2, 2, 0, 0}, {{2, 3, 50, 33, 64, 7, 7, 2, 3}, 3, 3, 2, 2, 1, 1}, {{1, 1, 60, 20, 17, 3, 3, 1, 1}, 2, 2, 2, 2, 0, 1},
                            {{3, 3, 9, 9, 8, 3, 3, 1, 1}, 4, 1, 5, 1, 2, 0}, {{1, 2, 12, 70, 33, 5, 3, 1, 2}, 2, 7, 1, 3, 1, 1}, {{0, 3, 9, 9, 8, 3, 3, 1, 1}, 2, 2, 2, 2, 0, 0}};
    for (const auto& [c, kh, kw, sh, sw, begin, end] : cases)
        for (vec::Post post : {vec::Post::relu, vec::Post::tanh}) {
            conv::Problem p;
            p.layout = conv::Layout::nhwc;
            p.window.kernel = {c.kh, c.kw}, p.window.strides = {c.stride, c.stride}, p.window.pads = Dims(4, c.pad), p.window.dilations = {1, 1};
            p.has_bias = true, p.post = post;
            conv::Window pool;
            pool.kernel = {kh, kw}, pool.strides = {sh, sw}, pool.pads = {begin, begin, end, end}, pool.dilations = {1, 1};
            ASSERT_EQ(conv::refuse_pool(pool), "");
            const std::int64_t ho = (c.h + 2 * c.pad - c.kh) / c.stride + 1, wo = (c.w + 2 * c.pad - c.kw) / c.stride + 1;
            const std::int64_t hp = (ho + begin + end - kh) / sh + 1, wp = (wo + begin + end - kw) / sw + 1;
            Dims dw{c.m, c.c, c.kh, c.kw}, dx{c.n, c.c, c.h, c.w};
            auto x = random_values(rng, count_of(dx)), w = random_values(rng, count_of(dw)), b = random_values(rng, c.m);
            auto want = conv::reference(p, dx, x, c.m, w, b, {}, {ho, wo});
            Guarded gx(DType::f32, dx, x), gw(DType::f32, dw, w), gb(DType::f32, {c.m}, b), y(DType::f32, {c.n, hp, wp, c.m});
            p.w = gw.tensor();
            each_isa([&](Isa isa) {
                conv::PlanarKernel kernel(p, Target{isa, {}, nullptr}, pool);
                std::vector<View> in{gx.view(), gw.view(), gb.view()};
                in[1].data = nullptr;
                run_kernel(kernel, in, y);
                for (std::int64_t i = 0; i < count_of({c.n, hp, wp, c.m}); ++i) {
                    const std::int64_t k = i % c.m, o = i / c.m % wp, r = i / c.m / wp % hp, image = i / c.m / wp / hp;
                    double most = -INFINITY, tolerance = 0;
                    for (std::int64_t h = std::max<std::int64_t>(0, r * sh - begin); h < std::min(ho, r * sh - begin + kh); ++h)
                        for (std::int64_t v = std::max<std::int64_t>(0, o * sw - begin); v < std::min(wo, o * sw - begin + kw); ++v) {
                            const auto at = static_cast<std::size_t>(((image * c.m + k) * ho + h) * wo + v);
                            most = std::max(most, want.y[at]), tolerance = std::max(tolerance, want.tolerance[at]);
                        }
                    if (std::isinf(most)) ASSERT_EQ(y.get(static_cast<std::size_t>(i)), most);
                    else ASSERT_NEAR(y.get(static_cast<std::size_t>(i)), most, tolerance) << "element " << i;
                }
            });
        }
}
TEST(Planar, EveryPost) {
    std::mt19937 rng(seed());
    for (int i = 0; i <= static_cast<int>(vec::Post::hard_sigmoid); ++i) check({1, 3, 9, 34, 20, 3, 3, 2, 1}, static_cast<vec::Post>(i), true, i % 2 == 1, rng);
}
TEST(Affine, ConcatenatesScalesAndApplies) {
    std::mt19937 rng(seed());
    for (Dims parts : {Dims{5}, Dims{16, 3, 33}, Dims{64, 32, 32}, Dims{1, 0, 7}})
        for (std::int64_t rows : {0, 1, 7, 500}) {
            std::int64_t c = 0;
            std::deque<Guarded> keep;
            std::vector<std::vector<double>> values;
            for (std::int64_t n : parts) {
                values.push_back(random_values(rng, rows * n));
                keep.emplace_back(DType::f32, Dims{rows, n}, values.back());
                c += n;
            }
            auto scale = random_values(rng, c), shift = random_values(rng, c);
            Guarded gs(DType::f32, {c}, scale), gt(DType::f32, {c}, shift), y(DType::f32, {rows, c});
            std::vector<View> in{gs.view(), gt.view()};
            for (Guarded& k : keep) in.push_back(k.view());
            each_isa([&](Isa isa) {
                for (vec::Post post : {vec::Post::none, vec::Post::relu, vec::Post::silu}) {
                    norm::AffineKernel kernel(post, 0, 0, isa);
                    run_kernel(kernel, in, y);
                    for (std::int64_t r = 0; r < rows; ++r)
                        for (std::size_t part = 0, at = 0; part < parts.size(); ++part)
                            for (std::int64_t j = 0; j < parts[part]; ++j, ++at) {
                                double v = values[part][static_cast<std::size_t>(r * parts[part] + j)] * scale[at] + shift[at];
                                double want = vec::reference::post(post, v, 0, 0);
                                ASSERT_NEAR(y.get(static_cast<std::size_t>(r * c) + at), want, 2e-6);
                            }
                }
            });
        }
}
}  // namespace
