// TopK on CUDA against a stable sort.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include <quern/kernels/select/cuda.hpp>

#include "device_test.hpp"

namespace {
using namespace device_test;
using namespace quern;

class TopK : public DeviceTest {};

/// a before b: the larger value, or the smaller position.
template <class T>
bool before(T a, T b, bool largest) {
    if constexpr (std::is_floating_point_v<T>) {
        if (std::isnan(a) || std::isnan(b)) return largest ? std::isnan(a) && !std::isnan(b) : !std::isnan(a) && std::isnan(b);
    }
    return largest ? a > b : a < b;
}
template <class T>
void check_top_k(const std::vector<T>& x, std::int64_t outer, std::int64_t n, std::int64_t inner, std::int64_t k,
                 bool largest) {
    SCOPED_TRACE(testing::Message() << outer << " x " << n << " x " << inner << ", k " << k << (largest ? "" : " smallest"));
    const auto z = [](std::int64_t v) { return static_cast<std::size_t>(v); };
    std::vector<std::int64_t> want(z(outer * k * inner));
    for (std::int64_t o = 0; o < outer; ++o)
        for (std::int64_t i = 0; i < inner; ++i) {
            const auto at = [&](std::int64_t p) { return x[z((o * n + p) * inner + i)]; };
            std::vector<std::int64_t> p(z(n));
            std::iota(p.begin(), p.end(), 0);
            std::stable_sort(p.begin(), p.end(), [&](auto a, auto b) { return before(at(a), at(b), largest); });
            for (std::int64_t j = 0; j < k; ++j) want[z((o * k + j) * inner + i)] = p[z(j)];
        }
    const auto dx = on_device(x);
    DeviceBuffer<T> values(want.size());
    selection::CudaTopK a;
    a.x = dx.data(), a.whole = std::is_integral_v<T>, a.values = values.data();
    a.outer = outer, a.n = n, a.inner = inner, a.k = k, a.largest = largest;
    run_each<std::int64_t>(
        want.size(),
        [&](std::int64_t* p) {
            a.positions = p;
            return selection::cuda_top_k(a, nullptr);
        },
        [&](const std::vector<std::int64_t>& got) {
            ASSERT_EQ(got, want);
            const auto v = values.download();
            for (std::int64_t o = 0; o < outer; ++o)
                for (std::int64_t j = 0; j < k; ++j)
                    for (std::int64_t i = 0; i < inner; ++i) {
                        const std::size_t to = z((o * k + j) * inner + i);
                        const T w = x[z((o * n + want[to]) * inner + i)];
                        ASSERT_EQ(0, std::memcmp(&v[to], &w, sizeof w)) << "element " << to;
                    }
        });
}
TEST_F(TopK, RowsOfManyShapes) {
    for (bool largest : {true, false}) {
        check_top_k(random_values(3 * 7 * 2), 3, 7, 2, 3, largest);
        check_top_k(random_values(5000), 1, 5000, 1, 5, largest);
        check_top_k(random_values(2 * 2100), 2, 2100, 1, 1000, largest);
    }
    check_top_k(random_values(40), 1, 40, 1, 40, true);
    check_top_k(random_values(12), 12, 1, 1, 1, true);
}
TEST_F(TopK, TiesNaNZerosAndIntegers) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    const std::vector<float> x{1, nan, -0.0f, 0, 1, -inf, inf, -nan, -1, 0, 1, -0.0f};
    std::vector<float> falling(4000);
    std::iota(falling.rbegin(), falling.rend(), 0.0f);
    std::vector<std::int32_t> whole{3, -5, std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::min(), 3, 0, -5};
    for (bool largest : {true, false}) {
        check_top_k(x, 1, 12, 1, 12, largest);
        check_top_k(falling, 1, 4000, 1, 17, largest);
        check_top_k(whole, 1, 7, 1, 6, largest);
        check_top_k(std::vector<float>(3000, 2.0f), 1, 3000, 1, 4, largest);
    }
}
TEST_F(TopK, Limits) {
    selection::CudaTopK a;
    a.outer = a.inner = 1, a.n = 4, a.k = 5;
    EXPECT_EQ(selection::cuda_top_k(a, nullptr), cudaErrorInvalidValue);
    a.n = 5000, a.k = 1025;
    EXPECT_EQ(selection::cuda_top_k(a, nullptr), cudaErrorInvalidValue);
    a.k = 0;
    EXPECT_EQ(selection::cuda_top_k(a, nullptr), cudaSuccess);
}

}  // namespace
