// What tests of hostile and well-formed bytes share.
#pragma once
#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include <quern/error.hpp>

namespace quern_test {

inline std::span<const std::byte> bytes_of(const std::string& s) { return {reinterpret_cast<const std::byte*>(s.data()), s.size()}; }

/// The message of the Error that f raises; its code must be `code`. No error is a failure.
inline std::string error_of(const std::function<void()>& f, quern::ErrorCode code = quern::ErrorCode::invalid_model) {
    try {
        f();
    } catch (quern::Error& e) {
        EXPECT_EQ(e.code(), code) << e.what();
        return e.message();
    }
    ADD_FAILURE() << "no error";
    return {};
}

}  // namespace quern_test
