// Attention of f32: blocks of 64 queries against tiles of 32 keys with a running maximum and sum; few queries (decoding) by a
// block each, whose warps take keys in turn.
#include <quern/kernels/attention/cuda_parts.hpp>

QUERN_BEGIN
namespace attention::cuda {

constexpr int kKeys = 32;

// Thread (y, x) of 16 x 8 has queries 4 y + [0, 4), keys x + 8 j and columns 4 x + [0, 4) of each 32 of the output.
template <int D>
__global__ void __launch_bounds__(kThreads) tiles(const Arguments a, bool vector, unsigned tiles_each) {
    constexpr int pad = 4;
    float* sq = simt::dynamic_smem<float>();
    float* sk = sq + kQueries * (D + pad);
    float* sv = sk + kKeys * (D + pad);
    float* sp = sv + kKeys * D;  // [key][query]
    const int x = threadIdx.x % 8, y = threadIdx.x / 8;
    const Head<float> head(a, blockIdx.x / tiles_each);
    const int q0 = blockIdx.x % tiles_each * kQueries;
    const int count = a.queries - q0 < kQueries ? static_cast<int>(a.queries - q0) : kQueries;
    stage<float, D, pad>(sq, head.q + q0 * a.q_row, a.q_row, count, kQueries, static_cast<int>(a.d), vector);
    simt::cp_async_commit();
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
        stage<float, D, pad>(sk, head.k + k0 * a.k_row, a.k_row, n, kKeys, static_cast<int>(a.d), vector);
        simt::cp_async_commit();
        stage<float, D, 0>(sv, head.v + k0 * a.v_row, a.v_row, n, kKeys, static_cast<int>(a.dv), vector);
        simt::cp_async_commit();
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

template <int D>
cudaError_t run(const Arguments& a, std::int64_t heads, cudaStream_t stream) {
    return launch<float, D>(a, heads, stream, [&](bool vector, unsigned each) {
        constexpr std::size_t floats = kQueries * (D + 4) + kKeys * (D + 4) + kKeys * D + kKeys * (kQueries + 4);
        return simt::launch(tiles<D>, dim3(static_cast<unsigned>(heads * each)), dim3(kThreads), floats * sizeof(float),
                            stream, a, vector, each);
    });
}

}  // namespace attention::cuda

namespace attention {

cudaError_t cuda_attention(const CudaAttention& arguments, cudaStream_t stream) {
    cuda::Arguments a{};
    static_cast<CudaAttention&>(a) = arguments;
    const bool half = a.type == DType::f16 || a.type == DType::bf16;
    if ((!half && a.type != DType::f32) || a.queries < 0 || a.keys < 0 || a.d < 0 || a.dv < 0 || a.d > 128 ||
        a.dv > 128 || a.lead_rank < 0 || a.lead_rank > max_attention_lead || a.queries > cuda::kMost / 2 ||
        a.keys > cuda::kMost / 2)
        return cudaErrorInvalidValue;
    std::int64_t heads = 1;
    for (int i = 0; i < a.lead_rank; ++i) {
        if (a.lead[i] < 0 || (a.lead[i] > 0 && heads > cuda::kMost / a.lead[i])) return cudaErrorInvalidValue;
        heads *= a.lead[i];
    }
    if (heads * a.queries * a.dv == 0) return cudaSuccess;
    if (heads > cuda::kMost / a.queries) return cudaErrorInvalidValue;
    for (int i = 0; i < a.lead_rank; ++i) a.by_lead[i] = simt::Divisor(a.lead[i]);
    if (half) return cuda::run_half(a, heads, stream);
    return cuda::by_width(a, [&](auto d) { return cuda::run<decltype(d)::value>(a, heads, stream); });
}

}  // namespace attention
QUERN_END
