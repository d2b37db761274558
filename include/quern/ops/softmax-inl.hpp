// Softmax, LogSoftmax and Hardmax: https://onnx.ai/onnx/operators/onnx__Softmax.html
#pragma once
#include <quern/kernels/softmax/hardmax.hpp>
#include <quern/kernels/softmax/softmax.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_softmax {

/// Before opset 13 the input is a matrix: dimensions from `axis` (default 1) on are one row.
template <int which>
void import_rows(ImportCtx& c) {
    constexpr const char* op = which == 0 ? "Softmax" : which == 1 ? "LogSoftmax" : "Hardmax";
    if (c.opset >= 13 || !c.has(0)) return;
    std::int64_t axis = c.attrs.i("axis", 1);
    c.attrs.erase("axis");
    const Fact& x = c.fact(0);
    if (x.ranked) {
        const int rank = x.rank();
        if (axis < -rank || axis > rank) c.invalid("axis " + std::to_string(axis) + " is outside of rank " + std::to_string(rank));
        if (axis < 0) axis += rank;
        if (axis == rank - 1) {
            c.attrs.set("axis", std::int64_t{-1});
            return;
        }
        bool ones = true;  // nothing but 1 after the axis: the same as softmax over the axis alone
        for (int i = static_cast<int>(axis) + 1; i < rank; ++i) ones = ones && x.dims[static_cast<std::size_t>(i)].is(1);
        if (ones && axis < rank) {
            c.attrs.set("axis", axis);
            return;
        }
    }
    Attrs flat, row;
    flat.set("axis", axis);
    row.set("axis", std::int64_t{-1});
    ValueId shape = c.add("Shape", {c.in[0]})[0];
    ValueId matrix = c.add("Flatten", {c.in[0]}, std::move(flat))[0];
    ValueId y = c.add(op, {matrix}, std::move(row))[0];
    c.finish("Reshape", {y, shape});
}
inline void infer(InferCtx& c) {
    ops_elementwise::infer_same<ops_elementwise::Types::real>(c);
    if (!c.ranked(0)) return;
    c.need_rank(0, 1);
    c.axis(c.attrs.i("axis", -1), c.in(0).rank());
}
inline int axis_of(const LowerCtx& c) {
    const std::int64_t axis = c.attrs.i("axis", -1);
    return static_cast<int>(axis < 0 ? axis + std::max(1, c.in(0).rank()) : axis);
}
template <bool log>
Lowered lower(const LowerCtx& c) {
    softmax::Problem p;
    p.dtype = c.in(0).dtype;
    p.rank = c.in(0).rank();
    p.axis = axis_of(c);
    p.log = log;
    return Lowered(select<softmax::Problem>(Family::softmax, p, c.target));
}
inline Lowered lower_hardmax(const LowerCtx& c) { return Lowered(std::make_unique<softmax::HardmaxKernel>(axis_of(c))); }

}  // namespace ops_softmax

#define QUERN_SOFTMAX(Name, which, lower_function, device_function, narrow_types)                                \
    QUERN_INLINE const OpDef& op_##Name() {                                                                      \
        static constexpr OpDef def{.name = #Name, .min_in = 1, .max_in = 1, .newest = 13,                        \
                                   .import = ops_softmax::import_rows<which>, .infer = ops_softmax::infer,       \
                                   .lower = ops_softmax::lower_function, .lower_device = device_function,        \
                                   .compute = Compute::real, .narrow = narrow_types};                            \
        return def;                                                                                              \
    }
QUERN_SOFTMAX(Softmax, 0, lower<false>, ops_softmax::lower<false>, Narrow::halves)
QUERN_SOFTMAX(LogSoftmax, 1, lower<true>, ops_softmax::lower<true>, Narrow::halves)
QUERN_SOFTMAX(Hardmax, 2, lower_hardmax, nullptr, Narrow::none)
#undef QUERN_SOFTMAX
QUERN_END
