// Tensors made from parameters: ranges, constants, identity matrices.
#pragma once
#include <cmath>
#include <cstring>

#include <quern/kernels/transpose/region.hpp>
#include <quern/tensor.hpp>

QUERN_BEGIN
namespace generate {

/// Elements of start, start + delta, ... before limit; raises for delta 0 and for more than memory can hold.
template <class T> std::int64_t range_length(T start, T limit, T delta) {
    if (delta == 0) raise(ErrorCode::shape_mismatch, "a delta of 0; any other is accepted");
    if constexpr (std::is_integral_v<T>) {
        if (delta > 0 ? start >= limit : start <= limit) return 0;
        using U = std::uint64_t;
        U span = delta > 0 ? static_cast<U>(limit) - static_cast<U>(start) : static_cast<U>(start) - static_cast<U>(limit);
        U step = delta > 0 ? static_cast<U>(delta) : U{0} - static_cast<U>(delta);
        U n = (span - 1) / step + 1;
        if (n > (U{1} << 48)) raise(ErrorCode::out_of_memory, "a range of more than 2^48 elements");
        return static_cast<std::int64_t>(n);
    } else {
        double n = std::ceil((static_cast<double>(limit) - static_cast<double>(start)) / static_cast<double>(delta));
        if (!(n > 0)) return 0;
        if (n > 0x1p48) raise(ErrorCode::out_of_memory, "a range of more than 2^48 elements");
        return static_cast<std::int64_t>(n);
    }
}

/// Inputs start, limit, delta: one element each, of f32, f64, i32 or i64.
class Range final : public Kernel {
public:
    const char* name() const noexcept override { return "range.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        for (const View& v : call.in)
            if (v.count() != 1) raise(ErrorCode::shape_mismatch, "start, limit or delta of Range has " + std::to_string(v.count()) + " elements; accepted: 1");
        dispatch_arith(call.in[0].dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            dims[0] = {range_length(*call.in[0].in<T>(), *call.in[1].in<T>(), *call.in[2].in<T>())};
        });
        return true;
    }
    void run(const Call& call) const override {
        dispatch_arith(call.in[0].dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            const T start = *call.in[0].in<T>(), delta = *call.in[2].in<T>();
            T* y = call.out[0].out<T>();
            call.workers.ranges(call.out[0].count(), movement::tile_elements, [&](std::int64_t b, std::int64_t e) {
                for (std::int64_t i = b; i < e; ++i) {
                    if constexpr (std::is_integral_v<T>)
                        y[i] = static_cast<T>(static_cast<std::uint64_t>(start) + static_cast<std::uint64_t>(i) * static_cast<std::uint64_t>(delta));
                    else y[i] = start + static_cast<T>(i) * delta;
                }
            });
        });
    }
};

/// All elements are `value`'s first; undefined: zeros.
class Fill final : public Kernel {
public:
    explicit Fill(Tensor value) : value_(std::move(value)) {}
    const char* name() const noexcept override { return "fill.portable"; }
    void run(const Call& call) const override {
        const View& y = call.out[0];
        dispatch_size(y.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            T v{};
            if (value_.defined()) v = *static_cast<const T*>(value_.raw());
            T* d = y.out<T>();
            call.workers.ranges(y.count(), movement::tile_elements, [&](std::int64_t b, std::int64_t e) { std::fill(d + b, d + e, v); });
        });
    }

private:
    Tensor value_;
};

/// Zeros with `one` (a scalar of the output's type) on the diagonal `k` of a matrix.
class Eye final : public Kernel {
public:
    Eye(Tensor one, std::int64_t k) : one_(std::move(one)), k_(k) {}
    const char* name() const noexcept override { return "eye.portable"; }
    void run(const Call& call) const override {
        const View& y = call.out[0];
        std::int64_t rows = y.dims[0], cols = y.dims[1];
        dispatch_size(y.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            T one = *static_cast<const T*>(one_.raw());
            T* d = y.out<T>();
            std::fill(d, d + rows * cols, T{});
            if (k_ >= cols || k_ <= -rows) return;
            for (std::int64_t r = std::max<std::int64_t>(0, -k_); r < rows && r + k_ < cols; ++r) d[r * cols + r + k_] = one;
        });
    }

private:
    Tensor one_;
    std::int64_t k_;
};

}  // namespace generate
QUERN_END
