// Bytes of device memory that kernels move, and products that tensor cores take, against the least there is to do.
// Counted by the access checker, so in the race build only; `--gtest_filter=Traffic*` prints the table.
#include <gtest/gtest.h>

#include <cstdio>

#include <quern/kernels/attention/cuda.hpp>
#include <quern/kernels/conv/cuda.hpp>
#include <quern/kernels/elementwise/cuda.hpp>
#include <quern/kernels/gather/cuda.hpp>
#include <quern/kernels/matmul/cuda.hpp>
#include <quern/kernels/norm/cuda.hpp>
#include <quern/kernels/pool/cuda.hpp>
#include <quern/kernels/reduce/cuda.hpp>
#include <quern/kernels/resize/cuda.hpp>
#include <quern/kernels/rnn/cuda.hpp>
#include <quern/kernels/softmax/cuda.hpp>
#include <quern/kernels/transpose/cuda.hpp>

#include "half_test.hpp"

namespace {

using namespace device_test;
using namespace quern;

class Traffic : public testing::Test {
protected:
    void SetUp() override {
        if (simt::checks() != simt::Checks::race) GTEST_SKIP() << "counted in the race build";
        use_seed(0);
    }
    /// f enqueues work whose operands and results have `least` bytes; `most`: how many times that may be moved.
    /// `products`: multiply-adds of which tensor cores take 1,024 at a time, 0: none.
    template <class F>
    void row(const char* kernel, std::int64_t least, double most, F&& f, std::int64_t products = 0) {
        const simt::Stats before = simt::stats;
        ASSERT_EQ(f(), cudaSuccess) << fault();
        const auto read = simt::stats.bytes_read - before.bytes_read,
                   written = simt::stats.bytes_written - before.bytes_written;
        const double times = static_cast<double>(read + written) / static_cast<double>(least);
        const auto mma = simt::stats.mma - before.mma;
        std::printf("%-42s %3llu launches %10llu read %9llu written %5.2f times the least, %6llu mma\n", kernel,
                    static_cast<unsigned long long>(simt::stats.launches - before.launches),
                    static_cast<unsigned long long>(read), static_cast<unsigned long long>(written), times,
                    static_cast<unsigned long long>(mma));
        EXPECT_GE(times, 1 - 1e-9) << kernel << ": less than its operands was moved: it was not counted, or not done";
        EXPECT_LE(times, most) << kernel;
        if (products) {
            EXPECT_LE(mma, static_cast<std::uint64_t>(products / 1024 * 3 * 5 / 4)) << kernel;
            EXPECT_GE(mma, static_cast<std::uint64_t>(products / 1024)) << kernel;
        }
    }
    static std::vector<float> values(std::int64_t n) { return random_values(static_cast<std::size_t>(n)); }
};

TEST_F(Traffic, Movement) {
    const auto x = on_device(values(64 * 96));
    DeviceBuffer<float> y(64 * 96);
    movement::CopyRegion t;
    t.axis(96, 1, 64);
    t.axis(64, 96, 1);
    row("transpose 64 x 96", 2 * 64 * 96 * 4, 1,
        [&] { return movement::cuda_copy(t, 4, x.data(), y.data(), nullptr); });
    movement::CopyRegion c;
    c.axis(64 * 96, 1, 1);
    row("copy 6144", 2 * 64 * 96 * 4, 1, [&] { return movement::cuda_copy(c, 4, x.data(), y.data(), nullptr); });
    const std::int64_t xd[] = {62, 94}, yd[] = {64, 96}, before[] = {1, 1};
    row("pad 62 x 94 by 1", (62 * 94 + 64 * 96) * 4, 1, [&] {
        return movement::cuda_pad(movement::CudaPad::constant, 2, xd, yd, before, 4, x.data(), nullptr, y.data(),
                                  nullptr);
    });
    const auto index = on_device(std::vector<std::int64_t>{5, 3, 60, 9});
    row("gather 4 rows of 96", 2 * 4 * 96 * 4 + 32, 6,
        [&] { return movement::cuda_gather(x.data(), index.data(), y.data(), 1, 64, 4, 96, 4, 8, nullptr); });
    resize::CudaResize r;
    r.axes = 2, r.in[0] = 64, r.in[1] = 24, r.out[0] = 64, r.out[1] = 48, r.scale[0] = 1, r.scale[1] = 2;
    r.mode = resize::CudaMode::nearest, r.x = x.data(), r.y = y.data();
    row("resize nearest 64 x 24 to 64 x 48", (64 * 24 + 64 * 48) * 4, 1.4,
        [&] { return resize::cuda_resize(r, nullptr); });
}
TEST_F(Traffic, RowsAndElements) {
    const std::int64_t n = 16 * 512;
    const auto x = on_device(values(n)), z = on_device(values(n)), s = on_device(values(512)),
               b = on_device(values(512));
    DeviceBuffer<float> y(n);
    ew::Program p;
    p.inputs = 2;
    p.add({.code = ew::Code::load, .operand = 0});
    p.add({.code = ew::Code::binary, .function = static_cast<std::uint8_t>(ew::BinaryOp::add), .operand = 1});
    p.add({.code = ew::Code::unary, .function = static_cast<std::uint8_t>(ew::UnaryOp::gelu)});
    const ew::ProgramOperand o[] = {{x.data(), DType::f32, {1}}, {z.data(), DType::f32, {1}}};
    row("element-wise add, gelu 8192", 3 * n * 4, 1,
        [&] { return ew::cuda_run_program(p, o, y.data(), DType::f32, 1, &n, nullptr); });
    norm::CudaRows l;
    l.x = x.data(), l.scale = s.data(), l.bias = b.data(), l.y = y.data(), l.rows = 16, l.n = 512;
    row("layer normalization 16 x 512", (2 * n + 1024) * 4, 3, [&] { return norm::cuda_normalize_rows(l, nullptr); });
    // x, what is added, the sum and the result, each once; the parameters for each row.
    DeviceBuffer<float> sum(n);
    l.add = z.data();
    row("sum and layer normalization 16 x 512", (3 * n + 1024) * 4, 3, [&] { return norm::cuda_normalize_rows(l, nullptr); });
    l.sum = sum.data();
    row("sum, stored too, and layer normalization 16 x 512", (4 * n + 1024) * 4, 3, [&] { return norm::cuda_normalize_rows(l, nullptr); });
    row("softmax 16 x 512", 2 * n * 4, 1,
        [&] { return softmax::cuda_rows(DType::f32, x.data(), y.data(), 16, 512, false, nullptr); });
    row("sum of rows 16 x 512", (n + 16) * 4, 1,
        [&] { return reduce::cuda_reduce(reduce::CudaOp::sum, x.data(), y.data(), 16, 512, 1, nullptr); });
    row("sum of columns 16 x 512", (n + 512) * 4, 1,
        [&] { return reduce::cuda_reduce(reduce::CudaOp::sum, x.data(), y.data(), 1, 16, 512, nullptr); });
    pool::CudaWindows w{2,         4,         {1, 16, 16}, {1, 8, 8}, {1, 2, 2}, {1, 2, 2}, {1, 1, 1},
                        {0, 0, 0}, {0, 0, 0}, true,        false,     false,     x.data(),  y.data()};
    row("maximum of 2 x 2, 8 planes of 16 x 16", (2048 + 512) * 4, 1, [&] { return pool::cuda_pool(w, nullptr); });
}
TEST_F(Traffic, Products) {
    const std::int64_t m = 128, n = 128, k = 64;
    const auto a = on_device(values(m * k)), b = on_device(values(k * n)), x = on_device(values(32 * 16 * 16)),
               w = on_device(values(64 * 32 * 9));
    DeviceBuffer<float> c(64 * 16 * 16 + m * n);
    matmul::CudaGemm g;
    g.m = m, g.n = n, g.k = g.lda = k, g.ldb = g.ldc = n;
    g.a = a.data(), g.b = b.data(), g.c = c.data();
    // Tiles of 64: each operand is read twice.
    const std::int64_t least = (m * k + k * n + m * n) * 4;
    row(
        "product 128 x 128 x 64, split", least, 1.6, [&] { return matmul::cuda_gemm(g, nullptr, nullptr); }, m * n * k);
    g.precision = matmul::Precision::f32;
    row("product 128 x 128 x 64, f32 units", least, 1.6, [&] { return matmul::cuda_gemm(g, nullptr, nullptr); });
    g.m = 1;
    row("product 1 x 128 x 64", (k + k * n + n) * 4, 1.3, [&] { return matmul::cuda_gemm(g, nullptr, nullptr); });
    conv::CudaConv f;
    f.images = 1;
    f.shape = {{1, 16, 16}, {1, 16, 16}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, 32, 32, 64};
    f.x = x.data(), f.w = w.data(), f.y = c.data();
    DeviceBuffer<char> scratch(conv::cuda_conv_scratch(f));
    row("convolution 1 x 1, 32 to 64, 16 x 16", (32 * 256 + 64 * 32 + 64 * 256) * 4, 1.3,
        [&] { return conv::cuda_conv(f, scratch.data(), nullptr); });
    // Windows tap by tap: each pixel is read for each of the nine, by the cache beyond the first; parts of sums; f16: the
    // copy with channels last.
    f.shape = {{1, 16, 16}, {1, 16, 16}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, 32, 32, 64};
    f.packed = w.data();
    DeviceBuffer<char> parts(conv::cuda_conv_scratch(f));
    const std::int64_t least3 = (32 * 256 + 64 * 288 + 64 * 256) * 4;
    row("convolution 3 x 3, 32 to 64, 16 x 16", least3, 6.5,
        [&] { return conv::cuda_conv(f, parts.data(), nullptr); });
    const auto hx = on_device(narrow<__half>(values(32 * 256))), hw = on_device(narrow<__half>(values(64 * 288)));
    conv::CudaConv h = f;
    h.type = DType::f16, h.x = hx.data(), h.packed = hw.data();
    DeviceBuffer<char> last(conv::cuda_conv_scratch(h));
    row(
        "convolution 3 x 3, 32 to 64, 16 x 16, f16", least3 / 2, 4.5,
        [&] { return conv::cuda_conv(h, last.data(), nullptr); }, 0);
    const auto mma = simt::stats.mma;
    ASSERT_EQ(conv::cuda_conv(h, last.data(), nullptr), cudaSuccess);
    EXPECT_EQ(simt::stats.mma - mma, static_cast<std::uint64_t>(64 * 256 * 320 / (16 * 8 * 16)));  // 288, in pieces of 64
    f.packed = nullptr;
    f.group = 32;
    f.shape = {{1, 16, 16}, {1, 16, 16}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, 1, 32, 32};
    // Four outputs read what their windows have in a row once; the rows are found in the cache, which is not counted here.
    row("depthwise 3 x 3, 32 of 16 x 16", (2 * 32 * 256 + 32 * 9) * 4, 3.8,
        [&] { return conv::cuda_conv(f, nullptr, nullptr); });
}
TEST_F(Traffic, Attention) {
    const std::int64_t s = 64, d = 32;
    const auto q = on_device(values(s * d)), k = on_device(values(s * d)), v = on_device(values(s * d));
    DeviceBuffer<float> y(s * d);
    attention::CudaAttention a;
    a.q = q.data(), a.k = k.data(), a.v = v.data(), a.y = y.data();
    a.queries = a.keys = s, a.d = a.dv = a.q_row = a.k_row = a.v_row = a.y_row = d;
    row("attention 64 x 64 x 32", 4 * s * d * 4, 1, [&] { return attention::cuda_attention(a, nullptr); });
    const auto h = on_device(narrow<__half>(values(s * d)));
    DeviceBuffer<__half> z(s * d);
    a.type = DType::f16, a.q = a.k = a.v = h.data(), a.y = z.data();
    row("attention 64 x 64 x 32, f16", 4 * s * d * 2, 1, [&] { return attention::cuda_attention(a, nullptr); });
    const auto mma_before = simt::stats.mma;
    ASSERT_EQ(attention::cuda_attention(a, nullptr), cudaSuccess);
    EXPECT_EQ(simt::stats.mma - mma_before, static_cast<std::uint64_t>(2 * s * s * d / (16 * 8 * 16)));
    attention::CudaRotary r;
    r.x = q.data(), r.cosine = k.data(), r.sine = v.data(), r.y = y.data();
    r.batch = 1, r.heads = 2, r.length = 32, r.d = d, r.half = d / 2, r.positions = 32;
    row("rotary embedding 2 x 32 x 32", (2 * 2 * 32 * d + 32 * d) * 4, 1.25,
        [&] { return attention::cuda_rotary(r, nullptr); });
}

}  // namespace
