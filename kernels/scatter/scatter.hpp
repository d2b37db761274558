// Scattering: elements, blocks by index tuple, and cache updates.
#pragma once
#include <quern/kernels/gather/gather.hpp>
#include <quern/tensor/half.hpp>

QUERN_BEGIN
namespace movement {

enum class Reduction : std::uint8_t { none, add, mul, max, min };

/// a = a (op) b; half types through float; bool: add is or, mul is and.
template <class T> void reduce_into(T& a, const T& b, Reduction r) {
    if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) {
        float x = to_float(a), y = to_float(b);
        reduce_into(x, y, r);
        if constexpr (std::is_same_v<T, Half>) a = to_half(x);
        else a = to_bfloat16(x);
    } else if constexpr (std::is_same_v<T, bool>) {
        a = r == Reduction::add || r == Reduction::max ? (a || b) : (a && b);
    } else {
        switch (r) {
            case Reduction::none: a = b; break;
            case Reduction::max: a = a < b || b != b ? b : a; break;
            case Reduction::min: a = b < a || b != b ? b : a; break;
            default:
                if constexpr (std::is_integral_v<T>) {
                    auto x = static_cast<std::uint64_t>(a), y = static_cast<std::uint64_t>(b);
                    a = static_cast<T>(r == Reduction::add ? x + y : x * y);
                } else {
                    a = r == Reduction::add ? a + b : a * b;
                }
        }
    }
}
/// f(type tag, reduces): any type for plain copies, arithmetic types for reductions.
template <class F> void dispatch_scatter(DType t, Reduction r, F&& f) {
    if (r == Reduction::none) dispatch_size(t, f);
    else dispatch_plain(t, f);
}
template <class T> void apply(T* d, const T* s, std::int64_t n, Reduction r) {
    if (r == Reduction::none) return copy_run(d, s, n);
    if constexpr (dtype_of<T> != DType::undefined)
        for (std::int64_t i = 0; i < n; ++i) reduce_into(d[i], s[i], r);
}
inline void copy_unless_same(const View& x, const View& y, Workers& w) {
    if (x.data != y.data) copy_flat(y.dtype, x.data, 0, y.data, 0, y.count(), w);
}

/// y = data; y[.. indices[i] ..] (op)= updates[i] along `axis`, in order of the updates.
class ScatterElements final : public Kernel {
public:
    ScatterElements(int axis, Reduction r) : axis_(axis), reduction_(r) { inplace = 1; }
    const char* name() const noexcept override { return "scatter_elements.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &idx = call.in[1], &u = call.in[2], &y = call.out[0];
        copy_unless_same(x, y, call.workers);
        if (idx.count() == 0) return;
        for (int i = 0; i < y.rank; ++i)
            if (idx.dims[i] != u.dims[i] || (i != axis_ && idx.dims[i] > y.dims[i])) raise(ErrorCode::shape_mismatch, "indices do not fit updates and data");
        dispatch_index(idx.dtype, [&](auto itag) {
            using I = typename decltype(itag)::type;
            dispatch_scatter(y.dtype, reduction_, [&](auto tag) {
                using T = typename decltype(tag)::type;
                elements(y, idx, idx.in<I>(), u.in<T>(), y.out<T>());
            });
        });
    }

private:
    template <class I, class T> void elements(const View& y, const View& idx, const I* ix, const T* s, T* d) const {
        std::int64_t sy[max_rank], at[max_rank] = {}, off = 0;
        strides(y.shape(), sy);
        const std::int64_t n = y.dims[axis_], sa = sy[axis_], total = idx.count();
        for (std::int64_t k = 0; k < total; ++k) {
            T* q = d + off + checked_index(static_cast<std::int64_t>(ix[k]), n) * sa;
            apply(q, s + k, 1, reduction_);
            for (int i = idx.rank - 1; i >= 0; --i) {
                std::int64_t step = i == axis_ ? 0 : sy[i];
                off += step;
                if (++at[i] < idx.dims[i]) break;
                off -= step * idx.dims[i];
                at[i] = 0;
            }
        }
    }
    int axis_;
    Reduction reduction_;
};

/// y = data; the block of y that each index tuple names (op)= the block of updates.
class ScatterND final : public Kernel {
public:
    explicit ScatterND(Reduction r) : reduction_(r) { inplace = 1; }
    const char* name() const noexcept override { return "scatter_nd.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &idx = call.in[1], &u = call.in[2], &y = call.out[0];
        copy_unless_same(x, y, call.workers);
        const int t = static_cast<int>(idx.dims[idx.rank - 1]);
        const std::int64_t tuples = idx.count(0, idx.rank - 1), inner = y.count(t, y.rank);
        if (u.count() != tuples * inner) raise(ErrorCode::shape_mismatch, "updates do not fit indices and data");
        if (tuples == 0 || inner == 0) return;
        std::int64_t sy[max_rank];
        strides(y.shape(), sy);
        const std::int64_t* ix = idx.in<std::int64_t>();
        dispatch_scatter(y.dtype, reduction_, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const T* s = u.in<T>();
            T* d = y.out<T>();
            // Columns of the blocks in parallel: tuples stay in order, so repeated ones give one result.
            call.workers.ranges(inner, std::max<std::int64_t>(64, tile_elements / tuples), [&](std::int64_t b, std::int64_t e) {
                for (std::int64_t k = 0; k < tuples; ++k) {
                    std::int64_t off = 0;
                    for (int i = 0; i < t; ++i) off += checked_index(ix[k * t + i], y.dims[i]) * sy[i];
                    apply(d + off + b, s + k * inner + b, e - b, reduction_);
                }
            });
        });
    }

private:
    Reduction reduction_;
};

/// Cache update (opset 24): y = past; y[b, ..., write[b] + t, ...] = update[b, ..., t, ...] along `axis`.
class TensorScatter final : public Kernel {
public:
    TensorScatter(int axis, bool circular) : axis_(axis), circular_(circular) { inplace = 1; }
    const char* name() const noexcept override { return "tensor_scatter.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &u = call.in[1], &y = call.out[0];
        copy_unless_same(x, y, call.workers);
        const bool indexed = call.in.size() > 2 && call.in[2].present();
        const std::int64_t n = y.dims[axis_], len = u.dims[axis_], inner = y.count(axis_ + 1, y.rank);
        const std::int64_t rows = y.count(0, axis_), per_batch = y.count(1, axis_);
        if (u.count() == 0) return;
        if (len > n) raise(ErrorCode::shape_mismatch, std::to_string(len) + " new entries for a cache of " + std::to_string(n));
        if (indexed && call.in[2].count() != y.dims[0]) raise(ErrorCode::shape_mismatch, "one write index for each batch is needed");
        dispatch_size(y.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            call.workers.ranges(rows * len, std::max<std::int64_t>(1, tile_elements / inner), [&](std::int64_t b, std::int64_t e) {
                for (; b < e; ++b) {
                    std::int64_t row = b / len, start = indexed ? call.in[2].in<std::int64_t>()[row / per_batch] : 0;
                    if (start < 0 || start > n || (!circular_ && start + len > n))
                        raise(ErrorCode::shape_mismatch, "write index " + std::to_string(start) + " with " + std::to_string(len) + " new entries in a cache of " + std::to_string(n));
                    std::int64_t at = start + b % len;
                    if (circular_) at %= n;
                    copy_run(y.out<T>() + (row * n + at) * inner, u.in<T>() + b * inner, inner);
                }
            });
        });
    }

private:
    int axis_;
    bool circular_;
};

}  // namespace movement
QUERN_END
