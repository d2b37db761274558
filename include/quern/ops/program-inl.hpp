// Program: what the pass of programs makes of element-wise nodes that follow each other on a device.
#pragma once
#include "program.hpp"

QUERN_BEGIN
namespace ops_program {

inline DType out_type(const Attrs& a) {
    const std::int64_t t = a.i("out", 0);
    if (t < 1 || t >= dtype_count || !ew::storable(static_cast<DType>(t))) raise(ErrorCode::invalid_model, "out is " + std::to_string(t) + "; accepted are types that programs store");
    return static_cast<DType>(t);
}
inline void infer(InferCtx& c) {
    program(c.attrs, c.n_in());
    const std::vector<int> shift = shifts(c.attrs, c.n_in());
    const DType t = out_type(c.attrs);
    for (int i = 0; i < c.n_in(); ++i) {
        if (!ew::storable(c.in(i).dtype)) raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is " + dtype_name(c.in(i).dtype) + "; accepted are types that programs read");
        if (!c.ranked(i)) return c.set_unranked(0, t);
    }
    c.set(0, t, dims(c.inputs, shift));
}
inline Lowered lower_device(const LowerCtx& c) {
    ew::Problem p;
    p.program = program(c.attrs, c.n_in());
    p.shift = shifts(c.attrs, c.n_in());
    p.rank = c.out(0).rank();
    p.out = c.out(0).dtype;
    for (int i = 0; i < c.n_in(); ++i) {
        p.inputs.push_back(i);
        p.types.push_back(c.in(i).dtype);
    }
    return select(Family::elementwise, p, c.target);
}

}  // namespace ops_program

QUERN_INLINE const OpDef& op_quern_Program() {
    static constexpr OpDef def{.domain = "quern", .name = "Program", .min_in = 1, .max_in = ew::max_program_inputs, .newest = 1, .infer = ops_program::infer, .lower_device = ops_program::lower_device};
    return def;
}
QUERN_END
