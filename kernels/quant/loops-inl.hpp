// Which 8-bit loops a machine gets.
#pragma once
#if defined(QUERN_HEADER_ONLY)
#include <quern/kernels/quant/loops_8.hpp>
#else
#include <quern/kernels/quant/loops.hpp>
#endif
#include <quern/base/cpu_info.hpp>

QUERN_BEGIN
namespace quant {

#if defined(QUERN_HEADER_ONLY)
inline constexpr Loops the_loops = vec::QUERN_VEC_NS::make_loops("caller's");
/// Header-only: the one of the caller's compiler flags.
inline const Loops& loops(Isa) noexcept { return the_loops; }
#else
extern const Loops loops_baseline;
#if defined(QUERN_X86_UNITS)
extern const Loops loops_avx2, loops_avx2_vnni, loops_avx512, loops_avx512_vnni;
#endif
const Loops& loops(Isa cap) noexcept {
#if defined(QUERN_X86_UNITS)
    Isa best = machine_isa() < cap ? machine_isa() : cap;
    if (best >= Isa::avx512) return machine_vnni(Isa::avx512) ? loops_avx512_vnni : loops_avx512;
    if (best >= Isa::avx2) return machine_vnni(Isa::avx2) ? loops_avx2_vnni : loops_avx2;
#endif
    (void)cap;
    return loops_baseline;
}
#endif

}  // namespace quant
QUERN_END
