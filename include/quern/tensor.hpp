// Tensors that own their memory or borrow the caller's.
#pragma once
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "device.hpp"
#include "dtype.hpp"
#include "error.hpp"
#include "shape.hpp"

QUERN_BEGIN

/// A dense, row-major (C order) tensor, in host memory unless device() says otherwise. Copying shares the storage. Thread-safe as far as
/// its elements are not written at the same time.
class QUERN_API Tensor {
public:
    Tensor() = default;
    /// Owns new, zeroed memory, 64-byte aligned. Strings are empty. Fails with out_of_memory.
    Tensor(DType dtype, Shape shape);
    /// The same without zeroing: numbers are undefined until they are written.
    static Tensor uninitialized(DType dtype, Shape shape);
    /// Borrows `data` (row-major, `shape.count()` elements), which must outlive every copy of this tensor.
    static Tensor borrow(DType dtype, Shape shape, const void* data);
    /// As borrow, and keeps `owner` alive with the tensor.
    static Tensor share(DType dtype, Shape shape, const void* data, std::shared_ptr<const void> owner);
    template <class T> static Tensor borrow(std::span<T> data, Shape shape) {
        return borrow(dtype_of<std::remove_const_t<T>>, std::move(shape), data.data());
    }
    /// Owns a copy of `values`.
    template <class T> static Tensor from(std::span<const T> values, Shape shape) {
        Tensor t(dtype_of<T>, std::move(shape));
        t.copy_from(values);
        return t;
    }
    /// Borrows device memory (a CUDA device pointer), of which only raw() may be asked.
    static Tensor borrow_device(Device device, DType dtype, Shape shape, const void* data, std::shared_ptr<const void> owner = nullptr);
    static Tensor from_strings(std::span<const std::string> values, Shape shape);

    bool defined() const noexcept { return dtype_ != DType::undefined; }
    DType dtype() const noexcept { return dtype_; }
    const Shape& shape() const noexcept { return shape_; }
    Device device() const noexcept { return device_; }
    std::int64_t count() const noexcept { return shape_.count(); }
    /// Bytes of the elements; strings count their handles.
    std::size_t bytes() const noexcept;
    const void* raw() const noexcept { return data_; }
    void* raw() noexcept { return data_; }
    /// The elements; raises invalid_argument when T is not the element type.
    template <class T> std::span<const T> data() const {
        check_type(dtype_of<T>);
        return {static_cast<const T*>(data_), static_cast<std::size_t>(count())};
    }
    template <class T> std::span<T> data() {
        check_type(dtype_of<T>);
        return {static_cast<T*>(data_), static_cast<std::size_t>(count())};
    }
    std::span<const std::string> strings() const;
    std::span<std::string> strings();
    /// Copies exactly count() elements in; raises invalid_argument for another type or number.
    template <class T> void copy_from(std::span<const T> values) { copy_bytes(dtype_of<T>, values.data(), values.size()); }
    /// Whether the memory lives as long as the tensor does: false where it is borrowed.
    bool owned() const noexcept { return owner_ != nullptr; }
    /// A deep copy that owns its memory.
    Tensor clone() const;
    /// *this, or a copy where the memory is not aligned to the elements (weights in a file need not be).
    Tensor aligned() const;
    /// The same elements under another shape of equal count.
    Tensor reshaped(Shape shape) const;

private:
    void allocate();
    void check_type(DType t) const;
    void check_host() const;
    void copy_bytes(DType t, const void* p, std::size_t n);
    DType dtype_ = DType::undefined;
    Device device_ = Device::cpu;
    Shape shape_;
    void* data_ = nullptr;
    std::shared_ptr<const void> owner_;
};

/// Bytes that `count` elements of `dtype` take (packed types rounded up; strings: their handles).
QUERN_API std::size_t storage_bytes(DType dtype, std::int64_t count) noexcept;

QUERN_END
#if defined(QUERN_HEADER_ONLY)
#include "tensor/tensor-inl.hpp"
#endif
