// The portable convolution: products over operands gathered tile by tile, and depthwise loops, of vec::Table.
#pragma once
#include <quern/base/ceil_div.hpp>
#include <quern/kernels/conv/geometry.hpp>
#include <quern/kernels/vec/images.hpp>
#include <quern/kernels/weights.hpp>

QUERN_BEGIN
namespace conv {

class CoreKernel final : public Kernel {
public:
    CoreKernel(const Problem& p, const Target& target) : p_(p), t_(vec::table(target.isa)), images_(vec::image_table(target.isa)) {
        strided_in = nhwc() ? 1u : 0u;
        strided_out = nhwc() && !p_.has_residual;
        if (p_.dtype != DType::f32) p_.w = aligned_weights(target, p_.w);
        if (!p_.w.defined() || p_.w.count() == 0 || p_.dtype != DType::f32) return;
        Shape shape = p_.w.shape();
        std::int64_t m = shape[0] / std::max<std::int64_t>(1, p_.group), channels = shape[1], taps = 1;
        for (std::size_t i = 2; i < shape.size(); ++i) taps *= shape[i];
        const bool by_panels = nhwc() && (channels > 1 || m > 1);
        if (!by_panels) p_.w = aligned_weights(target, p_.w);
        if (reads_weights(channels, m)) return;
        unread = 1u << 1;
        std::size_t floats = static_cast<std::size_t>(packed_floats(m, channels, taps) * std::max<std::int64_t>(1, p_.group));
        std::string layout = std::string("conv.core ") + t_.name + (nhwc() ? " nhwc " : " nchw ") + std::to_string(p_.group);
        packed_ = packed_weights(target, layout, {p_.w}, floats * sizeof(float), [&](std::byte* to) {
            Consumption consumption(by_panels ? target.packs : nullptr, p_.w);
            for (std::int64_t g = 0; g < p_.group; ++g) pack(static_cast<const std::byte*>(p_.w.raw()), g, m, channels, taps, reinterpret_cast<float*>(to), &consumption);
        }, by_panels);
        p_.w = Tensor();
    }
    const char* name() const noexcept override { return "conv.core"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }

    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto plan = std::make_shared<Plan>(make_plan(in, out[0]));
        Booking b;
        b.scratch = plan->head + static_cast<std::size_t>(workers) * plan->work;
        b.state = std::move(plan);
        return b;
    }
    void run(const Call& call) const override {
        const Plan& q = *static_cast<const Plan*>(call.state);
        if (q.g.images == 0 || q.g.s.pixels_out() == 0 || q.g.m == 0) return;
        if (p_.dtype == DType::f64) return run_f64(call, q);
        const float* w = weights(call, q);
        vec::Epilogue e;
        e.post = p_.post;
        e.alpha = p_.post_alpha;
        e.beta = p_.post_beta;
        const float* bias = p_.has_bias && call.in.size() > 2 && call.in[2].present() ? call.in[2].in<float>() : nullptr;
        e.residual = p_.has_residual && call.in.size() > 3 ? call.in[3].in<float>() : nullptr;
        if (q.way == Way::planes) return run_planes(call, q, w, bias, e);
        if (q.way == Way::depthwise) return run_depthwise(call, q, w, bias, e);
        run_product(call, q, w, bias, e);
    }

private:
    enum class Way : std::uint8_t { product, depthwise, planes };
    struct Plan {
        Geometry g;
        Way way = Way::product;
        bool by_rows = false;   ///< depthwise over two dimensions, weights packed
        bool by_panel = false;  ///< pixels are the inner loop of tiles
        std::int64_t tile_p = 1, tile_n = 1, tiles_p = 1, tiles_n = 1;  ///< pixels (rows), output channels (row blocks)
        std::size_t head = 0, work = 0;
    };
    static constexpr std::int64_t most_rows = 64;  ///< of a depthwise kernel that goes by rows
    bool nhwc() const { return p_.layout == Layout::nhwc; }
    /// Depthwise over nchw planes takes ONNX's weights as they are.
    bool reads_weights(std::int64_t channels, std::int64_t m) const {
        return !nhwc() && channels == 1 && m <= 2 && p_.window.spatial() <= 2;
    }
    /// Floats of one group's packed weights; depthwise: all groups share [taps, channels].
    std::int64_t packed_floats(std::int64_t m, std::int64_t channels, std::int64_t taps) const {
        if (nhwc() && channels == 1 && m == 1) return taps;
        std::size_t n = nhwc() ? t_.packed_floats(m, channels * taps) : t_.packed_rows_floats(m, channels * taps);
        return static_cast<std::int64_t>((n + 15) / 16 * 16);
    }
    /// `w`: all weights, where panels are packed as they lie in the model's bytes, which need not be aligned.
    void pack(const std::byte* w, std::int64_t g, std::int64_t m, std::int64_t channels, std::int64_t taps, float* all, Consumption* consumption = nullptr) const {
        std::int64_t k = channels * taps;
        const auto* floats = reinterpret_cast<const float*>(w);
        if (nhwc() && channels == 1 && m == 1) {
            for (std::int64_t t = 0; t < taps; ++t) all[t * p_.group + g] = floats[g * taps + t];
            return;
        }
        float* dst = all + g * packed_floats(m, channels, taps);
        if (!nhwc()) {
            t_.pack_rows_f32(m, k, floats + g * m * k, k, dst);
        } else {
            std::vector<float> rows(static_cast<std::size_t>(std::min(m, t_.panel) * k));
            for (std::int64_t m0 = 0; m0 < m; m0 += t_.panel) {
                const std::int64_t n = std::min(t_.panel, m - m0), at = (g * m + m0) * k;
                const std::byte* from = w + static_cast<std::size_t>(at) * sizeof(float);
                if (taps == 1) std::memcpy(rows.data(), from, static_cast<std::size_t>(n * k) * sizeof(float));
                else
                    for (std::int64_t i = 0; i < n; ++i)
                        for (std::int64_t c = 0; c < channels; ++c)
                            for (std::int64_t t = 0; t < taps; ++t)
                                std::memcpy(&rows[static_cast<std::size_t>(i * k + t * channels + c)], from + static_cast<std::size_t>((i * channels + c) * taps + t) * sizeof(float), sizeof(float));
                t_.pack_b_f32(n, k, rows.data(), k, true, 1.f, dst + m0 * k);
                if (consumption) consumption->until(static_cast<std::size_t>(at + n * k) * sizeof(float));
            }
        }
        const std::int64_t whole = packed_floats(m, channels, taps);
        std::fill_n(dst + whole - 16, 16, 0.f);  // what rounding added
    }
    /// The weights as the tiles want them: packed when made, or in the head of the scratch at each run.
    const float* weights(const Call& call, const Plan& q) const {
        if (packed_.defined()) return static_cast<const float*>(packed_.raw());
        const float* w = p_.w.defined() ? static_cast<const float*>(p_.w.raw()) : call.in[1].in<float>();
        if (q.way == Way::planes) return w;
        auto* dst = reinterpret_cast<float*>(call.scratch);
        call.workers.for_each(q.g.group, [&](std::int64_t g) { pack(reinterpret_cast<const std::byte*>(w), g, q.g.m, q.g.s.channels, q.g.s.taps(), dst); });
        return dst;
    }

    Plan make_plan(std::span<const View> in, const View& out) const {
        Plan q;
        q.g = resolve(p_, in, out);
        const Geometry& g = q.g;
        std::int64_t pixels = std::max<std::int64_t>(1, g.s.pixels_out()), k = std::max<std::int64_t>(1, g.k()), m = std::max<std::int64_t>(1, g.m);
        constexpr std::int64_t target = 4 << 20;  // multiply-adds of a tile
        if (p_.dtype == DType::f32 && out.count() > 0 && !packed_.defined() && !reads_weights(g.s.channels, g.m))
            q.head = static_cast<std::size_t>(packed_floats(g.m, g.s.channels, g.s.taps()) * g.group) * sizeof(float) / 64 * 64 + 64;
        q.work = (t_.gemm_work_bytes(0, 0, 0) + 63) / 64 * 64;
        if (reads_weights(g.s.channels, g.m)) {
            q.way = Way::planes;
            q.work = 0;
        } else if (nhwc() && g.depthwise()) {
            q.way = Way::depthwise;
            q.work = 0;
            std::int64_t rows = g.s.out[0] * g.s.out[1], row = std::max<std::int64_t>(1, g.s.out[2] * g.group * g.s.taps());
            q.tile_p = std::clamp<std::int64_t>(target / 8 / row, 1, std::max<std::int64_t>(1, rows));
            q.tiles_p = ceil_div(rows, q.tile_p);
            q.by_rows = packed_.defined() && g.s.kernel[0] == 1 && g.s.in[0] == 1 && g.s.out[0] == 1 && g.s.kernel[1] <= most_rows;
            if (q.by_rows) {  // pairs of rows, and channels where rows are few
                q.tile_p = std::clamp<std::int64_t>(ceil_div(target / 4 / row, 2) * 2, 2, std::max<std::int64_t>(2, rows));
                q.tiles_p = ceil_div(rows, q.tile_p);
                q.tile_n = ceil_div(g.group, q.tiles_p < 8 && g.group >= 128 ? 2 : 1);
                q.tile_n = ceil_div(q.tile_n, 16) * 16;
                q.tiles_n = ceil_div(g.group, q.tile_n);
            }
            if (q.by_rows) q.head = (static_cast<std::size_t>(g.s.in[2] * g.s.in_channels) * sizeof(float) + 63) / 64 * 64;
        } else if (nhwc()) {
            // Rows that are gathered are so once for each tile of columns.
            bool copied = g.s.taps() != 1;
            for (int d = 0; d < 3; ++d) copied = copied || g.s.stride[d] != 1 || g.s.pad[d] != 0;
            q.tiles_p = ceil_div(pixels, pixels <= 168 ? pixels : 112);
            q.tile_p = ceil_div(pixels, q.tiles_p);
            const bool listed = g.s.taps() > 1 && images_.reads_taps(g.s);
            std::int64_t tn = std::max<std::int64_t>(target / 3 / (q.tile_p * k), listed ? 2 * t_.panel : copied ? 128 : t_.panel);
            // A few large tiles leave cores idle in the end.
            for (std::int64_t n = ceil_div(m, tn); copied && q.tiles_p * n < 16 && q.tiles_p * n % 8 != 0 && q.tile_p > 56 && q.tile_p * tn * k > target / 2;) q.tile_p = ceil_div(pixels, ++q.tiles_p);
            while (copied && g.s.taps() == 1 && tn > t_.panel && q.tiles_p * ceil_div(m, tn) < 8 && q.tile_p * tn * k > target / 2) tn /= 2;
            if (g.images * pixels < 16) tn = std::min(tn, std::max(4 * t_.panel, (32 << 10) / k));  // reading the weights is what takes the time
            q.tiles_n = ceil_div(m, tn);
            q.tile_n = ceil_div(ceil_div(m, q.tiles_n), t_.panel) * t_.panel;
            q.tiles_n = ceil_div(m, q.tile_n);
            if (!copied) q.by_panel = even_tiles(pixels, g.images * g.group * q.tiles_n, static_cast<double>(g.images * pixels) * static_cast<double>(k) * static_cast<double>(m * g.group), q.tiles_p, q.tile_p);
        } else {
            std::int64_t panels = ceil_div(pixels, t_.panel), blocks = ceil_div(m, t_.row_block);
            std::int64_t each = std::clamp<std::int64_t>(target / (m * k * t_.panel), 1, 16);
            q.tiles_p = ceil_div(panels, each);
            q.tile_p = ceil_div(panels, q.tiles_p) * t_.panel;
            q.tiles_p = ceil_div(pixels, q.tile_p);
            std::int64_t cuts = std::clamp<std::int64_t>(q.tile_p * m * k / target, 1, blocks);
            if (q.tiles_p * g.images * g.group >= 16) cuts = 1;
            q.tile_n = ceil_div(blocks, cuts);
            q.tiles_n = ceil_div(blocks, q.tile_n);
        }
        return q;
    }

    void run_product(const Call& call, const Plan& q, const float* w, const float* bias, const vec::Epilogue& base) const {
        const Geometry& g = q.g;
        const auto* x = call.in[0].in<float>();
        auto* y = call.out[0].out<float>();
        std::int64_t pixels = g.s.pixels_out(), plane = g.s.pixels_in(), stride = packed_floats(g.m, g.s.channels, g.s.taps());
        call.workers.for_each(g.images * g.group * q.tiles_p * q.tiles_n, [&](std::int64_t t, int worker) {
            std::int64_t in_ = q.by_panel ? t / q.tiles_p % q.tiles_n : t % q.tiles_n, ip = q.by_panel ? t % q.tiles_p : t / q.tiles_n % q.tiles_p;
            std::int64_t ig = t / (q.tiles_n * q.tiles_p) % g.group;
            std::int64_t image = t / (q.tiles_n * q.tiles_p * g.group);
            std::int64_t p0 = ip * q.tile_p, p1 = std::min(pixels, p0 + q.tile_p);
            void* work = call.scratch + q.head + static_cast<std::size_t>(worker) * q.work;
            const float* xi = x + image * g.x_image();
            const float* wg = w + ig * stride;
            vec::Epilogue e = base;
            if (nhwc()) {
                std::int64_t n0 = in_ * q.tile_n, n = std::min(q.tile_n, g.m - n0), channel = ig * g.m + n0;
                std::int64_t at = image * g.y_image() + p0 * g.s.out_channels + channel;
                if (bias) e.bias_row = bias + channel;
                if (e.residual) e.residual += at;
                if (p_.has_gate) {
                    const float* gate = call.in[4].in<float>() + image * g.s.channels;
                    return images_.gemm_gated_f32(p1 - p0, n, g.s.channels, xi + p0 * g.s.in_channels, g.s.in_channels, gate, wg + n0 * g.k(), y + at, g.s.out_channels, e, work);
                }
                t_.conv_nhwc_f32(g.s, xi + ig * g.s.channels, wg + n0 * g.k(), p0, p1, n, y + at, g.s.out_channels, e, work);
            } else {
                std::int64_t blocks = ceil_div(g.m, t_.row_block), at = image * g.y_image() + ig * g.m * pixels;
                if (bias) e.bias_col = bias + ig * g.m;
                if (e.residual) e.residual += at;
                t_.conv_nchw_f32(g.s, xi + ig * g.s.channels * plane, wg, g.m, in_ * q.tile_n, std::min(blocks, (in_ + 1) * q.tile_n), p0,
                                 p1, y + at, e, work);
            }
        });
    }
    void run_depthwise(const Call& call, const Plan& q, const float* w, const float* bias, const vec::Epilogue& base) const {
        const Geometry& g = q.g;
        vec::ConvShape s = g.s;
        s.channels = g.group;
        const auto* x = call.in[0].in<float>();
        auto* y = call.out[0].out<float>();
        std::int64_t rows = s.out[0] * s.out[1];
        if (q.by_rows) {
            auto* zeros = reinterpret_cast<float*>(call.scratch);
            std::fill_n(zeros, s.in[2] * s.in_channels, 0.f);
            return call.workers.for_each(g.images * q.tiles_p * q.tiles_n, [&](std::int64_t t) {
                std::int64_t image = t / (q.tiles_p * q.tiles_n), r0 = t / q.tiles_n % q.tiles_p * q.tile_p, c0 = t % q.tiles_n * q.tile_n;
                const float* from = x + image * g.x_image() + c0;
                const std::int64_t r1 = std::min(rows, r0 + q.tile_p), pair = s.dilation[1] == 1 && s.stride[1] <= s.kernel[1] ? 2 : 1;
                vec::ConvShape part = s;
                part.channels = std::min(q.tile_n, g.group - c0);
                for (std::int64_t r = r0, n = 0; r < r1; r += n) {
                    n = std::min(pair, r1 - r);
                    const float* taps[2 * most_rows];
                    for (std::int64_t i = 0; i < (n - 1) * s.stride[1] + s.kernel[1]; ++i) {
                        std::int64_t h = r * s.stride[1] - s.pad[1] + i * s.dilation[1];
                        taps[i] = h < 0 || h >= s.in[1] ? zeros : from + h * s.in[2] * s.in_channels;
                    }
                    std::int64_t y_row = s.out[2] * s.out_channels, at = image * g.y_image() + r * y_row + c0;
                    vec::Epilogue e = base;
                    e.bias_row = bias ? bias + c0 : nullptr;
                    if (e.residual) e.residual += at;
                    images_.depthwise_rows_f32(part, n, taps, w + c0, g.group, y + at, y_row, e);
                }
            });
        }
        call.workers.for_each(g.images * q.tiles_p, [&](std::int64_t t) {
            std::int64_t image = t / q.tiles_p, r0 = t % q.tiles_p * q.tile_p;
            vec::Epilogue e = base;
            e.bias_row = bias;
            if (e.residual) e.residual += image * g.y_image();
            t_.depthwise_nhwc_f32(s, x + image * g.x_image(), w, r0, std::min(rows, r0 + q.tile_p), y + image * g.y_image(), e);
        });
    }
    void run_planes(const Call& call, const Plan& q, const float* w, const float* bias, const vec::Epilogue& base) const {
        const Geometry& g = q.g;
        const vec::ConvShape& s = g.s;
        const auto* x = call.in[0].in<float>();
        auto* y = call.out[0].out<float>();
        std::int64_t pixels = s.pixels_out(), planes = g.images * s.out_channels;
        std::int64_t grain = std::max<std::int64_t>(1, (64 << 10) / std::max<std::int64_t>(1, pixels * s.taps()));
        call.workers.ranges(planes, grain, [&](std::int64_t b, std::int64_t end) {
            for (std::int64_t i = b; i < end; ++i) {
                std::int64_t image = i / s.out_channels, channel = i % s.out_channels;
                float* o = y + i * pixels;
                std::fill(o, o + pixels, bias ? bias[channel] : 0.f);
                t_.depthwise_f32(x + image * g.x_image() + channel / g.m * s.pixels_in(), s.in[1], s.in[2], w + channel * s.taps(), s.kernel[1],
                                 s.kernel[2], s.stride[1], s.stride[2], s.dilation[1], s.dilation[2], s.pad[1], s.pad[2], o, s.out[1], s.out[2]);
                vec::Epilogue e = base;
                if (e.residual) e.residual += i * pixels;
                t_.finish_f32(o, pixels, e);
            }
        });
    }
    void run_f64(const Call& call, const Plan& q) const {
        const Geometry& g = q.g;
        const vec::ConvShape& s = g.s;
        const auto* x = call.in[0].in<double>();
        const double* w = p_.w.defined() ? static_cast<const double*>(p_.w.raw()) : call.in[1].in<double>();
        const double* bias = p_.has_bias && call.in.size() > 2 && call.in[2].present() ? call.in[2].in<double>() : nullptr;
        const double* residual = p_.has_residual && call.in.size() > 3 ? call.in[3].in<double>() : nullptr;
        auto* y = call.out[0].out<double>();
        call.workers.for_each(g.images * s.out_channels, [&](std::int64_t plane) {
            std::int64_t image = plane / s.out_channels, channel = plane % s.out_channels;
            const double* xi = x + image * g.x_image() + channel / g.m * s.channels * s.pixels_in();
            const double* wk = w + channel * g.k();
            for (std::int64_t p = 0; p < s.pixels_out(); ++p) {
                std::int64_t at[3] = {p / (s.out[1] * s.out[2]), p / s.out[2] % s.out[1], p % s.out[2]};
                for (int d = 0; d < 3; ++d) at[d] = at[d] * s.stride[d] - s.pad[d];
                double v = one_f64(s, xi, wk, at) + (bias ? bias[channel] : 0.0);
                y[plane * s.pixels_out() + p] = residual ? v + residual[plane * s.pixels_out() + p] : v;
            }
        });
    }
    static double one_f64(const vec::ConvShape& s, const double* x, const double* w, const std::int64_t* at) {
        double acc = 0;
        for (std::int64_t c = 0; c < s.channels; ++c)
            for (std::int64_t t = 0; t < s.taps(); ++t) {
                std::int64_t d = at[0] + t / (s.kernel[1] * s.kernel[2]) * s.dilation[0];
                std::int64_t h = at[1] + t / s.kernel[2] % s.kernel[1] * s.dilation[1], v = at[2] + t % s.kernel[2] * s.dilation[2];
                if (d < 0 || d >= s.in[0] || h < 0 || h >= s.in[1] || v < 0 || v >= s.in[2]) continue;
                acc += x[c * s.pixels_in() + (d * s.in[1] + h) * s.in[2] + v] * w[c * s.taps() + t];
            }
        return acc;
    }

    Problem p_;
    const vec::Table& t_;
    const vec::ImageTable& images_;
    Tensor packed_;
};

inline std::string refuse_core(const Problem& p, const Target&) {
    if (p.has_gate && (p.layout != Layout::nhwc || p.group != 1 || !p.w.defined() || !pointwise(p.window))) return "a gate goes with a pointwise convolution in nhwc";
    if (p.has_gate && p.w.shape()[0] == 1 && p.w.shape()[1] == 1) return "a gate of one channel";
    int n = p.window.spatial();
    if (n < 1 || n > 3) return std::to_string(n) + " spatial dimensions; 1 to 3 are accepted";
    if (p.dtype == DType::f32) return {};
    if (p.dtype != DType::f64) return std::string("type ") + dtype_name(p.dtype) + "; float and double are accepted";
    if (p.layout != Layout::nchw || p.post != vec::Post::none) return "double needs nchw and no fused function";
    return {};
}
inline std::unique_ptr<Kernel> make_core(const Problem& p, const Target& t) { return std::make_unique<CoreKernel>(p, t); }
inline constexpr Entry<Problem> conv_core{"conv.core", refuse_core, make_core};

/// The same kernel in nhwc, ranked above its nchw: gathering rows of channels is faster, small planes above all.
inline std::string refuse_core_nhwc(const Problem& p, const Target& t) {
    if (p.layout != Layout::nhwc) return "layout nchw; nhwc is accepted";
    return refuse_core(p, t);
}
inline constexpr Entry<Problem> conv_core_nhwc{"conv.core nhwc", refuse_core_nhwc, make_core};

}  // namespace conv
QUERN_END
