// Attention blocks: softmax(scale * Q K^T + masks) V with all that only moves operands and result becomes one node that reads
// the projections where they lie. What may lie between: transposes, reshapes, splits, slices and picks along one axis,
// repeated heads, and scalar factors.
#pragma once
#include <array>
#include <map>

#include <quern/kernels/attention/fused.hpp>

#include "causal-inl.hpp"
#include "match-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// Dimensions cut into atoms. An axis of a value is a list of atoms, outermost first; cutting an atom cuts it everywhere.
class Atoms {
public:
    using Axis = std::vector<int>;
    using Axes = std::vector<Axis>;
    struct Atom {
        Dim size;
        std::int64_t fixed = -1;  ///< >= 0: only this index is meant
        int first = -1, second = -1;
    };
    std::vector<Atom> all;

    int add(Dim size, std::int64_t fixed = -1) {
        all.push_back({std::move(size), fixed, -1, -1});
        return static_cast<int>(all.size()) - 1;
    }
    /// An axis of one atom; none where the size is 1.
    Axis axis(const Dim& size) { return size.is(1) ? Axis{} : Axis{add(size)}; }
    /// The uncut atoms.
    void leaves(int a, Axis& to) const {
        const Atom& x = all[static_cast<std::size_t>(a)];
        if (x.first < 0) return to.push_back(a);
        leaves(x.first, to);
        leaves(x.second, to);
    }
    Axis leaves(const Axis& axis) const {
        Axis r;
        for (int a : axis) leaves(a, r);
        return r;
    }
    Dim size(const Axis& atoms) const {
        Dim r(1);
        for (int a : atoms) r *= all[static_cast<std::size_t>(a)].size;
        return r;
    }
    /// The same elements in the same order under other dimensions; false where the atoms cannot be cut so.
    bool regroup(const Axes& from, const std::vector<Dim>& dims, Axes& to) {
        Axis flat;
        for (const Axis& a : from)
            for (int leaf : leaves(a)) flat.push_back(leaf);
        to.clear();
        std::size_t at = 0;
        for (const Dim& d : dims) {
            Axis axis;
            Dim rest = d;
            while (!rest.is(1)) {
                if (at >= flat.size()) return false;
                int a = flat[at];
                Dim size = all[static_cast<std::size_t>(a)].size, q;
                if (divides(size, rest, q)) {
                    axis.push_back(a);
                    ++at;
                    rest = q;
                } else if (all[static_cast<std::size_t>(a)].fixed < 0 && divides(rest, size, q)) {
                    int outer = add(rest), inner = add(q);
                    all[static_cast<std::size_t>(a)].first = outer;
                    all[static_cast<std::size_t>(a)].second = inner;
                    axis.push_back(outer);
                    flat[at] = inner;
                    rest = Dim(1);
                } else {
                    return false;
                }
            }
            to.push_back(std::move(axis));
        }
        return at == flat.size();
    }

private:
    static bool divides(const Dim& part, const Dim& whole, Dim& q) {
        if (part.is_const() && part.value() < 1) return false;
        if (whole.is_const() && whole.value() < 1) return false;
        if (part == whole) return q = Dim(1), true;
        if (part.is_const() && whole.is_const()) {
            if (whole.value() % part.value()) return false;
            return q = Dim(whole.value() / part.value()), true;
        }
        if (whole.is_const()) return false;
        q = floor_div(whole, part);
        return q * part == whole;
    }
};

/// Where an operand of attention comes from: a value, and what its axes are.
struct Source {
    ValueId value = no_value;
    Atoms::Axes axes;
    double scale = 1;
};

class AttentionMatcher {
public:
    /// `turns`: the kernel can turn queries, and close later keys by itself where `causal` finds that.
    AttentionMatcher(Matcher& m, bool turns, CausalMasks* causal = nullptr) : m_(m), g_(m.g), turns_(turns), causal_masks_(causal) {}

    /// `id` is the product of probabilities and V.
    bool match(NodeId id) {
        const Node& n = g_.nodes[id];
        if (!is_op(&n, "MatMul") || g_.fact(n.out[0]).dtype != DType::f32) return false;
        inside_ = {id};
        const Node* soft = softmax_behind(n.in[0]);
        if (!soft || !ranked(n.in[0], 2) || !ranked(n.in[1], 2) || g_.fact(n.in[1]).rank() > g_.fact(n.in[0]).rank()) return false;
        const std::vector<Dim>& p = g_.fact(n.in[0]).dims;
        if (!(g_.fact(n.out[0]).rank() == static_cast<int>(p.size()))) return false;
        Atoms::Axes scores;
        for (const Dim& d : p) scores.push_back(atoms_.axis(d));
        Source q, k, v;
        if (!find_product(soft->in[0], scores, q, k)) return false;
        // P's last axis and V's rows: the same length.
        const std::vector<Dim>& dv = g_.fact(n.in[1]).dims;
        Atoms::Axis inner = atoms_.axis(dv.back());
        if (!(dv[dv.size() - 2] == keys_) || !operand(n.in[1], scores, p, key_axis_, inner, inner, false, v)) return false;
        Atoms::Axes y(scores.begin(), scores.end() - 1);
        y.push_back(inner);
        for (NodeId i : inside_)
            if (i != id && !swallowed(g_.nodes[i])) return false;
        return finish(id, q, k, v, y, inner);
    }

    /// `id` is ONNX's Attention: the same kernel, with what moves its operands taken in. `closed`: masks of truth values as addends.
    bool match_operator(NodeId id, std::map<ValueId, ValueId>& closed) {
        const Node& n = g_.nodes[id];
        if (!is_op(&n, "Attention") || g_.fact(n.out[0]).dtype != DType::f32) return false;
        for (std::size_t i = 4; i < n.in.size(); ++i)
            if (n.in[i] != no_value) return false;
        for (std::size_t o = 1; o < n.out.size(); ++o)
            if (n.out[o] != no_value && !m_.swallowed(n.out[o], {})) return false;
        if (n.attrs.f("softcap", 0) != 0 || n.attrs.i("left_window_size", -1) >= 0 || n.attrs.i("right_window_size", -1) >= 0) return false;
        for (int i = 0; i < 3; ++i)
            if (!ranked(n.in[i], 3) || g_.fact(n.in[i]).rank() != g_.fact(n.in[0]).rank()) return false;
        const std::vector<Dim>&q = g_.fact(n.in[0]).dims, &k = g_.fact(n.in[1]).dims, &v = g_.fact(n.in[2]).dims;
        bool four = q.size() == 4;
        Dim heads = four ? q[1] : Dim(n.attrs.i("q_num_heads", 0)), shared = four ? k[1] : Dim(n.attrs.i("kv_num_heads", 0));
        if (!heads.is_const() || !shared.is_const() || shared.value() < 1 || heads.value() % shared.value()) return false;
        Dim d = four ? q[3] : floor_div(q[2], heads), dv = four ? v[3] : floor_div(v[2], shared);
        Dim s = q[four ? 2 : 1];
        keys_ = k[four ? 2 : 1];
        if (n.attrs.i("is_causal", 0)) {  // the first query sees the first key
            if (!turns_ || !(s == keys_)) return false;
            causal_ = {true, -INFINITY, no_value, false};
        }
        if (!d.is_const() || !dv.is_const() || d.value() < 1 || !(k[0] == q[0]) || !(v[0] == q[0]) || !(v[four ? 2 : 1] == keys_)) return false;
        Atoms::Axis batch = atoms_.axis(q[0]), outer = atoms_.axis(shared), all = outer, inner = atoms_.axis(dv);
        for (int a : atoms_.axis(Dim(heads.value() / shared.value()))) all.push_back(a);
        query_axis_ = atoms_.axis(s);
        key_axis_ = atoms_.axis(keys_);
        depth_ = atoms_.axis(d);
        leading_ = {batch, all};
        auto axes = [&](const Atoms::Axis& head, const Atoms::Axis& rows, const Atoms::Axis& row) {
            if (four) return Atoms::Axes{batch, head, rows, row};
            Atoms::Axis joined = head;
            joined.insert(joined.end(), row.begin(), row.end());
            return Atoms::Axes{batch, rows, joined};
        };
        closed_is_zero_ = true;
        float given = n.attrs.f("scale", 0);
        scale_ = given != 0 ? static_cast<double>(given) : 1 / std::sqrt(static_cast<double>(d.value()));
        Source sq{n.in[0], axes(all, query_axis_, depth_), 1}, sk{n.in[1], axes(outer, key_axis_, depth_), 1}, sv{n.in[2], axes(outer, key_axis_, inner), 1};
        if (!trace(sq, depth_, true) || !trace(sk, depth_, true) || !trace(sv, inner, false)) return false;
        ValueId mask = n.in.size() > 3 ? n.in[3] : no_value;
        if (mask != no_value && !operator_mask(mask, {q[0], heads, s, keys_}, {batch, all, query_axis_, key_axis_}, closed)) return false;
        return finish(id, sq, sk, sv, axes(all, query_axis_, inner), inner);
    }

    /// `id` puts new keys or values [B, H, L, D] behind old ones: what moves and turns the new ones is taken in, where there is anything of the kind or the
    /// old ones are an input and all are an output.
    bool match_cache(NodeId id) {
        const Node& n = g_.nodes[id];
        if (!is_op(&n, "Concat") || n.in.size() != 2 || g_.fact(n.out[0]).dtype != DType::f32) return false;
        const std::int64_t axis = n.attrs.i("axis", 0);
        if ((axis != 2 && axis != -2) || !ranked(n.in[0], 4) || !ranked(n.in[1], 4) || g_.fact(n.in[0]).rank() != 4 || g_.fact(n.in[1]).rank() != 4) return false;
        const std::vector<Dim>&old = g_.fact(n.in[0]).dims, &now = g_.fact(n.in[1]).dims;
        if (!(old[0] == now[0]) || !(old[1] == now[1]) || !(old[3] == now[3]) || !now[1].is_const() || !now[3].is_const()) return false;
        const Atoms::Axis batch = atoms_.axis(now[0]), head = atoms_.axis(now[1]);
        key_axis_ = atoms_.axis(now[2]);
        depth_ = atoms_.axis(now[3]);
        leading_ = {batch, head};
        Source x{n.in[1], {batch, head, key_axis_, depth_}, 1};
        if (!trace(x, depth_, false)) return false;
        std::vector<ValueId> in{n.in[0], no_value};
        Attrs a;
        const Node* turned = m_.made_by(x.value, "RotaryEmbedding");
        if (turned && turned->in.size() == 3 && m_.sole_reader(x.value) >= 0 && turns_rows(*turned, x, batch, head)) {
            in.insert(in.end(), {turned->in[1], turned->in[2]});
            a.set("interleaved", turned->attrs.i("interleaved", 0));
            x.value = turned->in[0];
            if (!trace(x, depth_, false)) return false;
        }
        Roles r;
        std::vector<std::int64_t> where;
        const bool cache = std::count(g_.inputs.begin(), g_.inputs.end(), n.in[0]) && std::count(g_.outputs.begin(), g_.outputs.end(), n.out[0]);
        if ((x.value == n.in[1] && !cache) || !settle(r, depth_) || !layout(x, r, r.depth, &where)) return false;
        for (int atom : r.lead)
            if (!holds(x, atom)) return false;
        for (const Atoms::Axis& axis : leading_)  // a device counts batches and heads by one distance each
            if (!turns_ && (n.attrs.has(narrow_type) || atoms_.leaves(axis).size() > 1)) return false;
        in[1] = x.value;
        a.set("x", std::move(where));
        m_.replace(n.out[0], "quern::AppendToCache", std::move(in), std::move(a));
        return true;
    }

private:
    /// Whether RotaryEmbedding's rows are those of the cache: X is [B, H, L, D] or [B, L, H * D].
    bool turns_rows(const Node& n, const Source& x, const Atoms::Axis& batch, const Atoms::Axis& head) const {
        Atoms::Axis row = head;
        row.insert(row.end(), depth_.begin(), depth_.end());
        const bool four = x.axes.size() == 4;
        const Atoms::Axes want = four ? Atoms::Axes{batch, head, key_axis_, depth_} : Atoms::Axes{batch, key_axis_, row};
        if (x.axes.size() != want.size()) return false;
        for (std::size_t i = 0; i < want.size(); ++i)
            if (atoms_.leaves(x.axes[i]) != atoms_.leaves(want[i])) return false;
        return four || atoms_.size(atoms_.leaves(head)).is(n.attrs.i("num_heads", 0));
    }
    bool operator_mask(ValueId mask, const std::vector<Dim>& full, const Atoms::Axes& axes, std::map<ValueId, ValueId>& closed) {
        const Fact f = g_.fact(mask);
        if (!f.ranked || f.rank() > 4 || f.rank() < 1 || (f.dtype != DType::f32 && f.dtype != DType::boolean)) return false;
        Source x{mask, {}, 1};
        std::size_t skip = full.size() - f.dims.size();
        for (std::size_t i = 0; i < f.dims.size(); ++i) {
            bool key = i + 1 == f.dims.size();
            if (f.dims[i].is(1) && !key) x.axes.emplace_back();
            else if (f.dims[i] == full[skip + i]) x.axes.push_back(axes[skip + i]);  // a shorter row closes the keys beyond it
            else return false;
        }
        if (f.dtype == DType::boolean) {
            auto at = closed.find(mask);
            if (at == closed.end()) {
                Tensor zero(DType::f32, Shape{}), never(DType::f32, Shape{});
                never.data<float>()[0] = -INFINITY;
                std::string name = g_.values[mask].name;
                ValueId z = g_.add_constant(g_.fresh_name(name), std::move(zero)), c = g_.add_constant(g_.fresh_name(name), std::move(never));
                ValueId addend = g_.add_value(g_.fresh_name(name), Fact::of(DType::f32, f.dims));
                g_.add_node(op_named("Where"), g_.fresh_name(name), {mask, z, c}, {addend});
                at = closed.emplace(mask, addend).first;
            }
            x.value = at->second;
        }
        masks_.push_back(std::move(x));
        return true;
    }
    bool ranked(ValueId v, int least) const { return v != no_value && g_.fact(v).ranked && g_.fact(v).rank() >= least; }
    bool swallowed(const Node& n) const {
        for (ValueId v : n.out)
            if (v != no_value && !m_.swallowed(v, inside_)) return false;
        return true;
    }
    /// The softmax over the last axis that makes v, or whose NaNs v replaces by zeros.
    const Node* softmax_behind(ValueId v) {
        if (const Node* w = m_.made_by(v, "Where")) {
            const Node* nan = m_.made_by(w->in[0], "IsNaN");
            auto zero = m_.scalar(w->in[1]);
            if (!nan || nan->in[0] != w->in[2] || !zero || *zero != 0) return nullptr;
            inside_.push_back(m_.id_of(*w));
            inside_.push_back(m_.id_of(*nan));
            closed_is_zero_ = true;
            v = w->in[2];
        }
        const Node* s = m_.made_by(v, "Softmax");
        if (!s || !ranked(v, 2)) return nullptr;
        std::int64_t axis = s->attrs.i("axis", -1);
        if (axis != -1 && axis != g_.fact(v).rank() - 1) return nullptr;
        inside_.push_back(m_.id_of(*s));
        return s;
    }
    bool is_view(const Node& n) const { return is_op(&n, "Reshape") || is_op(&n, "Unsqueeze") || is_op(&n, "Squeeze") || is_op(&n, "Flatten") || is_op(&n, "Identity"); }

    /// From the softmax's input to Q K^T: masks, factors, and reshapes of the leading axes.
    bool find_product(ValueId s, const Atoms::Axes& axes, Source& q, Source& k, int depth = 0) {
        const Node* n = s == no_value ? nullptr : g_.producer(s);
        if (!n || !n->op || *n->op->domain || depth > 8 || !ranked(s, 2)) return false;
        if (is_op(n, "MatMul")) return product(*n, axes, q, k);
        ValueId inner;
        double factor;
        if (m_.scaled(s, inner, factor)) {
            inside_.push_back(m_.id_of(*n));
            scale_ *= factor;
            return same_dims(s, inner) && find_product(inner, axes, q, k, depth + 1);
        }
        if (is_op(n, "Add")) {
            inside_.push_back(m_.id_of(*n));
            if (scale_ != 1) return false;  // a factor around a mask
            for (int side = 0; side < 2; ++side) {
                ValueId mask = n->in[side], scores = n->in[1 - side];
                if (!leads_to_product(scores, 0) || masks_.size() >= 2 || !ranked(scores, 2) || g_.fact(scores).rank() != g_.fact(s).rank()) continue;
                Source x;
                if (!mask_axes(mask, scores, axes, x)) return false;
                masks_.push_back(std::move(x));
                return find_product(scores, axes, q, k, depth + 1);
            }
            return false;
        }
        if (is_view(*n)) {
            ValueId from = n->in[0];
            if (!ranked(from, 2)) return false;
            inside_.push_back(m_.id_of(*n));
            Atoms::Axes to;
            return atoms_.regroup(axes, g_.fact(from).dims, to) && find_product(from, to, q, k, depth + 1);
        }
        return false;
    }
    bool same_dims(ValueId a, ValueId b) const { return g_.fact(a).dims == g_.fact(b).dims; }
    bool leads_to_product(ValueId v, int depth) const {
        const Node* n = v == no_value ? nullptr : g_.producer(v);
        if (!n || !n->op || depth > 8) return false;
        if (is_op(n, "MatMul")) return m_.sole_reader(v) >= 0;
        ValueId inner;
        double f;
        if (m_.scaled(v, inner, f)) return leads_to_product(inner, depth + 1);
        if (is_op(n, "Add")) return leads_to_product(n->in[0], depth + 1) || leads_to_product(n->in[1], depth + 1);
        return is_view(*n) && leads_to_product(n->in[0], depth + 1);
    }
    /// The mask's axes; each is the scores' or of size 1. Its key axis may be of unknown size: that is verified when running.
    bool mask_axes(ValueId mask, ValueId scores, const Atoms::Axes& axes, Source& x) {
        const Fact &f = g_.fact(mask), &s = g_.fact(scores);
        if (!f.ranked || f.dtype != DType::f32 || f.rank() > s.rank()) return false;
        x.value = mask;
        std::size_t skip = static_cast<std::size_t>(s.rank() - f.rank());
        for (std::size_t i = 0; i < f.dims.size(); ++i) {
            const Dim &d = f.dims[i], &full = s.dims[skip + i];
            bool key = i + 1 == f.dims.size();
            if (d.is(1)) x.axes.emplace_back();
            else if (d == full || (key && !(d.is_const() && full.is_const()))) x.axes.push_back(axes[skip + i]);
            else return false;
        }
        return true;
    }
    bool product(const Node& n, const Atoms::Axes& axes, Source& q, Source& k) {
        if (axes.size() < 2 || !ranked(n.in[0], 2) || !ranked(n.in[1], 2)) return false;
        const std::vector<Dim>&a = g_.fact(n.in[0]).dims, &b = g_.fact(n.in[1]).dims, &s = g_.fact(n.out[0]).dims;
        if (s.size() != axes.size() || a.size() > s.size() || b.size() > s.size() || !(a.back() == b[b.size() - 2])) return false;
        inside_.push_back(m_.id_of(n));
        leading_.assign(axes.begin(), axes.end() - 2);
        query_axis_ = axes[axes.size() - 2];
        key_axis_ = axes.back();
        keys_ = s.back();
        // A mask may have given the keys another name.
        Atoms::Axis key = atoms_.leaves(key_axis_);
        if (key.size() > 1 || key.empty() != keys_.is(1)) return false;
        if (!key.empty()) atoms_.all[static_cast<std::size_t>(key[0])].size = keys_;
        depth_ = atoms_.axis(a.back());
        return operand(n.in[0], axes, s, query_axis_, depth_, depth_, true, q) && operand(n.in[1], axes, s, depth_, key_axis_, depth_, true, k);
    }
    /// An operand of a product whose result has these axes and dims, traced to where it lies. `inner`: which axis is a row.
    bool operand(ValueId v, const Atoms::Axes& axes, const std::vector<Dim>& dims, const Atoms::Axis& rows, const Atoms::Axis& columns,
                 const Atoms::Axis& inner, bool scalable, Source& x) {
        const std::vector<Dim>& d = g_.fact(v).dims;
        std::size_t skip = axes.size() - d.size();
        x.value = v;
        for (std::size_t i = 0; i + 2 < d.size(); ++i) {
            if (d[i].is(1)) x.axes.emplace_back();
            else if (d[i] == dims[skip + i]) x.axes.push_back(axes[skip + i]);
            else return false;
        }
        x.axes.push_back(rows);
        x.axes.push_back(columns);
        return trace(x, inner, scalable);
    }

    /// The roles of the atoms, once all are cut as far as they will be.
    struct Roles {
        Atoms::Axis lead;
        int query = -1, key = -1, depth = -1, inner = -1;  ///< -1: size 1
    };
    static bool one(const Atoms& atoms, const Atoms::Axis& axis, int& atom) {
        Atoms::Axis l = atoms.leaves(axis);
        if (l.size() > 1) return false;
        atom = l.empty() ? -1 : l[0];
        return true;
    }
    /// Whether the value, laid out as its axes say, can be an operand whose innermost row is `inner`. Writes the layout if asked for.
    bool layout(const Source& x, const Roles& roles, int inner, std::vector<std::int64_t>* out) const {
        int last = -1;
        for (std::size_t dim = 0; dim < x.axes.size(); ++dim) {
            int open = 0;
            for (int a : atoms_.leaves(x.axes[dim])) {
                const Atoms::Atom& atom = atoms_.all[static_cast<std::size_t>(a)];
                std::int64_t role = attention::Factor::fixed;
                if (atom.fixed < 0) {
                    auto at = std::find(roles.lead.begin(), roles.lead.end(), a);
                    if (at != roles.lead.end()) role = at - roles.lead.begin();
                    else if (a == roles.query) role = attention::Factor::query;
                    else if (a == roles.key) role = attention::Factor::key;
                    else if (a == inner) role = attention::Factor::inner;
                    else return false;
                } else if (!atom.size.is_const()) {
                    return false;
                }
                open += !atom.size.is_const();
                last = a;
                if (out) out->insert(out->end(), {static_cast<std::int64_t>(dim), role, atom.size.is_const() ? atom.size.value() : -1, std::max<std::int64_t>(0, atom.fixed)});
            }
            if (open > 1) return false;
        }
        if (inner == mask_row) return last == roles.key || std::none_of(x.axes.begin(), x.axes.end(), [&](const Atoms::Axis& axis) {
            Atoms::Axis l = atoms_.leaves(axis);
            return std::find(l.begin(), l.end(), roles.key) != l.end();
        });
        // A row of one value needs no place; it must be named, though.
        if (inner < 0) {
            if (out && !x.axes.empty()) out->insert(out->end(), {static_cast<std::int64_t>(x.axes.size()) - 1, attention::Factor::inner, 1, 0});
            return true;
        }
        return last == inner;
    }
    static constexpr int mask_row = -2;
    bool settle(Roles& roles, const Atoms::Axis& inner) const {
        roles = {};
        for (const Atoms::Axis& a : leading_)
            for (int leaf : atoms_.leaves(a)) roles.lead.push_back(leaf);
        return roles.lead.size() <= static_cast<std::size_t>(attention::max_lead) && one(atoms_, query_axis_, roles.query) && one(atoms_, key_axis_, roles.key) &&
               one(atoms_, depth_, roles.depth) && one(atoms_, inner, roles.inner);
    }

    /// Whether a layout can describe the operand as far as atoms are cut now.
    bool usable(const Source& x, const Atoms::Axis& inner) const {
        Roles r;
        if (!settle(r, inner)) return false;
        return layout(x, r, r.inner, nullptr);
    }
    /// Follows x back through everything that only moves or scales it, to the farthest place that a layout can describe.
    bool trace(Source& x, const Atoms::Axis& inner, bool scalable) {
        Source at = x;
        bool found = usable(x, inner);
        Atoms good = atoms_;
        for (int i = 0; i < 32 && step(at, scalable); ++i)
            if (usable(at, inner)) x = at, good = atoms_, found = true;
        atoms_ = std::move(good);
        return found;
    }
    bool step(Source& x, bool scalable) {
        const Node* n = g_.producer(x.value);
        if (!n || !n->op || *n->op->domain || n->in.empty() || n->in[0] == no_value) return false;
        ValueId inner;
        double factor;
        if (m_.scaled(x.value, inner, factor)) {
            if (!scalable || !same_dims(x.value, inner)) return false;
            x.value = inner, x.scale *= factor;
            return true;
        }
        ValueId from = n->in[0];
        if (!g_.fact(from).ranked) return false;
        const std::vector<Dim>&in = g_.fact(from).dims, &out = g_.fact(x.value).dims;
        Atoms::Axes axes;
        if (is_view(*n)) {
            if (!atoms_.regroup(x.axes, in, axes)) return false;
        } else if (is_op(n, "Transpose")) {
            std::vector<std::int64_t> perm = n->attrs.ints("perm");
            axes.resize(in.size());
            for (std::size_t i = 0; i < in.size(); ++i) axes[perm.empty() ? in.size() - 1 - i : static_cast<std::size_t>(perm[i])] = x.axes[i];
        } else if (is_op(n, "Expand")) {
            if (in.size() > out.size()) return false;
            for (std::size_t i = 0; i < in.size(); ++i) {
                std::size_t o = out.size() - in.size() + i;
                if (in[i] == out[o]) axes.push_back(x.axes[o]);
                else if (in[i].is(1)) axes.emplace_back();
                else return false;
            }
        } else if (is_op(n, "Gather")) {
            const Tensor& index = n->in.size() > 1 && n->in[1] != no_value ? g_.fact(n->in[1]).value : Tensor();
            auto picked = index.defined() && index.shape().rank() == 0 ? detail::small_ints(index) : std::nullopt;
            std::int64_t axis = n->attrs.i("axis", 0);
            if (axis < 0) axis += static_cast<std::int64_t>(in.size());
            if (!picked || !in[static_cast<std::size_t>(axis)].is_const()) return false;
            const std::int64_t size = in[static_cast<std::size_t>(axis)].value();
            if ((*picked)[0] < -size || (*picked)[0] >= size) return false;  // an error when it runs
            axes = x.axes;
            axes.insert(axes.begin() + axis, part(size, (*picked)[0]));
        } else if (is_op(n, "Split") || is_op(n, "Slice")) {
            std::size_t axis;
            std::int64_t start;
            if (!contiguous_part(g_, *n, x.value, axis, start)) return false;
            std::int64_t whole_size = in[axis].value(), size = out[axis].value();
            if (size < 1 || whole_size % size || start % size) return false;
            axes = x.axes;
            if (whole_size != size) {
                Atoms::Axis outer = part(whole_size / size, start / size);
                axes[axis].insert(axes[axis].begin(), outer.begin(), outer.end());
            }
        } else {
            return false;
        }
        x.value = from;
        x.axes = std::move(axes);
        return true;
    }
    Atoms::Axis part(std::int64_t parts, std::int64_t index) {
        if (index < 0) index += parts;
        return {atoms_.add(Dim(parts), index)};
    }
    /// Where Q is rotated in its rows, [B, S, H * D] or [B, H, S, D], the rotation is taken in. The tables' layout; empty where there is none.
    std::vector<std::int64_t> take_rotation(Source& q, ValueId (&tables)[2], bool& interleaved) {
        const Node* n = turns_ ? m_.made_by(q.value, "RotaryEmbedding") : nullptr;
        if (!n || n->in.size() != 3 || m_.sole_reader(q.value) < 0 || q.axes.size() < 3) return {};
        const std::size_t rows = q.axes.size() - 2;
        const Fact &c = g_.fact(n->in[1]), &x = g_.fact(n->in[0]);
        Atoms::Axis row = atoms_.leaves(q.axes.back()), depth = atoms_.leaves(depth_);
        if (atoms_.leaves(q.axes[rows]) != atoms_.leaves(query_axis_) || !c.ranked || c.rank() != 3 || !c.dims[2].is_const() || depth.size() != 1 || row.empty() || row.back() != depth[0]) return {};
        row.pop_back();
        const bool whole = rows == 2 ? row.empty() : atoms_.size(row).is(n->attrs.i("num_heads", 0));
        if (!whole || !(c.dims[0] == x.dims[0]) || !(c.dims[1] == x.dims[rows])) return {};
        Atoms::Axis half = atoms_.axis(c.dims[2]);
        Source t{n->in[1], {q.axes[0], q.axes[rows], half}, 1};
        Roles r;
        std::vector<std::int64_t> where;
        int inner = -1;
        if (!settle(r, depth_) || !one(atoms_, half, inner) || !layout(t, r, inner, &where)) return {};
        Source before{n->in[0], q.axes, q.scale};
        if (!usable(before, depth_)) return {};
        tables[0] = n->in[1], tables[1] = n->in[2];
        interleaved = n->attrs.i("interleaved", 0) != 0;
        q = before;
        trace(q, depth_, true);
        return where;
    }
    bool finish(NodeId id, Source& q, Source& k, Source& v, const Atoms::Axes& y_axes, const Atoms::Axis& inner) {
        Source y{g_.nodes[id].out[0], y_axes, 1};
        double scale = scale_ * q.scale * k.scale;
        take_causal();
        std::vector<std::vector<std::int64_t>> layouts;
        if (!std::isfinite(scale) || !describe(q, k, v, y, inner, layouts)) return false;
        // The result may go straight to where transposes and reshapes would bring it.
        for (Source to = y; forward(to);) {
            std::vector<std::vector<std::int64_t>> further;
            if (describe(q, k, v, to, inner, further)) y = to, layouts = std::move(further);
        }
        Attrs a;
        ValueId tables[2] = {no_value, no_value};
        bool interleaved = false;
        if (auto where = take_rotation(q, tables, interleaved); !where.empty()) {
            scale = scale_ * q.scale * k.scale;
            if (!std::isfinite(scale) || !describe(q, k, v, y, inner, layouts)) return false;
            a.set("table", std::move(where));
            a.set("interleaved", std::int64_t{interleaved});
        }
        a.set("scale", static_cast<float>(scale));
        if (closed_is_zero_) a.set("closed_is_zero", std::int64_t{1});
        if (causal_.causal) a.set("causal", std::int64_t{1}), a.set("causal_closed", causal_.closed), a.set("causal_once", std::int64_t{causal_.once});
        const char* names[] = {"q", "k", "v", "y", "mask", "mask2"};
        for (std::size_t i = 0; i < layouts.size(); ++i) a.set(names[i], std::move(layouts[i]));
        a.set("rank", static_cast<std::int64_t>(g_.fact(y.value).rank()));
        std::vector<ValueId> in{q.value, k.value, v.value};
        for (const Source& mask : masks_) in.push_back(mask.value);
        if (tables[0] != no_value) {
            in.resize(5, no_value);
            in.insert(in.end(), {tables[0], tables[1]});
        }
        m_.replace(y.value, "quern::FusedAttention", std::move(in), std::move(a));
        return true;
    }
    /// A mask that closes later keys is left out, or what else it closes remains.
    void take_causal() {
        for (std::size_t i = 0; turns_ && causal_masks_ && !causal_.causal && i < masks_.size(); ++i) {
            Source& x = masks_[i];
            if (!ranked(x.value, 2) || !(g_.fact(x.value).dims.back() == keys_)) continue;
            const CausalMasks::Mask found = causal_masks_->split(x.value);
            if (!found.causal || (found.once && masks_.size() > 1)) continue;
            Source rest{found.rest, {}, 1};
            if (found.rest != no_value) {
                const std::vector<Dim>&whole = g_.fact(x.value).dims, &dims = g_.fact(found.rest).dims;
                bool fits = dims.size() <= whole.size() && !dims.empty() && dims.back() == keys_;
                for (std::size_t d = 0; fits && d < dims.size(); ++d) {
                    const std::size_t at = whole.size() - dims.size() + d;
                    fits = dims[d].is(1) || dims[d] == whole[at];
                    rest.axes.push_back(dims[d].is(1) ? Atoms::Axis{} : x.axes[at]);
                }
                if (!fits) continue;
            }
            causal_ = found;
            if (found.rest == no_value) masks_.erase(masks_.begin() + static_cast<std::ptrdiff_t>(i));
            else x = std::move(rest);
        }
    }
    bool describe(const Source& q, const Source& k, const Source& v, const Source& y, const Atoms::Axis& inner, std::vector<std::vector<std::int64_t>>& to) const {
        Roles r;
        if (!settle(r, inner)) return false;
        to.assign(4 + masks_.size(), {});
        // Every leading index must have a place in Q and in the result.
        if (!layout(q, r, r.depth, &to[0]) || !layout(k, r, r.depth, &to[1]) || !layout(v, r, r.inner, &to[2]) || !layout(y, r, r.inner, &to[3])) return false;
        for (const Source* x : {&q, &y})
            for (int a : r.lead)
                if (!holds(*x, a)) return false;
        for (std::size_t i = 0; i < masks_.size(); ++i)
            if (!layout(masks_[i], r, mask_row, &to[4 + i])) return false;
        return true;
    }
    bool holds(const Source& x, int atom) const {
        for (const Atoms::Axis& axis : x.axes)
            for (int a : atoms_.leaves(axis))
                if (a == atom) return true;
        return false;
    }
    /// One step towards the readers of the result, where there is only one.
    bool forward(Source& y) {
        NodeId r = m_.sole_reader(y.value);
        if (r < 0) return false;
        const Node& n = g_.nodes[r];
        if (!n.op || n.in.empty() || n.in[0] != y.value || n.out.size() != 1 || !g_.fact(n.out[0]).ranked) return false;
        Atoms::Axes axes;
        if (is_op(&n, "Transpose")) {
            std::vector<std::int64_t> perm = n.attrs.ints("perm");
            for (std::size_t i = 0; i < y.axes.size(); ++i) axes.push_back(y.axes[perm.empty() ? y.axes.size() - 1 - i : static_cast<std::size_t>(perm[i])]);
        } else if (!is_view(n) || !atoms_.regroup(y.axes, g_.fact(n.out[0]).dims, axes)) {
            return false;
        }
        y.value = n.out[0];
        y.axes = std::move(axes);
        return true;
    }

    Matcher& m_;
    Graph& g_;
    bool turns_;
    Atoms atoms_;
    std::vector<NodeId> inside_;
    std::vector<Source> masks_;
    Atoms::Axes leading_;
    Atoms::Axis query_axis_, key_axis_, depth_;
    Dim keys_;
    double scale_ = 1;
    bool closed_is_zero_ = false;
    CausalMasks* causal_masks_;
    CausalMasks::Mask causal_;
};

/// Rotations that look up the same positions in the same tables share the rows that they need: attention and caches take these in. Gather counts negative
/// positions from the end, as the operator's definition does.
inline bool look_up_rotations(Graph& g) {
    std::map<std::array<ValueId, 3>, std::vector<NodeId>> alike;
    for (NodeId id : g.order()) {
        const Node& n = g.nodes[id];
        if (!is_op(&n, "RotaryEmbedding") || n.in.size() != 4 || n.in[3] == no_value || g.fact(n.out[0]).dtype != DType::f32 || n.attrs.has(narrow_type)) continue;
        const Fact &x = g.fact(n.in[0]), &ids = g.fact(n.in[3]);
        if (x.ranked && ids.ranked && ids.rank() == 2 && ids.dims[0] == x.dims[0] && ids.dims[1] == x.dims[x.rank() == 4 ? 2 : 1]) alike[{n.in[1], n.in[2], n.in[3]}].push_back(id);
    }
    bool changed = false;
    for (auto& [tables, ids] : alike) {
        if (ids.size() < 2) continue;
        ValueId rows[2];
        for (int i = 0; i < 2; ++i) {
            const Node& n = g.nodes[ids[0]];
            rows[i] = add_inferred(g, op_named("Gather"), {tables[static_cast<std::size_t>(i)], tables[2]}, {}, g.values[tables[static_cast<std::size_t>(i)]].name, n.name, n.origin);
        }
        for (NodeId id : ids) g.nodes[id].in = {g.nodes[id].in[0], rows[0], rows[1]};
        changed = true;
    }
    return changed;
}

inline bool attention_blocks(Graph& g, const PassContext& ctx) {
    const bool turns = ctx.target.device == Device::cpu;
    bool changed = look_up_rotations(g);
    {
        Matcher m(g);
        for (NodeId id : g.order())
            if (g.nodes[id].op && AttentionMatcher(m, turns).match_cache(id)) changed = true;
    }
    Matcher m(g);
    std::map<ValueId, ValueId> closed;
    CausalMasks causal(g);
    for (NodeId id : g.order()) {
        if (!g.nodes[id].op) continue;
        if (AttentionMatcher(m, turns, &causal).match(id) || AttentionMatcher(m, turns, &causal).match_operator(id, closed)) changed = true;
    }
    return changed;
}

}  // namespace passes_detail
QUERN_END
