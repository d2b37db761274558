// What kernel tests need on the emulator in its three builds and on a real device alike.
#pragma once
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "device_memory.hpp"
#if QUERN_SIMT_EMULATED
#include "runtime.hpp"
#endif

namespace device_test {

#if QUERN_SIMT_EMULATED
/// The schedules that a kernel runs under; the device has its own.
constexpr int kSeeds = 3;
inline void use_seed(int s) { simt::config.seed = static_cast<std::uint64_t>(s); }
inline std::string fault() { return simt::take_fault(); }
inline bool have_device() { return true; }
/// Sanitized builds take smaller problems.
inline bool slow() { return simt::checks() != simt::Checks::none; }
#else
constexpr int kSeeds = 1;
inline void use_seed(int) {}
inline std::string fault() { return cudaGetErrorString(cudaDeviceSynchronize()); }
inline bool have_device() {
    int n = 0;
    return cudaGetDeviceCount(&n) == cudaSuccess && n > 0;
}
inline bool slow() { return false; }
#endif

/// Skips where there is no device.
class DeviceTest : public testing::Test {
protected:
    void SetUp() override {
        if (!have_device()) GTEST_SKIP() << "no CUDA device";
    }
};

/// Device copy of a vector (element type T).
template <class T>
DeviceBuffer<T> on_device(const std::vector<T>& v) {
    DeviceBuffer<T> b(v.size());
    b.upload(v);
    return b;
}

/// Runs f under each schedule: it enqueues work that writes `out`, which is poisoned (NaN) before; `check` sees the
/// result.
template <class T>
void run_each(std::size_t n, const std::function<cudaError_t(T*)>& f,
              const std::function<void(const std::vector<T>&)>& check) {
    for (int seed = 0; seed < kSeeds; ++seed) {
        SCOPED_TRACE(testing::Message() << "seed " << seed);
        use_seed(seed);
        DeviceBuffer<T> out(n);
        ASSERT_EQ(cudaMemset(out.data(), 0xFF, n * sizeof(T)), cudaSuccess);
        ASSERT_EQ(f(out.data()), cudaSuccess) << fault();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << fault();
        check(out.download());
        if (testing::Test::HasFailure()) return;
    }
}
/// The largest |got - want| / scale is at most `tolerance`; NaN and infinities agree. Scales: empty: 1 + |want|.
inline void expect_close(const std::vector<float>& got, const std::vector<double>& want, double tolerance,
                         const std::vector<double>& scales = {}) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double w = want[i];
        if (std::isnan(w)) {
            ASSERT_TRUE(std::isnan(got[i])) << "element " << i << " is " << got[i];
        } else if (std::abs(w) > static_cast<double>(std::numeric_limits<float>::max())) {
            ASSERT_EQ(got[i], std::copysign(std::numeric_limits<float>::infinity(), w)) << "element " << i;
        } else {
            const double scale = scales.empty() ? 1 + std::abs(w) : scales[i];
            ASSERT_LE(std::abs(static_cast<double>(got[i]) - w), tolerance * scale)
                << "element " << i << " is " << got[i] << ", not " << w;
        }
    }
}
inline std::vector<float> random_values(std::size_t n, float scale = 1, unsigned seed = 1) {
    std::mt19937 g(static_cast<unsigned>(n) * 31 + seed);
    std::normal_distribution<float> d(0, scale);
    std::vector<float> v(n);
    for (float& x : v) x = d(g);
    return v;
}
inline std::int64_t product(const std::vector<std::int64_t>& d) {
    std::int64_t n = 1;
    for (auto x : d) n *= x;
    return n;
}

}  // namespace device_test
