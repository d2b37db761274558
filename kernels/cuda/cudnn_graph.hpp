// Convolutions as cuDNN's graphs, over its C interface: the graph, the engine that may run it, its plan.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <quern/error.hpp>
#include <quern/kernels/cuda/libraries.hpp>

#if defined(QUERN_HAVE_CUDNN_HEADER)
QUERN_BEGIN
namespace cuda {

/// One descriptor. Calls that the library refuses make it bad; `why` is then what the library says.
class DnnDescriptor {
public:
    DnnDescriptor(const Cudnn& dnn, cudnnBackendDescriptorType_t type) : dnn_(&dnn) { note(dnn.BackendCreateDescriptor(type, &d_), "creating a descriptor"); }
    DnnDescriptor(DnnDescriptor&& o) noexcept : why(std::move(o.why)), dnn_(o.dnn_), d_(std::exchange(o.d_, nullptr)) {}
    DnnDescriptor& operator=(DnnDescriptor&& o) noexcept {
        std::swap(dnn_, o.dnn_), std::swap(d_, o.d_), std::swap(why, o.why);
        return *this;
    }
    ~DnnDescriptor() {
        if (d_) (void)dnn_->BackendDestroyDescriptor(d_);
    }
    bool good() const noexcept { return why.empty(); }
    cudnnBackendDescriptor_t get() const noexcept { return d_; }

    template <class T>
    DnnDescriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::span<const T> v) {
        if (good()) note(dnn_->BackendSetAttribute(d_, name, type, static_cast<std::int64_t>(v.size()), v.data()), "an attribute");
        return *this;
    }
    DnnDescriptor& ints(cudnnBackendAttributeName_t name, std::span<const std::int64_t> v) { return set(name, CUDNN_TYPE_INT64, v); }
    template <class T>
    DnnDescriptor& one(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, T v) {
        return set(name, type, std::span<const T>(&v, 1));
    }
    DnnDescriptor& one(cudnnBackendAttributeName_t name, const DnnDescriptor& d) {
        if (good()) why = d.why;
        return one(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, d.get());
    }
    DnnDescriptor& finish(const char* what) {
        if (good()) note(dnn_->BackendFinalize(d_), what);
        return *this;
    }
    /// Up to `most` values of an attribute; descriptors: into those that stand there.
    template <class T>
    std::vector<T> all(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::vector<T> into) const {
        std::int64_t n = 0;
        if (dnn_->BackendGetAttribute(d_, name, type, static_cast<std::int64_t>(into.size()), &n, into.data()) != CUDNN_STATUS_SUCCESS) n = 0;
        into.resize(static_cast<std::size_t>(n < 0 ? 0 : n));
        return into;
    }
    std::string why;

private:
    void note(cudnnStatus_t s, const char* what) {
        if (s == CUDNN_STATUS_SUCCESS) return;
        why = std::string(what) + " (status " + std::to_string(static_cast<int>(s)) + ")";
        if (const std::string said = dnn_->last_error(); !said.empty()) why += ": " + said;
    }
    const Cudnn* dnn_;
    cudnnBackendDescriptor_t d_ = nullptr;
};

/// y = relu?(conv(x, w) + residual? + bias?); sums in f32.
struct DnnConv {
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    std::vector<std::int64_t> x, w, y;  ///< [N, C, d...], [M, C / group, k...], [N, M, o...]: two or three spatial dimensions
    std::vector<std::int64_t> before, after, stride, dilation;
    bool last = false;                  ///< channels are the innermost dimension of x, w, y and the residual
    bool bias = false, residual = false, relu = false;
};
/// What an engine may do. None compiles at run time, gives other bits when run again, or sums in a narrower type.
struct DnnRules {
    bool tensor_cores = false;  ///< f32: by rounding to TF32
    bool winograd = true;       ///< and FFT
    std::int64_t workspace = std::int64_t{256} << 20;
};
struct DnnPlan {
    enum Uid : std::int64_t { x = 1, w, y, bias, residual, sum, biased };
    std::vector<DnnDescriptor> parts;  ///< what the plan refers to
    std::int64_t workspace = 0, engine = -1;
    const DnnDescriptor& plan() const { return parts.back(); }
};

namespace dnn_detail {

inline DnnDescriptor tensor(const Cudnn& dnn, std::int64_t uid, cudnnDataType_t type, const std::vector<std::int64_t>& dims, bool last, bool inner) {
    std::vector<std::int64_t> strides(dims.size());
    std::int64_t n = 1;
    if (last) strides[1] = 1, n = dims[1];
    for (std::size_t d = dims.size(); d-- > 0;)
        if (!last || d != 1) strides[d] = n, n *= dims[d];
    DnnDescriptor t(dnn, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    t.one(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type).ints(CUDNN_ATTR_TENSOR_DIMENSIONS, dims).ints(CUDNN_ATTR_TENSOR_STRIDES, strides);
    t.one(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, uid).one(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, std::int64_t{16});
    if (inner) t.one(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, true);
    return std::move(t.finish("a tensor"));
}

struct Builder {
    const Cudnn& dnn;
    const DnnConv& c;
    std::vector<DnnDescriptor> parts = {};
    std::vector<std::size_t> operations = {};
    std::string why = {};

    std::size_t keep(DnnDescriptor d) {
        if (why.empty()) why = d.why;
        parts.push_back(std::move(d));
        return parts.size() - 1;
    }
    std::size_t tensor(std::int64_t uid, const std::vector<std::int64_t>& dims, bool inner = false) {
        return keep(dnn_detail::tensor(dnn, uid, inner ? CUDNN_DATA_FLOAT : c.type, dims, c.last, inner));
    }
    void pointwise(cudnnPointwiseMode_t mode, std::size_t a, std::optional<std::size_t> b, std::size_t y) {
        DnnDescriptor p(dnn, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
        p.one(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode).one(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT).finish("a function");
        const std::size_t f = keep(std::move(p));
        DnnDescriptor o(dnn, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
        o.one(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, parts[f]).one(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, parts[a]);
        if (b) o.one(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, parts[*b]);
        o.one(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, parts[y]);
        operations.push_back(keep(std::move(o.finish("an operation"))));
    }
    // The order that engines compiled ahead of time know: the residual before the bias.
    void graph() {
        int left = c.bias + c.residual + c.relu;
        auto next = [&](std::int64_t uid) { return --left < 0 ? tensor(DnnPlan::y, c.y) : tensor(uid, c.y, true); };
        const std::size_t x = tensor(DnnPlan::x, c.x), w = tensor(DnnPlan::w, c.w);
        std::size_t y = next(DnnPlan::sum);
        DnnDescriptor d(dnn, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
        d.one(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT).one(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
        d.one(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, static_cast<std::int64_t>(c.stride.size()));
        d.ints(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, c.before).ints(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, c.after).ints(CUDNN_ATTR_CONVOLUTION_DILATIONS, c.dilation);
        d.ints(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, c.stride).finish("a convolution");
        const std::size_t how = keep(std::move(d));
        DnnDescriptor o(dnn, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
        o.one(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, parts[x]).one(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, parts[w]).one(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, parts[y]);
        o.one(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, parts[how]);
        o.one(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1.0f).one(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 0.0f);
        operations.push_back(keep(std::move(o.finish("the convolution"))));
        auto follow = [&](cudnnPointwiseMode_t mode, std::optional<std::size_t> with, std::int64_t uid) {
            const std::size_t to = next(uid);
            pointwise(mode, y, with, to);
            y = to;
        };
        if (c.residual) follow(CUDNN_POINTWISE_ADD, tensor(DnnPlan::residual, c.y), DnnPlan::biased);
        if (c.bias) {
            std::vector<std::int64_t> dims(c.y.size(), 1);
            dims[1] = c.y[1];
            follow(CUDNN_POINTWISE_ADD, tensor(DnnPlan::bias, dims), DnnPlan::biased + 1);
        }
        if (c.relu) follow(CUDNN_POINTWISE_RELU_FWD, {}, DnnPlan::biased + 2);
    }
};
inline std::string refusal(const DnnDescriptor& engine, const DnnConv& c, const DnnRules& rules) {
    for (auto note : engine.all(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, std::vector<cudnnBackendBehaviorNote_t>(32)))
        if (note == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) return "compiles at run time";
    for (auto note : engine.all(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, std::vector<cudnnBackendNumericalNote_t>(32))) switch (note) {
            case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
                if (c.type == CUDNN_DATA_FLOAT && !rules.tensor_cores) return "rounds to TF32";
                break;
            case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS: return "rounds its operands";
            case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION: return "sums in a narrower type";
            case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC: return "gives other bits when run again";
            case CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP: break;
            default:
                if (!rules.winograd) return "Winograd or FFT";
        }
    return {};
}

}  // namespace dnn_detail

/// The best plan that the rules allow, in the order of cuDNN's heuristics; none: `why` says what was refused. The device is the
/// handle's or, where that is null, what the DEVICEPROP descriptor says (then the plan cannot run).
inline std::optional<DnnPlan> plan_convolution(const Cudnn& dnn, cudnnHandle_t handle, const DnnDescriptor* device, const DnnConv& c, const DnnRules& rules, std::string& why) {
    dnn_detail::Builder b{dnn, c};
    b.graph();
    DnnDescriptor graph(dnn, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (handle) graph.one(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
    std::vector<cudnnBackendDescriptor_t> operations;
    for (std::size_t o : b.operations) operations.push_back(b.parts[o].get());
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::span<const cudnnBackendDescriptor_t>(operations)).finish("the graph");
    why = b.why.empty() ? graph.why : b.why;
    if (!why.empty()) return std::nullopt;
    why.clear();
    int known = 0;
    for (auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
        DnnDescriptor search(dnn, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
        search.one(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph).one(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
#if CUDNN_VERSION >= 90800
        if (device) search.one(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device);
#endif
        search.finish("the search for engines");
        if (!search.good()) {
            why = search.why;
            continue;
        }
        std::vector<DnnDescriptor> configs;
        std::vector<cudnnBackendDescriptor_t> raw;
        std::int64_t n = 0;
        (void)dnn.BackendGetAttribute(search.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &n, nullptr);
        for (std::int64_t i = 0; i < n; ++i) raw.push_back(configs.emplace_back(dnn, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
        raw = search.all(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::move(raw));
        for (std::size_t i = 0; i < raw.size(); ++i, ++known) {
            DnnDescriptor engine(dnn, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
            if (configs[i].all(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::vector{engine.get()}).empty()) continue;
            if (std::string r = dnn_detail::refusal(engine, c, rules); !r.empty()) {
                why = r;
                continue;
            }
            DnnDescriptor plan(dnn, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
            if (handle) plan.one(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle);
            plan.one(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configs[i]);
#if CUDNN_VERSION >= 90800
            if (device) plan.one(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *device);
#endif
            plan.finish("a plan");
            if (!plan.good()) {
                why = plan.why;
                continue;
            }
            DnnPlan made;
            for (std::int64_t v : plan.all(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, std::vector<std::int64_t>(1))) made.workspace = v;
            if (made.workspace > rules.workspace) {
                why = "takes " + std::to_string(made.workspace) + " bytes beside its operands";
                continue;
            }
            for (std::int64_t v : engine.all(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, std::vector<std::int64_t>(1))) made.engine = v;
            made.parts = std::move(b.parts);
            made.parts.push_back(std::move(graph));
            made.parts.push_back(std::move(configs[i]));
            made.parts.push_back(std::move(plan));
            why.clear();
            return made;
        }
    }
    why = "none of " + std::to_string(known) + " engines" + (why.empty() ? "" : "; the last: " + why);
    return std::nullopt;
}

/// Enqueues the plan; operands that the graph does not have are not read. Why that could not be done; empty: it was.
inline std::string execute(const Cudnn& dnn, cudnnHandle_t handle, const DnnPlan& p, std::span<const std::int64_t> uids, std::span<void* const> data, void* workspace) {
    DnnDescriptor pack(dnn, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, data).ints(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, uids);
    pack.one(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace).finish("the operands");
    if (!pack.good()) return pack.why;
    if (cudnnStatus_t s = dnn.BackendExecute(handle, p.plan().get(), pack.get()); s != CUDNN_STATUS_SUCCESS)
        return "running a plan failed (status " + std::to_string(static_cast<int>(s)) + "): " + dnn.last_error();
    return {};
}

}  // namespace cuda
QUERN_END
#endif
