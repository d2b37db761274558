// Regular expressions in RE2's syntax (https://github.com/google/re2/wiki/Syntax): full matches, and the first and longest one in a text. The time of
// each is linear in the text, whatever the expression, and bounded.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <quern/error.hpp>

QUERN_BEGIN
namespace text {

/// The next code point of UTF-8 at s[i]; a byte that is none stands for itself.
inline std::uint32_t next_code_point(std::string_view s, std::size_t& i) {
    auto byte = [&](std::size_t k) { return k < s.size() ? static_cast<unsigned char>(s[k]) : 0u; };
    std::uint32_t c = byte(i);
    int more = c >= 0xf0 && c < 0xf8 ? 3 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xc0 && c < 0xe0 ? 1 : 0;
    std::uint32_t v = more == 3 ? c & 7u : more == 2 ? c & 15u : c & 31u;
    for (int k = 1; k <= more; ++k) {
        if ((byte(i + static_cast<std::size_t>(k)) & 0xc0u) != 0x80u) { more = 0; break; }
        v = v << 6 | (byte(i + static_cast<std::size_t>(k)) & 0x3fu);
    }
    i += static_cast<std::size_t>(more) + 1;
    return more ? v : c;
}

class Regex {
public:
    /// Raises invalid_model for a malformed expression, unsupported for one beyond the limits.
    explicit Regex(std::string pattern) : pattern_(std::move(pattern)) {
        int root = alternatives();
        if (at_ < pattern_.size()) bad("an unexpected ')'");
        emit(root);
        add({Op::match, 0, 0});
    }
    /// States that may be visited over a text. Expressions of many states, or of many matches that each look far ahead, are given up beyond: unsupported.
    static std::size_t budget(std::string_view s) noexcept { return (std::size_t{1} << 24) + 2048 * s.size(); }
    bool matches(std::string_view s) const {
        std::size_t left = budget(s);
        std::vector<int> now, next;
        std::vector<std::uint32_t> seen(code_.size(), 0);
        std::uint32_t mark = 1, before = 0;
        std::size_t i = 0;
        follow(0, s, i, before, now, seen, mark, left);
        while (i < s.size()) {
            if (now.empty()) return false;
            std::uint32_t c = next_code_point(s, i);
            ++mark;
            next.clear();
            for (int pc : now)
                if (code_[pc].op == Op::set && holds(sets_[code_[pc].a], c)) follow(pc + 1, s, i, c, next, seen, mark, left);
            now.swap(next);
        }
        for (int pc : now)
            if (code_[pc].op == Op::match) return true;
        return false;
    }
    /// The match in s that begins first at or after `from`, the longest of these: [begin, end). What stands before `from` counts for ^ and \b.
    bool find(std::string_view s, std::size_t from, std::size_t& begin, std::size_t& end) const {
        std::size_t left = budget(s);
        return find(s, from, begin, end, left);
    }
    /// `left`: of budget(), for all matches in a text.
    bool find(std::string_view s, std::size_t from, std::size_t& begin, std::size_t& end, std::size_t& left) const {
        spend(left, code_.size() / 16);
        std::vector<std::pair<int, std::size_t>> now, next;  // states and where their match began, in the order of these
        std::vector<int> reached;
        std::vector<std::uint32_t> seen(code_.size(), 0);
        std::uint32_t mark = 1, before = from > 0 ? static_cast<unsigned char>(s[from - 1]) : 0;
        bool found = false;
        auto enter = [&](int pc, std::size_t start, std::size_t i, std::vector<std::pair<int, std::size_t>>& to) {
            reached.clear();
            follow(pc, s, i, before, reached, seen, mark, left);
            for (int r : reached) to.emplace_back(r, start);
        };
        for (std::size_t i = from;;) {
            if (!found) enter(0, i, i, now);
            for (auto& [pc, start] : now)
                if (code_[static_cast<std::size_t>(pc)].op == Op::match && (!found || start <= begin)) found = true, begin = start, end = i;
            if (i >= s.size()) return found;
            before = next_code_point(s, i);
            ++mark;
            next.clear();
            for (auto& [pc, start] : now)
                if (const Code& c = code_[static_cast<std::size_t>(pc)]; c.op == Op::set && (!found || start <= begin) && holds(sets_[static_cast<std::size_t>(c.a)], before)) enter(pc + 1, start, i, next);
            now.swap(next);
            if (found && now.empty()) return true;
        }
    }

private:
    enum class Op : std::uint8_t { set, split, jump, begin, end, begin_line, end_line, word, not_word, match };
    struct Code { Op op; int a, b; };
    struct Set {
        std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges;
        bool negated = false;
    };
    enum class Kind : std::uint8_t { empty, set, assertion, sequence, either, repeat };
    struct Part { Kind kind; int a = 0, min = 0, max = 0; std::vector<int> of; };
    static constexpr std::uint32_t last = 0x10ffff;
    static constexpr std::size_t largest = 200000;

    [[noreturn]] void bad(const std::string& why) const { raise(ErrorCode::invalid_model, "the pattern '" + pattern_ + "' has " + why); }
    [[noreturn]] void beyond(const std::string& why) const { raise(ErrorCode::unsupported, "the pattern '" + pattern_ + "' has " + why); }

    static bool holds(const Set& s, std::uint32_t c) {
        for (auto& [lo, hi] : s.ranges)
            if (c >= lo && c <= hi) return !s.negated;
        return s.negated;
    }
    static bool word(std::uint32_t c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
    void spend(std::size_t& left, std::size_t n) const {
        if (n > left) beyond("too many states to be looked for in a text of this length");
        left -= n;
    }
    /// Adds the states that pc leads to without reading.
    void follow(int from, std::string_view s, std::size_t i, std::uint32_t before, std::vector<int>& out, std::vector<std::uint32_t>& seen, std::uint32_t mark, std::size_t& left) const {
        std::vector<int> stack = {from};
        while (!stack.empty()) {
            int pc = stack.back();
            stack.pop_back();
            spend(left, 1);
            if (seen[pc] == mark) continue;
            seen[pc] = mark;
            const Code& c = code_[pc];
            auto go_if = [&](bool ok) { if (ok) stack.push_back(pc + 1); };
            std::size_t ahead = i;
            bool w0 = i > 0 && word(before), w1 = i < s.size() && word(next_code_point(s, ahead));
            switch (c.op) {
                case Op::jump: stack.push_back(c.a); break;
                case Op::split: stack.push_back(c.a); stack.push_back(c.b); break;
                case Op::begin: go_if(i == 0); break;
                case Op::end: go_if(i == s.size()); break;
                case Op::begin_line: go_if(i == 0 || before == '\n'); break;
                case Op::end_line: go_if(i == s.size() || s[i] == '\n'); break;
                case Op::word: go_if(w0 != w1); break;
                case Op::not_word: go_if(w0 == w1); break;
                default: out.push_back(pc);
            }
        }
    }

    int part(Part p) {
        parts_.push_back(std::move(p));
        if (parts_.size() > largest) beyond("too many parts");
        return static_cast<int>(parts_.size()) - 1;
    }
    bool more() const { return at_ < pattern_.size(); }
    bool accept(std::string_view t) {
        if (std::string_view(pattern_).substr(at_, t.size()) != t) return false;
        at_ += t.size();
        return true;
    }
    int alternatives() {
        if (++depth_ > 200) beyond("groups nested more than 200 deep");
        const bool fold = fold_, multi = multi_, dot = dot_, lazy = lazy_;
        Part p{Kind::either};
        do p.of.push_back(sequence());
        while (accept("|"));
        fold_ = fold, multi_ = multi, dot_ = dot, lazy_ = lazy;
        --depth_;
        return p.of.size() == 1 ? p.of[0] : part(std::move(p));
    }
    int sequence() {
        Part p{Kind::sequence};
        while (more() && pattern_[at_] != '|' && pattern_[at_] != ')') p.of.push_back(repeated());
        return part(std::move(p));
    }
    int repeated() {
        int p = atom();
        for (bool again = false;; again = true) {
            int lo, hi;
            if (accept("*")) lo = 0, hi = -1;
            else if (accept("+")) lo = 1, hi = -1;
            else if (accept("?")) lo = 0, hi = 1;
            else if (!counted(lo, hi)) return p;
            if (again) bad("a repetition of a repetition; a group is needed between");
            accept("?");  // greediness does not change whether the whole text matches
            Part r{Kind::repeat, p, lo, hi};
            p = part(std::move(r));
        }
    }
    /// {n}, {n,}, {n,m}; anything else in braces is literal.
    bool counted(int& lo, int& hi) {
        std::size_t back = at_;
        auto number = [&](int& v) {
            if (!more() || pattern_[at_] < '0' || pattern_[at_] > '9') return false;
            for (v = 0; more() && pattern_[at_] >= '0' && pattern_[at_] <= '9'; ++at_) {
                v = v * 10 + (pattern_[at_] - '0');
                if (v > 1000) beyond("a repetition of more than 1000");
            }
            return true;
        };
        if (accept("{") && number(lo)) {
            hi = lo;
            if (accept(",") && !number(hi)) hi = -1;
            if (accept("}")) {
                if (hi >= 0 && hi < lo) bad("a repetition {" + std::to_string(lo) + "," + std::to_string(hi) + "}");
                return true;
            }
        }
        at_ = back;
        return false;
    }
    int assertion(Op op) { return part(Part{Kind::assertion, static_cast<int>(op)}); }
    int set(Set s) {
        if (fold_) {
            std::size_t n = s.ranges.size();
            for (std::size_t k = 0; k < n; ++k)
                for (std::uint32_t c = 'a'; c <= 'z'; ++c) {
                    auto [lo, hi] = s.ranges[k];
                    if (c >= lo && c <= hi) s.ranges.push_back({c - 32, c - 32});
                    if (c - 32 >= lo && c - 32 <= hi) s.ranges.push_back({c, c});
                }
        }
        sets_.push_back(std::move(s));
        return part(Part{Kind::set, static_cast<int>(sets_.size()) - 1});
    }
    int atom() {
        if (accept("(")) return group();
        if (accept("[")) return set(bracket());
        if (accept("^")) return assertion(multi_ ? Op::begin_line : Op::begin);
        if (accept("$")) return assertion(multi_ ? Op::end_line : Op::end);
        if (accept(".")) return set(dot_ ? Set{{{0, last}}, false} : Set{{{'\n', '\n'}}, true});
        if (accept("\\")) {
            if (accept("A")) return assertion(Op::begin);
            if (accept("z")) return assertion(Op::end);
            if (accept("b")) return assertion(Op::word);
            if (accept("B")) return assertion(Op::not_word);
            if (accept("Q")) return quoted();
            Set s;
            escape(s);
            return set(std::move(s));
        }
        char c = pattern_[at_];
        if (c == '*' || c == '+' || c == '?') bad(std::string("nothing before '") + c + "'");
        std::uint32_t u = next_code_point(pattern_, at_);
        return set({{{u, u}}, false});
    }
    int quoted() {
        Part p{Kind::sequence};
        while (more() && !accept("\\E")) {
            std::uint32_t u = next_code_point(pattern_, at_);
            p.of.push_back(set({{{u, u}}, false}));
        }
        return part(std::move(p));
    }
    int group() {
        if (accept("?")) {
            if (accept("P<") || accept("<")) {
                std::size_t close = pattern_.find('>', at_);
                if (close == std::string::npos || close == at_) bad("a group without a name");
                at_ = close + 1;
            } else {
                const bool fold = fold_, multi = multi_, dot = dot_;
                bool on = true;
                for (;; ++at_) {
                    if (!more()) bad("an unfinished group");
                    char c = pattern_[at_];
                    if (c == '-') on = false;
                    else if (c == 'i') fold_ = on;
                    else if (c == 'm') multi_ = on;
                    else if (c == 's') dot_ = on;
                    else if (c == 'U') lazy_ = on;
                    else if (c == ':' || c == ')') break;
                    else bad(std::string("the group flag '") + c + "'; accepted: i, m, s, U (no look-around)");
                }
                if (pattern_[at_++] == ')') return part(Part{Kind::empty});  // flags stay until the enclosing group ends
                int p = alternatives();
                fold_ = fold, multi_ = multi, dot_ = dot;
                if (!accept(")")) bad("an unfinished group");
                return p;
            }
        }
        int p = alternatives();
        if (!accept(")")) bad("an unfinished group");
        return p;
    }
    static void classes(Set& s, char c) {
        static constexpr std::pair<std::uint32_t, std::uint32_t> digits[] = {{'0', '9'}}, words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                                                                 blanks[] = {{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}};
        auto add = [&](const auto& table, bool negated) {
            std::uint32_t from = 0;
            for (auto& [lo, hi] : table) {
                if (!negated) s.ranges.push_back({lo, hi});
                else if (lo > from) s.ranges.push_back({from, lo - 1});
                from = hi + 1;
            }
            if (negated) s.ranges.push_back({from, last});
        };
        if (c == 'd' || c == 'D') add(digits, c == 'D');
        if (c == 'w' || c == 'W') add(words, c == 'W');
        if (c == 's' || c == 'S') add(blanks, c == 'S');
    }
    /// What follows a backslash, inside and outside of brackets; true where it is one character.
    bool escape(Set& s) {
        if (!more()) bad("a backslash at the end");
        char c = pattern_[at_];
        if (std::string_view("dDwWsS").find(c) != std::string_view::npos) {
            ++at_;
            classes(s, c);
            return false;
        }
        std::uint32_t u;
        if (c == 'x') {
            ++at_;
            bool braces = accept("{");
            u = 0;
            int n = 0;
            for (; more() && n < (braces ? 6 : 2); ++n, ++at_) {
                char h = pattern_[at_];
                int v = h >= '0' && h <= '9' ? h - '0' : h >= 'a' && h <= 'f' ? h - 'a' + 10 : h >= 'A' && h <= 'F' ? h - 'A' + 10 : -1;
                if (v < 0) break;
                u = u * 16 + static_cast<std::uint32_t>(v);
            }
            if (n == 0 || (braces ? !accept("}") : n != 2)) bad("an unfinished \\x");
        } else if (constexpr std::string_view names = "nrtfva", codes = "\n\r\t\f\v\a"; names.find(c) != std::string_view::npos) {
            ++at_;
            u = static_cast<unsigned char>(codes[names.find(c)]);
        } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
            beyond(std::string("the escape \\") + c);
        } else u = next_code_point(pattern_, at_);
        s.ranges.push_back({u, u});
        return true;
    }
    Set bracket() {
        Set s;
        s.negated = accept("^");
        for (bool first = true;; first = false) {
            if (!more()) bad("an unfinished '['");
            if (!first && accept("]")) return s;
            if (accept("[:")) {
                named(s);
                continue;
            }
            auto one = [&](Set& t) {
                if (accept("\\")) return escape(t);
                std::uint32_t u = next_code_point(pattern_, at_);
                t.ranges.push_back({u, u});
                return true;
            };
            bool single = one(s);
            if (single && at_ + 1 < pattern_.size() && pattern_[at_] == '-' && pattern_[at_ + 1] != ']') {
                ++at_;
                Set end;
                if (!one(end) || end.ranges[0].first < s.ranges.back().first) bad("a range that is not one");
                s.ranges.back().second = end.ranges[0].first;
            }
        }
    }
    void named(Set& s) {
        struct Name { const char* name; std::pair<std::uint32_t, std::uint32_t> r[4]; int n; };
        static constexpr Name names[] = {
            {"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}, 3}, {"alpha", {{'A', 'Z'}, {'a', 'z'}}, 2}, {"ascii", {{0, 127}}, 1}, {"blank", {{9, 9}, {32, 32}}, 2},
            {"cntrl", {{0, 31}, {127, 127}}, 2}, {"digit", {{'0', '9'}}, 1}, {"graph", {{33, 126}}, 1}, {"lower", {{'a', 'z'}}, 1}, {"print", {{32, 126}}, 1},
            {"punct", {{33, 47}, {58, 64}, {91, 96}, {123, 126}}, 4}, {"space", {{9, 13}, {32, 32}}, 2}, {"upper", {{'A', 'Z'}}, 1},
            {"word", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}}, 4}, {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}, 3}};
        for (auto& n : names)
            if (accept(std::string(n.name) + ":]")) {
                s.ranges.insert(s.ranges.end(), n.r, n.r + n.n);
                return;
            }
        bad("an unknown class '[:'");
    }

    int add(Code c) {
        code_.push_back(c);
        if (code_.size() > largest) beyond("more than 200000 states");
        return static_cast<int>(code_.size()) - 1;
    }
    int here() const { return static_cast<int>(code_.size()); }
    void emit(int id) {
        const Part p = parts_[id];
        if (++emitted_ > 5 * largest) beyond("too many repetitions");
        switch (p.kind) {
            case Kind::empty: break;
            case Kind::set: add({Op::set, p.a, 0}); break;
            case Kind::assertion: add({static_cast<Op>(p.a), 0, 0}); break;
            case Kind::sequence: for (int q : p.of) emit(q); break;
            case Kind::either: {
                std::vector<int> ends;
                for (std::size_t k = 0; k < p.of.size(); ++k) {
                    bool has_next = k + 1 < p.of.size();
                    int split = has_next ? add({Op::split, here() + 1, 0}) : -1;
                    emit(p.of[k]);
                    if (has_next) ends.push_back(add({Op::jump, 0, 0})), code_[split].b = here();
                }
                for (int e : ends) code_[e].a = here();
                break;
            }
            case Kind::repeat: {
                for (int k = 0; k < p.min; ++k) emit(p.a);
                if (p.max < 0) {
                    int split = add({Op::split, here() + 1, 0});
                    emit(p.a);
                    add({Op::jump, split, 0});
                    code_[split].b = here();
                } else {
                    std::vector<int> splits;
                    for (int k = p.min; k < p.max; ++k) {
                        splits.push_back(add({Op::split, here() + 1, 0}));
                        emit(p.a);
                    }
                    for (int s : splits) code_[s].b = here();
                }
                break;
            }
        }
    }

    std::string pattern_;
    std::size_t at_ = 0;
    int depth_ = 0;
    std::size_t emitted_ = 0;
    bool fold_ = false, multi_ = false, dot_ = false, lazy_ = false;
    std::vector<Part> parts_;
    std::vector<Set> sets_;
    std::vector<Code> code_;
};

}  // namespace text
QUERN_END
