// The portable backend: the `core` lines of every kernels.inc.
#pragma once
#include <quern/kernels/conv/core.hpp>
#include <quern/kernels/conv/winograd.hpp>
#include <quern/kernels/kernel.hpp>
#include <quern/kernels/matmul/core.hpp>
#include <quern/kernels/softmax/core.hpp>

QUERN_BEGIN
namespace core {

#define QUERN_LINE_core(family, entry) {&family::entry, __LINE__},
#define QUERN_LINE_simd(family, entry)
#define QUERN_LINE_onednn(family, entry)
#define QUERN_LINE_cuda(family, entry)
namespace lines {
#define QUERN_KERNEL(backend, entry) QUERN_LINE_##backend(quern::matmul, entry)
inline constexpr RankedEntry matmul[] = {
#include <quern/kernels/matmul/kernels.inc>
};
#undef QUERN_KERNEL
#define QUERN_KERNEL(backend, entry) QUERN_LINE_##backend(quern::conv, entry)
inline constexpr RankedEntry conv[] = {
#include <quern/kernels/conv/kernels.inc>
};
#undef QUERN_KERNEL
#define QUERN_KERNEL(backend, entry) QUERN_LINE_##backend(quern::softmax, entry)
inline constexpr RankedEntry softmax[] = {
#include <quern/kernels/softmax/kernels.inc>
};
#undef QUERN_KERNEL
inline constexpr Backend backend{"core", {matmul, conv, softmax}};
}  // namespace lines
#undef QUERN_LINE_core
#undef QUERN_LINE_simd
#undef QUERN_LINE_onednn
#undef QUERN_LINE_cuda

/// The kernels that need nothing but the compiler.
QUERN_API QUERN_INLINE const Backend& backend() noexcept { return lines::backend; }

}  // namespace core
QUERN_END
