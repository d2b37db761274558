// What the operators that move data share: content of small integer tensors, merging of dims, scalars.
#pragma once
#include <cstring>

#include "op.hpp"
#include <quern/base/saturate.hpp>
#include <quern/kernels/transpose/problem.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace ops_util {

/// Movement of input 0 (fill: of nothing) on a device, without what its kind needs besides.
inline movement::Problem movement_problem(const LowerCtx& ctx, movement::Problem::Kind kind) {
    movement::Problem p;
    p.kind = kind;
    p.dtype = ctx.out(0).dtype;
    p.rank = std::max(kind == movement::Problem::Kind::fill ? 0 : ctx.in(0).rank(), ctx.out(0).rank());
    return p;
}

/// Longest content that is followed in symbols.
inline constexpr std::size_t content_limit = 64;

inline bool content_type(DType t) { return is_integer(t) || t == DType::boolean; }

/// The same size on both sides: a number wins over a symbol; numbers that differ are an error.
inline Dim same_dim(const InferCtx& ctx, const Dim& a, const Dim& b, const char* what) {
    if (a.is_const() && b.is_const() && !(a == b))
        ctx.fail(std::string(what) + ": dimensions " + a.to_string() + " and " + b.to_string() + " must be equal");
    return a.is_const() ? a : b.is_const() ? b : a;
}
/// Content of output `o` if it fits there: rank 0 or 1 and an integer type.
inline void give_content(InferCtx& ctx, int o, std::vector<Dim> content) {
    const Fact& f = ctx.out(o);
    if (!f.ranked || f.rank() > 1 || !content_type(f.dtype) || content.size() > content_limit) return;
    if (f.rank() == 0 ? content.size() != 1 : !f.dims[0].is(static_cast<std::int64_t>(content.size()))) return;
    ctx.set_symbolic(o, std::move(content));
}
/// Output 0 has input 0's content under another shape.
inline void keep_content(InferCtx& ctx) {
    if (auto c = ctx.ints(0)) give_content(ctx, 0, std::move(*c));
}
/// `n` sizes that only data decides.
inline std::vector<Dim> fresh_dims(InferCtx& ctx, std::int64_t n, const char* stem) {
    if (n > 64) ctx.unsupported(std::to_string(n) + " dimensions; up to 64 are accepted");
    std::vector<Dim> d;
    for (std::int64_t i = 0; i < n; ++i) d.push_back(ctx.fresh(stem));
    return d;
}
/// Longest list of sizes, axes, scales and the like that is looked at.
inline constexpr std::int64_t longest_list = std::int64_t{1} << 20;
/// The number of elements of a one-dimensional input where known, else -1; at most longest_list.
inline std::int64_t length_of(const InferCtx& ctx, int i) {
    const Fact& f = ctx.in(i);
    if (!f.ranked) return -1;
    if (f.rank() == 0) return 1;
    if (f.rank() > 1) ctx.fail("input " + std::to_string(i) + " has rank " + std::to_string(f.rank()) + "; accepted: a list of numbers");
    if (!f.dims[0].is_const()) return -1;
    if (f.dims[0].value() > longest_list) ctx.unsupported("input " + std::to_string(i) + " is a list of " + f.dims[0].to_string() + " numbers; up to 2^20 are accepted");
    return f.dims[0].value();
}
inline Dim product(const std::vector<Dim>& d, std::size_t from = 0, std::size_t to = SIZE_MAX) {
    Dim p = 1;
    for (std::size_t i = from; i < d.size() && i < to; ++i) p *= d[i];
    return p;
}
inline bool equal_dims(const std::vector<Dim>& a, const std::vector<Dim>& b) {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i)
        if (!(a[i] == b[i])) return false;
    return true;
}
/// A scalar of a plain type. Integers saturate; NaN, of which they have none, becomes 0.
inline Tensor scalar(DType t, double v, Shape shape = {}) {
    Tensor r(t, std::move(shape));
    dispatch_plain(t, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (std::is_same_v<T, Half>) r.data<T>()[0] = to_half(static_cast<float>(v));
        else if constexpr (std::is_same_v<T, BFloat16>) r.data<T>()[0] = to_bfloat16(static_cast<float>(v));
        else r.data<T>()[0] = saturated<T>(v);
    });
    return r;
}
/// Element `i` of a constant of a plain type.
inline double value_at(const Tensor& t, std::int64_t i) {
    double v = 0;
    dispatch_plain(t.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        // As bytes: large constants lie where the file has them.
        std::conditional_t<std::is_same_v<T, bool>, std::uint8_t, T> x;
        std::memcpy(&x, static_cast<const std::byte*>(t.raw()) + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
        if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) v = to_float(x);
        else if constexpr (std::is_same_v<T, bool>) v = x != 0;
        else v = static_cast<double>(x);
    });
    return v;
}
/// What lower() returns for a kernel of type K.
template <class K, class... A> Lowered kernel(A&&... a) { return std::unique_ptr<Kernel>(std::make_unique<K>(std::forward<A>(a)...)); }
/// A type of at least 8 bits that holds what elements of under 8 bits do; undefined for other types.
constexpr DType whole_bytes(DType t) {
    if (dtype_bits(t) == 0 || dtype_bits(t) >= 8) return DType::undefined;
    return is_float(t) ? DType::f16 : t == DType::i4 || t == DType::i2 ? DType::i8 : DType::u8;
}
/// Movement of elements under 8 bits goes through whole bytes: casts the inputs of input 0's type, finishes with the operator and a cast
/// back. False, and nothing done, for other types.
inline bool import_through_bytes(ImportCtx& c, std::string_view op) {
    if (!c.has(0)) return false;
    const DType t = c.fact(0).dtype, wide = whole_bytes(t);
    if (wide == DType::undefined) return false;
    auto to = [](DType d) { Attrs a; a.set("to", static_cast<std::int64_t>(d)); return a; };
    std::vector<ValueId> in = c.in;
    for (ValueId& v : in)
        if (v != no_value && c.graph.fact(v).dtype == t) v = c.add("Cast", {v}, to(wide))[0];
    c.finish("Cast", {c.add(op, std::move(in), c.attrs)[0]}, to(t));
    return true;
}
/// Axes made non-negative and checked to be distinct.
inline std::vector<int> axes_of(const InferCtx& ctx, const std::vector<std::int64_t>& axes, int rank) {
    std::vector<int> r;
    for (std::int64_t a : axes) {
        int k = ctx.axis(a, rank);
        for (int o : r)
            if (o == k) raise(ErrorCode::invalid_model, "axis " + std::to_string(a) + " is given twice");
        r.push_back(k);
    }
    return r;
}

}  // namespace ops_util
QUERN_END
