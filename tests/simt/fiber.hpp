// Fibers: a stack and a saved place. x86-64 switches in twelve instructions, others through ucontext (4-8 times
// slower).
#pragma once
#include <cstddef>

#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT 1
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ADDRESS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ADDRESS 1
#endif
#endif
#if defined(SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace simt {

class Fiber {
public:
#if SIMT_ADDRESS
    static constexpr std::size_t stack_size = 256 << 10;
#else
    static constexpr std::size_t stack_size = 64 << 10;
#endif
    /// Takes a stack from the pool (with a guard page below it); the first switch enters `entry`, which never returns.
    void start(void (*entry)());
    /// Gives the stack back; what stood on it is abandoned without destructors.
    void stop();
    const char* stack() const noexcept { return stack_; }
    /// Makes this fiber stand for the calling OS thread.
    void adopt();
    /// Leaves `from` (for good when `last`) and continues here.
    void enter(Fiber& from, bool last = false);
    /// The first thing that an entry function does.
    static void entered();
    static bool on_any_stack(const void* p) noexcept;

private:
    void* sp_ = nullptr;
    char* stack_ = nullptr;
    void* fake_ = nullptr;          // AddressSanitizer's record
    const void* bounds_ = nullptr;  // of the stack, as AddressSanitizer wants them
    std::size_t bounds_size_ = 0;
#if defined(SIMT_UCONTEXT)
    ucontext_t context_;
#endif
};

}  // namespace simt
