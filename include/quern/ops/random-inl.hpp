// RandomNormal, RandomUniform, their Like forms, Bernoulli, Multinomial:
// https://onnx.ai/onnx/operators/onnx__RandomNormal.html
#pragma once
#include <quern/kernels/elementwise/random.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_random {
using namespace ops_elementwise;
using Kind = ew::RandomParams::Kind;

inline DType wanted(const Attrs& a, DType otherwise) {
    const std::int64_t t = a.i("dtype", static_cast<std::int64_t>(otherwise));
    if (t < 1 || t >= dtype_count) raise(ErrorCode::invalid_model, "dtype is " + std::to_string(t) + "; accepted: 1 to " + std::to_string(dtype_count - 1));
    return static_cast<DType>(t);
}
inline void need_float(DType t) {
    if (t != DType::f32 && t != DType::f64 && t != DType::f16 && t != DType::bf16)
        raise(ErrorCode::invalid_model, std::string("dtype is ") + dtype_name(t) + "; accepted: float, double, float16, bfloat16");
}
inline void infer_shape(InferCtx& c) {
    const DType t = wanted(c.attrs, DType::f32);
    need_float(t);
    std::vector<Dim> d;
    for (std::int64_t n : c.attrs.ints("shape")) {
        if (n < 0) raise(ErrorCode::invalid_model, "shape has " + std::to_string(n) + "; accepted: 0 and more");
        d.push_back(Dim(n));
    }
    c.set(0, t, std::move(d));
}
inline void infer_like(InferCtx& c) {
    const DType t = wanted(c.attrs, c.in(0).dtype);
    need_float(t);
    like(c, t);
}
inline void infer_bernoulli(InferCtx& c) {
    need(c, 0, Types::real);
    const DType t = wanted(c.attrs, c.in(0).dtype);
    if (!ew::is_number(t) || dtype_bits(t) < 8) raise(ErrorCode::invalid_model, std::string("dtype is ") + dtype_name(t) + "; accepted: numbers and bool");
    like(c, t);
}
inline void infer_multinomial(InferCtx& c) {
    need(c, 0, Types::real);
    c.need_rank(0, 2, 2);
    const DType t = wanted(c.attrs, DType::i32);
    if (t != DType::i32 && t != DType::i64) raise(ErrorCode::invalid_model, std::string("dtype is ") + dtype_name(t) + "; accepted: int32, int64");
    const std::int64_t n = c.attrs.i("sample_size", 1);
    if (n < 0) raise(ErrorCode::invalid_model, "sample_size is " + std::to_string(n) + "; accepted: 0 and more");
    if (c.ranked(0)) c.set(0, t, {c.in(0).dims[0], Dim(n)});
    else c.set_unranked(0, t);
}
template <Kind kind>
Lowered lower(const LowerCtx& c) {
    ew::RandomParams p;
    p.kind = kind;
    p.a = static_cast<double>(kind == Kind::uniform ? c.attrs.f("low", 0) : c.attrs.f("mean", 0));
    p.b = static_cast<double>(kind == Kind::uniform ? c.attrs.f("high", 1) : c.attrs.f("scale", 1));
    if (const float seed = c.attrs.has("seed") ? c.attrs.f("seed", 0) : NAN; seed == seed)  // a whole number, of which 32 bits count
        p.seed = static_cast<std::uint32_t>(static_cast<std::int64_t>(std::clamp(seed, -0x1p62f, 0x1p62f)));
    return Lowered(std::make_unique<ew::RandomKernel>(p));
}

}  // namespace ops_random

#define QUERN_RANDOM(Name, n, infer_function, kind_id)                                                        \
    QUERN_INLINE const OpDef& op_##Name() {                                                                   \
        static constexpr OpDef def{.name = #Name, .min_in = n, .max_in = n, .newest = 22,                     \
                                   .infer = ops_random::infer_function,                                       \
                                   .lower = ops_random::lower<ops_random::Kind::kind_id>, .pure = false};     \
        return def;                                                                                           \
    }
QUERN_RANDOM(RandomUniform, 0, infer_shape, uniform)
QUERN_RANDOM(RandomNormal, 0, infer_shape, normal)
QUERN_RANDOM(RandomUniformLike, 1, infer_like, uniform)
QUERN_RANDOM(RandomNormalLike, 1, infer_like, normal)
QUERN_RANDOM(Bernoulli, 1, infer_bernoulli, bernoulli)
QUERN_RANDOM(Multinomial, 1, infer_multinomial, multinomial)
#undef QUERN_RANDOM
QUERN_END
