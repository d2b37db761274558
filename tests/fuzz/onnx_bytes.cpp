// libFuzzer target: any bytes as a model and as stored values. Build and run: tests/fuzz/run.sh.
#include <cstdint>
#include <cstring>

#include "mutate.hpp"
#include "target.hpp"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    quern_fuzz::run(data, size);
    return 0;
}
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max, unsigned seed) {
    if (seed % 4 == 0) return LLVMFuzzerMutate(data, size, max);
    quern_fuzz::Mutator m(seed);
    std::string s = m.mutate({reinterpret_cast<const char*>(data), size});
    if (s.empty() || s.size() > max) return LLVMFuzzerMutate(data, size, max);
    std::memcpy(data, s.data(), s.size());
    return s.size();
}
