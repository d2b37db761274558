// What the 8-bit kernels share: scales, zero points, rounding.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <quern/kernels/kernel.hpp>
#include <quern/tensor/half.hpp>

QUERN_BEGIN
namespace quant {

inline const View* given(const Call& c, int i) {
    return i >= 0 && static_cast<std::size_t>(i) < c.in.size() && c.in[static_cast<std::size_t>(i)].present() ? &c.in[static_cast<std::size_t>(i)] : nullptr;
}
/// Scale k of f32, f16 or bf16; a single one serves every k.
inline float scale_at(const View& v, std::int64_t k) {
    if (v.count() == 1) k = 0;
    if (v.dtype == DType::f16) return to_float(v.in<Half>()[k]);
    if (v.dtype == DType::bf16) return to_float(v.in<BFloat16>()[k]);
    return v.in<float>()[k];
}
/// Zero point k of u8 or i8; 0 where absent.
inline std::int32_t zero_at(const View* v, std::int64_t k) {
    if (!v || v->count() == 0) return 0;
    if (v->count() == 1) k = 0;
    if (v->dtype == DType::u8) return v->in<std::uint8_t>()[k];
    if (v->dtype == DType::i8) return v->in<std::int8_t>()[k];
    return v->in<std::int32_t>()[k];
}
/// A scale or zero point of an output or of a whole tensor must be one number.
inline void need_single(const View* v, const char* what) {
    if (v && v->count() != 1) raise(ErrorCode::shape_mismatch, std::string(what) + " has " + std::to_string(v->count()) + " numbers; one is accepted");
}
inline void need_single_or(const View* v, std::int64_t n, const char* what) {
    if (v && v->count() != 1 && v->count() != n)
        raise(ErrorCode::shape_mismatch, std::string(what) + " has " + std::to_string(v->count()) + " numbers; accepted are 1 and " + std::to_string(n));
}
/// round_half_even(x) + zero, saturated to T.
template <class T>
T saturate(float x, std::int32_t zero) {
    float low = static_cast<float>(std::numeric_limits<T>::min() - zero), high = static_cast<float>(std::numeric_limits<T>::max() - zero);
    x = x > low ? x : low;  // NaN goes to the least value
    x = x < high ? x : high;
    return static_cast<T>(static_cast<std::int32_t>((x + 12582912.f) - 12582912.f) + zero);
}
/// y = saturate(acc * scale[k] + zero); `step` 0: one scale for all.
template <class T>
void requantize(const std::int32_t* acc, const float* scale, std::int64_t step, std::int32_t zero, T* y, std::int64_t n) {
    if (step == 0) {
        float s = *scale;
        for (std::int64_t i = 0; i < n; ++i) y[i] = saturate<T>(static_cast<float>(acc[i]) * s, zero);
    } else {
        for (std::int64_t i = 0; i < n; ++i) y[i] = saturate<T>(static_cast<float>(acc[i]) * scale[i], zero);
    }
}
/// The values of all 256 bytes: (x - zero) * scale.
inline void dequantized(bool is_unsigned, float scale, std::int32_t zero, float* table) {
    for (int i = 0; i < 256; ++i) {
        std::int32_t x = is_unsigned ? i : static_cast<std::int8_t>(i);
        table[i] = static_cast<float>(x - zero) * scale;
    }
}
inline std::uint8_t quantized(float x, bool is_unsigned, std::int32_t zero) {
    return is_unsigned ? saturate<std::uint8_t>(x, zero) : static_cast<std::uint8_t>(saturate<std::int8_t>(x, zero));
}
inline std::size_t up(std::size_t n) { return (n + 63) / 64 * 64; }

}  // namespace quant
QUERN_END
