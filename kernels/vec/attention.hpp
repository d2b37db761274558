// Attention of a few queries over many keys: softmax(scale * Q K^T + masks) V, without the scores ever leaving the cache.
//
// Scores lie transposed, queries in the lanes of vectors: keys are read where they are, one broadcast for each of their
// values, maxima and sums need no work across lanes, and the second product reads the probabilities as its packed A.
#pragma once
#include <quern/kernels/vec/gemm.hpp>

QUERN_VEC_BEGIN

constexpr i64 tile_queries = panel<float>;
/// So many panels of queries go through a block of keys while it is in the cache.
constexpr i64 query_panels = 2;
constexpr i64 key_block = 128;
/// Up to so many queries go one after the other, keys in the lanes.
constexpr i64 few_queries = W / 4;
constexpr i64 upto(i64 n, i64 step) { return (n + step - 1) / step * step; }

QUERN_VEC_FN std::size_t attention_work_bytes(i64 d, i64 dv) {
    i64 wide = upto(dv, panel<float>), q = query_panels * tile_queries * d, s = key_block * tile_queries, y = query_panels * tile_queries * wide;
    return static_cast<std::size_t>(q + s + y + key_block * wide + key_block * (upto(d, W) + 16) + 4 * W) * sizeof(float);
}
/// dst[c * N + r] = scale * src[r * stride + c], N = tile_queries; zero from row `rows` to the end of its vector.
QUERN_VEC_FN void pack_queries(const float* src, i64 stride, i64 rows, i64 cols, float scale, float* dst) {
    for (i64 r0 = 0; r0 < upto(rows, W); r0 += W)
        for (i64 c0 = 0; c0 < cols; c0 += W) {
            i64 n = lesser(W, cols - c0);
            F t[W];
            for (i64 i = 0; i < W; ++i) {
                const float* p = src + (r0 + i) * stride + c0;
                t[i] = r0 + i >= rows ? F{} : (n == W ? load(p) : load_n(p, n)) * scale;
            }
            transpose(t);
            for (i64 i = 0; i < n; ++i) store(dst + (c0 + i) * tile_queries + r0, t[i]);
        }
}
/// Scores are kept times log2 e, for powers of 2 cost less than powers of e.
constexpr float log2_e = 1.44269504f;
/// A mask in that scale. What is finite stays so: masks of the lowest float leave their rows with equal scores.
QUERN_VEC_INL F mask_scaled(F m) {
    F most = splat(3.40282347e38f);
    return min2(max2(m * log2_e, min2(-most, m)), max2(most, m));
}
/// Adds a mask to the scores s [n, tile_queries] of keys from t0 on.
QUERN_VEC_FN void add_mask(const AttentionTile::Mask& m, i64 queries, i64 t0, i64 n, float* s) {
    if (!m.data) return;
    const float* p = m.data + t0 * m.key;
    if (m.query == 0) {
        for (i64 t = 0; t < n; ++t) {
            F x = mask_scaled(splat(p[t * m.key]));
            store(s + t * tile_queries, load(s + t * tile_queries) + x);
            store(s + t * tile_queries + W, load(s + t * tile_queries + W) + x);
        }
        return;
    }
    for (i64 r0 = 0; r0 < queries; r0 += W) {
        i64 rows = lesser(W, queries - r0);
        for (i64 c0 = 0; c0 < n; c0 += W) {
            i64 cols = lesser(W, n - c0);
            F x[W];
            for (i64 i = 0; i < W; ++i) {
                const float* row = p + (r0 + i) * m.query + c0 * m.key;
                x[i] = i >= rows ? F{} : m.key == 0 ? splat(*row) : cols == W ? load(row) : load_n(row, cols);
            }
            transpose(x);
            for (i64 i = 0; i < cols; ++i) {
                float* to = s + (c0 + i) * tile_queries + r0;
                store(to, load(to) + mask_scaled(x[i]));
            }
        }
    }
}
/// Masks close keys by -inf, or by floats so low that no score makes a difference.
constexpr float closing = -1.7e38f, open_score = -1e37f;
/// Whether the mask has no value above `limit`, nor NaN, for `queries` and n keys from t0 on. A mask of another kind shows that by its first value.
QUERN_VEC_FN bool all_below(const AttentionTile::Mask& m, i64 queries, i64 t0, i64 n, float limit) {
    if (!m.data) return false;
    for (i64 r = m.query ? queries - 1 : 0; r >= 0; --r) {
        const float* p = m.data + r * m.query + t0 * m.key;
        i64 t = 0, end = m.key ? n : 1;
        for (; t + W <= end; t += W)
            if (any(~(load(p + t) <= splat(limit)))) return false;
        for (; t < end; ++t)
            if (!(p[t] <= limit)) return false;
    }
    return true;
}
/// Whether the keys add nothing to these queries, whose least maximum so far is `least`.
QUERN_VEC_INL bool all_closed(const AttentionTile& a, i64 first, i64 queries, i64 t0, i64 n, float least) {
    const float limit = least > open_score ? closing : -__builtin_inff();
    for (AttentionTile::Mask m : a.mask) {
        if (m.data) m.data += first * m.query;
        if (all_below(m, queries, t0, n, limit)) return true;
    }
    return false;
}
/// The power of what follows a maximum: -inf gives 0, whatever the maximum was.
QUERN_VEC_INL F finite_top(F top) { return select(top == -splat(__builtin_inff()), F{}, top); }
QUERN_VEC_INL float blank(const AttentionTile& a) { return a.closed_is_zero || a.keys <= 0 ? 0.f : __builtin_nanf(""); }

/// Up to tile_queries queries on their way through the keys, in one or two vectors.
struct QueryPanel {
    i64 first, n;
    float *q, *y;  ///< [d, tile_queries] scaled; [n, wide]
    F top[2], sum[2];
    bool begun = false, closed = false;  ///< y holds something; the keys at hand add nothing

    float least() const {
        F t = n > W ? min2(top[0], top[1]) : top[0];
        float lanes[W], r = __builtin_inff();
        store(lanes, t);
        for (float x : lanes) r = x < r ? x : r;
        return r;
    }
};
/// The scores s [m, tile_queries] of H vectors of queries become powers of 2; true where the sums so far are in another scale, by `shrink`.
template <int H>
QUERN_VEC_INL bool attention_powers(QueryPanel& p, i64 m, float* s, float* shrink) {
    constexpr int N = panel<float>, K = 4 / H;  // keys at a time
    F top[4], base[H], old[H];
    for (int i = 0; i < 4; ++i) top[i] = p.top[i % H];
    i64 t = 0;  // NaN is no maximum here: its power is NaN too
    for (; t + K <= m; t += K) {
        QUERN_UNROLL
        for (int i = 0; i < 4; ++i) top[i] = max2(load(s + (t + i / H) * N + i % H * W), top[i]);
    }
    for (; t < m; ++t)
        for (int h = 0; h < H; ++h) top[h] = max2(load(s + t * N + h * W), top[h]);
    for (int h = 0; h < H; ++h) {
        for (int i = h + H; i < 4; i += H) top[h] = max2(top[i], top[h]);
        old[h] = p.top[h];
        p.top[h] = top[h];
        base[h] = finite_top(top[h]);
    }
    Pack<4> sums{};
    for (t = 0; t + K <= m; t += K) {
        Pack<4> e;
        QUERN_UNROLL
        for (int i = 0; i < 4; ++i) e.v[i] = load(s + (t + i / H) * N + i % H * W) - base[i % H];
        e = exp2_below(e);
        sums = sums + e;
        QUERN_UNROLL
        for (int i = 0; i < 4; ++i) store(s + (t + i / H) * N + i % H * W, e.v[i]);
    }
    for (; t < m; ++t)
        for (int h = 0; h < H; ++h) {
            F e = exp2_below<F>(load(s + t * N + h * W) - base[h]);
            store(s + t * N + h * W, e);
            sums.v[h] += e;
        }
    bool moved = false;
    for (int h = 0; h < H; ++h) {
        for (int i = h + H; i < 4; i += H) sums.v[h] += sums.v[i];
        F c = exp2_below<F>(old[h] - base[h]);
        p.sum[h] = fma(p.sum[h], c, sums.v[h]);
        store(shrink + h * W, c);
        moved = moved || any(old[h] != p.top[h]);
    }
    return moved;
}
/// Rows of `width` values, filled up with zeros; their distance is then `width`.
QUERN_VEC_INL const float* gathered_rows(const float* from, i64& row, i64 rows, i64 cols, i64 width, float* to) {
    for (i64 t = 0; t < rows; ++t) {
        const float* x = from + t * row;
        float* y = to + t * width;
        i64 j = 0;
        for (; j + W <= cols; j += W) store(y + j, load(x + j));
        if (j < cols) store(y + j, load_n(x + j, cols - j)), j += W;
        for (; j < width; j += W) store(y + j, F{});
    }
    row = width;
    return to;
}
/// The panels go through the keys together.
QUERN_VEC_FN void attention_panels(const AttentionTile& a, QueryPanel* panels, i64 count, float* s, float* vcopy, float* kcopy) {
    constexpr int N = panel<float>, R = rows_max<float>;
    i64 wide = upto(a.dv, N), blocks = blocks_of(a.keys, key_block);
    bool copy_k = a.k_row * static_cast<i64>(sizeof(float)) % 4096 == 0, copy_v = a.dv != wide;
    for (i64 ib = 0; ib < blocks; ++ib) {
        i64 t0 = piece(a.keys, blocks, ib), m = piece(a.keys, blocks, ib + 1) - t0, k_row = a.k_row, v_row = a.v_row;
        const float *k = a.k + t0 * k_row, *v = a.v + t0 * v_row;
        bool needed = !a.mask[0].data && !a.mask[1].data;
        if (!needed)
            for (QueryPanel* p = panels; p < panels + count; ++p) p->closed = all_closed(a, p->first, p->n, t0, m, p->least()), needed = needed || !p->closed;
        if (!needed) continue;
        if (copy_k) k = gathered_rows(k, k_row, m, a.d, upto(a.d, W) + 16, kcopy);
        if (copy_v) v = gathered_rows(v, v_row, m, a.dv, wide, vcopy);
        for (QueryPanel* p = panels; p < panels + count; ++p) {
            if (p->closed) continue;
            bool two = p->n > W;
            i64 pieces = blocks_of(m, R);
            for (i64 i = 0; i < pieces; ++i) {
                i64 r0 = piece(m, pieces, i), r = piece(m, pieces, i + 1) - r0;
                if (two) micro_for<float, in_place, R, false>(r)(k + r0 * k_row, k_row, p->q, N, s + r0 * N, N, a.d, false, nullptr, 0, nullptr);
                else part_for<in_place, 1>(r)(k + r0 * k_row, k_row, p->q, N, s + r0 * N, N, W, a.d, false, nullptr);
            }
            for (AttentionTile::Mask mask : a.mask) {
                if (mask.data) mask.data += p->first * mask.query;
                add_mask(mask, p->n, t0, m, s);
            }
            float shrink[N];
            bool moved = two ? attention_powers<2>(*p, m, s, shrink) : attention_powers<1>(*p, m, s, shrink);
            if (p->begun && moved)
                for (i64 r = 0; r < p->n; ++r) {
                    F c = splat(shrink[r]);
                    for (i64 j = 0; j < wide; j += W) store(p->y + r * wide + j, load(p->y + r * wide + j) * c);
                }
            pieces = blocks_of(p->n, R);
            for (i64 j = 0; j < wide; j += N)
                for (i64 i = 0; i < pieces; ++i) {
                    i64 r0 = piece(p->n, pieces, i), r = piece(p->n, pieces, i + 1) - r0;
                    micro_for<float, 0, R, false>(r)(s + r0, N, v + j, v_row, p->y + r0 * wide + j, wide, m, p->begun, nullptr, 0, nullptr);
                }
            p->begun = true;
        }
    }
    for (const QueryPanel* p = panels; p < panels + count; ++p) {
        float total[N];
        store(total, p->sum[0]);
        store(total + W, p->sum[1]);
        for (i64 r = 0; r < p->n; ++r) {
            bool closed = total[r] == 0.f;
            F c = splat(closed ? blank(a) : 1.f / total[r]);
            float* to = a.y + (p->first + r) * a.y_row;
            const float* y = p->y + r * wide;
            i64 j = 0;
            for (; j + W <= a.dv; j += W) store(to + j, closed ? c : load(y + j) * c);
            if (j < a.dv) store_n(to + j, closed ? c : load(y + j) * c, a.dv - j);
        }
    }
}
/// Products of one query with W keys from k on, of which the first n exist.
QUERN_VEC_INL F dots(const float* q, const float* k, i64 k_row, i64 n, i64 d) {
    F r[W];
    QUERN_UNROLL
    for (int i = 0; i < W; ++i) r[i] = F{};
    const float* at[W];
    QUERN_UNROLL
    for (int i = 0; i < W; ++i) at[i] = k + lesser(i, n - 1) * k_row;
    i64 c = 0;
    for (; c + W <= d; c += W) {
        F x = load(q + c);
        QUERN_UNROLL
        for (int i = 0; i < W; ++i) r[i] = fma(x, load(at[i] + c), r[i]);
    }
    if (c < d) {
        F x = load_n(q + c, d - c);
        for (int i = 0; i < W; ++i) r[i] = fma(x, load_n(at[i] + c, d - c), r[i]);
    }
    transpose(r);
    QUERN_UNROLL
    for (int h = W / 2; h > 0; h /= 2)
        for (int i = 0; i < h; ++i) r[i] += r[i + h];
    return r[0];
}
/// y [dv] = shrink * y + p [n] x v.
QUERN_VEC_INL void weighted_rows(const float* p, const float* v, i64 v_row, i64 n, i64 dv, float shrink, float* y) {
    F c = splat(shrink);
    i64 j = 0;
    for (; j + 4 * W <= dv; j += 4 * W) {
        F a0 = load(y + j) * c, a1 = load(y + j + W) * c, a2 = load(y + j + 2 * W) * c, a3 = load(y + j + 3 * W) * c;
        for (i64 t = 0; t < n; ++t) {
            const float* x = v + t * v_row + j;
            F w = splat(p[t]);
            a0 = fma(w, load(x), a0);
            a1 = fma(w, load(x + W), a1);
            a2 = fma(w, load(x + 2 * W), a2);
            a3 = fma(w, load(x + 3 * W), a3);
        }
        store(y + j, a0);
        store(y + j + W, a1);
        store(y + j + 2 * W, a2);
        store(y + j + 3 * W, a3);
    }
    for (; j < dv; j += W) {
        i64 part = lesser(W, dv - j);
        F a = load(y + j) * c;  // the row of the work area is wide enough
        for (i64 t = 0; t < n; ++t) a = fma(splat(p[t]), part == W ? load(v + t * v_row + j) : load_n(v + t * v_row + j, part), a);
        store(y + j, a);
    }
}
QUERN_VEC_FN void attention_rows(const AttentionTile& a, float* work) {
    float* s = work;
    float* y = s + key_block;
    i64 wide = upto(a.dv, panel<float>);
    for (i64 r = 0; r < a.queries; ++r) {
        for (i64 j = 0; j < wide; ++j) y[j] = 0;
        float top = -__builtin_inff(), sum = 0;
        for (i64 t0 = 0; t0 < a.keys; t0 += key_block) {
            i64 m = lesser(key_block, a.keys - t0);
            if (all_closed(a, r, 1, t0, m, top)) continue;
            F high = -splat(__builtin_inff()), scale = splat(a.scale * log2_e);
            for (i64 t = 0; t < m; t += W) {
                i64 part = lesser(W, m - t);
                F x = dots(a.q + r * a.q_row, a.k + (t0 + t) * a.k_row, a.k_row, part, a.d) * scale;
                for (const auto& mask : a.mask) {
                    if (!mask.data) continue;
                    const float* p = mask.data + r * mask.query + (t0 + t) * mask.key;
                    x += mask_scaled(mask.key == 0 ? splat(*p) : part == W ? load(p) : load_n(p, part));
                }
                if (part < W) {  // lanes without a key
                    float lanes[W];
                    store(lanes, x);
                    for (i64 i = part; i < W; ++i) lanes[i] = -__builtin_inff();
                    x = load(lanes);
                }
                store(s + t, x);
                high = max_nan(high, x);
            }
            float lanes[W], before = top;
            store(lanes, high);
            for (int i = 0; i < W; ++i) top = lanes[i] > top || lanes[i] != lanes[i] ? lanes[i] : top;
            F base = finite_top(splat(top)), part = F{};
            for (i64 t = 0; t < m; t += W) {
                F e = exp2_below(load(s + t) - base);
                store(s + t, e);
                part += e;
            }
            float shrink = exp2_below(splat(before) - base)[0];
            sum = fma1(sum, shrink, sum_lanes(part));
            weighted_rows(s, a.v + t0 * a.v_row, a.v_row, m, a.dv, shrink, y);
        }
        float* to = a.y + r * a.y_row;
        float c = 1.f / sum;
        for (i64 j = 0; j < a.dv; j += W) {
            i64 part = lesser(W, a.dv - j);
            F x = sum == 0.f ? splat(blank(a)) : load(y + j) * c;
            if (part == W) store(to + j, x);
            else store_n(to + j, x, part);
        }
    }
}
/// Panels of one or two vectors while enough queries are left, then one after the other.
QUERN_VEC_FN void attention_f32(const AttentionTile& a, void* work) {
    if (a.queries <= 0 || a.dv <= 0) return;
    constexpr i64 N = tile_queries;
    i64 wide = upto(a.dv, N), done = 0, count = 0;
    float* q = static_cast<float*>(work);
    float* y = q + query_panels * N * a.d;
    float* s = y + query_panels * N * wide;
    float* vcopy = s + key_block * N;
    QueryPanel panels[query_panels];
    while (a.keys > 0 && count < query_panels && a.queries - done > few_queries) {
        i64 left = a.queries - done, n = left > W + 1 ? lesser(left, N) : lesser(left, W);
        panels[count] = {done, n, q + count * N * a.d, y + count * N * wide, {-splat(__builtin_inff()), -splat(__builtin_inff())}, {F{}, F{}}, false, false};
        pack_queries(a.q + done * a.q_row, a.q_row, n, a.d, a.scale * log2_e, panels[count].q);
        ++count;
        done += n;
    }
    if (count) attention_panels(a, panels, count, s, vcopy, vcopy + key_block * wide);
    if (done == a.queries) return;
    AttentionTile rest = a;
    rest.queries -= done;
    rest.q += done * a.q_row;
    rest.y += done * a.y_row;
    for (auto& mask : rest.mask)
        if (mask.data) mask.data += done * mask.query;
    attention_rows(rest, static_cast<float*>(work));
}

QUERN_VEC_END
