#pragma once
#include "cpu_info.hpp"

QUERN_BEGIN

QUERN_INLINE const char* isa_name(Isa isa) noexcept {
    switch (isa) {
        case Isa::avx512: return "avx512";
        case Isa::avx2: return "avx2";
        default: return "baseline";
    }
}
QUERN_INLINE Isa machine_isa() noexcept {
#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
    __builtin_cpu_init();
    bool two = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (two && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        return Isa::avx512;
    if (two) return Isa::avx2;
#endif
    return Isa::baseline;
}
QUERN_INLINE Isa best_isa() noexcept {
#if defined(QUERN_HEADER_ONLY) || !defined(QUERN_X86_UNITS)
    return compiled_isa;
#else
    return machine_isa();
#endif
}

QUERN_END
