#include <quern/passes/passes-inl.hpp>
