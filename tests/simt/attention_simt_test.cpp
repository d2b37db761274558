// kernels/attention/cuda.cu against a double reference that writes all scores.
#include <quern/kernels/attention/cuda.hpp>

#include "half_test.hpp"

namespace {

using namespace device_test;
using quern::attention::cuda_attention;
using quern::DType;
using quern::attention::CudaAttention;
using quern::attention::cuda_rotary;
using quern::attention::CudaRotary;

enum class Mask { none, boolean, f32, same };  // same: the operands' type

struct Case {
    std::int64_t batch, heads, kv_heads, queries, keys, d, dv;
    Mask mask = Mask::none;
    bool causal = false, heads_inside = false;
    std::int64_t past = 0, left = -1, right = -1;
    float softcap = 0;
    std::int64_t short_mask = 0;
};

class Attention : public DeviceTest {};

template <class T>
void check_type(const Case& c) {
    SCOPED_TRACE(testing::Message() << c.batch << " x " << c.heads << "/" << c.kv_heads << " x " << c.queries << " x "
                                    << c.keys << " x " << c.d << ", " << c.dv << ", type "
                                    << static_cast<int>(Storage<T>::type));
    CudaAttention a;
    a.type = Storage<T>::type;
    a.queries = c.queries, a.keys = c.keys, a.d = c.d, a.dv = c.dv;
    struct Lay {
        std::int64_t batch, head, row;
    };
    const auto lay = [&](std::int64_t heads, std::int64_t rows, std::int64_t width) {
        return Lay{heads * rows * width, c.heads_inside ? width : rows * width, c.heads_inside ? heads * width : width};
    };
    const Lay lq = lay(c.heads, c.queries, c.d), lk = lay(c.kv_heads, c.keys, c.d), lv = lay(c.kv_heads, c.keys, c.dv),
              ly = lay(c.heads, c.queries, c.dv);
    const std::int64_t group = c.heads / c.kv_heads;
    a.lead_rank = 3;
    const auto put = [&](std::int64_t* to, const Lay& l, bool grouped) {
        to[0] = l.batch, to[1] = grouped ? l.head * group : l.head, to[2] = grouped ? l.head : 0;
    };
    a.lead[0] = c.batch, a.lead[1] = c.kv_heads, a.lead[2] = group;
    put(a.q_lead, lq, true), put(a.k_lead, lk, false), put(a.v_lead, lv, false), put(a.y_lead, ly, true);
    a.q_row = lq.row, a.k_row = lk.row, a.v_row = lv.row, a.y_row = ly.row;
    const auto n = [](std::int64_t v) { return static_cast<std::size_t>(v); };
    const auto q = held<T>(random_values(n(c.batch * lq.batch), 1, 1)),
               k = held<T>(random_values(n(c.batch * lk.batch), 1, 2)),
               v = held<T>(random_values(n(c.batch * lv.batch), 1, 3));
    const std::int64_t mask_length = c.keys - c.short_mask, mask_batch = c.queries * mask_length;
    auto mask = random_values(n(c.batch * mask_batch), 1, 4);
    if (c.mask == Mask::same) mask = held<T>(mask);
    std::vector<std::uint8_t> open;
    for (float& m : mask) {
        open.push_back(m > -0.5f);
        if (m < -1) m = -INFINITY;
    }
    if (c.mask != Mask::none)
        for (std::int64_t j = 0; j < mask_length; ++j) {  // the first query sees nothing
            open[n(j)] = 0;
            mask[n(j)] = -INFINITY;
        }
    a.causal = c.causal, a.past = c.past, a.left = c.left, a.right = c.right, a.softcap = c.softcap, a.scale = 0.3f;
    std::vector<double> want(n(c.batch * ly.batch));
    for (std::int64_t b = 0; b < c.batch; ++b)
        for (std::int64_t h = 0; h < c.heads; ++h)
            for (std::int64_t i = 0; i < c.queries; ++i) {
                const std::int64_t g = h / (c.heads / c.kv_heads);
                std::vector<double> s(n(c.keys)), y(n(c.dv));
                double top = -INFINITY, sum = 0;
                for (std::int64_t j = 0; j < c.keys; ++j) {
                    double p = 0;
                    for (std::int64_t e = 0; e < c.d; ++e)
                        p += static_cast<double>(q[n(b * lq.batch + h * lq.head + i * a.q_row + e)]) *
                             static_cast<double>(k[n(b * lk.batch + g * lk.head + j * a.k_row + e)]);
                    p *= static_cast<double>(a.scale);
                    if (c.softcap > 0)
                        p = static_cast<double>(c.softcap) * std::tanh(p / static_cast<double>(c.softcap));
                    const std::int64_t at = b * mask_batch + i * mask_length + j;
                    if (c.mask != Mask::none && j >= mask_length) p = -INFINITY;
                    else if (c.mask == Mask::boolean) p = open[n(at)] ? p : -INFINITY;
                    else if (c.mask != Mask::none) p += static_cast<double>(mask[n(at)]);
                    if (c.causal && j > c.past + i) p = -INFINITY;
                    if (c.right >= 0 && j > c.past + i + c.right) p = -INFINITY;
                    if (c.left >= 0 && j < c.past + i - c.left) p = -INFINITY;
                    s[n(j)] = p;
                    top = std::fmax(top, p);
                }
                for (double& p : s) {
                    p = std::isinf(p) ? 0 : std::exp(p - top);
                    sum += p;
                }
                for (std::int64_t j = 0; j < c.keys; ++j)
                    for (std::int64_t e = 0; e < c.dv; ++e)
                        y[n(e)] += s[n(j)] * static_cast<double>(v[n(b * lv.batch + g * lv.head + j * a.v_row + e)]);
                for (std::int64_t e = 0; e < c.dv; ++e)
                    want[n(b * ly.batch + h * ly.head + i * a.y_row + e)] = sum > 0 ? y[n(e)] / sum : 0;
            }
    const auto dq = on_device(narrow<T>(q)), dk = on_device(narrow<T>(k)), dv = on_device(narrow<T>(v)),
               dsame = on_device(narrow<T>(mask));
    const auto dm = on_device(mask);
    const auto dopen = on_device(open);
    a.q = dq.data(), a.k = dk.data(), a.v = dv.data();
    if (c.mask != Mask::none) {
        auto& m = a.mask[c.queries % 2];  // either place
        m.type = c.mask == Mask::boolean ? DType::boolean : c.mask == Mask::f32 ? DType::f32 : a.type;
        m.data = c.mask == Mask::boolean ? static_cast<const void*>(dopen.data())
                 : c.mask == Mask::f32   ? static_cast<const void*>(dm.data())
                                         : dsame.data();
        m.query = mask_length, m.key = 1, m.length = mask_length, m.lead[0] = mask_batch;
    }
    const double tolerance = a.type == DType::f32 ? 4e-6 : a.type == DType::f16 ? 1.5e-3 : 1e-2;
    run_each<T>(
        want.size(),
        [&](T* y) {
            a.y = y;
            return cuda_attention(a, nullptr);
        },
        [&](const std::vector<T>& got) {
            expect_close(widen(got), want, tolerance, std::vector<double>(want.size(), 4.0));
        });
}
void check(const Case& c) { check_type<float>(c); }
void check_halves(const Case& c) {
    check_type<__half>(c);
    check_type<__nv_bfloat16>(c);
}

TEST_F(Attention, HalvesInTilesOfEveryWidth) {
    check_halves({1, 2, 2, 70, 40, 32, 32});
    check_halves({2, 2, 1, 12, 133, 64, 64});  // the third tile of keys has a part
    check_halves({1, 1, 1, 9, 70, 80, 72});
    check_halves({1, 1, 1, 20, 100, 104, 128});
    check_halves({1, 2, 1, 10, 35, 7, 5});  // nothing is a multiple of eight
}
TEST_F(Attention, HalvesWithMasksAndWindows) {
    check_halves({1, 4, 2, 17, 81, 16, 16, Mask::none, true, true, 64});
    check_halves({1, 1, 1, 66, 140, 16, 16, Mask::none, true, false, 70, 5});
    check_halves({2, 2, 2, 18, 34, 16, 16, Mask::boolean});
    check_halves({2, 2, 2, 18, 34, 16, 16, Mask::f32, true, false, 16});
    check_halves({1, 1, 1, 9, 40, 16, 16, Mask::same, false, false, 0, -1, -1, 2.0f, 3});
}
TEST_F(Attention, HalvesAndFewQueries) {
    check_halves({2, 4, 2, 1, 150, 64, 64, Mask::none, true, false, 149});
    check_halves({1, 2, 2, 3, 10, 16, 24, Mask::boolean});
    check_halves({1, 2, 1, 8, 7, 33, 33, Mask::same, true});
}
TEST_F(Attention, TilesOfEveryWidth) {
    check({1, 2, 2, 70, 40, 32, 32});
    check({2, 2, 1, 12, 33, 64, 64});
    check({1, 1, 1, 9, 70, 80, 72});
    check({1, 1, 1, 20, 20, 100, 128});
    check({1, 2, 1, 10, 35, 7, 5});  // nothing is a multiple of four
}
TEST_F(Attention, HeadsInsideAndWindows) {
    check({1, 4, 2, 17, 21, 16, 16, Mask::none, true, true, 4});
    check({1, 1, 1, 40, 40, 16, 16, Mask::none, false, false, 0, 3, 2});
    check({1, 1, 1, 66, 66, 16, 16, Mask::none, true, false, 0, 5});
}
TEST_F(Attention, MasksAndCap) {
    check({2, 2, 2, 18, 34, 16, 16, Mask::boolean});
    check({2, 2, 2, 18, 34, 16, 16, Mask::f32, true, false, 16});
    check({1, 1, 1, 9, 40, 16, 16, Mask::f32, false, false, 0, -1, -1, 2.0f, 3});
}
TEST_F(Attention, FewQueries) {
    check({2, 4, 2, 1, 150, 64, 64, Mask::none, true, false, 149});
    check({1, 2, 2, 3, 10, 16, 24, Mask::boolean});
    check({1, 2, 1, 8, 7, 33, 33, Mask::f32, true});
    check({1, 1, 1, 2, 130, 128, 128, Mask::none, false, false, 100, 20, 5});
}
// One mask that closes a row for each key alike and one with a stride of its own; a closed row gives NaN where it is
// to.
TEST_F(Attention, TwoMasksAndClosedRows) {
    for (std::int64_t queries : {3, 20}) {
        const std::size_t n = static_cast<std::size_t>(queries);
        const auto q = random_values(n * 8, 1, 1), k = random_values(5 * 8, 1, 2), v = random_values(5 * 8, 1, 3);
        std::vector<float> rows(n, 0.0f), keys = {0.5f, -0.5f, 1, 0, 2};
        rows[1] = -INFINITY;
        const auto dq = on_device(q), dk = on_device(k), dv = on_device(v), dr = on_device(rows),
                   dkeys = on_device(keys);
        CudaAttention a;
        a.q = dq.data(), a.k = dk.data(), a.v = dv.data();
        a.queries = queries, a.keys = 5, a.d = a.dv = a.q_row = a.k_row = a.v_row = a.y_row = 8;
        a.mask[0].data = dr.data(), a.mask[0].query = 1;
        a.mask[1].data = dkeys.data(), a.mask[1].key = 1;
        for (bool zero : {false, true}) {
            a.closed_is_zero = zero;
            std::vector<double> want;
            for (std::size_t i = 0; i < n; ++i) {
                double p[5], sum = 0;
                for (std::size_t j = 0; j < 5; ++j) {
                    double s = static_cast<double>(keys[j]);
                    for (std::size_t e = 0; e < 8; ++e)
                        s += static_cast<double>(q[i * 8 + e]) * static_cast<double>(k[j * 8 + e]);
                    sum += p[j] = std::exp(s);
                }
                for (std::size_t e = 0; e < 8; ++e) {
                    double y = 0;
                    for (std::size_t j = 0; j < 5; ++j) y += p[j] / sum * static_cast<double>(v[j * 8 + e]);
                    want.push_back(i == 1 ? (zero ? 0 : NAN) : y);
                }
            }
            run_each<float>(
                n * 8,
                [&](float* y) {
                    a.y = y;
                    return cuda_attention(a, nullptr);
                },
                [&](const std::vector<float>& got) {
                    expect_close(got, want, 4e-6, std::vector<double>(want.size(), 5.0));
                });
        }
    }
}
TEST_F(Attention, Limits) {
    CudaAttention a;
    EXPECT_EQ(cuda_attention(a, nullptr), cudaSuccess);
    a.d = 129;
    EXPECT_EQ(cuda_attention(a, nullptr), cudaErrorInvalidValue);
    a.d = 8;
    a.type = DType::f64;
    EXPECT_EQ(cuda_attention(a, nullptr), cudaErrorInvalidValue);
}

class RotaryEmbedding : public DeviceTest {};

template <class T>
void check_rotary(CudaRotary r, std::vector<std::int64_t> ids, bool in_place = false) {
    SCOPED_TRACE(testing::Message() << r.batch << " x " << r.heads << " x " << r.length << " x " << r.d << ", half "
                                    << r.half << (r.heads_first ? ", heads first" : "")
                                    << (r.interleaved ? ", interleaved" : "") << ", type "
                                    << static_cast<int>(Storage<T>::type));
    r.type = Storage<T>::type;
    r.positions = ids.empty() ? r.batch * r.length : 40;
    const auto n = [](std::int64_t v) { return static_cast<std::size_t>(v); };
    const auto x = held<T>(random_values(n(r.batch * r.heads * r.length * r.d), 1, 1)),
               cosine = held<T>(random_values(n(r.positions * r.half), 1, 2)),
               sine = held<T>(random_values(n(r.positions * r.half), 1, 3));
    std::vector<double> want(x.begin(), x.end());
    for (std::int64_t b = 0; b < r.batch; ++b)
        for (std::int64_t h = 0; h < r.heads; ++h)
            for (std::int64_t s = 0; s < r.length; ++s)
                for (std::int64_t j = 0; j < r.half; ++j) {
                    const std::int64_t row = r.heads_first ? (b * r.heads + h) * r.length + s
                                                           : (b * r.length + s) * r.heads + h;
                    const std::int64_t p = ids.empty() ? b * r.length + s : ids[n(b * r.length + s)];
                    const bool inside = p >= 0 && p < r.positions;
                    const double c = inside ? static_cast<double>(cosine[n(p * r.half + j)]) : 0,
                                 d = inside ? static_cast<double>(sine[n(p * r.half + j)]) : 0;
                    const std::size_t first = n(row * r.d + (r.interleaved ? 2 * j : j)),
                                      second = n(row * r.d + (r.interleaved ? 2 * j + 1 : r.half + j));
                    const double u = static_cast<double>(x[first]), v = static_cast<double>(x[second]);
                    want[first] = c * u - d * v;
                    want[second] = d * u + c * v;
                }
    const auto dx = on_device(narrow<T>(x)), dc = on_device(narrow<T>(cosine)), ds = on_device(narrow<T>(sine));
    const auto di = on_device(ids);
    r.x = dx.data(), r.cosine = dc.data(), r.sine = ds.data();
    if (!ids.empty()) r.ids = di.data();
    run_each<T>(
        want.size(),
        [&](T* y) {
            if (in_place) {
                cudaMemcpy(y, dx.data(), x.size() * sizeof(T), cudaMemcpyDeviceToDevice);
                r.x = y;
            }
            r.y = y;
            return cuda_rotary(r, nullptr);
        },
        [&](const std::vector<T>& got) { expect_close(widen(got), want, 1e-6 + Storage<T>::rounding); });
}
TEST_F(RotaryEmbedding, LayoutsPairsAndTypes) {
    each_storage([](auto t) {
        using T = decltype(t);
        for (bool first : {true, false})
            for (bool interleaved : {false, true}) {
                CudaRotary r;
                r.heads_first = first, r.interleaved = interleaved;
                r.batch = 2, r.heads = 3, r.length = 5, r.d = 32, r.half = 16;
                check_rotary<T>(r, {});
                check_rotary<T>(r, {0, 39, 3, 3, 7, 40, -1, 9, 8, 2}, true);  // two beyond the table
                r.d = 48;  // a part stays, in packs
                check_rotary<T>(r, {});
                r.batch = 1, r.d = 11, r.half = 3;
                check_rotary<T>(r, {4, 3, 2, 1, 0});
            }
    });
}
/// Rows from within wider ones go behind those of a cache, with and without being turned; nothing else is written.
TEST_F(RotaryEmbedding, RowsThatLieApart) {
    each_storage([](auto t) {
        using T = decltype(t);
        for (const auto& [d, half] : {std::pair<std::int64_t, std::int64_t>{32, 16}, {32, 4}, {32, 0}, {11, 3}})
            for (bool interleaved : {false, true}) {
                SCOPED_TRACE(testing::Message() << d << ", half " << half << (interleaved ? ", interleaved" : ""));
                CudaRotary r;
                r.type = Storage<T>::type, r.interleaved = interleaved;
                r.batch = 2, r.heads = 3, r.length = 5, r.d = d, r.half = half, r.positions = 10;
                const std::int64_t room = 9, past = 3, wide = 2 * r.heads * d;
                r.x_at = {r.length * wide, d, wide}, r.y_at = {r.heads * room * d, room * d, d};
                const auto n = [](std::int64_t v) { return static_cast<std::size_t>(v); };
                const auto x = held<T>(random_values(n(r.batch * r.length * wide), 1, 1)), cosine = held<T>(random_values(n(10 * half), 1, 2)),
                           sine = held<T>(random_values(n(10 * half), 1, 3));
                std::vector<double> want(n(r.batch * r.heads * room * d), std::nan(""));
                for (std::int64_t b = 0; b < r.batch; ++b)
                    for (std::int64_t h = 0; h < r.heads; ++h)
                        for (std::int64_t i = 0; i < r.length; ++i) {
                            const std::size_t from = n((b * r.length + i) * wide + r.heads * d + h * d), to = n(((b * r.heads + h) * room + past + i) * d);
                            for (std::int64_t j = 0; j < d; ++j) want[to + n(j)] = static_cast<double>(x[from + n(j)]);
                            for (std::int64_t j = 0; j < half; ++j) {
                                const std::size_t first = n(interleaved ? 2 * j : j), second = n(interleaved ? 2 * j + 1 : half + j), at = n((b * r.length + i) * half + j);
                                const double u = static_cast<double>(x[from + first]), v = static_cast<double>(x[from + second]), c = static_cast<double>(cosine[at]), e = static_cast<double>(sine[at]);
                                want[to + first] = c * u - e * v;
                                want[to + second] = e * u + c * v;
                            }
                        }
                const auto dx = on_device(narrow<T>(x)), dc = on_device(narrow<T>(cosine)), ds = on_device(narrow<T>(sine));
                r.x = dx.data() + r.heads * d, r.cosine = dc.data(), r.sine = ds.data();
                run_each<T>(
                    want.size(), [&](T* y) { return r.y = y + past * r.d, cuda_rotary(r, nullptr); },
                    [&](const std::vector<T>& got) {
                        const auto values = widen(got);
                        for (std::size_t i = 0; i < want.size(); ++i) {
                            if (std::isnan(want[i])) ASSERT_TRUE(std::isnan(static_cast<double>(values[i]))) << i;
                            else ASSERT_NEAR(static_cast<double>(values[i]), want[i], 1e-6 + Storage<T>::rounding * (1 + std::abs(want[i]))) << i;
                        }
                    });
            }
    });
}
TEST_F(RotaryEmbedding, Limits) {
    CudaRotary r;
    EXPECT_EQ(cuda_rotary(r, nullptr), cudaSuccess);
    r.batch = r.heads = r.length = 1, r.d = 4, r.half = 3;
    EXPECT_EQ(cuda_rotary(r, nullptr), cudaErrorInvalidValue);
    r.half = 2, r.type = DType::f64;
    EXPECT_EQ(cuda_rotary(r, nullptr), cudaErrorInvalidValue);
    r.type = DType::f32, r.batch = std::int64_t{1} << 40;
    EXPECT_EQ(cuda_rotary(r, nullptr), cudaErrorInvalidValue);
}

}  // namespace
