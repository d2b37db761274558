// Workers for tests of kernels: the calling thread alone, or threads made for each call.
#pragma once
#include <atomic>
#include <thread>
#include <vector>

#include <quern/kernels/kernel.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor.hpp>

namespace quern_test {

class SerialWorkers final : public quern::Workers {
public:
    int width() const noexcept override { return 1; }
    void run(std::int64_t n, Tile tile, void* context) override {
        for (std::int64_t i = 0; i < n; ++i) tile(context, i, 0);
    }
};
/// `width` threads that take tiles from one counter.
class ThreadedWorkers final : public quern::Workers {
public:
    explicit ThreadedWorkers(int width) : width_(width) {}
    int width() const noexcept override { return width_; }
    void run(std::int64_t n, Tile tile, void* context) override {
        std::atomic<std::int64_t> next{0};
        auto take = [&](int worker) {
            for (std::int64_t i; (i = next.fetch_add(1)) < n;) tile(context, i, worker);
        };
        std::vector<std::thread> threads;
        for (int w = 1; w < width_; ++w) threads.emplace_back(take, w);
        take(0);
        for (std::thread& t : threads) t.join();
    }

private:
    int width_;
};

}  // namespace quern_test
