// StringConcat, StringSplit, StringNormalizer, RegexFullMatch, TfIdfVectorizer: https://onnx.ai/onnx/operators/onnx__StringSplit.html and theirs.
// Tokenizer and MurmurHash3 of com.microsoft, which scikit-learn's converter writes: docs/ContribOperators.md of ONNX Runtime.
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/text/regex.hpp>
#include <quern/kernels/text/text.hpp>
#include <quern/kernels/text/tokenize.hpp>

QUERN_BEGIN
namespace ops_text {

QUERN_INLINE void infer_concat(InferCtx& ctx) {
    ctx.need_type(0, {DType::string});
    ctx.need_type(1, {DType::string});
    if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_unranked(0, DType::string);
    ctx.set(0, DType::string, broadcast(ctx.in(0).dims, ctx.in(1).dims));
}
QUERN_INLINE Lowered lower_concat(const LowerCtx& ctx) {
    movement::check_rank(ctx.out(0).rank());
    return ops_util::kernel<text::Concat>();
}

QUERN_INLINE void infer_split(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(0, {DType::string});
    if (!x.ranked) {
        ctx.set_unranked(0, DType::string);
        return ctx.set_unranked(1, DType::i64);
    }
    std::vector<Dim> out = x.dims;
    out.push_back(ctx.concrete ? Dim(0) : ctx.fresh("pieces"));
    ctx.set(0, DType::string, std::move(out));
    ctx.set(1, DType::i64, x.dims);
}
QUERN_INLINE Lowered lower_split(const LowerCtx& ctx) {
    return ops_util::kernel<text::Split>(ctx.attrs.s("delimiter", ""), ctx.attrs.i("maxsplit", -1));
}

inline text::Case case_of(const Attrs& a) {
    std::string c = a.s("case_change_action", "NONE");
    if (c == "NONE") return text::Case::none;
    if (c == "LOWER") return text::Case::lower;
    if (c == "UPPER") return text::Case::upper;
    raise(ErrorCode::invalid_model, "case_change_action '" + c + "'; accepted: NONE, LOWER, UPPER");
}
QUERN_INLINE void infer_normalize(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(0, {DType::string});
    ctx.need_rank(0, 1, 2);
    case_of(ctx.attrs);
    if (!x.ranked) return ctx.set_unranked(0, DType::string);
    std::vector<Dim> out = x.dims;
    if (out.size() == 2 && out[0].is_const() && !out[0].is(1)) ctx.fail("a first dimension of " + out[0].to_string() + "; accepted: 1");
    if (out.size() == 2) out[0] = 1;
    out.back() = ctx.concrete ? Dim(0) : ctx.fresh("words");
    ctx.set(0, DType::string, std::move(out));
}
QUERN_INLINE Lowered lower_normalize(const LowerCtx& ctx) {
    return ops_util::kernel<text::Normalize>(case_of(ctx.attrs), ctx.attrs.i("is_case_sensitive", 0) != 0, ctx.attrs.strings("stopwords"));
}

class FullMatch final : public Kernel {
public:
    explicit FullMatch(std::string pattern) : regex_(std::move(pattern)) {}
    const char* name() const noexcept override { return "regex_full_match.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        call.workers.ranges(x.count(), 256, [&](std::int64_t b, std::int64_t e) {
            for (; b < e; ++b) y.out<bool>()[b] = regex_.matches(x.in<std::string>()[b]);
        });
    }

private:
    text::Regex regex_;
};
QUERN_INLINE void infer_match(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(0, {DType::string});
    if (!ctx.attrs.has("pattern")) raise(ErrorCode::invalid_model, "the attribute 'pattern' is missing");
    if (!x.ranked) return ctx.set_unranked(0, DType::boolean);
    ctx.set(0, DType::boolean, x.dims);
}
QUERN_INLINE Lowered lower_match(const LowerCtx& ctx) { return ops_util::kernel<FullMatch>(ctx.attrs.s("pattern", "")); }

inline text::TfIdfSpec tf_idf(const Attrs& a) {
    text::TfIdfSpec s;
    std::string mode = a.s("mode", "TF");
    if (mode == "IDF") s.mode = text::TfIdfSpec::Mode::idf;
    else if (mode == "TFIDF") s.mode = text::TfIdfSpec::Mode::tfidf;
    else if (mode != "TF") raise(ErrorCode::invalid_model, "mode '" + mode + "'; accepted: TF, IDF, TFIDF");
    s.min_length = a.i("min_gram_length", 1);
    s.max_length = a.i("max_gram_length", 1);
    s.max_skip = a.i("max_skip_count", 0);
    s.counts = a.ints("ngram_counts");
    s.indexes = a.ints("ngram_indexes");
    s.numbers = a.ints("pool_int64s");
    s.words = a.strings("pool_strings");
    s.weights = a.floats("weights");
    if (s.numbers.empty() == s.words.empty()) raise(ErrorCode::invalid_model, "exactly one of pool_int64s and pool_strings must be set");
    if (s.min_length < 1 || s.max_length < s.min_length || s.max_skip < 0 || s.max_skip > INT32_MAX)
        raise(ErrorCode::invalid_model, "n-gram lengths and skips must be 1 <= min <= max and 0 <= skip");
    const auto total = static_cast<std::int64_t>(std::max(s.numbers.size(), s.words.size()));
    std::int64_t grams = 0;
    for (std::size_t k = 0; k < s.counts.size(); ++k) {
        std::int64_t next = k + 1 < s.counts.size() ? s.counts[k + 1] : total, length = static_cast<std::int64_t>(k) + 1;
        if (s.counts[k] < 0 || next < s.counts[k] || next > total) raise(ErrorCode::invalid_model, "ngram_counts must rise within the pool of " + std::to_string(total));
        grams += (next - s.counts[k]) / length;
    }
    if (grams > static_cast<std::int64_t>(s.indexes.size())) raise(ErrorCode::invalid_model, std::to_string(s.indexes.size()) + " ngram_indexes for " + std::to_string(grams) + " n-grams");
    for (std::int64_t i : s.indexes) {
        if (i < 0 || i >= INT32_MAX) raise(ErrorCode::invalid_model, "ngram index " + std::to_string(i) + "; 0 or more is accepted");
        s.outputs = std::max(s.outputs, i + 1);
    }
    return s;
}
QUERN_INLINE void infer_tf_idf(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    auto s = tf_idf(ctx.attrs);
    if (s.words.empty()) ctx.need_type(0, {DType::i64, DType::i32});
    else ctx.need_type(0, {DType::string});
    ctx.need_rank(0, 0, 2);
    if (!x.ranked) return ctx.set_unranked(0, DType::f32);
    std::vector<Dim> out;
    if (x.rank() == 2) out.push_back(x.dims[0]);
    out.push_back(Dim(s.outputs));
    ctx.set(0, DType::f32, std::move(out));
}
QUERN_INLINE Lowered lower_tf_idf(const LowerCtx& ctx) { return ops_util::kernel<text::TfIdf>(tf_idf(ctx.attrs)); }

inline text::TokenSpec token_spec(const Attrs& a) {
    for (const char* needed : {"mark", "mincharnum", "pad_value"})
        if (!a.has(needed)) raise(ErrorCode::invalid_model, std::string("the attribute '") + needed + "' is missing");
    text::TokenSpec s;
    s.mark = a.i("mark", 0) != 0;
    s.least = a.i("mincharnum", 1);
    s.pad = a.s("pad_value", "");
    s.separators = a.strings("separators");
    s.token = a.s("tokenexp", "");
    s.characters = s.separators.empty() ? s.token == "." : s.separators.size() == 1 && s.separators[0].empty();
    if (s.least < 1) raise(ErrorCode::invalid_model, "mincharnum is " + std::to_string(s.least) + "; accepted: 1 and more");
    if (s.separators.empty() && s.token.empty()) raise(ErrorCode::invalid_model, "neither separators nor tokenexp is given; accepted: one of them");
    if (s.characters && s.least > 1) raise(ErrorCode::invalid_model, "mincharnum is " + std::to_string(s.least) + " where each character is a token; accepted: 1");
    return s;
}
QUERN_INLINE void infer_tokenize(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    ctx.need_type(0, {DType::string});
    ctx.need_rank(0, 1, 2);
    token_spec(ctx.attrs);
    if (!x.ranked) return ctx.set_unranked(0, DType::string);
    std::vector<Dim> out = x.dims;
    out.push_back(ctx.concrete ? Dim(0) : ctx.fresh("tokens"));
    ctx.set(0, DType::string, std::move(out));
}
QUERN_INLINE Lowered lower_tokenize(const LowerCtx& ctx) { return ops_util::kernel<text::Tokenize>(token_spec(ctx.attrs)); }

QUERN_INLINE void infer_hash(InferCtx& ctx) {
    ctx.need_type(0, {DType::string, DType::i32, DType::u32, DType::i64, DType::u64, DType::f32, DType::f64});
    const DType t = ctx.attrs.i("positive", 1) != 0 ? DType::u32 : DType::i32;
    if (ctx.ranked(0)) ctx.set(0, t, ctx.in(0).dims);
    else ctx.set_unranked(0, t);
}
QUERN_INLINE Lowered lower_hash(const LowerCtx& ctx) { return ops_util::kernel<text::Hash>(static_cast<std::uint32_t>(ctx.attrs.i("seed", 0))); }

}  // namespace ops_text

QUERN_INLINE const OpDef& op_StringConcat() {
    static constexpr OpDef def{.name = "StringConcat", .min_in = 2, .max_in = 2, .newest = 20, .infer = ops_text::infer_concat, .lower = ops_text::lower_concat};
    return def;
}
QUERN_INLINE const OpDef& op_StringSplit() {
    static constexpr OpDef def{.name = "StringSplit", .min_in = 1, .max_in = 1, .max_out = 2, .newest = 20, .infer = ops_text::infer_split, .lower = ops_text::lower_split};
    return def;
}
QUERN_INLINE const OpDef& op_StringNormalizer() {
    static constexpr OpDef def{.name = "StringNormalizer", .min_in = 1, .max_in = 1, .newest = 10, .infer = ops_text::infer_normalize, .lower = ops_text::lower_normalize};
    return def;
}
QUERN_INLINE const OpDef& op_RegexFullMatch() {
    static constexpr OpDef def{.name = "RegexFullMatch", .min_in = 1, .max_in = 1, .newest = 20, .infer = ops_text::infer_match, .lower = ops_text::lower_match};
    return def;
}
QUERN_INLINE const OpDef& op_TfIdfVectorizer() {
    static constexpr OpDef def{.name = "TfIdfVectorizer", .min_in = 1, .max_in = 1, .newest = 9, .infer = ops_text::infer_tf_idf, .lower = ops_text::lower_tf_idf};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_Tokenizer() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "Tokenizer", .min_in = 1, .max_in = 1, .newest = 1, .infer = ops_text::infer_tokenize, .lower = ops_text::lower_tokenize};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_MurmurHash3() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "MurmurHash3", .min_in = 1, .max_in = 1, .newest = 1, .infer = ops_text::infer_hash, .lower = ops_text::lower_hash};
    return def;
}
QUERN_END
