#include <quern/kernels/vec/loops.hpp>

QUERN_BEGIN
namespace vec {
extern const Table table_avx2;
constexpr Table table_avx2 = QUERN_VEC_NS::make_table(Isa::avx2, "avx2");
}  // namespace vec
QUERN_END
