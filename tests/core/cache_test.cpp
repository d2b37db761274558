// Caches of keys and values that grow in the caller's memory.
#include <cmath>
#include <functional>

#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;

namespace {

constexpr std::int64_t heads = 2, size = 8, room = 24;

Tensor wave(quern::Shape shape, float step = 0.7f) {
    Tensor x(DType::f32, shape);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = std::sin(step * float(i) + 0.1f * float(i % 5));
    return x;
}
/// One layer: q, k, v [N, S, 16] and old keys and values pk, pv [N, 2, P, 8] to y [N, S, 16] and K, V [N, 2, P + S, 8].
ModelBuilder decoder() {
    ModelBuilder b;
    for (const char* x : {"q", "k", "v"}) b.input(x, DType::f32, {"N", "S", "16"});
    for (const char* x : {"pk", "pv"}) b.input(x, DType::f32, {"N", "2", "P", "8"});
    b.constant("split", ints({4}, {0, 0, 2, 8})).constant("join", ints({3}, {0, 0, 16})).constant("factor", floats({}, {0.35f}));
    for (std::string x : {"q", "k", "v"}) b.node("Reshape", {x, "split"}, {x + "4"}).node("Transpose", {x + "4"}, {x + "h"}, {attribute_ints("perm", {0, 2, 1, 3})});
    b.node("Concat", {"pk", "kh"}, {"K"}, {attribute_i("axis", 2)}).node("Concat", {"pv", "vh"}, {"V"}, {attribute_i("axis", 2)});
    b.node("Transpose", {"K"}, {"kt"}, {attribute_ints("perm", {0, 1, 3, 2})}).node("MatMul", {"qh", "kt"}, {"s"}).node("Mul", {"s", "factor"}, {"m"}).node("Softmax", {"m"}, {"p"}, {attribute_i("axis", -1)});
    b.node("MatMul", {"p", "V"}, {"o"}).node("Transpose", {"o"}, {"ot"}, {attribute_ints("perm", {0, 2, 1, 3})}).node("Reshape", {"ot", "join"}, {"y"});
    return std::move(b.output("y").output("K").output("V"));
}
Tensor filled(std::int64_t n, float x) {
    Tensor t(DType::f32, {n, heads, room, size});
    for (float& f : t.data<float>()) f = x;
    return t;
}
/// Rows [from, to) of each head of a cache with room for `of`.
std::vector<float> rows(const Tensor& t, std::int64_t from, std::int64_t to) {
    std::vector<float> r;
    const std::int64_t of = t.shape()[2];
    for (std::int64_t h = 0; h < t.shape()[0] * heads; ++h) r.insert(r.end(), t.data<float>().begin() + (h * of + from) * size, t.data<float>().begin() + (h * of + to) * size);
    return r;
}
void give(quern::Session& s, std::int64_t n, std::int64_t length, int turn) {
    float step = 0.3f;
    for (const char* x : {"q", "k", "v"}) s.bind(x, wave({n, length, heads * size}, step + 0.01f * float(turn))), step += 0.4f;
}
std::string why(const std::function<void()>& f) {
    try {
        f();
    } catch (const quern::Error& e) {
        return e.what();
    }
    return "";
}

TEST(Cache, GrowsWhereItIs) {
    auto b = decoder();
    for (quern::Isa isa : {quern::Isa::baseline, quern::Isa::avx2, quern::Isa::avx512}) {
        if (isa > quern::best_isa()) continue;
        for (int threads : {1, 3})
            for (std::int64_t n : {1, 2}) {
                auto engine = b.model().compile({.threads = threads, .isa = isa});
                quern::Session plain(engine), grown(engine);
                Tensor k = filled(n, 7), v = filled(n, 7), pk(DType::f32, {n, heads, 0, size}), pv = pk;
                grown.bind_cache("pk", "K", k);
                grown.bind_cache("pv", "V", v);
                std::int64_t length = 0;
                for (int turn = 0; turn < 14; ++turn) {  // 5 positions, then one by one, now and then two
                    const std::int64_t more = turn == 0 ? 5 : turn % 4 == 0 ? 2 : 1;
                    give(plain, n, more, turn), give(grown, n, more, turn);
                    plain.bind("pk", pk), plain.bind("pv", pv);
                    plain.run(), grown.run();
                    length += more;
                    expect_near(grown.output("y"), plain.output("y"), 0, 0);
                    pk = plain.output("K").clone(), pv = plain.output("V").clone();
                    ASSERT_EQ(pk.shape()[2], length);
                    EXPECT_EQ(rows(k, 0, length), rows(pk, 0, length));
                    EXPECT_EQ(rows(v, 0, length), rows(pv, 0, length));
                    for (float x : rows(k, length, room)) ASSERT_EQ(x, 7);
                    EXPECT_EQ(grown.output("K").raw(), k.raw());
                    EXPECT_EQ(grown.output("K").shape(), k.shape());
                }
                EXPECT_EQ(length, room - 3);
            }
    }
}
TEST(Cache, GoesBackAndEnds) {
    auto b = decoder();
    auto engine = b.model().compile({.threads = 1});
    quern::Session s(engine);
    Tensor k = filled(1, 7), v = filled(1, 7), other = filled(1, 7);
    s.bind_cache("pk", "K", k), s.bind_cache("pv", "V", v);
    give(s, 1, 4, 0), s.run();
    const auto begin = rows(k, 0, 3);
    give(s, 1, 1, 1), s.run();
    const Tensor y = s.output("y").clone();
    s.bind_cache("pk", "K", k, 3), s.bind_cache("pv", "V", v, 3);  // two positions back
    give(s, 1, 2, 2), s.run();
    EXPECT_EQ(rows(k, 0, 3), begin);
    Tensor pk(DType::f32, {1, heads, 3, size}), pv = pk.clone();
    for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < 3 * size; ++i) pk.data<float>()[h * 3 * size + i] = k.data<float>()[h * room * size + i], pv.data<float>()[h * 3 * size + i] = v.data<float>()[h * room * size + i];
    const Tensor last = s.output("y").clone();
    s.bind("pk", pk), s.bind("pv", pv);  // no caches any more
    const auto before = rows(k, 0, room);
    s.run();
    expect_near(s.output("y"), last, 0, 0);
    EXPECT_EQ(s.output("K").shape(), quern::Shape({1, heads, 5, size}));
    EXPECT_EQ(rows(k, 0, room), before);
    s.bind_cache("pk", "K", other, 0), s.bind_cache("pv", "V", v, 0);  // other memory, from the beginning
    give(s, 1, 4, 0), s.run();
    EXPECT_EQ(rows(other, 0, 3), begin);
}
TEST(Cache, OneOfTwoMayStayApart) {
    auto b = decoder();
    quern::Session s(b.model().compile({.threads = 1}));
    Tensor k = filled(1, 7);
    s.bind_cache("pk", "K", k), s.bind("pv", Tensor(DType::f32, {1, heads, 0, size}));
    give(s, 1, 4, 0), s.run();
    EXPECT_EQ(s.output("V").shape(), quern::Shape({1, heads, 4, size}));
    give(s, 1, 1, 0);
    EXPECT_NE(why([&] { s.run(); }), "");  // keys of 4 positions, values of none
}
TEST(Cache, WithoutRoomNothingChanges) {
    auto b = decoder();
    quern::Session s(b.model().compile({.threads = 1}));
    Tensor k = filled(1, 7), v = filled(1, 7);
    s.bind_cache("pk", "K", k), s.bind_cache("pv", "V", v);
    give(s, 1, room - 1, 0), s.run();
    const auto before = rows(k, 0, room);
    give(s, 1, 2, 1);
    const std::string text = why([&] { s.run(); });
    EXPECT_NE(text.find("room for 24 positions would get 25"), std::string::npos) << text;
    EXPECT_EQ(rows(k, 0, room), before);
    give(s, 1, 1, 1), s.run();
    EXPECT_EQ(rows(k, 0, room - 1), [&] { auto r = before; std::vector<float> out; for (std::int64_t h = 0; h < heads; ++h) out.insert(out.end(), r.begin() + h * room * size, r.begin() + (h * room + room - 1) * size); return out; }());
}
TEST(Cache, NewRowsMayBeWhereTheyAre) {  // [N, 2, S, 8] from the application: nothing moves them
    ModelBuilder b;
    for (const char* x : {"q", "k"}) b.input(x, DType::f32, {"N", "2", "S", "8"});
    b.input("old", DType::f32, {"N", "2", "P", "8"}).node("Concat", {"old", "k"}, {"all"}, {attribute_i("axis", 2)}).node("Transpose", {"all"}, {"t"}, {attribute_ints("perm", {0, 1, 3, 2})});
    b.node("MatMul", {"q", "t"}, {"s"}).node("Softmax", {"s"}, {"p"}, {attribute_i("axis", -1)}).node("MatMul", {"p", "all"}, {"y"}).output("y").output("all");
    auto engine = b.model().compile({.threads = 1});
    quern::Session plain(engine), grown(engine);
    Tensor memory = filled(2, 7), old(DType::f32, {2, heads, 0, size});
    grown.bind_cache("old", "all", memory);
    std::int64_t length = 0;
    for (std::int64_t more : {4, 1, 1, 3}) {
        const Tensor q = wave({2, heads, more, size}, 0.3f), k = wave({2, heads, more, size}, 0.5f + 0.1f * float(length));
        for (quern::Session* s : {&plain, &grown}) s->bind("q", q), s->bind("k", k);
        plain.bind("old", old);
        plain.run(), grown.run();
        length += more;
        expect_near(grown.output("y"), plain.output("y"), 0, 0);
        old = plain.output("all").clone();
        EXPECT_EQ(rows(memory, 0, length), rows(old, 0, length));
    }
    for (float x : rows(memory, length, room)) ASSERT_EQ(x, 7);
}
TEST(Cache, WhatIsNoneIsRefused) {
    auto refused = [](ModelBuilder& b, const char* in, const char* out) {
        quern::Session s(b.model().compile({.threads = 1}));
        return why([&] { s.bind_cache(in, out, filled(1, 7)); });
    };
    auto b = decoder();
    EXPECT_EQ(refused(b, "pk", "K"), "");
    EXPECT_NE(refused(b, "pk", "V").find("accepted: 'pk' with 'K', 'pv' with 'V'"), std::string::npos) << refused(b, "pk", "V");
    EXPECT_NE(refused(b, "q", "y").find("is no cache"), std::string::npos);
    EXPECT_NE(refused(b, "nothing", "K").find("no input 'nothing'"), std::string::npos);
    auto summed = decoder();  // somebody else reads all keys
    summed.node("ReduceSum", {"K"}, {"sum"}).output("sum");
    EXPECT_NE(refused(summed, "pk", "K").find("is no cache"), std::string::npos);
    EXPECT_EQ(refused(summed, "pv", "V"), "");
    auto old = decoder();  // or the old ones
    old.node("ReduceSum", {"pk"}, {"sum"}).output("sum");
    EXPECT_NE(refused(old, "pk", "K").find("is no cache"), std::string::npos);
    auto turned = decoder();
    turned.node("Reshape", {"K", "join"}, {"flat"}).output("flat");
    EXPECT_NE(refused(turned, "pk", "K").find("is no cache"), std::string::npos);
}
TEST(Cache, MemoryThatCannotBe) {
    auto b = decoder();
    quern::Session s(b.model().compile({.threads = 1}));
    Tensor k = filled(1, 7), v = filled(1, 7);
    EXPECT_NE(why([&] { s.bind_cache("pk", "K", Tensor(DType::f32, {heads, room, size})); }).find("[B, H, C, D]"), std::string::npos);
    EXPECT_NE(why([&] { s.bind_cache("pk", "K", Tensor(DType::f64, {1, heads, room, size})); }), "");
    EXPECT_NE(why([&] { s.bind_cache("pk", "K", Tensor(DType::f32, {1, heads + 1, room, size})); }), "");
    EXPECT_NE(why([&] { s.bind_cache("pk", "K", Tensor(DType::f32, {1, heads, 0, size})); }), "");
    EXPECT_NE(why([&] { s.bind_cache("pk", "K", Tensor()); }), "");
    for (std::int64_t length : {std::int64_t{-1}, room + 1}) EXPECT_NE(why([&] { s.bind_cache("pk", "K", k, length); }).find("accepted: 0 to 24"), std::string::npos);
    give(s, 1, 2, 0);
    s.bind_cache("pk", "K", k), s.bind_cache("pv", "V", k);  // one memory for two
    EXPECT_NE(why([&] { s.run(); }).find("memory of its own"), std::string::npos);
    s.bind_cache("pv", "V", v);
    s.bind("q", Tensor::borrow(std::span<const float>(k.data<float>()).first(32), {1, 2, 16}));  // or for an input
    EXPECT_NE(why([&] { s.run(); }).find("memory of its own"), std::string::npos);
    give(s, 1, 2, 0);
    s.bind_output("K", Tensor(DType::f32, {1, heads, 2, size}));
    EXPECT_NE(why([&] { s.run(); }).find("one of the two"), std::string::npos);
    s.bind_output("K", Tensor());
    s.bind_output("y", Tensor::borrow(std::span<const float>(v.data<float>()).first(32), {1, 2, 16}));
    EXPECT_NE(why([&] { s.run(); }).find("memory of its own"), std::string::npos);
    s.bind_output("y", Tensor());
    s.run();
    EXPECT_EQ(s.output("K").raw(), k.raw());
}

}  // namespace
