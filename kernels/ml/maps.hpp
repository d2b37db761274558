// Maps and sequences of maps.
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "encode.hpp"
#include <quern/value.hpp>

QUERN_BEGIN
namespace ml {

/// x[N, C] or [C] -> a sequence of maps from the labels to a row's elements. One copy of the elements, one of the labels for all maps.
class ZipMap final : public Kernel {
public:
    explicit ZipMap(Tensor labels) : labels_(std::make_shared<const Tensor>(std::move(labels))) {}
    const char* name() const noexcept override { return "zip_map.portable"; }
    /// Nothing is written there: so much the list takes, and a limit on memory is to see it.
    Booking book(std::span<const View> in, std::span<const View>, int) const override {
        return {static_cast<std::size_t>(in[0].rank < 2 ? 1 : in[0].dims[0]) * sizeof(Value), nullptr};
    }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        const std::int64_t width = x.dim(-1), rows = x.rank < 2 ? 1 : x.dims[0];
        if (width != labels_->count())
            raise(ErrorCode::shape_mismatch, "rows of " + std::to_string(width) + " elements for " + std::to_string(labels_->count()) + " class labels");
        auto all = std::make_shared<Tensor>(Tensor::uninitialized(DType::f32, {rows, width}));
        std::copy_n(x.in<float>(), rows * width, all->data<float>().data());
        std::vector<Value> list;
        list.reserve(static_cast<std::size_t>(rows));
        for (std::int64_t r = 0; r < rows; ++r) list.push_back(Value::map(labels_, Tensor::share(DType::f32, {width}, all->data<float>().data() + r * width, all)));
        *call.out[0].out<Value>() = Value::sequence(std::move(list));
    }

private:
    std::shared_ptr<const Tensor> labels_;
};

inline const Value& map_of(const View& v) { return *v.in<Value>(); }

/// A map -> [1, n]: the values of the vocabulary's keys, zeros (empty strings) where the map has none. Keys beyond the vocabulary are left out.
class DictVectorizer final : public Kernel {
public:
    explicit DictVectorizer(const Tensor& vocabulary) : places_(vocabulary), n_(vocabulary.count()) {}
    const char* name() const noexcept override { return "dict_vectorizer.portable"; }
    void run(const Call& call) const override {
        const Tensor &keys = map_of(call.in[0]).keys(), &values = map_of(call.in[0]).values();
        if (keys.dtype() != places_.type() || values.dtype() != call.out[0].dtype)
            raise(ErrorCode::invalid_argument, std::string("the map is from ") + dtype_name(keys.dtype()) + " to " + dtype_name(values.dtype()) + "; accepted: from " +
                                                   dtype_name(places_.type()) + " to " + dtype_name(call.out[0].dtype));
        const View k{keys.dtype(), 1, keys.shape().data(), const_cast<void*>(keys.raw())};
        dispatch_size(values.dtype(), [&](auto tag) {
            using T = typename decltype(tag)::type;
            T* y = call.out[0].out<T>();
            std::fill(y, y + n_, T());
            places_.find(k, 0, keys.count(), [&](std::int64_t i, std::int64_t at) {
                if (at >= 0) y[at] = static_cast<const T*>(values.raw())[i];
            });
        });
    }

private:
    Keys places_;
    std::int64_t n_;
};

/// A map from int64 -> [1, n]: its values cast, in the order of the keys; or (sparse) each at the place that its key names, of `size` places.
class CastMap final : public Kernel {
public:
    CastMap(bool sparse, std::int64_t size) : sparse_(sparse), size_(size) {}
    const char* name() const noexcept override { return "cast_map.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        dims[0] = {1, sparse_ ? size_ : map_of(call.in[0]).keys().count()};
        return true;
    }
    void run(const Call& call) const override {
        const Tensor& keys = map_of(call.in[0]).keys();
        if (keys.dtype() != DType::i64) raise(ErrorCode::invalid_argument, std::string("the map's keys are ") + dtype_name(keys.dtype()) + "; accepted: int64");
        auto k = keys.data<std::int64_t>();
        std::vector<std::size_t> order(k.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return k[a] < k[b]; });
        const View& y = call.out[0];
        for (std::int64_t i = 0; sparse_ && i < size_; ++i) put(y, i, 0, nullptr);
        for (std::size_t i = 0; i < order.size(); ++i) {
            const std::int64_t at = sparse_ ? k[order[i]] : static_cast<std::int64_t>(i);
            if (at < 0 || at >= y.count()) raise(ErrorCode::invalid_argument, "the map has key " + std::to_string(at) + "; accepted: 0 to " + std::to_string(y.count() - 1));
            cast(map_of(call.in[0]).values(), order[i], y, at);
        }
    }

private:
    static void put(const View& y, std::int64_t at, double v, const std::string* text) {
        if (y.dtype == DType::f32) y.out<float>()[at] = static_cast<float>(v);
        else if (y.dtype == DType::i64) y.out<std::int64_t>()[at] = v != v || std::abs(v) >= 9.2233720368547758e18 ? 0 : static_cast<std::int64_t>(v);
        else if (text) y.out<std::string>()[at] = *text;
        else y.out<std::string>()[at] = sparse_zero;
    }
    static void cast(const Tensor& values, std::size_t i, const View& y, std::int64_t at) {
        if (values.dtype() == DType::f32) {
            const float v = values.data<float>()[i];
            char text[32];
            auto end = std::to_chars(text, text + sizeof text, v).ptr;
            const std::string s(text, end);
            return put(y, at, static_cast<double>(v), &s);
        }
        const std::string& s = values.strings()[i];
        double v = 0;
        if (y.dtype != DType::string) {
            auto r = std::from_chars(s.data(), s.data() + s.size(), v);
            if (r.ec != std::errc() || r.ptr != s.data() + s.size()) raise(ErrorCode::invalid_argument, "the map holds '" + s + "', which is no number");
        }
        put(y, at, v, &s);
    }
    static constexpr const char* sparse_zero = "0";
    bool sparse_;
    std::int64_t size_;
};

}  // namespace ml
QUERN_END
