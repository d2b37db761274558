// Steps whose sizes, kernels or places depend on data: resolved when their inputs are there.
#pragma once
#include "runner-inl.hpp"

QUERN_BEGIN

QUERN_INLINE void Runner::late_infer(int step, std::vector<std::vector<std::int64_t>>& dims, bool& same) {
    const PlanStep& st = plan_->steps[step];
    Frame::Step& fs = frame_->steps[step];
    auto in = in_views(step);
    // What inference depends on: shapes, and the contents of short tensors.
    auto content = [](const View& v) { return v.present() && v.rank <= 1 && v.count() <= 1024 && dtype_bits(v.dtype) >= 8; };
    std::size_t at = 0;
    same = !fs.key.empty();
    auto note = [&](std::int64_t x) {
        if (at < fs.key.size()) {
            if (fs.key[at] != x) same = false, fs.key[at] = x;
        } else same = false, fs.key.push_back(x);
        ++at;
    };
    for (auto& v : in) {
        note(v.rank);
        for (int d = 0; d < v.rank; ++d) note(v.dims[d]);
        if (!content(v)) continue;
        std::size_t n = storage_bytes(v.dtype, v.count());
        for (std::size_t b = 0; b < n; b += 8) {
            std::int64_t word = 0;
            std::memcpy(&word, static_cast<const std::byte*>(v.data) + b, std::min<std::size_t>(8, n - b));
            note(word);
        }
    }
    if (at != fs.key.size()) same = false, fs.key.resize(at);
    if (same) return;
    std::vector<Fact> facts(in.size());
    const Node& node = plan_->graph.nodes[st.node];
    InferCtx ctx(node);
    ctx.concrete = true;
    for (std::size_t i = 0; i < in.size(); ++i) {
        int v = st.in[i];
        if (v < 0) { ctx.inputs.push_back(nullptr); continue; }
        facts[i] = Fact::of(in[i].dtype, std::vector<Dim>(in[i].dims, in[i].dims + in[i].rank));
        if (plan_->values[v].home == PlanValue::Home::constant) facts[i].value = plan_->values[v].constant;
        else if (content(in[i])) facts[i].value = Tensor::borrow(in[i].dtype, Shape(in[i].shape()), in[i].data);
        ctx.inputs.push_back(&facts[i]);
    }
    ctx.outputs.resize(st.out.size());
    node.op->infer(ctx);
    dims.resize(st.out.size());
    for (std::size_t o = 0; o < st.out.size(); ++o) {
        if (st.out[o] < 0) continue;
        if (!ctx.outputs[o].concrete()) raise(ErrorCode::unsupported, "the size of output " + std::to_string(o) + " does not follow from the inputs; sizes, axes and counts are read from lists of up to 1024 integers");
        dims[o].clear();
        for (auto& d : ctx.outputs[o].dims) dims[o].push_back(d.value());
    }
}

QUERN_INLINE void Runner::choose_late(int step) {
    const PlanStep& st = plan_->steps[step];
    Frame::Step& fs = frame_->steps[step];
    auto in = in_views(step);
    bool fits = fs.kernel != nullptr && fs.ranks.size() == in.size();
    for (std::size_t i = 0; fits && i < in.size(); ++i) fits = fs.ranks[i] == in[i].rank;
    if (fits) return;
    fs.ranks.clear();
    for (auto& v : in) fs.ranks.push_back(v.rank);
    const Node& node = plan_->graph.nodes[st.node];
    std::vector<Fact> facts(in.size() + st.out.size());
    LowerCtx ctx{node, node.attrs, {}, {}, plan_->target};
    auto dims_of = [](int rank) { return std::vector<Dim>(static_cast<std::size_t>(rank), Dim::symbol("?")); };
    for (std::size_t i = 0; i < in.size(); ++i) {
        int v = st.in[i];
        if (v < 0) { ctx.inputs.push_back(nullptr); continue; }
        facts[i] = plan_->values[v].home == PlanValue::Home::constant ? Fact::constant(plan_->values[v].constant) : Fact::of(in[i].dtype, dims_of(in[i].rank));
        ctx.inputs.push_back(&facts[i]);
    }
    for (std::size_t o = 0; o < st.out.size(); ++o) {
        int v = st.out[o];
        if (v < 0) { ctx.outputs.push_back(nullptr); continue; }
        facts[in.size() + o] = Fact::of(plan_->values[v].dtype, dims_of(static_cast<int>(fs.now[o].size())));
        ctx.outputs.push_back(&facts[in.size() + o]);
    }
    Lowered l = node.op->lower(ctx);
    if (l.view_of >= 0) {  // planned as a value of its own: copied
        fs.kernel = make_copy(l.view_of);
    } else {
        fs.kernel = std::move(l.kernel);
        if (fs.kernel->packed_bytes() && shared_.packings) ++*shared_.packings;
    }
}

QUERN_INLINE void Runner::run_control(int step, std::vector<std::vector<std::int64_t>>& dims) {
    const PlanStep& st = plan_->steps[step];
    controls_[step]->run(in_views(step));
    auto out = controls_[step]->outputs();
    dims.resize(st.out.size());
    for (std::size_t o = 0; o < dims.size(); ++o) {
        dims[o].assign(out[o].dims, out[o].dims + out[o].rank);
        const PlanValue* x = st.out[o] < 0 ? nullptr : &plan_->values[st.out[o]];
        if (x && !runner_detail::fits(out[o], *x))
            raise(ErrorCode::internal, "value '" + x->name + "' came out as " + dtype_name(out[o].dtype) + " of another kind or type than planned");
        // No iteration told the size of a slice: it is what was planned, or nothing.
        for (std::size_t d = 0; d < dims[o].size(); ++d)
            if (dims[o][d] < 0) {
                std::int64_t planned = x && x->ranked && d < x->dims.size() && bound_early(x->dims[d]) ? frame_->slots[x->dims[d]] : 0;
                dims[o][d] = std::max<std::int64_t>(planned, 0);
            }
    }
}

/// Output 0 is a tensor that lives in a Value, which boxes_ keeps for as long as it is read.
QUERN_INLINE void Runner::refer(int step, std::vector<std::vector<std::int64_t>>& dims) {
    const PlanStep& st = plan_->steps[step];
    none_.assign(st.out.size(), View{});
    const Tensor* t = kernel_of(step)->refer(Call{in_views(step), none_, nullptr, nullptr, *shared_.workers});
    const PlanValue& x = plan_->values[st.out[0]];
    if (t->dtype() != x.dtype)
        raise(ErrorCode::invalid_argument, "value '" + x.name + "' is " + dtype_name(t->dtype()) + "; planned: " + dtype_name(x.dtype));
    boxes_[st.out[0]] = Value(t->aligned());
    dims.resize(st.out.size());
    dims[0].assign(t->shape().begin(), t->shape().end());
}

QUERN_INLINE bool Runner::bound_early(int slot) const {
    return !plan_->program.is_symbol(slot) || std::any_of(plan_->binds.begin(), plan_->binds.end(), [&](auto& b) { return b.slot == slot; });
}

/// Sizes of a late step's outputs, now that its inputs are there. Resolves its segment when they are new.
QUERN_INLINE void Runner::late(int step) {
    const PlanStep& st = plan_->steps[step];
    Frame& f = *frame_;
    Frame::Step& fs = f.steps[step];
    int segment = static_cast<int>(std::lower_bound(plan_->segments.begin(), plan_->segments.end(), step) - plan_->segments.begin());
    View* io = f.io.data() + io_at_[step];
    for (int v : st.in) *io++ = v < 0 ? View{} : f.views[v];
    auto& dims = fs.now;
    bool same = false;
    if (st.node < 0) {
        dims.resize(1);
        dims[0].assign(in_views(step)[0].dims, in_views(step)[0].dims + in_views(step)[0].rank);
    } else if (st.control) {
        run_control(step, dims);
    } else if (kernel_of(step) && kernel_of(step)->refers) {
        refer(step, dims);
    } else {
        if (!st.boxed) late_infer(step, dims, same);
        if (st.late_lower) choose_late(step);
        none_.assign(st.out.size(), View{});
        const Kernel* k = kernel_of(step);
        dims.resize(st.out.size());
        if (k && k->measure(Call{in_views(step), none_, nullptr, nullptr, *shared_.workers}, dims.data())) same = false;
    }
    if (f.resolved[segment] && (same || dims == fs.late_dims)) return;
    fs.late_dims = dims;
    // Bind what this step decides; everything that follows from it is unknown until evaluated again.
    for (std::size_t o = 0; o < st.out.size(); ++o) {
        int v = st.out[o];
        if (v < 0) continue;
        const PlanValue& x = plan_->values[v];
        if (!x.ranked) {
            f.loose[v] = dims[o];
            f.views[v].rank = static_cast<std::int32_t>(dims[o].size());
            f.views[v].dims = f.loose[v].data();
            continue;
        }
        if (dims[o].size() != x.dims.size())
            raise(ErrorCode::shape_mismatch, "value '" + x.name + "' came out with rank " + std::to_string(dims[o].size()) + ", planned " + std::to_string(x.dims.size()));
        for (std::size_t d = 0; d < x.dims.size(); ++d)
            if (plan_->program.is_symbol(x.dims[d]) && !bound_early(x.dims[d]))
                f.slots[x.dims[d]] = dims[o][d];
    }
    for (std::size_t k = segment; k < f.resolved.size(); ++k) f.resolved[k] = 0;
    resolve(segment);
    for (std::size_t o = 0; o < st.out.size(); ++o)
        if (st.out[o] >= 0 && plan_->values[st.out[o]].ranked && !std::equal(dims[o].begin(), dims[o].end(), f.views[st.out[o]].dims))
            raise(ErrorCode::shape_mismatch, "value '" + plan_->values[st.out[o]].name + "' came out as " + Shape(std::span<const std::int64_t>(dims[o])).to_string() +
                                                 ", planned " + Shape(f.views[st.out[o]].shape()).to_string());
}

QUERN_END
