// Attention of domain com.microsoft: Attention, QAttention, MultiHeadAttention, GroupQueryAttention, RotaryEmbedding.
#pragma once
#include <algorithm>

#include "contrib.hpp"

QUERN_BEGIN
namespace ops_contrib_attention {
using ops_contrib::Make;

inline std::int64_t heads_of(const ImportCtx& c, const char* name) {
    std::int64_t n = c.attrs.i(name, 0);
    if (n < 1 || n > INT32_MAX) c.invalid(std::string(name) + " is " + std::to_string(n) + "; accepted: 1 to 2^31 - 1");
    return n;
}
inline void refuse(const ImportCtx& c, std::size_t i, const char* what) {
    if (c.has(i)) c.unsupported(std::string("the input ") + what + "; accepted: none");
}
/// What is added to the scores: `filter` where a key is masked, and the bias, each may be absent. Masks of integers: lengths [B], ends then
/// starts [2B], [B, T], [B, S, T]. `total` is T as a list of one number.
inline ValueId mask_of(const Make& m, ValueId mask, ValueId bias, ValueId x, ValueId total, float filter) {
    if (mask == no_value) return bias;
    int rank = m.rank(mask, "the mask");
    ValueId open;
    if (rank == 1) {
        m.rank(x, "the query", 1);
        const Fact f = m.c.graph.fact(mask);  // copies: what is added moves the graph's values
        const Dim n = f.dims[0], batch = m.c.graph.fact(x).dims[0];
        ValueId at = m.count_to(total);
        bool lengths = n == batch, ranges = n == Dim(2) * batch;
        if (!lengths && !ranges) m.c.unsupported("a mask of " + f.to_string() + "; accepted: [B], [2B], [B, T], [B, S, T], B being " + batch.to_string());
        ValueId ends = m.cast(mask, DType::i64);
        if (ranges) {
            ValueId halves = m.op("Reshape", {ends, m.ints({2, -1})});
            ValueId starts = m.unsqueeze(m.pick(halves, 1, 0), {1});
            open = m.op("And", {m.op("Less", {at, m.unsqueeze(m.pick(halves, 0, 0), {1})}), m.op("GreaterOrEqual", {at, starts})});
        } else {
            open = m.op("Less", {at, m.unsqueeze(ends, {1})});
        }
        open = m.unsqueeze(open, {1, 2});
    } else if (rank == 2 || rank == 3) {
        ValueId zero = m.type(mask) == DType::boolean ? no_value : m.number(m.type(mask), 0);
        open = zero == no_value ? mask : m.op("Greater", {mask, zero});
        open = rank == 2 ? m.unsqueeze(open, {1, 2}) : m.unsqueeze(open, {1});
    } else {
        m.c.unsupported("a mask of rank " + std::to_string(rank) + "; accepted: 1 to 3");
    }
    DType t = m.type(x);
    return m.add_if(m.op("Where", {open, m.number(t, 0), m.number(t, filter)}), bias);
}

/// The rest of Attention and QAttention from the joint projection [B, S, Q + K + V].
inline void self_attention(ImportCtx& c, ValueId qkv, ValueId mask, ValueId past, ValueId bias) {
    Make m{c};
    std::int64_t heads = heads_of(c, "num_heads"), width = m.dim(qkv, 2, "the projection");
    std::vector<std::int64_t> sizes = c.attrs.ints("qkv_hidden_sizes");
    if (sizes.empty()) sizes.assign(3, width / 3);
    const bool fits = std::all_of(sizes.begin(), sizes.end(), [&](std::int64_t s) { return s >= 0 && s <= width; });
    if (sizes.size() != 3 || !fits || sizes[0] + sizes[1] + sizes[2] != width || sizes[0] % heads || sizes[2] % heads)
        c.invalid("the projection to " + std::to_string(width) + " values does not divide into Q, K and V of " + std::to_string(heads) + " heads");
    if (c.attrs.i("do_rotary", 0)) c.unsupported("do_rotary = 1; accepted: 0");
    if (c.attrs.i("past_present_share_buffer", 0)) c.unsupported("past_present_share_buffer = 1; accepted: 0");
    auto parts = m.split(qkv, sizes, 2);
    ValueId total = m.size(qkv, 1), past_k = no_value, past_v = no_value;
    if (past != no_value) {
        past_k = m.pick(past, 0, 0);
        past_v = m.pick(past, 1, 0);
        total = m.op("Add", {total, m.size(past, 3)});
    }
    ValueId added = mask_of(m, mask, bias, qkv, total, c.attrs.f("mask_filter_value", -10000.f));
    auto y = m.all("Attention", {parts[0], parts[1], parts[2], added, past_k, past_v},
                   {{"q_num_heads", heads}, {"kv_num_heads", heads}, {"is_causal", c.attrs.i("unidirectional", 0)}, {"scale", c.attrs.f("scale", 0)}}, c.n_out > 1 ? 3 : 1);
    c.alias(0, y[0]);
    if (c.n_out > 1) c.alias(1, m.op("Concat", {m.unsqueeze(y[1], {0}), m.unsqueeze(y[2], {0})}, {{"axis", 0}}));
}
inline void import_attention(ImportCtx& c) {
    Make m{c};
    refuse(c, 6, "past_sequence_length");
    ValueId qkv = m.add_if(m.op("MatMul", {m.need(0), m.need(1)}), m.input(2));
    self_attention(c, qkv, m.input(3), m.input(4), m.input(5));
}
inline void import_attention_8(ImportCtx& c) {
    Make m{c};
    ValueId product = m.op("com.microsoft::MatMulIntegerToFloat", {m.need(0), m.need(1), m.need(3), m.need(4), m.input(6), m.input(7)});
    self_attention(c, m.add_if(product, m.input(2)), m.input(5), m.input(8), no_value);
}

/// [B, S, N * D] to [B, N, S, D] and back.
inline ValueId to_heads(const Make& m, ValueId v, std::int64_t heads) { return m.transpose(m.reshape(v, {0, 0, heads, -1}), {0, 2, 1, 3}); }
inline ValueId from_heads(const Make& m, ValueId v) { return m.reshape(m.transpose(v, {0, 2, 1, 3}), {0, 0, -1}); }

inline void import_multi_head(ImportCtx& c) {
    Make m{c};
    refuse(c, 8, "past_sequence_length");
    refuse(c, 9, "cache_indirection");
    if (c.n_out > 3) c.unsupported("output 3 (qk) of MultiHeadAttention");
    std::int64_t heads = heads_of(c, "num_heads");
    ValueId q = m.need(0), k = m.input(1), v = m.input(2);
    bool joint = m.rank(q, "query") == 5, pair = k != no_value && m.rank(k, "key") == 5, split = k != no_value && m.rank(k, "key") == 4;
    auto part = [&](ValueId from, std::int64_t i) { return m.reshape(m.pick(from, i, 3), {0, 0, -1}); };
    if (joint) k = part(q, 1), v = part(q, 2), q = part(q, 0);
    else if (pair) v = part(k, 1), k = part(k, 0);
    if (k == no_value || v == no_value) c.invalid("key and value are missing; only a query of rank 5 holds them");
    if (c.has(3)) {
        std::int64_t hq = m.dim(q, 2, "query"), all = m.dim(c.in[3], 0, "bias"), hk = split ? hq : m.dim(k, 2, "key");
        auto b = m.split(c.in[3], {hq, hk, all - hq - hk}, 0);
        q = m.op("Add", {q, b[0]});
        if (!split) k = m.op("Add", {k, b[1]}), v = m.op("Add", {v, b[2]});
    }
    ValueId total = m.size(k, split ? 2 : 1);
    if (c.has(6)) total = m.op("Add", {total, m.size(c.in[6], 2)});
    ValueId added = mask_of(m, m.input(4), m.input(5), q, total, c.attrs.f("mask_filter_value", -10000.f));
    if (split) q = to_heads(m, q, heads);
    auto y = m.all("Attention", {q, k, v, added, m.input(6), m.input(7)},
                   {{"q_num_heads", heads}, {"kv_num_heads", heads}, {"is_causal", c.attrs.i("unidirectional", 0)}, {"scale", c.attrs.f("scale", 0)}}, c.n_out > 1 ? 3 : 1);
    c.alias(0, split ? from_heads(m, y[0]) : y[0]);
    for (int o = 1; o < static_cast<int>(y.size()); ++o) c.alias(o, y[static_cast<std::size_t>(o)]);
}

/// Positions [B, S] from ids that may be one offset.
inline ValueId positions(const Make& m, ValueId ids, ValueId batch, ValueId length) {
    if (m.rank(ids, "position_ids") != 1) return ids;
    ValueId at = m.op("Add", {m.cast(ids, DType::i64), m.count_to(length)});
    return m.op("Expand", {at, m.op("Concat", {batch, length}, {{"axis", 0}})});
}
/// Turns x [B, N, S, D]; the caches [positions, R / 2] tell how much of a head turns.
inline ValueId rotate(const Make& m, ValueId x, ValueId cosine, ValueId sine, ValueId ids, bool interleaved) {
    m.rank(x, "the input", 3, 4);
    std::int64_t half = m.dim(cosine, 1, "cos_cache"), rotated = 0;
    const Dim& d = m.c.graph.fact(x).dims.back();
    if (!d.is(2 * half)) rotated = 2 * half;
    return m.op("RotaryEmbedding", {x, cosine, sine, ids}, {{"interleaved", interleaved ? 1 : 0}, {"rotary_embedding_dim", rotated}});
}
inline void import_rotary(ImportCtx& c) {
    Make m{c};
    if (c.attrs.i("is_packed_batching", 0)) c.unsupported("is_packed_batching = 1; accepted: 0");
    if (float s = c.attrs.f("scale", 1); s != 1) c.unsupported("scale = " + std::to_string(s) + "; accepted: 1");
    ValueId x = m.need(0), cosine = m.need(2), sine = m.need(3);
    bool flat = m.rank(x, "input") == 3;
    std::int64_t heads = c.attrs.i("num_heads", 0), rotated = c.attrs.i("rotary_embedding_dim", 0);
    if (flat && heads == 0) {
        if (rotated) c.invalid("rotary_embedding_dim needs num_heads");
        heads = m.dim(x, 2, "input") / std::max<std::int64_t>(1, 2 * m.dim(cosine, 1, "cos_cache"));
    }
    ValueId ids = positions(m, m.need(1), m.size(x, 0), m.size(x, flat ? 1 : 2));
    ValueId y = rotate(m, flat ? to_heads(m, x, heads) : x, cosine, sine, ids, c.attrs.i("interleaved", 0) != 0);
    c.alias(0, flat ? from_heads(m, y) : y);
}

/// The cache grows (or has room already), new keys go to each sequence's place, queries see what stands before them.
inline void import_group_query(ImportCtx& c) {
    Make m{c};
    static constexpr const char* later[] = {"head_sink", "k_scale", "v_scale"};
    for (std::size_t i = 0; i < 3; ++i) refuse(c, 11 + i, later[i]);
    if (c.attrs.i("smooth_softmax", 0) > 0) c.unsupported("smooth_softmax = 1; accepted: 0");
    if (c.n_out > 3) c.unsupported("output 3 (qk) of GroupQueryAttention");
    std::int64_t heads = heads_of(c, "num_heads"), kv = heads_of(c, "kv_num_heads");
    ValueId q = m.need(0), k = m.input(1), v = m.input(2);
    if (k == no_value) {
        std::int64_t d = m.dim(q, 2, "query") / (heads + 2 * kv);
        auto parts = m.split(q, {heads * d, kv * d, kv * d}, 2);
        q = parts[0], k = parts[1], v = parts[2];
    }
    if (v == no_value) c.invalid("value is missing");
    ValueId batch = m.size(q, 0), length = m.size(q, 1);
    q = to_heads(m, q, heads), k = to_heads(m, k, kv), v = to_heads(m, v, kv);
    ValueId ends = m.op("Add", {m.op("Reshape", {m.cast(m.need(5), DType::i64), m.ints({-1})}), m.number(DType::i64, 1)});
    ValueId begins = m.op("Max", {m.op("Sub", {ends, length}), m.number(DType::i64, 0)});  // of the new positions; a prompt may be padded
    ValueId order = m.count_to(length), at = m.op("Add", {m.unsqueeze(begins, {1}), order});
    if (c.attrs.i("do_rotary", 0)) {
        ValueId ids = c.has(9) ? positions(m, c.in[9], batch, length) : at;
        bool interleaved = c.attrs.i("rotary_interleaved", 0) != 0;
        q = rotate(m, q, m.need(7), m.need(8), ids, interleaved);
        k = rotate(m, k, c.in[7], c.in[8], ids, interleaved);
    }
    ValueId total = m.size(k, 2);
    if (c.has(3) && c.has(4)) {
        ValueId had = m.size(c.in[3], 2), wanted = m.op("Reshape", {m.cast(m.need(6), DType::i64), m.ints({1})});
        total = m.op("Max", {had, wanted});
        ValueId room = m.op("Concat", {batch, m.ints({kv}), m.op("Sub", {total, had}), m.size(k, 3)}, {{"axis", 0}});
        auto grown = [&](ValueId past, ValueId now) {
            ValueId empty = m.op("Expand", {m.number(m.type(past), 0), room});
            return m.op("TensorScatter", {m.op("Concat", {past, empty}, {{"axis", 2}}), now, begins}, {{"axis", 2}});
        };
        k = grown(c.in[3], k), v = grown(c.in[4], v);
    }
    ValueId column = m.count_to(total), row = m.unsqueeze(at, {1, 3});
    ValueId open = m.op("LessOrEqual", {column, row});
    if (std::int64_t window = c.attrs.i("local_window_size", -1); window >= 0)
        open = m.op("And", {open, m.op("Greater", {column, m.op("Sub", {row, m.number(DType::i64, static_cast<double>(window))})})});
    if (c.has(10)) open = m.op("Where", {open, c.in[10], m.number(m.type(c.in[10]), -std::numeric_limits<double>::infinity())});
    ValueId y = m.op("Attention", {q, k, v, open}, {{"scale", c.attrs.f("scale", 0)}, {"softcap", c.attrs.f("softcap", 0)}});
    c.alias(0, from_heads(m, y));
    c.alias(1, k);
    c.alias(2, v);
}

}  // namespace ops_contrib_attention

QUERN_IMPORTED(com_microsoft_Attention, ops_contrib::microsoft, "Attention", 2, 7, ops_contrib_attention::import_attention, 2)
QUERN_IMPORTED(com_microsoft_QAttention, ops_contrib::microsoft, "QAttention", 5, 9, ops_contrib_attention::import_attention_8, 2)
QUERN_IMPORTED(com_microsoft_MultiHeadAttention, ops_contrib::microsoft, "MultiHeadAttention", 1, 10, ops_contrib_attention::import_multi_head, 4)
QUERN_IMPORTED(com_microsoft_GroupQueryAttention, ops_contrib::microsoft, "GroupQueryAttention", 7, 14, ops_contrib_attention::import_group_query, 4)
QUERN_IMPORTED(com_microsoft_RotaryEmbedding, ops_contrib::microsoft, "RotaryEmbedding", 4, 4, ops_contrib_attention::import_rotary)
QUERN_END
