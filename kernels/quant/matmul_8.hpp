// Products of 8-bit matrices.
#pragma once
#include <cstring>
#include <memory>

#include <quern/kernels/matmul/integer.hpp>
#include <quern/kernels/quant/common.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor.hpp>

QUERN_BEGIN
namespace quant {

/// Which input is what; -1: the operator has none. Scales and zero points of A are one or one for each row, of B one or one for
/// each column, or one for each row (column) of every matrix; those of Y are one.
struct ProductProblem {
    int a = 0, a_scale = -1, a_zero = -1, b = 1, b_scale = -1, b_zero = -1, bias = -1, y_scale = -1, y_zero = -1;
    bool trans_a = false, trans_b = false;  ///< rank 2 only
    float alpha = 1;
    DType out = DType::i32;  ///< i32: (A - za)(B - zb); f32: times the scales; u8, i8: quantized again
    Tensor b_value, b_zero_value;  ///< B and its zero point when constant: prepared once
};

/// Y = (A - za) x (B - zb) as numpy's matmul (https://onnx.ai/onnx/operators/onnx__MatMulInteger.html, QLinearMatMul,
/// com.microsoft QGemm, whose bias of i32 broadcasts to Y). Sums are of 32 bits and wrap.
class ProductKernel final : public Kernel {
public:
    ProductKernel(const ProductProblem& p, const vec::Table& t) : p_(p), t_(t) {
        bool zero_known = p.b_zero < 0 || p.b_zero_value.defined();
        if (!p.b_value.defined() || !zero_known) return;
        View b = view_of(p_.b_value), z = p_.b_zero_value.defined() ? view_of(p_.b_zero_value) : View();
        if (b.rank == 0) return;
        packed_ = std::make_unique<std::int16_t[]>(static_cast<std::size_t>(b.count()));
        packed_bytes_ = static_cast<std::size_t>(b.count()) * 2;
        std::int64_t k = b.rank == 1 ? b.dims[0] : b.dim(p.trans_b ? -1 : -2), n = b.rank == 1 ? 1 : b.dim(p.trans_b ? -2 : -1);
        for (std::int64_t m = 0; k * n > 0 && m < b.count() / (k * n); ++m) widen(b, z.present() ? &z : nullptr, m, 0, k, k, n, packed_.get());
        p_.b_value = Tensor();
    }
    const char* name() const noexcept override { return "matmul.gemm_8"; }
    std::size_t packed_bytes() const noexcept override { return packed_bytes_; }
    Booking book(std::span<const View> in, std::span<const View>, int workers) const override {
        const View &a = in[static_cast<std::size_t>(p_.a)], &b = in[static_cast<std::size_t>(p_.b)];
        Booking k;
        k.scratch = static_cast<std::size_t>(workers) * acc_bytes + (p_.trans_a ? up(static_cast<std::size_t>(a.count())) : 0) +
                    (packed_ ? 0 : up(static_cast<std::size_t>(b.count()) * 2));
        return k;
    }
    void run(const Call& c) const override {
        const View &a = *given(c, p_.a), &b = *given(c, p_.b), &y = c.out[0];
        if (y.count() == 0) return;
        Job j{c, a, b, y, a.in<std::uint8_t>(), packed_.get()};
        std::int64_t rows = a.rank == 1 ? 1 : a.dim(-2), cols = a.dim(-1);
        j.m = p_.trans_a ? cols : rows, j.k = p_.trans_a ? rows : cols;
        j.n = b.rank == 1 ? 1 : b.dim(p_.trans_b ? -2 : -1);
        j.batch_rank = std::max(std::max(a.rank, b.rank) - 2, 0);
        check(j);
        std::byte* at = c.scratch + static_cast<std::size_t>(c.workers.width()) * acc_bytes;
        if (p_.trans_a) {
            auto* t = reinterpret_cast<std::uint8_t*>(at);
            at += up(static_cast<std::size_t>(a.count()));
            for (std::int64_t r = 0; r < rows; ++r)
                for (std::int64_t i = 0; i < cols; ++i) t[i * rows + r] = j.pa[r * cols + i];
            j.pa = t;
        }
        if (!packed_) {
            auto* t = reinterpret_cast<std::int16_t*>(at);
            const View* z = given(c, p_.b_zero);
            std::int64_t matrices = j.k * j.n > 0 ? b.count() / (j.k * j.n) : 0, grain = std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, j.n));
            c.workers.ranges(matrices * j.k, grain, [&](std::int64_t from, std::int64_t to) {
                for (std::int64_t i = from; i < to; ++i) widen(b, z, i / j.k, i % j.k, i % j.k + 1, j.k, j.n, t);
            });
            j.pb = t;
        }
        std::int64_t mb = (j.m + tile_rows - 1) / tile_rows, nb = (j.n + tile_cols - 1) / tile_cols;
        c.workers.for_each(y.count() / (j.m * j.n) * mb * nb, [&](std::int64_t i, int worker) {
            tile(j, i / nb / mb, i / nb % mb * tile_rows, i % nb * tile_cols, c.scratch + static_cast<std::size_t>(worker) * acc_bytes);
        });
    }

private:
    static constexpr std::int64_t tile_rows = 64, tile_cols = 256;
    static constexpr std::size_t acc_bytes = tile_rows * tile_cols * 4;
    struct Job {
        const Call& call;
        const View &a, &b, &y;
        const std::uint8_t* pa;
        const std::int16_t* pb;
        std::int64_t m = 0, n = 0, k = 0;
        int batch_rank = 0;
    };
    static View view_of(const Tensor& t) {
        return View{t.dtype(), static_cast<std::int32_t>(t.shape().rank()), t.shape().data(), const_cast<void*>(t.raw())};
    }
    void check(const Job& j) const {
        std::int64_t ra = j.a.count() / std::max<std::int64_t>(1, j.k), cb = j.b.count() / std::max<std::int64_t>(1, j.k);
        for (int i : {p_.a_scale, p_.a_zero})
            if (const View* v = given(j.call, i); v && (v->count() == 0 || v->count() != ra)) need_single_or(v, j.m, "the scale or zero point of A");
        for (int i : {p_.b_scale, p_.b_zero})
            if (const View* v = given(j.call, i); v && (v->count() == 0 || v->count() != cb)) need_single_or(v, j.n, "the scale or zero point of B");
        need_single(given(j.call, p_.y_scale), "the output's scale");
        need_single(given(j.call, p_.y_zero), "the output's zero point");
    }
    /// The parameter of row (column) i of matrix `of` when there are `per` rows (columns).
    static std::int64_t which(const View& v, std::int64_t of, std::int64_t i, std::int64_t per) { return v.count() == per ? i : of * per + i; }

    /// Rows [k0, k1) of matrix `of` of B as [k, n] of 16 bits, without the zero point.
    void widen(const View& b, const View* zero, std::int64_t of, std::int64_t k0, std::int64_t k1, std::int64_t k, std::int64_t n, std::int16_t* to) const {
        bool one = !zero || zero->count() <= 1, is_unsigned = b.dtype == DType::u8;
        std::int32_t z0 = zero_at(zero, 0);
        const std::uint8_t* from = b.in<std::uint8_t>() + of * k * n;
        to += of * k * n;
        for (std::int64_t i = k0; i < k1; ++i)
            for (std::int64_t j = 0; j < n; ++j) {
                std::uint8_t raw = from[p_.trans_b ? j * k + i : i * n + j];
                std::int32_t x = is_unsigned ? raw : static_cast<std::int8_t>(raw);
                to[i * n + j] = static_cast<std::int16_t>(x - (one ? z0 : zero_at(zero, which(*zero, of, j, n))));
            }
    }
    void tile(const Job& j, std::int64_t batch, std::int64_t m0, std::int64_t n0, std::byte* scratch) const {
        std::int64_t rows = std::min(tile_rows, j.m - m0), cols = std::min(tile_cols, j.n - n0);
        std::int64_t ma = matmul::matrix_of(j.a, batch, j.y, j.batch_rank), mb = matmul::matrix_of(j.b, batch, j.y, j.batch_rank);
        bool direct = p_.out == DType::i32;
        std::int64_t at = (batch * j.m + m0) * j.n + n0, ldc = direct ? j.n : tile_cols;
        std::int32_t* acc = direct ? j.y.out<std::int32_t>() + at : reinterpret_cast<std::int32_t*>(scratch);
        const View* az = given(j.call, p_.a_zero);
        bool one = !az || az->count() <= 1, a_unsigned = j.a.dtype == DType::u8;
        const std::uint8_t* a = j.pa + (ma * j.m + m0) * j.k;
        const std::int16_t* b = j.pb + mb * j.k * j.n + n0;
        if (one) t_.gemm_8(rows, cols, j.k, a, a_unsigned, zero_at(az, 0), j.k, b, j.n, acc, ldc);
        else
            for (std::int64_t r = 0; r < rows; ++r)
                t_.gemm_8(1, cols, j.k, a + r * j.k, a_unsigned, zero_at(az, which(*az, ma, m0 + r, j.m)), j.k, b, j.n, acc + r * ldc, ldc);
        if (direct) return;
        for (std::int64_t r = 0; r < rows; ++r) finish(j, ma, mb, m0 + r, n0, cols, at + r * j.n, acc + r * ldc);
    }
    /// Sums of one row become values.
    void finish(const Job& j, std::int64_t ma, std::int64_t mb, std::int64_t row, std::int64_t n0, std::int64_t cols, std::int64_t at, std::int32_t* acc) const {
        if (const View* c = given(j.call, p_.bias)) {
            std::int64_t w = c->rank > 0 ? c->dim(-1) : 1, h = c->rank > 1 ? c->dim(-2) : 1;
            const std::int32_t* from = c->in<std::int32_t>() + (h == 1 ? 0 : row) * w;
            for (std::int64_t i = 0; i < cols; ++i)
                acc[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(acc[i]) + static_cast<std::uint32_t>(from[w == 1 ? 0 : n0 + i]));
        }
        const View &as = *given(j.call, p_.a_scale), &bs = *given(j.call, p_.b_scale), *ys = given(j.call, p_.y_scale);
        float scale[tile_cols], left = p_.alpha * scale_at(as, which(as, ma, row, j.m));
        float down = ys && p_.out != DType::f32 ? scale_at(*ys, 0) : 1.f;
        std::int64_t step = bs.count() == 1 ? 0 : 1;
        for (std::int64_t i = 0; i < (step ? cols : 1); ++i) scale[i] = left * scale_at(bs, step ? which(bs, mb, n0 + i, j.n) : 0) / down;
        std::int32_t zero = zero_at(given(j.call, p_.y_zero), 0);
        if (p_.out == DType::u8) requantize(acc, scale, step, zero, j.y.out<std::uint8_t>() + at, cols);
        else if (p_.out == DType::i8) requantize(acc, scale, step, zero, j.y.out<std::int8_t>() + at, cols);
        else
            for (std::int64_t i = 0; i < cols; ++i) j.y.out<float>()[at + i] = static_cast<float>(acc[i]) * scale[i * step];
    }
    ProductProblem p_;
    const vec::Table& t_;
    std::unique_ptr<std::int16_t[]> packed_;
    std::size_t packed_bytes_ = 0;
};

}  // namespace quant
QUERN_END
