// The graph: values and nodes by id, facts, attributes.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "../device.hpp"
#include "../tensor.hpp"
#include "dim.hpp"

QUERN_BEGIN

struct OpDef;
/// What the graph needs to know of an operator: its names. Defined by ops/.
QUERN_API const char* op_name(const OpDef&) noexcept;
QUERN_API const char* op_domain(const OpDef&) noexcept;
struct Graph;
using ValueId = std::int32_t;
using NodeId = std::int32_t;
inline constexpr ValueId no_value = -1;

/// What is known of a value before running.
struct Fact {
    DType dtype = DType::undefined;  ///< of the innermost tensors, where it is none itself
    Kind kind = Kind::tensor;
    DType key = DType::undefined;    ///< map: type of the keys
    /// Sequence: its elements; optional: what it may hold; map: its values. Dims in it that are not numbers stand for any size.
    std::shared_ptr<const Fact> elem;
    bool ranked = false;      ///< dims is meaningful
    std::vector<Dim> dims;
    Tensor value;             ///< the constant content, if defined()
    /// Content of an integer or bool tensor of rank 0 or 1 in terms of symbols.
    std::optional<std::vector<Dim>> symbolic;

    static Fact of(DType t, std::vector<Dim> d) { Fact f; f.dtype = t; f.ranked = true; f.dims = std::move(d); return f; }
    static Fact constant(Tensor t);
    static Fact sequence_of(Fact elem);
    static Fact optional_of(Fact elem);
    static Fact map_of(DType key, Fact elem);
    bool is_const() const noexcept { return value.defined(); }
    int rank() const noexcept { return static_cast<int>(dims.size()); }
    /// All dims are numbers.
    bool concrete() const noexcept;
    Shape shape() const;  ///< when concrete()
    std::string to_string() const;  ///< "float[N, 3, 224, 224]"
};

using Attr = std::variant<std::int64_t, float, std::string, Tensor, std::vector<std::int64_t>, std::vector<float>,
                          std::vector<std::string>, std::shared_ptr<const Graph>, std::shared_ptr<const Fact>>;

/// A node's attributes, in the newest opset's form.
class QUERN_API Attrs {
public:
    bool has(std::string_view name) const noexcept { return find(name) != nullptr; }
    const Attr* find(std::string_view name) const noexcept;
    void set(std::string name, Attr value);
    void erase(std::string_view name);
    /// The attribute, or `otherwise` where absent; raises invalid_model when it has another type.
    std::int64_t i(std::string_view name, std::int64_t otherwise) const;
    float f(std::string_view name, float otherwise) const;
    std::string s(std::string_view name, std::string otherwise) const;
    std::vector<std::int64_t> ints(std::string_view name, std::vector<std::int64_t> otherwise = {}) const;
    std::vector<float> floats(std::string_view name, std::vector<float> otherwise = {}) const;
    std::vector<std::string> strings(std::string_view name, std::vector<std::string> otherwise = {}) const;
    Tensor tensor(std::string_view name) const;  ///< undefined where absent
    std::shared_ptr<const Graph> graph(std::string_view name) const;  ///< null where absent
    std::shared_ptr<const Fact> type(std::string_view name) const;    ///< null where absent
    const std::vector<std::pair<std::string, Attr>>& all() const noexcept { return v_; }

private:
    std::vector<std::pair<std::string, Attr>> v_;  // sorted by name
};

struct GraphValue {
    std::string name;   ///< ONNX's name; unique in the graph
    Fact fact;
    NodeId producer = -1;  ///< -1: graph input, constant
};
struct Node {
    const OpDef* op = nullptr;  ///< null: removed
    std::string name;
    std::string origin;  ///< "Conv, opset 11" as imported: for messages only
    Attrs attrs;
    std::vector<ValueId> in;   ///< no_value for an absent optional input
    std::vector<ValueId> out;  ///< no_value for an absent optional output
    Device device = Device::cpu;  ///< where it runs and where its outputs are (placement pass)
    std::string placement;        ///< why it is not on the device that was asked for
};

/// Nodes and values by id. Removed nodes leave a hole; ids stay valid. Values of an outer graph that a
/// subgraph uses are explicit: extra inputs of the node, bound to the subgraph's `inputs` after its own.
struct QUERN_API Graph {
    std::string name;
    std::vector<GraphValue> values;
    std::vector<Node> nodes;
    std::vector<ValueId> inputs, outputs;
    std::size_t formals = 0;                ///< subgraphs: the first inputs, which the operator binds; the others are captured
    std::vector<std::string> output_names;  ///< as declared, one for each output (several may be one value)

    ValueId add_value(std::string name, Fact fact);
    /// A constant, shared if the same tensor storage is already there under that name.
    ValueId add_constant(std::string name, Tensor t);
    NodeId add_node(const OpDef& op, std::string name, std::vector<ValueId> in, std::vector<ValueId> out, Attrs attrs = {});
    void remove_node(NodeId n);
    /// Every use of `from` (inputs of nodes, graph outputs) becomes `to`.
    void replace_uses(ValueId from, ValueId to);
    std::string fresh_name(std::string_view stem) const;

    const Fact& fact(ValueId v) const { return values[v].fact; }
    Fact& fact(ValueId v) { return values[v].fact; }
    Node* producer(ValueId v) { return v < 0 || values[v].producer < 0 ? nullptr : &nodes[values[v].producer]; }
    const Node* producer(ValueId v) const { return v < 0 || values[v].producer < 0 ? nullptr : &nodes[values[v].producer]; }
    /// Number of uses of each value, graph outputs included.
    std::vector<int> use_counts() const;
    /// The nodes in an order where producers come first; stable. Raises invalid_model on a cycle.
    std::vector<NodeId> order() const;
    /// Raises internal when ids, producers, uniqueness of names or acyclicity are broken.
    void verify() const;
    /// A deep copy (tensors shared).
    Graph clone() const { return *this; }

private:
    mutable std::int64_t next_name_ = 0;
};

/// "node 'x' (Conv, opset 11)"
QUERN_API std::string place_of(const Node&);

QUERN_END
