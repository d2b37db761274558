// Concatenation and splitting: blocks of contiguous memory.
#pragma once
#include <quern/kernels/transpose/region.hpp>

QUERN_BEGIN
namespace movement {

/// Copies `rows` blocks of `block` elements between places with row distances ss and ts.
inline void copy_blocks(DType t, std::int64_t rows, std::int64_t block, const void* src, std::int64_t so, std::int64_t ss, void* dst,
                        std::int64_t to, std::int64_t ts, Workers& w) {
    Region r;
    r.axis(rows, ss, ts);
    r.axis(block, 1, 1);
    copy(t, r, src, so, dst, to, w);
}

/// y is the inputs one after the other along `axis`, of `rank`.
class Concat final : public Kernel {
public:
    Concat(int axis, int rank) : axis_(axis) { joins = strided_out = axis == rank - 1; }
    const char* name() const noexcept override { return "concat.portable"; }
    void run(const Call& call) const override {
        const View& y = call.out[0];
        std::int64_t rows = y.count(0, axis_), row = joins ? y.row() : y.count(axis_, y.rank), at = 0;
        for (const View& x : call.in) {
            if (!x.present()) continue;
            std::int64_t block = x.count(axis_, x.rank);
            const bool there = joins && x.pitch && static_cast<const std::byte*>(x.data) == static_cast<const std::byte*>(y.data) + storage_bytes(y.dtype, at);
            if (!there) copy_blocks(y.dtype, rows, block, x.data, 0, joins ? x.row() : block, y.data, at, row, call.workers);
            at += block;
        }
    }

private:
    int axis_;
};

/// The outputs are x cut along `axis`; sizes (input 1) are read only for outputs that are absent.
class Split final : public Kernel {
public:
    explicit Split(int axis) : axis_(axis) {}
    const char* name() const noexcept override { return "split.portable"; }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        const std::int64_t rows = x.count(0, axis_), row = x.count(axis_, x.rank), unit = x.count(axis_ + 1, x.rank);
        const std::int64_t parts = static_cast<std::int64_t>(call.out.size());
        Ints sizes;
        bool listed = call.in.size() > 1 && call.in[1].present();
        std::int64_t at = 0;
        for (std::int64_t k = 0; k < parts; ++k) {
            const View& y = call.out[static_cast<std::size_t>(k)];
            std::int64_t block;
            if (y.present()) block = y.count(axis_, y.rank);
            else if (listed) {
                if (!sizes.n) sizes = read_ints(call.in[1], "split");
                const std::int64_t size = k < sizes.n ? sizes[static_cast<int>(k)] : -1;
                block = size < 0 || size > x.dims[axis_] ? -1 : size * unit;
            } else block = (x.dims[axis_] + parts - 1) / parts * unit;
            if (block < 0 || block > row - at) raise(ErrorCode::shape_mismatch, "the parts are longer together than the input");
            if (y.present()) copy_blocks(x.dtype, rows, block, x.data, at, row, y.data, 0, block, call.workers);
            at += block;
        }
    }

private:
    int axis_;
};

}  // namespace movement
QUERN_END
