// Multidirectional broadcasting reduced to few loops.
#pragma once
#include <string>

#include <quern/kernels/kernel.hpp>

QUERN_BEGIN
namespace ew {

inline constexpr int max_dims = 32;

/// K operands walked together with an output: adjacent dimensions that all operands walk alike are one.
/// Dimension 0 is the innermost. A stride is 0 where the operand is repeated.
template <int K>
struct Broadcast {
    int rank = 0;
    std::int64_t count = 1;
    std::int64_t dims[max_dims];
    std::int64_t strides[K][max_dims];

    std::int64_t inner() const noexcept { return rank ? dims[0] : 1; }
    /// Number of runs of the innermost dimension.
    std::int64_t rows() const noexcept {
        std::int64_t n = 1;
        for (int i = 1; i < rank; ++i) n *= dims[i];
        return n;
    }
    std::int64_t step(int k) const noexcept { return rank ? strides[k][0] : 1; }
    /// Operand k has as many elements as the output, in the same order.
    bool dense(int k) const noexcept { return rank == 0 || (rank == 1 && strides[k][0] == 1) || dense_[k]; }
    /// Operand k is one value.
    bool scalar(int k) const noexcept { return rank == 0 || scalar_[k]; }
    /// f(offsets, row) for each row in [from, to); offsets[k] is in elements.
    template <class F>
    void each_row(std::int64_t from, std::int64_t to, F&& f) const {
        std::int64_t index[max_dims], offsets[K] = {};
        std::int64_t r = from;
        for (int i = 1; i < rank; ++i) {
            index[i] = r % dims[i];
            r /= dims[i];
            for (int k = 0; k < K; ++k) offsets[k] += index[i] * strides[k][i];
        }
        for (std::int64_t row = from; row < to; ++row) {
            f(static_cast<const std::int64_t*>(offsets), row);
            for (int i = 1; i < rank; ++i) {
                for (int k = 0; k < K; ++k) offsets[k] += strides[k][i];
                if (++index[i] < dims[i]) break;
                for (int k = 0; k < K; ++k) offsets[k] -= dims[i] * strides[k][i];
                index[i] = 0;
            }
        }
    }

    bool dense_[K], scalar_[K];
};

/// Raises shape_mismatch where an operand does not broadcast to `out`.
template <int K>
Broadcast<K> make_broadcast(const View& out, const View* const (&in)[K]) {
    Broadcast<K> b;
    std::int64_t run[K];
    for (int k = 0; k < K; ++k) run[k] = 1;
    for (int i = out.rank - 1; i >= 0; --i) {
        std::int64_t d = out.dims[i], s[K];
        for (int k = 0; k < K; ++k) {
            int at = i - (out.rank - in[k]->rank);
            std::int64_t e = at >= 0 ? in[k]->dims[at] : 1;
            if (e != d && e != 1)
                raise(ErrorCode::shape_mismatch, "dimension " + std::to_string(e) + " cannot be broadcast to " + std::to_string(d));
            s[k] = e == 1 ? 0 : run[k];
            run[k] *= e;
        }
        b.count *= d;
        if (d == 1) continue;
        bool merge = b.rank > 0;
        for (int k = 0; k < K && merge; ++k) merge = s[k] == b.strides[k][b.rank - 1] * b.dims[b.rank - 1];
        if (merge) {
            b.dims[b.rank - 1] *= d;
            continue;
        }
        if (b.rank == max_dims) raise(ErrorCode::unsupported, "broadcast of more than 32 dimensions that cannot be merged");
        b.dims[b.rank] = d;
        for (int k = 0; k < K; ++k) b.strides[k][b.rank] = s[k];
        ++b.rank;
    }
    for (int k = 0; k < K; ++k) {
        b.dense_[k] = run[k] == b.count;
        b.scalar_[k] = run[k] == 1;
    }
    return b;
}

/// Runs f(k-offsets, out offset, n) over pieces of rows: tiles of about `grain` elements that do not depend
/// on the number of threads.
template <int K, class F>
void for_rows(const Broadcast<K>& b, std::int64_t grain, Workers& workers, F&& f) {
    if (b.count == 0) return;
    const std::int64_t inner = b.inner(), rows = b.rows();
    const std::int64_t chunks = inner > grain ? (inner + grain - 1) / grain : 1;
    const std::int64_t per = inner > grain ? 1 : grain / inner;
    auto tile = [&](std::int64_t i) {
        if (chunks > 1) {
            std::int64_t row = i / chunks, at = (i % chunks) * grain, n = at + grain < inner ? grain : inner - at;
            b.each_row(row, row + 1, [&](const std::int64_t* o, std::int64_t r) {
                std::int64_t p[K];
                for (int k = 0; k < K; ++k) p[k] = o[k] + at * b.step(k);
                f(static_cast<const std::int64_t*>(p), r * inner + at, n);
            });
        } else {
            std::int64_t to = (i + 1) * per < rows ? (i + 1) * per : rows;
            b.each_row(i * per, to, [&](const std::int64_t* o, std::int64_t r) { f(o, r * inner, inner); });
        }
    };
    const std::int64_t tiles = chunks > 1 ? rows * chunks : (rows + per - 1) / per;
    if (tiles == 1) tile(0);
    else workers.for_each(tiles, tile);
}

}  // namespace ew
QUERN_END
