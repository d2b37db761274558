// Tensors of half types for kernels that compute in float: converted in pieces that stay in cache.
#pragma once
#include <quern/kernels/elementwise/convert.hpp>

QUERN_BEGIN
namespace ew {

/// f(T()) with the type that a kernel computes in: double for f64, else float.
template <class F>
void with_real(DType t, F&& f) {
    if (t == DType::f64) f(double{});
    else f(float{});
}
/// f(values, offset, count) over the n elements of x from `at`, as T: where they lie, or piece by piece.
template <class T, class F>
void read_pieces(const View& x, std::int64_t at, std::int64_t n, F&& f) {
    if (x.dtype == dtype_of<T>) return f(x.in<T>() + at, std::int64_t{0}, n);
    constexpr std::int64_t piece = 1024;
    alignas(64) T buffer[piece];
    for (std::int64_t i = 0; i < n; i += piece) {
        const std::int64_t m = std::min(piece, n - i);
        convert(x.dtype, x.data, at + i, dtype_of<T>, buffer, 0, m);
        f(static_cast<const T*>(buffer), i, m);
    }
}
/// f(from, to, offset, count): the same, and what f writes becomes the elements of y. y may be x; `to` may be `from`.
template <class T, class F>
void map_pieces(const View& x, const View& y, std::int64_t at, std::int64_t n, F&& f) {
    if (x.dtype == dtype_of<T> && y.dtype == dtype_of<T>) return f(x.in<T>() + at, y.out<T>() + at, std::int64_t{0}, n);
    constexpr std::int64_t piece = 1024;
    alignas(64) T buffer[piece];
    for (std::int64_t i = 0; i < n; i += piece) {
        const std::int64_t m = std::min(piece, n - i);
        const T* p = buffer;
        if (x.dtype == dtype_of<T>) p = x.in<T>() + at + i;
        else convert(x.dtype, x.data, at + i, dtype_of<T>, buffer, 0, m);
        T* q = y.dtype == dtype_of<T> ? y.out<T>() + at + i : buffer;
        f(p, q, i, m);
        if (q == buffer) convert(dtype_of<T>, buffer, 0, y.dtype, y.data, at + i, m);
    }
}

/// Rows of n elements as T, for kernels that need a whole row more than once: where they lie, or each converted to a worker's buffer and back.
template <class T>
class Rows {
public:
    Rows(const View& x, const View& y, std::int64_t n) : x_(x), y_(y), n_(n) {}
    /// Of the buffer of one worker.
    static std::size_t bytes(DType x, DType y, std::int64_t n) noexcept {
        return x == dtype_of<T> && y == dtype_of<T> ? 0 : (static_cast<std::size_t>(n) * sizeof(T) + 63) / 64 * 64;
    }
    /// f(row, from, to) for `count` rows in tiles of `grain`; `to` may be `from`. `buffers`: bytes() for each worker.
    template <class F>
    void run(std::int64_t count, std::int64_t grain, std::byte* buffers, Workers& workers, F&& f) const {
        const std::size_t each = bytes(x_.dtype, y_.dtype, n_);
        workers.for_each((count + grain - 1) / grain, [&](std::int64_t tile, int worker) {
            T* buffer = reinterpret_cast<T*>(buffers + static_cast<std::size_t>(worker) * each);
            for (std::int64_t r = tile * grain; r < std::min(count, (tile + 1) * grain); ++r) {
                const T* p = x_.dtype == dtype_of<T> ? x_.in<T>() + r * n_ : buffer;
                T* q = y_.dtype == dtype_of<T> ? y_.out<T>() + r * n_ : buffer;
                if (p == buffer) convert(x_.dtype, x_.data, r * n_, dtype_of<T>, buffer, 0, n_);
                f(r, p, q);
                if (q == buffer) convert(dtype_of<T>, buffer, 0, y_.dtype, y_.data, r * n_, n_);
            }
        });
    }

private:
    const View &x_, &y_;
    std::int64_t n_;
};

}  // namespace ew
QUERN_END
