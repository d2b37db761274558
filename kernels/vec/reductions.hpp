// Loops of reductions over elements of each type, once per instruction set: beside vec::Table, which everything includes.
#pragma once
#include <type_traits>

#include <quern/kernels/vec/vec.hpp>

QUERN_BEGIN
namespace vec {

/// Loops over elements of one type T. Floats (f32, f64) are collected as double, whole numbers as T, wrapping. NaN wins over every number. As Table: pointers
/// may be aligned to the element only; no function allocates, throws or keeps state. Null where the type does not have the reduction.
struct ReduceLoops {
    /// acc[i] = acc[i] joined with the n values from x + i * n, for i in [0, count).
    void (*runs[static_cast<int>(Reduce::count)])(const void* x, std::int64_t count, std::int64_t n, void* acc);
    /// part[j] = part[j] joined with rows[i][j] for i in [0, count) in this order and j in [0, n); part is of type T. Where floats are collected as double and
    /// are not, that is for some 32 rows, which `widen` adds to acc; null: part is acc.
    void (*rows[static_cast<int>(Reduce::count)])(const void* const* rows, std::int64_t count, std::int64_t n, void* part);
    void (*widen[static_cast<int>(Reduce::count)])(const float* part, std::int64_t n, double* acc);
    /// The first (last) place that holds *v, or -1; any NaN where *v is one.
    std::int64_t (*find)(const void* x, std::int64_t n, const void* v, bool last);
    /// best[j] = the smallest (arg_rows[0]) or largest of best[j] and rows[i][j], place[j] = first + i where the row's is better, or equal and `last`; the
    /// first NaN stays. `place` holds whole numbers of T's size: first + count <= 128.
    void (*arg_rows[2])(const void* const* rows, std::int64_t count, std::int64_t n, std::int64_t first, bool last, void* best, void* place);
    /// y[o * n + j] = the largest of x[o * step + t * apart + j] for t in [0, taps), taps > 0, o in [0, outputs), j in [0, n).
    void (*max_windows)(const void* x, std::int64_t taps, std::int64_t apart, std::int64_t outputs, std::int64_t step, std::int64_t n, void* y);
};
struct ReduceTable {
    ReduceLoops f32, f64, i32, i64, u64;
    ReduceLoops i8, u8;  ///< max, min and the places only
    /// y[i] = carry + x[0] + ... + x[i] (`exclusive`: without x[i]), in double, and the new carry; `reverse`: from the last one on. y may be x.
    void (*running_sum)(const float* x, float* y, std::int64_t n, double* carry, bool exclusive, bool reverse);
};

/// Those of T.
template <class T>
const ReduceLoops& loops_of(const ReduceTable& t) noexcept {
    if constexpr (std::is_same_v<T, float>) return t.f32;
    else if constexpr (std::is_same_v<T, double>) return t.f64;
    else if constexpr (std::is_same_v<T, std::int8_t>) return t.i8;
    else if constexpr (std::is_same_v<T, std::uint8_t>) return t.u8;
    else if constexpr (std::is_same_v<T, std::int32_t>) return t.i32;
    else if constexpr (std::is_same_v<T, std::int64_t>) return t.i64;
    else return t.u64;
}
/// The loops that go with table(cap).
QUERN_API const ReduceTable& reduce_table(Isa cap) noexcept;

}  // namespace vec
QUERN_END
