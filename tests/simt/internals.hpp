// What the emulator's own units share: the machine's state as the access checker sees it, and the checker.
#pragma once
#include <cstddef>
#include <cstdint>

#include "runtime.hpp"

namespace simt {

/// The running thread of the emulated device. Epochs count barriers (and starts of blocks and launches) and are unique
/// in the process; `warp_epoch` counts the full-mask __syncwarp of the thread's warp.
struct Where {
    const char* stack;
    std::size_t stack_size;
    unsigned thread, block;
    std::uint32_t epoch, launch_epoch, block_epoch, warp_epoch;
};
Where where() noexcept;
/// Whether the calling OS thread is executing kernel code (not host code, not the emulator).
bool in_kernel() noexcept;
/// Whether p is on a fiber's stack or in the launch's arguments.
bool launch_private(const void* p) noexcept;
/// Records the fault and leaves the kernel for good: nothing on the thread's stack is destroyed, so that text there is
/// in arrays.
[[noreturn]] void kernel_fault(const char* format, ...) __attribute__((format(printf, 1, 2)));
struct Text {
    char s[128];
};

/// The access checker: race.cpp in the race build, no_checks.cpp in the others.
namespace checker {
/// issue: a cp.async begins; its target may not be touched until the write that ends it.
enum class Access { read, write, atomic, issue };
extern const bool active;
void launch_begin(void* dynamic_smem, std::size_t bytes);
void access(const void* p, std::size_t n, Access kind, void* pc);
void add_region(void*, std::size_t);
void remove_region(void*);
}  // namespace checker

}  // namespace simt
