// How the threads of a block walk over one operand of a product.
#pragma once
#include <quern/kernels/cuda/simt.hpp>

QUERN_BEGIN
namespace cuda {

/// The places of BX rows of a matrix from `origin` on that this thread brings, W neighbours each, S::BK of the summed dimension at a
/// time, of which `along` is the contiguous one. W = 4: leading dimension, size of the contiguous dimension and address are
/// multiples of it. Beyond `size` and `k_end` nothing may be read. A thread's places lie below each other, so that one address and
/// one distance name them all.
template <class S, int BX, bool Along, int W>
struct SideWalk {
    static constexpr int total = BX * S::BK / W, each = (total + S::threads - 1) / S::threads;
    static constexpr int width = Along ? S::BK / W : BX / W, apart = S::threads / width;  // places of a row of memory; rows between a thread's
    static_assert(S::threads % width == 0 && each <= 32);
    const float* at;
    std::int64_t row, step;
    int left;         // of the summed dimension, from the first place on
    unsigned inside;  // bit j: place j is one of the other dimension

    __device__ __forceinline__ static int place_k(int i) { return Along ? i % width * W : i / width; }
    __device__ __forceinline__ static int place_x(int i) { return Along ? i / width : i % width * W; }
    __device__ __forceinline__ SideWalk(const float* p, std::int64_t ld, int origin, int size, int k_begin, int end) {
        const int first = threadIdx.x, x = origin + place_x(first), k = k_begin + place_k(first);
        at = p + (Along ? x * ld + k : k * ld + x);
        row = apart * ld;
        step = Along ? S::BK : S::BK * ld;
        left = end - k;
        inside = 0;
#pragma unroll
        for (int j = 0; j < each; ++j)
            inside |= (number(j) >= 0 && x + (Along ? j * apart : 0) < size ? 1u : 0u) << j;
    }
    /// f(j, address, whether it may be read) for each place, then on to the next S::BK.
    template <class F>
    __device__ __forceinline__ void walk(F&& f) {
        const float* from = at;
#pragma unroll
        for (int j = 0; j < each; ++j) {
            f(j, from, (inside >> j & 1u) && (Along ? 0 : j * apart) < left);
            from += row;
        }
        at += step;
        left -= S::BK;
    }
    /// Of place j; -1: there is none.
    __device__ __forceinline__ static int number(int j) {
        const int i = threadIdx.x + j * S::threads;
        return total % S::threads && i >= total ? -1 : i;
    }
};

}  // namespace cuda
QUERN_END
