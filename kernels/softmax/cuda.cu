// Row softmax, f32: a warp a row in registers (up to 1024 columns), a block a row staged in shared memory (as far as
// 48 KB go), a block a row with a running maximum and sum beyond that. The first two read each value once.
#include <quern/kernels/cuda/simt.hpp>
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

// W = 4: a 16-byte access, for pointers aligned to it.
template <int W>
__device__ __forceinline__ void load(const float* p, float* v) {
    if constexpr (W == 4) {
        const float4 q = simt::load4(p);
        v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
    } else {
        v[0] = *p;
    }
}
template <int W>
__device__ __forceinline__ void store(float* p, const float* v) {
    if constexpr (W == 4) simt::store4(p, make_float4(v[0], v[1], v[2], v[3]));
    else *p = v[0];
}

// Lane l holds the N accesses at (l + 32 i) W; what lies beyond the row is -inf, which adds nothing.
template <int W, int N>
__global__ void __launch_bounds__(32 * kWarpsPerBlock)
    warp_rows(const float* in, float* out, std::int64_t rows, int cols, bool log) {
    const int lane = threadIdx.x % 32;
    const std::int64_t step = std::int64_t(gridDim.x) * kWarpsPerBlock;
    for (std::int64_t r = std::int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32; r < rows; r += step) {
        const float* x = in + r * cols;
        float* y = out + r * cols;
        float v[N * W];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int c = (lane + 32 * i) * W;
            if (c < cols) load<W>(x + c, v + i * W);
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
            if (c < cols) store<W>(y + c, v + i * W);
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
template <int W>
__global__ void __launch_bounds__(kThreads)
    staged_rows(const float* in, float* out, std::int64_t rows, int cols, bool log) {
    __shared__ float part[kThreads / 32];
    float* row = simt::dynamic_smem<float>();
    const int first = threadIdx.x * W;
    for (std::int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const float* x = in + r * cols;
        float* y = out + r * cols;
        float m = -INFINITY;
        for (int c = first; c < cols; c += kThreads * W) {
            float v[W];
            load<W>(x + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) m = fmaxf(m, v[j]);
            store<W>(row + c, v);
        }
        m = block_reduce(m, part, Max{});
        float s = 0;
        for (int c = first; c < cols; c += kThreads * W) {
            float v[W];
            load<W>(row + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) {
                v[j] -= m;
                const float e = expf(v[j]);
                s += e;
                if (!log) v[j] = e;
            }
            store<W>(row + c, v);
        }
        s = block_reduce(s, part, Sum{});
        const float scale = 1.0f / s, shift = logf(s);
        for (int c = first; c < cols; c += kThreads * W) {
            float v[W];
            load<W>(row + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) v[j] = log ? v[j] - shift : v[j] * scale;
            store<W>(y + c, v);
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

template <int W>
__global__ void __launch_bounds__(kThreads)
    long_rows(const float* in, float* out, std::int64_t rows, std::int64_t cols, bool log) {
    __shared__ float part[kThreads / 32];
    const std::int64_t first = threadIdx.x * W;
    for (std::int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const float* x = in + r * cols;
        float* y = out + r * cols;
        Running run;
        for (std::int64_t c = first; c < cols; c += kThreads * W) {
            float v[W];
            load<W>(x + c, v);
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
            load<W>(x + c, v);
#pragma unroll
            for (int j = 0; j < W; ++j) v[j] = log ? v[j] - m - shift : expf(v[j] - m) * scale;
            store<W>(y + c, v);
        }
    }
}

inline dim3 blocks(std::int64_t n) { return dim3(static_cast<unsigned>(n < kMaxBlocks ? n : kMaxBlocks)); }

template <int W>
cudaError_t rows_f32(const float* in, float* out, std::int64_t rows, std::int64_t cols, bool log, cudaStream_t stream) {
    if (cols <= 1024) {
        auto go = [&](auto kernel) {
            const dim3 grid = blocks((rows + kWarpsPerBlock - 1) / kWarpsPerBlock);
            return simt::launch(kernel, grid, dim3(32 * kWarpsPerBlock), 0, stream, in, out, rows, cols, log);
        };
        const std::int64_t n = (cols + 32 * W - 1) / (32 * W);
        if (n <= 1) return go(warp_rows<W, 1>);
        if (n <= 2) return go(warp_rows<W, 2>);
        if (n <= 4) return go(warp_rows<W, 4>);
        if (n <= 8) return go(warp_rows<W, 8>);
        if constexpr (W == 1) return n <= 16 ? go(warp_rows<W, 16>) : go(warp_rows<W, 32>);
    }
    if (cols <= kMaxStagedCols)
        return simt::launch(staged_rows<W>, blocks(rows), dim3(kThreads), cols * sizeof(float), stream, in, out, rows,
                            cols, log);
    return simt::launch(long_rows<W>, blocks(rows), dim3(kThreads), 0, stream, in, out, rows, cols, log);
}

}  // namespace softmax::cuda

namespace softmax {

cudaError_t cuda_rows_f32(const float* in, float* out, std::int64_t rows, std::int64_t cols, bool log,
                          cudaStream_t stream) {
    if (rows < 0 || cols < 0) return cudaErrorInvalidValue;
    if (rows == 0 || cols == 0) return cudaSuccess;
    const auto address = reinterpret_cast<std::uintptr_t>(in) | reinterpret_cast<std::uintptr_t>(out);
    if (cols % 4 == 0 && address % 16 == 0) return cuda::rows_f32<4>(in, out, rows, cols, log, stream);
    return cuda::rows_f32<1>(in, out, rows, cols, log, stream);
}

}  // namespace softmax
QUERN_END
