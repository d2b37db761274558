// Attention of f32 on CUDA; the matrix of scores is never written.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/version.hpp>

QUERN_BEGIN
namespace attention {

inline constexpr int max_attention_lead = 6;

/// An addend of the scores (f32), or what leaves some (bytes, `boolean`: 0 closes). `length`: keys from there on are
/// closed.
struct CudaMask {
    const void* data = nullptr;  ///< null: none
    bool boolean = false;
    std::int64_t query = 0, key = 0, length = INT64_MAX, lead[max_attention_lead] = {};
};
/// y = softmax(cap(scale q k^T) + masks) v for each leading index (batch, head, ...), all of which q and y have, while
/// k, v and masks may have a stride of 0. Position i of the queries is position past + i of the keys, of which
/// `causal`, left and right windows (-1: none) leave some. Distances in elements; rows of q, k (d), v and y (dv) are
/// contiguous; d and dv are at most 128. A query without any key gives zeros, one whose scores are all -inf gives zeros
/// if `closed_is_zero`, else NaN. Tolerance: 4e-6 * max |v| for scores within 80 of each other.
struct CudaAttention {
    const float *q = nullptr, *k = nullptr, *v = nullptr;
    float* y = nullptr;
    std::int64_t queries = 0, keys = 0, d = 0, dv = 0, q_row = 0, k_row = 0, v_row = 0, y_row = 0;
    int lead_rank = 0;  ///< outermost first
    std::int64_t lead[max_attention_lead] = {}, q_lead[max_attention_lead] = {}, k_lead[max_attention_lead] = {},
                 v_lead[max_attention_lead] = {}, y_lead[max_attention_lead] = {};
    CudaMask mask[2];
    std::int64_t past = 0, left = -1, right = -1;
    bool causal = false, closed_is_zero = true;
    float scale = 1, softcap = 0;
};
/// Enqueues one kernel (none for no queries). cudaErrorInvalidValue for sizes beyond the limits.
cudaError_t cuda_attention(const CudaAttention&, cudaStream_t);

}  // namespace attention
QUERN_END
