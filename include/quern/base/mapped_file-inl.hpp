#pragma once
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <system_error>
#include <utility>
#include <vector>

#include "mapped_file.hpp"

#if defined(_WIN32)
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

QUERN_BEGIN

namespace mapped_file {
[[noreturn]] QUERN_INLINE void fail(const std::string& path, int code, const char* what) {
    raise(ErrorCode::io, std::string(what) + " '" + path + "': " + std::system_category().message(code));
}
}  // namespace mapped_file

QUERN_INLINE MappedFile::MappedFile(MappedFile&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)), path_(std::move(o.path_)), identity_(std::exchange(o.identity_, {})) {}
QUERN_INLINE MappedFile& MappedFile::operator=(MappedFile&& o) noexcept {
    if (this != &o) {
        close();
        data_ = std::exchange(o.data_, nullptr);
        size_ = std::exchange(o.size_, 0);
        path_ = std::move(o.path_);
        identity_ = std::exchange(o.identity_, {});
    }
    return *this;
}
QUERN_INLINE MappedFile::~MappedFile() { close(); }

namespace mapped_file {
struct Known {
    std::mutex lock;
    std::vector<std::weak_ptr<const MappedFile>> files;
};
/// Never destroyed: mappings may end after static objects have.
inline Known& known() {
    static Known* k = new Known;
    return *k;
}
}  // namespace mapped_file
QUERN_INLINE std::shared_ptr<const MappedFile> MappedFile::shared(MappedFile fresh) {
    if (fresh.identity_ == decltype(identity_){}) return std::make_shared<const MappedFile>(std::move(fresh));
    auto& known = mapped_file::known();
    std::lock_guard<std::mutex> l(known.lock);
    std::erase_if(known.files, [](auto& f) { return f.expired(); });
    for (auto& f : known.files)
        if (auto there = f.lock(); there && there->identity_ == fresh.identity_) return there;
    auto made = std::make_shared<const MappedFile>(std::move(fresh));
    known.files.push_back(made);
    return made;
}

#if defined(_WIN32)

QUERN_INLINE MappedFile::MappedFile(const std::string& path) {
    int n = MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, nullptr, 0);
    std::wstring wide(static_cast<std::size_t>(n > 0 ? n : 1), L'\0');
    MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, wide.data(), n);
    HANDLE h = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                           FILE_ATTRIBUTE_NORMAL, nullptr);
    if (h == INVALID_HANDLE_VALUE) mapped_file::fail(path, static_cast<int>(GetLastError()), "cannot open");
    *this = adopt(reinterpret_cast<std::intptr_t>(h), path);
}
QUERN_INLINE MappedFile MappedFile::adopt(std::intptr_t handle, const std::string& path) {
    struct Closer {
        HANDLE h;
        ~Closer() { if (h) CloseHandle(h); }
    } file{reinterpret_cast<HANDLE>(handle)}, mapping{nullptr};
    MappedFile m;
    m.path_ = path;
    LARGE_INTEGER size;
    if (GetFileType(file.h) != FILE_TYPE_DISK) raise(ErrorCode::io, "'" + path + "' is not a regular file");
    if (!GetFileSizeEx(file.h, &size)) mapped_file::fail(path, static_cast<int>(GetLastError()), "cannot read");
    if (size.QuadPart == 0) return m;
    mapping.h = CreateFileMappingW(file.h, nullptr, PAGE_READONLY, 0, 0, nullptr);
    void* p = mapping.h ? MapViewOfFile(mapping.h, FILE_MAP_READ, 0, 0, 0) : nullptr;
    if (!p) mapped_file::fail(path, static_cast<int>(GetLastError()), "cannot map");
    m.data_ = static_cast<const std::byte*>(p);
    m.size_ = static_cast<std::size_t>(size.QuadPart);
    return m;
}
QUERN_INLINE void MappedFile::close() noexcept {
    if (data_) UnmapViewOfFile(data_);
    data_ = nullptr;
    size_ = 0;
}

QUERN_INLINE void MappedFile::expect(const void*, std::size_t) const noexcept {}
QUERN_INLINE void MappedFile::forget(const void*, std::size_t) const noexcept {}
QUERN_INLINE MappedFile MappedFile::blank(std::size_t bytes) {
    MappedFile m;
    m.path_ = "zeros";
    if (!bytes) return m;
    HANDLE h = CreateFileMappingW(INVALID_HANDLE_VALUE, nullptr, PAGE_READONLY, static_cast<DWORD>(static_cast<std::uint64_t>(bytes) >> 32), static_cast<DWORD>(bytes), nullptr);
    void* p = h ? MapViewOfFile(h, FILE_MAP_READ, 0, 0, 0) : nullptr;
    if (h) CloseHandle(h);
    if (!p) raise(ErrorCode::out_of_memory, "no address space for " + std::to_string(bytes) + " bytes");
    m.data_ = static_cast<const std::byte*>(p);
    m.size_ = bytes;
    return m;
}

#else

QUERN_INLINE void MappedFile::expect(const void* from, std::size_t bytes) const noexcept {
#if defined(MADV_POPULATE_READ)
    constexpr std::uintptr_t page = 4096;
    auto begin = reinterpret_cast<std::uintptr_t>(from), end = begin + bytes, first = reinterpret_cast<std::uintptr_t>(data_);
    if (!data_ || !bytes || begin < first || end > first + size_) return;
    begin = begin / page * page;
    (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ);
#else
    (void)from, (void)bytes;
#endif
}
QUERN_INLINE void MappedFile::forget(const void* from, std::size_t bytes) const noexcept {
    constexpr std::uintptr_t page = 4096;
    auto begin = reinterpret_cast<std::uintptr_t>(from), end = begin + bytes, first = reinterpret_cast<std::uintptr_t>(data_);
    if (!data_ || begin < first || end > first + size_) return;
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
    if (begin < end) (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}
QUERN_INLINE MappedFile MappedFile::blank(std::size_t bytes) {
    MappedFile m;
    m.path_ = "zeros";
    if (!bytes) return m;
    void* p = bytes <= static_cast<std::size_t>(PTRDIFF_MAX) ? ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
    if (p == MAP_FAILED) raise(ErrorCode::out_of_memory, "no address space for " + std::to_string(bytes) + " bytes");
    m.data_ = static_cast<const std::byte*>(p);
    m.size_ = bytes;
    return m;
}
QUERN_INLINE MappedFile::MappedFile(const std::string& path) {
    if (path.find('\0') != std::string::npos) raise(ErrorCode::io, "a path with a zero byte cannot be opened");
    // O_NONBLOCK: opening a named pipe must not wait for a writer.
    int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) mapped_file::fail(path, errno, "cannot open");
    *this = adopt(fd, path);
}
QUERN_INLINE MappedFile MappedFile::adopt(std::intptr_t handle, const std::string& path) {
    struct Closer {
        int fd;
        ~Closer() { ::close(fd); }
    } file{static_cast<int>(handle)};
    MappedFile m;
    m.path_ = path;
    struct stat st;
    if (::fstat(file.fd, &st) != 0) mapped_file::fail(path, errno, "cannot read");
    if (!S_ISREG(st.st_mode)) raise(ErrorCode::io, "'" + path + "' is not a regular file");
    if (st.st_size == 0) return m;
    if (static_cast<std::uintmax_t>(st.st_size) > SIZE_MAX) mapped_file::fail(path, EFBIG, "cannot map");
    auto size = static_cast<std::size_t>(st.st_size);
    void* p = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (p == MAP_FAILED) mapped_file::fail(path, errno, "cannot map");
    m.data_ = static_cast<const std::byte*>(p);
    m.size_ = size;
    auto number = [](auto v) { return static_cast<std::uint64_t>(v); };
#if defined(__APPLE__)
    const auto &changed = st.st_mtimespec, &touched = st.st_ctimespec;
#else
    const auto &changed = st.st_mtim, &touched = st.st_ctim;
#endif
    constexpr std::uint64_t second = 1000000000;
    m.identity_ = {number(st.st_dev), number(st.st_ino), size, number(changed.tv_sec) * second + number(changed.tv_nsec), number(touched.tv_sec) * second + number(touched.tv_nsec), 1};
    return m;
}
QUERN_INLINE void MappedFile::close() noexcept {
    if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
    data_ = nullptr;
    size_ = 0;
}

#endif

QUERN_END
