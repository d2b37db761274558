#include <gtest/gtest.h>

#include <quern/graph/dim.hpp>

using namespace quern;

TEST(Dim, NormalFormMakesEqualThingsEqual) {
    Dim n = Dim::symbol("N"), s = Dim::symbol("S");
    EXPECT_EQ(n + s, s + n);
    EXPECT_EQ(n * s * 2, s * 2 * n);
    EXPECT_EQ((n + 1) * (n - 1), n * n - 1);
    EXPECT_TRUE((n - n).is(0));
    EXPECT_FALSE(n == s);
    EXPECT_EQ((n * s * 768).to_string(), "768*N*S");
}
TEST(Dim, DivisionIsExactWhereThePolynomialDivides) {
    Dim n = Dim::symbol("N"), s = Dim::symbol("S");
    EXPECT_EQ(floor_div(n * s * 768, n * 64), s * 12);
    EXPECT_EQ(floor_div((n + s) * (n + 2), n + 2), n + s);
    EXPECT_EQ(floor_div(Dim(7), Dim(2)), Dim(3));
    EXPECT_EQ(floor_div(Dim(-7), Dim(2)), Dim(-4));
    EXPECT_EQ(ceil_div(Dim(7), Dim(2)), Dim(4));
    EXPECT_FALSE(floor_div(n, 2).is_const());
    EXPECT_THROW(floor_div(n, 0), Error);
}
TEST(Dim, ComparisonKnowsThatSymbolsAreNotNegative) {
    Dim n = Dim::symbol("N");
    EXPECT_EQ(compare(n, -1), 1);
    EXPECT_EQ(compare(n, 0), 2);
    EXPECT_EQ(compare(n + 1, 0), 1);
    EXPECT_EQ(compare(n, n), 0);
    EXPECT_EQ(max(n + 3, n), n + 3);
    EXPECT_EQ(min(n, 0), Dim(0));
}
TEST(Dim, BroadcastTakesTheOtherOneOfOne) {
    Dim n = Dim::symbol("N");
    EXPECT_EQ(broadcast(n, 1), n);
    EXPECT_EQ(broadcast(n, 5), Dim(5));
    EXPECT_THROW(broadcast(Dim(3), Dim(4)), Error);
}
TEST(Dim, ProgramsEvaluateWithoutWhatIsUnknown) {
    Dim n = Dim::symbol("N"), s = Dim::symbol("S");
    DimProgram p;
    int a = p.add(n * 2 + 1), b = p.add(floor_div(n + s, 3)), c = p.add(broadcast(n, s));
    std::vector<std::int64_t> v(p.size(), DimProgram::unknown);
    v[p.symbol_slot("N")] = 4;
    p.evaluate(v.data(), 0, p.size());
    EXPECT_EQ(v[a], 9);
    EXPECT_EQ(v[b], DimProgram::unknown);
    v[p.symbol_slot("S")] = 1;
    p.evaluate(v.data(), 0, p.size());
    EXPECT_EQ(v[b], 1);
    EXPECT_EQ(v[c], 4);
    v[p.symbol_slot("S")] = 3;
    EXPECT_THROW(p.evaluate(v.data(), 0, p.size()), Error);
}
TEST(Dim, OverflowIsAnError) {
    Dim big(INT64_MAX);
    EXPECT_THROW(big + 1, Error);
    EXPECT_THROW(big * 2, Error);
}
TEST(Dim, LongExpressionsBecomeOpaqueAndStillEvaluate) {
    Dim sum = 0, product = 1;
    for (int i = 0; i < 40; ++i) sum += Dim::symbol("s" + std::to_string(i)) * Dim(i + 1);
    product = sum * sum * (sum + 1);
    DimProgram p;
    int slot = p.add(product);
    std::vector<std::int64_t> v(p.size(), DimProgram::unknown);
    for (auto& [name, s] : p.symbols()) v[s] = 1;
    p.evaluate(v.data(), 0, p.size());
    EXPECT_EQ(v[slot], std::int64_t{820} * 820 * 821);
}
