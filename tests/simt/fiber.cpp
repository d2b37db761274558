#include "fiber.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <new>
#include <vector>
#if SIMT_ADDRESS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(SIMT_UCONTEXT)
extern "C" void simt_switch_stack(void** from, void* to);
asm(R"(
.text
.globl simt_switch_stack
.type simt_switch_stack,@function
simt_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size simt_switch_stack,.-simt_switch_stack
)");
#endif

namespace simt {
namespace {
constexpr std::size_t kGuard = 4096;
std::vector<char*> all_stacks, free_stacks;
}  // namespace

void Fiber::start(void (*entry)()) {
    if (free_stacks.empty()) {
        void* p = mmap(nullptr, stack_size + kGuard, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) throw std::bad_alloc();
        mprotect(p, kGuard, PROT_NONE);
        free_stacks.push_back(static_cast<char*>(p) + kGuard);
        all_stacks.push_back(free_stacks.back());
    }
    stack_ = free_stacks.back();
    free_stacks.pop_back();
#if SIMT_ADDRESS
    __asan_unpoison_memory_region(stack_, stack_size);  // the redzones of abandoned frames
#endif
    bounds_ = stack_;
    bounds_size_ = stack_size;
#if defined(SIMT_UCONTEXT)
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = stack_size;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
#else
    void** s = reinterpret_cast<void**>(stack_ + stack_size - 64);
    *--s = nullptr;  // entry's return address; leaves the stack aligned as at a call
    *--s = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--s = nullptr;
    sp_ = s;
#endif
}

void Fiber::stop() {
    if (stack_) free_stacks.push_back(stack_);
    stack_ = nullptr;
}

void Fiber::adopt() {
#if SIMT_ADDRESS
    pthread_attr_t a;
    void* p = nullptr;
    if (pthread_getattr_np(pthread_self(), &a) == 0) {
        pthread_attr_getstack(&a, &p, &bounds_size_);
        pthread_attr_destroy(&a);
        bounds_ = p;
    }
#endif
}

void Fiber::enter(Fiber& from, [[maybe_unused]] bool last) {
#if SIMT_ADDRESS
    __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_, bounds_, bounds_size_);
#endif
#if defined(SIMT_UCONTEXT)
    swapcontext(&from.context_, &context_);
#else
    simt_switch_stack(&from.sp_, sp_);
#endif
#if SIMT_ADDRESS
    __sanitizer_finish_switch_fiber(from.fake_, nullptr, nullptr);
#endif
}

void Fiber::entered() {
#if SIMT_ADDRESS
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

bool Fiber::on_any_stack(const void* p) noexcept {
    for (const char* s : all_stacks)
        if (p >= s && p < s + stack_size) return true;
    return false;
}

}  // namespace simt
