#include <quern/session/control-inl.hpp>
#include <quern/session/runner-inl.hpp>
#include <quern/session/engine-inl.hpp>
