// LSTM, GRU and RNN over whole sequences.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include <quern/kernels/packs.hpp>
#include <quern/kernels/rnn/activation.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace rnn {

enum class Cell : std::uint8_t { lstm, gru, rnn };
constexpr int gates_of(Cell c) { return c == Cell::lstm ? 4 : c == Cell::gru ? 3 : 1; }

/// Inputs and outputs in ONNX's order (https://onnx.ai/onnx/operators/onnx__LSTM.html): X [seq, batch, in], W [dirs, gates * H, in],
/// R [dirs, gates * H, H], B [dirs, 2 * gates * H], sequence_lens [batch] (i32), initial_h, initial_c [dirs, batch, H],
/// P [dirs, 3 * H]; Y [seq, dirs, batch, H], Y_h, Y_c [dirs, batch, H]. `batch_first`: X [batch, seq, in], Y [batch, seq, dirs, H],
/// states [batch, dirs, H]. f32 or f64. Y is 0 beyond a row's length; lengths outside [0, seq] raise shape_mismatch.
struct Problem {
    Cell cell = Cell::lstm;
    DType dtype = DType::f32;
    std::int64_t hidden = 0;
    int directions = 1;
    bool reverse = false, batch_first = false, input_forget = false, linear_before_reset = false;
    float clip = 0;                       ///< 0: none
    std::vector<Activation> activations;  ///< for each direction: lstm f g h, gru f g, rnn f
    Tensor w, r;                          ///< W and R when constant: packed once (f32), not read again
};

/// One tile is some rows of the batch in one direction, over the whole sequence.
class SequenceKernel final : public Kernel {
public:
    SequenceKernel(const Problem& p, const Target& target) : p_(p), t_(vec::table(target.isa)), gates_(gates_of(p.cell)) {
        if (p.dtype != DType::f32 || p.hidden == 0) return;
        std::int64_t g = gates_ * p.hidden;
        for (int d = 0; d < p.directions; ++d) {
            if (p_.w.defined() && p_.w.count() > 0) w_packed_.push_back(pack(target, p_.w, d * g, g));
            if (!p_.r.defined()) continue;
            r_packed_.push_back(pack(target, p_.r, d * g, joint()));
            if (joint() < g) candidate_packed_.push_back(pack(target, p_.r, d * g + joint(), g - joint()));
        }
        unread = (w_packed_.empty() ? 0u : 2u) | (r_packed_.empty() ? 0u : 4u);
        p_.w = p_.r = Tensor();
    }
    const char* name() const noexcept override { return "rnn.sequence"; }
    std::size_t packed_bytes() const noexcept override {
        std::size_t n = 0;
        for (auto* v : {&w_packed_, &r_packed_, &candidate_packed_})
            for (const Tensor& t : *v) n += t.bytes();
        return n;
    }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        Sizes s = sizes(in);
        Booking b;
        b.scratch = static_cast<std::size_t>(s.tiles * p_.directions) * s.tile_bytes + s.project_bytes * static_cast<std::size_t>(p_.directions);
        return b;
    }
    void run(const Call& c) const override {
        if (p_.dtype == DType::f32) go<float>(c);
        else go<double>(c);
    }

private:
    static constexpr std::int64_t tile_rows = 16;
    struct Sizes {
        std::int64_t seq, batch, in, rows, tiles;
        std::size_t work, tile_bytes, project_bytes;
    };
    static std::size_t up(std::size_t n) { return (n + 63) / 64 * 64; }
    Sizes sizes(std::span<const View> in) const {
        Sizes s;
        s.seq = in[0].dims[p_.batch_first ? 1 : 0];
        s.batch = in[0].dims[p_.batch_first ? 0 : 1];
        s.in = in[0].dims[2];
        s.rows = std::min(s.batch, tile_rows);
        s.tiles = s.rows ? (s.batch + tile_rows - 1) / tile_rows : 0;
        std::size_t e = p_.dtype == DType::f32 ? 4 : 8, h = static_cast<std::size_t>(p_.hidden), g = h * static_cast<std::size_t>(gates_);
        s.work = up(t_.gemm_work_bytes(s.rows, static_cast<std::int64_t>(g), p_.hidden));
        s.project_bytes = up(static_cast<std::size_t>(s.seq * s.batch) * g * e);
        for (std::int64_t m : {projection_rows(s), s.seq * s.batch % projection_rows(s)})
            if (m > 0) s.work = std::max(s.work, up(t_.gemm_work_bytes(m, static_cast<std::int64_t>(g), s.in)));
        if (s.tiles && s.batch % tile_rows) s.work = std::max(s.work, up(t_.gemm_work_bytes(s.batch % tile_rows, static_cast<std::int64_t>(g), p_.hidden)));
        // recurrent products, hidden state, cell state, a row for the activations, gated state
        s.tile_bytes = s.work + up(static_cast<std::size_t>(s.rows) * g * e) + 3 * up(static_cast<std::size_t>(s.rows) * h * e) + up((g + h) * e);
        return s;
    }
    static std::int64_t projection_rows(const Sizes& s) { return std::max<std::int64_t>(1, std::min<std::int64_t>(s.seq * s.batch, 64)); }

    /// Gates that one product of the hidden state gives: all, or GRU's first two where the candidate needs r before.
    std::int64_t joint() const { return (p_.cell == Cell::gru && !p_.linear_before_reset ? 2 : gates_) * p_.hidden; }
    /// Rows [from, from + n) of all directions' weights [dirs * rows, k], as columns of a product.
    Tensor pack(const Target& target, const Tensor& weights, std::int64_t from, std::int64_t n) const {
        std::int64_t k = weights.shape()[2];
        std::string layout = std::string("rnn.sequence ") + t_.name + " " + std::to_string(from) + " " + std::to_string(n);
        return packed_weights(target, layout, {weights}, t_.packed_floats(n, k) * sizeof(float), [&](std::byte* to) {
            t_.pack_b_f32(n, k, static_cast<const float*>(weights.raw()) + from * k, k, true, 1.f, reinterpret_cast<float*>(to));
        });
    }
    /// c [m, n] = a [m, k] x b [n, k], transposed; `packed` replaces b where there is one for the direction. `back`: from the last
    /// columns on. Steps that take turns find what the last one read in the cache, though all weights are more than it holds.
    void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, const float* b, const std::vector<Tensor>& packed, int dir, float* c, void* work, bool back = false) const {
        if (packed.empty()) return t_.gemm_f32(m, n, k, a, k, false, b, k, true, c, n, {}, work);
        const auto* panels = static_cast<const float*>(packed[static_cast<std::size_t>(dir)].raw());
        std::int64_t group = back ? 4 * t_.panel : std::max<std::int64_t>(1, n);
        for (std::int64_t from = n > 0 ? (n - 1) / group * group : -1; from >= 0; from -= group)
            t_.gemm_packed_f32(m, std::min(group, n - from), k, a, k, false, panels + from * k, c + from, n, {}, work);
    }
    void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const double* a, const double* b, const std::vector<Tensor>&, int, double* c, void* work, bool = false) const {
        t_.gemm_f64(m, n, k, a, k, false, b, k, true, c, n, work);
    }
    static const View* given(const Call& c, std::size_t i) { return i < c.in.size() && c.in[i].present() ? &c.in[i] : nullptr; }
    static View* wanted(const Call& c, std::size_t o) { return o < c.out.size() && c.out[o].present() ? const_cast<View*>(&c.out[o]) : nullptr; }

    template <class T>
    struct Tile {
        const Call& call;
        Sizes s;
        int dir;
        bool backward;
        std::int64_t first, rows;  // of the batch
        const T *projected, *r, *bias, *peep;
        const std::int32_t* lens;
        T *gate, *h, *c, *row, *gated;
        void* work;
    };
    /// Where row b at time t lies in Y, in states, in X and the projections.
    std::int64_t at_y(const Sizes& s, int dir, std::int64_t t, std::int64_t b) const {
        return (p_.batch_first ? (b * s.seq + t) * p_.directions + dir : (t * p_.directions + dir) * s.batch + b) * p_.hidden;
    }
    std::int64_t at_state(const Sizes& s, int dir, std::int64_t b) const {
        return (p_.batch_first ? b * p_.directions + dir : dir * s.batch + b) * p_.hidden;
    }
    std::int64_t at_x(const Sizes& s, std::int64_t t, std::int64_t b) const { return p_.batch_first ? b * s.seq + t : t * s.batch + b; }

    template <class T>
    void go(const Call& call) const {
        Sizes s = sizes(call.in);
        const std::int32_t* lens = given(call, 4) ? call.in[4].in<std::int32_t>() : nullptr;
        if (lens)
            for (std::int64_t b = 0; b < s.batch; ++b)
                if (lens[b] < 0 || lens[b] > s.seq)
                    raise(ErrorCode::shape_mismatch, "sequence_lens holds " + std::to_string(lens[b]) + "; accepted are 0 to " + std::to_string(s.seq));
        std::int64_t g = gates_ * p_.hidden, all = s.seq * s.batch, block = projection_rows(s), blocks = all ? (all + block - 1) / block : 0;
        std::byte* tiles = call.scratch + s.project_bytes * static_cast<std::size_t>(p_.directions);
        std::int64_t n_tiles = s.tiles * p_.directions;
        if (n_tiles == 0) return;
        // As many projections at the same time as there are tiles' work areas.
        std::int64_t n_blocks = blocks * p_.directions, lanes = std::min(n_tiles, n_blocks);
        if (g > 0)
            call.workers.for_each(lanes, [&](std::int64_t lane) {
                for (std::int64_t i = lane; i < n_blocks; i += lanes) {
                    std::int64_t d = i / blocks, from = i % blocks * block, rows = std::min(block, all - from);
                    T* to = reinterpret_cast<T*>(call.scratch + s.project_bytes * static_cast<std::size_t>(d)) + from * g;
                    gemm(rows, g, s.in, call.in[0].in<T>() + from * s.in, unread & 2u ? nullptr : call.in[1].in<T>() + d * g * s.in, w_packed_, static_cast<int>(d), to,
                         tiles + static_cast<std::size_t>(lane) * s.tile_bytes);
                }
            });
        call.workers.for_each(n_tiles, [&](std::int64_t i) {
            int dir = static_cast<int>(i / s.tiles);
            std::int64_t first = i % s.tiles * tile_rows;
            std::byte* at = tiles + static_cast<std::size_t>(i) * s.tile_bytes;
            auto take = [&](std::int64_t n) {
                std::byte* p = at;
                at += up(static_cast<std::size_t>(n) * sizeof(T));
                return reinterpret_cast<T*>(p);
            };
            Tile<T> tile{call, s, dir, dir == 1 || p_.reverse, first, std::min(tile_rows, s.batch - first),
                         reinterpret_cast<const T*>(call.scratch + s.project_bytes * static_cast<std::size_t>(dir)),
                         unread & 4u ? nullptr : call.in[2].in<T>() + dir * g * p_.hidden, nullptr, nullptr, lens, nullptr, nullptr, nullptr, nullptr, nullptr, at};
            at += s.work;
            tile.gate = take(s.rows * g);
            tile.h = take(s.rows * p_.hidden);
            tile.c = take(s.rows * p_.hidden);
            tile.gated = take(s.rows * p_.hidden);
            tile.row = take(g + p_.hidden);
            if (given(call, 3)) tile.bias = call.in[3].in<T>() + dir * 2 * g;
            if (given(call, 7)) tile.peep = call.in[7].in<T>() + dir * 3 * p_.hidden;
            sequence(tile);
        });
    }

    template <class T>
    void sequence(Tile<T>& k) const {
        std::int64_t n = p_.hidden, g = gates_ * n, longest = k.lens ? 0 : k.s.seq, joint = this->joint();
        for (std::int64_t b = 0; b < k.rows; ++b) {
            if (k.lens) longest = std::max<std::int64_t>(longest, k.lens[k.first + b]);
            std::int64_t from = at_state(k.s, k.dir, k.first + b);
            if (const View* v = given(k.call, 5)) std::copy_n(v->in<T>() + from, n, k.h + b * n);
            else std::fill_n(k.h + b * n, n, T{0});
            const View* v = p_.cell == Cell::lstm ? given(k.call, 6) : nullptr;
            if (v) std::copy_n(v->in<T>() + from, n, k.c + b * n);
            else std::fill_n(k.c + b * n, n, T{0});
        }
        View* y = wanted(k.call, 0);
        for (std::int64_t step = 0; step < longest; ++step) {
            gemm(k.rows, joint, n, k.h, k.r, r_packed_, k.dir, k.gate, k.work, step % 2 == 1);
            if (joint < g) {
                for (std::int64_t b = 0; b < k.rows; ++b) {
                    std::int64_t len = k.lens ? k.lens[k.first + b] : k.s.seq;
                    if (step < len) update_gates(k, b, at_x(k.s, k.backward ? len - 1 - step : step, k.first + b));
                    for (std::int64_t j = 0; j < n; ++j) k.gated[b * n + j] = k.gate[b * joint + n + j] * k.h[b * n + j];
                }
                // Rh * (r . h): written after the rows' z, which are kept in c.
                gemm(k.rows, n, n, k.gated, k.r ? k.r + 2 * n * n : nullptr, candidate_packed_, k.dir, k.gate, k.work, step % 2 == 0);
            }
            for (std::int64_t b = 0; b < k.rows; ++b) {
                std::int64_t len = k.lens ? k.lens[k.first + b] : k.s.seq;
                if (step >= len) continue;
                std::int64_t t = k.backward ? len - 1 - step : step;
                const T* x = k.projected + at_x(k.s, t, k.first + b) * g;
                if (p_.cell == Cell::lstm) lstm(k, b, x);
                else if (p_.cell == Cell::gru) gru(k, b, x);
                else plain(k, b, x);
                if (y) std::copy_n(k.h + b * n, n, y->out<T>() + at_y(k.s, k.dir, t, k.first + b));
            }
        }
        finish(k, y);
    }
    template <class T>
    void finish(Tile<T>& k, View* y) const {
        std::int64_t n = p_.hidden;
        for (std::int64_t b = 0; b < k.rows; ++b) {
            std::int64_t to = at_state(k.s, k.dir, k.first + b);
            if (y && k.lens)
                for (std::int64_t t = k.lens[k.first + b]; t < k.s.seq; ++t) std::fill_n(y->out<T>() + at_y(k.s, k.dir, t, k.first + b), n, T{0});
            if (View* v = wanted(k.call, 1)) std::copy_n(k.h + b * n, n, v->out<T>() + to);
            if (View* v = wanted(k.call, 2)) std::copy_n(k.c + b * n, n, v->out<T>() + to);
        }
    }
    template <class T>
    void activate(int which, const Tile<T>& k, T* x, std::int64_t n) const {
        std::size_t per = p_.cell == Cell::lstm ? 3 : p_.cell == Cell::gru ? 2 : 1;
        const Activation& a = p_.activations[static_cast<std::size_t>(k.dir) * per + static_cast<std::size_t>(which)];
        if (p_.clip > 0)
            for (std::int64_t i = 0; i < n; ++i) x[i] = std::min(static_cast<T>(p_.clip), std::max(static_cast<T>(-p_.clip), x[i]));
        a.apply(x, n, t_);
    }
    /// row[i] = x[i] + product[i] + both biases, for gates [from, from + n).
    template <class T>
    static void sum(const Tile<T>& k, const T* x, const T* product, T* to, std::int64_t from, std::int64_t n, std::int64_t g) {
        if (k.bias)
            for (std::int64_t i = 0; i < n; ++i) to[i] = x[from + i] + product[i] + k.bias[from + i] + k.bias[g + from + i];
        else
            for (std::int64_t i = 0; i < n; ++i) to[i] = x[from + i] + product[i];
    }
    template <class T>
    void lstm(Tile<T>& k, std::int64_t b, const T* x) const {
        std::int64_t n = p_.hidden;
        T *i = k.row, *o = i + n, *f = o + n, *g = f + n, *tmp = g + n, *c = k.c + b * n, *h = k.h + b * n;
        sum(k, x, k.gate + b * 4 * n, k.row, 0, 4 * n, 4 * n);
        if (k.peep)
            for (std::int64_t j = 0; j < n; ++j) i[j] += k.peep[j] * c[j], f[j] += k.peep[2 * n + j] * c[j];
        activate(0, k, i, n);
        if (p_.input_forget)
            for (std::int64_t j = 0; j < n; ++j) f[j] = T{1} - i[j];
        else activate(0, k, f, n);
        activate(1, k, g, n);
        for (std::int64_t j = 0; j < n; ++j) c[j] = f[j] * c[j] + i[j] * g[j];
        if (k.peep)
            for (std::int64_t j = 0; j < n; ++j) o[j] += k.peep[n + j] * c[j];
        activate(0, k, o, n);
        std::copy_n(c, n, tmp);
        activate_state(k, tmp, n);
        for (std::int64_t j = 0; j < n; ++j) h[j] = o[j] * tmp[j];
    }
    template <class T>
    void activate_state(const Tile<T>& k, T* x, std::int64_t n) const {
        p_.activations[static_cast<std::size_t>(k.dir) * 3 + 2].apply(x, n, t_);
    }
    /// z and r of one row where the candidate needs r first; z is kept in c.
    template <class T>
    void update_gates(Tile<T>& k, std::int64_t b, std::int64_t row) const {
        std::int64_t n = p_.hidden;
        T* to = k.gate + b * 2 * n;
        sum(k, k.projected + row * 3 * n, to, to, 0, 2 * n, 3 * n);
        activate(0, k, to, 2 * n);
        std::copy_n(to, n, k.c + b * n);
    }
    template <class T>
    void gru(Tile<T>& k, std::int64_t b, const T* x) const {
        std::int64_t n = p_.hidden;
        T *z = k.row, *r = z + n, *u = r + n, *h = k.h + b * n;
        if (p_.linear_before_reset) {
            const T* product = k.gate + b * 3 * n;
            sum(k, x, product, z, 0, 2 * n, 3 * n);
            activate(0, k, z, 2 * n);
            for (std::int64_t j = 0; j < n; ++j)
                u[j] = x[2 * n + j] + (k.bias ? k.bias[2 * n + j] : T{0}) + r[j] * (product[2 * n + j] + (k.bias ? k.bias[5 * n + j] : T{0}));
        } else {
            z = k.c + b * n;
            sum(k, x, k.gate + b * n, u, 2 * n, n, 3 * n);
        }
        activate(1, k, u, n);
        for (std::int64_t j = 0; j < n; ++j) h[j] = (T{1} - z[j]) * u[j] + z[j] * h[j];
    }
    template <class T>
    void plain(Tile<T>& k, std::int64_t b, const T* x) const {
        std::int64_t n = p_.hidden;
        sum(k, x, k.gate + b * n, k.h + b * n, 0, n, n);
        activate(0, k, k.h + b * n, n);
    }
    Problem p_;
    const vec::Table& t_;
    int gates_;
    std::vector<Tensor> w_packed_, r_packed_, candidate_packed_;  // by direction
};

}  // namespace rnn
QUERN_END
