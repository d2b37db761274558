// Einsum: https://onnx.ai/onnx/operators/onnx__Einsum.html
#pragma once
#include <quern/kernels/einsum/einsum.hpp>

#include "op.hpp"

QUERN_BEGIN
namespace ops_einsum {

inline void infer(InferCtx& ctx) {
    DType t = ctx.in(0).dtype;
    ctx.need_type(0, {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i8, DType::i16, DType::i32, DType::i64, DType::u8, DType::u16, DType::u32, DType::u64});
    std::string equation = ctx.attrs.s("equation", "");
    std::vector<int> ranks;
    for (int i = 0; i < ctx.n_in(); ++i) {
        ctx.need_same_type(0, i);
        if (!ctx.ranked(i)) return ctx.set_unranked(0, t);
        ranks.push_back(ctx.in(i).rank());
    }
    einsum::Equation e = einsum::parse(equation, ranks);
    std::vector<std::pair<int, Dim>> sizes;
    for (int i = 0; i < ctx.n_in(); ++i)
        for (std::size_t d = 0; d < e.in[static_cast<std::size_t>(i)].size(); ++d) {
            int label = e.in[static_cast<std::size_t>(i)][d];
            const Dim& size = ctx.in(i).dims[d];
            auto it = std::find_if(sizes.begin(), sizes.end(), [&](auto& s) { return s.first == label; });
            if (it == sizes.end()) sizes.push_back({label, size});
            else it->second = broadcast(it->second, size);
        }
    std::vector<Dim> y;
    for (int label : e.out)
        for (auto& s : sizes)
            if (s.first == label) y.push_back(s.second);
    ctx.set(0, t, std::move(y));
}
inline Lowered lower(const LowerCtx& ctx) {
    std::vector<int> ranks;
    for (int i = 0; i < ctx.n_in(); ++i) ranks.push_back(ctx.in(i).rank());
    return Lowered(std::make_unique<einsum::ContractKernel>(ctx.in(0).dtype, einsum::parse(ctx.attrs.s("equation", ""), ranks), vec::table(ctx.target.isa)));
}

}  // namespace ops_einsum

QUERN_INLINE const OpDef& op_Einsum() {
    static constexpr OpDef def{.name = "Einsum", .min_in = 1, .newest = 28, .infer = ops_einsum::infer, .lower = ops_einsum::lower,
                               .compute = Compute::arith};
    return def;
}

QUERN_END
