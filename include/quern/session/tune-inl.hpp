// Choosing kernels by the clock.
#pragma once
#include <algorithm>
#include <chrono>
#include <vector>

#include "../base/guard.hpp"
#include "runner.hpp"

QUERN_BEGIN
namespace tuning {

/// Made-up content: fractions for floating-point numbers, zeros (which are in every range) for the rest.
inline Tensor sample_input(const Graph& g, ValueId v, const Options& o) {
    const Fact& f = g.fact(v);
    if (f.kind != Kind::tensor) raise(ErrorCode::unsupported, "Options::tune: input '" + g.values[v].name + "' is no tensor");
    if (!f.ranked) raise(ErrorCode::unsupported, "Options::tune: input '" + g.values[v].name + "' has an unknown number of dimensions");
    Shape shape;
    for (const Dim& d : f.dims) {
        std::int64_t n = 1;
        if (d.is_const()) n = d.value();
        else
            for (auto& [name, size] : o.tune_dims)
                if (name == d.to_string()) n = size;
        shape.push_back(n);
    }
    if (storage_bytes(f.dtype, shape.count()) > std::size_t{1} << 32) raise(ErrorCode::invalid_argument, "Options::tune: input '" + g.values[v].name + "' would have the shape " + shape.to_string());
    Tensor t(f.dtype, std::move(shape));
    std::uint32_t s = 1;
    for (std::int64_t i = 0; f.dtype == DType::f32 && i < t.count(); ++i) {
        s = s * 1664525u + 1013904223u;
        static_cast<float*>(t.raw())[i] = static_cast<float>(s >> 8) / 16777216.f;
    }
    return t;
}

/// Microseconds of the fastest of several runs.
inline double time_kernel(const Kernel& k, const Runner& runner, int step, Workers& workers) {
    using clock = std::chrono::steady_clock;
    auto in = runner.in_views(step), out = runner.out_views(step);
    Booking b = k.book(in, out, workers.width());
    Pages scratch(std::max<std::size_t>(b.scratch, 64));
    double best = 1e30;
    auto end = clock::now() + std::chrono::milliseconds(20);
    for (int i = 0; i < 5 || (i < 200 && clock::now() < end); ++i) {
        auto t0 = clock::now();
        k.run(Call{in, out, scratch.data(), b.state.get(), workers});
        best = std::min(best, std::chrono::duration<double, std::micro>(clock::now() - t0).count());
    }
    return best;
}

/// The name in `accepted` of the kernel that is fastest for step `s` of the plan that was just run, or nothing where its own is.
inline std::string fastest(const Runner& runner, int step, Workers& workers) {
    const Plan& p = runner.plan();
    const PlanStep& st = p.steps[step];
    const Node& n = p.graph.nodes[st.node];
    double own = time_kernel(*st.kernel, runner, step, workers), best = own;
    std::string name;
    for (const std::string& candidate : st.accepted) {
        Target t = p.target;
        t.prefer = candidate;
        LowerCtx ctx{n, n.attrs, facts_of(p.graph, n.in), facts_of(p.graph, n.out), t};
        Lowered l = n.op->lower(ctx);
        if (!l.kernel) continue;
        double us = time_kernel(*l.kernel, runner, step, workers);
        // Less than a twentieth is not told from noise: the ranked choice stays.
        if (us < best * 0.95 && us < own * 0.95) best = us, name = candidate;
    }
    return name;
}

}  // namespace tuning

/// Notes in the nodes which kernel is fastest. Plans the graph once for that, with constants kept.
inline void tune(Graph& g, PlanOptions po, const Options& o, Workers& workers) {
    po.tune = true;
    po.store = nullptr;
    if (po.device) raise(ErrorCode::unsupported, "Options::tune is for the CPU");
    auto plan = make_plan(g.clone(), po);
    RunShared shared;
    std::vector<StepTime> times;
    shared.workers = &workers;
    shared.times = &times;
    shared.memory_limit = po.memory_limit;
    Runner runner(plan, shared);
    std::vector<Tensor> inputs;
    std::vector<View> views;
    for (ValueId v : g.inputs) inputs.push_back(tuning::sample_input(g, v, o));
    for (Tensor& t : inputs) views.push_back(detail::view_of(t));
    with_place([] { return std::string("the run for Options::tune, on made-up inputs"); }, [&] { runner.run(views); });
    for (int s = 0; s < static_cast<int>(plan->steps.size()); ++s) {
        const PlanStep& st = plan->steps[s];
        if (st.node < 0 || !st.kernel || st.accepted.size() < 2) continue;
        std::string name = tuning::fastest(runner, s, workers);
        if (name.empty()) continue;
        g.nodes[st.node].attrs.set(std::string(chosen_kernel), name);
        if (o.log) o.log(LogLevel::info, place_of(g.nodes[st.node]) + ": " + name + " is faster than " + st.kernel->name());
    }
}

QUERN_END
