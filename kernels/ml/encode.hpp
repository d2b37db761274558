// Labels and categories: look-up tables, one-hot rows, normalization of rows.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "../kernel.hpp"
#include <quern/tensor.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace ml {

/// The place of an element in a list of keys of its type; NaN equals NaN, -0 equals 0. Of equal keys the first counts.
class Keys {
public:
    /// `keys`: strings, integers or floats of 16 bits and more, one dimension, aligned.
    explicit Keys(const Tensor& keys) : type_(keys.dtype()) {
        const auto n = static_cast<std::size_t>(keys.count());
        if (type_ == DType::string) {
            for (std::size_t i = 0; i < n; ++i) words_.try_emplace(keys.strings()[i], static_cast<std::int64_t>(i));
            return;
        }
        dispatch_plain(type_, [&](auto tag) {
            using T = typename decltype(tag)::type;
            for (std::size_t i = 0; i < n; ++i) numbers_.try_emplace(bits(keys.data<T>()[i]), static_cast<std::int64_t>(i));
        });
    }
    DType type() const noexcept { return type_; }
    std::int64_t count() const noexcept { return static_cast<std::int64_t>(type_ == DType::string ? words_.size() : numbers_.size()); }
    /// f(i, place) for elements [from, to) of x; -1: no such key.
    template <class F>
    void find(const View& x, std::int64_t from, std::int64_t to, F&& f) const {
        if (type_ == DType::string) {
            for (std::int64_t i = from; i < to; ++i) {
                auto it = words_.find(x.in<std::string>()[i]);
                f(i, it == words_.end() ? -1 : it->second);
            }
            return;
        }
        dispatch_plain(x.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            for (std::int64_t i = from; i < to; ++i) {
                auto it = numbers_.find(type_ == DType::i64 ? integer(x.in<T>()[i]) : bits(x.in<T>()[i]));
                f(i, it == numbers_.end() ? -1 : it->second);
            }
        });
    }

private:
    template <class T> static std::uint64_t bits(T v) {
        if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) return bits(to_float(v));
        else if constexpr (std::is_floating_point_v<T>) {
            if (v != v) return 0x7ff8000000000001u;
            return std::bit_cast<std::uint64_t>(v == 0 ? 0.0 : static_cast<double>(v));
        } else {
            return static_cast<std::uint64_t>(v);
        }
    }
    /// Among integer keys a fraction, or a number beyond 64 bits, is none: it gets a key that no list of int64 from a file needs.
    template <class T> static std::uint64_t integer(T v) {
        if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) return integer(to_float(v));
        else if constexpr (std::is_floating_point_v<T>) {
            const bool whole = v >= static_cast<T>(-9.2233720368547758e18) && v < static_cast<T>(9.2233720368547758e18) && v == std::trunc(v);
            return whole ? static_cast<std::uint64_t>(static_cast<std::int64_t>(v)) : std::uint64_t{1} << 63;
        } else {
            return static_cast<std::uint64_t>(v);
        }
    }
    DType type_;
    std::unordered_map<std::string, std::int64_t> words_;
    std::unordered_map<std::uint64_t, std::int64_t> numbers_;
};

/// y[i] = values[place of x[i]], or the default (the last value). Values have one element more than keys.
class Lookup final : public Kernel {
public:
    Lookup(Keys keys, Tensor values) : keys_(std::move(keys)), values_(std::move(values)) {}
    const char* name() const noexcept override { return "label_encoder.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        const std::int64_t other = values_.count() - 1;
        dispatch_size(values_.dtype(), [&](auto tag) {
            using T = typename decltype(tag)::type;
            const T* v = static_cast<const T*>(values_.raw());
            call.workers.ranges(x.count(), 4096, [&](std::int64_t b, std::int64_t e) {
                keys_.find(x, b, e, [&](std::int64_t i, std::int64_t at) { y.out<T>()[i] = v[at < 0 ? other : at]; });
            });
        });
    }

private:
    Keys keys_;
    Tensor values_;
};

/// x[...] -> [..., n]: 1 where the key is, else 0. Elements that are no key: zeros, or invalid_argument where `strict`.
class OneHotCategories final : public Kernel {
public:
    OneHotCategories(Keys keys, std::int64_t n, bool strict) : keys_(std::move(keys)), n_(n), strict_(strict) {}
    const char* name() const noexcept override { return "one_hot_encoder.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        call.workers.ranges(x.count(), std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(n_, 1)), [&](std::int64_t b, std::int64_t e) {
            std::fill(y.out<float>() + b * n_, y.out<float>() + e * n_, 0.0f);
            keys_.find(x, b, e, [&](std::int64_t i, std::int64_t at) {
                if (at >= 0) y.out<float>()[i * n_ + at] = 1;
                else if (strict_) raise(ErrorCode::invalid_argument, "element " + std::to_string(i) + " is none of the " + std::to_string(n_) + " categories, and 'zeros' is 0");
            });
        });
    }

private:
    Keys keys_;
    std::int64_t n_;
    bool strict_;
};

/// Rows of the last dimension divided by their norm; rows of norm 0 stay. Sums in double.
enum class Norm : std::uint8_t { max, l1, l2 };
class NormalizeRows final : public Kernel {
public:
    explicit NormalizeRows(Norm n) : norm_(n) {}
    const char* name() const noexcept override { return "normalizer.portable"; }
    void run(const Call& call) const override {
        const View &x = call.in[0], &y = call.out[0];
        const std::int64_t width = x.rank ? x.dim(-1) : 1, rows = width ? x.count() / width : 0;
        call.workers.ranges(rows, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(width, 1)), [&](std::int64_t b, std::int64_t e) {
            for (; b < e; ++b) row(x.in<float>() + b * width, y.out<float>() + b * width, width);
        });
    }

private:
    void row(const float* x, float* y, std::int64_t n) const {
        double s = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            const double v = std::abs(static_cast<double>(x[i]));
            if (norm_ == Norm::max) s = std::max(s, v);
            else s += norm_ == Norm::l1 ? v : v * v;
        }
        if (norm_ == Norm::l2) s = std::sqrt(s);
        for (std::int64_t i = 0; i < n; ++i) y[i] = s == 0 ? x[i] : static_cast<float>(static_cast<double>(x[i]) / s);
    }
    Norm norm_;
};

}  // namespace ml
QUERN_END
