// Element-wise functions of one tensor.
#pragma once
#include <quern/kernels/elementwise/convert.hpp>
#include <quern/kernels/elementwise/functions.hpp>
#include <quern/kernels/vec/functions.hpp>

QUERN_BEGIN
namespace ew {

struct UnaryContext {
    const vec::Table* table;
    const vec::FunctionTable* functions;
    UnaryOp op;
    UnaryParams p;
};
/// The loop of `op` on type `c` (a wide type); null where the function is not defined on it.
UnaryLoop unary_loop(UnaryOp op, DType c, const UnaryContext&) noexcept;

/// y = op(x); any number type, computed in wide_of(x). y has x's type, or bool for is_inf, is_nan and logical_not.
/// f32: within 4 ULP of the function for the transcendental ones (swish: 4 + |alpha * x|), exact for the others.
class UnaryKernel final : public Kernel {
public:
    UnaryKernel(UnaryOp op, DType in, DType out, UnaryParams p, Isa isa)
        : context_{&vec::table(isa), &vec::function_table(isa), op, p}, in_(wide_of(in)), out_(out == DType::boolean ? out : in_),
          loop_(unary_loop(op, in_, context_)) {
        if (!loop_) raise(ErrorCode::unsupported, std::string("this function of type ") + dtype_name(in));
        if (dtype_bits(in) == dtype_bits(out)) inplace = 1;
        const bool cheap = op == UnaryOp::abs || op == UnaryOp::neg || op == UnaryOp::relu || op == UnaryOp::logical_not ||
                           op == UnaryOp::leaky_relu || op == UnaryOp::hard_sigmoid || op == UnaryOp::hard_swish;
        grain_ = cheap ? cheap_grain : costly_grain;
    }
    const char* name() const noexcept override { return "elementwise.unary"; }
    void run(const Call& c) const override {
        run_unary(c.in[0], in_, c.out[0], out_, loop_, &context_, grain_, c.workers);
    }

private:
    UnaryContext context_;
    DType in_, out_;
    UnaryLoop loop_;
    std::int64_t grain_;
};

/// y = min(max(x, in[1]), in[2]); the bounds are optional scalars of x's type.
class ClipKernel final : public Kernel {
public:
    ClipKernel(DType t, Isa isa) : table_(&vec::table(isa)), type_(t) { inplace = 1; }
    const char* name() const noexcept override { return "elementwise.clip"; }
    void run(const Call& c) const override;

private:
    const vec::Table* table_;
    DType type_;
};

}  // namespace ew
QUERN_END
#if defined(QUERN_HEADER_ONLY)
#include <quern/kernels/elementwise/unary-inl.hpp>
#endif
