// Large blocks of memory straight from the system.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "../version.hpp"

QUERN_BEGIN

/// Zeroed memory in whole pages, given back to the system when it ends. Pages cost nothing before they are touched. What is touched at
/// once asks for huge pages, which are touched 512 times less often; what is touched bit by bit should not: where the system is slow to
/// find one, a huge page costs milliseconds in a single step.
class QUERN_API Pages {
public:
    static constexpr std::size_t huge_from = std::size_t{4} << 20;
    Pages() = default;
    /// At least `bytes`, to be touched at once; data() is null where there is no memory or bytes is 0.
    explicit Pages(std::size_t bytes) noexcept : Pages(bytes, bytes) {}
    /// The same where only the first `at_once` are touched soon.
    Pages(std::size_t bytes, std::size_t at_once) noexcept;
    Pages(Pages&& o) noexcept : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)), alike_(std::exchange(o.alike_, 0)) {}
    Pages& operator=(Pages&& o) noexcept {
        if (this != &o) {
            release();
            data_ = std::exchange(o.data_, nullptr);
            size_ = std::exchange(o.size_, 0);
            alike_ = std::exchange(o.alike_, 0);
        }
        return *this;
    }
    ~Pages() { release(); }
    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    void release() noexcept;
    /// Room for at least `bytes`, larger than now; pages that were touched stay with it as far as the system can move them, so that nothing
    /// is faulted in twice. The address changes, the contents are lost. False where there is no memory: nothing changed then.
    bool grow(std::size_t bytes) noexcept;
    /// The whole pages from `from` on are not needed any more: they leave memory, and are zeros again where the system does so.
    void drop(std::size_t from) noexcept;
    /// Bytes [from, to) will be touched at once.
    void expect(std::size_t from, std::size_t to) noexcept;
    /// The bytes from `from` on come as small pages.
    void expect_small(std::size_t from) noexcept;
    /// Brings bytes [from, to) into memory, as zeros or what they are: by huge pages as long as `patience`, nanoseconds that they may take
    /// beyond small ones, which are subtracted, is enough for one more like the last (one that a virtual machine's host took back takes some 4 ms, one at hand 0.1, the same in
    /// small ones 0.7); then, like all that follows, by small ones. False where patience ended. With `small` the bytes are
    /// expect_small()'s. Nothing where the system cannot.
    bool touch(std::size_t from, std::size_t to, bool small, std::atomic<std::int64_t>& patience) noexcept;
    /// The same for what will be touched one by one: huge pages come as long as `patience` lasts, and where it ends the others will be small ones.
    void prepare(std::size_t from, std::size_t to, std::int64_t patience) noexcept;

private:
    bool touch_huge(std::size_t& from, std::size_t to, std::atomic<std::int64_t>& patience) noexcept;
    static constexpr std::size_t huge = std::size_t{2} << 20;
    static constexpr std::int64_t small_takes = 700'000;  ///< nanoseconds for as many bytes
    std::byte* data_ = nullptr;  ///< aligned to 4096 at least
    std::size_t size_ = 0;
    std::size_t alike_ = 0;  ///< so many bytes got the same advice: as one mapping, all that Linux before 6.17 moves at once
};

QUERN_END
