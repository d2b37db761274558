// ArrayFeatureExtractor, Binarizer, CategoryMapper, FeatureVectorizer, Imputer, LabelEncoder, Normalizer, OneHotEncoder, Scaler:
// https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html and theirs.
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ml_common.hpp"
#include <quern/kernels/ml/encode.hpp>

QUERN_BEGIN
namespace ops_ml_features {
using namespace ops_ml;

inline Attrs cast_attrs(DType t) {
    Attrs a;
    a.set("to", static_cast<std::int64_t>(t));
    return a;
}
inline void need_number(const ImportCtx& ctx, int i = 0) {
    const DType t = ctx.fact(static_cast<std::size_t>(i)).dtype;
    if (t != DType::f32 && t != DType::f64 && t != DType::i64 && t != DType::i32)
        ctx.invalid("input " + std::to_string(i) + " is " + dtype_name(t) + "; accepted: float, double, int64, int32");
}
/// A list of one value for each feature (or one for all), in type `t`.
template <class T>
Tensor per_feature(const ImportCtx& ctx, const std::vector<T>& v, DType t, std::string_view name) {
    const Fact& x = ctx.fact(0);
    const auto n = static_cast<std::int64_t>(v.size());
    if (n != 1 && x.ranked && (x.rank() == 0 || (x.dims.back().is_const() && !x.dims.back().is(n))))
        ctx.invalid("attribute '" + std::string(name) + "' has " + std::to_string(n) + " elements; accepted: 1, or one for each feature of " + x.to_string());
    Tensor r(t, Shape{n});
    for (std::size_t i = 0; i < v.size(); ++i) {
        if (t == DType::f32) r.data<float>()[i] = static_cast<float>(v[i]);
        else if (t == DType::f64) r.data<double>()[i] = static_cast<double>(v[i]);
        else if (t == DType::i32) r.data<std::int32_t>()[i] = saturated<std::int32_t>(v[i]);
        else r.data<std::int64_t>()[i] = saturated<std::int64_t>(v[i]);
    }
    return r;
}

/// (x - offset) * scale, in double for doubles; the result is float.
inline void import_scaler(ImportCtx& ctx) {
    need_number(ctx);
    cast_to_float(ctx, DType::f64);
    const DType t = ctx.fact(0).dtype;
    ValueId v = ctx.in[0];
    if (auto offset = ctx.attrs.floats("offset"); !offset.empty()) v = ctx.add("Sub", {v, ctx.constant(per_feature(ctx, offset, t, "offset"))})[0];
    if (auto scale = ctx.attrs.floats("scale"); !scale.empty()) v = ctx.add("Mul", {v, ctx.constant(per_feature(ctx, scale, t, "scale"))})[0];
    if (t != DType::f32) ctx.finish("Cast", {v}, cast_attrs(DType::f32));
    else ctx.finish("Identity", {v});
}
inline void import_binarizer(ImportCtx& ctx) {
    need_number(ctx);
    const DType t = ctx.fact(0).dtype;
    const double threshold = static_cast<double>(ctx.attrs.f("threshold", 0));
    const double lowest = t == DType::i32 ? INT32_MIN : -9.2233720368547758e18, highest = t == DType::i32 ? INT32_MAX : 9.2233720368547758e18;
    // x > 0.5 is x > 0 for integers; nothing is more than NaN
    const double limit = is_float(t) ? threshold : std::isnan(threshold) ? highest : std::clamp(std::floor(threshold), lowest, highest);
    ValueId above = ctx.add("Greater", {ctx.in[0], ctx.constant(ops_util::scalar(t, limit))})[0];
    ctx.finish("Cast", {above}, cast_attrs(t));
}
inline void import_imputer(ImportCtx& ctx) {
    need_number(ctx);
    const DType t = ctx.fact(0).dtype;
    Tensor value, missing;
    bool nan = false;
    if (is_float(t)) {
        const float replaced = ctx.attrs.f("replaced_value_float", 0);
        nan = replaced != replaced;
        missing = ops_util::scalar(t, static_cast<double>(replaced));
        value = per_feature(ctx, ctx.attrs.floats("imputed_value_floats"), t, "imputed_value_floats");
    } else {
        missing = per_feature(ctx, std::vector<std::int64_t>{ctx.attrs.i("replaced_value_int64", 0)}, t, "replaced_value_int64").reshaped({});
        value = per_feature(ctx, ctx.attrs.ints("imputed_value_int64s"), t, "imputed_value_int64s");
    }
    if (value.count() == 0) ctx.invalid(std::string("no imputed values for an input of ") + dtype_name(t));
    ValueId is_missing = nan ? ctx.add("IsNaN", {ctx.in[0]})[0] : ctx.add("Equal", {ctx.in[0], ctx.constant(missing)})[0];
    ctx.finish("Where", {is_missing, ctx.constant(value), ctx.in[0]});
}
/// The elements of the last dimension that input 1 lists; a vector is one row.
inline void import_extractor(ImportCtx& ctx) {
    const Fact& x = ctx.fact(0);
    if (!x.ranked) ctx.unsupported("an input of unknown rank");
    if (x.rank() == 0) ctx.invalid("input 0 is a scalar; accepted: 1 dimension and more");
    if (ctx.fact(1).dtype != DType::i64) ctx.invalid(std::string("input 1 is ") + dtype_name(ctx.fact(1).dtype) + "; accepted: int64");
    ValueId rows = ctx.in[0];
    if (x.rank() == 1) rows = ctx.add("Reshape", {rows, ctx.constant_ints({1, -1})})[0];
    ValueId list = ctx.add("Reshape", {ctx.in[1], ctx.constant_ints({-1})})[0];
    Attrs a;
    a.set("axis", std::int64_t{-1});
    ctx.finish("Gather", {rows, list}, std::move(a));
}
/// Rows side by side, each input cut or filled up with zeros to its entry of inputdimensions; a vector is one row.
inline void import_vectorizer(ImportCtx& ctx) {
    const std::vector<std::int64_t> sizes = ctx.attrs.ints("inputdimensions");
    if (!sizes.empty() && sizes.size() != ctx.in.size())
        ctx.invalid(std::to_string(sizes.size()) + " inputdimensions for " + std::to_string(ctx.in.size()) + " inputs");
    std::vector<ValueId> parts;
    for (std::size_t i = 0; i < ctx.in.size(); ++i) {
        need_number(ctx, static_cast<int>(i));
        ValueId v = ctx.in[i];
        if (ctx.fact(i).dtype != DType::f32) v = ctx.add("Cast", {v}, cast_attrs(DType::f32))[0];
        if (!ctx.fact(i).ranked) ctx.unsupported("input " + std::to_string(i) + " is of unknown rank");
        const int rank = ctx.fact(i).rank();
        if (rank < 1 || rank > 2) ctx.invalid("input " + std::to_string(i) + " has rank " + std::to_string(rank) + "; accepted: 1 and 2");
        if (rank == 1) v = ctx.add("Reshape", {v, ctx.constant_ints({1, -1})})[0];
        const Dim& width = ctx.graph.fact(v).dims[1];
        if (!sizes.empty() && width.is_const() && !width.is(sizes[i])) {
            if (sizes[i] < 0) ctx.invalid("inputdimensions holds " + std::to_string(sizes[i]));
            if (sizes[i] < width.value()) v = ctx.add("Slice", {v, ctx.constant_ints({0}), ctx.constant_ints({sizes[i]}), ctx.constant_ints({1})})[0];
            else v = ctx.add("Pad", {v, ctx.constant_ints({0, 0, 0, sizes[i] - width.value()})})[0];
        }
        parts.push_back(v);
    }
    Attrs a;
    a.set("axis", std::int64_t{1});
    ctx.finish("Concat", std::move(parts), std::move(a));
}

/// Strings 0, 1, 2, ... of a list, or their positions, as the keys and values of LabelEncoder.
inline void finish_positions(ImportCtx& ctx, std::vector<std::int64_t> numbers, std::vector<std::string> words) {
    Attrs a;
    const DType t = ctx.fact(0).dtype;
    if (t != DType::string && t != DType::i64) ctx.invalid(std::string("input 0 is ") + dtype_name(t) + "; accepted: string, int64");
    const bool text = t == DType::string;
    a.set(text ? "keys_strings" : "values_strings", std::move(words));
    a.set(text ? "values_int64s" : "keys_int64s", std::move(numbers));
    for (const char* name : {"default_int64", "default_string"})
        if (const Attr* d = ctx.attrs.find(name)) a.set(name, *d);
    ctx.finish("ai.onnx.ml::LabelEncoder", {ctx.in[0]}, std::move(a));
}
inline void import_label_encoder(ImportCtx& ctx) {
    if (ctx.opset >= 2 && !ctx.attrs.has("classes_strings")) return;
    auto words = ctx.attrs.strings("classes_strings");
    std::vector<std::int64_t> numbers(words.size());
    std::iota(numbers.begin(), numbers.end(), std::int64_t{0});
    finish_positions(ctx, std::move(numbers), std::move(words));
}
inline void import_category_mapper(ImportCtx& ctx) {
    auto numbers = ctx.attrs.ints("cats_int64s");
    auto words = ctx.attrs.strings("cats_strings");
    if (numbers.size() != words.size())
        ctx.invalid(std::to_string(numbers.size()) + " cats_int64s for " + std::to_string(words.size()) + " cats_strings");
    finish_positions(ctx, std::move(numbers), std::move(words));
}

/// "keys" or "values" of a LabelEncoder as one tensor; undefined where there are none.
inline Tensor side_of(const Attrs& a, const std::string& side) {
    const Attr* found = nullptr;
    for (const char* kind : {"_tensor", "_strings", "_int64s", "_floats"}) {
        const Attr* v = a.find(side + kind);
        if (v && found) raise(ErrorCode::invalid_model, "more than one of " + side + "_tensor, _strings, _int64s, _floats is set");
        if (v) found = v;
    }
    if (!found) return {};
    if (auto* t = std::get_if<Tensor>(found)) return t->aligned().reshaped({t->count()});
    if (auto* s = std::get_if<std::vector<std::string>>(found)) return Tensor::from_strings(*s, {static_cast<std::int64_t>(s->size())});
    if (auto* i = std::get_if<std::vector<std::int64_t>>(found)) return Tensor::from(std::span<const std::int64_t>(*i), {static_cast<std::int64_t>(i->size())});
    if (auto* f = std::get_if<std::vector<float>>(found)) return Tensor::from(std::span<const float>(*f), {static_cast<std::int64_t>(f->size())});
    raise(ErrorCode::invalid_model, side + " is not a list of strings or numbers");
}
QUERN_INLINE void infer_label_encoder(InferCtx& ctx) {
    const Tensor keys = side_of(ctx.attrs, "keys"), values = side_of(ctx.attrs, "values");
    if (!keys.defined() || !values.defined()) raise(ErrorCode::invalid_model, "keys or values are missing; accepted: one of keys_* and one of values_*");
    if (keys.count() != values.count()) raise(ErrorCode::invalid_model, std::to_string(keys.count()) + " keys for " + std::to_string(values.count()) + " values");
    for (const Tensor* t : {&keys, &values})
        if (DType d = t->dtype(); d != DType::string && d != DType::i64 && d != DType::f32 && d != DType::i32 && d != DType::i16 && d != DType::f64)
            raise(ErrorCode::invalid_model, std::string("keys or values are ") + dtype_name(d) + "; accepted: string, int64, float, int32, int16, double");
    ctx.need_type(0, {keys.dtype()});
    if (ctx.ranked(0)) ctx.set(0, values.dtype(), ctx.in(0).dims);
    else ctx.set_unranked(0, values.dtype());
}
inline Tensor default_of(const Attrs& a, DType t) {
    if (Tensor d = a.tensor("default_tensor"); d.defined()) {
        if (d.dtype() != t || d.count() != 1)
            raise(ErrorCode::invalid_model, std::string("default_tensor is ") + dtype_name(d.dtype()) + d.shape().to_string() + "; accepted: one " + dtype_name(t));
        return d.aligned();
    }
    if (t == DType::string) return Tensor::from_strings(std::vector<std::string>{a.s("default_string", "_Unused")}, {1});
    if (t == DType::i64) return Tensor::from(std::span<const std::int64_t>(std::vector<std::int64_t>{a.i("default_int64", -1)}), {1});
    if (is_float(t)) return ops_util::scalar(t, static_cast<double>(a.f("default_float", -0.0f)), {1});
    return ops_util::scalar(t, -1, {1});
}
QUERN_INLINE Lowered lower_label_encoder(const LowerCtx& ctx) {
    const Tensor values = side_of(ctx.attrs, "values"), other = default_of(ctx.attrs, values.dtype());
    Tensor all(values.dtype(), {values.count() + 1});
    dispatch_size(values.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        auto* to = static_cast<T*>(all.raw());
        std::copy_n(static_cast<const T*>(values.raw()), values.count(), to);
        to[values.count()] = *static_cast<const T*>(other.raw());
    });
    return ops_util::kernel<ml::Lookup>(ml::Keys(side_of(ctx.attrs, "keys")), std::move(all));
}

inline Tensor categories(const Attrs& a) {
    auto numbers = a.ints("cats_int64s");
    auto words = a.strings("cats_strings");
    if (numbers.empty() == words.empty()) raise(ErrorCode::invalid_model, "exactly one of cats_int64s and cats_strings must be set");
    if (!words.empty()) return Tensor::from_strings(words, {static_cast<std::int64_t>(words.size())});
    return Tensor::from(std::span<const std::int64_t>(numbers), {static_cast<std::int64_t>(numbers.size())});
}
QUERN_INLINE void infer_one_hot(InferCtx& ctx) {
    const Tensor c = categories(ctx.attrs);
    if (c.dtype() == DType::string) ctx.need_type(0, {DType::string});
    else ctx.need_type(0, {DType::i64, DType::i32, DType::f32, DType::f64});
    if (!ctx.ranked(0)) return ctx.set_unranked(0, DType::f32);
    std::vector<Dim> out = ctx.in(0).dims;
    out.push_back(Dim(c.count()));
    ctx.set(0, DType::f32, std::move(out));
}
QUERN_INLINE Lowered lower_one_hot(const LowerCtx& ctx) {
    const Tensor c = categories(ctx.attrs);
    return ops_util::kernel<ml::OneHotCategories>(ml::Keys(c), c.count(), ctx.attrs.i("zeros", 1) == 0);
}

inline ml::Norm norm_of(const Attrs& a) {
    const std::string n = a.s("norm", "MAX");
    if (n == "MAX") return ml::Norm::max;
    if (n == "L1") return ml::Norm::l1;
    if (n == "L2") return ml::Norm::l2;
    raise(ErrorCode::invalid_model, "norm '" + n + "'; accepted: MAX, L1, L2");
}
QUERN_INLINE void infer_normalizer(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32});
    ctx.need_rank(0, 1, 2);
    norm_of(ctx.attrs);
    if (ctx.ranked(0)) ctx.set(0, DType::f32, ctx.in(0).dims);
    else ctx.set_unranked(0, DType::f32);
}
QUERN_INLINE Lowered lower_normalizer(const LowerCtx& ctx) { return ops_util::kernel<ml::NormalizeRows>(norm_of(ctx.attrs)); }

/// For operators whose import leaves nothing of them.
QUERN_INLINE void infer_gone(InferCtx& ctx) { raise(ErrorCode::internal, std::string(ctx.node.op->name) + " is replaced when a model is imported"); }

}  // namespace ops_ml_features

QUERN_INLINE const OpDef& op_ai_onnx_ml_ArrayFeatureExtractor() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "ArrayFeatureExtractor", .min_in = 2, .max_in = 2, .newest = 1,
                               .import = ops_ml_features::import_extractor, .infer = ops_ml_features::infer_gone};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_Binarizer() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "Binarizer", .min_in = 1, .max_in = 1, .newest = 1,
                               .import = ops_ml_features::import_binarizer, .infer = ops_ml_features::infer_gone};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_CategoryMapper() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "CategoryMapper", .min_in = 1, .max_in = 1, .newest = 1,
                               .import = ops_ml_features::import_category_mapper, .infer = ops_ml_features::infer_gone};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_FeatureVectorizer() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "FeatureVectorizer", .min_in = 1, .newest = 1,
                               .import = ops_ml_features::import_vectorizer, .infer = ops_ml_features::infer_gone};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_Imputer() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "Imputer", .min_in = 1, .max_in = 1, .newest = 1,
                               .import = ops_ml_features::import_imputer, .infer = ops_ml_features::infer_gone};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_LabelEncoder() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "LabelEncoder", .min_in = 1, .max_in = 1, .newest = 4,
                               .import = ops_ml_features::import_label_encoder, .infer = ops_ml_features::infer_label_encoder,
                               .lower = ops_ml_features::lower_label_encoder};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_Normalizer() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "Normalizer", .min_in = 1, .max_in = 1, .newest = 1, .import = ops_ml::import_float,
                               .infer = ops_ml_features::infer_normalizer, .lower = ops_ml_features::lower_normalizer};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_OneHotEncoder() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "OneHotEncoder", .min_in = 1, .max_in = 1, .newest = 1,
                               .infer = ops_ml_features::infer_one_hot, .lower = ops_ml_features::lower_one_hot};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_Scaler() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "Scaler", .min_in = 1, .max_in = 1, .newest = 1,
                               .import = ops_ml_features::import_scaler, .infer = ops_ml_features::infer_gone};
    return def;
}
QUERN_END
