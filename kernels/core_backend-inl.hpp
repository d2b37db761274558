// The portable backend: the `core` lines of every kernels.inc.
#pragma once
#include <quern/lists/core.hpp>

QUERN_BEGIN
namespace core {

/// The kernels that need nothing but the compiler.
QUERN_API QUERN_INLINE const Backend& backend() noexcept { return lists::backend; }

}  // namespace core
QUERN_END
