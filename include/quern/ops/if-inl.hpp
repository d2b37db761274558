// If: https://onnx.ai/onnx/operators/onnx__If.html
#pragma once
#include "control.hpp"

QUERN_BEGIN
namespace ops_if {

inline void infer(InferCtx& c) {
    c.need_type(0, {DType::boolean});
    std::size_t own = 0;
    auto then_graph = ops_control::body_of(c, "then_branch", own), else_graph = ops_control::body_of(c, "else_branch", own);
    if (own != 1) raise(ErrorCode::invalid_model, "If has " + std::to_string(own) + " inputs; accepted: 1");
    ops_control::Outward outward(c);
    for (auto& g : {then_graph, else_graph}) {
        if (g->formals) raise(ErrorCode::invalid_model, "a branch of If has " + std::to_string(g->formals) + " inputs; accepted: none");
        ops_control::need_outputs(c, *g, 0);
    }
    for (int o = 0; o < c.n_out(); ++o) {
        const Fact &a = then_graph->fact(then_graph->outputs[o]), &b = else_graph->fact(else_graph->outputs[o]);
        if (!ops_control::agree(a, b))
            raise(ErrorCode::invalid_model, std::string("the branches of If give different types for output ") + std::to_string(o) + ": " + a.to_string() + " and " + b.to_string());
        if (a.kind != Kind::tensor || b.kind != Kind::tensor) {
            c.outputs[o] = a;
            ops_control::widen(c.outputs[o], b, "?");
            continue;
        }
        c.set_unranked(o, a.dtype);
        if (!a.ranked || !b.ranked || a.rank() != b.rank()) continue;
        std::vector<Dim> dims;
        for (int d = 0; d < a.rank(); ++d) {
            Dim x, y;
            dims.push_back(outward.known(a.dims[d], x) && outward.known(b.dims[d], y) && x == y ? x : c.fresh("if"));
        }
        c.set(o, a.dtype, std::move(dims));
    }
}

}  // namespace ops_if

QUERN_INLINE const OpDef& op_If() {
    static constexpr OpDef def{.name = "If", .min_in = 1, .max_out = 1 << 20, .newest = 25, .infer = ops_if::infer, .control = true};
    return def;
}

QUERN_END
