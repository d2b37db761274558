// Transposed convolutions: a product per tile of output channels, scattered into the output.
#pragma once
#include <algorithm>
#include <vector>

#include <quern/kernels/conv/conv.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace conv_transpose {

/// in[0] = X [N, C, d...], in[1] = W [C, M/group, k...], in[2] = bias [M] or absent; out[0] = Y [N, M, o...]
/// (https://onnx.ai/onnx/operators/onnx__ConvTranspose.html). f32 or f64. With `split_padding`, what the output dims leave of
/// stride * (in - 1) + output_padding + reach is padding, the odd one at the end for same_upper, else at the beginning.
struct Problem {
    DType dtype = DType::f32;
    conv::Window window;
    std::vector<std::int64_t> output_padding;
    std::int64_t group = 1;
    bool split_padding = false, has_bias = false;
};

/// Padding before dimension d.
inline std::int64_t begin_padding(const Problem& p, int d, std::int64_t in, std::int64_t out) {
    const conv::Window& w = p.window;
    if (!p.split_padding) return w.auto_pad == conv::AutoPad::notset ? w.pads[d] : 0;
    std::int64_t total = (in - 1) * w.strides[d] + p.output_padding[d] + (w.kernel[d] - 1) * w.dilations[d] + 1 - out;
    total = std::max<std::int64_t>(total, 0);
    return w.auto_pad == conv::AutoPad::same_upper ? total / 2 : total - total / 2;
}

class GemmScatter final : public Kernel {
public:
    GemmScatter(const Problem& p, const vec::Table& t) : p_(p), t_(t) {}
    const char* name() const noexcept override { return "conv_transpose.gemm"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        Booking b;
        b.scratch = static_cast<std::size_t>(workers) * sizes(in, out).worker_bytes;
        return b;
    }
    void run(const Call& c) const override {
        if (p_.dtype == DType::f32) go<float>(c);
        else go<double>(c);
    }

private:
    struct Sizes {
        std::int64_t c, m, taps, in, out, chunk, chunks;  // c, m: channels of a group
        std::size_t work, worker_bytes;
    };
    Sizes sizes(std::span<const View> in, std::span<const View> out) const {
        Sizes s;
        s.c = in[1].dims[0] / p_.group;
        s.m = in[1].dims[1];
        s.taps = in[1].count(2, in[1].rank);
        s.in = in[0].count(2, in[0].rank);
        s.out = out[0].count(2, out[0].rank);
        s.chunk = std::clamp<std::int64_t>(262144 / std::max<std::int64_t>(1, s.taps * s.in), 1, std::max<std::int64_t>(1, s.m));
        if (s.in == 1) s.chunk = std::clamp<std::int64_t>((1 << 18) / std::max<std::int64_t>(1, s.taps * s.c), 1, s.chunk);
        s.chunks = (s.m + s.chunk - 1) / s.chunk;
        auto work = [&](std::int64_t m) { return s.in == 1 ? t_.gemm_work_bytes(1, m * s.taps, s.c) : t_.gemm_work_bytes(m * s.taps, s.in, s.c); };
        s.work = work(s.chunk);
        if (s.m % s.chunk) s.work = std::max(s.work, work(s.m % s.chunk));
        s.work = (s.work + 63) / 64 * 64;
        s.worker_bytes = s.work + (static_cast<std::size_t>(s.chunk * s.taps * s.in) * dtype_bits(p_.dtype) / 8 + 63) / 64 * 64;
        return s;
    }
    void gemm(const Sizes& s, std::int64_t m, const float* w, const float* x, float* col, void* work) const {
        if (s.in == 1) return t_.gemm_f32(1, m, s.c, x, s.c, false, w, s.m * s.taps, false, col, m, {}, work);  // a column is a row
        t_.gemm_f32(m, s.in, s.c, w, s.m * s.taps, true, x, s.in, false, col, s.in, {}, work);
    }
    void gemm(const Sizes& s, std::int64_t m, const double* w, const double* x, double* col, void* work) const {
        t_.gemm_f64(m, s.in, s.c, w, s.m * s.taps, true, x, s.in, false, col, s.in, work);
    }
    template <class T>
    void go(const Call& call) const {
        const View &x = call.in[0], &w = call.in[1], &y = call.out[0];
        if (y.count() == 0) return;
        Sizes s = sizes(call.in, call.out);
        std::vector<std::int64_t> begin;
        for (int d = 0; d < p_.window.spatial(); ++d) begin.push_back(begin_padding(p_, d, x.dims[d + 2], y.dims[d + 2]));
        const T* bias = p_.has_bias && call.in.size() > 2 && call.in[2].present() ? call.in[2].in<T>() : nullptr;
        call.workers.for_each(x.dims[0] * p_.group * s.chunks, [&](std::int64_t tile, int worker) {
            std::int64_t chunk = tile % s.chunks, g = tile / s.chunks % p_.group, n = tile / s.chunks / p_.group;
            std::int64_t first = chunk * s.chunk, count = std::min(s.chunk, s.m - first);
            std::byte* mine = call.scratch + static_cast<std::size_t>(worker) * s.worker_bytes;
            T* col = reinterpret_cast<T*>(mine + s.work);
            if (s.in > 0)
                gemm(s, count * s.taps, w.in<T>() + (g * s.c * s.m + first) * s.taps, x.in<T>() + (n * p_.group + g) * s.c * s.in, col, mine);
            for (std::int64_t i = 0; i < count; ++i) {
                std::int64_t channel = g * s.m + first + i;
                T* to = y.out<T>() + (n * p_.group * s.m + channel) * s.out;
                std::fill_n(to, s.out, bias ? bias[channel] : T{0});
                if (s.in > 0) scatter(col + i * s.taps * s.in, x, y, begin, to);
            }
        });
    }
    /// y [o...] += col [taps, in...], each tap at its place.
    template <class T>
    void scatter(const T* col, const View& x, const View& y, const std::vector<std::int64_t>& begin, T* to) const {
        const conv::Window& w = p_.window;
        int n = w.spatial(), last = n - 1;
        std::int64_t width = x.dim(-1), out_width = y.dim(-1), rows = width ? x.count(2, x.rank) / width : 0, s = w.strides[last];
        std::vector<std::int64_t> k(static_cast<std::size_t>(n), 0);
        for (;;) {
            std::int64_t off = k[last] * w.dilations[last] - begin[last];  // output = i * s + off
            std::int64_t from = off >= 0 ? 0 : (-off + s - 1) / s, until = off >= out_width ? 0 : std::min(width, (out_width - 1 - off) / s + 1);
            for (std::int64_t r = 0; r < rows; ++r) {
                std::int64_t rest = r, at = 0, stride = 1;
                bool inside = true;
                for (int d = last - 1; d >= 0; --d) {
                    std::int64_t o = rest % x.dims[d + 2] * w.strides[d] + k[d] * w.dilations[d] - begin[d];
                    rest /= x.dims[d + 2];
                    inside &= o >= 0 && o < y.dims[d + 2];
                    at += o * stride;
                    stride *= y.dims[d + 2];
                }
                if (!inside) continue;
                T* dst = to + at * out_width + off;
                const T* src = col + r * width;
                if (s == 1)
                    for (std::int64_t i = from; i < until; ++i) dst[i] += src[i];
                else
                    for (std::int64_t i = from; i < until; ++i) dst[i * s] += src[i];
            }
            col += rows * width;
            int d = last;
            for (; d >= 0; --d) {
                if (++k[d] < w.kernel[d]) break;
                k[d] = 0;
            }
            if (d < 0) return;
        }
    }
    Problem p_;
    const vec::Table& t_;
};

}  // namespace conv_transpose
QUERN_END
