// What ONNX's own cases leave out of the element-wise operators: hostile values, broadcasting walks, narrow types, content.
#include <cmath>
#include <limits>
#include <random>

#include <quern/tensor/half.hpp>

#include "support/op_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;
using quern::onnx::attribute_s;

namespace {

template <class T>
Tensor one(std::vector<T> v) { return t<T>({static_cast<std::int64_t>(v.size())}, v); }
constexpr float inf = std::numeric_limits<float>::infinity();
const float nan = std::numeric_limits<float>::quiet_NaN();
float raw_half(std::uint16_t bits) { return quern::to_float(quern::Half{bits}); }

TEST(Arithmetic, IntegerDivisionNeverTraps) {
    const auto least = std::numeric_limits<std::int32_t>::min();
    const auto r = run_op("Div", {one<std::int32_t>({7, -7, 7, 0, least, least}), one<std::int32_t>({2, 2, 0, 0, -1, 0})})[0];
    expect_near(r, one<std::int32_t>({3, -3, 0, 0, least, 0}));
    const auto l64 = std::numeric_limits<std::int64_t>::min();
    expect_near(run_op("Mod", {ints({5}, {7, -7, 7, 0, l64}), ints({5}, {-3, 3, 0, 0, -1})})[0], ints({5}, {-2, 2, 0, 0, 0}));
    expect_near(run_op("Mod", {ints({2}, {-7, 7}), ints({2}, {3, -3})}, {attribute_i("fmod", 1)})[0], ints({2}, {-1, 1}));
}
TEST(Arithmetic, UnsignedValuesAboveTheSignedRange) {
    const std::uint64_t big = ~std::uint64_t{0};
    EXPECT_EQ(run_op("Div", {one<std::uint64_t>({big}), one<std::uint64_t>({2})})[0].data<std::uint64_t>()[0], big / 2);
    EXPECT_EQ(run_op("Max", {one<std::uint64_t>({big}), one<std::uint64_t>({1})})[0].data<std::uint64_t>()[0], big);
    EXPECT_EQ(run_op("Greater", {one<std::uint64_t>({big}), one<std::uint64_t>({1})})[0].data<bool>()[0], true);
    EXPECT_EQ(run_op("ReduceMax", {one<std::uint64_t>({1, big, 2})})[0].data<std::uint64_t>()[0], big);
}
TEST(Arithmetic, SmallIntegersWrap) {
    EXPECT_EQ(run_op("Add", {one<std::uint8_t>({250}), one<std::uint8_t>({10})})[0].data<std::uint8_t>()[0], 4);
    EXPECT_EQ(run_op("Mul", {one<std::int8_t>({100}), one<std::int8_t>({3})})[0].data<std::int8_t>()[0], 44);
    EXPECT_EQ(run_op("Sub", {one<std::uint16_t>({1}), one<std::uint16_t>({2})})[0].data<std::uint16_t>()[0], 65535);
}
/// Found by fuzzing: parameters are floats, and integers do not have them all.
TEST(Arithmetic, ParametersBeyondTheIntegers) {
    const auto shrink = run_op("Shrink", {one<std::int8_t>({-100, 0, 100})}, {attribute_f("bias", 1e30f), attribute_f("lambd", 1)})[0];
    EXPECT_EQ(shrink.data<std::int8_t>()[1], 0);
    const auto least = std::numeric_limits<std::int32_t>::min();
    const auto gemm = run_op("Gemm", {t<std::int32_t>({1, 1}, {0}), t<std::int32_t>({1, 1}, {7}), t<std::int32_t>({1}, {1})}, {attribute_f("beta", -1e30f)})[0];
    EXPECT_EQ(gemm.data<std::int32_t>()[0], least);
    EXPECT_EQ(run_op("ReduceLogSumExp", {one<std::int32_t>({2147483647, 2147483647, 2147483647, 2147483647})})[0].data<std::int32_t>()[0], 2147483647);
}
/// Loops of narrow types give what the wide ones give; over same shapes, rows, columns and scalars.
TEST(Arithmetic, NarrowTypesFollowWideOnes) {
    auto cast = [](const Tensor& x, DType to) { return run_op("Cast", {x}, {attribute_i("to", static_cast<std::int64_t>(to))})[0]; };
    for (DType type : {DType::u8, DType::i8, DType::u16, DType::i16, DType::f16, DType::bf16})
        for (const quern::Shape& other : {quern::Shape{7, 700}, quern::Shape{700}, quern::Shape{7, 1}, quern::Shape{1}}) {
            Tensor a(DType::f32, {7, 700}), b(DType::f32, other);
            const bool positive = type == DType::u8 || type == DType::u16;
            for (std::int64_t i = 0; i < a.count(); ++i) a.data<float>()[i] = float((i * 7919 >> 2) % 12) - (positive ? 0 : 6);
            for (std::int64_t i = 0; i < b.count(); ++i) b.data<float>()[i] = float((i * 104729 >> 3) % 12) - (positive ? 0 : 6);
            for (const char* op : {"Add", "Mul", "Max", "Min", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"}) {
                SCOPED_TRACE(std::string(op) + " " + quern::dtype_name(type) + " " + other.to_string());
                const bool order = std::string(op).size() > 3;
                const Tensor want = run_op(op, {a, b})[0], got = run_op(op, {cast(a, type), cast(b, type)})[0];
                if (order) expect_near(got, want);
                else {
                    EXPECT_EQ(got.dtype(), type);
                    expect_near(cast(got, DType::f32), cast(cast(want, type), DType::f32), 0, 0);
                }
            }
            const Tensor x = cast(a, type), y = cast(b, type), k = run_op("Greater", {a, floats({}, {1})})[0];
            expect_near(cast(run_op("Where", {k, x, y})[0], DType::f32), run_op("Where", {k, cast(x, DType::f32), cast(y, DType::f32)})[0], 0, 0);
            expect_near(cast(run_op("Where", {k, y, x})[0], DType::f32), run_op("Where", {k, cast(y, DType::f32), cast(x, DType::f32)})[0], 0, 0);
            if (type != DType::f16 && type != DType::bf16) expect_near(run_op("BitwiseXor", {run_op("BitwiseXor", {x, y})[0], y})[0], x);
        }
}
TEST(Logic, BoolLoops) {
    Tensor a(DType::boolean, {3, 100}), b(DType::boolean, {100});
    for (std::int64_t i = 0; i < 300; ++i) a.data<bool>()[i] = i * 7 % 5 < 2;
    for (std::int64_t i = 0; i < 100; ++i) b.data<bool>()[i] = i % 3 == 0;
    for (const char* op : {"And", "Or", "Xor"}) {
        const Tensor got = run_op(op, {a, b})[0];
        for (std::int64_t i = 0; i < 300; ++i) {
            const bool x = a.data<bool>()[i], y = b.data<bool>()[i % 100];
            ASSERT_EQ(got.data<bool>()[i], op[0] == 'A' ? x && y : op[0] == 'O' ? x || y : x != y) << op << i;
        }
    }
}
TEST(Arithmetic, PowersOfMixedTypes) {
    expect_near(run_op("Pow", {ints({5}, {2, 3, 2, -1, 0}), one<std::int32_t>({10, 0, -1, -3, 5})})[0], ints({5}, {1024, 1, 0, -1, 0}));
    expect_near(run_op("Pow", {one<std::int32_t>({9, 2}), floats({2}, {0.5f, 3.0f})})[0], one<std::int32_t>({3, 8}));
    expect_near(run_op("Pow", {floats({4}, {-2, 3, 0.5f, 4}), ints({1}, {2})})[0], floats({4}, {4, 9, 0.25f, 16}));
    const auto r = run_op("Pow", {floats({4}, {-0.0f, -inf, 4, -1}), floats({}, {0.5f})})[0];
    expect_near(r, floats({4}, {0, inf, 2, nan}));
    EXPECT_FALSE(std::signbit(r.data<float>()[0]));
}
TEST(Arithmetic, NanSpreadsThroughMaxMinAndReductions) {
    expect_near(run_op("Max", {floats({3}, {1, nan, 3}), floats({3}, {nan, 1, 2})})[0], floats({3}, {nan, nan, 3}));
    expect_near(run_op("Min", {floats({1}, {nan}), floats({}, {0})})[0], floats({1}, {nan}));
    expect_near(run_op("ReduceMax", {floats({3}, {1, nan, 3})})[0], floats({1}, {nan}));
}
/// Every pattern of repeated dimensions of rank 4, against indices computed one by one; and a large one in tiles.
TEST(Broadcast, EveryPatternOfFourDimensions) {
    const std::int64_t full[4] = {3, 2, 5, 7};
    for (int pa = 0; pa < 16; ++pa)
        for (int pb = 0; pb < 16; ++pb) {
            quern::Shape sa{1, 1, 1, 1}, sb{1, 1, 1, 1};
            std::int64_t out[4];
            for (int d = 0; d < 4; ++d) {
                if (pa >> d & 1) sa[d] = full[d];
                if (pb >> d & 1) sb[d] = full[d];
                out[d] = std::max(sa[d], sb[d]);
            }
            Tensor a(DType::f32, sa), b(DType::f32, sb), want(DType::f32, {out[0], out[1], out[2], out[3]});
            for (std::int64_t i = 0; i < a.count(); ++i) a.data<float>()[i] = float(i);
            for (std::int64_t i = 0; i < b.count(); ++i) b.data<float>()[i] = 1000.0f * float(i);
            for (std::int64_t i = 0; i < want.count(); ++i) {
                std::int64_t ia = 0, ib = 0, rest = i, index[4];
                for (int d = 3; d >= 0; --d) index[d] = rest % out[d], rest /= out[d];
                for (int d = 0; d < 4; ++d) {
                    ia = ia * sa[d] + (sa[d] == 1 ? 0 : index[d]);
                    ib = ib * sb[d] + (sb[d] == 1 ? 0 : index[d]);
                }
                want.data<float>()[i] = float(ia) - 1000.0f * float(ib);
            }
            expect_near(run_op("Sub", {a, b})[0], want, 0, 0);
        }
}
TEST(Broadcast, LongRowsAndThreads) {
    Tensor a(DType::f32, {70000}), b(DType::f32, {3, 1});
    for (int i = 0; i < 70000; ++i) a.data<float>()[i] = float(i);
    for (int i = 0; i < 3; ++i) b.data<float>()[i] = float(i + 1);
    const auto r1 = run_op("Mul", {a, b}, {}, 20, 1, {}, {.threads = 1})[0], r2 = run_op("Mul", {a, b}, {}, 20, 1, {}, {.threads = 2})[0];
    for (std::int64_t i = 0; i < r1.count(); i += 997) EXPECT_EQ(r1.data<float>()[i], float(i % 70000) * float(i / 70000 + 1));
    EXPECT_EQ(std::memcmp(r1.raw(), r2.raw(), r1.bytes()), 0);
}
TEST(Broadcast, EmptyTensors) {
    EXPECT_EQ(run_op("Add", {Tensor(DType::f32, {0, 3}), floats({3}, {1, 2, 3})})[0].shape(), (quern::Shape{0, 3}));
    EXPECT_EQ(run_op("Where", {Tensor(DType::boolean, {0, 1}), floats({1}, {1}), floats({2}, {1, 2})})[0].shape(), (quern::Shape{0, 2}));
    EXPECT_EQ(run_op("Exp", {Tensor(DType::f32, {0})})[0].count(), 0);
}
TEST(Broadcast, RefusesWhatDoesNotFit) {
    EXPECT_THROW(run_op("Add", {floats({2}, {1, 2}), floats({3}, {1, 2, 3})}), quern::Error);
    ModelBuilder b;  // found only when it runs
    b.input("x", DType::f32, {"N"}).input("y", DType::f32, {"M"}).node("Add", {"x", "y"}, {"z"}).output("z");
    EXPECT_THROW(b.run({{"x", floats({2}, {1, 2})}, {"y", floats({3}, {1, 2, 3})}}), quern::Error);
}
TEST(Broadcast, AxisOfOldOpsets) {
    // B's first dimension lies along A's dimension 1.
    auto r = run_op("Add", {floats({1, 2, 2}, {1, 2, 3, 4}), floats({2}, {10, 20})}, {attribute_i("broadcast", 1), attribute_i("axis", 1)}, 6)[0];
    expect_near(r, floats({1, 2, 2}, {11, 12, 23, 24}));
}
TEST(Where, StringsAndBroadcast) {
    const std::string yes[] = {"a", "b"}, no[] = {"c"};
    Tensor k(DType::boolean, {2, 1});
    k.data<bool>()[1] = true;
    auto r = run_op("Where", {k, Tensor::from_strings(yes, {2}), Tensor::from_strings(no, {1})})[0];
    ASSERT_EQ(r.shape(), (quern::Shape{2, 2}));
    EXPECT_EQ(r.strings()[0], "c");
    EXPECT_EQ(r.strings()[3], "b");
}
TEST(Compare, Strings) {
    const std::string a[] = {"x", "y", ""}, b[] = {"y"};
    auto r = run_op("Equal", {Tensor::from_strings(a, {3}), Tensor::from_strings(b, {1})})[0];
    EXPECT_FALSE(r.data<bool>()[0]);
    EXPECT_TRUE(r.data<bool>()[1]);
}
TEST(Shift, CountsOutsideOfTheWidth) {
    auto right = run_op("BitShift", {one<std::int8_t>({-8, -8, 8, 8}), one<std::int8_t>({1, 9, 9, -1})}, {attribute_s("direction", "RIGHT")}, 28)[0];
    const std::int8_t want[] = {-4, -1, 0, 0};
    for (int i = 0; i < 4; ++i) EXPECT_EQ(right.data<std::int8_t>()[i], want[i]);
    EXPECT_THROW(run_op("BitShift", {ints({1}, {1}), ints({1}, {1})}, {attribute_s("direction", "UP")}, 28), quern::Error);
}
TEST(Unary, EdgesOfFloats) {
    expect_near(run_op("Round", {floats({5}, {0.5f, 1.5f, 2.5f, -0.5f, -1.5f})})[0], floats({5}, {0, 2, 2, 0, -2}), 0, 0);
    expect_near(run_op("Softplus", {floats({4}, {-200, 0, 200, inf})})[0], floats({4}, {0, 0.6931472f, 200, inf}));
    expect_near(run_op("Sigmoid", {floats({4}, {-200, 0, 200, nan})})[0], floats({4}, {0, 0.5f, 1, nan}));
    expect_near(run_op("Sign", {floats({3}, {-3, 0, nan})})[0], floats({3}, {-1, 0, nan}));
    expect_near(run_op("Tanh", {floats({2}, {-inf, 1e-8f})})[0], floats({2}, {-1, 1e-8f}), 1e-6, 0);
    expect_near(run_op("Elu", {floats({2}, {-1e-6f, 2})}, {attribute_f("alpha", 2)})[0], floats({2}, {-2e-6f, 2}), 1e-5, 0);
    const auto least = std::numeric_limits<std::int64_t>::min();
    expect_near(run_op("Abs", {ints({2}, {least, -5})})[0], ints({2}, {least, 5}));
}
TEST(Unary, HalfAndBrainFloatsComputeInFloat) {
    Tensor h(DType::f16, {600}), want(DType::f16, {600});
    for (int i = 0; i < 600; ++i) {
        h.data<quern::Half>()[i] = quern::to_half(float(i) / 100 - 3);
        want.data<quern::Half>()[i] = quern::to_half(std::exp(quern::to_float(h.data<quern::Half>()[i])));
    }
    auto r = run_op("Exp", {h})[0];
    for (int i = 0; i < 600; ++i) EXPECT_NEAR(raw_half(r.data<quern::Half>()[i].bits), raw_half(want.data<quern::Half>()[i].bits), 0.01 * std::exp(double(i) / 100 - 3));
}
TEST(Clip, BoundsAsTheyCome) {
    expect_near(run_op("Clip", {floats({3}, {-1, 5, 9}), floats({}, {4}), floats({}, {2})})[0], floats({3}, {2, 2, 2}));
    expect_near(run_op("Clip", {ints({3}, {-1, 5, 9}), Tensor(), ints({}, {6})})[0], ints({3}, {-1, 5, 6}));
    expect_near(run_op("Clip", {floats({2}, {-1, 9})}, {attribute_f("min", 0)}, 6)[0], floats({2}, {0, 9}));
    EXPECT_THROW(run_op("Clip", {floats({2}, {-1, 9}), floats({2}, {0, 0})}), quern::Error);
}
TEST(Cast, FloatsOutOfRangeAreDefined) {
    auto to = [](Tensor x, DType t) { return run_op("Cast", {x}, {attribute_i("to", static_cast<std::int64_t>(t))}, 25)[0]; };
    expect_near(to(floats({5}, {1e20f, -1e20f, nan, 2.9f, -2.9f}), DType::i32), one<std::int32_t>({2147483647, -2147483647 - 1, 0, 2, -2}));
    expect_near(to(floats({3}, {inf, -inf, nan}), DType::i64), ints({3}, {INT64_MAX, INT64_MIN, 0}));
    EXPECT_EQ(to(floats({1}, {300}), DType::u8).data<std::uint8_t>()[0], 44);
    EXPECT_EQ(to(floats({1}, {1.8446744e19f}), DType::u64).data<std::uint64_t>()[0], ~std::uint64_t{0});
    EXPECT_EQ(to(one<double>({1e300}), DType::f32).data<float>()[0], inf);
    EXPECT_EQ(to(floats({1}, {1e6f}), DType::f16).data<quern::Half>()[0].bits, 0x7c00);
    EXPECT_TRUE(to(floats({1}, {0.1f}), DType::boolean).data<bool>()[0]);
}
/// Every code of each 8-bit float goes to float and comes back; halfway values round to even.
TEST(Cast, Float8RoundTrip) {
    for (DType f8 : {DType::f8e4m3fn, DType::f8e4m3fnuz, DType::f8e5m2, DType::f8e5m2fnuz, DType::f8e8m0}) {
        Tensor codes(f8, {256});
        for (int i = 0; i < 256; ++i) static_cast<std::uint8_t*>(codes.raw())[i] = static_cast<std::uint8_t>(i);
        Tensor wide = run_op("Cast", {codes}, {attribute_i("to", 1)}, 25)[0];
        Tensor back = run_op("Cast", {wide}, {attribute_i("to", static_cast<std::int64_t>(f8)), attribute_i("saturate", 0)}, 25)[0];
        for (int i = 0; i < 256; ++i) {
            const float v = wide.data<float>()[i];
            const int b = static_cast<const std::uint8_t*>(back.raw())[i];
            if (v == v) EXPECT_EQ(b, i) << quern::dtype_name(f8);
            else EXPECT_NE(run_op("Cast", {back}, {attribute_i("to", 1)}, 25)[0].data<float>()[i], 0.0f);
        }
    }
}
/// A narrow float without infinity and NaN by the definition of its fields.
double narrow(unsigned code, int exponent_bits, int mantissa_bits, int bias) {
    const int exponent = int(code >> mantissa_bits) & ((1 << exponent_bits) - 1), mantissa = int(code) & ((1 << mantissa_bits) - 1);
    const double v = exponent ? std::ldexp(1 + std::ldexp(mantissa, -mantissa_bits), exponent - bias) : std::ldexp(mantissa, 1 - bias - mantissa_bits);
    return code >> (exponent_bits + mantissa_bits) ? -v : v;
}
/// Every code of the floats under 8 bits; then numbers between, which go to the nearest one, ties to the even code, and out of range to the largest.
TEST(Cast, FloatsUnderEightBits) {
    struct Kind { DType t; int exponent, mantissa, bias; };
    for (Kind k : {Kind{DType::f6e2m3, 2, 3, 1}, {DType::f6e3m2, 3, 2, 3}, {DType::f4e2m1, 2, 1, 1}}) {
        SCOPED_TRACE(quern::dtype_name(k.t));
        const int bits = quern::dtype_bits(k.t), codes = 1 << bits;
        auto to = [&](const Tensor& x, DType t) { return run_op("Cast", {x}, {attribute_i("to", static_cast<std::int64_t>(t))}, 28)[0]; };
        auto code = [&](const Tensor& t, std::int64_t i) {
            auto* p = static_cast<const std::uint8_t*>(t.raw()) + i * bits / 8;
            const unsigned v = unsigned(*p) | (i * bits % 8 + bits > 8 ? unsigned(p[1]) << 8 : 0);
            return (v >> (i * bits % 8)) & unsigned(codes - 1);
        };
        for (int n : {1, 2, 3, 4, 5, 6, 7, 8, codes}) {  // ends in each place of a group
            Tensor x(DType::f32, {n});
            for (int i = 0; i < n; ++i) x.data<float>()[i] = static_cast<float>(narrow(unsigned(codes - 1 - i), k.exponent, k.mantissa, k.bias));
            const Tensor narrowed = to(x, k.t);
            ASSERT_EQ(narrowed.bytes(), std::size_t(n * bits + 7) / 8);
            for (int i = 0; i < n; ++i) EXPECT_EQ(code(narrowed, i), unsigned(codes - 1 - i));
            expect_near(to(narrowed, DType::f32), x, 0, 0);
        }
        Tensor x(DType::f32, {20001});
        for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = static_cast<float>(i - 10000) / 256.f;  // -39 to 39, among them every tie
        const Tensor y = to(x, k.t);
        for (std::int64_t i = 0; i < x.count(); ++i) {
            const double v = static_cast<double>(x.data<float>()[i]);
            unsigned best = 0;
            for (unsigned c = 0; c < unsigned(codes) / 2; ++c) {
                const double d = std::fabs(narrow(c, k.exponent, k.mantissa, k.bias) - std::fabs(v)), b = std::fabs(narrow(best, k.exponent, k.mantissa, k.bias) - std::fabs(v));
                if (d < b || (d == b && c % 2 == 0)) best = c;
            }
            ASSERT_EQ(code(y, i), v < 0 ? best + unsigned(codes) / 2 : best) << v;
        }
        const Tensor special = to(floats({5}, {inf, -inf, 1e30f, nan, -0.0f}), k.t);
        const unsigned most = unsigned(codes) / 2 - 1, zero = unsigned(codes) / 2;
        EXPECT_EQ(code(special, 0), most);
        EXPECT_EQ(code(special, 1), most + zero);
        EXPECT_EQ(code(special, 2), most);
        EXPECT_EQ(code(special, 3), zero);
        EXPECT_EQ(code(special, 4), zero);
    }
}
TEST(Cast, PackedTypesOfOddLength) {
    Tensor x = one<std::int32_t>({-8, 7, 3, -1, 0, 5, -2});
    Tensor i4 = run_op("Cast", {x}, {attribute_i("to", 22)}, 25)[0];
    EXPECT_EQ(i4.bytes(), 4u);
    expect_near(run_op("Cast", {i4}, {attribute_i("to", 6)}, 25)[0], x);
}
TEST(Cast, Strings) {
    const std::string text[] = {"3.5", " -1e3 ", "+INF", "-inf", "NaN", "1e999", "+7", "0x10"};
    auto x = Tensor::from_strings(std::span(text).first(7), {7});
    expect_near(run_op("Cast", {x}, {attribute_i("to", 1)})[0], floats({7}, {3.5f, -1000, inf, -inf, nan, inf, 7}));
    EXPECT_THROW(run_op("Cast", {Tensor::from_strings(std::span(text).last(1), {1})}, {attribute_i("to", 1)}), quern::Error);
    const std::string large[] = {"9223372036854775807", "100.5"};
    expect_near(run_op("Cast", {Tensor::from_strings(large, {2})}, {attribute_i("to", 7)})[0], ints({2}, {INT64_MAX, 100}));
    auto s = run_op("Cast", {floats({4}, {0.1f, -inf, 100000, 1e20f})}, {attribute_i("to", 8)})[0];
    EXPECT_EQ(s.strings()[0], "0.1");
    EXPECT_EQ(s.strings()[1], "-INF");
    EXPECT_EQ(s.strings()[2], "100000");
    EXPECT_EQ(s.strings()[3], "1e+20");
}
TEST(Cast, RefusesTypesThatAreNone) {
    EXPECT_THROW(run_op("Cast", {floats({1}, {1})}, {attribute_i("to", 99)}), quern::Error);
    EXPECT_THROW(run_op("Cast", {floats({1}, {1})}), quern::Error);
    EXPECT_THROW(run_op("BitCast", {floats({1}, {1})}, {attribute_i("to", 7)}, 26), quern::Error);
    EXPECT_EQ(run_op("BitCast", {floats({1}, {1})}, {attribute_i("to", 6)}, 26)[0].data<std::int32_t>()[0], 0x3f800000);
}
/// Arithmetic on sizes is done in symbols: the reshape below has a known rank and dims in terms of N.
TEST(Content, SizesGoThroughArithmetic) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "6"}).constant("two", ints({2}, {2, 3})).constant("zero", ints({2}, {0, 0}));
    b.node("Shape", {"x"}, {"s"}).node("Mul", {"s", "two"}, {"m"}).node("Div", {"m", "two"}, {"d"});
    b.node("Equal", {"d", "zero"}, {"e"}).node("Max", {"d", "zero"}, {"t"}).node("Cast", {"t"}, {"c"}, {attribute_i("to", 6)});
    b.node("Cast", {"c"}, {"c64"}, {attribute_i("to", 7)}).node("Reshape", {"x", "c64"}, {"y"}).output("y");
    const auto model = b.model();
    ASSERT_TRUE(model.outputs()[0].ranked);
    ASSERT_EQ(model.outputs()[0].dims.size(), 2u);
    EXPECT_EQ(model.outputs()[0].dims[0].symbol, "N");
    EXPECT_EQ(model.outputs()[0].dims[1].value, 6);
}
/// The first numbers of NumPy's RandomState(0), which ONNX's reference implementation draws from: np.random.RandomState(0).rand(5), .randn(5), .binomial(1, p).
TEST(Random, SeedsGiveTheNumbersOfOnnxsReference) {
    auto seeded = [](const char* op, const Tensor& x, float seed) { return run_op(op, {x}, {attribute_f("seed", seed), attribute_i("dtype", 11)}, 22)[0]; };
    const Tensor x(DType::f32, {5});
    expect_near(seeded("RandomUniformLike", x, 0), one<double>({0.5488135039273248, 0.7151893663724195, 0.6027633760716439, 0.5448831829968969, 0.4236547993389047}), 1e-15, 0);
    expect_near(seeded("RandomUniformLike", x, 42), one<double>({0.3745401188473625, 0.9507143064099162, 0.7319939418114051, 0.5986584841970366, 0.15601864044243652}), 1e-15, 0);
    expect_near(seeded("RandomNormalLike", x, 0), one<double>({1.764052345967664, 0.4001572083672233, 0.9787379841057392, 2.240893199201458, 1.8675579901499675}), 1e-14, 0);
    expect_near(seeded("Bernoulli", floats({5}, {0.5f, 0.7f, 0.4f, 0.4f, 0.6f}), 0), one<double>({1, 0, 1, 0, 1}));
    Tensor far(DType::f32, {1000});  // the generator's state is renewed every 312 numbers
    const Tensor y = seeded("RandomUniformLike", far, 0);
    EXPECT_NEAR(y.data<double>()[999], 0.6771411441114241, 1e-16);
}
TEST(Dropout, TrainingModeDropsAndScales) {
    Tensor x(DType::f32, {100000});
    for (float& v : x.data<float>()) v = 3;
    const Tensor yes = Tensor::from<bool>(std::array{true}, {}), no = Tensor::from<bool>(std::array{false}, {});
    auto drop = [&](float ratio, const Tensor& training, std::vector<quern::onnx::Attribute> attrs, int threads = 1, std::vector<int> fixed = {}) {
        return run_op("Dropout", {x, floats({}, {ratio}), training}, std::move(attrs), 22, 2, std::move(fixed), {.threads = threads});
    };
    for (bool seeded : {true, false}) {
        auto r = drop(0.25f, yes, seeded ? std::vector{attribute_i("seed", 7)} : std::vector<quern::onnx::Attribute>{}, 2);
        std::int64_t kept = 0;
        for (std::int64_t i = 0; i < x.count(); ++i) {
            const bool m = r[1].data<bool>()[i];
            kept += m;
            ASSERT_EQ(r[0].data<float>()[i], m ? 4.0f : 0.0f);
        }
        EXPECT_NEAR(double(kept), 75000, 700);  // five deviations
    }
    auto a = drop(0.5f, yes, {attribute_i("seed", 7)}, 1), b = drop(0.5f, yes, {attribute_i("seed", 7)}, 2), c = drop(0.5f, yes, {attribute_i("seed", 8)}, 1);
    EXPECT_EQ(0, std::memcmp(a[0].raw(), b[0].raw(), a[0].bytes()));
    EXPECT_NE(0, std::memcmp(a[0].raw(), c[0].raw(), a[0].bytes()));
    auto u = drop(0.5f, yes, {}), v = drop(0.5f, yes, {});
    EXPECT_NE(0, std::memcmp(u[1].raw(), v[1].raw(), u[1].bytes()));
    for (std::vector<int> fixed : {std::vector<int>{}, {1, 2}}) {
        for (auto& [ratio, training] : {std::pair(0.5f, no), std::pair(0.0f, yes)}) {
            auto r = drop(ratio, training, {}, 2, fixed);
            expect_near(r[0], x);
            for (bool m : r[1].data<bool>()) ASSERT_TRUE(m);
        }
        auto all = drop(1.0f, yes, {}, 1, fixed);
        for (float f : all[0].data<float>()) ASSERT_EQ(f, 0);
        EXPECT_THROW(drop(1.5f, yes, {}, 1, fixed), quern::Error);
        EXPECT_THROW(drop(-0.1f, yes, {}, 1, fixed), quern::Error);
        EXPECT_THROW(drop(nan, yes, {}, 1, fixed), quern::Error);
    }
}
/// Two equal nodes draw different numbers; neither is computed when compiling.
TEST(Dropout, EqualNodesStayApart) {
    ModelBuilder b(22);
    Tensor x(DType::f32, {1000});
    for (float& v : x.data<float>()) v = 1;
    b.constant("x", x).constant("r", floats({}, {0.5f})).constant("t", Tensor::from<bool>(std::array{true}, {})).input("z", DType::f32, {"1"});
    b.node("Dropout", {"x", "r", "t"}, {"a"}).node("Dropout", {"x", "r", "t"}, {"b"}).node("Add", {"a", "z"}, {"c"}).node("Add", {"b", "z"}, {"d"}).output("c").output("d");
    auto engine = b.model().compile({.threads = 1});
    auto once = engine.run({{"z", floats({1}, {0})}}), again = engine.run({{"z", floats({1}, {0})}});
    EXPECT_NE(0, std::memcmp(once[0].second.raw(), once[1].second.raw(), 4000));
    EXPECT_NE(0, std::memcmp(once[0].second.raw(), again[0].second.raw(), 4000));
}
TEST(Random, SeedsDecideAndThreadsDoNot) {
    Tensor x(DType::f32, {50000});
    auto draw = [&](int threads, float seed) { return run_op("RandomNormalLike", {x}, {attribute_f("seed", seed)}, 22, 1, {}, {.threads = threads})[0]; };
    const auto a = draw(1, 3), b = draw(2, 3), c = draw(1, 4);
    EXPECT_EQ(std::memcmp(a.raw(), b.raw(), a.bytes()), 0);
    EXPECT_NE(std::memcmp(a.raw(), c.raw(), a.bytes()), 0);
    double mean = 0, var = 0;
    for (float v : a.data<float>()) mean += v / 50000, var += double(v) * v / 50000;
    EXPECT_NEAR(mean, 0, 0.02);
    EXPECT_NEAR(var, 1, 0.03);
}

std::vector<float> mixed(std::int64_t n, unsigned seed) {
    std::mt19937 g(seed);
    std::normal_distribution<float> d;
    std::vector<float> v(static_cast<std::size_t>(n));
    for (float& x : v) x = d(g);
    return v;
}
TEST(PRelu, EachSlopeAndShape) {
    std::vector<float> v = mixed(2 * 3 * 37, 5);
    v[0] = nan, v[1] = -inf, v[2] = inf, v[3] = -0.f, v[40] = -inf;
    const Tensor x = floats({2, 3, 37}, v);
    const Tensor slopes[] = {floats({}, {0.25f}), floats({1, 1}, {-2.f}), floats({3, 1}, {0.5f, 0.f, -1.f}), floats({37}, mixed(37, 6)), floats({2, 3, 37}, mixed(2 * 3 * 37, 7))};
    for (const Tensor& slope : slopes)
        for (bool constant : {false, true}) {
            ModelBuilder b(20);
            b.input("x", DType::f32, {"2", "3", "37"});
            if (constant) b.constant("s", slope);
            else {
                std::vector<std::string> dims;
                for (std::size_t d = 0; d < slope.shape().rank(); ++d) dims.push_back(std::to_string(slope.shape()[d]));
                b.input("s", DType::f32, dims);
            }
            b.node("PRelu", {"x", "s"}, {"y"}).output("y");
            auto engine = b.model().compile({.threads = 1});
            auto y = constant ? engine.run({{"x", x}}) : engine.run({{"x", x}, {"s", slope}});
            const auto n = static_cast<std::int64_t>(slope.count());
            for (std::int64_t i = 0; i < x.count(); ++i) {
                const float a = v[static_cast<std::size_t>(i)], k = slope.data<float>()[n == 1 ? 0 : n == 3 ? i / 37 % 3 : i % n], got = y[0].second.data<float>()[i], want = a < 0 ? a * k : a;
                if (want != want) ASSERT_NE(got, got);
                else ASSERT_EQ(got, want) << i << " of " << n;
            }
        }
}
TEST(PRelu, OneSlopeBecomesPartOfTheConvolution) {
    for (std::int64_t n : {1, 4}) {
        ModelBuilder b(20);
        b.input("x", DType::f32, {"1", "2", "50"}).constant("w", floats({4, 2, 3}, mixed(24, 8))).constant("s", floats({n, 1}, std::vector<float>(static_cast<std::size_t>(n), 0.25f)));
        b.node("Conv", {"x", "w"}, {"c"}, {quern::onnx::attribute_ints("pads", {1, 1})}).node("PRelu", {"c", "s"}, {"y"}).output("y");
        const std::string text = b.model().dump("final");
        EXPECT_EQ(text.find("PRelu(") == std::string::npos, n == 1) << text;
        EXPECT_EQ(text.find("LeakyRelu(") == std::string::npos, true) << text;
    }
}

}  // namespace
