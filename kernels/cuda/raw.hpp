// The type by which a number of bytes moves at once; for simt.hpp and the emulator.
#pragma once
#include <vector_types.h>

#include <type_traits>

#include <quern/version.hpp>

QUERN_BEGIN
namespace simt {

template <int Bytes>
using Raw = std::conditional_t<
    Bytes == 1, unsigned char,
    std::conditional_t<Bytes == 2, unsigned short,
                       std::conditional_t<Bytes == 4, unsigned,
                                          std::conditional_t<Bytes == 8, uint2, std::conditional_t<Bytes == 16, uint4, void>>>>>;

}  // namespace simt
QUERN_END
