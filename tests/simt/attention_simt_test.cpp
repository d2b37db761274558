// kernels/attention/cuda.cu against a double reference that writes all scores.
#include <quern/kernels/attention/cuda.hpp>

#include "device_test.hpp"

namespace {

using namespace device_test;
using quern::attention::cuda_attention;
using quern::attention::CudaAttention;
using quern::attention::CudaMask;

struct Case {
    std::int64_t batch, heads, kv_heads, queries, keys, d, dv;
    CudaMask mask = CudaMask::none;
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
    a.batch = c.batch, a.heads = c.heads, a.kv_heads = c.kv_heads, a.queries = c.queries, a.keys = c.keys, a.d = c.d,
    a.dv = c.dv;
    const auto lay = [&](std::int64_t heads, std::int64_t rows, std::int64_t width, std::int64_t& batch,
                         std::int64_t& head, std::int64_t& row) {
        batch = heads * rows * width;
        head = c.heads_inside ? width : rows * width;
        row = c.heads_inside ? heads * width : width;
    };
    lay(c.heads, c.queries, c.d, a.q_batch, a.q_head, a.q_row);
    lay(c.kv_heads, c.keys, c.d, a.k_batch, a.k_head, a.k_row);
    lay(c.kv_heads, c.keys, c.dv, a.v_batch, a.v_head, a.v_row);
    lay(c.heads, c.queries, c.dv, a.y_batch, a.y_head, a.y_row);
    const auto n = [](std::int64_t v) { return static_cast<std::size_t>(v); };
    const auto q = random_values(n(c.batch * a.q_batch), 1, 1), k = random_values(n(c.batch * a.k_batch), 1, 2),
               v = random_values(n(c.batch * a.v_batch), 1, 3);
    a.mask_kind = c.mask;
    a.mask_length = c.keys - c.short_mask;
    a.mask_row = a.mask_length, a.mask_batch = c.queries * a.mask_length;
    auto mask = random_values(n(c.batch * a.mask_batch), 1, 4);
    std::vector<std::uint8_t> open;
    for (float& m : mask) {
        open.push_back(m > -0.5f);
        if (m < -1) m = -INFINITY;
    }
    if (c.mask != CudaMask::none)
        for (std::int64_t j = 0; j < a.mask_length; ++j) {  // the first query sees nothing
            open[n(j)] = 0;
            mask[n(j)] = -INFINITY;
        }
    a.causal = c.causal, a.past = c.past, a.left = c.left, a.right = c.right, a.softcap = c.softcap, a.scale = 0.3f;
    std::vector<double> want(n(c.batch * a.y_batch));
    for (std::int64_t b = 0; b < c.batch; ++b)
        for (std::int64_t h = 0; h < c.heads; ++h)
            for (std::int64_t i = 0; i < c.queries; ++i) {
                const std::int64_t g = h / (c.heads / c.kv_heads);
                std::vector<double> s(n(c.keys)), y(n(c.dv));
                double top = -INFINITY, sum = 0;
                for (std::int64_t j = 0; j < c.keys; ++j) {
                    double p = 0;
                    for (std::int64_t e = 0; e < c.d; ++e)
                        p += static_cast<double>(q[n(b * a.q_batch + h * a.q_head + i * a.q_row + e)]) *
                             static_cast<double>(k[n(b * a.k_batch + g * a.k_head + j * a.k_row + e)]);
                    p *= static_cast<double>(a.scale);
                    if (c.softcap > 0)
                        p = static_cast<double>(c.softcap) * std::tanh(p / static_cast<double>(c.softcap));
                    const std::int64_t at = b * a.mask_batch + i * a.mask_row + j;
                    if (c.mask != CudaMask::none && j >= a.mask_length) p = -INFINITY;
                    else if (c.mask == CudaMask::boolean) p = open[n(at)] ? p : -INFINITY;
                    else if (c.mask == CudaMask::f32) p += static_cast<double>(mask[n(at)]);
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
                        y[n(e)] += s[n(j)] * static_cast<double>(v[n(b * a.v_batch + g * a.v_head + j * a.v_row + e)]);
                for (std::int64_t e = 0; e < c.dv; ++e)
                    want[n(b * a.y_batch + h * a.y_head + i * a.y_row + e)] = sum > 0 ? y[n(e)] / sum : 0;
            }
    const auto dq = on_device(q), dk = on_device(k), dv = on_device(v), dm = on_device(mask);
    const auto dopen = on_device(open);
    a.q = dq.data(), a.k = dk.data(), a.v = dv.data();
    a.mask = c.mask == CudaMask::boolean ? static_cast<const void*>(dopen.data()) : dm.data();
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
    check({1, 4, 2, 17, 21, 16, 16, CudaMask::none, true, true, 4});
    check({1, 1, 1, 40, 40, 16, 16, CudaMask::none, false, false, 0, 3, 2});
    check({1, 1, 1, 66, 66, 16, 16, CudaMask::none, true, false, 0, 5});
}
TEST_F(Attention, MasksAndCap) {
    check({2, 2, 2, 18, 34, 16, 16, CudaMask::boolean});
    check({2, 2, 2, 18, 34, 16, 16, CudaMask::f32, true, false, 16});
    check({1, 1, 1, 9, 40, 16, 16, CudaMask::f32, false, false, 0, -1, -1, 2.0f, 3});
}
TEST_F(Attention, FewQueries) {
    check({2, 4, 2, 1, 150, 64, 64, CudaMask::none, true, false, 149});
    check({1, 2, 2, 3, 10, 16, 24, CudaMask::boolean});
    check({1, 2, 1, 8, 7, 33, 33, CudaMask::f32, true});
    check({1, 1, 1, 2, 130, 128, 128, CudaMask::none, false, false, 100, 20, 5});
}
TEST_F(Attention, Limits) {
    CudaAttention a;
    EXPECT_EQ(cuda_attention(a, nullptr), cudaErrorInvalidValue);  // no heads of keys
    a.kv_heads = a.heads = 1;
    EXPECT_EQ(cuda_attention(a, nullptr), cudaSuccess);
    a.d = 129;
    EXPECT_EQ(cuda_attention(a, nullptr), cudaErrorInvalidValue);
}

}  // namespace
