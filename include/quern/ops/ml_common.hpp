// What the operators of ai.onnx.ml share.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/ml/scores.hpp>

QUERN_BEGIN
namespace ops_ml {

inline constexpr const char* domain = "ai.onnx.ml";

/// A list attribute without copying it; empty where absent. Raises invalid_model where it is something else.
template <class T>
const std::vector<T>& list(const Attrs& a, std::string_view name, const std::vector<T>& none) {
    const Attr* v = a.find(name);
    if (!v) return none;
    auto* l = std::get_if<std::vector<T>>(v);
    if (l) return *l;
    // An empty list has no type of its own in the file.
    if (auto* i = std::get_if<std::vector<std::int64_t>>(v); i && i->empty()) return none;
    if (auto* f = std::get_if<std::vector<float>>(v); f && f->empty()) return none;
    if (auto* s = std::get_if<std::vector<std::string>>(v); s && s->empty()) return none;
    raise(ErrorCode::invalid_model, "attribute '" + std::string(name) + "' is not a list of the right type");
}
/// The elements of a float tensor as double.
inline std::vector<double> doubles(const Tensor& t, std::string_view name) {
    if (!is_float(t.dtype()) || dtype_bits(t.dtype()) < 16)
        raise(ErrorCode::invalid_model, "attribute '" + std::string(name) + "' is a tensor of " + dtype_name(t.dtype()) + "; accepted: float, double, float16");
    std::vector<double> r(static_cast<std::size_t>(t.count()));
    const Tensor a = t.aligned();
    for (std::size_t i = 0; i < r.size(); ++i) r[i] = ops_util::value_at(a, static_cast<std::int64_t>(i));
    return r;
}
/// Attribute `name`, a list of floats, or `name`_as_tensor, as double.
inline std::vector<double> doubles(const Attrs& a, const std::string& name) {
    if (Tensor t = a.tensor(name + "_as_tensor"); t.defined() && t.count() > 0) return doubles(t, name + "_as_tensor");
    const std::vector<float> none;
    auto& l = list<float>(a, name, none);
    return {l.begin(), l.end()};
}
inline ml::Post post_of(const Attrs& a) {
    std::string p = a.s("post_transform", "NONE");
    constexpr const char* names[] = {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"};
    for (int i = 0; i < 5; ++i)
        if (p == names[i]) return static_cast<ml::Post>(i);
    raise(ErrorCode::invalid_model, "post_transform '" + p + "'; accepted: NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO, PROBIT");
}
inline ml::Labels labels_of(const Attrs& a, std::string_view ints, std::string_view strings) {
    ml::Labels l{a.ints(ints), a.strings(strings)};
    if (!l.numbers.empty() && !l.words.empty())
        raise(ErrorCode::invalid_model, "both " + std::string(ints) + " and " + std::string(strings) + " are set; accepted: one of them");
    return l;
}
/// Rows of an input [rows, features], or [features] as one row.
inline std::optional<Dim> rows_of(const InferCtx& ctx, int i) {
    ctx.need_rank(i, 1, 2);
    if (!ctx.ranked(i)) return std::nullopt;
    return ctx.in(i).rank() == 1 ? Dim(1) : ctx.in(i).dims[0];
}
/// Raises shape_mismatch where input 0 is known to have fewer (or, with `exactly`, other) features.
inline void need_features(const InferCtx& ctx, std::int64_t n, bool exactly) {
    if (!ctx.ranked(0) || ctx.in(0).rank() < 1 || !ctx.in(0).dims.back().is_const()) return;
    const std::int64_t have = ctx.in(0).dims.back().value();
    if (exactly ? have != n : have < n)
        ctx.fail("the input has " + std::to_string(have) + " features; accepted: " + std::to_string(n) + (exactly ? "" : " or more"));
}
/// Outputs of a classifier: labels [rows] and scores [rows, columns].
inline void set_classes(InferCtx& ctx, bool text, std::int64_t columns) {
    auto rows = rows_of(ctx, 0);
    const DType label = text ? DType::string : DType::i64;
    if (rows) {
        ctx.set(0, label, {*rows});
        ctx.set(1, DType::f32, {*rows, Dim(columns)});
    } else {
        ctx.set_unranked(0, label);
        ctx.set_unranked(1, DType::f32);
    }
}
/// Output 0 [rows, columns].
inline void set_scores(InferCtx& ctx, DType t, std::int64_t columns) {
    if (auto rows = rows_of(ctx, 0)) ctx.set(0, t, {*rows, Dim(columns)});
    else ctx.set_unranked(0, t);
}
/// Input 0 cast to float where it is any other type (`keep`: that one is left).
inline void cast_to_float(ImportCtx& ctx, DType keep = DType::f32) {
    const DType t = ctx.fact(0).dtype;
    if (t == DType::f32 || t == keep) return;
    if (t != DType::f64 && t != DType::i64 && t != DType::i32)
        ctx.invalid(std::string("input 0 is ") + dtype_name(t) + "; accepted: float, double, int64, int32");
    Attrs a;
    a.set("to", static_cast<std::int64_t>(DType::f32));
    ctx.in[0] = ctx.add("Cast", {ctx.in[0]}, std::move(a))[0];
}
inline void import_float(ImportCtx& ctx) { cast_to_float(ctx); }

}  // namespace ops_ml
QUERN_END
