// kernels/softmax/cuda.cu against a double reference: on the emulator in its three builds, and on a real device where
// there is one.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <quern/kernels/softmax/cuda.hpp>

#include "half_test.hpp"

namespace {

using namespace device_test;
using quern::DType;
using quern::softmax::cuda_rows;
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<double> reference(const std::vector<float>& x, std::int64_t cols, bool log) {
    std::vector<double> y(x.size());
    for (std::size_t r = 0; r < x.size(); r += static_cast<std::size_t>(cols)) {
        double m = -kInf, s = 0;
        for (std::int64_t c = 0; c < cols; ++c) m = std::fmax(m, x[r + c]);
        for (std::int64_t c = 0; c < cols; ++c) s += std::exp(x[r + c] - m);
        for (std::int64_t c = 0; c < cols; ++c)
            y[r + c] = log ? x[r + c] - m - std::log(s) : std::exp(x[r + c] - m) / s;
    }
    return y;
}

// Runs x as rows; `shift` elements of misalignment, `in_place` or not.
void check(const std::vector<float>& x, std::int64_t cols, bool log, std::size_t shift = 0, bool in_place = false) {
    const auto rows = static_cast<std::int64_t>(x.size()) / cols;
    const auto want = reference(x, cols, log);
    for (int seed = 0; seed < kSeeds; ++seed) {
        SCOPED_TRACE(testing::Message() << rows << " x " << cols << (log ? " log" : "") << " shift " << shift
                                        << (in_place ? " in place" : "") << " seed " << seed);
        use_seed(seed);
        DeviceBuffer<float> in(x.size() + shift), out(in_place ? 1 : x.size() + shift);
        in.upload(x, shift);
        float* to = in_place ? in.data() : out.data();
        ASSERT_EQ(cuda_rows(DType::f32, in.data() + shift, to + shift, rows, cols, log, nullptr), cudaSuccess) << fault();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        auto got = in_place ? in.download() : out.download();
        got.erase(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(shift));
        expect_close(got, want, log ? 2e-6 : 4e-7, log ? std::vector<double>() : std::vector<double>(want.size(), 1.0));
        if (testing::Test::HasFailure()) return;
    }
}

class Softmax : public testing::TestWithParam<int> {
protected:
    void SetUp() override {
        if (!have_device()) GTEST_SKIP() << "no CUDA device";
    }
};

TEST_P(Softmax, RowsAgreeWithDouble) {
    const int cols = GetParam();
    for (int rows : {1, 5}) {
        const auto x = random_values(static_cast<std::size_t>(rows) * cols, 3);
        check(x, cols, false);
        check(x, cols, true);
    }
}
TEST_P(Softmax, UnalignedAndInPlace) {
    const int cols = GetParam();
    const auto x = random_values(std::size_t(2) * cols, 3);
    check(x, cols, false, 1);
    check(x, cols, true, 0, true);
}
TEST_P(Softmax, InfinitiesAndLargeValues) {
    const auto cols = static_cast<std::size_t>(GetParam());
    auto x = random_values(4 * cols, 50);
    for (std::size_t c = 0; c < cols; ++c) {
        x[c] = -kInf;                              // row 0: NaN
        if (c + 1 < cols) x[cols + c] = -kInf;     // row 1: one finite value, at the end
        x[2 * cols + c] = c % 2 ? 3e38f : -3e38f;  // row 2: the ends of the range
    }
    check(x, static_cast<std::int64_t>(cols), false);
    check(x, static_cast<std::int64_t>(cols), true);
}
TEST_P(Softmax, HalfTypes) {
    const std::int64_t cols = GetParam();
    const auto run = [&](auto t) {
        using T = decltype(t);
        const auto x = held<T>(random_values(static_cast<std::size_t>(3 * cols), 3));
        const auto in = on_device(narrow<T>(x));
        for (bool log : {false, true})
            run_each<T>(
                x.size(),
                [&](T* y) { return cuda_rows(Storage<T>::type, in.data(), y, 3, cols, log, nullptr); },
                [&](const std::vector<T>& got) {
                    const auto want = reference(x, cols, log);
                    std::vector<double> scale;
                    for (double w : want)
                        scale.push_back((log ? 2e-6 * (1 + std::abs(w)) : 4e-7) + Storage<T>::rounding * std::abs(w));
                    expect_close(widen(got), want, 1, scale);
                });
    };
    run(__half());
    run(__nv_bfloat16());
}
// The last two: staged in shared memory with a ragged end, and beyond what shared memory holds.
INSTANTIATE_TEST_SUITE_P(Columns, Softmax, testing::Values(1, 31, 32, 33, 128, 1000, 4096, 5001, 12228),
                         testing::PrintToStringParamName());

TEST(SoftmaxLaunch, NothingToDoAndBadSizes) {
    EXPECT_EQ(cuda_rows(DType::f32, nullptr, nullptr, 0, 8, false, nullptr), cudaSuccess);
    EXPECT_EQ(cuda_rows(DType::f32, nullptr, nullptr, 8, 0, false, nullptr), cudaSuccess);
    EXPECT_EQ(cuda_rows(DType::f32, nullptr, nullptr, -1, 8, false, nullptr), cudaErrorInvalidValue);
    EXPECT_EQ(cuda_rows(DType::f32, nullptr, nullptr, 8, -1, false, nullptr), cudaErrorInvalidValue);
    EXPECT_EQ(cuda_rows(DType::f64, nullptr, nullptr, 8, 8, false, nullptr), cudaErrorInvalidValue);
}

#if !QUERN_SIMT_EMULATED
TEST(SoftmaxLaunch, WithoutADeviceAnErrorIsReturned) {
    if (have_device()) GTEST_SKIP() << "a CUDA device is present";
    float x = 0;
    EXPECT_NE(cuda_rows(DType::f32, &x, &x, 1, 1, false, nullptr), cudaSuccess);
    EXPECT_STRNE(cudaGetErrorString(cudaGetLastError()), "");
}
#endif

}  // namespace
