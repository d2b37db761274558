// The activation functions that recurrent operators name.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace rnn {

/// https://onnx.ai/onnx/operators/onnx__RNN.html, "Activation functions".
struct Activation {
    enum Kind : std::uint8_t {
        relu, tanh, sigmoid, affine, leaky_relu, thresholded_relu, scaled_tanh, hard_sigmoid, elu, softsign, softplus, unknown
    } kind = tanh;
    float alpha = 0, beta = 0;

    /// By name, in any case, with ONNX's default parameters.
    static Activation named(std::string name) {
        for (char& c : name)
            if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
        if (name == "relu") return {relu, 0, 0};
        if (name == "tanh") return {tanh, 0, 0};
        if (name == "sigmoid") return {sigmoid, 0, 0};
        if (name == "affine") return {affine, 1, 0};
        if (name == "leakyrelu") return {leaky_relu, 0.01f, 0};
        if (name == "thresholdedrelu") return {thresholded_relu, 1, 0};
        if (name == "scaledtanh") return {scaled_tanh, 1, 1};
        if (name == "hardsigmoid") return {hard_sigmoid, 0.2f, 0.5f};
        if (name == "elu") return {elu, 1, 0};
        if (name == "softsign") return {softsign, 0, 0};
        if (name == "softplus") return {softplus, 0, 0};
        return {unknown, 0, 0};
    }
    /// How many of alpha and beta it takes.
    int parameters() const {
        switch (kind) {
            case affine: case scaled_tanh: case hard_sigmoid: return 2;
            case leaky_relu: case thresholded_relu: case elu: return 1;
            default: return 0;
        }
    }
    template <class T>
    void apply(T* x, std::int64_t n, const vec::Table& t) const {
        if constexpr (std::is_same_v<T, float>) {
            if (kind == tanh) return t.unary_f32[static_cast<int>(vec::Unary::tanh)](x, x, n);
            if (kind == sigmoid) return t.unary_f32[static_cast<int>(vec::Unary::sigmoid)](x, x, n);
        }
        for (std::int64_t i = 0; i < n; ++i) x[i] = one(x[i]);
    }
    template <class T>
    T one(T x) const {
        T a = static_cast<T>(alpha), b = static_cast<T>(beta);
        switch (kind) {
            case relu: return x > 0 ? x : T{0};
            case tanh: return std::tanh(x);
            case sigmoid: return T{1} / (T{1} + std::exp(-x));
            case affine: return a * x + b;
            case leaky_relu: return x >= 0 ? x : a * x;
            case thresholded_relu: return x > a ? x : T{0};
            case scaled_tanh: return a * std::tanh(b * x);
            case hard_sigmoid: return std::min(T{1}, std::max(T{0}, a * x + b));
            case elu: return x >= 0 ? x : a * std::expm1(x);
            case softsign: return x / (T{1} + std::fabs(x));
            case softplus: return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
            default: return x;
        }
    }
};

}  // namespace rnn
QUERN_END
