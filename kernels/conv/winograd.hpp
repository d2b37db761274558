// 3 x 3 convolutions with stride 1 in nhwc by Winograd's method: a half to a third of the time of the direct sum.
// Infinities and NaN in the input spread over the T x T outputs of their tile.
#pragma once
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <quern/base/ceil_div.hpp>
#include <quern/kernels/conv/geometry.hpp>
#include <quern/kernels/weights.hpp>

QUERN_BEGIN
namespace conv {

class WinogradKernel final : public Kernel {
public:
    WinogradKernel(const Problem& p, const Target& target) : p_(p), t_(vec::table(target.isa)) {
        shape_.channels = shape_.in_channels = p_.w.shape()[1];
        shape_.out_channels = p_.w.shape()[0];
        // F(4x4) has 4 times the bytes of weights: too many to read where channels are many and planes small. Where it would have 16 MB,
        // F(2x2) is at most 4 % slower over whole models (U-Net; VGG-16 1 %) and saves more than half of them.
        side_ = shape_.channels * shape_.out_channels >= 256 * 512 ? 2 : 4;
        std::int64_t points = (side_ + 2) * (side_ + 2);
        std::size_t floats = static_cast<std::size_t>(points * shape_.channels * shape_.out_channels), room = 1024;  // the room is read ahead
        packed_ = packed_weights(target, std::string("conv.winograd") + (side_ == 4 ? "4 " : "2 ") + t_.name, {p_.w}, (floats + room) * sizeof(float), [&](std::byte* to) {
            auto* u = reinterpret_cast<float*>(to);
            // A panel of output channels at a time, whose bytes may lie unaligned.
            vec::ConvShape panel = shape_;
            panel.out_channels = std::min(t_.panel, shape_.out_channels);
            std::vector<float> part(static_cast<std::size_t>(panel.out_channels * shape_.channels * 9));
            Consumption consumption(target.packs, p_.w);
            for (std::int64_t m = 0; m < shape_.out_channels; m += panel.out_channels) {
                const std::size_t at = static_cast<std::size_t>(m * shape_.channels * 9) * sizeof(float), bytes = part.size() * sizeof(float);
                std::memcpy(part.data(), static_cast<const std::byte*>(p_.w.raw()) + at, bytes);
                t_.winograd_weights_f32(panel, side_, part.data(), u + m * shape_.channels * points);
                consumption.until(at + bytes);
            }
            std::fill_n(u + floats, room, 0.f);
        });
        unread = 1u << 1;
        strided_in = 1u;
        strided_out = !p_.has_residual;
        p_.w = Tensor();
    }
    const char* name() const noexcept override { return side_ == 4 ? "conv.winograd4" : "conv.winograd2"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto q = std::make_shared<Plan>();
        q->g = resolve(p_, in, out[0]);
        const Geometry& g = q->g;
        q->tiles = ceil_div(g.s.out[1], side_) * ceil_div(g.s.out[2], side_);
        q->panels = g.m / t_.panel;
        q->blocks = ceil_div(q->tiles, 28);
        if (q->blocks > 2) q->blocks += q->blocks % 2;
        const std::size_t all = floats(t_.winograd_tile_floats(side_, std::max<std::int64_t>(1, q->tiles), g.s.channels));
        q->way = choose_way(*q, all, workers);
        q->most = std::max<std::int64_t>(1, q->way == Way::blocks ? ceil_div(q->tiles, std::max<std::int64_t>(1, q->blocks)) : q->tiles);
        q->v = floats(t_.winograd_tile_floats(side_, q->most, g.s.channels));
        q->work = floats(t_.winograd_work_floats(side_, q->most));
        q->zeros = floats(static_cast<std::size_t>(g.s.channels));
        Booking b;
        const std::size_t each = q->work + (q->way == Way::together ? 0 : q->v);
        constexpr std::size_t room = 1 << 20;  // floats that stay in the cache that the cores share
        if (q->way == Way::together) q->at_once = std::clamp<std::int64_t>(static_cast<std::int64_t>(room / std::max<std::size_t>(1, q->v)), 1, std::max<std::int64_t>(1, g.images));
        q->flags = floats(static_cast<std::size_t>(workers));
        b.scratch = (q->zeros + q->flags + (q->way == Way::together ? q->v * static_cast<std::size_t>(q->at_once) : 0) + each * static_cast<std::size_t>(workers)) * sizeof(float);
        b.state = std::move(q);
        return b;
    }
    void run(const Call& call) const override {
        const Plan& q = *static_cast<const Plan*>(call.state);
        const Geometry& g = q.g;
        if (g.images == 0 || q.tiles == 0) return;
        auto* zeros = reinterpret_cast<float*>(call.scratch);
        std::fill(zeros, zeros + q.zeros + q.flags, 0.f);
        float* rest = zeros + q.zeros + q.flags;
        if (q.way == Way::blocks) return run_blocks(call, q, rest, zeros);
        if (q.way == Way::apart) return run_apart(call, q, rest, zeros);
        for (std::int64_t image = 0; image < g.images; image += q.at_once) run_together(call, q, image, std::min(q.at_once, g.images - image), rest, zeros);
    }

private:
    enum class Way : std::uint8_t { blocks, apart, together };
    struct Plan {
        Geometry g;
        std::int64_t tiles = 0, panels = 0, blocks = 1, most = 1, at_once = 1;  ///< at_once: images
        Way way = Way::blocks;
        std::size_t v = 0, work = 0, zeros = 0, flags = 0;  ///< floats
    };
    /// `all`: floats of an image's transformed tiles.
    Way choose_way(const Plan& q, std::size_t all, int workers) const {
        // What another core wrote is slow to get. So each worker does both steps for blocks of its own where there are enough of them and the
        // weights, which each then reads all of, are few or are used often.
        constexpr std::size_t light = 4 << 20, room = 1 << 20;  // bytes
        constexpr std::int64_t often = 4;
        if (q.blocks > 2 || (q.blocks * q.g.images >= workers && (packed_.bytes() <= light || q.g.images >= often))) return Way::blocks;
        // Else panels of weights are shared out. A few workers then better transform all tiles each than get half of them from elsewhere.
        constexpr int few = 4;
        return workers <= few && q.panels >= 2 * workers && q.g.images == 1 && all * sizeof(float) <= room ? Way::apart : Way::together;
    }
    struct Part {
        const float* x;
        float* y;
        vec::Epilogue e;
        const float* zeros;
    };
    static std::size_t floats(std::size_t n) { return (n + 15) / 16 * 16; }

    Part part(const Call& call, const Plan& q, std::int64_t image, const float* zeros) const {
        const Geometry& g = q.g;
        Part part{call.in[0].in<float>() + image * g.x_image(), call.out[0].out<float>() + image * g.y_image(), {}, zeros};
        part.e.post = p_.post;
        part.e.alpha = p_.post_alpha;
        part.e.beta = p_.post_beta;
        if (p_.has_bias && call.in[2].present()) part.e.bias_row = call.in[2].in<float>();
        if (p_.has_residual) part.e.residual = call.in[3].in<float>() + image * g.y_image();
        return part;
    }
    /// Some images, so that a panel of weights is read once for all of them.
    void run_together(const Call& call, const Plan& q, std::int64_t first, std::int64_t images, float* rest, const float* zeros) const {
        constexpr std::int64_t some = 4;
        const std::int64_t pieces = ceil_div(q.tiles, some);
        call.workers.for_each(images * pieces, [&](std::int64_t i) {
            std::int64_t t0 = i % pieces * some, t1 = std::min(q.tiles, t0 + some), k = i / pieces;
            t_.winograd_input_f32(q.g.s, side_, part(call, q, first + k, zeros).x, t0, t1, t0, q.most, rest + static_cast<std::size_t>(k) * q.v, zeros);
        });
        // Few panels are shared out by tiles too, in pieces that still fill most rows of a micro-tile.
        const std::int64_t each = panels_of_task(q), parts = ceil_div(q.panels, each);
        const std::int64_t cuts = std::clamp<std::int64_t>(std::min(ceil_div(4, parts), q.tiles / 8), 1, 4);
        call.workers.for_each(cuts * parts, [&](std::int64_t i, int worker) {
            float* work = rest + static_cast<std::size_t>(q.at_once) * q.v + static_cast<std::size_t>(worker) * q.work;
            const std::int64_t t0 = q.tiles * (i / parts) / cuts, t1 = q.tiles * (i / parts + 1) / cuts, p0 = i % parts * each;
            for (std::int64_t p = p0; p < std::min(q.panels, p0 + each); ++p)
                for (std::int64_t k = 0; k < images; ++k) {
                    Part a = part(call, q, first + k, zeros);
                    t_.winograd_output_f32(q.g.s, side_, rest + static_cast<std::size_t>(k) * q.v, weights(), t0, t0, t1 - t0, q.most, p, p + 1, a.y, a.e, work);
                }
        });
    }
    /// One image, of which each worker that takes part transforms all tiles.
    void run_apart(const Call& call, const Plan& q, float* rest, const float* zeros) const {
        float* done = rest - q.flags;
        const Part a = part(call, q, 0, zeros);
        const std::int64_t each = panels_of_task(q), parts = ceil_div(q.panels, each);
        call.workers.for_each(parts, [&](std::int64_t i, int worker) {
            float* v = rest + static_cast<std::size_t>(worker) * (q.v + q.work);
            if (std::exchange(done[worker], 1.f) == 0.f) t_.winograd_input_f32(q.g.s, side_, a.x, 0, q.tiles, 0, q.most, v, a.zeros);
            t_.winograd_output_f32(q.g.s, side_, v, weights(), 0, 0, q.tiles, q.most, i * each, std::min(q.panels, (i + 1) * each), a.y, a.e, v + q.v);
        });
    }
    static std::int64_t panels_of_task(const Plan& q) { return std::max<std::int64_t>(1, q.panels / 8); }
    void run_blocks(const Call& call, const Plan& q, float* rest, const float* zeros) const {
        call.workers.for_each(q.g.images * q.blocks, [&](std::int64_t t, int worker) {
            Part a = part(call, q, t / q.blocks, zeros);
            float* v = rest + static_cast<std::size_t>(worker) * (q.v + q.work);
            std::int64_t i = t % q.blocks, t0 = q.tiles * i / q.blocks, t1 = q.tiles * (i + 1) / q.blocks;
            t_.winograd_input_f32(q.g.s, side_, a.x, t0, t1, 0, q.most, v, a.zeros);
            t_.winograd_output_f32(q.g.s, side_, v, weights(), t0, 0, t1 - t0, q.most, 0, q.panels, a.y, a.e, v + q.v);
        });
    }
    const float* weights() const { return static_cast<const float*>(packed_.raw()); }

    Problem p_;
    const vec::Table& t_;
    vec::ConvShape shape_{};
    int side_;
    Tensor packed_;
};

inline std::string refuse_winograd(const Problem& p, const Target& t) {
    auto all = [](const std::vector<std::int64_t>& v, std::int64_t x) {
        for (std::int64_t i : v)
            if (i != x) return false;
        return true;
    };
    if (!t.winograd) return "Options::winograd is off";
    if (p.has_gate) return "a gate";
    if (p.dtype != DType::f32) return std::string("type ") + dtype_name(p.dtype) + "; float is accepted";
    if (p.layout != Layout::nhwc) return "layout nchw; nhwc is accepted";
    if (p.window.spatial() != 2 || !all(p.window.kernel, 3) || !all(p.window.strides, 1) || !all(p.window.dilations, 1))
        return "not a 3 x 3 kernel with stride and dilation 1";
    if (p.group != 1) return std::to_string(p.group) + " groups; 1 is accepted";
    if (!p.w.defined()) return "weights are not constant";
    std::int64_t c = p.w.shape()[1], m = p.w.shape()[0];
    if (c < 16 || c % 16 != 0 || m < 32 || m % 32 != 0) return std::to_string(c) + " to " + std::to_string(m) + " channels; multiples of 16 and 32 are accepted";
    if (vec::table(t.isa).isa == Isa::baseline) return "instruction set baseline; avx2 or avx512 is needed";
    return {};
}
inline std::unique_ptr<Kernel> make_winograd(const Problem& p, const Target& t) { return std::make_unique<WinogradKernel>(p, t); }
inline constexpr Entry<Problem> conv_winograd{"conv.winograd", refuse_winograd, make_winograd};

}  // namespace conv
QUERN_END
