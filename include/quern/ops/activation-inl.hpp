// Activations, each on its page at https://onnx.ai/onnx/operators/
#pragma once
#include <limits>

#include <quern/kernels/elementwise/binary.hpp>
#include <quern/kernels/elementwise/unary.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_activation {
using namespace ops_elementwise;
using ew::UnaryOp;

inline Lowered make(const LowerCtx& c, UnaryOp op, ew::UnaryParams p = {}) {
    if (c.target.device != Device::cpu) return ops_elementwise::lower_unary(c, op, p);
    return Lowered(std::make_unique<ew::UnaryKernel>(op, c.in(0).dtype, c.out(0).dtype, p, c.target.isa));
}
template <UnaryOp op>
Lowered lower(const LowerCtx& c) { return make(c, op); }
inline Lowered lower_leaky_relu(const LowerCtx& c) { return make(c, UnaryOp::leaky_relu, {c.attrs.f("alpha", 0.01f)}); }
inline Lowered lower_elu(const LowerCtx& c) { return make(c, UnaryOp::elu, {c.attrs.f("alpha", 1.0f)}); }
inline Lowered lower_selu(const LowerCtx& c) {
    return make(c, UnaryOp::selu, {c.attrs.f("alpha", 1.67326319217681884765625f), 0, c.attrs.f("gamma", 1.05070102214813232421875f)});
}
inline Lowered lower_celu(const LowerCtx& c) { return make(c, UnaryOp::celu, {c.attrs.f("alpha", 1.0f)}); }
inline Lowered lower_thresholded_relu(const LowerCtx& c) { return make(c, UnaryOp::thresholded_relu, {c.attrs.f("alpha", 1.0f)}); }
inline Lowered lower_hard_sigmoid(const LowerCtx& c) {
    return make(c, UnaryOp::hard_sigmoid, {c.attrs.f("alpha", 0.2f), c.attrs.f("beta", 0.5f)});
}
inline Lowered lower_swish(const LowerCtx& c) { return make(c, UnaryOp::swish, {c.attrs.f("alpha", 1.0f)}); }
inline Lowered lower_shrink(const LowerCtx& c) { return make(c, UnaryOp::shrink, {c.attrs.f("lambd", 0.5f), c.attrs.f("bias", 0.0f)}); }
inline Lowered lower_gelu(const LowerCtx& c) {
    return make(c, c.attrs.s("approximate", "none") == "tanh" ? UnaryOp::gelu_tanh : UnaryOp::gelu);
}
inline void infer_gelu(InferCtx& c) {
    infer_same<Types::real>(c);
    const std::string a = c.attrs.s("approximate", "none");
    if (a != "none" && a != "tanh") raise(ErrorCode::invalid_model, "approximate is '" + a + "'; accepted: none, tanh");
}
inline void infer_celu(InferCtx& c) {
    infer_same<Types::real>(c);
    if (c.attrs.f("alpha", 1.0f) == 0.0f) raise(ErrorCode::invalid_model, "alpha is 0; Celu divides by it");
}
inline void import_selu(ImportCtx& c) {
    drop_consumed(c);
    if (c.opset >= 6) return;
    if (!c.attrs.has("alpha")) c.attrs.set("alpha", 1.6732f);
    if (!c.attrs.has("gamma")) c.attrs.set("gamma", 1.0507f);
}

/// Before opset 7 the slope lies along the channels: dimension 1.
inline void import_prelu(ImportCtx& c) {
    drop_consumed(c);
    if (c.opset >= 7 || !c.has(0) || !c.has(1) || !c.fact(0).ranked || !c.fact(1).ranked) return;
    const int rank = c.fact(0).rank();
    if (c.fact(1).rank() != 1 || rank < 3 || (c.fact(1).concrete() && c.fact(1).shape().count() == 1)) return;
    std::vector<std::int64_t> axes;
    for (int i = 2; i < rank; ++i) axes.push_back(i - 1);
    c.in[1] = c.add("Unsqueeze", {c.in[1], c.constant_ints(axes)})[0];
}
/// The slope is broadcast to X, not X to the slope.
inline void infer_prelu(InferCtx& c) {
    need(c, 0, Types::arith);
    c.need_same_type(0, 1);
    if (c.ranked(0) && c.ranked(1)) {
        const auto &x = c.in(0).dims, &s = c.in(1).dims;
        bool fits = s.size() <= x.size();
        for (std::size_t i = 0; fits && i < s.size(); ++i) {
            const Dim &a = x[x.size() - s.size() + i], &b = s[i];
            fits = !(a.is_const() && b.is_const() && !b.is(1) && a.value() != b.value());
        }
        if (!fits) c.fail("the slope " + c.in(1).to_string() + " cannot be broadcast to " + c.in(0).to_string());
    }
    like(c, c.in(0).dtype);
}
/// One slope for all is LeakyRelu, which convolutions and products take in.
inline void simplify_prelu(PatchCtx& p) {
    if (p.in(0).dtype != DType::f32 || !p.in(0).ranked || !p.in(1).is_const() || p.in(1).value.count() != 1) return;
    const Tensor slope = p.in(1).value.aligned();
    Attrs a;
    a.set("alpha", slope.data<float>()[0]);
    p.replace(0, p.add("LeakyRelu", "leaky_relu", {p.node().in[0]}, std::move(a))[0]);
}
inline Lowered lower_prelu(const LowerCtx& c) {
    if (c.target.device != Device::cpu) return ops_elementwise::lower_binary(c, ew::BinaryOp::prelu);
    return Lowered(std::make_unique<ew::BinaryKernel>(ew::BinaryOp::prelu, c.in(0).dtype, c.in(1).dtype, c.out(0).dtype, c.target.isa));
}

inline void import_clip(ImportCtx& c) {
    drop_consumed(c);
    if (c.opset >= 11) return;
    const char* names[2] = {"min", "max"};
    c.in.resize(1, no_value);
    for (int i = 0; i < 2; ++i) {
        if (!c.attrs.has(names[i])) continue;
        const float v = c.attrs.f(names[i], 0);
        c.attrs.erase(names[i]);
        // The defaults of opset 6 mean: no bound.
        if (v == (i ? std::numeric_limits<float>::max() : std::numeric_limits<float>::lowest())) continue;
        Tensor t = Tensor::from(std::span<const float>(&v, 1), Shape{});
        ValueId bound = c.constant(std::move(t));
        if (c.fact(0).dtype != DType::f32) {
            Attrs to;
            to.set("to", static_cast<std::int64_t>(c.fact(0).dtype));
            bound = c.add("Cast", {bound}, std::move(to))[0];
        }
        while (static_cast<int>(c.in.size()) < i + 2) c.in.push_back(no_value);
        c.in[i + 1] = bound;
    }
}
inline void infer_clip(InferCtx& c) {
    need(c, 0, Types::arith);
    for (int i = 1; i <= 2; ++i) {
        if (!c.has(i)) continue;
        c.need_same_type(0, i);
        if (c.in(i).concrete() && c.in(i).ranked && c.in(i).shape().count() != 1)
            c.fail("Clip's bound is " + c.in(i).to_string() + "; accepted: a scalar");
    }
    like(c, c.in(0).dtype);
    unary_content(c, [&](const Dim& d) -> std::optional<Dim> {
        Dim v = d;
        if (c.has(1)) {
            auto low = c.ints(1);
            if (!low || low->size() != 1) return std::nullopt;
            v = max(v, (*low)[0]);
        }
        if (c.has(2)) {
            auto high = c.ints(2);
            if (!high || high->size() != 1) return std::nullopt;
            v = min(v, (*high)[0]);
        }
        return v;
    });
}
inline Lowered lower_clip(const LowerCtx& c) {
    if (c.target.device != Device::cpu) {
        ops_elementwise::DeviceProgram p(c);
        const bool whole = is_integer(c.in(0).dtype);
        p.load(0, whole);
        if (c.has(1)) p.binary(ew::BinaryOp::max, 1, whole);
        if (c.has(2)) p.binary(ew::BinaryOp::min, 2, whole);
        return p.lower();
    }
    return Lowered(std::make_unique<ew::ClipKernel>(c.in(0).dtype, c.target.isa));
}

}  // namespace ops_activation

#define QUERN_ACTIVATION(Name, opset, infer_function, lower_function)                                                     \
    QUERN_INLINE const OpDef& op_##Name() {                                                                               \
        static constexpr OpDef def{.name = #Name, .min_in = 1, .max_in = 1, .newest = opset,                              \
                                   .import = ops_activation::drop_consumed, .infer = infer_function, .lower = lower_function, \
                                   .lower_device = lower_function};                                                       \
        return def;                                                                                                       \
    }
#define QUERN_ACTIVATION_REAL(Name, opset, lower_function) \
    QUERN_ACTIVATION(Name, opset, ops_activation::infer_same<ops_activation::Types::real>, ops_activation::lower_function)
QUERN_ACTIVATION(Relu, 14, ops_activation::infer_same<ops_activation::Types::arith>, ops_activation::lower<ew::UnaryOp::relu>)
QUERN_ACTIVATION_REAL(Sigmoid, 13, lower<ew::UnaryOp::sigmoid>)
QUERN_ACTIVATION_REAL(HardSwish, 22, lower<ew::UnaryOp::hard_swish>)
QUERN_ACTIVATION_REAL(Softplus, 22, lower<ew::UnaryOp::softplus>)
QUERN_ACTIVATION_REAL(Softsign, 22, lower<ew::UnaryOp::softsign>)
QUERN_ACTIVATION_REAL(Mish, 22, lower<ew::UnaryOp::mish>)
QUERN_ACTIVATION_REAL(LeakyRelu, 16, lower_leaky_relu)
QUERN_ACTIVATION_REAL(Elu, 22, lower_elu)
QUERN_ACTIVATION_REAL(ThresholdedRelu, 22, lower_thresholded_relu)
QUERN_ACTIVATION_REAL(HardSigmoid, 22, lower_hard_sigmoid)
QUERN_ACTIVATION_REAL(Swish, 24, lower_swish)
QUERN_ACTIVATION(Shrink, 9, ops_activation::infer_same<ops_activation::Types::arith>, ops_activation::lower_shrink)
QUERN_ACTIVATION(Gelu, 20, ops_activation::infer_gelu, ops_activation::lower_gelu)
QUERN_ACTIVATION(Celu, 28, ops_activation::infer_celu, ops_activation::lower_celu)
#undef QUERN_ACTIVATION_REAL
#undef QUERN_ACTIVATION

QUERN_INLINE const OpDef& op_Selu() {
    static constexpr OpDef def{.name = "Selu", .min_in = 1, .max_in = 1, .newest = 22, .import = ops_activation::import_selu,
                               .infer = ops_activation::infer_same<ops_activation::Types::real>, .lower = ops_activation::lower_selu, .lower_device = ops_activation::lower_selu};
    return def;
}
QUERN_INLINE const OpDef& op_PRelu() {
    static constexpr OpDef def{.name = "PRelu", .min_in = 2, .max_in = 2, .newest = 16, .import = ops_activation::import_prelu,
                               .infer = ops_activation::infer_prelu, .simplify = ops_activation::simplify_prelu, .lower = ops_activation::lower_prelu, .lower_device = ops_activation::lower_prelu};
    return def;
}
QUERN_INLINE const OpDef& op_Clip() {
    static constexpr OpDef def{.name = "Clip", .min_in = 1, .max_in = 3, .newest = 13, .import = ops_activation::import_clip,
                               .infer = ops_activation::infer_clip, .lower = ops_activation::lower_clip, .lower_device = ops_activation::lower_clip};
    return def;
}
QUERN_END
