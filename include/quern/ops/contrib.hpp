// Shorthand for operators that their import writes in terms of others: domain com.microsoft, as ONNX Runtime documents it
// (docs/ContribOperators.md).
#pragma once
#include "shape_util.hpp"

QUERN_BEGIN
namespace ops_contrib {

/// Builds nodes in their newest form.
struct Make {
    ImportCtx& c;
    using Set = std::initializer_list<std::pair<const char*, Attr>>;
    static constexpr std::int64_t largest = std::int64_t{1} << 48;

    static Attrs attrs(Set set) {
        Attrs a;
        for (auto& [name, value] : set) a.set(name, value);
        return a;
    }
    std::vector<ValueId> all(std::string_view op, std::vector<ValueId> in, Set set, int outputs) const {
        while (!in.empty() && in.back() == no_value) in.pop_back();
        return c.add(op, std::move(in), attrs(set), outputs);
    }
    ValueId op(std::string_view name, std::vector<ValueId> in, Set set = {}) const { return all(name, std::move(in), set, 1)[0]; }
    ValueId ints(std::vector<std::int64_t> v) const { return c.constant_ints(v); }
    /// A scalar of type t.
    ValueId number(DType t, double v) const { return c.constant(ops_util::scalar(t, v)); }
    DType type(ValueId v) const { return c.graph.fact(v).dtype; }
    ValueId input(std::size_t i) const { return c.has(i) ? c.in[i] : no_value; }
    ValueId need(std::size_t i) const { return c.fact(i), c.in[i]; }
    /// The rank of a value that an import can only read when it is known.
    int rank(ValueId v, const char* what) const {
        const Fact& f = c.graph.fact(v);
        if (!f.ranked) c.unsupported(std::string(what) + " has no known rank when loading");
        return f.rank();
    }
    /// A value's rank, which must lie within [least, most].
    int rank(ValueId v, const char* what, int least, int most = 64) const {
        int r = rank(v, what);
        if (r < least || r > most)
            c.invalid(std::string(what) + " is " + c.graph.fact(v).to_string() + "; accepted: rank " + std::to_string(least) + (most == least ? "" : most == 64 ? " and more" : " to " + std::to_string(most)));
        return r;
    }
    /// Dimension d >= 0, which must be a number; sums and small multiples of it stay in 64 bits.
    std::int64_t dim(ValueId v, int d, const char* what) const {
        rank(v, what, d + 1);
        const Dim& x = c.graph.fact(v).dims[static_cast<std::size_t>(d)];
        if (!x.is_const() || x.value() > largest)
            c.unsupported(std::string(what) + " is " + c.graph.fact(v).to_string() + "; its dimension " + std::to_string(d) + " must be known when loading, up to 2^48");
        return x.value();
    }
    ValueId cast(ValueId v, DType t) const { return type(v) == t ? v : op("Cast", {v}, {{"to", static_cast<std::int64_t>(t)}}); }
    ValueId like(ValueId v, ValueId other) const { return cast(v, type(other)); }
    /// Dimension d >= 0 as a list of one number.
    ValueId size(ValueId v, std::int64_t d) const { return op("Shape", {v}, {{"start", d}, {"end", d + 1}}); }
    ValueId transpose(ValueId v, std::vector<std::int64_t> perm) const { return op("Transpose", {v}, {{"perm", std::move(perm)}}); }
    ValueId reshape(ValueId v, std::vector<std::int64_t> to) const { return op("Reshape", {v, ints(std::move(to))}); }
    ValueId unsqueeze(ValueId v, std::vector<std::int64_t> axes) const { return op("Unsqueeze", {v, ints(std::move(axes))}); }
    ValueId squeeze(ValueId v, std::vector<std::int64_t> axes) const { return op("Squeeze", {v, ints(std::move(axes))}); }
    /// Index i along `axis`, which goes away.
    ValueId pick(ValueId v, std::int64_t i, std::int64_t axis) const { return op("Gather", {v, number(DType::i64, static_cast<double>(i))}, {{"axis", axis}}); }
    std::vector<ValueId> split(ValueId v, std::vector<std::int64_t> sizes, std::int64_t axis) const {
        int n = static_cast<int>(sizes.size());
        return all("Split", {v, ints(std::move(sizes))}, {{"axis", axis}}, n);
    }
    /// 0, 1, ... below `end`, a list of one number.
    ValueId count_to(ValueId end) const { return op("Range", {number(DType::i64, 0), squeeze(end, {0}), number(DType::i64, 1)}); }
    ValueId add_if(ValueId x, ValueId y) const { return y == no_value ? x : op("Add", {x, y}); }
    ValueId channels_first(ValueId v) const { return transpose(v, order(rank(v, "the input"), false)); }
    ValueId channels_last(ValueId v) const { return transpose(v, order(rank(v, "the input"), true)); }

private:
    static std::vector<std::int64_t> order(int rank, bool last) {
        std::vector<std::int64_t> p{0};
        if (!last) p.push_back(rank - 1);
        for (int d = last ? 2 : 1; d < rank - (last ? 0 : 1); ++d) p.push_back(d);
        if (last) p.push_back(1);
        return p;
    }
};

/// An operator that never leaves import.
constexpr OpDef imported(const char* domain, const char* name, int min_in, int max_in, void (*import)(ImportCtx&), int max_out = 1) {
    return OpDef{.domain = domain, .name = name, .min_in = min_in, .max_in = max_in, .max_out = max_out, .newest = 1, .import = import};
}
inline constexpr const char* microsoft = "com.microsoft";

}  // namespace ops_contrib
QUERN_END

/// op_<function>(): an operator that its import writes in terms of others.
#define QUERN_IMPORTED(function, ...)                                              \
    QUERN_INLINE const OpDef& op_##function() {                                    \
        static constexpr OpDef def = ops_contrib::imported(__VA_ARGS__);           \
        return def;                                                                \
    }
