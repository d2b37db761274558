// Loop (https://onnx.ai/onnx/operators/onnx__Loop.html) and Scan (https://onnx.ai/onnx/operators/onnx__Scan.html).
//
// Inside the graph Scan runs along dimension 0 of its inputs and outputs: other axes are transposed around it, and the
// batches of Scan-8 are a Scan around the Scan.
#pragma once
#include <numeric>

#include "control.hpp"

QUERN_BEGIN
namespace ops_loop {

inline void formals(FormalsCtx& c) {
    std::size_t n = std::max<std::size_t>(c.inputs.size(), 2);
    auto scalar = [](DType t, const Fact* said) {  // some exporters count in tensors of one element
        bool one = said && said->ranked && said->rank() == 1;
        return Fact::of(t, one ? std::vector<Dim>{1} : std::vector<Dim>{});
    };
    c.facts = {scalar(DType::i64, c.said.empty() ? nullptr : c.said[0]), scalar(DType::boolean, c.said.size() < 2 ? nullptr : c.said[1])};
    c.from = {-1, -1};
    for (std::size_t i = 2; i < n; ++i) {
        if (!c.inputs[i]) raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " of Loop is missing");
        c.facts.push_back(ops_control::inner_fact(*c.inputs[i]));
        c.from.push_back(static_cast<int>(i) - 1);
    }
}

/// Whether the body's condition is true in every iteration that its input is true in.
inline bool goes_on(const Graph& body) {
    ValueId v = body.outputs[0];
    for (const Node* p = body.producer(v); p && std::string_view(op_name(*p->op)) == "Identity"; p = body.producer(v)) v = p->in[0];
    if (v == body.inputs[1]) return true;
    auto known = detail::small_ints(body.fact(v).value);
    return known && known->size() == 1 && (*known)[0];
}

inline void infer(InferCtx& c) {
    std::size_t own = 0;
    auto body = ops_control::body_of(c, "body", own);
    if (own != body->formals || own < 2)
        raise(ErrorCode::invalid_model, "Loop has " + std::to_string(own) + " inputs and its body " + std::to_string(body->formals) + "; accepted: the same number, 2 or more");
    if (c.has(0)) c.need_type(0, {DType::i64});
    if (c.has(1)) c.need_type(1, {DType::boolean});
    const std::size_t carried = own - 2;
    if (body->outputs.size() < carried + 1) raise(ErrorCode::invalid_model, "the body of Loop has " + std::to_string(body->outputs.size()) + " outputs; accepted: " + std::to_string(carried + 1) + " and more");
    ops_control::need_outputs(c, *body, 1);
    const Fact& cond = body->fact(body->outputs[0]);
    if (cond.dtype != DType::boolean || cond.kind != Kind::tensor) raise(ErrorCode::invalid_model, "the condition that Loop's body gives is " + cond.to_string() + "; accepted: bool");
    ops_control::Outward outward(c);
    for (std::size_t o = 0; o < carried; ++o) {
        const Fact &first = c.in(static_cast<int>(o) + 2), &back = body->fact(body->outputs[o + 1]);
        if (!ops_control::agree(first, back))
            raise(ErrorCode::invalid_model, "carried value " + std::to_string(o) + " begins as " + first.to_string() + " and comes back as " + back.to_string() + "; accepted: one type");
        outward.set(static_cast<int>(o), body->fact(body->inputs[o + 2]));
    }
    std::optional<Dim> trips;
    auto always = c.has(1) ? c.const_ints(1) : std::optional(std::vector<std::int64_t>{1});
    if (auto m = c.has(0) ? c.ints(0) : std::nullopt; m && m->size() == 1 && always && always->size() == 1 && (*always)[0] && goes_on(*body)) trips = max((*m)[0], 0);
    for (std::size_t o = carried; o + 1 < body->outputs.size(); ++o) {
        const Fact& f = body->fact(body->outputs[o + 1]);
        ops_control::need_tensor(f, "scan output " + std::to_string(o - carried) + " of Loop");
        if (static_cast<int>(o) >= c.n_out()) break;
        outward.set(static_cast<int>(o), f, {trips ? *trips : c.fresh("loop")});
    }
}

}  // namespace ops_loop

namespace ops_scan {

/// An attribute list with one entry for each of n, or n zeros.
inline std::vector<std::int64_t> each(const Attrs& a, const char* name, std::size_t n) {
    auto v = a.ints(name);
    if (v.empty()) v.assign(n, 0);
    if (v.size() != n) raise(ErrorCode::invalid_model, std::string("attribute '") + name + "' of Scan has " + std::to_string(v.size()) + " entries; accepted: " + std::to_string(n));
    return v;
}
inline std::size_t scan_inputs(const Attrs& a, std::size_t own) {
    std::int64_t n = a.i("num_scan_inputs", 0);
    if (n < 1 || static_cast<std::uint64_t>(n) > own) raise(ErrorCode::invalid_model, "num_scan_inputs is " + std::to_string(n) + "; accepted: 1 to the number of inputs, " + std::to_string(own));
    return static_cast<std::size_t>(n);
}
inline std::int64_t axis_of(std::int64_t axis, int rank) {
    if (axis < -rank || axis >= rank) raise(ErrorCode::invalid_model, "axis " + std::to_string(axis) + " of Scan is outside of rank " + std::to_string(rank));
    return axis < 0 ? axis + rank : axis;
}

/// In the form of any opset, as the importer needs it: axes, and the batch of Scan-8.
inline void formals(FormalsCtx& c) {
    const bool batched = c.opset != 0 && c.opset < 9;
    const std::size_t skip = batched ? 1 : 0, own = c.inputs.size() < skip ? 0 : c.inputs.size() - skip;
    const std::size_t scans = scan_inputs(c.attrs, own), states = own - scans;
    auto axes = each(c.attrs, "scan_input_axes", scans);
    for (std::size_t i = 0; i < own; ++i) {
        const Fact* in = c.inputs[i + skip];
        if (!in) raise(ErrorCode::invalid_model, "input " + std::to_string(i + skip) + " of Scan is missing");
        Fact f = ops_control::inner_fact(*in);
        auto drop = [&](std::int64_t axis) {
            if (f.kind == Kind::tensor && f.ranked) f.dims.erase(f.dims.begin() + static_cast<std::ptrdiff_t>(axis_of(axis, f.rank())));
        };
        if (batched) drop(0);
        if (i >= states) drop(batched ? 0 : axes[i - states]);
        c.facts.push_back(std::move(f));
        c.from.push_back(i < states ? static_cast<int>(i) : -1);
    }
}

inline void infer(InferCtx& c) {
    std::size_t own = 0;
    auto body = ops_control::body_of(c, "body", own);
    if (own != body->formals) raise(ErrorCode::invalid_model, "Scan has " + std::to_string(own) + " inputs and its body " + std::to_string(body->formals) + "; accepted: the same number");
    const std::size_t scans = scan_inputs(c.attrs, own), states = own - scans;
    if (body->outputs.size() < states) raise(ErrorCode::invalid_model, "the body of Scan has " + std::to_string(body->outputs.size()) + " outputs; accepted: " + std::to_string(states) + " and more");
    ops_control::need_outputs(c, *body, 0);
    each(c.attrs, "scan_input_directions", scans);
    each(c.attrs, "scan_output_directions", body->outputs.size() - states);
    ops_control::Outward outward(c);
    std::optional<Dim> trips;
    for (std::size_t i = states; i < own; ++i) {
        const Fact& f = c.in(static_cast<int>(i));
        ops_control::need_tensor(f, "scan input " + std::to_string(i - states));
        c.need_rank(static_cast<int>(i), 1);
        if (!f.ranked) continue;
        if (!trips || (!trips->is_const() && f.dims[0].is_const())) trips = f.dims[0];
        else if (compare(*trips, f.dims[0]) == 1 || compare(*trips, f.dims[0]) == -1)
            c.fail("the scan inputs have " + trips->to_string() + " and " + f.dims[0].to_string() + " slices; accepted: one number");
    }
    for (std::size_t o = 0; o < body->outputs.size(); ++o) {
        const Fact& f = body->fact(body->outputs[o]);
        if (o < states) {
            const Fact& first = c.in(static_cast<int>(o));
            if (!ops_control::agree(first, f))
                raise(ErrorCode::invalid_model, "state " + std::to_string(o) + " begins as " + first.to_string() + " and comes back as " + f.to_string() + "; accepted: one type");
            outward.set(static_cast<int>(o), body->fact(body->inputs[o]));
            continue;
        }
        ops_control::need_tensor(f, "scan output " + std::to_string(o - states));
        if (static_cast<int>(o) < c.n_out()) outward.set(static_cast<int>(o), f, {trips ? *trips : c.fresh("scan")});
    }
}

inline Attrs perm(int rank, std::int64_t from, std::int64_t to) {
    std::vector<std::int64_t> p(static_cast<std::size_t>(rank));
    std::iota(p.begin(), p.end(), 0);
    p.erase(p.begin() + static_cast<std::ptrdiff_t>(from));
    p.insert(p.begin() + static_cast<std::ptrdiff_t>(to), from);
    Attrs a;
    a.set("perm", std::move(p));
    return a;
}

/// Scan-8 as a Scan over the batch whose body is a Scan over the sequence. With `sequence_lens` each batch scans its first
/// steps only and its outputs are padded with zeros.
inline void import_batched(ImportCtx& c) {
    auto body = c.attrs.graph("body");
    if (!body) c.invalid("Scan needs the attribute body");
    if (c.in.empty()) c.invalid("Scan-8 has no inputs");
    const std::size_t own = body->formals, captured = body->inputs.size() - own, scans = scan_inputs(c.attrs, own), states = own - scans;
    if (c.in.size() != own + captured + 1) c.invalid("Scan has " + std::to_string(c.in.size() - captured) + " inputs and its body " + std::to_string(own) + "; accepted: one more than the body");
    const bool lens = c.in[0] != no_value;
    auto outer = std::make_shared<Graph>();
    outer->name = "batch";
    std::vector<ValueId> taken(c.in.begin() + 1, c.in.end());
    if (lens) taken.insert(taken.begin() + static_cast<std::ptrdiff_t>(own), c.in[0]);  // a scan input too
    outer->formals = own + lens;
    for (std::size_t i = 0; i < taken.size(); ++i) {
        Fact f = ops_control::inner_fact(c.graph.fact(taken[i]));
        if (i < outer->formals && f.ranked) {
            if (f.dims.empty()) c.invalid("input " + std::to_string(i + 1) + " of Scan-8 is a scalar; accepted: a batch");
            f.dims.erase(f.dims.begin());
        }
        outer->inputs.push_back(outer->add_value("batch~" + std::to_string(i), std::move(f)));
    }
    auto node = [&](const char* op, std::vector<ValueId> in, Attrs a, int n) {
        std::vector<ValueId> out;
        for (int o = 0; o < n; ++o) out.push_back(outer->add_value(outer->fresh_name(op), Fact()));
        NodeId id = outer->add_node(op_named(op), outer->fresh_name(op), std::move(in), out, std::move(a));
        infer_node(*outer, id);
        return out;
    };
    auto list = [&](std::vector<std::int64_t> v) {
        std::int64_t n = static_cast<std::int64_t>(v.size());
        return outer->add_constant(outer->fresh_name("ints"), Tensor::from(std::span<const std::int64_t>(v), {n}));
    };
    std::vector<ValueId> in(outer->inputs.begin(), outer->inputs.begin() + static_cast<std::ptrdiff_t>(own));
    ValueId length = no_value, rest = no_value;
    if (lens) {
        length = node("Unsqueeze", {outer->inputs[own], list({0})}, {}, 1)[0];
        Attrs first;
        first.set("start", std::int64_t{0}), first.set("end", std::int64_t{1});
        ValueId all = node("Shape", {in[states]}, first, 1)[0];
        rest = node("Sub", {all, length}, {}, 1)[0];
        for (std::size_t i = states; i < own; ++i) in[i] = node("Slice", {in[i], list({0}), length, list({0})}, {}, 1)[0];
    }
    in.insert(in.end(), outer->inputs.begin() + static_cast<std::ptrdiff_t>(outer->formals), outer->inputs.end());
    Attrs a;
    a.set("body", body);
    a.set("num_scan_inputs", static_cast<std::int64_t>(scans));
    if (auto d = c.attrs.ints("directions"); !d.empty()) a.set("scan_input_directions", d);
    auto out = node("Scan", in, a, static_cast<int>(body->outputs.size()));
    for (std::size_t o = states; lens && o < out.size(); ++o) {
        if (!outer->fact(out[o]).ranked) c.unsupported("Scan-8 with sequence_lens whose outputs have no rank");
        const auto rank = static_cast<std::size_t>(outer->fact(out[o]).rank());  // no reference: list() adds values
        std::vector<ValueId> pads;
        if (rank > 1) pads = {list(std::vector<std::int64_t>(rank, 0)), rest, list(std::vector<std::int64_t>(rank - 1, 0))};
        else pads = {list({0}), rest};
        Attrs axis;
        axis.set("axis", std::int64_t{0});
        out[o] = node("Pad", {out[o], node("Concat", pads, axis, 1)[0]}, {}, 1)[0];
    }
    outer->outputs = out;
    Attrs b;
    b.set("body", std::shared_ptr<const Graph>(outer));
    b.set("num_scan_inputs", static_cast<std::int64_t>(outer->formals));
    c.finish("Scan", taken, b);
}

inline void import(ImportCtx& c) {
    if (c.opset < 9) return import_batched(c);
    auto body = c.attrs.graph("body");
    if (!body) c.invalid("Scan needs the attribute body");
    const std::size_t own = body->formals, scans = scan_inputs(c.attrs, own), states = own - scans;
    if (c.in.size() != body->inputs.size() || body->outputs.size() < states) c.invalid("the inputs of Scan do not fit its body");
    auto in_axes = each(c.attrs, "scan_input_axes", scans), out_axes = each(c.attrs, "scan_output_axes", body->outputs.size() - states);
    c.attrs.erase("scan_input_axes"), c.attrs.erase("scan_output_axes");
    for (std::size_t i = 0; i < scans; ++i) {
        if (in_axes[i] == 0) continue;
        const Fact& f = c.fact(states + i);
        if (!f.ranked) c.unsupported("a scan axis other than 0 where the rank of the input is not known");
        c.in[states + i] = c.add("Transpose", {c.in[states + i]}, perm(f.rank(), axis_of(in_axes[i], f.rank()), 0))[0];
    }
    if (std::all_of(out_axes.begin(), out_axes.end(), [](std::int64_t a) { return a == 0; })) return c.finish("Scan", c.in, c.attrs);
    auto out = c.add("Scan", c.in, c.attrs, static_cast<int>(body->outputs.size()));
    for (std::size_t o = 0; o < out.size(); ++o) {
        if (o >= states && out_axes[o - states] != 0) {
            const Fact& f = c.graph.fact(out[o]);
            if (!f.ranked) c.unsupported("a scan output axis other than 0 where the rank of the output is not known");
            out[o] = c.add("Transpose", {out[o]}, perm(f.rank(), 0, axis_of(out_axes[o - states], f.rank())))[0];
        }
        c.alias(static_cast<int>(o), out[o]);
    }
}

}  // namespace ops_scan

QUERN_INLINE const OpDef& op_Loop() {
    static constexpr OpDef def{.name = "Loop", .min_in = 0, .min_out = 0, .max_out = 1 << 20, .newest = 25, .infer = ops_loop::infer,
                               .control = true, .formals = ops_loop::formals};
    return def;
}
QUERN_INLINE const OpDef& op_Scan() {
    static constexpr OpDef def{.name = "Scan", .min_in = 1, .max_out = 1 << 20, .newest = 25, .import = ops_scan::import,
                               .infer = ops_scan::infer, .control = true, .formals = ops_scan::formals};
    return def;
}

QUERN_END
