#pragma once
#include <cstdio>

#include "dump.hpp"

QUERN_BEGIN

namespace dump_detail {
/// Bytes of the well-formed UTF-8 sequence that `s` begins with; 0: none (https://www.unicode.org/versions/Unicode15.0.0/ch03.pdf, table 3-7).
inline std::size_t utf8_length(std::string_view s) {
    auto byte = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
    const unsigned c = byte(0), n = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
    for (unsigned i = 1; i < n; ++i)
        if ((byte(i) & 0xC0) != 0x80) return 0;
    const bool overlong = (c == 0xE0 && byte(1) < 0xA0) || (c == 0xF0 && byte(1) < 0x90), surrogate = c == 0xED && byte(1) >= 0xA0, beyond = c == 0xF4 && byte(1) >= 0x90;
    return overlong || surrogate || beyond ? 0 : n;
}
}  // namespace dump_detail

QUERN_INLINE std::string json_string(std::string_view s) {
    std::string r = "\"";
    for (std::size_t i = 0; i < s.size(); ++i) {
        const char c = s[i];
        if (static_cast<unsigned char>(c) >= 0x80) {
            const std::size_t n = dump_detail::utf8_length(s.substr(i));
            if (n) r += s.substr(i, n), i += n - 1;
            else r += "\\ufffd";
        } else if (c == '"' || c == '\\') { r += '\\'; r += c; }
        else if (static_cast<unsigned char>(c) < 0x20) {
            char b[8];
            std::snprintf(b, sizeof b, "\\u%04x", c);
            r += b;
        } else r += c;
    }
    return r + "\"";
}

namespace dump_detail {

inline std::string number(double v) {
    char b[32];
    std::snprintf(b, sizeof b, "%.9g", v);
    return b;
}
template <class T, class F>
std::string list(const T& v, F&& f) {
    std::string s = "[";
    std::size_t n = 0;
    for (auto& x : v) {
        if (n == 16) { s += ", ..."; break; }
        s += (n++ ? ", " : "") + f(x);
    }
    return s + "]";
}
inline std::string attr_text(const Attr& a) {
    if (auto* i = std::get_if<std::int64_t>(&a)) return std::to_string(*i);
    if (auto* f = std::get_if<float>(&a)) return number(*f);
    if (auto* s = std::get_if<std::string>(&a)) return json_string(*s);
    if (auto* t = std::get_if<Tensor>(&a)) return std::string("<") + dtype_name(t->dtype()) + t->shape().to_string() + ">";
    if (auto* v = std::get_if<std::vector<std::int64_t>>(&a)) return list(*v, [](std::int64_t x) { return std::to_string(x); });
    if (auto* v = std::get_if<std::vector<float>>(&a)) return list(*v, [](float x) { return number(x); });
    if (auto* v = std::get_if<std::vector<std::string>>(&a)) return list(*v, [](const std::string& x) { return json_string(x); });
    if (auto* f = std::get_if<std::shared_ptr<const Fact>>(&a)) return (*f)->to_string();
    return "<graph>";
}
inline std::string op_text(const Node& n) { return (*op_domain(*n.op) ? std::string(op_domain(*n.op)) + "::" : "") + op_name(*n.op); }

inline std::string text(const Graph& g, const std::string& indent) {
    std::string s = indent + "graph " + g.name + "\n";
    for (ValueId v : g.inputs) s += indent + "  in  " + g.values[v].name + ": " + g.fact(v).to_string() + "\n";
    for (NodeId id : g.order()) {
        const Node& n = g.nodes[id];
        s += indent + "  ";
        for (std::size_t o = 0; o < n.out.size(); ++o)
            if (n.out[o] != no_value) s += (o ? ", " : "") + g.values[n.out[o]].name + ": " + g.fact(n.out[o]).to_string();
        s += " = " + op_text(n) + "(";
        for (std::size_t i = 0; i < n.in.size(); ++i) {
            s += i ? ", " : "";
            if (n.in[i] == no_value) s += "-";
            else s += g.values[n.in[i]].name + (g.fact(n.in[i]).is_const() ? "=" + g.fact(n.in[i]).to_string() : "");
        }
        s += ")";
        for (auto& [name, a] : n.attrs.all()) s += " " + name + "=" + attr_text(a);
        s += "  # " + n.name + "\n";
        for (auto& [name, a] : n.attrs.all())
            if (auto* sub = std::get_if<std::shared_ptr<const Graph>>(&a)) s += text(**sub, indent + "    ");
    }
    for (std::size_t o = 0; o < g.outputs.size(); ++o)
        s += indent + "  out " + (o < g.output_names.size() ? g.output_names[o] : "") + " = " + g.values[g.outputs[o]].name + ": " + g.fact(g.outputs[o]).to_string() + "\n";
    return s;
}
inline std::string json(const Graph& g) {
    auto name = [&](ValueId v) { return v == no_value ? std::string("null") : json_string(g.values[v].name); };
    auto names = [&](const std::vector<ValueId>& l) {
        std::string s = "[";
        for (std::size_t i = 0; i < l.size(); ++i) s += (i ? "," : "") + name(l[i]);
        return s + "]";
    };
    std::string s = "{\"name\":" + json_string(g.name) + ",\"inputs\":" + names(g.inputs) + ",\"outputs\":" + names(g.outputs) + ",\"nodes\":[";
    bool first = true;
    std::vector<char> used(g.values.size(), 0);
    for (NodeId id : g.order()) {
        const Node& n = g.nodes[id];
        s += (first ? "" : ",") + std::string("{\"name\":") + json_string(n.name) + ",\"op\":" + json_string(op_text(n)) + ",\"origin\":" + json_string(n.origin) +
             ",\"inputs\":" + names(n.in) + ",\"outputs\":" + names(n.out) + ",\"attributes\":{";
        for (std::size_t a = 0; a < n.attrs.all().size(); ++a) {
            auto& [k, v] = n.attrs.all()[a];
            auto* sub = std::get_if<std::shared_ptr<const Graph>>(&v);
            s += (a ? "," : "") + json_string(k) + ":" + (sub ? json(**sub) : json_string(attr_text(v)));
        }
        s += "}}";
        first = false;
        for (ValueId v : n.in) if (v != no_value) used[v] = 1;
        for (ValueId v : n.out) if (v != no_value) used[v] = 1;
    }
    s += "],\"values\":{";
    first = true;
    for (std::size_t v = 0; v < g.values.size(); ++v) {
        if (!used[v]) continue;
        s += (first ? "" : ",") + json_string(g.values[v].name) + ":{\"fact\":" + json_string(g.values[v].fact.to_string()) + ",\"constant\":" + (g.values[v].fact.is_const() ? "true" : "false") + "}";
        first = false;
    }
    return s + "}}";
}
inline std::string dot(const Graph& g) {
    std::string s = "digraph " + json_string(g.name.empty() ? "model" : g.name) + " {\n  node [shape=box, fontname=\"sans-serif\"];\n";
    for (ValueId v : g.inputs) s += "  v" + std::to_string(v) + " [shape=ellipse, label=" + json_string(g.values[v].name + "\n" + g.fact(v).to_string()) + "];\n";
    for (NodeId id : g.order()) {
        const Node& n = g.nodes[id];
        s += "  n" + std::to_string(id) + " [label=" + json_string(op_text(n) + "\n" + n.name) + "];\n";
        for (ValueId v : n.in) {
            if (v == no_value || g.fact(v).is_const()) continue;
            NodeId p = g.values[v].producer;
            s += "  " + (p >= 0 ? "n" + std::to_string(p) : "v" + std::to_string(v)) + " -> n" + std::to_string(id) + " [label=" + json_string(g.fact(v).to_string()) + "];\n";
        }
    }
    for (std::size_t o = 0; o < g.outputs.size(); ++o) {
        ValueId v = g.outputs[o];
        NodeId p = g.values[v].producer;
        s += "  o" + std::to_string(o) + " [shape=ellipse, label=" + json_string(g.output_names.size() > o ? g.output_names[o] : "") + "];\n";
        s += "  " + (p >= 0 ? "n" + std::to_string(p) : "v" + std::to_string(v)) + " -> o" + std::to_string(o) + ";\n";
    }
    return s + "}\n";
}

}  // namespace dump_detail

QUERN_INLINE std::string dump_graph(const Graph& g, std::string_view format) {
    if (format == "text" || format.empty()) return dump_detail::text(g, "");
    if (format == "json") return dump_detail::json(g);
    if (format == "dot") return dump_detail::dot(g);
    raise(ErrorCode::invalid_argument, "no dump format is named '" + std::string(format) + "'; accepted: text, json, dot");
}

QUERN_END
