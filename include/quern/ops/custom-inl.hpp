#pragma once
#include "../base/guard.hpp"
#include "custom.hpp"

QUERN_BEGIN
namespace ops_custom {

/// Runs code of the application: what leaves it that is no Error of quern's is the application's mistake.
template <class F>
auto foreign(F&& f) {
    auto r = guarded(std::forward<F>(f));
    if (!r) {
        if (r.error().code() == ErrorCode::internal) raise(ErrorCode::invalid_argument, "the operator's own code failed: " + r.error().message());
        raise(r.error());
    }
    if constexpr (!std::is_same_v<decltype(r), Result<void>>) return *std::move(r);
}

inline const CustomOp& op_of(const Node& n) { return *static_cast<const CustomDef*>(n.op)->custom; }

inline void infer(InferCtx& ctx) {
    const CustomOp& op = op_of(ctx.node);
    foreign([&] {
        CustomInfer c(ctx, op.sizes != nullptr);
        op.infer(c);
    });
    for (int o = 0; o < ctx.n_out(); ++o)
        if (ctx.node.out[static_cast<std::size_t>(o)] != no_value && ctx.outputs[static_cast<std::size_t>(o)].dtype == DType::undefined)
            raise(ErrorCode::invalid_argument, "the operator's infer() sets no type for output " + std::to_string(o));
}

class Adaptor final : public Kernel {
public:
    Adaptor(std::shared_ptr<const CustomOp> op, Attrs attrs, std::shared_ptr<const void> state)
        : op_(std::move(op)), attrs_(std::move(attrs)), view_(attrs_), state_(std::move(state)), name_(op_->name + ".custom") {}
    const char* name() const noexcept override { return name_.c_str(); }
    Booking book(std::span<const View> in, std::span<const View> out, int) const override {
        if (!op_->scratch) return {};
        Nobody nobody;
        const Call call{in, out, nullptr, nullptr, nobody};
        return {foreign([&] { return op_->scratch(CustomRun(call, view_, state_.get())); }), nullptr};
    }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        if (!op_->sizes) return false;
        foreign([&] { op_->sizes(CustomRun(call, view_, state_.get()), {dims, call.out.size()}); });
        for (std::size_t o = 0; o < call.out.size(); ++o)
            for (std::int64_t d : dims[o])
                if (d < 0) raise(ErrorCode::invalid_argument, "the operator's sizes() gives " + std::to_string(d) + " for a dimension of output " + std::to_string(o));
        return true;
    }
    void run(const Call& call) const override {
        foreign([&] { op_->run(CustomRun(call, view_, state_.get())); });
    }

private:
    struct Nobody final : Workers {
        int width() const noexcept override { return 1; }
        void run(std::int64_t n, Tile tile, void* context) override {
            for (std::int64_t i = 0; i < n; ++i) tile(context, i, 0);
        }
    };
    std::shared_ptr<const CustomOp> op_;
    Attrs attrs_;
    CustomAttributes view_;
    std::shared_ptr<const void> state_;
    std::string name_;
};
inline Lowered lower(const LowerCtx& ctx) {
    const auto& op = static_cast<const CustomDef*>(ctx.node.op)->custom;
    std::shared_ptr<const void> state;
    if (op->prepare) state = foreign([&] { return op->prepare(CustomNode(ctx.node, ctx.inputs)); });
    return std::unique_ptr<Kernel>(std::make_unique<Adaptor>(op, ctx.attrs, std::move(state)));
}
inline const View& view(std::span<const View> all, int i, const char* what) {
    if (i < 0 || static_cast<std::size_t>(i) >= all.size() || !all[static_cast<std::size_t>(i)].present())
        raise(ErrorCode::invalid_argument, std::string(what) + " " + std::to_string(i) + " is absent");
    return all[static_cast<std::size_t>(i)];
}

}  // namespace ops_custom

QUERN_INLINE CustomTable::CustomTable(std::span<const std::shared_ptr<const CustomOp>> ops) {
    for (auto& op : ops) {
        if (!op) raise(ErrorCode::invalid_argument, "a custom operator is null");
        const std::string who = "custom operator '" + op->domain + "::" + op->name + "' ";
        if (op->name.empty() || !op->infer || !op->run) raise(ErrorCode::invalid_argument, who + "has no name, infer or run");
        if (op->min_inputs < 0 || op->min_outputs < 1 || op->max_inputs < op->min_inputs || op->max_outputs < op->min_outputs)
            raise(ErrorCode::invalid_argument, who + "accepts no number of inputs or outputs; accepted: 0 <= min_inputs <= max_inputs, 1 <= min_outputs <= max_outputs");
        if (find(op->domain, op->name)) raise(ErrorCode::invalid_argument, who + "is given twice");
        if (find_op(op->domain, op->name) && !op->replaces_builtin)
            raise(ErrorCode::invalid_argument, who + "is one of quern's own; replaces_builtin lets it take that one's place");
        CustomDef d;
        d.custom = op;
        d.domain = op->domain == "ai.onnx" ? "" : op->domain.c_str();
        d.name = op->name.c_str();
        d.min_in = op->min_inputs, d.max_in = op->max_inputs;
        d.min_out = op->min_outputs, d.max_out = op->max_outputs;
        d.newest = 1;
        d.infer = ops_custom::infer;
        d.lower = ops_custom::lower;
        d.pure = op->pure;
        defs_.push_back(std::move(d));
    }
}
QUERN_INLINE const OpDef* CustomTable::find(std::string_view domain, std::string_view name) const noexcept {
    if (domain == "ai.onnx") domain = "";
    for (auto& d : defs_)
        if (name == d.name && domain == d.domain) return &d;
    return nullptr;
}

QUERN_INLINE bool CustomAttributes::has(std::string_view name) const noexcept { return attrs_->has(name); }
QUERN_INLINE std::int64_t CustomAttributes::i(std::string_view name, std::int64_t otherwise) const { return attrs_->i(name, otherwise); }
QUERN_INLINE float CustomAttributes::f(std::string_view name, float otherwise) const { return attrs_->f(name, otherwise); }
QUERN_INLINE std::string CustomAttributes::s(std::string_view name, std::string otherwise) const { return attrs_->s(name, std::move(otherwise)); }
QUERN_INLINE std::vector<std::int64_t> CustomAttributes::ints(std::string_view name) const { return attrs_->ints(name); }
QUERN_INLINE std::vector<float> CustomAttributes::floats(std::string_view name) const { return attrs_->floats(name); }
QUERN_INLINE std::vector<std::string> CustomAttributes::strings(std::string_view name) const { return attrs_->strings(name); }
QUERN_INLINE Tensor CustomAttributes::tensor(std::string_view name) const { return attrs_->tensor(name).aligned(); }

QUERN_INLINE CustomNode::CustomNode(const Node& n, std::span<const Fact* const> in) noexcept : CustomAttributes(n.attrs), node_(n), in_(in) {}
QUERN_INLINE std::string_view CustomNode::name() const noexcept { return node_.name; }
QUERN_INLINE int CustomNode::inputs() const noexcept { return static_cast<int>(in_.size()); }
QUERN_INLINE int CustomNode::outputs() const noexcept { return static_cast<int>(node_.out.size()); }
QUERN_INLINE bool CustomNode::has_input(int i) const noexcept { return i >= 0 && i < inputs() && in_[static_cast<std::size_t>(i)]; }
QUERN_INLINE const Fact& CustomNode::input(int i) const {
    if (!has_input(i)) raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is missing");
    return *in_[static_cast<std::size_t>(i)];
}
QUERN_INLINE DType CustomNode::type(int i) const { return input(i).dtype; }
QUERN_INLINE bool CustomNode::ranked(int i) const { return input(i).ranked; }
QUERN_INLINE const std::vector<Dim>& CustomNode::dims(int i) const { return input(i).dims; }
QUERN_INLINE Tensor CustomNode::constant(int i) const { return has_input(i) ? input(i).value.aligned() : Tensor(); }
QUERN_INLINE void CustomNode::unsupported(std::string why) const { raise(ErrorCode::unsupported, std::move(why)); }
QUERN_INLINE void CustomNode::fail(std::string why) const { raise(ErrorCode::shape_mismatch, std::move(why)); }

QUERN_INLINE CustomInfer::CustomInfer(InferCtx& c, bool has_sizes) noexcept : CustomNode(c.node, c.inputs), ctx_(c), has_sizes_(has_sizes) {}
QUERN_INLINE void CustomInfer::set(int o, DType t, std::vector<Dim> dims) {
    for (auto& d : dims)
        if (d.is_const() && d.value() < 0) fail("infer() gives dimension " + d.to_string() + " for output " + std::to_string(o));
    if (o >= 0) ctx_.set(o, t, std::move(dims));
}
QUERN_INLINE void CustomInfer::set_unranked(int o, DType t) {
    if (o >= 0) ctx_.set_unranked(o, t);
}
QUERN_INLINE Dim CustomInfer::unknown() {
    if (!ctx_.concrete) return ctx_.fresh("custom");
    if (!has_sizes_) raise(ErrorCode::invalid_argument, "infer() leaves a size open although all are known, and the operator has no sizes()");
    return 0;
}
QUERN_INLINE bool CustomInfer::concrete() const noexcept { return ctx_.concrete; }

QUERN_INLINE int CustomRun::inputs() const noexcept { return static_cast<int>(call_.in.size()); }
QUERN_INLINE int CustomRun::outputs() const noexcept { return static_cast<int>(call_.out.size()); }
QUERN_INLINE bool CustomRun::has_input(int i) const noexcept { return i >= 0 && i < inputs() && call_.in[static_cast<std::size_t>(i)].present(); }
QUERN_INLINE bool CustomRun::has_output(int o) const noexcept { return o >= 0 && o < outputs() && call_.out[static_cast<std::size_t>(o)].present(); }
QUERN_INLINE DType CustomRun::type(int i) const { return ops_custom::view(call_.in, i, "input").dtype; }
QUERN_INLINE std::span<const std::int64_t> CustomRun::shape(int i) const { return ops_custom::view(call_.in, i, "input").shape(); }
QUERN_INLINE DType CustomRun::output_type(int o) const { return ops_custom::view(call_.out, o, "output").dtype; }
QUERN_INLINE std::span<const std::int64_t> CustomRun::output_shape(int o) const { return ops_custom::view(call_.out, o, "output").shape(); }
QUERN_INLINE const void* CustomRun::data(int i) const { return ops_custom::view(call_.in, i, "input").data; }
QUERN_INLINE void* CustomRun::output_data(int o) const { return ops_custom::view(call_.out, o, "output").data; }
QUERN_INLINE std::byte* CustomRun::scratch() const noexcept { return call_.scratch; }
QUERN_INLINE int CustomRun::threads() const noexcept { return call_.workers.width(); }
QUERN_INLINE const void* CustomRun::checked(int i, bool output, DType t) const {
    const View& v = ops_custom::view(output ? call_.out : call_.in, i, output ? "output" : "input");
    if (v.dtype != t)
        raise(ErrorCode::invalid_argument, std::string(output ? "output " : "input ") + std::to_string(i) + " is " + dtype_name(v.dtype) + ", not " + dtype_name(t));
    return v.data;
}
QUERN_INLINE std::size_t CustomRun::count(int i, bool output) const noexcept {
    return static_cast<std::size_t>((output ? call_.out : call_.in)[static_cast<std::size_t>(i)].count());
}
QUERN_INLINE void CustomRun::run_tiles(std::int64_t n, Executor::Tile tile, void* context) const { call_.workers.run(n, tile, context); }

QUERN_END
