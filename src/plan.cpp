#include <quern/plan/engine_file-inl.hpp>
#include <quern/plan/packs-inl.hpp>
#include <quern/plan/plan-inl.hpp>
