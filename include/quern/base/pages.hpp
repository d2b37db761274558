// Large blocks of memory straight from the system.
#pragma once
#include <cstddef>
#include <utility>

#include "../version.hpp"

QUERN_BEGIN

/// Zeroed memory in whole pages, given back to the system when it ends. Pages cost nothing before they are touched; blocks of
/// `huge_from` bytes or more ask for huge pages, which are touched 512 times less often.
class QUERN_API Pages {
public:
    static constexpr std::size_t huge_from = std::size_t{4} << 20;
    Pages() = default;
    /// At least `bytes`; data() is null where there is no memory or bytes is 0.
    explicit Pages(std::size_t bytes) noexcept;
    Pages(Pages&& o) noexcept : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
    Pages& operator=(Pages&& o) noexcept {
        if (this != &o) {
            release();
            data_ = std::exchange(o.data_, nullptr);
            size_ = std::exchange(o.size_, 0);
        }
        return *this;
    }
    ~Pages() { release(); }
    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    void release() noexcept;

private:
    std::byte* data_ = nullptr;  ///< aligned to 4096 at least
    std::size_t size_ = 0;
};

QUERN_END
