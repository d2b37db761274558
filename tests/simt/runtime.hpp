// The emulator's control panel: what tests set before a launch and read after it.
//
// A launch runs its blocks one after another and the threads of a block as fibers of the calling OS thread, switched at
// barriers and warp collectives only. The order is a function of the seed. Launches from several OS threads wait for
// each other.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace simt {

struct Config {
    /// 0: threads and blocks in order. Even: a uniform choice among ready warps and lanes, blocks shuffled. Odd: random
    /// warp priorities, the highest ready warp running as far as it can (the largest skew between warps, which is what
    /// shows a missing barrier), redrawn now and then.
    std::uint64_t seed = 0;
    /// Planted faults: waits for events do nothing, the host's or the streams'.
    bool forget_host_waits = false, forget_stream_waits = false;
    /// What the device grants a block and what a processor has, in bytes: the least of all architectures that kernels are built for (sm_86,
    /// sm_89, sm_120; sm_80: 163 and 164 KiB, sm_90 and sm_100: 227 and 228).
    std::size_t shared_of_block = 99 << 10, shared_of_processor = 100 << 10;
};
extern Config config;

/// Pieces of work that lie on streams and are not done.
std::size_t pending();

/// What the executable was built to find besides divergence and deadlock: nothing, what AddressSanitizer and
/// UndefinedBehaviorSanitizer find (they end the process), or races and bounds by the checker of race.cpp.
enum class Checks { none, address, race };
Checks checks() noexcept;

/// The first fault since the last call, with the place in the source ("file.cu:12"); empty when there was none. While
/// one stands, synchronizing calls of the runtime twin fail.
std::string take_fault();
bool faulted() noexcept;
const std::string& fault() noexcept;

struct Stats {
    std::uint64_t launches = 0, blocks = 0, switches = 0, barriers = 0, collectives = 0;
    std::uint64_t shared = 0;  ///< bytes of dynamic shared memory of the last launch
    std::uint64_t mma = 0;  ///< products that warps took by tensor cores
    /// Race checks only: loads and stores of memory other than the thread's own stack, and the bytes of them that were
    /// device memory.
    std::uint64_t accesses = 0, bytes_read = 0, bytes_written = 0;
};
extern Stats stats;

/// Device memory, as the runtime twin allocates and frees it.
void add_device_memory(void*, std::size_t);
void remove_device_memory(void*);

}  // namespace simt
