// Resizing on a device: what the operator asks for.
#pragma once
#include <vector>

#include <quern/kernels/resize/resize.hpp>

QUERN_BEGIN
namespace resize {

/// in[0] -> out[0]; the sizes are out[0]'s. `scales` (for each of spec.axes) where the model gives them.
struct Problem {
    Spec spec;
    DType dtype = DType::f32;
    int rank = 0;
    std::vector<float> scales;
    bool ready = true;  ///< sizes, or scales that are known when planning
};

}  // namespace resize
QUERN_END
