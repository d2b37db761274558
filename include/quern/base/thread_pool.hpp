// Threads of an engine: parked unless a run is on, tiles taken one by one by whoever is free.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "../error.hpp"
#include "workers.hpp"

QUERN_BEGIN

/// Processors that this process may use: affinity and cgroup quota respected; at least 1.
QUERN_API int usable_cpus() noexcept;
/// The smallest CPU quota, in processors, of a control group and those around it; 0: no quota. `membership` is /proc/self/cgroup's text,
/// `mount` where the hierarchies are (version 2 in the folder itself, version 1 in "cpu" or "cpu,cpuacct"). A container may see its group as
/// the root of the mount: that is looked at too.
QUERN_API double cgroup_quota(std::string_view membership, const std::string& mount);

/// A fixed number of threads, started at the first parallel work. One job at a time: a caller that finds
/// the pool busy does its work alone. Between jobs workers spin, then sleep: while a run is on for twice the longest usual gap between its
/// jobs, at most 1 ms (waking a sleeping core takes as long as a small step), otherwise for 50 us; where the last `usual_pauses` runs
/// came after pauses, not at all: the next one will, too. A worker that spun on while the caller's thread has lost its processor to a neighbour
/// would keep the system from moving the caller to the worker's.
/// Each worker begins with its own part of the tiles, the same part in each job, and helps the others when that is done: what
/// one step leaves in a core's cache the next step finds there.
///
/// Beside a neighbour's threads. Who loses its processor within a tile holds up the others for a slice of the scheduler (3 to 4 ms). So the
/// caller looks after `first_look` whether the worker that it waits for runs at all, moves it to its own processor if not (for a moment its affinity is
/// narrower), and sleeps. The caller's thread is not the pool's to move: a system does that when a processor falls idle, Linux for threads
/// that have been off for 0.5 ms; so a worker that finds no work while a run is on goes to sleep a second time after `second_look`.
/// Where that does not help by the second look, in runs that are shorter than a slice (`short_run`), one worker is taken off, at first for
/// `shortest_rest`, four times as long when it happens again within `soon` and twice that rest: fewer threads than processors are seldom
/// interrupted. A worker that is woken on the caller's processor moves to another one: the two would change places at each step, and asleep most
/// of the time it would be moved by nobody.
///
/// After a pause. Workers are asleep, and a halted processor may take longer to wake up than a small model to run (virtual machines: 3 ms seen),
/// or the system wakes them where the caller runs. Where no worker came to another processor in the first quarter of the time in which there
/// was work for it, the next few runs after pauses are the caller's alone, as far as they take no longer; the more, the more often that happens.
class QUERN_API ThreadPool {
public:
    using Clock = std::chrono::steady_clock;
    explicit ThreadPool(int width) : width_(width < 1 ? 1 : width), parts_(static_cast<std::size_t>(width_)), active_(width_) {}
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;
    int width() const noexcept { return width_; }
    void run(std::int64_t n, Executor::Tile tile, void* context);
    struct Mark {
        Clock::time_point start;
        std::uint32_t epoch = 0;
        bool asleep = false;  ///< all of its workers were
        Clock::time_point alone_until = Clock::time_point::min();  ///< they would come too late: before this run() is not to be called
    };
    /// More work is coming: between begin_run and end_run workers stay awake longer.
    Mark begin_run() noexcept;
    void end_run(const Mark& begun) noexcept;
    /// Workers that are asked at present, the caller included; at most width().
    int active() const noexcept { return active_.load(std::memory_order_relaxed); }
    /// A worker's processor is wanted by a neighbour: what the pool calls itself where it sees that. Not in long runs.
    void crowded() noexcept;

private:
    struct Job {
        std::int64_t n = 0;
        Executor::Tile tile = nullptr;
        void* context = nullptr;
        int parts = 1;
    };
    struct alignas(64) Part {
        std::atomic<std::int64_t> next{0};
        std::int64_t end = 0;
        std::atomic<int> cpu{-1};  ///< that its worker does tiles on; -1: none
        std::atomic<int> id{0};    ///< of its worker's thread, as the system counts
        std::int64_t ran = 0;      ///< the caller's note: the worker's processor time when the caller began to wait
        int clock = 0;             ///< of the worker's processor time
    };
    void start();
    void work(int worker);
    void rest(int worker);
    void drain(int worker);
    void leave();
    void await();

    const int width_;
    std::vector<std::thread> threads_;
    std::atomic<bool> busy_{false}, stop_{false};
    Job job_;
    std::vector<Part> parts_;  ///< by worker
    alignas(64) std::atomic<std::uint32_t> epoch_{0};
    std::atomic<std::uint32_t> open_{0};
    std::atomic<int> home_{-1};  ///< the caller's processor
    std::atomic<std::uint32_t> inside_{0};
    std::atomic<int> sleepers_{0}, waiting_{0};
    alignas(64) std::atomic<int> runs_{0};
    std::atomic<int> active_;
    std::atomic<std::uint32_t> recalls_{0};
    std::atomic<std::int64_t> usual_run_{INT64_MAX}, rest_{0}, rest_end_{0};  ///< nanoseconds
    std::atomic<std::int64_t> last_end_{0}, asked_{0}, joined_{0};  ///< when a run ended; when one that began with all asleep woke workers; when the first came
    std::atomic<std::int64_t> missed_{0};  ///< what a run took for which they came too late
    std::atomic<int> pauses_{0};  ///< runs in a row that began with all asleep
    std::atomic<int> skip_{0}, skips_{0};  ///< runs after a pause without workers: to come; decided at the last failure
};

/// The end of runs that may take as long as they want.
inline constexpr auto no_deadline = std::chrono::steady_clock::time_point::max();
/// Raises cancelled once `stop` (null: nobody stops it) is true, and deadline_exceeded from `end` on.
QUERN_API void check_run(const std::atomic<bool>* stop, std::chrono::steady_clock::time_point end);

/// The Workers of one run: a pool, the caller's executor, or only the calling thread. Collects the
/// first exception of a tile.
class QUERN_API RunWorkers final : public Workers {
public:
    /// Once `stop` is true, run() raises cancelled before its next tile.
    RunWorkers(ThreadPool* pool, Executor* executor, const std::atomic<bool>* stop = nullptr)
        : pool_(pool), executor_(executor), stop_(stop), width_(executor ? std::clamp(executor->width(), 1, 1024) : pool ? pool->width() : 1) {}
    /// From `end` on run() raises deadline_exceeded before its next tile.
    void until(std::chrono::steady_clock::time_point end) noexcept { end_ = end; }
    /// Asked of an executor once: what kernels book for each worker holds as long as the session.
    int width() const noexcept override { return width_; }
    void run(std::int64_t n, Tile tile, void* context) override;
    /// As long as it lives the pool's threads expect work.
    class QUERN_API Busy {
    public:
        explicit Busy(RunWorkers& w) noexcept : workers_(w), pool_(w.executor_ ? nullptr : w.pool_) {
            if (!pool_) return;
            begun_ = pool_->begin_run();
            w.alone_until_ = begun_.alone_until;
        }
        ~Busy() {
            if (!pool_) return;
            workers_.alone_until_ = ThreadPool::Clock::time_point::min();
            pool_->end_run(begun_);
        }
        Busy(const Busy&) = delete;
        Busy& operator=(const Busy&) = delete;

    private:
        RunWorkers& workers_;
        ThreadPool* pool_;
        ThreadPool::Mark begun_;
    };

private:
    ThreadPool* pool_;
    Executor* executor_;
    const std::atomic<bool>* stop_;
    int width_;
    std::chrono::steady_clock::time_point end_ = no_deadline, alone_until_ = std::chrono::steady_clock::time_point::min();
    bool alone() noexcept;
};

QUERN_END
