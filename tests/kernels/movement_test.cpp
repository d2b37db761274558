// Transposition and strided copies of every element size against plain loops: odd sizes, unaligned targets, and sizes that go by
// cache lines or past the caches.
#include <algorithm>
#include <complex>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>
#include <quern/kernels/transpose/transpose.hpp>
#include "support/kernel_harness.hpp"
#include "support/serial_workers.hpp"

namespace {
using namespace quern;
using namespace quern_test;
using Sizes = std::vector<std::int64_t>;

template <class T> T value(std::uint64_t i) {
    if constexpr (std::is_same_v<T, std::complex<double>>) return {static_cast<double>(i), static_cast<double>(i) * 0.5};
    else return static_cast<T>(i * 2654435761u >> 5);
}
template <class T> DType type_of() {
    return sizeof(T) == 1 ? DType::u8 : sizeof(T) == 2 ? DType::u16 : sizeof(T) == 4 ? DType::u32 : sizeof(T) == 8 ? DType::u64 : DType::c128;
}
/// The target begins `skew` elements behind an address aligned to 64; what lies around it must stay.
template <class T> void check_transpose(const Sizes& dims, const std::vector<int>& perm, std::size_t skew) {
    const int rank = static_cast<int>(dims.size());
    const auto total = static_cast<std::size_t>(std::accumulate(dims.begin(), dims.end(), std::int64_t{1}, std::multiplies<>()));
    std::vector<T> x(total), room(total + 128, value<T>(99));
    for (std::size_t i = 0; i < total; ++i) x[i] = value<T>(i);
    T* y = room.data();
    while (reinterpret_cast<std::uintptr_t>(y) % 64) ++y;
    y += skew;
    Sizes out(dims.size()), step(dims.size());
    std::int64_t n = 1;
    for (int i = rank - 1; i >= 0; n *= dims[static_cast<std::size_t>(i--)]) step[static_cast<std::size_t>(i)] = n;
    for (std::size_t i = 0; i < dims.size(); ++i) out[i] = dims[static_cast<std::size_t>(perm[i])];
    View in[1] = {{type_of<T>(), rank, dims.data(), x.data()}}, to[1] = {{type_of<T>(), rank, out.data(), y}};
    SerialWorkers one;
    movement::Transpose(perm).run(Call{in, to, nullptr, nullptr, one});
    std::vector<std::int64_t> at(dims.size(), 0);
    std::int64_t from = 0;
    for (std::size_t i = 0; i < total; ++i) {
        ASSERT_TRUE(y[i] == x[static_cast<std::size_t>(from)]) << "element " << i << " of size " << sizeof(T) << ", skew " << skew;
        for (int a = rank - 1; a >= 0; --a) {
            const auto k = static_cast<std::size_t>(a), s = static_cast<std::size_t>(perm[k]);
            from += step[s];
            if (++at[k] < out[k]) break;
            from -= step[s] * out[k];
            at[k] = 0;
        }
    }
    ASSERT_TRUE(std::all_of(room.data(), y, [](const T& v) { return v == value<T>(99); })) << "written before, size " << sizeof(T);
    ASSERT_TRUE(std::all_of(y + total, room.data() + room.size(), [](const T& v) { return v == value<T>(99); })) << "written behind, size " << sizeof(T);
}
template <class T> void small_transposes() {
    std::mt19937 rng(7);
    const std::int64_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 65, 130};
    for (int round = 0; round < 150; ++round) {
        const int rank = 1 + static_cast<int>(rng() % 4);
        Sizes d;
        std::vector<int> perm;
        std::int64_t total = 1;
        for (int i = 0; i < rank; ++i) {
            d.push_back(sizes[rng() % 15]);
            perm.push_back(i);
            total *= d.back();
        }
        if (total > 200000) continue;
        std::shuffle(perm.begin(), perm.end(), rng);
        SCOPED_TRACE(Shape(std::span<const std::int64_t>(d)).to_string());
        check_transpose<T>(d, perm, rng() % 3);
        if (testing::Test::HasFatalFailure()) return;
    }
}
TEST(Movement, TransposesOfAllElementSizes) {
    small_transposes<std::uint8_t>();
    small_transposes<std::uint16_t>();
    small_transposes<std::uint32_t>();
    small_transposes<std::uint64_t>();
    small_transposes<std::complex<double>>();
}
TEST(Movement, LargeTransposesGoByLines) {
    static_assert(movement::stream_bytes <= std::int64_t{2624} * 2560 * 4);
    for (std::size_t skew : {0u, 1u}) {
        check_transpose<std::uint8_t>({1500, 1601}, {1, 0}, skew);      // lines with rests on both sides
        check_transpose<std::uint16_t>({3, 1111, 640}, {0, 2, 1}, skew);
        check_transpose<std::uint32_t>({2624, 2560}, {1, 0}, skew);  // past the caches
        check_transpose<std::uint32_t>({4, 64, 70, 70}, {0, 2, 3, 1}, skew);
        check_transpose<std::uint64_t>({700, 640}, {1, 0}, skew);
    }
}
template <class T> void strided() {
    std::vector<T> x(4000), y(600);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = value<T>(i);
    SerialWorkers one;
    for (std::int64_t step = -3; step <= 5; ++step)
        for (std::int64_t n : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100}) {
            const T* from = x.data() + 1000;
            std::fill(y.begin(), y.end(), value<T>(99));
            movement::Region r;
            r.axis(3, 700, n + 1);
            r.axis(n, step, 1);
            movement::copy(r, from, y.data(), one);
            for (std::int64_t a = 0; a < 3; ++a) {
                for (std::int64_t i = 0; i < n; ++i) ASSERT_TRUE(y[static_cast<std::size_t>(a * (n + 1) + i)] == from[a * 700 + i * step]) << step << ' ' << n << ' ' << i;
                ASSERT_TRUE(y[static_cast<std::size_t>(a * (n + 1) + n)] == value<T>(99)) << "written outside";
            }
        }
}
TEST(Movement, StridesForwardAndBack) {
    strided<std::uint8_t>();
    strided<std::uint16_t>();
    strided<std::uint32_t>();
    strided<std::uint64_t>();
    strided<std::complex<double>>();
}
TEST(Movement, BytesOfEveryLength) {
    std::vector<std::uint8_t> x(700), y(700);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::uint8_t>(i * 7 + 1);
    for (std::size_t n = 0; n <= 300; ++n) {
        std::fill(y.begin(), y.end(), std::uint8_t{0});
        movement::move_bytes(y.data() + 3, x.data() + 5, n);
        ASSERT_EQ(std::memcmp(y.data() + 3, x.data() + 5, n), 0) << n;
        ASSERT_EQ(y[2], 0);
        ASSERT_EQ(y[3 + n], 0) << n;
    }
}
}  // namespace
