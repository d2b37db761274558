#pragma once
#include "../value.hpp"

QUERN_BEGIN

QUERN_INLINE Value::Value(Tensor t) : kind_(t.defined() ? Kind::tensor : Kind::optional), tensor_(std::move(t)) {}
QUERN_INLINE Value Value::sequence(std::vector<Value> items) {
    Value v;
    v.kind_ = Kind::sequence;
    v.items_ = std::make_shared<Items>();
    for (auto& i : items) v.items_->bytes += i.bytes();
    v.items_->list = std::move(items);
    return v;
}
QUERN_INLINE Value Value::map(std::shared_ptr<const Tensor> keys, Tensor values) {
    if (!keys || !keys->defined() || keys->shape().rank() != 1 || values.shape().rank() != 1 || keys->count() != values.count())
        raise(ErrorCode::invalid_argument, "a map takes keys and values of rank 1 and one length, not " + (keys ? keys->shape().to_string() : std::string("none")) + " and " + values.shape().to_string());
    if (keys->dtype() != DType::string && !is_integer(keys->dtype()))
        raise(ErrorCode::invalid_argument, std::string("keys of a map are ") + dtype_name(keys->dtype()) + "; accepted: integers, strings");
    Value v;
    v.kind_ = Kind::map;
    v.tensor_ = std::move(values);
    v.keys_ = std::move(keys);
    return v;
}
QUERN_INLINE void Value::need(Kind k, const char* what) const {
    if (kind_ != k) raise(ErrorCode::invalid_argument, "the value is " + to_string() + "; accepted here: " + what);
}
QUERN_INLINE Value::Items& Value::own() {
    need(Kind::sequence, "a sequence");
    if (items_.use_count() != 1) items_ = std::make_shared<Items>(*items_);
    return *items_;
}
QUERN_INLINE const Tensor& Value::tensor() const { return need(Kind::tensor, "a tensor"), tensor_; }
QUERN_INLINE std::span<const Value> Value::items() const { return need(Kind::sequence, "a sequence"), std::span<const Value>(items_->list); }
QUERN_INLINE const Tensor& Value::keys() const { return need(Kind::map, "a map"), *keys_; }
QUERN_INLINE const Tensor& Value::values() const { return need(Kind::map, "a map"), tensor_; }
QUERN_INLINE std::size_t Value::size() const { return kind_ == Kind::map ? static_cast<std::size_t>(tensor_.count()) : items().size(); }
QUERN_INLINE const Value& Value::operator[](std::size_t i) const {
    auto list = items();
    if (i >= list.size()) raise(ErrorCode::invalid_argument, "item " + std::to_string(i) + " of a sequence of " + std::to_string(list.size()));
    return list[i];
}
QUERN_INLINE void Value::insert(std::size_t at, Value v) {
    Items& s = own();
    if (at > s.list.size()) raise(ErrorCode::invalid_argument, "position " + std::to_string(at) + " in a sequence of " + std::to_string(s.list.size()));
    std::size_t n = v.bytes();
    s.list.insert(s.list.begin() + static_cast<std::ptrdiff_t>(at), std::move(v));
    s.bytes += n;
}
QUERN_INLINE void Value::erase(std::size_t at) {
    Items& s = own();
    if (at >= s.list.size()) raise(ErrorCode::invalid_argument, "position " + std::to_string(at) + " in a sequence of " + std::to_string(s.list.size()));
    s.bytes -= s.list[at].bytes();
    s.list.erase(s.list.begin() + static_cast<std::ptrdiff_t>(at));
}
QUERN_INLINE void Value::reserve(std::size_t n) { own().list.reserve(n); }
QUERN_INLINE std::size_t Value::bytes() const noexcept {
    return sizeof(Value) + (kind_ == Kind::sequence ? items_->bytes : tensor_.defined() ? tensor_.bytes() : 0);
}
QUERN_INLINE Value Value::clone() const {
    if (kind_ == Kind::tensor) return Value(tensor_.clone());
    if (kind_ == Kind::map) return map(std::make_shared<const Tensor>(keys_->clone()), tensor_.clone());
    if (kind_ == Kind::optional) return {};
    std::vector<Value> list;
    list.reserve(items_->list.size());
    for (auto& i : items_->list) list.push_back(i.clone());
    return sequence(std::move(list));
}
namespace detail {
QUERN_INLINE bool all_owned(const Value& v) {
    if (v.kind() == Kind::tensor) return v.tensor().owned();
    if (v.kind() == Kind::map) return v.keys().owned() && v.values().owned();
    if (v.kind() == Kind::optional) return true;
    for (auto& i : v.items())
        if (!all_owned(i)) return false;
    return true;
}
}  // namespace detail
QUERN_INLINE Value Value::owned() const { return detail::all_owned(*this) ? *this : clone(); }
QUERN_INLINE std::string Value::to_string() const {
    if (kind_ == Kind::tensor) return dtype_name(tensor_.dtype()) + tensor_.shape().to_string();
    if (kind_ == Kind::optional) return "nothing";
    return (kind_ == Kind::map ? "map of " : "sequence of ") + std::to_string(size());
}

QUERN_END
