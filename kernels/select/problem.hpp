// Selection on a device: what kernels are chosen for.
#pragma once
#include <cstdint>

#include <quern/dtype.hpp>

QUERN_BEGIN
namespace selection {

/// TopK as select.hpp has it: in[0], in[1] = k (read when planning); out[0] values, out[1] positions, in order.
struct Problem {
    DType dtype = DType::f32;
    int axis = 0;
    bool largest = true;
    std::int64_t k = -1;  ///< -1: not known when planning
};

}  // namespace selection
QUERN_END
