// Operators of recurrent attention layers: LinearAttention, CausalConvWithState, SwiGLU.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include <quern/kernels/kernel.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace attention {

/// https://onnx.ai/onnx/operators/onnx__LinearAttention.html. Inputs: query [B, T, Hq * Dk], key [B, T, Hk * Dk], value [B, T, Hk * Dv], past state
/// [B, Hk, Dk, Dv], decay [B, T, Hk * Dk or Hk], beta [B, T, Hk or 1]; outputs [B, T, Hq * Dv] and the state. Which of decay and beta
/// are present says the update rule, with `delta` for the correction. f32.
class LinearKernel final : public Kernel {
public:
    LinearKernel(std::int64_t q_heads, std::int64_t kv_heads, float scale, const vec::Table& t) : hq_(q_heads), hk_(kv_heads), scale_(scale), t_(t) {}
    const char* name() const noexcept override { return "attention.linear"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        std::int64_t dk = in[1].dims[2] / hk_, dv = in[2].dims[2] / hk_;
        Booking b;
        b.scratch = static_cast<std::size_t>(workers) * row_bytes(dv);
        if (!given(out, 1)) b.scratch += static_cast<std::size_t>(in[0].dims[0] * hk_ * dk * dv) * 4;
        return b;
    }
    void run(const Call& c) const override {
        std::int64_t b = c.in[0].dims[0], dk = c.in[1].dims[2] / hk_, dv = c.in[2].dims[2] / hk_;
        float* states = given(c.out, 1) ? c.out[1].out<float>() : reinterpret_cast<float*>(c.scratch + static_cast<std::size_t>(c.workers.width()) * row_bytes(dv));
        c.workers.for_each(b * hk_, [&](std::int64_t i, int worker) {
            float* s = states + i * dk * dv;
            if (given(c.in, 3)) std::copy_n(c.in[3].in<float>() + i * dk * dv, dk * dv, s);
            else std::fill_n(s, dk * dv, 0.f);
            head(c, i / hk_, i % hk_, dk, dv, s, reinterpret_cast<float*>(c.scratch + static_cast<std::size_t>(worker) * row_bytes(dv)));
        });
    }

private:
    static bool given(std::span<const View> v, std::size_t i) { return i < v.size() && v[i].present(); }
    static std::size_t row_bytes(std::int64_t n) { return (static_cast<std::size_t>(n) * 4 + 63) / 64 * 64; }
    void head(const Call& c, std::int64_t b, std::int64_t h, std::int64_t dk, std::int64_t dv, float* s, float* row) const {
        std::int64_t steps = c.in[0].dims[1], group = hq_ / hk_;
        const View *decay = given(c.in, 4) ? &c.in[4] : nullptr, *beta = given(c.in, 5) ? &c.in[5] : nullptr;
        bool per_key = decay && decay->dims[2] != hk_;
        if (decay && decay->dims[2] == hk_ * dk && dk == 1) per_key = false;
        float scale = scale_ != 0 ? scale_ : 1.f / std::sqrt(static_cast<float>(dk));
        for (std::int64_t t = 0; t < steps; ++t) {
            std::int64_t at = b * steps + t;
            const float *k = c.in[1].in<float>() + (at * hk_ + h) * dk, *v = c.in[2].in<float>() + (at * hk_ + h) * dv;
            if (decay) {
                const float* g = decay->in<float>() + at * decay->dims[2] + h * (per_key ? dk : 1);
                for (std::int64_t i = 0; i < dk; ++i) t_.affine_f32(s + i * dv, std::exp(g[per_key ? i : 0]), 0, s + i * dv, dv);
            }
            std::copy_n(v, dv, row);
            if (beta) {
                for (std::int64_t i = 0; i < dk; ++i) add_scaled(s + i * dv, -k[i], row, dv);
                float rate = beta->in<float>()[at * beta->dims[2] + (beta->dims[2] == 1 ? 0 : h)];
                for (std::int64_t j = 0; j < dv; ++j) row[j] *= rate;
            }
            for (std::int64_t i = 0; i < dk; ++i) add_scaled(row, k[i], s + i * dv, dv);
            for (std::int64_t q = h * group; q < (h + 1) * group; ++q) {
                const float* x = c.in[0].in<float>() + (at * hq_ + q) * dk;
                float* y = c.out[0].out<float>() + (at * hq_ + q) * dv;
                std::fill_n(y, dv, 0.f);
                for (std::int64_t i = 0; i < dk; ++i) add_scaled(s + i * dv, scale * x[i], y, dv);
            }
        }
    }
    static void add_scaled(const float* x, float a, float* y, std::int64_t n) {
        for (std::int64_t j = 0; j < n; ++j) y[j] += a * x[j];
    }
    std::int64_t hq_, hk_;
    float scale_;
    const vec::Table& t_;
};

/// https://onnx.ai/onnx/operators/onnx__CausalConvWithState.html: X [B, C, L], W [C, 1, K], bias [C], past [B, C, K - 1]; Y [B, C, L], the last K - 1
/// values of past and X. f32.
class CausalConvKernel final : public Kernel {
public:
    CausalConvKernel(bool silu, const vec::Table& t) : silu_(silu), t_(t) {}
    const char* name() const noexcept override { return "conv.causal"; }
    void run(const Call& c) const override {
        std::int64_t n = c.in[0].dims[2], channels = c.in[0].dims[1], k = c.in[1].dims[2];
        const float *bias = given(c.in, 2) ? c.in[2].in<float>() : nullptr, *past = given(c.in, 3) ? c.in[3].in<float>() : nullptr;
        c.workers.ranges(c.in[0].dims[0] * channels, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, n * k)), [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t i = from; i < to; ++i) {
                const float *x = c.in[0].in<float>() + i * n, *w = c.in[1].in<float>() + i % channels * k, *old = past ? past + i * (k - 1) : nullptr;
                float* y = c.out[0].out<float>() + i * n;
                std::fill_n(y, n, bias ? bias[i % channels] : 0.f);
                for (std::int64_t j = 0; j < k; ++j) {
                    std::int64_t back = k - 1 - j, split = std::min(back, n);  // y[t] += w[j] * x[t - back]
                    if (old)
                        for (std::int64_t t = 0; t < split; ++t) y[t] += w[j] * old[t + j];
                    for (std::int64_t t = split; t < n; ++t) y[t] += w[j] * x[t - back];
                }
                if (silu_) t_.unary_f32[static_cast<int>(vec::Unary::silu)](y, y, n);
                if (!given(c.out, 1)) continue;
                float* state = c.out[1].out<float>() + i * (k - 1);
                for (std::int64_t j = 0; j < k - 1; ++j) {
                    std::int64_t at = n + j;  // in past followed by X
                    state[j] = at >= k - 1 ? x[at - (k - 1)] : old ? old[at] : 0.f;
                }
            }
        });
    }

private:
    static bool given(std::span<const View> v, std::size_t i) { return i < v.size() && v[i].present(); }
    bool silu_;
    const vec::Table& t_;
};

/// y = a * sigmoid(alpha * a) * b (https://onnx.ai/onnx/operators/onnx__SwiGLU.html); f32 or f64.
class SwigluKernel final : public Kernel {
public:
    SwigluKernel(DType dtype, float alpha, const vec::Table& t) : dtype_(dtype), alpha_(alpha), t_(t) {}
    const char* name() const noexcept override { return "elementwise.swiglu"; }
    void run(const Call& c) const override {
        c.workers.ranges(c.out[0].count(), 16384, [&](std::int64_t from, std::int64_t to) {
            if (dtype_ == DType::f64) {
                const double *a = c.in[0].in<double>(), *b = c.in[1].in<double>();
                for (std::int64_t i = from; i < to; ++i) c.out[0].out<double>()[i] = a[i] / (1 + std::exp(-static_cast<double>(alpha_) * a[i])) * b[i];
                return;
            }
            for (std::int64_t i = from; i < to; i += block) {
                std::int64_t n = std::min<std::int64_t>(block, to - i);
                const float *a = c.in[0].in<float>() + i, *b = c.in[1].in<float>() + i;
                float g[block];
                if (alpha_ == 1) {
                    t_.unary_f32[static_cast<int>(vec::Unary::silu)](a, g, n);
                } else {
                    t_.affine_f32(a, alpha_, 0, g, n);
                    t_.unary_f32[static_cast<int>(vec::Unary::sigmoid)](g, g, n);
                    t_.binary_f32[static_cast<int>(vec::Binary::mul)](g, a, g, n);
                }
                t_.binary_f32[static_cast<int>(vec::Binary::mul)](g, b, c.out[0].out<float>() + i, n);
            }
        });
    }

private:
    static constexpr int block = 1024;
    DType dtype_;
    float alpha_;
    const vec::Table& t_;
};

}  // namespace attention
QUERN_END
