// Tells the type of files from their first and last bytes.
//   file_type magika.onnx LABELS.json FILE...        ("labels": ["3gp", "ace", ...] somewhere in LABELS.json)
#include <quern/quern.hpp>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

static std::string read(const std::string& path) {
    std::ifstream f(path, std::ios::binary);
    if (!f) quern::raise(quern::ErrorCode::io, "cannot read '" + path + "'");
    return {std::istreambuf_iterator<char>(f), {}};
}
static std::vector<std::string> read_labels(const std::string& path) {
    std::string json = read(path);
    std::vector<std::string> labels;
    std::size_t p = json.find("\"labels\""), end = json.find(']', p);
    for (p = json.find('[', p); p < end && (p = json.find('"', p)) < end;) {
        std::size_t close = json.find('"', p + 1);
        labels.push_back(json.substr(p + 1, close - p - 1));
        p = close + 1;
    }
    return labels;
}
/// The network sees 1,024 bytes of each end, without the white space there; 256 stands for "no byte".
static void features(const std::string& bytes, std::int32_t* out) {
    constexpr std::size_t half = 1024, block = 4096;
    constexpr const char* space = " \t\n\r\v\f";
    std::string head = bytes.substr(0, block), tail = bytes.substr(bytes.size() - std::min(block, bytes.size()));
    head.erase(0, head.find_first_not_of(space));
    tail.erase(tail.find_last_not_of(space) + 1);
    std::fill_n(out, 2 * half, 256);
    auto byte = [](char c) { return std::int32_t(static_cast<unsigned char>(c)); };
    std::transform(head.begin(), head.begin() + std::ptrdiff_t(std::min(half, head.size())), out, byte);
    std::size_t n = std::min(half, tail.size());
    std::transform(tail.end() - std::ptrdiff_t(n), tail.end(), out + 2 * half - n, byte);
}

int main(int argc, char** argv) {
    if (argc < 4) return std::fprintf(stderr, "usage: %s magika.onnx LABELS.json FILE...\n", argv[0]), 64;
    try {
        std::vector<std::string> labels = read_labels(argv[2]);
        quern::Engine engine = quern::Model::load(argv[1]).compile();
        quern::Session session(engine);
        int n = argc - 3;
        auto bytes = session.input("bytes", {n, 2048}).data<std::int32_t>();
        for (int i = 0; i < n; ++i) features(read(argv[3 + i]), bytes.data() + 2048 * i);
        session.run();
        auto prob = session.output("target_label").data<float>();
        for (int i = 0; i < n; ++i) {
            auto p = prob.begin() + std::ptrdiff_t(std::size_t(i) * labels.size());
            auto best = std::max_element(p, p + std::ptrdiff_t(labels.size()));
            std::printf("%s: %s (%.1f %%)\n", argv[3 + i], labels[std::size_t(best - p)].c_str(), double(*best) * 100);
        }
    } catch (const quern::Error& e) {
        return std::fprintf(stderr, "%s\n", e.what()), 1;
    }
}
