#pragma once
#include "../shape.hpp"

QUERN_BEGIN

QUERN_INLINE void Shape::push_back(std::int64_t d) {
    if (rank_ < inline_rank) { small_[rank_++] = d; return; }
    if (rank_ == inline_rank) large_.assign(small_.begin(), small_.end());
    large_.push_back(d);
    ++rank_;
}
QUERN_INLINE void Shape::assign(const std::int64_t* d, std::size_t n) {
    if (n > inline_rank) large_.assign(d, d + n);
    else for (std::size_t i = 0; i < n; ++i) small_[i] = d[i];
    rank_ = n;
}
QUERN_INLINE std::int64_t Shape::count() const noexcept {
    std::int64_t n = 1;
    for (std::int64_t d : *this)
        if (d == 0) return 0;
    for (std::int64_t d : *this)
        if (__builtin_mul_overflow(n, d, &n)) return INT64_MAX;
    return n;
}
QUERN_INLINE std::string Shape::to_string() const {
    std::string s = "[";
    for (std::size_t i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string((*this)[i]);
    return s + "]";
}

QUERN_END
