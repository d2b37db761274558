#include <quern/kernels/quant/loops_8.hpp>
#include <quern/kernels/quant/loops-inl.hpp>

QUERN_BEGIN
namespace quant {
extern const Loops loops_baseline;
constexpr Loops loops_baseline = vec::QUERN_VEC_NS::make_loops("baseline");
}  // namespace quant
QUERN_END
