// quern ops: which operators there are, and, against ONNX's own schemas, at which revisions and with which types, by trying.
#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include <quern/onnx/writer.hpp>
#include <quern/ops/op.hpp>

#include "io.hpp"
#include "npy.hpp"

namespace cli {
namespace {
using quern::DType;
namespace onnx = quern::onnx;

std::vector<std::string> split_at(const std::string& s, char c) {
    std::vector<std::string> r;
    std::size_t from = 0;
    for (std::size_t at; (at = s.find(c, from)) != std::string::npos; from = at + 1) r.push_back(s.substr(from, at - from));
    if (from < s.size() || !s.empty()) r.push_back(s.substr(from));
    return r;
}

/// One line of docs/onnx_schemas.txt.
struct Schema {
    std::string domain, name, kind;  ///< kind: "", deprecated, function
    std::vector<std::int64_t> since;
    struct Port { std::string type; bool optional = false, variadic = false; };
    std::vector<Port> in, out;
    std::map<std::string, std::vector<std::string>> types;  ///< of each type variable
    std::vector<std::pair<std::string, std::string>> needed;  ///< attributes: name, kind
};
DType dtype_by(const std::string& name) {  // as ONNX spells it
    if (name == "complex64") return DType::c64;
    if (name == "complex128") return DType::c128;
    for (int t = 1; t < quern::dtype_count; ++t)
        if (name == quern::dtype_name(static_cast<DType>(t))) return static_cast<DType>(t);
    return DType::undefined;
}
std::vector<Schema> read_schemas(const std::string& path) {
    std::map<std::string, std::vector<std::string>> sets;
    std::vector<Schema> all;
    std::istringstream lines(read_file(path));
    for (std::string line; std::getline(lines, line);) {
        if (line.empty() || line[0] == '#') continue;
        auto f = split_at(line, ';');
        if (f.size() == 2) {
            sets[f[0]] = split_at(f[1], ',');
            continue;
        }
        if (f.size() == 3 && f[0] == "datatype") {  // ONNX's element types are quern's, by number and name
            const int n = std::stoi(f[1]);
            if (n >= quern::dtype_count || dtype_by(f[2]) != static_cast<DType>(n)) quern::raise(quern::ErrorCode::unsupported, "element type " + f[1] + " of ONNX, " + f[2] + ", is not one of quern's");
            continue;
        }
        if (f.size() < 7) quern::raise(quern::ErrorCode::invalid_argument, "'" + path + "' has a line that is no schema: " + line);
        f.resize(8);
        Schema s;
        s.domain = f[0], s.name = f[1], s.kind = f[7];
        for (auto& v : split_at(f[2], ',')) s.since.push_back(std::stoll(v));
        for (int side = 0; side < 2; ++side)
            for (auto& p : split_at(f[static_cast<std::size_t>(3 + side)], ' ')) {
                Schema::Port port{p};
                if (p.back() == '?') port.optional = true;
                if (p.back() == '*') port.variadic = true;
                if (port.optional || port.variadic) port.type.pop_back();
                (side ? s.out : s.in).push_back(port);
            }
        for (auto& c : split_at(f[5], ' ')) s.types[c.substr(0, c.find('='))] = sets[c.substr(c.find('=') + 1)];
        for (auto& n : split_at(f[6], ' ')) s.needed.emplace_back(n.substr(0, n.find(':')), n.substr(n.find(':') + 1));
        all.push_back(std::move(s));
    }
    return all;
}

/// What trying needs to know where a schema does not say it. Inputs: a rank (of dimensions 2), "=2x3" its dimensions, or "-" where absent. Several
/// hints for one operator: any of them counts.
struct Hint {
    const char* op;
    const char* inputs;
    const char* attributes;  ///< name=value;..., lists in brackets, text after a quote, tensors as t:TYPE[numbers] (TYPE may be a type variable)
    const char* constants;   ///< number of the input=[...];...
};
constexpr Hint hints[] = {
#include "op_hints.inc"
};

class Probe {
public:
    Probe(const Schema& s) : s_(s) {
        for (auto& h : hints)
            if (s.name == h.op) hints_.push_back(&h);
    }
    /// The kernel that takes these types, or nothing.
    std::optional<std::string> try_types(const std::map<std::string, std::string>& types) {
        using Dims = std::optional<std::vector<std::int64_t>>;
        for (const Hint* h : hints_) {
            hint_ = h;
            if (auto r = attempt(types, [&](std::size_t i) { return hinted(i); })) return r;
        }
        if (!hints_.empty()) return std::nullopt;
        for (std::size_t rank : {2, 4, 3, 1, 5, 0}) {
            auto r = attempt(types, [&](std::size_t i) -> Dims {
                if (s_.in[std::min(i, s_.in.size() - 1)].optional) return std::nullopt;
                return std::vector<std::int64_t>(fixed_int(i) ? 1 : rank, 2);
            });
            if (r) return r;
        }
        return std::nullopt;
    }
    std::string why;  ///< of the last failure

private:
    bool fixed_int(std::size_t i) const { return i > 0 && s_.in[std::min(i, s_.in.size() - 1)].type == "int64"; }
    std::optional<std::vector<std::int64_t>> hinted(std::size_t i) const {
        auto r = split_at(hint_->inputs, ',');
        if (i >= r.size() || r[i] == "-") return std::nullopt;
        if (r[i][0] != '=') return std::vector<std::int64_t>(std::stoul(r[i]), 2);
        std::vector<std::int64_t> dims;
        for (auto& d : split_at(r[i].substr(1), 'x')) dims.push_back(std::stoll(d));
        return dims;
    }
    std::string_view keep(std::string s) { return text_.emplace_back(std::move(s)); }
    void attribute(onnx::NodeProto& n, const std::string& name, const std::string& value, const std::map<std::string, std::string>& types) {
        std::string_view key = keep(name);
        if (value.rfind("t:", 0) == 0) {
            std::string type = value.substr(2, value.find('[') - 2);
            if (auto it = types.find(type); it != types.end()) type = it->second;
            tensors_.push_back(dtype_by(type) == DType::string ? quern::Tensor::from_strings(std::vector<std::string>{"a"}, {1}) : quern::Tensor(dtype_by(type), {1}));  // zeros do
            return n.attribute.push_back(onnx::attribute_t(key, tensors_.back()));
        }
        if (value[0] == '\'') return n.attribute.push_back(onnx::attribute_s(key, keep(value.substr(1))));
        if (value[0] != '[') {
            if (value.find('.') != std::string::npos) return n.attribute.push_back(onnx::attribute_f(key, std::stof(value)));
            return n.attribute.push_back(onnx::attribute_i(key, std::stoll(value)));
        }
        auto items = split_at(value.substr(1, value.size() - 2), ',');
        if (!items.empty() && items[0][0] == '\'') {
            std::vector<std::string_view> v;
            for (auto& i : items) v.push_back(keep(i.substr(1)));
            return n.attribute.push_back(onnx::attribute_strings(key, v));
        }
        if (!items.empty() && items[0].find('.') != std::string::npos) {
            std::vector<float> v;
            for (auto& i : items) v.push_back(std::stof(i));
            return n.attribute.push_back(onnx::attribute_floats(key, v));
        }
        std::vector<std::int64_t> v;
        for (auto& i : items) v.push_back(std::stoll(i));
        n.attribute.push_back(onnx::attribute_ints(key, v));
    }
    template <class R>
    std::optional<std::string> attempt(const std::map<std::string, std::string>& types, R&& dims_of) {
        text_.clear();
        tensors_.clear();
        onnx::ModelProto m;
        m.ir_version = 13;
        m.has_graph = true;
        m.opset_import.push_back({"", s_.domain == "ai.onnx" ? s_.since.back() : 22});
        if (s_.domain != "ai.onnx") m.opset_import.push_back({s_.domain, s_.since.back()});
        onnx::NodeProto n;
        n.name = "node";
        n.op_type = s_.name;
        if (s_.domain != "ai.onnx") n.domain = s_.domain;
        auto type_of = [&](const Schema::Port& p) {
            auto it = types.find(p.type);
            return dtype_by(it == types.end() ? p.type : it->second);
        };
        std::vector<quern::NamedTensor> feeds;
        std::deque<quern::Tensor> constants;
        const std::size_t count = hint_ ? split_at(hint_->inputs, ',').size() : s_.in.size();
        for (std::size_t i = 0; i < count && !s_.in.empty(); ++i) {
            const auto shape = dims_of(i);
            if (!shape) {
                n.input.push_back({});
                continue;
            }
            const DType t = type_of(s_.in[std::min(i, s_.in.size() - 1)]);
            if (t == DType::undefined) return why = "no tensor", std::nullopt;
            std::string_view name = keep("in" + std::to_string(i));
            n.input.push_back(name);
            quern::Tensor fixed = constant_hint(i);
            if (fixed.defined()) {
                constants.push_back(fixed);
                m.graph.initializer.push_back(onnx::to_proto(constants.back(), name));
                continue;
            }
            std::vector<onnx::Dimension> dims(shape->size());
            for (std::size_t d = 0; d < dims.size(); ++d) dims[d].has_value = true, dims[d].value = (*shape)[d];
            m.graph.input.push_back(onnx::tensor_info(name, t, dims));
            feeds.emplace_back(std::string(name), quern::Tensor(t, quern::Shape(std::span<const std::int64_t>(*shape))));
        }
        while (!n.input.empty() && n.input.back().empty()) n.input.pop_back();
        if (hint_)
            for (auto& a : split_at(hint_->attributes, ';')) attribute(n, a.substr(0, a.find('=')), a.substr(a.find('=') + 1), types);
        else
            for (auto& [name, kind] : s_.needed) {
                if (kind == "INT") attribute(n, name, "1", types);
                else if (kind == "FLOAT") attribute(n, name, "1.0", types);
                else if (kind == "INTS") attribute(n, name, "[1,1]", types);
                else if (kind == "FLOATS") attribute(n, name, "[1.0,1.0]", types);
                else return why = "attribute " + name + " is a " + kind, std::nullopt;
            }
        if (std::string to = s_.name == "Cast" || s_.name == "BitCast" ? types.at("T2") : ""; !to.empty()) {
            n.attribute.clear();
            attribute(n, "to", std::to_string(static_cast<int>(dtype_by(to))), types);
        }
        std::size_t outputs = 0;
        for (auto& p : s_.out) {
            if (outputs && (p.optional || p.variadic)) break;
            std::string_view name = keep("out" + std::to_string(outputs++));
            n.output.push_back(name);
            onnx::ValueInfo v;
            v.name = name;
            m.graph.output.push_back(v);
        }
        m.graph.node.push_back(std::move(n));
        const std::string bytes = onnx::serialize(m);
        auto fail = [&](const quern::Error& e) { return why = e.message(), std::nullopt; };
        auto model = quern::Model::try_from_bytes(std::as_bytes(std::span<const char>(bytes)));
        if (!model) return fail(model.error());
        quern::Options o;
        o.threads = 1;
        o.isa = quern::Isa::baseline;  // the same names on every machine and in every build
        o.accelerated = o.optimize = false;
        auto engine = model->try_compile(o);
        if (!engine) return fail(engine.error());
        auto run = engine->try_run(feeds);  // zeros need not fit; but kernels chosen late show themselves
        if (!run && (run.error().code() == quern::ErrorCode::unsupported || run.error().code() == quern::ErrorCode::internal)) return fail(run.error());
        std::string kernel;
        std::istringstream lines(engine->describe());
        for (std::string line; std::getline(lines, line);) {
            if (auto by = line.find("' by "); by != std::string::npos && (line.find("Cast '") != 0 || s_.name.rfind("Cast", 0) == 0) && line.find("Copy '") != 0) {
                std::string k = line.substr(by + 5, line.find(" ->", by) - by - 5);
                if (kernel.find(k) == std::string::npos) kernel += (kernel.empty() ? "" : ", ") + k;
            }
        }
        return kernel.empty() ? "none: its result is known when planning" : kernel;
    }
    quern::Tensor constant_hint(std::size_t i) const {
        if (!hint_) return {};
        for (auto& c : split_at(hint_->constants, ';')) {
            if (static_cast<std::size_t>(std::stoul(c.substr(0, c.find('=')))) != i) continue;
            std::string value = c.substr(c.find('=') + 1);
            if (value[0] != '[') return quern::Tensor::from(std::span<const std::int64_t>(std::vector<std::int64_t>{std::stoll(value)}), {});
            std::vector<std::int64_t> v;
            for (auto& e : split_at(value.substr(1, value.size() - 2), ',')) v.push_back(std::stoll(e));
            return quern::Tensor::from(std::span<const std::int64_t>(v), {static_cast<std::int64_t>(v.size())});
        }
        return {};
    }
    const Schema& s_;
    std::vector<const Hint*> hints_;
    const Hint* hint_ = nullptr;
    std::deque<std::string> text_;
    std::deque<quern::Tensor> tensors_;
};

struct Found {
    const quern::OpDef* def = nullptr;
    std::string kernel, why;
    std::map<std::string, std::vector<std::string>> accepted, refused;  ///< by type variable; empty where trying failed altogether
};
bool is_tensor(const std::string& t) { return t.find('(') == std::string::npos; }
Found look(const Schema& s) {
    Found f;
    f.def = quern::find_op(s.domain, s.name);
    if (!f.def) return f;
    Probe probe(s);
    std::map<std::string, std::string> base;
    for (auto& [var, types] : s.types) {
        for (const char* first : {"float", "int64", "bool", "uint8", "int8", "string"})
            if (!base.count(var) && std::count(types.begin(), types.end(), first)) base[var] = first;
        if (!base.count(var) && !types.empty()) base[var] = types[0];
    }
    auto plain = probe.try_types(base);
    if (!plain) {  // some other pair of types
        for (auto& [var, types] : s.types)
            for (auto& t : types) {
                if (plain || !is_tensor(t)) continue;
                auto other = base;
                other[var] = t;
                if ((plain = probe.try_types(other))) base = other;
            }
    }
    if (!plain) {
        f.why = probe.why;
        return f;
    }
    f.kernel = *plain;
    auto decides = [&](const std::string& var) {  // or does it follow from the others?
        return s.name == "Cast" || s.name == "BitCast" || std::any_of(s.in.begin(), s.in.end(), [&](auto& p) { return p.type == var; });
    };
    for (auto& [var, types] : s.types)
        for (auto& t : types) {
            if (!is_tensor(t) || !decides(var)) continue;
            // With the other types as they are, or all of them this one: variables may have to agree.
            auto other = base, all = base;
            other[var] = t;
            for (auto& [v, list] : s.types)
                if (std::count(list.begin(), list.end(), t)) all[v] = t;
            (probe.try_types(other) || probe.try_types(all) ? f.accepted : f.refused)[var].push_back(t);
        }
    return f;
}

std::string joined(const std::vector<std::string>& v) {
    std::string s;
    for (auto& x : v) s += (s.empty() ? "" : " ") + x;
    return s;
}
/// kernels/<family>/kernels.inc: the backends, best first, and the entries of the portable ones.
struct Family {
    std::vector<std::string> backends;
    std::set<std::string> portable;
};
std::map<std::string, Family> read_families(const std::string& dir) {
    std::map<std::string, Family> r;
    if (dir.empty()) return r;
    for (auto& e : std::filesystem::directory_iterator(dir)) {
        if (!std::filesystem::exists(e.path() / "kernels.inc")) continue;
        Family& f = r[e.path().filename().string()];
        std::istringstream lines(read_file((e.path() / "kernels.inc").string()));
        for (std::string line; std::getline(lines, line);) {
            if (line.rfind("QUERN_KERNEL(", 0) != 0) continue;
            const auto comma = line.find(','), name = line.find_first_not_of(' ', comma + 1);
            std::string b = line.substr(13, comma - 13);
            if (!std::count(f.backends.begin(), f.backends.end(), b)) f.backends.push_back(b);
            if (b == "core") f.portable.insert(line.substr(name, line.find(')') - name));
        }
    }
    return r;
}
/// Who else has kernels for what ran in these portable ones: all of the family where the list chooses, some of it where a device has entries of its own.
std::string backends_of(const std::string& kernels, const std::map<std::string, Family>& families) {
    std::vector<std::string> all, some;
    for (auto k : split_at(kernels, ',')) {
        k.erase(0, k.find_first_not_of(' '));
        auto f = families.find(k.substr(0, k.find('.')));
        if (f == families.end()) continue;
        std::replace(k.begin(), k.end(), '.', '_');
        const bool chosen = f->second.portable.count(k), device = f->second.portable.empty();
        for (auto& b : f->second.backends)
            if (auto& list = chosen ? all : some; b != "core" && (chosen || device) && !std::count(list.begin(), list.end(), b)) list.push_back(b);
    }
    return joined(all) + (all.empty() ? "core" : " core") + (some.empty() ? "" : " (" + joined(some) + " in part)");
}

/// Lines "domain;operator;reason" of what is left out on purpose.
std::map<std::pair<std::string, std::string>, std::string> read_reasons(const std::string& path) {
    std::map<std::pair<std::string, std::string>, std::string> r;
    std::istringstream lines(read_file(path));
    for (std::string line; std::getline(lines, line);) {
        if (line.empty() || line[0] == '#') continue;
        auto f = split_at(line, ';');
        if (f.size() == 3) r[{f[0], f[1]}] = f[2];
    }
    return r;
}
constexpr const char* head = R"(# Operators

Made by `docs/update.sh`; a test compares. Do not edit.

*Revisions*: the opsets in which ONNX changed the operator; a model of any of them is made the newest form when it is loaded. *Types* were tried
one by one, each in a model of one node that was loaded, compiled and run (with zeros): those of ONNX's schema that work, or "all". Types that
kernels do not compute in (float16, bfloat16, float8, narrow integers) are cast around them. *Kernel*: the portable one that the first of them ran
in (empty, with the types, for operators on graphs, sequences and maps, which are not tried); "view": nothing moves; several: the operator is made of others. *Backends*: who has kernels for that, best first ("core" is the portable one; "in
part": kernels for some operators of the family); each may refuse a case: `quern inspect MODEL --stage plan` says which runs and why others refused.
)";
}  // namespace

int ops(const Args& a) {
    if (a.schemas.empty()) {
        for (auto* op : quern::all_ops())
            if (std::string_view(op->domain) != "quern") std::printf("%s\t%s\t%d\n", *op->domain ? op->domain : "ai.onnx", op->name, op->newest);
        return ok;
    }
    auto schemas = read_schemas(a.schemas);
    auto reasons = a.reasons.empty() ? decltype(read_reasons("")){} : read_reasons(a.reasons);
    int wrong = 0;
    std::string text = head, domain, missing;
    std::set<std::string> known;
    const auto families = read_families(a.kernels);
    for (auto& s : schemas) {
        known.insert(s.domain + "::" + s.name);
        Found f = look(s);
        auto reason = reasons.find({s.domain, s.name});
        if (!f.def) {
            if (reason == reasons.end()) {
                if (s.kind == "deprecated") continue;
                std::fprintf(stderr, "%s::%s is neither supported nor listed with a reason\n", s.domain.c_str(), s.name.c_str());
                ++wrong;
            }
            missing += "| " + s.domain + " | " + s.name + " | " + (reason == reasons.end() ? "" : reason->second) + " |\n";
            continue;
        }
        if (reason != reasons.end()) std::fprintf(stderr, "%s::%s is supported, but listed as if it were not\n", s.domain.c_str(), s.name.c_str()), ++wrong;
        // A deprecated revision changes nothing but that.
        const std::int64_t newest = s.kind == "deprecated" && s.since.size() > 1 ? s.since[s.since.size() - 2] : s.since.back();
        if (f.def->newest < newest)
            std::fprintf(stderr, "%s::%s is known up to revision %d; the newest is %lld\n", s.domain.c_str(), s.name.c_str(), f.def->newest, static_cast<long long>(newest)), ++wrong;
        if (a.verbose && !f.why.empty()) std::fprintf(stderr, "%s could not be tried: %s\n", s.name.c_str(), f.why.c_str());
        if (s.domain != domain) {
            domain = s.domain;
            text += "\n## " + domain + "\n\n| operator | revisions | types | kernel | backends |\n|---|---|---|---|---|\n";
        }
        std::string revisions, types;
        for (auto v : s.since) revisions += (revisions.empty() ? "" : " ") + std::to_string(v);
        for (auto& [var, list] : s.types) {
            if (f.accepted[var].empty() && f.refused[var].empty()) continue;
            types += (types.empty() ? "" : "; ") + var + ": " + (f.refused[var].empty() ? "all" : f.refused[var].size() < 4 ? "all but " + joined(f.refused[var]) : joined(f.accepted[var]));
        }
        text += "| " + s.name + " | " + revisions + " | " + types + " | " + f.kernel + " | " + (f.kernel.empty() ? "" : backends_of(f.kernel, families)) + " |\n";
    }
    text += "\n## Other domains\n\n| domain | operator |\n|---|---|\n";
    for (auto* op : quern::all_ops()) {
        std::string d = *op->domain ? op->domain : "ai.onnx";
        if (d != "quern" && !known.count(d + "::" + op->name)) text += "| " + d + " | " + op->name + " |\n";
    }
    if (!missing.empty()) text += "\n## Not supported\n\n| domain | operator | why |\n|---|---|---|\n" + missing;
    if (a.markdown) std::fputs(text.c_str(), stdout);
    return wrong ? failed : ok;
}
}  // namespace cli
