// Symbolic dimensions: polynomials over named symbols and opaque quotients, in normal form.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "../error.hpp"

QUERN_BEGIN

/// An integer that may depend on symbols ("N", "seq"), which are assumed to be >= 0. Kept in normal form, so
/// equal expressions mostly compare equal; `==` false means "not known to be equal". Immutable, cheap to copy.
class QUERN_API Dim {
public:
    Dim(std::int64_t c = 0) : c_(c) {}
    static Dim symbol(std::string name);

    bool is_const() const noexcept { return !p_; }
    /// The number; only when is_const().
    std::int64_t value() const noexcept { return c_; }
    bool is(std::int64_t v) const noexcept { return !p_ && c_ == v; }
    std::string to_string() const;
    /// A number, or sums and products of symbols alone: no quotients, bounds or broadcasts.
    bool is_polynomial() const noexcept;
    /// Known to be >= 0 / >= 1 for all values of the symbols.
    bool nonnegative() const noexcept;
    bool positive() const noexcept;

    friend QUERN_API Dim operator+(const Dim&, const Dim&);
    friend QUERN_API Dim operator-(const Dim&, const Dim&);
    friend QUERN_API Dim operator*(const Dim&, const Dim&);
    friend QUERN_API bool operator==(const Dim&, const Dim&) noexcept;
    Dim& operator+=(const Dim& o) { return *this = *this + o; }
    Dim& operator*=(const Dim& o) { return *this = *this * o; }

    struct Atom;
    struct Poly;

private:
    friend struct DimOps;
    friend class DimProgram;
    explicit Dim(std::shared_ptr<const Poly> p) : p_(std::move(p)) {}
    std::int64_t c_ = 0;
    std::shared_ptr<const Poly> p_;
};

/// Floor division (exact where the polynomial divides), for b > 0.
QUERN_API Dim floor_div(const Dim& a, const Dim& b);
QUERN_API Dim ceil_div(const Dim& a, const Dim& b);
/// Quotient truncated toward zero, as ONNX's integer Div.
QUERN_API Dim trunc_div(const Dim& a, const Dim& b);
/// a - b * floor(a / b): the sign of b, as ONNX's integer Mod.
QUERN_API Dim floor_mod(const Dim& a, const Dim& b);
QUERN_API Dim min(const Dim& a, const Dim& b);
QUERN_API Dim max(const Dim& a, const Dim& b);
/// The broadcast of two dimensions: the other one where one is 1; an error at evaluation where they
/// differ otherwise.
QUERN_API Dim broadcast(const Dim& a, const Dim& b);

/// -1, 0, 1: a < b, a == b, a > b for all values of the symbols; 2: not known.
QUERN_API int compare(const Dim& a, const Dim& b);

/// Many Dims evaluated together: common parts once, no allocation per evaluation.
class QUERN_API DimProgram {
public:
    /// Adds an expression; returns its slot. Equal expressions share one.
    int add(const Dim& d);
    /// The slot of a symbol, or -1 if no expression names it.
    int symbol_slot(std::string_view name) const noexcept;
    int size() const noexcept { return static_cast<int>(code_.size()); }
    /// The symbols, each a slot that the caller fills in `values` before evaluate().
    const std::vector<std::pair<std::string, int>>& symbols() const noexcept { return symbols_; }
    /// Computes the slots [from, to) whose symbols are filled in; unknown symbols hold `unknown`, which spreads.
    /// Raises shape_mismatch when a broadcast does not fit.
    void evaluate(std::int64_t* values, int from, int to) const;
    static constexpr std::int64_t unknown = INT64_MIN;
    /// `known[slot]` is set for the symbols that are known; fills in the other slots.
    void mark_known(std::vector<char>& known) const;
    /// Whether the slot is a plain symbol.
    bool is_symbol(int slot) const noexcept { return code_[slot].op == Op::symbol; }

private:
    enum class Op : std::uint8_t { constant, symbol, poly, div, cdiv, tdiv, mod, min, max, bcast, mul, add };
    struct Term { std::int64_t coeff; std::vector<int> atoms; };
    struct Code { Op op; int a, b; std::int64_t c; std::vector<Term> terms; };
    int add_atom(const Dim::Atom&);
    std::vector<Code> code_;
    std::vector<std::pair<std::string, int>> keys_, symbols_;
    int find(const std::string& key) const;
};

QUERN_END
