// Cast, CastLike and BitCast: https://onnx.ai/onnx/operators/onnx__Cast.html
#pragma once
#include <quern/kernels/elementwise/cast.hpp>
#include <quern/kernels/elementwise/convert-inl.hpp>

#include "elementwise.hpp"

QUERN_BEGIN
namespace ops_cast {

inline DType target(const Attrs& a) {
    const std::int64_t to = a.i("to", 0);
    if (to < 1 || to >= dtype_count)
        raise(to >= dtype_count ? ErrorCode::unsupported : ErrorCode::invalid_model, "to is " + std::to_string(to) + "; accepted: 1 to " + std::to_string(dtype_count - 1));
    return static_cast<DType>(to);
}
inline ew::Rounding rounding(const Attrs& a) {
    ew::Rounding r;
    r.saturate = a.i("saturate", 1) != 0;
    const std::string mode = a.s("round_mode", "up");
    if (mode == "down") r.mode = ew::ScaleRound::down;
    else if (mode == "nearest") r.mode = ew::ScaleRound::nearest;
    else if (mode != "up") raise(ErrorCode::invalid_model, "round_mode is '" + mode + "'; accepted: up, down, nearest");
    return r;
}
/// Opset 1 names the type: "FLOAT".
inline void import_cast(ImportCtx& c) {
    const Attr* to = c.attrs.find("to");
    if (!to || !std::holds_alternative<std::string>(*to)) return;
    std::string name = std::get<std::string>(*to);
    for (char& ch : name) ch = ch >= 'A' && ch <= 'Z' ? static_cast<char>(ch - 'A' + 'a') : ch;
    for (int t = 1; t < dtype_count; ++t)
        if (name == dtype_name(static_cast<DType>(t))) return c.attrs.set("to", static_cast<std::int64_t>(t));
    c.invalid("to is '" + name + "'; accepted: names of element types such as FLOAT");
}
inline void import_cast_like(ImportCtx& c) {
    if (!c.has(0) || !c.has(1)) c.invalid("CastLike takes two inputs");
    const DType t = c.fact(1).dtype;
    if (t == DType::undefined) c.unsupported("the element type of input 1 is not known");
    c.attrs.set("to", static_cast<std::int64_t>(t));
    c.finish("Cast", {c.in[0]}, c.attrs);
}
inline void infer_cast(InferCtx& c) {
    const DType from = c.in(0).dtype, to = target(c.attrs);
    rounding(c.attrs);
    for (DType t : {from, to})
        if (!ew::is_number(t) && t != DType::string)
            raise(ErrorCode::unsupported, std::string("cast from ") + dtype_name(from) + " to " + dtype_name(to) + "; accepted: numbers, bool and strings");
    ops_elementwise::like(c, to);
    ops_elementwise::unary_content(c, [&](const Dim& d) -> std::optional<Dim> {
        if (to != DType::boolean || from == DType::boolean) return d;
        if (d.is_const()) return Dim(d.is(0) ? 0 : 1);
        if (d.positive()) return Dim(1);
        return std::nullopt;
    });
}
inline void simplify_cast(PatchCtx& p) {
    if (p.in(0).dtype == target(p.node().attrs)) p.replace(0, p.node().in[0]);
}
inline Lowered lower_cast(const LowerCtx& c) {
    const DType from = c.in(0).dtype, to = c.out(0).dtype;
    if (from == to) return Lowered::view(0);
    if (c.target.device != Device::cpu) {
        if (to == DType::u64 && is_float(from)) raise(ErrorCode::unsupported, "a cast from float to uint64 on the device");
        ops_elementwise::DeviceProgram p(c);
        p.load(0, is_integer(from));
        if (is_float(from) && is_integer(to)) p.to_whole(to == DType::i64 || to == DType::u32);
        return p.lower();
    }
    if (from == DType::string) return Lowered(std::make_unique<ew::StringToNumberKernel>(rounding(c.attrs)));
    if (to == DType::string) return Lowered(std::make_unique<ew::NumberToStringKernel>());
    return Lowered(std::make_unique<ew::CastKernel>(rounding(c.attrs)));
}
inline void infer_bit_cast(InferCtx& c) {
    const DType from = c.in(0).dtype, to = target(c.attrs);
    if (dtype_bits(from) == 0 || dtype_bits(from) != dtype_bits(to))
        raise(ErrorCode::invalid_model, std::string("BitCast from ") + dtype_name(from) + " to " + dtype_name(to) + "; accepted: types of equal width, not string");
    ops_elementwise::like(c, to);
}
inline Lowered lower_bit_cast(const LowerCtx& c) {
    if (c.in(0).dtype == c.out(0).dtype) return Lowered::view(0);
    return Lowered(std::make_unique<ew::CopyKernel>());
}

}  // namespace ops_cast

QUERN_INLINE const OpDef& op_Cast() {
    static constexpr OpDef def{.name = "Cast", .min_in = 1, .max_in = 1, .newest = 28, .import = ops_cast::import_cast,
                               .infer = ops_cast::infer_cast, .simplify = ops_cast::simplify_cast, .lower = ops_cast::lower_cast, .lower_device = ops_cast::lower_cast};
    return def;
}
QUERN_INLINE const OpDef& op_CastLike() {
    static constexpr OpDef def{.name = "CastLike", .min_in = 2, .max_in = 2, .newest = 25, .import = ops_cast::import_cast_like};
    return def;
}
QUERN_INLINE const OpDef& op_BitCast() {
    static constexpr OpDef def{.name = "BitCast", .min_in = 1, .max_in = 1, .newest = 26, .infer = ops_cast::infer_bit_cast,
                               .lower = ops_cast::lower_bit_cast};
    return def;
}
QUERN_END
