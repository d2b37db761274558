// Pools and transposed convolutions beyond ONNX's own cases: channels last, hostile attributes, symbolic sizes.
#include <random>

#include <quern/kernels/pool/pool.hpp>

#include "support/op_test.hpp"
#include "support/serial_workers.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;
using quern::onnx::attribute_s;

namespace {

std::vector<float> noise(std::int64_t n, unsigned seed = 1) {
    std::mt19937 g(seed);
    std::uniform_real_distribution<float> d(-1, 1);
    std::vector<float> v(static_cast<std::size_t>(n));
    for (float& x : v) x = d(g);
    return v;
}
quern::View view(Tensor& t) { return {t.dtype(), static_cast<std::int32_t>(t.shape().rank()), t.shape().data(), t.raw()}; }

void run_pool(const quern::pool::Problem& p, Tensor& x, Tensor& y) {
    quern::pool::WindowKernel k(p, quern::vec::table(quern::best_isa()));
    std::vector<quern::View> in{view(x)}, out{view(y)};
    SerialWorkers w;
    Tensor scratch(DType::u8, {static_cast<std::int64_t>(k.book(in, out, 1).scratch) + 64});
    k.run({in, out, static_cast<std::byte*>(scratch.raw()), nullptr, w});
}

TEST(Pool, ChannelsLastEqualsChannelsFirst) {
    const std::int64_t n = 2, c = 5, h = 7, w = 6;
    Tensor x = floats({n, c, h, w}, noise(n * c * h * w)), xl(DType::f32, {n, h, w, c});
    for (std::int64_t i = 0; i < n * c; ++i)
        for (std::int64_t p = 0; p < h * w; ++p) xl.data<float>()[(i / c * h * w + p) * c + i % c] = x.data<float>()[i * h * w + p];
    for (auto op : {quern::pool::Op::max, quern::pool::Op::average, quern::pool::Op::lp}) {
        quern::pool::Problem p;
        p.op = op;
        p.window = {{3, 2}, {2, 1}, {1, 1, 1, 0}, {1, 2}};
        Tensor y(DType::f32, {n, c, 4, 5}), yl(DType::f32, {n, 4, 5, c});
        run_pool(p, x, y);
        p.layout = quern::conv::Layout::nhwc;
        run_pool(p, xl, yl);
        for (std::int64_t i = 0; i < n * c; ++i)
            for (std::int64_t q = 0; q < 20; ++q) EXPECT_NEAR(yl.data<float>()[(i / c * 20 + q) * c + i % c], y.data<float>()[i * 20 + q], 1e-6);
    }
}
/// Every stride, also beyond what is split into phases, and bytes as they are, against windows one by one.
TEST(Pool, StridesAndBytes) {
    const std::int64_t h = 9;
    for (std::int64_t w : {41, 48, 600})  // 48 and 600: rows that strides divide go many at a time
    for (DType type : {DType::f32, DType::f64, DType::i32, DType::u8, DType::i8})
        for (std::int64_t stride = 1; stride <= 5; ++stride)
            for (auto [kernel, dilation, pad] : {std::tuple<std::int64_t, std::int64_t, std::int64_t>{3, 1, 1}, {2, 3, 0}, {1, 1, 0}, {5, 2, 4}}) {
                Tensor x(DType::f32, {2, 3, h, w});
                for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = float((i * 7919 >> 2) % 120) - (type == DType::u8 ? 0 : 60);
                const std::int64_t oh = (h + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1, ow = (w + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1;
                Tensor want(DType::f32, {2, 3, oh, ow});
                for (std::int64_t o = 0; o < want.count(); ++o) {
                    const std::int64_t c = o % ow, r = o / ow % oh, plane = o / ow / oh;
                    float best = -1000;
                    for (std::int64_t i = 0; i < kernel; ++i)
                        for (std::int64_t j = 0; j < kernel; ++j) {
                            const std::int64_t a = r * stride - pad + i * dilation, b = c * stride - pad + j * dilation;
                            if (a >= 0 && a < h && b >= 0 && b < w) best = std::max(best, x.data<float>()[(plane * h + a) * w + b]);
                        }
                    want.data<float>()[o] = best;
                }
                SCOPED_TRACE(std::string(quern::dtype_name(type)) + " stride " + std::to_string(stride) + " kernel " + std::to_string(kernel));
                auto cast = [](const Tensor& v, DType to) { return run_op("Cast", {v}, {attribute_i("to", static_cast<std::int64_t>(to))})[0]; };
                if (type == DType::i32) {  // ONNX has no such pool: the kernel alone
                    Tensor xi = cast(x, type), yi(type, {2, 3, oh, ow});
                    quern::pool::Problem p;
                    p.dtype = type;
                    p.window = {{kernel, kernel}, {stride, stride}, {pad, pad, pad, pad}, {dilation, dilation}};
                    run_pool(p, xi, yi);
                    expect_near(cast(yi, DType::f32), want, 0, 0);
                    continue;
                }
                auto attributes = std::vector{attribute_ints("kernel_shape", {kernel, kernel}), attribute_ints("strides", {stride, stride}),
                                              attribute_ints("dilations", {dilation, dilation}), attribute_ints("pads", {pad, pad, pad, pad})};
                const Tensor got = run_op("MaxPool", {cast(x, type)}, attributes)[0];
                EXPECT_EQ(got.dtype(), type);
                expect_near(cast(got, DType::f32), want, 0, 0);
                if (type != DType::f32) continue;
                attributes.push_back(attribute_i("count_include_pad", 1));
                Tensor ones(DType::f32, {1, 1, h, w});
                for (float& v : ones.data<float>()) v = 1;
                const Tensor mean = run_op("AveragePool", {ones}, attributes)[0];  // the share of each window that is no padding
                for (std::int64_t o = 0; o < mean.count(); ++o) {
                    std::int64_t inside = 0;
                    for (std::int64_t i = 0; i < kernel; ++i)
                        for (std::int64_t j = 0; j < kernel; ++j) {
                            const std::int64_t a = o / ow * stride - pad + i * dilation, b = o % ow * stride - pad + j * dilation;
                            inside += a >= 0 && a < h && b >= 0 && b < w;
                        }
                    ASSERT_NEAR(mean.data<float>()[o], float(inside) / float(kernel * kernel), 1e-6) << o;
                }
            }
}
TEST(Pool, MaximumOfMinusInfinityAndIndices) {
    float inf = std::numeric_limits<float>::infinity();
    auto out = run_op("MaxPool", {floats({1, 1, 4}, {-inf, -inf, 3, 3})}, {attribute_ints("kernel_shape", {2}), attribute_ints("strides", {2})}, 12, 2);
    expect_near(out[0], floats({1, 1, 2}, {-inf, 3}));
    EXPECT_EQ(out[1].data<std::int64_t>()[0], 0);
    EXPECT_EQ(out[1].data<std::int64_t>()[1], 2);
}
TEST(Pool, EmptyBatch) {
    auto out = run_op("MaxPool", {Tensor(DType::f32, {0, 3, 8, 8})}, {attribute_ints("kernel_shape", {2, 2})});
    EXPECT_EQ(out[0].shape(), quern::Shape({0, 3, 7, 7}));
}
TEST(Pool, HostileAttributesAreRefused) {
    Tensor x = floats({1, 1, 4, 4}, noise(16));
    using A = std::vector<quern::onnx::Attribute>;
    for (A a : {A{}, A{attribute_ints("kernel_shape", {0, 2})}, A{attribute_ints("kernel_shape", {2})}, A{attribute_ints("kernel_shape", {9, 9})},
                A{attribute_ints("kernel_shape", {2, 2}), attribute_ints("strides", {0, 1})},
                A{attribute_ints("kernel_shape", {2, 2}), attribute_ints("pads", {-1, 0, 0, 0})},
                A{attribute_ints("kernel_shape", {2, 2}), attribute_ints("pads", {1, 1})},
                A{attribute_ints("kernel_shape", {2, 2}), attribute_ints("dilations", {INT64_MAX, 1})},
                A{attribute_ints("kernel_shape", {2, 2}), attribute_s("auto_pad", "SOME")}})
        EXPECT_THROW(run_op("MaxPool", {x}, a), quern::Error);
}
TEST(Pool, SymbolicSizes) {
    ModelBuilder b(20);
    b.input("x", DType::f32, {"N", "3", "H", "W"}).node("MaxPool", {"x"}, {"y"}, {attribute_ints("kernel_shape", {3, 3}), attribute_ints("strides", {2, 2}), attribute_ints("pads", {1, 1, 1, 1}), attribute_i("ceil_mode", 1)}).output("y");
    auto engine = b.model().compile({.threads = 1});
    for (std::int64_t s : {5, 6, 7, 8}) {
        Tensor x = floats({1, 3, s, s}, noise(3 * s * s));
        auto y = engine.run({{"x", x}});
        EXPECT_EQ(y[0].second.shape(), quern::Shape({1, 3, s / 2 + 1, s / 2 + 1}));
    }
}
TEST(ConvTranspose, MatchesItsDefinition) {
    // One input pixel at a time: y[i * stride + k * dilation - pad] += x[i] * w[k].
    std::mt19937 g(3);
    for (int round = 0; round < 20; ++round) {
        auto pick = [&](int lo, int hi) { return static_cast<std::int64_t>(lo + g() % static_cast<unsigned>(hi - lo + 1)); };
        std::int64_t c = pick(1, 3), m = pick(1, 3), n = pick(1, 6), k = pick(1, 4), s = pick(1, 3), d = pick(1, 2), p0 = pick(0, static_cast<int>(k) - 1), p1 = pick(0, static_cast<int>(k) - 1);
        std::int64_t size = (n - 1) * s + (k - 1) * d + 1 - p0 - p1;
        if (size < 1) continue;
        Tensor x = floats({1, c, n}, noise(c * n, g())), w = floats({c, m, k}, noise(c * m * k, g())), want(DType::f32, {1, m, size});
        for (std::int64_t ci = 0; ci < c; ++ci)
            for (std::int64_t mi = 0; mi < m; ++mi)
                for (std::int64_t i = 0; i < n; ++i)
                    for (std::int64_t t = 0; t < k; ++t)
                        if (std::int64_t o = i * s + t * d - p0; o >= 0 && o < size)
                            want.data<float>()[mi * size + o] += x.data<float>()[ci * n + i] * w.data<float>()[(ci * m + mi) * k + t];
        auto got = run_op("ConvTranspose", {x, w}, {attribute_ints("strides", {s}), attribute_ints("dilations", {d}), attribute_ints("pads", {p0, p1})});
        expect_near(got[0], want, 1e-5, 1e-5);
    }
}
TEST(ConvTranspose, RefusesWhatDoesNotFit) {
    Tensor x = floats({1, 2, 3}, noise(6)), w = floats({2, 1, 3}, noise(6));
    EXPECT_THROW(run_op("ConvTranspose", {x, w}, {attribute_i("group", 0)}), quern::Error);
    EXPECT_THROW(run_op("ConvTranspose", {x, w}, {attribute_ints("output_shape", {-5})}), quern::Error);
    EXPECT_THROW(run_op("ConvTranspose", {x, w}, {attribute_ints("pads", {9, 9})}), quern::Error);
    EXPECT_THROW(run_op("ConvTranspose", {x, floats({3, 1, 3}, noise(9))}), quern::Error);
}

}  // namespace
