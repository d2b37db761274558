#include <quern/kernels/vec/loops.hpp>

QUERN_BEGIN
namespace vec {
extern const Table table_avx2;
extern const ImageTable image_table_avx2;
constexpr Table table_avx2 = QUERN_VEC_NS::make_table(Isa::avx2, "avx2");
constexpr ImageTable image_table_avx2 = QUERN_VEC_NS::make_image_table();
}  // namespace vec
QUERN_END
