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

struct Sum {
    static constexpr vec::Reduce id = vec::Reduce::sum;
    template <class A> static A none() { return A(0); }
    template <class A> static A merge(A a, A b) { return static_cast<A>(wrap<A>(a) + wrap<A>(b)); }
    template <class A, class T> static A step(A a, T x) { return merge<A>(a, static_cast<A>(x)); }
};
struct SumAbs : Sum {
    static constexpr vec::Reduce id = vec::Reduce::sum_abs;
    template <class A, class T> static A step(A a, T x) {
        const A v = static_cast<A>(x);
        return merge<A>(a, v < A(0) ? static_cast<A>(wrap<A>(0) - wrap<A>(v)) : v);
    }
};
struct SumSquare : Sum {
    static constexpr vec::Reduce id = vec::Reduce::sum_square;
    template <class A, class T> static A step(A a, T x) {
        const A v = static_cast<A>(x);
        return merge<A>(a, static_cast<A>(wrap<A>(v) * wrap<A>(v)));
    }
};
struct Prod {
    static constexpr vec::Reduce id = vec::Reduce::prod;
    template <class A> static A none() { return A(1); }
    template <class A> static A merge(A a, A b) { return static_cast<A>(wrap<A>(a) * wrap<A>(b)); }
    template <class A, class T> static A step(A a, T x) { return merge<A>(a, static_cast<A>(x)); }
};
struct Max {
    static constexpr vec::Reduce id = vec::Reduce::max;
    template <class A> static A none() {
        return std::is_floating_point_v<A> ? -std::numeric_limits<A>::infinity() : std::numeric_limits<A>::lowest();
    }
    template <class A> static A merge(A a, A b) { return b > a || b != b ? b : a; }
    template <class A, class T> static A step(A a, T x) { return merge<A>(a, static_cast<A>(x)); }
};
struct Min {
    static constexpr vec::Reduce id = vec::Reduce::min;
    template <class A> static A none() {
        return std::is_floating_point_v<A> ? std::numeric_limits<A>::infinity() : std::numeric_limits<A>::max();
    }
    template <class A> static A merge(A a, A b) { return b < a || b != b ? b : a; }
    template <class A, class T> static A step(A a, T x) { return merge<A>(a, static_cast<A>(x)); }
};

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
/// One contiguous run.
template <class T, class F>
acc_t<T> run_of(const T* x, std::int64_t n, const vec::Table& t) {
    auto a = F::template none<acc_t<T>>();
    if (n < 32) {
        for (std::int64_t i = 0; i < n; ++i) a = F::step(a, x[i]);
    } else if constexpr (std::is_same_v<T, float>) {
        for (std::int64_t i = 0; i < n; i += 512)
            a = F::merge(a, static_cast<double>(t.reduce_f32[static_cast<int>(F::id)](x + i, std::min<std::int64_t>(512, n - i))));
    } else {
        for (std::int64_t i = 0; i < n; ++i) a = F::step(a, x[i]);
    }
    return a;
}
template <class T, class F>
acc_t<T> run_of(const Source<T>& x, std::int64_t at, std::int64_t n, const vec::Table& t) {
    if (!x.narrow) return run_of<T, F>(x.x + at, n, t);
    alignas(64) T buffer[Source<T>::piece];
    auto a = F::template none<acc_t<T>>();
    for (std::int64_t i = 0; i < n; i += x.piece) {
        const std::int64_t m = std::min(x.piece, n - i);
        a = F::merge(a, run_of<T, F>(x.read(at + i, m, buffer), m, t));
    }
    return a;
}
/// Columns that are reduced together: whole rows of the source where they are not longer, as memory likes it.
inline constexpr std::int64_t columns_most = 2048;
// Buffers of loops are aligned to lines: a vector that crosses one is stored and read back at a tenth of the speed.
/// acc[j] over the rows [from, to) of `width` <= columns_most columns from element `base`.
template <class T, class F>
void columns(const Walk& w, const Source<T>& x, std::int64_t base, std::int64_t width, std::int64_t from, std::int64_t to, acc_t<T>* acc, const vec::Table& t) {
    alignas(64) T buffer[columns_most];
    std::fill(acc, acc + width, F::template none<acc_t<T>>());
    if constexpr (std::is_same_v<T, float>) {
        if (width >= 16) {
            alignas(64) float part[columns_most];
            for (std::int64_t r = from; r < to; r += 32) {
                std::fill(part, part + width, static_cast<float>(F::template none<double>()));
                const std::int64_t end = std::min(to, r + 32);
                for (std::int64_t i = r; i < end; ++i) t.accumulate_f32[static_cast<int>(F::id)](x.read(base + w.offset(i, true), width, buffer), part, width);
                for (std::int64_t j = 0; j < width; ++j) acc[j] = F::merge(acc[j], static_cast<double>(part[j]));
            }
            return;
        }
    }
    for (std::int64_t r = from; r < to; ++r) {
        const T* p = x.read(base + w.offset(r, true), width, buffer);
        for (std::int64_t j = 0; j < width; ++j) acc[j] = F::step(acc[j], p[j]);
    }
}
template <class T, class F>
void reduce(const Walk& w, Op op, const Source<T>& x, T* y, const vec::Table& t, void* partial, Workers& workers) {
    using A = acc_t<T>;
    if (w.rank && !w.reduced[0]) {  // whole rows at a time
        const std::int64_t n = w.dims[0], row_parts = ReduceKernel::row_parts(w.each * w.outputs);
        const bool few = w.outputs <= ReduceKernel::few_columns && row_parts > 1 && w.each >= 2 * row_parts;
        const std::int64_t chunk = few || w.outputs >= 8 * columns_most ? std::min(n, columns_most) : 512, chunks = (n + chunk - 1) / chunk;
        if (few && w.outputs / n * chunks < 8) {
            A* part = static_cast<A*>(partial);
            workers.for_each(w.outputs / n * chunks * row_parts, [&](std::int64_t i) {
                const std::int64_t p = i % row_parts, c = i / row_parts, outer = c / chunks, at = c % chunks * chunk;
                columns<T, F>(w, x, w.offset(outer, false, 1) + at, std::min(chunk, n - at), w.each * p / row_parts, w.each * (p + 1) / row_parts,
                              part + p * w.outputs + outer * n + at, t);
            });
            for (std::int64_t o = 0; o < w.outputs; ++o) {
                A a = part[o];
                for (std::int64_t p = 1; p < row_parts; ++p) a = F::merge(a, part[p * w.outputs + o]);
                y[o] = finish<T>(op, a, w.each);
            }
            return;
        }
        const std::int64_t per = std::max<std::int64_t>(1, ReduceKernel::piece / std::max<std::int64_t>(1, w.each * std::min(n, chunk)));
        workers.ranges(w.outputs / n * chunks, per, [&](std::int64_t from, std::int64_t to) {
            alignas(64) A acc[columns_most];
            for (std::int64_t i = from; i < to; ++i) {
                const std::int64_t outer = i / chunks, at = i % chunks * chunk, width = std::min(chunk, n - at);
                columns<T, F>(w, x, w.offset(outer, false, 1) + at, width, 0, w.each, acc, t);
                for (std::int64_t j = 0; j < width; ++j) y[outer * n + at + j] = finish<T>(op, acc[j], w.each);
            }
        });
        return;
    }
    const std::int64_t n = w.rank ? w.dims[0] : 1, runs = n ? w.each / n : 0;
    if (runs == 1 && n > 2 * ReduceKernel::piece && w.outputs <= 16) {  // few long runs: in parts
        const std::int64_t parts = (n + ReduceKernel::piece - 1) / ReduceKernel::piece;
        A* part = static_cast<A*>(partial);
        workers.for_each(w.outputs * parts, [&](std::int64_t i) {
            const std::int64_t at = i % parts * ReduceKernel::piece;
            part[i] = run_of<T, F>(x, w.offset(i / parts, false) + at, std::min(ReduceKernel::piece, n - at), t);
        });
        for (std::int64_t o = 0; o < w.outputs; ++o) {
            A a = F::template none<A>();
            for (std::int64_t i = 0; i < parts; ++i) a = F::merge(a, part[o * parts + i]);
            y[o] = finish<T>(op, a, w.each);
        }
        return;
    }
    workers.ranges(w.outputs, std::max<std::int64_t>(1, ReduceKernel::piece / std::max<std::int64_t>(1, w.each)), [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t o = from; o < to; ++o) {
            if (w.rank <= 2) {  // one run behind the other
                y[o] = finish<T>(op, run_of<T, F>(x, o * n, n, t), w.each);
                continue;
            }
            const std::int64_t first = w.offset(o, false);
            A a = F::template none<A>();
            for (std::int64_t r = 0; r < runs; ++r) a = F::merge(a, run_of<T, F>(x, first + w.offset(r, true, 1), n, t));
            y[o] = finish<T>(op, a, w.each);
        }
    });
}

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
template <class T>
void reduce_any(const Walk& w, Op op, const Source<T>& x, T* y, const vec::Table& t, void* partial, Workers& workers) {
    switch (op) {
        case Op::sum: case Op::mean: case Op::log_sum: return reduce<T, Sum>(w, op, x, y, t, partial, workers);
        case Op::max: return reduce<T, Max>(w, op, x, y, t, partial, workers);
        case Op::min: return reduce<T, Min>(w, op, x, y, t, partial, workers);
        case Op::prod: return reduce<T, Prod>(w, op, x, y, t, partial, workers);
        case Op::l1: return reduce<T, SumAbs>(w, op, x, y, t, partial, workers);
        case Op::l2: case Op::sum_square: return reduce<T, SumSquare>(w, op, x, y, t, partial, workers);
        case Op::log_sum_exp: return log_sum_exp<T>(w, x.x, y, t, workers);
    }
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
    const void* from = x.data;
    void* to = y.data;
    std::byte* scratch = c.scratch;
    void* partial = scratch;
    scratch += partial_bytes(x.count(), y.count());
    const bool pieces = wide != type_ && op_ != Op::log_sum_exp;
    if (wide != type_) {
        to = scratch;
        if (!pieces) {
            std::byte* copy = scratch;
            c.workers.ranges(x.count(), ew::cheap_grain, [&](std::int64_t b, std::int64_t e) { ew::convert(type_, x.data, b, wide, copy, b, e - b); });
            from = copy;
            to = scratch + wide_bytes(wide, x.count());
        }
    }
    auto go = [&](auto zero) {
        using T = decltype(zero);
        Source<T> source{static_cast<const T*>(from)};
        if (pieces) source.narrow = x.data, source.type = type_;
        reduce_any<T>(w, op_, source, static_cast<T*>(to), *table_, partial, c.workers);
    };
    switch (wide) {
        case DType::f32: go(float{}); break;
        case DType::f64: go(double{}); break;
        case DType::i32: go(std::int32_t{}); break;
        case DType::i64: go(std::int64_t{}); break;
        default: go(std::uint64_t{}); break;
    }
    if (wide != type_) ew::convert(wide, to, 0, type_, y.data, 0, y.count());
}

/// Of contiguous values: the largest value first, then its place.
inline std::int64_t arg_row(const float* x, std::int64_t n, bool max, bool last, const vec::Table& t, const vec::FunctionTable& f) {
    const float best = t.reduce_f32[static_cast<int>(max ? vec::Reduce::max : vec::Reduce::min)](x, n);
    return f.find_f32(x, n, best, last && best == best);
}
/// The same of a narrow type, piece by piece. The first NaN stays.
inline std::int64_t arg_row(const Source<float>& x, std::int64_t at, std::int64_t n, bool max, bool last, const vec::Table& t, const vec::FunctionTable& f) {
    if (!x.narrow) return arg_row(x.x + at, n, max, last, t, f);
    alignas(64) float buffer[Source<float>::piece], best = 0;
    std::int64_t place = -1;
    for (std::int64_t i = 0; i < n && best == best; i += x.piece) {
        const std::int64_t m = std::min(x.piece, n - i);
        const float* p = x.read(at + i, m, buffer);
        const float v = t.reduce_f32[static_cast<int>(max ? vec::Reduce::max : vec::Reduce::min)](p, m);
        const bool ahead = max ? (last ? v >= best : v > best) : (last ? v <= best : v < best);
        if (place >= 0 && v == v && !ahead) continue;
        best = v;
        place = i + f.find_f32(p, m, v, last && v == v);
    }
    return place;
}
/// `width` columns of n rows, `step` elements apart: without branches, so that compilers make vectors of the loops.
template <bool max, bool last, class T>
void arg_columns(const Source<T>& x, std::int64_t base, std::int64_t n, std::int64_t step, std::int64_t width, std::int64_t* y) {
    using I = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;
    constexpr std::int64_t block = 1024;
    if (n > std::numeric_limits<std::int32_t>::max()) raise(ErrorCode::unsupported, "ArgMax over more than 2^31 elements");
    alignas(64) T best[block], buffer[block];
    alignas(64) I place[block];
    for (std::int64_t j0 = 0; j0 < width; j0 += block) {
        const std::int64_t m = std::min(block, width - j0);
        std::copy_n(x.read(base + j0, m, buffer), m, best);
        std::fill_n(place, m, I(0));
        for (std::int64_t i = 1; i < n; ++i) {
            const T* p = x.read(base + i * step + j0, m, buffer);
            for (std::int64_t j = 0; j < m; ++j) {
                const T v = p[j], b = best[j];
                const bool ahead = max ? (last ? v >= b : v > b) : (last ? v <= b : v < b);
                const bool better = (b == b) & ((v != v) | ahead);  // the first NaN stays
                best[j] = better ? v : b;
                place[j] = better ? static_cast<I>(i) : place[j];
            }
        }
        for (std::int64_t j = 0; j < m; ++j) y[j0 + j] = place[j];
    }
}
template <class T>
void arg_run(const Source<T>& x, std::int64_t base, std::int64_t n, std::int64_t step, std::int64_t width, bool max, bool last, std::int64_t* y) {
    for (std::int64_t j = 0; width < 8 && j < width; ++j) {
        T best{}, one[1];
        std::int64_t place = -1;
        for (std::int64_t i = 0; i < n && best == best; ++i) {
            const T v = *x.read(base + j + i * step, 1, one);
            if (place < 0 || v != v || (max ? (last ? v >= best : v > best) : (last ? v <= best : v < best))) best = v, place = i;
        }
        y[j] = place;
    }
    if (width < 8) return;
    if (max && last) arg_columns<true, true>(x, base, n, step, width, y);
    else if (max) arg_columns<true, false>(x, base, n, step, width, y);
    else if (last) arg_columns<false, true>(x, base, n, step, width, y);
    else arg_columns<false, false>(x, base, n, step, width, y);
}
/// f(source) with the data in a type that ordering is written for: itself, or f32 for what that holds exactly.
template <class F>
void with_order(const View& x, F&& f) {
    switch (x.dtype) {
        case DType::f64: return f(Source<double>{x.in<double>()});
        case DType::i32: return f(Source<std::int32_t>{x.in<std::int32_t>()});
        case DType::i64: return f(Source<std::int64_t>{x.in<std::int64_t>()});
        case DType::u32: return f(Source<std::uint32_t>{x.in<std::uint32_t>()});
        case DType::u64: return f(Source<std::uint64_t>{x.in<std::uint64_t>()});
        default: break;
    }
    if (x.dtype == DType::f32) f(Source<float>{x.in<float>()});
    else f(Source<float>{nullptr, x.data, x.dtype});
}
QUERN_INLINE void ArgKernel::run(const Call& c) const {
    const View& x = c.in[0];
    const std::int64_t n = x.dims[axis_], inner = x.count(axis_ + 1, x.rank), outer = x.count(0, axis_);
    if (outer == 0 || inner == 0) return;
    if (n == 0) raise(ErrorCode::shape_mismatch, "ArgMax and ArgMin over an axis of no elements; accepted: one or more");
    auto* y = c.out[0].out<std::int64_t>();
    with_order(x, [&](const auto& source) {
        if constexpr (std::is_same_v<std::decay_t<decltype(source)>, Source<float>>) {
            if (inner == 1 && n >= 16)
                return c.workers.ranges(outer, std::max<std::int64_t>(1, 32768 / n), [&](std::int64_t from, std::int64_t to) {
                    for (std::int64_t o = from; o < to; ++o) y[o] = arg_row(source, o * n, n, max_, last_, *table_, *functions_);
                });
        }
        c.workers.ranges(outer * inner, std::max<std::int64_t>(inner > 1 ? 512 : 1, 32768 / n), [&](std::int64_t from, std::int64_t to) {
            while (from < to) {
                const std::int64_t o = from / inner, j = from % inner, width = std::min(to - from, inner - j);
                arg_run(source, o * n * inner + j, n, inner, width, max_, last_, y + from);
                from += width;
            }
        });
    });
}

/// Running sums or products of T, a buffer of narrow ones at a time.
template <class T, class F>
class Cumulative {
public:
    using A = acc_t<T>;
    Cumulative(const View& x, const View& y, bool exclusive, bool reverse)
        : x_{x.in<T>()}, y_(y.out<T>()), to_(y.data), type_(x.dtype), exclusive_(exclusive), reverse_(reverse) {
        if (x.dtype != dtype_of<T>) x_ = {nullptr, x.data, x.dtype}, y_ = nullptr;
    }
    /// `count` <= 4 neighbouring rows of n: side by side, since each sum waits for the one before.
    void rows(std::int64_t row, std::int64_t count, std::int64_t n) const {
        alignas(64) T buffer[4][piece];
        A acc[4];
        std::fill(acc, acc + 4, F::template none<A>());
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
    /// `width` <= piece columns of n rows, `step` elements apart.
    void columns(std::int64_t base, std::int64_t n, std::int64_t step, std::int64_t width) const {
        alignas(64) T buffer[piece];
        alignas(64) A acc[piece];
        std::fill(acc, acc + width, F::template none<A>());
        for (std::int64_t k = 0; k < n; ++k) {
            const std::int64_t at = base + (reverse_ ? n - 1 - k : k) * step;
            const T* p = x_.read(at, width, buffer);
            T* q = y_ ? y_ + at : buffer;
            if (exclusive_)
                for (std::int64_t j = 0; j < width; ++j) {
                    const A next = F::step(acc[j], p[j]);
                    q[j] = static_cast<T>(acc[j]);
                    acc[j] = next;
                }
            else
                for (std::int64_t j = 0; j < width; ++j) {
                    acc[j] = F::step(acc[j], p[j]);
                    q[j] = static_cast<T>(acc[j]);
                }
            if (!y_) ew::convert(dtype_of<T>, q, 0, type_, to_, at, width);
        }
    }
    static constexpr std::int64_t piece = 512;

private:
    template <int direction>
    void run(const T* const* p, T* const* q, A* acc, std::int64_t m) const {
        A a[4] = {acc[0], acc[1], acc[2], acc[3]};
        for (std::int64_t k = 0; k < m; ++k) {
            const std::int64_t i = direction > 0 ? k : m - 1 - k;
            for (int r = 0; r < 4; ++r) {
                const A next = F::step(a[r], p[r][i]);
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
};
template <class T, class F>
void cumulate(const Call& c, int axis, bool exclusive, bool reverse) {
    const View& x = c.in[0];
    const std::int64_t n = x.dims[axis], inner = x.count(axis + 1, x.rank), outer = x.count(0, axis);
    const Cumulative<T, F> k(x, c.out[0], exclusive, reverse);
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
        if (product_) cumulate<T, Prod>(c, a, exclusive_, reverse_);
        else cumulate<T, Sum>(c, a, exclusive_, reverse_);
    };
    switch (ew::wide_of(x.dtype)) {
        case DType::f32: return go(float{});
        case DType::f64: return go(double{});
        case DType::i32: return go(std::int32_t{});
        case DType::i64: return go(std::int64_t{});
        default: return go(std::uint64_t{});
    }
}

}  // namespace reduce
QUERN_END
