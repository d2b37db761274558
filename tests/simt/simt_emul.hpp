// CUDA's kernel vocabulary for a plain C++20 compiler; kernels reach it through kernels/cuda/simt.hpp only.
//
// Not modelled: weak memory and fences, the order of warps within an instruction, the roundings of fast-math
// intrinsics, bank conflicts, register pressure. Compile with -fno-strict-aliasing (as nvcc does): kernels reinterpret
// float as float4. No link-time optimization: the entry points below must stay opaque, else a compiler may keep shared
// memory in registers across a barrier.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <driver_types.h>
#include <math.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include <quern/kernels/cuda/raw.hpp>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#undef __forceinline__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static  // one block runs at a time: a function-local static is the block's shared memory

namespace simt {

/// A place in a kernel's source; the default argument of what blocks, so that messages can name it.
struct Loc {
    const char* file;
    unsigned line;
    static constexpr Loc here(const char* f = __builtin_FILE(), unsigned l = __builtin_LINE()) { return {f, l}; }
};

/// The running thread's built-in variables, rewritten at every switch.
struct Builtins {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
extern Builtins builtins;

enum class Op : std::uint8_t { none, shuffle, vote, syncwarp, ldmatrix, mma };
inline constexpr std::size_t max_lane_bytes = 64;

/// Waits for all threads of the block; returns in how many `predicate` held.
int block_barrier(bool predicate, const Loc&);
/// Waits for the lanes of `mask`; the last to arrive computes all results. `in` and `out` of `combine` are arrays of 32
/// lane records; those of lanes outside the mask are poison.
using Combine = void (*)(unsigned mask, const void* in, void* out);
void warp_collective(Op, unsigned mask, const void* in, std::size_t in_bytes, void* out, std::size_t out_bytes, Combine,
                     const Loc&);
void* dynamic_smem_base();
void require_aligned(const void* p, std::size_t to, const Loc&);
/// A copy that takes place when its group is waited for; until then its target is poison.
void cp_async_issue(void* to, const void* from, std::size_t bytes, bool valid, const Loc&);
void cp_async_commit();
void cp_async_wait_for(std::size_t pending);
/// Accesses that the emulator performs for the thread, for the checker of the race build.
void note_read(const void* p, std::size_t n);
void note_atomic(const void* p, std::size_t n, void* pc);
struct Launch {
    dim3 grid, block;
    std::size_t smem;
    void (*thread)(void*);  ///< runs one thread of the kernel
    void* arguments;
    std::size_t argument_bytes;
};
cudaError_t run(const Launch&);
/// Now on the null stream; on another one when that is waited for (streams.cpp).
cudaError_t submit(cudaStream_t, const Launch&);

template <class T>
T* dynamic_smem() {
    return static_cast<T*>(dynamic_smem_base());
}

__attribute__((always_inline)) inline float4 load4(const float* p, const Loc& l = Loc::here()) {
    require_aligned(p, sizeof(float4), l);
    return *reinterpret_cast<const float4*>(p);
}
__attribute__((always_inline)) inline void store4(float* p, float4 v, const Loc& l = Loc::here()) {
    require_aligned(p, sizeof(float4), l);
    *reinterpret_cast<float4*>(p) = v;
}

template <int Bytes>
__attribute__((always_inline)) inline void cp_async(void* to, const void* from, bool valid,
                                                    const Loc& l = Loc::here()) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
    cp_async_issue(to, from, Bytes, valid, l);
}
template <int N>
void cp_async_wait() {
    cp_async_wait_for(N);
}

template <class T, int N>
__attribute__((always_inline)) inline void load_pack(const T* p, T (&v)[N], const Loc& l = Loc::here()) {
    using Raw = quern::simt::Raw<sizeof(T) * N>;
    require_aligned(p, sizeof(Raw), l);
    const Raw raw = *reinterpret_cast<const Raw*>(p);
    __builtin_memcpy(static_cast<void*>(v), &raw, sizeof raw);
}
template <class T, int N>
__attribute__((always_inline)) inline void store_pack(T* p, const T (&v)[N], const Loc& l = Loc::here()) {
    using Raw = quern::simt::Raw<sizeof(T) * N>;
    require_aligned(p, sizeof(Raw), l);
    Raw raw;
    __builtin_memcpy(&raw, static_cast<const void*>(v), sizeof raw);
    *reinterpret_cast<Raw*>(p) = raw;
}

/// See kernels/cuda/simt.hpp. On the null stream the kernel has run on return; a fault in it gives
/// cudaErrorLaunchFailure and a message in take_fault().
template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t smem, cudaStream_t stream, A&&... args) {
    static_assert(sizeof...(P) == sizeof...(A));
    struct Arguments {
        void (*kernel)(P...);
        std::tuple<P...> values;
    } a{kernel, std::tuple<P...>(static_cast<P>(args)...)};
    auto thread = [](void* p) {
        auto& a = *static_cast<Arguments*>(p);
        std::apply(a.kernel, a.values);
    };
    return submit(stream, {grid, block, smem, thread, &a, sizeof a});
}

template <class In, class Out, class F>
Out collective(Op op, unsigned mask, const In& in, F, const Loc& l) {
    static_assert(std::is_trivially_copyable_v<In> && std::is_trivially_copyable_v<Out> && std::is_empty_v<F>);
    static_assert(sizeof(In) <= max_lane_bytes && sizeof(Out) <= max_lane_bytes);
    Out out;
    warp_collective(
        op, mask, &in, sizeof(In), &out, sizeof(Out),
        [](unsigned m, const void* i, void* o) { F{}(m, static_cast<const In*>(i), static_cast<Out*>(o)); }, l);
    return out;
}
/// F{}(lane, argument, width) is the lane to read from.
template <class T, class F>
T shuffle(unsigned mask, T v, int argument, int width, F, const Loc& l) {
    struct In {
        T v;
        int argument, width;
    };
    return collective<In, T>(
        Op::shuffle, mask, In{v, argument, width},
        [](unsigned, const In* in, T* out) {
            for (int i = 0; i < 32; ++i) out[i] = in[F{}(i, in[i].argument, in[i].width) & 31].v;
        },
        l);
}

/// The rows are read when all lanes are there, as the instruction does.
template <bool Trans>
__attribute__((always_inline)) inline void ldmatrix_x4(unsigned (&r)[4], const void* p, const Loc& l = Loc::here()) {
    struct Out {
        unsigned r[4];
    };
    require_aligned(p, 16, l);
    note_read(p, 16);
    const Out o = collective<const std::uint16_t*, Out>(
        Op::ldmatrix, ~0u, static_cast<const std::uint16_t*>(p),
        [](unsigned, const std::uint16_t* const* row, Out* out) {
            for (int i = 0; i < 32; ++i)
                for (int k = 0; k < 4; ++k) {
                    const int a = i / 4, b = i % 4 * 2;
                    const unsigned lo = Trans ? row[k * 8 + b][a] : row[k * 8 + a][b];
                    const unsigned hi = Trans ? row[k * 8 + b + 1][a] : row[k * 8 + a][b + 1];
                    out[i].r[k] = lo | hi << 16;
                }
        },
        l);
    for (int i = 0; i < 4; ++i) r[i] = o.r[i];
}

inline float from_bits16(const __nv_bfloat16*, unsigned u) { return std::bit_cast<float>((u & 0xffff) << 16); }
inline float from_bits16(const __half*, unsigned u) {
    return __half2float(std::bit_cast<__half>(static_cast<std::uint16_t>(u)));
}
template <class T>
void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const Loc& l = Loc::here()) {
    struct In {
        unsigned a[4], b[2];
        float d[4];
    };
    struct Out {
        float d[4];
    };
    const In in{{a[0], a[1], a[2], a[3]}, {b0, b1}, {d[0], d[1], d[2], d[3]}};
    const Out o = collective<In, Out>(
        Op::mma, ~0u, in,
        [](unsigned, const In* in, Out* out) {
            // Lane l = 4 g + t holds rows g and g + 8 of A and D, column g of B.
            float A[16][16], B[16][8], D[16][8] = {};
            for (int l = 0; l < 32; ++l) {
                const int g = l / 4, t = l % 4;
                for (int i = 0; i < 4; ++i)
                    for (int h = 0; h < 2; ++h)
                        A[g + 8 * (i & 1)][2 * t + h + 8 * (i >> 1)] =
                            from_bits16(static_cast<T*>(nullptr), in[l].a[i] >> (16 * h));
                for (int i = 0; i < 2; ++i)
                    for (int h = 0; h < 2; ++h)
                        B[2 * t + h + 8 * i][g] = from_bits16(static_cast<T*>(nullptr), in[l].b[i] >> (16 * h));
            }
            for (int m = 0; m < 16; ++m)
                for (int k = 0; k < 16; ++k)
                    for (int n = 0; n < 8; ++n) D[m][n] += A[m][k] * B[k][n];
            for (int l = 0; l < 32; ++l)
                for (int i = 0; i < 4; ++i) out[l].d[i] = in[l].d[i] + D[l / 4 + 8 * (i >> 1)][2 * (l % 4) + (i & 1)];
        },
        l);
    for (int i = 0; i < 4; ++i) d[i] = o.d[i];
}

inline unsigned to_tf32(float x) {  // to the nearest, ties away from zero
    const auto bits = std::bit_cast<unsigned>(x);
    if ((bits & 0x7f800000) == 0x7f800000) return bits & ~0x1fffu;
    return (bits + 0x1000) & ~0x1fffu;
}
inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                             const Loc& l = Loc::here()) {
    struct In {
        unsigned a[4], b[2];
        float d[4];
    };
    struct Out {
        float d[4];
    };
    const In in{{a[0], a[1], a[2], a[3]}, {b0, b1}, {d[0], d[1], d[2], d[3]}};
    const Out o = collective<In, Out>(
        Op::mma, ~0u, in,
        [](unsigned, const In* in, Out* out) {
            // Lane l = 4 g + t holds rows g and g + 8 of A and D, column g of B; the low bits of a number are ignored.
            const auto value = [](unsigned u) { return std::bit_cast<float>(u & ~0x1fffu); };
            float A[16][8], B[8][8], D[16][8] = {};
            for (int l = 0; l < 32; ++l) {
                const int g = l / 4, t = l % 4;
                for (int i = 0; i < 4; ++i) A[g + 8 * (i & 1)][t + 4 * (i >> 1)] = value(in[l].a[i]);
                for (int i = 0; i < 2; ++i) B[t + 4 * i][g] = value(in[l].b[i]);
            }
            for (int m = 0; m < 16; ++m)
                for (int k = 0; k < 8; ++k)
                    for (int n = 0; n < 8; ++n) D[m][n] += A[m][k] * B[k][n];
            for (int l = 0; l < 32; ++l)
                for (int i = 0; i < 4; ++i) out[l].d[i] = in[l].d[i] + D[l / 4 + 8 * (i >> 1)][2 * (l % 4) + (i & 1)];
        },
        l);
    for (int i = 0; i < 4; ++i) d[i] = o.d[i];
}

}  // namespace simt

inline constexpr auto& threadIdx = simt::builtins.thread;
inline constexpr auto& blockIdx = simt::builtins.block;
inline constexpr auto& blockDim = simt::builtins.block_dim;
inline constexpr auto& gridDim = simt::builtins.grid_dim;
inline constexpr int warpSize = 32;

inline void __syncthreads(const simt::Loc& l = simt::Loc::here()) { simt::block_barrier(false, l); }
inline int __syncthreads_or(int p, const simt::Loc& l = simt::Loc::here()) { return simt::block_barrier(p, l) != 0; }
inline int __syncthreads_count(int p, const simt::Loc& l = simt::Loc::here()) { return simt::block_barrier(p, l); }
inline void __syncwarp(unsigned m = ~0u, const simt::Loc& l = simt::Loc::here()) {
    simt::collective<int, int>(
        simt::Op::syncwarp, m, 0, [](unsigned, const int*, int*) {}, l);
}

template <class T>
T __shfl_sync(unsigned m, T v, int lane, int width = 32, const simt::Loc& l = simt::Loc::here()) {
    return simt::shuffle(
        m, v, lane, width, [](int i, int a, int w) { return (i & ~(w - 1)) | (a & (w - 1)); }, l);
}
template <class T>
T __shfl_xor_sync(unsigned m, T v, int bits, int width = 32, const simt::Loc& l = simt::Loc::here()) {
    auto from = [](int i, int a, int w) { return ((i ^ a) & ~(w - 1)) > (i & ~(w - 1)) ? i : i ^ a; };
    return simt::shuffle(m, v, bits, width, from, l);
}
template <class T>
T __shfl_down_sync(unsigned m, T v, int by, int width = 32, const simt::Loc& l = simt::Loc::here()) {
    return simt::shuffle(
        m, v, by, width, [](int i, int a, int w) { return (i & (w - 1)) + a < w ? i + a : i; }, l);
}
template <class T>
T __shfl_up_sync(unsigned m, T v, int by, int width = 32, const simt::Loc& l = simt::Loc::here()) {
    return simt::shuffle(
        m, v, by, width, [](int i, int a, int w) { return (i & (w - 1)) >= a ? i - a : i; }, l);
}
inline unsigned __ballot_sync(unsigned m, int p, const simt::Loc& l = simt::Loc::here()) {
    return simt::collective<int, unsigned>(
        simt::Op::vote, m, p,
        [](unsigned m, const int* in, unsigned* out) {
            unsigned b = 0;
            for (int i = 0; i < 32; ++i) b |= (m >> i & 1u) && in[i] ? 1u << i : 0u;
            for (int i = 0; i < 32; ++i) out[i] = b;
        },
        l);
}
inline int __any_sync(unsigned m, int p, const simt::Loc& l = simt::Loc::here()) { return __ballot_sync(m, p, l) != 0; }
inline int __all_sync(unsigned m, int p, const simt::Loc& l = simt::Loc::here()) { return __ballot_sync(m, p, l) == m; }
inline unsigned __activemask() = delete;  // has no meaning that every legal schedule shares

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
template <class T>
T __ldg(const T* p) {
    return *p;
}
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
template <class T>
__attribute__((no_sanitize_thread, noinline)) T atomicAdd(T* p, std::type_identity_t<T> v) {
    simt::note_atomic(p, sizeof(T), __builtin_return_address(0));
    const T old = *p;
    *p = old + v;
    return old;
}
inline void __threadfence() {}
