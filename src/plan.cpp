#include <quern/plan/plan-inl.hpp>
