// Change of element type.
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>

#include <quern/kernels/elementwise/convert.hpp>

QUERN_BEGIN
namespace ew {

/// y = x as another number type (https://onnx.ai/onnx/operators/onnx__Cast.html); see convert().
class CastKernel final : public Kernel {
public:
    explicit CastKernel(Rounding r) : rounding_(r) {}
    const char* name() const noexcept override { return "elementwise.cast"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        c.workers.ranges(y.count(), cheap_grain, [&](std::int64_t b, std::int64_t e) {
            convert(x.dtype, x.data, b, y.dtype, y.data, b, e - b, rounding_);
        });
    }

private:
    Rounding rounding_;
};

/// The same bits under another type.
class CopyKernel final : public Kernel {
public:
    const char* name() const noexcept override { return "elementwise.copy"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        if (x.dtype == DType::string) {
            std::copy_n(x.in<std::string>(), x.count(), y.out<std::string>());
            return;
        }
        if (y.dtype == DType::boolean)  // which has two values, whatever the bits were
            return c.workers.ranges(x.count(), 1 << 18, [&](std::int64_t b, std::int64_t e) {
                for (; b < e; ++b) y.out<std::uint8_t>()[b] = x.in<std::uint8_t>()[b] != 0;
            });
        const std::int64_t bytes = (x.count() * dtype_bits(x.dtype) + 7) / 8;
        c.workers.ranges(bytes, 1 << 18, [&](std::int64_t b, std::int64_t e) {
            std::copy(x.in<std::byte>() + b, x.in<std::byte>() + e, y.out<std::byte>() + b);
        });
    }
};

/// The shortest text that reads back as v; without exponent where that is of moderate length.
template <class T>
std::string text_of(T v) {
    char buffer[64];
    if constexpr (std::is_integral_v<T>) {
        return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, v).ptr);
    } else {
        if (std::isnan(v)) return "NaN";
        if (std::isinf(v)) return v < 0 ? "-INF" : "INF";
        const T a = std::fabs(v);
        const bool plain = a == 0 || (a >= T(1e-5) && a < T(1e16));
        auto r = plain ? std::to_chars(buffer, buffer + sizeof buffer, v, std::chars_format::fixed)
                       : std::to_chars(buffer, buffer + sizeof buffer, v, std::chars_format::scientific);
        return std::string(buffer, r.ptr);
    }
}
class NumberToStringKernel final : public Kernel {
public:
    const char* name() const noexcept override { return "elementwise.number_to_string"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        const DType w = wide_of(x.dtype);
        auto* to = y.out<std::string>();
        c.workers.ranges(y.count(), costly_grain, [&](std::int64_t begin, std::int64_t end) {
            alignas(64) std::byte wide[block * 8];
            for (std::int64_t i = begin; i < end; i += block) {
                const std::int64_t n = std::min(block, end - i);
                convert(x.dtype, x.data, i, w, wide, 0, n);
                if (x.dtype == DType::boolean)
                    for (std::int64_t k = 0; k < n; ++k) to[i + k] = reinterpret_cast<std::int32_t*>(wide)[k] ? "True" : "False";
                else if (w == DType::f32) write(reinterpret_cast<float*>(wide), to + i, n);
                else if (w == DType::f64) write(reinterpret_cast<double*>(wide), to + i, n);
                else if (w == DType::i32) write(reinterpret_cast<std::int32_t*>(wide), to + i, n);
                else if (w == DType::i64) write(reinterpret_cast<std::int64_t*>(wide), to + i, n);
                else write(reinterpret_cast<std::uint64_t*>(wide), to + i, n);
            }
        });
    }

private:
    template <class T>
    static void write(const T* v, std::string* to, std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) to[i] = text_of(v[i]);
    }
};

/// Raises invalid_argument for text that is no number.
class StringToNumberKernel final : public Kernel {
public:
    explicit StringToNumberKernel(Rounding r) : rounding_(r) {}
    const char* name() const noexcept override { return "elementwise.string_to_number"; }
    void run(const Call& c) const override {
        const View &x = c.in[0], &y = c.out[0];
        auto* from = x.in<std::string>();
        const DType t = y.dtype;
        c.workers.ranges(y.count(), costly_grain, [&](std::int64_t begin, std::int64_t end) {
            double values[block];
            std::int64_t whole[block];
            for (std::int64_t i = begin; i < end; i += block) {
                const std::int64_t n = std::min(block, end - i);
                if (t == DType::i64 || t == DType::u64) {
                    for (std::int64_t k = 0; k < n; ++k) whole[k] = integer(from[i + k], t == DType::u64);
                    convert(DType::i64, whole, 0, t, y.data, i, n, rounding_);
                } else {
                    for (std::int64_t k = 0; k < n; ++k) values[k] = real(from[i + k]);
                    convert(DType::f64, values, 0, t, y.data, i, n, rounding_);
                }
            }
        });
    }

private:
    static std::string_view trim(std::string_view s) noexcept {
        auto space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
        while (!s.empty() && space(s.front())) s.remove_prefix(1);
        while (!s.empty() && space(s.back())) s.remove_suffix(1);
        if (s.size() > 1 && s[0] == '+' && s[1] != '-') s.remove_prefix(1);
        return s;
    }
    static double real(const std::string& text) {
        const std::string_view s = trim(text);
        double v = 0;
        auto r = std::from_chars(s.data(), s.data() + s.size(), v);  // takes inf and nan in any case
        if (r.ptr == s.data() || r.ptr != s.data() + s.size() || r.ec == std::errc::invalid_argument)
            raise(ErrorCode::invalid_argument, "\"" + text.substr(0, 64) + "\" is not a number; accepted: plain and scientific notation, INF, NaN");
        if (r.ec == std::errc::result_out_of_range) {  // too large or too small: the exponent's sign tells
            const std::size_t e = s.find_first_of("eE");
            const bool small = e != std::string_view::npos && e + 1 < s.size() && s[e + 1] == '-';
            v = small ? 0.0 : std::numeric_limits<double>::infinity();
            if (s[0] == '-') v = -v;
        }
        return v;
    }
    static std::int64_t integer(const std::string& text, bool is_unsigned) {
        const std::string_view s = trim(text);
        const char* end = s.data() + s.size();
        if (is_unsigned) {
            std::uint64_t u = 0;
            if (auto r = std::from_chars(s.data(), end, u); r.ptr == end && r.ec == std::errc()) return static_cast<std::int64_t>(u);
        }
        std::int64_t v = 0;
        if (auto r = std::from_chars(s.data(), end, v); r.ptr == end && r.ec == std::errc()) return v;
        const double d = real(text);
        convert(DType::f64, &d, 0, DType::i64, &v, 0, 1);
        return v;
    }
    Rounding rounding_;
};

}  // namespace ew
QUERN_END
