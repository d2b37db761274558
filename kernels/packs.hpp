// Weights in the layouts of kernels: where they live, and who shares them.
#pragma once
#include <functional>
#include <initializer_list>
#include <span>
#include <string_view>

#include <quern/kernels/kernel.hpp>
#include <quern/tensor.hpp>

QUERN_BEGIN

/// Memory of packed weights while kernels are made. One object serves one node and is used by one thread.
class Packs {
public:
    using Fill = std::function<void(std::byte*)>;
    /// See packed_weights().
    virtual Tensor get(std::string_view layout, std::span<const Tensor> sources, std::size_t bytes, const Fill& fill, bool in_step) = 0;
    /// `t` where it is aligned to its elements, else a copy that is known to be of `t`.
    virtual Tensor aligned(const Tensor& t) = 0;
    /// These bytes of a constant were packed and will hardly be read again: a mapped file's pages may go.
    virtual void consumed(const void* from, std::size_t bytes) noexcept = 0;

protected:
    ~Packs() = default;
};

/// `bytes` of memory, 64-byte aligned, holding what `fill` writes to them (it finds them undefined and writes all), or the same bytes made
/// before, by another kernel or engine or found in an engine file: then `fill` is not called, so it has no other effect, and the contents of
/// `sources` must not be looked at outside of it. `layout` names all that decides the bytes beside the sources' contents and dims:
/// kernel, instruction set, parameters. A kernel makes its calls in the same order each time. `in_step`: `fill` writes from the beginning on, no
/// further than it has reported what it read (Packs::consumed) and 4 MB; else all of the memory is there before it begins.
inline Tensor packed_weights(const Target& t, std::string_view layout, std::initializer_list<Tensor> sources, std::size_t bytes, const Packs::Fill& fill,
                             bool in_step = false) {
    if (t.packs) return t.packs->get(layout, std::span<const Tensor>(sources.begin(), sources.size()), bytes, fill, in_step);
    Tensor r = Tensor::uninitialized(DType::u8, Shape{static_cast<std::int64_t>(bytes)});
    fill(static_cast<std::byte*>(r.raw()));
    return r;
}

QUERN_END
