// Tensors of every type, raw and typed, and what must be refused.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>

#include <quern/onnx/external.hpp>
#include <quern/onnx/writer.hpp>

#include "support/bytes_test.hpp"

using namespace quern;
using namespace quern::onnx;
using quern_test::bytes_of;
using quern_test::error_of;

namespace {

std::string content(const Tensor& t) { return {static_cast<const char*>(t.raw()), t.bytes()}; }

struct Case {
    DType type;
    std::uint32_t field;                ///< of the typed data
    std::vector<std::uint64_t> numbers;  ///< as sent; floats: their bits
    std::int64_t count;
};
/// Three elements (two for complex) of each type.
std::vector<Case> every_type() {
    std::vector<Case> c{
        {DType::f32, 4, {0x3f800000, 0xc0000000, 0x7fc00000}, 3},
        {DType::f64, 10, {0x3ff0000000000000, 0xc000000000000000, 0}, 3},
        {DType::c64, 4, {0x3f800000, 0, 0x40000000, 0xbf800000}, 2},
        {DType::c128, 10, {0x3ff0000000000000, 0, 0x4000000000000000, 1}, 2},
        {DType::i64, 7, {1, static_cast<std::uint64_t>(-1), 1ull << 62}, 3},
        {DType::u64, 11, {1, UINT64_MAX, 5}, 3},
        {DType::u32, 11, {1, UINT32_MAX, 5}, 3},
        {DType::i32, 5, {1, static_cast<std::uint64_t>(-5), 0x7fffffff}, 3},
        {DType::i16, 5, {1, static_cast<std::uint64_t>(-32768), 7}, 3},
        {DType::u16, 5, {1, 65535, 7}, 3},
        {DType::i8, 5, {1, static_cast<std::uint64_t>(-128), 127}, 3},
        {DType::u8, 5, {1, 255, 0}, 3},
        {DType::boolean, 5, {1, 0, 1}, 3},
        {DType::f16, 5, {0x3c00, 0xfc00, 1}, 3},
        {DType::bf16, 5, {0x3f80, 0xff80, 1}, 3},
        {DType::u4, 5, {0x21, 0x0f}, 3},
        {DType::i4, 5, {0xf1, 0x08}, 3},
        {DType::f4e2m1, 5, {0xa3, 0x01}, 3},
        {DType::u2, 5, {0x1b, 0x03}, 5},
        {DType::i2, 5, {0xb1, 0x02}, 5},
        {DType::f6e2m3, 5, {0x3f, 0x01, 0x20, 0x15, 0x2a}, 5},
        {DType::f6e3m2, 5, {0x01, 0x3e, 0x1f}, 3},
    };
    for (DType f8 : {DType::f8e4m3fn, DType::f8e4m3fnuz, DType::f8e5m2, DType::f8e5m2fnuz, DType::f8e8m0})
        c.push_back({f8, 5, {0x38, 0xff, 0x80}, 3});
    return c;
}
/// The elements' bytes.
std::string raw_of(const Case& c) {
    if (dtype_bits(c.type) == 6) {  // a stream of bits; in int32_data one number for each element
        unsigned __int128 stream = 0;
        for (std::size_t i = 0; i < c.numbers.size(); ++i) stream |= static_cast<unsigned __int128>(c.numbers[i]) << (6 * i);
        return {reinterpret_cast<const char*>(&stream), (6 * c.numbers.size() + 7) / 8};
    }
    std::size_t size = c.field == 4 ? 4 : c.field == 10 ? 8 : static_cast<std::size_t>(std::max(dtype_bits(c.type), 8)) / 8;
    std::string s;
    for (auto v : c.numbers) s.append(reinterpret_cast<const char*>(&v), size);
    return s;
}
std::string message(DType type, std::vector<std::int64_t> dims, std::string_view fields) {
    Writer w;
    w.i64s(1, dims);
    w.varint(2, static_cast<std::uint64_t>(type));
    w.bytes(8, "w");
    w.append(fields);
    return w.take();
}
std::string packed(const Case& c) {
    Writer w;
    if (c.field == 4 || c.field == 10) {
        w.bytes(c.field, raw_of(c));
    } else {
        std::vector<std::int64_t> v(c.numbers.begin(), c.numbers.end());
        w.i64s(c.field, v, true);
    }
    return w.take();
}
std::string unpacked(const Case& c) {
    std::string raw = raw_of(c), s;
    if (c.field == 4 || c.field == 10) {
        std::size_t size = c.field == 4 ? 4 : 8;
        for (std::size_t i = 0; i < raw.size(); i += size)
            s += static_cast<char>(c.field << 3 | (size == 4 ? 5 : 1)) + raw.substr(i, size);
        return s;
    }
    Writer w;
    w.i64s(c.field, std::vector<std::int64_t>(c.numbers.begin(), c.numbers.end()));
    return w.take();
}
std::string raw_field(std::string_view raw) {
    Writer w;
    w.bytes(9, raw);
    return w.take();
}

TEST(OnnxTensor, EveryTypeRawAndTyped) {
    auto cases = every_type();
    EXPECT_EQ(cases.size(), static_cast<std::size_t>(dtype_count) - 2);  // all but undefined and string
    for (auto& c : cases) {
        SCOPED_TRACE(dtype_name(c.type));
        for (auto& fields : {packed(c), unpacked(c), raw_field(raw_of(c))}) {
            Tensor t = parse_tensor(bytes_of(message(c.type, {1, c.count}, fields)));
            EXPECT_EQ(t.dtype(), c.type);
            EXPECT_EQ(t.shape(), Shape({1, c.count}));
            EXPECT_EQ(content(t), raw_of(c));
            Tensor again = parse_tensor(bytes_of(serialize_tensor(t, "name")));
            EXPECT_EQ(again.shape(), t.shape());
            EXPECT_EQ(content(again), content(t));
        }
    }
}
TEST(OnnxTensor, WrongNumbersOfElementsAreRefused) {
    for (auto& c : every_type()) {
        SCOPED_TRACE(dtype_name(c.type));
        for (auto& fields : {packed(c), unpacked(c), raw_field(raw_of(c))})
            for (std::int64_t n : {std::int64_t{0}, c.count + 8, c.count * 1000000}) {
                auto m = error_of([&] { parse_tensor(bytes_of(message(c.type, {n}, fields))); });
                EXPECT_NE(m.find("'w'"), std::string::npos) << m;
                EXPECT_NE(m.find("its dims need"), std::string::npos) << m;
            }
        auto m = error_of([&] { parse_tensor(bytes_of(message(c.type, {3}, ""))); });
        EXPECT_NE(m.find(dtype_name(c.type)), std::string::npos) << m;
    }
}
TEST(OnnxTensor, Strings) {
    std::vector<std::string> v{"a", std::string("b\0c", 3), "", "\xff"};
    Tensor t = Tensor::from_strings(v, {2, 2});
    Tensor u = parse_tensor(bytes_of(serialize_tensor(t, "s")));
    auto s = std::as_const(u).strings();
    EXPECT_EQ(std::vector<std::string>(s.begin(), s.end()), v);
    Writer w;
    w.bytes(6, "only one");
    error_of([&] { parse_tensor(bytes_of(message(DType::string, {2}, w.str()))); });
    error_of([&] { parse_tensor(bytes_of(message(DType::string, {1}, raw_field("x")))); });
    EXPECT_EQ(parse_tensor(bytes_of(message(DType::string, {0}, ""))).count(), 0);
}
TEST(OnnxTensor, ScalarsAndEmptyShapes) {
    Tensor s = parse_tensor(bytes_of(message(DType::f32, {}, raw_field(std::string("\0\0\x80\x3f", 4)))));
    EXPECT_EQ(s.shape().rank(), 0u);
    EXPECT_EQ(std::as_const(s).data<float>()[0], 1.0f);
    for (auto& fields : {std::string(), raw_field("")}) {
        Tensor e = parse_tensor(bytes_of(message(DType::i64, {3, 0, 2}, fields)));
        EXPECT_EQ(e.shape(), Shape({3, 0, 2}));
        EXPECT_EQ(e.count(), 0);
    }
}
TEST(OnnxTensor, InPlaceWhereAligned) {
    alignas(8) char buffer[64] = {};
    std::vector<float> v{1, 2, 3, 4};
    for (std::size_t shift = 0; shift < 8; ++shift) {
        std::memcpy(buffer + shift, v.data(), 16);
        TensorProto p;
        p.dims = {4};
        p.data_type = 1;
        p.raw_data = {buffer + shift, 16};
        p.has_raw = true;
        auto owner = std::make_shared<int>(0);
        Tensor t = decode_tensor(p, nullptr, owner);
        bool in_place = std::as_const(t).raw() == buffer + shift;
        EXPECT_EQ(in_place, shift % 4 == 0);
        EXPECT_EQ(owner.use_count(), in_place ? 2 : 1);
        auto d = std::as_const(t).data<float>();
        EXPECT_EQ(std::vector<float>(d.begin(), d.end()), v);
    }
}
TEST(OnnxTensor, BooleansAreZeroOrOne) {
    Tensor t = parse_tensor(bytes_of(message(DType::boolean, {4}, raw_field(std::string("\0\1\2\xff", 4)))));
    EXPECT_EQ(content(t), std::string("\0\1\1\1", 4));
    std::string clean("\0\1\1", 3);
    TensorProto p;
    p.dims = {3};
    p.data_type = 9;
    p.raw_data = clean;
    p.has_raw = true;
    EXPECT_EQ(std::as_const(*std::make_unique<Tensor>(decode_tensor(p, nullptr, nullptr))).raw(), clean.data());
}
TEST(OnnxTensor, NumbersOutOfRangeAreRefused) {
    auto one = [](DType t, std::int64_t v, std::uint32_t field = 5) {
        Writer w;
        w.i64(field, v);
        return message(t, {1}, w.str());
    };
    for (auto& c : std::vector<std::pair<DType, std::int64_t>>{
             {DType::i8, 256}, {DType::i8, -129}, {DType::u8, 300}, {DType::f16, 65536}, {DType::i16, -32769}, {DType::i4, 256}, {DType::f6e2m3, 64}, {DType::f6e3m2, -1}}) {
        auto m = error_of([&] { parse_tensor(bytes_of(one(c.first, c.second))); });
        EXPECT_NE(m.find(std::to_string(c.second)), std::string::npos) << m;
    }
    error_of([&] { parse_tensor(bytes_of(one(DType::u32, std::int64_t{1} << 32, 11))); });
    EXPECT_EQ(content(parse_tensor(bytes_of(one(DType::i8, 200)))), "\xc8");
    EXPECT_EQ(content(parse_tensor(bytes_of(one(DType::u8, -1)))), "\xff");
}
TEST(OnnxTensor, HostileDimsAndTypes) {
    auto refused = [](DType t, std::vector<std::int64_t> d) {
        for (auto& fields : {std::string(), raw_field("1234")}) error_of([&] { parse_tensor(bytes_of(message(t, d, fields))); });
    };
    refused(DType::f32, {-1});
    refused(DType::f32, {INT64_MIN});
    refused(DType::f32, {INT64_MAX});
    refused(DType::f32, {INT64_MAX, INT64_MAX});
    refused(DType::f32, {0, INT64_MAX, INT64_MAX});
    refused(DType::u8, {std::int64_t{1} << 32, std::int64_t{1} << 32});
    refused(DType::i4, {std::int64_t{1} << 62, 4});
    refused(DType::string, {std::int64_t{1} << 60});
    refused(DType::f32, std::vector<std::int64_t>(1000, 2));
    refused(static_cast<DType>(0), {1});
    refused(static_cast<DType>(29), {1});
    refused(static_cast<DType>(255), {1});
    TensorProto p;
    p.data_type = -5;
    error_of([&] { decode_tensor(p, nullptr, nullptr); });
    p.data_type = 1;
    p.data_location = 7;
    error_of([&] { decode_tensor(p, nullptr, nullptr); });
    p.data_location = 1;
    error_of([&] { decode_tensor(p, nullptr, nullptr); });
    std::string long_name(100000, '\n');
    p.name = long_name;
    auto m = error_of([&] { decode_tensor(p, nullptr, nullptr); });
    EXPECT_LT(m.size(), 400u);
}
TEST(OnnxTensor, Sparse) {
    std::vector<float> v{1, 2};
    auto make = [&](std::vector<std::int64_t> at, Shape at_shape, std::vector<std::int64_t> dims) {
        Tensor values = Tensor::from(std::span<const float>(v), {2}), indices = Tensor::from(std::span<const std::int64_t>(at), at_shape);
        SparseTensor s;
        s.values = to_proto(values, "s");
        s.indices = to_proto(indices, "");
        s.dims = dims;
        return decode_sparse(s, nullptr, nullptr, 1 << 16);
    };
    auto dense = [](Tensor t) {
        auto d = std::as_const(t).data<float>();
        return std::vector<float>(d.begin(), d.end());
    };
    EXPECT_EQ(dense(make({1, 3}, {2}, {2, 2})), (std::vector<float>{0, 1, 0, 2}));
    EXPECT_EQ(dense(make({0, 1, 1, 0}, {2, 2}, {2, 2})), (std::vector<float>{0, 1, 2, 0}));
    error_of([&] { make({1, 4}, {2}, {2, 2}); });
    error_of([&] { make({-1, 0}, {2}, {2, 2}); });
    error_of([&] { make({0, 2, 1, 0}, {2, 2}, {2, 2}); });
    error_of([&] { make({0, 1, 2}, {3}, {2, 2}); });
    error_of([&] { make({0, 1}, {2}, {0}); });
    error_of([&] { make({0, 1}, {2}, {INT64_MAX, 2}); });
    error_of([&] { make({0, 1}, {2}, {1 << 20}); }, ErrorCode::out_of_memory);
}
TEST(OnnxTensor, SequencesAndOptionals) {
    std::vector<float> v{1, 2};
    std::vector<Tensor> list{Tensor::from(std::span<const float>(v), {2}), Tensor::from(std::span<const float>(v), {2, 1})};
    std::string s = serialize_value(quern::Value::sequence({list[0], list[1]}), quern::Kind::sequence, "seq");
    auto back = parse_value(bytes_of(s), quern::Kind::sequence);
    ASSERT_EQ(back.size(), 2u);
    EXPECT_EQ(back[1].tensor().shape(), Shape({2, 1}));
    EXPECT_EQ(content(back[0].tensor()), content(list[0]));
    EXPECT_EQ(parse_value({}, quern::Kind::sequence).size(), 0u);
    EXPECT_FALSE(parse_value({}, quern::Kind::optional).has_value());
    Writer w;
    w.varint(2, 1);
    w.bytes(3, serialize_tensor(list[0], ""));
    auto o = parse_value(bytes_of(w.str()), quern::Kind::optional);
    ASSERT_EQ(content(o.tensor()), content(list[0]));
    Writer q;
    q.varint(2, 3);
    q.bytes(5, s);
    o = parse_value(bytes_of(q.str()), quern::Kind::optional);
    ASSERT_EQ(o.size(), 2u);
    Writer bad;
    bad.bytes(4, "");
    error_of([&] { parse_value(bytes_of(bad.str()), quern::Kind::sequence); }, ErrorCode::unsupported);
    std::string deep;
    for (int i = 0; i < 1000; ++i) {
        Writer d;
        d.bytes(5, deep);
        deep = d.str();
    }
    error_of([&] { parse_value(bytes_of(deep), quern::Kind::sequence); });
    for (std::size_t n = 0; n < s.size(); ++n) {
        try {
            parse_value(bytes_of(s.substr(0, n)), quern::Kind::sequence);
        } catch (const Error&) {
        }
    }
}
TEST(OnnxTensor, SequencesOfMaps) {
    using quern::Kind;
    using quern::Value;
    std::vector<std::string> names{"a", "bb", "ccc"};
    std::vector<float> v{1, 2, 3};
    std::vector<std::int64_t> numbers{7, -8, 9};
    auto text = std::make_shared<const Tensor>(Tensor::from_strings(names, {3}));
    auto number = std::make_shared<const Tensor>(Tensor::from(std::span<const std::int64_t>(numbers), {3}));
    Tensor values = Tensor::from(std::span<const float>(v), {3});
    Value list = Value::sequence({Value::map(text, values), Value::map(number, values), Value::map(text, values)});
    Value back = parse_value(bytes_of(serialize_value(list, Kind::sequence, "list")), Kind::sequence);
    ASSERT_EQ(back.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) {
        ASSERT_EQ(back[i].kind(), Kind::map);
        EXPECT_EQ(content(back[i].values()), content(values));
    }
    EXPECT_EQ(back[0].keys().strings()[2], "ccc");
    EXPECT_EQ(back[1].keys().data<std::int64_t>()[1], -8);
    Value one = parse_value(bytes_of(serialize_value(list[1], Kind::map, "m")), Kind::map);
    EXPECT_EQ(one.size(), 3u);
    Value nested = Value::sequence({Value::sequence({values}), Value::sequence()});
    back = parse_value(bytes_of(serialize_value(nested, Kind::sequence, "n")), Kind::sequence);
    ASSERT_EQ(back.size(), 2u);
    EXPECT_EQ(back[0].size(), 1u);
    EXPECT_EQ(back[1].size(), 0u);
    Writer odd;  // a key without a value
    odd.varint(2, 7);
    odd.i64s(3, numbers);
    error_of([&] { parse_value(bytes_of(odd.str()), Kind::map); });
}

}  // namespace
