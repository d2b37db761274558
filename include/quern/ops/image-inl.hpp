// ImageDecoder: https://onnx.ai/onnx/operators/onnx__ImageDecoder.html
#pragma once
#include "shape_util.hpp"
#include <quern/kernels/image/decode.hpp>

QUERN_BEGIN
namespace ops_image {

inline image::Layout layout_of(const Attrs& a) {
    const std::string f = a.s("pixel_format", "RGB");
    if (f == "RGB") return image::Layout::rgb;
    if (f == "BGR") return image::Layout::bgr;
    if (f == "Grayscale") return image::Layout::grey;
    raise(ErrorCode::invalid_model, "pixel_format '" + f + "'; accepted: RGB, BGR, Grayscale");
}
QUERN_INLINE void infer(InferCtx& ctx) {
    ctx.need_type(0, {DType::u8});
    ctx.need_rank(0, 1, 1);
    const Dim channels = layout_of(ctx.attrs) == image::Layout::grey ? 1 : 3;
    if (ctx.concrete) ctx.set(0, DType::u8, {0, 0, channels});
    else ctx.set(0, DType::u8, {ctx.fresh("height"), ctx.fresh("width"), channels});
}
QUERN_INLINE Lowered lower(const LowerCtx& ctx) { return ops_util::kernel<image::Decoder>(layout_of(ctx.attrs)); }

}  // namespace ops_image

QUERN_INLINE const OpDef& op_ImageDecoder() {
    static constexpr OpDef def{.name = "ImageDecoder", .min_in = 1, .max_in = 1, .newest = 20, .infer = ops_image::infer, .lower = ops_image::lower};
    return def;
}
QUERN_END
