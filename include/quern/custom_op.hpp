// Operators that the application brings along: given to Model::load for that model; nothing global.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "executor.hpp"
#include "graph/dim.hpp"
#include "tensor.hpp"

QUERN_BEGIN

class Attrs;
class InferCtx;
struct Call;
struct Fact;
struct Node;

/// The attributes of a node. A getter gives `otherwise` where the attribute is absent and raises invalid_model where it is of another type.
class QUERN_API CustomAttributes {
public:
    bool has(std::string_view name) const noexcept;
    std::int64_t i(std::string_view name, std::int64_t otherwise = 0) const;
    float f(std::string_view name, float otherwise = 0) const;
    std::string s(std::string_view name, std::string otherwise = {}) const;
    std::vector<std::int64_t> ints(std::string_view name) const;
    std::vector<float> floats(std::string_view name) const;
    std::vector<std::string> strings(std::string_view name) const;
    Tensor tensor(std::string_view name) const;  ///< undefined where absent

    explicit CustomAttributes(const Attrs& a) noexcept : attrs_(&a) {}

private:
    const Attrs* attrs_;
};

/// A node before it runs: attributes, and what is known of its inputs.
class QUERN_API CustomNode : public CustomAttributes {
public:
    std::string_view name() const noexcept;
    int inputs() const noexcept;  ///< absent ones in between included
    int outputs() const noexcept;
    bool has_input(int i) const noexcept;
    DType type(int i) const;
    /// Whether the number of dimensions is known; dims() is empty otherwise.
    bool ranked(int i) const;
    /// Dimensions are numbers or expressions of the model's symbols (Dim): compute with them as with numbers.
    const std::vector<Dim>& dims(int i) const;
    /// The content of a constant input, else undefined.
    Tensor constant(int i) const;
    /// Ends with an error: unsupported, or shape_mismatch where the inputs do not fit.
    [[noreturn]] void unsupported(std::string why) const;
    [[noreturn]] void fail(std::string why) const;

    CustomNode(const Node& n, std::span<const Fact* const> in) noexcept;

protected:
    const Fact& input(int i) const;
    const Node& node_;
    std::span<const Fact* const> in_;
};

/// What infer() fills in: type and dimensions of each output.
class QUERN_API CustomInfer : public CustomNode {
public:
    void set(int output, DType type, std::vector<Dim> dims);
    /// The number of dimensions is not known before the node runs.
    void set_unranked(int output, DType type);
    /// A size that is not known yet. While the model runs, infer() is asked again, with numbers; what it leaves open then, CustomOp::sizes tells from the data.
    Dim unknown();
    /// While the model runs, for sizes that were open before: then every input's dims are numbers.
    bool concrete() const noexcept;

    explicit CustomInfer(InferCtx& c, bool has_sizes) noexcept;

private:
    InferCtx& ctx_;
    bool has_sizes_;
};

/// One run of a node. Tensors are dense and row-major. Strings are std::string elements.
class QUERN_API CustomRun {
public:
    const CustomAttributes& attributes() const noexcept { return attributes_; }
    /// What prepare() returned.
    const void* state() const noexcept { return state_; }
    template <class T> const T& state() const noexcept { return *static_cast<const T*>(state_); }

    int inputs() const noexcept;
    int outputs() const noexcept;
    bool has_input(int i) const noexcept;
    bool has_output(int o) const noexcept;  ///< false: nobody asks for it
    DType type(int i) const;
    std::span<const std::int64_t> shape(int i) const;
    DType output_type(int o) const;
    std::span<const std::int64_t> output_shape(int o) const;
    const void* data(int i) const;
    void* output_data(int o) const;
    /// The elements; raises invalid_argument where T is not their type.
    template <class T> std::span<const T> input(int i) const {
        return {static_cast<const T*>(checked(i, false, type_for<T>())), count(i, false)};
    }
    template <class T> std::span<T> output(int o) const {
        return {static_cast<T*>(const_cast<void*>(checked(o, true, type_for<T>()))), count(o, true)};
    }
    /// CustomOp::scratch bytes, 64-byte aligned, of undefined content.
    std::byte* scratch() const noexcept;
    /// Largest number of tiles that run at the same time.
    int threads() const noexcept;
    /// f(i) once for each i in [0, n), on the run's threads; not from inside f. Keep the answer independent of the number of threads.
    template <class F> void for_each(std::int64_t n, F&& f) const {
        using G = std::remove_reference_t<F>;
        run_tiles(n, [](void* c, std::int64_t i, int) { (*static_cast<G*>(c))(i); }, const_cast<void*>(static_cast<const void*>(&f)));
    }

    CustomRun(const Call& call, const CustomAttributes& a, const void* state) noexcept : call_(call), attributes_(a), state_(state) {}

private:
    template <class T> static constexpr DType type_for() { return std::is_same_v<T, std::string> ? DType::string : dtype_of<T>; }
    const void* checked(int i, bool output, DType t) const;
    std::size_t count(int i, bool output) const noexcept;
    void run_tiles(std::int64_t n, Executor::Tile tile, void* context) const;
    const Call& call_;
    const CustomAttributes& attributes_;
    const void* state_;
};

/// An operator. The functions are called from any thread, several at a time, and are kept as long as a model or engine that uses them.
/// An exception that leaves one of them becomes the error of the load or run, with the node's place.
struct CustomOp {
    std::string domain, name;
    int min_inputs = 1, max_inputs = 1, min_outputs = 1, max_outputs = 1;
    /// Checks the node and says what comes out. Called when loading, after each rewriting, and while running where sizes were open.
    std::function<void(CustomInfer&)> infer;
    /// Computes the outputs.
    std::function<void(const CustomRun&)> run;
    /// Optional: whatever can be decided once, when the model is compiled (tables, packed weights). Shared by all runs.
    std::function<std::shared_ptr<const void>(const CustomNode&)> prepare;
    /// Optional: bytes of scratch for these shapes; data must not be touched.
    std::function<std::size_t(const CustomRun&)> scratch;
    /// Where infer() used unknown(): the sizes, from the data; called before each run(), without outputs. dims[o] holds what infer() gave, 0 where unknown.
    std::function<void(const CustomRun&, std::span<std::vector<std::int64_t>> dims)> sizes;
    /// Same inputs, same outputs: may be computed when the model is compiled, and once for equal nodes.
    bool pure = true;
    /// Takes the place of an operator that quern has; without it that is an error.
    bool replaces_builtin = false;
};

QUERN_END
