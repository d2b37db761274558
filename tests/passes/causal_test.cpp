// Masks that close later keys: which spellings are found, which are not, and that answers stay.
#include <cmath>
#include <limits>

#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

constexpr float lowest = std::numeric_limits<float>::lowest(), never = -std::numeric_limits<float>::infinity();

Tensor wave(quern::Shape shape, float step = 0.7f) {
    Tensor x(DType::f32, shape);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = std::sin(step * float(i) + 0.1f * float(i % 5));
    return x;
}
/// q, k, v [N, 2, S, 8] behind old keys and values [N, 2, P, 8]; numbers S, P and T = P + S; queries "rows" [1, 1, S, 1] from P on and "keys"
/// [1, 1, 1, T] from 0 on.
ModelBuilder decoder(float closed) {
    ModelBuilder b;
    for (const char* x : {"q", "k", "v"}) b.input(x, DType::f32, {"N", "2", "S", "8"});
    for (const char* x : {"pk", "pv"}) b.input(x, DType::f32, {"N", "2", "P", "8"});
    b.constant("0", ints({}, {0})).constant("1", ints({}, {1})).constant("2", ints({}, {2})).constant("1s", ints({1}, {1})).constant("0s", ints({1}, {0})).constant("k_axes", ints({3}, {0, 1, 2})).constant("q_axes", ints({3}, {0, 1, 3})).constant("two", ints({2}, {0, 1}));
    b.constant("open", floats({}, {0})).constant("closed", floats({}, {closed})).constant("true", [] { Tensor x(DType::boolean, quern::Shape{}); x.data<bool>()[0] = true; return x; }());
    b.node("Concat", {"pk", "k"}, {"K"}, {attribute_i("axis", 2)}).node("Concat", {"pv", "v"}, {"V"}, {attribute_i("axis", 2)});
    b.node("Shape", {"q"}, {"qs"}).node("Gather", {"qs", "2"}, {"S"}).node("Shape", {"pk"}, {"ps"}).node("Gather", {"ps", "2"}, {"P"}).node("Add", {"P", "S"}, {"T"});
    b.node("Range", {"0", "S", "1"}, {"r"}).node("Add", {"r", "P"}, {"rp"}).node("Range", {"0", "T", "1"}, {"kr"});
    b.node("Unsqueeze", {"rp", "q_axes"}, {"rows"}).node("Unsqueeze", {"kr", "k_axes"}, {"keys"}).node("Unsqueeze", {"r", "q_axes"}, {"late_rows"});
    return b;
}
ModelBuilder& attend(ModelBuilder& b, const std::string& mask) {
    b.node("Transpose", {"K"}, {"kt"}, {attribute_ints("perm", {0, 1, 3, 2})}).node("MatMul", {"q", "kt"}, {"s"}).node("Add", {"s", mask}, {"m"});
    return b.node("Softmax", {"m"}, {"p"}, {attribute_i("axis", -1)}).node("MatMul", {"p", "V"}, {"y"}).output("y");
}
std::vector<quern::NamedTensor> feeds(std::int64_t n, std::int64_t s, std::int64_t p) {
    return {{"q", wave({n, 2, s, 8})}, {"k", wave({n, 2, s, 8}, 0.4f)}, {"v", wave({n, 2, s, 8}, 1.1f)}, {"pk", wave({n, 2, p, 8}, 0.3f)}, {"pv", wave({n, 2, p, 8}, 1.3f)}};
}
/// Whether the attention is causal by itself, and whether its mask remains; the answers stay, for every instruction set and number of threads.
void expect(ModelBuilder& b, bool causal, const std::vector<std::string>& gone, const std::vector<std::vector<quern::NamedTensor>>& inputs) {
    const std::string text = b.model().dump("attention");
    EXPECT_EQ(count(text, "quern::FusedAttention("), 1) << text;
    EXPECT_EQ(count(text, " causal=1"), causal ? 1 : 0) << text;
    for (auto& op : gone) EXPECT_EQ(count(text, "= " + op + "("), 0) << op << text;
    for (auto& in : inputs) {
        auto plain = b.run(in, {.threads = 1, .optimize = false});
        for (quern::Isa isa : {quern::Isa::baseline, quern::Isa::avx2, quern::Isa::avx512}) {
            if (isa > quern::best_isa()) continue;
            auto one = b.run(in, {.threads = 1, .isa = isa}), three = b.run(in, {.threads = 3, .isa = isa});
            expect_near(one[0], plain[0], 2e-5, 2e-6);
            expect_near(three[0], one[0], 0, 0);
        }
    }
}
const std::vector<std::vector<quern::NamedTensor>> lengths = {feeds(2, 1, 0), feeds(1, 1, 130), feeds(2, 5, 3), feeds(1, 70, 0), feeds(1, 150, 200), feeds(1, 2, 1)};

TEST(Causal, Comparisons) {
    for (float closed : {lowest, never, -10000.f})
        for (int kind = 0; kind < 6; ++kind) {
            SCOPED_TRACE(kind);
            auto b = decoder(closed);
            if (kind == 0) b.node("LessOrEqual", {"keys", "rows"}, {"c"});
            if (kind == 1) b.node("GreaterOrEqual", {"rows", "keys"}, {"c"});
            if (kind == 2) b.node("Add", {"rows", "1"}, {"next"}).node("Less", {"keys", "next"}, {"c"});
            if (kind == 3) b.node("Add", {"1s", "rows"}, {"next"}).node("Greater", {"next", "keys"}, {"c"});
            if (kind == 4) b.node("LessOrEqual", {"keys", "rows"}, {"l"}).node("And", {"true", "l"}, {"c"});
            if (kind == 5)  // as large as the batch
                b.node("LessOrEqual", {"keys", "rows"}, {"l"}).node("Gather", {"qs", "0"}, {"N"}).node("Unsqueeze", {"N", "0s"}, {"N1"}).node("Unsqueeze", {"S", "0s"}, {"S1"}).node("Unsqueeze", {"T", "0s"}, {"T1"})
                    .node("Concat", {"N1", "1s", "S1", "T1"}, {"all"}, {attribute_i("axis", 0)}).node("Expand", {"l", "all"}, {"c"});
            b.node("Where", {"c", "open", "closed"}, {"mask"});
            expect(attend(b, "mask"), true, {"Where", "LessOrEqual", "GreaterOrEqual", "Less", "Greater", "Range"}, lengths);
        }
}
TEST(Causal, Triangles) {
    for (int kind = 0; kind < 4; ++kind) {
        SCOPED_TRACE(kind);
        ModelBuilder b = decoder(never);  // without old keys
        b.node("Identity", {"k"}, {"Kn"}).node("Identity", {"v"}, {"Vn"}).node("Unsqueeze", {"S", "0s"}, {"S1"}).node("Concat", {"S1", "S1"}, {"SS"}, {attribute_i("axis", 0)});
        if (kind == 0) b.node("Expand", {"closed", "SS"}, {"f"}).node("Trilu", {"f", "1"}, {"mask"}, {attribute_i("upper", 1)});
        if (kind == 1) b.node("Expand", {"true", "SS"}, {"f"}).node("Trilu", {"f"}, {"c"}, {attribute_i("upper", 0)}).node("Where", {"c", "open", "closed"}, {"mask"});
        if (kind == 2) b.node("Expand", {"true", "SS"}, {"f"}).node("Trilu", {"f", "1"}, {"u"}, {attribute_i("upper", 1)}).node("Not", {"u"}, {"c"}).node("Where", {"c", "open", "closed"}, {"mask"});
        if (kind == 3) b.node("Expand", {"closed", "SS"}, {"f"}).node("Trilu", {"f", "1"}, {"u"}, {attribute_i("upper", 1)}).node("Unsqueeze", {"u", "two"}, {"mask"});
        b.node("Transpose", {"Kn"}, {"kt"}, {attribute_ints("perm", {0, 1, 3, 2})}).node("MatMul", {"q", "kt"}, {"s"}).node("Add", {"s", "mask"}, {"m"});
        b.node("Softmax", {"m"}, {"p"}, {attribute_i("axis", -1)}).node("MatMul", {"p", "Vn"}, {"y"}).output("y");
        expect(b, true, {"Trilu", "Where", "Expand"}, {feeds(2, 1, 0), feeds(1, 7, 0), feeds(2, 140, 0)});
    }
}
TEST(Causal, ConstantsByTheirValues) {
    for (int kind = 0; kind < 4; ++kind) {
        SCOPED_TRACE(kind);
        const std::int64_t s = 40, t = 44;
        Tensor mask(DType::f32, {1, s, t});
        for (std::int64_t i = 0; i < s; ++i)
            for (std::int64_t j = 0; j < t; ++j) mask.data<float>()[i * t + j] = j > i + 4 ? lowest : 0;
        if (kind == 1) mask.data<float>()[7 * t + 20] = 0;       // a key after its query
        if (kind == 2) mask.data<float>()[7 * t + 3] = lowest;   // one before it is closed
        if (kind == 3)
            for (std::int64_t i = 0; i < s; ++i)
                for (std::int64_t j = 0; j < t; ++j) mask.data<float>()[i * t + j] = j > i ? lowest : 0;  // the first query sees one key
        ModelBuilder b;
        b.input("q", DType::f32, {"N", "2", "40", "8"}).input("K", DType::f32, {"N", "2", "44", "8"}).input("V", DType::f32, {"N", "2", "44", "8"}).constant("mask", mask);
        expect(attend(b, "mask"), kind == 0, {}, {{{"q", wave({2, 2, s, 8})}, {"K", wave({2, 2, t, 8}, 0.4f)}, {"V", wave({2, 2, t, 8}, 1.1f)}}});
    }
}
/// Which keys count, [N, 1, 1, T]: those from `from` on, in the last batch.
Tensor padding(std::int64_t n, std::int64_t t, std::int64_t from) {
    Tensor x(DType::boolean, {n, 1, 1, t});
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<bool>()[i] = i < (n - 1) * t || i % t >= from;
    return x;
}
TEST(Causal, WhatElseIsClosedStaysAMask) {
    for (float closed : {lowest, never}) {
        auto b = decoder(closed);
        b.input("given", DType::boolean, {"N", "1", "1", "U"}).node("Gather", {"given", "kr"}, {"pad"}, {attribute_i("axis", 3)});
        b.node("LessOrEqual", {"keys", "rows"}, {"l"}).node("And", {"true", "l"}, {"c"}).node("And", {"c", "pad"}, {"d"}).node("Where", {"d", "open", "closed"}, {"mask"});
        std::vector<std::vector<quern::NamedTensor>> inputs;
        for (auto [n, s, p, from] : {std::array<std::int64_t, 4>{2, 1, 30, 4}, {2, 70, 0, 0}, {2, 70, 0, 1}, {1, 70, 3, 20}, {2, 150, 10, 130}, {1, 9, 0, 9}}) {
            if (closed == never && from > p) continue;  // queries without any key are NaN in the model as it is
            inputs.push_back(feeds(n, s, p));
            inputs.back().emplace_back("given", padding(n, s + p, from));
        }
        expect(attend(b, "mask"), true, {"LessOrEqual"}, inputs);
    }
}
TEST(Causal, WhatOnlyLooksLikeItStaysAMask) {
    for (int kind = 0; kind < 5; ++kind) {
        SCOPED_TRACE(kind);
        auto b = decoder(kind == 4 ? -3.f : lowest);
        std::string c = "c";
        if (kind == 0) b.node("LessOrEqual", {"keys", "late_rows"}, {"c"});  // the first query sees one key, whatever was before
        if (kind == 1) b.node("GreaterOrEqual", {"keys", "rows"}, {"c"});    // the keys from its own on
        if (kind == 2) b.node("Less", {"keys", "rows"}, {"c"});              // not its own
        if (kind == 3) b.constant("step", ints({}, {2})).node("Mul", {"keys", "step"}, {"k2"}).node("LessOrEqual", {"k2", "rows"}, {"c"});
        if (kind == 4) b.node("LessOrEqual", {"keys", "rows"}, {"l"}).constant("ten", ints({}, {10})).node("Less", {"keys", "ten"}, {"w"}).node("And", {"l", "w"}, {"c"});  // closed keys count, too
        b.node("Where", {"c", "open", "closed"}, {"mask"});
        expect(attend(b, "mask"), false, {}, {feeds(2, 5, 3), feeds(1, 70, 20)});
    }
}
TEST(Causal, AMaskThatOthersReadIsStillMade) {
    auto b = decoder(lowest);
    b.node("LessOrEqual", {"keys", "rows"}, {"c"}).node("Where", {"c", "open", "closed"}, {"mask"});
    attend(b, "mask").output("mask");
    expect(b, true, {}, {feeds(1, 5, 3)});
    const auto out = b.run(feeds(1, 2, 1));
    expect_near(out[1], floats({1, 1, 2, 3}, {0, 0, lowest, 0, 0, 0}), 0, 0);
}
TEST(Causal, TheOperator) {
    for (bool masked : {false, true}) {
        ModelBuilder b(23);
        b.input("q", DType::f32, {"N", "6", "S", "8"}).input("k", DType::f32, {"N", "2", "S", "8"}).input("mask", DType::boolean, {"N", "1", "1", "S"});
        b.node("Attention", {"q", "k", "k", masked ? "mask" : ""}, {"y"}, {attribute_i("is_causal", 1)}).output("y");
        expect(b, true, {}, {{{"q", wave({2, 6, 9, 8})}, {"k", wave({2, 2, 9, 8}, 0.4f)}, {"mask", padding(2, 9, 3)}}, {{"q", wave({1, 6, 150, 8})}, {"k", wave({1, 2, 150, 8}, 0.4f)}, {"mask", padding(1, 150, 140)}}});
    }
}

}  // namespace
