// Integer matrix products: i32 and i64, wrapping as two's complement.
#pragma once
#include <algorithm>
#include <limits>
#include <type_traits>

#include <quern/base/saturate.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/matmul/matmul.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace matmul {

/// Which matrix of `v` (a stack of matrices that broadcasts to y's) belongs to y's `batch`th matrix.
inline std::int64_t matrix_of(const View& v, std::int64_t batch, const View& y, int batch_rank) {
    std::int64_t at = 0, stride = 1;
    for (int d = batch_rank - 1, e = v.rank - 3; d >= 0; --d, --e) {
        std::int64_t i = batch % y.dims[d];
        batch /= y.dims[d];
        if (e >= 0) {
            if (v.dims[e] != 1) at += i * stride;
            stride *= v.dims[e];
        }
    }
    return at;
}

/// Y = alpha * A x B + C for i32 and i64: matmul::Problem without `post` and residual; alpha must be a whole number.
class IntegerKernel final : public Kernel {
public:
    explicit IntegerKernel(const Problem& p) : dtype_(p.dtype), ta_(p.trans_a), tb_(p.trans_b), alpha_(saturated<std::int64_t>(p.alpha)) {}
    const char* name() const noexcept override { return "matmul.integer"; }
    void run(const Call& c) const override {
        if (dtype_ == DType::i32) go<std::int32_t>(c);
        else go<std::int64_t>(c);
    }

private:
    template <class T>
    void go(const Call& call) const {
        using U = std::make_unsigned_t<T>;
        const View &a = call.in[0], &b = call.in[1], &y = call.out[0];
        std::int64_t rows = a.rank == 1 ? 1 : a.dim(-2), cols = a.dim(-1);
        std::int64_t m = ta_ ? cols : rows, k = ta_ ? rows : cols;
        std::int64_t n = b.rank == 1 ? 1 : tb_ ? b.dim(-2) : b.dim(-1);
        std::int64_t as_m = ta_ ? 1 : k, as_k = ta_ ? m : 1, bs_k = b.rank == 1 ? 1 : tb_ ? 1 : n, bs_n = tb_ ? k : 1;
        std::int64_t batches = m * n > 0 ? y.count() / (m * n) : 0;
        int batch_rank = std::max(std::max(a.rank, b.rank) - 2, 0);
        call.workers.ranges(batches * m, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, n * k)), [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t r = from; r < to; ++r) {
                std::int64_t batch = r / m, i = r % m;
                const T* pa = a.in<T>() + matrix_of(a, batch, y, batch_rank) * m * k + i * as_m;
                const T* pb = b.in<T>() + matrix_of(b, batch, y, batch_rank) * k * n;
                T* py = y.out<T>() + r * n;
                for (std::int64_t j = 0; j < n; ++j) {
                    U s = 0;
                    for (std::int64_t q = 0; q < k; ++q) s += static_cast<U>(pa[q * as_k]) * static_cast<U>(pb[q * bs_k + j * bs_n]);
                    py[j] = static_cast<T>(s * static_cast<U>(alpha_) + (call.in.size() > 2 && call.in[2].present() ? static_cast<U>(bias<T>(call.in[2], i, j)) : U{0}));
                }
            }
        });
    }
    template <class T>
    static T bias(const View& c, std::int64_t i, std::int64_t j) {
        std::int64_t w = c.rank > 0 ? c.dim(-1) : 1, h = c.rank > 1 ? c.dim(-2) : 1;
        return c.in<T>()[(h == 1 ? 0 : i) * w + (w == 1 ? 0 : j)];
    }
    DType dtype_;
    bool ta_, tb_;
    std::int64_t alpha_;
};

}  // namespace matmul
QUERN_END
