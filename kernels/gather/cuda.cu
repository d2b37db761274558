// A thread an element, wider elements where the rows allow it.
#include <quern/kernels/cuda/simt.hpp>
#include <quern/kernels/gather/cuda.hpp>

QUERN_BEGIN
namespace movement::gather_cuda {

constexpr int kThreads = 256;
constexpr std::int64_t kMost = 0x7fffffff;

inline dim3 some_blocks(std::int64_t count) {
    const std::int64_t n = (count + kThreads - 1) / kThreads;
    return dim3(static_cast<unsigned>(n < 65536 ? n : 65536));
}
// Negative from the end; -1: outside.
__device__ __forceinline__ std::int64_t resolve(std::int64_t i, std::int64_t n) {
    if (i < 0) i += n;
    return i >= 0 && i < n ? i : -1;
}

template <class T, class I>
__global__ void __launch_bounds__(kThreads) gather_rows(const T* data, const I* indices, T* y, unsigned count,
                                                        std::int64_t n, simt::Divisor k, simt::Divisor inner) {
    const unsigned step = gridDim.x * kThreads;
    for (unsigned at = blockIdx.x * kThreads + threadIdx.x; at < count; at += step) {
        const unsigned row = inner.divide(at), column = at - row * inner.divisor;
        const unsigned outer = k.divide(row);
        const std::int64_t i = resolve(indices[row - outer * k.divisor], n);
        T v{};
        if (i >= 0) v = data[(outer * n + i) * inner.divisor + column];
        y[at] = v;
    }
}

struct Elements {
    unsigned count;
    int rank, axis;  // dimension 0 is the innermost
    std::int64_t n;
    simt::Divisor dims[max_gather_rank];
    std::int64_t s[max_gather_rank];
};
template <class T, class I>
__global__ void __launch_bounds__(kThreads) gather_each(const Elements a, const T* data, const I* indices, T* y) {
    const unsigned step = gridDim.x * kThreads;
    for (unsigned at = blockIdx.x * kThreads + threadIdx.x; at < a.count; at += step) {
        const std::int64_t index = resolve(indices[at], a.n);
        unsigned i = at;
        std::int64_t source = 0;
        for (int d = 0; d < a.rank; ++d) {
            const unsigned q = a.dims[d].divide(i);
            source += (d == a.axis ? index : static_cast<std::int64_t>(i - q * a.dims[d].divisor)) * a.s[d];
            i = q;
        }
        T v{};
        if (index >= 0) v = data[source];
        y[at] = v;
    }
}

struct Tuples {
    unsigned count;
    int width;
    simt::Divisor inner, tuples;
    std::int64_t per_batch;
    std::int64_t dims[max_gather_rank], s[max_gather_rank];
};
template <class T, bool Gather>
__global__ void __launch_bounds__(kThreads) index_tuples(const Tuples a, T* data, const std::int64_t* indices, T* y) {
    const unsigned step = gridDim.x * kThreads;
    for (unsigned at = blockIdx.x * kThreads + threadIdx.x; at < a.count; at += step) {
        const unsigned row = a.inner.divide(at), column = at - row * a.inner.divisor;
        std::int64_t offset = a.tuples.divide(row) * a.per_batch + column;
        bool inside = true;
        for (int d = 0; d < a.width; ++d) {
            const std::int64_t i = resolve(indices[std::int64_t(row) * a.width + d], a.dims[d]);
            inside = inside && i >= 0;
            offset += i * a.s[d];
        }
        if constexpr (Gather) {
            T v{};
            if (inside) v = data[offset];
            y[at] = v;
        } else if (inside) {
            data[offset] = y[at];
        }
    }
}

template <class F>
cudaError_t with_size(int size, F&& f) {
    switch (size) {
        case 1: return f(static_cast<std::uint8_t*>(nullptr));
        case 2: return f(static_cast<std::uint16_t*>(nullptr));
        case 4: return f(static_cast<std::uint32_t*>(nullptr));
        case 8: return f(static_cast<std::uint64_t*>(nullptr));
        case 16: return f(static_cast<uint4*>(nullptr));
        default: return cudaErrorInvalidValue;
    }
}
template <class F>
cudaError_t with_index(int size, F&& f) {
    if (size == 4) return f(static_cast<std::int32_t*>(nullptr));
    if (size == 8) return f(static_cast<std::int64_t*>(nullptr));
    return cudaErrorInvalidValue;
}
inline bool movable(int size) { return size == 1 || size == 2 || size == 4 || size == 8; }
// Rows of `inner` elements moved by elements as wide as sizes and addresses allow.
inline void widen(std::int64_t& inner, int& size, const void* a, const void* b) {
    const auto addresses = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b);
    while (size < 16 && inner % 2 == 0 && addresses % static_cast<std::uintptr_t>(2 * size) == 0) inner /= 2, size *= 2;
}
// The product, or -1 where it is beyond 2^31 or a factor is negative.
inline std::int64_t product(std::int64_t a, std::int64_t b) {
    if (a < 0 || b < 0 || (b > 0 && a > kMost / b)) return -1;
    return a * b;
}

}  // namespace movement::gather_cuda

namespace movement {
namespace g = gather_cuda;

cudaError_t cuda_gather(const void* data, const void* indices, void* y, std::int64_t outer, std::int64_t n,
                        std::int64_t k, std::int64_t inner, int size, int index_size, cudaStream_t stream) {
    if (!g::movable(size) || n < 0 || g::product(g::product(outer, k), inner) < 0) return cudaErrorInvalidValue;
    if (outer * k * inner == 0) return cudaSuccess;
    g::widen(inner, size, data, y);
    const std::int64_t count = outer * k * inner;
    return g::with_size(size, [&](auto* tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        return g::with_index(index_size, [&](auto* itag) {
            using I = std::remove_pointer_t<decltype(itag)>;
            return simt::launch(g::gather_rows<T, I>, g::some_blocks(count), dim3(g::kThreads), 0, stream,
                                static_cast<const T*>(data), static_cast<const I*>(indices), static_cast<T*>(y),
                                static_cast<unsigned>(count), n, simt::Divisor(k), simt::Divisor(inner));
        });
    });
}

cudaError_t cuda_gather_elements(const void* data, const void* indices, void* y, int rank, int axis,
                                 const std::int64_t* data_dims, const std::int64_t* y_dims, int size, int index_size,
                                 cudaStream_t stream) {
    if (rank < 1 || rank > max_gather_rank || axis < 0 || axis >= rank) return cudaErrorInvalidValue;
    g::Elements a{};
    a.rank = rank;
    a.axis = rank - 1 - axis;
    a.n = data_dims[axis];
    std::int64_t count = 1, stride = 1;
    for (int d = 0; d < rank; ++d) {
        const int i = rank - 1 - d;
        count = g::product(count, y_dims[i]);
        if (count < 0) return cudaErrorInvalidValue;
        a.dims[d] = simt::Divisor(y_dims[i] ? y_dims[i] : 1);
        a.s[d] = stride;
        stride *= data_dims[i];
    }
    if (count == 0) return cudaSuccess;
    a.count = static_cast<unsigned>(count);
    return g::with_size(size, [&](auto* tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        return g::with_index(index_size, [&](auto* itag) {
            using I = std::remove_pointer_t<decltype(itag)>;
            return simt::launch(g::gather_each<T, I>, g::some_blocks(count), dim3(g::kThreads), 0, stream, a,
                                static_cast<const T*>(data), static_cast<const I*>(indices), static_cast<T*>(y));
        });
    });
}

cudaError_t cuda_index_nd(bool gather, void* data, const std::int64_t* indices, void* y, std::int64_t batches,
                          std::int64_t tuples, int width, const std::int64_t* dims, std::int64_t inner, int size,
                          cudaStream_t stream) {
    if (!g::movable(size) || width < 0 || width > max_gather_rank || g::product(g::product(batches, tuples), inner) < 0)
        return cudaErrorInvalidValue;
    if (batches * tuples * inner == 0) return cudaSuccess;
    g::widen(inner, size, data, y);
    g::Tuples a{};
    a.count = static_cast<unsigned>(batches * tuples * inner);
    a.width = width;
    a.inner = simt::Divisor(inner);
    a.tuples = simt::Divisor(tuples);
    a.per_batch = inner;
    for (int d = width - 1; d >= 0; --d) {
        a.dims[d] = dims[d];
        a.s[d] = a.per_batch;
        a.per_batch *= dims[d];
    }
    return g::with_size(size, [&](auto* tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        return simt::launch(gather ? g::index_tuples<T, true> : g::index_tuples<T, false>, g::some_blocks(a.count),
                            dim3(g::kThreads), 0, stream, a, static_cast<T*>(data), indices, static_cast<T*>(y));
    });
}

}  // namespace movement
QUERN_END
