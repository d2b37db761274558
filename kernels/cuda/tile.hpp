// One block's tile of a product in f32: C[BM, BN] += A[BM, K] B[K, BN] with double-buffered shared memory, fetched
// through registers, which is where operands are transposed, gathered (convolutions) and bounded.
#pragma once
#include <quern/kernels/cuda/side.hpp>

QUERN_BEGIN
namespace cuda {

/// A warp computes 4 TM x 8 TN: lane (l / 8, l % 8) holds rows l / 8 * 4 + [0, 4) of each 16 and columns l % 8 * 4 +
/// [0, 4) of each 32, so that each operand is read as 16-byte vectors without conflicts between banks.
template <int BM_, int BN_, int BK_, int TM_, int TN_>
struct TileShape {
    static constexpr int BM = BM_, BN = BN_, BK = BK_, TM = TM_, TN = TN_;
    static constexpr int warps_m = BM / (4 * TM), warps_n = BN / (8 * TN), threads = 32 * warps_m * warps_n;
    static constexpr int pad = 4;
    static_assert(warps_m * 4 * TM == BM && warps_n * 8 * TN == BN && TM % 4 == 0 && TN % 4 == 0);
    __device__ __forceinline__ static int row(int i) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        return warp / warps_n * 4 * TM + i / 4 * 16 + lane / 8 * 4 + i % 4;
    }
    /// The first of four columns.
    __device__ __forceinline__ static int column(int group) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        return warp % warps_n * 8 * TN + group * 32 + lane % 8 * 4;
    }
};

/// BX rows of a matrix from `origin` on, BK of the summed dimension at a time, kept as [BK][BX + 4]. Along: the summed
/// dimension is the contiguous one. W = 4: 16-byte loads (leading dimension, size of the contiguous dimension and
/// address are multiples of it). Beyond `size` and `k_end`: zeros.
template <class S, int BX, bool Along, int W>
struct MatrixSide : SideWalk<S, BX, Along, W> {
    using Walk = SideWalk<S, BX, Along, W>;
    float v[Walk::each][W];

    using Walk::Walk;
    __device__ __forceinline__ void fetch() {
        this->walk([&](int j, const float* from, bool valid) {
            if (valid) {
                simt::load_pack(from, v[j]);
            } else {
#pragma unroll
                for (int w = 0; w < W; ++w) v[j][w] = 0;
            }
        });
    }
    __device__ __forceinline__ void put(float* s) const {
#pragma unroll
        for (int j = 0; j < Walk::each; ++j) {
            const int i = Walk::number(j);
            if (i < 0) break;
            float* to = s + Walk::place_k(i) * (BX + S::pad) + Walk::place_x(i);
            if constexpr (Along) {
#pragma unroll
                for (int w = 0; w < W; ++w) to[w * (BX + S::pad)] = v[j][w];
            } else {
                simt::store_pack(to, v[j]);
            }
        }
    }
};

/// acc += the products over `steps` pieces of BK. All threads of the block call it.
template <class S, class A, class B>
__device__ __forceinline__ void multiply_tile(A& a, B& b, int steps, float (&acc)[S::TM][S::TN]) {
    constexpr int size_a = S::BK * (S::BM + S::pad), size_b = S::BK * (S::BN + S::pad);
    __shared__ __align__(16) float sa[2 * size_a];
    __shared__ __align__(16) float sb[2 * size_b];
    // From sm_100 on, eight steps of an 8 x 8 tile are planned with more registers than two blocks have.
    [[maybe_unused]] constexpr int unrolled = simt::by_arch(S::BK, S::TM * S::TN < 64 ? S::BK : 2);
    const int row = S::row(0), column = S::column(0);
    if (steps > 0) {
        a.fetch();
        b.fetch();
        a.put(sa);
        b.put(sb);
    }
    __syncthreads();
    for (int s = 0; s < steps; ++s) {
        const bool more = s + 1 < steps;
        if (more) {
            a.fetch();
            b.fetch();
        }
        const float* pa = sa + (s & 1) * size_a + row;
        const float* pb = sb + (s & 1) * size_b + column;
#pragma unroll unrolled
        for (int k = 0; k < S::BK; ++k) {
            float va[S::TM], vb[S::TN];
#pragma unroll
            for (int i = 0; i < S::TM; i += 4) {
                const float4 q = simt::load4(pa + k * (S::BM + S::pad) + i * 4);
                va[i] = q.x, va[i + 1] = q.y, va[i + 2] = q.z, va[i + 3] = q.w;
            }
#pragma unroll
            for (int j = 0; j < S::TN; j += 4) {
                const float4 q = simt::load4(pb + k * (S::BN + S::pad) + j * 8);
                vb[j] = q.x, vb[j + 1] = q.y, vb[j + 2] = q.z, vb[j + 3] = q.w;
            }
#pragma unroll
            for (int i = 0; i < S::TM; ++i)
#pragma unroll
                for (int j = 0; j < S::TN; ++j) acc[i][j] += va[i] * vb[j];
        }
        if (more) {
            a.put(sa + (~s & 1) * size_a);
            b.put(sb + (~s & 1) * size_b);
        }
        __syncthreads();
    }
}

/// Parts, of at least `piece`, that a sum over k is cut into so that `tiles` blocks become about `wanted`. Does not depend on
/// the GPU, so that results do not either.
inline int split_count(std::int64_t tiles, std::int64_t k, std::int64_t piece, std::int64_t wanted) {
    if (tiles < 1 || 2 * tiles > wanted) return 1;
    const std::int64_t parts = wanted / tiles, most = k / piece, n = parts < most ? parts : most;
    return static_cast<int>(n < 1 ? 1 : n > 64 ? 64 : n);
}

}  // namespace cuda
QUERN_END
