#include <quern/ops/op-inl.hpp>
#include <quern/ops/custom-inl.hpp>
#include <quern/ops/evaluate-inl.hpp>
