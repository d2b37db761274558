// Strings: StringConcat, StringSplit, StringNormalizer, TfIdfVectorizer.
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <quern/kernels/transpose/region.hpp>

QUERN_BEGIN
namespace text {

/// z = x followed by y, with broadcasting.
class Concat final : public Kernel {
public:
    const char* name() const noexcept override { return "string_concat.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.in[1], &z = call.out[0];
        auto offset = [&](const View& v, std::int64_t flat) {
            std::int64_t off = 0, stride = 1;
            for (int i = z.rank - 1; i >= 0; --i) {
                std::int64_t p = flat % z.dims[i];
                flat /= z.dims[i];
                int k = i - (z.rank - v.rank);
                if (k < 0) continue;
                if (v.dims[k] != 1) off += p * stride;
                stride *= v.dims[k];
            }
            return off;
        };
        call.workers.ranges(z.count(), 4096, [&](std::int64_t b, std::int64_t e) {
            for (; b < e; ++b) z.out<std::string>()[b] = x.in<std::string>()[offset(x, b)] + y.in<std::string>()[offset(y, b)];
        });
    }
};

/// Pieces of a string: between occurrences of `delimiter`, or of runs of blanks where it is empty; after
/// `limit` cuts (negative: no limit) the rest is one piece.
inline std::vector<std::string_view> split(std::string_view s, std::string_view delimiter, std::int64_t limit) {
    std::vector<std::string_view> r;
    if (!delimiter.empty()) {
        for (;;) {
            std::size_t at = limit >= 0 && static_cast<std::int64_t>(r.size()) >= limit ? std::string_view::npos : s.find(delimiter);
            r.push_back(s.substr(0, at));
            if (at == std::string_view::npos) return r;
            s.remove_prefix(at + delimiter.size());
        }
    }
    constexpr std::string_view blanks = " \t\n\r\f\v";
    for (;;) {
        std::size_t from = s.find_first_not_of(blanks);
        if (from == std::string_view::npos) return r;
        s.remove_prefix(from);
        std::size_t to = limit >= 0 && static_cast<std::int64_t>(r.size()) >= limit ? std::string_view::npos : s.find_first_of(blanks);
        r.push_back(s.substr(0, to));
        if (to == std::string_view::npos) return r;
        s.remove_prefix(to);
    }
}
/// x -> pieces [x..., most] filled up with empty strings, and their numbers [x...].
class Split final : public Kernel {
public:
    Split(std::string delimiter, std::int64_t limit) : delimiter_(std::move(delimiter)), limit_(limit) {}
    const char* name() const noexcept override { return "string_split.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        const View& x = call.in[0];
        std::size_t most = 0;
        for (std::int64_t i = 0, n = x.count(); i < n; ++i) most = std::max(most, split(x.in<std::string>()[i], delimiter_, limit_).size());
        dims[0].assign(x.dims, x.dims + x.rank);
        if (call.out.size() > 1) dims[1] = dims[0];
        dims[0].push_back(static_cast<std::int64_t>(most));
        return true;
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        const bool counts = call.out.size() > 1 && call.out[1].present();
        const std::int64_t most = y.present() ? y.dims[y.rank - 1] : 0;
        for (std::int64_t i = 0, n = x.count(); i < n; ++i) {
            auto pieces = split(x.in<std::string>()[i], delimiter_, limit_);
            for (std::int64_t k = 0; k < most; ++k) {
                auto u = static_cast<std::size_t>(k);
                y.out<std::string>()[i * most + k] = u < pieces.size() ? std::string(pieces[u]) : std::string();
            }
            if (counts) call.out[1].out<std::int64_t>()[i] = static_cast<std::int64_t>(pieces.size());
        }
    }

private:
    std::string delimiter_;
    std::int64_t limit_;
};

/// Lower or upper case of the letters of ASCII, Latin-1, Latin Extended-A, Greek and Cyrillic that have a
/// counterpart of the same encoded length; everything else stays.
inline std::string change_case(const std::string& s, bool upper) {
    std::string r = s;
    for (std::size_t i = 0; i < r.size(); ++i) {
        auto c = static_cast<unsigned char>(r[i]);
        if (c < 0x80) {
            if (upper ? c >= 'a' && c <= 'z' : c >= 'A' && c <= 'Z') r[i] = static_cast<char>(c ^ 0x20);
            continue;
        }
        if ((c & 0xe0) != 0xc0 || i + 1 >= r.size()) continue;
        unsigned u = (c & 0x1fu) << 6 | (static_cast<unsigned char>(r[i + 1]) & 0x3fu), v = u;
        auto shift = [&](unsigned lo, unsigned hi, unsigned by) {  // upper-case range; lower-case is `by` above
            if (!upper && u >= lo && u <= hi) v = u + by;
            if (upper && u >= lo + by && u <= hi + by) v = u - by;
        };
        if (u != 0xd7 && u != 0xf7) shift(0xc0, 0xde, 0x20);
        if ((u >= 0x100 && u <= 0x137 && u != 0x130 && u != 0x131) || (u >= 0x14a && u <= 0x177)) v = upper ? u & ~1u : u | 1u;
        if ((u >= 0x139 && u <= 0x148) || (u >= 0x179 && u <= 0x17e)) v = upper ? (u & 1u ? u : u - 1) : (u & 1u ? u + 1 : u);
        if (u != 0x3a2 && u != 0x3c2) shift(0x391, 0x3ab, 0x20);
        shift(0x410, 0x42f, 0x20);
        shift(0x400, 0x40f, 0x50);
        r[i] = static_cast<char>(0xc0 | v >> 6);
        r[i + 1] = static_cast<char>(0x80 | (v & 0x3f));
        ++i;
    }
    return r;
}
enum class Case : std::uint8_t { none, lower, upper };
/// [C] or [1, C] without the stop words, in another case; one empty string where nothing is left.
class Normalize final : public Kernel {
public:
    Normalize(Case c, bool sensitive, std::vector<std::string> stop) : case_(c), sensitive_(sensitive), stop_(std::move(stop)) {
        if (!sensitive_)
            for (auto& s : stop_) s = change_case(s, false);
        std::sort(stop_.begin(), stop_.end());
    }
    const char* name() const noexcept override { return "string_normalizer.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        const View& x = call.in[0];
        std::int64_t n = 0;
        for (std::int64_t i = 0; i < x.count(); ++i) n += !stops(x.in<std::string>()[i]);
        dims[0].assign(x.dims, x.dims + x.rank);
        dims[0].back() = std::max<std::int64_t>(n, 1);
        return true;
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        std::int64_t k = 0, n = y.count();
        for (std::int64_t i = 0; i < x.count() && k < n; ++i) {
            const std::string& s = x.in<std::string>()[i];
            if (!stops(s)) y.out<std::string>()[k++] = case_ == Case::none ? s : change_case(s, case_ == Case::upper);
        }
        while (k < n) y.out<std::string>()[k++].clear();
    }

private:
    bool stops(const std::string& s) const { return std::binary_search(stop_.begin(), stop_.end(), sensitive_ ? s : change_case(s, false)); }
    Case case_;
    bool sensitive_;
    std::vector<std::string> stop_;
};

/// Attributes of https://onnx.ai/onnx/operators/onnx__TfIdfVectorizer.html; either pool is set.
struct TfIdfSpec {
    enum class Mode : std::uint8_t { tf, idf, tfidf } mode = Mode::tf;
    std::int64_t min_length = 1, max_length = 1, max_skip = 0, outputs = 0;
    std::vector<std::int64_t> counts, indexes, numbers;
    std::vector<std::string> words;
    std::vector<float> weights;
};
/// x[C] or [N, C] of strings or integers -> [outputs] or [N, outputs].
class TfIdf final : public Kernel {
public:
    /// The n-grams form a tree: node 0 is the root.
    explicit TfIdf(TfIdfSpec s) : spec_(std::move(s)) {
        nodes_.emplace_back();
        const bool strings = !spec_.words.empty();
        const std::size_t total = strings ? spec_.words.size() : spec_.numbers.size();
        std::int64_t gram = 0;
        for (std::size_t len = 1; len <= spec_.counts.size(); ++len) {
            auto from = static_cast<std::size_t>(spec_.counts[len - 1]), to = len < spec_.counts.size() ? static_cast<std::size_t>(spec_.counts[len]) : total;
            for (std::size_t at = from; at + len <= to; at += len, ++gram) {
                if (static_cast<std::int64_t>(len) < spec_.min_length || static_cast<std::int64_t>(len) > spec_.max_length) continue;
                std::size_t node = 0;
                for (std::size_t k = 0; k < len; ++k) {
                    std::int64_t token = strings ? word_id(spec_.words[at + k]) : spec_.numbers[at + k];
                    auto [it, fresh] = nodes_[node].next.try_emplace(token, nodes_.size());
                    node = it->second;
                    if (fresh) nodes_.emplace_back();
                }
                nodes_[node].gram = gram;
            }
        }
    }
    const char* name() const noexcept override { return "tf_idf.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        const std::int64_t width = x.rank ? x.dims[x.rank - 1] : 1, rows = x.rank == 2 ? x.dims[0] : 1;
        if (y.count() == 0) return;
        if (const std::int64_t steps = std::min(spec_.max_skip + 1, width); steps > 1 && width > most_starts / steps)
            raise(ErrorCode::shape_mismatch, "rows of " + std::to_string(width) + " tokens with " + std::to_string(spec_.max_skip) + " skips; accepted: 2^22 starts of n-grams in a row");
        call.workers.for_each(rows, [&](std::int64_t row) {
            std::vector<std::int64_t> tokens(static_cast<std::size_t>(width));
            for (std::int64_t i = 0; i < width; ++i) tokens[static_cast<std::size_t>(i)] = token(x, row * width + i);
            float* d = y.out<float>() + row * spec_.outputs;
            std::fill(d, d + spec_.outputs, 0.0f);
            count(tokens, d);
            for (std::int64_t k = 0; k < spec_.outputs; ++k) {
                float w = static_cast<std::size_t>(k) < spec_.weights.size() ? spec_.weights[static_cast<std::size_t>(k)] : 1;
                if (spec_.mode == TfIdfSpec::Mode::idf) d[k] = d[k] > 0 ? w : 0;
                else if (spec_.mode == TfIdfSpec::Mode::tfidf) d[k] *= w;
            }
        });
    }

private:
    static constexpr std::int64_t most_starts = 1 << 22;
    struct Node { std::int64_t gram = -1; std::unordered_map<std::int64_t, std::size_t> next; };
    std::int64_t word_id(const std::string& w) { return static_cast<std::int64_t>(ids_.try_emplace(w, ids_.size()).first->second); }
    std::int64_t token(const View& x, std::int64_t i) const {
        if (x.dtype == DType::string) {
            auto it = ids_.find(x.in<std::string>()[i]);
            return it == ids_.end() ? -1 : static_cast<std::int64_t>(it->second);
        }
        return dispatch_index(x.dtype, [&](auto tag) { return static_cast<std::int64_t>(x.in<typename decltype(tag)::type>()[i]); });
    }
    void count(const std::vector<std::int64_t>& t, float* d) const {
        const auto n = static_cast<std::int64_t>(t.size());
        for (std::int64_t step = 1; step <= spec_.max_skip + 1 && (step == 1 || step < n); ++step)
            for (std::int64_t start = 0; start < n; ++start) {
                std::size_t node = 0;
                std::int64_t length = 1;
                for (std::int64_t i = start; i < n && length <= spec_.max_length; i += step, ++length) {
                    auto it = nodes_[node].next.find(t[static_cast<std::size_t>(i)]);
                    if (it == nodes_[node].next.end()) break;
                    node = it->second;
                    const std::int64_t gram = nodes_[node].gram;
                    // single tokens do not depend on the step: counted once
                    if (gram >= 0 && length >= spec_.min_length && (length > 1 || step == 1)) d[spec_.indexes[static_cast<std::size_t>(gram)]] += 1;
                }
            }
    }
    TfIdfSpec spec_;
    std::vector<Node> nodes_;
    std::unordered_map<std::string, std::size_t> ids_;
};

}  // namespace text
QUERN_END
