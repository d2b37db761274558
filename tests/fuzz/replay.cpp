// Runs the fuzz target over files and folders, then over mutations of each:
// `replay [-k] [-e] [-n MUTATIONS] [-s FIRST_SEED] [-o FOLDER] PATH...`. -k: goes on after an `internal` error; -o: inputs that give one go
// there; -e: files that are no engine files are models, and their engine files are what is run.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine_target.hpp"

namespace fs = std::filesystem;

namespace {

struct Arguments {
    std::vector<fs::path> files;
    unsigned long mutations = 0, seed = 0;
    bool engines = false;
    fs::path out;
};
Arguments arguments(int argc, char** argv) {
    Arguments a;
    for (int i = 1; i < argc; ++i) {
        std::string s = argv[i];
        bool more = i + 1 < argc;
        if (s == "-k") {
            quern_fuzz::state().keep_going = true;
        } else if (s == "-e") {
            a.engines = true;
        } else if (s == "-n" && more) {
            a.mutations = std::strtoul(argv[++i], nullptr, 10);
        } else if (s == "-s" && more) {
            a.seed = std::strtoul(argv[++i], nullptr, 10);
        } else if (s == "-o" && more) {
            a.out = argv[++i];
        } else if (fs::is_directory(s)) {
            for (auto& e : fs::recursive_directory_iterator(s))
                if (e.is_regular_file()) a.files.push_back(e.path());
        } else {
            a.files.push_back(s);
        }
    }
    std::sort(a.files.begin(), a.files.end());
    return a;
}

/// Runs an exact copy on the heap, so that a sanitizer sees any byte read past the end. The copy is also in
/// `out`/last while it runs, so that a crash leaves it there.
void run(const Arguments& a, const std::string& s) {
    if (!a.out.empty()) std::ofstream(a.out / "last", std::ios::binary) << s;
    std::vector<std::uint8_t> v(s.begin(), s.end());
    v.shrink_to_fit();
    int before = quern_fuzz::state().defects;
    (a.engines ? quern_fuzz::run_engine : quern_fuzz::run)(v.data(), v.size());
    if (quern_fuzz::state().defects != before && !a.out.empty())
        std::ofstream(a.out / ("defect" + std::to_string(before)), std::ios::binary) << s;
}

}  // namespace

int main(int argc, char** argv) {
    Arguments a = arguments(argc, argv);
    for (auto& f : a.files) {
        std::ifstream in(f, std::ios::binary);
        std::string s((std::istreambuf_iterator<char>(in)), {});
        std::fprintf(stderr, "%s\n", f.c_str());
        if (a.engines && !s.starts_with("QUERNENG")) s = quern_fuzz::engine_of(s);
        if (a.engines && s.empty()) continue;
        run(a, s);
        for (unsigned long k = 0; k < a.mutations; ++k) {
            const auto seed = static_cast<unsigned>(a.seed + k);
            run(a, a.engines ? quern_fuzz::EngineMutator(seed).mutate(s) : quern_fuzz::Mutator(seed).mutate(s));
        }
    }
    std::printf("%zu files, %lu mutations each: %d defects\n", a.files.size(), a.mutations, quern_fuzz::state().defects);
    return a.files.empty() || quern_fuzz::state().defects > 0;
}
