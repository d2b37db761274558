// Scaled dot product attention over blocks of queries.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include <quern/kernels/kernel.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace attention {

/// What output 3 holds: scores before or after the cap, with mask, or probabilities.
enum class Scores : std::uint8_t { raw = 0, capped = 1, masked = 2, probabilities = 3 };

/// ONNX Attention (https://onnx.ai/onnx/operators/onnx__Attention.html). Views: Q [B, Hq, S, D], K [B, Hk, L, D],
/// V [B, Hk, L, Dv], or all of rank 3 with the heads inside the last dimension ([B, S, Hq * D]...); mask (bool: true takes part;
/// f16, bf16, f32, f64: added) of rank 1 to 4, right-aligned to [B, Hq, S, T], T = P + L, -inf beyond its last dimension;
/// past K and V [B, Hk, P, D or Dv]; valid lengths [B] (i64). Outputs: Y as Q; present K, V [B, Hk, T, D or Dv]; scores
/// [B, Hq, S, T]. Hq is a multiple of Hk. A query without any key gives zeros. f32 or f64, all but mask and lengths.
struct Problem {
    DType dtype = DType::f32;
    std::int64_t q_heads = 0, kv_heads = 0;  ///< for rank 3
    bool causal = false;
    std::int64_t left = -1, right = -1;  ///< window around a query's position; -1: no bound
    float scale = 0;                     ///< 0: 1 / sqrt(D)
    float softcap = 0;
    Scores scores = Scores::raw;
    /// On a device, of which one may be there: operands as fused.hpp has them; a rotary embedding (rotary.hpp); new rows of a cache (append.hpp).
    /// What stands above, but for dtype, means nothing then; dtype may also be f16 or bf16 there.
    std::shared_ptr<const struct FusedProblem> fused;
    std::shared_ptr<const struct RotaryProblem> rotary;
    std::shared_ptr<const struct AppendProblem> append;
};

/// A read-only mask of any accepted type, as an addend.
struct Mask {
    const View* v = nullptr;
    std::int64_t strides[4] = {0, 0, 0, 0};  // of b, h, s; the last is 1
    std::int64_t length = 0;
    Mask() = default;
    explicit Mask(const View& m) : v(&m) {
        length = m.dim(-1);
        std::int64_t s = length;
        for (int d = m.rank - 2, to = 2; d >= 0; --d, --to) {
            strides[to] = m.dims[d] == 1 ? 0 : s;
            s *= m.dims[d];
        }
    }
    /// Adds row (b, h, i) at columns [from, to) to x; true if a column stays open. Closed columns become exactly -inf.
    template <class T>
    bool add(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t from, std::int64_t to, T* x) const {
        std::int64_t at = b * strides[0] + h * strides[1] + i * strides[2], end = std::max(from, std::min(to, length));
        std::fill(x + end, x + std::max(to, end), -std::numeric_limits<T>::infinity());
        switch (v->dtype) {
            case DType::f32: return each(v->in<float>() + at, from, end, x, [](float f) { return static_cast<T>(f); });
            case DType::f64: return each(v->in<double>() + at, from, end, x, [](double f) { return static_cast<T>(f); });
            case DType::f16: return each(v->in<Half>() + at, from, end, x, [](Half f) { return static_cast<T>(to_float(f)); });
            case DType::bf16: return each(v->in<BFloat16>() + at, from, end, x, [](BFloat16 f) { return static_cast<T>(to_float(f)); });
            default: return each(v->in<std::uint8_t>() + at, from, end, x, [](std::uint8_t f) { return f ? T{0} : -std::numeric_limits<T>::infinity(); });
        }
    }

private:
    template <class M, class T, class F>
    static bool each(const M* m, std::int64_t from, std::int64_t to, T* x, F&& value) {
        constexpr T closed = -std::numeric_limits<T>::infinity();
        bool open = false;
        for (std::int64_t j = from; j < to; ++j) {
            T a = value(m[j]);
            x[j] = a == closed ? closed : x[j] + a;
            open |= a != closed;
        }
        return open;
    }
};

class BlockKernel final : public Kernel {
public:
    BlockKernel(const Problem& p, const vec::Table& t) : p_(p), t_(t) {}
    const char* name() const noexcept override { return "attention.blocks"; }
    Booking book(std::span<const View> in, std::span<const View>, int workers) const override {
        Booking b;
        b.scratch = sizes(in).worker_bytes * static_cast<std::size_t>(workers);
        return b;
    }
    void run(const Call& c) const override {
        if (p_.dtype == DType::f32) go<float>(c);
        else go<double>(c);
    }

private:
    struct Sizes {
        std::int64_t b, hq, hk, s, l, past, total, d, dv, rows;
        std::int64_t q_row, k_row, v_row, y_row;      // between positions
        std::int64_t q_head, k_head, v_head, y_head;  // between heads
        std::size_t work, worker_bytes;
    };
    static bool given(std::span<const View> v, std::size_t i) { return i < v.size() && v[i].present(); }
    static std::size_t up(std::size_t n) { return (n + 63) / 64 * 64; }
    Sizes sizes(std::span<const View> in) const {
        Sizes z;
        const View &q = in[0], &k = in[1], &v = in[2];
        z.b = q.dims[0];
        if (q.rank == 4) {
            z.hq = q.dims[1], z.hk = k.dims[1], z.s = q.dims[2], z.l = k.dims[2], z.d = q.dims[3], z.dv = v.dims[3];
            z.q_row = z.k_row = z.d, z.v_row = z.y_row = z.dv;
            z.q_head = z.s * z.d, z.k_head = z.l * z.d, z.v_head = z.l * z.dv, z.y_head = z.s * z.dv;
        } else {
            z.hq = p_.q_heads, z.hk = p_.kv_heads, z.s = q.dims[1], z.l = k.dims[1], z.d = q.dims[2] / z.hq, z.dv = v.dims[2] / z.hk;
            z.q_row = z.hq * z.d, z.k_row = z.hk * z.d, z.v_row = z.hk * z.dv, z.y_row = z.hq * z.dv;
            z.q_head = z.k_head = z.d, z.v_head = z.y_head = z.dv;
        }
        z.past = given(in, 4) ? in[4].dims[2] : 0;
        z.total = z.past + z.l;
        z.rows = std::min(std::max<std::int64_t>(1, z.s), std::clamp<std::int64_t>(262144 / std::max<std::int64_t>(1, z.total), 16, 128));
        std::size_t e = p_.dtype == DType::f32 ? 4 : 8, r = static_cast<std::size_t>(z.rows);
        z.work = up(std::max(t_.gemm_work_bytes(z.rows, z.total, z.d), t_.gemm_work_bytes(z.rows, z.dv, z.total)));
        z.worker_bytes = z.work + up(r * static_cast<std::size_t>(z.d) * e) + up(r * static_cast<std::size_t>(z.total) * e) + up(r * static_cast<std::size_t>(z.dv) * e);
        return z;
    }
    void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b, std::int64_t ldb, bool tb, float* c, std::int64_t ldc, void* work) const {
        t_.gemm_f32(m, n, k, a, lda, false, b, ldb, tb, c, ldc, {}, work);
    }
    void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t lda, const double* b, std::int64_t ldb, bool tb, double* c, std::int64_t ldc, void* work) const {
        t_.gemm_f64(m, n, k, a, lda, false, b, ldb, tb, c, ldc, work);
    }
    /// Scores of `rows` queries and n keys. A few queries read the keys once, without packing.
    template <class T>
    void products(std::int64_t rows, std::int64_t n, std::int64_t d, const T* q, const T* k, std::int64_t ldk, T* s, std::int64_t lds, void* work) const {
        if constexpr (std::is_same_v<T, float>) {
            if (rows <= 2) {
                for (std::int64_t j = 0; j < n; ++j)
                    for (std::int64_t i = 0; i < rows; ++i) s[i * lds + j] = t_.dot_f32(q + i * d, k + j * ldk, d);
                return;
            }
        }
        gemm(rows, n, d, q, d, k, ldk, true, s, lds, work);
    }
    /// Keys or values of one head: `past` positions in one place, the rest in another.
    template <class T>
    struct Cache {
        const T *old, *now;
        std::int64_t past, width, row;
    };

    template <class T>
    void go(const Call& c) const {
        Sizes z = sizes(c.in);
        bool present_k = given(c.out, 1), present_v = given(c.out, 2);
        if (present_k) join<T>(c, z, 1, 4, c.out[1], z.d, z.k_row, z.k_head);
        if (present_v) join<T>(c, z, 2, 5, c.out[2], z.dv, z.v_row, z.v_head);
        if (given(c.in, 6))
            for (std::int64_t b = 0; b < z.b; ++b)
                if (std::int64_t n = c.in[6].in<std::int64_t>()[b]; n < 0 || n > z.total)
                    raise(ErrorCode::shape_mismatch, "nonpad_kv_seqlen holds " + std::to_string(n) + "; accepted are 0 to " + std::to_string(z.total));
        Mask mask = given(c.in, 3) ? Mask(c.in[3]) : Mask();
        std::int64_t blocks = (z.s + z.rows - 1) / z.rows, heads = z.b * z.hq;
        c.workers.for_each(heads * blocks, [&](std::int64_t i, int worker) {
            std::int64_t b = i / blocks / z.hq, h = i / blocks % z.hq, first = i % blocks * z.rows, g = h / (z.hq / z.hk);
            Cache<T> k = present_k ? Cache<T>{nullptr, c.out[1].in<T>() + (b * z.hk + g) * z.total * z.d, 0, z.d, z.d}
                                   : Cache<T>{z.past ? c.in[4].in<T>() + (b * z.hk + g) * z.past * z.d : nullptr,
                                              c.in[1].in<T>() + b * z.hk * z.l * z.d + g * z.k_head, z.past, z.d, z.k_row};
            Cache<T> v = present_v ? Cache<T>{nullptr, c.out[2].in<T>() + (b * z.hk + g) * z.total * z.dv, 0, z.dv, z.dv}
                                   : Cache<T>{z.past ? c.in[5].in<T>() + (b * z.hk + g) * z.past * z.dv : nullptr,
                                              c.in[2].in<T>() + b * z.hk * z.l * z.dv + g * z.v_head, z.past, z.dv, z.v_row};
            block(c, z, mask, b, h, first, std::min(z.rows, z.s - first), k, v, c.scratch + static_cast<std::size_t>(worker) * z.worker_bytes);
        });
    }
    /// present = past, then the new positions, for all heads.
    template <class T>
    void join(const Call& c, const Sizes& z, std::size_t now, std::size_t old, const View& out, std::int64_t width, std::int64_t row, std::int64_t head) const {
        c.workers.for_each(z.b * z.hk, [&](std::int64_t i) {
            T* to = out.out<T>() + i * z.total * width;
            if (z.past) std::memcpy(to, c.in[old].in<T>() + i * z.past * width, static_cast<std::size_t>(z.past * width) * sizeof(T));
            to += z.past * width;
            const T* from = c.in[now].in<T>() + i / z.hk * z.hk * z.l * width + i % z.hk * head;
            if (row == width) std::copy_n(from, z.l * width, to);
            else for (std::int64_t j = 0; j < z.l; ++j) std::copy_n(from + j * row, width, to + j * width);
        });
    }
    /// The keys [from, to) that query i of batch b may see.
    void visible(const Call& c, const Sizes& z, std::int64_t b, std::int64_t i, std::int64_t& from, std::int64_t& to) const {
        const std::int64_t* valid = given(c.in, 6) ? c.in[6].in<std::int64_t>() : nullptr;
        std::int64_t position = i + (given(c.in, 4) ? z.past : valid ? valid[b] - z.s : 0);
        from = 0;
        to = valid ? std::min(z.total, valid[b]) : z.total;
        if (p_.causal) to = std::min(to, position + 1);
        if (p_.right >= 0) to = std::min(to, position + std::min(p_.right, z.total) + 1);
        if (p_.left >= 0) from = std::max(from, position - std::min(p_.left, z.total + z.s));
        to = std::max<std::int64_t>(to, 0);
        from = std::min(from, to);
    }
    template <class T>
    void block(const Call& c, const Sizes& z, const Mask& mask, std::int64_t b, std::int64_t h, std::int64_t first, std::int64_t rows,
               const Cache<T>& k, const Cache<T>& v, std::byte* mine) const {
        void* work = mine;
        T* q = reinterpret_cast<T*>(mine += z.work);
        T* s = reinterpret_cast<T*>(mine += up(static_cast<std::size_t>(z.rows * z.d) * sizeof(T)));
        T* part = reinterpret_cast<T*>(mine + up(static_cast<std::size_t>(z.rows * z.total) * sizeof(T)));
        T* all = given(c.out, 3) ? c.out[3].out<T>() + ((b * z.hq + h) * z.s + first) * z.total : nullptr;
        std::int64_t lo = 0, hi = z.total, skip;
        if (!all || p_.scores == Scores::probabilities) {
            visible(c, z, b, first, lo, hi);
            visible(c, z, b, first + rows - 1, skip, hi);
            lo = std::min(lo, hi);
        }
        T scale = p_.scale != 0 ? static_cast<T>(p_.scale) : T{1} / std::sqrt(static_cast<T>(std::max<std::int64_t>(1, z.d)));
        const T* from = c.in[0].in<T>() + b * z.hq * z.s * z.d + h * z.q_head + first * z.q_row;
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < z.d; ++j) q[i * z.d + j] = from[i * z.q_row + j] * scale;
        std::int64_t mid = std::clamp(k.past, lo, hi);
        if (mid > lo) products(rows, mid - lo, z.d, q, k.old + lo * z.d, z.d, s + lo, z.total, work);
        if (hi > mid) products(rows, hi - mid, z.d, q, k.now + (mid - k.past) * k.row, k.row, s + mid, z.total, work);
        for (std::int64_t i = 0; i < rows; ++i) probabilities(c, z, mask, b, h, first + i, lo, hi, s + i * z.total, all ? all + i * z.total : nullptr);
        T* y = c.out[0].out<T>() + b * z.hq * z.s * z.dv + h * z.y_head + first * z.y_row;
        mid = std::clamp(v.past, lo, hi);
        if (hi > mid) gemm(rows, z.dv, hi - mid, s + mid, z.total, v.now + (mid - v.past) * v.row, v.row, false, y, z.y_row, work);
        else for (std::int64_t i = 0; i < rows; ++i) std::fill_n(y + i * z.y_row, z.dv, T{0});
        if (mid > lo) {
            gemm(rows, z.dv, mid - lo, s + lo, z.total, v.old + lo * z.dv, z.dv, false, part, z.dv, work);
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < z.dv; ++j) y[i * z.y_row + j] += part[i * z.dv + j];
        }
    }
    /// One row of scores at columns [lo, hi) becomes probabilities; all [T] receives what output 3 shows.
    template <class T>
    void probabilities(const Call& c, const Sizes& z, const Mask& mask, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t lo, std::int64_t hi, T* x, T* all) const {
        if (all && p_.scores == Scores::raw) std::copy_n(x, z.total, all);
        if (p_.softcap > 0) cap(x + lo, hi - lo);
        if (all && p_.scores == Scores::capped) std::copy_n(x, z.total, all);
        std::int64_t from, to;
        visible(c, z, b, i, from, to);
        bool open = to > from;
        if (mask.v) open = mask.add(b, h, i, from, to, x) && open;
        if (all && p_.scores == Scores::masked) {
            // Only visible columns have their mask; the others are closed whatever it says.
            std::fill_n(all, z.total, -std::numeric_limits<T>::infinity());
            std::copy(x + from, x + to, all + from);
        }
        if (lo < from) std::fill(x + lo, x + from, T{0});
        if (to < hi) std::fill(x + std::max(to, lo), x + hi, T{0});
        if (open) softmax(x + from, to - from);
        else std::fill(x + from, x + to, T{0});
        if (all && p_.scores == Scores::probabilities) {
            std::fill_n(all, z.total, T{0});
            std::copy(x + from, x + to, all + from);
        }
    }
    template <class T>
    void cap(T* x, std::int64_t n) const {
        T a = static_cast<T>(p_.softcap);
        if constexpr (std::is_same_v<T, float>) {
            t_.affine_f32(x, 1 / a, 0, x, n);
            t_.unary_f32[static_cast<int>(vec::Unary::tanh)](x, x, n);
            t_.affine_f32(x, a, 0, x, n);
        } else {
            for (std::int64_t j = 0; j < n; ++j) x[j] = a * std::tanh(x[j] / a);
        }
    }
    template <class T>
    void softmax(T* x, std::int64_t n) const {
        if constexpr (std::is_same_v<T, float>) {
            t_.softmax_f32(x, x, n, false);
        } else {
            T top = *std::max_element(x, x + n), sum = 0;
            for (std::int64_t j = 0; j < n; ++j) sum += x[j] = std::exp(x[j] - top);
            for (std::int64_t j = 0; j < n; ++j) x[j] /= sum;
        }
    }
    Problem p_;
    const vec::Table& t_;
};

}  // namespace attention
QUERN_END
