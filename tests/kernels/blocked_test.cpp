// Products and convolutions of few bits as kernels: every instruction set, 1 to 3 workers with the same bits, nothing written outside.
#include <cmath>
#include <random>

#include <quern/kernels/quant/blocked.hpp>
#include <quern/kernels/quant/conv_8.hpp>
#include <quern/kernels/quant/matmul_8.hpp>

#include "support/kernel_harness.hpp"

using namespace quern;
using namespace quern::quant;
using quern_test::Guarded;

namespace {

constexpr Isa isas[] = {Isa::baseline, Isa::avx2, Isa::avx512};

Guarded& random_bytes(Guarded& g, std::mt19937& rng) {
    auto* p = static_cast<std::uint8_t*>(g.view().data);
    for (std::int64_t i = 0; i < quern_test::count_of(g.dims) * dtype_bits(g.dtype) / 8; ++i) p[i] = static_cast<std::uint8_t>(rng());
    return g;
}
std::int64_t byte_at(const View& v, std::int64_t i) {
    return v.dtype == DType::u8 ? std::int64_t{v.in<std::uint8_t>()[i]} : std::int64_t{v.in<std::int8_t>()[i]};
}
int field(const Tensor& t, std::int64_t i, int bits) { return t.data<std::uint8_t>()[static_cast<std::size_t>(i * bits / 8)] >> (i * bits % 8) & ((1 << bits) - 1); }

TEST(Blocked, AgreesWithDoubleAtEveryWidth) {
    std::mt19937 rng(quern_test::seed());
    enum class Zeros { none, packed, floats };
    for (int bits : {2, 4, 8})
        for (auto [n, k, block] : {std::array<std::int64_t, 3>{1, 16, 16}, {37, 100, 32}, {70, 256, 128}, {16, 33, 16}})
            for (Zeros zeros : {Zeros::none, Zeros::packed, Zeros::floats})
                for (std::int64_t rows : {1, 3, 21}) {
                    std::int64_t blocks = (k + block - 1) / block, row = blocks * block * bits / 8, zero_row = (blocks * bits + 7) / 8;
                    BlockedProblem p;
                    p.n = n, p.k = k, p.block = block, p.bits = bits;
                    p.q = Tensor(DType::u8, {n * row});
                    for (auto& v : p.q.data<std::uint8_t>()) v = static_cast<std::uint8_t>(rng());
                    p.scales = Tensor(DType::f32, {n * blocks});
                    for (auto& v : p.scales.data<float>()) v = static_cast<float>(rng() % 100 + 1) / 1000.f;
                    if (zeros == Zeros::packed) p.zeros = Tensor(DType::u8, {n * zero_row});
                    if (zeros == Zeros::floats) p.zeros = Tensor(DType::f32, {n * blocks});
                    if (zeros == Zeros::packed)
                        for (auto& v : p.zeros.data<std::uint8_t>()) v = static_cast<std::uint8_t>(rng());
                    if (zeros == Zeros::floats)
                        for (auto& v : p.zeros.data<float>()) v = static_cast<float>(rng() % 64) / 8.f;
                    Guarded a(DType::f32, {rows, k}, quern_test::random_values(rng, rows * k)), bias(DType::f32, {n}, quern_test::random_values(rng, n)), y(DType::f32, {rows, n});
                    std::vector<double> want(static_cast<std::size_t>(rows * n)), size(want.size());
                    for (std::int64_t r = 0; r < rows; ++r)
                        for (std::int64_t j = 0; j < n; ++j) {
                            double sum = bias.get(static_cast<std::size_t>(j)), all = std::abs(sum);
                            for (std::int64_t i = 0; i < k; ++i) {
                                std::int64_t b = i / block;
                                double z = zeros == Zeros::none ? 1 << (bits - 1) : zeros == Zeros::packed ? field(p.zeros, j * zero_row * 8 / bits + b, bits) : double(p.zeros.data<float>()[static_cast<std::size_t>(j * blocks + b)]);
                                double w = (field(p.q, j * row * 8 / bits + i, bits) - z) * p.scales.data<float>()[static_cast<std::size_t>(j * blocks + b)], x = a.get(static_cast<std::size_t>(r * k + i));
                                sum += w * x;
                                // The zero point is taken off sums: its share counts.
                                all += (std::abs(w) + 2 * z * p.scales.data<float>()[static_cast<std::size_t>(j * blocks + b)]) * std::abs(x);
                            }
                            want[static_cast<std::size_t>(r * n + j)] = sum;
                            size[static_cast<std::size_t>(r * n + j)] = all;
                        }
                    std::int64_t none = 0;
                    View absent, q{DType::u8, 1, &none, nullptr};
                    for (Isa isa : isas)
                        for (bool integer : {false, true}) {
                            p.integer = integer;
                            BlockedKernel kernel(p, isa);
                            quern_test::run_kernel(kernel, {a.view(), q, q, absent, absent, bias.view()}, y);
                            for (std::size_t i = 0; i < want.size(); ++i)
                                ASSERT_LE(std::abs(y.get(i) - want[i]), (integer ? 8e-3 : 2e-6) * size[i] + 1e-6) << bits << " bits, " << n << "x" << k << "/" << block << " rows " << rows << " " << isa_name(isa);
                        }
                }
}
TEST(Blocked, WhatIsNoNumberStaysSo) {
    BlockedProblem p;
    p.n = 2, p.k = 32, p.block = 32, p.bits = 4;
    p.q = Tensor(DType::u8, {32});
    p.scales = Tensor(DType::f32, {2});
    for (auto& v : p.scales.data<float>()) v = 1;
    for (Isa isa : isas)
        for (bool integer : {false, true})
            for (double bad : {double(NAN), double(INFINITY)}) {
                p.integer = integer;
                BlockedKernel kernel(p, isa);
                Guarded a(DType::f32, {2, 32}), y(DType::f32, {2, 2});
                for (std::size_t i = 0; i < 64; ++i) a.set(i, 1);
                a.set(3, bad);
                std::int64_t none = 0;
                View q{DType::u8, 1, &none, nullptr};
                quern_test::run_kernel(kernel, {a.view(), q, q}, y);
                EXPECT_FALSE(std::isfinite(y.get(0)));
                EXPECT_NEAR(y.get(2), -256, 1e-3);  // 32 times (0 - 8)
            }
}
TEST(Product8, AgreesAtEveryWidth) {
    std::mt19937 rng(quern_test::seed());
    for (DType ta : {DType::u8, DType::i8})
        for (DType tb : {DType::u8, DType::i8})
            for (auto [m, k, n] : {std::array<std::int64_t, 3>{1, 64, 130}, {100, 37, 65}, {13, 8, 7}, {3, 0, 5}})
                for (bool fixed : {true, false}) {
                    Guarded a(ta, {m, k}), b(tb, {k, n}), az(ta, {}), bz(tb, {n}), y(DType::i32, {m, n});
                    for (Guarded* g : {&a, &b, &az, &bz}) random_bytes(*g, rng);
                    ProductProblem p;
                    p.a_zero = 2, p.b_zero = 3;
                    if (fixed) p.b_value = b.tensor();
                    for (Isa isa : isas) {
                        Target target;
                        target.isa = isa;
                        ProductKernel kernel(p, target);
                        quern_test::run_kernel(kernel, {a.view(), b.view(), az.view(), bz.view()}, y);
                        for (std::int64_t i = 0; i < m; ++i)
                            for (std::int64_t j = 0; j < n; ++j) {
                                std::int64_t want = 0;
                                for (std::int64_t q = 0; q < k; ++q) want += (byte_at(a.view(), i * k + q) - byte_at(az.view(), 0)) * (byte_at(b.view(), q * n + j) - byte_at(bz.view(), j));
                                ASSERT_EQ(y.view().in<std::int32_t>()[i * n + j], want) << m << "x" << k << "x" << n << " " << isa_name(isa);
                            }
                    }
                }
}
TEST(Conv8, AgreesAtEveryWidth) {
    std::mt19937 rng(quern_test::seed());
    struct Shape4 { std::int64_t c, m, group, h, w, k, stride, pad, dilation; };
    for (const Shape4& s : {Shape4{3, 10, 1, 9, 11, 3, 2, 1, 1}, {8, 70, 1, 6, 7, 3, 1, 1, 1}, {16, 5, 1, 5, 5, 1, 1, 0, 1}, {24, 24, 24, 8, 9, 3, 1, 1, 1}, {6, 12, 3, 7, 7, 3, 1, 2, 2}, {20, 20, 20, 9, 9, 5, 2, 2, 1}, {12, 8, 2, 12, 4, 1, 3, 0, 1}})
        for (bool last : {false, true})
            for (DType tx : {DType::u8, DType::i8})
                for (DType tw : {DType::u8, DType::i8}) {
                    auto size = [&](std::int64_t n) { return (n + 2 * s.pad - (s.k - 1) * s.dilation - 1) / s.stride + 1; };
                    std::int64_t oh = size(s.h), ow = size(s.w), cg = s.c / s.group, mg = s.m / s.group;
                    Guarded x(tx, last ? quern_test::Dims{2, s.h, s.w, s.c} : quern_test::Dims{2, s.c, s.h, s.w}), w(tw, {s.m, cg, s.k, s.k}), xz(tx, {}), wz(tw, {s.m});
                    Guarded y(DType::i32, last ? quern_test::Dims{2, oh, ow, s.m} : quern_test::Dims{2, s.m, oh, ow});
                    for (Guarded* g : {&x, &w, &xz, &wz}) random_bytes(*g, rng);
                    ConvProblem p;
                    p.window.kernel = {s.k, s.k}, p.window.strides = {s.stride, s.stride}, p.window.dilations = {s.dilation, s.dilation}, p.window.pads.assign(4, s.pad);
                    p.group = s.group;
                    p.layout = last ? conv::Layout::nhwc : conv::Layout::nchw;
                    p.x_zero = 2, p.w_zero = 3;
                    for (Isa isa : isas)
                        for (bool fixed : {true, false}) {
                            p.w_value = fixed ? w.tensor() : Tensor();
                            p.w_zero_value = fixed ? wz.tensor() : Tensor();
                            Target target;
                            target.isa = isa;
                            ConvKernel kernel(p, target);
                            quern_test::run_kernel(kernel, {x.view(), w.view(), xz.view(), wz.view()}, y);
                            for (std::int64_t n = 0; n < 2; ++n)
                                for (std::int64_t m = 0; m < s.m; ++m)
                                    for (std::int64_t i = 0; i < oh; ++i)
                                        for (std::int64_t j = 0; j < ow; ++j) {
                                            std::int64_t want = 0;
                                            for (std::int64_t c = 0; c < cg; ++c)
                                                for (std::int64_t a = 0; a < s.k; ++a)
                                                    for (std::int64_t b = 0; b < s.k; ++b) {
                                                        std::int64_t ih = i * s.stride - s.pad + a * s.dilation, iw = j * s.stride - s.pad + b * s.dilation, ch = m / mg * cg + c;
                                                        if (ih < 0 || ih >= s.h || iw < 0 || iw >= s.w) continue;
                                                        std::int64_t at = last ? ((n * s.h + ih) * s.w + iw) * s.c + ch : ((n * s.c + ch) * s.h + ih) * s.w + iw;
                                                        want += (byte_at(x.view(), at) - byte_at(xz.view(), 0)) * (byte_at(w.view(), ((m * cg + c) * s.k + a) * s.k + b) - byte_at(wz.view(), m));
                                                    }
                                            std::int64_t at = last ? ((n * oh + i) * ow + j) * s.m + m : ((n * s.m + m) * oh + i) * ow + j;
                                            ASSERT_EQ(y.view().in<std::int32_t>()[at], want) << "channels " << s.c << " to " << s.m << " group " << s.group << (last ? " nhwc " : " nchw ") << isa_name(isa);
                                        }
                        }
                }
}

}  // namespace
