// Normalizations by channel: batch, instance, group, local response, Lp.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include <quern/kernels/elementwise/rows.hpp>
#include <quern/kernels/norm/layer.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace norm {

/// A tensor as [batch, channels, inner]; rank 1 is a batch of one channel.
struct Planes {
    std::int64_t batch, channels, inner;
    explicit Planes(const View& x)
        : batch(x.rank ? x.dims[0] : 1), channels(x.rank > 1 ? x.dims[1] : 1), inner(x.rank > 2 ? x.count(2, x.rank) : 1) {}
};
/// The parameters as double; raises shape_mismatch when there are not `n`.
inline void load_row(const View& v, std::int64_t n, const char* what, double* to) {
    if (v.count() != n)
        raise(ErrorCode::shape_mismatch, std::string(what) + " has " + std::to_string(v.count()) + " elements; accepted: " + std::to_string(n));
    ew::convert(v.dtype, v.data, 0, DType::f64, to, 0, n);
}
inline void affine(const vec::Table& t, const float* x, double scale, double shift, float* y, std::int64_t n) {
    t.affine_f32(x, static_cast<float>(scale), static_cast<float>(shift), y, n);
}
inline void affine(const vec::Table&, const double* x, double scale, double shift, double* y, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * scale + shift;
}

/// in: X, scale, bias, mean, variance (any float types); out: Y and, in training, the running mean and variance:
/// https://onnx.ai/onnx/operators/onnx__BatchNormalization.html. X and Y are f32, f64, f16 or bf16.
class BatchKernel final : public Kernel {
public:
    BatchKernel(float eps, float momentum, bool training, Isa isa)
        : eps_(static_cast<double>(eps)), momentum_(static_cast<double>(momentum)), training_(training), table_(&vec::table(isa)) {
        inplace = 1;
    }
    const char* name() const noexcept override { return "norm.batch"; }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        Booking b;
        b.scratch = static_cast<std::size_t>(Planes(in[0]).channels) * 4 * sizeof(double);
        return b;
    }
    void run(const Call& c) const override {
        ew::with_real(c.in[0].dtype, [&](auto zero) { go<decltype(zero)>(c); });
    }

private:
    template <class T>
    void go(const Call& c) const {
        const Planes p(c.in[0]);
        const std::int64_t n = p.channels;
        const View &x = c.in[0], &y = c.out[0];
        double *scale = reinterpret_cast<double*>(c.scratch), *bias = scale + n, *mean = bias + n, *var = mean + n;
        load_row(c.in[1], n, "scale", scale);
        load_row(c.in[2], n, "bias", bias);
        load_row(c.in[3], n, "mean", mean);
        load_row(c.in[4], n, "variance", var);
        if (training_) statistics<T>(c, p, mean, var);
        for (std::int64_t i = 0; i < n; ++i) {
            scale[i] /= std::sqrt(var[i] + eps_);
            bias[i] -= mean[i] * scale[i];
        }
        const std::int64_t grain = std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, p.inner));
        c.workers.ranges(p.batch * n, grain, [&](std::int64_t b, std::int64_t e) {
            if (p.inner == 1)
                return ew::map_pieces<T>(x, y, b, e - b, [&](const T* from, T* to, std::int64_t at, std::int64_t m) {
                    for (std::int64_t i = 0, k = (b + at) % n; i < m; ++i, k = k + 1 == n ? 0 : k + 1)
                        to[i] = static_cast<T>(static_cast<double>(from[i]) * scale[k] + bias[k]);
                });
            for (std::int64_t i = b; i < e; ++i)
                ew::map_pieces<T>(x, y, i * p.inner, p.inner,
                                  [&](const T* from, T* to, std::int64_t, std::int64_t m) { affine(*table_, from, scale[i % n], bias[i % n], to, m); });
        });
    }
    /// The batch's mean and variance into mean and var; the running ones into outputs 1 and 2.
    template <class T>
    void statistics(const Call& c, const Planes& p, double* mean, double* var) const {
        const std::int64_t n = p.channels;
        const double count = static_cast<double>(p.batch * p.inner);
        c.workers.for_each(n, [&](std::int64_t k) {
            double m = 0, v = 0;
            auto each = [&](auto&& f) {
                for (std::int64_t b = 0; b < p.batch; ++b)
                    ew::read_pieces<T>(c.in[0], (b * n + k) * p.inner, p.inner, [&](const T* x, std::int64_t, std::int64_t count) {
                        for (std::int64_t i = 0; i < count; ++i) f(static_cast<double>(x[i]));
                    });
            };
            each([&](double x) { m += x; });
            m /= count;
            each([&](double x) { v += (x - m) * (x - m); });
            v /= count;
            store(c, 1, k, mean[k] * momentum_ + m * (1 - momentum_));
            store(c, 2, k, var[k] * momentum_ + v * (1 - momentum_));
            mean[k] = m;
            var[k] = v;
        });
    }
    static void store(const Call& c, std::size_t o, std::int64_t i, double v) {
        if (c.out.size() <= o || !c.out[o].present()) return;
        ew::convert(DType::f64, &v, 0, c.out[o].dtype, c.out[o].out<std::byte>() + i * dtype_bits(c.out[o].dtype) / 8, 0, 1);
    }
    double eps_, momentum_;
    bool training_;
    const vec::Table* table_;
};

/// Each group of channels of each batch item to mean 0 and variance 1, then scale and bias:
/// https://onnx.ai/onnx/operators/onnx__GroupNormalization.html; groups 0: each channel is one (InstanceNormalization).
/// Scale and bias: one for each channel, or for each group. X and Y are f32, f64, f16 or bf16.
class GroupKernel final : public Kernel {
public:
    GroupKernel(std::int64_t groups, bool by_group, float eps, Isa isa) : groups_(groups), by_group_(by_group), eps_(eps), table_(&vec::table(isa)) {
        inplace = 1;
    }
    const char* name() const noexcept override { return "norm.group"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        Booking b;
        const Planes p(in[0]);
        const std::int64_t groups = groups_ ? groups_ : p.channels, each = groups > 0 ? p.channels / groups * p.inner : 0;
        b.scratch = parameter_bytes(p);
        if (in[0].dtype != DType::f64) b.scratch += static_cast<std::size_t>(workers) * ew::Rows<float>::bytes(in[0].dtype, out[0].dtype, each);
        return b;
    }
    void run(const Call& c) const override {
        ew::with_real(c.in[0].dtype, [&](auto zero) { go<decltype(zero)>(c); });
    }

private:
    template <class T>
    void go(const Call& c) const {
        const Planes p(c.in[0]);
        const std::int64_t groups = groups_ ? groups_ : p.channels;
        if (p.channels == 0 || c.in[0].count() == 0) return;
        if (p.channels % groups)
            raise(ErrorCode::shape_mismatch, std::to_string(p.channels) + " channels do not divide into " + std::to_string(groups) + " groups");
        const std::int64_t each = p.channels / groups, n = each * p.inner, params = by_group_ ? groups : p.channels;
        double *scale = reinterpret_cast<double*>(c.scratch), *bias = scale + params;
        load_row(c.in[1], params, "scale", scale);
        load_row(c.in[2], params, "bias", bias);
        ew::Rows<T>(c.in[0], c.out[0], n).run(p.batch * groups, std::max<std::int64_t>(1, 16384 / n), c.scratch + parameter_bytes(p), c.workers, [&](std::int64_t i, const T* x, T* row) {
            if constexpr (std::is_same_v<T, float>) {
                table_->norm_f32(x, nullptr, nullptr, row, n, eps_, false, nullptr, nullptr);
            } else {
                double mean = 0, inv = 0;
                row_f64(x, row, n, static_cast<double>(eps_), false, mean, inv);
            }
            const std::int64_t g = i % groups;
            for (std::int64_t k = 0; k < each; ++k) {
                const std::int64_t at = by_group_ ? g : g * each + k;
                affine(*table_, row + k * p.inner, scale[at], bias[at], row + k * p.inner, p.inner);
            }
        });
    }
    static std::size_t parameter_bytes(const Planes& p) noexcept { return (static_cast<std::size_t>(p.channels) * 2 * sizeof(double) + 63) / 64 * 64; }
    std::int64_t groups_;
    bool by_group_;
    float eps_;
    const vec::Table* table_;
};

/// y = x / (bias + alpha / size * sum of squares over `size` channels)^beta:
/// https://onnx.ai/onnx/operators/onnx__LRN.html; f32 and f64.
class LrnKernel final : public Kernel {
public:
    LrnKernel(std::int64_t size, float alpha, float beta, float bias, Isa isa)
        : size_(size), alpha_(alpha), beta_(beta), bias_(bias), table_(&vec::table(isa)) {}
    const char* name() const noexcept override { return "norm.lrn"; }
    void run(const Call& c) const override {
        dispatch_real(c.in[0].dtype, [&](auto tag) { go<typename decltype(tag)::type>(c); });
    }

private:
    template <class T>
    void go(const Call& c) const {
        const Planes p(c.in[0]);
        const std::int64_t chunks = (p.inner + width - 1) / width, below = (size_ - 1) / 2, above = size_ / 2;
        const std::int64_t most = (std::int64_t{1} << 22) / (std::min(size_, p.channels) + 1) / std::min(width, p.inner + 1) + 1;  // channels of a tile
        const std::int64_t parts = (p.channels + most - 1) / most;
        auto* x = c.in[0].in<T>();
        auto* y = c.out[0].out<T>();
        c.workers.for_each(p.batch * chunks * parts, [&](std::int64_t tile) {
            const std::int64_t part = tile % parts, at = tile / parts % chunks * width, n = std::min(width, p.inner - at), image = tile / parts / chunks;
            const T* from = x + image * p.channels * p.inner + at;
            T* to = y + image * p.channels * p.inner + at;
            T sum[width];
            for (std::int64_t k = part * most; k < std::min(p.channels, (part + 1) * most); ++k) {
                std::fill(sum, sum + n, T(0));
                const std::int64_t end = std::min(p.channels - 1, k + above);
                for (std::int64_t j = std::max<std::int64_t>(0, k - below); j <= end; ++j) {
                    const T* row = from + j * p.inner;
                    if constexpr (std::is_same_v<T, float>) table_->accumulate_f32[static_cast<int>(vec::Reduce::sum_square)](row, sum, n);
                    else for (std::int64_t i = 0; i < n; ++i) sum[i] += row[i] * row[i];
                }
                divide(from + k * p.inner, sum, to + k * p.inner, n);
            }
        });
    }
    template <class T>
    void divide(const T* x, T* sum, T* y, std::int64_t n) const {
        const T a = static_cast<T>(alpha_) / static_cast<T>(size_), b = static_cast<T>(bias_), e = static_cast<T>(beta_);
        if (beta_ == 0.75f) {  // AlexNet's: v^0.75 = sqrt(v) * sqrt(sqrt(v))
            if constexpr (std::is_same_v<T, float>) {
                auto sqrt = table_->unary_f32[static_cast<int>(vec::Unary::sqrt)];
                float root[width];
                table_->affine_f32(sum, a, b, sum, n);
                sqrt(sum, sum, n);
                sqrt(sum, root, n);
                table_->binary_f32[static_cast<int>(vec::Binary::mul)](sum, root, sum, n);
                return table_->binary_f32[static_cast<int>(vec::Binary::div)](x, sum, y, n);
            }
            for (std::int64_t i = 0; i < n; ++i) {
                const T r = std::sqrt(b + a * sum[i]);
                y[i] = x[i] / (r * std::sqrt(r));
            }
            return;
        }
        for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] / std::pow(b + a * sum[i], e);
    }
    static constexpr std::int64_t width = 512;
    std::int64_t size_;
    float alpha_, beta_, bias_;
    const vec::Table* table_;
};

/// y = x / (sum |x|^p)^(1/p) along an axis, 0 where that sum is 0: p is 1 or 2;
/// https://onnx.ai/onnx/operators/onnx__LpNormalization.html; f32 and f64.
class LpKernel final : public Kernel {
public:
    LpKernel(int axis, int p) : axis_(axis), p_(p) { inplace = 1; }
    const char* name() const noexcept override { return "norm.lp"; }
    void run(const Call& c) const override {
        const View& x = c.in[0];
        const std::int64_t n = x.dims[axis_], inner = x.count(axis_ + 1, x.rank), outer = x.count(0, axis_);
        dispatch_real(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            c.workers.ranges(outer * inner, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, n)), [&](std::int64_t b, std::int64_t e) {
                for (std::int64_t i = b; i < e; ++i) {
                    const std::int64_t at = i / inner * n * inner + i % inner;
                    line(x.in<T>() + at, c.out[0].out<T>() + at, n, inner);
                }
            });
        });
    }

private:
    template <class T>
    void line(const T* x, T* y, std::int64_t n, std::int64_t step) const {
        double sum = 0;
        for (std::int64_t k = 0; k < n; ++k) {
            const double v = static_cast<double>(x[k * step]);
            sum += p_ == 1 ? std::fabs(v) : v * v;
        }
        if (p_ == 2) sum = std::sqrt(sum);
        for (std::int64_t k = 0; k < n; ++k) y[k * step] = sum == 0 ? T(0) : static_cast<T>(static_cast<double>(x[k * step]) / sum);
    }
    int axis_, p_;
};

}  // namespace norm
QUERN_END
