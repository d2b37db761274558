// The one header that a `.cu` file includes. Under nvcc: thin wrappers over CUDA. Under a plain C++20 compiler: the
// emulator of tests/simt, which runs the same source on the CPU and reports races, bad barriers and bad accesses.
//
// What a kernel must keep to, so that both can run it:
//  - launch with simt::launch(), never with the triple-angle syntax (a test searches for it);
//  - statically sized shared memory is a function-local `__shared__`; any other comes from simt::dynamic_smem<T>();
//  - vector accesses go through load_pack(), store_pack(), load4() and store4(), asynchronous copies through
//  cp_async();
//  - nothing with a destructor lives across a barrier; no __constant__ variables: constants are kernel parameters;
//  - blocks do not wait for each other.
#pragma once
#include <quern/kernels/cuda/raw.hpp>
#include <quern/version.hpp>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
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

/// The address of shared memory as PTX instructions take it.
__device__ __forceinline__ unsigned smem_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
/// Copies Bytes (4, 8 or 16; both sides aligned to it) from global to shared memory in the background, or fills with
/// zeros where not `valid` (the source is not read then). What this thread copied is there after cp_async_wait(), for
/// other threads after a barrier that follows it.
template <int Bytes>
__device__ __forceinline__ void cp_async(void* to, const void* from, bool valid) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
    const int take = valid ? Bytes : 0;
    if constexpr (Bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(smem_address(to)), "l"(from), "r"(take)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;\n" ::"r"(smem_address(to)), "l"(from), "r"(take),
                     "n"(Bytes)
                     : "memory");
}
/// Closes a group of copies.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
/// Until at most N of this thread's groups are under way.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}
/// Four 8 x 8 matrices of 16-bit elements: lane i gives the address (16-byte aligned) of row i % 8 of matrix i / 8 and
/// receives of each matrix the elements (i / 4, i % 4 * 2 + {0, 1}); `trans`: of its transpose.
template <bool Trans>
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* p) {
    if constexpr (Trans)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(smem_address(p))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(smem_address(p))
                     : "memory");
}
/// d (16 x 8, f32) += a (16 x 16) b (16 x 8), T is __half or __nv_bfloat16; fragments as in the PTX manual,
/// mma.m16n8k16.
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    if constexpr (std::is_same_v<T, __half>)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
            "{%0,%1,%2,%3};\n"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// x rounded to TF32 (10 bits of fraction), as bits.
__device__ __forceinline__ unsigned to_tf32(float x) {
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(r) : "f"(x));
    return r;
}
/// d (16 x 8, f32) += a (16 x 8) b (8 x 8) of TF32; fragments as in the PTX manual, mma.m16n8k8.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// N elements moved by one access; N * sizeof(T) is 1, 2, 4, 8 or 16 and the address a multiple of it.
template <class T, int N>
__device__ __forceinline__ void load_pack(const T* p, T (&v)[N]) {
    using Raw = simt::Raw<sizeof(T) * N>;
    const Raw raw = *reinterpret_cast<const Raw*>(p);
    memcpy(v, &raw, sizeof raw);
}
template <class T, int N>
__device__ __forceinline__ void store_pack(T* p, const T (&v)[N]) {
    using Raw = simt::Raw<sizeof(T) * N>;
    Raw raw;
    memcpy(&raw, v, sizeof raw);
    *reinterpret_cast<Raw*>(p) = raw;
}

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
using ::simt::cp_async;
using ::simt::cp_async_commit;
using ::simt::cp_async_wait;
using ::simt::dynamic_smem;
using ::simt::launch;
using ::simt::ldmatrix_x4;
using ::simt::load4;
using ::simt::load_pack;
using ::simt::mma_m16n8k16;
using ::simt::mma_m16n8k8_tf32;
using ::simt::store4;
using ::simt::store_pack;
using ::simt::to_tf32;
}  // namespace simt
QUERN_END
#endif

QUERN_BEGIN
namespace simt {

/// A number for devices before sm_100 and one from there on, whose compiler plans with more registers than it then grants itself, and
/// spills. As the second of __launch_bounds__ (the least blocks that shall share a processor) 0 leaves registers to the compiler.
__host__ __device__ constexpr int by_arch([[maybe_unused]] int older, [[maybe_unused]] int newer) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
    return newer;
#else
    return older;
#endif
}

/// Division by a divisor that is known before the launch; exact for dividends below 2^31.
struct Divisor {
    unsigned divisor = 1, magic = 0, shift = 0;
    Divisor() = default;
    explicit Divisor(std::int64_t d) : divisor(static_cast<unsigned>(d)) {
        while ((std::uint64_t{1} << shift) < divisor) ++shift;
        magic =
            static_cast<unsigned>(((std::uint64_t{1} << 32) * ((std::uint64_t{1} << shift) - divisor)) / divisor + 1);
    }
    __device__ __forceinline__ unsigned divide(unsigned n) const {
        return (static_cast<unsigned>((static_cast<std::uint64_t>(n) * magic) >> 32) + n) >> shift;
    }
    /// n / divisor, and n becomes n % divisor.
    __device__ __forceinline__ unsigned split(unsigned& n) const {
        const unsigned q = divide(n);
        n -= q * divisor;
        return q;
    }
};

/// f combined over the 32 lanes of a warp in which all lanes are active; each lane gets the same bits.
template <class T, class F>
__device__ __forceinline__ T warp_reduce(T v, F f) {
#pragma unroll
    for (int m = 16; m > 0; m >>= 1) v = f(v, __shfl_xor_sync(0xffffffffu, v, m));
    return v;
}

}  // namespace simt
QUERN_END
