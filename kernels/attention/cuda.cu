// Blocks of 64 queries against tiles of 32 keys with a running maximum and sum; few queries (decoding) by a block each,
// whose warps take keys in turn.
#include <quern/kernels/attention/cuda.hpp>
#include <quern/kernels/cuda/simt.hpp>

QUERN_BEGIN
namespace attention::cuda {

constexpr int kQueries = 64, kKeys = 32, kThreads = 128;
constexpr std::int64_t kMost = 0x7fffffff;

struct Max {
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
    __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};
struct Arguments : CudaAttention {
    simt::Divisor by_lead[max_attention_lead];

    /// The keys [from, to) that query i may see.
    __device__ __forceinline__ void visible(int i, int& from, int& to) const {
        const std::int64_t at = past + i;
        from = 0;
        to = static_cast<int>(keys);
        if (causal && at + 1 < to) to = static_cast<int>(at + 1);
        if (right >= 0 && at + right + 1 < to) to = static_cast<int>(at + right + 1);
        if (left >= 0 && at - left > from) from = at - left < to ? static_cast<int>(at - left) : to;
        if (to < 0) to = 0;
        if (from > to) from = to;
    }
};
/// One leading index: where its matrices are.
struct Head {
    const float *q, *k, *v;
    float* y;
    std::int64_t mask[2];

    __device__ __forceinline__ Head(const Arguments& a, unsigned index) : q(a.q), k(a.k), v(a.v), y(a.y), mask{0, 0} {
#pragma unroll
        for (int d = max_attention_lead - 1; d >= 0; --d) {
            if (d >= a.lead_rank) continue;
            const unsigned rest = a.by_lead[d].divide(index), i = index - rest * a.by_lead[d].divisor;
            index = rest;
            q += i * a.q_lead[d];
            k += i * a.k_lead[d];
            v += i * a.v_lead[d];
            y += i * a.y_lead[d];
            mask[0] += i * a.mask[0].lead[d];
            mask[1] += i * a.mask[1].lead[d];
        }
    }
    /// The score of query i and key j from their product; -inf: not to be seen.
    __device__ __forceinline__ float score(const Arguments& a, float product, int i, int j) const {
        float s = product * a.scale;
        if (a.softcap > 0) s = a.softcap * tanhf(s / a.softcap);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            const CudaMask& k = a.mask[m];
            if (!k.data) continue;
            if (j >= k.length) return -INFINITY;
            const std::int64_t at = mask[m] + i * k.query + j * k.key;
            if (k.boolean) {
                if (!static_cast<const std::uint8_t*>(k.data)[at]) return -INFINITY;
            } else {
                const float add = static_cast<const float*>(k.data)[at];
                if (add == -INFINITY) return add;
                s += add;
            }
        }
        return s;
    }
};
/// What a row's sum of exponentials turns into the factor of its values.
__device__ __forceinline__ float inverse_of(const Arguments& a, float sum, bool open) {
    if (sum > 0) return 1.0f / sum;
    return sum == 0 && (a.closed_is_zero || !open) ? 0.0f : NAN;
}

// Rows of `width` floats from global memory into rows of D + pad floats; what is beyond is zero.
template <int D, int Pad>
__device__ __forceinline__ void stage(float* to, const float* from, std::int64_t row, int count, int rows, int width,
                                      bool vector) {
    if (vector) {
        for (int i = threadIdx.x; i < rows * (D / 4); i += kThreads) {
            const int r = i / (D / 4), c = i % (D / 4) * 4;
            simt::cp_async<16>(to + r * (D + Pad) + c, from + r * row + c, r < count && c < width);
        }
    } else {
        for (int i = threadIdx.x; i < rows * D; i += kThreads) {
            const int r = i / D, c = i % D;
            to[r * (D + Pad) + c] = r < count && c < width ? from[r * row + c] : 0.0f;
        }
    }
    simt::cp_async_commit();
}

// Thread (y, x) of 16 x 8 has queries 4 y + [0, 4), keys x + 8 j and columns 4 x + [0, 4) of each 32 of the output.
template <int D>
__global__ void __launch_bounds__(kThreads) tiles(const Arguments a, bool vector, unsigned tiles_each) {
    constexpr int pad = 4;
    float* sq = simt::dynamic_smem<float>();
    float* sk = sq + kQueries * (D + pad);
    float* sv = sk + kKeys * (D + pad);
    float* sp = sv + kKeys * D;  // [key][query]
    const int x = threadIdx.x % 8, y = threadIdx.x / 8;
    const Head head(a, blockIdx.x / tiles_each);
    const int q0 = blockIdx.x % tiles_each * kQueries;
    const int count = a.queries - q0 < kQueries ? static_cast<int>(a.queries - q0) : kQueries;
    stage<D, pad>(sq, head.q + q0 * a.q_row, a.q_row, count, kQueries, static_cast<int>(a.d), vector);
    int from[4], to[4], first = static_cast<int>(a.keys), last = 0, ignored;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        from[i] = to[i] = 0;
        if (y * 4 + i < count) a.visible(q0 + y * 4 + i, from[i], to[i]);
    }
    a.visible(q0, first, ignored);  // both ends grow with the query
    a.visible(q0 + count - 1, ignored, last);
    float o[4][D / 8] = {}, m[4], l[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) m[i] = -INFINITY, l[i] = 0;
    for (int k0 = first / kKeys * kKeys; k0 < last; k0 += kKeys) {
        const int n = a.keys - k0 < kKeys ? static_cast<int>(a.keys - k0) : kKeys;
        __syncthreads();  // the tiles before have been read
        stage<D, pad>(sk, head.k + k0 * a.k_row, a.k_row, n, kKeys, static_cast<int>(a.d), vector);
        stage<D, 0>(sv, head.v + k0 * a.v_row, a.v_row, n, kKeys, static_cast<int>(a.dv), vector);
        simt::cp_async_wait<1>();
        __syncthreads();
        float s[4][4] = {};
#pragma unroll 4
        for (int c = 0; c < D; c += 4) {
            float4 qs[4], ks[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) qs[i] = simt::load4(sq + (y * 4 + i) * (D + pad) + c);
#pragma unroll
            for (int j = 0; j < 4; ++j) ks[j] = simt::load4(sk + (x + 8 * j) * (D + pad) + c);
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    s[i][j] += qs[i].x * ks[j].x + qs[i].y * ks[j].y + qs[i].z * ks[j].z + qs[i].w * ks[j].w;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = q0 + y * 4 + i;
            float top = m[i];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int key = k0 + x + 8 * j;
                s[i][j] = key >= from[i] && key < to[i] ? head.score(a, s[i][j], row, key) : -INFINITY;
                top = fmaxf(top, s[i][j]);
            }
#pragma unroll
            for (int w = 4; w > 0; w >>= 1) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, w));
            const float kept = m[i] == top ? 1.0f : expf(m[i] - top);
            float sum = 0;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                s[i][j] = s[i][j] == -INFINITY ? 0.0f : expf(s[i][j] - top);
                sum += s[i][j];
                sp[(x + 8 * j) * (kQueries + pad) + y * 4 + i] = s[i][j];
            }
            m[i] = top;
            l[i] = l[i] * kept + sum;
#pragma unroll
            for (int c = 0; c < D / 8; ++c) o[i][c] *= kept;
        }
        simt::cp_async_wait<0>();
        __syncthreads();
        for (int j = 0; j < n; ++j) {
            const float4 p = simt::load4(sp + j * (kQueries + pad) + y * 4);
            const float ps[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
            for (int c = 0; c < D / 32; ++c) {
                const float4 e = simt::load4(sv + j * D + c * 32 + x * 4);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    o[i][c * 4] += ps[i] * e.x;
                    o[i][c * 4 + 1] += ps[i] * e.y;
                    o[i][c * 4 + 2] += ps[i] * e.z;
                    o[i][c * 4 + 3] += ps[i] * e.w;
                }
            }
        }
    }
    simt::cp_async_wait<0>();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int w = 4; w > 0; w >>= 1) l[i] += __shfl_xor_sync(0xffffffffu, l[i], w);
        if (y * 4 + i >= count) continue;
        const float inverse = inverse_of(a, l[i], to[i] > from[i]);
        float* out = head.y + (q0 + y * 4 + i) * a.y_row;
#pragma unroll
        for (int c = 0; c < D / 32; ++c)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int column = c * 32 + x * 4 + e;
                if (column < a.dv) out[column] = o[i][c * 4 + e] * inverse;
            }
    }
}

// One query a block: lanes take keys for the scores and columns for the sum.
template <int D>
__global__ void __launch_bounds__(kThreads) one_query(const Arguments a) {
    constexpr int warps = kThreads / 32;
    __shared__ float query[D], part[warps][D], tops[warps], sums[warps];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned each = static_cast<unsigned>(a.queries);
    const Head head(a, blockIdx.x / each);
    const int i = static_cast<int>(blockIdx.x % each);
    const float *q = head.q + i * a.q_row, *k = head.k, *v = head.v;
    for (int c = threadIdx.x; c < D; c += kThreads) query[c] = c < a.d ? q[c] : 0.0f;
    __syncthreads();
    int from, to;
    a.visible(i, from, to);
    float o[D / 32] = {}, top = -INFINITY, sum = 0;
    for (int k0 = from + warp * 32; k0 < to; k0 += kThreads) {
        const int key = k0 + lane;
        float s = -INFINITY;
        if (key < to) {
            float product = 0;
            for (int c = 0; c < a.d; ++c) product += query[c] * k[key * a.k_row + c];
            s = head.score(a, product, i, key);
        }
        const float now = fmaxf(top, simt::warp_reduce(s, Max{}));
        const float kept = top == now ? 1.0f : expf(top - now);
        const float p = s == -INFINITY ? 0.0f : expf(s - now);
        top = now;
        sum = sum * kept + p;
#pragma unroll
        for (int c = 0; c < D / 32; ++c) o[c] *= kept;
        const int n = to - k0 < 32 ? to - k0 : 32;
        for (int j = 0; j < n; ++j) {
            const float w = __shfl_sync(0xffffffffu, p, j);
#pragma unroll
            for (int c = 0; c < D / 32; ++c)
                if (c * 32 + lane < a.dv) o[c] += w * v[(k0 + j) * a.v_row + c * 32 + lane];
        }
    }
    sum = simt::warp_reduce(sum, Sum{});
#pragma unroll
    for (int c = 0; c < D / 32; ++c) part[warp][c * 32 + lane] = o[c];
    if (lane == 0) tops[warp] = top, sums[warp] = sum;
    __syncthreads();
    float all = -INFINITY, l = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) all = fmaxf(all, tops[w]);
    float share[warps];
#pragma unroll
    for (int w = 0; w < warps; ++w) {
        share[w] = tops[w] == -INFINITY ? 0.0f : expf(tops[w] - all);
        l += sums[w] * share[w];
    }
    const float inverse = inverse_of(a, l, to > from);
    for (int c = threadIdx.x; c < a.dv; c += kThreads) {
        float r = 0;
#pragma unroll
        for (int w = 0; w < warps; ++w) r += part[w][c] * share[w];
        head.y[i * a.y_row + c] = r * inverse;
    }
}

template <int D>
cudaError_t launch(const Arguments& a, std::int64_t heads, cudaStream_t stream) {
    if (a.queries <= 8)
        return simt::launch(one_query<D>, dim3(static_cast<unsigned>(heads * a.queries)), dim3(kThreads), 0, stream, a);
    bool vector = a.d % 4 == 0 && a.dv % 4 == 0 && a.q_row % 4 == 0 && a.k_row % 4 == 0 && a.v_row % 4 == 0;
    for (const float* p : {a.q, a.k, a.v}) vector = vector && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
    for (int d = 0; d < a.lead_rank; ++d)
        vector = vector && a.q_lead[d] % 4 == 0 && a.k_lead[d] % 4 == 0 && a.v_lead[d] % 4 == 0;
    constexpr std::size_t floats = kQueries * (D + 4) + kKeys * (D + 4) + kKeys * D + kKeys * (kQueries + 4);
    const auto each = static_cast<unsigned>((a.queries + kQueries - 1) / kQueries);
    return simt::launch(tiles<D>, dim3(static_cast<unsigned>(heads * each)), dim3(kThreads), floats * sizeof(float),
                        stream, a, vector, each);
}

}  // namespace attention::cuda

namespace attention {

cudaError_t cuda_attention(const CudaAttention& arguments, cudaStream_t stream) {
    cuda::Arguments a{};
    static_cast<CudaAttention&>(a) = arguments;
    if (a.queries < 0 || a.keys < 0 || a.d < 0 || a.dv < 0 || a.d > 128 || a.dv > 128 || a.lead_rank < 0 ||
        a.lead_rank > max_attention_lead || a.queries > cuda::kMost / 2 || a.keys > cuda::kMost / 2)
        return cudaErrorInvalidValue;
    std::int64_t heads = 1;
    for (int i = 0; i < a.lead_rank; ++i) {
        if (a.lead[i] < 0 || (a.lead[i] > 0 && heads > cuda::kMost / a.lead[i])) return cudaErrorInvalidValue;
        heads *= a.lead[i];
    }
    if (heads * a.queries * a.dv == 0) return cudaSuccess;
    if (heads > cuda::kMost / a.queries) return cudaErrorInvalidValue;
    for (int i = 0; i < a.lead_rank; ++i) a.by_lead[i] = simt::Divisor(a.lead[i]);
    const std::int64_t d = a.d > a.dv ? a.d : a.dv;
    if (d <= 32) return cuda::launch<32>(a, heads, stream);
    if (d <= 64) return cuda::launch<64>(a, heads, stream);
    if (d <= 96) return cuda::launch<96>(a, heads, stream);
    return cuda::launch<128>(a, heads, stream);
}

}  // namespace attention
QUERN_END
