// What tests of passes share: the graph as text after a pass, and the answer with and without it.
#pragma once
#include <string>
#include <vector>

#include <quern/passes/pass.hpp>

#include "support/op_test.hpp"

namespace quern_test {

/// How often `what` stands in `text`.
inline int count(const std::string& text, const std::string& what) {
    int n = 0;
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
}
/// The graph as text after the pass, portable kernels only, so that layouts stay as they are.
inline std::string after(ModelBuilder& b, const char* pass) { return b.model().dump(pass, "text", {.accelerated = false}); }

/// Answers with every pass and without are the same, with portable kernels and with all.
inline void same_answer(ModelBuilder& b, const std::vector<quern::NamedTensor>& in, double tolerance = 1e-5) {
    auto plain = b.run(in, {.threads = 1, .optimize = false});
    for (bool accelerated : {false, true}) {
        auto full = b.run(in, {.threads = 1, .accelerated = accelerated});
        ASSERT_EQ(plain.size(), full.size());
        for (std::size_t o = 0; o < plain.size(); ++o) expect_near(full[o], plain[o], tolerance, tolerance);
    }
}
/// Values from `from` upwards in steps of `scale`, in an order that no kernel's blocks have.
inline Tensor ramp(quern::Shape shape, float scale = 0.1f, float from = -1) {
    Tensor x(DType::f32, shape);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = from + scale * float((i * 7919) % 23);
    return x;
}

/// A graph all of whose nodes are placed on a device with the kernels that a test gives in `backend.lists`.
struct DeviceGraph {
    quern::Graph g;
    quern::Options options;
    quern::Backend backend{"fake", {}, quern::Device::cuda, nullptr};
    const quern::Backend* backends[1] = {&backend};
    quern::Target target;

    DeviceGraph() {
        target.backends = backends;
        target.device = quern::Device::cuda;
    }
    DeviceGraph(const DeviceGraph&) = delete;
    quern::ValueId input(const char* name, DType t, std::vector<quern::Dim> dims) {
        const quern::ValueId v = g.add_value(name, quern::Fact::of(t, std::move(dims)));
        g.inputs.push_back(v);
        return v;
    }
    /// `to`: of a Cast.
    quern::ValueId node(const char* op, const std::string& name, std::vector<quern::ValueId> in, DType to = DType::undefined) {
        quern::Attrs a;
        if (to != DType::undefined) a.set("to", static_cast<std::int64_t>(to));
        const quern::ValueId out = g.add_value(name, quern::Fact());
        const quern::NodeId id = g.add_node(quern::op_named(op), name + "_node", std::move(in), {out}, std::move(a));
        g.nodes[static_cast<std::size_t>(id)].device = quern::Device::cuda;
        quern::infer_node(g, id);
        return out;
    }
    bool run(bool (*pass)(quern::Graph&, const quern::PassContext&)) {
        const bool changed = pass(g, quern::PassContext{options, target});
        remove_dead(g);
        quern::infer_graph(g);
        g.verify();
        return changed;
    }
    int count(std::string_view op) const {
        int n = 0;
        for (auto& node : g.nodes) n += node.op && op == node.op->name;
        return n;
    }
};

}  // namespace quern_test
