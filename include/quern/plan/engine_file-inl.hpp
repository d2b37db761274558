#pragma once
#include <algorithm>
#include <deque>
#include <map>
#include <unordered_map>

#include "../base/atomic_file.hpp"
#include "../base/checksum.hpp"
#include "../base/guard.hpp"
#include "../import/exporter.hpp"
#include "../onnx/writer.hpp"
#include "engine_file.hpp"

QUERN_BEGIN
namespace engine_file {

inline constexpr std::uint32_t format = 1;
inline constexpr std::uint64_t prefix_bytes = 64, chunk_bytes = std::uint64_t{4} << 20, inline_below = 256, table_page = std::uint64_t{64} << 10;
/// Names of external data inside of the file: the file itself, and zeros.
inline constexpr std::string_view own = "engine", absent = "absent";
/// Where tensors without content point to while a file is written.
inline constexpr char no_data = 0;

inline std::span<const std::byte> bytes_of(std::string_view s) { return std::as_bytes(std::span<const char>(s.data(), s.size())); }

/// Where the data goes, each piece of memory once.
struct Placement {
    struct Piece {
        std::uint64_t offset;
        std::string_view bytes;
    };
    std::vector<Piece> pieces;
    std::map<std::pair<const void*, std::size_t>, std::uint64_t> known;
    std::uint64_t end = prefix_bytes;

    std::uint64_t put(std::string_view b) {
        auto [it, fresh] = known.emplace(std::pair<const void*, std::size_t>(b.data(), b.size()), 0);
        if (!fresh) return it->second;
        std::uint64_t align = b.size() >= 4096 ? 4096 : 64, at = (end + align - 1) / align * align;
        pieces.push_back({at, b});
        end = at + b.size();
        return it->second = at;
    }
};

/// Moves the data of initializers out of the graph: into the file, or nowhere.
struct Outside {
    Placement& place;
    std::deque<std::string> text;

    void graph(onnx::GraphProto& g) {
        for (auto& t : g.initializer) tensor(t);
        for (auto& n : g.node)
            for (auto& a : n.attribute) {
                if (!a.g) continue;
                a.g = std::make_shared<onnx::GraphProto>(*a.g);
                graph(*a.g);
            }
    }
    void tensor(onnx::TensorProto& t) {
        if (!t.has_raw || t.raw_data.size() < inline_below) return;
        bool there = t.raw_data.data() != &no_data;
        t.data_location = 1;
        t.external_data = {{"location", there ? own : absent}, {"offset", text.emplace_back(std::to_string(there ? place.put(t.raw_data) : 0))},
                           {"length", text.emplace_back(std::to_string(t.raw_data.size()))}};
        t.has_raw = false;
        t.raw_data = {};
    }
};

/// A copy of the plan's graph in which dropped constants have their dims and no memory.
inline Graph whole_graph(const Graph& from) {
    Graph g = from.clone();
    std::vector<int> uses = g.use_counts();
    for (ValueId v = 0; v < static_cast<ValueId>(g.values.size()); ++v) {
        Fact& f = g.fact(v);
        bool made = g.values[v].producer >= 0 || std::find(g.inputs.begin(), g.inputs.end(), v) != g.inputs.end();
        if (uses[v] && !made && !f.is_const()) f.value = Tensor::borrow(f.dtype, f.shape(), &no_data);
    }
    return g;
}

inline std::string header_bytes(const EngineHeader& h, Placement& place, std::uint64_t graph_at, std::uint64_t graph_bytes, const std::vector<std::uint64_t>& sums) {
    onnx::Writer w;
    w.text(1, h.made_by);
    w.text(2, h.backends);
    w.varint(3, static_cast<std::uint64_t>(h.isa));
    w.varint(4, h.taps);
    w.varint(5, graph_at);
    w.varint(6, graph_bytes);
    for (auto& p : h.packs)
        w.nest(7, [&] {
            w.bytes(1, p.node);
            w.varint(2, static_cast<std::uint64_t>(p.ordinal));
            w.bytes(3, p.layout);
            w.varint(4, place.put({static_cast<const char*>(p.data.raw()), p.data.bytes()}));
            w.varint(5, p.data.bytes());
        });
    for (std::uint64_t s : sums) w.varint(8, s);
    for (auto& c : h.custom) w.text(9, c);
    return w.take();
}

template <class T> void put_number(std::string& s, std::size_t at, T v) { std::memcpy(s.data() + at, &v, sizeof v); }
template <class T> T number(std::span<const std::byte> b, std::size_t at) {
    T v;
    std::memcpy(&v, b.data() + at, sizeof v);
    return v;
}
[[noreturn]] inline void bad(const std::string& why) { raise(ErrorCode::invalid_model, "the engine file " + why); }

inline PlanPack read_pack(onnx::Reader& r, onnx::WireContext& c, const onnx::Scope& up, const std::shared_ptr<const MappedFile>& file, std::uint64_t data_end) {
    PlanPack p;
    std::uint64_t at = 0, n = 0;
    onnx::Scope scope{&up, "pack", -1};
    onnx::Reader in(r.bytes(), c, scope);
    while (in.next()) switch (in.field()) {
            case 1: p.node = std::string(in.bytes()); break;
            case 2: p.ordinal = in.i32(); break;
            case 3: p.layout = std::string(in.bytes()); break;
            case 4: at = in.varint(); break;
            case 5: n = in.varint(); break;
            default: in.skip();
        }
    if (at < prefix_bytes || at > data_end || n > data_end - at || at % 64) bad("has packed weights at byte " + std::to_string(at) + ", length " + std::to_string(n) + ", outside of its data");
    p.data = Tensor::share(DType::u8, Shape{static_cast<std::int64_t>(n)}, file->bytes().data() + at, file);
    return p;
}

/// Those of `given` that the file names: another one could take the place of an operator of quern's own. Null: none.
inline std::shared_ptr<const CustomTable> custom_table(const std::vector<std::string>& names, const CustomOps& given) {
    CustomOps used;
    for (auto& name : names) {
        auto it = std::find_if(given.begin(), given.end(), [&](auto& op) { return op && (op->domain == "ai.onnx" ? "" : op->domain) + "::" + op->name == name; });
        if (it == given.end()) raise(ErrorCode::unsupported, "the engine file needs the custom operator '" + name + "', which is not among those given to Engine::load");
        used.push_back(*it);
    }
    return used.empty() ? nullptr : std::make_shared<const CustomTable>(used);
}
/// Adds what is no operator of quern's own, in all graphs, each once.
inline void custom_names(const Graph& g, std::vector<std::string>& names) {
    for (NodeId id : g.order()) {
        const Node& n = g.nodes[id];
        if (std::string name = std::string(n.op->domain) + "::" + n.op->name; find_op(n.op->domain, n.op->name) != n.op && std::find(names.begin(), names.end(), name) == names.end())
            names.push_back(std::move(name));
        for (auto& [key, a] : n.attrs.all())
            if (auto* sub = std::get_if<std::shared_ptr<const Graph>>(&a)) custom_names(**sub, names);
    }
}

/// The largest tensor whose data is absent, in all graphs. Each has packed weights instead or nobody reads it, so none is larger than some multiple of the file.
inline std::uint64_t largest_absent(const onnx::GraphProto& g, std::uint64_t accepted, int depth = 0) {
    std::uint64_t most = 0;
    if (depth > 64) bad("nests graphs more than 64 deep");
    auto is_absent = [](auto& e) { return e.key == "location" && e.value == absent; };
    for (auto& t : g.initializer) {
        if (std::none_of(t.external_data.begin(), t.external_data.end(), is_absent)) continue;
        unsigned __int128 bits = t.data_type > 0 && t.data_type < dtype_count ? static_cast<unsigned>(dtype_bits(static_cast<DType>(t.data_type))) : 0;
        for (std::int64_t d : t.dims) {
            if (d < 0 || bits > (static_cast<unsigned __int128>(1) << 50)) bad("has a tensor that cannot be");
            bits *= static_cast<std::uint64_t>(d);
        }
        if (bits / 8 > accepted) bad("leaves out the content of a tensor of more than " + std::to_string(accepted) + " bytes, which its own size does not justify");
        for (auto& e : t.external_data)
            if (e.key == "offset" && e.value != "0") bad("has a tensor without content that does not begin at its beginning");
        most = std::max(most, static_cast<std::uint64_t>((bits + 7) / 8));
    }
    for (auto& n : g.node)
        for (auto& a : n.attribute)
            if (a.g) most = std::max(most, largest_absent(*a.g, accepted, depth + 1));
    return most;
}

}  // namespace engine_file

QUERN_INLINE void write_engine(const std::string& path, const Plan& plan, const EngineHeader& header) {
    using namespace engine_file;
    EngineHeader h = header;
    h.custom.clear();
    custom_names(plan.graph, h.custom);
    Placement place;
    Outside outside{place, {}};
    Graph g = whole_graph(plan.graph);
    ExportedModel model(g);
    outside.graph(model.proto().graph);
    std::string graph = onnx::serialize(model.proto());
    const std::uint64_t tables_end = place.end;
    (void)header_bytes(h, place, 0, 0, {});  // places the packed weights
    std::uint64_t graph_at = place.put(graph);
    // Checksums are of the file's bytes, the zeros between the pieces too.
    std::vector<std::uint64_t> sums;
    std::string chunk;
    AtomicFile out(path);
    out.write(std::string(prefix_bytes, '\0'));
    std::uint64_t at = prefix_bytes;
    auto flush = [&] {
        if (chunk.empty()) return;
        sums.push_back(checksum(bytes_of(chunk)));
        // Linux keeps what one call writes in pages of up to that size, and whoever reads a byte of such a page maps all of it: good for packed
        // weights, and not for tables of which a run reads some rows.
        const std::size_t step = prefix_bytes + (sums.size() - 1) * chunk_bytes < tables_end ? table_page : chunk.size();
        for (std::string_view rest = chunk; !rest.empty(); rest.remove_prefix(std::min(step, rest.size()))) out.write(rest.substr(0, step));
        chunk.clear();
    };
    auto write = [&](std::string_view b) {
        at += b.size();
        while (!b.empty()) {
            std::size_t n = std::min<std::size_t>(b.size(), chunk_bytes - chunk.size());
            chunk.append(b.substr(0, n));
            b.remove_prefix(n);
            if (chunk.size() == chunk_bytes) flush();
        }
    };
    for (auto& p : place.pieces) {
        write(std::string(p.offset - at, '\0'));
        write(p.bytes);
    }
    flush();
    std::string head = header_bytes(h, place, graph_at, graph.size(), sums), prefix(prefix_bytes, '\0');
    std::memcpy(prefix.data(), engine_magic.data(), engine_magic.size());
    put_number(prefix, 8, format);
    put_number(prefix, 16, at + head.size());
    put_number(prefix, 24, at);
    put_number(prefix, 32, std::uint64_t{head.size()});
    put_number(prefix, 40, checksum(bytes_of(head)));
    put_number(prefix, 48, checksum(bytes_of(std::string_view(prefix).substr(0, 48))));
    out.write(head);
    out.write_at(0, prefix);
    out.commit();
}

QUERN_INLINE EngineImage read_engine(std::shared_ptr<const MappedFile> file, Workers* workers, bool verify, const CustomOps& custom) {
    using namespace engine_file;
    std::span<const std::byte> all = file->bytes();
    if (all.size() < prefix_bytes || file->text().substr(0, 8) != engine_magic) bad("does not begin as one: 'QUERNENG' is expected");
    if (number<std::uint32_t>(all, 8) != format)
        bad("has format " + std::to_string(number<std::uint32_t>(all, 8)) + "; this quern reads format " + std::to_string(format) + ": compile the model again");
    if (verify && number<std::uint64_t>(all, 48) != checksum(all.first(48))) bad("is damaged: the checksum of its first 48 bytes differs");
    auto size = number<std::uint64_t>(all, 16), head_at = number<std::uint64_t>(all, 24), head_bytes = number<std::uint64_t>(all, 32);
    if (size != all.size()) bad("should have " + std::to_string(size) + " bytes and has " + std::to_string(all.size()));
    if (head_at < prefix_bytes || head_at > size || head_bytes != size - head_at) bad("has its header outside of the file");
    auto head = all.subspan(head_at);
    if (verify && number<std::uint64_t>(all, 40) != checksum(head)) bad("is damaged: the checksum of its header differs");
    for (std::size_t i = 56; i < prefix_bytes; ++i)
        if (all[i] != std::byte{0}) bad("is damaged: bytes 56 to 63 are not zero");

    EngineImage image;
    EngineHeader& h = image.header;
    std::uint64_t graph_at = 0, graph_bytes = 0;
    std::vector<std::uint64_t> sums;
    onnx::WireContext c{file->text().data(), 64 * head.size() + (1u << 20), 64};
    onnx::Scope scope{nullptr, "engine header", -1};
    onnx::Reader r(file->text().substr(head_at), c, scope);
    while (r.next()) switch (r.field()) {
            case 1: h.made_by = std::string(r.bytes()); break;
            case 2: h.backends = std::string(r.bytes()); break;
            case 3: h.isa = static_cast<Isa>(std::min<std::uint64_t>(r.varint(), 255)); break;
            case 4: h.taps = r.varint(); break;
            case 5: graph_at = r.varint(); break;
            case 6: graph_bytes = r.varint(); break;
            case 7: h.packs.push_back(read_pack(r, c, scope, file, head_at)); break;
            case 8: sums.push_back(r.varint()); break;
            case 9: h.custom.emplace_back(r.bytes()); break;
            default: r.skip();
        }
    if (graph_at < prefix_bytes || graph_at > head_at || graph_bytes > head_at - graph_at) bad("has its graph outside of its data");
    auto data = all.subspan(prefix_bytes, head_at - prefix_bytes);
    if (sums.size() != (data.size() + chunk_bytes - 1) / chunk_bytes) bad("has " + std::to_string(sums.size()) + " checksums for " + std::to_string(data.size()) + " bytes of data");
    std::vector<char> wrong(sums.size(), 0);
    auto compare = [&](std::int64_t i) {
        auto k = static_cast<std::size_t>(i);
        auto chunk = data.subspan(k * chunk_bytes, std::min<std::size_t>(chunk_bytes, data.size() - k * chunk_bytes));
        file->expect(chunk.data(), chunk.size());
        wrong[k] = checksum(chunk) != sums[k];
    };
    // What is not packed weights (tables that are read here and there) does not stay in memory for having been checked.
    std::vector<std::pair<std::size_t, std::size_t>> packed;
    for (auto& p : h.packs) {
        auto at = static_cast<std::size_t>(static_cast<const std::byte*>(p.data.raw()) - data.data());
        packed.emplace_back(at, at + p.data.bytes());
    }
    std::sort(packed.begin(), packed.end());
    auto check = [&](std::int64_t i) {
        compare(i);
        std::size_t at = static_cast<std::size_t>(i) * chunk_bytes, end = std::min<std::size_t>(at + chunk_bytes, data.size());
        for (auto it = std::lower_bound(packed.begin(), packed.end(), std::pair<std::size_t, std::size_t>(at, 0)); at < end; ++it) {
            if (it != packed.begin()) at = std::max(at, std::min(end, std::prev(it)->second));
            std::size_t until = it == packed.end() ? end : std::min(end, it->first);
            if (until > at) file->forget(data.data() + at, until - at);
            if (it == packed.end()) break;
            at = std::max(until, std::min(end, it->second));
        }
    };
    if (!verify) sums.clear();
    if (workers) workers->for_each(static_cast<std::int64_t>(sums.size()), check);
    else for (std::size_t i = 0; i < sums.size(); ++i) check(static_cast<std::int64_t>(i));
    if (auto it = std::find(wrong.begin(), wrong.end(), 1); it != wrong.end())
        bad("is damaged: the checksum of its bytes from " + std::to_string(prefix_bytes + static_cast<std::uint64_t>(it - wrong.begin()) * chunk_bytes) + " on differs");

    onnx::ModelProto proto = onnx::parse_model(all.subspan(graph_at, graph_bytes));
    image.blank = std::make_shared<const MappedFile>(MappedFile::blank(largest_absent(proto.graph, 1024 * all.size() + (64u << 20))));
    onnx::External external;
    external.files.emplace(own, file);
    external.files.emplace(absent, image.blank);
    image.custom = custom_table(h.custom, custom);
    image.model = import_model(proto, &external, file, image.custom.get());
    return image;
}

QUERN_END
