#pragma once
#include <algorithm>

#include "dim.hpp"

QUERN_BEGIN

struct Dim::Atom {
    enum Kind : std::uint8_t { sym, div, cdiv, tdiv, mod, min, max, bcast, mul, add } kind;
    std::string key;
    Dim a, b;
    int depth = 1;  // of atoms in atoms
};
struct Dim::Poly {
    struct Term {
        std::int64_t coeff;
        std::vector<std::shared_ptr<const Atom>> atoms;  // sorted by key, repeated for powers
    };
    std::vector<Term> terms;  // sorted by atoms' keys; the constant first
    std::string key;
    int depth = 0;
};

/// The algebra behind Dim: everything works on polynomials with 128-bit checks against overflow.
struct DimOps {
    using Poly = Dim::Poly;
    using Atom = Dim::Atom;
    using Term = Poly::Term;

    static std::int64_t checked(__int128 v) {
        if (v > INT64_MAX || v < INT64_MIN) raise(ErrorCode::invalid_model, "a dimension overflows 64 bits");
        return static_cast<std::int64_t>(v);
    }
    /// Formulas may double with each node of a chain, and whoever walks through one recurses.
    static constexpr std::size_t longest = 65536, longest_product = 4096;
    static constexpr int deepest = 256;
    static void check(std::size_t length, int depth) {
        if (length > longest || depth > deepest)
            raise(ErrorCode::unsupported, "a size is a formula of " + std::to_string(length) + " characters, " + std::to_string(depth) + " levels deep; accepted: up to " +
                                              std::to_string(longest) + " and " + std::to_string(deepest));
    }
    static int depth(const Dim& d) { return d.p_ ? d.p_->depth : 0; }
    static std::string key_of(const Term& t) {
        std::string s;
        for (auto& a : t.atoms) s += (s.empty() ? "" : "*") + a->key;
        return s;
    }
    static std::vector<Term> terms(const Dim& d) {
        if (d.p_) return d.p_->terms;
        if (d.c_ == 0) return {};
        return {Term{d.c_, {}}};
    }
    static Dim make(std::vector<Term> ts) {
        std::vector<std::pair<std::string, Term>> keyed;
        for (auto& t : ts) keyed.emplace_back(key_of(t), std::move(t));
        std::stable_sort(keyed.begin(), keyed.end(), [](auto& x, auto& y) { return x.first < y.first; });
        std::vector<Term> out;
        std::vector<std::string> keys;
        for (auto& [k, t] : keyed) {
            if (!out.empty() && keys.back() == k) out.back().coeff = checked(static_cast<__int128>(out.back().coeff) + t.coeff);
            else { out.push_back(std::move(t)); keys.push_back(k); }
        }
        auto p = std::make_shared<Poly>();
        for (std::size_t i = 0; i < out.size(); ++i) {
            if (out[i].coeff == 0) continue;
            std::string s = keys[i].empty() ? std::to_string(out[i].coeff)
                            : out[i].coeff == 1 ? keys[i]
                            : out[i].coeff == -1 ? "-" + keys[i]
                                                 : std::to_string(out[i].coeff) + "*" + keys[i];
            p->key += (p->terms.empty() || s[0] == '-' ? "" : "+") + s;
            for (auto& a : out[i].atoms) p->depth = std::max(p->depth, a->depth);
            check(p->key.size(), p->depth);
            p->terms.push_back(std::move(out[i]));
        }
        if (p->terms.empty()) return Dim(0);
        if (p->terms.size() == 1 && p->terms[0].atoms.empty()) return Dim(p->terms[0].coeff);
        return Dim(std::shared_ptr<const Poly>(std::move(p)));
    }
    static Dim atom(Atom a) {
        auto p = std::make_shared<const Atom>(std::move(a));
        return make({Term{1, {p}}});
    }
    static Dim binary(Atom::Kind k, const char* name, const Dim& a, const Dim& b) {
        return atom(Atom{k, std::string(name) + "(" + a.to_string() + "," + b.to_string() + ")", a, b, 1 + std::max(depth(a), depth(b))});
    }
    static Dim product(const Dim& a, const Dim& b) {
        // Opaque beyond 64 terms or longest_product: still computed, no longer simplified.
        const std::size_t na = terms(a).size(), nb = terms(b).size();
        if (na * nb > 64 || (na * nb > 1 && nb * a.to_string().size() + na * b.to_string().size() > longest_product)) return binary(Atom::mul, "mul", a, b);
        std::vector<Term> out;
        for (auto& x : terms(a))
            for (auto& y : terms(b)) {
                Term t{checked(static_cast<__int128>(x.coeff) * y.coeff), x.atoms};
                t.atoms.insert(t.atoms.end(), y.atoms.begin(), y.atoms.end());
                std::sort(t.atoms.begin(), t.atoms.end(), [](auto& p, auto& q) { return p->key < q->key; });
                out.push_back(std::move(t));
            }
        return make(std::move(out));
    }
    /// a / b where b is one term and divides every term of a; also a == k * b.
    static bool exact(const Dim& a, const Dim& b, Dim& q) {
        auto tb = terms(b);
        auto ta = terms(a);
        if (tb.empty()) return false;
        if (tb.size() == 1) {
            std::vector<Term> out;
            for (auto& t : ta) {
                const __int128 n = t.coeff, by = tb[0].coeff;
                if (n % by) return false;
                Term r{checked(n / by), t.atoms};
                for (auto& f : tb[0].atoms) {
                    auto it = std::find_if(r.atoms.begin(), r.atoms.end(), [&](auto& x) { return x->key == f->key; });
                    if (it == r.atoms.end()) return false;
                    r.atoms.erase(it);
                }
                out.push_back(std::move(r));
            }
            q = make(std::move(out));
            return true;
        }
        // b has several terms: long division by leading terms (highest degree first).
        auto lead = [](const std::vector<Term>& ts) {
            return *std::max_element(ts.begin(), ts.end(), [](const Term& x, const Term& y) {
                return x.atoms.size() != y.atoms.size() ? x.atoms.size() < y.atoms.size() : key_of(x) < key_of(y);
            });
        };
        Dim rest = a, sum = 0;
        for (int step = 0; step < 16 && !rest.is(0); ++step) {
            Dim part;
            if (!exact(make({lead(terms(rest))}), make({lead(tb)}), part)) return false;
            sum = sum + part;
            rest = rest - part * b;
        }
        q = sum;
        return rest.is(0);
    }
    static bool all_nonneg(const Dim& d) {
        if (!d.p_) return d.c_ >= 0;
        for (auto& t : d.p_->terms) {
            if (t.coeff < 0) return false;
            for (auto& a : t.atoms)
                if (!nonneg(*a)) return false;
        }
        return true;
    }
    static bool nonneg(const Atom& a) {
        switch (a.kind) {
            case Atom::sym: return true;
            case Atom::mod: return a.b.nonnegative();
            case Atom::max: return all_nonneg(a.a) || all_nonneg(a.b);
            default: return all_nonneg(a.a) && all_nonneg(a.b);
        }
    }
    static const Poly* poly(const Dim& d) { return d.p_.get(); }
};

QUERN_INLINE Dim Dim::symbol(std::string name) {
    return DimOps::atom(Atom{Atom::sym, std::move(name), 0, 0, 1});
}
QUERN_INLINE std::string Dim::to_string() const { return p_ ? p_->key : std::to_string(c_); }
QUERN_INLINE bool Dim::is_polynomial() const noexcept { return DimOps::depth(*this) <= 1; }
QUERN_INLINE bool Dim::nonnegative() const noexcept { return DimOps::all_nonneg(*this); }
QUERN_INLINE bool Dim::positive() const noexcept {
    if (!p_) return c_ > 0;
    auto& t = p_->terms[0];
    return nonnegative() && t.atoms.empty() && t.coeff > 0;
}
QUERN_INLINE Dim operator+(const Dim& a, const Dim& b) {
    if (!a.p_ && !b.p_) return DimOps::checked(static_cast<__int128>(a.c_) + b.c_);
    auto t = DimOps::terms(a), u = DimOps::terms(b);
    if (t.size() + u.size() > 128) return DimOps::binary(Dim::Atom::add, "add", a, b);
    t.insert(t.end(), u.begin(), u.end());
    return DimOps::make(std::move(t));
}
QUERN_INLINE Dim operator-(const Dim& a, const Dim& b) { return a + Dim(-1) * b; }
QUERN_INLINE Dim operator*(const Dim& a, const Dim& b) {
    if (!a.p_ && !b.p_) return DimOps::checked(static_cast<__int128>(a.c_) * b.c_);
    if (a.is(1)) return b;
    if (b.is(1)) return a;
    return DimOps::product(a, b);
}
QUERN_INLINE bool operator==(const Dim& a, const Dim& b) noexcept {
    if (!a.p_ || !b.p_) return !a.p_ && !b.p_ && a.c_ == b.c_;
    return a.p_ == b.p_ || a.p_->key == b.p_->key;
}
namespace detail {
inline __int128 fdiv(__int128 a, __int128 b) { return a / b - ((a % b != 0) && ((a < 0) != (b < 0))); }
/// The quotients and the remainder of two numbers, b != 0; the lowest number by -1 overflows.
inline std::int64_t quotient(std::int64_t a, std::int64_t b) { return DimOps::checked(fdiv(a, b)); }
inline std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return DimOps::checked(-fdiv(-static_cast<__int128>(a), b)); }
inline std::int64_t quotient_cut(std::int64_t a, std::int64_t b) { return DimOps::checked(static_cast<__int128>(a) / b); }
inline std::int64_t remainder(std::int64_t a, std::int64_t b) { return DimOps::checked(a - b * fdiv(a, b)); }
}  // namespace detail
QUERN_INLINE Dim floor_div(const Dim& a, const Dim& b) {
    if (b.is(0)) raise(ErrorCode::shape_mismatch, "division by zero in a dimension");
    if (a.is_const() && b.is_const()) return detail::quotient(a.value(), b.value());
    Dim q;
    if (DimOps::exact(a, b, q)) return q;
    return DimOps::binary(Dim::Atom::div, "floordiv", a, b);
}
QUERN_INLINE Dim ceil_div(const Dim& a, const Dim& b) {
    if (b.is(0)) raise(ErrorCode::shape_mismatch, "division by zero in a dimension");
    if (a.is_const() && b.is_const()) return detail::quotient_up(a.value(), b.value());
    Dim q;
    if (DimOps::exact(a, b, q)) return q;
    return DimOps::binary(Dim::Atom::cdiv, "ceildiv", a, b);
}
QUERN_INLINE Dim trunc_div(const Dim& a, const Dim& b) {
    if (b.is(0)) raise(ErrorCode::shape_mismatch, "division by zero in a dimension");
    if (a.is_const() && b.is_const()) return detail::quotient_cut(a.value(), b.value());
    if (a.nonnegative() && b.nonnegative()) return floor_div(a, b);
    Dim q;
    if (DimOps::exact(a, b, q)) return q;
    return DimOps::binary(Dim::Atom::tdiv, "truncdiv", a, b);
}
QUERN_INLINE Dim floor_mod(const Dim& a, const Dim& b) {
    if (b.is(0)) raise(ErrorCode::shape_mismatch, "division by zero in a dimension");
    if (a.is_const() && b.is_const()) return detail::remainder(a.value(), b.value());
    Dim q;
    if (DimOps::exact(a, b, q)) return 0;
    return DimOps::binary(Dim::Atom::mod, "mod", a, b);
}
QUERN_INLINE int compare(const Dim& a, const Dim& b) {
    Dim d = a - b;
    if (d.is_const()) return d.value() < 0 ? -1 : d.value() > 0;
    if (d.positive()) return 1;
    if ((b - a).positive()) return -1;
    return 2;
}
QUERN_INLINE Dim min(const Dim& a, const Dim& b) {
    Dim d = a - b;
    if (d.nonnegative()) return b;
    if ((b - a).nonnegative()) return a;
    return DimOps::binary(Dim::Atom::min, "min", a, b);
}
QUERN_INLINE Dim max(const Dim& a, const Dim& b) {
    Dim d = a - b;
    if (d.nonnegative()) return a;
    if ((b - a).nonnegative()) return b;
    return DimOps::binary(Dim::Atom::max, "max", a, b);
}
QUERN_INLINE Dim broadcast(const Dim& a, const Dim& b) {
    if (a == b || b.is(1)) return a;
    if (a.is(1)) return b;
    if (a.is_const() && b.is_const())
        raise(ErrorCode::shape_mismatch, "dimensions " + a.to_string() + " and " + b.to_string() + " do not broadcast");
    if (a.is_const()) return a;  // > 1 (or 0), so the symbol must be 1 or the same
    if (b.is_const()) return b;
    return a.to_string() < b.to_string() ? DimOps::binary(Dim::Atom::bcast, "broadcast", a, b)
                                         : DimOps::binary(Dim::Atom::bcast, "broadcast", b, a);
}

QUERN_INLINE int DimProgram::find(const std::string& key) const {
    auto it = std::lower_bound(keys_.begin(), keys_.end(), key, [](auto& e, const std::string& k) { return e.first < k; });
    return it != keys_.end() && it->first == key ? it->second : -1;
}
QUERN_INLINE int DimProgram::symbol_slot(std::string_view name) const noexcept {
    for (auto& [n, s] : symbols_)
        if (n == name) return s;
    return -1;
}
QUERN_INLINE int DimProgram::add_atom(const Dim::Atom& a) {
    std::string key = "@" + a.key;
    if (int s = find(key); s >= 0) return s;
    Code c{Op::symbol, -1, -1, 0, {}};
    if (a.kind != Dim::Atom::sym) {
        c.a = add(a.a);
        c.b = add(a.b);
        static constexpr Op ops[] = {Op::symbol, Op::div, Op::cdiv, Op::tdiv, Op::mod, Op::min, Op::max, Op::bcast, Op::mul, Op::add};
        c.op = ops[a.kind];
    }
    int slot = size();
    code_.push_back(std::move(c));
    if (a.kind == Dim::Atom::sym) symbols_.emplace_back(a.key, slot);
    keys_.insert(std::lower_bound(keys_.begin(), keys_.end(), std::pair<std::string, int>(key, -1)), {key, slot});
    return slot;
}
QUERN_INLINE int DimProgram::add(const Dim& d) {
    const auto* p = DimOps::poly(d);
    if (p && p->terms.size() == 1 && p->terms[0].coeff == 1 && p->terms[0].atoms.size() == 1) return add_atom(*p->terms[0].atoms[0]);
    std::string key = d.to_string();
    if (int s = find(key); s >= 0) return s;
    Code c{Op::constant, -1, -1, 0, {}};
    if (!p) c.c = d.value();
    else {
        c.op = Op::poly;
        for (auto& t : p->terms) {
            Term u{t.coeff, {}};
            for (auto& a : t.atoms) u.atoms.push_back(add_atom(*a));
            c.terms.push_back(std::move(u));
        }
    }
    int slot = size();
    code_.push_back(std::move(c));
    keys_.insert(std::lower_bound(keys_.begin(), keys_.end(), std::pair<std::string, int>(key, -1)), {key, slot});
    return slot;
}
QUERN_INLINE void DimProgram::mark_known(std::vector<char>& known) const {
    known.resize(code_.size(), 0);
    for (int i = 0; i < size(); ++i) {
        const Code& c = code_[i];
        if (c.op == Op::symbol) continue;
        bool k = (c.a < 0 || known[c.a]) && (c.b < 0 || known[c.b]);
        for (auto& t : c.terms)
            for (int a : t.atoms) k = k && known[a];
        known[i] = k;
    }
}
QUERN_INLINE void DimProgram::evaluate(std::int64_t* v, int from, int to) const {
    for (int i = from; i < to; ++i) {
        const Code& c = code_[i];
        if (c.op == Op::constant) { v[i] = c.c; continue; }
        if (c.op == Op::symbol) continue;
        if (c.op == Op::poly) {
            __int128 sum = 0;
            bool known = true;
            for (auto& t : c.terms) {
                __int128 x = t.coeff;
                for (int a : t.atoms) {
                    if (v[a] == unknown) known = false;
                    else x = DimOps::checked(x * v[a]);
                }
                if (!known) break;
                sum += x;
            }
            v[i] = known ? DimOps::checked(sum) : unknown;
            continue;
        }
        std::int64_t a = v[c.a], b = v[c.b];
        if (a == unknown || b == unknown) { v[i] = unknown; continue; }
        if (b == 0 && (c.op == Op::div || c.op == Op::cdiv || c.op == Op::tdiv || c.op == Op::mod))
            raise(ErrorCode::shape_mismatch, "division by zero in a dimension");
        switch (c.op) {
            case Op::div: v[i] = detail::quotient(a, b); break;
            case Op::cdiv: v[i] = detail::quotient_up(a, b); break;
            case Op::tdiv: v[i] = detail::quotient_cut(a, b); break;
            case Op::mod: v[i] = detail::remainder(a, b); break;
            case Op::min: v[i] = a < b ? a : b; break;
            case Op::max: v[i] = a > b ? a : b; break;
            case Op::mul: v[i] = DimOps::checked(static_cast<__int128>(a) * b); break;
            case Op::add: v[i] = DimOps::checked(static_cast<__int128>(a) + b); break;
            default:
                if (a != b && a != 1 && b != 1)
                    raise(ErrorCode::shape_mismatch, "dimensions " + std::to_string(a) + " and " + std::to_string(b) + " do not broadcast");
                v[i] = a == 1 ? b : a;
        }
    }
}

QUERN_END
