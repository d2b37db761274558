// Element types, numbered as ONNX's TensorProto.DataType.
#pragma once
#include <cstddef>
#include <cstdint>

#include "version.hpp"

QUERN_BEGIN

/// Element types; values equal ONNX TensorProto.DataType
/// (https://onnx.ai/onnx/api/classes.html#tensorproto).
enum class DType : std::uint8_t {
    undefined = 0,
    f32 = 1,
    u8 = 2,
    i8 = 3,
    u16 = 4,
    i16 = 5,
    i32 = 6,
    i64 = 7,
    string = 8,
    boolean = 9,
    f16 = 10,
    f64 = 11,
    u32 = 12,
    u64 = 13,
    c64 = 14,
    c128 = 15,
    bf16 = 16,
    f8e4m3fn = 17,
    f8e4m3fnuz = 18,
    f8e5m2 = 19,
    f8e5m2fnuz = 20,
    u4 = 21,
    i4 = 22,
    f4e2m1 = 23,
    f8e8m0 = 24,
    u2 = 25,
    i2 = 26,
    f6e2m3 = 27,
    f6e3m2 = 28,
};
inline constexpr int dtype_count = 29;

/// What a value is made of. All but tensors are a `Value` (value.hpp) when a model runs.
enum class Kind : std::uint8_t { tensor, sequence, optional, map };

/// ONNX's lower-case name: "float", "int64", "bfloat16", ...; "undefined" for anything else.
QUERN_API const char* dtype_name(DType) noexcept;

/// Bits of one element; 0 for undefined and string. Types under 8 bits are stored packed, first
/// element in the low bits, as in ONNX's raw_data: 6-bit elements are a stream of bits, four in three bytes.
constexpr int dtype_bits(DType t) noexcept {
    switch (t) {
        case DType::f64: case DType::i64: case DType::u64: case DType::c64: return 64;
        case DType::c128: return 128;
        case DType::f32: case DType::i32: case DType::u32: return 32;
        case DType::f16: case DType::bf16: case DType::i16: case DType::u16: return 16;
        case DType::f6e2m3: case DType::f6e3m2: return 6;
        case DType::u4: case DType::i4: case DType::f4e2m1: return 4;
        case DType::u2: case DType::i2: return 2;
        case DType::undefined: case DType::string: return 0;
        default: return 8;
    }
}
constexpr bool is_half(DType t) noexcept { return t == DType::f16 || t == DType::bf16; }
constexpr bool is_float(DType t) noexcept {
    switch (t) {
        case DType::f32: case DType::f64: case DType::f16: case DType::bf16: case DType::f8e4m3fn:
        case DType::f8e4m3fnuz: case DType::f8e5m2: case DType::f8e5m2fnuz: case DType::f4e2m1:
        case DType::f8e8m0: case DType::f6e2m3: case DType::f6e3m2: return true;
        default: return false;
    }
}
constexpr bool is_integer(DType t) noexcept {
    switch (t) {
        case DType::u8: case DType::i8: case DType::u16: case DType::i16: case DType::i32:
        case DType::i64: case DType::u32: case DType::u64: case DType::u4: case DType::i4:
        case DType::u2: case DType::i2: return true;
        default: return false;
    }
}

/// IEEE binary16 and bfloat16 as storage types; arithmetic converts to float.
struct Half { std::uint16_t bits; };
struct BFloat16 { std::uint16_t bits; };

template <class T> struct dtype_of_t { static constexpr DType value = DType::undefined; };
template <> struct dtype_of_t<float> { static constexpr DType value = DType::f32; };
template <> struct dtype_of_t<double> { static constexpr DType value = DType::f64; };
template <> struct dtype_of_t<std::int8_t> { static constexpr DType value = DType::i8; };
template <> struct dtype_of_t<std::int16_t> { static constexpr DType value = DType::i16; };
template <> struct dtype_of_t<std::int32_t> { static constexpr DType value = DType::i32; };
template <> struct dtype_of_t<std::int64_t> { static constexpr DType value = DType::i64; };
template <> struct dtype_of_t<std::uint8_t> { static constexpr DType value = DType::u8; };
template <> struct dtype_of_t<std::uint16_t> { static constexpr DType value = DType::u16; };
template <> struct dtype_of_t<std::uint32_t> { static constexpr DType value = DType::u32; };
template <> struct dtype_of_t<std::uint64_t> { static constexpr DType value = DType::u64; };
template <> struct dtype_of_t<bool> { static constexpr DType value = DType::boolean; };
template <> struct dtype_of_t<Half> { static constexpr DType value = DType::f16; };
template <> struct dtype_of_t<BFloat16> { static constexpr DType value = DType::bf16; };
/// The DType of a C++ type; undefined where there is none.
template <class T> inline constexpr DType dtype_of = dtype_of_t<T>::value;

QUERN_END
