// Packed weights: one copy for all engines of a model, the same bytes wherever the source lies, memory given back.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#include <sys/resource.h>
#endif

#include <quern/base/mapped_file.hpp>
#include <quern/base/pages.hpp>
#include <quern/plan/plan.hpp>
#include <quern/session/runner.hpp>

#include "../support/op_test.hpp"

using namespace quern;
using namespace quern_test;

namespace {

std::vector<float> numbers(std::int64_t n) {
    std::vector<float> v(static_cast<std::size_t>(n));
    std::uint32_t s = 12345;
    for (float& x : v) {
        s = s * 1664525u + 1013904223u;
        x = static_cast<float>(s >> 8) / 8388608.f - 1.f;
    }
    return v;
}
/// MatMul, MatMul transposed by Gemm, a 3 x 3 convolution: each packs in its own way. `shift`: characters of the graph's name.
ModelBuilder weights_model(int shift) {
    ModelBuilder b;
    b.proto().graph.name = std::string_view("aaaaaaaaaaaaaaaa").substr(0, static_cast<std::size_t>(shift));
    b.input("x", DType::f32, {"1", "32", "6", "5"});
    b.constant("w", floats({64, 32, 3, 3}, numbers(64 * 32 * 9)));
    b.node("Conv", {"x", "w"}, {"c"});
    b.constant("shape", ints({2}, {64, 12}));
    b.node("Reshape", {"c", "shape"}, {"r"});
    b.constant("m", floats({12, 70}, numbers(12 * 70)));
    b.node("MatMul", {"r", "m"}, {"p"});
    b.constant("g", floats({45, 70}, numbers(45 * 70)));
    quern::onnx::Attribute t;
    t.name = "transB", t.type = 2, t.i = 1;
    b.node("Gemm", {"p", "g"}, {"y"}, {t});
    b.output("y");
    return b;
}

TEST(Packs, PagesAreZeroAlignedAndWritable) {
    for (std::size_t n : {std::size_t{1}, std::size_t{4096}, std::size_t{100000}, Pages::huge_from + 5}) {
        Pages p(n);
        ASSERT_NE(p.data(), nullptr);
        EXPECT_GE(p.size(), n);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p.data()) % (n >= Pages::huge_from ? std::size_t{2} << 20 : 4096), 0u);
        EXPECT_EQ(p.data()[0], std::byte{0});
        EXPECT_EQ(p.data()[p.size() - 1], std::byte{0});
        std::memset(p.data(), 7, p.size());
    }
    EXPECT_EQ(Pages(0).data(), nullptr);
    EXPECT_EQ(Pages(SIZE_MAX / 2).data(), nullptr);
}

TEST(Packs, PagesGrowOrStay) {
    Pages p(100000, 0);
    p.data()[0] = std::byte{7};
    const auto* before = p.data();
    EXPECT_FALSE(p.grow(SIZE_MAX / 2));
    EXPECT_EQ(p.data(), before);
    EXPECT_EQ(p.data()[0], std::byte{7});
    for (std::size_t n : {std::size_t{300000}, 3 * Pages::huge_from, 5 * Pages::huge_from}) {
        ASSERT_TRUE(p.grow(n));
        ASSERT_GE(p.size(), n);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p.data()) % (n >= Pages::huge_from ? std::size_t{2} << 20 : 4096), 0u);
        p.expect(n / 2, n);
        p.data()[0] = p.data()[n - 1] = std::byte{1};
    }
    p.drop(4097);
    EXPECT_EQ(p.data()[0], std::byte{1});
    p.data()[p.size() - 1] = std::byte{2};
    p.drop(p.size());
    p.drop(p.size() + 1);
    EXPECT_EQ(p.data()[p.size() - 1], std::byte{2});
    Pages none;
    none.drop(0);
    ASSERT_TRUE(none.grow(5));
    none.data()[4] = std::byte{1};
}
#if defined(MADV_POPULATE_WRITE)
TEST(Packs, TouchedPagesAreThere) {
    constexpr std::size_t page = 4096, mb = std::size_t{1} << 20;
    auto there = [&](const Pages& p, std::size_t from, std::size_t to) {  // pages in memory
        std::vector<unsigned char> in((to - from) / page);
        EXPECT_EQ(0, ::mincore(p.data() + from, to - from, in.data()));
        return static_cast<std::size_t>(std::count_if(in.begin(), in.end(), [](auto c) { return c & 1; }));
    };
    for (int kind = 0; kind < 3; ++kind) {  // huge pages, small ones, one huge page and then no patience
        SCOPED_TRACE(kind);
        std::atomic<std::int64_t> patience{kind == 2 ? -1 : INT64_MAX};
        Pages p(32 * mb, kind == 1 ? 0 : 32 * mb);
        if (::madvise(p.data(), page, MADV_POPULATE_WRITE) != 0 || there(p, 0, page) != 1) GTEST_SKIP() << "this kernel cannot (QEMU says it can)";
        p.data()[3 * mb] = std::byte{7};
        if (kind == 1) p.expect_small(4 * mb);
        EXPECT_EQ(p.touch(5 * mb + 10, 9 * mb + 10, kind == 1, patience), kind != 2);
        EXPECT_EQ(p.data()[3 * mb], std::byte{7});
        EXPECT_EQ(there(p, 5 * mb, 9 * mb + (kind ? page : 0)), 4 * mb / page + (kind ? 1 : 0));
        EXPECT_EQ(there(p, 10 * mb, 32 * mb), 0u);
        p.expect_small(10 * mb);
        EXPECT_TRUE(p.touch(31 * mb, 40 * mb, true, patience));  // what lies beyond is left out
        EXPECT_EQ(there(p, 31 * mb, 32 * mb), mb / page);
        for (std::size_t i = 5 * mb; i < 9 * mb; i += page) ASSERT_EQ(p.data()[i], std::byte{0});
        std::memset(p.data(), 1, p.size());
    }
}
TEST(Packs, PreparedPagesWaitNoLongerThanTheyMay) {
    constexpr std::size_t mb = std::size_t{1} << 20;
    for (std::int64_t patience : {std::int64_t{-1}, std::int64_t{INT64_MAX}}) {
        SCOPED_TRACE(patience);
        Pages p(64 * mb, 0);
        p.prepare(0, 10 * mb - 4096, patience);
        p.prepare(10 * mb - 4096, 11 * mb, patience);  // too little for huge pages
        std::vector<unsigned char> in(64 * mb / 4096);
        ASSERT_EQ(0, ::mincore(p.data(), 64 * mb, in.data()));
        const auto there = static_cast<std::size_t>(std::count_if(in.begin(), in.end(), [](auto c) { return c & 1; }));
        EXPECT_LE(there, (patience < 0 ? 2 : 8) * mb / 4096);
        for (std::size_t i = 0; i < p.size(); i += 4096) ASSERT_EQ(p.data()[i], std::byte{0});
        // What got different advice is more than one mapping: what the first is stays, and all of the new memory is there.
        std::memset(p.data(), 3, p.size());
        ASSERT_TRUE(p.grow(80 * mb));
        EXPECT_EQ(p.data()[0], std::byte{3});
        std::memset(p.data(), 4, p.size());
        ASSERT_TRUE(p.grow(100 * mb));
        std::memset(p.data(), 5, p.size());
        p.expect_small(0);
        ASSERT_TRUE(p.grow(120 * mb));
        EXPECT_EQ(p.data()[0], std::byte{5});
        std::memset(p.data(), 6, p.size());
    }
}
TEST(Packs, TheEndOfABlockThatNoWeightUsesIsGivenBack) {
    constexpr std::size_t page = 4096, mb = std::size_t{1} << 20;
    PackStore store(nullptr, 8 * mb);
    Tensor t;
    {
        NodePacks packs(store, "n");
        t = packs.get("a", {}, 3 * mb - 100, [&](std::byte* to) { std::memset(to, 1, 8 * mb - page); }, false);  // a huge page goes as far
    }
    ASSERT_EQ(store.take().size(), 1u);
    const auto* from = static_cast<const std::byte*>(t.raw());
    std::vector<unsigned char> in((8 * mb - page) / page);
    ASSERT_EQ(0, ::mincore(const_cast<std::byte*>(from), 8 * mb - page, in.data()));
    for (std::size_t i = 0; i < in.size(); ++i) ASSERT_EQ(in[i] & 1, i < 3 * mb / page) << i;
    EXPECT_EQ(from[3 * mb - 101], std::byte{1});
}
#endif
TEST(Packs, SmallWeightsFillWhatLargeOnesLeft) {
    const std::size_t large = 700000, small = 100000;
    PackStore store(nullptr, 1500000);
    std::vector<Tensor> got;
    {
        NodePacks packs(store, "n");
        for (std::size_t bytes : {large, large, large, small, small})
            got.push_back(packs.get("l", {}, bytes, [&](std::byte* to) { std::memset(to, static_cast<int>(got.size()), bytes); }, false));
    }
    auto at = [&](std::size_t i) { return static_cast<const std::byte*>(got[i].raw()); };
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(at(i)[got[i].bytes() - 1], static_cast<std::byte>(i));
    const auto wide = static_cast<std::ptrdiff_t>((large + 63) / 64 * 64);
    EXPECT_EQ(at(1) - at(0), wide);                         // one block
    EXPECT_TRUE(at(2) < at(0) || at(2) > at(0) + 1500000);  // another
    EXPECT_EQ(at(3) - at(1), wide);                         // behind the first two,
    EXPECT_EQ(at(4) - at(2), wide);                         // which have no room for one more
    EXPECT_EQ(store.take().size(), 5u);
}
#if defined(MADV_POPULATE_WRITE)
TEST(Packs, LargeOnesComeInSteps) {
    constexpr std::size_t mb = std::size_t{1} << 20, bytes = 40 * mb;
    const std::string path = testing::TempDir() + "quern_steps.bin";
    std::ofstream(path, std::ios::binary) << std::string(bytes, 'x');
    auto file = MappedFile::shared(MappedFile(path));
    for (std::size_t expected : {std::size_t{0}, std::size_t{200} * mb}) {  // the first waits for no huge page that is slow
        SCOPED_TRACE(expected);
        auto registry = PackRegistry::of(file);
        PackStore store(registry, expected);
        NodePacks packs(store, "n");
        Tensor source = Tensor::share(DType::u8, Shape{static_cast<std::int64_t>(bytes)}, file->bytes().data(), file);
        std::size_t most = 0;
        Tensor got = packs.get("l" + std::to_string(expected), std::span<const Tensor>(&source, 1), bytes, [&](std::byte* to) {
            std::vector<unsigned char> in(bytes / 4096);
            for (std::size_t at = 0; at < bytes; at += 4 * mb) {
                if (::mincore(to, bytes, in.data()) == 0) most = std::max(most, static_cast<std::size_t>(std::count_if(in.begin(), in.end(), [](auto c) { return c & 1; })) * 4096 - at);
                std::memcpy(to + at, file->bytes().data() + at, 4 * mb);
                packs.consumed(file->bytes().data() + at, 4 * mb);
            }
        }, true);
        EXPECT_LE(most, 8 * mb);
        EXPECT_EQ(0, std::memcmp(got.raw(), file->bytes().data(), bytes));
    }
    std::remove(path.c_str());
}
/// What a kernel writes here and there must not come page by page: where the system is slow to find huge ones nothing would bound the wait.
TEST(Packs, ScatteredOnesAreThereBefore) {
    constexpr std::size_t mb = std::size_t{1} << 20, bytes = 40 * mb, page = 4096;
    for (std::size_t expected : {std::size_t{0}, std::size_t{200} * mb}) {
        PackStore store(nullptr, expected);
        NodePacks packs(store, "n");
        bool can = true;
        std::size_t there = 0;
        packs.get("l", {}, bytes, [&](std::byte* to) {
            std::vector<unsigned char> in(bytes / page);
            can = ::madvise(to, page, MADV_POPULATE_WRITE) == 0 && ::mincore(to, bytes, in.data()) == 0;
            there = static_cast<std::size_t>(std::count_if(in.begin(), in.end(), [](auto c) { return c & 1; }));
            std::memset(to, 1, bytes);
        }, false);
        if (!can) GTEST_SKIP() << "this kernel cannot";
        EXPECT_EQ(there, bytes / page);
    }
}
#endif
TEST(Packs, ForgottenPagesComeBack) {
    std::string path = testing::TempDir() + "quern_forget.bin";
    std::string text(50000, 'x');
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
    std::ofstream(path, std::ios::binary) << text;
    MappedFile f(path);
    f.forget(f.bytes().data() + 10, f.size() - 20);
    f.forget(text.data(), text.size());  // memory of others is left alone
    EXPECT_EQ(f.text(), text);
    EXPECT_EQ(text[5], 'f');
    std::remove(path.c_str());
}

#if defined(MADV_POPULATE_READ) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)  // whose shadow pages are faults too
TEST(Packs, ExpectedPagesAreThere) {
    const std::string path = testing::TempDir() + "quern_expect.bin", text(std::size_t{4} << 20, 'x');
    std::ofstream(path, std::ios::binary) << text;
    const auto file = MappedFile::shared(MappedFile(path));
    const MappedFile& f = *file;
    std::byte* aligned = const_cast<std::byte*>(f.bytes().data());
    auto faults = [&](std::size_t size) {  // of reading this much
        rusage before{}, after{};
        getrusage(RUSAGE_THREAD, &before);
        unsigned sum = 0;
        for (std::size_t i = 0; i < size; i += 4096) sum += static_cast<unsigned>(static_cast<const volatile std::byte*>(aligned)[i]);
        EXPECT_EQ(sum, 'x' * size / 4096);
        getrusage(RUSAGE_THREAD, &after);
        return after.ru_minflt - before.ru_minflt;
    };
    if (::madvise(aligned, 4096, MADV_POPULATE_READ) != 0 || faults(4096) != 0) GTEST_SKIP() << "this kernel cannot (QEMU says it can)";
    f.expect(aligned + 100, f.size() - 100);
    EXPECT_EQ(faults(f.size()), 0);
    f.forget(aligned, f.size());
    EXPECT_GE(faults(f.size()), 1);
    EXPECT_EQ(faults(f.size()), 0);
    auto registry = PackRegistry::of(file);
    registry->forget_files({f.bytes()});
    EXPECT_EQ(faults(f.size()), 0);
    // Of a large page that is mapped whole nothing stays once a part is forgotten: only what goes is told for sure.
    registry->forget_files({f.bytes().subspan(f.size() / 2, 5000), f.bytes().subspan(100, 5000), std::as_bytes(std::span(text))});
    EXPECT_GE(faults(f.size()), 1);
    registry->forget_files({});
    EXPECT_GE(faults(4096), 1);
    f.expect(text.data(), text.size());  // memory of others is left alone
    f.expect(aligned, 0);
    std::remove(path.c_str());
}
#endif

TEST(Packs, SameBitsWhereverWeightsLie) {
    Tensor x = floats({1, 32, 6, 5}, numbers(960));
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        Options o;
        o.threads = 1;
        o.isa = isa;
        Tensor first;
        for (int shift = 0; shift < 8; ++shift) {
            ModelBuilder b = weights_model(shift);
            Tensor y = b.run({{"x", x}}, o)[0];
            if (shift == 0) first = y;
            ASSERT_EQ(0, std::memcmp(first.raw(), y.raw(), y.bytes())) << "shift " << shift << " " << isa_name(isa);
        }
    }
}

TEST(Packs, EnginesOfAModelShareThem) {
    ModelBuilder b = weights_model(3);
    Model m = b.model();
    Options o;
    o.threads = 1;
    Engine one = m.compile(o);
    EXPECT_EQ(one.packings(), 3u);
    o.taps = {"p"};  // another plan of the same weights
    Engine two = m.compile(o);
    EXPECT_EQ(two.packings(), 0u) << one.describe() << two.describe();
    EXPECT_EQ(two.packed_bytes(), one.packed_bytes());
    o.taps.clear();
    Tensor x = floats({1, 32, 6, 5}, numbers(960));
    Tensor y1 = one.run({{"x", x}})[0].second, y2 = two.run({{"x", x}})[0].second;
    EXPECT_EQ(0, std::memcmp(y1.raw(), y2.raw(), y1.bytes()));
}

TEST(Packs, ThreadsMakeTheSameKernels) {
    ModelBuilder b;  // 4 MiB of weights and more: made on several threads
    b.input("x", DType::f32, {"2", "256"});
    std::string last = "x";
    for (int i = 0; i < 20; ++i) {
        std::string w = "w" + std::to_string(i), y = "y" + std::to_string(i);
        std::vector<float> v = numbers(256 * 256);
        for (float& f : v) f /= 16;
        b.constant(w, floats({256, 256}, v));
        b.node("MatMul", {last, w}, {y});
        last = y;
    }
    b.output(last);
    Model m = b.model();
    Options o;
    Tensor x = floats({2, 256}, numbers(512)), first;
    std::string plan;
    for (int threads : {1, 2, 3, 16}) {
        o.threads = threads;
        Engine e = b.model().compile(o);
        if (threads == 1) plan = e.describe();
        EXPECT_EQ(e.describe(), plan);
        EXPECT_EQ(e.packings(), 20u);
        Tensor y = e.run({{"x", x}})[0].second;
        if (threads == 1) first = y;
        EXPECT_EQ(0, std::memcmp(first.raw(), y.raw(), y.bytes())) << threads << " threads";
    }
}

/// Resident memory of this process that no file backs, without what the heap keeps for later; 0 where this cannot be told.
std::int64_t anonymous_bytes() {
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    malloc_trim(0);
    std::ifstream f("/proc/self/status");
    for (std::string line; std::getline(f, line);)
        if (line.rfind("RssAnon:", 0) == 0) return std::atoll(line.c_str() + 8) * 1024;
#endif
    return 0;
}
/// `layers` products of 1024 x 1024 (4 MiB each); the first is scaled, so that passes compute its weights.
ModelBuilder heavy_model(int layers, float first) {
    ModelBuilder b;
    b.input("x", DType::f32, {"2", "1024"});
    b.constant("scale", floats({1}, {0.5f}));
    std::string last = "x";
    for (int i = 0; i < layers; ++i) {
        std::string w = "w" + std::to_string(i), y = "y" + std::to_string(i);
        std::vector<float> v = numbers(1024 * 1024);
        for (float& f : v) f /= 32;
        v[0] = first;
        b.constant(w, floats({1024, 1024}, v));
        b.node("MatMul", {last, w}, {y});
        last = y;
        if (i == 0) b.node("Mul", {last, "scale"}, {"scaled"}), last = "scaled";
    }
    b.output(last);
    return b;
}
struct ModelFile {
    std::string path = testing::TempDir() + "quern_" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".onnx";  // tests run side by side
    ~ModelFile() { std::remove(path.c_str()); }
    /// A new file in the place of the old one, as whoever replaces a model in use must write it.
    void write(const std::string& bytes) const {
        std::ofstream(path + ".new", std::ios::binary) << bytes;
        std::rename((path + ".new").c_str(), path.c_str());
    }
};

TEST(Packs, ASecondEngineCostsNothing) {
    ModelFile file;
    file.write(heavy_model(8, 0.25f).bytes());
    Model m = Model::load(file.path);
    const std::int64_t before = anonymous_bytes();
    Engine one = m.compile({.threads = 1});
    const std::int64_t first = anonymous_bytes() - before, packed = static_cast<std::int64_t>(one.packed_bytes());
    EXPECT_EQ(one.packings(), 8u);
    Engine two = m.compile({.threads = 2, .deadline = 100});  // what only concerns running may differ
    EXPECT_EQ(two.packings(), 0u);
    EXPECT_EQ(two.packed_bytes(), one.packed_bytes());
    if (before) {
        EXPECT_GT(first, packed / 2);
        EXPECT_LT(anonymous_bytes() - before, first + packed / 8);
    }
    EXPECT_EQ(m.compile({.threads = 1, .optimize = false}).packings(), 1u);  // another plan: only the weights that are not scaled in it are new
    Tensor x = floats({2, 1024}, numbers(2048));
    Tensor y1 = one.run({{"x", x}})[0].second, y2 = two.run({{"x", x}})[0].second;
    EXPECT_EQ(0, std::memcmp(y1.raw(), y2.raw(), y1.bytes()));
    auto limited = m.try_compile({.threads = 1, .memory_limit = 1000});  // also of a plan that is there
    ASSERT_FALSE(limited.ok());
    EXPECT_EQ(limited.error().code(), ErrorCode::out_of_memory);
}

TEST(Packs, ModelsOfTheSameFileShareThem) {
    ModelFile file;
    file.write(heavy_model(8, 0.25f).bytes());
    const std::int64_t before = anonymous_bytes();
    Engine one = Model::load(file.path).compile({.threads = 1});
    const std::int64_t first = anonymous_bytes() - before, packed = static_cast<std::int64_t>(one.packed_bytes());
    Engine two = Model::load(file.path).compile({.threads = 1});
    EXPECT_LE(two.packings(), 1u);  // the weights that passes computed are packed again, found equal, and given back
    if (before) {
        EXPECT_GT(first, packed / 2);
        EXPECT_LT(anonymous_bytes() - before, first + packed / 4);
    }
    Tensor x = floats({2, 1024}, numbers(2048));
    Tensor y1 = one.run({{"x", x}})[0].second, y2 = two.run({{"x", x}})[0].second;
    EXPECT_EQ(0, std::memcmp(y1.raw(), y2.raw(), y1.bytes()));
    one = two;  // what the first model packed outlives it
    Tensor y3 = two.run({{"x", x}})[0].second;
    EXPECT_EQ(0, std::memcmp(y1.raw(), y3.raw(), y1.bytes()));
}

TEST(Packs, AFilePutInTheOldOnesPlaceIsAnother) {
    ModelFile file;
    file.write(heavy_model(2, 0.25f).bytes());
    Engine old = Model::load(file.path).compile({.threads = 1});
    file.write(heavy_model(2, 8.f).bytes());
    Engine fresh = Model::load(file.path).compile({.threads = 1});
    EXPECT_EQ(fresh.packings(), 2u);
    Tensor x = floats({2, 1024}, numbers(2048));
    Tensor y1 = old.run({{"x", x}})[0].second, y2 = fresh.run({{"x", x}})[0].second, want = heavy_model(2, 8.f).run({{"x", x}})[0];
    EXPECT_NE(0, std::memcmp(y1.raw(), y2.raw(), y1.bytes()));
    EXPECT_EQ(0, std::memcmp(want.raw(), y2.raw(), y2.bytes()));
}

}  // namespace
