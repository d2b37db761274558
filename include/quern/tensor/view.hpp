// Views: what kernels see of tensors.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "../dtype.hpp"

QUERN_BEGIN

/// A row-major tensor somewhere, dense but for `pitch`: no ownership. An absent optional input has dtype undefined. Of another
/// kind: `data` points to a `Value`, dtype is that of its innermost tensors, and there are no dims.
struct View {
    DType dtype = DType::undefined;
    std::int32_t rank = 0;
    const std::int64_t* dims = nullptr;
    void* data = nullptr;  ///< aligned to the element size at least
    Kind kind = Kind::tensor;
    /// Elements from one row of the last dimension to the next where other values lie between them; 0: none do. Only kernels that
    /// say so (Kernel::strided_in, strided_out) are given such views.
    std::int64_t pitch = 0;
    /// Rows that each block of the last two dimensions has memory for, where that may be more than its rows; the blocks are dense
    /// otherwise. 0: as many as there are. Only kernels that say so (Kernel::roomy_in, grows) are given such views.
    std::int64_t room = 0;

    bool present() const noexcept { return dtype != DType::undefined; }
    std::span<const std::int64_t> shape() const noexcept { return {dims, static_cast<std::size_t>(rank)}; }
    std::int64_t dim(int i) const noexcept { return dims[i < 0 ? i + rank : i]; }
    std::int64_t count() const noexcept { return count(0, rank); }
    /// The distance of neighbouring rows of the last dimension.
    std::int64_t row() const noexcept { return pitch ? pitch : dims[rank - 1]; }
    /// Product of dims [from, to).
    std::int64_t count(int from, int to) const noexcept {
        std::int64_t n = 1;
        for (int i = from; i < to; ++i) n *= dims[i];
        return n;
    }
    template <class T> const T* in() const noexcept { return static_cast<const T*>(data); }
    template <class T> T* out() const noexcept { return static_cast<T*>(data); }
};

QUERN_END
