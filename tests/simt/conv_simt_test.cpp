// kernels/conv/cuda.cu against a double reference; tolerance as in conv.hpp.
#include <quern/kernels/conv/cuda.hpp>
#include <quern/kernels/conv_transpose/cuda.hpp>

#include <sstream>

#include "half_test.hpp"

namespace {

using namespace device_test;
using quern::conv::cuda_conv;
using quern::conv::cuda_conv_scratch;
using quern::conv::CudaConv;
using quern::matmul::Precision;
using quern::vec::Post;

struct Case {
    std::int64_t images, channels, out_channels, group;  // all channels
    std::vector<std::int64_t> in, kernel, stride, pad, dilation;
    bool bias = false, residual = false;
    Post post = Post::none;
    int tile_m = 0, tile_n = 0;  // of a block; 0: as it is chosen
};

class Conv : public DeviceTest {};

CudaConv described(const Case& c) {
    CudaConv f;
    f.images = c.images, f.group = c.group;
    auto& s = f.shape;
    s.in_channels = c.channels, s.channels = c.channels / c.group, s.out_channels = c.out_channels;
    const int rank = static_cast<int>(c.in.size());
    for (int d = 0; d < 3; ++d) {
        const int at = d - (3 - rank);
        const bool there = at >= 0;
        s.in[d] = there ? c.in[at] : 1, s.kernel[d] = there ? c.kernel[at] : 1, s.stride[d] = there ? c.stride[at] : 1;
        s.pad[d] = there ? c.pad[at] : 0, s.dilation[d] = there ? c.dilation[at] : 1;
        s.out[d] = (s.in[d] + 2 * s.pad[d] - (s.kernel[d] - 1) * s.dilation[d] - 1) / s.stride[d] + 1;
    }
    f.post = c.post;
    f.tile_m = c.tile_m, f.tile_n = c.tile_n;
    f.split_small = true;
    return f;
}
std::string told(const Case& c) {
    const auto s = described(c).shape;
    return (std::ostringstream() << c.images << " x " << c.channels << " -> " << c.out_channels << " / " << c.group << ", "
                                 << s.in[1] << " x " << s.in[2] << ", kernel " << s.kernel[1] << " x " << s.kernel[2])
        .str();
}
struct Operands {
    std::vector<float> x, w, bias, residual;
    std::vector<double> want, scale;  ///< scale: sqrt(terms of a sum) * (1 + the sum of their magnitudes)
};
/// H: the type that operands are stored in.
template <class H>
Operands reference(const Case& c) {
    const auto s = described(c).shape;
    Operands all;
    auto& [x, w, bias, residual, want, scale] = all;
    x = held<H>(random_values(static_cast<std::size_t>(c.images * c.channels * s.pixels_in()), 1, 1));
    w = held<H>(random_values(static_cast<std::size_t>(c.out_channels * s.channels * s.taps()), 1, 2));
    bias = held<H>(random_values(static_cast<std::size_t>(c.out_channels), 1, 3));
    residual = held<H>(random_values(static_cast<std::size_t>(c.images * c.out_channels * s.pixels_out()), 1, 4));
    const std::int64_t m = c.out_channels / c.group;
    for (std::int64_t i = 0; i < c.images; ++i)
        for (std::int64_t o = 0; o < c.out_channels; ++o)
            for (std::int64_t p = 0; p < s.pixels_out(); ++p) {
                const std::int64_t od = p / (s.out[1] * s.out[2]), oh = p / s.out[2] % s.out[1], ow = p % s.out[2];
                double sum = 0, abs = 0;
                for (std::int64_t ch = 0; ch < s.channels; ++ch)
                    for (std::int64_t t = 0; t < s.taps(); ++t) {
                        const std::int64_t d =
                            od * s.stride[0] - s.pad[0] + t / (s.kernel[1] * s.kernel[2]) * s.dilation[0];
                        const std::int64_t h =
                            oh * s.stride[1] - s.pad[1] + t / s.kernel[2] % s.kernel[1] * s.dilation[1];
                        const std::int64_t v = ow * s.stride[2] - s.pad[2] + t % s.kernel[2] * s.dilation[2];
                        if (d < 0 || d >= s.in[0] || h < 0 || h >= s.in[1] || v < 0 || v >= s.in[2]) continue;
                        const std::int64_t from = i * c.channels + o / m * s.channels + ch;
                        const double y =
                            static_cast<double>(
                                x[static_cast<std::size_t>(((from * s.in[0] + d) * s.in[1] + h) * s.in[2] + v)]) *
                            static_cast<double>(w[static_cast<std::size_t>((o * s.channels + ch) * s.taps() + t)]);
                        sum += y;
                        abs += std::fabs(y);
                    }
                if (c.bias) sum += static_cast<double>(bias[static_cast<std::size_t>(o)]);
                if (c.residual) sum += static_cast<double>(residual[want.size()]);
                if (c.post == Post::relu) sum = std::fmax(sum, 0);
                if (c.post == Post::hard_swish) sum *= std::fmax(0, std::fmin(1, sum / 6 + 0.5));
                want.push_back(sum);
                scale.push_back(std::sqrt(static_cast<double>(s.channels * s.taps())) * (1 + abs));
            }
    return all;
}
/// Weights in the order of cuda_conv_row(), or none.
template <class H>
std::vector<H> packed(const CudaConv& f, const std::vector<H>& w) {
    const auto& s = f.shape;
    const std::int64_t row = quern::conv::cuda_conv_row(f.type, s.channels, s.taps());
    std::vector<H> p(static_cast<std::size_t>(s.out_channels * s.taps() * row));
    if (p.empty()) return p;
    for (H& v : p) narrowed(0, v);
    for (std::int64_t r = 0; r < s.out_channels; ++r)
        for (std::int64_t ch = 0; ch < s.channels; ++ch)
            for (std::int64_t t = 0; t < s.taps(); ++t)
                p[static_cast<std::size_t>((r * s.taps() + t) * row + ch)] =
                    w[static_cast<std::size_t>((r * s.channels + ch) * s.taps() + t)];
    return p;
}
void check(const Case& c) {
    SCOPED_TRACE(told(c));
    CudaConv f = described(c);
    const auto& s = f.shape;
    const Operands o = reference<float>(c);
    const auto &want = o.want, &scale = o.scale;
    const auto dx = on_device(o.x), dw = on_device(o.w), db = on_device(o.bias), dr = on_device(o.residual);
    f.x = dx.data(), f.w = dw.data(), f.bias = c.bias ? db.data() : nullptr,
    f.residual = c.residual ? dr.data() : nullptr;
    for (Precision p : {Precision::f32, Precision::split, Precision::tf32}) {
        SCOPED_TRACE(testing::Message() << "precision " << static_cast<int>(p));
        f.precision = p;
        DeviceBuffer<char> scratch(cuda_conv_scratch(f));
        std::vector<double> tolerance = scale;
        if (p == Precision::tf32)  // 1e-3 of the magnitudes
            for (double& t : tolerance) t *= 1e-3 / 2e-6 / std::sqrt(static_cast<double>(s.channels * s.taps()));
        run_each<float>(
            want.size(),
            [&](float* y) {
                f.y = y;
                return cuda_conv(f, scratch.data(), nullptr);
            },
            [&](const std::vector<float>& got) { expect_close(got, want, 2e-6, tolerance); });
    }
}

template <class H>
void check_half(const Case& c, bool pack) {
    SCOPED_TRACE(told(c) + (pack ? ", packed before" : ""));
    CudaConv f = described(c);
    f.type = Storage<H>::type;
    const Operands o = reference<H>(c);
    const auto w = narrow<H>(o.w), p = packed(f, w);
    const auto dx = on_device(narrow<H>(o.x)), dw = on_device(w), dp = on_device(p), db = on_device(narrow<H>(o.bias)),
               dr = on_device(narrow<H>(o.residual));
    f.x = dx.data(), f.w = dw.data();
    if (pack) f.packed = dp.data(), f.w = nullptr;
    if (c.bias) f.bias = db.data();
    if (c.residual) f.residual = dr.data();
    DeviceBuffer<char> scratch(cuda_conv_scratch(f));
    run_each<H>(
        o.want.size(),
        [&](H* y) {
            f.y = y;
            return cuda_conv(f, scratch.data(), nullptr);
        },
        [&](const std::vector<H>& got) {
            for (std::size_t i = 0; i < got.size(); ++i)
                ASSERT_LE(std::fabs(static_cast<double>(widened(got[i])) - o.want[i]),
                          Storage<H>::rounding * std::fabs(o.want[i]) + 2e-6 * o.scale[i])
                    << "element " << i;
        });
}
void check_halves(const Case& c) {
    for (bool pack : {false, true}) {
        check_half<__half>(c, pack);
        check_half<__nv_bfloat16>(c, pack);
    }
}

TEST_F(Conv, HalfPointwise) {
    check_halves({1, 24, 40, 1, {8, 8}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, false, Post::relu});
    check_halves({3, 16, 20, 1, {6, 6}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, true});   // planes of 36: by 8 bytes
    check_halves({2, 9, 20, 1, {5, 5}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, true});    // planes of 25: channels last
    check_halves({1, 13, 70, 1, {8, 9}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true});
    check_halves({1, 800, 33, 1, {7, 4}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, true, Post::hard_swish});  // split sums
}
TEST_F(Conv, HalfWindows) {
    check_halves({1, 3, 32, 1, {14, 14}, {3, 3}, {2, 2}, {1, 1}, {1, 1}, true, false, Post::relu});
    check_halves({2, 40, 66, 1, {9, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, false, true});
    check_halves({1, 3, 8, 1, {16, 16}, {7, 7}, {2, 2}, {3, 3}, {1, 1}, true});
    check_halves({1, 5, 7, 1, {11, 12}, {3, 2}, {1, 2}, {2, 0}, {2, 3}, true, true});
    check_halves({2, 72, 12, 1, {19}, {3}, {2}, {1}, {1}, true});
    check_halves({1, 10, 6, 1, {5, 6, 7}, {3, 2, 3}, {1, 2, 1}, {1, 0, 1}, {1, 1, 1}, true});
    check_halves({1, 16, 24, 1, {6, 6}, {1, 1}, {2, 2}, {0, 0}, {1, 1}, true});
}
TEST_F(Conv, HalfTiles) {
    for (auto [m, n] : {std::pair{64, 128}, {64, 64}}) {
        check_half<__half>({1, 40, 150, 1, {12, 14}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, true, Post::relu, m, n}, true);
        check_half<__nv_bfloat16>({2, 40, 150, 1, {13, 11}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, true, Post::relu, m, n}, true);
        check_half<__half>({1, 136, 70, 1, {9, 16}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, false, Post::none, m, n}, false);
    }
}
TEST_F(Conv, HalfGroups) {
    check_halves({1, 12, 18, 3, {6, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, false, Post::relu});
    check_halves({2, 32, 24, 2, {5, 5}, {3, 3}, {2, 1}, {1, 1}, {1, 1}, true, true});
    check_halves({2, 16, 8, 2, {4, 6}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true});   // planes of 24: from the image
    check_halves({2, 24, 16, 2, {6, 6}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, true});  // of 36, by 8 bytes
    check_halves({1, 192, 6, 2, {5, 5}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, true, Post::hard_swish});  // split sums
    check_halves({1, 8, 4, 2, {4, 5, 3}, {2, 3, 2}, {1, 2, 1}, {1, 0, 1}, {1, 1, 1}});
    CudaConv f = described({1, 192, 6, 2, {5, 5}, {3, 3}, {1, 1}, {1, 1}, {1, 1}});
    f.type = quern::DType::f16;
    CudaConv short_sums = described({1, 128, 6, 2, {5, 5}, {3, 3}, {1, 1}, {1, 1}, {1, 1}});
    short_sums.type = quern::DType::f16;
    f.packed = short_sums.packed = &f;  // for the sizes
    const auto image = [](const CudaConv& c) { return static_cast<std::size_t>(c.shape.in_channels * 25 * 2 + 255) / 256 * 256; };
    EXPECT_GT(cuda_conv_scratch(f), image(f)) << "no parts of sums";
    EXPECT_EQ(cuda_conv_scratch(short_sums), image(short_sums));
}
TEST_F(Conv, HalfDepthwise) {
    const auto halves = [](const Case& c) {
        check_half<__half>(c, false);
        check_half<__nv_bfloat16>(c, false);
    };
    halves({2, 6, 6, 6, {9, 9}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, true, Post::relu});
    halves({1, 5, 5, 5, {12, 10}, {5, 5}, {2, 2}, {2, 2}, {1, 1}, true, false, Post::hard_swish});
    halves({2, 3, 6, 3, {11, 16}, {7, 7}, {1, 1}, {3, 3}, {1, 1}, true, true});
    halves({1, 3, 6, 3, {8, 8}, {3, 3}, {1, 1}, {2, 2}, {2, 2}});
    halves({1, 4, 4, 4, {7, 9}, {2, 3}, {1, 2}, {0, 1}, {1, 1}, true});
    halves({1, 2, 4, 2, {3, 4, 5}, {2, 2, 2}, {1, 1, 1}, {1, 0, 1}, {1, 1, 1}, true});
}
TEST_F(Conv, Pointwise) {
    check({1, 24, 40, 1, {8, 8}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, false, Post::relu});
    check({2, 9, 20, 1, {5, 5}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, true});
    check({1, 300, 33, 1, {7, 7}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, true, Post::hard_swish});  // split sums
}
TEST_F(Conv, WindowsStridesAndPadding) {
    check({1, 3, 32, 1, {14, 14}, {3, 3}, {2, 2}, {1, 1}, {1, 1}, true, false, Post::relu});
    check({2, 4, 36, 1, {9, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}});
    check({1, 3, 8, 1, {16, 16}, {7, 7}, {2, 2}, {3, 3}, {1, 1}, true});
    check({1, 5, 7, 1, {11, 12}, {3, 2}, {1, 2}, {2, 0}, {2, 3}, true, true});
}
TEST_F(Conv, TapByTap) {
    check({1, 16, 36, 1, {9, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, true});
    check({2, 30, 20, 1, {8, 9}, {3, 2}, {2, 1}, {1, 0}, {1, 2}, true, false, Post::relu});
    check({1, 32, 40, 1, {6, 6}, {1, 1}, {2, 2}, {0, 0}, {1, 1}, true});
    check({2, 32, 24, 2, {5, 5}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true});
    check({1, 48, 33, 1, {7, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, true, Post::hard_swish});  // split sums
    check({1, 16, 6, 1, {4, 5, 4}, {3, 2, 3}, {1, 2, 1}, {1, 0, 1}, {1, 1, 1}, true});
}
TEST_F(Conv, Tiles) {
    for (auto [m, n] : {std::pair{128, 64}, {64, 128}, {64, 64}, {32, 128}}) {
        if (slow() && m != 128) break;
        check({1, 40, 150, 1, {12, 14}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, true, Post::relu, m, n});
        check({2, 33, 70, 1, {7, 15}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, false, Post::none, m, n});
        check({2, 30, 150, 1, {13, 11}, {2, 3}, {1, 1}, {1, 1}, {1, 1}, true, true, Post::relu, m, n});
        check({1, 3, 70, 1, {13, 12}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, true, Post::relu, m, n});
    }
}
TEST_F(Conv, OneAndThreeDimensions) {
    check({2, 8, 12, 1, {19}, {3}, {2}, {1}, {1}, true});
    check({1, 3, 6, 1, {5, 6, 7}, {3, 2, 3}, {1, 2, 1}, {1, 0, 1}, {1, 1, 1}, true});
}
TEST_F(Conv, Groups) {
    check({1, 12, 18, 3, {6, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, false, Post::relu});
    check({2, 8, 8, 2, {4, 4}, {1, 1}, {1, 1}, {0, 0}, {1, 1}});
}
TEST_F(Conv, Depthwise) {
    check({2, 6, 6, 6, {9, 9}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true, true, Post::relu});
    check({1, 5, 5, 5, {12, 10}, {5, 5}, {2, 2}, {2, 2}, {1, 1}, true, false, Post::hard_swish});
    check({1, 3, 6, 3, {8, 8}, {3, 3}, {1, 1}, {2, 2}, {2, 2}});
    for (std::int64_t size : {3, 5, 7})
        for (std::int64_t stride : {1, 2}) {
            check({2, 3, 3, 3, {11, 16}, {size, size}, {stride, stride}, {size / 2, size / 2}, {1, 1}, true, true});
            check({1, 3, 6, 3, {9, 9}, {size, size}, {stride, stride}, {0, 1}, {1, 1}, true, false, Post::relu});
        }
    check({1, 4, 4, 4, {9, 8}, {3, 3}, {1, 2}, {1, 1}, {1, 1}, true});
    check({1, 4, 4, 4, {9, 8}, {3, 3}, {3, 3}, {1, 1}, {1, 1}, true});
    check({1, 4, 4, 4, {12, 11}, {5, 5}, {1, 1}, {4, 4}, {2, 2}, true});
    check({1, 4, 4, 4, {7, 9}, {2, 3}, {1, 2}, {0, 1}, {1, 1}, true});
    check({1, 2, 4, 2, {3, 4, 5}, {2, 2, 2}, {1, 1, 1}, {1, 0, 1}, {1, 1, 1}, true});
    check({1, 4, 4, 4, {15}, {3}, {1}, {1}, {1}});
}
// The tiles that are chosen for many pixels.
TEST_F(Conv, ManyPixels) {
    if (slow()) GTEST_SKIP() << "too much work for a checked build";
    check({1, 16, 72, 1, {130, 128}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, true, true, Post::relu});
    check({1, 16, 40, 1, {200, 128}, {1, 2}, {1, 1}, {0, 1}, {1, 1}, true});
    check_half<__half>({1, 8, 40, 1, {208, 241}, {1, 2}, {1, 1}, {0, 0}, {1, 1}, true}, false);
}
/// expect(i, y[i]) for each of the `count` results of `f`.
template <class F>
void expect_each(CudaConv f, std::size_t count, F expect) {
    DeviceBuffer<char> scratch(cuda_conv_scratch(f));
    run_each<float>(
        count,
        [&](float* y) {
            f.y = y;
            return cuda_conv(f, scratch.data(), nullptr);
        },
        [&](const std::vector<float>& got) {
            for (std::size_t i = 0; i < got.size() && !testing::Test::HasFatalFailure(); ++i) expect(i, got[i]);
        });
}
// What is split into parts must not turn infinities into NaN.
TEST_F(Conv, InfinitiesOfManyPixelsStay) {
    const std::size_t n = 64 * 72;
    std::vector<float> x(64 * n, 1.0f), w(8 * 64, 0.5f);
    x[5] = INFINITY;
    x[n + 70] = -INFINITY;
    const auto dx = on_device(x), dw = on_device(w);
    CudaConv f;
    f.images = 1;
    f.shape = {{1, 64, 72}, {1, 64, 72}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, 64, 64, 8};
    f.x = dx.data(), f.w = dw.data();
    f.split_small = true;
    expect_each(f, 8 * n, [&](std::size_t i, float got) {
        if (i % n == 5) ASSERT_EQ(got, INFINITY) << i;
        else if (i % n == 70) ASSERT_EQ(got, -INFINITY) << i;
        else ASSERT_NEAR(got, 32, 1e-4) << i;
    });
}
TEST_F(Conv, InfinitiesOfManyWindowsStay) {
    const std::size_t h = 64, w = 72, n = h * w;
    std::vector<float> x(32 * n, 1.0f), k(8 * 32 * 2, 0.5f);
    x[5 * w + 7] = INFINITY;
    x[n + 20 * w + 30] = NAN;
    const auto dx = on_device(x), dw = on_device(k);
    CudaConv f;
    f.images = 1;
    f.shape = {{1, 64, 72}, {1, 64, 72}, {1, 1, 2}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}, 32, 32, 8};  // outputs i: inputs i - 1, i
    f.x = dx.data(), f.w = dw.data();
    f.split_small = true;
    expect_each(f, 8 * n, [&](std::size_t i, float got) {
        const std::size_t p = i % n;
        if (p == 5 * w + 7 || p == 5 * w + 8) ASSERT_EQ(got, INFINITY) << i;
        else if (p == 20 * w + 30 || p == 20 * w + 31) ASSERT_TRUE(std::isnan(got)) << i;
        else ASSERT_NEAR(got, p % w ? 32 : 16, 1e-4) << i;
    });
}
TEST_F(Conv, InfinitiesStay) {
    std::vector<float> x(2 * 6 * 6, 1.0f), w(4 * 2 * 9, 0.5f);
    x[0] = INFINITY;
    const auto dx = on_device(x), dw = on_device(w);
    CudaConv f;
    f.images = 1;
    f.shape = {{1, 6, 6}, {1, 6, 6}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, 2, 2, 4};
    f.x = dx.data(), f.w = dw.data();
    expect_each(f, 4 * 36, [&](std::size_t i, float got) {
        const bool near = i % 36 / 6 < 2 && i % 6 < 2;
        ASSERT_EQ(std::isinf(got), near) << i;
        ASSERT_FALSE(std::isnan(got)) << i;
    });
}
struct Transposed {
    std::int64_t images, channels, m, group;  // of one group
    std::vector<std::int64_t> in, kernel, stride, pad, dilation, more;
    bool bias = false;
};
void check_transposed(const Transposed& c) {
    quern::conv_transpose::CudaConvTranspose a;
    a.images = c.images, a.channels = c.channels, a.m = c.m, a.group = c.group;
    const int rank = static_cast<int>(c.in.size());
    std::int64_t plane = 1, outs = 1, taps = 1;
    for (int d = 0; d < 3; ++d) {
        const int at = d - (3 - rank);
        const bool there = at >= 0;
        a.in[d] = there ? c.in[at] : 1, a.kernel[d] = there ? c.kernel[at] : 1, a.stride[d] = there ? c.stride[at] : 1;
        a.pad[d] = there ? c.pad[at] : 0, a.dilation[d] = there ? c.dilation[at] : 1;
        a.out[d] = (a.in[d] - 1) * a.stride[d] - 2 * a.pad[d] + (a.kernel[d] - 1) * a.dilation[d] + 1 +
                   (there ? c.more[at] : 0);
        plane *= a.in[d], outs *= a.out[d], taps *= a.kernel[d];
    }
    SCOPED_TRACE(testing::Message() << "transposed " << c.channels << " -> " << c.m << ", kernel " << taps);
    const auto z = [](std::int64_t v) { return static_cast<std::size_t>(v); };
    const auto x = random_values(z(c.images * c.group * c.channels * plane), 1, 1),
               w = random_values(z(c.group * c.channels * c.m * taps), 1, 2),
               bias = random_values(z(c.group * c.m), 1, 3);
    std::vector<double> want(z(c.images * c.group * c.m * outs)), scale(want.size(), 1);
    for (std::int64_t i = 0; i < c.images; ++i)
        for (std::int64_t g = 0; g < c.group; ++g)
            for (std::int64_t m = 0; m < c.m; ++m) {
                const std::int64_t y = ((i * c.group + g) * c.m + m) * outs;
                for (std::int64_t o = 0; o < outs; ++o)
                    want[z(y + o)] = c.bias ? static_cast<double>(bias[z(g * c.m + m)]) : 0;
                for (std::int64_t ch = 0; ch < c.channels; ++ch)
                    for (std::int64_t p = 0; p < plane; ++p)
                        for (std::int64_t t = 0; t < taps; ++t) {  // scattered, as the definition says
                            const std::int64_t pos[3] = {p / (a.in[1] * a.in[2]), p / a.in[2] % a.in[1], p % a.in[2]};
                            const std::int64_t tap[3] = {t / (a.kernel[1] * a.kernel[2]), t / a.kernel[2] % a.kernel[1],
                                                         t % a.kernel[2]};
                            std::int64_t at = 0;
                            bool inside = true;
                            for (int d = 0; d < 3; ++d) {
                                const std::int64_t q = pos[d] * a.stride[d] - a.pad[d] + tap[d] * a.dilation[d];
                                inside = inside && q >= 0 && q < a.out[d];
                                at = at * a.out[d] + q;
                            }
                            if (!inside) continue;
                            const double v =
                                static_cast<double>(x[z(((i * c.group + g) * c.channels + ch) * plane + p)]) *
                                static_cast<double>(w[z(((g * c.channels + ch) * c.m + m) * taps + t)]);
                            want[z(y + at)] += v;
                            scale[z(y + at)] += std::fabs(v);
                        }
            }
    const auto dx = on_device(x), dw = on_device(w), db = on_device(bias);
    a.x = dx.data(), a.w = dw.data(), a.bias = c.bias ? db.data() : nullptr;
    run_each<float>(
        want.size(),
        [&](float* y) {
            a.y = y;
            return quern::conv_transpose::cuda_conv_transpose(a, nullptr);
        },
        [&](const std::vector<float>& got) { expect_close(got, want, 4e-6, scale); });
}
TEST_F(Conv, Transposed) {
    check_transposed({2, 5, 6, 1, {4, 5}, {2, 2}, {2, 2}, {0, 0}, {1, 1}, {0, 0}, true});
    check_transposed({1, 3, 4, 2, {5, 4}, {3, 3}, {2, 1}, {1, 1}, {1, 2}, {1, 0}});
    check_transposed({1, 2, 9, 1, {7}, {4}, {3}, {2}, {1}, {2}, true});
    check_transposed({1, 2, 2, 1, {2, 3, 2}, {2, 1, 3}, {1, 2, 2}, {0, 0, 1}, {1, 1, 1}, {0, 1, 0}});
    quern::conv_transpose::CudaConvTranspose bad{};
    bad.group = 0;
    EXPECT_EQ(quern::conv_transpose::cuda_conv_transpose(bad, nullptr), cudaErrorInvalidValue);
}
TEST_F(Conv, Limits) {
    CudaConv f;
    f.shape.kernel[0] = f.shape.kernel[1] = f.shape.kernel[2] = 1;
    EXPECT_EQ(cuda_conv(f, nullptr, nullptr), cudaSuccess);
    f.group = 0;
    EXPECT_EQ(cuda_conv(f, nullptr, nullptr), cudaErrorInvalidValue);
}

}  // namespace
