// Row softmax on CUDA: what cuda.cu exports.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/dtype.hpp>

QUERN_BEGIN
namespace softmax {

/// y = exp(x - max) / sum(exp(x - max)) over each row of a dense row-major [rows, cols] matrix in device memory, or its
/// logarithm; f32, f16 or bf16, computed in f32; domain and tolerance as in softmax.hpp, half types: that before y is
/// rounded. `in` and `out` are aligned to the element and are equal or do not overlap. Enqueues one kernel (none where
/// rows or cols is 0), allocates nothing, does not synchronize. Returns cudaErrorInvalidValue for negative sizes and other
/// types, else the launch's error.
cudaError_t cuda_rows(DType type, const void* in, void* out, std::int64_t rows, std::int64_t cols, bool log,
                      cudaStream_t stream);

}  // namespace softmax
QUERN_END
