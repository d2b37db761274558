// FusedAttention: what the attention pass makes of products, softmax and everything that only moves their operands.
// AppendToCache: what it makes of a concatenation of old and new keys or values.
#pragma once
#include <quern/kernels/attention/append.hpp>
#include <quern/kernels/attention/attention.hpp>
#include <quern/kernels/attention/fused.hpp>

#include "op.hpp"

QUERN_BEGIN
namespace ops_fused_attention {

/// Layouts as attributes "q", "k", "v", "y", "mask", "mask2", "table": dim, role, size, index of each factor, one after the other.
inline attention::Layout layout_of(const Attrs& a, const char* name) {
    std::vector<std::int64_t> v = a.ints(name);
    if (v.size() % 4) raise(ErrorCode::invalid_model, std::string(name) + " has " + std::to_string(v.size()) + " numbers; accepted are four for each factor");
    attention::Layout l;
    std::int64_t elements = 1;
    for (std::size_t i = 0; i < v.size(); i += 4) {
        const attention::Factor f{v[i], v[i + 1], v[i + 2], v[i + 3]};
        if (f.dim < 0 || f.dim >= 64 || f.role < attention::Factor::fixed || f.role >= attention::roles || f.size < -1 || f.index < 0 ||
            (f.size > 0 && __builtin_mul_overflow(elements, f.size, &elements)))
            raise(ErrorCode::invalid_model, std::string(name) + " has a factor of dimension " + std::to_string(f.dim) + ", role " + std::to_string(f.role) + ", size " + std::to_string(f.size) +
                                                " and index " + std::to_string(f.index) + "; accepted: dimensions 0 to 63, roles -1 to 10, sizes from -1 whose product fits into 64 bits, indices from 0");
        l.push_back(f);
    }
    return l;
}
inline attention::FusedProblem problem(const Attrs& a) {
    attention::FusedProblem p;
    p.scale = a.f("scale", 1);
    p.closed_is_zero = a.i("closed_is_zero", 0) != 0;
    p.q = layout_of(a, "q");
    p.k = layout_of(a, "k");
    p.v = layout_of(a, "v");
    p.y = layout_of(a, "y");
    p.mask[0] = layout_of(a, "mask");
    p.mask[1] = layout_of(a, "mask2");
    p.table = layout_of(a, "table");
    p.interleaved = a.i("interleaved", 0) != 0;
    p.causal = a.i("causal", 0) != 0;
    p.once = a.i("causal_once", 0) != 0;
    p.closed = a.f("causal_closed", 0);
    return p;
}
/// The size of a factor in the dims of its operand.
inline Dim size_of(const attention::Layout& l, const attention::Factor& f, const std::vector<Dim>& dims) {
    if (f.size >= 0) return Dim(f.size);
    std::int64_t others = 1;
    for (auto& o : l)
        if (o.dim == f.dim && o.size >= 0) others *= o.size;
    return floor_div(dims[static_cast<std::size_t>(f.dim)], Dim(std::max<std::int64_t>(1, others)));
}
inline void infer(InferCtx& c) {
    const DType t = c.in(0).dtype;  // half types: on a device
    for (int i = 0; i < 7; ++i)
        if (c.has(i)) c.need_type(i, {DType::f32, DType::f16, DType::bf16});
    c.need_same_type(0, 1);
    c.need_same_type(0, 2);
    const attention::FusedProblem p = problem(c.attrs);
    std::vector<std::optional<Dim>> sizes(attention::roles);
    const attention::Layout* layouts[] = {&p.q, &p.v};
    for (int i : {0, 2}) {
        if (!c.ranked(i)) return c.set_unranked(0, t);
        const attention::Layout& l = *layouts[i / 2];
        for (auto& f : l) {
            if (f.dim >= c.in(i).rank())
                raise(ErrorCode::invalid_model, "a factor of dimension " + std::to_string(f.dim) + ", role " + std::to_string(f.role) + " for " + c.in(i).to_string());
            if (f.role >= 0 && (i == 0 || !sizes[static_cast<std::size_t>(f.role)] || f.role == attention::Factor::inner))
                sizes[static_cast<std::size_t>(f.role)] = size_of(l, f, c.in(i).dims);
        }
    }
    std::vector<Dim> y;
    for (auto& f : p.y) {
        while (static_cast<std::int64_t>(y.size()) <= f.dim) y.emplace_back(1);
        if (f.role < 0 || !sizes[static_cast<std::size_t>(f.role)])
            raise(ErrorCode::invalid_model, "role " + std::to_string(f.role) + " of the result is none of Q and V");
        y[static_cast<std::size_t>(f.dim)] *= f.size >= 0 ? Dim(f.size) : *sizes[static_cast<std::size_t>(f.role)];
    }
    const std::int64_t rank = c.attrs.i("rank", 0);
    if (rank > 64) raise(ErrorCode::invalid_model, "rank is " + std::to_string(rank) + "; accepted: up to 64");
    while (static_cast<std::int64_t>(y.size()) < rank) y.emplace_back(1);
    c.set(0, t, std::move(y));
}
inline Lowered lower(const LowerCtx& c) {
    if (c.target.device != Device::cpu) {
        attention::Problem p;
        p.dtype = c.in(0).dtype;
        auto fused = std::make_shared<attention::FusedProblem>(problem(c.attrs));
        if (!fused->table.empty()) raise(ErrorCode::unsupported, "queries that the kernel is to turn");
        if (fused->causal) raise(ErrorCode::unsupported, "keys that are closed without a mask");
        const attention::Layout* layouts[] = {&fused->q, &fused->v};
        for (int i : {0, 2})
            for (auto& f : *layouts[i / 2]) {
                if (f.role != attention::Factor::inner) continue;
                const Dim d = size_of(*layouts[i / 2], f, c.in(i).dims);
                if (!d.is_const() || d.value() > 128) raise(ErrorCode::unsupported, "heads of more than 128 elements, or of unknown width");
            }
        p.fused = std::move(fused);
        return select(Family::attention, p, c.target);
    }
    for (int i = 0; i < c.n_in(); ++i)
        if (c.has(i) && c.in(i).dtype != DType::f32) raise(ErrorCode::unsupported, std::string("input ") + std::to_string(i) + " is " + dtype_name(c.in(i).dtype) + "; on the CPU float is accepted");
    return Lowered(std::make_unique<attention::FusedKernel>(problem(c.attrs), vec::table(c.target.isa)));
}

inline void infer_append(InferCtx& c) {
    for (int i = 0; i < 4; ++i)
        if (i < 2 || c.has(i)) c.need_type(i, {DType::f32});
    c.need_rank(0, 4, 4);
    const attention::Layout l = layout_of(c.attrs, "x");
    if (!c.ranked(0) || !c.ranked(1)) return c.set_unranked(0, DType::f32);
    Dim rows(1);
    for (auto& f : l) {
        if (f.dim >= c.in(1).rank())
            raise(ErrorCode::invalid_model, "a factor of dimension " + std::to_string(f.dim) + ", role " + std::to_string(f.role) + " for " + c.in(1).to_string());
        if (f.role == attention::Factor::key) rows = size_of(l, f, c.in(1).dims);
    }
    const std::vector<Dim>& past = c.in(0).dims;
    c.set(0, DType::f32, {past[0], past[1], past[2] + rows, past[3]});
}
inline Lowered lower_append(const LowerCtx& c) {
    attention::AppendProblem p{layout_of(c.attrs, "x"), c.attrs.i("interleaved", 0) != 0};
    if (c.target.device == Device::cpu) return Lowered(std::make_unique<attention::AppendKernel>(std::move(p)));
    attention::Problem device;
    device.dtype = c.in(0).dtype;
    device.append = std::make_shared<attention::AppendProblem>(std::move(p));
    return select(Family::attention, device, c.target);
}

}  // namespace ops_fused_attention

QUERN_INLINE const OpDef& op_quern_FusedAttention() {
    static constexpr OpDef def{.domain = "quern", .name = "FusedAttention", .min_in = 3, .max_in = 7, .newest = 1, .infer = ops_fused_attention::infer,
                               .lower = ops_fused_attention::lower, .lower_device = ops_fused_attention::lower, .compute = Compute::f32};
    return def;
}
QUERN_INLINE const OpDef& op_quern_AppendToCache() {
    static constexpr OpDef def{.domain = "quern", .name = "AppendToCache", .min_in = 2, .max_in = 4, .newest = 1, .infer = ops_fused_attention::infer_append,
                               .lower = ops_fused_attention::lower_append, .lower_device = ops_fused_attention::lower_append, .compute = Compute::f32};
    return def;
}
QUERN_END
