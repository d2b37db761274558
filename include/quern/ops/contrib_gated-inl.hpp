// Gates and normalizations of language models, domain com.microsoft: GatedRMSNorm, BranchwiseRMSNorm, GatedAdd, ScaledSiLU, SwiGLU, in terms of ai.onnx's
// operators. Arithmetic is in float where the tensors are of 16 bits, as ONNX Runtime documents them.
#pragma once
#include "contrib.hpp"

QUERN_BEGIN
namespace ops_contrib_gated {
using ops_contrib::Make;

/// x as float, or double where it is that.
inline ValueId wide(const Make& m, ValueId x) { return m.type(x) == DType::f64 ? x : m.cast(x, DType::f32); }
inline ValueId times(const Make& m, ValueId x, float by) { return by == 1.f ? x : m.op("Mul", {x, m.number(m.type(x), static_cast<double>(by))}); }
inline ValueId silu(const Make& m, ValueId x, float alpha) { return m.op("Mul", {x, m.op("Sigmoid", {times(m, x, alpha)})}); }
/// x with its last dimension as [of, n] or, where `n` is 0, [of, whatever fits]; 0 for `of` likewise.
inline ValueId cut_last(const Make& m, ValueId x, std::int64_t of, std::int64_t n) {
    std::vector<std::int64_t> to(static_cast<std::size_t>(m.rank(x, "X")) - 1, 0);
    to.push_back(of ? of : -1);
    to.push_back(n ? n : -1);
    return m.reshape(x, std::move(to));
}

inline void import_gated_rms(ImportCtx& c) {
    Make m{c};
    const std::string gate = c.attrs.s("activation", "silu");
    if (gate != "silu" && gate != "swish" && gate != "sigmoid") c.invalid("activation '" + gate + "'; accepted: silu, swish, sigmoid");
    if (m.rank(m.need(1), "the scale") != 1) c.invalid("the scale is " + c.fact(1).to_string() + "; accepted: rank 1");
    if (m.rank(m.need(0), "X") < 1) c.invalid("X is " + c.fact(0).to_string() + "; accepted: rank 1 and more");
    const Dim last = c.fact(0).dims.back(), width = c.fact(1).dims[0];
    ValueId x = wide(m, c.in[0]);
    const bool whole = last == width;
    if (!whole) x = cut_last(m, x, 0, m.dim(c.in[1], 0, "the scale"));
    x = m.op("RMSNormalization", {x, m.like(c.in[1], x)}, {{"axis", -1}, {"epsilon", c.attrs.f("epsilon", 1e-5f)}});
    if (!whole) x = m.op("Reshape", {x, m.op("Shape", {c.in[0]})});
    ValueId z = wide(m, m.need(2));
    x = m.op("Mul", {x, gate == "sigmoid" ? m.op("Sigmoid", {z}) : silu(m, z, 1)});
    c.alias(0, m.like(x, c.in[0]));
}
inline void import_branchwise(ImportCtx& c) {
    Make m{c};
    const std::int64_t branches = c.attrs.i("num_branches", 0);
    if (branches < 0) c.invalid("num_branches is " + std::to_string(branches) + "; accepted: 0 and more");
    const int rank = m.rank(m.need(0), "X");
    if (rank < (branches ? 1 : 2)) c.invalid("X is " + c.fact(0).to_string() + "; accepted: [..., branches, width], or [..., branches * width] with num_branches");
    ValueId x = wide(m, c.in[0]);
    if (branches) x = cut_last(m, x, branches, 0);
    ValueId mean = m.op("ReduceMean", {m.op("Mul", {x, x}), m.ints({-1})}, {{"keepdims", 1}});
    ValueId y = m.op("Div", {x, m.op("Sqrt", {m.op("Add", {mean, m.number(m.type(x), static_cast<double>(c.attrs.f("epsilon", 1e-5f)))})})});
    if (c.has(1)) {  // [width], [branches, width] or [branches * width]
        ValueId s = m.like(c.in[1], x);
        const Dim width = c.graph.fact(x).dims.back();
        if (m.rank(s, "the scale") == 1 && !(c.graph.fact(s).dims[0] == width)) s = m.op("Reshape", {s, m.op("Shape", {x}, {{"start", -2}})});
        y = m.op("Mul", {y, s});
    }
    if (branches) y = m.op("Reshape", {y, m.op("Shape", {c.in[0]})});
    c.alias(0, m.like(y, c.in[0]));
}
inline void import_gated_add(ImportCtx& c) {
    Make m{c};
    if (c.has(3)) c.unsupported("gate_weight; accepted: a gate [..., 1] without it");
    c.finish("Add", {m.need(0), m.op("Mul", {m.need(1), m.need(2)})});
}
inline void import_scaled_silu(ImportCtx& c) {
    Make m{c};
    ValueId x = m.need(0), z = c.has(1) ? m.op("Mul", {x, m.like(c.in[1], x)}) : times(m, x, c.attrs.f("alpha", 1));
    c.alias(0, silu(m, z, 1));
}
inline void import_swiglu(ImportCtx& c) {
    Make m{c};
    const float limit = c.attrs.f("limit", 0), beta = c.attrs.f("activation_beta", 0);
    if (c.attrs.i("round_activation", 0) && m.type(m.need(0)) != DType::f32) c.unsupported("round_activation in types of 16 bits");
    std::vector<ValueId> halves{m.need(0), m.input(1)};
    if (!c.has(1)) halves = m.all("Split", {c.in[0]}, {{"axis", -1}, {"num_outputs", 2}}, 2);
    ValueId g = wide(m, halves[0]), l = wide(m, halves[1]);
    if (limit > 0) {
        ValueId most = m.number(m.type(g), static_cast<double>(limit));
        g = m.op("Min", {g, most});
        l = m.op("Clip", {l, m.number(m.type(l), -static_cast<double>(limit)), most});
    }
    if (beta != 0) l = m.op("Add", {l, m.number(m.type(l), static_cast<double>(beta))});
    c.alias(0, m.like(m.op("Mul", {silu(m, g, c.attrs.f("activation_alpha", 1)), l}), c.in[0]));
}

}  // namespace ops_contrib_gated

QUERN_IMPORTED(com_microsoft_GatedRMSNorm, ops_contrib::microsoft, "GatedRMSNorm", 3, 3, ops_contrib_gated::import_gated_rms)
QUERN_IMPORTED(com_microsoft_BranchwiseRMSNorm, ops_contrib::microsoft, "BranchwiseRMSNorm", 1, 2, ops_contrib_gated::import_branchwise)
QUERN_IMPORTED(com_microsoft_GatedAdd, ops_contrib::microsoft, "GatedAdd", 3, 4, ops_contrib_gated::import_gated_add)
QUERN_IMPORTED(com_microsoft_ScaledSiLU, ops_contrib::microsoft, "ScaledSiLU", 1, 2, ops_contrib_gated::import_scaled_silu)
QUERN_IMPORTED(com_microsoft_SwiGLU, ops_contrib::microsoft, "SwiGLU", 1, 2, ops_contrib_gated::import_swiglu)
QUERN_END
