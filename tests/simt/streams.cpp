// The twin of the runtime's streams, asynchronous copies and graphs. On a stream other than the null one nothing happens before
// something waits: then the streams' work is done in a random legal order, as late as CUDA would allow, until what is waited for is
// done. A host that reads too early, or reuses memory that a copy to the host still writes, sees it, and so does a stream that follows
// no event. What a copy from pageable memory reads is taken at the call, as CUDA stages it; from page-locked memory when the copy is done.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime.hpp"
#include "simt_emul.hpp"

namespace {

using Work = std::function<cudaError_t()>;
struct Stream;
/// A mark in the host's time too: the emulator has no time of its own.
struct Event {
    std::uint64_t recorded = 0, done = 0;  // how often
    double at = 0;                         // milliseconds, of the last time
    Stream* stream = nullptr;              // of the last recording
};
using SharedEvent = std::shared_ptr<Event>;  // work under way outlives cudaEventDestroy
struct Item {
    Work run;
    SharedEvent event = {};  // that it waits for, as recorded the `recorded`th time
    std::uint64_t recorded = 0;
    bool ready() const { return !event || event->done >= recorded; }
};
struct Stream {
    std::deque<Item> work;
    std::vector<Work>* capture = nullptr;
    cudaError_t error = cudaSuccess;  // of work that nobody has waited for yet
};
struct Graph {
    std::vector<Work> work;
};

struct Runtime {
    std::recursive_mutex lock;
    std::vector<Stream*> streams;
    std::map<const char*, size_t> pinned;  // page-locked host memory
    std::vector<std::pair<const char*, size_t>> late_reads;  // of it, by copies that are not done
    std::uint64_t random = 0x9E3779B97F4A7C15ull;
};
Runtime& runtime() {
    static Runtime* r = new Runtime;
    return *r;
}
thread_local int current = 0;

std::size_t draw(std::size_t n) {
    std::uint64_t& x = runtime().random;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return static_cast<std::size_t>(x % n);
}
bool pinned(const void* p) {
    std::lock_guard l(runtime().lock);
    auto it = runtime().pinned.upper_bound(static_cast<const char*>(p));
    return it != runtime().pinned.begin() && static_cast<const char*>(p) < std::prev(it)->first + std::prev(it)->second;
}
cudaError_t enqueue(cudaStream_t stream, Work w) {
    std::lock_guard l(runtime().lock);
    auto* s = reinterpret_cast<Stream*>(stream);
    if (!s) return w();
    if (s->capture) s->capture->push_back(std::move(w));
    else s->work.push_back({std::move(w)});
    return cudaSuccess;
}
void step(Stream& s) {
    Work w = std::move(s.work.front().run);
    s.work.pop_front();
    if (cudaError_t e = w(); e != cudaSuccess && s.error == cudaSuccess) s.error = e;
}
bool idle() {
    auto& all = runtime().streams;
    return std::all_of(all.begin(), all.end(), [](Stream* s) { return s->work.empty(); });
}
/// Lets streams work until `done`; what went wrong on `of`, or anywhere.
template <class F>
cudaError_t work_until(F&& done, Stream* of) {
    std::lock_guard l(runtime().lock);
    auto& all = runtime().streams;
    while (!done()) {
        std::vector<Stream*> ready;
        for (Stream* s : all)
            if (!s->work.empty() && s->work.front().ready()) ready.push_back(s);
        if (ready.empty()) return cudaErrorUnknown;  // streams that wait for each other
        step(*ready[draw(ready.size())]);
    }
    if (idle()) runtime().late_reads.clear();
    if (of && std::find(all.begin(), all.end(), of) != all.end() && of->error != cudaSuccess) return of->error;
    return simt::faulted() ? cudaErrorLaunchFailure : cudaSuccess;
}
cudaError_t drain(Stream* until) {
    return work_until([=] { return until ? until->work.empty() : idle(); }, until);
}
/// A copy has read what the host may write again.
void forget_read(const void* from, std::size_t n) {
    auto& late = runtime().late_reads;
    auto it = std::find(late.begin(), late.end(), std::make_pair(static_cast<const char*>(from), n));
    if (it != late.end()) late.erase(it);
}
SharedEvent& event_of(cudaEvent_t e) { return *reinterpret_cast<SharedEvent*>(e); }

}  // namespace

namespace simt {

std::size_t pending() {
    std::lock_guard l(runtime().lock);
    std::size_t n = 0;
    for (Stream* s : runtime().streams) n += s->work.size();
    return n;
}

cudaError_t submit(cudaStream_t stream, const Launch& l) {
    if (!stream) return run(l);
    // The arguments are trivially copyable; the launch gets a copy of its own.
    std::vector<std::max_align_t> copy((l.argument_bytes + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t));
    std::memcpy(copy.data(), l.arguments, l.argument_bytes);
    return enqueue(stream, [copy = std::move(copy), l]() mutable {
        Launch own = l;
        own.arguments = copy.data();
        return run(own);
    });
}

}  // namespace simt

extern "C" {

cudaError_t cudaStreamSynchronize(cudaStream_t s) { return drain(reinterpret_cast<Stream*>(s)); }
cudaError_t cudaDeviceSynchronize() { return drain(nullptr); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
    std::lock_guard l(runtime().lock);
    auto* made = new Stream;
    runtime().streams.push_back(made);
    *s = reinterpret_cast<cudaStream_t>(made);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    auto* s = reinterpret_cast<Stream*>(stream);
    cudaError_t e = drain(s);
    std::lock_guard l(runtime().lock);
    std::erase(runtime().streams, s);
    delete s;
    return e;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t s) {
    if (kind == cudaMemcpyHostToDevice && !pinned(from)) {
        std::vector<unsigned char> staged(static_cast<const unsigned char*>(from), static_cast<const unsigned char*>(from) + n);
        return enqueue(s, [to, staged = std::move(staged)] { return std::memcpy(to, staged.data(), staged.size()), cudaSuccess; });
    }
    std::lock_guard l(runtime().lock);
    auto& late = runtime().late_reads;
    if (kind == cudaMemcpyHostToDevice && s) late.push_back({static_cast<const char*>(from), n});
    auto* t = static_cast<const char*>(to);
    if (kind == cudaMemcpyDeviceToHost && s && std::none_of(late.begin(), late.end(), [&](auto& r) { return r.first < t + n && t < r.first + r.second; }))
        std::memset(to, 0xFF, n);  // not there before the stream is waited for
    return enqueue(s, [=] {
        std::memcpy(to, from, n);
        if (kind == cudaMemcpyHostToDevice) forget_read(from, n);
        return cudaSuccess;
    });
}
// For cuDNN's twin, which takes it from the program.
__attribute__((visibility("default"))) cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* data) {
    return enqueue(s, [=] { return f(data), cudaSuccess; });
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    std::lock_guard l(runtime().lock);
    auto* s = reinterpret_cast<Stream*>(stream);
    if (!s || s->capture) return cudaErrorStreamCaptureUnsupported;
    s->capture = new std::vector<Work>;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    std::lock_guard l(runtime().lock);
    auto* s = reinterpret_cast<Stream*>(stream);
    return *status = s && s->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* g) {
    std::lock_guard l(runtime().lock);
    auto* s = reinterpret_cast<Stream*>(stream);
    *g = nullptr;
    if (!s || !s->capture) return cudaErrorStreamCaptureUnmatched;
    *g = reinterpret_cast<cudaGraph_t>(new Graph{std::move(*s->capture)});
    delete s->capture;
    s->capture = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* x, cudaGraph_t g, unsigned long long) {
    *x = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(g)));
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete reinterpret_cast<Graph*>(g);
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) {
    delete reinterpret_cast<Graph*>(x);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    return enqueue(s, [work = reinterpret_cast<Graph*>(x)->work] {
        for (auto& w : work)
            if (cudaError_t e = Work(w)(); e != cudaSuccess) return e;
        return cudaSuccess;
    });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return *e = reinterpret_cast<cudaEvent_t>(new SharedEvent(new Event)), cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t s) {
    std::lock_guard l(runtime().lock);
    SharedEvent e = event_of(event);
    e->stream = reinterpret_cast<Stream*>(s);
    return enqueue(s, [e, n = ++e->recorded] {
        e->done = n;
        e->at = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
        return cudaSuccess;
    });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (simt::config.forget_host_waits) return cudaSuccess;
    const SharedEvent e = event_of(event);
    return work_until([&, n = e->recorded] { return e->done >= n; }, e->stream);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    std::lock_guard l(runtime().lock);
    auto* s = reinterpret_cast<Stream*>(stream);
    if (s && s->capture) return cudaErrorStreamCaptureUnsupported;
    const SharedEvent e = event_of(event);
    if (simt::config.forget_stream_waits) return cudaSuccess;
    if (!s) return work_until([&, n = e->recorded] { return e->done >= n; }, e->stream);
    s->work.push_back({[] { return cudaSuccess; }, e, e->recorded});
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) { return *ms = static_cast<float>(event_of(b)->at - event_of(a)->at), cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete reinterpret_cast<SharedEvent*>(e), cudaSuccess; }

// The device: one, of the architecture that kernels are checked for.
cudaError_t cudaGetDevice(int* d) { return *d = current, cudaSuccess; }
cudaError_t cudaSetDevice(int d) { return d ? cudaErrorInvalidDevice : (current = d, cudaSuccess); }
cudaError_t cudaDriverGetVersion(int* v) { return *v = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* v) { return *v = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
    switch (a) {
        case cudaDevAttrComputeCapabilityMajor: *v = 8; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = static_cast<int>(simt::config.shared_of_block); break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = static_cast<int>(simt::config.shared_of_processor); break;
        case cudaDevAttrMultiProcessorCount: *v = 4; break;
        default: *v = 0;
    }
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    *p = cudaDeviceProp{};
    std::strcpy(p->name, "emulated device");
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) {
    if (posix_memalign(p, 64, n)) return cudaErrorMemoryAllocation;
    std::lock_guard l(runtime().lock);
    runtime().pinned[static_cast<const char*>(*p)] = n;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
    std::lock_guard l(runtime().lock);
    runtime().pinned.erase(static_cast<const char*>(p));
    return std::free(p), cudaSuccess;
}
// No memory pools here (the attribute above says so): allocations are exact.
cudaError_t cudaMemPoolCreate(cudaMemPool_t*, const cudaMemPoolProps*) { return cudaErrorNotSupported; }
cudaError_t cudaMemPoolDestroy(cudaMemPool_t) { return cudaErrorNotSupported; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaErrorNotSupported; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaErrorNotSupported; }
cudaError_t cudaMallocFromPoolAsync(void**, size_t, cudaMemPool_t, cudaStream_t) { return cudaErrorNotSupported; }
cudaError_t cudaFreeAsync(void*, cudaStream_t) { return cudaErrorNotSupported; }
}
