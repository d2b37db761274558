// Engines in files.
#pragma once
#include "../plan/engine_file.hpp"
#include "engine_file.hpp"
#include "session-inl.hpp"

QUERN_BEGIN
namespace session_detail {

inline std::string backend_names(std::span<const Backend* const> backends) {
    std::string s;
    for (const Backend* b : backends) s += (s.empty() ? "" : ",") + std::string(b->name);
    return s;
}
inline std::string own_version() {
    Version v = library_version();
    return std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch);
}
inline void save_engine(const Engine::Impl& e, const std::string& path) {
    with_place([&] { return "engine file '" + path + "'"; }, [&] {
        if (e.plan->target.device != Device::cpu) raise(ErrorCode::unsupported, "an engine for a device cannot be written to a file; engines for the CPU are accepted");
        write_engine(path, *e.plan, EngineHeader{own_version(), backend_names(e.plan->backends), e.plan->target.isa, e.taps.size(), e.plan->packs, {}});
    });
}
/// What a file says must be what this process has: weights are packed and kernels chosen for exactly that.
inline void need_same(const char* what, const std::string& file, const std::string& here) {
    if (file != here) raise(ErrorCode::unsupported, std::string("the engine file was made with ") + what + " '" + file + "'; here it is '" + here + "': compile the model again");
}
/// Passes ran where the file was made: what they cast away stands nowhere.
inline void need_promoted(const Graph& g) {
    for (NodeId id : g.order()) {
        const Node& n = g.nodes[id];
        for (auto& [name, a] : n.attrs.all())
            if (auto* body = std::get_if<std::shared_ptr<const Graph>>(&a)) need_promoted(**body);
        if (n.op->compute == Compute::any || detail::takes_narrow(g, n)) continue;
        for (bool input : {true, false}) {
            const std::vector<ValueId>& ports = input ? n.in : n.out;
            for (std::size_t i = 0; i < ports.size(); ++i)
                if (ports[i] != no_value && g.fact(ports[i]).kind == Kind::tensor && detail::needs_promotion(*n.op, i, g.fact(ports[i]).dtype, input))
                    raise(ErrorCode::invalid_model, std::string(n.op->name) + " of " + dtype_name(g.fact(ports[i]).dtype) + ", which no kernel computes in: an engine file casts it");
        }
    }
}
inline std::shared_ptr<const Engine::Impl> load_engine(std::shared_ptr<const MappedFile> file, const Options& o, const CustomOps& custom, bool verify) {
    const std::string& path = file->path();
    return with_place([&] { return "engine file '" + path + "'"; }, [&]() -> std::shared_ptr<const Engine::Impl> {
        if (o.device != "cpu") raise(ErrorCode::unsupported, "engine files are for the CPU; device '" + o.device + "' was asked for");
        auto e = std::make_shared<Engine::Impl>();
        set_running(*e, o);
        RunWorkers workers(e->pool.get(), o.executor.get());
        bool parallel = file->size() >= parallel_from;
        EngineImage image = read_engine(file, parallel ? &workers : nullptr, verify, custom);
        const EngineHeader& h = image.header;
        auto all = linked_backends();
        std::vector<const Backend*> backends;
        for (const Backend* b : o.backends.empty() ? std::vector<const Backend*>(all.begin(), all.end()) : o.backends)
            if (h.backends.find(b->name) != std::string::npos) backends.push_back(b);
        need_same("quern", h.made_by, own_version());
        need_same("backends", h.backends, backend_names(backends));
        if (h.isa > std::min(o.isa, best_isa()))
            raise(ErrorCode::unsupported, std::string("the engine file is for ") + (h.isa <= Isa::avx512 ? isa_name(h.isa) : "an unknown instruction set") + "; here " + isa_name(std::min(o.isa, best_isa())) + " is the best that may be used: compile the model again");
        if (!image.model.problems.empty()) raise(problem_error(image.model.problems));
        if (h.taps > image.model.outputs.size()) raise(ErrorCode::invalid_model, "the engine file has more taps than outputs");

        auto m = std::make_shared<Model::Impl>();
        m->path = path;
        m->custom = image.custom;
        m->inputs = std::move(image.model.inputs);
        m->outputs = std::move(image.model.outputs);
        for (std::size_t i = m->outputs.size() - h.taps; i < m->outputs.size(); ++i) e->taps.push_back(m->outputs[i].name);
        m->outputs.resize(m->outputs.size() - h.taps);
        m->packs = PackRegistry::of(nullptr);
        m->packs->add(file);
        m->packs->add(image.blank);
        PlanOptions po;
        po.target.isa = h.isa;
        po.target.backends = backends;
        po.memory_limit = o.memory_limit;
        PackStore store(m->packs, 0, &h.packs);
        po.store = &store;
        if (parallel) po.workers = &workers;
        need_promoted(image.model.graph);
        e->plan = make_plan(std::move(image.model.graph), po);
        e->packings = e->plan->packings;
        auto blank = image.blank->bytes();
        for (const PlanValue& v : e->plan->values) {
            const auto* p = static_cast<const std::byte*>(v.constant.raw());
            if (v.home == PlanValue::Home::constant && p && p >= blank.data() && p < blank.data() + blank.size())
                raise(ErrorCode::invalid_model, "the engine file does not have the content of '" + v.name + "', which a kernel chosen here reads: compile the model again");
        }
        e->outputs = m->outputs;
        e->model = std::move(m);
        check_memory(*e);
        return e;
    });
}

}  // namespace session_detail

QUERN_INLINE Engine engine_of_file(std::shared_ptr<const MappedFile> file, const Options& o, const CustomOps& custom, bool verify) {
    return Engine(session_detail::load_engine(std::move(file), o, custom, verify));
}
QUERN_INLINE Result<void> Engine::try_save(const std::string& path) const noexcept {
    return guarded([&] { session_detail::save_engine(*p_, path); });
}
QUERN_INLINE Result<Engine> Engine::try_load(const std::string& path, const Options& o, const CustomOps& custom) noexcept {
    return guarded([&] {
        return engine_of_file(with_place([&] { return "engine file '" + path + "'"; }, [&] { return MappedFile::shared(MappedFile(path)); }), o, custom);
    });
}
QUERN_INLINE void Engine::save(const std::string& path) const { try_save(path).value(); }
QUERN_INLINE Engine Engine::load(const std::string& path, const Options& o, const CustomOps& custom) { return try_load(path, o, custom).value(); }

QUERN_END
