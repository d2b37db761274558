#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>

#include "guard.hpp"
#include "thread_pool.hpp"
#if defined(__linux__)
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
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
inline constexpr std::chrono::steady_clock::duration shortest_spin = std::chrono::microseconds(50), longest_spin = std::chrono::milliseconds(1),
    first_look = std::chrono::microseconds(100), second_look = std::chrono::microseconds(600), later_looks = std::chrono::microseconds(250), stay = std::chrono::milliseconds(2), forever = std::chrono::steady_clock::duration::max();
inline constexpr std::int64_t short_run = 4'000'000, shortest_rest = 4'000'000, longest_rest = 128'000'000, soon = 32'000'000, pause = 1'000'000;
inline constexpr int fewest_skips = 4, most_skips = 64, usual_pauses = 3;
inline std::int64_t nanoseconds(std::chrono::steady_clock::time_point t) { return std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count(); }

/// Sleeps while `word` is `value`, at most for `limit` where the system can do that; may return early.
inline void sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t value, std::chrono::steady_clock::duration limit) noexcept {
#if defined(__linux__)
    const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(limit).count();
    const timespec t{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, limit == forever ? nullptr : &t, nullptr, 0);
#else
    (void)limit;
    word.wait(value);
#endif
}
inline void wake_all(std::atomic<std::uint32_t>& word) noexcept {
#if defined(__linux__)
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#else
    word.notify_all();
#endif
}
/// The processor that the calling thread is on; -1 where that is not known.
inline int this_cpu() noexcept {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}
/// The system's number of the calling thread; 0: not known.
inline int thread_id() noexcept {
#if defined(__linux__)
    return static_cast<int>(syscall(SYS_gettid));
#else
    return 0;
#endif
}
/// Moves a thread to processor `cpu`, or away from it, if it may run there. Where it may run stays as it was.
inline void move_thread(int thread, int cpu, bool away) noexcept {
#if defined(__linux__)
    cpu_set_t all, some;
    if (thread <= 0 || cpu < 0 || sched_getaffinity(thread, sizeof all, &all) != 0 || !CPU_ISSET(cpu, &all)) return;
    if (away) some = all;
    else CPU_ZERO(&some);
    if (away) CPU_CLR(cpu, &some);
    else CPU_SET(cpu, &some);
    if (CPU_COUNT(&some) > 0 && sched_setaffinity(thread, sizeof some, &some) == 0) sched_setaffinity(thread, sizeof all, &all);
#else
    (void)thread, (void)cpu, (void)away;
#endif
}
/// A clock of the processor time of `t`; 0: there is none.
inline int clock_of(std::thread& t) noexcept {
#if defined(__linux__)
    clockid_t id{};
    return pthread_getcpuclockid(t.native_handle(), &id) == 0 ? static_cast<int>(id) : 0;
#else
    (void)t;
    return 0;
#endif
}
/// Nanoseconds of processor time; -1: not known.
inline std::int64_t processor_time(int clock) noexcept {
#if defined(__linux__)
    timespec t{};
    if (clock != 0 && clock_gettime(static_cast<clockid_t>(clock), &t) == 0) return static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
#endif
    (void)clock;
    return -1;
}
}  // namespace detail

QUERN_INLINE ThreadPool::~ThreadPool() {
    stop_.store(true);
    epoch_.fetch_add(1);
    recalls_.fetch_add(1);
    detail::wake_all(epoch_);
    detail::wake_all(recalls_);
    for (auto& t : threads_) t.join();
}
QUERN_INLINE void ThreadPool::start() {
    threads_.reserve(width_ - 1);
    // Where the system gives no more threads, those that are there do all of the work.
    (void)guarded([&] {
        for (int i = 1; i < width_; ++i) {
            threads_.emplace_back([this, i] { work(i); });
            parts_[static_cast<std::size_t>(i)].clock = detail::clock_of(threads_.back());
        }
    });
}
QUERN_INLINE ThreadPool::Mark ThreadPool::begin_run() noexcept {
    runs_.fetch_add(1, std::memory_order_relaxed);
    Mark m{Clock::now(), epoch_.load(std::memory_order_relaxed)};
    const std::int64_t now = detail::nanoseconds(m.start);
    int a = active();
    m.asleep = a > 1 && sleepers_.load(std::memory_order_relaxed) >= a - 1 && now - last_end_.load(std::memory_order_relaxed) > detail::pause;
    pauses_.store(m.asleep ? std::min(pauses_.load(std::memory_order_relaxed) + 1, detail::usual_pauses) : 0, std::memory_order_relaxed);
    if (m.asleep) {
        asked_.store(0, std::memory_order_relaxed);
        joined_.store(0, std::memory_order_relaxed);
        if (skip_.load(std::memory_order_relaxed) > 0) {
            skip_.fetch_sub(1, std::memory_order_relaxed);
            m.alone_until = m.start + std::chrono::nanoseconds(missed_.load(std::memory_order_relaxed));
            return m;
        }
    }
    if (a < width_ && now >= rest_end_.load(std::memory_order_relaxed) && active_.compare_exchange_strong(a, a + 1)) {
        rest_end_.store(now, std::memory_order_relaxed);
        recalls_.fetch_add(1);
        detail::wake_all(recalls_);
    }
    return m;
}
QUERN_INLINE void ThreadPool::end_run(const Mark& begun) noexcept {
    runs_.fetch_sub(1, std::memory_order_relaxed);
    const std::int64_t start = detail::nanoseconds(begun.start), end = detail::nanoseconds(Clock::now()), took = end - start;
    last_end_.store(end, std::memory_order_relaxed);
    if (epoch_.load(std::memory_order_relaxed) == begun.epoch) return;
    if (begun.asleep && begun.alone_until == Clock::time_point::min()) {
        const std::int64_t joined = joined_.load(std::memory_order_relaxed), asked = asked_.load(std::memory_order_relaxed);
        const int skips = joined != 0 && 4 * (joined - asked) < end - asked ? 0 : std::clamp(2 * skips_.load(std::memory_order_relaxed), detail::fewest_skips, detail::most_skips);
        skips_.store(skips, std::memory_order_relaxed);
        missed_.store(took, std::memory_order_relaxed);
        skip_.store(skips, std::memory_order_relaxed);
    }
    const std::int64_t usual = usual_run_.load(std::memory_order_relaxed);
    usual_run_.store(usual == INT64_MAX ? took : std::min(took, usual + usual / 8), std::memory_order_relaxed);
}
QUERN_INLINE void ThreadPool::crowded() noexcept {
    int a = active();
    if (usual_run_.load(std::memory_order_relaxed) > detail::short_run || a <= 1) return;
    const std::int64_t now = detail::nanoseconds(Clock::now()), rest = rest_.load(std::memory_order_relaxed);
    const std::int64_t next = rest > 0 && now - rest_end_.load(std::memory_order_relaxed) < detail::soon + 2 * rest ? std::min(4 * rest, detail::longest_rest) : detail::shortest_rest;
    rest_.store(next, std::memory_order_relaxed);
    rest_end_.store(now + next, std::memory_order_relaxed);
    active_.compare_exchange_strong(a, a - 1);
}
QUERN_INLINE void ThreadPool::drain(int worker) {
    const Job job = job_;
    for (int k = 0; k < job.parts; ++k) {
        Part& part = parts_[static_cast<std::size_t>((worker + k) % job.parts)];
        while (part.next.load(std::memory_order_relaxed) < part.end) {
            std::int64_t i = part.next.fetch_add(1, std::memory_order_relaxed);
            if (i >= part.end) break;
            job.tile(job.context, i, worker);
        }
    }
}
QUERN_INLINE void ThreadPool::leave() {
    if (inside_.fetch_sub(1) == 1 && waiting_.load()) detail::wake_all(inside_);
}
QUERN_INLINE void ThreadPool::rest(int worker) {
    for (std::uint32_t seen = recalls_.load(); worker >= active_.load() && !stop_.load(); seen = recalls_.load()) detail::sleep_while(recalls_, seen, detail::forever);
}
QUERN_INLINE void ThreadPool::work(int worker) {
    Part& mine = parts_[static_cast<std::size_t>(worker)];
    mine.id.store(detail::thread_id(), std::memory_order_relaxed);
    std::uint32_t seen = 0;
    Clock::duration usual{};
    Clock::time_point moved{};
    for (;;) {
        const Clock::time_point start = Clock::now();
        const Clock::duration in_run = std::clamp(2 * usual, detail::shortest_spin, detail::longest_spin);
        const bool news = detail::spin(start, [&] { return epoch_.load(std::memory_order_acquire) != seen; }, [&] {
            if (worker >= active()) return Clock::duration::zero();
            if (runs_.load(std::memory_order_relaxed) <= 0) return pauses_.load(std::memory_order_relaxed) < detail::usual_pauses ? detail::shortest_spin : Clock::duration::zero();
            const int cpu = detail::this_cpu();
            return cpu >= 0 && cpu == home_.load(std::memory_order_relaxed) ? Clock::duration::zero() : in_run;  // the caller waits for this processor
        });
        if (!news) {
            if (worker >= active()) rest(worker);
            sleepers_.fetch_add(1);
            if (runs_.load(std::memory_order_relaxed) > 0) detail::sleep_while(epoch_, seen, detail::second_look);
            while (epoch_.load() == seen) detail::sleep_while(epoch_, seen, detail::forever);
            sleepers_.fetch_sub(1);
        }
        const Clock::time_point woken = Clock::now();
        if (const auto gap = woken - start; gap <= detail::longest_spin) usual = std::max(gap, usual - usual / 64);
        seen = epoch_.load();
        if (stop_.load()) return;
        // A worker counts itself in before it looks whether a job is open; the caller closes the job before it
        // looks whether anybody is in. So a job's fields are never rewritten under a worker.
        int cpu = detail::this_cpu();
        if (!news && cpu >= 0 && cpu == home_.load(std::memory_order_relaxed) && woken - moved > detail::stay) {
            detail::move_thread(mine.id.load(std::memory_order_relaxed), cpu, true);
            cpu = detail::this_cpu();
            moved = woken;
        }
        mine.cpu.store(cpu, std::memory_order_relaxed);
        inside_.fetch_add(1);
        if (open_.load()) {
            if (!news && (cpu < 0 || cpu != home_.load(std::memory_order_relaxed)) && joined_.load(std::memory_order_relaxed) == 0)
                joined_.store(detail::nanoseconds(Clock::now()), std::memory_order_relaxed);
            drain(worker);
        }
        mine.cpu.store(-1, std::memory_order_relaxed);
        leave();
    }
}
QUERN_INLINE void ThreadPool::await() {
    auto gone = [&] { return inside_.load() == 0; };
    const int here = home_.load(std::memory_order_relaxed);
    bool ours = false;  // somebody needs this processor
    for (const Part& p : parts_) ours |= here >= 0 && p.cpu.load(std::memory_order_relaxed) == here;
    if (!ours && detail::spin(Clock::now(), gone, [] { return detail::shortest_spin; })) return;
    const Clock::time_point start = Clock::now();
    for (Part& p : parts_) p.ran = p.cpu.load(std::memory_order_relaxed) < 0 ? -1 : detail::processor_time(p.clock);
    if (!ours && detail::spin(start, gone, [] { return detail::first_look; })) return;
    waiting_.store(1);
    bool off = false;
    for (std::uint32_t v = inside_.load(); v; v = inside_.load()) {
        const Clock::duration waited = Clock::now() - start;
        if (waited >= detail::first_look)
            for (const Part& p : parts_) {
                if (p.ran < 0 || p.cpu.load(std::memory_order_relaxed) < 0 || std::chrono::nanoseconds(2 * (detail::processor_time(p.clock) - p.ran)) >= waited) continue;
                detail::move_thread(p.id.load(std::memory_order_relaxed), here, false);
                off |= waited >= detail::second_look;
            }
        if (off) crowded(), off = false;
        detail::sleep_while(inside_, v, waited < detail::second_look ? detail::second_look : detail::later_looks);
    }
    waiting_.store(0);
}
QUERN_INLINE void ThreadPool::run(std::int64_t n, Executor::Tile tile, void* context) {
    bool expected = false;
    const int parts = active();
    if (parts == 1 || n <= 1 || !busy_.compare_exchange_strong(expected, true)) {
        for (std::int64_t i = 0; i < n; ++i) tile(context, i, 0);
        return;
    }
    if (threads_.empty()) start();
    job_ = Job{n, tile, context, parts};
    for (int w = 0; w < parts; ++w) {
        Part& part = parts_[static_cast<std::size_t>(w)];
        part.next.store(n / parts * w + std::min<std::int64_t>(w, n % parts), std::memory_order_relaxed);
        part.end = n / parts * (w + 1) + std::min<std::int64_t>(w + 1, n % parts);
    }
    home_.store(detail::this_cpu(), std::memory_order_relaxed);
    open_.store(1);
    epoch_.fetch_add(1);
    if (sleepers_.load()) {
        if (asked_.load(std::memory_order_relaxed) == 0) asked_.store(detail::nanoseconds(Clock::now()), std::memory_order_relaxed);
        detail::wake_all(epoch_);
    }
    drain(0);
    open_.store(0);
    if (inside_.load()) await();
    busy_.store(false);
}

QUERN_INLINE void check_run(const std::atomic<bool>* stop, std::chrono::steady_clock::time_point end) {
    if (stop && stop->load(std::memory_order_relaxed)) raise(ErrorCode::cancelled, "Session::cancel() was called");
    if (end != no_deadline && std::chrono::steady_clock::now() > end) raise(ErrorCode::deadline_exceeded, "the run took longer than Options::deadline");
}
QUERN_INLINE bool RunWorkers::alone() noexcept {
    if (alone_until_ == std::chrono::steady_clock::time_point::min()) return false;
    if (std::chrono::steady_clock::now() < alone_until_) return true;
    alone_until_ = std::chrono::steady_clock::time_point::min();
    return false;
}
QUERN_INLINE void RunWorkers::run(std::int64_t n, Tile tile, void* context) {
    if (n <= 0) return;
    if (n == 1 || width_ == 1 || alone()) {
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
