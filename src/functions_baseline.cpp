#include <quern/kernels/vec/function_loops.hpp>
#include <quern/kernels/vec/functions-inl.hpp>

QUERN_BEGIN
namespace vec {
extern const FunctionTable function_table_baseline;
extern const ReduceTable reduce_table_baseline;
constexpr FunctionTable function_table_baseline = QUERN_VEC_NS::make_function_table();
constexpr ReduceTable reduce_table_baseline = QUERN_VEC_NS::make_reduce_table();
}  // namespace vec
QUERN_END
