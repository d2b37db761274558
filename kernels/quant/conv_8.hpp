// Convolutions of 8-bit tensors.
#pragma once
#include <memory>

#include <quern/kernels/conv/geometry.hpp>
#include <quern/kernels/packs.hpp>
#include <quern/kernels/quant/packed_8.hpp>

QUERN_BEGIN
namespace quant {

/// Which input is what; -1: the operator has none. Zero point and scale of W are one or one for each output channel; the others are one.
struct ConvProblem {
    conv::Window window;
    std::int64_t group = 1;
    conv::Layout layout = conv::Layout::nchw;  ///< of X and Y
    int x = 0, x_scale = -1, x_zero = -1, w = 1, w_scale = -1, w_zero = -1, y_scale = -1, y_zero = -1, bias = -1;
    DType out = DType::i32;  ///< i32: sums of (x - zx)(w - zw); u8, i8: quantized again
    std::int32_t low = -128, high = 255;  ///< bounds of quantized results
    Tensor w_value, w_zero_value;  ///< W and its zero point when constant: packed once
};

/// https://onnx.ai/onnx/operators/onnx__QLinearConv.html, https://onnx.ai/onnx/operators/onnx__ConvInteger.html: X [N, C, d...],
/// W [M, C/group, k...], Y [N, M, o...], X and Y in the layout. Padding stands for zero. Sums are of 32 bits and exact. Pixels are rows of a
/// product whose pieces are the channels under each tap; where those are no multiple of 4 bytes they are gathered first.
class ConvKernel final : public Kernel {
public:
    ConvKernel(const ConvProblem& p, const Target& target) : p_(p), l_(loops(target.isa)) {
        bool zero_known = p.w_zero < 0 || p.w_zero_value.defined();
        if (p.w_value.defined() && p.w_value.count() > 0 && zero_known) {
            View w = view_of(p_.w_value), z = p_.w_zero_value.defined() ? view_of(p_.w_zero_value) : View();
            check_zero(z.present() ? &z : nullptr, w.dims[0]);
            Weights s = weights(w);
            std::string layout = std::string("conv.bytes ") + l_.name + " " + std::to_string(p_.group);
            auto fill = [&](std::byte* to) {
                std::memset(to, 0, s.bytes);
                for (std::int64_t i = 0; i < s.parts(); ++i) pack(s, w, z.present() ? &z : nullptr, i, to);
            };
            packed_ = z.present() ? packed_weights(target, layout, {p_.w_value, p_.w_zero_value}, s.bytes, fill) : packed_weights(target, layout, {p_.w_value}, s.bytes, fill);
            unread = 1u << p.w;
        }
        p_.w_value = p_.w_zero_value = Tensor();
    }
    const char* name() const noexcept override { return "conv.bytes"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        if (out[0].count() == 0) return {};
        auto s = std::make_shared<Plan>(plan(in, out[0]));
        Booking b;
        b.scratch = s->x_bytes + s->y_bytes + s->column_bytes + s->border_bytes + (packed_.defined() ? 0 : s->w.bytes) + static_cast<std::size_t>(workers) * s->worker_bytes;
        b.state = std::move(s);
        return b;
    }
    void run(const Call& c) const override {
        const View &x = *given(c, p_.x), &w = *given(c, p_.w), &y = c.out[0];
        if (y.count() == 0) return;
        const Plan& q = *static_cast<const Plan*>(c.state);
        need_single(given(c, p_.x_scale), "the input's scale");
        need_single(given(c, p_.x_zero), "the input's zero point");
        need_single(given(c, p_.y_scale), "the output's scale");
        need_single(given(c, p_.y_zero), "the output's zero point");
        need_single_or(given(c, p_.w_scale), w.dims[0], "the weights' scale");
        check_zero(given(c, p_.w_zero), w.dims[0]);
        Job j{c, q, x.in<std::uint8_t>(), static_cast<std::byte*>(y.data), nullptr, nullptr, nullptr};
        std::byte* at = c.scratch;
        if (q.x_bytes) {
            auto* to = reinterpret_cast<std::uint8_t*>(at);
            turn(c, j.x, to, q.g.images, q.g.s.in_channels, q.g.s.pixels_in());
            j.x = to;
        }
        if (q.y_bytes) j.y = at + q.x_bytes;
        j.columns = reinterpret_cast<std::int32_t*>(at += q.x_bytes + q.y_bytes);
        auto* border = reinterpret_cast<std::uint8_t*>(at += q.column_bytes);
        std::fill_n(border, q.border_bytes, static_cast<std::uint8_t>(zero_at(given(c, p_.x_zero), 0)));
        j.border = border;
        j.weights = packed_.defined() ? static_cast<const std::byte*>(packed_.raw()) : at += q.border_bytes;
        if (packed_.defined()) at += q.border_bytes;
        else {
            c.workers.for_each(q.w.parts(), [&](std::int64_t i) { pack(q.w, w, given(c, p_.w_zero), i, at); });
            at += q.w.bytes;
        }
        columns(j);
        c.workers.for_each(q.g.images * q.tiles_p * q.groups * q.tiles_n, [&](std::int64_t i, int worker) {
            Tile t;
            std::int64_t rest = i / q.tiles_n;
            t.n0 = i % q.tiles_n * q.tile_n;
            t.cols = std::min(q.tile_n, q.per_group - t.n0);
            t.group = rest % q.groups;
            t.p0 = rest / q.groups % q.tiles_p * q.tile_p;
            t.count = std::min(q.tile_p, q.g.s.pixels_out() - t.p0);
            t.image = rest / q.groups / q.tiles_p;
            tile(j, t, at + static_cast<std::size_t>(worker) * q.worker_bytes);
        });
        if (!q.y_bytes) return;
        if (p_.out == DType::i32) turn(c, reinterpret_cast<const std::int32_t*>(j.y), y.out<std::int32_t>(), q.g.images, q.g.s.pixels_out(), q.g.s.out_channels);
        else turn(c, reinterpret_cast<const std::uint8_t*>(j.y), y.out<std::uint8_t>(), q.g.images, q.g.s.pixels_out(), q.g.s.out_channels);
    }

private:
    /// Packed weights: depthwise: pairs of 16 bits [(taps + 1) / 2, channels] without the zero points, then their sums [channels]; else for
    /// each group its panels, then the sums and zero points of its columns.
    struct Weights {
        bool depthwise;
        std::int64_t group, m, channels, taps, panels, padded_m;
        std::size_t panel_bytes, group_bytes, bytes;
        std::int64_t parts() const { return depthwise ? 1 : group * panels; }
    };
    struct Plan {
        conv::Geometry g;
        Weights w;
        bool gather;
        std::int64_t groups, per_group, tile_p, tiles_p, tile_n, tiles_n;  ///< a depthwise convolution is one group here
        std::size_t x_bytes, y_bytes, column_bytes, border_bytes, worker_bytes;
    };
    struct Job {
        const Call& call;
        const Plan& q;
        const std::uint8_t* x;  ///< channels last
        std::byte* y;
        std::int32_t* columns;  ///< of all groups: what is added, zero points, scales
        const std::uint8_t* border;
        const std::byte* weights;
    };
    struct Tile {
        std::int64_t image, group, p0, count, n0, cols;
    };
    static constexpr std::int64_t slack = 32;
    static void check_zero(const View* z, std::int64_t m) { need_single_or(z, m, "the weights' zero point"); }

    Weights weights(const View& w) const {
        Weights s;
        s.group = std::max<std::int64_t>(1, p_.group);
        s.m = w.dims[0] / s.group;
        s.channels = w.dims[1];
        s.taps = w.count(2, w.rank);
        s.depthwise = s.channels == 1 && s.m == 1;
        s.panels = panels_of(l_, s.m);
        s.padded_m = padded(s.depthwise ? s.group : s.m, l_.panel);
        s.panel_bytes = up(static_cast<std::size_t>(s.depthwise ? (s.taps + 1) / 2 * s.group * 4 : packed_size(l_, s.m, s.channels * s.taps)));
        s.group_bytes = s.panel_bytes + up(static_cast<std::size_t>(s.padded_m) * 8);
        s.bytes = s.group_bytes * static_cast<std::size_t>(s.depthwise ? 1 : s.group);
        return s;
    }
    void pack(const Weights& s, const View& w, const View* z, std::int64_t part, std::byte* all) const {
        const std::uint8_t* from = w.in<std::uint8_t>();
        bool is_unsigned = w.dtype == DType::u8;
        if (s.depthwise) {
            auto* pairs = reinterpret_cast<std::int32_t*>(all);
            auto* sums = reinterpret_cast<std::int32_t*>(all + s.panel_bytes);
            for (std::int64_t c = 0; c < s.group; ++c) {
                std::int64_t sum = 0;
                for (std::int64_t t = 0; t < s.taps; t += 2) {
                    std::uint32_t pair = 0;
                    for (std::int64_t i = t; i < std::min(t + 2, s.taps); ++i) {
                        std::uint8_t b = from[c * s.taps + i];
                        std::int32_t v = (is_unsigned ? std::int32_t{b} : std::int32_t{static_cast<std::int8_t>(b)}) - zero_at(z, c);
                        pair |= static_cast<std::uint32_t>(static_cast<std::uint16_t>(v)) << (16 * (i - t));
                        sum += v;
                    }
                    pairs[t / 2 * s.group + c] = static_cast<std::int32_t>(pair);
                }
                sums[c] = wrapped(sum);
            }
            return;
        }
        std::int64_t g = part / s.panels, p = part % s.panels, depth = s.channels * s.taps;
        std::byte* at = all + static_cast<std::size_t>(g) * s.group_bytes;
        auto* sums = reinterpret_cast<std::int32_t*>(at + s.panel_bytes);
        Columns c{from + g * s.m * depth, is_unsigned, s.m, depth, depth, std::max<std::int64_t>(1, s.channels), 1, s.taps};
        pack_panels(l_, c, p, p + 1, reinterpret_cast<std::int8_t*>(at), sums);
        for (std::int64_t i = p * l_.panel; i < std::min(s.m, (p + 1) * l_.panel); ++i)
            sums[s.padded_m + i] = zero_at(z, g * s.m + i) - (is_unsigned ? 128 : 0);
    }
    Plan plan(std::span<const View> in, const View& y) const {
        Plan q;
        conv::Problem shape;
        shape.layout = p_.layout;
        shape.window = p_.window;
        shape.group = p_.group;
        const View& x = in[static_cast<std::size_t>(p_.x)];
        q.g = conv::resolve(shape, {&x, 1}, y);
        q.w = weights(in[static_cast<std::size_t>(p_.w)]);
        const auto& s = q.g.s;
        std::int64_t depth = q.w.depthwise ? s.taps() : q.g.k(), pixels = s.pixels_out();
        q.gather = !q.w.depthwise && s.channels % 4 != 0;
        q.groups = q.w.depthwise ? 1 : q.g.group;
        q.per_group = q.w.depthwise ? s.out_channels : q.g.m;
        constexpr std::int64_t target = 2 << 20;  // products of a tile
        q.tile_p = std::clamp<std::int64_t>(q.w.depthwise ? target / 8 / std::max<std::int64_t>(1, depth * q.per_group) : 96, 8, std::max<std::int64_t>(8, pixels));
        q.tiles_p = (pixels + q.tile_p - 1) / q.tile_p;
        q.tile_p = q.tiles_p ? (pixels + q.tiles_p - 1) / q.tiles_p : 1;
        q.tile_n = q.w.depthwise ? q.per_group : std::max<std::int64_t>(1, target / std::max<std::int64_t>(1, q.tile_p * depth * l_.panel)) * l_.panel;
        q.tiles_n = q.per_group ? (q.per_group + q.tile_n - 1) / q.tile_n : 0;
        bool first = p_.layout == conv::Layout::nchw;
        q.x_bytes = first ? up(static_cast<std::size_t>(x.count())) : 0;
        q.y_bytes = first ? up(static_cast<std::size_t>(y.count()) * dtype_bits(p_.out) / 8) : 0;
        q.column_bytes = up(static_cast<std::size_t>(q.groups * q.w.padded_m * 3) * 4);
        q.border_bytes = up(static_cast<std::size_t>(q.gather ? s.kernel[2] * s.channels : q.w.depthwise ? s.in_channels : s.channels));
        q.worker_bytes = up(static_cast<std::size_t>(q.tile_p * (q.gather ? 1 : s.taps())) * 8) + up(static_cast<std::size_t>(q.tile_p) * 4) +
                         (q.gather ? up(static_cast<std::size_t>(q.tile_p * padded(depth, 4)) + slack) : 0);
        return q;
    }
    /// What is added to the sums of each output channel, its zero point and its scale.
    void columns(const Job& j) const {
        const Plan& q = j.q;
        const View &x = *given(j.call, p_.x), *bias = given(j.call, p_.bias), *xs = given(j.call, p_.x_scale), *ws = given(j.call, p_.w_scale), *ys = given(j.call, p_.y_scale);
        std::int64_t width = q.w.padded_m, xz = zero_at(given(j.call, p_.x_zero), 0) + (!q.w.depthwise && x.dtype == DType::i8 ? 128 : 0);
        for (std::int64_t g = 0; g < q.groups; ++g) {
            std::int32_t *add = j.columns + g * 3 * width, *zeros = add + width;
            auto* scale = reinterpret_cast<float*>(zeros + width);
            auto* sums = reinterpret_cast<const std::int32_t*>(j.weights + static_cast<std::size_t>(g) * q.w.group_bytes + q.w.panel_bytes);
            for (std::int64_t i = 0; i < q.per_group; ++i) {
                std::int64_t channel = g * q.per_group + i;
                zeros[i] = q.w.depthwise ? 0 : sums[width + i];
                add[i] = wrapped((bias ? bias->in<std::int32_t>()[channel] : 0) + (q.w.depthwise ? 0 : q.g.k() * xz * zeros[i]) - xz * sums[i]);
                scale[i] = ws ? scale_at(*xs, 0) * scale_at(*ws, channel) / scale_at(*ys, 0) : 0;
            }
            for (std::int64_t i = q.per_group; i < width; ++i) add[i] = zeros[i] = 0, scale[i] = 0;
        }
    }
    void tile(const Job& j, const Tile& t, std::byte* mine) const {
        const Plan& q = j.q;
        const auto& s = q.g.s;
        bool is_signed = given(j.call, p_.x)->dtype == DType::i8;
        auto** pointers = reinterpret_cast<const std::uint8_t**>(mine);
        auto* sums = reinterpret_cast<std::int32_t*>(mine += up(static_cast<std::size_t>(q.tile_p * (q.gather ? 1 : s.taps())) * 8));
        auto* copy = reinterpret_cast<std::uint8_t*>(mine + up(static_cast<std::size_t>(q.tile_p) * 4));
        const std::uint8_t* image = j.x + t.image * q.g.x_image() + (q.w.depthwise ? 0 : t.group * s.channels);
        if (q.gather) gather(j, image, t, is_signed ? 0x80 : 0, copy, pointers);
        else point(s, image, j.border, t, q.tile_p, pointers);
        Rows rows{pointers, q.tile_p, t.count, q.gather ? 1 : s.taps(), q.gather ? padded(q.g.k(), 4) / 4 : s.channels / 4, is_signed && !q.gather};
        const std::int32_t* add = j.columns + t.group * 3 * q.w.padded_m + t.n0;
        std::int64_t at = (t.image * s.pixels_out() + t.p0) * s.out_channels + t.group * q.per_group + t.n0;
        Finish f{p_.out, add, nullptr, nullptr, reinterpret_cast<const float*>(add + 2 * q.w.padded_m), nullptr, zero_at(given(j.call, p_.y_zero), 0), 0, 0,
                 j.y + static_cast<std::size_t>(at) * (dtype_bits(p_.out) / 8), s.out_channels};
        limits(p_.out, f.low, f.high);
        f.low = std::max(f.low, p_.low), f.high = std::min(f.high, p_.high);
        const std::byte* weights = j.weights + static_cast<std::size_t>(t.group) * q.w.group_bytes;
        if (q.w.depthwise) return l_.depthwise(rows, s.out_channels, reinterpret_cast<const std::int32_t*>(weights), is_signed, f);
        const std::int32_t* zeros = add + q.w.padded_m;
        bool any = std::any_of(zeros, zeros + t.cols, [](std::int32_t z) { return z != 0; });
        if (any) {
            l_.row_sums(rows, sums);
            f.b_zero = zeros;
            f.row_sums = sums;
        }
        l_.product(rows, reinterpret_cast<const std::int8_t*>(weights + t.n0 * padded(q.g.k(), 4)), t.cols, f);
    }
    /// Where each tap of each pixel of the tile reads: pointers[tap * ld + pixel]; `border` outside.
    static void point(const vec::ConvShape& s, const std::uint8_t* image, const std::uint8_t* border, const Tile& t, std::int64_t ld, const std::uint8_t** pointers) {
        std::int64_t ow = t.p0 % s.out[2], oh = t.p0 / s.out[2] % s.out[1], od = t.p0 / (s.out[2] * s.out[1]);
        for (std::int64_t p = 0; p < t.count; ++p) {
            const std::uint8_t** to = pointers + p;
            for (std::int64_t a = 0; a < s.kernel[0]; ++a)
                for (std::int64_t b = 0; b < s.kernel[1]; ++b) {
                    std::int64_t d = od * s.stride[0] - s.pad[0] + a * s.dilation[0], h = oh * s.stride[1] - s.pad[1] + b * s.dilation[1], w = ow * s.stride[2] - s.pad[2];
                    bool inside = d >= 0 && d < s.in[0] && h >= 0 && h < s.in[1];
                    const std::uint8_t* row = image + ((d * s.in[1] + h) * s.in[2]) * s.in_channels;
                    for (std::int64_t c = 0; c < s.kernel[2]; ++c, w += s.dilation[2], to += ld)
                        *to = inside && w >= 0 && w < s.in[2] ? row + w * s.in_channels : border;
                }
            if (++ow == s.out[2]) {
                ow = 0;
                if (++oh == s.out[1]) oh = 0, ++od;
            }
        }
    }
    /// The bytes under all taps of each pixel one after the other, filled up with 0 to a multiple of 4.
    void gather(const Job& j, const std::uint8_t* image, const Tile& t, std::uint8_t flip, std::uint8_t* copy, const std::uint8_t** pointers) const {
        const auto& s = j.q.g.s;
        std::int64_t depth = j.q.g.k(), width = padded(depth, 4), row_bytes = s.kernel[2] * s.channels;
        const std::uint8_t* end = j.x + j.q.g.images * j.q.g.x_image();
        for (std::int64_t p = 0; p < t.count; ++p, copy += width) {
            std::int64_t at = t.p0 + p, ow = at % s.out[2], oh = at / s.out[2] % s.out[1], od = at / (s.out[2] * s.out[1]);
            std::uint8_t* to = copy;
            for (std::int64_t a = 0; a < s.kernel[0]; ++a)
                for (std::int64_t b = 0; b < s.kernel[1]; ++b, to += row_bytes) {
                    std::int64_t d = od * s.stride[0] - s.pad[0] + a * s.dilation[0], h = oh * s.stride[1] - s.pad[1] + b * s.dilation[1], w = ow * s.stride[2] - s.pad[2];
                    if (d < 0 || d >= s.in[0] || h < 0 || h >= s.in[1]) {
                        std::memcpy(to, j.border, static_cast<std::size_t>(row_bytes));
                        continue;
                    }
                    const std::uint8_t* row = image + ((d * s.in[1] + h) * s.in[2]) * s.in_channels;
                    if (w >= 0 && w + s.kernel[2] <= s.in[2] && s.dilation[2] == 1 && s.channels == s.in_channels) {
                        const std::uint8_t* src = row + w * s.in_channels;
                        // A copy of known length; what it writes too much is written again.
                        if (row_bytes <= slack && end - src >= slack) std::memcpy(to, src, slack);
                        else std::memcpy(to, src, static_cast<std::size_t>(row_bytes));
                        continue;
                    }
                    for (std::int64_t c = 0; c < s.kernel[2]; ++c, w += s.dilation[2])
                        std::memcpy(to + c * s.channels, w >= 0 && w < s.in[2] ? row + w * s.in_channels : j.border, static_cast<std::size_t>(s.channels));
                }
            if (flip)
                for (std::int64_t i = 0; i < depth; ++i) copy[i] ^= flip;
            std::fill(copy + depth, copy + width, std::uint8_t{0});
            pointers[p] = copy;
        }
    }
    /// [n, rows, cols] to [n, cols, rows].
    template <class T>
    static void turn(const Call& c, const T* from, T* to, std::int64_t n, std::int64_t rows, std::int64_t cols) {
        constexpr std::int64_t block = 32;
        std::int64_t down = (rows + block - 1) / block;
        c.workers.for_each(n * down, [&](std::int64_t i) {
            std::int64_t r0 = i % down * block, r1 = std::min(rows, r0 + block);
            const T* f = from + i / down * rows * cols;
            T* t = to + i / down * rows * cols;
            for (std::int64_t c0 = 0; c0 < cols; c0 += block)
                for (std::int64_t col = c0; col < std::min(cols, c0 + block); ++col)
                    for (std::int64_t r = r0; r < r1; ++r) t[col * rows + r] = f[r * cols + col];
        });
    }
    ConvProblem p_;
    const Loops& l_;
    Tensor packed_;
};

}  // namespace quant
QUERN_END
