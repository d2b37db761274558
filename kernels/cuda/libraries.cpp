#include <dlfcn.h>

#include <atomic>
#include <map>
#include <mutex>

#include <cuda_runtime_api.h>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/cuda/libraries.hpp>

QUERN_BEGIN
namespace cuda {

/// What is known of a library. Read without a lock while another thread searches: what was published once is neither changed nor freed.
template <class L>
class Published {
public:
    Published() : now_(new L) {}
    const L& get() const noexcept { return *now_.load(std::memory_order_acquire); }
    void publish(L&& l) {
        if (!l.refusal.empty() && l.refusal == get().refusal) return;
        now_.store(new L(std::move(l)), std::memory_order_release);
    }

private:
    std::atomic<const L*> now_;
};
struct Found {
    std::mutex lock;  // of searches and handles
#if defined(QUERN_HAVE_CUBLASLT_HEADER)
    Published<CublasLt> lt;
    std::map<int, cublasLtHandle_t> lt_handles;
#endif
#if defined(QUERN_HAVE_CUDNN_HEADER)
    Published<Cudnn> dnn;
    std::map<int, Cudnn::Handle> dnn_handles;
#endif
};
// Never destroyed: a library may already be gone when destructors run.
inline Found& found() {
    static Found* f = new Found;
    return *f;
}
/// Opens the library and lets `entries` look up what it needs by f(pointer to a function, name), then `version` say what it is. False:
/// there is no such file; else `refusal` says whether it can be used.
template <class L, class Entries, class Version>
inline bool load_library(L& made, const std::string& path, int oldest, int newest, Entries entries, Version version) {
    made.library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!made.library) return false;
    const char* missing = nullptr;
    entries([&](auto& f, const char* name) {
        f = reinterpret_cast<std::decay_t<decltype(f)>>(dlsym(made.library, name));
        if (!f && !missing) missing = name;
    });
    made.refusal.clear();
    if (missing) {
        made.refusal = "'" + path + "' has no " + missing;
        return true;
    }
    const int major = version();
    if (major < oldest || major > newest)
        made.refusal = "'" + path + "' is version " + std::to_string(major) + "; " + std::to_string(oldest) + " to " + std::to_string(newest) + " are accepted";
    return true;
}
/// `library` becomes the first that load(made, path) finds; one that does not fit ends the search, for that is the reason to tell.
template <class L, class Load>
inline void search(Published<L>& library, const char* stem, int oldest, int newest, const std::vector<std::string>& folders, Load load) {
    if (library.get().refusal.empty()) return;
    std::string tried;
    for (const std::string& folder : folders)
        for (int major = newest; major >= oldest; --major) {
            const std::string path = (folder.empty() ? "" : folder + "/") + stem + std::to_string(major);
            tried += (tried.empty() ? "" : ", ") + path;
            L made;
            if (load(made, path)) return library.publish(std::move(made));
        }
    L none;
    none.refusal = "not found: " + tried;
    library.publish(std::move(none));
}

#if defined(QUERN_HAVE_CUBLASLT_HEADER)
constexpr int kOldestCublas = 12;
const CublasLt& cublaslt() noexcept { return found().lt.get(); }

inline bool load(CublasLt& lt, const std::string& path) {
    return load_library(
        lt, path, kOldestCublas, CUBLAS_VER_MAJOR,
        [&](auto get) {
#define QUERN_CUBLASLT(f) get(lt.f, "cublasLt" #f);
#include "cublaslt.inc"
#undef QUERN_CUBLASLT
        },
        [&] { return static_cast<int>(lt.GetVersion() / (lt.GetVersion() >= 100000 ? 10000 : 1000)); });
}
cublasLtHandle_t CublasLt::handle() const {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    std::lock_guard<std::mutex> l(found().lock);
    cublasLtHandle_t& h = found().lt_handles[device];
    if (!h && Create(&h) != CUBLAS_STATUS_SUCCESS) h = nullptr;
    return h;
}
#endif

#if defined(QUERN_HAVE_CUDNN_HEADER)
constexpr int kOldestCudnn = 9;
const Cudnn& cudnn() noexcept { return found().dnn.get(); }

inline bool load(Cudnn& dnn, const std::string& path) {
    return load_library(
        dnn, path, kOldestCudnn, CUDNN_MAJOR,
        [&](auto get) {
#define QUERN_CUDNN(f) get(dnn.f, "cudnn" #f);
#include "cudnn.inc"
#undef QUERN_CUDNN
        },
        [&] { return static_cast<int>(dnn.GetVersion() / 10000); });
}
Cudnn load_cudnn(const std::string& path) {
    Cudnn made;
    if (!load(made, path)) made.refusal = "not found: " + path;
    return made;
}
std::string Cudnn::last_error() const {
    char text[512] = "";
    GetLastErrorString(text, sizeof text);
    return text;
}
Cudnn::Handle& Cudnn::handle() const {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    std::lock_guard<std::mutex> l(found().lock);
    Handle& h = found().dnn_handles[device];
    if (!h.handle && Create(&h.handle) != CUDNN_STATUS_SUCCESS) h.handle = nullptr;
    return h;
}
#endif

void find_libraries(const std::vector<std::string>& folders) {
    if (folders.empty()) return;
    std::lock_guard<std::mutex> l(found().lock);
#if defined(QUERN_HAVE_CUBLASLT_HEADER)
    search(found().lt, "libcublasLt.so.", kOldestCublas, CUBLAS_VER_MAJOR, folders, [](CublasLt& made, const std::string& path) { return load(made, path); });
#endif
#if defined(QUERN_HAVE_CUDNN_HEADER)
    search(found().dnn, "libcudnn.so.", kOldestCudnn, CUDNN_MAJOR, folders, [](Cudnn& made, const std::string& path) { return load(made, path); });
#endif
}

}  // namespace cuda
QUERN_END
