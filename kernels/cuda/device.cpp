// The device layer over the CUDA runtime. Linked against tests/simt's twin of the runtime, the same unit drives the emulator.
#include <cuda_runtime_api.h>

#include <quern/kernels/cuda/check.hpp>
#include <quern/kernels/cuda/device_cuda.hpp>
#include <quern/kernels/cuda/libraries.hpp>

QUERN_BEGIN
namespace cuda {

constexpr int kOldest = 80;

/// The calling thread's device, until the end of the scope.
class Current {
public:
    explicit Current(int ordinal) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        if (before_ != ordinal) {
            check(cudaSetDevice(ordinal), "cudaSetDevice");
            changed_ = true;
        }
    }
    Current(const Current&) = delete;
    ~Current() {
        if (changed_) (void)cudaSetDevice(before_);
    }

private:
    int before_ = 0;
    bool changed_ = false;
};

inline std::string version_text(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

class CudaDevice final : public DeviceApi {
public:
    CudaDevice(int ordinal, int sm, std::string description) : ordinal_(ordinal), sm_(sm), description_(std::move(description)) {}
    /// Beside the constructor, so that the destructor gives back what was made where the rest fails.
    void open_pool() {
        Current c(ordinal_);
        int pools = 0;
        check(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, ordinal_), "cudaDeviceGetAttribute");
        if (!pools) return;
        // A pool of our own: what the application does with the device's default pool stays as it is.
        cudaMemPoolProps props{};
        props.allocType = cudaMemAllocationTypePinned;
        props.location.type = cudaMemLocationTypeDevice;
        props.location.id = ordinal_;
        check(cudaMemPoolCreate(&pool_, &props), "cudaMemPoolCreate");
        std::uint64_t keep = UINT64_MAX;
        check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
        check(cudaStreamCreateWithFlags(&memory_stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    }
    ~CudaDevice() override {
        int before = 0;
        if (cudaGetDevice(&before) != cudaSuccess || cudaSetDevice(ordinal_) != cudaSuccess) return;
        if (memory_stream_) (void)cudaStreamDestroy(memory_stream_);
        if (pool_) (void)cudaMemPoolDestroy(pool_);
        (void)cudaSetDevice(before);
    }

    const std::string& description() const noexcept override { return description_; }
    int ordinal() const noexcept override { return ordinal_; }
    int sm() const noexcept override { return sm_; }

    void* allocate(std::size_t bytes) override {
        Current c(ordinal_);
        if (bytes == 0) bytes = 1;
        void* p = nullptr;
        cudaError_t e = pool_ ? cudaMallocFromPoolAsync(&p, bytes, pool_, memory_stream_) : cudaMalloc(&p, bytes);
        // The memory may be used on any stream only after this.
        if (e == cudaSuccess && pool_) e = cudaStreamSynchronize(memory_stream_);
        if (e != cudaSuccess) {
            (void)cudaGetLastError();
            check(e, ("allocating " + std::to_string(bytes) + " bytes on the device").c_str());
        }
        return p;
    }
    void release(void* p) noexcept override {
        if (!p) return;
        int before = 0;
        if (cudaGetDevice(&before) != cudaSuccess || cudaSetDevice(ordinal_) != cudaSuccess) return;
        if (pool_) (void)cudaFreeAsync(p, memory_stream_);
        else (void)cudaFree(p);
        (void)cudaSetDevice(before);
    }
    void trim() noexcept override {
        if (!pool_) return;
        (void)cudaStreamSynchronize(memory_stream_);
        (void)cudaMemPoolTrimTo(pool_, 0);
    }
    void* allocate_pinned(std::size_t bytes) override {
        Current c(ordinal_);
        void* p = nullptr;
        check(cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocDefault), "cudaHostAlloc");
        return p;
    }
    void release_pinned(void* p) noexcept override { (void)cudaFreeHost(p); }

    void* make_stream() override {
        Current c(ordinal_);
        cudaStream_t s = nullptr;
        check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreate");
        return s;
    }
    void destroy_stream(void* s) noexcept override {
        if (s) (void)cudaStreamDestroy(stream_of(s));
    }
    void to_device(void* to, const void* from, std::size_t n, void* s) override { transfer(to, from, n, cudaMemcpyHostToDevice, s, "copy to the device"); }
    void to_host(void* to, const void* from, std::size_t n, void* s) override { transfer(to, from, n, cudaMemcpyDeviceToHost, s, "copy to the host"); }
    void copy(void* to, const void* from, std::size_t n, void* s) override { transfer(to, from, n, cudaMemcpyDeviceToDevice, s, "copy on the device"); }
    void synchronize(void* s) override {
        Current c(ordinal_);
        check(cudaStreamSynchronize(stream_of(s)), waiting);
    }

    void* make_event() override {
        Current c(ordinal_);
        cudaEvent_t e = nullptr;
        check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "cudaEventCreateWithFlags");
        return e;
    }
    void destroy_event(void* e) noexcept override {
        if (e) (void)cudaEventDestroy(static_cast<cudaEvent_t>(e));
    }
    void record(void* e, void* s) override {
        Current c(ordinal_);
        check(cudaEventRecord(static_cast<cudaEvent_t>(e), stream_of(s)), "cudaEventRecord");
    }
    void wait(void* e) override {
        Current c(ordinal_);
        check(cudaEventSynchronize(static_cast<cudaEvent_t>(e)), waiting);
    }
    void follow(void* s, void* e) override {
        Current c(ordinal_);
        check(cudaStreamWaitEvent(stream_of(s), static_cast<cudaEvent_t>(e), 0), "cudaStreamWaitEvent");
    }

    void* mark(void* s) override {
        Current c(ordinal_);
        cudaEvent_t e = nullptr;
        check(cudaEventCreate(&e), "cudaEventCreate");
        if (const cudaError_t failed = cudaEventRecord(e, stream_of(s)); failed != cudaSuccess) {
            destroy_event(e);
            check(failed, "cudaEventRecord");
        }
        return e;
    }
    double between(void* first, void* second) override {
        Current c(ordinal_);
        auto a = static_cast<cudaEvent_t>(first), b = static_cast<cudaEvent_t>(second);
        float ms = 0;
        cudaError_t e = cudaEventSynchronize(b);
        if (e == cudaSuccess) e = cudaEventElapsedTime(&ms, a, b);
        (void)cudaEventDestroy(a);
        (void)cudaEventDestroy(b);
        check(e, "waiting for the device");
        return 1e3 * ms;
    }

    bool begin_capture(void* s) override {
        Current c(ordinal_);
        const cudaError_t e = cudaStreamBeginCapture(stream_of(s), cudaStreamCaptureModeThreadLocal);
        if (e == cudaSuccess) return true;
        (void)cudaGetLastError();
        // The legacy stream, or one that is recorded already.
        if (e != cudaErrorStreamCaptureUnsupported && e != cudaErrorIllegalState && e != cudaErrorStreamCaptureImplicit) check(e, "cudaStreamBeginCapture");
        return false;
    }
    bool capturing(void* s) override {
        Current c(ordinal_);
        cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
        if (cudaStreamIsCapturing(stream_of(s), &status) == cudaSuccess) return status != cudaStreamCaptureStatusNone;
        (void)cudaGetLastError();  // the legacy stream while another one is recorded
        return true;
    }
    std::shared_ptr<const void> end_capture(void* s) override {
        Current c(ordinal_);
        cudaGraph_t graph = nullptr;
        if (cudaStreamEndCapture(stream_of(s), &graph) != cudaSuccess || !graph) {
            (void)cudaGetLastError();
            return nullptr;
        }
        cudaGraphExec_t exec = nullptr;
        const cudaError_t e = cudaGraphInstantiate(&exec, graph, 0);
        (void)cudaGraphDestroy(graph);
        if (e != cudaSuccess) {
            (void)cudaGetLastError();
            return nullptr;
        }
        return std::shared_ptr<const void>(exec, [](const void* x) { (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(const_cast<void*>(x))); });
    }
    void replay(const void* graph, void* s) override {
        Current c(ordinal_);
        check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(const_cast<void*>(graph)), stream_of(s)), "cudaGraphLaunch");
    }

    int enter() override {
        int before = 0;
        check(cudaGetDevice(&before), "cudaGetDevice");
        if (before != ordinal_) check(cudaSetDevice(ordinal_), "cudaSetDevice");
        return before;
    }
    void leave(int before) noexcept override {
        if (before != ordinal_) (void)cudaSetDevice(before);
    }

private:
    static constexpr const char* waiting = "waiting for the device (a profiled run names the kernel)";
    static cudaStream_t stream_of(void* s) { return static_cast<cudaStream_t>(s); }
    void transfer(void* to, const void* from, std::size_t n, cudaMemcpyKind kind, void* s, const char* what) {
        Current c(ordinal_);
        check(cudaMemcpyAsync(to, from, n, kind, stream_of(s)), what);
    }

    const int ordinal_, sm_;
    const std::string description_;
    cudaMemPool_t pool_ = nullptr;  // null: cudaMalloc
    cudaStream_t memory_stream_ = nullptr;
};

std::shared_ptr<DeviceApi> open_device(int ordinal, const Options& options) {
    int count = 0;
    if (cudaError_t e = cudaGetDeviceCount(&count); e != cudaSuccess) {
        (void)cudaGetLastError();
        int driver = 0;
        (void)cudaDriverGetVersion(&driver);
        raise(ErrorCode::unsupported, std::string("device 'cuda' cannot be used: ") + cudaGetErrorString(e) + " (driver " + (driver ? version_text(driver) : "none") + ", built with " +
                                          version_text(CUDART_VERSION) + ")");
    }
    if (ordinal >= count)
        raise(ErrorCode::unsupported, "device 'cuda:" + std::to_string(ordinal) + "' is not there: " + std::to_string(count) + " CUDA device" + (count == 1 ? "" : "s") + " found");
    int major = 0, minor = 0, driver = 0, runtime = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal), "cudaDeviceGetAttribute");
    check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    cudaDeviceProp prop{};
    check(cudaGetDeviceProperties(&prop, ordinal), "cudaGetDeviceProperties");
    const int sm = 10 * major + minor;
    std::string text = std::string(prop.name) + ", sm_" + std::to_string(sm) + ", driver " + version_text(driver) + ", runtime " + version_text(runtime);
    if (sm < kOldest) raise(ErrorCode::unsupported, "device 'cuda:" + std::to_string(ordinal) + "' (" + text + ") is older than sm_" + std::to_string(kOldest));
    find_libraries(options.library_dirs);
    auto device = std::make_shared<CudaDevice>(ordinal, sm, std::move(text));
    device->open_pool();
    return device;
}

}  // namespace cuda
QUERN_END
