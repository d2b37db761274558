// Products of 8-bit matrices.
#pragma once
#include <memory>

#include <quern/kernels/matmul/integer.hpp>
#include <quern/kernels/packs.hpp>
#include <quern/kernels/quant/packed_8.hpp>

QUERN_BEGIN
namespace quant {

/// Which input is what; -1: the operator has none. Scales and zero points of A are one or one for each row, of B one or one for
/// each column, or one for each row (column) of every matrix; those of Y are one.
struct ProductProblem {
    int a = 0, a_scale = -1, a_zero = -1, b = 1, b_scale = -1, b_zero = -1, bias = -1, y_scale = -1, y_zero = -1;
    bool trans_a = false, trans_b = false;  ///< rank 2 only
    float alpha = 1;
    DType out = DType::i32;  ///< i32: (A - za)(B - zb); f32: times the scales; u8, i8: quantized again
    Tensor b_value;          ///< B when constant: packed once
};

/// Y = (A - za) x (B - zb) as numpy's matmul (https://onnx.ai/onnx/operators/onnx__MatMulInteger.html, QLinearMatMul,
/// com.microsoft QGemm, whose bias of i32 broadcasts to Y, and MatMulIntegerToFloat, whose bias of f32 has a number for each column). Sums
/// are of 32 bits, exact, and wrap.
class ProductKernel final : public Kernel {
public:
    ProductKernel(const ProductProblem& p, const Target& target) : p_(p), l_(loops(target.isa)) {
        if (!p.b_value.defined() || p.b_value.count() == 0 || p.b_value.shape().rank() == 0) return;
        View b = view_of(p.b_value);
        Right r = right(b);
        packed_ = packed_weights(target, std::string("matmul.bytes ") + l_.name + (p_.trans_b ? " t" : ""), {p_.b_value}, r.bytes(), [&](std::byte* to) {
            std::memset(to, 0, r.bytes());
            for (std::int64_t m = 0; m < r.matrices; ++m) pack(r, b, m, 0, r.panels, to);
        });
        p_.b_value = Tensor();
        unread = 1u << p.b;
    }
    const char* name() const noexcept override { return "matmul.bytes"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        if (out[0].count() == 0) return {};
        auto s = std::make_shared<Plan>(plan(in, out[0]));
        Booking k;
        k.scratch = s->columns_bytes + s->turned_bytes + (packed_.defined() ? 0 : s->right.bytes()) + static_cast<std::size_t>(workers) * s->worker_bytes;
        k.state = std::move(s);
        return k;
    }
    void run(const Call& c) const override {
        const View &a = *given(c, p_.a), &y = c.out[0];
        if (y.count() == 0) return;
        const Plan& q = *static_cast<const Plan*>(c.state);
        Job j{c, q, a.in<std::uint8_t>(), nullptr, reinterpret_cast<std::int32_t*>(c.scratch)};
        check(j);
        std::byte* at = c.scratch + q.columns_bytes;
        if (p_.trans_a) {
            auto* t = reinterpret_cast<std::uint8_t*>(at);
            for (std::int64_t r = 0; r < q.k; ++r)
                for (std::int64_t i = 0; i < q.m; ++i) t[i * q.k + r] = j.a[r * q.m + i];
            j.a = t;
        }
        at += q.turned_bytes;
        j.right = packed_.defined() ? static_cast<const std::byte*>(packed_.raw()) : at;
        if (!packed_.defined()) {
            const View& b = *given(c, p_.b);
            c.workers.for_each(q.right.matrices * q.right.panels, [&](std::int64_t i) {
                std::int64_t p = i % q.right.panels;
                pack(q.right, b, i / q.right.panels, p, p + 1, at);
            });
            at += q.right.bytes();
        }
        if (!q.by_row)
            for (std::int64_t b = 0; b < q.right.matrices; ++b) columns(j, b, 0, 0, j.columns + b * 4 * q.right.padded_n);
        c.workers.for_each(q.batches * q.tiles_m * q.tiles_n, [&](std::int64_t i, int worker) {
            std::int64_t n0 = i % q.tiles_n * q.tile_n, m0 = i / q.tiles_n % q.tiles_m * q.tile_m;
            tile(j, i / q.tiles_n / q.tiles_m, m0, std::min(q.tile_m, q.m - m0), n0, std::min(q.tile_n, q.n - n0), at + static_cast<std::size_t>(worker) * q.worker_bytes);
        });
    }

private:
    /// The right operand: for each matrix its panels and the sums of its columns.
    struct Right {
        std::int64_t k, n, panels, padded_n, matrices;
        std::size_t panel_bytes, matrix_bytes;
        std::size_t bytes() const { return static_cast<std::size_t>(matrices) * matrix_bytes; }
    };
    struct Plan {
        Right right;
        std::int64_t m, n, k, batches, tile_m, tile_n, tiles_m, tiles_n;
        int batch_rank;
        bool by_row;  ///< parameters of A or a bias for each row: rows are finished one by one
        std::size_t columns_bytes, turned_bytes, worker_bytes;
    };
    struct Job {
        const Call& call;
        const Plan& q;
        const std::uint8_t* a;
        const std::byte* right;
        std::int32_t* columns;
    };
    Right right(const View& b) const {
        Right r;
        r.k = b.rank == 1 ? b.dims[0] : b.dim(p_.trans_b ? -1 : -2);
        r.n = b.rank == 1 ? 1 : b.dim(p_.trans_b ? -2 : -1);
        r.panels = panels_of(l_, r.n);
        r.padded_n = padded(r.n, l_.panel);
        r.matrices = b.rank > 2 ? b.count(0, b.rank - 2) : 1;
        r.panel_bytes = up(static_cast<std::size_t>(packed_size(l_, r.n, r.k)));
        r.matrix_bytes = r.panel_bytes + up(static_cast<std::size_t>(r.padded_n) * 4);
        return r;
    }
    void pack(const Right& r, const View& b, std::int64_t matrix, std::int64_t from, std::int64_t to, std::byte* all) const {
        Columns c{b.in<std::uint8_t>() + matrix * r.k * r.n, b.dtype == DType::u8, r.n, r.k, p_.trans_b ? r.k : 1, std::max<std::int64_t>(1, r.k), 0, p_.trans_b ? 1 : r.n};
        std::byte* at = all + static_cast<std::size_t>(matrix) * r.matrix_bytes;
        pack_panels(l_, c, from, to, reinterpret_cast<std::int8_t*>(at), reinterpret_cast<std::int32_t*>(at + r.panel_bytes));
    }
    Plan plan(std::span<const View> in, const View& y) const {
        Plan q;
        const View& a = in[static_cast<std::size_t>(p_.a)];
        std::int64_t rows = a.rank == 1 ? 1 : a.dim(-2), cols = a.dim(-1);
        q.right = right(in[static_cast<std::size_t>(p_.b)]);
        q.m = p_.trans_a ? cols : rows, q.k = p_.trans_a ? rows : cols, q.n = q.right.n;
        q.batches = y.count() / std::max<std::int64_t>(1, q.m * q.n);
        q.batch_rank = std::max(std::max(a.rank, in[static_cast<std::size_t>(p_.b)].rank) - 2, 0);
        auto several = [&](int i) { return i >= 0 && static_cast<std::size_t>(i) < in.size() && in[static_cast<std::size_t>(i)].present() && in[static_cast<std::size_t>(i)].count() > 1; };
        bool tall = p_.bias >= 0 && in[static_cast<std::size_t>(p_.bias)].rank > 1 && in[static_cast<std::size_t>(p_.bias)].dim(-2) > 1;
        q.by_row = several(p_.a_scale) || several(p_.a_zero) || tall;
        if (!p_.trans_a && q.batches > 1 && q.right.matrices == 1 && !q.by_row) {  // rows of all matrices against one
            q.m *= q.batches;
            q.batches = 1;
            q.batch_rank = 0;
        }
        constexpr std::int64_t target = 2 << 20;  // products of a tile
        q.tile_m = std::min<std::int64_t>(std::max<std::int64_t>(1, q.m), 96);
        q.tiles_m = (q.m + q.tile_m - 1) / q.tile_m;
        q.tile_m = q.tiles_m ? (q.m + q.tiles_m - 1) / q.tiles_m : 1;
        std::int64_t panels = std::max<std::int64_t>(1, target / std::max<std::int64_t>(1, q.tile_m * q.k * l_.panel));
        q.tile_n = panels * l_.panel;
        q.tiles_n = (q.n + q.tile_n - 1) / q.tile_n;
        q.columns_bytes = q.by_row ? 0 : up(static_cast<std::size_t>(q.right.matrices * q.right.padded_n * 4) * 4);
        q.turned_bytes = p_.trans_a ? up(static_cast<std::size_t>(a.count())) : 0;
        q.worker_bytes = up(static_cast<std::size_t>(q.tile_m) * 8) + up(static_cast<std::size_t>(q.tile_m) * 4) + up(static_cast<std::size_t>(4 * q.right.padded_n) * 4) +
                         (q.k % 4 ? up(static_cast<std::size_t>(q.tile_m * padded(q.k, 4))) : 0);
        return q;
    }
    void check(const Job& j) const {
        const View &a = *given(j.call, p_.a), &b = *given(j.call, p_.b);
        std::int64_t k = std::max<std::int64_t>(1, j.q.k), m = p_.trans_a ? j.q.m : a.rank == 1 ? 1 : a.dim(-2), ra = a.count() / k, cb = b.count() / k;
        for (int i : {p_.a_scale, p_.a_zero})
            if (const View* v = given(j.call, i); v && (v->count() == 0 || v->count() != ra)) need_single_or(v, m, "the scale or zero point of A");
        for (int i : {p_.b_scale, p_.b_zero})
            if (const View* v = given(j.call, i); v && (v->count() == 0 || v->count() != cb)) need_single_or(v, j.q.n, "the scale or zero point of B");
        need_single(given(j.call, p_.y_scale), "the output's scale");
        need_single(given(j.call, p_.y_zero), "the output's zero point");
    }
    /// The parameter of row (column) i of matrix `of` when there are `per` rows (columns).
    static std::int64_t which(const View& v, std::int64_t of, std::int64_t i, std::int64_t per) { return v.count() == per ? i : of * per + i; }
    /// Zero point of column i of matrix `of` of B, as the packed bytes have it.
    std::int32_t b_zero(const Job& j, const View* z, std::int64_t of, std::int64_t i) const {
        bool shifted = given(j.call, p_.b)->dtype == DType::u8;
        return (z && z->count() ? zero_at(z, z->count() == 1 ? 0 : which(*z, of, i, j.q.n)) : 0) - (shifted ? 128 : 0);
    }
    bool has_b_zero(const Job& j) const {
        const View* z = given(j.call, p_.b_zero);
        std::int64_t n = z ? z->count() : 0;
        bool shifted = given(j.call, p_.b)->dtype == DType::u8;
        for (std::int64_t i = 0; i < n; ++i)
            if (zero_at(z, i) != (shifted ? 128 : 0)) return true;
        return n == 0 && shifted;
    }
    /// What is added to the sums of each column of matrix `mb`, its zero points, scales and bias, for row `row` of matrix `ma` of A: four times padded_n.
    void columns(const Job& j, std::int64_t mb, std::int64_t ma, std::int64_t row, std::int32_t* to) const {
        const Plan& q = j.q;
        std::int64_t width = q.right.padded_n, n = q.n;
        std::int32_t *add = to, *zeros = to + width;
        auto* scale = reinterpret_cast<float*>(to + 2 * width);
        auto* sums = reinterpret_cast<const std::int32_t*>(j.right + static_cast<std::size_t>(mb) * q.right.matrix_bytes + q.right.panel_bytes);
        const View *az = given(j.call, p_.a_zero), *bz = given(j.call, p_.b_zero), *bias = given(j.call, p_.bias), *ys = given(j.call, p_.y_scale);
        std::int64_t za = (az && az->count() ? zero_at(az, az->count() == 1 ? 0 : which(*az, ma, row, q.m)) : 0) + (given(j.call, p_.a)->dtype == DType::i8 ? 128 : 0);
        for (std::int64_t i = 0; i < n; ++i) {
            zeros[i] = b_zero(j, bz, mb, i);
            add[i] = wrapped(q.k * za * zeros[i] - za * sums[i]);
        }
        if (bias && bias->dtype == DType::i32) {
            std::int64_t w = bias->rank > 0 ? bias->dim(-1) : 1, h = bias->rank > 1 ? bias->dim(-2) : 1;
            const std::int32_t* from = bias->in<std::int32_t>() + (h == 1 ? 0 : row) * w;
            for (std::int64_t i = 0; i < n; ++i) add[i] = wrapped(std::int64_t{add[i]} + from[w == 1 ? 0 : i]);
        }
        if (p_.out != DType::i32) {
            const View &as = *given(j.call, p_.a_scale), &bs = *given(j.call, p_.b_scale);
            float left = p_.alpha * scale_at(as, as.count() == 1 ? 0 : which(as, ma, row, q.m)), down = ys && p_.out != DType::f32 ? scale_at(*ys, 0) : 1.f;
            for (std::int64_t i = 0; i < n; ++i) scale[i] = left * scale_at(bs, bs.count() == 1 ? 0 : which(bs, mb, i, n)) / down;
        }
        auto* shift = reinterpret_cast<float*>(to + 3 * width);
        if (bias && bias->dtype == DType::f32)
            for (std::int64_t i = 0; i < n; ++i) shift[i] = bias->in<float>()[bias->count() == 1 ? 0 : i];
        for (std::int64_t i = n; i < width; ++i) add[i] = zeros[i] = 0, scale[i] = shift[i] = 0;
    }
    void tile(const Job& j, std::int64_t batch, std::int64_t m0, std::int64_t rows, std::int64_t n0, std::int64_t cols, std::byte* mine) const {
        const Plan& q = j.q;
        const View &a = *given(j.call, p_.a), &b = *given(j.call, p_.b), &y = j.call.out[0];
        std::int64_t ma = matmul::matrix_of(a, batch, y, q.batch_rank), mb = matmul::matrix_of(b, batch, y, q.batch_rank), width = q.right.padded_n, k4 = padded(q.k, 4);
        auto** pointers = reinterpret_cast<const std::uint8_t**>(mine);
        auto* sums = reinterpret_cast<std::int32_t*>(mine += up(static_cast<std::size_t>(q.tile_m) * 8));
        auto* own = reinterpret_cast<std::int32_t*>(mine += up(static_cast<std::size_t>(q.tile_m) * 4));
        auto* copy = reinterpret_cast<std::uint8_t*>(mine + up(static_cast<std::size_t>(4 * width) * 4));
        const std::uint8_t* from = j.a + (ma * q.m + m0) * q.k;
        bool is_signed = a.dtype == DType::i8;
        for (std::int64_t r = 0; r < rows; ++r) {
            pointers[r] = from + r * q.k;
            if (q.k == k4) continue;
            std::uint8_t* to = copy + r * k4;
            for (std::int64_t i = 0; i < q.k; ++i) to[i] = pointers[r][i] ^ (is_signed ? 0x80 : 0);
            std::fill(to + q.k, to + k4, std::uint8_t{0});
            pointers[r] = to;
        }
        Rows left{pointers, 0, rows, 1, k4 / 4, is_signed && q.k == k4};
        std::size_t element = dtype_bits(p_.out) / 8;
        Finish f{p_.out, nullptr, nullptr, nullptr, nullptr, nullptr, zero_at(given(j.call, p_.y_zero), 0), 0, 0, nullptr, q.n};
        limits(p_.out, f.low, f.high);
        const View* bias = given(j.call, p_.bias);
        bool zeros = has_b_zero(j);
        if (zeros) l_.row_sums(left, sums);
        const std::byte* packed = j.right + static_cast<std::size_t>(mb) * q.right.matrix_bytes + n0 * k4;
        for (std::int64_t r = 0; r < rows; r += q.by_row ? 1 : rows) {
            const std::int32_t* columns_at = j.columns + mb * 4 * width;
            if (q.by_row) {
                columns(j, mb, ma, m0 + r, own);
                columns_at = own;
                left.p = pointers + r;
                left.count = 1;
            }
            f.add = columns_at + n0;
            f.b_zero = zeros ? columns_at + width + n0 : nullptr;
            f.row_sums = zeros ? sums + r : nullptr;
            f.scale = reinterpret_cast<const float*>(columns_at + 2 * width) + n0;
            if (bias && bias->dtype == DType::f32) f.bias = reinterpret_cast<const float*>(columns_at + 3 * width) + n0;
            f.out = static_cast<std::byte*>(y.data) + static_cast<std::size_t>((batch * q.m + m0 + r) * q.n + n0) * element;
            l_.product(left, reinterpret_cast<const std::int8_t*>(packed), cols, f);
        }
    }
    ProductProblem p_;
    const Loops& l_;
    Tensor packed_;
};

}  // namespace quant
QUERN_END
