// The activation of fused operators, and FusedConv's problem, which passes try.
#pragma once
#include <quern/kernels/vec/vec.hpp>

#include "conv.hpp"

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

template <class P>
void set_post(P& p, const LowerCtx& ctx) {
    Activation a = activation(ctx.attrs);
    p.post = a.post;
    p.post_alpha = a.alpha;
    p.post_beta = a.beta;
    p.has_residual = ctx.has(3);
}
inline bool channels_last(const Attrs& a) { return a.s("layout", "nchw") == "nhwc"; }
/// The family's problem of a FusedConv.
inline conv::Problem conv_problem(const LowerCtx& ctx) {
    conv::Problem p = ops_conv::problem(ctx);
    set_post(p, ctx);
    if (channels_last(ctx.attrs)) p.layout = conv::Layout::nhwc;
    p.has_gate = ctx.has(4);
    return p;
}

}  // namespace ops_fused
QUERN_END
