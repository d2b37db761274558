// Gathering by index: blocks, single elements, tuples.
#pragma once
#include <bit>

#include <quern/kernels/transpose/region.hpp>

QUERN_BEGIN
namespace movement {

[[noreturn]] inline void bad_index(std::int64_t i, std::int64_t n) {
    raise(ErrorCode::shape_mismatch, "index " + std::to_string(i) + " is outside [" + std::to_string(-n) + ", " + std::to_string(n - 1) + "]");
}
inline std::int64_t checked_index(std::int64_t i, std::int64_t n) {
    if (i < -n || i >= n) bad_index(i, n);
    return i < 0 ? i + n : i;
}

/// data[outer, n, inner], indices[any] -> [outer, indices..., inner].
class Gather final : public Kernel {
public:
    explicit Gather(int axis) : axis_(axis) { bytewise = 1u; }
    const char* name() const noexcept override { return "gather.portable"; }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        return {repeats(in[0]) ? static_cast<std::size_t>(in[1].count()) * sizeof(std::int32_t) : 0, nullptr};
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &idx = call.in[1], &y = call.out[0];
        const std::int64_t n = x.dims[axis_], inner = x.count(axis_ + 1, x.rank), outer = x.count(0, axis_), k = idx.count();
        if (y.count() == 0) return;
        dispatch_index(idx.dtype, [&](auto itag) {
            using I = typename decltype(itag)::type;
            const I* ix = idx.in<I>();
            dispatch_size(x.dtype, [&](auto tag) {
                using T = typename decltype(tag)::type;
                if constexpr (std::is_trivially_copyable_v<T>)
                    if (repeats(x)) {  // indices are checked once
                        auto* places = reinterpret_cast<std::int32_t*>(call.scratch);
                        for (std::int64_t i = 0; i < k; ++i) places[i] = static_cast<std::int32_t>(checked_index(static_cast<std::int64_t>(ix[i]), n));
                        return call.workers.ranges(outer, std::max<std::int64_t>(1, tile_elements / k), [&](std::int64_t b, std::int64_t e) {
                            for (; b < e; ++b) pick(y.out<T>() + b * k, static_cast<const std::byte*>(x.data) + static_cast<std::size_t>(b * n) * sizeof(T), places, k);
                        });
                    }
                call.workers.ranges(outer * k, std::max<std::int64_t>(1, tile_elements / inner), [&](std::int64_t b, std::int64_t e) {
                    while (inner == 1 && b < e) {  // single elements, a row of them at a time
                        const std::int64_t from = b % k, m = std::min(k - from, e - b), row = b / k * n;
                        for (std::int64_t i = 0; i < m; ++i) copy_block(y.out<T>() + b + i, x.data, row + checked_index(static_cast<std::int64_t>(ix[from + i]), n), 1);
                        b += m;
                    }
                    for (; b < e; ++b) {
                        std::int64_t o = b / k, i = checked_index(static_cast<std::int64_t>(ix[b % k]), n);
                        copy_block(y.out<T>() + b * inner, x.data, (o * n + i) * inner, inner);
                    }
                });
            });
        });
    }

private:
    /// Single elements by the same indices from several rows.
    bool repeats(const View& x) const {
        return x.count(axis_ + 1, x.rank) == 1 && x.count(0, axis_) > 1 && x.dims[axis_] < (std::int64_t{1} << 31) && x.dtype != DType::string;
    }
    template <class T> static void pick(T* d, const std::byte* s, const std::int32_t* at, std::int64_t n) {
        auto one = [&](std::int64_t i) {
            T v;
            std::memcpy(&v, s + static_cast<std::size_t>(at[i]) * sizeof(T), sizeof(T));
            return v;
        };
        std::int64_t i = 0;
        if constexpr (sizeof(T) == 2 && std::endian::native == std::endian::little)
            for (; i + 4 <= n; i += 4) {  // bytes would gain nothing: the loads of indices and values are the bound
                std::uint64_t four = 0;
                for (int j = 0; j < 4; j += 2) {
                    std::uint64_t two;  // indices, which are not negative
                    std::memcpy(&two, at + i + j, 8);
                    std::uint16_t a, b;
                    std::memcpy(&a, s + 2 * (two & 0xffffffff), 2);
                    std::memcpy(&b, s + 2 * (two >> 32), 2);
                    four |= (a | static_cast<std::uint64_t>(b) << 16) << (16 * j);
                }
                std::memcpy(d + i, &four, 8);
            }
        for (; i + 8 <= n; i += 8) {
            T v[8];
            for (int j = 0; j < 8; ++j) v[j] = one(i + j);
            std::memcpy(d + i, v, sizeof v);
        }
        for (; i < n; ++i) d[i] = one(i);
    }
    /// n elements from element `at` of a constant, which may lie unaligned in its file.
    template <class T> static void copy_block(T* d, const void* from, std::int64_t at, std::int64_t n) {
        if constexpr (std::is_trivially_copyable_v<T>) {
            const std::byte* s = static_cast<const std::byte*>(from) + static_cast<std::size_t>(at) * sizeof(T);
            if (n == 1) std::memcpy(d, s, sizeof(T));
            else move_bytes(d, s, static_cast<std::size_t>(n) * sizeof(T));
        } else {
            copy_run(d, static_cast<const T*>(from) + at, n);
        }
    }
    int axis_;
};

/// y[i0..ir] = data[i0..indices[i0..ir]..ir] along `axis`; indices' other dims are at most data's.
class GatherElements final : public Kernel {
public:
    explicit GatherElements(int axis) : axis_(axis) {}
    const char* name() const noexcept override { return "gather_elements.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &idx = call.in[1], &y = call.out[0];
        if (y.count() == 0) return;
        std::int64_t sx[max_rank];
        strides(x.shape(), sx);
        for (int i = 0; i < x.rank; ++i)
            if (i != axis_ && idx.dims[i] > x.dims[i]) raise(ErrorCode::shape_mismatch, "indices are larger than the data");
        dispatch_index(idx.dtype, [&](auto itag) {
            using I = typename decltype(itag)::type;
            dispatch_size(x.dtype, [&](auto tag) {
                using T = typename decltype(tag)::type;
                elements(x, idx, idx.in<I>(), x.in<T>(), y.out<T>(), sx, call.workers);
            });
        });
    }

private:
    template <class I, class T>
    void elements(const View& x, const View& idx, const I* ix, const T* s, T* d, const std::int64_t* sx, Workers& workers) const {
        const int last = idx.rank - 1;
        const std::int64_t inner = idx.dims[last], n = x.dims[axis_], sa = sx[axis_];
        const bool on_last = axis_ == last;
        workers.ranges(idx.count() / inner, std::max<std::int64_t>(1, tile_elements / inner), [&](std::int64_t b, std::int64_t e) {
            for (; b < e; ++b) {
                std::int64_t row = b, off = 0;
                for (int i = last - 1; i >= 0; --i) {
                    if (i != axis_) off += row % idx.dims[i] * sx[i];
                    row /= idx.dims[i];
                }
                const I* p = ix + b * inner;
                T* q = d + b * inner;
                for (std::int64_t k = 0; k < inner; ++k)
                    q[k] = s[off + checked_index(static_cast<std::int64_t>(p[k]), n) * sa + (on_last ? 0 : k)];
            }
        });
    }
    int axis_;
};

/// indices[b..., q..., t] -> data[b..., indices[..., 0], ..., indices[..., t-1], rest...].
class GatherND final : public Kernel {
public:
    explicit GatherND(int batch) : batch_(batch) {}
    const char* name() const noexcept override { return "gather_nd.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &idx = call.in[1], &y = call.out[0];
        if (y.count() == 0) return;
        const int t = static_cast<int>(idx.dims[idx.rank - 1]);
        if (t > x.rank - batch_) raise(ErrorCode::shape_mismatch, "index tuples are longer than the data's rank");
        const std::int64_t inner = x.count(batch_ + t, x.rank), per_batch = x.count(batch_, x.rank);
        const std::int64_t batches = x.count(0, batch_), tuples = idx.count(batch_, idx.rank - 1);
        std::int64_t sx[max_rank];
        strides(x.shape(), sx);
        const std::int64_t* ix = idx.in<std::int64_t>();
        dispatch_size(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const T* s = x.in<T>();
            T* d = y.out<T>();
            call.workers.ranges(batches * tuples, std::max<std::int64_t>(1, tile_elements / inner), [&](std::int64_t b, std::int64_t e) {
                while (b < e) {  // the tuples of one batch
                    const std::int64_t base = b / tuples * per_batch, end = std::min(e, (b / tuples + 1) * tuples);
                    if (t == 1 && inner == 1) block<1>(x.dims[batch_], ix, s + base, b, end, d);
                    else if (t == 1 && inner == 4) block<4>(x.dims[batch_], ix, s + base, b, end, d);  // boxes
                    else
                        for (std::int64_t i = b; i < end; ++i) {
                            std::int64_t off = base;
                            for (int k = 0; k < t; ++k) off += checked_index(ix[i * t + k], x.dims[batch_ + k]) * sx[batch_ + k];
                            copy_run(d + i * inner, s + off, inner);
                        }
                    b = end;
                }
            });
        });
    }

private:
    /// Rows [b, end) of N elements, by one index each of n rows.
    template <int N, class T> static void block(std::int64_t n, const std::int64_t* ix, const T* s, std::int64_t b, std::int64_t end, T* d) {
        for (; b < end; ++b) std::copy_n(s + checked_index(ix[b], n) * N, N, d + b * N);
    }
    int batch_;
};

}  // namespace movement
QUERN_END
