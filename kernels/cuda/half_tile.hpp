// One block's tile of a product of f16 or bf16 by tensor cores: operands come through shared memory by asynchronous copies, several
// stages ahead, fragments are read one step of 16 ahead of the products.
#pragma once
#include <cuda_runtime_api.h>

#include <quern/kernels/cuda/simt.hpp>

QUERN_BEGIN
namespace cuda {

/// Bytes of shared memory that a processor of the calling thread's device has; a block takes shared_of_block of them beside its own.
inline std::size_t shared_of_processor() {
    int device = 0, bytes = 0;
    if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device) != cudaSuccess) return 0;
    return static_cast<std::size_t>(bytes);
}
constexpr std::size_t shared_of_block = 1024;

/// WM x WN: what a warp computes, in pieces of 16 x 8. Blocks: how many share a processor, which limits registers.
template <int BM_, int BN_, int BK_, int WM_, int WN_, int Stages_, int Blocks_>
struct HalfShape {
    static constexpr int BM = BM_, BN = BN_, BK = BK_, WM = WM_, WN = WN_, stages = Stages_, blocks = Blocks_;
    static constexpr int warps_n = BN / WN, threads = 32 * (BM / WM) * warps_n, MT = WM / 16, NT = WN / 8, depth = BK / 16;
    static constexpr int size_a = BM * BK, size_b = BN * BK;  ///< elements of one stage
    static constexpr std::size_t bytes = sizeof(std::uint16_t) * stages * (size_a + size_b);
    static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && (WN & (WN - 1)) == 0 && depth % 2 == 0 && stages >= 2);
};

/// Where chunk `c` (8 elements) of row `r` lies: chunks change places within a row, so that 8 rows of a chunk are in 32 banks.
template <int Width>
__device__ __forceinline__ int place(int r, int c) {
    static_assert(Width == 32 || Width % 64 == 0);
    return r * Width + (c ^ (Width == 32 ? r >> 1 & 3 : r & 7)) * 8;
}

/// What a thread brings of one operand: Rows x Width elements a stage, zeros beyond the matrix. Along: the summed dimension is
/// the contiguous one.
template <class T, int Threads, int Rows, int Width, bool Along>
struct HalfSide {
    static constexpr int step = Threads * 8 / Width, each = Rows / step;
    static_assert(Rows % step == 0 && step % 8 == 0 && each <= 32);
    const T* at;
    std::int64_t row_step, piece_step;
    int first, offset;  // place of the first chunk: in the summed dimension, in the stage
    unsigned inside;    // Along: bit j: row j of this thread is one of the matrix; else 0 or all

    /// From `from` on there are `count` rows or columns of the dimension that is not summed.
    __device__ __forceinline__ HalfSide(const T* from, std::int64_t ld, std::int64_t count) {
        const int r = threadIdx.x / (Width / 8), c = threadIdx.x % (Width / 8);
        at = from + r * ld + c * 8;
        row_step = step * ld;
        piece_step = Along ? Width : Rows * ld;
        first = Along ? c * 8 : r;
        offset = place<Width>(r, c);
        inside = 0;
        if constexpr (Along) {
#pragma unroll
            for (int j = 0; j < each; ++j) inside |= (r + j * step < count ? 1u : 0u) << j;
        } else if (c * 8 < count) {
            inside = ~0u;
        }
    }
    /// The next piece, of which `left` of the summed dimension are there.
    __device__ __forceinline__ void copy(T* to, int left) {
        const T* from = at;
#pragma unroll
        for (int j = 0; j < each; ++j) {
            const bool there = (inside >> j & 1u) && first + (Along ? 0 : j * step) < left;
            simt::cp_async<16>(to + offset + j * step * Width, from, there);
            from += row_step;
        }
        at += piece_step;
    }
};

/// The fragments of a step of 16 that a warp multiplies.
template <class S>
struct HalfFragments {
    unsigned a[S::MT][4], b[S::NT / 2][4];
};
/// `a`, `b`: this lane's row of the warp's first 16, chunk lane / 16, as place() has it; the pieces of the stage.
template <class S, bool AlongB, class T>
__device__ __forceinline__ void read_fragments(HalfFragments<S>& f, const T* sa, const T* sb, int a, int b, int k) {
#pragma unroll
    for (int i = 0; i < S::MT; ++i) simt::ldmatrix_x4<false>(f.a[i], sa + (a ^ k * 16) + i * 16 * S::BK);
#pragma unroll
    for (int j = 0; j < S::NT / 2; ++j) {
        if constexpr (AlongB) simt::ldmatrix_x4<false>(f.b[j], sb + (b ^ k * 16) + j * 16 * S::BK);
        else simt::ldmatrix_x4<true>(f.b[j], sb + (b ^ j * 16) + k * 16 * S::BN);
    }
}
template <class S, bool AlongB, class T>
__device__ __forceinline__ void multiply_fragments(const HalfFragments<S>& f, float (&acc)[S::MT][S::NT][4]) {
    // Transposed rows come as (first 8 columns, second 8) of the first half of k, then of the second.
    constexpr int second = AlongB ? 2 : 1;
#pragma unroll
    for (int i = 0; i < S::MT; ++i)
#pragma unroll
        for (int n = 0; n < S::NT / 2; ++n) {
            const int j = i % 2 ? S::NT / 2 - 1 - n : n;  // there and back: neighbours share a register
            simt::mma_m16n8k16<T>(acc[i][2 * j], f.a[i], f.b[j][0], f.b[j][second]);
            simt::mma_m16n8k16<T>(acc[i][2 * j + 1], f.a[i], f.b[j][3 - second], f.b[j][3]);
        }
}

/// acc += the products over `k` of the block's rows of A and columns of B. A side has copy(T* stage, int left), which all threads call for one
/// piece of BK after the other: BM x BK elements (B: AlongB: BN x BK, else BK x BN) at their place(), zeros beyond `left` of the summed
/// dimension, by cp_async. All threads of the block call this; T is __half or __nv_bfloat16.
template <class T, class S, bool AlongB, class A, class B>
__device__ __forceinline__ void multiply_half_tile(A& side_a, B& side_b, int k, float (&acc)[S::MT][S::NT][4]) {
    T* sa = simt::dynamic_smem<T>();
    T* sb = sa + S::stages * S::size_a;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wm = warp / S::warps_n * S::WM, wn = warp % S::warps_n * S::WN;
    const int pa = place<S::BK>(wm + lane % 16, lane / 16);
    const int pb = AlongB ? place<S::BK>(wn + lane % 16, lane / 16) : place<S::BN>(lane % 16, wn / 8 + lane / 16);
    const int steps = (k + S::BK - 1) / S::BK;
    int left = k;  // of what is still to be copied
    const auto copy = [&](int slot) {
        if (left > 0) {
            side_a.copy(sa + slot * S::size_a, left);
            side_b.copy(sb + slot * S::size_b, left);
        }
        left -= S::BK;
        simt::cp_async_commit();
    };
    __syncthreads();  // a tile before has been read
#pragma unroll
    for (int s = 0; s < S::stages - 1; ++s) copy(s);
    simt::cp_async_wait<S::stages - 2>();
    __syncthreads();
    HalfFragments<S> f[2];
    int slot = 0, into = S::stages - 1;
    if (steps > 0) read_fragments<S, AlongB>(f[0], sa, sb, pa, pb, 0);
#pragma unroll 1
    for (int s = 0; s < steps; ++s) {
        const int next = slot + 1 == S::stages ? 0 : slot + 1;
#pragma unroll
        for (int q = 0; q < S::depth; ++q) {
            if (q + 1 < S::depth) {
                read_fragments<S, AlongB>(f[(q + 1) % 2], sa + slot * S::size_a, sb + slot * S::size_b, pa, pb, q + 1);
            } else {
                simt::cp_async_wait<S::stages - 2>();
                __syncthreads();  // the next piece is there for all, and all have read this one
                if (s + 1 < steps) read_fragments<S, AlongB>(f[(q + 1) % 2], sa + next * S::size_a, sb + next * S::size_b, pa, pb, 0);
            }
            if (q == 0) copy(into);
            multiply_fragments<S, AlongB, T>(f[q % 2], acc);
        }
        slot = next;
        into = into + 1 == S::stages ? 0 : into + 1;
    }
    simt::cp_async_wait<0>();
}

}  // namespace cuda
QUERN_END
