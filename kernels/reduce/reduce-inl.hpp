// Bodies of reduce.hpp; part of the unit of the Reduce operators.
#pragma once
#include <quern/base/saturate.hpp>
#include <quern/kernels/reduce/reduce.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace reduce {

QUERN_INLINE Walk make_walk(const View& x, const View* axes, bool noop) {
    const std::int64_t n = axes && axes->present() ? axes->count() : 0;
    std::vector<char> marked(static_cast<std::size_t>(x.rank), n == 0 && !noop);
    for (std::int64_t i = 0; i < n; ++i) {
        std::int64_t a = 0;
        ew::convert(axes->dtype, static_cast<const std::byte*>(axes->data) + i * dtype_bits(axes->dtype) / 8, 0, DType::i64, &a, 0, 1);
        if (a < -x.rank || a >= x.rank)
            raise(ErrorCode::shape_mismatch, "axis " + std::to_string(a) + " is outside of rank " + std::to_string(x.rank));
        marked[static_cast<std::size_t>(a < 0 ? a + x.rank : a)] = 1;
    }
    Walk w;
    for (int d = x.rank - 1; d >= 0; --d) w.push(x.dims[d], marked[static_cast<std::size_t>(d)] != 0);
    return w;
}

template <class T, bool whole = std::is_integral_v<T>>
struct Unsigned { using type = std::make_unsigned_t<T>; };
template <class T>
struct Unsigned<T, false> { using type = T; };
template <class T> using wrap = typename Unsigned<T>::type;
/// Where partial results are kept: double for floats, wrapping integers for integers.
template <class T> using acc_t = std::conditional_t<std::is_floating_point_v<T>, double, T>;

/// How partial results join: sum, product, largest and smallest.
template <class A>
A none(vec::Reduce r) {
    using Limits = std::numeric_limits<A>;
    if (r == vec::Reduce::max) return std::is_floating_point_v<A> ? -Limits::infinity() : Limits::lowest();
    if (r == vec::Reduce::min) return std::is_floating_point_v<A> ? Limits::infinity() : Limits::max();
    return static_cast<A>(r == vec::Reduce::prod);
}
template <class A>
A merge(vec::Reduce r, A a, A b) {
    if (r == vec::Reduce::max) return b > a || b != b ? b : a;
    if (r == vec::Reduce::min) return b < a || b != b ? b : a;
    return static_cast<A>(r == vec::Reduce::prod ? wrap<A>(a) * wrap<A>(b) : wrap<A>(a) + wrap<A>(b));
}
inline vec::Reduce step_of(Op op) noexcept {
    switch (op) {
        case Op::max: return vec::Reduce::max;
        case Op::min: return vec::Reduce::min;
        case Op::prod: return vec::Reduce::prod;
        case Op::l1: return vec::Reduce::sum_abs;
        case Op::l2: case Op::sum_square: return vec::Reduce::sum_square;
        default: return vec::Reduce::sum;
    }
}

/// A value that T may not have: what is no number or out of range becomes 0.
template <class T>
T to_result(double v) {
    if constexpr (std::is_floating_point_v<T>) return static_cast<T>(v);
    else return v >= -0x1p63 && v < 0x1p63 ? static_cast<T>(static_cast<std::int64_t>(v)) : T(0);
}
/// From the collected value of n elements to the result.
template <class T, class A>
T finish(Op op, A a, std::int64_t n) {
    switch (op) {
        case Op::mean:
            if constexpr (std::is_floating_point_v<T>) return static_cast<T>(a / static_cast<A>(n));
            else if constexpr (std::is_floating_point_v<A>) return to_result<T>(a / static_cast<A>(n));
            else if constexpr (std::is_signed_v<A>) return n ? static_cast<T>(static_cast<std::int64_t>(a) / n) : T(0);
            else return n ? static_cast<T>(a / static_cast<A>(n)) : T(0);
        case Op::l2: return to_result<T>(std::sqrt(static_cast<double>(a)));
        case Op::log_sum: {
            const double v = std::log(static_cast<double>(a));
            return to_result<T>(v);
        }
        default: return static_cast<T>(a);
    }
}

/// The data as T: in place, or converted piece by piece from a narrower type.
template <class T>
struct Source {
    static constexpr std::int64_t piece = 2048;
    const T* x;
    const void* narrow = nullptr;  ///< in place of x where not null
    DType type = DType::undefined;
    /// n <= piece elements from `at`.
    const T* read(std::int64_t at, std::int64_t n, T* buffer) const {
        if (!narrow) return x + at;
        ew::convert(type, narrow, at, dtype_of<T>, buffer, 0, n);
        return buffer;
    }
};
/// The same with T known when running, for the loops of vec::ReduceTable.
struct Elements {
    static constexpr std::int64_t piece = 2048;
    const std::byte* x;
    DType type, wide;  ///< of the data; of the loops
    std::int64_t size = dtype_bits(wide) / 8;
    bool same() const noexcept { return type == wide; }
    /// n <= piece elements.
    const void* read(std::int64_t at, std::int64_t n, std::byte* buffer) const {
        if (same()) return x + at * size;
        ew::convert(type, x, at, wide, buffer, 0, n);
        return buffer;
    }
    /// Asks memory for n elements: it delivers slowly what is read in short pieces from here and there.
    void fetch(std::int64_t at, std::int64_t n) const noexcept {
        const std::byte* p = x + at * dtype_bits(type) / 8;
        for (std::int64_t i = 0; i < n * dtype_bits(type) / 8; i += 64) __builtin_prefetch(p + i);
    }
    /// f(rows, count <= 4, first row) over n <= piece columns of the rows [from, to), row r beginning at offset(r).
    template <class O, class F>
    void groups(std::int64_t from, std::int64_t to, std::int64_t n, O&& offset, F&& f) const {
        const void* rows[4];
        if (same()) {
            for (std::int64_t r = from, count = 0; r < to; r += count) {
                count = std::min<std::int64_t>(4, to - r);
                for (std::int64_t i = 0; i < count; ++i) rows[i] = x + offset(r + i) * size;
                f(rows, count, r);
            }
            return;
        }
        alignas(64) std::byte buffer[piece * 8];
        for (std::int64_t r = from, at = offset(from), next = 0; r < to; ++r, at = next) {
            if (r + 1 < to) fetch(next = offset(r + 1), n);
            rows[0] = read(at, n, buffer);
            f(rows, 1, r);
        }
    }
};
inline Elements wide_elements(const View& x, DType wide) { return {static_cast<const std::byte*>(x.data), x.dtype, wide}; }

/// What depends on the type besides the loops.
struct Kind {
    const vec::ReduceLoops* loops;
    std::int64_t acc;  ///< bytes of a partial result
    void (*fill)(vec::Reduce, bool as_acc, void* to, std::int64_t n);  ///< with what changes nothing, partial results or elements
    void (*join)(vec::Reduce, const void* from, void* acc, std::int64_t n);
    void (*finish)(Op, const void* acc, std::int64_t n, std::int64_t each, void* y);
};
template <class T>
Kind kind_of(const vec::ReduceLoops& loops) {
    using A = acc_t<T>;
    return {&loops, sizeof(A),
            [](vec::Reduce r, bool as_acc, void* to, std::int64_t n) {
                if (as_acc) std::fill_n(static_cast<A*>(to), n, none<A>(r));
                else std::fill_n(static_cast<T*>(to), n, static_cast<T>(none<A>(r)));
            },
            [](vec::Reduce r, const void* from, void* acc, std::int64_t n) {
                for (std::int64_t i = 0; i < n; ++i) static_cast<A*>(acc)[i] = merge(r, static_cast<A*>(acc)[i], static_cast<const A*>(from)[i]);
            },
            [](Op op, const void* acc, std::int64_t n, std::int64_t each, void* y) {
                auto* a = static_cast<const A*>(acc);
                auto* to = static_cast<T*>(y);
                if (op == Op::mean || op == Op::l2 || op == Op::log_sum)
                    for (std::int64_t i = 0; i < n; ++i) to[i] = finish<T>(op, a[i], each);
                else
                    for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(a[i]);
            }};
}
inline Kind kind_of(DType t, const vec::ReduceTable& l) {
    switch (t) {
        case DType::f32: return kind_of<float>(l.f32);
        case DType::f64: return kind_of<double>(l.f64);
        case DType::i32: return kind_of<std::int32_t>(l.i32);
        case DType::i64: return kind_of<std::int64_t>(l.i64);
        case DType::i8: return kind_of<std::int8_t>(l.i8);
        case DType::u8: return kind_of<std::uint8_t>(l.u8);
        default: return kind_of<std::uint64_t>(l.u64);
    }
}

/// One reduction: y as x.wide.
class Reduction {
public:
    Reduction(const Walk& w, Op op, const Elements& x, const vec::ReduceTable& t, void* y) : w_(w), op_(op), step_(step_of(op)), x_(x), kind_(kind_of(x.wide, t)), y_(static_cast<std::byte*>(y)) {}
    void run(std::byte* partial, Workers& workers) const {
        if (w_.rank && !w_.reduced[0]) rows(partial, workers);
        else runs(partial, workers);
    }

private:
    /// Columns that are reduced together: whole rows of the source where they are not longer, as memory likes it.
    static constexpr std::int64_t columns_most = 2048, runs_most = 256;
    // Buffers of loops are aligned to lines: a vector that crosses one is stored and read back at a tenth of the speed.
    void rows(std::byte* partial, Workers& workers) const {
        const std::int64_t n = w_.dims[0], row_parts = ReduceKernel::row_parts(w_.each * w_.outputs);
        const bool few = w_.outputs <= ReduceKernel::few_columns && row_parts > 1 && w_.each >= 2 * row_parts;
        const std::int64_t chunk = few || w_.outputs >= 8 * columns_most ? std::min(n, columns_most) : 512, chunks = (n + chunk - 1) / chunk;
        if (few && w_.outputs / n * chunks < 8) {
            workers.for_each(w_.outputs / n * chunks * row_parts, [&](std::int64_t i) {
                const std::int64_t p = i % row_parts, c = i / row_parts, outer = c / chunks, at = c % chunks * chunk;
                columns(w_.offset(outer, false, 1) + at, std::min(chunk, n - at), w_.each * p / row_parts, w_.each * (p + 1) / row_parts,
                        partial + (p * w_.outputs + outer * n + at) * kind_.acc);
            });
            for (std::int64_t p = 1; p < row_parts; ++p) kind_.join(step_, partial + p * w_.outputs * kind_.acc, partial, w_.outputs);
            return finish(partial, 0, w_.outputs);
        }
        const std::int64_t per = std::max<std::int64_t>(1, ReduceKernel::piece / std::max<std::int64_t>(1, w_.each * std::min(n, chunk)));
        workers.ranges(w_.outputs / n * chunks, per, [&](std::int64_t from, std::int64_t to) {
            alignas(64) std::byte acc[columns_most * 8];
            for (std::int64_t i = from; i < to; ++i) {
                const std::int64_t outer = i / chunks, at = i % chunks * chunk, width = std::min(chunk, n - at);
                columns(w_.offset(outer, false, 1) + at, width, 0, w_.each, acc);
                finish(acc, outer * n + at, width);
            }
        });
    }
    /// acc[j] over the rows [from, to) of `width` <= columns_most columns from element `base`.
    void columns(std::int64_t base, std::int64_t width, std::int64_t from, std::int64_t to, std::byte* acc) const {
        const auto loop = kind_.loops->rows[static_cast<int>(step_)];
        const auto widen = kind_.loops->widen[static_cast<int>(step_)];
        alignas(64) std::byte narrow[columns_most * sizeof(float)];
        std::byte* part = widen ? narrow : acc;
        kind_.fill(step_, true, acc, width);
        if (width < 16) {  // runs of one element
            for (std::int64_t r = from; r < to; ++r) kind_.loops->runs[static_cast<int>(step_)](x_.read(base + w_.offset(r, true), width, narrow), width, 1, acc);
            return;
        }
        const std::int64_t most = widen ? 32 : to - from;
        for (std::int64_t r = from; r < to; r += most) {
            if (widen) kind_.fill(step_, false, part, width);
            x_.groups(r, std::min(to, r + most), width, [&](std::int64_t i) { return base + w_.offset(i, true); },
                      [&](const void* const* p, std::int64_t count, std::int64_t) { loop(p, count, width, part); });
            if (widen) widen(reinterpret_cast<const float*>(part), width, reinterpret_cast<double*>(acc));
        }
    }
    void runs(std::byte* partial, Workers& workers) const {
        const std::int64_t n = w_.rank ? w_.dims[0] : 1, count = n ? w_.each / n : 0;
        if (count == 1 && n > 2 * ReduceKernel::piece && w_.outputs <= 16) {  // few long runs: in parts
            const std::int64_t parts = (n + ReduceKernel::piece - 1) / ReduceKernel::piece;
            kind_.fill(step_, true, partial, w_.outputs * parts);
            workers.for_each(w_.outputs * parts, [&](std::int64_t i) {
                const std::int64_t at = i % parts * ReduceKernel::piece;
                join_runs(w_.offset(i / parts, false) + at, 1, std::min(ReduceKernel::piece, n - at), partial + i * kind_.acc);
            });
            for (std::int64_t o = 0; o < w_.outputs; ++o) {
                alignas(8) std::byte acc[8];
                kind_.fill(step_, true, acc, 1);
                for (std::int64_t i = 0; i < parts; ++i) kind_.join(step_, partial + (o * parts + i) * kind_.acc, acc, 1);
                finish(acc, o, 1);
            }
            return;
        }
        workers.ranges(w_.outputs, std::max<std::int64_t>(1, ReduceKernel::piece / std::max<std::int64_t>(1, w_.each)), [&](std::int64_t from, std::int64_t to) {
            alignas(64) std::byte acc[runs_most * 8];
            for (std::int64_t o = from; o < to; o += runs_most) {
                const std::int64_t m = std::min(runs_most, to - o);
                kind_.fill(step_, true, acc, m);
                if (w_.rank <= 2) join_runs(o * n, m, n, acc);  // one run behind the other
                else
                    for (std::int64_t i = 0; i < m; ++i)
                        for (std::int64_t r = 0, first = w_.offset(o + i, false); r < count; ++r) join_runs(first + w_.offset(r, true, 1), 1, n, acc + i * kind_.acc);
                finish(acc, o, m);
            }
        });
    }
    /// acc[i] joined with the i-th of `count` runs of n from element `at`.
    void join_runs(std::int64_t at, std::int64_t count, std::int64_t n, std::byte* acc) const {
        const auto loop = kind_.loops->runs[static_cast<int>(step_)];
        if (x_.same()) return loop(x_.read(at, 0, nullptr), count, n, acc);
        alignas(64) std::byte buffer[Elements::piece * 8];
        const std::int64_t whole = std::max<std::int64_t>(1, Elements::piece / std::max<std::int64_t>(1, n));
        for (std::int64_t c = 0; c < count; c += whole)  // whole runs while they fit
            for (std::int64_t i = 0; i < n; i += Elements::piece) {
                const std::int64_t rows = std::min(whole, count - c), m = std::min(Elements::piece, n - i);
                loop(x_.read(at + c * n + i, rows * m, buffer), rows, m, acc + c * kind_.acc);
            }
    }
    void finish(const std::byte* acc, std::int64_t o, std::int64_t n) const { kind_.finish(op_, acc, n, w_.each, y_ + o * x_.size); }
    const Walk& w_;
    Op op_;
    vec::Reduce step_;
    Elements x_;
    Kind kind_;
    std::byte* y_;
};

/// log(sum(exp(x))) of contiguous values: relative to the largest one, in pieces.
inline float log_sum_exp_run(const float* x, std::int64_t n, const vec::Table& t) {
    const float top = t.reduce_f32[static_cast<int>(vec::Reduce::max)](x, n);
    if (!std::isfinite(top)) return top;  // -inf: nothing but -inf; inf and NaN win
    double sum = 0;
    alignas(64) float e[512];
    for (std::int64_t i = 0; i < n; i += 512) {
        const std::int64_t m = std::min<std::int64_t>(512, n - i);
        t.binary_scalar_f32[static_cast<int>(vec::Binary::sub)](x + i, top, e, m);
        t.unary_f32[static_cast<int>(vec::Unary::exp)](e, e, m);
        sum += static_cast<double>(t.reduce_f32[static_cast<int>(vec::Reduce::sum)](e, m));
    }
    return static_cast<float>(static_cast<double>(top) + std::log(sum));
}
/// log(sum(exp(x))) in one pass: the sum is kept relative to the largest value so far.
template <class T>
void log_sum_exp(const Walk& w, const T* x, T* y, const vec::Table& t, Workers& workers) {
    if constexpr (std::is_same_v<T, float>) {
        if (w.rank > 0 && w.rank <= 2 && w.reduced[0] && w.each == w.dims[0]) {
            const std::int64_t n = w.each;
            return workers.ranges(w.outputs, std::max<std::int64_t>(1, 8192 / n), [&](std::int64_t from, std::int64_t to) {
                for (std::int64_t o = from; o < to; ++o) y[o] = log_sum_exp_run(x + o * n, n, t);
            });
        }
    }
    workers.ranges(w.outputs, std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, w.each)), [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t o = from; o < to; ++o) {
            const T* p = x + w.offset(o, false);
            double top = -std::numeric_limits<double>::infinity(), sum = 0;
            for (std::int64_t r = 0; r < w.each; ++r) {
                const double v = static_cast<double>(p[w.offset(r, true)]);
                if (v > top) {
                    sum = sum * std::exp(top - v) + 1;
                    top = v;
                } else if (v == top) {
                    sum += std::isinf(v) && v < 0 ? 0 : 1;
                } else {
                    sum += std::exp(v - top);
                }
            }
            const double v = top + std::log(sum);
            if constexpr (std::is_floating_point_v<T>) y[o] = static_cast<T>(v);
            else y[o] = std::isfinite(v) ? saturated<T>(v) : T(0);
        }
    });
}
/// The result over no elements, for types narrower than the one that is computed in.
inline void fill_empty(Op op, DType type, const View& y) {
    double v = op == Op::prod ? 1 : op == Op::max || op == Op::min ? 0 : 0;
    const bool max = op == Op::max;
    if (op == Op::mean) v = std::numeric_limits<double>::quiet_NaN();
    if (op == Op::log_sum || op == Op::log_sum_exp) v = -std::numeric_limits<double>::infinity();
    std::int64_t whole = static_cast<std::int64_t>(op == Op::prod ? 1 : 0);
    if (op == Op::max || op == Op::min) {
        v = max ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
        const int bits = dtype_bits(type);
        const bool is_unsigned = type == DType::u8 || type == DType::u16 || type == DType::u32 || type == DType::u64;
        if (type == DType::boolean) whole = max ? 0 : 1;
        else if (is_unsigned) whole = max ? 0 : bits == 64 ? -1 : (std::int64_t{1} << bits) - 1;
        else whole = max ? -(std::int64_t{1} << (bits - 2)) * 2 : ((std::int64_t{1} << (bits - 2)) - 1) * 2 + 1;
    }
    const DType from = is_float(type) ? DType::f64 : DType::i64;
    for (std::int64_t i = 0; i < y.count(); ++i)
        ew::convert(from, is_float(type) ? static_cast<const void*>(&v) : &whole, 0, type,
                    static_cast<std::byte*>(y.data) + i * dtype_bits(type) / 8, 0, 1);
}

QUERN_INLINE void ReduceKernel::run(const Call& c) const {
    const View &x = c.in[0], &y = c.out[0];
    const Walk w = make_walk(x, c.in.size() > 1 ? &c.in[1] : nullptr, noop_);
    if (w.outputs == 0) return;
    if (w.each == 0) return fill_empty(op_, type_, y);
    const DType wide = this->wide();
    std::byte* scratch = c.scratch + partial_bytes(x.count(), y.count());
    void* to = y.data;
    if (op_ == Op::log_sum_exp) {
        const void* from = x.data;
        if (wide != type_) {
            c.workers.ranges(x.count(), ew::cheap_grain, [&](std::int64_t b, std::int64_t e) { ew::convert(type_, x.data, b, wide, scratch, b, e - b); });
            from = scratch;
            to = scratch + wide_bytes(wide, x.count());
        }
        auto go = [&](auto zero) { log_sum_exp(w, static_cast<const decltype(zero)*>(from), static_cast<decltype(zero)*>(to), *table_, c.workers); };
        if (wide == DType::u64) go(std::uint64_t{});
        else dispatch_arith(wide, [&](auto tag) { go(typename decltype(tag)::type{}); });
    } else {
        if (wide != type_) to = scratch;
        Reduction(w, op_, wide_elements(x, wide), *reductions_, to).run(c.scratch, c.workers);
    }
    if (wide != type_) ew::convert(wide, to, 0, type_, y.data, 0, y.count());
}

/// Whether v comes before b, the best so far; the first NaN stays.
template <class T>
bool comes_first(T v, T b, bool max, bool last) noexcept {
    return (b == b) & ((v != v) | (max ? v > b : v < b) | (last & (v == b)));  // without branches: none could be foretold
}
/// Places of the largest or smallest of elements of one type.
struct ArgKind {
    const vec::ReduceLoops* loops;
    /// y[j] = first + place[j] and best[j] = v[j] where v[j] comes first.
    void (*join)(const void* v, const void* place, std::int64_t n, std::int64_t first, bool max, bool last, void* best, std::int64_t* y);
    /// The largest or smallest of n values.
    void (*value)(const vec::ReduceLoops&, const void* x, std::int64_t n, bool max, void* v);
};
template <class T>
ArgKind arg_kind(const vec::ReduceLoops& loops) {
    using Place = std::conditional_t<sizeof(T) == 1, std::int8_t, std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>>;
    return {&loops,
            [](const void* v, const void* place, std::int64_t n, std::int64_t first, bool max, bool last, void* best, std::int64_t* y) {
                auto *a = static_cast<const T*>(v);
                auto* b = static_cast<T*>(best);
                for (std::int64_t j = 0; j < n; ++j) {
                    const bool better = (first == 0) | comes_first(a[j], b[j], max, last);
                    b[j] = better ? a[j] : b[j];
                    y[j] = better ? first + static_cast<const Place*>(place)[j] : y[j];
                }
            },
            [](const vec::ReduceLoops& l, const void* x, std::int64_t n, bool max, void* v) {
                const vec::Reduce step = max ? vec::Reduce::max : vec::Reduce::min;
                acc_t<T> a = none<acc_t<T>>(step);
                l.runs[static_cast<int>(step)](x, 1, n, &a);
                *static_cast<T*>(v) = static_cast<T>(a);
            }};
}
inline ArgKind arg_kind(DType t, const vec::ReduceTable& l) {
    switch (t) {
        case DType::f32: return arg_kind<float>(l.f32);
        case DType::f64: return arg_kind<double>(l.f64);
        case DType::i32: return arg_kind<std::int32_t>(l.i32);
        case DType::i64: return arg_kind<std::int64_t>(l.i64);
        case DType::i8: return arg_kind<std::int8_t>(l.i8);
        case DType::u8: return arg_kind<std::uint8_t>(l.u8);
        default: return arg_kind<std::uint64_t>(l.u64);
    }
}
inline bool is_nan(DType t, const void* v) noexcept {
    return t == DType::f32 ? std::isnan(*static_cast<const float*>(v)) : t == DType::f64 && std::isnan(*static_cast<const double*>(v));
}
/// Of n contiguous values, piece by piece where they are converted: the value first, then its place.
inline std::int64_t arg_row(const ArgKind& k, const Elements& x, std::int64_t at, std::int64_t n, bool max, bool last) {
    alignas(64) std::byte buffer[Elements::piece * 8];
    alignas(8) std::byte best[8], v[8] = {};
    std::int64_t found = -1;
    for (std::int64_t i = 0, m = 0; i < n; i += m) {
        m = x.same() ? n : std::min(Elements::piece, n - i);
        const void* p = x.read(at + i, m, buffer);
        k.value(*k.loops, p, m, max, v);
        std::int64_t place[1] = {0};  // as wide as any
        if (i == 0) std::memcpy(best, v, sizeof best), found = 0;
        else k.join(v, place, 1, i, max, last, best, &found);
        if (found == i) found = i + k.loops->find(p, m, best, last && !is_nan(x.wide, best));
    }
    return found;
}
/// `width` columns of n rows, `step` elements apart from `base`.
inline void arg_columns(const ArgKind& k, const Elements& x, std::int64_t base, std::int64_t n, std::int64_t step, std::int64_t width, bool max, bool last, std::int64_t* y) {
    constexpr std::int64_t block = 1024, rows = 128;
    alignas(64) std::byte best[block * 8], v[block * 8], place[block * 8];
    for (std::int64_t j0 = 0; j0 < width; j0 += block) {
        const std::int64_t m = std::min(block, width - j0), bytes = m * x.size;
        std::memset(best, 0, static_cast<std::size_t>(bytes));
        for (std::int64_t first = 0; first < n; first += rows) {
            const void* p = x.read(base + first * step + j0, m, v);
            if (p != v) std::memcpy(v, p, static_cast<std::size_t>(bytes));
            std::memset(place, 0, static_cast<std::size_t>(bytes));
            x.groups(first + 1, std::min(n, first + rows), m, [&](std::int64_t i) { return base + i * step + j0; },
                     [&](const void* const* p, std::int64_t count, std::int64_t r) { k.loops->arg_rows[max](p, count, m, r - first, last, v, place); });
            k.join(v, place, m, first, max, last, best, y + j0);
        }
    }
}
/// The type that order is found in: itself, or a wider one that holds every value exactly.
inline DType order_type(DType t) noexcept {
    if (t == DType::i8 || t == DType::u8) return t;
    if (t == DType::u32) return DType::i64;
    return dtype_bits(t) <= 16 ? DType::f32 : t;
}
QUERN_INLINE void ArgKernel::run(const Call& c) const {
    const View& x = c.in[0];
    const std::int64_t n = x.dims[axis_], inner = x.count(axis_ + 1, x.rank), outer = x.count(0, axis_);
    if (outer == 0 || inner == 0) return;
    if (n == 0) raise(ErrorCode::shape_mismatch, "ArgMax and ArgMin over an axis of no elements; accepted: one or more");
    auto* y = c.out[0].out<std::int64_t>();
    const Elements from = wide_elements(x, order_type(x.dtype));
    const ArgKind k = arg_kind(from.wide, *reductions_);
    c.workers.ranges(outer * inner, std::max<std::int64_t>(inner > 1 ? 512 : 1, 32768 / n), [&](std::int64_t b, std::int64_t e) {
        if (inner == 1) {
            for (; b < e; ++b) {
                if (b + 1 < e && n >= 1024 && n < 8192 && from.size >= 4) from.fetch((b + 1) * n, n);  // short rows run ahead by themselves
                y[b] = arg_row(k, from, b * n, n, max_, last_);
            }
            return;
        }
        while (b < e) {
            const std::int64_t o = b / inner, j = b % inner, width = std::min(e - b, inner - j);
            arg_columns(k, from, o * n * inner + j, n, inner, width, max_, last_, y + b);
            b += width;
        }
    });
}

/// Running sums or products of T, a buffer of narrow ones at a time. Unsigned numbers of 64 bits are signed ones here: the same bits.
template <class T, vec::Reduce step>
class Cumulative {
public:
    using A = acc_t<T>;
    Cumulative(const View& x, const View& y, bool exclusive, bool reverse, const vec::ReduceTable& t)
        : x_{static_cast<const T*>(x.data)}, y_(static_cast<T*>(y.data)), to_(y.data), type_(x.dtype), exclusive_(exclusive), reverse_(reverse), table_(t) {
        if (ew::wide_of(x.dtype) != x.dtype) x_ = {nullptr, x.data, x.dtype}, y_ = nullptr;
    }
    /// `count` <= 4 neighbouring rows of n: side by side, since each sum waits for the one before; sums of f32 do not.
    void rows(std::int64_t row, std::int64_t count, std::int64_t n) const {
        if constexpr (step == vec::Reduce::sum && std::is_same_v<T, float>) {
            for (std::int64_t r = row; r < row + count; ++r) sums(r * n, n);
        } else {
            interleaved(row, count, n);
        }
    }
    /// `width` <= piece columns of n rows, `step` elements apart.
    void columns(std::int64_t base, std::int64_t n, std::int64_t apart, std::int64_t width) const {
        alignas(64) T buffer[piece];
        alignas(64) A acc[piece];
        std::fill(acc, acc + width, none<A>(step));
        for (std::int64_t k = 0; k < n; ++k) {
            const std::int64_t at = base + (reverse_ ? n - 1 - k : k) * apart;
            const T* p = x_.read(at, width, buffer);
            T* q = y_ ? y_ + at : buffer;
            for (std::int64_t j = 0; j < width; ++j) {
                const A next = merge(step, acc[j], static_cast<A>(p[j]));
                q[j] = static_cast<T>(exclusive_ ? acc[j] : next);
                acc[j] = next;
            }
            if (!y_) ew::convert(dtype_of<T>, q, 0, type_, to_, at, width);
        }
    }
    static constexpr std::int64_t piece = 512;

private:
    void sums(std::int64_t from, std::int64_t n) const {
        alignas(64) T buffer[piece];
        double carry = 0;
        const std::int64_t most = y_ ? n : piece;
        for (std::int64_t done = 0; done < n; done += most) {
            const std::int64_t m = std::min(most, n - done), at = from + (reverse_ ? n - done - m : done);
            T* q = y_ ? y_ + at : buffer;
            table_.running_sum(x_.read(at, m, buffer), q, m, &carry, exclusive_, reverse_);
            if (!y_) ew::convert(dtype_of<T>, q, 0, type_, to_, at, m);
        }
    }
    void interleaved(std::int64_t row, std::int64_t count, std::int64_t n) const {
        alignas(64) T buffer[4][piece];
        A acc[4];
        std::fill(acc, acc + 4, none<A>(step));
        for (std::int64_t done = 0; done < n; done += piece) {
            const std::int64_t m = std::min(piece, n - done), at = row * n + (reverse_ ? n - done - m : done);
            const T* p[4];
            T* q[4];
            for (std::int64_t r = 0; r < 4; ++r) {
                const std::int64_t from = at + std::min(r, count - 1) * n;
                p[r] = x_.read(from, m, buffer[r]);
                q[r] = r < count && y_ ? y_ + from : buffer[r];
            }
            if (reverse_) run<-1>(p, q, acc, m);
            else run<1>(p, q, acc, m);
            for (std::int64_t r = 0; r < count && !y_; ++r) ew::convert(dtype_of<T>, q[r], 0, type_, to_, at + r * n, m);
        }
    }
    template <int direction>
    void run(const T* const* p, T* const* q, A* acc, std::int64_t m) const {
        A a[4] = {acc[0], acc[1], acc[2], acc[3]};
        for (std::int64_t k = 0; k < m; ++k) {
            const std::int64_t i = direction > 0 ? k : m - 1 - k;
            for (int r = 0; r < 4; ++r) {
                const A next = merge(step, a[r], static_cast<A>(p[r][i]));
                q[r][i] = static_cast<T>(exclusive_ ? a[r] : next);
                a[r] = next;
            }
        }
        std::copy(a, a + 4, acc);
    }
    Source<T> x_;
    T* y_;
    void* to_;
    DType type_;
    bool exclusive_, reverse_;
    const vec::ReduceTable& table_;
};
template <class T, vec::Reduce step>
void cumulate(const Call& c, int axis, bool exclusive, bool reverse, const vec::ReduceTable& t) {
    const View& x = c.in[0];
    const std::int64_t n = x.dims[axis], inner = x.count(axis + 1, x.rank), outer = x.count(0, axis);
    const Cumulative<T, step> k(x, c.out[0], exclusive, reverse, t);
    if (inner == 1)
        return c.workers.ranges(outer, std::max<std::int64_t>(4, 32768 / n / 4 * 4), [&](std::int64_t from, std::int64_t to) {
            for (; from < to; from += 4) k.rows(from, std::min<std::int64_t>(4, to - from), n);
        });
    c.workers.ranges(outer * inner, std::max<std::int64_t>(k.piece, 32768 / n), [&](std::int64_t from, std::int64_t to) {
        while (from < to) {
            const std::int64_t j = from % inner, width = std::min({to - from, inner - j, k.piece});
            k.columns(from / inner * n * inner + j, n, inner, width);
            from += width;
        }
    });
}
QUERN_INLINE void CumulativeKernel::run(const Call& c) const {
    const View& x = c.in[0];
    if (c.in[1].count() != 1) raise(ErrorCode::shape_mismatch, "the axis must be one value, found " + std::to_string(c.in[1].count()));
    std::int64_t axis = 0;
    ew::convert(c.in[1].dtype, c.in[1].data, 0, DType::i64, &axis, 0, 1);
    if (axis < -x.rank || axis >= x.rank)
        raise(ErrorCode::shape_mismatch, "axis " + std::to_string(axis) + " is outside of rank " + std::to_string(x.rank));
    const int a = static_cast<int>(axis < 0 ? axis + x.rank : axis);
    if (x.count() == 0) return;
    auto go = [&](auto zero) {
        using T = decltype(zero);
        if (product_) cumulate<T, vec::Reduce::prod>(c, a, exclusive_, reverse_, *reductions_);
        else cumulate<T, vec::Reduce::sum>(c, a, exclusive_, reverse_, *reductions_);
    };
    const DType wide = ew::wide_of(x.dtype);
    dispatch_arith(wide == DType::u64 ? DType::i64 : wide, [&](auto tag) { go(typename decltype(tag)::type{}); });
}

}  // namespace reduce
QUERN_END
