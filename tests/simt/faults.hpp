// Kernels with a planted fault, and the same kernels without it.
#pragma once
#include <driver_types.h>

namespace faults {

/// out has `size` floats and receives in's values in a way that has the fault or, when `sound`, has not. Blocks of
/// `threads` threads.
struct Planted {
    const char* name;
    cudaError_t (*launch)(bool sound, const float* in, float* out);
    int line;  ///< in faults.cu, where a report must point
};
inline constexpr int threads = 128, size = 128;

/// Each thread exchanges a value with a thread of another warp through shared memory, without a barrier between.
extern const Planted missing_barrier;
/// The same through dynamic shared memory: a second round overwrites what slower threads still read.
extern const Planted missing_second_barrier;
/// Thread 127 writes out[128].
extern const Planted out_of_bounds_store;
/// Warp 1 skips the barrier.
extern const Planted divergent_barrier;
/// Half of a warp returns before the warp's shuffle.
extern const Planted early_exit;
/// Two blocks write the same elements.
extern const Planted two_blocks;
/// Lanes of a warp exchange values through shared memory without __syncwarp.
extern const Planted missing_syncwarp;
/// A 16-byte load from an address that is aligned to 4.
extern const Planted misaligned_vector;
/// Two buffers written and read in turn, without the barrier that keeps writers a round from readers.
extern const Planted missing_buffer_barrier;
/// What cp.async copies is read before it was waited for.
extern const Planted early_copy_read;
/// A thread ends with a cp.async under way.
extern const Planted unfinished_copy;
/// Thread 127 writes element 128 of a __shared__ array of 128.
extern const Planted static_array_overrun;

cudaError_t launch_too_many_threads();

}  // namespace faults
