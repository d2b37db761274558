#include <quern/kernels/vec/loops.hpp>

QUERN_BEGIN
namespace vec {
extern const Table table_avx512;
extern const ImageTable image_table_avx512;
constexpr Table table_avx512 = QUERN_VEC_NS::make_table(Isa::avx512, "avx512");
constexpr ImageTable image_table_avx512 = QUERN_VEC_NS::make_image_table();
}  // namespace vec
QUERN_END
