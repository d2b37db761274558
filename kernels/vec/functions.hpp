// f32 functions that only element-wise kernels need, once per instruction set: beside vec::Table, which everything includes.
#pragma once
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace vec {

enum class Function : std::uint8_t {
    acos, acosh, asin, asinh, atan, atanh, tan, sinh, cosh,
    round, sign, softsign, elu, selu, celu, thresholded_relu, shrink, swish, count
};
/// As the ONNX operators name them; gamma: Selu; beta: Shrink's bias.
struct Parameters {
    float alpha = 0, beta = 0, gamma = 0;
};

/// As Table: pointers may be aligned to the element only; no function allocates, throws or keeps state.
struct FunctionTable {
    /// y[i] = f(x[i]) over the whole domain; y may be x. acos to cosh are computed in double and within 0.51 ULP; elu, selu and celu (alpha > 0)
    /// within 3 ULP, swish (alpha > 0) within 4 + |alpha * x| (0 where alpha * x < -87), softsign within 1.5, the others exact.
    void (*unary_f32[static_cast<int>(Function::count)])(const float* x, float* y, std::int64_t n, const Parameters&);
    /// z[i] = x[i * sx]^y[i * sy], steps 0 or 1, special values as C's pow; within 0.51 ULP. z may be x or y.
    void (*pow_f32)(const float* x, std::int64_t sx, const float* y, std::int64_t sy, float* z, std::int64_t n);
    /// z[i] = x[i] < 0 ? x[i] * y[i * sy] : x[i]; sy 0 or 1. z may be x or y.
    void (*prelu_f32)(const float* x, const float* y, std::int64_t sy, float* z, std::int64_t n);
    /// The first (last) place that holds v, or -1; any NaN where v is one.
    std::int64_t (*find_f32)(const float* x, std::int64_t n, float v, bool last);
};

/// The functions that go with table(cap).
QUERN_API const FunctionTable& function_table(Isa cap) noexcept;

}  // namespace vec
QUERN_END
