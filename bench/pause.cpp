// Where the time goes that a run takes longer after a pause: the same run after what each cause alone leaves behind.
//
//   pause MODEL [THREADS=2] [PAUSE_MS=20] [SECONDS=1]
//
// Dimensions that the model leaves open are 1. Prints one line for each state, the median of its runs and what it is above runs back to back:
//   together   back to back
//   asleep     after a pause: the processors were given up
//   awake      after a pause in which the caller computed without memory: its own processor kept what it had, as far as neighbours let it
//   woken      after 0.3 ms in which only the workers fell asleep
//   data       after weights, activations and heap left all caches
//   code       after the code did, the kernels' and the system libraries'
//   branches   after the branch predictors of the caller learned other branches
//   cold       data, code and branches
// The states take turns in short blocks, for a machine's speed changes within minutes. Linux on x86-64.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <quern/quern.hpp>

#if defined(__linux__) && defined(__x86_64__)
#include <emmintrin.h>

using namespace quern;
using Clock = std::chrono::steady_clock;

namespace {
struct Range {
    const char* at;
    std::size_t bytes;
};
/// Memory of this process that is readable and of one kind: code and what is constant, or private and writable.
std::vector<Range> ranges(bool code) {
    std::vector<Range> found;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        unsigned long from = 0, to = 0;
        char rights[5] = {};
        if (std::sscanf(line.c_str(), "%lx-%lx %4s", &from, &to, rights) != 3 || rights[0] != 'r' || line.find("[v") != line.npos) continue;
        const bool writable = rights[1] == 'w';
        if (rights[3] == 'p' && writable != code && (code || line.find(".so") == line.npos)) found.push_back({reinterpret_cast<const char*>(from), to - from});
    }
    return found;
}
void flush(const std::vector<Range>& all) {
    for (const Range& r : all)
        for (std::size_t i = 0; i < r.bytes; i += 64) _mm_clflush(r.at + i);
    _mm_mfence();
}
/// 16384 branches that nobody can foretell, six times.
__attribute__((noinline)) void other_branches() {
    static unsigned long x = 88172645463325252;
    for (int pass = 0; pass < 6; ++pass) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        unsigned long r = x;
        __asm__ volatile(".rept 16384\n ror $1, %0\n jc 1f\n xor %0, %1\n 1: add $0x1e3779b9, %1\n .endr\n" : "+r"(r), "+r"(x) : : "cc");
    }
}
}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: pause MODEL [THREADS=2] [PAUSE_MS=20] [SECONDS=1]\n");
        return 2;
    }
    const auto pause = std::chrono::duration<double, std::milli>(argc > 3 ? std::atof(argv[3]) : 20);
    constexpr int blocks = 4;
    const auto block = std::chrono::duration<double>((argc > 4 ? std::atof(argv[4]) : 1) / blocks);
    Engine engine = Model::load(argv[1]).compile({.threads = argc > 2 ? std::atoi(argv[2]) : 2});
    Session session(engine);
    for (const PortInfo& port : engine.inputs()) {
        Shape shape;
        for (const DimInfo& d : port.dims) shape.push_back(d.value.value_or(1));
        session.bind(port.name, Tensor(port.dtype, shape));
    }
    for (int i = 0; i < 5; ++i) session.run();
    const std::vector<Range> data = ranges(false), code = ranges(true);
    const std::vector<std::string> states{"together", "asleep", "awake", "woken", "data", "code", "branches", "cold"};
    std::map<std::string, std::vector<double>> times;
    for (int b = 0; b < blocks; ++b)
        for (const std::string& s : states) {
            session.run();
            for (const auto end = Clock::now() + block; Clock::now() < end;) {
                if (s == "asleep") std::this_thread::sleep_for(pause);
                if (s == "awake" || s == "woken") for (const auto until = Clock::now() + (s == "awake" ? pause : std::chrono::duration<double, std::milli>(0.3)); Clock::now() < until;) _mm_pause();
                if (s == "data" || s == "cold") flush(data);
                if (s == "code" || s == "cold") flush(code);
                if (s == "branches" || s == "cold") other_branches();
                const auto start = Clock::now();
                session.run();
                times[s].push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
            }
        }
    double together = 0;
    for (const std::string& s : states) {
        auto& t = times[s];
        std::nth_element(t.begin(), t.begin() + static_cast<std::ptrdiff_t>(t.size() / 2), t.end());
        const double median = t[t.size() / 2];
        if (together == 0) together = median;
        std::printf("%-9s %8.3f ms  %+6.1f %%  (%zu runs)\n", s.c_str(), median, 100 * (median / together - 1), t.size());
    }
}
#else
int main() {
    std::fprintf(stderr, "pause: Linux on x86-64 is asked for\n");
    return 2;
}
#endif
