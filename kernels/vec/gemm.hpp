// Matrix products: one register-blocked micro-kernel and the loops around it.
//
// Every element of C is the fma chain over k in ascending order, whichever tile it falls into, so results
// are the same bits however a product is cut into tiles of m and n.
#pragma once
#include <quern/kernels/vec/lanes.hpp>

QUERN_VEC_BEGIN

/// The line is wanted to be written: fetched as the only copy.
QUERN_VEC_INL void fetch_for_write(const float* p) {
#if QUERN_VEC_BYTES >= 32 && defined(__x86_64__)
    __asm__ volatile("prefetchw %0" : : "m"(*p));
#else
    __builtin_prefetch(p, 1, 3);
#endif
}
/// Keeps the compiler from replacing a pointer by a sum of others.
#define QUERN_VEC_OPAQUE(p) __asm__("" : "+r"(p))

/// Columns of a micro-tile and of a packed panel of B.
template <class T> constexpr int panel = 2 * lanes<T>;
/// Rows of a micro-tile: as many as the registers hold.
#if QUERN_VEC_BYTES == 64
template <class T> constexpr int rows_max = sizeof(T) == 4 ? 14 : 8;
#elif defined(__aarch64__)
template <class T> constexpr int rows_max = 12;
#else
template <class T> constexpr int rows_max = 6;
#endif
template <class T> constexpr int paged_rows = rows_max<T> < 8 ? rows_max<T> : 8;
/// A block of A is copied into rows of a constant stride (no power of two), so that all rows of a micro-tile
/// are constant offsets from one pointer: short for k <= 256, long for k <= 1024.
constexpr int short_k = 256, long_k = 1024;
constexpr int short_stride = short_k + 16, long_stride = long_k + 16;
template <class T> constexpr int block_rows = rows_max<T> * (QUERN_VEC_BYTES == 64 ? 8 : 10);

/// An epilogue that fits into the registers of a micro-tile: c = clip(c + bias + residual). Null pointers: absent.
struct End {
    const float* bias;
    const float* residual;  ///< as C, same leading dimension
    float lo, hi;
    /// The micro-tile of as many rows that comes next, and its residual: their lines are fetched while this one's sums are made. Null: absent.
    const float* next = nullptr;
    const float* next_residual = nullptr;
    const float* next_a = nullptr;  ///< where A is read in place: the rows of the next block of rows, to be fetched likewise
};
template <class T> struct Micro {
    using Fn = void (*)(const T* a, i64 as, const T* b, i64 bs, T* c, i64 ldc, i64 k, bool acc, const char* pf, i64 pfs, const End* end);
};

/// A row of the micro-tile that comes next.
QUERN_VEC_INL void fetch_row(const End* e, i64 at) {
    fetch_for_write(e->next + at);
    fetch_for_write(e->next + at + 2 * W - 1);
    if (!e->next_residual) return;
    __builtin_prefetch(e->next_residual + at, 0, 3);
    __builtin_prefetch(e->next_residual + at + 2 * W - 1, 0, 3);
}
QUERN_VEC_INL void fetch_run(const float* a, i64 n) {
    for (i64 i = 0; i < n; i += 16) __builtin_prefetch(a + i, 0, 2);
}
/// A is read in place: row r at a + r * as.
constexpr int in_place = -1;

template <int R> QUERN_VEC_INL void micro_end(F (&s)[R][2], float* c, i64 ldc, const End& e) {
    F b0 = e.bias ? load(e.bias) : F{}, b1 = e.bias ? load(e.bias + W) : F{}, lo = splat(e.lo), hi = splat(e.hi);
    if (const float* from = e.residual) {
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) {
            s[r][0] = (s[r][0] + b0) + load(from);
            s[r][1] = (s[r][1] + b1) + load(from + W);
            from += ldc;
            QUERN_VEC_OPAQUE(from);
        }
    } else {
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) {
            s[r][0] += b0;
            s[r][1] += b1;
        }
    }
    QUERN_UNROLL
    for (int r = 0; r < R; ++r) {
        store(c, clip(s[r][0], lo, hi));
        store(c + W, clip(s[r][1], lo, hi));
        c += ldc;
        QUERN_VEC_OPAQUE(c);
    }
}

/// A micro-tile's sums: zeros, or (acc) what C holds. C's rows are walked by one pointer: as many addresses would leave the registers.
template <class T, int R, class V> QUERN_VEC_INL void begin_sums(V (&s)[R][2], const T* c, i64 ldc, bool acc) {
    if (!acc) {
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) s[r][0] = s[r][1] = V{};
        return;
    }
    QUERN_UNROLL
    for (int r = 0; r < R; ++r) {
        s[r][0] = load(c);
        s[r][1] = load(c + lanes<T>);
        c += ldc;
        QUERN_VEC_OPAQUE(c);
    }
}
template <class T, int R, class V> QUERN_VEC_INL void store_sums(const V (&s)[R][2], T* c, i64 ldc) {
    QUERN_UNROLL
    for (int r = 0; r < R; ++r) {
        store(c, s[r][0]);
        store(c + lanes<T>, s[r][1]);
        c += ldc;
        QUERN_VEC_OPAQUE(c);
    }
}
/// Pointers into A, P of them where it is read in place, at the next step of k.
template <int S, class T, int P> QUERN_VEC_INL void next_k(const T* (&at)[P], const T*& a, i64 as) {
    if constexpr (S == in_place) {
        QUERN_UNROLL
        for (int p = 0; p < P; ++p) {
            ++at[p];
            QUERN_VEC_OPAQUE(at[p]);
        }
    } else {
        a += S ? 1 : as;
    }
}

/// C[R, panel] (+)= A x B for one micro-tile. S > 0: A[r, k] at a[r * S + k]; S = 0: at a[k * as + r];
/// S = in_place: at a[r * as + k], through one pointer for each 3 rows (as and 2 * as are address modes).
/// B rows are `bs` apart. `Fetch`: B is packed, and one line of what comes next is fetched at each step of k: pf, pf + pfs, ...
template <class T, int R, int S, bool Fetch = true>
QUERN_VEC_FN void micro(const T* a, i64 as, const T* b, i64 bs, T* c, i64 ldc, i64 k, bool acc, const char* pf, i64 pfs, const End* end) {
    constexpr int L = lanes<T>;
    using V = typename Lanes<T>::V;
    V s[R][2];
    begin_sums<T>(s, c, ldc, acc);
    constexpr int P = S == in_place ? (R + 2) / 3 : 1;
    const T* at[P];
    QUERN_UNROLL
    for (int p = 0; p < P; ++p) at[p] = a + 3 * p * as;
    // Lines of the next tile a row at a time: together they would hold up those that the sums wait for.
    const bool ahead = Fetch && sizeof(T) == 4 && end && (end->next || end->next_a);
    const i64 some = ahead ? larger(1, k / R) : k;
    for (i64 left = k, row = 0; left > 0; left -= some) {
        if constexpr (Fetch && sizeof(T) == 4) {
            if (ahead && row < R) {
                if (end->next) fetch_row(end, row * ldc);
                if (S == in_place && end->next_a) fetch_run(end->next_a + row * as, k);
                ++row;
            }
        }
        for (i64 i = lesser(left, some); i > 0; --i) {
            V b0 = load(b), b1 = load(b + L);
            if constexpr (Fetch) {
                __builtin_prefetch(pf, 0, 2);
                pf += pfs;
                __builtin_prefetch(b + 512, 0, 3);
                __builtin_prefetch(b + 512 + L, 0, 3);
            }
            QUERN_UNROLL
            for (int r = 0; r < R; ++r) {
                V x = splat(S == in_place ? at[r / 3][r % 3 * as] : S ? a[r * S] : a[r]);
                s[r][0] = fma(x, b0, s[r][0]);
                s[r][1] = fma(x, b1, s[r][1]);
            }
            next_k<S>(at, a, as);
            b += bs;
        }
    }
    if constexpr (sizeof(T) == 4) {
        if (end) return micro_end<R>(s, c, ldc, *end);
    }
    store_sums<T>(s, c, ldc);
}
template <class T, int S, int R = rows_max<T>, bool Fetch = true>
QUERN_VEC_INL typename Micro<T>::Fn micro_for(i64 rows) {
    if constexpr (R == 1) return &micro<T, 1, S, Fetch>;
    else return rows == R ? &micro<T, R, S, Fetch> : micro_for<T, S, R - 1, Fetch>(rows);
}
/// The sums to C, whose last vector of columns holds `last` values; `end` may be null.
template <int R, int V> QUERN_VEC_INL void part_end(F (&s)[R][V], float* c, i64 ldc, i64 last, const End* end) {
    auto get = [&](const float* p, int v) QUERN_VEC_INLINED { return v + 1 < V || last == W ? load(p + v * W) : load_n(p + v * W, last); };
    F lo = splat(end ? end->lo : -__builtin_inff()), hi = splat(end ? end->hi : __builtin_inff());
    QUERN_UNROLL
    for (int v = 0; v < V; ++v) {
        F bias = end && end->bias ? get(end->bias, v) : F{};
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) {
            F y = s[r][v] + bias;
            if (end && end->residual) y += get(end->residual + r * ldc, v);
            if (end) y = clip(y, lo, hi);
            if (v + 1 < V || last == W) store(c + r * ldc + v * W, y);
            else store_n(c + r * ldc + v * W, y, last);
        }
    }
}
/// micro() for the last columns of a product: `cols` of V vectors, the last one perhaps not full.
template <int R, int S, int V>
QUERN_VEC_FN void micro_part(const float* a, i64 as, const float* b, i64 bs, float* c, i64 ldc, i64 cols, i64 k, bool acc, const End* end) {
    i64 last = cols - (V - 1) * W;
    auto get = [&](const float* p, int v) { return v + 1 < V || last == W ? load(p + v * W) : load_n(p + v * W, last); };
    F s[R][V];
    QUERN_UNROLL
    for (int r = 0; r < R; ++r)
        QUERN_UNROLL
        for (int v = 0; v < V; ++v) s[r][v] = acc ? get(c + r * ldc, v) : F{};
    constexpr int P = S == in_place ? (R + 2) / 3 : 1;
    const float* at[P];
    QUERN_UNROLL
    for (int p = 0; p < P; ++p) at[p] = a + 3 * p * as;
    for (i64 i = 0; i < k; ++i, b += bs) {
        F w[V];
        QUERN_UNROLL
        for (int v = 0; v < V; ++v) w[v] = load(b + v * W);  // packed columns are filled up
        QUERN_UNROLL
        for (int r = 0; r < R; ++r) {
            F x = splat(S == in_place ? at[r / 3][r % 3 * as] : S ? a[r * S] : a[r]);
            QUERN_UNROLL
            for (int v = 0; v < V; ++v) s[r][v] = fma(x, w[v], s[r][v]);
        }
        next_k<S>(at, a, as);
    }
    part_end<R, V>(s, c, ldc, last, end);
}
using MicroPart = void (*)(const float* a, i64 as, const float* b, i64 bs, float* c, i64 ldc, i64 cols, i64 k, bool acc, const End* end);
template <int S, int V, int R = rows_max<float>>
QUERN_VEC_INL MicroPart part_for(i64 rows) {
    if constexpr (R == 1) return &micro_part<1, S, V>;
    else return rows == R ? &micro_part<R, S, V> : part_for<S, V, R - 1>(rows);
}
/// Rows are cut evenly: `i`-th of `blocks` pieces starts here.
QUERN_VEC_INL i64 piece(i64 n, i64 blocks, i64 i) { return n / blocks * i + lesser(i, n % blocks); }
QUERN_VEC_INL i64 blocks_of(i64 n, i64 size) { return (n + size - 1) / size; }

/// f(x) applied after a product; the switch stands outside of the loops.
template <class G>
QUERN_VEC_INL void with_post(const Epilogue& e, G&& g) {
    F al = splat(e.alpha), be = splat(e.beta);
    switch (e.post) {
        case Post::none: return g([](auto x) QUERN_VEC_INLINED { return x; });
        case Post::relu: return g([](auto x) QUERN_VEC_INLINED { return relu(x); });
        case Post::clip: return g([=](auto x) QUERN_VEC_INLINED { return clip(x, al, be); });
        case Post::leaky_relu: return g([=](auto x) QUERN_VEC_INLINED { return select(x < 0.f, x * al, x); });
        case Post::gelu: return g([](auto x) QUERN_VEC_INLINED { return gelu(x); });
        case Post::gelu_tanh: return g([](auto x) QUERN_VEC_INLINED { return gelu_tanh(x); });
        case Post::silu: {
            F slope = splat(e.alpha == 0 ? 1.f : e.alpha);
            return g([=](auto x) QUERN_VEC_INLINED { return swish(x, slope); });
        }
        case Post::sigmoid: return g([](auto x) QUERN_VEC_INLINED { return sigmoid(x); });
        case Post::tanh: return g([](auto x) QUERN_VEC_INLINED { return tanh(x); });
        case Post::hard_swish: return g([](auto x) QUERN_VEC_INLINED { return hard_swish(x); });
        case Post::hard_sigmoid: return g([=](auto x) QUERN_VEC_INLINED { return clip(decltype(x)(fma(x, al, be)), F{}, splat(1.f)); });
    }
}
/// The epilogue over R rows and C vectors at once.
template <int R, int C, class G>
QUERN_VEC_INL void finish_part(const float* x, i64 ldx, float* c, i64 ldc, const float* bias_col, const float* bias_row, const float* residual, F scale, G&& f) {
    Pack<R * C> v;
    QUERN_UNROLL
    for (int r = 0; r < R; ++r) {
        F add = splat(bias_col ? bias_col[r] : 0.f);
        QUERN_UNROLL
        for (int j = 0; j < C; ++j) v.v[r * C + j] = fma(load(x + r * ldx + j * W), scale, add);
    }
    if (bias_row) {
        QUERN_UNROLL
        for (int i = 0; i < R * C; ++i) v.v[i] += load(bias_row + i % C * W);
    }
    if (residual) {
        QUERN_UNROLL
        for (int i = 0; i < R * C; ++i) v.v[i] += load(residual + i / C * ldc + i % C * W);
    }
    v = f(v);
    QUERN_UNROLL
    for (int r = 0; r < R; ++r) {
        QUERN_UNROLL
        for (int j = 0; j < C; ++j) store(c + r * ldc + j * W, v.v[r * C + j]);
    }
}
QUERN_VEC_INL bool is_plain(const Epilogue& e) { return !e.bias_row && !e.bias_col && !e.residual && e.post == Post::none && e.scale == 1.f; }
/// Everything by value: what a closure refers to is read again after each store, which may change anything.
template <class G>
QUERN_VEC_FN void finish_with(const float* x, i64 ldx, float* c, i64 ldc, i64 rows, i64 cols, const float* bias_col, const float* bias_row, const float* residual, F scale, G f) {
    auto part = [&]<int R, int C>(i64 r, i64 j) QUERN_VEC_INLINED {
        finish_part<R, C>(x + r * ldx + j, ldx, c + r * ldc + j, ldc, bias_col ? bias_col + r : nullptr, bias_row ? bias_row + j : nullptr,
                          residual ? residual + r * ldc + j : nullptr, scale, f);
    };
    i64 paired = cols / (2 * W) * (2 * W), r = 0;
    for (; r + 2 <= rows; r += 2)
        for (i64 j = 0; j < paired; j += 2 * W) part.template operator()<2, 2>(r, j);
    if (r < rows) {
        i64 j = 0;
        for (; j + 4 * W <= paired; j += 4 * W) part.template operator()<1, 4>(r, j);
        if (j < paired) part.template operator()<1, 2>(r, j);
    }
    if (paired == cols) return;
    for (r = 0; r < rows; ++r) {
        i64 j = paired;
        if (j + W <= cols) part.template operator()<1, 1>(r, j), j += W;
        if (j == cols) continue;
        i64 n = cols - j;
        F v = fma(load_n(x + r * ldx + j, n), scale, splat(bias_col ? bias_col[r] : 0.f));
        if (bias_row) v += load_n(bias_row + j, n);
        if (residual) v += load_n(residual + r * ldc + j, n);
        store_n(c + r * ldc + j, f(v), n);
    }
}
/// C = the epilogue over X, rows x cols; X may be C. The pointers of `e` are those of the tile's first element.
QUERN_VEC_FN void finish(const float* x, i64 ldx, float* c, i64 ldc, i64 rows, i64 cols, const Epilogue& e) {
    with_post(e, [&](auto f) { finish_with(x, ldx, c, ldc, rows, cols, e.bias_col, e.bias_row, e.residual, splat(e.scale), f); });
}
QUERN_VEC_FN void finish(float* c, i64 ldc, i64 rows, i64 cols, const Epilogue& e) {
    if (!is_plain(e)) finish(c, ldc, c, ldc, rows, cols, e);
}
QUERN_VEC_INL Epilogue shifted(const Epilogue& e, i64 row, i64 col, i64 ldc) {
    Epilogue r = e;
    if (r.bias_row) r.bias_row += col;
    if (r.bias_col) r.bias_col += row;
    if (r.residual) r.residual += row * ldc + col;
    return r;
}
QUERN_VEC_INL void finish_if_f32(float* c, i64 ldc, i64 rows, i64 cols, const Epilogue* e, i64 row, i64 col) {
    if (e) finish(c, ldc, rows, cols, shifted(*e, row, col, ldc));
}
QUERN_VEC_INL void finish_if_f32(double*, i64, i64, i64, const Epilogue*, i64, i64) {}

/// Whether the epilogue is one that micro-kernels do; sets the bounds.
QUERN_VEC_INL bool fits_end(const Epilogue* e, End& end) {
    if (!e || e->bias_col || e->scale != 1.f) return false;
    end.lo = -__builtin_inff(), end.hi = __builtin_inff();
    if (e->post == Post::relu) end.lo = 0;
    else if (e->post == Post::clip) end.lo = e->alpha, end.hi = e->beta;
    else if (e->post != Post::none) return false;
    return e->bias_row || e->residual || e->post != Post::none;
}
QUERN_VEC_INL void place_end(End& end, const Epilogue& e, i64 row, i64 col) {
    end.bias = e.bias_row ? e.bias_row + col : nullptr;
    end.residual = e.residual ? e.residual + row + col : nullptr;
}

/// The lines of a micro-tile that is written or added at the end of the sums, on their way meanwhile. So many steps of k pay for it.
constexpr i64 fetched_k = 64;
/// The next whole micro-tile of C, `to` floats from its first value on.
QUERN_VEC_INL void place_next(End& end, const Epilogue& e, const float* c, i64 to) {
    end.next = c + to;
    end.next_residual = e.residual ? e.residual + to : nullptr;
}
/// Rows of A up to so long are fetched a block ahead: more lines at once would hold up those of B.
constexpr i64 fetched_a = 512;
/// Up to so many steps of k a panel of B leaves room for the sums of all rows of a block.
constexpr i64 panel_k = 160;
template <bool Write> QUERN_VEC_INL void fetch_tile(const float* c, i64 ldc, i64 rows, i64 cols) {
    for (i64 r = 0; r < rows; ++r, c += ldc)
        for (const float* p : {c, c + cols - 1}) {
            if constexpr (Write) fetch_for_write(p);
            else __builtin_prefetch(p, 0, 3);
        }
}

/// One micro-tile of a real size: full width straight into C, else through `tile`.
template <class T>
QUERN_VEC_INL void put(typename Micro<T>::Fn fn, const T* a, i64 as, const T* b, i64 bs, T* c, i64 ldc, i64 rows, i64 cols,
                       i64 k, bool acc, const char* pf, i64 pfs, T* tile, const End* end = nullptr) {
    constexpr int N = panel<T>;
    if (cols == N) return fn(a, as, b, bs, c, ldc, k, acc, pf, pfs, end);
    if (acc)
        for (i64 r = 0; r < rows; ++r)
            for (i64 j = 0; j < cols; ++j) tile[r * N + j] = c[r * ldc + j];
    fn(a, as, b, bs, tile, N, k, acc, pf, pfs, nullptr);
    for (i64 r = 0; r < rows; ++r)
        for (i64 j = 0; j < cols; ++j) c[r * ldc + j] = tile[r * N + j];
}

/// Copies A[m0.., k0..] from a row-major matrix, or from its transpose. Rows that lie well in the cache are read in place.
template <class T> struct MatrixRows {
    const T* a;
    i64 lda;
    bool trans;
    bool readable() const { return !trans; }
    /// Strides of whole pages put all rows of a micro-tile into one set of the cache: then no more than it has ways.
    int most_rows() const { return readable() && lda * static_cast<i64>(sizeof(T)) % 4096 == 0 ? paged_rows<T> : rows_max<T>; }
    __attribute__((always_inline)) inline void operator()(i64 m0, i64 mc, i64 k0, i64 kc, T* dst, i64 stride) const {
        if (!trans) {
            for (i64 r = 0; r < mc; ++r) {
                const T* s = a + (m0 + r) * lda + k0;
                T* d = dst + r * stride;
                i64 j = 0;
                for (; j + lanes<T> <= kc; j += lanes<T>) store(d + j, load(s + j));
                for (; j < kc; ++j) d[j] = s[j];
            }
            return;
        }
        for (i64 r0 = 0; r0 < mc; r0 += 16)
            for (i64 j = 0; j < kc; ++j)
                for (i64 r = r0, e = lesser(mc, r0 + 16); r < e; ++r) dst[r * stride + j] = a[(k0 + j) * lda + m0 + r];
    }
};
/// From a piece of `kc` of the k rows of packed panel p to the one that is read next: the same of the next panel, or the next of the first panel.
QUERN_VEC_INL i64 rows_to_next(i64 p, i64 panels, i64 ik, i64 pieces, i64 k, i64 kc) { return p + 1 < panels ? k : ik + 1 < pieces ? kc - p * k : kc; }
/// C[m, n] = A x B. rows(first_row, rows, k0, kc, dst, stride) copies a block of A;
/// columns(p, k0, kc, &bs) gives panel p of B from row k0 on.
template <class T, int S, class Rows, class Columns>
QUERN_VEC_FN void product_blocks(i64 m, i64 n, i64 k, Rows&& rows, Columns&& columns, T* c, i64 ldc, const Epilogue* e, T* work) {
    constexpr int N = panel<T>;
    i64 R = rows_max<T>;
    if constexpr (S == in_place) R = rows.most_rows();
    T* tile = work;
    T* block = work + N * block_rows<T>;
    End end{};
    bool in_registers = fits_end(e, end);
    i64 nm = blocks_of(m, block_rows<T>), nk = blocks_of(k, S == in_place ? long_k : S - 16), np = blocks_of(n, N);
    for (i64 im = 0; im < nm; ++im) {
        i64 m0 = piece(m, nm, im), mc = piece(m, nm, im + 1) - m0, nr = blocks_of(mc, R);
        for (i64 ik = 0; ik < nk; ++ik) {
            i64 k0 = piece(k, nk, ik), kc = piece(k, nk, ik + 1) - k0;
            const T* a = block;
            i64 as = 0, row = S;
            if constexpr (S == in_place) a = rows.a + m0 * rows.lda + k0, as = row = rows.lda;
            else rows(m0, mc, k0, kc, block, i64{S});
            for (i64 p = 0; p < np; ++p) {
                i64 bs = N, cols = lesser(N, n - p * N);
                const T* b = columns(p, k0, kc, &bs);
                constexpr bool parts = sizeof(T) == 4;  // the last columns have kernels of their own
                bool ends = in_registers && ik + 1 == nk && (parts || cols == N);
                const char* next = reinterpret_cast<const char*>(b) + (bs == N ? rows_to_next(p, np, ik, nk, k, kc) * N * static_cast<i64>(sizeof(T)) : 0);
                i64 step = (N * static_cast<i64>(sizeof(T)) + nr - 1) / nr;
                // What an epilogue reads again must not wait for lines of C. Its chains of instructions want many rows, as far as the first cache holds them.
                const bool by_tile = parts && nk == 1 && !ends && e && !is_plain(*e), by_panel = by_tile && kc <= panel_k;
                for (i64 ir = 0; ir < nr; ++ir) {
                    i64 r0 = piece(mc, nr, ir), r = piece(mc, nr, ir + 1) - r0;
                    T* ct = c + (m0 + r0) * ldc + p * N;
                    const End* last = ends ? (place_end(end, *e, (m0 + r0) * ldc, p * N), &end) : nullptr;
                    if constexpr (parts) {
                        const bool fetched = end.next == ct;
                        if (kc >= fetched_k && ik == 0 && !fetched) fetch_tile<true>(ct, ldc, r, cols);
                        if (kc >= fetched_k && ik + 1 == nk && e && e->residual && !fetched) fetch_tile<false>(e->residual + (m0 + r0) * ldc + p * N, ldc, r, cols);
                        const bool along = ir + 1 < nr, across = (p + 1) * N + N <= n;  // where the next whole tile is
                        if (ends && cols == N && kc >= fetched_k && (along || across)) {
                            place_next(end, *e, c, (m0 + (along ? piece(mc, nr, ir + 1) : 0)) * ldc + (along ? p : p + 1) * N);
                        } else {
                            end.next = nullptr;
                        }
                        if constexpr (S == in_place) end.next_a = p == 0 && nk == 1 && kc >= fetched_k && kc <= fetched_a ? a + (along ? piece(mc, nr, ir + 1) : mc) * row : nullptr;
                        T* to = by_panel ? tile + r0 * N : by_tile ? tile : ct;
                        i64 ldt = by_tile ? N : ldc;
                        if (cols == N) micro_for<T, S>(r)(a + r0 * row, as, b, bs, to, ldt, kc, ik > 0, next, step, last);
                        else (cols > W ? part_for<S, 2>(r) : part_for<S, 1>(r))(a + r0 * row, as, b, bs, to, ldt, cols, kc, ik > 0, last);
                    } else {
                        put<T>(micro_for<T, S>(r), a + r0 * row, as, b, bs, ct, ldc, r, cols, kc, ik > 0, next, step, tile, last);
                    }
                    next += step * kc;
                    if constexpr (parts) {
                        if (by_tile && !by_panel) finish(tile, N, ct, ldc, r, cols, shifted(*e, m0 + r0, p * N, ldc));
                    }
                    if (ik + 1 == nk && !ends && !by_tile) finish_if_f32(ct, ldc, r, cols, e, m0 + r0, p * N);
                }
                if constexpr (parts) {
                    if (by_panel) finish(tile, N, c + m0 * ldc + p * N, ldc, mc, cols, shifted(*e, m0, p * N, ldc));
                }
            }
        }
    }
}
template <class T> constexpr std::size_t product_work = sizeof(T) * (block_rows<T> * (panel<T> + long_stride) + 64);

template <class T, class Rows, class Columns>
QUERN_VEC_INL void product(i64 m, i64 n, i64 k, Rows&& rows, Columns&& columns, T* c, i64 ldc, const Epilogue* e, T* work) {
    if (m <= 0 || n <= 0) return;
    if (k <= 0) {
        for (i64 r = 0; r < m; ++r) memset(c + r * ldc, 0, static_cast<std::size_t>(n) * sizeof(T));
        return finish_if_f32(c, ldc, m, n, e, 0, 0);
    }
    if constexpr (requires { rows.lda; }) {
        if (rows.readable()) return product_blocks<T, in_place>(m, n, k, rows, columns, c, ldc, e, work);
    }
    if (k <= short_k) product_blocks<T, short_stride>(m, n, k, rows, columns, c, ldc, e, work);
    else product_blocks<T, long_stride>(m, n, k, rows, columns, c, ldc, e, work);
}

/// k rows of `cols` columns from column j0 of B, to rows of a panel; missing columns become zeros.
template <class T>
QUERN_VEC_FN void pack_panel(i64 kc, i64 cols, const T* b, i64 ldb, bool trans, i64 k0, i64 j0, T* dst) {
    constexpr int N = panel<T>;
    if (!trans) {
        const T* s = b + k0 * ldb + j0;
        for (i64 i = 0; i < kc; ++i, s += ldb, dst += N) {
            if (cols == N) {
                store(dst, load(s));
                store(dst + lanes<T>, load(s + lanes<T>));
            } else {
                for (i64 j = 0; j < N; ++j) dst[j] = j < cols ? s[j] : T(0);
            }
        }
        return;
    }
    if constexpr (sizeof(T) == 4) {
        for (i64 i0 = 0; i0 < kc; i0 += W) {
            i64 n = lesser(W, kc - i0);
            for (i64 j0b = 0; j0b < N; j0b += W) {
                F t[W];
                for (i64 j = 0; j < W; ++j) {
                    const float* s = b + (j0 + j0b + j) * ldb + k0 + i0;
                    t[j] = j0b + j >= cols ? F{} : n == W ? load(s) : load_n(s, n);
                }
                transpose(t);
                for (i64 i = 0; i < n; ++i) store(dst + (i0 + i) * N + j0b, t[i]);
            }
        }
        return;
    }
    for (i64 i0 = 0; i0 < kc; i0 += 16) {  // blocks of 16 k: reads stay within one line per row
        i64 i1 = lesser(kc, i0 + 16);
        for (i64 j = 0; j < cols; ++j) {
            const T* s = b + (j0 + j) * ldb + k0;
            for (i64 i = i0; i < i1; ++i) dst[i * N + j] = s[i];
        }
        for (i64 i = i0; i < i1; ++i)
            for (i64 j = cols; j < N; ++j) dst[i * N + j] = T(0);
    }
}
template <class T>
QUERN_VEC_FN void gemm_any(i64 m, i64 n, i64 k, const T* a, i64 lda, bool ta, const T* b, i64 ldb, bool tb, T* c, i64 ldc,
                           const Epilogue* e, void* work) {
    constexpr int N = panel<T>;
    T* buffer = static_cast<T*>(work);
    T* packed = buffer + product_work<T> / sizeof(T);
    bool direct = !tb && m < 4 * rows_max<T>;  // too few rows to pay for packing
    product<T>(m, n, k, MatrixRows<T>{a, lda, ta}, [&](i64 p, i64 k0, i64 kc, i64* bs) -> const T* {
        i64 cols = lesser(N, n - p * N);
        if (direct && cols == N) {
            *bs = ldb;
            return b + k0 * ldb + p * N;
        }
        pack_panel<T>(kc, cols, b, ldb, tb, k0, p * N, packed);
        return packed;
    }, c, ldc, e, buffer);
}
QUERN_VEC_FN void gemm_f32(i64 m, i64 n, i64 k, const float* a, i64 lda, bool ta, const float* b, i64 ldb, bool tb, float* c,
                           i64 ldc, const Epilogue& e, void* work) {
    gemm_any<float>(m, n, k, a, lda, ta, b, ldb, tb, c, ldc, &e, work);
}
QUERN_VEC_FN void gemm_f64(i64 m, i64 n, i64 k, const double* a, i64 lda, bool ta, const double* b, i64 ldb, bool tb, double* c,
                           i64 ldc, void* work) {
    gemm_any<double>(m, n, k, a, lda, ta, b, ldb, tb, c, ldc, nullptr, work);
}
QUERN_VEC_FN std::size_t gemm_work_bytes(i64, i64, i64) {
    constexpr std::size_t f = product_work<float> + sizeof(float) * panel<float> * long_k;
    constexpr std::size_t d = product_work<double> + sizeof(double) * panel<double> * long_k;
    return (f > d ? f : d) + 64;
}
QUERN_VEC_FN std::size_t packed_floats(i64 n, i64 k) { return static_cast<std::size_t>(blocks_of(n, panel<float>) * panel<float> * k) + 64; }
QUERN_VEC_FN void pack_b_f32(i64 n, i64 k, const float* b, i64 ldb, bool tb, float scale, float* dst) {
    constexpr int N = panel<float>;
    for (i64 p = 0; p * N < n; ++p) pack_panel<float>(k, lesser(N, n - p * N), b, ldb, tb, 0, p * N, dst + p * N * k);
    i64 total = blocks_of(n, N) * N * k;
    if (scale != 1.f)
        for (i64 i = 0; i < total; ++i) dst[i] *= scale;
    for (i64 i = total; i < total + 64; ++i) dst[i] = 0;
}
/// C[R, P panels] = A[R, k] x as many panels of B at a time: with so few rows one panel alone would wait for its own sums.
constexpr int wide_panels = 4, wide_rows = 2;
template <int R, int P>
QUERN_VEC_FN void micro_wide(const float* a, i64 lda, const float* b, i64 k, float* c, i64 ldc) {
    constexpr int N = panel<float>;
    F s[R][P][2];
    QUERN_UNROLL
    for (int r = 0; r < R; ++r) {
        QUERN_UNROLL
        for (int p = 0; p < P; ++p) s[r][p][0] = s[r][p][1] = F{};
    }
    i64 apart = N * k;
    for (i64 i = 0; i < k; ++i, b += N) {
        QUERN_UNROLL
        for (int p = 0; p < P; ++p) {
            const float* at = b + p * apart;
            __builtin_prefetch(at + 512, 0, 3);
            __builtin_prefetch(at + 512 + W, 0, 3);
            F b0 = load(at), b1 = load(at + W);
            QUERN_UNROLL
            for (int r = 0; r < R; ++r) {
                F x = splat(a[r * lda + i]);
                s[r][p][0] = fma(x, b0, s[r][p][0]);
                s[r][p][1] = fma(x, b1, s[r][p][1]);
            }
        }
    }
    QUERN_UNROLL
    for (int r = 0; r < R; ++r) {
        QUERN_UNROLL
        for (int p = 0; p < P; ++p) {
            store(c + r * ldc + p * N, s[r][p][0]);
            store(c + r * ldc + p * N + W, s[r][p][1]);
        }
    }
}
using MicroWide = void (*)(const float*, i64, const float*, i64, float*, i64);
template <int R, int P = wide_panels>
QUERN_VEC_INL MicroWide wide_for(i64 panels) {
    if constexpr (P == 1) return &micro_wide<R, 1>;
    else return panels >= P ? &micro_wide<R, P> : wide_for<R, P - 1>(panels);
}
QUERN_VEC_FN void gemm_packed_f32(i64 m, i64 n, i64 k, const float* a, i64 lda, bool ta, const float* panels, float* c, i64 ldc,
                                  const Epilogue& e, void* work) {
    constexpr int N = panel<float>;
    if (m > 0 && m <= wide_rows && !ta) {
        auto* tile = static_cast<float*>(work);
        for (i64 done = 0; done < n; done += N * wide_panels) {
            i64 left = n - done, there = lesser(wide_panels, blocks_of(left, N)), cols = lesser(left, N * wide_panels);
            bool whole = cols == there * N;
            float* to = whole ? c + done : tile;
            i64 ldt = whole ? ldc : N * wide_panels;
            (m == 1 ? wide_for<1>(there) : wide_for<2>(there))(a, lda, panels + done * k, k, to, ldt);
            if (!whole)
                for (i64 r = 0; r < m; ++r) memcpy(c + r * ldc + done, tile + r * ldt, static_cast<std::size_t>(cols) * sizeof(float));
            finish(c + done, ldc, m, cols, shifted(e, 0, done, ldc));
        }
        return;
    }
    product<float>(m, n, k, MatrixRows<float>{a, lda, ta}, [&](i64 p, i64 k0, i64, i64*) { return panels + p * N * k + k0 * N; },
                   c, ldc, &e, static_cast<float*>(work));
}

QUERN_VEC_END
