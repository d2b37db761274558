// Attention of f32 on CUDA; the matrix of scores is never written.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace attention {

enum class CudaMask : std::uint8_t { none, boolean, f32 };

/// y = softmax(cap(scale q k^T) + mask) v for each batch item and head, as attention.hpp has it: `heads` is a multiple
/// of kv_heads; position i of the queries is position past + i of the keys, of which `causal`, left and right windows
/// (-1: none) leave some. Distances in elements; the last dimension is contiguous everywhere. d and dv are at most 128.
/// A mask ends at `mask_length` keys. A query without any key gives zeros. Tolerance: 4e-6 * (1 + max |v|) for scores
/// within 80 of each other.
struct CudaAttention {
    const float *q = nullptr, *k = nullptr, *v = nullptr;
    const void* mask = nullptr;
    float* y = nullptr;
    std::int64_t batch = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0, d = 0, dv = 0;
    std::int64_t q_batch = 0, q_head = 0, q_row = 0, k_batch = 0, k_head = 0, k_row = 0, v_batch = 0, v_head = 0,
                 v_row = 0, y_batch = 0, y_head = 0, y_row = 0, mask_batch = 0, mask_head = 0, mask_row = 0,
                 mask_length = 0;
    CudaMask mask_kind = CudaMask::none;
    std::int64_t past = 0, left = -1, right = -1;
    bool causal = false;
    float scale = 1, softcap = 0;
};
/// Enqueues one kernel (none for no queries). cudaErrorInvalidValue for sizes beyond the limits.
cudaError_t cuda_attention(const CudaAttention&, cudaStream_t);

}  // namespace attention
QUERN_END
