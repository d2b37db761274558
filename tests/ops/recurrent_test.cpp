// LSTM, GRU, Attention, RotaryEmbedding and Einsum beyond ONNX's own cases.
#include <cmath>
#include <random>

#include "support/op_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;
using quern::onnx::attribute_s;

namespace {

Tensor noise(quern::Shape shape, unsigned seed) {
    std::mt19937 g(seed);
    std::uniform_real_distribution<float> d(-1, 1);
    Tensor t(DType::f32, shape);
    for (float& x : t.data<float>()) x = d(g);
    return t;
}
Tensor to_f64(const Tensor& t) {
    Tensor d(DType::f64, t.shape());
    for (std::int64_t i = 0; i < t.count(); ++i) d.data<double>()[i] = static_cast<double>(t.data<float>()[i]);
    return d;
}
Tensor to_f32(const Tensor& t) {
    Tensor f(DType::f32, t.shape());
    for (std::int64_t i = 0; i < t.count(); ++i) f.data<float>()[i] = static_cast<float>(t.data<double>()[i]);
    return f;
}
Tensor lengths(std::vector<std::int32_t> v) {
    auto n = static_cast<std::int64_t>(v.size());
    return t<std::int32_t>({n}, std::move(v));
}

/// f32 (packed and unpacked weights, several tiles of rows) against f64.
TEST(Recurrent, SingleEqualsDouble) {
    const std::int64_t seq = 5, batch = 37, in = 3, h = 11;
    struct { const char* op; std::int64_t gates; int outputs; } cells[] = {{"LSTM", 4, 3}, {"GRU", 3, 2}, {"RNN", 1, 2}};
    for (auto& cell : cells)
        for (const char* direction : {"forward", "reverse", "bidirectional"})
            for (std::int64_t before : {0, 1}) {
                if (before && std::string(cell.op) != "GRU") continue;
                std::int64_t d = std::string(direction) == "bidirectional" ? 2 : 1;
                std::vector<Tensor> x{noise({seq, batch, in}, 1), noise({d, cell.gates * h, in}, 2), noise({d, cell.gates * h, h}, 3), noise({d, 2 * cell.gates * h}, 4), Tensor(), noise({d, batch, h}, 5)};
                std::vector<std::int32_t> lens;
                for (std::int64_t b = 0; b < batch; ++b) lens.push_back(static_cast<std::int32_t>(b % (seq + 1)));
                std::vector<Tensor> x64;
                for (auto& t : x) x64.push_back(t.defined() ? to_f64(t) : Tensor());
                x[4] = x64[4] = lengths(lens);
                std::vector<quern::onnx::Attribute> a{attribute_i("hidden_size", h), attribute_s("direction", direction)};
                if (std::string(cell.op) == "GRU") a.push_back(attribute_i("linear_before_reset", before));
                auto want = run_op(cell.op, x64, a, 14, cell.outputs);
                for (std::vector<int> fixed : {std::vector<int>{}, std::vector<int>{1, 2}}) {
                    auto got = run_op(cell.op, x, a, 14, cell.outputs, fixed);
                    for (std::size_t o = 0; o < want.size(); ++o) expect_near(got[o], to_f32(want[o]), 1e-4, 1e-5);
                }
            }
}
TEST(Recurrent, ZeroLengthsKeepTheInitialState) {
    Tensor h0 = noise({1, 2, 4}, 7);
    auto out = run_op("GRU", {noise({3, 2, 2}, 1), noise({1, 12, 2}, 2), noise({1, 12, 4}, 3), Tensor(), lengths({0, 0}), h0}, {attribute_i("hidden_size", 4)}, 14, 2);
    expect_near(out[1], h0);
    for (float v : out[0].data<float>()) EXPECT_EQ(v, 0);
}
TEST(Recurrent, HostileLengthsAreRefused) {
    for (std::int32_t bad : {-1, 4, INT32_MAX})
        EXPECT_THROW(run_op("GRU", {noise({3, 2, 2}, 1), noise({1, 12, 2}, 2), noise({1, 12, 4}, 3), Tensor(), lengths({1, bad})}, {attribute_i("hidden_size", 4)}, 14, 2), quern::Error);
    EXPECT_THROW(run_op("LSTM", {noise({3, 2, 2}, 1), noise({1, 12, 2}, 2), noise({1, 12, 4}, 3)}, {}, 14), quern::Error);
    EXPECT_THROW(run_op("LSTM", {noise({3, 2, 2}, 1), noise({1, 16, 2}, 2), noise({1, 16, 4}, 3)}, {attribute_s("direction", "sideways")}, 14), quern::Error);
}
TEST(Recurrent, EmptySequence) {
    auto out = run_op("LSTM", {Tensor(DType::f32, {0, 2, 2}), noise({1, 16, 2}, 2), noise({1, 16, 4}, 3)}, {attribute_i("hidden_size", 4)}, 14, 3);
    EXPECT_EQ(out[0].shape(), quern::Shape({0, 1, 2, 4}));
    for (float v : out[1].data<float>()) EXPECT_EQ(v, 0);
}

/// More queries than one tile has, decoding with a cache, and the same with the cache concatenated before.
TEST(Attention, CacheEqualsWholeSequence) {
    const std::int64_t b = 2, hq = 4, hk = 2, s = 150, d = 8, p = 140;
    Tensor q = noise({b, hq, s, d}, 1), k = noise({b, hk, s, d}, 2), v = noise({b, hk, s, d}, 3);
    auto whole = run_op("Attention", {q, k, v}, {attribute_i("is_causal", 1)}, 24);
    auto part = [&](const Tensor& t, std::int64_t from, std::int64_t n) {
        std::int64_t heads = t.shape()[1];
        Tensor r(DType::f32, {b, heads, n, d});
        for (std::int64_t i = 0; i < b * heads; ++i)
            std::copy_n(t.data<float>().data() + (i * s + from) * d, n * d, r.data<float>().data() + i * n * d);
        return r;
    };
    Tensor want = part(whole[0], p, s - p);
    std::vector<Tensor> in{part(q, p, s - p), part(k, p, s - p), part(v, p, s - p), Tensor(), part(k, 0, p), part(v, 0, p)};
    expect_near(run_op("Attention", in, {attribute_i("is_causal", 1)}, 24)[0], want, 1e-4, 1e-5);
    auto three = run_op("Attention", in, {attribute_i("is_causal", 1)}, 24, 3);
    expect_near(three[0], want, 1e-4, 1e-5);
    expect_near(three[1], k);
    expect_near(three[2], v);
}
TEST(Attention, RowsWithoutKeysAreZero) {
    Tensor mask(DType::boolean, {2, 3});
    static_cast<std::uint8_t*>(mask.raw())[1] = 1;
    auto out = run_op("Attention", {noise({1, 1, 2, 4}, 1), noise({1, 1, 3, 4}, 2), floats({1, 1, 3, 1}, {5, 7, 9}), mask}, {}, 24);
    expect_near(out[0], floats({1, 1, 2, 1}, {7, 0}));
}
TEST(Attention, HostileInputsAreRefused) {
    Tensor q = noise({2, 3, 6}, 1), k = noise({2, 3, 4}, 2), n = ints({2}, {3, 9});
    EXPECT_THROW(run_op("Attention", {q, k, k}, {}, 24), quern::Error);  // no head counts
    EXPECT_THROW(run_op("Attention", {q, k, k}, {attribute_i("q_num_heads", 4), attribute_i("kv_num_heads", 2)}, 24), quern::Error);
    Tensor four = noise({2, 1, 3, 4}, 3);
    EXPECT_THROW(run_op("Attention", {four, four, four, Tensor(), Tensor(), Tensor(), n}, {}, 24), quern::Error);
    EXPECT_THROW(run_op("Attention", {four, four, four, noise({3, 4}, 4)}, {}, 24), quern::Error);
}
TEST(Rotary, PositionsAreChecked) {
    Tensor x = noise({1, 1, 2, 4}, 1), c = noise({3, 2}, 2);
    for (std::int64_t bad : {std::int64_t{-1}, std::int64_t{3}, INT64_MAX})
        EXPECT_THROW(run_op("RotaryEmbedding", {x, c, c, ints({1, 2}, {0, bad})}, {}, 23), quern::Error);
    EXPECT_THROW(run_op("RotaryEmbedding", {x, c, c, ints({1, 2}, {0, 1})}, {attribute_i("rotary_embedding_dim", 6)}, 23), quern::Error);
}

TEST(Einsum, DiagonalsSumsAndBroadcast) {
    auto e = [](const char* text) { return std::vector<quern::onnx::Attribute>{attribute_s("equation", text)}; };
    Tensor a = floats({2, 2}, {1, 2, 3, 4});
    expect_near(run_op("Einsum", {a}, e("ii->i"))[0], floats({2}, {1, 4}));
    expect_near(run_op("Einsum", {a}, e("ii"))[0], floats({}, {5}));
    expect_near(run_op("Einsum", {a}, e(" i j -> j "))[0], floats({2}, {4, 6}));
    expect_near(run_op("Einsum", {a, a, a}, e("ij,jk,kl->il"))[0], floats({2, 2}, {37, 54, 81, 118}));
    expect_near(run_op("Einsum", {floats({1, 2}, {1, 2}), floats({3, 2}, {1, 1, 2, 2, 3, 3})}, e("...i,...i->..."))[0], floats({3}, {3, 6, 9}));
    expect_near(run_op("Einsum", {ints({2}, {INT64_MAX, 1}), ints({2}, {1, 1})}, e("i,i"))[0], ints({}, {INT64_MIN}));
    for (const char* bad : {"", "i", "ij,j", "ij->ik", "ij->ii", "i1->i", "i..j->i", "ij......->i", "ijk->i", "ij->->i"})
        EXPECT_THROW(run_op("Einsum", {a}, e(bad)), quern::Error) << bad;
    // Intermediate results of 2^72 elements.
    Tensor wide = Tensor(DType::f32, {64, 64});
    EXPECT_THROW(run_op("Einsum", std::vector<Tensor>(12, wide), e("ab,cd,ef,gh,ij,kl,ac,eg,ik,bd,fh,jl->")), quern::Error);
    EXPECT_THROW(run_op("Einsum", {a, floats({3}, {1, 2, 3})}, e("ij,j->i")), quern::Error);
}

}  // namespace
