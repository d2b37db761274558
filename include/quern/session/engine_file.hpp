// An engine from the bytes of an engine file.
#pragma once
#include <memory>

#include "../base/mapped_file.hpp"
#include "../engine.hpp"

QUERN_BEGIN

/// As Engine::load(), from a file that is mapped. `verify`: false leaves the checksums out, to test what lies behind them. Raises as Engine::load().
QUERN_API Engine engine_of_file(std::shared_ptr<const MappedFile> file, const Options& options, const CustomOps& custom = {}, bool verify = true);

QUERN_END
