// Small models built in a test and run through every real stage: bytes, import, passes, plan, kernels.
#pragma once
#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

#include <quern/onnx/writer.hpp>
#include <quern/quern.hpp>

namespace quern_test {

using quern::DType;
using quern::Tensor;

/// One float, int64, ... tensor from a list: t<float>({2, 2}, {1, 2, 3, 4}).
template <class T>
Tensor t(quern::Shape shape, std::vector<T> v) { return Tensor::from(std::span<const T>(v), std::move(shape)); }
inline Tensor floats(quern::Shape shape, std::vector<float> v) { return t<float>(std::move(shape), std::move(v)); }
inline Tensor ints(quern::Shape shape, std::vector<std::int64_t> v) { return t<std::int64_t>(std::move(shape), std::move(v)); }

/// An ONNX model under construction. Names of inputs: dims < 0 or strings make symbolic dimensions.
class ModelBuilder {
public:
    explicit ModelBuilder(std::int64_t opset = 20) {
        m_.ir_version = 10;
        m_.has_graph = true;
        m_.graph.name = "test";
        m_.opset_import.push_back({"", opset});
    }
    ModelBuilder& domain(std::string d, std::int64_t v) { m_.opset_import.push_back({keep(std::move(d)), v}); return *this; }
    ModelBuilder& input(std::string name, DType type, std::vector<std::string> dims) {
        m_.graph.input.push_back(info(std::move(name), type, std::move(dims), true));
        return *this;
    }
    ModelBuilder& unranked_input(std::string name, DType type) {
        m_.graph.input.push_back(info(std::move(name), type, {}, false));
        return *this;
    }
    ModelBuilder& constant(std::string name, Tensor t) {
        tensors_.push_back(std::move(t));
        m_.graph.initializer.push_back(quern::onnx::to_proto(tensors_.back(), keep(std::move(name))));
        return *this;
    }
    ModelBuilder& node(std::string op, std::vector<std::string> in, std::vector<std::string> out, std::vector<quern::onnx::Attribute> attrs = {}, std::string domain = "") {
        quern::onnx::NodeProto n;
        n.name = keep(op + std::to_string(m_.graph.node.size()));
        n.op_type = keep(std::move(op));
        n.domain = keep(std::move(domain));
        for (auto& s : in) n.input.push_back(keep(s));
        for (auto& s : out) n.output.push_back(keep(s));
        n.attribute = std::move(attrs);
        m_.graph.node.push_back(std::move(n));
        return *this;
    }
    ModelBuilder& output(std::string name) {
        quern::onnx::ValueInfo v;
        v.name = keep(std::move(name));
        m_.graph.output.push_back(std::move(v));
        return *this;
    }
    quern::onnx::ModelProto& proto() { return m_; }
    std::string bytes() const { return quern::onnx::serialize(m_); }
    /// The model, whose bytes stay with this builder.
    quern::Model model() {
        bytes_.push_back(bytes());
        return quern::Model::from_bytes(std::as_bytes(std::span<const char>(bytes_.back())));
    }
    /// One run of a new engine; outputs in the model's order.
    std::vector<Tensor> run(const std::vector<quern::NamedTensor>& in, quern::Options options = {}) {
        if (options.threads == 0) options.threads = 1;
        auto out = model().compile(options).run(in);
        std::vector<Tensor> r;
        for (auto& [name, tensor] : out) r.push_back(tensor);
        return r;
    }

private:
    std::string_view keep(std::string s) { return text_.emplace_back(std::move(s)); }
    quern::onnx::ValueInfo info(std::string name, DType type, std::vector<std::string> dims, bool ranked) {
        std::vector<quern::onnx::Dimension> d;
        for (auto& s : dims) {
            quern::onnx::Dimension x;
            if (!s.empty() && s.find_first_not_of("0123456789") == std::string::npos) x.has_value = true, x.value = std::stoll(s);
            else x.param = keep(s);
            d.push_back(x);
        }
        return quern::onnx::tensor_info(keep(std::move(name)), type, std::move(d), ranked);
    }
    quern::onnx::ModelProto m_;
    std::deque<std::string> text_, bytes_;
    std::deque<Tensor> tensors_;
};

/// One operator on the given inputs ("in0", "in1", ...; undefined tensors are absent inputs), every input a graph input
/// whose dims are known. `fixed`: the inputs by number that are constants instead.
inline std::vector<Tensor> run_op(const std::string& op, const std::vector<Tensor>& in, std::vector<quern::onnx::Attribute> attrs = {},
                                  std::int64_t opset = 20, int outputs = 1, std::vector<int> fixed = {}, quern::Options options = {}, const std::string& domain = "") {
    ModelBuilder b(opset);
    if (!domain.empty()) b.domain(domain, 1);
    std::vector<std::string> names, outs;
    std::vector<quern::NamedTensor> feeds;
    for (std::size_t i = 0; i < in.size(); ++i) {
        names.push_back(in[i].defined() ? "in" + std::to_string(i) : "");
        if (!in[i].defined()) continue;
        bool is_fixed = false;
        for (int f : fixed) is_fixed = is_fixed || f == static_cast<int>(i);
        if (is_fixed) { b.constant(names.back(), in[i]); continue; }
        std::vector<std::string> dims;
        for (std::int64_t d : in[i].shape()) dims.push_back(d > 0 ? std::to_string(d) : "zero" + std::to_string(d));
        b.input(names.back(), in[i].dtype(), dims);
        feeds.emplace_back(names.back(), in[i]);
    }
    for (int o = 0; o < outputs; ++o) outs.push_back("out" + std::to_string(o));
    b.node(op, names, outs, std::move(attrs), domain);
    for (auto& o : outs) b.output(o);
    return b.run(feeds, options);
}

/// |got - want| <= atol + rtol * |want| for each element; NaN equals NaN.
inline void expect_near(const Tensor& got, const Tensor& want, double rtol = 1e-5, double atol = 1e-6) {
    ASSERT_EQ(got.dtype(), want.dtype());
    ASSERT_EQ(got.shape(), want.shape()) << got.shape().to_string() << " " << want.shape().to_string();
    for (std::int64_t i = 0; i < want.count(); ++i) {
        double g, w;
        if (want.dtype() == DType::f32) g = got.data<float>()[i], w = want.data<float>()[i];
        else if (want.dtype() == DType::f64) g = got.data<double>()[i], w = want.data<double>()[i];
        else if (want.dtype() == DType::i64) g = double(got.data<std::int64_t>()[i]), w = double(want.data<std::int64_t>()[i]);
        else if (want.dtype() == DType::i32) g = got.data<std::int32_t>()[i], w = want.data<std::int32_t>()[i];
        else { ASSERT_EQ(0, std::memcmp(got.raw(), want.raw(), want.bytes())); return; }
        if (w != w) { ASSERT_NE(g, g) << "element " << i; continue; }
        if (g == w) continue;
        ASSERT_LE(std::abs(g - w), atol + rtol * std::abs(w)) << "element " << i << ": " << g << ", expected " << w;
    }
}

}  // namespace quern_test
