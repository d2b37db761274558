// Strings to tokens and to numbers.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>

#include <quern/kernels/kernel.hpp>
#include <quern/kernels/text/regex.hpp>

QUERN_BEGIN
namespace text {

/// How a string is cut: at separators (regular expressions, one after the other on what the former left), into matches of `token`, or into characters.
struct TokenSpec {
    std::vector<std::string> separators;  ///< empty: `token` counts
    std::string token, pad;
    bool characters = false, mark = false;  ///< mark: "\x02" before and "\x03" after the tokens of a string
    std::int64_t least = 1;                 ///< characters of a token; shorter ones are left out
};

/// x [C] or [N, C] -> tokens [..., D], D the most that a string of x has (with the marks), filled up with `pad`; 0, without marks, where no string has any.
/// Expressions match as long as they can. A match of nothing stands for one byte, as in ONNX Runtime.
class Tokenize final : public Kernel {
public:
    explicit Tokenize(TokenSpec s) : s_(std::move(s)) {
        if (s_.characters) return;
        for (auto& e : s_.separators) regex_.emplace_back(e);
        if (s_.separators.empty()) regex_.emplace_back(s_.token);
    }
    const char* name() const noexcept override { return "tokenizer.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        const View& x = call.in[0];
        std::atomic<std::size_t> most{0};
        call.workers.ranges(x.count(), 16, [&](std::int64_t b, std::int64_t e) {
            std::size_t here = 0;
            for (; b < e; ++b) here = std::max(here, tokens(x.in<std::string>()[b]).size());
            for (std::size_t known = most; known < here && !most.compare_exchange_weak(known, here);) {}
        });
        dims[0].assign(x.dims, x.dims + x.rank);
        dims[0].push_back(most ? static_cast<std::int64_t>(most.load()) + (s_.mark ? 2 : 0) : 0);
        return true;
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        const std::int64_t most = y.dims[y.rank - 1];
        call.workers.ranges(most ? x.count() : 0, 16, [&](std::int64_t b, std::int64_t e) {
            for (; b < e; ++b) {
                std::string *to = y.out<std::string>() + b * most, *end = to + most;
                if (s_.mark) *to++ = "\x02";
                for (std::string_view t : tokens(x.in<std::string>()[b])) *to++ = std::string(t);
                if (s_.mark) *to++ = "\x03";
                std::fill(to, end, s_.pad);
            }
        });
    }

private:
    std::vector<std::string_view> tokens(std::string_view s) const {
        std::vector<std::string_view> r;
        std::size_t left = Regex::budget(s);
        if (s_.characters) {
            for (std::size_t i = 0; i < s.size();) {
                const std::size_t from = i;
                next_code_point(s, i);
                r.push_back(s.substr(from, i - from));
            }
        } else if (s_.separators.empty()) {
            std::size_t from, to;
            for (std::size_t i = 0; i <= s.size() && regex_[0].find(s, i, from, to, left); i = std::max(to, from + 1)) keep(s.substr(from, to - from), r);
        } else {
            r.push_back(s);
            for (auto& e : regex_) {
                std::vector<std::string_view> pieces;
                for (std::string_view p : r) split(p, e, pieces, left);
                r.swap(pieces);
            }
        }
        return r;
    }
    void split(std::string_view s, const Regex& separator, std::vector<std::string_view>& out, std::size_t& left) const {
        std::size_t at = 0, from, to;
        while (at <= s.size() && separator.find(s, at, from, to, left)) {
            keep(s.substr(at, from - at), out);
            at = std::max(to, from + 1);
        }
        if (at < s.size()) keep(s.substr(at), out);
    }
    void keep(std::string_view token, std::vector<std::string_view>& out) const {
        std::int64_t characters = 0;
        for (std::size_t i = 0; i < token.size() && characters < s_.least; ++characters) next_code_point(token, i);
        if (characters >= s_.least) out.push_back(token);
    }
    TokenSpec s_;
    std::vector<Regex> regex_;
};

/// MurmurHash3_x86_32 (Appleby) of bytes.
inline std::uint32_t murmur3(const void* data, std::size_t n, std::uint32_t seed) noexcept {
    auto* p = static_cast<const unsigned char*>(data);
    auto turned = [](std::uint32_t v, int by) { return v << by | v >> (32 - by); };
    auto mixed = [&](std::uint32_t k) { return turned(k * 0xcc9e2d51u, 15) * 0x1b873593u; };
    std::uint32_t h = seed;
    for (std::size_t i = 0; i + 4 <= n; i += 4) {
        std::uint32_t k;
        std::memcpy(&k, p + i, 4);
        h = turned(h ^ mixed(k), 13) * 5 + 0xe6546b64u;
    }
    if (n % 4) {
        std::uint32_t k = 0;
        std::memcpy(&k, p + n / 4 * 4, n % 4);
        h ^= mixed(k);
    }
    h ^= static_cast<std::uint32_t>(n);
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}
/// x of strings or of numbers of 32 or 64 bits -> the hash of each one's bytes.
class Hash final : public Kernel {
public:
    explicit Hash(std::uint32_t seed) : seed_(seed) {}
    const char* name() const noexcept override { return "murmur_hash.portable"; }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        auto* y = call.out[0].out<std::uint32_t>();
        const std::size_t size = static_cast<std::size_t>(dtype_bits(x.dtype)) / 8;
        call.workers.ranges(x.count(), 4096, [&](std::int64_t b, std::int64_t e) {
            for (; b < e; ++b) {
                if (x.dtype == DType::string) y[b] = murmur3(x.in<std::string>()[b].data(), x.in<std::string>()[b].size(), seed_);
                else y[b] = murmur3(x.in<std::byte>() + static_cast<std::size_t>(b) * size, size, seed_);
            }
        });
    }

private:
    std::uint32_t seed_;
};

}  // namespace text
QUERN_END
