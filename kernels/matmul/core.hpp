// The portable matrix product: products of vec::Table over tiles of Y.
#pragma once
#include <bit>
#include <cstring>

#include <quern/base/ceil_div.hpp>
#include <quern/kernels/matmul/geometry.hpp>
#include <quern/kernels/packs.hpp>

QUERN_BEGIN
namespace matmul {

/// What gemm_packed_f32 uses of `work` where A is not transposed, at most, with any instruction set: a panel of sums of a block of rows.
inline constexpr std::size_t packed_work = std::size_t{16} << 10;

class CoreKernel final : public Kernel {
public:
    CoreKernel(const Problem& p, const Target& target) : p_(p), t_(vec::table(target.isa)) {
        if (!p_.b.defined()) return;
        std::span<const std::int64_t> d = p_.b.shape();
        bool tb = p_.trans_b, vector = d.size() < 2 || (d[d.size() - (tb ? 2 : 1)] <= 1 && !p_.trans_a);
        if (p_.dtype != DType::f32 || vector) {  // used as it is
            p_.b = p_.b.aligned();
            return;
        }
        std::int64_t rows = d[d.size() - 2], cols = d[d.size() - 1];
        std::int64_t n = tb ? rows : cols, k = tb ? cols : rows;
        std::int64_t matrix = rows * cols, count = matrix ? p_.b.count() / matrix : 0;
        stride_ = static_cast<std::int64_t>((t_.packed_floats(n, k) + 15) / 16 * 16);
        unread = 1u << 1;
        const bool scaled = p_.factors.defined();
        if (scaled) unread |= 1u << 4;
        std::string layout = std::string("matmul.core ") + t_.name + (tb ? " t " : " ") + std::to_string(std::bit_cast<std::uint32_t>(p_.alpha)) + (scaled ? " scaled" : "");
        std::size_t bytes = static_cast<std::size_t>(std::max<std::int64_t>(count, 1) * stride_) * sizeof(float);
        auto fill = [&](std::byte* to) {
            if (scaled) p_.factors = p_.factors.aligned();
            const auto* from = static_cast<const std::byte*>(p_.b.raw());
            if (count == 0) std::memset(to, 0, bytes);
            for (std::int64_t i = 0; i < count; ++i)
                pack(n, k, from + static_cast<std::size_t>(i * matrix) * sizeof(float), reinterpret_cast<float*>(to) + i * stride_, target.packs);
        };
        packed_ = scaled ? packed_weights(target, layout, {p_.b, p_.factors}, bytes, fill, tb) : packed_weights(target, layout, {p_.b}, bytes, fill, tb);
        p_.factors = Tensor();
        shape_b_ = p_.b.shape();
        p_.b = Tensor::borrow(DType::f32, shape_b_, packed_.raw());  // only its shape is read from here on
    }
    const char* name() const noexcept override { return "matmul.core"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }

    Booking book(std::span<const View> in, std::span<const View>, int workers) const override {
        auto plan = std::make_shared<Plan>(make_plan(in));
        Booking b;
        b.scratch = plan->head + static_cast<std::size_t>(workers) * plan->work;
        b.state = std::move(plan);
        return b;
    }
    void run(const Call& call) const override {
        if (p_.dtype == DType::f64) run_f64(call);
        else run_f32(call);
    }

private:
    struct Plan {
        Geometry g;
        bool dots = false;      ///< rows of A times a vector, or a vector times rows of B
        std::int64_t tile_m, tile_n, tiles_m, tiles_n, group = 1, groups;
        std::size_t head = 0, work = 0;
    };

    /// One matrix of B from bytes that need not be aligned, as pack_b_f32 does it; in parts, so that the pages behind them can go at once.
    void pack(std::int64_t n, std::int64_t k, const std::byte* from, float* to, Packs* packs) const {
        std::int64_t panel = t_.panel, panels = ceil_div(n, panel), whole = n / panel;
        auto row_bytes = static_cast<std::size_t>(p_.trans_b ? k : n) * sizeof(float);
        std::int64_t rows = p_.trans_b ? panel : 16, step = std::max<std::int64_t>(1, (std::int64_t{4} << 20) / static_cast<std::int64_t>(row_bytes * static_cast<std::size_t>(rows) + 1));
        std::int64_t last = 0, total = p_.trans_b ? n : k;
        std::vector<float> part(static_cast<std::size_t>(p_.trans_b ? panel * k : n > whole * panel ? panel * k : 0));
        const float* factors = p_.factors.defined() ? p_.factors.data<float>().data() : nullptr;
        auto passed = [&](std::int64_t until, bool end) {
            if (!packs || !(end || until - last >= step * rows)) return;
            packs->consumed(from + static_cast<std::size_t>(last) * row_bytes, static_cast<std::size_t>(until - last) * row_bytes);
            last = until;
        };
        for (std::int64_t r0 = 0; r0 < total; r0 += rows) {
            std::int64_t r1 = std::min(total, r0 + rows);
            const std::byte* s = from + static_cast<std::size_t>(r0) * row_bytes;
            if (p_.trans_b) {
                std::memcpy(part.data(), s, static_cast<std::size_t>(r1 - r0) * row_bytes);
                for (std::int64_t r = 0; factors && r < r1 - r0; ++r)
                    for (std::int64_t i = 0; i < k; ++i) part[static_cast<std::size_t>(r * k + i)] *= factors[r0 + r];
                t_.pack_b_f32(r1 - r0, k, part.data(), k, true, p_.alpha, to + r0 * k);
            } else {
                for (std::int64_t p = 0; p < panels; ++p)
                    for (std::int64_t r = r0; r < r1; ++r) {
                        float* row = p < whole ? to + p * panel * k + r * panel : part.data() + r * (n - whole * panel);
                        const std::int64_t columns = std::min(panel, n - p * panel);
                        std::memcpy(row, s + static_cast<std::size_t>(r - r0) * row_bytes + static_cast<std::size_t>(p * panel) * sizeof(float),
                                    static_cast<std::size_t>(columns) * sizeof(float));
                        for (std::int64_t j = 0; factors && j < columns; ++j) row[j] *= factors[p * panel + j];
                    }
            }
            passed(r1, r1 == total);
        }
        if (p_.trans_b) return;
        if (p_.alpha != 1.f)
            for (std::int64_t i = 0; i < whole * panel * k; ++i) to[i] *= p_.alpha;
        if (whole < panels) t_.pack_b_f32(n - whole * panel, k, part.data(), n - whole * panel, false, p_.alpha, to + whole * panel * k);
        else std::fill_n(to + whole * panel * k, 64, 0.f);
    }
    Plan make_plan(std::span<const View> in) const {
        Plan q;
        q.g = resolve(p_, in, true);
        Geometry& g = q.g;
        bool packed = packed_.defined(), f32 = p_.dtype == DType::f32;
        q.dots = f32 && !packed && ((g.n == 1 && !g.ta) || (g.m == 1 && g.tb));
        std::int64_t k = std::max<std::int64_t>(g.k, 1), rows_limit = packed ? 168 : 448, panel = t_.panel;
        q.tiles_m = std::max<std::int64_t>(1, ceil_div(g.m, rows_limit));
        q.tile_m = std::max<std::int64_t>(1, ceil_div(g.m, q.tiles_m));
        if (q.dots && g.n == 1) {
            q.tile_m = std::clamp<std::int64_t>((64 << 10) / k, 1, 4096);
            q.tiles_m = std::max<std::int64_t>(1, ceil_div(g.m, q.tile_m));
        }
        // Rows of A that are copied pay for themselves over more columns.
        bool in_place = packed && !g.ta;
        // Few rows: some 400 KB of weights, and as many panels as go through at a time.
        bool few = g.m < 16;
        std::int64_t least = few ? 4 * panel : in_place ? 2 * panel : 128, most = std::int64_t{few ? 96 : 256} << 10;
        std::int64_t tn = (std::int64_t{in_place ? 2 : 8} << 20) / (std::max<std::int64_t>(q.tile_m, 1) * k);
        tn = std::clamp<std::int64_t>(tn, least, std::max(least, most / k));
        q.tiles_n = std::max<std::int64_t>(1, ceil_div(g.n, tn));
        q.tile_n = std::max(panel, ceil_div(ceil_div(g.n, q.tiles_n), panel) * panel);
        q.tiles_n = std::max<std::int64_t>(1, ceil_div(g.n, q.tile_n));
        if (q.tiles_m * q.tiles_n == 1) {
            std::int64_t each = std::max<std::int64_t>(1, g.m * g.n * k);
            q.group = std::clamp<std::int64_t>((1 << 20) / each, 1, std::max<std::int64_t>(g.batch, 1));
        }
        q.groups = ceil_div(g.batch, q.group);
        if (g.bias == Bias::scalar) q.head = (static_cast<std::size_t>(std::max(g.n, g.m)) * sizeof(float) + 63) / 64 * 64;
        // Packed panels and rows of A that are read in place need room for a tile's sums only, no copies.
        q.work = packed_.defined() && !g.ta ? packed_work : (t_.gemm_work_bytes(q.tile_m, q.tile_n, g.k) + 63) / 64 * 64;
        return q;
    }

    void run_f32(const Call& call) const {
        const Plan& q = *static_cast<const Plan*>(call.state);
        const Geometry& g = q.g;
        const auto* a = call.in[0].in<float>();
        const float* b = p_.b.defined() ? static_cast<const float*>(p_.b.raw()) : call.in[1].in<float>();
        auto* y = call.out[0].out<float>();
        vec::Epilogue e;
        e.post = p_.post;
        e.alpha = p_.post_alpha;
        e.beta = p_.post_beta;
        e.scale = packed_.defined() ? 1.f : p_.alpha;  // packed weights carry it
        const float* bias = nullptr;
        if (g.bias != Bias::none) {
            bias = call.in[2].in<float>();
            if (g.bias == Bias::scalar) {
                auto* row = reinterpret_cast<float*>(call.scratch);
                std::fill(row, row + std::max(g.n, g.m), bias[0]);
                bias = row;
            }
        }
        const float* residual = p_.has_residual && call.in.size() > 3 ? call.in[3].in<float>() : nullptr;
        if (g.m == 0 || g.n == 0) return;
        call.workers.for_each(q.groups * q.tiles_m * q.tiles_n, [&](std::int64_t t, int worker) {
            // Wide B: all rows go through a piece of it while it is in the cache. Else a thread keeps its rows, as what comes next does.
            bool by_columns = g.n > 2 * g.m;
            std::int64_t in_ = by_columns ? t / q.tiles_m % q.tiles_n : t % q.tiles_n, im = by_columns ? t % q.tiles_m : t / q.tiles_n % q.tiles_m, ig = t / (q.tiles_n * q.tiles_m);
            std::int64_t m0 = im * q.tile_m, n0 = in_ * q.tile_n;
            std::int64_t m = std::min(q.tile_m, g.m - m0), n = std::min(q.tile_n, g.n - n0);
            if (m <= 0 || n <= 0) return;
            void* work = call.scratch + q.head + static_cast<std::size_t>(worker) * q.work;
            std::int64_t last = std::min(g.batch, (ig + 1) * q.group);
            for (std::int64_t i = ig * q.group; i < last; ++i)
                tile(q, a + g.a_of(i), b, i, bias, residual, y, m0, m, n0, n, e, work);
        });
    }
    void tile(const Plan& q, const float* a, const float* b, std::int64_t batch, const float* bias, const float* residual, float* y,
              std::int64_t m0, std::int64_t m, std::int64_t n0, std::int64_t n, vec::Epilogue e, void* work) const {
        const Geometry& g = q.g;
        std::int64_t at = batch * g.m * g.n + m0 * g.n + n0;
        float* c = y + at;
        if (residual) e.residual = residual + at;
        bool second = false;  // a full bias and a residual: the residual is added in a second pass
        if (g.bias == Bias::row || g.bias == Bias::scalar) e.bias_row = bias + n0;
        if (g.bias == Bias::column) e.bias_col = bias + m0;
        if (g.bias == Bias::full) {
            second = residual != nullptr;
            if (second) e.post = vec::Post::none;
            e.residual = bias + m0 * g.n + n0;
        }
        if (q.dots) {
            dots(g, a, b + g.b_of(batch), c, m0, m, n0, n, e, bias);
        } else if (packed_.defined()) {
            const float* panels = b + g.b_of(batch) / std::max<std::int64_t>(1, g.k * g.n) * stride_;
            t_.gemm_packed_f32(m, n, g.k, a + (g.ta ? m0 : m0 * g.lda), g.lda, g.ta, panels + n0 * g.k, c, g.n, e, work);
        } else {
            const float* bm = b + g.b_of(batch) + (g.tb ? n0 * g.ldb : n0);
            t_.gemm_f32(m, n, g.k, a + (g.ta ? m0 : m0 * g.lda), g.lda, g.ta, bm, g.ldb, g.tb, c, g.n, e, work);
        }
        if (!second) return;
        for (std::int64_t r = 0; r < m; ++r) {
            vec::Epilogue f;
            f.post = p_.post;
            f.alpha = p_.post_alpha;
            f.beta = p_.post_beta;
            f.residual = residual + at + r * g.n;
            t_.finish_f32(c + r * g.n, n, f);
        }
    }
    void dots(const Geometry& g, const float* a, const float* b, float* c, std::int64_t m0, std::int64_t m, std::int64_t n0, std::int64_t n,
              vec::Epilogue e, const float* bias) const {
        if (g.n == 1) {  // a column of Y lies in memory as a row
            for (std::int64_t i = 0; i < m; ++i) c[i] = t_.dot_f32(a + (m0 + i) * g.k, b, g.k);
            e.bias_col = nullptr;
            if (g.bias == Bias::column || g.bias == Bias::scalar) e.bias_row = bias + m0;
            return t_.finish_f32(c, m, e);
        }
        for (std::int64_t j = 0; j < n; ++j) c[j] = t_.dot_f32(a, b + (n0 + j) * g.k, g.k);
        t_.finish_f32(c, n, e);
    }

    void run_f64(const Call& call) const {
        const Plan& q = *static_cast<const Plan*>(call.state);
        const Geometry& g = q.g;
        const auto* a = call.in[0].in<double>();
        const double* b = p_.b.defined() ? static_cast<const double*>(p_.b.raw()) : call.in[1].in<double>();
        auto* y = call.out[0].out<double>();
        const double* bias = g.bias == Bias::none ? nullptr : call.in[2].in<double>();
        const double* residual = p_.has_residual && call.in.size() > 3 ? call.in[3].in<double>() : nullptr;
        if (g.m == 0 || g.n == 0) return;
        double alpha = static_cast<double>(p_.alpha);
        call.workers.for_each(q.groups * q.tiles_m * q.tiles_n, [&](std::int64_t t, int worker) {
            std::int64_t in_ = t % q.tiles_n, im = t / q.tiles_n % q.tiles_m, ig = t / (q.tiles_n * q.tiles_m);
            std::int64_t m0 = im * q.tile_m, n0 = in_ * q.tile_n;
            std::int64_t m = std::min(q.tile_m, g.m - m0), n = std::min(q.tile_n, g.n - n0);
            if (m <= 0 || n <= 0) return;
            std::int64_t last = std::min(g.batch, (ig + 1) * q.group);
            for (std::int64_t i = ig * q.group; i < last; ++i) {
                const double* bm = b + g.b_of(i) + (g.tb ? n0 * g.ldb : n0);
                double* c = y + i * g.m * g.n + m0 * g.n + n0;
                t_.gemm_f64(m, n, g.k, a + g.a_of(i) + (g.ta ? m0 : m0 * g.lda), g.lda, g.ta, bm, g.ldb, g.tb, c, g.n,
                            call.scratch + q.head + static_cast<std::size_t>(worker) * q.work);
                if (alpha == 1 && !bias && !residual) continue;
                for (std::int64_t r = 0; r < m; ++r)
                    for (std::int64_t j = 0; j < n; ++j) {
                        double v = alpha * c[r * g.n + j];
                        if (g.bias == Bias::row) v += bias[n0 + j];
                        else if (g.bias == Bias::column) v += bias[m0 + r];
                        else if (g.bias == Bias::scalar) v += bias[0];
                        else if (g.bias == Bias::full) v += bias[(m0 + r) * g.n + n0 + j];
                        if (residual) v += residual[i * g.m * g.n + (m0 + r) * g.n + n0 + j];
                        c[r * g.n + j] = v;
                    }
            }
        });
    }

    Problem p_;
    const vec::Table& t_;
    Tensor packed_;
    Shape shape_b_;
    std::int64_t stride_ = 0;  ///< floats of one packed matrix
};

inline std::string refuse_core(const Problem& p, const Target&) {
    if (p.factors.defined() && (p.dtype != DType::f32 || !p.b.defined() || p.b.shape().size() != 2 || p.n < 2 || p.factors.count() != p.n || p.factors.dtype() != DType::f32))
        return "factors; accepted: N floats for the columns of a constant matrix of 2 columns or more";
    if (p.dtype == DType::f32 || p.dtype == DType::f64) return {};
    return std::string("type ") + dtype_name(p.dtype) + "; float and double are accepted";
}
inline std::unique_ptr<Kernel> make_core(const Problem& p, const Target& t) { return std::make_unique<CoreKernel>(p, t); }
inline constexpr Entry<Problem> matmul_core{"matmul.core", refuse_core, make_core};

}  // namespace matmul
QUERN_END
