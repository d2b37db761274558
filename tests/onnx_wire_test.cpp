// The protobuf reader and writer, and whole models with hostile bytes.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include <quern/onnx/external.hpp>
#include <quern/onnx/writer.hpp>

#include "support/bytes_test.hpp"

using namespace quern;
using namespace quern::onnx;
using quern_test::bytes_of;
using quern_test::error_of;

namespace {

/// Parses and decodes everything; an Error is fine, anything else is not.
bool survives(const std::string& s) {
    std::function<void(const GraphProto&, int)> all = [&](const GraphProto& g, int depth) {
        for (auto& t : g.initializer) decode_tensor(t, nullptr, nullptr);
        for (auto& t : g.sparse_initializer) decode_sparse(t, nullptr, nullptr, 1 << 20);
        for (auto& n : g.node)
            for (auto& a : n.attribute) {
                if (a.t) decode_tensor(*a.t, nullptr, nullptr);
                if (a.g && depth < 100) all(*a.g, depth + 1);
            }
    };
    try {
        ModelProto m = parse_model(bytes_of(s));
        all(m.graph, 0);
        serialize(m);
        return true;
    } catch (const Error&) {
        return false;
    }
}

/// A model that uses every message quern reads.
std::string rich_model() {
    static const std::vector<float> weights{1, 2, 3, 4, 5, 6};
    ModelProto m;
    m.ir_version = 10;
    m.producer_name = "test";
    m.producer_version = "1";
    m.domain = "org.example";
    m.has_graph = true;
    m.opset_import = {{"", 20}, {"com.example", 1}};
    m.metadata = {{"key", "value"}};
    GraphProto& g = m.graph;
    g.name = "main";
    g.input = {tensor_info("x", DType::f32, {{-1, false, "N"}, {3, true, {}}}), tensor_info("any", DType::i64, {}, false)};
    ValueInfo seq;
    seq.name = "seq";
    seq.type.kind = TypeProto::sequence;
    seq.type.elem = std::make_shared<TypeProto>(tensor_info("", DType::f32, {{-1, false, {}}}).type);
    g.value_info = {seq};
    g.output = {tensor_info("y", DType::f32, {{-1, false, "N"}, {2, true, {}}})};
    Tensor w = Tensor::borrow(std::span<const float>(weights), {3, 2});
    g.initializer = {to_proto(w, "w")};
    static const std::vector<std::int64_t> at{0, 5};
    static const std::vector<float> values{7, 8};
    SparseTensor s;
    s.values = to_proto(Tensor::borrow(std::span<const float>(values), {2}), "s");
    s.indices = to_proto(Tensor::borrow(std::span<const std::int64_t>(at), {2}), "");
    s.dims = {2, 3};
    g.sparse_initializer = {s};
    NodeProto n;
    n.name = "first";
    n.op_type = "MatMul";
    n.input = {"x", "w"};
    n.output = {"h"};
    n.doc_string = "text";
    NodeProto i = n;
    i.name = "branch";
    i.op_type = "If";
    i.output = {"y"};
    GraphProto branch;
    branch.name = "then";
    branch.node = {n};
    branch.output = {tensor_info("h", DType::f32, {})};
    Attribute tp = make_attribute("tp", AttrType::tp);
    tp.tp = std::make_shared<TypeProto>(seq.type);
    i.attribute = {attribute_i("i", -3), attribute_f("f", 0.5f), attribute_s("s", "text"), attribute_ints("is", {1, -1, INT64_MIN}),
                   attribute_floats("fs", {1, 2}), attribute_strings("ss", {"a", ""}), attribute_t("t", w),
                   attribute_g("g", branch), tp};
    g.node = {n, i};
    FunctionProto f;
    f.name = "F";
    f.domain = "com.example";
    f.input = {"a"};
    f.output = {"b"};
    f.attribute = {"alpha"};
    f.attribute_proto = {attribute_f("beta", 2)};
    Attribute ref = make_attribute("alpha", AttrType::f);
    ref.ref_attr_name = "alpha";
    n.attribute = {ref};
    f.node = {n};
    f.opset_import = {{"", 20}};
    m.functions = {f};
    return serialize(m);
}

Reader reader_over(std::string_view s, WireContext& c, const Scope& scope) {
    c.origin = s.data();
    c.memory_left = 1 << 20;
    return Reader(s, c, scope);
}

TEST(Wire, ReadsWhatTheWriterWrote) {
    Writer w;
    w.varint(1, 0);
    w.varint(2, UINT64_MAX);
    w.i64(3, -1);
    w.f32(4, 1.5f);
    w.bytes(5, std::string_view("a\0b", 3));
    w.text(6, "");
    w.nest(7, [&] {
        w.nest(1, [&] { w.bytes(1, std::string(300, 'x')); });
        w.varint(2, 9);
    });
    w.i64s(8, std::vector<std::int64_t>{1, -1, 300}, true);
    w.i64s(8, std::vector<std::int64_t>{7});
    w.varint((1u << 29) - 1, 5);
    WireContext c;
    Scope scope;
    Reader r = reader_over(w.str(), c, scope);
    auto at = [&](std::uint32_t f) { ASSERT_TRUE(r.next()); ASSERT_EQ(r.field(), f); };
    at(1); EXPECT_EQ(r.varint(), 0u);
    at(2); EXPECT_EQ(r.varint(), UINT64_MAX);
    at(3); EXPECT_EQ(r.i64(), -1);
    at(4); EXPECT_EQ(r.f32(), 1.5f);
    at(5); EXPECT_EQ(r.bytes(), std::string_view("a\0b", 3));
    at(7);
    {
        Reader in(r.bytes(), c, scope);
        ASSERT_TRUE(in.next());
        Reader in2(in.bytes(), c, scope);
        ASSERT_TRUE(in2.next());
        EXPECT_EQ(in2.bytes().size(), 300u);
        ASSERT_TRUE(in.next());
        EXPECT_EQ(in.varint(), 9u);
        EXPECT_FALSE(in.next());
    }
    std::vector<std::int64_t> v;
    at(8); r.append(v);
    at(8); r.append(v);
    EXPECT_EQ(v, (std::vector<std::int64_t>{1, -1, 300, 7}));
    at((1u << 29) - 1); r.skip();
    EXPECT_FALSE(r.next());
}

TEST(Wire, RefusesWhatIsNotWellFormed) {
    auto bad = [](std::string s, const char* what) {
        auto m = error_of([&] {
            WireContext c;
            Scope scope{nullptr, "message", -1};
            Reader r = reader_over(s, c, scope);
            while (r.next()) r.skip();
        });
        EXPECT_NE(m.find(what), std::string::npos) << m;
        EXPECT_NE(m.find("message"), std::string::npos) << m;
        EXPECT_NE(m.find("byte"), std::string::npos) << m;
    };
    bad("\x80", "ends inside");
    bad("\x08", "ends inside");
    bad("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "64 bits");
    bad(std::string("\x08") + std::string(20, '\x80'), "64 bits");
    bad(std::string("\x00\x01", 2), "field number 0");
    bad("\xff\xff\xff\xff\xff\x01", "field number");
    bad("\x0a\x05" "abc", "length of 5 bytes where 3");
    bad("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "length of 18446744073709551615");
    bad("\x0d" "abc", "ends inside");
    bad("\x09" "abcdefg", "ends inside");
    bad("\x0b\x0c", "group");
    bad("\x0c", "group");
    bad("\x0e", "wire type 6");
    bad("\x0f", "wire type 7");
}

TEST(Wire, PackedAndUnpackedNumbersAreTheSame) {
    WireContext c;
    Scope scope;
    std::vector<float> f;
    std::string s("\x3d\0\0\x80\x3f\x3a\x08\0\0\0\x40\0\0\x40\x40", 15);
    Reader r = reader_over(s, c, scope);
    while (r.next()) r.append(f);
    EXPECT_EQ(f, (std::vector<float>{1, 2, 3}));
    std::string odd("\x3a\x05" "abcde", 7);
    Reader q = reader_over(odd, c, scope);
    error_of([&] { while (q.next()) q.append(f); });
}

TEST(OnnxModel, RoundTrip) {
    std::string s = rich_model();
    ModelProto m = parse_model(bytes_of(s));
    EXPECT_EQ(serialize(m), s);
    EXPECT_TRUE(survives(s));
    EXPECT_EQ(m.ir_version, 10);
    EXPECT_EQ(m.producer_name, "test");
    ASSERT_EQ(m.opset_import.size(), 2u);
    EXPECT_EQ(m.opset_import[1].domain, "com.example");
    ASSERT_EQ(m.metadata.size(), 1u);
    EXPECT_EQ(m.metadata[0].value, "value");
    auto& g = m.graph;
    ASSERT_EQ(g.input.size(), 2u);
    EXPECT_EQ(g.input[0].type.shape[0].param, "N");
    EXPECT_FALSE(g.input[0].type.shape[0].has_value);
    EXPECT_EQ(g.input[0].type.shape[1].value, 3);
    EXPECT_FALSE(g.input[1].type.has_shape);
    EXPECT_EQ(g.value_info[0].type.kind, TypeProto::sequence);
    ASSERT_TRUE(g.value_info[0].type.elem);
    EXPECT_EQ(g.value_info[0].type.elem->elem_type, 1);
    auto& a = g.node[1].attribute;
    ASSERT_EQ(a.size(), 9u);
    EXPECT_EQ(a[0].i, -3);
    EXPECT_EQ(a[1].f, 0.5f);
    EXPECT_EQ(a[2].s, "text");
    EXPECT_EQ(a[3].ints, (std::vector<std::int64_t>{1, -1, INT64_MIN}));
    EXPECT_EQ(a[5].strings.size(), 2u);
    EXPECT_EQ(a[7].g->node[0].op_type, "MatMul");
    EXPECT_EQ(m.functions[0].node[0].attribute[0].ref_attr_name, "alpha");
    Tensor dense = decode_sparse(g.sparse_initializer[0], nullptr, nullptr);
    auto d = std::as_const(dense).data<float>();
    EXPECT_EQ(std::vector<float>(d.begin(), d.end()), (std::vector<float>{7, 0, 0, 0, 0, 8}));
}

TEST(OnnxModel, AttributeTypesOfOldFilesFollowFromTheFields) {
    Writer w;
    auto attr = [&](auto fill) { w.nest(5, [&] { w.bytes(1, "a"); fill(); }); };
    w.begin(7);
    w.begin(1);
    attr([&] { w.f32(2, 1); });
    attr([&] { w.i64(3, 1); });
    attr([&] { w.bytes(4, ""); });
    attr([&] { w.i64s(8, std::vector<std::int64_t>{1, 2}, true); });
    attr([&] { w.bytes(9, "x"); });
    attr([&] { w.nest(5, [] {}); });
    attr([&] {});
    w.end();
    w.end();
    ModelProto m = parse_model(bytes_of(w.str()));
    std::vector<int> types;
    for (auto& a : m.graph.node[0].attribute) types.push_back(a.type);
    EXPECT_EQ(types, (std::vector<int>{1, 2, 3, 7, 8, 4, 0}));
}

TEST(OnnxModel, MessagesThatOccurTwiceAreMerged) {
    Writer a, b;
    a.i64(1, 3);
    a.nest(7, [&] { a.bytes(2, "one"); a.nest(1, [&] { a.bytes(4, "A"); }); });
    b.i64(1, 8);
    b.nest(7, [&] { b.bytes(2, "two"); b.nest(1, [&] { b.bytes(4, "B"); }); });
    std::string s = a.str() + b.str();
    ModelProto m = parse_model(bytes_of(s));
    EXPECT_EQ(m.ir_version, 8);
    EXPECT_EQ(m.graph.name, "two");
    ASSERT_EQ(m.graph.node.size(), 2u);
    EXPECT_EQ(m.graph.node[1].op_type, "B");
}

TEST(OnnxModel, UnknownFieldsAreSkipped) {
    std::string s = rich_model();
    Writer w;
    w.bytes(1000, "future");
    w.varint(1001, 5);
    w.f32(1002, 1);
    std::string t = w.str() + s + w.str();
    EXPECT_EQ(serialize(parse_model(bytes_of(t))), s);
}

TEST(OnnxModel, ErrorsNameTheField) {
    Writer w;
    w.nest(7, [&] {
        w.nest(1, [&] { w.bytes(4, "Relu"); });
        w.nest(1, [&] {
            w.bytes(4, "Relu");
            w.nest(5, [&] { w.i64(1, 5); });
        });
    });
    auto m = error_of([&] { parse_model(bytes_of(w.str())); });
    EXPECT_NE(m.find("graph.node[1].attribute[0]"), std::string::npos) << m;
    EXPECT_NE(m.find("at byte "), std::string::npos) << m;
    Writer t;
    t.nest(7, [&] { t.nest(1, [&] { t.nest(5, [&] { t.bytes(1, "value"); t.varint(20, 4); }); }); });
    m = error_of([&] { parse_model(bytes_of(t.str())); });
    EXPECT_NE(m.find("'value'"), std::string::npos) << m;
}

TEST(OnnxModel, NestingIsBounded) {
    auto nested = [](int depth) {
        std::string g;
        for (int i = 0; i < depth; ++i) {
            Writer w;
            w.nest(1, [&] { w.nest(5, [&] { w.bytes(1, "body"); w.bytes(6, g); }); });
            g = w.take();
        }
        Writer w;
        w.bytes(7, g);
        return w.take();
    };
    EXPECT_NO_THROW(parse_model(bytes_of(nested(40))));
    auto m = error_of([&] { parse_model(bytes_of(nested(100))); });
    EXPECT_NE(m.find("too deeply"), std::string::npos) << m;
    auto types = [](int depth) {
        std::string t;
        for (int i = 0; i < depth; ++i) {
            Writer w;
            w.nest(i % 2 ? 4 : 9, [&] { w.bytes(1, t); });
            t = w.take();
        }
        Writer w;
        w.nest(7, [&] { w.nest(11, [&] { w.bytes(2, t); }); });
        return w.take();
    };
    EXPECT_NO_THROW(parse_model(bytes_of(types(30))));
    error_of([&] { parse_model(bytes_of(types(5000))); });
}

TEST(OnnxModel, EveryTruncationIsAnErrorOrAModel) {
    std::string s = rich_model();
    for (std::size_t n = 0; n < s.size(); ++n) {
        std::string cut(s.data(), n);
        cut.shrink_to_fit();
        survives(cut);
    }
}

TEST(OnnxModel, BitFlipsAreErrorsOrModels) {
    const std::string s = rich_model();
    for (std::size_t i = 0; i < s.size(); ++i)
        for (int b = 0; b < 8; ++b) {
            std::string t = s;
            t[i] = static_cast<char>(t[i] ^ (1 << b));
            survives(t);
        }
    std::mt19937 rng(1);
    for (int k = 0; k < 5000; ++k) {
        std::string t = s;
        for (int j = 0; j < 4; ++j) t[rng() % t.size()] = static_cast<char>(rng());
        if (k % 2) t.insert(rng() % t.size(), t.substr(rng() % t.size(), rng() % 40));
        survives(t);
    }
}

TEST(OnnxModel, SmallBytesTakeLittleMemory) {
    Writer w;  // a million empty initializers
    std::string g;
    for (int i = 0; i < 1000000; ++i) g += std::string("\x2a\0", 2);
    w.bytes(7, g);
    error_of([&] { parse_model(bytes_of(w.str())); }, ErrorCode::out_of_memory);
    std::string s = rich_model();
    ParseLimits limits;
    limits.memory = 1000;
    error_of([&] { parse_model(bytes_of(s), limits); }, ErrorCode::out_of_memory);
    EXPECT_FALSE(parse_model({}).has_graph);
}

TEST(OnnxModel, LargeTensorsGoToAFileBesideTheModel) {
    auto dir = std::filesystem::temp_directory_path() / ("quern_sink_" + std::to_string(std::random_device{}()));
    std::filesystem::create_directories(dir);
    std::string s = rich_model();
    ModelProto m = parse_model(bytes_of(s));
    std::vector<float> big(5000);
    for (std::size_t i = 0; i < big.size(); ++i) big[i] = static_cast<float>(i);
    Tensor t = Tensor::borrow(std::span<const float>(big), {50, 100});
    m.graph.initializer.push_back(to_proto(t, "big"));
    m.graph.initializer.push_back(to_proto(t, "again"));
    std::string path = (dir / "m.onnx").string();
    for (int again = 0; again < 2; ++again) {  // the second time over files that are mapped
        write_model(path, m, 1000);
        auto file = std::make_shared<const MappedFile>(path);
        EXPECT_LT(file->size(), 5000u);
        auto read = std::make_shared<ModelProto>(parse_model(file->bytes()));
        External ex = External::beside(path);
        ASSERT_EQ(read->graph.initializer.size(), 3u);
        EXPECT_EQ(read->graph.initializer[0].data_location, 0);
        for (int k = 1; k < 3; ++k) {
            auto& p = read->graph.initializer[k];
            EXPECT_EQ(p.data_location, 1);
            Tensor x = decode_tensor(p, &ex, file);
            EXPECT_EQ(reinterpret_cast<std::uintptr_t>(std::as_const(x).raw()) % 4096, 0u);
            auto v = std::as_const(x).data<float>();
            EXPECT_TRUE(std::equal(v.begin(), v.end(), big.begin(), big.end()));
        }
    }
    std::size_t files = 0;
    for (auto& e : std::filesystem::directory_iterator(dir)) ++files, (void)e;
    EXPECT_EQ(files, 2u);
    error_of([&] { write_model((dir / "none" / "m.onnx").string(), m); }, ErrorCode::io);
    std::filesystem::remove_all(dir);
}

}  // namespace
