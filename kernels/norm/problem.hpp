// Normalizations of rows on a device: what the operators ask for.
#pragma once
#include <cstdint>

#include <quern/dtype.hpp>

QUERN_BEGIN
namespace norm {

/// in: X, scale, optional bias; out: Y, optional mean and 1 / deviation. `skip`: in: X, skip of X's shape, scale, optional bias; what is
/// normalized is X + skip, optional output 3.
struct Problem {
    DType dtype = DType::f32;
    bool rms = false;
    bool skip = false;
    bool grouped = false;        ///< rows are groups of channels of [N, C, d...]
    int axis = 0;                ///< else rows are the dimensions from here on
    std::int64_t groups = 0;     ///< 0: each channel is one
    bool by_group = false;       ///< parameters are for groups, not for channels
    float eps = 1e-5f;
    bool row_parameters = true;  ///< scale and bias are one row (not grouped)
    bool statistics_f32 = true;  ///< outputs 1 and 2, where they are there, are f32
};

}  // namespace norm
QUERN_END
