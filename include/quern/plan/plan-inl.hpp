#pragma once
#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <tuple>

#include "../base/guard.hpp"
#include "../ops/evaluate.hpp"
#include "../value.hpp"
#include "columns-inl.hpp"
#include "overlap-inl.hpp"
#include "plan.hpp"

QUERN_BEGIN
namespace plan_detail {

/// Output = input `from`, element by element: outputs whose memory belongs to the caller or to the model, views chosen late.
class Copy final : public Kernel {
public:
    explicit Copy(int from = 0) : from_(static_cast<std::size_t>(from)) {}
    const char* name() const noexcept override { return "copy"; }
    void run(const Call& c) const override { copy_elements(c.in[from_], c.out[0]); }
    /// As many elements as `y` has.
    static void copy_elements(const View& x, const View& y) {
        if (x.kind != Kind::tensor) *y.out<Value>() = *x.in<Value>();
        else if (x.dtype == DType::string) std::copy_n(x.in<std::string>(), y.count(), y.out<std::string>());
        else if (std::size_t n = storage_bytes(y.dtype, y.count())) std::memcpy(y.data, x.data, n);
    }

private:
    std::size_t from_;
};

inline bool is_transfer(const Node& n) {
    std::string_view name = n.op->name;
    return std::string_view(n.op->domain) == "quern" && (name == "CopyToDevice" || name == "CopyToHost");
}

class Planner {
public:
    Planner(Graph g, const PlanOptions& o) : opt_(o), plan_(std::make_shared<Plan>()) {
        plan_->graph = std::move(g);
        plan_->backends.assign(o.target.backends.begin(), o.target.backends.end());
        plan_->target = o.target;
        plan_->target.backends = plan_->backends;
        plan_->target.refusals = nullptr;
        plan_->device = o.device;
        device_target_ = plan_->target;
        plan_->target.device = Device::cpu;  // what is chosen while running runs on the CPU
        plan_->target.sm = 0;
        plan_->depth = o.depth;
    }
    std::shared_ptr<const Plan> make();

private:
    void sources();
    void find_late();
    std::string pack_name(const Node& n) const;
    void lower(NodeId id);
    void lower_all();
    std::vector<std::int64_t> turns_of_lowering() const;
    void find_needed();
    void add_step(NodeId id);
    void outputs();
    void constants();
    void device_constants();
    void find_recordable();
    void liveness();
    void find_checks();

    const PlanOptions& opt_;
    std::shared_ptr<Plan> plan_;
    std::vector<NodeId> order_;
    std::vector<char> late_, needed_;
    std::vector<PlanStep> lowered_;  // by node
    Target device_target_;
    std::vector<std::optional<Error>> failed_;
    std::vector<int> uses_;                  // by value
    std::vector<char> from_inputs_;          // slots of the dim program that the inputs decide
    static constexpr std::size_t few = 16384;  // bytes of a constant that is kept though no step reads it
};

inline void Planner::sources() {
    Plan& p = *plan_;
    const Graph& g = p.graph;
    p.values.resize(g.values.size());
    for (std::size_t v = 0; v < g.values.size(); ++v) {
        const Fact& f = g.values[v].fact;
        PlanValue& x = p.values[v];
        x.name = g.values[v].name;
        x.dtype = f.dtype;
        x.kind = f.kind;
        x.ranked = f.ranked || f.kind != Kind::tensor;
        x.root = static_cast<int>(v);
        for (auto& d : f.dims) x.dims.push_back(p.program.add(d));
        if (f.is_const()) {
            x.home = PlanValue::Home::constant;
            x.constant = f.value;
        }
    }
    for (std::size_t i = 0; i < g.inputs.size(); ++i) {
        p.values[g.inputs[i]].home = PlanValue::Home::input;
        p.values[g.inputs[i]].index = static_cast<int>(i);
        if (opt_.device_io && opt_.depth == 0) p.values[g.inputs[i]].device = Device::cuda;
        p.inputs.push_back(g.inputs[i]);
    }
}

/// Which nodes decide sizes from data, in order; which symbols the inputs bind; which values are symbolic.
inline void Planner::find_late() {
    Plan& p = *plan_;
    std::vector<char> known(p.program.size(), 0);
    for (std::size_t i = 0; i < p.inputs.size(); ++i) {
        auto& dims = p.values[p.inputs[i]].dims;
        for (std::size_t d = 0; d < dims.size(); ++d)
            if (p.program.is_symbol(dims[d])) {
                known[dims[d]] = 1;
                p.binds.push_back({dims[d], static_cast<int>(i), static_cast<int>(d)});
            }
    }
    p.program.mark_known(known);
    for (std::size_t v = 0; v < p.values.size(); ++v) {
        const Fact& f = p.graph.values[v].fact;
        PlanValue& x = p.values[v];
        if (x.home != PlanValue::Home::unused || !f.symbolic || !f.ranked || f.rank() > 1) continue;
        if (const Node* made = p.graph.producer(static_cast<ValueId>(v)); made && made->device != Device::cpu) continue;  // read there
        if (f.dtype != DType::i64 && f.dtype != DType::i32 && f.dtype != DType::boolean) continue;
        std::int64_t n = f.rank() ? (f.dims[0].is_const() ? f.dims[0].value() : -1) : 1;
        if (n != static_cast<std::int64_t>(f.symbolic->size())) continue;
        for (auto& d : *f.symbolic) x.content.push_back(p.program.add(d));
        p.program.mark_known(known);
        if (std::all_of(x.content.begin(), x.content.end(), [&](int s) { return known[s]; })) x.home = PlanValue::Home::symbolic;
    }
    from_inputs_ = known;
    late_.assign(p.graph.nodes.size(), 0);
    for (NodeId id : order_) {
        bool late = p.graph.nodes[id].op->control, learned = false;
        for (ValueId v : p.graph.nodes[id].out) {
            if (v == no_value) continue;
            PlanValue& x = p.values[v];
            if (!x.ranked) late = true;
            for (int s : x.dims) {
                if (known[s]) continue;
                late = true;
                if (p.program.is_symbol(s)) known[s] = 1, learned = true;
                else { x.ranked = false; break; }  // an expression of unknown symbols: sized like an unranked value
            }
            if (!x.ranked) x.dims.clear();
        }
        late_[id] = late;
        if (learned) p.program.mark_known(known);
    }
}

inline std::string Planner::pack_name(const Node& n) const {
    for (ValueId v : n.out)
        if (v != no_value) return opt_.path + plan_->graph.values[v].name;
    return opt_.path;
}

inline void Planner::lower(NodeId id) {
    const Plan& p = *plan_;
    const Node& n = p.graph.nodes[id];
    PlanStep& s = lowered_[id];
    s.node = id;
    s.late = late_[id];
    for (ValueId v : n.in) s.in.push_back(v);
    for (ValueId v : n.out) s.out.push_back(v);
    for (auto* list : {&s.in, &s.out})
        for (int v : *list) s.boxed = s.boxed || (v >= 0 && p.values[v].kind != Kind::tensor);
    with_place([&] { return place_of(n); }, [&] {
        if (n.op->control) {
            s.control = true;
            for (auto& [name, a] : n.attrs.all())
                if (auto* g = std::get_if<std::shared_ptr<const Graph>>(&a)) {
                    PlanOptions o = opt_;
                    o.depth = opt_.depth + 1;
                    o.workers = nullptr;
                    o.path = pack_name(n) + "/" + name + "/";
                    s.branches.push_back(make_plan(**g, o));
                }
            return;
        }
        s.device = n.device;
        if (is_transfer(n)) {
            if (device_target_.device == Device::cpu) raise(ErrorCode::unsupported, "a copy between memories of host and device in a model that is compiled for the CPU");
            s.transfer = n.device == Device::cpu ? Transfer::to_host : Transfer::to_device;
            return;
        }
        auto* lower = n.device == Device::cpu ? n.op->lower : n.op->lower_device;
        if (!lower) raise(ErrorCode::unsupported, "operator has no kernel");
        for (int v : s.in) s.late_lower = s.late_lower || (!s.boxed && v >= 0 && !p.values[v].ranked);
        if ((s.late_lower || s.late) && s.device != Device::cpu) raise(ErrorCode::internal, "a step whose sizes come from data was placed on the device");
        if (s.late_lower) { s.late = true; return; }
        Target target = n.device == Device::cpu ? p.target : device_target_;
        target.refusals = &s.refusals;
        std::string prefer = n.attrs.has(chosen_kernel) ? n.attrs.s(chosen_kernel, "") : "";
        target.prefer = prefer;
        if (opt_.tune) target.accepted = &s.accepted;
        std::optional<NodePacks> packs;
        if (opt_.store) target.packs = &packs.emplace(*opt_.store, pack_name(n));
        LowerCtx ctx{n, n.attrs, {}, {}, target};
        for (int v : s.in) ctx.inputs.push_back(v < 0 ? nullptr : &p.graph.values[v].fact);
        for (int v : s.out) ctx.outputs.push_back(v < 0 ? nullptr : &p.graph.values[v].fact);
        Lowered l = lower(ctx);
        s.view_of = l.view_of;
        s.kernel = std::move(l.kernel);
        if (!n.placement.empty()) s.refusals.push_back("on the device: " + n.placement);
        s.late = s.late || (s.kernel && s.kernel->refers);
        if (!s.kernel) return;
        s.stored = packs && packs->count();
        s.packings = s.stored ? packs->made() : s.kernel->packed_bytes() ? 1 : 0;
        for (std::size_t i = 0; packs && i < s.in.size(); ++i) {
            const Tensor& c = s.in[i] < 0 ? Tensor() : p.graph.values[s.in[i]].fact.value;
            const bool unread = i < 32 && s.kernel->unread >> i & 1u;
            if (c.defined() && (packs->copied(c) || unread)) packs->consumed(c.raw(), c.bytes());
            // Weights that passes computed go as soon as they are packed; nobody else looks at a value with one use.
            if (c.defined() && unread && s.stored && uses_[s.in[i]] == 1 && c.bytes() > few) {
                plan_->graph.values[s.in[i]].fact.value = Tensor();
                plan_->values[s.in[i]].constant = Tensor();
            }
        }
    });
}
/// Positions in order_: nodes with weights that passes computed first, for these give their memory back when packed, then the others, the
/// largest weights first, so that what is copied on the way is small when much is packed already.
inline std::vector<std::int64_t> Planner::turns_of_lowering() const {
    const Graph& g = plan_->graph;
    std::vector<std::tuple<bool, std::size_t, std::int64_t>> keys;
    for (NodeId id : order_) {
        std::size_t bytes = 0, owned = 0;
        for (ValueId v : g.nodes[id].in) {
            const Tensor& t = v == no_value ? Tensor() : g.fact(v).value;
            if (!t.defined() || t.dtype() == DType::string) continue;
            bytes += t.bytes();
            if (!opt_.store || !opt_.store->registry() || !opt_.store->registry()->is_stable(t)) owned += t.bytes();
        }
        keys.emplace_back(owned <= few, SIZE_MAX - bytes, static_cast<std::int64_t>(keys.size()));
    }
    std::sort(keys.begin(), keys.end());
    std::vector<std::int64_t> turns;
    for (auto& k : keys) turns.push_back(std::get<2>(k));
    return turns;
}
/// Kernels of all nodes that anybody could need, beside each other. What fails is told only if it is needed.
inline void Planner::lower_all() {
    const Plan& p = *plan_;
    lowered_.resize(p.graph.nodes.size());
    failed_.resize(p.graph.nodes.size());
    auto one = [&](std::int64_t i) {
        NodeId id = order_[static_cast<std::size_t>(i)];
        const auto& out = p.graph.nodes[id].out;
        if (std::none_of(out.begin(), out.end(), [&](ValueId v) { return v != no_value && p.values[v].home == PlanValue::Home::unused; })) return;
        if (auto r = guarded([&] { lower(id); }); !r) failed_[id] = r.error();
    };
    const auto turns = turns_of_lowering();
    auto n = static_cast<std::int64_t>(turns.size());
    if (!opt_.workers) {
        for (std::int64_t i = 0; i < n; ++i) one(turns[static_cast<std::size_t>(i)]);
        return;
    }
    // A pool's worker k begins at part k of the tiles: the largest are dealt out one by one.
    const std::int64_t width = std::max(1, opt_.workers->width()), part = (n + width - 1) / width;
    opt_.workers->for_each(part * width, [&](std::int64_t i) {
        if (std::int64_t k = i % part * width + i / part; k < n) one(turns[static_cast<std::size_t>(k)]);
    });
}

inline void Planner::find_needed() {
    Plan& p = *plan_;
    needed_.assign(p.graph.nodes.size(), 0);
    std::vector<char> want(p.values.size(), 0);
    for (ValueId v : p.graph.outputs) want[v] = 1;
    for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
        const Node& n = p.graph.nodes[*it];
        bool need = false;
        for (ValueId v : n.out) need = need || (v != no_value && want[v] && p.values[v].home == PlanValue::Home::unused);
        if (!need) continue;
        needed_[*it] = 1;
        if (failed_[*it]) raise(std::move(*failed_[*it]));
        const PlanStep& s = lowered_[*it];
        p.packings += s.packings;
        if (s.kernel) p.packed_bytes += s.kernel->packed_bytes();
        for (auto& b : s.branches) {
            p.packed_bytes += b->packed_bytes;
            p.packings += b->packings;
        }
        for (std::size_t i = 0; i < s.in.size(); ++i)
            if (s.in[i] >= 0 && (s.view_of < 0 || s.late || s.view_of == static_cast<int>(i))) want[s.in[i]] = 1;
    }
}

inline void Planner::add_step(NodeId id) {
    Plan& p = *plan_;
    PlanStep s = std::move(lowered_[id]);
    int number = static_cast<int>(p.steps.size());
    if (s.view_of >= 0 && !s.late)  // what only shapes the view is not read
        for (std::size_t i = 0; i < s.in.size(); ++i)
            if (static_cast<int>(i) != s.view_of) s.in[i] = -1;
    for (int& v : s.out) {
        if (v < 0) continue;
        PlanValue& x = p.values[v];
        if (x.home != PlanValue::Home::unused) { v = -1; continue; }  // symbolic content: nobody reads the kernel's
        x.made = number;
        x.device = s.device;
        using Home = PlanValue::Home;
        x.home = s.view_of >= 0 ? Home::view : s.control || (s.kernel && s.kernel->refers) ? Home::held : x.kind != Kind::tensor ? Home::box : Home::arena;
        if (s.view_of >= 0) {
            x.index = s.in[s.view_of];
            x.root = p.values[x.index].root;
        }
    }
    if (s.late || p.steps.empty()) p.segments.push_back(number);
    p.steps.push_back(std::move(s));
}

/// Outputs live in the session's memory: what is only a view of an input or a constant is copied there.
inline void Planner::outputs() {
    Plan& p = *plan_;
    using Home = PlanValue::Home;
    for (ValueId v : p.graph.outputs) {
        int out = v;
        Home home = p.values[p.values[v].root].home;
        if (home != Home::arena && home != Home::box && home != Home::held) {
            PlanValue x;
            x.kind = p.values[v].kind;
            x.home = x.kind == Kind::tensor ? Home::arena : Home::box;
            x.dtype = p.values[v].dtype;
            x.ranked = p.values[v].ranked;
            x.dims = p.values[v].dims;
            x.name = p.values[v].name;
            x.made = static_cast<int>(p.steps.size());
            x.device = p.values[v].device;
            out = x.root = static_cast<int>(p.values.size());
            p.values.push_back(std::move(x));
            PlanStep s;
            s.device = p.values[v].device;
            if (s.device == Device::cpu) s.kernel = std::make_unique<Copy>();
            else s.transfer = Transfer::on_device;
            s.in = {v};
            s.out = {out};
            if (!p.values[out].ranked) s.late = s.late_lower = true;
            if (s.late || p.steps.empty()) p.segments.push_back(static_cast<int>(p.steps.size()));
            p.steps.push_back(std::move(s));
        }
        p.outputs.push_back(out);
    }
    if (p.segments.empty()) p.segments.push_back(0);
}

/// Kernels may assume alignment to the element; bytes in a file need not have it. Only what is read is copied, and only what is read or
/// short (sizes and axes, which inference may ask for again) is kept.
inline void Planner::constants() {
    Plan& p = *plan_;
    enum : char { unused, bytes, elements };
    std::vector<char> use(p.values.size(), unused);
    auto flag = [](std::uint32_t bits, std::size_t i) { return i < 32 && (bits >> i & 1u); };
    for (auto& s : p.steps)
        for (std::size_t i = 0; i < s.in.size(); ++i) {
            bool unread = s.kernel && flag(s.kernel->unread, i);
            if (s.in[i] < 0 || (unread && s.stored)) continue;
            char& u = use[p.values[s.in[i]].root];
            u = std::max(u, unread || (s.kernel && (s.device != Device::cpu || flag(s.kernel->bytewise, i))) ? char(bytes) : char(elements));
        }
    for (std::size_t v = 0; v < p.values.size(); ++v) {
        PlanValue& x = p.values[v];
        if (x.home != PlanValue::Home::constant) continue;
        if (use[v] == elements) {
            Tensor a = x.constant.aligned();
            if (a.raw() != x.constant.raw() && opt_.store) NodePacks(*opt_.store, {}).consumed(x.constant.raw(), x.constant.bytes());
            x.constant = std::move(a);
        } else if (use[v] == unused && x.constant.bytes() > few) {
            x.constant = Tensor();
        }
        if (v < p.graph.values.size() && x.constant.raw() != p.graph.values[v].fact.value.raw()) p.graph.values[v].fact.value = x.constant;
    }
}

/// Device steps read constants from the device, but for those that they read on the host.
inline void Planner::device_constants() {
    Plan& p = *plan_;
    std::vector<int> twin(p.values.size(), -1);
    for (auto& s : p.steps) {
        if (s.device == Device::cpu || s.transfer != Transfer::none || !s.kernel) continue;
        for (std::size_t i = 0; i < s.in.size(); ++i) {
            if (s.in[i] < 0 || p.values[p.values[s.in[i]].root].home != PlanValue::Home::constant) continue;
            if (i < 32 && ((s.kernel->unread | s.kernel->host_in) >> i & 1u)) continue;
            int& t = twin[s.in[i]];
            if (t < 0) {
                PlanValue x = p.values[s.in[i]];
                x.constant = p.values[x.root].constant.aligned();
                x.home = PlanValue::Home::constant;
                x.device = Device::cuda;
                x.uploaded = opt_.constants->upload(p.device, x.constant);
                p.packed_bytes += x.constant.bytes();
                t = x.root = static_cast<int>(p.values.size());
                p.values.push_back(std::move(x));
            }
            s.in[i] = t;
        }
        if (auto packed = s.kernel->device_weights(); !packed.empty()) {
            s.weights = std::make_unique<DeviceWeights>();
            for (const Tensor& t : packed) {
                auto memory = opt_.constants->upload(p.device, t);
                const void* data = memory.get();
                s.weights->tensors.push_back(Tensor::borrow_device(Device::cuda, t.dtype(), t.shape(), data, std::move(memory)));
                p.packed_bytes += t.bytes();
            }
            for (Tensor& t : s.weights->tensors)
                s.weights->views.push_back({t.dtype(), static_cast<std::int32_t>(t.shape().rank()), t.shape().begin(), t.raw()});
        }
    }
}

/// Runs of device steps between what the host has to do. What a kernel reads on the host must not change between runs of
/// the same shapes.
inline void Planner::find_recordable() {
    Plan& p = *plan_;
    auto fits = [&](const PlanStep& s) {
        if (s.late || s.control || s.transfer == Transfer::to_device || s.transfer == Transfer::to_host) return false;
        if (!s.kernel) return s.view_of >= 0 || s.transfer == Transfer::on_device;
        if (s.device == Device::cpu) return false;
        for (std::size_t i = 0; i < s.in.size() && i < 32; ++i)
            if (s.in[i] >= 0 && (s.kernel->host_in >> i & 1u)) {
                auto home = p.values[p.values[s.in[i]].root].home;
                if (home != PlanValue::Home::constant && home != PlanValue::Home::symbolic) return false;
            }
        return true;
    };
    const int n = static_cast<int>(p.steps.size());
    for (int b = 0; b < n;) {
        int e = b, kernels = 0;
        while (e < n && fits(p.steps[e])) kernels += p.steps[e++].kernel != nullptr;
        if (kernels > 1) p.recordable.emplace_back(b, e);
        b = std::max(e, b + 1);
    }
}

inline void Planner::liveness() {
    Plan& p = *plan_;
    for (int s = 0; s < static_cast<int>(p.steps.size()); ++s)
        for (int v : p.steps[s].in)
            if (v >= 0) p.values[p.values[v].root].last = std::max(p.values[p.values[v].root].last, s);
    for (auto& x : p.values)
        if (x.made >= 0 && x.last < x.made && x.root == &x - p.values.data()) x.last = x.made;
    for (int v : p.outputs) p.values[p.values[v].root].last = static_cast<int>(p.steps.size());
    for (int s = 0; s < static_cast<int>(p.steps.size()); ++s) {  // a list that nobody reads again is changed instead of copied
        PlanStep& st = p.steps[s];
        if (!st.kernel || !st.kernel->inplace || st.out[0] < 0 || p.values[st.out[0]].home != PlanValue::Home::box) continue;
        for (std::size_t i = 0; i < st.in.size() && i < 32 && st.takes < 0; ++i) {
            if (st.in[i] < 0 || !(st.kernel->inplace >> i & 1u)) continue;
            const PlanValue& root = p.values[p.values[st.in[i]].root];
            bool ours = root.home == PlanValue::Home::box || root.home == PlanValue::Home::input;
            bool twice = std::count_if(st.in.begin(), st.in.end(), [&](int v) { return v >= 0 && p.values[v].root == p.values[st.in[i]].root; }) > 1;
            if (ours && !twice && root.kind != Kind::tensor && root.last == s) st.takes = static_cast<int>(i);
        }
    }
}

/// Steps whose shapes fit whatever sizes the symbols have are never looked at again. The others are found by trying:
/// sizes that differ from each other break every equation that is not an identity; 1 and 2 break lower bounds. A hostile model could be made to fit
/// all sizes that are tried and no other: polynomials are also tried at sizes that it cannot know, and what has quotients or bounds in it is
/// always looked at.
inline void Planner::find_checks() {
    Plan& p = *plan_;
    if (p.program.symbols().empty()) return;
    auto bends = [&](int v) {
        if (v < 0 || v >= static_cast<int>(p.graph.values.size())) return false;
        const Fact& f = p.graph.values[static_cast<std::size_t>(v)].fact;
        auto any = [](const std::vector<Dim>& dims) { return std::any_of(dims.begin(), dims.end(), [](const Dim& d) { return !d.is_polynomial(); }); };
        return any(f.dims) || (f.symbolic && any(*f.symbolic));
    };
    for (PlanStep& s : p.steps)
        if (s.node >= 0 && !s.late && !s.control && !s.boxed) s.check = std::any_of(s.in.begin(), s.in.end(), bends) || std::any_of(s.out.begin(), s.out.end(), bends);
    std::uint64_t noise = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()) ^ reinterpret_cast<std::uintptr_t>(&p);
    auto unknowable = [&]() -> std::int64_t {
        noise = (noise ^ noise >> 31) * 0x9e3779b97f4a7c15u + 1;
        return 3 + static_cast<std::int64_t>(noise >> 44);  // up to 2^20
    };
    for (int trial = 0; trial < 6; ++trial) {
        std::vector<std::int64_t> slots(static_cast<std::size_t>(p.program.size()), DimProgram::unknown);
        std::int64_t k = 0;
        for (auto& [name, slot] : p.program.symbols()) {
            slots[slot] = trial == 0 ? 1009 + 97 * (k % 1000) : trial == 1 ? 99991 - 89 * (k % 1000) : trial < 4 ? trial - 1 : unknowable();
            ++k;
        }
        for (int i = 0; i < p.program.size(); ++i)
            if (!guarded([&] { p.program.evaluate(slots.data(), i, i + 1); })) slots[i] = DimProgram::unknown;
        for (int s = 0; s < static_cast<int>(p.steps.size()); ++s)
            if (!p.steps[s].check) p.steps[s].check = !guarded([&] { verify_step(p, s, slots.data()); });
    }
}

inline std::shared_ptr<const Plan> Planner::make() {
    if (opt_.depth > 64) raise(ErrorCode::invalid_model, "subgraphs are nested more than 64 deep");
    order_ = plan_->graph.order();
    sources();
    find_late();
    uses_ = plan_->graph.use_counts();
    lower_all();
    find_needed();
    if (plan_->device) order_ = Enqueuer{*plan_, needed_, lowered_, from_inputs_}.run(order_);
    for (NodeId id : order_)
        if (needed_[id]) add_step(id);
    outputs();
    if (!opt_.tune) cut_columns(*plan_), join_columns(*plan_);  // kernels are timed over dense values
    if (!opt_.depth) find_caches(*plan_);
    constants();
    if (plan_->device) device_constants(), find_recordable();
    liveness();
    if (plan_->device) find_waits(*plan_);
    find_checks();
    if (opt_.store && opt_.depth == 0) plan_->packs = opt_.store->take();
    return plan_;
}

/// The dims of value `v` for these slots; false where it has none yet.
inline bool dims_of(const Plan& p, int v, const std::int64_t* slots, std::vector<Dim>& out) {
    out.clear();
    for (int s : p.values[v].dims) {
        if (slots[s] < 0) return false;
        out.emplace_back(slots[s]);
    }
    return p.values[v].ranked;
}
/// The content of a symbolic value for these slots.
inline Tensor content_of(const PlanValue& x, const std::int64_t* slots) {
    Tensor t(x.dtype, x.dims.empty() ? Shape{} : Shape{static_cast<std::int64_t>(x.content.size())});
    for (std::size_t i = 0; i < x.content.size(); ++i) {
        std::int64_t e = slots[x.content[i]];
        if (x.dtype == DType::i64) t.data<std::int64_t>()[i] = e;
        else if (x.dtype == DType::i32) t.data<std::int32_t>()[i] = static_cast<std::int32_t>(e);
        else static_cast<std::uint8_t*>(t.raw())[i] = e != 0;
    }
    return t;
}

}  // namespace plan_detail

QUERN_INLINE void verify_step(const Plan& p, int step, const std::int64_t* slots) {
    const PlanStep& st = p.steps[step];
    if (st.late || st.control || st.boxed || st.node < 0) return;
    const char* open = "sizes are not known";
    std::vector<Dim> dims;
    if (st.view_of >= 0) {
        if (st.out[0] < 0) return;
        Dim count[2] = {1, 1};
        for (int side = 0; side < 2; ++side) {
            if (!plan_detail::dims_of(p, side ? st.out[0] : st.in[st.view_of], slots, dims)) raise(ErrorCode::shape_mismatch, open);
            for (auto& d : dims) count[side] *= d;
        }
        if (!(count[0] == count[1]))
            raise(ErrorCode::shape_mismatch, "value '" + p.values[st.in[st.view_of]].name + "' has " + count[0].to_string() + " elements, '" +
                                                 p.values[st.out[0]].name + "' would have " + count[1].to_string());
        return;
    }
    const Node& node = p.graph.nodes[st.node];
    std::vector<Fact> facts(st.in.size());
    InferCtx ctx(node);
    std::int64_t counter = 0;
    ctx.fresh_counter = &counter;
    for (std::size_t i = 0; i < st.in.size(); ++i) {
        int v = st.in[i];
        if (v < 0) { ctx.inputs.push_back(nullptr); continue; }
        const PlanValue& x = p.values[v];
        if (!plan_detail::dims_of(p, v, slots, dims)) raise(ErrorCode::shape_mismatch, open);
        facts[i] = Fact::of(x.dtype, dims);
        if (x.home == PlanValue::Home::constant) facts[i].value = x.constant;
        if (x.home == PlanValue::Home::symbolic) facts[i].value = plan_detail::content_of(x, slots);
        ctx.inputs.push_back(&facts[i]);
    }
    ctx.outputs.resize(node.out.size());
    node.op->infer(ctx);
    for (std::size_t o = 0; o < st.out.size(); ++o) {
        if (st.out[o] < 0 || !ctx.outputs[o].concrete()) continue;
        if (!plan_detail::dims_of(p, st.out[o], slots, dims)) raise(ErrorCode::shape_mismatch, open);
        if (dims.size() != ctx.outputs[o].dims.size() || !std::equal(dims.begin(), dims.end(), ctx.outputs[o].dims.begin()))
            raise(ErrorCode::shape_mismatch, "output " + std::to_string(o) + " comes out as " + ctx.outputs[o].to_string() + ", which differs from its plan: the inputs' shapes do not fit the model");
    }
}

QUERN_INLINE std::shared_ptr<const void> DeviceConstants::upload(const std::shared_ptr<DeviceApi>& api, const Tensor& t) {
    std::lock_guard<std::mutex> l(lock_);
    std::erase_if(held_, [](const Held& h) { return h.memory.expired(); });
    for (const Held& h : held_)
        if (h.api == api.get() && h.bytes == t.raw() && h.size == t.bytes())
            if (auto m = h.memory.lock()) return m;
    void* p = api->allocate(std::max<std::size_t>(t.bytes(), 1));
    std::shared_ptr<const void> memory(p, [api, t](const void* q) { api->release(const_cast<void*>(q)); });
    if (t.bytes()) {
        api->to_device(p, t.raw(), t.bytes(), nullptr);
        api->synchronize(nullptr);
    }
    held_.push_back({api.get(), t.raw(), t.bytes(), memory});
    return memory;
}
QUERN_INLINE std::shared_ptr<DeviceApi> DeviceConstants::open(const Backend& backend, int ordinal, const Options& options) {
    std::lock_guard<std::mutex> l(lock_);
    const auto key = std::make_pair(&backend, ordinal);
    std::erase_if(open_, [](auto& o) { return o.second.expired(); });
    for (auto& o : open_)
        if (o.first == key)
            if (auto api = o.second.lock()) return api;
    auto api = backend.open(ordinal, options);
    open_.emplace_back(key, api);
    return api;
}

QUERN_INLINE std::unique_ptr<Kernel> make_copy(int from) { return std::make_unique<plan_detail::Copy>(from); }
QUERN_INLINE void copy_elements(const View& from, const View& to) { plan_detail::Copy::copy_elements(from, to); }

QUERN_INLINE std::shared_ptr<const Plan> make_plan(Graph graph, const PlanOptions& options) {
    return plan_detail::Planner(std::move(graph), options).make();
}

QUERN_INLINE std::string describe_plan(const Plan& p) {
    std::string text;
    std::size_t segment = 0;
    for (std::size_t i = 0; i < p.steps.size(); ++i) {
        const PlanStep& s = p.steps[i];
        if (segment < p.segments.size() && p.segments[segment] == static_cast<int>(i)) {
            if (segment) text += "-- segment " + std::to_string(segment) + ": sizes from data\n";
            ++segment;
        }
        const Node* n = s.node >= 0 ? &p.graph.nodes[s.node] : nullptr;
        text += std::string(n ? n->op->name : "Copy") + " '" + (n ? n->name : p.values[s.out[0]].name) + "' by " +
                (s.kernel ? s.kernel->name() : s.view_of >= 0 ? "view" : s.placed ? "placement" : s.control ? "control" : s.beside >= 0 ? "copy beside earlier work" : s.transfer != Transfer::none ? "copy" : "late choice") +
                (p.device && s.device != Device::cpu ? " on the device" : "") + " ->";
        for (int v : s.out)
            if (v >= 0) text += " " + p.values[v].name + ":" + (v < static_cast<int>(p.graph.values.size()) ? p.graph.values[v].fact.to_string() : "");
        text += "\n";
        for (auto& r : s.refusals) text += "    not " + r + "\n";
        for (auto& b : s.branches) {
            text += "  subgraph " + b->graph.name + "\n";
            std::string inner = describe_plan(*b);
            for (std::size_t at = 0, end; at < inner.size(); at = end + 1) {
                end = inner.find('\n', at);
                text += "    " + inner.substr(at, end + 1 - at);
            }
        }
    }
    return text;
}

QUERN_END
