// 8-bit operators of domain com.microsoft, as ONNX Runtime documents them (docs/ContribOperators.md): QGemm, QLinearAdd, QLinearMul,
// QLinearLeakyRelu, QLinearSigmoid, QLinearSoftmax, QLinearGlobalAveragePool, QLinearAveragePool, QLinearConcat,
// MatMulIntegerToFloat.
#pragma once
#include <quern/kernels/quant/elementwise_8.hpp>
#include <quern/kernels/quant/matmul_8.hpp>

#include "matmul.hpp"

QUERN_BEGIN
namespace ops_contrib_int8 {

inline void need_8(const InferCtx& ctx, int i) { ctx.need_type(i, {DType::u8, DType::i8}); }
inline void need_parameters(const InferCtx& ctx, int scale, int zero, int like) {
    ctx.need_type(scale, {DType::f32});
    if (ctx.has(zero)) ctx.need_same_type(zero, like);
}

// QGemm: A, scale, zero, B, scale, zero, C, scale and zero of Y.
inline void infer_gemm(InferCtx& ctx) {
    need_8(ctx, 0);
    need_8(ctx, 3);
    need_parameters(ctx, 1, 2, 0);
    need_parameters(ctx, 4, 5, 3);
    if (ctx.has(6)) ctx.need_type(6, {DType::i32});
    DType t = ctx.has(8) ? ctx.in(8).dtype : ctx.has(7) ? ctx.in(0).dtype : DType::f32;
    if (ctx.has(7)) ctx.need_type(7, {DType::f32});
    if (ctx.has(8)) need_8(ctx, 8);
    if (ctx.has(8) && !ctx.has(7)) ctx.fail("y_zero_point is given without y_scale");
    if (!ctx.ranked(0) || !ctx.ranked(3)) return ctx.set_unranked(0, t);
    ctx.need_rank(0, 2, 2);
    ctx.need_rank(3, 2, 2);
    std::vector<Dim> a = ctx.in(0).dims, b = ctx.in(3).dims;
    if (ctx.attrs.i("transA", 0)) std::swap(a[0], a[1]);
    if (ctx.attrs.i("transB", 0)) std::swap(b[0], b[1]);
    ops_window::same(ctx, a[1], b[0], "the inner dimensions of the matrix product");
    std::vector<Dim> y{a[0], b[1]};
    if (ctx.has(6) && ctx.ranked(6)) {
        ctx.need_rank(6, 0, 2);
        const std::vector<Dim>& c = ctx.in(6).dims;
        for (std::size_t i = 0; i < c.size(); ++i)
            if (!c[c.size() - 1 - i].is(1)) ops_window::same(ctx, c[c.size() - 1 - i], y[1 - i], "C, which must broadcast to the product");
    }
    ctx.set(0, t, std::move(y));
}
inline Lowered lower_gemm(const LowerCtx& ctx) {
    quant::ProductProblem p;
    p.a_scale = 1, p.b = 3, p.b_scale = 4;
    p.a_zero = ctx.has(2) ? 2 : -1, p.b_zero = ctx.has(5) ? 5 : -1, p.bias = ctx.has(6) ? 6 : -1;
    p.y_scale = ctx.has(7) ? 7 : -1, p.y_zero = ctx.has(8) ? 8 : -1;
    p.trans_a = ctx.attrs.i("transA", 0) != 0;
    p.trans_b = ctx.attrs.i("transB", 0) != 0;
    p.alpha = ctx.attrs.f("alpha", 1);
    p.out = ctx.out(0).dtype;
    p.b_value = ctx.constant(3);
    return Lowered(std::make_unique<quant::ProductKernel>(p, ctx.target));
}

/// MatMulIntegerToFloat: A, B, their scales, their zero points, bias.
inline void infer_to_float(InferCtx& ctx) {
    need_8(ctx, 0);
    need_8(ctx, 1);
    need_parameters(ctx, 2, 4, 0);
    need_parameters(ctx, 3, 5, 1);
    if (ctx.has(6)) ctx.need_type(6, {DType::f32});
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, DType::f32);
    std::vector<Dim> y = ops_matmul::product(ctx, ctx.in(0).dims, ctx.in(1).dims);
    if (ctx.has(6) && ctx.ranked(6)) {
        ctx.need_rank(6, 1, 1);
        if (y.empty()) ctx.fail("a bias for a product that is one number");
        ops_window::same(ctx, ctx.in(6).dims[0], y.back(), "length of the bias and columns of B");
    }
    ctx.set(0, DType::f32, std::move(y));
}
inline Lowered lower_to_float(const LowerCtx& ctx) {
    quant::ProductProblem p;
    p.a_scale = 2, p.b_scale = 3;
    p.a_zero = ctx.has(4) ? 4 : -1, p.b_zero = ctx.has(5) ? 5 : -1, p.bias = ctx.has(6) ? 6 : -1;
    p.out = DType::f32;
    p.b_value = ctx.constant(1);
    return Lowered(std::make_unique<quant::ProductKernel>(p, ctx.target));
}

inline void infer_binary(InferCtx& ctx) {
    need_8(ctx, 0);
    ctx.need_same_type(3, 0);
    need_parameters(ctx, 1, 2, 0);
    need_parameters(ctx, 4, 5, 0);
    need_parameters(ctx, 6, 7, 0);
    if (!ctx.ranked(0) || !ctx.ranked(3)) return ctx.set_unranked(0, ctx.in(0).dtype);
    ctx.set(0, ctx.in(0).dtype, broadcast(ctx.in(0).dims, ctx.in(3).dims));
}
inline Lowered lower_add(const LowerCtx& ctx) { return Lowered(std::make_unique<quant::BinaryKernel>(false, ctx.target.isa)); }
inline Lowered lower_mul(const LowerCtx& ctx) { return Lowered(std::make_unique<quant::BinaryKernel>(true, ctx.target.isa)); }

inline void infer_unary(InferCtx& ctx) {
    need_8(ctx, 0);
    need_parameters(ctx, 1, 2, 0);
    need_parameters(ctx, 3, 4, 0);
    if (!ctx.ranked(0)) return ctx.set_unranked(0, ctx.in(0).dtype);
    ctx.set(0, ctx.in(0).dtype, ctx.in(0).dims);
}
/// quern::Lookup8: y = table[x], a table of 256 bytes.
inline void infer_lookup(InferCtx& ctx) {
    need_8(ctx, 0);
    ctx.need_type(1, {DType::u8});
    ops_window::expect(ctx, 1, {256}, "length of the table");
    if (!ctx.ranked(1)) ctx.unsupported("a table whose length is not known");
    if (!ctx.ranked(0)) return ctx.set_unranked(0, ctx.in(0).dtype);
    ctx.set(0, ctx.in(0).dtype, ctx.in(0).dims);
}
inline Lowered lower_lookup(const LowerCtx&) { return Lowered(std::make_unique<quant::LookupKernel>()); }
inline Lowered lower_leaky_relu(const LowerCtx& ctx) {
    return Lowered(std::make_unique<quant::UnaryKernel>(rnn::Activation{rnn::Activation::leaky_relu, ctx.attrs.f("alpha", 0.01f), 0}));
}
inline Lowered lower_sigmoid(const LowerCtx&) {
    return Lowered(std::make_unique<quant::UnaryKernel>(rnn::Activation{rnn::Activation::sigmoid, 0, 0}));
}
inline void infer_softmax(InferCtx& ctx) {
    infer_unary(ctx);
    if (ctx.ranked(0)) {
        ctx.need_rank(0, 1);
        ctx.axis(ctx.attrs.i("axis", -1), ctx.in(0).rank());
    }
}
inline Lowered lower_softmax(const LowerCtx& ctx) {
    std::int64_t axis = ctx.attrs.i("axis", -1);
    if (axis < 0) axis += ctx.in(0).rank();
    return Lowered(std::make_unique<quant::SoftmaxKernel>(static_cast<int>(axis), ctx.attrs.i("opset", 13) < 13));
}
inline void infer_global_mean(InferCtx& ctx) {
    infer_unary(ctx);
    if (!ctx.ranked(0)) return;
    ctx.need_rank(0, 2);
    std::vector<Dim> y = ctx.in(0).dims;
    bool last = ctx.attrs.i("channels_last", 0) != 0;
    for (std::size_t d = 1; d < y.size(); ++d)
        if (d != (last ? y.size() - 1 : 1)) y[d] = Dim(1);
    ctx.set(0, ctx.in(0).dtype, std::move(y));
}
inline Lowered lower_global_mean(const LowerCtx& ctx) {
    return Lowered(std::make_unique<quant::GlobalMeanKernel>(ctx.attrs.i("channels_last", 0) != 0));
}

// AveragePool and Concat move through f32: DequantizeLinear, the operator, QuantizeLinear.
inline ValueId dequantize(ImportCtx& ctx, std::size_t x, std::size_t scale, std::size_t zero) {
    std::vector<ValueId> in{ctx.in[x], ctx.in[scale]};
    if (ctx.has(zero)) in.push_back(ctx.in[zero]);
    return ctx.add("DequantizeLinear", std::move(in))[0];
}
inline ValueId zero_or_make(ImportCtx& ctx, std::size_t zero, DType like) {
    return ctx.has(zero) ? ctx.in[zero] : ctx.constant(Tensor(like, Shape{}));
}
inline void import_average_pool(ImportCtx& ctx) {
    if (!ctx.has(0) || !ctx.has(1) || !ctx.has(3)) ctx.invalid("QLinearAveragePool needs X, its scale and the scale of Y");
    bool last = ctx.attrs.i("channels_last", 0) != 0;
    ctx.attrs.erase("channels_last");
    ValueId x = dequantize(ctx, 0, 1, 2), zero = zero_or_make(ctx, 4, ctx.fact(0).dtype);
    Attrs pool = ctx.attrs;
    if (!last) {
        ValueId y = ctx.add("AveragePool", {x}, pool)[0];
        return ctx.finish("QuantizeLinear", {y, ctx.in[3], zero});
    }
    std::size_t n = pool.ints("kernel_shape").size() + 2;
    std::vector<std::int64_t> first{0, static_cast<std::int64_t>(n) - 1}, back{0};
    for (std::size_t d = 1; d + 1 < n; ++d) first.push_back(static_cast<std::int64_t>(d)), back.push_back(static_cast<std::int64_t>(d) + 1);
    back.push_back(1);
    Attrs to_first, to_last;
    to_first.set("perm", first);
    to_last.set("perm", back);
    ValueId t = ctx.add("Transpose", {x}, to_first)[0];
    ValueId q = ctx.add("QuantizeLinear", {ctx.add("AveragePool", {t}, pool)[0], ctx.in[3], zero})[0];
    ctx.finish("Transpose", {q}, to_last);
}
inline void import_concat(ImportCtx& ctx) {
    if (ctx.in.size() < 5 || (ctx.in.size() - 2) % 3 != 0 || !ctx.has(0) || !ctx.has(1))
        ctx.invalid("QLinearConcat has " + std::to_string(ctx.in.size()) + " inputs; 2 + 3 for each tensor are accepted");
    std::vector<ValueId> parts;
    for (std::size_t i = 2; i + 2 < ctx.in.size(); i += 3) parts.push_back(dequantize(ctx, i, i + 1, i + 2));
    ValueId joined = ctx.add("Concat", parts, ctx.attrs)[0];
    ctx.finish("QuantizeLinear", {joined, ctx.in[0], ctx.in[1]});
}

}  // namespace ops_contrib_int8

QUERN_INLINE const OpDef& op_com_microsoft_QGemm() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "QGemm", .min_in = 6, .max_in = 9, .newest = 1,
                               .infer = ops_contrib_int8::infer_gemm, .lower = ops_contrib_int8::lower_gemm};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_MatMulIntegerToFloat() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "MatMulIntegerToFloat", .min_in = 4, .max_in = 7, .newest = 1,
                               .infer = ops_contrib_int8::infer_to_float, .lower = ops_contrib_int8::lower_to_float};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_QLinearAdd() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "QLinearAdd", .min_in = 7, .max_in = 8, .newest = 1,
                               .infer = ops_contrib_int8::infer_binary, .lower = ops_contrib_int8::lower_add};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_QLinearMul() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "QLinearMul", .min_in = 7, .max_in = 8, .newest = 1,
                               .infer = ops_contrib_int8::infer_binary, .lower = ops_contrib_int8::lower_mul};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_QLinearLeakyRelu() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "QLinearLeakyRelu", .min_in = 4, .max_in = 5, .newest = 1,
                               .infer = ops_contrib_int8::infer_unary, .lower = ops_contrib_int8::lower_leaky_relu};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_QLinearSigmoid() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "QLinearSigmoid", .min_in = 4, .max_in = 5, .newest = 1,
                               .infer = ops_contrib_int8::infer_unary, .lower = ops_contrib_int8::lower_sigmoid};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_QLinearSoftmax() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "QLinearSoftmax", .min_in = 4, .max_in = 5, .newest = 1,
                               .infer = ops_contrib_int8::infer_softmax, .lower = ops_contrib_int8::lower_softmax};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_QLinearGlobalAveragePool() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "QLinearGlobalAveragePool", .min_in = 4, .max_in = 5, .newest = 1,
                               .infer = ops_contrib_int8::infer_global_mean, .lower = ops_contrib_int8::lower_global_mean};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_QLinearAveragePool() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "QLinearAveragePool", .min_in = 4, .max_in = 5, .newest = 1,
                               .import = ops_contrib_int8::import_average_pool};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_QLinearConcat() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "QLinearConcat", .min_in = 5, .newest = 1,
                               .import = ops_contrib_int8::import_concat};
    return def;
}
QUERN_INLINE const OpDef& op_quern_Lookup8() {
    static constexpr OpDef def{.domain = "quern", .name = "Lookup8", .min_in = 2, .max_in = 2, .newest = 1, .infer = ops_contrib_int8::infer_lookup,
                               .lower = ops_contrib_int8::lower_lookup};
    return def;
}

QUERN_END
