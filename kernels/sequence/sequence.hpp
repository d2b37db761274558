// Sequences and optionals: https://onnx.ai/onnx/operators/ (SequenceAt, SplitToSequence, OptionalGetElement, ...).
// Tensors go into a Value as copies that own their memory and come out of it by reference.
#pragma once
#include <algorithm>
#include <cstring>

#include <quern/kernels/kernel.hpp>
#include <quern/value.hpp>

QUERN_BEGIN
namespace seq {

/// A copy that owns its memory; of another kind than tensor, the shared Value.
inline Value value_of(const View& v) {
    if (v.kind != Kind::tensor) return *v.in<Value>();
    Tensor t = Tensor::uninitialized(v.dtype, Shape(v.shape()));
    if (v.dtype == DType::string) std::copy_n(v.in<std::string>(), v.count(), t.strings().begin());
    else if (t.bytes()) std::memcpy(t.raw(), v.data, t.bytes());
    return t;
}

/// The one integer of an i32 or i64 tensor.
inline std::int64_t integer(const View& v, const char* what) {
    if (v.count() != 1) raise(ErrorCode::shape_mismatch, std::string(what) + " has " + std::to_string(v.count()) + " elements; accepted: 1");
    return v.dtype == DType::i32 ? *v.in<std::int32_t>() : *v.in<std::int64_t>();
}
/// Position in a sequence of n, counted from its end where negative; n itself only where `end`.
inline std::size_t position(const View& v, std::size_t n, bool end) {
    std::int64_t i = integer(v, "the position"), m = static_cast<std::int64_t>(n), most = end ? m : m - 1;
    if (i < -m || i > most)
        raise(ErrorCode::invalid_argument, "position " + std::to_string(i) + " in a sequence of " + std::to_string(n) + "; accepted: " + std::to_string(-m) + " to " + std::to_string(most));
    return static_cast<std::size_t>(i < 0 ? i + m : i);
}
inline bool given(const Call& c, std::size_t i) { return c.in.size() > i && c.in[i].present(); }
inline const Value& input(const Call& c) { return *c.in[0].in<Value>(); }
inline Value& output(const Call& c) { return *c.out[0].out<Value>(); }

class Construct final : public Kernel {
public:
    const char* name() const noexcept override { return "sequence.construct"; }
    void run(const Call& c) const override {
        std::vector<Value> list;
        list.reserve(c.in.size());
        for (auto& v : c.in) list.push_back(value_of(v));
        output(c) = Value::sequence(std::move(list));
    }
};

class Insert final : public Kernel {
public:
    Insert() { inplace = 1; }
    const char* name() const noexcept override { return "sequence.insert"; }
    void run(const Call& c) const override {
        const std::size_t n = input(c).size(), at = given(c, 2) ? position(c.in[2], n, true) : n;
        if (&output(c) != &input(c)) output(c) = input(c);
        output(c).insert(at, value_of(c.in[1]));
    }
};

class Erase final : public Kernel {
public:
    Erase() { inplace = 1; }
    const char* name() const noexcept override { return "sequence.erase"; }
    void run(const Call& c) const override {
        const std::size_t n = input(c).size();
        if (n == 0) raise(ErrorCode::invalid_argument, "an empty sequence has nothing to erase");
        const std::size_t at = given(c, 1) ? position(c.in[1], n, false) : n - 1;
        if (&output(c) != &input(c)) output(c) = input(c);
        output(c).erase(at);
    }
};

class Length final : public Kernel {
public:
    const char* name() const noexcept override { return "sequence.length"; }
    void run(const Call& c) const override { *c.out[0].out<std::int64_t>() = static_cast<std::int64_t>(input(c).size()); }
};

/// An element that is a tensor.
class At final : public Kernel {
public:
    At() { refers = true; }
    const char* name() const noexcept override { return "sequence.at"; }
    void run(const Call&) const override {}
    const Tensor* refer(const Call& c) const override { return &input(c)[position(c.in[1], input(c).size(), false)].tensor(); }
};
/// An element of another kind.
class AtValue final : public Kernel {
public:
    const char* name() const noexcept override { return "sequence.at"; }
    void run(const Call& c) const override { output(c) = input(c)[position(c.in[1], input(c).size(), false)]; }
};

/// All parts stand in one piece of memory, one after the other.
class Split final : public Kernel {
public:
    /// Each takes a hundred times the memory of a number.
    static constexpr std::int64_t most_parts = 1 << 20;
    Split(std::int64_t axis, bool keep) : axis_(axis), keep_(keep) {}
    const char* name() const noexcept override { return "sequence.split"; }
    void run(const Call& c) const override {
        const View& x = c.in[0];
        const std::int64_t a = axis_ < 0 ? axis_ + x.rank : axis_;
        if (a < 0 || a >= x.rank) raise(ErrorCode::invalid_model, "axis " + std::to_string(axis_) + " is outside of rank " + std::to_string(x.rank));
        const int axis = static_cast<int>(a);
        const bool text = x.dtype == DType::string;
        if (!text && dtype_bits(x.dtype) < 8) raise(ErrorCode::unsupported, std::string("SplitToSequence of ") + dtype_name(x.dtype));
        const std::int64_t n = x.dims[axis];
        const bool by_size = given(c, 1) && c.in[1].rank > 0;
        const std::int64_t size = by_size ? 0 : given(c, 1) ? integer(c.in[1], "split") : 1;
        if (!by_size && size < 1) raise(ErrorCode::invalid_argument, "split is " + std::to_string(size) + "; accepted: 1 and more");
        const std::int64_t parts = by_size ? c.in[1].count() : n / size + (n % size != 0);
        if (parts > most_parts) raise(ErrorCode::out_of_memory, "a sequence of " + std::to_string(parts) + " tensors; accepted: up to " + std::to_string(most_parts));
        const std::size_t element = text ? sizeof(std::string) : static_cast<std::size_t>(dtype_bits(x.dtype)) / 8;
        const std::int64_t outer = x.count(0, axis), inner = x.count(axis + 1, x.rank);
        auto all = std::make_shared<const Tensor>(Tensor::uninitialized(x.dtype, {x.count()}));
        auto* to = static_cast<std::byte*>(const_cast<void*>(all->raw()));
        std::vector<Value> list;
        list.reserve(static_cast<std::size_t>(parts));
        std::int64_t at = 0;
        for (std::int64_t p = 0; p < parts; ++p) {
            std::int64_t take = !by_size ? std::min(size, n - at) : c.in[1].dtype == DType::i32 ? c.in[1].in<std::int32_t>()[p] : c.in[1].in<std::int64_t>()[p];
            if (take < 0 || take > n - at) raise(ErrorCode::invalid_argument, "the sizes in split exceed the axis, which has " + std::to_string(n));
            Shape shape(x.shape());
            shape[a] = take;
            if (!keep_ && !given(c, 1)) {
                shape = Shape();
                for (int d = 0; d < x.rank; ++d)
                    if (d != axis) shape.push_back(x.dims[d]);
            }
            list.push_back(Tensor::share(x.dtype, std::move(shape), to, all));
            for (std::int64_t o = 0; o < outer; ++o) {
                const std::int64_t from = (o * n + at) * inner, count = take * inner;
                if (text) std::copy_n(x.in<std::string>() + from, count, reinterpret_cast<std::string*>(to));
                else if (count) std::memcpy(to, x.in<std::byte>() + static_cast<std::size_t>(from) * element, static_cast<std::size_t>(count) * element);
                to += static_cast<std::size_t>(count) * element;
            }
            at += take;
        }
        if (by_size && at != n) raise(ErrorCode::invalid_argument, "the sizes in split are " + std::to_string(at) + " together; accepted: " + std::to_string(n) + ", the size of the axis");
        output(c) = Value::sequence(std::move(list));
    }

private:
    std::int64_t axis_;
    bool keep_;
};

class Concat final : public Kernel {
public:
    Concat(std::int64_t axis, bool stack) : axis_(axis), stack_(stack) {}
    const char* name() const noexcept override { return "sequence.concat"; }
    bool measure(const Call& c, std::vector<std::int64_t>* dims) const override {
        const auto items = input(c).items();
        if (items.empty()) raise(ErrorCode::invalid_argument, "ConcatFromSequence of an empty sequence; accepted: one tensor and more");
        const Shape& first = items[0].tensor().shape();
        const int axis = axis_of(first);
        dims[0].assign(first.begin(), first.end());
        if (stack_) dims[0].insert(dims[0].begin() + axis, static_cast<std::int64_t>(items.size()));
        else dims[0][static_cast<std::size_t>(axis)] = 0;
        for (auto& i : items) {
            const Shape& s = i.tensor().shape();
            bool fits = s.rank() == first.rank();
            for (std::size_t d = 0; fits && d < s.rank(); ++d) fits = s[d] == first[d] || (!stack_ && static_cast<int>(d) == axis);
            if (!fits) raise(ErrorCode::shape_mismatch, "the tensors to join are " + first.to_string() + " and " + s.to_string());
            if (!stack_ && __builtin_add_overflow(dims[0][static_cast<std::size_t>(axis)], s[static_cast<std::size_t>(axis)], &dims[0][static_cast<std::size_t>(axis)]))
                raise(ErrorCode::out_of_memory, "the joined tensor does not fit into memory");
        }
        return true;
    }
    void run(const Call& c) const override {
        const View& y = c.out[0];
        const auto items = input(c).items();
        const int axis = axis_of(items[0].tensor().shape());
        const bool text = y.dtype == DType::string;
        if (!text && dtype_bits(y.dtype) < 8) raise(ErrorCode::unsupported, std::string("ConcatFromSequence of ") + dtype_name(y.dtype));
        const std::size_t element = text ? sizeof(std::string) : static_cast<std::size_t>(dtype_bits(y.dtype)) / 8;
        const std::int64_t outer = y.count(0, axis), row = y.count(axis, y.rank);
        std::int64_t at = 0;
        for (auto& i : items) {
            const Tensor& t = i.tensor();
            if (t.dtype() != y.dtype) raise(ErrorCode::invalid_argument, std::string("a tensor to join is ") + dtype_name(t.dtype()) + "; accepted: " + dtype_name(y.dtype));
            const std::int64_t block = outer ? t.count() / outer : 0;
            for (std::int64_t o = 0; o < outer; ++o) {
                if (text) std::copy_n(t.strings().begin() + o * block, block, y.out<std::string>() + o * row + at);
                else if (block)
                    std::memcpy(y.out<std::byte>() + static_cast<std::size_t>(o * row + at) * element, static_cast<const std::byte*>(t.raw()) + static_cast<std::size_t>(o * block) * element, static_cast<std::size_t>(block) * element);
            }
            at += block;
        }
    }

private:
    int axis_of(const Shape& s) const {
        const auto rank = static_cast<std::int64_t>(s.rank()) + stack_;
        if (axis_ < -rank || axis_ >= rank) raise(ErrorCode::invalid_model, "axis " + std::to_string(axis_) + " is outside of rank " + std::to_string(rank));
        return static_cast<int>(axis_ < 0 ? axis_ + rank : axis_);
    }
    std::int64_t axis_;
    bool stack_;
};

/// Output = the input as a Value; nothing where there is no input.
class Wrap final : public Kernel {
public:
    const char* name() const noexcept override { return "optional.wrap"; }
    void run(const Call& c) const override { output(c) = given(c, 0) ? value_of(c.in[0]) : Value(); }
};
class HasElement final : public Kernel {
public:
    const char* name() const noexcept override { return "optional.has_element"; }
    void run(const Call& c) const override { *c.out[0].out<std::uint8_t>() = input(c).has_value(); }
};
inline const Value& content(const Call& c) {
    if (!input(c).has_value()) raise(ErrorCode::invalid_argument, "the optional has no value");
    return input(c);
}
class GetTensor final : public Kernel {
public:
    GetTensor() { refers = true; }
    const char* name() const noexcept override { return "optional.get_element"; }
    void run(const Call&) const override {}
    const Tensor* refer(const Call& c) const override { return &content(c).tensor(); }
};
class GetValue final : public Kernel {
public:
    const char* name() const noexcept override { return "optional.get_element"; }
    void run(const Call& c) const override { output(c) = content(c); }
};

}  // namespace seq
QUERN_END
