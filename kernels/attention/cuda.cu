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
    int group;  // query heads for each of kv's

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
    /// The score of query i and key j of head h from their product; -inf: not to be seen.
    __device__ __forceinline__ float score(float product, int b, int h, int i, int j) const {
        float s = product * scale;
        if (softcap > 0) s = softcap * tanhf(s / softcap);
        if (mask_kind == CudaMask::none) return s;
        if (j >= mask_length) return -INFINITY;
        const std::int64_t at = b * mask_batch + h * mask_head + i * mask_row + j;
        if (mask_kind == CudaMask::boolean) return static_cast<const std::uint8_t*>(mask)[at] ? s : -INFINITY;
        const float add = static_cast<const float*>(mask)[at];
        return add == -INFINITY ? add : s + add;
    }
};

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
__global__ void __launch_bounds__(kThreads) tiles(const Arguments a, bool vector) {
    constexpr int pad = 4;
    float* sq = simt::dynamic_smem<float>();
    float* sk = sq + kQueries * (D + pad);
    float* sv = sk + kKeys * (D + pad);
    float* sp = sv + kKeys * D;  // [key][query]
    const int x = threadIdx.x % 8, y = threadIdx.x / 8;
    const int h = blockIdx.y, b = blockIdx.z, q0 = blockIdx.x * kQueries, kv = h / a.group;
    const int count = a.queries - q0 < kQueries ? static_cast<int>(a.queries - q0) : kQueries;
    const float* k = a.k + b * a.k_batch + kv * a.k_head;
    const float* v = a.v + b * a.v_batch + kv * a.v_head;
    stage<D, pad>(sq, a.q + b * a.q_batch + h * a.q_head + q0 * a.q_row, a.q_row, count, kQueries,
                  static_cast<int>(a.d), vector);
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
        stage<D, pad>(sk, k + k0 * a.k_row, a.k_row, n, kKeys, static_cast<int>(a.d), vector);
        stage<D, 0>(sv, v + k0 * a.v_row, a.v_row, n, kKeys, static_cast<int>(a.dv), vector);
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
                s[i][j] = key >= from[i] && key < to[i] ? a.score(s[i][j], b, h, row, key) : -INFINITY;
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
        const float inverse = l[i] > 0 ? 1.0f / l[i] : l[i] == l[i] ? 0.0f : l[i];
        float* out = a.y + b * a.y_batch + h * a.y_head + (q0 + y * 4 + i) * a.y_row;
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
    const int i = blockIdx.x, h = blockIdx.y, b = blockIdx.z, kv = h / a.group;
    const float* q = a.q + b * a.q_batch + h * a.q_head + i * a.q_row;
    const float* k = a.k + b * a.k_batch + kv * a.k_head;
    const float* v = a.v + b * a.v_batch + kv * a.v_head;
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
            s = a.score(product, b, h, i, key);
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
    const float inverse = l > 0 ? 1.0f / l : l == l ? 0.0f : l;
    for (int c = threadIdx.x; c < a.dv; c += kThreads) {
        float r = 0;
#pragma unroll
        for (int w = 0; w < warps; ++w) r += part[w][c] * share[w];
        a.y[b * a.y_batch + h * a.y_head + i * a.y_row + c] = r * inverse;
    }
}

template <int D>
cudaError_t launch(const Arguments& a, cudaStream_t stream) {
    const dim3 rest(1, static_cast<unsigned>(a.heads), static_cast<unsigned>(a.batch));
    if (a.queries <= 8)
        return simt::launch(one_query<D>, dim3(static_cast<unsigned>(a.queries), rest.y, rest.z), dim3(kThreads), 0,
                            stream, a);
    bool vector = a.d % 4 == 0 && a.dv % 4 == 0;
    for (const float* p : {a.q, a.k, a.v}) vector = vector && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
    for (std::int64_t s : {a.q_batch, a.q_head, a.q_row, a.k_batch, a.k_head, a.k_row, a.v_batch, a.v_head, a.v_row})
        vector = vector && s % 4 == 0;
    constexpr std::size_t floats = kQueries * (D + 4) + kKeys * (D + 4) + kKeys * D + kKeys * (kQueries + 4);
    const dim3 grid(static_cast<unsigned>((a.queries + kQueries - 1) / kQueries), rest.y, rest.z);
    return simt::launch(tiles<D>, grid, dim3(kThreads), floats * sizeof(float), stream, a, vector);
}

}  // namespace attention::cuda

namespace attention {

cudaError_t cuda_attention(const CudaAttention& arguments, cudaStream_t stream) {
    cuda::Arguments a{};
    static_cast<CudaAttention&>(a) = arguments;
    if (a.batch < 0 || a.queries < 0 || a.keys < 0 || a.heads < 0 || a.kv_heads < 1 || a.d < 0 || a.dv < 0 ||
        a.d > 128 || a.dv > 128 || a.heads % a.kv_heads || a.heads > 65535 || a.batch > 65535 ||
        a.queries > cuda::kMost / 2 || a.keys > cuda::kMost / 2)
        return cudaErrorInvalidValue;
    if (a.batch * a.heads * a.queries * a.dv == 0) return cudaSuccess;
    a.group = static_cast<int>(a.heads / a.kv_heads);
    const std::int64_t d = a.d > a.dv ? a.d : a.dv;
    if (d <= 32) return cuda::launch<32>(a, stream);
    if (d <= 64) return cuda::launch<64>(a, stream);
    if (d <= 96) return cuda::launch<96>(a, stream);
    return cuda::launch<128>(a, stream);
}

}  // namespace attention
QUERN_END
