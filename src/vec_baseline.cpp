#include <quern/kernels/vec/loops.hpp>
#include <quern/kernels/vec/table-inl.hpp>

QUERN_BEGIN
namespace vec {
extern const Table table_baseline;
extern const ImageTable image_table_baseline;
constexpr Table table_baseline = QUERN_VEC_NS::make_table(Isa::baseline, "baseline");
constexpr ImageTable image_table_baseline = QUERN_VEC_NS::make_image_table();
}  // namespace vec
QUERN_END
