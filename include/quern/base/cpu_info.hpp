// What the machine can do, and what this unit was compiled for.
#pragma once
#include "../options.hpp"

QUERN_BEGIN

/// The instruction set that the compiler may use in this unit without asking.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__FMA__)
inline constexpr Isa compiled_isa = Isa::avx512;
#elif defined(__AVX2__) && defined(__FMA__)
inline constexpr Isa compiled_isa = Isa::avx2;
#else
inline constexpr Isa compiled_isa = Isa::baseline;
#endif

/// The best instruction set of the machine, as far as the operating system keeps its registers.
QUERN_API Isa machine_isa() noexcept;
/// Whether the machine multiplies bytes and adds four products at once in vectors of `isa` (AVX512-VNNI, AVX-VNNI).
QUERN_API bool machine_vnni(Isa isa) noexcept;

QUERN_END
#if defined(QUERN_HEADER_ONLY)
#include "cpu_info-inl.hpp"
#endif
