#pragma once
#include "cpu_info.hpp"
#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#include <cpuid.h>
#endif

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
QUERN_INLINE bool machine_vnni(Isa isa) noexcept {
#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
    if (isa == Isa::baseline || machine_isa() < isa) return false;
    unsigned a = 0, b = 0, c = 0, d = 0, leaf = isa == Isa::avx512 ? 0 : 1;
    if (!__get_cpuid_count(7, leaf, &a, &b, &c, &d)) return false;
    return isa == Isa::avx512 ? (c >> 11 & 1) != 0 : (a >> 4 & 1) != 0;
#else
    return (void)isa, false;
#endif
}
QUERN_INLINE Isa best_isa() noexcept {
#if defined(QUERN_HEADER_ONLY) || !defined(QUERN_X86_UNITS)
    return compiled_isa;
#else
    return machine_isa();
#endif
}

QUERN_END
