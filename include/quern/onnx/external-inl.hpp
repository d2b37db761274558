#pragma once
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "external.hpp"

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

QUERN_BEGIN
namespace onnx {

namespace location {

QUERN_INLINE std::string printable(std::string_view s) {
    std::string out;
    for (char c : s.substr(0, 200)) out += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
    return s.size() > 200 ? out + "..." : out;
}
[[noreturn]] QUERN_INLINE void refuse(std::string_view where, const char* why) {
    raise(ErrorCode::invalid_model, "external data location '" + printable(where) + "' " + why +
                                        "; a relative path inside of the model's folder is accepted");
}
[[noreturn]] QUERN_INLINE void fail(std::string_view where, const std::string& dir, const std::string& why) {
    raise(ErrorCode::io, "external data '" + printable(where) + "' in folder '" + dir + "': " + why);
}

/// The parts of a location, checked by its text alone.
QUERN_INLINE std::vector<std::string> parts(std::string_view where) {
    if (where.empty()) refuse(where, "is empty");
    if (where.size() > 4096) refuse(where, "is longer than 4096 bytes");
    for (char c : where) {
        if (c == '\0') refuse(where, "holds a zero byte");
        if (c == '\\') refuse(where, "holds a backslash");
        if (c == ':' && std::filesystem::path::preferred_separator == '\\') refuse(where, "names a drive or a stream");
    }
    if (where[0] == '/') refuse(where, "is absolute");
    if (where.size() > 1 && where[1] == ':') refuse(where, "names a drive");
    std::vector<std::string> out;
    for (std::size_t at = 0; at <= where.size();) {
        std::size_t end = std::min(where.find('/', at), where.size());
        std::string part(where.substr(at, end - at));
        if (part.empty()) refuse(where, "has an empty part");
        if (part == "..") refuse(where, "leaves its folder ('..')");
        if (part != ".") out.push_back(std::move(part));
        at = end + 1;
    }
    if (out.empty()) refuse(where, "names a folder");
    return out;
}

/// `path`, absolute and free of links; nothing where it does not exist.
QUERN_INLINE std::optional<std::filesystem::path> real(const std::filesystem::path& path) {
    std::error_code e;
    auto p = std::filesystem::canonical(path.empty() ? std::filesystem::path(".") : path, e);
    if (e) return std::nullopt;
    return p;
}
/// What remains of `path` below `root`; nothing where it is not below. Both absolute and free of "..".
QUERN_INLINE std::optional<std::vector<std::string>> below(const std::filesystem::path& root, const std::filesystem::path& path) {
    auto p = path.begin();
    for (auto r = root.begin(); r != root.end(); ++r) {
        if (r->empty()) continue;  // a slash at the end
        if (p == path.end() || *p != *r) return std::nullopt;
        ++p;
    }
    std::vector<std::string> rest;
    for (; p != path.end(); ++p)
        if (!p->empty() && *p != ".") rest.push_back(p->string());
    if (rest.empty()) return std::nullopt;
    return rest;
}

/// A file to open: parts below a folder that is free of links.
struct Target {
    std::filesystem::path root;
    std::vector<std::string> parts;
};
/// Where a link's target lies among the allowed folders. The target's own folder may be named through
/// other links (a home directory that is one); its last part is examined when it is opened.
QUERN_INLINE std::optional<Target> inside(const std::vector<std::filesystem::path>& roots, const std::filesystem::path& target) {
    auto normal = target.lexically_normal();
    for (auto& r : roots)
        if (auto rest = below(r, normal)) return Target{r, std::move(*rest)};
    if (auto folder = real(normal.parent_path()))
        for (auto& r : roots)
            if (auto rest = below(r, *folder / normal.filename())) return Target{r, std::move(*rest)};
    return std::nullopt;
}

#if defined(_WIN32)

QUERN_INLINE MappedFile open(const std::vector<std::filesystem::path>& roots, Target t, std::string_view where, const std::string& dir) {
    std::filesystem::path p = t.root;
    for (auto& s : t.parts) p /= std::filesystem::path(std::u8string(s.begin(), s.end()));
    auto resolved = real(p);
    if (!resolved) fail(where, dir, "is not there");
    if (!inside(roots, *resolved)) refuse(where, "is a link that leaves the model's folder");
    auto u8 = resolved->u8string();
    return MappedFile(std::string(u8.begin(), u8.end()));
}

#else

class Descriptor {
public:
    explicit Descriptor(int fd) noexcept : fd_(fd) {}
    Descriptor(Descriptor&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
    Descriptor& operator=(Descriptor&& o) noexcept {
        std::swap(fd_, o.fd_);
        return *this;
    }
    ~Descriptor() { if (fd_ >= 0) ::close(fd_); }
    int get() const noexcept { return fd_; }
    int release() noexcept { return std::exchange(fd_, -1); }

private:
    int fd_;
};

/// The target of the link `name` in the folder `at`; nothing where it is no link.
QUERN_INLINE std::optional<std::string> link_target(int at, const std::string& name) {
    char buffer[4096];
    ssize_t n = ::readlinkat(at, name.c_str(), buffer, sizeof buffer);
    if (n <= 0 || static_cast<std::size_t>(n) == sizeof buffer) return std::nullopt;
    return std::string(buffer, static_cast<std::size_t>(n));
}

/// Opens `t` part by part, never following a link: where one is met, its target must be in `roots` and the
/// walk starts anew there. What is opened is what was checked, whoever renames things meanwhile.
QUERN_INLINE MappedFile open(const std::vector<std::filesystem::path>& roots, Target t, std::string_view where, const std::string& dir) {
    for (int links = 0; links < 16; ++links) {
        Descriptor at(::open(t.root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        std::filesystem::path here = t.root;
        std::optional<Target> next;
        for (std::size_t i = 0; i < t.parts.size() && at.get() >= 0; ++i) {
            bool last = i + 1 == t.parts.size();
            const std::string& part = t.parts[i];
            int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (last ? 0 : O_DIRECTORY);
            Descriptor fd(::openat(at.get(), part.c_str(), flags));
            int error = errno;
            if (fd.get() < 0) {
                auto link = link_target(at.get(), part);
                if (!link) fail(where, dir, std::system_category().message(error));
                next = inside(roots, here / *link);
                if (!next) refuse(where, "is a link that leaves the model's folder");
                next->parts.insert(next->parts.end(), t.parts.begin() + static_cast<std::ptrdiff_t>(i) + 1, t.parts.end());
                break;
            }
            here /= part;
            at = std::move(fd);
        }
        if (at.get() < 0) fail(where, dir, "its folder cannot be opened");
        if (!next) return MappedFile::adopt(at.release(), here.string());
        t = std::move(*next);
    }
    fail(where, dir, "too many links");
}

#endif

QUERN_INLINE std::optional<std::uint64_t> number(std::string_view s) noexcept {
    std::uint64_t v = 0;
    auto [end, e] = std::from_chars(s.data(), s.data() + s.size(), v);
    if (e != std::errc() || end != s.data() + s.size()) return std::nullopt;
    return v;
}

}  // namespace location

QUERN_INLINE External External::beside(const std::string& path) {
    External x;
    std::filesystem::path p(path);
    x.dir = p.has_parent_path() ? p.parent_path().string() : ".";
    if (auto target = location::real(p)) x.real_dir = target->parent_path().string();
    return x;
}

QUERN_INLINE External::Bytes External::open(std::string_view where) {
    if (resolver) {
        std::string_view b = resolver(where);
        if (b.empty())
            raise(ErrorCode::io, "external data '" + location::printable(where) + "': the resolver gave no bytes for it");
        return {b, nullptr};
    }
    if (auto it = files.find(where); it != files.end()) return {it->second->text(), it->second};
    auto parts = location::parts(where);
    if (dir.empty())
        raise(ErrorCode::io, "external data '" + location::printable(where) +
                                 "' cannot be opened: the model came as bytes; give external_data_dir or a resolver");
    std::vector<std::filesystem::path> roots;
    for (auto* d : {&dir, &real_dir})
        if (auto r = d->empty() ? std::nullopt : location::real(*d)) roots.push_back(*r);
    auto base = location::real(dir);
    if (!base) location::fail(where, dir, "the folder is not there");
    auto file = MappedFile::shared(location::open(roots, {*base, std::move(parts)}, where, dir));
    files.emplace(where, file);
    return {file->text(), file};
}

QUERN_INLINE External::Bytes External::read(const TensorProto& t) {
    std::string_view where;
    std::optional<std::uint64_t> offset, length;
    for (auto& e : t.external_data) {
        if (e.key == "location") where = e.value;
        bool at = e.key == "offset", len = e.key == "length";
        if (!at && !len) continue;
        auto v = location::number(e.value);
        if (!v) raise(ErrorCode::invalid_model, "tensor " + describe(t) + ": external data's " + std::string(e.key) + " '" +
                                                    location::printable(e.value) + "' is not a number of bytes");
        (at ? offset : length) = v;
    }
    if (where.empty()) raise(ErrorCode::invalid_model, "tensor " + describe(t) + ": external data without a location");
    Bytes b = open(where);
    std::uint64_t size = b.bytes.size(), from = offset.value_or(0);
    if (from > size || length.value_or(0) > size - from)
        raise(ErrorCode::invalid_model, "tensor " + describe(t) + ": external data at byte " + std::to_string(from) + ", length " +
                                            std::to_string(length.value_or(0)) + ", where '" + location::printable(where) +
                                            "' has " + std::to_string(size) + " bytes");
    b.bytes = b.bytes.substr(static_cast<std::size_t>(from), static_cast<std::size_t>(length.value_or(size - from)));
    return b;
}

}  // namespace onnx
QUERN_END
