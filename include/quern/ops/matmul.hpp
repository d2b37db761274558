// MatMul: https://onnx.ai/onnx/operators/onnx__MatMul.html
// Gemm: https://onnx.ai/onnx/operators/onnx__Gemm.html
#pragma once
#include <cmath>

#include <quern/base/saturate.hpp>
#include <quern/kernels/matmul/integer.hpp>
#include <quern/kernels/matmul/matmul.hpp>

#include "window.hpp"

QUERN_BEGIN
namespace ops_matmul {

inline constexpr auto types = {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32, DType::i64, DType::u32, DType::u64};

/// The dims of numpy's matmul.
inline std::vector<Dim> product(const InferCtx& ctx, std::vector<Dim> a, std::vector<Dim> b) {
    if (a.empty() || b.empty()) ctx.fail("a matrix product of a scalar; both operands need at least one dimension");
    bool row = a.size() == 1, col = b.size() == 1;
    if (row) a.insert(a.begin(), Dim(1));
    if (col) b.push_back(Dim(1));
    ops_window::same(ctx, a.back(), b[b.size() - 2], "the inner dimensions of the matrix product");
    Dim m = a[a.size() - 2], n = b.back();
    a.resize(a.size() - 2);
    b.resize(b.size() - 2);
    std::vector<Dim> y = broadcast(a, b);
    if (!row) y.push_back(m);
    if (!col) y.push_back(n);
    return y;
}

inline void infer_matmul(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, types);
    ctx.need_same_type(0, 1);
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, t);
    ctx.set(0, t, product(ctx, ctx.in(0).dims, ctx.in(1).dims));
}

inline Lowered choose(const LowerCtx& ctx, matmul::Problem p) {
    p.dtype = ctx.in(0).dtype;
    p.rank_a = ctx.in(0).rank();
    p.rank_b = ctx.in(1).rank();
    p.b = ctx.raw_constant(1);
    const std::vector<Dim>& b = ctx.in(1).dims;
    const Dim& k = b.size() == 1 ? b[0] : b[b.size() - (p.trans_b ? 1 : 2)];
    const Dim n = b.size() == 1 ? Dim(1) : b[b.size() - (p.trans_b ? 2 : 1)];
    if (k.is_const()) p.k = k.value();
    if (n.is_const()) p.n = n.value();
    const bool whole = p.dtype == DType::i32 || p.dtype == DType::i64;
    if (whole && ctx.target.device != Device::cpu) raise(ErrorCode::unsupported, "products of integers have no kernel on the device");
    if (whole) return Lowered(std::make_unique<matmul::IntegerKernel>(p));
    return select(Family::matmul, p, ctx.target);
}
inline Lowered lower_matmul(const LowerCtx& ctx) { return choose(ctx, {}); }

/// beta moves into C, so that a product has at most a bias.
inline void import_gemm(ImportCtx& ctx) {
    ctx.attrs.erase("broadcast");
    float beta = ctx.attrs.f("beta", 1);
    ctx.attrs.erase("beta");
    if (!ctx.has(2)) return;
    if (beta == 0) {
        ctx.in.resize(2);
    } else if (beta != 1) {
        DType t = ctx.fact(2).dtype;
        if (is_integer(t) && beta != std::nearbyint(beta)) ctx.unsupported("beta = " + std::to_string(beta) + " for integers; a whole number would be accepted");
        Tensor scalar(t, Shape{});
        if (t == DType::f32) scalar.data<float>()[0] = beta;
        else if (t == DType::f64) scalar.data<double>()[0] = beta;
        else if (t == DType::f16) scalar.data<Half>()[0] = to_half(beta);
        else if (t == DType::bf16) scalar.data<BFloat16>()[0] = to_bfloat16(beta);
        else if (t == DType::i32 || t == DType::u32) { std::int32_t v = saturated<std::int32_t>(beta); std::memcpy(scalar.raw(), &v, 4); }
        else if (t == DType::i64 || t == DType::u64) { std::int64_t v = saturated<std::int64_t>(beta); std::memcpy(scalar.raw(), &v, 8); }
        else ctx.unsupported(std::string("Gemm of type ") + dtype_name(t) + "; floating-point types and integers of 32 and 64 bits are accepted");
        ctx.in[2] = ctx.add("Mul", {ctx.in[2], ctx.constant(scalar)})[0];
    }
}

inline void infer_gemm(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, types);
    ctx.need_same_type(0, 1);
    if (ctx.has(2)) ctx.need_same_type(0, 2);
    float alpha = ctx.attrs.f("alpha", 1);
    if (is_integer(t) && (alpha != std::nearbyint(alpha) || std::fabs(alpha) > 1e9f))
        ctx.unsupported("alpha = " + std::to_string(alpha) + " for integers; a whole number would be accepted");
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, t);
    ctx.need_rank(0, 2, 2);
    ctx.need_rank(1, 2, 2);
    std::vector<Dim> a = ctx.in(0).dims, b = ctx.in(1).dims;
    if (ctx.attrs.i("transA", 0)) std::swap(a[0], a[1]);
    if (ctx.attrs.i("transB", 0)) std::swap(b[0], b[1]);
    std::vector<Dim> y = product(ctx, a, b);
    if (ctx.has(2) && ctx.ranked(2)) {
        ctx.need_rank(2, 0, 2);
        const std::vector<Dim>& c = ctx.in(2).dims;
        for (std::size_t i = 0; i < c.size(); ++i)
            if (!c[c.size() - 1 - i].is(1)) ops_window::same(ctx, c[c.size() - 1 - i], y[1 - i], "C, which must broadcast to the product");
    }
    ctx.set(0, t, std::move(y));
}

inline matmul::Problem gemm_problem(const LowerCtx& ctx) {
    matmul::Problem p;
    p.trans_a = ctx.attrs.i("transA", 0) != 0;
    p.trans_b = ctx.attrs.i("transB", 0) != 0;
    p.alpha = ctx.attrs.f("alpha", 1);
    p.has_bias = ctx.has(2);
    return p;
}
inline Lowered lower_gemm(const LowerCtx& ctx) { return choose(ctx, gemm_problem(ctx)); }

}  // namespace ops_matmul

QUERN_END
