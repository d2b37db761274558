#pragma once
#include <algorithm>
#include <cstring>

#include "../base/guard.hpp"
#include "../ops/evaluate.hpp"
#include "control.hpp"
#include "runner.hpp"

QUERN_BEGIN

namespace runner_detail {
/// How long huge pages of activations may keep the first run waiting, nanoseconds; as for weights (plan/packs.hpp): small ones take three times as long a MB, and
/// runs are 0.5 to 1 % slower with them.
inline std::int64_t patience(std::size_t bytes) noexcept { return std::min<std::int64_t>(20'000'000, static_cast<std::int64_t>(bytes >> 20) * 100'000); }
}  // namespace runner_detail
QUERN_INLINE bool Arena::reserve(std::size_t n) {
    if (n <= size_) return false;
    const std::size_t before = size_;
    if (n <= pages_.size()) {  // untouched pages behind the used ones: shapes that grow step by step stay where they are
        size_ = std::min((n + 4095) / 4096 * 4096, pages_.size());
        pages_.prepare(before, size_, runner_detail::patience(size_ - before));
        return false;
    }
    if (size_) n += n / 4;
    n = (n + 4095) / 4096 * 4096;
    const bool pinned = api_ && device_ == Device::cpu && n <= most_pinned;
    if (device_ != Device::cpu || pinned || pinned_) release();
    if (device_ != Device::cpu) data_ = static_cast<std::byte*>(api_->allocate(n));
    // Where the system gives no more memory of that kind, other memory will do.
    pinned_ = pinned && guarded([&] { data_ = static_cast<std::byte*>(api_->allocate_pinned(n)); });
    if (device_ == Device::cpu && !pinned_) {
        bool grown = n <= SIZE_MAX / 8 && pages_.grow(4 * n);
        if (!grown && !pages_.grow(n)) release();
        data_ = pages_.data();
        pages_.prepare(size_, n, runner_detail::patience(n - size_));
    }
    if (!data_) raise(ErrorCode::out_of_memory, "no memory for " + std::to_string(n) + " bytes of activations");
    size_ = n;
    return true;
}
QUERN_INLINE void Arena::release() noexcept {
    if (data_ && device_ != Device::cpu) api_->release(data_);
    else if (data_ && pinned_) api_->release_pinned(data_);
    pages_.release();
    data_ = nullptr;
    size_ = 0;
}

QUERN_INLINE void RunShared::account(std::size_t before, std::size_t after) {
    if (after > before && memory_limit && memory_used - before + after > memory_limit)
        raise(ErrorCode::out_of_memory, "this run needs " + std::to_string(memory_used - before + after) + " bytes; memory_limit is " + std::to_string(memory_limit));
    memory_used = memory_used - before + after;
}

QUERN_INLINE Runner::~Runner() {
    for (void* e : events_)
        if (e) plan_->device->destroy_event(e);
}
QUERN_INLINE Runner::Runner(std::shared_ptr<const Plan> plan, RunShared& shared, std::vector<char> given) : plan_(std::move(plan)), shared_(shared) {
    const Plan& p = *plan_;
    int at = 0;
    for (auto& v : p.values) {
        dims_at_.push_back(at);
        at += static_cast<int>(v.dims.size());
    }
    dims_at_.push_back(at);
    at = 0;
    dying_.resize(p.steps.size() + 1);
    born_.resize(p.steps.size());
    controls_.resize(p.steps.size());
    takes_.assign(p.steps.size(), -1);
    boxes_.resize(p.values.size());
    box_bytes_.assign(p.values.size(), 0);
    views_of_.resize(p.values.size());
    io_of_.resize(p.values.size());
    given.resize(p.inputs.size());
    for (std::size_t s = 0; s < p.steps.size(); ++s) {
        io_at_.push_back(at);
        const PlanStep& st = p.steps[s];
        if (st.takes >= 0)
            if (auto& root = p.values[p.values[st.in[st.takes]].root]; root.home == PlanValue::Home::box || given[root.index]) takes_[s] = st.takes;
        for (std::size_t i = 0; i < st.in.size(); ++i)
            if (st.in[i] >= 0 && takes_[s] != static_cast<int>(i)) io_of_[p.values[st.in[i]].root].push_back(at + static_cast<int>(i));
        at += static_cast<int>(st.in.size() + st.out.size());
        if (st.control) controls_[s] = make_control(p, st, shared);
        if (st.beside >= 0) born_[st.beside].push_back(st.out[0]);
    }
    io_at_.push_back(at);
    for (std::size_t i = 0; i < p.segments.size(); ++i)
        segment_end_.push_back(i + 1 < p.segments.size() ? p.segments[i + 1] : static_cast<int>(p.steps.size()));
    for (std::size_t v = 0; v < p.values.size(); ++v)
        if (p.values[v].home == PlanValue::Home::arena && p.values[v].last >= 0) dying_[p.values[v].last].push_back(static_cast<int>(v));
    for (const PlanValue& x : p.values) {
        if (x.home != PlanValue::Home::columns) continue;
        const int made = p.values[x.root].made;
        auto among = [&](const std::vector<int>& values) { return std::find(values.begin(), values.end(), x.root) != values.end(); };
        if (!among(p.steps[made].out) && !among(born_[made])) born_[made].push_back(x.root);
    }
    for (std::size_t v = 0; v < p.values.size(); ++v)
        if (p.values[v].home != PlanValue::Home::unused) views_of_[p.values[v].root].push_back(static_cast<int>(v));
    for (std::size_t i = 0; i < p.segments.size() * (p.device ? 2 : 1); ++i) arenas_.emplace_back(p.device.get(), i < p.segments.size() ? Device::cpu : Device::cuda);
    adopted_.resize(p.values.size());
    if (p.device) events_.assign(p.steps.size(), nullptr);
    block_of_.assign(p.values.size(), -1);
    scratch_of_.assign(p.steps.size(), -1);
    written_.assign(p.outputs.size(), -1);
    for (std::size_t o = 0; o < p.outputs.size() && !p.device && p.depth == 0; ++o) {
        const PlanValue& x = p.values[p.outputs[o]];
        const int root = x.root;
        if (root < 0 || x.kind != Kind::tensor || x.dtype == DType::string || x.home == PlanValue::Home::columns || p.values[root].home != PlanValue::Home::arena) continue;
        if (std::find(written_.begin(), written_.end(), root) == written_.end()) written_[o] = root;
    }
}
QUERN_INLINE void Runner::write_outputs_to(std::span<const Tensor> to) {
    targets_.assign(to.begin(), to.end());
    ++targets_at_;
}
QUERN_INLINE bool Runner::owns(const void* data, std::size_t bytes) const noexcept {
    const auto from = reinterpret_cast<std::uintptr_t>(data);
    return std::any_of(arenas_.begin(), arenas_.end(), [&](const Arena& a) {
        const auto at = reinterpret_cast<std::uintptr_t>(a.data());
        return at && from < at + a.size() && at < from + bytes;
    });
}

QUERN_INLINE std::string Runner::where(int step) const {
    const PlanStep& s = plan_->steps[step];
    return s.node >= 0 ? place_of(plan_->graph.nodes[s.node]) : "copy of output '" + plan_->values[s.out[0]].name + "'";
}

QUERN_INLINE void Runner::init_frame(Frame& f) {
    const Plan& p = *plan_;
    f.slots.assign(p.program.size(), DimProgram::unknown);
    f.dims.assign(dims_at_.back(), 0);
    f.loose.resize(p.values.size());
    f.views.assign(p.values.size(), View{});
    f.offset.assign(p.values.size(), 0);
    f.segment_of.assign(p.values.size(), -1);
    f.segment_bytes.assign(arenas_.size(), 0);
    f.resolved.assign(p.segments.size(), 0);
    f.strings.resize(p.values.size());
    f.text.resize(p.values.size());
    f.contents.resize(p.values.size());
    f.io.assign(io_at_.back(), View{});
    f.steps.resize(p.steps.size());
    for (auto& s : f.steps) s.key.clear(), s.late_dims.clear(), s.now.clear(), s.after = {-1, -1};
    f.placed = 0;
    f.recordings.clear();
    for (std::size_t v = 0; v < p.values.size(); ++v) {
        f.views[v].dtype = p.values[v].home == PlanValue::Home::unused ? DType::undefined : p.values[v].dtype;
        f.views[v].kind = p.values[v].kind;
        f.views[v].rank = static_cast<std::int32_t>(p.values[v].dims.size());
        f.views[v].dims = f.dims.data() + dims_at_[v];
        f.views[v].pitch = p.values[v].pitch;
    }
}

QUERN_INLINE Frame* Runner::find_frame(std::span<const View> inputs) {
    auto matches = [&](const Frame& f) {
        std::size_t k = 0;
        for (auto& in : inputs) {
            if (k >= f.key.size() || f.key[k++] != in.rank) return false;
            for (int d = 0; d < in.rank; ++d)
                if (k >= f.key.size() || f.key[k++] != in.dims[d]) return false;
            if (k >= f.key.size() || f.key[k++] != in.room) return false;
        }
        return k == f.key.size();
    };
    if (frame_ && matches(*frame_)) return frame_;
    for (auto& f : frames_)
        if (matches(*f)) return f.get();
    constexpr std::size_t most_frames = 8;
    Frame* f;
    if (frames_.size() < most_frames) {
        frames_.push_back(std::make_unique<Frame>());
        f = frames_.back().get();
    } else {
        f = std::min_element(frames_.begin(), frames_.end(), [](auto& a, auto& b) { return a->used < b->used; })->get();
    }
    init_frame(*f);
    f->key.clear();
    for (auto& in : inputs) {
        f->key.push_back(in.rank);
        f->key.insert(f->key.end(), in.dims, in.dims + in.rank);
        f->key.push_back(in.room);
    }
    return f;
}

namespace runner_detail {
/// Kernels multiply sizes as they come, also those beside a zero.
inline void need_addressable(std::span<const std::int64_t> dims, const PlanValue& x) {
    if (!detail::is_addressable(dims)) raise(ErrorCode::out_of_memory, "value '" + x.name + "' of shape " + Shape(dims).to_string() + " does not fit into memory");
}
/// Whether the memory of `v` is what steps take `x` for. Sequences, optionals and maps are all a Value.
inline bool fits(const View& v, const PlanValue& x) { return v.kind == Kind::tensor ? x.kind == Kind::tensor && v.dtype == x.dtype : x.kind != Kind::tensor; }
}  // namespace runner_detail
QUERN_INLINE void Runner::bind(std::span<const View> inputs) {
    const Plan& p = *plan_;
    if (inputs.size() != p.inputs.size()) raise(ErrorCode::internal, std::to_string(inputs.size()) + " inputs given to a plan of " + std::to_string(p.inputs.size()));
    Frame* f = find_frame(inputs);
    frame_ = f;
    f->used = ++clock_;
    if (!f->resolved.empty() && !f->resolved[0])
        for (auto& b : p.binds) {
            std::int64_t d = inputs[b.input].dims[b.dim];
            if (f->slots[b.slot] == DimProgram::unknown) f->slots[b.slot] = d;
            else if (f->slots[b.slot] != d)
                raise(ErrorCode::shape_mismatch, "input '" + p.values[p.inputs[b.input]].name + "' has " + std::to_string(d) + " at dimension " +
                                                     std::to_string(b.dim) + " where another input gave " + std::to_string(f->slots[b.slot]) + " for the same symbol");
        }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        int v = p.inputs[i];
        if (!runner_detail::fits(inputs[i], p.values[v]))
            raise(ErrorCode::internal, "input '" + p.values[v].name + "' is " + dtype_name(inputs[i].dtype) + " of another kind or type than planned");
        if (p.values[v].ranked && static_cast<std::size_t>(inputs[i].rank) != p.values[v].dims.size())
            raise(ErrorCode::shape_mismatch, "input '" + p.values[v].name + "' has rank " + std::to_string(inputs[i].rank) + ", planned " + std::to_string(p.values[v].dims.size()));
        if (p.values[v].ranked && inputs[i].kind == Kind::tensor && !f->resolved.empty() && !f->resolved[0])
            for (int d = 0; d < inputs[i].rank; ++d)
                if (const Dim& planned = p.graph.values[static_cast<std::size_t>(v)].fact.dims[static_cast<std::size_t>(d)]; planned.is_const() && planned.value() != inputs[i].dims[d])
                    raise(ErrorCode::shape_mismatch, "input '" + p.values[v].name + "' is " + Shape(inputs[i].shape()).to_string() + "; planned: " + p.graph.values[static_cast<std::size_t>(v)].fact.to_string());
        if (!p.values[v].ranked) {
            f->loose[v].assign(inputs[i].dims, inputs[i].dims + inputs[i].rank);
            f->views[v].rank = inputs[i].rank;
            f->views[v].dims = f->loose[v].data();
            runner_detail::need_addressable(inputs[i].shape(), p.values[v]);
        }
        if (f->views[v].data != inputs[i].data) {
            repoint(v, inputs[i].data);
            if (p.values[v].device != Device::cpu) f->recordings.clear(), f->placed = 0;
        }
    }
    for (const Plan::Cache& c : p.caches) {
        const View& from = inputs[static_cast<std::size_t>(c.input)];
        View &old = f->views[p.inputs[static_cast<std::size_t>(c.input)]], &now = f->views[p.outputs[static_cast<std::size_t>(c.output)]];
        if (!from.room) continue;
        if (now.room != from.room || now.data != from.data) f->placed = 0;
        old.room = now.room = from.room;
        now.data = from.data;
    }
}

/// The memory of `root` (an input, or held) is elsewhere now.
QUERN_INLINE void Runner::repoint(int root, void* data) {
    for (int v : views_of_[root]) frame_->views[v].data = data;
    for (int k : io_of_[root]) frame_->io[k].data = data;
}

/// Dims of every value that this segment makes (and, for the first, of everything before).
QUERN_INLINE void Runner::evaluate_dims(int segment, int begin, int end) {
    const Plan& p = *plan_;
    Frame& f = *frame_;
    p.program.evaluate(f.slots.data(), 0, p.program.size());
    if (segment == 0)
        for (std::size_t v = 0; v < p.values.size(); ++v) {
            const PlanValue& x = p.values[v];
            if (x.home == PlanValue::Home::symbolic) {
                f.contents[v].resize(x.content.size());
                auto* out = reinterpret_cast<std::byte*>(f.contents[v].data());
                for (std::size_t i = 0; i < x.content.size(); ++i) {
                    std::int64_t e = f.slots[x.content[i]];
                    if (x.dtype == DType::i64) std::memcpy(out + 8 * i, &e, 8);
                    else if (x.dtype == DType::i32) { auto n = static_cast<std::int32_t>(e); std::memcpy(out + 4 * i, &n, 4); }
                    else out[i] = std::byte(e != 0);
                }
                f.views[v].data = out;
            } else if (x.home == PlanValue::Home::constant) {
                f.views[v].data = const_cast<void*>(x.device == Device::cpu ? x.constant.raw() : x.uploaded.get());
            }
            if (x.made < 0) set_shape(static_cast<int>(v));
        }
    for (int s = begin; s < end; ++s)
        for (int v : p.steps[s].out)
            if (v >= 0) with_place([&] { return where(s); }, [&] { set_shape(v); });
}

QUERN_INLINE void Runner::set_shape(int v) {
    const PlanValue& x = plan_->values[v];
    Frame& f = *frame_;
    if (x.home == PlanValue::Home::unused) return;
    if (!x.ranked) return runner_detail::need_addressable(f.views[v].shape(), x);
    std::int64_t* d = f.dims.data() + dims_at_[v];
    for (std::size_t i = 0; i < x.dims.size(); ++i) {
        d[i] = f.slots[x.dims[i]];
        if (d[i] < 0)
            raise(ErrorCode::shape_mismatch, "value '" + x.name + "' would get dimension " + std::to_string(d[i]) + " at " + std::to_string(i) +
                                                 ": the inputs' shapes do not fit the model");
    }
    runner_detail::need_addressable(f.views[v].shape(), x);
}

/// Of a value whose shape is known; raises out_of_memory where no memory could hold it.
QUERN_INLINE std::size_t Runner::bytes_of(int v) const {
    const View& w = frame_->views[v];
    if (w.room) return 0;  // where the input is
    std::int64_t n = 1;
    for (int d = 0; d < w.rank; ++d)
        if (w.dims[d] == 0) return 0;
    for (int d = 0; d < w.rank; ++d)
        if (__builtin_mul_overflow(n, w.dims[d], &n)) raise(ErrorCode::out_of_memory, "value '" + plan_->values[v].name + "' does not fit into memory");
    const std::size_t b = storage_bytes(w.dtype, n);
    if (b > SIZE_MAX / 4) raise(ErrorCode::out_of_memory, "value '" + plan_->values[v].name + "' does not fit into memory");
    return b;
}

/// Lays out the arena of a segment: each value from the step that makes it to the last that reads it, scratch for its step.
QUERN_INLINE void Runner::allocate(int segment, int begin, int end, Device device) {
    const Plan& p = *plan_;
    Frame& f = *frame_;
    layout_.clear();
    for (int s = begin; s < end; ++s) {
        const PlanStep& st = p.steps[s];
        for (int v : st.out)
            if (v >= 0) {
                adopted_[v] = 0;
                if (p.values[v].made == s && st.beside < 0) block_of_[v] = -1;
            }
        scratch_of_[s] = -1;
        int adopted_from = -1;
        for (int v : born_[s]) {
            if (p.values[v].device != device) continue;
            f.segment_of[v] = segment;
            adopted_[v] = 0;
            block_of_[v] = layout_.take(bytes_of(v), s);
        }
        for (std::size_t o = 0; o < st.out.size(); ++o) {
            int v = st.out[o];
            if (v < 0 || p.values[v].home != PlanValue::Home::arena || p.values[v].device != device || p.values[v].made != s || st.beside >= 0) continue;
            f.segment_of[v] = segment;
            if (p.values[v].dtype == DType::string) continue;
            std::size_t n = bytes_of(v);
            const Kernel* k = kernel_of(s);
            if (o == 0 && k && k->inplace && n)
                for (std::size_t i = 0; i < st.in.size() && adopted_from < 0; ++i) {
                    int r = st.in[i] < 0 ? -1 : p.values[st.in[i]].root;
                    if (r < 0 || !(k->inplace >> i & 1u) || p.values[r].home != PlanValue::Home::arena || p.values[r].last != s || f.segment_of[r] != segment || p.values[r].device != device) continue;
                    if (bytes_of(r) != n || bytes_of(st.in[i]) != n || p.values[r].dtype == DType::string) continue;
                    bool twice = false;  // the same memory under another shape at another input
                    for (std::size_t j = 0; j < st.in.size(); ++j) twice = twice || (j != i && st.in[j] >= 0 && st.in[j] != st.in[i] && p.values[st.in[j]].root == r);
                    if (twice) continue;
                    block_of_[v] = block_of_[r];
                    adopted_from = r;
                    adopted_[r] = 1;
                }
            if (adopted_from < 0 || o > 0) block_of_[v] = layout_.take(n, s);
        }
        if (kernel_of(s) && st.device == device) {
            scratch_of_[s] = layout_.take(f.steps[s].booking.scratch, s);
            layout_.give(scratch_of_[s], s);
        }
        for (int r : dying_[s])
            if (f.segment_of[r] == segment && !adopted_[r] && p.values[r].device == device && p.values[r].made >= begin && p.values[r].dtype != DType::string) layout_.give(block_of_[r], s);
    }
    f.segment_bytes[arena_of(segment, device)] = layout_.place();
    for (int s = begin; s < end; ++s) {
        for (int v : p.steps[s].out)
            if (v >= 0 && p.values[v].made == s && block_of_[v] >= 0) f.offset[v] = layout_.offset(block_of_[v]);
        for (int v : born_[s])
            if (p.values[v].device == device) f.offset[v] = layout_.offset(block_of_[v]);
        if (scratch_of_[s] >= 0) f.steps[s].scratch = layout_.offset(scratch_of_[s]);
    }
    if (p.device && device == Device::cpu) find_hazards(segment, begin, end);
}
QUERN_INLINE void Runner::book(int begin, int end) {
    const Plan& p = *plan_;
    Frame& f = *frame_;
    for (int s = begin; s < end; ++s) {
        const PlanStep& st = p.steps[s];
        View* io = f.io.data() + io_at_[s];
        for (int v : st.in) *io++ = v < 0 ? View{} : f.views[v];
        for (int v : st.out) *io++ = v < 0 ? View{} : f.views[v];
        if (const Kernel* k = kernel_of(s))
            with_place([&] { return where(s); }, [&] { f.steps[s].booking = k->book(in_views(s), out_views(s), shared_.workers->width()); });
    }
}

/// Pointers of all views for where the arenas are now.
QUERN_INLINE void Runner::place() {
    const Plan& p = *plan_;
    Frame& f = *frame_;
    for (std::size_t v = 0; v < p.values.size(); ++v) {
        const PlanValue& x = p.values[v];
        if (x.home == PlanValue::Home::arena && f.segment_of[v] >= 0 && !f.views[v].room)
            f.views[v].data = x.dtype == DType::string ? f.strings[v].raw() : arenas_[arena_of(f.segment_of[v], x.device)].data() + f.offset[v];
        if (x.home == PlanValue::Home::box) f.views[v].data = &boxes_[v];
    }
    for (std::size_t o = 0; o < targets_.size(); ++o) {
        const int root = written_[o];
        const Tensor& to = targets_[o];
        const View& v = f.views[p.outputs[o]];
        if (root < 0 || !to.defined() || f.segment_of[root] < 0 || v.room || to.dtype() != v.dtype || !std::ranges::equal(to.shape(), v.shape())) continue;
        if (bytes_of(root) == to.bytes()) f.views[root].data = const_cast<void*>(to.raw());
    }
    f.targets = targets_at_;
    for (std::size_t v = 0; v < p.values.size(); ++v)
        if (const PlanValue& x = p.values[v]; x.home == PlanValue::Home::view) f.views[v].data = f.views[x.root].data;
        else if (x.home == PlanValue::Home::columns) f.views[v].data = static_cast<std::byte*>(f.views[x.root].data) + storage_bytes(x.dtype, x.first);
    fill_io();
    f.placed = generation_;
    if (f.recordings.size() != p.recordable.size() || f.recorded != generation_) f.recordings.assign(p.recordable.size(), {});
    f.recorded = generation_;
}
QUERN_INLINE void Runner::fill_io() {
    Frame& f = *frame_;
    for (std::size_t s = 0; s < plan_->steps.size(); ++s) {
        const PlanStep& st = plan_->steps[s];
        View* io = f.io.data() + io_at_[s];
        for (int v : st.in) *io++ = v < 0 ? View{} : f.views[v];
        for (int v : st.out) *io++ = v < 0 ? View{} : f.views[v];
        if (takes_[s] >= 0) f.io[io_at_[s] + takes_[s]].data = &boxes_[st.out[0]];
    }
}

QUERN_INLINE void Runner::resolve(int segment) {
    Frame& f = *frame_;
    int begin = plan_->segments.empty() ? 0 : plan_->segments[segment], end = segment_end_.empty() ? 0 : segment_end_[segment];
    evaluate_dims(segment, begin, end);
    for (int s = begin; s < end; ++s)
        if (plan_->steps[s].check) with_place([&] { return where(s); }, [&] { verify_step(*plan_, s, f.slots.data()); });
    for (int s = begin; s < end; ++s)
        for (int v : plan_->steps[s].out) {
            if (v < 0 || plan_->values[v].home != PlanValue::Home::arena) continue;
            // Before kernels book: what they hold for a shape is a multiple of what is checked here.
            const std::size_t n = bytes_of(v);
            if (shared_.memory_limit && n > shared_.memory_limit)
                raise(ErrorCode::out_of_memory, "value '" + plan_->values[v].name + "' needs " + std::to_string(n) + " bytes; memory_limit is " + std::to_string(shared_.memory_limit));
            if (plan_->values[v].dtype != DType::string) continue;
            f.strings[v] = Tensor();
            count_text(v, 0);
            if (shared_.memory_limit) shared_.account(f.text[v], n), f.text[v] = n;
            f.strings[v] = Tensor(DType::string, Shape(f.views[v].shape()));
        }
    book(begin, end);
    for (Device device : {Device::cpu, Device::cuda}) {
        if (device != Device::cpu && !plan_->device) break;
        allocate(segment, begin, end, device);
        const std::size_t a = arena_of(segment, device), before = arenas_[a].size(), want = f.segment_bytes[a];
        if (want <= before) continue;
        shared_.account(before, want);
        shared_.memory_used -= want - before;
        if (plan_->device) plan_->device->synchronize(shared_.stream);  // nothing under way uses what is given back
        const auto moved = guarded([&] { return arenas_[a].reserve(want); });
        shared_.memory_used += arenas_[a].size() - before;
        if (!moved) {  // the memory is gone: no frame has any
            for (auto& other : frames_) std::fill(other->resolved.begin(), other->resolved.end(), char(0));
            raise(moved.error());
        }
        if (*moved) ++generation_;
    }
    f.resolved[segment] = 1;
    f.placed = 0;
    f.recordings.clear();
}

QUERN_INLINE void Runner::execute(int step) {
    const PlanStep& st = plan_->steps[step];
    Frame& f = *frame_;
    if (st.control) {
        auto out = controls_[step]->outputs();
        for (std::size_t o = 0; o < st.out.size(); ++o)
            if (int v = st.out[o]; v >= 0 && f.views[v].data != out[o].data) repoint(v, out[o].data);
        return;
    }
    if (st.transfer != Transfer::none) return transfer(step);
    const Kernel* k = kernel_of(step);
    if (!k) return;
    if (k->refers) {
        const Tensor& t = boxes_[st.out[0]].tensor();
        return repoint(st.out[0], const_cast<void*>(t.raw()));
    }
    if (takes_[step] >= 0) {
        auto& from = *static_cast<Value*>(f.views[st.in[takes_[step]]].data);
        boxes_[st.out[0]] = std::exchange(from, Value());
    }
    if (detail::is_empty(out_views(step))) return;
    std::byte* scratch = nullptr;
    if (f.steps[step].booking.scratch) {
        int segment = static_cast<int>(std::upper_bound(plan_->segments.begin(), plan_->segments.end(), step) - plan_->segments.begin()) - 1;
        scratch = arenas_[arena_of(segment, st.device)].data() + f.steps[step].scratch;
    }
    std::span<const View> weights;
    if (st.weights) weights = st.weights->views;
    if (shared_.memory_limit) expect_text(step);
    k->run(Call{in_views(step), out_views(step), scratch, f.steps[step].booking.state.get(), *shared_.workers, shared_.stream, weights});
    for (int v : st.out)
        if (v >= 0 && plan_->values[v].home == PlanValue::Home::box) count_box(v);
        else if (v >= 0 && f.strings[v].defined() && shared_.memory_limit) count_text(v, detail::text_bytes(f.strings[v].strings()));
}
/// Strings may become longer by each step, and more: refused where the longest ones that could come out do not fit.
QUERN_INLINE void Runner::expect_text(int step) {
    Frame& f = *frame_;
    for (int v : plan_->steps[step].out) {
        if (v < 0 || !f.strings[v].defined()) continue;
        const std::size_t each = detail::longest_text(in_views(step));
        if (!each) continue;
        const std::size_t n = f.strings[v].strings().size();
        if (n && each > (SIZE_MAX / 2 - shared_.memory_used) / n) raise(ErrorCode::out_of_memory, "the strings of value '" + plan_->values[v].name + "' do not fit into memory");
        const std::size_t before = shared_.memory_used;
        shared_.account(f.text[v], f.strings[v].bytes() + n * each);
        shared_.memory_used = before;
    }
}
QUERN_INLINE void Runner::count_text(int v, std::size_t content) {
    const std::size_t n = frame_->strings[v].defined() ? frame_->strings[v].bytes() + content : 0;
    shared_.account(frame_->text[v], n);
    frame_->text[v] = n;
}
QUERN_INLINE void Runner::count_box(int v) {
    std::size_t n = boxes_[v].bytes();
    shared_.account(box_bytes_[v], n);
    box_bytes_[v] = n;
}

QUERN_INLINE void Runner::run_step(int s) {
    const Plan& p = *plan_;
    Frame& f = *frame_;
    auto now = [] { return std::chrono::steady_clock::now(); };
    check_run(&shared_.cancelled, shared_.deadline);
    auto start = shared_.profile ? now() : std::chrono::steady_clock::time_point();
    const std::size_t listed = shared_.times->size();
    if (p.steps[s].on_host) before_host(s);
    if (p.steps[s].late) {
        late(s);
        if (f.placed != generation_) place();
    }
    const bool timed = shared_.profile && p.device && (p.steps[s].device != Device::cpu || p.steps[s].transfer != Transfer::none);
    struct Mark {
        DeviceApi* api;
        void* event;
        ~Mark() {
            if (event) api->destroy_event(event);
        }
    } begun{p.device.get(), timed ? p.device->mark(shared_.stream) : nullptr};
    execute(s);
    if (!shared_.profile || !(kernel_of(s) || p.steps[s].control || timed)) return;
    // The time of a device step is the device's own, from mark to mark.
    void* const ended = timed ? p.device->mark(shared_.stream) : nullptr;
    const double device_us = timed ? p.device->between(std::exchange(begun.event, nullptr), ended) : 0;
    if (p.device) p.device->synchronize(shared_.stream);
    using us = std::chrono::duration<double, std::micro>;
    const Node* n = p.steps[s].node >= 0 ? &p.graph.nodes[p.steps[s].node] : nullptr;
    double inner = 0;
    for (std::size_t k = listed; k < shared_.times->size(); ++k) inner += (*shared_.times)[k].micros - (*shared_.times)[k].inner_us;
    shared_.times->push_back({n ? n->name : "copy", n ? n->op->name : "Copy", kernel_of(s) ? kernel_of(s)->name() : p.steps[s].control ? "control" : "copy",
                              us(start - shared_.profile_start).count(), timed ? device_us : us(now() - start).count(), inner});
}

QUERN_INLINE void Runner::run(std::span<const View> inputs) {
    bind(inputs);
    const Plan& p = *plan_;
    Frame& f = *frame_;
    passed_ = {-1, -1};
    stale_ = shared_.unread && p.depth == 0;  // subgraphs end with settle()
    if (!f.resolved[0] && (p.steps.empty() || !p.steps[0].late)) resolve(0);
    else if (!f.resolved[0]) evaluate_dims(0, 0, 0);
    if (f.placed != generation_ || f.targets != targets_at_) place();
    // What the application records itself is enqueued step by step.
    const bool recorded = !p.recordable.empty() && shared_.device_graphs && !shared_.profile && shared_.deadline == no_deadline && !p.device->capturing(shared_.stream);
    std::size_t region = 0;
    for (int s = 0; s < static_cast<int>(p.steps.size()); ++s) {
        while (region < p.recordable.size() && p.recordable[region].first < s) ++region;
        if (recorded && region < p.recordable.size() && p.recordable[region].first == s && run_recorded(static_cast<int>(region))) {
            s = p.recordable[region].second - 1;
            continue;
        }
        with_place([&] { return where(s); }, [&] { run_step(s); });
    }
}

QUERN_INLINE std::size_t Runner::memory_bytes() const {
    std::size_t n = 0;
    for (auto& a : arenas_) n += a.size();
    for (std::size_t b : box_bytes_) n += b;
    for (auto& c : controls_)
        if (c) n += c->memory_bytes();
    return n;
}
QUERN_INLINE void Runner::trim() {
    std::erase_if(frames_, [&](auto& f) {
        if (f.get() == frame_) return false;
        for (std::size_t n : f->text) shared_.memory_used -= n;
        return true;
    });
    for (auto& c : controls_)
        if (c) c->trim();
}

QUERN_END
