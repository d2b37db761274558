// Crops of images, resized.
#pragma once
#include <algorithm>
#include <cmath>

#include <quern/kernels/kernel.hpp>

QUERN_BEGIN
namespace sample {

/// com.microsoft's CropAndResize: X [N, C, H, W] f32, rois [R, 4] f32 = (y1, x1, y2, x2) where 0 and 1 are the centers of the first and the last pixel,
/// image numbers [R] i32, crop size [2] i32; Y [R, C, h, w]. Samples outside of the image are `outside`. An image number outside [0, N) raises shape_mismatch.
class CropAndResize final : public Kernel {
public:
    CropAndResize(bool nearest, float outside) : nearest_(nearest), outside_(outside) {}
    const char* name() const noexcept override { return "crop_and_resize.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        const std::int32_t* size = call.in[3].in<std::int32_t>();
        if (call.in[3].count() != 2 || size[0] < 1 || size[1] < 1) raise(ErrorCode::shape_mismatch, "the crop size must be two numbers, 1 and more");
        dims[0] = {call.in[1].dims[0], call.in[0].dims[1], size[0], size[1]};
        return true;
    }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        const float* rois = call.in[1].in<float>();
        const std::int32_t* images = call.in[2].in<std::int32_t>();
        if (call.in[2].count() != y.dims[0]) raise(ErrorCode::shape_mismatch, std::to_string(call.in[2].count()) + " image numbers for " + std::to_string(y.dims[0]) + " rois");
        for (std::int64_t r = 0; r < y.dims[0]; ++r)
            if (images[r] < 0 || images[r] >= x.dims[0])
                raise(ErrorCode::shape_mismatch, "image number " + std::to_string(images[r]) + "; accepted: 0 to " + std::to_string(x.dims[0] - 1));
        call.workers.ranges(y.dims[0] * y.dims[1], 1, [&](std::int64_t b, std::int64_t e) {
            for (std::int64_t i = b; i < e; ++i) {
                const std::int64_t r = i / y.dims[1], plane = images[r] * x.dims[1] + i % y.dims[1];
                crop(x.in<float>() + plane * x.dims[2] * x.dims[3], x.dims[2], x.dims[3], rois + 4 * r, y.out<float>() + i * y.dims[2] * y.dims[3], y.dims[2], y.dims[3]);
            }
        });
    }

private:
    /// Where sample k of n lies between a and b.
    static float place(float a, float b, std::int64_t k, std::int64_t n, std::int64_t size) noexcept {
        const auto last = static_cast<float>(size - 1);
        return n > 1 ? a * last + static_cast<float>(k) * ((b - a) * last / static_cast<float>(n - 1)) : 0.5f * (a + b) * last;
    }
    void crop(const float* x, std::int64_t rows, std::int64_t columns, const float* roi, float* y, std::int64_t h, std::int64_t w) const {
        for (std::int64_t i = 0; i < h; ++i)
            for (std::int64_t j = 0; j < w; ++j, ++y) {
                const float r = place(roi[0], roi[2], i, h, rows), c = place(roi[1], roi[3], j, w, columns);
                if (!(r >= 0 && r <= static_cast<float>(rows - 1) && c >= 0 && c <= static_cast<float>(columns - 1))) {
                    *y = outside_;
                    continue;
                }
                auto at = [&](float row, float column) { return x[std::min(static_cast<std::int64_t>(row), rows - 1) * columns + std::min(static_cast<std::int64_t>(column), columns - 1)]; };  // sizes as floats are rounded
                if (nearest_) {
                    *y = at(std::round(r), std::round(c));
                    continue;
                }
                const float top = std::floor(r), bottom = std::ceil(r), left = std::floor(c), right = std::ceil(c);
                const float upper = at(top, left) + (at(top, right) - at(top, left)) * (c - left), lower = at(bottom, left) + (at(bottom, right) - at(bottom, left)) * (c - left);
                *y = upper + (lower - upper) * (r - top);
            }
    }
    bool nearest_;
    float outside_;
};

}  // namespace sample
QUERN_END
