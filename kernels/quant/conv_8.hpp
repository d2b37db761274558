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
        c.workers.for_each(x.dims[0] * p_.group * s.blocks * s.row_blocks, [&](std::int64_t i, int worker) {
            Tile t;
            t.m0 = i % s.row_blocks * s.rows;
            t.rows = std::min(s.rows, s.m - t.m0);
            t.p0 = i / s.row_blocks % s.blocks * s.block;
            t.count = std::min(s.block, s.pixels - t.p0);
            t.group = i / s.row_blocks / s.blocks % p_.group;
            t.n = i / s.row_blocks / s.blocks / p_.group;
            tile(c, s, t, c.scratch + static_cast<std::size_t>(worker) * s.worker_bytes);
        });
    }

private:
    struct Sizes {
        std::int64_t m, c, taps, k, pixels;            // m, c: channels of a group
        std::int64_t block, blocks, rows, row_blocks;  // of pixels; of output channels
        std::size_t col_bytes, worker_bytes;
    };
    struct Tile {
        std::int64_t n, group, m0, rows, p0, count;
    };
    /// Tiles of some million products; where pixels alone give few tiles, output channels are cut too.
    Sizes sizes(const View& w, const View& y) const {
        Sizes s;
        s.m = w.dims[0] / p_.group;
        s.c = w.dims[1];
        s.taps = w.count(2, w.rank);
        s.k = s.c * s.taps;
        s.pixels = y.count(2, y.rank);
        std::int64_t k = std::max<std::int64_t>(1, s.k), m = std::max<std::int64_t>(1, s.m);
        std::int64_t most = std::clamp<std::int64_t>(524288 / k, 32, 4096);
        std::int64_t want = std::clamp<std::int64_t>((std::int64_t{1} << 22) / k / m, std::min<std::int64_t>(64, most), most);
        s.blocks = (s.pixels + want - 1) / want;
        s.block = ((s.pixels + s.blocks - 1) / std::max<std::int64_t>(1, s.blocks) + 31) / 32 * 32;
        s.blocks = s.block ? (s.pixels + s.block - 1) / s.block : 0;
        s.rows = s.blocks * p_.group * y.dims[0] < 16 ? std::min<std::int64_t>(m, 128) : m;
        s.row_blocks = (s.m + s.rows - 1) / s.rows;
        s.col_bytes = up(static_cast<std::size_t>(s.k * s.block) * 2);
        s.worker_bytes = s.col_bytes + up(static_cast<std::size_t>(s.rows * s.block) * 4);
        return s;
    }
    void tile(const Call& call, const Sizes& s, const Tile& t, std::byte* mine) const {
        const View &x = *given(call, p_.x), &w = *given(call, p_.w), &y = call.out[0];
        auto* col = reinterpret_cast<std::int16_t*>(mine);
        auto* acc = reinterpret_cast<std::int32_t*>(mine + s.col_bytes);
        std::int64_t plane = x.count(2, x.rank), first = t.group * s.m + t.m0;
        const std::uint8_t* from = x.in<std::uint8_t>() + (t.n * p_.group + t.group) * s.c * plane;
        std::int32_t xz = zero_at(given(call, p_.x_zero), 0);
        for (std::int64_t c = 0; c < s.c; ++c) {
            if (x.dtype == DType::u8) columns(x, y, from + c * plane, xz, t.p0, t.count, col + c * s.taps * t.count);
            else columns(x, y, reinterpret_cast<const std::int8_t*>(from) + c * plane, xz, t.p0, t.count, col + c * s.taps * t.count);
        }
        const View* wz = given(call, p_.w_zero);
        const std::uint8_t* weights = w.in<std::uint8_t>() + first * s.k;
        bool w_unsigned = w.dtype == DType::u8;
        for (std::int64_t r0 = 0; r0 < t.rows;) {  // runs of rows with one zero point
            std::int64_t r1 = r0 + 1;
            std::int32_t z = zero_at(wz, first + r0);
            while (r1 < t.rows && zero_at(wz, first + r1) == z) ++r1;
            t_.gemm_8(r1 - r0, t.count, s.k, weights + r0 * s.k, w_unsigned, z, s.k, col, t.count, acc + r0 * t.count, t.count);
            r0 = r1;
        }
        for (std::int64_t r = 0; r < t.rows; ++r) finish(call, first + r, (t.n * y.dims[1] + first + r) * s.pixels + t.p0, t.count, acc + r * t.count);
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
        if (taps == 1 && plain(x, y)) {
            for (std::int64_t p = 0; p < count; ++p) col[p] = static_cast<std::int16_t>(from[p0 + p] - zero);
            return;
        }
        for (std::int64_t p = 0; p < count;) {  // runs along one output row
            std::int64_t o = (p0 + p) % out_width, row = (p0 + p) / out_width, run = std::min(out_width - o, count - p);
            for (std::int64_t t = 0; t < taps; ++t) {
                std::int64_t kw = t % w.kernel[last], at = row_of(x, y, row, t / w.kernel[last]);
                std::int64_t off = kw * w.dilations[last] - begin;  // input = o * s + off
                std::int64_t lo = off >= 0 ? 0 : (-off + s - 1) / s, hi = off >= width ? 0 : (width - 1 - off) / s + 1;
                lo = std::clamp(at >= 0 ? lo : o + run, o, o + run);
                hi = std::clamp(at >= 0 ? hi : o, lo, o + run);
                std::int16_t* to = col + t * count + p - o;
                const T* src = from + std::max<std::int64_t>(at, 0) * width + off;
                for (std::int64_t i = o; i < lo; ++i) to[i] = 0;
                if (s == 1) for (std::int64_t i = lo; i < hi; ++i) to[i] = static_cast<std::int16_t>(src[i] - zero);
                else for (std::int64_t i = lo; i < hi; ++i) to[i] = static_cast<std::int16_t>(src[i * s] - zero);
                for (std::int64_t i = hi; i < o + run; ++i) to[i] = 0;
            }
            p += run;
        }
    }
    /// The input row (all spatial dimensions but the last) that tap `k` sees at output row `row`; -1: padding.
    std::int64_t row_of(const View& x, const View& y, std::int64_t row, std::int64_t k) const {
        const conv::Window& w = p_.window;
        std::int64_t at = 0, stride = 1;
        for (int d = w.spatial() - 2; d >= 0; --d) {
            bool outer = d == 0;  // nothing left to divide by
            std::int64_t i = (outer ? row : row % y.dims[d + 2]) * w.strides[d] + (outer ? k : k % w.kernel[d]) * w.dilations[d] - w.pad_begin(d, x.dims[d + 2]);
            if (i < 0 || i >= x.dims[d + 2]) return -1;
            row /= y.dims[d + 2];
            k /= w.kernel[d];
            at += i * stride;
            stride *= x.dims[d + 2];
        }
        return at;
    }
    /// A kernel of one tap that neither strides nor pads: output pixels are input pixels.
    bool plain(const View& x, const View& y) const {
        for (int d = 0; d < p_.window.spatial(); ++d)
            if (p_.window.strides[d] != 1 || x.dims[d + 2] != y.dims[d + 2] || p_.window.pad_begin(d, x.dims[d + 2]) != 0) return false;
        return true;
    }
    ConvProblem p_;
    const vec::Table& t_;
};

}  // namespace quant
QUERN_END
