// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
#pragma once
#include <quern/kernels/quant/linear.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_quantize {

inline bool is_wide(DType t) { return t == DType::f32 || t == DType::f16 || t == DType::bf16; }
inline bool is_quantized(DType t) {
    switch (t) {
        case DType::u8: case DType::i8: case DType::u16: case DType::i16: case DType::u4: case DType::i4: case DType::u2: case DType::i2:
        case DType::f8e4m3fn: case DType::f8e4m3fnuz: case DType::f8e5m2: case DType::f8e5m2fnuz: case DType::f4e2m1: case DType::f6e2m3: case DType::f6e3m2: return true;
        default: return false;
    }
}
[[noreturn]] inline void bad(int i, DType t, const char* accepted) {
    raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is " + dtype_name(t) + "; accepted: " + accepted);
}
inline DType attr_type(const Attrs& a, const char* name) {
    const std::int64_t t = a.i(name, 0);
    if (t < 0 || t >= dtype_count)
        raise(t >= dtype_count ? ErrorCode::unsupported : ErrorCode::invalid_model, std::string(name) + " is " + std::to_string(t) + "; accepted: 0 to " + std::to_string(dtype_count - 1));
    return static_cast<DType>(t);
}
/// Scale and zero point against the data, as far as facts tell.
inline void check_shapes(InferCtx& c) {
    const std::int64_t block = c.attrs.i("block_size", 0);
    if (block < 0) raise(ErrorCode::invalid_model, "block_size is " + std::to_string(block) + "; accepted: 0 and positive");
    if (!c.ranked(0) || !c.ranked(1)) return;
    const Fact &x = c.in(0), &s = c.in(1);
    if (c.has(2) && c.ranked(2) && c.in(2).concrete() && s.concrete() && c.in(2).shape().count() != s.shape().count())
        c.fail("the zero point is " + c.in(2).to_string() + "; accepted: the shape of the scale, " + s.to_string());
    if (s.concrete() && s.shape().count() == 1 && block == 0) return;
    if (block == 0 && s.rank() > 1) c.fail("the scale is " + s.to_string() + "; accepted: one value, one for each index of the axis, or blocks with block_size");
    if (block > 0 && s.rank() != x.rank()) c.fail("the scale is " + s.to_string() + "; accepted: rank " + std::to_string(x.rank()) + " with block_size");
    if (s.rank() == 0) return;
    const int axis = c.axis(c.attrs.i("axis", 1), x.rank());
    const Dim& d = x.dims[static_cast<std::size_t>(axis)];
    if (block == 0 && d.is_const() && s.dims[0].is_const() && d.value() != s.dims[0].value())
        c.fail("the scale is " + s.to_string() + "; accepted: one value, or " + d.to_string() + " along axis " + std::to_string(axis));
}
inline void infer_quantize(InferCtx& c) {
    const DType x = c.in(0).dtype, s = c.in(1).dtype, wanted = attr_type(c.attrs, "output_dtype");
    if (!is_wide(x) && x != DType::i32) bad(0, x, "float, float16, bfloat16, int32");
    if (!is_wide(s) && s != DType::i32 && s != DType::f8e8m0) bad(1, s, "float, float16, bfloat16, int32, float8e8m0");
    DType y = c.has(2) ? c.in(2).dtype : wanted != DType::undefined ? wanted : DType::u8;
    if (!is_quantized(y)) raise(ErrorCode::invalid_model, std::string("the quantized type is ") + dtype_name(y) + "; accepted: integers of 2 to 16 bits, float8, float6, float4e2m1");
    if (c.has(2) && wanted != DType::undefined && wanted != y)
        raise(ErrorCode::invalid_model, std::string("output_dtype is ") + dtype_name(wanted) + " but the zero point is " + dtype_name(y));
    attr_type(c.attrs, "precision");
    check_shapes(c);
    ops_elementwise::like(c, y);
}
inline void infer_dequantize(InferCtx& c) {
    const DType x = c.in(0).dtype, s = c.in(1).dtype, wanted = attr_type(c.attrs, "output_dtype");
    if (!is_quantized(x) && x != DType::i32) bad(0, x, "int32, integers of 2 to 16 bits, float8, float6, float4e2m1");
    if (!is_wide(s) && s != DType::f8e8m0) bad(1, s, "float, float16, bfloat16, float8e8m0");
    if (c.has(2)) c.need_same_type(0, 2);
    const DType y = wanted != DType::undefined ? wanted : is_wide(s) ? s : DType::f32;
    if (!is_wide(y)) raise(ErrorCode::invalid_model, std::string("output_dtype is ") + dtype_name(y) + "; accepted: float, float16, bfloat16");
    check_shapes(c);
    ops_elementwise::like(c, y);
}
inline Lowered lower_quantize(const LowerCtx& c) {
    DType precision = attr_type(c.attrs, "precision");
    if (precision == DType::undefined) precision = c.in(1).dtype;
    if (precision == DType::f8e8m0) precision = DType::f32;
    return Lowered(std::make_unique<quant::QuantizeKernel>(c.attrs.i("axis", 1), c.attrs.i("block_size", 0), c.attrs.i("saturate", 1) != 0,
                                                           precision, c.target.isa));
}
inline Lowered lower_dequantize(const LowerCtx& c) {
    return Lowered(std::make_unique<quant::DequantizeKernel>(c.attrs.i("axis", 1), c.attrs.i("block_size", 0), c.target.isa));
}
inline void infer_dynamic(InferCtx& c) {
    c.need_type(0, {DType::f32});
    ops_elementwise::like(c, DType::u8);
    c.set(1, DType::f32, {});
    c.set(2, DType::u8, {});
}
inline Lowered lower_dynamic(const LowerCtx& c) { return Lowered(std::make_unique<quant::DynamicQuantizeKernel>(c.target.isa)); }

}  // namespace ops_quantize

QUERN_INLINE const OpDef& op_QuantizeLinear() {
    static constexpr OpDef def{.name = "QuantizeLinear", .min_in = 2, .max_in = 3, .newest = 28, .infer = ops_quantize::infer_quantize,
                               .lower = ops_quantize::lower_quantize};
    return def;
}
QUERN_INLINE const OpDef& op_DequantizeLinear() {
    static constexpr OpDef def{.name = "DequantizeLinear", .min_in = 2, .max_in = 3, .newest = 28, .infer = ops_quantize::infer_dequantize,
                               .lower = ops_quantize::lower_dequantize};
    return def;
}
QUERN_INLINE const OpDef& op_DynamicQuantizeLinear() {
    static constexpr OpDef def{.name = "DynamicQuantizeLinear", .min_in = 1, .max_in = 1, .max_out = 3, .newest = 11,
                               .infer = ops_quantize::infer_dynamic, .lower = ops_quantize::lower_dynamic};
    return def;
}
QUERN_END
