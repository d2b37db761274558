// Attention: https://onnx.ai/onnx/operators/onnx__Attention.html
// RotaryEmbedding: https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html
#pragma once
#include <quern/kernels/attention/attention.hpp>
#include <quern/kernels/attention/rotary.hpp>

#include "window.hpp"

QUERN_BEGIN
namespace ops_attention {

/// A mask that is not bool takes the type of Q.
inline void import_attention(ImportCtx& ctx) {
    if (!ctx.has(3)) return;
    DType m = ctx.fact(3).dtype, t = ctx.fact(0).dtype;
    if (m == DType::boolean || m == t || is_float(m)) return;
    Attrs to;
    to.set("to", static_cast<std::int64_t>(t));
    ctx.in[3] = ctx.add("Cast", {ctx.in[3]}, std::move(to))[0];
}

struct Dims {
    Dim batch, q_heads, kv_heads, q_len, kv_len, size, v_size;
};
inline std::int64_t heads_attr(const InferCtx& ctx, const char* name) {
    std::int64_t h = ctx.attrs.i(name, 0);
    if (h < 1) raise(ErrorCode::invalid_model, std::string(name) + " is " + std::to_string(h) + "; inputs of rank 3 need at least 1");
    return h;
}
inline Dim per_head(const InferCtx& ctx, const Dim& hidden, std::int64_t heads, const char* what) {
    if (hidden.is_const() && hidden.value() % heads != 0)
        ctx.fail(std::string(what) + " has " + hidden.to_string() + " values, which its " + std::to_string(heads) + " heads must divide");
    return floor_div(hidden, Dim(heads));
}
inline Dims dims_of(InferCtx& ctx) {
    const std::vector<Dim>&q = ctx.in(0).dims, &k = ctx.in(1).dims, &v = ctx.in(2).dims;
    ctx.need_rank(0, 3, 4);
    ctx.need_rank(1, static_cast<int>(q.size()), static_cast<int>(q.size()));
    ctx.need_rank(2, static_cast<int>(q.size()), static_cast<int>(q.size()));
    Dims d;
    d.batch = q[0];
    if (q.size() == 4) {
        d.q_heads = q[1], d.kv_heads = k[1], d.q_len = q[2], d.kv_len = k[2], d.size = q[3], d.v_size = v[3];
        ops_window::same(ctx, k[1], v[1], "heads of K and V");
        ops_window::same(ctx, k[3], q[3], "head sizes of Q and K");
    } else {
        std::int64_t hq = heads_attr(ctx, "q_num_heads"), hk = heads_attr(ctx, "kv_num_heads");
        d.q_heads = Dim(hq), d.kv_heads = Dim(hk), d.q_len = q[1], d.kv_len = k[1];
        d.size = per_head(ctx, q[2], hq, "Q");
        d.v_size = per_head(ctx, v[2], hk, "V");
        ops_window::same(ctx, per_head(ctx, k[2], hk, "K"), d.size, "head sizes of Q and K");
    }
    ops_window::same(ctx, k[0], q[0], "batch sizes of Q and K");
    ops_window::same(ctx, v[0], q[0], "batch sizes of Q and V");
    ops_window::same(ctx, v[q.size() - 2], k[q.size() - 2], "lengths of K and V");
    if (!d.q_heads.is_const() || !d.kv_heads.is_const() ) ctx.unsupported("the number of heads is not known when loading (Q " + ctx.in(0).to_string() + ")");
    if (d.kv_heads.value() < 1 || d.q_heads.value() % d.kv_heads.value() != 0)
        ctx.fail(d.q_heads.to_string() + " heads of Q are not a multiple of " + d.kv_heads.to_string() + " heads of K and V");
    return d;
}
using ops_window::expect;
inline void infer_attention(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16});
    for (int i : {1, 2, 4, 5})
        if (i < 3 || ctx.has(i)) ctx.need_same_type(0, i);
    if (ctx.has(3)) ctx.need_type(3, {DType::boolean, DType::f32, DType::f64, DType::f16, DType::bf16});
    if (ctx.has(6)) ctx.need_type(6, {DType::i64});
    if (ctx.has(4) != ctx.has(5)) ctx.fail("past_key and past_value must be given together");
    if (ctx.has(4) && ctx.has(6)) ctx.fail("nonpad_kv_seqlen cannot be given together with past_key");
    for (const char* a : {"left_window_size", "right_window_size"})
        if (ctx.attrs.i(a, -1) < -1) raise(ErrorCode::invalid_model, std::string(a) + " is " + std::to_string(ctx.attrs.i(a, -1)) + "; at least -1 is accepted");
    std::int64_t mode = ctx.attrs.i("qk_matmul_output_mode", 0);
    if (mode < 0 || mode > 3) raise(ErrorCode::invalid_model, "qk_matmul_output_mode is " + std::to_string(mode) + "; accepted are 0 to 3");
    if (!ctx.ranked(0) || !ctx.ranked(1) || !ctx.ranked(2) || (ctx.has(4) && !ctx.ranked(4))) {
        for (int o = 0; o < ctx.n_out(); ++o) ctx.set_unranked(o, t);
        return;
    }
    Dims d = dims_of(ctx);
    Dim past(0);
    if (ctx.has(4)) {
        ctx.need_rank(4, 4, 4);
        past = ctx.in(4).dims[2];
        expect(ctx, 4, {d.batch, d.kv_heads, past, d.size}, "dimensions of past_key");
        expect(ctx, 5, {d.batch, d.kv_heads, past, d.v_size}, "dimensions of past_value");
    }
    expect(ctx, 6, {d.batch}, "dimensions of nonpad_kv_seqlen");
    Dim total = past + d.kv_len;
    if (ctx.has(3) && ctx.ranked(3)) {
        ctx.need_rank(3, 1, 4);
        const std::vector<Dim>& m = ctx.in(3).dims;
        Dim full[] = {d.batch, d.q_heads, d.q_len};
        for (std::size_t i = 0; i + 1 < m.size(); ++i)
            if (!m[i].is(1)) ops_window::same(ctx, m[i], full[3 - (m.size() - 1) + i], "dimensions of attn_mask");
        if (compare(m.back(), total) == 1) ctx.fail("attn_mask has " + m.back().to_string() + " columns for " + total.to_string() + " keys");
    }
    if (ctx.in(0).rank() == 4) ctx.set(0, t, {d.batch, d.q_heads, d.q_len, d.v_size});
    else ctx.set(0, t, {d.batch, d.q_len, d.q_heads * d.v_size});
    ctx.set(1, t, {d.batch, d.kv_heads, total, d.size});
    ctx.set(2, t, {d.batch, d.kv_heads, total, d.v_size});
    ctx.set(3, t, {d.batch, d.q_heads, d.q_len, total});
}
inline Lowered lower_attention(const LowerCtx& ctx) {
    attention::Problem p;
    p.dtype = ctx.in(0).dtype;
    p.q_heads = ctx.attrs.i("q_num_heads", 0);
    p.kv_heads = ctx.attrs.i("kv_num_heads", 0);
    p.causal = ctx.attrs.i("is_causal", 0) != 0;
    p.left = ctx.attrs.i("left_window_size", -1);
    p.right = ctx.attrs.i("right_window_size", -1);
    p.scale = ctx.attrs.f("scale", 0);
    p.softcap = ctx.attrs.f("softcap", 0);
    p.scores = static_cast<attention::Scores>(ctx.attrs.i("qk_matmul_output_mode", 0));
    if (ctx.target.device != Device::cpu) {
        const auto wanted = [&](std::size_t o) { return ctx.outputs.size() > o && ctx.outputs[o]; };
        const bool past = ctx.has(4) || ctx.has(5);
        if (wanted(3)) raise(ErrorCode::unsupported, "the scores as an output");
        if (ctx.has(6)) raise(ErrorCode::unsupported, "valid lengths of the keys");
        if (past && !(ctx.has(4) && ctx.has(5) && wanted(1) && wanted(2))) raise(ErrorCode::unsupported, "past keys and values without both present ones as outputs");
        if (ctx.has(3) && ctx.in(3).dtype == DType::f64)
            raise(ErrorCode::unsupported, std::string("a mask of type ") + dtype_name(ctx.in(3).dtype));
        const int four = ctx.in(0).rank() == 4 ? 3 : 2;
        for (int i : {0, 2}) {
            const Dim& d = ctx.in(i).dims[static_cast<std::size_t>(four)];
            const std::int64_t heads = four == 3 ? 1 : i ? p.kv_heads : p.q_heads;
            if (!d.is_const() || d.value() / std::max<std::int64_t>(1, heads) > 128) raise(ErrorCode::unsupported, "heads of more than 128 elements, or of unknown width");
        }
        return select(Family::attention, p, ctx.target);
    }
    return Lowered(std::make_unique<attention::BlockKernel>(p, vec::table(ctx.target.isa)));
}

inline void infer_rotary(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f16, DType::bf16});
    ctx.need_same_type(0, 1);
    ctx.need_same_type(0, 2);
    if (ctx.has(3)) ctx.need_type(3, {DType::i64});
    if (!ctx.ranked(0)) return ctx.set_unranked(0, t);
    ctx.need_rank(0, 3, 4);
    const std::vector<Dim>& x = ctx.in(0).dims;
    Dim size = x.size() == 4 ? x[3] : per_head(ctx, x[2], heads_attr(ctx, "num_heads"), "X"), length = x.size() == 4 ? x[2] : x[1];
    std::int64_t rotated = ctx.attrs.i("rotary_embedding_dim", 0);
    if (rotated < 0 || rotated % 2 || compare(Dim(rotated), size) == 1)
        raise(ErrorCode::invalid_model, "rotary_embedding_dim is " + std::to_string(rotated) + "; accepted are even numbers up to the head size, " + size.to_string());
    if (rotated == 0 && size.is_const() && size.value() % 2) ctx.fail("the head size is " + size.to_string() + "; it must be even");
    Dim half = floor_div(rotated ? Dim(rotated) : size, Dim(2));
    for (int i : {1, 2}) {
        if (!ctx.ranked(i)) continue;
        ctx.need_rank(i, ctx.has(3) ? 2 : 3, ctx.has(3) ? 2 : 3);
        if (ctx.has(3)) expect(ctx, i, {ctx.in(ctx.ranked(1) ? 1 : 2).dims[0], half}, "dimensions of the caches");
        else expect(ctx, i, {x[0], length, half}, "dimensions of the caches");
    }
    expect(ctx, 3, {x[0], length}, "dimensions of position_ids");
    ctx.set(0, t, x);
}
inline Lowered lower_rotary(const LowerCtx& ctx) {
    attention::RotaryProblem p{ctx.attrs.i("num_heads", 0), ctx.attrs.i("rotary_embedding_dim", 0), ctx.attrs.i("interleaved", 0) != 0};
    if (ctx.target.device == Device::cpu) return Lowered(std::make_unique<attention::RotaryKernel>(p));
    attention::Problem device;
    device.dtype = ctx.in(0).dtype;
    device.rotary = std::make_shared<attention::RotaryProblem>(p);
    return select(Family::attention, device, ctx.target);
}

}  // namespace ops_attention

QUERN_INLINE const OpDef& op_Attention() {
    static constexpr OpDef def{.name = "Attention", .min_in = 3, .max_in = 7, .max_out = 4, .newest = 25, .import = ops_attention::import_attention,
                               .infer = ops_attention::infer_attention, .lower = ops_attention::lower_attention, .lower_device = ops_attention::lower_attention, .compute = Compute::real,
                               .promote_in = ~(8u | 64u)};
    return def;
}
QUERN_INLINE const OpDef& op_RotaryEmbedding() {
    static constexpr OpDef def{.name = "RotaryEmbedding", .min_in = 3, .max_in = 4, .newest = 23, .infer = ops_attention::infer_rotary,
                               .lower = ops_attention::lower_rotary, .lower_device = ops_attention::lower_rotary, .compute = Compute::f32, .promote_in = 7};
    return def;
}

QUERN_END
