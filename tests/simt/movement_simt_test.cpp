// kernels/transpose/cuda.cu and kernels/gather/cuda.cu: every element is where it belongs.
#include <numeric>

#include <quern/kernels/gather/cuda.hpp>
#include <quern/kernels/transpose/cuda.hpp>

#include "device_test.hpp"

namespace {

using namespace device_test;
using namespace quern::movement;
using Dims = std::vector<std::int64_t>;

template <class T>
std::vector<T> counted(std::int64_t n) {
    std::vector<T> v(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<T>(i * 7 + 1);
    return v;
}
Dims strides(const Dims& d) {
    Dims s(d.size());
    std::int64_t n = 1;
    for (std::size_t i = d.size(); i-- > 0; n *= d[i]) s[i] = n;
    return s;
}

class Movement : public DeviceTest {};

template <class T>
void check_transpose(const Dims& x, const std::vector<int>& perm) {
    const Dims sx = strides(x);
    Dims y;
    for (int p : perm) y.push_back(x[static_cast<std::size_t>(p)]);
    const Dims sy = strides(y);
    CopyRegion r;
    for (std::size_t i = 0; i < perm.size(); ++i)
        ASSERT_TRUE(r.axis(y[i], sx[static_cast<std::size_t>(perm[i])], sy[i]));
    const auto v = counted<T>(product(x));
    std::vector<T> want(v.size());
    for (std::size_t i = 0; i < v.size(); ++i) {
        std::int64_t rest = static_cast<std::int64_t>(i), from = 0;
        for (std::size_t k = 0; k < y.size(); ++k) {
            from += rest / sy[k] * sx[static_cast<std::size_t>(perm[k])];
            rest %= sy[k];
        }
        want[i] = v[static_cast<std::size_t>(from)];
    }
    const auto d = on_device(v);
    run_each<T>(
        v.size(), [&](T* to) { return cuda_copy(r, sizeof(T), d.data(), to, nullptr); },
        [&](const std::vector<T>& got) { EXPECT_EQ(got, want); });
}
TEST_F(Movement, Transpositions) {
    const std::vector<std::pair<Dims, std::vector<int>>> cases = {
        {{33, 70}, {1, 0}},
        {{3, 5}, {1, 0}},
        {{2, 16, 7, 9}, {0, 2, 3, 1}},
        {{2, 7, 9, 16}, {0, 3, 1, 2}},
        {{2, 3, 4, 8}, {0, 2, 1, 3}},
        {{2, 6, 4, 5}, {3, 2, 1, 0}},
        {{4, 1, 6}, {2, 1, 0}},
        {{64, 64}, {1, 0}},
    };
    for (const auto& [x, perm] : cases) {
        check_transpose<std::uint8_t>(x, perm);
        check_transpose<std::uint16_t>(x, perm);
        check_transpose<std::uint32_t>(x, perm);
        check_transpose<std::uint64_t>(x, perm);
    }
}

TEST_F(Movement, SlicesBackwardsAndRepeated) {
    const auto v = counted<std::uint32_t>(6 * 10);
    const auto d = on_device(v);
    CopyRegion r;  // x[5::-2, 1:9:3]
    ASSERT_TRUE(r.axis(3, -20, 3));
    ASSERT_TRUE(r.axis(3, 3, 1));
    run_each<std::uint32_t>(
        9, [&](std::uint32_t* to) { return cuda_copy(r, 4, d.data() + 51, to, nullptr); },
        [&](const std::vector<std::uint32_t>& got) {
            for (int i = 0; i < 3; ++i)
                for (int j = 0; j < 3; ++j) EXPECT_EQ(got[i * 3 + j], v[(5 - 2 * i) * 10 + 1 + 3 * j]);
        });
    CopyRegion e;  // [10] expanded to [4, 10], rows of 12 apart
    ASSERT_TRUE(e.axis(4, 0, 12));
    ASSERT_TRUE(e.axis(10, 1, 1));
    run_each<std::uint32_t>(
        48, [&](std::uint32_t* to) { return cuda_copy(e, 4, d.data(), to, nullptr); },
        [&](const std::vector<std::uint32_t>& got) {
            for (int i = 0; i < 4; ++i) {
                for (int j = 0; j < 10; ++j) EXPECT_EQ(got[i * 12 + j], v[j]);
                EXPECT_EQ(got[i * 12 + 10], 0xFFFFFFFFu) << "written between the rows";
            }
        });
}

// One side contiguous in both: 16 bytes at a time where address and sizes allow, else narrower.
TEST_F(Movement, RowsOfAnyAlignment) {
    const auto v = counted<std::uint16_t>(4096);
    const auto d = on_device(v);
    for (std::int64_t width : {1, 3, 8, 24, 100})
        for (std::int64_t shift : {0, 1, 8}) {
            CopyRegion r;
            ASSERT_TRUE(r.axis(20, 128, width));
            ASSERT_TRUE(r.axis(width, 1, 1));
            run_each<std::uint16_t>(
                static_cast<std::size_t>(20 * width),
                [&](std::uint16_t* to) { return cuda_copy(r, 2, d.data() + shift, to, nullptr); },
                [&](const std::vector<std::uint16_t>& got) {
                    for (std::size_t i = 0; i < got.size(); ++i)
                        ASSERT_EQ(got[i], v[i / width * 128 + i % width + shift]);
                });
        }
}

TEST_F(Movement, RanksAndLimits) {
    CopyRegion r;
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(r.axis(2, 3 << (2 * i), 1 << (7 - i)));
    EXPECT_FALSE(r.axis(2, 5, 1 << 20));
    EXPECT_EQ(cuda_copy(CopyRegion{}, 3, nullptr, nullptr, nullptr), cudaErrorInvalidValue);
    CopyRegion empty;
    ASSERT_TRUE(empty.axis(0, 1, 1));
    EXPECT_EQ(cuda_copy(empty, 4, nullptr, nullptr, nullptr), cudaSuccess);
    CopyRegion huge;
    ASSERT_TRUE(huge.axis(std::int64_t(1) << 31, 1, 1));
    EXPECT_EQ(cuda_copy(huge, 4, nullptr, nullptr, nullptr), cudaErrorInvalidValue);
    const auto one = on_device(counted<std::uint32_t>(1));
    run_each<std::uint32_t>(
        1, [&](std::uint32_t* to) { return cuda_copy(CopyRegion{}, 4, one.data(), to, nullptr); },
        [&](const std::vector<std::uint32_t>& got) { EXPECT_EQ(got[0], 1u); });
}

TEST_F(Movement, PadInEveryMode) {
    const Dims x = {3, 5}, before = {2, -1}, y = {7, 8};
    const auto v = counted<std::uint32_t>(15);
    const auto d = on_device(v);
    const auto value = on_device(std::vector<std::uint32_t>{77});
    const auto source = [](std::int64_t i, std::int64_t n, CudaPad m) -> std::int64_t {
        if (i >= 0 && i < n) return i;
        if (m == CudaPad::edge) return i < 0 ? 0 : n - 1;
        if (m == CudaPad::wrap) return ((i % n) + n) % n;
        if (m == CudaPad::reflect) {
            while (i < 0 || i >= n) i = i < 0 ? -i : 2 * (n - 1) - i;
            return i;
        }
        return -1;
    };
    for (CudaPad m : {CudaPad::constant, CudaPad::reflect, CudaPad::edge, CudaPad::wrap})
        for (bool given : {true, false})
            run_each<std::uint32_t>(
                56,
                [&](std::uint32_t* to) {
                    return cuda_pad(m, 2, x.data(), y.data(), before.data(), 4, d.data(),
                                    given ? value.data() : nullptr, to, nullptr);
                },
                [&](const std::vector<std::uint32_t>& got) {
                    for (std::int64_t i = 0; i < 7; ++i)
                        for (std::int64_t j = 0; j < 8; ++j) {
                            const std::int64_t a = source(i - 2, 3, m), b = source(j + 1, 5, m);
                            EXPECT_EQ(got[i * 8 + j], a < 0 || b < 0 ? (given ? 77u : 0u) : v[a * 5 + b])
                                << i << ", " << j;
                        }
                });
    run_each<std::uint16_t>(
        1000,
        [&](std::uint16_t* to) {
            const std::uint16_t five = 5;
            return cuda_fill(&five, 2, 1000, to, nullptr);
        },
        [&](const std::vector<std::uint16_t>& got) { EXPECT_EQ(got, std::vector<std::uint16_t>(1000, 5)); });
}

TEST_F(Movement, GatherRows) {
    for (std::int64_t inner : {1, 6, 16})
        for (int size : {1, 4}) {
            const auto v = counted<std::uint8_t>(2 * 5 * inner * size);
            const auto d = on_device(v);
            const auto index = on_device(std::vector<std::int64_t>{4, 0, -1, -5, 5, -6, 2});
            run_each<std::uint8_t>(
                static_cast<std::size_t>(2 * 7 * inner * size),
                [&](std::uint8_t* to) {
                    return cuda_gather(d.data(), index.data(), to, 2, 5, 7, inner, size, 8, nullptr);
                },
                [&](const std::vector<std::uint8_t>& got) {
                    const int want[] = {4, 0, 4, 0, -1, -1, 2};  // outside: zeros
                    const std::size_t row = static_cast<std::size_t>(inner * size);
                    for (std::size_t i = 0; i < got.size(); ++i) {
                        const int k = want[i / row % 7];
                        ASSERT_EQ(got[i],
                                  k < 0 ? 0 : v[(i / row / 7 * 5 + static_cast<std::size_t>(k)) * row + i % row]);
                    }
                });
        }
}

TEST_F(Movement, GatherElementsAndTuples) {
    const auto v = counted<std::uint32_t>(4 * 6);
    const auto d = on_device(v);
    const auto rows = on_device(std::vector<std::int32_t>{3, -1, 0, 1, 9, 2});
    const Dims x = {4, 6}, y = {2, 3};
    run_each<std::uint32_t>(
        6,
        [&](std::uint32_t* to) {
            return cuda_gather_elements(d.data(), rows.data(), to, 2, 0, x.data(), y.data(), 4, 4, nullptr);
        },
        [&](const std::vector<std::uint32_t>& got) {
            EXPECT_EQ(got, (std::vector<std::uint32_t>{v[18], v[19], v[2], v[6], 0, v[14]}));
        });
    const auto tuples = on_device(std::vector<std::int64_t>{1, 2, -1, 0, 7, 0});
    const Dims dims = {2, 3};  // data [2, 3, 4]
    run_each<std::uint32_t>(
        12,
        [&](std::uint32_t* to) {
            return cuda_index_nd(true, const_cast<std::uint32_t*>(d.data()), tuples.data(), to, 1, 3, 2, dims.data(), 4,
                                 4, nullptr);
        },
        [&](const std::vector<std::uint32_t>& got) {
            for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(got[i], i < 4 ? v[20 + i] : i < 8 ? v[12 + i - 4] : 0);
        });
    const auto updates = on_device(std::vector<std::uint32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9});
    run_each<std::uint32_t>(
        24,
        [&](std::uint32_t* to) {
            return cuda_index_nd(false, to, tuples.data(), updates.data(), 1, 3, 2, dims.data(), 4, 4, nullptr);
        },
        [&](const std::vector<std::uint32_t>& got) {
            for (std::size_t i = 0; i < 24; ++i) {
                const std::uint32_t want = i >= 20             ? static_cast<std::uint32_t>(i - 19)
                                           : i >= 12 && i < 16 ? static_cast<std::uint32_t>(i - 7)
                                                               : 0xFFFFFFFFu;
                EXPECT_EQ(got[i], want) << i;
            }
        });
}

}  // namespace
