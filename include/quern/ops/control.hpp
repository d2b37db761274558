// What control operators share: facts of the values that go into a subgraph and come out of it.
#pragma once
#include <utility>

#include "op.hpp"

QUERN_BEGIN
namespace ops_control {

/// How a subgraph sees a value of the enclosing graph: it has symbols of its own, named by the outer expressions; "^"
/// keeps them apart from those that it makes.
inline Dim inner_dim(const Dim& d) { return d.is_const() ? d : Dim::symbol("^" + d.to_string()); }
inline Fact inner_fact(const Fact& f) {
    Fact g = f;
    g.value = Tensor();
    g.symbolic.reset();
    for (auto& d : g.dims) d = inner_dim(d);
    return g;
}

inline bool same(const Fact& a, const Fact& b) {
    return a.kind == b.kind && a.dtype == b.dtype && a.key == b.key && a.ranked == b.ranked && a.dims == b.dims &&
           (a.elem == b.elem || (a.elem && b.elem && same(*a.elem, *b.elem)));
}
/// Whether one type can be true of both.
inline bool agree(const Fact& a, const Fact& b) {
    if (a.dtype != b.dtype || a.key != b.key) return false;
    if (a.kind == b.kind) return !a.elem || !b.elem || agree(*a.elem, *b.elem);
    if (a.kind == Kind::optional) return a.elem && agree(*a.elem, b);
    return b.kind == Kind::optional && b.elem && agree(a, *b.elem);
}
/// Makes `f` true of `g` too; dims that differ get symbols that begin with `stem`. Whether it changed. Types must agree.
inline bool widen(Fact& f, const Fact& g, const std::string& stem) {
    // An optional that has a value is that value.
    if (f.kind == Kind::optional && g.kind != Kind::optional) return widen(f, Fact::optional_of(g), stem);
    if (g.kind == Kind::optional && f.kind != Kind::optional) {
        f = Fact::optional_of(f);
        widen(f, g, stem);
        return true;
    }
    if (!agree(f, g))
        raise(ErrorCode::invalid_model, "one value would be " + f.to_string() + " and " + g.to_string() + "; accepted: one type");
    if (f.kind != Kind::tensor) {
        if (!f.elem || !g.elem) return false;
        Fact e = *f.elem;
        if (!widen(e, *g.elem, "?")) return false;
        f.elem = std::make_shared<const Fact>(std::move(e));
        return true;
    }
    if (!f.ranked) return false;
    if (!g.ranked || f.rank() != g.rank()) {
        f.ranked = false;
        f.dims.clear();
        return true;
    }
    bool changed = false;
    for (int d = 0; d < f.rank(); ++d) {
        if (f.dims[d] == g.dims[d]) continue;
        Dim s = Dim::symbol(stem == "?" ? stem : stem + "." + std::to_string(d));
        if (f.dims[d] == s) continue;
        f.dims[d] = s;
        changed = true;
    }
    return changed;
}
/// What comes back from the subgraph widens what it gets. Whether anything changed: then it must be inferred again.
inline bool widen_formals(FormalsCtx& c, const Graph& body) {
    bool changed = false;
    for (std::size_t i = 0; i < c.facts.size(); ++i) {
        if (c.from[i] < 0) continue;
        if (c.from[i] >= static_cast<int>(body.outputs.size()))
            raise(ErrorCode::invalid_model, "the body has " + std::to_string(body.outputs.size()) + " outputs; its input " + std::to_string(i) + " comes back at output " + std::to_string(c.from[i]));
        const Fact& back = body.fact(body.outputs[c.from[i]]);
        if (back.dtype == DType::undefined) continue;  // a problem that was reported
        changed = widen(c.facts[i], back, "carried" + std::to_string(i)) || changed;
    }
    return changed;
}

/// Dims of a subgraph in terms of the enclosing graph.
class Outward {
public:
    explicit Outward(InferCtx& c) : c_(c) {
        for (auto* f : c.inputs)
            if (f)
                for (auto& d : f->dims)
                    if (!d.is_const()) known_.emplace_back(inner_dim(d), d);
    }
    /// Whether `d` is known outside; then `out` is that dim.
    bool known(const Dim& d, Dim& out) const {
        out = d;
        if (d.is_const()) return true;
        for (auto& [in, o] : known_)
            if (in == d) return out = o, true;
        return false;
    }
    Dim operator()(const Dim& d) const {
        Dim o;
        return known(d, o) ? o : c_.fresh("body");
    }
    /// Output `o` is `f`, with `first` in front of its dims.
    void set(int o, const Fact& f, std::vector<Dim> first = {}) const {
        if (o >= c_.n_out()) return;
        if (f.kind != Kind::tensor) {
            c_.outputs[o] = f;
        } else if (!f.ranked) {
            c_.set_unranked(o, f.dtype);
        } else {
            for (auto& d : f.dims) first.push_back((*this)(d));
            c_.set(o, f.dtype, std::move(first));
        }
    }

private:
    InferCtx& c_;
    std::vector<std::pair<Dim, Dim>> known_;
};

/// The subgraph `name`, whose captured values are the node's last inputs. `own`: number of the node's own inputs.
inline std::shared_ptr<const Graph> body_of(const InferCtx& c, const char* name, std::size_t& own) {
    auto body = c.attrs.graph(name);
    if (!body) raise(ErrorCode::invalid_model, std::string(c.node.op->name) + " needs the attribute " + name);
    std::size_t captured = body->inputs.size() - body->formals;
    if (static_cast<std::size_t>(c.n_in()) < captured) raise(ErrorCode::invalid_model, "the node has fewer inputs than its subgraph takes from outside");
    own = static_cast<std::size_t>(c.n_in()) - captured;
    return body;
}
inline void need_outputs(const InferCtx& c, const Graph& body, std::size_t lead) {
    if (body.outputs.size() < static_cast<std::size_t>(c.n_out()) + lead)
        raise(ErrorCode::invalid_model, "the subgraph has " + std::to_string(body.outputs.size()) + " outputs; accepted: " + std::to_string(static_cast<std::size_t>(c.n_out()) + lead) + " and more");
}
inline void need_tensor(const Fact& f, const std::string& who) {
    if (f.kind != Kind::tensor) raise(ErrorCode::invalid_model, who + " is a " + f.to_string() + "; accepted: a tensor");
}

/// An element as a value of its own: sizes that are no numbers differ from element to element.
inline void set_element(InferCtx& c, const Fact& elem) {
    c.outputs[0] = elem;
    for (auto& d : c.outputs[0].dims)
        if (!d.is_const()) d = c.fresh("item");
}

/// A kernel that asks for nothing when it is made.
template <class K> Lowered lower(const LowerCtx&) { return Lowered(std::make_unique<K>()); }

}  // namespace ops_control
QUERN_END
