// Weights of a few bits in blocks, domain com.microsoft: MatMulNBits, GatherBlockQuantized, MatMulBnb4.
#pragma once
#include <quern/kernels/elementwise/convert.hpp>
#include <quern/kernels/quant/blocked.hpp>

#include "contrib.hpp"
#include "matmul.hpp"

QUERN_BEGIN
namespace ops_contrib_blocked {

struct Sizes {
    std::int64_t n, k, block, blocks;
    int bits;
};
inline Sizes sizes(const Attrs& a) {
    Sizes s{a.i("N", 0), a.i("K", 0), a.i("block_size", 0), 0, static_cast<int>(std::clamp<std::int64_t>(a.i("bits", 4), 0, 64))};
    if (s.n < 1 || s.k < 1 || s.n > INT32_MAX || s.k > INT32_MAX)
        raise(ErrorCode::invalid_model, "N is " + std::to_string(s.n) + " and K " + std::to_string(s.k) + "; accepted: 1 to 2^31 - 1");
    if (s.bits != 2 && s.bits != 4 && s.bits != 8) raise(ErrorCode::unsupported, "bits is " + std::to_string(a.i("bits", 4)) + "; accepted: 2, 4, 8");
    if (s.block < 16 || s.block > (1 << 20) || (s.block & (s.block - 1)))
        raise(ErrorCode::invalid_model, "block_size is " + std::to_string(s.block) + "; accepted: powers of 2 from 16");
    s.blocks = (s.k + s.block - 1) / s.block;
    return s;
}
/// Bytes of the weights, which fit into 64 bits for every N and K.
inline std::int64_t weight_bytes(const Sizes& s) { return s.n * (s.blocks * (s.block * s.bits / 8)); }
inline void need_count(const InferCtx& c, int i, std::int64_t n, const char* what) {
    if (c.has(i) && c.in(i).concrete() && c.in(i).shape().count() != n)
        c.fail(std::string(what) + " " + c.in(i).to_string() + " has not the " + std::to_string(n) + " elements that K, N, bits and block_size ask for");
}
inline void infer_product(InferCtx& c) {
    Sizes s = sizes(c.attrs);
    DType t = c.in(0).dtype;
    c.need_type(0, {DType::f32, DType::f16, DType::bf16});
    c.need_type(1, {DType::u8});
    c.need_type(2, {DType::f32, DType::f16, DType::bf16});
    if (c.has(3)) c.need_type(3, {DType::u8, DType::f32});
    if (c.has(4)) c.unsupported("g_idx in a graph: import makes the weights wide");
    if (c.has(5)) c.need_type(5, {DType::f32, DType::f16, DType::bf16});
    need_count(c, 1, weight_bytes(s), "B");
    need_count(c, 2, s.n * s.blocks, "the scales");
    if (c.has(3)) need_count(c, 3, c.in(3).dtype == DType::u8 ? s.n * ((s.blocks * s.bits + 7) / 8) : s.n * s.blocks, "the zero points");
    need_count(c, 5, s.n, "the bias");
    if (!c.ranked(0)) return c.set_unranked(0, t);
    c.need_rank(0, 1);
    std::vector<Dim> y = c.in(0).dims;
    ops_window::same(c, y.back(), Dim(s.k), "the last dimension of A and K");
    y.back() = Dim(s.n);
    c.set(0, t, std::move(y));
}
/// Weights as floats [K, N] where each value names its own block.
inline Tensor widened(const quant::BlockedProblem& p, const Tensor& order) {
    std::int64_t blocks = (p.k + p.block - 1) / p.block, row = blocks * p.block * p.bits / 8, zero_row = (blocks * p.bits + 7) / 8;
    auto field = [&](const Tensor& t, std::int64_t at, std::int64_t i) {
        return static_cast<const std::uint8_t*>(t.raw())[at + i * p.bits / 8] >> (i * p.bits % 8) & ((1 << p.bits) - 1);
    };
    Tensor w(DType::f32, {p.k, p.n});
    for (std::int64_t k = 0; k < p.k; ++k) {
        std::int64_t b = order.data<std::int32_t>()[static_cast<std::size_t>(k)];
        if (b < 0 || b >= blocks) raise(ErrorCode::invalid_model, "g_idx holds " + std::to_string(b) + "; accepted: 0 to " + std::to_string(blocks - 1));
        for (std::int64_t j = 0; j < p.n; ++j) {
            auto at = static_cast<std::size_t>(j * blocks + b);
            float zero = !p.zeros.defined() ? static_cast<float>(1 << (p.bits - 1)) : p.zeros.dtype() == DType::u8 ? static_cast<float>(field(p.zeros, j * zero_row, b)) : p.zeros.data<float>()[at];
            w.data<float>()[static_cast<std::size_t>(k * p.n + j)] = (static_cast<float>(field(p.q, j * row, k)) - zero) * p.scales.data<float>()[at];
        }
    }
    return w;
}
/// Zero points that are floats are f32. Values that name their own blocks (g_idx) are made wide: a MatMul.
inline void import_product(ImportCtx& c) {
    ops_contrib::Make m{c};
    if (c.has(3) && is_float(c.fact(3).dtype)) c.in[3] = m.cast(c.in[3], DType::f32);
    if (!c.has(4)) return;
    Sizes s = sizes(c.attrs);
    quant::BlockedProblem p;
    p.n = s.n, p.k = s.k, p.block = s.block, p.bits = s.bits;
    p.q = c.fact(1).value, p.scales = c.fact(2).value, p.zeros = c.has(3) ? c.fact(3).value : Tensor();
    Tensor order = c.fact(4).value;
    if (!p.q.defined() || p.scales.dtype() != DType::f32 || (c.has(3) && !p.zeros.defined()) || !order.defined() || order.dtype() != DType::i32)
        c.unsupported("g_idx with weights that are computed or scales that are no float; constants are accepted");
    std::int64_t zeros = !c.has(3) ? 0 : p.zeros.dtype() == DType::u8 ? s.n * ((s.blocks * s.bits + 7) / 8) : s.n * s.blocks;
    if (p.q.count() != weight_bytes(s) || p.scales.count() != s.n * s.blocks || order.count() < s.k || (c.has(3) && p.zeros.count() != zeros))
        c.invalid("weights, scales, zero points or g_idx have not the sizes that K, N, bits and block_size ask for");
    p.q = p.q.aligned(), p.scales = p.scales.aligned(), order = order.aligned();
    if (p.zeros.defined()) p.zeros = p.zeros.aligned();
    c.alias(0, m.add_if(m.op("MatMul", {m.need(0), m.like(c.constant(widened(p, order)), c.in[0])}), m.input(5)));
}
inline Lowered lower_product(const LowerCtx& c) {
    Sizes s = sizes(c.attrs);
    quant::BlockedProblem p;
    p.n = s.n, p.k = s.k, p.block = s.block, p.bits = s.bits;
    p.integer = c.attrs.i("accuracy_level", 0) == 4;
    p.q = c.constant(1), p.scales = c.constant(2), p.zeros = c.constant(3);
    if (!p.q.defined() || !p.scales.defined() || (c.has(3) && !p.zeros.defined()))
        raise(ErrorCode::unsupported, "weights, scales or zero points of MatMulNBits are computed; constants are accepted");
    return Lowered(std::make_unique<quant::BlockedKernel>(p, c.target.isa));
}

inline void infer_gather(InferCtx& c) {
    const Fact &x = c.in(0), &i = c.in(1);
    DType t = c.in(2).dtype;
    c.need_type(0, {DType::u8, DType::u4, DType::i4});
    c.need_type(1, {DType::i32, DType::i64});
    c.need_type(2, {DType::f32, DType::f16, DType::bf16});
    if (c.has(3)) c.need_same_type(3, 0);
    std::int64_t bits = c.attrs.i("bits", 4), block = c.attrs.i("block_size", 128);
    if (x.dtype == DType::u8 && bits != 4 && bits != 8) c.unsupported("bits is " + std::to_string(bits) + "; accepted: 4, 8");
    if (block < 16 || (block & (block - 1))) raise(ErrorCode::invalid_model, "block_size is " + std::to_string(block) + "; accepted: powers of 2 from 16");
    if (!x.ranked || !i.ranked) return c.set_unranked(0, t);
    c.need_rank(0, 2);
    c.need_rank(2, x.rank(), x.rank());
    if (c.has(3)) c.need_rank(3, x.rank(), x.rank());
    int gather = c.axis(c.attrs.i("gather_axis", 0), x.rank()), axis = c.axis(c.attrs.i("quantize_axis", 1), x.rank());
    if (gather == x.rank() - 1 || gather == axis) c.unsupported("gather_axis is " + std::to_string(gather) + ", which is the last or the quantized dimension");
    std::vector<Dim> whole = x.dims;
    if (x.dtype == DType::u8) whole.back() = whole.back() * Dim(8 / bits);
    for (int d = 0; d < x.rank() && c.ranked(2); ++d)
        ops_window::same(c, c.in(2).dims[static_cast<std::size_t>(d)], d == axis ? ceil_div(whole[static_cast<std::size_t>(d)], Dim(block)) : whole[static_cast<std::size_t>(d)], "dimensions of the scales");
    for (int d = 0; c.has(3) && d < x.rank() && c.ranked(3) && c.ranked(2); ++d) {
        Dim want = c.in(2).dims[static_cast<std::size_t>(d)];
        if (d == x.rank() - 1 && x.dtype == DType::u8) want = ceil_div(want, Dim(8 / bits));
        ops_window::same(c, c.in(3).dims[static_cast<std::size_t>(d)], want, "dimensions of the zero points");
    }
    std::vector<Dim> y(whole.begin(), whole.begin() + gather);
    y.insert(y.end(), i.dims.begin(), i.dims.end());
    y.insert(y.end(), whole.begin() + gather + 1, whole.end());
    c.set(0, t, std::move(y));
}
inline Lowered lower_gather(const LowerCtx& c) {
    auto axis = [&](const char* name, std::int64_t otherwise) {
        std::int64_t a = c.attrs.i(name, otherwise);
        return static_cast<int>(a < 0 ? a + c.in(0).rank() : a);
    };
    DType t = c.in(0).dtype;
    int bits = t == DType::u8 ? static_cast<int>(c.attrs.i("bits", 4)) : 4;
    return Lowered(std::make_unique<quant::GatherBlocksKernel>(axis("gather_axis", 0), axis("quantize_axis", 1), c.attrs.i("block_size", 128), bits, t == DType::i4, t == DType::u8 ? 1 << (bits - 1) : 0));
}

/// The values of bitsandbytes' codes of 4 bits: quantiles of the normal distribution (https://arxiv.org/abs/2305.14314, appendix E), or floats.
inline float bnb4(bool normal, unsigned code) {
    static constexpr float quantiles[16] = {-1.f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
                                            -0.09105003625154495f, 0.f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
                                            0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.f};
    static constexpr float floats[8] = {0.f, 0.005208333333f, 0.6666666667f, 1.f, 0.3333333333f, 0.5f, 0.1666666667f, 0.25f};
    return normal ? quantiles[code] : code & 8 ? -floats[code & 7] : floats[code & 7];
}
/// The weights become wide when loading: a constant of A's type, [K, N] (transB) or [N, K].
inline void import_bnb4(ImportCtx& c) {
    ops_contrib::Make m{c};
    const std::int64_t n = c.attrs.i("N", 0), k = c.attrs.i("K", 0), block = c.attrs.i("block_size", 0), type = c.attrs.i("quant_type", 1);
    if (n < 1 || k < 1 || n > INT32_MAX || k > INT32_MAX) c.invalid("N is " + std::to_string(n) + " and K " + std::to_string(k) + "; accepted: 1 to 2^31 - 1");
    if (block < 16 || (block & (block - 1))) c.invalid("block_size is " + std::to_string(block) + "; accepted: powers of 2 from 16");
    if (type != 0 && type != 1) c.invalid("quant_type is " + std::to_string(type) + "; accepted: 0 (FP4), 1 (NF4)");
    const Tensor b = c.fact(1).value, most = c.fact(2).value.aligned();
    if (!b.defined() || !most.defined()) c.unsupported("MatMulBnb4 whose weights are no constants");
    if (!is_float(most.dtype())) c.invalid(std::string("absmax is ") + dtype_name(most.dtype()) + "; accepted: floating-point types");
    const std::int64_t count = n * k;
    if (b.dtype() != DType::u8 || b.count() != (count + 1) / 2 || most.count() != (count + block - 1) / block)
        c.invalid("B is " + c.fact(1).to_string() + " and absmax " + c.fact(2).to_string() + "; accepted: uint8 of N * K / 2 elements and one absmax for each block");
    const bool turned = c.attrs.i("transB", 1) != 0;
    Tensor w(DType::f32, turned ? Shape{k, n} : Shape{n, k});
    std::vector<float> scale(static_cast<std::size_t>(most.count()));
    ew::convert(most.dtype(), most.raw(), 0, DType::f32, scale.data(), 0, most.count());
    auto to = w.data<float>();
    for (std::int64_t i = 0; i < count; ++i) {
        const unsigned byte = static_cast<const std::uint8_t*>(b.raw())[i / 2];
        const float v = bnb4(type == 1, i % 2 ? byte & 15 : byte >> 4) * scale[static_cast<std::size_t>(i / block)];
        to[static_cast<std::size_t>(turned ? i % k * n + i / k : i)] = v;
    }
    c.finish("MatMul", {m.need(0), m.like(c.constant(std::move(w)), c.in[0])});
}

}  // namespace ops_contrib_blocked

QUERN_INLINE const OpDef& op_com_microsoft_MatMulNBits() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "MatMulNBits", .min_in = 3, .max_in = 6, .newest = 1, .import = ops_contrib_blocked::import_product,
                               .infer = ops_contrib_blocked::infer_product, .lower = ops_contrib_blocked::lower_product, .compute = Compute::f32, .promote_in = 1u | 4u | 32u};
    return def;
}
QUERN_INLINE const OpDef& op_com_microsoft_GatherBlockQuantized() {
    static constexpr OpDef def{.domain = "com.microsoft", .name = "GatherBlockQuantized", .min_in = 3, .max_in = 4, .newest = 1,
                               .infer = ops_contrib_blocked::infer_gather, .lower = ops_contrib_blocked::lower_gather, .compute = Compute::f32, .promote_in = 4u};
    return def;
}
QUERN_IMPORTED(com_microsoft_MatMulBnb4, ops_contrib::microsoft, "MatMulBnb4", 3, 3, ops_contrib_blocked::import_bnb4)
QUERN_END
