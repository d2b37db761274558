// The mutable state of one run.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "engine.hpp"

QUERN_BEGIN

/// Time of one step in the last profiled run.
struct StepTime {
    std::string node, op, kernel;
    double start_us = 0, micros = 0;
    double inner_us = 0;  ///< of these, in the steps of its subgraphs, which are listed too
};

/// One run's activations. Not thread-safe; make one per thread, they share the engine's weights.
/// After the first run of a shape, runs of that shape allocate nothing.
class QUERN_API Session {
public:
#if QUERN_HAS_EXCEPTIONS
    explicit Session(const Engine& engine);
    /// A tensor of `shape` inside the session to be filled before run(); the shape may be left out
    /// where the model declares every dimension. Valid until the session ends or the shape changes.
    Tensor& input(std::string_view name, const Shape& shape);
    Tensor& input(std::string_view name);
    /// Uses the caller's tensor (no copy); it must stay unchanged until run() returns.
    void bind(std::string_view name, const Tensor& tensor);
    void bind(PortId port, const Tensor& tensor);
    /// A sequence, optional or map (or a tensor). Inputs that are optionals are nothing until they are bound.
    void bind(std::string_view name, const Value& value);
    /// Lets output `name` be written into the caller's tensor; run() raises shape_mismatch when the shape that came out is another. On the CPU the step
    /// that makes it writes there, where the memory is aligned to its elements and apart from that of inputs and other outputs, and the output is
    /// neither an input nor a constant; else it is copied at the end of run(). A run that failed may have written there.
    void bind_output(std::string_view name, Tensor tensor);
    /// Keys or values of text decoding that grow where they are, without being copied. `memory` is the caller's (as for bind(): the device's with Options::device_io), float [B, H, C, D] with
    /// room for C positions. `input` [B, H, P, D] is the first `length` of each head; run() writes what `output` has beyond that behind them, and the next
    /// run's input is then as long as this output was: no binding between runs. After a run that failed the input is as it was. A shorter `length`
    /// goes back in the text. output() gives `memory`. Ends with bind() of the input.
    /// Raises unsupported where the model does more with the two than to append [axis 2] and to look at the result by attention, or where one of them
    /// has to cross between host and device; run() raises shape_mismatch where room is missing, and invalid_argument where the memory is that of another input or output.
    void bind_cache(std::string_view input, std::string_view output, const Tensor& memory, std::int64_t length = 0);
    void run();
    /// The output of the last run: a view into the session, valid until the next run.
    const Tensor& output(std::string_view name) const&;
    const Tensor& output(PortId port) const&;
    const Tensor& output(std::string_view name) const&& = delete;
    /// An output of any kind. Sequences and maps may be copied and kept; a tensor is a view as output() gives it.
    const Value& output_value(std::string_view name) const&;
    /// A value named in Options::taps after a run; a view as output().
    const Tensor& tap(std::string_view name) const&;
#endif
    static Result<Session> try_create(const Engine& engine) noexcept;
    Result<void> try_bind(std::string_view name, const Tensor& tensor) noexcept;
    Result<void> try_bind(PortId port, const Tensor& tensor) noexcept;
    Result<void> try_bind(std::string_view name, const Value& value) noexcept;
    Result<Value> try_output_value(std::string_view name) const noexcept;
    Result<void> try_bind_output(std::string_view name, Tensor tensor) noexcept;
    Result<void> try_bind_cache(std::string_view input, std::string_view output, const Tensor& memory, std::int64_t length = 0) noexcept;
    Result<void> try_run() noexcept;
    Result<Tensor> try_output(std::string_view name) const noexcept;
    Result<Tensor> try_tap(std::string_view name) const noexcept;

    /// With a device: the stream (cudaStream_t) of runs, which must live until another one is given (which waits for the runs before) or the session
    /// ends; null: the session's own. With Options::device_io run() does not wait for it, but where a node on the CPU reads from the device.
    void stream(void* stream) noexcept;
    void* stream() const noexcept;
    /// From any thread: the run that is on, or else the next one, fails with `cancelled` at its next tile of work. The session can run
    /// again after that.
    void cancel() noexcept;
    /// Records the time of each step from the next run on.
    void profile(bool on) noexcept;
    std::vector<StepTime> times() const;
    std::string profile_table() const;  ///< by node, with shares, slowest first
    std::string profile_trace() const;  ///< Chrome trace-event JSON (chrome://tracing, Perfetto)
    /// Bytes of activations and scratch that the session holds now.
    std::size_t memory_bytes() const noexcept;
    /// Gives back what is held for shapes other than the last one.
    void trim() noexcept;

    struct Impl;
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;
    ~Session();

private:
    explicit Session(std::unique_ptr<Impl> p) noexcept;
    std::unique_ptr<Impl> p_;
};

QUERN_END
