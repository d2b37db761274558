// Rotary position embedding: a thread turns W pairs of a head, or copies 2 W of the values that stay.
#include <quern/kernels/attention/cuda.hpp>
#include <quern/kernels/cuda/half.hpp>

QUERN_BEGIN
namespace attention::cuda {

constexpr int kThreads = 256;
constexpr std::int64_t kMost = 0x7fffffff;

struct Rotary : CudaRotary {
    unsigned count;  // of units
    simt::Divisor by_units, by_inner, by_outer;  // units of a head; heads or positions, inner first
};

template <class T, int W, bool Interleaved>
__global__ void __launch_bounds__(kThreads) rotate(const Rotary a) {
    unsigned i = blockIdx.x * kThreads + threadIdx.x;
    if (i >= a.count) return;
    const unsigned row = a.by_units.split(i);  // a head at one position; i: the unit in it
    const int half = static_cast<int>(a.half), from = static_cast<int>(i) * W;
    unsigned inner = row;
    unsigned outer = a.by_inner.split(inner);
    const unsigned batch = a.by_outer.split(outer), head = a.heads_first ? outer : inner, position = a.heads_first ? inner : outer;
    const T* x = static_cast<const T*>(a.x) + (batch * a.x_at.batch + head * a.x_at.head + position * a.x_at.row);
    T* y = static_cast<T*>(a.y) + (batch * a.y_at.batch + head * a.y_at.head + position * a.y_at.row);
    float p[W], q[W];
    if (from >= half) {
        const int c = 2 * from;
        quern::cuda::load_wide<W>(x + c, p);
        quern::cuda::store_wide<W>(y + c, p);
        if (c + W < a.d) {
            quern::cuda::load_wide<W>(x + c + W, q);
            quern::cuda::store_wide<W>(y + c + W, q);
        }
        return;
    }
    const unsigned s = batch * static_cast<unsigned>(a.length) + position;
    const std::int64_t at = a.ids ? a.ids[s] : s;
    float cosine[W] = {}, sine[W] = {};
    if (at >= 0 && at < a.positions) {
        quern::cuda::load_wide<W>(static_cast<const T*>(a.cosine) + at * half + from, cosine);
        quern::cuda::load_wide<W>(static_cast<const T*>(a.sine) + at * half + from, sine);
    }
    const int first = Interleaved ? 2 * from : from, second = Interleaved ? 2 * from + W : half + from;
    quern::cuda::load_wide<W>(x + first, p);
    quern::cuda::load_wide<W>(x + second, q);
    float u[W], v[W];
    if constexpr (Interleaved) {
#pragma unroll
        for (int k = 0; k < W; ++k) {  // element 2 k of both packs in a row, and its neighbour
            const int e = 2 * k, f = e + 1;
            const float l = e < W ? p[e % W] : q[e % W], r = f < W ? p[f % W] : q[f % W];
            const float turned = cosine[k] * l - sine[k] * r, other = sine[k] * l + cosine[k] * r;
            (e < W ? u[e % W] : v[e % W]) = turned;
            (f < W ? u[f % W] : v[f % W]) = other;
        }
    } else {
#pragma unroll
        for (int k = 0; k < W; ++k) {
            u[k] = cosine[k] * p[k] - sine[k] * q[k];
            v[k] = sine[k] * p[k] + cosine[k] * q[k];
        }
    }
    quern::cuda::store_wide<W>(y + first, u);
    quern::cuda::store_wide<W>(y + second, v);
}

template <class T>
cudaError_t rotary(Rotary a, std::int64_t rows, cudaStream_t stream) {
    constexpr int W = 16 / sizeof(T);
    bool packs = a.half % W == 0 && a.d % W == 0;
    for (const void* p : {a.x, a.cosine, a.sine, static_cast<const void*>(a.y)})
        packs = packs && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
    for (const CudaRotary::Place& p : {a.x_at, a.y_at}) packs = packs && p.batch % W == 0 && p.head % W == 0 && p.row % W == 0;
    const int w = packs ? W : 1;
    const std::int64_t units = (a.d + 2 * w - 1) / (2 * w);
    a.by_units = simt::Divisor(units);
    a.count = static_cast<unsigned>(rows * units);
    const auto go = [&](auto* kernel) {
        return simt::launch(kernel, dim3((a.count + kThreads - 1) / kThreads), dim3(kThreads), 0, stream, a);
    };
    if (a.interleaved) return packs ? go(rotate<T, W, true>) : go(rotate<T, 1, true>);
    return packs ? go(rotate<T, W, false>) : go(rotate<T, 1, false>);
}

}  // namespace attention::cuda

namespace attention {

cudaError_t cuda_rotary(const CudaRotary& r, cudaStream_t stream) {
    std::int64_t rows = 1;
    for (const std::int64_t n : {r.batch, r.heads, r.length, r.d}) {
        if (n < 0 || (n > 0 && rows > cuda::kMost / n)) return cudaErrorInvalidValue;
        rows *= n;
    }
    if (r.half < 0 || r.half > r.d / 2 || r.positions < 0 || (r.half > 0 && r.positions > cuda::kMost / r.half))
        return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    rows /= r.d;
    cuda::Rotary a{};
    static_cast<CudaRotary&>(a) = r;
    for (CudaRotary::Place* p : {&a.x_at, &a.y_at})
        if (p->batch == 0 && p->head == 0 && p->row == 0)
            *p = {r.heads * r.length * r.d, r.heads_first ? r.length * r.d : r.d, r.heads_first ? r.d : r.heads * r.d};
    a.by_inner = simt::Divisor(r.heads_first ? r.length : r.heads);
    a.by_outer = simt::Divisor(r.heads_first ? r.heads : r.length);
    switch (r.type) {
        case DType::f32: return cuda::rotary<float>(a, rows, stream);
        case DType::f16: return cuda::rotary<__half>(a, rows, stream);
        case DType::bf16: return cuda::rotary<__nv_bfloat16>(a, rows, stream);
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace attention
QUERN_END
