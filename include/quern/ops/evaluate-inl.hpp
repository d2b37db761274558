#pragma once
#include "../base/guard.hpp"
#include "../base/thread_pool.hpp"
#include "evaluate.hpp"

QUERN_BEGIN

QUERN_INLINE DType compute_type(const OpDef& op, DType t) noexcept {
    if (op.compute == Compute::any || t == DType::undefined || t == DType::string || t == DType::c64 || t == DType::c128) return t;
    if (op.compute == Compute::f32) return DType::f32;
    if (t == DType::f32 || t == DType::f64) return t;
    if (is_float(t)) return DType::f32;
    if (op.compute == Compute::real) return t;  // integers where only floats are computed: infer refuses them
    if (t == DType::i32 || t == DType::i64) return t;
    return t == DType::u32 || t == DType::u64 ? DType::i64 : DType::i32;
}

namespace detail {
QUERN_INLINE View view_of(const Tensor& t) {
    return View{t.dtype(), static_cast<std::int32_t>(t.shape().rank()), t.shape().data(), const_cast<void*>(t.raw())};
}
QUERN_INLINE bool is_addressable(std::span<const std::int64_t> dims) noexcept {
    constexpr std::int64_t most_beside_zero = std::int64_t{1} << 30;
    if (dims.size() > 64) return false;
    std::int64_t n = 128;
    bool empty = false;
    for (std::int64_t d : dims) {
        empty = empty || d == 0;
        if (d < 0 || (d && __builtin_mul_overflow(n, d, &n))) return false;
    }
    return !empty || n / 128 <= most_beside_zero;
}
QUERN_INLINE bool is_empty(std::span<const View> out) noexcept {
    return std::none_of(out.begin(), out.end(), [](const View& v) { return v.present() && (v.kind != Kind::tensor || v.count() > 0); });
}
QUERN_INLINE std::size_t text_bytes(std::span<const std::string> s) noexcept {
    std::size_t n = 0;
    for (auto& x : s)
        if (x.size() > short_text) n += x.size() + 1;
    return n;
}
QUERN_INLINE std::size_t longest_text(std::span<const View> in) noexcept {
    std::size_t n = 0;
    for (const View& v : in) {
        std::size_t longest = 0;
        for (std::int64_t i = 0; v.dtype == DType::string && v.kind == Kind::tensor && i < v.count(); ++i) longest = std::max(longest, v.in<std::string>()[i].size());
        n += longest;
    }
    return n > short_text ? n : 0;
}
/// Of a kernel whose node is folded: those for products and windows take some MiB.
inline constexpr std::size_t most_scratch = std::size_t{64} << 20;
/// The calling thread.
class FoldWorkers final : public Workers {
public:
    explicit FoldWorkers(std::int64_t* left) : left_(left) {}
    int width() const noexcept override { return 1; }
    void run(std::int64_t n, Tile tile, void* context) override {
        if (left_ && n > *left_) raise(ErrorCode::unsupported, "more tiles of work than constant folding does");
        if (left_) *left_ -= std::max<std::int64_t>(n, 0);
        for (std::int64_t i = 0; i < n; ++i) tile(context, i, 0);
    }

private:
    std::int64_t* left_;
};
QUERN_INLINE bool needs_promotion(const OpDef& op, std::size_t i, DType t, bool input) {
    std::uint32_t mask = input ? op.promote_in : op.promote_out;
    return i < 32 && (mask >> i & 1u) && compute_type(op, t) != t;
}
QUERN_INLINE bool takes_narrow(const Graph& g, const Node& n) {
    if (n.op->narrow == Narrow::none || n.in.empty() || n.in[0] == no_value) return false;
    const DType t = g.fact(n.in[0]).dtype;
    switch (n.op->narrow) {
        case Narrow::halves: return is_half(t);
        case Narrow::bytes: return t == DType::u8 || t == DType::i8;
        default: return true;
    }
}
}  // namespace detail

QUERN_INLINE std::vector<Tensor> evaluate(const Graph& g, const Node& n, const Target& target, std::size_t limit, std::int64_t* tiles) {
    if (!n.op->lower || !n.op->pure || n.op->control) return {};
    for (ValueId v : n.out)
        if (v != no_value && g.fact(v).kind != Kind::tensor) return {};
    std::vector<Fact> in(n.in.size());
    InferCtx infer(n);
    infer.concrete = true;
    for (std::size_t i = 0; i < n.in.size(); ++i) {
        if (n.in[i] == no_value) { infer.inputs.push_back(nullptr); continue; }
        const Fact& f = g.fact(n.in[i]);
        if (!f.is_const() || detail::needs_promotion(*n.op, i, f.dtype, true)) return {};
        if (!detail::is_addressable(f.value.shape())) return {};
        in[i] = f;
        in[i].value = f.value.aligned();
        infer.inputs.push_back(&in[i]);
    }
    infer.outputs.resize(n.out.size());
    n.op->infer(infer);
    Target host = target;  // constants are in host memory, whatever the model is compiled for
    host.device = Device::cpu;
    LowerCtx lower{n, n.attrs, infer.inputs, {}, host};
    for (std::size_t o = 0; o < n.out.size(); ++o) {
        if (n.out[o] == no_value) { lower.outputs.push_back(nullptr); continue; }
        Fact& f = infer.outputs[o];
        if (!f.concrete() || f.dtype == DType::undefined || detail::needs_promotion(*n.op, o, f.dtype, false)) return {};
        if (!detail::is_addressable(f.shape()) || storage_bytes(f.dtype, f.shape().count()) > limit) return {};
        lower.outputs.push_back(&f);
    }
    Lowered l = n.op->lower(lower);
    if (l.view_of >= 0) return {in[l.view_of].value.reshaped(infer.outputs[0].shape())};
    std::vector<View> vi, vo;
    for (std::size_t i = 0; i < n.in.size(); ++i) vi.push_back(n.in[i] == no_value ? View{} : detail::view_of(in[i].value));
    detail::FoldWorkers workers(tiles);
    std::vector<std::vector<std::int64_t>> dims(n.out.size());
    std::vector<Tensor> out(n.out.size());
    std::vector<View> none(n.out.size());
    bool measured = l.kernel->measure(Call{vi, none, nullptr, nullptr, workers}, dims.data());
    for (std::size_t o = 0; o < n.out.size(); ++o) {
        if (n.out[o] == no_value) { vo.push_back(View{}); continue; }
        Shape s = measured ? Shape(std::span<const std::int64_t>(dims[o])) : infer.outputs[o].shape();
        if (!detail::is_addressable(s) || storage_bytes(infer.outputs[o].dtype, s.count()) > limit) return {};
        if (infer.outputs[o].dtype == DType::string && s.count() && detail::longest_text(vi) > limit / static_cast<std::size_t>(s.count())) return {};
        out[o] = Tensor(infer.outputs[o].dtype, s);
        vo.push_back(detail::view_of(out[o]));
    }
    Booking b = l.kernel->book(vi, vo, 1);
    if (b.scratch > limit + detail::most_scratch) return {};
    Tensor scratch = Tensor::uninitialized(DType::u8, {static_cast<std::int64_t>(b.scratch)});
    if (!detail::is_empty(vo)) l.kernel->run(Call{vi, vo, static_cast<std::byte*>(scratch.raw()), b.state.get(), workers});
    return out;
}

QUERN_END
