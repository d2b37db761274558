// Reductions, normalizations and quantization where ONNX's own cases do not look.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "support/op_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;
using quern::onnx::attribute_s;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

Tensor ramp(quern::Shape s) {
    Tensor x(DType::f32, s);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = float(i * 37 % 101) / 10 - 5;
    return x;
}
/// Few columns of many rows are reduced in parts: the same bits whatever the number of threads.
TEST(Reduce, FewColumnsOfManyRows) {
    for (std::int64_t channels : {5, 40, 600}) {
        const std::int64_t rows = 150 * 40;
        Tensor x = ramp({2, 150, 40, channels});
        Tensor mean(DType::f32, {2, 1, 1, channels}), largest(DType::f32, {2, 1, 1, channels});
        for (std::int64_t n = 0; n < 2; ++n)
            for (std::int64_t c = 0; c < channels; ++c) {
                double sum = 0;
                float most = -inf;
                for (std::int64_t r = 0; r < rows; ++r) {
                    float v = x.data<float>()[(n * rows + r) * channels + c];
                    sum += double(v), most = std::max(most, v);
                }
                mean.data<float>()[n * channels + c] = float(sum / double(rows));
                largest.data<float>()[n * channels + c] = most;
            }
        std::vector<Tensor> first;
        for (int threads : {1, 2, 3}) {
            auto a = run_op("ReduceMean", {x, ints({2}, {1, 2})}, {}, 20, 1, {1}, {.threads = threads})[0];
            expect_near(a, mean, 1e-5, 1e-5);
            expect_near(run_op("ReduceMax", {x, ints({2}, {1, 2})}, {}, 20, 1, {1}, {.threads = threads})[0], largest, 0, 0);
            first.push_back(a);
            EXPECT_EQ(0, std::memcmp(first[0].raw(), a.raw(), a.bytes()));
        }
    }
}
/// A tensor with the values of `x` as another type.
Tensor as(const Tensor& x, DType t) {
    return run_op("Cast", {x}, {attribute_i("to", static_cast<std::int64_t>(t))})[0];
}
/// Few different values, so that there are equal ones, in a type that holds them all.
Tensor steps(quern::Shape s, bool negative) {
    Tensor x(DType::f32, s);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = float((i * 7919 >> 3) % 50) - (negative ? 25 : 0);
    return x;
}
TEST(Arg, EveryTypeAxisAndOrder) {
    for (auto [type, negative] : {std::pair{DType::f32, true}, {DType::f64, true}, {DType::f16, true}, {DType::bf16, true}, {DType::i8, true}, {DType::u8, false},
                                  {DType::i16, true}, {DType::u16, false}, {DType::i32, true}, {DType::u32, false}, {DType::i64, true}, {DType::u64, false}})
        for (auto [rows, columns] : {std::pair<std::int64_t, std::int64_t>{5, 7}, {3, 5000}, {40, 1100}, {300, 4}}) {
            Tensor x = steps({rows, columns}, negative), y = as(x, type);
            for (int axis : {0, 1})
                for (bool max : {true, false})
                    for (bool last : {true, false}) {
                        SCOPED_TRACE(std::string(quern::dtype_name(type)) + " axis " + std::to_string(axis) + (max ? " max" : " min") + (last ? " last" : ""));
                        Tensor want(DType::i64, axis ? quern::Shape{rows, 1} : quern::Shape{1, columns});
                        const std::int64_t n = axis ? columns : rows, step = axis ? 1 : columns;
                        for (std::int64_t o = 0; o < want.count(); ++o) {
                            const float* p = x.data<float>().data() + (axis ? o * columns : o);
                            std::int64_t best = 0;
                            for (std::int64_t i = 1; i < n; ++i) {
                                const float v = p[i * step], b = p[best * step];
                                if (max ? (last ? v >= b : v > b) : (last ? v <= b : v < b)) best = i;
                            }
                            want.data<std::int64_t>()[o] = best;
                        }
                        expect_near(run_op(max ? "ArgMax" : "ArgMin", {y}, {attribute_i("axis", axis), attribute_i("select_last_index", last)})[0], want, 0, 0);
                    }
        }
    Tensor x = steps({2, 3000}, true);
    x.data<float>()[2500] = x.data<float>()[2900] = std::numeric_limits<float>::quiet_NaN();
    for (DType t : {DType::f32, DType::f16})
        for (int last : {0, 1}) EXPECT_EQ(run_op("ArgMax", {as(x, t)}, {attribute_i("axis", 1), attribute_i("select_last_index", last)})[0].data<std::int64_t>()[0], 2500);
}
TEST(Cumulative, EveryTypeAxisAndDirection) {
    for (DType type : {DType::f32, DType::f64, DType::f16, DType::i32, DType::u32, DType::i64, DType::u64})
        for (auto [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 6}, {5, 7}, {6, 1300}, {700, 3}}) {
            Tensor x(DType::f32, {rows, columns});
            for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = float(i * 7 % 3 == 0);
            for (std::int64_t axis : {0, 1})
                for (int flags = 0; flags < 4; ++flags) {
                    const bool exclusive = flags & 1, reverse = flags & 2;
                    Tensor want(DType::f32, {rows, columns});
                    const std::int64_t n = axis ? columns : rows, step = axis ? 1 : columns;
                    for (std::int64_t o = 0; o < (axis ? rows : columns); ++o) {
                        float sum = 0;
                        for (std::int64_t k = 0; k < n; ++k) {
                            const std::int64_t i = (axis ? o * columns : o) + (reverse ? n - 1 - k : k) * step;
                            const float next = sum + x.data<float>()[i];
                            want.data<float>()[i] = exclusive ? sum : next;
                            sum = next;
                        }
                    }
                    auto got = run_op("CumSum", {as(x, type), ints({}, {axis})}, {attribute_i("exclusive", exclusive), attribute_i("reverse", reverse)})[0];
                    EXPECT_EQ(got.dtype(), type);
                    expect_near(as(got, DType::f32), want, 0, 0);
                }
        }
}
/// Narrow types over either axis, rows longer than what is converted at once.
TEST(Reduce, NarrowTypes) {
    Tensor x = steps({33, 2500}, false);
    for (DType t : {DType::u8, DType::i8, DType::f16, DType::bf16})
        for (const char* op : {"ReduceMax", "ReduceMin"})
            for (std::int64_t axis : {0, 1})
                expect_near(as(run_op(op, {as(x, t), ints({1}, {axis})})[0], DType::f32), run_op(op, {x, ints({1}, {axis})})[0], 0, 0);
    expect_near(as(run_op("ReduceSum", {as(x, DType::f16), ints({1}, {0})})[0], DType::f32), run_op("ReduceSum", {x, ints({1}, {0})})[0], 0, 0);
}
/// Every set of axes of a tensor of rank 4, against sums in double.
TEST(Reduce, EverySetOfAxes) {
    const std::int64_t dims[4] = {3, 20, 2, 5};
    Tensor x = ramp({3, 20, 2, 5});
    for (int set = 1; set < 16; ++set) {
        std::vector<std::int64_t> axes;
        quern::Shape out{1, 1, 1, 1};
        for (int d = 0; d < 4; ++d) {
            if (set >> d & 1) axes.push_back(d % 2 ? d - 4 : d);
            else out[d] = dims[d];
        }
        Tensor sum(DType::f32, out), top(DType::f32, out);
        std::vector<double> acc(static_cast<std::size_t>(sum.count()), 0);
        for (auto& v : top.data<float>()) v = -inf;
        for (std::int64_t i = 0; i < x.count(); ++i) {
            std::int64_t index[4], rest = i, o = 0;
            for (int d = 3; d >= 0; --d) index[d] = rest % dims[d], rest /= dims[d];
            for (int d = 0; d < 4; ++d) o = o * out[d] + (out[d] == 1 ? 0 : index[d]);
            acc[static_cast<std::size_t>(o)] += double(x.data<float>()[i]);
            top.data<float>()[o] = std::max(top.data<float>()[o], x.data<float>()[i]);
        }
        for (std::size_t i = 0; i < acc.size(); ++i) sum.data<float>()[i] = float(acc[i]);
        Tensor a = ints({static_cast<std::int64_t>(axes.size())}, axes);
        expect_near(run_op("ReduceSum", {x, a}, {}, 20, 1, {1})[0], sum, 1e-6, 1e-5);
        expect_near(run_op("ReduceMax", {x, a}, {}, 20, 1, {1})[0], top, 0, 0);
    }
}
TEST(Reduce, LongSumsKeepTheirDigits) {
    const std::int64_t n = 3'000'000;
    Tensor x(DType::f32, {n});
    for (auto& v : x.data<float>()) v = 0.1f;
    const auto a = run_op("ReduceSum", {x}, {}, 20, 1, {}, {.threads = 1})[0], b = run_op("ReduceSum", {x}, {}, 20, 1, {}, {.threads = 2})[0];
    EXPECT_NEAR(a.data<float>()[0], double(0.1f) * double(n), 0.125);  // 4 ulps
    EXPECT_EQ(a.data<float>()[0], b.data<float>()[0]);
    Tensor tall = x.reshaped({n / 3, 3});
    EXPECT_NEAR(run_op("ReduceMean", {tall, ints({1}, {0})}, {}, 20, 1, {1})[0].data<float>()[1], 0.1f, 1e-8);
}
TEST(Reduce, EmptySets) {
    Tensor x(DType::f32, {2, 0});
    auto r = [&](const char* op) { return run_op(op, {x, ints({1}, {1})}, {attribute_i("keepdims", 0)}, 20, 1, {1})[0]; };
    expect_near(r("ReduceSum"), floats({2}, {0, 0}));
    expect_near(r("ReduceProd"), floats({2}, {1, 1}));
    expect_near(r("ReduceMax"), floats({2}, {-inf, -inf}));
    expect_near(r("ReduceMin"), floats({2}, {inf, inf}));
    expect_near(r("ReduceLogSumExp"), floats({2}, {-inf, -inf}));
    EXPECT_EQ(run_op("ReduceMin", {Tensor(DType::u8, {0})})[0].data<std::uint8_t>()[0], 255);
    EXPECT_EQ(run_op("ReduceMax", {Tensor(DType::i8, {0})})[0].data<std::int8_t>()[0], -128);
    EXPECT_FALSE(run_op("ReduceMax", {Tensor(DType::boolean, {0})})[0].data<bool>()[0]);
    EXPECT_THROW(run_op("ArgMax", {Tensor(DType::f32, {0})}), quern::Error);
}
TEST(Reduce, AxesKnownOnlyAtRunTime) {
    Tensor x = ramp({2, 3});
    expect_near(run_op("ReduceSum", {x, ints({1}, {-1})})[0], run_op("ReduceSum", {x, ints({1}, {1})}, {}, 20, 1, {1})[0]);
    EXPECT_THROW(run_op("ReduceSum", {x, ints({1}, {2})}), quern::Error);
    EXPECT_THROW(run_op("ReduceSum", {x, ints({1}, {-3})}, {}, 20, 1, {1}), quern::Error);
}
TEST(Reduce, LogSumExpOfExtremes) {
    expect_near(run_op("ReduceLogSumExp", {floats({3}, {1000, 1000, -inf})})[0], floats({1}, {1000.6931f}));
    expect_near(run_op("ReduceLogSumExp", {floats({2}, {-inf, -inf})})[0], floats({1}, {-inf}));
    expect_near(run_op("ReduceLogSumExp", {floats({2}, {inf, 0})})[0], floats({1}, {inf}));
}
TEST(CumSum, AxisIsChecked) {
    EXPECT_THROW(run_op("CumSum", {ramp({2, 2}), ints({}, {2})}), quern::Error);
    EXPECT_THROW(run_op("CumSum", {ramp({2, 2}), ints({}, {-3})}, {}, 20, 1, {1}), quern::Error);
    expect_near(run_op("CumSum", {ints({2, 2}, {1, 2, 3, 4}), ints({}, {0})}, {attribute_i("reverse", 1), attribute_i("exclusive", 1)})[0],
                ints({2, 2}, {3, 4, 0, 0}));
}
TEST(Softmax, RowsOfOldOpsetsAreMatrices) {
    Tensor x = ramp({2, 3, 2});
    auto matrix = run_op("Softmax", {x.reshaped({2, 6})}, {attribute_i("axis", 1)}, 13)[0];
    expect_near(run_op("Softmax", {x}, {}, 11)[0], matrix.reshaped({2, 3, 2}));
    EXPECT_THROW(run_op("Softmax", {x}, {attribute_i("axis", 3)}, 13), quern::Error);
}
TEST(LayerNorm, LargeMeansDoNotCancel) {
    Tensor x(DType::f32, {2, 64}), scale(DType::f32, {64}), want(DType::f32, {2, 64});
    for (int r = 0; r < 2; ++r) {
        double mean = 0, var = 0;
        for (int i = 0; i < 64; ++i) mean += double(x.data<float>()[r * 64 + i] = 10000.0f + float(i % 7)) / 64;
        for (int i = 0; i < 64; ++i) var += std::pow(double(x.data<float>()[r * 64 + i]) - mean, 2) / 64;
        for (int i = 0; i < 64; ++i) want.data<float>()[r * 64 + i] = float((double(x.data<float>()[r * 64 + i]) - mean) / std::sqrt(var + 1e-5) * 2);
    }
    for (auto& v : scale.data<float>()) v = 2;
    expect_near(run_op("LayerNormalization", {x, scale})[0], want, 1e-4, 1e-4);
    auto r = run_op("LayerNormalization", {x, floats({1}, {2}), floats({2, 1}, {1, -1})}, {}, 20, 3);  // shapes that are no row
    EXPECT_NEAR(r[0].data<float>()[0], want.data<float>()[0] + 1, 1e-3);
    EXPECT_NEAR(r[0].data<float>()[64], want.data<float>()[64] - 1, 1e-3);
    EXPECT_EQ(r[1].shape(), (quern::Shape{2, 1}));
    EXPECT_NEAR(r[1].data<float>()[0], 10002.9, 0.2);
}
/// Halves are converted a row or a piece at a time: the bits of f32 in between, rounded once.
TEST(Norm, HalvesAsIfWide) {
    auto same = [&](const char* op, const std::vector<Tensor>& in, std::vector<quern::onnx::Attribute> attrs, int opset, int outputs = 1) {
        for (DType t : {DType::f16, DType::bf16})
            for (int threads : {1, 2}) {
                SCOPED_TRACE(std::string(op) + " of " + quern::dtype_name(t));
                std::vector<Tensor> narrow, wide;
                std::vector<int> fed;
                for (auto& x : in) fed.push_back(static_cast<int>(fed.size())), narrow.push_back(as(x, t)), wide.push_back(as(narrow.back(), DType::f32));
                const auto got = run_op(op, narrow, attrs, opset, outputs, fed, {.threads = threads}), want = run_op(op, wide, attrs, opset, outputs, fed, {.threads = threads});
                for (std::size_t o = 0; o < got.size(); ++o) {
                    const Tensor rounded = got[o].dtype() == DType::f32 ? want[o] : as(want[o], t);
                    ASSERT_EQ(got[o].dtype(), rounded.dtype());
                    EXPECT_EQ(0, std::memcmp(got[o].raw(), rounded.raw(), rounded.bytes()));
                }
            }
    };
    auto row = [](std::int64_t n) { return ramp({n}); };
    auto positive = [](std::int64_t n) {
        Tensor v = ramp({n});
        for (auto& x : v.data<float>()) x = x * x + 0.5f;
        return v;
    };
    for (std::int64_t n : {1, 7, 1500}) {
        same("LayerNormalization", {ramp({9, n}), row(n), row(n)}, {}, 17, 3);
        same("LayerNormalization", {ramp({9, n}), row(n)}, {}, 17);
        same("RMSNormalization", {ramp({9, n}), row(n)}, {}, 23);
        same("Softmax", {ramp({9, n})}, {}, 13);
        same("LogSoftmax", {ramp({9, n})}, {}, 13);
        same("Softmax", {ramp({3, n, 300})}, {attribute_i("axis", 1)}, 13);
        same("LogSoftmax", {ramp({3, n, 300})}, {attribute_i("axis", 1)}, 13);
        same("BatchNormalization", {ramp({3, 5, n}), row(5), row(5), row(5), positive(5)}, {}, 15);
        same("InstanceNormalization", {ramp({3, 5, n}), row(5), row(5)}, {}, 22);
        same("GroupNormalization", {ramp({3, 4, n}), row(4), row(4)}, {attribute_i("num_groups", 2)}, 21);
    }
    same("BatchNormalization", {ramp({700, 5}), row(5), row(5), row(5), positive(5)}, {}, 15);
    same("BatchNormalization", {ramp({7, 5, 40}), row(5), row(5), row(5), positive(5)}, {attribute_i("training_mode", 1)}, 15);
    same("LayerNormalization", {ramp({9, 20}), ramp({9, 20}), ramp({9, 1})}, {}, 17);  // shapes that are no row
    same("LayerNormalization", {ramp({9, 20}), ramp({1})}, {}, 17);
    auto mixed = run_op("RMSNormalization", {as(ramp({9, 20}), DType::f16), row(20)}, {}, 23, 1, {0, 1})[0];
    EXPECT_EQ(mixed.dtype(), DType::f32);
    expect_near(mixed, run_op("RMSNormalization", {as(as(ramp({9, 20}), DType::f16), DType::f32), row(20)}, {}, 23, 1, {0, 1})[0], 0, 0);
}
TEST(BatchNorm, EachElementOfOldOpsets) {
    auto p = [](std::vector<float> v) { return floats({2, 2}, v); };
    auto r = run_op("BatchNormalization", {floats({1, 2, 2}, {1, 2, 3, 4}), p({1, 1, 2, 2}), p({0, 1, 0, 1}), p({0, 0, 1, 1}), p({1, 1, 4, 4})},
                    {attribute_i("spatial", 0), attribute_f("epsilon", 0)}, 7)[0];
    expect_near(r, floats({1, 2, 2}, {1, 3, 2, 4}));
}
TEST(Quantize, BlocksAlongEachAxis) {
    Tensor x = floats({2, 5}, {0, 1, 2, 3, 4, -4, -3, -2, -1, 0});
    Tensor s = floats({2, 3}, {1, 0.5f, 0.25f, 1, 2, 4});
    auto q = run_op("QuantizeLinear", {x, s}, {attribute_i("axis", 1), attribute_i("block_size", 2), attribute_i("output_dtype", 3)}, 21)[0];
    const std::int8_t want[] = {0, 1, 4, 6, 16, -4, -3, -1, 0, 0};  // -1 / 2 rounds to even: 0
    for (int i = 0; i < 10; ++i) EXPECT_EQ(q.data<std::int8_t>()[i], want[i]) << i;
    auto y = run_op("DequantizeLinear", {q, s}, {attribute_i("axis", 1), attribute_i("block_size", 2)}, 21)[0];
    expect_near(y, floats({2, 5}, {0, 1, 2, 3, 4, -4, -3, -2, 0, 0}));
    Tensor s0 = floats({1, 5}, {1, 1, 2, 2, 4});
    auto q0 = run_op("QuantizeLinear", {x, s0}, {attribute_i("axis", 0), attribute_i("block_size", 2), attribute_i("output_dtype", 5)}, 21)[0];
    EXPECT_EQ(q0.data<std::int16_t>()[4], 1);
    EXPECT_EQ(q0.data<std::int16_t>()[5], -4);
}
/// To floats of 4 and 6 bits and back, in blocks; ONNX's microscaling formats.
TEST(Quantize, FloatsUnderEightBits) {
    Tensor x = floats({2, 8}, {0.5f, -1, 3, 7.9f, 100, -100, 0.2f, 0, 2, 4, -6, 8, 1, 1.1f, 1.3f, -1.4f});
    Tensor s = floats({2, 2}, {1, 4, 2, 0.5f});
    struct Kind { int type; std::vector<float> want; };
    for (auto& k : std::vector<Kind>{{27, {0.5f, -1, 3, 7.5f, 30, -30, 0, 0, 2, 4, -6, 8, 1, 1.125f, 1.25f, -1.375f}},
                                     {28, {0.5f, -1, 3, 8, 96, -96, 0.25f, 0, 2, 4, -6, 8, 1, 1, 1.25f, -1.5f}},
                                     {23, {0.5f, -1, 3, 6, 24, -24, 0, 0, 2, 4, -6, 8, 1, 1, 1.5f, -1.5f}}}) {
        SCOPED_TRACE(k.type);
        auto q = run_op("QuantizeLinear", {x, s}, {attribute_i("axis", 1), attribute_i("block_size", 4), attribute_i("output_dtype", k.type)}, 28)[0];
        EXPECT_EQ(static_cast<int>(q.dtype()), k.type);
        expect_near(run_op("DequantizeLinear", {q, s}, {attribute_i("axis", 1), attribute_i("block_size", 4)}, 28)[0], floats({2, 8}, k.want));
    }
}
TEST(Quantize, RefusesScalesThatDoNotFit) {
    Tensor x = ramp({2, 5});
    EXPECT_THROW(run_op("QuantizeLinear", {x, floats({4}, {1, 1, 1, 1})}, {attribute_i("axis", 1)}, 21), quern::Error);
    EXPECT_THROW(run_op("QuantizeLinear", {x, floats({2, 2}, {1, 1, 1, 1})}, {attribute_i("axis", 1), attribute_i("block_size", 2)}, 21), quern::Error);
    EXPECT_THROW(run_op("QuantizeLinear", {x, floats({5}, {1, 1, 1, 1, 1}), Tensor(DType::u8, {2})}, {attribute_i("axis", 1)}, 21), quern::Error);
}
TEST(Loss, ClassesAreChecked) {
    Tensor x = floats({1, 2}, {-1, -2});
    expect_near(run_op("NegativeLogLikelihoodLoss", {x, ints({1}, {1})})[0], floats({}, {2}));
    EXPECT_THROW(run_op("NegativeLogLikelihoodLoss", {x, ints({1}, {2})}), quern::Error);
    expect_near(run_op("NegativeLogLikelihoodLoss", {x, ints({1}, {2})}, {attribute_i("ignore_index", 2), attribute_s("reduction", "sum")})[0], floats({}, {0}));
}

}  // namespace
