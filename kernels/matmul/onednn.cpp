// Matrix products by oneDNN with constant weights, cut into quern's own tiles of rows and columns.
#include <quern/kernels/matmul/core.hpp>
#include <quern/kernels/onednn/onednn.hpp>

QUERN_BEGIN
namespace matmul {
namespace onednn_impl {

using dnnl::memory;
using Tag = memory::format_tag;
using onednn::Made;
constexpr auto f32 = memory::data_type::f32;

/// Columns of a tile are whole blocks of the layout, so that a tile of the packed weights is one piece.
constexpr std::int64_t block = 64;

struct Tile {
    std::int64_t made, m0, n0;
};
struct State {
    Geometry g;
    std::vector<std::shared_ptr<const Made>> made;
    std::vector<Tile> tiles;
    std::size_t scratch = 0;
    std::vector<onednn::Bound> bound;  ///< [worker][made]
    std::unique_ptr<Kernel> fallback;
    Booking fallback_booking;
};

inline std::shared_ptr<const Made> make_primitive(const Problem& p, Isa cap, const dnnl::engine& engine, Tag weights, std::int64_t m,
                                                  std::int64_t n, std::int64_t k, std::int64_t ldc) {
    onednn::OneThread one;  // a primitive is planned for the threads that there are when it is made
    auto made = std::make_shared<Made>();
    made->x = memory::desc({m, k}, f32, Tag::ab);
    made->w = memory::desc({k, n}, f32, weights);
    made->y = memory::desc({m, n}, f32, memory::dims{ldc, 1});
    made->has_bias = p.has_bias;
    made->has_residual = p.has_residual;
    made->residual = made->y;
    if (p.has_bias) made->b = memory::desc({1, n}, f32, Tag::ab);
    auto attr = onednn::attributes(p.post, p.post_alpha, p.post_beta, p.has_residual ? &made->residual : nullptr);
    dnnl::matmul::primitive_desc pd = p.has_bias ? dnnl::matmul::primitive_desc(engine, made->x, made->w, made->b, made->y, attr, true)
                                                 : dnnl::matmul::primitive_desc(engine, made->x, made->w, made->y, attr, true);
    if (!onednn::settle(pd, cap)) return nullptr;
    made->scratch = pd.scratchpad_desc();
    made->primitive = dnnl::matmul(pd);
    return made;
}
/// The forced layout: the first that few and many rows take within the cap.
inline Tag choose_layout(const Problem& p, Isa cap, std::int64_t n, std::int64_t k) {
    dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    std::int64_t wide = std::min<std::int64_t>(n, 128);
    for (Tag tag : {Tag::BA16a64b, Tag::ab})
        if (make_primitive(p, cap, engine, tag, 128, wide, k, n) && make_primitive(p, cap, engine, tag, 1, wide, k, n)) return tag;
    return Tag::undef;
}
inline std::int64_t rows_of_b(const Problem& p) { return p.trans_b ? p.b.shape()[1] : p.b.shape()[0]; }
inline std::int64_t columns_of_b(const Problem& p) { return p.trans_b ? p.b.shape()[0] : p.b.shape()[1]; }

class OnednnKernel final : public Kernel {
public:
    OnednnKernel(const Problem& p, const Target& t)
        : p_(p), target_{t.isa, {}, nullptr}, engine_(dnnl::engine::kind::cpu, 0), n_(columns_of_b(p)), k_(rows_of_b(p)) {
        tag_ = choose_layout(p_, t.isa, n_, k_);
        p_.b = p_.b.aligned();
        packed_ = onednn::packed(t, p_.trans_b ? "matmul.onednn t" : "matmul.onednn", engine_, memory::desc({k_, n_}, f32, p_.trans_b ? Tag::ba : Tag::ab), p_.b,
                                 memory::desc({k_, n_}, f32, tag_));
        unread = 1u << 1;
    }
    const char* name() const noexcept override { return "matmul.onednn"; }
    std::size_t packed_bytes() const noexcept override { return packed_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto s = std::make_shared<State>();
        Booking b;
        s->g = resolve(p_, in, true);
        bool row = s->g.bias == Bias::none || (s->g.bias == Bias::row && in[2].dim(-1) == n_);
        if (out[0].count() > 0 && (!row || !cut(*s))) {
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
        auto& s = *const_cast<State*>(static_cast<const State*>(call.state));  // belongs to one session
        if (s.fallback) return s.fallback->run(Call{call.in, call.out, call.scratch, s.fallback_booking.state.get(), call.workers});
        const auto* a = call.in[0].in<float>();
        auto* y = call.out[0].out<float>();
        const float* bias = p_.has_bias ? call.in[2].in<float>() : nullptr;
        const float* residual = p_.has_residual ? call.in[3].in<float>() : nullptr;
        const auto* w = static_cast<const float*>(packed_.raw());
        std::int64_t deep = tag_ == Tag::ab ? 1 : (k_ + 15) / 16 * 16, made = static_cast<std::int64_t>(s.made.size());
        call.workers.for_each(static_cast<std::int64_t>(s.tiles.size()), [&](std::int64_t i, int worker) {
            onednn::OneThread one;
            const Tile& t = s.tiles[static_cast<std::size_t>(i)];
            std::int64_t at = t.m0 * n_ + t.n0;
            s.bound[static_cast<std::size_t>(worker * made + t.made)].run(a + t.m0 * k_, w + t.n0 * deep, bias ? bias + t.n0 : nullptr,
                                                                          residual ? residual + at : nullptr, y + at,
                                                                          call.scratch + static_cast<std::size_t>(worker) * s.scratch);
        });
    }

private:
    bool cut(State& s) const {
        const Geometry& g = s.g;
        if (g.batch != 1 || g.m <= 0) return g.m * g.batch == 0;
        std::int64_t tiles_m = g.m > 160 ? (g.m + 127) / 128 : 1, wide = n_;
        if (tag_ != Tag::ab) {  // some 12 M multiply-adds or 1 MB of weights
            std::int64_t rows = (g.m + tiles_m - 1) / tiles_m;
            wide = std::max<std::int64_t>(std::min((12 << 20) / (rows * k_ + 1), (256 << 10) / k_ * (rows < 16 ? 1 : 64)), 1);
            wide = std::min((wide + block - 1) / block * block, (n_ + block - 1) / block * block);
        }
        for (std::int64_t t = 0; t < tiles_m; ++t)
            for (std::int64_t n0 = 0; n0 < n_; n0 += wide) {
                std::int64_t m0 = g.m * t / tiles_m, m = g.m * (t + 1) / tiles_m - m0, n = std::min(wide, n_ - n0);
                auto made = cache_.get({m, n}, [&] { return make_primitive(p_, target_.isa, engine_, tag_, m, n, k_, n_); });
                if (!made) return false;
                auto at = std::find(s.made.begin(), s.made.end(), made);
                s.tiles.push_back({at - s.made.begin(), m0, n0});
                if (at == s.made.end()) s.made.push_back(std::move(made));
            }
        return true;
    }

    Problem p_;  ///< its weights stay as the model has them: the fallback packs them
    Target target_;
    dnnl::engine engine_;
    std::int64_t n_, k_;
    Tag tag_ = Tag::undef;
    Tensor packed_;
    mutable onednn::Cache cache_;
};

static std::string refuse(const Problem& p, const Target& t) {
    if (t.isa == Isa::baseline) return "oneDNN has nothing but references within the baseline instruction set";
    if (p.dtype != DType::f32) return std::string("type ") + dtype_name(p.dtype) + "; float is accepted";
    if (!p.b.defined()) return "B is not constant";
    if (p.b.shape().rank() != 2) return "B of rank " + std::to_string(p.b.shape().rank()) + "; 2 is accepted";
    if (p.trans_a) return "A transposed";
    if (p.alpha != 1.f) return "alpha is not 1";
    if (p.factors.defined()) return "factors of the columns";
    if (p.b.count() == 0 || columns_of_b(p) < 8) return "B has " + std::to_string(columns_of_b(p)) + " columns; 8 or more are accepted";
    if (std::string why = onednn::refusal(); !why.empty()) return why;
    if (choose_layout(p, t.isa, columns_of_b(p), rows_of_b(p)) == Tag::undef)
        return std::string("no implementation within ") + isa_name(t.isa) + " but references";
    return {};
}
static std::unique_ptr<Kernel> make(const Problem& p, const Target& t) { return std::make_unique<OnednnKernel>(p, t); }

}  // namespace onednn_impl

extern const Entry<Problem> matmul_onednn;
const Entry<Problem> matmul_onednn{"matmul.onednn", onednn_impl::refuse, onednn_impl::make};

}  // namespace matmul
QUERN_END
