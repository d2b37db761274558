#include <quern/kernels/vec/function_loops.hpp>

QUERN_BEGIN
namespace vec {
extern const FunctionTable function_table_avx512;
extern const ReduceTable reduce_table_avx512;
constexpr FunctionTable function_table_avx512 = QUERN_VEC_NS::make_function_table();
constexpr ReduceTable reduce_table_avx512 = QUERN_VEC_NS::make_reduce_table();
}  // namespace vec
QUERN_END
