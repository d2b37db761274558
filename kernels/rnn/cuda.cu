// The inputs' share of all gates in one product, then a kernel a step: a warp a hidden unit, its rows of R read once for
// every four rows of the batch.
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
// What a kernel computes. gru_gates leaves z and r * h, of which gru_state takes its product.
enum class Part { lstm, gru_linear, gru_gates, gru_state, rnn };
template <Part P>
inline constexpr int first_gate = P == Part::gru_state ? 2 : 0;
template <Part P>
inline constexpr int part_gates = P == Part::lstm ? 4 : P == Part::gru_linear ? 3 : P == Part::gru_gates ? 2 : 1;

struct Step {
    const float *projected, *r, *b;  // projected: [dirs][seq][batch][all hidden]
    const float* h;                  // [dirs][batch][hidden] before the step; null: zeros
    float *h_next, *y, *y_h, *y_c;
    const float* c;  // before the step; null: zeros
    float *c_next, *z, *reset;
    int seq, batch, hidden, step, all;  // all: gates of the cell
    bool reverse, last;
};
__device__ __forceinline__ float sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return x < 0 ? e / (1.0f + e) : 1.0f / (1.0f + e);
}

// Lane i < kRows: of row i, the products of its state with the G rows of R that are `apart` floats from each other.
template <int G>
__device__ __forceinline__ void gate_sums(const float* r, std::int64_t apart, const float* h, int rows, int n, int lane,
                                          float (&mine)[G]) {
    float acc[kRows][G] = {};
    if (h)
        for (int k = lane; k < n; k += 32) {
            float w[G];
#pragma unroll
            for (int g = 0; g < G; ++g) w[g] = r[g * apart + k];
#pragma unroll
            for (int i = 0; i < kRows; ++i) {
                if (i >= rows) break;
                const float v = h[std::int64_t(i) * n + k];
#pragma unroll
                for (int g = 0; g < G; ++g) acc[i][g] += w[g] * v;
            }
        }
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int g = 0; g < G; ++g) {
            const float s = simt::warp_reduce(acc[i][g], Sum{});
            if (lane == i) mine[g] = s;
        }
}

template <Part P>
__global__ void __launch_bounds__(kThreads, 4) rnn_step(const Step a) {
    constexpr int G = part_gates<P>, first = first_gate<P>;
    const int lane = threadIdx.x % 32, unit = blockIdx.x * kWarps + threadIdx.x / 32, d = blockIdx.y, n = a.hidden;
    if (unit >= n) return;
    const bool back = d == 1 || a.reverse;
    const int t = back ? a.seq - 1 - a.step : a.step;
    const float* r = a.r + (std::int64_t(d) * a.all * n + first * n + unit) * n;
    const float* b = a.b ? a.b + std::int64_t(d) * 2 * a.all * n + (a.all + first) * n + unit : nullptr;
    for (int b0 = 0; b0 < a.batch; b0 += kRows) {
        const std::int64_t rows = std::int64_t(d) * a.batch + b0;
        const float* state = P == Part::gru_state ? a.reset : a.h;
        float sum[G] = {};
        gate_sums<G>(r, std::int64_t(n) * n, state ? state + rows * n : nullptr, a.batch - b0, n, lane, sum);
        if (lane >= kRows || b0 + lane >= a.batch) continue;
        const float* x = a.projected +
                         ((std::int64_t(d) * a.seq + t) * a.batch + b0 + lane) * a.all * n + first * n + unit;
        float in[G];
#pragma unroll
        for (int g = 0; g < G; ++g) {
            in[g] = x[g * n];
            if (b) sum[g] += b[g * n];
        }
        const std::int64_t at = (rows + lane) * n + unit;
        const float before = a.h ? a.h[at] : 0.0f;
        float h = 0;
        if constexpr (P == Part::lstm) {
            const float c = sigmoid(in[2] + sum[2]) * (a.c ? a.c[at] : 0.0f) +
                            sigmoid(in[0] + sum[0]) * tanhf(in[3] + sum[3]);
            h = sigmoid(in[1] + sum[1]) * tanhf(c);
            a.c_next[at] = c;
            if (a.last && a.y_c) a.y_c[at] = c;
        } else if constexpr (P == Part::gru_linear) {
            const float z = sigmoid(in[0] + sum[0]), reset = sigmoid(in[1] + sum[1]);
            h = (1.0f - z) * tanhf(in[2] + reset * sum[2]) + z * before;
        } else if constexpr (P == Part::gru_gates) {
            a.z[at] = sigmoid(in[0] + sum[0]);
            a.reset[at] = sigmoid(in[1] + sum[1]) * before;
            continue;
        } else if constexpr (P == Part::gru_state) {
            h = (1.0f - a.z[at]) * tanhf(in[0] + sum[0]) + a.z[at] * before;
        } else {
            h = tanhf(in[0] + sum[0]);
        }
        a.h_next[at] = h;
        if (a.y) a.y[((std::int64_t(t) * gridDim.y + d) * a.batch + b0 + lane) * n + unit] = h;
        if (a.last && a.y_h) a.y_h[at] = h;
    }
}

inline std::int64_t padded(std::int64_t floats) { return (floats + 63) / 64 * 64; }
inline matmul::CudaGemm projection(const CudaRnn& l) {
    matmul::CudaGemm g;
    g.m = l.seq * l.batch, g.n = cuda_gates(l.cell) * l.hidden, g.k = l.in;
    g.lda = g.ldb = l.in, g.ldc = g.n;
    g.trans_b = true;
    g.bias_col = 1;
    return g;
}
// Of h, and of c or of z and r * h, before and after a step.
constexpr int kStates = 4;

}  // namespace rnn::cuda

namespace rnn {

std::size_t cuda_rnn_scratch(const CudaRnn& l) noexcept {
    const std::int64_t state = cuda::padded(l.directions * l.batch * l.hidden);
    const std::int64_t floats =
        cuda::padded(l.directions * l.seq * l.batch * cuda_gates(l.cell) * l.hidden) + cuda::kStates * state;
    return static_cast<std::size_t>(floats) * sizeof(float) + matmul::cuda_gemm_scratch(cuda::projection(l));
}

cudaError_t cuda_rnn(const CudaRnn& l, void* scratch, cudaStream_t stream) {
    const std::int64_t gates = cuda_gates(l.cell);
    if (l.seq < 0 || l.batch < 0 || l.in < 0 || l.hidden < 0 || l.directions < 1 || l.directions > 2 ||
        l.hidden > (1 << 16) || l.batch > (1 << 20) || l.seq > (1 << 20) ||
        l.directions * l.seq * l.batch * gates * l.hidden > cuda::kMost)
        return cudaErrorInvalidValue;
    if (l.batch == 0 || l.hidden == 0 || l.seq == 0) return cudaSuccess;
    auto* projected = static_cast<float*>(scratch);
    const std::int64_t each = l.seq * l.batch * gates * l.hidden, state = cuda::padded(l.directions * l.batch * l.hidden);
    float* states = projected + cuda::padded(l.directions * each);
    for (std::int64_t d = 0; d < l.directions; ++d) {
        matmul::CudaGemm g = cuda::projection(l);
        g.a = l.x;
        g.b = l.w + d * gates * l.hidden * l.in;
        g.bias = l.b ? l.b + d * 2 * gates * l.hidden : nullptr;
        g.c = projected + d * each;
        if (cudaError_t e = matmul::cuda_gemm(g, states + cuda::kStates * state, stream); e != cudaSuccess) return e;
    }
    cuda::Step s{};
    s.projected = projected, s.r = l.r, s.b = l.b;
    s.h = l.h0, s.c = l.c0;
    s.y = l.y, s.y_h = l.y_h, s.y_c = l.y_c;
    s.seq = static_cast<int>(l.seq), s.batch = static_cast<int>(l.batch), s.hidden = static_cast<int>(l.hidden);
    s.all = static_cast<int>(gates);
    s.reverse = l.reverse;
    s.z = states + 2 * state, s.reset = states + 3 * state;
    const dim3 grid(static_cast<unsigned>((l.hidden + cuda::kWarps - 1) / cuda::kWarps),
                    static_cast<unsigned>(l.directions));
    const auto enqueue = [&](void (*kernel)(cuda::Step)) {
        return simt::launch(kernel, grid, dim3(cuda::kThreads), 0, stream, s);
    };
    using cuda::Part;
    for (std::int64_t t = 0; t < l.seq; ++t) {
        s.step = static_cast<int>(t);
        s.last = t + 1 == l.seq;
        s.h_next = states + (t & 1) * state;
        s.c_next = states + (2 + (t & 1)) * state;
        cudaError_t e = cudaSuccess;
        switch (l.cell) {
            case CudaCell::lstm: e = enqueue(cuda::rnn_step<Part::lstm>); break;
            case CudaCell::gru_linear: e = enqueue(cuda::rnn_step<Part::gru_linear>); break;
            case CudaCell::rnn: e = enqueue(cuda::rnn_step<Part::rnn>); break;
            case CudaCell::gru:
                e = enqueue(cuda::rnn_step<Part::gru_gates>);
                if (e == cudaSuccess) e = enqueue(cuda::rnn_step<Part::gru_state>);
        }
        if (e != cudaSuccess) return e;
        s.h = s.h_next;
        s.c = s.c_next;
    }
    return cudaSuccess;
}

}  // namespace rnn
QUERN_END
