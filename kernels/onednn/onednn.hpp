// What the oneDNN adaptors share: one thread per primitive, implementations within an instruction set, fused
// functions, and primitives that run without allocating.
#pragma once
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#if defined(QUERN_ONEDNN_NAME)
#include <quern/kernels/onednn/library.hpp>
#endif
#include <oneapi/dnnl/dnnl.hpp>

#include <quern/kernels/packs.hpp>
#include <quern/kernels/vec/vec.hpp>
#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
#include <dlfcn.h>
#endif

QUERN_BEGIN
namespace onednn {

#if defined(QUERN_ONEDNN_NAME)
using dnnl::dnnl_primitive_execute, dnnl::dnnl_version;
#endif
/// Why oneDNN cannot be used; empty: it can. To be asked before any call of it.
inline std::string refusal() {
#if defined(QUERN_ONEDNN_NAME)
    return library().refusal;
#else
    return {};
#endif
}

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
/// The OpenMP runtime that oneDNN brought into the process, whichever it is: nothing is linked for it.
struct OpenMp {
#if defined(QUERN_ONEDNN_NAME)
    void* where = library().handle;  // and what it was linked with
#else
    void* where = RTLD_DEFAULT;
#endif
    int (*get)() = reinterpret_cast<int (*)()>(dlsym(where, "omp_get_max_threads"));
    void (*set)(int) = reinterpret_cast<void (*)(int)>(dlsym(where, "omp_set_num_threads"));
};
inline const OpenMp& openmp() {
    static const OpenMp runtime;
    return runtime;
}
#endif

/// Holds oneDNN to the calling thread while it lives: tiles run beside each other on quern's own threads.
class OneThread {
public:
#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
    OneThread() {
        if (openmp().get && openmp().set) before_ = openmp().get();
        if (before_ != 1) openmp().set(1);
    }
    ~OneThread() { if (before_ != 1) openmp().set(before_); }
#else
    OneThread() = default;
    ~OneThread() {}
#endif
    OneThread(const OneThread&) = delete;
    OneThread& operator=(const OneThread&) = delete;

private:
    [[maybe_unused]] int before_ = 1;
};

/// Whether an implementation's name ("brgconv:avx512_core") stays within `cap`; references never do. Names
/// without an instruction set follow the machine, so they need the machine's best.
inline bool within(const char* impl, Isa cap) {
    if (std::strstr(impl, "ref")) return false;
    if (std::strstr(impl, "avx512") || std::strstr(impl, "amx") || std::strstr(impl, "avx10")) return cap >= Isa::avx512;
    if (std::strstr(impl, "avx2_vnni")) return cap >= Isa::avx512;
    if (std::strstr(impl, "avx")) return cap >= Isa::avx2;
    if (std::strstr(impl, "sse41")) return cap >= Isa::avx2;
    return cap >= best_isa();
}
/// Moves `pd` to its first implementation within `cap`; false where there is none.
template <class PD> bool settle(PD& pd, Isa cap) {
    if (!pd) return false;
    do {
        if (within(pd.impl_info_str(), cap)) return true;
    } while (pd.next_impl());
    return false;
}

/// Attributes: residual (as a binary sum with a tensor of Y's description), then the function.
inline dnnl::primitive_attr attributes(vec::Post post, float alpha, float beta, const dnnl::memory::desc* residual) {
    using A = dnnl::algorithm;
    dnnl::post_ops ops;
    if (residual) ops.append_binary(A::binary_add, *residual);
    switch (post) {
        case vec::Post::none: break;
        case vec::Post::relu: ops.append_eltwise(A::eltwise_relu, 0, 0); break;
        case vec::Post::leaky_relu: ops.append_eltwise(A::eltwise_relu, alpha, 0); break;
        case vec::Post::clip: ops.append_eltwise(A::eltwise_clip_v2, alpha, beta); break;
        case vec::Post::gelu: ops.append_eltwise(A::eltwise_gelu_erf, 0, 0); break;
        case vec::Post::gelu_tanh: ops.append_eltwise(A::eltwise_gelu_tanh, 0, 0); break;
        case vec::Post::silu: ops.append_eltwise(A::eltwise_swish, alpha == 0 ? 1.f : alpha, 0); break;
        case vec::Post::sigmoid: ops.append_eltwise(A::eltwise_logistic, 0, 0); break;
        case vec::Post::tanh: ops.append_eltwise(A::eltwise_tanh, 0, 0); break;
        case vec::Post::hard_swish: ops.append_eltwise(A::eltwise_hardswish, 1.f / 6, 0.5f); break;
        case vec::Post::hard_sigmoid: ops.append_eltwise(A::eltwise_hardsigmoid, alpha, beta); break;
    }
    dnnl::primitive_attr attr;
    attr.set_post_ops(ops);
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attr;
}

/// A primitive with the descriptions of its operands.
struct Made {
    dnnl::primitive primitive;
    dnnl::memory::desc x, w, b, y, residual, scratch;
    bool has_bias = false, has_residual = false;
};
/// One worker's memory objects for one primitive: run() only sets handles and allocates nothing.
class Bound {
public:
    Bound(const Made& made, const dnnl::engine& engine)
        : made_(&made), stream_(engine), x_(made.x, engine, nullptr), w_(made.w, engine, nullptr), y_(made.y, engine, nullptr),
          scratch_(made.scratch, engine, nullptr) {
        if (made.has_bias) b_ = dnnl::memory(made.b, engine, nullptr);
        if (made.has_residual) residual_ = dnnl::memory(made.residual, engine, nullptr);
    }
    void run(const void* x, const void* w, const void* b, const void* residual, void* y, void* scratch) {
        dnnl_exec_arg_t args[6];
        int n = 0;
        auto add = [&](int arg, dnnl::memory& m, const void* p) {
            m.set_data_handle(const_cast<void*>(p));
            args[n++] = {arg, m.get()};
        };
        add(DNNL_ARG_SRC, x_, x);
        add(DNNL_ARG_WEIGHTS, w_, w);
        if (made_->has_bias) add(DNNL_ARG_BIAS, b_, b);
        if (made_->has_residual) add(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, residual_, residual);
        add(DNNL_ARG_DST, y_, y);
        add(DNNL_ARG_SCRATCHPAD, scratch_, scratch);
        if (dnnl_primitive_execute(made_->primitive.get(), stream_.get(), n, args) != dnnl_success)
            raise(ErrorCode::internal, "oneDNN failed to execute a primitive");
    }

private:
    const Made* made_;
    dnnl::stream stream_;
    dnnl::memory x_, w_, y_, scratch_, b_, residual_;
};

/// Primitives by the numbers of their shape; bounded, emptied when full (bookings keep what they use).
class Cache {
public:
    using Key = std::array<std::int64_t, 12>;
    template <class Make> std::shared_ptr<const Made> get(const Key& key, Make&& make) {
        std::lock_guard lock(mutex_);
        auto it = made_.find(key);
        if (it != made_.end()) return it->second;
        std::shared_ptr<const Made> m = make();
        if (made_.size() >= 64) made_.clear();
        if (m) made_.emplace(key, m);
        return m;
    }

private:
    std::mutex mutex_;
    std::map<Key, std::shared_ptr<const Made>> made_;
};

/// Weights moved once into the layout that all primitives of a kernel are held to. `kernel` names what decides `from`.
inline Tensor packed(const Target& target, const char* kernel, const dnnl::engine& engine, const dnnl::memory::desc& from, const Tensor& weights,
                     const dnnl::memory::desc& to) {
    // The layout by its blocks: equal descriptions have equal bytes.
    const dnnl_version_t& v = *dnnl_version();
    std::string layout = std::string(kernel) + " " + std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch);
    auto name = [&](const auto& numbers) { for (auto n : numbers) layout += " " + std::to_string(n); };
    name(to.get_padded_dims()), name(to.get_strides()), name(to.get_inner_blks()), name(to.get_inner_idxs());
    return packed_weights(target, layout, {weights}, to.get_size(), [&](std::byte* bytes) {
        OneThread one;
        std::memset(bytes, 0, to.get_size());  // padding
        dnnl::memory a(from, engine, const_cast<void*>(weights.raw())), b(to, engine, bytes);
        dnnl::stream stream(engine);
        dnnl::reorder(a, b).execute(stream, a, b);
        stream.wait();
    });
}

}  // namespace onednn
QUERN_END
