// Text decoding with a growing key/value cache: one token a step, the cache fed back without copies of the weights.
//
//   decode MODEL [STEPS] [THREADS]
//
// For models with inputs input_ids, attention_mask, position_ids, past_key_values.* and outputs present.*. Prints one
// line of JSON: median, slowest step and their ratio (the first 8 steps apart), weights packed before and after.
// Exit 1 when a weight was packed again, or a step took longer than 1.5 x the median of its neighbours.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <quern/quern.hpp>

using namespace quern;

static double median(std::vector<double> v) {
    std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
    return v[v.size() / 2];
}

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: decode MODEL [STEPS=256] [THREADS=2]\n");
        return 2;
    }
    int steps = argc > 2 ? std::atoi(argv[2]) : 256;
    Engine engine = Model::load(argv[1]).compile({.threads = argc > 3 ? std::atoi(argv[3]) : 2});
    std::size_t packings = engine.packings();
    Session session(engine);
    std::vector<std::pair<std::string, std::string>> cache;
    std::vector<Tensor> past;
    for (auto& in : engine.inputs())
        if (in.name.rfind("past_key_values.", 0) == 0) {
            cache.emplace_back(in.name, "present." + in.name.substr(16));
            past.emplace_back(in.dtype, Shape{1, *in.dims[1].value, 0, *in.dims[3].value});
        }
    std::vector<double> times;
    std::int64_t token = 1;
    for (int step = 0; step < steps; ++step) {
        auto t0 = std::chrono::steady_clock::now();
        session.input("input_ids", {1, 1}).data<std::int64_t>()[0] = token;
        session.input("position_ids", {1, 1}).data<std::int64_t>()[0] = step;
        for (auto& m : session.input("attention_mask", {1, step + 1}).data<std::int64_t>()) m = 1;
        for (std::size_t i = 0; i < cache.size(); ++i) session.bind(cache[i].first, past[i]);
        session.run();
        std::span<const float> logits = session.output("logits").data<float>();
        token = std::max_element(logits.begin(), logits.end()) - logits.begin();
        for (std::size_t i = 0; i < cache.size(); ++i) past[i] = session.output(cache[i].second).clone();
        times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - t0).count());
    }
    std::vector<double> steady(times.begin() + std::min<std::ptrdiff_t>(8, static_cast<std::ptrdiff_t>(times.size()) - 1), times.end());
    double mid = median(steady), slow = *std::max_element(steady.begin(), steady.end());
    auto over = std::count_if(steady.begin(), steady.end(), [&](double t) { return t > 1.5 * mid; });
    std::printf("{\"steps\": %d, \"first_ms\": %.2f, \"median_ms\": %.2f, \"slowest_ms\": %.2f, \"slowest_to_median\": %.2f, \"over_1.5\": %d, \"packings\": %zu, \"packed_again\": %zu}\n",
                steps, times[0], mid, slow, slow / mid, static_cast<int>(over), packings, engine.packings() - packings);
    return engine.packings() != packings || over ? 1 : 0;
}
