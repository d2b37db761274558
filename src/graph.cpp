#include <quern/graph/dim-inl.hpp>
#include <quern/graph/graph-inl.hpp>
#include <quern/graph/dump-inl.hpp>
