#include <quern/tensor/shape-inl.hpp>
#include <quern/tensor/tensor-inl.hpp>
#include <quern/tensor/value-inl.hpp>
