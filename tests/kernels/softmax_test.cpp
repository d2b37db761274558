// Every kernel of kernels/softmax/kernels.inc against the oracle.
#include <quern/kernels/softmax/reference.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using namespace quern_test;

void check(const softmax::Problem& p, const Dims& dims, std::mt19937& rng, double lo, double hi) {
    std::int64_t outer = 1, inner = 1, n = dims.empty() ? 1 : dims[p.axis];
    for (int i = 0; i < static_cast<int>(dims.size()); ++i) (i < p.axis ? outer : inner) *= i == p.axis ? 1 : dims[i];
    auto vx = random_values(rng, count_of(dims), lo, hi);
    auto want = softmax::reference(p, vx, outer, n, inner);
    for_each_kernel<softmax::Problem>(Family::softmax, linked_backends(), [&](const Entry<softmax::Problem>& entry, const Target& target) {
        if (!entry.refuse(p, target).empty()) return;
        auto kernel = entry.make(p, target);
        Guarded x(p.dtype, dims, vx), y(p.dtype, dims);
        run_kernel(*kernel, {x.view()}, y);
        for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(y.get(i), want[i], softmax::tolerance(p, want[i])) << i;
        if (kernel->inplace & 1) {
            View v[1] = {x.view()};
            Booking b = kernel->book(v, v, 1);
            std::vector<std::byte> scratch(b.scratch + 64);
            SerialWorkers one;
            kernel->run(Call{v, v, scratch.data() + (64 - reinterpret_cast<std::size_t>(scratch.data()) % 64), b.state.get(), one});
            ASSERT_TRUE(x.bytes() == y.bytes()) << "in place";
            ASSERT_TRUE(x.intact());
        }
    });
}
TEST(Softmax, AxesAndSizes) {
    std::mt19937 rng(seed());
    for (DType t : {DType::f32, DType::f64})
        for (bool log : {false, true})
            for (const Dims& d : {Dims{5}, Dims{3, 7}, Dims{2, 3, 64}, Dims{2, 129, 300}, Dims{4, 1}, Dims{0, 5}, Dims{3, 0}, Dims{2, 3, 4, 5}, Dims{1, 1000}, Dims{70, 17}})
                for (int axis = 0; axis < static_cast<int>(d.size()); ++axis) {
                    SCOPED_TRACE(Shape(std::span<const std::int64_t>(d)).to_string() + " axis " + std::to_string(axis) + (log ? " log" : ""));
                    softmax::Problem p{t, static_cast<int>(d.size()), axis, log};
                    check(p, d, rng, -4, 4);
                    check(p, d, rng, -200, 200);
                }
}
TEST(Softmax, Infinities) {
    for_each_kernel<softmax::Problem>(Family::softmax, linked_backends(), [&](const Entry<softmax::Problem>& entry, const Target& target) {
        softmax::Problem p{DType::f32, 2, 1, false};
        if (!entry.refuse(p, target).empty()) return;
        Guarded x(DType::f32, {2, 3}, {-INFINITY, 0, 0, -INFINITY, -INFINITY, -INFINITY}), y(DType::f32, {2, 3});
        auto kernel = entry.make(p, target);
        run_kernel(*kernel, {x.view()}, y);
        EXPECT_EQ(y.get(0), 0);
        EXPECT_NEAR(y.get(1), 0.5, 1e-7);
        for (int i = 3; i < 6; ++i) EXPECT_TRUE(std::isnan(y.get(static_cast<std::size_t>(i))));
    });
}
}  // namespace
