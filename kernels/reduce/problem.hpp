// Reductions on a device: what the operators ask for.
#pragma once
#include <cstdint>
#include <vector>

#include <quern/dtype.hpp>

QUERN_BEGIN
namespace reduce {

/// out[0] = in[0] reduced over `axes`. in[1], the axes, is not read.
struct Problem {
    enum class Kind : std::uint8_t { sum, mean, max, min, prod, l1, l2, log_sum, log_sum_exp, sum_square, arg_max, arg_min };
    Kind kind = Kind::sum;
    DType dtype = DType::f32;
    int rank = 0;
    std::vector<int> axes;       ///< rising
    bool axes_known = true;      ///< when planning
    bool last = false;           ///< arg_max, arg_min: of equal ones
};

}  // namespace reduce
QUERN_END
