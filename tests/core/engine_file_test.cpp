// Engine files: the same answers from the file, and nothing but a reason from a file that is not whole.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include <quern/base/checksum.hpp>
#include <quern/base/mapped_file.hpp>
#include <quern/plan/engine_file.hpp>

#include "../support/op_test.hpp"

QUERN_BEGIN
std::span<const Backend* const> linked_backends() noexcept;  // what the library was built with
QUERN_END

using namespace quern;
using namespace quern_test;

namespace {

std::string scratch_path(const char* name) { return testing::TempDir() + "quern_" + name + ".engine"; }
std::string read_all(const std::string& path) {
    std::ifstream f(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(f), {}};
}
void write_all(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }
struct Removed {
    std::string path;
    ~Removed() { std::remove(path.c_str()); }
};

Tensor noise(Shape shape, std::uint32_t seed) {
    Tensor x(DType::f32, std::move(shape));
    for (float& v : x.data<float>()) seed = seed * 1664525u + 1013904223u, v = static_cast<float>(seed >> 8) / 8388608.f - 1.f;
    return x;
}
quern::onnx::Attribute whole(const char* name, std::int64_t v) { return quern::onnx::attribute_i(name, v); }

/// Each packs its weights in its own way, or reads large constants in place.
constexpr const char* model_names[] = {"conv", "product", "lookup", "lstm"};
ModelBuilder model_named(const std::string& name) {
    ModelBuilder b;
    if (name == "conv") {
        b.input("x", DType::f32, {"N", "32", "H", "12"});
        b.constant("w3", noise({64, 32, 3, 3}, 1)).constant("b3", noise({64}, 2)).constant("w1", noise({48, 64, 1, 1}, 3)).constant("dw", noise({48, 1, 3, 3}, 4));
        b.node("Conv", {"x", "w3", "b3"}, {"a"}).node("Relu", {"a"}, {"r"}).node("Conv", {"r", "w1"}, {"c"});
        b.node("Conv", {"c", "dw"}, {"y"}, {whole("group", 48)}).output("y");
    } else if (name == "product") {
        b.input("x", DType::f32, {"N", "40"}).constant("w", noise({40, 70}, 5)).constant("v", noise({33, 70}, 6)).constant("one", noise({33, 1}, 7));
        b.node("MatMul", {"x", "w"}, {"a"}).node("Gemm", {"a", "v"}, {"b"}, {whole("transB", 1)}).node("MatMul", {"b", "one"}, {"y"}).output("y").output("b");
    } else if (name == "lookup") {  // a table read in place, sizes from data
        b.input("i", DType::i64, {"N"}).constant("table", noise({300, 24}, 8)).constant("w", noise({24, 40}, 9));
        b.node("Gather", {"table", "i"}, {"e"}).node("MatMul", {"e", "w"}, {"m"}).node("NonZero", {"m"}, {"n"}).output("m").output("n");
    } else {
        b.input("x", DType::f32, {"S", "2", "16"}).constant("w", noise({1, 64, 16}, 10)).constant("r", noise({1, 64, 16}, 11));
        b.node("LSTM", {"x", "w", "r"}, {"y"}, {whole("hidden_size", 16)}).output("y");
    }
    return b;
}
std::vector<NamedTensor> feeds(const std::string& name) {
    if (name == "conv") return {{"x", noise({2, 32, 9, 12}, 20)}};
    if (name == "product") return {{"x", noise({7, 40}, 21)}};
    if (name == "lookup") return {{"i", ints({5}, {0, 299, 17, -1, 4})}};
    return {{"x", noise({6, 2, 16}, 22)}};
}
void expect_same(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(a[i].first, b[i].first);
        ASSERT_EQ(a[i].second.shape(), b[i].second.shape());
        EXPECT_EQ(0, std::memcmp(a[i].second.raw(), b[i].second.raw(), a[i].second.bytes())) << a[i].first;
    }
}

TEST(EngineFile, Checksum) {  // test vectors of XXH64
    auto sum = [](std::string_view s) { return checksum(std::as_bytes(std::span<const char>(s.data(), s.size()))); };
    EXPECT_EQ(sum(""), 0xEF46DB3751D8E999u);
    EXPECT_EQ(sum("a"), 0xD24EC4F1A98C6E5Bu);
    EXPECT_EQ(sum("abc"), 0x44BC2CF5AD770999u);
    EXPECT_EQ(sum("Nobody inspects the spammish repetition"), 0xFBCEA83C8A378BF1u);
}

TEST(EngineFile, SameAnswers) {
    for (std::string name : model_names)
        for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
            SCOPED_TRACE(name + " " + isa_name(isa));
            Options o;
            o.threads = 2;
            o.isa = isa;
            ModelBuilder builder = model_named(name);
            Engine engine = builder.model().compile(o);
            Removed file{scratch_path(name.c_str())};
            engine.save(file.path);
            Engine loaded = Engine::load(file.path, {.threads = 2});
            EXPECT_EQ(loaded.packings(), 0u);
            EXPECT_EQ(loaded.packed_bytes(), engine.packed_bytes());
            ASSERT_EQ(loaded.inputs().size(), engine.inputs().size());
            for (std::size_t i = 0; i < loaded.inputs().size(); ++i) {
                EXPECT_EQ(loaded.inputs()[i].name, engine.inputs()[i].name);
                ASSERT_EQ(loaded.inputs()[i].dims.size(), engine.inputs()[i].dims.size());
                EXPECT_EQ(loaded.inputs()[i].dims[0].symbol, engine.inputs()[i].dims[0].symbol);
            }
            expect_same(loaded.run(feeds(name)), engine.run(feeds(name)));
            Removed again{scratch_path("again")};  // a loaded engine can be saved, and is the same
            loaded.save(again.path);
            expect_same(Engine::load(again.path, {.threads = 1}).run(feeds(name)), engine.run(feeds(name)));
        }
}

TEST(EngineFile, Taps) {
    ModelBuilder builder = model_named("product");
    Options o;
    o.threads = 1;
    o.taps = {"a"};
    Engine engine = builder.model().compile(o);
    Removed file{scratch_path("taps")};
    engine.save(file.path);
    Engine loaded = Engine::load(file.path);
    EXPECT_EQ(loaded.outputs().size(), 2u);
    Session s(loaded);
    s.bind("x", feeds("product")[0].second);
    s.run();
    EXPECT_EQ(s.tap("a").shape(), (Shape{7, 70}));
}

TEST(EngineFile, KeepsWhatTuningChose) {
    for (std::string name : model_names) {
        SCOPED_TRACE(name);
        ModelBuilder builder = model_named(name);
        Options o;
        o.threads = 2;
        Engine plain = builder.model().compile(o);
        o.tune = true;
        o.tune_dims = {{"N", 2}, {"H", 9}, {"S", 6}};
        Engine tuned = builder.model().compile(o);
        auto want = plain.run(feeds(name)), got = tuned.run(feeds(name));
        ASSERT_EQ(got.size(), want.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
            double largest = 1;  // Winograd's method, where it was faster here, is off by some 3e-6 of it
            if (want[i].second.dtype() == DType::f32)
                for (float v : want[i].second.data<float>()) largest = std::max(largest, std::abs(double(v)));
            expect_near(got[i].second, want[i].second, 1e-5, 1e-5 * largest);
        }
        Removed file{scratch_path("tuned")};
        tuned.save(file.path);
        expect_same(Engine::load(file.path, {.threads = 2}).run(feeds(name)), got);
    }
}

TEST(EngineFile, RefusesWhatItIsNotFor) {
    ModelBuilder builder = model_named("product");
    Engine engine = builder.model().compile({.threads = 1});
    Removed file{scratch_path("other")};
    engine.save(file.path);
    auto code = [&](Options o) {
        auto r = Engine::try_load(file.path, o);
        return r ? "loaded" : error_code_name(r.error().code());
    };
    if (best_isa() > Isa::baseline) {
        Options o;
        o.isa = Isa::baseline;
        EXPECT_STREQ(code(o), error_code_name(ErrorCode::unsupported));
    }
    Options device;
    device.device = "cuda";
    EXPECT_STREQ(code(device), error_code_name(ErrorCode::unsupported));
    Options little;
    little.memory_limit = 1;
    EXPECT_STREQ(code(little), error_code_name(ErrorCode::out_of_memory));
    EXPECT_EQ(Engine::try_load("/nowhere/x.engine").error().code(), ErrorCode::io);
    auto bytes = builder.bytes();
    write_all(file.path, bytes);
    EXPECT_EQ(Engine::try_load(file.path).error().code(), ErrorCode::invalid_model);
    EXPECT_EQ(engine.try_save("/nowhere/x.engine").error().code(), ErrorCode::io);
}

TEST(EngineFile, EveryDamageIsFound) {
    ModelBuilder builder = model_named("product");
    Engine engine = builder.model().compile({.threads = 1});
    Removed file{scratch_path("damaged")};
    engine.save(file.path);
    const std::string good = read_all(file.path);
    std::uint32_t s = 7;
    auto next = [&](std::size_t n) { return (s = s * 1664525u + 1013904223u, static_cast<std::size_t>(s >> 8) % n); };
    for (int i = 0; i < 200; ++i) {
        std::string bad = good;
        std::size_t at = i < 64 ? static_cast<std::size_t>(i) : next(good.size());
        bad[at] = static_cast<char>(bad[at] ^ 1 << next(8));
        write_all(file.path, bad);
        auto r = Engine::try_load(file.path);
        ASSERT_FALSE(r.ok()) << "bit flipped in byte " << at;
        EXPECT_EQ(r.error().code(), ErrorCode::invalid_model) << r.error().what();
    }
    for (std::size_t n : {std::size_t{0}, std::size_t{7}, std::size_t{63}, std::size_t{64}, good.size() / 2, good.size() - 1}) {
        write_all(file.path, good.substr(0, n));
        EXPECT_EQ(Engine::try_load(file.path).error().code(), ErrorCode::invalid_model) << n << " bytes";
    }
    write_all(file.path, good + "x");
    EXPECT_EQ(Engine::try_load(file.path).error().code(), ErrorCode::invalid_model);
}

/// With checksums out of the way: whatever the bytes say, there is an error or a plan, never a read outside of them.
TEST(EngineFile, HostileBytes) {
    std::uint32_t s = 99;
    auto next = [&](std::size_t n) { return (s = s * 1664525u + 1013904223u, static_cast<std::size_t>(s >> 8) % n); };
    int plans = 0, errors = 0;
    for (std::string name : model_names) {
        ModelBuilder builder = model_named(name);
        Engine engine = builder.model().compile({.threads = 1});
        Removed file{scratch_path("hostile")};
        engine.save(file.path);
        const std::string good = read_all(file.path);
        std::uint64_t head = 0;
        std::memcpy(&head, good.data() + 24, 8);
        std::uint64_t graph = head > 3000 ? head - 3000 : 64;  // the graph lies before the header
        for (int i = 0; i < 120; ++i) {
            std::string bad = good;
            for (std::size_t k = 0; k <= next(3); ++k) {
                std::size_t at = i % 3 == 0 ? 12 + next(52) : i % 3 == 1 ? head + next(good.size() - head) : graph + next(head - graph);
                bad[at] = next(2) ? static_cast<char>(bad[at] ^ 1 << next(8)) : static_cast<char>(next(256));
            }
            write_all(file.path, bad);
            auto r = [&]() -> Result<int> {
                auto image = std::make_shared<const MappedFile>(file.path);
                try {
                    EngineImage e = read_engine(image, nullptr, false);
                    PackStore store(nullptr, 0, &e.header.packs);
                    PlanOptions po;
                    po.target.isa = std::min(e.header.isa, best_isa());
                    po.target.backends = linked_backends();
                    po.store = &store;
                    if (e.model.problems.empty()) make_plan(std::move(e.model.graph), po);
                    return 1;
                } catch (const Error& e) {
                    return e;
                }
            }();
            ++(r ? plans : errors);
            if (!r) {
                EXPECT_NE(r.error().code(), ErrorCode::internal) << r.error().what();
            }
        }
    }
    EXPECT_GT(errors, 100);
}

}  // namespace
