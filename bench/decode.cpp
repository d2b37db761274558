// Text decoding with a growing key/value cache: one token a step. The cache grows in memory made before the first step.
//
//   decode MODEL [STEPS] [THREADS] [PAUSE_MS] [ROUNDS]
//
// ROUNDS: the whole text again in a session of its own; a step's time is its least, so that what is slow in the program stays and what the
// machine did beside it goes.
// PAUSE_MS: sleep between the steps, outside of the timed part; under a real-time scheduler it keeps the process below
// kernel.sched_rt_runtime_us, whose throttling would otherwise stop a step for 50 ms in each second.
//
// For models with inputs input_ids, attention_mask, position_ids, past_key_values.* and outputs present.*. Prints one
// line of JSON: median, slowest step and their ratio (the first 8 steps apart), weights packed before and after.
// Exit 1 when a weight was packed again, or a step took longer than 1.5 x the median of its neighbours.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <quern/quern.hpp>

using namespace quern;

static double median(std::vector<double> v) {
    std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
    return v[v.size() / 2];
}

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: decode MODEL [STEPS=256] [THREADS=2] [PAUSE_MS=0] [ROUNDS=1]\n");
        return 2;
    }
    int steps = argc > 2 ? std::atoi(argv[2]) : 256, rounds = argc > 5 ? std::atoi(argv[5]) : 1;
    auto pause = std::chrono::milliseconds(argc > 4 ? std::atoi(argv[4]) : 0);
    Engine engine = Model::load(argv[1]).compile({.threads = argc > 3 ? std::atoi(argv[3]) : 2});
    std::size_t packings = engine.packings();
    struct Cache {
        std::string in, out;
        Tensor memory;
    };
    std::vector<Cache> caches;
    for (auto& in : engine.inputs())
        if (in.name.rfind("past_key_values.", 0) == 0) {
            const std::int64_t heads = *in.dims[1].value, size = *in.dims[3].value;
            caches.push_back({in.name, "present." + in.name.substr(16), Tensor(in.dtype, {1, heads, steps, size})});
        }
    std::vector<double> times(static_cast<std::size_t>(steps), 1e300);
    for (int round = 0; round < rounds; ++round) {
        Session session(engine);
        for (Cache& c : caches) session.bind_cache(c.in, c.out, c.memory);
        std::int64_t token = 1;
        for (int step = 0; step < steps; ++step) {
            auto t0 = std::chrono::steady_clock::now();
            session.input("input_ids", {1, 1}).data<std::int64_t>()[0] = token;
            session.input("position_ids", {1, 1}).data<std::int64_t>()[0] = step;
            for (auto& m : session.input("attention_mask", {1, step + 1}).data<std::int64_t>()) m = 1;
            session.run();
            std::span<const float> logits = session.output("logits").data<float>();
            token = std::max_element(logits.begin(), logits.end()) - logits.begin();
            double& t = times[static_cast<std::size_t>(step)];
            t = std::min(t, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - t0).count());
            if (pause.count()) std::this_thread::sleep_for(pause);
        }
    }
    std::vector<double> steady(times.begin() + std::min<std::ptrdiff_t>(8, static_cast<std::ptrdiff_t>(times.size()) - 1), times.end());
    double mid = median(steady), slow = *std::max_element(steady.begin(), steady.end());
    auto over = std::count_if(steady.begin(), steady.end(), [&](double t) { return t > 1.5 * mid; });
    for (std::size_t i = 8; i < times.size(); ++i)
        if (times[i] > 1.5 * mid) std::fprintf(stderr, "step %zu: %.2f ms\n", i, times[i]);
    std::printf("{\"steps\": %d, \"rounds\": %d, \"first_ms\": %.2f, \"median_ms\": %.2f, \"slowest_ms\": %.2f, \"slowest_to_median\": %.2f, \"over_1.5\": %d, \"packings\": %zu, \"packed_again\": %zu}\n",
                steps, rounds, times[0], mid, slow, slow / mid, static_cast<int>(over), packings, engine.packings() - packings);
    return engine.packings() != packings || over ? 1 : 0;
}
