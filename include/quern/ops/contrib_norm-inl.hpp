// Normalizations and activations of domain com.microsoft: SkipLayerNormalization, SimplifiedLayerNormalization (which ONNX Runtime
// also writes into ai.onnx), SkipSimplifiedLayerNormalization, EmbedLayerNormalization, QEmbedLayerNormalization, GroupNorm,
// SkipGroupNorm, Gelu, FastGelu, BiasGelu, QuickGelu, BiasSplitGelu, BiasAdd.
#pragma once
#include "contrib.hpp"

QUERN_BEGIN
namespace ops_contrib_norm {
using ops_contrib::Make;

/// Sum of input, skip and bias, normalized over the last axis; the sum is output 3.
inline void skip_norm(ImportCtx& c, bool rms) {
    Make m{c};
    std::size_t bias = rms ? 3 : 4;
    ValueId sum = m.add_if(m.op("Add", {m.need(0), m.need(1)}), m.input(bias));
    // The skip may broadcast to the input, never the other way round.
    const Fact &x = c.fact(0), &s = c.graph.fact(sum);
    if (x.ranked && s.ranked && x.rank() != s.rank()) c.invalid("skip has more dimensions than the input " + x.to_string());
    float epsilon = c.attrs.f("epsilon", 1e-12f);
    if (rms) {
        if (c.n_out > 1 && c.n_out != 4) c.unsupported("the statistics of SkipSimplifiedLayerNormalization; accepted: outputs 0 and 3");
        c.alias(0, m.op("RMSNormalization", {sum, m.need(2)}, {{"axis", -1}, {"epsilon", epsilon}}));
    } else {
        auto y = m.all("LayerNormalization", {sum, m.need(2), m.input(3)}, {{"axis", -1}, {"epsilon", epsilon}}, c.n_out > 1 ? 3 : 1);
        for (int o = 0; o < static_cast<int>(y.size()); ++o) c.alias(o, y[static_cast<std::size_t>(o)]);
    }
    c.alias(3, sum);
}
inline void import_skip(ImportCtx& c) { skip_norm(c, false); }
inline void import_skip_simplified(ImportCtx& c) { skip_norm(c, true); }
inline void import_simplified(ImportCtx& c) {
    Make m{c};
    if (c.n_out > 1) c.unsupported("the second output of SimplifiedLayerNormalization");
    c.finish("RMSNormalization", {m.need(0), m.need(1)}, Make::attrs({{"axis", c.attrs.i("axis", -1)}, {"epsilon", c.attrs.f("epsilon", 1e-5f)}}));
}

/// Embeddings of words, positions and (optional) segments, summed and normalized. `row` makes a table's rows of f32.
template <class F>
inline void embed(ImportCtx& c, ValueId words, ValueId positions, ValueId segments, ValueId gamma, ValueId beta, ValueId mask, ValueId ids, F&& rows) {
    Make m{c};
    ValueId sum = rows(words, m.need(0));
    if (ids == no_value) ids = m.unsqueeze(m.count_to(m.size(c.in[0], 1)), {0});
    sum = m.op("Add", {sum, rows(positions, ids)});
    if (c.has(1) && segments != no_value) sum = m.op("Add", {sum, rows(segments, c.in[1])});
    c.alias(0, m.op("LayerNormalization", {sum, gamma, beta}, {{"axis", -1}, {"epsilon", c.attrs.f("epsilon", 1e-12f)}}));
    if (c.n_out > 1) {
        ValueId count = mask != no_value ? m.cast(m.op("ReduceSum", {mask, m.ints({1})}, {{"keepdims", 0}}), DType::i32)
                                         : m.op("Expand", {m.number(DType::i32, 0), m.size(c.in[0], 0)});
        c.alias(1, count);
    }
    c.alias(2, sum);
}
inline void import_embed(ImportCtx& c) {
    Make m{c};
    embed(c, m.need(2), m.need(3), m.input(4), m.need(5), m.need(6), m.input(7), m.input(8),
          [&](ValueId table, ValueId at) { return m.op("Gather", {table, at}, {{"axis", 0}}); });
}
/// Inputs 2 to 6 are tables of 8 bits (gamma and beta too), 8 to 12 their scales, 13 to 17 their zero points.
inline void import_embed_8(ImportCtx& c) {
    Make m{c};
    auto parameter = [&](ValueId table, std::size_t of) { return c.has(of) && table != no_value ? c.in[of] : no_value; };
    auto wide = [&](ValueId v, std::size_t k) { return m.op("DequantizeLinear", {v, m.need(8 + k), parameter(v, 13 + k)}); };
    auto rows = [&](ValueId table, ValueId at) {
        std::size_t k = 0;
        while (k < 3 && c.in[2 + k] != table) ++k;
        return wide(m.op("Gather", {table, at}, {{"axis", 0}}), k);
    };
    embed(c, m.need(2), m.need(3), m.input(4), wide(m.need(5), 3), wide(m.need(6), 4), m.input(7), no_value, rows);
}

/// Group normalization over channels last (or first), then SiLU where `activation` is 1.
inline ValueId group_norm(ImportCtx& c, ValueId x, ValueId gamma, ValueId beta) {
    Make m{c};
    bool last = c.attrs.i("channels_last", 1) != 0;
    if (last) x = m.channels_first(x);
    ValueId y = m.op("GroupNormalization", {x, m.like(gamma, x), m.like(beta, x)}, {{"num_groups", c.attrs.i("groups", 0)}, {"epsilon", c.attrs.f("epsilon", 1e-5f)}});
    if (c.attrs.i("activation", 0)) y = m.op("Swish", {y});
    return last ? m.channels_last(y) : y;
}
inline void import_group(ImportCtx& c) {
    Make m{c};
    c.alias(0, group_norm(c, m.need(0), m.need(1), m.need(2)));
}
inline void import_skip_group(ImportCtx& c) {
    Make m{c};
    ValueId x = m.need(0), skip = m.need(3);
    if (m.rank(skip, "skip") == 2) skip = m.unsqueeze(skip, {1, 2});
    ValueId sum = m.add_if(m.op("Add", {x, skip}), m.input(4));
    c.alias(0, group_norm(c, sum, m.need(1), m.need(2)));
    c.alias(1, sum);
}

inline void import_gelu(ImportCtx& c) { c.finish("Gelu", c.in, {}); }
inline void import_fast_gelu(ImportCtx& c) {
    Make m{c};
    c.finish("Gelu", {m.add_if(m.need(0), m.input(1))}, Make::attrs({{"approximate", "tanh"}}));
}
inline void import_bias_gelu(ImportCtx& c) {
    Make m{c};
    c.finish("Gelu", {m.op("Add", {m.need(0), m.need(1)})}, {});
}
inline void import_quick_gelu(ImportCtx& c) { c.finish("Swish", c.in, Make::attrs({{"alpha", c.attrs.f("alpha", 1.702f)}})); }
/// The first half of x + bias times the gelu of the second.
inline void import_split_gelu(ImportCtx& c) {
    Make m{c};
    std::int64_t half = m.dim(m.need(1), 0, "bias") / 2;
    auto parts = m.split(m.op("Add", {m.need(0), c.in[1]}), {half, half}, -1);
    c.finish("Mul", {parts[0], m.op("Gelu", {parts[1]})}, {});
}
inline void import_bias_add(ImportCtx& c) {
    Make m{c};
    c.finish("Add", {m.op("Add", {m.need(0), m.need(1)}), m.need(2)}, {});
}

}  // namespace ops_contrib_norm

QUERN_IMPORTED(com_microsoft_SkipLayerNormalization, ops_contrib::microsoft, "SkipLayerNormalization", 3, 5, ops_contrib_norm::import_skip, 4)
QUERN_IMPORTED(com_microsoft_SkipSimplifiedLayerNormalization, ops_contrib::microsoft, "SkipSimplifiedLayerNormalization", 3, 4, ops_contrib_norm::import_skip_simplified, 4)
QUERN_IMPORTED(com_microsoft_SimplifiedLayerNormalization, ops_contrib::microsoft, "SimplifiedLayerNormalization", 2, 2, ops_contrib_norm::import_simplified, 2)
QUERN_IMPORTED(SimplifiedLayerNormalization, "", "SimplifiedLayerNormalization", 2, 2, ops_contrib_norm::import_simplified, 2)
QUERN_IMPORTED(com_microsoft_EmbedLayerNormalization, ops_contrib::microsoft, "EmbedLayerNormalization", 7, 9, ops_contrib_norm::import_embed, 3)
QUERN_IMPORTED(com_microsoft_QEmbedLayerNormalization, ops_contrib::microsoft, "QEmbedLayerNormalization", 13, 18, ops_contrib_norm::import_embed_8, 2)
QUERN_IMPORTED(com_microsoft_GroupNorm, ops_contrib::microsoft, "GroupNorm", 3, 3, ops_contrib_norm::import_group)
QUERN_IMPORTED(com_microsoft_SkipGroupNorm, ops_contrib::microsoft, "SkipGroupNorm", 4, 5, ops_contrib_norm::import_skip_group, 2)
QUERN_IMPORTED(com_microsoft_Gelu, ops_contrib::microsoft, "Gelu", 1, 1, ops_contrib_norm::import_gelu)
QUERN_IMPORTED(com_microsoft_FastGelu, ops_contrib::microsoft, "FastGelu", 1, 2, ops_contrib_norm::import_fast_gelu)
QUERN_IMPORTED(com_microsoft_BiasGelu, ops_contrib::microsoft, "BiasGelu", 2, 2, ops_contrib_norm::import_bias_gelu)
QUERN_IMPORTED(com_microsoft_QuickGelu, ops_contrib::microsoft, "QuickGelu", 1, 1, ops_contrib_norm::import_quick_gelu)
QUERN_IMPORTED(com_microsoft_BiasSplitGelu, ops_contrib::microsoft, "BiasSplitGelu", 2, 2, ops_contrib_norm::import_split_gelu)
QUERN_IMPORTED(com_microsoft_BiasAdd, ops_contrib::microsoft, "BiasAdd", 3, 3, ops_contrib_norm::import_bias_add)
QUERN_END
