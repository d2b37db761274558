#pragma once
#include <algorithm>
#include <functional>
#include <queue>
#include <unordered_map>

#include "../base/guard.hpp"
#include "importer.hpp"
#include "../ops/control.hpp"
#include "../ops/op.hpp"

QUERN_BEGIN
namespace import_detail {

using Opsets = std::unordered_map<std::string_view, std::int64_t>;

inline Opsets opsets_of(const std::vector<onnx::OpsetId>& ids) {
    Opsets o;
    for (auto& id : ids) o[id.domain == "ai.onnx" ? std::string_view() : id.domain] = id.version;
    return o;
}

/// Names of one graph (or function body, which shares its caller's graph) and what it takes from outside.
struct Scope {
    Graph* graph;
    Scope* parent = nullptr;         // the enclosing graph, whose values are captured
    std::unordered_map<std::string_view, ValueId> names;
    std::unordered_map<std::string_view, const onnx::TensorProto*> initializers;  // decoded at first use
    const Opsets* opsets = nullptr;
    std::vector<std::pair<ValueId, ValueId>> captures;  // outer, inner
    const onnx::NodeProto* call = nullptr;               // the call, inside a function body
    const onnx::FunctionProto* function = nullptr;
    std::string prefix;
    int depth = 0;
};

/// The subgraphs of one node and what each takes from outside.
struct Bodies {
    const OpDef& op;
    const onnx::NodeProto& node;
    std::int64_t opset;
    const Attrs* attrs = nullptr;  // those that are no graphs
    std::vector<std::shared_ptr<Graph>> graphs;
    std::vector<std::vector<std::pair<ValueId, ValueId>>> captures;  // outer, inner
};

class Importer {
public:
    Importer(const onnx::ModelProto& m, onnx::External* e, std::shared_ptr<const void> owner, const CustomTable* custom, std::span<const GivenFunction> given, std::size_t memory_limit)
        : model_(m), external_(e), owner_(std::move(owner)), custom_(custom), given_(given), opsets_(opsets_of(m.opset_import)) {
        if (memory_limit) dense_left_ = std::min(dense_left_, memory_limit);
        budget_ = 200000 + 50 * m.graph.node.size();
        for (auto& f : m.functions) functions_[std::string(f.domain) + "::" + std::string(f.name) + "::" + std::string(f.overload)] = &f;
    }
    Imported run();

    struct Context;
    ValueId find(Scope& s, std::string_view name);
    void node(Scope& s, const onnx::NodeProto& n);
    void nodes(Scope& s, const std::vector<onnx::NodeProto>& list);
    const onnx::FunctionProto* function_for(const onnx::NodeProto& n, const OpDef* op, std::int64_t opset) const;
    std::string why_unknown(const onnx::NodeProto& n, std::int64_t opset) const;
    void call_function(Scope& s, const onnx::NodeProto& n, const onnx::FunctionProto& f);
    void standard_node(Scope& s, const onnx::NodeProto& n, const OpDef& op, std::int64_t opset);
    Attrs attributes(Scope& s, Bodies& bodies);
    bool attribute(Scope& s, const onnx::Attribute& a, Attr& out, Bodies& bodies);
    void subgraph(Scope& outer, const onnx::GraphProto& g, Bodies& bodies);
    /// `formals`: of a subgraph, what its node gives to its inputs.
    void fill(Scope& s, const onnx::GraphProto& g, const std::vector<Fact>* formals);
    Fact declared(const onnx::TypeProto& t, const std::string& who);
    void problem(Scope& s, const onnx::NodeProto& n, std::int64_t opset, const Error& e);
    std::string unique(Graph& g, std::string_view name);
    Tensor tensor(const onnx::TensorProto& t);
    Tensor sparse(const onnx::SparseTensor& t);
    void spend(std::size_t parts);

    const onnx::ModelProto& model_;
    onnx::External* external_;
    std::shared_ptr<const void> owner_;
    const CustomTable* custom_;
    std::span<const GivenFunction> given_;
    Opsets opsets_;
    std::unordered_map<std::string, const onnx::FunctionProto*> functions_;
    Imported out_;
    std::unordered_map<const Graph*, std::unordered_map<std::string, int>> taken_;
    int unknown_dims_ = 0;
    std::size_t budget_;  // functions that call each other may multiply what is in the file without end
    std::unordered_map<const onnx::TensorProto*, Tensor> tensors_;  // decoded once, however often their function is called
    std::size_t dense_left_ = std::size_t{1} << 30;                 // bytes of sparse tensors, which a few bytes of a file make
};

/// The face that an operator's import sees.
struct Importer::Context final : ImportCtx {
    Importer& im;
    Scope& scope;
    const onnx::NodeProto& proto;
    std::vector<ValueId> results;
    bool done = false;
    int made = 0;
    std::string origin;

    Context(Importer& i, Scope& s, const onnx::NodeProto& n) : ImportCtx(*s.graph), im(i), scope(s), proto(n), results(n.output.size(), no_value) {}
    std::string base_name() const {
        return scope.prefix + std::string(proto.name.empty() ? (proto.output.empty() ? proto.op_type : proto.output[0]) : proto.name);
    }
    ValueId constant(Tensor t) override { return graph.add_constant(graph.fresh_name(base_name()), std::move(t)); }
    NodeId make(const OpDef& op, std::vector<ValueId> inputs, Attrs a, std::vector<ValueId> outs) {
        // Who runs subgraphs takes all that are there, in the order of their names.
        auto graphs = std::count_if(a.all().begin(), a.all().end(), [](auto& x) { return std::holds_alternative<std::shared_ptr<const Graph>>(x.second); });
        if (const int accepted = !op.control ? 0 : op.formals ? 1 : 2; graphs > accepted)
            raise(ErrorCode::invalid_model, std::to_string(graphs) + " attributes are graphs; accepted for " + op.name + ": " + std::to_string(accepted));
        NodeId id = graph.add_node(op, made++ ? base_name() + "." + std::to_string(made) : base_name(), std::move(inputs), std::move(outs), std::move(a));
        graph.nodes[id].origin = origin;
        infer_node(graph, id);
        return id;
    }
    std::vector<ValueId> add(std::string_view op, std::vector<ValueId> inputs, Attrs a, int n) override {
        std::vector<ValueId> outs;
        for (int i = 0; i < n; ++i) outs.push_back(graph.add_value(graph.fresh_name(base_name()), Fact()));
        make(op_named(op), std::move(inputs), std::move(a), outs);
        return outs;
    }
    std::vector<ValueId> output_values() {
        std::vector<ValueId> outs;
        for (auto& name : proto.output)
            outs.push_back(name.empty() ? no_value : graph.add_value(im.unique(graph, scope.prefix + std::string(name)), Fact()));
        return outs;
    }
    void finish(std::string_view op, std::vector<ValueId> inputs, Attrs a) override { finish(op_named(op), std::move(inputs), std::move(a)); }
    void finish(const OpDef& op, std::vector<ValueId> inputs, Attrs a) {
        auto outs = output_values();
        // The number of outputs counts where it is the node's own choice (Split, Loop), whoever reads them.
        const bool optional = op.max_out < OpDef().max_in;
        while (optional && !outs.empty() && outs.back() == no_value) outs.pop_back();
        // Kernels may take their first output for granted: where a model leaves it out it is made, and nobody reads it.
        if (!outs.empty() && outs[0] == no_value && !op.control) outs[0] = graph.add_value(graph.fresh_name(base_name()), Fact());
        make(op, std::move(inputs), std::move(a), outs);
        for (std::size_t i = 0; i < outs.size(); ++i) results[i] = outs[i];
        done = true;
    }
    void alias(int o, ValueId v) override {
        done = true;
        if (o >= static_cast<int>(proto.output.size()) || proto.output[o].empty()) return;
        GraphValue& val = graph.values[v];
        if (val.name.find('~') != std::string::npos) {  // nobody knows it yet: it takes the ONNX name
            val.name = im.unique(graph, scope.prefix + std::string(proto.output[o]));
            results[o] = v;
            return;
        }
        ValueId out = graph.add_value(im.unique(graph, scope.prefix + std::string(proto.output[o])), Fact());
        make(op_named("Identity"), {v}, {}, {out});
        results[o] = out;
    }
};

inline void Importer::spend(std::size_t parts) {
    if (parts > budget_) raise(ErrorCode::invalid_model, "inlined functions make more nodes, names and values than 200000 and 50 for each node in the graph");
    budget_ -= parts;
}
inline Tensor Importer::tensor(const onnx::TensorProto& t) {
    auto it = tensors_.find(&t);
    if (it == tensors_.end()) it = tensors_.emplace(&t, onnx::decode_tensor(t, external_, owner_)).first;
    return it->second;
}
inline Tensor Importer::sparse(const onnx::SparseTensor& s) {
    auto it = tensors_.find(&s.values);
    if (it == tensors_.end()) {
        it = tensors_.emplace(&s.values, onnx::decode_sparse(s, external_, owner_, dense_left_)).first;
        dense_left_ -= it->second.bytes();
    }
    return it->second;
}

inline std::string Importer::unique(Graph& g, std::string_view name) {
    int& n = taken_[&g][std::string(name)];
    return n++ ? std::string(name) + "." + std::to_string(n) : std::string(name);
}

inline ValueId Importer::find(Scope& s, std::string_view name) {
    if (auto it = s.names.find(name); it != s.names.end()) return it->second;
    if (auto it = s.initializers.find(name); it != s.initializers.end()) {
        Tensor t = with_place([&] { return "initializer '" + std::string(name) + "'"; }, [&] { return tensor(*it->second); });
        return s.names[name] = s.graph->add_constant(unique(*s.graph, name), std::move(t));
    }
    if (!s.parent) return no_value;
    ValueId outer = find(*s.parent, name);
    if (outer == no_value) return no_value;
    const Fact& f = s.parent->graph->fact(outer);
    std::string local = unique(*s.graph, name);
    if (f.is_const()) return s.names[name] = s.graph->add_constant(local, f.value);
    ValueId inner = s.graph->add_value(local, ops_control::inner_fact(f));
    s.captures.emplace_back(outer, inner);
    return s.names[name] = inner;
}

inline Fact Importer::declared(const onnx::TypeProto& t, const std::string& who) {
    using K = onnx::TypeProto;
    auto type = [&](std::int32_t n) {
        if (n < 0 || n >= dtype_count) raise(ErrorCode::invalid_model, who + " has element type " + std::to_string(n) + "; accepted: 1 to " + std::to_string(dtype_count - 1));
        return static_cast<DType>(n);
    };
    if (t.kind == K::sequence || t.kind == K::optional || t.kind == K::map) {
        Fact e;
        if (t.elem) e = declared(*t.elem, who);
        e.ranked = false;  // what stands in a sequence is measured when it is there
        e.dims.clear();
        return t.kind == K::sequence ? Fact::sequence_of(std::move(e)) : t.kind == K::optional ? Fact::optional_of(std::move(e)) : Fact::map_of(type(t.key_type), std::move(e));
    }
    Fact f;
    f.dtype = type(t.elem_type);
    if (!t.has_shape) return f;
    f.ranked = true;
    for (auto& d : t.shape) {
        // Exporters write 0 or -1 for a size that they do not know.
        if (d.has_value && d.value > 0) f.dims.emplace_back(d.value);
        else if (!d.param.empty() && d.param != "?") f.dims.push_back(Dim::symbol(std::string(d.param)));
        else f.dims.push_back(Dim::symbol("?" + std::to_string(unknown_dims_++)));
    }
    return f;
}

inline bool Importer::attribute(Scope& s, const onnx::Attribute& a, Attr& out, Bodies& bodies) {
    if (!a.ref_attr_name.empty()) {  // an attribute of the function's call, or its default
        if (!s.call) raise(ErrorCode::invalid_model, "attribute '" + std::string(a.name) + "' refers to a function's attribute outside of a function");
        for (auto& c : s.call->attribute)
            if (c.name == a.ref_attr_name && c.ref_attr_name.empty()) return attribute(s, c, out, bodies);
        for (auto& c : s.function->attribute_proto)
            if (c.name == a.ref_attr_name && c.ref_attr_name.empty()) return attribute(s, c, out, bodies);
        return false;
    }
    switch (a.type) {
        case 1: out = a.f; return true;
        case 2: out = static_cast<std::int64_t>(a.i); return true;
        case 3: out = std::string(a.s); return true;
        case 4:
            if (!a.t) raise(ErrorCode::invalid_model, "attribute '" + std::string(a.name) + "' has no tensor");
            out = tensor(*a.t);
            return true;
        case 5: {
            if (!a.g) raise(ErrorCode::invalid_model, "attribute '" + std::string(a.name) + "' has no graph");
            subgraph(s, *a.g, bodies);
            out = std::shared_ptr<const Graph>(bodies.graphs.back());
            return true;
        }
        case 6: out = a.floats; return true;
        case 7: out = std::vector<std::int64_t>(a.ints.begin(), a.ints.end()); return true;
        case 8: out = std::vector<std::string>(a.strings.begin(), a.strings.end()); return true;
        case 11: {  // sparse tensors become dense where Constant reads them
            if (!a.sparse) raise(ErrorCode::invalid_model, "attribute '" + std::string(a.name) + "' has no sparse tensor");
            out = sparse(*a.sparse);
            return true;
        }
        case 13:
            if (!a.tp) raise(ErrorCode::invalid_model, "attribute '" + std::string(a.name) + "' has no type");
            out = std::make_shared<const Fact>(declared(*a.tp, "attribute '" + std::string(a.name) + "'"));
            return true;
        default: raise(ErrorCode::unsupported, "attribute '" + std::string(a.name) + "' has type " + std::to_string(a.type) + "; accepted: numbers, strings, tensors, graphs and lists of numbers or strings");
    }
}

inline Attrs Importer::attributes(Scope& s, Bodies& bodies) {
    Attrs attrs;
    for (bool graphs : {false, true}) {  // what a subgraph gets depends on the others
        bodies.attrs = &attrs;
        for (auto& a : bodies.node.attribute) {
            Attr v;
            if ((a.type == 5) == graphs && attribute(s, a, v, bodies)) attrs.set(std::string(a.name), std::move(v));
        }
    }
    return attrs;
}

/// What the body of a loop gives back widens what it gets: it is imported again until both agree.
inline void Importer::subgraph(Scope& outer, const onnx::GraphProto& g, Bodies& bodies) {
    if (outer.depth > 64) raise(ErrorCode::invalid_model, "subgraphs are nested more than 64 deep");
    std::vector<Fact> said;
    for (auto& i : g.input) said.push_back(declared(i.type, "input '" + std::string(i.name) + "' of a subgraph"));
    FormalsCtx formals{*bodies.attrs};
    formals.opset = bodies.opset;
    for (auto& f : said) formals.said.push_back(&f);
    for (auto& i : bodies.node.input) {
        ValueId v = i.empty() ? no_value : find(outer, i);
        formals.inputs.push_back(v == no_value ? nullptr : &outer.graph->fact(v));
    }
    if (bodies.op.formals) bodies.op.formals(formals);
    if (!bodies.op.control) {  // its import makes the subgraph part of the graph, with what is declared
        formals.facts = said;
        formals.from.assign(said.size(), -1);
    }
    if (formals.facts.size() != g.input.size())
        raise(ErrorCode::invalid_model, "the subgraph has " + std::to_string(g.input.size()) + " inputs; accepted: " + std::to_string(formals.facts.size()));
    const std::size_t problems = out_.problems.size(), warnings = out_.warnings.size();
    for (int round = 0;; ++round) {
        out_.problems.resize(problems, Problem{});
        out_.warnings.resize(warnings);
        auto graph = std::make_shared<Graph>();
        Scope s{graph.get(), &outer};
        s.opsets = outer.opsets;
        s.depth = outer.depth + 1;
        s.call = outer.call;
        s.function = outer.function;
        fill(s, g, &formals.facts);
        graph->formals = formals.facts.size();
        taken_.erase(graph.get());
        if (ops_control::widen_formals(formals, *graph)) {
            for (std::size_t i = 0; i < formals.facts.size() && round > 6; ++i)  // a size that changes each time it is looked at
                if (formals.from[i] >= 0 && formals.facts[i].kind == Kind::tensor) formals.facts[i].ranked = false, formals.facts[i].dims.clear();
            continue;
        }
        bodies.graphs.push_back(std::move(graph));
        bodies.captures.push_back(std::move(s.captures));
        return;
    }
}

inline void Importer::problem(Scope& s, const onnx::NodeProto& n, std::int64_t opset, const Error& e) {
    Problem p{e.code(), std::string(n.name.empty() && !n.output.empty() ? n.output[0] : n.name), std::string(n.op_type), std::string(n.domain), opset, "", e.message()};
    for (auto& name : n.input) {
        ValueId v = name.empty() ? no_value : find(s, name);
        p.dtype += (p.dtype.empty() ? "" : ", ") + std::string(v == no_value ? "-" : dtype_name(s.graph->fact(v).dtype));
    }
    out_.problems.push_back(std::move(p));
    for (auto& name : n.output)  // later nodes see values of unknown type and are skipped
        if (!name.empty()) s.names[name] = s.graph->add_value(unique(*s.graph, name), Fact());
}

inline void Importer::nodes(Scope& s, const std::vector<onnx::NodeProto>& list) {
    // ONNX asks for topological order; for exporters that break it, the first node in the list that is ready comes next.
    std::unordered_map<std::string_view, std::size_t> maker;
    for (std::size_t n = 0; n < list.size(); ++n)
        for (auto& o : list[n].output)
            if (!o.empty()) maker.emplace(o, n);
    std::vector<std::vector<std::size_t>> users(list.size());
    std::vector<std::size_t> missing(list.size());
    std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>> ready;
    for (std::size_t n = 0; n < list.size(); ++n) {
        for (auto& i : list[n].input)
            if (auto m = i.empty() ? maker.end() : maker.find(i); m != maker.end()) {
                users[m->second].push_back(n);
                ++missing[n];
            }
        if (!missing[n]) ready.push(n);
    }
    std::size_t done = 0;
    for (; !ready.empty(); ++done) {
        std::size_t n = ready.top();
        ready.pop();
        node(s, list[n]);
        for (std::size_t u : users[n])
            if (--missing[u] == 0) ready.push(u);
    }
    if (done == list.size()) return;
    std::size_t n = 0;
    while (!missing[n]) ++n;
    raise(ErrorCode::invalid_model, "the graph has a cycle through node '" + std::string(list[n].name.empty() ? list[n].op_type : list[n].name) + "'");
}

inline std::string_view plain(std::string_view domain) { return domain == "ai.onnx" ? std::string_view() : domain; }
inline bool is_body_of(const onnx::FunctionProto& f, const onnx::NodeProto& n) {
    return f.name == n.op_type && f.overload == n.overload && plain(f.domain) == plain(n.domain);
}
/// The body that a node stands for: the model's own function of an operator outside of ai.onnx or unknown, else the newest that the caller gave for
/// the node's opset, where that is newer than quern's own operator. Null: none.
inline const onnx::FunctionProto* Importer::function_for(const onnx::NodeProto& n, const OpDef* op, std::int64_t opset) const {
    if (functions_.empty() && given_.empty()) return nullptr;
    std::string key = std::string(n.domain) + "::" + std::string(n.op_type) + "::" + std::string(n.overload);
    if (auto f = functions_.find(key); f != functions_.end() && (!op || !plain(n.domain).empty())) return f->second;
    const GivenFunction* best = nullptr;
    for (auto& g : given_)
        if (is_body_of(g.body, n) && g.since <= opset && (!op || g.since > op->newest) && (!best || g.since > best->since)) best = &g;
    return best ? &best->body : nullptr;
}
inline std::string Importer::why_unknown(const onnx::NodeProto& n, std::int64_t opset) const {
    std::string who = "operator " + (n.domain.empty() ? std::string() : std::string(n.domain) + "::") + std::string(n.op_type);
    for (auto& g : given_)
        if (is_body_of(g.body, n))
            return who + " has a function body since opset " + std::to_string(g.since) + " of its domain; the model " +
                   (opset ? "imports opset " + std::to_string(opset) : std::string("does not import that domain"));
    if (opset == 0) return who + " is unknown and its domain is not imported by the model";
    return who + " is not implemented; accepted: a custom operator or a function body (LoadOptions::functions) given when loading";
}

inline void Importer::node(Scope& s, const onnx::NodeProto& n) {
    spend(s.call ? std::max<std::size_t>(1, n.output.size()) + n.input.size() / 8 + n.attribute.size() / 8 + s.prefix.size() / 256 : 1);
    std::string_view domain = n.domain == "ai.onnx" ? std::string_view() : n.domain;
    auto v = s.opsets->find(domain);
    std::int64_t opset = v == s.opsets->end() ? 0 : v->second;
    Result<void> r = guarded([&] {
        for (auto& i : n.input)
            if (!i.empty() && find(s, i) == no_value) raise(ErrorCode::invalid_model, "input '" + std::string(i) + "' is made by no node, initializer or graph input");
        const OpDef* custom = custom_ ? custom_->find(domain, n.op_type) : nullptr;
        const OpDef* op = custom ? custom : find_op(domain, n.op_type);
        if (const onnx::FunctionProto* f = custom ? nullptr : function_for(n, op, opset)) return call_function(s, n, *f);
        if (opset == 0 && !(domain.empty() && s.opsets->empty())) {
            if (domain.empty() || op == nullptr) raise(ErrorCode::unsupported, why_unknown(n, 0));
            opset = 1;
        }
        if (!op) raise(ErrorCode::unsupported, why_unknown(n, opset));
        for (auto& i : n.input) {
            if (i.empty()) continue;
            const Fact& f = s.graph->fact(find(s, i));
            if (f.dtype == DType::undefined) {  // a consequence of an earlier problem
                for (auto& o : n.output)
                    if (!o.empty()) s.names[o] = s.graph->add_value(unique(*s.graph, o), Fact());
                return;
            }
        }
        standard_node(s, n, *op, opset == 0 ? 1 : opset);
    });
    if (!r) problem(s, n, opset, r.error());
}

inline void Importer::standard_node(Scope& s, const onnx::NodeProto& n, const OpDef& op, std::int64_t opset) {
    Context ctx(*this, s, n);
    ctx.opset = opset;
    ctx.n_out = static_cast<int>(n.output.size());
    ctx.origin = (n.domain.empty() ? "" : std::string(n.domain) + "::") + std::string(n.op_type) + ", opset " + std::to_string(opset);
    Bodies bodies{op, n, opset};
    ctx.attrs = attributes(s, bodies);
    auto& subgraphs = bodies.graphs;
    auto& captures = bodies.captures;
    for (auto& i : n.input) ctx.in.push_back(i.empty() ? no_value : find(s, i));
    if (!subgraphs.empty()) {  // close the subgraphs: the union of what they take from outside, for each
        std::vector<ValueId> all;
        for (auto& list : captures)
            for (auto& [outer, inner] : list)
                if (std::find(all.begin(), all.end(), outer) == all.end()) all.push_back(outer);
        for (std::size_t g = 0; g < subgraphs.size(); ++g)
            for (ValueId outer : all) {
                auto it = std::find_if(captures[g].begin(), captures[g].end(), [&](auto& c) { return c.first == outer; });
                subgraphs[g]->inputs.push_back(it != captures[g].end() ? it->second : subgraphs[g]->add_value("captured~" + std::to_string(outer), ops_control::inner_fact(s.graph->fact(outer))));
            }
        if (op.formals) ctx.in.resize(std::max(ctx.in.size(), subgraphs[0]->formals), no_value);
        ctx.in.insert(ctx.in.end(), all.begin(), all.end());
    }
    while (!op.formals && !ctx.in.empty() && ctx.in.back() == no_value) ctx.in.pop_back();
    if (op.min_in > 0 && ctx.in.empty()) raise(ErrorCode::invalid_model, "input 0 is missing");
    if (op.import) op.import(ctx);
    if (!ctx.done) ctx.finish(op, ctx.in, ctx.attrs);
    for (std::size_t o = 0; o < n.output.size(); ++o) {
        if (n.output[o].empty()) continue;
        if (ctx.results[o] == no_value) raise(ErrorCode::invalid_model, "the node has output " + std::to_string(o) + ", which its operator does not give");
        s.names[n.output[o]] = ctx.results[o];
    }
}

inline void Importer::call_function(Scope& s, const onnx::NodeProto& n, const onnx::FunctionProto& f) {
    if (s.depth > 64) raise(ErrorCode::invalid_model, "functions call each other more than 64 deep");
    if (n.input.size() > f.input.size() || n.output.size() > f.output.size())
        raise(ErrorCode::invalid_model, std::to_string(n.input.size()) + " inputs and " + std::to_string(n.output.size()) + " outputs; its function accepts up to " +
                                            std::to_string(f.input.size()) + " and " + std::to_string(f.output.size()));
    // Attributes of the call that refer to the caller's own attributes are resolved by substitution here.
    onnx::NodeProto call = n;
    for (auto& a : call.attribute) {
        if (a.ref_attr_name.empty()) continue;
        std::string_view own = a.name;
        bool found = false;
        if (s.call)
            for (auto& c : s.call->attribute)
                if (c.name == a.ref_attr_name) { a = c; a.name = own; found = true; break; }
        if (!found && s.function)
            for (auto& c : s.function->attribute_proto)
                if (c.name == a.ref_attr_name) { a = c; a.name = own; found = true; break; }
    }
    std::erase_if(call.attribute, [](auto& a) { return !a.ref_attr_name.empty(); });
    Opsets opsets = opsets_of(f.opset_import);
    if (opsets.empty()) opsets = *s.opsets;
    Scope inner{s.graph, nullptr};
    inner.opsets = &opsets;
    inner.call = &call;
    inner.function = &f;
    inner.depth = s.depth + 1;
    const std::string part = std::string(n.name.empty() ? n.op_type : n.name) + "/";
    inner.prefix = s.prefix + part;
    for (std::size_t i = 0; i < f.input.size(); ++i)
        if (i < n.input.size() && !n.input[i].empty()) inner.names[f.input[i]] = find(s, n.input[i]);
    // An input that the call leaves out reads as absent in the body.
    spend(f.node.size() / 8);  // also where none of them is made
    std::vector<onnx::NodeProto> body = f.node;
    for (auto& b : body)
        for (auto& i : b.input)
            for (std::size_t k = 0; k < f.input.size(); ++k)
                if (i == f.input[k] && (k >= n.input.size() || n.input[k].empty())) i = {};
    std::size_t before = out_.problems.size();
    nodes(inner, body);
    for (std::size_t p = before; p < out_.problems.size(); ++p) out_.problems[p].node = part + out_.problems[p].node;
    for (std::size_t o = 0; o < n.output.size() && o < f.output.size(); ++o) {
        if (n.output[o].empty()) continue;
        ValueId v = find(inner, f.output[o]);
        if (v == no_value) raise(ErrorCode::invalid_model, "function output '" + std::string(f.output[o]) + "' is made by no node of the function");
        s.names[n.output[o]] = v;
        GraphValue& val = s.graph->values[v];
        if (val.producer >= 0 && val.name.rfind(inner.prefix, 0) == 0) val.name = unique(*s.graph, s.prefix + std::string(n.output[o]));
    }
}

inline void Importer::fill(Scope& s, const onnx::GraphProto& g, const std::vector<Fact>* formals) {
    s.graph->name = std::string(g.name);
    for (auto& t : g.initializer) s.initializers[t.name] = &t;
    for (auto& t : g.sparse_initializer)
        s.names[t.values.name] = s.graph->add_constant(unique(*s.graph, t.values.name), sparse(t));
    for (std::size_t at = 0; at < g.input.size(); ++at) {
        auto& i = g.input[at];
        if (!formals && s.initializers.count(i.name)) continue;
        if (s.names.count(i.name)) raise(ErrorCode::invalid_model, "two graph inputs are named '" + std::string(i.name) + "'");
        Fact f = formals ? (*formals)[at] : declared(i.type, "input '" + std::string(i.name) + "'");
        const Fact* innermost = &f;
        for (; innermost->elem; innermost = innermost->elem.get())
            if (!formals && innermost->kind == Kind::map && innermost->key != DType::string && !is_integer(innermost->key))
                out_.problems.push_back(Problem{ErrorCode::invalid_model, "", "", "", 0, "", "input '" + std::string(i.name) + "' is a map with keys of type " + dtype_name(innermost->key) + "; accepted: integers, strings"});
        if (!formals && innermost->dtype == DType::undefined)
            out_.problems.push_back(Problem{ErrorCode::invalid_model, "", "", "", 0, "", "input '" + std::string(i.name) + "' has no element type; accepted: 1 to " + std::to_string(dtype_count - 1)});
        ValueId v = s.graph->add_value(unique(*s.graph, i.name), std::move(f));
        s.names[i.name] = v;
        s.graph->inputs.push_back(v);
    }
    nodes(s, g.node);
    for (auto& o : g.output) {
        ValueId v = find(s, o.name);
        if (v == no_value) raise(ErrorCode::invalid_model, "graph output '" + std::string(o.name) + "' is made by no node, initializer or input");
        s.graph->outputs.push_back(v);
        s.graph->output_names.push_back(std::string(o.name));
        if (formals || o.type.kind == onnx::TypeProto::none) continue;
        const Fact& have = s.graph->fact(v);
        Fact said = declared(o.type, "output '" + std::string(o.name) + "'");
        if (have.dtype == DType::undefined) continue;
        bool fits = said.dtype == have.dtype && said.kind == have.kind && (!said.ranked || !have.ranked || said.rank() == have.rank());
        for (int d = 0; fits && said.ranked && have.ranked && d < have.rank(); ++d)
            fits = !said.dims[d].is_const() || !have.dims[d].is_const() || said.dims[d] == have.dims[d];
        if (!fits) out_.warnings.push_back("output '" + std::string(o.name) + "' is declared " + said.to_string() + " but inferred " + have.to_string());
    }
}

inline PortInfo port_of(const std::string& name, const Fact& f) {
    PortInfo p{name, f.dtype, f.ranked, {}};
    for (auto& d : f.dims) {
        DimInfo i;
        if (d.is_const()) i.value = d.value();
        else if (std::string s = d.to_string(); s[0] != '?') i.symbol = s;
        p.dims.push_back(std::move(i));
    }
    p.kind = f.kind;
    p.key = f.key;
    if (f.elem) p.elem = std::make_shared<const PortInfo>(port_of("", *f.elem));
    return p;
}

inline Imported Importer::run() {
    if (!model_.has_graph) raise(ErrorCode::invalid_model, "the model has no graph (is this an ONNX file?)");
    int newest = 0;
    for (const OpDef* op : all_ops())
        if (!*op->domain) newest = std::max(newest, op->newest);
    if (auto o = opsets_.find(""); o != opsets_.end() && o->second > newest)
        out_.warnings.push_back("the model is of opset " + std::to_string(o->second) + "; operators are known as they are up to opset " + std::to_string(newest));
    Scope s{&out_.graph};
    s.opsets = &opsets_;
    fill(s, model_.graph, nullptr);
    for (std::size_t i = 0; i < out_.graph.inputs.size(); ++i) {
        auto& v = out_.graph.values[out_.graph.inputs[i]];
        out_.inputs.push_back(port_of(v.name, v.fact));
    }
    for (std::size_t o = 0; o < out_.graph.outputs.size(); ++o)
        out_.outputs.push_back(port_of(out_.graph.output_names[o], out_.graph.fact(out_.graph.outputs[o])));
    return std::move(out_);
}

}  // namespace import_detail

QUERN_INLINE std::vector<GivenFunction> parse_functions(const std::vector<FunctionBody>& given) {
    std::vector<GivenFunction> all;
    for (auto& f : given)
        with_place([&] { return "function " + std::to_string(all.size()) + " of LoadOptions::functions"; }, [&] {
            GivenFunction g{onnx::parse_function(std::as_bytes(std::span<const char>(f.bytes))), f.since};
            if (g.body.name.empty() || g.body.node.empty()) raise(ErrorCode::invalid_argument, "the bytes are no function with a name and nodes; accepted: a serialized FunctionProto");
            for (auto& o : all)
                if (o.since == g.since && o.body.name == g.body.name && o.body.overload == g.body.overload && import_detail::plain(o.body.domain) == import_detail::plain(g.body.domain))
                    raise(ErrorCode::invalid_argument, "the body of '" + std::string(g.body.name) + "' since opset " + std::to_string(g.since) + " is given twice");
            all.push_back(std::move(g));
        });
    return all;
}

QUERN_INLINE Imported import_model(const onnx::ModelProto& model, onnx::External* external, std::shared_ptr<const void> owner, const CustomTable* custom,
                                   std::span<const GivenFunction> functions, std::size_t memory_limit) {
    return import_detail::Importer(model, external, std::move(owner), custom, functions, memory_limit).run();
}

QUERN_END
