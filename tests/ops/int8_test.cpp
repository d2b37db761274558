// 8-bit products and convolutions against sums in 64 bits, and ONNX Runtime's QLinear operators.
#include <cmath>
#include <random>

#include "support/op_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

template <class T>
Tensor bytes(quern::Shape shape, unsigned seed) {
    std::mt19937 g(seed);
    Tensor t(quern::dtype_of<T>, shape);
    for (T& x : t.data<T>()) x = static_cast<T>(g());
    return t;
}
template <class T> Tensor scalar(T v) { return t<T>({}, {v}); }

template <class A, class B>
void product(std::int64_t m, std::int64_t k, std::int64_t n, bool per_row, bool per_column, std::vector<int> fixed) {
    Tensor a = bytes<A>({m, k}, 1), b = bytes<B>({k, n}, 2), az = bytes<A>(per_row ? quern::Shape{m} : quern::Shape{}, 3), bz = bytes<B>(per_column ? quern::Shape{n} : quern::Shape{}, 4);
    Tensor want(DType::i32, {m, n});
    for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
            std::int64_t s = 0;
            for (std::int64_t q = 0; q < k; ++q)
                s += (std::int64_t{a.data<A>()[i * k + q]} - az.data<A>()[per_row ? i : 0]) * (std::int64_t{b.data<B>()[q * n + j]} - bz.data<B>()[per_column ? j : 0]);
            want.data<std::int32_t>()[i * n + j] = static_cast<std::int32_t>(s);
        }
    expect_near(run_op("MatMulInteger", {a, b, az, bz}, {}, 10, 1, fixed)[0], want, 0, 0);
}
TEST(Int8, ProductsAreExact) {
    for (std::vector<int> fixed : {std::vector<int>{}, std::vector<int>{1, 3}}) {
        product<std::uint8_t, std::int8_t>(3, 17, 5, false, false, fixed);
        product<std::int8_t, std::uint8_t>(70, 33, 300, false, true, fixed);
        product<std::uint8_t, std::uint8_t>(65, 1, 257, true, true, fixed);
        product<std::int8_t, std::int8_t>(1, 600, 64, true, false, fixed);
        product<std::uint8_t, std::int8_t>(4, 0, 5, false, false, fixed);
    }
}
TEST(Int8, ProductsBroadcastBatches) {
    Tensor a = bytes<std::uint8_t>({3, 1, 2, 4}, 1), b = bytes<std::int8_t>({2, 4, 3}, 2);
    auto got = run_op("MatMulInteger", {a, b}, {}, 10);
    ASSERT_EQ(got[0].shape(), quern::Shape({3, 2, 2, 3}));
    std::int32_t s = 0;
    for (int q = 0; q < 4; ++q) s += a.data<std::uint8_t>()[2 * 8 + 4 + q] * b.data<std::int8_t>()[12 + q * 3 + 2];
    EXPECT_EQ(got[0].data<std::int32_t>()[((2 * 2 + 1) * 2 + 1) * 3 + 2], s);
}
TEST(Int8, ConvolutionPadsWithItsZeroPoint) {
    // All elements equal to the zero point: the sums are 0 wherever the window lies.
    Tensor x(DType::u8, {1, 2, 5, 5});
    for (auto& v : x.data<std::uint8_t>()) v = 77;
    auto got = run_op("ConvInteger", {x, bytes<std::uint8_t>({3, 2, 3, 3}, 1), scalar<std::uint8_t>(77), scalar<std::uint8_t>(9)}, {attribute_ints("pads", {1, 1, 1, 1})}, 10);
    for (std::int32_t v : got[0].data<std::int32_t>()) EXPECT_EQ(v, 0);
}
TEST(Int8, QuantizingRoundsHalfToEvenAndSaturates) {
    Tensor a = t<std::uint8_t>({1, 1}, {1}), one = scalar<float>(1), zero = scalar<std::uint8_t>(0);
    struct { std::uint8_t x; float scale; std::uint8_t y_zero, want; } cases[] = {{5, 2, 0, 2}, {7, 2, 0, 4}, {255, 0.5f, 0, 255}, {3, 2, 254, 255}};
    for (auto& c : cases) {
        auto got = run_op("QLinearMatMul", {a, one, zero, t<std::uint8_t>({1, 1}, {c.x}), one, zero, scalar<float>(c.scale), scalar<std::uint8_t>(c.y_zero)}, {}, 10);
        // 3 / 2 rounds to 2: 254 + 2 saturates.
        EXPECT_EQ(got[0].data<std::uint8_t>()[0], c.want);
    }
}
TEST(Int8, ParametersOfTheWrongLengthAreRefused) {
    Tensor x = bytes<std::uint8_t>({1, 2, 4, 4}, 1), w = bytes<std::int8_t>({3, 2, 3, 3}, 2), s = scalar<float>(0.1f);
    auto run = [&](Tensor ws, Tensor wz, Tensor xs) { return run_op("QLinearConv", {x, xs, scalar<std::uint8_t>(1), w, ws, wz, s, scalar<std::uint8_t>(3)}, {}, 10); };
    EXPECT_NO_THROW(run(floats({3}, {1, 2, 3}), t<std::int8_t>({3}, {0, 1, 2}), s));
    EXPECT_THROW(run(floats({2}, {1, 2}), scalar<std::int8_t>(0), s), quern::Error);
    EXPECT_THROW(run(s, t<std::int8_t>({2}, {0, 1}), s), quern::Error);
    EXPECT_THROW(run(s, scalar<std::int8_t>(0), floats({2}, {1, 2})), quern::Error);
    EXPECT_THROW(run_op("MatMulInteger", {bytes<std::uint8_t>({2, 3}, 1), bytes<std::uint8_t>({3, 4}, 2), t<std::uint8_t>({3}, {1, 2, 3})}, {}, 10), quern::Error);
}
TEST(Int8, ContribAddBroadcasts) {
    Tensor a = t<std::uint8_t>({2, 3}, {10, 20, 30, 40, 50, 60}), b = t<std::uint8_t>({2, 1}, {10, 100}), s = scalar<float>(1), z = scalar<std::uint8_t>(10);
    auto got = run_op("QLinearAdd", {a, s, z, b, s, z, scalar<float>(2), scalar<std::uint8_t>(0)}, {}, 13, 1, {}, {}, "com.microsoft");
    const std::uint8_t want[] = {0, 5, 10, 60, 65, 70};
    for (int i = 0; i < 6; ++i) EXPECT_EQ(got[0].data<std::uint8_t>()[i], want[i]);
}

}  // namespace
