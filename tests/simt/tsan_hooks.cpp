// What -fsanitize=thread makes a compiler call, in place of ThreadSanitizer's library. The file itself is compiled
// without the flag, and nothing links with it.
#include <cstddef>
#include <cstring>

#include "internals.hpp"

namespace {
using simt::checker::Access;
inline void note(const void* p, std::size_t n, Access a, void* pc) {
    if (simt::in_kernel()) simt::checker::access(p, n, a, pc);
}
}  // namespace

#define PC __builtin_return_address(0)
#define HOOKS(prefix, n)                                                     \
    void __tsan_##prefix##read##n(void* p) { note(p, n, Access::read, PC); } \
    void __tsan_##prefix##write##n(void* p) { note(p, n, Access::write, PC); }
#define ALL(n) HOOKS(, n) HOOKS(unaligned_, n) HOOKS(volatile_, n) HOOKS(unaligned_volatile_, n)

extern "C" {
ALL(1)
ALL(2)
ALL(4)
ALL(8)
ALL(16)
void __tsan_read_range(void* p, std::size_t n) { note(p, n, Access::read, PC); }
void __tsan_write_range(void* p, std::size_t n) { note(p, n, Access::write, PC); }
void* __tsan_memcpy(void* to, const void* from, std::size_t n) {
    note(from, n, Access::read, PC);
    note(to, n, Access::write, PC);
    return std::memcpy(to, from, n);
}
void* __tsan_memset(void* to, int v, std::size_t n) {
    note(to, n, Access::write, PC);
    return std::memset(to, v, n);
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
