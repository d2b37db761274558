// kernels/attention/cuda.cu against a double reference that writes all scores.
#include <quern/kernels/attention/cuda.hpp>

#include "device_test.hpp"

namespace {

using namespace device_test;
using quern::attention::cuda_attention;
using quern::attention::CudaAttention;

enum class Mask { none, boolean, f32 };

struct Case {
    std::int64_t batch, heads, kv_heads, queries, keys, d, dv;
    Mask mask = Mask::none;
    bool causal = false, heads_inside = false;
    std::int64_t past = 0, left = -1, right = -1;
    float softcap = 0;
    std::int64_t short_mask = 0;
};

class Attention : public DeviceTest {};

void check(const Case& c) {
    SCOPED_TRACE(testing::Message() << c.batch << " x " << c.heads << "/" << c.kv_heads << " x " << c.queries << " x "
                                    << c.keys << " x " << c.d << ", " << c.dv);
    CudaAttention a;
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
    const auto q = random_values(n(c.batch * lq.batch), 1, 1), k = random_values(n(c.batch * lk.batch), 1, 2),
               v = random_values(n(c.batch * lv.batch), 1, 3);
    const std::int64_t mask_length = c.keys - c.short_mask, mask_batch = c.queries * mask_length;
    auto mask = random_values(n(c.batch * mask_batch), 1, 4);
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
                    else if (c.mask == Mask::f32) p += static_cast<double>(mask[n(at)]);
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
    const auto dq = on_device(q), dk = on_device(k), dv = on_device(v), dm = on_device(mask);
    const auto dopen = on_device(open);
    a.q = dq.data(), a.k = dk.data(), a.v = dv.data();
    if (c.mask != Mask::none) {
        auto& m = a.mask[c.queries % 2];  // either place
        m.boolean = c.mask == Mask::boolean;
        m.data = m.boolean ? static_cast<const void*>(dopen.data()) : dm.data();
        m.query = mask_length, m.key = 1, m.length = mask_length, m.lead[0] = mask_batch;
    }
    run_each<float>(
        want.size(),
        [&](float* y) {
            a.y = y;
            return cuda_attention(a, nullptr);
        },
        [&](const std::vector<float>& got) { expect_close(got, want, 4e-6, std::vector<double>(want.size(), 5.0)); });
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
}

}  // namespace
