// A twin of cuDNN for the emulated device: the functions that quern calls, built as a library of the real one's name. Graphs of one
// convolution, then a residual, then a bias, then ReLU, as engines that are compiled ahead of time know them; computed in double
// on the stream. Its search for engines gives first those that quern's rules must refuse.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dnn_twin.hpp"

struct cudnnContext {
    cudaStream_t stream = nullptr;
};

namespace {

struct Object {
    cudnnBackendDescriptorType_t type;
    bool finished = false;
    std::map<int, std::vector<unsigned char>> bytes;
    std::map<int, std::vector<std::shared_ptr<Object>>> children;
    int engine = 0;

    template <class T>
    std::vector<T> all(int name) const {
        auto it = bytes.find(name);
        if (it == bytes.end()) return {};
        std::vector<T> v(it->second.size() / sizeof(T));
        std::memcpy(v.data(), it->second.data(), v.size() * sizeof(T));
        return v;
    }
    template <class T>
    T one(int name, T otherwise = T{}) const {
        auto it = bytes.find(name);
        if (it != bytes.end() && it->second.size() >= sizeof(T)) std::memcpy(&otherwise, it->second.data(), sizeof(T));
        return otherwise;
    }
    std::shared_ptr<Object> child(int name, std::size_t i = 0) const {
        auto it = children.find(name);
        return it == children.end() || it->second.size() <= i ? nullptr : it->second[i];
    }
};
using Pointer = std::shared_ptr<Object>;

thread_local std::string error;
cudnnStatus_t fail(cudnnStatus_t s, std::string why) { return error = std::move(why), s; }
twin::Control control;

std::size_t size_of(cudnnBackendAttributeType_t t) {
    switch (t) {
        case CUDNN_TYPE_BOOLEAN: return 1;
        case CUDNN_TYPE_INT64: case CUDNN_TYPE_VOID_PTR: case CUDNN_TYPE_HANDLE: case CUDNN_TYPE_DOUBLE: return 8;
        default: return 4;
    }
}
Pointer* object(cudnnBackendDescriptor_t d) { return static_cast<Pointer*>(d); }
std::vector<std::int64_t> dims(const Pointer& t) { return t->all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS); }

// The one form of graph that is known, taken apart.
struct Graph {
    Pointer x, w, y, residual, bias, how;
    bool relu = false;
};
cudnnStatus_t take_apart(const Object& g, Graph& out) {
    auto it = g.children.find(CUDNN_ATTR_OPERATIONGRAPH_OPS);
    if (it == g.children.end() || it->second.empty()) return fail(CUDNN_STATUS_BAD_PARAM, "a graph without operations");
    const auto& ops = it->second;
    if (ops[0]->type != CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR) return fail(CUDNN_STATUS_NOT_SUPPORTED, "the first operation is no convolution");
    out.x = ops[0]->child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X), out.w = ops[0]->child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W);
    out.how = ops[0]->child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC);
    Pointer sum = ops[0]->child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
    const auto full = dims(sum);
    for (std::size_t i = 1; i < ops.size(); ++i) {
        if (ops[i]->type != CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR || out.relu) return fail(CUDNN_STATUS_NOT_SUPPORTED, "an operation that no engine has there");
        if (ops[i]->child(CUDNN_ATTR_OPERATION_POINTWISE_XDESC) != sum) return fail(CUDNN_STATUS_BAD_PARAM, "operations that do not follow each other");
        if (!sum->one<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL)) return fail(CUDNN_STATUS_NOT_SUPPORTED, "a tensor in between that is not virtual");
        const int mode = ops[i]->child(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)->one<int>(CUDNN_ATTR_POINTWISE_MODE);
        Pointer b = ops[i]->child(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
        if (mode == CUDNN_POINTWISE_RELU_FWD && !b) {
            out.relu = true;
        } else if (mode == CUDNN_POINTWISE_ADD && b && dims(b) == full && !out.bias && !out.residual) {
            out.residual = b;
        } else if (mode == CUDNN_POINTWISE_ADD && b && !out.bias) {
            std::vector<std::int64_t> channels(full.size(), 1);
            channels[1] = full[1];
            if (dims(b) != channels) return fail(CUDNN_STATUS_NOT_SUPPORTED, "a bias of another shape");
            out.bias = b;
        } else {
            return fail(CUDNN_STATUS_NOT_SUPPORTED, "an operation that no engine has there");
        }
        sum = ops[i]->child(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
        if (!sum || dims(sum) != full) return fail(CUDNN_STATUS_BAD_PARAM, "the result of an operation has another shape");
    }
    if (sum->one<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL)) return fail(CUDNN_STATUS_BAD_PARAM, "the graph's result is virtual");
    out.y = sum;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t check(Object& o) {
    switch (o.type) {
        case CUDNN_BACKEND_TENSOR_DESCRIPTOR: {
            const auto d = o.all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS), s = o.all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
            if (d.size() < 4 || d.size() > 5 || s.size() != d.size()) return fail(CUDNN_STATUS_BAD_PARAM, "a tensor of " + std::to_string(d.size()) + " dimensions");
            return std::any_of(d.begin(), d.end(), [](auto n) { return n < 1; }) ? fail(CUDNN_STATUS_BAD_PARAM, "a dimension below 1") : CUDNN_STATUS_SUCCESS;
        }
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR: {
            const Pointer how = o.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC), xt = o.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X), wt = o.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W), yt = o.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
            if (!how || !xt || !wt || !yt) return fail(CUDNN_STATUS_BAD_PARAM, "a convolution without its operands");
            const auto x = dims(xt), w = dims(wt), y = dims(yt);
            const auto before = how->all<std::int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS), after = how->all<std::int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
            const auto step = how->all<std::int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES), wide = how->all<std::int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS);
            const std::size_t n = x.size() - 2;
            if (before.size() != n || after.size() != n || step.size() != n || wide.size() != n || how->one<std::int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) != static_cast<std::int64_t>(n))
                return fail(CUDNN_STATUS_BAD_PARAM, "the convolution's lists are not as long as it has dimensions");
            bool good = x[0] == y[0] && w[0] == y[1] && x[1] % w[1] == 0 && w[0] % (x[1] / w[1]) == 0;
            for (std::size_t d = 0; d < n; ++d) good = good && (x[d + 2] + before[d] + after[d] - wide[d] * (w[d + 2] - 1) - 1) / step[d] + 1 == y[d + 2];
            return good ? CUDNN_STATUS_SUCCESS : fail(CUDNN_STATUS_BAD_PARAM, "the result of the convolution has another shape");
        }
        case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: {
            Graph g;
            return take_apart(o, g);
        }
        case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: {
            Graph g;
            if (take_apart(*o.child(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH), g) != CUDNN_STATUS_SUCCESS) return CUDNN_STATUS_NOT_SUPPORTED;
            const bool fused = g.bias || g.residual || g.relu;
            if (control.refuse == twin::Refuse::everything || (control.refuse == twin::Refuse::fused && fused)) return fail(CUDNN_STATUS_NOT_SUPPORTED, "told to refuse");
            return CUDNN_STATUS_SUCCESS;
        }
        case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
            if (o.child(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->engine == twin::fails) return fail(CUDNN_STATUS_NOT_SUPPORTED, "an engine that cannot");
            return CUDNN_STATUS_SUCCESS;
        default: return CUDNN_STATUS_SUCCESS;
    }
}

struct Operand {
    const void* data = nullptr;
    int type = 0;
    std::vector<std::int64_t> strides;
    Operand(const Pointer& t, const std::map<std::int64_t, void*>& at) {
        if (!t) return;
        data = at.at(t->one<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID));
        type = t->one<int>(CUDNN_ATTR_TENSOR_DATA_TYPE);
        strides = t->all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
    }
    double get(std::int64_t i) const {
        switch (type) {
            case CUDNN_DATA_HALF: return __half2float(static_cast<const __half*>(data)[i]);
            case CUDNN_DATA_BFLOAT16: return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
            default: return static_cast<const float*>(data)[i];
        }
    }
    void set(std::int64_t i, double v) const {
        void* p = const_cast<void*>(data);
        switch (type) {
            case CUDNN_DATA_HALF: static_cast<__half*>(p)[i] = __float2half_rn(static_cast<float>(v)); break;
            case CUDNN_DATA_BFLOAT16: static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16_rn(static_cast<float>(v)); break;
            default: static_cast<float*>(p)[i] = static_cast<float>(v);
        }
    }
};
struct Run {
    Graph g;
    std::map<std::int64_t, void*> at;
    void* workspace;
};
void compute(const Run& r) {
    const Operand x(r.g.x, r.at), w(r.g.w, r.at), y(r.g.y, r.at), bias(r.g.bias, r.at), residual(r.g.residual, r.at);
    auto flat = [](std::vector<std::int64_t> d) {  // two spatial dimensions as three
        if (d.size() == 4) d.insert(d.begin() + 2, 1);
        return d;
    };
    const auto xd = flat(dims(r.g.x)), wd = flat(dims(r.g.w)), yd = flat(dims(r.g.y));
    auto list = [&](int name, std::int64_t fill) {
        auto v = r.g.how->all<std::int64_t>(name);
        if (v.size() == 2) v.insert(v.begin(), fill);
        return v;
    };
    auto stride = [&](const Operand& o) { return flat(o.strides); };
    const auto pad = list(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 0), step = list(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 1), wide = list(CUDNN_ATTR_CONVOLUTION_DILATIONS, 1);
    const auto xs = stride(x), ws = stride(w), ys = stride(y);
    const std::int64_t group = xd[1] / wd[1], each = yd[1] / group;
    std::vector<double> row(static_cast<std::size_t>(yd[4]));
    for (std::int64_t n = 0; n < yd[0]; ++n)
        for (std::int64_t m = 0; m < yd[1]; ++m)
            for (std::int64_t a = 0; a < yd[2]; ++a)
                for (std::int64_t h = 0; h < yd[3]; ++h) {
                    std::fill(row.begin(), row.end(), 0);
                    for (std::int64_t c = 0; c < wd[1]; ++c)
                        for (std::int64_t p = 0; p < wd[2]; ++p)
                            for (std::int64_t q = 0; q < wd[3]; ++q)
                                for (std::int64_t s = 0; s < wd[4]; ++s) {
                                    const std::int64_t z = a * step[0] + p * wide[0] - pad[0], u = h * step[1] + q * wide[1] - pad[1];
                                    if (z < 0 || z >= xd[2] || u < 0 || u >= xd[3]) continue;
                                    const double k = w.get(m * ws[0] + c * ws[1] + p * ws[2] + q * ws[3] + s * ws[4]);
                                    for (std::int64_t o = 0; o < yd[4]; ++o) {
                                        const std::int64_t v = o * step[2] + s * wide[2] - pad[2];
                                        if (v >= 0 && v < xd[4]) row[static_cast<std::size_t>(o)] += k * x.get(n * xs[0] + (m / each * wd[1] + c) * xs[1] + z * xs[2] + u * xs[3] + v * xs[4]);
                                    }
                                }
                    for (std::int64_t o = 0; o < yd[4]; ++o) {
                        const std::int64_t i = n * ys[0] + m * ys[1] + a * ys[2] + h * ys[3] + o * ys[4];
                        double v = row[static_cast<std::size_t>(o)];
                        if (residual.data) v += residual.get(i);
                        if (bias.data) v += bias.get(m);
                        y.set(i, r.g.relu && v < 0 ? 0 : v);
                    }
                }
    std::memset(r.workspace, 0x5A, static_cast<std::size_t>(twin::workspace));
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) twin::Control* quern_twin_control() { return &control; }

size_t cudnnGetVersion() { return CUDNN_VERSION; }
void cudnnGetLastErrorString(char* text, size_t n) { std::strncpy(text, error.c_str(), n - 1), text[n - 1] = 0; }
cudnnStatus_t cudnnCreate(cudnnHandle_t* h) { return *h = new cudnnContext, CUDNN_STATUS_SUCCESS; }
cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t s) { return h->stream = s, CUDNN_STATUS_SUCCESS; }
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* d) {
    auto o = std::make_shared<Object>();
    o->type = type;
    ++control.descriptors;
    return *d = new Pointer(std::move(o)), CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
    --control.descriptors;
    return delete object(d), CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n, const void* from) {
    Object& o = **object(d);
    if (o.finished) return fail(CUDNN_STATUS_NOT_INITIALIZED, "an attribute of what is finished");
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        for (std::int64_t i = 0; i < n; ++i) {
            const Pointer& c = *object(static_cast<const cudnnBackendDescriptor_t*>(from)[i]);
            if (!c->finished) return fail(CUDNN_STATUS_BAD_PARAM, "a descriptor that is not finished");
            o.children[name].push_back(c);
        }
        return CUDNN_STATUS_SUCCESS;
    }
    const auto* p = static_cast<const unsigned char*>(from);
    o.bytes[name].assign(p, p + static_cast<std::size_t>(n) * size_of(type));
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d) {
    Object& o = **object(d);
    if (cudnnStatus_t s = check(o); s != CUDNN_STATUS_SUCCESS) return s;
    return o.finished = true, CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t, int64_t room, int64_t* n, void* to) {
    const Object& o = **object(d);
    auto give = [&](auto value) {
        *n = 1;
        if (room > 0) std::memcpy(to, &value, sizeof value);
        return CUDNN_STATUS_SUCCESS;
    };
    auto pass = [&](cudnnBackendDescriptor_t into, int engine) {
        Object& e = **object(into);
        e.finished = true, e.engine = engine;
        if (Pointer g = o.child(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)) e.children[CUDNN_ATTR_ENGINE_OPERATION_GRAPH] = {g};
    };
    *n = 0;
    switch (name) {
        case CUDNN_ATTR_ENGINEHEUR_RESULTS:
            *n = o.one<int>(CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_A ? twin::engines : 1;
            for (int i = 0; i < std::min(room, *n); ++i) pass(static_cast<cudnnBackendDescriptor_t*>(to)[i], *n == 1 ? twin::plain : i);
            return CUDNN_STATUS_SUCCESS;
        case CUDNN_ATTR_ENGINECFG_ENGINE: return *n = 1, pass(*static_cast<cudnnBackendDescriptor_t*>(to), o.engine), CUDNN_STATUS_SUCCESS;
        case CUDNN_ATTR_ENGINE_GLOBAL_INDEX: return give(std::int64_t{o.engine});
        case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE: return o.engine == twin::compiles ? give(CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) : CUDNN_STATUS_SUCCESS;
        case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
            switch (o.engine) {
                case twin::tensor_cores: return give(CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
                case twin::narrow_sums: return give(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION);
                case twin::other_bits: return give(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
                case twin::winograd: return give(CUDNN_NUMERICAL_NOTE_WINOGRAD);
                default: return CUDNN_STATUS_SUCCESS;
            }
        case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE: return give(o.child(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->engine == twin::greedy ? std::int64_t{1} << 40 : twin::workspace);
        default: return fail(CUDNN_STATUS_NOT_SUPPORTED, "an attribute that the twin does not give");
    }
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
    const Object &p = **object(plan), &v = **object(pack);
    const Pointer config = p.child(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    auto* r = new Run;  // kept: a recorded run uses it again
    const auto uids = v.all<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const auto data = v.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    if (uids.size() != data.size()) return fail(CUDNN_STATUS_BAD_PARAM, "other numbers of operands and of their names");
    for (std::size_t i = 0; i < uids.size(); ++i) r->at[uids[i]] = data[i];
    (void)take_apart(*config->child(CUDNN_ATTR_ENGINE_OPERATION_GRAPH), r->g);
    for (const Pointer& t : {r->g.x, r->g.w, r->g.y, r->g.bias, r->g.residual})
        if (t && !r->at.count(t->one<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID))) return fail(CUDNN_STATUS_BAD_PARAM, "an operand is missing");
    r->workspace = v.one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (!r->workspace) return fail(CUDNN_STATUS_BAD_PARAM, "no workspace");
    ++control.runs;
    if (control.refuse == twin::Refuse::running) return fail(CUDNN_STATUS_EXECUTION_FAILED, "told to refuse");
    control.executed = config->engine;
    control.fused += r->g.bias || r->g.residual || r->g.relu;
    return cudaLaunchHostFunc(h->stream, [](void* x) { compute(*static_cast<Run*>(x)); }, r) == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}
}
