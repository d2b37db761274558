// What this machine can do at the moment: fused multiply-adds in registers and reads from memory, as one JSON object:
// quern_roofline [THREADS]. Run it in the same minute as what is compared with it: clocks drift.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include <quern/options.hpp>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using clock_type = std::chrono::steady_clock;
double seconds_since(clock_type::time_point t) { return std::chrono::duration<double>(clock_type::now() - t).count(); }

#if defined(__x86_64__)
__attribute__((target("avx512f"))) double fma_512(int rounds) {
    __m512 a[16];
    for (int i = 0; i < 16; ++i) a[i] = _mm512_set1_ps(1.f + static_cast<float>(i));
    const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
    for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) a[i] = _mm512_fmadd_ps(a[i], x, y);
    for (int i = 1; i < 16; ++i) a[0] = _mm512_add_ps(a[0], a[i]);
    volatile float kept = _mm512_cvtss_f32(a[0]);
    (void)kept;
    return 2.0 * 16 * 16 * rounds;
}
__attribute__((target("avx2,fma"))) double fma_256(int rounds) {
    __m256 a[12];
    for (int i = 0; i < 12; ++i) a[i] = _mm256_set1_ps(1.f + static_cast<float>(i));
    const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
    for (int r = 0; r < rounds; ++r)
#pragma GCC unroll 12
        for (int i = 0; i < 12; ++i) a[i] = _mm256_fmadd_ps(a[i], x, y);
    for (int i = 1; i < 12; ++i) a[0] = _mm256_add_ps(a[0], a[i]);
    volatile float kept = _mm256_cvtss_f32(a[0]);
    (void)kept;
    return 2.0 * 8 * 12 * rounds;
}
#endif
/// Operations done.
double multiply_adds(int rounds) {
#if defined(__x86_64__)
    if (quern::best_isa() >= quern::Isa::avx512) return fma_512(rounds);
    if (quern::best_isa() >= quern::Isa::avx2) return fma_256(rounds);
#endif
    float a[16] = {};
    for (int r = 0; r < rounds; ++r)
        for (float& v : a) v = v * 0.999f + 0.001f;
    volatile float kept = a[0];
    (void)kept;
    return 2.0 * 16 * rounds;
}
/// Bytes read.
double read_all(const std::vector<std::uint64_t>& v) {
    std::uint64_t s[8] = {};
    for (std::size_t i = 0; i + 8 <= v.size(); i += 8)
        for (std::size_t k = 0; k < 8; ++k) s[k] += v[i + k];
    volatile std::uint64_t kept = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
    (void)kept;
    return static_cast<double>(v.size() * 8);
}
/// The best of `tries` rates with `threads` beside each other.
double rate(int threads, int tries, const std::function<double(int)>& work) {
    double best = 0;
    for (int t = 0; t < tries; ++t) {
        std::vector<double> done(static_cast<std::size_t>(threads));
        auto start = clock_type::now();
        std::vector<std::thread> others;
        for (int i = 1; i < threads; ++i) others.emplace_back([&, i] { done[static_cast<std::size_t>(i)] = work(i); });
        done[0] = work(0);
        for (auto& o : others) o.join();
        double s = seconds_since(start), sum = 0;
        for (double d : done) sum += d;
        best = std::max(best, sum / s);
    }
    return best;
}

}  // namespace

int main(int argc, char** argv) {
    int threads = argc > 1 ? std::clamp(std::atoi(argv[1]), 1, 256) : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    auto fma = [](int) { return multiply_adds(4 << 20); };
    std::vector<std::vector<std::uint64_t>> memory(static_cast<std::size_t>(threads), std::vector<std::uint64_t>((128u << 20) / 8, 1));
    auto reading = [&](int i) { return read_all(memory[static_cast<std::size_t>(i)]); };
    std::printf("{\"isa\":\"%s\",\"threads\":%d,\"fma_gflops_one\":%.1f,\"fma_gflops\":%.1f,\"read_gbs_one\":%.1f,\"read_gbs\":%.1f}\n", quern::isa_name(quern::best_isa()), threads,
                rate(1, 5, fma) * 1e-9, rate(threads, 5, fma) * 1e-9, rate(1, 5, reading) * 1e-9, rate(threads, 5, reading) * 1e-9);
}
