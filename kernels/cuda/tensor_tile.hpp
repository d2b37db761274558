// One block's tile of a product of f32 by tensor cores: operands come through shared memory by asynchronous copies,
// several stages ahead, and are split into parts of TF32 in registers.
#pragma once
#include <quern/kernels/cuda/side.hpp>

QUERN_BEGIN
namespace cuda {

/// WM x WN: what a warp computes, in pieces of 16 x 8. Parts: 1: operands rounded to TF32 (10 bits); 3: each is the sum
/// of two, and three products are taken: about as exact as f32. Blocks: how many share a processor, which limits registers.
template <int BM_, int BN_, int WM_, int WN_, int Parts_, int Stages_ = 3, int Blocks_ = 1>
struct TensorShape {
    static constexpr int BM = BM_, BN = BN_, BK = 16, WM = WM_, WN = WN_, Parts = Parts_, stages = Stages_, blocks = Blocks_;
    static constexpr int warps_n = BN / WN, threads = 32 * (BM / WM) * warps_n;
    static constexpr int MT = WM / 16, NT = WN / 8;
    static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && WN % 8 == 0);
    /// Floats of one stage of a side: rows of BK + 4 where the summed dimension is contiguous, else rows of BX + 8;
    /// either way the lanes of a fragment are in 32 banks.
    __host__ __device__ static constexpr int side(int bx, bool along) { return along ? bx * (BK + 4) : BK * (bx + 8); }
    __device__ __forceinline__ static int row(int i) {  // of the first of a pair in piece i; the second is 8 below
        return threadIdx.x / 32 / warps_n * WM + i * 16 + threadIdx.x % 32 / 4;
    }
    __device__ __forceinline__ static int column(int j) {  // of two neighbours in piece j
        return threadIdx.x / 32 % warps_n * WN + j * 8 + threadIdx.x % 4 * 2;
    }
};

/// BX rows of a matrix from `origin` on. Along: the summed dimension is the contiguous one. W = 4: 16-byte copies
/// (leading dimension, size of the contiguous dimension and address are multiples of it). Beyond `size` and `end`:
/// zeros.
template <class S, int BX_, bool Along_, int W>
struct CopiedSide : SideWalk<S, BX_, Along_, W> {
    using Walk = SideWalk<S, BX_, Along_, W>;
    static constexpr int BX = BX_;
    static constexpr bool Along = Along_;
    using Walk::Walk;
    __device__ __forceinline__ void copy(float* s) {
        this->walk([&](int j, const float* from, bool valid) {
            const int i = Walk::number(j);
            if (i < 0) return;
            const int x = Walk::place_x(i), k = Walk::place_k(i);
            simt::cp_async<4 * W>(s + (Along ? x * (S::BK + 4) + k : k * (BX + 8) + x), from, valid);
        });
    }
};

namespace detail {
template <class S, class Side>
__device__ __forceinline__ float staged(const float* s, int x, int k) {
    return s[Side::Along ? x * (S::BK + 4) + k : k * (Side::BX + 8) + x];
}
// v = big + small but for a unit in its last place; infinities and NaN give a small part that is NaN. Tensor cores ignore the low bits of
// `small`. (cvt.rna.tf32 would be four instructions.)
template <int Parts, int N>
__device__ __forceinline__ void split(const float (&v)[N], unsigned (&big)[N],
                                      unsigned (&small)[N]) {  // 1: no small part
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if constexpr (Parts == 3) {
            big[i] = (__float_as_uint(v[i]) + 0x1000u) & ~0x1fffu;
            small[i] = __float_as_uint(v[i] - __uint_as_float(big[i]));
        } else {
            big[i] = simt::to_tf32(v[i]);
        }
    }
}
// The four rows and columns of A that a lane has of piece i, the two of B.
template <class S, class A>
__device__ __forceinline__ void fragment_a(const float* s, int x, int k, float (&v)[4]) {
    v[0] = staged<S, A>(s, x, k), v[1] = staged<S, A>(s, x + 8, k);
    v[2] = staged<S, A>(s, x, k + 4), v[3] = staged<S, A>(s, x + 8, k + 4);
}
template <class S, class B>
__device__ __forceinline__ void fragment_b(const float* s, int x, int k, float (&v)[2]) {
    v[0] = staged<S, B>(s, x, k), v[1] = staged<S, B>(s, x, k + 4);
}
template <class S, class A, class B>
__device__ __forceinline__ void piece(const float* pa, const float* pb, int m0, int n0, int t,
                                      float (&acc)[S::MT][S::NT][4]) {
#pragma unroll
    for (int k = 0; k < S::BK; k += 8) {
        unsigned a[S::MT][4], none[4];
#pragma unroll
        for (int i = 0; i < S::MT; ++i) {
            float v[4];
            fragment_a<S, A>(pa, m0 + i * 16, k + t, v);
            split<1>(v, a[i], none);
        }
#pragma unroll
        for (int j = 0; j < S::NT; ++j) {
            float v[2];
            unsigned b[2], rest[2];
            fragment_b<S, B>(pb, n0 + j * 8, k + t, v);
            split<1>(v, b, rest);
#pragma unroll
            for (int i = 0; i < S::MT; ++i) simt::mma_m16n8k8_tf32(acc[i][j], a[i], b[0], b[1]);
        }
    }
}
// Tensor cores round their sums towards zero: each piece is summed from zero and added by f32 units.
template <class S, class A, class B>
__device__ __forceinline__ void exact_piece(const float* pa, const float* pb, int m0, int n0, int t,
                                            float (&acc)[S::MT][S::NT][4]) {
    constexpr int steps = S::BK / 8;
    unsigned big_a[S::MT][steps][4], small_a[S::MT][steps][4];
#pragma unroll
    for (int i = 0; i < S::MT; ++i)
#pragma unroll
        for (int k = 0; k < steps; ++k) {
            float v[4];
            fragment_a<S, A>(pa, m0 + i * 16, k * 8 + t, v);
            split<3>(v, big_a[i][k], small_a[i][k]);
        }
#pragma unroll
    for (int j = 0; j < S::NT; ++j) {
        unsigned big[steps][2], small[steps][2];
#pragma unroll
        for (int k = 0; k < steps; ++k) {
            float v[2];
            fragment_b<S, B>(pb, n0 + j * 8, k * 8 + t, v);
            split<3>(v, big[k], small[k]);
        }
        float sum[S::MT][4] = {};
#pragma unroll
        for (int k = 0; k < steps; ++k) {
#pragma unroll
            for (int i = 0; i < S::MT; ++i) simt::mma_m16n8k8_tf32(sum[i], small_a[i][k], big[k][0], big[k][1]);
#pragma unroll
            for (int i = 0; i < S::MT; ++i) simt::mma_m16n8k8_tf32(sum[i], big_a[i][k], small[k][0], small[k][1]);
        }
#pragma unroll
        for (int k = 0; k < steps; ++k)
#pragma unroll
            for (int i = 0; i < S::MT; ++i) simt::mma_m16n8k8_tf32(sum[i], big_a[i][k], big[k][0], big[k][1]);
#pragma unroll
        for (int i = 0; i < S::MT; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e) acc[i][j][e] += sum[i][e];
    }
}
}  // namespace detail

/// Bytes of dynamic shared memory that multiply_tensor_tile() uses.
template <class S, class A, class B>
constexpr std::size_t tensor_tile_bytes() {
    return sizeof(float) * S::stages * (S::side(S::BM, A::Along) + S::side(S::BN, B::Along));
}
/// acc += the products over `steps` pieces of BK. All threads of the block call it.
template <class S, class A, class B>
__device__ __forceinline__ void multiply_tensor_tile(A& a, B& b, int steps, float (&acc)[S::MT][S::NT][4]) {
    constexpr int size_a = S::side(S::BM, A::Along), size_b = S::side(S::BN, B::Along);
    float* sa = simt::dynamic_smem<float>();
    float* sb = sa + S::stages * size_a;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int m0 = warp / S::warps_n * S::WM + lane / 4, n0 = warp % S::warps_n * S::WN + lane / 4, t = lane % 4;
    __syncthreads();  // a tile before has been read
#pragma unroll
    for (int s = 0; s < S::stages - 1; ++s) {
        if (s < steps) {
            a.copy(sa + s * size_a);
            b.copy(sb + s * size_b);
        }
        simt::cp_async_commit();
    }
    for (int s = 0; s < steps; ++s) {
        simt::cp_async_wait<S::stages - 2>();
        __syncthreads();  // piece s is there for all, and all have read what the next copy replaces
        if (const int next = s + S::stages - 1; next < steps) {
            a.copy(sa + next % S::stages * size_a);
            b.copy(sb + next % S::stages * size_b);
        }
        simt::cp_async_commit();
        const float* pa = sa + s % S::stages * size_a;
        const float* pb = sb + s % S::stages * size_b;
        if constexpr (S::Parts == 3) detail::exact_piece<S, A, B>(pa, pb, m0, n0, t, acc);
        else detail::piece<S, A, B>(pa, pb, m0, n0, t, acc);
    }
    simt::cp_async_wait<0>();
}

}  // namespace cuda
QUERN_END
