// Movement: a strided copy, a transposition by tiles, padding.
#include <cstring>

#include <quern/kernels/cuda/simt.hpp>
#include <quern/kernels/transpose/cuda.hpp>

QUERN_BEGIN
namespace movement::cuda {

constexpr int kThreads = 256;
constexpr int kEach = 4;
constexpr int kTile = 32, kTileRows = 8;
constexpr std::int64_t kMost = 0x7fffffff;

struct Strided {
    unsigned count;
    int rank;  // dimension 0 is the innermost
    simt::Divisor dims[max_copy_rank];
    std::int64_t s[max_copy_rank], t[max_copy_rank];
};

template <class T>
__global__ void __launch_bounds__(kThreads) strided_copy(const Strided a, const T* from, T* to) {
    const unsigned first = blockIdx.x * (kThreads * kEach) + threadIdx.x;
    T v[kEach];
    std::int64_t at[kEach];
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
        unsigned i = first + j * kThreads;
        if (i >= a.count) break;
        std::int64_t source = 0;
        at[j] = 0;
        for (int d = 0; d + 1 < a.rank; ++d) {
            const unsigned q = a.dims[d].divide(i);
            const unsigned r = i - q * a.dims[d].divisor;
            source += r * a.s[d];
            at[j] += r * a.t[d];
            i = q;
        }
        source += i * a.s[a.rank - 1];
        at[j] += i * a.t[a.rank - 1];
        v[j] = from[source];
    }
#pragma unroll
    for (int j = 0; j < kEach; ++j)
        if (first + j * kThreads < a.count) to[at[j]] = v[j];
}

struct Tiles {
    unsigned rows, cols;  // rows: contiguous in the source; cols: contiguous in the target
    std::int64_t s_col, t_row;
    simt::Divisor tiles_row, tiles_col;
    int rank;  // of what is left, dimension 0 is the innermost
    simt::Divisor dims[max_copy_rank];
    std::int64_t s[max_copy_rank], t[max_copy_rank];
};

template <class T>
__global__ void __launch_bounds__(kTile* kTileRows) transpose_tiles(const Tiles a, const T* from, T* to) {
    __shared__ T tile[kTile][kTile + 1];
    const unsigned x = threadIdx.x % kTile, y = threadIdx.x / kTile;
    unsigned rest = blockIdx.x;
    unsigned q = a.tiles_row.divide(rest);
    const unsigned row = (rest - q * a.tiles_row.divisor) * kTile;
    rest = q;
    q = a.tiles_col.divide(rest);
    const unsigned col = (rest - q * a.tiles_col.divisor) * kTile;
    rest = q;
    for (int d = 0; d < a.rank; ++d) {
        q = a.dims[d].divide(rest);
        const unsigned r = rest - q * a.dims[d].divisor;
        from += r * a.s[d];
        to += r * a.t[d];
        rest = q;
    }
#pragma unroll
    for (int j = 0; j < kTile; j += kTileRows)
        if (row + x < a.rows && col + y + j < a.cols) tile[y + j][x] = from[(col + y + j) * a.s_col + row + x];
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kTile; j += kTileRows)
        if (col + x < a.cols && row + y + j < a.rows) to[(row + y + j) * a.t_row + col + x] = tile[x][y + j];
}

struct Padded {
    unsigned count;
    int rank;
    CudaPad mode;
    simt::Divisor dims[max_copy_rank];
    int n[max_copy_rank], before[max_copy_rank];
    std::int64_t s[max_copy_rank];
};
__device__ __forceinline__ int pad_source(int i, int n, CudaPad mode) {
    if (i >= 0 && i < n) return i;
    switch (mode) {
        case CudaPad::edge: return i < 0 ? 0 : n - 1;
        case CudaPad::wrap: return (i % n + n) % n;
        case CudaPad::reflect: {
            if (n == 1) return 0;
            const int period = 2 * (n - 1), r = (i % period + period) % period;
            return r < n ? r : period - r;
        }
        default: return -1;
    }
}
template <class T>
__global__ void __launch_bounds__(kThreads) pad_elements(const Padded a, const T* x, const T* value, T* y) {
    const unsigned step = gridDim.x * kThreads;
    for (unsigned at = blockIdx.x * kThreads + threadIdx.x; at < a.count; at += step) {
        unsigned i = at;
        std::int64_t source = 0;
        bool inside = true;
        for (int d = 0; d < a.rank; ++d) {
            const unsigned q = a.dims[d].divide(i);
            const int p = pad_source(static_cast<int>(i - q * a.dims[d].divisor) - a.before[d], a.n[d], a.mode);
            inside = inside && p >= 0;
            source += p * a.s[d];
            i = q;
        }
        T v;
        if (inside) v = x[source];
        else if (value) v = *value;
        else v = T{};
        y[at] = v;
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill_elements(T value, unsigned count, T* y) {
    const unsigned step = gridDim.x * kThreads;
    for (unsigned i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) y[i] = value;
}

// f(null pointer of an element of `size` bytes).
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

// The widest element that all rows of the region can be moved by; the region is scaled to it.
inline int widen(CopyRegion& r, int size, std::uintptr_t addresses) {
    if (r.rank == 0 || r.s[r.rank - 1] != 1 || r.t[r.rank - 1] != 1) return size;
    const int last = r.rank - 1;
    int wide = 16;
    for (; wide > size; wide /= 2) {
        const std::int64_t k = wide / size;
        bool fits = r.d[last] % k == 0 && addresses % static_cast<std::uintptr_t>(wide) == 0;
        for (int i = 0; i < last; ++i) fits = fits && r.s[i] % k == 0 && r.t[i] % k == 0;
        if (fits) break;
    }
    const std::int64_t k = wide / size;
    r.d[last] /= k;
    for (int i = 0; i < last; ++i) r.s[i] /= k, r.t[i] /= k;
    return wide;
}

// The axis along which the source is contiguous while the target is along the last; -1: there is none worth a tile.
inline int tiled_axis(const CopyRegion& r) {
    const int last = r.rank - 1;
    if (last < 1 || r.t[last] != 1 || r.s[last] == 1 || r.s[last] == 0 || r.d[last] < 4) return -1;
    for (int j = 0; j < last; ++j)
        if (r.s[j] == 1 && r.d[j] >= 4) return j;
    return -1;
}
template <class T>
cudaError_t launch_tiles(const CopyRegion& r, int j, const T* from, T* to, cudaStream_t stream) {
    const int last = r.rank - 1;
    Tiles a{};
    a.rows = static_cast<unsigned>(r.d[j]);
    a.cols = static_cast<unsigned>(r.d[last]);
    a.s_col = r.s[last];
    a.t_row = r.t[j];
    const std::int64_t nr = (r.d[j] + kTile - 1) / kTile, nc = (r.d[last] + kTile - 1) / kTile;
    a.tiles_row = simt::Divisor(nr);
    a.tiles_col = simt::Divisor(nc);
    std::int64_t blocks = nr * nc;
    for (int i = last - 1; i >= 0; --i) {
        if (i == j) continue;
        a.dims[a.rank] = simt::Divisor(r.d[i]);
        a.s[a.rank] = r.s[i];
        a.t[a.rank++] = r.t[i];
        blocks *= r.d[i];
    }
    return simt::launch(transpose_tiles<T>, dim3(static_cast<unsigned>(blocks)), dim3(kTile * kTileRows), 0, stream, a,
                        from, to);
}
template <class T>
cudaError_t launch_strided(const CopyRegion& r, unsigned count, const T* from, T* to, cudaStream_t stream) {
    Strided a{};
    a.count = count;
    a.rank = r.rank;
    for (int i = 0; i < r.rank; ++i) {
        a.dims[i] = simt::Divisor(r.d[r.rank - 1 - i]);
        a.s[i] = r.s[r.rank - 1 - i];
        a.t[i] = r.t[r.rank - 1 - i];
    }
    const dim3 grid((count + kThreads * kEach - 1) / (kThreads * kEach));
    return simt::launch(strided_copy<T>, grid, dim3(kThreads), 0, stream, a, from, to);
}
inline dim3 some_blocks(std::int64_t count) {
    const std::int64_t n = (count + kThreads - 1) / kThreads;
    return dim3(static_cast<unsigned>(n < 4096 ? n : 4096));
}

}  // namespace movement::cuda

namespace movement {

bool CopyRegion::axis(std::int64_t dim, std::int64_t source, std::int64_t target) {
    if (dim == 1 && rank) return true;
    if (rank && d[rank - 1] == 1) --rank;
    if (rank && s[rank - 1] == source * dim && t[rank - 1] == target * dim) {
        d[rank - 1] *= dim;
        s[rank - 1] = source;
        t[rank - 1] = target;
        return true;
    }
    if (rank == max_copy_rank) return false;
    d[rank] = dim;
    s[rank] = source;
    t[rank++] = target;
    return true;
}

cudaError_t cuda_copy(const CopyRegion& region, int size, const void* from, void* to, cudaStream_t stream) {
    if (size != 1 && size != 2 && size != 4 && size != 8) return cudaErrorInvalidValue;
    CopyRegion r = region;
    if (r.rank == 0) r.axis(1, 1, 1);
    std::int64_t count = 1;
    for (int i = 0; i < r.rank; ++i) {
        if (r.d[i] < 0 || (r.d[i] > 0 && count > cuda::kMost / r.d[i])) return cudaErrorInvalidValue;
        count *= r.d[i];
    }
    if (count == 0) return cudaSuccess;
    if (r.rank == 1 && r.d[0] == 1) r.s[0] = r.t[0] = 1;
    const auto addresses = reinterpret_cast<std::uintptr_t>(from) | reinterpret_cast<std::uintptr_t>(to);
    const int wide = cuda::widen(r, size, addresses);
    count /= wide / size;
    return cuda::with_size(wide, [&](auto* tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        const auto* s = static_cast<const T*>(from);
        auto* t = static_cast<T*>(to);
        if (const int j = cuda::tiled_axis(r); j >= 0) return cuda::launch_tiles(r, j, s, t, stream);
        return cuda::launch_strided(r, static_cast<unsigned>(count), s, t, stream);
    });
}

cudaError_t cuda_pad(CudaPad mode, int rank, const std::int64_t* x_dims, const std::int64_t* y_dims,
                     const std::int64_t* before, int size, const void* x, const void* value, void* y,
                     cudaStream_t stream) {
    if (rank < 0 || rank > max_copy_rank) return cudaErrorInvalidValue;
    cuda::Padded a{};
    a.rank = rank;
    a.mode = mode;
    std::int64_t count = 1, stride = 1;
    bool empty = false;
    for (int d = 0; d < rank; ++d) {
        const int i = rank - 1 - d;
        if (y_dims[i] < 0 || x_dims[i] < 0 || x_dims[i] > cuda::kMost / 2 || before[i] > cuda::kMost / 2 ||
            before[i] < -cuda::kMost / 2 || (y_dims[i] > 0 && count > cuda::kMost / y_dims[i]))
            return cudaErrorInvalidValue;
        count *= y_dims[i];
        empty = empty || x_dims[i] == 0;
        a.dims[d] = simt::Divisor(y_dims[i] ? y_dims[i] : 1);
        a.n[d] = static_cast<int>(x_dims[i]);
        a.before[d] = static_cast<int>(before[i]);
        a.s[d] = stride;
        stride *= x_dims[i];
    }
    if (count == 0) return cudaSuccess;
    if (empty && mode != CudaPad::constant) return cudaErrorInvalidValue;
    a.count = static_cast<unsigned>(count);
    return cuda::with_size(size, [&](auto* tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        return simt::launch(cuda::pad_elements<T>, cuda::some_blocks(count), dim3(cuda::kThreads), 0, stream, a,
                            static_cast<const T*>(x), static_cast<const T*>(value), static_cast<T*>(y));
    });
}

cudaError_t cuda_fill(const void* value, int size, std::int64_t count, void* y, cudaStream_t stream) {
    if (count < 0 || count > cuda::kMost) return cudaErrorInvalidValue;
    if (count == 0) return cudaSuccess;
    return cuda::with_size(size, [&](auto* tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        T v;
        std::memcpy(&v, value, sizeof v);
        return simt::launch(cuda::fill_elements<T>, cuda::some_blocks(count), dim3(cuda::kThreads), 0, stream, v,
                            static_cast<unsigned>(count), static_cast<T*>(y));
    });
}

}  // namespace movement
QUERN_END
