#include <quern/kernels/cuda/simt.hpp>

#include "faults.hpp"

namespace faults {
namespace {

constexpr int kLineExchange = __LINE__ + 7;
template <bool Sound>
__global__ void exchange(const float* in, float* out) {
    __shared__ float s[threads];
    const int t = threadIdx.x;
    s[t] = in[t];
    if (Sound) __syncthreads();
    const float v = s[threads - 1 - t];
    out[threads - 1 - t] = v;
}

constexpr int kLineRounds = __LINE__ + 7;
template <bool Sound>
__global__ void rounds(const float* in, float* out) {
    float* s = quern::simt::dynamic_smem<float>();
    const int t = threadIdx.x;
    float v = in[t];
    for (int i = 0; i < 2; ++i) {
        s[t] = v;
        __syncthreads();
        v = s[threads - 1 - t];
        if (Sound) __syncthreads();
    }
    out[t] = v;
}

constexpr int kLineStore = __LINE__ + 4;
template <bool Sound>
__global__ void store(const float* in, float* out) {
    const int t = threadIdx.x;
    out[t + !Sound] = in[t];
}

constexpr int kLineDivergent = __LINE__ + 6;
template <bool Sound>
__global__ void divergent(const float* in, float* out) {
    __shared__ float s[threads];
    const int t = threadIdx.x;
    s[t] = in[t];
    if (Sound || t / 32 != 1) __syncthreads();
    out[t] = s[t];
}

constexpr int kLineExit = __LINE__ + 6;
template <bool Sound>
__global__ void exits(const float* in, float* out) {
    const int t = threadIdx.x;
    if (!Sound && t % 32 >= 16) return;
    float v = in[t];
    v = __shfl_xor_sync(0xffffffffu, v, 1);
    out[t ^ 1] = v;
}

constexpr int kLineBlocks = __LINE__ + 4;
template <bool Sound>
__global__ void blocks(const float* in, float* out) {
    const int t = threadIdx.x;
    if (!Sound || t / 64 == static_cast<int>(blockIdx.x)) out[t] = in[t];
}

constexpr int kLineSyncwarp = __LINE__ + 7;
template <bool Sound>
__global__ void neighbours(const float* in, float* out) {
    __shared__ float s[threads];
    const int t = threadIdx.x;
    s[t] = in[t];
    if (Sound) __syncwarp();
    const float v = s[t ^ 1];
    out[t ^ 1] = v;
}

constexpr int kLineVector = __LINE__ + 5;
template <bool Sound>
__global__ void vectors(const float* in, float* out) {
    const int t = threadIdx.x;
    if (t >= (Sound ? size / 4 : size / 4 - 1)) return;
    const float4 v = quern::simt::load4(in + 4 * t + !Sound);
    quern::simt::store4(out + 4 * t, v);
}

constexpr int kLineArray = __LINE__ + 5;
template <bool Sound>
__global__ void array(const float* in, float* out) {
    __shared__ float s[threads];
    const int t = threadIdx.x;
    s[t + !Sound] = in[t];
    __syncthreads();
    out[t] = s[t];
}

// Two buffers in turn: values of the first half of the block go through one, of the second through the other. Without
// the second barrier a writer is two rounds ahead of a reader.
constexpr int kLineBuffers = __LINE__ + 9;
template <bool Sound>
__global__ void buffers(const float* in, float* out) {
    float* s = quern::simt::dynamic_smem<float>();
    const int t = threadIdx.x, n = threads / 2;
    float v = in[t];
    for (int i = 0; i < 4; ++i) {
        if (t < n) s[i % 2 * n + t] = v + static_cast<float>(i);
        if (Sound || i == 0) __syncthreads();
        if (t >= n) v = s[i % 2 * n + threads - 1 - t] - static_cast<float>(i);
    }
    out[t < n ? t : threads - 1 - t + n] = t < n ? v : v + static_cast<float>(n);
}

constexpr int kLineCopy = __LINE__ + 5;
template <bool Sound>
__global__ void copies(const float* in, float* out) {
    float* s = quern::simt::dynamic_smem<float>();
    const int t = threadIdx.x;
    quern::simt::cp_async<4>(s + t, in + t, true);
    quern::simt::cp_async_commit();
    quern::simt::cp_async_wait<Sound ? 0 : 1>();
    out[t] = s[t];
    quern::simt::cp_async_wait<0>();
}

constexpr int kLineUnwaited = __LINE__ + 5;
template <bool Sound>
__global__ void unwaited(const float* in, float* out) {
    float* s = quern::simt::dynamic_smem<float>();
    const int t = threadIdx.x;
    quern::simt::cp_async<4>(s + t, in + t, true);
    quern::simt::cp_async_commit();
    if (Sound) quern::simt::cp_async_wait<0>();
    out[t] = in[t];
}

using Kernel = void(const float*, float*);
template <Kernel* S, Kernel* B, unsigned Blocks = 1>
cudaError_t launch(bool sound, const float* in, float* out) {
    return quern::simt::launch(sound ? S : B, dim3(Blocks), dim3(threads), threads * sizeof(float), nullptr, in, out);
}

}  // namespace

const Planted missing_barrier{"missing barrier", launch<exchange<true>, exchange<false>>, kLineExchange};
const Planted missing_second_barrier{"missing second barrier", launch<rounds<true>, rounds<false>>, kLineRounds};
const Planted out_of_bounds_store{"out-of-bounds store", launch<store<true>, store<false>>, kLineStore};
const Planted divergent_barrier{"divergent barrier", launch<divergent<true>, divergent<false>>, kLineDivergent};
const Planted early_exit{"early exit", launch<exits<true>, exits<false>>, kLineExit};
const Planted two_blocks{"two blocks", launch<blocks<true>, blocks<false>, 2>, kLineBlocks};
const Planted missing_syncwarp{"missing syncwarp", launch<neighbours<true>, neighbours<false>>, kLineSyncwarp};
const Planted misaligned_vector{"misaligned vector", launch<vectors<true>, vectors<false>>, kLineVector};
const Planted missing_buffer_barrier{"missing barrier between buffers", launch<buffers<true>, buffers<false>>,
                                     kLineBuffers};
const Planted early_copy_read{"early read of a copy", launch<copies<true>, copies<false>>, kLineCopy};
const Planted unfinished_copy{"unfinished copy", launch<unwaited<true>, unwaited<false>>, kLineUnwaited};
const Planted static_array_overrun{"static array overrun", launch<array<true>, array<false>>, kLineArray};

cudaError_t launch_too_many_threads() {
    return quern::simt::launch(store<true>, dim3(1), dim3(1025), 0, nullptr, nullptr, nullptr);
}

}  // namespace faults
