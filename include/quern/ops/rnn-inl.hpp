// LSTM, GRU, RNN: https://onnx.ai/onnx/operators/onnx__LSTM.html
#pragma once
#include <quern/kernels/rnn/rnn.hpp>

#include "window.hpp"

QUERN_BEGIN
namespace ops_rnn {

inline rnn::Cell cell_of(const Node& n) {
    std::string_view op = n.op->name;
    return op == "LSTM" ? rnn::Cell::lstm : op == "GRU" ? rnn::Cell::gru : rnn::Cell::rnn;
}
inline int directions_of(const Attrs& a) {
    std::string d = a.s("direction", "forward");
    if (d == "bidirectional") return 2;
    if (d != "forward" && d != "reverse" && d != "foward")  // opset 1's GRU has the default misspelt
        raise(ErrorCode::invalid_model, "direction is '" + d + "'; accepted are forward, reverse, bidirectional");
    return 1;
}
inline std::vector<rnn::Activation> activations_of(const Attrs& a, rnn::Cell cell, int directions) {
    std::vector<std::string> names = a.strings("activations");
    std::size_t per = cell == rnn::Cell::lstm ? 3 : cell == rnn::Cell::gru ? 2 : 1, all = per * static_cast<std::size_t>(directions);
    if (names.size() > all && cell == rnn::Cell::rnn) names.resize(all);  // opset 1 to 14 default to two
    if (names.empty())
        for (int d = 0; d < directions; ++d) {
            if (cell != rnn::Cell::rnn) names.push_back("Sigmoid");
            names.push_back("Tanh");
            if (cell == rnn::Cell::lstm) names.push_back("Tanh");
        }
    if (names.size() != all)
        raise(ErrorCode::invalid_model, std::to_string(names.size()) + " activations; " + std::to_string(all) + " are needed");
    std::vector<float> alpha = a.floats("activation_alpha"), beta = a.floats("activation_beta");
    std::size_t ia = 0, ib = 0;
    std::vector<rnn::Activation> v;
    for (const std::string& n : names) {
        rnn::Activation f = rnn::Activation::named(n);
        if (f.kind == rnn::Activation::unknown) raise(ErrorCode::unsupported, "activation '" + n + "'; ONNX's eleven activations are supported");
        if (f.parameters() >= 1 && ia < alpha.size()) f.alpha = alpha[ia++];
        if (f.parameters() >= 2 && ib < beta.size()) f.beta = beta[ib++];
        v.push_back(f);
    }
    return v;
}
inline bool batch_first(const Attrs& a) {
    std::int64_t l = a.i("layout", 0);
    if (l != 0 && l != 1) raise(ErrorCode::invalid_model, "layout is " + std::to_string(l) + "; accepted are 0 and 1");
    return l == 1;
}

using ops_window::expect;

inline void infer(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    rnn::Cell cell = cell_of(ctx.node);
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16});
    for (int i : {1, 2, 3, 5, 6, 7})
        if (i < 3 || ctx.has(i)) ctx.need_same_type(0, i);
    if (ctx.has(4)) ctx.need_type(4, {DType::i32});
    int dirs = directions_of(ctx.attrs);
    activations_of(ctx.attrs, cell, dirs);
    bool first = batch_first(ctx.attrs);
    if (!ctx.ranked(0) || !ctx.ranked(2)) {
        for (int o = 0; o < ctx.n_out(); ++o) ctx.set_unranked(o, t);
        return;
    }
    ctx.need_rank(0, 3, 3);
    ctx.need_rank(2, 3, 3);
    const std::vector<Dim>& x = ctx.in(0).dims;
    Dim hidden = ctx.in(2).dims[2], gates(rnn::gates_of(cell)), d(dirs);
    if (ctx.attrs.has("hidden_size")) ops_window::same(ctx, hidden, Dim(ctx.attrs.i("hidden_size", 0)), "hidden_size and the last dimension of R");
    if (!hidden.is_const()) ctx.unsupported("the hidden size is not known when loading; R needs a constant last dimension");
    Dim seq = x[first ? 1 : 0], batch = x[first ? 0 : 1];
    std::vector<Dim> state = first ? std::vector<Dim>{batch, d, hidden} : std::vector<Dim>{d, batch, hidden};
    expect(ctx, 1, {d, gates * hidden, x[2]}, "dimensions of W");
    expect(ctx, 2, {d, gates * hidden, hidden}, "dimensions of R");
    expect(ctx, 3, {d, Dim(2) * gates * hidden}, "dimensions of B");
    expect(ctx, 4, {batch}, "dimensions of sequence_lens");
    expect(ctx, 5, state, "dimensions of initial_h");
    expect(ctx, 6, state, "dimensions of initial_c");
    expect(ctx, 7, {d, Dim(3) * hidden}, "dimensions of P");
    ctx.set(0, t, first ? std::vector<Dim>{batch, seq, d, hidden} : std::vector<Dim>{seq, d, batch, hidden});
    ctx.set(1, t, state);
    ctx.set(2, t, state);
}

inline Lowered lower(const LowerCtx& ctx) {
    rnn::Problem p;
    p.cell = cell_of(ctx.node);
    p.dtype = ctx.in(0).dtype;
    p.hidden = ctx.in(2).dims[2].value();
    p.directions = directions_of(ctx.attrs);
    p.reverse = ctx.attrs.s("direction", "forward") == "reverse";
    p.batch_first = batch_first(ctx.attrs);
    p.input_forget = ctx.attrs.i("input_forget", 0) != 0;
    p.linear_before_reset = ctx.attrs.i("linear_before_reset", 0) != 0;
    p.clip = ctx.attrs.f("clip", 0);
    p.activations = activations_of(ctx.attrs, p.cell, p.directions);
    if (ctx.target.device != Device::cpu) {
        if (ctx.has(4)) raise(ErrorCode::unsupported, "lengths of the sequences");
        if (ctx.has(7)) raise(ErrorCode::unsupported, "peepholes");
        return select(Family::rnn, p, ctx.target);
    }
    p.w = ctx.constant(1);
    p.r = ctx.constant(2);
    return Lowered(std::make_unique<rnn::SequenceKernel>(p, ctx.target));
}
inline void import(ImportCtx& ctx) { ctx.attrs.erase("output_sequence"); }

}  // namespace ops_rnn

QUERN_INLINE const OpDef& op_LSTM() {
    static constexpr OpDef def{.name = "LSTM", .min_in = 3, .max_in = 8, .min_out = 0, .max_out = 3, .newest = 22, .import = ops_rnn::import,
                               .infer = ops_rnn::infer, .lower = ops_rnn::lower, .lower_device = ops_rnn::lower, .compute = Compute::real, .promote_in = ~16u};
    return def;
}
QUERN_INLINE const OpDef& op_GRU() {
    static constexpr OpDef def{.name = "GRU", .min_in = 3, .max_in = 6, .min_out = 0, .max_out = 2, .newest = 22, .import = ops_rnn::import,
                               .infer = ops_rnn::infer, .lower = ops_rnn::lower, .lower_device = ops_rnn::lower, .compute = Compute::real, .promote_in = ~16u};
    return def;
}
QUERN_INLINE const OpDef& op_RNN() {
    static constexpr OpDef def{.name = "RNN", .min_in = 3, .max_in = 6, .min_out = 0, .max_out = 2, .newest = 22, .import = ops_rnn::import,
                               .infer = ops_rnn::infer, .lower = ops_rnn::lower, .lower_device = ops_rnn::lower, .compute = Compute::real, .promote_in = ~16u};
    return def;
}

QUERN_END
