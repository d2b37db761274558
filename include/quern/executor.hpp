// Where tiles of work run: the caller's threads or a pool that belongs to the engine.
#pragma once
#include <cstdint>

#include "version.hpp"

QUERN_BEGIN

/// The caller's own threads. quern calls run() from the thread inside Session::run; run() must call
/// `tile(context, i, worker)` once for every i in [0, n), from any threads, with worker in [0, width())
/// and never the same worker number at the same time, and return when all are done. Tiles never block
/// on each other. Must outlive the engines that were given it. Tiles do not throw.
class QUERN_API Executor {
public:
    using Tile = void (*)(void* context, std::int64_t i, int worker);
    virtual ~Executor();
    virtual int width() const noexcept = 0;  ///< largest number of tiles at the same time
    virtual void run(std::int64_t n, Tile tile, void* context) = 0;
};

QUERN_END
