// Division of sizes that rounds up.
#pragma once
#include <cstdint>

#include "../version.hpp"

QUERN_BEGIN

/// a / b rounded up; a >= 0, b > 0, a + b below 2^63.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

QUERN_END
