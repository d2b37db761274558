// The part of the CUDA runtime that host code calls, over host memory: linked instead of libcudart. Work is done when
// the call returns. Device memory is exactly as large as asked for and filled with NaN, so that a read of what was
// never written shows.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

#include "runtime.hpp"

namespace {
thread_local cudaError_t last = cudaSuccess;
cudaError_t set(cudaError_t e) {
    if (e != cudaSuccess) last = e;
    return e;
}
cudaError_t settled() { return set(simt::faulted() ? cudaErrorLaunchFailure : cudaSuccess); }
}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* n) {
    *n = 1;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, size_t n) {
    *p = nullptr;
    if (n == 0) return cudaSuccess;
    if (posix_memalign(p, 256, n)) return set(cudaErrorMemoryAllocation);
    std::memset(*p, 0xFF, n);
    simt::add_device_memory(*p, n);
    return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
    if (p) simt::remove_device_memory(p);
    std::free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind) {
    std::memcpy(to, from, n);
    return settled();
}
cudaError_t cudaMemset(void* p, int v, size_t n) {
    std::memset(p, v, n);
    return settled();
}
cudaError_t cudaGetLastError() {
    const cudaError_t e = last;
    last = cudaSuccess;
    return e;
}
const char* cudaGetErrorString(cudaError_t e) {
    switch (e) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorLaunchFailure: {
            static thread_local std::string text;
            text = "the emulator found a fault in a kernel: " + simt::fault();
            return text.c_str();
        }
        default: return "emulated error";
    }
}
}
