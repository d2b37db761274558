// Which attention blocks become one node, which must not, and that answers stay.
#include <cmath>

#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

Tensor wave(quern::Shape shape, float step = 0.7f, float scale = 1) {
    Tensor x(DType::f32, shape);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = scale * std::sin(step * float(i) + 0.1f * float(i % 5));
    return x;
}
Tensor number(float v) { return floats({}, {v}); }

/// `n` fused nodes and nothing that moves data but `transposes` and `copies`; the answer is that of the graph as it was.
void expect_fused(ModelBuilder& b, int n, int transposes, const std::vector<quern::NamedTensor>& in) {
    std::string text = after(b, "attention");
    EXPECT_EQ(count(text, "quern::FusedAttention("), n) << text;
    if (n > 0) {
        EXPECT_EQ(count(text, "= Softmax("), 0) << text;
        EXPECT_EQ(count(text, "= Transpose("), transposes) << text;
        EXPECT_EQ(count(text, "= Gather(") + count(text, "= Split(") + count(text, "= Slice(") + count(text, "= Expand("), 0) << text;
    }
    auto plain = b.run(in, {.optimize = false}), full = b.run(in), two = b.run(in, {.threads = 2});
    ASSERT_EQ(plain.size(), full.size());
    for (std::size_t o = 0; o < plain.size(); ++o) {
        expect_near(full[o], plain[o], 2e-5, 2e-6);
        expect_near(two[o], full[o], 0, 0);
    }
}
/// q, k, v [N, S, 6 * 8] as heads: qh, vh [N, 6, S, 8] and kt [N, 6, 8, S].
ModelBuilder heads(bool mask_input = false) {
    ModelBuilder b;
    for (const char* x : {"q", "k", "v"}) b.input(x, DType::f32, {"N", "S", "48"});
    if (mask_input) b.input("mask", DType::f32, {"N", "1", "1", "S"});
    b.constant("split", ints({4}, {0, 0, 6, 8})).constant("join", ints({3}, {0, 0, 48})).constant("factor", number(0.35f)).constant("eight", number(2.8f));
    for (std::string x : {"q", "k", "v"}) b.node("Reshape", {x, "split"}, {x + "4"});
    b.node("Transpose", {"q4"}, {"qh"}, {attribute_ints("perm", {0, 2, 1, 3})}).node("Transpose", {"v4"}, {"vh"}, {attribute_ints("perm", {0, 2, 1, 3})});
    b.node("Transpose", {"k4"}, {"kt"}, {attribute_ints("perm", {0, 2, 3, 1})});
    return b;
}
ModelBuilder& join(ModelBuilder& b, const std::string& probabilities) {
    b.node("MatMul", {probabilities, "vh"}, {"o"}).node("Transpose", {"o"}, {"ot"}, {attribute_ints("perm", {0, 2, 1, 3})});
    return b.node("Reshape", {"ot", "join"}, {"y"}).output("y");
}
const std::vector<quern::NamedTensor> qkv = {{"q", wave({2, 21, 48})}, {"k", wave({2, 21, 48}, 0.4f)}, {"v", wave({2, 21, 48}, 1.1f)}};
std::vector<quern::NamedTensor> with(std::vector<quern::NamedTensor> in, std::string name, Tensor t) {
    in.emplace_back(std::move(name), std::move(t));
    return in;
}

TEST(PatternAttention, ScaledBeforeWithAMask) {
    auto b = heads(true);
    b.node("Mul", {"qh", "factor"}, {"qs"}).node("Mul", {"kt", "factor"}, {"ks"}).node("MatMul", {"qs", "ks"}, {"s"}).node("Add", {"s", "mask"}, {"m"});
    b.node("Softmax", {"m"}, {"p"}, {attribute_i("axis", -1)});
    expect_fused(join(b, "p"), 1, 0, with(qkv, "mask", wave({2, 1, 1, 21}, 2, 3)));
}
TEST(PatternAttention, ScaledAfterWithoutAMask) {
    auto b = heads();
    b.node("MatMul", {"qh", "kt"}, {"s"}).node("Div", {"s", "eight"}, {"m"}).node("Softmax", {"m"}, {"p"}, {attribute_i("axis", 3)});
    expect_fused(join(b, "p"), 1, 0, qkv);
}
TEST(PatternAttention, AQueryWithoutKeysGivesZerosWhereTheModelSaysSo) {
    for (bool guarded : {false, true}) {
        auto b = heads(true);
        b.constant("zero", number(0)).node("MatMul", {"qh", "kt"}, {"s"}).node("Add", {"mask", "s"}, {"m"}).node("Softmax", {"m"}, {"p"}, {attribute_i("axis", -1)});
        if (guarded) b.node("IsNaN", {"p"}, {"nan"}).node("Where", {"nan", "zero", "p"}, {"pz"});
        Tensor mask = wave({2, 1, 1, 21});
        for (int i = 0; i < 21; ++i) mask.data<float>()[i] = -INFINITY;
        expect_fused(join(b, guarded ? "pz" : "p"), 1, 0, with(qkv, "mask", mask));
    }
}
TEST(PatternAttention, OneProjectionForAllThree) {
    ModelBuilder b;  // torch.nn.MultiheadAttention: [S, N, 3 * 24], heads beside the batch
    b.input("x", DType::f32, {"S", "N", "72"}).constant("parts", ints({4}, {0, 0, 3, 24})).constant("zero", ints({}, {0})).constant("one", ints({}, {1})).constant("two", ints({}, {2}));
    b.constant("flat", ints({3}, {0, -1, 8})).constant("four", ints({4}, {-1, 3, 0, 8})).constant("factor", number(0.35f)).constant("back", ints({3}, {0, -1, 24}));
    b.node("Reshape", {"x", "parts"}, {"x4"}).node("Transpose", {"x4"}, {"xt"}, {attribute_ints("perm", {2, 0, 1, 3})});
    int i = 0;
    for (std::string n : {"q", "k", "v"}) {
        b.node("Gather", {"xt", i == 0 ? "zero" : i == 1 ? "one" : "two"}, {n}, {attribute_i("axis", 0)}).node("Reshape", {n, "flat"}, {n + "f"});
        b.node("Transpose", {n + "f"}, {n + "t"}, {attribute_ints("perm", {1, 0, 2})});
        ++i;
    }
    b.node("Transpose", {"kt"}, {"kk"}, {attribute_ints("perm", {0, 2, 1})}).node("Mul", {"qt", "factor"}, {"qs"}).node("MatMul", {"qs", "kk"}, {"s"});
    b.node("Softmax", {"s"}, {"p"}, {attribute_i("axis", -1)}).node("MatMul", {"p", "vt"}, {"o"}).node("Transpose", {"o"}, {"ot"}, {attribute_ints("perm", {1, 0, 2})});
    b.node("Reshape", {"ot", "back"}, {"y"}).output("y");
    expect_fused(b, 1, 0, {{"x", wave({19, 2, 72})}});
}
TEST(PatternAttention, WindowsWithTwoMasks) {
    ModelBuilder b;  // 4 windows an image, 3 heads, 9 positions; the second mask is one for each window
    b.input("x", DType::f32, {"N", "4", "9", "72"}).constant("windows", ints({3}, {-1, 9, 72})).constant("five", ints({5}, {-1, 9, 3, 3, 8}));
    b.constant("zero", ints({}, {0})).constant("one", ints({}, {1})).constant("two", ints({}, {2})).constant("bias", wave({1, 3, 9, 9})).constant("shift", wave({1, 4, 1, 9, 9}, 0.3f));
    b.constant("apart", ints({5}, {-1, 4, 3, 9, 9})).constant("together", ints({4}, {-1, 3, 9, 9})).constant("factor", number(0.35f)).constant("back", ints({3}, {-1, 9, 24}));
    b.node("Reshape", {"x", "windows"}, {"w"}).node("Reshape", {"w", "five"}, {"w5"}).node("Transpose", {"w5"}, {"wt"}, {attribute_ints("perm", {2, 0, 3, 1, 4})});
    for (std::string n : {"q", "k", "v"}) b.node("Gather", {"wt", n == "q" ? "zero" : n == "k" ? "one" : "two"}, {n}, {attribute_i("axis", 0)});
    b.node("Transpose", {"k"}, {"kt"}, {attribute_ints("perm", {0, 1, 3, 2})}).node("Mul", {"q", "factor"}, {"qs"}).node("MatMul", {"qs", "kt"}, {"s"}).node("Add", {"s", "bias"}, {"s1"});
    b.node("Reshape", {"s1", "apart"}, {"s2"}).node("Add", {"s2", "shift"}, {"s3"}).node("Reshape", {"s3", "together"}, {"s4"}).node("Softmax", {"s4"}, {"p"}, {attribute_i("axis", -1)});
    b.node("MatMul", {"p", "v"}, {"o"}).node("Transpose", {"o"}, {"ot"}, {attribute_ints("perm", {0, 2, 1, 3})}).node("Reshape", {"ot", "back"}, {"y"}).output("y");
    expect_fused(b, 1, 0, {{"x", wave({2, 4, 9, 72})}});
}
TEST(PatternAttention, HeadsThatAreRepeated) {
    for (std::int64_t length : {1, 12}) {
        ModelBuilder b;  // 6 heads of queries, 2 of keys that grow
        b.input("q", DType::f32, {"N", "S", "48"}).input("past", DType::f32, {"N", "2", "P", "8"}).input("now", DType::f32, {"N", "2", "S", "8"});
        b.constant("split", ints({4}, {0, 0, 6, 8})).constant("axis", ints({1}, {2})).constant("more", ints({5}, {1, 1, 3, 1, 1})).constant("six", ints({4}, {0, 6, -1, 8})).constant("join", ints({3}, {0, 0, 48}));
        b.node("Concat", {"past", "now"}, {"k"}, {attribute_i("axis", 2)}).node("Unsqueeze", {"k", "axis"}, {"k5"}).node("Expand", {"k5", "more"}, {"ke"}).node("Reshape", {"ke", "six"}, {"kh"});
        b.node("Reshape", {"q", "split"}, {"q4"}).node("Transpose", {"q4"}, {"qh"}, {attribute_ints("perm", {0, 2, 1, 3})}).node("Transpose", {"kh"}, {"kt"}, {attribute_ints("perm", {0, 1, 3, 2})});
        b.node("MatMul", {"qh", "kt"}, {"s"}).node("Softmax", {"s"}, {"p"}, {attribute_i("axis", -1)}).node("MatMul", {"p", "kh"}, {"o"});
        b.node("Transpose", {"o"}, {"ot"}, {attribute_ints("perm", {0, 2, 1, 3})}).node("Reshape", {"ot", "join"}, {"y"}).output("y").output("k");
        expect_fused(b, 1, 0, {{"q", wave({2, length, 48})}, {"past", wave({2, 2, 40, 8}, 0.4f)}, {"now", wave({2, 2, length, 8}, 0.2f)}});
    }
}
/// Decoders: one projection for all, rotated queries and keys, caches that grow; `form` 0: as it should be.
ModelBuilder decoder(int form) {
    ModelBuilder b(23);
    b.input("x", DType::f32, {"N", "S", "80"}).input("pk", DType::f32, {"N", "2", "P", "8"}).input("pv", DType::f32, {"N", "2", "P", "8"}).input("c", DType::f32, {"N", "S", "4"}).input("s", DType::f32, {"N", "S", "4"});
    b.constant("sizes", ints({3}, {48, 16, 16})).constant("six", ints({4}, {0, 0, 6, 8})).constant("two", ints({4}, {0, 0, 2, 8})).constant("join", ints({3}, {0, 0, 48}));
    b.node("Split", {"x", "sizes"}, {"q", "k", "v"}, {attribute_i("axis", 2)});
    b.node("Reshape", {"q", "six"}, {"q4"}).node("Transpose", {"q4"}, {"qh"}, {attribute_ints("perm", {0, 2, 1, 3})}).node("RotaryEmbedding", {"qh", "c", "s"}, {"qr"});
    b.node("Reshape", {"k", "two"}, {"k4"}).node("Transpose", {"k4"}, {"kh"}, {attribute_ints("perm", {0, 2, 1, 3})}).node("RotaryEmbedding", {"kh", "c", "s"}, {"kr"});
    b.node("Reshape", {"v", "two"}, {"v4"}).node("Transpose", {"v4"}, {"vh"}, {attribute_ints("perm", {0, 2, 1, 3})});
    if (form == 1) b.output("kr");
    b.node("Concat", {form == 2 ? "kr" : "pk", form == 2 ? "pk" : "kr"}, {"ka"}, {attribute_i("axis", 2)}).node("Concat", {"pv", "vh"}, {"va"}, {attribute_i("axis", form == 3 ? 0 : -2)}).output("ka").output("va");
    if (form == 3) return b;
    b.node("Attention", {"qr", "ka", "va"}, {"o"}).node("Transpose", {"o"}, {"ot"}, {attribute_ints("perm", {0, 2, 1, 3})}).node("Reshape", {"ot", "join"}, {"y"}).output("y");
    return b;
}
TEST(PatternAttention, CachesTakeRowsFromTheProjection) {
    for (int form = 0; form < 4; ++form) {
        auto b = decoder(form);
        std::string text = after(b, "attention");
        EXPECT_EQ(count(text, "= quern::AppendToCache("), form == 0 || form == 1 ? 2 : 1) << form << text;
        if (form == 0) {
            EXPECT_EQ(count(text, "= RotaryEmbedding("), 0) << text;
            EXPECT_EQ(count(text, "= Transpose(") + count(text, "= Concat("), 0) << text;
            EXPECT_EQ(count(text, "quern::FusedAttention("), 1) << text;
        }
        if (form == 1) { EXPECT_EQ(count(text, "= RotaryEmbedding("), 1) << text; }  // somebody reads the rotated keys
        for (std::int64_t past : {0, 21})
            for (std::int64_t length : {1, 5}) {
                if (form == 3 && past != length) continue;
                same_answer(b, {{"x", wave({2, length, 80})}, {"pk", wave({2, 2, past, 8}, 0.4f)}, {"pv", wave({2, 2, past, 8}, 0.3f)}, {"c", wave({2, length, 4}, 1.3f)}, {"s", wave({2, length, 4}, 0.9f)}});
            }
    }
}
/// GPT-NeoX (`joined`: q, k, v of a head side by side; halves turn) and GPT-J (heads behind positions; pairs turn): half of each head turns, caches grow.
ModelBuilder partial_decoder(bool joined, bool by_ids, bool rest_of_queries_elsewhere = false) {
    ModelBuilder b(23);
    b.input("x", DType::f32, {"N", "S", "144"}).input("pk", DType::f32, {"N", "6", "P", "8"}).input("pv", DType::f32, {"N", "6", "P", "8"});
    if (by_ids) b.input("c", DType::f32, {"9", "2"}).input("s", DType::f32, {"9", "2"}).input("ids", DType::i64, {"N", "S"});
    else b.input("c", DType::f32, {"N", "S", "2"}).input("s", DType::f32, {"N", "S", "2"});
    b.constant("sizes", ints({3}, {48, 48, 48})).constant("parts", ints({2}, {4, 4})).constant("six", ints({4}, {0, 0, 6, 8})).constant("six24", ints({4}, {0, 0, 6, 24})).constant("join", ints({3}, {0, 0, 48}));
    b.constant("each", ints({3}, {8, 8, 8})).constant("flat", ints({3}, {0, 0, 24})).constant("apart", ints({4}, {0, 0, 6, 4})).constant("factor", number(0.35f));
    const std::vector<std::int64_t> perm = {0, 2, 1, 3};
    if (joined) b.node("Reshape", {"x", "six24"}, {"x4"}).node("Transpose", {"x4"}, {"xt"}, {attribute_ints("perm", perm)}).node("Split", {"xt", "each"}, {"qh", "kh", "vh"}, {attribute_i("axis", 3)});
    else b.node("Split", {"x", "sizes"}, {"q", "k", "v"}, {attribute_i("axis", 2)}).node("Reshape", {"v", "six"}, {"v4"}).node("Transpose", {"v4"}, {"vh"}, {attribute_ints("perm", perm)});
    if (rest_of_queries_elsewhere) b.node("Relu", {"x"}, {"xr"}).node("Reshape", {"xr", "six24"}, {"xr4"}).node("Transpose", {"xr4"}, {"xrt"}, {attribute_ints("perm", perm)}).node("Split", {"xrt", "each"}, {"qo", "ko", "vo"}, {attribute_i("axis", 3)}).node("Split", {"qo", "parts"}, {"ofirst", "orest"}, {attribute_i("axis", 3)});
    for (std::string n : {"q", "k"}) {
        std::vector<std::string> tables{joined ? n + "1" : n + "f", "c", "s"};
        if (by_ids) tables.push_back("ids");
        if (joined) {
            b.node("Split", {n + "h", "parts"}, {n + "1", n + "2"}, {attribute_i("axis", -1)}).node("RotaryEmbedding", tables, {n + "t"});
            b.node("Concat", {n + "t", rest_of_queries_elsewhere && n == "q" ? "orest" : n + "2"}, {n + "r"}, {attribute_i("axis", -1)});
        } else {
            b.node("Reshape", {n, "six"}, {n + "4"}).node("Split", {n + "4", "parts"}, {n + "1", n + "2"}, {attribute_i("axis", -1)}).node("Reshape", {n + "1", "flat"}, {n + "f"});
            b.node("RotaryEmbedding", tables, {n + "t"}, {attribute_i("interleaved", 1), attribute_i("num_heads", 6)}).node("Reshape", {n + "t", "apart"}, {n + "a"});
            b.node("Concat", {n + "a", n + "2"}, {n + "j"}, {attribute_i("axis", -1)}).node("Transpose", {n + "j"}, {n + "r"}, {attribute_ints("perm", perm)});
        }
    }
    b.node("Concat", {"pk", "kr"}, {"ka"}, {attribute_i("axis", -2)}).node("Concat", {"pv", "vh"}, {"va"}, {attribute_i("axis", -2)}).node("Transpose", {"ka"}, {"kt"}, {attribute_ints("perm", {0, 1, 3, 2})});
    b.node("MatMul", {"qr", "kt"}, {"w"}).node("Mul", {"w", "factor"}, {"ws"}).node("Softmax", {"ws"}, {"p"}, {attribute_i("axis", -1)}).node("MatMul", {"p", "va"}, {"o"});
    b.node("Transpose", {"o"}, {"ot"}, {attribute_ints("perm", perm)}).node("Reshape", {"ot", "join"}, {"y"}).output("y").output("ka").output("va");
    return b;
}
TEST(PatternAttention, RotationsOfPartsOfHeadsAreTakenIn) {
    for (bool joined : {false, true})
        for (bool by_ids : {false, true}) {
            auto b = partial_decoder(joined, by_ids);
            std::string text = after(b, "attention");
            EXPECT_EQ(count(text, "= quern::AppendToCache("), 2) << text;
            EXPECT_EQ(count(text, "= quern::FusedAttention("), 1) << text;
            EXPECT_EQ(count(text, "= RotaryEmbedding(") + count(text, "= Concat(") + count(text, "= Transpose("), 0) << text;
            EXPECT_EQ(count(text, "= Gather("), by_ids ? 2 : 0) << text;
            EXPECT_EQ(count(text, joined ? "interleaved=0" : "interleaved=1"), 2) << text;
            for (std::int64_t past : {0, 11})
                for (std::int64_t length : {1, 5}) {
                    std::vector<quern::NamedTensor> in{{"x", wave({2, length, 144})}, {"pk", wave({2, 6, past, 8}, 0.4f)}, {"pv", wave({2, 6, past, 8}, 0.3f)}};
                    if (by_ids) in = with(with(with(in, "c", wave({9, 2}, 1.3f)), "s", wave({9, 2}, 0.9f)), "ids", length == 1 ? ints({2, 1}, {8, 3}) : ints({2, 5}, {0, 1, 2, 3, 4, 8, 7, 0, 1, 1}));
                    else in = with(with(in, "c", wave({2, length, 2}, 1.3f)), "s", wave({2, length, 2}, 0.9f));
                    same_answer(b, in);
                }
        }
}
TEST(PatternAttention, WhatTurnsPartsOfOtherValuesIsNotTakenIn) {
    auto b = partial_decoder(true, false, true);
    std::string text = after(b, "attention");
    EXPECT_EQ(count(text, "= RotaryEmbedding("), 1) << text;  // the queries'
    EXPECT_EQ(count(text, "= quern::AppendToCache("), 2) << text;
    same_answer(b, {{"x", wave({2, 3, 144})}, {"pk", wave({2, 6, 4, 8}, 0.4f)}, {"pv", wave({2, 6, 4, 8}, 0.3f)}, {"c", wave({2, 3, 2}, 1.3f)}, {"s", wave({2, 3, 2}, 0.9f)}});
}
TEST(PatternAttention, OneRotationByPositionsStaysOne) {
    ModelBuilder b(23);  // no rows to share
    b.input("x", DType::f32, {"N", "2", "S", "8"}).input("c", DType::f32, {"9", "2"}).input("s", DType::f32, {"9", "2"}).input("ids", DType::i64, {"N", "S"});
    b.node("RotaryEmbedding", {"x", "c", "s", "ids"}, {"y"}, {attribute_i("rotary_embedding_dim", 4)}).output("y");
    EXPECT_EQ(count(after(b, "attention"), "= Gather("), 0);
}
TEST(PatternAttention, TheOperatorWithWhatMovesItsOperands) {
    for (bool truth : {false, true})
        for (std::int64_t length : {1, 12}) {
            ModelBuilder b(23);
            b.input("q", DType::f32, {"N", "S", "48"}).input("k", DType::f32, {"N", "2", "T", "8"}).input("mask", truth ? DType::boolean : DType::f32, {"N", "1", "S", "T"});
            b.constant("split", ints({4}, {0, 0, 6, 8})).constant("axis", ints({1}, {2})).constant("more", ints({5}, {1, 1, 3, 1, 1})).constant("six", ints({4}, {0, 6, -1, 8})).constant("join", ints({3}, {0, 0, 48}));
            b.node("Unsqueeze", {"k", "axis"}, {"k5"}).node("Expand", {"k5", "more"}, {"ke"}).node("Reshape", {"ke", "six"}, {"kh"});
            b.node("Reshape", {"q", "split"}, {"q4"}).node("Transpose", {"q4"}, {"qh"}, {attribute_ints("perm", {0, 2, 1, 3})});
            b.node("Attention", {"qh", "kh", "kh", "mask"}, {"o"}).node("Transpose", {"o"}, {"ot"}, {attribute_ints("perm", {0, 2, 1, 3})});
            b.node("Reshape", {"ot", "join"}, {"y"}).output("y");
            Tensor mask = wave({2, 1, length, 30});
            if (truth) {
                mask = Tensor(DType::boolean, {2, 1, length, 30});
                for (std::int64_t i = 0; i < mask.count(); ++i) mask.data<bool>()[i] = i >= 30 && i % 3 != 0;  // the first query sees nothing
            }
            expect_fused(b, 1, 0, {{"q", wave({2, length, 48})}, {"k", wave({2, 2, 30, 8}, 0.4f)}, {"mask", mask}});
        }
}
TEST(PatternAttention, TheOperatorWithHeadsInItsRows) {
    ModelBuilder b(23);
    b.input("q", DType::f32, {"N", "S", "48"}).input("kv", DType::f32, {"N", "T", "16"});
    b.node("Attention", {"q", "kv", "kv"}, {"y"}, {attribute_i("q_num_heads", 6), attribute_i("kv_num_heads", 2)}).output("y");
    expect_fused(b, 1, 0, {{"q", wave({2, 9, 48})}, {"kv", wave({2, 30, 16}, 0.4f)}});
}
TEST(PatternAttention, TheOperatorWithMoreThanThatStays) {
    for (int more = 0; more < 2; ++more) {
        ModelBuilder b(23);
        b.input("q", DType::f32, {"N", "6", "S", "8"}).input("k", DType::f32, {"N", "6", "T", "8"}).input("mask", DType::f32, {"S", "U"});
        if (more == 0) b.node("Attention", {"q", "k", "k"}, {"y"}, {attribute_i("is_causal", 1)});
        else b.node("Attention", {"q", "k", "k", "mask"}, {"y"});  // its row may be shorter than the keys
        b.output("y");
        expect_fused(b, 0, 0, {{"q", wave({2, 6, 9, 8})}, {"k", wave({2, 6, 9, 8}, 0.4f)}, {"mask", wave({9, 7})}});
    }
}
TEST(PatternAttention, WhatOnlyLooksLikeItStays) {
    auto around = heads(true);  // the factor is around the mask, too
    around.node("MatMul", {"qh", "kt"}, {"s"}).node("Add", {"s", "mask"}, {"m"}).node("Mul", {"m", "factor"}, {"f"}).node("Softmax", {"f"}, {"p"}, {attribute_i("axis", -1)});
    expect_fused(join(around, "p"), 0, 0, with(qkv, "mask", wave({2, 1, 1, 21})));
    auto axis = heads();
    axis.node("MatMul", {"qh", "kt"}, {"s"}).node("Softmax", {"s"}, {"p"}, {attribute_i("axis", 2)});
    expect_fused(join(axis, "p"), 0, 0, qkv);
    auto shown = heads();
    shown.node("MatMul", {"qh", "kt"}, {"s"}).node("Softmax", {"s"}, {"p"}, {attribute_i("axis", -1)});
    join(shown, "p").output("p");
    expect_fused(shown, 0, 0, qkv);
    auto wide = heads();  // a mask that makes more of the scores than there are
    wide.input("mask", DType::f32, {"M", "1", "1", "1", "S"}).node("MatMul", {"qh", "kt"}, {"s"}).node("Add", {"s", "mask"}, {"m"}).node("Softmax", {"m"}, {"p"}, {attribute_i("axis", -1)});
    wide.node("MatMul", {"p", "vh"}, {"y"}).output("y");
    expect_fused(wide, 0, 0, with(qkv, "mask", wave({3, 1, 1, 1, 21})));
    auto scaled = heads();  // V is scaled where others read it unscaled: the factor stays with V
    scaled.node("Mul", {"vh", "factor"}, {"vs"}).node("MatMul", {"qh", "kt"}, {"s"}).node("Softmax", {"s"}, {"p"}, {attribute_i("axis", -1)}).node("MatMul", {"p", "vs"}, {"y"}).output("y").output("vs");
    expect_fused(scaled, 1, 1, qkv);
}
TEST(PatternAttention, AMaskOfAnotherLengthIsAnErrorOfTheCaller) {
    ModelBuilder b = heads();
    b.input("mask", DType::f32, {"N", "1", "1", "T"}).node("MatMul", {"qh", "kt"}, {"s"}).node("Add", {"s", "mask"}, {"m"}).node("Softmax", {"m"}, {"p"}, {attribute_i("axis", -1)});
    join(b, "p");
    expect_fused(b, 1, 0, with(qkv, "mask", wave({2, 1, 1, 21})));
    expect_fused(b, 1, 0, with(qkv, "mask", wave({2, 1, 1, 1})));
    EXPECT_THROW(b.run(with(qkv, "mask", wave({2, 1, 1, 20}))), quern::Error);
}

}  // namespace
