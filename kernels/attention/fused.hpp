// Attention whose operands lie anywhere: heads, positions and projections are found by strides, the score matrix is never written.
#pragma once
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <quern/kernels/attention/rotary.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace attention {

/// A factor of a dimension of an operand. The factors of all dimensions, in order, are the operand's memory, row-major.
struct Factor {
    enum Role : std::int64_t { fixed = -1, lead = 0, query = 8, key = 9, inner = 10 };
    std::int64_t dim = 0;    ///< of the view
    std::int64_t role = 0;   ///< fixed; lead + i: index i of batch, head, ... (at most max_lead); query; key; inner: a row's values
    std::int64_t size = -1;  ///< -1: what the dimension has beyond its other factors; at most one in a dimension
    std::int64_t index = 0;  ///< of `fixed`: the part that is meant
};
using Layout = std::vector<Factor>;
constexpr int max_lead = 6, roles = 11;

/// Y = softmax(scale * Q K^T + mask + mask) V for each leading index, f32. Views: in[0..2] = Q, K, V, in[3], in[4] = masks or
/// absent, out[0] = Y, each of any rank with its layout. Q and Y have all leading roles and `query`; K and V have `key` and may lack
/// leading roles (shared by all indices); masks may lack any. The innermost factor of Q, K (size D), V and Y (size Dv) is `inner`;
/// a mask has none, and its `key` factor is innermost if there is one. Sizes that disagree raise shape_mismatch.
/// Keys that a mask closes for all queries of a tile, by -inf or by the lowest floats where others are open, are not looked at.
/// No keys give zeros, as does a query whose scores are all -inf if `closed_is_zero`; else that gives NaN.
/// Where `table` is there, in[5], in[6] = cosines and sines of the rotation of the first R values of Q's rows (ONNX's RotaryEmbedding), of that
/// layout: leading roles and `query` as Q's, or absent; `inner`, R / 2 of them, innermost.
/// Where `causal`, query i of S sees the first T - S + i + 1 of T keys; `closed` is added to the scores of the others. There is one mask at most then. With
/// `once` it holds 0 and `closed` only, and `closed` is added once to a key that both close.
/// Tolerance against double: 4e-6 * max |v| for scores of magnitude up to 10.
struct FusedProblem {
    float scale = 1;
    bool closed_is_zero = false, interleaved = false, causal = false, once = false;
    float closed = 0;
    Layout q, k, v, y, mask[2], table;
};

/// A layout over the concrete dims of a view.
struct Strides {
    std::array<std::int64_t, roles> size, stride;  ///< 1 and 0 where a role is absent
    std::int64_t offset = 0;
    Strides() { size.fill(1), stride.fill(0); }
    Strides(const Layout& layout, const View& v, const char* what) : Strides() {
        std::int64_t step = 1, whole = v.count();
        bool within = v.room > 0;  // one block of the last two dimensions
        for (std::size_t i = layout.size(); i-- > 0;) {
            const Factor& f = layout[i];
            std::int64_t n = f.size;
            if (f.dim < 0 || f.dim >= v.rank) mismatch(what, v.rank, f.dim + 1);
            if (within && f.dim < v.rank - 2) {
                within = false;
                step = v.dims[v.rank - 1] * v.room;
                whole = v.count(0, v.rank - 2) * step;
            }
            if (n < 0) {
                std::int64_t others = 1;
                for (const Factor& o : layout)
                    if (o.dim == f.dim && o.size >= 0) others *= o.size;
                std::int64_t whole = v.dims[f.dim];
                n = others ? whole / others : 0;
                if (n * others != whole && whole) mismatch(what, whole, others);
            }
            if (f.role == Factor::fixed && (f.index < 0 || (n > 0 && f.index >= n))) mismatch(what, n, f.index + 1);
            if (f.role == Factor::fixed) offset += f.index * step;
            else size[static_cast<std::size_t>(f.role)] = n, stride[static_cast<std::size_t>(f.role)] = n == 1 ? 0 : step;
            if (__builtin_mul_overflow(step, n, &step)) mismatch(what, v.count(), INT64_MAX);
        }
        if (step != whole) mismatch(what, whole, step);
    }

private:
    [[noreturn]] static void mismatch(const char* what, std::int64_t found, std::int64_t wanted) {
        raise(ErrorCode::shape_mismatch, std::string(what) + " of attention has " + std::to_string(found) + " values; accepted are multiples of " + std::to_string(wanted));
    }
};

class FusedKernel final : public Kernel {
public:
    FusedKernel(FusedProblem p, const vec::Table& t) : p_(std::move(p)), t_(t) { roomy_in = 6; }
    const char* name() const noexcept override { return "attention.fused"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto plan = std::make_shared<Plan>(resolve(in, out[0]));
        Booking b;
        b.scratch = plan->work * static_cast<std::size_t>(workers);
        b.state = std::move(plan);
        return b;
    }
    void run(const Call& c) const override {
        const Plan& p = *static_cast<const Plan*>(c.state);
        c.workers.for_each(p.lead_count * p.tiles, [&](std::int64_t i, int worker) {
            std::int64_t tile = i % p.tiles, rest = i / p.tiles, from = tile * p.queries;
            std::array<std::int64_t, max_lead> at{};
            for (int d = max_lead - 1; d >= 0; --d)
                if (p.lead[d] > 1) at[d] = rest % p.lead[d], rest /= p.lead[d];
            vec::AttentionTile t;
            t.queries = std::min(p.queries, p.s - from);
            t.keys = p.t, t.d = p.d, t.dv = p.dv;
            t.scale = p_.scale;
            t.closed_is_zero = p_.closed_is_zero;
            t.q_row = p.q.stride[Factor::query], t.k_row = p.k.stride[Factor::key], t.v_row = p.v.stride[Factor::key], t.y_row = p.y.stride[Factor::query];
            t.q = c.in[0].in<float>() + place(p.q, at) + from * t.q_row;
            t.k = c.in[1].in<float>() + place(p.k, at);
            t.v = c.in[2].in<float>() + place(p.v, at);
            t.y = c.out[0].out<float>() + place(p.y, at) + from * t.y_row;
            std::byte* mine = c.scratch + static_cast<std::size_t>(worker) * p.work;
            if (!p_.table.empty()) {
                auto* turned = reinterpret_cast<float*>(mine + p.inner_work);
                for (std::int64_t r = 0; r < t.queries; ++r) {
                    const std::int64_t row = place(p.table, at) + (from + r) * p.table.stride[Factor::query];
                    turn(t.q + r * t.q_row, c.in[5].in<float>() + row, c.in[6].in<float>() + row, p.table.size[Factor::inner], p.d, p_.interleaved, turned + r * p.d);
                }
                t.q = turned, t.q_row = p.d;
            }
            for (std::size_t m = 0; m < 2; ++m) {
                if (!p.masked[m]) continue;
                t.mask[m].query = p.mask[m].stride[Factor::query];
                t.mask[m].key = p.mask[m].stride[Factor::key];
                t.mask[m].data = c.in[3 + m].in<float>() + place(p.mask[m], at) + from * t.mask[m].query;
            }
            if (!p.later.empty()) close_later(p, from, t, reinterpret_cast<float*>(mine + p.work - p.both_work));
            t_.attention_f32(t, mine);
        });
    }

private:
    struct Plan {
        Strides q, k, v, y, mask[2], table;
        bool masked[2] = {false, false};
        std::array<std::int64_t, max_lead> lead;
        std::int64_t s, t, d, dv, lead_count = 1, tiles, queries;
        std::size_t work, inner_work, both_work = 0;  ///< of a worker; what of it, first, the loops of vec take, and, last, both masks of a tile
        std::vector<float> later;  ///< `causal`: what is added to query 0's keys, and before it that to the keys of later queries, who see one more each
    };
    /// Keys after a query's own. The two masks are added to each other where every query has an open key: nothing else then has a weight. `both`: [queries, keys].
    void close_later(const Plan& p, std::int64_t from, vec::AttentionTile& t, float* both) const {
        bool open = true;
        for (std::int64_t r = 0; p_.once && p.masked[0] && r < t.queries && open; ++r) {
            std::int64_t j = std::min(p.t, p.t - p.s + from + r + 1) - 1;
            while (j >= 0 && t.mask[0].data[r * t.mask[0].query + j * t.mask[0].key] != 0) --j;
            open = j >= 0;
        }
        const float* later = p.later.data() + p.s - 1 - from;
        if (open) {
            t.mask[1].data = later;
            t.mask[1].query = -1;
            return;
        }
        for (std::int64_t r = 0; r < t.queries; ++r)
            for (std::int64_t j = 0; j < p.t; ++j)
                both[r * p.t + j] = later[j - r] != 0 ? later[j - r] : t.mask[0].data[r * t.mask[0].query + j * t.mask[0].key];
        t.mask[0].data = both;
        t.mask[0].query = p.t, t.mask[0].key = 1;
    }
    static std::int64_t place(const Strides& s, const std::array<std::int64_t, max_lead>& at) {
        std::int64_t o = s.offset;
        for (std::size_t d = 0; d < max_lead; ++d) o += at[d] * s.stride[d];
        return o;
    }
    static void agree(const Strides& s, std::int64_t role, std::int64_t size, bool broadcasts, const char* what) {
        std::int64_t found = s.size[static_cast<std::size_t>(role)];
        if (found == size || (broadcasts && found == 1)) return;
        raise(ErrorCode::shape_mismatch, std::string(what) + " of attention has a dimension of " + std::to_string(found) + " where " + std::to_string(size) + " is accepted");
    }
    Plan resolve(std::span<const View> in, const View& out) const {
        Plan p;
        p.q = Strides(p_.q, in[0], "Q");
        p.k = Strides(p_.k, in[1], "K");
        p.v = Strides(p_.v, in[2], "V");
        p.y = Strides(p_.y, out, "the result");
        for (std::size_t m = 0; m < 2; ++m) {
            p.masked[m] = in.size() > 3 + m && in[3 + m].present();
            if (p.masked[m]) p.mask[m] = Strides(p_.mask[m], in[3 + m], "the mask");
        }
        p.s = p.q.size[Factor::query], p.t = p.k.size[Factor::key], p.d = p.q.size[Factor::inner], p.dv = p.v.size[Factor::inner];
        bool absent_masks[2] = {!p.masked[0], !p.masked[1]};
        for (std::size_t d = 0; d < max_lead; ++d) {
            std::int64_t n = p.q.size[d];
            bool used = std::any_of(p_.q.begin(), p_.q.end(), [&](const Factor& f) { return f.role == static_cast<std::int64_t>(d); });
            p.lead[d] = used ? n : 1;
            if (!used) continue;
            p.lead_count *= n;
            std::int64_t role = static_cast<std::int64_t>(d);
            agree(p.k, role, n, true, "K");
            agree(p.v, role, n, true, "V");
            agree(p.y, role, n, false, "the result");
            for (std::size_t m = 0; m < 2; ++m)
                if (!absent_masks[m]) agree(p.mask[m], role, n, true, "the mask");
        }
        for (const Strides* s : {&p.q, &p.k, &p.v, &p.y})
            if (s->size[Factor::inner] > 1 && s->stride[Factor::inner] != 1) raise(ErrorCode::shape_mismatch, "the rows of attention's operands are not the innermost factor of their layouts");
        agree(p.k, Factor::inner, p.d, false, "K");
        agree(p.v, Factor::key, p.t, false, "V");
        agree(p.y, Factor::query, p.s, false, "the result");
        agree(p.y, Factor::inner, p.dv, false, "the result");
        for (std::size_t m = 0; m < 2; ++m) {
            if (absent_masks[m]) continue;
            agree(p.mask[m], Factor::query, p.s, true, "the mask");
            agree(p.mask[m], Factor::key, p.t, true, "the mask");
        }
        p.tiles = std::max<std::int64_t>(1, (p.s + t_.attention_queries - 1) / t_.attention_queries);
        p.queries = t_.attention_queries;  // whole panels; the last tile takes the rest
        if (p.s == 0 || p.dv == 0) p.lead_count = 0;
        p.work = p.inner_work = (t_.attention_work_bytes(p.d, p.dv) + 63) / 64 * 64;
        if (!p_.table.empty()) resolve_table(in, p);
        if (p_.causal && p.masked[1]) raise(ErrorCode::shape_mismatch, "a causal attention with two masks; one is accepted");
        if (p_.causal && p.s > 1) {
            p.later.assign(static_cast<std::size_t>(p.t + p.s - 1), p_.closed);
            std::fill_n(p.later.begin(), p.t, 0.f);
            if (p_.once && p.masked[0]) p.both_work = (static_cast<std::size_t>(std::min(p.s, t_.attention_queries) * p.t) * sizeof(float) + 63) / 64 * 64;
            p.work += p.both_work;
        }
        return p;
    }
    void resolve_table(std::span<const View> in, Plan& p) const {
        if (in.size() < 7 || !in[5].present() || !in[6].present()) raise(ErrorCode::shape_mismatch, "queries to be turned without cosines and sines");
        p.table = Strides(p_.table, in[5], "the cosines");
        const Strides sines(p_.table, in[6], "the sines");
        if (sines.size != p.table.size || sines.stride != p.table.stride || sines.offset != p.table.offset) raise(ErrorCode::shape_mismatch, "sines of other dimensions than the cosines");
        for (const Strides* s : {&std::as_const(p.table), &sines}) {
            for (std::size_t d = 0; d < max_lead; ++d) agree(*s, static_cast<std::int64_t>(d), p.lead[d], true, "the table");
            agree(*s, Factor::query, p.s, true, "the table");
            agree(*s, Factor::key, 1, false, "the table");
            if (s->size[Factor::inner] > p.d / 2 || (s->size[Factor::inner] > 1 && s->stride[Factor::inner] != 1))
                raise(ErrorCode::shape_mismatch, "a table of " + std::to_string(s->size[Factor::inner]) + " angles for rows of " + std::to_string(p.d) + "; accepted: up to half as many, innermost");
        }
        p.work += (static_cast<std::size_t>(std::min(p.s, t_.attention_queries) * p.d) * sizeof(float) + 63) / 64 * 64;
    }
    FusedProblem p_;
    const vec::Table& t_;
};

}  // namespace attention
QUERN_END
