// Normalization of the trailing dimensions.
#pragma once
#include <algorithm>
#include <cmath>

#include <quern/kernels/elementwise/binary.hpp>
#include <quern/kernels/elementwise/rows.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace norm {

/// One row in double: y = (x - mean) / sqrt(var + eps); `rms` takes no mean off.
inline void row_f64(const double* x, double* y, std::int64_t n, double eps, bool rms, double& mean, double& inv) {
    mean = 0;
    if (!rms) {
        for (std::int64_t i = 0; i < n; ++i) mean += x[i];
        mean /= static_cast<double>(n);
    }
    double var = 0;
    for (std::int64_t i = 0; i < n; ++i) var += (x[i] - mean) * (x[i] - mean);
    inv = 1 / std::sqrt(var / static_cast<double>(n) + eps);
    for (std::int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * inv;
}

/// in: X, scale, optional bias; out: Y, optional mean and 1 / deviation (of any float type), over the dimensions from
/// `axis` on: https://onnx.ai/onnx/operators/onnx__LayerNormalization.html. `rms`: no mean is taken off
/// (https://onnx.ai/onnx/operators/onnx__RMSNormalization.html). X, Y, scale and bias are f64, or each f32, f16 or bf16: a row at a time is f32 then.
/// Scale and bias may be any shape that broadcasts to X. Tolerance, f32: 2e-6 * (1 + |y|).
class LayerKernel final : public Kernel {
public:
    LayerKernel(DType t, int axis, float eps, bool rms, Isa isa)
        : type_(t == DType::f64 ? t : DType::f32), axis_(axis), eps_(eps), rms_(rms), context_(isa, DType::f32) {
        inplace = 1;
    }
    const char* name() const noexcept override { return "norm.layer"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        Booking b;
        if (type_ == DType::f64) return b;
        const Parts p(*this, in, out[0]);
        b.scratch = p.scale + p.bias + p.whole + static_cast<std::size_t>(workers) * p.row;
        return b;
    }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        const Parts p(*this, c.in, y);
        std::byte* at = c.scratch;
        const View *scale = present(c.in, 1), *bias = present(c.in, 2);
        const float* rows[2] = {p.fused && scale ? parameter(*scale, p.scale, at, p.n) : nullptr, p.fused && bias ? parameter(*bias, p.bias, at + p.scale, p.n) : nullptr};
        at += p.scale + p.bias;
        View to = y;  // of the rows before parameters that are no rows
        if (p.whole) to.dtype = type_, to.data = at;
        at += p.whole;
        const View* mean = c.out.size() > 1 && c.out[1].present() ? &c.out[1] : nullptr;
        const View* inv = c.out.size() > 2 && c.out[2].present() ? &c.out[2] : nullptr;
        ew::with_real(type_, [&](auto zero) {
            using T = decltype(zero);
            ew::Rows<T>(x, to, p.n).run(x.count(0, axis_), std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, p.n)), at, c.workers, [&](std::int64_t r, const T* from, T* row) {
                double m = 0, s = 0;
                if constexpr (std::is_same_v<T, float>) {
                    float fm = 0, fs = 0;
                    context_.table->norm_f32(from, rows[0], rows[1], row, p.n, eps_, rms_, &fm, &fs);
                    m = static_cast<double>(fm);
                    s = static_cast<double>(fs);
                } else {
                    row_f64(from, row, p.n, static_cast<double>(eps_), rms_, m, s);
                }
                if (mean) store(*mean, r, m);
                if (inv) store(*inv, r, s);
            });
        });
        if (p.fused) return;
        if (scale) apply(ew::BinaryOp::mul, to, *scale, bias ? to : y, c.workers);
        if (bias) apply(ew::BinaryOp::add, to, *bias, y, c.workers);
    }

private:
    static const View* present(std::span<const View> in, std::size_t i) noexcept { return in.size() > i && in[i].present() ? &in[i] : nullptr; }
    /// How a call goes, and the bytes of scratch for it.
    struct Parts {
        std::int64_t n;
        bool fused;  ///< the parameters are rows: as many elements as are normalized, in the same order
        std::size_t scale, bias, whole, row;
        Parts(const LayerKernel& k, std::span<const View> in, const View& y) : n(in[0].count(k.axis_, in[0].rank)) {
            auto covers = [&](const View* p) { return !p || (p->count() == n && p->rank <= in[0].rank - k.axis_); };
            auto bytes = [&](bool wanted, std::int64_t count) { return wanted ? (static_cast<std::size_t>(count) * sizeof(float) + 63) / 64 * 64 : 0; };
            const View *s = present(in, 1), *b = present(in, 2);
            fused = k.type_ == DType::f32 && covers(s) && covers(b);
            scale = bytes(fused && s && s->dtype != DType::f32, n);
            bias = bytes(fused && b && b->dtype != DType::f32, n);
            whole = bytes(!fused && y.dtype != k.type_, y.count());
            row = k.type_ == DType::f32 ? ew::Rows<float>::bytes(in[0].dtype, whole ? k.type_ : y.dtype, n) : 0;
        }
    };
    static const float* parameter(const View& v, std::size_t bytes, std::byte* at, std::int64_t n) {
        if (!bytes) return v.in<float>();
        ew::convert(v.dtype, v.data, 0, DType::f32, at, 0, n);
        return reinterpret_cast<const float*>(at);
    }
    static void store(const View& v, std::int64_t i, double value) {
        ew::convert(DType::f64, &value, 0, v.dtype, static_cast<std::byte*>(v.data) + i * dtype_bits(v.dtype) / 8, 0, 1);
    }
    void apply(ew::BinaryOp op, const View& x, const View& p, const View& y, Workers& w) const {
        ew::run_binary(x, type_, p, type_, y, type_, ew::binary_loop(op, type_), &context_, ew::cheap_grain, w);
    }
    DType type_;
    int axis_;
    float eps_;
    bool rms_;
    ew::BinaryContext context_;
};

}  // namespace norm
QUERN_END
