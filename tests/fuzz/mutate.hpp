// Changes a model as a model: other operators, wires, attributes, dims, elements. Bytes that stay
// well-formed reach shape inference, passes and kernels, where flipped bits rarely do.
#pragma once
#include <algorithm>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include <quern/onnx/writer.hpp>

namespace quern_fuzz {

class Mutator {
public:
    explicit Mutator(unsigned seed) : rng_(seed) {}

    /// The mutated model, or nothing where the bytes are no model.
    std::string mutate(std::string_view bytes) {
        try {
            auto m = quern::onnx::parse_model({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
            for (std::size_t n = 1 + pick(4); n > 0; --n) model(m);
            return quern::onnx::serialize(m);
        } catch (const quern::Error&) {
            return {};
        }
    }

private:
    using Graph = quern::onnx::GraphProto;
    std::size_t pick(std::size_t n) { return n ? rng_() % n : 0; }
    bool one_in(std::size_t n) { return pick(n) == 0; }
    template <class T>
    T& any(std::vector<T>& v) { return v[pick(v.size())]; }
    std::string_view keep(std::string s) { return text_.emplace_back(std::move(s)); }

    std::int64_t number() {
        static constexpr std::int64_t odd[] = {0, 1, -1, 2, 3, 4, 7, 8, 16, 255, 256, 1 << 20, INT32_MAX, INT32_MIN, std::int64_t{1} << 40,
                                               INT64_MAX, INT64_MIN, INT64_MAX - 1, -2, -3, -100, 5, 6, 9};
        return one_in(4) ? static_cast<std::int64_t>(pick(12)) - 4 : odd[pick(std::size(odd))];
    }
    float real() {
        static constexpr float odd[] = {0, 1, -1, 0.5f, 1e30f, -1e30f, 1e-30f, INFINITY, -INFINITY, NAN, 2, 1e9f};
        return odd[pick(std::size(odd))];
    }
    std::int64_t dim() { return one_in(12) ? number() : static_cast<std::int64_t>(pick(6)); }

    /// Names of values in the graph and one that is nowhere.
    std::string_view value(Graph& g) {
        std::vector<std::string_view> names;
        for (auto& v : g.input) names.push_back(v.name);
        for (auto& t : g.initializer) names.push_back(t.name);
        for (auto& n : g.node)
            for (auto o : n.output) names.push_back(o);
        if (names.empty() || one_in(20)) return one_in(2) ? "" : "nowhere";
        return names[pick(names.size())];
    }
    void dims(std::vector<std::int64_t>& d) {
        switch (pick(4)) {
            case 0: d.insert(d.begin() + static_cast<std::ptrdiff_t>(pick(d.size() + 1)), dim()); break;
            case 1: if (!d.empty()) d.erase(d.begin() + static_cast<std::ptrdiff_t>(pick(d.size()))); break;
            case 2: std::shuffle(d.begin(), d.end(), rng_); break;
            default: if (!d.empty()) any(d) = dim(); break;
        }
    }
    /// A tensor whose bytes fit its dims, mostly.
    void tensor(quern::onnx::TensorProto& t) {
        if (one_in(4)) t.data_type = static_cast<std::int32_t>(pick(29));
        if (one_in(2)) dims(t.dims);
        std::int64_t n = 1;
        for (auto d : t.dims) n = d < 0 || d > 1000 || n > 1000 ? 0 : n * d;
        auto type = static_cast<quern::DType>(t.data_type > 0 && t.data_type < 27 ? t.data_type : 1);
        if (type == quern::DType::string) {
            t.string_data.assign(static_cast<std::size_t>(n), one_in(2) ? "a b" : "");
            t.has_raw = false;
            return;
        }
        std::string raw(quern::storage_bytes(type, n) + one_in(20), '\0');
        if (type == quern::DType::i64 || type == quern::DType::i32) {
            std::size_t w = type == quern::DType::i64 ? 8 : 4;
            for (std::size_t i = 0; i + w <= raw.size(); i += w) {
                std::int64_t v = one_in(8) ? number() : static_cast<std::int64_t>(pick(6)) - 1;
                std::memcpy(raw.data() + i, &v, w);
            }
        } else if (one_in(2)) {
            for (auto& c : raw) c = static_cast<char>(rng_());
        }
        t.raw_data = keep(std::move(raw));
        t.has_raw = true;
        t.typed.clear();
        t.data_location = 0;
    }
    void attribute(Graph& g, quern::onnx::Attribute& a) {
        using quern::onnx::AttrType;
        if (one_in(30)) a.type = static_cast<int>(pick(15));
        switch (static_cast<AttrType>(a.type)) {
            case AttrType::i: a.i = number(); break;
            case AttrType::f: a.f = real(); break;
            case AttrType::s: {
                std::string s(a.s);
                if (!s.empty()) s[pick(s.size())] = "abijk,->. ?"[pick(11)];
                if (one_in(3)) s += "i";
                a.s = keep(s);
                break;
            }
            case AttrType::ints:
                if (one_in(3)) dims(a.ints);
                else if (!a.ints.empty()) any(a.ints) = number();
                break;
            case AttrType::floats:
                if (one_in(3)) a.floats.push_back(real());
                else if (!a.floats.empty()) any(a.floats) = real();
                break;
            case AttrType::strings: if (!a.strings.empty()) a.strings.pop_back(); break;
            case AttrType::t: if (a.t) tensor(*a.t); else a.type = 2; break;
            case AttrType::g:
                if (a.g) graph(*a.g);
                else a.type = 2;
                break;
            default: break;
        }
        (void)g;
    }
    void node(Graph& g, quern::onnx::NodeProto& n) {
        static constexpr const char* attributes[] = {"axis", "axes", "keepdims", "group", "pads", "strides", "dilations", "kernel_shape", "perm", "to", "mode",
                                                     "ceil_mode", "num_outputs", "k", "blocksize", "allowzero", "auto_pad", "block_size", "hidden_size", "alpha"};
        switch (pick(9)) {
            case 0: if (!n.input.empty()) any(n.input) = value(g); break;
            case 1: n.input.push_back(value(g)); break;
            case 2: if (!n.input.empty()) n.input.pop_back(); break;
            case 3: if (!n.output.empty()) n.output.pop_back(); else n.output.push_back(keep("new" + std::to_string(pick(100)))); break;
            case 4: n.output.push_back(keep("new" + std::to_string(pick(1000)))); break;
            case 5: case 6: if (!n.attribute.empty()) attribute(g, any(n.attribute)); break;
            case 7: if (!n.attribute.empty()) n.attribute.erase(n.attribute.begin() + static_cast<std::ptrdiff_t>(pick(n.attribute.size()))); break;
            default:
                if (one_in(2)) n.attribute.push_back(quern::onnx::attribute_i(attributes[pick(std::size(attributes))], number()));
                else n.attribute.push_back(quern::onnx::attribute_ints(attributes[pick(std::size(attributes))], {number(), number()}));
        }
    }
    /// A node of any operator in the list over values that are there.
    void new_node(Graph& g) {
        static constexpr const char* ops[] = {
            "Abs", "Add", "And", "ArgMax", "AveragePool", "Cast", "CastLike", "Ceil", "Clip", "Compress", "Concat", "ConstantOfShape", "Conv",
            "ConvInteger", "ConvTranspose", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "DynamicQuantizeLinear", "Einsum",
            "Equal", "Exp", "Expand", "EyeLike", "Flatten", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool",
            "GlobalMaxPool", "GroupNormalization", "Hardmax", "Identity", "If", "InstanceNormalization", "LRN", "LSTM", "LayerNormalization", "Less",
            "LogSoftmax", "Loop", "LpPool", "MatMul", "MatMulInteger", "Max", "MaxPool", "MaxUnpool", "Mean", "Mod", "Mul", "NonMaxSuppression",
            "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Range", "ReduceMax",
            "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign", "Round", "ScatterElements", "ScatterND",
            "Shape", "Sigmoid", "Size", "Slice", "Softmax", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "TopK",
            "Transpose", "Trilu", "Unique", "Unsqueeze", "Where", "RotaryEmbedding", "Attention", "RMSNormalization", "BatchNormalization", "Upsample"};
        quern::onnx::NodeProto n;
        n.op_type = ops[pick(std::size(ops))];
        for (std::size_t k = 1 + pick(3); k > 0; --k) n.input.push_back(value(g));
        std::string_view out = keep("new" + std::to_string(pick(100000)));
        n.output = {out};
        if (one_in(2)) n.attribute.push_back(quern::onnx::attribute_i("axis", number()));
        g.node.push_back(std::move(n));
        if (one_in(2) && !g.output.empty()) any(g.output).name = out;
        else g.output.push_back(quern::onnx::tensor_info(out, quern::DType::undefined, {}, false)), g.output.back().type.kind = quern::onnx::TypeProto::none;
    }
    void graph(Graph& g) {
        switch (pick(11)) {
            case 0: case 1: case 2: case 3: if (!g.node.empty()) node(g, any(g.node)); break;
            case 4: if (!g.initializer.empty()) tensor(any(g.initializer)); break;
            case 5: if (!g.input.empty()) input(any(g.input)); break;
            case 6: new_node(g); break;
            case 7: if (g.node.size() > 1) drop_node(g); break;
            case 8: if (!g.output.empty()) any(g.output).name = value(g); break;
            case 9: if (!g.input.empty()) become_constant(g); break;
            default: if (!g.node.empty()) g.node.push_back(any(g.node)), g.node.back().output = {keep("new" + std::to_string(pick(1000)))}; break;
        }
    }
    void drop_node(Graph& g) {
        std::size_t at = pick(g.node.size());
        std::vector<std::string_view> gone = g.node[at].output;
        g.node.erase(g.node.begin() + static_cast<std::ptrdiff_t>(at));
        auto dead = [&](std::string_view s) { return std::find(gone.begin(), gone.end(), s) != gone.end(); };
        for (auto& n : g.node)
            for (auto& i : n.input)
                if (dead(i)) i = value(g);
        if (g.output.size() > 1) g.output.erase(std::remove_if(g.output.begin(), g.output.end(), [&](auto& o) { return dead(o.name); }), g.output.end());
    }
    void input(quern::onnx::ValueInfo& v) {
        auto& t = v.type;
        if (one_in(4)) t.elem_type = static_cast<std::int32_t>(pick(27));
        else if (one_in(10)) t.has_shape = !t.has_shape;
        else if (t.shape.empty() || one_in(3)) t.shape.push_back({static_cast<std::int64_t>(pick(5)), true, {}});
        else if (one_in(3)) t.shape.pop_back();
        else if (one_in(2)) any(t.shape) = {dim(), true, {}};
        else any(t.shape) = {-1, false, one_in(2) ? "N" : ""};
    }
    void become_constant(Graph& g) {
        auto at = g.input.begin() + static_cast<std::ptrdiff_t>(pick(g.input.size()));
        quern::onnx::TensorProto t;
        t.name = at->name;
        t.data_type = at->type.elem_type;
        for (auto& d : at->type.shape) t.dims.push_back(d.has_value ? d.value : 2);
        tensor(t);
        g.initializer.push_back(t);
        if (one_in(2)) g.input.erase(at);
    }
    void model(quern::onnx::ModelProto& m) {
        if (one_in(30) && !m.opset_import.empty()) any(m.opset_import).version = one_in(3) ? number() : static_cast<std::int64_t>(1 + pick(24));
        if (one_in(20) && !m.functions.empty()) {
            auto& f = any(m.functions);
            Graph g;
            g.node = std::move(f.node);
            for (auto i : f.input) g.input.push_back(quern::onnx::tensor_info(i, quern::DType::f32, {}));
            graph(g);
            f.node = std::move(g.node);
            return;
        }
        graph(m.graph);
    }

    std::mt19937 rng_;
    std::deque<std::string> text_;
};

}  // namespace quern_fuzz
