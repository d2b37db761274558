// vec::ReduceTable against plain loops, every type at every instruction set.
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>
#include <quern/base/cpu_info.hpp>
#include <quern/kernels/vec/reductions.hpp>

using namespace quern;
using vec::Reduce;

namespace {

std::vector<const vec::ReduceTable*> tables() {
    std::vector<const vec::ReduceTable*> all;
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
        if (isa <= best_isa()) all.push_back(&vec::reduce_table(isa));
    return all;
}
/// Small whole numbers, so that every order of adding gives the same; of bytes both halves of the range.
template <class T>
std::vector<T> numbers(std::int64_t n, int seed) {
    std::vector<T> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) {
        const int v = static_cast<int>((i * 2654435761u + static_cast<unsigned>(seed) * 40503u) >> 7 & 0xff);
        if constexpr (sizeof(T) == 1) x[i] = static_cast<T>(v);
        else if constexpr (std::is_unsigned_v<T>) x[i] = static_cast<T>(v % 9);
        else x[i] = static_cast<T>(v % 9 - 4);
    }
    return x;
}
template <class A>
A step(Reduce r, A a, A x) {
    switch (r) {
        case Reduce::sum: return static_cast<A>(a + x);
        case Reduce::prod: return static_cast<A>(a * x);
        case Reduce::max: return x > a ? x : a;
        case Reduce::min: return x < a ? x : a;
        case Reduce::sum_abs: return static_cast<A>(a + (x < A(0) ? static_cast<A>(A(0) - x) : x));
        default: return static_cast<A>(a + x * x);
    }
}
template <class T, class A>
void check(const vec::ReduceLoops& l) {
    for (int r = 0; r < static_cast<int>(Reduce::count); ++r) {
        const auto op = static_cast<Reduce>(r);
        if (sizeof(T) == 1 && op != Reduce::max && op != Reduce::min) {
            EXPECT_EQ(l.runs[r], nullptr);
            continue;
        }
        for (std::int64_t n : {1, 2, 7, 31, 32, 63, 64, 65, 130, 600}) {
            SCOPED_TRACE("reduction " + std::to_string(r) + " of " + std::to_string(n));
            const std::int64_t count = op == Reduce::prod ? 5 : 7;
            auto x = numbers<T>(count * n, r);
            if (op == Reduce::prod)
                for (auto& v : x) v = v == T(2) ? T(2) : T(1);
            std::vector<A> acc(static_cast<std::size_t>(count), A(1)), want = acc;
            if (op != Reduce::prod || n < 100) {  // longer products overflow
                for (std::size_t c = 0; c < want.size(); ++c)
                    for (std::int64_t i = 0; i < n; ++i) want[c] = step<A>(op, want[c], static_cast<A>(x[c * static_cast<std::size_t>(n) + static_cast<std::size_t>(i)]));
                l.runs[r](x.data(), count, n, acc.data());
                EXPECT_EQ(acc, want);
            }
            std::vector<T> part(static_cast<std::size_t>(n), T(1)), columns = part;
            std::vector<const void*> rows;
            for (std::int64_t i = 0; i < count; ++i) {
                rows.push_back(x.data() + i * n);
                for (std::int64_t j = 0; j < n; ++j) columns[static_cast<std::size_t>(j)] = step<T>(op, columns[static_cast<std::size_t>(j)], x[static_cast<std::size_t>(i * n + j)]);
            }
            l.rows[r](rows.data(), count, n, part.data());
            EXPECT_EQ(part, columns);
        }
    }
    for (std::int64_t n : {1, 20, 64, 100}) {
        auto x = numbers<T>(20 * n, 7);
        std::vector<T> got(static_cast<std::size_t>(5 * n)), want = got;
        for (std::int64_t o = 0; o < 5; ++o)
            for (std::int64_t j = 0; j < n; ++j) {
                T& best = want[static_cast<std::size_t>(o * n + j)] = x[static_cast<std::size_t>(2 * o * n + j)];
                for (std::int64_t t = 1; t < 3; ++t) best = step<T>(Reduce::max, best, x[static_cast<std::size_t>((2 * o + 3 * t) * n + j)]);
            }
        l.max_windows(x.data(), 3, 3 * n, 5, 2 * n, n, got.data());
        EXPECT_EQ(got, want);
    }
    for (std::int64_t n : {1, 5, 63, 64, 65, 700}) {
        auto x = numbers<T>(n, 3);
        const T absent = T(100), v = x[static_cast<std::size_t>(n / 2)];
        std::int64_t first = -1, last = -1, none = -1;
        for (std::int64_t i = 0; i < n; ++i) {
            if (x[static_cast<std::size_t>(i)] == v) last = i, first = first < 0 ? i : first;
            if (x[static_cast<std::size_t>(i)] == absent && none < 0) none = i;
        }
        EXPECT_EQ(l.find(x.data(), n, &v, false), first);
        EXPECT_EQ(l.find(x.data(), n, &v, true), last);
        EXPECT_EQ(l.find(x.data(), n, &absent, false), none);
        EXPECT_EQ(l.find(x.data(), 0, &v, true), -1);
    }
    using Place = std::conditional_t<sizeof(T) == 1, std::int8_t, std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>>;
    for (std::int64_t n : {1, 9, 64, 100})
        for (std::int64_t count : {1, 4, 6, 120})
            for (bool max : {false, true})
                for (bool later : {false, true}) {
                    auto x = numbers<T>(count * n, 5), best = numbers<T>(n, 9);
                    if constexpr (std::is_floating_point_v<T>) {
                        const T nan = std::numeric_limits<T>::quiet_NaN();
                        x[static_cast<std::size_t>(count / 2 * n)] = nan;
                        if (count > 4 && n > 8) x[static_cast<std::size_t>((count - 1) * n)] = nan, best[8] = nan;
                    }
                    auto want = best;
                    std::vector<Place> place(static_cast<std::size_t>(n), Place(0)), places = place;
                    std::vector<const void*> rows;
                    for (std::int64_t i = 0; i < count; ++i) {
                        rows.push_back(x.data() + i * n);
                        for (std::int64_t j = 0; j < n; ++j) {
                            const T v = x[static_cast<std::size_t>(i * n + j)];
                            T& b = want[static_cast<std::size_t>(j)];
                            if (b == b && (v != v || (max ? v > b : v < b) || (later && v == b))) b = v, places[static_cast<std::size_t>(j)] = static_cast<Place>(3 + i);
                        }
                    }
                    l.arg_rows[max](rows.data(), count, n, 3, later, best.data(), place.data());
                    EXPECT_EQ(place, places);
                    for (std::size_t j = 0; j < best.size(); ++j) EXPECT_TRUE(best[j] == want[j] || (best[j] != best[j] && want[j] != want[j]));
                }
}
TEST(Reductions, EveryTypeAndLength) {
    for (const vec::ReduceTable* t : tables()) {
        check<float, double>(t->f32);
        check<double, double>(t->f64);
        check<std::int32_t, std::int32_t>(t->i32);
        check<std::int64_t, std::int64_t>(t->i64);
        check<std::uint64_t, std::uint64_t>(t->u64);
        check<std::int8_t, std::int8_t>(t->i8);
        check<std::uint8_t, std::uint8_t>(t->u8);
    }
}
TEST(Reductions, NanWins) {
    for (const vec::ReduceTable* t : tables())
        for (Reduce r : {Reduce::max, Reduce::min})
            for (std::int64_t n : {5, 40, 300})
                for (std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
                    auto x = numbers<float>(n, 1);
                    auto d = numbers<double>(n, 1);
                    x[static_cast<std::size_t>(at)] = d[static_cast<std::size_t>(at)] = std::numeric_limits<float>::quiet_NaN();
                    double a = 0, b = 0;
                    t->f32.runs[static_cast<int>(r)](x.data(), 1, n, &a);
                    t->f64.runs[static_cast<int>(r)](d.data(), 1, n, &b);
                    EXPECT_TRUE(std::isnan(a) && std::isnan(b)) << n << " " << at;
                    EXPECT_EQ(t->f32.find(x.data(), n, &x[static_cast<std::size_t>(at)], false), at);
                }
}
/// In double: what is added to a large sum is not lost. Tolerance: half an ULP of the result and 2^-52 of the largest sum on the way.
TEST(Reductions, RunningSums) {
    for (const vec::ReduceTable* t : tables())
        for (std::int64_t n : {0, 1, 3, 15, 16, 17, 32, 100, 1000})
            for (int flags = 0; flags < 4; ++flags) {
                const bool exclusive = flags & 1, reverse = flags & 2;
                std::vector<float> x(static_cast<std::size_t>(n)), y(x.size());
                for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) * 0.37f + (i == 5 ? 1e6f : i == 60 ? -1e6f : 0.f);
                double sum = 0.25, carry = sum;
                t->running_sum(x.data(), y.data(), n, &carry, exclusive, reverse);
                for (std::int64_t k = 0; k < n; ++k) {
                    const auto i = static_cast<std::size_t>(reverse ? n - 1 - k : k);
                    const double next = sum + static_cast<double>(x[i]), want = exclusive ? sum : next;
                    EXPECT_NEAR(static_cast<double>(y[i]), want, 6e-8 * std::abs(want) + 1e-8);
                    sum = next;
                }
                EXPECT_NEAR(carry, sum, 1e-8);
                std::vector<float> z = x;
                carry = 0.25;
                t->running_sum(z.data(), z.data(), n, &carry, exclusive, reverse);
                EXPECT_EQ(z, y);
            }
}

}  // namespace
