// libFuzzer target: any bytes as an engine file. Build and run: tests/fuzz/run.sh.
//
//   quern_fuzz_engine --seeds FOLDER MODEL...   writes the engine file of each model that has one, and ends
#include "engine_target.hpp"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max);

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    if (*argc < 3 || std::string((*argv)[1]) != "--seeds") return 0;
    for (int i = 3; i < *argc; ++i) {
        std::ifstream in((*argv)[i], std::ios::binary);
        const std::string engine = quern_fuzz::engine_of(std::string(std::istreambuf_iterator<char>(in), {}));
        if (!engine.empty()) std::ofstream(std::filesystem::path((*argv)[2]) / (std::filesystem::path((*argv)[i]).stem().string() + ".engine"), std::ios::binary) << engine;
    }
    std::exit(0);
}
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    quern_fuzz::run_engine(data, size);
    return 0;
}
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max, unsigned seed) {
    if (seed % 4 == 0) return LLVMFuzzerMutate(data, size, max);
    std::string s = quern_fuzz::EngineMutator(seed).mutate({reinterpret_cast<const char*>(data), size});
    if (s.empty() || s.size() > max) return LLVMFuzzerMutate(data, size, max);
    std::memcpy(data, s.data(), s.size());
    return s.size();
}
