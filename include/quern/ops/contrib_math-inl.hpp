// Products, convolutions and movement of domain com.microsoft: FusedMatMul, TransposeMatMul, FusedGemm, GemmFastGelu, FusedConv, NhwcMaxPool,
// QLinearConv, QLinearReduceMean, QLinearWhere, QuantizeLinear, DequantizeLinear, DynamicQuantizeMatMul, DynamicQuantizeLSTM, CDist,
// ExpandDims, Range, Trilu, Unique, GridSample, Pad, GatherND, Rfft, Irfft, Inverse; Affine, ImageScaler, ScaledTanh,
// ParametricSoftplus, Crop of the first opsets.
#pragma once
#include <quern/kernels/sample/sample.hpp>

#include "contrib.hpp"

QUERN_BEGIN
namespace ops_contrib_math {
using ops_contrib::Make;

/// The activation of a fused node over v.
inline ValueId activated(const Make& m, ValueId v, const char* name_attr, const char* params_attr) {
    std::string f = m.c.attrs.s(name_attr, "");
    if (f.empty()) return v;
    std::vector<float> p = params_attr ? m.c.attrs.floats(params_attr) : std::vector<float>{};
    auto given = [&](std::size_t i, float otherwise, const char* name) { return i < p.size() ? p[i] : m.c.attrs.f(name, otherwise); };
    if (f == "Relu" || f == "Sigmoid" || f == "Tanh" || f == "Softplus" || f == "Softsign" || f == "HardSwish") return m.op(f, {v});
    if (f == "LeakyRelu") return m.op(f, {v}, {{"alpha", given(0, 0.01f, "activation_alpha")}});
    if (f == "Elu") return m.op(f, {v}, {{"alpha", given(0, 1.f, "activation_alpha")}});
    if (f == "HardSigmoid") return m.op(f, {v}, {{"alpha", given(0, 0.2f, "activation_alpha")}, {"beta", given(1, 0.5f, "activation_beta")}});
    if (f == "Clip") {
        DType t = m.type(v);
        return m.op(f, {v, m.number(t, given(0, std::numeric_limits<float>::lowest(), "activation_alpha")), m.number(t, given(1, std::numeric_limits<float>::max(), "activation_beta"))});
    }
    m.c.unsupported("activation '" + f + "'; accepted: Relu, Sigmoid, Tanh, LeakyRelu, Clip, HardSigmoid, HardSwish, Elu, Softplus, Softsign");
}

/// The last two dimensions exchanged; `batch`: dimension 0 first moves before the last but one.
inline ValueId turned(const Make& m, ValueId v, bool trans, bool batch, const char* what) {
    if (!trans && !batch) return v;
    int r = m.rank(v, what);
    if (r < 2) return v;
    std::vector<std::int64_t> p;
    for (int d = batch ? 1 : 0; d < r - 1; ++d) p.push_back(d);
    if (batch) p.push_back(0);
    p.push_back(r - 1);
    if (trans) std::swap(p[static_cast<std::size_t>(r) - 1], p[static_cast<std::size_t>(r) - 2]);
    return m.transpose(v, p);
}
inline ValueId scaled(const Make& m, ValueId v, float by) { return by == 1.f ? v : m.op("Mul", {v, m.number(m.type(v), by)}); }
inline void import_fused_matmul(ImportCtx& c) {
    Make m{c};
    ValueId a = turned(m, m.need(0), c.attrs.i("transA", 0) != 0, c.attrs.i("transBatchA", 0) != 0, "A");
    ValueId b = turned(m, m.need(1), c.attrs.i("transB", 0) != 0, c.attrs.i("transBatchB", 0) != 0, "B");
    c.alias(0, activated(m, scaled(m, m.op("MatMul", {a, b}), c.attrs.f("alpha", 1)), "activation", nullptr));
}
inline void import_fused_gemm(ImportCtx& c) {
    Make m{c};
    ValueId y = m.op("MatMul", {turned(m, m.need(0), c.attrs.i("transA", 0) != 0, false, "A"), turned(m, m.need(1), c.attrs.i("transB", 0) != 0, false, "B")});
    y = scaled(m, y, c.attrs.f("alpha", 1));
    if (c.has(2)) y = m.op("Add", {y, scaled(m, c.in[2], c.attrs.f("beta", 1))});
    c.alias(0, activated(m, y, "activation", nullptr));
}
inline void import_gemm_gelu(ImportCtx& c) {
    Make m{c};
    c.finish("Gelu", {m.add_if(m.op("MatMul", {m.need(0), m.need(1)}), m.input(2))}, Make::attrs({{"approximate", "tanh"}}));
}
inline void import_fused_conv(ImportCtx& c) {
    Make m{c};
    Attrs a = c.attrs;
    for (const char* name : {"activation", "activation_params"}) a.erase(name);
    std::vector<ValueId> in{m.need(0), m.need(1)};
    if (c.has(2)) in.push_back(c.in[2]);
    c.alias(0, activated(m, m.add_if(c.add("Conv", in, a)[0], m.input(3)), "activation", "activation_params"));
}
inline void import_nhwc_max_pool(ImportCtx& c) {
    Make m{c};
    c.alias(0, m.channels_last(c.add("MaxPool", {m.channels_first(m.need(0))}, c.attrs)[0]));
}

inline ValueId dequantized(const Make& m, std::size_t x, std::size_t scale, std::size_t zero) { return m.op("DequantizeLinear", {m.need(x), m.need(scale), m.input(zero)}); }
inline ValueId quantized(const Make& m, ValueId y, std::size_t scale, std::size_t zero, DType t) {
    return m.op("QuantizeLinear", {y, m.need(scale), m.c.has(zero) ? m.c.in[zero] : m.number(t, 0)});
}
inline void import_qlinear_conv(ImportCtx& c) {
    Make m{c};
    bool last = c.attrs.i("channels_last", 0) != 0;
    c.attrs.erase("channels_last");
    if (!last) return c.finish("QLinearConv", c.in, c.attrs);
    std::vector<ValueId> in = c.in;
    in[0] = m.channels_first(m.need(0));
    c.alias(0, m.channels_last(c.add("QLinearConv", in, c.attrs)[0]));
}
inline void import_qlinear_mean(ImportCtx& c) {
    Make m{c};
    std::vector<std::int64_t> axes = c.attrs.ints("axes");
    ValueId y = m.op("ReduceMean", {dequantized(m, 0, 1, 2), axes.empty() ? no_value : m.ints(axes)}, {{"keepdims", c.attrs.i("keepdims", 1)}});
    c.alias(0, quantized(m, y, 3, 4, m.type(c.in[0])));
}
inline void import_qlinear_where(ImportCtx& c) {
    Make m{c};
    c.alias(0, quantized(m, m.op("Where", {m.need(0), dequantized(m, 1, 2, 3), dequantized(m, 4, 5, 6)}), 7, 8, m.type(m.need(1))));
}
inline void import_quantize(ImportCtx& c) { c.finish("QuantizeLinear", c.in, c.attrs); }
inline void import_dequantize(ImportCtx& c) { c.finish("DequantizeLinear", c.in, c.attrs); }
/// A is quantized as a whole when it runs.
inline void import_dynamic_matmul(ImportCtx& c) {
    Make m{c};
    auto a = m.all("DynamicQuantizeLinear", {m.need(0)}, {}, 3);
    c.alias(0, m.add_if(m.op("com.microsoft::MatMulIntegerToFloat", {a[0], m.need(1), a[1], m.need(2), a[2], m.input(3)}), m.input(4)));
}
/// LSTM whose weights [directions, K, 4H] are of 8 bits; they are made wide when loading.
inline void import_dynamic_lstm(ImportCtx& c) {
    Make m{c};
    auto wide = [&](std::size_t w, std::size_t scale) {
        auto side = [&](ValueId v) {
            v = m.cast(v, DType::f32);
            return m.rank(v, "a scale") == 2 ? m.unsqueeze(v, {1}) : m.reshape(v, {-1, 1, 1});
        };
        ValueId x = m.cast(m.need(w), DType::f32);
        if (c.has(scale + 1)) x = m.op("Sub", {x, side(c.in[scale + 1])});
        return m.transpose(m.op("Mul", {x, side(m.need(scale))}), {0, 2, 1});
    };
    std::vector<ValueId> in{m.need(0), wide(1, 8), wide(2, 10)};
    for (std::size_t i = 3; i < 8; ++i) in.push_back(m.input(i));
    while (in.back() == no_value) in.pop_back();
    c.finish("LSTM", in, c.attrs);
}

/// Distances of the rows of A from those of B.
inline void import_cdist(ImportCtx& c) {
    Make m{c};
    std::string metric = c.attrs.s("metric", "sqeuclidean");
    if (metric != "euclidean" && metric != "sqeuclidean") c.unsupported("metric '" + metric + "'; accepted: euclidean, sqeuclidean");
    ValueId d = m.op("Sub", {m.unsqueeze(m.need(0), {1}), m.unsqueeze(m.need(1), {0})});
    ValueId s = m.op("ReduceSumSquare", {d, m.ints({2})}, {{"keepdims", 0}});
    c.alias(0, metric == "euclidean" ? m.op("Sqrt", {s}) : s);
}
inline void import_expand_dims(ImportCtx& c) {
    Make m{c};
    c.finish("Unsqueeze", {m.need(0), m.op("Reshape", {m.cast(m.need(1), DType::i64), m.ints({1})})}, {});
}
inline void import_range(ImportCtx& c) {
    Make m{c};
    c.finish("Range", {m.need(0), m.need(1), c.has(2) ? c.in[2] : m.number(m.type(c.in[0]), 1)}, {});
}
inline void import_trilu(ImportCtx& c) { c.finish("Trilu", c.in, c.attrs); }
inline void import_gather_nd(ImportCtx& c) {
    Make m{c};
    c.finish("GatherND", {m.need(0), m.cast(m.need(1), DType::i64)}, {});
}
/// Values in the order of their first appearance, where each stands, how often.
inline void import_unique(ImportCtx& c) {
    Make m{c};
    auto y = m.all("Unique", {m.need(0)}, {{"sorted", 0}}, 4);
    c.alias(0, y[0]);
    c.alias(1, y[2]);
    c.alias(2, y[3]);
}
inline void import_grid_sample(ImportCtx& c) {
    std::string mode = c.attrs.s("mode", "bilinear");
    c.attrs.set("mode", mode == "bilinear" ? std::string("linear") : mode == "bicubic" ? std::string("cubic") : mode);
    c.finish("GridSample", c.in, c.attrs);
}
inline void import_pad(ImportCtx& c) {
    Make m{c};
    ValueId pads = m.need(1);
    if (m.rank(pads, "pads") == 2) pads = m.reshape(pads, {-1});
    c.finish("Pad", c.has(2) ? std::vector<ValueId>{m.need(0), pads, m.rank(c.in[2], "value") == 0 ? c.in[2] : m.reshape(c.in[2], {})} : std::vector<ValueId>{m.need(0), pads}, c.attrs);
}
inline void need_plain_fft(const ImportCtx& c) {
    if (c.attrs.i("normalized", 0) || !c.attrs.i("onesided", 1) || c.attrs.i("signal_ndim", 1) != 1)
        c.unsupported("normalized, two-sided or several transformed dimensions; accepted: normalized 0, onesided 1, signal_ndim 1");
}
inline void import_rfft(ImportCtx& c) {
    Make m{c};
    need_plain_fft(c);
    c.finish("DFT", {m.unsqueeze(m.need(0), {-1})}, Make::attrs({{"onesided", 1}}));
}
inline void import_irfft(ImportCtx& c) {
    Make m{c};
    need_plain_fft(c);
    c.alias(0, m.squeeze(m.op("DFT", {m.need(0)}, {{"onesided", 1}, {"inverse", 1}}), {-1}));
}

inline void import_affine(ImportCtx& c) {
    Make m{c};
    DType t = m.type(m.need(0));
    c.finish("Add", {m.op("Mul", {c.in[0], m.number(t, c.attrs.f("alpha", 1))}), m.number(t, c.attrs.f("beta", 0))}, {});
}
inline void import_image_scaler(ImportCtx& c) {
    Make m{c};
    std::vector<float> bias = c.attrs.floats("bias");
    ValueId b = c.constant(Tensor::from(std::span<const float>(bias), {static_cast<std::int64_t>(bias.size()), 1, 1}));
    c.finish("Add", {m.op("Mul", {m.need(0), m.number(m.type(c.in[0]), c.attrs.f("scale", 1))}), m.like(b, c.in[0])}, {});
}
inline void import_scaled_tanh(ImportCtx& c) {
    Make m{c};
    c.alias(0, scaled(m, m.op("Tanh", {scaled(m, m.need(0), c.attrs.f("beta", 0))}), c.attrs.f("alpha", 0)));
}
inline void import_parametric_softplus(ImportCtx& c) {
    Make m{c};
    c.alias(0, scaled(m, m.op("Softplus", {scaled(m, m.need(0), c.attrs.f("beta", 0))}), c.attrs.f("alpha", 0)));
}
/// Borders (left, top, right, bottom) are cut off an image [N, C, H, W], or a window of `scale` = (h, w) is cut out at (left, top).
inline void import_crop(ImportCtx& c) {
    Make m{c};
    std::vector<std::int64_t> b = c.attrs.ints("border"), scale = c.attrs.ints("scale");
    if (b.size() != 4 || (!scale.empty() && scale.size() != 2)) c.invalid("border has " + std::to_string(b.size()) + " numbers and scale " + std::to_string(scale.size()) + "; accepted: 4, and 0 or 2");
    for (auto* list : {&b, &scale})
        for (std::int64_t v : *list)
            if (v < 0 || v > INT32_MAX) c.invalid("border or scale holds " + std::to_string(v) + "; accepted: 0 to 2^31 - 1");
    ValueId ends = scale.empty() ? m.op("Sub", {m.op("Shape", {m.need(0)}, {{"start", 2}, {"end", 4}}), m.ints({b[3], b[2]})}) : m.ints({b[1] + scale[0], b[0] + scale[1]});
    c.finish("Slice", {m.need(0), m.ints({b[1], b[0]}), ends, m.ints({2, 3})}, {});
}

inline void infer_inverse(InferCtx& c) {
    c.need_type(0, {DType::f32, DType::f64, DType::f16});
    if (!c.ranked(0)) return c.set_unranked(0, c.in(0).dtype);
    c.need_rank(0, 2);
    const auto& d = c.in(0).dims;
    ops_util::same_dim(c, d[d.size() - 1], d[d.size() - 2], "a square matrix");
    c.set(0, c.in(0).dtype, d);
}
inline Lowered lower_inverse(const LowerCtx&) { return ops_util::kernel<sample::Inverse>(); }

}  // namespace ops_contrib_math

QUERN_INLINE const OpDef& op_com_microsoft_Inverse() {
    static constexpr OpDef def{.domain = ops_contrib::microsoft, .name = "Inverse", .min_in = 1, .max_in = 1, .newest = 1,
                               .infer = ops_contrib_math::infer_inverse, .lower = ops_contrib_math::lower_inverse, .compute = Compute::real};
    return def;
}
QUERN_IMPORTED(com_microsoft_FusedMatMul, ops_contrib::microsoft, "FusedMatMul", 2, 2, ops_contrib_math::import_fused_matmul)
QUERN_IMPORTED(com_microsoft_FusedMatMulActivation, ops_contrib::microsoft, "FusedMatMulActivation", 2, 2, ops_contrib_math::import_fused_matmul)
QUERN_IMPORTED(com_microsoft_TransposeMatMul, ops_contrib::microsoft, "TransposeMatMul", 2, 2, ops_contrib_math::import_fused_matmul)
QUERN_IMPORTED(com_microsoft_FusedGemm, ops_contrib::microsoft, "FusedGemm", 2, 3, ops_contrib_math::import_fused_gemm)
QUERN_IMPORTED(com_microsoft_GemmFastGelu, ops_contrib::microsoft, "GemmFastGelu", 2, 3, ops_contrib_math::import_gemm_gelu)
QUERN_IMPORTED(com_microsoft_FusedConv, ops_contrib::microsoft, "FusedConv", 2, 4, ops_contrib_math::import_fused_conv)
QUERN_IMPORTED(com_microsoft_NhwcMaxPool, ops_contrib::microsoft, "NhwcMaxPool", 1, 1, ops_contrib_math::import_nhwc_max_pool)
QUERN_IMPORTED(com_microsoft_QLinearConv, ops_contrib::microsoft, "QLinearConv", 8, 9, ops_contrib_math::import_qlinear_conv)
QUERN_IMPORTED(com_microsoft_QLinearReduceMean, ops_contrib::microsoft, "QLinearReduceMean", 4, 5, ops_contrib_math::import_qlinear_mean)
QUERN_IMPORTED(com_microsoft_QLinearWhere, ops_contrib::microsoft, "QLinearWhere", 9, 9, ops_contrib_math::import_qlinear_where)
QUERN_IMPORTED(com_microsoft_QuantizeLinear, ops_contrib::microsoft, "QuantizeLinear", 2, 3, ops_contrib_math::import_quantize)
QUERN_IMPORTED(com_microsoft_DequantizeLinear, ops_contrib::microsoft, "DequantizeLinear", 2, 3, ops_contrib_math::import_dequantize)
QUERN_IMPORTED(com_microsoft_DynamicQuantizeMatMul, ops_contrib::microsoft, "DynamicQuantizeMatMul", 3, 5, ops_contrib_math::import_dynamic_matmul)
QUERN_IMPORTED(com_microsoft_DynamicQuantizeLSTM, ops_contrib::microsoft, "DynamicQuantizeLSTM", 12, 12, ops_contrib_math::import_dynamic_lstm, 3)
QUERN_IMPORTED(com_microsoft_CDist, ops_contrib::microsoft, "CDist", 2, 2, ops_contrib_math::import_cdist)
QUERN_IMPORTED(com_microsoft_ExpandDims, ops_contrib::microsoft, "ExpandDims", 2, 2, ops_contrib_math::import_expand_dims)
QUERN_IMPORTED(com_microsoft_Range, ops_contrib::microsoft, "Range", 2, 3, ops_contrib_math::import_range)
QUERN_IMPORTED(com_microsoft_Trilu, ops_contrib::microsoft, "Trilu", 1, 2, ops_contrib_math::import_trilu)
QUERN_IMPORTED(com_microsoft_GatherND, ops_contrib::microsoft, "GatherND", 2, 2, ops_contrib_math::import_gather_nd)
QUERN_IMPORTED(com_microsoft_Unique, ops_contrib::microsoft, "Unique", 1, 1, ops_contrib_math::import_unique, 3)
QUERN_IMPORTED(com_microsoft_GridSample, ops_contrib::microsoft, "GridSample", 2, 2, ops_contrib_math::import_grid_sample)
QUERN_IMPORTED(com_microsoft_Pad, ops_contrib::microsoft, "Pad", 2, 3, ops_contrib_math::import_pad)
QUERN_IMPORTED(com_microsoft_Rfft, ops_contrib::microsoft, "Rfft", 1, 1, ops_contrib_math::import_rfft)
QUERN_IMPORTED(com_microsoft_Irfft, ops_contrib::microsoft, "Irfft", 1, 1, ops_contrib_math::import_irfft)
QUERN_IMPORTED(Affine, "", "Affine", 1, 1, ops_contrib_math::import_affine)
QUERN_IMPORTED(ImageScaler, "", "ImageScaler", 1, 1, ops_contrib_math::import_image_scaler)
QUERN_IMPORTED(ScaledTanh, "", "ScaledTanh", 1, 1, ops_contrib_math::import_scaled_tanh)
QUERN_IMPORTED(ParametricSoftplus, "", "ParametricSoftplus", 1, 1, ops_contrib_math::import_parametric_softplus)
QUERN_IMPORTED(Crop, "", "Crop", 1, 1, ops_contrib_math::import_crop)
QUERN_END
