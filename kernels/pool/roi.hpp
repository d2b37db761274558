// Maximum over regions of interest.
#pragma once
#include <algorithm>
#include <cmath>

#include <quern/kernels/kernel.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace pool {

/// https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html: X [N, C, H, W], rois [R, 5] = (batch, x1, y1, x2, y2); Y [R, C, h, w]. An empty bin gives 0.
/// A batch number outside [0, N) raises shape_mismatch. f32 or f64.
class RoiMaxKernel final : public Kernel {
public:
    RoiMaxKernel(DType dtype, float scale) : dtype_(dtype), scale_(scale) {}
    const char* name() const noexcept override { return "pool.roi_max"; }
    void run(const Call& c) const override {
        dispatch_real(dtype_, [&](auto tag) { go<typename decltype(tag)::type>(c); });
    }

private:
    template <class T>
    void go(const Call& call) const {
        const View &x = call.in[0], &y = call.out[0];
        const T* rois = call.in[1].in<T>();
        for (std::int64_t r = 0; r < y.dims[0]; ++r)
            if (!(rois[r * 5] >= 0 && rois[r * 5] < static_cast<T>(x.dims[0])))
                raise(ErrorCode::shape_mismatch, "rois name batch " + std::to_string(rois[r * 5]) + "; accepted are 0 to " + std::to_string(x.dims[0] - 1));
        call.workers.ranges(y.dims[0] * y.dims[1], 1, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t i = from; i < to; ++i) {
                const T* roi = rois + i / y.dims[1] * 5;
                plane(x.in<T>() + (static_cast<std::int64_t>(roi[0]) * x.dims[1] + i % y.dims[1]) * x.dims[2] * x.dims[3], x, y, roi, y.out<T>() + i * y.dims[2] * y.dims[3]);
            }
        });
    }
    /// The range of bin b of `bins` over [start, end], clipped to [0, size).
    template <class T>
    void bin(T start, T end, std::int64_t b, std::int64_t bins, std::int64_t size, std::int64_t& from, std::int64_t& to) const {
        T s = std::round(start * static_cast<T>(scale_)), e = std::round(end * static_cast<T>(scale_));
        T each = std::max(e - s + 1, T{1}) / static_cast<T>(bins);
        auto clip = [&](T v) { return std::min(static_cast<std::int64_t>(v > 0 ? std::min(v, static_cast<T>(size)) : T{0}), size); };  // NaN: 0; T rounds large sizes
        from = clip(std::floor(static_cast<T>(b) * each) + s);
        to = clip(std::ceil(static_cast<T>(b + 1) * each) + s);
    }
    template <class T>
    void plane(const T* x, const View& vx, const View& vy, const T* roi, T* y) const {
        for (std::int64_t i = 0; i < vy.dims[2]; ++i)
            for (std::int64_t j = 0; j < vy.dims[3]; ++j) {
                std::int64_t h0, h1, w0, w1;
                bin(roi[2], roi[4], i, vy.dims[2], vx.dims[2], h0, h1);
                bin(roi[1], roi[3], j, vy.dims[3], vx.dims[3], w0, w1);
                T best = h0 < h1 && w0 < w1 ? x[h0 * vx.dims[3] + w0] : T{0};
                for (std::int64_t h = h0; h < h1; ++h)
                    for (std::int64_t w = w0; w < w1; ++w) best = std::max(best, x[h * vx.dims[3] + w]);
                y[i * vy.dims[3] + j] = best;
            }
    }
    DType dtype_;
    float scale_;
};

}  // namespace pool
QUERN_END
