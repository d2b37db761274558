// Numbers as integers of a narrower range, without the undefined behaviour of a cast that does not fit.
#pragma once
#include <limits>
#include <type_traits>
#include <utility>

#include "../version.hpp"

QUERN_BEGIN

/// `v` in T. Integers saturate and cut the fraction; NaN, of which they have none, becomes 0.
template <class T, class F> constexpr T saturated(F v) noexcept {
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
        constexpr T lowest = std::numeric_limits<T>::min(), highest = std::numeric_limits<T>::max();
        if constexpr (std::is_integral_v<F>) return std::cmp_less(v, lowest) ? lowest : std::cmp_greater(v, highest) ? highest : static_cast<T>(v);
        else return v != v ? T{0} : v <= static_cast<F>(lowest) ? lowest : v >= static_cast<F>(highest) ? highest : static_cast<T>(v);
    } else return static_cast<T>(v);
}

QUERN_END
