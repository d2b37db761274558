// Storage types of device code as f32, and back.
#pragma once
#include <quern/kernels/cuda/simt.hpp>

QUERN_BEGIN
namespace cuda {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T>
__device__ __forceinline__ T from_float(float x) {
    if constexpr (std::is_same_v<T, __half>) return __float2half_rn(x);
    else if constexpr (std::is_same_v<T, __nv_bfloat16>) return __float2bfloat16_rn(x);
    else return x;
}

/// W elements by one access, widened and narrowed.
template <int W, class T>
__device__ __forceinline__ void load_wide(const T* p, float* v) {
    T raw[W];
    simt::load_pack(p, raw);
#pragma unroll
    for (int i = 0; i < W; ++i) v[i] = to_float(raw[i]);
}
template <int W, class T>
__device__ __forceinline__ void store_wide(T* p, const float* v) {
    T raw[W];
#pragma unroll
    for (int i = 0; i < W; ++i) raw[i] = from_float<T>(v[i]);
    simt::store_pack(p, raw);
}

}  // namespace cuda
QUERN_END
