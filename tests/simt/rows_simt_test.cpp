// kernels/reduce, norm and pool/cuda.cu against double references.
#include <algorithm>

#include <quern/kernels/norm/cuda.hpp>
#include <quern/kernels/pool/cuda.hpp>
#include <quern/kernels/reduce/cuda.hpp>

#include "half_test.hpp"

namespace {

using namespace device_test;
using namespace quern;
using reduce::CudaOp;

class Reduce : public DeviceTest {};

double reduced(CudaOp op, const std::vector<double>& v) {
    double s = 0;
    switch (op) {
        case CudaOp::max: return v.empty() ? -INFINITY : *std::max_element(v.begin(), v.end());
        case CudaOp::min: return v.empty() ? INFINITY : *std::min_element(v.begin(), v.end());
        case CudaOp::prod:
            s = 1;
            for (double x : v) s *= x;
            return s;
        case CudaOp::l1:
            for (double x : v) s += std::fabs(x);
            return s;
        case CudaOp::l2:
        case CudaOp::sum_square:
            for (double x : v) s += x * x;
            return op == CudaOp::l2 ? std::sqrt(s) : s;
        case CudaOp::log_sum_exp:
            for (double x : v) s += std::exp(x);
            return std::log(s);
        default:
            for (double x : v) s += x;
            return op == CudaOp::mean ? s / static_cast<double>(v.size()) : op == CudaOp::log_sum ? std::log(s) : s;
    }
}
TEST_F(Reduce, EveryFunctionOverRowsAndColumns) {
    const std::int64_t shapes[][3] = {{3, 5, 1},   {2, 64, 1},   {1, 3000, 1}, {2, 7, 5},
                                      {1, 33, 70}, {2, 2052, 1}, {3, 0, 2},    {2, 0, 1}};
    for (const auto& d : shapes)
        for (int k = 0; k < 10; ++k) {
            const auto op = static_cast<CudaOp>(k);
            SCOPED_TRACE(testing::Message() << d[0] << " x " << d[1] << " x " << d[2] << ", function " << k);
            auto x = random_values(static_cast<std::size_t>(d[0] * d[1] * d[2]));
            if (op == CudaOp::log_sum)
                for (float& v : x) v = std::fabs(v);
            if (op == CudaOp::prod)
                for (float& v : x) v = v < 0 ? -1.0f : 1.001f;
            std::vector<double> want, scale;
            for (std::int64_t o = 0; o < d[0]; ++o)
                for (std::int64_t i = 0; i < d[2]; ++i) {
                    std::vector<double> v;
                    double abs = 1;
                    for (std::int64_t n = 0; n < d[1]; ++n) {
                        v.push_back(static_cast<double>(x[static_cast<std::size_t>((o * d[1] + n) * d[2] + i)]));
                        abs += std::fabs(v.back());
                    }
                    want.push_back(reduced(op, v));
                    scale.push_back(op == CudaOp::prod ? 1000 * std::fabs(want.back()) : abs);
                }
            const auto in = on_device(x);
            run_each<float>(
                want.size(), [&](float* y) { return reduce::cuda_reduce(op, in.data(), y, d[0], d[1], d[2], nullptr); },
                [&](const std::vector<float>& got) { expect_close(got, want, 2e-6, scale); });
        }
}
TEST_F(Reduce, NanAndInfinities) {
    const std::vector<float> x = {1, NAN, 2, -INFINITY, -INFINITY, -INFINITY, INFINITY, 1, 2};
    const auto in = on_device(x);
    const std::pair<CudaOp, std::vector<double>> cases[] = {{CudaOp::max, {NAN, -INFINITY, INFINITY}},
                                                            {CudaOp::min, {NAN, -INFINITY, 1}},
                                                            {CudaOp::log_sum_exp, {NAN, -INFINITY, INFINITY}}};
    for (const auto& [op, want] : cases)
        run_each<float>(
            3, [&](float* y) { return reduce::cuda_reduce(op, in.data(), y, 3, 3, 1, nullptr); },
            [&](const std::vector<float>& got) { expect_close(got, want, 0); });
}
TEST_F(Reduce, IndexOfTheLargest) {
    const std::vector<float> x = {1, 3, 3, 2, 5, 4, NAN, 1, 9, 7, NAN, 7};
    const auto in = on_device(x);
    const auto run = [&](std::int64_t outer, std::int64_t n, std::int64_t inner, bool max, bool last,
                         std::vector<std::int64_t> want) {
        run_each<std::int64_t>(
            want.size(),
            [&](std::int64_t* y) { return reduce::cuda_arg(in.data(), y, outer, n, inner, max, last, nullptr); },
            [&](const std::vector<std::int64_t>& got) { EXPECT_EQ(got, want); });
    };
    run(4, 3, 1, true, false, {1, 1, 0, 0});
    run(4, 3, 1, true, true, {2, 1, 0, 2});
    run(1, 2, 3, false, true, {0, 0, 0});
    const auto big = random_values(1000);
    const auto db = on_device(big);
    const std::int64_t want = std::max_element(big.begin(), big.end()) - big.begin();
    run_each<std::int64_t>(
        1, [&](std::int64_t* y) { return reduce::cuda_arg(db.data(), y, 1, 1000, 1, true, false, nullptr); },
        [&](const std::vector<std::int64_t>& got) { EXPECT_EQ(got[0], want); });
    EXPECT_EQ(reduce::cuda_arg(nullptr, nullptr, 1, 0, 1, true, false, nullptr), cudaErrorInvalidValue);
    EXPECT_EQ(reduce::cuda_reduce(CudaOp::sum, nullptr, nullptr, 1 << 20, 1 << 20, 1, nullptr), cudaErrorInvalidValue);
}

class Norm : public DeviceTest {};

TEST_F(Norm, RowsWithAndWithoutParameters) {
    for (std::int64_t n : {1, 12, 33, 64, 384, 1000, 1028, 1500})
        for (bool rms : {false, true})
            for (bool add : {false, true}) {
                SCOPED_TRACE(testing::Message() << n << (rms ? " rms" : "") << (add ? " add" : ""));
                const auto rows = static_cast<std::int64_t>(3);
                auto x = random_values(static_cast<std::size_t>(rows * n), 2);
                for (float& v : x) v += 3;
                const auto other = random_values(x.size(), 1, 2),
                           scale = random_values(static_cast<std::size_t>(n), 1, 3),
                           bias = random_values(static_cast<std::size_t>(n), 1, 4);
                std::vector<double> want, sums;
                for (std::int64_t r = 0; r < rows; ++r) {
                    double mean = 0, var = 0;
                    for (std::int64_t i = 0; i < n; ++i) {
                        const auto at = static_cast<std::size_t>(r * n + i);
                        sums.push_back(add ? static_cast<double>(x[at] + other[at]) : static_cast<double>(x[at]));
                        mean += rms ? 0 : sums.back() / static_cast<double>(n);
                    }
                    for (std::int64_t i = 0; i < n; ++i)
                        var += std::pow(sums[static_cast<std::size_t>(r * n + i)] - mean, 2) / static_cast<double>(n);
                    for (std::int64_t i = 0; i < n; ++i)
                        want.push_back((sums[static_cast<std::size_t>(r * n + i)] - mean) / std::sqrt(var + 1e-5) *
                                           static_cast<double>(scale[static_cast<std::size_t>(i)]) +
                                       (rms ? 0 : static_cast<double>(bias[static_cast<std::size_t>(i)])));
                }
                const auto dx = on_device(x), da = on_device(other), ds = on_device(scale), db = on_device(bias);
                DeviceBuffer<float> sum(x.size());
                norm::CudaRows a;
                a.x = dx.data(), a.scale = ds.data(), a.bias = rms ? nullptr : db.data();
                if (add) a.add = da.data(), a.sum = sum.data();
                a.rows = rows, a.n = n, a.rms = rms;
                run_each<float>(
                    want.size(),
                    [&](float* y) {
                        a.y = y;
                        return norm::cuda_normalize_rows(a, nullptr);
                    },
                    [&](const std::vector<float>& got) {
                        expect_close(got, want, 4e-6);
                        if (add) expect_close(sum.download(), sums, 0);
                    });
            }
}
TEST_F(Norm, HalfTypes) {
    const auto run = [](auto t) {
        using T = decltype(t);
        for (std::int64_t n : {7, 64, 96, 520, 1024, 1025, 2056})
            for (bool rms : {false, true}) {
                SCOPED_TRACE(testing::Message() << n << (rms ? " rms" : ""));
                const std::int64_t rows = 3;
                const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
                const auto x = held<T>(random_values(at(rows * n), 2)), other = held<T>(random_values(at(rows * n), 1, 5)),
                           scale = held<T>(random_values(at(n), 1, 2)), bias = held<T>(random_values(at(n), 1, 3));
                std::vector<double> want, sums;
                for (std::int64_t r = 0; r < rows; ++r) {
                    const auto v = [&](std::int64_t i) {
                        return static_cast<double>(x[at(r * n + i)]) + static_cast<double>(other[at(r * n + i)]);
                    };
                    double mean = 0, q = 0;
                    for (std::int64_t i = 0; i < n; ++i) mean += v(i) / static_cast<double>(n);
                    if (rms) mean = 0;
                    for (std::int64_t i = 0; i < n; ++i) q += (v(i) - mean) * (v(i) - mean) / static_cast<double>(n);
                    for (std::int64_t i = 0; i < n; ++i) {
                        sums.push_back(v(i));
                        want.push_back((v(i) - mean) / std::sqrt(q + 1e-5) * static_cast<double>(scale[at(i)]) +
                                       static_cast<double>(bias[at(i)]));
                    }
                }
                const auto dx = on_device(narrow<T>(x)), da = on_device(narrow<T>(other)),
                           ds = on_device(narrow<T>(scale)), db = on_device(narrow<T>(bias));
                DeviceBuffer<T> sum(x.size());
                norm::CudaRows a;
                a.type = Storage<T>::type;
                a.x = dx.data(), a.add = da.data(), a.sum = sum.data(), a.scale = ds.data(), a.bias = db.data();
                a.rows = rows, a.n = n, a.rms = rms;
                run_each<T>(
                    want.size(),
                    [&](T* y) {
                        a.y = y;
                        return norm::cuda_normalize_rows(a, nullptr);
                    },
                    [&](const std::vector<T>& got) {
                        // Rows of more than 1024 are read again as they were stored: one rounding more, of at most 8.
                        expect_close(widen(got), want, 4e-6 + Storage<T>::rounding * (n > 1024 ? 8 : 1));
                        expect_close(widen(sum.download()), sums, 1e-7 + Storage<T>::rounding);
                    });
            }
    };
    run(__half());
    run(__nv_bfloat16());
    norm::CudaRows bad;
    bad.type = DType::f64, bad.rows = bad.n = 1;
    EXPECT_EQ(norm::cuda_normalize_rows(bad, nullptr), cudaErrorInvalidValue);
}
TEST_F(Norm, GroupsOfChannelsAndStatistics) {
    const std::int64_t batch = 2, groups = 3, each = 2, inner = 35, n = each * inner;
    const auto x = random_values(static_cast<std::size_t>(batch * groups * n)), scale = random_values(6, 1, 2),
               bias = random_values(6, 1, 3);
    std::vector<double> want, means;
    for (std::int64_t r = 0; r < batch * groups; ++r) {
        double mean = 0, var = 0;
        const auto v = [&](std::int64_t i) { return static_cast<double>(x[static_cast<std::size_t>(r * n + i)]); };
        for (std::int64_t i = 0; i < n; ++i) mean += v(i) / n;
        for (std::int64_t i = 0; i < n; ++i) var += (v(i) - mean) * (v(i) - mean) / n;
        means.push_back(mean);
        for (std::int64_t i = 0; i < n; ++i) {
            const auto at = static_cast<std::size_t>(r % groups * each + i / inner);
            want.push_back((v(i) - mean) / std::sqrt(var + 1e-3) * static_cast<double>(scale[at]) +
                           static_cast<double>(bias[at]));
        }
    }
    const auto dx = on_device(x), ds = on_device(scale), db = on_device(bias);
    DeviceBuffer<float> mean(6), inverse(6);
    norm::CudaRows a;
    a.x = dx.data(), a.scale = ds.data(), a.bias = db.data(), a.mean = mean.data(), a.inverse = inverse.data();
    a.rows = batch * groups, a.n = n, a.groups = groups, a.per_group = each, a.inner = inner, a.eps = 1e-3f;
    run_each<float>(
        want.size(),
        [&](float* y) {
            a.y = y;
            return norm::cuda_normalize_rows(a, nullptr);
        },
        [&](const std::vector<float>& got) {
            expect_close(got, want, 4e-6);
            expect_close(mean.download(), means, 1e-6);
        });
}

class Pool : public DeviceTest {};

void check_pool(pool::CudaWindows w) {
    const std::int64_t plane = w.in[0] * w.in[1] * w.in[2], outs = w.out[0] * w.out[1] * w.out[2];
    const auto x = random_values(static_cast<std::size_t>(w.images * w.channels * plane));
    std::vector<double> want(static_cast<std::size_t>(w.images * w.channels * outs));
    for (std::int64_t i = 0; i < w.images; ++i)
        for (std::int64_t c = 0; c < w.channels; ++c)
            for (std::int64_t o = 0; o < outs; ++o) {
                const std::int64_t pos[3] = {o / (w.out[1] * w.out[2]), o / w.out[2] % w.out[1], o % w.out[2]};
                double v = w.max ? -INFINITY : 0;
                int inside = 0, counted = 0;
                for (std::int64_t t = 0; t < w.kernel[0] * w.kernel[1] * w.kernel[2]; ++t) {
                    const std::int64_t tap[3] = {t / (w.kernel[1] * w.kernel[2]), t / w.kernel[2] % w.kernel[1],
                                                 t % w.kernel[2]};
                    std::int64_t at = 0;
                    bool in = true, padded = true;
                    for (int d = 0; d < 3; ++d) {
                        const std::int64_t p = pos[d] * w.stride[d] - w.pad[d] + tap[d] * w.dilation[d];
                        in = in && p >= 0 && p < w.in[d];
                        padded = padded && p < w.in[d] + w.pad_end[d];
                        at = at * w.in[d] + p;
                    }
                    counted += padded;
                    if (!in) continue;
                    ++inside;
                    const auto from =
                        w.channels_last ? (i * plane + at) * w.channels + c : (i * w.channels + c) * plane + at;
                    const double e = static_cast<double>(x[static_cast<std::size_t>(from)]);
                    v = w.max ? std::fmax(v, e) : v + e;
                }
                if (!w.max) {
                    const int n = w.count_padding ? counted : inside;
                    v = n ? v / n : 0;
                }
                want[static_cast<std::size_t>(w.channels_last ? (i * outs + o) * w.channels + c
                                                              : (i * w.channels + c) * outs + o)] = v;
            }
    const auto dx = on_device(x);
    w.x = dx.data();
    run_each<float>(
        want.size(),
        [&](float* y) {
            w.y = y;
            return pool::cuda_pool(w, nullptr);
        },
        [&](const std::vector<float>& got) { expect_close(got, want, 1e-6); });
}
TEST_F(Pool, WindowsInBothLayouts) {
    for (bool last : {false, true})
        for (int kind = 0; kind < 3; ++kind) {
            SCOPED_TRACE(testing::Message() << (last ? "last" : "first") << ", kind " << kind);
            const bool max = kind == 0, count = kind == 2;
            check_pool(
                {2, 3, {1, 9, 10}, {1, 5, 5}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}, max, count, last});
            check_pool(
                {1, 5, {1, 8, 7}, {1, 4, 3}, {1, 2, 3}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}, max, count, last});
            check_pool(
                {1, 2, {4, 5, 6}, {3, 2, 6}, {2, 2, 3}, {1, 2, 1}, {1, 2, 1}, {0, 0, 1}, {0, 0, 1}, max, count, last});
            check_pool({1,
                        2,
                        {1, 6, 6},
                        {1, 3, 3},
                        {1, 3, 3},
                        {1, 3, 3},
                        {1, 1, 1},
                        {0, 0, 0},
                        {0, 2, 2},
                        max,
                        count,
                        last});  // ceil mode
            check_pool({1,
                        1,
                        {1, 2, 2},
                        {1, 5, 5},
                        {1, 1, 1},
                        {1, 1, 1},
                        {1, 1, 1},
                        {0, 2, 2},
                        {0, 1, 1},
                        max,
                        count,
                        last});  // windows of padding
        }
    pool::CudaWindows bad{};
    bad.stride[0] = 0;
    EXPECT_EQ(pool::cuda_pool(bad, nullptr), cudaErrorInvalidValue);
}

}  // namespace
