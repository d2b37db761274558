// Fusions: several nodes that one kernel does. Each rule is a function from a node to whether it rewrote something.
#pragma once
#include <cmath>
#include <cstring>

#include "../base/guard.hpp"
#include "../base/pages.hpp"
#include "match-inl.hpp"

QUERN_BEGIN
namespace passes_detail {

/// The convolution or product that makes `v`, when nobody else sees `v`; else null.
inline Node* fusible(Graph& g, ValueId v, const std::vector<int>& uses) {
    Node* n = g.producer(v);
    if (!n || !n->op || uses[v] != 1 || g.fact(v).dtype != DType::f32) return nullptr;
    bool product = is_op(n, "MatMul") || is_op(n, "Gemm") || is_op(n, "FusedMatMul", "quern");
    bool conv = is_op(n, "Conv") || is_op(n, "FusedConv", "quern");
    return (product || conv) && !n->attrs.has("activation") ? n : nullptr;
}
inline bool is_conv(const Node& n) { return std::string_view(n.op->name).find("Conv") != std::string_view::npos; }
/// Makes `n` the fused form of itself and lets it produce `out` in place of its old output.
inline void take_over(Graph& g, Node& n, ValueId out, NodeId removed) {
    NodeId id = static_cast<NodeId>(&n - g.nodes.data());
    n.op = &op_named(is_conv(n) ? "quern::FusedConv" : "quern::FusedMatMul");
    g.values[n.out[0]].producer = -1;
    g.remove_node(removed);
    g.values[out].producer = id;
    n.out = {out};
}

/// Memory for weights like `t`; large ones have pages of their own, which leave memory as soon as they are packed, whatever the heap keeps.
inline Tensor room_like(const Tensor& t, std::size_t large = std::size_t{256} << 10) {
    if (t.dtype() == DType::string || t.bytes() < large) return Tensor::uninitialized(t.dtype(), t.shape());
    auto pages = std::make_shared<const Pages>(t.bytes(), 0);  // short-lived: not worth waiting for huge pages
    if (!pages->data()) raise(ErrorCode::out_of_memory, "no memory for " + std::to_string(t.bytes()) + " bytes of weights");
    return Tensor::share(t.dtype(), t.shape(), pages->data(), pages);
}
/// A copy of weights to compute on.
inline Tensor editable(const Tensor& t) {
    if (t.dtype() == DType::string) return t.clone();
    Tensor to = room_like(t);
    if (t.bytes()) std::memcpy(to.raw(), t.raw(), t.bytes());
    return to;
}
/// Conv -> BatchNormalization with constants: scale and shift move into the weights.
inline bool fuse_conv_bn(Graph& g, const PassContext& ctx, NodeId id, const std::vector<int>& uses) {
    Node& bn = g.nodes[id];
    if (!is_op(&bn, "BatchNormalization") || bn.in.size() != 5 || bn.attrs.i("training_mode", 0)) return false;
    for (std::size_t o = 1; o < bn.out.size(); ++o)
        if (bn.out[o] != no_value) return false;
    Node* conv = fusible(g, bn.in[0], uses);
    if (!conv || !is_op(conv, "Conv") || !g.fact(conv->in[1]).is_const()) return false;
    bool has_bias = conv->in.size() > 2 && conv->in[2] != no_value;
    if (has_bias && !g.fact(conv->in[2]).is_const()) return false;
    for (int i = 1; i < 5; ++i)
        if (!g.fact(bn.in[i]).is_const() || g.fact(bn.in[i]).dtype != DType::f32) return false;
    const Tensor given = g.fact(conv->in[1]).value;
    Tensor w = editable(given);
    std::int64_t m = w.shape()[0], k = m ? w.count() / m : 0;
    Tensor of[5];
    for (int i = 1; i < 5; ++i)
        if (of[i] = g.fact(bn.in[i]).value.aligned(); of[i].count() != m) return false;
    auto param = [&](int i) { return of[i].data<float>(); };
    const Tensor before = has_bias ? g.fact(conv->in[2]).value.aligned() : Tensor();
    Tensor b(DType::f32, {m});
    float eps = bn.attrs.f("epsilon", 1e-5f);
    float* weights = w.data<float>().data();
    for (std::int64_t c = 0; c < m; ++c) {
        double s = param(1)[c] / std::sqrt(static_cast<double>(param(4)[c]) + eps);
        double old = has_bias ? before.data<float>()[c] : 0.0;
        b.data<float>()[c] = static_cast<float>((old - param(3)[c]) * s + param(2)[c]);
        for (std::int64_t i = c * k; i < (c + 1) * k; ++i) weights[i] = static_cast<float>(weights[i] * s);
    }
    ctx.done_with(given);
    ValueId out = bn.out[0];
    std::string wn = g.fresh_name(g.values[conv->in[1]].name), bname = g.fresh_name(g.values[out].name);
    ValueId wv = g.add_constant(wn, std::move(w)), bv = g.add_constant(bname, std::move(b));
    conv->in[1] = wv;
    conv->in.resize(3, no_value);
    conv->in[2] = bv;
    g.values[conv->out[0]].producer = -1;
    NodeId cid = static_cast<NodeId>(conv - g.nodes.data());
    g.remove_node(id);
    g.values[out].producer = cid;
    g.nodes[cid].out = {out};
    return true;
}

/// product * constant row or number: the factor moves into the weights and the bias.
inline bool fuse_scale(Graph& g, const PassContext& ctx, NodeId id, const std::vector<int>& uses) {
    Node& mul = g.nodes[id];
    if (!is_op(&mul, "Mul") || g.fact(mul.out[0]).dtype != DType::f32) return false;
    for (int side = 0; side < 2; ++side) {
        Node* n = fusible(g, mul.in[side], uses);
        const Fact& factor = g.fact(mul.in[1 - side]);
        if (!n || is_conv(*n) || !factor.is_const() || (n->in.size() > 3 && n->in[3] != no_value)) continue;
        const Fact &y = g.fact(n->out[0]), &b = g.fact(n->in[1]);
        if (!y.ranked || y.rank() < 2 || !b.is_const() || b.rank() != 2 || factor.rank() > y.rank()) continue;
        bool by_row = n->attrs.i("transB", 0) != 0;
        std::int64_t rows = b.value.shape()[0], columns = b.value.shape()[1], width = by_row ? rows : columns;
        std::int64_t count = factor.value.count();
        if (count != 1 && (factor.rank() == 0 || !factor.dims.back().is(width) || count != width)) continue;
        bool has_bias = n->in.size() > 2 && n->in[2] != no_value;
        if (has_bias && (!g.fact(n->in[2]).is_const() || g.fact(n->in[2]).value.count() != width || g.fact(n->in[2]).rank() != 1)) continue;
        Tensor factors(DType::f32, {width});
        float* by = factors.data<float>().data();
        if (const Tensor aligned = factor.value.aligned(); count == 1) std::fill_n(by, width, aligned.data<float>()[0]);
        else std::copy_n(aligned.data<float>().data(), width, by);
        if (ctx.target.device == Device::cpu && width > 1 && (n->in.size() < 5 || n->in[4] == no_value)) {
            // Multiplied when they are packed: no copy of the weights is made. The model's own row is known again by its address.
            n->in.resize(5, no_value);
            n->in[4] = g.add_constant(g.fresh_name(g.values[mul.in[1 - side]].name), count == 1 ? factors : factor.value.reshaped({width}));
        } else {
            Tensor w = editable(b.value);
            ctx.done_with(b.value);
            float* p = w.data<float>().data();
            for (std::int64_t r = 0; r < rows; ++r, p += columns)
                for (std::int64_t c = 0; c < columns; ++c) p[c] *= by[by_row ? r : c];
            const ValueId weights = g.add_constant(g.fresh_name(g.values[n->in[1]].name), std::move(w));
            n->in[1] = weights;
        }
        if (has_bias) {
            Tensor moved = g.fact(n->in[2]).value.clone();
            for (std::int64_t j = 0; j < width; ++j) moved.data<float>()[j] *= by[j];
            ValueId bias = g.add_constant(g.fresh_name(g.values[n->in[2]].name), std::move(moved));
            n->in[2] = bias;
        }
        take_over(g, *n, g.nodes[id].out[0], id);
        return true;
    }
    return false;
}

/// product + constant row -> bias.
inline bool fuse_bias(Graph& g, NodeId id, const std::vector<int>& uses) {
    Node& add = g.nodes[id];
    if (!is_op(&add, "Add") || g.fact(add.out[0]).dtype != DType::f32) return false;
    for (int side = 0; side < 2; ++side) {
        Node* n = fusible(g, add.in[side], uses);
        ValueId other = add.in[1 - side];
        if (!n || (n->in.size() > 2 && n->in[2] != no_value) || (n->in.size() > 3 && n->in[3] != no_value) || !g.fact(other).is_const()) continue;
        const Fact &y = g.fact(n->out[0]), &b = g.fact(other);
        if (!y.ranked || y.rank() < 2) continue;
        Tensor bias = b.value;
        if (is_conv(*n)) {  // [C, 1, 1] or [1, C, 1, 1]
            const Fact& w = g.fact(n->in[1]);
            if (n->attrs.s("layout", "nchw") != "nchw" || !w.ranked || !w.dims[0].is_const()) continue;
            int lead = y.rank() - b.rank();
            bool fits = lead >= 0 && lead <= 1 && bias.count() == w.dims[0].value();
            for (int d = 0; fits && d < b.rank(); ++d)
                if (d + lead != 1) fits = b.dims[d].is(1);
            if (!fits || b.rank() == 0) continue;
            bias = bias.reshaped({bias.count()});
        } else {
            if (b.rank() == 0 || !(y.dims.back() == b.dims.back()) || bias.count() != b.dims.back().value()) continue;
            if (b.rank() > y.rank()) continue;
            bias = bias.reshaped({bias.count()});
        }
        ValueId bv = b.rank() == 1 ? other : g.add_constant(g.fresh_name(g.values[other].name), std::move(bias));
        if (n->in.size() < 3) n->in.resize(3, no_value);
        n->in[2] = bv;
        ValueId out = g.nodes[id].out[0];
        take_over(g, *n, out, id);
        return true;
    }
    return false;
}

/// product or convolution + a tensor of the same shape -> residual.
inline bool fuse_residual(Graph& g, NodeId id, const std::vector<int>& uses, const std::vector<int>& position) {
    Node& add = g.nodes[id];
    if (!is_op(&add, "Add") || g.fact(add.out[0]).dtype != DType::f32 || add.in[0] == add.in[1]) return false;
    // Of two candidates the later one: what it waits for is made anyway.
    int sides[2] = {0, 1};
    auto at = [&](int s) { NodeId p = g.values[add.in[s]].producer; return p < 0 ? -1 : position[p]; };
    if (at(1) > at(0)) std::swap(sides[0], sides[1]);
    for (int side : sides) {
        Node* n = fusible(g, add.in[side], uses);
        ValueId other = add.in[1 - side];
        if (!n || (n->in.size() > 3 && n->in[3] != no_value) || g.fact(other).is_const()) continue;
        const Fact &y = g.fact(n->out[0]), &r = g.fact(other);
        if (!y.ranked || !r.ranked || !(y.dims == r.dims) || y.rank() < 2) continue;
        if (at(1 - side) > at(side)) continue;  // the residual is made after the product
        if (n->in.size() < 4) n->in.resize(4, no_value);
        n->in[3] = other;
        take_over(g, *n, g.nodes[id].out[0], id);
        return true;
    }
    return false;
}

/// What follows a product: the activation's name and parameters, if it can be fused.
inline bool activation_of(const Graph& g, const Node& n, std::string& name, std::vector<float>& params) {
    auto scalar = [&](std::size_t i, float otherwise, float& v) {
        v = otherwise;
        if (i >= n.in.size() || n.in[i] == no_value) return true;
        const Tensor& t = g.fact(n.in[i]).value;
        if (!t.defined() || t.dtype() != DType::f32 || t.count() != 1) return false;
        v = t.data<float>()[0];
        return true;
    };
    if (*n.op->domain || n.out.size() != 1) return false;
    name = n.op->name;
    params.clear();
    if (name == "Relu" || name == "Sigmoid" || name == "Tanh" || name == "HardSwish") return true;
    if (name == "LeakyRelu") return params = {n.attrs.f("alpha", 0.01f)}, true;
    if (name == "HardSigmoid") return params = {n.attrs.f("alpha", 0.2f), n.attrs.f("beta", 0.5f)}, true;
    if (name == "Swish") return params = {n.attrs.f("alpha", 1)}, params[0] > 0;
    if (name == "Gelu") {
        if (n.attrs.s("approximate", "none") == "tanh") name = "GeluTanh";
        return true;
    }
    if (name == "Clip") {
        float lo, hi;
        if (!scalar(1, -INFINITY, lo) || !scalar(2, INFINITY, hi) || lo > hi) return false;
        params = {lo, hi};
        return true;
    }
    return false;
}
inline bool fuse_activation(Graph& g, NodeId id, const std::vector<int>& uses) {
    Node& act = g.nodes[id];
    std::string name;
    std::vector<float> params;
    if (act.in.empty() || act.in[0] == no_value || !activation_of(g, act, name, params)) return false;
    Node* n = fusible(g, act.in[0], uses);
    if (!n) return false;
    n->attrs.set("activation", name);
    if (!params.empty()) n->attrs.set("activation_params", params);
    take_over(g, *n, act.out[0], id);
    return true;
}

inline bool fuse(Graph& g, const PassContext& ctx) {
    bool changed = false;
    for (bool again = true; again;) {
        again = false;
        std::vector<int> uses = g.use_counts();
        auto order = g.order();
        std::vector<int> position(g.nodes.size(), -1);
        for (std::size_t i = 0; i < order.size(); ++i) position[order[i]] = static_cast<int>(i);
        for (NodeId id : order) {
            if (!g.nodes[id].op) continue;
            // Counts stay valid: a fusion only removes a value that had one use.
            if (fuse_conv_bn(g, ctx, id, uses) || fuse_scale(g, ctx, id, uses) || fuse_bias(g, id, uses) || fuse_residual(g, id, uses, position) || fuse_activation(g, id, uses)) {
                again = changed = true;
                uses.resize(g.values.size(), 1);
            }
        }
    }
    return changed;
}

}  // namespace passes_detail
QUERN_END
