// How alike sentences are: cosine of their embeddings, from token ids.
//   sentence_similarity minilm.onnx SENTENCES.txt        (lines: id id id ... | text)
#include <quern/quern.hpp>

#include <cstdio>
#include <fstream>
#include <sstream>

int main(int argc, char** argv) {
    if (argc != 3) return std::fprintf(stderr, "usage: %s minilm.onnx SENTENCES.txt\n", argv[0]), 64;
    try {
        std::vector<std::vector<std::int64_t>> tokens;
        std::vector<std::string> texts;
        std::size_t longest = 0;
        std::ifstream file(argv[2]);
        for (std::string line; std::getline(file, line);) {
            if (line.empty() || line[0] == '#') continue;
            std::size_t bar = std::min(line.find('|'), line.size());
            std::istringstream ids(line.substr(0, bar));
            tokens.emplace_back();
            for (std::int64_t id; ids >> id;) tokens.back().push_back(id);
            texts.push_back(line.substr(std::min(bar + 2, line.size())));
            longest = std::max(longest, tokens.back().size());
        }
        if (tokens.empty()) quern::raise(quern::ErrorCode::io, std::string("no sentence in '") + argv[2] + "'");

        quern::Engine engine = quern::Model::load(argv[1]).compile();
        quern::Session session(engine);
        auto n = std::int64_t(tokens.size()), width = std::int64_t(longest);
        auto ids = session.input("input_ids", {n, width}).data<std::int64_t>();
        auto mask = session.input("attention_mask", {n, width}).data<std::int64_t>();
        for (std::size_t s = 0; s < tokens.size(); ++s)
            for (std::size_t i = 0; i < longest; ++i) {
                bool there = i < tokens[s].size();
                ids[s * longest + i] = there ? tokens[s][i] : 0;
                mask[s * longest + i] = there;
            }
        session.run();

        const quern::Tensor& embedding = session.output("embedding");  // [n, width], of length 1
        auto dims = std::size_t(embedding.shape()[1]);
        auto e = embedding.data<float>();
        for (std::size_t a = 0; a < texts.size(); ++a) {
            for (std::size_t b = 0; b < texts.size(); ++b) {
                double cosine = 0;
                for (std::size_t i = 0; i < dims; ++i) cosine += double(e[a * dims + i]) * e[b * dims + i];
                std::printf("%6.2f", cosine);
            }
            std::printf("  %s\n", texts[a].c_str());
        }
    } catch (const quern::Error& e) {
        return std::fprintf(stderr, "%s\n", e.what()), 1;
    }
}
