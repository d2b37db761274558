// ZipMap, DictVectorizer, CastMap: https://onnx.ai/onnx/operators/onnx_aionnxml_ZipMap.html and theirs.
#pragma once
#include "ml_common.hpp"
#include <quern/kernels/ml/maps.hpp>

QUERN_BEGIN
namespace ops_ml_maps {
using namespace ops_ml;

/// One of two lists as a tensor.
inline Tensor either(const Attrs& a, const char* numbers, const char* words) {
    auto n = a.ints(numbers);
    auto w = a.strings(words);
    if (n.empty() == w.empty()) raise(ErrorCode::invalid_model, std::string("exactly one of ") + numbers + " and " + words + " must be set");
    if (!w.empty()) return Tensor::from_strings(w, {static_cast<std::int64_t>(w.size())});
    return Tensor::from(std::span<const std::int64_t>(n), {static_cast<std::int64_t>(n.size())});
}
inline Tensor zip_labels(const Attrs& a) { return either(a, "classlabels_int64s", "classlabels_strings"); }
QUERN_INLINE void infer_zip(InferCtx& ctx) {
    if (ctx.in(0).kind != Kind::tensor) raise(ErrorCode::invalid_model, "input 0 is " + ctx.in(0).to_string() + "; accepted: a tensor");
    ctx.need_type(0, {DType::f32});
    ctx.need_rank(0, 1, 2);
    const Tensor labels = zip_labels(ctx.attrs);
    need_features(ctx, labels.count(), true);
    ctx.outputs[0] = Fact::sequence_of(Fact::map_of(labels.dtype(), Fact::of(DType::f32, {})));
}
QUERN_INLINE Lowered lower_zip(const LowerCtx& ctx) { return ops_util::kernel<ml::ZipMap>(zip_labels(ctx.attrs)); }

inline const Fact& need_map(const InferCtx& ctx, std::initializer_list<DType> keys, std::initializer_list<DType> values) {
    const Fact& f = ctx.in(0);
    auto among = [](DType t, std::initializer_list<DType> l) { return std::find(l.begin(), l.end(), t) != l.end(); };
    if (f.kind != Kind::map || !f.elem || !among(f.key, keys) || !among(f.elem->dtype, values))
        raise(ErrorCode::invalid_model, "input 0 is " + f.to_string() + "; accepted: maps of the types that the operator names");
    return f;
}
inline Tensor vocabulary(const Attrs& a) { return either(a, "int64_vocabulary", "string_vocabulary"); }
QUERN_INLINE void infer_dict(InferCtx& ctx) {
    const Fact& f = need_map(ctx, {DType::i64, DType::string}, {DType::i64, DType::f32, DType::f64, DType::string});
    const Tensor v = vocabulary(ctx.attrs);
    if (v.dtype() != f.key) raise(ErrorCode::invalid_model, std::string("the vocabulary is ") + dtype_name(v.dtype()) + ", the map's keys are " + dtype_name(f.key));
    ctx.set(0, f.elem->dtype, {1, Dim(v.count())});
}
QUERN_INLINE Lowered lower_dict(const LowerCtx& ctx) { return ops_util::kernel<ml::DictVectorizer>(vocabulary(ctx.attrs)); }

inline bool sparse_of(const Attrs& a) {
    const std::string form = a.s("map_form", "DENSE");
    if (form != "DENSE" && form != "SPARSE") raise(ErrorCode::invalid_model, "map_form '" + form + "'; accepted: DENSE, SPARSE");
    return form == "SPARSE";
}
QUERN_INLINE void infer_cast_map(InferCtx& ctx) {
    need_map(ctx, {DType::i64}, {DType::f32, DType::string});
    const std::string to = ctx.attrs.s("cast_to", "TO_FLOAT");
    const DType t = to == "TO_FLOAT" ? DType::f32 : to == "TO_INT64" ? DType::i64 : to == "TO_STRING" ? DType::string : DType::undefined;
    if (t == DType::undefined) raise(ErrorCode::invalid_model, "cast_to '" + to + "'; accepted: TO_FLOAT, TO_INT64, TO_STRING");
    const std::int64_t size = ctx.attrs.i("max_map", 1);
    if (size < 1 || size > (1 << 28)) raise(ErrorCode::invalid_model, "max_map is " + std::to_string(size) + "; accepted: 1 to 2^28");
    ctx.set(0, t, {1, sparse_of(ctx.attrs) ? Dim(size) : ctx.concrete ? Dim(0) : ctx.fresh("entries")});
}
QUERN_INLINE Lowered lower_cast_map(const LowerCtx& ctx) { return ops_util::kernel<ml::CastMap>(sparse_of(ctx.attrs), ctx.attrs.i("max_map", 1)); }

}  // namespace ops_ml_maps

QUERN_INLINE const OpDef& op_ai_onnx_ml_ZipMap() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "ZipMap", .min_in = 1, .max_in = 1, .newest = 1, .import = ops_ml::import_float,
                               .infer = ops_ml_maps::infer_zip, .lower = ops_ml_maps::lower_zip, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_DictVectorizer() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "DictVectorizer", .min_in = 1, .max_in = 1, .newest = 1,
                               .infer = ops_ml_maps::infer_dict, .lower = ops_ml_maps::lower_dict, .boxed = true};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_CastMap() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "CastMap", .min_in = 1, .max_in = 1, .newest = 1,
                               .infer = ops_ml_maps::infer_cast_map, .lower = ops_ml_maps::lower_cast_map, .boxed = true};
    return def;
}
QUERN_END
