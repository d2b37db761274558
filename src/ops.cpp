#include <quern/ops/op-inl.hpp>
#include <quern/ops/evaluate-inl.hpp>
