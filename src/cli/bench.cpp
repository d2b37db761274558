// quern bench: latency, load time and memory of one model, as shared/peers/bench_peers.py measures its peers.
#include <ctime>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "io.hpp"
#include "npy.hpp"
#include "progress.hpp"

namespace cli {

static double processor_seconds() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

/// The high-water mark of resident memory since exec, in MB; 0 where /proc is not there.
static double peak_mb() {
    std::string status;
    std::FILE* raw = std::fopen("/proc/self/status", "r");
    if (!raw) return 0;
    File f(raw);
    char line[256];
    double kb = 0;
    while (std::fgets(line, sizeof line, raw))
        if (std::sscanf(line, "VmHWM: %lf", &kb) == 1) break;
    return kb / 1024;
}

/// Microseconds of the device in each kernel (copies left out), the least of five runs.
static std::map<std::string, double> device_times(quern::Session& session) {
    std::map<std::string, double> least;
    session.profile(true);
    for (int i = 0; i < 5; ++i) {
        session.run();
        std::map<std::string, double> sums;
        for (const auto& t : session.times())
            if (t.kernel != "copy") sums[t.kernel] += t.micros;
        for (auto& [kernel, us] : sums)
            if (auto [it, made] = least.emplace(kernel, us); !made) it->second = std::min(it->second, us);
    }
    session.profile(false);
    return least;
}

int bench(const Args& a) {
    Progress progress;
    progress.show("loading and compiling " + a.model);
    double t0 = seconds();
    quern::Engine engine = open_engine(a);
    quern::Session session(engine);
    double load_ms = (seconds() - t0) * 1e3;
    auto inputs = gather_inputs(engine.inputs(), a, true);

    progress.show("first run");
    t0 = seconds();
    for (auto& [name, value] : inputs) {
        const Tensor* t = value.kind() == quern::Kind::tensor ? &value.tensor() : nullptr;
        if (a.device == "cpu" || !t || t->dtype() == DType::string || !t->bytes()) session.bind(name, value);
        else std::memcpy(session.input(name, t->shape()).raw(), t->raw(), t->bytes());  // memory that the device reaches at full speed
    }
    session.run();
    double first_ms = (seconds() - t0) * 1e3;

    for (int i = 0; i < 2; ++i) session.run();
    std::vector<double> times;
    times.reserve(1 << 16);
    double cpu0 = processor_seconds(), end = seconds() + a.seconds;
    while (times.size() < 3 || seconds() < end) {
        t0 = seconds();
        session.run();
        times.push_back(seconds() - t0);
        if (a.pause_ms > 0) std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(a.pause_ms));
        progress.show("run " + std::to_string(times.size()), false);
    }
    double cpu_ms = (processor_seconds() - cpu0) / double(times.size()) * 1e3;
    double idle_ms = 0;
    if (a.idle > 0) {
        progress.show("waiting");
        // Linux adds what a thread on another processor uses at its ticks: the last run's part may show up to 4 ms later.
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        cpu0 = processor_seconds();
        std::this_thread::sleep_for(std::chrono::duration<double>(a.idle));
        idle_ms = (processor_seconds() - cpu0) * 1e3;
    }
    progress.clear();
    if (!a.output_dir.empty()) {
        make_dir(a.output_dir);
        for (const auto& port : engine.outputs()) save_output(a.output_dir, port.name, session.output_value(port.name), port.kind);
    }

    std::sort(times.begin(), times.end());
    std::size_t n = times.size();
    double median = n % 2 ? times[n / 2] : (times[n / 2 - 1] + times[n / 2]) / 2;
    double p99 = times[std::min(n - 1, std::size_t(double(n) * 0.99))];
    if (a.json) {
        nlohmann::ordered_json j{{"load_ms", load_ms}, {"first_ms", first_ms}, {"median_ms", median * 1e3},
                                 {"min_ms", times[0] * 1e3}, {"p99_ms", p99 * 1e3}, {"runs", n},
                                 {"cpu_ms", cpu_ms}, {"peak_rss_mb", peak_mb()}};
        if (a.idle > 0) j["idle_cpu_ms"] = idle_ms, j["idle_seconds"] = a.idle;
        if (a.device != "cpu") j["kernels"] = device_times(session);
        std::printf("%s\n", j.dump().c_str());
        return ok;
    }
    std::printf("load and compile  %10.3f ms\nfirst run         %10.3f ms\n", load_ms, first_ms);
    std::printf("median            %10.3f ms  (%zu runs)\nmin               %10.3f ms\np99               %10.3f ms\n",
                median * 1e3, n, times[0] * 1e3, p99 * 1e3);
    std::printf("processor time    %10.3f ms a run\npeak memory       %10.1f MB\n", cpu_ms, peak_mb());
    if (a.idle > 0) std::printf("idle              %10.3f ms of processor time in %g s\n", idle_ms, a.idle);
    std::printf("weights packed    %10.1f MB, activations %.1f MB\n", double(engine.packed_bytes()) / 1048576,
                double(session.memory_bytes()) / 1048576);
    return ok;
}
}  // namespace cli
