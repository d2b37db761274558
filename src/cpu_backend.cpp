// The accelerated CPU backend: the `simd` and `onednn` lines of every kernels.inc.
#include <quern/kernels/conv/conv.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/matmul/matmul.hpp>
#include <quern/kernels/softmax/softmax.hpp>

#define QUERN_LINE_core(entry)
#define QUERN_LINE_cuda(entry)
#if defined(QUERN_HAVE_HIGHWAY)
#define QUERN_LINE_simd(entry) QUERN_LINE(entry)
#else
#define QUERN_LINE_simd(entry)
#endif
#if defined(QUERN_HAVE_ONEDNN)
#define QUERN_LINE_onednn(entry) QUERN_LINE(entry)
#else
#define QUERN_LINE_onednn(entry)
#endif
#define QUERN_KERNEL(backend, entry) QUERN_LINE_##backend(entry)

QUERN_BEGIN

// Every list is read twice: for the declarations of its entries, then for their ranks. A list may have no
// line for this backend, and an array may not be empty: each ends in an entry that is not counted.
#define QUERN_LINE(entry) extern const Entry<Problem> entry;
namespace matmul {
#include <quern/kernels/matmul/kernels.inc>
}
namespace conv {
#include <quern/kernels/conv/kernels.inc>
}
namespace softmax {
#include <quern/kernels/softmax/kernels.inc>
}
#undef QUERN_LINE
#define QUERN_LINE(entry) {&entry, __LINE__},
namespace matmul {
static const RankedEntry cpu_lines[] = {
#include <quern/kernels/matmul/kernels.inc>
    {nullptr, 0}};
}
namespace conv {
static const RankedEntry cpu_lines[] = {
#include <quern/kernels/conv/kernels.inc>
    {nullptr, 0}};
}
namespace softmax {
static const RankedEntry cpu_lines[] = {
#include <quern/kernels/softmax/kernels.inc>
    {nullptr, 0}};
}
#undef QUERN_LINE

namespace cpu {

/// oneDNN's and our own vector kernels, as far as they were built.
QUERN_API const Backend& backend() noexcept {
    static constexpr auto all = [](const auto& lines) { return std::span<const RankedEntry>(lines, std::size(lines) - 1); };
    static const Backend it{"cpu", {all(matmul::cpu_lines), all(conv::cpu_lines), all(softmax::cpu_lines)}};
    return it;
}

}  // namespace cpu
QUERN_END
