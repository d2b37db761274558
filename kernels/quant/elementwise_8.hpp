// Elementwise, softmax and mean over 8-bit tensors.
#pragma once
#include <quern/kernels/quant/common.hpp>
#include <quern/kernels/quant/loops.hpp>
#include <quern/kernels/rnn/activation.hpp>
#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace quant {

/// com.microsoft QLinearAdd, QLinearMul: A, its scale and zero point, B, its scale and zero point, scale and zero point of C = A (op) B
/// with numpy's broadcasting. u8 or i8, all of one type.
class BinaryKernel final : public Kernel {
public:
    BinaryKernel(bool mul, Isa isa) : mul_(mul), l_(loops(isa)) {}
    const char* name() const noexcept override { return "elementwise.binary_8"; }
    void run(const Call& c) const override {
        const View &a = c.in[0], &b = c.in[3], &y = c.out[0];
        if (y.count() == 0) return;
        for (int i : {1, 2, 4, 5, 6, 7}) need_single(given(c, i), "a scale or zero point");
        float sa = scale_at(c.in[1], 0), sb = scale_at(c.in[4], 0), down = scale_at(c.in[6], 0);
        Pairwise k;
        k.za = static_cast<float>(zero_at(given(c, 2), 0)), k.zb = static_cast<float>(zero_at(given(c, 5), 0));
        k.ka = mul_ ? sa * sb / down : sa / down, k.kb = sb / down;
        k.k0 = -(k.za * k.ka + k.zb * k.kb);
        k.zero = zero_at(given(c, 7), 0);
        k.product = mul_;
        k.is_unsigned = y.dtype == DType::u8;
        // A trailing run that neither operand broadcasts is one row.
        int tail = y.rank;
        auto full = [&](const View& v, int d) { return d - y.rank + v.rank >= 0 && v.dims[d - y.rank + v.rank] == y.dims[d]; };
        while (tail > 0 && full(a, tail - 1) && full(b, tail - 1)) --tail;
        if (tail == y.rank && tail > 0) --tail;
        std::int64_t n = y.count(tail, y.rank), rows = y.count(0, tail);
        std::int64_t step_a = full_tail(a, y, tail) ? 1 : 0, step_b = full_tail(b, y, tail) ? 1 : 0;
        std::int64_t pieces = rows > 1 ? 1 : (n + 32767) / 32768, length = (n + pieces - 1) / pieces;
        c.workers.ranges(rows * pieces, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, length)), [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t i = from; i < to; ++i) {
                std::int64_t r = i / pieces, first = i % pieces * length, count = std::min(length, n - first);
                l_.pairwise(k, a.in<std::uint8_t>() + offset(a, y, tail, r) + step_a * first, step_a, b.in<std::uint8_t>() + offset(b, y, tail, r) + step_b * first, step_b,
                            y.out<std::uint8_t>() + r * n + first, count);
            }
        });
    }

private:
    static bool full_tail(const View& v, const View& y, int tail) {
        for (int d = tail; d < y.rank; ++d) {
            int e = d - y.rank + v.rank;
            if (e < 0 || v.dims[e] != y.dims[d]) return false;
        }
        return true;
    }
    /// Where row r (dims before `tail` of y) begins in v.
    static std::int64_t offset(const View& v, const View& y, int tail, std::int64_t r) {
        std::int64_t at = 0, stride = 1;
        for (int d = y.rank - 1; d >= 0; --d) {
            int e = d - y.rank + v.rank;
            if (e < 0) break;
            if (d < tail) {
                std::int64_t i = r % y.dims[d];
                r /= y.dims[d];
                if (v.dims[e] != 1) at += i * stride;
            }
            stride *= v.dims[e];
        }
        return at;
    }
    bool mul_;
    const Loops& l_;
};

/// com.microsoft QLinearLeakyRelu, QLinearSigmoid: X, its scale and zero point, scale and zero point of Y. A table of 256 bytes.
class UnaryKernel final : public Kernel {
public:
    explicit UnaryKernel(rnn::Activation f) : f_(f) { inplace = 1; }
    const char* name() const noexcept override { return "elementwise.table_8"; }
    void run(const Call& c) const override {
        for (int i : {1, 2, 3, 4}) need_single(given(c, i), "a scale or zero point");
        bool u = c.in[0].dtype == DType::u8;
        float x[256], down = scale_at(c.in[3], 0);
        std::uint8_t table[256];
        dequantized(u, scale_at(c.in[1], 0), zero_at(given(c, 2), 0), x);
        for (int i = 0; i < 256; ++i) table[i] = quantized(f_.one(x[i]) / down, u, zero_at(given(c, 4), 0));
        look_up(c, table);
    }
    static void look_up(const Call& c, const std::uint8_t* table) {
        c.workers.ranges(c.out[0].count(), 65536, [&](std::int64_t from, std::int64_t to) {
            const std::uint8_t* s = c.in[0].in<std::uint8_t>();
            std::uint8_t* d = c.out[0].out<std::uint8_t>();
            for (std::int64_t i = from; i < to; ++i) d[i] = table[s[i]];
        });
    }

private:
    rnn::Activation f_;
};

/// in[0] as indices into the 256 bytes of in[1].
class LookupKernel final : public Kernel {
public:
    LookupKernel() { inplace = 1; }
    const char* name() const noexcept override { return "elementwise.table_8"; }
    void run(const Call& c) const override {
        if (c.in[1].count() != 256) raise(ErrorCode::shape_mismatch, "the table has " + std::to_string(c.in[1].count()) + " bytes; 256 are needed");
        UnaryKernel::look_up(c, c.in[1].in<std::uint8_t>());
    }
};

/// com.microsoft QLinearSoftmax over `axis`, or over all dimensions from it on (`flat`). Inputs as UnaryKernel.
class SoftmaxKernel final : public Kernel {
public:
    SoftmaxKernel(int axis, bool flat) : axis_(axis), flat_(flat) {}
    const char* name() const noexcept override { return "softmax.table_8"; }
    void run(const Call& c) const override {
        for (int i : {1, 2, 3, 4}) need_single(given(c, i), "a scale or zero point");
        const View &x = c.in[0], &y = c.out[0];
        bool u = x.dtype == DType::u8;
        std::int64_t n = flat_ ? x.count(axis_, x.rank) : x.dims[axis_], inner = flat_ ? 1 : x.count(axis_ + 1, x.rank);
        std::int64_t rows = n > 0 ? x.count() / n : 0;
        float down = scale_at(c.in[3], 0), e[256];  // exp of differences to the largest value
        float scale = scale_at(c.in[1], 0);
        std::int32_t zero = zero_at(given(c, 4), 0);
        for (int i = 0; i < 256; ++i) e[i] = std::exp(-static_cast<float>(i) * scale);
        c.workers.ranges(rows, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, n)), [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t r = from; r < to; ++r) {
                std::int64_t at = r / inner * n * inner + r % inner;
                auto value = [&](std::int64_t j) {
                    std::uint8_t v = x.in<std::uint8_t>()[at + j * inner];
                    return u ? int{v} : int{static_cast<std::int8_t>(v)};
                };
                int top = value(0);
                for (std::int64_t j = 1; j < n; ++j) top = std::max(top, value(j));
                float sum = 0;
                for (std::int64_t j = 0; j < n; ++j) sum += e[top - value(j)];
                for (std::int64_t j = 0; j < n; ++j) y.out<std::uint8_t>()[at + j * inner] = quantized(e[top - value(j)] / sum / down, u, zero);
            }
        });
    }

private:
    int axis_;
    bool flat_;
};

/// com.microsoft QLinearGlobalAveragePool: X [N, C, d...] (channels last: [N, d..., C]). Inputs as UnaryKernel.
class GlobalMeanKernel final : public Kernel {
public:
    explicit GlobalMeanKernel(bool channels_last) : last_(channels_last) {}
    const char* name() const noexcept override { return "pool.global_8"; }
    void run(const Call& c) const override {
        for (int i : {1, 2, 3, 4}) need_single(given(c, i), "a scale or zero point");
        const View &x = c.in[0], &y = c.out[0];
        bool u = x.dtype == DType::u8;
        std::int64_t channels = last_ ? x.dim(-1) : x.dims[1], outputs = x.dims[0] * channels, plane = outputs ? x.count() / outputs : 0;
        if (outputs == 0) return;
        std::int64_t xz = zero_at(given(c, 2), 0);
        std::int32_t yz = zero_at(given(c, 4), 0);
        float scale = scale_at(c.in[1], 0) / (static_cast<float>(plane) * scale_at(c.in[3], 0));
        c.workers.ranges(outputs, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, plane)), [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t i = from; i < to; ++i) {
                const std::uint8_t* p = x.in<std::uint8_t>() + (last_ ? i / channels * plane * channels + i % channels : i * plane);
                std::int64_t step = last_ ? channels : 1, sum = 0;
                for (std::int64_t j = 0; j < plane; ++j) sum += u ? int{p[j * step]} : int{static_cast<std::int8_t>(p[j * step])};
                y.out<std::uint8_t>()[i] = quantized(static_cast<float>(sum - xz * plane) * scale, u, yz);
            }
        });
    }

private:
    bool last_;
};

}  // namespace quant
QUERN_END
