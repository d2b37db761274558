// Libraries of NVIDIA's that are used where they are: found at run time, never linked.
#pragma once
#include <string>
#include <vector>

#include <quern/version.hpp>

#if __has_include(<cublasLt.h>)
#define QUERN_HAVE_CUBLASLT_HEADER 1
#include <cublasLt.h>
#endif

QUERN_BEGIN
namespace cuda {

#if defined(QUERN_HAVE_CUBLASLT_HEADER)
/// cuBLASLt's entry points. `refusal` says why they cannot be used; empty: they can.
struct CublasLt {
    std::string refusal = "cuBLASLt is used where Options::library_dirs names its folder";
    void* library = nullptr;
#define QUERN_CUBLASLT(f) decltype(&::cublasLt##f) f = nullptr;
#include "cublaslt.inc"
#undef QUERN_CUBLASLT
    /// The calling thread's device's handle, made once and kept for the life of the process.
    cublasLtHandle_t handle() const;
};
/// As find_libraries() last found it.
const CublasLt& cublaslt() noexcept;
#endif

/// Looks for what is not loaded yet in the folders; "" is the system's own search. Loaded libraries stay for the life of the
/// process. Thread-safe.
void find_libraries(const std::vector<std::string>& folders);

}  // namespace cuda
QUERN_END
