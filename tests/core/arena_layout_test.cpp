// Where blocks lie in the memory of a run.
#include <gtest/gtest.h>

#include <quern/session/arena_layout.hpp>
#include <random>

namespace {
using namespace quern;

struct Need {
    std::size_t bytes;
    int first, last;  // last < 0: never given back
};
/// Lays them out, checks that none overlap that share a step, and returns the bytes.
std::size_t lay_out(ArenaLayout& a, const std::vector<Need>& needs) {
    a.clear();
    for (auto& n : needs)
        if (int b = a.take(n.bytes, n.first); n.last >= 0) a.give(b, n.last);
    const std::size_t total = a.place();
    auto last = [](const Need& n) { return n.last < 0 ? INT32_MAX : n.last; };
    for (int i = 0; i < static_cast<int>(needs.size()); ++i) {
        const Need& x = needs[static_cast<std::size_t>(i)];
        EXPECT_EQ(a.offset(i) % 64, 0u);
        EXPECT_LE(a.offset(i) + x.bytes, total);
        for (int j = 0; j < i; ++j) {
            const Need& y = needs[static_cast<std::size_t>(j)];
            if (!x.bytes || !y.bytes || last(x) < y.first || last(y) < x.first) continue;
            EXPECT_TRUE(a.offset(i) + x.bytes <= a.offset(j) || a.offset(j) + y.bytes <= a.offset(i)) << i << " and " << j;
        }
    }
    EXPECT_GE(total, a.least());
    return total;
}

TEST(ArenaLayout, NothingNeedsNothing) {
    ArenaLayout a;
    EXPECT_EQ(lay_out(a, {}), 0u);
    EXPECT_EQ(lay_out(a, {{0, 0, 3}, {0, 1, -1}}), 0u);
}
TEST(ArenaLayout, WhatIsGivenBackIsUsedAgain) {
    ArenaLayout a;
    EXPECT_EQ(lay_out(a, {{100, 0, 1}, {100, 1, 2}, {100, 2, 3}, {100, 3, -1}}), 256u);
    EXPECT_EQ(a.least(), 256u);
}
TEST(ArenaLayout, LargeOnesFirstWhereOrderLeavesHoles) {
    // In the order of steps the third would lie behind both others: the hole of the first is too small for it.
    ArenaLayout a;
    EXPECT_EQ(lay_out(a, {{640, 0, 0}, {640, 0, 9}, {1280, 1, 9}}), 1920u);
    EXPECT_EQ(a.least(), 1920u);
    // A value that is needed long after a short-lived one that was larger.
    EXPECT_EQ(lay_out(a, {{6400, 0, 1}, {1024, 1, 9}, {7000, 2, 3}, {6400, 4, 9}}), 7040u + 1024u);
}
TEST(ArenaLayout, RandomOnesNeverOverlapAndWasteLittle) {
    std::mt19937 random(7);
    ArenaLayout a;
    double waste = 0;
    for (int trial = 0; trial < 200; ++trial) {
        std::vector<Need> needs;
        for (int step = 0; step < 40; ++step)
            for (unsigned k = random() % 3; k > 0; --k) {
                const int last = step + static_cast<int>(random() % (random() % 8 ? 3 : 30));
                needs.push_back({random() % 5 ? random() % 100000 : 0, step, random() % 20 ? last : -1});
            }
        const std::size_t total = lay_out(a, needs);
        waste += static_cast<double>(total) / static_cast<double>(std::max<std::size_t>(a.least(), 1)) - 1;
    }
    EXPECT_LT(waste / 200, 0.08);
}
TEST(ArenaLayout, RefusesWhatNoMemoryHolds) {
    ArenaLayout a;
    for (int i = 0; i < 3; ++i) a.take(SIZE_MAX / 4, i);
    try {
        a.place();
        FAIL();
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::out_of_memory);
    }
}
}  // namespace
