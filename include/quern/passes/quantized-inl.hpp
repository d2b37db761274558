// Models that say DequantizeLinear, operator, QuantizeLinear become operators on the quantized values; products of 8-bit integers
// that are scaled by nodes after them become one.
#pragma once
#include <cmath>

#include "../base/saturate.hpp"
#include "../ops/evaluate.hpp"
#include "layout-inl.hpp"
#include "pass.hpp"

QUERN_BEGIN
namespace passes_detail {

/// Where an operator's result is within one step of the quantized one of the original: sums are exact, only their rounding moves.
struct Quantized {
    Graph& g;
    const PassContext& ctx;
    Layout make{g, ctx};
    std::vector<int> uses = g.use_counts();
    bool changed = false;

    /// A value of 8 bits with one scale and zero point.
    struct Value8 {
        ValueId q = no_value, scale = no_value, zero = no_value;
        float s = 0;
        std::int32_t z = 0;
    };
    bool sole(ValueId v) const { return v >= static_cast<ValueId>(uses.size()) || uses[static_cast<std::size_t>(v)] == 1; }
    static bool is_8(DType t) { return t == DType::u8 || t == DType::i8; }
    static std::int32_t integer(const Tensor& t, std::int64_t i) {
        if (t.dtype() == DType::u8) return t.data<std::uint8_t>()[static_cast<std::size_t>(i)];
        if (t.dtype() == DType::i8) return t.data<std::int8_t>()[static_cast<std::size_t>(i)];
        return t.data<std::int32_t>()[static_cast<std::size_t>(i)];
    }
    static Tensor aligned(const Tensor& t) { return t.defined() ? t.aligned() : Tensor(); }
    /// A constant scale of `n` positive numbers, n 0: any number of them.
    bool scale_of(ValueId v, std::int64_t n) const {
        const Tensor& t = g.fact(v).value;
        if (!t.defined() || t.dtype() != DType::f32 || t.count() < 1 || (n && t.count() != n)) return false;
        const Tensor scales = t.aligned();
        for (float x : scales.data<float>())
            if (!(x > 0) || !std::isfinite(x)) return false;
        return true;
    }
    /// Parameters of a QuantizeLinear or DequantizeLinear of a whole tensor, whose quantized side is `q`.
    bool whole(const Node& n, ValueId q, Value8& to) {
        if (!is_8(g.fact(q).dtype) || n.attrs.i("block_size", 0) || !scale_of(n.in[1], 1)) return false;
        to.q = q;
        to.scale = n.in[1];
        to.s = g.fact(to.scale).value.data<float>()[0];
        to.zero = n.in.size() > 2 ? n.in[2] : no_value;
        if (to.zero != no_value && (!g.fact(to.zero).is_const() || g.fact(to.zero).value.count() != 1 || g.fact(to.zero).dtype != g.fact(q).dtype)) return false;
        if (to.zero == no_value) to.zero = constant(Tensor(g.fact(q).dtype, Shape{}));
        to.z = integer(g.fact(to.zero).value, 0);
        to.zero = scalar(to.zero);
        to.scale = scalar(to.scale);
        return true;
    }
    ValueId scalar(ValueId v) { return g.fact(v).rank() == 0 ? v : constant(g.fact(v).value.reshaped({})); }
    ValueId constant(Tensor t) { return g.add_constant(g.fresh_name("quantized"), std::move(t)); }
    bool dequantized(ValueId v, Value8& to) {
        const Node* n = g.producer(v);
        return is_op(n, "DequantizeLinear") && g.fact(v).dtype == DType::f32 && whole(*n, n->in[0], to);
    }
    static bool same(const Value8& a, const Value8& b, const Graph& g) { return a.s == b.s && a.z == b.z && g.fact(a.q).dtype == g.fact(b.q).dtype; }

    void replace(NodeId quantize, std::string_view op, std::vector<ValueId> in, Attrs attrs) {
        std::string origin = g.nodes[quantize].origin, name = g.nodes[quantize].name;
        ValueId out = g.nodes[quantize].out[0];
        put(quantize, out, make.node(op_named(op), std::move(in), std::move(attrs), origin, name));
    }
    void put(NodeId old, ValueId out, ValueId now) {
        bool fresh = g.values[now].name.find('~') != std::string::npos;
        g.replace_uses(out, now);
        if (fresh) make.rename(out, now);
        g.remove_node(old);
        uses = g.use_counts();
        changed = true;
    }

    /// What 8 bits hold of the range that an activation leaves.
    struct Bounds {
        std::int32_t low = -128, high = 255;
        bool any = false;
    };
    static std::int32_t quantized(double x, const Value8& y, DType t) {
        double least = t == DType::u8 ? 0 : -128, most = t == DType::u8 ? 255 : 127;
        return saturated<std::int32_t>(std::clamp(std::nearbyint(x / y.s) + y.z, least, most));
    }
    /// Takes Relu and Clip off above `v`: rounding keeps the order of values, so bounds may be taken after it.
    ValueId bounded(ValueId v, const Value8& y, Bounds& b) {
        DType t = g.fact(y.q).dtype;
        for (;;) {
            const Node* n = g.producer(v);
            if (!n || !n->op || !sole(v)) return v;
            std::string name;
            std::vector<float> p;
            if (!activation_of(g, *n, name, p) || (name != "Relu" && name != "Clip")) return v;
            if (name == "Relu") p = {0, INFINITY};
            std::int32_t lo = quantized(p[0], y, t), hi = quantized(p[1], y, t);
            // The outer activation came first: its bounds stay within reach.
            b.low = b.any ? std::clamp(std::max(b.low, lo), b.low, b.high) : lo;
            b.high = b.any ? std::clamp(std::min(b.high, hi), b.low, b.high) : hi;
            b.any = b.any || lo > (t == DType::u8 ? 0 : -128) || hi < (t == DType::u8 ? 255 : 127);
            if (!b.any) b = Bounds();
            v = n->in[0];
        }
    }
    /// Constant weights of 8 bits under a DequantizeLinear with one scale, or one for each index of `axis`.
    bool weights(ValueId v, int axis, ValueId& w, ValueId& scale, ValueId& zero) {
        const Node* n = g.producer(v);
        bool turned = is_op(n, "Transpose") && g.fact(v).rank() == 2 && n->attrs.ints("perm", {1, 0}) == Perm{1, 0};
        if (turned) n = g.producer(n->in[0]), axis = 1 - axis;
        if (!is_op(n, "DequantizeLinear") || n->attrs.i("block_size", 0) || g.fact(v).dtype != DType::f32) return false;
        const Fact f = g.fact(n->in[0]);
        if (!is_8(f.dtype) || !f.is_const() || !scale_of(n->in[1], 0) || f.rank() <= axis) return false;
        std::int64_t given = n->attrs.i("axis", 1), count = g.fact(n->in[1]).value.count();
        if (given < 0) given += f.rank();
        if (count != 1 && (given != axis || count != f.value.shape()[static_cast<std::size_t>(axis)])) return false;
        w = n->in[0];
        scale = count == 1 ? scalar(n->in[1]) : n->in[1];
        zero = n->in.size() > 2 ? n->in[2] : no_value;
        if (zero != no_value && (!g.fact(zero).is_const() || g.fact(zero).value.count() != count)) return false;
        if (zero == no_value) zero = constant(Tensor(f.dtype, count == 1 ? Shape{} : Shape{count}));
        else if (count == 1) zero = scalar(zero);
        if (turned) w = constant(transposed(f.value));
        return true;
    }
    static Tensor transposed(const Tensor& t) {
        std::int64_t rows = t.shape()[0], cols = t.shape()[1];
        Tensor r(t.dtype(), {cols, rows});
        auto *from = static_cast<const std::uint8_t*>(t.raw());
        auto* to = static_cast<std::uint8_t*>(r.raw());
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < cols; ++j) to[j * rows + i] = from[i * cols + j];
        return r;
    }
    /// A bias as integers at the scale of the sums; no_value where it is not constant or does not fit.
    ValueId bias(ValueId v, float x_scale, ValueId w_scale, std::int64_t n) {
        const Node* d = g.producer(v);
        bool integers = is_op(d, "DequantizeLinear") && g.fact(d->in[0]).dtype == DType::i32;
        if (integers && (!scale_of(d->in[1], 0) || d->attrs.i("block_size", 0))) return no_value;
        const Tensor from = aligned(integers ? g.fact(d->in[0]).value : g.fact(v).value);
        if (!from.defined() || from.count() != n || (!integers && from.dtype() != DType::f32)) return no_value;
        const Tensor own = integers ? aligned(g.fact(d->in[1]).value) : Tensor(), zeros = integers && d->in.size() > 2 ? aligned(g.fact(d->in[2]).value) : Tensor();
        if (integers && ((own.count() != 1 && own.count() != n) || (d->in.size() > 2 && (!zeros.defined() || zeros.count() != own.count())))) return no_value;
        const Tensor ws = aligned(g.fact(w_scale).value);
        Tensor b(DType::i32, {n});
        for (std::int64_t i = 0; i < n; ++i) {
            auto at = [&](const Tensor& t) { return static_cast<std::size_t>(t.count() == 1 ? 0 : i); };
            double unit = static_cast<double>(x_scale) * ws.data<float>()[at(ws)];
            double value = integers ? (static_cast<double>(integer(from, i)) - (zeros.defined() ? integer(zeros, static_cast<std::int64_t>(at(zeros))) : 0)) * own.data<float>()[at(own)]
                                    : static_cast<double>(from.data<float>()[static_cast<std::size_t>(i)]);
            double r = std::nearbyint(value / unit);
            if (!(std::abs(r) < 2147483648.0)) return no_value;
            b.data<std::int32_t>()[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(r);
        }
        return constant(std::move(b));
    }

    bool convolution(NodeId quantize, ValueId v, const Value8& y, const Bounds& b) {
        const Node n = *g.producer(v);
        Value8 x;
        ValueId w, scale, zero, add = no_value;
        if (!is_op(&n, "Conv") || !dequantized(n.in[0], x) || !weights(n.in[1], 0, w, scale, zero)) return false;
        bool has_bias = n.in.size() > 2 && n.in[2] != no_value;
        if (has_bias && (add = bias(n.in[2], x.s, scale, g.fact(w).value.shape()[0])) == no_value) return false;
        Attrs a = n.attrs;
        if (b.any) {
            a.set("low", static_cast<std::int64_t>(b.low));
            a.set("high", static_cast<std::int64_t>(b.high));
        }
        std::vector<ValueId> in{x.q, x.scale, x.zero, w, scale, zero, y.scale, y.zero};
        if (has_bias) in.push_back(add);
        replace(quantize, b.any ? "quern::QLinearConv" : "QLinearConv", std::move(in), std::move(a));
        return true;
    }
    bool product(NodeId quantize, ValueId v, const Value8& y) {
        const Node n = *g.producer(v);
        bool gemm = is_op(&n, "Gemm");
        Value8 a, both;
        ValueId w, scale, zero, add = no_value;
        if ((!gemm && !is_op(&n, "MatMul")) || !dequantized(n.in[0], a)) return false;
        bool turned = gemm && n.attrs.i("transB", 0);
        int rank = g.fact(n.in[1]).rank();
        if (!g.fact(n.in[1]).ranked || rank != 2 || !weights(n.in[1], turned ? 0 : 1, w, scale, zero)) {
            if (gemm || !dequantized(n.in[1], both)) return false;
            w = both.q, scale = both.scale, zero = both.zero;
        }
        if (!gemm) return replace(quantize, "QLinearMatMul", {a.q, a.scale, a.zero, w, scale, zero, y.scale, y.zero}, {}), true;
        bool has_bias = n.in.size() > 2 && n.in[2] != no_value;
        if (n.attrs.f("alpha", 1) != 1 || (has_bias && g.fact(n.in[2]).rank() != 1)) return false;
        if (has_bias && (add = bias(n.in[2], a.s, scale, g.fact(w).value.shape()[turned ? 0 : 1])) == no_value) return false;
        Attrs attrs;
        for (const char* name : {"transA", "transB"})
            if (n.attrs.has(name)) attrs.set(name, n.attrs.i(name, 0));
        replace(quantize, "com.microsoft::QGemm", {a.q, a.scale, a.zero, w, scale, zero, add, y.scale, y.zero}, std::move(attrs));
        return true;
    }
    bool pairwise(NodeId quantize, ValueId v, const Value8& y) {
        const Node n = *g.producer(v);
        Value8 a, b;
        bool add = is_op(&n, "Add");
        if ((!add && !is_op(&n, "Mul")) || !dequantized(n.in[0], a) || !dequantized(n.in[1], b)) return false;
        DType t = g.fact(y.q).dtype;
        if (g.fact(a.q).dtype != t || g.fact(b.q).dtype != t) return false;
        replace(quantize, add ? "com.microsoft::QLinearAdd" : "com.microsoft::QLinearMul", {a.q, a.scale, a.zero, b.q, b.scale, b.zero, y.scale, y.zero}, {});
        return true;
    }
    bool global_mean(NodeId quantize, ValueId v, const Value8& y) {
        const Node n = *g.producer(v);
        Value8 x;
        if (!is_op(&n, "GlobalAveragePool") || !dequantized(n.in[0], x) || g.fact(x.q).dtype != g.fact(y.q).dtype) return false;
        replace(quantize, "com.microsoft::QLinearGlobalAveragePool", {x.q, x.scale, x.zero, y.scale, y.zero}, {});
        return true;
    }
    /// What only moves values: on the quantized ones, where all share the result's parameters.
    bool movement(NodeId quantize, ValueId v, const Value8& y) {
        static constexpr std::string_view moving[] = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Expand", "Identity", "Tile", "DepthToSpace", "SpaceToDepth", "Concat"};
        const Node n = *g.producer(v);
        if (*n.op->domain || n.out.size() != 1 || std::find(std::begin(moving), std::end(moving), n.op->name) == std::end(moving)) return false;
        std::vector<ValueId> in = n.in;
        bool all = is_op(&n, "Concat");
        for (std::size_t i = 0; i < (all ? in.size() : 1); ++i) {
            Value8 x;
            if (!dequantized(in[i], x)) return false;
            in[i] = same(x, y, g) ? x.q : looked_up(x, y, {});
            if (in[i] == no_value) return false;
        }
        replace(quantize, n.op->name, std::move(in), n.attrs);
        return true;
    }
    /// One operand: a table of all 256 values, through the nodes of `chain`.
    bool lookup(NodeId quantize, ValueId v, const Value8& y) {
        static constexpr std::string_view unary[] = {"Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Tanh", "Elu", "Selu", "Celu", "Exp", "Sqrt", "Abs", "Neg", "Gelu", "Swish", "Softplus", "Softsign", "Mish", "Erf", "Identity"};
        std::vector<Node> chain;
        Value8 x;
        while (!dequantized(v, x)) {
            const Node* n = g.producer(v);
            if (!n || !n->op || *n->op->domain || !sole(v) || n->out.size() != 1 || std::find(std::begin(unary), std::end(unary), n->op->name) == std::end(unary)) return false;
            for (std::size_t i = 1; i < n->in.size(); ++i)
                if (n->in[i] != no_value && !g.fact(n->in[i]).is_const()) return false;
            chain.insert(chain.begin(), *n);
            v = n->in[0];
        }
        ValueId out = g.nodes[quantize].out[0];
        ValueId now = chain.empty() && same(x, y, g) ? x.q : looked_up(x, y, chain);
        if (now == no_value) return false;
        put(quantize, out, now);
        return true;
    }
    ValueId looked_up(const Value8& x, const Value8& y, const std::vector<Node>& chain) {
        DType from = g.fact(x.q).dtype, to = g.fact(y.q).dtype;
        if (from != to) return no_value;
        Tensor all(DType::f32, {256}), table(DType::u8, {256});
        for (int i = 0; i < 256; ++i) all.data<float>()[static_cast<std::size_t>(i)] = static_cast<float>((from == DType::u8 ? i : static_cast<std::int8_t>(i)) - x.z) * x.s;
        for (const Node& n : chain) {
            Graph one;
            Node copy = n;
            copy.in[0] = one.add_constant("x", all);
            for (std::size_t i = 1; i < copy.in.size(); ++i)
                if (n.in[i] != no_value) copy.in[i] = one.add_constant("p" + std::to_string(i), g.fact(n.in[i]).value);
            copy.out = {one.add_value("y", Fact())};
            NodeId id = one.add_node(*copy.op, "n", copy.in, copy.out, copy.attrs);
            infer_node(one, id);
            auto r = guarded([&] { return evaluate(one, one.nodes[id], ctx.target, 1u << 16); });
            if (!r || (*r).empty() || !(*r)[0].defined() || (*r)[0].dtype() != DType::f32 || (*r)[0].count() != 256) return no_value;
            all = (*r)[0];
        }
        for (int i = 0; i < 256; ++i) {
            float v = all.data<float>()[static_cast<std::size_t>(i)];
            table.data<std::uint8_t>()[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(v == v ? quantized(v, y, to) : to == DType::u8 ? 0 : -128);
        }
        return make.node(op_named("quern::Lookup8"), {x.q, constant(std::move(table))}, {}, "", g.values[x.q].name);
    }
    void quantize(NodeId id) {
        const Node n = g.nodes[id];
        Value8 y;
        if (!is_op(&n, "QuantizeLinear") || g.fact(n.in[0]).dtype != DType::f32 || n.attrs.i("precision", 0) || !whole(n, n.out[0], y)) return;
        if (lookup(id, n.in[0], y)) return;
        Bounds b;
        ValueId v = bounded(n.in[0], y, b);
        const Node* p = g.producer(v);
        if (!p || !p->op || !sole(v)) return;
        if (convolution(id, v, y, b) || b.any) return;
        if (product(id, v, y) || pairwise(id, v, y) || global_mean(id, v, y) || (v == n.in[0] && movement(id, v, y))) return;
    }

    /// MatMulInteger, Cast to float, Mul by the scales' product, Add of a row: MatMulIntegerToFloat.
    void scaled(NodeId id) {
        const Node mul = g.nodes[id];
        if (!is_op(&mul, "Mul")) return;
        for (int side = 0; side < 2; ++side) {
            ValueId v = mul.in[static_cast<std::size_t>(side)], factor = mul.in[static_cast<std::size_t>(1 - side)];
            const Node* cast = g.producer(v);
            if (!is_op(cast, "Cast") || !sole(v) || g.fact(v).dtype != DType::f32) continue;
            ValueId i = cast->in[0];
            const Node* product = g.producer(i);
            if (!is_op(product, "MatMulInteger") || !sole(i) || !g.fact(i).ranked || g.fact(i).rank() < 2) continue;
            const Node* scales = g.producer(factor);
            ValueId a_scale = factor, b_scale = no_value;
            if (is_op(scales, "Mul")) a_scale = scales->in[0], b_scale = scales->in[1];
            const Dim columns = g.fact(i).dims.back();
            auto fits = [&](ValueId s, bool several) {
                const Fact& f = g.fact(s);
                return f.dtype == DType::f32 && f.ranked && (f.rank() == 0 || (f.rank() == 1 && (f.dims[0].is(1) || (several && f.dims[0] == columns && columns.is_const()))));
            };
            if (b_scale != no_value && !fits(a_scale, false)) std::swap(a_scale, b_scale);
            if (b_scale == no_value) {
                Tensor one(DType::f32, Shape{});
                one.data<float>()[0] = 1;
                b_scale = a_scale, a_scale = constant(std::move(one));
            }
            if (!fits(a_scale, false) || !fits(b_scale, true)) continue;
            std::vector<ValueId> in{product->in[0], product->in[1], a_scale, b_scale, no_value, no_value};
            for (std::size_t k = 2; k < product->in.size(); ++k) in[k + 2] = product->in[k];
            if (in[4] != no_value && (!g.fact(in[4]).ranked || g.fact(in[4]).rank() > 0)) {
                if (!g.fact(in[4]).concrete() || g.fact(in[4]).shape().count() != 1) continue;
            }
            while (in.back() == no_value) in.pop_back();
            replace(id, "com.microsoft::MatMulIntegerToFloat", std::move(in), {});
            return;
        }
    }
    void biased(NodeId id) {
        const Node add = g.nodes[id];
        if (!is_op(&add, "Add")) return;
        for (std::size_t side = 0; side < 2; ++side) {
            ValueId v = add.in[side], b = add.in[1 - side];
            const Node* n = g.producer(v);
            if (!is_op(n, "MatMulIntegerToFloat", "com.microsoft") || !sole(v) || (n->in.size() > 6 && n->in[6] != no_value)) continue;
            const Fact &y = g.fact(v), &f = g.fact(b);
            if (!f.is_const() || f.dtype != DType::f32 || f.rank() != 1 || !y.ranked || !(f.dims[0] == y.dims.back())) continue;
            std::vector<ValueId> in = n->in;
            in.resize(7, no_value);
            in[6] = b;
            replace(id, "com.microsoft::MatMulIntegerToFloat", std::move(in), {});
            return;
        }
    }
};

inline bool quantized(Graph& g, const PassContext& ctx) {
    Quantized q{g, ctx};
    for (NodeId id : g.order()) {
        if (!g.nodes[id].op) continue;
        with_place([&] { return place_of(g.nodes[id]); }, [&] {
            q.quantize(id);
            if (g.nodes[id].op) q.scaled(id);
            if (g.nodes[id].op) q.biased(id);
        });
    }
    return q.changed;
}

}  // namespace passes_detail
QUERN_END
