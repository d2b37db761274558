// The schedule of one graph: steps with their kernels, where values live, when sizes are known.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <quern/kernels/device.hpp>

#include "../graph/graph.hpp"
#include "../ops/op.hpp"
#include "packs.hpp"

QUERN_BEGIN

/// A value as the run loop sees it.
struct PlanValue {
    enum class Home : std::uint8_t {
        unused,
        input,     ///< bound by the caller; index = number of the input
        constant,
        symbolic,  ///< integers written when shapes are resolved
        arena,
        view,      ///< the memory of another value
        columns,   ///< columns of another value, which has `pitch` of them, or a piece of its memory
        box,       ///< a Value of the runner: sequences, optionals, maps
        held,      ///< memory that a control step or an element of a box keeps: known when its step runs
    };
    Home home = Home::unused;
    int index = -1;          ///< input: its number; view, columns: the value it looks at
    int root = -1;           ///< the value that owns the memory
    std::int64_t first = 0, pitch = 0;  ///< columns: the first one's number, and all of the root's; 0: the elements from `first` on, in one piece
    DType dtype = DType::undefined;
    Kind kind = Kind::tensor;
    bool ranked = false;     ///< values of another kind than tensor: true, without dims
    std::vector<int> dims;   ///< slots of the dim program, when ranked
    std::vector<int> content;  ///< symbolic: slots of the elements
    Tensor constant;
    Device device = Device::cpu;           ///< where the memory is
    std::shared_ptr<const void> uploaded;  ///< a constant on the device
    int made = -1;           ///< step that makes it; -1: before the first (on roots: the first that writes any of its columns)
    int last = -1;           ///< last step that reads the memory; steps.size() for outputs (on roots: of all views too)
    std::string name;
};

/// Weights that a device kernel packed, in device memory.
struct DeviceWeights {
    std::vector<Tensor> tensors;
    std::vector<View> views;
};
/// What crosses between memories at a step without a kernel.
enum class Transfer : std::uint8_t { none, to_device, to_host, on_device };

struct Plan;

/// One kernel call, view or control node.
struct PlanStep {
    std::unique_ptr<Kernel> kernel;  ///< null for views, control and late lowering
    int view_of = -1;
    int takes = -1;           ///< the input whose Value may become output 0's, for it is not needed afterwards
    bool late = false;        ///< output sizes are known only from data: starts a segment
    bool late_lower = false;  ///< ranks are not known when planning: the kernel is chosen at run time
    bool control = false;
    bool placed = false;      ///< without a kernel: its inputs are written where its output is
    bool boxed = false;       ///< some input or output is a sequence, optional or map: its kernel asks for no ranks
    bool check = false;       ///< what its shapes must satisfy does not follow from the symbols: verified when they are known
    std::vector<int> in, out;             ///< values; -1: absent
    std::vector<std::shared_ptr<const Plan>> branches;  ///< control: the plan of each subgraph, by attribute name
    NodeId node = -1;
    std::vector<std::string> refusals;
    std::vector<std::string> accepted;  ///< when tuning: kernels to choose from
    Device device = Device::cpu;
    Transfer transfer = Transfer::none;
    bool on_host = false;      ///< with a device: reads or writes memory of the host when its turn comes
    bool marked = false;       ///< a copy between memories that a later step may have to wait for
    int reads_copy = -1;       ///< the last copy to the host (a step) whose result this step reads there
    /// A copy to the device that may run beside what was enqueued before it: its result's memory is its own from this step on, for the host
    /// has waited for all that was enqueued earlier. -1: it takes its turn in the stream.
    int beside = -1;
    std::unique_ptr<DeviceWeights> weights;
    std::size_t packings = 0;  ///< weights packed when the kernel was made
    bool stored = false;       ///< the kernel's packed weights are in the store: sources that it does not read need not be kept
};

/// Immutable; shared by all sessions of an engine.
struct Plan {
    Graph graph;              ///< kept for names, attributes and late inference
    std::vector<PlanValue> values;
    std::vector<PlanStep> steps;
    std::vector<int> segments;  ///< first step of each segment; the first is 0
    std::vector<int> inputs, outputs;
    /// Outputs that are an input with more rows, and whose other readers take rows with room behind them: numbers in inputs and outputs.
    struct Cache { int input, output; };
    std::vector<Cache> caches;
    std::vector<std::pair<std::string, int>> taps;
    DimProgram program;
    /// Symbols bound by the inputs: slot, input, dimension. Others are bound by late steps.
    struct Bind { int slot, input, dim; };
    std::vector<Bind> binds;
    Target target;
    std::vector<const Backend*> backends;
    std::size_t packed_bytes = 0, packings = 0;
    std::vector<PlanPack> packs;  ///< of nested plans too; in the outermost plan
    int depth = 0;
    std::shared_ptr<DeviceApi> device;  ///< null: everything runs on the CPU
    /// [first, past last): steps that only enqueue on the device and depend on nothing but addresses, to be recorded as one.
    std::vector<std::pair<int, int>> recordable;
};

/// Constants that are in device memory, shared by the engines of a model for as long as one of them lives. Thread-safe.
class QUERN_API DeviceConstants {
public:
    /// The bytes of `t` on the device, uploaded now or before.
    std::shared_ptr<const void> upload(const std::shared_ptr<DeviceApi>& api, const Tensor& t);
    /// The device, opened now or before.
    std::shared_ptr<DeviceApi> open(const Backend& backend, int ordinal, const Options& options);

private:
    struct Held {
        const DeviceApi* api;
        const void* bytes;
        std::size_t size;
        std::weak_ptr<const void> memory;  // keeps its host tensor alive, so that the address stays its own
    };
    std::mutex lock_;
    std::vector<Held> held_;
    std::vector<std::pair<std::pair<const Backend*, int>, std::weak_ptr<DeviceApi>>> open_;
};

struct PlanOptions {
    Target target;
    std::vector<std::string> taps;
    std::size_t memory_limit = 0;
    int depth = 0;
    const LogCallback* log = nullptr;
    std::shared_ptr<DeviceApi> device;
    DeviceConstants* constants = nullptr;  ///< with a device
    bool device_io = false;
    bool tune = false;            ///< notes what kernels accept each node
    PackStore* store = nullptr;   ///< null: every kernel's packed weights are memory of their own
    std::string path;             ///< before the names of the nodes in PlanPack: where a nested graph hangs
    Workers* workers = nullptr;   ///< kernels are made beside each other on these
};
/// Schedules the graph and makes every kernel. Raises unsupported for nodes without one.
QUERN_API std::shared_ptr<const Plan> make_plan(Graph graph, const PlanOptions& options);

/// Infers the step's node again from the sizes in `slots` (of the dim program). Raises shape_mismatch or what
/// inference raises where the inputs do not fit each other or the outputs differ from the plan's. Late and
/// control steps do this by themselves.
QUERN_API void verify_step(const Plan& plan, int step, const std::int64_t* slots);

/// The attribute of a node that names its kernel; nothing else knows it.
inline constexpr std::string_view chosen_kernel = "quern_kernel";

/// The kernel that copies input `from` to output 0, and the same for two views of equal count.
std::unique_ptr<Kernel> make_copy(int from);
void copy_elements(const View& from, const View& to);

/// One line per step for `inspect`: node, operator, kernel, outputs, reasons of refusals.
QUERN_API std::string describe_plan(const Plan& plan);

QUERN_END
