// What the runtime asks of an accelerator. A backend library implements it; core knows nothing else of the device.
#pragma once
#include <cstddef>
#include <memory>
#include <string>

#include <quern/device.hpp>
#include <quern/version.hpp>

QUERN_BEGIN

/// One device. Thread-safe. Every call works whatever device the calling thread has chosen and leaves that choice as it was.
/// A `void* stream` is a cudaStream_t. All that can fail raises ErrorCode::device (out_of_memory for memory) with the
/// runtime's own text; failures of kernels come out at a later call on the same stream.
class DeviceApi {
public:
    virtual ~DeviceApi() = default;
    /// "NVIDIA H100 80GB HBM3, sm_90, driver 13.0, runtime 13.0".
    virtual const std::string& description() const noexcept = 0;
    virtual int ordinal() const noexcept = 0;
    /// Compute capability times ten: 90 for sm_90.
    virtual int sm() const noexcept = 0;

    /// Device memory, 256-byte aligned, contents undefined.
    virtual void* allocate(std::size_t bytes) = 0;
    /// Nothing that was enqueued may use the memory any more.
    virtual void release(void* p) noexcept = 0;
    /// Gives memory that is kept for later allocations back to the device.
    virtual void trim() noexcept = 0;
    /// Page-locked host memory, which copies reach without a stop in between.
    virtual void* allocate_pinned(std::size_t bytes) = 0;
    virtual void release_pinned(void* p) noexcept = 0;

    virtual void* make_stream() = 0;
    virtual void destroy_stream(void* stream) noexcept = 0;  ///< null: nothing
    /// Enqueue copies. `from` of to_device may be written again, and `to` of to_host read, only after synchronize() or wait() on an event
    /// that was recorded behind the copy.
    virtual void to_device(void* to, const void* from, std::size_t bytes, void* stream) = 0;
    virtual void to_host(void* to, const void* from, std::size_t bytes, void* stream) = 0;
    virtual void copy(void* to, const void* from, std::size_t bytes, void* stream) = 0;
    /// Waits for all that was enqueued on the stream; raises what went wrong there.
    virtual void synchronize(void* stream) = 0;

    /// A point in a stream's work; none before record(), which moves it.
    virtual void* make_event() = 0;
    virtual void destroy_event(void* event) noexcept = 0;  ///< or a mark; null: nothing
    virtual void record(void* event, void* stream) = 0;
    /// The host waits until the event's stream has come so far; raises what went wrong there. What was enqueued after it is not waited for.
    virtual void wait(void* event) = 0;
    /// What is enqueued on `stream` from now on begins after the event as it was recorded last. The host does not wait.
    virtual void follow(void* stream, void* event) = 0;

    /// A mark in the stream's work, for between().
    virtual void* mark(void* stream) = 0;
    /// Microseconds of the device from one mark to a later one of the same stream; waits for it and gives both back.
    virtual double between(void* first, void* second) = 0;

    /// Everything enqueued on the stream until end_capture() is recorded instead of done. Only this thread's calls count. False: this
    /// stream cannot be recorded, nothing has begun.
    virtual bool begin_capture(void* stream) = 0;
    /// Whether somebody records the stream now, the application for instance.
    virtual bool capturing(void* stream) = 0;
    /// The recorded work, ready to be replayed; null where the runtime could not record it (nothing was done then).
    virtual std::shared_ptr<const void> end_capture(void* stream) = 0;
    virtual void replay(const void* graph, void* stream) = 0;

    /// Makes this device the calling thread's and returns the one that was; leave() goes back.
    virtual int enter() = 0;
    virtual void leave(int before) noexcept = 0;
};

QUERN_END
