// The inputs' share of all gates in one product, then a kernel a step: a warp a hidden unit, its four rows of R read
// once for every four rows of the batch.
#include <quern/kernels/cuda/simt.hpp>
#include <quern/kernels/matmul/cuda.hpp>
#include <quern/kernels/rnn/cuda.hpp>

QUERN_BEGIN
namespace rnn::cuda {

constexpr int kThreads = 256, kWarps = kThreads / 32, kRows = 4;
constexpr std::int64_t kMost = 0x7fffffff;

struct Sum {
    __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};
struct Step {
    const float *projected, *r, *b;  // projected: [dirs][seq][batch][4 hidden]
    const float* h;                  // [dirs][batch][hidden] before the step; null: zeros
    float *h_next, *y, *y_h, *y_c;
    const float* c;  // before the step; null: zeros
    float* c_next;
    int seq, batch, hidden, step;
    bool reverse, last;
};
__device__ __forceinline__ float sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return x < 0 ? e / (1.0f + e) : 1.0f / (1.0f + e);
}

__global__ void __launch_bounds__(kThreads) lstm_step(const Step a) {
    const int lane = threadIdx.x % 32, unit = blockIdx.x * kWarps + threadIdx.x / 32, d = blockIdx.y, n = a.hidden;
    if (unit >= n) return;
    const bool back = d == 1 || a.reverse;
    const int t = back ? a.seq - 1 - a.step : a.step;
    const float* r = a.r + (std::int64_t(d) * 4 * n + unit) * n;
    for (int b0 = 0; b0 < a.batch; b0 += kRows) {
        float acc[kRows][4] = {};
        if (a.h)
            for (int k = lane; k < n; k += 32) {
                float w[4];
#pragma unroll
                for (int g = 0; g < 4; ++g) w[g] = r[std::int64_t(g) * n * n + k];
#pragma unroll
                for (int i = 0; i < kRows; ++i) {
                    if (b0 + i >= a.batch) break;
                    const float h = a.h[(std::int64_t(d) * a.batch + b0 + i) * n + k];
#pragma unroll
                    for (int g = 0; g < 4; ++g) acc[i][g] += w[g] * h;
                }
            }
        float mine[4] = {};
#pragma unroll
        for (int i = 0; i < kRows; ++i)
#pragma unroll
            for (int g = 0; g < 4; ++g) {
                const float s = simt::warp_reduce(acc[i][g], Sum{});
                if (lane == i) mine[g] = s;
            }
        const int row = b0 + lane;
        if (lane >= kRows || row >= a.batch) continue;
        const float* x = a.projected + ((std::int64_t(d) * a.seq + t) * a.batch + row) * 4 * n + unit;
#pragma unroll
        for (int g = 0; g < 4; ++g) {
            mine[g] += x[g * n];
            if (a.b) mine[g] += a.b[d * 8 * n + 4 * n + g * n + unit];
        }
        const std::int64_t at = (std::int64_t(d) * a.batch + row) * n + unit;
        const float c = sigmoid(mine[2]) * (a.c ? a.c[at] : 0.0f) + sigmoid(mine[0]) * tanhf(mine[3]);
        const float h = sigmoid(mine[1]) * tanhf(c);
        a.c_next[at] = c;
        a.h_next[at] = h;
        if (a.y) a.y[((std::int64_t(t) * gridDim.y + d) * a.batch + row) * n + unit] = h;
        if (a.last && a.y_h) a.y_h[at] = h;
        if (a.last && a.y_c) a.y_c[at] = c;
    }
}

inline std::int64_t padded(std::int64_t floats) { return (floats + 63) / 64 * 64; }
inline matmul::CudaGemm projection(const CudaLstm& l) {
    matmul::CudaGemm g;
    g.m = l.seq * l.batch, g.n = 4 * l.hidden, g.k = l.in;
    g.lda = g.ldb = l.in, g.ldc = g.n;
    g.trans_b = true;
    g.bias_col = 1;
    return g;
}

}  // namespace rnn::cuda

namespace rnn {

std::size_t cuda_lstm_scratch(const CudaLstm& l) noexcept {
    const std::int64_t state = cuda::padded(l.directions * l.batch * l.hidden);
    const std::int64_t floats = cuda::padded(l.directions * l.seq * l.batch * 4 * l.hidden) + 4 * state;
    return static_cast<std::size_t>(floats) * sizeof(float) + matmul::cuda_gemm_scratch(cuda::projection(l));
}

cudaError_t cuda_lstm(const CudaLstm& l, void* scratch, cudaStream_t stream) {
    if (l.seq < 0 || l.batch < 0 || l.in < 0 || l.hidden < 0 || l.directions < 1 || l.directions > 2 ||
        l.hidden > (1 << 16) || l.batch > (1 << 20) || l.seq > (1 << 20) ||
        l.directions * l.seq * l.batch * 4 * l.hidden > cuda::kMost)
        return cudaErrorInvalidValue;
    if (l.batch == 0 || l.hidden == 0 || l.seq == 0) return cudaSuccess;
    auto* projected = static_cast<float*>(scratch);
    const std::int64_t each = l.seq * l.batch * 4 * l.hidden, state = cuda::padded(l.directions * l.batch * l.hidden);
    float* states = projected + cuda::padded(l.directions * each);
    for (std::int64_t d = 0; d < l.directions; ++d) {
        matmul::CudaGemm g = cuda::projection(l);
        g.a = l.x;
        g.b = l.w + d * 4 * l.hidden * l.in;
        g.bias = l.b ? l.b + d * 8 * l.hidden : nullptr;
        g.c = projected + d * each;
        if (cudaError_t e = matmul::cuda_gemm(g, states + 4 * state, stream); e != cudaSuccess) return e;
    }
    cuda::Step s{};
    s.projected = projected, s.r = l.r, s.b = l.b;
    s.h = l.h0, s.c = l.c0;
    s.y = l.y, s.y_h = l.y_h, s.y_c = l.y_c;
    s.seq = static_cast<int>(l.seq), s.batch = static_cast<int>(l.batch), s.hidden = static_cast<int>(l.hidden);
    s.reverse = l.reverse;
    const dim3 grid(static_cast<unsigned>((l.hidden + cuda::kWarps - 1) / cuda::kWarps),
                    static_cast<unsigned>(l.directions));
    for (std::int64_t t = 0; t < l.seq; ++t) {
        s.step = static_cast<int>(t);
        s.last = t + 1 == l.seq;
        s.h_next = states + (t & 1) * state;
        s.c_next = states + (2 + (t & 1)) * state;
        if (cudaError_t e = simt::launch(cuda::lstm_step, grid, dim3(cuda::kThreads), 0, stream, s); e != cudaSuccess)
            return e;
        s.h = s.h_next;
        s.c = s.c_next;
    }
    return cudaSuccess;
}

}  // namespace rnn
QUERN_END
