// Storage types of kernel tests: values as a type holds them, and back.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <vector>

#include <quern/dtype.hpp>

#include "device_test.hpp"

namespace device_test {

inline float widened(float x) { return x; }
inline float widened(__half x) { return __half2float(x); }
inline float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
inline void narrowed(float x, float& y) { y = x; }
inline void narrowed(float x, __half& y) { y = __float2half_rn(x); }
inline void narrowed(float x, __nv_bfloat16& y) { y = __float2bfloat16_rn(x); }
template <class T>
std::vector<T> narrow(const std::vector<float>& v) {
    std::vector<T> t(v.size());
    for (std::size_t i = 0; i < v.size(); ++i) narrowed(v[i], t[i]);
    return t;
}
template <class T>
std::vector<float> widen(const std::vector<T>& v) {
    std::vector<float> f(v.size());
    for (std::size_t i = 0; i < v.size(); ++i) f[i] = widened(v[i]);
    return f;
}
/// The values that remain once they were stored as T.
template <class T>
std::vector<float> held(const std::vector<float>& v) {
    return widen(narrow<T>(v));
}
template <class T>
struct Storage;
template <>
struct Storage<float> {
    static constexpr quern::DType type = quern::DType::f32;
    static constexpr double rounding = 0;  ///< of a result, relative; f32's is in the tolerances
};
template <>
struct Storage<__half> {
    static constexpr quern::DType type = quern::DType::f16;
    static constexpr double rounding = 0x1p-11;
};
template <>
struct Storage<__nv_bfloat16> {
    static constexpr quern::DType type = quern::DType::bf16;
    static constexpr double rounding = 0x1p-8;
};
/// f(T()) for each storage type.
template <class F>
void each_storage(F&& f) {
    f(float());
    f(__half());
    f(__nv_bfloat16());
}

}  // namespace device_test
