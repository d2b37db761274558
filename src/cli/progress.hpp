// One line of progress on a terminal; nothing in a pipe.
#pragma once
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace cli {
inline double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Progress {
public:
    Progress() : shown_(isatty(2) != 0) {}
    ~Progress() { clear(); }
    Progress(const Progress&) = delete;
    /// Replaces the line. At most ten times a second unless `now`.
    void show(const std::string& text, bool now = true) {
        if (!shown_ || (!now && seconds() - last_ < 0.1)) return;
        last_ = seconds();
        std::fprintf(stderr, "\r\033[K%s", text.substr(0, 100).c_str());
        std::fflush(stderr);
        dirty_ = true;
    }
    void clear() {
        if (dirty_) std::fputs("\r\033[K", stderr);
        dirty_ = false;
    }

private:
    bool shown_, dirty_ = false;
    double last_ = 0;
};
}  // namespace cli
