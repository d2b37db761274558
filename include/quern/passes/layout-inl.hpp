// Channels last where the convolutions that the target has want it; transposes meet and vanish in between.
#pragma once
#include <algorithm>

#include "../ops/conv.hpp"
#include "../ops/conv_transpose.hpp"
#include "../ops/evaluate.hpp"
#include "../ops/planar.hpp"
#include "fuse-inl.hpp"
#include "pass.hpp"
#include "trial.hpp"

QUERN_BEGIN
namespace passes_detail {

using Perm = std::vector<std::int64_t>;
inline Perm to_last(int rank) {  // nchw -> nhwc
    Perm p{0};
    for (int d = 2; d < rank; ++d) p.push_back(d);
    p.push_back(1);
    return p;
}
inline Perm to_first(int rank) {  // nhwc -> nchw
    Perm p{0, rank - 1};
    for (int d = 1; d < rank - 1; ++d) p.push_back(d);
    return p;
}

struct Layout {
    Graph& g;
    const PassContext& ctx;

    ValueId node(const OpDef& op, std::vector<ValueId> in, Attrs a, const std::string& origin, std::string stem) {  // stem may be a name in g.values, which grows
        return add_inferred(g, op, std::move(in), std::move(a), stem, stem, origin);
    }
    ValueId transpose(ValueId v, Perm perm, const std::string& origin) {
        if (const Node* p = g.producer(v); p && is_op(p, "Transpose")) {  // two that undo each other
            auto first = p->attrs.ints("perm");
            bool undone = first.size() == perm.size();
            for (std::size_t i = 0; undone && i < perm.size(); ++i) undone = first[static_cast<std::size_t>(perm[i])] == static_cast<std::int64_t>(i);
            if (undone) return p->in[0];
        }
        Attrs a;
        a.set("perm", std::move(perm));
        return node(op_named("Transpose"), {v}, std::move(a), origin, g.values[v].name);
    }
    static bool of_bytes(const Node& n) { return is_op(&n, "QLinearConv") || is_op(&n, "QLinearConv", "quern"); }
    bool prefers_last(const Node& n) {
        if (of_bytes(n)) return g.fact(n.in[0]).ranked && g.fact(n.in[0]).rank() >= 3 && g.fact(n.in[3]).is_const() && n.attrs.s("layout", "nchw") == "nchw";
        const Fact &x = g.fact(n.in[0]), &w = g.fact(n.in[1]);
        if (x.dtype != DType::f32 || !x.ranked || x.rank() < 3 || !w.is_const() || n.attrs.s("layout", "nchw") != "nchw") return false;
        const TrialTarget trial(ctx.target);
        const LowerCtx lower{n, n.attrs, facts_of(g, n.in), {}, trial.target};
        conv::Problem p = ops_conv::problem(lower);
        p.has_residual = n.in.size() > 3 && n.in[3] != no_value;
        p.post = n.attrs.has("activation") ? vec::Post::relu : vec::Post::none;
        int first = best_rank(Family::conv, p, ctx.target);
        p.layout = conv::Layout::nhwc;
        return better_than(first, p);
    }
    /// Whether a kernel of a rank below `rank` accepts. The last are asked first: portable ones say so without opening a library.
    bool better_than(int rank, const conv::Problem& p) const {
        std::vector<const Entry<conv::Problem>*> entries;
        for (int below = -1; const RankedEntry* e = detail::next_entry(Family::conv, ctx.target, below); below = e->rank)
            if (e->rank < rank) entries.push_back(static_cast<const Entry<conv::Problem>*>(e->entry));
        return std::any_of(entries.rbegin(), entries.rend(), [&](auto* e) { return e->refuse(p, ctx.target).empty(); });
    }
    void convolution(NodeId id) {
        const NodeId fresh = static_cast<NodeId>(g.nodes.size());
        int rank = g.fact(g.nodes[id].in[0]).rank();
        std::string origin = g.nodes[id].origin;
        ValueId x = transpose(g.nodes[id].in[0], to_last(rank), origin);
        std::vector<ValueId> in = g.nodes[id].in;
        in[0] = x;
        bool bytes = of_bytes(g.nodes[id]);
        if (!bytes && in.size() > 3 && in[3] != no_value) in[3] = transpose(in[3], to_last(rank), origin);
        Attrs a = g.nodes[id].attrs;
        a.set("layout", std::string("nhwc"));
        std::string name = g.nodes[id].name;
        ValueId y = node(op_named(bytes ? "quern::QLinearConv" : "quern::FusedConv"), in, std::move(a), origin, name);
        g.nodes[g.values[y].producer].name = name;
        take_place(id, transpose(y, to_first(rank), origin), fresh);
    }
    /// `now` takes the place and the ONNX name of node `id`'s output; the node goes. What was made as node `fresh` or after has no readers
    /// yet: its node makes the old output from now on, so that nobody has to be told.
    void take_place(NodeId id, ValueId now, NodeId fresh) {
        const ValueId old = g.nodes[id].out[0];
        const NodeId maker = g.values[now].producer;
        g.remove_node(id);
        if (maker >= fresh) {
            g.fact(old) = g.fact(now);
            g.values[now].producer = -1;
            g.values[old].producer = maker;
            g.nodes[maker].out = {old};
        } else {
            g.replace_uses(old, now);
            rename(old, now);
        }
    }
    /// `now` takes the ONNX name of `old`, which nobody uses any more.
    void rename(ValueId old, ValueId now) { std::swap(g.values[old].name, g.values[now].name); }

    /// The value behind a transpose to channels first, or no_value.
    ValueId behind(ValueId v, int rank) const {
        const Node* p = v == no_value ? nullptr : g.producer(v);
        return p && is_op(p, "Transpose") && p->attrs.ints("perm") == to_first(rank) ? p->in[0] : no_value;
    }
    /// A constant operand of an element-wise node as it must be for channels last; no_value if it cannot.
    ValueId constant_last(ValueId v, int rank) {
        const Fact& f = g.fact(v);
        if (!f.is_const() || f.rank() > rank) return no_value;
        if (f.value.count() == 1) return f.rank() == 0 ? v : g.add_constant(g.fresh_name(g.values[v].name), f.value.reshaped({}));
        std::vector<std::int64_t> dims(static_cast<std::size_t>(rank - f.rank()), 1);
        for (auto& d : f.dims) dims.push_back(d.value());
        for (int d = 0; d < rank; ++d)
            if (d != 1 && dims[static_cast<std::size_t>(d)] != 1) return no_value;
        return g.add_constant(g.fresh_name(g.values[v].name), f.value.reshaped({dims[1]}));
    }
    /// A node as it is over channels last.
    struct Moved {
        std::string op;
        std::vector<ValueId> in;
        Attrs attrs;
        bool back = true;  ///< its output is in channels last too
    };
    /// Where axis `a` of channels first is in channels last.
    static std::int64_t axis_last(std::int64_t a, int rank) {
        if (a < 0) a += rank;
        return a == 0 ? 0 : a == 1 ? rank - 1 : a - 1;
    }
    /// `v` in channels last where that moves nothing: behind a transpose, or of one pixel; else no_value.
    ValueId cheap_last(ValueId v, int rank) {
        if (ValueId b = behind(v, rank); b != no_value) return b;
        const Fact& f = g.fact(v);
        for (int d = 2; d < rank; ++d)
            if (!f.dims[static_cast<std::size_t>(d)].is(1)) return no_value;
        return transpose(v, to_last(rank), "");
    }
    bool elementwise(Moved& m, int rank) {
        bool any = false;
        for (ValueId v : m.in) {
            if (v == no_value) return false;
            if (g.fact(v).is_const()) continue;
            if (!g.fact(v).ranked || g.fact(v).rank() != rank) return false;
            any = any || behind(v, rank) != no_value;
        }
        if (!any) return false;
        for (ValueId& v : m.in) {
            v = g.fact(v).is_const() ? constant_last(v, rank) : cheap_last(v, rank);
            if (v == no_value) return false;
        }
        return true;
    }
    /// Operators on 8 bits: values at inputs 0 and 3, their parameters between.
    bool bytes(Moved& m, int rank) {
        if (m.op == "com.microsoft::QLinearAdd" || m.op == "com.microsoft::QLinearMul") {
            for (std::size_t i : {std::size_t{0}, std::size_t{3}})
                if (!g.fact(m.in[i]).ranked || g.fact(m.in[i]).rank() != rank) return false;
            if (behind(m.in[0], rank) == no_value && behind(m.in[3], rank) == no_value) return false;
            return (m.in[0] = cheap_last(m.in[0], rank)) != no_value && (m.in[3] = cheap_last(m.in[3], rank)) != no_value;
        }
        if ((m.in[0] = behind(m.in[0], rank)) == no_value) return false;
        if (m.op == "com.microsoft::QLinearGlobalAveragePool" && !m.attrs.i("channels_last", 0)) return m.attrs.set("channels_last", std::int64_t{1}), true;
        return m.op == "com.microsoft::QLinearSigmoid" || m.op == "com.microsoft::QLinearLeakyRelu" || m.op == "quern::Lookup8";
    }
    bool concat(Moved& m, int rank) {
        for (ValueId& v : m.in)
            if ((v = behind(v, rank)) == no_value) return false;
        m.attrs.set("axis", axis_last(m.attrs.i("axis", 0), rank));
        return true;
    }
    bool reduce(Moved& m, int rank, bool keep) {
        auto axes = m.in.size() > 1 ? constant_ints(g, m.in[1]) : std::nullopt;
        if (!axes || axes->empty()) return false;
        std::vector<char> marked(static_cast<std::size_t>(rank), 0);
        for (std::int64_t& a : *axes) {
            marked[static_cast<std::size_t>(a < 0 ? a + rank : a)] = 1;
            a = axis_last(a, rank);
        }
        // Without the reduced dims the order of the others must be the same in both layouts.
        if (!keep)
            for (int d = 2; d < rank; ++d)
                if (!marked[static_cast<std::size_t>(d)] && !marked[1]) return false;
        std::sort(axes->begin(), axes->end());
        m.in[1] = add_ints(g, "axes", *axes);
        m.back = keep;
        return true;
    }
    bool global_pool(Moved& m, int rank) {
        std::vector<std::int64_t> axes;
        for (int d = 1; d < rank - 1; ++d) axes.push_back(d);
        m.op = m.op == "GlobalMaxPool" ? "ReduceMax" : "ReduceMean";
        m.in.push_back(add_ints(g, "axes", axes));
        m.attrs.set("keepdims", std::int64_t{1});
        return true;
    }
    bool pad(Moved& m, int rank) {
        auto pads = m.in.size() > 3 && m.in[3] != no_value ? std::nullopt : constant_ints(g, m.in[1]);
        if (!pads || static_cast<int>(pads->size()) != 2 * rank) return false;
        std::vector<std::int64_t> p(pads->size());
        for (int d = 0; d < rank; ++d)
            for (int end = 0; end < 2; ++end) p[static_cast<std::size_t>(axis_last(d, rank) + end * rank)] = (*pads)[static_cast<std::size_t>(d + end * rank)];
        m.in[1] = add_ints(g, "pads", p);
        return true;
    }
    bool slice(Moved& m, int rank) {
        std::vector<std::int64_t> axes;
        if (m.in.size() > 3 && m.in[3] != no_value) {
            auto given = constant_ints(g, m.in[3]);
            if (!given) return false;
            axes = *given;
        } else {
            const Fact& starts = g.fact(m.in[1]);
            if (!starts.ranked || starts.rank() != 1 || !starts.dims[0].is_const()) return false;
            for (std::int64_t d = 0; d < starts.dims[0].value(); ++d) axes.push_back(d);
        }
        for (std::int64_t& a : axes) a = axis_last(a, rank);
        m.in.resize(std::max<std::size_t>(m.in.size(), 4), no_value);
        m.in[3] = add_ints(g, "axes", axes);
        return true;
    }
    /// Spatial dimensions only, by scales or sizes.
    bool resize(Moved& m, const Fact& x, const Fact& y, int rank) {
        if (m.attrs.has("axes") || m.attrs.s("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize") return false;
        if (m.attrs.s("keep_aspect_ratio_policy", "stretch") != "stretch" || !(x.dims[0] == y.dims[0]) || !(x.dims[1] == y.dims[1])) return false;
        std::vector<std::int64_t> spatial, axes;
        for (int d = 2; d < rank; ++d) spatial.push_back(d), axes.push_back(d - 1);
        m.in.resize(4, no_value);
        m.in[1] = no_value;
        for (std::size_t i = 2; i < 4; ++i) {
            if (m.in[i] == no_value) continue;
            const Fact& f = g.fact(m.in[i]);
            if (f.ranked && f.rank() == 1 && f.dims[0].is(0)) m.in[i] = no_value;  // older exporters' word for absent
            else if (!f.ranked || f.rank() != 1 || !f.dims[0].is(rank)) return false;
        }
        if (m.in[2] != no_value) {
            const Tensor& all = g.fact(m.in[2]).value;
            if (!all.defined() || all.dtype() != DType::f32) return false;
            auto s = all.data<float>();
            if (s[0] != 1 || s[1] != 1) return false;
            std::vector<float> part(s.begin() + 2, s.end());
            m.in[2] = g.add_constant(g.fresh_name("scales"), Tensor::from(std::span<const float>(part), {static_cast<std::int64_t>(part.size())}));
        }
        if (m.in[3] != no_value) {
            Attrs a;
            a.set("axis", std::int64_t{0});
            m.in[3] = node(op_named("Gather"), {m.in[3], add_ints(g, "spatial", spatial)}, std::move(a), "", "sizes");
        }
        m.attrs.set("axes", axes);
        return true;
    }
    /// Known statistics become a scale and a shift for each channel.
    bool batch_norm(Moved& m, const Fact& x) {
        if (m.in.size() != 5 || x.dtype != DType::f32 || m.attrs.i("training_mode", 0)) return false;
        Tensor held[4];
        std::span<const float> param[4];
        for (std::size_t i = 0; i < 4; ++i) {
            const Tensor& t = m.in[i + 1] == no_value ? Tensor() : g.fact(m.in[i + 1]).value;
            if (!t.defined() || t.dtype() != DType::f32 || (i && t.count() != static_cast<std::int64_t>(param[0].size()))) return false;
            held[i] = t.aligned();
            param[i] = std::as_const(held[i]).data<float>();
        }
        std::vector<float> scale(param[0].size()), shift(scale.size());
        double eps = static_cast<double>(m.attrs.f("epsilon", 1e-5f));
        for (std::size_t c = 0; c < scale.size(); ++c) {
            double s = static_cast<double>(param[0][c]) / std::sqrt(static_cast<double>(param[3][c]) + eps);
            scale[c] = static_cast<float>(s);
            shift[c] = static_cast<float>(static_cast<double>(param[1][c]) - static_cast<double>(param[2][c]) * s);
        }
        auto row = [&](const char* stem, const std::vector<float>& v) {
            return g.add_constant(g.fresh_name(stem), Tensor::from(std::span<const float>(v), {static_cast<std::int64_t>(v.size())}));
        };
        m.op = "quern::FusedBatchNormalization";
        m.in = {row("scale", scale), row("shift", shift), m.in[0]};
        m.attrs = Attrs();
        return true;
    }
    /// What each operator needs to work on channels last; false where it cannot.
    bool translate(Moved& m, const Fact& x, const Fact& y, int rank) {
        static constexpr std::string_view unary[] = {"Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Clip", "LeakyRelu", "Tanh", "Exp", "Sqrt", "Abs", "Neg", "Elu", "Erf", "Gelu", "Swish", "Cast", "Identity", "Softplus", "Mish"};
        static constexpr std::string_view several[] = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"};
        if (std::find(std::begin(several), std::end(several), m.op) != std::end(several)) return elementwise(m, rank);
        if (m.op == "Concat") return concat(m, rank);
        if (m.op.find("::") != std::string::npos) return rank >= 3 && x.ranked && x.rank() == rank && bytes(m, rank);
        if (!x.ranked || x.rank() != rank) {
            if (m.op.substr(0, 6) != "Reduce" || !x.ranked || m.attrs.i("keepdims", 1)) return false;
            rank = x.rank();
        }
        if (rank < 3 || (m.in[0] = behind(m.in[0], rank)) == no_value) return false;
        if (std::find(std::begin(unary), std::end(unary), m.op) != std::end(unary)) return true;
        if (m.op == "QuantizeLinear" || m.op == "DequantizeLinear") return g.fact(m.in[1]).ranked && g.fact(m.in[1]).rank() == 0;
        if (m.op == "Softmax" || m.op == "LogSoftmax") return m.attrs.set("axis", axis_last(m.attrs.i("axis", -1), rank)), true;
        if (m.op == "GlobalAveragePool" || m.op == "GlobalMaxPool") return global_pool(m, rank);
        if (m.op.substr(0, 6) == "Reduce") return reduce(m, rank, m.attrs.i("keepdims", 1) != 0);
        if (m.op == "BatchNormalization") return ctx.target.device == Device::cpu && batch_norm(m, x);
        if (m.op == "Pad") return pad(m, rank);
        if (m.op == "Slice") return slice(m, rank);
        if (m.op == "Resize") return resize(m, x, y, rank);
        if (m.op == "MaxPool" || m.op == "AveragePool") return m.op = "quern::" + m.op, true;
        if (m.op == "ConvTranspose" && ops_conv_transpose::blocks(m.attrs, g.fact(m.in[1])) && x.dtype == DType::f32) return m.op = "quern::ConvTranspose", true;
        return false;
    }
    /// Moves the transposes above node `id` below it. True when done.
    bool sink(NodeId id) {
        const Node& n = g.nodes[id];
        std::string_view domain = n.op->domain, plain = n.op->name;
        bool bytes = domain == "com.microsoft" || (domain == "quern" && plain == "Lookup8");
        if (n.out.size() != 1 || n.out[0] == no_value || (!domain.empty() && !bytes) || n.in.empty() || n.in[0] == no_value) return false;
        const Fact x = g.fact(n.in[0]), y = g.fact(n.out[0]);
        if (!y.ranked || y.rank() < 1) return false;
        // What grows is transposed before where nobody wants channels last after.
        if (std::string_view(n.op->name) == "Resize" && std::find(g.outputs.begin(), g.outputs.end(), n.out[0]) != g.outputs.end()) return false;
        Moved m{bytes ? std::string(domain) + "::" + n.op->name : n.op->name, n.in, n.attrs};
        if (!translate(m, x, y, y.rank())) return false;
        std::string origin = g.nodes[id].origin, name = g.nodes[id].name;
        const NodeId fresh = static_cast<NodeId>(g.nodes.size());
        ValueId moved = node(op_named(m.op), std::move(m.in), std::move(m.attrs), origin, name);
        g.nodes[g.values[moved].producer].name = name;
        take_place(id, m.back ? transpose(moved, to_first(y.rank()), origin) : moved, fresh);
        return true;
    }
    /// Split, whose outputs are several.
    bool split(NodeId id) {
        const Node& n = g.nodes[id];
        const Fact& x = g.fact(n.in[0]);
        if (!is_op(&n, "Split") || !x.ranked || x.rank() < 3 || std::find(n.out.begin(), n.out.end(), no_value) != n.out.end()) return false;
        const int rank = x.rank();
        std::vector<ValueId> in = n.in, out = n.out, now;
        if ((in[0] = behind(in[0], rank)) == no_value) return false;
        Attrs a = n.attrs;
        a.set("axis", axis_last(a.i("axis", 0), rank));
        const std::string origin = n.origin, name = n.name;
        g.remove_node(id);
        for (ValueId v : out) now.push_back(g.add_value(g.fresh_name(g.values[v].name), Fact()));
        const NodeId made = g.add_node(op_named("Split"), name, std::move(in), now, std::move(a));
        g.nodes[made].origin = origin;
        infer_node(g, made);
        for (std::size_t o = 0; o < out.size(); ++o) {
            const ValueId back = transpose(now[o], to_first(rank), origin);
            g.replace_uses(out[o], back);
            rename(out[o], back);
        }
        return true;
    }
    /// Reshape to groups of channels, transpose of the two, reshape back: the same over the last dimension.
    bool shuffle(NodeId id) {
        const Node *last = &g.nodes[id], *mid = is_op(last, "Reshape") ? g.producer(last->in[0]) : nullptr;
        const Node* first = is_op(mid, "Transpose") && mid->attrs.ints("perm") == Perm{0, 2, 1, 3, 4} ? g.producer(mid->in[0]) : nullptr;
        if (!is_op(first, "Reshape")) return false;
        const Fact &x = g.fact(first->in[0]), &split = g.fact(mid->in[0]), &y = g.fact(last->out[0]);
        ValueId v = behind(first->in[0], 4);
        if (v == no_value || !x.ranked || !y.ranked || !split.ranked || x.rank() != 4 || !(x.dims == y.dims)) return false;
        if (!split.dims[1].is_const() || !split.dims[2].is_const() || !(split.dims[0] == x.dims[0]) || !(split.dims[3] == x.dims[2]) || !(split.dims[4] == x.dims[3]) || !(split.dims[1] * split.dims[2] == x.dims[1])) return false;
        std::int64_t groups = split.dims[1].value(), each = split.dims[2].value();
        std::string origin = mid->origin, name = mid->name;
        const NodeId fresh = static_cast<NodeId>(g.nodes.size());
        v = node(op_named("Reshape"), {v, add_ints(g, "shape", {0, 0, 0, groups, each})}, {}, origin, name);
        v = transpose(v, {0, 1, 2, 4, 3}, origin);
        v = node(op_named("Reshape"), {v, add_ints(g, "shape", {0, 0, 0, groups * each})}, {}, origin, name);
        take_place(id, transpose(v, to_first(4), origin), fresh);
        return true;
    }
    /// Transpose to channels last of a value that is there in channels last.
    bool cancel(NodeId id) {
        const Node& n = g.nodes[id];
        if (!is_op(&n, "Transpose")) return false;
        auto perm = n.attrs.ints("perm");
        int rank = static_cast<int>(perm.size());
        if (rank < 3 || perm != to_last(rank)) return false;
        ValueId v = behind(n.in[0], rank);
        if (v == no_value) return false;
        g.replace_uses(n.out[0], v);
        g.remove_node(id);
        return true;
    }
};

/// A picture that only a convolution wants in channels last is read as it is.
inline void planar(Graph& g, NodeId id, const PassContext& ctx) {
    Node& n = g.nodes[id];
    if (!is_op(&n, "FusedConv", "quern") || n.attrs.s("layout", "nchw") != "nhwc") return;
    const Node* t = g.producer(n.in[0]);
    if (!is_op(t, "Transpose") || g.fact(n.in[0]).rank() != 4 || t->attrs.ints("perm") != to_last(4)) return;
    const TrialTarget trial(ctx.target);
    const LowerCtx lower{n, n.attrs, facts_of(g, n.in), {}, trial.target};
    if (!conv::refuse_planar(ops_planar::problem(lower), ctx.target).empty()) return;
    n.in[0] = t->in[0];
    n.attrs.erase("layout");
    n.op = &op_named("quern::PlanarConv");
}
/// The concatenation before a batch normalization and the function after it become part of it.
inline void surround_norm(Graph& g, NodeId id, const std::vector<int>& uses) {
    if (is_op(&g.nodes[id], "FusedBatchNormalization", "quern")) {
        const Node* cat = g.nodes[id].in.size() == 3 ? g.producer(g.nodes[id].in[2]) : nullptr;
        if (!is_op(cat, "Concat") || uses[g.nodes[id].in[2]] != 1) return;
        int rank = g.fact(g.nodes[id].in[2]).rank();
        if (std::int64_t axis = cat->attrs.i("axis", 1); rank < 1 || (axis < 0 ? axis + rank : axis) != rank - 1) return;
        std::vector<ValueId> in{g.nodes[id].in[0], g.nodes[id].in[1]};
        in.insert(in.end(), cat->in.begin(), cat->in.end());
        g.nodes[id].in = std::move(in);
        return;
    }
    std::string name;
    std::vector<float> params;
    Node& act = g.nodes[id];
    if (act.in.empty() || act.in[0] == no_value || !activation_of(g, act, name, params)) return;
    Node* norm = g.producer(act.in[0]);
    if (!is_op(norm, "FusedBatchNormalization", "quern") || norm->attrs.has("activation") || uses[act.in[0]] != 1) return;
    norm->attrs.set("activation", name);
    if (!params.empty()) norm->attrs.set("activation_params", params);
    ValueId out = act.out[0];
    NodeId nid = static_cast<NodeId>(norm - g.nodes.data());
    g.values[norm->out[0]].producer = -1;
    g.remove_node(id);
    g.values[out].producer = nid;
    g.nodes[nid].out = {out};
}

inline bool layout(Graph& g, const PassContext& ctx) {
    Layout l{g, ctx};
    std::vector<NodeId> chosen;
    for (NodeId id : g.order())
        if ((is_op(&g.nodes[id], "Conv") || is_op(&g.nodes[id], "FusedConv", "quern") || Layout::of_bytes(g.nodes[id])) && l.prefers_last(g.nodes[id])) chosen.push_back(id);
    for (NodeId id : chosen) l.convolution(id);
    if (chosen.empty()) return false;
    for (bool again = true; again;) {
        again = false;
        for (NodeId id : g.order())
            if (g.nodes[id].op && (l.cancel(id) || l.shuffle(id) || l.split(id) || l.sink(id))) again = true;
    }
    if (ctx.target.device == Device::cpu) {
        remove_dead(g);  // transposes that nobody reads any more are no uses
        std::vector<int> uses = g.use_counts();
        for (NodeId id : g.order())
            if (g.nodes[id].op) planar(g, id, ctx), surround_norm(g, id, uses);
    }
    return true;
}

}  // namespace passes_detail
QUERN_END
