// Rotary embedding spelled out: what becomes the operator, what must not, where it goes, and that answers stay.
#include <cmath>

#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

/// x [N, S, 6 * 8], angles [N, S, 4] twice in a row as exporters have them.
struct Rope {
    ModelBuilder b;
    bool split = false, swapped = false, other_angles = false, other_half = false, read_again = false, negated_first = false, one_batch = false;

    Rope& build() {
        b.input("x", DType::f32, {"N", "S", "48"}).input("a", DType::f32, {one_batch ? "1" : "N", "S", "4"});
        b.constant("heads", ints({4}, {0, 0, 6, 8})).constant("one", ints({1}, {1})).constant("factor", floats({}, {1.5f}));
        b.constant("zero", ints({1}, {0})).constant("four", ints({1}, {4})).constant("end", ints({1}, {1 << 30})).constant("last", ints({1}, {3})).constant("halves", ints({2}, {4, 4}));
        b.node("Reshape", {"x", "heads"}, {"x4"}).node("Transpose", {"x4"}, {"h"}, {attribute_ints("perm", {0, 2, 1, 3})});
        if (other_angles) b.node("Neg", {"a"}, {"a2"});
        b.node("Concat", {"a", other_angles ? "a2" : "a"}, {"aa"}, {attribute_i("axis", -1)});
        b.node("Cos", {"aa"}, {"c0"}).node("Mul", {"c0", "factor"}, {"c1"}).node("Unsqueeze", {"c1", "one"}, {"c"});
        b.node("Sin", {"aa"}, {"s0"}).node("Mul", {"factor", "s0"}, {"s1"}).node("Unsqueeze", {"s1", "one"}, {"s"});
        if (split) b.node("Split", {"h", "halves"}, {"h1", "h2"}, {attribute_i("axis", 3)});
        else b.node("Slice", {"h", "zero", "four", "last"}, {"h1"}).node("Slice", {"h", other_half ? "zero" : "four", other_half ? "four" : "end", "last"}, {"h2"});
        b.node("Neg", {negated_first ? "h1" : "h2"}, {"m"}).node("Concat", {"m", negated_first ? "h2" : "h1"}, {"r"}, {attribute_i("axis", 3)});
        if (swapped) b.node("Mul", {"c", "h"}, {"hc"}).node("Mul", {"s", "r"}, {"rs"}).node("Add", {"rs", "hc"}, {"y"});
        else b.node("Mul", {"h", "c"}, {"hc"}).node("Mul", {"r", "s"}, {"rs"}).node("Add", {"hc", "rs"}, {"y"});
        if (read_again) b.output("r");
        b.output("y");
        return *this;
    }
    std::vector<quern::NamedTensor> in() const { return {{"x", ramp({one_batch ? 1 : 2, 7, 48})}, {"a", ramp({one_batch ? 1 : 2, 7, 4}, 0.3f)}}; }
};

TEST(PatternRotary, EachSpelling) {
    for (bool split : {false, true})
        for (bool swapped : {false, true}) {
            Rope r;
            r.split = split, r.swapped = swapped;
            std::string text = after(r.build().b, "patterns");
            EXPECT_EQ(count(text, "= RotaryEmbedding("), 1) << text;
            EXPECT_EQ(count(text, "= Concat(") + count(text, "= Neg(") + count(text, "= Slice(") + count(text, "= Split("), 0) << text;
            EXPECT_EQ(count(text, "num_heads=6"), 1) << text;
            same_answer(r.b, r.in());
        }
}
TEST(PatternRotary, WhatIsNoRotationStays) {
    for (int which = 0; which < 4; ++which) {
        Rope r;
        if (which == 0) r.other_angles = true;
        if (which == 1) r.other_half = true;
        if (which == 2) r.read_again = true;
        if (which == 3) r.negated_first = true;
        EXPECT_EQ(count(after(r.build().b, "patterns"), "= RotaryEmbedding("), 0) << which;
        same_answer(r.b, r.in());
    }
}
TEST(PatternRotary, AnglesOfOneBatchAreThoseOfAll) {
    Rope r;
    r.one_batch = true;
    r.build();
    r.b.node("Relu", {"h"}, {"k"}).node("Mul", {"k", "c"}, {"hc2"}).node("Split", {"k", "halves"}, {"k1", "k2"}, {attribute_i("axis", 3)}).node("Neg", {"k2"}, {"m2"});
    r.b.node("Concat", {"m2", "k1"}, {"r2"}, {attribute_i("axis", 3)}).node("Mul", {"r2", "s"}, {"rs2"}).node("Add", {"rs2", "hc2"}, {"z"}).output("z");
    std::string text = after(r.b, "patterns");
    EXPECT_EQ(count(text, "= RotaryEmbedding("), 2) << text;
    EXPECT_EQ(count(text, "= Expand("), 2) << text;  // once for all that turn
    for (std::int64_t n : {1, 3}) same_answer(r.b, {{"x", ramp({n, 7, 48})}, {"a", ramp({1, 7, 4}, 0.3f)}});
}
TEST(PatternRotary, AnglesAreHalvedOnce) {
    Rope r;
    r.build();
    r.b.node("Relu", {"h"}, {"k"}).node("Mul", {"k", "c"}, {"hc2"}).node("Split", {"k", "halves"}, {"k1", "k2"}, {attribute_i("axis", 3)}).node("Neg", {"k2"}, {"m2"});
    r.b.node("Concat", {"m2", "k1"}, {"r2"}, {attribute_i("axis", 3)}).node("Mul", {"r2", "s"}, {"rs2"}).node("Add", {"rs2", "hc2"}, {"z"}).output("z");
    std::string text = after(r.b, "patterns");
    EXPECT_EQ(count(text, "= RotaryEmbedding("), 2) << text;
    EXPECT_EQ(count(text, "= Cos(") + count(text, "= Sin("), 2) << text;
    same_answer(r.b, r.in());
}
TEST(PatternRotary, TheOperatorGoesBeforeWhatMovesHeads) {
    for (bool read_again : {false, true}) {
        ModelBuilder b(23);
        b.input("x", DType::f32, {"N", "S", "48"}).input("c", DType::f32, {"9", "3"}).input("s", DType::f32, {"9", "3"}).input("p", DType::i64, {"N", "S"}).constant("heads", ints({4}, {0, 0, 6, 8}));
        b.node("Reshape", {"x", "heads"}, {"x4"}).node("Transpose", {"x4"}, {"h"}, {attribute_ints("perm", {0, 2, 1, 3})});
        b.node("RotaryEmbedding", {"h", "c", "s", "p"}, {"y"}, {attribute_i("rotary_embedding_dim", 6), attribute_i("interleaved", 1)}).output("y");
        if (read_again) b.output("h");
        std::string text = after(b, "patterns");
        EXPECT_EQ(count(text, "num_heads=6"), read_again ? 0 : 1) << text;
        same_answer(b, {{"x", ramp({2, 3, 48})}, {"c", ramp({9, 3})}, {"s", ramp({9, 3}, 0.2f)}, {"p", ints({2, 3}, {0, 8, 1, 7, 2, 2})}});
    }
}

/// GPT-NeoX, Phi, StableLM: of 6 heads of 8 values [N, S, 48] the first 4 turn by halves; the rest goes behind them.
struct PartOfHead {
    ModelBuilder b{23};
    bool split = false, operator_ = false;
    enum { whole, other_rest, gap, rest_first, part_read, no_rest } form = whole;
    bool table = false, halves_differ = false;  // cosines and sines from a table of each position

    PartOfHead& build() {
        b.input("x", DType::f32, {"N", "S", "48"}).input("a", DType::f32, {"N", "S", "2"}).input("ids", DType::i64, {"N", "S"});
        b.constant("heads", ints({4}, {0, 0, 6, 8})).constant("one", ints({1}, {1})).constant("zero", ints({1}, {0})).constant("two", ints({1}, {2})).constant("four", ints({1}, {4}));
        b.constant("five", ints({1}, {5})).constant("end", ints({1}, {1 << 30})).constant("last", ints({1}, {-1})).constant("parts", ints({2}, {4, 4})).constant("halves", ints({2}, {2, 2}));
        b.node("Reshape", {"x", "heads"}, {"x4"}).node("Transpose", {"x4"}, {"h"}, {attribute_ints("perm", {0, 2, 1, 3})});
        if (split) b.node("Split", {"h", "parts"}, {"first", "rest"}, {attribute_i("axis", 3)});
        else b.node("Slice", {"h", "zero", "four", "last"}, {"first"}).node("Slice", {"h", form == gap ? "five" : "four", "end", "last"}, {"rest"});
        if (form == other_rest) b.node("Relu", {"h"}, {"other"}).node("Slice", {"other", "four", "end", "last"}, {"rest2"});
        if (operator_) {
            b.node("Cos", {"a"}, {"c"}).node("Sin", {"a"}, {"s"}).node("RotaryEmbedding", {"first", "c", "s"}, {"y"}, {attribute_i("num_heads", 6)});
        } else {
            if (table) {
                Tensor cosines(DType::f32, {9, 4}), sines(DType::f32, {9, 4});
                for (int i = 0; i < 36; ++i) cosines.data<float>()[i] = std::cos(0.3f * float(i / 4 + i % 2)), sines.data<float>()[i] = std::sin(0.3f * float(i / 4 + i % 2));
                if (halves_differ) sines.data<float>()[35] += 1;
                b.constant("cosines", cosines).constant("sines", sines).node("Gather", {"cosines", "ids"}, {"c3"}).node("Gather", {"sines", "ids"}, {"s3"});
            } else {
                b.node("Concat", {"a", "a"}, {"aa"}, {attribute_i("axis", -1)}).node("Cos", {"aa"}, {"c3"}).node("Sin", {"aa"}, {"s3"});
            }
            b.node("Unsqueeze", {"c3", "one"}, {"c"}).node("Unsqueeze", {"s3", "one"}, {"s"});
            b.node("Split", {"first", "halves"}, {"h1", "h2"}, {attribute_i("axis", -1)}).node("Neg", {"h2"}, {"m"}).node("Concat", {"m", "h1"}, {"r"}, {attribute_i("axis", -1)});
            b.node("Mul", {"first", "c"}, {"hc"}).node("Mul", {"r", "s"}, {"rs"}).node("Add", {"hc", "rs"}, {"y"});
        }
        if (form == rest_first) b.node("Concat", {"rest", "y"}, {"z"}, {attribute_i("axis", -1)}).output("z");
        else if (form == no_rest) b.node("Concat", {"y", "first"}, {"z"}, {attribute_i("axis", -1)}).output("z");
        else b.node("Concat", {"y", form == other_rest ? "rest2" : "rest"}, {"z"}, {attribute_i("axis", -1)}).output("z");
        if (form == part_read) b.output("y");
        return *this;
    }
    std::vector<quern::NamedTensor> in() const { return {{"x", ramp({2, 3, 48})}, {"a", ramp({2, 3, 2}, 0.3f)}, {"ids", ints({2, 3}, {0, 8, 1, 7, 2, 2})}}; }
};
TEST(PatternRotary, PartOfHeads) {
    for (int spelling = 0; spelling < 6; ++spelling) {
        PartOfHead p;
        p.split = spelling % 2, p.operator_ = spelling >= 4, p.table = spelling / 2 == 1;
        std::string text = after(p.build().b, "patterns");
        EXPECT_EQ(count(text, "= RotaryEmbedding("), 1) << text;
        EXPECT_EQ(count(text, "rotary_embedding_dim=4"), 1) << text;
        EXPECT_EQ(count(text, "num_heads=6"), 1) << text;  // before the heads are moved apart
        EXPECT_EQ(count(text, "= Concat(") + count(text, "= Neg(") + count(text, "= Slice(") + count(text, "= Split("), 0) << text;
        same_answer(p.b, p.in());
    }
}
TEST(PatternRotary, WhatIsNoPartOfHeadsStays) {
    for (auto form : {PartOfHead::other_rest, PartOfHead::gap, PartOfHead::rest_first, PartOfHead::part_read, PartOfHead::no_rest})
        for (bool as_operator : {false, true}) {
            PartOfHead p;
            p.form = form, p.operator_ = as_operator;
            std::string text = after(p.build().b, "patterns");
            EXPECT_EQ(count(text, "rotary_embedding_dim"), 0) << form << text;
            EXPECT_EQ(count(text, "= RotaryEmbedding("), 1) << form << text;  // of the part
            EXPECT_EQ(count(text, "= Concat("), 1) << form << text;
            same_answer(p.b, p.in());
        }
    PartOfHead p;  // a table whose halves are not the same
    p.table = p.halves_differ = true;
    EXPECT_EQ(count(after(p.build().b, "patterns"), "= RotaryEmbedding("), 0);
    same_answer(p.b, p.in());
}

/// GPT-J: pairs turn, heads stand behind positions: x [N, S, 48] as [N, S, 6, 8], the first `turns` values of each.
struct Pairs {
    ModelBuilder b;
    int turns = 4;
    bool expand = false, columns = false, table = false, constant_differs = false;
    enum { right, other_sign, odd_first, halves_of_table, other_value } form = right;

    Pairs& build() {
        const std::int64_t half = turns / 2;
        b.input("x", DType::f32, {"N", "S", "48"}).input("c0", DType::f32, {"N", "S", std::to_string(half)}).input("s0", DType::f32, {"N", "S", std::to_string(half)}).input("ids", DType::i64, {"N", "S"});
        b.constant("heads", ints({4}, {0, 0, 6, 8})).constant("zero", ints({1}, {0})).constant("one", ints({1}, {1})).constant("two", ints({1}, {2})).constant("end", ints({1}, {1 << 30})).constant("last", ints({1}, {3}));
        b.constant("cut", ints({1}, {turns})).constant("third", ints({1}, {2})).constant("final", ints({1}, {-1})).constant("both", ints({2}, {2, 4})).constant("twice", ints({5}, {1, 1, 1, 1, 2}));
        b.constant("flat", ints({4}, {0, 0, 1, turns})).constant("back", ints({4}, {0, 0, 6, turns})).constant("paired", ints({5}, {0, 0, 6, half, 2})).constant("n0", ints({}, {0})).constant("n1", ints({}, {1}));
        b.node("Reshape", {"x", "heads"}, {"h"});
        if (turns < 8) b.node("Slice", {"h", "zero", "cut", "last"}, {"first"}).node("Slice", {"h", "cut", "end", "last"}, {"rest"});
        else b.node("Identity", {"h"}, {"first"});
        for (std::string t : {"c", "s"}) {
            if (table) {
                Tensor all(DType::f32, {9, turns});
                for (int i = 0; i < 9 * turns; ++i) all.data<float>()[i] = std::sin(0.3f * float(i / 2 + (t == "c" ? 5 : 0)));
                if (constant_differs) all.data<float>()[1] += 1;
                b.constant(t + "all", all).node("Gather", {t + "all", "ids"}, {t + "2"}).node("Unsqueeze", {t + "2", "third"}, {t});
            } else if (form == halves_of_table) {
                b.node("Concat", {t + "0", t + "0"}, {t + "2"}, {attribute_i("axis", 2)}).node("Unsqueeze", {t + "2", "third"}, {t});
            } else {
                b.node("Unsqueeze", {t + "0", "both"}, {t + "1"});
                if (expand) b.node("Expand", {t + "1", "twice"}, {t + "2"});
                else b.node("Tile", {t + "1", "twice"}, {t + "2"});
                b.node("Reshape", {t + "2", "flat"}, {t});
            }
        }
        if (form == other_value) b.node("Relu", {"first"}, {"other"});
        const std::string of = form == other_value ? "other" : "first";
        if (columns) b.node("Reshape", {of, "paired"}, {"h5"}).node("Gather", {"h5", "n0"}, {"even"}, {attribute_i("axis", -1)}).node("Gather", {"h5", "n1"}, {"odd"}, {attribute_i("axis", 4)});
        else b.node("Slice", {of, "zero", "end", "last", "two"}, {"even"}).node("Slice", {of, "one", "end", "last", "two"}, {"odd"});
        b.node("Neg", {form == other_sign ? "even" : "odd"}, {"m"});
        const char* second = form == other_sign ? "odd" : "even";
        b.node("Unsqueeze", {"m", "final"}, {"m5"}).node("Unsqueeze", {second, "final"}, {"e5"});
        if (form == odd_first) b.node("Concat", {"e5", "m5"}, {"r5"}, {attribute_i("axis", -1)});
        else b.node("Concat", {"m5", "e5"}, {"r5"}, {attribute_i("axis", -1)});
        b.node("Reshape", {"r5", "back"}, {"r"}).node("Mul", {"first", "c"}, {"hc"}).node("Mul", {"r", "s"}, {"rs"}).node("Add", {"hc", "rs"}, {"y"});
        if (turns < 8) b.node("Concat", {"y", "rest"}, {"z"}, {attribute_i("axis", -1)});
        else b.node("Identity", {"y"}, {"z"});
        b.output("z");
        return *this;
    }
    std::vector<quern::NamedTensor> in() const {
        return {{"x", ramp({2, 3, 48})}, {"c0", ramp({2, 3, turns / 2}, 0.3f)}, {"s0", ramp({2, 3, turns / 2}, 0.2f)}, {"ids", ints({2, 3}, {0, 8, 1, 7, 2, 2})}};
    }
};
TEST(PatternRotary, PairsOfHeadsBehindPositions) {
    for (int turns : {4, 8})
        for (int spelling = 0; spelling < 8; ++spelling) {
            Pairs p;
            p.turns = turns, p.expand = spelling & 1, p.columns = spelling & 2, p.table = spelling & 4;
            std::string text = after(p.build().b, "patterns");
            EXPECT_EQ(count(text, "= RotaryEmbedding("), 1) << text;
            EXPECT_EQ(count(text, "interleaved=1"), 1) << text;
            EXPECT_EQ(count(text, "num_heads=6"), 1) << text;
            EXPECT_EQ(count(text, "rotary_embedding_dim=4"), turns == 4) << text;
            EXPECT_EQ(count(text, "= Concat(") + count(text, "= Neg(") + count(text, "= Slice(") + count(text, "= Tile(") + count(text, "= Expand(") + count(text, "= Mul("), 0) << text;
            same_answer(p.b, p.in());
        }
}
TEST(PatternRotary, WhatTurnsNoPairsStays) {
    for (auto form : {Pairs::other_sign, Pairs::odd_first, Pairs::halves_of_table, Pairs::other_value}) {
        Pairs p;
        p.form = form;
        EXPECT_EQ(count(after(p.build().b, "patterns"), "= RotaryEmbedding("), 0) << form;
        same_answer(p.b, p.in());
    }
    Pairs p;
    p.table = p.constant_differs = true;
    EXPECT_EQ(count(after(p.build().b, "patterns"), "= RotaryEmbedding("), 0);
    same_answer(p.b, p.in());
}

}  // namespace
