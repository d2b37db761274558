// The one header that a `.cu` file includes. Under nvcc: thin wrappers over CUDA. Under a plain C++20 compiler: the
// emulator of tests/simt, which runs the same source on the CPU and reports races, bad barriers and bad accesses.
//
// What a kernel must keep to, so that both can run it:
//  - launch with simt::launch(), never with the triple-angle syntax (a test searches for it);
//  - statically sized shared memory is a function-local `__shared__`; any other comes from simt::dynamic_smem<T>();
//  - 16-byte accesses go through load4() and store4();
//  - nothing with a destructor lives across a barrier; no __constant__ variables: constants are kernel parameters;
//  - blocks do not wait for each other.
#pragma once
#include <quern/version.hpp>

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

QUERN_BEGIN
namespace simt {

/// The block's dynamic shared memory, 128-byte aligned: as many bytes as launch() was given; contents undefined.
template <class T>
__device__ __forceinline__ T* dynamic_smem() {
    extern __shared__ __align__(128) unsigned char quern_dynamic_smem[];
    return reinterpret_cast<T*>(quern_dynamic_smem);
}

/// A 16-byte access; p is aligned to it (the emulator checks).
__device__ __forceinline__ float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ __forceinline__ void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }

/// Enqueues kernel(args...) on the stream. Arguments are converted to the kernel's parameter types. Returns the
/// launch's error; errors of the kernel itself come from a later call on the stream.
template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t smem, cudaStream_t stream, A&&... args) {
    static_assert(sizeof...(P) == sizeof...(A));
    constexpr std::size_t opt_in = 48 * 1024;  // above this a kernel must ask for shared memory by attribute
    const void* entry = reinterpret_cast<const void*>(kernel);
    if (smem > opt_in)
        if (cudaError_t e =
                cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(smem));
            e != cudaSuccess)
            return e;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    std::tuple<P...> values(static_cast<P>(args)...);
    return std::apply(
        [&](auto&... v) {
            void* pointers[] = {const_cast<void*>(static_cast<const void*>(&v))..., nullptr};
            return cudaLaunchKernelExC(&config, entry, pointers);
        },
        values);
}

}  // namespace simt
QUERN_END
#else
#include <simt_emul.hpp>
QUERN_BEGIN
namespace simt {
using ::simt::dynamic_smem;
using ::simt::launch;
using ::simt::load4;
using ::simt::store4;
}  // namespace simt
QUERN_END
#endif

QUERN_BEGIN
namespace simt {

/// f combined over the 32 lanes of a warp in which all lanes are active; each lane gets the same bits.
template <class T, class F>
__device__ __forceinline__ T warp_reduce(T v, F f) {
#pragma unroll
    for (int m = 16; m > 0; m >>= 1) v = f(v, __shfl_xor_sync(0xffffffffu, v, m));
    return v;
}

}  // namespace simt
QUERN_END
