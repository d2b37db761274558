// Normalization of the trailing dimensions.
#pragma once
#include <algorithm>
#include <cmath>

#include <quern/kernels/elementwise/binary.hpp>
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
/// (https://onnx.ai/onnx/operators/onnx__RMSNormalization.html). X, Y, scale and bias are f32, or all f64.
/// Scale and bias may be any shape that broadcasts to X. Tolerance, f32: 2e-6 * (1 + |y|).
class LayerKernel final : public Kernel {
public:
    LayerKernel(DType t, int axis, float eps, bool rms, Isa isa) : type_(t), axis_(axis), eps_(eps), rms_(rms), context_(isa, DType::f32) {
        inplace = 1;
    }
    const char* name() const noexcept override { return "norm.layer"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        const std::int64_t n = x.count(axis_, x.rank), rows = x.count(0, axis_);
        const View* mean = c.out.size() > 1 && c.out[1].present() ? &c.out[1] : nullptr;
        const View* inv = c.out.size() > 2 && c.out[2].present() ? &c.out[2] : nullptr;
        const View* scale = c.in.size() > 1 && c.in[1].present() ? &c.in[1] : nullptr;
        const View* bias = c.in.size() > 2 && c.in[2].present() ? &c.in[2] : nullptr;
        const bool fused = type_ == DType::f32 && covers(scale, x, n) && covers(bias, x, n);
        c.workers.ranges(rows, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, n)), [&](std::int64_t b, std::int64_t e) {
            for (std::int64_t r = b; r < e; ++r) {
                double m = 0, s = 0;
                if (type_ == DType::f32) {
                    float fm = 0, fs = 0;
                    context_.table->norm_f32(x.in<float>() + r * n, fused && scale ? scale->in<float>() : nullptr,
                                             fused && bias ? bias->in<float>() : nullptr, y.out<float>() + r * n, n, eps_, rms_, &fm, &fs);
                    m = static_cast<double>(fm);
                    s = static_cast<double>(fs);
                } else {
                    row_f64(x.in<double>() + r * n, y.out<double>() + r * n, n, static_cast<double>(eps_), rms_, m, s);
                }
                if (mean) store(*mean, r, m);
                if (inv) store(*inv, r, s);
            }
        });
        if (fused) return;
        if (scale) apply(ew::BinaryOp::mul, y, *scale, c.workers);
        if (bias) apply(ew::BinaryOp::add, y, *bias, c.workers);
    }

private:
    /// The parameter is one row: as many elements as are normalized, in the same order.
    bool covers(const View* p, const View& x, std::int64_t n) const noexcept { return !p || (p->count() == n && p->rank <= x.rank - axis_); }
    static void store(const View& v, std::int64_t i, double value) {
        ew::convert(DType::f64, &value, 0, v.dtype, static_cast<std::byte*>(v.data) + i * dtype_bits(v.dtype) / 8, 0, 1);
    }
    void apply(ew::BinaryOp op, const View& y, const View& p, Workers& w) const {
        ew::run_binary(y, type_, p, type_, y, type_, ew::binary_loop(op, type_), &context_, ew::cheap_grain, w);
    }
    DType type_;
    int axis_;
    float eps_;
    bool rms_;
    ew::BinaryContext context_;
};

}  // namespace norm
QUERN_END
