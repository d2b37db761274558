// Where memory and kernels can be.
#pragma once
#include <cstdint>

#include "version.hpp"

QUERN_BEGIN

enum class Device : std::uint8_t { cpu = 0, cuda = 1 };

QUERN_END
