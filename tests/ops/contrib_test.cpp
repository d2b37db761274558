// Operators of com.microsoft where ONNX Runtime's CPU has no word (tests/models/contrib.py compares the others), and bad input.
#include <cmath>
#include <random>

#include "support/op_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

Tensor noise(quern::Shape shape, unsigned seed) {
    std::mt19937 g(seed);
    std::normal_distribution<float> n;
    Tensor r(DType::f32, shape);
    for (float& x : r.data<float>()) x = n(g);
    return r;
}
std::vector<Tensor> contrib(const std::string& op, const std::vector<Tensor>& in, std::vector<quern::onnx::Attribute> attrs = {}, int outputs = 1, std::vector<int> fixed = {}) {
    return run_op(op, in, std::move(attrs), 21, outputs, std::move(fixed), {}, "com.microsoft");
}
double gelu(double x) { return x * (1 + std::erf(x / std::sqrt(2.0))) / 2; }

TEST(Contrib, GroupNormNormalizesChannelsLast) {
    Tensor x = noise({2, 3, 2, 4}, 1), gamma = noise({4}, 2), beta = noise({4}, 3), skip = noise({2, 4}, 4), bias = noise({4}, 5);
    auto want = [&](const Tensor& v) {
        Tensor y(DType::f32, {2, 3, 2, 4});
        for (int n = 0; n < 2; ++n)
            for (int g = 0; g < 2; ++g) {
                double sum = 0, square = 0;
                for (int p = 0; p < 6; ++p)
                    for (int c = 2 * g; c < 2 * g + 2; ++c) {
                        double a = v.data<float>()[(n * 6 + p) * 4 + c];
                        sum += a, square += a * a;
                    }
                double mean = sum / 12, inverse = 1 / std::sqrt(square / 12 - mean * mean + 1e-5);
                for (int p = 0; p < 6; ++p)
                    for (int c = 2 * g; c < 2 * g + 2; ++c) {
                        int at = (n * 6 + p) * 4 + c;
                        double a = (v.data<float>()[at] - mean) * inverse * gamma.data<float>()[c] + beta.data<float>()[c];
                        y.data<float>()[at] = static_cast<float>(a / (1 + std::exp(-a)));
                    }
            }
        return y;
    };
    expect_near(contrib("GroupNorm", {x, gamma, beta}, {attribute_i("groups", 2), attribute_i("activation", 1)})[0], want(x), 1e-4, 1e-5);
    Tensor sum = x.clone();
    for (int i = 0; i < 48; ++i) sum.data<float>()[i] += skip.data<float>()[i / 24 * 4 + i % 4] + bias.data<float>()[i % 4];
    auto got = contrib("SkipGroupNorm", {x, gamma, beta, skip, bias}, {attribute_i("groups", 2), attribute_i("activation", 1)}, 2);
    expect_near(got[0], want(sum), 1e-4, 1e-5);
    expect_near(got[1], sum);
}
TEST(Contrib, BiasesAreAdded) {
    Tensor x = noise({2, 3, 6}, 1), bias = noise({6}, 2), skip = noise({2, 3, 6}, 3), want(DType::f32, {2, 3, 3}), sum(DType::f32, {2, 3, 6});
    for (int r = 0; r < 6; ++r)
        for (int j = 0; j < 6; ++j) {
            double a = x.data<float>()[r * 6 + j] + bias.data<float>()[j];
            sum.data<float>()[r * 6 + j] = static_cast<float>(a + skip.data<float>()[r * 6 + j]);
            if (j < 3) want.data<float>()[r * 3 + j] = static_cast<float>(a * gelu(x.data<float>()[r * 6 + j + 3] + bias.data<float>()[j + 3]));
        }
    expect_near(contrib("BiasSplitGelu", {x, bias})[0], want, 1e-4, 1e-5);
    expect_near(contrib("BiasAdd", {x, bias, skip})[0], sum);
}
TEST(Contrib, RealTransformsUndoEachOther) {
    Tensor x = noise({3, 10}, 1);
    auto spectrum = contrib("Rfft", {x}, {attribute_i("normalized", 0), attribute_i("onesided", 1), attribute_i("signal_ndim", 1)})[0];
    ASSERT_EQ(spectrum.shape(), quern::Shape({3, 6, 2}));
    double re = 0, im = 0;
    for (int j = 0; j < 10; ++j) re += x.data<float>()[10 + j] * std::cos(2 * M_PI * 2 * j / 10), im -= x.data<float>()[10 + j] * std::sin(2 * M_PI * 2 * j / 10);
    EXPECT_NEAR(spectrum.data<float>()[12 + 4], re, 1e-4);
    EXPECT_NEAR(spectrum.data<float>()[12 + 5], im, 1e-4);
    expect_near(contrib("Irfft", {spectrum})[0], x, 1e-5, 1e-5);
    EXPECT_THROW(contrib("Rfft", {x}, {attribute_i("normalized", 1)}), quern::Error);
}
TEST(Contrib, QuantizedMean) {
    Tensor x = t<std::uint8_t>({1, 2, 2, 1}, {10, 20, 30, 41}), scale = floats({}, {1}), zero = t<std::uint8_t>({}, {1});
    auto got = contrib("QLinearReduceMean", {x, scale, zero, floats({}, {2}), zero}, {attribute_ints("axes", {1, 2})});
    EXPECT_EQ(got[0].data<std::uint8_t>()[0], 13);  // (25.25 - 1) / 2 + 1 = 13.1
}
TEST(Contrib, ASingularMatrixHasNoInverse) {
    EXPECT_THROW(contrib("Inverse", {floats({2, 2}, {1, 2, 2, 4})}), quern::Error);
    expect_near(contrib("Inverse", {floats({2, 2}, {0, 2, 4, 0})})[0], floats({2, 2}, {0, 0.25f, 0.5f, 0}));
    EXPECT_EQ(contrib("Inverse", {Tensor(DType::f32, {0, 3, 3})})[0].shape(), quern::Shape({0, 3, 3}));
}
TEST(Contrib, AttentionRunsWithSymbolicSizes) {
    // One engine, two lengths: the second sequence sees only its own part of the cache.
    ModelBuilder b(21);
    b.domain("com.microsoft", 1);
    b.input("q", DType::f32, {"B", "S", "16"}).input("k", DType::f32, {"B", "S", "8"}).input("v", DType::f32, {"B", "S", "8"});
    b.input("pk", DType::f32, {"B", "2", "P", "4"}).input("pv", DType::f32, {"B", "2", "P", "4"}).input("ends", DType::i32, {"B"}).input("total", DType::i32, {});
    b.node("GroupQueryAttention", {"q", "k", "v", "pk", "pv", "ends", "total"}, {"y", "nk", "nv"}, {attribute_i("num_heads", 4), attribute_i("kv_num_heads", 2)}, "com.microsoft");
    b.output("y").output("nk").output("nv");
    quern::Model model = b.model();
    quern::Engine engine = model.compile({.threads = 1});
    for (std::int64_t past : {0, 3, 6}) {
        Tensor q = noise({2, 1, 16}, 1), k = noise({2, 1, 8}, 2), v = noise({2, 1, 8}, 3), pk = noise({2, 2, past, 4}, 4), pv = noise({2, 2, past, 4}, 5);
        std::int32_t total = static_cast<std::int32_t>(past) + 1;
        auto out = engine.run({{"q", q}, {"k", k}, {"v", v}, {"pk", pk}, {"pv", pv}, {"ends", t<std::int32_t>({2}, {total - 1, 0})}, {"total", t<std::int32_t>({}, {total})}});
        const Tensor& y = out[0].second;
        ASSERT_EQ(out[1].second.shape(), quern::Shape({2, 2, past + 1, 4}));
        for (int h = 0; h < 4; ++h)
            for (int d = 0; d < 4; ++d) EXPECT_NEAR(y.data<float>()[16 + h * 4 + d], v.data<float>()[8 + h / 2 * 4 + d], 1e-6);
    }
}
TEST(Contrib, RowsOfBlocksAreGathered) {
    // 4 bits, two rows of 32, blocks of 16: the low half of a byte comes first.
    Tensor data(DType::u8, {2, 16}), scales = floats({2, 2}, {1, 2, 3, 4}), zeros = t<std::uint8_t>({2, 1}, {0x21, 0x43});
    for (int i = 0; i < 32; ++i) data.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 17 + 3);
    auto got = contrib("GatherBlockQuantized", {data, ints({3}, {1, -2, 1}), scales, zeros}, {attribute_i("block_size", 16), attribute_i("bits", 4)}, 1, {0, 2, 3})[0];
    ASSERT_EQ(got.shape(), quern::Shape({3, 32}));
    for (int r = 0; r < 3; ++r)
        for (int j = 0; j < 32; ++j) {
            int row = r == 1 ? 0 : 1, byte = data.data<std::uint8_t>()[row * 16 + j / 2], q = j % 2 ? byte >> 4 : byte & 15, z = zeros.data<std::uint8_t>()[row] >> (j / 16 * 4) & 15;
            EXPECT_EQ(got.data<float>()[r * 32 + j], float(q - z) * scales.data<float>()[row * 2 + j / 16]);
        }
    EXPECT_THROW(contrib("GatherBlockQuantized", {data, ints({1}, {2}), scales}, {attribute_i("block_size", 16)}, 1, {0, 2}), quern::Error);
    EXPECT_THROW(contrib("GatherBlockQuantized", {data, ints({1}, {0}), floats({2, 3}, {1, 2, 3, 4, 5, 6})}, {attribute_i("block_size", 16)}, 1, {0, 2}), quern::Error);
}
TEST(Contrib, FewBitProductsRefuseWhatDoesNotFit) {
    Tensor a = noise({1, 32}, 1), q(DType::u8, {2, 1, 16}), scales = floats({2}, {1, 1});
    auto run = [&](std::int64_t k, std::int64_t bits, std::int64_t block, std::vector<Tensor> in) {
        return contrib("MatMulNBits", in, {attribute_i("K", k), attribute_i("N", 2), attribute_i("bits", bits), attribute_i("block_size", block)}, 1, {1, 2, 3, 4});
    };
    EXPECT_NO_THROW(run(32, 4, 32, {a, q, scales}));
    EXPECT_THROW(run(32, 4, 24, {a, q, scales}), quern::Error);             // no power of 2
    EXPECT_THROW(run(32, 3, 32, {a, q, scales}), quern::Error);
    EXPECT_THROW(run(64, 4, 32, {a, q, scales}), quern::Error);             // B too small
    EXPECT_THROW(run(32, 4, 32, {a, q, floats({3}, {1, 1, 1})}), quern::Error);
    EXPECT_THROW(run(32, 4, 32, {noise({1, 31}, 1), q, scales}), quern::Error);
    Tensor order(DType::i32, {32});
    order.data<std::int32_t>()[5] = 7;  // there is one block
    EXPECT_THROW(run(32, 4, 32, {a, q, scales, Tensor(), order}), quern::Error);
}
TEST(Contrib, ClampedSwiGlu) {
    Tensor gate = noise({3, 8}, 1), up = noise({3, 8}, 2), both(DType::f32, {3, 16});
    for (std::size_t r = 0; r < 3; ++r)
        for (std::size_t k = 0; k < 8; ++k) both.data<float>()[r * 16 + k] = gate.data<float>()[r * 8 + k], both.data<float>()[r * 16 + 8 + k] = up.data<float>()[r * 8 + k];
    for (double limit : {0.0, 0.5}) {
        Tensor want(DType::f32, {3, 8});
        for (std::size_t i = 0; i < 24; ++i) {
            double g = double(gate.data<float>()[i]), l = double(up.data<float>()[i]);
            if (limit > 0) g = std::min(g, limit), l = std::clamp(l, -limit, limit);
            want.data<float>()[i] = static_cast<float>(g / (1 + std::exp(-1.7 * g)) * (l + 1));
        }
        std::vector<quern::onnx::Attribute> attrs{attribute_f("activation_alpha", 1.7f), attribute_f("activation_beta", 1), attribute_f("limit", static_cast<float>(limit))};
        expect_near(contrib("SwiGLU", {gate, up}, attrs)[0], want);
        expect_near(contrib("SwiGLU", {both}, attrs)[0], want);
    }
}
TEST(Contrib, Bnb4OfTheBackwardPassAndBadWeights) {
    // NF4 codes 15 (1.0) and 0 (-1.0), first elements in the high bits; [N, K] = [2, 8] with absmax 3.
    Tensor b(DType::u8, {8}), most = floats({1}, {3});
    for (int i = 0; i < 8; ++i) static_cast<std::uint8_t*>(b.raw())[i] = 0xf0;
    auto product = [&](const Tensor& a, std::int64_t trans, std::int64_t k = 8, std::int64_t block = 16, std::vector<int> fixed = {1, 2}) {
        return contrib("MatMulBnb4", {a, b, most}, {attribute_i("N", 2), attribute_i("K", k), attribute_i("block_size", block), attribute_i("quant_type", 1), attribute_i("transB", trans)}, 1, std::move(fixed))[0];
    };
    expect_near(product(floats({1, 8}, {1, 0, 0, 0, 0, 0, 0, 2}), 1), floats({1, 2}, {-3, -3}));
    expect_near(product(floats({1, 2}, {1, 2}), 0), floats({1, 8}, {9, -9, 9, -9, 9, -9, 9, -9}));
    Tensor a = noise({1, 8}, 1);
    EXPECT_THROW(product(a, 1, 9), quern::Error);
    EXPECT_THROW(product(a, 1, std::int64_t{1} << 40), quern::Error);
    EXPECT_THROW(product(a, 1, 8, 24), quern::Error);
    EXPECT_THROW(product(a, 1, 8, 16, {1}), quern::Error);
}
TEST(Contrib, CropsOfHostileRegions) {
    Tensor x = noise({1, 1, 4, 4}, 1);
    const float nan = std::nanf(""), inf = INFINITY;
    auto crop = [&](Tensor rois, std::int32_t image, std::vector<std::int32_t> size, std::vector<int> fixed = {}) {
        return contrib("CropAndResize", {x, rois, t<std::int32_t>({1}, {image}), t<std::int32_t>({std::int64_t(size.size())}, size)}, {attribute_f("extrapolation_value", 7)}, 1, std::move(fixed))[0];
    };
    expect_near(crop(floats({1, 4}, {0, 0, 1, 1}), 0, {4, 4}), x, 1e-5, 1e-6);
    for (float v : {nan, inf, -inf, 1e30f}) {
        const Tensor y = crop(floats({1, 4}, {v, 0, v, 1}), 0, {2, 2});
        for (float f : y.data<float>()) EXPECT_EQ(f, 7);
    }
    for (std::vector<int> fixed : {std::vector<int>{}, {3}}) {
        EXPECT_THROW(crop(floats({1, 4}, {0, 0, 1, 1}), 0, {0, 2}, fixed), quern::Error);
        EXPECT_THROW(crop(floats({1, 4}, {0, 0, 1, 1}), 0, {2}, fixed), quern::Error);
    }
    EXPECT_THROW(crop(floats({1, 4}, {0, 0, 1, 1}), 1, {2, 2}), quern::Error);
    EXPECT_THROW(crop(floats({1, 4}, {0, 0, 1, 1}), -1, {2, 2}), quern::Error);
}
TEST(Contrib, BadInputIsRefused) {
    Tensor x = noise({2, 3, 8}, 1);
    EXPECT_THROW(contrib("MultiHeadAttention", {x, x, x}), quern::Error);                                        // no num_heads
    EXPECT_THROW(contrib("MultiHeadAttention", {x}, {attribute_i("num_heads", 2)}), quern::Error);                // no key
    EXPECT_THROW(contrib("Attention", {x, noise({8, 25}, 2)}, {attribute_i("num_heads", 2)}), quern::Error);      // 25 values for Q, K, V
    EXPECT_THROW(contrib("SkipLayerNormalization", {x, noise({3, 8, 8}, 2), noise({8}, 3)}), quern::Error);
    EXPECT_THROW(contrib("FusedConv", {noise({1, 1, 4, 4}, 1), noise({1, 1, 3, 3}, 2)}, {quern::onnx::attribute_s("activation", "Cosine")}), quern::Error);
    EXPECT_THROW(contrib("CDist", {noise({2, 3}, 1), noise({2, 3}, 1)}, {quern::onnx::attribute_s("metric", "cosine")}), quern::Error);
}

}  // namespace
