// The portable softmax: rows through vec::Table; other axes in blocks of neighbouring columns.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>

#include <quern/kernels/elementwise/rows.hpp>
#include <quern/kernels/softmax/softmax.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace softmax {

class CoreKernel final : public Kernel {
public:
    CoreKernel(const Problem& p, const Target& target) : p_(p), t_(vec::table(target.isa)) { inplace = 1; }
    const char* name() const noexcept override { return "softmax.core"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        const View& x = in[0];
        if (p_.dtype == DType::f64 || x.rank == 0) return {};
        const bool row = x.count(p_.axis + 1, x.rank) == 1;
        return {static_cast<std::size_t>(workers) * (row ? ew::Rows<float>::bytes(x.dtype, out[0].dtype, x.dim(p_.axis)) : 3 * columns * sizeof(float)), nullptr};
    }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        std::int64_t outer = x.count(0, p_.axis), n = x.rank ? x.dim(p_.axis) : 1, inner = x.rank ? x.count(p_.axis + 1, x.rank) : 1;
        if (outer * n * inner == 0) return;
        if (p_.dtype == DType::f64) return run_f64(call, outer, n, inner);
        if (inner == 1)
            return ew::Rows<float>(x, call.out[0], n).run(outer, std::max<std::int64_t>(1, (16 << 10) / n), call.scratch, call.workers,
                                                          [&](std::int64_t, const float* from, float* to) { t_.softmax_f32(from, to, n, p_.log); });
        std::int64_t blocks = (inner + columns - 1) / columns;
        call.workers.for_each(outer * blocks, [&](std::int64_t i, int worker) {
            std::int64_t c0 = i % blocks * columns, at = i / blocks * n * inner + c0;
            auto* scratch = reinterpret_cast<float*>(call.scratch) + worker * 3 * columns;
            block(x, call.out[0], at, n, inner, std::min(columns, inner - c0), scratch);
        });
    }

private:
    static constexpr std::int64_t columns = 256;
    /// `w` <= columns neighbouring columns of n rows, `stride` apart from element `at`. Of halves the powers are made twice: they are not kept in halves.
    void block(const View& x, const View& y, std::int64_t at, std::int64_t n, std::int64_t stride, std::int64_t w, float* top) const {
        float* sum = top + columns;
        float* row = sum + columns;
        constexpr int max = static_cast<int>(vec::Reduce::max), add = static_cast<int>(vec::Reduce::sum);
        constexpr int sub = static_cast<int>(vec::Binary::sub), mul = static_cast<int>(vec::Binary::mul);
        const bool again = p_.log || y.dtype != DType::f32;
        auto read = [&](std::int64_t i, auto&& f) { ew::read_pieces<float>(x, at + i * stride, w, [&](const float* p, std::int64_t, std::int64_t) { f(p); }); };
        auto map = [&](std::int64_t i, auto&& f) { ew::map_pieces<float>(x, y, at + i * stride, w, [&](const float* p, float* q, std::int64_t, std::int64_t) { f(p, q); }); };
        auto power = [&](const float* p, float* q) {
            t_.binary_f32[sub](p, top, q, w);
            t_.unary_f32[static_cast<int>(vec::Unary::exp)](q, q, w);
        };
        read(0, [&](const float* p) { std::copy(p, p + w, top); });
        for (std::int64_t i = 1; i < n; ++i) read(i, [&](const float* p) { t_.accumulate_f32[max](p, top, w); });
        std::fill(sum, sum + w, 0.f);
        for (std::int64_t i = 0; i < n; ++i) {
            auto add_power = [&](const float* p, float* q) {
                power(p, q);
                t_.accumulate_f32[add](q, sum, w);
            };
            if (again) read(i, [&](const float* p) { add_power(p, row); });
            else map(i, add_power);
        }
        if (p_.log) {
            t_.unary_f32[static_cast<int>(vec::Unary::log)](sum, sum, w);
            for (std::int64_t i = 0; i < n; ++i)
                map(i, [&](const float* p, float* q) {
                    t_.binary_f32[sub](p, top, q, w);
                    t_.binary_f32[sub](q, sum, q, w);
                });
            return;
        }
        t_.unary_f32[static_cast<int>(vec::Unary::reciprocal)](sum, sum, w);
        for (std::int64_t i = 0; i < n; ++i) {
            map(i, [&](const float* p, float* q) {
                if (again) power(p, q);
                t_.binary_f32[mul](q, sum, q, w);
            });
        }
    }
    void run_f64(const Call& call, std::int64_t outer, std::int64_t n, std::int64_t inner) const {
        const auto* src = call.in[0].in<double>();
        auto* dst = call.out[0].out<double>();
        call.workers.ranges(outer * inner, std::max<std::int64_t>(1, (8 << 10) / n), [&](std::int64_t b, std::int64_t e) {
            for (std::int64_t i = b; i < e; ++i) {
                std::int64_t at = i / inner * n * inner + i % inner;
                double top = src[at], sum = 0;
                for (std::int64_t j = 1; j < n; ++j) {
                    double v = src[at + j * inner];
                    if (v > top || v != v) top = v;
                }
                for (std::int64_t j = 0; j < n; ++j) sum += std::exp(src[at + j * inner] - top);
                for (std::int64_t j = 0; j < n; ++j) {
                    double v = src[at + j * inner] - top;
                    dst[at + j * inner] = p_.log ? v - std::log(sum) : std::exp(v) / sum;
                }
            }
        });
    }
    Problem p_;
    const vec::Table& t_;
};

inline std::string refuse_core(const Problem& p, const Target&) {
    if (p.dtype == DType::f32 || p.dtype == DType::f64 || is_half(p.dtype)) return {};
    return std::string("type ") + dtype_name(p.dtype) + "; float, double, float16 and bfloat16 are accepted";
}
inline std::unique_ptr<Kernel> make_core(const Problem& p, const Target& t) { return std::make_unique<CoreKernel>(p, t); }
inline constexpr Entry<Problem> softmax_core{"softmax.core", refuse_core, make_core};

}  // namespace softmax
QUERN_END
