// The access checker. Kernels are compiled with -fsanitize=thread, which reports each of their loads and stores to the
// hooks of tsan_hooks.cpp; for each byte of shared and device memory a cell remembers the last writer and the readers.
// What it finds does not depend on the schedule: two accesses to a byte conflict where no barrier is between them,
// whichever came first. Also found: bytes outside of every allocation, and shared memory read before its block wrote
// it.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "internals.hpp"
#include "simt_emul.hpp"

extern "C" char __executable_start, __data_start, _end;

namespace simt::checker {

const bool active = true;

namespace {

// `who` is a thread's number, or with a flag: any lane of that thread's warp, any thread of the block.
constexpr std::uint32_t kPending = 1u << 28, kAtomic = 1u << 29, kWarp = 1u << 30, kBlock = 1u << 31, kId = 0xffff;
struct Mark {
    std::uint32_t epoch, who, warp_epoch, pc;
};
struct Cell {
    Mark write, read;
};
struct Region {
    char* begin = nullptr;
    std::size_t size = 0;
    Cell* cells = nullptr;
    bool holds(const char* p, std::size_t n) const { return p >= begin && p + n <= begin + size; }
    bool near(const char* p) const { return size && p >= begin - 64 && p < begin + size + 4096; }
};

std::mutex device_lock;
std::vector<Region> device;
std::vector<Region> visible;  // device, as the launch began
std::size_t recent = 0;
Region dynamic;
Region statics;  // the image's data: static variables of kernels, that is, __shared__ ones

Region shadowed(void* p, std::size_t n) {
    void* cells =
        mmap(nullptr, n * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cells == MAP_FAILED) throw std::bad_alloc();
    return {static_cast<char*>(p), n, static_cast<Cell*>(cells)};
}
void drop(const Region& r) {
    if (r.cells) munmap(r.cells, r.size * sizeof(Cell));
}

// "file:line" of an instruction, the emulator's own header skipped: the kernel's line that called it is meant.
Text place(std::uint32_t pc) {
    char command[256];
    std::snprintf(command, sizeof command,
                  "addr2line -s -i -e /proc/%d/exe 0x%x 2>/dev/null | grep -v simt_emul.hpp | cut -d' ' -f1", getpid(),
                  pc - 1);
    Text line{"?"};
    if (FILE* f = popen(command, "r")) {
        if (std::fgets(line.s, sizeof line.s, f)) line.s[std::strcspn(line.s, "\n")] = 0;
        pclose(f);
    }
    return line;
}
const char* verb(Access a) {
    static constexpr const char* names[] = {"read", "write", "atomic access", "cp.async"};
    return names[static_cast<int>(a)];
}

struct Check {
    const Where& w;
    bool shared;
    const char* space;
    Access kind;
    std::uint32_t pc;

    enum class Conflict { none, same_block, other_block };
    Conflict with(const Mark& o) const {
        if (o.epoch == w.epoch) {
            if (o.who & kBlock) return Conflict::same_block;
            if (o.who & kAtomic) return kind == Access::atomic ? Conflict::none : Conflict::same_block;
            if (!(o.who & kWarp) && (o.who & kId) == w.thread) return Conflict::none;
            const bool synced = (o.who & kId) / 32 == w.thread / 32 && o.warp_epoch < w.warp_epoch;
            return synced ? Conflict::none : Conflict::same_block;
        }
        if (!shared && o.epoch >= w.launch_epoch && o.epoch < w.block_epoch)
            return kind == Access::atomic && o.who & kAtomic ? Conflict::none : Conflict::other_block;
        return Conflict::none;
    }
    [[noreturn]] void race(std::size_t offset, const Mark& o, Access other, Conflict c) const {
        Text by{};
        if (c == Conflict::other_block) std::strcpy(by.s, "another block");
        else if (o.who & kBlock) std::strcpy(by.s, "several warps");
        else if (o.who & kWarp) std::strcpy(by.s, "several lanes of a warp");
        else std::snprintf(by.s, sizeof by.s, "thread %u", o.who & kId);
        kernel_fault("race on %s+%zu: %s by thread %u at %s and %s by %s at %s with no barrier between them", space,
                     offset, verb(kind), w.thread, place(pc).s, verb(other), by.s, place(o.pc).s);
    }
    void read(Cell& c, std::size_t offset) const {
        if (shared && c.write.epoch < w.block_epoch)
            kernel_fault("read of %s+%zu by thread %u at %s, which no thread of this block wrote before", space, offset,
                         w.thread, place(pc).s);
        Mark& r = c.read;
        if (r.epoch != w.epoch) {
            r = {w.epoch, w.thread, w.warp_epoch, pc};
        } else if ((r.who & kId) / 32 != w.thread / 32) {
            r.who |= kBlock;
        } else {
            if ((r.who & kId) != w.thread) r.who |= kWarp;
            r.warp_epoch = std::max(r.warp_epoch, w.warp_epoch);
        }
    }
    void byte(Cell& c, std::size_t offset) const {
        if (c.write.who & kPending && c.write.epoch >= w.block_epoch &&
            !(kind == Access::write && (c.write.who & kId) == w.thread))
            kernel_fault("%s of %s+%zu by thread %u at %s while the cp.async at %s is not waited for", verb(kind), space,
                         offset, w.thread, place(pc).s, place(c.write.pc).s);
        if (Conflict k = with(c.write); k != Conflict::none) race(offset, c.write, Access::write, k);
        if (kind == Access::read) return read(c, offset);
        if (Conflict k = with(c.read); k != Conflict::none) race(offset, c.read, Access::read, k);
        const std::uint32_t flag = kind == Access::atomic ? kAtomic : kind == Access::issue ? kPending : 0;
        c.write = {w.epoch, w.thread | flag, w.warp_epoch, pc};
    }
};

const Region* device_region(const char* p, std::size_t n) {
    if (recent < visible.size() && visible[recent].holds(p, n)) return &visible[recent];
    for (std::size_t i = 0; i < visible.size(); ++i)
        if (visible[i].holds(p, n)) return &visible[recent = i];
    return nullptr;
}

[[noreturn]] void outside(const Where& w, const char* p, std::size_t n, Access kind, std::uint32_t pc) {
    Text near{"nothing that the kernel was given"};
    const auto describe = [&](const char* what, const Region& r) {
        std::snprintf(near.s, sizeof near.s, "%s of %zu bytes, offset %td", what, r.size, p - r.begin);
    };
    for (const Region& r : visible)
        if (r.near(p)) describe("a device buffer", r);
    if (dynamic.near(p)) describe("dynamic shared memory", dynamic);
    kernel_fault("out of bounds %s of %zu bytes by block %u thread %u at %s: %s", verb(kind), n, w.block, w.thread,
                 place(pc).s, near.s);
}

}  // namespace

void launch_begin(void* smem, std::size_t bytes) {
    if (!statics.cells) statics = shadowed(&__data_start, static_cast<std::size_t>(&_end - &__data_start));
    drop(dynamic);
    dynamic = bytes ? shadowed(smem, bytes) : Region{};
    std::lock_guard lock(device_lock);
    visible = device;
}

void access(const void* address, std::size_t n, Access kind, void* pc_address) {
    auto* p = static_cast<const char*>(address);
    const Where w = where();
    if (n == 0 || (p >= w.stack && p < w.stack + w.stack_size)) return;
    auto* b = reinterpret_cast<const char*>(&builtins);
    if (p >= b && p < b + sizeof builtins) return;
    ++stats.accesses;
    const auto pc = static_cast<std::uint32_t>(static_cast<char*>(pc_address) - &__executable_start);
    const auto check = [&](const Region& r, bool shared, const char* space) {
        const Check c{w, shared, space, kind, pc};
        const auto offset = static_cast<std::size_t>(p - r.begin);
        for (std::size_t i = 0; i < n; ++i) c.byte(r.cells[offset + i], offset + i);
    };
    if (dynamic.holds(p, n)) return check(dynamic, true, "dynamic shared memory");
    if (statics.holds(p, n)) return check(statics, true, "static shared memory");
    if (const Region* r = device_region(p, n)) {
        if (kind != Access::write) stats.bytes_read += n;
        if (kind == Access::write || kind == Access::atomic) stats.bytes_written += n;
        return check(*r, false, "device memory");
    }
    if (kind == Access::read && p >= &__executable_start && p < &__data_start) return;  // constants
    if (launch_private(p)) return;
    outside(w, p, n, kind, pc);
}

void add_region(void* p, std::size_t n) {
    std::lock_guard lock(device_lock);
    device.push_back(shadowed(p, n));
}
void remove_region(void* p) {
    std::lock_guard lock(device_lock);
    auto i = std::find_if(device.begin(), device.end(), [&](const Region& r) { return r.begin == p; });
    if (i == device.end()) return;
    drop(*i);
    device.erase(i);
}

}  // namespace simt::checker
