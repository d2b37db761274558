// Concrete shapes: a short list of dimensions.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "error.hpp"

QUERN_BEGIN

/// Dimensions of a tensor, outermost first. Up to 8 are stored in place (no allocation).
class QUERN_API Shape {
public:
    Shape() = default;
    Shape(std::initializer_list<std::int64_t> d) { assign(d.begin(), d.size()); }
    explicit Shape(std::span<const std::int64_t> d) { assign(d.data(), d.size()); }
    std::size_t rank() const noexcept { return rank_; }
    std::size_t size() const noexcept { return rank_; }
    const std::int64_t* data() const noexcept { return rank_ <= inline_rank ? small_.data() : large_.data(); }
    std::int64_t* data() noexcept { return rank_ <= inline_rank ? small_.data() : large_.data(); }
    std::int64_t operator[](std::size_t i) const noexcept { return data()[i]; }
    std::int64_t& operator[](std::size_t i) noexcept { return data()[i]; }
    const std::int64_t* begin() const noexcept { return data(); }
    const std::int64_t* end() const noexcept { return data() + rank_; }
    operator std::span<const std::int64_t>() const noexcept { return {data(), rank_}; }
    void push_back(std::int64_t d);
    void assign(const std::int64_t* d, std::size_t n);
    /// Product of the dimensions (1 for a scalar). Saturates at INT64_MAX instead of overflowing.
    std::int64_t count() const noexcept;
    std::string to_string() const;  ///< "[1, 3, 224, 224]"
    friend bool operator==(const Shape& a, const Shape& b) noexcept {
        if (a.rank_ != b.rank_) return false;
        for (std::size_t i = 0; i < a.rank_; ++i)
            if (a[i] != b[i]) return false;
        return true;
    }

private:
    static constexpr std::size_t inline_rank = 8;
    std::size_t rank_ = 0;
    std::array<std::int64_t, inline_rank> small_{};
    std::vector<std::int64_t> large_;
};

QUERN_END
#if defined(QUERN_HEADER_ONLY)
#include "tensor/shape-inl.hpp"
#endif
