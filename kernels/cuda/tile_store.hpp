// From the fragments of mma to rows of memory.
#pragma once
#include <quern/kernels/cuda/simt.hpp>

QUERN_BEGIN
namespace cuda {

/// Bytes of dynamic shared memory that each_four() uses.
template <class S>
constexpr std::size_t each_four_bytes() {
    return sizeof(float) * 16 * (S::WN + 8) * S::threads / 32;
}
/// The column of the tile from which on this lane gets four.
template <class S>
__device__ __forceinline__ int column_of_four() {
    return threadIdx.x / 32 % S::warps_n * S::WN + threadIdx.x % (S::WN / 4) * 4;
}
/// f(row, v) for each four neighbours of a row of the block's tile, of which each warp has WM x WN in fragments of 16 x 8: neighbouring
/// lanes get neighbours of a row. Goes through dynamic shared memory that nobody uses any more; all threads of the block call it.
template <class S, class F>
__device__ __forceinline__ void each_four(const float (&acc)[S::MT][S::NT][4], F&& f) {
    constexpr int pitch = S::WN + 8, lanes = S::WN / 4, rows = 32 / lanes;
    static_assert(lanes <= 32 && 32 % lanes == 0);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* s = simt::dynamic_smem<float>() + warp * (16 * pitch);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < S::MT; ++i) {
        __syncwarp();
#pragma unroll
        for (int j = 0; j < S::NT; ++j)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float v[2] = {acc[i][j][2 * h], acc[i][j][2 * h + 1]};
                simt::store_pack(s + (lane / 4 + 8 * h) * pitch + j * 8 + lane % 4 * 2, v);
            }
        __syncwarp();
#pragma unroll 1
        for (int q = lane / lanes; q < 16; q += rows) {
            float v[4];
            simt::load_pack(s + q * pitch + lane % lanes * 4, v);
            f(warp / S::warps_n * S::WM + i * 16 + q, v);
        }
    }
}
/// The first `left` of four, by one access where their place allows.
template <class E>
__device__ __forceinline__ void store_four(E* to, const E (&v)[4], int left) {
    if (left >= 4 && reinterpret_cast<std::uintptr_t>(to) % sizeof v == 0) {
        simt::store_pack(to, v);
    } else {
#pragma unroll
        for (int w = 0; w < 4; ++w)
            if (w < left) to[w] = v[w];
    }
}

}  // namespace cuda
QUERN_END
