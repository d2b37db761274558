// Element-wise functions of two tensors with broadcasting.
#pragma once
#include <quern/kernels/elementwise/convert.hpp>
#include <quern/kernels/elementwise/functions.hpp>
#include <quern/kernels/vec/functions.hpp>

QUERN_BEGIN
namespace ew {

struct BinaryContext {
    const vec::Table* table;
    const vec::FunctionTable* functions;
    int bits;  ///< of the tensor's elements
    BinaryContext(Isa isa, DType t) : table(&vec::table(isa)), functions(&vec::function_table(isa)), bits(dtype_bits(t)) {}
};
/// The loop of `op` on type `c` (a wide type); null where it is not defined on it.
BinaryLoop binary_loop(BinaryOp op, DType c) noexcept;
/// The loop on a type of 8 or 16 bits itself, where the result is that of the wide type; else null.
BinaryLoop narrow_loop(BinaryOp op, DType t) noexcept;

/// z = op(a, b), any number types; computed in the wide type of a (Pow: in f64 where an integer has a floating
/// exponent). Integers wrap around; division and modulo by zero give 0.
class BinaryKernel final : public Kernel {
public:
    BinaryKernel(BinaryOp op, DType a, DType b, DType out, Isa isa) : context_(isa, a) {
        in_ = wide_of(a);
        if (op == BinaryOp::pow && is_float(b) && !is_float(a)) in_ = DType::f64;
        loop_ = a == b ? narrow_loop(op, a) : nullptr;
        if (loop_) in_ = a;
        else loop_ = binary_loop(op, in_);
        out_ = gives_bool(op) ? DType::boolean : in_;
        if (!loop_) raise(ErrorCode::unsupported, std::string("this function of type ") + dtype_name(a));
        if (dtype_bits(a) == dtype_bits(out)) inplace |= 1;
        if (dtype_bits(b) == dtype_bits(out)) inplace |= 2;
        grain_ = op == BinaryOp::pow || op == BinaryOp::mod || op == BinaryOp::fmod ? costly_grain : cheap_grain;
    }
    const char* name() const noexcept override { return "elementwise.binary"; }
    void run(const Call& c) const override {
        run_binary(c.in[0], in_, c.in[1], in_, c.out[0], out_, loop_, &context_, grain_, c.workers);
    }

private:
    BinaryContext context_;
    DType in_, out_;
    BinaryLoop loop_;
    std::int64_t grain_;
};

/// z = (a == b) of strings.
class EqualStringsKernel final : public Kernel {
public:
    const char* name() const noexcept override { return "elementwise.equal_strings"; }
    void run(const Call& c) const override {
        const View* in[2] = {&c.in[0], &c.in[1]};
        const Broadcast<2> walk = make_broadcast<2>(c.out[0], in);
        auto *a = c.in[0].in<std::string>(), *b = c.in[1].in<std::string>();
        auto* z = c.out[0].out<std::uint8_t>();
        for_rows(walk, costly_grain, c.workers, [&](const std::int64_t* o, std::int64_t to, std::int64_t n) {
            for (std::int64_t i = 0; i < n; ++i) z[to + i] = a[o[0] + i * walk.step(0)] == b[o[1] + i * walk.step(1)];
        });
    }
};

}  // namespace ew
QUERN_END
#if defined(QUERN_HEADER_ONLY)
#include <quern/kernels/elementwise/binary-inl.hpp>
#endif
