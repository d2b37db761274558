// Element-wise chains on CUDA: a small program that one ahead-of-time kernel executes over vectors.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/kernels/elementwise/problem.hpp>

QUERN_BEGIN
namespace ew {

struct ProgramOperand {
    const void* data = nullptr;
    DType type = DType::f32;
    std::int64_t strides[max_program_rank] = {};  ///< elements, of the output's dims, innermost first; 0: repeated
};
/// out (dense, dims innermost first) = the program's accumulator as `type`. The operands' data may be out itself where
/// the strides are the output's; otherwise no overlap. Fewer than 2^31 elements in each. Tolerance, f32 functions: 4
/// ULP of CUDA's libm tables, gelu 2e-7 * (1 + |x|). Enqueues one kernel (none for no elements). Returns
/// cudaErrorInvalidValue for what the limits above do not allow.
cudaError_t cuda_run_program(const Program&, const ProgramOperand* in, void* out, DType type, int rank,
                             const std::int64_t* dims, cudaStream_t stream);

}  // namespace ew
QUERN_END
