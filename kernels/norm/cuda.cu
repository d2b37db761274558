// A warp a row in registers (up to 1024 elements, read once), else a block a row that reads it again from cache. The
// variance is taken from differences to the mean.
#include <quern/kernels/cuda/half.hpp>
#include <quern/kernels/norm/cuda.hpp>

QUERN_BEGIN
namespace norm::cuda {

constexpr int kThreads = 256, kWarps = kThreads / 32;

struct Sum {
    __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};
struct Rows : CudaRows {
    simt::Divisor by_inner;
    template <class T>
    __device__ __forceinline__ float finish(float v, int r, unsigned i) const {
        const std::int64_t at = groups > 1 || by_inner.divisor > 1 ? (r % groups) * per_group + by_inner.divide(i) : i;
        if (scale) v *= quern::cuda::to_float(static_cast<const T*>(scale)[at]);
        if (bias) v += quern::cuda::to_float(static_cast<const T*>(bias)[at]);
        return v;
    }
};

template <class T, int W, int N>
__global__ void __launch_bounds__(kThreads, simt::by_arch(W == 1 && N == 8 ? 4 : 0, 0)) warp_rows(const Rows a) {
    const int lane = threadIdx.x % 32, n = static_cast<int>(a.n);
    const float over = 1.0f / n;
    for (int r = blockIdx.x * kWarps + threadIdx.x / 32; r < a.rows; r += gridDim.x * kWarps) {
        const std::int64_t row = std::int64_t(r) * n;
        float v[N][W];
        float s = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int c = (lane + 32 * i) * W;
            if (c < n) {
                quern::cuda::load_wide<W>(static_cast<const T*>(a.x) + row + c, v[i]);
                if (a.add) {
                    float o[W];
                    quern::cuda::load_wide<W>(static_cast<const T*>(a.add) + row + c, o);
#pragma unroll
                    for (int j = 0; j < W; ++j) v[i][j] += o[j];
                    if (a.sum) quern::cuda::store_wide<W>(static_cast<T*>(a.sum) + row + c, v[i]);
                }
            } else {
#pragma unroll
                for (int j = 0; j < W; ++j) v[i][j] = 0;
            }
#pragma unroll
            for (int j = 0; j < W; ++j) s += v[i][j];
        }
        const float mean = a.rms ? 0.0f : simt::warp_reduce(s, Sum{}) * over;
        float q = 0;
#pragma unroll
        for (int i = 0; i < N; ++i)
            if ((lane + 32 * i) * W < n)
#pragma unroll
                for (int j = 0; j < W; ++j) {
                    v[i][j] -= mean;
                    q += v[i][j] * v[i][j];
                }
        const float inverse = 1.0f / sqrtf(simt::warp_reduce(q, Sum{}) * over + a.eps);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int c = (lane + 32 * i) * W;
            if (c >= n) continue;
#pragma unroll
            for (int j = 0; j < W; ++j) v[i][j] = a.template finish<T>(v[i][j] * inverse, r, c + j);
            quern::cuda::store_wide<W>(static_cast<T*>(a.y) + row + c, v[i]);
        }
        if (lane == 0 && a.mean) a.mean[r] = mean;
        if (lane == 0 && a.inverse) a.inverse[r] = inverse;
    }
}

__device__ __forceinline__ float block_sum(float v, float* part) {
    v = simt::warp_reduce(v, Sum{});
    __syncthreads();  // the previous use of part has been read
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    v = part[0];
#pragma unroll
    for (int i = 1; i < kWarps; ++i) v += part[i];
    return v;
}
template <class T, int W>
__global__ void __launch_bounds__(kThreads, simt::by_arch(W == 8 ? 0 : 6, 0)) block_rows(const Rows a) {
    __shared__ float part[kWarps];
    const int n = static_cast<int>(a.n);
    const float over = 1.0f / n;
    for (int r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const std::int64_t row = std::int64_t(r) * n;
        const auto added = [&](int c, float(&v)[W]) {
            quern::cuda::load_wide<W>(static_cast<const T*>(a.x) + row + c, v);
            if (!a.add) return;
            float o[W];
            quern::cuda::load_wide<W>(static_cast<const T*>(a.add) + row + c, o);
#pragma unroll
            for (int j = 0; j < W; ++j) v[j] += o[j];
        };
        float s = 0, v[W];
        for (int c = threadIdx.x * W; c < n; c += kThreads * W) {
            added(c, v);
            if (a.add && a.sum) quern::cuda::store_wide<W>(static_cast<T*>(a.sum) + row + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) s += v[j];
        }
        const float mean = a.rms ? 0.0f : block_sum(s, part) * over;
        // Where the sum took x's place, adding again would count twice.
        const void* from = a.add && a.sum ? a.sum : nullptr;
        const auto again = [&](int c, float(&v)[W]) {
            if (from) quern::cuda::load_wide<W>(static_cast<const T*>(from) + row + c, v);
            else added(c, v);
        };
        float q = 0;
        for (int c = threadIdx.x * W; c < n; c += kThreads * W) {
            again(c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) q += (v[j] - mean) * (v[j] - mean);
        }
        const float inverse = 1.0f / sqrtf(block_sum(q, part) * over + a.eps);
        for (int c = threadIdx.x * W; c < n; c += kThreads * W) {
            again(c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) v[j] = a.template finish<T>((v[j] - mean) * inverse, r, c + j);
            quern::cuda::store_wide<W>(static_cast<T*>(a.y) + row + c, v);
        }
        if (threadIdx.x == 0 && a.mean) a.mean[r] = mean;
        if (threadIdx.x == 0 && a.inverse) a.inverse[r] = inverse;
    }
}

inline dim3 blocks(std::int64_t n) { return dim3(static_cast<unsigned>(n < (1 << 20) ? n : 1 << 20)); }
template <class T, int W>
cudaError_t launch(const Rows& a, cudaStream_t stream) {
    if (a.n > 1024) return simt::launch(block_rows<T, W>, blocks(a.rows), dim3(kThreads), 0, stream, a);
    const auto go = [&](auto* kernel) {
        return simt::launch(kernel, blocks((a.rows + kWarps - 1) / kWarps), dim3(kThreads), 0, stream, a);
    };
    const std::int64_t n = (a.n + 32 * W - 1) / (32 * W);
    if (n <= 2) return go(warp_rows<T, W, 2>);
    if (n <= 4) return go(warp_rows<T, W, 4>);
    if constexpr (W <= 4)
        if (n <= 8) return go(warp_rows<T, W, 8>);
    if constexpr (W == 1) return go(warp_rows<T, W, 32>);
    return cudaErrorInvalidValue;
}
template <class T>
cudaError_t launch(const Rows& a, cudaStream_t stream) {
    constexpr int W = 16 / sizeof(T);
    bool vector = a.n % W == 0;
    for (const void* p : {a.x, a.add, static_cast<const void*>(a.y), static_cast<const void*>(a.sum)})
        vector = vector && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
    return vector ? launch<T, W>(a, stream) : launch<T, 1>(a, stream);
}

}  // namespace norm::cuda

namespace norm {

cudaError_t cuda_normalize_rows(const CudaRows& rows, cudaStream_t stream) {
    constexpr std::int64_t most = 0x7fffffff;
    if (rows.rows < 0 || rows.n < 0 || rows.groups < 1 || rows.inner < 1 || (rows.n > 0 && rows.rows > most / rows.n))
        return cudaErrorInvalidValue;
    if (rows.rows == 0 || rows.n == 0) return cudaSuccess;
    cuda::Rows a{};
    static_cast<CudaRows&>(a) = rows;
    a.by_inner = simt::Divisor(rows.inner);
    switch (a.type) {
        case DType::f32: return cuda::launch<float>(a, stream);
        case DType::f16: return cuda::launch<__half>(a, stream);
        case DType::bf16: return cuda::launch<__nv_bfloat16>(a, stream);
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace norm
QUERN_END
