// oneDNN found at run time: the library is opened when a kernel first asks for it, so that models that do not need it pay neither for its
// pages nor for its OpenMP runtime. After this header <oneapi/dnnl/dnnl.hpp> is the same interface in a namespace of quern's own, whose
// calls go through the table below.
#pragma once
#include <oneapi/dnnl/dnnl.h>
#include <string>

#include <quern/version.hpp>

QUERN_BEGIN
namespace onednn {

/// oneDNN's entry points. `refusal` says why they cannot be used; empty: they can.
struct Library {
    std::string refusal;
    void* handle = nullptr;
#define QUERN_DNNL(f) decltype(&::f) f = nullptr;
#include "functions.inc"
#undef QUERN_DNNL
};
/// Opened by the first call, by its name in the system's search (the program's run path included), then where it was when quern was
/// built; kept for the life of the process. Thread-safe.
const Library& library();

}  // namespace onednn
QUERN_END

#define QUERN_DNNL_JOIN2(a, b) a##b
#define QUERN_DNNL_JOIN(a, b) QUERN_DNNL_JOIN2(a, b)
#define dnnl QUERN_DNNL_JOIN(quern_dnnl_, QUERN_ABI)
/// Names that the C++ interface finds here before the global ones: function objects that call the library's functions.
namespace dnnl {
#define QUERN_DNNL(f)                                                                                      \
    struct f##_call {                                                                                      \
        template <class... A> auto operator()(A... a) const { return quern::QUERN_ABI::onednn::library().f(a...); } \
    };                                                                                                     \
    inline constexpr f##_call f{};
#include "functions.inc"
#undef QUERN_DNNL
}  // namespace dnnl
