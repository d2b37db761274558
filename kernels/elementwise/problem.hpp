// Element-wise programs: what a device runs chains of element-wise nodes (or one of them) as.
#pragma once
#include <cstdint>
#include <vector>

#include <quern/dtype.hpp>
#include <quern/kernels/elementwise/functions.hpp>

QUERN_BEGIN
namespace ew {

inline constexpr int max_program_inputs = 8, max_program_steps = 24, max_program_temps = 4, max_program_rank = 8;

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
constexpr bool storable(DType t) noexcept {
    switch (t) {
        case DType::f32: case DType::f16: case DType::bf16: case DType::boolean: case DType::u8: case DType::i8:
        case DType::u16: case DType::i16: case DType::u32: case DType::i32: case DType::i64: case DType::u64: return true;
        default: return false;
    }
}
/// Whether programs have the function in f32 (`whole`: in integers).
constexpr bool has_unary(UnaryOp op, bool whole) noexcept {
    if (!whole) return op != UnaryOp::bit_not && op != UnaryOp::count;
    return op == UnaryOp::abs || op == UnaryOp::neg || op == UnaryOp::sign || op == UnaryOp::relu ||
           op == UnaryOp::logical_not || op == UnaryOp::bit_not;
}
constexpr bool has_binary(BinaryOp op, bool whole) noexcept {
    if (op == BinaryOp::shift_left || op == BinaryOp::shift_right || op == BinaryOp::count) return false;
    if (whole) return op != BinaryOp::pow;
    return op != BinaryOp::bit_and && op != BinaryOp::bit_or && op != BinaryOp::bit_xor;
}

/// out[0] = the program's accumulator over the node's inputs, each broadcast to out[0]'s shape.
struct Problem {
    Program program;
    int rank = 0;                    ///< of out[0]
    DType out = DType::f32;
    std::vector<DType> types;        ///< of the program's inputs
    std::vector<int> inputs;         ///< of the program's inputs: which input of the node, in rising order
    std::vector<int> shift;          ///< of the program's inputs: trailing dims of the output that it lacks (empty: none)
    std::uint32_t unread = 0;        ///< inputs of the node that the program has as constants
};

}  // namespace ew
QUERN_END
