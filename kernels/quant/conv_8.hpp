// Convolutions of 8-bit tensors: blocks of output pixels as matrix products.
#pragma once
#include <quern/kernels/conv/conv.hpp>
#include <quern/kernels/quant/common.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace quant {

/// Which input is what; -1: the operator has none. Zero point and scale of W are one or one for each output channel; the others are one.
struct ConvProblem {
    conv::Window window;
    std::int64_t group = 1;
    int x = 0, x_scale = -1, x_zero = -1, w = 1, w_scale = -1, w_zero = -1, y_scale = -1, y_zero = -1, bias = -1;
    DType out = DType::i32;  ///< i32: sums of (x - zx)(w - zw); u8, i8: quantized again
};

/// https://onnx.ai/onnx/operators/onnx__QLinearConv.html, https://onnx.ai/onnx/operators/onnx__ConvInteger.html: X [N, C, d...],
/// W [M, C/group, k...], Y [N, M, o...]. Padding stands for zero.
class ConvKernel final : public Kernel {
public:
    ConvKernel(const ConvProblem& p, const vec::Table& t) : p_(p), t_(t) {}
    const char* name() const noexcept override { return "conv.gemm_8"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        Booking b;
        b.scratch = sizes(in[static_cast<std::size_t>(p_.w)], out[0]).worker_bytes * static_cast<std::size_t>(workers);
        return b;
    }
    void run(const Call& c) const override {
        const View &x = *given(c, p_.x), &w = *given(c, p_.w), &y = c.out[0];
        if (y.count() == 0) return;
        Sizes s = sizes(w, y);
        need_single(given(c, p_.x_scale), "the input's scale");
        need_single(given(c, p_.x_zero), "the input's zero point");
        need_single(given(c, p_.y_scale), "the output's scale");
        need_single(given(c, p_.y_zero), "the output's zero point");
        need_single_or(given(c, p_.w_scale), w.dims[0], "the weights' scale");
        need_single_or(given(c, p_.w_zero), w.dims[0], "the weights' zero point");
        std::int64_t blocks = (s.pixels + s.block - 1) / s.block;
        c.workers.for_each(x.dims[0] * p_.group * blocks, [&](std::int64_t i, int worker) {
            std::byte* mine = c.scratch + static_cast<std::size_t>(worker) * s.worker_bytes;
            std::int64_t n = i / blocks / p_.group, g = i / blocks % p_.group, p0 = i % blocks * s.block;
            tile(c, s, n, g, p0, std::min(s.block, s.pixels - p0), mine);
        });
    }

private:
    struct Sizes {
        std::int64_t m, c, taps, k, pixels, block;  // m, c: channels of a group
        std::size_t col_bytes, worker_bytes;
    };
    Sizes sizes(const View& w, const View& y) const {
        Sizes s;
        s.m = w.dims[0] / p_.group;
        s.c = w.dims[1];
        s.taps = w.count(2, w.rank);
        s.k = s.c * s.taps;
        s.pixels = y.count(2, y.rank);
        std::int64_t fit = std::min(65536 / std::max<std::int64_t>(1, s.k), 131072 / std::max<std::int64_t>(1, s.m));
        s.block = std::min(std::max<std::int64_t>(1, s.pixels), std::clamp<std::int64_t>(fit / 16 * 16, 16, 4096));
        s.col_bytes = up(static_cast<std::size_t>(s.k * s.block) * 2);
        s.worker_bytes = s.col_bytes + up(static_cast<std::size_t>(s.m * s.block) * 4);
        return s;
    }
    void tile(const Call& call, const Sizes& s, std::int64_t n, std::int64_t g, std::int64_t p0, std::int64_t count, std::byte* mine) const {
        const View &x = *given(call, p_.x), &w = *given(call, p_.w), &y = call.out[0];
        auto* col = reinterpret_cast<std::int16_t*>(mine);
        auto* acc = reinterpret_cast<std::int32_t*>(mine + s.col_bytes);
        std::int64_t plane = x.count(2, x.rank), first = g * s.m;
        const std::uint8_t* from = x.in<std::uint8_t>() + (n * p_.group + g) * s.c * plane;
        std::int32_t xz = zero_at(given(call, p_.x_zero), 0);
        for (std::int64_t c = 0; c < s.c; ++c) {
            if (x.dtype == DType::u8) columns(x, y, from + c * plane, xz, p0, count, col + c * s.taps * count);
            else columns(x, y, reinterpret_cast<const std::int8_t*>(from) + c * plane, xz, p0, count, col + c * s.taps * count);
        }
        const View* wz = given(call, p_.w_zero);
        const std::uint8_t* weights = w.in<std::uint8_t>() + first * s.k;
        bool w_unsigned = w.dtype == DType::u8;
        for (std::int64_t r0 = 0; r0 < s.m;) {  // runs of rows with one zero point
            std::int64_t r1 = r0 + 1;
            std::int32_t z = zero_at(wz, first + r0);
            while (r1 < s.m && zero_at(wz, first + r1) == z) ++r1;
            t_.gemm_8(r1 - r0, count, s.k, weights + r0 * s.k, w_unsigned, z, s.k, col, count, acc + r0 * count, count);
            r0 = r1;
        }
        for (std::int64_t r = 0; r < s.m; ++r) finish(call, first + r, (n * y.dims[1] + first + r) * s.pixels + p0, count, acc + r * count);
    }
    void finish(const Call& call, std::int64_t channel, std::int64_t at, std::int64_t count, std::int32_t* acc) const {
        const View& y = call.out[0];
        if (const View* b = given(call, p_.bias)) {
            std::uint32_t add = static_cast<std::uint32_t>(b->in<std::int32_t>()[channel]);
            for (std::int64_t i = 0; i < count; ++i) acc[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(acc[i]) + add);
        }
        if (p_.out == DType::i32) {
            std::copy_n(acc, count, y.out<std::int32_t>() + at);
            return;
        }
        float scale = scale_at(*given(call, p_.x_scale), 0) * scale_at(*given(call, p_.w_scale), channel) / scale_at(*given(call, p_.y_scale), 0);
        std::int32_t zero = zero_at(given(call, p_.y_zero), 0);
        if (p_.out == DType::u8) requantize(acc, &scale, 0, zero, y.out<std::uint8_t>() + at, count);
        else requantize(acc, &scale, 0, zero, y.out<std::int8_t>() + at, count);
    }
    /// col [taps, count]: what each tap sees of one channel at output pixels [p0, p0 + count), without the zero point.
    template <class T>
    void columns(const View& x, const View& y, const T* from, std::int32_t zero, std::int64_t p0, std::int64_t count, std::int16_t* col) const {
        const conv::Window& w = p_.window;
        int n = w.spatial(), last = n - 1;
        std::int64_t width = x.dim(-1), out_width = y.dim(-1), taps = 1, s = w.strides[last], begin = w.pad_begin(last, width);
        for (std::int64_t k : w.kernel) taps *= k;
        for (std::int64_t t = 0; t < taps; ++t, col += count) {
            for (std::int64_t p = 0; p < count;) {
                std::int64_t o = (p0 + p) % out_width, row = (p0 + p) / out_width, run = std::min(out_width - o, count - p), rest_k = t / w.kernel[last];
                std::int64_t at = 0, stride = 1;
                bool inside = true;
                for (int d = last - 1; d >= 0; --d) {
                    std::int64_t i = row % y.dims[d + 2] * w.strides[d] + rest_k % w.kernel[d] * w.dilations[d] - w.pad_begin(d, x.dims[d + 2]);
                    row /= y.dims[d + 2];
                    rest_k /= w.kernel[d];
                    inside &= i >= 0 && i < x.dims[d + 2];
                    at += i * stride;
                    stride *= x.dims[d + 2];
                }
                std::int64_t off = t % w.kernel[last] * w.dilations[last] - begin;  // input = o * s + off
                std::int64_t lo = off >= 0 ? 0 : (-off + s - 1) / s, hi = off >= width ? 0 : (width - 1 - off) / s + 1;
                lo = std::clamp(inside ? lo : o + run, o, o + run);
                hi = std::clamp(inside ? hi : o, lo, o + run);
                std::int16_t* to = col + p - o;
                const T* src = from + at * width + off;
                for (std::int64_t i = o; i < lo; ++i) to[i] = 0;
                for (std::int64_t i = lo; i < hi; ++i) to[i] = static_cast<std::int16_t>(src[i * s] - zero);
                for (std::int64_t i = hi; i < o + run; ++i) to[i] = 0;
                p += run;
            }
        }
    }
    ConvProblem p_;
    const vec::Table& t_;
};

}  // namespace quant
QUERN_END
