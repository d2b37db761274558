// The activation of fused operators.
#pragma once
#include <quern/kernels/vec/vec.hpp>

#include "op.hpp"

QUERN_BEGIN
namespace ops_fused {

/// <prefix>activation (name of an ONNX operator, or absent) and <prefix>activation_params (its alpha and beta, or bounds).
struct Activation {
    vec::Post post = vec::Post::none;
    float alpha = 0, beta = 0;
};
inline Activation activation(const Attrs& a, const std::string& prefix = "") {
    static constexpr std::pair<const char*, vec::Post> names[] = {
        {"Relu", vec::Post::relu}, {"Clip", vec::Post::clip}, {"LeakyRelu", vec::Post::leaky_relu}, {"Gelu", vec::Post::gelu},
        {"GeluTanh", vec::Post::gelu_tanh}, {"Swish", vec::Post::silu}, {"Sigmoid", vec::Post::sigmoid}, {"Tanh", vec::Post::tanh},
        {"HardSwish", vec::Post::hard_swish}, {"HardSigmoid", vec::Post::hard_sigmoid}};
    std::string name = a.s(prefix + "activation", "");
    if (name.empty()) return {};
    auto p = a.floats(prefix + "activation_params");
    for (auto& [n, post] : names)
        if (name == n) return {post, p.size() > 0 ? p[0] : 0, p.size() > 1 ? p[1] : 0};
    raise(ErrorCode::invalid_model, "activation '" + name + "' cannot be fused; accepted: Relu, Clip, LeakyRelu, Gelu, GeluTanh, Swish, Sigmoid, Tanh, HardSwish, HardSigmoid");
}

}  // namespace ops_fused
QUERN_END
