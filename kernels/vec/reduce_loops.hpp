// Bodies of vec::ReduceTable: one source for all types of elements.
#pragma once
#include <limits>
#include <type_traits>

#include <quern/kernels/vec/lanes.hpp>
#include <quern/kernels/vec/reductions.hpp>

QUERN_VEC_BEGIN

template <class T> constexpr bool is_real = std::is_floating_point_v<T>;
template <class T, bool real = is_real<T>> struct Wrapping { using type = T; };
template <class T> struct Wrapping<T, false> { using type = std::make_unsigned_t<T>; };
/// V, a T or a vector of T, for arithmetic that wraps.
template <class T, class V> using wrapping = std::conditional_t<std::is_same_v<T, V>, typename Wrapping<T>::type, Vec<typename Wrapping<T>::type>>;
/// Whole numbers of T's size, for places.
template <int size> struct Sized;
template <> struct Sized<1> { using type = std::int8_t; };
template <> struct Sized<4> { using type = std::int32_t; };
template <> struct Sized<8> { using type = std::int64_t; };
template <class T> using place_of = typename Sized<sizeof(T)>::type;

template <Reduce R, class T> constexpr T neutral = R == Reduce::max   ? (is_real<T> ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest())
                                                   : R == Reduce::min ? (is_real<T> ? std::numeric_limits<T>::infinity() : std::numeric_limits<T>::max())
                                                                      : T(R == Reduce::prod);
/// One step of a reduction of T, of one value or of a vector of them.
template <Reduce R, class T, class V> QUERN_VEC_INL V step(V acc, V x) {
    using U = wrapping<T, V>;
    if constexpr (R == Reduce::sum) return (V)((U)acc + (U)x);
    else if constexpr (R == Reduce::prod) return (V)((U)acc * (U)x);
    else if constexpr (std::is_same_v<V, F> && R == Reduce::max) return max_nan(acc, x);
    else if constexpr (std::is_same_v<V, F> && R == Reduce::min) return min_nan(acc, x);
    else if constexpr (is_real<T> && R == Reduce::max) return ((x > acc) | (x != x)) ? x : acc;
    else if constexpr (is_real<T> && R == Reduce::min) return ((x < acc) | (x != x)) ? x : acc;
    else if constexpr (R == Reduce::max) return x > acc ? x : acc;
    else if constexpr (R == Reduce::min) return x < acc ? x : acc;
    else if constexpr (R == Reduce::sum_square && is_real<T> && !std::is_same_v<T, V>) return fma(x, x, acc);
    else if constexpr (R == Reduce::sum_square) return (V)((U)acc + (U)x * (U)x);
    else if constexpr (is_real<T> && !std::is_same_v<T, V>) return acc + abs(x);
    else if constexpr (is_real<T>) return acc + (x < 0 ? -x : x);
    else {
        const U sign = (U)(x >> (8 * static_cast<int>(sizeof(T)) - 1));
        return (V)((U)acc + (((U)x ^ sign) - sign));
    }
}
/// How partial results join.
template <Reduce R> constexpr Reduce joined = R == Reduce::sum_abs || R == Reduce::sum_square ? Reduce::sum : R;

/// Lane i takes lane i + h, around the end.
template <int h, class V, int... i> QUERN_VEC_INL V turned(V v, Places<i...>) { return __builtin_shufflevector(v, v, ((i + h) % static_cast<int>(sizeof...(i)))...); }
/// Lane i takes lane i - h; the first ones 0.
template <int h, class V, int... i> QUERN_VEC_INL V moved_up(V v, Places<i...>) { return __builtin_shufflevector(V{}, v, (i < h ? i : static_cast<int>(sizeof...(i)) + i - h)...); }
template <class V, int... i> QUERN_VEC_INL V backwards(V v, Places<i...>) { return __builtin_shufflevector(v, v, (static_cast<int>(sizeof...(i)) - 1 - i)...); }
template <class T> QUERN_VEC_INL Vec<T> iota() {
    return [&]<int... i>(Places<i...>) QUERN_VEC_INLINED { return Vec<T>{static_cast<T>(i)...}; }(all_places<T>());
}

/// All lanes as one, in an order that depends on the vector's length only.
template <Reduce R, class T, int h = lanes<T> / 2> QUERN_VEC_INL T fold(Vec<T> v) {
    if constexpr (std::is_same_v<T, float>) {
        return join_lanes(v, [](F a, F b) QUERN_VEC_INLINED { return step<joined<R>, float>(a, b); });
    } else {
        v = step<joined<R>, T>(v, turned<h>(v, all_places<T>()));
        if constexpr (h > 1) return fold<R, T, h / 2>(v);
        else return v[0];
    }
}
/// The first n values, the other lanes `rest`.
template <class T> QUERN_VEC_COLD Vec<T> load_part(const T* x, i64 n, T rest) {
    alignas(64) T t[lanes<T>];
    for (int i = 0; i < lanes<T>; ++i) t[i] = rest;
    for (i64 i = 0; i < n; ++i) t[i] = x[i];
    return load(t);
}
template <class T> QUERN_VEC_COLD void store_part(T* y, Vec<T> v, i64 n) {
    alignas(64) T t[lanes<T>];
    store(t, v);
    for (i64 i = 0; i < n; ++i) y[i] = t[i];
}
template <Reduce R, class T> QUERN_VEC_FN T reduce_block(const T* x, i64 n) {
    constexpr int N = lanes<T>;
    Vec<T> a, b, c, d;
    for (int i = 0; i < N; ++i) a[i] = neutral<R, T>;
    b = c = d = a;
    i64 i = 0;
    for (; i + 4 * N <= n; i += 4 * N) {
        a = step<R, T>(a, load(x + i));
        b = step<R, T>(b, load(x + i + N));
        c = step<R, T>(c, load(x + i + 2 * N));
        d = step<R, T>(d, load(x + i + 3 * N));
    }
    for (; i + N <= n; i += N) a = step<R, T>(a, load(x + i));
    if (i < n) b = step<R, T>(b, load_part(x + i, n - i, neutral<R, T>));
    constexpr Reduce J = joined<R>;
    return fold<R, T>(step<J, T>(step<J, T>(a, b), step<J, T>(c, d)));
}

template <class T, class A, Reduce R> QUERN_VEC_FN void reduce_runs(const void* from, i64 count, i64 n, void* to) {
    const T* x = static_cast<const T*>(from);
    A* acc = static_cast<A*>(to);
    constexpr Reduce J = joined<R>;
    for (i64 c = 0; c < count; ++c, x += n) {
        A a = acc[c];
        if (n < 32) {
            for (i64 i = 0; i < n; ++i) {
                __asm__("" : "+r"(i));  // so short that vectors do not pay
                a = step<R, A>(a, static_cast<A>(x[i]));
            }
        } else if constexpr (std::is_same_v<T, A>) {
            a = step<J, A>(a, reduce_block<R>(x, n));
        } else {
            for (i64 i = 0; i < n; i += 512) a = step<J, A>(a, static_cast<A>(reduce_block<R>(x + i, lesser(512, n - i))));
        }
        acc[c] = a;
    }
}
/// From each of k rows to the one that is read k rows later, if all are as far apart as the first two.
template <class T, int k> QUERN_VEC_INL i64 rows_ahead(const void* const* rows, i64 count) {
    return count > 1 ? k * (reinterpret_cast<i64>(rows[1]) - reinterpret_cast<i64>(rows[0])) : 0;
}
template <class T> QUERN_VEC_INL void prefetch(const T* p, i64 bytes) { __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<i64>(p) + bytes)); }
/// Four rows at a time: memory delivers several streams faster than one that is cut into short pieces.
template <class T, Reduce R> QUERN_VEC_FN void reduce_rows(const void* const* rows, i64 count, i64 n, void* to) {
    constexpr int N = lanes<T>;
    T* part = static_cast<T*>(to);
    auto join = [&]<int k>(const void* const* r, std::integral_constant<int, k>) QUERN_VEC_INLINED {
        const T* x[k];
        const i64 ahead = rows_ahead<T, k>(r, k);
        for (int i = 0; i < k; ++i) x[i] = static_cast<const T*>(r[i]);
        i64 j = 0;
        for (; j + N <= n; j += N) {
            Vec<T> a = load(part + j);
            QUERN_UNROLL
            for (int i = 0; i < k; ++i) {
                a = step<R, T>(a, load(x[i] + j));
                if constexpr (R == Reduce::max || R == Reduce::min) prefetch(x[i] + j, ahead);  // sums are short enough to run ahead by themselves
            }
            store(part + j, a);
        }
        if (j == n) return;
        Vec<T> a = load_part(part + j, n - j, T(0));
        for (int i = 0; i < k; ++i) a = step<R, T>(a, load_part(x[i] + j, n - j, T(0)));
        store_part(part + j, a, n - j);
    };
    i64 r = 0;
    for (; r + 4 <= count; r += 4) join(rows + r, std::integral_constant<int, 4>());
    for (; r < count; ++r) join(rows + r, std::integral_constant<int, 1>());
}
template <class T> QUERN_VEC_FN void max_windows(const void* from, i64 taps, i64 apart, i64 outputs, i64 step_, i64 n, void* to) {
    constexpr int N = lanes<T>;
    const T* x = static_cast<const T*>(from);
    T* y = static_cast<T*>(to);
    for (i64 o = 0; o < outputs; ++o, x += step_, y += n)
        for (i64 j = 0; j < n; j += N) {
            const bool whole = j + N <= n;
            Vec<T> a = whole ? load(x + j) : load_part(x + j, n - j, T(0));
            for (i64 t = 1; t < taps; ++t) a = step<Reduce::max, T>(a, whole ? load(x + t * apart + j) : load_part(x + t * apart + j, n - j, T(0)));
            if (whole) store(y + j, a);
            else store_part(y + j, a, n - j);
        }
}
template <Reduce R> QUERN_VEC_FN void widen_part(const float* part, i64 n, double* acc) {
    i64 j = 0;
    for (; j + WD <= n; j += WD) store(acc + j, step<joined<R>, double>(load(acc + j), widened(part + j)));
    for (; j < n; ++j) acc[j] = step<joined<R>, double>(acc[j], static_cast<double>(part[j]));
}

template <class T> QUERN_VEC_FN i64 find_in(const void* from, i64 n, const void* value, bool last) {
    using P = place_of<T>;
    constexpr int N = lanes<T>;
    const T* x = static_cast<const T*>(from);
    const T v = *static_cast<const T*>(value);
    Vec<T> want;
    for (int i = 0; i < N; ++i) want[i] = v;
    const bool nan = v != v;
    auto is = [&](Vec<T> a) QUERN_VEC_INLINED {
        if constexpr (is_real<T>) return nan ? (Vec<P>)(a != a) : (Vec<P>)(a == want);
        else return (Vec<P>)(a == want);
    };
    auto found = [&](i64 i) QUERN_VEC_INLINED { return is(load(x + i)); };
    auto first_of = [&](Vec<P> m) QUERN_VEC_INLINED { return static_cast<i64>(fold<Reduce::min, P>(m ? iota<P>() : Vec<P>{} + std::numeric_limits<P>::max())); };
    auto last_of = [&](Vec<P> m) QUERN_VEC_INLINED { return static_cast<i64>(fold<Reduce::max, P>(m ? iota<P>() : Vec<P>{} - P(1))); };
    auto tail = [&](i64 at) QUERN_VEC_INLINED {  // of fewer than N: the lanes behind them are not found
        Vec<P> m = is(load_part(x + at, n - at, v));
        return m & (Vec<P>)(iota<P>() < Vec<P>{} + static_cast<P>(n - at));
    };
    if (!last) {
        i64 i = 0;
        while (i + 4 * N <= n && !any(found(i) | found(i + N) | found(i + 2 * N) | found(i + 3 * N))) i += 4 * N;
        for (; i + N <= n; i += N)
            if (Vec<P> m = found(i); any(m)) return i + first_of(m);
        if (Vec<P> m = tail(i); i < n && any(m)) return i + first_of(m);
        return -1;
    }
    i64 end = n / N * N;
    if (Vec<P> m = tail(end); end < n && any(m)) return end + last_of(m);
    while (end - 4 * N >= 0 && !any(found(end - N) | found(end - 2 * N) | found(end - 3 * N) | found(end - 4 * N))) end -= 4 * N;
    for (; end > 0; end -= N)
        if (Vec<P> m = found(end - N); any(m)) return end - N + last_of(m);
    return -1;
}
template <class T, bool max> QUERN_VEC_FN void arg_rows(const void* const* rows, i64 count, i64 n, i64 first, bool last, void* to, void* places) {
    using P = place_of<T>;
    constexpr int N = lanes<T>;
    T* best = static_cast<T*>(to);
    P* place = static_cast<P*>(places);
    auto all = [&]<bool or_equal>(std::bool_constant<or_equal>) QUERN_VEC_INLINED {
        constexpr int k = 4;
        for (i64 r = 0; r < count; r += k) {
            const T* x[k];
            Vec<P> at[k];
            const i64 ahead = rows_ahead<T, k>(rows + r, count - r);
            for (int i = 0; i < k; ++i) {  // the last row again where fewer are left
                const i64 row = lesser(r + i, count - 1);
                x[i] = static_cast<const T*>(rows[row]);
                at[i] = Vec<P>{} + static_cast<P>(first + row);
            }
            for (i64 j = 0; j < n; j += N) {
                const bool whole = j + N <= n;
                Vec<T> b = whole ? load(best + j) : load_part(best + j, n - j, T(0)), v[k];
                Vec<P> p = whole ? load(place + j) : load_part(place + j, n - j, P(0));
                QUERN_UNROLL
                for (int i = 0; i < k; ++i) {
                    v[i] = whole ? load(x[i] + j) : load_part(x[i] + j, n - j, T(0));
                    prefetch(x[i] + j, ahead);
                }
                bool any_nan = false;  // of the rows: one in b stays by itself
                if constexpr (is_real<T>) {
                    Vec<T> sum = (v[0] + v[1]) + (v[2] + v[3]);
                    any_nan = any((Vec<P>)(sum != sum));
                }
                QUERN_UNROLL
                for (int i = 0; i < k; ++i) {
                    Vec<P> m;
                    if constexpr (or_equal) m = (Vec<P>)(max ? v[i] >= b : v[i] <= b);
                    else m = (Vec<P>)(max ? v[i] > b : v[i] < b);
                    if constexpr (is_real<T>)
                        if (__builtin_expect(any_nan, 0)) m = (m | (Vec<P>)(v[i] != v[i])) & (Vec<P>)(b == b);
                    b = m ? v[i] : b;
                    p = m ? at[i] : p;
                }
                if (whole) {
                    store(best + j, b);
                    store(place + j, p);
                } else {
                    store_part(best + j, b, n - j);
                    store_part(place + j, p, n - j);
                }
            }
        }
    };
    if (last) all(std::true_type());
    else all(std::false_type());
}

/// Sums of lanes 0 to i.
template <int h = 1> QUERN_VEC_INL D running(D v) {
    v += moved_up<h>(v, all_places<double>());
    if constexpr (2 * h < WD) return running<2 * h>(v);
    else return v;
}
/// Two vectors of doubles at a time: but for one addition each pair waits for nothing of the one before.
template <bool exclusive, bool reverse> QUERN_VEC_FN void running_sum_of(const float* x, float* y, i64 n, double* carry) {
    constexpr all_places<double> places{};
    auto at = [&](i64 k) QUERN_VEC_INLINED { return reverse ? n - k - WD : k; };
    auto take = [&](i64 k) QUERN_VEC_INLINED {
        D v = widened(x + at(k));
        return running(reverse ? backwards(v, places) : v);
    };
    auto give = [&](i64 k, D sums, D before) QUERN_VEC_INLINED {
        D v = (exclusive ? moved_up<1>(sums, places) : sums) + before;
        store_narrow(y + at(k), reverse ? backwards(v, places) : v);
    };
    auto top = [](D v) QUERN_VEC_INLINED { return splat(v[WD - 1]); };
    D before = splat(*carry);
    i64 k = 0;
    for (; k + 2 * WD <= n; k += 2 * WD) {
        D a = take(k), b = take(k + WD), all = top(a);
        give(k, a, before);
        give(k + WD, b, before + all);
        before += all + top(b);
    }
    double sum = before[0];
    for (; k < n; ++k) {
        const i64 i = reverse ? n - 1 - k : k;
        const double next = sum + static_cast<double>(x[i]);
        y[i] = static_cast<float>(exclusive ? sum : next);
        sum = next;
    }
    *carry = sum;
}
QUERN_VEC_FN void running_sum(const float* x, float* y, i64 n, double* carry, bool exclusive, bool reverse) {
    if (exclusive) return reverse ? running_sum_of<true, true>(x, y, n, carry) : running_sum_of<true, false>(x, y, n, carry);
    return reverse ? running_sum_of<false, true>(x, y, n, carry) : running_sum_of<false, false>(x, y, n, carry);
}

/// The loops of T, collected as A. S: the type that sums are made for, which has the same bits in them.
template <class T, class A = T, class S = T> constexpr ReduceLoops make_reduce_loops() {
    using enum Reduce;
    ReduceLoops l{};
    auto set = [&]<class U, Reduce... R>() {
        using C = std::conditional_t<std::is_same_v<T, A>, U, A>;
        ((l.runs[static_cast<int>(R)] = reduce_runs<U, C, R>, l.rows[static_cast<int>(R)] = reduce_rows<U, R>), ...);
        if constexpr (std::is_same_v<T, float>) ((l.widen[static_cast<int>(R)] = widen_part<R>), ...);
    };
    set.template operator()<T, max, min>();
    if constexpr (sizeof(T) > 1) {
        set.template operator()<S, sum, prod, sum_square>();
        if constexpr (std::is_unsigned_v<T>) {  // no value has a sign
            l.runs[static_cast<int>(sum_abs)] = l.runs[static_cast<int>(sum)];
            l.rows[static_cast<int>(sum_abs)] = l.rows[static_cast<int>(sum)];
        } else {
            set.template operator()<T, sum_abs>();
        }
    }
    l.find = find_in<S>;
    l.arg_rows[0] = arg_rows<T, false>;
    l.arg_rows[1] = arg_rows<T, true>;
    l.max_windows = max_windows<T>;
    return l;
}
constexpr ReduceTable make_reduce_table() {
    return ReduceTable{.f32 = make_reduce_loops<float, double>(), .f64 = make_reduce_loops<double>(), .i32 = make_reduce_loops<std::int32_t>(), .i64 = make_reduce_loops<std::int64_t>(),
                       .u64 = make_reduce_loops<std::uint64_t, std::uint64_t, std::int64_t>(), .i8 = make_reduce_loops<std::int8_t>(),
                       .u8 = make_reduce_loops<std::uint8_t, std::uint8_t, std::int8_t>(), .running_sum = running_sum};
}

QUERN_VEC_END
