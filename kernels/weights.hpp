// Constant weights as they lie in the model's bytes, unaligned perhaps: for kernels that pack them.
#pragma once
#include <cstddef>

#include <quern/kernels/packs.hpp>

QUERN_BEGIN

/// `t` aligned to its elements, for kernels that do not pack it byte by byte.
inline Tensor aligned_weights(const Target& target, const Tensor& t) {
    if (!t.defined()) return t;
    return target.packs ? target.packs->aligned(t) : t.aligned();
}

/// Tells Packs::consumed of weights that are read from the beginning on, 1 MB at a time.
class Consumption {
public:
    Consumption(Packs* packs, const Tensor& weights) : packs_(packs), from_(static_cast<const std::byte*>(weights.raw())), size_(weights.bytes()) {}
    /// The first `bytes` were read.
    void until(std::size_t bytes) noexcept {
        constexpr std::size_t step = std::size_t{1} << 20;
        if (!packs_ || bytes == last_ || (bytes < size_ && bytes - last_ < step)) return;
        packs_->consumed(from_ + last_, bytes - last_);
        last_ = bytes;
    }

private:
    Packs* packs_;
    const std::byte* from_;
    std::size_t size_, last_ = 0;
};

QUERN_END
