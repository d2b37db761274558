// What an operator is: one OpDef, defined in one file of this folder and listed in ops.inc.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <span>
#include <string_view>
#include <vector>

#include "../graph/graph.hpp"
#include <quern/kernels/packs.hpp>

QUERN_BEGIN

/// Turns one ONNX node into nodes of the newest opset's form. The only place that sees opset numbers.
class ImportCtx {
public:
    std::int64_t opset = 0;
    Attrs attrs;  ///< as in the file; what stays in it goes into the node
    Graph& graph;
    std::vector<ValueId> in;  ///< no_value: absent
    int n_out = 0;            ///< number of outputs that the node has (absent ones included)

    bool has(std::size_t i) const { return i < in.size() && in[i] != no_value; }
    /// Raises invalid_model when the input is missing.
    const Fact& fact(std::size_t i) const {
        if (!has(i)) raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is missing");
        return graph.fact(in[i]);
    }
    /// A constant of the graph.
    virtual ValueId constant(Tensor t) = 0;
    ValueId constant_ints(const std::vector<std::int64_t>& v);
    /// An intermediate node of any listed operator (already in its newest form); facts are inferred.
    virtual std::vector<ValueId> add(std::string_view op, std::vector<ValueId> in, Attrs attrs = {}, int n_out = 1) = 0;
    /// The last node: its outputs are the ONNX node's outputs. Without a call of finish() or alias(), the
    /// importer adds the operator itself with `in` and `attrs`.
    virtual void finish(std::string_view op, std::vector<ValueId> in, Attrs attrs = {}) = 0;
    /// Output `o` of the ONNX node is the existing value `v`.
    virtual void alias(int o, ValueId v) = 0;
    [[noreturn]] void fail(ErrorCode code, std::string why) const { raise(code, std::move(why)); }
    [[noreturn]] void invalid(std::string why) const { raise(ErrorCode::invalid_model, std::move(why)); }
    [[noreturn]] void unsupported(std::string why) const { raise(ErrorCode::unsupported, std::move(why)); }
    /// Moves an attribute of an old opset to a constant input at `position`: int64 vector, or as given.
    void attr_to_input_ints(std::string_view name, std::size_t position);

protected:
    explicit ImportCtx(Graph& g) : graph(g) {}
    ~ImportCtx() = default;
};

/// Facts of the outputs from facts of the inputs; validates everything about the node. Called at import,
/// after each pass, and at run time with concrete facts (integer inputs as constants) for nodes whose output
/// sizes depend on data.
class InferCtx {
public:
    const Node& node;
    const Attrs& attrs;
    std::vector<const Fact*> inputs;  ///< null: absent
    std::vector<Fact> outputs;        ///< to be filled; preset to undefined
    bool concrete = false;            ///< at run time
    std::int64_t* fresh_counter = nullptr;

    explicit InferCtx(const Node& n) : node(n), attrs(n.attrs) {}
    int n_in() const { return static_cast<int>(inputs.size()); }
    int n_out() const { return static_cast<int>(outputs.size()); }
    bool has(int i) const { return i < n_in() && inputs[i] != nullptr; }
    /// Input fact i; raises invalid_model when the input is missing.
    const Fact& in(int i) const;
    Fact& out(int o) { return outputs[o]; }
    bool ranked(int i) const { return in(i).ranked; }
    void set(int o, DType t, std::vector<Dim> dims) { if (o < n_out()) outputs[o] = Fact::of(t, std::move(dims)); }
    void set_unranked(int o, DType t) { if (o < n_out()) { outputs[o] = Fact(); outputs[o].dtype = t; } }
    /// The content of an integer or bool input of rank 0 or 1 in symbols, if known.
    std::optional<std::vector<Dim>> ints(int i) const;
    /// The same where all numbers are known.
    std::optional<std::vector<std::int64_t>> const_ints(int i) const;
    /// Sets the symbolic content of an output (which must have been set with rank 0 or 1).
    void set_symbolic(int o, std::vector<Dim> content) { if (o < n_out()) outputs[o].symbolic = std::move(content); }
    /// A new symbol for a size that only data decides. Never call when `concrete`: there it raises unsupported.
    Dim fresh(const char* stem);
    /// `axis` in [-rank, rank) made non-negative; raises invalid_model otherwise.
    int axis(std::int64_t axis, int rank) const;
    /// Raises invalid_model saying what was found and what would be accepted.
    void need_type(int i, std::initializer_list<DType> accepted) const;
    void need_same_type(int i, int j) const;
    void need_rank(int i, int at_least, int at_most = 64) const;
    [[noreturn]] void fail(std::string why) const { raise(ErrorCode::shape_mismatch, std::move(why)); }
    [[noreturn]] void unsupported(std::string why) const { raise(ErrorCode::unsupported, std::move(why)); }
};

/// The broadcast of two lists of dims (https://onnx.ai/onnx/repo-docs/Broadcasting.html).
QUERN_API std::vector<Dim> broadcast(const std::vector<Dim>& a, const std::vector<Dim>& b);

/// A local rewriting, target-free. Everything goes through add and replace, so that it is named and checked.
class PatchCtx {
public:
    Graph& graph;
    const NodeId id;
    const std::vector<int>& uses;  ///< use counts before the patch
    const Node& node() const { return graph.nodes[id]; }
    const Fact& in(int i) const { return graph.fact(node().in[i]); }
    bool has(int i) const { return i < static_cast<int>(node().in.size()) && node().in[i] != no_value; }
    /// The producer of input i when it is `op` and nobody else uses that value; else null.
    const Node* sole_producer(int i, std::string_view op) const;
    const Node* producer(int i, std::string_view op) const;
    /// A constant; its name is made fresh from `stem`.
    ValueId constant(std::string_view stem, Tensor t);
    /// Adds a node (facts inferred at once) and returns its outputs.
    std::vector<ValueId> add(std::string_view op, std::string_view stem, std::vector<ValueId> in, Attrs attrs = {}, int n_out = 1);
    /// Uses of output `o` of this node become `v`; facts must agree in type and rank.
    void replace(int o, ValueId v);
    bool changed = false;  ///< set by replace()
    PatchCtx(Graph& g, NodeId n, const std::vector<int>& u) : graph(g), id(n), uses(u) {}
};

/// What a control operator's subgraph gets at its own inputs (`Graph::formals`).
struct FormalsCtx {
    const Attrs& attrs;
    std::vector<const Fact*> inputs;  ///< the node's own inputs; null: absent
    std::vector<const Fact*> said;    ///< what the subgraph declares of its inputs, or had before
    std::int64_t opset = 0;           ///< when importing; 0: the newest form
    std::vector<Fact> facts;          ///< to be filled: of the first iteration
    std::vector<int> from;            ///< to be filled: the output of the subgraph that comes back there, or -1
};

namespace detail {
/// The content of a short integer or bool tensor of rank 0 or 1 as numbers; nothing for others.
std::optional<std::vector<std::int64_t>> small_ints(const Tensor& t);
}

/// The facts of a node's inputs or outputs; null for those left out.
QUERN_API std::vector<const Fact*> facts_of(const Graph& g, const std::vector<ValueId>& ports);

/// Chooses the kernel. Facts may have symbolic dims; ranks and types are known.
class LowerCtx {
public:
    const Node& node;
    const Attrs& attrs;
    std::vector<const Fact*> inputs;
    std::vector<const Fact*> outputs;
    const Target& target;
    int n_in() const { return static_cast<int>(inputs.size()); }
    bool has(int i) const { return i < n_in() && inputs[i] != nullptr; }
    const Fact& in(int i) const { return *inputs[i]; }
    const Fact& out(int o) const { return *outputs[o]; }
    /// The constant at input i, aligned to its elements; undefined where it is not constant.
    Tensor constant(int i) const {
        if (!has(i) || !in(i).is_const()) return Tensor();
        return target.packs ? target.packs->aligned(in(i).value) : in(i).value.aligned();
    }
    /// The same as it lies in the model's bytes: for weights that a kernel packs byte by byte.
    Tensor raw_constant(int i) const { return has(i) ? in(i).value : Tensor(); }
};
struct Lowered {
    std::unique_ptr<Kernel> kernel;
    int view_of = -1;  ///< output 0 is input `view_of` under another shape: nothing moves
    Lowered(std::unique_ptr<Kernel> k) : kernel(std::move(k)) {}
    static Lowered view(int i) { Lowered l(nullptr); l.view_of = i; return l; }
};

/// Which types the kernels of an operator compute in; others are cast by the promotion pass: f16, bf16
/// and the float8 family to f32; bool and integers under 32 bits to i32; u32 and u64 to i64.
enum class Compute : std::uint8_t {
    any,    ///< every type directly (data movement, or the kernel converts itself)
    arith,  ///< f32, f64, i32, i64
    real,   ///< f32, f64
    f32,    ///< f32 only (f64 also goes to f32)
};

/// Types of input 0 that an operator's kernels on the CPU read and write themselves, beside those of `compute`; on a device they are cast.
enum class Narrow : std::uint8_t {
    none,
    halves,  ///< f16, bf16: the kernel converts a row at a time
    bytes,   ///< u8, i8
    any,
};

struct OpDef {
    const char* domain = "";  ///< "" is ai.onnx; "quern" for internal operators
    const char* name = "";
    int min_in = 0, max_in = 1 << 20;  ///< numbers of inputs
    int min_out = 1, max_out = 1;
    int newest = 0;  ///< newest opset revision of the operator that `import` knows (its schema's since_version)
    void (*import)(ImportCtx&) = nullptr;    ///< null: attributes and inputs stay as they are
    void (*infer)(InferCtx&) = nullptr;
    void (*simplify)(PatchCtx&) = nullptr;   ///< null: nothing to simplify
    Lowered (*lower)(const LowerCtx&) = nullptr;  ///< null: runs as control flow or never reaches the plan
    /// The kernel for target.device when that is not the CPU, or a reason, raised as unsupported. Null: there is none.
    Lowered (*lower_device)(const LowerCtx&) = nullptr;
    Compute compute = Compute::any;
    std::uint32_t promote_in = ~0u, promote_out = ~0u;  ///< which inputs and outputs `compute` speaks of
    Narrow narrow = Narrow::none;
    bool pure = true;     ///< same inputs, same outputs (not for random operators)
    bool control = false; ///< If, Loop, Scan: the plan runs subgraphs
    /// Takes or gives sequences, optionals or maps. Its kernel asks for no rank when it is made.
    bool boxed = false;
    void (*formals)(FormalsCtx&) = nullptr;  ///< control: null where subgraphs have no inputs of their own
};

/// The operator, or null.
QUERN_API const OpDef* find_op(std::string_view domain, std::string_view name) noexcept;
/// An operator of ai.onnx (or "domain::Name") that must exist.
QUERN_API const OpDef& op_named(std::string_view name);
/// All operators, in the order of ops.inc.
QUERN_API std::span<const OpDef* const> all_ops() noexcept;

/// Infers the outputs' facts of one node from the graph's facts (context of the node added to errors).
QUERN_API void infer_node(Graph& g, NodeId n);
/// All nodes, in order; keeps constants.
QUERN_API void infer_graph(Graph& g);

QUERN_END
