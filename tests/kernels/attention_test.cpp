// Fused attention against a reference in double: layouts, masks, sizes around the tiles, rows without an open key.
#include <cmath>

#include <quern/kernels/attention/append.hpp>
#include "support/kernel_harness.hpp"

namespace {
using namespace quern;
using namespace quern_test;
using attention::Factor;
using attention::Layout;

/// Offsets of a layout by role, from the sizes alone.
std::int64_t at(const Layout& layout, const std::int64_t* index, const std::int64_t* sizes) {
    std::int64_t o = 0;
    for (const Factor& f : layout) {
        std::int64_t n = f.role == Factor::fixed ? f.size : sizes[f.role];
        o = o * n + (f.role == Factor::fixed ? f.index : index[f.role]);
    }
    return o;
}
Dims dims_of(const Layout& layout, const std::int64_t* sizes) {
    Dims d;
    for (const Factor& f : layout) {
        while (static_cast<std::int64_t>(d.size()) <= f.dim) d.push_back(1);
        d[static_cast<std::size_t>(f.dim)] *= f.role == Factor::fixed ? f.size : sizes[f.role];
    }
    return d;
}
Factor lead(std::int64_t dim, std::int64_t i, std::int64_t size = -1) { return {dim, i, size, 0}; }
Factor role(std::int64_t dim, std::int64_t r, std::int64_t size = -1) { return {dim, r, size, 0}; }
Factor fixed(std::int64_t dim, std::int64_t size, std::int64_t index) { return {dim, Factor::fixed, size, index}; }

struct Case {
    std::int64_t b = 1, h = 1, s = 1, t = 1, d = 1, dv = 1;
    attention::FusedProblem p;
    double closed = 0;  ///< part of the masks' elements that are -inf
    bool close_first_query = false;
    double close_with = -INFINITY;
    std::int64_t half = 0;                 ///< pairs of a query's values that turn
    std::int64_t after = -1, before = -1;  ///< >= 0: keys farther than that from a query's own are closed in the first mask
};
constexpr double inf = INFINITY;

void check(Case c, std::mt19937& rng) {
    std::int64_t sizes[attention::roles] = {c.b, c.h, 1, 1, 1, 1, 0, 0, c.s, c.t, c.d};
    std::int64_t sizes_v[attention::roles];
    std::copy(sizes, sizes + attention::roles, sizes_v);
    sizes_v[Factor::inner] = c.dv;
    auto values = [&](const Layout& l, const std::int64_t* n) { return random_values(rng, count_of(dims_of(l, n)), -2, 2); };
    auto q = values(c.p.q, sizes), k = values(c.p.k, sizes), v = values(c.p.v, sizes_v);
    std::vector<double> mask[2];
    for (int m = 0; m < 2; ++m) {
        if (c.p.mask[m].empty()) continue;
        mask[m] = values(c.p.mask[m], sizes);
        for (double& x : mask[m])
            if (double(rng() % 1000) < 1000 * c.closed) x = -inf;
    }
    if (c.close_first_query)
        for (std::int64_t b = 0; b < c.b; ++b)
            for (std::int64_t t = 0; t < c.t; ++t) {
                std::int64_t i[attention::roles] = {b, 0, 0, 0, 0, 0, 0, 0, 0, t, 0};
                mask[0][static_cast<std::size_t>(at(c.p.mask[0], i, sizes))] = c.close_with;
            }
    for (std::int64_t i = 0; i < c.s; ++i)
        for (std::int64_t t = 0; t < c.t; ++t) {
            std::int64_t own = i + c.t - c.s, r[attention::roles] = {0, 0, 0, 0, 0, 0, 0, 0, i, t, 0};
            if ((c.after >= 0 && t > own + c.after) || (c.before >= 0 && t < own - c.before)) mask[0][static_cast<std::size_t>(at(c.p.mask[0], r, sizes))] = c.close_with;
        }
    Guarded asked(DType::f32, dims_of(c.p.q, sizes), q);
    std::int64_t sizes_t[attention::roles];
    std::copy(sizes, sizes + attention::roles, sizes_t);
    sizes_t[Factor::inner] = c.half;
    if (c.half) c.p.table = {lead(0, 0), role(1, Factor::query), role(2, Factor::inner)};
    auto cosine = c.half ? values(c.p.table, sizes_t) : std::vector<double>{}, sine = c.half ? values(c.p.table, sizes_t) : std::vector<double>{};
    for (std::int64_t b = 0; b < c.b; ++b)
        for (std::int64_t h = 0; h < c.h; ++h)
            for (std::int64_t s = 0; s < c.s; ++s)
                for (std::int64_t j = 0; j < c.half; ++j) {
                    auto place = [&](std::int64_t e) {
                        std::int64_t i[attention::roles] = {b, h, 0, 0, 0, 0, 0, 0, s, 0, e};
                        return static_cast<std::size_t>(at(c.p.q, i, sizes));
                    };
                    std::size_t t = static_cast<std::size_t>((b * c.s + s) * c.half + j), first = place(c.p.interleaved ? 2 * j : j), second = place(c.p.interleaved ? 2 * j + 1 : j + c.half);
                    double u = q[first], w = q[second];
                    q[first] = cosine[t] * u - sine[t] * w;
                    q[second] = sine[t] * u + cosine[t] * w;
                }
    Guarded gc(DType::f32, c.half ? dims_of(c.p.table, sizes_t) : Dims{0}, cosine), gs(DType::f32, c.half ? dims_of(c.p.table, sizes_t) : Dims{0}, sine);
    Guarded gk(DType::f32, dims_of(c.p.k, sizes), k), gv(DType::f32, dims_of(c.p.v, sizes_v), v);
    Guarded m0(DType::f32, dims_of(c.p.mask[0], sizes), mask[0]), m1(DType::f32, dims_of(c.p.mask[1], sizes), mask[1]), y(DType::f32, dims_of(c.p.y, sizes_v));
    std::vector<double> want(static_cast<std::size_t>(count_of(y.dims)));
    for (std::int64_t b = 0; b < c.b; ++b)
        for (std::int64_t h = 0; h < c.h; ++h)
            for (std::int64_t s = 0; s < c.s; ++s) {
                std::vector<double> p(static_cast<std::size_t>(c.t));
                double top = -inf, sum = 0;
                for (std::int64_t t = 0; t < c.t; ++t) {
                    double x = 0;
                    for (std::int64_t d = 0; d < c.d; ++d) {
                        std::int64_t i[attention::roles] = {b, h, 0, 0, 0, 0, 0, 0, s, t, d};
                        x += q[static_cast<std::size_t>(at(c.p.q, i, sizes))] * k[static_cast<std::size_t>(at(c.p.k, i, sizes))];
                    }
                    x *= static_cast<double>(c.p.scale);
                    std::int64_t i[attention::roles] = {b, h, 0, 0, 0, 0, 0, 0, s, t, 0};
                    for (int m = 0; m < 2; ++m)
                        if (!mask[m].empty()) x += mask[m][static_cast<std::size_t>(at(c.p.mask[m], i, sizes))];
                    p[static_cast<std::size_t>(t)] = x;
                    top = std::max(top, x);
                }
                for (double& x : p) sum += x = top == -inf ? (c.p.closed_is_zero ? 0 : NAN) : std::exp(x - top);
                for (std::int64_t j = 0; j < c.dv; ++j) {
                    double r = 0;
                    std::int64_t i[attention::roles] = {b, h, 0, 0, 0, 0, 0, 0, s, 0, j};
                    for (std::int64_t t = 0; t < c.t; ++t) {
                        i[Factor::key] = t;
                        r += p[static_cast<std::size_t>(t)] * v[static_cast<std::size_t>(at(c.p.v, i, sizes_v))];
                    }
                    want[static_cast<std::size_t>(at(c.p.y, i, sizes_v))] = c.t == 0 || (c.p.closed_is_zero && top == -inf) ? 0 : r / sum;
                }
            }
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (isa > best_isa()) continue;
        SCOPED_TRACE(testing::Message() << isa_name(isa) << " s " << c.s << " t " << c.t << " d " << c.d << " dv " << c.dv);
        attention::FusedKernel kernel(c.p, vec::table(isa));
        View absent;
        std::vector<View> in{asked.view(), gk.view(), gv.view(), c.p.mask[0].empty() ? absent : m0.view(), c.p.mask[1].empty() ? absent : m1.view()};
        if (c.half) in.insert(in.end(), {gc.view(), gs.view()});
        run_kernel(kernel, in, y);
        for (std::size_t i = 0; i < want.size(); ++i) {
            if (std::isnan(want[i])) ASSERT_TRUE(std::isnan(y.get(i))) << i;
            else ASSERT_NEAR(y.get(i), want[i], 4e-6 * 2) << i;
        }
    }
}
/// [B, H, L, D] and, as projections give it, [B, L, H * D].
Layout split(std::int64_t r) { return {lead(0, 0), lead(1, 1), role(2, r), role(3, Factor::inner)}; }
Layout joined(std::int64_t r, const Case& c, std::int64_t d) { return {lead(0, 0), role(1, r), lead(2, 1, c.h), role(2, Factor::inner, d)}; }
/// Part `i` of [L, B, 3 * H * D].
Layout packed(std::int64_t r, const Case& c, std::int64_t d, std::int64_t i) { return {role(0, r), lead(1, 0), fixed(2, 3, i), lead(2, 1, c.h), role(2, Factor::inner, d)}; }

void shapes(Case& c, int form) {
    if (form == 0) c.p.q = split(Factor::query), c.p.k = split(Factor::key), c.p.v = split(Factor::key), c.p.y = split(Factor::query);
    else if (form == 1) c.p.q = joined(Factor::query, c, c.d), c.p.k = joined(Factor::key, c, c.d), c.p.v = joined(Factor::key, c, c.dv), c.p.y = joined(Factor::query, c, c.dv);
    else c.p.q = packed(Factor::query, c, c.d, 0), c.p.k = packed(Factor::key, c, c.d, 1), c.p.v = packed(Factor::key, c, c.dv, 2), c.p.y = joined(Factor::query, c, c.dv);
}

TEST(FusedAttention, SizesAndLayouts) {
    std::mt19937 rng(seed());
    for (int form = 0; form < 3; ++form)
        for (std::int64_t s : {1, 3, 5, 9, 17, 18, 33, 50, 64, 70})
            for (std::int64_t t : {1, 16, 50, 129, 300}) {
                Case c{2, 3, s, t, 64, 64};
                if (form == 1) c.d = 40, c.dv = 24;
                c.p.scale = 0.125f;
                shapes(c, form);
                check(c, rng);
            }
}
TEST(FusedAttention, OddSizes) {
    std::mt19937 rng(seed());
    for (std::int64_t d : {1, 7, 33})
        for (std::int64_t dv : {1, 5, 70})
            for (std::int64_t s : {2, 20})
                for (std::int64_t t : {0, 1, 131}) {
                    Case c{1, 2, s, t, d, dv};
                    c.p.scale = 0.5f;
                    shapes(c, 1);
                    check(c, rng);
                }
    Case whole_pages{1, 1, 20, 40, 64, 64};  // rows of K whole pages apart
    whole_pages.h = 16;
    whole_pages.p.scale = 0.1f;
    shapes(whole_pages, 1);
    check(whole_pages, rng);
}
TEST(FusedAttention, MasksOfEachForm) {
    std::mt19937 rng(seed());
    const Layout forms[] = {
        {role(0, Factor::query), role(1, Factor::key)},
        {lead(0, 0), role(1, Factor::key)},
        {lead(0, 0), lead(1, 1), role(2, Factor::query), role(3, Factor::key)},
        {lead(0, 1), role(1, Factor::query)},
        {role(0, Factor::key)},
        {lead(0, 0)},
    };
    for (std::int64_t s : {1, 5, 21, 40})
        for (const Layout& a : forms)
            for (const Layout& b : {Layout{}, forms[2], forms[1]}) {
                Case c{2, 2, s, 150, 32, 32};
                c.p.scale = 0.2f;
                c.p.mask[0] = a, c.p.mask[1] = b;
                c.closed = b.empty() ? 0.3 : 0;
                c.p.closed_is_zero = true;
                shapes(c, 1);
                check(c, rng);
            }
}
TEST(FusedAttention, AQueryWithoutAnOpenKey) {
    std::mt19937 rng(seed());
    for (bool zero : {false, true})
        for (std::int64_t s : {1, 30}) {
            Case c{2, 2, s, 200, 32, 32};
            c.p.closed_is_zero = zero;
            c.close_first_query = true;
            c.p.mask[0] = {lead(0, 0), role(1, Factor::query), role(2, Factor::key)};
            shapes(c, 0);
            check(c, rng);
        }
}
/// Exporters close keys with the lowest float; a query with no other keys takes the mean of all, as softmax does.
TEST(FusedAttention, AQueryWhoseKeysAllHaveTheLowestFloat) {
    std::mt19937 rng(seed());
    for (bool own_row : {false, true})
        for (std::int64_t s : {1, 30}) {
            Case c{2, 2, s, 200, 32, 32};
            c.close_first_query = true;
            c.close_with = -3.4028234663852886e38;
            c.p.scale = 0.125f;
            if (own_row) c.p.mask[0] = {lead(0, 0), role(1, Factor::query), role(2, Factor::key)};
            else c.p.mask[0] = {lead(0, 0), role(1, Factor::key)};
            shapes(c, 0);
            check(c, rng);
        }
}
/// Causal masks and windows: whole blocks of keys are closed, at the end, at the beginning, at both.
TEST(FusedAttention, BlocksOfClosedKeys) {
    std::mt19937 rng(seed());
    for (double with : {-inf, -3.4028234663852886e38, -2e38})
        for (auto [after, before] : {std::pair<std::int64_t, std::int64_t>{0, -1}, {-1, 3}, {0, 40}, {5, 0}})
            for (auto [s, t] : {std::pair<std::int64_t, std::int64_t>{1, 290}, {3, 270}, {70, 70}, {40, 290}})
                for (bool second : {false, true}) {
                    Case c{1, 1, s, t, 8, 12};
                    c.p.scale = 0.3f;
                    c.after = after, c.before = before, c.close_with = with;
                    c.p.mask[0] = {role(0, Factor::query), role(1, Factor::key)};
                    if (second) c.p.mask[1] = {lead(0, 0), role(1, Factor::key)};
                    shapes(c, 1);
                    check(c, rng);
                }
}
TEST(FusedAttention, KeysThatAreClosedForAllAreNotLookedAt) {
    const std::int64_t s = 40, t = 300, d = 16;
    for (double with : {-inf, -3.4028234663852886e38})
        for (std::int64_t queries : {std::int64_t{2}, s}) {
            attention::FusedProblem p;
            p.q = p.y = {role(0, Factor::query), role(1, Factor::inner)};
            p.k = p.v = {role(0, Factor::key), role(1, Factor::inner)};
            p.mask[0] = {role(0, Factor::key)};
            std::vector<double> k(static_cast<std::size_t>(t * d), 0.5), m(static_cast<std::size_t>(t), 0);
            for (std::int64_t j = 100; j < t; ++j) {
                m[static_cast<std::size_t>(j)] = with;
                for (std::int64_t e = 0; j >= 256 && e < d; ++e) k[static_cast<std::size_t>(j * d + e)] = NAN;
            }
            for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
                if (isa > best_isa()) continue;
                attention::FusedKernel kernel(p, vec::table(isa));
                Guarded q(DType::f32, {queries, d}, std::vector<double>(static_cast<std::size_t>(queries * d), 1)), gk(DType::f32, {t, d}, k), gm(DType::f32, {t}, m), y(DType::f32, {queries, d});
                std::vector<View> in{q.view(), gk.view(), gk.view(), gm.view()};
                run_kernel(kernel, in, y);
                for (std::int64_t i = 0; i < queries * d; ++i) ASSERT_NEAR(y.get(static_cast<std::size_t>(i)), 0.5, 1e-6) << isa_name(isa);
            }
        }
}
TEST(FusedAttention, SharedHeads) {
    std::mt19937 rng(seed());
    for (std::int64_t s : {1, 40}) {
        Case c{2, 3, s, 60, 64, 64};
        c.p.scale = 0.125f;
        shapes(c, 0);
        c.p.k = c.p.v = {lead(0, 0), role(1, Factor::key), role(2, Factor::inner)};  // no head of their own
        check(c, rng);
    }
}
TEST(FusedAttention, QueriesThatTurn) {
    std::mt19937 rng(seed());
    for (int form = 0; form < 3; ++form)
        for (std::int64_t s : {1, 3, 20, 70})
            for (bool interleaved : {false, true})
                for (std::int64_t half : {1, 12, 16}) {
                    Case c{2, 3, s, 140, 32, 32};
                    c.p.scale = 0.1f, c.p.interleaved = interleaved, c.half = half;
                    shapes(c, form);
                    if (form == 1) c.p.mask[0] = {lead(0, 0), role(1, Factor::key)};
                    check(c, rng);
                }
}
TEST(FusedAttention, TablesThatDoNotFitAreRefused) {
    attention::FusedProblem p;
    p.q = p.y = {lead(0, 0), role(1, Factor::query), role(2, Factor::inner)};
    p.k = p.v = {role(0, Factor::key), role(1, Factor::inner)};
    p.table = {lead(0, 0), role(1, Factor::query), role(2, Factor::inner)};
    attention::FusedKernel kernel(p, vec::table(Isa::baseline));
    Guarded q(DType::f32, {2, 4, 8}), k(DType::f32, {6, 8}), fits(DType::f32, {2, 4, 4}), wide(DType::f32, {2, 4, 5}), few(DType::f32, {2, 3, 4}), one(DType::f32, {1, 4, 4}), narrow(DType::f32, {2, 4, 3});
    auto book = [&](Guarded* c, Guarded* s) {
        View absent;
        std::vector<View> in{q.view(), k.view(), k.view(), absent, absent, c ? c->view() : absent, s ? s->view() : absent}, out{q.view()};
        kernel.book(in, out, 1);
    };
    EXPECT_NO_THROW(book(&fits, &fits));
    EXPECT_NO_THROW(book(&one, &one));  // one batch for all
    for (Guarded* bad : {&wide, &few}) EXPECT_THROW(book(bad, bad), Error);
    for (Guarded* bad : {&narrow, &one}) EXPECT_THROW(book(&fits, bad), Error);
    EXPECT_THROW(book(&fits, nullptr), Error);
    EXPECT_THROW(book(nullptr, nullptr), Error);
}
TEST(FusedAttention, DisagreeingSizesAreRefused) {
    attention::FusedProblem p;
    p.q = p.y = {role(0, Factor::query), role(1, Factor::inner)};
    p.k = p.v = {role(0, Factor::key), role(1, Factor::inner)};
    p.mask[0] = {role(0, Factor::key)};
    attention::FusedKernel kernel(p, vec::table(Isa::baseline));
    Guarded q(DType::f32, {4, 8}), k(DType::f32, {6, 8}), narrow(DType::f32, {6, 7}), v(DType::f32, {6, 8}), few(DType::f32, {5, 8}), mask(DType::f32, {6}), wide(DType::f32, {7});
    auto book = [&](Guarded& kk, Guarded& vv, Guarded& mm) {
        std::vector<View> in{q.view(), kk.view(), vv.view(), mm.view()}, out{q.view()};
        kernel.book(in, out, 1);
    };
    EXPECT_NO_THROW(book(k, v, mask));
    EXPECT_THROW(book(narrow, v, mask), Error);
    EXPECT_THROW(book(k, few, mask), Error);
    EXPECT_THROW(book(k, v, wide), Error);
}
TEST(AppendToCache, CopiesAndTurns) {
    std::mt19937 rng(seed());
    const std::int64_t b = 2, h = 3, d = 10;
    for (int form = 0; form < 3; ++form)
        for (std::int64_t past : {0, 1, 700})
            for (std::int64_t l : {0, 1, 9})
                for (std::int64_t half : {0, 3, 5})
                    for (bool interleaved : {false, true}) {
                        if (past + l == 0) continue;
                        Case c{b, h, 1, l, d, d};
                        attention::AppendProblem p;
                        p.interleaved = interleaved;
                        p.x = form == 0 ? split(Factor::key) : form == 1 ? joined(Factor::key, c, d) : packed(Factor::key, c, d, 1);
                        std::int64_t sizes[attention::roles] = {b, h, 1, 1, 1, 1, 0, 0, 1, l, d};
                        const Dims dims = dims_of(p.x, sizes);
                        auto old = random_values(rng, b * h * past * d, -2, 2), x = random_values(rng, count_of(dims), -2, 2), cosine = random_values(rng, b * l * half, -1, 1), sine = random_values(rng, b * l * half, -1, 1);
                        Guarded go(DType::f32, {b, h, past, d}, old), gx(DType::f32, dims, x), gc(DType::f32, {b, l, half}, cosine), gs(DType::f32, {b, l, half}, sine), y(DType::f32, {b, h, past + l, d});
                        attention::AppendKernel kernel(p);
                        std::vector<View> in{go.view(), gx.view()};
                        if (half) in.insert(in.end(), {gc.view(), gs.view()});
                        run_kernel(kernel, in, y);
                        for (std::int64_t i = 0; i < b * h; ++i)
                            for (std::int64_t r = 0; r < past + l; ++r)
                                for (std::int64_t e = 0; e < d; ++e) {
                                    double want;
                                    if (r < past) want = old[static_cast<std::size_t>((i * past + r) * d + e)];
                                    else {
                                        auto value = [&](std::int64_t k) {
                                            std::int64_t at_[attention::roles] = {i / h, i % h, 0, 0, 0, 0, 0, 0, 0, r - past, k};
                                            return x[static_cast<std::size_t>(at(p.x, at_, sizes))];
                                        };
                                        want = value(e);
                                        if (e < 2 * half) {
                                            const std::int64_t pair = interleaved ? e / 2 : e % half, first = interleaved ? 2 * pair : pair, second = interleaved ? first + 1 : pair + half;
                                            const std::size_t t = static_cast<std::size_t>((i / h * l + r - past) * half + pair);
                                            want = e == first ? cosine[t] * value(first) - sine[t] * value(second) : sine[t] * value(first) + cosine[t] * value(second);
                                        }
                                    }
                                    ASSERT_NEAR(y.get(static_cast<std::size_t>((i * (past + l) + r) * d + e)), want, 5e-7) << form << " " << past << " " << l << " " << half;
                                }
                    }
}
TEST(AppendToCache, DisagreeingSizesAreRefused) {
    attention::AppendProblem p{{lead(0, 0), role(1, Factor::key), lead(2, 1, 2), role(2, Factor::inner, 8)}, false};
    attention::AppendKernel kernel(p);
    Guarded past(DType::f32, {1, 2, 3, 8}), x(DType::f32, {1, 4, 16}), y(DType::f32, {1, 2, 7, 8}), three(DType::f32, {1, 3, 3, 8}), narrow(DType::f32, {1, 2, 3, 6}), small(DType::f32, {1, 2, 6, 8});
    Guarded table(DType::f32, {1, 4, 4}), wide(DType::f32, {1, 4, 5}), few(DType::f32, {1, 3, 4});
    auto book = [&](Guarded& o, Guarded& to, Guarded* c, Guarded* s) {
        std::vector<View> in{o.view(), x.view(), c ? c->view() : View{}, s ? s->view() : View{}}, out{to.view()};
        kernel.book(in, out, 1);
    };
    EXPECT_NO_THROW(book(past, y, nullptr, nullptr));
    EXPECT_NO_THROW(book(past, y, &table, &table));
    EXPECT_THROW(book(three, y, nullptr, nullptr), Error);
    EXPECT_THROW(book(narrow, y, nullptr, nullptr), Error);
    EXPECT_THROW(book(past, small, nullptr, nullptr), Error);
    EXPECT_THROW(book(past, y, &table, nullptr), Error);
    EXPECT_THROW(book(past, y, &wide, &wide), Error);
    EXPECT_THROW(book(past, y, &few, &few), Error);
    EXPECT_THROW(book(past, y, &table, &few), Error);
}

}  // namespace
