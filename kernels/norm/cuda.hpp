// Normalizations of rows on CUDA.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/dtype.hpp>

QUERN_BEGIN
namespace norm {

/// y = (x - mean) / sqrt(variance + eps) * scale + bias over rows of n, `rms`: x / sqrt(mean of squares + eps) * scale.
/// The parameter of element i of row r is at (r % groups) * per_group + i / inner: layer normalization has groups 1,
/// inner 1; group normalization has a row for each group of channels. Both parameters may be null, `mean` and `inverse`
/// (of each row) too. x may be y; `add` (null, or x's shape) is added to x first, and the sum goes to `sum` where that
/// is not null. f32, f16 or bf16, all but `mean` and `inverse`, which are f32; computed in f32. Tolerance: 2e-6 * (1 +
/// |y|) for |x - mean| within 1000 deviations, half types: that before y is rounded.
struct CudaRows {
    DType type = DType::f32;
    const void *x = nullptr, *add = nullptr, *scale = nullptr, *bias = nullptr;
    void *y = nullptr, *sum = nullptr;
    float *mean = nullptr, *inverse = nullptr;
    std::int64_t rows = 0, n = 0, groups = 1, per_group = 0, inner = 1;
    float eps = 1e-5f;
    bool rms = false;
};
/// Enqueues one kernel (none for no elements). cudaErrorInvalidValue for 2^31 elements or more and other types.
cudaError_t cuda_normalize_rows(const CudaRows&, cudaStream_t);

}  // namespace norm
QUERN_END
