// Kernels that passes make only to see whether they would be made, and what they ask for.
#pragma once
#include <quern/kernels/packs.hpp>

QUERN_BEGIN
namespace passes_detail {

/// Packs nothing and copies no weights: such a kernel does not run.
class TrialPacks final : public Packs {
public:
    Tensor get(std::string_view, std::span<const Tensor>, std::size_t bytes, const Fill&, bool) override { return Tensor::uninitialized(DType::u8, Shape{static_cast<std::int64_t>(bytes)}); }
    Tensor aligned(const Tensor& t) override {
        constexpr std::size_t parameters = 8192;  // larger constants are weights, whose contents only Fill looks at
        return t.dtype() == DType::string || t.bytes() > parameters ? t : t.aligned();
    }
    void consumed(const void*, std::size_t) noexcept override {}
};

/// A target for kernels that are only asked whether they would be made: packs nothing, and nobody reads the reasons.
struct TrialTarget {
    explicit TrialTarget(const Target& of) : target(of) {
        target.packs = &packs;
        target.refusals = target.accepted = nullptr;
    }
    TrialTarget(const TrialTarget&) = delete;
    TrialPacks packs;
    Target target;
};

}  // namespace passes_detail
QUERN_END
