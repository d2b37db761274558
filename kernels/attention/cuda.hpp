// Attention and rotary embedding on CUDA; the matrix of scores is never written.
#pragma once
#include <driver_types.h>

#include <cstdint>

#include <quern/dtype.hpp>

QUERN_BEGIN
namespace attention {

inline constexpr int max_attention_lead = 6;

/// An addend of the scores (f32, f16, bf16), or what leaves some (bool: false closes). `length`: keys from there on are
/// closed.
struct CudaMask {
    const void* data = nullptr;  ///< null: none
    DType type = DType::f32;
    std::int64_t query = 0, key = 0, length = INT64_MAX, lead[max_attention_lead] = {};
};
/// y = softmax(cap(scale q k^T) + masks) v for each leading index (batch, head, ...), all of which q and y have, while
/// k, v and masks may have a stride of 0. q, k, v and y are f32, f16 or bf16. Position i of the queries is position past
/// + i of the keys, of which `causal`, left and right windows (-1: none) leave some. Distances in elements; rows of q, k
/// (d), v and y (dv) are contiguous; d and dv are at most 128. A query without any key gives zeros, one whose scores are
/// all -inf gives zeros if `closed_is_zero`, else NaN. Tolerance: for scores within 80 of each other, f32: 4e-6 * max
/// |v|; half types compute in f32 and round exponentials and the result: 1.5e-3 (f16), 1e-2 (bf16) * max |v|.
struct CudaAttention {
    DType type = DType::f32;
    const void *q = nullptr, *k = nullptr, *v = nullptr;
    void* y = nullptr;
    std::int64_t queries = 0, keys = 0, d = 0, dv = 0, q_row = 0, k_row = 0, v_row = 0, y_row = 0;
    int lead_rank = 0;  ///< outermost first
    std::int64_t lead[max_attention_lead] = {}, q_lead[max_attention_lead] = {}, k_lead[max_attention_lead] = {},
                 v_lead[max_attention_lead] = {}, y_lead[max_attention_lead] = {};
    CudaMask mask[2];
    std::int64_t past = 0, left = -1, right = -1;
    bool causal = false, closed_is_zero = true;
    float scale = 1, softcap = 0;
};
/// Enqueues one kernel (none for no queries). cudaErrorInvalidValue for sizes beyond the limits and other types.
cudaError_t cuda_attention(const CudaAttention&, cudaStream_t);

/// Rotary position embedding (https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html) of x [batch, heads, length, d] if
/// `heads_first`, else [batch, length, heads, d], dense, or where `x_at` and `y_at` say; y as x and may be x. The first 2 * half values of a head turn by the
/// angles in row p of cosine and sine [positions, half]: p = ids[b, s], or b * length + s where ids is null. Pairs are
/// neighbours if `interleaved`, else halves. An id outside of the table gives zeros (an error cannot be raised from the
/// device). f32, f16 or bf16, all but ids; computed in f32. Tolerance, f32: 2e-7 * (|a| + |b|).
struct CudaRotary {
    /// Distances in elements between batches, heads and positions; all 0: dense.
    struct Place { std::int64_t batch = 0, head = 0, row = 0; };
    DType type = DType::f32;
    const void *x = nullptr, *cosine = nullptr, *sine = nullptr;
    const std::int64_t* ids = nullptr;
    void* y = nullptr;
    std::int64_t batch = 0, heads = 0, length = 0, d = 0, half = 0, positions = 0;
    bool heads_first = true, interleaved = false;
    Place x_at, y_at;
};
/// Enqueues one kernel (none for no elements). cudaErrorInvalidValue for 2^31 elements or more, half > d / 2 and other types.
cudaError_t cuda_rotary(const CudaRotary&, cudaStream_t);

}  // namespace attention
QUERN_END
