// What the attention kernels of all types share on the device.
#pragma once
#include <quern/kernels/attention/cuda.hpp>
#include <quern/kernels/cuda/half.hpp>

QUERN_BEGIN
namespace attention::cuda {

constexpr int kQueries = 64, kThreads = 128;
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
__device__ __forceinline__ float addend(const CudaMask& m, std::int64_t at) {
    if (m.type == DType::boolean) return static_cast<const std::uint8_t*>(m.data)[at] ? 0.0f : -INFINITY;
    if (m.type == DType::f16) return quern::cuda::to_float(static_cast<const __half*>(m.data)[at]);
    if (m.type == DType::bf16) return quern::cuda::to_float(static_cast<const __nv_bfloat16*>(m.data)[at]);
    return static_cast<const float*>(m.data)[at];
}
/// One leading index: where its matrices are.
template <class T>
struct Head {
    const T *q, *k, *v;
    T* y;
    std::int64_t mask[2];

    __device__ __forceinline__ Head(const Arguments& a, unsigned index)
        : q(static_cast<const T*>(a.q)),
          k(static_cast<const T*>(a.k)),
          v(static_cast<const T*>(a.v)),
          y(static_cast<T*>(a.y)),
          mask{0, 0} {
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
            const float add = addend(k, mask[m] + i * k.query + j * k.key);
            if (add == -INFINITY) return add;
            s += add;
        }
        return s;
    }
};
/// What a row's sum of exponentials turns into the factor of its values.
__device__ __forceinline__ float inverse_of(const Arguments& a, float sum, bool open) {
    if (sum > 0) return 1.0f / sum;
    return sum == 0 && (a.closed_is_zero || !open) ? 0.0f : NAN;
}

/// Rows of `width` elements from global memory into rows of D + Pad; what is beyond is zero. `vector`: 16 bytes at a
/// time, in the background; the caller closes the group.
template <class T, int D, int Pad>
__device__ __forceinline__ void stage(T* to, const T* from, std::int64_t row, int count, int rows, int width,
                                      bool vector) {
    constexpr int W = 16 / sizeof(T);
    if (vector) {
        for (int i = threadIdx.x; i < rows * (D / W); i += kThreads) {
            const int r = i / (D / W), c = i % (D / W) * W;
            simt::cp_async<16>(to + r * (D + Pad) + c, from + r * row + c, r < count && c < width);
        }
    } else {
        for (int i = threadIdx.x; i < rows * D; i += kThreads) {
            const int r = i / D, c = i % D;
            to[r * (D + Pad) + c] =
                r < count && c < width ? from[r * row + c] : quern::cuda::from_float<T>(0.0f);
        }
    }
}

/// One query a block: lanes take keys for the scores and columns for the sum. W: elements of a key read at once.
template <class T, int D, int W>
__global__ void __launch_bounds__(kThreads, simt::by_arch(0, 6)) one_query(const Arguments a) {
    constexpr int warps = kThreads / 32;
    __shared__ float query[D], part[warps][D], tops[warps], sums[warps];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned each = static_cast<unsigned>(a.queries);
    const Head<T> head(a, blockIdx.x / each);
    const int i = static_cast<int>(blockIdx.x % each);
    const T *q = head.q + i * a.q_row, *k = head.k, *v = head.v;
    for (int c = threadIdx.x; c < D; c += kThreads) query[c] = c < a.d ? quern::cuda::to_float(q[c]) : 0.0f;
    __syncthreads();
    int from, to;
    a.visible(i, from, to);
    float o[D / 32] = {}, top = -INFINITY, sum = 0;
    for (int k0 = from + warp * 32; k0 < to; k0 += kThreads) {
        const int key = k0 + lane;
        float s = -INFINITY;
        if (key < to) {
            float product = 0;
            for (int c = 0; c < a.d; c += W) {
                T e[W];
                simt::load_pack(k + key * a.k_row + c, e);
#pragma unroll
                for (int w = 0; w < W; ++w) product += query[c + w] * quern::cuda::to_float(e[w]);
            }
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
                if (c * 32 + lane < a.dv) o[c] += w * quern::cuda::to_float(v[(k0 + j) * a.v_row + c * 32 + lane]);
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
        head.y[i * a.y_row + c] = quern::cuda::from_float<T>(r * inverse);
    }
}

/// Whether rows of all operands can be read, and rows of y written, 16 bytes at a time.
inline bool in_packs(const Arguments& a, int each) {
    bool fits = a.d % each == 0 && a.dv % each == 0;
    for (const std::int64_t n : {a.q_row, a.k_row, a.v_row, a.y_row}) fits = fits && n % each == 0;
    for (const void* p : {a.q, a.k, a.v, static_cast<const void*>(a.y)})
        fits = fits && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
    for (int d = 0; d < a.lead_rank; ++d)
        for (const std::int64_t n : {a.q_lead[d], a.k_lead[d], a.v_lead[d], a.y_lead[d]}) fits = fits && n % each == 0;
    return fits;
}
/// `tiles`: launches blocks of kQueries queries, given whether operands come in packs and the number of blocks of a head.
template <class T, int D, class F>
cudaError_t launch(const Arguments& a, std::int64_t heads, cudaStream_t stream, F tiles) {
    constexpr int W = 16 / sizeof(T);
    const bool vector = in_packs(a, W);
    if (a.queries > 8) return tiles(vector, static_cast<unsigned>((a.queries + kQueries - 1) / kQueries));
    const dim3 grid(static_cast<unsigned>(heads * a.queries));
    return vector ? simt::launch(one_query<T, D, W>, grid, dim3(kThreads), 0, stream, a)
                  : simt::launch(one_query<T, D, 1>, grid, dim3(kThreads), 0, stream, a);
}
/// f(integral constant) of the narrowest width that holds a head.
template <class F>
cudaError_t by_width(const Arguments& a, F f) {
    const std::int64_t d = a.d > a.dv ? a.d : a.dv;
    if (d <= 32) return f(std::integral_constant<int, 32>());
    if (d <= 64) return f(std::integral_constant<int, 64>());
    if (d <= 96) return f(std::integral_constant<int, 96>());
    return f(std::integral_constant<int, 128>());
}

cudaError_t run_half(const Arguments&, std::int64_t heads, cudaStream_t);

}  // namespace attention::cuda
QUERN_END
