#include <quern/session/control-inl.hpp>
#include <quern/session/runner_device-inl.hpp>
#include <quern/session/runner_late-inl.hpp>
#include <quern/session/engine-inl.hpp>
