// Launches, the schedule, barriers and warp collectives. Never compiled with -fsanitize=thread.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "fiber.hpp"
#include "internals.hpp"
#include "simt_emul.hpp"
#if SIMT_ADDRESS
#include <sanitizer/asan_interface.h>
#endif

namespace simt {

Builtins builtins;
Config config;
Stats stats;

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr std::size_t kSmemAlign = 128;

struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
    bool valid;
    unsigned group;
    void* pc;
    Loc site;
};
enum class State : std::uint8_t { fresh, ready, at_barrier, at_collective, done };
struct Thread {
    Fiber fiber;
    uint3 index{};
    unsigned id = 0;
    State state = State::fresh;
    Loc site{};
    void* out = nullptr;  // where the collective's result goes
    int result = 0;       // the barrier's
    std::vector<Copy> copies;  // under way, oldest first
    unsigned groups = 0;       // closed so far
};
struct Warp {
    unsigned arrived = 0, mask = 0, alive = 0;
    std::uint32_t epoch = 0;
    Op op = Op::none;
    Loc site{};
    alignas(16) unsigned char in[32 * max_lane_bytes], out[32 * max_lane_bytes];
};

struct Machine {
    std::mutex busy;
    Fiber scheduler;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    const Launch* launch = nullptr;
    unsigned count = 0, alive = 0, waiting = 0, block = 0;
    int predicates = 0;
    Loc barrier{};
    std::uint32_t epoch = 1, launch_epoch = 1, block_epoch = 1;
    char* smem = nullptr;
    bool combining = false;
    std::string fault;
    bool stopped = false;  // the current launch has a fault

    std::uint64_t random = 1;
    enum { in_order, uniform, priorities } policy = in_order;
    std::uint32_t ready_lanes[kMaxThreads / 32] = {}, ready_warps = 0;
    std::uint8_t priority[kMaxThreads / 32] = {};
} m;
thread_local Thread* running = nullptr;

std::uint32_t draw() {
    m.random ^= m.random << 13, m.random ^= m.random >> 7, m.random ^= m.random << 17;
    return static_cast<std::uint32_t>(m.random >> 32);
}

void make_ready(Thread& t) {
    t.state = State::ready;
    m.ready_lanes[t.id / 32] |= 1u << (t.id % 32);
    m.ready_warps |= 1u << (t.id / 32);
}

void draw_priorities() {
    for (unsigned i = 0; i < m.warps.size(); ++i) {
        const unsigned j = m.policy == Machine::in_order ? i : draw() % (i + 1);
        m.priority[i] = m.priority[j];
        m.priority[j] = static_cast<std::uint8_t>(i);
    }
}

unsigned pick_warp() {
    if (m.policy == Machine::in_order) return static_cast<unsigned>(__builtin_ctz(m.ready_warps));
    if (m.policy == Machine::uniform) {
        std::uint32_t w = m.ready_warps;
        for (unsigned n = draw() % static_cast<unsigned>(__builtin_popcount(w)); n; --n) w &= w - 1;
        return static_cast<unsigned>(__builtin_ctz(w));
    }
    if (draw() % 64 == 0) draw_priorities();
    unsigned i = 0;
    while (!(m.ready_warps >> m.priority[i] & 1)) ++i;
    return m.priority[i];
}

Thread& pick() {
    const unsigned w = pick_warp();
    std::uint32_t& lanes = m.ready_lanes[w];
    const unsigned from = m.policy == Machine::in_order ? 0 : draw() % 32;
    const std::uint32_t later = lanes >> from << from;
    const auto l = static_cast<unsigned>(__builtin_ctz(later ? later : lanes));
    lanes &= ~(1u << l);
    if (!lanes) m.ready_warps &= ~(1u << w);
    return m.threads[w * 32 + l];
}

Text at(const Loc& l) {
    const char* slash = std::strrchr(l.file, '/');
    Text t;
    std::snprintf(t.s, sizeof t.s, "%s:%u", slash ? slash + 1 : l.file, l.line);
    return t;
}
Text who(const Thread& thread) {
    Text t;
    std::snprintf(t.s, sizeof t.s, "block %u thread %u", m.block, thread.id);
    return t;
}
bool same(const Loc& a, const Loc& b) { return a.line == b.line && !std::strcmp(a.file, b.file); }

void record_list(const char* format, va_list arguments) {
    char text[512];
    std::vsnprintf(text, sizeof text, format, arguments);
    m.stopped = true;
    if (m.fault.empty()) m.fault = text;
}
__attribute__((format(printf, 1, 2))) void record(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    record_list(format, arguments);
    va_end(arguments);
}

void to_scheduler(bool last = false) {
    ++stats.switches;
    m.scheduler.enter(running->fiber, last);
}

void release_barrier() {
    for (Thread& t : m.threads)
        if (t.state == State::at_barrier) {
            t.result = m.predicates;
            make_ready(t);
        }
    m.waiting = 0;
    m.predicates = 0;
    ++m.epoch;
}

void thread_main() {
    Fiber::entered();
    m.launch->thread(m.launch->arguments);
    Thread& t = *running;
    t.state = State::done;
    --m.alive;
    if (!t.copies.empty())
        record("unfinished copy: %s exited before it waited for the cp.async at %s", who(t).s, at(t.copies[0].site).s);
    Warp& w = m.warps[t.id / 32];
    w.alive &= ~(1u << (t.id % 32));
    if (w.arrived && (w.mask & ~w.alive & ~w.arrived))
        record("divergent warp: %s exited while lanes of its warp wait for it at %s", who(t).s, at(w.site).s);
    if (m.waiting) record("divergent barrier: %s exited while others wait at %s", who(t).s, at(m.barrier).s);
    to_scheduler(true);
    __builtin_unreachable();
}

void start_block(unsigned index) {
    const dim3 b = m.launch->block, g = m.launch->grid;
    m.block = index;
    builtins.block = {index % g.x, index / g.x % g.y, index / (g.x * g.y)};
    m.block_epoch = ++m.epoch;
    m.alive = m.count;
    m.waiting = 0;
    m.predicates = 0;
    m.ready_warps = 0;
    for (std::uint32_t& l : m.ready_lanes) l = 0;
    draw_priorities();
    for (Warp& w : m.warps) w.arrived = w.alive = 0;
    for (unsigned i = 0; i < m.count; ++i) {
        Thread& t = m.threads[i];
        t.id = i;
        t.copies.clear();
        t.groups = 0;
        t.index = {i % b.x, i / b.x % b.y, i / (b.x * b.y)};
        make_ready(t);
        t.state = State::fresh;
        m.warps[i / 32].alive |= 1u << (i % 32);
    }
    if (m.smem) std::memset(m.smem, 0xFF, m.launch->smem);  // NaN as f32, f16 and bf16
}

void run_block(unsigned index) {
    start_block(index);
    while (m.ready_warps && !m.stopped) {
        Thread& t = pick();
        if (t.state == State::fresh) t.fiber.start(thread_main);
        t.state = State::ready;
        running = &t;
        builtins.thread = t.index;
        ++stats.switches;
        t.fiber.enter(m.scheduler);
        running = nullptr;
        if (t.state == State::done) t.fiber.stop();
    }
    if (!m.stopped && m.alive) {
        const auto t = std::find_if(m.threads.begin(), m.threads.end(), [](auto& t) { return t.state != State::done; });
        record("deadlock: %u threads wait; %s at %s", m.alive, who(*t).s, at(t->site).s);
    }
    for (Thread& t : m.threads) t.fiber.stop();
    ++stats.blocks;
}

bool valid(const Launch& l) {
    const auto ok = [](unsigned v, unsigned most) { return v >= 1 && v <= most; };
    return ok(l.block.x, 1024) && ok(l.block.y, 1024) && ok(l.block.z, 64) &&
           std::uint64_t(l.block.x) * l.block.y * l.block.z <= kMaxThreads && ok(l.grid.x, 0x7fffffff) &&
           ok(l.grid.y, 65535) && ok(l.grid.z, 65535) && l.smem <= config.shared_of_block &&
           std::uint64_t(l.grid.x) * l.grid.y * l.grid.z <= 0xffffffffu;
}

// The bytes between the end of the block's shared memory and the end of its allocation.
void guard_smem([[maybe_unused]] std::size_t bytes, [[maybe_unused]] std::size_t padded, [[maybe_unused]] bool on) {
#if SIMT_ADDRESS
    if (on) __asan_poison_memory_region(m.smem + bytes, padded - bytes);
    else __asan_unpoison_memory_region(m.smem + bytes, padded - bytes);
#endif
}

}  // namespace

cudaError_t run(const Launch& l) {
    if (!valid(l)) return cudaErrorInvalidConfiguration;
    std::lock_guard lock(m.busy);
    ++stats.launches;
    stats.shared = l.smem;
    m.launch = &l;
    m.stopped = false;
    m.count = l.block.x * l.block.y * l.block.z;
    m.threads.resize(m.count);
    m.warps.resize((m.count + 31) / 32);
    m.scheduler.adopt();
    m.random = (config.seed + 1) * 0x9E3779B97F4A7C15ull;
    m.policy = config.seed == 0 ? Machine::in_order : config.seed % 2 ? Machine::priorities : Machine::uniform;
    m.launch_epoch = ++m.epoch;
    builtins.block_dim = l.block;
    builtins.grid_dim = l.grid;
    const std::size_t padded = (l.smem + kSmemAlign - 1) / kSmemAlign * kSmemAlign;
    m.smem = padded ? static_cast<char*>(std::aligned_alloc(kSmemAlign, padded)) : nullptr;
    guard_smem(l.smem, padded, true);
    checker::launch_begin(m.smem, l.smem);

    std::vector<unsigned> order(static_cast<std::size_t>(l.grid.x) * l.grid.y * l.grid.z);
    std::iota(order.begin(), order.end(), 0u);
    if (config.seed)
        for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[draw() % i]);
    for (unsigned block : order) {
        if (m.stopped) break;
        run_block(block);
    }
    guard_smem(l.smem, padded, false);
    std::free(m.smem);
    m.smem = nullptr;
    return m.stopped ? cudaErrorLaunchFailure : cudaSuccess;
}

int block_barrier(bool predicate, const Loc& l) {
    Thread& t = *running;
    ++stats.barriers;
    if (m.waiting && !same(m.barrier, l))
        kernel_fault("divergent barrier: %s at %s while others wait at %s", who(t).s, at(l).s, at(m.barrier).s);
    if (m.alive != m.count)
        kernel_fault("divergent barrier: %s waits at %s but %u threads of the block have exited", who(t).s, at(l).s,
                     m.count - m.alive);
    m.barrier = t.site = l;
    m.predicates += predicate;
    t.state = State::at_barrier;
    if (++m.waiting == m.alive) release_barrier();
    to_scheduler();
    return t.result;
}

void warp_collective(Op op, unsigned mask, const void* in, std::size_t in_bytes, void* out, std::size_t out_bytes,
                     Combine combine, const Loc& l) {
    Thread& t = *running;
    Warp& w = m.warps[t.id / 32];
    const unsigned lane = t.id % 32;
    ++stats.collectives;
    if (!(mask >> lane & 1)) kernel_fault("divergent warp: %s is not in its own mask at %s", who(t).s, at(l).s);
    if (mask & ~w.alive)
        kernel_fault("divergent warp: the mask of %s at %s names lanes that exited or do not exist", who(t).s, at(l).s);
    if (!w.arrived) {
        w.op = op, w.mask = mask, w.site = l;
        std::memset(w.in, 0xFF, sizeof w.in);
    } else if (w.op != op || w.mask != mask || !same(w.site, l)) {
        kernel_fault("divergent warp: %s at %s while lanes of its warp wait at %s", who(t).s, at(l).s, at(w.site).s);
    }
    w.arrived |= 1u << lane;
    std::memcpy(w.in + lane * in_bytes, in, in_bytes);
    t.site = l;
    t.out = out;
    t.state = State::at_collective;
    if (w.arrived == mask) {
        if (op == Op::mma) ++stats.mma;
        m.combining = true;
        combine(mask, w.in, w.out);
        m.combining = false;
        w.arrived = 0;
        if (op == Op::syncwarp && mask == ~0u) ++w.epoch;
        for (unsigned rest = mask; rest; rest &= rest - 1) {
            const auto k = static_cast<unsigned>(__builtin_ctz(rest));
            Thread& other = m.threads[t.id / 32 * 32 + k];
            std::memcpy(other.out, w.out + k * out_bytes, out_bytes);
            make_ready(other);
        }
    }
    to_scheduler();
}

void* dynamic_smem_base() { return m.smem; }
void cp_async_issue(void* to, const void* from, std::size_t bytes, bool valid, const Loc& l) {
    void* pc = __builtin_return_address(0);
    require_aligned(to, bytes, l);
    if (valid) {
        require_aligned(from, bytes, l);
        checker::access(from, bytes, checker::Access::read, pc);
        volatile char touched = *static_cast<const char*>(from);  // for AddressSanitizer
        (void)touched;
    }
    checker::access(to, bytes, checker::Access::issue, pc);
    std::memset(to, 0xFF, bytes);
    running->copies.push_back({to, from, bytes, valid, running->groups, pc, l});
}
void cp_async_commit() { ++running->groups; }
void cp_async_wait_for(std::size_t pending) {
    auto& copies = running->copies;
    auto i = copies.begin();
    for (; i != copies.end() && i->group + pending < running->groups; ++i) {
        checker::access(i->to, i->bytes, checker::Access::write, i->pc);
        if (i->valid) std::memcpy(i->to, i->from, i->bytes);
        else std::memset(i->to, 0, i->bytes);
    }
    copies.erase(copies.begin(), i);
}
void note_read(const void* p, std::size_t n) {
    checker::access(p, n, checker::Access::read, __builtin_return_address(0));
}
void note_atomic(const void* p, std::size_t n, void* pc) { checker::access(p, n, checker::Access::atomic, pc); }
void require_aligned(const void* p, std::size_t to, const Loc& l) {
    if (reinterpret_cast<std::uintptr_t>(p) % to)
        kernel_fault("misaligned access of %zu bytes by %s at %s", to, who(*running).s, at(l).s);
}

Where where() noexcept {
    return {
        running->fiber.stack(),         Fiber::stack_size, running->id, m.block, m.epoch, m.launch_epoch, m.block_epoch,
        m.warps[running->id / 32].epoch};
}
bool in_kernel() noexcept { return running && !m.combining; }
bool launch_private(const void* p) noexcept {
    auto* a = static_cast<const char*>(m.launch->arguments);
    return Fiber::on_any_stack(p) || (p >= a && p < a + m.launch->argument_bytes);
}
void kernel_fault(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    record_list(format, arguments);
    va_end(arguments);
    to_scheduler(true);
    __builtin_unreachable();
}

Checks checks() noexcept {
#if SIMT_ADDRESS
    return Checks::address;
#else
    return checker::active ? Checks::race : Checks::none;
#endif
}
std::string take_fault() { return std::exchange(m.fault, {}); }
bool faulted() noexcept { return !m.fault.empty(); }
const std::string& fault() noexcept { return m.fault; }
void add_device_memory(void* p, std::size_t n) { checker::add_region(p, n); }
void remove_device_memory(void* p) { checker::remove_region(p); }

}  // namespace simt
