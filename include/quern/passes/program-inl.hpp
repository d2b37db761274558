// Element-wise nodes of a device that follow each other become one program, which one kernel executes: nothing is stored in between.
#pragma once
#include <optional>

#include "../base/guard.hpp"
#include "../ops/program.hpp"
#include "pass.hpp"
#include "trial.hpp"

QUERN_BEGIN
namespace passes_detail {

/// What an element-wise operator's lower_device asks for, caught by a backend that has only this entry.
class CaughtProgram final : public Kernel {
public:
    explicit CaughtProgram(const ew::Problem& p) : problem(p) {}
    static constexpr char label[] = "elementwise.caught";
    const char* name() const noexcept override { return label; }
    void run(const Call&) const override {}
    const ew::Problem problem;
};
inline std::string refuse_none(const ew::Problem&, const Target&) { return {}; }
inline std::unique_ptr<Kernel> make_caught(const ew::Problem& p, const Target&) { return std::make_unique<CaughtProgram>(p); }

/// A node, or several, as a program over values.
struct Piece {
    ew::Program program;
    std::vector<ValueId> in;    ///< of the program's inputs
    std::vector<int> shift;     ///< of the program's inputs
    std::vector<NodeId> parts;  ///< whose work it does, the last one's output included

    int find(ValueId v, int s) const {
        for (std::size_t i = 0; i < in.size(); ++i)
            if (in[i] == v && shift[i] == s) return static_cast<int>(i);
        return -1;
    }
    bool whole() const { return program.steps && program.step[program.steps - 1].whole; }
};
inline bool reads_operand(ew::Code c) { return c == ew::Code::load || c == ew::Code::binary || c == ew::Code::reversed || c == ew::Code::select; }
template <class F>
void rename(ew::Step& s, F&& name) {
    if (reads_operand(s.code)) s.operand = name(s.operand);
    if (s.code == ew::Code::select) s.other = name(s.other);
}

struct Programs {
    Graph& g;
    const PassContext& ctx;
    std::vector<int> uses = {};  // by value: pieces and other nodes that read it, outputs
    std::vector<std::optional<Piece>> pieces = {};
    std::vector<char> absorbed = {};

    bool run();
    std::optional<Piece> read(NodeId id) const;
    bool exact(ValueId v, const Piece& from) const;
    std::optional<Piece> merged(const Piece& to, int input, const Piece& from) const;
    bool absorb(NodeId id);
    bool replace(NodeId id);
};

inline std::optional<Piece> Programs::read(NodeId id) const {
    const Node& n = g.nodes[id];
    if (!n.op || n.device == Device::cpu || n.op->control || !n.op->lower_device || n.out.size() != 1 || n.out[0] == no_value || !g.fact(n.out[0]).ranked) return {};
    if (g.fact(n.out[0]).symbolic) return {};  // content that sizes follow from is inferred node by node
    static constexpr Entry<ew::Problem> entry{CaughtProgram::label, refuse_none, make_caught};
    const RankedEntry line[] = {{&entry, 1}};
    Backend backend{"programs", {}, n.device, nullptr};
    backend.lists[static_cast<int>(Family::elementwise)] = line;
    const Backend* const backends[] = {&backend};
    TrialTarget trial(ctx.target);
    trial.target.backends = backends;
    const LowerCtx lower{n, n.attrs, facts_of(g, n.in), {&g.fact(n.out[0])}, trial.target};
    const auto made = guarded([&] { return n.op->lower_device(lower); });
    if (!made || !made->kernel || made->kernel->name() != CaughtProgram::label) return {};
    const ew::Problem& p = static_cast<const CaughtProgram&>(*made->kernel).problem;
    if (p.inputs.empty() || p.out == DType::u64) return {};
    Piece piece;
    piece.program = p.program;
    piece.parts = {id};
    std::vector<std::uint8_t> moved;
    for (std::size_t i = 0; i < p.inputs.size(); ++i) {
        const ValueId v = n.in[static_cast<std::size_t>(p.inputs[i])];
        if (!g.fact(v).ranked || g.fact(v).dtype == DType::u64) return {};
        const int shift = p.shift.empty() ? 0 : p.shift[i];
        int at = piece.find(v, shift);
        if (at < 0) {
            at = static_cast<int>(piece.in.size());
            piece.in.push_back(v);
            piece.shift.push_back(shift);
        }
        moved.push_back(static_cast<std::uint8_t>(at));
    }
    piece.program.inputs = static_cast<int>(piece.in.size());
    for (int i = 0; i < piece.program.steps; ++i) rename(piece.program.step[i], [&](std::uint8_t o) { return o < moved.size() ? moved[o] : o; });
    return piece;
}

/// Whether v, which `from` ends in, is the accumulator itself, but for the rounding to a half type: it does not wrap or become a truth value.
inline bool Programs::exact(ValueId v, const Piece& from) const {
    const DType t = g.fact(v).dtype;
    if (t == DType::f32 || t == DType::f16 || t == DType::bf16 || t == DType::i64) return true;
    if (t != DType::boolean) return false;
    const ew::Step& last = from.program.step[from.program.steps - 1];
    if (last.code == ew::Code::unary) {
        const auto f = static_cast<ew::UnaryOp>(last.function);
        return f == ew::UnaryOp::is_nan || f == ew::UnaryOp::is_inf || f == ew::UnaryOp::logical_not;
    }
    return (last.code == ew::Code::binary || last.code == ew::Code::reversed) && ew::gives_bool(static_cast<ew::BinaryOp>(last.function));
}

/// `to` with the value of `from` computed in place of its input; nothing where that leaves the limits of programs.
inline std::optional<Piece> Programs::merged(const Piece& to, int input, const Piece& from) const {
    int reads = 0, wholes = 0;
    for (int i = 0; i < to.program.steps; ++i) {
        const ew::Step& s = to.program.step[i];
        if (!reads_operand(s.code)) continue;
        const int n = (s.operand == input) + (s.code == ew::Code::select && s.other == input);
        reads += n;
        wholes += s.whole ? n : 0;
    }
    if (wholes != 0 && wholes != reads) return {};
    Piece r;
    r.in = from.in;
    r.shift = from.shift;
    std::vector<std::uint8_t> moved;  // by input of `to`
    for (std::size_t i = 0; i < to.in.size(); ++i) {
        int at = static_cast<int>(i) == input ? 0 : r.find(to.in[i], to.shift[i]);
        if (at < 0) {
            at = static_cast<int>(r.in.size());
            r.in.push_back(to.in[i]);
            r.shift.push_back(to.shift[i]);
        }
        moved.push_back(static_cast<std::uint8_t>(at));
    }
    if (r.in.size() > ew::max_program_inputs) return {};
    std::vector<ew::Step> steps(from.program.step, from.program.step + from.program.steps);
    if (const bool whole = wholes != 0; from.whole() != whole)
        steps.push_back({.code = whole ? ew::Code::to_whole : ew::Code::to_real, .whole = whole, .alpha = whole ? 1.0f : 0.0f});
    const auto follow = [&](int first, std::uint8_t in_place_of_input) {
        for (int i = first; i < to.program.steps; ++i) {
            ew::Step s = to.program.step[i];
            rename(s, [&](std::uint8_t o) { return o >= to.in.size() ? o : o == input ? in_place_of_input : moved[o]; });
            steps.push_back(s);
        }
    };
    const ew::Step &first = to.program.step[0], &second = to.program.step[std::min(1, to.program.steps - 1)];
    int temps = to.program.temps;
    if (reads == 1 && first.code == ew::Code::load && first.operand == input) {
        follow(1, 0);
    } else if (reads == 1 && to.program.steps > 1 && first.code == ew::Code::load && first.whole == second.whole && second.operand == input &&
               (second.code == ew::Code::binary || second.code == ew::Code::reversed)) {
        ew::Step s = first;  // the operand and its constant
        s.code = second.code == ew::Code::binary ? ew::Code::reversed : ew::Code::binary;
        s.function = second.function;
        if (s.operand < to.in.size()) s.operand = moved[s.operand];
        steps.push_back(s);
        follow(2, 0);
    } else {
        const auto temp = static_cast<std::uint8_t>(ew::first_temp + temps++);
        steps.push_back({.code = ew::Code::keep, .operand = temp, .whole = wholes != 0});
        follow(first.code == ew::Code::load && first.operand == input ? 1 : 0, temp);
    }
    if (steps.size() > ew::max_program_steps) return {};
    for (const ew::Step& s : steps) r.program.add(s);
    r.program.inputs = static_cast<int>(r.in.size());
    r.program.temps = std::max(temps, from.program.temps);
    if (r.program.temps > ew::max_program_temps) return {};
    r.parts = from.parts;
    r.parts.insert(r.parts.end(), to.parts.begin(), to.parts.end());
    return r;
}

/// Takes one producer of the piece into it.
inline bool Programs::absorb(NodeId id) {
    Piece& to = *pieces[id];
    const std::vector<Dim>& dims = g.fact(g.nodes[id].out[0]).dims;
    for (std::size_t k = 0; k < to.in.size(); ++k) {
        const ValueId v = to.in[k];
        const NodeId p = g.values[v].producer;
        if (p < 0 || !pieces[p] || absorbed[p] || uses[v] != 1 || to.shift[k] != 0 || g.nodes[p].device != g.nodes[id].device) continue;
        if (!(g.fact(v).dims == dims) || !exact(v, *pieces[p])) continue;
        auto both = merged(to, static_cast<int>(k), *pieces[p]);
        if (!both) continue;
        // What both read is read once from now on.
        for (std::size_t i = 0; i < to.in.size(); ++i)
            if (i != k && pieces[p]->find(to.in[i], to.shift[i]) >= 0) --uses[to.in[i]];
        uses[v] = 0;
        absorbed[p] = 1;
        to = std::move(*both);
        return true;
    }
    return false;
}

inline bool Programs::replace(NodeId id) {
    const Piece& p = *pieces[id];
    const Node old = g.nodes[id];
    const ValueId out = old.out[0];
    std::vector<const Fact*> facts;
    ew::Problem problem;
    problem.program = p.program;
    problem.rank = g.fact(out).rank();
    problem.out = g.fact(out).dtype;
    for (std::size_t i = 0; i < p.in.size(); ++i) {
        facts.push_back(&g.fact(p.in[i]));
        problem.inputs.push_back(static_cast<int>(i));
        problem.types.push_back(facts.back()->dtype);
    }
    const bool shifted = std::any_of(p.shift.begin(), p.shift.end(), [](int s) { return s != 0; });
    if (shifted) problem.shift = p.shift;
    // A constant of more dimensions, which became a part of the program, may have shaped the result.
    if (!(ops_program::dims(facts, p.shift) == g.fact(out).dims) || best_rank(Family::elementwise, problem, ctx.target) == std::numeric_limits<int>::max()) return false;
    Attrs attrs;
    ops_program::set(attrs, p.program);
    attrs.set("out", static_cast<std::int64_t>(g.fact(out).dtype));
    if (shifted) attrs.set("shift", std::vector<std::int64_t>(p.shift.begin(), p.shift.end()));
    for (NodeId part : p.parts) g.remove_node(part);
    const NodeId made = g.add_node(op_named("quern::Program"), old.name, p.in, {out}, std::move(attrs));
    g.nodes[made].origin = old.origin;
    g.nodes[made].device = old.device;
    infer_node(g, made);
    return true;
}

inline bool Programs::run() {
    uses = g.use_counts();
    const std::vector<NodeId> order = g.order();
    for (NodeId id = 0; id < static_cast<NodeId>(g.nodes.size()); ++id) {
        pieces.push_back(read(id));
        if (!pieces.back()) continue;
        for (ValueId v : g.nodes[id].in)
            if (v != no_value) --uses[v];
        for (ValueId v : pieces.back()->in) ++uses[v];
    }
    absorbed.assign(g.nodes.size(), 0);
    for (NodeId id : order)
        if (pieces[id])
            while (absorb(id)) {}
    bool changed = false;
    for (NodeId id : order)
        if (pieces[id] && !absorbed[id] && pieces[id]->parts.size() > 1) changed = replace(id) || changed;
    return changed;
}

inline bool programs(Graph& g, const PassContext& ctx) {
    if (ctx.target.device == Device::cpu) return false;
    return Programs{g, ctx}.run();
}

}  // namespace passes_detail
QUERN_END
