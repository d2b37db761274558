// The one switch from DType to C++ types.
#pragma once
#include <complex>
#include <string>

#include "../error.hpp"
#include "half.hpp"

QUERN_BEGIN

template <class T> struct TypeTag { using type = T; };

/// Calls f(TypeTag<T>{}) for the arithmetic types: float, double, int32, int64. Other types reach
/// arithmetic kernels through the promotion pass. Raises internal for any other type.
template <class F>
decltype(auto) dispatch_arith(DType t, F&& f) {
    switch (t) {
        case DType::f32: return f(TypeTag<float>{});
        case DType::f64: return f(TypeTag<double>{});
        case DType::i32: return f(TypeTag<std::int32_t>{});
        case DType::i64: return f(TypeTag<std::int64_t>{});
        default: raise(ErrorCode::internal, std::string("arithmetic kernel called with type ") + dtype_name(t));
    }
}
/// float and double only.
template <class F>
decltype(auto) dispatch_real(DType t, F&& f) {
    switch (t) {
        case DType::f32: return f(TypeTag<float>{});
        case DType::f64: return f(TypeTag<double>{});
        default: raise(ErrorCode::internal, std::string("floating-point kernel called with type ") + dtype_name(t));
    }
}
/// int32 and int64 only (index inputs).
template <class F>
decltype(auto) dispatch_index(DType t, F&& f) {
    switch (t) {
        case DType::i32: return f(TypeTag<std::int32_t>{});
        case DType::i64: return f(TypeTag<std::int64_t>{});
        default: raise(ErrorCode::internal, std::string("index tensor of type ") + dtype_name(t));
    }
}
/// Every type whose elements have a C++ value of their own (not packed, string or complex):
/// integers, bool, float, double, Half, BFloat16. Raises unsupported for others.
template <class F>
decltype(auto) dispatch_plain(DType t, F&& f) {
    switch (t) {
        case DType::f32: return f(TypeTag<float>{});
        case DType::f64: return f(TypeTag<double>{});
        case DType::i8: return f(TypeTag<std::int8_t>{});
        case DType::i16: return f(TypeTag<std::int16_t>{});
        case DType::i32: return f(TypeTag<std::int32_t>{});
        case DType::i64: return f(TypeTag<std::int64_t>{});
        case DType::u8: return f(TypeTag<std::uint8_t>{});
        case DType::u16: return f(TypeTag<std::uint16_t>{});
        case DType::u32: return f(TypeTag<std::uint32_t>{});
        case DType::u64: return f(TypeTag<std::uint64_t>{});
        case DType::boolean: return f(TypeTag<bool>{});
        case DType::f16: return f(TypeTag<Half>{});
        case DType::bf16: return f(TypeTag<BFloat16>{});
        default: raise(ErrorCode::unsupported, std::string("elements of type ") + dtype_name(t) + "; accepted: bool, integers of 8 bits and more, float, double, float16, bfloat16");
    }
}
/// Data movement: calls f(TypeTag<U>{}) with a type of the same size (uint8/16/32/64, complex<double>)
/// or std::string. Packed types (under 8 bits) are not handled here: raises unsupported.
template <class F>
decltype(auto) dispatch_size(DType t, F&& f) {
    if (t == DType::string) return f(TypeTag<std::string>{});
    switch (dtype_bits(t)) {
        case 8: return f(TypeTag<std::uint8_t>{});
        case 16: return f(TypeTag<std::uint16_t>{});
        case 32: return f(TypeTag<std::uint32_t>{});
        case 64: return f(TypeTag<std::uint64_t>{});
        case 128: return f(TypeTag<std::complex<double>>{});
        default: raise(ErrorCode::unsupported, std::string("data movement of packed type ") + dtype_name(t));
    }
}

QUERN_END
