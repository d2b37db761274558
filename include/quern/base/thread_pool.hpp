// Threads of an engine: parked unless a run is on, tiles taken one by one by whoever is free.
#pragma once
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "../error.hpp"
#include "workers.hpp"

QUERN_BEGIN

/// Processors that this process may use: affinity and cgroup quota respected; at least 1.
QUERN_API int usable_cpus() noexcept;

/// A fixed number of threads, started at the first parallel work. One job at a time: a caller that finds
/// the pool busy does its work alone. Between jobs workers spin for at most 50 us, then sleep.
class QUERN_API ThreadPool {
public:
    explicit ThreadPool(int width) : width_(width < 1 ? 1 : width) {}
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;
    int width() const noexcept { return width_; }
    void run(std::int64_t n, Executor::Tile tile, void* context);

private:
    struct Job {
        std::int64_t n = 0;
        Executor::Tile tile = nullptr;
        void* context = nullptr;
    };
    void start();
    void work(int worker);
    void drain(int worker);
    void leave();

    const int width_;
    std::vector<std::thread> threads_;
    std::atomic<bool> busy_{false}, stop_{false};
    Job job_;
    alignas(64) std::atomic<std::int64_t> next_{0};
    alignas(64) std::atomic<std::uint32_t> epoch_{0};
    std::atomic<std::uint32_t> open_{0};
    std::atomic<int> inside_{0}, sleepers_{0}, waiting_{0};
};

/// The Workers of one run: a pool, the caller's executor, or only the calling thread. Collects the
/// first exception of a tile.
class QUERN_API RunWorkers final : public Workers {
public:
    RunWorkers(ThreadPool* pool, Executor* executor) : pool_(pool), executor_(executor) {}
    int width() const noexcept override { return executor_ ? executor_->width() : pool_ ? pool_->width() : 1; }
    void run(std::int64_t n, Tile tile, void* context) override;

private:
    ThreadPool* pool_;
    Executor* executor_;
};

QUERN_END
