// Convolutions by oneDNN, nhwc, cut into quern's own tiles: rows of the first spatial dimension, each its own
// primitive over an offset into the same buffers.
#include <quern/kernels/conv/core.hpp>
#include <quern/kernels/onednn/onednn.hpp>

QUERN_BEGIN
namespace conv {
namespace onednn_impl {

using dnnl::memory;
using Tag = memory::format_tag;
using Dims = memory::dims;
using onednn::Made;

struct Tile {
    std::int64_t made, x, y;  ///< primitive, first float of the tile within an image
};
struct State {
    std::vector<std::shared_ptr<const Made>> made;
    std::vector<Tile> tiles;
    std::int64_t images = 0, x_image = 0, y_image = 0;
    std::size_t scratch = 0;               ///< of one worker
    std::vector<onednn::Bound> bound;      ///< [worker][made]
    std::unique_ptr<Kernel> fallback;      ///< where no implementation takes the shape
    Booking fallback_booking;
};

/// Layouts of weights to try, best first; one is forced for all shapes.
inline std::vector<Tag> weight_tags(int spatial, bool grouped, bool depthwise) {
    switch (spatial) {
        case 1: return grouped ? std::vector<Tag>{depthwise ? Tag::Goiw16g : Tag::wigo, depthwise ? Tag::Goiw8g : Tag::gOIw8i8o, Tag::wigo} : std::vector<Tag>{Tag::wio, Tag::OIw16i16o, Tag::Owi16o, Tag::OIw8i8o, Tag::Owi8o};
        case 2: return grouped ? std::vector<Tag>{depthwise ? Tag::Goihw16g : Tag::hwigo, depthwise ? Tag::Goihw8g : Tag::gOIhw8i8o, Tag::hwigo} : std::vector<Tag>{Tag::hwio, Tag::OIhw16i16o, Tag::Ohwi16o, Tag::OIhw8i8o, Tag::Ohwi8o};
        default: return grouped ? std::vector<Tag>{Tag::dhwigo} : std::vector<Tag>{Tag::dhwio, Tag::OIdhw16i16o, Tag::OIdhw8i8o};
    }
}
inline Tag data_tag(int spatial) { return spatial == 1 ? Tag::nwc : spatial == 2 ? Tag::nhwc : Tag::ndhwc; }
inline Tag plain_weights(int spatial, bool grouped) {
    if (grouped) return spatial == 1 ? Tag::goiw : spatial == 2 ? Tag::goihw : Tag::goidhw;
    return spatial == 1 ? Tag::oiw : spatial == 2 ? Tag::oihw : Tag::oidhw;
}
/// [group,] out, in, kernel...
inline Dims weight_dims(const Problem& p) {
    Shape s = p.w.shape();
    Dims d;
    if (p.group > 1) d = {p.group, s[0] / p.group, s[1]};
    else d = {s[0], s[1]};
    for (std::size_t i = 2; i < s.size(); ++i) d.push_back(s[i]);
    return d;
}
/// The primitive for one tile: dims of x, y [N, C, d...], pads before and after. Null: none within the cap.
inline std::shared_ptr<const Made> make_primitive(const Problem& p, Isa cap, const dnnl::engine& engine, const memory::desc& w, const Dims& x,
                                                  const Dims& y, const Dims& before, const Dims& after) {
    onednn::OneThread one;  // a primitive is planned for the threads that there are when it is made
    auto m = std::make_shared<Made>();
    int spatial = p.window.spatial();
    m->x = memory::desc(x, memory::data_type::f32, data_tag(spatial));
    m->y = memory::desc(y, memory::data_type::f32, data_tag(spatial));
    m->w = w;
    m->has_bias = p.has_bias;
    m->has_residual = p.has_residual;
    m->residual = m->y;
    if (p.has_bias) m->b = memory::desc({y[1]}, memory::data_type::f32, Tag::a);
    Dims strides = p.window.strides, dilations;
    for (std::int64_t d : p.window.dilations) dilations.push_back(d - 1);
    dnnl::primitive_attr attr = onednn::attributes(p.post, p.post_alpha, p.post_beta, p.has_residual ? &m->y : nullptr);
    dnnl::convolution_forward::primitive_desc pd(engine, dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, m->x, w,
                                                 m->b, m->y, strides, dilations, before, after, attr, true);
    if (!onednn::settle(pd, cap)) return nullptr;
    m->scratch = pd.scratchpad_desc();
    m->primitive = dnnl::convolution_forward(pd);
    return m;
}
/// The forced layout of weights: the first that a plane of ordinary size takes within the cap.
inline memory::desc find_layout(const Problem& p, Isa cap, const dnnl::engine& engine) {
    int n = p.window.spatial();
    std::int64_t channels = p.w.shape()[1] * p.group, m = p.w.shape()[0];
    Dims x{1, channels}, y{1, m}, zero(static_cast<std::size_t>(n), 0);
    for (int d = 0; d < n; ++d) {
        std::int64_t out = n == 3 ? 6 : 14;
        x.push_back((out - 1) * p.window.strides[d] + (p.window.kernel[d] - 1) * p.window.dilations[d] + 1);
        y.push_back(out);
    }
    for (Tag tag : weight_tags(n, p.group > 1, channels == p.group && m == p.group)) {
        memory::desc w(weight_dims(p), memory::data_type::f32, tag);
        if (make_primitive(p, cap, engine, w, x, y, zero, zero)) return w;
    }
    return {};
}

/// The same, found once in a process: passes and plan ask several times for each convolution. Never destroyed, as nothing global is.
struct Layouts {
    std::mutex lock;
    std::map<std::vector<std::int64_t>, memory::desc> known;
};
inline memory::desc choose_layout(const Problem& p, Isa cap, const dnnl::engine& engine) {
    static auto* layouts = new Layouts;
    std::vector<std::int64_t> key{static_cast<std::int64_t>(cap), p.group, static_cast<std::int64_t>(p.post), p.has_bias, p.has_residual};
    for (auto* v : {&p.window.kernel, &p.window.strides, &p.window.dilations}) key.insert(key.end(), v->begin(), v->end());
    key.insert(key.end(), p.w.shape().begin(), p.w.shape().end());
    {
        std::lock_guard l(layouts->lock);
        if (auto it = layouts->known.find(key); it != layouts->known.end()) return it->second;
    }
    memory::desc found = find_layout(p, cap, engine);
    std::lock_guard l(layouts->lock);
    if (layouts->known.size() >= 1024) layouts->known.clear();
    layouts->known.emplace(std::move(key), found);
    return found;
}

class OnednnKernel final : public Kernel {
public:
    OnednnKernel(const Problem& p, const Target& t) : p_(p), target_{t.isa, {}, nullptr}, engine_(dnnl::engine::kind::cpu, 0) {
        w_ = choose_layout(p_, t.isa, engine_);
        p_.w = aligned_weights(t, p_.w);
        memory::desc plain(weight_dims(p_), memory::data_type::f32, plain_weights(p_.window.spatial(), p_.group > 1));
        packed_ = onednn::packed(t, "conv.onednn", engine_, plain, p_.w, w_);
        unread = 1u << 1;
    }
    const char* name() const noexcept override { return "conv.onednn"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }

    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto s = std::make_shared<State>();
        Booking b;
        if (out[0].count() > 0 && !cut(in, out[0], *s)) {
            s->fallback = std::make_unique<CoreKernel>(p_, target_);
            s->fallback_booking = s->fallback->book(in, out, workers);
            b.scratch = s->fallback_booking.scratch;
        } else {
            for (const auto& m : s->made) s->scratch = std::max(s->scratch, (m->scratch.get_size() + 63) / 64 * 64);
            for (int w = 0; w < workers; ++w)
                for (const auto& m : s->made) s->bound.emplace_back(*m, engine_);
            b.scratch = s->scratch * static_cast<std::size_t>(workers);
        }
        b.state = std::move(s);
        return b;
    }
    void run(const Call& call) const override {
        // The state belongs to one session, which runs one call at a time.
        auto& s = *const_cast<State*>(static_cast<const State*>(call.state));
        if (s.fallback) {
            Call inner{call.in, call.out, call.scratch, s.fallback_booking.state.get(), call.workers};
            return s.fallback->run(inner);
        }
        std::int64_t tiles = static_cast<std::int64_t>(s.tiles.size()), made = static_cast<std::int64_t>(s.made.size());
        const auto* x = call.in[0].in<float>();
        auto* y = call.out[0].out<float>();
        const float* bias = p_.has_bias ? call.in[2].in<float>() : nullptr;
        const float* residual = p_.has_residual ? call.in[3].in<float>() : nullptr;
        call.workers.for_each(s.images * tiles, [&](std::int64_t i, int worker) {
            onednn::OneThread one;
            const Tile& t = s.tiles[static_cast<std::size_t>(i % tiles)];
            std::int64_t at = i / tiles * s.y_image + t.y;
            s.bound[static_cast<std::size_t>(worker * made + t.made)].run(x + i / tiles * s.x_image + t.x, packed_.raw(), bias,
                                                                          residual ? residual + at : nullptr, y + at,
                                                                          call.scratch + static_cast<std::size_t>(worker) * s.scratch);
        });
    }

private:
    /// Fills in tiles and primitives; false where the shape is not taken.
    bool cut(std::span<const View> in, const View& out, State& s) const {
        Geometry g = resolve(p_, in, out);
        int n = p_.window.spatial(), first = 3 - n;
        s.images = g.images;
        s.x_image = g.x_image();
        s.y_image = g.y_image();
        std::int64_t rows = g.s.out[first], row_x = g.s.in_channels, row_y = g.s.out_channels, size = g.s.in[first];
        if (g.s.in_channels == 0 || size == 0) return false;
        if (g.images * g.s.pixels_out() <= 4) return false;  // gates of one pixel: a primitive takes longer to call than they take
        for (int d = first + 1; d < 3; ++d) row_x *= g.s.in[d], row_y *= g.s.out[d];
        // A tile is worth some 10 us of arithmetic and memory traffic; where rows overlap it has at least 4.
        std::int64_t work = g.s.pixels_out() * g.s.out_channels * g.k() + 4 * (g.x_image() + g.y_image()), least = p_.window.kernel[0] > p_.window.strides[0] ? 4 : 2;
        std::int64_t tiles = std::clamp<std::int64_t>((work + (1 << 19)) >> 20, 1, std::max<std::int64_t>(1, rows / least));
        std::int64_t stride = p_.window.strides[0], reach = (p_.window.kernel[0] - 1) * p_.window.dilations[0] + 1, pad = g.s.pad[first];
        for (std::int64_t t = 0; t < tiles; ++t) {
            std::int64_t r0 = rows * t / tiles, r1 = rows * (t + 1) / tiles, i0 = r0 * stride - pad, i1 = (r1 - 1) * stride - pad + reach;
            std::int64_t x0 = std::max<std::int64_t>(i0, 0), x1 = std::min(i1, size);
            if (x0 >= x1) return false;
            Dims x{1, g.s.in_channels, x1 - x0}, y{1, g.s.out_channels, r1 - r0}, before{x0 - i0}, after{i1 - x1};
            for (int d = first + 1; d < 3; ++d) {
                x.push_back(g.s.in[d]);
                y.push_back(g.s.out[d]);
                before.push_back(g.s.pad[d]);
                after.push_back(std::max<std::int64_t>(0, (g.s.out[d] - 1) * g.s.stride[d] + (g.s.kernel[d] - 1) * g.s.dilation[d] + 1 - g.s.in[d] - g.s.pad[d]));
            }
            onednn::Cache::Key key{x[2], y[2], before[0], after[0]};
            for (int d = 1; d < n; ++d) key[4 * d] = x[2 + d], key[4 * d + 1] = y[2 + d], key[4 * d + 2] = before[d], key[4 * d + 3] = after[d];
            auto made = cache_.get(key, [&] { return make_primitive(p_, target_.isa, engine_, w_, x, y, before, after); });
            if (!made) return false;
            auto at = std::find(s.made.begin(), s.made.end(), made);
            s.tiles.push_back({at - s.made.begin(), x0 * row_x, r0 * row_y});
            if (at == s.made.end()) s.made.push_back(std::move(made));
        }
        return true;
    }

    Problem p_;  ///< its weights stay as the model has them: the fallback packs them
    Target target_;
    dnnl::engine engine_;
    memory::desc w_;
    Tensor packed_;
    mutable onednn::Cache cache_;
};

static std::string refuse(const Problem& p, const Target& t) {
    int n = p.window.spatial();
    if (t.isa == Isa::baseline) return "oneDNN has nothing but references within the baseline instruction set";
    if (p.dtype != DType::f32) return std::string("type ") + dtype_name(p.dtype) + "; float is accepted";
    if (p.layout != Layout::nhwc) return "layout nchw; nhwc is accepted";
    if (n < 1 || n > 3) return std::to_string(n) + " spatial dimensions; 1 to 3 are accepted";
    for (auto* list : {&p.window.kernel, &p.window.strides, &p.window.pads, &p.window.dilations})
        for (std::int64_t v : *list)
            if (v > 1 << 20) return "a window of " + std::to_string(v) + "; oneDNN divides by what overflows in it";
    if (!p.w.defined()) return "weights are not constant";
    if (p.w.count() == 0) return "no weights";
    if (p.has_gate) return "a gate";
    if (p.group == 1 && pointwise(p.window)) return "a product of pixels; conv.core reads them in place";
    std::int64_t channels = p.w.shape()[1], outputs = p.w.shape()[0] / std::max<std::int64_t>(1, p.group);
    if (channels >= 64 && outputs >= 32)  // measured: equal on large planes, 10 to 60 % slower on 14 x 14 and 7 x 7
        return std::to_string(channels) + " to " + std::to_string(outputs) + " channels a group; conv.core is as fast and cuts small planes finer";
    const Window& w = p.window;
    const std::int64_t side = n == 2 && w.kernel[0] == w.kernel[1] && w.strides[0] == w.strides[1] && w.dilations[0] == 1 && w.dilations[1] == 1 ? w.kernel[0] : 0;
    if (p.group > 1 && channels == 1 && outputs == 1 && t.isa == Isa::avx512 && ((side == 3 || side == 5) ? w.strides[0] <= 2 : side == 7 && w.strides[0] == 1))
        return "depthwise, " + std::to_string(side) + " x " + std::to_string(side) + "; conv.core is at 70 to 95 % of the FMA peak";
    if (p.group == 1 && w.kernel == w.strides && std::all_of(w.dilations.begin(), w.dilations.end(), [](std::int64_t d) { return d == 1; }))
        return "patches that do not overlap; conv.core is as fast";  // measured: 3 channels, 16 x 16 and 32 x 32
    if (std::string why = onednn::refusal(); !why.empty()) return why;
    dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    if (choose_layout(p, t.isa, engine).is_zero()) return std::string("no implementation within ") + isa_name(t.isa) + " but references";
    return {};
}
static std::unique_ptr<Kernel> make(const Problem& p, const Target& t) { return std::make_unique<OnednnKernel>(p, t); }

}  // namespace onednn_impl

extern const Entry<Problem> conv_onednn;
const Entry<Problem> conv_onednn{"conv.onednn", onednn_impl::refuse, onednn_impl::make};

}  // namespace conv
QUERN_END
