#include <gtest/gtest.h>

#include <exception>
#include <string>

#include <quern/quern.hpp>

// A program that knows only std::exception still shows what is wrong and where.
TEST(Error, IsAStdException) {
    const std::byte bytes[] = {std::byte{0xff}, std::byte{0xff}, std::byte{0xff}};
    std::string what;
    try {
        (void)quern::Model::from_bytes(bytes);
    } catch (const std::exception& e) {
        what = e.what();
    }
    EXPECT_NE(what.find("invalid_model"), std::string::npos) << what;
}

// A slice to std::exception must not lose the code: the library itself catches Error first.
TEST(Error, KeepsItsCodeThroughAResult) {
    auto r = quern::Model::try_load("/nonexistent/model.onnx");
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().code(), quern::ErrorCode::io);
    EXPECT_NE(std::string(r.error().what()).find("/nonexistent/model.onnx"), std::string::npos);
}
