#pragma once
#include <cstdlib>

#include "../error.hpp"

QUERN_BEGIN

QUERN_INLINE Version library_version() noexcept { return header_version(); }

QUERN_INLINE const char* error_code_name(ErrorCode c) noexcept {
    switch (c) {
        case ErrorCode::invalid_argument: return "invalid_argument";
        case ErrorCode::invalid_model: return "invalid_model";
        case ErrorCode::unsupported: return "unsupported";
        case ErrorCode::shape_mismatch: return "shape_mismatch";
        case ErrorCode::io: return "io";
        case ErrorCode::out_of_memory: return "out_of_memory";
        case ErrorCode::cancelled: return "cancelled";
        case ErrorCode::deadline_exceeded: return "deadline_exceeded";
        case ErrorCode::device: return "device";
        default: return "internal";
    }
}
QUERN_INLINE Error::Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) { compose(); }
QUERN_INLINE Error::~Error() = default;
QUERN_INLINE void Error::compose() {
    // Names come from files: a control character in one must not look like another line of a log.
    auto add = [&](const std::string& text) {
        for (char c : text) {
            constexpr const char* hex = "0123456789abcdef";
            if (static_cast<unsigned char>(c) >= 0x20) what_ += c;
            else if (c == '\n') what_ += "\\n";
            else if (c == '\t') what_ += "\\t";
            else what_ += std::string("\\x") + hex[c >> 4] + hex[c & 15];
        }
    };
    what_ = std::string(error_code_name(code_)) + ": ";
    add(message_);
    for (auto& c : context_) what_ += "\n  in ", add(c);
}
QUERN_INLINE Error& Error::at(std::string place) & {
    context_.push_back(std::move(place));
    compose();
    return *this;
}
QUERN_INLINE Error&& Error::at(std::string place) && { return std::move(at(std::move(place))); }

QUERN_INLINE void raise(Error e) {
#if QUERN_HAS_EXCEPTIONS
    throw std::move(e);
#else
    (void)e;
    std::abort();
#endif
}
QUERN_INLINE void raise(ErrorCode code, std::string message) { raise(Error(code, std::move(message))); }

QUERN_END
