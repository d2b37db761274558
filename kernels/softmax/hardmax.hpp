// 1 at the first largest element along an axis, 0 elsewhere.
#pragma once
#include <algorithm>

#include <quern/kernels/kernel.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace softmax {

/// https://onnx.ai/onnx/operators/onnx__Hardmax.html; f32 and f64. A scalar gives 1.
class HardmaxKernel final : public Kernel {
public:
    explicit HardmaxKernel(int axis) : axis_(axis) {}
    const char* name() const noexcept override { return "softmax.hardmax"; }
    void run(const Call& c) const override {
        const View& x = c.in[0];
        dispatch_real(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            auto* y = c.out[0].out<T>();
            if (x.rank == 0) return void(*y = T(1));
            const std::int64_t n = x.dims[axis_], inner = x.count(axis_ + 1, x.rank), outer = x.count(0, axis_);
            std::fill(y, y + x.count(), T(0));
            if (n == 0) return;
            for (std::int64_t o = 0; o < outer; ++o)
                for (std::int64_t j = 0; j < inner; ++j) {
                    const T* p = x.in<T>() + o * n * inner + j;
                    std::int64_t best = 0;
                    for (std::int64_t i = 1; i < n; ++i)
                        if (p[i * inner] > p[best * inner]) best = i;
                    y[o * n * inner + best * inner + j] = T(1);
                }
        });
    }

private:
    int axis_;
};

}  // namespace softmax
QUERN_END
