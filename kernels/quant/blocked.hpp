// Products with weights of a few bits in blocks, and lookup of their rows.
#pragma once
#include <cmath>

#include <quern/kernels/quant/packed_8.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace quant {

/// com.microsoft MatMulNBits: Y [..., N] = A [..., K] x W^T + bias, W [N, K] = (q - zero) * scale with a scale and zero point for each block of
/// `block` values of a row. q [N, blocks, block * bits / 8 bytes], the first value in the low bits; scales [N, blocks]; zero points packed
/// like q, each row beginning a byte, or floats like the scales; absent: 2^(bits - 1).
struct BlockedProblem {
    std::int64_t n = 0, k = 0, block = 32;
    int bits = 4;
    bool integer = false;  ///< A may be rounded to 8 bits, a scale for each block (accuracy_level 4)
    Tensor q, scales, zeros;  ///< constant
};
/// Views: in[0] = A, in[5] = bias or absent; out[0] = Y. f32. The weights stay packed: a row of A reads each once. Relative to the sum of |a||w|
/// the error is 1e-6 * sqrt(K), with `integer` 4e-3 more.
class BlockedKernel final : public Kernel {
public:
    BlockedKernel(const BlockedProblem& p, Isa isa) : p_(p), l_(loops(isa)), t_(vec::table(isa)) {
        blocks_ = (p.k + p.block - 1) / p.block;
        panels_ = (p.n + l_.lanes - 1) / l_.lanes;
        pack();
        p_.q = p_.scales = p_.zeros = Tensor();
        unread = 1u << 1 | 1u << 2 | 1u << 3;
    }
    const char* name() const noexcept override { return p_.integer ? "matmul.blocked_8" : "matmul.blocked_f32"; }
    std::size_t packed_bytes() const noexcept override { return data_.bytes() + scale_.bytes() + zero_.bytes(); }
    Booking book(std::span<const View> in, std::span<const View>, int workers) const override {
        std::int64_t rows = in[0].count(0, in[0].rank - 1);
        Booking b;
        b.scratch = up(static_cast<std::size_t>(panels_ * l_.lanes) * 4) + sizes(rows).all + static_cast<std::size_t>(workers) * worker_bytes(rows);
        return b;
    }
    void run(const Call& c) const override {
        const View &a = c.in[0], &y = c.out[0];
        if (y.count() == 0) return;
        std::int64_t rows = a.count(0, a.rank - 1);
        const float* bias = nullptr;
        if (c.in.size() > 5 && c.in[5].present()) {
            auto* to = reinterpret_cast<float*>(c.scratch);
            std::copy_n(c.in[5].in<float>(), p_.n, to);
            std::fill(to + p_.n, to + panels_ * l_.lanes, 0.f);
            bias = to;
        }
        std::byte* at = c.scratch + up(static_cast<std::size_t>(panels_ * l_.lanes) * 4);
        Blocked w{static_cast<const std::uint8_t*>(data_.raw()), static_cast<const float*>(scale_.raw()), zero_.dtype() == DType::u8 ? static_cast<const std::uint8_t*>(zero_.raw()) : nullptr,
                  zero_.dtype() == DType::f32 ? static_cast<const float*>(zero_.raw()) : nullptr, blocks_, p_.block, p_.bits};
        if (wide(rows)) return run_wide(c, w, rows, bias, at + sizes(rows).all);
        BlockedRows x = prepare(c, rows, at);
        std::int64_t bytes = blocks_ * p_.block * p_.bits / 8 * l_.lanes, grain = std::clamp<std::int64_t>((std::int64_t{1} << 16) / std::max<std::int64_t>(1, bytes), 1, 64);
        c.workers.ranges(panels_, grain, [&](std::int64_t from, std::int64_t to) { l_.blocked(w, x, from, to, bias, y.out<float>(), p_.n); });
    }

private:
    /// Rows from which widening the weights once costs less than unpacking them for every four.
    bool wide(std::int64_t rows) const { return !p_.integer && rows >= 16; }
    static constexpr std::int64_t wide_panels = 4;
    struct Sizes {
        std::size_t values, scales, all;
    };
    Sizes sizes(std::int64_t rows) const {
        if (wide(rows)) return {0, 0, 0};
        std::int64_t k = blocks_ * p_.block;
        Sizes s{up(static_cast<std::size_t>(rows * k) * (p_.integer ? 1 : 4)), up(static_cast<std::size_t>(rows * blocks_) * 4), 0};
        s.all = s.values + 2 * s.scales;
        return s;
    }
    std::size_t worker_bytes(std::int64_t rows) const {
        if (!wide(rows)) return 0;
        return up(static_cast<std::size_t>(blocks_ * p_.block * wide_panels * l_.lanes) * 4) + up(t_.gemm_work_bytes(rows, wide_panels * l_.lanes, p_.k));
    }
    /// Rows of A filled up to whole blocks, with the sums of each; rounded to bytes where allowed.
    BlockedRows prepare(const Call& c, std::int64_t rows, std::byte* at) const {
        Sizes s = sizes(rows);
        std::int64_t k = blocks_ * p_.block;
        auto* values = reinterpret_cast<float*>(at);
        auto* bytes = reinterpret_cast<std::int8_t*>(at);
        auto *scales = reinterpret_cast<float*>(at + s.values), *sums = reinterpret_cast<float*>(at + s.values + s.scales);
        const auto* a = c.in[0].in<float>();
        c.workers.ranges(rows, std::max<std::int64_t>(1, 8192 / k), [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t r = from; r < to; ++r)
                for (std::int64_t b = 0; b < blocks_; ++b) {
                    const float* x = a + r * p_.k + b * p_.block;
                    std::int64_t n = std::min(p_.block, p_.k - b * p_.block), i = r * blocks_ + b;
                    if (p_.integer) {
                        round(x, n, bytes + r * k + b * p_.block, scales[i], sums[i]);
                        continue;
                    }
                    float* v = values + r * k + b * p_.block;
                    float sum = 0;
                    for (std::int64_t j = 0; j < n; ++j) sum += v[j] = x[j];
                    std::fill(v + n, v + p_.block, 0.f);
                    sums[i] = sum;
                }
        });
        return {values, p_.integer ? bytes : nullptr, scales, sums, rows};
    }
    void round(const float* x, std::int64_t n, std::int8_t* to, float& scale, float& sum) const {
        float low, high;
        l_.range(x, n, &low, &high);
        float most = std::max(std::max(-low, high), 0.f);
        scale = most / 127.f;
        std::int32_t total = 0;
        bool lost = false;
        for (std::int64_t j = 0; j < n; ++j) lost |= x[j] != x[j];
        // Without numbers (NaN, infinity) nothing finite comes of the block.
        if (lost || !(most > 0) || !std::isfinite(most)) {
            bool zero = true;
            for (std::int64_t j = 0; j < n; ++j) zero = zero && x[j] == 0;
            if (!zero) scale = std::numeric_limits<float>::quiet_NaN();
            std::fill(to, to + p_.block, std::int8_t{0});
            sum = scale * 0;
            return;
        }
        t_.quantize_8(x, scale, 0, false, to, n);
        for (std::int64_t j = 0; j < n; ++j) total += to[j];
        std::fill(to + n, to + p_.block, std::int8_t{0});
        sum = scale * static_cast<float>(total);
    }
    void run_wide(const Call& c, const Blocked& w, std::int64_t rows, const float* bias, std::byte* scratch) const {
        std::int64_t width = wide_panels * l_.lanes, k = blocks_ * p_.block;
        c.workers.for_each((panels_ + wide_panels - 1) / wide_panels, [&](std::int64_t i, int worker) {
            std::byte* mine = scratch + static_cast<std::size_t>(worker) * worker_bytes(rows);
            auto* b = reinterpret_cast<float*>(mine);
            for (std::int64_t p = i * wide_panels; p < std::min(panels_, (i + 1) * wide_panels); ++p) l_.expand(w, p, b + (p - i * wide_panels) * l_.lanes, width);
            vec::Epilogue e;
            e.bias_row = bias ? bias + i * width : nullptr;
            t_.gemm_f32(rows, std::min(width, p_.n - i * width), p_.k, c.in[0].in<float>(), p_.k, false, b, width, false, c.out[0].out<float>() + i * width, p_.n, e,
                        mine + up(static_cast<std::size_t>(k * width) * 4));
        });
    }
    static std::int64_t field(const std::uint8_t* from, std::int64_t i, int bits) { return from[i * bits / 8] >> (i * bits % 8) & ((1 << bits) - 1); }
    void pack() {
        std::int64_t lanes = l_.lanes, vectors = p_.block * p_.bits / 32, row = blocks_ * p_.block * p_.bits / 8, zero_row = (blocks_ * p_.bits + 7) / 8;
        bool floats = p_.zeros.defined() && p_.zeros.dtype() != DType::u8;
        data_ = Tensor(DType::u8, {panels_ * lanes * row});
        scale_ = Tensor(DType::f32, {panels_ * blocks_ * lanes});
        zero_ = Tensor(floats ? DType::f32 : DType::u8, {panels_ * blocks_ * lanes});
        auto *q = static_cast<const std::uint8_t*>(p_.q.raw()), *z = p_.zeros.defined() ? static_cast<const std::uint8_t*>(p_.zeros.raw()) : nullptr;
        auto* data = static_cast<std::uint8_t*>(data_.raw());
        std::int64_t each = 8 / p_.bits;
        for (std::int64_t j = 0; j < p_.n; ++j) {
            const std::uint8_t* from = q + j * row;
            std::int64_t panel = j / lanes, lane = j % lanes;
            for (std::int64_t v = 0; v < blocks_ * vectors; ++v) {
                std::uint8_t* to = data + ((panel * blocks_ * vectors + v) * lanes + lane) * 4;
                for (std::int64_t b = 0; b < 4; ++b) {
                    std::int64_t bits = 0;
                    for (std::int64_t s = 0; s < each; ++s) bits |= field(from, v * 4 * each + 4 * s + b, p_.bits) << (s * p_.bits);
                    to[b] = static_cast<std::uint8_t>(bits);
                }
            }
            for (std::int64_t b = 0; b < blocks_; ++b) {
                std::int64_t at = (panel * blocks_ + b) * lanes + lane;
                scale_.data<float>()[static_cast<std::size_t>(at)] = p_.scales.data<float>()[static_cast<std::size_t>(j * blocks_ + b)];
                if (floats) zero_.data<float>()[static_cast<std::size_t>(at)] = p_.zeros.data<float>()[static_cast<std::size_t>(j * blocks_ + b)];
                else zero_.data<std::uint8_t>()[static_cast<std::size_t>(at)] = static_cast<std::uint8_t>(z ? field(z + j * zero_row, b, p_.bits) : 1 << (p_.bits - 1));
            }
        }
    }
    BlockedProblem p_;
    const Loops& l_;
    const vec::Table& t_;
    std::int64_t blocks_ = 0, panels_ = 0;
    Tensor data_, scale_, zero_;
};

/// com.microsoft GatherBlockQuantized: rows of data (in[0], of u8 holding `bits` bits each, first in the low bits, or of u4, i4) at indices
/// (in[1], i32 or i64) along `gather`, dequantized by scales (in[2]) and zero points (in[3], as data; absent: `middle`) of blocks of `block` along
/// `axis`. gather is not the last dimension. out[0] f32.
class GatherBlocksKernel final : public Kernel {
public:
    GatherBlocksKernel(int gather, int axis, std::int64_t block, int bits, bool is_signed, int middle)
        : gather_(gather), axis_(axis), block_(block), bits_(bits), is_signed_(is_signed), middle_(middle) {}
    const char* name() const noexcept override { return "gather.blocked"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &ids = c.in[1], &scales = c.in[2], &y = c.out[0];
        if (y.count() == 0) return;
        const std::uint8_t *data = x.in<std::uint8_t>(), *zeros = c.in.size() > 3 && c.in[3].present() ? c.in[3].in<std::uint8_t>() : nullptr;
        std::int64_t per_byte = x.dtype == DType::u8 ? 8 / bits_ : 1, width = x.dim(-1) * per_byte, scale_width = scales.dim(-1);
        // Packed zero points of u8: each row begins a byte.
        std::int64_t zero_width = !zeros ? 0 : c.in[3].dtype == DType::u8 ? c.in[3].dim(-1) * per_byte : scale_width;
        std::int64_t entries = x.dims[gather_], inner = x.count(gather_ + 1, x.rank - 1), picks = ids.count(), outer = x.count(0, gather_);
        bool last = axis_ == x.rank - 1;
        c.workers.ranges(outer * picks * inner, std::max<std::int64_t>(1, 8192 / width), [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t i = from; i < to; ++i) {
                std::int64_t id = ids.dtype == DType::i64 ? ids.in<std::int64_t>()[i / inner % picks] : ids.in<std::int32_t>()[i / inner % picks];
                if (id < -entries || id >= entries) raise(ErrorCode::shape_mismatch, "index " + std::to_string(id) + " is outside [" + std::to_string(-entries) + ", " + std::to_string(entries - 1) + "]");
                if (id < 0) id += entries;
                std::int64_t row = (i / inner / picks * entries + id) * inner + i % inner, scale_row = scale_row_of(x, row);
                float* out = y.out<float>() + i * width;
                for (std::int64_t j = 0; j < width; ++j) {
                    std::int64_t s = last ? j / block_ : j;
                    float zero = zeros ? value(zeros, scale_row * zero_width + s) : static_cast<float>(middle_);
                    out[j] = (value(data, row * width + j) - zero) * scales.in<float>()[scale_row * scale_width + s];
                }
            }
        });
    }

private:
    float value(const std::uint8_t* from, std::int64_t i) const {
        int v = from[i * bits_ / 8] >> (i * bits_ % 8) & ((1 << bits_) - 1);
        return static_cast<float>(is_signed_ && v >> (bits_ - 1) ? v - (1 << bits_) : v);
    }
    /// The row (all dimensions but the last) of the scales that belongs to row `row` of the data.
    std::int64_t scale_row_of(const View& x, std::int64_t row) const {
        if (axis_ == x.rank - 1) return row;
        std::int64_t at = 0, stride = 1;
        for (int d = x.rank - 2; d >= 0; --d) {
            std::int64_t i = row % x.dims[d], n = x.dims[d];
            row /= x.dims[d];
            if (d == axis_) i /= block_, n = (n + block_ - 1) / block_;
            at += i * stride;
            stride *= n;
        }
        return at;
    }
    int gather_, axis_;
    std::int64_t block_;
    int bits_;
    bool is_signed_;
    int middle_;
};

}  // namespace quant
QUERN_END
