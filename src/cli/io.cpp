#include "io.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "npy.hpp"
#include "pb.hpp"

namespace cli {
using quern::NamedValue;
using quern::PortInfo;

quern::Options options(const Args& a) {
    quern::Options o;
    o.threads = a.threads;
    o.accelerated = !a.portable;
    o.winograd = !a.no_winograd;
    o.optimize = !a.no_optimize;
    o.stop_after = a.stop_after;
    o.deadline = a.deadline;
    o.memory_limit = a.memory_limit_mb << 20;
    o.taps = a.taps;
    o.device = a.device;
    o.strict_device = a.strict_device;
    o.device_graphs = !a.no_device_graphs;
    o.tf32 = a.tf32;
    o.library_dirs = a.library_dirs;
    o.tune = a.tune;
    for (const std::string& s : a.dims)
        if (std::size_t at = s.rfind('='); at != std::string::npos) o.tune_dims.emplace_back(s.substr(0, at), std::strtoll(s.c_str() + at + 1, nullptr, 10));
    if (a.isa == "baseline") o.isa = quern::Isa::baseline;
    if (a.isa == "avx2") o.isa = quern::Isa::avx2;
    if (a.verbose)
        o.log = [](quern::LogLevel level, std::string_view line) {
            const char* names[] = {"debug", "info", "warning"};
            std::fprintf(stderr, "%s: %.*s\n", names[int(level)], int(line.size()), line.data());
        };
    return o;
}

quern::LoadOptions load_options(const Args& a) {
    quern::LoadOptions o;
    o.external_data_dir = a.external_data_dir;
    o.log = options(a).log;
    for (const std::string& f : a.functions) {
        std::size_t at = f.rfind('@');
        if (at != std::string::npos && f.find_first_not_of("0123456789", at + 1) != std::string::npos) at = std::string::npos;
        o.functions.push_back({read_file(f.substr(0, at)), at == std::string::npos ? 0 : std::strtoll(f.c_str() + at + 1, nullptr, 10)});
    }
    return o;
}

quern::Engine open_engine(const Args& a) {
    char magic[8] = {};
    File f(std::fopen(a.model.c_str(), "rb"));
    if (f && std::fread(magic, 1, 8, f.get()) == 8 && std::string_view(magic, 8) == "QUERNENG") return quern::Engine::load(a.model, options(a));
    return quern::Model::load(a.model, load_options(a)).compile(options(a));
}

Value load_pb(const std::string& path, quern::Kind kind) { return pb::parse(read_file(path), path, kind); }

quern::Kind kind_of(const std::vector<PortInfo>& ports, const std::string& name) {
    for (const PortInfo& p : ports)
        if (p.name == name) return p.kind;
    return quern::Kind::tensor;
}

void save_pb(const std::string& path, const std::string& name, const Value& v, quern::Kind kind) {
    std::string bytes = pb::serialize(name, v, kind);
    File f = open_file(path, "wb");
    write_bytes(f.get(), bytes.data(), bytes.size(), path);
}

static Tensor as_port_type(Tensor t, DType want) {
    int bits = quern::dtype_bits(want);
    bool byte = t.dtype() == DType::u8 || t.dtype() == DType::i8;
    if (bits > 0 && bits < 8 && byte) return pack(want, t);
    if (npy_raw(want) && ((bits == 16 && t.dtype() == DType::u16) || (bits == 8 && byte))) {
        Tensor out(want, t.shape());
        std::memcpy(out.raw(), t.raw(), out.bytes());
        return out;
    }
    return t;
}

Value load_value(const std::string& path, const PortInfo& port) {
    std::string ext = std::filesystem::path(path).extension().string();
    if (ext == ".pb") return load_pb(path, port.kind);
    if (ext == ".npy" && (port.kind == quern::Kind::tensor || port.kind == quern::Kind::optional)) return as_port_type(read_npy(path), port.dtype);
    raise(ErrorCode::invalid_argument, "'" + path + "': input '" + port.name + "' is " + port_text(port) + ": give " + (port.kind == quern::Kind::tensor ? "an .npy or a .pb (TensorProto) file" : "a .pb file"));
}

std::pair<std::string, std::string> split(const std::string& arg, const std::vector<PortInfo>& known) {
    std::size_t first = arg.find('=');
    if (first == std::string::npos || first == 0)
        raise(ErrorCode::invalid_argument, "--input '" + arg + "': give NAME=FILE");
    for (std::size_t p = first; p != std::string::npos; p = arg.find('=', p + 1))
        for (const PortInfo& port : known)
            if (port.name == arg.substr(0, p)) return {port.name, arg.substr(p + 1)};
    return {arg.substr(0, first), arg.substr(first + 1)};
}

std::string port_text(const PortInfo& p) {
    if (p.kind != quern::Kind::tensor) {
        std::string of = p.elem ? port_text(*p.elem) : "?";
        if (p.kind == quern::Kind::map) return std::string("map of ") + quern::dtype_name(p.key) + " to " + of;
        return (p.kind == quern::Kind::sequence ? "sequence of " : "optional ") + of;
    }
    std::string s = quern::dtype_name(p.dtype);
    if (!p.ranked) return s + "[...]";
    s += "[";
    for (std::size_t i = 0; i < p.dims.size(); ++i) {
        const auto& d = p.dims[i];
        s += (i ? ", " : "") + (d.value ? std::to_string(*d.value) : d.symbol.empty() ? std::string("?") : d.symbol);
    }
    return s + "]";
}

static Tensor made_up(const PortInfo& port, const Args& a) {
    Shape shape;
    if (!port.ranked || port.kind != quern::Kind::tensor)
        raise(ErrorCode::invalid_argument, "input '" + port.name + "' has no declared shape: give --input " + port.name + "=FILE");
    for (const auto& d : port.dims) {
        std::int64_t n = d.value.value_or(1);
        for (const std::string& s : a.dims)
            if (!d.value && s.substr(0, s.rfind('=')) == d.symbol && s.rfind('=') != std::string::npos)
                n = std::strtoll(s.c_str() + s.rfind('=') + 1, nullptr, 10);
        shape.push_back(std::max<std::int64_t>(n, 0));
    }
    Tensor t(port.dtype, shape);
    std::uint32_t x = 12345;
    if (port.dtype == DType::f32)
        for (float& v : t.data<float>()) x = x * 1664525u + 1013904223u, v = float(x >> 8) / float(1 << 24);
    return t;
}

std::vector<NamedValue> gather_inputs(const std::vector<PortInfo>& ports, const Args& a, bool make_up) {
    std::vector<NamedValue> given;
    for (const std::string& arg : a.inputs) {
        auto [name, path] = split(arg, ports);
        auto port = std::find_if(ports.begin(), ports.end(), [&n = name](const PortInfo& p) { return p.name == n; });
        if (port == ports.end()) {
            std::string all;
            for (const PortInfo& p : ports) all += (all.empty() ? "'" : ", '") + p.name + "'";
            raise(ErrorCode::invalid_argument, "the model has no input '" + name + "'; it has " + (all.empty() ? "none" : all));
        }
        given.emplace_back(name, load_value(path, *port));
    }
    std::vector<NamedValue> out;
    for (const PortInfo& p : ports) {
        auto it = std::find_if(given.begin(), given.end(), [&](const NamedValue& g) { return g.first == p.name; });
        if (it != given.end()) out.push_back(*it);
        else if (p.kind == quern::Kind::optional) out.emplace_back(p.name, Value());
        else if (make_up) out.emplace_back(p.name, made_up(p, a));
        else raise(ErrorCode::invalid_argument, "input '" + p.name + "' (" + port_text(p) + ") was not given: add --input " + p.name + "=FILE." + (p.kind == quern::Kind::tensor ? "npy" : "pb"));
    }
    return out;
}

std::string safe(const std::string& name) {
    std::string s = name;
    for (char& c : s) {
        auto b = static_cast<unsigned char>(c);
        if (!std::isalnum(b) && b < 0x80 && c != '.' && c != '_' && c != '-') c = '_';
    }
    return s;
}

void make_dir(const std::string& dir) {
    std::error_code ec;
    std::filesystem::create_directories(dir, ec);
    if (ec) raise(ErrorCode::io, "cannot make the folder '" + dir + "': " + ec.message());
}

void save_output(const std::string& dir, const std::string& name, const Value& v, quern::Kind kind) {
    if (v.kind() != quern::Kind::tensor) return save_pb((std::filesystem::path(dir) / (safe(name) + ".pb")).string(), name, v, kind);
    const Tensor& t = v.tensor();
    write_npy((std::filesystem::path(dir) / (safe(name) + ".npy")).string(), t);
    if (npy_raw(t.dtype()))
        std::fprintf(stderr, "note: '%s' is %s, which NumPy lacks: its file holds the bits as %s\n", name.c_str(),
                     quern::dtype_name(t.dtype()), npy_descr(t.dtype()).c_str());
}
}  // namespace cli
