// Shapes of a matrix product resolved: sizes, batches, the form of the bias. Shared by the family's kernels.
#pragma once
#include <algorithm>

#include <quern/kernels/matmul/matmul.hpp>

QUERN_BEGIN
namespace matmul {

enum class Bias : std::uint8_t { none, row, column, scalar, full };

struct Geometry {
    std::int64_t m = 1, n = 1, k = 1, batch = 1, lda = 1, ldb = 1;
    bool ta = false, tb = false;
    Bias bias = Bias::none;
    /// Batch dimensions from the last one out, joined where both operands go on at one step; steps in elements, 0 where broadcast.
    struct Batch { std::int64_t size, a, b; };
    std::vector<Batch> batches;
    /// First element of batch i's matrices.
    std::int64_t a_of(std::int64_t i) const { return offset(i, &Batch::a); }
    std::int64_t b_of(std::int64_t i) const { return offset(i, &Batch::b); }

private:
    std::int64_t offset(std::int64_t i, std::int64_t Batch::* step) const {
        std::int64_t at = 0;
        for (std::size_t d = 0; d < batches.size(); ++d) {
            if (d + 1 == batches.size()) return at + i * (batches[d].*step);
            at += i % batches[d].size * (batches[d].*step);
            i /= batches[d].size;
        }
        return at;
    }
};

/// The dims of B: of the constant where there is one.
inline std::span<const std::int64_t> dims_of_b(const Problem& p, std::span<const View> in) {
    if (p.b.defined()) return p.b.shape();
    return in[1].shape();
}
inline Bias bias_form(const View& v, bool vector_b) {
    if (!v.present()) return Bias::none;
    std::int64_t last = v.rank >= 1 ? v.dim(-1) : 1, before = v.rank >= 2 ? v.dim(-2) : 1;
    if (vector_b && v.rank == 1) std::swap(last, before);  // Y's last dimension is M
    if (last == 1 && before == 1) return Bias::scalar;
    if (before == 1) return Bias::row;
    return last == 1 ? Bias::column : Bias::full;
}
/// `fold`: a batch of A over one B becomes rows of A.
inline Geometry resolve(const Problem& p, std::span<const View> in, bool fold) {
    Geometry g;
    std::span<const std::int64_t> a = in[0].shape(), b = dims_of_b(p, in);
    int ra = static_cast<int>(a.size()), rb = static_cast<int>(b.size());
    g.ta = p.trans_a && ra >= 2;
    g.tb = p.trans_b && rb >= 2;
    g.k = ra == 1 ? a[0] : g.ta ? a[ra - 2] : a[ra - 1];
    g.m = ra == 1 ? 1 : g.ta ? a[ra - 1] : a[ra - 2];
    g.n = rb == 1 ? 1 : g.tb ? b[rb - 2] : b[rb - 1];
    g.lda = g.ta ? g.m : g.k;
    g.ldb = g.tb ? g.k : g.n;
    if (in.size() > 2) g.bias = bias_form(in[2], rb == 1);
    int ba = std::max(ra - 2, 0), bb = std::max(rb - 2, 0), nb = std::max(ba, bb);
    std::int64_t count_b = 1;
    for (int i = 0; i < bb; ++i) count_b *= b[i];
    for (int i = 0; i < nb; ++i) {
        std::int64_t da = i < nb - ba ? 1 : a[i - (nb - ba)], db = i < nb - bb ? 1 : b[i - (nb - bb)];
        g.batch *= da == 1 ? db : da;
    }
    bool per_row = g.bias == Bias::column || g.bias == Bias::full;
    if (g.batch == 1) return g;
    if (fold && count_b == 1 && !g.ta && !per_row) {
        g.m *= g.batch;
        g.batch = 1;
        return g;
    }
    if (g.batch == 0) return g;
    std::int64_t sa = g.m * g.k, sb = g.k * g.n;
    for (int d = nb - 1; d >= 0; --d) {
        std::int64_t da = d < nb - ba ? 1 : a[d - (nb - ba)], db = d < nb - bb ? 1 : b[d - (nb - bb)];
        Geometry::Batch next{da == 1 ? db : da, da == 1 ? 0 : sa, db == 1 ? 0 : sb};
        sa *= da;
        sb *= db;
        if (next.size == 1) continue;
        if (g.batches.empty() || next.a != g.batches.back().a * g.batches.back().size || next.b != g.batches.back().b * g.batches.back().size) g.batches.push_back(next);
        else g.batches.back().size *= next.size;
    }
    return g;
}

}  // namespace matmul
QUERN_END
