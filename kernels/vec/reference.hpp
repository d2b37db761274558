// The functions of vec::Table in double: the oracle of tests.
#pragma once
#include <algorithm>
#include <cmath>

#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace vec::reference {

inline double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
inline double unary(Unary u, double x) {
    switch (u) {
        case Unary::exp: return std::exp(x);
        case Unary::log: return std::log(x);
        case Unary::tanh: return std::tanh(x);
        case Unary::sigmoid: return sigmoid(x);
        case Unary::erf: return std::erf(x);
        case Unary::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
        case Unary::gelu_tanh: return x * sigmoid(2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x));
        case Unary::silu: return x * sigmoid(x);
        case Unary::sqrt: return std::sqrt(x);
        case Unary::rsqrt: return 1 / std::sqrt(x);
        case Unary::reciprocal: return 1 / x;
        case Unary::sin: return std::sin(x);
        case Unary::cos: return std::cos(x);
        case Unary::abs: return std::abs(x);
        case Unary::neg: return -x;
        case Unary::relu: return x > 0 || x != x ? x : 0;
        case Unary::hard_swish: return x * std::clamp(x / 6 + 0.5, 0.0, 1.0);
        case Unary::floor: return std::floor(x);
        case Unary::ceil: return std::ceil(x);
        case Unary::square: return x * x;
        case Unary::softplus: return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
        case Unary::mish: return x * std::tanh(std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))));
        case Unary::count: break;
    }
    return 0;
}
inline double post(Post p, double x, double alpha, double beta) {
    switch (p) {
        case Post::none: return x;
        case Post::relu: return std::max(x, 0.0);
        case Post::clip: return std::min(std::max(x, alpha), beta);
        case Post::leaky_relu: return x < 0 ? alpha * x : x;
        case Post::gelu: return unary(Unary::gelu, x);
        case Post::gelu_tanh: return unary(Unary::gelu_tanh, x);
        case Post::silu: return x * sigmoid((alpha == 0 ? 1 : alpha) * x);
        case Post::sigmoid: return sigmoid(x);
        case Post::tanh: return std::tanh(x);
        case Post::hard_swish: return unary(Unary::hard_swish, x);
        case Post::hard_sigmoid: return std::clamp(alpha * x + beta, 0.0, 1.0);
    }
    return x;
}

}  // namespace vec::reference
QUERN_END
