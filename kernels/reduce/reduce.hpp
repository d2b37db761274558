// Reductions over any set of axes.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include <quern/kernels/elementwise/convert.hpp>
#include <quern/kernels/vec/reductions.hpp>

QUERN_BEGIN
namespace reduce {

enum class Op : std::uint8_t { sum, mean, max, min, prod, l1, l2, log_sum, log_sum_exp, sum_square };

/// A tensor whose neighbouring dimensions of one kind (reduced or kept) are merged; 0 is the innermost.
struct Walk {
    int rank = 0;
    std::int64_t dims[ew::max_dims], strides[ew::max_dims];
    bool reduced[ew::max_dims];
    std::int64_t outputs = 1, each = 1;  ///< kept and reduced elements

    void push(std::int64_t d, bool red) {
        (red ? each : outputs) *= d;
        if (d == 1) return;
        if (rank && reduced[rank - 1] == red) {
            dims[rank - 1] *= d;
            return;
        }
        if (rank == ew::max_dims) raise(ErrorCode::unsupported, "reduction of more than 32 groups of axes");
        strides[rank] = rank ? strides[rank - 1] * dims[rank - 1] : 1;
        dims[rank] = d;
        reduced[rank++] = red;
    }
    /// Offset of the i-th combination of the dimensions of one kind, from dimension `first` on.
    std::int64_t offset(std::int64_t i, bool red, int first = 0) const noexcept {
        std::int64_t o = 0;
        for (int d = first; d < rank; ++d) {
            if (reduced[d] != red) continue;
            o += i % dims[d] * strides[d];
            i /= dims[d];
        }
        return o;
    }
};
/// axes: null reduces everything, or nothing where `noop`. Raises shape_mismatch for an axis outside of the rank.
Walk make_walk(const View& x, const View* axes, bool noop);

/// y = reduction of x over axes (https://onnx.ai/onnx/operators/onnx__ReduceSum.html and its family);
/// in[1], the axes (int64), is optional. Any number type. Sums of floats are collected in double. An empty set gives 0
/// for sums, 1 for prod, the least or greatest value of the type for max and min, NaN for the mean of floats.
class ReduceKernel final : public Kernel {
public:
    ReduceKernel(Op op, DType t, bool noop, Isa isa)
        : op_(op), type_(t), noop_(noop), table_(&vec::table(isa)), reductions_(&vec::reduce_table(isa)) {}
    const char* name() const noexcept override { return "reduce.portable"; }
    Booking book(std::span<const View> in, std::span<const View> out, int) const override {
        const DType w = wide();
        Booking b;
        b.scratch = partial_bytes(in[0].count(), out[0].count());
        if (w != type_) b.scratch += (op_ == Op::log_sum_exp ? wide_bytes(w, in[0].count()) : 0) + wide_bytes(w, out[0].count());
        return b;
    }
    void run(const Call& c) const override;

    static constexpr std::int64_t piece = 32768;  ///< elements of a part of one long reduction
    static std::size_t wide_bytes(DType w, std::int64_t n) noexcept {
        return (static_cast<std::size_t>(n) * static_cast<std::size_t>(dtype_bits(w)) / 8 + 63) / 64 * 64;
    }
    static std::size_t partial_bytes(std::int64_t n, std::int64_t outputs) noexcept {
        if (outputs <= 0) return 0;
        std::int64_t parts = outputs > 16 ? 0 : outputs * ((n / outputs + piece - 1) / piece + 1);
        if (outputs <= few_columns) parts = std::max(parts, outputs * row_parts(n));
        return (static_cast<std::size_t>(parts) * 16 + 63) / 64 * 64;
    }
    /// Few columns of many rows are reduced in parts of the rows: how many for n elements in all.
    static std::int64_t row_parts(std::int64_t n) noexcept { return std::min<std::int64_t>(32, n / (piece / 2)); }
    static constexpr std::int64_t few_columns = 2048;

private:
    /// The largest and smallest of integers of 16 bits are found among floats, which hold them exactly; of bytes among bytes.
    DType wide() const noexcept {
        const bool order = op_ == Op::max || op_ == Op::min;
        if (order && (type_ == DType::i8 || type_ == DType::u8)) return type_;
        return order && !is_float(type_) && dtype_bits(type_) <= 16 ? DType::f32 : ew::wide_of(type_);
    }
    Op op_;
    DType type_;
    bool noop_;
    const vec::Table* table_;
    const vec::ReduceTable* reductions_;
};

/// Index of the largest (`max`) or smallest element along one axis; the last of equal ones where `last`. Any number type.
class ArgKernel final : public Kernel {
public:
    ArgKernel(int axis, bool max, bool last, Isa isa)
        : axis_(axis), max_(max), last_(last), reductions_(&vec::reduce_table(isa)) {}
    const char* name() const noexcept override { return "reduce.arg"; }
    void run(const Call& c) const override;

private:
    int axis_;
    bool max_, last_;
    const vec::ReduceTable* reductions_;
};

/// Running sum or product along an axis; in[1] is the axis (int32 or int64, one value). Any number type; floats are collected in double.
class CumulativeKernel final : public Kernel {
public:
    CumulativeKernel(bool product, bool exclusive, bool reverse, Isa isa)
        : product_(product), exclusive_(exclusive), reverse_(reverse), reductions_(&vec::reduce_table(isa)) {
        inplace = 1;
    }
    const char* name() const noexcept override { return "reduce.cumulative"; }
    void run(const Call& c) const override;

private:
    bool product_, exclusive_, reverse_;
    const vec::ReduceTable* reductions_;
};

}  // namespace reduce
QUERN_END
#if defined(QUERN_HEADER_ONLY)
#include <quern/kernels/reduce/reduce-inl.hpp>
#endif
