// Reductions, each on its page: https://onnx.ai/onnx/operators/onnx__ReduceSum.html
#pragma once
#include <quern/kernels/reduce/problem.hpp>
#include <quern/kernels/reduce/reduce-inl.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_reduce {
using ops_elementwise::Types;

/// Axes were an attribute before opset 18 (ReduceSum: 13).
inline void import_axes(ImportCtx& c) {
    if (c.attrs.has("axes") && c.in.size() > 1) c.invalid("axes are both an attribute and an input");
    c.attr_to_input_ints("axes", 1);
}

/// The content of the sum, product, maximum or minimum of a known list.
inline void content(InferCtx& c, reduce::Op op) {
    if (c.out(0).rank() > 1 || !ops_elementwise::follows(c.in(0).dtype) || c.in(0).dtype == DType::boolean) return;
    auto v = c.ints(0);
    if (!v || v->empty() || v->size() > 64) return;
    if (!c.out(0).concrete() || c.out(0).shape().count() != 1) return;
    if (op != reduce::Op::sum && op != reduce::Op::prod && op != reduce::Op::max && op != reduce::Op::min) return;
    const std::optional<Dim> d = ops_elementwise::attempt([&]() -> std::optional<Dim> {
        Dim all = (*v)[0];
        for (std::size_t i = 1; i < v->size(); ++i) {
            const Dim& x = (*v)[i];
            all = op == reduce::Op::sum ? all + x : op == reduce::Op::prod ? all * x : op == reduce::Op::max ? max(all, x) : min(all, x);
        }
        return all;
    });
    if (d) c.set_symbolic(0, {*d});
}
inline void infer_reduction(InferCtx& c, reduce::Op op) {
    const DType t = c.in(0).dtype;
    if (!((op == reduce::Op::max || op == reduce::Op::min) && t == DType::boolean)) ops_elementwise::need(c, 0, Types::arith);
    if (!c.ranked(0)) return c.set_unranked(0, t);
    const int rank = c.in(0).rank();
    const bool keep = c.attrs.i("keepdims", 1) != 0, noop = c.attrs.i("noop_with_empty_axes", 0) != 0;
    std::vector<char> marked(static_cast<std::size_t>(rank), 0);
    auto axes = c.const_ints(1);
    if (c.has(1) && c.in(1).dtype != DType::i64) c.need_type(1, {DType::i64});
    if (c.has(1) && !axes) {
        const bool none = c.in(1).ranked && c.in(1).concrete() && c.in(1).shape().count() == 0;
        if (none) axes.emplace();
        else if (keep) {
            std::vector<Dim> d;
            for (int i = 0; i < rank; ++i) d.push_back(c.fresh("reduce"));
            return c.set(0, t, std::move(d));
        } else if (c.in(1).ranked && c.in(1).concrete() && c.in(1).rank() == 1 && c.in(1).shape().count() <= rank) {
            std::vector<Dim> d;
            for (int i = 0; i < rank - static_cast<int>(c.in(1).shape().count()); ++i) d.push_back(c.fresh("reduce"));
            return c.set(0, t, std::move(d));
        } else {
            return c.set_unranked(0, t);
        }
    }
    if (axes && !axes->empty())
        for (std::int64_t a : *axes) marked[static_cast<std::size_t>(c.axis(a, rank))] = 1;
    else std::fill(marked.begin(), marked.end(), static_cast<char>(!noop));
    std::vector<Dim> d;
    for (int i = 0; i < rank; ++i) {
        if (!marked[static_cast<std::size_t>(i)]) d.push_back(c.in(0).dims[static_cast<std::size_t>(i)]);
        else if (keep) d.push_back(Dim(1));
    }
    c.set(0, t, std::move(d));
    content(c, op);
}
template <reduce::Op op>
void infer(InferCtx& c) { infer_reduction(c, op); }
/// The device's side; `axis` for those that have one attribute, else the axes are input 1.
inline Lowered device(const LowerCtx& c, reduce::Problem::Kind kind, std::optional<std::int64_t> axis) {
    reduce::Problem p;
    p.kind = kind;
    p.dtype = c.in(0).dtype;
    p.rank = c.in(0).rank();
    std::vector<std::int64_t> listed;
    if (axis) listed.push_back(*axis);
    else if (c.has(1)) {
        const Tensor t = c.constant(1);
        auto known = t.defined() ? detail::small_ints(t) : std::nullopt;
        p.axes_known = known.has_value();
        if (known) listed = *known;
    }
    for (std::int64_t a : listed) p.axes.push_back(static_cast<int>(a < 0 ? a + p.rank : a));
    if (listed.empty() && c.attrs.i("noop_with_empty_axes", 0) == 0)
        for (int i = 0; i < p.rank; ++i) p.axes.push_back(i);
    std::sort(p.axes.begin(), p.axes.end());
    p.axes.erase(std::unique(p.axes.begin(), p.axes.end()), p.axes.end());
    p.last = c.attrs.i("select_last_index", 0) != 0;
    return select(Family::reduce, p, c.target);
}
template <reduce::Op op>
Lowered lower(const LowerCtx& c) {
    if (c.target.device != Device::cpu) return device(c, static_cast<reduce::Problem::Kind>(op), std::nullopt);
    return Lowered(std::make_unique<reduce::ReduceKernel>(op, c.in(0).dtype, c.attrs.i("noop_with_empty_axes", 0) != 0, c.target.isa));
}

inline void infer_arg(InferCtx& c) {
    ops_elementwise::need(c, 0, Types::arith);
    if (!c.ranked(0)) return c.set_unranked(0, DType::i64);
    const int rank = c.in(0).rank(), axis = c.axis(c.attrs.i("axis", 0), rank);
    std::vector<Dim> d = c.in(0).dims;
    if (c.attrs.i("keepdims", 1)) d[static_cast<std::size_t>(axis)] = Dim(1);
    else d.erase(d.begin() + axis);
    c.set(0, DType::i64, std::move(d));
}
template <bool max>
Lowered lower_arg(const LowerCtx& c) {
    const std::int64_t axis = c.attrs.i("axis", 0);
    if (c.target.device != Device::cpu) return device(c, max ? reduce::Problem::Kind::arg_max : reduce::Problem::Kind::arg_min, axis);
    return Lowered(std::make_unique<reduce::ArgKernel>(static_cast<int>(axis < 0 ? axis + c.in(0).rank() : axis), max,
                                                       c.attrs.i("select_last_index", 0) != 0, c.target.isa));
}
inline void infer_cumulative(InferCtx& c) {
    ops_elementwise::need(c, 0, Types::arith);
    c.need_type(1, {DType::i32, DType::i64});
    if (c.ranked(0)) {
        c.need_rank(0, 1);
        if (auto a = c.const_ints(1)) {
            if (a->size() != 1) c.fail("the axis must be one value, found " + std::to_string(a->size()));
            c.axis((*a)[0], c.in(0).rank());
        }
    }
    ops_elementwise::like(c, c.in(0).dtype);
}
template <bool product>
Lowered lower_cumulative(const LowerCtx& c) {
    return Lowered(std::make_unique<reduce::CumulativeKernel>(product, c.attrs.i("exclusive", 0) != 0, c.attrs.i("reverse", 0) != 0, c.target.isa));
}

}  // namespace ops_reduce

#define QUERN_REDUCE(Name, opset, id)                                                                            \
    QUERN_INLINE const OpDef& op_##Name() {                                                                      \
        static constexpr OpDef def{.name = #Name, .min_in = 1, .max_in = 2, .newest = opset,                     \
                                   .import = ops_reduce::import_axes, .infer = ops_reduce::infer<reduce::Op::id>, \
                                   .lower = ops_reduce::lower<reduce::Op::id>,                                   \
                                   .lower_device = ops_reduce::lower<reduce::Op::id>};                           \
        return def;                                                                                              \
    }
QUERN_REDUCE(ReduceSum, 13, sum)
QUERN_REDUCE(ReduceMean, 18, mean)
QUERN_REDUCE(ReduceMax, 20, max)
QUERN_REDUCE(ReduceMin, 20, min)
QUERN_REDUCE(ReduceProd, 18, prod)
QUERN_REDUCE(ReduceL1, 18, l1)
QUERN_REDUCE(ReduceL2, 28, l2)
QUERN_REDUCE(ReduceLogSum, 28, log_sum)
QUERN_REDUCE(ReduceLogSumExp, 28, log_sum_exp)
QUERN_REDUCE(ReduceSumSquare, 18, sum_square)
#undef QUERN_REDUCE
#define QUERN_ARG(Name, max)                                                                               \
    QUERN_INLINE const OpDef& op_##Name() {                                                                \
        static constexpr OpDef def{.name = #Name, .min_in = 1, .max_in = 1, .newest = 13,                  \
                                   .infer = ops_reduce::infer_arg, .lower = ops_reduce::lower_arg<max>,    \
                                   .lower_device = ops_reduce::lower_arg<max>,                             \
                                   .compute = Compute::arith, .promote_out = 0, .narrow = Narrow::any};    \
        return def;                                                                                        \
    }
QUERN_ARG(ArgMax, true)
QUERN_ARG(ArgMin, false)
#undef QUERN_ARG
QUERN_INLINE const OpDef& op_CumSum() {
    static constexpr OpDef def{.name = "CumSum", .min_in = 2, .max_in = 2, .newest = 14, .infer = ops_reduce::infer_cumulative,
                               .lower = ops_reduce::lower_cumulative<false>};
    return def;
}
QUERN_INLINE const OpDef& op_CumProd() {
    static constexpr OpDef def{.name = "CumProd", .min_in = 2, .max_in = 2, .newest = 26, .infer = ops_reduce::infer_cumulative,
                               .lower = ops_reduce::lower_cumulative<true>};
    return def;
}
QUERN_END
