// Libraries of NVIDIA's that are used where they are: found at run time, never linked.
#pragma once
#include <mutex>
#include <string>
#include <vector>

#include <quern/version.hpp>

#if __has_include(<cublasLt.h>)
#define QUERN_HAVE_CUBLASLT_HEADER 1
#include <cublasLt.h>
#endif
#if __has_include(<cudnn.h>)
#include <cudnn.h>
#if CUDNN_VERSION >= 90000
#define QUERN_HAVE_CUDNN_HEADER 1
#endif
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
    /// The calling thread's device's handle, made once and kept for the life of the process; null where that fails.
    cublasLtHandle_t handle() const;
};
/// As find_libraries() last found it; what the reference names stays as it is.
const CublasLt& cublaslt() noexcept;
#endif

#if defined(QUERN_HAVE_CUDNN_HEADER)
/// cuDNN's entry points, as CublasLt.
struct Cudnn {
    std::string refusal = "cuDNN is used where Options::library_dirs names its folder";
    void* library = nullptr;
#define QUERN_CUDNN(f) decltype(&::cudnn##f) f = nullptr;
#include "cudnn.inc"
#undef QUERN_CUDNN
    /// A handle serves one thread and one stream at a time: hold the lock while plans are made with it, and from SetStream to what is enqueued there.
    struct Handle {
        std::mutex lock;
        cudnnHandle_t handle = nullptr;
    };
    /// The calling thread's device's, made once and kept for the life of the process; its `handle` is null where that fails.
    Handle& handle() const;
    /// What went wrong in the calling thread's last call.
    std::string last_error() const;
};
const Cudnn& cudnn() noexcept;
/// The entry points of the library at `path`; `refusal` says why it cannot be used. Not kept.
Cudnn load_cudnn(const std::string& path);
#endif

/// Looks for what is not loaded yet in the folders; "" is the system's own search. Loaded libraries stay for the life of the
/// process. Thread-safe.
void find_libraries(const std::vector<std::string>& folders);

}  // namespace cuda
QUERN_END
