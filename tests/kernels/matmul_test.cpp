// Every kernel of kernels/matmul/kernels.inc against the oracle.
#include <quern/kernels/matmul/core.hpp>
#include <quern/kernels/matmul/reference.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using namespace quern_test;

struct Case {
    Dims a, b, y;
    bool ta = false, tb = false;
    Dims bias = {};  ///< as given to the kernel
    Dims bias2 = {}; ///< the same as [M or 1, N or 1]
    bool residual = false;
    float alpha = 1;
    vec::Post post = vec::Post::none;
    float post_alpha = 0, post_beta = 0;
    DType dtype = DType::f32;
    bool factors = false;  ///< for the columns of a constant B
};
void check(const Case& c, std::mt19937& rng, int* accepted = nullptr) {
    matmul::Problem p;
    p.dtype = c.dtype;
    p.rank_a = static_cast<int>(c.a.size());
    p.rank_b = static_cast<int>(c.b.size());
    p.trans_a = c.ta;
    p.trans_b = c.tb;
    p.alpha = c.alpha;
    p.has_bias = !c.bias2.empty();
    p.has_residual = c.residual;
    p.post = c.post;
    p.post_alpha = c.post_alpha;
    p.post_beta = c.post_beta;
    auto va = random_values(rng, count_of(c.a)), vb = random_values(rng, count_of(c.b));
    auto vbias = p.has_bias ? random_values(rng, count_of(c.bias)) : std::vector<double>{};
    auto vres = c.residual ? random_values(rng, count_of(c.y)) : std::vector<double>{};
    Guarded a(c.dtype, c.a, va), b(c.dtype, c.b, vb), bias(c.dtype, c.bias, vbias), res(c.dtype, c.y, vres), y(c.dtype, c.y);
    const std::int64_t columns = c.factors ? c.b[c.tb ? 0 : 1] : 0;
    const auto vfactors = random_values(rng, columns);
    const Guarded factors(c.dtype, {columns}, vfactors);
    if (c.factors) p.factors = factors.tensor();
    auto product = vb;
    for (std::int64_t i = 0; c.factors && i < count_of(c.b); ++i) product[static_cast<std::size_t>(i)] *= vfactors[static_cast<std::size_t>(c.tb ? i / c.b[1] : i % columns)];
    auto want = matmul::reference(p, c.a, va, c.b, product, vbias, c.bias2, vres);
    ASSERT_EQ(static_cast<std::int64_t>(want.y.size()), count_of(c.y));
    std::vector<View> in{a.view(), b.view()};
    if (p.has_bias || c.residual) in.push_back(p.has_bias ? bias.view() : View{});
    if (c.residual) in.push_back(res.view());
    for (bool constant : {false, true}) {
        if (constant) p.b = b.tensor();
        std::int64_t rb = static_cast<std::int64_t>(c.b.size());
        p.n = constant ? (rb == 1 ? 1 : c.b[rb - (c.tb ? 2 : 1)]) : -1;
        p.k = constant ? c.b[rb == 1 ? 0 : rb - (c.tb ? 1 : 2)] : -1;
        for_each_kernel<matmul::Problem>(Family::matmul, linked_backends(), [&](const Entry<matmul::Problem>& entry, const Target& target) {
            if (!entry.refuse(p, target).empty()) return;
            ASSERT_TRUE(constant || !c.factors) << "factors of a B that is not constant";
            if (accepted) ++*accepted;
            auto kernel = entry.make(p, target);
            auto views = in;
            if (constant) views[1].data = nullptr;  // never read again
            run_kernel(*kernel, views, y);
            for (std::size_t i = 0; i < want.y.size(); ++i)
                ASSERT_NEAR(y.get(i), want.y[i], want.tolerance[i]) << "element " << i << (constant ? " constant B" : " B at run time");
        });
    }
}

TEST(MatMul, ShapesAndBroadcasts) {
    std::mt19937 rng(seed());
    const Case cases[] = {
        {{3, 4}, {4, 5}, {3, 5}},
        {{1, 7}, {7, 1}, {1, 1}},
        {{4}, {4, 5}, {5}},
        {{3, 4}, {4}, {3}},
        {{6}, {6}, {}},
        {{2, 3, 4}, {4, 5}, {2, 3, 5}},
        {{2, 3, 4}, {2, 4, 5}, {2, 3, 5}},
        {{2, 1, 3, 4}, {5, 4, 6}, {2, 5, 3, 6}},
        {{5, 3, 4}, {2, 1, 4, 6}, {2, 5, 3, 6}},
        {{3, 4}, {2, 2, 4, 5}, {2, 2, 3, 5}},
        {{4}, {3, 4, 5}, {3, 5}},
        {{3, 2, 4}, {4}, {3, 2}},
        {{1, 2, 1, 2, 3}, {2, 3, 3, 2}, {1, 2, 3, 2, 2}},
        {{0, 4}, {4, 5}, {0, 5}},
        {{3, 4}, {4, 0}, {3, 0}},
        {{3, 0}, {0, 5}, {3, 5}},
        {{2, 0, 4}, {4, 5}, {2, 0, 5}},
        {{0, 3, 4}, {4, 5}, {0, 3, 5}},
        {{200, 3}, {3, 1}, {200, 1}},
        {{1, 300}, {300, 77}, {1, 77}},
        {{15, 257}, {257, 33}, {15, 33}},
        {{129, 1300}, {1300, 70}, {129, 70}},
        {{500, 20}, {20, 300}, {500, 300}},
        {{40, 9, 8}, {40, 8, 9}, {40, 9, 9}},
    };
    for (Case c : cases)
        for (bool ta : {false, true})
            for (bool tb : {false, true}) {
                Case t = c;
                if (ta && t.a.size() < 2) continue;
                if (tb && t.b.size() < 2) continue;
                if (ta) std::swap(t.a[t.a.size() - 1], t.a[t.a.size() - 2]);
                if (tb) std::swap(t.b[t.b.size() - 1], t.b[t.b.size() - 2]);
                t.ta = ta;
                t.tb = tb;
                SCOPED_TRACE(Shape(std::span<const std::int64_t>(t.a)).to_string() + " x " + Shape(std::span<const std::int64_t>(t.b)).to_string() +
                             (ta ? " ta" : "") + (tb ? " tb" : ""));
                check(t, rng);
                t.dtype = DType::f64;
                if (count_of(t.y) < 2000) check(t, rng);
            }
}
TEST(MatMul, BiasResidualAlphaAndPost) {
    std::mt19937 rng(seed());
    struct Form {
        Dims dims, two;
    };
    for (int m : {1, 5, 40})
        for (int n : {1, 7, 64}) {
            const Form forms[] = {{{}, {}}, {{n}, {1, n}}, {{1, n}, {1, n}}, {{m, 1}, {m, 1}}, {{m, n}, {m, n}}, {{1}, {1, 1}}, {{1, 1}, {1, 1}}};
            for (const Form& f : forms)
                for (bool residual : {false, true}) {
                    Case c{{m, 30}, {30, n}, {m, n}};
                    c.bias = f.dims;
                    c.bias2 = f.two;
                    c.residual = residual;
                    c.alpha = 0.75f;
                    c.post = residual ? vec::Post::relu : vec::Post::leaky_relu;
                    c.post_alpha = 0.1f;
                    SCOPED_TRACE(std::to_string(m) + "x" + std::to_string(n) + (residual ? " residual" : ""));
                    check(c, rng);
                    c.post = vec::Post::none;
                    c.dtype = DType::f64;
                    check(c, rng);
                }
        }
    Case scalar{{3, 2, 5}, {5, 6}, {3, 2, 6}};
    scalar.bias2 = {1, 1};
    check(scalar, rng);
    Case per_row{{3, 2, 5}, {5, 6}, {3, 2, 6}};
    per_row.bias = per_row.bias2 = {2, 1};
    check(per_row, rng);
    Case full{{3, 2, 5}, {5, 6}, {3, 2, 6}};
    full.bias = full.bias2 = {2, 6};
    full.residual = true;
    check(full, rng);
}
TEST(MatMul, FactorsOfColumns) {
    std::mt19937 rng(seed());
    int accepted = 0;
    for (std::int64_t n : {2, 5, 16, 32, 33, 64, 100})
        for (bool tb : {false, true})
            for (float alpha : {1.f, 0.5f})
                check({.a = {3, 40}, .b = tb ? Dims{n, 40} : Dims{40, n}, .y = {3, n}, .tb = tb, .residual = true, .alpha = alpha, .factors = true}, rng, &accepted);
    EXPECT_GE(accepted, 28 * 3);  // each at three instruction sets at least, where the machine has them
    accepted = 0;
    check({.a = {3, 40}, .b = {40, 1}, .y = {3, 1}, .factors = true}, rng, &accepted);  // a vector is read where it is
    check({.a = {3, 40}, .b = {40, 4}, .y = {3, 4}, .dtype = DType::f64, .factors = true}, rng, &accepted);
    EXPECT_EQ(accepted, 0);
}
TEST(MatMul, EveryPost) {
    std::mt19937 rng(seed());
    for (int i = 0; i <= static_cast<int>(vec::Post::hard_sigmoid); ++i) {
        SCOPED_TRACE(i);
        Case c{{20, 19}, {19, 45}, {20, 45}};
        c.bias = {45};
        c.bias2 = {1, 45};
        c.post = static_cast<vec::Post>(i);
        c.post_alpha = c.post == vec::Post::clip ? -0.5f : 0.2f;
        c.post_beta = c.post == vec::Post::clip ? 0.7f : 0.5f;
        check(c, rng);
    }
}
TEST(MatMul, PostsOverTilesOfEachForm) {
    std::mt19937 rng(seed());
    for (std::int64_t m : {1, 15, 29})
        for (std::int64_t n : {33, 100})
            for (std::int64_t k : {40, 1500}) {
                Case c{{m, k}, {k, n}, {m, n}};
                c.bias = {n};
                c.bias2 = {1, n};
                c.post = vec::Post::gelu;
                c.residual = m == 15;
                SCOPED_TRACE(std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n));
                check(c, rng);
            }
}
/// Rows of A that lie whole pages apart have tiles of their own.
TEST(MatMul, RowsWholePagesApart) {
    std::mt19937 rng(seed());
    for (std::int64_t m : {3, 17, 120})
        for (std::int64_t k : {1024, 3072}) {
            Case c{{m, k}, {k, 70}, {m, 70}};
            c.bias = {70};
            c.bias2 = {1, 70};
            SCOPED_TRACE(std::to_string(m) + " rows of " + std::to_string(k));
            check(c, rng);
        }
}
TEST(MatMul, RandomShapes) {
    unsigned s = seed();
    std::printf("seed %u (QUERN_TEST_SEED)\n", s);
    std::mt19937 rng(s);
    auto pick = [&](int top) { return static_cast<std::int64_t>(rng() % static_cast<unsigned>(top)) + 1; };
    for (int i = 0; i < 30; ++i) {
        std::int64_t m = pick(rng() % 3 ? 40 : 300), n = pick(rng() % 3 ? 70 : 300), k = pick(rng() % 3 ? 60 : 1500), batch = pick(3);
        Case c{{batch, m, k}, {k, n}, {batch, m, n}};
        c.ta = rng() % 4 == 0;
        c.tb = rng() % 2;
        if (c.ta) c.a = {batch, k, m};
        if (c.tb) c.b = {n, k};
        if (rng() % 2) c.bias = {n}, c.bias2 = {1, n};
        c.residual = rng() % 3 == 0;
        if (rng() % 2) c.post = vec::Post::relu;
        SCOPED_TRACE("batch " + std::to_string(batch) + " m " + std::to_string(m) + " n " + std::to_string(n) + " k " + std::to_string(k));
        check(c, rng);
    }
}
// CoreKernel books no more than packed_work for products of packed weights: nothing behind it may be written.
TEST(Matmul, ProductsOfPackedPanelsKeepToTheirWork) {
    const float mark = 12345.f;
    std::vector<float> work(matmul::packed_work / sizeof(float) + (std::size_t{1} << 18));
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (isa > best_isa()) continue;
        const vec::Table& t = vec::table(isa);
        SCOPED_TRACE(t.name);
        for (std::int64_t m : {1, 2, 3, 14, 112, 168, 300})
            for (std::int64_t n : {std::int64_t{1}, t.panel, 5 * t.panel + 3})
                for (std::int64_t k : {1, 40, 256, 1100})
                    for (vec::Post post : {vec::Post::none, vec::Post::gelu}) {
                        std::vector<float> a(static_cast<std::size_t>(m * k), 1.f), b(static_cast<std::size_t>(k * n), 1.f), row(static_cast<std::size_t>(n), -static_cast<float>(k)), c(static_cast<std::size_t>(m * n), mark), packed(t.packed_floats(n, k) + 16);
                        auto* panels = packed.data() + (64 - reinterpret_cast<std::uintptr_t>(packed.data()) % 64) % 64 / sizeof(float);
                        t.pack_b_f32(n, k, b.data(), n, false, 1.f, panels);
                        std::fill(work.begin(), work.end(), mark);
                        auto* room = work.data() + (64 - reinterpret_cast<std::uintptr_t>(work.data()) % 64) % 64 / sizeof(float);
                        vec::Epilogue e;
                        e.bias_row = row.data();
                        e.post = post;
                        t.gemm_packed_f32(m, n, k, a.data(), k, false, panels, c.data(), n, e, room);
                        ASSERT_TRUE(std::all_of(c.begin(), c.end(), [](float v) { return v == 0; })) << m << " x " << n << " x " << k;
                        ASSERT_TRUE(std::all_of(room + matmul::packed_work / sizeof(float), work.data() + work.size(), [&](float v) { return v == mark; })) << m << " x " << n << " x " << k;
                    }
    }
}
}  // namespace
