// Softmax over the last axis with Highway: one source, one function per instruction set, each taken from its own
// target namespace (the process-wide dispatch would ignore Options::isa).
#include <hwy/detect_targets.h>
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <quern/kernels/softmax/simd.cpp>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// math-inl.h guards itself once per target.
#include <hwy/contrib/math/math-inl.h>

#include <quern/version.hpp>

HWY_BEFORE_NAMESPACE();
QUERN_BEGIN
namespace softmax {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

[[maybe_unused]] static void row(const float* x, float* y, std::size_t n, bool log) {
    const hn::ScalableTag<float> d;
    using V = hn::Vec<decltype(d)>;
    const std::size_t w = hn::Lanes(d), whole = n / w * w;
    const V low = hn::Set(d, -__builtin_inff());
    V m0 = low, m1 = low;
    std::size_t i = 0;
    for (; i + 2 * w <= whole; i += 2 * w) {
        m0 = hn::Max(m0, hn::LoadU(d, x + i));
        m1 = hn::Max(m1, hn::LoadU(d, x + i + w));
    }
    for (; i < whole; i += w) m0 = hn::Max(m0, hn::LoadU(d, x + i));
    const auto rest = hn::FirstN(d, n - whole);
    V last = low;
    if (whole < n) {
        last = hn::IfThenElse(rest, hn::MaskedLoad(rest, d, x + whole), low);
        m1 = hn::Max(m1, last);
    }
    const V top = hn::MaxOfLanes(d, hn::Max(m0, m1));
    V s0 = hn::Zero(d), s1 = s0;
    for (i = 0; i + 2 * w <= whole; i += 2 * w) {
        V a = hn::Exp(d, hn::Sub(hn::LoadU(d, x + i), top)), b = hn::Exp(d, hn::Sub(hn::LoadU(d, x + i + w), top));
        if (!log) {
            hn::StoreU(a, d, y + i);
            hn::StoreU(b, d, y + i + w);
        }
        s0 = hn::Add(s0, a);
        s1 = hn::Add(s1, b);
    }
    for (; i < whole; i += w) {
        V a = hn::Exp(d, hn::Sub(hn::LoadU(d, x + i), top));
        if (!log) hn::StoreU(a, d, y + i);
        s0 = hn::Add(s0, a);
    }
    V end = hn::Zero(d);
    if (whole < n) {
        end = hn::IfThenElseZero(rest, hn::Exp(d, hn::Sub(last, top)));
        s1 = hn::Add(s1, end);
    }
    const V sum = hn::SumOfLanes(d, hn::Add(s0, s1));
    if (log) {
        const V shift = hn::Log(d, sum);
        for (i = 0; i < whole; i += w) hn::StoreU(hn::Sub(hn::Sub(hn::LoadU(d, x + i), top), shift), d, y + i);
        if (whole < n) hn::BlendedStore(hn::Sub(hn::Sub(last, top), shift), rest, d, y + whole);
        return;
    }
    const V scale = hn::Div(hn::Set(d, 1.f), sum);
    for (i = 0; i < whole; i += w) hn::StoreU(hn::Mul(hn::LoadU(d, y + i), scale), d, y + i);
    if (whole < n) hn::BlendedStore(hn::Mul(end, scale), rest, d, y + whole);
}

}  // namespace HWY_NAMESPACE
}  // namespace softmax
QUERN_END
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <string>

#include <quern/kernels/elementwise/rows.hpp>
#include <quern/kernels/softmax/softmax.hpp>

QUERN_BEGIN
namespace softmax {

using Row = void (*)(const float*, float*, std::size_t, bool);
static Row row_for(Isa cap) {
    Isa isa = std::min(cap, best_isa());
#if (HWY_TARGETS) & HWY_AVX3
    if (isa >= Isa::avx512) return N_AVX3::row;
#endif
#if (HWY_TARGETS) & HWY_AVX2
    if (isa >= Isa::avx2) return N_AVX2::row;
#endif
    (void)isa;
    return nullptr;
}

class SimdKernel final : public Kernel {
public:
    SimdKernel(const Problem& p, Row row) : p_(p), row_(row) { inplace = 1; }
    const char* name() const noexcept override { return "softmax.simd"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        return {static_cast<std::size_t>(workers) * ew::Rows<float>::bytes(in[0].dtype, out[0].dtype, in[0].dim(-1)), nullptr};
    }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        std::int64_t n = x.dim(-1), rows = x.count(0, x.rank - 1);
        if (n == 0) return;
        ew::Rows<float>(x, call.out[0], n).run(rows, std::max<std::int64_t>(1, (16 << 10) / n), call.scratch, call.workers,
                                               [&](std::int64_t, const float* from, float* to) { row_(from, to, static_cast<std::size_t>(n), p_.log); });
    }

private:
    Problem p_;
    Row row_;
};

static std::string refuse_simd(const Problem& p, const Target& t) {
    if (p.dtype != DType::f32 && !ew::is_half(p.dtype)) return std::string("type ") + dtype_name(p.dtype) + "; float, float16 and bfloat16 are accepted";
    if (p.rank < 1 || p.axis != p.rank - 1) return "axis " + std::to_string(p.axis) + " of " + std::to_string(p.rank) + "; the last is accepted";
    if (!row_for(t.isa)) return std::string("instruction set ") + isa_name(std::min(t.isa, best_isa())) + "; avx2 or avx512 is needed";
    return {};
}
static std::unique_ptr<Kernel> make_simd(const Problem& p, const Target& t) { return std::make_unique<SimdKernel>(p, row_for(t.isa)); }

extern const Entry<Problem> softmax_simd;
const Entry<Problem> softmax_simd{"softmax.simd", refuse_simd, make_simd};

}  // namespace softmax
QUERN_END
#endif
