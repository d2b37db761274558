// Runs the fuzz target over files and folders, then over a few mutations of each: `replay [-n MUTATIONS] PATH...`.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "mutate.hpp"
#include "target.hpp"

namespace fs = std::filesystem;

namespace {

/// An exact copy on the heap, so that a sanitizer sees any byte read past the end.
void run(const std::string& s) {
    std::vector<std::uint8_t> v(s.begin(), s.end());
    v.shrink_to_fit();
    quern_fuzz::run(v.data(), v.size());
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<fs::path> files;
    unsigned mutations = 0;
    for (int i = 1; i < argc; ++i) {
        if (std::string(argv[i]) == "-n" && i + 1 < argc) {
            mutations = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
        } else if (fs::is_directory(argv[i])) {
            for (auto& e : fs::recursive_directory_iterator(argv[i]))
                if (e.is_regular_file()) files.push_back(e.path());
        } else {
            files.push_back(argv[i]);
        }
    }
    std::sort(files.begin(), files.end());
    for (auto& f : files) {
        std::ifstream in(f, std::ios::binary);
        std::string s((std::istreambuf_iterator<char>(in)), {});
        std::fprintf(stderr, "%s\n", f.c_str());
        run(s);
        for (unsigned k = 0; k < mutations; ++k) {
            quern_fuzz::Mutator m(k);
            run(m.mutate(s));
        }
    }
    std::printf("%zu files, %u mutations each: no defect\n", files.size(), mutations);
    return files.empty();
}
