// Where exceptions become values and places are added to errors. Internal: public headers do not include it.
#pragma once
#include <exception>
#include <new>
#include <string>

#include "../error.hpp"

QUERN_BEGIN

/// Runs f and returns its value, or the Error that it raised; any other exception becomes one too.
template <class F>
auto guarded(F&& f) noexcept -> Result<std::decay_t<decltype(f())>> {
    using R = std::decay_t<decltype(f())>;
    try {
        if constexpr (std::is_void_v<R>) {
            f();
            return Result<void>();
        } else {
            return f();
        }
    } catch (Error& e) {
        return std::move(e);
    } catch (const std::bad_alloc&) {
        return Error(ErrorCode::out_of_memory, "an allocation failed");
    } catch (const std::exception& e) {
        return Error(ErrorCode::internal, e.what());
    } catch (...) {
        return Error(ErrorCode::internal, "an unknown exception");
    }
}
/// Runs f; an Error that leaves it gets the place place() added.
template <class P, class F>
decltype(auto) with_place(P&& place, F&& f) {
    try {
        return f();
    } catch (Error& e) {
        e.at(place());
        throw;
    }
}

QUERN_END
