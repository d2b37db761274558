// Rows by a warp or a block each, columns by 32 x 8 threads.
#include <quern/kernels/cuda/simt.hpp>
#include <quern/kernels/reduce/cuda.hpp>

QUERN_BEGIN
namespace reduce::cuda {

constexpr int kThreads = 256, kColumns = 32, kRows = kThreads / kColumns;
constexpr std::int64_t kMost = 0x7fffffff;

// `a` is the value; for log_sum_exp the largest element, and `b` the sum of exp(x - a).
struct State {
    float a, b;
};
__device__ __forceinline__ float larger(float x, float y) { return x > y || x != x ? x : y; }
__device__ __forceinline__ float smaller(float x, float y) { return x < y || x != x ? x : y; }
__device__ __forceinline__ State start(CudaOp op) {
    switch (op) {
        case CudaOp::max:
        case CudaOp::log_sum_exp: return {-INFINITY, 0};
        case CudaOp::min: return {INFINITY, 0};
        case CudaOp::prod: return {1, 0};
        default: return {0, 0};
    }
}
__device__ __forceinline__ State join(CudaOp op, State x, State y) {
    switch (op) {
        case CudaOp::max: return {larger(x.a, y.a), 0};
        case CudaOp::min: return {smaller(x.a, y.a), 0};
        case CudaOp::prod: return {x.a * y.a, 0};
        case CudaOp::log_sum_exp: {
            const float m = larger(x.a, y.a);
            if (m == -INFINITY || m == INFINITY) return {m, x.b + y.b};
            return {m, x.b * expf(x.a - m) + y.b * expf(y.a - m)};
        }
        default: return {x.a + y.a, 0};
    }
}
__device__ __forceinline__ State lift(CudaOp op, float v) {
    switch (op) {
        case CudaOp::l1: return {fabsf(v), 0};
        case CudaOp::l2:
        case CudaOp::sum_square: return {v * v, 0};
        case CudaOp::log_sum_exp: return {v, 1};
        default: return {v, 0};
    }
}
__device__ __forceinline__ float finish(CudaOp op, State s, std::int64_t n) {
    switch (op) {
        case CudaOp::mean: return s.a / static_cast<float>(n);
        case CudaOp::l2: return sqrtf(s.a);
        case CudaOp::log_sum: return logf(s.a);
        case CudaOp::log_sum_exp: return s.a == -INFINITY || s.a == INFINITY ? s.a : s.a + logf(s.b);
        default: return s.a;
    }
}
__device__ __forceinline__ State warp_join(CudaOp op, State s) {
#pragma unroll
    for (int m = 16; m > 0; m >>= 1) {
        const State o{__shfl_xor_sync(0xffffffffu, s.a, m), __shfl_xor_sync(0xffffffffu, s.b, m)};
        s = threadIdx.x & m ? join(op, o, s) : join(op, s, o);
    }
    return s;
}

// Block: a block a row, else a warp a row.
template <bool Block, int W>
__global__ void __launch_bounds__(kThreads)
    rows(CudaOp op, const float* x, float* y, std::int64_t count, std::int64_t n) {
    __shared__ State part[kThreads / 32];
    constexpr int per = Block ? 1 : kThreads / 32, width = Block ? kThreads : 32;
    const int warp = threadIdx.x / 32, at = Block ? threadIdx.x : threadIdx.x % 32;
    for (std::int64_t r = std::int64_t(blockIdx.x) * per + (Block ? 0 : warp); r < count;
         r += std::int64_t(gridDim.x) * per) {
        State s = start(op);
        for (std::int64_t i = at * W; i < n; i += width * W) {
            float v[W];
            simt::load_pack(x + r * n + i, v);
#pragma unroll
            for (int j = 0; j < W; ++j) s = join(op, s, lift(op, v[j]));
        }
        s = warp_join(op, s);
        if constexpr (Block) {
            if (threadIdx.x % 32 == 0) part[warp] = s;
            __syncthreads();
            s = part[0];
#pragma unroll
            for (int i = 1; i < kThreads / 32; ++i) s = join(op, s, part[i]);
            __syncthreads();
        }
        if (at == 0) y[r] = finish(op, s, n);
    }
}

__global__ void __launch_bounds__(kThreads)
    columns(CudaOp op, const float* x, float* y, std::int64_t n, std::int64_t inner, unsigned groups) {
    __shared__ State part[kRows][kColumns];
    const unsigned outer = blockIdx.x / groups;
    const int lane = threadIdx.x % kColumns, row = threadIdx.x / kColumns;
    const std::int64_t column = std::int64_t(blockIdx.x - outer * groups) * kColumns + lane;
    State s = start(op);
    if (column < inner)
        for (std::int64_t i = row; i < n; i += kRows) s = join(op, s, lift(op, x[(outer * n + i) * inner + column]));
    part[row][lane] = s;
    __syncthreads();
    if (row > 0 || column >= inner) return;
#pragma unroll
    for (int i = 1; i < kRows; ++i) s = join(op, s, part[i][lane]);
    y[outer * inner + column] = finish(op, s, n);
}

struct Found {
    float value;
    int index;
};
__device__ __forceinline__ bool better(const Found& a, const Found& b, bool max, bool last) {
    if (a.value != b.value || a.value != a.value) return max ? a.value > b.value : a.value < b.value;
    return last ? a.index > b.index : a.index < b.index;
}
// A warp an output.
__global__ void __launch_bounds__(kThreads) arguments(const float* x, std::int64_t* y, std::int64_t count,
                                                      std::int64_t n, std::int64_t inner, bool max, bool last) {
    const int lane = threadIdx.x % 32;
    for (std::int64_t o = std::int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32; o < count;
         o += std::int64_t(gridDim.x) * (kThreads / 32)) {
        const float* p = x + o / inner * n * inner + o % inner;
        // All lanes begin with the first element, so that a NaN there stays as it does where one loop runs through.
        Found best{p[0], 0};
        for (std::int64_t i = lane; i < n; i += 32) {
            const Found f{p[i * inner], static_cast<int>(i)};
            if (better(f, best, max, last)) best = f;
        }
#pragma unroll
        for (int m = 16; m > 0; m >>= 1) {
            const Found f{__shfl_xor_sync(0xffffffffu, best.value, m), __shfl_xor_sync(0xffffffffu, best.index, m)};
            if (better(f, best, max, last)) best = f;
        }
        if (lane == 0) y[o] = best.index;
    }
}

inline bool fits(std::int64_t outer, std::int64_t n, std::int64_t inner) {
    if (outer < 0 || n < 0 || inner < 0) return false;
    if (outer == 0 || inner == 0) return true;
    return outer <= kMost / inner && (n == 0 || outer * inner <= kMost / n);
}
inline dim3 blocks(std::int64_t n) { return dim3(static_cast<unsigned>(n < (1 << 20) ? n : 1 << 20)); }

}  // namespace reduce::cuda

namespace reduce {

cudaError_t cuda_reduce(CudaOp op, const float* x, float* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
                        cudaStream_t stream) {
    if (!cuda::fits(outer, n, inner)) return cudaErrorInvalidValue;
    if (outer * inner == 0) return cudaSuccess;
    const dim3 threads(cuda::kThreads);
    if (inner > 1 && n > 0) {
        const std::int64_t groups = (inner + cuda::kColumns - 1) / cuda::kColumns;
        if (groups * outer > cuda::kMost) return cudaErrorInvalidValue;
        return simt::launch(cuda::columns, dim3(static_cast<unsigned>(groups * outer)), threads, 0, stream, op, x, y, n,
                            inner, static_cast<unsigned>(groups));
    }
    const std::int64_t count = outer * inner;
    const bool vector = n % 4 == 0 && reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
    if (n > 2048)
        return simt::launch(vector ? cuda::rows<true, 4> : cuda::rows<true, 1>, cuda::blocks(count), threads, 0, stream,
                            op, x, y, count, n);
    constexpr int per = cuda::kThreads / 32;
    return simt::launch(vector ? cuda::rows<false, 4> : cuda::rows<false, 1>, cuda::blocks((count + per - 1) / per),
                        threads, 0, stream, op, x, y, count, n);
}

cudaError_t cuda_arg(const float* x, std::int64_t* y, std::int64_t outer, std::int64_t n, std::int64_t inner, bool max,
                     bool last, cudaStream_t stream) {
    if (!cuda::fits(outer, n, inner) || n < 1) return cudaErrorInvalidValue;
    const std::int64_t count = outer * inner;
    if (count == 0) return cudaSuccess;
    constexpr int per = cuda::kThreads / 32;
    return simt::launch(cuda::arguments, cuda::blocks((count + per - 1) / per), dim3(cuda::kThreads), 0, stream, x, y,
                        count, n, inner, max, last);
}

}  // namespace reduce
QUERN_END
