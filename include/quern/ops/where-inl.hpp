// Where: https://onnx.ai/onnx/operators/onnx__Where.html
#pragma once
#include <quern/kernels/elementwise/where.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_where {

inline void infer(InferCtx& c) {
    ops_elementwise::need(c, 0, ops_elementwise::Types::boolean);
    c.need_same_type(1, 2);
    ops_elementwise::infer_broadcast(c, 3, c.in(1).dtype);
    if (!c.out(0).ranked || c.out(0).rank() > 1 || !ops_elementwise::follows(c.in(1).dtype)) return;
    auto k = c.ints(0), x = c.ints(1), y = c.ints(2);
    if (!k || k->empty()) return;
    if ((x && x->empty()) || (y && y->empty())) return;
    const std::size_t n = std::max({k->size(), x ? x->size() : 0, y ? y->size() : 0});
    if (!c.out(0).concrete() || c.out(0).shape().count() != static_cast<std::int64_t>(n) || n > 64) return;
    std::vector<Dim> r;
    for (std::size_t i = 0; i < n; ++i) {
        const Dim& d = (*k)[k->size() == 1 ? 0 : i];
        if (!d.is_const()) return;
        auto& from = d.is(0) ? y : x;
        if (!from || (from->size() != 1 && from->size() != n)) return;
        r.push_back((*from)[from->size() == 1 ? 0 : i]);
    }
    c.set_symbolic(0, std::move(r));
}
inline Lowered lower(const LowerCtx& c) {
    if (c.target.device != Device::cpu) {
        ops_elementwise::DeviceProgram p(c);
        const bool whole = is_integer(c.in(1).dtype);
        p.load(0, whole);
        p.select(1, 2, whole);
        return p.lower();
    }
    return Lowered(std::make_unique<ew::WhereKernel>(c.in(1).dtype));
}

}  // namespace ops_where

QUERN_INLINE const OpDef& op_Where() {
    static constexpr OpDef def{.name = "Where", .min_in = 3, .max_in = 3, .newest = 16, .infer = ops_where::infer, .lower = ops_where::lower, .lower_device = ops_where::lower};
    return def;
}
QUERN_END
