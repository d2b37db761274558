// Elements of any type as numbers, and the comparison of an output with what was expected.
#pragma once
#include <cmath>
#include <complex>
#include <string>

#include "npy.hpp"

namespace cli {

/// A small float: `exp` and `man` bits below the sign. The fnuz forms have no negative zero (its code is
/// the only NaN) and no infinity; `fn` forms have no infinity, and below 8 bits no NaN.
struct MiniFloat {
    int exp, man, bias;
    bool fnuz, fn;
};
inline double decode(MiniFloat f, unsigned code) {
    unsigned man_mask = (1u << f.man) - 1, exp_mask = (1u << f.exp) - 1;
    unsigned man = code & man_mask, exp = code >> f.man & exp_mask;
    bool negative = code >> (f.exp + f.man) & 1;
    if (f.fnuz && code == 1u << (f.exp + f.man)) return std::nan("");
    if (!f.fnuz && exp == exp_mask) {
        if (!f.fn) return man ? std::nan("") : negative ? -INFINITY : INFINITY;
        if (f.exp + f.man == 7 && man == man_mask) return std::nan("");
    }
    double v = exp ? std::ldexp(1.0 + std::ldexp(double(man), -f.man), int(exp) - f.bias)
                   : std::ldexp(double(man), 1 - f.bias - f.man);
    return negative ? -v : v;
}

/// Element `i` as a double (integers beyond 2^53 are rounded); not for strings and complex numbers.
inline double element(const Tensor& t, std::int64_t i) {
    const void* p = t.raw();
    auto u8 = [&] { return unsigned(static_cast<const std::uint8_t*>(p)[i]); };
    auto u16 = [&] { return unsigned(static_cast<const std::uint16_t*>(p)[i]); };
    switch (t.dtype()) {
        case DType::f32: return static_cast<const float*>(p)[i];
        case DType::f64: return static_cast<const double*>(p)[i];
        case DType::i8: return static_cast<const std::int8_t*>(p)[i];
        case DType::i16: return static_cast<const std::int16_t*>(p)[i];
        case DType::i32: return static_cast<const std::int32_t*>(p)[i];
        case DType::i64: return double(static_cast<const std::int64_t*>(p)[i]);
        case DType::u8: case DType::boolean: return u8();
        case DType::u16: return u16();
        case DType::u32: return static_cast<const std::uint32_t*>(p)[i];
        case DType::u64: return double(static_cast<const std::uint64_t*>(p)[i]);
        case DType::f16: return decode({5, 10, 15, false, false}, u16());
        case DType::bf16: return decode({8, 7, 127, false, false}, u16());
        case DType::f8e4m3fn: return decode({4, 3, 7, false, true}, u8());
        case DType::f8e4m3fnuz: return decode({4, 3, 8, true, false}, u8());
        case DType::f8e5m2: return decode({5, 2, 15, false, false}, u8());
        case DType::f8e5m2fnuz: return decode({5, 2, 16, true, false}, u8());
        case DType::f8e8m0: return u8() == 255 ? std::nan("") : std::ldexp(1.0, int(u8()) - 127);
        case DType::f6e2m3: return decode({2, 3, 1, false, true}, unsigned(packed_at(t, i)));
        case DType::f6e3m2: return decode({3, 2, 3, false, true}, unsigned(packed_at(t, i)));
        case DType::f4e2m1: return decode({2, 1, 1, false, true}, unsigned(packed_at(t, i)));
        case DType::u4: case DType::i4: case DType::u2: case DType::i2: return packed_at(t, i);
        default: return std::nan("");
    }
}

/// A number as text, without trailing zeros.
inline std::string number(double v) {
    char s[32];
    std::snprintf(s, sizeof s, "%.6g", v);
    return s;
}
inline std::string element_text(const Tensor& t, std::int64_t i) {
    if (t.dtype() == DType::string) return "\"" + t.strings()[static_cast<std::size_t>(i)] + "\"";
    if (t.dtype() == DType::i64) return std::to_string(static_cast<const std::int64_t*>(t.raw())[i]);
    if (t.dtype() == DType::u64) return std::to_string(static_cast<const std::uint64_t*>(t.raw())[i]);
    if (t.dtype() == DType::boolean) return element(t, i) != 0 ? "true" : "false";
    if (t.dtype() == DType::c64) {
        auto p = static_cast<const float*>(t.raw()) + 2 * i;
        return number(p[0]) + "+" + number(p[1]) + "i";
    }
    if (t.dtype() == DType::c128) {
        auto p = static_cast<const double*>(t.raw()) + 2 * i;
        return number(p[0]) + "+" + number(p[1]) + "i";
    }
    return number(element(t, i));
}
/// "float[2, 3]"
inline std::string type_text(const Tensor& t) { return quern::dtype_name(t.dtype()) + t.shape().to_string(); }

struct Tolerance {
    double rtol = 1e-3, atol = 1e-7;
};

inline bool close(double got, double want, Tolerance tol) {
    if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got);
    if (std::isinf(want) || std::isinf(got)) return got == want;
    return std::fabs(got - want) <= tol.atol + tol.rtol * std::fabs(want);
}
inline bool element_close(const Tensor& got, const Tensor& want, std::int64_t i, Tolerance tol) {
    switch (want.dtype()) {
        case DType::string: return got.strings()[std::size_t(i)] == want.strings()[std::size_t(i)];
        case DType::i64: case DType::u64:
            return static_cast<const std::int64_t*>(got.raw())[i] == static_cast<const std::int64_t*>(want.raw())[i];
        case DType::c64: case DType::c128: {
            auto at = [&](const Tensor& t) {
                return t.dtype() == DType::c64 ? std::complex<double>(static_cast<const std::complex<float>*>(t.raw())[i])
                                               : static_cast<const std::complex<double>*>(t.raw())[i];
            };
            auto g = at(got), w = at(want);
            if (!std::isfinite(std::abs(w)) || !std::isfinite(std::abs(g)))
                return close(g.real(), w.real(), tol) && close(g.imag(), w.imag(), tol);
            return std::abs(g - w) <= tol.atol + tol.rtol * std::abs(w);
        }
        default: break;
    }
    if (!quern::is_float(want.dtype())) tol = {0, 0};
    return close(element(got, i), element(want, i), tol);
}

/// Empty where `got` is `want` within the tolerance, else one line saying where they first differ.
/// Integers, bools and strings compare exactly; NaN equals NaN; bfloat16 has at least 2^-6 of rtol.
inline std::string difference(const Tensor& got, const Tensor& want, Tolerance tol) {
    if (got.dtype() != want.dtype() || !(got.shape() == want.shape()))
        return type_text(got) + ", expected " + type_text(want);
    if (want.dtype() == DType::bf16) tol.rtol = std::max(tol.rtol, std::ldexp(1.0, -6));
    std::int64_t bad = 0, first = -1;
    for (std::int64_t i = 0; i < want.count(); ++i)
        if (!element_close(got, want, i, tol) && ++bad == 1) first = i;
    if (!bad) return "";
    return std::to_string(bad) + " of " + std::to_string(want.count()) + " elements differ, first at flat index " +
           std::to_string(first) + ": " + element_text(got, first) + ", expected " + element_text(want, first);
}
/// The same for values of any kind.
inline std::string difference(const Value& got, const Value& want, Tolerance tol) {
    if (got.kind() != want.kind()) return got.to_string() + ", expected " + want.to_string();
    if (!want.has_value()) return "";
    if (want.kind() == quern::Kind::tensor) return difference(got.tensor(), want.tensor(), tol);
    if (got.size() != want.size()) return got.to_string() + ", expected " + want.to_string();
    if (want.kind() == quern::Kind::map) {
        std::string why = difference(got.keys(), want.keys(), {0, 0});
        return !why.empty() ? "keys: " + why : difference(got.values(), want.values(), tol);
    }
    for (std::size_t i = 0; i < want.size(); ++i)
        if (std::string why = difference(got[i], want[i], tol); !why.empty()) return "item " + std::to_string(i) + ": " + why;
    return "";
}
}  // namespace cli
