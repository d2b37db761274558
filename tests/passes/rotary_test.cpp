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
    Rope r;  // angles of one batch for all: the operator has them for each
    r.one_batch = true;
    EXPECT_EQ(count(after(r.build().b, "patterns"), "= RotaryEmbedding("), 0);
    same_answer(r.b, r.in());
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

}  // namespace
