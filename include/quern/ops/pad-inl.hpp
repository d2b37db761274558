// Pad (https://onnx.ai/onnx/operators/onnx__Pad.html).
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/pad/pad.hpp>

QUERN_BEGIN
namespace ops_pad {

inline movement::PadMode mode_of(const Attrs& a) {
    std::string m = a.s("mode", "constant");
    if (m == "constant") return movement::PadMode::constant;
    if (m == "reflect") return movement::PadMode::reflect;
    if (m == "edge") return movement::PadMode::edge;
    if (m == "wrap") return movement::PadMode::wrap;
    raise(ErrorCode::invalid_model, "mode '" + m + "'; accepted: constant, reflect, edge, wrap");
}
QUERN_INLINE void import(ImportCtx& ctx) {
    if (ctx.opset >= 11) {
        ops_util::import_through_bytes(ctx, "Pad");
        return;
    }
    if (ctx.opset < 2 && ctx.attrs.has("paddings")) {
        auto p = ctx.attrs.ints("paddings");
        ctx.attrs.erase("paddings");
        ctx.attrs.set("pads", p);
    }
    if (!ctx.attrs.has("pads")) ctx.invalid("the attribute 'pads' is missing");
    ctx.attr_to_input_ints("pads", 1);
    if (ctx.attrs.has("value")) {
        float v = ctx.attrs.f("value", 0);
        ctx.attrs.erase("value");
        if (v != 0) {
            ctx.in.resize(2);
            ctx.in.push_back(ctx.constant(ops_util::scalar(ctx.fact(0).dtype, v)));
        }
    }
}
QUERN_INLINE void infer(InferCtx& ctx) {
    const Fact& x = ctx.in(0);
    auto mode = mode_of(ctx.attrs);
    ctx.need_type(1, {DType::i64});
    ctx.need_rank(1, 1, 2);
    if (ctx.has(2)) ctx.need_same_type(2, 0);
    if (ctx.has(3)) ctx.need_type(3, {DType::i64, DType::i32});
    if (!x.ranked) return ctx.set_unranked(0, x.dtype);
    auto pads = ctx.ints(1);
    auto axes = ctx.has(3) ? ctx.const_ints(3) : std::nullopt;
    if (!pads || (ctx.has(3) && !axes)) return ctx.set(0, x.dtype, ops_util::fresh_dims(ctx, x.rank(), "pad"));
    std::vector<int> at;
    if (axes) at = ops_util::axes_of(ctx, *axes, x.rank());
    else for (int i = 0; i < x.rank(); ++i) at.push_back(i);
    if (pads->size() != 2 * at.size()) ctx.fail(std::to_string(pads->size()) + " pads; accepted: two for each of " + std::to_string(at.size()) + " axes");
    std::vector<Dim> out = x.dims;
    for (std::size_t k = 0; k < at.size(); ++k) {
        Dim& d = out[at[k]];
        if (d.is(0) && mode != movement::PadMode::constant && !((*pads)[k].is(0) && (*pads)[k + at.size()].is(0)))
            ctx.fail("a dimension of 0 can only be padded with a constant");
        d = d + (*pads)[k] + (*pads)[k + at.size()];
        if (d.is_const() && d.value() < 0) ctx.fail("pads that leave " + d.to_string() + " of axis " + std::to_string(at[k]));
    }
    ctx.set(0, x.dtype, std::move(out));
}
QUERN_INLINE void simplify(PatchCtx& ctx) {
    const Tensor& p = ctx.in(1).value;
    if (!p.defined() || p.dtype() != DType::i64) return;
    const auto* bytes = static_cast<const std::byte*>(p.raw());  // large ones need not be aligned
    if (std::any_of(bytes, bytes + p.bytes(), [](std::byte b) { return b != std::byte{0}; })) return;
    ctx.replace(0, ctx.node().in[0]);
}
QUERN_INLINE Lowered lower(const LowerCtx& ctx) {
    movement::check_rank(2 * ctx.in(0).rank());
    if (ctx.target.device != Device::cpu) {
        movement::Problem p = ops_util::movement_problem(ctx, movement::Problem::Kind::pad);
        p.mode = mode_of(ctx.attrs);
        return select(Family::transpose, p, ctx.target);
    }
    return ops_util::kernel<movement::Pad>(mode_of(ctx.attrs));
}

}  // namespace ops_pad

QUERN_INLINE const OpDef& op_Pad() {
    static constexpr OpDef def{.name = "Pad", .min_in = 2, .max_in = 4, .newest = 25, .import = ops_pad::import, .infer = ops_pad::infer, .simplify = ops_pad::simplify, .lower = ops_pad::lower, .lower_device = ops_pad::lower};
    return def;
}
QUERN_END
