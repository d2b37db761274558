// What a model's input or output may be besides a tensor: a sequence, an optional, a map.
#pragma once
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tensor.hpp"

QUERN_BEGIN

/// A tensor, a sequence of values, a map from keys to scalars, or nothing. An optional that has a value is that
/// value; one that has none is nothing. Cheap to copy: tensors and lists are shared until one copy is changed
/// (then the list is copied, its elements are not).
class QUERN_API Value {
public:
    Value() noexcept = default;  ///< nothing
    Value(Tensor t);
    static Value sequence(std::vector<Value> items = {});
    /// `keys` and `values` have rank 1 and one length; keys are integers or strings. Many maps may share their keys.
    static Value map(std::shared_ptr<const Tensor> keys, Tensor values);

    /// Kind::optional where there is nothing.
    Kind kind() const noexcept { return kind_; }
    bool has_value() const noexcept { return kind_ != Kind::optional; }

    // Each of these raises invalid_argument where the value is of another kind.
    const Tensor& tensor() const;
    std::span<const Value> items() const;  ///< of a sequence
    std::size_t size() const;              ///< items of a sequence, entries of a map
    const Value& operator[](std::size_t i) const;
    const Tensor& keys() const;            ///< of a map
    const Tensor& values() const;
    /// Changes a sequence; `at` <= size().
    void insert(std::size_t at, Value v);
    void push_back(Value v) { insert(size(), std::move(v)); }
    void erase(std::size_t at);
    void reserve(std::size_t n);

    /// Bytes of all elements and of the lists; what several items share counts for each.
    std::size_t bytes() const noexcept;
    /// A deep copy that owns all its memory.
    Value clone() const;
    /// *this where all tensors own their memory, else a copy that does.
    Value owned() const;
    /// "sequence of 3", "float[2, 3]", "map of 10", "nothing"
    std::string to_string() const;

private:
    struct Items {
        std::vector<Value> list;
        std::size_t bytes = 0;
    };
    void need(Kind k, const char* what) const;
    Items& own();  // this sequence's list, shared with nobody
    Kind kind_ = Kind::optional;
    Tensor tensor_;  // of a map: its values
    std::shared_ptr<const Tensor> keys_;
    std::shared_ptr<Items> items_;
};

using NamedValue = std::pair<std::string, Value>;

QUERN_END
#if defined(QUERN_HEADER_ONLY)
#include "tensor/value-inl.hpp"
#endif
