// Selection by content: NonZero, Compress, Unique, TopK, OneHot, Trilu, ReverseSequence.
#pragma once
#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>
#include <vector>

#include <quern/kernels/gather/gather.hpp>
#include <quern/kernels/select/order.hpp>
#include <quern/tensor/half.hpp>

QUERN_BEGIN
namespace selection {

using movement::max_rank;
using movement::strides;

template <class T> bool is_set(const T& v) {
    if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) return (v.bits & 0x7fffu) != 0;
    else if constexpr (std::is_same_v<T, std::string>) return !v.empty();
    else return v != T{};
}
/// f(tag) for every type whose elements can be told to be zero.
template <class F> decltype(auto) dispatch_values(DType t, F&& f) {
    if (t == DType::string) return f(TypeTag<std::string>{});
    return dispatch_plain(t, f);
}

/// Indices of the elements that are not zero: [rank, n], in row-major order.
class NonZero final : public Kernel {
public:
    const char* name() const noexcept override { return "non_zero.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        const View& x = call.in[0];
        std::int64_t n = 0;
        dispatch_values(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            for (std::int64_t i = 0, c = x.count(); i < c; ++i) n += is_set(x.in<T>()[i]);
        });
        dims[0] = {x.rank, n};
        return true;
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (x.rank == 0) return;
        const std::int64_t n = y.rank == 2 ? y.dims[1] : 0, last = x.dims[x.rank - 1];
        auto* at = y.out<std::int64_t>();
        std::int64_t index[max_rank] = {}, k = 0;  // of the row
        dispatch_values(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const T* p = x.in<T>();
            for (std::int64_t rows = last ? x.count() / last : 0; rows > 0 && k < n; --rows, p += last) {
                const std::int64_t first = k;
                std::int64_t* to = at + (x.rank - 1) * n;
                for (std::int64_t i = 0; i < last && k < n; ++i) to[k] = i, k += is_set(p[i]);
                for (int a = 0; a + 1 < x.rank; ++a) std::fill(at + a * n + first, at + a * n + k, index[a]);
                for (int a = x.rank - 2; a >= 0 && ++index[a] == x.dims[a]; --a) index[a] = 0;
            }
        });
    }
};

/// The slices along an axis (or the elements of the flattened input) whose condition holds.
class Compress final : public Kernel {
public:
    explicit Compress(int axis) : axis_(axis) {}  ///< -1: flattened
    const char* name() const noexcept override { return "compress.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        const View& x = call.in[0];
        std::int64_t n = 0, length = axis_ < 0 ? x.count() : x.dims[axis_];
        const bool* c = call.in[1].in<bool>();
        for (std::int64_t i = 0; i < std::min(length, call.in[1].count()); ++i) n += c[i];
        if (axis_ < 0) dims[0] = {n};
        else {
            dims[0].assign(x.dims, x.dims + x.rank);
            dims[0][static_cast<std::size_t>(axis_)] = n;
        }
        return true;
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        const std::int64_t length = axis_ < 0 ? x.count() : x.dims[axis_], outer = axis_ < 0 ? 1 : x.count(0, axis_);
        const std::int64_t inner = axis_ < 0 ? 1 : x.count(axis_ + 1, x.rank), n = axis_ < 0 ? y.count() : y.dims[axis_];
        const std::int64_t conditions = std::min(length, call.in[1].count());
        const bool* c = call.in[1].in<bool>();
        if (y.count() == 0) return;
        dispatch_size(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            call.workers.ranges(outer, std::max<std::int64_t>(1, movement::tile_elements / (length * inner)), [&](std::int64_t b, std::int64_t e) {
                for (; b < e; ++b) {
                    T* d = y.out<T>() + b * n * inner;
                    for (std::int64_t i = 0, k = 0; i < conditions && k < n; ++i)
                        if (c[i]) movement::copy_run(d + k++ * inner, x.in<T>() + (b * length + i) * inner, inner);
                }
            });
        });
    }

private:
    int axis_;
};

/// The largest or smallest k along an axis with their positions. Ties: smaller position first; NaN counts
/// as the largest value. Types f32, f64, i32, i64.
class TopK final : public Kernel {
public:
    TopK(int axis, bool largest, bool sorted) : axis_(axis), largest_(largest), sorted_(sorted) {}
    const char* name() const noexcept override { return "top_k.portable"; }
    Booking book(std::span<const View> in, std::span<const View>, int workers) const override {
        return {static_cast<std::size_t>(std::max(1, workers)) * row_bytes(in[0].dims[axis_]), nullptr};
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &v = call.out[0], &p = call.out.size() > 1 ? call.out[1] : call.out[0];
        const bool positions = call.out.size() > 1 && p.present(), values = v.present();
        const View& y = values ? v : p;
        if (!y.present() || y.count() == 0) return;
        const std::int64_t n = x.dims[axis_], k = y.dims[axis_], inner = x.count(axis_ + 1, x.rank), outer = x.count(0, axis_);
        if (k > n || k < 0) raise(ErrorCode::shape_mismatch, "k is " + std::to_string(k) + "; accepted: 0 to " + std::to_string(n));
        dispatch_arith(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const std::int64_t grain = std::max<std::int64_t>(1, movement::tile_elements / n), tiles = (outer * inner + grain - 1) / grain;
            call.workers.for_each(tiles, [&](std::int64_t tile, int worker) {
                auto* at = reinterpret_cast<std::int64_t*>(call.scratch + static_cast<std::size_t>(worker) * row_bytes(n));
                for (std::int64_t r = tile * grain; r < std::min(outer * inner, (tile + 1) * grain); ++r) {
                    std::int64_t from = r / inner * n * inner + r % inner, to = r / inner * k * inner + r % inner;
                    row(x.in<T>() + from, n, k, inner, at);
                    for (std::int64_t j = 0; j < k; ++j) {
                        if (values) v.out<T>()[to + j * inner] = x.in<T>()[from + at[j] * inner];
                        if (positions) p.out<std::int64_t>()[to + j * inner] = at[j];
                    }
                }
            });
        });
    }

private:
    static std::size_t row_bytes(std::int64_t n) { return (static_cast<std::size_t>(n) * 8 + 63) / 64 * 64; }
    /// The positions of the first k to `at`, which has room for n.
    template <class T> void row(const T* x, std::int64_t n, std::int64_t k, std::int64_t step, std::int64_t* at) const {
        if constexpr (sizeof(T) == 4)
            if (n <= most_ranked) {
                auto* r = reinterpret_cast<std::uint64_t*>(at);
                if (step == 1 && k > 0 && k <= 64 && n >= 16 * k && n >= 512 && few(x, n, k, r)) {
                    for (std::int64_t i = 0; i < k; ++i) at[i] = position_of(r[i]);
                    if (!sorted_) std::sort(at, at + k);
                    return;
                }
                for (std::int64_t i = 0; i < n; ++i) r[i] = ranked(largest_ ? ~rank_of(x[i * step]) : rank_of(x[i * step]), i);
                least_first(r, n, k, sorted_);
                for (std::int64_t i = 0; i < k; ++i) at[i] = position_of(r[i]);
                if (!sorted_) std::sort(at, at + k);
                return;
            }
        std::iota(at, at + n, std::int64_t{0});
        auto before = [&](std::int64_t a, std::int64_t b) {
            const T u = x[a * step], w = x[b * step];
            if constexpr (std::is_floating_point_v<T>) {
                bool nu = u != u, nw = w != w;
                if (nu || nw) return nu == nw ? a < b : largest_ ? nu : nw;
            }
            return u == w ? a < b : largest_ ? u > w : u < w;
        };
        if (k < n) std::nth_element(at, at + k, at + n, before);
        if (sorted_) std::sort(at, at + k, before);
        else std::sort(at, at + k);
    }
    /// NaN is the largest: it may always be among the first of those, and the ranks decide.
    template <class T> bool few(const T* x, std::int64_t n, std::int64_t k, std::uint64_t* r) const {
        if (largest_) return few_first(x, n, k, r, [](T v, std::int64_t i) { return ranked(~rank_of(v), i); }, [](T v, T last) { return !(v <= last); });
        return few_first(x, n, k, r, [](T v, std::int64_t i) { return ranked(rank_of(v), i); }, [](T v, T last) { return !(v >= last); });
    }
    int axis_;
    bool largest_, sorted_;
};

/// values[1] at the index along `axis`, values[0] elsewhere; an index outside [-depth, depth) sets nothing.
class OneHot final : public Kernel {
public:
    OneHot(int axis, bool measured) : axis_(axis), measured_(measured) {}
    const char* name() const noexcept override { return "one_hot.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        if (!measured_) return false;
        if (call.in[1].count() != 1) raise(ErrorCode::shape_mismatch, "a depth of " + std::to_string(call.in[1].count()) + " elements; one is accepted");
        double depth = 0;
        dispatch_plain(call.in[1].dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            if constexpr (std::is_arithmetic_v<T>) depth = static_cast<double>(*call.in[1].in<T>());
            else depth = static_cast<double>(to_float(*call.in[1].in<T>()));
        });
        if (!(depth >= 0 && depth < 0x1p48)) raise(ErrorCode::shape_mismatch, "a depth of " + std::to_string(depth) + "; 0 or more is accepted");
        dims[0].assign(call.in[0].dims, call.in[0].dims + call.in[0].rank);
        dims[0].insert(dims[0].begin() + axis_, static_cast<std::int64_t>(depth));
        return true;
    }
    void run(const Call& call) const override {
        const View &idx = call.in[0], &v = call.in[2], &y = call.out[0];
        if (y.count() == 0) return;
        const std::int64_t depth = y.dims[axis_], inner = y.count(axis_ + 1, y.rank), n = idx.count();
        dispatch_size(y.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            T* d = y.out<T>();
            const T off = v.in<T>()[0], on = v.in<T>()[1];
            call.workers.ranges(y.count(), movement::tile_elements, [&](std::int64_t b, std::int64_t e) { std::fill(d + b, d + e, off); });
            dispatch_plain(idx.dtype, [&](auto itag) {
                using I = typename decltype(itag)::type;
                if constexpr (std::is_arithmetic_v<I>)
                    for (std::int64_t i = 0; i < n; ++i) {
                        const auto raw = static_cast<double>(idx.in<I>()[i]);
                        if (!(raw >= -static_cast<double>(depth) && raw < static_cast<double>(depth))) continue;
                        auto k = static_cast<std::int64_t>(idx.in<I>()[i]);
                        if (k < 0) k += depth;
                        if (k < depth) d[(i / inner * depth + k) * inner + i % inner] = on;
                    }
                else raise(ErrorCode::unsupported, "indices of a 16-bit floating-point type");
            });
        });
    }

private:
    int axis_;
    bool measured_;
};

/// The upper or lower triangle of each matrix; the rest is zero. Input 1 (optional): the diagonal k.
class Trilu final : public Kernel {
public:
    explicit Trilu(bool upper) : upper_(upper) {}
    const char* name() const noexcept override { return "trilu.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        const bool given = call.in.size() > 1 && call.in[1].present();
        if (given && call.in[1].count() != 1) raise(ErrorCode::shape_mismatch, "k has " + std::to_string(call.in[1].count()) + " elements; one is accepted");
        std::int64_t k = given ? *call.in[1].in<std::int64_t>() : 0;
        const std::int64_t rows = y.dim(-2), cols = y.dim(-1);
        k = std::max(-rows, std::min(k, cols));
        dispatch_size(y.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            call.workers.ranges(y.count() / cols, std::max<std::int64_t>(1, movement::tile_elements / cols), [&](std::int64_t b, std::int64_t e) {
                for (; b < e; ++b) {
                    const T* s = x.in<T>() + b * cols;
                    T* d = y.out<T>() + b * cols;
                    std::int64_t cut = std::max<std::int64_t>(0, std::min(cols, b % rows + k + (upper_ ? 0 : 1)));
                    if (upper_) {
                        std::fill(d, d + cut, T{});
                        std::copy(s + cut, s + cols, d + cut);
                    } else {
                        std::copy(s, s + cut, d);
                        std::fill(d + cut, d + cols, T{});
                    }
                }
            });
        });
    }

private:
    bool upper_;
};

/// The first lens[b] entries along the time axis in reverse, for each batch.
class ReverseSequence final : public Kernel {
public:
    ReverseSequence(int batch, int time) : batch_(batch), time_(time) {}
    const char* name() const noexcept override { return "reverse_sequence.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        const std::int64_t inner = x.count(2, x.rank), d0 = x.dims[0], d1 = x.dims[1], steps = x.dims[time_];
        const std::int64_t* lens = call.in[1].in<std::int64_t>();
        if (call.in[1].count() != x.dims[batch_]) raise(ErrorCode::shape_mismatch, "one length for each batch is needed");
        dispatch_size(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            call.workers.ranges(d0 * d1, std::max<std::int64_t>(1, movement::tile_elements / inner), [&](std::int64_t b, std::int64_t e) {
                for (; b < e; ++b) {
                    std::int64_t i[2] = {b / d1, b % d1}, n = lens[i[batch_]], t = i[time_];
                    if (n < 0 || n > steps) raise(ErrorCode::shape_mismatch, "a sequence of length " + std::to_string(n) + "; accepted: 0 to " + std::to_string(steps));
                    if (t < n) i[time_] = n - 1 - t;
                    movement::copy_run(y.out<T>() + b * inner, x.in<T>() + (i[0] * d1 + i[1]) * inner, inner);
                }
            });
        });
    }

private:
    int batch_, time_;
};

/// Distinct elements, or distinct slices along an axis, sorted or in order of first appearance; outputs Y,
/// indices, inverse_indices, counts.
class Unique final : public Kernel {
public:
    Unique(int axis, bool sorted) : axis_(axis), sorted_(sorted) {}  ///< axis -1: flattened
    const char* name() const noexcept override { return "unique.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        Groups g = groups(call.in[0]);
        auto n = static_cast<std::int64_t>(g.first.size());
        for (std::size_t o = 0; o < call.out.size(); ++o) dims[o] = {o == 2 ? static_cast<std::int64_t>(g.of.size()) : n};
        if (axis_ >= 0) {
            dims[0].assign(call.in[0].dims, call.in[0].dims + call.in[0].rank);
            dims[0][static_cast<std::size_t>(axis_)] = n;
        }
        return true;
    }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        Groups g = groups(x);
        const auto n = static_cast<std::int64_t>(g.first.size());
        const std::int64_t length = axis_ < 0 ? x.count() : x.dims[axis_], outer = axis_ < 0 ? 1 : x.count(0, axis_), inner = axis_ < 0 ? 1 : x.count(axis_ + 1, x.rank);
        auto has = [&](std::size_t o) { return o < call.out.size() && call.out[o].present(); };
        if (has(0) && inner)
            dispatch_size(x.dtype, [&](auto tag) {
                using T = typename decltype(tag)::type;
                for (std::int64_t o = 0; o < outer; ++o)
                    for (std::int64_t k = 0; k < n; ++k)
                        movement::copy_run(call.out[0].out<T>() + (o * n + k) * inner, x.in<T>() + (o * length + g.first[static_cast<std::size_t>(k)]) * inner, inner);
            });
        if (has(1)) std::copy(g.first.begin(), g.first.end(), call.out[1].out<std::int64_t>());
        if (has(2)) std::copy(g.of.begin(), g.of.end(), call.out[2].out<std::int64_t>());
        if (has(3)) std::copy(g.count.begin(), g.count.end(), call.out[3].out<std::int64_t>());
    }

private:
    static constexpr std::int64_t most_empty = 1 << 20;  ///< slices that no memory speaks for
    struct Groups { std::vector<std::int64_t> first, of, count; };
    template <class T> static int order(const T& a, const T& b) {
        if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) return order(to_float(a), to_float(b));
        else {
            if constexpr (std::is_floating_point_v<T>) {
                bool na = a != a, nb = b != b;
                if (na || nb) return na == nb ? 0 : na ? 1 : -1;
            }
            return a < b ? -1 : b < a ? 1 : 0;
        }
    }
    Groups groups(const View& x) const {
        const std::int64_t n = axis_ < 0 ? x.count() : x.dims[axis_], outer = axis_ < 0 ? 1 : x.count(0, axis_), inner = axis_ < 0 ? 1 : x.count(axis_ + 1, x.rank);
        if (outer * inner == 0 && n > most_empty) raise(ErrorCode::out_of_memory, std::to_string(n) + " slices of no elements; accepted: up to " + std::to_string(most_empty));
        std::vector<std::int64_t> sorted(static_cast<std::size_t>(n));
        std::iota(sorted.begin(), sorted.end(), std::int64_t{0});
        std::vector<std::int64_t> group(static_cast<std::size_t>(n));  // rank of each entry's value
        std::int64_t total = 0;
        dispatch_values(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            auto compare = [&](std::int64_t a, std::int64_t b) {
                for (std::int64_t o = 0; o < outer; ++o)
                    for (std::int64_t i = 0; i < inner; ++i)
                        if (int c = order(x.in<T>()[(o * n + a) * inner + i], x.in<T>()[(o * n + b) * inner + i])) return c;
                return 0;
            };
            std::stable_sort(sorted.begin(), sorted.end(), [&](std::int64_t a, std::int64_t b) { return compare(a, b) < 0; });
            for (std::size_t k = 0; k < sorted.size(); ++k) {
                if (k > 0 && compare(sorted[k - 1], sorted[k]) != 0) ++total;
                group[static_cast<std::size_t>(sorted[k])] = total;
            }
        });
        if (n) ++total;
        Groups g;
        std::vector<std::int64_t> name(static_cast<std::size_t>(total), -1);
        if (sorted_) std::iota(name.begin(), name.end(), std::int64_t{0});
        g.first.assign(static_cast<std::size_t>(total), -1);
        g.count.assign(static_cast<std::size_t>(total), 0);
        std::int64_t next = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            auto& id = name[static_cast<std::size_t>(group[static_cast<std::size_t>(i)])];
            if (id < 0) id = next++;
            auto k = static_cast<std::size_t>(id);
            if (g.first[k] < 0) g.first[k] = i;
            ++g.count[k];
            g.of.push_back(id);
        }
        return g;
    }
    int axis_;
    bool sorted_;
};

}  // namespace selection
QUERN_END
