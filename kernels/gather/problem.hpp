// Gathering and scattering on a device: what the operators ask for.
#pragma once
#include <cstdint>

#include <quern/dtype.hpp>

QUERN_BEGIN
namespace gather {

/// Inputs and outputs as ONNX's Gather, GatherElements, GatherND and ScatterND (without reduction) have them.
struct Problem {
    enum class Kind : std::uint8_t { rows, elements, tuples, scatter_tuples };
    Kind kind = Kind::rows;
    DType dtype = DType::f32, index = DType::i64;
    int axis = 0;   ///< rows, elements; tuples: number of batch dims
    int rank = 0;   ///< of the data
};

}  // namespace gather
QUERN_END
