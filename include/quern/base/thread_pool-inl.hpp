#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>

#include "guard.hpp"
#include "thread_pool.hpp"
#if defined(__linux__)
#include <sched.h>
#endif

QUERN_BEGIN

QUERN_INLINE Executor::~Executor() = default;

namespace detail {
/// At most 64 KiB of a file; empty where it cannot be read.
inline std::string first_bytes(const std::string& path) {
    std::string s;
    if (std::FILE* f = std::fopen(path.c_str(), "r")) {
        s.resize(65536);
        s.resize(std::fread(s.data(), 1, s.size(), f));
        std::fclose(f);
    }
    return s;
}
}  // namespace detail

QUERN_INLINE double cgroup_quota(std::string_view membership, const std::string& mount) {
    double least = 0;
    auto note = [&](double quota, double period) {
        if (quota > 0 && period > 0 && (least == 0 || quota / period < least)) least = quota / period;
    };
    auto look = [&](const std::string& dir) {
        double quota = 0, period = 0;
        if (std::sscanf(detail::first_bytes(dir + "/cpu.max").c_str(), "%lf %lf", &quota, &period) == 2) note(quota, period);  // "max 100000" is no number
        if (std::sscanf(detail::first_bytes(dir + "/cpu.cfs_quota_us").c_str(), "%lf", &quota) == 1 &&
            std::sscanf(detail::first_bytes(dir + "/cpu.cfs_period_us").c_str(), "%lf", &period) == 1) note(quota, period);  // -1: none
    };
    while (!membership.empty()) {
        std::string_view line = membership.substr(0, membership.find('\n'));
        membership.remove_prefix(std::min(membership.size(), line.size() + 1));
        std::size_t a = line.find(':'), b = a == line.npos ? a : line.find(':', a + 1);
        if (b == line.npos) continue;
        std::string_view controllers = line.substr(a + 1, b - a - 1);
        std::string path(line.substr(b + 1));
        bool cpu = ("," + std::string(controllers) + ",").find(",cpu,") != std::string::npos;
        if ((!controllers.empty() && !cpu) || path.find("..") != std::string::npos || path.size() > 4096) continue;
        std::vector<std::string> roots = controllers.empty() ? std::vector<std::string>{mount} : std::vector<std::string>{mount + "/cpu", mount + "/cpu,cpuacct", mount + "/" + std::string(controllers)};
        for (const std::string& root : roots) {
            for (std::string at = path; !at.empty() && at != "/"; at.resize(at.rfind('/'))) look(root + at);
            look(root);
        }
    }
    return least;
}

QUERN_INLINE int usable_cpus() noexcept {
    int n = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
    auto quota = guarded([] { return cgroup_quota(detail::first_bytes("/proc/self/cgroup"), "/sys/fs/cgroup"); });
    if (quota && *quota > 0 && *quota < n) n = std::max(1, static_cast<int>(std::ceil(*quota)));
#endif
    return n < 1 ? 1 : n;
}

namespace detail {
inline void cpu_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}
/// Spins until ready() or limit() after `start`; true when ready.
template <class F, class L>
bool spin(std::chrono::steady_clock::time_point start, F&& ready, L&& limit) {
    for (;;) {
        for (int i = 0; i < 64; ++i) {
            if (ready()) return true;
            cpu_pause();
        }
        if (std::chrono::steady_clock::now() - start >= limit()) return ready();
    }
}
inline constexpr std::chrono::steady_clock::duration shortest_spin = std::chrono::microseconds(50), longest_spin = std::chrono::milliseconds(1);
}  // namespace detail

QUERN_INLINE ThreadPool::~ThreadPool() {
    stop_.store(true);
    epoch_.fetch_add(1);
    epoch_.notify_all();
    for (auto& t : threads_) t.join();
}
QUERN_INLINE void ThreadPool::start() {
    threads_.reserve(width_ - 1);
    // Where the system gives no more threads, those that are there do all of the work.
    (void)guarded([&] {
        for (int i = 1; i < width_; ++i) threads_.emplace_back([this, i] { work(i); });
    });
}
QUERN_INLINE void ThreadPool::drain(int worker) {
    const Job job = job_;
    for (int k = 0; k < width_; ++k) {
        Part& part = parts_[static_cast<std::size_t>((worker + k) % width_)];
        while (part.next.load(std::memory_order_relaxed) < part.end) {
            std::int64_t i = part.next.fetch_add(1, std::memory_order_relaxed);
            if (i >= part.end) break;
            job.tile(job.context, i, worker);
        }
    }
}
QUERN_INLINE void ThreadPool::leave() {
    if (inside_.fetch_sub(1) == 1 && waiting_.load()) inside_.notify_all();
}
QUERN_INLINE void ThreadPool::work(int worker) {
    using Clock = std::chrono::steady_clock;
    std::uint32_t seen = 0;
    Clock::duration usual{};
    for (;;) {
        const Clock::time_point start = Clock::now();
        const Clock::duration in_run = std::clamp(2 * usual, detail::shortest_spin, detail::longest_spin);
        bool news = detail::spin(start, [&] { return epoch_.load(std::memory_order_acquire) != seen; },
                                 [&] { return runs_.load(std::memory_order_relaxed) > 0 ? in_run : detail::shortest_spin; });
        if (!news) {
            sleepers_.fetch_add(1);
            epoch_.wait(seen);
            sleepers_.fetch_sub(1);
        }
        if (const auto gap = Clock::now() - start; gap <= detail::longest_spin) usual = std::max(gap, usual - usual / 64);
        seen = epoch_.load();
        if (stop_.load()) return;
        // A worker counts itself in before it looks whether a job is open; the caller closes the job before it
        // looks whether anybody is in. So a job's fields are never rewritten under a worker.
        inside_.fetch_add(1);
        if (open_.load()) drain(worker);
        leave();
    }
}
QUERN_INLINE void ThreadPool::run(std::int64_t n, Executor::Tile tile, void* context) {
    bool expected = false;
    if (width_ == 1 || n <= 1 || !busy_.compare_exchange_strong(expected, true)) {
        for (std::int64_t i = 0; i < n; ++i) tile(context, i, 0);
        return;
    }
    if (threads_.empty()) start();
    job_ = Job{n, tile, context};
    for (int w = 0; w < width_; ++w) {
        Part& part = parts_[static_cast<std::size_t>(w)];
        part.next.store(n / width_ * w + std::min<std::int64_t>(w, n % width_), std::memory_order_relaxed);
        part.end = n / width_ * (w + 1) + std::min<std::int64_t>(w + 1, n % width_);
    }
    open_.store(1);
    epoch_.fetch_add(1);
    if (sleepers_.load()) epoch_.notify_all();
    drain(0);
    open_.store(0);
    if (inside_.load() && !detail::spin(std::chrono::steady_clock::now(), [&] { return inside_.load() == 0; }, [] { return detail::shortest_spin; })) {
        waiting_.store(1);
        for (int v = inside_.load(); v; v = inside_.load()) inside_.wait(v);
        waiting_.store(0);
    }
    busy_.store(false);
}

QUERN_INLINE void check_run(const std::atomic<bool>* stop, std::chrono::steady_clock::time_point end) {
    if (stop && stop->load(std::memory_order_relaxed)) raise(ErrorCode::cancelled, "Session::cancel() was called");
    if (end != no_deadline && std::chrono::steady_clock::now() > end) raise(ErrorCode::deadline_exceeded, "the run took longer than Options::deadline");
}
QUERN_INLINE void RunWorkers::run(std::int64_t n, Tile tile, void* context) {
    if (n <= 0) return;
    if (n == 1 || width_ == 1) {
        for (std::int64_t i = 0; i < n; ++i) {
            check_run(stop_, end_);
            tile(context, i, 0);
        }
        return;
    }
    struct Guarded {
        Tile tile;
        void* context;
        const RunWorkers& run;
        std::atomic<bool> failed{false};
        std::exception_ptr first;
        std::mutex lock;
    } g{tile, context, *this, {}, {}, {}};
    auto safe = [](void* c, std::int64_t i, int w) {
        auto& s = *static_cast<Guarded*>(c);
        if (s.failed.load(std::memory_order_relaxed)) return;
        try {
            check_run(s.run.stop_, s.run.end_);
            if (w < 0 || w >= s.run.width_) raise(ErrorCode::invalid_argument, "the executor gave worker " + std::to_string(w) + "; its width was " + std::to_string(s.run.width_));
            s.tile(s.context, i, w);
        } catch (...) {
            std::lock_guard<std::mutex> l(s.lock);
            if (!s.failed.exchange(true)) s.first = std::current_exception();
        }
    };
    if (executor_) {
        try {
            executor_->run(n, safe, &g);
        } catch (const Error&) {
            throw;
        } catch (const std::exception& e) {
            raise(ErrorCode::invalid_argument, std::string("Options::executor failed: ") + e.what());
        }
    } else pool_->run(n, safe, &g);
    if (g.failed) std::rethrow_exception(g.first);
}

QUERN_END
