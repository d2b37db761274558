// Element-wise chains on CUDA: a small program that one ahead-of-time kernel executes over vectors.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/dtype.hpp>
#include <quern/kernels/elementwise/functions.hpp>

QUERN_BEGIN
namespace ew {

inline constexpr int max_program_inputs = 8, max_program_steps = 24, max_program_temps = 4, max_program_rank = 6;

/// What a step does with the accumulator `a`. An operand is an input, a temporary or the step's constant.
enum class Code : std::uint8_t {
    load,      ///< a = operand
    keep,      ///< temporary = a
    unary,     ///< a = f(a)
    binary,    ///< a = f(a, operand)
    reversed,  ///< a = f(operand, a)
    select,    ///< a = a != 0 ? operand : other
    to_whole,  ///< a = a as an integer: towards zero, saturated to 32 or (alpha != 0) 64 bits, NaN as 0
    to_real,   ///< a = a as a float
};
struct Step {
    Code code = Code::load;
    std::uint8_t function = 0;             ///< UnaryOp or BinaryOp
    std::uint8_t operand = 0, other = 0;   ///< 0..7: input; first_temp + k: temporary; constant_operand
    bool whole = false;                    ///< the accumulator is an integer (before to_whole: after it)
    float alpha = 0, beta = 0, gamma = 0;  ///< parameters of unary functions; alpha: the real constant
    std::int64_t constant = 0;             ///< the integer constant
};
inline constexpr std::uint8_t first_temp = 8, constant_operand = 255;

/// Real steps compute in f32, integer ones in 64 bits; a store to a narrower integer keeps the low bits.
struct Program {
    int steps = 0, inputs = 0, temps = 0;
    Step step[max_program_steps];
    void add(const Step& s) { step[steps++] = s; }
};
/// Storage: f16, bf16, f32, bool and integers of 8 to 64 bits (u64 moves, but has no arithmetic of its own).
bool storable(DType) noexcept;
/// Whether the kernel has the function in f32 (`whole`: in integers).
bool has_unary(UnaryOp, bool whole) noexcept;
bool has_binary(BinaryOp, bool whole) noexcept;

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
