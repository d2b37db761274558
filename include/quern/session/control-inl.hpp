#pragma once
#include <algorithm>
#include <cstring>

#include <quern/kernels/sequence/sequence.hpp>

#include "../base/guard.hpp"
#include "../ops/evaluate.hpp"
#include "control.hpp"

QUERN_BEGIN

QUERN_INLINE std::byte* Kept::room(std::size_t n, std::size_t keep, RunShared& shared) {
    if (n <= memory_.size()) return memory_.data();
    std::size_t want = n;
    if (keep && memory_.size() < SIZE_MAX / 4) want = std::max(n, 2 * memory_.size());  // appending stays linear
    if (shared.memory_limit && shared.memory_used + want > shared.memory_limit) want = n;
    shared.account(0, want);  // while it is copied, both are there
    shared.memory_used -= want;
    Arena next;
    next.reserve(want);
    if (keep) std::memcpy(next.data(), memory_.data(), keep);
    shared.memory_used += next.size() - memory_.size();
    memory_.swap(next);
    return memory_.data();
}
QUERN_INLINE void Kept::assign(const View& from, RunShared& shared, Kind kind) {
    view_ = from;
    if (from.kind == Kind::tensor && kind != Kind::tensor) {
        box_ = seq::value_of(from);
        view_ = View{from.dtype, 0, nullptr, &box_, kind};
        return;
    }
    dims_.assign(from.dims, from.dims + from.rank);
    view_.dims = dims_.data();
    if (from.kind != Kind::tensor) {
        box_ = *from.in<Value>();
        view_.data = &box_;
        return;
    }
    auto n = static_cast<std::size_t>(from.count());
    if (from.dtype == DType::string) {
        strings_.resize(n);
        std::copy_n(from.in<std::string>(), n, strings_.begin());
        view_.data = strings_.data();
        return;
    }
    std::size_t b = storage_bytes(from.dtype, from.count());
    view_.data = room(b, 0, shared);
    if (b) std::memcpy(view_.data, from.data, b);
}
QUERN_INLINE void Kept::append(const View& slice, RunShared& shared) {
    if (slices_ == 0) {
        view_ = slice;
        dims_.assign(1, 0);
        dims_.insert(dims_.end(), slice.dims, slice.dims + slice.rank);
        slice_count_ = slice.count();
        at_ = 0;
        strings_.clear();
        if (slice.dtype != DType::string && dtype_bits(slice.dtype) < 8 && slice_count_ * dtype_bits(slice.dtype) % 8)
            raise(ErrorCode::unsupported, std::string("slices of ") + dtype_name(slice.dtype) + " that do not end at a byte");
    } else if (static_cast<std::size_t>(slice.rank) + 1 != dims_.size() || !std::equal(slice.dims, slice.dims + slice.rank, dims_.begin() + 1)) {
        raise(ErrorCode::shape_mismatch, "a scan output is " + Shape(slice.shape()).to_string() + " in iteration " + std::to_string(slices_) + " and was " +
                                             Shape(std::span<const std::int64_t>(dims_).subspan(1)).to_string() + " before; accepted: one shape");
    }
    ++slices_;
    if (slice.dtype == DType::string) {
        strings_.insert(strings_.end(), slice.in<std::string>(), slice.in<std::string>() + slice_count_);
        std::size_t n = strings_.capacity() * sizeof(std::string);
        shared.account(at_, n);
        at_ = n;
        return;
    }
    std::size_t b = storage_bytes(slice.dtype, slice_count_);
    if (b > SIZE_MAX / 2 - at_) raise(ErrorCode::out_of_memory, "a scan output does not fit into memory");
    std::byte* to = room(at_ + b, at_, shared);
    if (b) std::memcpy(to + at_, slice.data, b);
    at_ += b;
}
QUERN_INLINE View Kept::stacked(bool reverse, std::span<const std::int64_t> like, DType type, bool wanted) {
    if (slices_ == 0) {
        dims_.assign(1, wanted ? 0 : -1);
        dims_.insert(dims_.end(), like.begin(), like.end());
        view_ = View{type, static_cast<std::int32_t>(dims_.size()), dims_.data(), memory_.data()};
        if (type == DType::string) view_.data = strings_.data();
        return view_;
    }
    dims_[0] = slices_;
    view_.rank = static_cast<std::int32_t>(dims_.size());
    view_.dims = dims_.data();
    if (type == DType::string) {
        view_.data = strings_.data();
        for (std::int64_t i = 0, j = slices_ - 1; reverse && i < j; ++i, --j)
            std::swap_ranges(strings_.begin() + i * slice_count_, strings_.begin() + (i + 1) * slice_count_, strings_.begin() + j * slice_count_);
    } else {
        view_.data = memory_.data();
        std::size_t b = storage_bytes(type, slice_count_);
        for (std::int64_t i = 0, j = slices_ - 1; reverse && i < j; ++i, --j)
            std::swap_ranges(memory_.data() + static_cast<std::size_t>(i) * b, memory_.data() + static_cast<std::size_t>(i + 1) * b, memory_.data() + static_cast<std::size_t>(j) * b);
    }
    return view_;
}

QUERN_INLINE void Control::add_body(const std::shared_ptr<const Plan>& plan) {
    std::vector<char> given(plan->inputs.size(), 0);
    std::fill_n(given.begin(), plan->graph.formals, char(1));
    bodies_.push_back(std::make_unique<Runner>(plan, shared_, std::move(given)));
}
QUERN_INLINE void Control::run_body(Runner& body, std::span<const View> args) {
    body.run(args);
    body.settle();  // what it gives is read on the host
}
QUERN_INLINE std::size_t Control::memory_bytes() const {
    std::size_t n = kept_bytes();
    for (auto& b : bodies_) n += b->memory_bytes();
    return n;
}
QUERN_INLINE void Control::trim() {
    for (auto& b : bodies_) b->trim();
}

namespace control_detail {

/// The one element of a condition or count.
template <class T>
T scalar(const View& v, const char* what) {
    if (v.count() != 1) raise(ErrorCode::shape_mismatch, std::string(what) + " has " + std::to_string(v.count()) + " elements; accepted: 1");
    return *v.in<T>();
}
inline bool truth(const View& v, const char* what) { return scalar<std::uint8_t>(v, what) != 0; }

class If final : public Control {
public:
    If(const Plan& plan, const PlanStep& step, RunShared& shared) : Control(plan, step, shared) {}
    void run(std::span<const View> in) override {
        // Attributes are sorted by name: else_branch stands before then_branch.
        Runner& r = *bodies_[truth(in[0], "the condition of If") ? 1 : 0];
        run_body(r, in.subspan(1));
        for (std::size_t o = 0; o < out_.size(); ++o) give(o, r.output(o));
    }
};

/// What Loop and Scan share: values that come back to the body, and outputs that are stacked.
/// The body's outputs are `lead`, then the states, then slices.
class Iterated : public Control {
public:
    Iterated(const Plan& plan, const PlanStep& step, RunShared& shared, std::size_t states, std::size_t lead)
        : Control(plan, step, shared), body_(*bodies_[0]), lead_(lead), states_(states) {
        const Plan& p = body_.plan();
        args_.resize(p.inputs.size());
        stacks_.resize(p.outputs.size() - lead - states);
        reverse_.resize(stacks_.size());
        wanted_.resize(stacks_.size());
        out_.resize(std::max(out_.size(), states + stacks_.size()));
        for (std::size_t k = 0; k < stacks_.size(); ++k) {
            int v = states + k < step.out.size() ? step.out[states + k] : -1;
            wanted_[k] = v >= 0 && plan.values[v].last > plan.values[v].made;
            std::vector<std::int64_t> like;
            for (auto& d : p.graph.fact(p.graph.outputs[lead + states + k]).dims) like.push_back(d.is_const() ? d.value() : -1);
            like_.push_back(std::move(like));
        }
    }

protected:
    /// `in` from the first state on; the states go to args from `at` on.
    void begin(std::span<const View> in, std::size_t at) {
        at_ = at;
        for (std::size_t i = 0; i < states_.size(); ++i) {
            args_[at + i] = in[i];
            if (in[i].kind == Kind::tensor && kind(i) == Kind::tensor) continue;
            states_[i].assign(in[i], shared_, kind(i));  // the body may empty it
            args_[at + i] = states_[i].view();
        }
        for (auto& k : stacks_) k.clear();
        ran_ = false;
    }
    void step() {
        run_body(body_, args_);
        ran_ = true;
        for (std::size_t k = 0; k < stacks_.size(); ++k)
            if (wanted_[k]) stacks_[k].append(body_.output(lead_ + states_.size() + k), shared_);
    }
    /// The states that the last step gave become those of the next.
    void carry() {
        for (std::size_t i = 0; i < states_.size(); ++i) {
            states_[i].assign(body_.output(lead_ + i), shared_, kind(i));
            args_[at_ + i] = states_[i].view();
        }
    }
    /// The states of the last iteration stay where the body left them; without one they are copied, for the node's
    /// inputs may go before its outputs do.
    void finish() {
        for (std::size_t i = 0; i < states_.size(); ++i) {
            if (!ran_) states_[i].assign(args_[at_ + i], shared_, kind(i));
            give(i, ran_ ? body_.output(lead_ + i) : states_[i].view());
        }
        for (std::size_t k = 0; k < stacks_.size(); ++k)
            out_[states_.size() + k] = stacks_[k].stacked(reverse_[k], like_[k], body_.output_type(lead_ + states_.size() + k), wanted_[k]);
    }
    /// Of state i, as the body takes it.
    Kind kind(std::size_t i) const { return body_.plan().values[body_.plan().inputs[at_ + i]].kind; }
    std::size_t kept_bytes() const override {
        std::size_t n = 0;
        for (auto& s : states_) n += s.bytes();
        for (auto& s : stacks_) n += s.bytes();
        return n;
    }

    Runner& body_;
    std::size_t lead_, at_ = 0;
    std::vector<View> args_;
    std::vector<Kept> states_, stacks_;
    std::vector<char> reverse_, wanted_;
    std::vector<std::vector<std::int64_t>> like_;
    bool ran_ = false;
};

class Loop final : public Iterated {
public:
    Loop(const Plan& plan, const PlanStep& step, RunShared& shared)
        : Iterated(plan, step, shared, step.branches[0]->graph.formals - 2, 1), formals_(body_.plan().graph.formals) {
        const Plan& p = body_.plan();
        for (std::size_t i = 0; i < 2; ++i)
            args_[i] = View{i ? DType::boolean : DType::i64, static_cast<std::int32_t>(p.values[p.inputs[i]].dims.size()), &one_, i ? static_cast<void*>(&go_) : &iteration_};
    }
    void run(std::span<const View> in) override {
        const std::int64_t trips = in[0].present() ? scalar<std::int64_t>(in[0], "the trip count of Loop") : INT64_MAX;
        go_ = !in[1].present() || truth(in[1], "the condition of Loop");
        begin(in.subspan(2), 2);
        std::copy(in.begin() + static_cast<std::ptrdiff_t>(formals_), in.end(), args_.begin() + static_cast<std::ptrdiff_t>(formals_));
        for (iteration_ = 0; iteration_ < trips && go_; ++iteration_) {
            check_run(&shared_.cancelled, shared_.deadline);
            step();
            go_ = truth(body_.output(0), "the condition that Loop's body gives");
            if (go_ && iteration_ + 1 < trips) carry();
        }
        finish();
    }

private:
    std::size_t formals_;
    std::int64_t iteration_ = 0, one_ = 1;
    std::uint8_t go_ = 1;
};

class Scan final : public Iterated {
public:
    Scan(const Plan& plan, const PlanStep& step, RunShared& shared)
        : Iterated(plan, step, shared, states_of(plan, step), 0), formals_(body_.plan().graph.formals), back_(formals_ - states_.size()) {
        const Attrs& a = plan.graph.nodes[step.node].attrs;
        auto set = [](std::vector<char>& to, const std::vector<std::int64_t>& from) {
            for (std::size_t i = 0; i < std::min(to.size(), from.size()); ++i) to[i] = from[i] != 0;
        };
        set(back_, a.ints("scan_input_directions"));
        set(reverse_, a.ints("scan_output_directions"));
    }
    void run(std::span<const View> in) override {
        const std::size_t first = states_.size();
        const std::int64_t trips = in[first].rank ? in[first].dims[0] : 0;
        for (std::size_t i = first; i < formals_; ++i) {
            const View& x = in[i];
            if (x.rank < 1 || x.dims[0] != trips)
                raise(ErrorCode::shape_mismatch, "scan input " + std::to_string(i - first) + " is " + Shape(x.shape()).to_string() + "; accepted: " + std::to_string(trips) + " slices, as the first has");
            args_[i] = x;
            args_[i].rank -= 1;
            args_[i].dims += 1;
            if (x.dtype != DType::string && trips > 1 && args_[i].count() * dtype_bits(x.dtype) % 8)
                raise(ErrorCode::unsupported, std::string("slices of ") + dtype_name(x.dtype) + " that do not end at a byte");
        }
        begin(in, 0);
        std::copy(in.begin() + static_cast<std::ptrdiff_t>(formals_), in.end(), args_.begin() + static_cast<std::ptrdiff_t>(formals_));
        for (std::int64_t t = 0; t < trips; ++t) {
            check_run(&shared_.cancelled, shared_.deadline);
            for (std::size_t i = first; i < formals_; ++i) {
                auto k = static_cast<std::size_t>(back_[i - first] ? trips - 1 - t : t);
                args_[i].data = static_cast<std::byte*>(in[i].data) + k * storage_bytes(in[i].dtype, args_[i].count());
            }
            step();
            if (t + 1 < trips) carry();
        }
        finish();
    }

private:
    static std::size_t states_of(const Plan& plan, const PlanStep& step) {
        return step.branches[0]->graph.formals - static_cast<std::size_t>(plan.graph.nodes[step.node].attrs.i("num_scan_inputs", 0));
    }
    std::size_t formals_;
    std::vector<char> back_;
};

/// SequenceMap: the body runs on each element; elements go in by reference.
class Map final : public Control {
public:
    Map(const Plan& plan, const PlanStep& step, RunShared& shared) : Control(plan, step, shared), lists_(out_.size()), counted_(out_.size(), 0) {
        args_.resize(bodies_[0]->plan().inputs.size());
        now_.resize(args_.size());
    }
    void run(std::span<const View> in) override {
        Runner& body = *bodies_[0];
        const std::size_t own = body.plan().graph.formals, n = in[0].in<Value>()->size();
        std::copy(in.begin(), in.end(), args_.begin());
        for (std::size_t i = 0; i < own; ++i)
            if (in[i].kind == Kind::sequence && in[i].in<Value>()->size() != n)
                raise(ErrorCode::shape_mismatch, "input " + std::to_string(i) + " of SequenceMap has " + std::to_string(in[i].in<Value>()->size()) + " elements; accepted: " + std::to_string(n) + ", as the first has");
        for (auto& l : lists_) l = Value::sequence();
        for (std::size_t k = 0; k < n; ++k) {
            check_run(&shared_.cancelled, shared_.deadline);
            for (std::size_t i = 0; i < own; ++i)
                if (in[i].kind == Kind::sequence) element((*in[i].in<Value>())[k], i, body);
            run_body(body, args_);
            for (std::size_t o = 0; o < out_.size(); ++o) {
                lists_[o].push_back(seq::value_of(body.output(o)));
                shared_.account(counted_[o], lists_[o].bytes());
                counted_[o] = lists_[o].bytes();
            }
        }
        for (std::size_t o = 0; o < out_.size(); ++o) out_[o] = View{body.output_type(o), 0, nullptr, &lists_[o], Kind::sequence};
    }

private:
    void element(const Value& v, std::size_t i, const Runner& body) {
        const PlanValue& want = body.plan().values[body.plan().inputs[i]];
        now_[i] = v;
        if (want.kind != Kind::tensor) {
            args_[i] = View{want.dtype, 0, nullptr, &now_[i], want.kind};
            return;
        }
        now_[i] = Value(v.tensor().aligned());
        const Tensor& t = now_[i].tensor();
        if (t.dtype() != want.dtype) raise(ErrorCode::invalid_argument, std::string("an element is ") + dtype_name(t.dtype()) + "; accepted: " + dtype_name(want.dtype));
        args_[i] = detail::view_of(t);
    }
    std::size_t kept_bytes() const override {
        std::size_t n = 0;
        for (auto& l : lists_) n += l.bytes();
        return n;
    }
    std::vector<Value> lists_, now_;
    std::vector<std::size_t> counted_;
    std::vector<View> args_;
};

}  // namespace control_detail

QUERN_INLINE Control::Control(const Plan& plan, const PlanStep& step, RunShared& shared) : shared_(shared), out_(step.out.size()), boxes_(step.out.size()) {
    for (auto& b : step.branches) add_body(b);
    for (int v : step.out) kinds_.push_back(v < 0 ? Kind::tensor : plan.values[v].kind);
}
QUERN_INLINE void Control::give(std::size_t o, const View& v) {
    out_[o] = v;
    if (o >= kinds_.size() || v.kind != Kind::tensor || kinds_[o] == Kind::tensor) return;
    boxes_[o] = seq::value_of(v);
    out_[o] = View{v.dtype, 0, nullptr, &boxes_[o], kinds_[o]};
}

QUERN_INLINE std::unique_ptr<Control> make_control(const Plan& plan, const PlanStep& step, RunShared& shared) {
    std::string_view op = plan.graph.nodes[step.node].op->name;
    if (op == "If") return std::make_unique<control_detail::If>(plan, step, shared);
    if (op == "Loop") return std::make_unique<control_detail::Loop>(plan, step, shared);
    if (op == "Scan") return std::make_unique<control_detail::Scan>(plan, step, shared);
    if (op == "SequenceMap") return std::make_unique<control_detail::Map>(plan, step, shared);
    raise(ErrorCode::unsupported, "operator " + std::string(op) + " has no control step");
}

QUERN_END
