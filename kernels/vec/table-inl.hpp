// The choice among the tables that are built in.
#pragma once
#include <quern/base/cpu_info.hpp>
#include <quern/kernels/vec/images.hpp>
#include <quern/kernels/vec/vec.hpp>
#if defined(QUERN_HEADER_ONLY)
#include <quern/kernels/vec/loops.hpp>
#endif

QUERN_BEGIN
namespace vec {

#if defined(QUERN_HEADER_ONLY)
namespace QUERN_VEC_NS {
inline constexpr Table the_table = make_table(compiled_isa, QUERN_VEC_BYTES == 64 ? "avx512" : QUERN_VEC_BYTES == 32 ? "avx2" : "baseline");
inline constexpr ImageTable the_image_table = make_image_table();
}
/// Header-only: the one table of the caller's compiler flags.
inline const Table& table(Isa) noexcept { return QUERN_VEC_NS::the_table; }
inline const ImageTable& image_table(Isa) noexcept { return QUERN_VEC_NS::the_image_table; }
#else
extern const Table table_baseline;
extern const ImageTable image_table_baseline;
#if defined(QUERN_X86_UNITS)
extern const Table table_avx2, table_avx512;
extern const ImageTable image_table_avx2, image_table_avx512;
#endif
const Table& table(Isa cap) noexcept {
#if defined(QUERN_X86_UNITS)
    Isa best = best_isa() < cap ? best_isa() : cap;
    if (best >= Isa::avx512) return table_avx512;
    if (best >= Isa::avx2) return table_avx2;
#endif
    (void)cap;
    return table_baseline;
}
const ImageTable& image_table(Isa cap) noexcept {
#if defined(QUERN_X86_UNITS)
    if (table(cap).isa == Isa::avx512) return image_table_avx512;
    if (table(cap).isa == Isa::avx2) return image_table_avx2;
#endif
    (void)cap;
    return image_table_baseline;
}
#endif

}  // namespace vec
QUERN_END
