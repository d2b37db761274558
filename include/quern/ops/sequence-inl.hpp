// Sequences: https://onnx.ai/onnx/operators/onnx__SequenceConstruct.html and its neighbours.
#pragma once
#include <quern/kernels/sequence/sequence.hpp>

#include "control.hpp"

QUERN_BEGIN
namespace ops_sequence {

inline const Fact& need_sequence(const InferCtx& c, int i) {
    const Fact& f = c.in(i);
    if (f.kind != Kind::sequence || !f.elem) raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is " + f.to_string() + "; accepted: a sequence");
    return f;
}
inline void need_position(const InferCtx& c, int i) {
    if (!c.has(i)) return;
    c.need_type(i, {DType::i32, DType::i64});
    ops_control::need_tensor(c.in(i), "the position");
}
/// The sequence whose elements are as in `a` or as `b`.
inline Fact joined(const Fact& a, const Fact& b) {
    Fact elem = a;
    if (a.kind != b.kind || a.dtype != b.dtype) raise(ErrorCode::invalid_model, "a sequence of " + a.to_string() + " cannot hold " + b.to_string());
    ops_control::widen(elem, b, "?");
    return Fact::sequence_of(std::move(elem));
}
inline void infer_empty(InferCtx& c) {
    auto t = c.attrs.i("dtype", static_cast<std::int64_t>(DType::f32));
    if (t < 1 || t >= dtype_count) raise(ErrorCode::invalid_model, "dtype is " + std::to_string(t) + "; accepted: 1 to " + std::to_string(dtype_count - 1));
    Fact f;
    f.dtype = static_cast<DType>(t);
    c.outputs[0] = Fact::sequence_of(std::move(f));
}
inline void infer_construct(InferCtx& c) {
    Fact f = Fact::sequence_of(c.in(0));
    for (int i = 1; i < c.n_in(); ++i) f = joined(*f.elem, c.in(i));
    c.outputs[0] = std::move(f);
}
inline void infer_insert(InferCtx& c) {
    need_position(c, 2);
    c.outputs[0] = joined(*need_sequence(c, 0).elem, c.in(1));
}
inline void infer_erase(InferCtx& c) {
    need_position(c, 1);
    c.outputs[0] = need_sequence(c, 0);
}
inline void infer_at(InferCtx& c) {
    need_position(c, 1);
    ops_control::set_element(c, *need_sequence(c, 0).elem);
}
inline void infer_length(InferCtx& c) {
    need_sequence(c, 0);
    c.set(0, DType::i64, {});
}
inline void infer_split(InferCtx& c) {
    ops_control::need_tensor(c.in(0), "input 0");
    if (c.has(1)) c.need_type(1, {DType::i32, DType::i64}), c.need_rank(1, 0, 1);
    Fact f;
    f.dtype = c.in(0).dtype;
    f.ranked = c.ranked(0);
    f.dims = c.in(0).dims;
    if (f.ranked) {
        int a = c.axis(c.attrs.i("axis", 0), f.rank());
        if (c.has(1)) f.dims[a] = Dim::symbol("?");
        else if (c.attrs.i("keepdims", 1)) f.dims[a] = 1;
        else f.dims.erase(f.dims.begin() + a);
    }
    c.outputs[0] = Fact::sequence_of(std::move(f));
}
inline void infer_concat(InferCtx& c) {
    const Fact& e = *need_sequence(c, 0).elem;
    ops_control::need_tensor(e, "an element to join");
    if (!c.attrs.has("axis")) raise(ErrorCode::invalid_model, "ConcatFromSequence needs the attribute axis");
    c.set_unranked(0, e.dtype);
    if (!e.ranked || c.concrete) return;
    const bool stack = c.attrs.i("new_axis", 0) != 0;
    const int a = c.axis(c.attrs.i("axis", 0), e.rank() + stack);
    std::vector<Dim> dims = e.dims;
    for (auto& d : dims)
        if (!d.is_const()) d = c.fresh("join");
    if (stack) dims.insert(dims.begin() + a, c.fresh("join"));
    else dims[a] = c.fresh("join");
    c.set(0, e.dtype, std::move(dims));
}

inline Lowered lower_empty(const LowerCtx&) { return Lowered(std::make_unique<seq::Construct>()); }
inline Lowered lower_at(const LowerCtx& c) {
    if (c.out(0).kind == Kind::tensor) return Lowered(std::make_unique<seq::At>());
    return Lowered(std::make_unique<seq::AtValue>());
}
inline Lowered lower_split(const LowerCtx& c) { return Lowered(std::make_unique<seq::Split>(c.attrs.i("axis", 0), c.attrs.i("keepdims", 1) != 0)); }
inline Lowered lower_concat(const LowerCtx& c) { return Lowered(std::make_unique<seq::Concat>(c.attrs.i("axis", 0), c.attrs.i("new_axis", 0) != 0)); }

/// SequenceMap's body gets an element of each input that is a sequence, and the others as they are.
inline void formals_map(FormalsCtx& c) {
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
        if (!c.inputs[i]) raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " of SequenceMap is missing");
        const Fact& in = *c.inputs[i];
        Fact f = in.kind == Kind::sequence && in.elem ? *in.elem : ops_control::inner_fact(in);
        for (std::size_t d = 0; d < f.dims.size() && in.kind == Kind::sequence; ++d)
            if (!f.dims[d].is_const()) f.dims[d] = Dim::symbol("item" + std::to_string(i) + "." + std::to_string(d));
        c.facts.push_back(std::move(f));
        c.from.push_back(-1);
    }
}
inline void infer_map(InferCtx& c) {
    std::size_t own = 0;
    auto body = ops_control::body_of(c, "body", own);
    need_sequence(c, 0);
    if (own != body->formals) raise(ErrorCode::invalid_model, "SequenceMap has " + std::to_string(own) + " inputs and its body " + std::to_string(body->formals) + "; accepted: the same number");
    ops_control::need_outputs(c, *body, 0);
    for (int o = 0; o < c.n_out(); ++o) c.outputs[o] = Fact::sequence_of(body->fact(body->outputs[o]));
}

}  // namespace ops_sequence

QUERN_INLINE const OpDef& op_SequenceEmpty() {
    static constexpr OpDef def{.name = "SequenceEmpty", .max_in = 0, .newest = 11, .infer = ops_sequence::infer_empty, .lower = ops_sequence::lower_empty, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_SequenceConstruct() {
    static constexpr OpDef def{.name = "SequenceConstruct", .min_in = 1, .newest = 11, .infer = ops_sequence::infer_construct, .lower = ops_control::lower<seq::Construct>, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_SequenceInsert() {
    static constexpr OpDef def{.name = "SequenceInsert", .min_in = 2, .max_in = 3, .newest = 11, .infer = ops_sequence::infer_insert, .lower = ops_control::lower<seq::Insert>, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_SequenceErase() {
    static constexpr OpDef def{.name = "SequenceErase", .min_in = 1, .max_in = 2, .newest = 11, .infer = ops_sequence::infer_erase, .lower = ops_control::lower<seq::Erase>, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_SequenceAt() {
    static constexpr OpDef def{.name = "SequenceAt", .min_in = 2, .max_in = 2, .newest = 11, .infer = ops_sequence::infer_at, .lower = ops_sequence::lower_at, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_SequenceLength() {
    static constexpr OpDef def{.name = "SequenceLength", .min_in = 1, .max_in = 1, .newest = 11, .infer = ops_sequence::infer_length, .lower = ops_control::lower<seq::Length>, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_SplitToSequence() {
    static constexpr OpDef def{.name = "SplitToSequence", .min_in = 1, .max_in = 2, .newest = 24, .infer = ops_sequence::infer_split, .lower = ops_sequence::lower_split, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_ConcatFromSequence() {
    static constexpr OpDef def{.name = "ConcatFromSequence", .min_in = 1, .max_in = 1, .newest = 11, .infer = ops_sequence::infer_concat, .lower = ops_sequence::lower_concat, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_SequenceMap() {
    static constexpr OpDef def{.name = "SequenceMap", .min_in = 1, .max_out = 1 << 20, .newest = 17, .infer = ops_sequence::infer_map, .control = true, .formals = ops_sequence::formals_map};
    return def;
}

QUERN_END
