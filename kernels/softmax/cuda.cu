// Row softmax: a warp a row in registers (up to 1024 columns), a block a row staged in shared memory (as far as
// 48 KB go), a block a row with a running maximum and sum beyond that. The first two read each value once.
#include <quern/kernels/cuda/half.hpp>
#include <quern/kernels/softmax/cuda.hpp>

QUERN_BEGIN
namespace softmax::cuda {

constexpr int kWarpsPerBlock = 4;
constexpr int kThreads = 256;
constexpr std::int64_t kMaxStagedCols = 48 * 1024 / sizeof(float) - 64;  // the static shared memory counts, too
constexpr std::int64_t kMaxBlocks = 1 << 20;

struct Max {
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
    __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};

// Shared memory holds f32: at most 16 bytes at a time.
template <int W>
__device__ __forceinline__ void put(float* p, const float* v) {
#pragma unroll
    for (int j = 0; j < W; j += 4) quern::cuda::store_wide<W < 4 ? W : 4>(p + j, v + j);
}
template <int W>
__device__ __forceinline__ void get(const float* p, float* v) {
#pragma unroll
    for (int j = 0; j < W; j += 4) quern::cuda::load_wide<W < 4 ? W : 4>(p + j, v + j);
}

// Lane l holds the N accesses at (l + 32 i) W; what lies beyond the row is -inf, which adds nothing.
template <class T, int W, int N>
__global__ void __launch_bounds__(32 * kWarpsPerBlock)
    warp_rows(const T* in, T* out, std::int64_t rows, int cols, bool log) {
    const int lane = threadIdx.x % 32;
    const std::int64_t step = std::int64_t(gridDim.x) * kWarpsPerBlock;
    for (std::int64_t r = std::int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32; r < rows; r += step) {
        const T* x = in + r * cols;
        T* y = out + r * cols;
        float v[N * W];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int c = (lane + 32 * i) * W;
            if (c < cols) quern::cuda::load_wide<W>(x + c, v + i * W);
            else
#pragma unroll
                for (int j = 0; j < W; ++j) v[i * W + j] = -INFINITY;
        }
        float m = v[0];
#pragma unroll
        for (int i = 1; i < N * W; ++i) m = fmaxf(m, v[i]);
        m = simt::warp_reduce(m, Max{});
        float s = 0;
#pragma unroll
        for (int i = 0; i < N * W; ++i) {
            v[i] -= m;
            const float e = expf(v[i]);
            s += e;
            if (!log) v[i] = e;
        }
        s = simt::warp_reduce(s, Sum{});
        const float scale = 1.0f / s, shift = logf(s);
#pragma unroll
        for (int i = 0; i < N * W; ++i) v[i] = log ? v[i] - shift : v[i] * scale;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int c = (lane + 32 * i) * W;
            if (c < cols) quern::cuda::store_wide<W>(y + c, v + i * W);
        }
    }
}

// f over the block's threads; all of them must call it. `part` has room for kThreads / 32 values and may be used again
// at once.
template <class F>
__device__ __forceinline__ float block_reduce(float v, float* part, F f) {
    v = simt::warp_reduce(v, f);
    __syncthreads();  // the previous use of part has been read
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    v = part[0];
#pragma unroll
    for (int i = 1; i < kThreads / 32; ++i) v = f(v, part[i]);
    return v;
}

// Each thread stages, and reads back, its own columns only.
template <class T, int W>
__global__ void __launch_bounds__(kThreads)
    staged_rows(const T* in, T* out, std::int64_t rows, int cols, bool log) {
    __shared__ float part[kThreads / 32];
    float* row = simt::dynamic_smem<float>();
    const int first = threadIdx.x * W;
    for (std::int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const T* x = in + r * cols;
        T* y = out + r * cols;
        float m = -INFINITY;
        for (int c = first; c < cols; c += kThreads * W) {
            float v[W];
            quern::cuda::load_wide<W>(x + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) m = fmaxf(m, v[j]);
            put<W>(row + c, v);
        }
        m = block_reduce(m, part, Max{});
        float s = 0;
        for (int c = first; c < cols; c += kThreads * W) {
            float v[W];
            get<W>(row + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) {
                v[j] -= m;
                const float e = expf(v[j]);
                s += e;
                if (!log) v[j] = e;
            }
            put<W>(row + c, v);
        }
        s = block_reduce(s, part, Sum{});
        const float scale = 1.0f / s, shift = logf(s);
        for (int c = first; c < cols; c += kThreads * W) {
            float v[W];
            get<W>(row + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) v[j] = log ? v[j] - shift : v[j] * scale;
            quern::cuda::store_wide<W>(y + c, v);
        }
    }
}

// m: maximum so far; s: sum of exp(x - m). The comparisons keep NaN and a prefix of -inf right.
struct Running {
    float m = -INFINITY, s = 0;
    __device__ __forceinline__ void add(float x) {
        if (x > m) {
            s = s * expf(m - x) + 1.0f;
            m = x;
        } else if (x != -INFINITY) {
            s += expf(x - m);
        }
    }
};

template <class T, int W>
__global__ void __launch_bounds__(kThreads)
    long_rows(const T* in, T* out, std::int64_t rows, std::int64_t cols, bool log) {
    __shared__ float part[kThreads / 32];
    const std::int64_t first = threadIdx.x * W;
    for (std::int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const T* x = in + r * cols;
        T* y = out + r * cols;
        Running run;
        for (std::int64_t c = first; c < cols; c += kThreads * W) {
            float v[W];
            quern::cuda::load_wide<W>(x + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) run.add(v[j]);
        }
        const float m = block_reduce(run.m, part, Max{});
        // A thread that saw only -inf adds nothing; where the whole row is -inf, m is, and the result is NaN.
        const float own = run.m == -INFINITY ? run.s : run.s * expf(run.m - m);
        const float s = block_reduce(own, part, Sum{});
        const float scale = 1.0f / s, shift = logf(s);
        for (std::int64_t c = first; c < cols; c += kThreads * W) {
            float v[W];
            quern::cuda::load_wide<W>(x + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) v[j] = log ? v[j] - m - shift : expf(v[j] - m) * scale;
            quern::cuda::store_wide<W>(y + c, v);
        }
    }
}

inline dim3 blocks(std::int64_t n) { return dim3(static_cast<unsigned>(n < kMaxBlocks ? n : kMaxBlocks)); }

template <class T, int W>
cudaError_t run(const T* in, T* out, std::int64_t rows, std::int64_t cols, bool log, cudaStream_t stream) {
    if (cols <= 1024) {
        auto go = [&](auto kernel) {
            const dim3 grid = blocks((rows + kWarpsPerBlock - 1) / kWarpsPerBlock);
            return simt::launch(kernel, grid, dim3(32 * kWarpsPerBlock), 0, stream, in, out, rows, cols, log);
        };
        const std::int64_t n = (cols + 32 * W - 1) / (32 * W);
        if (n <= 1) return go(warp_rows<T, W, 1>);
        if (n <= 2) return go(warp_rows<T, W, 2>);
        if (n <= 4) return go(warp_rows<T, W, 4>);
        if constexpr (W <= 4)
            if (n <= 8) return go(warp_rows<T, W, 8>);
        if constexpr (W == 1) return n <= 16 ? go(warp_rows<T, W, 16>) : go(warp_rows<T, W, 32>);
    }
    if (cols <= kMaxStagedCols)
        return simt::launch(staged_rows<T, W>, blocks(rows), dim3(kThreads), cols * sizeof(float), stream, in, out,
                            rows, cols, log);
    return simt::launch(long_rows<T, W>, blocks(rows), dim3(kThreads), 0, stream, in, out, rows, cols, log);
}
template <class T>
cudaError_t run(const void* in, void* out, std::int64_t rows, std::int64_t cols, bool log, cudaStream_t stream) {
    constexpr int W = 16 / sizeof(T);
    const auto address = reinterpret_cast<std::uintptr_t>(in) | reinterpret_cast<std::uintptr_t>(out);
    const bool vector = cols % W == 0 && address % 16 == 0;
    auto *x = static_cast<const T*>(in);
    auto *y = static_cast<T*>(out);
    return vector ? run<T, W>(x, y, rows, cols, log, stream) : run<T, 1>(x, y, rows, cols, log, stream);
}

}  // namespace softmax::cuda

namespace softmax {

cudaError_t cuda_rows(DType type, const void* in, void* out, std::int64_t rows, std::int64_t cols, bool log,
                      cudaStream_t stream) {
    if (rows < 0 || cols < 0) return cudaErrorInvalidValue;
    if (rows == 0 || cols == 0) return cudaSuccess;
    switch (type) {
        case DType::f32: return cuda::run<float>(in, out, rows, cols, log, stream);
        case DType::f16: return cuda::run<__half>(in, out, rows, cols, log, stream);
        case DType::bf16: return cuda::run<__nv_bfloat16>(in, out, rows, cols, log, stream);
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace softmax
QUERN_END
