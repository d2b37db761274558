// If: https://onnx.ai/onnx/operators/onnx__If.html
#pragma once
#include "op.hpp"

QUERN_BEGIN
namespace ops_if {

inline void infer(InferCtx& c) {
    c.need_type(0, {DType::boolean});
    auto then_graph = c.attrs.graph("then_branch"), else_graph = c.attrs.graph("else_branch");
    if (!then_graph || !else_graph) raise(ErrorCode::invalid_model, "If needs the attributes then_branch and else_branch");
    for (auto& g : {then_graph, else_graph})
        if (static_cast<int>(g->outputs.size()) < c.n_out())
            raise(ErrorCode::invalid_model, "a branch of If has " + std::to_string(g->outputs.size()) + " outputs; accepted: " + std::to_string(c.n_out()));
    for (int o = 0; o < c.n_out(); ++o) {
        const Fact &a = then_graph->fact(then_graph->outputs[o]), &b = else_graph->fact(else_graph->outputs[o]);
        if (a.dtype != b.dtype)
            raise(ErrorCode::invalid_model, std::string("the branches of If give different types for output ") + std::to_string(o) + ": " + dtype_name(a.dtype) + " and " + dtype_name(b.dtype));
        c.set_unranked(o, a.dtype);
        if (!a.ranked || !b.ranked || a.rank() != b.rank() || c.concrete) continue;
        std::vector<Dim> dims;
        for (int d = 0; d < a.rank(); ++d) dims.push_back(a.dims[d].is_const() && a.dims[d] == b.dims[d] ? a.dims[d] : c.fresh("if"));
        c.set(o, a.dtype, std::move(dims));
    }
}

}  // namespace ops_if

QUERN_INLINE const OpDef& op_If() {
    static constexpr OpDef def{.name = "If", .min_in = 1, .max_out = 1 << 20, .newest = 25, .infer = ops_if::infer, .control = true};
    return def;
}

QUERN_END
