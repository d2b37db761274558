// Slices: where a range with a step begins and how long it is, and the copy.
#pragma once
#include <quern/kernels/transpose/region.hpp>

QUERN_BEGIN
namespace movement {

struct SliceRange {
    std::int64_t start = 0, step = 1, length = 0;
};
/// ONNX's clamping of [start, end) with `step` on a dimension; step must not be 0.
inline SliceRange slice_range(std::int64_t dim, std::int64_t start, std::int64_t end, std::int64_t step) {
    auto norm = [&](std::int64_t v, std::int64_t lo, std::int64_t hi) {
        if (v < 0) v = v < -dim ? -1 - dim : v;  // keeps the sum below from overflowing
        if (v < 0) v += dim;
        return std::max(lo, std::min(v, hi));
    };
    SliceRange r{0, step, 0};
    if (step > 0) {
        r.start = norm(start, 0, dim);
        std::int64_t e = norm(end, 0, dim);
        if (e > r.start) r.length = (e - r.start - 1) / step + 1;
    } else {
        r.start = norm(start, -1, dim - 1);
        std::int64_t e = norm(end, -1, dim - 1);
        if (r.start > e && r.start >= 0) r.length = static_cast<std::int64_t>(static_cast<std::uint64_t>(r.start - e - 1) / (0 - static_cast<std::uint64_t>(step))) + 1;
    }
    return r;
}

/// Inputs data, starts, ends, axes (optional), steps (optional).
class Slice final : public Kernel {
public:
    const char* name() const noexcept override { return "slice.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        Ints starts = read_ints(call.in[1], "starts"), ends = read_ints(call.in[2], "ends"), axes, steps;
        if (call.in.size() > 3) axes = read_ints(call.in[3], "axes");
        if (call.in.size() > 4) steps = read_ints(call.in[4], "steps");
        if (starts.n > x.rank && axes.n == 0) raise(ErrorCode::shape_mismatch, "more starts than dimensions");
        std::int64_t sx[max_rank], sy[max_rank], offset = 0;
        strides(x.shape(), sx);
        strides(y.shape(), sy);
        SliceRange ranges[max_rank];
        for (int i = 0; i < x.rank; ++i) ranges[i] = {0, 1, x.dims[i]};
        for (int k = 0; k < starts.n; ++k) {
            int a = axes.n ? norm_axis(axes[k], x.rank) : k;
            std::int64_t step = steps.n ? steps[k] : 1;
            if (step == 0) raise(ErrorCode::shape_mismatch, "a step of 0");
            ranges[a] = slice_range(x.dims[a], starts[k], ends[k], step);
        }
        Region r;
        for (int i = 0; i < x.rank; ++i) {
            if (ranges[i].length != y.dims[i]) raise(ErrorCode::internal, "slice of another length than inferred");
            offset += ranges[i].start * sx[i];
            r.axis(y.dims[i], y.dims[i] > 1 ? sx[i] * ranges[i].step : 0, sy[i]);
        }
        copy(y.dtype, r, x.data, offset, y.data, 0, call.workers);
    }
};

}  // namespace movement
QUERN_END
