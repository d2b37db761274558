// Files that appear whole.
#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

#include "../error.hpp"

QUERN_BEGIN

/// A file that appears under its name when it is complete: commit() renames it. Raises io.
class AtomicFile {
public:
    explicit AtomicFile(const std::string& path) : path_(path), temporary_(path + ".partial") {
        out_.open(std::filesystem::path(temporary_), std::ios::binary | std::ios::trunc);
        check("create");
    }
    ~AtomicFile() {
        if (done_) return;
        out_.close();
        std::error_code ignored;
        std::filesystem::remove(std::filesystem::path(temporary_), ignored);
    }
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    void write(std::string_view b) {
        out_.write(b.data(), static_cast<std::streamsize>(b.size()));
        check("write");
    }
    /// Overwrites what was written at byte `at`, and goes on at the end.
    void write_at(std::uint64_t at, std::string_view b) {
        out_.seekp(static_cast<std::streamoff>(at));
        write(b);
        out_.seekp(0, std::ios::end);
    }
    void commit() {
        out_.close();
        check("write");
        std::error_code e;
        std::filesystem::rename(std::filesystem::path(temporary_), std::filesystem::path(path_), e);
        if (e) raise(ErrorCode::io, "cannot rename '" + temporary_ + "' to '" + path_ + "': " + e.message());
        done_ = true;
    }

private:
    void check(const char* what) {
        if (!out_) raise(ErrorCode::io, std::string("cannot ") + what + " '" + temporary_ + "'");
    }
    std::string path_, temporary_;
    std::ofstream out_;
    bool done_ = false;
};

QUERN_END
