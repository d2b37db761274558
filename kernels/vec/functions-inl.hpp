// The choice among the tables of functions and reductions that are built in.
#pragma once
#include <quern/kernels/vec/functions.hpp>
#include <quern/kernels/vec/reductions.hpp>
#if defined(QUERN_HEADER_ONLY)
#include <quern/kernels/vec/function_loops.hpp>
#endif

QUERN_BEGIN
namespace vec {

#if defined(QUERN_HEADER_ONLY)
namespace QUERN_VEC_NS {
inline constexpr FunctionTable the_function_table = make_function_table();
inline constexpr ReduceTable the_reduce_table = make_reduce_table();
}
inline const FunctionTable& function_table(Isa) noexcept { return QUERN_VEC_NS::the_function_table; }
inline const ReduceTable& reduce_table(Isa) noexcept { return QUERN_VEC_NS::the_reduce_table; }
#else
extern const FunctionTable function_table_baseline;
extern const ReduceTable reduce_table_baseline;
#if defined(QUERN_X86_UNITS)
extern const FunctionTable function_table_avx2, function_table_avx512;
extern const ReduceTable reduce_table_avx2, reduce_table_avx512;
#endif
const FunctionTable& function_table(Isa cap) noexcept {
#if defined(QUERN_X86_UNITS)
    const Isa isa = table(cap).isa;
    if (isa == Isa::avx512) return function_table_avx512;
    if (isa == Isa::avx2) return function_table_avx2;
#endif
    (void)cap;
    return function_table_baseline;
}
const ReduceTable& reduce_table(Isa cap) noexcept {
#if defined(QUERN_X86_UNITS)
    const Isa isa = table(cap).isa;
    if (isa == Isa::avx512) return reduce_table_avx512;
    if (isa == Isa::avx2) return reduce_table_avx2;
#endif
    (void)cap;
    return reduce_table_baseline;
}
#endif

}  // namespace vec
QUERN_END
