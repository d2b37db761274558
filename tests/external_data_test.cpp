// External data: what may be opened and what may not, with real folders, links and a resolver.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include <quern/onnx/external.hpp>

#include "support/bytes_test.hpp"

#if !defined(_WIN32)
#include <sys/stat.h>
#include <unistd.h>
#endif

using namespace quern;
using namespace quern::onnx;
using quern_test::error_of;
namespace fs = std::filesystem;

namespace {

class ExternalData : public ::testing::Test {
protected:
    void SetUp() override {
        top = fs::canonical(fs::temp_directory_path()) / ("quern_ext_" + std::to_string(std::random_device{}()));
        dir = top / "model";
        fs::create_directories(dir / "sub");
        put(dir / "m.onnx", "");
        put(dir / "data.bin", std::string(64, 'd'));
        put(dir / "sub" / "deep.bin", std::string(16, 's'));
        put(dir / "empty.bin", "");
        put(top / "secret.bin", std::string(64, 'x'));
        external = External::beside((dir / "m.onnx").string());
    }
    void TearDown() override { fs::remove_all(top); }
    static void put(const fs::path& p, const std::string& s) { std::ofstream(p, std::ios::binary) << s; }

    std::string open(std::string_view where) { return std::string(external.open(where).bytes); }
    void refused(std::string_view where) {
        SCOPED_TRACE(std::string(where.substr(0, 100)));
        auto m = error_of([&] { external.open(where); }, ErrorCode::invalid_model);
        EXPECT_NE(m.find("inside of the model's folder"), std::string::npos) << m;
        EXPECT_TRUE(external.files.empty());
    }
    TensorProto tensor(std::string_view where, std::string_view offset, std::string_view length, std::int64_t n = 4) {
        TensorProto t;
        t.name = "w";
        t.data_type = static_cast<std::int32_t>(DType::u8);
        t.dims = {n};
        t.data_location = 1;
        t.external_data = {{"location", where}};
        if (!offset.empty()) t.external_data.push_back({"offset", offset});
        if (!length.empty()) t.external_data.push_back({"length", length});
        return t;
    }

    std::string content_at(std::string_view where, std::string_view offset, std::string_view length) {
        Tensor t = decode_tensor(tensor(where, offset, length), &external, nullptr);
        return {static_cast<const char*>(std::as_const(t).raw()), t.bytes()};
    }

    fs::path top, dir;
    External external;
};

TEST_F(ExternalData, OpensWhatLiesBeside) {
    EXPECT_EQ(open("data.bin"), std::string(64, 'd'));
    EXPECT_EQ(open("./data.bin"), std::string(64, 'd'));
    EXPECT_EQ(open("sub/deep.bin"), std::string(16, 's'));
    EXPECT_EQ(open("sub/./deep.bin"), std::string(16, 's'));
    EXPECT_EQ(open("empty.bin"), "");
    put(dir / "..data", "dots");
    EXPECT_EQ(open("..data"), "dots");
    auto first = external.open("data.bin"), second = external.open("data.bin");
    EXPECT_EQ(first.owner, second.owner);  // mapped once
}
TEST_F(ExternalData, RefusesByName) {
    for (std::string_view s : {"", ".", "./", "..", "../secret.bin", "sub/../../secret.bin", "sub/../data.bin", "a/../b",
                               "/etc/passwd", "//etc/passwd", "sub//deep.bin", "data.bin/", "..\\secret.bin", "sub\\deep.bin",
                               "C:/x", "C:x", "\\\\server\\share", "./../secret.bin", "sub/.."})
        refused(s);
    refused(std::string_view("data.bin\0.txt", 13));
    refused(std::string_view("\0", 1));
    refused((top / "secret.bin").string());
    refused((dir / "data.bin").string());
    refused(std::string(100000, 'a'));
}
TEST_F(ExternalData, WhatIsNotThereIsIo) {
    auto m = error_of([&] { open("none.bin"); }, ErrorCode::io);
    EXPECT_NE(m.find("none.bin"), std::string::npos) << m;
    EXPECT_NE(m.find(dir.string()), std::string::npos) << m;
    error_of([&] { open("none/none.bin"); }, ErrorCode::io);
    error_of([&] { open("data.bin/x"); }, ErrorCode::io);
    error_of([&] { open("sub"); }, ErrorCode::io);
    error_of([&] { open(std::string(1000, 'n')); }, ErrorCode::io);
    External none;
    error_of([&] { none.open("data.bin"); }, ErrorCode::io);
    none.dir = (top / "nowhere").string();
    error_of([&] { none.open("data.bin"); }, ErrorCode::io);
}
TEST_F(ExternalData, OffsetAndLength) {
    auto read = [&](std::string_view o, std::string_view l, std::int64_t n = 4) {
        return decode_tensor(tensor("data.bin", o, l, n), &external, nullptr).count();
    };
    EXPECT_EQ(read("", "", 64), 64);
    EXPECT_EQ(read("60", "4"), 4);
    EXPECT_EQ(read("60", ""), 4);
    EXPECT_EQ(read("", "4"), 4);
    EXPECT_EQ(read("64", "0", 0), 0);
    for (auto& c : std::vector<std::pair<const char*, const char*>>{
             {"61", "4"}, {"65", "0"}, {"0", "65"}, {"18446744073709551615", "4"}, {"4", "18446744073709551615"},
             {"-1", "4"}, {"0", "-4"}, {"x", "4"}, {"0x1", "4"}, {" 1", "4"}, {"1 ", "4"}, {"99999999999999999999", "4"},
             {"0", "3"}, {"0", "5"}, {"0", ""}})
        error_of([&] { read(c.first, c.second); }, ErrorCode::invalid_model);
    TensorProto t = tensor("data.bin", "0", "4");
    t.external_data.erase(t.external_data.begin());
    error_of([&] { decode_tensor(t, &external, nullptr); }, ErrorCode::invalid_model);
    t = tensor("data.bin", "0", "4");
    t.data_type = static_cast<std::int32_t>(DType::string);
    error_of([&] { decode_tensor(t, &external, nullptr); }, ErrorCode::invalid_model);
}
TEST_F(ExternalData, TensorsKeepTheFileMapped) {
    Tensor t = decode_tensor(tensor("data.bin", "8", "4"), &external, nullptr);
    std::weak_ptr<const MappedFile> file = external.files.begin()->second;
    external = External();
    EXPECT_FALSE(file.expired());
    EXPECT_EQ(std::as_const(t).data<std::uint8_t>()[3], 'd');
    t = Tensor();
    EXPECT_TRUE(file.expired());
}
TEST_F(ExternalData, ResolverNeverTouchesTheFileSystem) {
    std::string secret = "from memory";
    std::vector<std::string> asked;
    external.resolver = [&](std::string_view where) -> std::string_view {
        asked.emplace_back(where);
        return where == "../anything" || where == "data.bin" ? std::string_view(secret) : std::string_view();
    };
    EXPECT_EQ(open("data.bin"), secret);
    EXPECT_EQ(open("../anything"), secret);
    error_of([&] { open("sub/deep.bin"); }, ErrorCode::io);
    EXPECT_EQ(asked.size(), 3u);
    EXPECT_EQ(content_at("data.bin", "5", "4"), "memo");
    error_of([&] { decode_tensor(tensor("data.bin", "9", "4"), &external, nullptr); }, ErrorCode::invalid_model);
}

#if !defined(_WIN32)

TEST_F(ExternalData, LinksThatStayInside) {
    fs::create_symlink("data.bin", dir / "link.bin");
    fs::create_symlink(dir / "data.bin", dir / "absolute.bin");
    fs::create_symlink("sub", dir / "folder");
    fs::create_symlink("../data.bin", dir / "sub" / "up.bin");
    fs::create_symlink("../model/data.bin", dir / "round.bin");
    fs::create_symlink("link.bin", dir / "twice.bin");
    for (const char* s : {"link.bin", "absolute.bin", "sub/up.bin", "folder/up.bin", "round.bin", "twice.bin"}) {
        SCOPED_TRACE(s);
        EXPECT_EQ(open(s), std::string(64, 'd'));
    }
    EXPECT_EQ(open("folder/deep.bin"), std::string(16, 's'));
}
TEST_F(ExternalData, LinksThatLeave) {
    fs::create_symlink("../secret.bin", dir / "out.bin");
    fs::create_symlink(top / "secret.bin", dir / "absolute.bin");
    fs::create_symlink("..", dir / "parent");
    fs::create_symlink("/", dir / "root");
    fs::create_symlink("out.bin", dir / "hidden.bin");
    fs::create_symlink("../../secret.bin", dir / "sub" / "out.bin");
    fs::create_symlink("/etc/passwd", dir / "passwd");
    fs::create_symlink("/dev/zero", dir / "zero");
    fs::create_symlink("/proc/self/environ", dir / "environ");
    // A folder whose name begins like the model's.
    fs::create_directories(top / "model2");
    put(top / "model2" / "x.bin", "x");
    fs::create_symlink("../model2/x.bin", dir / "prefix.bin");
    for (std::string s : {"out.bin", "absolute.bin", "parent/secret.bin", "root/etc/passwd", "hidden.bin", "sub/out.bin", "passwd",
                          "zero", "environ", "prefix.bin"})
        refused(s);
}
TEST_F(ExternalData, LoopsAndSpecialFiles) {
    fs::create_symlink("b.bin", dir / "a.bin");
    fs::create_symlink("a.bin", dir / "b.bin");
    error_of([&] { open("a.bin"); }, ErrorCode::io);
    ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
    error_of([&] { open("pipe"); }, ErrorCode::io);  // and does not wait
    error_of([&] { MappedFile((dir / "pipe").string()); }, ErrorCode::io);
    error_of([&] { MappedFile("/dev/null"); }, ErrorCode::io);
    error_of([&] { MappedFile(dir.string()); }, ErrorCode::io);
}
/// models--x/snapshots/rev/onnx/model.onnx and its data both link into models--x/blobs.
TEST_F(ExternalData, HuggingFaceCache) {
    fs::path hub = top / "hub" / "models--x", snap = hub / "snapshots" / "rev" / "onnx";
    fs::create_directories(snap);
    fs::create_directories(hub / "blobs");
    put(hub / "blobs" / "aaa", "");
    put(hub / "blobs" / "bbb", "weights");
    fs::create_symlink("../../../blobs/aaa", snap / "model.onnx");
    fs::create_symlink("../../../blobs/bbb", snap / "model.onnx_data");
    fs::create_symlink("../../../../../secret.bin", snap / "evil");
    fs::create_symlink("../../../blobs/../../../secret.bin", snap / "evil2");
    external = External::beside((snap / "model.onnx").string());
    EXPECT_EQ(open("model.onnx_data"), "weights");
    external.files.clear();
    refused("evil");
    refused("evil2");
    // Through a home directory that is itself a link, with absolute links.
    fs::create_directory_symlink(top / "hub", top / "cache");
    fs::create_symlink(top / "cache" / "models--x" / "blobs" / "bbb", snap / "abs_data");
    external = External::beside((top / "cache" / "models--x" / "snapshots" / "rev" / "onnx" / "model.onnx").string());
    EXPECT_EQ(open("model.onnx_data"), "weights");
    EXPECT_EQ(open("abs_data"), "weights");
    // A blob that is itself a link leads no further.
    external.files.clear();
    fs::create_symlink("../../../secret.bin", hub / "blobs" / "ccc");
    fs::create_symlink("../../../blobs/ccc", snap / "chained");
    refused("chained");
}
/// While another thread swaps a file for a link to a secret, what is opened is never the secret.
TEST_F(ExternalData, RenamingMeanwhileDoesNotHelp) {
    fs::path target = dir / "raced.bin", next = dir / "next";
    put(target, std::string(64, 'd'));
    std::atomic<bool> stop{false};
    std::thread swapper([&] {
        for (int i = 0; !stop; ++i) {
            if (i % 2) fs::create_symlink("../secret.bin", next);
            else put(next, std::string(64, 'd'));
            fs::rename(next, target);
        }
    });
    int opened = 0, refusals = 0;
    for (int i = 0; i < 1000; ++i) {
        external.files.clear();
        try {
            EXPECT_EQ(open("raced.bin")[0], 'd');
            ++opened;
        } catch (const Error&) {
            ++refusals;
        }
    }
    stop = true;
    swapper.join();
    EXPECT_EQ(opened + refusals, 1000);
}
TEST_F(ExternalData, RelativeModelPath) {
    auto before = fs::current_path();
    fs::current_path(dir);
    External x = External::beside("m.onnx");
    EXPECT_EQ(x.open("data.bin").bytes.size(), 64u);
    fs::current_path(before);
}

#endif

TEST(MappedFile, Basics) {
    auto p = fs::temp_directory_path() / ("quern_map_" + std::to_string(std::random_device{}()));
    std::ofstream(p, std::ios::binary) << "hello";
    MappedFile f(p.string());
    EXPECT_EQ(f.text(), "hello");
    EXPECT_EQ(f.path(), p.string());
    MappedFile g(std::move(f));
    EXPECT_EQ(f.size(), 0u);
    EXPECT_EQ(g.text(), "hello");
    f = std::move(g);
    EXPECT_EQ(f.bytes().size(), 5u);
    MappedFile& self = f;
    f = std::move(self);
    EXPECT_EQ(f.text(), "hello");
    std::ofstream(p, std::ios::binary | std::ios::app);
    fs::remove(p);
    EXPECT_EQ(f.text(), "hello");
    try {
        MappedFile gone(p.string());
        ADD_FAILURE();
    } catch (Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::io);
        EXPECT_NE(e.message().find(p.string()), std::string::npos) << e.what();
    }
}

}  // namespace
