#include <quern/kernels/quant/loops_8.hpp>

QUERN_BEGIN
namespace quant {
extern const Loops loops_avx512;
constexpr Loops loops_avx512 = vec::QUERN_VEC_NS::make_loops("avx512");
}  // namespace quant
QUERN_END
