// BatchNormalization, InstanceNormalization, GroupNormalization, LRN, LpNormalization, MeanVarianceNormalization:
// https://onnx.ai/onnx/operators/onnx__BatchNormalization.html
#pragma once
#include <quern/kernels/norm/batch.hpp>
#include <quern/kernels/norm/problem.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_channel_norm {
using namespace ops_elementwise;

/// A list of one number for each channel, as far as facts tell.
inline void check_row(InferCtx& c, int i, const Dim& n) {
    need(c, i, Types::real);
    if (!c.ranked(i) || !c.in(i).concrete() || !n.is_const()) return;
    if (c.in(i).shape().count() != n.value())
        c.fail("input " + std::to_string(i) + " is " + c.in(i).to_string() + "; accepted: " + n.to_string() + " elements");
}
inline Dim channels(const Fact& x) { return x.rank() > 1 ? x.dims[1] : Dim(1); }

/// Old revisions: `is_test` and `consumed_inputs` say nothing at inference; `spatial` = 0 (before opset 9) has
/// statistics for each element of an item, which is the matrix [N, everything else].
inline void import_batch(ImportCtx& c) {
    drop_consumed(c);
    c.attrs.erase("is_test");
    if (c.opset < 14 && c.n_out > 1)
        c.unsupported("BatchNormalization with " + std::to_string(c.n_out) + " outputs trains; accepted: one output before opset 14");
    const bool spatial = c.opset >= 9 || c.attrs.i("spatial", 1) != 0;
    c.attrs.erase("spatial");
    if (spatial || c.in.size() != 5) return;
    ValueId shape = c.add("Shape", {c.in[0]})[0];
    Attrs one;
    one.set("axis", std::int64_t{1});
    std::vector<ValueId> in{c.add("Flatten", {c.in[0]}, std::move(one))[0]};
    ValueId flat = c.constant_ints({-1});
    for (int i = 1; i < 5; ++i) in.push_back(c.add("Reshape", {c.in[static_cast<std::size_t>(i)], flat})[0]);
    c.finish("Reshape", {c.add("BatchNormalization", in, c.attrs)[0], shape});
}
inline void infer_batch(InferCtx& c) {
    need(c, 0, Types::real);
    like(c, c.in(0).dtype);
    const bool training = c.attrs.i("training_mode", 0) != 0;
    if (c.n_out() > 1 && !training) raise(ErrorCode::invalid_model, std::to_string(c.n_out()) + " outputs; accepted: one without training_mode");
    for (int i = 1; i < 5; ++i) need(c, i, Types::real);
    if (c.ranked(0)) {
        c.need_rank(0, 1);
        for (int i = 1; i < 5; ++i) check_row(c, i, channels(c.in(0)));
        c.set(1, c.in(3).dtype, {channels(c.in(0))});
        c.set(2, c.in(3).dtype, {channels(c.in(0))});
    } else {
        c.set_unranked(1, c.in(3).dtype);
        c.set_unranked(2, c.in(3).dtype);
    }
}
inline Lowered lower_batch(const LowerCtx& c) {
    if (c.target.device != Device::cpu) {
        if (c.attrs.i("training_mode", 0) != 0) raise(ErrorCode::unsupported, "training on the device");
        DeviceProgram p(c);
        p.load(4, false);
        p.binary_constant(ew::BinaryOp::add, c.attrs.f("epsilon", 1e-5f));
        p.unary(ew::UnaryOp::sqrt, false);
        p.keep(0);
        p.load(0, false);
        p.binary(ew::BinaryOp::sub, 3, false);
        p.binary_temp(ew::BinaryOp::div, 0);
        p.binary(ew::BinaryOp::mul, 1, false);
        p.binary(ew::BinaryOp::add, 2, false);
        if (c.in(0).rank() > 2)
            for (int i = 1; i < 5; ++i)
                if (!c.constant(i).defined() || c.constant(i).count() != 1) p.shift(i, c.in(0).rank() - 2);
        return p.lower();
    }
    return Lowered(std::make_unique<norm::BatchKernel>(c.attrs.f("epsilon", 1e-5f), c.attrs.f("momentum", 0.9f),
                                                       c.attrs.i("training_mode", 0) != 0, c.target.isa));
}

inline void infer_instance(InferCtx& c) {
    need(c, 0, Types::real);
    like(c, c.in(0).dtype);
    if (!c.ranked(0)) return;
    c.need_rank(0, 2);
    for (int i = 1; i < 3; ++i) check_row(c, i, channels(c.in(0)));
}
inline Lowered device_groups(const LowerCtx& c, std::int64_t groups, bool by_group) {
    norm::Problem p;
    p.dtype = c.in(0).dtype;
    p.grouped = true;
    p.groups = groups;
    p.by_group = by_group;
    p.eps = c.attrs.f("epsilon", 1e-5f);
    p.row_parameters = c.in(1).dtype == p.dtype && c.in(2).dtype == p.dtype;
    return select(Family::norm, p, c.target);
}
inline Lowered lower_instance(const LowerCtx& c) {
    if (c.target.device != Device::cpu) return device_groups(c, 0, false);
    return Lowered(std::make_unique<norm::GroupKernel>(0, false, c.attrs.f("epsilon", 1e-5f), c.target.isa));
}
/// Scale and bias were for each group before opset 21.
inline void import_group(ImportCtx& c) {
    if (c.opset < 21) c.attrs.set("by_group", std::int64_t{1});
}
inline void infer_group(InferCtx& c) {
    need(c, 0, Types::real);
    like(c, c.in(0).dtype);
    const std::int64_t groups = c.attrs.i("num_groups", 0);
    if (groups < 1) raise(ErrorCode::invalid_model, "num_groups is " + std::to_string(groups) + "; accepted: 1 and more");
    if (!c.ranked(0)) return;
    c.need_rank(0, 2);
    const Dim n = channels(c.in(0));
    if (n.is_const() && n.value() % groups) c.fail(n.to_string() + " channels do not divide into " + std::to_string(groups) + " groups");
    for (int i = 1; i < 3; ++i) check_row(c, i, c.attrs.i("by_group", 0) ? Dim(groups) : n);
}
inline Lowered lower_group(const LowerCtx& c) {
    if (c.target.device != Device::cpu) return device_groups(c, c.attrs.i("num_groups", 1), c.attrs.i("by_group", 0) != 0);
    return Lowered(std::make_unique<norm::GroupKernel>(c.attrs.i("num_groups", 1), c.attrs.i("by_group", 0) != 0,
                                                       c.attrs.f("epsilon", 1e-5f), c.target.isa));
}

inline void infer_lrn(InferCtx& c) {
    infer_same<Types::real>(c);
    c.need_rank(0, 2);
    const std::int64_t size = c.attrs.i("size", 0);
    if (size < 1) raise(ErrorCode::invalid_model, "size is " + std::to_string(size) + "; accepted: 1 and more");
}
inline Lowered lower_lrn(const LowerCtx& c) {
    const std::int64_t size = std::min<std::int64_t>(c.attrs.i("size", 1), INT32_MAX);
    return Lowered(std::make_unique<norm::LrnKernel>(size, c.attrs.f("alpha", 0.0001f), c.attrs.f("beta", 0.75f), c.attrs.f("bias", 1.0f),
                                                     c.target.isa));
}
inline void infer_lp(InferCtx& c) {
    infer_same<Types::real>(c);
    const std::int64_t p = c.attrs.i("p", 2);
    if (p != 1 && p != 2) raise(ErrorCode::invalid_model, "p is " + std::to_string(p) + "; accepted: 1, 2");
    c.need_rank(0, 1);
    if (c.ranked(0)) c.axis(c.attrs.i("axis", -1), c.in(0).rank());
}
inline Lowered lower_lp(const LowerCtx& c) {
    const std::int64_t axis = c.attrs.i("axis", -1);
    return Lowered(std::make_unique<norm::LpKernel>(static_cast<int>(axis < 0 ? axis + c.in(0).rank() : axis), static_cast<int>(c.attrs.i("p", 2))));
}

/// (x - mean) / (deviation + 1e-9) in simpler operators.
inline void import_mvn(ImportCtx& c) {
    if (!c.has(0)) c.invalid("input 0 is missing");
    ValueId axes = c.constant_ints(c.attrs.ints("axes", {0, 2, 3}));
    ValueId x = c.in[0];
    ValueId centered = c.add("Sub", {x, c.add("ReduceMean", {x, axes})[0]})[0];
    ValueId variance = c.add("ReduceMean", {c.add("Mul", {centered, centered})[0], axes})[0];
    const float tiny = 1e-9f;
    ValueId eps = c.constant(Tensor::from(std::span<const float>(&tiny, 1), Shape{}));
    if (c.fact(0).dtype != DType::f32) {
        Attrs to;
        to.set("to", static_cast<std::int64_t>(c.fact(0).dtype));
        eps = c.add("Cast", {eps}, std::move(to))[0];
    }
    c.finish("Div", {centered, c.add("Add", {c.add("Sqrt", {variance})[0], eps})[0]});
}

}  // namespace ops_channel_norm

QUERN_INLINE const OpDef& op_BatchNormalization() {
    static constexpr OpDef def{.name = "BatchNormalization", .min_in = 5, .max_in = 5, .max_out = 3, .newest = 15,
                               .import = ops_channel_norm::import_batch, .infer = ops_channel_norm::infer_batch,
                               .lower = ops_channel_norm::lower_batch, .lower_device = ops_channel_norm::lower_batch, .compute = Compute::real, .promote_in = 1, .promote_out = 1, .narrow = Narrow::halves};
    return def;
}
QUERN_INLINE const OpDef& op_InstanceNormalization() {
    static constexpr OpDef def{.name = "InstanceNormalization", .min_in = 3, .max_in = 3, .newest = 22,
                               .import = ops_channel_norm::drop_consumed, .infer = ops_channel_norm::infer_instance,
                               .lower = ops_channel_norm::lower_instance, .lower_device = ops_channel_norm::lower_instance, .compute = Compute::real, .promote_in = 1, .narrow = Narrow::halves};
    return def;
}
QUERN_INLINE const OpDef& op_GroupNormalization() {
    static constexpr OpDef def{.name = "GroupNormalization", .min_in = 3, .max_in = 3, .newest = 21,
                               .import = ops_channel_norm::import_group, .infer = ops_channel_norm::infer_group,
                               .lower = ops_channel_norm::lower_group, .lower_device = ops_channel_norm::lower_group, .compute = Compute::real, .promote_in = 1, .narrow = Narrow::halves};
    return def;
}
QUERN_INLINE const OpDef& op_LRN() {
    static constexpr OpDef def{.name = "LRN", .min_in = 1, .max_in = 1, .newest = 13, .infer = ops_channel_norm::infer_lrn,
                               .lower = ops_channel_norm::lower_lrn, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_LpNormalization() {
    static constexpr OpDef def{.name = "LpNormalization", .min_in = 1, .max_in = 1, .newest = 22, .infer = ops_channel_norm::infer_lp,
                               .lower = ops_channel_norm::lower_lp, .compute = Compute::real};
    return def;
}
QUERN_INLINE const OpDef& op_MeanVarianceNormalization() {
    static constexpr OpDef def{.name = "MeanVarianceNormalization", .min_in = 1, .max_in = 1, .newest = 13,
                               .import = ops_channel_norm::import_mvn};
    return def;
}
QUERN_END
