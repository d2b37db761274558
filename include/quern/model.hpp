// The portable graph, loaded and checked.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dtype.hpp"
#include "error.hpp"
#include "options.hpp"

QUERN_BEGIN

class Engine;
struct CustomOp;  // custom_op.hpp
/// Operators of the application, for nodes of their domain and name.
using CustomOps = std::vector<std::shared_ptr<const CustomOp>>;

/// One dimension as declared: a number, or a name ("N", "seq + 1"), or unknown (both empty).
struct DimInfo {
    std::optional<std::int64_t> value;
    std::string symbol;
};
struct PortInfo {
    std::string name;
    DType dtype = DType::undefined;  ///< of the innermost tensors, where it is none itself
    bool ranked = false;  ///< false: the number of dimensions is not known before running
    std::vector<DimInfo> dims;
    Kind kind = Kind::tensor;
    DType key = DType::undefined;          ///< map: type of its keys
    std::shared_ptr<const PortInfo> elem;  ///< sequence: its items; optional: what it may hold; map: its values
};
/// Something that stops the model from running, as check() finds it.
struct Problem {
    ErrorCode code;
    std::string node, op, domain;
    std::int64_t opset = 0;
    std::string dtype;   ///< the types at the node's inputs
    std::string reason;  ///< what is wrong and what would be accepted
};

/// An ONNX model after import: opset-free, checked, weights still where the bytes are. Immutable and
/// cheap to copy. The file stays mapped as long as a Model, or an Engine that uses its weights, lives.
class QUERN_API Model {
public:
#if QUERN_HAS_EXCEPTIONS
    /// Maps and checks `path`. Raises io, invalid_model, unsupported.
    static Model load(const std::string& path, const LoadOptions& options = {}, const CustomOps& custom = {});
    /// Parses `bytes`, which must stay valid and unchanged as long as the model and its engines live.
    static Model from_bytes(std::span<const std::byte> bytes, const LoadOptions& options = {}, const CustomOps& custom = {});
    /// Plans the model for this machine. Raises unsupported, out_of_memory, invalid_argument.
    Engine compile(const Options& options = {}) const;
#endif
    static Result<Model> try_load(const std::string& path, const LoadOptions& options = {}, const CustomOps& custom = {}) noexcept;
    static Result<Model> try_from_bytes(std::span<const std::byte> bytes, const LoadOptions& options = {}, const CustomOps& custom = {}) noexcept;
    Result<Engine> try_compile(const Options& options = {}) const noexcept;

    const std::vector<PortInfo>& inputs() const noexcept;   ///< in the model's order, without initializers
    const std::vector<PortInfo>& outputs() const noexcept;
    /// The graph at a stage as text, "json" or "dot". Stages: "import", the passes by name, "final".
    std::string dump(std::string_view stage = "import", std::string_view format = "text", const Options& = {}) const;
    /// Writes the graph at a stage as an ONNX file that other tools can open.
    Result<void> save(const std::string& path, std::string_view stage = "import", const Options& = {}) const noexcept;

    struct Impl;
    explicit Model(std::shared_ptr<const Impl> p) : p_(std::move(p)) {}
    const Impl& impl() const noexcept { return *p_; }

private:
    friend class Engine;
    std::shared_ptr<const Impl> p_;
};

/// Lists everything that keeps a model from loading or compiling, all at once. Empty: it will run.
/// Fails only when the bytes are not a model at all.
QUERN_API Result<std::vector<Problem>> check(const std::string& path, const Options& = {}, const LoadOptions& = {}, const CustomOps& = {}) noexcept;
QUERN_API Result<std::vector<Problem>> check(std::span<const std::byte> bytes, const Options& = {}, const LoadOptions& = {}, const CustomOps& = {}) noexcept;

QUERN_END
#include "engine.hpp"
