// What is done with the fuzzed bytes of engine files; shared by the libFuzzer target and by the replay of the corpus. Checksums are left out,
// for whoever writes hostile bytes writes the checksums that go with them.
#pragma once
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <sys/mman.h>
#include <unistd.h>

#include <quern/base/guard.hpp>
#include <quern/session/engine_file.hpp>

#include "mutate.hpp"
#include "target.hpp"

namespace quern_fuzz {

/// A file without a name that holds the bytes.
inline std::shared_ptr<const quern::MappedFile> file_of(const std::uint8_t* data, std::size_t size) {
    int fd = ::memfd_create("engine", MFD_CLOEXEC);
    for (std::size_t done = 0; done < size;) {
        auto n = ::write(fd, data + done, size - done);
        if (n <= 0) std::abort();
        done += static_cast<std::size_t>(n);
    }
    return std::make_shared<const quern::MappedFile>(quern::MappedFile::adopt(fd, "fuzzed"));
}
inline void run_engine(const std::uint8_t* data, std::size_t size) {
    if (size > (512u << 10)) return;
    quern::Options options;
    options.threads = 1;
    options.memory_limit = 64u << 20;
    options.deadline = 1;
    auto engine = quern::guarded([&] { return quern::engine_of_file(file_of(data, size), options, {}, false); });
    if (!fine(engine)) return;
    std::vector<quern::NamedValue> inputs;
    if (zero_inputs(*engine, inputs)) fine(engine->try_run_values(inputs));
}

/// The engine file of a model; nothing where it has none.
inline std::string engine_of(const std::string& model) {
    auto m = quern::Model::try_from_bytes(std::as_bytes(std::span(model)));
    if (!m.ok()) return {};
    auto e = m->try_compile({.threads = 1});
    if (!e.ok()) return {};
    const auto path = std::filesystem::temp_directory_path() / ("quern_fuzz_" + std::to_string(::getpid()) + ".engine");
    std::string bytes;
    if (e->try_save(path.string()).ok()) {
        std::ifstream in(path, std::ios::binary);
        bytes.assign(std::istreambuf_iterator<char>(in), {});
    }
    std::filesystem::remove(path);
    return bytes;
}

/// Another graph, mutated as a model, or other bytes in the header, in the numbers before it or in the data; sizes stay right. Nothing where
/// the bytes are no engine file.
class EngineMutator {
public:
    explicit EngineMutator(unsigned seed) : rng_(seed), model_(seed) {}
    std::string mutate(std::string s) {
        std::uint64_t head = at(s, 24);
        if (s.size() < 64 || head < 64 || head > s.size()) return {};
        if (rng_() % 2) {
            std::string graph = model_.mutate(graph_of(s, head));
            if (!graph.empty()) return with_graph(s, head, graph);
        }
        for (unsigned n = 1 + rng_() % 3; n; --n) {
            std::size_t from = 0, to = s.size();
            switch (rng_() % 4) {
                case 0: from = 8, to = 64; break;
                case 1: from = 64, to = head; break;
                default: from = head; break;
            }
            if (from >= to) continue;
            char& c = s[from + rng_() % (to - from)];
            c = rng_() % 2 ? static_cast<char>(c ^ 1 << rng_() % 8) : static_cast<char>(rng_());
        }
        return s;
    }

private:
    static std::uint64_t at(const std::string& s, std::size_t i) {
        std::uint64_t v = 0;
        if (s.size() >= i + 8) std::memcpy(&v, s.data() + i, 8);
        return v;
    }
    static std::string graph_of(const std::string& s, std::uint64_t head) {
        std::uint64_t begin = 0, size = 0;
        try {
            quern::onnx::WireContext c{s.data(), 1u << 20, 64};
            quern::onnx::Scope scope{nullptr, "header", -1};
            quern::onnx::Reader r(std::string_view(s).substr(head), c, scope);
            while (r.next()) {
                if (r.field() == 5) begin = r.varint();
                else if (r.field() == 6) size = r.varint();
                else r.skip();
            }
        } catch (const quern::Error&) {
            return {};
        }
        return begin > head || size > head - begin ? std::string() : s.substr(begin, size);
    }
    /// The graph behind the data that is there; of fields that come twice the last one counts.
    static std::string with_graph(const std::string& s, std::uint64_t head, const std::string& graph) {
        std::string r = s.substr(0, head);
        r.resize((r.size() + 63) / 64 * 64);
        quern::onnx::Writer w;
        w.varint(5, r.size());
        w.varint(6, graph.size());
        r += graph;
        const std::uint64_t begin = r.size();
        r += s.substr(head) + w.take();
        const std::uint64_t numbers[] = {r.size(), begin, r.size() - begin};
        std::memcpy(r.data() + 16, numbers, sizeof numbers);
        return r;
    }
    std::mt19937 rng_;
    Mutator model_;
};

}  // namespace quern_fuzz
