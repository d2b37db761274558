#pragma once
#include <algorithm>
#include <deque>
#include <map>
#include <unordered_map>

#include "../onnx/writer.hpp"
#include "../ops/op.hpp"
#include "exporter.hpp"

QUERN_BEGIN
namespace export_detail {

/// Builds protos whose views point into the graph or into `text`, which owns the strings made here.
struct Exporter {
    std::deque<std::string> text;
    std::map<std::string, std::int64_t> domains;  // to the newest revision of the operators in use, whose forms nodes have

    std::string_view keep(std::string s) { return text.emplace_back(std::move(s)); }

    onnx::TypeProto type(const Fact& f) {
        using K = onnx::TypeProto;
        if (f.kind == Kind::tensor) return info({}, f).type;
        K t;
        t.kind = f.kind == Kind::sequence ? K::sequence : f.kind == Kind::map ? K::map : K::optional;
        t.key_type = static_cast<std::int32_t>(f.key);
        if (f.elem) t.elem = std::make_shared<K>(type(*f.elem));
        return t;
    }
    onnx::ValueInfo info(std::string_view name, const Fact& f) {
        if (f.kind != Kind::tensor) {
            onnx::ValueInfo v;
            v.name = name;
            v.type = type(f);
            return v;
        }
        std::vector<onnx::Dimension> dims;
        for (auto& d : f.dims) {
            onnx::Dimension x;
            if (d.is_const()) x.has_value = true, x.value = d.value();
            else if (std::string s = d.to_string(); s[0] != '?') x.param = keep(std::move(s));
            dims.push_back(x);
        }
        return onnx::tensor_info(name, f.dtype, std::move(dims), f.ranked);
    }
    onnx::Attribute attribute(const std::string& name, const Attr& a, const std::vector<std::string_view>& outer_names, std::size_t own_inputs) {
        if (auto* i = std::get_if<std::int64_t>(&a)) return onnx::attribute_i(name, *i);
        if (auto* f = std::get_if<float>(&a)) return onnx::attribute_f(name, *f);
        if (auto* s = std::get_if<std::string>(&a)) return onnx::attribute_s(name, *s);
        if (auto* t = std::get_if<Tensor>(&a)) return onnx::attribute_t(name, *t);
        if (auto* v = std::get_if<std::vector<std::int64_t>>(&a)) return onnx::attribute_ints(name, *v);
        if (auto* v = std::get_if<std::vector<float>>(&a)) return onnx::attribute_floats(name, *v);
        if (auto* v = std::get_if<std::vector<std::string>>(&a)) return onnx::attribute_strings(name, {v->begin(), v->end()});
        if (auto* f = std::get_if<std::shared_ptr<const Fact>>(&a)) {
            onnx::Attribute t = onnx::make_attribute(name, onnx::AttrType::tp);
            t.tp = std::make_shared<onnx::TypeProto>(type(**f));
            return t;
        }
        const Graph& sub = *std::get<std::shared_ptr<const Graph>>(a);
        std::unordered_map<ValueId, std::string_view> bound;
        for (std::size_t i = sub.formals; i < sub.inputs.size(); ++i) bound[sub.inputs[i]] = outer_names[own_inputs + i - sub.formals];
        return onnx::attribute_g(name, graph(sub, bound, sub.formals));
    }
    onnx::GraphProto graph(const Graph& g, const std::unordered_map<ValueId, std::string_view>& bound, std::size_t formal) {
        onnx::GraphProto p;
        p.name = g.name.empty() ? std::string_view("graph") : std::string_view(g.name);
        auto name = [&](ValueId v) -> std::string_view {
            if (v == no_value) return {};
            auto it = bound.find(v);
            return it != bound.end() ? it->second : std::string_view(g.values[v].name);
        };
        std::vector<int> uses = g.use_counts();
        for (std::size_t v = 0; v < g.values.size(); ++v)
            if (uses[v] && g.values[v].fact.is_const() && !bound.count(static_cast<ValueId>(v)))
                p.initializer.push_back(onnx::to_proto(g.values[v].fact.value, g.values[v].name));
        for (std::size_t i = 0; i < formal; ++i) p.input.push_back(info(name(g.inputs[i]), g.fact(g.inputs[i])));
        for (NodeId id : g.order()) {
            const Node& n = g.nodes[id];
            onnx::NodeProto out;
            out.name = n.name;
            out.op_type = n.op->name;
            out.domain = n.op->domain;
            auto& newest = domains[n.op->domain];
            newest = std::max<std::int64_t>({newest, n.op->newest, 1});
            std::vector<std::string_view> in;
            for (ValueId v : n.in) in.push_back(name(v));
            std::size_t own = in.size();
            for (auto& [k, a] : n.attrs.all())
                if (auto* sub = std::get_if<std::shared_ptr<const Graph>>(&a)) own = in.size() - ((*sub)->inputs.size() - (*sub)->formals);
            for (auto& [k, a] : n.attrs.all()) out.attribute.push_back(attribute(k, a, in, own));
            in.resize(own);
            out.input = std::move(in);
            for (ValueId v : n.out) out.output.push_back(name(v));
            p.node.push_back(std::move(out));
        }
        for (std::size_t o = 0; o < g.outputs.size(); ++o) {
            ValueId v = g.outputs[o];
            std::string_view want = o < g.output_names.size() && !g.output_names[o].empty() ? std::string_view(g.output_names[o]) : name(v);
            if (want != name(v)) {  // the declared name is another: an Identity gives it
                onnx::NodeProto id;
                id.op_type = "Identity";
                id.input = {name(v)};
                id.output = {want};
                p.node.push_back(std::move(id));
            }
            p.output.push_back(info(want, g.fact(v)));
        }
        return p;
    }
    onnx::ModelProto model(const Graph& g) {
        onnx::ModelProto m;
        m.ir_version = 10;
        m.producer_name = "quern";
        m.has_graph = true;
        m.graph = graph(g, {}, g.inputs.size());
        m.opset_import.push_back({"", graph_opset});
        for (auto& [d, newest] : domains)
            if (!d.empty()) m.opset_import.push_back({d, newest});
        return m;
    }
};

}  // namespace export_detail

QUERN_INLINE ExportedModel::ExportedModel(const Graph& g) {
    auto e = std::make_shared<export_detail::Exporter>();
    proto_ = e->model(g);
    text_ = std::move(e);
}
QUERN_INLINE void write_onnx(const Graph& g, const std::string& path) {
    export_detail::Exporter e;
    onnx::write_model(path, e.model(g));
}
QUERN_INLINE std::string serialize_onnx(const Graph& g) {
    export_detail::Exporter e;
    return onnx::serialize(e.model(g));
}

QUERN_END
