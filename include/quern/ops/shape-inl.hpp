// Shape and Size: https://onnx.ai/onnx/operators/onnx__Shape.html, onnx__Size.html.
#pragma once
#include "shape_util.hpp"

QUERN_BEGIN
namespace ops_shape {

inline std::pair<int, int> range(const Attrs& a, int rank) {
    auto norm = [&](std::int64_t v) { return static_cast<int>(std::max<std::int64_t>(0, std::min<std::int64_t>(v < 0 ? (v < -rank ? 0 : v + rank) : v, rank))); };
    int s = norm(a.i("start", 0)), e = norm(a.i("end", INT64_MAX));
    return {s, std::max(s, e)};
}
QUERN_INLINE void infer_shape(InferCtx& ctx) {
    if (!ctx.ranked(0)) return ctx.set(0, DType::i64, {ctx.fresh("rank")});
    const auto& d = ctx.in(0).dims;
    auto [s, e] = range(ctx.attrs, ctx.in(0).rank());
    ctx.set(0, DType::i64, {Dim(e - s)});
    ops_util::give_content(ctx, 0, {d.begin() + s, d.begin() + e});
}
QUERN_INLINE void infer_size(InferCtx& ctx) {
    ctx.set(0, DType::i64, {});
    if (ctx.ranked(0)) ctx.set_symbolic(0, {ops_util::product(ctx.in(0).dims)});
}
class ShapeKernel final : public Kernel {
public:
    ShapeKernel(int s, int e) : s_(s), e_(e) {}
    const char* name() const noexcept override { return "shape.portable"; }
    void run(const Call& call) const override {
        for (int i = s_; i < e_; ++i) call.out[0].out<std::int64_t>()[i - s_] = call.in[0].dims[i];
    }

private:
    int s_, e_;
};
class SizeKernel final : public Kernel {
public:
    const char* name() const noexcept override { return "size.portable"; }
    void run(const Call& call) const override { *call.out[0].out<std::int64_t>() = call.in[0].count(); }
};
QUERN_INLINE Lowered lower_shape(const LowerCtx& ctx) {
    auto [s, e] = range(ctx.attrs, ctx.in(0).rank());
    return ops_util::kernel<ShapeKernel>(s, e);
}
QUERN_INLINE Lowered lower_size(const LowerCtx&) { return ops_util::kernel<SizeKernel>(); }

}  // namespace ops_shape

QUERN_INLINE const OpDef& op_Shape() {
    static constexpr OpDef def{.name = "Shape", .min_in = 1, .max_in = 1, .newest = 25, .infer = ops_shape::infer_shape, .lower = ops_shape::lower_shape};
    return def;
}
QUERN_INLINE const OpDef& op_Size() {
    static constexpr OpDef def{.name = "Size", .min_in = 1, .max_in = 1, .newest = 25, .infer = ops_shape::infer_size, .lower = ops_shape::lower_size};
    return def;
}
QUERN_END
