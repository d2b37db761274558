#include <dlfcn.h>

#include <map>
#include <mutex>

#include <cuda_runtime_api.h>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/cuda/libraries.hpp>

QUERN_BEGIN
namespace cuda {

#if defined(QUERN_HAVE_CUBLASLT_HEADER)
constexpr int kOldestCublas = 12;

struct Found {
    std::mutex lock;
    CublasLt lt;
    std::map<int, cublasLtHandle_t> handles;
};
// Never destroyed: the library may already be gone when destructors run.
inline Found& found() {
    static Found* f = new Found;
    return *f;
}
const CublasLt& cublaslt() noexcept { return found().lt; }

inline bool load_cublaslt(CublasLt& lt, const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    CublasLt made;
    made.library = library;
    const char* missing = nullptr;
    auto get = [&](auto& f, const char* name) {
        f = reinterpret_cast<std::decay_t<decltype(f)>>(dlsym(library, name));
        if (!f && !missing) missing = name;
    };
#define QUERN_CUBLASLT(f) get(made.f, "cublasLt" #f);
#include "cublaslt.inc"
#undef QUERN_CUBLASLT
    if (missing) {
        lt.refusal = "'" + path + "' has no " + missing;
        return false;
    }
    const int major = static_cast<int>(made.GetVersion() / (made.GetVersion() >= 100000 ? 10000 : 1000));
    if (major < kOldestCublas || major > CUBLAS_VER_MAJOR) {
        lt.refusal = "'" + path + "' is version " + std::to_string(major) + "; " + std::to_string(kOldestCublas) + " to " + std::to_string(CUBLAS_VER_MAJOR) + " are accepted";
        return false;
    }
    made.refusal.clear();
    lt = made;
    return true;
}

cublasLtHandle_t CublasLt::handle() const {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    std::lock_guard<std::mutex> l(found().lock);
    cublasLtHandle_t& h = found().handles[device];
    if (!h && Create(&h) != CUBLAS_STATUS_SUCCESS) raise(ErrorCode::device, "cublasLtCreate failed");
    return h;
}

void find_libraries(const std::vector<std::string>& folders) {
    if (folders.empty()) return;
    std::lock_guard<std::mutex> l(found().lock);
    CublasLt& lt = found().lt;
    if (lt.refusal.empty()) return;
    std::string tried;
    for (const std::string& folder : folders)
        for (int major = CUBLAS_VER_MAJOR; major >= kOldestCublas; --major) {
            std::string path = (folder.empty() ? "" : folder + "/") + "libcublasLt.so." + std::to_string(major);
            tried += (tried.empty() ? "" : ", ") + path;
            const std::string before = lt.refusal;
            if (load_cublaslt(lt, path)) return;
            if (lt.refusal != before) return;  // it is there and does not fit: that is the reason to tell
        }
    lt.refusal = "not found: " + tried;
}
#else
void find_libraries(const std::vector<std::string>&) {}
#endif

}  // namespace cuda
QUERN_END
