// How the threads of a block walk over one operand of a product.
#pragma once
#include <quern/kernels/cuda/simt.hpp>

QUERN_BEGIN
namespace cuda {

/// The places of BX rows of a matrix from `origin` on that this thread brings, W neighbours each, S::BK of the summed dimension at a
/// time, of which `along` is the contiguous one. W = 4: leading dimension, size of the contiguous dimension and address are
/// multiples of it. Beyond `size` and `k_end` nothing may be read.
template <class S, int BX, bool Along, int W>
struct SideWalk {
    static constexpr int total = BX * S::BK / W, each = (total + S::threads - 1) / S::threads;
    const float* at[each];
    std::int64_t step;
    int k[each], k_end;
    bool inside[each];

    __device__ __forceinline__ static int place_k(int i) { return Along ? i % (S::BK / W) * W : i / (BX / W); }
    __device__ __forceinline__ static int place_x(int i) { return Along ? i / (S::BK / W) : i % (BX / W) * W; }
    __device__ __forceinline__ SideWalk(const float* p, std::int64_t ld, int origin, int size, int k_begin, int end) {
        k_end = end;
        step = Along ? S::BK : S::BK * ld;
#pragma unroll
        for (int j = 0; j < each; ++j) {
            const int i = threadIdx.x + j * S::threads, x = origin + place_x(i);
            k[j] = k_begin + place_k(i);
            inside[j] = i < total && x < size;
            at[j] = p + (Along ? x * ld + k[j] : k[j] * ld + x);
        }
    }
    __device__ __forceinline__ bool valid(int j) const { return inside[j] && k[j] < k_end; }
    __device__ __forceinline__ void advance(int j) {
        k[j] += S::BK;
        at[j] += step;
    }
    /// Of place j; -1: there is none.
    __device__ __forceinline__ static int number(int j) {
        const int i = threadIdx.x + j * S::threads;
        return total % S::threads && i >= total ? -1 : i;
    }
};

}  // namespace cuda
QUERN_END
