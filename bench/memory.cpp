// Element-wise, reduction and data-movement operators against a copy: models of one node over tensors far larger than the caches.
//
//   quern_memory [THREADS=1] [MEBIBYTES=64] [NAMES] [ISA]
//
// For each case GB/s (bytes of inputs and outputs that the operator must touch, over the median time), the share of what a copy (memcpy,
// each thread its part) reaches that runs between the operator's runs, so that neighbours on the machine count for both, and
// nanoseconds for each element of the largest tensor. NAMES: only cases that begin with one of them, "unary.,cast."; ISA: baseline, avx2 or avx512.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include <quern/onnx/writer.hpp>
#include <quern/quern.hpp>

using namespace quern;
using Clock = std::chrono::steady_clock;

namespace {

double median(std::vector<double>& t) {
    std::nth_element(t.begin(), t.begin() + static_cast<std::ptrdiff_t>(t.size() / 2), t.end());
    return t[t.size() / 2];
}
template <class F>
double seconds(F&& f) {
    auto a = Clock::now();
    f();
    return std::chrono::duration<double>(Clock::now() - a).count();
}

/// Values of both signs below 4; for bytes all of them.
void fill(Tensor& t) {
    auto n = static_cast<std::size_t>(t.count());
    for (std::size_t i = 0; i < n; ++i) {
        auto x = static_cast<float>((i * 2654435761u >> 7) % 1000) / 125.f - 4.f;
        switch (t.dtype()) {
            case DType::f32: t.data<float>()[i] = x; break;
            case DType::f16: t.data<Half>()[i] = Half{static_cast<std::uint16_t>(0x3000 + (i * 37 & 0x8fff))}; break;
            case DType::boolean: static_cast<std::uint8_t*>(t.raw())[i] = i % 3 == 0; break;
            case DType::i64: t.data<std::int64_t>()[i] = static_cast<std::int64_t>(i); break;
            default: static_cast<std::uint8_t*>(t.raw())[i] = static_cast<std::uint8_t>(i * 13); break;
        }
    }
}
Tensor ints(std::vector<std::int64_t> v) { return Tensor::from(std::span<const std::int64_t>(v), {static_cast<std::int64_t>(v.size())}); }
Tensor zero(DType t) { return Tensor(t, Shape{}); }
Tensor one() {
    Tensor t(DType::f32, Shape{});
    t.data<float>()[0] = 0.5f;
    return t;
}

struct Case {
    std::string name, op;
    std::vector<std::pair<DType, Shape>> inputs;
    std::vector<Tensor> constants;  ///< inputs after those
    std::vector<onnx::Attribute> attrs;
    int outputs = 1;
    std::int64_t touched = -1;  ///< bytes, where not all of inputs and outputs
};

/// A plain copy on as many threads. Read and written bytes count.
class Copy {
public:
    Copy(std::size_t bytes, int threads) : from_(bytes, 1), to_(bytes, 2), threads_(static_cast<std::size_t>(threads)) {}
    void run() {
        std::vector<std::thread> others;
        std::size_t part = from_.size() / threads_;
        for (std::size_t i = 1; i < threads_; ++i) others.emplace_back([this, i, part] { std::memcpy(to_.data() + part * i, from_.data() + part * i, part); });
        std::memcpy(to_.data(), from_.data(), part);
        for (auto& t : others) t.join();
    }
    double bytes() const { return 2 * static_cast<double>(from_.size()); }

private:
    std::vector<char> from_, to_;
    std::size_t threads_;
};
struct Speed {
    double rate = 0, copy = 0, ns = 0;
};

Speed measure(const Case& c, int threads, Isa isa, Copy& copy) {
    std::deque<std::string> names;
    std::deque<Tensor> constants;
    auto keep = [&](std::string s) { return std::string_view(names.emplace_back(std::move(s))); };
    onnx::ModelProto m;
    m.ir_version = 10;
    m.has_graph = true;
    m.graph.name = "memory";
    m.opset_import.push_back({"", 21});
    onnx::NodeProto n;
    n.op_type = c.op;
    n.attribute = c.attrs;
    std::vector<NamedTensor> feeds;
    std::int64_t bytes = 0;
    for (auto& [type, shape] : c.inputs) {
        std::string_view name = keep("in" + std::to_string(feeds.size()));
        std::vector<onnx::Dimension> dims;
        for (std::int64_t d : shape) {
            onnx::Dimension x;
            x.has_value = true;
            x.value = d;
            dims.push_back(x);
        }
        m.graph.input.push_back(onnx::tensor_info(name, type, dims));
        n.input.push_back(name);
        Tensor t(type, shape);
        fill(t);
        bytes += static_cast<std::int64_t>(t.bytes());
        feeds.emplace_back(std::string(name), t);
    }
    for (auto& t : c.constants) {
        std::string_view name = t.defined() ? keep("const" + std::to_string(n.input.size())) : std::string_view();
        n.input.push_back(name);
        if (!t.defined()) continue;
        constants.push_back(t);
        m.graph.initializer.push_back(onnx::to_proto(constants.back(), name));
    }
    for (int o = 0; o < c.outputs; ++o) {
        n.output.push_back(keep("out" + std::to_string(o)));
        onnx::ValueInfo v;
        v.name = n.output.back();
        m.graph.output.push_back(v);
    }
    m.graph.node.push_back(n);
    std::string text = onnx::serialize(m);
    Engine engine = Model::from_bytes(std::as_bytes(std::span<const char>(text))).compile({.threads = threads, .isa = isa});
    Session session(engine);
    for (auto& [name, t] : feeds) session.bind(name, t);
    session.run();
    for (int o = 0; o < c.outputs; ++o) bytes += static_cast<std::int64_t>(session.output("out" + std::to_string(o)).bytes());
    std::int64_t elements = session.output("out0").count();
    for (auto& [name, t] : feeds) elements = std::max(elements, t.count());
    std::vector<double> run, copied;
    auto end = Clock::now() + std::chrono::milliseconds(100);
    while (run.size() < 5 || (Clock::now() < end && run.size() < 100)) {
        copied.push_back(seconds([&] { copy.run(); }));
        run.push_back(seconds([&] { session.run(); }));
    }
    const double s = median(run);
    return {static_cast<double>(c.touched >= 0 ? c.touched : bytes) / s * 1e-9, copy.bytes() / median(copied) * 1e-9, s * 1e9 / static_cast<double>(elements)};
}

std::vector<Case> cases(std::int64_t mebibytes) {
    using onnx::attribute_i;
    using onnx::attribute_ints;
    using onnx::attribute_s;
    std::vector<Case> all;
    for (DType t : {DType::f32, DType::f16, DType::u8}) {
        std::int64_t size = t == DType::f32 ? 4 : t == DType::f16 ? 2 : 1, w = 1024, h = mebibytes * (1 << 20) / size / w;
        std::string suffix = t == DType::f32 ? ".f32" : t == DType::f16 ? ".f16" : ".u8";
        Shape x{h, w}, image{h * w / (64 * 4096), 64, 64, 64};
        auto add = [&](std::string name, std::string op, std::vector<std::pair<DType, Shape>> in, std::vector<Tensor> constants = {}, std::vector<onnx::Attribute> attrs = {}, int outputs = 1, std::int64_t touched = -1) {
            all.push_back({name + suffix, std::move(op), std::move(in), std::move(constants), std::move(attrs), outputs, touched});
        };
        if (t != DType::u8) {
            for (const char* op : {"Relu", "Abs", "Sqrt", "Exp", "Log", "Sigmoid", "Tanh", "Erf", "Gelu", "HardSwish", "Floor", "Round", "LeakyRelu", "Softplus", "Sin"}) add(std::string("unary.") + op, op, {{t, x}});
            add("unary.Clip", "Clip", {{t, x}}, {t == DType::f32 ? one() : zero(t)});
            for (const char* op : {"Add", "Mul", "Div", "Max", "Sub"}) add(std::string("binary.") + op, op, {{t, x}, {t, x}});
            add("binary.Add_row", "Add", {{t, x}, {t, {w}}});
            add("binary.Mul_column", "Mul", {{t, x}, {t, {h, 1}}});
            add("binary.Add_scalar", "Add", {{t, x}, {t, {1}}});
            if (t == DType::f32) add("binary.Pow_half", "Pow", {{t, x}}, {one()});
            for (const char* op : {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2"}) {
                add(std::string("reduce.") + op + "_last", op, {{t, x}}, {ints({1})});
                add(std::string("reduce.") + op + "_first", op, {{t, x}}, {ints({0})});
            }
            add("reduce.ReduceMean_spatial", "ReduceMean", {{t, image}}, {ints({2, 3})});
            add("reduce.ReduceSum_channels", "ReduceSum", {{t, image}}, {ints({1})});
            add("reduce.ReduceSum_all", "ReduceSum", {{t, x}});
            add("reduce.CumSum_last", "CumSum", {{t, x}}, {ints({1}).reshaped({})});
            add("norm.Softmax", "Softmax", {{t, x}});
            add("norm.LayerNormalization", "LayerNormalization", {{t, x}, {t, {w}}, {t, {w}}});
            add("norm.BatchNormalization", "BatchNormalization", {{t, image}, {t, {64}}, {t, {64}}, {t, {64}}, {t, {64}}});
        }
        if (t != DType::f16) {
            add("reduce.ArgMax_last", "ArgMax", {{t, x}}, {}, {attribute_i("axis", 1)});
            add("reduce.ArgMax_first", "ArgMax", {{t, x}}, {}, {attribute_i("axis", 0)});
            add("pool.MaxPool_3x3s2", "MaxPool", {{t, image}}, {}, {attribute_ints("kernel_shape", {3, 3}), attribute_ints("strides", {2, 2}), attribute_ints("pads", {1, 1, 1, 1})});
        }
        if (t == DType::u8) {
            add("reduce.ReduceMax_last", "ReduceMax", {{t, x}}, {ints({1})});
            add("binary.BitwiseAnd", "BitwiseAnd", {{t, x}, {t, x}});
            add("quant.Dequantize", "DequantizeLinear", {{t, x}}, {one(), zero(DType::u8)});
        }
        if (t == DType::f32) {
            add("quant.Quantize", "QuantizeLinear", {{t, x}}, {one(), zero(DType::u8)});
            add("quant.Quantize_row", "QuantizeLinear", {{t, x}, {t, {w}}}, {}, {attribute_i("axis", 1)});
            add("quant.DynamicQuantize", "DynamicQuantizeLinear", {{t, x}}, {}, {}, 3);
            add("cast.to_f16", "Cast", {{t, x}}, {}, {attribute_i("to", 10)});
            add("cast.to_bf16", "Cast", {{t, x}}, {}, {attribute_i("to", 16)});
            add("cast.to_i32", "Cast", {{t, x}}, {}, {attribute_i("to", 6)});
            add("cast.to_i64", "Cast", {{t, x}}, {}, {attribute_i("to", 7)});
        } else add("cast.to_f32", "Cast", {{t, x}}, {}, {attribute_i("to", 1)});
        add("compare.Equal", "Equal", {{t, x}, {t, x}});
        add("compare.Greater_scalar", "Greater", {{t, x}, {t, {1}}});
        add("where.same", "Where", {{DType::boolean, x}, {t, x}, {t, x}});
        add("where.scalar", "Where", {{DType::boolean, x}, {t, x}}, {zero(t)});
        add("move.Transpose_10", "Transpose", {{t, x}}, {}, {attribute_ints("perm", {1, 0})});
        add("move.Transpose_0231", "Transpose", {{t, image}}, {}, {attribute_ints("perm", {0, 2, 3, 1})});
        add("move.Transpose_0312", "Transpose", {{t, image}}, {}, {attribute_ints("perm", {0, 3, 1, 2})});
        add("move.Transpose_0213", "Transpose", {{t, image}}, {}, {attribute_ints("perm", {0, 2, 1, 3})});
        add("move.Concat_rows", "Concat", {{t, {h / 2, w}}, {t, {h / 2, w}}}, {}, {attribute_i("axis", 0)});
        add("move.Concat_last", "Concat", {{t, {h, w / 2}}, {t, {h, w / 2}}}, {}, {attribute_i("axis", 1)});
        add("move.Concat_channels", "Concat", {{t, {image[0], 32, 64, 64}}, {t, {image[0], 32, 64, 64}}}, {}, {attribute_i("axis", 1)});
        add("move.Split_last", "Split", {{t, x}}, {}, {attribute_i("axis", 1), attribute_i("num_outputs", 2)}, 2);
        add("move.Slice_rows", "Slice", {{t, x}}, {ints({h / 4}), ints({h / 4 * 3}), ints({0})}, {}, 1, h / 2 * w * size * 2);
        add("move.Slice_last", "Slice", {{t, x}}, {ints({w / 4}), ints({w / 4 * 3}), ints({1})}, {}, 1, h * w / 2 * size * 2);
        add("move.Slice_step2", "Slice", {{t, x}}, {ints({0}), ints({w}), ints({1}), ints({2})});
        std::vector<std::int64_t> rows(static_cast<std::size_t>(h));
        for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i * 7919 % rows.size());
        std::vector<std::int64_t> columns;
        for (std::int64_t i = 0; i < w / 2; ++i) columns.push_back(i * 37 % w);
        add("move.Gather_rows", "Gather", {{t, x}}, {ints(rows)});
        add("move.Gather_last", "Gather", {{t, x}}, {ints(columns)}, {attribute_i("axis", 1)}, 1, h * w * size * 3 / 2);
        add("move.Pad", "Pad", {{t, image}}, {ints({0, 0, 1, 1, 0, 0, 1, 1})});
        add("move.Tile", "Tile", {{t, {h / 2, w}}}, {ints({2, 1})});
        add("move.Expand", "Expand", {{t, {h, 1}}}, {ints({h, w})});
        add("move.DepthToSpace", "DepthToSpace", {{t, image}}, {}, {attribute_i("blocksize", 2)});
        add("move.Resize_nearest", "Resize", {{t, {image[0], 64, 32, 32}}}, {Tensor(), [] { std::vector<float> v{1, 1, 2, 2}; return Tensor::from(std::span<const float>(v), {4}); }()}, {attribute_s("mode", "nearest")});
    }
    return all;
}

}  // namespace

int main(int argc, char** argv) {
    int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
    std::int64_t mebibytes = argc > 2 ? std::max(1, std::atoi(argv[2])) : 64;
    std::string only = argc > 3 ? argv[3] : "", isa = argc > 4 ? argv[4] : "avx512";
    Isa cap = isa == "baseline" ? Isa::baseline : isa == "avx2" ? Isa::avx2 : Isa::avx512;
    auto wanted = [&](const std::string& name) {
        for (std::size_t at = 0; at <= only.size();) {
            std::size_t end = std::min(only.find(',', at), only.size());
            if (name.compare(0, end - at, only, at, end - at) == 0) return true;
            at = end + 1;
        }
        return false;
    };
    Copy copy(static_cast<std::size_t>(mebibytes) << 20, threads);
    copy.run();
    int below = 0, all = 0;
    for (const Case& c : cases(mebibytes)) {
        if (!wanted(c.name)) continue;
        Speed r;
        try {
            r = measure(c, threads, cap, copy);
        } catch (const Error& e) {
            std::printf("%-34s %s\n", c.name.c_str(), e.what());
            continue;
        }
        double share = r.rate / r.copy;
        ++all;
        below += share < 0.5;
        std::printf("%-34s %7.1f of %5.1f GB/s %5.0f %% %8.3f ns%s\n", c.name.c_str(), r.rate, r.copy, 100 * share, r.ns, share < 0.5 ? "  <" : "");
    }
    std::printf("%d of %d below half of the copy's rate\n", below, all);
}
