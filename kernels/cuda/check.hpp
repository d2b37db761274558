// CUDA's error codes as quern's errors, for host code of the backend.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include <quern/error.hpp>

QUERN_BEGIN
namespace cuda {

/// Raises what the call returned, naming it: `what` is a kernel or a function.
inline void check(cudaError_t e, const char* what) {
    if (e == cudaSuccess) return;
    raise(e == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory : ErrorCode::device,
          std::string(what) + ": " + cudaGetErrorString(e) + " (CUDA error " + std::to_string(static_cast<int>(e)) + ")");
}

}  // namespace cuda
QUERN_END
