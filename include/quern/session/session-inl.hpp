#pragma once
#include <algorithm>
#include <cstdio>
#include <map>
#include <mutex>

#include "../base/guard.hpp"
#include "../base/mapped_file.hpp"
#include "../base/thread_pool.hpp"
#include "../graph/dump.hpp"
#include "../import/exporter.hpp"
#include "../import/importer.hpp"
#include "../model.hpp"
#include "../ops/evaluate.hpp"
#include "../passes/pass.hpp"
#include "../session.hpp"

#include "runner.hpp"
#include "tune-inl.hpp"

QUERN_BEGIN

/// Defined by the unit that lists what was linked (generated; or core's own).
std::span<const Backend* const> linked_backends() noexcept;

struct Model::Impl {
    std::string path;
    std::shared_ptr<const CustomTable> custom;  // before the graph, which points into it
    std::vector<FunctionBody> functions;        // the graph's constants may view their bytes
    Graph graph;
    std::vector<PortInfo> inputs, outputs;
    std::vector<Problem> problems;
    mutable DeviceConstants device_constants;
    std::shared_ptr<PackRegistry> packs;  ///< of all engines of this model
    mutable std::mutex lock;
    mutable std::vector<std::pair<std::string, std::weak_ptr<const Plan>>> plans;  ///< by the options that they were made for
};

struct Engine::Impl {
    std::shared_ptr<const Model::Impl> model;  // keeps the bytes of weights
    std::shared_ptr<const Plan> plan;
    std::size_t memory_limit = 0;
    double deadline = 0;
    bool device_io = false, device_graphs = true;
    std::shared_ptr<Executor> executor;
    mutable std::unique_ptr<ThreadPool> pool;
    std::vector<std::string> taps;  // in the order of the plan's outputs after the model's own
    std::vector<PortInfo> outputs;
    std::size_t packings = 0;
    mutable std::atomic<std::size_t> late_packings{0};
    mutable std::mutex lock;
    mutable std::vector<std::unique_ptr<Session::Impl>> idle;  // without their reference to the engine, which would be a cycle
};

struct Session::Impl {
    std::shared_ptr<const Engine::Impl> engine;
    RunWorkers workers;
    RunShared shared;
    Runner runner;
    std::vector<Tensor> owned, bound, outputs, bound_outputs;
    struct Cache {
        int input, output;
        Tensor memory;
    };
    std::vector<Cache> caches;
    std::vector<Tensor> targets;               // of bound outputs, those that steps may write themselves
    bool ports_changed = false;                // since these were found
    std::vector<Value> bound_values;           // of ports that are no tensors
    mutable std::vector<Value> output_values;  // and of tensors, once they were asked for so
    std::vector<View> views;
    std::vector<StepTime> times;
    bool ran = false;
    void* own_stream = nullptr;

    explicit Impl(std::shared_ptr<const Engine::Impl> e)
        : engine(std::move(e)), workers(engine->pool.get(), engine->executor.get(), &shared.cancelled), runner(engine->plan, (init(), shared)) {
        owned.resize(engine->plan->inputs.size());
        bound.resize(owned.size());
        bound_values.resize(owned.size());
        views.resize(owned.size());
        outputs.resize(engine->plan->outputs.size());
        bound_outputs.resize(outputs.size());
        output_values.resize(outputs.size());
        if (DeviceApi* api = runner.plan().device.get()) shared.stream = own_stream = api->make_stream();
    }
    Impl(const Impl&) = delete;
    ~Impl() {
        DeviceApi* api = runner.plan().device.get();
        if (!api) return;
        drain(*api);
        api->destroy_stream(shared.copy_stream);
        api->destroy_stream(own_stream);
    }
    /// Nothing is under way any more, whatever went wrong.
    void drain(DeviceApi& api) {
        for (void* s : {shared.copy_stream, shared.stream})
            if (s) (void)guarded([&] { api.synchronize(s); });
    }
    void init() {
        shared.workers = &workers;
        shared.memory_limit = engine->memory_limit;
        shared.memory_used = engine->plan->packed_bytes;
        shared.times = &times;
        shared.packings = &engine->late_packings;
        shared.device_graphs = engine->device_graphs;
    }
    int index_of(std::string_view name, bool output) const;
    void bind(int i, const Tensor& t);
    void bind(int i, const Value& v);
    void bind_output(int i, Tensor t);
    void bind_cache(int i, int o, const Tensor& memory, std::int64_t length);
    void place_caches();
    void find_targets();
    Tensor& input(std::string_view name, const Shape* shape);
    void run();
    void run_plan();
    Tensor make_input(DType dtype, const Shape& shape) const;
    const Tensor& output(int i) const;
    const Value& output_value(int i) const;
    int tap_index(std::string_view name) const;
};

namespace session_detail {

inline std::string type_of(const PortInfo& p) {
    if (p.kind == Kind::tensor) return dtype_name(p.dtype);
    std::string of = p.elem ? type_of(*p.elem) : "?";
    if (p.kind == Kind::map) return std::string("map of ") + dtype_name(p.key) + " to " + of;
    return (p.kind == Kind::sequence ? "sequence of " : "optional ") + of;
}
inline bool fits(const Value& v, const PortInfo& p) {
    if (p.kind == Kind::optional) return !v.has_value() || !p.elem || fits(v, *p.elem);
    if (v.kind() != p.kind) return false;
    if (p.kind == Kind::tensor) return v.tensor().dtype() == p.dtype;
    if (p.kind == Kind::map) return v.keys().dtype() == p.key && v.values().dtype() == p.dtype;
    auto items = v.items();
    return !p.elem || std::all_of(items.begin(), items.end(), [&](const Value& i) { return fits(i, *p.elem); });
}
inline std::string names_of(const std::vector<PortInfo>& ports) {
    std::string s;
    for (auto& p : ports) s += (s.empty() ? "'" : ", '") + p.name + "'";
    return s;
}
inline int find_port(const std::vector<PortInfo>& ports, std::string_view name, const char* what) {
    for (std::size_t i = 0; i < ports.size(); ++i)
        if (ports[i].name == name) return static_cast<int>(i);
    raise(ErrorCode::invalid_argument, std::string("the model has no ") + what + " '" + std::string(name) + "'; accepted: " + names_of(ports));
}
inline Target target_of(const Options& o, std::span<const Backend* const> backends) {
    Target t;
    t.isa = std::min(o.isa, best_isa());
    t.backends = backends;
    t.winograd = o.winograd;
    t.log = o.log;
    return t;
}
inline std::vector<const Backend*> backends_of(const Options& o) {
    auto linked = linked_backends();
    std::vector<const Backend*> b = o.backends.empty() ? std::vector<const Backend*>(linked.begin(), linked.end()) : o.backends;
    if (!o.accelerated) std::erase_if(b, [](const Backend* x) { return std::string_view(x->name) != "core" && x->device == Device::cpu; });
    return b;
}
/// The device that Options::device names, opened; null for the CPU. Leaves what kernels are chosen for in `target`.
inline std::shared_ptr<DeviceApi> open_device(const Options& o, std::span<const Backend* const> backends, DeviceConstants& constants, Target& target) {
    if (o.device == "cpu") return nullptr;
    std::string_view name = o.device, number;
    if (std::size_t colon = name.find(':'); colon != std::string_view::npos) number = name.substr(colon + 1), name = name.substr(0, colon);
    const Backend* backend = nullptr;
    std::string accepted = "cpu";
    for (const Backend* b : backends) {
        if (b->open) accepted += std::string(", ") + b->name;
        if (b->open && name == b->name) backend = b;
    }
    if (!backend) raise(ErrorCode::unsupported, "device '" + o.device + "' is not in this build; accepted: " + accepted);
    int ordinal = 0;
    for (char c : number) {
        if (c < '0' || c > '9' || number.size() > 3) raise(ErrorCode::invalid_argument, "device '" + o.device + "': accepted: cpu, " + std::string(name) + ", " + std::string(name) + ":0");
        ordinal = 10 * ordinal + (c - '0');
    }
    auto api = constants.open(*backend, ordinal, o);
    target.device = backend->device;
    target.sm = api->sm();
    target.tf32 = o.tf32;
    return api;
}
inline Error problem_error(const std::vector<Problem>& problems) {
    const Problem& p = problems[0];
    std::string text = p.reason;
    if (problems.size() > 1) text += " (and " + std::to_string(problems.size() - 1) + " more problems; quern::check lists them all)";
    Error e(p.code, text);
    if (!p.op.empty()) e.at("node '" + p.node + "' (" + (p.domain.empty() ? "" : p.domain + "::") + p.op + ", opset " + std::to_string(p.opset) + ")");
    return e;
}
inline std::shared_ptr<Model::Impl> load(std::span<const std::byte> bytes, std::shared_ptr<const MappedFile> owner, std::string path, const LoadOptions& o, const CustomOps& custom) {
    auto impl = std::make_shared<Model::Impl>();
    impl->path = std::move(path);
    onnx::ParseLimits limits;
    if (o.memory_limit && o.memory_limit / 64 < bytes.size()) limits.memory = o.memory_limit;
    onnx::ModelProto proto = onnx::parse_model(bytes, limits);
    onnx::External external = impl->path.empty() ? onnx::External() : onnx::External::beside(impl->path);
    if (!o.external_data_dir.empty()) external.dir = external.real_dir = o.external_data_dir;
    external.resolver = o.resolver;
    if (!custom.empty()) impl->custom = std::make_shared<const CustomTable>(custom);
    impl->functions = o.functions;
    const auto functions = parse_functions(impl->functions);
    Imported im = import_model(proto, &external, owner, impl->custom.get(), functions, o.memory_limit);
    impl->packs = PackRegistry::of(owner);
    if (!owner) {
        impl->packs->add_stable(bytes);
        for (auto& v : im.graph.values)  // constants that lay unaligned or spelled out were copied: the model keeps the copies
            if (v.fact.is_const() && v.fact.value.bytes() && !impl->packs->is_stable(v.fact.value))
                impl->packs->add_stable({static_cast<const std::byte*>(v.fact.value.raw()), v.fact.value.bytes()});
    }
    for (auto& [where, file] : external.files) impl->packs->add(file);
    impl->graph = std::move(im.graph);
    impl->inputs = std::move(im.inputs);
    impl->outputs = std::move(im.outputs);
    impl->problems = std::move(im.problems);
    if (o.log)
        for (auto& w : im.warnings) o.log(LogLevel::warning, w);
    return impl;
}
inline std::shared_ptr<Model::Impl> load_file(const std::string& path, const LoadOptions& o, const CustomOps& custom) {
    return with_place([&] { return "model '" + path + "'"; }, [&] {
        auto file = MappedFile::shared(MappedFile(path));
        return load(file->bytes(), file, path, o, custom);
    });
}
inline Graph graph_at(const Model::Impl& m, std::string_view stage, const Options& o) {
    Graph g = m.graph.clone();
    auto backends = backends_of(o);
    Target t = target_of(o, backends);
    auto device = open_device(o, backends, m.device_constants, t);
    run_passes(g, PassContext{o, t}, stage);
    return g;
}
/// Tapped values become outputs of the graph, so that no pass removes them.
inline void add_taps(Graph& g, const std::vector<std::string>& taps) {
    for (auto& name : taps) {
        ValueId found = no_value;
        for (ValueId v = 0; v < static_cast<ValueId>(g.values.size()); ++v)
            if (g.values[v].name == name) found = v;
        if (found == no_value) raise(ErrorCode::invalid_argument, "no value of the model is named '" + name + "' (Options::taps)");
        g.outputs.push_back(found);
        g.output_names.push_back(name);
    }
}
/// Weights below this are packed by the calling thread alone: no thread is made before the first run.
inline constexpr std::size_t parallel_from = std::size_t{4} << 20;
inline std::size_t weight_bytes(const Graph& g) {
    std::size_t n = 0;
    for (auto& v : g.values)
        if (v.fact.is_const() && v.fact.dtype != DType::string) n += v.fact.value.bytes();
    return n;
}
/// Pages of the file that passes read only to compute other weights from them leave memory.
inline void forget_replaced(const Model::Impl& m, const Graph& g) {
    std::vector<const void*> used;
    const std::vector<int> uses = g.use_counts();
    for (std::size_t v = 0; v < g.values.size(); ++v)
        if (uses[v] && g.values[v].fact.is_const()) used.push_back(g.values[v].fact.value.raw());
    std::sort(used.begin(), used.end());
    for (auto& v : m.graph.values)
        if (v.fact.is_const() && v.fact.dtype != DType::string && !std::binary_search(used.begin(), used.end(), v.fact.value.raw())) m.packs->consumed(v.fact.value.raw(), v.fact.value.bytes());
}
/// Constants that runs look at where they are.
inline void read_in_place(const Plan& p, std::vector<std::span<const std::byte>>& all) {
    for (auto& v : p.values)
        if (v.constant.defined() && v.constant.dtype() != DType::string && v.constant.bytes()) all.emplace_back(static_cast<const std::byte*>(v.constant.raw()), v.constant.bytes());
    for (auto& s : p.steps)
        for (auto& b : s.branches) read_in_place(*b, all);
}
/// What only concerns running.
inline void set_running(Engine::Impl& e, const Options& o) {
    if (o.threads < 0 || o.threads > 1024) raise(ErrorCode::invalid_argument, "threads is " + std::to_string(o.threads) + "; accepted: 0 to 1024");
    int threads = o.threads ? o.threads : usable_cpus();
    if (!o.executor && threads > 1) e.pool = std::make_unique<ThreadPool>(threads);
    e.memory_limit = o.memory_limit;
    if (!(o.deadline >= 0)) raise(ErrorCode::invalid_argument, "deadline is " + std::to_string(o.deadline) + "; accepted: seconds, 0 for none");
    e.deadline = o.deadline < 1e9 ? o.deadline : 0;  // what a clock can hold
    e.executor = o.executor;
    e.device_graphs = o.device_graphs;
}
inline void check_memory(const Engine::Impl& e) {
    if (e.memory_limit && e.plan->packed_bytes > e.memory_limit)
        raise(ErrorCode::out_of_memory, "the packed weights take " + std::to_string(e.plan->packed_bytes) + " bytes; memory_limit is " + std::to_string(e.memory_limit));
}
/// All that a plan depends on beside the model, as text; empty for plans that are not shared.
inline std::string plan_key(const Options& o, const PlanOptions& po) {
    if (o.tune || o.log) return {};
    std::string k = std::to_string(static_cast<int>(po.target.isa)) + "," + std::to_string(reinterpret_cast<std::uintptr_t>(po.device.get()));
    for (bool b : {o.winograd, o.optimize, o.strict_device, o.tf32, po.device_io}) k += b ? ",1" : ",0";
    for (const Backend* b : po.target.backends) k += "," + std::to_string(reinterpret_cast<std::uintptr_t>(b));
    for (const std::vector<std::string>& list : {std::vector<std::string>{o.device, o.stop_after}, o.library_dirs, o.taps}) {
        k += ";" + std::to_string(list.size());
        for (auto& s : list) k += "," + std::to_string(s.size()) + ":" + s;
    }
    return k;
}
/// The plan of an engine of the same model and options that still lives.
inline std::shared_ptr<const Plan> find_plan(const Model::Impl& m, const std::string& key) {
    std::lock_guard<std::mutex> l(m.lock);
    std::erase_if(m.plans, [](auto& p) { return p.second.expired(); });
    for (auto& [k, plan] : m.plans)
        if (k == key) return plan.lock();
    return nullptr;
}
inline std::shared_ptr<const Engine::Impl> compile(std::shared_ptr<const Model::Impl> m, const Options& o) {
    return with_place([&] { return m->path.empty() ? std::string("model from bytes") : "model '" + m->path + "'"; }, [&]() -> std::shared_ptr<const Engine::Impl> {
        if (!m->problems.empty()) raise(problem_error(m->problems));
        auto e = std::make_shared<Engine::Impl>();
        set_running(*e, o);
        auto backends = backends_of(o);
        PlanOptions po;
        po.target = target_of(o, backends);
        po.device = open_device(o, backends, m->device_constants, po.target);
        po.constants = &m->device_constants;
        po.device_io = o.device_io && po.device;
        po.memory_limit = o.memory_limit;
        const std::string key = plan_key(o, po);
        if (!key.empty()) e->plan = find_plan(*m, key);
        if (!e->plan) {
            Graph g = m->graph.clone();
            add_taps(g, o.taps);
            PassContext pc{o, po.target, [&](const void* from, std::size_t bytes) { m->packs->consumed(from, bytes); }};
            run_passes(g, pc, o.stop_after);
            if (!o.stop_after.empty()) promote_types(g, pc);
            std::size_t weights = weight_bytes(g);
            forget_replaced(*m, g);
            PackStore store(m->packs, weights);
            RunWorkers workers(e->pool.get(), o.executor.get());
            po.store = &store;
            if (weights >= parallel_from) po.workers = &workers;
            if (o.tune) tune(g, po, o, workers);
            e->plan = make_plan(std::move(g), po);
            e->packings = e->plan->packings;
            std::vector<std::span<const std::byte>> read;
            read_in_place(*e->plan, read);
            m->packs->forget_files(std::move(read));
            std::lock_guard<std::mutex> l(m->lock);
            if (!key.empty()) m->plans.emplace_back(key, e->plan);
        }
        check_memory(*e);
        e->device_io = po.device_io;
        e->taps = o.taps;
        e->outputs = m->outputs;
        e->model = std::move(m);
        return e;
    });
}

}  // namespace session_detail

QUERN_INLINE Result<Model> Model::try_load(const std::string& path, const LoadOptions& o, const CustomOps& custom) noexcept {
    return guarded([&] {
        auto p = session_detail::load_file(path, o, custom);
        if (!p->problems.empty()) raise(session_detail::problem_error(p->problems).at("model '" + path + "'"));
        return Model(std::move(p));
    });
}
QUERN_INLINE Result<Model> Model::try_from_bytes(std::span<const std::byte> bytes, const LoadOptions& o, const CustomOps& custom) noexcept {
    return guarded([&] {
        auto p = session_detail::load(bytes, nullptr, "", o, custom);
        if (!p->problems.empty()) raise(session_detail::problem_error(p->problems).at("model from bytes"));
        return Model(std::move(p));
    });
}
QUERN_INLINE Result<Engine> Model::try_compile(const Options& o) const noexcept {
    return guarded([&] { return Engine(session_detail::compile(p_, o)); });
}
QUERN_INLINE const std::vector<PortInfo>& Model::inputs() const noexcept { return p_->inputs; }
QUERN_INLINE const std::vector<PortInfo>& Model::outputs() const noexcept { return p_->outputs; }
QUERN_INLINE std::string Model::dump(std::string_view stage, std::string_view format, const Options& o) const {
    return dump_graph(session_detail::graph_at(*p_, stage, o), format);
}
QUERN_INLINE Result<void> Model::save(const std::string& path, std::string_view stage, const Options& o) const noexcept {
    return guarded([&] { write_onnx(session_detail::graph_at(*p_, stage, o), path); });
}

namespace session_detail {
inline std::vector<Problem> all_problems(std::shared_ptr<const Model::Impl> m, const Options& o) {
    if (!m->problems.empty()) return m->problems;
    std::vector<Problem> found;
    auto r = guarded([&] { compile(m, o); });
    if (!r) found.push_back(Problem{r.error().code(), "", "", "", 0, "", r.error().what()});
    return found;
}
}  // namespace session_detail
QUERN_INLINE Result<std::vector<Problem>> check(const std::string& path, const Options& o, const LoadOptions& l, const CustomOps& custom) noexcept {
    return guarded([&] { return session_detail::all_problems(session_detail::load_file(path, l, custom), o); });
}
QUERN_INLINE Result<std::vector<Problem>> check(std::span<const std::byte> bytes, const Options& o, const LoadOptions& l, const CustomOps& custom) noexcept {
    return guarded([&] { return session_detail::all_problems(session_detail::load(bytes, nullptr, "", l, custom), o); });
}

QUERN_INLINE Result<PortId> Engine::try_input(std::string_view name) const noexcept {
    return guarded([&] { return PortId{session_detail::find_port(inputs(), name, "input"), false}; });
}
QUERN_INLINE Result<PortId> Engine::try_output(std::string_view name) const noexcept {
    return guarded([&] { return PortId{session_detail::find_port(outputs(), name, "output"), true}; });
}
QUERN_INLINE const std::vector<PortInfo>& Engine::inputs() const noexcept { return p_->model->inputs; }
QUERN_INLINE const std::vector<PortInfo>& Engine::outputs() const noexcept { return p_->outputs; }
QUERN_INLINE std::string Engine::describe() const { return describe_plan(*p_->plan); }
QUERN_INLINE std::size_t Engine::packed_bytes() const noexcept { return p_->plan->packed_bytes; }
QUERN_INLINE std::size_t Engine::packings() const noexcept { return p_->packings + p_->late_packings; }

namespace session_detail {
/// One run in a session of the engine's own. `read` takes the outputs out of it.
template <class In, class F>
auto run_once(const std::shared_ptr<const Engine::Impl>& e, const std::vector<In>& in, F&& read) {
    std::unique_ptr<Session::Impl> s;
    {
        std::lock_guard<std::mutex> l(e->lock);
        if (!e->idle.empty()) {
            s = std::move(e->idle.back());
            e->idle.pop_back();
        }
    }
    if (s) s->engine = e;
    else s = std::make_unique<Session::Impl>(e);
    for (auto& [name, t] : in) s->bind(s->index_of(name, false), t);
    s->run();
    auto out = read(*s);
    for (auto& [name, t] : in) s->bind(s->index_of(name, false), Value());  // nothing of the caller's stays behind
    for (auto& v : s->output_values) v = Value();
    s->engine.reset();
    std::lock_guard<std::mutex> l(e->lock);
    e->idle.push_back(std::move(s));
    return out;
}
}  // namespace session_detail

QUERN_INLINE Result<std::vector<NamedTensor>> Engine::try_run(const std::vector<NamedTensor>& in) const noexcept {
    return guarded([&] {
        if (p_->device_io) raise(ErrorCode::invalid_argument, "Engine::run() gives host memory: use a Session with Options::device_io");
        for (auto& o : outputs())
            if (o.kind != Kind::tensor) raise(ErrorCode::invalid_argument, "output '" + o.name + "' is " + session_detail::type_of(o) + ": run_values() gives it");
        return session_detail::run_once(p_, in, [&](Session::Impl& s) {
            std::vector<NamedTensor> out;
            for (std::size_t o = 0; o < outputs().size(); ++o) out.emplace_back(outputs()[o].name, s.output(static_cast<int>(o)).clone());
            return out;
        });
    });
}
QUERN_INLINE Result<std::vector<NamedValue>> Engine::try_run_values(const std::vector<NamedValue>& in) const noexcept {
    return guarded([&] {
        if (p_->device_io) raise(ErrorCode::invalid_argument, "Engine::run_values() gives host memory: use a Session with Options::device_io");
        return session_detail::run_once(p_, in, [&](Session::Impl& s) {
            std::vector<NamedValue> out;
            for (std::size_t o = 0; o < outputs().size(); ++o) out.emplace_back(outputs()[o].name, s.output_value(static_cast<int>(o)).owned());
            return out;
        });
    });
}

QUERN_INLINE int Session::Impl::index_of(std::string_view name, bool output) const {
    return output ? session_detail::find_port(engine->outputs, name, "output") : session_detail::find_port(engine->model->inputs, name, "input");
}
QUERN_INLINE void Session::Impl::bind(int i, const Tensor& t) {
    if (i < 0 || i >= static_cast<int>(bound.size())) raise(ErrorCode::invalid_argument, "the port is not an input of this model");
    const PortInfo& port = engine->model->inputs[i];
    if (port.kind != Kind::tensor) return bind(i, Value(t));
    if (t.defined()) {
        const Device home = engine->device_io ? Device::cuda : Device::cpu;
        if (t.device() != home)
            raise(ErrorCode::invalid_argument, "input '" + port.name + (home == Device::cpu ? "' must be in host memory (Options::device_io takes device memory)" : "' must be in device memory, for Options::device_io was set"));
        if (t.dtype() != port.dtype)
            raise(ErrorCode::invalid_argument, "input '" + port.name + "' is " + dtype_name(port.dtype) + "; the tensor given is " + dtype_name(t.dtype()));
        bool fits = !port.ranked || port.dims.size() == t.shape().rank();
        for (std::size_t d = 0; fits && port.ranked && d < port.dims.size(); ++d) fits = !port.dims[d].value || *port.dims[d].value == t.shape()[d];
        if (!fits) {
            std::string want = "[";
            for (std::size_t d = 0; d < port.dims.size(); ++d)
                want += (d ? ", " : "") + (port.dims[d].value ? std::to_string(*port.dims[d].value) : port.dims[d].symbol.empty() ? "?" : port.dims[d].symbol);
            raise(ErrorCode::shape_mismatch, "input '" + port.name + "' has shape " + want + "]; the tensor given has " + t.shape().to_string());
        }
        for (std::int64_t d : t.shape())
            if (d < 0) raise(ErrorCode::invalid_argument, "input '" + port.name + "' is given with shape " + t.shape().to_string() + "; dimensions of 0 or more are accepted");
        if (!t.raw() && t.count()) raise(ErrorCode::invalid_argument, "input '" + port.name + "' is given without memory");
        if (t.dtype() != DType::string && dtype_bits(t.dtype()) >= 8 && reinterpret_cast<std::uintptr_t>(t.raw()) % (dtype_bits(t.dtype()) / 8))
            raise(ErrorCode::invalid_argument, "input '" + port.name + "' is not aligned to its elements");
    }
    std::erase_if(caches, [&](const Cache& c) { return c.input == i; });
    bound[i] = t;
    ports_changed = true;
}
namespace session_detail {
/// The first `length` positions of a cache.
inline Tensor begin_of(const Tensor& memory, std::int64_t length) {
    const Shape& s = memory.shape();
    const Shape begin{s[0], s[1], length, s[3]};
    return memory.device() == Device::cpu ? Tensor::borrow(memory.dtype(), begin, memory.raw()) : Tensor::borrow_device(memory.device(), memory.dtype(), begin, memory.raw());
}
}  // namespace session_detail
QUERN_INLINE void Session::Impl::bind_cache(int i, int o, const Tensor& memory, std::int64_t length) {
    const Plan& p = *engine->plan;
    auto name = [&](const Plan::Cache& c) { return "'" + engine->model->inputs[static_cast<std::size_t>(c.input)].name + "' with '" + engine->outputs[static_cast<std::size_t>(c.output)].name + "'"; };
    if (std::none_of(p.caches.begin(), p.caches.end(), [&](const Plan::Cache& c) { return c.input == i && c.output == o; })) {
        std::string accepted;
        for (const Plan::Cache& c : p.caches)
            if (c.output < static_cast<int>(engine->outputs.size())) accepted += (accepted.empty() ? "" : ", ") + name(c);
        raise(ErrorCode::unsupported, name({i, o}) + " is no cache that can grow in place; accepted: " + (!accepted.empty() ? accepted : p.device && !engine->device_io ? "caches in the device's memory, with Options::device_io" : "none in this engine"));
    }
    const Shape& s = memory.shape();
    if (!memory.defined() || s.rank() != 4 || s[2] < 1) raise(ErrorCode::invalid_argument, "the memory of a cache is " + s.to_string() + "; accepted: [B, H, C, D] with C of 1 or more");
    if (const Device home = engine->device_io ? Device::cuda : Device::cpu; memory.device() != home)
        raise(ErrorCode::invalid_argument, home == Device::cpu ? "the memory of a cache is a device's; accepted: the host's" : "the memory of a cache is the host's; accepted: the device's, for Options::device_io was set");
    if (length < 0 || length > s[2]) raise(ErrorCode::invalid_argument, "a cache of length " + std::to_string(length) + "; accepted: 0 to " + std::to_string(s[2]));
    if (!memory.raw()) raise(ErrorCode::invalid_argument, "the memory of a cache is not there");
    bind(i, session_detail::begin_of(memory, length));
    std::erase_if(caches, [&](const Cache& c) { return c.output == o; });
    caches.push_back({i, o, memory});
    ports_changed = true;
}
namespace session_detail {
inline bool overlap(const void* a, std::size_t n, const void* b, std::size_t m) {
    const auto from = reinterpret_cast<std::uintptr_t>(a), other = reinterpret_cast<std::uintptr_t>(b);
    return n && m && from < other + m && other < from + n;
}
inline bool overlap(const Tensor& a, const Tensor& b) { return a.defined() && b.defined() && a.device() == b.device() && overlap(a.raw(), a.bytes(), b.raw(), b.bytes()); }
}  // namespace session_detail
/// What is read while it would be written, or written twice, is copied at the end of a run.
QUERN_INLINE void Session::Impl::find_targets() {
    ports_changed = false;
    const bool plain = !runner.plan().device && std::none_of(bound_values.begin(), bound_values.end(), [](const Value& v) { return v.has_value(); });
    auto usable = [&](std::size_t o) {
        const Tensor& t = bound_outputs[o];
        if (!plain || !t.defined() || t.device() != Device::cpu || t.dtype() == DType::string || t.bytes() == 0) return false;
        const std::size_t element = std::max<std::size_t>(1, static_cast<std::size_t>(dtype_bits(t.dtype())) / 8);
        if (reinterpret_cast<std::uintptr_t>(t.raw()) % element || runner.owns(t.raw(), t.bytes())) return false;
        for (const Tensor& in : bound)
            if (session_detail::overlap(t, in)) return false;
        for (std::size_t k = 0; k < bound_outputs.size(); ++k)
            if (k != o && session_detail::overlap(t, bound_outputs[k])) return false;
        return true;
    };
    bool changed = targets.size() != bound_outputs.size();
    targets.resize(bound_outputs.size());
    for (std::size_t o = 0; o < targets.size(); ++o) {
        const Tensor now = usable(o) ? bound_outputs[o] : Tensor();
        if (now.defined() == targets[o].defined() && (!now.defined() || (now.raw() == targets[o].raw() && now.dtype() == targets[o].dtype() && now.shape() == targets[o].shape()))) continue;
        targets[o] = now;
        changed = true;
    }
    if (changed) runner.write_outputs_to(targets);
}
/// Shows what is bound of them to the run.
QUERN_INLINE void Session::Impl::place_caches() {
    for (const Cache& c : caches) {
        const std::string name = "cache '" + engine->model->inputs[static_cast<std::size_t>(c.input)].name + "'";
        if (bound_outputs[static_cast<std::size_t>(c.output)].defined()) raise(ErrorCode::invalid_argument, name + ": its output is bound to another tensor, too; accepted: one of the two");
        auto alone = [&](const Tensor& t) {
            if (session_detail::overlap(c.memory, t)) raise(ErrorCode::invalid_argument, name + " lies in memory of another input or output; accepted: memory of its own");
        };
        for (std::size_t i = 0; i < bound.size(); ++i)
            if (static_cast<int>(i) != c.input) alone(bound[i]);
        for (const Tensor& t : bound_outputs) alone(t);
        for (const Cache& other : caches)
            if (&other != &c) alone(other.memory);
        views[static_cast<std::size_t>(c.input)].room = c.memory.shape()[2];
    }
}
QUERN_INLINE void Session::Impl::bind(int i, const Value& v) {
    if (i < 0 || i >= static_cast<int>(bound.size())) raise(ErrorCode::invalid_argument, "the port is not an input of this model");
    const PortInfo& port = engine->model->inputs[i];
    if (!session_detail::fits(v, port) && v.has_value())
        raise(ErrorCode::invalid_argument, "input '" + port.name + "' is " + session_detail::type_of(port) + "; the value given is " + v.to_string());
    if (port.kind == Kind::tensor) return bind(i, v.has_value() ? v.tensor() : Tensor());
    bound_values[i] = v;
    ports_changed = true;
}
QUERN_INLINE void Session::Impl::bind_output(int i, Tensor t) {
    const PortInfo& port = engine->outputs[i];
    if (port.kind != Kind::tensor) raise(ErrorCode::invalid_argument, "output '" + port.name + "' is " + session_detail::type_of(port) + ": output_value() gives it");
    if (t.defined() && !t.raw() && t.count()) raise(ErrorCode::invalid_argument, "the tensor for output '" + port.name + "' is without memory");
    bound_outputs[i] = std::move(t);
    ports_changed = true;
}
QUERN_INLINE Tensor& Session::Impl::input(std::string_view name, const Shape* shape) {
    int i = index_of(name, false);
    const PortInfo& port = engine->model->inputs[i];
    if (engine->device_io) raise(ErrorCode::invalid_argument, "with Options::device_io inputs are given by bind() as device tensors");
    if (port.kind != Kind::tensor) raise(ErrorCode::invalid_argument, "input '" + port.name + "' is " + session_detail::type_of(port) + ": bind() a Value to it");
    Shape s;
    if (shape) s = *shape;
    else
        for (auto& d : port.dims) {
            if (!port.ranked || !d.value) raise(ErrorCode::invalid_argument, "input '" + port.name + "' has dimensions that the model leaves open: give input() a shape");
            s.push_back(*d.value);
        }
    if (!owned[i].defined() || !(owned[i].shape() == s)) owned[i] = make_input(port.dtype, s);
    bind(i, owned[i]);
    return owned[i];
}
/// Zeroed; page-locked where a device reads it.
QUERN_INLINE Tensor Session::Impl::make_input(DType dtype, const Shape& shape) const {
    const std::shared_ptr<DeviceApi>& api = runner.plan().device;
    const std::size_t n = storage_bytes(dtype, shape.count());
    if (!api || dtype == DType::string || n == 0 || n > Arena::most_pinned || std::any_of(shape.begin(), shape.end(), [](std::int64_t d) { return d < 0; })) return Tensor(dtype, shape);
    void* p = nullptr;
    if (!guarded([&] { p = api->allocate_pinned(n); })) return Tensor(dtype, shape);  // ordinary memory will do
    std::memset(p, 0, n);
    return Tensor::share(dtype, shape, p, std::shared_ptr<const void>(p, [api](const void* q) { api->release_pinned(const_cast<void*>(q)); }));
}
QUERN_INLINE void Session::Impl::run_plan() {
    DeviceApi* api = runner.plan().device.get();
    if (!api) return runner.run(views);
    const int before = api->enter();
    auto done = guarded([&] {
        runner.run(views);
        if (!engine->device_io) api->synchronize(shared.stream);
    });
    if (!done) drain(*api);  // what was enqueued reads the caller's memory
    if (!done || !engine->device_io) shared.unread = false;
    api->leave(before);
    if (!done) raise(done.error());
}
QUERN_INLINE void Session::Impl::run() {
    const auto& ports = engine->model->inputs;
    ran = false;
    for (std::size_t i = 0; i < ports.size(); ++i) {
        if (ports[i].kind != Kind::tensor) {
            if (!bound_values[i].has_value() && ports[i].kind != Kind::optional) raise(ErrorCode::invalid_argument, "input '" + ports[i].name + "' (" + session_detail::type_of(ports[i]) + ") was not given");
            views[i] = View{ports[i].dtype, 0, nullptr, &bound_values[i], ports[i].kind};
            continue;
        }
        if (!bound[i].defined()) raise(ErrorCode::invalid_argument, "input '" + ports[i].name + "' was not given; the model's inputs are " + session_detail::names_of(ports));
        views[i] = detail::view_of(bound[i]);
    }
    if (!caches.empty()) place_caches();
    if (ports_changed) find_targets();
    times.clear();
    shared.profile_start = std::chrono::steady_clock::now();
    shared.deadline = no_deadline;
    if (engine->deadline > 0)
        shared.deadline = shared.profile_start + std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(engine->deadline));
    workers.until(shared.deadline);
    RunWorkers::Busy busy(workers);
    struct Uncancel {
        std::atomic<bool>& flag;
        ~Uncancel() { flag.store(false); }
    } uncancel{shared.cancelled};
    with_place([&] { return engine->model->path.empty() ? std::string("model from bytes") : "model '" + engine->model->path + "'"; }, [&] { run_plan(); });
    for (const Cache& c : caches) {
        bound[static_cast<std::size_t>(c.input)] = session_detail::begin_of(c.memory, runner.output(static_cast<std::size_t>(c.output)).dims[2]);
        outputs[static_cast<std::size_t>(c.output)] = c.memory;
    }
    for (std::size_t o = 0; o < outputs.size(); ++o) {
        const View& v = runner.output(o);
        if (v.room) continue;
        if (v.kind != Kind::tensor) {
            output_values[o] = *v.in<Value>();
            continue;
        }
        if (outputs[o].raw() != v.data || outputs[o].dtype() != v.dtype || !std::equal(v.dims, v.dims + v.rank, outputs[o].shape().begin(), outputs[o].shape().end()))
            outputs[o] = engine->device_io ? Tensor::borrow_device(Device::cuda, v.dtype, Shape(v.shape()), v.data) : Tensor::borrow(v.dtype, Shape(v.shape()), v.data);
        Tensor& to = bound_outputs[o];
        if (!to.defined()) continue;
        if (targets[o].defined() && targets[o].raw() == v.data) {  // there already; what it belongs to lives on
            outputs[o] = to;
            continue;
        }
        const std::string& name = o < engine->outputs.size() ? engine->outputs[o].name : engine->taps[o - engine->outputs.size()];
        if (to.dtype() != v.dtype || !(to.shape() == outputs[o].shape()))
            raise(ErrorCode::shape_mismatch, "output '" + name + "' came out as " + dtype_name(v.dtype) + outputs[o].shape().to_string() + "; the tensor bound to it is " + dtype_name(to.dtype()) + to.shape().to_string());
        if (to.device() != outputs[o].device()) raise(ErrorCode::invalid_argument, "the tensor bound to output '" + name + "' is in other memory than the output");
        if (to.device() != Device::cpu) { if (to.bytes()) runner.plan().device->copy(to.raw(), v.data, to.bytes(), shared.stream); }
        else if (v.dtype == DType::string) std::copy(outputs[o].strings().begin(), outputs[o].strings().end(), to.strings().begin());
        else if (to.bytes()) std::memmove(to.raw(), v.data, to.bytes());  // an output may be a view of an input, and the caller's tensors may overlap
    }
    ran = true;
}
QUERN_INLINE const Tensor& Session::Impl::output(int i) const {
    if (!ran) raise(ErrorCode::invalid_argument, "the outputs are there after a run() that succeeded");
    if (i < 0 || i >= static_cast<int>(outputs.size())) raise(ErrorCode::invalid_argument, "the port is not an output of this model");
    if (runner.output(static_cast<std::size_t>(i)).kind != Kind::tensor) raise(ErrorCode::invalid_argument, "output " + std::to_string(i) + " is " + output_values[i].to_string() + ": output_value() gives it");
    return bound_outputs[i].defined() ? bound_outputs[i] : outputs[i];
}
QUERN_INLINE const Value& Session::Impl::output_value(int i) const {
    if (!ran || i < 0 || i >= static_cast<int>(outputs.size())) output(i);  // raises
    if (runner.output(static_cast<std::size_t>(i)).kind == Kind::tensor) output_values[i] = Value(output(i));
    return output_values[i];
}
QUERN_INLINE int Session::Impl::tap_index(std::string_view name) const {
    for (std::size_t t = 0; t < engine->taps.size(); ++t)
        if (engine->taps[t] == name) return static_cast<int>(engine->outputs.size() + t);
    raise(ErrorCode::invalid_argument, "'" + std::string(name) + "' was not named in Options::taps");
}

QUERN_INLINE Session::Session(std::unique_ptr<Impl> p) noexcept : p_(std::move(p)) {}
QUERN_INLINE Session::Session(Session&&) noexcept = default;
QUERN_INLINE Session& Session::operator=(Session&&) noexcept = default;
QUERN_INLINE Session::~Session() = default;
QUERN_INLINE Result<Session> Session::try_create(const Engine& e) noexcept {
    return guarded([&] { return Session(std::make_unique<Impl>(e.shared())); });
}
QUERN_INLINE Result<void> Session::try_bind(std::string_view name, const Tensor& t) noexcept {
    return guarded([&] { p_->bind(p_->index_of(name, false), t); });
}
QUERN_INLINE Result<void> Session::try_bind(std::string_view name, const Value& v) noexcept {
    return guarded([&] { p_->bind(p_->index_of(name, false), v); });
}
QUERN_INLINE Result<Value> Session::try_output_value(std::string_view name) const noexcept {
    return guarded([&] { return p_->output_value(p_->index_of(name, true)); });
}
QUERN_INLINE Result<void> Session::try_bind(PortId port, const Tensor& t) noexcept {
    return guarded([&] { p_->bind(port.output ? -1 : port.index, t); });
}
QUERN_INLINE Result<void> Session::try_bind_output(std::string_view name, Tensor t) noexcept {
    return guarded([&] { p_->bind_output(p_->index_of(name, true), std::move(t)); });
}
QUERN_INLINE Result<void> Session::try_bind_cache(std::string_view input, std::string_view output, const Tensor& memory, std::int64_t length) noexcept {
    return guarded([&] { p_->bind_cache(p_->index_of(input, false), p_->index_of(output, true), memory, length); });
}
QUERN_INLINE Result<void> Session::try_run() noexcept {
    return guarded([&] { p_->run(); });
}
QUERN_INLINE Result<Tensor> Session::try_output(std::string_view name) const noexcept {
    return guarded([&] { return p_->output(p_->index_of(name, true)); });
}
QUERN_INLINE Result<Tensor> Session::try_tap(std::string_view name) const noexcept {
    return guarded([&] { return p_->output(p_->tap_index(name)); });
}
QUERN_INLINE void Session::stream(void* stream) noexcept {
    void* const next = stream ? stream : p_->own_stream;
    DeviceApi* api = p_->runner.plan().device.get();
    if (api && next != p_->shared.stream && p_->engine->device_io) p_->drain(*api);  // runs there use the session's memory
    p_->shared.stream = next;
}
QUERN_INLINE void* Session::stream() const noexcept { return p_->shared.stream; }
QUERN_INLINE void Session::cancel() noexcept { p_->shared.cancelled.store(true); }
QUERN_INLINE void Session::profile(bool on) noexcept { p_->shared.profile = on; }
QUERN_INLINE std::vector<StepTime> Session::times() const { return p_->times; }
QUERN_INLINE std::string Session::profile_table() const {
    struct Sum { double us = 0; int runs = 0; };
    std::map<std::string, Sum> kinds, nodes;  // a node of a loop's body runs many times
    double total = 0;
    for (auto& t : p_->times) {
        const double us = t.micros - t.inner_us;
        total += us;
        for (auto* sum : {&kinds[t.op + " by " + t.kernel], &nodes[t.op + " '" + t.node + "' " + t.kernel]}) sum->us += us, ++sum->runs;
    }
    auto line = [&](double us, const std::string& s) {
        char b[64];
        std::snprintf(b, sizeof b, "%12.1f us %6.1f %%  ", us, total > 0 ? 100 * us / total : 0.0);
        return b + s + "\n";
    };
    auto table = [&](const std::map<std::string, Sum>& sums, bool always) {
        std::vector<std::pair<std::string, Sum>> rows(sums.begin(), sums.end());
        std::stable_sort(rows.begin(), rows.end(), [](auto& a, auto& b) { return a.second.us > b.second.us; });
        std::string text;
        for (auto& [name, sum] : rows) text += line(sum.us, name + (always || sum.runs > 1 ? " (" + std::to_string(sum.runs) + (sum.runs == 1 ? " run)" : " runs)") : ""));
        return text;
    };
    return "by operator and kernel:\n" + table(kinds, true) + "by node:\n" + table(nodes, false) + line(total, "in all steps");
}
QUERN_INLINE std::string Session::profile_trace() const {
    std::string s = "{\"traceEvents\":[";
    bool first = true;
    for (auto& t : p_->times) {
        char b[96];
        std::snprintf(b, sizeof b, "\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":%.3f,\"dur\":%.3f,", t.start_us, t.micros);
        s += (first ? "{" : ",{") + std::string("\"name\":") + json_string(t.node) + ",\"cat\":" + json_string(t.op) + "," + b + "\"args\":{\"kernel\":" + json_string(t.kernel) + "}}";
        first = false;
    }
    return s + "]}";
}
QUERN_INLINE std::size_t Session::memory_bytes() const noexcept { return p_->runner.memory_bytes(); }
QUERN_INLINE void Session::trim() noexcept {
    p_->runner.trim();
    if (DeviceApi* api = p_->runner.plan().device.get()) api->trim();  // what growing arenas left in its pool
}

// The throwing forms exist only where the caller has exceptions; the library itself always has them.
QUERN_INLINE Model Model::load(const std::string& path, const LoadOptions& o, const CustomOps& custom) { return try_load(path, o, custom).value(); }
QUERN_INLINE Model Model::from_bytes(std::span<const std::byte> bytes, const LoadOptions& o, const CustomOps& custom) { return try_from_bytes(bytes, o, custom).value(); }
QUERN_INLINE Engine Model::compile(const Options& o) const { return try_compile(o).value(); }
QUERN_INLINE std::vector<NamedTensor> Engine::run(const std::vector<NamedTensor>& in) const { return try_run(in).value(); }
QUERN_INLINE std::vector<NamedValue> Engine::run_values(const std::vector<NamedValue>& in) const { return try_run_values(in).value(); }
QUERN_INLINE PortId Engine::input(std::string_view name) const { return try_input(name).value(); }
QUERN_INLINE PortId Engine::output(std::string_view name) const { return try_output(name).value(); }
QUERN_INLINE Session::Session(const Engine& e) : p_(std::make_unique<Impl>(e.shared())) {}
QUERN_INLINE Tensor& Session::input(std::string_view name, const Shape& shape) { return p_->input(name, &shape); }
QUERN_INLINE Tensor& Session::input(std::string_view name) { return p_->input(name, nullptr); }
QUERN_INLINE void Session::bind(std::string_view name, const Tensor& t) { p_->bind(p_->index_of(name, false), t); }
QUERN_INLINE void Session::bind(PortId port, const Tensor& t) { p_->bind(port.output ? -1 : port.index, t); }
QUERN_INLINE void Session::bind(std::string_view name, const Value& v) { p_->bind(p_->index_of(name, false), v); }
QUERN_INLINE const Value& Session::output_value(std::string_view name) const& { return p_->output_value(p_->index_of(name, true)); }
QUERN_INLINE void Session::bind_output(std::string_view name, Tensor t) { p_->bind_output(p_->index_of(name, true), std::move(t)); }
QUERN_INLINE void Session::bind_cache(std::string_view input, std::string_view output, const Tensor& memory, std::int64_t length) { p_->bind_cache(p_->index_of(input, false), p_->index_of(output, true), memory, length); }
QUERN_INLINE void Session::run() { p_->run(); }
QUERN_INLINE const Tensor& Session::output(std::string_view name) const& { return p_->output(p_->index_of(name, true)); }
QUERN_INLINE const Tensor& Session::output(PortId port) const& { return p_->output(port.output ? port.index : -1); }
QUERN_INLINE const Tensor& Session::tap(std::string_view name) const& { return p_->output(p_->tap_index(name)); }

QUERN_END
