// NonMaxSuppression against the rule written down plainly: every kept box is compared with every candidate.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "support/op_test.hpp"

using namespace quern_test;

namespace {
std::vector<std::int64_t> plain(const std::vector<float>& boxes, const std::vector<float>& scores, std::int64_t limit, float iou, float least) {
    std::vector<std::int64_t> order, kept;
    for (std::size_t i = 0; i < scores.size(); ++i)
        if (scores[i] > least) order.push_back(static_cast<std::int64_t>(i));
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)]; });
    auto side = [&](std::int64_t i, int k) { return boxes[static_cast<std::size_t>(4 * i + k)]; };
    for (std::int64_t i : order) {
        if (static_cast<std::int64_t>(kept.size()) == limit) break;
        bool hit = false;
        for (std::int64_t j : kept) {
            float h = std::min(std::max(side(i, 0), side(i, 2)), std::max(side(j, 0), side(j, 2))) - std::max(std::min(side(i, 0), side(i, 2)), std::min(side(j, 0), side(j, 2)));
            float w = std::min(std::max(side(i, 1), side(i, 3)), std::max(side(j, 1), side(j, 3))) - std::max(std::min(side(i, 1), side(i, 3)), std::min(side(j, 1), side(j, 3)));
            if (!(w > 0 && h > 0)) continue;
            float a = std::abs((side(i, 2) - side(i, 0)) * (side(i, 3) - side(i, 1))), b = std::abs((side(j, 2) - side(j, 0)) * (side(j, 3) - side(j, 1)));
            hit = hit || w * h / (a + b - w * h) > iou;
        }
        if (!hit) kept.push_back(i);
    }
    return kept;
}
void compare(std::int64_t n, float spread, float size, float moved, std::int64_t limit, float iou) {
    std::mt19937 rng(static_cast<unsigned>(n));
    std::uniform_real_distribution<float> at(0, spread), side(-size, size), score(0, 1);
    std::vector<float> boxes, scores;
    for (std::int64_t i = 0; i < n; ++i) {
        float y = at(rng) + moved * float(i % 7), x = at(rng) + moved * float(i % 7);
        for (float v : {y, x, y + side(rng), x + side(rng)}) boxes.push_back(v);
        scores.push_back(std::round(score(rng) * 50) / 50);  // many are equal
    }
    auto expected = plain(boxes, scores, limit, iou, 0.1f);
    auto y = run_op("NonMaxSuppression", {floats({1, n, 4}, boxes), floats({1, 1, n}, scores), ints({1}, {limit}), floats({1}, {iou}), floats({1}, {0.1f})});
    auto got = y[0].data<std::int64_t>();
    ASSERT_EQ(got.size(), 3 * expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(got[3 * i + 2], expected[i]) << i;
}
}  // namespace

TEST(NonMaxSuppression, KeepsWhatThePlainRuleKeeps) {
    compare(1, 1, 1, 0, 10, 0.5f);
    compare(40, 10, 4, 0, 100, 0.3f);
    compare(700, 300, 60, 400, 10000, 0.45f);   // classes far apart
    compare(700, 300, 2, 0, 10000, 0.f);        // small boxes, few overlaps
    compare(500, 0, 100, 0, 10000, 0.7f);       // all from one corner
    compare(900, 300, 300, 0, 25, 0.9f);        // stops at the limit
    compare(6000, 3000, 20, 0, 3, 0.5f);        // long before all are in order
    compare(3000, 40, 30, 0, 200, 0.3f);        // many go before the limit is reached
}
TEST(NonMaxSuppression, HostileCoordinates) {
    float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN(), big = std::numeric_limits<float>::max();
    std::vector<float> boxes = {0, 0, 1, 1, -inf, -inf, inf, inf, nan, nan, nan, nan, -big, -big, big, big, 0, 0, 1, 1, 0, 0, 0, 0};
    auto y = run_op("NonMaxSuppression", {floats({1, 6, 4}, boxes), floats({1, 1, 6}, {.9f, .8f, .7f, .6f, .5f, nan}), ints({1}, {10}), floats({1}, {.5f})});
    auto got = y[0].data<std::int64_t>();
    std::vector<std::int64_t> kept;
    for (std::size_t i = 2; i < got.size(); i += 3) kept.push_back(got[i]);
    EXPECT_EQ(kept, (std::vector<std::int64_t>{0, 1, 2, 3, 5}));  // only the copy of the first goes
}
