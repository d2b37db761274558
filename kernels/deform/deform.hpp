// Deformable convolution: sampled columns, then a product.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include <quern/kernels/conv/conv.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace deform {

/// https://onnx.ai/onnx/operators/onnx__DeformConv.html: X [N, C, d...], W [M, C/group, k...], offset [N, og * taps * n, o...], bias [M], mask
/// [N, og * taps, o...]; Y [N, M, o...]. n (spatial dimensions) up to 4. f32 or f64.
struct Problem {
    DType dtype = DType::f32;
    conv::Window window;
    std::int64_t group = 1, offset_group = 1;
};

class SampledKernel final : public Kernel {
public:
    SampledKernel(const Problem& p, const vec::Table& t) : p_(p), t_(t) {}
    const char* name() const noexcept override { return "conv.deform"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        Booking b;
        b.scratch = sizes(in, out[0]).worker_bytes * static_cast<std::size_t>(workers);
        return b;
    }
    void run(const Call& c) const override {
        if (p_.dtype == DType::f32) go<float>(c);
        else go<double>(c);
    }

private:
    struct Sizes {
        std::int64_t m, c, taps, k, in, pixels, block;
        std::size_t work, col, worker_bytes;
    };
    static bool given(const Call& c, std::size_t i) { return i < c.in.size() && c.in[i].present(); }
    Sizes sizes(std::span<const View> in, const View& y) const {
        Sizes s;
        const View& w = in[1];
        s.m = w.dims[0] / p_.group, s.c = w.dims[1], s.taps = w.count(2, w.rank), s.k = s.c * s.taps;
        s.in = in[0].count(2, in[0].rank), s.pixels = y.count(2, y.rank);
        s.block = std::min(std::max<std::int64_t>(1, s.pixels), std::clamp<std::int64_t>(65536 / std::max<std::int64_t>(1, s.k), 16, 1024));
        std::size_t e = static_cast<std::size_t>(dtype_bits(p_.dtype) / 8);
        auto up = [](std::size_t n) { return (n + 63) / 64 * 64; };
        s.work = up(t_.gemm_work_bytes(s.m, s.block, s.k));
        s.col = up(static_cast<std::size_t>(s.k * s.block) * e);
        s.worker_bytes = s.work + s.col;
        return s;
    }
    template <class T>
    void go(const Call& c) const {
        const View &x = c.in[0], &w = c.in[1], &y = c.out[0];
        if (y.count() == 0) return;
        Sizes s = sizes(c.in, y);
        std::int64_t blocks = (s.pixels + s.block - 1) / s.block;
        c.workers.for_each(x.dims[0] * p_.group * blocks, [&](std::int64_t i, int worker) {
            std::byte* mine = c.scratch + static_cast<std::size_t>(worker) * s.worker_bytes;
            T* col = reinterpret_cast<T*>(mine + s.work);
            std::int64_t n = i / blocks / p_.group, g = i / blocks % p_.group, p0 = i % blocks * s.block, count = std::min(s.block, s.pixels - p0);
            for (std::int64_t ch = 0; ch < s.c; ++ch)
                for (std::int64_t t = 0; t < s.taps; ++t) sample(c, s, n, g * s.c + ch, t, p0, count, col + (ch * s.taps + t) * count);
            T* to = y.out<T>() + (n * p_.group + g) * s.m * s.pixels + p0;
            const T* weights = w.in<T>() + g * s.m * s.k;
            if constexpr (std::is_same_v<T, float>) t_.gemm_f32(s.m, count, s.k, weights, s.k, false, col, count, false, to, s.pixels, {}, mine);
            else t_.gemm_f64(s.m, count, s.k, weights, s.k, false, col, count, false, to, s.pixels, mine);
            if (!given(c, 3)) return;
            for (std::int64_t r = 0; r < s.m; ++r)
                for (std::int64_t p = 0; p < count; ++p) to[r * s.pixels + p] += c.in[3].in<T>()[g * s.m + r];
        });
    }
    /// One channel and tap at output pixels [p0, p0 + count).
    template <class T>
    void sample(const Call& c, const Sizes& s, std::int64_t n, std::int64_t channel, std::int64_t tap, std::int64_t p0, std::int64_t count, T* to) const {
        const conv::Window& w = p_.window;
        const View &x = c.in[0], &y = c.out[0];
        int nd = w.spatial();
        std::int64_t og = channel / (x.dims[1] / p_.offset_group);
        const T* plane = x.in<T>() + (n * x.dims[1] + channel) * s.in;
        const T* offset = c.in[2].in<T>() + ((n * p_.offset_group + og) * s.taps + tap) * nd * s.pixels;
        const T* mask = given(c, 4) ? c.in[4].in<T>() + ((n * p_.offset_group + og) * s.taps + tap) * s.pixels : nullptr;
        for (std::int64_t p = p0; p < p0 + count; ++p) {
            std::int64_t rest = p, k = tap, base[4];
            T part[4];
            bool inside = true;
            for (int d = nd - 1; d >= 0; --d) {
                T at = static_cast<T>(rest % y.dims[d + 2] * w.strides[d] + k % w.kernel[d] * w.dilations[d] - w.pads[d]) + offset[d * s.pixels + p];
                rest /= y.dims[d + 2];
                k /= w.kernel[d];
                inside = inside && at > -1 && at < static_cast<T>(x.dims[d + 2]);  // false for NaN
                T low = std::floor(at);
                base[d] = inside ? static_cast<std::int64_t>(low) : 0;
                part[d] = at - low;
            }
            T v = 0;
            for (int corner = 0; inside && corner < 1 << nd; ++corner) {
                std::int64_t at = 0;
                T weight = 1;
                for (int d = 0; d < nd; ++d) {
                    std::int64_t i = base[d] + (corner >> d & 1);
                    weight = i < 0 || i >= x.dims[d + 2] ? T{0} : weight * (corner >> d & 1 ? part[d] : 1 - part[d]);
                    at = at * x.dims[d + 2] + i;
                }
                if (weight != 0) v += weight * plane[at];
            }
            to[p - p0] = mask ? v * mask[p] : v;
        }
    }
    Problem p_;
    const vec::Table& t_;
};

}  // namespace deform
QUERN_END
