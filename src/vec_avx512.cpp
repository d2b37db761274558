#include <quern/kernels/vec/loops.hpp>

QUERN_BEGIN
namespace vec {
extern const Table table_avx512;
constexpr Table table_avx512 = QUERN_VEC_NS::make_table(Isa::avx512, "avx512");
}  // namespace vec
QUERN_END
