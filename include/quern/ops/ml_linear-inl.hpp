// LinearClassifier, LinearRegressor, SVMClassifier, SVMRegressor: https://onnx.ai/onnx/operators/onnx_aionnxml_LinearClassifier.html and theirs.
#pragma once
#include <algorithm>

#include "ml_common.hpp"
#include <quern/kernels/ml/linear.hpp>

QUERN_BEGIN
namespace ops_ml_linear {
using namespace ops_ml;

inline ml::Labels class_labels(const Attrs& a) { return labels_of(a, "classlabels_ints", "classlabels_strings"); }
/// Elements as rows of equal length; raises invalid_model where they are not.
inline std::int64_t per_row(std::string_view name, std::size_t elements, std::int64_t rows) {
    if (rows < 1 || elements == 0 || elements % static_cast<std::size_t>(rows))
        raise(ErrorCode::invalid_model, "attribute '" + std::string(name) + "' has " + std::to_string(elements) + " elements; accepted: a multiple of " + std::to_string(rows));
    return static_cast<std::int64_t>(elements) / rows;
}

/// Rows of the coefficients: as many as there are intercepts; without them, labels (one row for two labels where the input says so).
inline std::int64_t classifier_rows(const Attrs& a, const Fact& x) {
    const std::vector<float> none;
    const auto intercepts = static_cast<std::int64_t>(list<float>(a, "intercepts", none).size()), labels = class_labels(a).count();
    if (intercepts) return intercepts;
    const auto all = static_cast<std::int64_t>(list<float>(a, "coefficients", none).size());
    if (labels <= 2 && x.ranked && x.rank() > 0 && x.dims.back().is(all)) return 1;
    return std::max<std::int64_t>(labels, 1);
}
QUERN_INLINE void infer_classifier(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32});
    const std::vector<float> none;
    const ml::Labels l = class_labels(ctx.attrs);
    const std::int64_t rows = classifier_rows(ctx.attrs, ctx.in(0));
    need_features(ctx, per_row("coefficients", list<float>(ctx.attrs, "coefficients", none).size(), rows), true);
    if (rows > 1 && l.count() < rows)
        raise(ErrorCode::invalid_model, std::to_string(l.count()) + " class labels for " + std::to_string(rows) + " rows of coefficients");
    post_of(ctx.attrs);
    set_classes(ctx, l.text(), rows == 1 && l.count() == 2 ? 2 : rows);
}
QUERN_INLINE Lowered lower_classifier(const LowerCtx& ctx) {
    const std::vector<float> none;
    auto& w = list<float>(ctx.attrs, "coefficients", none);
    const std::int64_t rows = classifier_rows(ctx.attrs, ctx.in(0));
    ml::LinearSpec s;
    s.classifies = true;
    s.labels = class_labels(ctx.attrs);
    s.post = post_of(ctx.attrs);
    s.bias = ctx.attrs.floats("intercepts");
    s.second = rows == 1 && s.labels.count() == 2;
    return ops_util::kernel<ml::Linear>(ml::Product(w, rows, per_row("coefficients", w.size(), rows), ctx.target.isa), std::move(s));
}

inline std::int64_t regressor_rows(const Attrs& a) {
    const std::vector<float> none;
    const std::int64_t targets = a.i("targets", 1);
    const auto intercepts = list<float>(a, "intercepts", none).size();
    if (targets < 1) raise(ErrorCode::invalid_model, "targets is " + std::to_string(targets) + "; 1 or more is accepted");
    if (intercepts && static_cast<std::int64_t>(intercepts) != targets)
        raise(ErrorCode::invalid_model, std::to_string(intercepts) + " intercepts for " + std::to_string(targets) + " targets");
    return targets;
}
QUERN_INLINE void infer_regressor(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32});
    const std::vector<float> none;
    const std::int64_t rows = regressor_rows(ctx.attrs);
    need_features(ctx, per_row("coefficients", list<float>(ctx.attrs, "coefficients", none).size(), rows), true);
    post_of(ctx.attrs);
    set_scores(ctx, DType::f32, rows);
}
QUERN_INLINE Lowered lower_regressor(const LowerCtx& ctx) {
    const std::vector<float> none;
    auto& w = list<float>(ctx.attrs, "coefficients", none);
    const std::int64_t rows = regressor_rows(ctx.attrs);
    ml::LinearSpec s;
    s.post = post_of(ctx.attrs);
    s.bias = ctx.attrs.floats("intercepts");
    return ops_util::kernel<ml::Linear>(ml::Product(w, rows, per_row("coefficients", w.size(), rows), ctx.target.isa), std::move(s));
}

inline ml::SvmKernel kernel_of(const Attrs& a) {
    ml::SvmKernel k;
    const std::string type = a.s("kernel_type", "LINEAR");
    constexpr const char* names[] = {"LINEAR", "POLY", "RBF", "SIGMOID"};
    auto it = std::find(std::begin(names), std::end(names), type);
    if (it == std::end(names)) raise(ErrorCode::invalid_model, "kernel_type '" + type + "'; accepted: LINEAR, POLY, RBF, SIGMOID");
    k.type = static_cast<ml::SvmKernel::Type>(it - std::begin(names));
    const std::vector<float> p = a.floats("kernel_params");
    if (!p.empty() && p.size() != 3) raise(ErrorCode::invalid_model, std::to_string(p.size()) + " kernel_params; accepted: 3 (gamma, coef0, degree)");
    if (!p.empty()) k.gamma = static_cast<double>(p[0]), k.coef0 = static_cast<double>(p[1]), k.degree = static_cast<double>(p[2]);
    return k;
}
/// An SVM as its attributes give it, checked: `rows` vectors (or rows of a linear model) of `features`.
struct Svm {
    ml::SvmSpec spec;
    ml::SvmKernel kernel;
    std::int64_t rows = 0, features = 0;
    const char* vectors = "support_vectors";
};
inline void need_at_least(std::string_view name, std::size_t have, std::int64_t want) {
    if (static_cast<std::int64_t>(have) < want)
        raise(ErrorCode::invalid_model, "attribute '" + std::string(name) + "' has " + std::to_string(have) + " elements; accepted: " + std::to_string(want));
}
inline void finish(Svm& m, const Attrs& a) {
    const std::vector<float> none;
    m.kernel = kernel_of(a);
    m.spec.post = post_of(a);
    m.spec.coefficients = a.floats("coefficients");
    m.spec.rho = a.floats("rho");
    if (m.spec.begin.empty()) {
        m.vectors = "coefficients";
        m.kernel.type = ml::SvmKernel::Type::linear;
    }
    m.features = per_row(m.vectors, list<float>(a, m.vectors, none).size(), m.rows);
}
inline Svm read_classifier(const Attrs& a) {
    Svm m;
    m.spec.classifies = true;
    m.spec.labels = class_labels(a);
    const std::int64_t classes = m.spec.labels.count(), pairs = classes * (classes - 1) / 2;
    if (classes < 1 || classes > 4096) raise(ErrorCode::unsupported, std::to_string(classes) + " class labels; accepted: 1 to 4096");
    const std::vector<std::int64_t> counts = a.ints("vectors_per_class");
    std::int64_t vectors = 0;
    for (std::int64_t c : counts) {
        if (c < 0 || c > (std::int64_t{1} << 40)) raise(ErrorCode::invalid_model, "vectors_per_class holds " + std::to_string(c));
        m.spec.begin.push_back(vectors);
        vectors += c;
        if (vectors > (std::int64_t{1} << 40)) raise(ErrorCode::invalid_model, "vectors_per_class holds more than 2^40 together");
    }
    m.spec.begin.push_back(vectors);
    if (vectors == 0) m.spec.begin.clear();
    m.rows = vectors ? vectors : classes;
    finish(m, a);
    m.spec.columns = classes;
    if (!vectors) {
        need_at_least("rho", m.spec.rho.size(), 1);
        return m;
    }
    if (static_cast<std::int64_t>(counts.size()) != classes)
        raise(ErrorCode::invalid_model, std::to_string(counts.size()) + " vectors_per_class for " + std::to_string(classes) + " class labels");
    m.spec.prob_a = a.floats("prob_a");
    m.spec.prob_b = a.floats("prob_b");
    need_at_least("rho", m.spec.rho.size(), pairs);
    need_at_least("coefficients", m.spec.coefficients.size(), (classes - 1) * vectors);
    if (!m.spec.prob_a.empty() || !m.spec.prob_b.empty()) {
        need_at_least("prob_a", m.spec.prob_a.size(), pairs);
        need_at_least("prob_b", m.spec.prob_b.size(), pairs);
    } else if (classes > 2) {
        m.spec.columns = pairs;
    }
    return m;
}
inline Svm read_regressor(const Attrs& a) {
    Svm m;
    const std::int64_t vectors = a.i("n_supports", 0);
    if (vectors < 0) raise(ErrorCode::invalid_model, "n_supports is " + std::to_string(vectors) + "; 0 or more is accepted");
    if (vectors) m.spec.begin = {0, vectors};
    m.rows = vectors ? vectors : 1;
    finish(m, a);
    m.spec.one_class = a.i("one_class", 0) != 0;
    if (vectors) need_at_least("coefficients", m.spec.coefficients.size(), vectors);
    return m;
}
QUERN_INLINE void infer_svc(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32});
    const Svm m = read_classifier(ctx.attrs);
    need_features(ctx, m.features, true);
    set_classes(ctx, m.spec.labels.text(), m.spec.columns);
}
QUERN_INLINE void infer_svr(InferCtx& ctx) {
    ctx.need_type(0, {DType::f32});
    need_features(ctx, read_regressor(ctx.attrs).features, true);
    set_scores(ctx, DType::f32, 1);
}
inline Lowered make(Svm m, const LowerCtx& ctx) {
    const std::vector<float> none;
    return ops_util::kernel<ml::Svm>(ml::Support(list<float>(ctx.attrs, m.vectors, none), m.rows, m.features, m.kernel, ctx.target.isa), std::move(m.spec));
}
QUERN_INLINE Lowered lower_svc(const LowerCtx& ctx) { return make(read_classifier(ctx.attrs), ctx); }
QUERN_INLINE Lowered lower_svr(const LowerCtx& ctx) { return make(read_regressor(ctx.attrs), ctx); }

}  // namespace ops_ml_linear

QUERN_INLINE const OpDef& op_ai_onnx_ml_LinearClassifier() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "LinearClassifier", .min_in = 1, .max_in = 1, .max_out = 2, .newest = 1,
                               .import = ops_ml::import_float, .infer = ops_ml_linear::infer_classifier, .lower = ops_ml_linear::lower_classifier};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_LinearRegressor() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "LinearRegressor", .min_in = 1, .max_in = 1, .newest = 1,
                               .import = ops_ml::import_float, .infer = ops_ml_linear::infer_regressor, .lower = ops_ml_linear::lower_regressor};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_SVMClassifier() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "SVMClassifier", .min_in = 1, .max_in = 1, .max_out = 2, .newest = 1,
                               .import = ops_ml::import_float, .infer = ops_ml_linear::infer_svc, .lower = ops_ml_linear::lower_svc};
    return def;
}
QUERN_INLINE const OpDef& op_ai_onnx_ml_SVMRegressor() {
    static constexpr OpDef def{.domain = ops_ml::domain, .name = "SVMRegressor", .min_in = 1, .max_in = 1, .newest = 1,
                               .import = ops_ml::import_float, .infer = ops_ml_linear::infer_svr, .lower = ops_ml_linear::lower_svr};
    return def;
}
QUERN_END
