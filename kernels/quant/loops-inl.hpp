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
/// Asked once: a virtual machine answers what the processor can do slowly.
struct Chosen {
    const Loops* of[3];
};
inline Chosen chosen_loops() noexcept {
    Chosen c{{&loops_baseline, &loops_baseline, &loops_baseline}};
#if defined(QUERN_X86_UNITS)
    if (machine_isa() >= Isa::avx2) c.of[1] = c.of[2] = machine_vnni(Isa::avx2) ? &loops_avx2_vnni : &loops_avx2;
    if (machine_isa() >= Isa::avx512) c.of[2] = machine_vnni(Isa::avx512) ? &loops_avx512_vnni : &loops_avx512;
#endif
    return c;
}
const Loops& loops(Isa cap) noexcept {
    static const Chosen chosen = chosen_loops();
    return *chosen.of[cap >= Isa::avx512 ? 2 : cap >= Isa::avx2 ? 1 : 0];
}
#endif

}  // namespace quant
QUERN_END
