// How work is spread over the threads of a run.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../executor.hpp"

QUERN_BEGIN

/// Runs tiles on the run's threads. Tiles must not depend on the number of threads (the same bits for
/// any) and must not call for_each again.
class Workers {
public:
    using Tile = Executor::Tile;
    virtual int width() const noexcept = 0;
    /// tile(context, i, worker) once for each i in [0, n); returns when all are done. An exception in a
    /// tile is rethrown here after the others have ended.
    virtual void run(std::int64_t n, Tile tile, void* context) = 0;
    /// f(i) or f(i, worker) for each i in [0, n).
    template <class F>
    void for_each(std::int64_t n, F&& f) {
        using G = std::remove_reference_t<F>;
        run(n, [](void* c, std::int64_t i, int w) {
            if constexpr (requires(G& g) { g(i, w); }) (*static_cast<G*>(c))(i, w);
            else (*static_cast<G*>(c))(i);
        }, const_cast<void*>(static_cast<const void*>(&f)));
    }
    /// f(begin, end) over [0, n) in ranges of `grain`.
    template <class F>
    void ranges(std::int64_t n, std::int64_t grain, F&& f) {
        if (n <= 0) return;
        if (n <= grain) { f(std::int64_t{0}, n); return; }
        for_each((n + grain - 1) / grain, [&](std::int64_t i) {
            std::int64_t b = i * grain, e = b + grain;
            f(b, e < n ? e : n);
        });
    }

protected:
    ~Workers() = default;
};

QUERN_END
