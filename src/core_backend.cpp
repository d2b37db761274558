#include <quern/kernels/core_backend-inl.hpp>
