// A file's bytes as memory.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "../error.hpp"

QUERN_BEGIN

/// A file mapped read-only. The pages are the system's: nothing is read before it is used. An empty file
/// has no bytes. Shortening the file while it is mapped is fatal to whoever reads it, as with any mapping;
/// replacing it by rename is safe.
class QUERN_API MappedFile {
public:
    MappedFile() = default;
    /// Raises io naming `path`: not there, not readable, not a regular file.
    explicit MappedFile(const std::string& path);
    /// Maps an open file descriptor (POSIX) or HANDLE (Windows) and closes it, also when that fails.
    static MappedFile adopt(std::intptr_t handle, const std::string& path);
    /// `fresh`, or the mapping of the same unchanged file (device, inode, size, times of change) that this process has already.
    static std::shared_ptr<const MappedFile> shared(MappedFile fresh);
    /// No file: `bytes` zeros that take no memory, to stand for data that must not be read. Raises out_of_memory.
    static MappedFile blank(std::size_t bytes);
    MappedFile(MappedFile&& o) noexcept;
    MappedFile& operator=(MappedFile&& o) noexcept;
    ~MappedFile();

    std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
    std::string_view text() const noexcept { return {reinterpret_cast<const char*>(data_), size_}; }
    std::size_t size() const noexcept { return size_; }
    const std::string& path() const noexcept { return path_; }
    /// This part of bytes() is read next: all its pages come into the process's memory at once, which takes a quarter of the time of one by
    /// one. Nothing for other memory, and where the system cannot.
    void expect(const void* from, std::size_t bytes) const noexcept;
    /// Takes the whole pages of a part of bytes() out of the process's memory; reading them brings them back. Nothing for other memory.
    void forget(const void* from, std::size_t bytes) const noexcept;

private:
    void close() noexcept;
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    std::string path_;
    std::array<std::uint64_t, 6> identity_{};  ///< of the file when it was mapped; zeros where the system tells none
};

QUERN_END
