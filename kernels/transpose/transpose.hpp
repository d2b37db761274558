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

/// DepthToSpace and SpaceToDepth: x or y as [N, b, b, C, H, W] (dcr) or [N, C, b, b, H, W] on the deep side and
/// [N, C, H, b, W, b] on the wide side.
class BlockShuffle final : public Kernel {
public:
    BlockShuffle(std::int64_t block, bool crd, bool to_space) : block_(block), crd_(crd), to_space_(to_space) {}
    const char* name() const noexcept override { return "block_shuffle.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        if (y.count() == 0) return;
        const View &wide = to_space_ ? y : x, &deep = to_space_ ? x : y;
        const std::int64_t b = block_, c = wide.dims[1], h = deep.dims[2], w = deep.dims[3], plane = h * w;
        // strides over (N, C, H, i, W, j)
        const std::int64_t ws[6] = {c * plane * b * b, plane * b * b, w * b * b, w * b, b, 1};
        const std::int64_t ds[6] = {c * plane * b * b, crd_ ? plane * b * b : plane, w, crd_ ? plane * b : b * c * plane, 1, crd_ ? plane : c * plane};
        const std::int64_t dims[6] = {wide.dims[0], c, h, b, w, b};
        static constexpr int wide_order[6] = {0, 1, 2, 3, 4, 5}, dcr_order[6] = {0, 3, 5, 1, 2, 4}, crd_order[6] = {0, 1, 3, 5, 2, 4};
        const int* order = to_space_ ? wide_order : crd_ ? crd_order : dcr_order;
        Region r;
        for (int k = 0; k < 6; ++k) {
            int a = order[k];
            r.axis(dims[a], to_space_ ? ds[a] : ws[a], to_space_ ? ws[a] : ds[a]);
        }
        copy(y.dtype, r, x.data, 0, y.data, 0, call.workers);
    }

private:
    std::int64_t block_;
    bool crd_, to_space_;
};

/// The center of x cut or surrounded by zeros to y's shape.
class CenterCropPad final : public Kernel {
public:
    const char* name() const noexcept override { return "center_crop_pad.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        std::int64_t sx[max_rank], sy[max_rank], from = 0, to = 0;
        strides(x.shape(), sx);
        strides(y.shape(), sy);
        Region r;
        bool pads = false;
        for (int i = 0; i < y.rank; ++i) {
            std::int64_t n = std::min(x.dims[i], y.dims[i]);
            if (y.dims[i] > n) pads = true;
            from += (x.dims[i] - n) / 2 * sx[i];
            to += (y.dims[i] - n) / 2 * sy[i];
            r.axis(n, sx[i], sy[i]);
        }
        if (pads)
            dispatch_size(y.dtype, [&](auto tag) {
                using T = typename decltype(tag)::type;
                T* d = y.out<T>();
                call.workers.ranges(y.count(), tile_elements, [&](std::int64_t b, std::int64_t e) { std::fill(d + b, d + e, T{}); });
            });
        copy(y.dtype, r, x.data, from, y.data, to, call.workers);
    }
};

}  // namespace movement
QUERN_END
