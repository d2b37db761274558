// Linear quantization and its inverse, of every granularity.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include <quern/kernels/elementwise/convert.hpp>
#include <quern/kernels/quant/loops.hpp>
#include <quern/kernels/vec/functions.hpp>
#include <quern/tensor/half.hpp>

QUERN_BEGIN
namespace quant {

/// How scales lie over a tensor seen as [outer, length, inner]: one value, one for each index along `length`, or one
/// for each `block` of them at each inner and outer position.
struct Grid {
    enum class Kind : std::uint8_t { tensor, axis, blocked } kind = Kind::tensor;
    std::int64_t length = 1, inner = 1, block = 1, blocks = 1;

    /// f(begin, n, scale index, step 0 or 1) for the runs of [from, to) within which the scale index is linear.
    template <class F>
    void runs(std::int64_t from, std::int64_t to, F&& f) const {
        while (from < to) {
            const std::int64_t i = from % inner, d = from / inner % length, o = from / inner / length;
            std::int64_t n = to - from, at = 0, step = 0;
            if (kind == Kind::axis) {
                n = std::min(n, inner == 1 ? length - d : inner - i);
                at = d;
                step = inner == 1;
            } else if (kind == Kind::blocked) {
                n = std::min(n, inner == 1 ? std::min(block - d % block, length - d) : inner - i);
                at = (o * blocks + d / block) * inner + i;
                step = inner != 1;
            }
            f(from, n, at, step);
            from += n;
        }
    }
};
/// Raises shape_mismatch where the scale fits no granularity. block_size 0: per tensor or per axis.
inline Grid make_grid(const View& x, const View& scale, std::int64_t axis, std::int64_t block_size) {
    Grid g;
    auto fail = [&](const std::string& why) {
        raise(ErrorCode::shape_mismatch, "the scale (rank " + std::to_string(scale.rank) + ", " + std::to_string(scale.count()) + " elements) " + why);
    };
    if (block_size <= 0 && scale.count() == 1) return g;
    if (axis < 0) axis += x.rank;
    if (axis < 0 || axis >= x.rank) fail("needs an axis within the rank " + std::to_string(x.rank));
    const int a = static_cast<int>(axis);
    g.length = x.dims[a];
    g.inner = x.count(a + 1, x.rank);
    if (block_size <= 0) {
        if (scale.rank != 1 || scale.dims[0] != g.length) fail("does not fit the axis; accepted: one value, or " + std::to_string(g.length));
        g.kind = Grid::Kind::axis;
        return g;
    }
    g.kind = Grid::Kind::blocked;
    g.block = block_size;
    g.blocks = g.length / block_size + (g.length % block_size != 0);
    if (scale.rank != x.rank) fail("must have the rank of the data for blocks of " + std::to_string(block_size));
    for (int i = 0; i < x.rank; ++i)
        if (scale.dims[i] != (i == a ? g.blocks : x.dims[i])) fail("does not fit the data for blocks of " + std::to_string(block_size));
    return g;
}

/// Scales as float and zero points as float, in scratch memory.
struct Params {
    const float* scale;
    const float* zero;  ///< null: all 0
    static std::size_t bytes(const View& scale) noexcept { return static_cast<std::size_t>(scale.count()) * 8 + 64; }
};
inline Params load_params(const Call& c) {
    const View& s = c.in[1];
    const std::int64_t n = s.count();
    float* p = reinterpret_cast<float*>(c.scratch);
    Params r{p, nullptr};
    if (s.dtype == DType::f32) r.scale = s.in<float>();
    else ew::convert(s.dtype, s.data, 0, DType::f32, p, 0, n);
    if (c.in.size() < 3 || !c.in[2].present()) return r;
    const View& z = c.in[2];
    if (z.count() != n)
        raise(ErrorCode::shape_mismatch, "the zero point has " + std::to_string(z.count()) + " elements; accepted: as the scale, " + std::to_string(n));
    ew::convert(z.dtype, z.data, 0, DType::f32, p + n, 0, n);
    r.zero = p + n;
    return r;
}

/// y = saturate(round_half_even(x / scale) + zero_point): https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
/// in: x, scale, optional zero point. The quotient is rounded to `precision`. Floats of 8 and 4 bits are converted with
/// `saturate` instead of rounded and clamped.
class QuantizeKernel final : public Kernel {
public:
    QuantizeKernel(std::int64_t axis, std::int64_t block_size, bool saturate, DType precision, Isa isa)
        : axis_(axis), block_size_(block_size), precision_(precision), table_(&vec::table(isa)), functions_(&vec::function_table(isa)) {
        rounding_.saturate = saturate;
    }
    const char* name() const noexcept override { return "quant.quantize"; }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        Booking b;
        b.scratch = Params::bytes(in[1]);
        return b;
    }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        if (x.count() == 0) return;
        const Grid g = make_grid(x, c.in[1], axis_, block_size_);
        const Params p = load_params(c);
        const bool single = x.dtype == DType::f32 && precision_ == DType::f32 && !is_float(y.dtype);
        const bool direct = single && (y.dtype == DType::u8 || y.dtype == DType::i8);
        c.workers.ranges(x.count(), 16384, [&](std::int64_t from, std::int64_t to) {
            if (!direct) return single ? blocks_f32(x, y, g, p, from, to) : blocks(x, y, g, p, from, to);
            g.runs(from, to, [&](std::int64_t at, std::int64_t n, std::int64_t s, std::int64_t step) {
                if (step && n > 1) return row_8(x.in<float>() + at, p.scale + s, p.zero ? p.zero + s : nullptr, y.dtype == DType::u8, y.out<std::uint8_t>() + at, n);
                table_->quantize_8(x.in<float>() + at, p.scale[s], p.zero ? static_cast<std::int32_t>(p.zero[s]) : 0, y.dtype == DType::u8,
                                   y.out<std::uint8_t>() + at, n);
            });
        });
    }

private:
    /// A scale for each element.
    void row_8(const float* x, const float* scale, const float* zero, bool is_unsigned, std::uint8_t* y, std::int64_t n) const {
        alignas(64) float v[ew::block];
        for (std::int64_t i = 0; i < n; i += ew::block) {
            const std::int64_t m = std::min(ew::block, n - i);
            table_->binary_f32[static_cast<int>(vec::Binary::div)](x + i, scale + i, v, m);
            if (zero) {
                functions_->unary_f32[static_cast<int>(vec::Function::round)](v, v, m, {});
                table_->binary_f32[static_cast<int>(vec::Binary::add)](v, zero + i, v, m);
            }
            table_->quantize_8(v, 1.0f, 0, is_unsigned, y + i, m);
        }
    }
    double quotient(double x, float s) const noexcept {
        const double q = x / static_cast<double>(s);
        switch (precision_) {
            case DType::f32: return static_cast<double>(static_cast<float>(q));
            case DType::f16: return static_cast<double>(to_float(to_half(static_cast<float>(q))));
            case DType::bf16: return static_cast<double>(to_float(to_bfloat16(static_cast<float>(q))));
            default: return q;
        }
    }
    static void limits(DType t, double& low, double& high) noexcept {
        const int bits = dtype_bits(t);
        const bool is_unsigned = t == DType::u8 || t == DType::u16 || t == DType::u4 || t == DType::u2;
        low = is_unsigned ? 0 : -std::ldexp(1.0, bits - 1);
        high = std::ldexp(1.0, is_unsigned ? bits : bits - 1) - 1;
    }
    /// Of f32 with a quotient in f32 to integers.
    void blocks_f32(const View& x, const View& y, const Grid& g, const Params& p, std::int64_t from, std::int64_t to) const {
        float v[ew::block];
        double least = 0, most = 0;
        limits(y.dtype, least, most);
        const float low = static_cast<float>(least), high = static_cast<float>(most);
        for (std::int64_t i = from; i < to; i += ew::block) {
            const std::int64_t m = std::min(ew::block, to - i);
            g.runs(i, i + m, [&](std::int64_t at, std::int64_t n, std::int64_t s, std::int64_t step) {
                const float *in = x.in<float>() + at, *scale = p.scale + s, *zero = p.zero ? p.zero + s : nullptr;
                float* q = v + (at - i);
                // Clamping before rounding is the same: the bounds are integers.
                auto one = [&](float a, float b, float z) { return ew::round_even(std::min(high - z, std::max(low - z, a / b))) + z; };
                if (step && zero) for (std::int64_t k = 0; k < n; ++k) q[k] = one(in[k], scale[k], zero[k]);
                else if (step) for (std::int64_t k = 0; k < n; ++k) q[k] = one(in[k], scale[k], 0.0f);
                else for (std::int64_t k = 0; k < n; ++k) q[k] = one(in[k], *scale, zero ? *zero : 0.0f);
            });
            ew::convert(DType::f32, v, 0, y.dtype, y.data, i, m, rounding_);
        }
    }
    void blocks(const View& x, const View& y, const Grid& g, const Params& p, std::int64_t from, std::int64_t to) const {
        double v[ew::block], low = 0, high = 0;
        const bool floats = is_float(y.dtype);
        if (!floats) limits(y.dtype, low, high);
        for (std::int64_t i = from; i < to; i += ew::block) {
            const std::int64_t m = std::min(ew::block, to - i);
            ew::convert(x.dtype, x.data, i, DType::f64, v, 0, m);
            g.runs(i, i + m, [&](std::int64_t at, std::int64_t n, std::int64_t s, std::int64_t step) {
                double* q = v + (at - i);
                for (std::int64_t k = 0; k < n; ++k) {
                    const double zero = p.zero ? static_cast<double>(p.zero[s + k * step]) : 0;
                    const double r = quotient(q[k], p.scale[s + k * step]);
                    if (floats) q[k] = r + zero;
                    else q[k] = std::min(high, std::max(low, ew::round_even(r) + zero));
                }
            });
            ew::convert(DType::f64, v, 0, y.dtype, y.data, i, m, rounding_);
        }
    }
    std::int64_t axis_, block_size_;
    DType precision_;
    ew::Rounding rounding_;
    const vec::Table* table_;
    const vec::FunctionTable* functions_;
};

/// y = (x - zero_point) * scale: https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
class DequantizeKernel final : public Kernel {
public:
    DequantizeKernel(std::int64_t axis, std::int64_t block_size, Isa isa) : axis_(axis), block_size_(block_size), table_(&vec::table(isa)) {}
    const char* name() const noexcept override { return "quant.dequantize"; }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        Booking b;
        b.scratch = Params::bytes(in[1]);
        return b;
    }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        if (x.count() == 0) return;
        const Grid g = make_grid(x, c.in[1], axis_, block_size_);
        const Params p = load_params(c);
        const bool direct = y.dtype == DType::f32 && (x.dtype == DType::u8 || x.dtype == DType::i8);
        c.workers.ranges(x.count(), 16384, [&](std::int64_t from, std::int64_t to) {
            if (!direct) return blocks(x, y, g, p, from, to);
            g.runs(from, to, [&](std::int64_t at, std::int64_t n, std::int64_t s, std::int64_t step) {
                if (step && n > 1) return blocks(x, y, g, p, at, at + n);
                table_->dequantize_8(x.in<std::uint8_t>() + at, p.scale[s], p.zero ? static_cast<std::int32_t>(p.zero[s]) : 0,
                                     x.dtype == DType::u8, y.out<float>() + at, n);
            });
        });
    }

private:
    static void blocks(const View& x, const View& y, const Grid& g, const Params& p, std::int64_t from, std::int64_t to) {
        float v[ew::block];
        for (std::int64_t i = from; i < to; i += ew::block) {
            const std::int64_t m = std::min(ew::block, to - i);
            ew::convert(x.dtype, x.data, i, DType::f32, v, 0, m);
            g.runs(i, i + m, [&](std::int64_t at, std::int64_t n, std::int64_t s, std::int64_t step) {
                float* q = v + (at - i);
                const float *scale = p.scale + s, *zero = p.zero ? p.zero + s : nullptr;
                if (step && zero) for (std::int64_t k = 0; k < n; ++k) q[k] = (q[k] - zero[k]) * scale[k];
                else if (step) for (std::int64_t k = 0; k < n; ++k) q[k] *= scale[k];
                else for (std::int64_t k = 0; k < n; ++k) q[k] = (q[k] - (zero ? *zero : 0.0f)) * *scale;
            });
            ew::convert(DType::f32, v, 0, y.dtype, y.data, i, m);
        }
    }
    std::int64_t axis_, block_size_;
    const vec::Table* table_;
};

/// Scale and zero point from the data's range, which always holds 0; then quantization to u8:
/// https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html
class DynamicQuantizeKernel final : public Kernel {
public:
    explicit DynamicQuantizeKernel(Isa isa) : table_(&vec::table(isa)), loops_(&loops(isa)) {}
    const char* name() const noexcept override { return "quant.dynamic"; }
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        Booking b;
        b.scratch = static_cast<std::size_t>(in[0].count() / piece + 1) * 8 + 64;
        return b;
    }
    void run(const Call& c) const override {
        const std::int64_t n = c.in[0].count(), parts = (n + piece - 1) / piece;
        auto* x = c.in[0].in<float>();
        float* range = reinterpret_cast<float*>(c.scratch);
        c.workers.ranges(n, piece, [&](std::int64_t b, std::int64_t e) {
            loops_->range(x + b, e - b, &range[b / piece * 2], &range[b / piece * 2 + 1]);
        });
        float low = 0, high = 0;
        for (std::int64_t i = 0; i < parts; ++i) {
            low = std::min(low, range[2 * i]);
            high = std::max(high, range[2 * i + 1]);
        }
        float scale = (high - low) / 255.0f;
        if (!(scale > 0)) scale = 1;
        const float zero = std::nearbyint(std::min(255.0f, std::max(0.0f, 0.0f - low / scale)));
        if (c.out.size() > 1 && c.out[1].present()) *c.out[1].out<float>() = scale;
        if (c.out.size() > 2 && c.out[2].present()) *c.out[2].out<std::uint8_t>() = static_cast<std::uint8_t>(zero);
        if (!c.out[0].present()) return;
        c.workers.ranges(n, piece, [&](std::int64_t b, std::int64_t e) {
            table_->quantize_8(x + b, scale, static_cast<std::int32_t>(zero), true, c.out[0].out<std::uint8_t>() + b, e - b);
        });
    }

private:
    static constexpr std::int64_t piece = 16384;
    const vec::Table* table_;
    const Loops* loops_;
};

}  // namespace quant
QUERN_END
