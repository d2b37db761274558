// kernels/matmul/cuda.cu against double references; tolerance as in cuda.hpp.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <quern/kernels/matmul/cuda.hpp>

#include "half_test.hpp"

namespace {

using namespace device_test;
using quern::matmul::cuda_gemm;
using quern::matmul::cuda_gemm_scratch;
using quern::matmul::CudaGemm;
using quern::vec::Post;

struct Size {
    std::int64_t m, n, k;
};
struct Options {
    std::int64_t batch = 1;
    bool trans_a = false, trans_b = false, shared_b = false, bias = false, residual = false;
    Post post = Post::none;
    std::int64_t pad = 0;  // extra elements in each row of A, B and C
};

class Gemm : public DeviceTest {};

struct Case : Size, Options {};
using quern::matmul::Precision;
void check_one(const Size& size, const Options& options, Precision precision) {
    const Case c{size, options};
    SCOPED_TRACE(testing::Message() << c.batch << " x " << c.m << " x " << c.n << " x " << c.k
                                    << (c.trans_a ? " ta" : "") << (c.trans_b ? " tb" : "") << " pad " << c.pad);
    CudaGemm g;
    g.m = c.m, g.n = c.n, g.k = c.k;
    g.trans_a = c.trans_a, g.trans_b = c.trans_b;
    const std::int64_t ra = c.trans_a ? c.k : c.m, rb = c.trans_b ? c.n : c.k;
    g.lda = (c.trans_a ? c.m : c.k) + c.pad, g.ldb = (c.trans_b ? c.k : c.n) + c.pad, g.ldc = c.n + c.pad;
    const auto a = random_values(static_cast<std::size_t>(c.batch * ra * g.lda), 1, 1);
    const auto b = random_values(static_cast<std::size_t>((c.shared_b ? 1 : c.batch) * rb * g.ldb), 1, 2);
    const auto bias = random_values(static_cast<std::size_t>(c.n), 1, 3);
    const auto residual = random_values(static_cast<std::size_t>(c.batch * c.m * g.ldc), 1, 4);
    const auto da = on_device(a), db = on_device(b), dbias = on_device(bias), dr = on_device(residual);
    g.a = da.data(), g.b = db.data();
    if (c.bias) g.bias = dbias.data(), g.bias_col = 1;
    if (c.residual) g.residual = dr.data();
    g.alpha = 0.5f;
    g.precision = precision;
    g.post = c.post, g.post_alpha = -0.25f, g.post_beta = 2;
    if (c.batch > 1) {
        g.batch_rank = 1;
        g.batch[0] = c.batch, g.stride_a[0] = ra * g.lda, g.stride_b[0] = c.shared_b ? 0 : rb * g.ldb,
        g.stride_c[0] = c.m * g.ldc;
    }
    const double tolerance = precision == Precision::tf32 ? 1e-3 : 1e-6 * std::sqrt(static_cast<double>(c.k));
    DeviceBuffer<char> scratch(cuda_gemm_scratch(g));
    run_each<float>(
        residual.size(),
        [&](float* y) {
            g.c = y;
            return cuda_gemm(g, scratch.data(), nullptr);
        },
        [&](const std::vector<float>& got) {
            for (std::int64_t z = 0; z < c.batch; ++z)
                for (std::int64_t i = 0; i < c.m; ++i)
                    for (std::int64_t j = 0; j < c.n; ++j) {
                        double s = 0, sum = 0;
                        const float* pa = a.data() + z * ra * g.lda;
                        const float* pb = b.data() + (c.shared_b ? 0 : z * rb * g.ldb);
                        for (std::int64_t k = 0; k < c.k; ++k) {
                            const double t = static_cast<double>(pa[c.trans_a ? k * g.lda + i : i * g.lda + k]) *
                                             static_cast<double>(pb[c.trans_b ? j * g.ldb + k : k * g.ldb + j]);
                            s += t;
                            sum += std::fabs(t);
                        }
                        const std::size_t at = static_cast<std::size_t>((z * c.m + i) * g.ldc + j);
                        double v = 0.5 * s;
                        if (c.bias) v += static_cast<double>(bias[static_cast<std::size_t>(j)]);
                        if (c.residual) v += static_cast<double>(residual[at]);
                        if (c.post == Post::relu) v = std::fmax(v, 0);
                        if (c.post == Post::clip) v = std::fmin(std::fmax(v, -0.25), 2);
                        if (c.post == Post::gelu) v = 0.5 * v * (1 + std::erf(v * std::sqrt(0.5)));
                        if (c.post == Post::silu) v = v / (1 + std::exp(0.25 * v));  // alpha is -0.25
                        ASSERT_LE(std::fabs(static_cast<double>(got[at]) - v), tolerance * (1 + sum))
                            << z << ", " << i << ", " << j;
                    }
            if (c.pad) { EXPECT_TRUE(std::isnan(got[static_cast<std::size_t>(c.n)])) << "written between the rows"; }
        });
}

void check(const Size& size, const Options& options = {}) {
    for (Precision p : {Precision::f32, Precision::split, Precision::tf32}) {
        SCOPED_TRACE(testing::Message() << "precision " << static_cast<int>(p));
        check_one(size, options, p);
    }
}

TEST_F(Gemm, EveryTileAndRemainder) {
    check({64, 64, 32});
    check({65, 70, 33}, {.bias = true});
    check({33, 130, 20}, {.residual = true, .post = Post::relu});
    check({20, 200, 48}, {.bias = true, .post = Post::clip});
    check({100, 36, 7}, {.post = Post::gelu});
    check({64, 64, 0}, {.bias = true});
}
TEST_F(Gemm, Transposed) {
    for (int ta = 0; ta < 2; ++ta)
        for (int tb = 0; tb < 2; ++tb) {
            check({68, 72, 40}, {.trans_a = ta != 0, .trans_b = tb != 0, .bias = true});
            check({37, 41, 19}, {.trans_a = ta != 0, .trans_b = tb != 0, .pad = 1});
            check({12, 140, 24}, {.trans_a = ta != 0, .trans_b = tb != 0, .pad = 4});
        }
}
TEST_F(Gemm, Batches) {
    check({40, 36, 24}, {.batch = 3});
    check({40, 36, 24}, {.batch = 3, .shared_b = true, .residual = true});
    check({1, 50, 64}, {.batch = 5});
    check({2, 50, 66}, {.batch = 5, .trans_b = true});
}
TEST_F(Gemm, FewRows) {
    for (std::int64_t m : {1, 3, 8})
        for (int tb = 0; tb < 2; ++tb) {
            check({m, 128, 64}, {.trans_b = tb != 0, .bias = true, .post = Post::silu});
            check({m, 77, 51}, {.trans_b = tb != 0, .residual = true});
            check({m, 12, 20}, {.trans_b = tb != 0, .pad = 3});
        }
}
TEST_F(Gemm, SplitSums) {
    CudaGemm g;
    g.m = 33, g.n = 64, g.k = 520;
    EXPECT_GT(cuda_gemm_scratch(g), 0u);
    check({33, 64, 520}, {.bias = true, .post = Post::relu});
    check({4, 100, 300}, {.bias = true, .residual = true});
    check({1, 100, 300}, {.batch = 2});
}
TEST_F(Gemm, LargeTile) {
    if (slow()) GTEST_SKIP() << "too much work for a checked build";
    use_seed(1);
    check({1152, 1480, 16}, {.bias = true});  // 216 tiles of 128 x 64
}
TEST_F(Gemm, LargeTileInBatches) { check({193, 68, 9}, {.batch = 50}); }
// What is split into parts must not turn infinities into NaN.
TEST_F(Gemm, InfinitiesStay) {
    const std::int64_t n = 40;
    auto a = random_values(n * n), b = std::vector<float>(n * n, 1.0f);
    a[3 * n + 5] = INFINITY;
    a[20 * n] = NAN;
    a[39 * n + 39] = -INFINITY;
    const auto da = on_device(a), db = on_device(b);
    CudaGemm g;
    g.m = g.n = g.k = g.lda = g.ldb = g.ldc = n;
    g.a = da.data(), g.b = db.data();
    for (Precision p : {Precision::f32, Precision::split}) {
        g.precision = p;
        run_each<float>(
            n * n,
            [&](float* y) {
                g.c = y;
                return cuda_gemm(g, nullptr, nullptr);
            },
            [&](const std::vector<float>& got) {
                for (std::int64_t j = 0; j < n; ++j) {
                    EXPECT_EQ(got[3 * n + j], INFINITY);
                    EXPECT_TRUE(std::isnan(got[20 * n + j]));
                    EXPECT_EQ(got[39 * n + j], -INFINITY);
                    EXPECT_TRUE(std::isfinite(got[j]));
                }
            });
    }
}
template <class T>
void check_half(const Size& size, const Options& o, quern::DType type) {
    SCOPED_TRACE(testing::Message() << o.batch << " x " << size.m << " x " << size.n << " x " << size.k
                                    << (o.trans_b ? " tb" : ""));
    CudaGemm g;
    g.type = type;
    g.m = size.m, g.n = size.n, g.k = size.k, g.trans_b = o.trans_b;
    const std::int64_t rb = o.trans_b ? size.n : size.k;
    g.lda = size.k + o.pad, g.ldb = (o.trans_b ? size.k : size.n) + o.pad, g.ldc = size.n + o.pad;
    const auto z = [](std::int64_t v) { return static_cast<std::size_t>(v); };
    const auto a = narrow<T>(random_values(z(o.batch * size.m * g.lda), 1, 1)),
               b = narrow<T>(random_values(z(o.batch * rb * g.ldb), 1, 2)),
               bias = narrow<T>(random_values(z(size.n), 1, 3)),
               residual = narrow<T>(random_values(z(o.batch * size.m * g.ldc), 1, 4));
    const auto da = on_device(a), db = on_device(b), dbias = on_device(bias), dr = on_device(residual);
    g.a = da.data(), g.b = db.data();
    if (o.bias) g.bias = dbias.data(), g.bias_col = 1;
    if (o.residual) g.residual = dr.data();
    g.post = o.post;
    if (o.batch > 1) {
        g.batch_rank = 1;
        g.batch[0] = o.batch, g.stride_a[0] = size.m * g.lda, g.stride_b[0] = rb * g.ldb,
        g.stride_c[0] = size.m * g.ldc;
    }
    DeviceBuffer<char> scratch(cuda_gemm_scratch(g));
    const double ulp = type == quern::DType::f16 ? 0x1p-11 : 0x1p-8;
    run_each<T>(
        residual.size(),
        [&](T* y) {
            g.c = y;
            return cuda_gemm(g, scratch.data(), nullptr);
        },
        [&](const std::vector<T>& got) {
            for (std::int64_t q = 0; q < o.batch; ++q)
                for (std::int64_t i = 0; i < size.m; ++i)
                    for (std::int64_t j = 0; j < size.n; ++j) {
                        double s = o.bias ? static_cast<double>(widened(bias[z(j)])) : 0, sum = std::fabs(s);
                        for (std::int64_t k = 0; k < size.k; ++k) {
                            const double t = static_cast<double>(widened(a[z((q * size.m + i) * g.lda + k)])) *
                                             static_cast<double>(widened(
                                                 b[z(q * rb * g.ldb + (o.trans_b ? j * g.ldb + k : k * g.ldb + j))]));
                            s += t;
                            sum += std::fabs(t);
                        }
                        const std::size_t at = z((q * size.m + i) * g.ldc + j);
                        if (o.residual) s += static_cast<double>(widened(residual[at]));
                        if (o.post == Post::relu) s = std::fmax(s, 0);
                        ASSERT_LE(std::fabs(static_cast<double>(widened(got[at])) - s),
                                  ulp * std::fabs(s) + 1e-6 * std::sqrt(static_cast<double>(size.k)) * (1 + sum))
                            << q << ", " << i << ", " << j;
                    }
        });
}
void check_halves(const Size& size, const Options& o = {}) {
    check_half<__half>(size, o, quern::DType::f16);
    check_half<__nv_bfloat16>(size, o, quern::DType::bf16);
}
TEST_F(Gemm, HalfTypes) {
    for (int tb = 0; tb < 2; ++tb) {
        check_halves({70, 72, 40}, {.trans_b = tb != 0, .bias = true, .post = Post::relu});
        check_halves({33, 136, 104}, {.trans_b = tb != 0, .residual = true, .pad = 8});
        check_halves({64, 64, 32}, {.batch = 2, .trans_b = tb != 0});
        check_halves({1, 264, 200}, {.trans_b = tb != 0, .bias = true});
        check_halves({5, 40, 136}, {.batch = 2, .trans_b = tb != 0, .residual = true});
        check_halves({40, 64, 1032}, {.trans_b = tb != 0, .bias = true});  // split sums
    }
    check_half<__half>({193, 200, 16}, {.batch = 50}, quern::DType::f16);  // large tiles
    check_half<__nv_bfloat16>({193, 200, 48}, {.batch = 50, .trans_b = true}, quern::DType::bf16);
    CudaGemm g;
    g.type = quern::DType::f16;
    g.m = 40, g.n = 64, g.k = 1032;
    EXPECT_GT(cuda_gemm_scratch(g), 0u);
    g.m = 16, g.n = 12, g.k = 16;
    EXPECT_EQ(cuda_gemm(g, nullptr, nullptr), cudaErrorInvalidValue);
}
#if QUERN_SIMT_EMULATED
struct OtherDevice {
    const simt::Config before = simt::config;
    OtherDevice(std::size_t of_block, std::size_t of_processor) { simt::config.shared_of_block = of_block, simt::config.shared_of_processor = of_processor; }
    OtherDevice(const OtherDevice&) = delete;
    ~OtherDevice() { simt::config = before; }
};
// Two blocks share a processor on every device, by fewer stages where it has less memory; the bits stay the same.
TEST_F(Gemm, StagesByTheDevice) {
    struct Device {
        std::size_t of_block, of_processor;
    };
    for (const std::int64_t batch : {1, 50}) {  // medium, large tiles
        CudaGemm g;
        g.type = quern::DType::f16;
        g.m = 193, g.n = 200, g.k = 152;
        g.lda = g.k, g.ldb = g.ldc = g.n;
        g.batch_rank = 1, g.batch[0] = batch, g.stride_c[0] = g.m * g.n;
        const auto a = on_device(narrow<__half>(random_values(193 * 152, 1, 1))), b = on_device(narrow<__half>(random_values(152 * 200, 1, 2)));
        g.a = a.data(), g.b = b.data();
        ASSERT_EQ(cuda_gemm_scratch(g), 0u);
        std::vector<std::vector<float>> results;
        for (const Device& d : {Device{99 << 10, 100 << 10}, Device{163 << 10, 164 << 10}, Device{227 << 10, 228 << 10}}) {
            const OtherDevice other(d.of_block, d.of_processor);
            DeviceBuffer<__half> y(static_cast<std::size_t>(batch * 193 * 200));
            g.c = y.data();
            ASSERT_EQ(cuda_gemm(g, nullptr, nullptr), cudaSuccess);
            ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << fault();
            EXPECT_GT(simt::stats.shared, 0u);
            EXPECT_LE(2 * (simt::stats.shared + 1024), d.of_processor) << "two blocks";
            EXPECT_EQ(simt::stats.shared, d.of_processor == 100 << 10 ? 48u << 10 : 64u << 10);
            results.push_back(widen(y.download()));
        }
        EXPECT_EQ(results[0], results[1]);
        EXPECT_EQ(results[1], results[2]);
    }
}
#endif
TEST_F(Gemm, Limits) {
    CudaGemm g;
    EXPECT_EQ(cuda_gemm(g, nullptr, nullptr), cudaSuccess);
    g.m = -1;
    EXPECT_EQ(cuda_gemm(g, nullptr, nullptr), cudaErrorInvalidValue);
    g.m = std::int64_t(1) << 40;
    EXPECT_EQ(cuda_gemm(g, nullptr, nullptr), cudaErrorInvalidValue);
}

}  // namespace
