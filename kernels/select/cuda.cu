// TopK: a block a row. The best so far stay sorted in shared memory; what follows is brought beside them in pieces, and
// sorted with them where some element is better than the last of the best.
#include <quern/kernels/cuda/simt.hpp>
#include <quern/kernels/select/cuda.hpp>

QUERN_BEGIN
namespace selection::cuda {

using Key = unsigned long long;
constexpr int kThreads = 256;
constexpr std::int64_t kMost = 0x7fffffff;

struct TopK {
    const unsigned *x;
    unsigned* values;
    std::int64_t* positions;
    unsigned rows, n, k, span, kept;  // span: keys in shared memory, a power of two; kept: the best of them
    std::int64_t inner;
    simt::Divisor per_outer;
    bool largest, whole;
};

// Larger for what comes first; no two of a row are equal, and none is 0.
__device__ __forceinline__ Key key_of(const TopK& a, unsigned bits, unsigned position) {
    unsigned order;
    if (a.whole) {
        order = bits ^ 0x80000000u;
    } else {
        if ((bits & 0x7fffffffu) == 0) bits = 0;
        order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
        if ((bits & 0x7fffffffu) > 0x7f800000u) order = 0xffffffffu;
    }
    if (!a.largest) order = ~order;
    return Key(order) << 32 | (0xffffffffu - position);
}

__device__ __forceinline__ void sort_descending(Key* s, unsigned span) {
    for (unsigned size = 2; size <= span; size *= 2)
        for (unsigned stride = size / 2; stride > 0; stride /= 2) {
            __syncthreads();
            for (unsigned t = threadIdx.x; t < span / 2; t += kThreads) {
                const unsigned i = 2 * t - (t & (stride - 1)), j = i + stride;
                const Key p = s[i], q = s[j];
                if ((p < q) == ((i & size) == 0)) s[i] = q, s[j] = p;
            }
        }
    __syncthreads();
}

__global__ void __launch_bounds__(kThreads) top_k(const TopK a) {
    Key* s = simt::dynamic_smem<Key>();
    const unsigned outer = a.per_outer.divide(blockIdx.x), r = blockIdx.x - outer * a.per_outer.divisor;
    const unsigned* x = a.x + std::int64_t(outer) * a.n * a.inner + r;
    const unsigned room = a.span - a.kept;
    for (unsigned i = threadIdx.x; i < a.kept; i += kThreads) s[i] = 0;
    __syncthreads();
    for (unsigned from = 0; from < a.n; from += room) {
        const Key last = s[a.k - 1];
        int better = 0;
        for (unsigned i = threadIdx.x; i < room; i += kThreads) {
            const unsigned at = from + i;
            const Key key = at < a.n ? key_of(a, x[at * a.inner], at) : 0;
            s[a.kept + i] = key;
            better |= key > last;
        }
        if (__syncthreads_or(better)) sort_descending(s, a.span);
    }
    for (unsigned i = threadIdx.x; i < a.k; i += kThreads) {
        const unsigned position = 0xffffffffu - static_cast<unsigned>(s[i]);
        const std::int64_t to = (std::int64_t(outer) * a.k + i) * a.inner + r;
        if (a.values) a.values[to] = x[position * a.inner];
        if (a.positions) a.positions[to] = position;
    }
}

}  // namespace selection::cuda

namespace selection {

cudaError_t cuda_top_k(const CudaTopK& c, cudaStream_t stream) {
    if (c.outer < 0 || c.inner < 0 || c.k < 0 || c.k > c.n || c.k > max_cuda_k || c.n > cuda::kMost ||
        c.outer * c.n * c.inner > cuda::kMost)
        return cudaErrorInvalidValue;
    if (c.outer * c.inner * c.k == 0) return cudaSuccess;
    cuda::TopK a{};
    a.x = static_cast<const unsigned*>(c.x), a.values = static_cast<unsigned*>(c.values), a.positions = c.positions;
    a.rows = static_cast<unsigned>(c.outer * c.inner), a.n = static_cast<unsigned>(c.n);
    a.k = static_cast<unsigned>(c.k), a.inner = c.inner, a.per_outer = simt::Divisor(c.inner);
    a.largest = c.largest, a.whole = c.whole;
    a.kept = 1;
    while (a.kept < a.k) a.kept *= 2;
    a.span = 256;
    while (a.span < 2 * a.kept || (a.span < 2048 && a.span < a.n + a.kept)) a.span *= 2;
    return simt::launch(cuda::top_k, dim3(a.rows), dim3(cuda::kThreads), a.span * sizeof(cuda::Key), stream, a);
}

}  // namespace selection
QUERN_END
