// Fusions: several nodes that one kernel does.
#pragma once
#include "pass.hpp"

QUERN_BEGIN
namespace passes_detail {

inline bool fuse(Graph&, const PassContext&) { return false; }

}  // namespace passes_detail
QUERN_END
