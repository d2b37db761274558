// Movement on a device: what the operators ask for.
#pragma once
#include <vector>

#include <quern/kernels/pad/pad.hpp>
#include <quern/tensor.hpp>

QUERN_BEGIN
namespace movement {

/// Inputs and outputs as the kernels of the same names in slice.hpp, pad.hpp, concat.hpp and transpose.hpp have them;
/// expand and tile repeat in[0] to out[0]'s shape, fill repeats `value`, copy takes in[0] as it is.
struct Problem {
    enum class Kind : std::uint8_t { copy, transpose, slice, concat, split, expand, tile, pad, fill, shuffle };
    Kind kind = Kind::copy;
    DType dtype = DType::f32;
    int rank = 0;                 ///< of the larger side
    int axis = 0;                 ///< concat, split
    std::vector<int> perm;        ///< transpose
    PadMode mode = PadMode::constant;
    Tensor value;                 ///< fill
    std::int64_t block = 1;       ///< shuffle
    bool crd = false, to_space = false;
    bool all_outputs = true;      ///< split
};

}  // namespace movement
QUERN_END
