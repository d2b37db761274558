// Opening oneDNN.
#if defined(QUERN_ONEDNN_NAME)
#include <dlfcn.h>

#include <quern/kernels/onednn/library.hpp>

QUERN_BEGIN
namespace onednn {

static Library open_library() {
    Library l;
    for (const char* name : {QUERN_ONEDNN_NAME, QUERN_ONEDNN_FILE}) {
        l.handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (l.handle) break;
        const char* why = dlerror();
        l.refusal += (l.refusal.empty() ? "" : "; ") + std::string(why ? why : name);
    }
    if (!l.handle) return l;
    l.refusal.clear();
    const char* missing = nullptr;
    auto get = [&](auto& f, const char* name) {
        f = reinterpret_cast<std::decay_t<decltype(f)>>(dlsym(l.handle, name));
        if (!f && !missing) missing = name;
    };
#define QUERN_DNNL(f) get(l.f, #f);
#include "functions.inc"
#undef QUERN_DNNL
    if (missing) {
        l.refusal = QUERN_ONEDNN_NAME " has no " + std::string(missing);
        return l;
    }
    const dnnl_version_t& v = *l.dnnl_version();
    if (v.major != DNNL_VERSION_MAJOR || v.minor < 2)
        l.refusal = QUERN_ONEDNN_NAME " is version " + std::to_string(v.major) + "." + std::to_string(v.minor) + "; 3.2 or a later 3 is accepted";
    return l;
}
const Library& library() {
    static const Library* l = new Library(open_library());  // never destroyed: kernels may end after static objects
    return *l;
}

}  // namespace onednn
QUERN_END
#endif
