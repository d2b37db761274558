// CUDA's kernel vocabulary for a plain C++20 compiler; kernels reach it through kernels/cuda/simt.hpp only.
//
// Not modelled: weak memory and fences, the order of warps within an instruction, the roundings of fast-math
// intrinsics, bank conflicts, register pressure. Compile with -fno-strict-aliasing (as nvcc does): kernels reinterpret
// float as float4. No link-time optimization: the entry points below must stay opaque, else a compiler may keep shared
// memory in registers across a barrier.
#pragma once
#include <driver_types.h>
#include <math.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

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

enum class Op : std::uint8_t { none, shuffle, vote, syncwarp };
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
struct Launch {
    dim3 grid, block;
    std::size_t smem;
    void (*thread)(void*);  ///< runs one thread of the kernel
    void* arguments;
    std::size_t argument_bytes;
};
cudaError_t run(const Launch&);

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

/// See kernels/cuda/simt.hpp. The kernel has run on return; a fault in it gives cudaErrorLaunchFailure and a message in
/// take_fault().
template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t smem, cudaStream_t, A&&... args) {
    static_assert(sizeof...(P) == sizeof...(A));
    struct Arguments {
        void (*kernel)(P...);
        std::tuple<P...> values;
    } a{kernel, std::tuple<P...>(static_cast<P>(args)...)};
    auto thread = [](void* p) {
        auto& a = *static_cast<Arguments*>(p);
        std::apply(a.kernel, a.values);
    };
    return run({grid, block, smem, thread, &a, sizeof a});
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
