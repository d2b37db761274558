#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

#include "pages.hpp"
#if defined(__linux__)
#include <sys/mman.h>
#include <time.h>
#endif

QUERN_BEGIN

QUERN_INLINE Pages::Pages(std::size_t bytes, std::size_t at_once) noexcept {
    constexpr std::size_t page = 4096;
    if (bytes == 0 || bytes > PTRDIFF_MAX - page) return;
    std::size_t n = (bytes + page - 1) / page * page;
#if defined(__linux__)
    // Room for the alignment of huge pages, whose unused ends are given back at once.
    std::size_t align = n >= huge_from ? huge : page, room = n + (align > page ? align : 0);
    void* p = ::mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return;
    auto at = reinterpret_cast<std::uintptr_t>(p);
    std::size_t before = (align - at % align) % align, after = room - before - n;
    auto* base = static_cast<std::byte*>(p);
    if (before) ::munmap(base, before);
    if (after) ::munmap(base + before + n, after);
    data_ = base + before;
#else
    data_ = static_cast<std::byte*>(::operator new(n, std::align_val_t(page), std::nothrow));
    if (!data_) return;
    std::memset(data_, 0, n);
#endif
    size_ = alike_ = n;
    expect(0, at_once);
}
QUERN_INLINE void Pages::expect(std::size_t from, std::size_t to) noexcept {
#if defined(__linux__)
    to = std::min(to, size_);
    if (to < from || to - from < huge_from) return;
    from = (from + huge - 1) / huge * huge;
    (void)::madvise(data_ + from, to - from, MADV_HUGEPAGE);
    alike_ = std::min(alike_, from ? from : (to + 4095) / 4096 * 4096);
#else
    (void)from, (void)to;
#endif
}
QUERN_INLINE void Pages::expect_small(std::size_t from) noexcept {
#if defined(__linux__)
    from = from / 4096 * 4096;
    if (from >= size_) return;
    (void)::madvise(data_ + from, size_ - from, MADV_NOHUGEPAGE);
    alike_ = std::min(alike_, from ? from : size_);
#else
    (void)from;
#endif
}
/// A page of each huge one in [from, to), which moves `from`; false where patience ended.
QUERN_INLINE bool Pages::touch_huge(std::size_t& from, std::size_t to, std::atomic<std::int64_t>& patience) noexcept {
    bool fast = true;
#if defined(__linux__) && defined(MADV_POPULATE_WRITE)
    auto now = [] {
        timespec t{};
        (void)::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
    };
    for (; from < to && fast; from = std::min(to, (from / huge + 1) * huge)) {
        const std::int64_t before = now();
        if (::madvise(data_ + from, 4096, MADV_POPULATE_WRITE) != 0) break;
        const std::int64_t more = std::max<std::int64_t>(0, now() - before - small_takes);
        // What is left must do for another one like this.
        fast = patience.fetch_sub(more, std::memory_order_relaxed) >= 2 * more;
    }
#else
    (void)from, (void)to, (void)patience;
#endif
    return fast;
}
QUERN_INLINE bool Pages::touch(std::size_t from, std::size_t to, bool small, std::atomic<std::int64_t>& patience) noexcept {
    bool fast = true;
#if defined(__linux__) && defined(MADV_POPULATE_WRITE)
    constexpr std::size_t page = 4096;
    to = std::min((to + page - 1) / page * page, size_);
    from = from / page * page;
    if (!small && (fast = touch_huge(from, to, patience))) return true;
    if (!fast) expect_small(from);
    if (from < to) (void)::madvise(data_ + from, to - from, MADV_POPULATE_WRITE);
#else
    (void)from, (void)to, (void)small, (void)patience;
#endif
    return fast;
}
QUERN_INLINE void Pages::prepare(std::size_t from, std::size_t to, std::int64_t patience) noexcept {
    from = (from + huge - 1) / huge * huge, to = std::min(to, size_);
    if (to < from || to - from < huge_from) return;
    expect(from, to);
    std::atomic<std::int64_t> left{patience};
    if (!touch_huge(from, to / huge * huge, left)) expect_small(from);
}
QUERN_INLINE void Pages::drop(std::size_t from) noexcept {
#if defined(__linux__)
    from = (from + 4095) / 4096 * 4096;
    if (from < size_) (void)::madvise(data_ + from, size_ - from, MADV_DONTNEED);
#else
    (void)from;
#endif
}
QUERN_INLINE bool Pages::grow(std::size_t bytes) noexcept {
    Pages more(bytes, 0);
    if (!more.data_) return false;
#if defined(__linux__)
    if (data_ && size_ <= more.size_) {
        if (::mremap(data_, alike_, alike_, MREMAP_MAYMOVE | MREMAP_FIXED, more.data_) == MAP_FAILED) return false;
        more.alike_ = alike_;
        if (alike_ < size_) ::munmap(data_ + alike_, size_ - alike_);
        data_ = nullptr;
    }
#endif
    *this = std::move(more);
    return true;
}
QUERN_INLINE void Pages::release() noexcept {
    if (!data_) return;
#if defined(__linux__)
    ::munmap(data_, size_);
#else
    ::operator delete(data_, std::align_val_t(4096));
#endif
    data_ = nullptr;
    size_ = 0;
}

QUERN_END
