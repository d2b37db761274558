#pragma once
#include <new>

#include "../tensor.hpp"

QUERN_BEGIN

QUERN_INLINE const char* dtype_name(DType t) noexcept {
    static constexpr const char* names[dtype_count] = {
        "undefined", "float", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16",
        "double", "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz",
        "float8e5m2", "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "float8e8m0", "uint2", "int2",
        "float6e2m3", "float6e3m2"};
    return static_cast<int>(t) < dtype_count ? names[static_cast<int>(t)] : "undefined";
}
QUERN_INLINE std::size_t storage_bytes(DType t, std::int64_t n) noexcept {
    if (n <= 0) return 0;
    if (t == DType::string) return static_cast<std::size_t>(n) > SIZE_MAX / sizeof(std::string) ? SIZE_MAX : n * sizeof(std::string);
    unsigned __int128 bits = static_cast<unsigned __int128>(n) * dtype_bits(t);
    unsigned __int128 bytes = (bits + 7) / 8;
    return bytes > static_cast<unsigned __int128>(SIZE_MAX) ? SIZE_MAX : static_cast<std::size_t>(bytes);
}
QUERN_INLINE Tensor::Tensor(DType dtype, Shape shape) : Tensor(uninitialized(dtype, std::move(shape))) {
    if (dtype != DType::string && bytes()) std::memset(data_, 0, bytes());
}
QUERN_INLINE Tensor Tensor::uninitialized(DType dtype, Shape shape) {
    Tensor t;
    t.dtype_ = dtype;
    t.shape_ = std::move(shape);
    t.allocate();
    return t;
}
QUERN_INLINE void Tensor::allocate() {
    for (std::int64_t d : shape_)
        if (d < 0) raise(ErrorCode::invalid_argument, "a tensor's dimensions must not be negative: " + shape_.to_string());
    std::size_t n = bytes();
    if (n > static_cast<std::size_t>(PTRDIFF_MAX) - 64)
        raise(ErrorCode::out_of_memory, "a tensor of shape " + shape_.to_string() + " does not fit into memory");
    if (dtype_ == DType::string) {
        std::size_t c = static_cast<std::size_t>(count());
        auto* p = new std::string[c ? c : 1];
        owner_ = std::shared_ptr<const void>(p, [](const void* q) { delete[] static_cast<const std::string*>(q); });
        data_ = p;
        return;
    }
    void* p = ::operator new(n ? (n + 63) / 64 * 64 : 64, std::align_val_t(64), std::nothrow);
    if (!p) raise(ErrorCode::out_of_memory, "no memory for a tensor of " + std::to_string(n) + " bytes, shape " + shape_.to_string());
    owner_ = std::shared_ptr<const void>(p, [](const void* q) { ::operator delete(const_cast<void*>(q), std::align_val_t(64)); });
    data_ = p;
}
QUERN_INLINE Tensor Tensor::share(DType dtype, Shape shape, const void* data, std::shared_ptr<const void> owner) {
    Tensor t;
    t.dtype_ = dtype;
    t.shape_ = std::move(shape);
    t.data_ = const_cast<void*>(data);
    t.owner_ = std::move(owner);
    return t;
}
QUERN_INLINE Tensor Tensor::borrow(DType dtype, Shape shape, const void* data) { return share(dtype, std::move(shape), data, nullptr); }
QUERN_INLINE Tensor Tensor::borrow_device(Device device, DType dtype, Shape shape, const void* data, std::shared_ptr<const void> owner) {
    if (dtype == DType::string) raise(ErrorCode::invalid_argument, "strings cannot be in device memory");
    Tensor t = share(dtype, std::move(shape), data, std::move(owner));
    t.device_ = device;
    return t;
}
QUERN_INLINE Tensor Tensor::from_strings(std::span<const std::string> values, Shape shape) {
    Tensor t(DType::string, std::move(shape));
    if (values.size() != static_cast<std::size_t>(t.count()))
        raise(ErrorCode::invalid_argument, std::to_string(values.size()) + " strings given for shape " + t.shape().to_string());
    auto out = t.strings();
    for (std::size_t i = 0; i < values.size(); ++i) out[i] = values[i];
    return t;
}
QUERN_INLINE std::size_t Tensor::bytes() const noexcept { return storage_bytes(dtype_, count()); }
QUERN_INLINE std::span<const std::string> Tensor::strings() const {
    check_type(DType::string);
    return {static_cast<const std::string*>(data_), static_cast<std::size_t>(count())};
}
QUERN_INLINE std::span<std::string> Tensor::strings() {
    check_type(DType::string);
    return {static_cast<std::string*>(data_), static_cast<std::size_t>(count())};
}
QUERN_INLINE void Tensor::check_type(DType t) const {
    check_host();
    if (t != dtype_)
        raise(ErrorCode::invalid_argument, std::string("the tensor's elements are ") + dtype_name(dtype_) + ", asked for as " + dtype_name(t));
}
QUERN_INLINE void Tensor::check_host() const {
    if (device_ != Device::cpu) raise(ErrorCode::invalid_argument, "the tensor is in device memory: copy it to the host to read its elements");
}
QUERN_INLINE void Tensor::copy_bytes(DType t, const void* p, std::size_t n) {
    check_type(t);
    if (n != static_cast<std::size_t>(count()))
        raise(ErrorCode::invalid_argument, std::to_string(n) + " elements given for shape " + shape_.to_string());
    if (n) std::memcpy(data_, p, bytes());
}
QUERN_INLINE Tensor Tensor::clone() const {
    check_host();
    Tensor t = uninitialized(dtype_, shape_);
    if (dtype_ == DType::string) {
        auto from = strings();
        auto to = t.strings();
        for (std::size_t i = 0; i < from.size(); ++i) to[i] = from[i];
    } else if (bytes()) {
        std::memcpy(t.data_, data_, bytes());
    }
    return t;
}
QUERN_INLINE Tensor Tensor::aligned() const {
    int bits = dtype_bits(dtype_);
    bool fits = device_ != Device::cpu || bits <= 8 || reinterpret_cast<std::uintptr_t>(data_) % static_cast<std::size_t>(bits == 128 ? 8 : bits / 8) == 0;
    return fits ? *this : clone();
}
QUERN_INLINE Tensor Tensor::reshaped(Shape shape) const {
    if (shape.count() != count())
        raise(ErrorCode::invalid_argument, "shape " + shape_.to_string() + " cannot be seen as " + shape.to_string());
    Tensor t = *this;
    t.shape_ = std::move(shape);
    return t;
}

QUERN_END
