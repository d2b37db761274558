#include <quern/kernels/quant/loops_8.hpp>

QUERN_BEGIN
namespace quant {
extern const Loops loops_avx2_vnni;
constexpr Loops loops_avx2_vnni = vec::QUERN_VEC_NS::make_loops("avx2_vnni");
}  // namespace quant
QUERN_END
