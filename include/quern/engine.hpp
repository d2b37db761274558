// The plan for this machine.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model.hpp"
#include "tensor.hpp"
#include "value.hpp"

QUERN_BEGIN

/// A value of the model, resolved once from its name; valid for all sessions of one engine.
struct PortId {
    int index = -1;
    bool output = false;
};

using NamedTensor = std::pair<std::string, Tensor>;

/// A compiled model: kernels chosen, weights packed once. Immutable, thread-safe, cheap to copy (shared).
class QUERN_API Engine {
public:
#if QUERN_HAS_EXCEPTIONS
    /// One run, thread-safe: sessions are kept and reused inside. The outputs own their memory.
    std::vector<NamedTensor> run(const std::vector<NamedTensor>& inputs) const;
    /// The same for models with sequences, optionals or maps among their inputs or outputs. Optional inputs may be left out.
    std::vector<NamedValue> run_values(const std::vector<NamedValue>& inputs) const;
    PortId input(std::string_view name) const;
    PortId output(std::string_view name) const;
    /// Writes the engine to a file: the graph after all passes, packed weights, choices of kernels; of operators of the application their
    /// names. Raises io, and unsupported for an engine of a device.
    void save(const std::string& path) const;
    /// An engine from a file that save() wrote. The file is mapped and must not change while the engine lives. Of the options only those that
    /// concern running count (threads, executor, memory_limit, deadline); isa and backends must allow what the file was made for. `custom`
    /// must hold the operators of the application that the model was loaded with (others are not looked at). Raises
    /// io; invalid_model where the file is damaged; unsupported where this quern or this machine is another than the file's, or an operator is missing.
    static Engine load(const std::string& path, const Options& options = {}, const CustomOps& custom = {});
#endif
    Result<void> try_save(const std::string& path) const noexcept;
    static Result<Engine> try_load(const std::string& path, const Options& options = {}, const CustomOps& custom = {}) noexcept;
    Result<std::vector<NamedTensor>> try_run(const std::vector<NamedTensor>& inputs) const noexcept;
    Result<std::vector<NamedValue>> try_run_values(const std::vector<NamedValue>& inputs) const noexcept;
    Result<PortId> try_input(std::string_view name) const noexcept;
    Result<PortId> try_output(std::string_view name) const noexcept;

    const std::vector<PortInfo>& inputs() const noexcept;
    const std::vector<PortInfo>& outputs() const noexcept;
    /// One line per step: node, operator, kernel, and why better kernels refused.
    std::string describe() const;
    /// Bytes of packed weights, and how many times a weight was packed since compile() began
    /// (process-independent; stays constant however many sessions and shapes run).
    std::size_t packed_bytes() const noexcept;
    std::size_t packings() const noexcept;

    struct Impl;
    explicit Engine(std::shared_ptr<const Impl> p) : p_(std::move(p)) {}
    const Impl& impl() const noexcept { return *p_; }
    const std::shared_ptr<const Impl>& shared() const noexcept { return p_; }

private:
    std::shared_ptr<const Impl> p_;
};

QUERN_END
#include "session.hpp"
