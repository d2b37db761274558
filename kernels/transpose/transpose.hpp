// Transposition, expansion and tiling: one source, another order or repetition.
#pragma once
#include <vector>

#include <quern/kernels/transpose/region.hpp>

QUERN_BEGIN
namespace movement {

/// y's axis i is x's axis perm[i]; every type of at least 8 bits, strings included.
class Transpose final : public Kernel {
public:
    explicit Transpose(std::vector<int> perm) : perm_(std::move(perm)) {}
    const char* name() const noexcept override { return "transpose.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        std::int64_t sx[max_rank], sy[max_rank];
        strides(x.shape(), sx);
        strides(y.shape(), sy);
        Region r;
        for (int i = 0; i < y.rank; ++i) r.axis(y.dims[i], sx[perm_[i]], sy[i]);
        copy(y.dtype, r, x.data, 0, y.data, 0, call.workers);
    }

private:
    std::vector<int> perm_;
};

/// y is x broadcast to y's shape (dims of x are 1 or y's, aligned at the end; y's rank is at least x's).
class Expand final : public Kernel {
public:
    const char* name() const noexcept override { return "expand.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        std::int64_t sx[max_rank], sy[max_rank];
        strides(x.shape(), sx);
        strides(y.shape(), sy);
        Region r;
        for (int i = 0; i < y.rank; ++i) {
            int k = i - (y.rank - x.rank);
            if (k >= 0 && x.dims[k] != y.dims[i] && x.dims[k] != 1)
                raise(ErrorCode::shape_mismatch, "dimension " + std::to_string(x.dims[k]) + " does not broadcast to " + std::to_string(y.dims[i]));
            r.axis(y.dims[i], k < 0 || x.dims[k] == 1 ? 0 : sx[k], sy[i]);
        }
        copy(y.dtype, r, x.data, 0, y.data, 0, call.workers);
    }
};

/// y repeats x y.dims[i] / x.dims[i] times along each axis.
class Tile final : public Kernel {
public:
    const char* name() const noexcept override { return "tile.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        std::int64_t sx[max_rank], sy[max_rank];
        strides(x.shape(), sx);
        strides(y.shape(), sy);
        Region r;
        for (int i = 0; i < y.rank; ++i) {
            if (y.dims[i] != x.dims[i]) r.axis(y.dims[i] / x.dims[i], 0, sy[i] * x.dims[i]);
            r.axis(x.dims[i], sx[i], sy[i]);
        }
        copy(y.dtype, r, x.data, 0, y.data, 0, call.workers);
    }
};

}  // namespace movement
QUERN_END
