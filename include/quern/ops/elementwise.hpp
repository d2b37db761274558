// What the element-wise operators share: facts, symbolic content, broadcasting of opsets before 7.
#pragma once
#include <algorithm>

#include <quern/kernels/elementwise/convert.hpp>
#include <quern/kernels/elementwise/problem.hpp>

#include "../base/guard.hpp"
#include "op.hpp"

QUERN_BEGIN
namespace ops_elementwise {

enum class Types : std::uint8_t { real, arith, number, integer, boolean };

/// Raises invalid_model when input i is of no type that the operator takes.
inline void need(const InferCtx& c, int i, Types types) {
    const DType t = c.in(i).dtype;
    const bool wide_float = t == DType::f32 || t == DType::f64 || t == DType::f16 || t == DType::bf16;
    const bool whole = is_integer(t) && dtype_bits(t) >= 8;
    switch (types) {
        case Types::real:
            if (wide_float) return;
            raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is " + dtype_name(t) + "; accepted: float, double, float16, bfloat16");
        case Types::arith:
            if (wide_float || whole) return;
            raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is " + dtype_name(t) +
                                                "; accepted: float, double, float16, bfloat16 and integers of 8 to 64 bits");
        case Types::number:
            if (ew::is_number(t)) return;
            raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is " + dtype_name(t) + "; accepted: numbers and bool");
        case Types::integer:
            if (whole) return;
            raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is " + dtype_name(t) + "; accepted: integers of 8 to 64 bits");
        case Types::boolean:
            if (t == DType::boolean) return;
            raise(ErrorCode::invalid_model, "input " + std::to_string(i) + " is " + dtype_name(t) + "; accepted: bool");
    }
}

/// Output 0 has input 0's dims and type t.
inline void like(InferCtx& c, DType t) {
    if (c.ranked(0)) c.set(0, t, c.in(0).dims);
    else c.set_unranked(0, t);
}
template <Types types>
void infer_same(InferCtx& c) {
    need(c, 0, types);
    like(c, c.in(0).dtype);
}
template <Types types>
void infer_to_bool(InferCtx& c) {
    need(c, 0, types);
    like(c, DType::boolean);
}
/// Output 0 has the broadcast of inputs [0, n).
inline void infer_broadcast(InferCtx& c, int n, DType t) {
    for (int i = 0; i < n; ++i)
        if (!c.ranked(i)) return c.set_unranked(0, t);
    std::vector<Dim> d = c.in(0).dims;
    for (int i = 1; i < n; ++i) d = broadcast(d, c.in(i).dims);
    c.set(0, t, std::move(d));
}

/// Content is followed through bool and the integers in which sizes do not wrap.
inline bool follows(DType t) { return t == DType::i64 || t == DType::i32 || t == DType::boolean; }

/// f(), or nothing where numbers leave 64 bits or an expression grows too long: such content is left to the run.
template <class F>
std::optional<Dim> attempt(F&& f) {
    std::optional<Dim> d;
    const Result<void> r = guarded([&] { d = f(); });
    return r ? d : std::nullopt;
}
/// f(a, b) -> optional<Dim> for each element of the broadcast of inputs `i` and `j`, as content of output 0.
template <class F>
void binary_content(InferCtx& c, int i, int j, F&& f) {
    if (c.n_out() < 1 || !c.out(0).ranked || c.out(0).rank() > 1 || !follows(c.in(i).dtype) || !follows(c.out(0).dtype)) return;
    auto a = c.ints(i), b = c.ints(j);
    if (!a || !b || a->empty() || b->empty()) return;
    const std::size_t n = std::max(a->size(), b->size());
    if (n > 64 || (a->size() != n && a->size() != 1) || (b->size() != n && b->size() != 1)) return;
    std::vector<Dim> r;
    for (std::size_t k = 0; k < n; ++k) {
        std::optional<Dim> d = attempt([&] { return f((*a)[a->size() == 1 ? 0 : k], (*b)[b->size() == 1 ? 0 : k]); });
        if (!d) return;
        r.push_back(std::move(*d));
    }
    c.set_symbolic(0, std::move(r));
}
template <class F>
void unary_content(InferCtx& c, F&& f) {
    if (c.n_out() < 1 || !c.out(0).ranked || c.out(0).rank() > 1 || !follows(c.in(0).dtype) || !follows(c.out(0).dtype)) return;
    auto a = c.ints(0);
    if (!a || a->size() > 64) return;
    std::vector<Dim> r;
    for (auto& x : *a) {
        std::optional<Dim> d = attempt([&] { return f(x); });
        if (!d) return;
        r.push_back(std::move(*d));
    }
    c.set_symbolic(0, std::move(r));
}

/// Opsets before 7: `broadcast` = 1 aligns B's first dimension with A's dimension `axis` (default: B's last with
/// A's last). Gives B the trailing dimensions of 1 that today's broadcasting needs.
inline void import_axis(ImportCtx& c) {
    c.attrs.erase("consumed_inputs");
    if (c.opset >= 7 || !(c.attrs.has("axis") || c.attrs.has("broadcast"))) return;
    const std::int64_t axis = c.attrs.i("axis", -1);
    const bool aligned = c.attrs.i("broadcast", 0) != 0 && c.attrs.has("axis");
    c.attrs.erase("axis");
    c.attrs.erase("broadcast");
    if (!aligned || c.in.size() < 2 || !c.has(0) || !c.has(1)) return;
    const Fact &a = c.fact(0), &b = c.fact(1);
    if (!a.ranked || !b.ranked) c.unsupported("attribute axis of opset " + std::to_string(c.opset) + " needs inputs whose rank is known");
    const std::int64_t at = axis < 0 ? axis + a.rank() : axis;
    const std::int64_t tail = at < 0 || at > a.rank() ? -1 : a.rank() - at - b.rank();
    if (tail < 0)
        c.invalid("axis " + std::to_string(axis) + " does not place " + b.to_string() + " inside " + a.to_string());
    if (tail == 0) return;
    std::vector<std::int64_t> axes;
    for (std::int64_t i = 0; i < tail; ++i) axes.push_back(b.rank() + i);
    c.in[1] = c.add("Unsqueeze", {c.in[1], c.constant_ints(axes)})[0];
}
/// The program of one node on a device; scalars that are constant become part of it.
class DeviceProgram {
public:
    explicit DeviceProgram(const LowerCtx& c) : c_(c) {
        p_.rank = c.out(0).rank();
        p_.out = c.out(0).dtype;
    }
    void load(int i, bool whole) { step(ew::Code::load, 0, i, whole); }
    void unary(ew::UnaryOp op, bool whole, ew::UnaryParams v = {}) {
        p_.program.add({.code = ew::Code::unary, .function = static_cast<std::uint8_t>(op), .whole = whole, .alpha = v.alpha, .beta = v.beta, .gamma = v.gamma});
    }
    /// The accumulator with input i.
    void binary(ew::BinaryOp op, int i, bool whole) { step(ew::Code::binary, static_cast<std::uint8_t>(op), i, whole); }
    void binary_constant(ew::BinaryOp op, float v) {
        p_.program.add({.code = ew::Code::binary, .function = static_cast<std::uint8_t>(op), .operand = ew::constant_operand, .alpha = v});
    }
    /// Inputs i or j as the accumulator says.
    void select(int i, int j, bool whole) {
        p_.program.add({.code = ew::Code::select, .operand = input(i), .other = input(j), .whole = whole});
    }
    void keep(int temp) {
        p_.program.temps = std::max(p_.program.temps, temp + 1);
        p_.program.add({.code = ew::Code::keep, .operand = static_cast<std::uint8_t>(ew::first_temp + temp)});
    }
    void binary_temp(ew::BinaryOp op, int temp) {
        p_.program.add({.code = ew::Code::binary, .function = static_cast<std::uint8_t>(op), .operand = static_cast<std::uint8_t>(ew::first_temp + temp)});
    }
    /// Input i lacks the last `dims` dims of the output.
    void shift(int i, int dims) {
        const std::uint8_t at = input(i);
        p_.shift.resize(p_.inputs.size(), 0);
        p_.shift[at] = dims;
    }
    void to_whole(bool wide) { p_.program.add({.code = ew::Code::to_whole, .whole = true, .alpha = wide ? 1.0f : 0.0f}); }
    Lowered lower() {
        for (int i = 0; i < c_.n_in(); ++i)
            if (std::find(p_.inputs.begin(), p_.inputs.end(), i) == p_.inputs.end()) p_.unread |= 1u << i;
        p_.program.inputs = static_cast<int>(p_.inputs.size());
        if (!p_.shift.empty()) p_.shift.resize(p_.inputs.size(), 0);
        return quern::select(Family::elementwise, p_, c_.target);
    }

private:
    std::uint8_t input(int i) {
        auto at = std::find(p_.inputs.begin(), p_.inputs.end(), i);
        if (at == p_.inputs.end()) {
            p_.inputs.push_back(i);
            p_.types.push_back(c_.in(i).dtype);
            return static_cast<std::uint8_t>(p_.inputs.size() - 1);
        }
        return static_cast<std::uint8_t>(at - p_.inputs.begin());
    }
    void step(ew::Code code, std::uint8_t function, int i, bool whole) {
        ew::Step s{.code = code, .function = function, .whole = whole};
        const Tensor t = c_.constant(i);
        if (t.defined() && t.count() == 1 && (t.dtype() == DType::f32 || t.dtype() == DType::i64 || t.dtype() == DType::i32)) {
            s.operand = ew::constant_operand;
            if (t.dtype() == DType::f32) s.alpha = t.data<float>()[0];
            else s.constant = t.dtype() == DType::i64 ? t.data<std::int64_t>()[0] : t.data<std::int32_t>()[0];
            if (!whole && t.dtype() != DType::f32) s.alpha = static_cast<float>(s.constant);
        } else {
            s.operand = input(i);
        }
        p_.program.add(s);
    }
    const LowerCtx& c_;
    ew::Problem p_;
};
inline Lowered lower_unary(const LowerCtx& c, ew::UnaryOp op, ew::UnaryParams v = {}) {
    DeviceProgram p(c);
    const bool whole = is_integer(c.in(0).dtype);
    p.load(0, whole);
    p.unary(op, whole, v);
    return p.lower();
}
inline Lowered lower_binary(const LowerCtx& c, ew::BinaryOp op) {
    DeviceProgram p(c);
    const bool whole = is_integer(c.in(0).dtype) && (is_integer(c.in(1).dtype) || c.in(1).dtype == DType::boolean);
    p.load(0, whole);
    p.binary(op, 1, whole);
    return p.lower();
}
inline void drop_consumed(ImportCtx& c) { c.attrs.erase("consumed_inputs"); }

}  // namespace ops_elementwise
QUERN_END
