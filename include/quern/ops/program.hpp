// Program: a chain of element-wise nodes as one step of a device.
#pragma once
#include <quern/kernels/elementwise/problem.hpp>

#include "op.hpp"

QUERN_BEGIN
namespace ops_program {

/// Attributes: "steps": six integers each (code, function, operand, other, whole, constant); "params": alpha, beta and gamma of each;
/// "shift": of each input, as in ew::Problem; "out": the result's type. Raises invalid_model for what no kernel could execute.
inline ew::Program program(const Attrs& a, int inputs) {
    const std::vector<std::int64_t> steps = a.ints("steps");
    const std::vector<float> params = a.floats("params");
    const std::size_t n = steps.size() / 6;
    if (n < 1 || n > ew::max_program_steps || steps.size() != 6 * n || params.size() != 3 * n || inputs < 1 || inputs > ew::max_program_inputs)
        raise(ErrorCode::invalid_model, "a program of " + std::to_string(steps.size()) + " numbers, " + std::to_string(params.size()) + " parameters and " + std::to_string(inputs) +
                                            " inputs; accepted are 1 to " + std::to_string(ew::max_program_steps) + " steps of 6 and 3, and up to " + std::to_string(ew::max_program_inputs) + " inputs");
    ew::Program p;
    p.inputs = inputs;
    for (std::size_t i = 0; i < n; ++i) {
        const std::int64_t* s = steps.data() + 6 * i;
        const auto temp = [&](std::int64_t o) { return o >= ew::first_temp && o < ew::first_temp + ew::max_program_temps; };
        const auto operand = [&](std::int64_t o, bool constant) { return (o >= 0 && o < inputs) || temp(o) || (constant && o == ew::constant_operand); };
        bool fits = s[0] >= 0 && s[0] <= static_cast<std::int64_t>(ew::Code::to_real) && (s[4] == 0 || s[4] == 1);
        const auto code = static_cast<ew::Code>(fits ? s[0] : 0);
        const bool whole = s[4] == 1;
        fits = fits && s[1] >= 0 && s[1] < 256;
        switch (code) {
            case ew::Code::load: fits = fits && operand(s[2], true); break;
            case ew::Code::keep: fits = fits && temp(s[2]); break;
            case ew::Code::unary: fits = fits && s[1] < static_cast<std::int64_t>(ew::UnaryOp::count) && ew::has_unary(static_cast<ew::UnaryOp>(s[1]), whole); break;
            case ew::Code::binary:
            case ew::Code::reversed:
                fits = fits && s[1] < static_cast<std::int64_t>(ew::BinaryOp::count) && ew::has_binary(static_cast<ew::BinaryOp>(s[1]), whole) && operand(s[2], true);
                break;
            case ew::Code::select: fits = fits && operand(s[2], false) && operand(s[3], false); break;
            case ew::Code::to_whole: fits = fits && whole; break;
            case ew::Code::to_real: fits = fits && !whole; break;
        }
        if (!fits) raise(ErrorCode::invalid_model, "step " + std::to_string(i) + " of a program is none that can be executed");
        const bool named = code != ew::Code::unary && code != ew::Code::to_whole && code != ew::Code::to_real;
        for (std::int64_t o : {s[2], code == ew::Code::select ? s[3] : s[2]})
            if (named && temp(o)) p.temps = std::max(p.temps, static_cast<int>(o) - ew::first_temp + 1);
        p.add({.code = code, .function = static_cast<std::uint8_t>(s[1]), .operand = static_cast<std::uint8_t>(named ? s[2] : 0), .other = static_cast<std::uint8_t>(code == ew::Code::select ? s[3] : 0),
               .whole = whole, .alpha = params[3 * i], .beta = params[3 * i + 1], .gamma = params[3 * i + 2], .constant = s[5]});
    }
    return p;
}
inline void set(Attrs& a, const ew::Program& p) {
    std::vector<std::int64_t> steps;
    std::vector<float> params;
    for (int i = 0; i < p.steps; ++i) {
        const ew::Step& s = p.step[i];
        steps.insert(steps.end(), {static_cast<std::int64_t>(s.code), s.function, s.operand, s.other, s.whole ? 1 : 0, s.constant});
        params.insert(params.end(), {s.alpha, s.beta, s.gamma});
    }
    a.set("steps", std::move(steps));
    a.set("params", std::move(params));
}
inline std::vector<int> shifts(const Attrs& a, int inputs) {
    const std::vector<std::int64_t> given = a.ints("shift");
    if (!given.empty() && given.size() != static_cast<std::size_t>(inputs))
        raise(ErrorCode::invalid_model, "shift has " + std::to_string(given.size()) + " numbers for " + std::to_string(inputs) + " inputs");
    std::vector<int> shift;
    for (std::int64_t s : given) {
        if (s < 0 || s > ew::max_program_rank) raise(ErrorCode::invalid_model, "a shift of " + std::to_string(s) + "; accepted are 0 to " + std::to_string(ew::max_program_rank));
        shift.push_back(static_cast<int>(s));
    }
    return shift;
}
/// The dims of the result from those of the inputs.
inline std::vector<Dim> dims(std::span<const Fact* const> inputs, std::span<const int> shift) {
    std::vector<Dim> d;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        std::vector<Dim> x = inputs[i]->dims;
        if (!shift.empty()) x.insert(x.end(), static_cast<std::size_t>(shift[i]), Dim(1));
        d = broadcast(d, x);
    }
    return d;
}

}  // namespace ops_program
QUERN_END
